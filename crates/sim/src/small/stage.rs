//! Machines with a disk and a clock each, and the network between them, in virtual time.

use super::host::{Effect, Happens, Machine};
use super::network::{Network, Weather};
use super::seen::{Happened, Message, Seen};
use crate::clock::Clock;
use crate::units::Factor;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use synod_protocols::types::{LinkSession, NodeId, Time};
use synod_protocols::{Rng, StorageFault};

/// How much longer a sync takes on a slow disk.
const SLOW: u32 = 50;

/// One machine, as the stage has it.
struct Seat<M: Machine + ?Sized> {
    machine: Box<M>,
    clock: Clock,
    life: u64,
    /// What waits for a sync; none stands for one step's records.
    held: VecDeque<Option<Effect<M::Event>>>,
    /// Until when its disk is busy.
    disk_free: Time,
    slow_until: Time,
    /// While its disk is full: how many syncs wait for room.
    full: Option<u64>,
    /// It finds out by itself that its disk is full, so that nothing waits.
    finds_out: bool,
    /// Its next sync fails.
    is_failing: bool,
    /// While it is stopped, as under SIGSTOP: what it will find when it goes on.
    missed: Option<Vec<Waiting>>,
    steps: u64,
}

/// What a machine has to deal with.
#[derive(Clone, Debug)]
enum Waiting {
    Arrival(Message, Bytes),
    Synced { life: u64 },
    Happens(Happens),
}

enum Happening<A> {
    To(NodeId, Waiting),
    /// A message that never arrives would have, now.
    Lost(Message, &'static str),
    Alarm(A),
}

/// What [`Stage::next`] came to.
pub(crate) enum Next<A> {
    /// Something happened among the machines.
    Moved,
    /// The time of this has come.
    Alarm(A),
    /// Nothing until then.
    Quiet,
}

/// The machines `M`, what their world has planned for a time (`A`), and what it notes of what happens (`N`).
pub(crate) struct Stage<M: Machine + ?Sized, A, N> {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    /// How long a sync takes.
    sync: Duration,
    network: Network,
    seats: BTreeMap<NodeId, Seat<M>>,
    queue: BTreeMap<(Time, u64), Happening<A>>,
    happenings: u64,
    connections: u64,
    /// The number of the last message, those to oneself included.
    numbered: u64,
    /// Messages sent.
    pub(crate) messages: u64,
    /// Faults of machines, links and disks that struck.
    blows: u64,
    /// What machines have told, for the world to take.
    pub(crate) told: VecDeque<(NodeId, M::Event)>,
    /// What happened, if somebody watches.
    seen: Option<Seen<N>>,
}

impl<M: Machine + ?Sized, A, N> Stage<M, A, N> {
    pub(crate) fn new(rng: Rng, weather: Weather, sync: Duration, is_watched: bool) -> Stage<M, A, N> {
        Stage {
            now: Time::ZERO,
            rng,
            sync,
            network: Network::new(weather),
            seats: BTreeMap::new(),
            queue: BTreeMap::new(),
            happenings: 0,
            connections: 0,
            numbered: 0,
            messages: 0,
            blows: 0,
            told: VecDeque::new(),
            seen: is_watched.then(Vec::new),
        }
    }

    /// A machine, which is not started.
    pub(crate) fn add(&mut self, id: NodeId, mut machine: Box<M>) {
        if self.seen.is_some() {
            machine.watch();
        }
        let seat = Seat {
            machine,
            clock: Clock::new(0),
            life: 0,
            held: VecDeque::new(),
            disk_free: Time::ZERO,
            slow_until: Time::ZERO,
            full: None,
            finds_out: false,
            is_failing: false,
            missed: None,
            steps: 0,
        };
        self.seats.insert(id, seat);
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.seats.keys().copied().collect()
    }

    pub(crate) fn machines(&self) -> impl Iterator<Item = (NodeId, &M)> {
        self.seats.iter().map(|(id, seat)| (*id, &*seat.machine))
    }

    pub(crate) fn machine(&self, id: NodeId) -> Option<&M> {
        Some(&*self.seats.get(&id)?.machine)
    }

