//! Values, what an acceptor makes durable, and its encoding.

use crate::ballot::Ballot;
use crate::contract::Describe;
use crate::log::{Index, Payload};
use crate::wire::{DecodeError, Reader, Wire, put_list, put_varint};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What may be chosen at a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// The ballot under which it was first proposed for its slot. It is a part of the value and
    /// stays when a later proposer proposes the value again, so that everybody says the same of
    /// what was chosen.
    pub origin: Ballot,
    /// The command.
    pub payload: Payload,
}

impl Value {
    /// Bytes that it counts for in windows and limits: its payload, and [`VALUE_BYTES`] so that
    /// even empty commands are bounded.
    pub(super) fn cost(&self) -> usize {
        self.payload.len() + VALUE_BYTES
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.origin.encode(out);
        self.payload.encode(out);
    }

    fn decode(input: &mut Reader) -> Result<Value, DecodeError> {
        let origin = Ballot::decode(input)?;
        let payload = Payload::decode(input)?;
        Ok(Value { origin, payload })
    }
}

/// What a value costs beside its payload, in bytes: about what it occupies in memory.
pub const VALUE_BYTES: usize = 64;

/// What an acceptor has accepted at a slot. (The word is van Renesse and Altinbuken's; the slot is
/// known from where it stands.)
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pvalue {
    /// The highest ballot under which the acceptor accepted it.
    pub ballot: Ballot,
    /// What.
    pub value: Value,
}

/// What an acceptor has promised, and what its disk has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Pledge {
    /// No lower ballot is answered from now on.
    pub ballot: Ballot,
    /// Whether this disk began as that of a joining member: then it knows no configuration but those in
    /// its log, and under the id of a founder it promises nothing, which may have promised and accepted
    /// what the disk does not say.
    pub joined: bool,
    /// Whether accepted values are lost: it promises nothing before it has received them again.
    pub repairing: bool,
    /// Whether a promise may be lost: it takes no part any more.
    pub uncertain: bool,
}

/// A record of an acceptor's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Replaces what was promised.
    Promised(Pledge),
    /// Replaces the log from `first` on. What the acceptor had accepted after the slots that it
    /// accepts now is repeated: an acceptor never takes back what it has accepted.
    Accepted {
        /// The slot of the first value; at least 1.
        first: Index,
        /// At least one.
        pvalues: Vec<Pvalue>,
        /// The slots up to here, all before `first`, are known to be chosen as this log has them.
        chosen: Index,
    },
    /// What was recorded of slots before is void: some of it was lost, and all after this slot, which
    /// the host's state covers, is received again.
    Restarted {
        /// The log begins after it.
        after: Index,
    },
}

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Promised(Pledge { ballot, joined, repairing, uncertain }) => {
                let marks = u8::from(*joined) | u8::from(*repairing) << 1 | u8::from(*uncertain) << 2;
                out.push(if marks == 0 { 1 } else { 3 });
                ballot.encode(out);
                if marks > 0 {
                    out.push(marks);
                }
            }
            Record::Restarted { after } => {
                out.push(4);
                put_varint(out, after.0);
            }
            Record::Accepted { first, pvalues, chosen } => {
                out.push(2);
                put_varint(out, first.0);
                put_varint(out, chosen.0);
                encode_pvalues(pvalues, out);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        match input.byte("record kind")? {
            1 => Ok(Record::Promised(Pledge { ballot: Ballot::decode(input)?, ..Pledge::default() })),
            3 => {
                let ballot = Ballot::decode(input)?;
                let marks = input.byte("marks")?;
                if !(1..8).contains(&marks) {
                    return Err(DecodeError::Invalid { what: "marks", value: u64::from(marks) });
                }
                let [joined, repairing, uncertain] = [1, 2, 4].map(|mark| marks & mark > 0);
                Ok(Record::Promised(Pledge { ballot, joined, repairing, uncertain }))
            }
            4 => Ok(Record::Restarted { after: Index(input.varint("last slot")?) }),
            2 => {
                let first = Index(input.varint("first slot")?);
                let chosen = Index(input.varint("chosen")?);
                let pvalues = decode_pvalues(input)?;
                if first == Index::ZERO || first.0.checked_add(pvalues.len() as u64).is_none() {
                    return Err(DecodeError::Invalid { what: "first slot", value: first.0 });
                }
                if chosen >= first {
                    return Err(DecodeError::Invalid { what: "chosen", value: chosen.0 });
                }
                if pvalues.is_empty() {
                    return Err(DecodeError::Invalid { what: "number of values", value: 0 });
                }
                Ok(Record::Accepted { first, pvalues, chosen })
            }
            kind => Err(DecodeError::Invalid { what: "record kind", value: u64::from(kind) }),
        }
    }
}

pub(super) fn encode_pvalues(pvalues: &[Pvalue], out: &mut Vec<u8>) {
    put_list(out, pvalues, |pvalue, out| {
        pvalue.ballot.encode(out);
        pvalue.value.encode(out);
    });
}

pub(super) fn decode_pvalues(input: &mut Reader) -> Result<Vec<Pvalue>, DecodeError> {
    input.list("accepted values", |input| {
        Ok(Pvalue { ballot: Ballot::decode(input)?, value: Value::decode(input)? })
    })
}

pub(super) fn encode_values(values: &[Value], out: &mut Vec<u8>) {
    put_list(out, values, Value::encode);
}

pub(super) fn decode_values(input: &mut Reader) -> Result<Vec<Value>, DecodeError> {
    input.list("values", Value::decode)
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        match self {
            Record::Promised(_) => "Promised",
            Record::Accepted { .. } => "Accepted",
            Record::Restarted { .. } => "Restarted",
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::Promised(pledge) => {
                let joined = if pledge.joined { ", joined" } else { "" };
                let repairing = if pledge.repairing { ", values are lost" } else { "" };
                let uncertain = if pledge.uncertain { ", perhaps more" } else { "" };
                format!("ballot {}{joined}{repairing}{uncertain}", pledge.ballot)
            }
            Record::Restarted { after } => format!("nothing after {after}"),
            Record::Accepted { first, pvalues, chosen } => {
                let last = Index(first.0 + (pvalues.len() as u64).saturating_sub(1));
                let ballot = pvalues.first().map_or(Ballot::ZERO, |pvalue| pvalue.ballot);
                format!("slots {first} to {last} from ballot {ballot}, chosen {chosen}")
            }
        }
    }
}
