//! The key-value store as a node's state machine.

use bytes::Bytes;
use synod_node::StateMachine;
use synod_protocols::log::Index;
use synod_store::proto::etcdserverpb::{
    HashKvResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use synod_store::{Command, Error, OrderedMap, Outcome, Refusal, Revision, Store};

/// Where the node's own metadata lie in the store.
const METADATA: &[u8] = b"node";

/// What clients ask without changing anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Keys and values.
    Range(RangeRequest),
    /// A transaction that only reads.
    Txn(TxnRequest),
    /// A hash of the keys and their history up to a revision; 0 for now.
    Hash(Revision),
}

/// What they are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Query::Range`].
    Range(RangeResponse),
    /// To [`Query::Txn`].
    Txn(TxnResponse),
    /// To [`Query::Hash`].
    Hash(HashKvResponse),
}

/// A store that a node drives.
#[derive(Debug)]
pub struct StoreMachine<M> {
    store: Store<M>,
}

impl<M: OrderedMap> StoreMachine<M> {
    /// Opens the store in `map`.
    ///
    /// # Errors
    /// The map's, or what does not belong there.
    pub fn open(map: M) -> Result<Self, Error<M::Error>> {
        Ok(StoreMachine { store: Store::open(map)? })
    }

    /// The store.
    pub fn store(&self) -> &Store<M> {
        &self.store
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

fn refused<T, E>(result: Result<T, Error<E>>) -> Result<Result<T, Refusal>, Error<E>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Error::Refused(refusal)) => Ok(Err(refusal)),
        Err(other) => Err(other),
    }
}

impl<M: OrderedMap> StateMachine for StoreMachine<M> {
    type Query = Query;
    type Answer = Result<Answer, Refusal>;
    type Response = Outcome;
    type Error = Error<M::Error>;

    fn apply(&mut self, _index: Index, command: Bytes) -> Result<Outcome, Self::Error> {
        match Command::decode(command) {
            Ok(command) => refused(self.store.apply(&command)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn query(&mut self, query: Query) -> Result<Self::Answer, Self::Error> {
        refused(match query {
            Query::Range(range) => self.store.range(&range).map(Answer::Range),
            Query::Txn(txn) => self.store.read_txn(&txn).map(Answer::Txn),
            Query::Hash(revision) => self.hash(revision).map(Answer::Hash),
        })
    }

    fn metadata(&self) -> Result<Option<Bytes>, Self::Error> {
        self.store.node_get(METADATA).map_err(Error::Map)
    }

    fn commit(&mut self, metadata: Bytes) -> Result<(), Self::Error> {
        self.store.node_put(METADATA, metadata);
        self.store.commit()
    }
}
