//! Snapshots between members: resumed, bounded, checked, and put in place whole.

use crate::disk::MemoryDisk;
use crate::host::{A, B, Host, ME, config};
use crate::list::List;
use crate::script::{Op, Say};
use bytes::Bytes;
use std::time::Duration;
use synod_node::peer::Manifest;
use synod_node::*;
use synod_protocols::LinkSession;
use synod_protocols::log::Index;

/// A member that has applied `count` commands, and a second one, `A`, that has none.
fn pair(count: u64) -> (Host, Host) {
    let mut source = Host::running();
    for number in 0..count {
        source.ask(Request::Command(Bytes::from(vec![number as u8; 100])));
    }
    source.settle();
    let mut target = Host::start_with(for_a(), MemoryDisk::default(), List::default()).expect("blank");
    target.settle();
    (source, target)
}

fn for_a() -> NodeConfig {
    NodeConfig { id: A, ..config() }
}

type Message = PeerMessage<Say>;

fn sent(host: &mut Host) -> Vec<Message> {
    host.settle();
    std::mem::take(&mut host.sent).into_iter().map(|(_, message)| message).collect()
}

fn deliver(host: &mut Host, from: synod_protocols::NodeId, message: Message) {
    // What crosses a wire is what its bytes say.
    let bytes = synod_protocols::Wire::to_bytes(&message);
    let message = synod_protocols::Wire::from_bytes(bytes).expect("it was just encoded");
    host.step(Input::Peer { from, message });
}

/// Lets the two talk until nothing is said, and gives how many parts were sent. `change` may do
/// something to what the source says.
fn talk(source: &mut Host, target: &mut Host, mut change: impl FnMut(usize, &mut Message) -> bool) -> usize {
    let mut parts = 0;
    loop {
        let asked = sent(target);
        if asked.is_empty() {
            return parts;
        }
        assert_eq!(asked.len(), 1, "one request is outstanding at a time");
        asked.into_iter().for_each(|message| deliver(source, A, message));
        for mut message in sent(source) {
            parts += 1;
            if change(parts, &mut message) {
                deliver(target, ME, message);
            }
        }
    }
}

/// Lets time pass until the next request.
fn until_it_asks(target: &mut Host) {
    while target.sent.is_empty() {
        let deadline = target.node.deadline().expect("it will ask again");
        target.wait(deadline.since(target.now));
        target.settle();
    }
}

fn whole(_: usize, _: &mut Message) -> bool {
    true
}

#[test]
fn the_state_of_a_peer_becomes_this_members_own_and_its_log_begins_there() {
    let (mut source, mut target) = pair(30);
    target.say([Op::Fetch(ME, 20)]);
    let parts = talk(&mut source, &mut target, whole);
    assert!(parts > 1);
    assert_eq!(target.node.machine().commands, source.node.machine().commands);
    let [point] = &target.node.process().installed[..] else { panic!("the protocol is told once") };
    assert_eq!((point.index, target.node.status().applied), (Index(30), Index(30)));
    assert!(target.notices.iter().any(|notice| matches!(notice, Notice::Installed { .. })));
    // Every crash from here on keeps it, whatever the log says.
    for lost in 0..3 {
        let again = Host::start_with(for_a(), target.disk.clone(), target.node.machine().crash(lost));
        let again = again.expect("it recovers");
        assert_eq!(again.node.process().base, *point);
        assert_eq!(again.node.machine().commands.len(), 30);
    }
}

#[test]
fn a_crash_before_the_last_part_leaves_the_old_state() {
    let (mut source, mut target) = pair(30);
    let mut last = 0;
    target.say([Op::Fetch(ME, 20)]);
    talk(&mut source, &mut target, |number, _| {
        last = number;
        number < 2
    });
    assert_eq!(last, 2, "it waits for the second part");
    let machine = target.node.into_machine().crash(0);
    let mut again = Host::start_with(for_a(), target.disk, machine).expect("it recovers");
    assert_eq!(again.node.machine().commands.len(), 0);
    again.say([Op::Fetch(ME, 20)]);
    talk(&mut source, &mut again, whole);
    assert_eq!(again.node.machine().commands.len(), 30);
}

