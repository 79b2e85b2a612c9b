//! Many seeds: run, counted, and the failures kept with what replays them.

use crate::event::NoTrace;
use crate::outcome::{Counts, Outcome, Violation};
use crate::swarm::{Swarm, swarm};
use crate::{UnknownProtocol, run_with};
use serde::Serialize;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use synod_protocols::log::ReplicatedLog;
use synod_protocols::with_replicated_log;

/// Failures that a report keeps at most; the rest are counted.
pub const FAILURES_MAX: usize = 100;

/// Which part of the seeds this machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1 to `count`.
    pub index: u64,
    /// How many parts there are.
    pub count: u64,
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// Reads `3/8`.
    fn from_str(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Shard { index, count }),
            _ => Err(format!(
                "found `{text}`, expected part and number of parts, from 1/1; for example: `3/8`"
            )),
        }
    }
}

/// A campaign: the swarm scripts of many seeds.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// What the scripts have in common.
    pub swarm: Swarm,
    /// Which seeds.
    pub seeds: Range<u64>,
    /// Which part of them.
    pub shard: Shard,
    /// How many threads run them, at least one.
    pub threads: usize,
    /// Whether to stop at the first failure.
    pub stop_at_first: bool,
}

impl Campaign {
    /// All these seeds on one thread, to the end.
    pub fn new(swarm: Swarm, seeds: Range<u64>) -> Campaign {
        Campaign { swarm, seeds, shard: Shard { index: 1, count: 1 }, threads: 1, stop_at_first: false }
    }

    /// The seeds of this shard: each count-th one.
    fn seeds(&self) -> impl Iterator<Item = u64> {
        let skip = usize::try_from(self.shard.index - 1).unwrap_or(usize::MAX);
        self.seeds.clone().skip(skip).step_by(usize::try_from(self.shard.count).unwrap_or(usize::MAX))
    }

    /// Runs the campaign. `watch` is told about it after every run, on the thread that ran it, and ends
    /// the campaign by returning `false`.
    ///
    /// # Errors
    /// [`UnknownProtocol`].
    pub fn run(&self, watch: &(dyn Fn(Progress) -> bool + Sync)) -> Result<CampaignReport, UnknownProtocol> {
        let name = self.swarm.protocol.as_str();
        with_replicated_log!(name, P => self.run_with::<P>(watch)).ok_or_else(|| UnknownProtocol(name.into()))
    }

    /// As [`Campaign::run`], on a protocol of the caller's choice.
    pub fn run_with<P: ReplicatedLog>(&self, watch: &(dyn Fn(Progress) -> bool + Sync)) -> CampaignReport {
        let total = self.seeds().count() as u64;
        let next = Mutex::new(self.seeds());
        let stop = AtomicBool::new(false);
        let failed = AtomicU64::new(0);
        let report = Mutex::new(CampaignReport::default());
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let Some(seed) = next.lock().expect("no thread panics holding it").next() else { return };
                let script = swarm(seed, &self.swarm);
                let outcome = run_with::<P>(&script, &mut NoTrace);
                let failures = if outcome.passed() { 0 } else { 1 };
                let failures = failed.fetch_add(failures, Ordering::Relaxed) + failures;
                let mut report = report.lock().expect("no thread panics holding it");
                report.add(&self.swarm, &outcome);
                let progress = Progress { done: report.runs, total, failures, steps: report.counts.steps };
                drop(report);
                if !watch(progress) || (self.stop_at_first && failures > 0) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.max(1) {
                scope.spawn(work);
            }
            work();
        });
        let mut report = report.into_inner().expect("no thread panicked");
        report.failures.sort_by_key(|failure| failure.seed);
        report
    }
}

/// How far a campaign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Runs done.
    pub done: u64,
    /// Runs in all.
    pub total: u64,
    /// Runs that broke a promise.
    pub failures: u64,
    /// Steps of the protocol in the runs done.
    pub steps: u64,
}

/// A run that broke a promise.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What was broken first.
    pub violation: Violation,
    /// What was run.
    pub script: String,
    /// The hash of the run.
    pub hash: String,
    /// The command that runs it again.
    pub replay: String,
}

impl Failure {
    /// The failure of a run of a swarm script, if it is one.
    pub fn of(swarm: &Swarm, outcome: &Outcome) -> Option<Failure> {
        if outcome.passed() {
            return None;
        }
        let contradiction = || Violation {
            t: outcome.script.until.0,
            promise: "linearizability",
            detail: outcome.verdict.detail.clone(),
        };
        Some(Failure {
            seed: outcome.script.seed,
            violation: outcome.verdict.violations.first().cloned().unwrap_or_else(contradiction),
            script: outcome.script.to_string(),
            hash: outcome.hash_text(),
            replay: replay_command(swarm, outcome.script.seed),
        })
    }
}

/// The command that runs the swarm script of a seed again.
pub fn replay_command(swarm: &Swarm, seed: u64) -> String {
    let Swarm { protocol, nodes, until, only } = swarm;
    let only = only.map_or(String::new(), |fault| format!("={fault}"));
    format!("synod sim --protocol {protocol} --nodes {nodes} --seed {seed} --swarm{only} --for {until}")
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Violation { t, promise, detail } = &self.violation;
        let at = crate::outcome::seconds(*t);
        write!(f, "seed {}: {promise} is broken at {at}: {detail}\n  to replay: {}", self.seed, self.replay)
    }
}

/// What came of a campaign.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CampaignReport {
    /// Runs done.
    pub runs: u64,
    /// Virtual time of all of them, in nanoseconds.
    pub virtual_nanos: u128,
    /// Everything that happened in them.
    pub counts: Counts,
    /// Histories whose judgement was not found within its budget.
    pub unknown: u64,
    /// Runs that broke a promise of safety.
    pub unsafe_runs: u64,
    /// Runs that kept those, but made no progress where it was promised.
    pub stalled_runs: u64,
    /// Runs that broke a promise, in order of their seeds; at most [`FAILURES_MAX`].
    pub failures: Vec<Failure>,
}

impl CampaignReport {
    fn add(&mut self, swarm: &Swarm, outcome: &Outcome) {
        self.runs += 1;
        self.virtual_nanos += u128::from(outcome.script.until.0);
        self.counts.add(&outcome.counts);
        self.unknown += u64::from(outcome.verdict.linearizable == crate::Linearizable::Unknown);
        self.unsafe_runs += u64::from(!outcome.verdict.safe);
        self.stalled_runs += u64::from(outcome.verdict.safe && !outcome.passed());
        if self.failures.len() < FAILURES_MAX {
            self.failures.extend(Failure::of(swarm, outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_divide_the_seeds() {
        let mut campaign = Campaign::new(Swarm::default(), 10..30);
        let mut all = Vec::new();
        for index in 1..=3 {
            campaign.shard = Shard { index, count: 3 };
            all.extend(campaign.seeds());
        }
        all.sort_unstable();
        assert_eq!(all, (10..30).collect::<Vec<_>>());
        assert_eq!("3/8".parse(), Ok(Shard { index: 3, count: 8 }));
        for text in ["0/8", "9/8", "1", "a/b", "1/0"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
