//! What the node owes its clients: every request is answered once, and truthfully.

use crate::disk::MemoryDisk;
use crate::host::{A, B, Host, ME, config};
use crate::list::List;
use crate::script::{Op, Say};
use bytes::Bytes;
use std::time::Duration;
use synod_node::*;
use synod_protocols::log::Refusal;
use synod_protocols::{Incarnation, LinkSession, NodeId};

const NOBODY: NodeId = NodeId(0);

/// What was forwarded since the last time: to whom, the first number, how many.
fn forwarded(host: &mut Host) -> Vec<(NodeId, u64, usize)> {
    let forwards = std::mem::take(&mut host.sent);
    let forward = |(to, message): (NodeId, PeerMessage<Say>)| match message {
        PeerMessage::Forward { first, commands, .. } => Some((to, first, commands.len())),
        _ => None,
    };
    forwards.into_iter().filter_map(forward).collect()
}

fn refuse(host: &mut Host, first: u64, why: Refusal) {
    let incarnation = host.node.status().incarnation;
    host.step(Input::Peer { from: A, message: PeerMessage::ForwardRefused { incarnation, first, why } });
    host.flush();
}

/// A member that follows A.
fn follower() -> Host {
    let mut host = Host::running();
    host.say([Op::Follow(2, A)]);
    host.step(Input::LinkUp { peer: A, session: LinkSession(1) });
    host.settle();
    host
}

#[test]
fn a_command_is_answered_when_it_is_applied() {
    let mut host = Host::running();
    let one = host.put("one");
    let two = host.put("two");
    host.flush();
    assert_eq!(host.replies.len(), 0, "it was answered before it was durable");
    host.settle();
    assert_eq!((host.applied(one), host.applied(two)), (Some(1), Some(2)));
    assert_eq!(host.node.machine().commands, ["one", "two"]);
    assert_eq!(host.node.process().proposals, 1, "one batch, one proposal");
    assert_eq!(host.node.status().requests, 0);
}

#[test]
fn nothing_is_proposed_before_this_life_is_durable() {
    let mut host = Host::start(MemoryDisk::default(), List::default()).expect("blank");
    let one = host.put("one");
    host.flush();
    assert_eq!(host.node.process().proposals, 0);
    host.settle();
    assert_eq!(host.applied(one), Some(1));
}

#[test]
fn without_a_leader_a_command_is_withdrawn_when_its_time_is_up() {
    let mut host = Host::running();
    host.say([Op::Follow(2, NOBODY)]);
    let one = host.put("one");
    host.flush();
    host.wait(Duration::from_millis(4999));
    assert_eq!(host.error(one), None);
    let deadline = host.node.deadline().expect("a client waits");
    host.wait(deadline.since(host.now));
    assert_eq!(host.error(one), Some(ClientError::NoLeader));
    host.say([Op::Follow(3, ME)]);
    host.settle();
    assert_eq!(host.node.machine().commands.len(), 0, "what was withdrawn was applied");
}

#[test]
fn a_command_that_was_sent_and_not_answered_is_unknown_and_still_applies() {
    let mut host = Host::running();
    host.say([Op::Stall(true)]);
    let one = host.put("one");
    host.settle();
    host.wait(Duration::from_secs(5));
    host.settle();
    assert_eq!(host.error(one), Some(ClientError::Timeout));
    let two = host.put("two");
    host.say([Op::Stall(false)]);
    host.settle();
    assert_eq!(host.node.machine().commands, ["one", "two"], "leaving one out would be a gap for two");
    assert_eq!((host.applied(one), host.applied(two)), (None, Some(2)));
    assert_eq!(host.replies.len(), 2, "every request is answered once");
}

#[test]
fn a_refused_proposal_is_tried_again_and_applies_once() {
    let mut host = Host::running();
    host.say([Op::Refuse(true)]);
    let one = host.put("one");
    host.settle();
    for _ in 0..3 {
        host.wait(Duration::from_millis(50));
    }
    assert_eq!(host.node.process().proposals, 4, "it is tried again after a pause");
    host.say([Op::Refuse(false)]);
    host.wait(Duration::from_millis(50));
    host.settle();
    assert_eq!((host.applied(one), host.node.machine().commands.len()), (Some(1), 1));
}

#[test]
fn a_command_that_every_proposal_of_was_refused_is_known_not_to_be_done() {
    let mut host = Host::running();
    host.say([Op::Refuse(true)]);
    let one = host.put("one");
    host.settle();
    host.wait(Duration::from_secs(5));
    assert!(
        matches!(host.error(one), Some(ClientError::Busy | ClientError::NoLeader)),
        "{:?}",
        host.error(one)
    );
    host.say([Op::Refuse(false)]);
    host.settle();
    assert_eq!(host.node.machine().commands.len(), 0);
}

