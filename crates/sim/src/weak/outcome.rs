//! What came of a run of a level.

use super::Scenario;
use super::note::Story;
use std::fmt;
use std::time::Duration;
use synod_check::history::History;
use synod_check::judge::{Consistency, Object, judge};
use synod_check::linearizable::Limits;

/// What the search for a witness order may spend on one history.
const CONFIGURATIONS_MAX: u64 = 300_000;

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was played.
    pub scenario: Scenario,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests of which the session never heard again.
    pub unanswered: u64,
    /// Messages sent.
    pub messages: u64,
    /// How often something went wrong: blows on machines, links, clocks and disks, and messages that were harmed.
    pub faults: u64,
    /// How long after the last fault the members showed the same; none if never.
    pub convergence: Option<Duration>,
    /// Promises that were broken.
    pub violations: Vec<String>,
    /// What the sessions saw.
    pub history: History,
    /// What happened, if it was asked for.
    pub story: Story,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { level, kind, members, seed, fault, .. } = self.scenario;
        writeln!(f, "{level}, {kind}, {members} members, faults: {fault}, seed {seed}")?;
        let (answered, refused, unanswered) = (self.answered, self.refused, self.unanswered);
        writeln!(f, "  requests   {answered} answered, {refused} refused, {unanswered} not answered")?;
        writeln!(f, "  messages   {}; things that went wrong: {}", self.messages, self.faults)?;
        match self.convergence {
            Some(span) => writeln!(f, "  the same   {} ms after the last fault", span.as_millis())?,
            None => writeln!(f, "  the same   never")?,
        }
        match self.violations.as_slice() {
            [] => write!(f, "  verdict    every promise was kept"),
            [first, rest @ ..] => {
                write!(f, "  verdict    BROKEN: {first}")?;
                rest.iter().take(4).try_for_each(|violation| write!(f, "\n             {violation}"))
            }
        }
    }
}

/// Why a history of registers does not satisfy a model; none if it does, or the budget was spent.
pub(super) fn broken(history: &History, model: Consistency) -> Option<String> {
    let limits = Limits { configurations_max: CONFIGURATIONS_MAX, threads_max: 1, ..Limits::default() };
    let judgement = judge(history, Some(Object::Kv), Some(model), &limits, &mut || false);
    let finding = judgement.ok()?.findings.into_iter().next()?;
    finding.answer.is_no().then_some(finding.explanation)
}