#[test]
fn a_broken_connection_costs_one_part() {
    let (mut source, mut target) = pair(60);
    target.say([Op::Fetch(ME, 20)]);
    let undisturbed = {
        let (mut source, mut target) = pair(60);
        target.say([Op::Fetch(ME, 20)]);
        talk(&mut source, &mut target, whole)
    };
    let mut parts = talk(&mut source, &mut target, |number, _| number != 3);
    assert_eq!(target.node.process().installed, []);
    // Meanwhile the source goes on.
    source.put("later");
    source.settle();
    target.step(Input::LinkUp { peer: ME, session: LinkSession(2) });
    parts += talk(&mut source, &mut target, whole);
    assert_eq!(parts, undisturbed + 1, "it resumed where it was");
    assert_eq!(target.node.machine().commands[..], source.node.machine().commands[..60], "of one moment");
}

#[test]
fn a_request_that_was_lost_is_repeated() {
    let (mut source, mut target) = pair(30);
    target.say([Op::Fetch(ME, 20)]);
    assert_eq!(sent(&mut target).len(), 1);
    target.wait(Duration::from_millis(100));
    assert_eq!(sent(&mut target).len(), 0, "not at once");
    until_it_asks(&mut target);
    talk(&mut source, &mut target, whole);
    assert_eq!(target.node.machine().commands.len(), 30);
}

#[test]
fn a_damaged_part_is_noticed_and_fetched_again() {
    for damage in 0..4 {
        let (mut source, mut target) = pair(30);
        target.say([Op::Fetch(ME, 20)]);
        talk(&mut source, &mut target, |number, message| {
            let PeerMessage::SnapshotPart(part) = message else { panic!("{message:?}") };
            let flip = |bytes: &Bytes| bytes.iter().map(|byte| byte ^ 1).collect::<Bytes>();
            match damage {
                0 if number == 1 => part.bytes = flip(&part.bytes),
                1 if number == 2 => part.bytes = part.bytes.slice(..part.bytes.len() - 1),
                2 if number == 1 => part.manifest = flip(&part.manifest),
                // The end is cut off: what came is taken for all there is.
                3 if number == 2 => part.next = None,
                _ => {}
            }
            true
        });
        assert_eq!(target.node.machine().commands, source.node.machine().commands, "damage {damage}");
        assert!(target.notices.iter().any(|notice| matches!(notice, Notice::SnapshotRefused { .. })));
    }
}

#[test]
fn a_source_that_only_sends_damage_is_asked_for_another_view_after_a_pause() {
    let (mut source, mut target) = pair(30);
    target.say([Op::Fetch(ME, 20)]);
    let parts = talk(&mut source, &mut target, |_, message| {
        let PeerMessage::SnapshotPart(part) = message else { panic!("{message:?}") };
        part.checksum ^= 1;
        true
    });
    assert_eq!(parts, 3);
    until_it_asks(&mut target);
    talk(&mut source, &mut target, whole);
    assert_eq!(target.node.machine().commands.len(), 30);
}

#[test]
fn a_snapshot_of_another_cluster_or_protocol_is_refused() {
    for other in [true, false] {
        let (mut source, mut target) = pair(30);
        target.say([Op::Fetch(ME, 20)]);
        talk(&mut source, &mut target, |_, message| {
            let PeerMessage::SnapshotPart(part) = message else { panic!("{message:?}") };
            if !part.manifest.is_empty() {
                let mut manifest = Manifest::decode(part.manifest.clone()).expect("it is whole");
                if other {
                    manifest.cluster = ClusterId(8);
                } else {
                    manifest.protocol = "other".into();
                }
                part.manifest = manifest.encode();
                part.checksum = part.checksum_after(0);
            }
            true
        });
        let why = target.notices.iter().find_map(|notice| match notice {
            Notice::SnapshotRefused { why, .. } => Some(why.clone()),
            _ => None,
        });
        let why = why.expect("it is refused aloud");
        assert!(why.contains(if other { "cluster 8" } else { "\"other\"" }), "{why}");
        assert_eq!((target.node.machine().commands.len(), target.node.process().installed.len()), (0, 0));
    }
}