#[test]
fn a_wait_that_is_over_leaves_no_deadline_behind() {
    let mut host = Host::running();
    host.say([Op::Refuse(true)]);
    host.put("one");
    host.ask(Request::Read(()));
    host.settle();
    host.say([Op::Follow(1, NOBODY)]);
    for _ in 0..100 {
        host.wait(Duration::from_millis(30));
        let deadline = host.node.deadline().expect("clients wait");
        assert!(deadline > host.now, "the host is kept busy for nothing");
    }
}

#[test]
fn limits_are_told_apart() {
    let mut config = config();
    config.limits.command_bytes_max = 10;
    config.limits.request_bytes_max = 25;
    config.limits.requests_max = 4;
    let mut host = Host::start_with(config, MemoryDisk::default(), List::default()).expect("blank");
    let long = host.put("0123456789x");
    let first = host.put("0123456789");
    let second = host.put("0123456789");
    let third = host.put("0123456789");
    let reads: Vec<_> = (0..3).map(|_| host.ask(Request::Read(()))).collect();
    host.flush();
    assert_eq!(host.error(long), Some(ClientError::TooLarge));
    assert_eq!(host.error(third), Some(ClientError::Busy), "too many bytes wait");
    assert_eq!(host.error(reads[2]), Some(ClientError::Busy), "too many requests wait");
    host.settle();
    assert_eq!((host.applied(first), host.applied(second)), (Some(1), Some(2)));
    let later = host.put("0123456789");
    host.settle();
    assert_eq!(host.applied(later), Some(3), "what was answered makes room");
}

#[test]
fn reads_of_one_batch_share_one_question_to_the_log() {
    let mut host = Host::running();
    for _ in 0..10 {
        host.ask(Request::Read(()));
    }
    host.settle();
    assert_eq!(host.replies.len(), 10);
    assert_eq!(host.node.process().reads, 1);
    assert_eq!(host.node.machine().queries.get(), 10);
}

#[test]
fn a_read_waits_until_what_it_must_see_is_applied() {
    let mut host = Host::running();
    host.put("one");
    host.flush();
    // The log promises index 1, which is not durable and so not applied yet.
    let read = host.ask(Request::Read(()));
    host.flush();
    assert!(host.replies.iter().all(|reply| reply.ticket != read));
    host.settle();
    let reply = host.replies.iter().find(|reply| reply.ticket == read).expect("it is answered");
    assert!(matches!(reply.outcome, node::Outcome::Answered { answer: 1, .. }), "{reply:?}");
}

#[test]
fn reads_are_asked_again_while_nobody_leads_and_never_fail_silently() {
    let mut host = Host::running();
    host.say([Op::Follow(2, NOBODY)]);
    let read = host.ask(Request::Read(()));
    host.settle();
    host.wait(Duration::from_millis(50));
    host.wait(Duration::from_millis(50));
    assert_eq!((host.node.process().reads, host.error(read)), (3, None));
    host.wait(Duration::from_secs(5));
    assert_eq!(host.error(read), Some(ClientError::NoLeader));

    host.say([Op::Follow(3, ME), Op::Stall(true)]);
    let read = host.ask(Request::Read(()));
    host.settle();
    host.wait(Duration::from_secs(5));
    assert_eq!(host.error(read), Some(ClientError::Timeout));
    assert_eq!(host.node.status().requests, 0);
}

#[test]
fn a_local_read_is_answered_without_a_leader() {
    let mut host = Host::running();
    host.say([Op::Follow(2, NOBODY)]);
    let read = host.ask(Request::LocalRead(()));
    host.flush();
    let reply = host.replies.iter().find(|reply| reply.ticket == read).expect("it is answered");
    assert!(matches!(reply.outcome, node::Outcome::Answered { answer: 0, .. }), "{reply:?}");
}

#[test]
fn a_follower_forwards_in_batches_and_only_over_a_connection() {
    let mut host = Host::running();
    host.say([Op::Follow(2, A)]);
    host.put("one");
    host.put("two");
    host.settle();
    assert_eq!(forwarded(&mut host), [], "there is no connection");
    host.step(Input::LinkUp { peer: A, session: LinkSession(1) });
    host.settle();
    assert_eq!(forwarded(&mut host), [(A, 1, 2)]);
    host.put("three");
    host.settle();
    assert_eq!(forwarded(&mut host), [(A, 3, 1)]);
}

#[test]
fn what_is_not_applied_is_forwarded_again_when_something_may_be_lost() {
    let mut host = follower();
    host.put("one");
    host.settle();
    assert_eq!(forwarded(&mut host), [(A, 1, 1)]);

    host.step(Input::LinkDown { peer: A });
    host.step(Input::LinkUp { peer: A, session: LinkSession(2) });
    host.settle();
    assert_eq!(forwarded(&mut host), [(A, 1, 1)], "a new connection");

    host.step(Input::LinkUp { peer: B, session: LinkSession(1) });
    host.settle();
    assert_eq!(forwarded(&mut host), [], "a connection to somebody else");

    host.say([Op::Follow(3, B)]);
    host.settle();
    assert_eq!(forwarded(&mut host), [(B, 1, 1)], "a new leader");

    host.say([Op::Follow(4, B)]);
    host.settle();
    assert_eq!(forwarded(&mut host), [(B, 1, 1)], "a new epoch");

    refuse(&mut host, 1, Refusal::Busy);
    assert_eq!(forwarded(&mut host), [], "after a refusal it waits");
    host.wait(Duration::from_millis(50));
    assert_eq!(forwarded(&mut host), [(B, 1, 1)], "after a refusal");

    host.wait(Duration::from_millis(799));
    assert_eq!(forwarded(&mut host), []);
    host.wait(Duration::from_millis(1));
    assert_eq!(forwarded(&mut host), [(B, 1, 1)], "no progress for four election timeouts");
}

