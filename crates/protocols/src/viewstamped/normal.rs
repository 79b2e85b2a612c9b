//! Normal operation (section 4.1): Prepare, PrepareOk, Commit.

use super::lease::LeaseState;
use super::message::{Message, NewState, Suffix};
use super::progress::{Progress, Sending};
use super::record::{Entry, ViewNumber};
use super::state_transfer::Taken;
use super::{OpNumber, Standing, Status, Viewstamped};
use crate::contract::Effects;
use crate::epoch_log::LogEntry;
use crate::log::{Index, Payload};
use crate::types::{NodeId, Time};
use alloc::vec::Vec;

/// At the primary: sending.
impl Viewstamped {
    /// Starts the view whose primary it is with the log that it has, and an entry that marks where
    /// the view begins. `commit` is the largest commit-number of those who follow.
    pub(super) fn become_primary(&mut self, commit: OpNumber, out: &mut Effects<Self>) {
        assert!(self.status == Status::ViewChange, "a view is started once");
        self.status = Status::Normal;
        self.views.last_normal = self.views.view;
        self.leader = Some(self.config.id);
        self.leader_contact = None;
        self.attempts = 0;
        self.commit_to(commit.min(self.log.last()).max(self.commit));
        if self.ending().is_some() {
            // Nothing follows the last of an epoch: the view is there to have it committed.
            self.start = self.log.last();
            self.tell_self(out);
        } else {
            self.start = self.log.last().next();
            self.append([Entry { view: self.views.view, payload: Payload::Noop }].into(), out);
        }
        self.lease = LeaseState::default();
        self.quorum_deadline = self.now + self.config.timing.election;
        self.heartbeat_deadline = self.now + self.config.timing.heartbeat;
        let (after, entries) = self.log.suffix(self.commit.next(), self.config.limits.message_bytes_max);
        for i in 0..self.progress.len() {
            self.progress[i].reset(self.now);
            let state = self.new_state(after, entries.clone());
            let peer = &mut self.progress[i];
            peer.rewind(self.log.last().next(), Sending::Waiting);
            // Early, like Prepare.
            out.send_early(peer.id, Message::StartView(state));
        }
    }

    /// Its view is over.
    pub(super) fn end_primary(&mut self, out: &mut Effects<Self>) {
        self.refuse_reads(out);
        self.abandon_change(out);
        for peer in &mut self.progress {
            peer.reset(Time::ZERO);
        }
    }

    /// Gives the operations their op-numbers and sends them out.
    pub(super) fn prepare(&mut self, payloads: impl Iterator<Item = Payload>, out: &mut Effects<Self>) {
        let view = self.views.view;
        self.append(payloads.map(|payload| Entry { view, payload }).collect(), out);
        for i in 0..self.progress.len() {
            self.replicate(i, out);
        }
    }

    /// Sends a peer what it lacks, as far as its window allows.
    fn replicate(&mut self, i: usize, out: &mut Effects<Self>) {
        loop {
            let peer = &self.progress[i];
            let next = peer.next;
            if peer.sending != Sending::Pipeline
                || next > self.log.last()
                || next < self.log.first_in_memory()
            {
                return;
            }
            let room = peer.window.room(&self.config.limits);
            let cost = self.log.get(next).map_or(0, Entry::cost);
            if !peer.window.takes(cost, room) {
                return;
            }
            let (entries, cost) = self.log.batch(next, room);
            self.send_prepare(i, entries, cost, out);
        }
    }

    fn send_prepare(&mut self, i: usize, entries: Vec<Entry>, cost: usize, out: &mut Effects<Self>) {
        let after = self.progress[i].next.previous();
        let suffix = self.suffix(after, entries);
        let peer = &mut self.progress[i];
        peer.sent(suffix.last(), cost);
        peer.commit_sent = self.commit;
        let (view, commit, round) = (self.views.view, self.commit, self.reads.latest());
        // Early, before this replica's own disk has the entries: nothing else is ever proposed at
        // these positions in this view. Its number was on this disk before the view was started, so
        // that a primary which crashes and forgets the entries starts only later views.
        out.send_early(peer.id, Message::Prepare { view, commit, round, suffix });
    }

