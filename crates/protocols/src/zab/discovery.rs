//! Discovery (section III.A): a prospective leader gets a new epoch from a quorum, and the newest
//! history among that quorum.

use super::message::Message;
use super::record::{Entry, Zxid};
use super::{NUMBER_MAX, Part, Phase, Zab};
use crate::contract::Effects;
use crate::log::{Epoch, Index, LogAsk, Payload};
use crate::membership::Configuration;
use crate::types::{NodeId, Time};
use crate::wire::Wire;
use alloc::vec::Vec;

/// At the prospective leader.
impl Zab {
    pub(super) fn become_leading(&mut self, out: &mut Effects<Self>) {
        assert!(self.part == Part::Looking, "only who looks for a leader is elected");
        self.part = Part::Leading(Phase::Discovery);
        self.leader = Some(self.config.id);
        self.epoch = None;
        self.promised = false;
        self.fetching = None;
        self.adopted = self.epochs.current;
        self.quorum_deadline = self.now + self.config.timing.election;
        for learner in &mut self.learners {
            learner.reset(self.now);
        }
        self.repeat_notifications(out);
        self.maybe_propose_epoch(out);
    }

    pub(super) fn on_follower_info(
        &mut self,
        from: NodeId,
        accepted: Epoch,
        accepted_from: Option<NodeId>,
        observer: bool,
        out: &mut Effects<Self>,
    ) {
        let (Part::Leading(phase), Some(i)) = (self.part, self.learner(from)) else {
            return self.send_notification(from, out);
        };
        self.learners[i].begin_session(observer, self.now);
        if !observer {
            self.accepted_seen = self.accepted_seen.max(accepted);
        }
        let Some(epoch) = self.epoch else {
            return self.maybe_propose_epoch(out);
        };
        // It promised another leader what this one would ask of it, or more.
        let taken = accepted > epoch || accepted == epoch && accepted_from != Some(self.config.id);
        match phase {
            _ if !taken => out.send(from, Message::LeaderInfo { epoch }),
            _ if observer => {}
            Phase::Discovery => self.propose_epoch(out),
            // It cannot come in under this epoch, so there has to be another.
            Phase::Synchronization | Phase::Broadcast => self.become_looking(out),
        }
    }

    fn maybe_propose_epoch(&mut self, out: &mut Effects<Self>) {
        if self.membership.current().has_quorum(|id| self.is_own_or(id, |learner| learner.following)) {
            self.propose_epoch(out);
        }
    }

    /// Proposes an epoch above everything that a quorum has accepted.
    fn propose_epoch(&mut self, out: &mut Effects<Self>) {
        let epoch = Epoch(self.accepted_seen.max(self.epochs.accepted).0 + 1);
        if epoch.0 > NUMBER_MAX {
            self.ignored += 1;
            return;
        }
        self.epoch = Some(epoch);
        self.promised = false;
        self.fetching = None;
        self.epochs.accepted = epoch;
        self.epochs.accepted_from = Some(self.config.id);
        let own = Message::AckEpoch { epoch, current: self.epochs.current, last: self.history.last_zxid() };
        self.send_to_self(own, out);
        for learner in &mut self.learners {
            learner.promised = None;
            if learner.following {
                // Held until its own promise is durable: else it might crash, forget it and
                // propose the same epoch to another quorum.
                out.send(learner.id, Message::LeaderInfo { epoch });
            }
        }
    }

    pub(super) fn on_own_promise(&mut self, epoch: Epoch, out: &mut Effects<Self>) {
        if self.part == Part::Leading(Phase::Discovery) && self.epoch == Some(epoch) {
            self.promised = true;
            self.maybe_choose_history(out);
        }
    }

    pub(super) fn on_ack_epoch(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        current: Epoch,
        last: Zxid,
        out: &mut Effects<Self>,
    ) {
        let (Part::Leading(phase), Some(i)) = (self.part, self.learner(from)) else { return };
        if self.epoch != Some(epoch) || !self.learners[i].following || current > epoch || last.epoch > epoch {
            self.ignored += 1;
            return;
        }
        self.learners[i].hear(self.now);
        self.learners[i].promised = Some((current, last));
        match phase {
            Phase::Discovery => self.maybe_choose_history(out),
            Phase::Synchronization | Phase::Broadcast => self.begin_sync(i, out),
        }
    }

