//! What servers say to each other, in the dissertation's words, and its encoding.

use super::record::{Entry, Term, decode_entries, encode_entries};
use crate::contract::Describe;
use crate::log::Index;
use crate::wire::{DecodeError, Reader, Wire, put_varint};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A message of Raft's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Would you vote for me? (Section 9.6.) It changes nothing at the voter.
    RequestPreVote(RequestVote),
    /// The answer to [`Message::RequestPreVote`].
    PreVote {
        /// The term asked for if granted; the voter's own if not, so that the asker may catch up.
        term: Term,
        /// Whether the voter would.
        granted: bool,
    },
    /// Vote for me. (Section 3.4.)
    RequestVote(RequestVote),
    /// The answer to [`Message::RequestVote`].
    Vote {
        /// The voter's term.
        term: Term,
        /// Whether the candidate has its vote.
        granted: bool,
    },
    /// Entries, a heartbeat, a commit index, or all three. (Section 3.5.)
    AppendEntries(AppendEntries),
    /// The answer to [`Message::AppendEntries`].
    AppendEntriesReply(AppendEntriesReply),
    /// From a follower: up to where must I have applied, to serve reads that arrived by now?
    /// (Section 6.4.)
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
    /// To oneself: the entries up to `index` which the log then held are on the disk.
    Stored {
        /// How often the log had been cut in this life when it appended them.
        truncations: u64,
        /// The last of them.
        index: Index,
    },
    /// The log that you need begins after this; fetch my state. (Chapter 5, but the state itself
    /// goes past the protocol, from host to host.) The answer is an [`AppendEntriesReply`].
    InstallSnapshot(InstallSnapshot),
    /// From the leader of `term`: campaign at once, in my place. (Section 3.10.)
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// From a server whose disk lost part of its log: how far does the leader's log reach?
    RequestLogEnd {
        /// A number of this life's, so that no answer to an earlier life is taken.
        nonce: u64,
    },
    /// The answer to [`Message::RequestLogEnd`].
    LogEnd {
        /// As asked.
        nonce: u64,
        /// The leader's term.
        term: Term,
        /// The last entry in its log.
        last: Index,
    },
    /// Another answer to [`Message::RequestPreVote`]: I would, if your log were not behind mine.
    /// (Nor the dissertation's; see `fetch`.)
    LogAhead {
        /// The voter's term.
        term: Term,
        /// The last entry of its log.
        last_index: Index,
        /// Its term.
        last_term: Term,
    },
    /// The answer to [`Message::LogAhead`].
    FetchLog(FetchLog),
    /// The answer to [`Message::FetchLog`].
    FetchedLog(FetchedLog),
}

/// From a pre-candidate: what follows this position in your log?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchLog {
    /// A position that the voter's log may hold, too.
    pub index: Index,
    /// The term of the entry there.
    pub term: Term,
}

/// A part of a voter's log. It is no word of a leader's: nothing in it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchedLog {
    /// The voter's term.
    pub term: Term,
    /// The position before the entries: the one asked for, or the last before it where the logs may
    /// agree, or `base`.
    pub prev_index: Index,
    /// The term of the entry there.
    pub prev_term: Term,
    /// Where the voter's log begins; its host's state covers what comes before.
    pub base: Index,
    /// The last entry of the voter's log.
    pub last_index: Index,
    /// Its term.
    pub last_term: Term,
    /// The last entry that the voter knows to be committed.
    pub commit: Index,
    /// As many as fit into a message.
    pub entries: Vec<Entry>,
}

/// The arguments of RequestVote and RequestPreVote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestVote {
    /// The term that the candidate campaigns in, or would.
    pub term: Term,
    /// The last entry of the candidate's log.
    pub last_index: Index,
    /// Its term.
    pub last_term: Term,
    /// Whether the leader of the term before asked the candidate to campaign, so that loyalty to
    /// that leader is no reason to ignore it. (Section 4.2.3.)
    pub transfer: bool,
}

