//! View changes (section 4.2), when to ask for one, and when to give up a view unasked.

use super::message::{DoViewChange, Message};
use super::progress::Sending;
use super::record::ViewNumber;
use super::{OpNumber, Standing, Status, Viewstamped};
use crate::contract::Effects;
use crate::log::Index;
use crate::types::NodeId;
use alloc::vec::Vec;
use core::time::Duration;

/// What a replica does to become a primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Campaign {
    None,
    /// It asks who would follow it.
    Asking {
        view: ViewNumber,
        willing: Vec<NodeId>,
    },
    /// It has entered its view and collects DoViewChanges.
    Collecting {
        received: Vec<NodeId>,
        /// The best so far, and whose it is.
        best: Option<(NodeId, DoViewChange)>,
        /// The largest commit-number.
        commit: OpNumber,
    },
    /// It has a quorum's DoViewChanges, and lacks a part of the best log.
    Fetching {
        best: NodeId,
        /// The end of the best log.
        op: OpNumber,
        op_view: ViewNumber,
        commit: OpNumber,
    },
}

/// How often in a row the wait is doubled.
const BACK_OFF_MAX: u32 = 3;

/// Before the view change: would anybody follow?
impl Viewstamped {
    pub(super) fn ask_for_view_change(&mut self, out: &mut Effects<Self>) {
        self.draw_wait();
        self.restart_wait();
        self.campaign = Campaign::None;
        let view = self.next_view_of(self.config.id);
        if self.is_disk_stalled() || self.epochs.current.primary(view) != Some(self.config.id) {
            // It could not keep the promise, or there is no such view: let the others lead, and try
            // again later.
            return;
        }
        self.leave_leader(out);
        self.leader_contact = None;
        self.campaign = Campaign::Asking { view, willing: Vec::new() };
        // Its own word counts like the others', when everything before it is on disk.
        self.send_to_self(Message::PreViewChangeOk { view }, out);
        for id in self.other_replicas() {
            // Early: the question promises nothing.
            out.send_early(id, Message::PreViewChange { view });
        }
    }

    /// The first view of its epoch whose primary is `id`, and after which nobody is yet, as far as
    /// it knows.
    pub(super) fn next_view_of(&self, id: NodeId) -> ViewNumber {
        let current = &self.epochs.current;
        let seen =
            if self.view_seen.epoch_number() == current.epoch { self.view_seen } else { ViewNumber(0) };
        current.next_view_of(id, self.views.view.max(seen))
    }

    fn other_replicas(&self) -> impl Iterator<Item = NodeId> + use<'_> {
        self.epochs.current.replicas().iter().copied().filter(|id| *id != self.config.id)
    }

    pub(super) fn on_pre_view_change(&mut self, from: NodeId, view: ViewNumber, out: &mut Effects<Self>) {
        if self.epochs.current.primary(view) != Some(from) {
            self.ignored += 1;
        } else if view <= self.views.view {
            out.send_early(from, Message::NewerView { view: self.views.view });
        } else if self.may_promise() && self.would_follow(from) {
            // Nothing of its own changes: not its view, not its primary, not its wait.
            out.send(from, Message::PreViewChangeOk { view });
        }
    }

    pub(super) fn on_pre_view_change_ok(&mut self, from: NodeId, view: ViewNumber, out: &mut Effects<Self>) {
        let Campaign::Asking { view: asked, willing } = &mut self.campaign else { return };
        if view != *asked || willing.contains(&from) {
            return;
        }
        willing.push(from);
        if self.epochs.current.has_quorum(|id| willing.contains(&id)) {
            self.start_view_change(view, None, out);
        }
    }

    /// Somebody is in a later view, and does not hear what is said in this one. A primary moves on
    /// to a view of its own after that, so that all can follow again; those who follow it already
    /// know that it is there, and agree.
    pub(super) fn on_newer_view(&mut self, view: ViewNumber, out: &mut Effects<Self>) {
        if view <= self.views.view {
            return;
        }
        self.view_seen = self.view_seen.max(view);
        if self.is_primary() {
            self.give_up_view(out);
            if self.may_campaign() {
                self.ask_for_view_change(out);
            }
        }
    }

    /// Whether its promise would be worth anything.
    fn may_promise(&self) -> bool {
        self.standing == Standing::Replica && self.knows_epoch() && !self.storage_full
    }

    /// Whether it would follow another replica into a later view: not if it has reason to believe
    /// that its primary has not failed. If that is who asks, it has given up this view.
    fn would_follow(&self, id: NodeId) -> bool {
        let election = self.config.timing.election;
        let loyal = self.is_primary()
            || self.now < self.silent_until
            || self.is_promised()
            || self.leader_contact.is_some_and(|heard| self.now < heard + election);
        !loyal || self.epochs.current.primary(self.views.view) == Some(id)
    }
}

