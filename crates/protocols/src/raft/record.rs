//! What a server makes durable, and its encoding.

use crate::contract::Describe;
use crate::log::{Epoch, Index, Payload};
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire, put_bytes, put_list, put_varint};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A period with at most one leader (section 3.3). Term 0 is before the first election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one.
    pub const fn next(self) -> Term {
        Term(self.0 + 1)
    }

    /// The same in the words that the replicated logs share.
    pub const fn epoch(self) -> Epoch {
        Epoch(self.0)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What one position of the log holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The term of the leader that appended it first.
    pub term: Term,
    /// The command.
    pub payload: Payload,
}

impl Entry {
    /// Bytes that it counts for in windows and limits: its payload, and [`ENTRY_BYTES`] so that
    /// even empty commands are bounded.
    pub(super) fn cost(&self) -> usize {
        self.payload.len() + ENTRY_BYTES
    }
}

/// What an entry costs beside its payload, in bytes: about what it occupies in memory.
pub const ENTRY_BYTES: usize = 48;

/// The part of the state, beside the log, that must survive a crash (figure 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct HardState {
    /// The latest term that the server has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
}

/// A record of Raft's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Replaces the hard state.
    HardState(HardState),
    /// Replaces the log from `first` on: whatever was at or after it is gone.
    Entries {
        /// The position of the first entry; at least 1.
        first: Index,
        /// At least one.
        entries: Vec<Entry>,
    },
}

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::HardState(hard) => {
                out.push(1);
                put_varint(out, hard.term.0);
                // Zero is never a member.
                put_varint(out, hard.voted_for.map_or(0, |id| id.0));
            }
            Record::Entries { first, entries } => {
                out.push(2);
                put_varint(out, first.0);
                encode_entries(entries, out);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        match input.byte("record kind")? {
            1 => {
                let term = Term(input.varint("term")?);
                let voted_for = match input.varint("vote")? {
                    0 => None,
                    id => Some(NodeId(id)),
                };
                Ok(Record::HardState(HardState { term, voted_for }))
            }
            2 => {
                let first = Index(input.varint("first index")?);
                let entries = decode_entries(input)?;
                if first == Index::ZERO || first.0.checked_add(entries.len() as u64).is_none() {
                    return Err(DecodeError::Invalid { what: "first index", value: first.0 });
                }
                if entries.is_empty() {
                    return Err(DecodeError::Invalid { what: "number of entries", value: 0 });
                }
                Ok(Record::Entries { first, entries })
            }
            kind => Err(DecodeError::Invalid { what: "record kind", value: u64::from(kind) }),
        }
    }
}

pub(super) fn encode_entries(entries: &[Entry], out: &mut Vec<u8>) {
    put_list(out, entries, |entry, out| {
        put_varint(out, entry.term.0);
        match &entry.payload {
            Payload::Noop => out.push(0),
            Payload::Command(bytes) => {
                out.push(1);
                put_bytes(out, bytes);
            }
            Payload::Membership(bytes) => {
                out.push(2);
                put_bytes(out, bytes);
            }
        }
    });
}

pub(super) fn decode_entries(input: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    input.list("entries", |input| {
        let term = Term(input.varint("entry term")?);
        let payload = match input.byte("payload kind")? {
            0 => Payload::Noop,
            1 => Payload::Command(input.bytes("command")?),
            2 => Payload::Membership(input.bytes("membership")?),
            kind => return Err(DecodeError::Invalid { what: "payload kind", value: u64::from(kind) }),
        };
        Ok(Entry { term, payload })
    })
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        match self {
            Record::HardState(_) => "HardState",
            Record::Entries { .. } => "Entries",
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::HardState(HardState { term, voted_for: Some(id) }) => {
                format!("term {term}, voted for {id}")
            }
            Record::HardState(HardState { term, voted_for: None }) => format!("term {term}, no vote"),
            Record::Entries { first, entries } => {
                let last = Index(first.0 + (entries.len() as u64).saturating_sub(1));
                let term = entries.last().map_or(Term(0), |entry| entry.term);
                if *first == last {
                    format!("entry {first} of term {term}")
                } else {
                    format!("entries {first} to {last}, the last of term {term}")
                }
            }
        }
    }
}
