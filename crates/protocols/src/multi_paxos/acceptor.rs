//! The acceptor: what it promises, what it accepts, and what it learns to be chosen.

use super::membership::Advance;
use super::message::{Accept, Accepted, Message, Promise};
use super::record::{Pvalue, Record, Value};
use super::{MultiPaxos, Part};
use crate::ballot::Ballot;
use crate::contract::Effects;
use crate::log::{Index, LogAsk, Payload};
use crate::types::NodeId;
use alloc::vec::Vec;

/// Phase 1.
impl MultiPaxos {
    pub(super) fn on_probe(&mut self, from: NodeId, ballot: Ballot, out: &mut Effects<Self>) {
        if ballot.id != from {
            self.ignored += 1;
            return;
        }
        if ballot > self.pledge.ballot && self.is_loyal() || self.storage_full {
            return;
        }
        // Would it promise? Nothing of its own changes: not its promise, not its leader, not its timer.
        if ballot <= self.pledge.ballot {
            out.send(from, Message::Preempted { promised: self.pledge.ballot });
        } else if self.may_promise() {
            out.send(from, Message::Willing { ballot });
        }
    }

    pub(super) fn on_prepare(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        first: Index,
        transfer: bool,
        out: &mut Effects<Self>,
    ) {
        if ballot.id != from {
            self.ignored += 1;
            return;
        }
        if ballot < self.pledge.ballot {
            return out.send(from, Message::Preempted { promised: self.pledge.ballot });
        }
        // It was asked to take over by the leader to whom this member would be loyal.
        let disloyal = ballot > self.pledge.ballot && self.is_loyal() && !transfer;
        if disloyal || self.storage_full || !self.may_promise() {
            return;
        }
        if ballot > self.pledge.ballot {
            self.become_follower(ballot, None, out);
        }
        // As long as it prepares, it is on its way to lead.
        self.contact = Some(self.now);
        self.restart_election_timer();
        if self.log.base() < first && first < self.log.first_in_memory() {
            self.promise_wanted = Some((from, first));
            return;
        }
        let (pvalues, _) = match first <= self.log.base() {
            // All that is left of them is the state.
            true => (Vec::new(), 0),
            false => self.log.batch(first, self.config.limits.message_bytes_max),
        };
        self.send_promise(from, first, pvalues, out);
    }

    pub(super) fn send_promise(
        &mut self,
        to: NodeId,
        first: Index,
        pvalues: Vec<Pvalue>,
        out: &mut Effects<Self>,
    ) {
        let (ballot, last) = (self.pledge.ballot, self.log.last());
        let (chosen, base) = (self.chosen, self.log.base());
        // Held until the promise is durable: else this acceptor might forget it and accept under a
        // lower ballot, which the new proposer would not know of.
        out.send(to, Message::Promise(Promise { ballot, first, pvalues, last, chosen, base }));
    }
}

/// Phase 2.
impl MultiPaxos {
    pub(super) fn on_accept(&mut self, from: NodeId, accept: Accept, out: &mut Effects<Self>) {
        if accept.ballot < self.pledge.ballot {
            return out.send(from, Message::Preempted { promised: self.pledge.ballot });
        }
        if accept.ballot.id != from {
            self.ignored += 1;
            return;
        }
        if self.storage_full && (accept.ballot > self.pledge.ballot || !accept.values.is_empty()) {
            return;
        }
        self.become_follower(accept.ballot, Some(from), out);
        self.contact = Some(self.now);
        self.restart_election_timer();

        let Accept { first, chosen, read_round, reply, mut values, .. } = accept;
        let gap = first > self.upto.next();
        self.learn(chosen);
        if !gap {
            // What it has accepted under this ballot, or knows to be chosen, stays as it is: a
            // message that is late or repeated says nothing new about it.
            let held = (self.upto.next().0 - first.0) as usize;
            if held < values.len() {
                let new = if held == 0 { values } else { values.split_off(held) };
                self.accept(new, out);
            }
            self.learn(chosen);
        }
        if reply || gap {
            // Held: it says what this step and earlier ones have accepted.
            out.send(from, Message::Accepted(self.accepted(read_round, gap)));
        }
        self.maybe_ask_for_the_end(from, out);
    }

