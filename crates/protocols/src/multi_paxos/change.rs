//! Changes of the members while serving: what a leader sees to before, during and after one.
//!
//! A change is proposed like a command, and the new configuration governs from α slots after it on (see
//! `membership.rs`). Three rules make that safe and quick:
//!
//! - **The window.** A leader proposes at a slot only when everything up to α slots before it is chosen; so
//!   it never proposes at a slot whose acceptors are still being decided. What does not fit waits.
//! - **Phase 1 is of the slot's acceptors.** That a quorum of the old members has promised the leader's
//!   ballot says nothing about slots that the new ones govern: another leader may have had values chosen
//!   there by them. So who prepares needs a quorum of *every* configuration in the window, and of those
//!   that the promises show may be chosen; then it knows all that can have been. And a leader
//!   proposes at the first slot of a new configuration only when a quorum of that one, too, has promised
//!   its ballot and told what it accepted there. One that has accepted nothing beyond what this leader
//!   proposed says so in every answer, which is all that a Promise would say; so this rarely costs a message.
//!   If somebody does hold more, and no quorum without it comes about, the leader prepares a new ballot.
//! - **No-ops flush the window.** A configuration comes into effect when all slots before its first are
//!   chosen; where clients do not fill them, the leader does.
//!
//! One change at a time: another is refused until the last is in effect, and sealed by a no-op that the
//! new acceptors have chosen: with that a quorum of them knows durably that the old ones are not needed any
//! more. There is no joint configuration, since no slot ever has two sets of acceptors.

use super::membership::Advance;
use super::message::Message;
use super::progress::Progress;
use super::record::Value;
use super::{MultiPaxos, Part};
use crate::contract::Effects;
use crate::fingerprint::Fingerprint;
use crate::log::{ChangeRefusal, Index, LogEvent, MembershipChange, Payload, Refusal, Ticket};
use crate::membership::{Configuration, Peers, Plan};
use crate::types::{NodeId, Time};
use alloc::vec::Vec;
use core::hash::Hash;

/// What a leader knows about the change that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// Who asked for it, and the slot at which it is proposed.
    asked: Option<(Ticket, Index)>,
    /// The no-op that seals it.
    seal: Index,
    /// Since when nothing can be proposed because the next slot's acceptors have not promised.
    barred_since: Option<Time>,
}

impl Change {
    /// What decides how it goes on, with times relative to now.
    pub(super) fn digest(&self, now: Time, digest: &mut Fingerprint) {
        (self.asked, self.seal, self.barred_since.map(|since| now.since(since).as_nanos() as u64))
            .hash(digest);
    }
}

/// At the leader.
impl MultiPaxos {
    pub(super) fn on_change(&mut self, ticket: Ticket, change: MembershipChange, out: &mut Effects<Self>) {
        if self.pledge.uncertain || self.storage_full {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leader {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if self.chosen < self.opening {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::NotYet), out);
        }
        if self.transfer.is_some() || self.is_change_under_way() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        match self.membership.current().plan(change, self.config.limits.members_max, self) {
            Plan::Append(next) => {
                let slot = self.propose_configuration(&next);
                self.change.asked = Some((ticket, slot));
            }
            // Early: it tells of what is chosen.
            Plan::Nothing => out.event_early(LogEvent::Done { ticket }),
            Plan::Refuse(why) => self.refuse(ticket, Refusal::Change(why), out),
        }
    }

    /// Whether a configuration is not chosen yet, not in effect, or not sealed.
    fn is_change_under_way(&self) -> bool {
        let open = self.log.range(self.chosen.next(), self.upto).map(|pvalue| &pvalue.value);
        let mut open = open.chain(&self.waiting);
        self.change.asked.is_some()
            || self.membership.pending().is_some()
            || self.chosen < self.change.seal
            || open.any(|value| matches!(value.payload, Payload::Membership(_)))
    }

    /// Proposes the configuration that a plan leads to: at once, where a protocol that counts both
    /// halves would begin with a joint one.
    fn propose_configuration(&mut self, next: &Configuration) -> Index {
        let slot = self.last_wanted().next();
        let entry = self.membership.change(slot, next.settled());
        self.wait_to_propose(Payload::Membership(entry));
        slot
    }

    /// Takes the next step of a change: flushes the window, seals what is in effect, says that it is
    /// done, leaves, and promotes learners that have caught up.
    pub(super) fn advance_change(&mut self, out: &mut Effects<Self>) {
        if self.chosen < self.opening {
            return;
        }
        if let Some(first) = self.membership.pending() {
            while self.last_wanted() < first.previous() {
                self.wait_to_propose(Payload::Noop);
            }
            return;
        }
        let is_open = self.change.asked.is_some_and(|(_, slot)| self.chosen < slot);
        if is_open || self.chosen < self.change.seal {
            return;
        }
        if let Some((ticket, _)) = self.change.asked.take() {
            // Early: it tells of what is chosen.
            out.event_early(LogEvent::Done { ticket });
        }
        let current = self.membership.current();
        if current.part(self.config.id).is_none() {
            return self.leave(out);
        }
        let ready: Vec<NodeId> = current.to_promote().filter(|id| self.is_caught_up(*id)).collect();
        if ready.is_empty() || self.transfer.is_some() || self.is_change_under_way() {
            return;
        }
        if let Plan::Append(next) = current.plan_voters(current.voters().chain(ready).collect(), self) {
            self.propose_configuration(&next);
        }
    }

