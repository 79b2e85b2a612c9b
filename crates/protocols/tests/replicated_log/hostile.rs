//! Peers that are broken in any way: whatever they send, a server neither panics nor forgets what
//! it knows to be committed.

use std::collections::VecDeque;
use synod_protocols::log::{
    Epoch, Index, LogAnswer, LogAsk, LogBase, LogConfig, LogEvent, LogLimits, LogRequest, MembershipChange,
    Payload, ReplicatedLog, SnapshotPoint, Ticket,
};
use synod_protocols::raft::{
    AppendEntries, AppendEntriesReply, Entry, FetchLog, FetchedLog, InstallSnapshot, Message, Outcome, Raft,
    RequestVote, Term,
};
use synod_protocols::types::{LinkSession, NodeId, Time};
use synod_protocols::{Effects, Input, Process, Recovery, Rng, StorageFault};

const SELF: NodeId = NodeId(1);

#[test]
fn hostile_messages_do_no_harm() {
    harass_many::<Raft>(message);
}

/// Draws a message that may be anything.
pub type Hostile<P> = fn(&mut Rng, &P) -> <P as Process>::Message;

pub fn harass_many<P: ReplicatedLog>(message: Hostile<P>) {
    let ignored: u64 = (0..60).map(|seed| harass::<P>(seed, message)).sum();
    assert!(ignored > 1_000, "nothing was found to be hostile: {ignored}");
}

fn harass<P: ReplicatedLog>(seed: u64, message: Hostile<P>) -> u64 {
    let mut rng = Rng::new(seed);
    let mut now = Time::ZERO;
    let mut out = Effects::<P>::new();
    let limits = LogLimits { tail_bytes_max: 500, message_bytes_max: 200, ..LogLimits::default() };
    let common = LogConfig { limits, ..LogConfig::new(SELF, (1..=3).map(NodeId).collect(), seed) };
    let mut process = P::recover(P::config(common), Recovery::First, LogBase::default(), now, &mut out);
    let mut to_self = VecDeque::new();
    let mut delivered = Index::ZERO;
    let mut terms = Vec::new();
    for _ in 0..3_000 {
        let from = NodeId(2 + rng.below(3));
        let input = match rng.below(10) {
            0..6 => Input::Message { from, message: message(&mut rng, &process) },
            6 => Input::Timeout,
            7 => match to_self.pop_front() {
                Some(message) => Input::Message { from: SELF, message },
                None => Input::Timeout,
            },
            8 => trouble(&mut rng, from),
            _ => request(&mut rng, delivered, &terms),
        };
        if rng.chance(1, 3) {
            now = Time(now.0 + rng.below(60_000_000));
        }
        process.step(now, input, &mut out);
        let own = out.sends.drain(..).filter(|send| send.to == SELF).map(|send| send.message);
        to_self.extend(own);
        for emit in out.events.drain(..) {
            let LogEvent::Committed { entries } = emit.event else { continue };
            for entry in entries {
                assert_eq!(entry.index, delivered.next());
                delivered = entry.index;
                terms.push(entry.epoch);
            }
        }
        let _: Vec<LogAsk> = out.asks.drain(..).collect();
        out.clear();
        let _ = (process.deadline(), process.describe(now));
        let status = process.status();
        assert!(status.committed <= status.last && status.durable <= status.last);
        for index in (status.first_in_memory.0..=delivered.0).map(Index) {
            let held = process.entry(index).map(|(epoch, _)| epoch);
            assert_eq!(held, Some(terms[index.0 as usize - 1]), "{index} was committed and then replaced");
        }
    }
    process.status().ignored
}

/// A number near what the server knows, or far from everything.
pub fn number(rng: &mut Rng, near: u64) -> u64 {
    match rng.below(8) {
        0..5 => (near + rng.below(4)).saturating_sub(2),
        5 => rng.below(4),
        6 => u64::MAX >> 1,
        _ => u64::MAX - rng.below(2),
    }
}

