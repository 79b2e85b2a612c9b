//! Linearizable reads without a log write: ZooKeeper's `sync`, but one that asks a quorum.
//!
//! A read may be served from any state that has applied the *read index*: the commit index which
//! an established leader noted after the read arrived, and after which a quorum confirmed that it
//! still follows that leader. Nobody who answers had promised a later epoch by then, so no later
//! leader could have committed anything. (ZooKeeper's own `sync` only passes through the leader's
//! queue, and a leader that has lost its quorum without knowing it answers with an old state.)
//!
//! Confirmation is a *round*: PINGs carry the number of the latest round, and answers return it.
//! All reads that arrive while a round is under way share the next one.

use super::learner::Learner;
use super::message::Message;
use super::{Part, Phase, Zab};
use crate::contract::Effects;
use crate::log::{Index, LogEvent, Refusal, Ticket, Timing};
use crate::types::{NodeId, Time};
use alloc::vec::Vec;

/// The reads of a leader's own host. Those of its followers' are in their [`Learner`].
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Reads {
    /// The latest round of this epoch.
    pub(super) round: u64,
    /// Whether a quorum has yet to answer it.
    under_way: bool,
    /// The commit index noted when it began.
    index: Index,
    current: Vec<Ticket>,
    next: Vec<Ticket>,
}

/// The reads that a follower has forwarded, and those that go with the next message.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Forwarding {
    pub(super) batch: u64,
    pub(super) current: Vec<Ticket>,
    pub(super) next: Vec<Ticket>,
    /// When the oldest of each arrived.
    current_since: Time,
    next_since: Time,
    /// When the current batch was last sent.
    sent: Time,
}

/// At the leader.
impl Zab {
    pub(super) fn on_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.abstaining {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leading(Phase::Broadcast) {
            return self.forward_read(ticket, out);
        }
        if self.reads.current.len() + self.reads.next.len() >= self.config.limits.reads_max {
            return self.refuse(ticket, Refusal::Busy, out);
        }
        self.reads.next.push(ticket);
        self.maybe_begin_round(out);
    }

    pub(super) fn on_sync(&mut self, from: NodeId, batch: u64, out: &mut Effects<Self>) {
        if self.part != Part::Leading(Phase::Broadcast) {
            return out.send(from, Message::SyncReply { batch, index: None });
        }
        let Some(i) = self.learner(from) else { return };
        let learner = &mut self.learners[i];
        // A repetition of what is being confirmed waits for that; anything else is new.
        if learner.read_current != Some(batch) {
            learner.read_next = Some(batch);
        }
        self.maybe_begin_round(out);
    }

    /// Begins to confirm leadership for the reads that wait, unless there are none, a round is
    /// under way, or the leader is not established.
    pub(super) fn maybe_begin_round(&mut self, out: &mut Effects<Self>) {
        let waiting =
            !self.reads.next.is_empty() || self.learners.iter().any(|learner| learner.read_next.is_some());
        if !waiting || self.reads.under_way || self.part != Part::Leading(Phase::Broadcast) {
            return;
        }
        self.reads.under_way = true;
        self.reads.round += 1;
        self.reads.index = self.commit;
        core::mem::swap(&mut self.reads.current, &mut self.reads.next);
        for learner in &mut self.learners {
            learner.read_current = learner.read_next.take();
        }
        self.send_pings(out);
        self.maybe_confirm_round(out);
    }

    /// Serves the reads of the round if a quorum has answered it, and goes on with the next.
    pub(super) fn maybe_confirm_round(&mut self, out: &mut Effects<Self>) {
        if !self.reads.under_way {
            return;
        }
        let round = self.reads.round;
        if !self.membership.current().has_quorum(|id| self.is_own_or(id, |learner| learner.round >= round)) {
            return;
        }
        self.reads.under_way = false;
        let index = self.reads.index;
        for ticket in self.reads.current.drain(..) {
            // Early: the index is committed, and that no later leader had been elected when the
            // read arrived is known from durable answers of a quorum.
            out.event_early(LogEvent::ReadReady { ticket, index, valid_until: None });
        }
        for learner in &mut self.learners {
            if let Some(batch) = learner.read_current.take() {
                // Early: for the same reason.
                out.send_early(learner.id, Message::SyncReply { batch, index: Some(index) });
            }
        }
        self.maybe_begin_round(out);
    }

