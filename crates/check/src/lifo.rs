//! Linearizability of a stack whose values are each put in once, in about O(n log n).
//!
//! On a stack, the times for which two values are inside are either apart or one within the other. A value is inside
//! *for sure* from the return of its put to the invocation of its take. One whose put and take overlap can be put and
//! taken at one instant, where it disturbs nobody, and is set aside. The others are decided by taking away one at a time, after the
//! idea of decrease and conquer (Lee and Mathur, arXiv 2410.04581; see also Abdulla et al., PLDI 2025, and Gibbons and Korach 1997):
//!
//! - The sure times of the values fall into *stretches*, maximal runs (s, e) without a gap. During a stretch the stack is
//!   never empty, so if its values alone have an order, one of them lies at the bottom throughout: its put was invoked before s,
//!   and its take returned after e.
//! - *Any* such value will do. Put at s and taken at e it is in nobody's way, since all others of the stretch can be
//!   put after s and taken before e (moments moved into the stretch keep their order); and the history without it still
//!   has an order if it had one before, as one value can be struck from any order of a stack. What is left falls into smaller
//!   stretches, decided in the same way.
//! - A stretch without such a value has no order. This shows in few of its values already: those of a shortest chain
//!   that covers it, since it has the same s and e.
//! - An answer "empty" needs a moment outside of all stretches, and nothing else.
//!
//! The order found is replayed before it is given out, and a contradiction is searched before it is believed.
//!
//! The cost is n log n, times the number of puts that are open at one moment where these are many: candidates for the bottom are
//! among the puts open at s.
//!
//! Unknown outcomes: of puts, see [`crate::elements`]. A *take* of unknown outcome may be left out of an order. It may also
//! have taken a value that nobody else took; so against the history count only values whose takes are known. By the same
//! striking of values, a contradiction among those is one whatever the others did. What neither shows is left to the search.

use std::cmp::Reverse;

use crate::elements::{Element, Elements, cover, replayed};
use crate::model::{Entry, NEVER, Sequence, Shortcut};

/// Decides a stack. Does not apply where a value is put in twice.
pub(crate) fn decide(entries: &[Entry<Sequence>]) -> Shortcut {
    let mut elements = match Elements::of(entries) {
        Ok(elements) => elements,
        Err(found) => return found,
    };
    match nested(entries, &elements) {
        Ok(order) => replayed(Sequence::Stack, entries, order).map_or(Shortcut::None, Shortcut::Order),
        Err(kept) if !elements.unknown_takes => Shortcut::Contradiction(kept),
        Err(_) => {
            elements.all.retain(|element| element.take.is_some());
            nested(entries, &elements).map_or_else(Shortcut::Contradiction, |_| Shortcut::None)
        }
    }
}

/// When an operation takes effect: the moment, and what comes first at one moment.
type Place = (u64, u8, Reverse<usize>);

/// An order of all puts, takes and answers "empty"; or operations that have none.
fn nested(entries: &[Entry<Sequence>], elements: &Elements) -> Result<Vec<u32>, Vec<u32>> {
    let moments = elements.quiet_moments(entries)?;
    let mut placed: Vec<(Place, u32)> = Vec::with_capacity(entries.len());
    let (mut sure, fleeting): (Vec<&Element>, Vec<&Element>) =
        elements.all.iter().partition(|element| element.is_certain());
    // No two finite moments are equal but the start, or the end, of a stretch and of those within.
    for element in fleeting {
        let at = element.put_invoke.max(element.take_invoke);
        placed.extend(element.put.map(|put| ((at, PUT, Reverse(0)), put)));
        placed.extend(element.take.map(|take| ((at, TAKE, Reverse(0)), take)));
    }
    placed.extend(elements.empties.iter().zip(moments).map(|(index, at)| ((at, EMPTY, Reverse(0)), *index)));
    sure.sort_unstable_by_key(|element| element.put_return);
    let mut stretches = Stretches::of(&sure);
    let mut count = 0;
    while let Some((first, start, end)) = stretches.leftmost() {
        let Some(bottom) = stretches.bottom(first, start, end) else {
            let left: Vec<&Element> =
                (first..sure.len()).filter(|at| stretches.is_left(*at)).map(|at| sure[at]).collect();
            let mut kept = cover(&left, start + 1, end);
            kept.sort_unstable();
            return Err(kept);
        };
        stretches.remove(bottom);
        count += 1;
        // What lies deeper was put before, and is taken after: it was found earlier.
        placed.extend(sure[bottom].put.map(|put| ((start, PUT, Reverse(usize::MAX - count)), put)));
        placed.extend(sure[bottom].take.map(|take| ((end, TAKE, Reverse(count)), take)));
    }
    placed.sort_unstable();
    Ok(placed.into_iter().map(|(_, index)| index).collect())
}

const PUT: u8 = 0;
const TAKE: u8 = 1;
const EMPTY: u8 = 2;

/// The values not yet removed, and when some of them is inside for sure.
struct Stretches<'a> {
    /// In the order of the returns of their puts.
    sure: &'a [&'a Element],
    /// No value before this one is left.
    first: usize,
    /// All starts and ends of sure times.
    moments: Vec<u64>,
    covered: Cover,
    invoked: Earliest,
}

