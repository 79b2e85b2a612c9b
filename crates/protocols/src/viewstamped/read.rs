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
use super::{Standing, Viewstamped};
use crate::contract::Effects;
use crate::log::{Index, LogEvent, Refusal, Ticket};
use crate::reading::Overdue;
use crate::types::NodeId;

/// At the primary.
impl Viewstamped {
    pub(super) fn on_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.standing == Standing::Abstaining {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if !self.is_primary() {
            return self.forward_read(ticket, out);
        }
        if let Some(until) = self.leased_until() {
            let index = self.commit;
            // Early: the index is committed, and that nobody else can have committed more is known
            // from a quorum's promises, which a restart does not shorten.
            return out.event_early(LogEvent::ReadReady { ticket, index, valid_until: Some(until) });
        }
        if let Err(why) = self.reads.push(ticket, self.config.limits.reads_max) {
            return self.refuse(ticket, why, out);
        }
        self.maybe_begin_round(out);
    }

    pub(super) fn on_read_at(&mut self, from: NodeId, batch: u64, out: &mut Effects<Self>) {
        if !self.is_primary() {
            return out.send(from, Message::ReadAtOk { batch, op: None });
        }
        let leased = self.leased_until().is_some();
        let Some(peer) = self.progress.iter_mut().find(|peer| peer.id == from) else { return };
        if leased {
            // Early: as for a read of this host's. The backup needs no time to compare with: the lease
            // holds now, after the read arrived there.
            return out.send_early(from, Message::ReadAtOk { batch, op: Some(self.commit) });
        }
        peer.reads.ask(batch);
        self.maybe_begin_round(out);
    }

    /// Begins to confirm the view for the reads that wait, unless the commit-number is not yet known
    /// to cover all earlier views.
    pub(super) fn maybe_begin_round(&mut self, out: &mut Effects<Self>) {
        if self.commit < self.start {
            return;
        }
        let peers = self.progress.iter_mut().map(|peer| &mut peer.reads);
        if self.reads.begin(self.commit, peers) {
            self.send_commits(out);
            self.maybe_confirm_round(out);
        }
    }

    /// Serves the reads of the round if a quorum has answered it, and goes on with the next.
    pub(super) fn maybe_confirm_round(&mut self, out: &mut Effects<Self>) {
        let Some(round) = self.reads.confirming() else { return };
        if self.reached(&self.epochs.current, round, |peer| peer.round) < Some(round) {
            return;
        }
        let index = self.reads.confirm(out);
        for peer in &mut self.progress {
            if let Some(batch) = peer.reads.confirmed() {
                // Early, like an answer to this host: it speaks of a quorum's disks.
                out.send_early(peer.id, Message::ReadAtOk { batch, op: Some(index) });
            }
        }
        self.maybe_begin_round(out);
    }

    /// The view is over: nothing that waits can be confirmed any more.
    pub(super) fn refuse_reads(&mut self, out: &mut Effects<Self>) {
        self.reads.refuse(out);
        for peer in &mut self.progress {
            for batch in peer.reads.drain() {
                out.send(peer.id, Message::ReadAtOk { batch, op: None });
            }
        }
    }
}

/// At a backup.
impl Viewstamped {
    fn forward_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.leader.is_none() {
            return self.refuse(ticket, Refusal::NotLeader { leader: None }, out);
        }
        if let Err(why) = self.forwarding.push(ticket, self.now, self.config.limits.reads_max) {
            return self.refuse(ticket, why, out);
        }
        self.maybe_forward(out);
    }

    /// Asks the primary about the reads that wait, if no others are on their way.
    fn maybe_forward(&mut self, out: &mut Effects<Self>) {
        if let Some(batch) = self.forwarding.begin(self.now) {
            self.send_read_at(batch, out);
        }
    }

    fn send_read_at(&self, batch: u64, out: &mut Effects<Self>) {
        if let Some(leader) = self.leader {
            // Early: the question promises nothing.
            out.send_early(leader, Message::ReadAt { batch });
        }
    }

    pub(super) fn on_read_at_ok(
        &mut self,
        from: NodeId,
        batch: u64,
        op: Option<Index>,
        out: &mut Effects<Self>,
    ) {
        if self.leader == Some(from) && self.forwarding.answer(batch, op, out) {
            self.maybe_forward(out);
        }
    }

    /// A batch that was lost on the way is sent again after a heartbeat; the primary knows it by
    /// its number. When the oldest read has waited for an election timeout, all are refused.
    pub(super) fn retry_forwarded_reads(&mut self, out: &mut Effects<Self>) {
        match self.forwarding.overdue(self.now, &self.config.timing) {
            Some(Overdue::Repeat(batch)) => self.send_read_at(batch, out),
            Some(Overdue::GiveUp) => self.forwarding.refuse(out),
            None => {}
        }
    }
}
