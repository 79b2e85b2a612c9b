//! Synchronisation and broadcast at the leader (sections III.B and III.C).
//!
//! A learner's history is brought to agree with the leader's (DIFF, TRUNC, SNAP), and from then on
//! it is a part of it: what the learner lacks follows in one stream, in which NEWLEADER has the
//! place between the epoch's first history and the proposals.

use super::discovery::is_ascending;
use super::learner::Sending;
use super::message::Message;
use super::record::{Entry, Zxid};
use super::{Part, Phase, Zab};
use crate::contract::Effects;
use crate::log::{Epoch, Index, LogAsk, Payload};
use crate::types::NodeId;
use alloc::vec;
use alloc::vec::Vec;

/// Sending.
impl Zab {
    /// The epoch's first history is complete: it becomes this leader's, with NEWLEADER at its end.
    pub(super) fn begin_synchronization(&mut self, out: &mut Effects<Self>) {
        assert!(self.part == Part::Leading(Phase::Discovery), "synchronisation follows on discovery");
        let Some(epoch) = self.epoch else { return };
        assert!(epoch == self.epochs.accepted, "a leader leads under the epoch that it promised");
        self.part = Part::Leading(Phase::Synchronization);
        self.start = self.history.last().next();
        self.epochs.current = epoch;
        self.append(vec![Entry { epoch, payload: Payload::Noop }], out);
        for i in 0..self.learners.len() {
            self.begin_sync(i, out);
        }
    }

    /// Leadership is lost.
    pub(super) fn end_leading(&mut self, out: &mut Effects<Self>) {
        self.refuse_reads(out);
        let now = self.now;
        self.learners.iter_mut().for_each(|learner| learner.reset(now));
        self.epoch = None;
        self.fetching = None;
        self.catch_up_wanted = false;
        self.abandon_change(out);
    }

    /// Synchronises a learner that has promised the epoch, and told where its history ends.
    pub(super) fn begin_sync(&mut self, i: usize, out: &mut Effects<Self>) {
        if let Some((_, last)) = self.learners[i].promised {
            self.sync_from(i, last, last, out);
            if let Sending::Probe { last, to } = self.learners[i].sending
                && last == to
            {
                // Its history is a part of this one up to its end: no need to wait for the answer.
                self.learners[i].send_as(Sending::Stream, to.counter.next());
                self.replicate(i, out);
            }
        }
    }

    /// Looks for where a learner's history, which ends with `last` and holds nothing between
    /// `hint` and what was last tried, agrees with this one.
    fn sync_from(&mut self, i: usize, last: Zxid, hint: Zxid, out: &mut Effects<Self>) {
        // The largest zxid that both can hold. When it fits, both hold it, and then everything
        // before it; when it does not, the learner answers with the next hint.
        let to = self.history.last_not_above(hint);
        let learner = &mut self.learners[i];
        if to > hint {
            // Only the base can be this: what the learner lacks is covered by a snapshot.
            learner.send_as(Sending::Snapshot, to.counter.next());
        } else {
            learner.send_as(Sending::Probe { last, to }, to.counter.next());
        }
        self.send_probe(i, out);
    }

    fn send_probe(&mut self, i: usize, out: &mut Effects<Self>) {
        let Some(epoch) = self.epoch else { return };
        let learner = &self.learners[i];
        let message = match learner.sending {
            Sending::Probe { last, to } if last == to => Message::Diff { epoch, after: to },
            Sending::Probe { last, to } => Message::Trunc { epoch, last, to },
            Sending::Snapshot => Message::Snap { epoch, point: self.history.base() },
            Sending::Nothing | Sending::Stream => return,
        };
        // Early, like proposals: it speaks of the history that the epoch began with, which a quorum
        // determined and no later life of this member can determine anew in this epoch.
        out.send_early(learner.id, message);
    }

    pub(super) fn replicate_all(&mut self, out: &mut Effects<Self>) {
        for i in 0..self.learners.len() {
            self.replicate(i, out);
        }
    }

    /// Sends a learner what it lacks, as far as its window allows.
    fn replicate(&mut self, i: usize, out: &mut Effects<Self>) {
        while self.learners[i].sending == Sending::Stream {
            let next = self.learners[i].next;
            if next <= self.history.base().counter {
                self.learners[i].send_as(Sending::Snapshot, next);
                return self.send_probe(i, out);
            }
            if next > self.history.last() {
                return;
            }
            if next < self.history.first_in_memory() {
                self.catch_up_wanted = true;
                return;
            }
            let room = self.learners[i].window.room(&self.config.limits);
            let cost = self.history.get(next).map_or(0, Entry::cost);
            if !self.learners[i].window.takes(cost, room) {
                return;
            }
            let end = if next < self.start { self.start.previous() } else { self.history.last() };
            let (entries, cost) = self.history.batch(next, end, room);
            self.send_entries(i, entries, cost, out);
        }
    }

