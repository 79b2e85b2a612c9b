//! State transfer (sections 5.1 and 5.2): asking for what one lacks, and taking it in.
//!
//! Two ask: a backup that lacks something of its view's log, and the primary of a view to be that
//! lacks something of the best log which the DoViewChanges named. Neither cuts off anything before
//! what replaces it is there, and neither is normal in the view before its log is complete.

use super::configuration::Epochs;
use super::message::{Message, NewState, Suffix};
use super::progress::Sending;
use super::record::{Entry, Log, ViewNumber};
use super::view_change::Campaign;
use super::{OpNumber, Standing, Status, VIEW_MAX, Viewstamped};
use crate::contract::Effects;
use crate::host_read::HostRead;
use crate::log::{Index, LogAsk, SnapshotPoint};
use crate::types::{NodeId, Time};
use alloc::vec::Vec;

/// What became of entries that were taken in.
pub(super) enum Taken {
    /// The log now agrees with the sender's up to here.
    Matched(OpNumber),
    /// It lacks what comes before the entries. The logs may agree up to this position, where this
    /// one's entry is of this view.
    Gap((OpNumber, ViewNumber)),
    /// No honest sender says this.
    Impossible,
}

/// At the one that asks.
impl Viewstamped {
    /// Asks for what follows on `hint`, unless an answer is on its way.
    pub(super) fn ask_for_state(
        &mut self,
        of: NodeId,
        hint: (OpNumber, ViewNumber),
        round: u64,
        out: &mut Effects<Self>,
    ) {
        self.ask_for_state_of(of, self.views.view, hint, round, out);
    }

    /// The same of another view: 0 for what an epoch begins with.
    pub(super) fn ask_for_state_of(
        &mut self,
        of: NodeId,
        view: ViewNumber,
        hint: (OpNumber, ViewNumber),
        round: u64,
        out: &mut Effects<Self>,
    ) {
        if self.state_asked.is_some_and(|asked| self.now < asked + self.config.timing.heartbeat) {
            return;
        }
        self.state_asked = Some(self.now);
        let (op, op_view) = hint;
        // Early: the question promises nothing, and that this replica is in the view stays true of
        // the time when it was asked.
        out.send_early(of, Message::GetState { view, op, op_view, round });
    }

    /// StartView and NewState.
    pub(super) fn on_new_state(&mut self, from: NodeId, state: NewState, out: &mut Effects<Self>) {
        if self.storage_full && !state.suffix.entries.is_empty() {
            return;
        }
        if matches!(self.campaign, Campaign::Fetching { best, .. } if best == from)
            && state.view == self.views.view
        {
            return self.on_state_of_best(from, state.suffix, out);
        }
        let NewState { view, start, commit, round, suffix } = state;
        if start == Index::ZERO || !self.hear_primary(from, view, out) {
            return;
        }
        self.state_asked = None;
        if self.status == Status::Normal {
            return self.follow(suffix, commit, round, true, out);
        }
        let (after, after_view) = (suffix.last(), suffix.last_view());
        let nothing = suffix.entries.is_empty();
        match self.take(suffix, out) {
            Taken::Matched(op) => {
                self.commit_to(commit.min(op).max(self.commit));
                if op < start && nothing {
                    return; // A primary has what its view started with.
                }
                if op < start {
                    return self.ask_for_state(from, (after, after_view), round, out);
                }
                let ends = self.ending().is_some() && self.log.last() == start;
                let first = self.log.epoch_at(start);
                if !ends && (self.log.last_epoch() != view || first.is_some_and(|found| found != view)) {
                    // The view's first entry is not where its primary says it is.
                    self.ignored += 1;
                    return;
                }
                self.become_normal(out);
                let end = Suffix { after, after_view, entries: Vec::new() };
                self.follow(end, commit, round, true, out);
            }
            Taken::Gap(hint) => self.ask_for_state(from, hint, round, out),
            Taken::Impossible => self.ignored += 1,
        }
    }

    /// The log holds what the view started with. (Everything in it is of the view's log: the view's
    /// first entry is there, and nothing of an earlier view can follow on it; or it ends with the last
    /// command of its epoch, and nothing at all can.)
    fn become_normal(&mut self, out: &mut Effects<Self>) {
        assert!(
            self.log.last_epoch() == self.views.view || self.ending().is_some(),
            "who is normal holds the view's first entry"
        );
        self.status = Status::Normal;
        self.views.last_normal = self.views.view;
        self.tell_self(out);
    }