    /// Leadership is lost: nothing that waits can be confirmed any more.
    pub(super) fn refuse_reads(&mut self, out: &mut Effects<Self>) {
        let mut reads = core::mem::take(&mut self.reads);
        for ticket in reads.current.drain(..).chain(reads.next.drain(..)) {
            self.refuse(ticket, Refusal::LeadershipLost, out);
        }
        for Learner { id, read_current, read_next, .. } in &mut self.learners {
            for batch in [read_current.take(), read_next.take()].into_iter().flatten() {
                out.send(*id, Message::SyncReply { batch, index: None });
            }
        }
        // The memory is kept for the next epoch.
        self.reads = Reads { current: reads.current, next: reads.next, ..Reads::default() };
    }
}

/// At a follower.
impl Zab {
    fn forward_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.part != Part::Following(Phase::Broadcast) {
            return self.refuse(ticket, Refusal::NotLeader { leader: None }, out);
        }
        let forwarding = &mut self.forwarding;
        if forwarding.current.len() + forwarding.next.len() >= self.config.limits.reads_max {
            return self.refuse(ticket, Refusal::Busy, out);
        }
        if forwarding.next.is_empty() {
            forwarding.next_since = self.now;
        }
        forwarding.next.push(ticket);
        self.maybe_forward(out);
    }

    /// Sends the reads that wait to the leader, if no others are on their way.
    fn maybe_forward(&mut self, out: &mut Effects<Self>) {
        let forwarding = &mut self.forwarding;
        if forwarding.next.is_empty() || !forwarding.current.is_empty() {
            return;
        }
        core::mem::swap(&mut forwarding.current, &mut forwarding.next);
        forwarding.current_since = forwarding.next_since;
        forwarding.batch = forwarding.batch.wrapping_add(1);
        self.send_sync(out);
    }

    fn send_sync(&mut self, out: &mut Effects<Self>) {
        self.forwarding.sent = self.now;
        if let Some(leader) = self.leader {
            // Early: the question promises nothing.
            out.send_early(leader, Message::Sync { batch: self.forwarding.batch });
        }
    }

    pub(super) fn on_sync_reply(
        &mut self,
        from: NodeId,
        batch: u64,
        index: Option<Index>,
        out: &mut Effects<Self>,
    ) {
        if batch != self.forwarding.batch || self.leader != Some(from) {
            return;
        }
        let mut current = core::mem::take(&mut self.forwarding.current);
        for ticket in current.drain(..) {
            match index {
                // Early: the leader speaks of what is on a quorum's disks.
                Some(index) => out.event_early(LogEvent::ReadReady { ticket, index, valid_until: None }),
                None => self.refuse(ticket, Refusal::LeadershipLost, out),
            }
        }
        self.forwarding.current = current;
        self.maybe_forward(out);
    }

    /// A batch that was lost on the way is sent again after a heartbeat; the leader knows it by
    /// its number. When the oldest read has waited for an election timeout, all are refused.
    pub(super) fn retry_forwarded_reads(&mut self, out: &mut Effects<Self>) {
        let timing = self.config.timing;
        let forwarding = &mut self.forwarding;
        if !forwarding.current.is_empty() && self.now >= forwarding.current_since + timing.election {
            return self.refuse_forwarded_reads(out);
        }
        if !forwarding.current.is_empty() && self.now >= forwarding.sent + timing.heartbeat {
            self.send_sync(out);
        }
    }

    pub(super) fn refuse_forwarded_reads(&mut self, out: &mut Effects<Self>) {
        let mut forwarding = core::mem::take(&mut self.forwarding);
        for ticket in forwarding.current.drain(..).chain(forwarding.next.drain(..)) {
            self.refuse(ticket, Refusal::LeadershipLost, out);
        }
        self.forwarding = forwarding;
    }
}

impl Forwarding {
    pub(super) fn starting_at(batch: u64) -> Forwarding {
        Forwarding { batch, ..Forwarding::default() }
    }

    /// When the oldest read of the current batch arrived, and when the batch was last sent.
    pub(super) fn since_and_sent(&self) -> (Time, Time) {
        (self.current_since, self.sent)
    }

    /// Those of `next` are no older than those of `current`, and wait only while there are such.
    pub(super) fn deadline(&self, timing: &Timing) -> Option<Time> {
        let refuse = self.current_since + timing.election;
        (!self.current.is_empty()).then(|| refuse.min(self.sent + timing.heartbeat))
    }
}