    /// Another configuration is in effect.
    pub(super) fn note_in_effect(&mut self, advance: Advance) {
        if self.part != Part::Leader {
            return;
        }
        if advance == Advance::Voters {
            // At the end of all that waits.
            self.change.seal = self.last_wanted().next();
            self.wait_to_propose(Payload::Noop);
        }
        // The round under way was begun with other acceptors: what they have accepted meanwhile may have
        // been acknowledged by another leader, and is known here by now.
        self.reads.raise(self.chosen);
    }

    /// It has led the change that let it go. Whoever is best placed goes on at once.
    fn leave(&mut self, out: &mut Effects<Self>) {
        if let Some(heir) = self.best_heir() {
            // Early: it promises nothing.
            out.send_early(heir, Message::TakeOver { ballot: self.pledge.ballot });
        }
        self.become_follower(self.pledge.ballot, None, out);
    }

    /// Leadership is lost; what becomes of the change is for others to say.
    pub(super) fn abandon_change(&mut self, out: &mut Effects<Self>) {
        let change = core::mem::take(&mut self.change);
        if let Some((ticket, _)) = change.asked {
            // Held, unlike other refusals: the change may have been recorded in this step.
            out.event(LogEvent::Refused { ticket, why: Refusal::LeadershipLost });
        }
    }
}

/// The window.
impl MultiPaxos {
    /// Will be proposed at a slot of its own, after all that were proposed, when the window reaches it.
    pub(super) fn wait_to_propose(&mut self, payload: Payload) {
        let value = Value { origin: self.pledge.ballot, payload };
        self.waiting_bytes += value.cost();
        self.waiting.push_back(value);
    }

    /// The last slot for which this leader has a value.
    pub(super) fn last_wanted(&self) -> Index {
        Index(self.upto.0 + self.waiting.len() as u64)
    }

    /// Proposes what waits, as far as the window reaches and the slots' acceptors have promised.
    pub(super) fn propose_waiting(&mut self, out: &mut Effects<Self>) {
        let window_end = self.membership.window_end(self.chosen);
        let mut end = self.upto;
        while end < window_end {
            let (configuration, stage_end) = self.membership.governing(end.next());
            if !configuration.has_quorum(|id| self.has_told(id)) {
                break;
            }
            end = stage_end.unwrap_or(window_end).min(window_end);
        }
        let barred = end == self.chosen;
        self.change.barred_since = barred.then(|| self.change.barred_since.unwrap_or(self.now));
        let count = self.waiting.len().min((end.0 - self.upto.0) as usize);
        if count > 0 {
            let values: Vec<Value> = self.waiting.drain(..count).collect();
            self.waiting_bytes -= values.iter().map(Value::cost).sum::<usize>();
            self.accept(values, out);
            self.replicate_to_all(out);
        }
    }

    /// Whether it has promised this leader's ballot, and told all that it had accepted.
    fn has_told(&self, id: NodeId) -> bool {
        id == self.config.id || self.peer(id).is_some_and(|peer| peer.told)
    }

    /// The acceptors of the next slot do not say that they hold nothing there: with the change known,
    /// phase 1 of a new ballot asks them.
    pub(super) fn check_barred(&mut self, out: &mut Effects<Self>) {
        let election = self.config.timing.election;
        if self.change.barred_since.is_some_and(|since| self.now >= since + election)
            && self.next_attempt().is_some()
        {
            self.become_preparing(true, out);
        }
    }
}

/// Who is there.
impl MultiPaxos {
    pub(super) fn peer(&self, id: NodeId) -> Option<&Progress> {
        self.progress.iter().find(|peer| peer.id == id)
    }

    /// Gets to know whoever is a member now, forgets whoever is none any more, and tells the host.
    pub(super) fn sync_members(&mut self, out: &mut Effects<Self>) {
        self.members_changed = false;
        let mut everybody = self.membership.everybody();
        everybody.retain(|id| *id != self.config.id);
        // Who is let go is still told so by the leader that let it go.
        for peer in &mut self.progress {
            let leaving = peer.leaving.unwrap_or(self.chosen);
            peer.leaving = (!everybody.contains(&peer.id)).then_some(leaving);
        }
        if self.part != Part::Leader {
            self.progress.retain(|peer| peer.leaving.is_none());
        }
        for id in everybody {
            let Err(i) = self.progress.binary_search_by_key(&id, |peer| peer.id) else { continue };
            self.progress.insert(i, Progress::new(id));
            match self.part {
                Part::Leader => {
                    let next = self.chosen.max(self.log.base()).next();
                    self.progress[i].reset(None, next, self.now);
                    self.replicate(i, out);
                }
                Part::Preparing => self.send_prepare(id, out),
                Part::Follower | Part::Probing => {}
            }
        }
        // Early: what is chosen stays so.
        out.event_early(LogEvent::Members { members: self.membership.members() });
    }
}

impl Peers for MultiPaxos {
    /// It answered within the last election timeout.
    fn is_reachable(&self, id: NodeId) -> bool {
        let election = self.config.timing.election;
        let answers = |peer: &Progress| peer.answered && self.now < peer.heard + election;
        id == self.config.id || self.peer(id).is_some_and(answers)
    }

    /// It has everything that was chosen at the last heartbeat.
    fn is_caught_up(&self, id: NodeId) -> bool {
        self.is_reachable(id) && self.peer(id).is_some_and(|peer| peer.accepted >= self.chosen_at_heartbeat)
    }
}
