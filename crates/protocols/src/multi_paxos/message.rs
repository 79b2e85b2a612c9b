//! What members say to each other, in the words of Paxos, and its encoding.

use super::record::{Pvalue, Value, decode_pvalues, decode_values, encode_pvalues, encode_values};
use crate::ballot::Ballot;
use crate::contract::Describe;
use crate::log::Index;
use crate::wire::{DecodeError, Reader, Wire, put_varint};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A message of Multi-Paxos.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Would you promise this ballot? It changes nothing at the acceptor.
    Probe {
        /// The ballot that the asker would prepare.
        ballot: Ballot,
        /// The asker's α: an acceptor that has another answers nothing.
        alpha: u64,
    },
    /// The answer to [`Message::Probe`], from an acceptor that would.
    Willing {
        /// As asked.
        ballot: Ballot,
    },
    /// Phase 1a, for all slots that are not chosen at once. Repeated with the same ballot, it asks
    /// for more of what was accepted.
    Prepare {
        /// The proposer's new ballot.
        ballot: Ballot,
        /// From which slot on the proposer wants to know what was accepted.
        from: Index,
        /// Whether the leader itself has asked the proposer to take over.
        transfer: bool,
        /// The proposer's α: an acceptor that has another answers nothing.
        alpha: u64,
    },
    /// Phase 1b.
    Promise(Promise),
    /// Phase 2a for some slots in a row, a heartbeat, word of what is chosen, or all three.
    Accept(Accept),
    /// Phase 2b. To oneself: what this member has accepted is on its disk.
    Accepted(Accepted),
    /// The answer to a ballot that is too low.
    Preempted {
        /// What the acceptor has promised.
        promised: Ballot,
    },
    /// From the leader: what you lack is no longer in my log, but my state covers it.
    Compacted {
        /// The leader's ballot.
        ballot: Ballot,
        /// Where the leader's log begins.
        base: Index,
    },
    /// From the leader: prepare a ballot of your own, you are to lead.
    TakeOver {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// From a follower: up to where must I have applied, to serve reads that arrived by now?
    ReadIndex {
        /// The follower's number for all reads that wait for this answer. It starts at a random
        /// number in every life, so that an answer meant for an earlier life is not taken.
        batch: u64,
    },
    /// The answer to [`Message::ReadIndex`].
    ReadIndexReply {
        /// As asked.
        batch: u64,
        /// The read index; `None` if the one asked does not lead.
        index: Option<Index>,
    },
    /// From a member that lost values: up to where have you proposed anything?
    RequestLogEnd {
        /// This life's number for the question, so that an answer meant for an earlier one is not taken.
        nonce: u64,
    },
    /// The answer of the leader to [`Message::RequestLogEnd`].
    LogEnd {
        /// As asked.
        nonce: u64,
        /// The leader's ballot.
        ballot: Ballot,
        /// The last slot for which it had a value when it answered.
        last: Index,
    },
}

/// No lower ballot is answered any more, and this is what was accepted under lower ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Promise {
    /// The ballot promised.
    pub ballot: Ballot,
    /// As asked.
    pub first: Index,
    /// What was accepted at `first` and after it without a gap, as far as it fits one message.
    pub pvalues: Vec<Pvalue>,
    /// The last slot at which anything was accepted.
    pub last: Index,
    /// The slots up to here are known to be chosen, with the values accepted there.
    pub chosen: Index,
    /// Where the acceptor's log begins: before it there is only its state.
    pub base: Index,
}

/// Accept these values, which the ballot's proposer proposes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accept {
    /// The proposer's ballot.
    pub ballot: Ballot,
    /// The slot of the first value.
    pub first: Index,
    /// What the proposer knows to be chosen.
    pub chosen: Index,
    /// The proposer's latest round of confirming its ballot for reads; echoed in the answer.
    pub read_round: u64,
    /// Whether an acceptor that holds everything before `first` answers: not when the message only
    /// says what is chosen.
    pub reply: bool,
    /// One for each slot from `first` on; none in a heartbeat.
    pub values: Vec<Value>,
}

/// What the acceptor's disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accepted {
    /// The ballot which it has promised.
    pub ballot: Ballot,
    /// Each slot up to here it has accepted under this ballot, or knows to be chosen.
    pub upto: Index,
    /// As received.
    pub read_round: u64,
    /// Whether the message answered began after a slot that the acceptor has not accepted under
    /// this ballot: it accepted nothing of it.
    pub gap: bool,
    /// Whether it has never accepted anything after `upto`, under whatever ballot. With that it has told
    /// the proposer all that a promise would tell.
    pub clear: bool,
}

