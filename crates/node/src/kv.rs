//! The key-value store as a state machine: the one that simulator and server share.

use crate::machine::{Part, StateMachine, Stored};
use bytes::Bytes;
use std::fmt;
use std::ops::ControlFlow;
use synod_protocols::Reader;
use synod_protocols::log::{Index, Ticket};
use synod_protocols::wire::put_bytes;
use synod_store::proto::etcdserverpb::{
    HashKvResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use synod_store::{Command, Error, MemoryMap, OrderedMap, Outcome, Refusal, Revision, Store, WriteBatch};

/// Where the node's replicated metadata stands in the store.
const METADATA_KEY: &[u8] = b"node";
/// Where the node keeps what is this member's own.
const OWN_KEY: &[u8] = b"log";

/// An ordered map that can be kept aside for a peer, made durable, and replaced as a whole.
pub trait StateMap: OrderedMap {
    /// The pairs as one commit left them.
    type View;

    /// The pairs as of the last commit, which later ones do not change.
    fn view(&mut self) -> Result<Self::View, Self::Error>;

    /// As [`OrderedMap::scan`] to the end, over a view.
    fn scan_view(
        &self,
        view: &Self::View,
        from: &[u8],
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// As [`StateMachine::persist`].
    fn persist(&mut self, ticket: Ticket) -> Result<(), Self::Error>;

    /// As [`StateMachine::persisted`].
    fn persisted(&mut self, _ticket: Ticket) {}

    /// Keeps pairs aside, in ascending order of their keys from call to call; with `first` what was
    /// kept before is forgotten.
    fn stage(&mut self, first: bool, pairs: Vec<(Bytes, Bytes)>) -> Result<(), Self::Error>;

    /// Forgets what was kept aside.
    fn unstage(&mut self);

    /// Puts what was kept aside, with `writes` on top, in the place of all pairs: durably, and
    /// across a crash whole or not at all.
    fn install(&mut self, writes: WriteBatch) -> Result<(), Self::Error>;
}

/// What clients ask without changing anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Keys and values.
    Range(RangeRequest),
    /// A transaction that only reads.
    Txn(TxnRequest),
    /// A hash of the keys and their history up to a revision; 0 for the present one. It walks
    /// through everything.
    Hash(Revision),
}

/// What they are told. Headers carry the revision alone; whoever answers the client fills in the rest.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Query::Range`].
    Range(RangeResponse),
    /// To [`Query::Txn`].
    Txn(TxnResponse),
    /// To [`Query::Hash`]; it has no header.
    Hash(HashKvResponse),
}

/// The store of `synod-store`, driven by a replicated log.
#[derive(Clone, Debug)]
pub struct KvMachine<M> {
    store: Store<M>,
    /// What is stored as the member's own, so that it is written only when it changes.
    own: Bytes,
    /// The last key that was staged.
    staged: Option<Bytes>,
    /// Where the metadata stands in the map: every commit writes there.
    metadata_key: Bytes,
}

impl<M: OrderedMap> KvMachine<M> {
    /// Opens the store that `map` holds; an empty map is an empty store.
    ///
    /// # Errors
    /// The map's, and where the map holds something else.
    pub fn open(map: M) -> Result<Self, Error<M::Error>> {
        let metadata_key = Store::<M>::node_map_key(METADATA_KEY);
        Ok(KvMachine { store: Store::open(map)?, own: Bytes::new(), staged: None, metadata_key })
    }

    /// The store, as applied.
    pub fn store(&self) -> &Store<M> {
        &self.store
    }

    /// As [`KvMachine::store`], for pairs of the node's own.
    pub(crate) fn store_mut(&mut self) -> &mut Store<M> {
        &mut self.store
    }

    /// The map below; what was applied and not committed is gone, as after a crash.
    pub fn into_map(self) -> M {
        self.store.into_map()
    }

    fn hash(&self, asked: Revision) -> Result<HashKvResponse, Error<M::Error>> {
        let revision = if asked.0 <= 0 { self.store.revision() } else { asked };
        let hash = self.store.hash_at(revision)?;
        Ok(HashKvResponse {
            header: None,
            // Both halves, so that a difference in either shows.
            hash: (hash ^ (hash >> 32)) as u32,
            compact_revision: self.store.compacted_revision().0,
        })
    }
}

