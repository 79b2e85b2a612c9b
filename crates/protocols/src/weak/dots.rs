//! Dots and causal contexts: which updates somebody has seen.
//!
//! A *dot* names one update: who took it, and the how-manieth of theirs it was. A *causal context* is a set of
//! dots. Where updates arrive in causal order it is what Parker et al. (1983) call a version vector, one run from 1
//! for each origin; where they arrive in any order it has holes, which fill up later (Preguiça et al., *Dotted
//! Version Vectors*, 2010; Almeida, Shoker and Baquero, *Delta State Replicated Data Types*, 2018). One type serves
//! both.

use crate::types::{Incarnation, NodeId};
use crate::wire::{DecodeError, Output, Reader, Wire, put_varint};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

/// Where updates come from: a member, and its incarnation when its disk was blank. A member that comes back under an
/// old identity with nothing on its disk is another origin, so that no dot ever names two updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Origin {
    /// The member.
    pub node: NodeId,
    /// Its incarnation when its disk was blank.
    pub since: Incarnation,
}

/// One update: the `count`-th of its origin, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who took it.
    pub origin: Origin,
    /// The how-manieth of theirs.
    pub count: u64,
}

/// A set of dots, as runs of counts for each origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct CausalContext {
    /// Sorted, not empty, neither overlapping nor touching; first and last count of each run.
    runs: BTreeMap<Origin, Vec<(u64, u64)>>,
}

impl CausalContext {
    /// The empty set.
    pub const fn new() -> CausalContext {
        CausalContext { runs: BTreeMap::new() }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many dots it has.
    pub fn len(&self) -> u64 {
        self.runs.values().flatten().map(|(from, to)| to - from + 1).sum()
    }

    /// Whether this update was seen.
    pub fn contains(&self, dot: Dot) -> bool {
        self.of(dot.origin).iter().any(|(from, to)| (*from..=*to).contains(&dot.count))
    }

    /// Up to which count every update of this origin was seen; 0 if not even the first was.
    pub fn up_to(&self, origin: Origin) -> u64 {
        match self.of(origin).first() {
            Some((1, to)) => *to,
            _ => 0,
        }
    }

    /// The highest count that was seen of this origin; 0 if none was.
    pub fn highest(&self, origin: Origin) -> u64 {
        self.of(origin).last().map_or(0, |(_, to)| *to)
    }

    /// Whether everything that is in `other` is in this one.
    pub fn includes(&self, other: &CausalContext) -> bool {
        other.runs.iter().all(|(origin, runs)| {
            let own = self.of(*origin);
            runs.iter().all(|(from, to)| own.iter().any(|(start, end)| start <= from && to <= end))
        })
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        self.insert_run(dot.origin, dot.count, dot.count);
    }

    /// Adds everything that is in `other`.
    pub fn join(&mut self, other: &CausalContext) {
        for (origin, runs) in &other.runs {
            runs.iter().for_each(|(from, to)| self.insert_run(*origin, *from, *to));
        }
    }

    /// What is in both.
    pub fn meet(&self, other: &CausalContext) -> CausalContext {
        let mut both = CausalContext::new();
        for (origin, runs) in &self.runs {
            for (from, to) in runs {
                for (start, end) in other.of(*origin) {
                    let (from, to) = (*from.max(start), *to.min(end));
                    if from <= to {
                        both.insert_run(*origin, from, to);
                    }
                }
            }
        }
        both
    }

    /// The origins of which something was seen.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.runs.keys().copied()
    }

    fn of(&self, origin: Origin) -> &[(u64, u64)] {
        self.runs.get(&origin).map_or(&[], Vec::as_slice)
    }

    fn insert_run(&mut self, origin: Origin, mut from: u64, mut to: u64) {
        let runs = self.runs.entry(origin).or_default();
        // Runs that overlap or touch the new one become one with it.
        let first = runs.partition_point(|(_, end)| end.saturating_add(1) < from);
        let last = runs.partition_point(|(start, _)| *start <= to.saturating_add(1));
        if first < last {
            from = from.min(runs[first].0);
            to = to.max(runs[last - 1].1);
        }
        runs.splice(first..last, [(from, to)]);
    }
}

