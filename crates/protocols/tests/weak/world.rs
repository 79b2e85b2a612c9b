//! Members 1 and so on, each with a disk and a clock. Messages stay in flight until somebody delivers, repeats or drops them.
//! Nothing happens unasked.
//!
//! Every update that is durable somewhere is remembered, so that two of one name, or a register that does not show its latest
//! write at the end, are noticed.

use super::subject::object::Value;
use super::subject::{
    Config, Content, Dot, Event, Kind, Message, Name, Record, Request, Standing, Update, WallTime,
    WeakReplica,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;
use synod_protocols::log::Ticket;
use synod_protocols::types::{Incarnation, LinkSession, NodeId, Time};
use synod_protocols::{Describe, Effects, Input, Recovery, Release, Wire};

/// All wall clocks read this at first: some day.
pub const TODAY: WallTime = WallTime(1_000_000_000_000_000);

pub struct World<P: WeakReplica> {
    pub now: Time,
    pub members: BTreeMap<NodeId, Member<P>>,
    pub flight: Vec<(NodeId, NodeId, Message)>,
    /// Pairs of members without a connection.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Every update that is durable somewhere.
    pub updates: BTreeMap<Dot, Update>,
    pub answers: BTreeMap<Ticket, Event>,
    /// Members that were told of a clock that is ahead.
    pub warned: BTreeSet<NodeId>,
    pub trace: Option<String>,
    pub configure: fn(&mut Config),
    tickets: u64,
    connections: u64,
}

pub struct Member<P: WeakReplica> {
    pub process: Option<P>,
    pub disk: Vec<Record>,
    /// Whether effects wait for [`World::sync`].
    pub is_slow: bool,
    pub wall_at_zero: WallTime,
    held: VecDeque<Held>,
    lives: u64,
    joins: bool,
}

enum Held {
    Records(Vec<Record>),
    Send(NodeId, Message),
    Event(Event),
}

impl<P: WeakReplica> World<P> {
    pub fn new(members: u64, configure: fn(&mut Config)) -> World<P> {
        let mut world = World {
            now: Time::ZERO,
            members: BTreeMap::new(),
            flight: Vec::new(),
            cut: BTreeSet::new(),
            updates: BTreeMap::new(),
            answers: BTreeMap::new(),
            warned: BTreeSet::new(),
            trace: None,
            configure,
            tickets: 0,
            connections: 0,
        };
        let ids: Vec<NodeId> = (1..=members).map(NodeId).collect();
        ids.iter().for_each(|id| world.add(*id, false));
        ids.into_iter().for_each(|id| world.start(id));
        world
    }

    /// A machine with a blank disk. It is not started.
    pub fn add(&mut self, id: NodeId, joins: bool) {
        let member = Member {
            process: None,
            disk: Vec::new(),
            is_slow: false,
            wall_at_zero: TODAY,
            held: VecDeque::new(),
            lives: 0,
            joins,
        };
        self.members.insert(id, member);
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>14?} {}", self.now, line());
        }
    }

    pub fn process(&self, id: NodeId) -> Option<&P> {
        self.members.get(&id)?.process.as_ref()
    }

    pub fn start(&mut self, id: NodeId) {
        self.note(|| format!("{id} starts"));
        let now = self.now;
        let founders: Vec<NodeId> =
            self.members.iter().filter(|(_, member)| !member.joins).map(|(id, _)| *id).collect();
        let member = self.members.get_mut(&id).expect("it is there");
        member.lives += 1;
        let mut config = Config::new(id, founders);
        config.incarnation = Incarnation(member.lives);
        config.wall_at_zero = member.wall_at_zero;
        (self.configure)(&mut config);
        // As from a real disk: the records are read back from bytes.
        let read = |record: &Record| Record::from_bytes(record.to_bytes()).expect("its own encoding");
        let disk: Vec<Record> = member.disk.iter().map(read).collect();
        let mut records = disk.into_iter();
        let from = match (member.lives, member.joins) {
            (1, false) => Recovery::First,
            (1, true) => Recovery::Join,
            _ => Recovery::Resume { records: &mut records },
        };
        let mut out = Effects::new();
        member.process = Some(P::recover(config, from, (), now, &mut out));
        self.take(id, out);
    }

    /// It starts with this record and those behind it unreadable.
    pub fn start_damaged(&mut self, id: NodeId, lost: usize) {
        let member = self.members.get_mut(&id).expect("it is there");
        member.lives += 1;
        let mut records =
            member.disk.clone().into_iter().enumerate().map(|(at, record)| (at != lost).then_some(record));
        let from = Recovery::Damaged { records: &mut records };
        let mut out = Effects::new();
        let config = Config::new(id, vec![id]);
        member.process = Some(P::recover(config, from, (), self.now, &mut out));
        self.take(id, out);
    }

    /// It stops at once. Of the steps whose records wait for a sync, the first `durable` happen to be on disk already.
    pub fn crash(&mut self, id: NodeId, durable: usize) {
        self.note(|| format!("{id} crashes"));
        let Some(member) = self.members.get_mut(&id) else { return };
        member.process = None;
        let steps: Vec<Vec<Record>> = std::mem::take(&mut member.held)
            .into_iter()
            .filter_map(|held| if let Held::Records(records) = held { Some(records) } else { None })
            .take(durable)
            .collect();
        steps.into_iter().for_each(|records| self.write(id, records));
    }

    pub fn unsynced(&self, id: NodeId) -> usize {
        self.members[&id].held.iter().filter(|held| matches!(held, Held::Records(_))).count()
    }

    /// So many steps' records are durable, and what waited for them leaves.
    pub fn sync(&mut self, id: NodeId, mut steps: usize) {
        loop {
            let Some(member) = self.members.get_mut(&id) else { return };
            match member.held.front() {
                Some(Held::Records(_)) if steps == 0 => return,
                None => return,
                Some(_) => {}
            }
            match member.held.pop_front().expect("just seen") {
                Held::Records(records) => {
                    steps -= 1;
                    self.write(id, records);
                }
                Held::Send(to, message) => self.send(id, to, message),
                Held::Event(event) => self.hear(id, event),
            }
        }
    }

    fn write(&mut self, id: NodeId, records: Vec<Record>) {
        for record in &records {
            if let Record::Shown { update } = record {
                let first = self.updates.entry(update.dot).or_insert_with(|| update.clone());
                assert!(first == update, "{} names two updates: {first:?} and {update:?}", update.dot);
            }
            // What is in the one record is all that there is.
            if matches!(record, Record::Everything { .. }) {
                self.members.get_mut(&id).expect("it is there").disk.clear();
            }
            self.members.get_mut(&id).expect("it is there").disk.push(record.clone());
        }
    }

    fn take(&mut self, id: NodeId, out: Effects<P>) {
        let is_slow = self.members[&id].is_slow;
        // What is early does not wait.
        let is_early = |release: &Release| *release == Release::Early;
        let (early, waiting): (Vec<_>, Vec<_>) =
            out.events.into_iter().partition(|emit| is_early(&emit.release));
        early.into_iter().for_each(|emit| self.hear(id, emit.event));
        let (early, sends): (Vec<_>, Vec<_>) =
            out.sends.into_iter().partition(|send| is_early(&send.release));
        early.into_iter().for_each(|send| self.send(id, send.to, send.message));
        let held = &mut self.members.get_mut(&id).expect("it is there").held;
        if !out.records.is_empty() {
            held.push_back(Held::Records(out.records));
        }
        held.extend(sends.into_iter().map(|send| Held::Send(send.to, send.message)));
        held.extend(waiting.into_iter().map(|emit| Held::Event(emit.event)));
        self.sync(id, if is_slow { 0 } else { usize::MAX });
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.note(|| format!("{from} -> {to} {} {}", message.name(), message.detail()));
        if !self.is_cut(from, to) {
            self.flight.push((from, to, message));
        }
    }

    fn hear(&mut self, id: NodeId, event: Event) {
        self.note(|| format!("{id} says {event:?}"));
        match &event {
            Event::Written { ticket, .. }
            | Event::Read { ticket, .. }
            | Event::Changed { ticket }
            | Event::Refused { ticket, .. } => {
                let before = self.answers.insert(*ticket, event.clone());
                assert!(before.is_none(), "{ticket:?} is answered twice");
            }
            Event::ClockAhead { .. } => drop(self.warned.insert(id)),
            Event::Members { .. } | Event::Compacted => {}
        }
    }

    pub fn step(&mut self, id: NodeId, input: Input<P>) {
        let now = self.now;
        let Some(process) = self.members.get_mut(&id).and_then(|member| member.process.as_mut()) else {
            return;
        };
        let mut out = Effects::new();
        process.step(now, input, &mut out);
        self.take(id, out);
    }

    pub fn ask(&mut self, id: NodeId, request: impl FnOnce(Ticket) -> Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.step(id, Input::Request(request(ticket)));
        ticket
    }

    pub fn set_clock(&mut self, id: NodeId, wall_at_zero: WallTime) {
        self.members.get_mut(&id).expect("it is there").wall_at_zero = wall_at_zero;
        self.step(id, Input::Request(Request::SetClock { wall_at_zero }));
    }

    pub fn is_cut(&self, one: NodeId, other: NodeId) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    /// The connection between two is lost, and what was on it.
    pub fn down(&mut self, one: NodeId, other: NodeId) {
        if self.cut.insert((one.min(other), one.max(other))) {
            self.note(|| format!("no connection between {one} and {other}"));
            self.flight.retain(|(a, b, _)| (*a.min(b), *a.max(b)) != (one.min(other), one.max(other)));
            self.step(one, Input::LinkDown { peer: other });
            self.step(other, Input::LinkDown { peer: one });
        }
    }

    pub fn up(&mut self, one: NodeId, other: NodeId) {
        if self.cut.remove(&(one.min(other), one.max(other))) {
            self.note(|| format!("a connection between {one} and {other}"));
            self.connections += 1;
            let session = LinkSession(self.connections);
            self.step(one, Input::LinkUp { peer: other, session });
            self.step(other, Input::LinkUp { peer: one, session });
        }
    }

    pub fn deliver(&mut self, position: usize) {
        let (from, to, message) = self.flight.remove(position);
        self.arrive(from, to, message);
    }

    pub fn arrive(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.note(|| format!("{from} => {to} {} {}", message.name(), message.detail()));
        let message = Message::from_bytes(message.to_bytes()).expect("its own encoding");
        self.step(to, Input::Message { from, message });
    }

    pub fn run(&mut self) {
        while !self.flight.is_empty() {
            self.deliver(0);
        }
    }

    /// Its deadline comes. False if it waits for nothing.
    pub fn timeout(&mut self, id: NodeId) -> bool {
        let Some(due) = self.process(id).and_then(|process| process.deadline()) else { return false };
        self.now = self.now.max(due);
        self.step(id, Input::Timeout);
        true
    }

    /// Time goes by, with everything that is due and all messages.
    pub fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            self.run();
            let due = |(id, member): (&NodeId, &Member<P>)| Some((member.process.as_ref()?.deadline()?, *id));
            match self.members.iter().filter_map(due).min() {
                Some((due, id)) if due <= until => drop(self.timeout(id)),
                _ => break,
            }
        }
        self.now = until;
    }

    pub fn content(&self, id: NodeId, kind: Kind, key: &str) -> Option<Content> {
        let name = Name { kind, key: Bytes::copy_from_slice(key.as_bytes()) };
        Some(self.process(id)?.replica().store().read(&name))
    }

    /// At rest: all members show the same, and every register the latest of all writes that survived.
    pub fn check_rest(&self) {
        let ids = self.members.keys().filter(|id| self.process(**id).is_some());
        let is_member = |id: &&NodeId| *self.process(**id).unwrap().replica().standing() == Standing::Member;
        let processes: Vec<_> =
            ids.filter(is_member).map(|id| (id, self.process(*id).unwrap().replica())).collect();
        let Some((first, reference)) = processes.first() else { return };
        let mut latest = BTreeMap::new();
        for update in self.updates.values().filter(|update| reference.seen().contains(update.dot)) {
            for delta in &update.deltas {
                let newest = latest.entry(&delta.object).or_insert((update.stamp, &delta.value));
                if update.stamp > newest.0 {
                    *newest = (update.stamp, &delta.value);
                }
            }
        }
        for (id, replica) in &processes {
            assert_eq!(replica.seen(), reference.seen(), "{id} and {first} have seen something else");
            for (name, (_, value)) in &latest {
                let found = replica.store().read(name);
                assert_eq!(found, reference.store().read(name), "{id} and {first} differ in {name:?}");
                if name.kind == Kind::Register {
                    let wanted = match value {
                        Some(Value::Bytes { bytes }) => Some(bytes.clone()),
                        _ => None,
                    };
                    assert_eq!(
                        found,
                        Content::Value(wanted),
                        "{id} does not show the latest write of {name:?}"
                    );
                }
            }
        }
    }
}
