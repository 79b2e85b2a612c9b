//! CAP, measured: one partition, one workload, each level in turn.
//!
//! One member is cut off from the others for a while, and everything is counted from what the sessions saw. Each
//! asks its own member, so one side of the partition is a minority of one. When the partition ends the load does as
//! well, and it is measured how long it takes until all members show the same.

use super::faults::Alarm;
use super::world::run_with;
use super::{Fault, Level, Scenario};
use crate::small::Strike;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_check::history::{History, Operation, Outcome};
use synod_protocols::log::Timing;
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

/// What one side's sessions saw of the requests that they began within one slice of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Puts.
    pub puts: u64,
    /// Those of them that were refused, or not answered within a second.
    pub puts_refused: u64,
    /// Gets.
    pub gets: u64,
    /// As for puts.
    pub gets_refused: u64,
    /// Gets that were answered with the past.
    pub gets_stale: u64,
    /// How far in the past at the most, in milliseconds: between the answer to the first write that replaced what was
    /// read, and the question. 0 if none was stale.
    pub behind_ms: f64,
}

/// Requests by when they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Slice {
    /// Of those who ask the member that is cut off.
    pub alone: Tally,
    /// Of those who ask the others.
    pub others: Tally,
}

/// One level, from the first request to the last.
#[derive(Clone, Debug, Serialize)]
pub struct CapFilm {
    /// The sums.
    pub cap: Cap,
    /// When the partition begins, in milliseconds after the load does.
    pub split_ms: f64,
    /// When it ends, and the load with it.
    pub end_ms: f64,
    /// How long a slice is; the last may be shorter.
    pub slice_ms: f64,
    /// All of it, in order, from the beginning of the load.
    pub slices: Vec<Slice>,
}

/// Messages that take no longer suit the timeouts of a replicated log as they are by default.
const DELAY_USUAL: Duration = Duration::from_millis(10);

impl CapScenario {
    /// The timeouts of the two strong levels. A read at a member that does not lead may take twelve delays: its way to the
    /// leader, a round that is under way, one of its own, the way back, and all of that once more for the reads before
    /// it. So an election timeout is at least twenty delays, and a heartbeat five, which is longer than a round trip.
    pub fn timing(&self) -> Timing {
        let Timing { heartbeat, election } = Timing::default();
        let longer = |usual: Duration| {
            let nanos = usual.as_nanos().saturating_mul(self.delay.max(DELAY_USUAL).as_nanos());
            let nanos = u64::try_from(nanos / DELAY_USUAL.as_nanos()).unwrap_or(u64::MAX);
            Duration::from_nanos(nanos)
        };
        Timing { heartbeat: longer(heartbeat), election: longer(election) }
    }

    /// When the first session asks: by then there is a leader, where there is one.
    fn begin(&self) -> Duration {
        self.timing().election.saturating_mul(5) / 2
    }
}

/// The shortest slice of a film.
pub const SLICE_MIN: Duration = Duration::from_millis(10);

/// Measures one level.
pub fn cap(level: Level, what: &CapScenario) -> Cap {
    measure(level, what).0
}

/// Measures one level, and tells it also slice by slice. A slice is at least [`SLICE_MIN`] long.
pub fn cap_film(level: Level, what: &CapScenario, slice: Duration) -> CapFilm {
    let slice = slice.max(SLICE_MIN);
    let (cap, seen) = measure(level, what);
    let span = what.calm + what.partition;
    let mut slices = vec![Slice::default(); span.as_nanos().div_ceil(slice.as_nanos()) as usize];
    for one in seen {
        let at = one.at.saturating_sub(what.begin()).as_nanos() / slice.as_nanos();
        let Some(slice) = slices.get_mut(at as usize) else { continue };
        let side = if one.is_alone { &mut slice.alone } else { &mut slice.others };
        side.count(&one);
    }
    CapFilm {
        cap,
        split_ms: milliseconds(what.calm),
        end_ms: milliseconds(span),
        slice_ms: milliseconds(slice),
        slices,
    }
}

/// The sums, and every request of a session.
fn measure(level: Level, what: &CapScenario) -> (Cap, Vec<Seen>) {
    let split = what.begin() + what.calm;
    let end = split + what.partition;
    let scenario = Scenario {
        sessions: 2 * what.members,
        roams: false,
        give_up: Duration::from_secs(1),
        think: Duration::from_millis(40),
        begin: what.begin(),
        span: end,
        timing: what.timing(),
        latency: (what.delay, what.delay),
        sync: what.sync,
        ..Scenario::new(level, what.members, what.seed, Fault::None)
    };
    let (alone, at) = (NodeId(1), Time::ZERO + split);
    let plan = [(at, Alarm::Strike(Strike::Isolate(alone)))];
    let outcome = run_with(&scenario, &plan, false);
    let seen = seen(&outcome.history, scenario.give_up);
    let between = |from: Duration, to: Duration| seen.iter().filter(move |one| one.at >= from && one.at < to);
    let cap = Cap {
        level,
        // What is under way when the partition comes belongs to neither.
        calm: side(between(Duration::ZERO, split - scenario.give_up)),
        minority: side(between(split, end).filter(|one| one.is_alone)),
        majority: side(between(split, end).filter(|one| !one.is_alone)),
        convergence_ms: outcome.convergence.map(milliseconds),
        messages_per_request: outcome.messages as f64 / outcome.answered.max(1) as f64,
        violations: outcome.violations,
    };
    (cap, seen)
}

