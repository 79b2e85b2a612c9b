//! Hybrid logical clocks: stamps that never contradict causality and stay close to the wall clock.
//!
//! Kulkarni, Demirbas, Madappa, Avva and Leone, *Logical Physical Clocks* (OPODIS 2014). A stamp is a wall time,
//! the highest that its clock has heard of, and a number that grows while the wall stands still. Whoever has seen
//! an update gives the next one a larger stamp, whatever the machines' clocks say; and between updates that do not
//! know of each other the one that was later by the clock wins. So the last writer wins, as well as clocks can
//! tell, and no effect loses against its cause.
//!
//! The paper also ticks when a message arrives. Here the clock is only raised to what was heard: nothing happens at that
//! moment that needs a stamp. Ties, which clocks of different members can have, are decided by the origin.
//!
//! **Bounds.** One clock that is a year ahead would drag all others with it. So an update from further ahead than
//! [`Timing::skew_max`](super::Timing::skew_max) is not let in before its time has come, and no update is taken
//! while the own wall clock is so far behind what was heard.
//!
//! **Restarts.** The clock is recovered from the updates on disk, so that a wall clock which was set back meanwhile does
//! not make a member's later updates older than its earlier ones.

use super::dots::Origin;
use crate::wire::{DecodeError, Output, Reader, Wire, put_varint};
use core::time::Duration;

/// A wall clock's reading: nanoseconds since 1970, without leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub u64);

impl WallTime {
    /// By how much this is later than `other`; zero if it is not.
    pub fn ahead_of(self, other: WallTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(other.0))
    }
}

/// When an update was taken. Stamps are in one order for everybody, which agrees with causality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The highest wall time that its clock had heard of.
    pub wall: WallTime,
    /// Counts updates of the same wall time.
    pub logical: u64,
    /// Decides ties.
    pub origin: Origin,
}

impl Wire for Stamp {
    fn encode(&self, out: &mut Output) {
        put_varint(out, self.wall.0);
        put_varint(out, self.logical);
        self.origin.encode(out);
    }

    fn decode(input: &mut Reader) -> Result<Stamp, DecodeError> {
        let wall = WallTime(input.varint("wall time")?);
        let logical = input.varint("logical time")?;
        // So that the next one can be counted.
        if logical == u64::MAX {
            return Err(DecodeError::Invalid { what: "logical time", value: logical });
        }
        Ok(Stamp { wall, logical, origin: Origin::decode(input)? })
    }
}

/// A member's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HybridClock {
    latest: Stamp,
}

impl HybridClock {
    /// A clock that has heard of nothing.
    pub fn new(origin: Origin) -> HybridClock {
        HybridClock { latest: Stamp { wall: WallTime(0), logical: 0, origin } }
    }

    /// The stamp of an update that is taken now: larger than every one that this clock gave or heard of.
    pub fn tick(&mut self, wall: WallTime) -> Stamp {
        let latest = &mut self.latest;
        (latest.wall, latest.logical) = match wall > latest.wall {
            true => (wall, 0),
            false => (latest.wall, latest.logical + 1),
        };
        *latest
    }

    /// Hears of a stamp.
    pub fn witness(&mut self, stamp: Stamp) {
        let latest = &mut self.latest;
        (latest.wall, latest.logical) = (latest.wall, latest.logical).max((stamp.wall, stamp.logical));
    }

    /// The latest stamp that it gave or heard of, as its own.
    pub fn latest(&self) -> Stamp {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, NodeId};

    fn clock(node: u64) -> HybridClock {
        HybridClock::new(Origin { node: NodeId(node), since: Incarnation(1) })
    }

    #[test]
    fn an_effect_is_later_than_its_cause_whatever_the_walls_say() {
        let (mut ahead, mut behind) = (clock(1), clock(2));
        let cause = ahead.tick(WallTime(1_000));
        behind.witness(cause);
        let effect = behind.tick(WallTime(10));
        assert!(effect > cause);
        assert!(behind.tick(WallTime(10)) > effect);
        assert!(behind.tick(WallTime(2_000)).logical == 0);
    }

    #[test]
    fn equal_times_are_ordered_by_origin() {
        assert!(clock(1).tick(WallTime(5)) < clock(2).tick(WallTime(5)));
    }
}