/// A refusal is part of what the store answers; everything else stops the member.
fn settle<T, E>(result: Result<T, Error<E>>) -> Result<Result<T, Refusal>, Error<E>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Error::Refused(refusal)) => Ok(Err(refusal)),
        Err(error) => Err(error),
    }
}

impl<M: StateMap> StateMachine for KvMachine<M>
where
    Error<M::Error>: fmt::Display,
{
    type Query = Query;
    type Answer = Result<Answer, Refusal>;
    type Response = Outcome;
    type Error = Error<M::Error>;
    type View = M::View;

    fn apply(&mut self, _index: Index, command: Bytes) -> Result<Outcome, Self::Error> {
        match Command::decode(command) {
            Ok(command) => settle(self.store.apply(&command)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn query(&mut self, query: Query) -> Result<Self::Answer, Self::Error> {
        settle(match query {
            Query::Range(range) => self.store.range(&range).map(Answer::Range),
            Query::Txn(txn) => self.store.read_txn(&txn).map(Answer::Txn),
            Query::Hash(revision) => self.hash(revision).map(Answer::Hash),
        })
    }

    fn metadata(&self) -> Result<Option<Stored>, Self::Error> {
        let Some(replicated) = self.store.node_get(METADATA_KEY).map_err(Error::Map)? else {
            return Ok(None);
        };
        let own = self.store.node_get(OWN_KEY).map_err(Error::Map)?.unwrap_or_default();
        Ok(Some(Stored { replicated, own }))
    }

    fn commit(&mut self, stored: Stored) -> Result<(), Self::Error> {
        self.store.node_put_at(self.metadata_key.clone(), stored.replicated);
        if self.own != stored.own {
            self.store.node_put(OWN_KEY, stored.own.clone());
            self.own = stored.own;
        }
        self.store.commit()
    }

    fn persist(&mut self, ticket: Ticket) -> Result<(), Self::Error> {
        self.store.map_mut().persist(ticket).map_err(Error::Map)
    }

    fn persisted(&mut self, ticket: Ticket) {
        self.store.map_mut().persisted(ticket);
    }

    fn view(&mut self) -> Result<M::View, Self::Error> {
        self.store.map_mut().view().map_err(Error::Map)
    }

    /// A part is key and value of one pair after the other; the next one begins after the last key.
    fn read(&self, view: &M::View, from: &Bytes, bytes_max: usize) -> Result<Part, Self::Error> {
        let mut bytes = Vec::new();
        let mut last: Option<Bytes> = None;
        let mut more = false;
        let mut visit = |key: &Bytes, value: &Bytes| {
            if is_own(key) || key == from {
                return ControlFlow::Continue(());
            }
            if last.is_some() && bytes.len() + key.len() + value.len() > bytes_max {
                more = true;
                return ControlFlow::Break(());
            }
            put_bytes(&mut bytes, key);
            put_bytes(&mut bytes, value);
            last = Some(Bytes::copy_from_slice(key));
            ControlFlow::Continue(())
        };
        self.store.map().scan_view(view, from, &mut visit).map_err(Error::Map)?;
        Ok(Part { bytes: bytes.into(), next: last.filter(|_| more) })
    }

    fn stage(&mut self, first: bool, part: Bytes) -> Result<Result<(), String>, Self::Error> {
        if first {
            self.staged = None;
        }
        let pairs = match read_pairs(part, self.staged.clone()) {
            Ok(pairs) => pairs,
            Err(why) => return Ok(Err(why)),
        };
        self.staged = pairs.last().map(|(key, _)| key.clone()).or(self.staged.take());
        self.store.map_mut().stage(first, pairs).map_err(Error::Map)?;
        Ok(Ok(()))
    }

    fn unstage(&mut self) {
        self.staged = None;
        self.store.map_mut().unstage();
    }

    fn install(&mut self, stored: Stored) -> Result<(), Self::Error> {
        self.staged = None;
        self.own = stored.own.clone();
        let mut writes = WriteBatch::default();
        writes.put(self.metadata_key.clone(), stored.replicated);
        writes.put(Store::<M>::node_map_key(OWN_KEY), stored.own);
        self.store.replace(|map| map.install(writes))
    }
}

/// Whether a pair of the map is this member's own business, so that replicas differ in it.
pub fn is_own(key: &[u8]) -> bool {
    key.len() == OWN_KEY.len() + 1
        && key.ends_with(OWN_KEY)
        && *key == Store::<MemoryMap>::node_map_key(OWN_KEY)
}

/// The pairs in a part of a snapshot, whose keys must ascend from part to part.
fn read_pairs(part: Bytes, after: Option<Bytes>) -> Result<Vec<(Bytes, Bytes)>, String> {
    let mut reader = Reader::new(part);
    let mut pairs: Vec<(Bytes, Bytes)> = Vec::new();
    while reader.remaining() > 0 {
        let pair = reader.bytes("a key").and_then(|key| Ok((key, reader.bytes("a value")?)));
        let (key, value) = pair.map_err(|why| format!("a pair in it cannot be read: {why}"))?;
        let before = pairs.last().map(|(key, _)| key).or(after.as_ref());
        if before.is_some_and(|before| *before >= key) {
            return Err("its keys are out of order".to_owned());
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::convert::Infallible;
    use synod_store::proto::etcdserverpb::PutRequest;

    /// A map in memory, and what is staged beside it.
    #[derive(Debug, Default)]
    pub(crate) struct TestMap {
        map: MemoryMap,
        staged: WriteBatch,
    }

    impl OrderedMap for TestMap {
        type Error = Infallible;
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
            self.map.get(key)
        }
        fn scan(
            &self,
            from: &[u8],
            to: Option<&[u8]>,
            visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
        ) -> Result<(), Infallible> {
            self.map.scan(from, to, visit)
        }
        fn commit(&mut self, writes: WriteBatch) -> Result<(), Infallible> {
            self.map.commit(writes)
        }
    }

    impl StateMap for TestMap {
        type View = MemoryMap;
        fn view(&mut self) -> Result<MemoryMap, Infallible> {
            Ok(self.map.clone())
        }
        fn scan_view(
            &self,
            view: &MemoryMap,
            from: &[u8],
            visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
        ) -> Result<(), Infallible> {
            view.scan(from, None, visit)
        }
        fn persist(&mut self, _: Ticket) -> Result<(), Infallible> {
            Ok(())
        }
        fn stage(&mut self, first: bool, pairs: Vec<(Bytes, Bytes)>) -> Result<(), Infallible> {
            if first {
                self.unstage();
            }
            pairs.into_iter().for_each(|(key, value)| self.staged.put(key, value));
            Ok(())
        }
        fn unstage(&mut self) {
            self.staged = WriteBatch::default();
        }
        fn install(&mut self, writes: WriteBatch) -> Result<(), Infallible> {
            self.map = MemoryMap::new();
            self.map.commit(std::mem::take(&mut self.staged))?;
            self.map.commit(writes)
        }
    }

    fn stored(text: &'static str) -> Stored {
        Stored { replicated: Bytes::from(text), own: Bytes::from_static(b"own") }
    }

    fn put(machine: &mut KvMachine<TestMap>, value: &'static [u8]) {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(value));
        let command = Command::Put(PutRequest { key, value, ..PutRequest::default() });
        let outcome = machine.apply(Index(1), command.encode()).expect("memory does not fail");
        outcome.expect("a put is fine");
    }

    fn value(machine: &mut KvMachine<TestMap>) -> Option<Bytes> {
        let range = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
        let Ok(Ok(Answer::Range(mut response))) = machine.query(Query::Range(range)) else {
            panic!("a range is fine")
        };
        response.kvs.pop().map(|kv| kv.value)
    }

    #[test]
    fn what_is_applied_is_seen_at_once_and_is_stored_with_the_metadata() {
        let mut machine = KvMachine::open(TestMap::default()).expect("empty");
        put(&mut machine, b"one");
        machine.commit(stored("meta")).expect("memory does not fail");
        put(&mut machine, b"two");
        assert_eq!(value(&mut machine), Some(Bytes::from_static(b"two")));

        let mut crashed = KvMachine::open(machine.into_map()).expect("it was stored");
        assert_eq!(value(&mut crashed), Some(Bytes::from_static(b"one")));
        assert_eq!(crashed.metadata().expect("memory does not fail"), Some(stored("meta")));
    }

    fn numbered(machine: &mut KvMachine<TestMap>, count: u64) {
        for i in 0..count {
            let (key, value) = (Bytes::from(format!("{i:04}")), Bytes::from(vec![b'.'; i as usize % 50]));
            let put = Command::Put(PutRequest { key, value, ..PutRequest::default() });
            machine.apply(Index(i), put.encode()).expect("memory does not fail").expect("a put is fine");
        }
        machine.commit(stored("theirs")).expect("memory does not fail");
    }

    /// All parts of a view.
    fn parts(machine: &KvMachine<TestMap>, view: &MemoryMap, bytes_max: usize) -> Vec<Bytes> {
        let (mut parts, mut from) = (Vec::new(), Bytes::new());
        loop {
            let part = machine.read(view, &from, bytes_max).expect("memory does not fail");
            assert_eq!(
                Ok(&part),
                machine.read(view, &from, bytes_max).as_ref(),
                "the same question, the same answer"
            );
            parts.push(part.bytes);
            match part.next {
                Some(next) => from = next,
                None => return parts,
            }
        }
    }

    #[test]
    fn a_view_that_was_sent_in_parts_becomes_the_state_of_another() {
        let mut source = KvMachine::open(TestMap::default()).expect("empty");
        numbered(&mut source, 300);
        let view = source.view().expect("memory does not fail");
        let hash = source.store().hash_at(source.store().revision()).expect("it is not compacted");
        put(&mut source, b"later");
        source.commit(stored("later")).expect("memory does not fail");
        for bytes_max in [1, 1000, 1 << 20] {
            let mut target = KvMachine::open(TestMap::default()).expect("empty");
            put(&mut target, b"mine");
            target.commit(stored("mine")).expect("memory does not fail");
            let parts = parts(&source, &view, bytes_max);
            assert!(parts.iter().all(|part| part.len() <= bytes_max + 300), "parts are bounded");
            for (i, part) in parts.into_iter().enumerate() {
                assert_eq!(target.stage(i == 0, part), Ok(Ok(())));
                assert_eq!(value(&mut target), Some(Bytes::from_static(b"mine")), "it goes on serving");
            }
            target.install(stored("installed")).expect("memory does not fail");
            assert_eq!(value(&mut target), None);
            assert_eq!(target.store().hash_at(target.store().revision()), Ok(hash));
            assert_eq!(target.metadata(), Ok(Some(stored("installed"))));
        }
    }

    #[test]
    fn a_part_that_is_garbage_or_out_of_order_is_refused() {
        let mut source = KvMachine::open(TestMap::default()).expect("empty");
        numbered(&mut source, 20);
        let view = source.view().expect("memory does not fail");
        let parts = parts(&source, &view, 100);
        let refused = |parts: &[Bytes]| {
            let mut target = KvMachine::open(TestMap::default()).expect("empty");
            parts.iter().enumerate().any(|(i, part)| matches!(target.stage(i == 0, part.clone()), Ok(Err(_))))
        };
        assert!(!refused(&parts));
        assert!(refused(&[parts[0].slice(..parts[0].len() - 1)]), "cut short");
        assert!(refused(&[parts[1].clone(), parts[0].clone()]), "out of order");
        assert!(refused(&[parts[0].clone(), parts[0].clone()]), "twice");
    }

    #[test]
    fn a_command_that_does_not_decode_is_answered_by_a_refusal() {
        let mut machine = KvMachine::open(TestMap::default()).expect("empty");
        for garbage in [&b""[..], b"\xFF", b"\x01\xFF\xFF"] {
            let outcome =
                machine.apply(Index(1), Bytes::copy_from_slice(garbage)).expect("no failure of storage");
            assert!(outcome.is_err(), "{garbage:?}");
        }
    }
}
