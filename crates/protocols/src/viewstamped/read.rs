//! Linearizable reads without a log write.
//!
//! A read may be served from any state that has applied the commit-number which a primary noted
//! after the read arrived, if a quorum confirmed after that that it was still in the primary's
//! view: no later view can have been started before, because a quorum would have left this one
//! for it. A new primary first has to commit what its view started with, because only then does it
//! know all that its predecessors committed. (The paper's fast reads, section 6.3, rest on leases
//! and so on clocks; these rest on neither.)
//!
//! Confirmation is a *round*: Prepare and Commit carry the number of the latest round, and answers
//! return it. All reads that arrive while a round is under way share the next one.

use super::message::Message;
use super::progress::Progress;
use super::{Standing, Viewstamped};
use crate::contract::Effects;
use crate::log::{Index, LogEvent, Refusal, Ticket, Timing};
use crate::types::{NodeId, Time};
use alloc::vec::Vec;

/// The reads of a primary's own host. Those of the backups' are in their [`Progress`].
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Reads {
    /// The latest round of this view.
    pub(super) round: u64,
    /// Whether a quorum has yet to answer it.
    under_way: bool,
    /// The commit-number noted when it began.
    commit: Index,
    current: Vec<Ticket>,
    next: Vec<Ticket>,
}

/// The reads that a backup has forwarded, and those that go with the next message.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Forwarding {
    batch: u64,
    current: Vec<Ticket>,
    next: Vec<Ticket>,
    /// When the oldest of each arrived.
    current_since: Time,
    next_since: Time,
    /// When the current batch was last sent.
    sent: Time,
}

/// At the primary.
impl Viewstamped {
    pub(super) fn on_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.standing == Standing::Abstaining {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if !self.is_primary() {
            return self.forward_read(ticket, out);
        }
        if self.reads.current.len() + self.reads.next.len() >= self.config.limits.reads_max {
            return self.refuse(ticket, Refusal::Busy, out);
        }
        self.reads.next.push(ticket);
        self.maybe_begin_round(out);
    }

    pub(super) fn on_read_at(&mut self, from: NodeId, batch: u64, out: &mut Effects<Self>) {
        if !self.is_primary() {
            return out.send(from, Message::ReadAtOk { batch, op: None });
        }
        let Some(peer) = self.progress.iter_mut().find(|peer| peer.id == from) else { return };
        // A repetition of what is being confirmed waits for that; anything else is new.
        if peer.read_current != Some(batch) {
            peer.read_next = Some(batch);
        }
        self.maybe_begin_round(out);
    }

    /// Begins to confirm the view for the reads that wait, unless there are none, a round is under
    /// way, or the commit-number is not yet known to cover all earlier views.
    pub(super) fn maybe_begin_round(&mut self, out: &mut Effects<Self>) {
        let waiting =
            !self.reads.next.is_empty() || self.progress.iter().any(|peer| peer.read_next.is_some());
        if !waiting || self.reads.under_way || self.commit < self.start {
            return;
        }
        self.reads.under_way = true;
        self.reads.round += 1;
        self.reads.commit = self.commit;
        core::mem::swap(&mut self.reads.current, &mut self.reads.next);
        for peer in &mut self.progress {
            peer.read_current = peer.read_next.take();
        }
        self.send_commits(out);
        self.maybe_confirm_round(out);
    }

    /// Serves the reads of the round if a quorum has answered it, and goes on with the next.
    pub(super) fn maybe_confirm_round(&mut self, out: &mut Effects<Self>) {
        if !self.reads.under_way {
            return;
        }
        let rounds = self.progress.iter().map(|peer| peer.round).chain([self.reads.round]);
        if self.configuration.reached(rounds) != Some(self.reads.round) {
            return;
        }
        self.reads.under_way = false;
        let op = self.reads.commit;
        for ticket in self.reads.current.drain(..) {
            // Early: the entries are on a quorum's disks, and that no later view had been started
            // when the read arrived is known from a quorum that had not left this one.
            out.event_early(LogEvent::ReadReady { ticket, index: op, valid_until: None });
        }
        for peer in &mut self.progress {
            if let Some(batch) = peer.read_current.take() {
                // Early: for the same reason.
                out.send_early(peer.id, Message::ReadAtOk { batch, op: Some(op) });
            }
        }
        self.maybe_begin_round(out);
    }

