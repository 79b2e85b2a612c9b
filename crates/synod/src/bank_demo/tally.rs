//! The bookkeeping of the demo: what was counted, and what readers saw of the money.

use super::banks::Ended;
use serde_json::{Value, json};
use std::time::Duration;

/// Durations that are kept; later ones are counted and not kept.
const DURATIONS_MAX: usize = 1_000_000;

/// All that was counted so far.
#[derive(Debug)]
pub struct Tally {
    /// Transfers that took place.
    pub committed: u64,
    /// That did not because another one was at the same account, or another's reader was.
    pub in_the_way: u64,
    /// That did not for want of money, or for another reason that was said.
    pub refused: u64,
    /// That nobody took, since there was no leader in time.
    pub unserved: u64,
    /// Of which nobody knows whether they took place.
    pub unknown: u64,
    /// Members that were killed.
    pub kills: u64,
    /// Those among them that led, and so coordinated.
    pub coordinators_killed: u64,
    /// Transactions in doubt when it was looked last, and the most at one time.
    pub in_doubt: u64,
    pub in_doubt_max: u64,
    /// What the readers saw.
    pub money: Money,
    durations: Vec<Duration>,
}

/// What readers saw of the money.
#[derive(Debug)]
pub struct Money {
    /// How much there is.
    pub expected: i64,
    /// Reads of all accounts that succeeded, and those that found another sum.
    pub reads: u64,
    pub wrong: u64,
    /// Reads that were not served.
    pub unserved: u64,
    /// What the last one found.
    pub last: Option<i64>,
    /// The smallest and the largest sum that was found.
    pub least: i64,
    pub most: i64,
    /// For how long readers found another sum than there is, all in all and at a stretch.
    pub wrong_time: Duration,
    pub wrong_longest: Duration,
    wrong_since: Option<Duration>,
}

impl Money {
    fn new(expected: i64) -> Money {
        Money {
            expected,
            reads: 0,
            wrong: 0,
            unserved: 0,
            last: None,
            least: expected,
            most: expected,
            wrong_time: Duration::ZERO,
            wrong_longest: Duration::ZERO,
            wrong_since: None,
        }
    }

    /// A read that ended at `now`, a time since the beginning, found this sum.
    pub fn seen(&mut self, now: Duration, sum: i64) {
        self.reads += 1;
        self.last = Some(sum);
        self.least = self.least.min(sum);
        self.most = self.most.max(sum);
        if sum != self.expected {
            self.wrong += 1;
            self.wrong_since.get_or_insert(now);
        } else if let Some(since) = self.wrong_since.take() {
            let stretch = now.saturating_sub(since);
            self.wrong_time += stretch;
            self.wrong_longest = self.wrong_longest.max(stretch);
        }
    }
}

impl Tally {
    /// Nothing yet, of banks that hold this much together.
    pub fn new(expected: i64) -> Tally {
        Tally {
            committed: 0,
            in_the_way: 0,
            refused: 0,
            unserved: 0,
            unknown: 0,
            kills: 0,
            coordinators_killed: 0,
            in_doubt: 0,
            in_doubt_max: 0,
            money: Money::new(expected),
            durations: Vec::new(),
        }
    }

    /// A transfer ended so, and its client knew after `took`.
    pub fn count(&mut self, ended: &Ended, took: Duration) {
        match ended {
            Ended::Done(_) => self.commit(took),
            Ended::InTheWay(_) => self.in_the_way += 1,
            Ended::Refused(_) => self.refused += 1,
            Ended::Unserved(_) => self.unserved += 1,
            Ended::Unknown(_) => self.unknown += 1,
        }
    }

    fn commit(&mut self, took: Duration) {
        self.committed += 1;
        if self.durations.len() < DURATIONS_MAX {
            self.durations.push(took);
        }
    }

    /// So many are in doubt now.
    pub fn doubt(&mut self, count: u64) {
        self.in_doubt = count;
        self.in_doubt_max = self.in_doubt_max.max(count);
    }

