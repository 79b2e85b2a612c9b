//! A trace that the page can ask for in windows.
//!
//! A window starts with a keyframe: every node's state, the messages in flight, the cut links and
//! the open client operations at that moment. The page can therefore draw any moment of a long run
//! without reading what came before it. Keyframes are not stored: a checkpoint every
//! [`CHECKPOINT_EVERY`] events, of positions only, makes one cheap to compute.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::BufRead;
use synod_check::history::History;

/// Events between two checkpoints.
const CHECKPOINT_EVERY: usize = 512;

/// Events that one window carries at most; the page asks for the rest in the next one.
pub const WINDOW_EVENTS_MAX: usize = 20_000;

/// Bytes that a trace read from a file may hold.
pub const TRACE_BYTES_MAX: usize = 1 << 30;

/// The version of the trace format that this server understands.
pub const TRACE_VERSION: u64 = 1;

/// Why a trace could not be taken.
#[derive(Debug)]
pub enum TraceError {
    /// The file could not be read.
    Io(std::io::Error),
    /// The file does not start with a trace header.
    NotATrace(String),
    /// The header names a version that this program does not know.
    Version(u64),
    /// An event does not have the form that the format prescribes.
    Event {
        /// Its line in the file, or its number in the trace plus 2.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// More than [`TRACE_BYTES_MAX`] bytes.
    TooLarge,
}

impl std::fmt::Display for TraceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TraceError::Io(error) => write!(f, "the trace cannot be read: {error}"),
            TraceError::NotATrace(why) => write!(
                f,
                "this is not a trace: {why}; its first line must be a JSON object with \"synod-trace\""
            ),
            TraceError::Version(version) => write!(
                f,
                "the trace has format version {version}, this program reads {TRACE_VERSION}: open it with the release that wrote it"
            ),
            TraceError::Event { line, why } => write!(
                f,
                "line {line} of the trace is not an event ({why}): the file is damaged or was cut off"
            ),
            TraceError::TooLarge => {
                write!(f, "the trace is larger than {TRACE_BYTES_MAX} bytes: record a shorter run")
            }
        }
    }
}

impl std::error::Error for TraceError {}

/// The members of an event that keyframes depend on.
#[derive(Deserialize)]
struct Facts {
    t: u64,
    k: String,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    m: Option<u64>,
    #[serde(default)]
    c: Option<String>,
    #[serde(default)]
    o: Option<u64>,
    #[serde(default)]
    phase: Option<String>,
    #[serde(default)]
    lost: Option<String>,
    #[serde(default)]
    cuts: Option<Vec<(String, String)>>,
}

/// What holds at a moment, as positions of the events that say it.
#[derive(Clone, Default)]
struct Moment {
    states: BTreeMap<String, usize>,
    flying: BTreeMap<u64, usize>,
    operations: BTreeMap<(String, u64), usize>,
    cuts: BTreeSet<(String, String)>,
}

impl Moment {
    fn advance(&mut self, position: usize, facts: &Facts) {
        match (facts.k.as_str(), facts.m) {
            // What is lost as it is sent never flies.
            ("send", Some(message)) if facts.lost.is_none() => {
                self.flying.insert(message, position);
            }
            ("recv" | "drop", Some(message)) => {
                self.flying.remove(&message);
            }
            ("state", _) => {
                if let Some(node) = &facts.n {
                    self.states.insert(node.clone(), position);
                }
            }
            ("op", _) => self.advance_operation(position, facts),
            ("fault", _) => {
                if let Some(cuts) = &facts.cuts {
                    self.cuts = cuts.iter().cloned().collect();
                }
            }
            _ => {}
        }
    }

    fn advance_operation(&mut self, position: usize, facts: &Facts) {
        let (Some(client), Some(operation)) = (&facts.c, facts.o) else { return };
        let key = (client.clone(), operation);
        match facts.phase.as_deref() {
            Some("invoke") => {
                self.operations.insert(key, position);
            }
            // An unknown outcome leaves the operation open: it may still take effect.
            Some("unknown") => {}
            _ => {
                self.operations.remove(&key);
            }
        }
    }
}

/// One run, ready to be asked for in windows.
pub struct Trace {
    header: Value,
    hash: String,
    until: u64,
    times: Vec<u64>,
    events: Vec<Box<str>>,
    checkpoints: Vec<Moment>,
    bytes: usize,
    history: Option<History>,
}

impl Trace {
    /// Takes a header and its events, each a JSON object, in order of time.
    ///
    /// # Errors
    /// [`TraceError`] when the header or an event does not have the form of the trace format.
    pub fn new(header: Value, events: impl IntoIterator<Item = Box<str>>) -> Result<Trace, TraceError> {
        Trace::collect(header, events.into_iter().map(Ok))
    }

    /// Reads a trace file: the header on the first line, then one event a line.
    ///
    /// # Errors
    /// [`TraceError`] when the file cannot be read or is not a trace.
    pub fn read(input: impl BufRead) -> Result<Trace, TraceError> {
        let mut lines = input.lines();
        let first = lines
            .next()
            .ok_or_else(|| TraceError::NotATrace("it is empty".into()))?
            .map_err(TraceError::Io)?;
        let header: Value =
            serde_json::from_str(&first).map_err(|error| TraceError::NotATrace(error.to_string()))?;
        let events = lines.filter_map(|line| match line {
            Ok(line) => (!line.trim().is_empty()).then(|| Ok(line.into_boxed_str())),
            Err(error) => Some(Err(TraceError::Io(error))),
        });
        Trace::collect(header, events)
    }