    /// The primary of a view to be takes over the best log, in parts.
    fn on_state_of_best(&mut self, from: NodeId, suffix: Suffix, out: &mut Effects<Self>) {
        if suffix.last_view() >= self.views.view {
            self.ignored += 1;
            return;
        }
        if suffix.entries.is_empty() {
            // It has lost what it said it had. Without progress somebody else's turn comes.
            return;
        }
        self.state_asked = None;
        self.restart_wait();
        match self.take(suffix, out) {
            Taken::Matched(_) => self.maybe_start_view(out),
            Taken::Gap(hint) => self.ask_for_state(from, hint, 0, out),
            Taken::Impossible => self.ignored += 1,
        }
    }

    /// Makes the log agree with the sender's up to the end of the suffix, if it agrees before it.
    pub(super) fn take(&mut self, suffix: Suffix, out: &mut Effects<Self>) -> Taken {
        let last = suffix.last();
        let Suffix { after, after_view, mut entries } = suffix;
        let base = self.log.base();
        if after >= base && self.log.epoch_at(after) != Some(after_view) {
            let hint = self.log.last_not_above(after.previous(), after_view);
            // Only the base can be this: nobody differs from what a checkpoint covers.
            return if hint.0 >= after { Taken::Impossible } else { Taken::Gap(hint) };
        }
        let at_base = base.0.checked_sub(after.0 + 1).and_then(|i| entries.get(i as usize));
        if at_base.is_some_and(|entry| self.log.epoch_at(base) != Some(entry.view)) {
            return Taken::Impossible;
        }
        // What the log already holds stays, and so does what follows it: a message that is late
        // or repeated must not take back what was acknowledged since.
        let held = (after.0 + 1..)
            .map(Index)
            .zip(&entries)
            .take_while(|(index, entry)| *index <= base || self.log.epoch_at(*index) == Some(entry.view))
            .count();
        if held < entries.len() {
            let first = Index(after.0 + 1 + held as u64);
            if first <= self.commit || first <= self.log.last() && self.status == Status::Normal {
                // Nobody differs from what is committed, and no primary from its own backups.
                return Taken::Impossible;
            }
            if first <= self.log.last() {
                // The logs part here. What is cut off is replaced in the same record.
                self.uncommitted_bytes -= self.log.truncate(first);
                self.epochs.truncate(first);
                self.stored = self.stored.min(first.previous());
            }
            let new = if held == 0 { entries } else { entries.split_off(held) };
            self.append(new, out);
        }
        Taken::Matched(last)
    }

    /// When the primary of a view to be repeats its question: nobody speaks to it unasked.
    pub(super) fn state_deadline(&self) -> Option<Time> {
        match self.campaign {
            Campaign::Fetching { .. } => self.state_asked.map(|asked| asked + self.config.timing.heartbeat),
            _ => None,
        }
    }

    pub(super) fn retry_state(&mut self, out: &mut Effects<Self>) {
        if self.state_deadline().is_some_and(|at| self.now >= at) {
            self.maybe_start_view(out);
        }
    }

    /// What this replica lacks has been cut off by the one it asked.
    pub(super) fn on_checkpoint(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        op: OpNumber,
        out: &mut Effects<Self>,
    ) {
        let of_best = view == self.views.view
            && matches!(self.campaign, Campaign::Fetching { best, .. } if best == from);
        if !of_best && !self.hear_primary(from, view, out) {
            return;
        }
        if op <= self.commit || self.storage_full {
            self.ignored += 1;
            return;
        }
        out.ask(LogAsk::Snapshot { from, index: op });
    }

    /// The host's state has been replaced by one that covers more than the log delivered.
    pub(super) fn on_snapshot(&mut self, point: &SnapshotPoint, out: &mut Effects<Self>) {
        let (op, view) = (point.index, ViewNumber(point.epoch.0));
        if op <= self.delivered || view > VIEW_MAX {
            self.ignored += 1;
            return;
        }
        if view > self.views.view {
            // It was fetched from somebody who knows a later view: nothing of this one goes on.
            self.enter_view(view, out);
        }
        if self.log.epoch_at(op) == Some(view) {
            self.commit_to(op.max(self.commit));
            self.log.compact(op, view);
        } else {
            // The log is shorter, or it differs at what is committed, and nothing after that is.
            if self.is_primary() {
                self.give_up_view(out);
            }
            self.log = Log::after(op, view);
            self.uncommitted_bytes = 0;
            self.commit = op;
            self.epochs.truncate(Index::ZERO);
            let told = Epochs::of(Some(point), self.epochs.current.clone());
            if told.current.epoch >= self.epochs.current.epoch {
                self.take_epoch(told, out);
            }
            self.stored = op;
        }
        self.stored = self.stored.max(op);
        (self.delivered, self.applied) = (op, op);
        self.redelivery = HostRead::Idle;
        self.state_asked = None;
        if matches!(self.campaign, Campaign::Fetching { .. }) {
            self.maybe_start_view(out);
        } else if self.status == Status::ViewChange
            && let Some(primary) = self.leader
        {
            let hint = (self.log.last(), self.log.last_epoch());
            self.ask_for_state(primary, hint, 0, out);
        }
    }
}

