//! What the node owes the protocol: the durability rule, group commit, faults of the disk, the
//! entries that it asks for.

use crate::disk::MemoryDisk;
use crate::host::{A, B, Host, ME, config};
use crate::list::List;
use crate::script::{Op, Record};
use bytes::Bytes;
use std::time::Duration;
use synod_node::*;
use synod_protocols::log::Index;
use synod_protocols::{Rng, StorageFault, Wire};

#[test]
fn nothing_held_leaves_before_the_sync() {
    let mut host = Host::running();
    host.say([Op::Note(1), Op::Held(A, 1)]);
    host.say([Op::Held(A, 2), Op::Held(B, 3)]);
    host.flush();
    assert_eq!(
        (host.tags(A), host.tags(B)),
        (vec![], vec![]),
        "an effect left before its records were durable"
    );
    host.disk();
    assert_eq!((host.tags(A), host.tags(B)), (vec![1, 2], vec![3]));
}

#[test]
fn with_nothing_to_sync_everything_leaves_at_once() {
    let mut host = Host::running();
    host.say([Op::Held(A, 1)]);
    host.flush();
    assert_eq!(host.tags(A), [1]);
}

#[test]
fn early_messages_leave_at_once_and_never_overtake_held_ones_to_the_same_peer() {
    let mut host = Host::running();
    host.say([Op::Note(1), Op::Early(A, 1), Op::Held(A, 2), Op::Early(A, 3), Op::Early(B, 4)]);
    host.flush();
    assert_eq!((host.tags(A), host.tags(B)), (vec![1], vec![4]));
    // An early message that waits behind a held one waits for no more than that one does.
    host.say([Op::Note(1), Op::Early(A, 5), Op::Held(A, 6)]);
    host.disk();
    assert_eq!(host.tags(A), [2, 3, 5]);
    host.disk();
    assert_eq!(host.tags(A), [6]);
}

#[test]
fn messages_that_waited_for_a_lost_connection_are_lost_with_it() {
    let mut host = Host::running();
    host.say([Op::Note(1), Op::Held(A, 1), Op::Held(B, 2)]);
    host.step(Input::LinkDown { peer: A });
    host.settle();
    assert_eq!((host.tags(A), host.tags(B)), (vec![], vec![2]));
}

#[test]
fn many_steps_share_one_write_and_one_sync_and_one_append_is_in_flight() {
    let mut host = Host::running();
    let before = host.disk.syncs;
    for _ in 0..10 {
        host.say([Op::Note(10)]);
    }
    host.flush();
    for _ in 0..10 {
        host.say([Op::Note(10)]);
        host.flush();
        assert_eq!(host.pending.len(), 1, "a second append was started while one was in flight");
    }
    host.settle();
    assert_eq!(host.disk.syncs - before, 2, "twenty steps in two batches");
    assert_eq!(host.node.status().syncs, host.disk.syncs);
}

#[test]
fn a_write_is_bounded_and_a_step_never_straddles_two() {
    let mut config = config();
    config.limits.batch_bytes_max = 1000;
    let mut host = Host::start_with(config, MemoryDisk::default(), List::default()).expect("blank");
    host.settle();
    for bytes in [300, 300, 300, 300, 2500, 10] {
        host.say([Op::Note(bytes), Op::Note(1)]);
    }
    host.flush();
    let mut sizes = Vec::new();
    while let Some(DiskCommand::Append { bytes, .. }) = host.pending.first() {
        sizes.push(bytes.len());
        host.disk();
    }
    assert!(sizes.iter().all(|size| *size <= 1000 + 64 || *size > 2500), "{sizes:?}");
    assert_eq!(sizes.iter().filter(|size| **size > 2500).count(), 1, "{sizes:?}");
    let again = Host::start(host.disk, List::default()).expect("it was synced");
    assert_eq!(again.node.process().notes, 12);
}