impl<'a> Stretches<'a> {
    fn of(sure: &'a [&'a Element]) -> Stretches<'a> {
        let both = sure.iter().flat_map(|element| [element.put_return, element.take_invoke]);
        let mut moments: Vec<u64> = both.collect();
        moments.sort_unstable();
        moments.dedup();
        let mut stretches = Stretches {
            sure,
            first: 0,
            covered: Cover::of(moments.len() + 1),
            moments,
            invoked: Earliest::of(sure.iter().map(|element| element.put_invoke)),
        };
        (0..sure.len()).for_each(|at| stretches.count(at, 1));
        stretches
    }

    fn count(&mut self, at: usize, change: i32) {
        let slot = |moment: u64| self.moments.partition_point(|known| *known < moment);
        let Element { put_return, take_invoke, .. } = self.sure[at];
        self.covered.add(slot(*put_return), slot(*take_invoke), change);
    }

    /// The first value left, and the stretch that it begins.
    fn leftmost(&mut self) -> Option<(usize, u64, u64)> {
        while self.first < self.sure.len() && !self.is_left(self.first) {
            self.first += 1;
        }
        let start = self.sure.get(self.first)?.put_return;
        let slot = self.moments.partition_point(|known| *known < start);
        // The slot after the last moment is never covered.
        let end = self.covered.first_free(slot).and_then(|slot| self.moments.get(slot).copied());
        Some((self.first, start, end.unwrap_or(NEVER)))
    }

    /// A value that may lie at the bottom of the stretch that begins with `first`.
    fn bottom(&self, first: usize, start: u64, end: u64) -> Option<usize> {
        let until = self.sure.partition_point(|element| element.put_return < end);
        let mut from = first;
        // The first value itself was invoked before its return.
        while let Some(at) = self.invoked.next_below(from, until, start + 1) {
            if self.sure[at].take_return >= end {
                return Some(at);
            }
            from = at + 1;
        }
        None
    }

    fn is_left(&self, at: usize) -> bool {
        self.invoked.at(at) != NEVER
    }

    fn remove(&mut self, at: usize) {
        self.count(at, -1);
        self.invoked.set(at, NEVER);
    }
}

/// How many sure times cover each slot: a tree of sums over which ranges are changed at once.
struct Cover {
    leaves: usize,
    /// The change of a whole subtree, and the least count within it, that change included.
    nodes: Vec<(i32, i32)>,
}

impl Cover {
    fn of(slots: usize) -> Cover {
        let leaves = slots.next_power_of_two();
        Cover { leaves, nodes: vec![(0, 0); leaves * 2] }
    }

    fn add(&mut self, from: usize, to: usize, change: i32) {
        let (mut low, mut high) = (from + self.leaves, to + self.leaves);
        let ends = [low, high.max(low + 1) - 1];
        while low < high {
            for node in
                [(low & 1 == 1).then_some(low), (high & 1 == 1).then(|| high - 1)].into_iter().flatten()
            {
                self.nodes[node].0 += change;
                self.nodes[node].1 += change;
            }
            (low, high) = (low.div_ceil(2), high / 2);
        }
        for end in ends {
            let mut node = end / 2;
            while node > 0 {
                self.nodes[node].1 =
                    self.nodes[node].0 + self.nodes[node * 2].1.min(self.nodes[node * 2 + 1].1);
                node /= 2;
            }
        }
    }

    /// The first slot from this one on that nothing covers.
    fn first_free(&self, from: usize) -> Option<usize> {
        let above = |node: usize| -> i32 {
            std::iter::successors(Some(node / 2), |node| Some(node / 2))
                .take_while(|node| *node > 0)
                .map(|node| self.nodes[node].0)
                .sum()
        };
        // Up and to the right, until a subtree has a free slot; then down into it.
        let mut node = from + self.leaves;
        while self.nodes[node].1 + above(node) > 0 {
            while node & 1 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        let mut over = above(node);
        while node < self.leaves {
            over += self.nodes[node].0;
            node *= 2;
            if self.nodes[node].1 + over > 0 {
                node += 1;
            }
        }
        Some(node - self.leaves)
    }
}

/// The least of any range of moments, in a tree.
struct Earliest {
    leaves: usize,
    nodes: Vec<u64>,
}

impl Earliest {
    fn of(moments: impl ExactSizeIterator<Item = u64>) -> Earliest {
        let leaves = moments.len().next_power_of_two();
        let mut nodes = vec![NEVER; leaves * 2];
        nodes[leaves..].iter_mut().zip(moments).for_each(|(node, moment)| *node = moment);
        for node in (1..leaves).rev() {
            nodes[node] = nodes[node * 2].min(nodes[node * 2 + 1]);
        }
        Earliest { leaves, nodes }
    }

    fn at(&self, index: usize) -> u64 {
        self.nodes[index + self.leaves]
    }

    fn set(&mut self, index: usize, moment: u64) {
        let mut node = index + self.leaves;
        self.nodes[node] = moment;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[node * 2].min(self.nodes[node * 2 + 1]);
        }
    }

    /// The first index of a range whose moment lies before this one.
    fn next_below(&self, from: usize, until: usize, moment: u64) -> Option<usize> {
        if from >= until {
            return None;
        }
        let mut node = from + self.leaves;
        while self.nodes[node] >= moment {
            while node & 1 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < self.leaves {
            node *= 2;
            if self.nodes[node] >= moment {
                node += 1;
            }
        }
        Some(node - self.leaves).filter(|index| *index < until)
    }
}
