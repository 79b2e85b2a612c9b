//! The result of a run, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::{Histogram, Mix};

/// What one run measured. Everything counts from the end of the warm-up.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Connections.
    pub clients: usize,
    /// Calls under way on each connection.
    pub outstanding_per_connection: usize,
    /// Length of a key.
    pub key_bytes: usize,
    /// Length of a value.
    pub value_bytes: usize,
    /// What the calls did.
    pub mix: Mix,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Calls that succeeded.
    pub operations: u64,
    /// Calls that succeeded, a second.
    pub operations_per_second: f64,
    /// Latency of the calls that succeeded.
    pub latency: Latency,
    /// Calls that failed, by reason, the most frequent first.
    pub errors: Vec<ErrorCount>,
    /// Failed puts which may have happened all the same: no answer came, or one that leaves it open.
    pub puts_unknown: u64,
    /// Connections that were lost or abandoned.
    pub connections_lost: u64,
    /// Processor time that this generator spent, in microseconds for each call that came to its end.
    pub generator_us_per_operation: f64,
    /// What the servers used; nothing unless their process ids were given.
    pub servers: Option<Servers>,
    /// The longest time without a successful put; nothing when no put was asked for.
    pub longest_write_gap: Option<Gap>,
    /// Why the run ended before its limit, when it did.
    pub ended_early: Option<String>,
}

/// Latencies in microseconds, from the encoding of a request to the reading of its answer. Quantiles are
/// at most 1.6 % too high, never too low.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// The mean, exactly.
    pub mean_us: f64,
    /// Half were faster.
    pub p50_us: f64,
    /// 90 % were faster.
    pub p90_us: f64,
    /// 99 % were faster.
    pub p99_us: f64,
    /// 99.9 % were faster.
    pub p999_us: f64,
    /// The slowest, exactly.
    pub max_us: f64,
}

impl From<&Histogram> for Latency {
    fn from(histogram: &Histogram) -> Self {
        let us = |duration: Duration| duration.as_nanos() as f64 / 1000.0;
        let quantile = |share| us(histogram.quantile(share));
        Self {
            mean_us: us(histogram.mean()),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: us(histogram.max()),
        }
    }
}

/// Calls that failed for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorCount {
    /// The name of the gRPC status, or what happened instead of one.
    pub code: String,
    /// How many.
    pub count: u64,
    /// What was said the first time.
    pub first_message: String,
    /// When that was, in seconds from the start of the measurement.
    pub first_at_seconds: f64,
}

/// What the members used during the measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Servers {
    /// Processor time of all members together, in microseconds for each successful call. `None` when one of
    /// them ended on the way, since what it used is then lost.
    pub processor_us_per_operation: Option<f64>,
    /// Bytes that all members together sent to storage for each successful call, where the kernel tells.
    pub written_bytes_per_operation: Option<f64>,
    /// Each member by itself, in the order in which the process ids were given.
    pub members: Vec<Member>,
}

/// What one member used during the measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    /// Its process id.
    pub pid: u32,
    /// Processor time, in seconds, to 10 ms; nothing when it ended on the way.
    pub processor_seconds: Option<f64>,
    /// Resident memory at the end, in bytes; nothing when it ended on the way.
    pub resident_bytes: Option<u64>,
}

/// A time without a successful put.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Gap {
    /// How long it was, in milliseconds.
    pub ms: f64,
    /// When it began, in seconds from the start of the measurement.
    pub began_at_seconds: f64,
    /// Whether the run ended before a put succeeded again.
    pub open: bool,
}

impl Report {
    /// Calls that failed, for whatever reason.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.errors.iter().map(|error| error.count).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Table(std::slice::from_ref(self)))
    }
}

/// Several runs as one aligned table, followed by whatever went wrong in them.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a>(
    /// The runs, a line each.
    pub &'a [Report],
);

const COLUMNS: [&str; 12] = [
    "clients",
    "each",
    "ops/s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "server µs/op",
    "disk B/op",
    "generator µs/op",
    "longest gap ms",
];

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; COLUMNS.len()]> = self.0.iter().map(cells).collect();
        let width = |column: usize| {
            let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            longest.max(COLUMNS[column].chars().count())
        };
        let line = |f: &mut fmt::Formatter<'_>, cells: &[String]| {
            for (column, cell) in cells.iter().enumerate() {
                let separator = if column == 0 { "" } else { "  " };
                write!(f, "{separator}{cell:>width$}", width = width(column))?;
            }
            writeln!(f)
        };
        line(f, &COLUMNS.map(str::to_owned))?;
        for row in &rows {
            line(f, row)?;
        }
        for report in self.0 {
            notes(f, report)?;
        }
        Ok(())
    }
}