#[test]
fn messages_to_itself_come_back_in_order_after_the_sync_and_a_crash_loses_them() {
    let mut host = Host::running();
    host.say([Op::Note(1), Op::Held(ME, 1), Op::Early(ME, 2)]);
    host.say([Op::Held(ME, 3)]);
    host.flush();
    assert_eq!(host.node.process().heard, []);
    let crashed = Host::start(host.disk.crash(|n| n - 1), List::default()).expect("it recovers");
    assert_eq!(crashed.node.process().heard, []);
    host.disk();
    assert_eq!(host.node.process().heard, [1, 2, 3]);
}

#[test]
fn a_full_disk_refuses_clients_is_tried_again_and_recovers() {
    let mut host = Host::running();
    host.disk.full = true;
    // More than the rest of the segment, so that a new one is needed.
    host.say([Op::Note(3990), Op::Held(A, 1)]);
    host.flush();
    host.disk();
    assert_eq!(host.node.process().faults, [StorageFault::Full]);
    assert_eq!(host.notices, [Notice::DiskFull]);
    let refused = host.put("refused");
    host.flush();
    assert_eq!(host.error(refused), Some(ClientError::Storage));

    assert_eq!(host.pending.len(), 0);
    host.wait(Duration::from_millis(499));
    assert_eq!(host.pending.len(), 0, "it is not tried again at once");
    host.wait(Duration::from_millis(1));
    host.disk();
    assert_eq!(host.node.process().faults.len(), 1, "the same fault is told once");
    assert_eq!(host.tags(A), []);

    host.disk.full = false;
    host.wait(Duration::from_millis(500));
    host.disk();
    assert_eq!(host.node.process().faults, [StorageFault::Full, StorageFault::Cleared]);
    assert_eq!(host.notices, [Notice::DiskFull, Notice::DiskCleared]);
    assert_eq!(host.tags(A), [1]);
    let taken = host.put("taken");
    host.settle();
    assert_eq!(host.applied(taken), Some(1));
}

#[test]
fn a_failed_sync_stops_the_member_and_is_never_tried_again() {
    let mut host = Host::running();
    host.say([Op::Note(1), Op::Held(A, 1)]);
    host.flush();
    host.disk.broken = true;
    host.disk();
    let [Notice::Fatal(why)] = &host.notices[..] else { panic!("{:?}", host.notices) };
    assert!(why.contains("input/output error"), "{why}");
    host.disk.broken = false;
    host.say([Op::Held(A, 2)]);
    host.wait(Duration::from_secs(10));
    assert_eq!((host.pending.len(), host.tags(A), host.node.deadline()), (0, vec![], None));
}

#[test]
fn a_quiet_log_is_marked_once_and_the_mark_costs_no_sync() {
    let mut host = Host::running();
    host.say([Op::Note(1)]);
    host.settle();
    let syncs = host.disk.syncs;
    let deadline = host.node.deadline().expect("a mark is due");
    host.wait(deadline.since(host.now));
    assert_eq!(host.pending.len(), 1);
    host.settle();
    host.wait(Duration::from_secs(1));
    assert_eq!((host.pending.len(), host.disk.syncs), (0, syncs));
}

#[test]
fn entries_that_the_protocol_asks_for_are_the_ones_that_count() {
    let mut host = Host::running();
    for i in 1..=12 {
        host.say([Op::Entry(i, i)]);
        host.settle();
    }
    // Positions 5 to 7 are replaced, and what followed them is gone.
    host.say([Op::Entry(5, 105), Op::Entry(6, 106), Op::Entry(7, 107)]);
    host.settle();
    for disk in [None, Some(host.disk.clone())] {
        if let Some(disk) = disk {
            host = Host::start(disk, List::default()).expect("it was synced");
            host.settle();
        }
        host.say([Op::Ask(3, 7), Op::Ask(6, 6), Op::Ask(8, 9)]);
        host.settle();
        let answers = &host.node.process().answers;
        assert_eq!(answers[0], [3, 4, 105, 106, 107]);
        assert_eq!(answers[1][0], 106);
        assert_eq!(answers[2], [], "there is nothing there");
    }
}

