//! The history as a member holds it: a tail of entries in memory, and the epoch of every entry.
//!
//! The tail is bounded; what was evicted is asked of the host again when a peer or the state
//! machine needs it. The epochs are kept as runs, one for each change of epoch in the history, so
//! that any zxid can be looked up although its entry is not in memory. Runs are as many as there
//! were successful elections since the history's base, which snapshots move up.

use super::record::{Entry, Zxid};
use crate::log::{Epoch, Index};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[derive(Clone, Debug)]
pub(super) struct History {
    /// What the latest snapshot covers.
    base: Zxid,
    /// Where each epoch begins, ascending in both; all are after the base.
    runs: Vec<Run>,
    /// The position of the first entry in memory.
    first: Index,
    tail: VecDeque<Entry>,
    /// The cost of the entries in memory.
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    first: Index,
    epoch: Epoch,
}

impl History {
    /// An empty history after a snapshot.
    pub(super) fn after(base: Zxid) -> History {
        History { base, runs: Vec::new(), first: base.counter.next(), tail: VecDeque::new(), bytes: 0 }
    }

    /// The zxid before the first entry.
    pub(super) fn base(&self) -> Zxid {
        self.base
    }

    pub(super) fn last(&self) -> Index {
        Index(self.first.0 + self.tail.len() as u64 - 1)
    }

    pub(super) fn last_epoch(&self) -> Epoch {
        self.runs.last().map_or(self.base.epoch, |run| run.epoch)
    }

    pub(super) fn last_zxid(&self) -> Zxid {
        Zxid { epoch: self.last_epoch(), counter: self.last() }
    }

    /// The first position in memory, `last + 1` if there is none.
    pub(super) fn first_in_memory(&self) -> Index {
        self.first
    }

    /// The cost of the entries in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The epoch at `index`, from the base to the last entry.
    pub(super) fn epoch_at(&self, index: Index) -> Option<Epoch> {
        if index < self.base.counter || index > self.last() {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        Some(after.checked_sub(1).map_or(self.base.epoch, |i| self.runs[i].epoch))
    }

    /// Whether this zxid is in the history, or what its snapshot ends with.
    pub(super) fn holds(&self, zxid: Zxid) -> bool {
        self.epoch_at(zxid.counter) == Some(zxid.epoch)
    }

    /// The zxid at `index`, from the base to the last entry.
    pub(super) fn zxid_at(&self, index: Index) -> Option<Zxid> {
        self.epoch_at(index).map(|epoch| Zxid { epoch, counter: index })
    }

    /// The largest zxid of the history that is not above `zxid`; the base if there is none.
    pub(super) fn last_not_above(&self, zxid: Zxid) -> Zxid {
        let after = self.runs.partition_point(|run| run.epoch <= zxid.epoch);
        let (first, epoch) = match after.checked_sub(1) {
            Some(i) => (self.runs[i].first, self.runs[i].epoch),
            // The base's own epoch may go on after it.
            None if self.base.epoch <= zxid.epoch => (self.base.counter, self.base.epoch),
            None => return self.base,
        };
        let end = self.runs.get(after).map_or(self.last(), |next| next.first.previous());
        let found = if epoch < zxid.epoch {
            end
        } else if zxid.counter >= first {
            end.min(zxid.counter)
        } else {
            first.previous()
        };
        self.zxid_at(found).unwrap_or(self.base)
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.first.0)?;
        self.tail.get(usize::try_from(offset).ok()?)
    }

    /// Appends one entry; its epoch is not below the last one's.
    pub(super) fn push(&mut self, entry: Entry) {
        assert!(entry.epoch >= self.last_epoch(), "epochs never go back in a history");
        if self.last_epoch() < entry.epoch {
            self.runs.push(Run { first: self.last().next(), epoch: entry.epoch });
        }
        self.bytes += entry.cost();
        self.tail.push_back(entry);
    }

    /// Removes `from` and everything after it. Returns the cost of what was in memory.
    pub(super) fn truncate(&mut self, from: Index) -> usize {
        assert!(from > self.base.counter, "a snapshot is never truncated");
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

    /// Forgets the first entry in memory, which stays in the history.
    pub(super) fn evict_first(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.bytes -= entry.cost();
            self.first = self.first.next();
        }
    }

    /// A snapshot covers everything up to `base`, which is in the history: what is before it goes.
    pub(super) fn compact(&mut self, base: Zxid) {
        assert!(self.holds(base), "a history is cut at an entry of its own");
        while self.first <= base.counter && !self.tail.is_empty() {
            self.evict_first();
        }
        self.first = self.first.max(base.counter.next());
        self.base = base;
        let next = base.counter.next();
        let beyond = self.last() > base.counter;
        // The run that goes on after the base begins there now; those before it are forgotten.
        let epoch = if beyond { self.epoch_in_runs(next) } else { None };
        self.runs.retain(|run| run.first > next);
        if let Some(epoch) = epoch
            && epoch > base.epoch
        {
            self.runs.insert(0, Run { first: next, epoch });
        }
    }

