//! The log as a server holds it: a tail of entries in memory, and the term of every entry.
//!
//! The tail is bounded; what was evicted is asked of the host again when a peer or the state
//! machine needs it. The terms are kept as runs, one for each change of term in the log, so that
//! any position can be compared although its entry is not in memory. Runs are as many as there
//! were successful elections since the log's base, which snapshots move up.

use super::record::{Entry, Term};
use crate::log::Index;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[derive(Clone, Debug)]
pub(super) struct Log {
    /// The position before the first entry, and its term: what the latest snapshot covers.
    base_index: Index,
    base_term: Term,
    /// Where each term begins, ascending in both; the first begins right after the base.
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
    term: Term,
}

impl Log {
    /// An empty log after a snapshot.
    pub(super) fn after(base_index: Index, base_term: Term) -> Log {
        Log {
            base_index,
            base_term,
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

    pub(super) fn last_term(&self) -> Term {
        self.runs.last().map_or(self.base_term, |run| run.term)
    }

    /// The first position in memory, `last + 1` if there is none.
    pub(super) fn first_in_memory(&self) -> Index {
        self.first
    }

    /// The cost of the entries in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The term at `index`, from the base to the last entry.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index < self.base_index || index > self.last() {
            return None;
        }
        Some(self.term_before_end(index))
    }

    fn term_before_end(&self, index: Index) -> Term {
        // Almost always it is one of the last run's.
        match self.runs.last() {
            Some(run) if index >= run.first => run.term,
            _ => match self.runs.partition_point(|run| run.first <= index) {
                0 => self.base_term,
                after => self.runs[after - 1].term,
            },
        }
    }

    /// The last position at or before `index` whose term is not above `term`, with its term; the
    /// base if there is no other.
    pub(super) fn last_not_above(&self, index: Index, term: Term) -> (Index, Term) {
        let index = index.min(self.last()).max(self.base_index);
        let found = self.term_before_end(index);
        if found <= term || index == self.base_index {
            return (index, found);
        }
        let after = self.runs.partition_point(|run| run.term <= term);
        // The runs from `after` on are above `term`; the one that holds `index` is among them.
        let end = self.runs[after].first.previous();
        (end, self.term_before_end(end))
    }

    pub(super) fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.first.0)?;
        self.tail.get(usize::try_from(offset).ok()?)
    }

    /// Appends one entry; its term is not below the last one's.
    pub(super) fn push(&mut self, entry: Entry) {
        assert!(entry.term >= self.last_term(), "terms never go back in a log");
        if self.runs.last().is_none_or(|run| run.term < entry.term) {
            self.runs.push(Run { first: self.last().next(), term: entry.term });
        }
        self.bytes += entry.cost();
        self.tail.push_back(entry);
    }

    /// Removes `from` and everything after it. Returns the cost of what was in memory.
    pub(super) fn truncate(&mut self, from: Index) -> usize {
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

    /// Moves the base up to `index`, which is in the log and, as is known, of `term`. (Only the
    /// base's own term may have been unknown, and so too low.)
    pub(super) fn compact(&mut self, index: Index, term: Term) {
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
        (self.base_index, self.base_term) = (index, term);
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

    /// The entries in memory among `from..=to`.
    pub(super) fn range(&self, from: Index, to: Index) -> impl Iterator<Item = &Entry> {
        let start = from.0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        let end = to.next().0.saturating_sub(self.first.0).min(self.tail.len() as u64) as usize;
        self.tail.range(start..end.max(start))
    }
}

impl core::hash::Hash for Log {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.base_index, self.base_term, &self.runs, self.first, self.tail.len()).hash(state);
        for entry in &self.tail {
            entry.hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Payload;

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::after(Index::ZERO, Term(0));
        for &term in terms {
            log.push(Entry { term: Term(term), payload: Payload::Noop });
        }
        log
    }

    #[test]
    fn terms_are_known_although_entries_are_evicted() {
        let mut log = log(&[1, 1, 2, 5, 5]);
        for _ in 0..4 {
            log.evict_first();
        }
        let terms: Vec<_> = (0..7).map(|i| log.term_at(Index(i)).map(|t| t.0)).collect();
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
        assert_eq!((log.last(), log.last_term(), log.bytes()), (Index(2), Term(1), 0));
        log.push(Entry { term: Term(7), payload: Payload::Noop });
        assert_eq!((log.last(), log.term_at(Index(3))), (Index(3), Some(Term(7))));
    }

    #[test]
    fn compaction_keeps_the_terms_of_what_is_left() {
        for base in 0..=5 {
            for evicted in 0..=5 {
                let mut log = log(&[1, 1, 2, 5, 5]);
                (0..evicted).for_each(|_| log.evict_first());
                log.compact(Index(base), log.term_at(Index(base)).unwrap());
                let terms: Vec<_> = (0..7).map(|i| log.term_at(Index(i)).map(|t| t.0)).collect();
                let all = [Some(0), Some(1), Some(1), Some(2), Some(5), Some(5), None];
                assert_eq!(terms[base as usize..], all[base as usize..], "base {base}");
                assert_eq!((log.base(), log.last()), (Index(base), Index(5)));
                assert_eq!(log.first_in_memory(), Index(base.max(evicted) + 1));
                log.push(Entry { term: Term(7), payload: Payload::Noop });
                assert_eq!((log.last(), log.term_at(Index(6))), (Index(6), Some(Term(7))));
                if base < 5 {
                    log.truncate(Index(base + 1));
                    assert_eq!((log.last(), log.last_term()), (Index(base), log.base_term));
                }
            }
        }
    }

    #[test]
    fn hints_skip_whole_terms() {
        let log = log(&[1, 1, 2, 5, 5]);
        assert_eq!(log.last_not_above(Index(9), Term(9)), (Index(5), Term(5)));
        assert_eq!(log.last_not_above(Index(5), Term(4)), (Index(3), Term(2)));
        assert_eq!(log.last_not_above(Index(4), Term(1)), (Index(2), Term(1)));
        assert_eq!(log.last_not_above(Index(4), Term(0)), (Index(0), Term(0)));
    }

    #[test]
    fn a_batch_holds_at_least_one_entry() {
        let log = log(&[1, 1, 2]);
        assert_eq!(log.batch(Index(2), 0).0.len(), 1);
        assert_eq!(log.batch(Index(2), 1 << 20).0.len(), 2);
        assert_eq!(log.batch(Index(4), 1 << 20).0.len(), 0);
    }
}
