//! Every way to commit under every fault: a campaign in each cell.

use super::{Expected, Fault, Log, Protocol, Scenario, run};
use crate::small::each_seed;
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to run.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The protocols, a column each.
    pub protocols: Vec<Protocol>,
    /// The faults, a row each.
    pub faults: Vec<Fault>,
    /// What a replicated coordinator runs on.
    pub log: Log,
    /// Seeds in a cell, from 0 on; a seed is played between two, three or four banks.
    pub seeds: u64,
    /// Threads.
    pub threads: usize,
}

/// What came of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The protocol's name.
    pub protocol: String,
    /// The fault's.
    pub fault: String,
    /// Runs done.
    pub runs: u64,
    /// Runs that left something half done, or showed it to a committed read.
    pub broken: u64,
    /// Runs that had not ended long after the last fault, though they should have.
    pub stalled: u64,
    /// Transfers that were done, in all runs.
    pub transfers: u64,
    /// Times that sagas waited for a person.
    pub waits: u64,
    /// Whether it is what must be.
    pub as_expected: bool,
    /// The first seed that broke or stalled, and how.
    pub example: Option<(u64, String)>,
}

impl Matrix {
    /// Runs all cells, row by row. `watch` is told of the runs done and of all there are.
    pub fn run(&self, watch: &(dyn Fn(u64, u64) + Sync)) -> Vec<Cell> {
        let done = AtomicU64::new(0);
        let total = self.seeds * (self.protocols.len() * self.faults.len()) as u64;
        let cells = self.faults.iter().flat_map(|fault| self.protocols.iter().map(|p| (*p, *fault)));
        let watch = &|| watch(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        cells.map(|(protocol, fault)| self.cell(protocol, fault, watch)).collect()
    }

    fn cell(&self, protocol: Protocol, fault: Fault, watch: &(dyn Fn() + Sync)) -> Cell {
        let mut cell = Cell {
            protocol: protocol.to_string(),
            fault: fault.to_string(),
            runs: self.seeds,
            broken: 0,
            stalled: 0,
            transfers: 0,
            waits: 0,
            as_expected: true,
            example: None,
        };
        let played = each_seed(self.seeds, self.threads, |seed| {
            let outcome = run(&scenario(protocol, fault, self.log, seed), false);
            watch();
            let failure = outcome.first_failure().map(|why| (seed, why.to_owned()));
            let (is_broken, is_stalled) = (!outcome.violations.is_empty(), !outcome.stalls.is_empty());
            (is_broken, is_stalled, outcome.committed, outcome.waits, failure)
        });
        for (is_broken, is_stalled, committed, waits, failure) in played {
            cell.broken += u64::from(is_broken);
            cell.stalled += u64::from(is_stalled);
            cell.transfers += committed;
            cell.waits += waits;
            cell.example = cell.example.or(failure);
        }
        cell.as_expected = match fault.expected(protocol) {
            // Where a machine abstains an end is owed only of what can be helped, and then it counts as stalled, too.
            Expected::Kept | Expected::Safe => cell.broken == 0 && cell.stalled == 0,
            Expected::Nothing => true,
            Expected::Broken => cell.broken > 0,
        };
        cell
    }

    /// The cells as a table in Markdown.
    pub fn markdown(&self, cells: &[Cell]) -> String {
        let names: Vec<String> = self.protocols.iter().map(Protocol::to_string).collect();
        let mut out = format!("| fault | {} |\n|---{}|\n", names.join(" | "), "|---".repeat(names.len()));
        for (fault, row) in self.faults.iter().zip(cells.chunks(names.len())) {
            let row: Vec<String> = row.iter().map(Cell::to_string).collect();
            out += &format!("| {fault} | {} |\n", row.join(" | "));
        }
        out
    }
}

/// What a cell plays for a seed.
fn scenario(protocol: Protocol, fault: Fault, log: Log, seed: u64) -> Scenario {
    Scenario { fault, log, ..Scenario::new(protocol, banks(seed), seed) }
}

/// Between how many banks a cell plays a seed.
pub fn banks(seed: u64) -> u64 {
    2 + seed % 3
}

/// What it says in the table.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { runs, broken, stalled, .. } = self;
        let text = match (broken, stalled) {
            (0, 0) if self.fault == Fault::Rot.name() => "safe".to_owned(),
            (0, 0) => "kept".to_owned(),
            (0, stalled) => format!("{stalled} of {runs} stall"),
            (broken, _) => format!("{broken} of {runs} broken"),
        };
        f.pad(&if self.as_expected { text } else { format!("{text} (!)") })
    }
}
