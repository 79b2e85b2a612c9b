//! The log as a member holds it: a tail of entries in memory, and the epoch of every entry (its
//! term in Raft, its view in Viewstamped Replication).
//!
//! The tail is bounded; what was evicted is asked of the host again when a peer or the state
//! machine needs it. The epochs are kept as runs, one for each change of epoch in the log, so that
//! any position can be compared although its entry is not in memory. Runs are as many as there
//! were successful elections since the log's base, which snapshots move up.

use crate::log::Index;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::hash::Hash;

/// An entry of such a log.
pub trait LogEntry: Clone + Hash {
    /// What numbers those who lead, one after the other.
    type Epoch: Copy + Ord + Hash + Debug;

    /// The epoch in which it was proposed.
    fn epoch(&self) -> Self::Epoch;

    /// Bytes that count against windows and limits.
    fn cost(&self) -> usize;
}

/// Entries whose epochs never go back.
#[derive(Clone, Debug)]
pub struct EpochLog<E: LogEntry> {
    /// The position before the first entry, and its epoch: what the latest snapshot covers.
    base_index: Index,
    base_epoch: E::Epoch,
    /// Where each epoch begins, ascending in both; the first begins right after the base.
    runs: Vec<Run<E::Epoch>>,
    /// The position of the first entry in memory.
    first: Index,
    tail: VecDeque<E>,
    /// The cost of the entries in memory.
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run<T> {
    first: Index,
    epoch: T,
}

impl<E: LogEntry> EpochLog<E> {
    /// An empty log after a snapshot.
    pub fn after(base_index: Index, base_epoch: E::Epoch) -> EpochLog<E> {
        EpochLog {
            base_index,
            base_epoch,
            runs: Vec::new(),
            first: base_index.next(),
            tail: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The position before the first entry.
    pub fn base(&self) -> Index {
        self.base_index
    }

    /// The position of the last entry, the base if there is none.
    pub fn last(&self) -> Index {
        Index(self.first.0 + self.tail.len() as u64 - 1)
    }

    /// The epoch of the last entry, the base's if there is none.
    pub fn last_epoch(&self) -> E::Epoch {
        self.runs.last().map_or(self.base_epoch, |run| run.epoch)
    }

    /// The first position in memory, `last + 1` if there is none.
    pub fn first_in_memory(&self) -> Index {
        self.first
    }

    /// The cost of the entries in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The epoch at `index`, from the base to the last entry.
    pub fn epoch_at(&self, index: Index) -> Option<E::Epoch> {
        if index < self.base_index || index > self.last() {
            return None;
        }
        Some(self.epoch_before_end(index))
    }

    fn epoch_before_end(&self, index: Index) -> E::Epoch {
        // Almost always it is one of the last run's.
        match self.runs.last() {
            Some(run) if index >= run.first => run.epoch,
            _ => match self.runs.partition_point(|run| run.first <= index) {
                0 => self.base_epoch,
                after => self.runs[after - 1].epoch,
            },
        }
    }

    /// The last position at or before `index` whose epoch is not above `epoch`, with its epoch; the
    /// base if there is no other.
    pub fn last_not_above(&self, index: Index, epoch: E::Epoch) -> (Index, E::Epoch) {
        let index = index.min(self.last()).max(self.base_index);
        let found = self.epoch_before_end(index);
        if found <= epoch || index == self.base_index {
            return (index, found);
        }
        let after = self.runs.partition_point(|run| run.epoch <= epoch);
        // The runs from `after` on are above `epoch`; the one that holds `index` is among them.
        let end = self.runs[after].first.previous();
        (end, self.epoch_before_end(end))
    }

    /// The entry at `index`, if it is in memory.
    pub fn get(&self, index: Index) -> Option<&E> {
        let offset = index.0.checked_sub(self.first.0)?;
        self.tail.get(usize::try_from(offset).ok()?)
    }

    /// Appends one entry; its epoch is not below the last one's.
    pub fn push(&mut self, entry: E) {
        assert!(entry.epoch() >= self.last_epoch(), "epochs never go back in a log");
        if self.runs.last().is_none_or(|run| run.epoch < entry.epoch()) {
            self.runs.push(Run { first: self.last().next(), epoch: entry.epoch() });
        }
        self.bytes += entry.cost();
        self.tail.push_back(entry);
    }

    /// Removes `from` and everything after it. Returns the cost of what was in memory.
    pub fn truncate(&mut self, from: Index) -> usize {
        assert!(from > self.base_index, "a snapshot is never truncated");
        let before = self.bytes;
        while self.last() >= from {
            let Some(entry) = self.tail.pop_back() else {
                self.first = from;
                break;
            };
            self.bytes -= entry.cost();
        }
        while self.runs.last().is_some_and(|run| run.first >= from) {
            self.runs.pop();
        }
        before - self.bytes
    }

    /// Moves the base up to `index`, which is in the log and, as is known, of `epoch`. (Only the
    /// base's own epoch may have been unknown, and so too low.)
    pub fn compact(&mut self, index: Index, epoch: E::Epoch) {
        assert!(index >= self.base_index && index <= self.last(), "the base moves up within the log");
        let last = self.last();
        while self.first <= index && !self.tail.is_empty() {
            self.evict_first();
        }
        let begun = self.runs.partition_point(|run| run.first <= index);
        // The last run that has begun goes on after `index`, unless another one begins there.
        let goes_on =
            begun > 0 && index < last && self.runs.get(begun).is_none_or(|run| run.first > index.next());
        if goes_on {
            self.runs[begun - 1].first = index.next();
        }
        self.runs.drain(..begun - usize::from(goes_on));
        (self.base_index, self.base_epoch) = (index, epoch);
    }

    /// Forgets the first entry in memory, which stays in the log.
    pub fn evict_first(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.bytes -= entry.cost();
            self.first = self.first.next();
        }
    }

    /// The entries from `from` on, which is in memory: as many as cost at most `bytes_max`
    /// together, but at least one if there is one. Returns them with their cost.
    pub fn batch(&self, from: Index, bytes_max: usize) -> (Vec<E>, usize) {
        assert!(from >= self.first, "only entries in memory can be sent");
        let start = ((from.0 - self.first.0) as usize).min(self.tail.len());
        let mut cost = 0;
        let mut count = 0;
        for entry in self.tail.range(start..) {
            if count > 0 && cost + entry.cost() > bytes_max {
                break;
            }
            cost += entry.cost();
            count += 1;
        }
        (self.tail.range(start..start + count).cloned().collect(), cost)
    }

    /// The last entries, from `from` on or as many as cost at most `bytes_max` together, with the
    /// position before them.
    pub fn suffix(&self, from: Index, bytes_max: usize) -> (Index, Vec<E>) {
        let (mut cost, mut after) = (0, self.last());
        for entry in self.tail.iter().rev() {
            cost += entry.cost();
            if after < from || cost > bytes_max {
                break;
            }
            after = after.previous();
        }
        (after, self.range(after.next(), self.last()).cloned().collect())
    }

    /// The entries in memory among `from..=to`.
    pub fn range(&self, from: Index, to: Index) -> impl Iterator<Item = &E> {
        let start = from.0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        let end = to.next().0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        self.tail.range(start..end.max(start))
    }
}

impl<E: LogEntry> Hash for EpochLog<E> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.base_index, self.base_epoch, &self.runs, self.first, self.tail.len()).hash(state);
        for entry in &self.tail {
            entry.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry that is nothing but its epoch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Term(u64);

    impl LogEntry for Term {
        type Epoch = u64;

        fn epoch(&self) -> u64 {
            self.0
        }

        fn cost(&self) -> usize {
            10
        }
    }

    type Log = EpochLog<Term>;

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::after(Index::ZERO, 0);
        for &term in terms {
            log.push(Term(term));
        }
        log
    }

