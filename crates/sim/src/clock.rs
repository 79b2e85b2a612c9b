//! A member's clock: monotonic, with an origin and a rate of its own.

use crate::units::{Factor, Span};
use synod_protocols::Time;

/// Maps virtual time, which is the same for all, to what one member's clock shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// When the rate was last changed, in virtual nanoseconds.
    since: u64,
    /// What the clock showed then.
    shown: u64,
    rate: Factor,
}

impl Clock {
    pub(crate) fn new(origin: u64) -> Clock {
        Clock { since: 0, shown: origin, rate: Factor::ONE }
    }

    /// What it shows.
    pub(crate) fn at(&self, now: u64) -> Time {
        let passed = now - self.since;
        if self.rate == Factor::ONE {
            return Time(self.shown + passed);
        }
        Time(self.shown + (u128::from(passed) * u128::from(self.rate.0) / 1_000_000) as u64)
    }

    /// The first virtual time at which it shows `time` or more.
    pub(crate) fn when(&self, time: Time) -> u64 {
        let ahead = time.0.saturating_sub(self.shown);
        if self.rate == Factor::ONE {
            return self.since.saturating_add(ahead);
        }
        let passed = (u128::from(ahead) * 1_000_000).div_ceil(u128::from(self.rate.0));
        self.since.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    pub(crate) fn set_rate(&mut self, now: u64, rate: Factor) {
        self.shown = self.at(now).0;
        self.since = now;
        self.rate = rate;
    }

    pub(crate) fn jump(&mut self, now: u64, span: Span) {
        self.shown = self.at(now).0.saturating_add(span.0);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_and_not_before() {
        let mut clock = Clock::new(1_000_003);
        for (now, rate) in [(10, 1_100_000), (77, 900_001), (1234, 1_000_000), (5000, 3_333_333)] {
            clock.set_rate(now, Factor(rate));
            for ahead in 1..2000 {
                let deadline = Time(clock.at(now).0 + ahead);
                let when = clock.when(deadline);
                assert!(clock.at(when) >= deadline && clock.at(when - 1) < deadline);
            }
        }
    }

    #[test]
    fn a_jump_goes_ahead_and_keeps_the_rate() {
        let mut clock = Clock::new(0);
        clock.set_rate(0, Factor(2_000_000));
        clock.jump(100, Span(50));
        assert_eq!(clock.at(110), Time(270));
    }
}
