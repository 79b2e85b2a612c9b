//! Changes of the members while serving: joint consensus (dissertation, 4.3), learners (4.2.1),
//! and what a leader must see before it begins a change.
//!
//! # Why it is safe
//!
//! Two leaders of one term, or a leader that lacks what was committed, need two quorums without a
//! common member. Whoever leads or is elected goes by the last configuration in its log. A change
//! of voters goes through a joint configuration, whose quorums are majorities of the old *and* of
//! the new voters, so that neighbouring configurations always have intersecting quorums; and the
//! next step begins only when the last one is committed, so that no two configurations which are
//! not neighbours can ever both be the last in the log of someone who may be elected. For that a
//! leader must not begin a change before an entry of its own term is committed: else a change of
//! an earlier leader, of which it does not know, might still become committed (the bug of the
//! single-server changes, raft-dev 2015).
//!
//! A change of learners touches no quorum, and is one entry.
//!
//! # One way for all
//!
//! Changes of one voter could do with one entry (section 4.1). They take the same two as all
//! others, because they are rare, and one rule is easier to get right than two.

use super::record::Term;
use super::{Part, Raft};
use crate::contract::Effects;
use crate::log::{ChangeRefusal, LogEvent, MembershipChange, Payload, Refusal, Ticket};
use crate::membership::{Configuration, Peers, Plan};
use crate::types::NodeId;
use crate::wire::Wire;
use alloc::vec::Vec;

impl Raft {
    pub(super) fn on_change(&mut self, ticket: Ticket, change: MembershipChange, out: &mut Effects<Self>) {
        if self.is_out_of_order() {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leader {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if self.change.is_some() || self.transfer.is_some() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        if !self.own_term_committed() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::NotYet), out);
        }
        if self.is_change_under_way() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        let plan = self.membership.current().plan(change, self.config.limits.members_max, self);
        match plan {
            Plan::Append(next) => {
                self.change = Some(ticket);
                self.append_configuration(&next, out);
            }
            // Early: it tells of what is committed.
            Plan::Nothing => out.event_early(LogEvent::Done { ticket }),
            Plan::Refuse(why) => self.refuse(ticket, Refusal::Change(why), out),
        }
    }

    /// Goes on with a change whose last step is committed: from a joint configuration to the new
    /// one, or from a learner that has caught up to a voter. Whoever leads does so, whether it
    /// was asked for the change or found it in its log.
    pub(super) fn maybe_advance_change(&mut self, out: &mut Effects<Self>) {
        if self.part != Part::Leader || !self.own_term_committed() {
            return;
        }
        let current = self.membership.current();
        if self.membership.current_index() > self.commit {
            return;
        }
        if current.is_joint() {
            let next = current.settled();
            return self.append_configuration(&next, out);
        }
        if let Some(ticket) = self.change.take() {
            // Early: it tells of what is committed.
            out.event_early(LogEvent::Done { ticket });
        }
        if current.part(self.config.id).is_none() {
            return self.leave(out);
        }
        let ready: Vec<NodeId> = current.to_promote().filter(|id| self.is_caught_up(*id)).collect();
        if ready.is_empty() || self.transfer.is_some() {
            return;
        }
        if let Plan::Append(next) = current.plan_voters(current.voters().chain(ready).collect(), self) {
            self.append_configuration(&next, out);
        }
    }

    /// It has led the change that let it go. (Section 4.2.2: until now it was needed, and did not
    /// count itself.) Whoever is best placed goes on at once.
    fn leave(&mut self, out: &mut Effects<Self>) {
        if let Some(heir) = self.best_heir() {
            self.send_timeout_now(heir, out);
        }
        self.become_follower(self.hard.term, None, out);
    }

    /// Leadership is lost; what becomes of the change is for others to say.
    pub(super) fn abandon_change(&mut self, out: &mut Effects<Self>) {
        if let Some(ticket) = self.change.take() {
            // Held, unlike other refusals: the entry may have been recorded in this step.
            out.event(LogEvent::Refused { ticket, why: Refusal::LeadershipLost });
        }
    }

    fn append_configuration(&mut self, next: &Configuration, out: &mut Effects<Self>) {
        self.append_as_leader([Payload::Membership(next.to_bytes())].into_iter(), out);
    }

    /// Whether the configuration in effect is on its way to another, or may be taken back.
    fn is_change_under_way(&self) -> bool {
        self.membership.current().is_joint() || self.membership.current_index() > self.commit
    }

    /// Whether an entry of this term is committed; only then is it certain what else is.
    pub(super) fn own_term_committed(&self) -> bool {
        self.hard.term > Term(0) && self.log.epoch_at(self.commit) == Some(self.hard.term)
    }

    /// The configuration in effect has changed.
    pub(super) fn note_membership(&mut self) {
        self.members_changed = true;
        self.sync_progress();
    }
}

impl Peers for Raft {
    /// It keeps up with the leader's log, and knows that it is a member.
    fn is_caught_up(&self, id: NodeId) -> bool {
        let (now, election) = (self.now, self.config.timing.election);
        self.is_reachable(id)
            && self.peer(id).is_some_and(|peer| {
                peer.pace.keeps_up(now, election) && peer.matched >= self.membership.current_index()
            })
    }

    /// It answered within the last election timeout.
    fn is_reachable(&self, id: NodeId) -> bool {
        let (now, election) = (self.now, self.config.timing.election);
        id == self.config.id || self.peer(id).is_some_and(|peer| peer.answered && now < peer.heard + election)
    }
}
