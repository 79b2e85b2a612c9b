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
use super::{MultiPaxos, Part};
use crate::contract::Effects;
use crate::log::{Index, Refusal, Ticket};
use crate::reading::Overdue;
use crate::types::NodeId;

/// At the leader.
impl MultiPaxos {
    pub(super) fn on_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.pledge.uncertain {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leader {
            return self.forward_read(ticket, out);
        }
        if let Err(why) = self.reads.push(ticket, self.config.limits.reads_max) {
            return self.refuse(ticket, why, out);
        }
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
        peer.reads.ask(batch);
        self.maybe_begin_round(out);
    }

    /// Begins to confirm the ballot for the reads that wait, unless this leader does not know yet
    /// all that is chosen.
    pub(super) fn maybe_begin_round(&mut self, out: &mut Effects<Self>) {
        if self.chosen < self.opening {
            return;
        }
        let peers = self.progress.iter_mut().map(|peer| &mut peer.reads);
        if self.reads.begin(self.chosen, peers) {
            self.send_heartbeats(out);
            self.maybe_confirm_round(out);
        }
    }

    /// Serves the reads of the round if a quorum has answered it, and goes on with the next.
    pub(super) fn maybe_confirm_round(&mut self, out: &mut Effects<Self>) {
        let Some(round) = self.reads.confirming() else { return };
        let has_answered = |id| self.peer(id).map_or(id == self.config.id, |peer| peer.read_round >= round);
        if !self.membership.current().has_quorum(has_answered) {
            return;
        }
        let index = self.reads.confirm(out);
        for peer in &mut self.progress {
            if let Some(batch) = peer.reads.confirmed() {
                // Early, like an answer to this host: it speaks of a quorum's disks.
                out.send_early(peer.id, Message::ReadIndexReply { batch, index: Some(index) });
            }
        }
        self.maybe_begin_round(out);
    }

    /// Leadership is lost: nothing that waits can be confirmed any more.
    pub(super) fn refuse_reads(&mut self, out: &mut Effects<Self>) {
        self.reads.refuse(out);
        for peer in &mut self.progress {
            for batch in peer.reads.drain() {
                out.send(peer.id, Message::ReadIndexReply { batch, index: None });
            }
        }
    }
}

/// At a follower.
impl MultiPaxos {
    fn forward_read(&mut self, ticket: Ticket, out: &mut Effects<Self>) {
        if self.leader.is_none() {
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
            self.send_read_index(batch, out);
        }
    }

    fn send_read_index(&self, batch: u64, out: &mut Effects<Self>) {
        if let Some(leader) = self.leader {
            // Early: the question promises nothing.
            out.send_early(leader, Message::ReadIndex { batch });
        }
    }

    pub(super) fn on_read_index_reply(
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
            Some(Overdue::Repeat(batch)) => self.send_read_index(batch, out),
            Some(Overdue::GiveUp) => self.forwarding.refuse(out),
            None => {}
        }
    }
}
