//! Histories that have a level and not the next stronger one: found among runs, and made small.

use super::{Fault, Level, Scenario, run};
use std::ops::Range;
use std::time::Duration;
use synod_check::history::{History, Outcome};
use synod_check::judge::{Consistency, Object, judge};
use synod_check::linearizable::Limits;

/// A history between two levels.
#[derive(Clone, Debug)]
pub struct Separation {
    /// What it has.
    pub level: Level,
    /// What it has not.
    pub stronger: Level,
    /// The seed of the run in which it was found, and how many were tried.
    pub seed: u64,
    /// As above.
    pub tried: u64,
    /// Operations of that run.
    pub operations: usize,
    /// What is left of it.
    pub history: History,
}

/// The model that stands for a level between two.
pub fn judged(level: Level) -> Consistency {
    match level {
        Level::Linearizable => Consistency::Linearizable,
        Level::Sequential => Consistency::Sequential,
        Level::Causal => Consistency::CausalConvergence,
        Level::Eventual => Consistency::Eventual,
    }
}

/// Looks in runs of `level`, without any fault, for a history that is not of the next stronger level, and leaves
/// out operations as long as that stays so. None for the strongest level, and if these seeds have none.
pub fn separate(level: Level, seeds: Range<u64>) -> Option<Separation> {
    let place = Level::ALL.iter().position(|other| *other == level)?;
    let stronger = *Level::ALL.get(place.checked_sub(1)?)?;
    for (tried, seed) in (1..).zip(seeds) {
        let scenario = Scenario {
            span: Duration::from_millis(1_100),
            keys: 2,
            think: Duration::from_millis(40),
            ..Scenario::new(level, 3, seed, Fault::None)
        };
        let history = run(&scenario).history;
        if lies_between(&history, level, stronger) {
            let operations = history.operations.len();
            let history = smaller(history, level, stronger);
            return Some(Separation { level, stronger, seed, tried, operations, history });
        }
    }
    None
}

/// Leaves out one operation after the other, until none can be missed.
fn smaller(mut history: History, level: Level, stronger: Level) -> History {
    history.notes.clear();
    history.operations.retain(|operation| !matches!(operation.outcome, Outcome::Fail { .. }));
    loop {
        let before = history.operations.len();
        for place in (0..before).rev() {
            let mut candidate = history.clone();
            candidate.operations.remove(place);
            if lies_between(&candidate, level, stronger) {
                history = candidate;
            }
        }
        if history.operations.len() == before {
            return history;
        }
    }
}

fn lies_between(history: &History, level: Level, stronger: Level) -> bool {
    let is = |model: Level| {
        let limits = Limits { configurations_max: 200_000, threads_max: 1, ..Limits::default() };
        let judgement = judge(history, Some(Object::Kv), Some(judged(model)), &limits, &mut || false);
        judgement
            .ok()
            .and_then(|judgement| judgement.findings.into_iter().next().map(|finding| finding.answer))
    };
    is(stronger).is_some_and(|answer| answer.is_no()) && is(level).is_some_and(|answer| answer.is_yes())
}
