//! The key-value store as a state machine: the one that simulator and server share.

use crate::machine::StateMachine;
use bytes::Bytes;
use std::fmt;
use synod_protocols::log::Index;
use synod_store::proto::etcdserverpb::{
    HashKvResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use synod_store::{Command, Error, OrderedMap, Outcome, Refusal, Revision, Store};

/// Where the node's own metadata stands in the store.
const METADATA_KEY: &[u8] = b"node";

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
}

impl<M: OrderedMap> KvMachine<M> {
    /// Opens the store that `map` holds; an empty map is an empty store.
    ///
    /// # Errors
    /// The map's, and where the map holds something else.
    pub fn open(map: M) -> Result<Self, Error<M::Error>> {
        Ok(KvMachine { store: Store::open(map)? })
    }

    /// The store, as applied.
    pub fn store(&self) -> &Store<M> {
        &self.store
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

impl<M: OrderedMap> StateMachine for KvMachine<M>
where
    Error<M::Error>: fmt::Display,
{
    type Query = Query;
    type Answer = Result<Answer, Refusal>;
    type Response = Outcome;
    type Error = Error<M::Error>;

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

    fn metadata(&self) -> Result<Option<Bytes>, Self::Error> {
        self.store.node_get(METADATA_KEY).map_err(Error::Map)
    }

    fn commit(&mut self, metadata: Bytes) -> Result<(), Self::Error> {
        self.store.node_put(METADATA_KEY, metadata);
        self.store.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_store::MemoryMap;
    use synod_store::proto::etcdserverpb::PutRequest;

    fn put(machine: &mut KvMachine<MemoryMap>, value: &'static [u8]) {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(value));
        let command = Command::Put(PutRequest { key, value, ..PutRequest::default() });
        let outcome = machine.apply(Index(1), command.encode()).expect("memory does not fail");
        outcome.expect("a put is fine");
    }

    fn value(machine: &mut KvMachine<MemoryMap>) -> Option<Bytes> {
        let range = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
        let Ok(Ok(Answer::Range(mut response))) = machine.query(Query::Range(range)) else {
            panic!("a range is fine")
        };
        response.kvs.pop().map(|kv| kv.value)
    }

    #[test]
    fn what_is_applied_is_seen_at_once_and_is_stored_with_the_metadata() {
        let mut machine = KvMachine::open(MemoryMap::new()).expect("empty");
        put(&mut machine, b"one");
        machine.commit(Bytes::from_static(b"meta")).expect("memory does not fail");
        put(&mut machine, b"two");
        assert_eq!(value(&mut machine), Some(Bytes::from_static(b"two")));

        let mut crashed = KvMachine::open(machine.into_map()).expect("it was stored");
        assert_eq!(value(&mut crashed), Some(Bytes::from_static(b"one")));
        assert_eq!(crashed.metadata().expect("memory does not fail"), Some(Bytes::from_static(b"meta")));
    }

    #[test]
    fn a_command_that_does_not_decode_is_answered_by_a_refusal() {
        let mut machine = KvMachine::open(MemoryMap::new()).expect("empty");
        for garbage in [&b""[..], b"\xFF", b"\x01\xFF\xFF"] {
            let outcome =
                machine.apply(Index(1), Bytes::copy_from_slice(garbage)).expect("no failure of storage");
            assert!(outcome.is_err(), "{garbage:?}");
        }
    }
}