    /// What of a hundred committed transfers so many percent did not exceed, in milliseconds.
    pub fn percentile_ms(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).map(|took| took.as_secs_f64() * 1e3)
    }

    /// One line: how it goes.
    pub fn line(&self, now: Duration) -> String {
        let rate = self.committed as f64 / now.as_secs_f64().max(0.001);
        let total = self.money.last.map_or("not read yet".to_owned(), |sum| {
            let mark = if sum == self.money.expected { "=" } else { "INSTEAD OF" };
            format!("{} {mark} {}", thousands(sum), thousands(self.money.expected))
        });
        format!(
            "{rate:.0}/s  committed {}  aborted {}  unknown {}  in doubt {}  kills {} ({} of the coordinator)  total {total}",
            self.committed,
            self.in_the_way + self.refused + self.unserved,
            self.unknown,
            self.in_doubt,
            self.kills,
            self.coordinators_killed
        )
    }

    /// Everything, for a program.
    pub fn json(&self, span: Duration) -> Value {
        let ms = |time: Duration| (time.as_secs_f64() * 1e3).round();
        json!({
            "seconds": span.as_secs_f64(),
            "transfers-per-second": self.committed as f64 / span.as_secs_f64().max(0.001),
            "committed": self.committed,
            "aborted": {"in-the-way": self.in_the_way, "refused": self.refused, "unserved": self.unserved},
            "unknown": self.unknown,
            "kills": self.kills,
            "coordinators-killed": self.coordinators_killed,
            "in-doubt-max": self.in_doubt_max,
            "p50-ms": self.percentile_ms(50),
            "p99-ms": self.percentile_ms(99),
            "money": {
                "expected": self.money.expected,
                "last": self.money.last,
                "reads": self.money.reads,
                "wrong-reads": self.money.wrong,
                "unserved-reads": self.money.unserved,
                "least": self.money.least,
                "most": self.money.most,
                "wrong-ms": ms(self.money.wrong_time),
                "wrong-ms-longest": ms(self.money.wrong_longest),
            },
        })
    }
}

/// A number with a comma at every third digit.
pub fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = if number < 0 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_window_lasts_from_the_first_read_that_misses_money_to_the_next_that_does_not() {
        let mut money = Money::new(100);
        for (at, sum) in [(10, 100), (20, 70), (35, 60), (50, 100), (60, 110), (65, 100)] {
            money.seen(ms(at), sum);
        }
        assert_eq!((money.reads, money.wrong), (6, 3));
        assert_eq!((money.least, money.most, money.last), (60, 110, Some(100)));
        assert_eq!((money.wrong_time, money.wrong_longest), (ms(35), ms(30)));
    }

    #[test]
    fn percentiles_are_of_what_was_committed() {
        let mut tally = Tally::new(0);
        assert_eq!(tally.percentile_ms(50), None);
        (1..=200).rev().for_each(|took| tally.commit(ms(took)));
        assert_eq!((tally.percentile_ms(50), tally.percentile_ms(99)), (Some(100.0), Some(198.0)));
        assert_eq!(tally.percentile_ms(100), Some(200.0));
    }

    #[test]
    fn a_wrong_total_cannot_be_overlooked() {
        let mut tally = Tally::new(16_000);
        assert!(tally.line(ms(1)).contains("not read yet"));
        tally.money.seen(ms(1), 16_000);
        assert!(tally.line(ms(1)).ends_with("total 16,000 = 16,000"));
        tally.money.seen(ms(2), 15_900);
        assert!(tally.line(ms(1)).ends_with("total 15,900 INSTEAD OF 16,000"));
    }

    #[test]
    fn doubt_is_remembered_at_its_worst() {
        let mut tally = Tally::new(0);
        [1, 3, 0].into_iter().for_each(|count| tally.doubt(count));
        assert_eq!((tally.in_doubt, tally.in_doubt_max), (0, 3));
    }

    #[test]
    fn large_numbers_can_be_read() {
        assert_eq!([0, 999, 1000, -1234567].map(thousands), ["0", "999", "1,000", "-1,234,567"]);
    }
}