    /// The view is over: nothing that waits can be confirmed any more.
    pub(super) fn refuse_reads(&mut self, out: &mut Effects<Self>) {
        let mut reads = core::mem::take(&mut self.reads);
        for ticket in reads.current.drain(..).chain(reads.next.drain(..)) {
            self.refuse(ticket, Refusal::LeadershipLost, out);
        }
        for Progress { id, read_current, read_next, .. } in &mut self.progress {
            for batch in [read_current.take(), read_next.take()].into_iter().flatten() {
                out.send(*id, Message::ReadAtOk { batch, op: None });
            }
        }
        // The memory is kept for the next time.
        self.reads = Reads { current: reads.current, next: reads.next, ..Reads::default() };
    }
}

/// At a backup.
impl Viewstamped {
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

    /// Sends the reads that wait to the primary, if no others are on their way.
    fn maybe_forward(&mut self, out: &mut Effects<Self>) {
        let forwarding = &mut self.forwarding;
        if forwarding.next.is_empty() || !forwarding.current.is_empty() {
            return;
        }
        core::mem::swap(&mut forwarding.current, &mut forwarding.next);
        forwarding.current_since = forwarding.next_since;
        forwarding.batch = forwarding.batch.wrapping_add(1);
        self.send_read_at(out);
    }

    fn send_read_at(&mut self, out: &mut Effects<Self>) {
        self.forwarding.sent = self.now;
        if let Some(leader) = self.leader {
            // Early: the question promises nothing.
            out.send_early(leader, Message::ReadAt { batch: self.forwarding.batch });
        }
    }

    pub(super) fn on_read_at_ok(
        &mut self,
        from: NodeId,
        batch: u64,
        op: Option<Index>,
        out: &mut Effects<Self>,
    ) {
        if batch != self.forwarding.batch || self.leader != Some(from) {
            return;
        }
        let mut current = core::mem::take(&mut self.forwarding.current);
        for ticket in current.drain(..) {
            match op {
                // Early: the primary speaks of what is on a quorum's disks.
                Some(index) => out.event_early(LogEvent::ReadReady { ticket, index, valid_until: None }),
                None => self.refuse(ticket, Refusal::LeadershipLost, out),
            }
        }
        self.forwarding.current = current;
        self.maybe_forward(out);
    }

    /// A batch that was lost on the way is sent again after a heartbeat; the primary knows it by
    /// its number. When the oldest read has waited for an election timeout, all are refused.
    pub(super) fn retry_forwarded_reads(&mut self, out: &mut Effects<Self>) {
        let timing = self.config.timing;
        let forwarding = &mut self.forwarding;
        if !forwarding.current.is_empty() && self.now >= forwarding.current_since + timing.election {
            return self.refuse_forwarded_reads(out);
        }
        if !forwarding.current.is_empty() && self.now >= forwarding.sent + timing.heartbeat {
            self.send_read_at(out);
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

    /// Those of `next` are no older than those of `current`, and wait only while there are such.
    pub(super) fn deadline(&self, timing: &Timing) -> Option<Time> {
        let refuse = self.current_since + timing.election;
        (!self.current.is_empty()).then(|| refuse.min(self.sent + timing.heartbeat))
    }

    pub(super) fn digest(&self, now: Time, digest: &mut crate::fingerprint::Fingerprint) {
        use core::hash::Hash;
        (self.current.as_slice(), self.next.as_slice()).hash(digest);
        if !self.current.is_empty() {
            let ago = |time: Time| now.since(time).as_nanos() as u64;
            (self.batch, ago(self.current_since), ago(self.sent)).hash(digest);
        }
    }
}
