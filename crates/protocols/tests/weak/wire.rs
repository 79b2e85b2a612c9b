//! The encodings: golden bytes, and hostile ones.

use super::subject::object::{Delta, Value};
use super::subject::{
    CausalContext, Config, Dot, Eventual, Kind, Message, Name, Origin, Record, Roster, Stamp, Update,
    WallTime,
};
use synod_protocols::types::{Incarnation, NodeId, Time};
use synod_protocols::{Effects, Input, Process, Recovery, Rng, Wire};

fn update() -> Update {
    let origin = Origin { node: NodeId(1), since: Incarnation(1) };
    let mut after = CausalContext::new();
    (1..=3).for_each(|count| after.insert(Dot { origin, count }));
    let object = Name { kind: Kind::Counter, key: "c".into() };
    let delta =
        Delta { object, covers: vec![Dot { origin, count: 2 }], value: Some(Value::Sum { units: -3 }) };
    let stamp = Stamp { wall: WallTime(300), logical: 2, origin };
    Update { dot: Dot { origin, count: 4 }, stamp, after, deltas: vec![delta] }
}

#[test]
fn an_update_on_disk_has_these_bytes() {
    let record = Record::Shown { update: update() };
    let bytes = record.to_bytes();
    let golden: [u8; 29] = [
        4, // Shown
        1, 1, 4, // n1, since its first life, its fourth
        0xac, 2, 2, 1, 1, // at 300, the third of that time, by n1
        1, 1, 1, 1, 1, 2, // after one origin's one run, from 1, two more
        1, // one object
        3, 1, b'c', // the counter c
        1, 1, 1, 2, // replaces one cell
        1, 3, 5, // by the sum -3
        0, 0, 0,
    ];
    assert_eq!(&bytes[..], &golden[..bytes.len()]);
    assert_eq!(Record::from_bytes(bytes), Ok(record));
}

#[test]
fn hostile_bytes_are_errors_and_hostile_messages_are_ignored() {
    let origin = Origin { node: NodeId(2), since: Incarnation(1) };
    let digest = Message::Digest {
        roster: Roster::of([NodeId(1), NodeId(2)]),
        seen: update().after,
        floor: update().after,
        root: 9,
        clock: Stamp { wall: WallTime(1), logical: 1, origin },
        is_asking: true,
    };
    let messages =
        [Message::Updates { updates: vec![update()] }, digest, Message::Pull { round: 1, leaves: vec![1] }];
    let mut rng = Rng::new(1);
    let config = Config::new(NodeId(1), vec![NodeId(1), NodeId(2)]);
    let mut out = Effects::new();
    let mut replica = Eventual::recover(config, Recovery::First, (), Time::ZERO, &mut out);
    let mut understood = 0;
    for message in messages {
        for _ in 0..3_000 {
            let mut bytes = message.to_bytes().to_vec();
            for _ in 0..1 + rng.below(3) {
                let place = rng.below(bytes.len() as u64) as usize;
                bytes[place] = rng.next() as u8;
            }
            if rng.chance(1, 3) {
                bytes.truncate(1 + rng.below(bytes.len() as u64) as usize);
            }
            if let Ok(message) = Message::from_bytes(bytes.into()) {
                understood += 1;
                replica.step(Time::ZERO, Input::Message { from: NodeId(2), message }, &mut out);
            }
        }
    }
    assert!(understood > 500, "only {understood} were messages at all");
}