    /// When a quorum has promised, the newest of their histories is what the epoch begins with: it
    /// holds everything that was ever committed. If it is another's, it is fetched first; so
    /// whoever reaches a quorum can lead, whatever it lacks.
    fn maybe_choose_history(&mut self, out: &mut Effects<Self>) {
        let has_promised = |id| self.is_own_or(id, |learner| learner.promised.is_some());
        let quorum = self.membership.current().has_quorum(has_promised);
        if !self.promised || !quorum || self.fetching.is_some() {
            return;
        }
        let own = (self.adopted, self.history.last_zxid());
        let others = self.learners.iter().filter(|learner| !learner.observer);
        let newest = others.filter_map(|learner| Some((learner.promised?, learner.id))).max();
        match newest {
            Some((newest, id)) if newest > own => {
                self.fetching = Some(id);
                self.send_fetch(newest.1, out);
            }
            // The history that it took says that it is no member any more: another may lead.
            _ if !self.is_participant() => self.become_looking(out),
            _ => self.begin_synchronization(out),
        }
    }

    fn send_fetch(&self, not_above: Zxid, out: &mut Effects<Self>) {
        if let (Some(epoch), Some(id)) = (self.epoch, self.fetching) {
            let after = self.history.last_not_above(not_above);
            // Early: the question promises nothing.
            out.send_early(id, Message::FetchHistory { epoch, after });
        }
    }

    /// Asks again for the history that is being fetched, or forgets it if its owner is silent.
    pub(super) fn repeat_fetch(&mut self, out: &mut Effects<Self>) {
        let Some(i) = self.fetching.and_then(|id| self.learner(id)) else { return };
        let learner = &mut self.learners[i];
        if self.now < learner.heard + self.config.timing.election {
            if let Some((_, last)) = learner.promised {
                self.send_fetch(last, out);
            }
            return;
        }
        learner.promised = None;
        self.fetching = None;
        self.maybe_choose_history(out);
    }

    pub(super) fn on_history_part(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: Zxid,
        entries: Vec<Entry>,
        last: Zxid,
        out: &mut Effects<Self>,
    ) {
        let expected = self.part == Part::Leading(Phase::Discovery)
            && self.epoch == Some(epoch)
            && self.fetching == Some(from);
        let Some(i) = self.learner(from).filter(|_| expected) else { return };
        let Some((current, _)) = self.learners[i].promised else { return };
        self.learners[i].hear(self.now);
        if !is_ascending(after, &entries, last.epoch) || !are_readable(&entries) {
            self.ignored += 1;
            return;
        }
        if !self.history.holds(after) || entries.is_empty() && after != last {
            // The histories agree further back only.
            return self.send_fetch(after, out);
        }
        let end = Index(after.counter.0 + entries.len() as u64);
        let complete = end >= last.counter;
        if !self.take_in(after, entries, complete, out) {
            self.ignored += 1;
            return;
        }
        if complete {
            self.adopted = self.adopted.max(current);
            self.fetching = None;
            self.maybe_choose_history(out);
        } else {
            self.send_fetch(self.history.zxid_at(end).unwrap_or(after), out);
        }
    }

    /// Makes this history agree with one that holds these entries after `after`, which both hold;
    /// `complete`: it ends with them. What goes was never committed: the other's history holds
    /// everything that was. Returns whether that is possible.
    fn take_in(
        &mut self,
        after: Zxid,
        mut entries: Vec<Entry>,
        complete: bool,
        out: &mut Effects<Self>,
    ) -> bool {
        let positions = (after.counter.0 + 1..).map(Index).zip(&entries);
        let held = positions.take_while(|(index, entry)| self.history.epoch_at(*index) == Some(entry.epoch));
        let held = held.count();
        let first = Index(after.counter.0 + 1 + held as u64);
        if (held < entries.len() || complete) && first <= self.history.last() {
            if first <= self.commit {
                return false;
            }
            self.cut(first);
        }
        let new = entries.split_off(held);
        if !new.is_empty() {
            self.append(new, out);
        }
        true
    }

    /// The snapshot of the one whose history is being fetched has been installed.
    pub(super) fn resume_fetch(&mut self, out: &mut Effects<Self>) {
        let learner = self.fetching.and_then(|id| self.learner(id));
        if let Some((_, last)) = learner.and_then(|i| self.learners[i].promised) {
            self.send_fetch(last, out);
        }
    }
}

/// At a follower.
impl Zab {
    pub(super) fn send_follower_info(&mut self, out: &mut Effects<Self>) {
        self.repeat = self.now + self.config.timing.heartbeat;
        let Some(leader) = self.leader else { return };
        let super::Epochs { accepted, accepted_from, .. } = self.epochs;
        let observer = self.has_forgotten();
        out.send(leader, Message::FollowerInfo { accepted, accepted_from, observer });
    }

