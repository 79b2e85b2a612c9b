//! What came of a run between banks.

use super::Scenario;
use std::fmt;
use synod_check::history::History;
use synod_check::judge::{Finding, Object, judge};
use synod_check::linearizable::Limits;

/// What the search for a witness order may spend on one history; and where there need not be any, so that only what
/// is found at once is told.
const CONFIGURATIONS_MAX: u64 = 300_000;
const CONFIGURATIONS_FEW: u64 = 5_000;

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was played.
    pub scenario: Scenario,
    /// Transfers that the client was told were done.
    pub committed: u64,
    /// Transfers that the client was told were not.
    pub aborted: u64,
    /// Transfers whose outcome the client was never told, or that nobody took.
    pub unknown: u64,
    /// Reads of all accounts that succeeded, and how many of them saw another sum than there was at first.
    pub reads: u64,
    /// As above.
    pub wrong_reads: u64,
    /// Messages sent, the replicated log's own included.
    pub messages: u64,
    /// The money in all accounts at the end, and what it was at first.
    pub money: (u64, u64),
    /// Times that a saga waited for a person.
    pub waits: u64,
    /// Promises that were broken, in the order in which they were.
    pub violations: Vec<String>,
    /// What had not ended long after the last fault.
    pub stalls: Vec<String>,
    /// What the clients saw.
    pub history: History,
    /// What the checker says of that: each model and its answer.
    pub verdicts: Vec<(String, String)>,
    /// What happened, a line each, if it was asked for.
    pub trace: String,
}

impl Outcome {
    /// Whether every promise was kept, and everything has ended.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.stalls.is_empty()
    }

    /// The first thing that is not as promised.
    pub fn first_failure(&self) -> Option<&str> {
        self.violations.first().or(self.stalls.first()).map(String::as_str)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { protocol, participants, fault, seed, .. } = self.scenario;
        writeln!(f, "{protocol} between {participants} banks, faults: {fault}, seed {seed}")?;
        writeln!(
            f,
            "  transfers  {} done, {} not done, {} unknown to their client",
            self.committed, self.aborted, self.unknown
        )?;
        writeln!(
            f,
            "  reads      {}, of which {} did not see all of the money",
            self.reads, self.wrong_reads
        )?;
        writeln!(f, "  money      {} of {}", self.money.0, self.money.1)?;
        if self.waits > 0 {
            writeln!(f, "  a person   was waited for {} times", self.waits)?;
        }
        writeln!(f, "  messages   {}", self.messages)?;
        for (model, answer) in &self.verdicts {
            writeln!(f, "  {model:<10} {answer}")?;
        }
        let broken = self.violations.iter().map(|what| ("BROKEN", what));
        let all: Vec<(&str, &String)> =
            broken.chain(self.stalls.iter().map(|what| ("STALLED", what))).collect();
        match all.as_slice() {
            [] => write!(f, "  verdict    every promise was kept"),
            [(word, first), rest @ ..] => {
                write!(f, "  verdict    {word}: {first}")?;
                rest.iter().take(4).try_for_each(|(word, what)| write!(f, "\n             {word}: {what}"))
            }
        }
    }
}

/// What the checker says of what clients of banks saw: each model and its answer.
/// `isolates`: whether reads of all accounts were promised to see one moment.
pub(super) fn verdicts(history: &History, isolates: bool) -> Vec<(String, String)> {
    let configurations_max = if isolates { CONFIGURATIONS_MAX } else { CONFIGURATIONS_FEW };
    let limits = Limits { configurations_max, threads_max: 1, ..Limits::default() };
    let judgement = judge(history, Some(Object::Bank), None, &limits, &mut || false);
    let verdict = |finding: &Finding| {
        let answer = match (finding.answer.is_yes(), finding.answer.is_no()) {
            (true, _) => "yes",
            (_, true) => "no",
            _ => "not found out within the budget",
        };
        (finding.model.name().to_owned(), answer.to_owned())
    };
    judgement.map(|judgement| judgement.findings.iter().map(verdict).collect()).unwrap_or_default()
}
