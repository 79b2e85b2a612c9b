//! Members of one type on machines with a disk each, and the network between them, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use synod_protocols::contract::Release;
use synod_protocols::types::{LinkSession, NodeId, Time};
use synod_protocols::weak::{Event, Request};
use synod_protocols::{Effects, Input, Process, Recovery, Rng, Wire};

/// A member of any level, as the stage has it.
pub(super) trait Member:
    Process<Request = Request, Event = Event, Ask = (), Answer = (), Base = ()>
{
    /// A configuration for a life, counted from 1. `members`: the founders.
    fn configured(start: Start) -> Self::Config;
    /// What it shows of a key.
    fn shows(&self, key: &[u8]) -> Option<bytes::Bytes>;
    /// Whether it is one of those that must come to show the same.
    fn counts(&self) -> bool;
    /// Whether it and another have nothing more to tell each other.
    fn agrees_with(&self, other: &Self) -> bool;
}

/// What a life starts from.
pub(super) struct Start {
    pub(super) level: super::Level,
    pub(super) id: NodeId,
    pub(super) founders: Vec<NodeId>,
    pub(super) life: u64,
    pub(super) seed: u64,
    pub(super) wall_at_zero: u64,
}

/// How the network and the disks are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    pub(super) latency: (Duration, Duration),
    pub(super) sync: Duration,
    /// Of a thousand messages, how many are lost and how many come twice.
    pub(super) lost: u64,
    pub(super) repeated: u64,
    /// Whether messages between two overtake each other.
    pub(super) is_disordered: bool,
}

struct Machine<P: Process> {
    process: Option<P>,
    disk: Vec<P::Record>,
    held: VecDeque<Held<P>>,
    life: u64,
    joins: bool,
    wall_at_zero: u64,
    disk_free: Time,
    slow_until: Time,
}

enum Held<P: Process> {
    Records(Vec<P::Record>),
    Send(NodeId, P::Message),
    Event(Event),
}

enum Happening<P: Process, A> {
    Arrive { from: NodeId, to: NodeId, message: P::Message },
    Synced { id: NodeId, life: u64 },
    Alarm(A),
}

/// What [`Stage::next`] came to.
pub(super) enum Next<A> {
    /// Something happened among the members.
    Moved,
    /// The time of this has come.
    Alarm(A),
    /// Nothing until then.
    Quiet,
}

pub(super) struct Stage<P: Member, A> {
    level: super::Level,
    seed: u64,
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) conditions: Conditions,
    machines: BTreeMap<NodeId, Machine<P>>,
    queue: BTreeMap<(Time, u64), Happening<P, A>>,
    happenings: u64,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(NodeId, NodeId)>,
    last_arrival: BTreeMap<(NodeId, NodeId), Time>,
    connections: u64,
    pub(super) messages: u64,
    pub(super) told: VecDeque<(NodeId, Event)>,
}

impl<P: Member, A> Stage<P, A> {
    pub(super) fn new(level: super::Level, members: u64, seed: u64, conditions: Conditions) -> Stage<P, A> {
        let mut stage = Stage {
            level,
            seed,
            now: Time::ZERO,
            rng: Rng::new(seed),
            conditions,
            machines: BTreeMap::new(),
            queue: BTreeMap::new(),
            happenings: 0,
            cut: BTreeSet::new(),
            last_arrival: BTreeMap::new(),
            connections: 0,
            messages: 0,
            told: VecDeque::new(),
        };
        (1..=members).for_each(|id| stage.add(NodeId(id), false));
        (1..=members).for_each(|id| stage.start(NodeId(id)));
        stage
    }

