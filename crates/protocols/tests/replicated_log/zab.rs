//! What is Zab's own: the bytes of its messages and records, and messages from peers that are
//! broken in any way.

use crate::hostile::{harass_many, number};
use crate::wire::{check, fuzz};
use bytes::Bytes;
use synod_protocols::log::{Epoch, Index, Payload, ReplicatedLog};
use synod_protocols::types::NodeId;
use synod_protocols::zab::{Entry, Epochs, Message, Notification, Record, State, Vote, Zab, Zxid};
use synod_protocols::{Rng, Wire};

fn zxid(epoch: u64, counter: u64) -> Zxid {
    Zxid { epoch: Epoch(epoch), counter: Index(counter) }
}

fn entries() -> Vec<Entry> {
    vec![
        Entry { epoch: Epoch(2), payload: Payload::Noop },
        Entry { epoch: Epoch(3), payload: Payload::Command(Bytes::from_static(b"set")) },
        Entry { epoch: Epoch(300), payload: Payload::Membership(Bytes::from_static(&[1, 2])) },
    ]
}

const ENTRIES: [u8; 15] = [3, 2, 0, 3, 1, 3, b's', b'e', b't', 0xAC, 2, 2, 2, 1, 2];

fn around_entries(head: &[u8], tail: &[u8]) -> Vec<u8> {
    head.iter().chain(&ENTRIES).chain(tail).copied().collect()
}

fn messages() -> Vec<(Message, Vec<u8>)> {
    let (epoch, index, commit) = (Epoch(300), Index(10), Index(6));
    let (after, last) = (zxid(2, 200), zxid(3, 9));
    let vote = Some(Vote { id: NodeId(2), epoch: Epoch(1), zxid: last });
    let notification = |state, vote| Message::Notification(Notification { round: 7, state, vote });
    let info = |accepted_from, observer| Message::FollowerInfo { accepted: epoch, accepted_from, observer };
    vec![
        (notification(State::Looking, None), vec![1, 7, 1, 0]),
        (notification(State::Following, vote), vec![1, 7, 2, 2, 1, 3, 9]),
        (notification(State::Leading, vote), vec![1, 7, 3, 2, 1, 3, 9]),
        (info(None, true), vec![2, 0xAC, 2, 0, 1]),
        (info(Some(NodeId(3)), false), vec![2, 0xAC, 2, 3, 0]),
        (Message::LeaderInfo { epoch }, vec![3, 0xAC, 2]),
        (Message::AckEpoch { epoch, current: Epoch(4), last }, vec![4, 0xAC, 2, 4, 3, 9]),
        (Message::FetchHistory { epoch, after }, vec![5, 0xAC, 2, 2, 0xC8, 1]),
        (
            Message::HistoryPart { epoch, after, entries: entries(), last },
            around_entries(&[6, 0xAC, 2, 2, 0xC8, 1], &[3, 9]),
        ),
        (Message::Diff { epoch, after }, vec![7, 0xAC, 2, 2, 0xC8, 1]),
        (Message::Trunc { epoch, last, to: after }, vec![8, 0xAC, 2, 3, 9, 2, 0xC8, 1]),
        (Message::Snap { epoch, point: after }, vec![9, 0xAC, 2, 2, 0xC8, 1]),
        (Message::NewLeader { epoch, after }, vec![10, 0xAC, 2, 2, 0xC8, 1]),
        (
            Message::Propose { epoch, after, commit, entries: entries() },
            around_entries(&[11, 0xAC, 2, 2, 0xC8, 1, 6], &[]),
        ),
        (Message::Ack { epoch, index }, vec![12, 0xAC, 2, 10]),
        (Message::Resync { epoch, last, hint: after }, vec![13, 0xAC, 2, 3, 9, 2, 0xC8, 1]),
        (Message::UpToDate { epoch, commit }, vec![14, 0xAC, 2, 6]),
        (Message::Commit { epoch, commit }, vec![15, 0xAC, 2, 6]),
        (Message::Ping { epoch, round: 9, sent: index, commit }, vec![16, 0xAC, 2, 9, 10, 6]),
        (Message::Pong { epoch, round: 9, index }, vec![17, 0xAC, 2, 9, 10]),
        (Message::Sync { batch: 5 }, vec![18, 5]),
        (Message::SyncReply { batch: 5, index: Some(index) }, vec![19, 5, 1, 10]),
        (Message::SyncReply { batch: 5, index: None }, vec![19, 5, 0]),
        (Message::Stored { cuts: 1, index }, vec![20, 1, 10]),
        (Message::TakeOver { epoch }, vec![21, 0xAC, 2]),
        (Message::RequestHistoryEnd { nonce: 300 }, vec![22, 0xAC, 2]),
        (Message::HistoryEnd { nonce: 300, epoch, last: index }, vec![23, 0xAC, 2, 0xAC, 2, 10]),
    ]
}

