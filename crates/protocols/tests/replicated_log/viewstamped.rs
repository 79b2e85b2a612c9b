//! What is Viewstamped Replication's own: the bytes of its messages and records, and messages from
//! peers that are broken in any way.

use crate::hostile::{harass_many, number};
use crate::wire::{check, fuzz};
use bytes::Bytes;
use synod_protocols::log::{Index, Payload, ReplicatedLog};
use synod_protocols::viewstamped::{
    DoViewChange, Entry, EpochNumber, Message, NewState, Record, Suffix, ViewNumber, Views, Viewstamped,
};
use synod_protocols::{Rng, Wire};

fn entries() -> Vec<Entry> {
    vec![
        Entry { view: ViewNumber(2), payload: Payload::Noop },
        Entry { view: ViewNumber(3), payload: Payload::Command(Bytes::from_static(b"set")) },
        Entry { view: ViewNumber(300), payload: Payload::Membership(Bytes::from_static(&[1, 2])) },
    ]
}

const ENTRIES: [u8; 14] = [3, 2, 0, 3, 1, 3, b's', b'e', b't', 0xAC, 2, 2, 2, 1];

fn with_entries(head: &[u8]) -> Vec<u8> {
    // The last byte of the last payload.
    head.iter().chain(&ENTRIES).chain(&[2]).copied().collect()
}

fn messages() -> Vec<(Message, Vec<u8>)> {
    let view = ViewNumber(300);
    let (op, op_view, commit) = (Index(10), ViewNumber(300), Index(6));
    let suffix = || Suffix { after: Index(7), after_view: ViewNumber(2), entries: entries() };
    let state = || NewState { view, start: Index(9), commit, round: 9, suffix: suffix() };
    let change = DoViewChange { view, last_normal: ViewNumber(4), op, op_view, commit, suffix: suffix() };
    vec![
        (Message::PreViewChange { view }, vec![1, 0xAC, 2]),
        (Message::PreViewChangeOk { view }, vec![2, 0xAC, 2]),
        (Message::NewerView { view }, vec![3, 0xAC, 2]),
        (Message::StartViewChange { view, transfer: Some(ViewNumber(0)) }, vec![4, 0xAC, 2, 1]),
        (Message::DoViewChange(change), with_entries(&[5, 0xAC, 2, 4, 10, 0xAC, 2, 6, 7, 2])),
        (Message::StartView(state()), with_entries(&[6, 0xAC, 2, 9, 6, 9, 7, 2])),
        (
            Message::Prepare { view, commit, round: 9, suffix: suffix() },
            with_entries(&[7, 0xAC, 2, 6, 9, 7, 2]),
        ),
        (Message::PrepareOk { view, op, round: 9 }, vec![8, 0xAC, 2, 10, 9]),
        (
            Message::Commit { view, op, op_view, commit, round: 9, reply: true },
            vec![9, 0xAC, 2, 10, 0xAC, 2, 6, 9, 1],
        ),
        (Message::GetState { view, op, op_view, round: 9 }, vec![10, 0xAC, 2, 10, 0xAC, 2, 9]),
        (Message::NewState(state()), with_entries(&[11, 0xAC, 2, 9, 6, 9, 7, 2])),
        (Message::Checkpoint { view, op }, vec![12, 0xAC, 2, 10]),
        (Message::TakeOver { view }, vec![13, 0xAC, 2]),
        (Message::ReadAt { batch: 5 }, vec![14, 5]),
        (Message::ReadAtOk { batch: 5, op: Some(op) }, vec![15, 5, 1, 10]),
        (Message::ReadAtOk { batch: 5, op: None }, vec![15, 5, 0]),
        (Message::Recovery { nonce: 300 }, vec![16, 0xAC, 2]),
        (Message::RecoveryResponse { view, nonce: 5, op }, vec![17, 0xAC, 2, 5, 10]),
        (Message::StartEpoch { view, op, op_view: ViewNumber(2) }, vec![18, 0xAC, 2, 10, 2]),
        (Message::EpochStarted { view }, vec![19, 0xAC, 2]),
    ]
}

fn records() -> Vec<(Record, Vec<u8>)> {
    let last_normal = ViewNumber(4);
    let views = |view, recovering, joined, begun| Views { view, last_normal, recovering, joined, begun };
    let view = ViewNumber::of(EpochNumber(1), 3);
    let restart = Record::Restart { op: Index(300), view: ViewNumber(2) };
    let log = Record::Entries { first: Index(8), after_view: ViewNumber(2), entries: entries() };
    vec![
        (Record::Views(views(ViewNumber(300), true, false, Index::ZERO)), vec![1, 0xAC, 2, 4, 1, 0]),
        (
            Record::Views(views(view, false, true, Index(8))),
            vec![1, 0x83, 0xA0, 0x94, 0xA5, 0x8D, 29, 4, 2, 8],
        ),
        (log, with_entries(&[2, 8, 2])),
        (restart, vec![3, 0xAC, 2, 2]),
    ]
}

#[test]
fn messages_and_records_have_these_bytes() {
    check(messages());
    check(records());
}

