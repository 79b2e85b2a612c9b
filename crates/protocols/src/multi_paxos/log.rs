//! An acceptor's log: what it has accepted at each slot, without gaps.
//!
//! A bounded tail is in memory. What is evicted is chosen, and so never replaced; its ballots are
//! kept as runs, so that a slot which the host reads back can be told from what stood there before.
//! They are runs because a slot is known to be chosen only when it and all before it were accepted
//! under one ballot or known to be chosen already: over chosen slots the ballots only rise.

use super::record::{Pvalue, Value};
use crate::ballot::Ballot;
use crate::log::{Epoch, Index, SnapshotPoint};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[derive(Clone, Debug, Hash)]
pub(super) struct Log {
    /// What the latest snapshot covers: the log begins after it.
    base: SnapshotPoint,
    /// Where each ballot of the evicted slots begins, ascending in both.
    runs: Vec<Run>,
    /// The first slot in memory, and the origin's epoch of the one before it.
    first: Index,
    epoch_before: Epoch,
    tail: VecDeque<Pvalue>,
    /// The cost of the values in memory.
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    first: Index,
    ballot: Ballot,
}

impl Log {
    /// An empty log after a snapshot.
    pub(super) fn after(base: SnapshotPoint) -> Log {
        Log {
            runs: Vec::new(),
            first: base.index.next(),
            epoch_before: base.epoch,
            tail: VecDeque::new(),
            bytes: 0,
            base,
        }
    }

    /// The slot before the first one.
    pub(super) fn base(&self) -> Index {
        self.base.index
    }

    pub(super) fn last(&self) -> Index {
        Index(self.first.0 + self.tail.len() as u64 - 1)
    }

    /// The epoch in which the last value was first proposed.
    pub(super) fn last_epoch(&self) -> Epoch {
        self.tail.back().map_or(self.epoch_before, |pvalue| pvalue.value.origin.epoch())
    }

    /// The first slot in memory, `last + 1` if there is none.
    pub(super) fn first_in_memory(&self) -> Index {
        self.first
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, slot: Index) -> Option<&Pvalue> {
        let offset = slot.0.checked_sub(self.first.0)?;
        self.tail.get(usize::try_from(offset).ok()?)
    }

    /// The ballot under which `slot` was accepted last.
    pub(super) fn ballot_at(&self, slot: Index) -> Option<Ballot> {
        if slot >= self.first {
            return self.get(slot).map(|pvalue| pvalue.ballot);
        }
        let after = self.runs.partition_point(|run| run.first <= slot);
        (slot > self.base.index && after > 0).then(|| self.runs[after - 1].ballot)
    }

    pub(super) fn push(&mut self, pvalue: Pvalue) {
        self.bytes += pvalue.value.cost();
        self.tail.push_back(pvalue);
    }

    /// Puts `pvalues` at `from` and after it, in the place of all that was there.
    pub(super) fn replace(&mut self, from: Index, pvalues: &[Pvalue]) {
        assert!(from >= self.first && from <= self.last().next(), "what is evicted is never replaced");
        while self.last() >= from {
            let Some(pvalue) = self.tail.pop_back() else { break };
            self.bytes -= pvalue.value.cost();
        }
        pvalues.iter().for_each(|pvalue| self.push(pvalue.clone()));
    }

    /// Forgets the first value in memory, which is chosen and stays in the log.
    pub(super) fn evict_first(&mut self) {
        let Some(pvalue) = self.tail.pop_front() else { return };
        if self.runs.last().is_none_or(|run| run.ballot != pvalue.ballot) {
            self.runs.push(Run { first: self.first, ballot: pvalue.ballot });
        }
        self.bytes -= pvalue.value.cost();
        self.epoch_before = pvalue.value.origin.epoch();
        self.first = self.first.next();
    }

    /// Begins after `point`, which a snapshot covers. What was accepted after it stays.
    pub(super) fn compact(&mut self, point: SnapshotPoint) {
        while self.first <= point.index
            && let Some(pvalue) = self.tail.pop_front()
        {
            self.bytes -= pvalue.value.cost();
            self.first = self.first.next();
            self.epoch_before = point.epoch;
        }
        if self.first <= point.index {
            self.first = point.index.next();
            self.epoch_before = point.epoch;
        }
        // The run that the point is in still says what stands after it.
        let begun = self.runs.iter().filter(|run| run.first <= point.index.next()).count();
        self.runs.drain(..begun.saturating_sub(1));
        self.base = point;
    }

    /// The values from `from` on, which is in memory: as many as cost at most `bytes_max`
    /// together, but at least one if there is one. Returns them with their cost.
    pub(super) fn batch(&self, from: Index, bytes_max: usize) -> (Vec<Pvalue>, usize) {
        assert!(from >= self.first, "only values in memory can be sent");
        let start = ((from.0 - self.first.0) as usize).min(self.tail.len());
        let mut cost = 0;
        let mut count = 0;
        for Pvalue { value, .. } in self.tail.range(start..) {
            if count > 0 && cost + value.cost() > bytes_max {
                break;
            }
            cost += value.cost();
            count += 1;
        }
        (self.tail.range(start..start + count).cloned().collect(), cost)
    }

    /// The values in memory among `from..=to`.
    pub(super) fn range(&self, from: Index, to: Index) -> impl Iterator<Item = &Pvalue> {
        let start = from.0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        let end = to.next().0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        self.tail.range(start..end.max(start))
    }
}

/// The values of some accepted ones.
pub(super) fn values_of(pvalues: Vec<Pvalue>) -> Vec<Value> {
    pvalues.into_iter().map(|pvalue| pvalue.value).collect()
}