#[test]
fn one_that_does_not_cover_enough_is_not_sent_and_one_that_is_gone_is_fetched_anew() {
    let (mut source, mut target) = pair(30);
    target.say([Op::Fetch(ME, 31)]);
    assert_eq!(
        talk(&mut source, &mut target, |_, message| {
            assert_eq!(*message, PeerMessage::SnapshotGone { id: None });
            true
        }),
        1
    );
    source.put("one more");
    source.settle();
    until_it_asks(&mut target);
    talk(&mut source, &mut target, |number, _| number < 2);
    // Nobody asked for so long that the source has closed the view.
    source.wait(Duration::from_secs(11));
    source.flush();
    target.step(Input::LinkUp { peer: ME, session: LinkSession(2) });
    talk(&mut source, &mut target, whole);
    until_it_asks(&mut target);
    talk(&mut source, &mut target, whole);
    assert_eq!(target.node.machine().commands.len(), 31);
}

#[test]
fn another_source_takes_over() {
    let (mut source, mut target) = pair(30);
    target.say([Op::Fetch(B, 20)]);
    assert_eq!(sent(&mut target).len(), 1);
    target.say([Op::Fetch(ME, 20)]);
    target.say([Op::Fetch(ME, 20)]);
    talk(&mut source, &mut target, whole);
    assert_eq!(target.node.machine().commands.len(), 30);
}

#[test]
fn a_snapshot_that_the_log_has_overtaken_is_not_installed() {
    let (mut source, mut target) = pair(5);
    target.say([Op::Follow(2, A)]);
    for _ in 0..9 {
        target.put("mine");
    }
    target.say([Op::Fetch(ME, 1)]);
    talk(&mut source, &mut target, whole);
    assert_eq!(target.node.process().installed, []);
    assert_eq!(target.node.machine().commands.len(), 9);
}

#[test]
fn clients_whose_commands_came_with_a_snapshot_are_told_that_the_outcome_is_unknown() {
    let (mut source, mut target) = pair(0);
    // The command is forwarded, applied elsewhere, and comes back as a part of the state.
    target.step(Input::LinkUp { peer: ME, session: LinkSession(1) });
    target.say([Op::Follow(2, ME)]);
    let ticket = target.put("forwarded");
    for message in sent(&mut target) {
        deliver(&mut source, A, message);
    }
    source.settle();
    assert_eq!(source.node.machine().commands.len(), 1);
    target.say([Op::Fetch(ME, 1)]);
    talk(&mut source, &mut target, whole);
    assert_eq!(target.error(ticket), Some(ClientError::Timeout));
    assert_eq!(target.node.status().requests, 0);
    // It is not applied again, and the session goes on behind it.
    let next = target.put("next");
    for message in sent(&mut target) {
        deliver(&mut source, A, message);
    }
    source.settle();
    assert_eq!(source.node.machine().commands.len(), 2);
    assert_eq!(target.error(next), None);
}

#[test]
fn the_log_waits_for_those_who_are_fetching() {
    let (mut source, mut target) = pair(2);
    target.say([Op::Fetch(ME, 1)]);
    for message in sent(&mut target) {
        deliver(&mut source, A, message);
    }
    let fill = |source: &mut Host| {
        for number in 0..40 {
            source.ask(Request::Command(Bytes::from(vec![number; 600])));
            source.settle();
            source.persist();
        }
    };
    fill(&mut source);
    assert_eq!(source.disk.ids()[0], 1, "what follows on the snapshot stays");
    source.wait(Duration::from_secs(11));
    fill(&mut source);
    assert!(source.disk.ids()[0] > 1, "but not for ever");
}
