//! A member's disk: records in segments, and which record holds each position of the log.

use std::collections::BTreeMap;
use synod_protocols::log::{Index, ReplicatedLog};

#[derive(Clone)]
pub struct Disk<R> {
    /// Those that are lost stay in their place as `None`.
    records: Vec<Option<R>>,
    /// Where segments begin, as positions in `records`; the first begins at 0.
    segments: Vec<usize>,
    /// For each position of the log, the record that holds it.
    holders: BTreeMap<Index, usize>,
    /// Whether it ever lost anything.
    was_damaged: bool,
}

impl<R> Default for Disk<R> {
    fn default() -> Self {
        Disk { records: Vec::new(), segments: vec![0], holders: BTreeMap::new(), was_damaged: false }
    }
}

impl<R: Clone> Disk<R> {
    pub fn records(&self) -> &[Option<R>] {
        &self.records
    }

    /// Loses records, counted from 1; one more than there are is lost at the end.
    pub fn lose(&mut self, positions: &[usize]) {
        self.was_damaged = true;
        for position in positions.iter().map(|position| position - 1) {
            if position == self.records.len() {
                self.records.push(None);
            } else {
                self.records[position] = None;
                self.holders.retain(|_, record| *record != position);
            }
        }
    }

    /// Segments that the state machine no longer says to be dropped are missed at the beginning.
    pub fn miss_the_beginning(&mut self) {
        self.was_damaged = true;
        self.records.insert(0, None);
        self.segments.iter_mut().skip(1).for_each(|begin| *begin += 1);
        self.holders.values_mut().for_each(|record| *record += 1);
    }

    pub fn was_damaged(&self) -> bool {
        self.was_damaged
    }

    pub fn is_damaged(&self) -> bool {
        self.records.iter().any(Option::is_none)
    }

    /// Whether a record holds this position.
    pub fn holds(&self, index: Index) -> bool {
        self.holders.contains_key(&index)
    }

    pub fn write<P: ReplicatedLog<Record = R>>(&mut self, records: Vec<R>, snapshot: Index) {
        for record in records {
            if let Some((first, last)) = P::span(&record) {
                // (In a damaged log what comes before may be lost, and of no account.)
                let follows = first <= snapshot.next() || self.holds(first.previous()) || self.is_damaged();
                assert!(follows, "a record for {first} leaves a gap after the snapshot at {snapshot}");
                drop(self.holders.split_off(&first));
                self.holders.extend((first.0..=last.0).map(|index| (Index(index), self.records.len())));
            }
            self.records.push(Some(record));
        }
    }

    /// Begins a new segment with what the process says of its hard state.
    pub fn begin_segment(&mut self, restated: R) {
        self.segments.push(self.records.len());
        self.records.push(Some(restated));
    }

    /// Drops the oldest segments that hold nothing after `index`, but never the last one.
    pub fn drop_segments<P: ReplicatedLog<Record = R>>(&mut self, index: Index) {
        while let Some(end) = self.segments.get(1).copied() {
            let needed =
                |record: &Option<R>| record.as_ref().and_then(P::span).is_some_and(|(_, last)| last > index);
            if self.records[..end].iter().any(needed) {
                return;
            }
            self.records.drain(..end);
            self.segments.remove(0);
            self.segments.iter_mut().for_each(|begin| *begin -= end);
            self.holders = self
                .holders
                .iter()
                .filter_map(|(index, record)| Some((*index, record.checked_sub(end)?)))
                .collect();
        }
    }

    /// The records that hold `from..=to`, or a first part of them.
    pub fn read(&self, from: Index, to: Index, bytes_max: usize, size: impl Fn(&R) -> usize) -> Vec<R> {
        let mut records = Vec::new();
        let (mut bytes, mut previous, mut next) = (0, None, from);
        for (index, holder) in self.holders.range(from..=to.max(from)) {
            if *index != next {
                break;
            }
            next = next.next();
            if previous == Some(*holder) {
                continue;
            }
            previous = Some(*holder);
            let Some(record) = &self.records[*holder] else { break };
            bytes += size(record);
            if !records.is_empty() && bytes > bytes_max {
                break;
            }
            records.push(record.clone());
        }
        records
    }
}
