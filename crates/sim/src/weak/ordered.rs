//! The two strong levels: Raft with a map above it, spoken to in the words of the weaker levels.
//!
//! A write at any member is forwarded to the leader and answered when this member has applied it. A linearizable
//! read waits until a quorum has confirmed the leader after it arrived; a sequential one is local, and waits only
//! for what its session has seen, which is an index of the log. Nothing here repeats a request: an answer that does
//! not come is the client's to wait for.

use super::Level;
use super::hosted::Hosted;
use super::member::{Home, Member, Start};
use crate::small::{Effect, Host};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_protocols::log::{
    Index, LogBase, LogConfig, LogEvent, LogRequest, Payload, ReplicatedLog, Role, Ticket,
};
use synod_protocols::raft::Raft;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::weak::{
    CausalContext, Content, Event, Name, Refusal, Request, Standing, WeakReplica, Write,
};
use synod_protocols::{
    Describe, Effects, Emit, Fingerprint, Input, Process, Recovery, Release, Send, Wire, wire_format,
};

/// How long a sequential read waits for what its session has seen.
const WAIT_MAX: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(super) struct Config {
    log: LogConfig,
    is_linearizable: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Command {
    origin: NodeId,
    ticket: u64,
    puts: Vec<(Bytes, Bytes)>,
}

#[derive(Clone, Debug)]
pub(super) enum Message {
    Log { message: <Raft as Process>::Message },
    Forward { command: Command },
}

wire_format!(struct Command { origin, ticket, puts });
wire_format!(enum Message { 1 => Log { message }, 2 => Forward { command } });

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::Log { message } => message.name(),
            Message::Forward { .. } => "Forward",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Log { message } => message.detail(),
            Message::Forward { command } => format!("{} puts", command.puts.len()),
        }
    }
}

#[derive(Clone, Debug)]
struct Waiting {
    ticket: Ticket,
    keys: Vec<Bytes>,
    /// What must have been applied; none while the log has not said.
    index: Option<Index>,
    until: Option<Time>,
}

#[derive(Clone, Debug)]
pub(super) struct Ordered {
    id: NodeId,
    is_linearizable: bool,
    raft: Raft,
    leader: Option<NodeId>,
    map: BTreeMap<Bytes, Bytes>,
    applied: Index,
    waiting: Vec<Waiting>,
}

impl Process for Ordered {
    type Config = Config;
    type Message = Message;
    type Record = <Raft as Process>::Record;
    type Request = Request;
    type Ask = ();
    type Answer = ();
    type Event = Event;
    type Base = ();

    fn recover(
        config: Config,
        from: Recovery<'_, Self::Record>,
        (): (),
        now: Time,
        out: &mut Effects<Ordered>,
    ) -> Ordered {
        let mut inner = Effects::new();
        let id = config.log.id;
        let raft = Raft::recover(Raft::config(config.log), from, LogBase::default(), now, &mut inner);
        let mut ordered = Ordered {
            id,
            is_linearizable: config.is_linearizable,
            raft,
            leader: None,
            map: BTreeMap::new(),
            applied: Index::ZERO,
            waiting: Vec::new(),
        };
        ordered.absorb(inner, out);
        ordered
    }

    fn step(&mut self, now: Time, input: Input<Ordered>, out: &mut Effects<Ordered>) {
        let input = match input {
            Input::Message { message: Message::Forward { command }, .. } => {
                return self.propose(now, command, out);
            }
            Input::Request(request) => return self.on_request(now, request, out),
            Input::Message { from, message: Message::Log { message } } => Input::Message { from, message },
            Input::LinkUp { peer, session } => Input::LinkUp { peer, session },
            Input::LinkDown { peer } => Input::LinkDown { peer },
            Input::StorageFault(fault) => Input::StorageFault(fault),
            Input::Timeout | Input::Answer(()) => Input::Timeout,
        };
        self.inner(now, input, out);
        let is_late = |waiting: &mut Waiting| waiting.until.is_some_and(|until| now >= until);
        for waiting in self.waiting.extract_if(.., is_late) {
            let missing = waiting.index.map_or(1, |index| index.0.saturating_sub(self.applied.0));
            out.event(Event::Refused { ticket: waiting.ticket, why: Refusal::Behind { missing } });
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.waiting.iter().filter_map(|waiting| waiting.until).chain(self.raft.deadline()).min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.raft.fingerprint(now, digest);
        digest.word(self.applied.0);
    }
}

impl Ordered {
    fn inner(&mut self, now: Time, input: Input<Raft>, out: &mut Effects<Ordered>) {
        let mut inner = Effects::new();
        self.raft.step(now, input, &mut inner);
        self.absorb(inner, out);
    }

    fn absorb(&mut self, inner: Effects<Raft>, out: &mut Effects<Ordered>) {
        assert!(inner.asks.is_empty(), "nothing is compacted here, so nothing is asked for");
        out.records.extend(inner.records);
        let send = |Send { to, message, release }| Send { to, message: Message::Log { message }, release };
        out.sends.extend(inner.sends.into_iter().map(send));
        for Emit { event, release } in inner.events {
            self.hear(event, release, out);
        }
    }