    pub(crate) fn machine_mut(&mut self, id: NodeId) -> Option<&mut M> {
        Some(&mut *self.seats.get_mut(&id)?.machine)
    }

    /// Whether it runs, and is not stopped.
    pub(crate) fn is_there(&self, id: NodeId) -> bool {
        self.seats.get(&id).is_some_and(|seat| seat.machine.is_up() && seat.missed.is_none())
    }

    /// Whether it runs, though it may be stopped.
    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.seats.get(&id).is_some_and(|seat| seat.machine.is_up())
    }

    /// How often something has come to it: messages, the ends of its syncs, timeouts, requests.
    pub(crate) fn steps(&self, id: NodeId) -> u64 {
        self.seats.get(&id).map_or(0, |seat| seat.steps)
    }

    /// How often something went wrong: blows, and messages that were harmed.
    pub(crate) fn faults(&self) -> u64 {
        self.blows + self.network.harmed
    }

    pub(crate) fn weather(&mut self) -> &mut Weather {
        &mut self.network.weather
    }

    pub(crate) fn alarm(&mut self, at: Time, alarm: A) {
        self.schedule(at, Happening::Alarm(alarm));
    }

    fn schedule(&mut self, at: Time, happening: Happening<A>) {
        self.happenings += 1;
        self.queue.insert((at, self.happenings), happening);
    }
}

/// What happens.
impl<M: Machine + ?Sized, A, N> Stage<M, A, N> {
    /// The next thing happens, if it is due until then.
    pub(crate) fn next(&mut self, until: Time) -> Next<A> {
        let next = self.queue.keys().next().map(|(at, _)| *at);
        let deadline = |(id, seat): (&NodeId, &Seat<M>)| {
            let deadline = seat.machine.deadline().filter(|_| seat.missed.is_none())?;
            Some((Time(seat.clock.when(deadline)), *id))
        };
        match (next, self.seats.iter().filter_map(deadline).min()) {
            (next, Some((due, id))) if due <= until && next.is_none_or(|at| due < at) => {
                self.now = self.now.max(due);
                self.note(|| Happened::Timeout(id));
                self.step(id, Happens::Timeout);
                Next::Moved
            }
            (Some(at), _) if at <= until => {
                let (_, happening) = self.queue.pop_first().expect("just seen");
                self.now = self.now.max(at);
                match happening {
                    Happening::Alarm(alarm) => return Next::Alarm(alarm),
                    Happening::Lost(message, why) => self.note(|| Happened::Lost(message, why)),
                    Happening::To(id, waiting) => self.meet(id, waiting),
                }
                Next::Moved
            }
            _ => {
                self.now = self.now.max(until);
                Next::Quiet
            }
        }
    }

    /// A machine deals with something, or finds it when it goes on.
    fn meet(&mut self, id: NodeId, waiting: Waiting) {
        if let Some(missed) = self.seats.get_mut(&id).and_then(|seat| seat.missed.as_mut()) {
            return missed.push(waiting);
        }
        match waiting {
            Waiting::Synced { life } => self.synced(id, life),
            Waiting::Happens(happens) => self.with(id, |machine, now, out| machine.step(now, happens, out)),
            Waiting::Arrival(message, bytes) => {
                let from = message.from;
                let is_up = self.seats.get(&id).is_some_and(|seat| seat.machine.is_up());
                match self.network.is_cut(from, id) {
                    // A cut loses what is on its way, too.
                    true => self.note(|| Happened::Lost(message, "cut")),
                    false if !is_up => self.note(|| Happened::Lost(message, "down")),
                    false => {
                        self.note(|| Happened::Arrived(message));
                        let happens = Happens::Message { from, bytes };
                        self.with(id, |machine, now, out| machine.step(now, happens, out));
                    }
                }
            }
        }
    }

    fn step(&mut self, id: NodeId, happens: Happens) {
        self.meet(id, Waiting::Happens(happens));
    }