/// A leader's offer of its state, to a peer that lacks what the leader's log no longer has. It
/// serves as a heartbeat, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// The last entry that the state covers, at the least.
    pub index: Index,
    /// Its term.
    pub index_term: Term,
    /// As in [`AppendEntries`].
    pub round: u64,
}

/// The arguments of AppendEntries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The position before the entries.
    pub prev_index: Index,
    /// The term of the entry there.
    pub prev_term: Term,
    /// The leader's commit index.
    pub commit: Index,
    /// The leader's latest round of confirming its leadership for reads; echoed in the reply.
    pub round: u64,
    /// Whether a follower whose log matches answers: not when the message only carries a commit index.
    pub reply: bool,
    /// The entries, which follow on `prev_index` without a gap; none in a heartbeat.
    pub entries: Vec<Entry>,
}

/// The results of AppendEntries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendEntriesReply {
    /// The follower's term.
    pub term: Term,
    /// As received.
    pub round: u64,
    /// What became of the entries.
    pub outcome: Outcome,
}

/// What became of an AppendEntries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The follower's disk holds the leader's log up to `index`.
    Matched {
        /// The last entry of the message, or its `prev_index`.
        index: Index,
    },
    /// The follower's log does not hold `prev_index` in `prev_term`.
    Rejected {
        /// As received.
        prev_index: Index,
        /// The follower's last entry before it whose term is not above `prev_term`: the logs
        /// cannot match after it. (The hint at the end of section 3.5.)
        hint_index: Index,
        /// Its term.
        hint_term: Term,
    },
    /// The message is of an older term than the follower's.
    Stale,
    /// The follower has been offered a snapshot, which it does not have yet.
    Fetching,
}

impl Wire for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::RequestPreVote(request) => request.encode(1, out),
            Message::PreVote { term, granted } => put_vote(2, *term, *granted, out),
            Message::RequestVote(request) => request.encode(3, out),
            Message::Vote { term, granted } => put_vote(4, *term, *granted, out),
            Message::AppendEntries(append) => {
                out.push(5);
                for number in
                    [append.term.0, append.prev_index.0, append.prev_term.0, append.commit.0, append.round]
                {
                    put_varint(out, number);
                }
                out.push(u8::from(append.reply));
                encode_entries(&append.entries, out);
            }
            Message::AppendEntriesReply(reply) => reply.encode(out),
            Message::ReadIndex { batch } => {
                out.push(7);
                put_varint(out, *batch);
            }
            Message::ReadIndexReply { batch, index } => {
                out.push(8);
                put_varint(out, *batch);
                out.push(u8::from(index.is_some()));
                if let Some(index) = index {
                    put_varint(out, index.0);
                }
            }
            Message::Stored { truncations, index } => {
                out.push(9);
                put_varint(out, *truncations);
                put_varint(out, index.0);
            }
            Message::InstallSnapshot(offer) => {
                out.push(10);
                for number in [offer.term.0, offer.index.0, offer.index_term.0, offer.round] {
                    put_varint(out, number);
                }
            }
            Message::TimeoutNow { term } => {
                out.push(11);
                put_varint(out, term.0);
            }
            Message::RequestLogEnd { nonce } => {
                out.push(12);
                put_varint(out, *nonce);
            }
            Message::LogEnd { nonce, term, last } => {
                out.push(13);
                for number in [*nonce, term.0, last.0] {
                    put_varint(out, number);
                }
            }
            Message::LogAhead { term, last_index, last_term } => {
                out.push(14);
                for number in [term.0, last_index.0, last_term.0] {
                    put_varint(out, number);
                }
            }
            Message::FetchLog(fetch) => {
                out.push(15);
                put_varint(out, fetch.index.0);
                put_varint(out, fetch.term.0);
            }
            Message::FetchedLog(fetched) => {
                out.push(16);
                let FetchedLog { term, prev_index, prev_term, base, last_index, last_term, commit, entries } =
                    fetched;
                for number in [term.0, prev_index.0, prev_term.0, base.0, last_index.0, last_term.0, commit.0]
                {
                    put_varint(out, number);
                }
                encode_entries(entries, out);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match input.byte("message kind")? {
            1 => Message::RequestPreVote(RequestVote::decode(input)?),
            2 => Message::PreVote { term: term(input)?, granted: input.flag("granted")? },
            3 => Message::RequestVote(RequestVote::decode(input)?),
            4 => Message::Vote { term: term(input)?, granted: input.flag("granted")? },
            5 => Message::AppendEntries(AppendEntries {
                term: term(input)?,
                prev_index: index(input)?,
                prev_term: term(input)?,
                commit: index(input)?,
                round: input.varint("round")?,
                reply: input.flag("reply")?,
                entries: decode_entries(input)?,
            }),
            6 => Message::AppendEntriesReply(AppendEntriesReply::decode(input)?),
            7 => Message::ReadIndex { batch: input.varint("batch")? },
            8 => Message::ReadIndexReply {
                batch: input.varint("batch")?,
                index: if input.flag("read index present")? { Some(index(input)?) } else { None },
            },
            9 => Message::Stored { truncations: input.varint("truncations")?, index: index(input)? },
            10 => Message::InstallSnapshot(InstallSnapshot {
                term: term(input)?,
                index: index(input)?,
                index_term: term(input)?,
                round: input.varint("round")?,
            }),
            11 => Message::TimeoutNow { term: term(input)? },
            12 => Message::RequestLogEnd { nonce: input.varint("nonce")? },
            13 => Message::LogEnd { nonce: input.varint("nonce")?, term: term(input)?, last: index(input)? },
            14 => {
                Message::LogAhead { term: term(input)?, last_index: index(input)?, last_term: term(input)? }
            }
            15 => Message::FetchLog(FetchLog { index: index(input)?, term: term(input)? }),
            16 => Message::FetchedLog(FetchedLog {
                term: term(input)?,
                prev_index: index(input)?,
                prev_term: term(input)?,
                base: index(input)?,
                last_index: index(input)?,
                last_term: term(input)?,
                commit: index(input)?,
                entries: decode_entries(input)?,
            }),
            kind => return Err(DecodeError::Invalid { what: "message kind", value: u64::from(kind) }),
        })
    }
}