    fn hear(&mut self, event: LogEvent, release: Release, out: &mut Effects<Ordered>) {
        match event {
            LogEvent::Committed { entries } => {
                for entry in entries {
                    self.applied = entry.index;
                    let Payload::Command(bytes) = entry.payload else { continue };
                    let Ok(command) = Command::from_bytes(bytes) else { continue };
                    self.map.extend(command.puts);
                    if command.origin == self.id {
                        let (ticket, token) = (Ticket(command.ticket), self.token());
                        out.events.push(Emit { event: Event::Written { ticket, token }, release });
                    }
                }
                self.serve(release, out);
            }
            LogEvent::ReadReady { ticket, index, .. } => {
                let asked = self.waiting.iter_mut().filter(|waiting| waiting.ticket == ticket);
                asked.for_each(|waiting| waiting.index = Some(index));
                self.serve(release, out);
            }
            LogEvent::Refused { ticket, .. } => {
                self.waiting.retain(|waiting| waiting.ticket != ticket);
                out.events.push(Emit { event: Event::Refused { ticket, why: Refusal::Busy }, release });
            }
            LogEvent::Role { leader, .. } => self.leader = leader,
            _ => {}
        }
    }

    fn token(&self) -> Option<Bytes> {
        Some(self.applied.0.to_bytes()).filter(|_| !self.is_linearizable)
    }

    fn serve(&mut self, release: Release, out: &mut Effects<Ordered>) {
        let applied = self.applied;
        let is_ready = |waiting: &mut Waiting| waiting.index.is_some_and(|index| index <= applied);
        let ready: Vec<Waiting> = self.waiting.extract_if(.., is_ready).collect();
        for Waiting { ticket, keys, .. } in ready {
            let contents = keys.iter().map(|key| Content::Value(self.map.get(key).cloned())).collect();
            out.events.push(Emit { event: Event::Read { ticket, contents, token: self.token() }, release });
        }
    }

    fn propose(&mut self, now: Time, command: Command, out: &mut Effects<Ordered>) {
        let (ticket, commands) = (Ticket(command.ticket), vec![command.to_bytes()]);
        self.inner(now, Input::Request(LogRequest::Propose { ticket, commands }), out);
    }

    fn on_request(&mut self, now: Time, request: Request, out: &mut Effects<Ordered>) {
        match request {
            Request::Write { ticket, writes, .. } => {
                let put = |write| match write {
                    Write::Put { key, value } => Some((key, value)),
                    _ => None,
                };
                let puts = writes.into_iter().filter_map(put).collect();
                let command = Command { origin: self.id, ticket: ticket.0, puts };
                match self.leader {
                    Some(leader) if leader == self.id => self.propose(now, command, out),
                    Some(leader) => out.send(leader, Message::Forward { command }),
                    None => out.event(Event::Refused { ticket, why: Refusal::Busy }),
                }
            }
            Request::Read { ticket, token, names } => {
                let keys = names.into_iter().map(|name| name.key).collect();
                let seen = token.and_then(|token| u64::from_bytes(token).ok()).unwrap_or_default();
                let index = (!self.is_linearizable).then_some(Index(seen));
                let until = index.map(|_| now + WAIT_MAX);
                self.waiting.push(Waiting { ticket, keys, index, until });
                match self.is_linearizable {
                    true => self.inner(now, Input::Request(LogRequest::Read { ticket }), out),
                    false => self.serve(Release::Held, out),
                }
            }
            Request::AddMember { .. } | Request::RemoveMember { .. } => {}
            Request::Compact | Request::SetClock { .. } => {}
        }
    }
}

impl Home for Host<Ordered> {
    type Process = Ordered;

    fn new(start: Start, joins: bool) -> Host<Ordered> {
        let seed = start.seed.wrapping_mul(1_000_003) ^ (start.id.0 << 32);
        let config = move |life| Config {
            log: LogConfig {
                timing: start.timing,
                ..LogConfig::new(start.id, start.founders.clone(), seed ^ life)
            },
            is_linearizable: start.level == Level::Linearizable,
        };
        let host = Host::new((), |event| event, Box::new(config));
        if joins { host.joining() } else { host }
    }

    fn process(&self) -> Option<&Ordered> {
        Host::process(self)
    }

    fn request(&mut self, now: Time, request: Request, out: &mut Vec<Effect<Event>>) {
        Host::request(self, now, request, out);
    }

    /// Nothing here rests on a wall clock.
    fn set_clock(&mut self, _wall_at_zero: u64) {}

    /// What it has lost it gets from the others.
    fn is_damaged(&self) -> bool {
        false
    }

    fn failure(&self) -> Option<&str> {
        None
    }
}

impl Member for Ordered {
    type Home = Host<Ordered>;

    fn content(&self, name: &Name) -> Content {
        Content::Value(self.map.get(&name.key).cloned())
    }

    /// Who may have lost a vote abstains for ever.
    fn counts(&self) -> bool {
        self.raft.status().role != Role::Abstaining
    }

    fn agrees_with(&self, other: &Ordered) -> bool {
        self.applied == other.applied
    }
}

impl<P: WeakReplica + 'static> Member for P {
    type Home = Hosted<P>;

    fn content(&self, name: &Name) -> Content {
        self.replica().store().read(name)
    }

    fn counts(&self) -> bool {
        *self.replica().standing() == Standing::Member
    }

    fn agrees_with(&self, other: &P) -> bool {
        let seen = |replica: &P| -> CausalContext { replica.replica().seen().clone() };
        seen(self) == seen(other)
            && self.replica().store().root() == other.replica().store().root()
            && self.replica().store().tombstones() == 0
    }
}
