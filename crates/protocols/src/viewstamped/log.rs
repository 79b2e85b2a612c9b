//! The log as a replica holds it: a tail of entries in memory, and the view of every entry.
//!
//! The tail is bounded; what was evicted is asked of the host again when a peer or the state
//! machine needs it. The views are kept as runs, one for each change of view in the log, so that
//! any position can be compared although its entry is not in memory. Runs are as many as views
//! were started since the log's base, which a checkpoint moves up.

use super::record::{Entry, ViewNumber};
use crate::log::Index;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[derive(Clone, Debug)]
pub(super) struct Log {
    /// The position before the first entry, and its view: what the latest checkpoint covers.
    base_index: Index,
    base_view: ViewNumber,
    /// Where each view begins, ascending in both; the first begins right after the base.
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
    view: ViewNumber,
}

impl Log {
    /// An empty log after a checkpoint.
    pub(super) fn after(base_index: Index, base_view: ViewNumber) -> Log {
        Log {
            base_index,
            base_view,
            runs: Vec::new(),
            first: base_index.next(),
            tail: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The position before the first entry.
    pub(super) fn base(&self) -> Index {
        self.base_index
    }

    pub(super) fn last(&self) -> Index {
        Index(self.first.0 + self.tail.len() as u64 - 1)
    }

    pub(super) fn last_view(&self) -> ViewNumber {
        self.runs.last().map_or(self.base_view, |run| run.view)
    }

    /// The first position in memory, `last + 1` if there is none.
    pub(super) fn first_in_memory(&self) -> Index {
        self.first
    }

    /// The cost of the entries in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The view at `index`, from the base to the last entry.
    pub(super) fn view_at(&self, index: Index) -> Option<ViewNumber> {
        if index < self.base_index || index > self.last() {
            return None;
        }
        Some(self.view_before_end(index))
    }

    fn view_before_end(&self, index: Index) -> ViewNumber {
        // Almost always it is one of the last run's.
        match self.runs.last() {
            Some(run) if index >= run.first => run.view,
            _ => match self.runs.partition_point(|run| run.first <= index) {
                0 => self.base_view,
                after => self.runs[after - 1].view,
            },
        }
    }

    /// The last position at or before `index` whose view is not above `view`, with its view; the
    /// base, whatever its view, if there is no other.
    pub(super) fn last_not_above(&self, index: Index, view: ViewNumber) -> (Index, ViewNumber) {
        let index = index.min(self.last()).max(self.base_index);
        let found = self.view_before_end(index);
        if found <= view {
            return (index, found);
        }
        let after = self.runs.partition_point(|run| run.view <= view);
        // The runs from `after` on are above `view`; the one that holds `index` is among them.
        let end = self.runs.get(after).map_or(self.base_index, |run| run.first.previous());
        (end, self.view_before_end(end))
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.first.0)?;
        self.tail.get(usize::try_from(offset).ok()?)
    }

    /// Appends one entry; its view is not below the last one's.
    pub(super) fn push(&mut self, entry: Entry) {
        assert!(entry.view >= self.last_view(), "views never go back in a log");
        if self.runs.last().is_none_or(|run| run.view < entry.view) {
            self.runs.push(Run { first: self.last().next(), view: entry.view });
        }
        self.bytes += entry.cost();
        self.tail.push_back(entry);
    }

    /// Removes `from` and everything after it. Returns the cost of what was in memory.
    pub(super) fn truncate(&mut self, from: Index) -> usize {
        assert!(from > self.base_index, "a checkpoint is never truncated");
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

    /// Forgets the first entry in memory, which stays in the log.
    pub(super) fn evict_first(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.bytes -= entry.cost();
            self.first = self.first.next();
        }
    }

    /// The entries from `from` on, which is in memory: as many as cost at most `bytes_max`
    /// together, but at least one if there is one. Returns them with their cost.
    pub(super) fn batch(&self, from: Index, bytes_max: usize) -> (Vec<Entry>, usize) {
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
    pub(super) fn suffix(&self, from: Index, bytes_max: usize) -> (Index, Vec<Entry>) {
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

    /// Moves the base up to `to`, which a checkpoint covers.
    pub(super) fn compact(&mut self, to: Index) {
        assert!(to <= self.last(), "a log is compacted within its bounds");
        if to <= self.base_index {
            return;
        }
        self.base_view = self.view_before_end(to);
        self.base_index = to;
        let begun = self.runs.partition_point(|run| run.first <= to.next());
        let goes_on = to < self.last();
        self.runs.drain(..begun - usize::from(goes_on));
        if goes_on {
            self.runs[0].first = to.next();
        }
        while self.first <= to && !self.tail.is_empty() {
            self.evict_first();
        }
        self.first = self.first.max(to.next());
    }

    /// The entries in memory among `from..=to`.
    pub(super) fn range(&self, from: Index, to: Index) -> impl Iterator<Item = &Entry> {
        let start = from.0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        let end = to.next().0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        self.tail.range(start..end.max(start))
    }
}

impl core::hash::Hash for Log {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.base_index, self.base_view, &self.runs, self.first, self.tail.len()).hash(state);
        for entry in &self.tail {
            entry.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Payload;

    fn log(views: &[u64]) -> Log {
        let mut log = Log::after(Index::ZERO, ViewNumber(0));
        for &view in views {
            log.push(Entry { view: ViewNumber(view), payload: Payload::Noop });
        }
        log
    }

    #[test]
    fn views_are_known_although_entries_are_evicted() {
        let mut log = log(&[1, 1, 2, 5, 5]);
        for _ in 0..4 {
            log.evict_first();
        }
        let views: Vec<_> = (0..7).map(|i| log.view_at(Index(i)).map(|t| t.0)).collect();
        assert_eq!(views, [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
        assert_eq!((log.first_in_memory(), log.last()), (Index(5), Index(5)));
    }

    #[test]
    fn truncation_below_memory_leaves_an_empty_tail() {
        let mut log = log(&[1, 1, 2, 5, 5]);
        for _ in 0..4 {
            log.evict_first();
        }
        log.truncate(Index(3));
        assert_eq!((log.last(), log.last_view(), log.bytes()), (Index(2), ViewNumber(1), 0));
        log.push(Entry { view: ViewNumber(7), payload: Payload::Noop });
        assert_eq!((log.last(), log.view_at(Index(3))), (Index(3), Some(ViewNumber(7))));
    }

    #[test]
    fn hints_skip_whole_views() {
        let log = log(&[1, 1, 2, 5, 5]);
        assert_eq!(log.last_not_above(Index(9), ViewNumber(9)), (Index(5), ViewNumber(5)));
        assert_eq!(log.last_not_above(Index(5), ViewNumber(4)), (Index(3), ViewNumber(2)));
        assert_eq!(log.last_not_above(Index(4), ViewNumber(1)), (Index(2), ViewNumber(1)));
        assert_eq!(log.last_not_above(Index(4), ViewNumber(0)), (Index(0), ViewNumber(0)));
    }

    #[test]
    fn compaction_keeps_what_follows() {
        for cut in 0..=5 {
            let mut log = log(&[1, 1, 2, 5, 5]);
            let before: Vec<_> = (cut..7).map(|i| log.view_at(Index(i))).collect();
            log.compact(Index(cut));
            assert_eq!(before, (cut..7).map(|i| log.view_at(Index(i))).collect::<Vec<_>>(), "{cut}");
            assert_eq!((log.base(), log.last(), log.last_view()), (Index(cut), Index(5), ViewNumber(5)));
            log.push(Entry { view: ViewNumber(6), payload: Payload::Noop });
            assert_eq!(log.view_at(Index(6)), Some(ViewNumber(6)));
            assert_eq!(log.view_at(Index(5)), Some(ViewNumber(5)));
            log.truncate(Index(cut + 1));
            assert_eq!(log.last(), Index(cut));
            assert_eq!(Some(log.last_view()), before[0]);
        }
    }

    #[test]
    fn a_suffix_holds_as_much_as_fits() {
        let log = log(&[1, 1, 2, 5, 5]);
        let cost = log.get(Index(1)).map_or(0, Entry::cost);
        assert_eq!(log.suffix(Index(4), 1 << 20).0, Index(3));
        assert_eq!(log.suffix(Index(1), 3 * cost).0, Index(2));
        assert_eq!(log.suffix(Index(1), cost - 1), (Index(5), Vec::new()));
        assert_eq!(log.suffix(Index(1), 1 << 20).1.len(), 5);
    }

    #[test]
    fn a_batch_holds_at_least_one_entry() {
        let log = log(&[1, 1, 2]);
        assert_eq!(log.batch(Index(2), 0).0.len(), 1);
        assert_eq!(log.batch(Index(2), 1 << 20).0.len(), 2);
        assert_eq!(log.batch(Index(4), 1 << 20).0.len(), 0);
    }
}
