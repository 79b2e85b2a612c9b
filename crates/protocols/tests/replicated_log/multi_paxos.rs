//! Multi-Paxos alone: golden bytes of its messages and records, what decoders do with garbage, and
//! peers that are broken in any way.

use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt::Debug;
use synod_protocols::ballot::{Ballot, ROUND_MAX};
use synod_protocols::log::{
    Epoch, Index, LogAnswer, LogBase, LogConfig, LogEvent, LogLimits, LogRequest, Payload, ReplicatedLog,
    SnapshotPoint, Ticket,
};
use synod_protocols::multi_paxos::{
    Accept, Accepted, Message, MultiPaxos, Pledge, Promise, Pvalue, Record, Value,
};
use synod_protocols::types::{LinkSession, NodeId, Time};
use synod_protocols::{Describe, Effects, Input, Process, Recovery, Rng, StorageFault, Wire};

const fn ballot(round: u64, id: u64) -> Ballot {
    Ballot { round, id: NodeId(id) }
}

fn values() -> Vec<Value> {
    vec![
        Value { origin: ballot(2, 1), payload: Payload::Noop },
        Value { origin: ballot(3, 2), payload: Payload::Command(Bytes::from_static(b"set")) },
        Value { origin: ballot(300, 1), payload: Payload::Membership(Bytes::from_static(&[1, 2])) },
    ]
}

fn pvalues() -> Vec<Pvalue> {
    values().into_iter().map(|value| Pvalue { ballot: ballot(300, 1), value }).collect()
}

fn messages() -> Vec<(Message, Vec<u8>)> {
    let promise = Promise {
        ballot: ballot(300, 2),
        first: Index(7),
        pvalues: pvalues(),
        last: Index(9),
        chosen: Index(6),
        base: Index(4),
    };
    let accept = Accept {
        ballot: ballot(300, 1),
        first: Index(7),
        chosen: Index(6),
        read_round: 9,
        reply: true,
        values: values(),
    };
    let accepted = Accepted { ballot: ballot(3, 1), upto: Index(200), read_round: 9, gap: true, clear: true };
    let prepare = Message::Prepare { ballot: ballot(3, 2), from: Index(200), transfer: true, alpha: 300 };
    let mut promised = vec![4, 0xAC, 2, 2, 7, 9, 6, 4, 3];
    promised.extend([0xAC, 2, 1, 2, 1, 0, 0xAC, 2, 1, 3, 2, 1, 3, b's', b'e', b't']);
    promised.extend([0xAC, 2, 1, 0xAC, 2, 1, 2, 2, 1, 2]);
    let mut proposed = vec![5, 0xAC, 2, 1, 7, 6, 9, 1, 3];
    proposed.extend([2, 1, 0, 3, 2, 1, 3, b's', b'e', b't', 0xAC, 2, 1, 2, 2, 1, 2]);
    vec![
        (Message::Probe { ballot: ballot(3, 2), alpha: 5 }, vec![1, 3, 2, 5]),
        (Message::Willing { ballot: ballot(3, 2) }, vec![2, 3, 2]),
        (prepare, vec![3, 3, 2, 0xC8, 1, 1, 0xAC, 2]),
        (Message::Promise(promise), promised),
        (Message::Accept(accept), proposed),
        (Message::Accepted(accepted), vec![6, 3, 1, 0xC8, 1, 9, 1, 1]),
        (Message::Preempted { promised: ballot(3, 2) }, vec![7, 3, 2]),
        (Message::Compacted { ballot: ballot(3, 2), base: Index(8) }, vec![8, 3, 2, 8]),
        (Message::TakeOver { ballot: ballot(3, 2) }, vec![9, 3, 2]),
        (Message::ReadIndex { batch: 5 }, vec![10, 5]),
        (Message::ReadIndexReply { batch: 5, index: Some(Index(8)) }, vec![11, 5, 1, 8]),
        (Message::ReadIndexReply { batch: 5, index: None }, vec![11, 5, 0]),
        (Message::RequestLogEnd { nonce: 300 }, vec![12, 0xAC, 2]),
        (Message::LogEnd { nonce: 300, ballot: ballot(3, 2), last: Index(8) }, vec![13, 3, 2, 0xAC, 2, 8]),
    ]
}

