//! Planned change of leaders (dissertation, 3.10): the leader takes no more commands, waits until
//! its heir has everything, and asks it to campaign at once.
//!
//! It costs no safety, since the heir wins or loses an ordinary election. What differs is that
//! voters do not shield the leader from it: the request for a vote says that the leader asked. Such
//! a request may be late, when the leader has long given up waiting; it is then still good for an
//! election, and that is why a leader which ever asked rests no reads on a lease in that term.

use super::message::Message;
use super::record::Term;
use super::{Part, Raft};
use crate::contract::Effects;
use crate::log::{ChangeRefusal, LogEvent, Refusal, Ticket};
use crate::membership::Peers;
use crate::types::{NodeId, Time};

/// A transfer that was asked of this server and has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    pub(super) ticket: Ticket,
    pub(super) heir: NodeId,
    /// Whether anybody would do.
    pub(super) any: bool,
    /// Whether the heir was asked to campaign.
    pub(super) asked: bool,
    /// When it is given up.
    pub(super) deadline: Time,
}

/// At the leader.
impl Raft {
    pub(super) fn on_transfer(&mut self, ticket: Ticket, to: Option<NodeId>, out: &mut Effects<Self>) {
        if self.part != Part::Leader {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if self.transfer.is_some() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        if to == Some(self.config.id) {
            // Early: it tells what this life knows.
            return out.event_early(LogEvent::Done { ticket });
        }
        let own = self.config.id;
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
                self.void_lease();
                self.maybe_hand_over(out);
            }
        }
    }

    /// Asks the heir to campaign, once it has everything.
    pub(super) fn maybe_hand_over(&mut self, out: &mut Effects<Self>) {
        let Some(Transfer { heir, asked: false, .. }) = self.transfer else { return };
        let has_all = self.peer(heir).is_some_and(|peer| peer.matched == self.log.last());
        if self.part == Part::Leader && has_all {
            self.send_timeout_now(heir, out);
            self.transfer.iter_mut().for_each(|transfer| transfer.asked = true);
        }
    }

    /// With every heartbeat: the question may have been lost.
    pub(super) fn repeat_hand_over(&mut self, out: &mut Effects<Self>) {
        if let Some(transfer) = &mut self.transfer {
            transfer.asked = false;
            self.maybe_hand_over(out);
        }
    }

    pub(super) fn send_timeout_now(&mut self, heir: NodeId, out: &mut Effects<Self>) {
        self.void_lease();
        // Early: it promises nothing.
        out.send_early(heir, Message::TimeoutNow { term: self.hard.term });
    }

    /// Whoever could lead soonest: the reachable voter with the most of the log.
    pub(super) fn best_heir(&self) -> Option<NodeId> {
        let able = self.progress.iter().filter(|peer| self.can_inherit(peer.id));
        // Of equals the one with the lowest id.
        able.max_by_key(|peer| (peer.matched, core::cmp::Reverse(peer.id))).map(|peer| peer.id)
    }

    fn can_inherit(&self, id: NodeId) -> bool {
        id != self.config.id
            && self.membership.current().voters().any(|voter| voter == id)
            && self.is_reachable(id)
    }

    /// Somebody else leads, or nobody does and the time is up.
    pub(super) fn end_transfer(&mut self, out: &mut Effects<Self>) {
        let Some(transfer) = self.transfer.take() else { return };
        let Transfer { ticket, heir, any, .. } = transfer;
        match self.leader {
            // Early: it tells what this life has seen.
            Some(leader) if leader != self.config.id && (any || leader == heir) => {
                out.event_early(LogEvent::Done { ticket });
            }
            Some(leader) if leader != self.config.id => self.refuse(ticket, Refusal::LeadershipLost, out),
            _ => self.refuse(ticket, Refusal::Change(ChangeRefusal::CannotLead(heir)), out),
        }
    }

    pub(super) fn check_transfer(&mut self, out: &mut Effects<Self>) {
        if self.transfer.is_some_and(|transfer| self.now >= transfer.deadline) {
            self.end_transfer(out);
        }
    }
}

/// At the heir.
impl Raft {
    /// No pre-vote: the leader wants it, and its loyal voters would refuse.
    pub(super) fn on_timeout_now(&mut self, from: NodeId, term: Term, out: &mut Effects<Self>) {
        let following = self.part == Part::Follower && self.leader == Some(from) && term == self.hard.term;
        if following && self.may_campaign() && !self.is_disk_stalled() {
            self.become_candidate(true, out);
        }
    }
}
