//! A trace in memory, and windows of it between keyframes, as JSON for the page.

use crate::event::{Event, Sink};
use crate::outcome::Outcome;
use crate::script::Member;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;

/// Events that a trace keeps at most; what comes after is counted and left out.
pub const TRACE_EVENTS_MAX: usize = 2_000_000;
/// Bytes of events that a trace keeps at most.
pub const TRACE_BYTES_MAX: usize = 1 << 30;
/// Events between two keyframes.
const KEYFRAME_EVENTS: usize = 512;
/// The version of the trace format.
pub const TRACE_VERSION: u32 = 1;

/// All events of a run, each as a line of JSON.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    text: String,
    index: Vec<Indexed>,
    keyframes: Vec<Keyframe>,
    left_out: u64,
    /// The situation after the last event.
    now: Keyframe,
}

/// Where an event stands in the text, and when it happened.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    t: u64,
    start: usize,
    touches: Touches,
}

/// What an event changes in the situation that a window starts with.
#[derive(Clone, Copy, Debug)]
enum Touches {
    Nothing,
    State(u8),
    Takeoff(u64),
    Landing(u64),
    Cuts,
}

/// The situation before an event.
#[derive(Clone, Debug, Default)]
struct Keyframe {
    /// The next event.
    next: usize,
    /// The event that tells each member's latest state.
    states: BTreeMap<u8, usize>,
    /// The events that sent what is in flight.
    flying: BTreeMap<u64, usize>,
    /// The event that tells what is cut.
    cuts: Option<usize>,
}

impl Keyframe {
    fn apply(&mut self, touches: Touches) {
        let event = self.next;
        self.next += 1;
        match touches {
            Touches::Nothing => {}
            Touches::State(member) => drop(self.states.insert(member, event)),
            Touches::Takeoff(message) => drop(self.flying.insert(message, event)),
            Touches::Landing(message) => drop(self.flying.remove(&message)),
            Touches::Cuts => self.cuts = Some(event),
        }
    }
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
        if self.index.len() >= TRACE_EVENTS_MAX || self.text.len() >= TRACE_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        if self.index.len().is_multiple_of(KEYFRAME_EVENTS) {
            self.keyframes.push(self.now.clone());
        }
        let touches = match event {
            Event::State { n, .. } => Touches::State(n.0),
            Event::Send { m, lost: None, .. } => Touches::Takeoff(*m),
            Event::Recv { m } | Event::Drop { m, .. } => Touches::Landing(*m),
            Event::Fault { .. } => Touches::Cuts,
            _ => Touches::Nothing,
        };
        let start = self.text.len();
        let line = Line { i: self.index.len(), t, event };
        serde_json::to_writer(Text(&mut self.text), &line)
            .expect("events have string keys and the text is in memory");
        self.text.push('\n');
        self.index.push(Indexed { t, start, touches });
        self.now.apply(touches);
    }
}

impl Trace {
    /// An empty trace.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
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

    /// The events from `from` on and before `to`, both in nanoseconds, with the situation before the first of
    /// them, as JSON text: `{"keyframe":{"t","states","flying","cuts"},"events":[...]}`.
    pub fn window(&self, from: u64, to: u64) -> String {
        let first = self.index.partition_point(|event| event.t < from);
        let last = self.index.partition_point(|event| event.t < to).max(first);
        let keyframe = self.situation(first);
        let mut out = String::with_capacity(self.offset(last) - self.offset(first) + 4096);
        out.push_str(&format!("{{\"keyframe\":{{\"t\":{from},\"states\":{{"));
        let states = keyframe.states.iter().map(|(member, event)| {
            // The state object is the last field of its event.
            let line = self.line(*event);
            let state = line.find("\"s\":").map_or("null", |at| &line[at + 4..line.len() - 1]);
            format!("\"n{member}\":{state}")
        });
        join(&mut out, states);
        out.push_str("},\"flying\":[");
        join(&mut out, keyframe.flying.values().map(|event| self.line(*event).to_owned()));
        out.push_str("],\"cuts\":");
        let cuts = keyframe.cuts.map_or("[]", |event| {
            let line = self.line(event);
            line.rfind("\"cuts\":").map_or("[]", |at| &line[at + 7..line.len() - 1])
        });
        out.push_str(cuts);
        out.push_str("},\"events\":[");
        join(&mut out, self.range(first..last).lines().map(str::to_owned));
        out.push_str("]}");
        out
    }

