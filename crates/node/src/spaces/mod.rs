//! The server's state machine: the etcd store and, beside it under the same log, keyspaces.
//!
//! Everything lies in the one ordered map of the store, in the part that is the node's own and that clients of the etcd
//! API do not see. So snapshots, catching up and recovery carry it without knowing of it.
//!
//! | key | value |
//! |---|---|
//! | `s` | the [`Registry`] |
//! | `v`, number of a keyspace on the log in eight bytes, the key | the value |
//! | `j`, number of a hosted process in eight bytes | which of its entries count |
//! | `r`, number of a hosted process, index of an entry in eight bytes each | the records of that entry |
//! | `c`, number of a keyspace on the log, a coordinator in another cluster in eight bytes each | a [`Contact`] |
//!
//! Keys of a keyspace that begin with a zero byte are the host's own: idempotency marks of sagas, say.
//!
//! A command of this module begins with [`TAG`], which no command of the store does.

mod contacts;
mod journals;
mod registry;

pub use contacts::{CONTACT_ENDPOINT_BYTES_MAX, CONTACT_ENDPOINTS_MAX, CONTACTS_MAX, Contact};
pub use journals::{ProcessId, Standing, Step};

pub use registry::{
    KEYSPACES_MAX, Model, NAME_BYTES_MAX, OUTSIDE_BYTES_MAX, OUTSIDE_MAX, Outside, Refusal, Registry, Secret,
    Space, SpaceId,
};

use crate::kv::{self, KvMachine, StateMap};
use crate::machine::{Part, StateMachine, Stored};
use bytes::Bytes;
use std::fmt;
use std::ops::ControlFlow;
use synod_protocols::log::{Index, Ticket};
use synod_protocols::replicated::Verdict;
use synod_protocols::{NodeId, Wire, wire_format};
use synod_store::Error;

/// What commands of this module begin with.
pub const TAG: u8 = 0x40;

/// Where the registry stands among the node's own keys.
const REGISTRY_KEY: &[u8] = b"s";

/// What stands before the key of a value: the table's letter, and the keyspace.
const VALUE_PREFIX_BYTES: usize = 9;

fn value_key(space: SpaceId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(VALUE_PREFIX_BYTES + key.len());
    out.push(b'v');
    out.extend_from_slice(&space.0.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// A change that the log carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make a keyspace; its number is the index of the entry.
    Create {
        /// Its name.
        name: String,
        /// What it shall promise.
        model: Model,
        /// Who the members are.
        founders: Vec<NodeId>,
        /// What seals tokens from now on, if nothing does yet.
        secret: Secret,
    },
    /// Forget a keyspace and all that it holds.
    Drop {
        /// Which.
        name: String,
        /// Also if it holds keys. (On the log; of others the host knows.)
        force: bool,
    },
    /// Add a participant outside, or describe it anew; a new one's number is the index of the entry.
    Register {
        /// Its name.
        name: String,
        /// Where and what it is.
        description: Bytes,
    },
    /// Forget a participant outside.
    Unregister {
        /// Which.
        name: String,
    },
    /// Something that a hosted process makes durable.
    Process {
        /// What.
        step: Step,
    },
    /// Seal session tokens with this from now on, if nothing does yet.
    Seal {
        /// It.
        secret: Secret,
    },
    /// Know how a keyspace on the log reaches a coordinator in another cluster, which is about to ask it for a promise.
    Contact {
        /// Which keyspace.
        space: SpaceId,
        /// Which coordinator.
        coordinator: NodeId,
        /// How.
        contact: Contact,
    },
}

wire_format!(enum Command {
    1 => Create { name, model, founders, secret },
    2 => Drop { name, force },
    3 => Register { name, description },
    4 => Unregister { name },
    5 => Process { step },
    6 => Seal { secret },
    7 => Contact { space, coordinator, contact },
});

impl Command {
    /// The command as it stands in the log.
    pub fn to_log(&self) -> Bytes {
        let mut out = vec![TAG];
        self.encode(&mut out);
        out.into()
    }

    /// Reads a command from the log; none if it is one of the store's.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn from_log(command: &Bytes) -> Option<Result<Command, Refusal>> {
        (command.first() == Some(&TAG))
            .then(|| Command::from_bytes(command.slice(1..)).map_err(|_| Refusal::Malformed))
    }
}

