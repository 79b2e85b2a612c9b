//! The fault matrix: every protocol under every fault, a campaign in each cell.
//!
//! Within its budget a protocol must keep every promise. One fault past the budget it cannot, and
//! then the simulator must see that: a matrix whose last rows were all well would be blind.

use crate::UnknownProtocol;
use crate::campaign::{Campaign, CampaignReport, Failure};
use crate::swarm::{Expected, Fault, Swarm};
use crate::units::Span;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The protocols, a column each.
    pub protocols: Vec<String>,
    /// The faults, a row each.
    pub faults: Vec<Fault>,
    /// Members.
    pub nodes: u8,
    /// Seeds in a cell, from 0 on.
    pub seeds: u64,
    /// The length of each run.
    pub until: Span,
    /// Threads of a cell's campaign.
    pub threads: usize,
}

/// What came of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The protocol.
    pub protocol: String,
    /// The fault.
    #[serde(serialize_with = "as_text")]
    pub fault: Fault,
    /// Runs done.
    pub runs: u64,
    /// Runs that broke a promise of safety.
    pub unsafe_runs: u64,
    /// Runs without the progress that was promised.
    pub stalled_runs: u64,
    /// Whether the protocol offers what the runs are about: changes of members, or reads under a lease.
    pub served: bool,
    /// Faults that struck.
    pub faults: u64,
    /// Steps of the protocol.
    pub steps: u64,
    /// Time taken, in seconds.
    pub seconds: f64,
    /// Whether it is what must be.
    pub as_expected: bool,
    /// The first failure, if there is any.
    pub example: Option<Failure>,
}

fn as_text<S: Serializer>(fault: &Fault, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(fault.name())
}

impl Cell {
    fn new(protocol: &str, fault: Fault, report: CampaignReport, took: Duration) -> Cell {
        let CampaignReport { runs, counts, unsafe_runs, stalled_runs, .. } = report;
        let served = fault.was_served(&counts);
        Cell {
            protocol: protocol.to_owned(),
            fault,
            runs,
            unsafe_runs,
            stalled_runs,
            served,
            faults: counts.faults,
            steps: counts.steps,
            seconds: took.as_secs_f64(),
            as_expected: match fault.expected() {
                _ if !served => unsafe_runs == 0 && stalled_runs == 0,
                Expected::Kept => unsafe_runs == 0 && stalled_runs == 0,
                Expected::Stalled => unsafe_runs == 0 && stalled_runs > 0,
                Expected::Broken => unsafe_runs > 0,
            },
            example: report.failures.into_iter().next(),
        }
    }
}

/// What it says in the table.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { runs, unsafe_runs, stalled_runs, .. } = self;
        let text = match (unsafe_runs, stalled_runs) {
            (0, 0) if !self.served => "not served".to_owned(),
            (0, 0) => "kept".to_owned(),
            (0, stalled) => format!("safe, {stalled} of {runs} stall"),
            (broken, _) => format!("{broken} of {runs} broken"),
        };
        f.pad(&if self.as_expected { text } else { format!("{text} (!)") })
    }
}

impl Matrix {
    /// Runs all cells. `watch` is told of the runs done and of all there are after each run, and ends
    /// it all by returning `false`.
    ///
    /// # Errors
    /// [`UnknownProtocol`].
    pub fn run(&self, watch: &(dyn Fn(u64, u64) -> bool + Sync)) -> Result<Vec<Cell>, UnknownProtocol> {
        let total = self.seeds * (self.protocols.len() * self.faults.len()) as u64;
        let mut cells = Vec::new();
        let mut done = 0;
        for fault in &self.faults {
            for protocol in &self.protocols {
                let swarm = Swarm {
                    protocol: protocol.clone(),
                    nodes: self.nodes,
                    until: self.until,
                    only: Some(*fault),
                };
                let campaign = Campaign { threads: self.threads, ..Campaign::new(swarm, 0..self.seeds) };
                let began = Instant::now();
                let report = campaign.run(&|progress| watch(done + progress.done, total))?;
                if report.runs < self.seeds {
                    return Ok(cells);
                }
                done += report.runs;
                cells.push(Cell::new(protocol, *fault, report, began.elapsed()));
            }
        }
        Ok(cells)
    }

    /// The cells as a table in Markdown.
    pub fn markdown(&self, cells: &[Cell]) -> String {
        let mut out = format!("| fault | {} |\n|---", self.protocols.join(" | "));
        out += &"|---".repeat(self.protocols.len());
        out += "|\n";
        for fault in &self.faults {
            let row: Vec<String> = cells
                .iter()
                .filter(|cell| cell.fault == *fault)
                .map(|cell| format!("{cell}; {} faults, {:.1} s", cell.faults, cell.seconds))
                .collect();
            out += &format!("| {fault} | {} |\n", row.join(" | "));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_sees_what_is_beyond_the_budget() {
        let matrix = Matrix {
            protocols: vec!["raft".into()],
            faults: vec![Fault::CrashLeader, Fault::MajorityDown, Fault::MajorityLies],
            nodes: 3,
            seeds: 12,
            until: Span::secs(4),
            threads: 1,
        };
        let cells = matrix.run(&|_, _| true).expect("the protocol is known");
        assert!(cells.iter().all(|cell| cell.as_expected), "{}", matrix.markdown(&cells));
        assert!(cells[1].stalled_runs > 0 && cells[2].unsafe_runs > 0, "{}", matrix.markdown(&cells));
    }
}
