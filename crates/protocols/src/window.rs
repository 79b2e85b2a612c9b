//! The window of a peer that is sent a log without waiting for its answers.

use crate::log::{Index, LogLimits};
use alloc::collections::VecDeque;

/// The messages of entries that were sent and not acknowledged, bounded in number and bytes by
/// [`LogLimits`].
#[derive(Clone, Debug, Default, Hash)]
pub struct Window {
    /// The last entry of each message, and its cost in bytes.
    in_flight: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Window {
    /// A message was sent whose last entry is `last`.
    pub fn sent(&mut self, last: Index, bytes: usize) {
        self.in_flight.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// The peer's disk holds everything up to `index`.
    pub fn acknowledge(&mut self, index: Index) {
        while let Some((last, bytes)) = self.in_flight.front().copied()
            && last <= index
        {
            self.in_flight.pop_front();
            self.bytes -= bytes;
        }
    }

    /// Whatever was in flight is taken to be lost.
    pub fn clear(&mut self) {
        self.in_flight.clear();
        self.bytes = 0;
    }

    /// How many bytes may be sent now: 0 if the window is full. An empty window takes anything.
    pub fn room(&self, limits: &LogLimits) -> usize {
        if self.in_flight.is_empty() {
            return limits.message_bytes_max.max(1);
        }
        if self.in_flight.len() >= limits.window_messages_max {
            return 0;
        }
        limits.window_bytes_max.saturating_sub(self.bytes).min(limits.message_bytes_max)
    }

    /// Whether the next entry, which costs so many bytes, fits into `room`.
    pub fn takes(&self, bytes: usize, room: usize) -> bool {
        room > 0 && (bytes <= room || self.in_flight.is_empty())
    }

    /// Whether there is room for a whole message: else it is not worth to read entries back for it.
    pub fn takes_a_message(&self, limits: &LogLimits) -> bool {
        self.room(limits) >= limits.message_bytes_max.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_bounded_in_messages_and_bytes_and_takes_anything_when_empty() {
        let limits = LogLimits {
            message_bytes_max: 10,
            window_bytes_max: 25,
            window_messages_max: 3,
            ..LogLimits::default()
        };
        let mut window = Window::default();
        assert!(window.takes(1000, window.room(&limits)));
        window.sent(Index(1), 10);
        assert!(window.takes(10, window.room(&limits)) && !window.takes(11, window.room(&limits)));
        window.sent(Index(2), 10);
        assert_eq!(window.room(&limits), 5);
        assert!(!window.takes_a_message(&limits));
        window.acknowledge(Index(1));
        assert!(window.takes_a_message(&limits));
        (3..5).for_each(|last| window.sent(Index(last), 1));
        assert_eq!(window.room(&limits), 0);
        window.clear();
        assert_eq!(window.room(&limits), 10);
    }
}