    /// What it has accepted, to its leader.
    pub(super) fn accepted(&self, read_round: u64, gap: bool) -> Accepted {
        let clear = self.may_promise() && self.log.last() == self.upto;
        Accepted { ballot: self.pledge.ballot, upto: self.upto, read_round, gap, clear }
    }

    /// Accepts values at the next slots under the promised ballot, in memory and on disk, and
    /// arranges to learn when the disk has them.
    pub(super) fn accept(&mut self, values: Vec<Value>, out: &mut Effects<Self>) {
        assert!(!values.is_empty(), "something is accepted");
        let ballot = self.pledge.ballot;
        let first = self.upto.next();
        self.upto = Index(self.upto.0 + values.len() as u64);
        let mut pvalues: Vec<_> = values.into_iter().map(|value| Pvalue { ballot, value }).collect();
        // What was accepted further on, under lower ballots, may have been chosen: it stays.
        pvalues.extend(self.log.range(self.upto.next(), self.log.last()).cloned());
        let before = self.log.bytes();
        self.log.replace(first, &pvalues);
        self.open_bytes = self.open_bytes + self.log.bytes() - before;
        self.stored = self.stored.min(first.previous());
        self.writing = ballot;
        out.record(Record::Accepted { first, pvalues, chosen: self.chosen });
        self.send_to_self(Message::Accepted(self.accepted(0, false)), out);
    }

    /// The proposer of the promised ballot knows the slots up to `chosen` to be chosen. Its value
    /// is the one in this log only where that was accepted under this ballot: elsewhere the log
    /// may hold what somebody proposed in vain.
    pub(super) fn learn(&mut self, chosen: Index) {
        let chosen = chosen.min(self.upto);
        if chosen > self.chosen {
            let closed = self.log.range(self.chosen.next(), chosen);
            self.open_bytes -= closed.map(|pvalue| pvalue.value.cost()).sum::<usize>();
            self.note_chosen(chosen);
        }
    }

    /// The slots up to there, which are in memory, are chosen as this log has them: so are the changes of
    /// members among them.
    pub(super) fn note_chosen(&mut self, chosen: Index) {
        for slot in (self.chosen.next().0..=chosen.0).map(Index) {
            let value = self.log.get(slot).map(|pvalue| &pvalue.value);
            if let Some(Payload::Membership(entry)) = value.map(|value| &value.payload) {
                let noted = self.membership.note(slot, entry);
                self.ignored += u64::from(!noted);
                self.members_changed |= noted;
            }
        }
        self.chosen = self.chosen.max(chosen);
        let advance = self.membership.advance(self.chosen);
        if advance != Advance::Nothing {
            self.members_changed = true;
            self.note_in_effect(advance);
        }
    }

    /// What was accepted under `ballot` up to a slot is on this member's disk. Under one ballot
    /// nothing is ever replaced; so if nothing has been written under another since, the log up
    /// to there is what the disk holds. If something has, its own word will come.
    pub(super) fn on_stored(&mut self, accepted: Accepted, out: &mut Effects<Self>) {
        if accepted.ballot != self.writing || accepted.upto <= self.stored || accepted.upto > self.log.last()
        {
            return;
        }
        self.stored = accepted.upto;
        if self.part == Part::Leader {
            self.maybe_choose(out);
        }
    }

    /// The leader no longer has the values that this member lacks.
    pub(super) fn on_compacted(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        base: Index,
        out: &mut Effects<Self>,
    ) {
        if ballot < self.pledge.ballot {
            return out.send(from, Message::Preempted { promised: self.pledge.ballot });
        }
        if ballot.id != from || self.storage_full {
            self.ignored += 1;
            return;
        }
        self.become_follower(ballot, Some(from), out);
        self.contact = Some(self.now);
        self.restart_election_timer();
        if base > self.upto {
            out.ask(LogAsk::Snapshot { from, index: base });
        } else {
            out.send(from, Message::Accepted(self.accepted(0, true)));
        }
        self.maybe_ask_for_the_end(from, out);
    }
}
