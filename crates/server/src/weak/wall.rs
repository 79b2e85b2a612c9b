//! The wall clock, as weak replicas want it: what it would have read when the monotonic clock read zero.

use crate::clock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use synod_protocols::Time;
use synod_protocols::weak::WallTime;

/// How often it is looked whether the wall clock was set.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// By how much it must have moved against the monotonic clock to be worth a word.
const SET_BY: Duration = Duration::from_millis(1);

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct Wall {
    /// What the replicas were told.
    told: WallTime,
    looked: Option<Time>,
    /// A fault on purpose, in milliseconds.
    ahead: i64,
}

impl Wall {
    /// What a replica that starts now is told.
    pub(super) fn at_zero(&mut self) -> WallTime {
        if self.looked.is_none() {
            self.told = self.read(clock::now());
        }
        self.told
    }

    /// What the others are to be told, if the clock was set.
    pub(super) fn changed(&mut self, now: Time) -> Option<WallTime> {
        if self.looked.is_some_and(|looked| now.since(looked) < LOOK_EVERY) {
            return None;
        }
        self.looked = Some(now);
        let read = self.read(clock::now());
        let moved = read.ahead_of(self.told).max(self.told.ahead_of(read));
        (moved >= SET_BY).then(|| {
            self.told = read;
            read
        })
    }

    /// From now on it is taken to be ahead by so much more than it is, or behind.
    pub(super) fn set_ahead(&mut self, millis: i64) {
        self.ahead = millis;
        self.looked = None;
    }

    fn read(&self, now: Time) -> WallTime {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        WallTime(wall.saturating_sub(now.0).saturating_add_signed(self.ahead.saturating_mul(1_000_000)))
    }
}
