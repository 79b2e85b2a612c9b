//! Every level under every fault: a campaign in each cell.

use super::fault::Fault;
use super::{Level, Scenario, run};
use crate::small::each_seed;
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use synod_protocols::weak::Kind;

/// What to run.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The levels, a column each.
    pub levels: Vec<Level>,
    /// The faults, a row each.
    pub faults: Vec<Fault>,
    /// Seeds in a cell, from 0 on; a seed is played as [`Matrix::scenario`] says.
    pub seeds: u64,
    /// Threads.
    pub threads: usize,
}

/// What came of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The level's name.
    pub level: String,
    /// The fault's.
    pub fault: String,
    /// Runs done; 0 where there is no such fault at this level.
    pub runs: u64,
    /// How often something went wrong: blows on machines, links, clocks and disks, and messages that were harmed.
    pub faults: u64,
    /// Requests that were answered, in all runs.
    pub answered: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those of which their session never heard again.
    pub unanswered: u64,
    /// Runs that broke a promise: members that did not come to show the same, or a history that is not of the level.
    pub broken: u64,
    /// How long after the last fault all members showed the same, in milliseconds: the median run, and the longest.
    pub same_ms_p50: u64,
    /// As above.
    pub same_ms_max: u64,
    /// Whether it is what must be: nothing broken, or under what nobody can bear something.
    pub as_expected: bool,
    /// The first seed that broke, and how.
    pub example: Option<(u64, String)>,
}

/// What a cell keeps of a run.
struct Run {
    faults: u64,
    requests: [u64; 3],
    same_ms: Option<u64>,
    violation: Option<String>,
}

impl Matrix {
    /// What a cell plays for a seed: among two, three or four members, or at the strong levels three or five; and at the
    /// weaker levels with another kind of objects for each of four seeds.
    pub fn scenario(level: Level, fault: Fault, seed: u64) -> Scenario {
        let (members, kind) = match level.is_strong() {
            true => (3 + 2 * (seed % 2), Kind::Register),
            false => (2 + seed % 3, Kind::ALL[(seed % Kind::ALL.len() as u64) as usize]),
        };
        Scenario { kind, ..Scenario::new(level, members, seed, fault) }
    }

    /// Runs all cells, row by row. `watch` is told of the runs done and of all there are.
    pub fn run(&self, watch: &(dyn Fn(u64, u64) + Sync)) -> Vec<Cell> {
        let done = AtomicU64::new(0);
        let total = self.seeds * (self.levels.len() * self.faults.len()) as u64;
        let watch = &|runs| watch(done.fetch_add(runs, Ordering::Relaxed) + runs, total);
        let pairs = self.faults.iter().flat_map(|fault| self.levels.iter().map(|level| (*level, *fault)));
        pairs.map(|(level, fault)| self.cell(level, fault, watch)).collect()
    }

    fn cell(&self, level: Level, fault: Fault, watch: &(dyn Fn(u64) + Sync)) -> Cell {
        let is_there = fault.strikes(level, Matrix::scenario(level, fault, 0).members);
        let runs = match is_there {
            true => each_seed(self.seeds, self.threads, |seed| {
                let outcome = run(&Matrix::scenario(level, fault, seed));
                watch(1);
                Run {
                    faults: outcome.faults,
                    requests: [outcome.answered, outcome.refused, outcome.unanswered],
                    same_ms: outcome.convergence.map(|span| span.as_millis() as u64),
                    violation: outcome.violations.into_iter().next(),
                }
            }),
            false => {
                watch(self.seeds);
                Vec::new()
            }
        };
        let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum();
        let mut spans: Vec<u64> = runs.iter().filter_map(|run| run.same_ms).collect();
        spans.sort_unstable();
        Cell {
            level: level.to_string(),
            fault: fault.to_string(),
            runs: runs.len() as u64,
            faults: sum(|run| run.faults),
            answered: sum(|run| run.requests[0]),
            refused: sum(|run| run.requests[1]),
            unanswered: sum(|run| run.requests[2]),
            broken: sum(|run| run.violation.is_some().into()),
            same_ms_p50: spans.get(spans.len() / 2).copied().unwrap_or_default(),
            same_ms_max: spans.last().copied().unwrap_or_default(),
            as_expected: !is_there || fault.is_borne() != runs.iter().any(|run| run.violation.is_some()),
            example: (0..).zip(&runs).find_map(|(seed, run)| Some((seed, run.violation.clone()?))),
        }
    }

    /// The cells as a table in Markdown.
    pub fn markdown(&self, cells: &[Cell]) -> String {
        let names: Vec<String> = self.levels.iter().map(Level::to_string).collect();
        let mut out = format!("| fault | {} |\n|---{}|\n", names.join(" | "), "|---".repeat(names.len()));
        for (fault, row) in self.faults.iter().zip(cells.chunks(names.len().max(1))) {
            let row: Vec<String> = row.iter().map(Cell::to_string).collect();
            out += &format!("| {fault} | {} |\n", row.join(" | "));
        }
        out
    }
}

/// What it says in the table: the verdict, what went wrong, the share of requests that were not answered, and the longest
/// time until all showed the same.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { runs, broken, faults, answered, refused, unanswered, same_ms_max, .. } = self;
        let asked = answered + refused + unanswered;
        let share = 100.0 * (refused + unanswered) as f64 / asked.max(1) as f64;
        let verdict = if *broken == 0 { "kept".to_owned() } else { format!("{broken} of {runs} broken") };
        let verdict = if self.as_expected { verdict } else { verdict + " (!)" };
        f.pad(&match runs {
            0 => "none".to_owned(),
            _ => format!("{verdict}; {faults}; {share:.1} %; {same_ms_max} ms"),
        })
    }
}