#[test]
fn entries_that_are_not_synced_yet_are_waited_for() {
    let mut host = Host::running();
    for i in 1..=3 {
        host.say([Op::Entry(i, i)]);
    }
    host.say([Op::Ask(2, 3)]);
    host.flush();
    host.say([Op::Entry(3, 103)]);
    host.settle();
    assert_eq!(host.node.process().answers, [[2, 103]]);
}

#[test]
fn entries_that_are_not_even_being_written_are_waited_for() {
    let mut host = Host::running();
    for i in 1..=4 {
        host.say([Op::Entry(i, i)]);
        host.settle();
    }
    host.say([Op::Note(1)]);
    host.flush();
    host.say([Op::Entry(5, 5), Op::Ask(5, 5)]);
    host.settle();
    assert_eq!(host.node.process().answers, [[5]]);
}

#[test]
fn entries_that_are_replaced_while_they_are_read_are_read_again() {
    let mut host = Host::running();
    for i in 1..=4 {
        host.say([Op::Entry(i, i)]);
        host.settle();
    }
    host.say([Op::Ask(2, 4)]);
    host.say([Op::Entry(3, 103)]);
    host.settle();
    assert_eq!(host.node.process().answers, [[2, 103]]);
}

#[test]
fn random_asks_are_answered_with_what_the_log_holds() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut host = Host::running();
        let mut log: Vec<u64> = Vec::new();
        for value in 1..200 {
            let index = rng.between((log.len() as u64).saturating_sub(3).max(1), log.len() as u64 + 1);
            log.truncate(index as usize - 1);
            log.push(value);
            host.say([Op::Entry(index, value)]);
            if rng.chance(1, 3) {
                host.flush();
            }
            if rng.chance(1, 3) && !host.pending.is_empty() {
                host.disk();
            }
            if rng.chance(1, 8) {
                host.settle();
                let (from, to) = (rng.between(1, log.len() as u64), log.len() as u64);
                let asked = host.node.process().answers.len();
                host.say([Op::Ask(from, to)]);
                host.settle();
                let answer = &host.node.process().answers[asked];
                assert_eq!(answer[..], log[from as usize - 1..], "seed {seed}");
            }
        }
    }
}

#[test]
fn corrupt_bytes_are_never_served() {
    let mut host = Host::running();
    for i in 1..=4 {
        host.say([Op::Entry(i, i)]);
        host.settle();
    }
    host.disk.flip(SegmentId(1), 1000 * 8);
    host.say([Op::Ask(1, 4)]);
    host.settle();
    assert_eq!(host.node.process().answers, [[0u64; 0]; 0]);
    let Some(Notice::Fatal(why)) = host.notices.last() else { panic!("{:?}", host.notices) };
    assert!(why.contains("segment 1") && why.contains("corrupt"), "{why}");
}

#[test]
fn a_tape_played_again_is_the_life_that_was_recorded() {
    let mut config = config();
    config.record = true;
    let mut disk = MemoryDisk::default();
    for life in 0..3 {
        let mut host = Host::start_with(config.clone(), disk, List::default()).expect("it starts");
        host.step(Input::LinkUp { peer: A, session: synod_protocols::LinkSession(life + 1) });
        host.say([Op::Note(10), Op::Held(ME, life)]);
        host.settle();
        host.put("one");
        host.ask(Request::Read(()));
        host.settle();
        host.say([Op::Ask(1, 1)]);
        host.settle();
        host.step(Input::LinkDown { peer: A });
        host.wait(Duration::from_millis(30));
        host.settle();

        let live = host.node.process().clone();
        let mut replayed = None;
        let tape = Bytes::from(host.tape.clone());
        let inputs = tape::replay::<crate::script::Script>(tape.clone(), |_, _, _, process| {
            replayed = Some(process.clone());
        });
        assert_eq!(inputs, Ok(host.node.status().steps), "life {life}");
        assert_eq!(format!("{:?}", replayed.expect("it was visited")), format!("{live:?}"), "life {life}");
        // A tape that was cut by a crash plays up to the cut.
        for cut in 100..tape.len() {
            let played = tape::replay::<crate::script::Script>(tape.slice(..cut), |_, _, _, _| {});
            assert!(played.is_ok_and(|inputs| inputs <= host.node.status().steps), "cut at {cut}");
        }
        disk = host.disk;
    }
}

