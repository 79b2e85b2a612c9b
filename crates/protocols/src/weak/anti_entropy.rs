//! Anti-entropy: two replicas find out where they differ, and one takes over what the other has.
//!
//! At every round of gossip a replica says to everybody what it has seen. Who finds that it lacks something which cannot be
//! sent as updates any more *pulls*: it sends the digests of its leaves, and is sent all leaves that differ, as they are
//! at one moment, together with what their sender had seen at that moment. Merged in one step, this leaves it with what both
//! had; afterwards it has seen what both had seen. Taking over the context is what lets removed cells stay removed, and
//! it is only right because the answer speaks of *all* leaves: those that are not in it are as they were when the
//! question was sent, so what came into them meanwhile, and was seen by the sender as well, was replaced there.
//!
//! An answer is cut into parts of bounded size, which only count together. If one is lost a later round asks again.

use super::WeakReplica;
use super::clock::Stamp;
use super::dots::{CausalContext, Dot};
use super::object::{Cell, Name, Object};
use super::replica::Replica;
use super::store::{Changes, LEAVES};
use super::update::{Answer, Message, Objects, Record};
use crate::contract::Effects;
use crate::types::{NodeId, Time};
use crate::wire::Wire;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

/// Parts of one answer at the most. An answer of more is not taken.
pub const PARTS_MAX: u64 = 1 << 16;

/// A question under way.
#[derive(Clone, Debug)]
pub(super) struct Pull {
    from: NodeId,
    asked: Time,
    /// Updates that were shown here since it was asked.
    pub(super) since: BTreeSet<Dot>,
    /// What the sender had seen. Parts of another moment, when the question was answered twice, do not go with these.
    seen: CausalContext,
    parts: BTreeMap<u64, Objects>,
}

impl Replica {
    /// Asks for what differs, unless it waits for an answer.
    pub(super) fn pull<P: WeakReplica>(&mut self, now: Time, from: NodeId, out: &mut Effects<P>) {
        let is_waiting = |pull: &Pull| now.since(pull.asked) < self.config.timing.pull_max;
        if self.pull.as_ref().is_some_and(is_waiting) {
            return;
        }
        self.rounds += 1;
        self.pull = Some(Pull {
            from,
            asked: now,
            since: BTreeSet::new(),
            seen: CausalContext::new(),
            parts: BTreeMap::new(),
        });
        out.send(from, Message::Pull { round: self.rounds, leaves: self.store.leaves().to_vec() });
    }

    /// Sends all leaves that differ from these.
    pub(super) fn on_pull<P: WeakReplica>(
        &mut self,
        from: NodeId,
        round: u64,
        theirs: &[u64],
        out: &mut Effects<P>,
    ) {
        if theirs.len() != LEAVES {
            self.ignored += 1;
            return;
        }
        let own = self.store.leaves();
        let differing: BTreeSet<u64> =
            (0..LEAVES as u64).filter(|leaf| own[*leaf as usize] != theirs[*leaf as usize]).collect();
        let mut parts: Vec<Objects> = vec![Vec::new()];
        let mut bytes = 0;
        for (name, object) in self.store.of_leaves(&differing) {
            let object: (Name, Vec<(Dot, Cell)>) = (name, object.into_iter().collect());
            let size = object.to_bytes().len();
            if bytes > 0 && bytes + size > self.config.limits.batch_bytes_max {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            parts.last_mut().expect("there is one").push(object);
        }
        let count = parts.len() as u64;
        for (part, objects) in (0..).zip(parts) {
            let answer = Answer {
                round,
                part,
                parts: count,
                seen: self.seen.clone(),
                clock: self.clock.latest(),
                leaves: differing.iter().copied().collect(),
                objects,
                covered: self.store.covered().cloned().collect(),
            };
            out.send(from, Message::Part { answer });
        }
    }

    /// Takes a part of an answer, and merges when all are here. Says whether that was so.
    pub(super) fn on_part<P: WeakReplica>(
        &mut self,
        now: Time,
        from: NodeId,
        mut answer: Answer,
        out: &mut Effects<P>,
    ) -> bool {
        let Answer { round, part, parts, .. } = answer;
        let is_asked = |pull: &&mut Pull| pull.from == from && part < parts && parts <= PARTS_MAX;
        let Some(pull) = self.pull.as_mut().filter(is_asked).filter(|_| round == self.rounds) else {
            return false;
        };
        if pull.seen != answer.seen {
            pull.seen = answer.seen.clone();
            pull.parts.clear();
        }
        pull.parts.insert(part, core::mem::take(&mut answer.objects));
        if (pull.parts.len() as u64) < parts {
            return false;
        }
        let Some(Pull { parts, since, .. }) = self.pull.take() else { return false };
        let cells = parts.values().flatten().flat_map(|(_, cells)| cells);
        let latest = cells.map(|(_, cell)| cell.stamp).fold(answer.clock, Stamp::max);
        if !self.is_due(now, latest, out) {
            self.ignored += 1;
            return false;
        }
        let theirs: BTreeMap<Name, Object> =
            parts.into_values().flatten().map(|(name, cells)| (name, cells.into_iter().collect())).collect();
        let changes = self.store.merge(&self.seen, &answer, &theirs, &since);
        self.take_over(answer.seen, latest, changes, out);
        true
    }

    /// What another one has seen counts as seen, once the objects are as these changes make them.
    pub(super) fn take_over<P: WeakReplica>(
        &mut self,
        seen: CausalContext,
        clock: Stamp,
        changes: Changes,
        out: &mut Effects<P>,
    ) {
        self.seen.join(&seen);
        self.store.change(&changes, &self.seen);
        self.clock.witness(clock);
        let clock = self.clock.latest();
        out.record(Record::Merged { seen: self.seen.clone(), clock, changes });
        self.maybe_caught_up(out);
    }
}
