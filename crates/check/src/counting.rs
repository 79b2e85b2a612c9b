//! Linearizability of a counter in O(n log n), where all steps are equal or every answer is another sum.
//!
//! **Equal steps** (increments, say, with or without a sum in the answer). The sum says how many additions came before, so a
//! read of k steps stands between the k-th addition and the next, and an addition that says it made the sum k is the k-th. From
//! this each place k in the order has a window: after the invocation of everybody who saw less, or just that place,
//! and before the return of everybody who saw more, or just that place. Both ends only grow with k. The other additions are
//! alike but for their times; each can take the places whose window it overlaps. So places are filled in their order, each
//! by the one that returns first among those invoked before its window ends. By an exchange of two additions nothing is lost by
//! that choice (Jackson 1955: earliest deadline first), so a place that stays empty, or an addition that comes too late,
//! proves that there is no order. Two windows' ends, that is two answers, show why.
//!
//! **Every answer another sum** (steps may differ, and be negative). Every state is visited once, and each addition says both
//! which state it left and which it made. So there is one order at most, and two answers show what is wrong with it.
//!
//! Unknown outcomes: an addition of unknown outcome may fill a place, as one that returns last of all, and is else left
//! out. With steps that differ, nobody knows which gap it fills: where one is missing, the search decides.
//!
//! Every order is replayed before it is given out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::model::{Counter, CounterOp, Entry, Model, NEVER, Shortcut};

/// Decides a counter, where it is one of these two kinds.
pub(crate) fn decide(counter: &Counter, entries: &[Entry<Counter>]) -> Shortcut {
    let mut steps = entries.iter().filter_map(step);
    let Some(first) = steps.next() else { return Shortcut::None };
    let found = if first != 0 && steps.all(|other| other == first) {
        Places::of(counter.init(), first, entries).and_then(|places| places.order())
    } else {
        chain(counter.init(), entries)
    };
    match found {
        Ok(order) if is_order(counter, entries, &order) => Shortcut::Order(order),
        Ok(_) => Shortcut::None,
        Err(found) => found,
    }
}

/// What an operation adds; `None` for a read.
fn step(entry: &Entry<Counter>) -> Option<i64> {
    match entry.op {
        CounterOp::Add(_, amount) => Some(amount),
        CounterOp::Read(_) => None,
    }
}

fn seen(entry: &Entry<Counter>) -> Option<i64> {
    entry.answer.flatten()
}

fn few<const N: usize>(kept: [u32; N], words: String) -> Shortcut {
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    kept.dedup();
    Shortcut::Few(kept, words)
}

fn is_order(counter: &Counter, entries: &[Entry<Counter>], order: &[u32]) -> bool {
    let (mut sum, mut latest_invoke, mut required) = (counter.init(), 0, 0);
    for index in order {
        let entry = &entries[*index as usize];
        if entry.ret < latest_invoke {
            return false;
        }
        latest_invoke = latest_invoke.max(entry.invoke);
        required += usize::from(entry.ret != NEVER);
        match counter.step(&sum, &entry.op, entry.answer.as_ref()) {
            Some(after) => sum = after,
            None => return false,
        }
    }
    required == entries.iter().filter(|entry| entry.ret != NEVER).count()
}

/// Somebody who saw a number of steps.
#[derive(Clone, Copy)]
struct Witness {
    at: u64,
    index: u32,
}

/// The places of equal steps; place k has the index k - 1.
struct Places<'a> {
    entries: &'a [Entry<Counter>],
    /// The addition that says it made this place.
    fixed: Vec<Option<u32>>,
    /// Who read the sum after so many steps, in the order of invocation.
    reads: Vec<Vec<u32>>,
    /// Additions that do not say which place they made, in the order of invocation.
    loose: Vec<u32>,
    /// The latest invocation among those who saw less than this place, or just it. One more for what comes after all.
    starts: Vec<Option<Witness>>,
    /// The earliest return among those who saw this place.
    ends: Vec<Option<Witness>>,
}

