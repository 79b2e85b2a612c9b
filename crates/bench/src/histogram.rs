//! A histogram of latencies in logarithmic buckets: constant memory, a few nanoseconds a sample, and a
//! relative error that is bounded by construction.
//!
//! A value falls into the octave of its highest bit, and each octave is divided into [`STEPS`] equal
//! buckets; a quantile is reported as the upper end of its bucket, so it is never too small and at
//! most 1/64 (1.6 %) too large.

use std::time::Duration;

/// Buckets per octave. A power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// One linear range below `STEPS`, then an octave for each remaining bit of a `u64`.
const BUCKETS: usize = ((64 - STEP_BITS + 1) as usize) * STEPS as usize;

/// Latencies seen, to the nanosecond, in buckets of at most 1.6 % width.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum_ns: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Adds one sample. Durations beyond 584 years count as that.
    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many samples were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest sample, exactly.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The mean of all samples, exactly; zero when there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let mean = self.sum_ns.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The latency that a share `quantile` (0 to 1) of the samples did not exceed, rounded up to its
    /// bucket's end but never above the maximum; zero when there are no samples.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = ((quantile.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_end(index).min(self.max_ns));
            }
        }
        self.max()
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let octave = 63 - ns.leading_zeros() - STEP_BITS;
    let step = (ns >> octave) - STEPS;
    ((u64::from(octave) + 1) * STEPS + step) as usize
}

fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let octave = index / STEPS - 1;
    let step = index % STEPS;
    // In u128: the last bucket ends at 2^64 - 1, and its exclusive end does not fit.
    let end = (u128::from(STEPS + step + 1) << octave) - 1;
    u64::try_from(end).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_at_most_a_sixty_fourth_wide() {
        let mut value = 1_u64;
        for _ in 0..4096 {
            let index = bucket(value);
            let end = upper_end(index);
            assert!(end >= value, "{value} above its bucket's end {end}");
            assert!(end - value <= value / STEPS, "{value} is far from {end}");
            if index > 0 {
                assert!(upper_end(index - 1) < value, "{value} belongs to an earlier bucket");
            }
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> (value % 60);
            value = value.max(1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_end(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_of_a_uniform_thousand_are_within_their_bucket() {
        let mut histogram = Histogram::default();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        for (quantile, exact_us) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0)] {
            let us = histogram.quantile(quantile).as_nanos() as f64 / 1000.0;
            assert!(us >= exact_us && us <= exact_us * (1.0 + 1.0 / 64.0), "{quantile}: {us} for {exact_us}");
        }
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(1));
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
        assert_eq!(histogram.count(), 1000);
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        assert_eq!(histogram.mean(), Duration::ZERO);
        assert_eq!(histogram.max(), Duration::ZERO);
    }

    #[test]
    fn a_lone_outlier_is_the_maximum_and_not_the_median() {
        let mut histogram = Histogram::default();
        for _ in 0..999 {
            histogram.record(Duration::from_micros(100));
        }
        histogram.record(Duration::from_secs(3));
        assert!(histogram.quantile(0.5) < Duration::from_micros(102));
        assert!(histogram.quantile(0.999) < Duration::from_micros(102));
        assert_eq!(histogram.max(), Duration::from_secs(3));
    }
}