impl Wire for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Probe { ballot, alpha } => {
                put_ballot(1, *ballot, out);
                put_varint(out, *alpha);
            }
            Message::Willing { ballot } => put_ballot(2, *ballot, out),
            Message::Prepare { ballot, from, transfer, alpha } => {
                put_ballot(3, *ballot, out);
                put_varint(out, from.0);
                out.push(u8::from(*transfer));
                put_varint(out, *alpha);
            }
            Message::Promise(promise) => {
                put_ballot(4, promise.ballot, out);
                for slot in [promise.first, promise.last, promise.chosen, promise.base] {
                    put_varint(out, slot.0);
                }
                encode_pvalues(&promise.pvalues, out);
            }
            Message::Accept(accept) => {
                put_ballot(5, accept.ballot, out);
                for number in [accept.first.0, accept.chosen.0, accept.read_round] {
                    put_varint(out, number);
                }
                out.push(u8::from(accept.reply));
                encode_values(&accept.values, out);
            }
            Message::Accepted(accepted) => {
                put_ballot(6, accepted.ballot, out);
                put_varint(out, accepted.upto.0);
                put_varint(out, accepted.read_round);
                out.push(u8::from(accepted.gap));
                out.push(u8::from(accepted.clear));
            }
            Message::Preempted { promised } => put_ballot(7, *promised, out),
            Message::Compacted { ballot, base } => {
                put_ballot(8, *ballot, out);
                put_varint(out, base.0);
            }
            Message::TakeOver { ballot } => put_ballot(9, *ballot, out),
            Message::ReadIndex { batch } => {
                out.push(10);
                put_varint(out, *batch);
            }
            Message::ReadIndexReply { batch, index } => {
                out.push(11);
                put_varint(out, *batch);
                out.push(u8::from(index.is_some()));
                if let Some(index) = index {
                    put_varint(out, index.0);
                }
            }
            Message::RequestLogEnd { nonce } => {
                out.push(12);
                put_varint(out, *nonce);
            }
            Message::LogEnd { nonce, ballot, last } => {
                put_ballot(13, *ballot, out);
                put_varint(out, *nonce);
                put_varint(out, last.0);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match input.byte("message kind")? {
            1 => Message::Probe { ballot: Ballot::decode(input)?, alpha: input.varint("alpha")? },
            2 => Message::Willing { ballot: Ballot::decode(input)? },
            3 => Message::Prepare {
                ballot: Ballot::decode(input)?,
                from: slot(input)?,
                transfer: input.flag("transfer")?,
                alpha: input.varint("alpha")?,
            },
            4 => {
                let ballot = Ballot::decode(input)?;
                let [first, last, chosen, base] = [slot(input)?, slot(input)?, slot(input)?, slot(input)?];
                let pvalues = decode_pvalues(input)?;
                Message::Promise(Promise { ballot, first, pvalues, last, chosen, base })
            }
            5 => Message::Accept(Accept {
                ballot: Ballot::decode(input)?,
                first: slot(input)?,
                chosen: slot(input)?,
                read_round: input.varint("read round")?,
                reply: input.flag("reply")?,
                values: decode_values(input)?,
            }),
            6 => Message::Accepted(Accepted {
                ballot: Ballot::decode(input)?,
                upto: slot(input)?,
                read_round: input.varint("read round")?,
                gap: input.flag("gap")?,
                clear: input.flag("clear")?,
            }),
            7 => Message::Preempted { promised: Ballot::decode(input)? },
            8 => Message::Compacted { ballot: Ballot::decode(input)?, base: slot(input)? },
            9 => Message::TakeOver { ballot: Ballot::decode(input)? },
            10 => Message::ReadIndex { batch: input.varint("batch")? },
            11 => Message::ReadIndexReply {
                batch: input.varint("batch")?,
                index: if input.flag("read index present")? { Some(slot(input)?) } else { None },
            },
            12 => Message::RequestLogEnd { nonce: input.varint("nonce")? },
            13 => Message::LogEnd {
                ballot: Ballot::decode(input)?,
                nonce: input.varint("nonce")?,
                last: slot(input)?,
            },
            kind => return Err(DecodeError::Invalid { what: "message kind", value: u64::from(kind) }),
        })
    }
}

fn put_ballot(kind: u8, ballot: Ballot, out: &mut Vec<u8>) {
    out.push(kind);
    ballot.encode(out);
}

/// Slots above this are taken to be garbage; no arithmetic on smaller ones overflows.
const SLOT_MAX: u64 = u64::MAX >> 2;

fn slot(input: &mut Reader) -> Result<Index, DecodeError> {
    match input.varint("slot")? {
        slot if slot <= SLOT_MAX => Ok(Index(slot)),
        value => Err(DecodeError::Invalid { what: "slot", value }),
    }
}

