//! Changes of the members while serving (section 7): what a primary must see before it begins one.
//!
//! A change of the replicas is the last command of its epoch: the primary gives it an op-number like
//! any other, and takes nothing more. It is committed when a quorum of the replicas hold it, *and* a
//! quorum of those of the next epoch: so the new ones have caught up before the old ones stop. (In
//! the paper they do so afterwards.) The epoch that it begins is for `epoch.rs`.
//!
//! A change of the learners touches no quorum: it is a command among others, and its epoch goes on.

use super::configuration::Configuration;
use super::progress::Progress;
use super::{Index, Standing, Viewstamped};
use crate::contract::Effects;
use crate::log::{ChangeRefusal, LogEvent, MembershipChange, Payload, Refusal, Ticket};
use crate::membership::{Peers, Plan};
use crate::types::NodeId;
use crate::wire::Wire;
use alloc::vec::Vec;

impl Viewstamped {
    pub(super) fn on_change(&mut self, ticket: Ticket, change: MembershipChange, out: &mut Effects<Self>) {
        if self.standing == Standing::Abstaining || self.storage_full {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if !self.is_primary() {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if self.change.is_some() || self.transfer.is_some() || self.epochs.is_changing() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        if self.commit < self.start {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::NotYet), out);
        }
        let members = self.epochs.current.members();
        match members.plan(change, self.config.limits.members_max, self) {
            Plan::Append(planned) => {
                let next = self.epochs.current.followed_by(&planned);
                self.change = Some(ticket);
                self.prepare_configuration(&next, out);
            }
            // Early: it tells what is so.
            Plan::Nothing => out.event_early(LogEvent::Done { ticket }),
            Plan::Refuse(why) => self.refuse(ticket, Refusal::Change(why), out),
        }
    }

    /// Learners that have caught up and were added to vote become replicas, all at once.
    pub(super) fn maybe_promote(&mut self, out: &mut Effects<Self>) {
        let idle = self.change.is_none() && self.transfer.is_none() && !self.epochs.is_changing();
        if !self.is_primary() || !idle || self.storage_full || self.commit < self.start {
            return;
        }
        let members = self.epochs.current.members();
        let ready: Vec<NodeId> = members.to_promote().filter(|id| self.is_caught_up(*id)).collect();
        if ready.is_empty() {
            return;
        }
        if let Plan::Append(planned) = members.plan_voters(members.voters().chain(ready).collect(), self) {
            let next = self.epochs.current.followed_by(&planned);
            self.prepare_configuration(&next, out);
        }
    }

    fn prepare_configuration(&mut self, next: &Configuration, out: &mut Effects<Self>) {
        self.prepare([Payload::Membership(next.to_bytes())].into_iter(), out);
    }

    /// Tells whoever asked for a change when it is complete: the members are others, and somebody
    /// leads them, as far as this replica can still know that.
    pub(super) fn maybe_finish_change(&mut self, out: &mut Effects<Self>) {
        let is_let_go = !self.epochs.current.is_replica(self.config.id);
        if !self.epochs.is_changing()
            && (is_let_go || self.leader.is_some())
            && let Some(ticket) = self.change.take()
        {
            // Early: it speaks of what quorums' disks hold.
            out.event_early(LogEvent::Done { ticket });
        }
    }

    /// The view is over and the change not committed. It may still happen.
    pub(super) fn abandon_change(&mut self, out: &mut Effects<Self>) {
        if self.epochs.is_changing()
            && let Some(ticket) = self.change.take()
        {
            // Held, unlike other refusals: the entry may have been recorded in this step.
            out.event(LogEvent::Refused { ticket, why: Refusal::LeadershipLost });
        }
    }

    /// The largest value which a quorum of these has reached, if this replica has reached `own`.
    pub(super) fn reached<T: Ord + Copy>(
        &self,
        configuration: &Configuration,
        own: T,
        value: impl Fn(&Progress) -> T,
    ) -> Option<T> {
        configuration.reached(|id| match id == self.config.id {
            true => Some(own),
            false => self.progress.iter().find(|peer| peer.id == id).map(&value),
        })
    }
}

impl Peers for Viewstamped {
    /// It has acknowledged something in this view, and answered within an election timeout.
    fn is_reachable(&self, id: NodeId) -> bool {
        let election = self.config.timing.election;
        let answers =
            |peer: &Progress| peer.answered && peer.matched > Index::ZERO && self.now < peer.heard + election;
        id == self.config.id || self.progress.iter().any(|peer| peer.id == id && answers(peer))
    }

    /// It has everything that was committed when it was last asked.
    fn is_caught_up(&self, id: NodeId) -> bool {
        let has = |peer: &Progress| peer.id == id && peer.matched >= self.commit_asked;
        self.is_reachable(id) && self.progress.iter().any(has)
    }
}