    fn collect(
        header: Value,
        events: impl Iterator<Item = Result<Box<str>, TraceError>>,
    ) -> Result<Trace, TraceError> {
        let (hash, until) = read_header(&header)?;
        let mut trace = Trace {
            header,
            hash,
            until,
            times: Vec::new(),
            events: Vec::new(),
            checkpoints: Vec::new(),
            bytes: 0,
            history: None,
        };
        let mut moment = Moment::default();
        for event in events {
            trace.push(&mut moment, event?)?;
        }
        Ok(trace)
    }

    fn push(&mut self, moment: &mut Moment, event: Box<str>) -> Result<(), TraceError> {
        let position = self.events.len();
        let bad = |why: String| TraceError::Event { line: position + 2, why };
        let facts: Facts = serde_json::from_str(&event).map_err(|error| bad(error.to_string()))?;
        if self.times.last().is_some_and(|last| *last > facts.t) {
            return Err(bad(format!("its time {} lies before its predecessor's", facts.t)));
        }
        if position.is_multiple_of(CHECKPOINT_EVERY) {
            self.checkpoints.push(moment.clone());
        }
        self.bytes += event.len();
        if self.bytes > TRACE_BYTES_MAX {
            return Err(TraceError::TooLarge);
        }
        moment.advance(position, &facts);
        self.times.push(facts.t);
        self.events.push(event);
        Ok(())
    }

    /// The header, as the page gets it.
    pub fn header(&self) -> &Value {
        &self.header
    }

    /// The hash that identifies this run.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Bytes of event text held, which is what a cache should count.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps what the run's clients asked and heard.
    #[must_use]
    pub(crate) fn with_history(mut self, history: History) -> Trace {
        self.history = Some(history);
        self
    }

    /// What the run's clients asked and heard, of a run made here.
    pub(crate) fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// The header and all events, as one JSON object.
    pub(crate) fn to_json(&self) -> String {
        format!("{{\"header\":{},\"events\":[{}]}}", self.header, self.events.join(","))
    }

    /// The events with `from <= t < to` (nanoseconds) and the keyframe before them, as JSON.
    ///
    /// At most [`WINDOW_EVENTS_MAX`] events, and never half of those that share one moment, unless
    /// that moment alone has more. `to` in the answer says how far the window really reaches.
    pub fn window(&self, from: u64, to: u64) -> String {
        let first = self.times.partition_point(|t| *t < from);
        let (last, reach) = self.window_end(first, to);
        let mut answer = String::with_capacity(256 + (last - first) * 160);
        answer.push_str("{\"keyframe\":");
        self.write_keyframe(&mut answer, first, from);
        let _ = write!(answer, ",\"from\":{from},\"to\":{reach},\"events\":[");
        for (place, event) in self.events[first..last].iter().enumerate() {
            if place > 0 {
                answer.push(',');
            }
            answer.push_str(event);
        }
        answer.push_str("]}");
        answer
    }

    fn window_end(&self, first: usize, to: u64) -> (usize, u64) {
        let to = to.min(self.until.saturating_add(1));
        let wanted = first.max(self.times.partition_point(|t| *t < to));
        if wanted - first <= WINDOW_EVENTS_MAX {
            return (wanted, to);
        }
        let cut = self.times[first + WINDOW_EVENTS_MAX];
        let last = self.times.partition_point(|t| *t < cut);
        if last > first {
            return (last, cut);
        }
        // One moment holds more than a window may: it goes out whole, or it could never be passed.
        (self.times.partition_point(|t| *t <= cut), cut + 1)
    }

    fn write_keyframe(&self, answer: &mut String, position: usize, t: u64) {
        let moment = self.moment_before(position);
        let _ = write!(answer, "{{\"t\":{t},\"states\":{{");
        for (place, (node, event)) in moment.states.iter().enumerate() {
            let event: Value = serde_json::from_str(&self.events[*event]).unwrap_or(Value::Null);
            let comma = if place > 0 { "," } else { "" };
            let _ = write!(answer, "{comma}{}:{}", json!(node), event["s"]);
        }
        answer.push_str("},\"flying\":[");
        self.write_events(answer, moment.flying.values());
        answer.push_str("],\"ops\":[");
        self.write_events(answer, moment.operations.values());
        let _ = write!(answer, "],\"cuts\":{}}}", json!(moment.cuts));
    }

    fn write_events<'a>(&self, answer: &mut String, positions: impl Iterator<Item = &'a usize>) {
        for (place, position) in positions.enumerate() {
            if place > 0 {
                answer.push(',');
            }
            answer.push_str(&self.events[*position]);
        }
    }

    fn moment_before(&self, position: usize) -> Moment {
        let checkpoint = (position / CHECKPOINT_EVERY).min(self.checkpoints.len().saturating_sub(1));
        let mut moment = self.checkpoints.get(checkpoint).cloned().unwrap_or_default();
        for place in checkpoint * CHECKPOINT_EVERY..position {
            // Every event was parsed once, when it came in.
            if let Ok(facts) = serde_json::from_str::<Facts>(&self.events[place]) {
                moment.advance(place, &facts);
            }
        }
        moment
    }
}

fn read_header(header: &Value) -> Result<(String, u64), TraceError> {
    let missing = |what: &str| TraceError::NotATrace(format!("its header lacks \"{what}\""));
    let version = header["synod-trace"].as_u64().ok_or_else(|| missing("synod-trace"))?;
    if version != TRACE_VERSION {
        return Err(TraceError::Version(version));
    }
    let hash = header["hash"].as_str().ok_or_else(|| missing("hash"))?;
    let until = header["until"].as_u64().ok_or_else(|| missing("until"))?;
    header["nodes"].as_array().ok_or_else(|| missing("nodes"))?;
    Ok((hash.to_owned(), until))
}
