//! Encodings: what was written is read again, and garbage is refused without a panic.

use super::subject::{
    CoordinatorRecord, Decision, Message, Outcome, ParticipantRecord, Peer, Refusal, Stamp, TxnId, Vote,
};
use bytes::Bytes;
use std::fmt::Debug;
use synod_protocols::types::NodeId;
use synod_protocols::{Rng, Wire};

fn txn() -> TxnId {
    TxnId { coordinator: NodeId(10), epoch: 300, number: 7 }
}

fn round_trips<T: Wire + PartialEq + Debug>(values: impl IntoIterator<Item = T>) {
    for value in values {
        let bytes = value.to_bytes();
        assert_eq!(T::from_bytes(bytes.clone()), Ok(value));
        (0..bytes.len()).for_each(|end| assert!(T::from_bytes(bytes.slice(..end)).is_err()));
    }
}

fn messages() -> Vec<Message> {
    let (txn, stamp) = (txn(), Stamp { epoch: 3, floor: txn() });
    let (addresses, peers) = (vec![NodeId(10), NodeId(11)], vec![Peer { id: NodeId(2), life: 1 }]);
    let work = Bytes::from_static(b"work");
    let why = Refusal::Locked { name: "a".into(), holder: txn };
    vec![
        Message::Work { stamp, txn, sequence: 2, addresses: addresses.clone(), work: work.clone() },
        Message::Worked { txn, sequence: 2, life: 1, answer: work.clone() },
        Message::Prepare { stamp, txn, addresses, peers, life: 1, work: Some(work.clone()) },
        Message::Vote { txn, vote: Vote::Yes { answer: work.clone() } },
        Message::Vote { txn, vote: Vote::ReadOnly },
        Message::Vote { txn, vote: Vote::No { why: why.clone() } },
        Message::OnePhase { stamp, txn, life: 0, work: None },
        Message::Finished { txn, outcome: Outcome::Committed { answer: work } },
        Message::Finished { txn, outcome: Outcome::Aborted { why } },
        Message::Decide { stamp, txn, decision: Decision::Commit },
        Message::Ack { txn },
        Message::Ask { txn, life: 0 },
        Message::Tell { txn, decision: Decision::Abort },
        Message::Fenced { coordinator: NodeId(10), epoch: 4 },
    ]
}

#[test]
fn messages_and_records_round_trip() {
    round_trips(messages());
    let participants = vec![NodeId(1), NodeId(2)];
    round_trips([
        CoordinatorRecord::Epoch { epoch: 9 },
        CoordinatorRecord::Committed { txn: txn(), participants },
        CoordinatorRecord::Ended { txn: txn() },
    ]);
    let work = vec![Bytes::from_static(b"w")];
    round_trips([
        ParticipantRecord::Life { life: 2 },
        ParticipantRecord::Fence { stamp: Stamp { epoch: 3, floor: txn() } },
        ParticipantRecord::Prepared {
            txn: txn(),
            floor: txn(),
            addresses: vec![NodeId(10)],
            peers: vec![Peer { id: NodeId(2), life: 0 }],
            work: work.clone(),
        },
        ParticipantRecord::Committed { txn: txn() },
        ParticipantRecord::Aborted { txn: txn() },
        ParticipantRecord::CommittedAlone { txn: txn(), work },
        ParticipantRecord::ByHand {
            txn: txn(),
            decision: Decision::Commit,
            answer: Bytes::from_static(b"a"),
            addresses: vec![NodeId(10)],
            peers: vec![Peer { id: NodeId(2), life: 0 }],
        },
        ParticipantRecord::Damage { txn: txn() },
    ]);
}

#[test]
fn garbage_is_refused_or_read_as_what_it_is() {
    let mut rng = Rng::new(1);
    let good: Vec<Bytes> = messages().iter().map(Wire::to_bytes).collect();
    for _ in 0..50_000 {
        let mut bytes = good[rng.below(good.len() as u64) as usize].to_vec();
        let place = rng.below(bytes.len() as u64) as usize;
        bytes[place] = rng.below(256) as u8;
        if let Ok(message) = Message::from_bytes(bytes.clone().into()) {
            assert_eq!(Message::from_bytes(message.to_bytes()), Ok(message));
        }
        drop(ParticipantRecord::from_bytes(bytes.into()));
    }
}
