//! What keys hold: a register whose last writer wins, a register that keeps siblings, a counter, and a set.
//!
//! Every object is a map from dots to cells, and everything that replicas do to it is one function, [`merge`]: two
//! versions, each with the context of what its owner has seen. A cell that the other side has seen and does not have was
//! replaced or removed there, and goes; one that it has not seen stays. What is left is brought into its kind's form:
//!
//! | kind | cells | form |
//! |---|---|---|
//! | [`Kind::Register`] | the value, or a tombstone | the highest stamp only: the last writer wins |
//! | [`Kind::Siblings`] | one for each write that nobody has replaced | all |
//! | [`Kind::Counter`] | one for each origin: the sum of all that it added | the latest of each origin |
//! | [`Kind::Set`] | one for each addition that nobody has removed | all |
//!
//! The function is commutative, associative and idempotent, so replicas that have seen the same are the same, in
//! whatever order they saw it (Shapiro, Preguiça, Baquero and Zawirski, *Conflict-free Replicated Data Types*,
//! 2011). A removal from a set removes the additions that it has seen, so of an addition and a removal at the same
//! time the addition wins, and neither sets nor siblings leave anything behind (Bieniusa et al., *An Optimized
//! Conflict-free Replicated Set*, 2012). Only a register's delete leaves a **tombstone**: it has to win against
//! older writes that are still on their way. [`super::roster`] says when it may go.
//!
//! A key of one kind has nothing to do with the same key of another kind, so kinds cannot conflict.

use super::clock::Stamp;
use super::dots::{CausalContext, Dot, Origin};
use crate::wire::{DecodeError, Output, Reader, Wire, put_varint};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One value; the last writer wins.
    Register,
    /// All values that nobody has replaced.
    Siblings,
    /// A sum.
    Counter,
    /// Elements; an addition wins against a removal at the same time.
    Set,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Register, Kind::Siblings, Kind::Counter, Kind::Set];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Register => "register",
            Kind::Siblings => "siblings",
            Kind::Counter => "counter",
            Kind::Set => "set",
        })
    }
}

/// The name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// What it holds.
    pub kind: Kind,
    /// Its key.
    pub key: Bytes,
}

/// What one update left in an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub value: Value,
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A register was deleted.
    Tombstone,
    /// The value of a register, a sibling, or an element of a set.
    Bytes {
        /// It.
        bytes: Bytes,
    },
    /// What an origin has added to a counter in all.
    Sum {
        /// Which wraps at the ends of 64 bits.
        units: i64,
    },
}

/// A version of an object.
pub type Object = BTreeMap<Dot, Cell>;

/// What a client wants done with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a register.
    Put {
        /// Which.
        key: Bytes,
        /// To what.
        value: Bytes,
    },
    /// Deletes a register.
    Delete {
        /// Which.
        key: Bytes,
    },
    /// Replaces siblings, which the client has read, by one value or by none. Siblings that it has not read stay.
    Replace {
        /// Of which key.
        key: Bytes,
        /// Their dots, as they were read.
        siblings: Vec<Dot>,
        /// By what.
        value: Option<Bytes>,
    },
    /// Adds to a counter.
    Add {
        /// Which.
        key: Bytes,
        /// How much; less than nothing subtracts.
        units: i64,
    },
    /// Adds an element to a set.
    Insert {
        /// Which set.
        key: Bytes,
        /// Which element.
        element: Bytes,
    },
    /// Removes an element from a set.
    Remove {
        /// Which set.
        key: Bytes,
        /// Which element.
        element: Bytes,
    },
}

impl Write {
    /// The object that it writes.
    pub fn name(&self) -> Name {
        let (kind, key) = match self {
            Write::Put { key, .. } | Write::Delete { key } => (Kind::Register, key),
            Write::Replace { key, .. } => (Kind::Siblings, key),
            Write::Add { key, .. } => (Kind::Counter, key),
            Write::Insert { key, .. } | Write::Remove { key, .. } => (Kind::Set, key),
        };
        Name { kind, key: key.clone() }
    }

    /// Bytes of keys and values.
    pub fn len(&self) -> usize {
        match self {
            Write::Put { key, value } => key.len() + value.len(),
            Write::Delete { key } | Write::Add { key, .. } => key.len(),
            Write::Replace { key, value, .. } => key.len() + value.as_ref().map_or(0, Bytes::len),
            Write::Insert { key, element } | Write::Remove { key, element } => key.len() + element.len(),
        }
    }

    /// Whether it has neither key nor value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a read of one object gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Of a register; none if it was never written, or deleted.
    Value(Option<Bytes>),
    /// All siblings with their dots, for [`Write::Replace`].
    Siblings(Vec<(Dot, Bytes)>),
    /// A counter's sum, which wraps at the ends of 64 bits.
    Sum(i64),
    /// A set's elements.
    Elements(BTreeSet<Bytes>),
}

impl Content {
    /// Whether it is what a key holds that was never written. (A counter is one as soon as something was added.)
    pub fn is_nothing(&self) -> bool {
        match self {
            Content::Value(value) => value.is_none(),
            Content::Siblings(siblings) => siblings.is_empty(),
            Content::Sum(_) => false,
            Content::Elements(elements) => elements.is_empty(),
        }
    }
}

/// What an update does to one object: it removes cells, and puts one of its own in their place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delta {
    /// Which object.
    pub object: Name,
    /// Cells that it removes.
    pub covers: Vec<Dot>,
    /// What it puts there under its own dot.
    pub value: Option<Value>,
}