    /// Sends entries that begin with the learner's `next`.
    fn send_entries(&mut self, i: usize, mut entries: Vec<Entry>, cost: usize, out: &mut Effects<Self>) {
        let Some(epoch) = self.epoch else { return };
        let commit = self.commit;
        let learner = &mut self.learners[i];
        let after = self.history.zxid_at(learner.next.previous());
        let after = after.expect("a leader sends only what follows on its history's base");
        let message = if learner.next == self.start {
            entries.truncate(1);
            learner.note_sent(self.start, cost);
            Message::NewLeader { epoch, after }
        } else {
            let last = Index(after.counter.0 + entries.len() as u64);
            learner.note_sent(last, cost);
            learner.commit_sent = commit;
            Message::Propose { epoch, after, commit, entries }
        };
        // Early, before this member's own disk has the entries: a leader that crashes and forgets
        // them never proposes under this epoch again, because its promise of it was durable before
        // anybody heard of the epoch, and after a crash it needs a larger one from a quorum. It
        // does not count itself before its disk has them.
        out.send_early(learner.id, message);
    }

    /// PINGs, and whatever else a learner may have missed.
    pub(super) fn send_pings(&mut self, out: &mut Effects<Self>) {
        self.repeat = self.now + self.config.timing.heartbeat;
        let Some(epoch) = self.epoch else {
            return self.repeat_notifications(out);
        };
        for i in 0..self.learners.len() {
            let learner = &self.learners[i];
            if learner.following && learner.promised.is_none() {
                out.send(learner.id, Message::LeaderInfo { epoch });
            }
            if learner.promised.is_some() {
                let sent =
                    if learner.sending == Sending::Stream { learner.next.previous() } else { Index::ZERO };
                let ping = Message::Ping { epoch, round: self.reads.latest(), sent, commit: self.commit };
                // Early: that the leader is there promises nothing.
                out.send_early(learner.id, ping);
                self.send_probe(i, out);
            }
        }
        self.repeat_fetch(out);
        self.commit_pinged = self.commit;
        self.repeat_hand_over(out);
        self.maybe_advance_change(out);
    }

    /// A learner that has everything up to the commit index learns of it at once, unless
    /// something else has told it.
    fn maybe_push_commit(&mut self, i: usize, out: &mut Effects<Self>) {
        let (commit, last) = (self.commit, self.history.last());
        let Some(epoch) = self.epoch.filter(|_| self.part == Part::Leading(Phase::Broadcast)) else { return };
        let learner = &mut self.learners[i];
        if learner.sending != Sending::Stream || learner.matched < commit || learner.next <= last {
            return;
        }
        // Early: it speaks of what a quorum's disks hold.
        if !learner.up_to_date {
            learner.up_to_date = true;
            out.send_early(learner.id, Message::UpToDate { epoch, commit });
        } else if learner.commit_sent < commit {
            out.send_early(learner.id, Message::Commit { epoch, commit });
        }
        learner.commit_sent = commit;
    }

    /// Asks the host for entries that a lagging learner lacks and memory no longer holds; the one
    /// that lags most goes first, and others at the same place share the answer.
    pub(super) fn ask_for_catch_up(&mut self, out: &mut Effects<Self>) {
        let limits = self.config.limits;
        let first_in_memory = self.history.first_in_memory();
        let waiting = self.learners.iter().filter(|learner| learner.waits_for_host(&limits, first_in_memory));
        let Some(from) = waiting.map(|learner| learner.next).min() else {
            self.catch_up_wanted = false;
            return;
        };
        if self.catch_up.begin(from) {
            let to = first_in_memory.previous();
            out.ask(LogAsk::Entries { from, to, bytes_max: limits.message_bytes_max });
        }
    }

    /// Sends entries that the host has read back to the learners that wait for them.
    pub(super) fn send_from_host(&mut self, from: Index, entries: &[Entry], out: &mut Effects<Self>) {
        let limits = self.config.limits;
        let mut bytes = 0;
        let start = self.start;
        let fits = |(index, entry): &(Index, &Entry)| {
            bytes += entry.cost();
            bytes <= limits.message_bytes_max && (from >= start || *index < start)
        };
        let count = (from.0..).map(Index).zip(entries).take_while(fits).count().max(1);
        let entries = &entries[..if from == start { 1 } else { count }];
        let cost = entries.iter().map(Entry::cost).sum();
        for i in 0..self.learners.len() {
            let learner = &self.learners[i];
            // The history may have been cut there while they were read.
            let there = from > self.history.base().counter && learner.next == from;
            if there && learner.waits_for_host(&limits, self.history.first_in_memory()) {
                self.send_entries(i, entries.to_vec(), cost, out);
                self.replicate(i, out);
            }
        }
    }
}