impl RequestVote {
    fn encode(&self, kind: u8, out: &mut Vec<u8>) {
        out.push(kind);
        for number in [self.term.0, self.last_index.0, self.last_term.0] {
            put_varint(out, number);
        }
        out.push(u8::from(self.transfer));
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(RequestVote {
            term: term(input)?,
            last_index: index(input)?,
            last_term: term(input)?,
            transfer: input.flag("transfer")?,
        })
    }
}

impl AppendEntriesReply {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(6);
        put_varint(out, self.term.0);
        put_varint(out, self.round);
        match self.outcome {
            Outcome::Matched { index } => {
                out.push(1);
                put_varint(out, index.0);
            }
            Outcome::Rejected { prev_index, hint_index, hint_term } => {
                out.push(2);
                for number in [prev_index.0, hint_index.0, hint_term.0] {
                    put_varint(out, number);
                }
            }
            Outcome::Stale => out.push(3),
            Outcome::Fetching => out.push(4),
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(AppendEntriesReply {
            term: term(input)?,
            round: input.varint("round")?,
            outcome: match input.byte("outcome")? {
                1 => Outcome::Matched { index: index(input)? },
                2 => Outcome::Rejected {
                    prev_index: index(input)?,
                    hint_index: index(input)?,
                    hint_term: term(input)?,
                },
                3 => Outcome::Stale,
                4 => Outcome::Fetching,
                other => return Err(DecodeError::Invalid { what: "outcome", value: u64::from(other) }),
            },
        })
    }
}

fn put_vote(kind: u8, term: Term, granted: bool, out: &mut Vec<u8>) {
    out.push(kind);
    put_varint(out, term.0);
    out.push(u8::from(granted));
}

