//! What was measured of a level, as JSON and as a table.

use super::cluster::Figures;
use super::load::Tally;
use serde::Serialize;
use std::fmt;
use std::time::Duration;
use synod_bench::Histogram;

/// What was measured of one level. Times in milliseconds, shares from 0 to 1.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Level {
    pub level: String,
    pub writes: Row,
    pub reads: Row,
    /// Two writes for three reads, while all is well.
    pub well: Side,
    /// The same on the side of one member that is cut off.
    pub minority: Side,
    /// The same on the side of the other two.
    pub majority: Side,
    pub convergence: Convergence,
}

/// One kind of request alone, at all members.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub refused: u64,
    /// Processor time of all three members for each answered request, in microseconds.
    pub processor_us: f64,
    /// Messages between members for each answered request.
    pub messages: f64,
}

/// What the clients of one side had.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Side {
    pub reads: u64,
    pub writes: u64,
    /// Of the reads that were asked, how many were not answered.
    pub reads_refused: u64,
    pub writes_refused: u64,
    pub reads_stale: u64,
    /// How old what a stale read lacked was.
    pub stale_p50_ms: f64,
    pub stale_max_ms: f64,
}

/// After a partition in which both sides wrote to the same keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Convergence {
    pub partition_s: f64,
    pub writes_minority: u64,
    pub writes_majority: u64,
    pub keys: usize,
    /// From when the links were told to heal until all three members list the same.
    pub ms: f64,
}

impl Row {
    /// Of the reads or the writes of a load, and what the members used meanwhile.
    pub fn of(kind: fn(&Tally) -> (&Histogram, u64), tally: &Tally, used: Figures) -> Row {
        let (latencies, refused) = kind(tally);
        let count = (latencies.count() as f64).max(1.0);
        Row {
            per_second: latencies.count() as f64 / tally.span.as_secs_f64(),
            p50_ms: ms(latencies.quantile(0.5)),
            p99_ms: ms(latencies.quantile(0.99)),
            refused,
            processor_us: used.processor.as_secs_f64() * 1e6 / count,
            messages: used.messages as f64 / count,
        }
    }
}

impl From<Tally> for Side {
    fn from(tally: Tally) -> Side {
        Side {
            reads: tally.reads.count(),
            writes: tally.writes.count(),
            reads_refused: tally.reads_refused,
            writes_refused: tally.writes_refused,
            reads_stale: tally.stale.count(),
            stale_p50_ms: ms(tally.stale.quantile(0.5)),
            stale_max_ms: ms(tally.stale.max()),
        }
    }
}

impl Side {
    fn refused(&self) -> String {
        let refused = self.reads_refused + self.writes_refused;
        let share = share(refused, refused + self.reads + self.writes);
        match (self.reads_refused, self.writes_refused) {
            (0, 0) => "none".into(),
            (0, _) if self.writes == 0 => format!("{share} (every write)"),
            _ if self.reads + self.writes == 0 => "all".into(),
            _ => share,
        }
    }

    fn stale(&self) -> String {
        match (self.reads, self.reads_stale) {
            (0, _) => "no read".into(),
            (_, 0) => "none".into(),
            (reads, stale) => share(stale, reads),
        }
    }

    fn age(&self) -> String {
        match self.reads_stale {
            0 => "-".into(),
            _ => format!("{} / {}", brief(self.stale_p50_ms), brief(self.stale_max_ms)),
        }
    }
}

/// The levels side by side.
pub struct Table<'a>(pub &'a [Level]);

/// A line of the table: what it tells, and how that is told of a level.
type Line = (&'static str, fn(&Level) -> String);

const LINES: &[Line] = &[
    ("writes per second", |l| format!("{:.0}", l.writes.per_second)),
    ("  p50 / p99, ms", |l| format!("{} / {}", brief(l.writes.p50_ms), brief(l.writes.p99_ms))),
    ("  server processor time, us", |l| format!("{:.0}", l.writes.processor_us)),
    ("  messages", |l| format!("{:.2}", l.writes.messages)),
    ("reads per second", |l| format!("{:.0}", l.reads.per_second)),
    ("  p50 / p99, ms", |l| format!("{} / {}", brief(l.reads.p50_ms), brief(l.reads.p99_ms))),
    ("  server processor time, us", |l| format!("{:.0}", l.reads.processor_us)),
    ("  messages", |l| format!("{:.2}", l.reads.messages)),
    ("while all is well: stale reads", |l| l.well.stale()),
    ("  by how much, p50 / most, ms", |l| l.well.age()),
    ("cut off, minority: refused", |l| l.minority.refused()),
    ("  stale reads", |l| l.minority.stale()),
    ("  by how much, p50 / most, ms", |l| l.minority.age()),
    ("cut off, majority: refused", |l| l.majority.refused()),
    ("  stale reads", |l| l.majority.stale()),
    ("  by how much, p50 / most, ms", |l| l.majority.age()),
    ("conflicting writes, minority + majority", |l| {
        format!("{} + {}", l.convergence.writes_minority, l.convergence.writes_majority)
    }),
    ("  all the same after healing, ms", |l| brief(l.convergence.ms)),
];

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<40}", "")?;
        self.0.iter().try_for_each(|level| write!(f, "{:>24}", level.level))?;
        for (what, told) in LINES {
            write!(f, "\n{what:<40}")?;
            self.0.iter().try_for_each(|level| write!(f, "{:>24}", told(level)))?;
        }
        writeln!(f)
    }
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// Milliseconds; tenths only below ten, where they count.
fn brief(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