    /// Tells every peer that it is there, what is committed, and what it should have: who lacks
    /// something asks for it, who does not confirms the view.
    pub(super) fn send_commits(&mut self, out: &mut Effects<Self>) {
        self.heartbeat_deadline = self.now + self.config.timing.heartbeat;
        self.commit_asked = self.commit;
        self.begin_lease_round();
        for i in 0..self.progress.len() {
            self.send_commit(i, true, out);
        }
    }

    fn send_commit(&mut self, i: usize, reply: bool, out: &mut Effects<Self>) {
        let op = self.progress[i].next.previous();
        let op_view = self.log.epoch_at(op).expect("what was sent is in the log");
        let (view, commit, round) = (self.views.view, self.commit, self.reads.latest());
        self.progress[i].commit_sent = commit;
        // Early: it speaks of a quorum's disks and, like Prepare, of the view's only log.
        let message = Message::Commit { view, op, op_view, commit, round, reply };
        out.send_early(self.progress[i].id, message);
    }

    /// A peer that has everything up to the commit-number learns of it at once, unless something
    /// else has told it.
    fn maybe_push_commit(&mut self, i: usize, out: &mut Effects<Self>) {
        let peer = &self.progress[i];
        if peer.sending == Sending::Pipeline
            && peer.commit_sent < self.commit
            && peer.matched >= self.commit
            && peer.next > self.log.last()
        {
            self.send_commit(i, false, out);
        }
    }

    /// Sends entries that the host has read back to the peers that wait for them.
    pub(super) fn send_from_host(&mut self, from: OpNumber, entries: &[Entry], out: &mut Effects<Self>) {
        let limits = self.config.limits;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.cost();
            bytes <= limits.message_bytes_max
        };
        let count = entries.iter().take_while(fits).count().max(1);
        let entries = &entries[..count];
        let cost = entries.iter().map(Entry::cost).sum();
        for i in 0..self.progress.len() {
            let peer = &self.progress[i];
            if peer.next != from || !peer.waits_for_host(&limits, self.log.first_in_memory()) {
                continue;
            }
            if peer.sending == Sending::State {
                self.send_state(i, entries.to_vec(), out);
            } else if self.is_primary() {
                self.send_prepare(i, entries.to_vec(), cost, out);
                self.replicate(i, out);
            }
        }
    }

    pub(super) fn suffix(&self, after: OpNumber, entries: Vec<Entry>) -> Suffix {
        let after_view = self.log.epoch_at(after).expect("a suffix follows on the log's base");
        Suffix { after, after_view, entries }
    }

    pub(super) fn new_state(&self, after: OpNumber, entries: Vec<Entry>) -> NewState {
        NewState {
            view: self.views.view,
            start: self.start,
            commit: self.commit,
            round: self.reads.latest(),
            suffix: self.suffix(after, entries),
        }
    }
}

/// At the primary: answers.
impl Viewstamped {
    pub(super) fn on_prepare_ok(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        op: OpNumber,
        round: u64,
        out: &mut Effects<Self>,
    ) {
        if !self.is_primary() || view != self.views.view {
            return;
        }
        if op > self.log.last() || op < self.start || !self.note_heard(from, round) {
            self.ignored += 1;
            return;
        }
        let Some(i) = self.peer(from) else { return };
        let news = self.progress[i].acknowledge(op);
        self.maybe_offer_checkpoint(i, out);
        if news && op > self.commit {
            self.maybe_commit(out);
        }
        self.maybe_confirm_round(out);
        self.maybe_renew_lease();
        self.replicate(i, out);
        self.maybe_push_commit(i, out);
    }

    pub(super) fn peer(&self, id: NodeId) -> Option<usize> {
        self.progress.iter().position(|peer| peer.id == id)
    }

    /// A peer has answered in this view. Returns false if it answers what was never asked.
    pub(super) fn note_heard(&mut self, from: NodeId, round: u64) -> bool {
        let (now, latest) = (self.now, self.reads.latest());
        match self.progress.iter_mut().find(|peer| peer.id == from) {
            Some(peer) if round <= latest => {
                peer.heard = now;
                peer.answered = true;
                peer.round = peer.round.max(round);
                true
            }
            _ => false,
        }
    }

