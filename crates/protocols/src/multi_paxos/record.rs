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

/// A record of an acceptor's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// No lower ballot is answered from now on.
    Promised(Ballot),
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
}

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Promised(ballot) => {
                out.push(1);
                ballot.encode(out);
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
            1 => Ok(Record::Promised(Ballot::decode(input)?)),
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
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::Promised(ballot) => format!("ballot {ballot}"),
            Record::Accepted { first, pvalues, chosen } => {
                let last = Index(first.0 + (pvalues.len() as u64).saturating_sub(1));
                let ballot = pvalues.first().map_or(Ballot::ZERO, |pvalue| pvalue.ballot);
                format!("slots {first} to {last} from ballot {ballot}, chosen {chosen}")
            }
        }
    }
}