/// The view change.
impl Viewstamped {
    /// Enters a view of its own and asks the others for what they have.
    /// `transfer` is the view whose primary wants it, if one does.
    pub(super) fn start_view_change(
        &mut self,
        view: ViewNumber,
        transfer: Option<ViewNumber>,
        out: &mut Effects<Self>,
    ) {
        self.enter_view(view, out);
        self.attempts += 1;
        self.draw_wait();
        self.restart_wait();
        self.campaign = Campaign::Collecting { received: Vec::new(), best: None, commit: self.commit };
        let own = DoViewChange { suffix: self.suffix(self.log.last(), Vec::new()), ..self.do_view_change() };
        self.send_to_self(Message::DoViewChange(own), out);
        for id in self.other_replicas() {
            // Early: the question promises nothing.
            out.send_early(id, Message::StartViewChange { view, transfer });
        }
    }

    pub(super) fn on_start_view_change(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        transfer: Option<ViewNumber>,
        out: &mut Effects<Self>,
    ) {
        if self.epochs.current.primary(view) != Some(from) {
            self.ignored += 1;
            return;
        }
        if view < self.views.view {
            return out.send_early(from, Message::NewerView { view: self.views.view });
        }
        if !self.may_promise() || view == self.views.view && self.status == Status::Normal {
            return;
        }
        if view > self.views.view {
            if transfer != Some(self.views.view) && !self.would_follow(from) {
                return;
            }
            self.enter_view(view, out);
        }
        // Held: from now on nothing of an earlier view is acknowledged, even after a crash; and what
        // it says about the log is durable.
        out.send(from, Message::DoViewChange(self.do_view_change()));
    }

    fn do_view_change(&self) -> DoViewChange {
        let (after, entries) = self.log.suffix(self.commit.next(), self.config.limits.message_bytes_max);
        DoViewChange {
            view: self.views.view,
            last_normal: self.views.last_normal,
            op: self.log.last(),
            op_view: self.log.last_epoch(),
            commit: self.commit,
            suffix: self.suffix(after, entries),
        }
    }

    pub(super) fn on_do_view_change(&mut self, from: NodeId, state: DoViewChange, out: &mut Effects<Self>) {
        let view = self.views.view;
        let Campaign::Collecting { received, best, commit } = &mut self.campaign else { return };
        if state.view != view || received.contains(&from) {
            return;
        }
        let DoViewChange { last_normal, op, op_view, commit: committed, suffix, .. } = &state;
        let end = (*op, *op_view);
        if end != (suffix.last(), suffix.last_view())
            || *op_view >= view
            || *last_normal >= view
            || committed > op
        {
            self.ignored += 1;
            return;
        }
        received.push(from);
        *commit = (*commit).max(*committed);
        let order = |state: &DoViewChange| (state.last_normal, state.op);
        if best.as_ref().is_none_or(|(_, best)| order(&state) > order(best)) {
            *best = Some((from, state));
        }
        if !self.epochs.current.has_quorum(|id| received.contains(&id)) {
            return;
        }
        let commit = *commit;
        let Some((best, DoViewChange { op, op_view, suffix, .. })) = best.take() else { return };
        self.campaign = Campaign::Fetching { best, op, op_view, commit };
        if self.log.epoch_at(op) != Some(op_view) {
            // As far as the end of the best log closes the gap.
            let _ = self.take(suffix, out);
        }
        self.maybe_start_view(out);
    }

    /// Starts the view if the log contains the best one; else asks for what it lacks. What it has
    /// beyond the best log stays: none of it was committed, and all of it was once proposed there.
    pub(super) fn maybe_start_view(&mut self, out: &mut Effects<Self>) {
        let Campaign::Fetching { best, op, op_view, commit } = self.campaign else { return };
        if self.log.epoch_at(op) == Some(op_view) || op < self.log.base() {
            self.campaign = Campaign::None;
            return self.become_primary(commit, out);
        }
        let hint = self.log.last_not_above(op, op_view);
        self.ask_for_state(best, hint, 0, out);
    }
}