/// One request, as its session saw it.
struct Seen {
    /// When it was asked, since the world began.
    at: Duration,
    is_alone: bool,
    is_put: bool,
    /// How long it took, if it was answered.
    took: Option<Duration>,
    is_refused: bool,
    /// Of a read that gave a value which, before it was asked for, had been replaced: for how long it had been.
    behind: Option<Duration>,
}

impl Tally {
    fn count(&mut self, one: &Seen) {
        match one.is_put {
            true => {
                self.puts += 1;
                self.puts_refused += u64::from(one.is_refused);
            }
            false => {
                self.gets += 1;
                self.gets_refused += u64::from(one.is_refused);
                self.gets_stale += u64::from(one.behind.is_some());
            }
        }
        self.behind_ms = self.behind_ms.max(one.behind.map_or(0.0, milliseconds));
    }
}

/// Every request of a session, in the order in which they were asked.
fn seen(history: &History, give_up: Duration) -> Vec<Seen> {
    let replaced = Replaced::new(history);
    let is_asked = |operation: &&Operation| operation.client.starts_with('s');
    let one = |operation: &Operation| {
        let at = operation.invoked.time.unwrap_or_default();
        let returned = operation.returned.and_then(|moment| moment.time);
        let span = returned.map(|to| Duration::from_nanos(to.0 - at.0));
        let is_ok = matches!(operation.outcome, Outcome::Ok(_));
        Seen {
            at: Duration::from_nanos(at.0),
            is_alone: operation.node.as_deref() == Some("n1"),
            is_put: &*operation.call.op == "put",
            took: span.filter(|_| is_ok),
            is_refused: !is_ok || span.is_none_or(|span| span > give_up),
            behind: replaced.behind(operation),
        }
    };
    history.operations.iter().filter(is_asked).map(one).collect()
}

fn side<'a>(seen: impl Iterator<Item = &'a Seen>) -> Side {
    let seen: Vec<&Seen> = seen.collect();
    let spans = |is_put: bool| {
        let of_kind = seen.iter().filter(|one| one.is_put == is_put);
        let mut spans: Vec<f64> = of_kind.filter_map(|one| one.took).map(milliseconds).collect();
        spans.sort_by(f64::total_cmp);
        spans
    };
    let (puts, gets) = (spans(true), spans(false));
    Side {
        asked: seen.len() as u64,
        refused: seen.iter().filter(|one| one.is_refused).count() as u64,
        reads: gets.len() as u64,
        stale: seen.iter().filter(|one| one.behind.is_some()).count() as u64,
        put_ms_p50: percentile(&puts, 50),
        put_ms_p99: percentile(&puts, 99),
        get_ms_p50: percentile(&gets, 50),
        get_ms_p99: percentile(&gets, 99),
    }
}

/// The answered puts of each key, to tell which reads are of the past.
struct Replaced<'a>(BTreeMap<Option<&'a str>, Vec<&'a Operation>>);

impl<'a> Replaced<'a> {
    fn new(history: &'a History) -> Replaced<'a> {
        let mut puts: BTreeMap<Option<&str>, Vec<&Operation>> = BTreeMap::new();
        for put in &history.operations {
            if &*put.call.op == "put" && matches!(put.outcome, Outcome::Ok(_)) {
                puts.entry(put.call.key.as_deref()).or_default().push(put);
            }
        }
        Replaced(puts)
    }

    /// For how long the value that is read had been replaced when it was asked for; none if it had not been.
    fn behind(&self, read: &Operation) -> Option<Duration> {
        let (Outcome::Ok(reply), "get") = (&read.outcome, &*read.call.op) else { return None };
        let puts = self.0.get(&read.call.key.as_deref())?;
        let own = puts.iter().find(|put| put.call.value == reply.value);
        let known = match (own, reply.value.as_ref().is_none_or(serde_json::Value::is_null)) {
            (Some(put), _) => put.returned?.order,
            (None, true) => 0,
            // Its write was never answered: nothing can be said.
            (None, false) => return None,
        };
        let later = puts.iter().filter(|put| put.invoked.order > known);
        let before = later.filter_map(|put| put.returned).filter(|moment| moment.order < read.invoked.order);
        let first = before.filter_map(|moment| moment.time).min()?;
        Some(Duration::from_nanos(read.invoked.time?.0 - first.0))
    }
}

/// Of sorted values; 0 if there are none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

fn milliseconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1_000.0
}
