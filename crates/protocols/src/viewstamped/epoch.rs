//! From one epoch to the next (section 7.1).
//!
//! An epoch ends when its last command is committed. Whoever holds that command and knows that it is
//! committed is in the next epoch, before its first view: a replica of the new group may now take
//! part in view changes, and one that was replaced is there for the others only. The epoch's first
//! view is started by a view change like any other; the last primary asks for it, or the best placed
//! replica at its request.
//!
//! # Why it is safe
//!
//! Nothing is ever proposed behind the last command, not even the no-op of a later view of the same
//! epoch. So when it is committed the log of the epoch is complete, every later view of the epoch is
//! started with just that log, and every log of the next one begins with it. A replica promises and
//! acknowledges nothing in an epoch before it has that. View-numbers tell epochs apart, so that what is
//! said in one counts in no other.
//!
//! # Why nobody is left behind
//!
//! A quorum of the new group holds the last command before it is committed. The replicas that were
//! replaced stay: they say that the epoch has begun (StartEpoch) and hand out what came before it, until
//! a quorum of the new group is normal in it (EpochStarted). Whoever speaks of an earlier epoch is told
//! so by anybody who knows. One who hears of an epoch that it does not know does nothing more for its
//! own, and asks for the log's last part (GetState of view 0 of the epoch).
//!
//! Where the text departs: view-numbers do not start from 0, but are pairs of an epoch and a view in it;
//! and the state that an epoch begins with is asked of any replica that knows it, old or new.

use super::configuration::{Configuration, Epochs};
use super::message::{Message, NewState};
use super::progress::Progress;
use super::record::{Entry, EpochNumber, ViewNumber};
use super::state_transfer::Taken;
use super::{OpNumber, Standing, Status, Viewstamped};
use crate::contract::Effects;
use crate::log::{LogAsk, LogEvent};
use crate::types::{NodeId, Time};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What a replaced replica still does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handover {
    /// The new replicas that have said that they are normal in the epoch.
    started: Vec<NodeId>,
    /// When the others are told again.
    pub(super) repeat: Time,
}

impl Handover {
    pub(super) fn started(&self) -> &[NodeId] {
        &self.started
    }