/// Entering and leaving views.
impl Viewstamped {
    /// Leaves its view for a later one, and promises by that to do nothing for it any more.
    pub(super) fn enter_view(&mut self, view: ViewNumber, out: &mut Effects<Self>) {
        assert!(view > self.views.view, "a view-number never goes back");
        if self.is_primary() {
            self.end_primary(out);
        }
        self.leave_leader(out);
        self.views.view = view;
        self.status = Status::ViewChange;
        self.campaign = Campaign::None;
        self.leader_contact = None;
        self.state_asked = None;
        for peer in &mut self.progress {
            peer.rewind(Index(1), Sending::Waiting);
        }
        self.draw_wait();
        self.restart_wait();
    }

    /// A primary stops, without promising anything for later views. It proposes nothing in this one
    /// any more.
    pub(super) fn give_up_view(&mut self, out: &mut Effects<Self>) {
        assert!(self.is_primary(), "only a primary gives up its view");
        self.end_primary(out);
        self.status = Status::ViewChange;
        self.leave_leader(out);
        self.draw_wait();
        self.restart_wait();
    }

    /// The primary of `view` speaks, so the view was started. Returns false if it is not to be
    /// listened to.
    pub(super) fn hear_primary(&mut self, from: NodeId, view: ViewNumber, out: &mut Effects<Self>) -> bool {
        if view < self.views.view {
            out.send_early(from, Message::NewerView { view: self.views.view });
            return false;
        }
        if !self.speaks_as_primary(from, view) {
            self.ignored += 1;
            return false;
        }
        if view > self.views.view {
            if self.storage_full {
                return false;
            }
            self.enter_view(view, out);
        }
        if self.leader != Some(from) {
            self.leave_leader(out);
            self.leader = Some(from);
            self.on_new_leader(from, out);
        }
        self.maybe_ask_for_the_end(from, out);
        self.campaign = Campaign::None;
        self.leader_contact = Some(self.now);
        self.promised_until = self.now + self.config.timing.election;
        if self.attempts > 0 {
            self.attempts = 0;
            self.draw_wait();
        }
        self.restart_wait();
        true
    }

    /// Forgets the primary, and answers the reads that wait for it.
    fn leave_leader(&mut self, out: &mut Effects<Self>) {
        self.leader = None;
        self.forwarding.refuse(out);
    }
}

/// How long to wait.
impl Viewstamped {
    /// Whether it asks for a view change when its wait is over.
    pub(super) fn may_campaign(&self) -> bool {
        self.may_promise()
    }

    /// Between one and two election timeouts, times what attempts in vain have made of it: those
    /// whose turn comes first wait least, and each draws its wait within its own share, so that
    /// replicas rarely ask together. A higher priority brings a turn forward; priority 0 comes last.
    pub(super) fn draw_wait(&mut self) {
        let election = nanos(self.config.timing.election);
        let turns = self.epochs.current.turns_until(self.config.id, self.views.view).max(1);
        let share = election / (self.epochs.current.replicas().len() as u64).max(1);
        let offset = (turns - 1).saturating_mul(share) + self.rng.below(share.max(1));
        let offset = match u64::from(self.config.priority) {
            0 => offset.saturating_add(election),
            priority => offset / priority,
        };
        let wait = election.saturating_add(offset).saturating_mul(1 << self.attempts.min(BACK_OFF_MAX));
        self.wait = Duration::from_nanos(wait);
    }

    pub(super) fn restart_wait(&mut self) {
        self.wait_deadline = self.now + self.wait;
    }

    /// The connection to the primary is lost, and perhaps the primary with it: ask soon, the next
    /// in turn first. If the primary is well, the others still hear from it and do not answer; so
    /// only a primary that a quorum lost is replaced. Safety does not rest on timers.
    pub(super) fn hasten_view_change(&mut self) {
        let heartbeat = nanos(self.config.timing.heartbeat);
        let turns = self.epochs.current.turns_until(self.config.id, self.views.view).max(1);
        let share = 2 * heartbeat / (self.epochs.current.replicas().len() as u64).max(1);
        let delay = heartbeat / 4 + (turns - 1) * share + self.rng.below(share.max(1));
        self.leader_contact = None;
        self.wait_deadline = self.wait_deadline.min(self.now + Duration::from_nanos(delay));
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 8).min(u64::MAX / 8)
}