    /// A machine takes a step by its own clock. What it wants done leaves in order, and not before what it rests on
    /// is durable.
    pub(crate) fn with(&mut self, id: NodeId, step: impl FnOnce(&mut M, Time, &mut Vec<Effect<M::Event>>)) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.steps += 1;
        let mut out = Vec::new();
        step(&mut seat.machine, seat.clock.at(self.now.0), &mut out);
        self.carry_out(id, out);
    }

    fn carry_out(&mut self, id: NodeId, effects: Vec<Effect<M::Event>>) {
        for effect in effects {
            let is_early = match effect {
                Effect::Sync(records) => {
                    self.begin_sync(id, records);
                    continue;
                }
                Effect::Send { is_early, .. } | Effect::Tell { is_early, .. } => is_early,
            };
            let seat = self.seats.get_mut(&id).expect("it took a step");
            match is_early || seat.held.is_empty() {
                true => self.let_out(id, effect),
                false => seat.held.push_back(Some(effect)),
            }
        }
    }

    fn let_out(&mut self, id: NodeId, effect: Effect<M::Event>) {
        match effect {
            Effect::Send { to, bytes, name, detail, is_early } => {
                self.send((id, to), bytes, (name, detail), is_early);
            }
            Effect::Tell { event, .. } => self.told.push_back((id, event)),
            Effect::Sync(_) => unreachable!("a sync waits for nothing"),
        }
    }

    fn send(
        &mut self,
        (from, to): (NodeId, NodeId),
        bytes: Bytes,
        (name, detail): (&'static str, String),
        is_early: bool,
    ) {
        let now = self.now;
        self.numbered += 1;
        let (number, size) = (self.numbered, bytes.len() as u64);
        let message =
            Message { number, from, to, name, detail, bytes: size, is_early, at: now, copy_of: None };
        if from == to {
            return self.schedule(now, Happening::To(to, Waiting::Arrival(message, bytes)));
        }
        self.messages += 1;
        for (place, copy) in self.network.carry(now, from, to, &mut self.rng).into_iter().enumerate() {
            self.numbered += u64::from(place > 0);
            let copy_of = (place > 0).then_some(number);
            let message = Message { number: self.numbered, at: copy.at, copy_of, ..message.clone() };
            self.note(|| Happened::Sent(message.clone()));
            let happening = match copy.doom {
                Some(why) => Happening::Lost(message, why),
                None => Happening::To(to, Waiting::Arrival(message, bytes.clone())),
            };
            self.schedule(copy.at, happening);
        }
    }
}

/// Disks.
impl<M: Machine + ?Sized, A, N> Stage<M, A, N> {
    fn begin_sync(&mut self, id: NodeId, records: Vec<(&'static str, String)>) {
        for (name, detail) in records {
            self.note(|| Happened::Record { id, name, detail });
        }
        let seat = self.seats.get_mut(&id).expect("it took a step");
        seat.held.push_back(None);
        match &mut seat.full {
            Some(waiting) if !seat.finds_out => {
                *waiting += 1;
                // Said once, when it is first found out.
                if *waiting == 1 {
                    let full = Waiting::Happens(Happens::Storage(StorageFault::Full));
                    self.schedule(self.now, Happening::To(id, full));
                }
            }
            _ => self.end_sync_later(id),
        }
    }

    fn end_sync_later(&mut self, id: NodeId) {
        let seat = self.seats.get_mut(&id).expect("it took a step");
        let factor = if self.now < seat.slow_until { SLOW } else { 1 };
        seat.disk_free = seat.disk_free.max(self.now) + self.sync * factor;
        let (at, life) = (seat.disk_free, seat.life);
        self.schedule(at, Happening::To(id, Waiting::Synced { life }));
    }

    fn synced(&mut self, id: NodeId, life: u64) {
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.life == life) else { return };
        if std::mem::take(&mut seat.is_failing) {
            return self.sync_failed(id);
        }
        seat.steps += 1;
        let mut out = Vec::new();
        seat.machine.synced(seat.clock.at(self.now.0), &mut out);
        assert!(seat.held.pop_front().is_some_and(|first| first.is_none()), "syncs end in order");
        self.note(|| Happened::Synced(id));
        loop {
            let seat = self.seats.get_mut(&id).expect("it has just synced");
            if !seat.held.front().is_some_and(Option::is_some) {
                break;
            }
            let effect = seat.held.pop_front().flatten();
            effect.into_iter().for_each(|effect| self.let_out(id, effect));
        }
        self.carry_out(id, out);
    }

