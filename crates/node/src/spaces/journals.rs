//! The journals of processes that are hosted on the log: what the log says of each, as every member keeps it.
//!
//! A process runs on one member at a time, the leader. What it makes durable comes as entries of the log, which are kept
//! here until a later one replaces them; whoever leads next begins its life from them. Which entries count is decided
//! by [`synod_protocols::replicated::Journal`], which the simulator runs too.

use super::{SpaceId, SpacesMachine, value_key};
use crate::kv::StateMap;
use bytes::Bytes;
use std::fmt;
use std::ops::ControlFlow;
use synod_protocols::commit::Changes;
use synod_protocols::log::Index;
use synod_protocols::replicated::{Entry, Journal, Verdict};
use synod_protocols::{DecodeError, Reader, Wire, wire_format};
use synod_store::Error;

/// A process that is hosted on the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcessId {
    /// The participant of transactions that a keyspace on the log is.
    Keyspace(SpaceId),
    /// The coordinator of transactions.
    Coordinator,
    /// The orchestrator of sagas.
    Orchestrator,
}

impl ProcessId {
    fn number(self) -> u64 {
        match self {
            ProcessId::Keyspace(space) => space.0,
            ProcessId::Coordinator => u64::MAX,
            ProcessId::Orchestrator => u64::MAX - 1,
        }
    }
}

impl Wire for ProcessId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.number().encode(out);
    }

    fn decode(input: &mut Reader) -> Result<ProcessId, DecodeError> {
        Ok(match input.varint("process")? {
            u64::MAX => ProcessId::Coordinator,
            number if number == u64::MAX - 1 => ProcessId::Orchestrator,
            space => ProcessId::Keyspace(SpaceId(space)),
        })
    }
}

/// Whether somebody waits for a process although nobody asks anything of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nobody does.
    #[default]
    Settled,
    /// It has promised something that is not decided: it must live, and its keyspace may not be dropped.
    InDoubt,
    /// A person has ended something by hand that its coordinator has not confirmed: it should live, to hear of that.
    ByHand,
}

wire_format!(enum Standing { 0 => Settled, 1 => InDoubt, 2 => ByHand });

/// An entry of the log about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which process.
    pub process: ProcessId,
    /// A life that begins, or what one of its steps makes durable.
    pub entry: Entry,
    /// Values of the process's keyspace which are written if the entry counts; none deletes.
    pub writes: Vec<(String, Option<Bytes>)>,
    /// Whether the process is waited for, from here on.
    pub standing: Standing,
}

wire_format!(struct Step { process, entry, writes, standing });

impl Step {
    /// An entry which changes no values.
    pub fn new(process: ProcessId, entry: Entry) -> Step {
        Step { process, entry, writes: Vec::new(), standing: Standing::Settled }
    }

    /// The same, which changes these.
    pub fn with_writes(mut self, changes: Changes) -> Step {
        self.writes = changes.into_iter().collect();
        self
    }
}

/// What is kept of a journal beside its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    journal: Journal,
    standing: Standing,
}

wire_format!(struct Head { journal, standing });

fn head_key(process: ProcessId) -> Vec<u8> {
    let mut key = vec![b'j'];
    key.extend_from_slice(&process.number().to_be_bytes());
    key
}

fn records_prefix(process: ProcessId) -> Vec<u8> {
    let mut key = vec![b'r'];
    key.extend_from_slice(&process.number().to_be_bytes());
    key
}

impl<M: StateMap> SpacesMachine<M>
where
    Error<M::Error>: fmt::Display,
{
    /// Which life of a process counts, and how many of its entries.
    ///
    /// # Errors
    /// The map's.
    pub fn journal(&self, process: ProcessId) -> Result<Journal, Error<M::Error>> {
        Ok(self.head(process)?.journal)
    }

    /// The records of a process that were not replaced, in the order in which they were made.
    ///
    /// # Errors
    /// The map's.
    pub fn records(&self, process: ProcessId) -> Result<Vec<Bytes>, Error<M::Error>> {
        let (mut records, mut is_readable) = (Vec::new(), true);
        let mut visit = |_: Bytes, value: &Bytes| {
            match Vec::<Bytes>::from_bytes(value.clone()) {
                Ok(more) => records.extend(more),
                Err(_) => is_readable = false,
            }
            ControlFlow::Continue(())
        };
        self.kv.store().node_scan(&records_prefix(process), &mut visit).map_err(Error::Map)?;
        match is_readable {
            true => Ok(records),
            false => Err(Error::Corrupt { table: "journals", what: "a record cannot be read" }),
        }
    }

    /// Whether a keyspace's participant of transactions is waited for.
    ///
    /// # Errors
    /// The map's.
    pub fn standing(&self, space: SpaceId) -> Result<Standing, Error<M::Error>> {
        Ok(self.head(ProcessId::Keyspace(space))?.standing)
    }

    fn head(&self, process: ProcessId) -> Result<Head, Error<M::Error>> {
        let stored = self.kv.store().node_get(&head_key(process)).map_err(Error::Map)?;
        let corrupt = |_| Error::Corrupt { table: "journals", what: "a journal's head cannot be read" };
        stored.map_or(Ok(Head::default()), |bytes| Head::from_bytes(bytes).map_err(corrupt))
    }

    /// Takes an entry about a process: all members decide alike whether it counts.
    pub(super) fn take_step(&mut self, index: Index, step: Step) -> Result<Verdict, Error<M::Error>> {
        let Step { process, entry, writes, standing } = step;
        if let ProcessId::Keyspace(space) = process
            && !self.registry().spaces().any(|known| known.id == space && known.model.is_on_log())
        {
            // It was dropped meanwhile, and with it whatever it would remember.
            return Ok(Verdict::Stale);
        }
        let mut head = self.head(process)?;
        let verdict = head.journal.apply(index, &entry);
        if let (Verdict::Accepted, Entry::Records { replaces, records, .. }) = (verdict, entry) {
            if replaces {
                self.forget_records(process)?;
            }
            let mut key = records_prefix(process);
            key.extend_from_slice(&index.0.to_be_bytes());
            self.kv.store_mut().node_put(&key, records.to_bytes());
            if let ProcessId::Keyspace(space) = process {
                for (key, value) in writes {
                    self.put_value(space, key.as_bytes(), value);
                }
            }
            head.standing = standing;
        }
        if matches!(verdict, Verdict::Began | Verdict::Accepted) {
            self.kv.store_mut().node_put(&head_key(process), head.to_bytes());
        }
        Ok(verdict)
    }

    /// Forgets a keyspace's values, those that clients do not see included, and its journal.
    pub(super) fn forget_space(&mut self, space: SpaceId) -> Result<(), Error<M::Error>> {
        let process = ProcessId::Keyspace(space);
        self.forget_records(process)?;
        self.kv.store_mut().node_remove(&head_key(process));
        self.forget_contacts(space)?;
        self.remove_all(&value_key(space, b""))
    }

    fn forget_records(&mut self, process: ProcessId) -> Result<(), Error<M::Error>> {
        self.remove_all(&records_prefix(process))
    }

    pub(super) fn remove_all(&mut self, prefix: &[u8]) -> Result<(), Error<M::Error>> {
        let mut keys = Vec::new();
        let mut visit = |key: Bytes, _: &Bytes| {
            keys.push(key);
            ControlFlow::Continue(())
        };
        self.kv.store().node_scan(prefix, &mut visit).map_err(Error::Map)?;
        keys.into_iter().for_each(|key| self.kv.store_mut().node_remove(&key));
        Ok(())
    }
}
