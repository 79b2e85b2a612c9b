//! Changes of the members while serving.
//!
//! As in ZooKeeper 3.5 (Shraer, Reed, Malkhi and Junqueira, USENIX ATC'12) the change is a proposal
//! which needs a quorum of the old *and* of the new members. It is in effect from its place in the
//! history on, committed or not, as a joint configuration. ZooKeeper then activates the new one
//! with the COMMIT; here a second proposal does that, so that the history alone says who counts,
//! also to a member that was not there to hear the COMMIT.
//!
//! # Why it is safe
//!
//! Neighbouring configurations have intersecting quorums, and a change begins only when the last
//! one is complete and committed. A prospective leader goes by the last configuration in the
//! newest history of its quorum, not in its own: where taking that history shows it another
//! configuration, it needs the promises of a quorum of that one too before it goes on. So it meets
//! somebody who holds the next change, if one was committed, and the one after that, and so on.
//!
//! A change of observers touches no quorum, and is one proposal.

use super::record::Entry;
use super::{Learner, Part, Phase, Zab};
use crate::contract::Effects;
use crate::log::{ChangeRefusal, Index, LogEvent, MembershipChange, Payload, Refusal, Ticket};
use crate::membership::{Configuration, Peers, Plan};
use crate::types::NodeId;
use crate::wire::Wire;
use alloc::vec;
use alloc::vec::Vec;

impl Zab {
    pub(super) fn on_change(&mut self, ticket: Ticket, change: MembershipChange, out: &mut Effects<Self>) {
        if self.epochs.uncertain || self.storage_full {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leading(Phase::Broadcast) {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader_known() }, out);
        }
        let current = self.membership.current();
        let under_way = current.is_joint() || self.membership.current_index() > self.commit;
        if self.change.is_some() || self.transfer.is_some() || under_way {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        let plan = self.membership.current().plan(change, self.config.limits.members_max, self);
        match plan {
            Plan::Append(next) => {
                self.change = Some(ticket);
                self.propose_configuration(&next, out);
            }
            // Early: it tells what is so.
            Plan::Nothing => out.event_early(LogEvent::Done { ticket }),
            Plan::Refuse(why) => self.refuse(ticket, Refusal::Change(why), out),
        }
    }

    /// Takes the next step of a change when the last one is committed.
    pub(super) fn maybe_advance_change(&mut self, out: &mut Effects<Self>) {
        let current = self.membership.current();
        let idle = self.part != Part::Leading(Phase::Broadcast);
        if idle || self.membership.current_index() > self.commit {
            return;
        }
        if current.is_joint() {
            let next = current.settled();
            return self.propose_configuration(&next, out);
        }
        if let Some(ticket) = self.change.take() {
            // Early: it speaks of what a quorum's disks hold.
            out.event_early(LogEvent::Done { ticket });
        }
        let current = self.membership.current();
        if current.part(self.config.id).is_none() {
            // Its last act was to commit that it is no member.
            let heir = self.best_heir();
            return self.abdicate_to(heir, self.round + 1, out);
        }
        let ready: Vec<NodeId> = current.to_promote().filter(|id| self.is_caught_up(*id)).collect();
        if ready.is_empty() || self.transfer.is_some() || self.storage_full {
            return;
        }
        if let Plan::Append(next) = current.plan_voters(current.voters().chain(ready).collect(), self) {
            self.propose_configuration(&next, out);
        }
    }

    fn propose_configuration(&mut self, next: &Configuration, out: &mut Effects<Self>) {
        let payload = Payload::Membership(next.to_bytes());
        self.append(vec![Entry { epoch: self.epochs.accepted, payload }], out);
        self.replicate_all(out);
    }

    /// Leadership is lost. The change may still happen.
    pub(super) fn abandon_change(&mut self, out: &mut Effects<Self>) {
        if let Some(ticket) = self.change.take() {
            self.refuse(ticket, Refusal::LeadershipLost, out);
        }
    }
}

/// The configuration in effect.
impl Zab {
    /// Whether it counts in quorums and may lead.
    pub(super) fn is_participant(&self) -> bool {
        !self.epochs.uncertain && !self.has_forgotten() && self.membership.current().is_voter(self.config.id)
    }

    /// Whether it may have promised or acknowledged, under its id, what its disk does not say: records are
    /// lost, or the disk is that of a joining member, but the id is a founder's.
    pub(super) fn has_forgotten(&self) -> bool {
        let forgotten = self.epochs.joined && self.config.members.contains(&self.config.id);
        self.epochs.uncertain || self.epochs.repairing || forgotten
    }

    /// Takes note of an entry that has come to stand at `index`.
    pub(super) fn note_membership(&mut self, entry: &Entry, index: Index) {
        if let Payload::Membership(bytes) = &entry.payload
            && let Ok(configuration) = Configuration::from_bytes(bytes.clone())
        {
            self.membership.push(index, configuration);
            self.members_changed = true;
        }
    }

    /// Gets to know whoever is a member now, forgets whoever is none any more, and tells the host.
    pub(super) fn sync_learners(&mut self, out: &mut Effects<Self>) {
        self.members_changed = false;
        let own = self.config.id;
        let everybody: Vec<NodeId> =
            self.membership.everybody().into_iter().filter(|id| *id != own).collect();
        self.learners.retain(|learner| everybody.contains(&learner.id));
        for id in everybody {
            if let Err(i) = self.learners.binary_search_by_key(&id, |learner| learner.id) {
                let mut learner = Learner::new(id);
                learner.reset(self.now);
                self.learners.insert(i, learner);
                if let Part::Leading(_) = self.part {
                    self.send_notification(id, out);
                }
            }
        }
        // Early: it tells what this life knows, and may be taken back.
        out.event_early(LogEvent::Members { members: self.membership.current().members().to_vec() });
    }
}

impl Peers for Zab {
    /// It follows and has answered within an election timeout.
    fn is_reachable(&self, id: NodeId) -> bool {
        let election = self.config.timing.election;
        let answers = |i: usize| {
            let learner = &self.learners[i];
            let is_heard = learner.answered && self.now < learner.heard + election;
            is_heard && learner.promised.is_some() && !learner.observer
        };
        id == self.config.id || self.learner(id).is_some_and(answers)
    }

    /// It has everything that was committed when it was last asked.
    fn is_caught_up(&self, id: NodeId) -> bool {
        let least = self.commit_pinged.max(self.membership.current_index());
        self.is_reachable(id) && self.learner(id).is_some_and(|i| self.learners[i].matched >= least)
    }
}
