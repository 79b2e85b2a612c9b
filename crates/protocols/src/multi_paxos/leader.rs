//! Phase 2: the leader proposes, counts who has accepted, and says what is chosen.

use super::log::values_of;
use super::message::{Accept, Accepted, Message};
use super::progress::Sending;
use super::record::{Pvalue, Value};
use super::{MultiPaxos, Part};
use crate::contract::Effects;
use crate::log::{Index, Payload};
use crate::types::NodeId;
use alloc::vec::Vec;

/// Sending.
impl MultiPaxos {
    /// A new leader proposes what phase 1 has found, and a no-op. `known`: who has promised; what each
    /// knows to be chosen, which is from where on it needs values; and whether it has told all.
    pub(super) fn begin_phase2(
        &mut self,
        known: Vec<(NodeId, Index, bool)>,
        found: Vec<Pvalue>,
        out: &mut Effects<Self>,
    ) {
        let open = self.chosen.next();
        for peer in &mut self.progress {
            let known = known.iter().find(|(id, ..)| *id == peer.id);
            let promised = known.map(|(_, chosen, _)| *chosen);
            let next = promised.map_or(open, Index::next).max(self.log.base().next());
            peer.reset(promised, next, self.now);
            peer.told = known.is_some_and(|(_, _, told)| *told);
        }
        self.catch_up_wanted = false;
        self.chosen_at_heartbeat = self.chosen;
        self.opening = Index(self.chosen.0 + found.len() as u64).next();
        // What the window does not reach yet stands in this log as it was accepted by others: a later
        // phase 1 may find it here too, as it is true that it was proposed.
        self.log.replace(open, &found);
        self.count_open_bytes();
        self.waiting_bytes = found.iter().map(|pvalue| pvalue.value.cost()).sum();
        self.waiting = values_of(found).into();
        self.wait_to_propose(Payload::Noop);
        self.propose_waiting(out);
    }

    /// Leadership is lost.
    pub(super) fn end_phase2(&mut self, out: &mut Effects<Self>) {
        self.refuse_reads(out);
        for peer in &mut self.progress {
            peer.reset(None, Index(1), crate::types::Time::ZERO);
        }
        self.progress.retain(|peer| peer.leaving.is_none());
        self.catch_up_wanted = false;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.abandon_change(out);
    }

    pub(super) fn replicate_to_all(&mut self, out: &mut Effects<Self>) {
        for i in 0..self.progress.len() {
            self.replicate(i, out);
        }
    }

    /// Sends a peer what it lacks, as far as its window allows.
    pub(super) fn replicate(&mut self, i: usize, out: &mut Effects<Self>) {
        loop {
            let base = self.log.base();
            let peer = &mut self.progress[i];
            if peer.next <= base {
                // What it lacks is no longer in the log. Early: it says what this member's durable
                // state covers.
                peer.probe(base.next(), true);
                let (to, ballot) = (peer.id, self.pledge.ballot);
                return out.send_early(to, Message::Compacted { ballot, base });
            }
            let next = peer.next;
            match peer.sending {
                Sending::Probe { waiting: true } => return,
                Sending::Probe { waiting: false } => {
                    peer.sending = Sending::Probe { waiting: true };
                    let pvalues = if next >= self.log.first_in_memory() {
                        self.log.batch(next, self.config.limits.message_bytes_max).0
                    } else {
                        Vec::new()
                    };
                    return self.send_accept(i, values_of(pvalues), true, out);
                }
                Sending::Pipeline if next > self.log.last() => return,
                Sending::Pipeline if next < self.log.first_in_memory() => {
                    self.catch_up_wanted = true;
                    return;
                }
                Sending::Pipeline => {
                    let room = peer.window.room(&self.config.limits);
                    let cost = self.log.get(next).map_or(0, |pvalue| pvalue.value.cost());
                    if !peer.window.takes(cost, room) {
                        return;
                    }
                    let (pvalues, cost) = self.log.batch(next, room);
                    self.send_pipelined(i, pvalues, cost, out);
                }
            }
        }
    }

    pub(super) fn send_pipelined(
        &mut self,
        i: usize,
        pvalues: Vec<Pvalue>,
        cost: usize,
        out: &mut Effects<Self>,
    ) {
        let last = Index(self.progress[i].next.0 + pvalues.len() as u64 - 1);
        self.send_accept(i, values_of(pvalues), true, out);
        self.progress[i].sent(last, cost);
    }

    /// Sends the values at `next` and after it.
    fn send_accept(&mut self, i: usize, values: Vec<Value>, reply: bool, out: &mut Effects<Self>) {
        let peer = &mut self.progress[i];
        peer.chosen_sent = self.chosen;
        let accept = Accept {
            ballot: self.pledge.ballot,
            first: peer.next,
            chosen: self.chosen,
            read_round: self.reads.latest(),
            reply,
            values,
        };
        // Early, before this member's own disk has the values: a proposer that crashes and forgets
        // them never proposes under this ballot again, because its promise of it was durable
        // before anybody else's was asked for; so nothing else is ever proposed at these slots
        // under it. It does not count itself among the quorum before its disk has them.
        out.send_early(peer.id, Message::Accept(accept));
    }