fn records() -> Vec<(Record, Vec<u8>)> {
    let mut accepted = vec![2, 8, 7, 3];
    accepted.extend([0xAC, 2, 1, 2, 1, 0, 0xAC, 2, 1, 3, 2, 1, 3, b's', b'e', b't']);
    accepted.extend([0xAC, 2, 1, 0xAC, 2, 1, 2, 2, 1, 2]);
    vec![
        (Record::Promised(Pledge::default()), vec![1, 0, 0]),
        (Record::Promised(Pledge { ballot: ballot(3, 2), ..Pledge::default() }), vec![1, 3, 2]),
        (Record::Promised(Pledge { joined: true, ..Pledge::default() }), vec![3, 0, 0, 1]),
        (
            Record::Promised(Pledge { ballot: ballot(3, 2), joined: true, repairing: true, uncertain: true }),
            vec![3, 3, 2, 7],
        ),
        (Record::Restarted { after: Index(300) }, vec![4, 0xAC, 2]),
        (Record::Accepted { first: Index(8), pvalues: pvalues(), chosen: Index(7) }, accepted),
    ]
}

fn check<T: Wire + Debug + PartialEq + Describe>(golden: Vec<(T, Vec<u8>)>) {
    for (value, bytes) in golden {
        assert_eq!(value.to_bytes(), bytes, "{value:?}");
        assert_eq!(T::from_bytes(bytes.clone().into()).as_ref(), Ok(&value));
        for end in 0..bytes.len() {
            assert!(T::from_bytes(bytes[..end].to_vec().into()).is_err(), "{value:?} cut at {end}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(T::from_bytes(longer.into()).is_err(), "{value:?} with a byte too many");
    }
}

#[test]
fn messages_have_these_bytes() {
    check(messages());
}

#[test]
fn records_have_these_bytes() {
    check(records());
}

#[test]
fn records_of_nothing_are_refused() {
    // No kind, no values, slot 0, a mark that is not before the first slot, a ballot of nobody's.
    for bytes in [
        &[][..],
        &[3],
        &[3, 3, 2, 0],
        &[3, 3, 2, 8],
        &[2, 1, 0, 0],
        &[2, 0, 0, 1, 1, 1, 1, 1, 0],
        &[2, 1, 1, 1, 1, 1, 1, 1, 0],
        &[1, 3, 0],
    ] {
        assert!(Record::from_bytes(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
    }
}

/// Random bytes, and golden ones with a few bytes changed: whatever decodes must encode to
/// something that decodes to the same, and nothing panics.
#[test]
fn decoders_survive_garbage() {
    fn fuzz<T: Wire + Debug + PartialEq + Describe>(golden: &[Vec<u8>], rng: &mut Rng) -> usize {
        let mut decoded = 0;
        for _ in 0..100_000 {
            let mut bytes = match rng.chance(1, 2) {
                true => golden[rng.below(golden.len() as u64) as usize].clone(),
                false => (0..rng.below(40)).map(|_| rng.next() as u8).collect(),
            };
            for _ in 0..rng.below(4) {
                if !bytes.is_empty() {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] = rng.next() as u8;
                }
            }
            if let Ok(value) = T::from_bytes(bytes.into()) {
                assert_eq!(T::from_bytes(value.to_bytes()).as_ref(), Ok(&value));
                assert!(!value.name().is_empty() && !value.detail().is_empty());
                decoded += 1;
            }
        }
        decoded
    }
    let mut rng = Rng::new(1);
    let golden: Vec<_> = messages().into_iter().map(|(_, bytes)| bytes).collect();
    assert!(fuzz::<Message>(&golden, &mut rng) > 10_000);
    let golden: Vec<_> = records().into_iter().map(|(_, bytes)| bytes).collect();
    assert!(fuzz::<Record>(&golden, &mut rng) > 10_000);
}

const SELF: NodeId = NodeId(1);

#[test]
fn hostile_messages_do_no_harm() {
    let (mut ignored, mut delivered) = (0, 0);
    for seed in 0..80 {
        let (more_ignored, more_delivered) = harass(seed);
        ignored += more_ignored;
        delivered += more_delivered;
    }
    println!("multi-paxos: {ignored} inputs ignored, {delivered} slots delivered");
    assert!(ignored > 1_000 && delivered > 1_000, "{ignored} ignored, {delivered} delivered");
}

/// Whatever peers say, a member neither panics nor takes back what it has delivered.
fn harass(seed: u64) -> (u64, u64) {
    let mut rng = Rng::new(seed);
    let mut now = Time::ZERO;
    let mut out = Effects::<MultiPaxos>::new();
    let limits = LogLimits { tail_bytes_max: 500, message_bytes_max: 200, ..LogLimits::default() };
    let common = LogConfig { limits, ..LogConfig::new(SELF, (1..=3).map(NodeId).collect(), seed) };
    let config = MultiPaxos::config(common);
    let mut member = MultiPaxos::recover(config, Recovery::First, LogBase::default(), now, &mut out);
    let mut to_self = VecDeque::new();
    let mut delivered = Index::ZERO;
    let mut epochs: Vec<Epoch> = Vec::new();
    for _ in 0..3_000 {
        let from = NodeId(2 + rng.below(3));
        let input = match rng.below(10) {
            0..6 => Input::Message { from, message: message(&mut rng, from, &member) },
            6 => Input::Timeout,
            7 => match to_self.pop_front() {
                Some(message) => Input::Message { from: SELF, message },
                None => Input::Timeout,
            },
            8 => trouble(&mut rng, from, delivered, &mut epochs),
            _ => request(&mut rng, delivered),
        };
        if rng.chance(1, 3) {
            now = Time(now.0 + rng.below(60_000_000));
        }
        if let Input::Answer(LogAnswer::Snapshot { point }) = &input {
            delivered = delivered.max(point.index);
        }
        member.step(now, input, &mut out);
        let own = out.sends.drain(..).filter(|send| send.to == SELF).map(|send| send.message);
        to_self.extend(own);
        for record in &out.records {
            assert_eq!(Record::from_bytes(record.to_bytes()).as_ref(), Ok(record), "what is written is read");
        }
        for emit in out.events.drain(..) {
            let LogEvent::Committed { entries } = emit.event else { continue };
            for entry in entries {
                assert_eq!(entry.index, delivered.next());
                delivered = entry.index;
                epochs.push(entry.epoch);
            }
        }
        out.clear();
        let _ = (member.deadline(), member.describe(now));
        let status = member.status();
        assert!(status.committed <= status.last && status.durable <= status.last);
        for index in (status.first_in_memory.0..=delivered.0).map(Index) {
            let held = member.entry(index).map(|(epoch, _)| epoch);
            assert_eq!(held, Some(epochs[index.0 as usize - 1]), "{index} was chosen and then replaced");
        }
    }
    (member.status().ignored, delivered.0)
}

/// A number near what the member knows, or far from everything.
fn number(rng: &mut Rng, near: u64) -> u64 {
    match rng.below(8) {
        0..5 => (near + rng.below(4)).saturating_sub(2),
        5 => rng.below(4),
        6 => u64::MAX >> 2,
        _ => u64::MAX - rng.below(2),
    }
}

fn message(rng: &mut Rng, from: NodeId, member: &MultiPaxos) -> Message {
    let status = member.status();
    let round = status.epoch.0 / synod_protocols::ballot::ID_BOUND;
    // A round that is out of all proportion would end the run: it comes rarely.
    let round = match rng.below(1_000) {
        0 => ROUND_MAX,
        1 => number(rng, round),
        _ => (round + rng.below(2)).max(1),
    };
    let id = match rng.below(12) {
        0 => NodeId(rng.below(5)),
        1..5 => status.voted_for.unwrap_or(from),
        _ => from,
    };
    let ballot = Ballot { round, id };
    let slot = |rng: &mut Rng| Index(number(rng, status.last.0));
    let value = |rng: &mut Rng| Value {
        origin: if rng.chance(1, 8) {
            Ballot { round: rng.next(), id }
        } else {
            Ballot { round: 1, id: from }
        },
        payload: match rng.chance(1, 8) {
            true => Payload::Membership(members(rng)),
            false => Payload::Noop,
        },
    };
    let count = rng.below(4);
    let alpha = LogLimits::default().alpha as u64;
    match rng.below(10) {
        0 => Message::Probe { ballot, alpha },
        1 => Message::Willing { ballot: if rng.chance(1, 2) { ballot } else { Ballot { round, id: SELF } } },
        2 => Message::Prepare { ballot, from: slot(rng), transfer: rng.chance(1, 4), alpha },
        3 | 4 => {
            let pvalues = (0..count).map(|_| Pvalue { ballot: Ballot { round: 1, id }, value: value(rng) });
            let pvalues = pvalues.collect();
            Message::Promise(Promise {
                ballot: if rng.chance(1, 4) { ballot } else { Ballot { round, id: SELF } },
                first: if rng.chance(1, 2) { status.committed.next() } else { slot(rng) },
                pvalues,
                last: slot(rng),
                chosen: slot(rng),
                base: Index(rng.below(3)),
            })
        }
        5..8 => Message::Accept(Accept {
            ballot,
            first: if rng.chance(1, 2) { status.last.next() } else { slot(rng) },
            chosen: slot(rng),
            read_round: number(rng, 2),
            reply: rng.chance(1, 2),
            values: (0..count).map(|_| value(rng)).collect(),
        }),
        8 => Message::Accepted(Accepted {
            ballot: if rng.chance(1, 4) { ballot } else { Ballot { round, id: SELF } },
            upto: slot(rng),
            read_round: number(rng, 1),
            gap: rng.chance(1, 3),
            clear: rng.chance(1, 2),
        }),
        _ => match rng.below(7) {
            5 => Message::RequestLogEnd { nonce: rng.below(3) },
            6 => Message::LogEnd { nonce: rng.below(3), ballot, last: slot(rng) },
            0 => Message::ReadIndex { batch: rng.below(3) },
            1 => Message::ReadIndexReply { batch: rng.below(3), index: Some(slot(rng)) },
            2 => Message::Compacted { ballot, base: slot(rng) },
            3 => Message::TakeOver { ballot },
            _ => Message::Preempted { promised: ballot },
        },
    }
}

/// Bytes that may be a change of members which governs from some slot on.
fn members(rng: &mut Rng) -> Bytes {
    let mut bytes = vec![1, 0, 3, 3, 1, 1, 0, 2, 1, 0, 3, 1, 0];
    for _ in 0..rng.below(3) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] = rng.below(6) as u8;
    }
    bytes.into()
}

fn trouble(rng: &mut Rng, peer: NodeId, delivered: Index, epochs: &mut Vec<Epoch>) -> Input<MultiPaxos> {
    match rng.below(14) {
        0..3 => Input::LinkUp { peer, session: LinkSession(rng.next()) },
        3..6 => Input::LinkDown { peer },
        6 | 7 => Input::StorageFault(StorageFault::Full),
        8..11 => Input::StorageFault(StorageFault::Cleared),
        11 => {
            // A host that fetched a peer's state tells the truth.
            let index = Index(delivered.0 + 1 + rng.below(3));
            epochs.resize(index.0 as usize, Epoch(1_000_001));
            let point = SnapshotPoint { index, epoch: Epoch(1_000_001), membership: Bytes::new() };
            Input::Answer(LogAnswer::Snapshot { point })
        }
        _ => Input::Answer(LogAnswer::Entries { from: Index(rng.below(5)), records: Vec::new() }),
    }
}

fn request(rng: &mut Rng, delivered: Index) -> Input<MultiPaxos> {
    let ticket = Ticket(rng.next());
    Input::Request(match rng.below(5) {
        0 => LogRequest::Propose { ticket, commands: vec![Bytes::from_static(b"command"); 2] },
        1 => LogRequest::Read { ticket },
        2 => LogRequest::TransferLeadership { ticket, to: Some(NodeId(rng.below(5))) },
        3 if rng.chance(1, 10) => LogRequest::Compact {
            point: SnapshotPoint { index: delivered, epoch: Epoch(1_000_001), membership: Bytes::new() },
        },
        _ => LogRequest::Applied { index: delivered },
    })
}
