//! Changes of members, transfers of leadership, and reads under a lease.

use crate::host::{A, B, Host};
use crate::script::Op;
use bytes::Bytes;
use std::time::Duration;
use synod_node::node::Outcome;
use synod_node::*;
use synod_protocols::log::{ChangeRefusal, LogRequest, Member, MembershipChange, Ticket};
use synod_protocols::{LinkSession, NodeId};

fn add(id: u64) -> Change {
    Change::Members(MembershipChange::Add {
        id: NodeId(id),
        context: Bytes::from_static(b"addr"),
        promote: true,
    })
}

/// The log's ticket and the id in the last request to add a member.
fn asked(host: &Host) -> (Ticket, NodeId) {
    match host.node.process().changes.last() {
        Some(LogRequest::ChangeMembership { ticket, change: MembershipChange::Add { id, .. } }) => {
            (*ticket, *id)
        }
        other => panic!("{other:?}"),
    }
}

fn changed(host: &Host, ticket: Ticket) -> Option<(NodeId, Vec<Member>)> {
    host.replies.iter().find(|reply| reply.ticket == ticket).and_then(|reply| match &reply.outcome {
        Outcome::Changed { added, members } => Some((*added, members.clone())),
        _ => None,
    })
}

#[test]
fn the_leader_chooses_an_id_that_was_never_used() {
    let mut host = Host::running();
    let ticket = host.ask(Request::Change(add(0)));
    let (log_ticket, id) = asked(&host);
    assert_eq!(id, NodeId(4), "one above the members");
    host.say([Op::Deny(log_ticket.0, NodeId(7))]);
    let (log_ticket, id) = asked(&host);
    assert_eq!(id, NodeId(8), "one above a member that has left");
    assert_eq!(changed(&host, ticket), None, "it is not complete");
    host.say([Op::Finish(log_ticket.0)]);
    host.settle();
    let (added, members) = changed(&host, ticket).expect("it is complete");
    assert_eq!((added, members.len()), (NodeId(8), 3));
}

#[test]
fn an_id_that_the_client_chose_is_not_replaced() {
    let mut host = Host::running();
    let ticket = host.ask(Request::Change(add(5)));
    host.say([Op::Deny(asked(&host).0.0, NodeId(7))]);
    host.settle();
    let refusal = ChangeRefusal::IdUsed { highest: NodeId(7) };
    assert_eq!(host.error(ticket), Some(ClientError::Change(refusal)));
}

#[test]
fn a_transfer_is_put_to_the_protocol_and_answered() {
    let mut host = Host::running();
    let ticket = host.ask(Request::Change(Change::Transfer(Some(A))));
    let Some(LogRequest::TransferLeadership { ticket: log_ticket, to: Some(A) }) =
        host.node.process().changes.last()
    else {
        panic!("{:?}", host.node.process().changes)
    };
    host.say([Op::Finish(log_ticket.0)]);
    host.settle();
    assert_eq!(changed(&host, ticket).map(|(added, _)| added), Some(NodeId(0)));
}

#[test]
fn the_members_are_listed_and_their_change_is_noticed() {
    let mut host = Host::running();
    let ticket = host.ask(Request::Members);
    host.flush();
    assert_eq!(changed(&host, ticket).map(|(_, members)| members.len()), Some(3));
    host.say([Op::Members(4)]);
    host.settle();
    let Some(Notice::Members(members)) = host.notices.last() else { panic!("{:?}", host.notices) };
    assert_eq!(members.len(), 4);
}

/// A follower of A, connected to it.
fn follower() -> Host {
    let mut host = Host::running();
    host.step(Input::LinkUp { peer: A, session: LinkSession(1) });
    host.say([Op::Follow(2, A)]);
    host.settle();
    host
}

#[test]
fn a_follower_passes_a_change_on_and_hears_what_came_of_it() {
    let mut host = follower();
    let ticket = host.ask(Request::Change(add(0)));
    host.flush();
    let Some((A, PeerMessage::Change { incarnation, number, change })) = host.sent.pop() else {
        panic!("it is passed on")
    };
    assert_eq!((change, host.node.process().changes.len()), (add(0), 0));
    let refusal = ClientError::Change(ChangeRefusal::WouldLoseQuorum);
    let reply = |result| PeerMessage::ChangeReply { incarnation, number, result };
    // Only whom it asked is believed.
    host.step(Input::Peer { from: B, message: reply(Ok((NodeId(9), Vec::new()))) });
    host.step(Input::Peer { from: A, message: reply(Err(refusal)) });
    host.flush();
    assert_eq!((host.error(ticket), host.replies.len()), (Some(refusal), 1));
}

#[test]
fn a_leader_answers_those_who_passed_something_on() {
    let mut host = Host::running();
    let message =
        PeerMessage::Change { incarnation: synod_protocols::Incarnation(3), number: 5, change: add(0) };
    host.step(Input::Peer { from: A, message });
    host.say([Op::Finish(asked(&host).0.0)]);
    host.settle();
    let Some((A, PeerMessage::ChangeReply { number: 5, result: Ok((NodeId(4), _)), .. })) = host.sent.pop()
    else {
        panic!("it is answered")
    };
}

#[test]
fn what_was_passed_on_and_lost_is_unknown_and_without_a_leader_it_is_refused() {
    let mut host = follower();
    let lost = host.ask(Request::Change(add(0)));
    host.step(Input::LinkDown { peer: A });
    let refused = host.ask(Request::Change(add(0)));
    host.flush();
    assert_eq!(
        (host.error(lost), host.error(refused)),
        (Some(ClientError::Timeout), Some(ClientError::NoLeader))
    );
    let mut host = Host::running();
    let late = host.ask(Request::Change(add(0)));
    host.wait(Duration::from_secs(6));
    assert_eq!(host.error(late), Some(ClientError::Timeout));
    assert_eq!(
        (host.node.status().requests, host.node.deadline().is_some_and(|at| at <= host.now)),
        (0, false)
    );
}

#[test]
fn a_read_under_a_lease_is_told_only_if_the_lease_holds_after_it() {
    let mut host = Host::running();
    host.say([Op::Lease(50)]);
    let answered = |host: &Host, ticket| {
        host.replies.iter().any(|r| r.ticket == ticket && matches!(r.outcome, Outcome::Answered { .. }))
    };
    let held = host.ask(Request::Read(()));
    host.settle();
    host.flush();
    assert!(answered(&host, held), "the lease holds");
    // The read is put to the log and served in this flush; the clock is looked at in the next.
    let late = host.ask(Request::Read(()));
    host.flush();
    assert!(!answered(&host, late));
    host.now = host.now + Duration::from_millis(60);
    let reads = host.node.process().reads;
    host.flush();
    assert!(!answered(&host, late), "the lease ended before the clock was looked at");
    assert!(host.node.process().reads > reads, "it is asked again");
    host.say([Op::Lease(500)]);
    host.wait(Duration::from_millis(10));
    host.flush();
    assert!(host.replies.iter().filter(|reply| reply.ticket == late).count() <= 1);
}