    /// What the sync covered is unknown, so the machine stops.
    fn sync_failed(&mut self, id: NodeId) {
        self.fault("disk", id, |id| format!("a sync of the disk of {id} fails"));
        self.with(id, |machine, now, out| machine.sync_failed(now, out));
        self.crash(id, true);
    }

    /// The disk is slow for so long.
    pub(crate) fn slow_disk(&mut self, id: NodeId, span: Duration) {
        self.fault("disk", id, |id| format!("the disk of {id} is slow for {span:?}"));
        let until = self.now + span;
        self.seats.get_mut(&id).into_iter().for_each(|seat| seat.slow_until = until);
    }

    /// The disk does nothing for so long.
    pub(crate) fn stall_disk(&mut self, id: NodeId, span: Duration) {
        self.fault("disk", id, |id| format!("the disk of {id} stalls for {span:?}"));
        let until = self.now + span;
        self.seats.get_mut(&id).into_iter().for_each(|seat| seat.disk_free = seat.disk_free.max(until));
    }

    /// There is no room for more records.
    pub(crate) fn fill_disk(&mut self, id: NodeId) {
        self.fault("disk", id, |id| format!("the disk of {id} is full"));
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.finds_out = seat.machine.fill(true);
            seat.full = seat.full.or(Some(0));
        }
    }

    /// There is room again: what waited for it is written.
    pub(crate) fn clear_disk(&mut self, id: NodeId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let Some(waiting) = seat.full.take() else { return };
        seat.machine.fill(false);
        self.end("disk", id, |id| format!("the disk of {id} has room again"));
        (0..waiting).for_each(|_| self.end_sync_later(id));
        if waiting > 0 {
            self.step(id, Happens::Storage(StorageFault::Cleared));
        }
    }

    /// The next sync fails, if there is one before the machine is started.
    pub(crate) fn fail_sync(&mut self, id: NodeId) {
        self.seats.get_mut(&id).into_iter().for_each(|seat| seat.is_failing = true);
    }

    /// Something on the disk cannot be read any more; its machine learns of it when it starts. False if there is
    /// nothing.
    pub(crate) fn rot(&mut self, id: NodeId) -> bool {
        self.fault("disk", id, |id| format!("something on the disk of {id} rots"));
        self.seats.get_mut(&id).is_some_and(|seat| seat.machine.rot(&mut self.rng))
    }

    /// Until the machine crashes its disk says that it has synced, and has not. False if there is no such disk.
    pub(crate) fn lie(&mut self, id: NodeId) -> bool {
        self.fault("disk", id, |id| format!("the disk of {id} syncs no more, and says that it does"));
        self.seats.get_mut(&id).is_some_and(|seat| seat.machine.lie())
    }

    /// All that was on the disk of a machine, which is down, is gone. False if there was nothing.
    pub(crate) fn wipe(&mut self, id: NodeId) -> bool {
        self.fault("disk", id, |id| format!("the disk of {id} is lost"));
        self.seats.get_mut(&id).is_some_and(|seat| seat.machine.wipe())
    }
}

/// Machines and links.
impl<M: Machine + ?Sized, A, N> Stage<M, A, N> {
    pub(crate) fn start(&mut self, id: NodeId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.is_failing = false;
        if !seat.machine.is_up() {
            self.end("restart", id, |id| format!("{id} starts"));
            self.with(id, |machine, now, out| machine.start(now, out));
        }
    }

