//! What a run of a level notes beside what happens among its machines, for whoever watches.

use super::{Outcome, Scenario};
use crate::event::{Event, Sink};
use crate::small::{Seen, member, trace};
use crate::trace::{TRACE_VERSION, Trace};
use serde_json::{Value, json};
use std::fmt;
use synod_check::history::{Call, Outcome as Ended};
use synod_protocols::types::NodeId;

#[derive(Clone, Debug)]
pub(super) enum Note {
    /// A session's operation, from its beginning to its end.
    Operation { session: String, number: u32, call: Call, at: NodeId, ended: Option<Ended> },
    /// A promise was broken.
    Broken(String),
}

impl Note {
    /// The word for where an operation stands.
    fn phase(ended: Option<&Ended>) -> &'static str {
        match ended {
            None => "invoke",
            Some(Ended::Ok(_)) => "ok",
            Some(Ended::Fail { .. }) => "fail",
            Some(Ended::Unknown { .. }) => "unknown",
        }
    }

    /// What is written, or what the answer says.
    fn value(call: &Call, ended: Option<&Ended>) -> Option<String> {
        let value = match ended {
            Some(Ended::Ok(reply)) => reply.value.as_ref(),
            Some(_) => None,
            None => call.value.as_ref(),
        };
        value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    fn say(&self, t: u64, trace: &mut Trace) {
        match self {
            Note::Broken(detail) => trace.event(t, &Event::Violation { promise: "level", detail }),
            Note::Operation { session, number, call, at, ended } => {
                let value = Note::value(call, ended.as_ref());
                let event = Event::Op {
                    c: session,
                    o: *number,
                    phase: Note::phase(ended.as_ref()),
                    f: word(&call.op),
                    key: call.key.as_deref().unwrap_or_default(),
                    value: value.as_deref(),
                    node: Some(member(*at)),
                    error: match ended {
                        Some(Ended::Fail { .. }) => Some("refused"),
                        Some(Ended::Unknown { .. }) => Some("no answer"),
                        _ => None,
                    },
                };
                trace.event(t, &event);
            }
        }
    }
}

/// The operations of sessions, as words that live long enough for a trace.
fn word(op: &str) -> &'static str {
    ["put", "get", "add", "remove", "read"].into_iter().find(|word| *word == op).unwrap_or("other")
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Broken(what) => write!(f, "BROKEN: {what}"),
            Note::Operation { session, call, at, ended, .. } => {
                write!(f, "{session} at {at}: {call}")?;
                match (Note::phase(ended.as_ref()), Note::value(call, ended.as_ref())) {
                    ("invoke", _) => Ok(()),
                    (phase, Some(value)) => write!(f, " {phase} {value}"),
                    (phase, None) => write!(f, " {phase}"),
                }
            }
        }
    }
}

/// What happened in a run, in order: as text, or as the JSON lines of every trace of Synod (`docs/scripts.md`).
#[derive(Clone, Debug, Default)]
pub struct Story {
    seen: Seen<Note>,
}

impl Story {
    pub(super) fn new(seen: Seen<Note>) -> Story {
        Story { seen }
    }

    /// A line for each thing that happened: time, and what.
    pub fn text(&self) -> String {
        crate::small::told(&self.seen)
    }

    /// The header of the trace, as JSON, and its events.
    pub fn json(&self, outcome: &Outcome) -> (Value, Trace) {
        let trace = trace(&self.seen, |t, note, trace| note.say(t, trace));
        let Scenario { level, kind, members, seed, fault, span, .. } = outcome.scenario;
        let header = json!({
            "synod-trace": TRACE_VERSION,
            "protocol": level,
            "holds": kind.to_string(),
            "nodes": (1..=members).map(|id| NodeId(id).to_string()).collect::<Vec<_>>(),
            "clients": outcome.scenario.sessions,
            "seed": seed,
            "faults": fault.to_string(),
            "until": span.as_nanos() as u64,
            "events": trace.len(),
            "leftOut": trace.left_out(),
            "verdict": { "safe": outcome.passed(), "violations": outcome.violations },
        });
        (header, trace)
    }
}
