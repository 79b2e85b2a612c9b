//! Counting what comes to its end during one phase of a run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::connection::{Failure, Finished};
use crate::report::status_name;
use crate::request::Operation;
use crate::usage::{Usage, thread_processor_time};
use crate::{ErrorCount, Gap, Histogram, Latency, Member, Options, Report, Servers};

#[derive(Debug)]
pub(crate) struct Tally {
    began: Instant,
    histogram: Histogram,
    failures: BTreeMap<Failure, Failures>,
    failed: u64,
    puts_unknown: u64,
    connections_lost: u64,
    last_success: Instant,
    last_put: Instant,
    longest_gap: (Duration, Instant),
    processor_before: Duration,
    servers_before: Vec<Option<Usage>>,
}

#[derive(Debug)]
struct Failures {
    count: u64,
    first_message: String,
    first_at: Instant,
}

impl Tally {
    pub(crate) fn begin(options: &Options, now: Instant) -> Self {
        Self {
            began: now,
            histogram: Histogram::default(),
            failures: BTreeMap::new(),
            failed: 0,
            puts_unknown: 0,
            connections_lost: 0,
            last_success: now,
            last_put: now,
            longest_gap: (Duration::ZERO, now),
            processor_before: thread_processor_time(),
            servers_before: options.server_pids.iter().map(|&pid| Usage::of(pid)).collect(),
        }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn succeeded(&self) -> u64 {
        self.histogram.count()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    pub(crate) fn last_success(&self) -> Instant {
        self.last_success
    }

    pub(crate) fn lost_connection(&mut self) {
        self.connections_lost += 1;
    }

    pub(crate) fn record(&mut self, call: Finished, now: Instant) {
        let put = call.operation == Operation::Put;
        let Some((failure, message)) = call.failure else {
            self.histogram.record(now.saturating_duration_since(call.started));
            self.last_success = now;
            if put {
                let gap = now.saturating_duration_since(self.last_put);
                if gap > self.longest_gap.0 {
                    self.longest_gap = (gap, self.last_put);
                }
                self.last_put = now;
            }
            return;
        };
        self.failed += 1;
        self.puts_unknown += u64::from(put && leaves_open(&failure));
        let failures = self.failures.entry(failure).or_insert_with(|| Failures {
            count: 0,
            first_message: message,
            first_at: now,
        });
        failures.count += 1;
    }

    pub(crate) fn report(self, options: &Options, now: Instant, ended_early: Option<String>) -> Report {
        let elapsed = now.saturating_duration_since(self.began).as_secs_f64();
        let operations = self.histogram.count();
        let ended = operations + self.failed;
        let processor = thread_processor_time().saturating_sub(self.processor_before);
        let servers = (!options.server_pids.is_empty()).then(|| self.servers(options, operations));
        let open_gap = now.saturating_duration_since(self.last_put);
        let open = open_gap > self.longest_gap.0;
        let (gap, gap_began) = if open { (open_gap, self.last_put) } else { self.longest_gap };
        let at = |moment: Instant| moment.saturating_duration_since(self.began).as_secs_f64();
        let mut errors: Vec<ErrorCount> = self
            .failures
            .iter()
            .map(|(failure, failures)| ErrorCount {
                code: failure_name(failure),
                count: failures.count,
                first_message: failures.first_message.clone(),
                first_at_seconds: at(failures.first_at),
            })
            .collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        Report {
            clients: options.clients,
            outstanding_per_connection: options.outstanding_per_connection,
            key_bytes: options.key_bytes,
            value_bytes: options.value_bytes,
            mix: options.mix,
            seconds: elapsed,
            operations,
            operations_per_second: operations as f64 / elapsed.max(f64::MIN_POSITIVE),
            latency: Latency::from(&self.histogram),
            errors,
            puts_unknown: self.puts_unknown,
            connections_lost: self.connections_lost,
            generator_us_per_operation: processor.as_secs_f64() * 1e6 / ended.max(1) as f64,
            servers,
            longest_write_gap: (options.mix.put > 0).then(|| Gap {
                ms: gap.as_secs_f64() * 1e3,
                began_at_seconds: at(gap_began),
                open,
            }),
            ended_early,
        }
    }

    fn servers(&self, options: &Options, operations: u64) -> Servers {
        let per_operation = |total: f64| total / operations.max(1) as f64;
        let used: Vec<Option<(Usage, Usage)>> = options
            .server_pids
            .iter()
            .zip(&self.servers_before)
            .map(|(&pid, &before)| before.zip(Usage::of(pid)))
            .collect();
        let processor = |(before, after): &(Usage, Usage)| after.processor.saturating_sub(before.processor);
        let written = |(before, after): &(Usage, Usage)| Some(after.written_bytes? - before.written_bytes?);
        let total: Option<Duration> = used.iter().map(|used| used.as_ref().map(processor)).sum();
        let total_written: Option<u64> = used.iter().map(|used| used.as_ref().and_then(written)).sum();
        Servers {
            processor_us_per_operation: total.map(|total| per_operation(total.as_secs_f64() * 1e6)),
            written_bytes_per_operation: total_written.map(|bytes| per_operation(bytes as f64)),
            members: options
                .server_pids
                .iter()
                .zip(&used)
                .map(|(&pid, used)| Member {
                    pid,
                    processor_seconds: used.as_ref().map(|used| processor(used).as_secs_f64()),
                    resident_bytes: used.as_ref().map(|(_, after)| after.resident_bytes),
                })
                .collect(),
        }
    }
}

/// Whether a call that failed so may have taken effect.
fn leaves_open(failure: &Failure) -> bool {
    match failure {
        Failure::Refused => false,
        // CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, ABORTED, INTERNAL, UNAVAILABLE, DATA_LOSS: etcd answers
        // with some of these when it lost sight of a proposal that may yet be committed.
        Failure::Status(status) => matches!(status, 1 | 2 | 4 | 10 | 13 | 14 | 15),
        Failure::Http(_) => false,
        Failure::NoStatus | Failure::Reset(_) | Failure::TimedOut | Failure::ConnectionLost => true,
    }
}

fn failure_name(failure: &Failure) -> String {
    match failure {
        Failure::Status(status) => status_name(*status),
        Failure::Http(status) => format!("HTTP status {status} without a gRPC status"),
        Failure::NoStatus => "answer without a status".into(),
        Failure::Reset(code) => format!("stream reset with HTTP/2 code {code}"),
        Failure::Refused => "not looked at".into(),
        Failure::TimedOut => "no answer in time".into(),
        Failure::ConnectionLost => "connection lost".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, started: Instant, failure: Option<Failure>) -> Finished {
        Finished { operation, started, failure: failure.map(|failure| (failure, "why".into())) }
    }

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_longest_gap_is_between_puts_that_succeeded() {
        let options = Options::default();
        let start = Instant::now();
        let mut tally = Tally::begin(&options, start);
        tally.record(call(Operation::Put, start, None), after(start, 10));
        tally.record(call(Operation::Get, start, None), after(start, 100));
        tally.record(call(Operation::Put, start, Some(Failure::TimedOut)), after(start, 200));
        tally.record(call(Operation::Put, start, None), after(start, 310));
        tally.record(call(Operation::Put, start, None), after(start, 330));
        let gap = tally.report(&options, after(start, 400), None).longest_write_gap.unwrap();
        assert!((gap.ms - 300.0).abs() < 0.1 && !gap.open, "{gap:?}");
        assert!((gap.began_at_seconds - 0.01).abs() < 1e-4, "{gap:?}");
    }

    #[test]
    fn a_gap_that_lasts_to_the_end_is_marked_open() {
        let options = Options::default();
        let start = Instant::now();
        let mut tally = Tally::begin(&options, start);
        tally.record(call(Operation::Put, start, None), after(start, 100));
        let gap = tally.report(&options, after(start, 500), None).longest_write_gap.unwrap();
        assert!((gap.ms - 400.0).abs() < 0.1 && gap.open, "{gap:?}");
    }

    #[test]
    fn failures_are_counted_by_reason_and_only_open_puts_are_unknown() {
        let options = Options::default();
        let start = Instant::now();
        let mut tally = Tally::begin(&options, start);
        for _ in 0..3 {
            tally.record(call(Operation::Put, start, Some(Failure::Status(14))), after(start, 5));
        }
        tally.record(call(Operation::Get, start, Some(Failure::TimedOut)), after(start, 6));
        tally.record(call(Operation::Put, start, Some(Failure::Refused)), after(start, 7));
        tally.record(call(Operation::Put, start, Some(Failure::Status(3))), after(start, 8));
        let report = tally.report(&options, after(start, 1000), None);
        assert_eq!(report.errors[0].code, "UNAVAILABLE");
        assert_eq!(report.errors[0].count, 3);
        assert_eq!(report.errors[0].first_message, "why");
        assert_eq!(report.errors.len(), 4);
        assert_eq!(report.failures(), 6);
        assert_eq!(report.puts_unknown, 3);
        assert_eq!(report.operations, 0);
    }

    #[test]
    fn a_member_that_ended_on_the_way_leaves_no_total() {
        let options = Options { server_pids: vec![std::process::id(), u32::MAX], ..Options::default() };
        let start = Instant::now();
        let report = Tally::begin(&options, start).report(&options, after(start, 1), None);
        let servers = report.servers.unwrap();
        assert_eq!(servers.processor_us_per_operation, None);
        assert!(servers.members[0].processor_seconds.is_some());
        assert!(servers.members[1].processor_seconds.is_none());
    }
}
