//! What is to happen, in order of virtual time; at the same time, in the order of being asked for.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

/// One thing to happen. Small and without memory of its own: what it concerns lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The message in this slot arrives.
    Arrival { slot: u32 },
    /// A member's timer.
    Timer { member: u8 },
    /// A command of a member's disk, issued in that life, is done.
    Disk { member: u8, life: u32, slot: u32 },
    /// What a member's state machine was told to make durable, in that life, is so.
    Persisted { member: u8, life: u32, ticket: u64 },
    /// The connection comes to exist, unless the link has changed since.
    LinkUp { from: u8, to: u8, generation: u32 },
    /// The sender notices that its connection is lost, unless the link has changed since.
    LinkDown { from: u8, to: u8, generation: u32 },
    /// A client begins its next operation.
    Client { client: u16 },
    /// A client waits no longer for that operation.
    ClientTimeout { client: u16, operation: u32 },
    /// A line of the script.
    Script { line: u32 },
    /// The operator asks for the first change that is not done, unless it has asked since.
    Operator { attempt: u32 },
    /// The probe for progress asks again.
    Probe,
}

/// All that is to happen.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Item>>,
    /// What was asked for in the order in which it is due, and so needs no heap.
    lane: VecDeque<Item>,
    sequence: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    /// The time above the number in the order of being asked for: one comparison orders both.
    key: u128,
    due: Due,
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Item {}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, due: Due) {
        let item = self.item(at, due);
        self.heap.push(Reverse(item));
    }

    /// As [`Queue::push`]; cheaper for what is always asked for the same time ahead, because many such things wait, and
    /// none of them overtakes another.
    pub(crate) fn push_in_line(&mut self, at: u64, due: Due) {
        let item = self.item(at, due);
        if self.lane.back().is_none_or(|last| *last < item) {
            self.lane.push_back(item);
        } else {
            self.heap.push(Reverse(item));
        }
    }

    fn item(&mut self, at: u64, due: Due) -> Item {
        self.sequence += 1;
        Item { key: u128::from(at) << 64 | u128::from(self.sequence), due }
    }

    /// The next thing to happen at or before `until`.
    pub(crate) fn pop(&mut self, until: u64) -> Option<(u64, Due)> {
        let (Item { key, due }, in_line) = match (self.heap.peek(), self.lane.front()) {
            (Some(Reverse(next)), Some(waiting)) if waiting < next => (*waiting, true),
            (Some(Reverse(next)), _) => (*next, false),
            (None, waiting) => (*waiting?, true),
        };
        let at = (key >> 64) as u64;
        if at > until {
            return None;
        }
        if in_line {
            self.lane.pop_front();
        } else {
            self.heap.pop();
        }
        Some((at, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_keep_their_order() {
        let mut queue = Queue::default();
        for line in 0..100 {
            queue.push(u64::from(line % 2), Due::Script { line });
        }
        let lines: Vec<u32> = std::iter::from_fn(|| queue.pop(1))
            .map(|(_, due)| if let Due::Script { line } = due { line } else { unreachable!("only lines") })
            .collect();
        let expected: Vec<u32> = (0..50).map(|i| 2 * i).chain((0..50).map(|i| 2 * i + 1)).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_line_beside_the_heap_changes_no_order() {
        let mut rng = synod_protocols::Rng::new(3);
        for _ in 0..200 {
            let (mut plain, mut mixed) = (Queue::default(), Queue::default());
            for line in 0..50 {
                let (at, due) = (rng.below(20), Due::Script { line });
                plain.push(at, due);
                if rng.chance(1, 2) {
                    mixed.push_in_line(at, due)
                } else {
                    mixed.push(at, due)
                }
                if rng.chance(1, 3) {
                    assert_eq!(mixed.pop(15), plain.pop(15));
                }
            }
            while let Some(next) = plain.pop(u64::MAX) {
                assert_eq!(mixed.pop(u64::MAX), Some(next));
            }
            assert_eq!(mixed.pop(u64::MAX), None);
        }
    }

    #[test]
    fn nothing_comes_before_its_time() {
        let mut queue = Queue::default();
        queue.push(5, Due::Probe);
        assert_eq!(queue.pop(4), None);
        assert_eq!(queue.pop(5), Some((5, Due::Probe)));
    }
}