/// Answers.
impl Zab {
    /// The learner, if this is the matter of this leader's epoch.
    fn learner_in(&mut self, from: NodeId, epoch: Epoch) -> Option<usize> {
        let leads = matches!(self.part, Part::Leading(_)) && self.epoch == Some(epoch);
        let i = self.learner(from).filter(|i| leads && self.learners[*i].promised.is_some())?;
        self.learners[i].hear(self.now);
        Some(i)
    }

    pub(super) fn on_ack(&mut self, from: NodeId, epoch: Epoch, index: Index, out: &mut Effects<Self>) {
        if let Some(i) = self.learner_in(from, epoch) {
            self.acknowledged(i, index, out);
        }
    }

    fn acknowledged(&mut self, i: usize, index: Index, out: &mut Effects<Self>) {
        if index > self.history.last() || matches!(self.part, Part::Leading(Phase::Discovery)) {
            self.ignored += 1;
            return;
        }
        if self.learners[i].acknowledge(index) && index > self.commit {
            self.maybe_commit(out);
        }
        self.replicate(i, out);
        self.maybe_push_commit(i, out);
        self.maybe_hand_over(out);
    }

    pub(super) fn on_pong(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        round: u64,
        index: Index,
        out: &mut Effects<Self>,
    ) {
        let Some(i) = self.learner_in(from, epoch) else { return };
        if round > self.reads.latest() {
            self.ignored += 1;
            return;
        }
        self.learners[i].round = self.learners[i].round.max(round);
        if index > Index::ZERO {
            self.acknowledged(i, index, out);
        }
        self.maybe_confirm_round(out);
    }

    /// Something was lost on the way to the learner, or a TRUNC did not fit.
    pub(super) fn on_resync(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        last: Zxid,
        hint: Zxid,
        out: &mut Effects<Self>,
    ) {
        let Some(i) = self.learner_in(from, epoch) else { return };
        let learner = &self.learners[i];
        if hint > last || !is_ascending(last, &[], epoch) || self.part == Part::Leading(Phase::Discovery) {
            self.ignored += 1;
            return;
        }
        // Of two equal complaints, one is enough; and what its disk holds it cannot lack.
        let answered = matches!(learner.sending, Sending::Probe { last: tried, to }
            if tried == last && to <= hint && to == self.history.last_not_above(hint));
        if answered || self.history.holds(last) && last.counter < learner.matched {
            return;
        }
        self.learners[i].promised = Some((learner.promised.map_or(Epoch(0), |(current, _)| current), last));
        self.sync_from(i, last, hint, out);
    }

    /// Commits what a quorum's disks hold, once that includes NEWLEADER: with that the epoch is
    /// established, and its first history committed.
    pub(super) fn maybe_commit(&mut self, out: &mut Effects<Self>) {
        let matched = |id| match self.learner(id) {
            None => Some(self.stored).filter(|_| id == self.config.id),
            Some(i) => Some(self.learners[i].matched).filter(|_| !self.learners[i].observer),
        };
        let Some(index) = self.membership.current().reached(matched) else { return };
        if index <= self.commit || index < self.start {
            return;
        }
        if self.part == Part::Leading(Phase::Synchronization) {
            self.part = Part::Leading(Phase::Broadcast);
        }
        self.commit_to(index);
        for i in 0..self.learners.len() {
            self.maybe_push_commit(i, out);
        }
        self.maybe_begin_round(out);
        self.maybe_advance_change(out);
    }

    /// A new connection: what was in flight may be lost, so the learner is synchronised anew,
    /// from what its disk is known to hold.
    pub(super) fn restart_learner(&mut self, peer: NodeId, out: &mut Effects<Self>) {
        let Some(i) = self.learner(peer) else { return };
        if self.learners[i].promised.is_some() {
            self.suspend_learner(peer);
            self.send_probe(i, out);
        } else {
            self.send_notification(peer, out);
        }
    }

    /// A connection is lost: nothing but a DIFF a heartbeat before the learner answers again.
    pub(super) fn suspend_learner(&mut self, peer: NodeId) {
        let Some(i) = self.learner(peer) else { return };
        let learner = &mut self.learners[i];
        learner.answered = false;
        if learner.sending == Sending::Stream {
            let matched = self.history.zxid_at(learner.matched).unwrap_or(self.history.base());
            learner.send_as(Sending::Probe { last: matched, to: matched }, matched.counter.next());
        }
    }
}
