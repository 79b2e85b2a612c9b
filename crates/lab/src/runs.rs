//! Runs of the simulator, kept for as long as the page is likely to ask for them.

use crate::lessons;
use crate::trace::Trace;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use synod_sim::{Script, Span};
use tokio::sync::Semaphore;

/// Runs that are kept.
pub const CACHE_RUNS_MAX: usize = 32;

/// Bytes of events that are kept over all runs; the newest run stays even if it alone has more.
pub const CACHE_BYTES_MAX: usize = 256 << 20;

/// Simulations that run at the same time; more wait for their turn.
pub const RUNS_AT_ONCE_MAX: usize = 2;

/// Virtual time that a run on the page may take: its trace is held in memory as a whole.
pub const RUN_TIME_MAX: Span = Span::secs(600);

/// A script that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScriptError {
    /// What is wrong and how to mend it.
    pub error: String,
    /// The line that it is about, counted from 1; 0 when it is about the script as a whole.
    pub line: usize,
}

/// The cache of runs, least recently used first.
pub(crate) struct Runs {
    kept: Mutex<VecDeque<(String, Arc<Trace>)>>,
    turns: Semaphore,
}

impl Runs {
    pub(crate) fn new() -> Runs {
        Runs { kept: Mutex::default(), turns: Semaphore::new(RUNS_AT_ONCE_MAX) }
    }

    /// The run of this script, from the cache or by running it now.
    pub(crate) async fn run(&self, script: String) -> Result<Arc<Trace>, ScriptError> {
        let whole = |error: String| ScriptError { error, line: 0 };
        // Held over the look into the cache, so that the same script asked for twice runs once
        // in most cases; at worst it runs twice, to the same result.
        let _turn = self.turns.acquire().await.map_err(|error| whole(error.to_string()))?;
        if let Some(trace) = self.find(|kept, _| kept == script) {
            return Ok(trace);
        }
        let text = script.clone();
        let trace = tokio::task::spawn_blocking(move || simulate(&text))
            .await
            .map_err(|error| whole(format!("the simulation did not finish: {error}")))??;
        let trace = Arc::new(trace);
        self.keep(script, Arc::clone(&trace));
        Ok(trace)
    }

    /// The run with this hash, if it is still kept.
    pub(crate) fn by_hash(&self, hash: &str) -> Option<Arc<Trace>> {
        self.find(|_, trace| trace.hash() == hash)
    }

    fn find(&self, wanted: impl Fn(&str, &Trace) -> bool) -> Option<Arc<Trace>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(script, trace)| wanted(script, trace))?;
        let run = kept.remove(place)?;
        let trace = Arc::clone(&run.1);
        kept.push_back(run);
        Some(trace)
    }

    fn keep(&self, script: String, trace: Arc<Trace>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| *other != script);
        kept.push_back((script, trace));
        let mut bytes: usize = kept.iter().map(|(_, trace)| trace.bytes()).sum();
        while kept.len() > 1 && (kept.len() > CACHE_RUNS_MAX || bytes > CACHE_BYTES_MAX) {
            let Some((_, oldest)) = kept.pop_front() else { break };
            bytes -= oldest.bytes();
        }
    }
}

/// Runs a script in the simulator, on the protocol or the lesson ([`LESSONS`](crate::LESSONS)) that it names.
///
/// # Errors
/// [`ScriptError`] for a script that does not parse, runs for longer than [`RUN_TIME_MAX`], or names
/// a protocol that there is not.
pub fn simulate(text: &str) -> Result<Trace, ScriptError> {
    let script: Script = text
        .parse()
        .map_err(|error: synod_sim::ScriptError| ScriptError { error: error.problem, line: error.line })?;
    if script.until > RUN_TIME_MAX {
        let error = format!(
            "the page shows runs of up to {RUN_TIME_MAX}, and this one takes {}: `synod sim` runs longer ones",
            script.until
        );
        return Err(ScriptError { error, line: line_of(text, "for") });
    }
    let mut events = synod_sim::Trace::new();
    let outcome = lessons::run(&script, &mut events)
        .map_err(|error| ScriptError { error: error.to_string(), line: line_of(text, "protocol") })?;
    let lines = events.lines().lines().map(Box::from);
    let trace = Trace::new(events.header(&outcome), lines)
        .map_err(|error| ScriptError { error: error.to_string(), line: 0 })?;
    Ok(trace.with_history(outcome.history))
}

/// The line that starts with this word, counted from 1; 0 if there is none.
fn line_of(text: &str, word: &str) -> usize {
    text.lines().position(|line| line.split_whitespace().next() == Some(word)).map_or(0, |place| place + 1)
}