/// As `n1:1-7 n2:1-3,5-5`; a later origin of a member as `n1'2:1-4`.
impl fmt::Display for CausalContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (origin, runs)) in self.runs.iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{origin}")?;
            for (place, (from, to)) in runs.iter().enumerate() {
                write!(f, "{}{from}-{to}", if place == 0 { ':' } else { ',' })?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.since {
            Incarnation(0 | 1) => write!(f, "{}", self.node),
            Incarnation(since) => write!(f, "{}'{since}", self.node),
        }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.origin, self.count)
    }
}

impl Wire for Origin {
    fn encode(&self, out: &mut Output) {
        self.node.encode(out);
        put_varint(out, self.since.0);
    }

    fn decode(input: &mut Reader) -> Result<Origin, DecodeError> {
        Ok(Origin { node: NodeId::decode(input)?, since: Incarnation(input.varint("incarnation")?) })
    }
}

crate::wire_format!(struct Dot { origin, count });

impl Wire for CausalContext {
    fn encode(&self, out: &mut Output) {
        put_varint(out, self.runs.len() as u64);
        for (origin, runs) in &self.runs {
            origin.encode(out);
            crate::wire::put_list(out, runs, |(from, to), out| {
                put_varint(out, *from);
                put_varint(out, to - from);
            });
        }
    }

    fn decode(input: &mut Reader) -> Result<CausalContext, DecodeError> {
        let run = |input: &mut Reader| {
            let (from, more) = (input.varint("run")?, input.varint("length of a run")?);
            let to = from.checked_add(more).filter(|to| from > 0 && *to < u64::MAX);
            to.map(|to| (from, to)).ok_or(DecodeError::Invalid { what: "run", value: from })
        };
        let origins =
            input.list("context", |input| Ok((Origin::decode(input)?, input.list("runs", run)?)))?;
        let mut context = CausalContext::new();
        for (origin, runs) in origins {
            runs.into_iter().for_each(|(from, to)| context.insert_run(origin, from, to));
        }
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::collections::BTreeSet;

    fn dot(node: u64, count: u64) -> Dot {
        Dot { origin: Origin { node: NodeId(node), since: Incarnation(1) }, count }
    }

    #[test]
    fn a_context_is_the_set_of_its_dots() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut draw = || {
                let (mut context, mut set) = (CausalContext::new(), BTreeSet::new());
                for _ in 0..rng.below(25) {
                    let dot = dot(1 + rng.below(2), 1 + rng.below(12));
                    context.insert(dot);
                    set.insert(dot);
                }
                (context, set)
            };
            let ((one, of_one), (other, of_other)) = (draw(), draw());
            let mut joined = one.clone();
            joined.join(&other);
            let (union, meet) = (&of_one | &of_other, one.meet(&other));
            for node in 1..3 {
                for count in 1..14 {
                    let dot = dot(node, count);
                    assert_eq!(one.contains(dot), of_one.contains(&dot), "{seed}: {one}");
                    assert_eq!(joined.contains(dot), union.contains(&dot), "{seed}: {joined}");
                    assert_eq!(
                        meet.contains(dot),
                        of_one.contains(&dot) && of_other.contains(&dot),
                        "{seed}"
                    );
                }
            }
            assert_eq!(joined.len(), union.len() as u64, "{seed}: {joined}");
            assert_eq!(one.includes(&other), of_one.is_superset(&of_other), "{seed}");
            assert!(joined.includes(&one) && one.includes(&meet));
            assert_eq!(CausalContext::from_bytes(joined.to_bytes()), Ok(joined), "{seed}");
        }
    }

    #[test]
    fn holes_end_the_first_run() {
        let mut context = CausalContext::new();
        [1, 2, 5].into_iter().for_each(|count| context.insert(dot(1, count)));
        let origin = dot(1, 1).origin;
        assert_eq!((context.up_to(origin), context.highest(origin)), (2, 5));
        assert_eq!(alloc::format!("{context}"), "n1:1-2,5-5");
    }
}
