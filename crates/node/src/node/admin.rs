//! Changes of members and transfers of leadership: asked of this member, passed on to the leader if
//! that is another, and answered when they are complete.

use super::{Node, Step, fail};
use crate::changes::{Change, Changed};
use crate::interface::*;
use crate::machine::StateMachine;
use crate::peer::PeerMessage;
use std::collections::BTreeMap;
use synod_protocols::log::{ChangeRefusal, LogRequest, MembershipChange, Refusal, ReplicatedLog, Ticket};
use synod_protocols::{Incarnation, NodeId, Time};

/// Who wants to hear what came of a change.
#[derive(Clone, Debug)]
enum Asker {
    Client(Ticket),
    Peer { peer: NodeId, incarnation: Incarnation, number: u64 },
}

/// A change that was put to the protocol.
#[derive(Debug)]
struct Asked {
    asker: Asker,
    change: Change,
    deadline: Time,
    /// The id was chosen here, and may be chosen once more.
    chosen: bool,
}

/// The changes under way.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Put to this member's protocol.
    asked: BTreeMap<Ticket, Asked>,
    /// Passed on to the leader, by the client's ticket.
    passed_on: BTreeMap<Ticket, (NodeId, Time)>,
}

impl Changes {
    pub(super) fn waiting(&self) -> usize {
        self.asked.len() + self.passed_on.len()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        if self.is_empty() {
            return None;
        }
        let asked = self.asked.values().map(|asked| asked.deadline);
        asked.chain(self.passed_on.values().map(|(_, deadline)| *deadline)).min()
    }

    fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.passed_on.is_empty()
    }
}

impl<P: ReplicatedLog, S: StateMachine> Node<P, S> {
    pub(super) fn on_change(&mut self, now: Time, ticket: Ticket, change: Change, out: &mut Outbox<P, S>) {
        let leader = self.process.status().leader;
        match leader {
            Some(leader) if leader != self.id => {
                if !self.links.contains(&leader) {
                    return fail(ticket, ClientError::NoLeader, out);
                }
                let (incarnation, number) = (self.incarnation, ticket.0);
                out.send(leader, PeerMessage::Change { incarnation, number, change });
                self.changes.passed_on.insert(ticket, (leader, now + self.limits.request_timeout));
            }
            _ => self.ask_change(now, Asker::Client(ticket), change, out),
        }
    }

    /// Another member passes on what its client asked.
    pub(super) fn on_peer_change(
        &mut self,
        now: Time,
        peer: NodeId,
        (incarnation, number): (Incarnation, u64),
        change: Change,
        out: &mut Outbox<P, S>,
    ) {
        let asker = Asker::Peer { peer, incarnation, number };
        if self.requests() >= self.limits.requests_max {
            return self.answer_change(asker, Err(ClientError::Busy), out);
        }
        self.ask_change(now, asker, change, out);
    }

    fn ask_change(&mut self, now: Time, asker: Asker, mut change: Change, out: &mut Outbox<P, S>) {
        let mut chosen = false;
        if let Change::Members(MembershipChange::Add { id, .. }) = &mut change
            && *id == NodeId(0)
        {
            chosen = true;
            let founders = self.founders.iter().copied().max();
            let members = self.process.members().into_iter().map(|member| member.id).max();
            *id = NodeId(founders.max(members).map_or(1, |highest| highest.0.saturating_add(1)));
        }
        let deadline = now + self.limits.request_timeout;
        self.put_change(now, Asked { asker, change, deadline, chosen }, out);
    }

    fn put_change(&mut self, now: Time, asked: Asked, out: &mut Outbox<P, S>) {
        let ticket = self.ticket();
        let request = match asked.change.clone() {
            Change::Members(change) => LogRequest::ChangeMembership { ticket, change },
            Change::Transfer(to) => LogRequest::TransferLeadership { ticket, to },
        };
        self.changes.asked.insert(ticket, asked);
        self.drive(now, Step::Request(request), out);
    }

    /// The change or transfer is complete.
    pub(super) fn on_done(&mut self, ticket: Ticket, out: &mut Outbox<P, S>) {
        let Some(asked) = self.changes.asked.remove(&ticket) else { return };
        let added = match asked.change {
            Change::Members(MembershipChange::Add { id, .. }) => id,
            _ => NodeId(0),
        };
        self.answer_change(asked.asker, Ok((added, self.process.members())), out);
    }

    /// Whether it was a change that was refused.
    pub(super) fn on_change_refused(
        &mut self,
        now: Time,
        ticket: Ticket,
        why: Refusal,
        out: &mut Outbox<P, S>,
    ) -> bool {
        let Some(mut asked) = self.changes.asked.remove(&ticket) else { return false };
        if let (true, Refusal::Change(ChangeRefusal::IdUsed { highest })) = (asked.chosen, why)
            && let Change::Members(MembershipChange::Add { id, .. }) = &mut asked.change
        {
            // A member that has left had a higher one.
            *id = NodeId(highest.0.saturating_add(1));
            asked.chosen = false;
            self.put_change(now, asked, out);
            return true;
        }
        let error = match why {
            Refusal::NotLeader { .. } => ClientError::NoLeader,
            Refusal::LeadershipLost => ClientError::Timeout,
            Refusal::Busy => ClientError::Busy,
            Refusal::Storage => ClientError::Storage,
            Refusal::Unsupported => ClientError::Unsupported,
            Refusal::Change(refusal) => ClientError::Change(refusal),
        };
        self.answer_change(asked.asker, Err(error), out);
        true
    }

    fn answer_change(&mut self, asker: Asker, result: Result<Changed, ClientError>, out: &mut Outbox<P, S>) {
        match asker {
            Asker::Client(ticket) => {
                let outcome = match result {
                    Ok((added, members)) => Outcome::Changed { added, members },
                    Err(error) => Outcome::Failed(error),
                };
                out.replies.push(Reply { ticket, outcome });
            }
            Asker::Peer { peer, incarnation, number } => {
                out.send(peer, PeerMessage::ChangeReply { incarnation, number, result });
            }
        }
    }

    /// The leader says what came of what was passed on to it.
    pub(super) fn on_change_reply(
        &mut self,
        from: NodeId,
        (incarnation, number): (Incarnation, u64),
        result: Result<Changed, ClientError>,
        out: &mut Outbox<P, S>,
    ) {
        let ticket = Ticket(number);
        let asked = self.changes.passed_on.get(&ticket).is_some_and(|(to, _)| *to == from);
        if asked && incarnation == self.incarnation {
            self.changes.passed_on.remove(&ticket);
            self.answer_change(Asker::Client(ticket), result, out);
        }
    }

    /// Whoever waits too long, or for somebody who can no longer answer, is told that the outcome is unknown.
    pub(super) fn expire_changes(&mut self, now: Time, lost: Option<NodeId>, out: &mut Outbox<P, S>) {
        if self.changes.is_empty() {
            return;
        }
        let passed_on = &mut self.changes.passed_on;
        passed_on.retain(|ticket, (to, deadline)| {
            let over = *deadline <= now || Some(*to) == lost;
            if over {
                fail(*ticket, ClientError::Timeout, out);
            }
            !over
        });
        while let Some(ticket) =
            self.changes.asked.iter().find(|(_, asked)| asked.deadline <= now).map(|(ticket, _)| *ticket)
        {
            let asked = self.changes.asked.remove(&ticket).expect("it was just there");
            self.answer_change(asked.asker, Err(ClientError::Timeout), out);
        }
    }
}
