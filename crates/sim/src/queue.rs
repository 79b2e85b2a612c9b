//! What is to happen, in order of virtual time; at the same time, in the order of being asked for.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

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

/// The heap of events.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Item>>,
    sequence: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    at: u64,
    sequence: u64,
    due: Due,
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Item {}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, due: Due) {
        self.sequence += 1;
        self.heap.push(Reverse(Item { at, sequence: self.sequence, due }));
    }

    /// The next thing to happen at or before `until`.
    pub(crate) fn pop(&mut self, until: u64) -> Option<(u64, Due)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(item)| (item.at, item.due))
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
    fn nothing_comes_before_its_time() {
        let mut queue = Queue::default();
        queue.push(5, Due::Probe);
        assert_eq!(queue.pop(4), None);
        assert_eq!(queue.pop(5), Some((5, Due::Probe)));
    }
}
