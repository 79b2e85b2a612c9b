//! A flight recording of a real member, run again and shown like a simulated one.
//!
//! The recording holds the inputs of one member's protocol. Running them again gives everything
//! that the member did, exactly; of its peers it shows what the member heard from them and said to
//! them, and nothing else.

use crate::event::{Event, Mark, NodeState, Sink};
use crate::script::Member;
use crate::show;
use bytes::Bytes;
use serde_json::{Value, json};
use std::hash::Hasher;
use synod_node::tape::{self, TapeError};
use synod_protocols::contract::Describe;
use synod_protocols::log::{LogEvent, ReplicatedLog, Role};
use synod_protocols::with_replicated_log;
use synod_protocols::{Effects, Fingerprint, Input, NodeId, Release, Time, Wire};

/// Why a recording cannot be shown.
#[derive(Debug)]
pub enum ReplayError {
    /// It cannot be read.
    Tape(TapeError),
    /// Its protocol is not known here.
    Protocol(String),
    /// A member's number is beyond what the page can name.
    Member(NodeId),
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReplayError::Tape(error) => write!(f, "the recording cannot be read: {error}"),
            ReplayError::Protocol(name) => {
                write!(f, "it was recorded on the protocol `{name}`, which is not known here")
            }
            ReplayError::Member(id) => {
                write!(f, "it has a member {id}; the page names members up to n{}", u8::MAX)
            }
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<TapeError> for ReplayError {
    fn from(error: TapeError) -> Self {
        ReplayError::Tape(error)
    }
}

/// What a recording holds, beside its events.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The member that was recorded.
    pub member: Member,
    /// How many inputs it took.
    pub inputs: u64,
    /// The header of the trace.
    pub header: Value,
}

/// Runs a recording again and hands what happened to `sink`.
///
/// # Errors
/// A recording that cannot be read, or that cannot be shown here.
pub fn replay(recording: Bytes, sink: &mut dyn Sink) -> Result<Replayed, ReplayError> {
    let protocol = tape::Reader::open(recording.clone())?.life().protocol.clone();
    with_replicated_log!(&protocol, P => replay_on::<P>(recording, sink))
        .unwrap_or(Err(ReplayError::Protocol(protocol)))
}

fn replay_on<P: ReplicatedLog>(recording: Bytes, sink: &mut dyn Sink) -> Result<Replayed, ReplayError> {
    let life = tape::Reader::open(recording.clone())?.life().clone();
    let number = |id: NodeId| u8::try_from(id.0).map(Member).map_err(|_| ReplayError::Member(id));
    let members = life.config.members.iter().map(|id| number(*id)).collect::<Result<Vec<Member>, _>>()?;
    let member = number(life.config.id)?;
    let mut player = Player {
        origin: life.now,
        member,
        sink,
        shown: NodeState::default(),
        deadline: (None, 0),
        messages: 0,
        last: 0,
        digest: Fingerprint::new(),
        marks: Vec::new(),
    };
    let inputs = tape::replay::<P>(recording, |now, input, effects, process| {
        player.show(now, input, effects, process)
    })?;
    let header = json!({
        "synod-trace": crate::trace::TRACE_VERSION,
        "protocol": life.protocol,
        "nodes": members,
        "clients": [],
        "seed": life.config.seed,
        "until": player.last + 1,
        "election": u64::try_from(life.config.timing.election.as_nanos()).unwrap_or(u64::MAX),
        "heartbeat": u64::try_from(life.config.timing.heartbeat.as_nanos()).unwrap_or(u64::MAX),
        "events": null,
        "hash": format!("{:016x}", player.digest.finish()),
        "script": null,
        "recorded": member,
        "marks": player.marks,
        "verdict": null,
        "counts": {"messages": player.messages, "steps": inputs},
    });
    Ok(Replayed { member, inputs, header })
}

struct Player<'a> {
    origin: Time,
    member: Member,
    sink: &'a mut dyn Sink,
    shown: NodeState,
    /// The timer, and when it was set.
    deadline: (Option<Time>, u64),
    messages: u64,
    /// The time of the last input.
    last: u64,
    digest: Fingerprint,
    marks: Vec<Mark>,
}

impl Player<'_> {
    fn show<P: ReplicatedLog>(
        &mut self,
        now: Time,
        input: Option<&Input<P>>,
        effects: &Effects<P>,
        process: &P,
    ) {
        let t = now.0.saturating_sub(self.origin.0);
        self.last = t;
        let n = self.member;
        match input {
            Some(Input::Message { from, message }) if from.0 != u64::from(n.0) => {
                self.message(t, Member(from.0 as u8), n, message, false);
            }
            Some(Input::Timeout) => self.sink.event(t, &Event::Timeout { n }),
            Some(Input::LinkUp { peer, .. }) => {
                self.sink.event(t, &Event::Link { n, to: Member(peer.0 as u8), up: true })
            }
            Some(Input::LinkDown { peer }) => {
                self.sink.event(t, &Event::Link { n, to: Member(peer.0 as u8), up: false })
            }
            _ => {}
        }
        for record in &effects.records {
            let (name, detail) = (record.name(), record.detail());
            self.sink.event(t, &Event::Record { n, name, detail });
        }
        // The recording does not say which of its own records were durable by then; that the log was not, does.
        let status = process.status();
        let overtakes = status.durable < status.last;
        for send in effects.sends.iter().filter(|send| send.to.0 != u64::from(n.0)) {
            self.message(
                t,
                n,
                Member(send.to.0 as u8),
                &send.message,
                overtakes && send.release == Release::Early,
            );
        }
        for emit in &effects.events {
            self.event(t, P::NAME, &emit.event);
        }
        process.fingerprint(now, &mut self.digest);
        self.state(t, now, process);
    }

    /// When a message arrived is only known at its receiver: it is shown as instant.
    fn message(&mut self, t: u64, from: Member, to: Member, message: &(impl Describe + Wire), early: bool) {
        self.messages += 1;
        let m = self.messages;
        let (name, detail) = (message.name(), message.detail());
        let bytes = message.to_bytes().len() as u64;
        let (copy_of, at, lost) = (None, Some(t), None);
        let event = Event::Send { m, copy_of, from, to, name, detail, bytes, early, at, lost };
        self.sink.event(t, &event);
        self.sink.event(t, &Event::Recv { m });
    }

    fn event(&mut self, t: u64, protocol: &str, event: &LogEvent) {
        match event {
            LogEvent::Committed { entries } => {
                let (from, to) = (entries[0].index.0, entries[entries.len() - 1].index.0);
                self.sink.event(t, &Event::Commit { n: self.member, from, to });
            }
            LogEvent::Role { role: Role::Leader, epoch, .. } => {
                let label = format!("{} leads {}", self.member, show::epoch_words(protocol, epoch.0));
                self.marks.push(Mark { t, label, kind: "leader" });
            }
            _ => {}
        }
    }

    fn state<P: ReplicatedLog>(&mut self, t: u64, now: Time, process: &P) {
        let deadline = process.deadline();
        if self.deadline.0 != deadline {
            self.deadline = (deadline, t);
        }
        let status = process.status();
        let state = NodeState {
            up: true,
            applied: status.committed.0,
            deadline: deadline.map(|deadline| deadline.0.saturating_sub(self.origin.0)),
            deadline_from: self.deadline.1,
            fields: process.describe(now),
            ..show::log_state(process, &status)
        };
        if state != self.shown {
            self.sink.event(t, &Event::State { n: self.member, s: &state });
            self.shown = state;
        }
    }
}
