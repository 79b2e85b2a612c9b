//! CAP, measured: one partition, one workload, each level in turn.
//!
//! One member is cut off from the others for a while, and everything is counted from what the sessions saw. Each
//! asks its own member, so one side of the partition is a minority of one. When the partition ends the load does as
//! well, and it is measured how long it takes until all members show the same.

use super::faults::Alarm;
use super::world::run_with;
use super::{Fault, Level, Scenario};
use serde::Serialize;
use std::time::Duration;
use synod_check::history::{History, Nanos, Operation, Outcome};
use synod_protocols::types::{NodeId, Time};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct CapScenario {
    /// Members; the first of them is cut off. 3 to 9.
    pub members: u64,
    /// What everything random is drawn from.
    pub seed: u64,
    /// How long there is load before the partition, and how long the partition lasts.
    pub calm: Duration,
    /// As above.
    pub partition: Duration,
    /// How long each message takes.
    pub delay: Duration,
    /// How long each sync takes.
    pub sync: Duration,
}

impl Default for CapScenario {
    /// Three members, 5 s of calm and a partition of 5 s; messages of 10 ms, syncs of 2 ms.
    fn default() -> CapScenario {
        CapScenario {
            members: 3,
            seed: 1,
            calm: Duration::from_secs(5),
            partition: Duration::from_secs(5),
            delay: Duration::from_millis(10),
            sync: Duration::from_millis(2),
        }
    }
}

/// What one side's sessions saw.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Side {
    /// Requests.
    pub asked: u64,
    /// Those of them that were refused, or not answered within a second.
    pub refused: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Those of them that gave a value which, before they were asked for, another write had replaced: one that
    /// began after that value's write had been answered.
    pub stale: u64,
    /// Of puts that were answered, in milliseconds.
    pub put_ms_p50: f64,
    /// As above.
    pub put_ms_p99: f64,
    /// Of gets that were answered, in milliseconds.
    pub get_ms_p50: f64,
    /// As above.
    pub get_ms_p99: f64,
}

/// What the partition did to one level.
#[derive(Clone, Debug, Serialize)]
pub struct Cap {
    /// Which.
    pub level: Level,
    /// Everybody, before the partition.
    pub calm: Side,
    /// Those who ask the member that is cut off, during it.
    pub minority: Side,
    /// The others, during it.
    pub majority: Side,
    /// How long after the partition all showed the same, in milliseconds; none if not within a minute.
    pub convergence_ms: Option<f64>,
    /// Messages in all, for each request that was answered.
    pub messages_per_request: f64,
    /// Promises that were broken; there are none.
    pub violations: Vec<String>,
}

/// When the first session asks: by then there is a leader, where there is one.
const BEGIN: Duration = Duration::from_millis(500);

/// Measures one level.
pub fn cap(level: Level, what: &CapScenario) -> Cap {
    let split = Time::ZERO + BEGIN + what.calm;
    let scenario = Scenario {
        sessions: 2 * what.members,
        roams: false,
        give_up: Duration::from_secs(1),
        think: Duration::from_millis(40),
        span: BEGIN + what.calm + what.partition,
        latency: (what.delay, what.delay),
        sync: what.sync,
        ..Scenario::new(level, what.members, what.seed, Fault::None)
    };
    let alone = NodeId(1);
    let others = (2..=what.members).map(NodeId);
    let plan: Vec<(Time, Alarm)> = others
        .flat_map(|other| [(split, Alarm::Cut(alone, other)), (split, Alarm::Cut(other, alone))])
        .collect();
    let outcome = run_with(&scenario, &plan, false);
    let is_alone = |operation: &&Operation| operation.node.as_deref() == Some("n1");
    let end = Time::ZERO + scenario.span;
    let between = |from: Time, to: Time| {
        let is_so = move |operation: &&Operation| {
            let at = operation.invoked.time.unwrap_or_default();
            at >= Nanos(from.0) && at < Nanos(to.0) && operation.client.starts_with('s')
        };
        outcome.history.operations.iter().filter(is_so)
    };
    // What is under way when the partition comes belongs to neither.
    let calm_end = split - scenario.give_up;
    Cap {
        level,
        calm: side(&outcome.history, between(Time::ZERO, calm_end).collect()),
        minority: side(&outcome.history, between(split, end).filter(is_alone).collect()),
        majority: side(&outcome.history, between(split, end).filter(|op| !is_alone(op)).collect()),
        convergence_ms: outcome.convergence.map(milliseconds),
        messages_per_request: outcome.messages as f64 / outcome.answered.max(1) as f64,
        violations: outcome.violations,
    }
}

fn side(history: &History, operations: Vec<&Operation>) -> Side {
    let spans = |op: &str| {
        let mut spans: Vec<f64> = operations
            .iter()
            .filter(|operation| &*operation.call.op == op && matches!(operation.outcome, Outcome::Ok(_)))
            .filter_map(|operation| {
                let (from, to) = (operation.invoked.time?, operation.returned?.time?);
                Some(milliseconds(Duration::from_nanos(to.0 - from.0)))
            })
            .collect();
        spans.sort_by(f64::total_cmp);
        spans
    };
    let (puts, gets) = (spans("put"), spans("get"));
    let is_late = |operation: &&&Operation| {
        let span = |to: Nanos| to.0 - operation.invoked.time.unwrap_or_default().0;
        let returned = operation.returned.and_then(|moment| moment.time);
        !matches!(operation.outcome, Outcome::Ok(_)) || returned.is_none_or(|to| span(to) > 1_000_000_000)
    };
    Side {
        asked: operations.len() as u64,
        refused: operations.iter().filter(is_late).count() as u64,
        reads: gets.len() as u64,
        stale: operations.iter().filter(|operation| is_stale(history, operation)).count() as u64,
        put_ms_p50: percentile(&puts, 50),
        put_ms_p99: percentile(&puts, 99),
        get_ms_p50: percentile(&gets, 50),
        get_ms_p99: percentile(&gets, 99),
    }
}

/// Whether it is a read of a value that had been replaced before it was asked for.
fn is_stale(history: &History, read: &Operation) -> bool {
    let (Outcome::Ok(reply), "get") = (&read.outcome, &*read.call.op) else { return false };
    let written = |operation: &&Operation| {
        &*operation.call.op == "put"
            && operation.call.key == read.call.key
            && matches!(operation.outcome, Outcome::Ok(_))
    };
    let puts = || history.operations.iter().filter(written);
    let own = puts().find(|put| put.call.value == reply.value);
    let known = match (own, reply.value.as_ref().is_none_or(serde_json::Value::is_null)) {
        (Some(put), _) => put.returned.map(|moment| moment.order),
        (None, true) => Some(0),
        // Its write was never answered: nothing can be said.
        (None, false) => None,
    };
    let replaced = |put: &Operation, known: u64| {
        put.invoked.order > known && put.returned.is_some_and(|moment| moment.order < read.invoked.order)
    };
    known.is_some_and(|known| puts().any(|put| replaced(put, known)))
}

/// Of sorted values; 0 if there are none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

fn milliseconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1_000.0
}
