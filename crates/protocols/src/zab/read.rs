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

use super::message::Message;
use super::{Part, Phase, Zab};
use crate::contract::Effects;
use crate::log::{Index, Refusal, Ticket};
use crate::reading::Overdue;
use crate::types::NodeId;

/// At the leader.
impl Zab {
    pub(super) fn on_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.epochs.uncertain {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leading(Phase::Broadcast) {
            return self.forward_read(ticket, out);
        }
        if let Err(why) = self.reads.push(ticket, self.config.limits.reads_max) {
            return self.refuse(ticket, why, out);
        }
        self.maybe_begin_round(out);
    }

    pub(super) fn on_sync(&mut self, from: NodeId, batch: u64, out: &mut Effects<Self>) {
        if self.part != Part::Leading(Phase::Broadcast) {
            return out.send(from, Message::SyncReply { batch, index: None });
        }
        let Some(i) = self.learner(from) else { return };
        self.learners[i].reads.ask(batch);
        self.maybe_begin_round(out);
    }

    /// Begins to confirm leadership for the reads that wait, unless the leader is not established.
    pub(super) fn maybe_begin_round(&mut self, out: &mut Effects<Self>) {
        if self.part != Part::Leading(Phase::Broadcast) {
            return;
        }
        let peers = self.learners.iter_mut().map(|learner| &mut learner.reads);
        if self.reads.begin(self.commit, peers) {
            self.send_pings(out);
            self.maybe_confirm_round(out);
        }
    }

    /// Serves the reads of the round if a quorum has answered it, and goes on with the next.
    pub(super) fn maybe_confirm_round(&mut self, out: &mut Effects<Self>) {
        let Some(round) = self.reads.confirming() else { return };
        if !self.membership.current().has_quorum(|id| self.is_own_or(id, |learner| learner.round >= round)) {
            return;
        }
        let index = self.reads.confirm(out);
        for learner in &mut self.learners {
            if let Some(batch) = learner.reads.confirmed() {
                // Early, like an answer to this host: it speaks of a quorum's disks.
                out.send_early(learner.id, Message::SyncReply { batch, index: Some(index) });
            }
        }
        self.maybe_begin_round(out);
    }

    /// Leadership is lost: nothing that waits can be confirmed any more.
    pub(super) fn refuse_reads(&mut self, out: &mut Effects<Self>) {
        self.reads.refuse(out);
        for learner in &mut self.learners {
            for batch in learner.reads.drain() {
                out.send(learner.id, Message::SyncReply { batch, index: None });
            }
        }
    }
}

/// At a follower.
impl Zab {
    fn forward_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.part != Part::Following(Phase::Broadcast) {
            return self.refuse(ticket, Refusal::NotLeader { leader: None }, out);
        }
        if let Err(why) = self.forwarding.push(ticket, self.now, self.config.limits.reads_max) {
            return self.refuse(ticket, why, out);
        }
        self.maybe_forward(out);
    }

    /// Asks the leader about the reads that wait, if no others are on their way.
    fn maybe_forward(&mut self, out: &mut Effects<Self>) {
        if let Some(batch) = self.forwarding.begin(self.now) {
            self.send_sync(batch, out);
        }
    }

    fn send_sync(&self, batch: u64, out: &mut Effects<Self>) {
        if let Some(leader) = self.leader {
            // Early: the question promises nothing.
            out.send_early(leader, Message::Sync { batch });
        }
    }

    pub(super) fn on_sync_reply(
        &mut self,
        from: NodeId,
        batch: u64,
        index: Option<Index>,
        out: &mut Effects<Self>,
    ) {
        if self.leader == Some(from) && self.forwarding.answer(batch, index, out) {
            self.maybe_forward(out);
        }
    }

    /// A batch that was lost on the way is sent again after a heartbeat; the leader knows it by
    /// its number. When the oldest read has waited for an election timeout, all are refused.
    pub(super) fn retry_forwarded_reads(&mut self, out: &mut Effects<Self>) {
        match self.forwarding.overdue(self.now, &self.config.timing) {
            Some(Overdue::Repeat(batch)) => self.send_sync(batch, out),
            Some(Overdue::GiveUp) => self.forwarding.refuse(out),
            None => {}
        }
    }
}
