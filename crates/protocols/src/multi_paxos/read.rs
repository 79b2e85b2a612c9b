//! Linearizable reads without a log write.
//!
//! A read may be served from any state that has applied the *read index*: what a leader knew to be
//! chosen after the read arrived, when a quorum answered under the leader's ballot after that. A
//! quorum that answers has promised no higher ballot, so no later leader can have had anything
//! chosen before the read arrived. A new leader waits until its opening no-op is chosen, because
//! only then does it know all that its predecessors had chosen to be so.
//!
//! Confirmation is a *round*: Accepts carry the number of the latest, and Accepteds return it. All
//! reads that arrive while a round is under way share the next one.

use super::message::Message;
use super::progress::Progress;
use super::{MultiPaxos, Part, Standing};
use crate::contract::Effects;
use crate::log::{Index, LogEvent, Refusal, Ticket, Timing};
use crate::types::{NodeId, Time};
use alloc::vec::Vec;

/// The reads of a leader's own host. Those of its followers' are in their [`Progress`].
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Reads {
    /// The latest round under this ballot.
    pub(super) round: u64,
    /// Whether a quorum has yet to answer it.
    under_way: bool,
    /// What was known to be chosen when it began.
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
impl MultiPaxos {
    pub(super) fn on_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.standing == Standing::Abstaining {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leader {
            return self.forward_read(ticket, out);
        }
        if self.reads.current.len() + self.reads.next.len() >= self.config.limits.reads_max {
            return self.refuse(ticket, Refusal::Busy, out);
        }
        self.reads.next.push(ticket);
        self.maybe_begin_round(out);
    }

    pub(super) fn on_read_index(&mut self, from: NodeId, batch: u64, out: &mut Effects<Self>) {
        if self.part != Part::Leader {
            return out.send(from, Message::ReadIndexReply { batch, index: None });
        }
        let Some(peer) = self.progress.iter_mut().find(|peer| peer.id == from) else {
            self.ignored += 1;
            return;
        };
        // A repetition of what is being confirmed waits for that; anything else is new.
        if peer.read_current != Some(batch) {
            peer.read_next = Some(batch);
        }
        self.maybe_begin_round(out);
    }

    /// Begins to confirm the ballot for the reads that wait, unless there are none, a round is
    /// under way, or this leader does not know yet all that is chosen.
    pub(super) fn maybe_begin_round(&mut self, out: &mut Effects<Self>) {
        let waiting =
            !self.reads.next.is_empty() || self.progress.iter().any(|peer| peer.read_next.is_some());
        let knows_all = self.chosen >= self.opening;
        if !waiting || self.reads.under_way || !knows_all {
            return;
        }
        self.reads.under_way = true;
        self.reads.round += 1;
        self.reads.index = self.chosen;
        core::mem::swap(&mut self.reads.current, &mut self.reads.next);
        for peer in &mut self.progress {
            peer.read_current = peer.read_next.take();
        }
        self.send_heartbeats(out);
        self.maybe_confirm_round(out);
    }

    /// Serves the reads of the round if a quorum has answered it, and goes on with the next.
    pub(super) fn maybe_confirm_round(&mut self, out: &mut Effects<Self>) {
        if !self.reads.under_way {
            return;
        }
        let rounds = self.progress.iter().map(|peer| peer.read_round).chain([self.reads.round]);
        if self.membership.reached(rounds) != Some(self.reads.round) {
            return;
        }
        self.reads.under_way = false;
        let index = self.reads.index;
        for ticket in self.reads.current.drain(..) {
            // Early: the slot is chosen, and that no higher ballot was led when the read arrived
            // is known from durable answers of a quorum.
            out.event_early(LogEvent::ReadReady { ticket, index, valid_until: None });
        }
        for peer in &mut self.progress {
            if let Some(batch) = peer.read_current.take() {
                // Early: for the same reason.
                out.send_early(peer.id, Message::ReadIndexReply { batch, index: Some(index) });
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
        for Progress { id, read_current, read_next, .. } in &mut self.progress {
            for batch in [read_current.take(), read_next.take()].into_iter().flatten() {
                out.send(*id, Message::ReadIndexReply { batch, index: None });
            }
        }
        // The memory is kept for the next time.
        self.reads = Reads { current: reads.current, next: reads.next, ..Reads::default() };
    }
}

/// At a follower.
impl MultiPaxos {
    fn forward_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.leader.is_none() {
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
        self.send_read_index(out);
    }

    fn send_read_index(&mut self, out: &mut Effects<Self>) {
        self.forwarding.sent = self.now;
        if let Some(leader) = self.leader {
            // Early: the question promises nothing.
            out.send_early(leader, Message::ReadIndex { batch: self.forwarding.batch });
        }
    }

    pub(super) fn on_read_index_reply(
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
            self.send_read_index(out);
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