impl<'a> Places<'a> {
    fn of(init: i64, step: i64, entries: &'a [Entry<Counter>]) -> Result<Places<'a>, Shortcut> {
        let additions = entries.iter().filter(|entry| self::step(entry).is_some()).count();
        let mut levels: Vec<(usize, u32)> = Vec::new();
        let mut loose = Vec::new();
        for (index, entry) in (0..).zip(entries) {
            let Some(sum) = seen(entry) else {
                if self::step(entry).is_some() {
                    loose.push(index);
                }
                continue;
            };
            let (way, step) = (i128::from(sum) - i128::from(init), i128::from(step));
            let adds = i128::from(self::step(entry).is_some());
            let level = way / step;
            if way % step != 0 || level < adds || level > additions as i128 {
                let words = format!(
                    "It saw {sum}, which is not among the sums from {init} in {additions} steps of {step}."
                );
                return Err(few([index], words));
            }
            levels.push((level as usize, index));
        }
        let last = levels.iter().map(|(level, _)| *level).max().unwrap_or(0);
        let mut places = Places {
            entries,
            fixed: vec![None; last],
            reads: vec![Vec::new(); last + 1],
            loose,
            starts: vec![None; last + 1],
            ends: vec![None; last],
        };
        places.loose.sort_unstable_by_key(|index| entries[*index as usize].invoke);
        for (level, index) in levels {
            places.saw(level, index)?;
        }
        places
            .reads
            .iter_mut()
            .for_each(|own| own.sort_unstable_by_key(|index| entries[*index as usize].invoke));
        places.spread();
        Ok(places)
    }

    fn saw(&mut self, level: usize, index: u32) -> Result<(), Shortcut> {
        let entry = &self.entries[index as usize];
        let adds = step(entry).is_some();
        if !adds {
            self.reads[level].push(index);
        } else if let Some(other) = self.fixed[level - 1].replace(index) {
            return Err(few([other, index], "Both say that they made the same sum.".into()));
        }
        // A read of k steps comes before the next place, an addition of the k-th before none but the places behind.
        let start = &mut self.starts[if adds { level - 1 } else { level }];
        if start.is_none_or(|known| known.at < entry.invoke) {
            *start = Some(Witness { at: entry.invoke, index });
        }
        if let Some(end) = level.checked_sub(1).map(|place| &mut self.ends[place])
            && end.is_none_or(|known| entry.ret < known.at)
        {
            *end = Some(Witness { at: entry.ret, index });
        }
        Ok(())
    }

    /// Who saw less also saw less than all later places; who saw more, more than all earlier ones.
    fn spread(&mut self) {
        for place in 1..self.starts.len() {
            let (before, own) = (self.starts[place - 1], &mut self.starts[place]);
            if let Some(before) = before.filter(|before| own.is_none_or(|own| own.at < before.at)) {
                *own = Some(before);
            }
        }
        for place in (1..self.ends.len()).rev() {
            let (behind, own) = (self.ends[place], &mut self.ends[place - 1]);
            if let Some(behind) = behind.filter(|behind| own.is_none_or(|own| behind.at < own.at)) {
                *own = Some(behind);
            }
        }
    }

    fn order(&self) -> Result<Vec<u32>, Shortcut> {
        let ret = |index: u32| self.entries[index as usize].ret;
        let mut arrivals = self.loose.iter().copied().peekable();
        let mut waiting: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
        let mut filled: Vec<u32> = Vec::with_capacity(self.fixed.len());
        for (place, fixed) in self.fixed.iter().enumerate() {
            let end = self.ends[place].expect("somebody saw the last place, and so more than every other");
            if let Some(start) = self.starts[place].filter(|start| start.at > end.at) {
                let words = "The one that returned before the other was invoked saw more steps.";
                return Err(few([end.index, start.index], words.into()));
            }
            while let Some(index) = arrivals.next_if(|index| self.entries[*index as usize].invoke < end.at) {
                waiting.push(Reverse((ret(index), index)));
            }
            if let Some(index) = fixed {
                filled.push(*index);
                continue;
            }
            let Some(Reverse((returned, index))) = waiting.pop() else {
                let words = format!(
                    "It saw more than {place} steps, and before it returned not more than {place} can have been made."
                );
                return Err(few([end.index], words));
            };
            if let Some(start) = self.starts[place].filter(|start| returned < start.at) {
                return Err(self.too_many(place, &filled, start));
            }
            filled.push(index);
        }
        let mut rest: Vec<u32> =
            waiting.into_iter().map(|Reverse((_, index))| index).chain(arrivals).collect();
        rest.retain(|index| ret(*index) != NEVER);
        rest.sort_unstable_by_key(|index| self.entries[*index as usize].invoke);
        let last = self.starts[filled.len()];
        if let Some(start) = last.filter(|start| rest.iter().any(|index| ret(*index) < start.at)) {
            return Err(self.too_many(filled.len(), &filled, start));
        }
        let mut order = self.reads[0].clone();
        for (index, reads) in filled.iter().zip(&self.reads[1..]) {
            order.push(*index);
            order.extend(reads);
        }
        order.extend(rest);
        Ok(order)
    }

    /// Some addition returned before `start` was invoked and found no place before `place`. From the last place that
    /// went to one which could have waited, all were taken by such as had been invoked after that place's end.
    fn too_many(&self, place: usize, filled: &[u32], start: Witness) -> Shortcut {
        let could_wait =
            |at: &usize| self.fixed[*at].is_none() && self.entries[filled[*at] as usize].ret >= start.at;
        match (0..place).rev().find(could_wait) {
            None => {
                let count = place + 1;
                let words = format!(
                    "At least {count} steps were made before it was invoked, and it saw not more than {place}."
                );
                few([start.index], words)
            }
            Some(at) => {
                let end = self.ends[at].expect("somebody saw the last place, and so more than every other");
                let words = format!(
                    "Between the return of the first and the invocation of the second at least {} steps were made, and what they saw differs by {} at the most.",
                    place - at,
                    place - at - 1,
                );
                few([end.index, start.index], words)
            }
        }
    }
}

/// The only order in which every addition starts from the sum that it says. The error: why there is none, or that this
/// does not apply.
fn chain(init: i64, entries: &[Entry<Counter>]) -> Result<Vec<u32>, Shortcut> {
    let (mut from, mut made): (HashMap<i64, u32>, HashMap<i64, u32>) = (HashMap::new(), HashMap::new());
    let mut reads: HashMap<i64, Vec<u32>> = HashMap::new();
    let mut unknown = false;
    let mut twice = None;
    for (index, entry) in (0..).zip(entries) {
        match (step(entry), entry.answer, seen(entry)) {
            (None, _, Some(sum)) => reads.entry(sum).or_default().push(index),
            (None, ..) => {}
            (Some(_), None, _) => unknown = true,
            (Some(_), Some(_), None) => return Err(Shortcut::None),
            (Some(amount), _, Some(sum)) => {
                let Some(before) = sum.checked_sub(amount) else {
                    return Err(few([index], "It started from no sum of 64 bits.".into()));
                };
                if sum == init || made.insert(sum, index).is_some() {
                    return Err(Shortcut::None);
                }
                twice = twice.or(from.insert(before, index).map(|other| (other, index)));
            }
        }
    }
    if unknown
        && (twice.is_some()
            || reads.keys().chain(from.keys()).any(|sum| *sum != init && !made.contains_key(sum)))
    {
        return Err(Shortcut::None);
    }
    if let Some((one, other)) = twice {
        return Err(few([one, other], "Both started from the same sum, which was there once.".into()));
    }
    let mut order: Vec<u32> = Vec::with_capacity(entries.len());
    let mut sum = init;
    loop {
        let mut own = reads.remove(&sum).unwrap_or_default();
        own.sort_unstable_by_key(|index| entries[*index as usize].invoke);
        order.extend(own);
        let Some(next) = from.remove(&sum) else { break };
        order.push(next);
        sum = seen(&entries[next as usize]).expect("it said which sum it made");
    }
    if let Some((sum, index)) =
        from.iter().chain(reads.iter().map(|(sum, own)| (sum, &own[0]))).min_by_key(|(_, index)| **index)
    {
        if unknown {
            return Err(Shortcut::None);
        }
        return Err(few(
            [*index],
            format!("It says that the sum was {sum}, to which the steps do not lead from {init}."),
        ));
    }
    let mut latest: Option<(u64, u32)> = None;
    for index in &order {
        let entry = &entries[*index as usize];
        if let Some((_, other)) = latest.filter(|(invoke, _)| entry.ret < *invoke) {
            if unknown {
                return Err(Shortcut::None);
            }
            let words =
                "One returned before the other was invoked, but what they saw puts it after the other.";
            return Err(few([other, *index], words.into()));
        }
        latest = latest.max(Some((entry.invoke, *index)));
    }
    Ok(order)
}