    /// An Accept without values after the last one sent: the answer says that all arrived, or that
    /// some were lost. For a peer that is probed it repeats the probe.
    pub(super) fn send_heartbeats(&mut self, out: &mut Effects<Self>) {
        self.heartbeat_deadline = self.now + self.config.timing.heartbeat;
        self.chosen_at_heartbeat = self.chosen;
        let (now, election) = (self.now, self.config.timing.election);
        self.progress.retain(|peer| !peer.is_gone(now, election));
        for i in 0..self.progress.len() {
            self.send_accept(i, Vec::new(), true, out);
        }
        self.repeat_hand_over(out);
    }

    /// A peer that has everything which is chosen learns so at once, unless something else has
    /// told it.
    fn maybe_push_chosen(&mut self, i: usize, out: &mut Effects<Self>) {
        let peer = &self.progress[i];
        if peer.sending == Sending::Pipeline
            && peer.chosen_sent < self.chosen
            && peer.accepted >= self.chosen
            && peer.next > self.log.last()
        {
            self.send_accept(i, Vec::new(), false, out);
        }
    }
}

/// Answers.
impl MultiPaxos {
    pub(super) fn on_accepted(&mut self, from: NodeId, accepted: Accepted, out: &mut Effects<Self>) {
        if self.part != Part::Leader || accepted.ballot != self.pledge.ballot {
            return;
        }
        let Some(i) = self.progress.iter().position(|peer| peer.id == from) else {
            self.ignored += 1;
            return;
        };
        if accepted.upto > self.log.last() || accepted.read_round > self.reads.latest() {
            self.ignored += 1;
            return;
        }
        let peer = &mut self.progress[i];
        peer.heard = self.now;
        peer.answered = true;
        peer.told |= accepted.clear;
        peer.read_round = peer.read_round.max(accepted.read_round);
        if accepted.gap {
            self.on_gap(i, accepted.upto);
        } else if peer.acknowledge(accepted.upto) && accepted.upto > self.chosen {
            self.maybe_choose(out);
        }
        self.maybe_confirm_round(out);
        self.replicate(i, out);
        self.maybe_push_chosen(i, out);
        self.maybe_hand_over(out);
    }

    /// Something was lost before the message that the peer answers, or the peer has restarted and
    /// no longer knows how far it had come.
    fn on_gap(&mut self, i: usize, upto: Index) {
        let peer = &mut self.progress[i];
        // If it is what is sent next anyway, the answer is about an earlier message.
        let stale = matches!(peer.sending, Sending::Probe { .. }) && peer.next == upto.next();
        if !stale {
            peer.probe(upto.next(), false);
        }
    }

    /// What a quorum has accepted under this ballot is chosen; so is everything before it, because
    /// who has accepted a slot has accepted all before it, or knows them to be chosen.
    pub(super) fn maybe_choose(&mut self, out: &mut Effects<Self>) {
        let before = self.chosen;
        while let Some(chosen) = self.next_chosen() {
            self.learn(chosen);
        }
        if self.chosen == before {
            return;
        }
        for i in 0..self.progress.len() {
            self.maybe_push_chosen(i, out);
        }
        self.maybe_begin_round(out);
    }

    /// Up to where a quorum of those who govern the first open slot has accepted, as far as they govern.
    fn next_chosen(&self) -> Option<Index> {
        let (configuration, end) = self.membership.governing(self.chosen.next());
        let accepted = |id| match id == self.config.id {
            true => Some(self.stored),
            false => self.peer(id).map(|peer| peer.accepted),
        };
        let reached = configuration.reached(accepted)?.min(self.upto);
        Some(end.map_or(reached, |end| reached.min(end))).filter(|reached| *reached > self.chosen)
    }

    /// A connection begins with what is known: everything that was in flight may be lost.
    pub(super) fn on_link_up(&mut self, peer: NodeId, out: &mut Effects<Self>) {
        if self.part == Part::Preparing && self.peer(peer).is_some() {
            return self.send_prepare(peer, out);
        }
        if self.part == Part::Leader
            && let Some(i) = self.progress.iter().position(|progress| progress.id == peer)
        {
            let next = self.progress[i].accepted.max(self.log.base()).next();
            self.progress[i].probe(next, false);
            self.replicate(i, out);
        }
    }

    /// Nothing is sent to the peer beyond heartbeats before it answers again.
    pub(super) fn on_link_down(&mut self, peer: NodeId) {
        if self.part == Part::Leader {
            let base = self.log.base();
            if let Some(progress) = self.progress.iter_mut().find(|progress| progress.id == peer) {
                progress.probe(progress.accepted.max(base).next(), true);
                progress.answered = false;
            }
        } else if self.part == Part::Follower && self.pledge.ballot.id == peer {
            self.hasten_election();
        }
    }
}