fn records() -> Vec<(Record, Vec<u8>)> {
    let epochs = |accepted_from, joined| {
        let (repairing, uncertain) = (false, false);
        let (accepted, current) = (Epoch(300), Epoch(4));
        Record::Epochs(Epochs { accepted, accepted_from, current, joined, repairing, uncertain })
    };
    let damaged = Epochs { repairing: true, uncertain: true, ..Epochs::default() };
    vec![
        (epochs(None, true), vec![1, 0xAC, 2, 0, 4, 1]),
        (epochs(Some(NodeId(2)), false), vec![1, 0xAC, 2, 2, 4, 0]),
        (Record::Epochs(damaged), vec![1, 0, 0, 0, 6]),
        (Record::Entries { first: Index(8), entries: entries() }, around_entries(&[2, 8], &[])),
        (Record::Truncated { after: Index(200) }, vec![3, 0xC8, 1]),
    ]
}

#[test]
fn messages_and_records_have_these_bytes() {
    check(messages());
    check(records());
}

#[test]
fn records_of_nothing_are_refused() {
    for bytes in [&[2, 0, 1, 1, 0][..], &[2, 1, 0], &[1, 0, 0, 0, 8], &[3], &[4], &[]] {
        assert!(Record::from_bytes(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
    }
    // A position so large that the entries would run past the last one.
    let mut bytes = vec![2];
    bytes.extend([0xFF; 9]);
    bytes.extend([1, 1, 1, 0]);
    assert!(Record::from_bytes(bytes.into()).is_err());
}

#[test]
fn decoders_survive_garbage() {
    fuzz::<Message>(&messages().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
    fuzz::<Record>(&records().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
}

#[test]
fn hostile_messages_do_no_harm() {
    harass_many::<Zab>(hostile);
}

/// Most of it fits what the member is doing, so that it is taken seriously.
fn hostile(rng: &mut Rng, process: &Zab) -> Message {
    let status = process.status();
    let Record::Epochs(epochs) = process.restated() else { panic!("it restates its epochs") };
    // An epoch that is out of all proportion would end the run: it comes rarely.
    let near = epochs.accepted.0;
    let any = rng.chance(1, 500);
    let epoch = Epoch(if any { number(rng, near) } else { (near + rng.below(5) / 2).saturating_sub(1) });
    let last = Zxid { epoch: status.last_epoch, counter: status.last };
    let index = |rng: &mut Rng| Index(number(rng, last.counter.0));
    let zxid = |rng: &mut Rng| match rng.below(4) {
        0 | 1 => last,
        2 => {
            let counter = index(rng);
            Zxid { epoch: process.entry(counter).map_or(Epoch(0), |(epoch, _)| epoch), counter }
        }
        _ => Zxid { epoch: Epoch(number(rng, last.epoch.0)), counter: index(rng) },
    };
    let entries = |rng: &mut Rng| {
        let entry = |rng: &mut Rng| Entry {
            epoch: Epoch(epoch.0.saturating_sub(rng.below(2))),
            payload: Payload::Noop,
        };
        (0..rng.below(4)).map(|_| entry(rng)).collect()
    };
    match rng.below(22) {
        0..3 => {
            let vote = Vote { id: NodeId(1 + rng.below(3)), epoch, zxid: zxid(rng) };
            Message::Notification(Notification {
                round: if any { number(rng, 3) } else { rng.below(8) },
                state: [State::Looking, State::Following, State::Leading][rng.below(3) as usize],
                vote: rng.chance(3, 4).then_some(vote),
            })
        }
        3 => Message::FollowerInfo {
            accepted: epoch,
            accepted_from: rng.chance(1, 2).then_some(NodeId(1 + rng.below(3))),
            observer: rng.chance(1, 4),
        },
        4 => Message::LeaderInfo { epoch },
        5 | 6 => Message::AckEpoch { epoch, current: Epoch(number(rng, near)), last: zxid(rng) },
        7 => Message::FetchHistory { epoch, after: zxid(rng) },
        8 | 9 => Message::HistoryPart { epoch, after: zxid(rng), entries: entries(rng), last: zxid(rng) },
        10 => Message::Diff { epoch, after: zxid(rng) },
        11 => Message::Trunc { epoch, last: zxid(rng), to: zxid(rng) },
        12 => Message::Snap { epoch, point: zxid(rng) },
        13 => Message::NewLeader { epoch, after: zxid(rng) },
        14 | 15 => Message::Propose { epoch, after: zxid(rng), commit: index(rng), entries: entries(rng) },
        16 => Message::Ack { epoch, index: index(rng) },
        17 => Message::Resync { epoch, last: zxid(rng), hint: zxid(rng) },
        18 => Message::UpToDate { epoch, commit: index(rng) },
        19 => Message::Ping { epoch, round: number(rng, 2), sent: index(rng), commit: index(rng) },
        20 => Message::Pong { epoch, round: number(rng, 2), index: index(rng) },
        _ => match rng.below(6) {
            5 => Message::RequestHistoryEnd { nonce: rng.below(3) },
            4 => Message::HistoryEnd { nonce: rng.below(3), epoch, last: index(rng) },
            3 => Message::TakeOver { epoch },
            0 => Message::Sync { batch: rng.below(3) },
            1 => Message::SyncReply { batch: rng.below(3), index: Some(index(rng)) },
            _ => Message::Stored { cuts: rng.below(3), index: index(rng) },
        },
    }
}