/// What `write` does to an object whose version here is `object`.
pub(super) fn delta(write: &Write, object: Option<&Object>, own: Origin) -> Delta {
    let cells = || object.into_iter().flatten();
    let holding = |element: &Bytes| {
        let holds = |cell: &Cell| matches!(&cell.value, Value::Bytes { bytes } if bytes == element);
        cells().filter(|(_, cell)| holds(cell)).map(|(dot, _)| *dot).collect()
    };
    let bytes = |bytes: &Bytes| Value::Bytes { bytes: bytes.clone() };
    let (covers, value) = match write {
        Write::Put { value, .. } => (cells().map(|(dot, _)| *dot).collect(), Some(bytes(value))),
        Write::Delete { .. } => (cells().map(|(dot, _)| *dot).collect(), Some(Value::Tombstone)),
        Write::Replace { siblings, value, .. } => {
            // Only what is a sibling here: a client may not declare anything else seen.
            let are_here = |dot: &&Dot| object.is_some_and(|object| object.contains_key(*dot));
            (siblings.iter().filter(are_here).copied().collect(), value.as_ref().map(bytes))
        }
        Write::Add { units, .. } => {
            let mine = cells().filter(|(dot, _)| dot.origin == own).last();
            let sum = match mine {
                Some((_, Cell { value: Value::Sum { units: sum }, .. })) => *sum,
                _ => 0,
            };
            let units = sum.wrapping_add(*units);
            (mine.map(|(dot, _)| *dot).into_iter().collect(), Some(Value::Sum { units }))
        }
        Write::Insert { element, .. } => (holding(element), Some(bytes(element))),
        Write::Remove { element, .. } => (holding(element), None),
    };
    Delta { object: write.name(), covers, value }
}

/// One version of two, each with what its owner has seen.
///
/// ```text
/// both have it                  it stays
/// one has it, the other saw it  it was removed there: it goes
/// one has it, the other did not it stays
/// ```
pub fn merge(
    kind: Kind,
    one: &Object,
    seen_by_one: &CausalContext,
    other: &Object,
    seen_by_other: &CausalContext,
) -> Object {
    let stays = |(dot, _): &(&Dot, &Cell)| other.contains_key(*dot) || !seen_by_other.contains(**dot);
    let comes = |(dot, _): &(&Dot, &Cell)| !seen_by_one.contains(**dot);
    let cells = one.iter().filter(stays).chain(other.iter().filter(comes));
    let mut object: Object = cells.map(|(dot, cell)| (*dot, cell.clone())).collect();
    normalise(kind, &mut object);
    object
}

/// Brings an object into its kind's form.
pub(super) fn normalise(kind: Kind, object: &mut Object) {
    match kind {
        Kind::Siblings | Kind::Set => {}
        Kind::Register => {
            if let Some(last) = object.values().map(|cell| cell.stamp).max() {
                object.retain(|_, cell| cell.stamp == last);
            }
        }
        Kind::Counter => {
            let latest: BTreeMap<Origin, u64> = object.keys().map(|dot| (dot.origin, dot.count)).collect();
            object.retain(|dot, _| latest[&dot.origin] == dot.count);
        }
    }
}

/// What a client sees of an object.
pub(super) fn content(kind: Kind, object: Option<&Object>) -> Content {
    let cells = || object.into_iter().flatten();
    let values = || {
        cells().filter_map(|(dot, cell)| match &cell.value {
            Value::Bytes { bytes } => Some((*dot, bytes.clone())),
            Value::Tombstone | Value::Sum { .. } => None,
        })
    };
    match kind {
        Kind::Register => Content::Value(values().next().map(|(_, bytes)| bytes)),
        Kind::Siblings => Content::Siblings(values().collect()),
        Kind::Set => Content::Elements(values().map(|(_, bytes)| bytes).collect()),
        Kind::Counter => Content::Sum(cells().fold(0, |sum, (_, cell)| match cell.value {
            Value::Sum { units } => sum.wrapping_add(units),
            Value::Tombstone | Value::Bytes { .. } => sum,
        })),
    }
}

impl Wire for Kind {
    fn encode(&self, out: &mut Output) {
        out.push(match self {
            Kind::Register => 1,
            Kind::Siblings => 2,
            Kind::Counter => 3,
            Kind::Set => 4,
        });
    }

    fn decode(input: &mut Reader) -> Result<Kind, DecodeError> {
        let kind = input.byte("kind")?;
        let known = usize::from(kind).checked_sub(1).and_then(|place| Kind::ALL.get(place));
        known.copied().ok_or(DecodeError::Invalid { what: "kind", value: u64::from(kind) })
    }
}

impl Wire for Value {
    fn encode(&self, out: &mut Output) {
        match self {
            Value::Tombstone => out.push(1),
            Value::Bytes { bytes } => {
                out.push(2);
                bytes.encode(out);
            }
            Value::Sum { units } => {
                out.push(3);
                // Zigzag: small numbers of either sign are short.
                put_varint(out, ((units << 1) ^ (units >> 63)) as u64);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Value, DecodeError> {
        match input.byte("value")? {
            1 => Ok(Value::Tombstone),
            2 => Ok(Value::Bytes { bytes: input.bytes("value")? }),
            3 => {
                let zigzag = input.varint("sum")?;
                Ok(Value::Sum { units: (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64) })
            }
            other => Err(DecodeError::Invalid { what: "value", value: u64::from(other) }),
        }
    }
}

crate::wire_format!(struct Name { kind, key });
crate::wire_format!(struct Cell { stamp, value });
crate::wire_format!(struct Delta { object, covers, value });
