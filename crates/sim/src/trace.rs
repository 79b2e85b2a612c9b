//! A trace in memory: every event of a run as a line of JSON. `synod-lab` cuts it into windows.

use crate::event::{Event, Sink};
use crate::outcome::Outcome;
use crate::script::Member;
use serde::Serialize;
use serde_json::{Value, json};

/// Events that a trace keeps at most; what comes after is counted and left out.
pub const TRACE_EVENTS_MAX: usize = 2_000_000;
/// Bytes of events that a trace keeps at most.
pub const TRACE_BYTES_MAX: usize = 1 << 30;
/// The version of the trace format.
pub const TRACE_VERSION: u32 = 1;

/// All events of a run, each as a line of JSON.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    text: String,
    len: usize,
    left_out: u64,
}

/// One line of a trace.
#[derive(Serialize)]
struct Line<'a> {
    i: usize,
    t: u64,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// Writes into a string.
struct Text<'a>(&'a mut String);

impl std::io::Write for Text<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.push_str(std::str::from_utf8(bytes).map_err(std::io::Error::other)?);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for Trace {
    fn wants_events(&self) -> bool {
        true
    }

    fn event(&mut self, t: u64, event: &Event<'_>) {
        if self.len >= TRACE_EVENTS_MAX || self.text.len() >= TRACE_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        let line = Line { i: self.len, t, event };
        serde_json::to_writer(Text(&mut self.text), &line)
            .expect("events have string keys and the text is in memory");
        self.text.push('\n');
        self.len += 1;
    }
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Events left out because of [`TRACE_EVENTS_MAX`] or [`TRACE_BYTES_MAX`].
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// All events, one JSON object a line.
    pub fn lines(&self) -> &str {
        &self.text
    }

    /// The header of the trace, as JSON.
    pub fn header(&self, outcome: &Outcome) -> Value {
        let script = &outcome.script;
        json!({
            "synod-trace": TRACE_VERSION,
            "protocol": script.protocol,
            "nodes": script.members().collect::<Vec<Member>>(),
            "clients": outcome.clients,
            "seed": script.seed,
            "until": script.until.0,
            "election": script.election.0,
            "heartbeat": script.heartbeat.0,
            "events": self.len(),
            "leftOut": self.left_out,
            "hash": outcome.hash_text(),
            "script": script.to_string(),
            "marks": outcome.marks,
            "verdict": outcome.verdict,
            "counts": outcome.counts,
        })
    }
}
