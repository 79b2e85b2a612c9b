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

/// A period with one group of replicas (section 7). The founders' is epoch 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EpochNumber(pub u64);

impl EpochNumber {
    /// Epochs above this are taken to be garbage.
    pub const MAX: EpochNumber = VIEW_MAX.epoch_number();
}

/// A period with one primary, which the number itself determines (section 4): an epoch-number, and
/// which view of that epoch, of which each has fewer than [`VIEWS`]. All views of an epoch are before
/// those of the next. View 0 of an epoch is before its first view change and has no primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ViewNumber(pub u64);

/// How many views an epoch has: with a view change every 200 ms they would last for 6,000 years.
pub const VIEWS: u64 = 1_000_000_000_000;

/// View-numbers above this are taken to be garbage: honest replicas would need centuries to count so
/// far, and no arithmetic on smaller ones overflows.
pub const VIEW_MAX: ViewNumber = ViewNumber(u64::MAX >> 1);

impl ViewNumber {
    /// A view of an epoch; `number` is below [`VIEWS`].
    pub const fn of(epoch: EpochNumber, number: u64) -> ViewNumber {
        ViewNumber(epoch.0 * VIEWS + number)
    }

    /// Which epoch it is of.
    pub const fn epoch_number(self) -> EpochNumber {
        EpochNumber(self.0 / VIEWS)
    }

    /// Which view of its epoch it is.
    pub const fn number(self) -> u64 {
        self.0 % VIEWS
    }

    /// Whether it is view 0 of a later epoch than the founders'.
    pub(super) const fn is_before_first(self) -> bool {
        self.number() == 0 && self.0 > 0
    }

    /// View 0 of its epoch.
    pub(super) const fn before_first(self) -> ViewNumber {
        ViewNumber::of(self.epoch_number(), 0)
    }

    /// The same in the words that the replicated logs share.
    pub const fn epoch(self) -> Epoch {
        Epoch(self.0)
    }
}

impl fmt::Display for ViewNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch_number() {
            EpochNumber(0) => write!(f, "{}", self.number()),
            EpochNumber(epoch) => write!(f, "{epoch}.{}", self.number()),
        }
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
    /// Whether it joined a cluster that was there before it.
    pub joined: bool,
    /// What it knew to be committed when the configuration in effect came into effect: so all that its
    /// log says of the members up to here is so, and the epoch is not forgotten in a crash.
    pub begun: OpNumber,
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
            Record::Views(Views { view, last_normal, recovering, joined, begun }) => {
                out.push(1);
                put_varint(out, view.0);
                put_varint(out, last_normal.0);
                out.push(u8::from(*recovering) | u8::from(*joined) << 1);
                put_varint(out, begun.0);
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
                let flags = input.byte("flags")?;
                if flags > 3 {
                    return Err(DecodeError::Invalid { what: "flags", value: u64::from(flags) });
                }
                let (recovering, joined) = (flags & 1 != 0, flags & 2 != 0);
                let begun = Index(input.varint("where the members were known")?);
                Ok(Record::Views(Views { view, last_normal, recovering, joined, begun }))
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
            Record::Views(Views { view, last_normal, recovering, joined, begun }) => {
                let recovering = if *recovering { ", recovering" } else { "" };
                let joined = if *joined { ", joined" } else { "" };
                let begun =
                    if *begun > Index::ZERO { format!(", members known at {begun}") } else { String::new() };
                format!("view {view}, last normal {last_normal}{recovering}{joined}{begun}")
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
