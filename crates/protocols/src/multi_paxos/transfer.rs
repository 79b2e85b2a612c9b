//! Planned transfer of leadership: the leader stops proposing, waits until its heir has
//! accepted everything, and asks it to prepare a ballot. (It need not wait: any member can lead;
//! but a heir which has everything leads at once.)

use super::message::Message;
use super::{MultiPaxos, Part};
use crate::ballot::Ballot;
use crate::contract::Effects;
use crate::log::{ChangeRefusal, LogEvent, Refusal, Ticket};
use crate::membership::Peers;
use crate::types::{NodeId, Time};

/// A transfer under way.
#[derive(Clone, Debug, Hash)]
pub(super) struct Transfer {
    ticket: Ticket,
    heir: NodeId,
    /// Whether the heir was asked to take over.
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
        let heir = match to {
            None => self.best_heir().ok_or(ChangeRefusal::CannotLead(self.config.id)),
            Some(id) if !self.membership.is_voter(id) => Err(ChangeRefusal::Unknown(id)),
            Some(id) if self.can_inherit(id) => Ok(id),
            Some(id) => Err(ChangeRefusal::CannotLead(id)),
        };
        let heir = match heir {
            Ok(heir) => heir,
            Err(why) => return self.refuse(ticket, Refusal::Change(why), out),
        };
        let deadline = self.now + self.config.timing.election;
        self.transfer = Some(Transfer { ticket, heir, asked: false, deadline });
        self.maybe_hand_over(out);
    }

    /// Asks the heir to take over once it has accepted everything.
    pub(super) fn maybe_hand_over(&mut self, out: &mut Effects<Self>) {
        if self.part != Part::Leader {
            return;
        }
        let last = self.last_wanted();
        let Some(transfer) = self.transfer.as_mut().filter(|transfer| !transfer.asked) else { return };
        let heir = self.progress.iter().find(|peer| peer.id == transfer.heir);
        if heir.is_some_and(|peer| peer.accepted >= last) {
            transfer.asked = true;
            // Early: it promises nothing.
            out.send_early(transfer.heir, Message::TakeOver { ballot: self.pledge.ballot });
        }
    }

    /// With every heartbeat: the question may have been lost.
    pub(super) fn repeat_hand_over(&mut self, out: &mut Effects<Self>) {
        if let Some(transfer) = &mut self.transfer {
            transfer.asked = false;
            self.maybe_hand_over(out);
        }
    }

    /// The one that has accepted most, of those that answer; of equals the one with the lowest id.
    pub(super) fn best_heir(&self) -> Option<NodeId> {
        let able = self.progress.iter().filter(|peer| self.can_inherit(peer.id));
        able.max_by_key(|peer| (peer.accepted, core::cmp::Reverse(peer.id))).map(|peer| peer.id)
    }

    /// Whether it is an acceptor that has answered within an election timeout.
    fn can_inherit(&self, id: NodeId) -> bool {
        id != self.config.id && self.membership.is_voter(id) && self.is_reachable(id)
    }

    /// A transfer that has not come about in an election timeout has failed: proposals are taken
    /// again, if this member still leads.
    pub(super) fn check_transfer(&mut self, out: &mut Effects<Self>) {
        if let Some(transfer) = self.transfer.take_if(|transfer| self.now >= transfer.deadline) {
            let why = ChangeRefusal::CannotLead(transfer.heir);
            self.refuse(transfer.ticket, Refusal::Change(why), out);
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

/// At the heir.
impl MultiPaxos {
    pub(super) fn on_take_over(&mut self, from: NodeId, ballot: Ballot, out: &mut Effects<Self>) {
        if ballot != self.pledge.ballot || self.leader != Some(from) || !self.may_campaign() {
            self.ignored += 1;
            return;
        }
        if self.is_disk_stalled() || self.next_attempt().is_none() {
            return;
        }
        self.become_preparing(true, out);
    }
}
