//! What a command costs a protocol when nothing goes wrong: messages, bytes, syncs, and how many of them one after
//! the other until the client knows.
//!
//! A leader comes into office and is given commands by clients of its own. Timers are so long that nothing else is sent
//! or written meanwhile: no heartbeat is counted, and nothing has to be subtracted. Message delays are counted with
//! messages that take one tick and free syncs, syncs in sequence the other way round.

use crate::event::{Event, Sink};
use crate::script::{Action, Delay, HandOperation, Limits, Member, Script, Timed};
use crate::units::Span;
use crate::{NoTrace, UnknownProtocol, run};
use serde::Serialize;
use std::collections::BTreeMap;
use synod_protocols::log::LogLimits;

/// How many bytes the value of a command has; its key has one.
pub const VALUE_BYTES: usize = 100;
/// Commands that may be measured at once.
pub const COMMANDS_MAX: u32 = 5_000;

/// How long a message or a sync takes, where it is not free.
const TICK: Span = Span::millis(1);
/// The timers, far beyond the time that is measured.
const ELECTION: Span = Span::secs(600);
const HEARTBEAT: Span = Span::secs(200);
/// After this a leader is in office: twice the longest wait for an election.
const ELECTED: Span = Span::secs(2_400);
/// From its election to the first command, and from that to the first that counts.
const REST: Span = Span::secs(10);
/// Commands come so far apart where each is alone, and where many are outstanding.
const APART: Span = Span::millis(20);
const CLOSE: Span = Span(10_000);

/// What one command costs, of all members together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Messages between members.
    pub messages: f64,
    /// Their bytes.
    pub bytes: f64,
    /// Syncs of disks.
    pub syncs: f64,
    /// The messages by their kinds.
    pub kinds: BTreeMap<&'static str, f64>,
}

/// The costs of one protocol for one number of members.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// The protocol.
    pub protocol: String,
    /// Members.
    pub nodes: u8,
    /// Commands of each measurement.
    pub commands: u32,
    /// Message delays from a command at the leader until its client knows.
    pub delays: u64,
    /// Syncs one after the other until then.
    pub syncs_in_sequence: u64,
    /// With one command at a time.
    pub alone: Cost,
    /// With a hundred new commands each time that a message or a sync takes.
    pub together: Cost,
}

/// Measures a protocol with so many members, from 1 to [`crate::script::NODES_MAX`], and so many commands, from 1 to
/// [`COMMANDS_MAX`].
///
/// # Errors
/// [`UnknownProtocol`].
pub fn costs(protocol: &str, nodes: u8, commands: u32) -> Result<Costs, UnknownProtocol> {
    let commands = commands.clamp(1, COMMANDS_MAX);
    let measure = |latency: Span, sync: Span, every: Span| -> Result<Meter, UnknownProtocol> {
        let quiet = quiet(protocol, nodes, latency, sync);
        let outcome = run(&quiet, &mut NoTrace)?;
        let leader = outcome.marks.iter().rfind(|mark| mark.kind == "leader");
        let leader = leader.expect("without faults somebody is elected");
        let (name, _) = leader.label.split_once(' ').expect("a mark names the leader first");
        let number = name.strip_prefix('n').and_then(|number| number.parse().ok());
        let leader = (Member(number.expect("members are numbered")), Span(leader.t));
        let (script, from) = with_commands(quiet, leader, commands, every);
        let mut meter = Meter { from: from.0, ..Meter::default() };
        let outcome = run(&script, &mut meter)?;
        assert!(outcome.passed() && outcome.counts.failed + outcome.counts.unknown == 0, "{outcome}");
        Ok(meter)
    };
    let alone = measure(TICK, TICK, APART)?;
    let together = measure(TICK, TICK, CLOSE)?;
    Ok(Costs {
        protocol: protocol.into(),
        nodes,
        commands,
        delays: measure(TICK, Span(0), APART)?.longest() / TICK.0,
        syncs_in_sequence: measure(Span(0), TICK, APART)?.longest() / TICK.0,
        alone: alone.cost(commands),
        together: together.cost(commands),
    })
}

/// A cluster that elects a leader, and nothing else.
fn quiet(protocol: &str, nodes: u8, latency: Span, sync: Span) -> Script {
    Script {
        protocol: protocol.into(),
        nodes,
        until: ELECTED,
        latency: Delay::Fixed(latency),
        disk: Delay::Fixed(sync),
        election: ELECTION,
        heartbeat: HEARTBEAT,
        // As in the server.
        limits: Limits { alpha: LogLimits::default().alpha as u32, ..Limits::default() },
        ..Script::default()
    }
}

/// The same, with commands at the leader once it leads, and from when on they count: the first opens its member's
/// session, which is no part of the cost of a command.
fn with_commands(
    quiet: Script,
    (leader, since): (Member, Span),
    commands: u32,
    every: Span,
) -> (Script, Span) {
    let put = |at: u64| {
        let operation = HandOperation::Put("k".into(), "v".repeat(VALUE_BYTES));
        Timed { at: Span(at), action: Action::Client(Some(leader), operation) }
    };
    let first = since.0 + REST.0;
    let from = first + REST.0;
    let mut actions = vec![put(first)];
    actions.extend((0..u64::from(commands)).map(|i| put(from + i * every.0)));
    let until = Span(from + u64::from(commands) * every.0 + REST.0);
    (Script { actions, until, ..quiet }, Span(from))
}

/// Counts what happens from a moment on.
#[derive(Debug, Default)]
struct Meter {
    from: u64,
    bytes: u64,
    syncs: u64,
    kinds: BTreeMap<&'static str, u64>,
    began: BTreeMap<u32, u64>,
    /// How long each command took.
    took: Vec<u64>,
}

impl Sink for Meter {
    fn wants_events(&self) -> bool {
        true
    }

    fn event(&mut self, t: u64, event: &Event<'_>) {
        if t < self.from {
            return;
        }
        match event {
            Event::Send { name, bytes, .. } => {
                self.bytes += bytes;
                *self.kinds.entry(name).or_default() += 1;
            }
            Event::Disk { op: "sync-end", .. } => self.syncs += 1,
            Event::Op { o, phase: "invoke", .. } => {
                self.began.insert(*o, t);
            }
            Event::Op { o, phase: "ok", .. } => self.took.extend(self.began.get(o).map(|began| t - began)),
            _ => {}
        }
    }
}

impl Meter {
    /// How long the slowest command took, in nanoseconds.
    fn longest(&self) -> u64 {
        self.took.iter().copied().max().unwrap_or(0)
    }

    fn cost(&self, commands: u32) -> Cost {
        let each = |count: u64| count as f64 / f64::from(commands);
        Cost {
            messages: each(self.kinds.values().sum()),
            bytes: each(self.bytes),
            syncs: each(self.syncs),
            kinds: self.kinds.iter().map(|(name, count)| (*name, each(*count))).collect(),
        }
    }
}
