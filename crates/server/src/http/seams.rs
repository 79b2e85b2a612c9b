//! What other parts of the server do for the API.

/// Causal and eventual keyspaces.
pub(super) mod weak {
    use crate::member::Member;
    use bytes::Bytes;
    use std::rc::Rc;
    use synod_node::spaces::Space;
    use synod_protocols::log::ReplicatedLog;
    use synod_protocols::weak::{Content, Name, Refusal, Write};

    /// Why a keyspace did not do what it was asked.
    #[derive(Debug)]
    #[allow(unused)]
    pub(crate) enum WeakError {
        Refused(Refusal),
        Stopped,
        NotHere,
    }

    pub(crate) async fn write<P: ReplicatedLog + 'static>(
        _: &Rc<Member<P>>,
        _: &Space,
        _: Option<Bytes>,
        _: Vec<Write>,
    ) -> Result<Option<Bytes>, WeakError> {
        Err(WeakError::NotHere)
    }

    pub(crate) async fn read<P: ReplicatedLog + 'static>(
        _: &Rc<Member<P>>,
        _: &Space,
        _: Option<Bytes>,
        _: Vec<Name>,
    ) -> Result<(Vec<Content>, Option<Bytes>), WeakError> {
        Err(WeakError::NotHere)
    }

    pub(crate) fn list<P: ReplicatedLog + 'static>(
        _: &Member<P>,
        _: &Space,
        _: &[u8],
        _: Option<&Name>,
        _: usize,
    ) -> Vec<(Name, Content)> {
        Vec::new()
    }
}
