//! What a replica makes durable: its views and its log.

use super::OpNumber;
use crate::contract::Describe;
use crate::epoch_log::{EpochLog, LogEntry};
use crate::log::{Epoch, Index, Payload};
use crate::wire::{DecodeError, Reader, Wire, put_list, put_varint};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A period with one primary, which the number itself determines (section 4). View 0 is before the
/// first view change and has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ViewNumber(pub u64);

impl ViewNumber {
    /// The same in the words that the replicated logs share.
    pub const fn epoch(self) -> Epoch {
        Epoch(self.0)
    }
}

impl fmt::Display for ViewNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What one position of the log holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The view whose primary gave the operation its op-number.
    pub view: ViewNumber,
    /// The operation.
    pub payload: Payload,
}

/// The log in memory.
pub(super) type Log = EpochLog<Entry>;

impl LogEntry for Entry {
    type Epoch = ViewNumber;

    fn epoch(&self) -> ViewNumber {
        self.view
    }

    /// Its payload, and [`ENTRY_BYTES`] so that even empty commands are bounded.
    fn cost(&self) -> usize {
        self.payload.len() + ENTRY_BYTES
    }
}

/// What an entry costs beside its payload, in bytes: about what it occupies in memory.
pub const ENTRY_BYTES: usize = 48;

/// The views that must survive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Views {
    /// The view-number: the replica does nothing for a lower view any more.
    pub view: ViewNumber,
    /// The last view in which its status was normal; what a DoViewChange calls v′.
    pub last_normal: ViewNumber,
    /// Whether its status is recovering: it lost a part of its log, and has not got it back yet.
    pub recovering: bool,
}

/// A record of Viewstamped Replication's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Replaces the views.
    Views(Views),
    /// The log begins anew after this position: what earlier records hold is not this log's.
    Restart {
        /// The position before the first entry.
        op: OpNumber,
        /// The view of the entry there.
        view: ViewNumber,
    },
    /// Replaces the log from `first` on: whatever was at or after it is gone.
    Entries {
        /// The position of the first entry; at least 1.
        first: OpNumber,
        /// The view of the entry before it, which shows whether it follows on a snapshot that the
        /// host has put in the place of the log, or on what the snapshot replaced.
        after_view: ViewNumber,
        /// At least one.
        entries: Vec<Entry>,
    },
}

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Views(Views { view, last_normal, recovering }) => {
                out.push(1);
                put_varint(out, view.0);
                put_varint(out, last_normal.0);
                out.push(u8::from(*recovering));
            }
            Record::Restart { op, view } => {
                out.push(3);
                put_varint(out, op.0);
                put_varint(out, view.0);
            }
            Record::Entries { first, after_view, entries } => {
                out.push(2);
                put_varint(out, first.0);
                put_varint(out, after_view.0);
                encode_entries(entries, out);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        match input.byte("record kind")? {
            1 => {
                let view = ViewNumber(input.varint("view-number")?);
                let last_normal = ViewNumber(input.varint("last normal view")?);
                if last_normal > view {
                    return Err(DecodeError::Invalid { what: "last normal view", value: last_normal.0 });
                }
                let recovering = input.flag("recovering")?;
                Ok(Record::Views(Views { view, last_normal, recovering }))
            }
            2 => {
                let first = Index(input.varint("first op-number")?);
                let after_view = ViewNumber(input.varint("view before")?);
                let entries = decode_entries(input)?;
                if first == Index::ZERO || first.0.checked_add(entries.len() as u64).is_none() {
                    return Err(DecodeError::Invalid { what: "first op-number", value: first.0 });
                }
                if entries.is_empty() {
                    return Err(DecodeError::Invalid { what: "number of entries", value: 0 });
                }
                Ok(Record::Entries { first, after_view, entries })
            }
            3 => {
                let op = Index(input.varint("op-number")?);
                Ok(Record::Restart { op, view: ViewNumber(input.varint("view-number")?) })
            }
            kind => Err(DecodeError::Invalid { what: "record kind", value: u64::from(kind) }),
        }
    }
}

pub(super) fn encode_entries(entries: &[Entry], out: &mut Vec<u8>) {
    put_list(out, entries, |entry, out| {
        put_varint(out, entry.view.0);
        entry.payload.encode(out);
    });
}

pub(super) fn decode_entries(input: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    input.list("entries", |input| {
        let view = ViewNumber(input.varint("entry view")?);
        let payload = Payload::decode(input)?;
        Ok(Entry { view, payload })
    })
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        match self {
            Record::Views(_) => "Views",
            Record::Restart { .. } => "Restart",
            Record::Entries { .. } => "Entries",
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::Views(Views { view, last_normal, recovering }) => {
                let recovering = if *recovering { ", recovering" } else { "" };
                format!("view {view}, last normal {last_normal}{recovering}")
            }
            Record::Restart { op, view } => format!("the log begins after {op}@{view}"),
            Record::Entries { first, entries, .. } => {
                let last = Index(first.0 + (entries.len() as u64).saturating_sub(1));
                let view = entries.last().map_or(ViewNumber(0), |entry| entry.view);
                if *first == last {
                    format!("entry {first} of view {view}")
                } else {
                    format!("entries {first} to {last}, the last of view {view}")
                }
            }
        }
    }
}