    /// A machine with a blank disk. It is not started.
    pub(super) fn add(&mut self, id: NodeId, joins: bool) {
        let machine = Machine {
            process: None,
            disk: Vec::new(),
            held: VecDeque::new(),
            life: 0,
            joins,
            wall_at_zero: TODAY,
            disk_free: Time::ZERO,
            slow_until: Time::ZERO,
        };
        self.machines.insert(id, machine);
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    pub(super) fn process(&self, id: NodeId) -> Option<&P> {
        self.machines.get(&id)?.process.as_ref()
    }

    pub(super) fn alarm(&mut self, at: Time, alarm: A) {
        self.schedule(at, Happening::Alarm(alarm));
    }

    fn schedule(&mut self, at: Time, happening: Happening<P, A>) {
        self.happenings += 1;
        self.queue.insert((at, self.happenings), happening);
    }

    pub(super) fn next(&mut self, until: Time) -> Next<A> {
        let next = self.queue.keys().next().map(|(at, _)| *at);
        let deadlines =
            self.machines.iter().filter_map(|(id, m)| Some((m.process.as_ref()?.deadline()?, *id)));
        match (next, deadlines.min()) {
            (next, Some((due, id))) if due <= until && next.is_none_or(|at| due < at) => {
                self.now = self.now.max(due);
                self.step(id, Input::Timeout);
                Next::Moved
            }
            (Some(at), _) if at <= until => {
                let (_, happening) = self.queue.pop_first().expect("just seen");
                self.now = self.now.max(at);
                match happening {
                    Happening::Alarm(alarm) => return Next::Alarm(alarm),
                    Happening::Synced { id, life } => self.synced(id, life),
                    Happening::Arrive { from, to, message } => {
                        // A cut loses what is on its way, too.
                        if !self.cut.contains(&(from, to)) {
                            self.step(to, Input::Message { from, message });
                        }
                    }
                }
                Next::Moved
            }
            _ => {
                self.now = self.now.max(until);
                Next::Quiet
            }
        }
    }

    pub(super) fn step(&mut self, id: NodeId, input: Input<P>) {
        let now = self.now;
        let process = self.machines.get_mut(&id).and_then(|machine| machine.process.as_mut());
        let Some(process) = process else { return };
        let mut out = Effects::new();
        process.step(now, input, &mut out);
        self.take(id, out);
    }

    fn take(&mut self, id: NodeId, out: Effects<P>) {
        if !out.records.is_empty() {
            let (now, sync) = (self.now, self.conditions.sync);
            let machine = self.machines.get_mut(&id).expect("it took a step");
            machine.held.push_back(Held::Records(out.records));
            let factor = if now < machine.slow_until { SLOW } else { 1 };
            machine.disk_free = machine.disk_free.max(now) + sync * factor;
            let (at, life) = (machine.disk_free, machine.life);
            self.schedule(at, Happening::Synced { id, life });
        }
        for send in out.sends {
            self.release(id, send.release, Held::Send(send.to, send.message));
        }
        for emit in out.events {
            self.release(id, emit.release, Held::Event(emit.event));
        }
    }

    fn release(&mut self, id: NodeId, release: Release, effect: Held<P>) {
        let machine = self.machines.get_mut(&id).expect("it took a step");
        match release == Release::Early || machine.held.is_empty() {
            true => self.let_out(id, effect),
            false => machine.held.push_back(effect),
        }
    }

    fn let_out(&mut self, id: NodeId, effect: Held<P>) {
        match effect {
            Held::Records(records) => {
                self.machines.get_mut(&id).expect("it is there").disk.extend(records);
            }
            Held::Event(event) => self.told.push_back((id, event)),
            Held::Send(to, message) => self.send(id, to, message),
        }
    }

    fn synced(&mut self, id: NodeId, life: u64) {
        let mut is_first = true;
        loop {
            let machine = self.machines.get_mut(&id).expect("it synced");
            let is_due = match machine.held.front() {
                Some(Held::Records(_)) => std::mem::take(&mut is_first),
                other => other.is_some(),
            };
            if machine.life != life || !is_due {
                return;
            }
            let effect = machine.held.pop_front().expect("just seen");
            self.let_out(id, effect);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: P::Message) {
        let Conditions { latency: (fast, slow), lost, repeated, is_disordered, .. } = self.conditions;
        if from == to {
            return self.schedule(self.now, Happening::Arrive { from, to, message });
        }
        self.messages += 1;
        // As on a real wire.
        let message = P::Message::from_bytes(message.to_bytes()).expect("its own encoding");
        let times = 1 + u64::from(self.rng.chance(repeated, 1_000));
        for _ in 0..times {
            let delay =
                Duration::from_nanos(self.rng.between(fast.as_nanos() as u64, slow.as_nanos() as u64));
            let last = self.last_arrival.entry((from, to)).or_default();
            let mut at = self.now + delay;
            if !is_disordered {
                at = at.max(*last);
                *last = at;
            }
            if self.cut.contains(&(from, to)) || self.rng.chance(lost, 1_000) {
                continue;
            }
            self.schedule(at, Happening::Arrive { from, to, message: message.clone() });
        }
    }

    pub(super) fn crash(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(&id).filter(|machine| machine.process.is_some()) else {
            return;
        };
        machine.process = None;
        machine.held.clear();
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let founders =
            self.machines.iter().filter(|(_, machine)| !machine.joins).map(|(id, _)| *id).collect();
        let (level, now) = (self.level, self.now);
        let seed = self.seed.wrapping_mul(1_000_003) ^ (id.0 << 32);
        let Some(machine) = self.machines.get_mut(&id).filter(|machine| machine.process.is_none()) else {
            return;
        };
        machine.life += 1;
        let (life, wall_at_zero) = (machine.life, machine.wall_at_zero);
        let config = P::configured(Start { level, id, founders, life, seed: seed ^ life, wall_at_zero });
        let mut records = machine.disk.clone().into_iter();
        let from = match (life, machine.joins) {
            (1, false) => Recovery::First,
            (1, true) => Recovery::Join,
            _ => Recovery::Resume { records: &mut records },
        };
        let mut out = Effects::new();
        machine.process = Some(P::recover(config, from, (), now, &mut out));
        self.take(id, out);
    }

    /// In this direction nothing arrives any more. Both ends notice when it is so in both.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        if self.cut.insert((from, to)) && self.cut.contains(&(to, from)) {
            self.step(from, Input::LinkDown { peer: to });
            self.step(to, Input::LinkDown { peer: from });
        }
    }

