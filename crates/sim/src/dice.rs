//! Everything random in a run: keyed by the seed, a place and a count, so that one more line in a
//! script does not reshuffle the rest. Integers only, so that a run is the same on every machine.

use crate::script::{DELAY_MAX, Delay};
use crate::units::{Factor, Span};
use synod_protocols::rng::{Rng, keyed};

/// What is drawn for. A place is one of these with up to two members or clients.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Place {
    Message = 1,
    Link,
    Sync,
    Crash,
    Rot,
    Life,
    ClockOrigin,
    Client,
    Hand,
    Follower,
    Probe,
    Swarm,
}

/// The generator of a seed for the `count`-th thing at a place.
pub(crate) fn dice(seed: u64, place: Place, a: u64, b: u64, count: u64) -> Rng {
    Rng::new(keyed(seed, (place as u64) << 48 | a << 24 | b, count))
}

/// Draws a delay, in nanoseconds.
pub(crate) fn draw(delay: Delay, rng: &mut Rng) -> u64 {
    match delay {
        Delay::Fixed(Span(span)) => span,
        Delay::Uniform(Span(low), Span(high)) => rng.between(low, high),
        Delay::LogNormal { median, factor } => log_normal(median, factor, rng),
    }
}

/// The median times the factor to the power of a normal variable, in fixed point with 16 bits.
fn log_normal(median: Span, factor: Factor, rng: &mut Rng) -> u64 {
    // The sum of twelve even variables has variance one (Irwin and Hall).
    let sum: i64 = (0..3)
        .map(|_| rng.next())
        .flat_map(|n| [n, n >> 16, n >> 32, n >> 48])
        .map(|n| (n & 0xFFFF) as i64)
        .sum();
    let normal = sum - (6 << 16);
    let exponent = (normal * log2(factor)) >> 16;
    let (whole, part) = (exponent >> 16, (exponent & 0xFFFF) as u64);
    // 2^x on [0, 1) by a parabola, right within 0.4%.
    let power = (1 << 16) + ((part * (43_000 + ((part * 22_536) >> 16))) >> 16);
    let scaled = u128::from(median.0) * u128::from(power);
    let scaled =
        if whole >= 0 { scaled << whole.min(40) } else { scaled >> whole.unsigned_abs().min(80) } >> 16;
    u64::try_from(scaled).unwrap_or(u64::MAX).min(DELAY_MAX.0)
}

/// The binary logarithm of a factor from 1 to 100, with 16 bits after the point.
fn log2(factor: Factor) -> i64 {
    let mut mantissa = (u128::from(factor.0) << 32) / 1_000_000;
    let mut log = 0i64;
    while mantissa >= 2 << 32 {
        mantissa >>= 1;
        log += 1 << 16;
    }
    for bit in (0..16).rev() {
        mantissa = (mantissa * mantissa) >> 32;
        if mantissa >= 2 << 32 {
            mantissa >>= 1;
            log += 1 << bit;
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_normal_delay_has_its_median_and_its_factor() {
        let delay = Delay::LogNormal { median: Span::millis(10), factor: Factor(2_000_000) };
        let mut rng = dice(1, Place::Message, 1, 2, 3);
        let mut drawn: Vec<u64> = (0..20_000).map(|_| draw(delay, &mut rng)).collect();
        drawn.sort_unstable();
        let near = |found: u64, wanted: u64| found.abs_diff(wanted) < wanted / 20;
        assert!(near(drawn[10_000], 10_000_000), "{}", drawn[10_000]);
        // One standard deviation up: 84.13% lie below.
        assert!(near(drawn[16_827], 20_000_000), "{}", drawn[16_827]);
        assert!(near(drawn[3_173], 5_000_000), "{}", drawn[3_173]);
    }

    #[test]
    fn logarithms_are_close() {
        assert_eq!(log2(Factor(1_000_000)), 0);
        assert!((log2(Factor(8_000_000)) - (3 << 16)).abs() <= 2);
        assert!((log2(Factor(10_000_000)) - 217_706).abs() <= 2);
    }

    #[test]
    fn places_do_not_share_their_draws() {
        let a = dice(1, Place::Message, 1, 2, 0).next();
        assert_ne!(a, dice(1, Place::Message, 2, 1, 0).next());
        assert_ne!(a, dice(1, Place::Link, 1, 2, 0).next());
        assert_ne!(a, dice(1, Place::Message, 1, 2, 1).next());
        assert_eq!(a, dice(1, Place::Message, 1, 2, 0).next());
    }
}