impl Message {
    /// Whether its numbers are such as members count, wherever it came from.
    pub(super) fn is_plausible(&self) -> bool {
        let fits = |slot: Index| slot.0 <= SLOT_MAX;
        match self {
            Message::Probe { ballot, .. } | Message::Willing { ballot } | Message::TakeOver { ballot } => {
                ballot.is_plausible()
            }
            Message::Prepare { ballot, from, .. } => {
                ballot.is_plausible() && fits(*from) && *from > Index::ZERO
            }
            Message::Promise(promise) => promise.is_plausible(),
            Message::Accept(accept) => {
                let end = accept.first.0.saturating_add(accept.values.len() as u64);
                accept.ballot.is_plausible()
                    && accept.first > Index::ZERO
                    && fits(Index(end))
                    && fits(accept.chosen)
                    && accept.values.iter().all(|value| value.origin <= accept.ballot)
            }
            Message::Accepted(accepted) => accepted.ballot.is_plausible() && fits(accepted.upto),
            Message::Preempted { promised } => promised.is_plausible(),
            Message::Compacted { ballot, base } => ballot.is_plausible() && fits(*base),
            Message::ReadIndex { .. } | Message::RequestLogEnd { .. } => true,
            Message::LogEnd { ballot, last, .. } => ballot.is_plausible() && fits(*last),
            Message::ReadIndexReply { index, .. } => index.is_none_or(fits),
        }
    }
}

impl Promise {
    fn is_plausible(&self) -> bool {
        let end = self.first.0.saturating_add(self.pvalues.len() as u64);
        self.ballot.is_plausible()
            && self.last.0 <= SLOT_MAX
            && self.first > Index::ZERO
            && (self.pvalues.is_empty() || end <= self.last.0 + 1)
            && self.base <= self.chosen
            && self.chosen <= self.last
            && self
                .pvalues
                .iter()
                .all(|pvalue| pvalue.value.origin <= pvalue.ballot && pvalue.ballot <= self.ballot)
    }
}

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::Probe { .. } => "Probe",
            Message::Willing { .. } => "Willing",
            Message::Prepare { .. } => "Prepare",
            Message::Promise(_) => "Promise",
            Message::Accept(_) => "Accept",
            Message::Accepted(_) => "Accepted",
            Message::Preempted { .. } => "Preempted",
            Message::Compacted { .. } => "Compacted",
            Message::TakeOver { .. } => "TakeOver",
            Message::ReadIndex { .. } => "ReadIndex",
            Message::ReadIndexReply { .. } => "ReadIndexReply",
            Message::RequestLogEnd { .. } => "RequestLogEnd",
            Message::LogEnd { .. } => "LogEnd",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Probe { ballot, .. } | Message::Willing { ballot } | Message::TakeOver { ballot } => {
                format!("ballot {ballot}")
            }
            Message::Prepare { ballot, from, transfer, .. } => {
                let why = if *transfer { ", asked by the leader" } else { "" };
                format!("ballot {ballot}, from {from}{why}")
            }
            Message::Promise(promise) => format!(
                "ballot {}, {} from {} on, last {}, chosen {}",
                promise.ballot,
                count(promise.pvalues.len()),
                promise.first,
                promise.last,
                promise.chosen
            ),
            Message::Accept(accept) => format!(
                "ballot {}, {} from {} on, chosen {}, read round {}",
                accept.ballot,
                count(accept.values.len()),
                accept.first,
                accept.chosen,
                accept.read_round
            ),
            Message::Accepted(accepted) => {
                let gap = if accepted.gap { ", there was a gap" } else { "" };
                let more = if accepted.clear { "" } else { ", more under others" };
                format!("ballot {}, up to {}{gap}{more}", accepted.ballot, accepted.upto)
            }
            Message::Preempted { promised } => format!("promised {promised}"),
            Message::Compacted { ballot, base } => format!("ballot {ballot}, the log begins after {base}"),
            Message::RequestLogEnd { nonce } => format!("number {}", nonce & 0xFFFF),
            Message::LogEnd { nonce, ballot, last } => {
                format!("number {}, ballot {ballot}, up to {last}", nonce & 0xFFFF)
            }
            Message::ReadIndex { batch } => format!("batch {}", batch & 0xFFFF),
            Message::ReadIndexReply { batch, index: Some(index) } => {
                format!("batch {}, index {index}", batch & 0xFFFF)
            }
            Message::ReadIndexReply { batch, index: None } => format!("batch {}, refused", batch & 0xFFFF),
        }
    }
}

fn count(values: usize) -> String {
    match values {
        0 => "no values".to_string(),
        1 => "1 value".to_string(),
        n => format!("{n} values"),
    }
}
