//! What replicas say to each other and what they make durable.

use super::clock::Stamp;
use super::dots::{CausalContext, Dot, Origin};
use super::object::{Cell, Delta, Name};
use super::roster::Roster;
use super::store::Changes;
use crate::contract::Describe;
use crate::wire::{DecodeError, Output, Reader, Wire, put_list};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What one request of a client changed, in all objects that it wrote: shown all at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Update {
    /// Its name.
    pub dot: Dot,
    /// When it was taken.
    pub stamp: Stamp,
    /// What it comes after; empty at the eventual level.
    pub after: CausalContext,
    /// What it does, one object each.
    pub deltas: Vec<Delta>,
}

impl Update {
    /// Bytes of its keys and values, and a little for the rest, as it counts against limits.
    pub fn len(&self) -> usize {
        let value = |delta: &Delta| match &delta.value {
            Some(super::object::Value::Bytes { bytes }) => bytes.len(),
            _ => 8,
        };
        self.deltas.iter().map(|delta| 32 + delta.object.key.len() + value(delta)).sum()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }
}

/// A message between replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Updates, of whichever origin.
    Updates {
        /// Them, in the order in which their sender saw them.
        updates: Vec<Update>,
    },
    /// What the sender has; said to everybody at every round of gossip.
    Digest {
        /// Who the members are.
        roster: Roster,
        /// What it has seen.
        seen: CausalContext,
        /// What it could only send as objects, not as updates any more.
        floor: CausalContext,
        /// The root of its tree of digests.
        root: u64,
        /// Its clock.
        clock: Stamp,
        /// Whether it wants what it lacks.
        is_asking: bool,
    },
    /// Send what differs from these leaves of mine.
    Pull {
        /// The sender's number for this.
        round: u64,
        /// The digests of all leaves.
        leaves: Vec<u64>,
    },
    /// A part of what differs. All parts are of one moment, and are merged at one moment.
    Part {
        /// It.
        answer: Answer,
    },
}

/// Objects, each with its cells.
pub type Objects = Vec<(Name, Vec<(Dot, Cell)>)>;

/// A part of an answer to [`Message::Pull`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The round that was asked for.
    pub round: u64,
    /// Which part, from 0.
    pub part: u64,
    /// Of how many.
    pub parts: u64,
    /// What the sender had seen at that moment.
    pub seen: CausalContext,
    /// The sender's clock.
    pub clock: Stamp,
    /// The leaves that differ.
    pub leaves: Vec<u64>,
    /// Objects of these leaves.
    pub objects: Objects,
    /// What updates that are to come will find replaced.
    pub covered: Vec<(Dot, Name)>,
}

/// What a replica makes durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Its disk was blank: from here on it is this origin.
    Began {
        /// Which.
        origin: Origin,
        /// Whether it joins others, and so has to catch up before it takes writes.
        is_joining: bool,
    },
    /// Who the members are.
    Members {
        /// They, and those who were.
        roster: Roster,
    },
    /// It has caught up with whom it joined.
    CaughtUp,
    /// An update, as it is shown here.
    Shown {
        /// Which.
        update: Update,
    },
    /// What another replica had seen has been merged.
    Merged {
        /// What was seen from then on.
        seen: CausalContext,
        /// Its clock.
        clock: Stamp,
        /// What that changed.
        changes: Changes,
    },
    /// Everything: earlier records are not needed any more.
    Everything {
        /// Which origin this is.
        origin: Origin,
        /// Whether it still has to catch up.
        is_joining: bool,
        /// Who the members are.
        roster: Roster,
        /// What was seen.
        seen: CausalContext,
        /// The clock.
        clock: Stamp,
        /// All objects.
        objects: Objects,
        /// What updates that are to come will find replaced.
        covered: Vec<(Dot, Name)>,
        /// Updates that some member may lack.
        log: Vec<Update>,
    },
}

impl Wire for Roster {
    fn encode(&self, out: &mut Output) {
        for ids in [&self.members, &self.removed] {
            let ids: Vec<_> = ids.iter().copied().collect();
            put_list(out, &ids, |id, out| id.encode(out));
        }
    }

    fn decode(input: &mut Reader) -> Result<Roster, DecodeError> {
        let members: Vec<_> = Wire::decode(input)?;
        let removed: Vec<_> = Wire::decode(input)?;
        Ok(Roster { members: members.into_iter().collect(), removed: removed.into_iter().collect() })
    }
}

crate::wire_format!(struct Update { dot, stamp, after, deltas });
crate::wire_format!(struct Answer { round, part, parts, seen, clock, leaves, objects, covered });
crate::wire_format!(struct Changes { gone, new, covered });
crate::wire_format!(enum Message {
    1 => Updates { updates },
    2 => Digest { roster, seen, floor, root, clock, is_asking },
    3 => Pull { round, leaves },
    4 => Part { answer },
});
crate::wire_format!(enum Record {
    1 => Began { origin, is_joining },
    2 => Members { roster },
    3 => CaughtUp,
    4 => Shown { update },
    5 => Merged { seen, clock, changes },
    6 => Everything { origin, is_joining, roster, seen, clock, objects, covered, log },
});

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::Updates { .. } => "Updates",
            Message::Digest { .. } => "Digest",
            Message::Pull { .. } => "Pull",
            Message::Part { .. } => "Part",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Updates { updates } => described(updates),
            Message::Digest { seen, is_asking: false, .. } => format!("seen {seen}"),
            Message::Digest { seen, .. } => format!("seen {seen}, asks for the rest"),
            Message::Pull { round, .. } => format!("round {round}"),
            Message::Part { answer: Answer { round, part, parts, leaves, objects, .. } } => {
                let (part, objects, leaves) = (part + 1, objects.len(), leaves.len());
                format!("round {round}, part {part} of {parts}, {objects} objects of {leaves} leaves")
            }
        }
    }
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        match self {
            Record::Began { .. } => "Began",
            Record::Members { .. } => "Members",
            Record::CaughtUp => "CaughtUp",
            Record::Shown { .. } => "Shown",
            Record::Merged { .. } => "Merged",
            Record::Everything { .. } => "Everything",
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::Began { origin, is_joining: false } => format!("{origin}"),
            Record::Began { origin, is_joining: true } => format!("{origin}, joins"),
            Record::Members { roster } => format!("{roster}"),
            Record::CaughtUp => String::new(),
            Record::Shown { update } => format!("{} after {}", update.dot, update.after),
            Record::Merged { seen, changes, .. } => {
                format!("seen {seen}, {} cells new, {} gone", changes.new.len(), changes.gone.len())
            }
            Record::Everything { seen, objects, .. } => format!("seen {seen}, {} objects", objects.len()),
        }
    }
}

fn described(updates: &[Update]) -> String {
    match updates {
        [only] => format!("{}", only.dot),
        [first, .., last] => format!("{} updates, {} to {}", updates.len(), first.dot, last.dot),
        [] => String::from("none"),
    }
}
