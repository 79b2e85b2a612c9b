//! What a member makes durable, and its encoding.

use crate::contract::Describe;
use crate::log::{Epoch, Index, Payload};
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire, put_list, put_varint};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The name of a proposal: its epoch, and its place among all proposals of all epochs.
///
/// The paper's counter begins again with every epoch. Here it goes on, and so is the entry's
/// position in the log: order and uniqueness are the same, a gap shows, and it cannot run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid {
    /// The epoch of the leader that proposed it.
    pub epoch: Epoch,
    /// Its position in the log.
    pub counter: Index,
}

impl Zxid {
    /// Before everything.
    pub const ZERO: Zxid = Zxid { epoch: Epoch(0), counter: Index::ZERO };

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.epoch.0);
        put_varint(out, self.counter.0);
    }

    pub(super) fn decode(input: &mut Reader) -> Result<Zxid, DecodeError> {
        Ok(Zxid { epoch: Epoch(input.varint("epoch")?), counter: Index(input.varint("counter")?) })
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch.0, self.counter)
    }
}

/// What one position of the history holds. With its position it has its zxid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The epoch of the leader that proposed it.
    pub epoch: Epoch,
    /// The command; in the first entry of an epoch, which is NEWLEADER itself, there is none.
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

/// The part of the state, beside the history, that must survive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Epochs {
    /// acceptedEpoch: the epoch of the last LEADERINFO (the paper's NEWEPOCH) that was
    /// acknowledged. No leader of an older one is followed any more.
    pub accepted: Epoch,
    /// Whose that LEADERINFO was. ZooKeeper does not keep it, and cannot repeat a lost ACKEPOCH.
    pub accepted_from: Option<NodeId>,
    /// currentEpoch: the epoch of the last NEWLEADER that was acknowledged, and the first thing
    /// by which histories are compared.
    pub current: Epoch,
    /// Whether this disk began as that of a joining member: then it counts in no quorum under the
    /// id of a founder, which may have promised what the disk does not say.
    pub joined: bool,
    /// Whether entries are lost: it counts in no quorum before it has received them again.
    pub repairing: bool,
    /// Whether a promise may be lost: it takes no part any more.
    pub uncertain: bool,
}

/// A record of Zab's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Replaces acceptedEpoch and currentEpoch.
    Epochs(Epochs),
    /// Replaces the history from `first` on: whatever was at or after it is gone.
    Entries {
        /// The position of the first entry; at least 1.
        first: Index,
        /// At least one.
        entries: Vec<Entry>,
    },
    /// Nothing that was recorded after this position is part of the history: a snapshot has taken
    /// its place, or some of it was lost and all is received again.
    Truncated {
        /// The last position that remains.
        after: Index,
    },
}

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Epochs(epochs) => {
                out.push(1);
                put_varint(out, epochs.accepted.0);
                put_node(epochs.accepted_from, out);
                put_varint(out, epochs.current.0);
                let Epochs { joined, repairing, uncertain, .. } = epochs;
                out.push(u8::from(*joined) | u8::from(*repairing) << 1 | u8::from(*uncertain) << 2);
            }
            Record::Entries { first, entries } => {
                out.push(2);
                put_varint(out, first.0);
                encode_entries(entries, out);
            }
            Record::Truncated { after } => {
                out.push(3);
                put_varint(out, after.0);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        match input.byte("record kind")? {
            1 => {
                let accepted = Epoch(input.varint("accepted epoch")?);
                let accepted_from = node(input)?;
                let current = Epoch(input.varint("current epoch")?);
                let marks = input.byte("marks")?;
                if marks > 7 {
                    return Err(DecodeError::Invalid { what: "marks", value: u64::from(marks) });
                }
                let [joined, repairing, uncertain] = [1, 2, 4].map(|mark| marks & mark > 0);
                Ok(Record::Epochs(Epochs { accepted, accepted_from, current, joined, repairing, uncertain }))
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
            3 => Ok(Record::Truncated { after: Index(input.varint("last index")?) }),
            kind => Err(DecodeError::Invalid { what: "record kind", value: u64::from(kind) }),
        }
    }
}

/// Zero is never a member.
pub(super) fn put_node(id: Option<NodeId>, out: &mut Vec<u8>) {
    put_varint(out, id.map_or(0, |id| id.0));
}

pub(super) fn node(input: &mut Reader) -> Result<Option<NodeId>, DecodeError> {
    Ok(Some(input.varint("member")?).filter(|id| *id != 0).map(NodeId))
}

pub(super) fn encode_entries(entries: &[Entry], out: &mut Vec<u8>) {
    put_list(out, entries, |entry, out| {
        put_varint(out, entry.epoch.0);
        entry.payload.encode(out);
    });
}

pub(super) fn decode_entries(input: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    input.list("entries", |input| {
        let epoch = Epoch(input.varint("entry epoch")?);
        let payload = Payload::decode(input)?;
        Ok(Entry { epoch, payload })
    })
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        match self {
            Record::Epochs(_) => "Epochs",
            Record::Entries { .. } => "Entries",
            Record::Truncated { .. } => "Truncated",
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::Epochs(Epochs { accepted, accepted_from, current, repairing, uncertain, .. }) => {
                let from = accepted_from.map_or(String::new(), |id| format!(" of {id}"));
                let repairing = if *repairing { ", entries are lost" } else { "" };
                let uncertain = if *uncertain { ", perhaps more" } else { "" };
                format!(
                    "accepted epoch {}{from}, current epoch {}{repairing}{uncertain}",
                    accepted.0, current.0
                )
            }
            Record::Entries { first, entries } => {
                let last = Index(first.0 + (entries.len() as u64).saturating_sub(1));
                let epoch = entries.last().map_or(0, |entry| entry.epoch.0);
                if *first == last {
                    format!("entry {first} of epoch {epoch}")
                } else {
                    format!("entries {first} to {last}, the last of epoch {epoch}")
                }
            }
            Record::Truncated { after } => format!("nothing after {after}"),
        }
    }
}