    #[test]
    fn terms_are_known_although_entries_are_evicted() {
        let mut log = log(&[1, 1, 2, 5, 5]);
        for _ in 0..4 {
            log.evict_first();
        }
        let terms: Vec<_> = (0..7).map(|i| log.epoch_at(Index(i))).collect();
        assert_eq!(terms, [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
        assert_eq!((log.first_in_memory(), log.last()), (Index(5), Index(5)));
    }

    #[test]
    fn truncation_below_memory_leaves_an_empty_tail() {
        let mut log = log(&[1, 1, 2, 5, 5]);
        for _ in 0..4 {
            log.evict_first();
        }
        log.truncate(Index(3));
        assert_eq!((log.last(), log.last_epoch(), log.bytes()), (Index(2), 1, 0));
        log.push(Term(7));
        assert_eq!((log.last(), log.epoch_at(Index(3))), (Index(3), Some(7)));
    }

    #[test]
    fn compaction_keeps_the_terms_of_what_is_left() {
        for base in 0..=5 {
            for evicted in 0..=5 {
                let mut log = log(&[1, 1, 2, 5, 5]);
                (0..evicted).for_each(|_| log.evict_first());
                log.compact(Index(base), log.epoch_at(Index(base)).unwrap());
                let terms: Vec<_> = (0..7).map(|i| log.epoch_at(Index(i))).collect();
                let all = [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None];
                assert_eq!(terms[base as usize..], all[base as usize..], "base {base}");
                assert_eq!((log.base(), log.last()), (Index(base), Index(5)));
                assert_eq!(log.first_in_memory(), Index(base.max(evicted) + 1));
                log.push(Term(7));
                assert_eq!((log.last(), log.epoch_at(Index(6))), (Index(6), Some(7)));
                if base < 5 {
                    log.truncate(Index(base + 1));
                    assert_eq!((log.last(), log.last_epoch()), (Index(base), log.base_epoch));
                }
            }
        }
    }

    #[test]
    fn hints_skip_whole_terms() {
        let log = log(&[1, 1, 2, 5, 5]);
        assert_eq!(log.last_not_above(Index(9), 9), (Index(5), 5));
        assert_eq!(log.last_not_above(Index(5), 4), (Index(3), 2));
        assert_eq!(log.last_not_above(Index(4), 1), (Index(2), 1));
        assert_eq!(log.last_not_above(Index(4), 0), (Index(0), 0));
    }

    #[test]
    fn a_batch_holds_at_least_one_entry() {
        let log = log(&[1, 1, 2]);
        assert_eq!(log.batch(Index(2), 0).0.len(), 1);
        assert_eq!(log.batch(Index(2), 1 << 20).0.len(), 2);
        assert_eq!(log.batch(Index(4), 1 << 20).0.len(), 0);
    }

    #[test]
    fn a_suffix_holds_as_much_as_fits() {
        let log = log(&[1, 1, 2, 5, 5]);
        let cost = log.get(Index(1)).map_or(0, LogEntry::cost);
        assert_eq!(log.suffix(Index(4), 1 << 20).0, Index(3));
        assert_eq!(log.suffix(Index(1), 3 * cost).0, Index(2));
        assert_eq!(log.suffix(Index(1), cost - 1), (Index(5), Vec::new()));
        assert_eq!(log.suffix(Index(1), 1 << 20).1.len(), 5);
    }
}
