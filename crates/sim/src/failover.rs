//! How long a cluster is without a leader when it loses the one that it has: a distribution over many seeds.
//!
//! Each seed has its own delays, and the loss strikes at its own moment between two heartbeats. What is measured ends
//! when the next leader is in office under its protocol's own rules, and each run must go on to write after that.

use crate::dice::{Place, dice};
use crate::outcome::Outcome;
use crate::script::{Action, Mix, Progress, Script, Target, Timed, Workload};
use crate::units::Span;
use crate::{NoTrace, UnknownProtocol, run};
use serde::{Serialize, Serializer};
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;

/// How the leader is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its process dies: its machine breaks the connections, which is news to the others.
    Crash,
    /// It hangs: connections stay, and only silence tells.
    Hang,
}

impl Loss {
    /// Both.
    pub const ALL: [Loss; 2] = [Loss::Crash, Loss::Hang];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Loss::Crash => "crash",
            Loss::Hang => "hang",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// When the leader is lost at the earliest: everybody has settled by then.
const SETTLED: Span = Span::secs(2);
/// Election timeouts within which the next one must lead and write, and for which the run goes on.
const PROGRESS_ELECTIONS: u32 = 10;
const RUN_ELECTIONS: u64 = 12;

/// The run of one seed: two clients at work, default delays and timers, and a leader that is lost.
pub fn script(protocol: &str, nodes: u8, loss: Loss, seed: u64) -> Script {
    let quiet = Script { protocol: protocol.into(), nodes, seed, ..Script::default() };
    let mut rng = dice(seed, Place::Swarm, 0, 0, 1);
    let at = Span(SETTLED.0 + rng.below(quiet.election.0));
    let action = match loss {
        Loss::Crash => Action::Crash(Target::Leader),
        Loss::Hang => Action::Pause(Target::Leader),
    };
    Script {
        until: Span(at.0 + RUN_ELECTIONS * quiet.election.0),
        clients: Some(Workload { clients: 2, every: Span::millis(50), keys: 8, mix: Mix::default() }),
        progress: Some(Progress { elections: PROGRESS_ELECTIONS }),
        actions: vec![Timed { at, action }],
        ..quiet
    }
}

/// How long it took in the runs of many seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failovers {
    /// From the loss until the next leader, in nanoseconds of virtual time, with its seed; ascending.
    pub times: Vec<(u64, u64)>,
    /// Seeds whose run broke a promise, or never had another leader.
    pub failed: Vec<u64>,
}

impl Failovers {
    /// The shortest time in nanoseconds that so many of a hundred do not exceed: 0 is the least, 100 the most.
    ///
    /// None if nothing was measured.
    pub fn percentile(&self, percent: usize) -> Option<u64> {
        let at = (self.times.len() * percent).div_ceil(100).max(1) - 1;
        self.times.get(at.min(self.times.len().saturating_sub(1))).map(|(took, _)| *took)
    }
}

/// Runs all seeds on so many threads. `watch` is told after each run, on the thread that ran it.
///
/// # Errors
/// [`UnknownProtocol`].
pub fn failovers(
    protocol: &str,
    nodes: u8,
    loss: Loss,
    seeds: Range<u64>,
    threads: usize,
    watch: &(dyn Fn() + Sync),
) -> Result<Failovers, UnknownProtocol> {
    let next = Mutex::new(seeds);
    let found = Mutex::new(Failovers::default());
    let work = || {
        loop {
            let Some(seed) = next.lock().expect("no thread panics holding it").next() else { return Ok(()) };
            let outcome = run(&script(protocol, nodes, loss, seed), &mut NoTrace)?;
            let mut found = found.lock().expect("no thread panics holding it");
            match without_leader(&outcome).filter(|_| outcome.passed()) {
                Some(took) => found.times.push((took, seed)),
                None => found.failed.push(seed),
            }
            drop(found);
            watch();
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().map(|thread| thread.join().expect("a run does not panic")).fold(own, Result::and)
    })?;
    let mut found = found.into_inner().expect("no thread panicked");
    found.times.sort_unstable();
    found.failed.sort_unstable();
    Ok(found)
}

/// From the loss of the leader to the next.
fn without_leader(outcome: &Outcome) -> Option<u64> {
    let lost = outcome.script.actions.first()?.at.0;
    let next = outcome.marks.iter().find(|mark| mark.kind == "leader" && mark.t >= lost)?;
    Some(next.t - lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let of = |count: u64| Failovers { times: (1..=count).map(|i| (i * 10, i)).collect(), failed: vec![] };
        let five = |found: &Failovers| [0, 50, 90, 99, 100].map(|percent| found.percentile(percent));
        assert_eq!(five(&of(0)), [None; 5]);
        assert_eq!(five(&of(1)), [Some(10); 5]);
        assert_eq!(five(&of(200)), [10, 1000, 1800, 1980, 2000].map(Some));
    }
}