    /// Commits what a quorum's disks hold. Unlike in Raft an entry of an earlier view counts as any
    /// other: whoever acknowledged it was normal in this view, and has recorded that.
    pub(super) fn maybe_commit(&mut self, out: &mut Effects<Self>) {
        let own = if self.stored >= self.start { self.stored } else { Index::ZERO };
        let matched = |peer: &Progress| peer.matched;
        let Some(mut op) = self.reached(&self.epochs.current, own, matched) else { return };
        if let Some(next) = self.ending()
            && op == self.log.last()
        {
            // The last of an epoch: a quorum of the next one's replicas hold it, too.
            let new = self.reached(next, own, matched).unwrap_or(Index::ZERO);
            op = if new < op { op.previous() } else { op };
        }
        if op <= self.commit {
            return;
        }
        self.commit_to(op);
        for i in 0..self.progress.len() {
            self.maybe_push_commit(i, out);
        }
        self.maybe_begin_round(out);
    }

    /// A primary which has not heard from a quorum for an election timeout gives up its view: its
    /// clients can then turn to another, and its traffic does not keep backups loyal to a primary
    /// that cannot commit.
    pub(super) fn check_quorum(&mut self, out: &mut Effects<Self>) {
        let heard = self.reached(&self.epochs.current, self.now, |peer| peer.heard).unwrap_or(Time::ZERO);
        self.quorum_deadline = heard + self.config.timing.election;
        if self.now >= self.quorum_deadline {
            self.give_up_view(out);
        }
    }

    /// What was in flight may be lost: the peer says what it has.
    pub(super) fn on_link_up(&mut self, peer: NodeId, out: &mut Effects<Self>) {
        let Some(i) = self.peer(peer) else { return };
        if self.is_primary() {
            self.progress[i].rewind(self.log.last().next(), Sending::Waiting);
            self.send_commit(i, true, out);
        }
    }

    /// Nothing is sent to the peer but Commits before it answers again.
    pub(super) fn on_link_down(&mut self, peer: NodeId) {
        let Some(i) = self.peer(peer) else { return };
        if self.is_primary() {
            self.progress[i].rewind(self.log.last().next(), Sending::Waiting);
            self.progress[i].answered = false;
        } else if self.leader == Some(peer) && self.config.lease.is_none() {
            self.hasten_view_change();
        }
    }
}

/// At a backup.
impl Viewstamped {
    /// Prepare, and Commit, which is one without entries.
    #[allow(clippy::too_many_arguments)] // They are the message's.
    pub(super) fn on_prepare(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        commit: OpNumber,
        round: u64,
        suffix: Suffix,
        reply: bool,
        out: &mut Effects<Self>,
    ) {
        if self.storage_full && !suffix.entries.is_empty() || !self.hear_primary(from, view, out) {
            return;
        }
        if self.status == Status::Normal {
            return self.follow(suffix, commit, round, reply, out);
        }
        // What the view started with comes first.
        let hint = self.log.last_not_above(suffix.after, suffix.after_view);
        self.ask_for_state(from, hint, round, out);
    }

    /// Makes the log agree with the primary's up to the end of the suffix, and answers.
    pub(super) fn follow(
        &mut self,
        suffix: Suffix,
        commit: OpNumber,
        round: u64,
        reply: bool,
        out: &mut Effects<Self>,
    ) {
        assert!(self.status == Status::Normal, "only a normal replica acknowledges");
        let Some(primary) = self.leader else { return };
        match self.take(suffix, out) {
            Taken::Matched(op) => {
                self.commit_to(commit.min(op).max(self.commit));
                if reply && self.standing != Standing::Abstaining && !self.has_forgotten() {
                    // Its whole log is a beginning of the primary's. Held: it acknowledges what this
                    // step and earlier ones have appended, and that it was normal in the view.
                    let (view, op) = (self.views.view, self.log.last());
                    out.send(primary, Message::PrepareOk { view, op, round });
                }
            }
            Taken::Gap(hint) => {
                // A normal replica's log is a beginning of its view's.
                self.commit_to(commit.min(self.log.last()).max(self.commit));
                self.ask_for_state(primary, hint, round, out);
            }
            Taken::Impossible => self.ignored += 1,
        }
    }
}