/// At the one that is asked.
impl Viewstamped {
    pub(super) fn on_get_state(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        hint: (OpNumber, ViewNumber),
        round: u64,
        out: &mut Effects<Self>,
    ) {
        let Some(i) = self.peer(from) else { return };
        if view < self.views.view {
            return out.send_early(from, Message::NewerView { view: self.views.view });
        }
        if view > self.views.view {
            return self.on_newer_view(view, out);
        }
        if self.is_primary() {
            if !self.note_heard(from, round) {
                self.ignored += 1;
                return;
            }
            self.maybe_confirm_round(out);
            self.maybe_renew_lease();
            if hint.0 < self.progress[i].matched {
                // Asked before it acknowledged more.
                return;
            }
        } else if self.status == Status::Normal
            || self.standing != Standing::Replica
            || self.epochs.current.primary(view) != Some(from)
        {
            // Only the primary of its view may take over this log, before that is started.
            return;
        }
        let (op, op_view) = hint;
        if op < self.log.base() {
            self.progress[i].rewind(self.log.last().next(), Sending::Waiting);
            // Early: what a checkpoint covers is durable.
            return out.send_early(from, Message::Checkpoint { view, op: self.log.base() });
        }
        let (agree, _) = self.log.last_not_above(op, op_view);
        self.progress[i].rewind(agree.next(), Sending::State);
        if agree.next() >= self.log.first_in_memory() {
            let (entries, _) = self.log.batch(agree.next(), self.config.limits.message_bytes_max);
            self.send_state(i, entries, out);
        }
    }

    /// Answers a GetState, once.
    pub(super) fn send_state(&mut self, i: usize, entries: Vec<Entry>, out: &mut Effects<Self>) {
        let after = self.progress[i].next.previous();
        let mut state = self.new_state(after, entries);
        if !self.is_primary() {
            state.start = Index::ZERO;
        }
        let peer = &mut self.progress[i];
        peer.rewind(state.suffix.last().next(), Sending::Waiting);
        peer.commit_sent = self.commit;
        // Early: a primary's like Prepare; another's log was durable before its DoViewChange left,
        // and has not changed since.
        out.send_early(peer.id, Message::NewState(state));
    }

    /// Asks the host for entries that a peer lacks and memory no longer holds; the one that lags
    /// most goes first, and others at the same place share the answer.
    pub(super) fn ask_for_catch_up(&mut self, out: &mut Effects<Self>) {
        let limits = self.config.limits;
        let first_in_memory = self.log.first_in_memory();
        for i in 0..self.progress.len() {
            self.maybe_offer_checkpoint(i, out);
        }
        let waiting = self.progress.iter().filter(|peer| peer.waits_for_host(&limits, first_in_memory));
        let Some(from) = waiting.map(|peer| peer.next).min() else { return };
        if self.catch_up.begin(from) {
            let to = first_in_memory.previous();
            out.ask(LogAsk::Entries { from, to, bytes_max: limits.message_bytes_max });
        }
    }

    /// What the peer needs next has been cut off.
    pub(super) fn maybe_offer_checkpoint(&mut self, i: usize, out: &mut Effects<Self>) {
        let (view, base, last) = (self.views.view, self.log.base(), self.log.last());
        let peer = &mut self.progress[i];
        if peer.next > base {
            return;
        }
        if peer.sending != Sending::Waiting {
            // Early: what a checkpoint covers is durable.
            out.send_early(peer.id, Message::Checkpoint { view, op: base });
        }
        peer.rewind(last.next(), Sending::Waiting);
    }

    /// The host's state covers the log up to the point: what is before is not needed any more.
    pub(super) fn on_compact(&mut self, point: &SnapshotPoint) {
        let known = self.log.epoch_at(point.index) == Some(ViewNumber(point.epoch.0));
        if point.index > self.delivered || !known {
            self.ignored += 1;
            return;
        }
        self.log.compact(point.index, ViewNumber(point.epoch.0));
    }
}
