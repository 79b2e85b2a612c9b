//! Planned transfer of leadership: the leader stops proposing, waits until its successor has
//! accepted everything, and asks it to prepare a ballot. (It need not wait: any member can lead;
//! but a successor which has everything leads at once.)

use super::message::Message;
use super::{MultiPaxos, Part};
use crate::ballot::Ballot;
use crate::contract::Effects;
use crate::log::{ChangeRefusal, LogEvent, Refusal, Ticket};
use crate::types::{NodeId, Time};

/// A transfer under way.
#[derive(Clone, Debug, Hash)]
pub(super) struct Transfer {
    ticket: Ticket,
    to: NodeId,
    asked: bool,
    /// When it has failed: an election timeout after it began.
    pub(super) deadline: Time,
}

/// At the old leader.
impl MultiPaxos {
    pub(super) fn on_transfer(&mut self, ticket: Ticket, to: Option<NodeId>, out: &mut Effects<Self>) {
        if self.part != Part::Leader {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if self.transfer.is_some() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        if to == Some(self.config.id) {
            // Early: it speaks of what is.
            return out.event_early(LogEvent::Done { ticket });
        }
        let reachable = |heard: Time| self.now < heard + self.config.timing.election;
        let candidates = self.progress.iter().filter(|peer| reachable(peer.heard));
        let best =
            candidates.filter(|peer| to.is_none_or(|to| to == peer.id)).max_by_key(|peer| peer.accepted);
        let Some(to) = best.map(|peer| peer.id) else {
            let whom = to.unwrap_or(self.config.id);
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::CannotLead(whom)), out);
        };
        let deadline = self.now + self.config.timing.election;
        self.transfer = Some(Transfer { ticket, to, asked: false, deadline });
        self.maybe_hand_over(out);
    }

    /// Asks the successor to take over once it has accepted everything.
    pub(super) fn maybe_hand_over(&mut self, out: &mut Effects<Self>) {
        if self.part != Part::Leader {
            return;
        }
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| !transfer.asked) else { return };
        let successor = self.progress.iter().find(|peer| peer.id == transfer.to);
        if successor.is_some_and(|peer| peer.accepted >= self.log.last()) {
            transfer.asked = true;
            // Early: it promises nothing.
            out.send_early(transfer.to, Message::TakeOver { ballot: self.promised });
        }
    }

    /// A transfer that has not come about in an election timeout has failed: proposals are taken
    /// again, if this member still leads.
    pub(super) fn check_transfer(&mut self, out: &mut Effects<Self>) {
        if let Some(transfer) = self.transfer.take_if(|transfer| self.now >= transfer.deadline) {
            self.refuse(transfer.ticket, Refusal::LeadershipLost, out);
        }
    }

    /// There is a leader, and perhaps the one that a transfer was waiting for.
    pub(super) fn note_transferred(&mut self, out: &mut Effects<Self>) {
        if self.leader.is_some_and(|leader| leader != self.config.id)
            && let Some(transfer) = self.transfer.take()
        {
            // Early: the new leader spoke, so a quorum has promised its ballot.
            out.event_early(LogEvent::Done { ticket: transfer.ticket });
        }
    }
}

/// At the successor.
impl MultiPaxos {
    pub(super) fn on_take_over(&mut self, from: NodeId, ballot: Ballot, out: &mut Effects<Self>) {
        if ballot != self.promised || self.leader != Some(from) || !self.may_campaign() {
            self.ignored += 1;
            return;
        }
        if self.is_disk_stalled() || self.next_attempt().is_none() {
            return;
        }
        self.become_preparing(true, out);
    }
}