#[test]
fn what_is_not_a_tape_is_refused() {
    let play = |bytes: &'static [u8]| {
        tape::replay::<crate::script::Script>(Bytes::from_static(bytes), |_, _, _, _| {})
            .map_err(|e| e.to_string())
    };
    assert!(play(b"hello").expect_err("no tape").contains("not a flight recording"));
    assert!(play(b"SYNODTAP\xFF").expect_err("no version").contains("version 255"));
    assert!(play(b"SYNODTAP\x01\x02xx").is_err());
}

#[test]
fn peer_messages_have_fixed_bytes_and_survive_a_round_trip() {
    let id = SnapshotId { incarnation: synod_protocols::Incarnation(2), number: 9 };
    let messages: [(PeerMessage<Record>, &[u8]); 9] = [
        (
            PeerMessage::Protocol(Record::Note { number: 5, padding: Bytes::from_static(b"x") }),
            b"\x00\x00\x05\x01x",
        ),
        (
            PeerMessage::Forward {
                incarnation: synod_protocols::Incarnation(2),
                first: 300,
                commands: vec![Bytes::from_static(b"a"), Bytes::from_static(b"bc")],
            },
            b"\x01\x02\xac\x02\x02\x01a\x02bc",
        ),
        (
            PeerMessage::ForwardRefused {
                incarnation: synod_protocols::Incarnation(2),
                first: 1,
                why: synod_protocols::log::Refusal::NotLeader { leader: Some(B) },
            },
            b"\x02\x02\x01\x00\x03",
        ),
        (
            PeerMessage::ForwardRefused {
                incarnation: synod_protocols::Incarnation(2),
                first: 1,
                why: synod_protocols::log::Refusal::Busy,
            },
            b"\x02\x02\x01\x01",
        ),
        (
            PeerMessage::SnapshotRequest(SnapshotRequest {
                id: None,
                index: Index(300),
                from: Bytes::new(),
                checksum: 0,
            }),
            b"\x03\x00\xac\x02\x00\x00",
        ),
        (
            PeerMessage::SnapshotPart(SnapshotPart {
                id,
                manifest: Bytes::from_static(b"m"),
                from: Bytes::from_static(b"f"),
                bytes: Bytes::from_static(b"bb"),
                next: Some(Bytes::from_static(b"n")),
                checksum: 200,
            }),
            b"\x04\x09\x02\x01m\x01f\x02bb\x01\x01n\xc8\x01",
        ),
        (PeerMessage::SnapshotGone { id: Some(id) }, b"\x05\x09\x02"),
        (
            PeerMessage::Change {
                incarnation: synod_protocols::Incarnation(2),
                number: 7,
                change: Change::Transfer(Some(B)),
            },
            b"\x06\x02\x07\x04\x03",
        ),
        (
            PeerMessage::ChangeReply {
                incarnation: synod_protocols::Incarnation(2),
                number: 7,
                result: Err(ClientError::Busy),
            },
            b"\x07\x02\x07\x01\x01",
        ),
    ];
    for (message, bytes) in messages {
        assert_eq!(message.to_bytes(), bytes, "{message:?}");
        assert_eq!(PeerMessage::from_bytes(Bytes::copy_from_slice(bytes)), Ok(message));
        for len in 0..bytes.len() {
            assert!(PeerMessage::<Record>::from_bytes(Bytes::copy_from_slice(&bytes[..len])).is_err());
        }
    }
}
