//! Planned change of leaders: the leader takes no more commands, waits until its heir has
//! everything, and asks it to propose itself; when it does, the leader gives up and votes for it.
//!
//! It costs no safety: the heir goes through an ordinary election and discovery. It costs no
//! availability either: the leader leads on until the heir has answered. That the followers hear
//! their own leader vote for the heir is what makes them leave it at once.

use super::message::{Message, Notification, Vote};
use super::{Part, Phase, Zab};
use crate::contract::Effects;
use crate::log::{ChangeRefusal, Epoch, LogEvent, Refusal, Ticket};
use crate::membership::Peers;
use crate::types::{NodeId, Time};

/// A transfer that was asked of this member and has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    ticket: Ticket,
    pub(super) heir: NodeId,
    /// Whether anybody would do.
    any: bool,
    /// Whether the heir was asked to propose itself.
    asked: bool,
    /// When it is given up.
    pub(super) deadline: Time,
}

/// At the leader.
impl Zab {
    pub(super) fn on_transfer(&mut self, ticket: Ticket, to: Option<NodeId>, out: &mut Effects<Self>) {
        let own = self.config.id;
        if self.part != Part::Leading(Phase::Broadcast) {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader_known() }, out);
        }
        if self.transfer.is_some() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        if to == Some(own) {
            // Early: it tells what this life knows.
            return out.event_early(LogEvent::Done { ticket });
        }
        let heir = match to {
            None => self.best_heir().ok_or(ChangeRefusal::CannotLead(own)),
            Some(id) if self.membership.current().part(id).is_none() => Err(ChangeRefusal::Unknown(id)),
            Some(id) if self.can_inherit(id) => Ok(id),
            Some(id) => Err(ChangeRefusal::CannotLead(id)),
        };
        match heir {
            Err(why) => self.refuse(ticket, Refusal::Change(why), out),
            Ok(heir) => {
                let deadline = self.now + self.config.timing.election;
                self.transfer = Some(Transfer { ticket, heir, any: to.is_none(), asked: false, deadline });
                self.maybe_hand_over(out);
            }
        }
    }

    /// Asks the heir to propose itself, once it has everything.
    pub(super) fn maybe_hand_over(&mut self, out: &mut Effects<Self>) {
        let Some(Transfer { heir, asked: false, .. }) = self.transfer else { return };
        let Some(epoch) = self.epoch.filter(|_| self.part == Part::Leading(Phase::Broadcast)) else { return };
        let last = self.history.last();
        if self.learner(heir).is_some_and(|i| self.learners[i].matched == last) {
            self.transfer.iter_mut().for_each(|transfer| transfer.asked = true);
            // Early: it promises nothing.
            out.send_early(heir, Message::TakeOver { epoch });
        }
    }

    /// With every PING: the question may have been lost.
    pub(super) fn repeat_hand_over(&mut self, out: &mut Effects<Self>) {
        if let Some(transfer) = &mut self.transfer {
            transfer.asked = false;
            self.maybe_hand_over(out);
        }
    }

    /// Whether this is the heir's answer to TAKEOVER.
    pub(super) fn is_heir(&self, from: NodeId, other: &Notification) -> bool {
        self.transfer.is_some_and(|transfer| transfer.asked && transfer.heir == from)
            && other.vote.is_some_and(|vote| vote.id == from)
            && other.round > self.round
    }

    /// Gives up leading for the heir, in the heir's round.
    pub(super) fn abdicate(&mut self, other: Notification, out: &mut Effects<Self>) {
        self.abdicate_to(other.vote.map(|vote| vote.id), other.round, out);
    }

    /// Looks for a leader in `round`, and knows who that shall be.
    pub(super) fn abdicate_to(&mut self, heir: Option<NodeId>, round: u64, out: &mut Effects<Self>) {
        let own = self.own_vote();
        self.leave_part(out);
        self.round = round.min(super::NUMBER_MAX);
        self.vote = heir.map(|id| Vote { id, ..own });
        self.repeat_notifications(out);
    }

    /// Whoever could lead soonest: the reachable voter with the most of the history.
    pub(super) fn best_heir(&self) -> Option<NodeId> {
        let able = self.learners.iter().filter(|learner| self.can_inherit(learner.id));
        // Of equals the one with the lowest id.
        able.max_by_key(|learner| (learner.matched, core::cmp::Reverse(learner.id))).map(|learner| learner.id)
    }

    fn can_inherit(&self, id: NodeId) -> bool {
        id != self.config.id
            && self.membership.current().voters().any(|voter| voter == id)
            && self.is_reachable(id)
    }

    /// Somebody else leads.
    pub(super) fn maybe_end_transfer(&mut self, out: &mut Effects<Self>) {
        let Some(leader) = self.leader_known().filter(|leader| *leader != self.config.id) else { return };
        let Some(Transfer { ticket, heir, any, .. }) = self.transfer.take() else { return };
        if any || leader == heir {
            // Early: it tells what this life has seen.
            out.event_early(LogEvent::Done { ticket });
        } else {
            self.refuse(ticket, Refusal::LeadershipLost, out);
        }
    }

    /// The time is up.
    pub(super) fn check_transfer(&mut self, out: &mut Effects<Self>) {
        if let Some(transfer) = self.transfer.take_if(|transfer| self.now >= transfer.deadline) {
            let why = ChangeRefusal::CannotLead(transfer.heir);
            self.refuse(transfer.ticket, Refusal::Change(why), out);
        }
    }
}

/// At the heir.
impl Zab {
    pub(super) fn on_take_over(&mut self, from: NodeId, epoch: Epoch, out: &mut Effects<Self>) {
        if self.follows(from, epoch) && self.part == Part::Following(Phase::Broadcast) {
            self.become_looking(out);
        }
    }
}