    fn epoch_in_runs(&self, index: Index) -> Option<Epoch> {
        let after = self.runs.partition_point(|run| run.first <= index);
        after.checked_sub(1).map(|i| self.runs[i].epoch)
    }

    /// The entries from `from` on, which is in memory, up to `to`: as many as cost at most
    /// `bytes_max` together, but at least one if there is one. Returns them with their cost.
    pub(super) fn batch(&self, from: Index, to: Index, bytes_max: usize) -> (Vec<Entry>, usize) {
        assert!(from >= self.first, "only entries in memory can be sent");
        let mut cost = 0;
        let mut entries = Vec::new();
        for entry in self.range(from, to) {
            if !entries.is_empty() && cost + entry.cost() > bytes_max {
                break;
            }
            cost += entry.cost();
            entries.push(entry.clone());
        }
        (entries, cost)
    }

    /// The entries in memory among `from..=to`.
    pub(super) fn range(&self, from: Index, to: Index) -> impl Iterator<Item = &Entry> {
        let start = from.0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        let end = to.next().0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        self.tail.range(start..end.max(start))
    }
}

impl core::hash::Hash for History {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.base, &self.runs, self.first, self.tail.len()).hash(state);
        for entry in &self.tail {
            entry.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Payload;

    fn history(epochs: &[u64]) -> History {
        let mut history = History::after(Zxid::ZERO);
        for &epoch in epochs {
            history.push(Entry { epoch: Epoch(epoch), payload: Payload::Noop });
        }
        history
    }

    fn zxid(epoch: u64, counter: u64) -> Zxid {
        Zxid { epoch: Epoch(epoch), counter: Index(counter) }
    }

    #[test]
    fn epochs_are_known_although_entries_are_evicted() {
        let mut history = history(&[1, 1, 2, 5, 5]);
        for _ in 0..4 {
            history.evict_first();
        }
        let epochs: Vec<_> = (0..7).map(|i| history.epoch_at(Index(i)).map(|e| e.0)).collect();
        assert_eq!(epochs, [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
        assert_eq!((history.first_in_memory(), history.last()), (Index(5), Index(5)));
    }

    #[test]
    fn truncation_below_memory_leaves_an_empty_tail() {
        let mut history = history(&[1, 1, 2, 5, 5]);
        for _ in 0..4 {
            history.evict_first();
        }
        history.truncate(Index(3));
        assert_eq!((history.last_zxid(), history.bytes()), (zxid(1, 2), 0));
        history.push(Entry { epoch: Epoch(7), payload: Payload::Noop });
        assert_eq!(history.last_zxid(), zxid(7, 3));
    }

    #[test]
    fn the_largest_zxid_not_above_another() {
        let history = history(&[1, 1, 2, 5, 5]);
        for (asked, found) in [
            (zxid(9, 1), zxid(5, 5)),
            (zxid(5, 9), zxid(5, 5)),
            (zxid(5, 4), zxid(5, 4)),
            (zxid(5, 2), zxid(2, 3)),
            (zxid(4, 9), zxid(2, 3)),
            (zxid(1, 9), zxid(1, 2)),
            (zxid(0, 9), zxid(0, 0)),
        ] {
            assert_eq!(history.last_not_above(asked), found, "{asked}");
        }
    }

    #[test]
    fn compaction_keeps_what_follows() {
        for base in 1..=5 {
            let mut compacted = history(&[1, 1, 2, 5, 5]);
            let whole = compacted.clone();
            compacted.compact(whole.zxid_at(Index(base)).expect("it is there"));
            assert_eq!(compacted.last_zxid(), whole.last_zxid());
            assert_eq!(compacted.epoch_at(Index(base - 1)), None);
            for index in base..=5 {
                assert_eq!(compacted.epoch_at(Index(index)), whole.epoch_at(Index(index)), "{base}: {index}");
                let zxid = whole.zxid_at(Index(index)).expect("it is there");
                assert_eq!(compacted.last_not_above(zxid), zxid);
            }
        }
    }

    #[test]
    fn a_batch_holds_at_least_one_entry() {
        let history = history(&[1, 1, 2]);
        assert_eq!(history.batch(Index(2), Index(3), 0).0.len(), 1);
        assert_eq!(history.batch(Index(2), Index(3), 1 << 20).0.len(), 2);
        assert_eq!(history.batch(Index(2), Index(2), 1 << 20).0.len(), 1);
        assert_eq!(history.batch(Index(4), Index(9), 1 << 20).0.len(), 0);
    }
}