/// What became of a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The keyspace is there, or was.
    Space(Space),
    /// The participant outside is there, or was.
    Outside(Outside),
    /// Tokens are sealed.
    Sealed,
    /// The coordinator can be reached.
    Contact,
}

/// What clients ask without changing anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Of the etcd store.
    Store(kv::Query),
    /// Nothing: the answer says how far the state is applied. As a linearizable read it makes sure that whatever is read
    /// from the state afterwards includes all that was acknowledged before it was asked.
    Reached,
}

/// What they are told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of the etcd store.
    Store(Result<kv::Answer, synod_store::Refusal>),
    /// To [`Query::Reached`].
    Reached,
}

/// What the client of a command is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// By the etcd store.
    Store(synod_store::Outcome),
    /// About keyspaces.
    Spaces(Result<Done, Refusal>),
    /// Whether what a hosted process wanted durable counts.
    Process(Verdict),
}

/// See [the module](self).
#[derive(Clone, Debug)]
pub struct SpacesMachine<M> {
    kv: KvMachine<M>,
    registry: Registry,
    /// Counts changes of the registry in this life, so that a host notices them.
    generation: u64,
}

impl<M: StateMap> SpacesMachine<M>
where
    Error<M::Error>: fmt::Display,
{
    /// Opens the state that `map` holds; an empty map is an empty state.
    ///
    /// # Errors
    /// The map's, and where the map holds something else.
    pub fn open(map: M) -> Result<Self, Error<M::Error>> {
        let mut machine =
            SpacesMachine { kv: KvMachine::open(map)?, registry: Registry::default(), generation: 0 };
        machine.load()?;
        Ok(machine)
    }

    /// The etcd store, as applied.
    pub fn store(&self) -> &synod_store::Store<M> {
        self.kv.store()
    }

    /// The map below; what was applied and not committed is gone, as after a crash.
    pub fn into_map(self) -> M {
        self.kv.into_map()
    }

    /// Which keyspaces there are, as applied.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Another number after every change of the registry in this life.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The value of a key of a keyspace on the log.
    ///
    /// # Errors
    /// The map's.
    pub fn value(&self, space: SpaceId, key: &[u8]) -> Result<Option<Bytes>, Error<M::Error>> {
        self.kv.store().node_get(&value_key(space, key)).map_err(Error::Map)
    }

    /// Keys and values of a keyspace on the log whose keys begin with `prefix` and come after `after`, in order, `max` at
    /// the most. The host's own keys are left out unless the prefix is one.
    ///
    /// # Errors
    /// The map's.
    pub fn values(
        &self,
        space: SpaceId,
        prefix: &[u8],
        after: &[u8],
        max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Error<M::Error>> {
        let mut found = Vec::new();
        let mut visit = |stored: Bytes, value: &Bytes| {
            let key = stored.slice(VALUE_PREFIX_BYTES..);
            if found.len() == max {
                return ControlFlow::Break(());
            }
            if after.is_empty() || &key[..] > after {
                found.push((key, value.clone()));
            }
            ControlFlow::Continue(())
        };
        // The host's own keys begin with 0, and come first.
        let first = [u8::from(prefix.first() != Some(&0))];
        let (prefix, from) = (value_key(space, prefix), value_key(space, after.max(&first[..])));
        self.kv.store().node_scan_from(&prefix, &from, &mut visit).map_err(Error::Map)?;
        Ok(found)
    }

    fn put_value(&mut self, space: SpaceId, key: &[u8], value: Option<Bytes>) {
        match value {
            Some(value) => self.kv.store_mut().node_put(&value_key(space, key), value),
            None => self.kv.store_mut().node_remove(&value_key(space, key)),
        }
    }

    fn load(&mut self) -> Result<(), Error<M::Error>> {
        let stored = self.kv.store().node_get(REGISTRY_KEY).map_err(Error::Map)?;
        self.registry = match stored {
            Some(bytes) => Registry::from_bytes(bytes)
                .map_err(|_| Error::Corrupt { table: "registry of keyspaces", what: "it cannot be read" })?,
            None => Registry::default(),
        };
        self.generation += 1;
        Ok(())
    }

    fn apply_own(
        &mut self,
        index: Index,
        command: Command,
    ) -> Result<Result<Done, Refusal>, Error<M::Error>> {
        if let Command::Drop { name, force } = &command
            && let Some(space) = self.registry.space(name)
        {
            let id = space.id;
            if self.standing(id)? == Standing::InDoubt {
                return Ok(Err(Refusal::InTransaction(name.clone())));
            }
            if !force && !self.values(id, b"", b"", 1)?.is_empty() {
                return Ok(Err(Refusal::HoldsKeys(name.clone())));
            }
            self.forget_space(id)?;
        }
        if let Command::Contact { space, coordinator, contact } = &command {
            let kept = self.keep_contact(*space, *coordinator, contact)?;
            return Ok(kept.map(|()| Done::Contact));
        }
        let done = self.change(index, command);
        if done.is_ok() {
            self.kv.store_mut().node_put(REGISTRY_KEY, self.registry.to_bytes());
            self.generation += 1;
        }
        Ok(done)
    }

    fn change(&mut self, index: Index, command: Command) -> Result<Done, Refusal> {
        let id = SpaceId(index.0);
        Ok(match command {
            Command::Create { name, model, founders, secret } => {
                Done::Space(self.registry.create(Space { id, name, model, founders }, secret)?)
            }
            Command::Drop { name, .. } => Done::Space(self.registry.drop_space(&name)?),
            Command::Register { name, description } => {
                Done::Outside(self.registry.register(Outside { id, name, description })?)
            }
            Command::Unregister { name } => Done::Outside(self.registry.unregister(&name)?),
            Command::Seal { secret } => {
                self.registry.seal(secret);
                Done::Sealed
            }
            Command::Process { .. } | Command::Contact { .. } => return Err(Refusal::Malformed),
        })
    }
}

impl<M: StateMap> StateMachine for SpacesMachine<M>
where
    Error<M::Error>: fmt::Display,
{
    type Query = Query;
    type Answer = Answer;
    type Response = Response;
    type Error = Error<M::Error>;
    type View = M::View;

    fn apply(&mut self, index: Index, command: Bytes) -> Result<Response, Self::Error> {
        Ok(match Command::from_log(&command) {
            Some(Ok(Command::Process { step })) => Response::Process(self.take_step(index, step)?),
            Some(Ok(command)) => Response::Spaces(self.apply_own(index, command)?),
            Some(Err(refusal)) => Response::Spaces(Err(refusal)),
            None => Response::Store(self.kv.apply(index, command)?),
        })
    }

    fn query(&mut self, query: Query) -> Result<Answer, Self::Error> {
        Ok(match query {
            Query::Store(query) => Answer::Store(self.kv.query(query)?),
            Query::Reached => Answer::Reached,
        })
    }

    fn metadata(&self) -> Result<Option<Stored>, Self::Error> {
        self.kv.metadata()
    }

    fn commit(&mut self, stored: Stored) -> Result<(), Self::Error> {
        self.kv.commit(stored)
    }

    fn persist(&mut self, ticket: Ticket) -> Result<(), Self::Error> {
        self.kv.persist(ticket)
    }

    fn persisted(&mut self, ticket: Ticket) {
        self.kv.persisted(ticket);
    }

    fn view(&mut self) -> Result<M::View, Self::Error> {
        self.kv.view()
    }

    fn read(&self, view: &M::View, from: &Bytes, bytes_max: usize) -> Result<Part, Self::Error> {
        self.kv.read(view, from, bytes_max)
    }

    fn stage(&mut self, first: bool, part: Bytes) -> Result<Result<(), String>, Self::Error> {
        self.kv.stage(first, part)
    }

    fn unstage(&mut self) {
        self.kv.unstage();
    }

    fn install(&mut self, stored: Stored) -> Result<(), Self::Error> {
        self.kv.install(stored)?;
        self.load()
    }
}

#[cfg(test)]
mod tests;