fn forward_of(member: NodeId, sequences: std::ops::RangeInclusive<u64>) -> PeerMessage<Say> {
    let incarnation = Incarnation(1);
    let first = *sequences.start();
    let seal = |sequence| sessions::seal(sessions::Sender { member, incarnation, sequence }, b"x");
    PeerMessage::Forward { incarnation, first, commands: sequences.map(seal).collect() }
}

#[test]
fn envelopes_of_somebody_else_are_not_taken() {
    let mut host = Host::running();
    host.step(Input::Peer { from: B, message: forward_of(A, 1..=2) });
    host.settle();
    assert_eq!(host.node.process().proposals, 0);
}

#[test]
fn what_arrives_twice_applies_once_and_what_overtakes_is_skipped() {
    let mut host = Host::running();
    for message in [forward_of(A, 2..=3), forward_of(A, 1..=2), forward_of(A, 1..=2), forward_of(A, 2..=4)] {
        host.step(Input::Peer { from: A, message });
        host.settle();
    }
    assert_eq!(host.node.machine().commands.len(), 4);
    assert_eq!(host.node.status().applied.0, 9, "the log holds all of them");
}

#[test]
fn after_a_refusal_a_leader_refuses_what_follows_until_the_gap_is_filled() {
    let mut host = Host::running();
    host.say([Op::Refuse(true)]);
    host.step(Input::Peer { from: A, message: forward_of(A, 1..=2) });
    host.settle();
    host.say([Op::Refuse(false)]);
    host.step(Input::Peer { from: A, message: forward_of(A, 3..=4) });
    host.settle();
    let refused: Vec<_> = std::mem::take(&mut host.sent);
    let firsts: Vec<_> = refused
        .iter()
        .filter_map(|(to, message)| match message {
            PeerMessage::ForwardRefused { first, .. } if *to == A => Some(*first),
            _ => None,
        })
        .collect();
    assert_eq!(firsts, [1, 3]);
    host.step(Input::Peer { from: A, message: forward_of(A, 1..=4) });
    host.settle();
    assert_eq!(host.node.machine().commands.len(), 4);
}

#[test]
fn a_refusal_is_forgotten_when_what_was_refused_applies_from_another_copy() {
    let mut host = Host::running();
    host.say([Op::Stall(true)]);
    host.step(Input::Peer { from: A, message: forward_of(A, 1..=2) });
    host.settle();
    host.say([Op::Refuse(true)]);
    host.step(Input::Peer { from: A, message: forward_of(A, 1..=2) });
    host.settle();
    host.say([Op::Refuse(false), Op::Stall(false)]);
    host.settle();
    host.step(Input::Peer { from: A, message: forward_of(A, 3..=4) });
    host.settle();
    assert_eq!(host.node.machine().commands.len(), 4, "the sender has nothing earlier to send");
}

#[test]
fn one_that_does_not_lead_says_so_and_who_does() {
    let mut host = follower();
    host.step(Input::Peer { from: B, message: forward_of(B, 1..=1) });
    host.flush();
    let expected = PeerMessage::ForwardRefused {
        incarnation: Incarnation(1),
        first: 1,
        why: Refusal::NotLeader { leader: Some(A) },
    };
    assert!(host.sent.contains(&(B, expected)), "{:?}", host.sent);
}

#[test]
fn garbage_from_peers_is_ignored() {
    let mut host = Host::running();
    let incarnation = Incarnation(1);
    let garbage = [
        PeerMessage::Forward { incarnation, first: 1, commands: vec![] },
        PeerMessage::Forward { incarnation, first: 1, commands: vec![Bytes::from_static(b"garbage")] },
        PeerMessage::Forward { incarnation, first: u64::MAX, commands: vec![Bytes::new(), Bytes::new()] },
        PeerMessage::ForwardRefused { incarnation, first: 0, why: Refusal::Busy },
        PeerMessage::ForwardRefused { incarnation, first: u64::MAX, why: Refusal::Storage },
        PeerMessage::ForwardRefused { incarnation: Incarnation(9), first: 1, why: Refusal::Busy },
        forward_of(ME, 1..=1),
    ];
    let one = host.put("one");
    for message in garbage {
        host.step(Input::Peer { from: A, message });
        host.flush();
    }
    host.wait(Duration::from_millis(50));
    host.settle();
    assert_eq!(host.node.machine().commands, ["one"]);
    assert_eq!(host.applied(one), Some(1));
}