fn message(rng: &mut Rng, raft: &Raft) -> Message {
    let status = raft.status();
    // A term that is out of all proportion would end the run: it comes rarely.
    let near = status.epoch.0;
    let term =
        Term(if rng.chance(1, 500) { number(rng, near) } else { (near + rng.below(3)).saturating_sub(1) });
    let index = |rng: &mut Rng| Index(number(rng, status.last.0));
    match rng.below(8) {
        0 => Message::RequestPreVote(RequestVote {
            term,
            last_index: index(rng),
            last_term: term,
            transfer: rng.chance(1, 4),
        }),
        1 => Message::PreVote { term, granted: rng.chance(2, 3) },
        2 => Message::RequestVote(RequestVote {
            term,
            last_index: index(rng),
            last_term: term,
            transfer: rng.chance(1, 4),
        }),
        3 => Message::Vote { term, granted: rng.chance(2, 3) },
        4 | 5 => {
            let entry = |rng: &mut Rng| Entry {
                term: Term(term.0.saturating_sub(rng.below(2))),
                payload: match rng.below(10) {
                    0 => Payload::Membership(members(rng)),
                    _ => Payload::Noop,
                },
            };
            let count = rng.below(4);
            let prev_index = index(rng);
            let known = raft.entry(prev_index).map_or(0, |(epoch, _)| epoch.0);
            Message::AppendEntries(AppendEntries {
                term,
                prev_index,
                prev_term: Term(if rng.chance(3, 4) { known } else { number(rng, known) }),
                commit: index(rng),
                round: number(rng, 2),
                reply: rng.chance(1, 2),
                entries: (0..count).map(|_| entry(rng)).collect(),
            })
        }
        6 => {
            let outcome = match rng.below(4) {
                3 => Outcome::Fetching,
                0 => Outcome::Matched { index: index(rng) },
                1 => Outcome::Rejected { prev_index: index(rng), hint_index: index(rng), hint_term: term },
                _ => Outcome::Stale,
            };
            Message::AppendEntriesReply(AppendEntriesReply { term, round: number(rng, 2), outcome })
        }
        _ => match rng.below(12) {
            7 | 8 => Message::LogAhead { term, last_index: index(rng), last_term: Term(number(rng, near)) },
            9 => Message::FetchLog(FetchLog { index: index(rng), term: Term(number(rng, near)) }),
            10 | 11 => Message::FetchedLog(fetched(rng, raft, term)),
            3 => {
                let (index, index_term) = (index(rng), Term(number(rng, near)));
                Message::InstallSnapshot(InstallSnapshot { term, index, index_term, round: number(rng, 2) })
            }
            4 => Message::TimeoutNow { term },
            5 => Message::RequestLogEnd { nonce: rng.below(3) },
            6 => Message::LogEnd { nonce: rng.below(3), term, last: index(rng) },
            0 => Message::ReadIndex { batch: rng.below(3) },
            1 => Message::ReadIndexReply { batch: rng.below(3), index: Some(index(rng)) },
            _ => Message::Stored { truncations: rng.below(3), index: index(rng) },
        },
    }
}

/// Entries as from a voter whose log is ahead, or from nobody.
fn fetched(rng: &mut Rng, raft: &Raft, term: Term) -> FetchedLog {
    let status = raft.status();
    let prev_index = Index(number(rng, status.last.0));
    let known = raft.entry(prev_index).map_or(0, |(epoch, _)| epoch.0);
    let entries: Vec<_> = (0..rng.below(4))
        .map(|_| Entry {
            term: Term(term.0.saturating_sub(rng.below(2))),
            payload: if rng.chance(1, 10) { Payload::Membership(members(rng)) } else { Payload::Noop },
        })
        .collect();
    FetchedLog {
        term,
        prev_index,
        prev_term: Term(if rng.chance(3, 4) { known } else { number(rng, known) }),
        base: Index(rng.below(3)),
        last_index: Index(prev_index.0.saturating_add(rng.below(5))),
        last_term: Term(term.0.saturating_sub(rng.below(2))),
        commit: Index(number(rng, status.committed.0)),
        entries,
    }
}

/// A configuration, in its encoding or nearly so.
fn members(rng: &mut Rng) -> bytes::Bytes {
    let mut bytes = vec![4, 3, 1, 1, 0, 2, 1, 0, 3, 1 + rng.below(5) as u8, 0];
    if rng.chance(1, 3) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] = rng.next() as u8;
    }
    bytes.into()
}

fn trouble<P: ReplicatedLog>(rng: &mut Rng, peer: NodeId) -> Input<P> {
    match rng.below(8) {
        0 => Input::LinkUp { peer, session: LinkSession(rng.next()) },
        1 => Input::LinkDown { peer },
        2 => Input::StorageFault(StorageFault::Full),
        3..6 => Input::StorageFault(StorageFault::Cleared),
        _ => Input::Answer(LogAnswer::Entries { from: Index(rng.below(5)), records: Vec::new() }),
    }
}

fn change(rng: &mut Rng) -> MembershipChange {
    let id = NodeId(rng.below(7));
    match rng.below(4) {
        0 => MembershipChange::Add { id, context: bytes::Bytes::new(), promote: rng.chance(1, 2) },
        1 => MembershipChange::Promote(id),
        2 => MembershipChange::Remove(id),
        _ => MembershipChange::Replace((0..6).map(NodeId).filter(|_| rng.chance(1, 2)).collect()),
    }
}

fn request<P: ReplicatedLog>(rng: &mut Rng, delivered: Index, terms: &[Epoch]) -> Input<P> {
    let ticket = Ticket(rng.next());
    Input::Request(match rng.below(6) {
        3 => LogRequest::TransferLeadership { ticket, to: rng.chance(1, 2).then_some(NodeId(rng.below(5))) },
        4 => LogRequest::ChangeMembership { ticket, change: change(rng) },
        5 => {
            // What the host says of its own state is true.
            let epoch = terms.last().copied().unwrap_or_default();
            LogRequest::Compact { point: SnapshotPoint { index: delivered, epoch, ..Default::default() } }
        }
        0 => LogRequest::Propose { ticket, commands: vec![bytes::Bytes::from_static(b"command"); 2] },
        1 => LogRequest::Read { ticket },
        _ => LogRequest::Applied { index: delivered },
    })
}