fn cells(report: &Report) -> [String; COLUMNS.len()] {
    let ms = |us: f64| format!("{:.2}", us / 1000.0);
    let servers = report.servers.as_ref();
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    [
        report.clients.to_string(),
        report.outstanding_per_connection.to_string(),
        format!("{:.0}", report.operations_per_second),
        ms(report.latency.p50_us),
        ms(report.latency.p90_us),
        ms(report.latency.p99_us),
        ms(report.latency.p999_us),
        ms(report.latency.max_us),
        optional(servers.and_then(|servers| servers.processor_us_per_operation)),
        servers
            .and_then(|servers| servers.written_bytes_per_operation)
            .map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}")),
        format!("{:.1}", report.generator_us_per_operation),
        optional(report.longest_write_gap.map(|gap| gap.ms)),
    ]
}

fn notes(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let row = format!("{} x {}", report.clients, report.outstanding_per_connection);
    for error in &report.errors {
        let ErrorCount { code, count, first_message, first_at_seconds } = error;
        write!(f, "{row}: {count} x {code}, first after {first_at_seconds:.2} s")?;
        if !first_message.is_empty() {
            write!(f, ": {first_message}")?;
        }
        writeln!(f)?;
    }
    if report.puts_unknown > 0 {
        writeln!(f, "{row}: {} failed puts may have happened all the same", report.puts_unknown)?;
    }
    if report.connections_lost > 0 {
        writeln!(f, "{row}: {} connections lost", report.connections_lost)?;
        if let Some(gap) = report.longest_write_gap {
            let end = if gap.open { ", and lasted to the end" } else { "" };
            writeln!(f, "{row}: longest gap {:.1} ms, from {:.3} s{end}", gap.ms, gap.began_at_seconds)?;
        }
    }
    if let Some(reason) = &report.ended_early {
        writeln!(f, "{row}: ended early: {reason}")?;
    }
    Ok(())
}

/// The name of a gRPC status, as its documents spell it.
pub(crate) fn status_name(status: u32) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(status as usize).map_or_else(|| format!("status {status}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            clients: 64,
            outstanding_per_connection: 16,
            key_bytes: 8,
            value_bytes: 256,
            mix: Mix::default(),
            seconds: 10.0,
            operations: 114_810,
            operations_per_second: 11_481.0,
            latency: Latency { p50_us: 85_000.0, max_us: 210_500.0, ..Latency::default() },
            errors: vec![ErrorCount {
                code: status_name(14),
                count: 3,
                first_message: "etcdserver: leader changed".into(),
                first_at_seconds: 4.25,
            }],
            puts_unknown: 3,
            connections_lost: 1,
            generator_us_per_operation: 6.1,
            servers: Some(Servers {
                processor_us_per_operation: Some(129.4),
                written_bytes_per_operation: None,
                members: Vec::new(),
            }),
            longest_write_gap: Some(Gap { ms: 1234.5, began_at_seconds: 4.2, open: false }),
            ended_early: None,
        }
    }

    #[test]
    fn the_table_is_aligned_and_tells_what_went_wrong() {
        let text = Table(&[report(), Report { clients: 1, ..report() }]).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].chars().count(), lines[1].chars().count());
        assert_eq!(lines[1].chars().count(), lines[2].chars().count());
        assert!(lines[1].contains("11481") && lines[1].contains("129.4") && lines[1].contains("85.00"));
        assert_eq!(lines[3], "64 x 16: 3 x UNAVAILABLE, first after 4.25 s: etcdserver: leader changed");
        assert!(text.contains("longest gap 1234.5 ms, from 4.200 s"));
    }

    #[test]
    fn json_carries_units_in_its_names() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["latency"]["p50_us"], 85_000.0);
        assert_eq!(json["servers"]["processor_us_per_operation"], 129.4);
        assert_eq!(json["errors"][0]["code"], "UNAVAILABLE");
        assert_eq!(json["longest_write_gap"]["ms"], 1234.5);
    }

    #[test]
    fn an_unheard_of_status_keeps_its_number() {
        assert_eq!(status_name(99), "status 99");
    }
}
