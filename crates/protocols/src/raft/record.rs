//! What a server makes durable, and its encoding.

use crate::contract::Describe;
use crate::epoch_log::{EpochLog, LogEntry};
use crate::log::{Epoch, Index, Payload};
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire, put_list, put_varint};
use alloc::format;
use alloc::string::{String, ToString};
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

/// The log in memory.
pub(super) type Log = EpochLog<Entry>;

impl LogEntry for Entry {
    type Epoch = Term;

    fn epoch(&self) -> Term {
        self.term
    }

    /// Its payload, and [`ENTRY_BYTES`] so that even empty commands are bounded.
    fn cost(&self) -> usize {
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
    /// Whether it was taken in by a cluster that others had founded: then the founding members of
    /// its configuration mean nothing, and it votes only when its log says that it is a member.
    pub joined: bool,
    /// Whether its log lacks what its disk lost: then it does not vote.
    pub repairing: bool,
    /// Whether its disk may have lost a later vote or term than these: then it takes no part.
    pub uncertain: bool,
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
    /// The log is empty after `index`, up to which the host's state covers it, whatever earlier
    /// records hold.
    Snapshot {
        /// The last entry that the state covers.
        index: Index,
        /// Its term.
        term: Term,
    },
}

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::HardState(hard) => {
                // Most have no flag, and need no byte for them.
                let flags =
                    u8::from(hard.joined) | u8::from(hard.repairing) << 1 | u8::from(hard.uncertain) << 2;
                out.push(if flags == 0 { 1 } else { 3 });
                put_varint(out, hard.term.0);
                // Zero is never a member.
                put_varint(out, hard.voted_for.map_or(0, |id| id.0));
                if flags != 0 {
                    out.push(flags);
                }
            }
            Record::Entries { first, entries } => {
                out.push(2);
                put_varint(out, first.0);
                encode_entries(entries, out);
            }
            Record::Snapshot { index, term } => {
                out.push(4);
                put_varint(out, index.0);
                put_varint(out, term.0);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        match input.byte("record kind")? {
            kind @ (1 | 3) => {
                let term = Term(input.varint("term")?);
                let voted_for = match input.varint("vote")? {
                    0 => None,
                    id => Some(NodeId(id)),
                };
                let flags = if kind == 1 { 0 } else { input.byte("flags")? };
                if kind == 3 && !(1..=7).contains(&flags) {
                    return Err(DecodeError::Invalid { what: "flags", value: u64::from(flags) });
                }
                let (joined, repairing, uncertain) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
                Ok(Record::HardState(HardState { term, voted_for, joined, repairing, uncertain }))
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
            4 => Ok(Record::Snapshot {
                index: Index(input.varint("index")?),
                term: Term(input.varint("term")?),
            }),
            kind => Err(DecodeError::Invalid { what: "record kind", value: u64::from(kind) }),
        }
    }
}

pub(super) fn encode_entries(entries: &[Entry], out: &mut Vec<u8>) {
    put_list(out, entries, |entry, out| {
        put_varint(out, entry.term.0);
        entry.payload.encode(out);
    });
}

pub(super) fn decode_entries(input: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    input.list("entries", |input| {
        let term = Term(input.varint("entry term")?);
        let payload = Payload::decode(input)?;
        Ok(Entry { term, payload })
    })
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        match self {
            Record::HardState(_) => "HardState",
            Record::Entries { .. } => "Entries",
            Record::Snapshot { .. } => "Snapshot",
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::HardState(hard) => {
                let vote = hard.voted_for.map_or("no vote".to_string(), |id| format!("voted for {id}"));
                let joined = if hard.joined { ", joined" } else { "" };
                let repairing = if hard.repairing { ", under repair" } else { "" };
                let uncertain = if hard.uncertain { ", uncertain" } else { "" };
                format!("term {}, {vote}{joined}{repairing}{uncertain}", hard.term)
            }
            Record::Snapshot { index, term } => format!("nothing after {index}@{term}"),
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