    pub(super) fn on_leader_info(&mut self, from: NodeId, epoch: Epoch, out: &mut Effects<Self>) {
        let Part::Following(phase) = self.part else { return };
        if self.leader != Some(from) || self.storage_full {
            return;
        }
        let again = epoch == self.epochs.accepted && self.epochs.accepted_from == Some(from);
        if epoch <= self.epochs.accepted && !again {
            if phase == Phase::Discovery {
                self.send_follower_info(out);
            }
            return;
        }
        if !again || phase == Phase::Discovery {
            self.part = Part::Following(Phase::Synchronization);
            self.agreed = false;
            self.fetch_asked = None;
        }
        self.epochs.accepted = epoch;
        self.epochs.accepted_from = Some(from);
        self.be_patient();
        let (current, last) = (self.epochs.current, self.history.last_zxid());
        // Held: it promises to follow no older leader, and that this history is on disk.
        out.send(from, Message::AckEpoch { epoch, current, last });
    }

    pub(super) fn on_fetch_history(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: Zxid,
        out: &mut Effects<Self>,
    ) {
        if !self.follows(from, epoch) {
            return;
        }
        let base = self.history.base();
        let last = self.history.last_zxid();
        let found = self.history.last_not_above(after);
        if found > after {
            // Only the base can be this: the histories agree nowhere after it.
            return out.send(from, Message::Snap { epoch, point: base });
        }
        let (after, entries) = if found != after {
            (found, Vec::new())
        } else if after.counter.next() >= self.history.first_in_memory() {
            let bytes_max = self.config.limits.message_bytes_max;
            (after, self.history.batch(after.counter.next(), last.counter, bytes_max).0)
        } else {
            self.fetch_asked = Some((from, after));
            let to = self.history.first_in_memory().previous();
            let bytes_max = self.config.limits.message_bytes_max;
            if self.catch_up.begin(after.counter.next()) {
                out.ask(LogAsk::Entries { from: after.counter.next(), to, bytes_max });
            }
            return;
        };
        // Held: what it tells of must not be forgotten.
        out.send(from, Message::HistoryPart { epoch, after, entries, last });
    }

    /// The host has read the part of this history that a prospective leader asked for.
    pub(super) fn answer_fetch(&mut self, from: Index, entries: &[Entry], out: &mut Effects<Self>) {
        let Some((leader, after)) = self.fetch_asked.take_if(|(_, after)| after.counter.next() == from)
        else {
            return;
        };
        if self.leader == Some(leader) && self.history.holds(after) {
            let (epoch, last) = (self.epochs.accepted, self.history.last_zxid());
            out.send(leader, Message::HistoryPart { epoch, after, entries: entries.to_vec(), last });
        }
    }
}

/// What both share.
impl Zab {
    pub(super) fn learner(&self, id: NodeId) -> Option<usize> {
        self.learners.binary_search_by_key(&id, |learner| learner.id).ok()
    }

    /// Whether `id` is this member, or a participant of which `holds`.
    pub(super) fn is_own_or(&self, id: NodeId, holds: impl Fn(&super::Learner) -> bool) -> bool {
        id == self.config.id
            || self.learner(id).is_some_and(|i| !self.learners[i].observer && holds(&self.learners[i]))
    }

    /// A leader which has not heard from a quorum for an election timeout steps down: its clients
    /// can then turn to another, and its traffic does not keep followers that could elect one.
    pub(super) fn check_quorum(&mut self, out: &mut Effects<Self>) {
        let heard = |id| match self.learner(id) {
            None => Some(self.now).filter(|_| id == self.config.id),
            Some(i) => Some(self.learners[i].heard).filter(|_| !self.learners[i].observer),
        };
        let heard = self.membership.current().reached(heard).unwrap_or(Time::ZERO);
        self.quorum_deadline = heard + self.config.timing.election;
        if self.now >= self.quorum_deadline {
            self.become_looking(out);
        }
    }

    /// A leader whose disk stalls steps down: its PINGs would keep the others from electing one
    /// whose disk works.
    pub(super) fn check_disk(&mut self, out: &mut Effects<Self>) {
        if self.is_disk_stalled() {
            self.become_looking(out);
        }
    }
}

/// Whether every change of members among these entries can be understood.
pub(super) fn are_readable<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> bool {
    entries.into_iter().all(|entry| match &entry.payload {
        Payload::Membership(bytes) => Configuration::from_bytes(bytes.clone()).is_ok(),
        Payload::Noop | Payload::Command(_) => true,
    })
}

/// Whether these entries can follow on `after` in a history of epochs up to `epoch`.
pub(super) fn is_ascending(after: Zxid, entries: &[Entry], epoch: Epoch) -> bool {
    let mut previous = after.epoch;
    let ascending = entries.iter().all(|entry| core::mem::replace(&mut previous, entry.epoch) <= entry.epoch);
    ascending && previous <= epoch && (after.counter > Index::ZERO || after.epoch == Epoch(0))
}