    fn situation(&self, before: usize) -> Keyframe {
        let Some(mut keyframe) = self.keyframes.get(before / KEYFRAME_EVENTS).cloned() else {
            return self.now.clone();
        };
        while keyframe.next < before {
            let touches = self.index[keyframe.next].touches;
            keyframe.apply(touches);
        }
        keyframe
    }

    fn offset(&self, event: usize) -> usize {
        self.index.get(event).map_or(self.text.len(), |indexed| indexed.start)
    }

    fn range(&self, events: Range<usize>) -> &str {
        &self.text[self.offset(events.start)..self.offset(events.end)]
    }

    fn line(&self, event: usize) -> &str {
        self.range(event..event + 1).trim_end()
    }
}

fn join(out: &mut String, parts: impl Iterator<Item = String>) {
    for (i, part) in parts.enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NodeState;

    fn member(n: u8) -> Member {
        Member(n)
    }

    fn send(m: u64) -> Event<'static> {
        let (from, to) = (member(1), member(2));
        Event::Send {
            m,
            copy_of: None,
            from,
            to,
            name: "Hello",
            detail: "\"quoted\"".into(),
            at: Some(9),
            lost: None,
        }
    }

    /// The situation at `t` by going through all events from the beginning.
    fn expected(trace: &Trace, t: u64) -> (BTreeMap<String, Value>, Vec<u64>) {
        let (mut states, mut flying) = (BTreeMap::new(), Vec::new());
        for line in trace.lines().lines() {
            let event: Value = serde_json::from_str(line).expect("JSON");
            if event["t"].as_u64().expect("a time") >= t {
                break;
            }
            let m = event["m"].as_u64();
            match event["k"].as_str().expect("a kind") {
                "state" => {
                    drop(states.insert(event["n"].as_str().expect("a member").to_owned(), event["s"].clone()))
                }
                "send" => flying.push(m.expect("a number")),
                _ => flying.retain(|flying| Some(*flying) != m),
            }
        }
        (states, flying)
    }

    #[test]
    fn a_window_starts_with_the_situation_at_its_beginning() {
        let mut trace = Trace::new();
        for t in 0..2000u64 {
            let state = NodeState { epoch: t, fields: vec![("s", "\"s\":1".into())], ..NodeState::default() };
            trace.event(t, &Event::State { n: member((t % 3) as u8 + 1), s: &state });
            trace.event(t, &send(t));
            if t >= 5 {
                trace.event(t, &Event::Recv { m: t - 5 });
            }
        }
        for from in [0, 1, 4, 170, 171, 511, 1024, 1999, 3000] {
            let window: Value = serde_json::from_str(&trace.window(from, from + 7)).expect("JSON");
            let (states, flying) = expected(&trace, from);
            let found: Vec<u64> = window["keyframe"]["flying"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|send| send["m"].as_u64().expect("a number"))
                .collect();
            assert_eq!(found, flying, "at {from}");
            assert_eq!(
                serde_json::to_value(states).expect("JSON"),
                window["keyframe"]["states"],
                "at {from}"
            );
            let events = window["events"].as_array().expect("a list");
            assert!(
                events.iter().all(|event| (from..from + 7).contains(&event["t"].as_u64().expect("a time")))
            );
            assert_eq!(events.is_empty(), from == 3000);
        }
    }
}