    /// What was not synced is lost; of a torn disk some of it is kept, as chance has it.
    pub(crate) fn crash(&mut self, id: NodeId, is_torn: bool) {
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.machine.is_up()) else { return };
        let kept = seat.machine.crash(is_torn, &mut self.rng);
        seat.held.clear();
        seat.life += 1;
        seat.missed = None;
        seat.full = seat.full.map(|_| 0);
        seat.is_failing = false;
        self.fault("crash", id, |id| match kept {
            Some(kept) => format!("{id} crashes, and {kept}"),
            None => format!("{id} crashes"),
        });
    }

    /// It stops, as under SIGSTOP.
    pub(crate) fn pause(&mut self, id: NodeId) {
        if self.is_there(id) {
            self.fault("pause", id, |id| format!("{id} is stopped"));
            self.seats.get_mut(&id).into_iter().for_each(|seat| seat.missed = Some(Vec::new()));
        }
    }

    /// It goes on, and finds what has come meanwhile.
    pub(crate) fn resume(&mut self, id: NodeId) {
        let Some(missed) = self.seats.get_mut(&id).and_then(|seat| seat.missed.take()) else { return };
        self.end("resume", id, |id| format!("{id} goes on"));
        missed.into_iter().for_each(|waiting| self.meet(id, waiting));
    }

    /// Its clock runs at another rate from now on.
    pub(crate) fn set_rate(&mut self, id: NodeId, rate: Factor) {
        self.fault("clock", id, |id| format!("the clock of {id} runs at {rate} times its rate"));
        let now = self.now.0;
        self.seats.get_mut(&id).into_iter().for_each(|seat| seat.clock.set_rate(now, rate));
    }

    /// In this direction nothing arrives any more. Both ends notice when it is so in both.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        if from == to || !self.network.cut(from, to) {
            return;
        }
        self.blows += 1;
        self.between("cut", Some(from), Some(to), || format!("nothing gets from {from} to {to}"));
        if self.network.is_cut(to, from) {
            self.link(from, to, None);
            self.link(to, from, None);
        }
    }

    /// Nothing gets to it or from it.
    pub(crate) fn isolate(&mut self, id: NodeId) {
        for other in self.ids() {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// All links are whole again.
    pub(crate) fn heal(&mut self) {
        let healed = self.network.heal();
        if !healed.is_empty() {
            self.between("heal", None, None, || "the network is whole again".to_owned());
        }
        for (from, to) in healed {
            if from < to {
                self.connections += 1;
                let session = LinkSession(self.connections);
                self.link(from, to, Some(session));
                self.link(to, from, Some(session));
            }
        }
    }

    fn link(&mut self, id: NodeId, peer: NodeId, up: Option<LinkSession>) {
        self.note(|| Happened::Link { id, peer, is_up: up.is_some() });
        self.step(
            id,
            match up {
                Some(session) => Happens::LinkUp { peer, session },
                None => Happens::LinkDown { peer },
            },
        );
    }
}

/// Who watches.
impl<M: Machine + ?Sized, A, N> Stage<M, A, N> {
    pub(crate) fn note(&mut self, happened: impl FnOnce() -> Happened<N>) {
        if let Some(seen) = &mut self.seen {
            seen.push((self.now, happened()));
        }
    }

    /// A fault, in the words of `docs/scripts.md`.
    pub(crate) fn fault(&mut self, what: &'static str, who: NodeId, text: impl FnOnce(NodeId) -> String) {
        self.blows += 1;
        self.between(what, Some(who), None, || text(who));
    }

    /// The end of one.
    fn end(&mut self, what: &'static str, who: NodeId, text: impl FnOnce(NodeId) -> String) {
        self.between(what, Some(who), None, || text(who));
    }

    fn between(
        &mut self,
        what: &'static str,
        who: Option<NodeId>,
        other: Option<NodeId>,
        text: impl FnOnce() -> String,
    ) {
        if let Some(seen) = &mut self.seen {
            let cuts = self.network.cuts().iter().copied().collect();
            seen.push((self.now, Happened::Fault { what, who, other, text: text(), cuts }));
        }
    }

    /// What came before is not worth telling.
    pub(crate) fn forget_seen(&mut self) {
        self.seen.iter_mut().for_each(Vec::clear);
    }

    pub(crate) fn take_seen(&mut self) -> Seen<N> {
        self.seen.take().unwrap_or_default()
    }
}
