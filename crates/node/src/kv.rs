//! The key-value store as a state machine.

use crate::machine::StateMachine;
use bytes::Bytes;
use std::fmt;
use synod_protocols::log::Index;
use synod_store::proto::etcdserverpb::{RangeRequest, RangeResponse};
use synod_store::{Command, Error, OrderedMap, Outcome, Refusal, Store};

/// Where the node's own metadata stands in the store.
const METADATA_KEY: &[u8] = b"node";

/// The store of `synod-store`, driven by a replicated log.
#[derive(Clone)]
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
    type Query = RangeRequest;
    type Answer = Result<RangeResponse, Refusal>;
    type Response = Outcome;
    type Error = Error<M::Error>;

    fn apply(&mut self, _index: Index, command: Bytes) -> Result<Outcome, Self::Error> {
        match Command::decode(command) {
            Ok(command) => settle(self.store.apply(&command)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn query(&mut self, query: RangeRequest) -> Result<Self::Answer, Self::Error> {
        settle(self.store.range(&query))
    }

    fn metadata(&self) -> Result<Option<Bytes>, Self::Error> {
        self.store.node_get(METADATA_KEY).map_err(Error::Map)
    }

    fn commit(&mut self, metadata: Bytes) -> Result<(), Self::Error> {
        self.store.node_put(METADATA_KEY, metadata);
        self.store.commit()
    }
}
