//! What happened, as it is shown: as text, or in the vocabulary of all traces.

use crate::event::{Event, Sink};
use crate::script::Member;
use crate::trace::Trace;
use std::fmt;
use synod_protocols::types::{NodeId, Time};

/// Something that happened in a small world. `N` is what the world above notes.
#[derive(Clone, Debug)]
pub(crate) enum Happened<N> {
    Sent(Message),
    Arrived(Message),
    /// And why it did not arrive.
    Lost(Message, &'static str),
    Record {
        id: NodeId,
        name: &'static str,
        detail: String,
    },
    Synced(NodeId),
    Timeout(NodeId),
    Link {
        id: NodeId,
        peer: NodeId,
        is_up: bool,
    },
    /// In the words of `docs/scripts.md`.
    Fault {
        what: &'static str,
        who: Option<NodeId>,
        other: Option<NodeId>,
        text: String,
        cuts: Vec<(NodeId, NodeId)>,
    },
    Note(N),
}

/// A message, as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Its number; copies have their own.
    pub(crate) number: u64,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) name: &'static str,
    pub(crate) detail: String,
    pub(crate) bytes: u64,
    pub(crate) is_early: bool,
    /// When it arrives, if nothing happens meanwhile.
    pub(crate) at: Time,
    /// The message that it is a copy of.
    pub(crate) copy_of: Option<u64>,
}

/// What happened, and when.
pub(crate) type Seen<N> = Vec<(Time, Happened<N>)>;

impl<N: fmt::Display> fmt::Display for Happened<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happened::Sent(Message { from, to, name, detail, copy_of, .. }) => {
                let again = if copy_of.is_some() { " again" } else { "" };
                write!(f, "{from} -> {to} {name}{again}: {detail}")
            }
            Happened::Arrived(Message { from, to, name, .. }) => write!(f, "{from} => {to} {name}"),
            Happened::Lost(Message { from, to, name, .. }, why) => {
                write!(f, "{from} => {to} {name} is lost: {why}")
            }
            Happened::Record { id, name, detail } => write!(f, "{id} records {name}: {detail}"),
            Happened::Synced(id) => write!(f, "{id} has synced"),
            Happened::Timeout(id) => write!(f, "{id}: a timeout"),
            Happened::Link { id, peer, is_up: true } => write!(f, "{id} is connected to {peer}"),
            Happened::Link { id, peer, is_up: false } => write!(f, "{id} has lost {peer}"),
            Happened::Fault { text, .. } => f.write_str(text),
            Happened::Note(note) => note.fmt(f),
        }
    }
}

/// A line of text for each thing.
pub(crate) fn told<N: fmt::Display>(seen: &Seen<N>) -> String {
    seen.iter().map(|(at, happened)| format!("{at:>15?} {happened}\n")).collect()
}

/// The same in the vocabulary of all traces; `say` does so for the world's own notes.
pub(crate) fn trace<N>(seen: &Seen<N>, say: impl Fn(u64, &N, &mut Trace)) -> Trace {
    let mut trace = Trace::new();
    for (at, happened) in seen {
        let t = at.0;
        match happened {
            Happened::Note(note) => say(t, note, &mut trace),
            other => {
                if let Some(event) = event(other) {
                    trace.event(t, &event);
                }
            }
        }
    }
    trace
}

/// How traces name a machine.
pub(crate) fn member(id: NodeId) -> Member {
    Member(u8::try_from(id.0).expect("a small world has few machines"))
}

fn event<N>(happened: &Happened<N>) -> Option<Event<'static>> {
    Some(match happened {
        Happened::Sent(message) => Event::Send {
            m: message.number,
            copy_of: message.copy_of,
            from: member(message.from),
            to: member(message.to),
            name: message.name,
            detail: message.detail.clone(),
            bytes: message.bytes,
            early: message.is_early,
            at: Some(message.at.0),
            lost: None,
        },
        Happened::Arrived(message) => Event::Recv { m: message.number },
        Happened::Lost(message, why) => Event::Drop { m: message.number, why },
        Happened::Record { id, name, detail } => {
            Event::Record { n: member(*id), name, detail: detail.clone() }
        }
        Happened::Synced(id) => Event::Disk { n: member(*id), op: "sync-end", bytes: 0 },
        Happened::Timeout(id) => Event::Timeout { n: member(*id) },
        Happened::Link { id, peer, is_up } => Event::Link { n: member(*id), to: member(*peer), up: *is_up },
        Happened::Fault { what, who, other, text, cuts } => Event::Fault {
            what,
            a: who.map(member),
            b: other.map(member),
            text: text.clone(),
            cuts: cuts.iter().map(|(from, to)| (member(*from), member(*to))).collect(),
        },
        Happened::Note(_) => return None,
    })
}
