//! Golden bytes of Raft's messages and records, and what decoders do with garbage. The bytes are
//! the format: a change here breaks clusters that are being upgraded and logs on disk.

use bytes::Bytes;
use std::fmt::Debug;
use synod_protocols::log::{Index, Payload};
use synod_protocols::raft::{
    AppendEntries, AppendEntriesReply, Entry, FetchLog, FetchedLog, HardState, InstallSnapshot, Message,
    Outcome, Record, RequestVote, Term,
};
use synod_protocols::types::NodeId;
use synod_protocols::{Describe, Rng, Wire};

fn entries() -> Vec<Entry> {
    vec![
        Entry { term: Term(2), payload: Payload::Noop },
        Entry { term: Term(3), payload: Payload::Command(Bytes::from_static(b"set")) },
        Entry { term: Term(300), payload: Payload::Membership(Bytes::from_static(&[1, 2])) },
    ]
}

fn messages() -> Vec<(Message, Vec<u8>)> {
    let request = RequestVote { term: Term(3), last_index: Index(200), last_term: Term(2), transfer: true };
    let append = AppendEntries {
        term: Term(300),
        prev_index: Index(7),
        prev_term: Term(2),
        commit: Index(6),
        round: 9,
        reply: true,
        entries: entries(),
    };
    let offer = InstallSnapshot { term: Term(3), index: Index(200), index_term: Term(2), round: 9 };
    let reply =
        |outcome| Message::AppendEntriesReply(AppendEntriesReply { term: Term(3), round: 9, outcome });
    let rejected = Outcome::Rejected { prev_index: Index(9), hint_index: Index(4), hint_term: Term(1) };
    vec![
        (Message::RequestPreVote(request), vec![1, 3, 0xC8, 1, 2, 1]),
        (Message::PreVote { term: Term(3), granted: true }, vec![2, 3, 1]),
        (Message::RequestVote(request), vec![3, 3, 0xC8, 1, 2, 1]),
        (Message::Vote { term: Term(3), granted: false }, vec![4, 3, 0]),
        (
            Message::AppendEntries(append),
            vec![5, 0xAC, 2, 7, 2, 6, 9, 1, 3, 2, 0, 3, 1, 3, b's', b'e', b't', 0xAC, 2, 2, 2, 1, 2],
        ),
        (reply(Outcome::Matched { index: Index(10) }), vec![6, 3, 9, 1, 10]),
        (reply(rejected), vec![6, 3, 9, 2, 9, 4, 1]),
        (reply(Outcome::Stale), vec![6, 3, 9, 3]),
        (reply(Outcome::Fetching), vec![6, 3, 9, 4]),
        (Message::ReadIndex { batch: 5 }, vec![7, 5]),
        (Message::ReadIndexReply { batch: 5, index: Some(Index(8)) }, vec![8, 5, 1, 8]),
        (Message::ReadIndexReply { batch: 5, index: None }, vec![8, 5, 0]),
        (Message::Stored { truncations: 3, index: Index(8) }, vec![9, 3, 8]),
        (Message::InstallSnapshot(offer), vec![10, 3, 0xC8, 1, 2, 9]),
        (Message::TimeoutNow { term: Term(300) }, vec![11, 0xAC, 2]),
        (Message::RequestLogEnd { nonce: 5 }, vec![12, 5]),
        (Message::LogEnd { nonce: 5, term: Term(3), last: Index(200) }, vec![13, 5, 3, 0xC8, 1]),
        (
            Message::LogAhead { term: Term(3), last_index: Index(200), last_term: Term(2) },
            vec![14, 3, 0xC8, 1, 2],
        ),
        (Message::FetchLog(FetchLog { index: Index(200), term: Term(2) }), vec![15, 0xC8, 1, 2]),
        (
            Message::FetchedLog(FetchedLog {
                term: Term(300),
                prev_index: Index(7),
                prev_term: Term(2),
                base: Index(5),
                last_index: Index(12),
                last_term: Term(300),
                commit: Index(6),
                entries: entries(),
            }),
            vec![
                16, 0xAC, 2, 7, 2, 5, 12, 0xAC, 2, 6, 3, 2, 0, 3, 1, 3, b's', b'e', b't', 0xAC, 2, 2, 2, 1, 2,
            ],
        ),
    ]
}

fn records() -> Vec<(Record, Vec<u8>)> {
    let state = |voted_for| HardState { term: Term(3), voted_for, ..HardState::default() };
    let hard = |voted_for| Record::HardState(state(voted_for));
    let flags = |joined, repairing, uncertain| {
        Record::HardState(HardState { joined, repairing, uncertain, ..state(None) })
    };
    vec![
        (hard(None), vec![1, 3, 0]),
        (hard(Some(NodeId(2))), vec![1, 3, 2]),
        (flags(true, false, false), vec![3, 3, 0, 1]),
        (flags(false, true, false), vec![3, 3, 0, 2]),
        (flags(true, false, true), vec![3, 3, 0, 5]),
        (Record::Snapshot { index: Index(200), term: Term(3) }, vec![4, 0xC8, 1, 3]),
        (
            Record::Entries { first: Index(8), entries: entries() },
            vec![2, 8, 3, 2, 0, 3, 1, 3, b's', b'e', b't', 0xAC, 2, 2, 2, 1, 2],
        ),
    ]
}

pub fn check<T: Wire + Debug + PartialEq + Describe>(golden: Vec<(T, Vec<u8>)>) {
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
    for bytes in [&[2, 0, 1, 1, 0][..], &[2, 1, 0], &[3], &[3, 3, 0, 0], &[3, 3, 0, 8], &[]] {
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
    let golden: Vec<_> = messages().into_iter().map(|(_, bytes)| bytes).collect();
    fuzz::<Message>(&golden);
    let golden: Vec<_> = records().into_iter().map(|(_, bytes)| bytes).collect();
    fuzz::<Record>(&golden);
}

/// Random bytes, and golden ones with a few bytes changed: whatever decodes must encode to
/// something that decodes to the same, and nothing panics.
pub fn fuzz<T: Wire + Debug + PartialEq + Describe>(golden: &[Vec<u8>]) {
    let mut rng = Rng::new(1);
    let mut decoded = 0;
    for _ in 0..200_000 {
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
    assert!(decoded > 10_000, "{decoded} decoded");
}