    /// All links are whole again.
    pub(super) fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cut) {
            if from < to {
                self.connections += 1;
                let session = LinkSession(self.connections);
                self.step(from, Input::LinkUp { peer: to, session });
                self.step(to, Input::LinkUp { peer: from, session });
            }
        }
    }

    /// The disk is slow for so long.
    pub(super) fn slow_disk(&mut self, id: NodeId, span: Duration) {
        let until = self.now + span;
        self.machines.get_mut(&id).into_iter().for_each(|machine| machine.slow_until = until);
    }

    /// The wall clock is set, relative to the true time.
    pub(super) fn set_clock(&mut self, id: NodeId, ahead: i64) {
        let wall_at_zero = TODAY.saturating_add_signed(ahead);
        self.machines.get_mut(&id).into_iter().for_each(|machine| machine.wall_at_zero = wall_at_zero);
        let wall_at_zero = synod_protocols::weak::WallTime(wall_at_zero);
        self.step(id, Input::Request(Request::SetClock { wall_at_zero }));
    }

    /// Whether all that are up and count have nothing more to tell each other.
    pub(super) fn is_at_rest(&self) -> bool {
        let mut all =
            self.machines.values().filter_map(|machine| machine.process.as_ref()).filter(|p| p.counts());
        all.next().is_none_or(|first| all.all(|other| first.agrees_with(other)))
    }
}

/// What all wall clocks read at first, in nanoseconds: some day.
const TODAY: u64 = 1_000_000_000_000_000;

/// How much longer a sync takes on a slow disk.
const SLOW: u32 = 50;