#[test]
fn records_of_nothing_are_refused() {
    for bytes in [&[2, 0, 0, 1, 1, 0][..], &[2, 1, 0, 0], &[1, 3, 4, 0, 0], &[1, 4, 3, 4, 0], &[3], &[4], &[]]
    {
        assert!(Record::from_bytes(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
    }
    // A position so large that the entries would run past the last one.
    let mut bytes = vec![2];
    bytes.extend([0xFF; 9]);
    bytes.extend([1, 0, 1, 1, 0]);
    assert!(Record::from_bytes(bytes.into()).is_err());
}

#[test]
fn decoders_survive_garbage() {
    fuzz::<Message>(&messages().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
    fuzz::<Record>(&records().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
}

#[test]
fn hostile_messages_do_no_harm() {
    harass_many::<Viewstamped>(hostile);
}

/// A configuration of the same epoch or of the next, in its encoding or nearly so.
fn members(rng: &mut Rng, view: ViewNumber) -> Payload {
    let epoch = view.epoch_number().0.min(100) as u8 + rng.below(2) as u8;
    let mut bytes = vec![epoch, 0, 4, 3, 1, 1, 0, 2, 1, 0, 3, [1, 4, 5][rng.below(3) as usize], 0];
    if rng.chance(1, 3) {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] = rng.next() as u8;
    }
    Payload::Membership(bytes.into())
}

fn hostile(rng: &mut Rng, process: &Viewstamped) -> Message {
    let status = process.status();
    // A view that is out of all proportion would end the run: it comes rarely, and so do epochs.
    let near = status.epoch.0;
    let any = rng.chance(1, 500);
    if rng.chance(1, 50) {
        let known = ViewNumber(near).epoch_number();
        let view = ViewNumber::of(EpochNumber(known.0 + rng.below(8) / 7), 0);
        let (op, op_view) = (Index(number(rng, status.last.0)), ViewNumber(near));
        return match rng.below(4) {
            0 | 1 => Message::StartEpoch { view, op, op_view },
            2 => Message::EpochStarted { view },
            _ => Message::GetState { view, op, op_view, round: 0 },
        };
    }
    let view = ViewNumber(if any { number(rng, near) } else { (near + rng.below(4)).saturating_sub(1) });
    let last = status.last.0;
    let op = |rng: &mut Rng| Index(number(rng, last));
    let other = |rng: &mut Rng| ViewNumber((near + rng.below(3)).saturating_sub(2));
    let suffix = |rng: &mut Rng| {
        let after = op(rng);
        let known = process.entry(after).map_or(0, |(epoch, _)| epoch.0);
        let after_view = ViewNumber(if rng.chance(3, 4) { known } else { number(rng, known) });
        let mut entry = |_| Entry {
            view: ViewNumber(view.0.saturating_sub(rng.below(2))),
            payload: if rng.chance(1, 20) { members(rng, view) } else { Payload::Noop },
        };
        let entries = (0..2).map(&mut entry).collect();
        Suffix { after, after_view, entries }
    };
    match rng.below(14) {
        0 => Message::PreViewChange { view },
        1 => Message::PreViewChangeOk { view: ViewNumber(near + rng.below(4)) },
        2 => Message::NewerView { view },
        3 => Message::StartViewChange { view, transfer: rng.chance(1, 4).then_some(ViewNumber(near)) },
        4 | 5 => {
            let suffix = suffix(rng);
            let end = Index(suffix.after.0.saturating_add(suffix.entries.len() as u64));
            let end_view = suffix.entries.last().map_or(suffix.after_view, |entry| entry.view);
            Message::DoViewChange(DoViewChange {
                view: ViewNumber(near),
                last_normal: other(rng),
                op: if rng.chance(3, 4) { end } else { op(rng) },
                op_view: end_view,
                commit: op(rng),
                suffix,
            })
        }
        6 | 7 => {
            let (start, commit, round) = (op(rng), op(rng), number(rng, 2));
            let state = NewState { view, start, commit, round, suffix: suffix(rng) };
            if rng.chance(1, 2) { Message::StartView(state) } else { Message::NewState(state) }
        }
        8 => Message::Prepare { view, commit: op(rng), round: number(rng, 2), suffix: suffix(rng) },
        9 => Message::PrepareOk { view, op: op(rng), round: number(rng, 2) },
        10 => Message::Commit {
            view,
            op: op(rng),
            op_view: other(rng),
            commit: op(rng),
            round: number(rng, 2),
            reply: rng.chance(1, 2),
        },
        11 => Message::GetState { view, op: op(rng), op_view: other(rng), round: number(rng, 2) },
        12 => match rng.below(4) {
            0 => Message::Checkpoint { view, op: op(rng) },
            1 => Message::Recovery { nonce: rng.next() },
            2 => Message::RecoveryResponse { view, nonce: rng.next(), op: op(rng) },
            _ => Message::TakeOver { view },
        },
        _ => match rng.below(2) {
            0 => Message::ReadAt { batch: rng.below(3) },
            _ => Message::ReadAtOk { batch: rng.below(3), op: Some(op(rng)) },
        },
    }
}