    pub(super) fn describe(&self) -> String {
        match self.started.as_slice() {
            [] => "none of the new replicas is normal yet".to_string(),
            ids => format!("normal: {}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        }
    }
}

/// Entering an epoch.
impl Viewstamped {
    /// Whether it knows the configuration of the epoch that it is in.
    pub(super) fn knows_epoch(&self) -> bool {
        self.views.view.epoch_number() == self.epochs.current.epoch
    }

    /// Whether `id` speaks as the primary of `view`, as far as this replica can tell: of a later epoch
    /// it does not know who the replicas are.
    pub(super) fn speaks_as_primary(&self, id: NodeId, view: ViewNumber) -> bool {
        let current = &self.epochs.current;
        view.number() > 0
            && match view.epoch_number().cmp(&current.epoch) {
                core::cmp::Ordering::Less => false,
                core::cmp::Ordering::Equal if current.members().is_known() => {
                    current.primary(view) == Some(id)
                }
                _ => true,
            }
    }

    /// Another configuration is in effect if its entry is committed: with it perhaps another epoch.
    pub(super) fn maybe_begin_epoch(&mut self, out: &mut Effects<Self>) {
        let before = self.epochs.current.epoch;
        let led = self.is_primary();
        if self.epochs.commit_to(self.commit) {
            (self.members_changed, self.views.begun) = (true, self.commit);
        }
        self.enter_epoch(before, led, out);
    }

    /// The configuration in effect may have changed since it was one of epoch `before`; `led` says
    /// whether this replica was that epoch's primary.
    fn enter_epoch(&mut self, before: EpochNumber, led: bool, out: &mut Effects<Self>) {
        if !core::mem::take(&mut self.members_changed) {
            return;
        }
        let placed = self.heirs();
        if self.epochs.current.epoch > before {
            if led {
                self.end_primary(out);
            }
            self.learn_of_epoch(self.view_of_epoch(), out);
        }
        self.sync_progress();
        self.update_standing();
        // Early: it tells of what is committed.
        out.event_early(LogEvent::Members { members: self.configured() });
        if self.epochs.current.epoch > before {
            self.begin_handover();
            if led {
                self.hand_over_epoch(&placed, out);
            }
        }
    }

    /// A snapshot says who the members are.
    pub(super) fn take_epoch(&mut self, told: Epochs, out: &mut Effects<Self>) {
        let before = core::mem::replace(&mut self.epochs, told).current.epoch;
        (self.members_changed, self.views.begun) = (true, self.commit);
        self.enter_epoch(before, false, out);
    }

    /// View 0 of the epoch whose configuration is in effect.
    fn view_of_epoch(&self) -> ViewNumber {
        ViewNumber::of(self.epochs.current.epoch, 0)
    }

    /// Whom it sends its log to: every other member.
    pub(super) fn sync_progress(&mut self) {
        let own = self.config.id;
        let known = core::mem::take(&mut self.progress);
        let members = self.epochs.current.members().members().iter().map(|member| member.id);
        let progress = |id| match known.iter().find(|peer| peer.id == id) {
            Some(peer) => peer.clone(),
            None => Progress { heard: self.now, ..Progress::new(id) },
        };
        self.progress = members.filter(|id| *id != own).map(progress).collect();
    }

    /// Whether it counts follows from the configuration in effect, unless its disk is not sound.
    pub(super) fn update_standing(&mut self) {
        let counts =
            self.knows_epoch() && !self.has_forgotten() && self.epochs.current.is_replica(self.config.id);
        self.standing = match self.standing {
            Standing::Replica | Standing::Learner if counts => Standing::Replica,
            Standing::Replica | Standing::Learner => Standing::Learner,
            standing => standing,
        };
    }

    /// Whether it may have promised or acknowledged, under its id, what its disk does not say: the
    /// disk is that of a joining member, but the id is a founder's.
    pub(super) fn has_forgotten(&self) -> bool {
        self.views.joined && self.config.members.contains(&self.config.id)
    }

    /// Its peers, those with most of the log first.
    fn heirs(&self) -> Vec<NodeId> {
        let mut peers: Vec<&Progress> = self.progress.iter().collect();
        peers.sort_by_key(|peer| (core::cmp::Reverse(peer.matched), peer.id));
        peers.iter().map(|peer| peer.id).collect()
    }

    /// The last primary of the epoch before tells everybody, and sees to it that somebody leads.
    fn hand_over_epoch(&mut self, placed: &[NodeId], out: &mut Effects<Self>) {
        let current = &self.epochs.current;
        let listeners = current
            .members()
            .members()
            .iter()
            .map(|member| member.id)
            .chain(current.replaced().iter().copied());
        for id in listeners.filter(|id| *id != self.config.id).collect::<Vec<_>>() {
            self.send_start_epoch(id, out);
        }
        let (own, view) = (self.config.id, self.views.view);
        if self.may_campaign() {
            let view = self.epochs.current.next_view_of(own, view);
            self.start_view_change(view, Some(self.views.view), out);
        } else if let Some(heir) = placed.iter().copied().find(|id| self.epochs.current.is_replica(*id)) {
            let view = self.epochs.current.next_view_of(heir, view);
            // Early: the view change is as safe as any other, whoever asked for it.
            out.send_early(heir, Message::TakeOver { view });
        }
    }

    /// Somebody is in a later epoch: this one is over, and nothing is promised in it any more.
    fn learn_of_epoch(&mut self, view: ViewNumber, out: &mut Effects<Self>) {
        let view = view.before_first();
        if view > self.views.view {
            self.enter_view(view, out);
            // What was appended in the epoch before may be all that it ever holds.
            self.tell_self(out);
        }
    }
}

/// Telling of an epoch, and asking for what it begins with.
impl Viewstamped {
    /// What is said of epochs, in one that is over, or in one of which the members are not known here.
    /// Returns whether that was all there is to it.
    pub(super) fn is_of_another_epoch(
        &mut self,
        from: NodeId,
        message: &Message,
        out: &mut Effects<Self>,
    ) -> bool {
        let Some(view) = message.view() else { return false };
        let known = self.epochs.current.epoch;
        let sound = self.standing != Standing::Abstaining;
        match message {
            Message::StartEpoch { view, op, op_view } if sound => {
                self.on_start_epoch(from, *view, *op, *op_view, out);
            }
            Message::EpochStarted { view } => self.on_epoch_started(from, *view),
            _ if view.epoch_number() < known => self.send_start_epoch(from, out),
            Message::GetState { op, op_view, .. } if view.is_before_first() => {
                self.on_get_epoch(from, view, (*op, *op_view), out);
            }
            Message::NewState(state) if view.is_before_first() && sound => {
                self.on_epoch_state(from, state.clone(), out);
            }
            Message::Checkpoint { op, .. } if view.is_before_first() && sound => {
                self.on_epoch_checkpoint(from, view, *op, out);
            }
            // Whoever leads a later epoch is believed, and sends what is missing here.
            Message::StartView(_)
            | Message::NewState(_)
            | Message::Prepare { .. }
            | Message::Commit { .. }
            | Message::RecoveryResponse { .. }
            | Message::Checkpoint { .. } => return false,
            _ if view.epoch_number() > known && sound => self.ask_for_epoch(from, view, None, out),
            _ => return false,
        }
        true
    }

    pub(super) fn send_start_epoch(&self, to: NodeId, out: &mut Effects<Self>) {
        let op = self.views.begun.max(self.log.base());
        let view = self.view_of_epoch();
        if let (true, Some(op_view)) = (op <= self.commit, self.log.epoch_at(op)) {
            // Early: it speaks of what quorums' disks hold.
            out.send_early(to, Message::StartEpoch { view, op, op_view });
        }
    }

    pub(super) fn on_start_epoch(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        op: OpNumber,
        op_view: ViewNumber,
        out: &mut Effects<Self>,
    ) {
        let own = self.view_of_epoch();
        if view < own {
            return self.send_start_epoch(from, out);
        }
        if view == own {
            return self.maybe_say_started(&[from], out);
        }
        self.learn_of_epoch(view, out);
        if self.log.epoch_at(op) == Some(op_view) {
            self.commit_to(op.max(self.commit));
            self.maybe_begin_epoch(out);
        }
        if view > self.view_of_epoch() {
            self.ask_for_epoch(from, view, None, out);
        }
    }

    /// Asks for what the epoch of `view` begins with, after `hint` or the end of the log.
    pub(super) fn ask_for_epoch(
        &mut self,
        of: NodeId,
        view: ViewNumber,
        hint: Option<(OpNumber, ViewNumber)>,
        out: &mut Effects<Self>,
    ) {
        self.learn_of_epoch(view, out);
        let hint = hint.unwrap_or((self.log.last(), self.log.last_epoch()));
        self.ask_for_state_of(of, view.before_first(), hint, 0, out);
    }

    /// Somebody lacks what this epoch began with.
    pub(super) fn on_get_epoch(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        hint: (OpNumber, ViewNumber),
        out: &mut Effects<Self>,
    ) {
        if view != self.view_of_epoch() || self.standing == Standing::Abstaining {
            return;
        }
        let (after, _) = self.log.last_not_above(hint.0, hint.1);
        let after = after.min(self.commit);
        let first = self.log.first_in_memory();
        if hint.0 < self.log.base() || after.next() < first {
            // The host applied everything that is not in memory. Early: what is applied is committed.
            return out.send_early(from, Message::Checkpoint { view, op: first.previous() });
        }
        let (mut entries, _) = self.log.batch(after.next(), self.config.limits.message_bytes_max);
        entries.truncate((self.commit.0 - after.0) as usize);
        let earlier = entries.iter().take_while(|entry| entry.view < view).count();
        entries.truncate(earlier);
        let (start, commit) = (self.views.begun, self.commit);
        let state = NewState { view, start, commit, round: 0, suffix: self.suffix(after, entries) };
        // Early: all of it is committed.
        out.send_early(from, Message::NewState(state));
    }

    /// The answer: entries of earlier epochs, all committed.
    pub(super) fn on_epoch_state(&mut self, from: NodeId, state: NewState, out: &mut Effects<Self>) {
        let NewState { view, commit, suffix, .. } = state;
        if view <= self.view_of_epoch() || self.status == Status::Normal {
            self.ignored += 1;
            return;
        }
        self.state_asked = None;
        let before = self.commit;
        match self.take(suffix, out) {
            Taken::Matched(op) => self.commit_to(commit.min(op).max(self.commit)),
            Taken::Gap(hint) => return self.ask_for_epoch(from, view, Some(hint), out),
            Taken::Impossible => self.ignored += 1,
        }
        self.maybe_begin_epoch(out);
        if view > self.view_of_epoch() && self.commit > before {
            self.ask_for_epoch(from, view, None, out);
        }
    }

    /// What the epoch begins with has been cut off.
    pub(super) fn on_epoch_checkpoint(
        &mut self,
        from: NodeId,
        view: ViewNumber,
        op: OpNumber,
        out: &mut Effects<Self>,
    ) {
        if view <= self.view_of_epoch() || op <= self.commit || self.storage_full {
            self.ignored += 1;
            return;
        }
        out.ask(LogAsk::Snapshot { from, index: op });
    }
}

/// Until the new replicas can do without the old ones.
impl Viewstamped {
    /// If it was replaced it stays, until the new replicas say that they need it no more.
    pub(super) fn begin_handover(&mut self) {
        let is_replaced = self.epochs.current.replaced().contains(&self.config.id);
        let repeat = self.now + self.config.timing.election;
        self.handover = is_replaced.then(|| Handover { started: Vec::new(), repeat });
    }

    pub(super) fn repeat_handover(&mut self, out: &mut Effects<Self>) {
        let Some(handover) = &mut self.handover else { return };
        if self.now < handover.repeat {
            return;
        }
        handover.repeat = self.now + self.config.timing.election;
        let missing: Vec<NodeId> = self
            .epochs
            .current
            .replicas()
            .iter()
            .copied()
            .filter(|id| !handover.started.contains(id))
            .collect();
        for id in missing {
            self.send_start_epoch(id, out);
        }
    }

    pub(super) fn on_epoch_started(&mut self, from: NodeId, view: ViewNumber) {
        if view != self.view_of_epoch() || !self.epochs.current.is_replica(from) {
            return;
        }
        let Some(Handover { started, .. }) = &mut self.handover else { return };
        if !started.contains(&from) {
            started.push(from);
        }
        let started = &*started;
        if self.epochs.current.has_quorum(|id| started.contains(&id)) {
            self.handover = None;
        }
    }

    /// Tells those who were replaced, once in every life and whenever they ask.
    pub(super) fn tell_replaced(&mut self, out: &mut Effects<Self>) {
        if self.status == Status::Normal
            && self.knows_epoch()
            && self.told_replaced < self.epochs.current.epoch
        {
            self.told_replaced = self.epochs.current.epoch;
            let replaced = self.epochs.current.replaced().to_vec();
            self.maybe_say_started(&replaced, out);
        }
    }

    fn maybe_say_started(&self, replaced: &[NodeId], out: &mut Effects<Self>) {
        let normal = self.status == Status::Normal && self.standing == Standing::Replica;
        for id in replaced.iter().filter(|id| normal && self.epochs.current.replaced().contains(id)) {
            // Held: what it says it has is on its disk.
            out.send(*id, Message::EpochStarted { view: self.view_of_epoch() });
        }
    }
}

/// Notes what entries say of the members as they come into the log.
impl Viewstamped {
    pub(super) fn push(&mut self, entry: Entry) {
        self.epochs.note(self.log.last().next(), &entry);
        self.log.push(entry);
    }

    /// The configuration that the log's last entry leads to, if nothing may stand behind it.
    pub(super) fn ending(&self) -> Option<&Configuration> {
        self.epochs.ending(self.log.last())
    }
}