fn term(input: &mut Reader) -> Result<Term, DecodeError> {
    input.varint("term").map(Term)
}

fn index(input: &mut Reader) -> Result<Index, DecodeError> {
    input.varint("index").map(Index)
}

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::RequestPreVote(_) => "RequestPreVote",
            Message::PreVote { .. } => "PreVote",
            Message::RequestVote(_) => "RequestVote",
            Message::Vote { .. } => "Vote",
            Message::AppendEntries(_) => "AppendEntries",
            Message::AppendEntriesReply(_) => "AppendEntriesReply",
            Message::ReadIndex { .. } => "ReadIndex",
            Message::ReadIndexReply { .. } => "ReadIndexReply",
            Message::Stored { .. } => "Stored",
            Message::InstallSnapshot(_) => "InstallSnapshot",
            Message::TimeoutNow { .. } => "TimeoutNow",
            Message::RequestLogEnd { .. } => "RequestLogEnd",
            Message::LogEnd { .. } => "LogEnd",
            Message::LogAhead { .. } => "LogAhead",
            Message::FetchLog(_) => "FetchLog",
            Message::FetchedLog(_) => "FetchedLog",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::RequestPreVote(request) | Message::RequestVote(request) => {
                let transfer = if request.transfer { ", asked to lead" } else { "" };
                let RequestVote { term, last_index, last_term, .. } = request;
                format!("term {term}, log ends {last_index}@{last_term}{transfer}")
            }
            Message::PreVote { term, granted } | Message::Vote { term, granted } => {
                format!("term {term}, {}", if *granted { "granted" } else { "refused" })
            }
            Message::AppendEntries(append) => append.detail(),
            Message::AppendEntriesReply(reply) => match reply.outcome {
                Outcome::Matched { index } => format!("term {}, matched up to {index}", reply.term),
                Outcome::Rejected { prev_index, hint_index, hint_term } => {
                    format!(
                        "term {}, rejected after {prev_index}, try after {hint_index}@{hint_term}",
                        reply.term
                    )
                }
                Outcome::Stale => format!("term {}, stale", reply.term),
                Outcome::Fetching => format!("term {}, fetching a snapshot", reply.term),
            },
            Message::ReadIndex { batch } => format!("batch {}", batch & 0xFFFF),
            Message::ReadIndexReply { batch, index: Some(index) } => {
                format!("batch {}, index {index}", batch & 0xFFFF)
            }
            Message::ReadIndexReply { batch, index: None } => format!("batch {}, refused", batch & 0xFFFF),
            Message::Stored { truncations, index } => format!("up to {index}, after {truncations} cuts"),
            Message::InstallSnapshot(InstallSnapshot { term, index, index_term, round }) => {
                format!("term {term}, up to {index}@{index_term}, round {round}")
            }
            Message::TimeoutNow { term } => format!("term {term}"),
            Message::RequestLogEnd { nonce } => format!("question {}", nonce & 0xFFFF),
            Message::LogEnd { nonce, term, last } => {
                format!("question {}, term {term}, log ends {last}", nonce & 0xFFFF)
            }
            Message::LogAhead { term, last_index, last_term } => {
                format!("term {term}, refused, log ends {last_index}@{last_term}")
            }
            Message::FetchLog(FetchLog { index, term }) => format!("after {index}@{term}"),
            Message::FetchedLog(FetchedLog {
                term,
                prev_index,
                prev_term,
                entries,
                last_index,
                last_term,
                ..
            }) => {
                let count = entries.len();
                format!(
                    "term {term}, after {prev_index}@{prev_term}, {count} entries, log ends {last_index}@{last_term}"
                )
            }
        }
    }
}

impl AppendEntries {
    fn detail(&self) -> String {
        let what = match self.entries.len() {
            0 => "no entries".to_string(),
            1 => "1 entry".to_string(),
            n => format!("{n} entries"),
        };
        format!(
            "term {}, after {}@{}, {what}, commit {}, round {}",
            self.term, self.prev_index, self.prev_term, self.commit, self.round
        )
    }
}
