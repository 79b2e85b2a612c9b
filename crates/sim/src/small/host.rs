//! A process on its disk, seen without its types.

use bytes::Bytes;
use std::collections::VecDeque;
use synod_protocols::types::{LinkSession, NodeId, Time};
use synod_protocols::{Describe, Effects, Input, Process, Recovery, Release, Rng, StorageFault, Wire};

/// One thing that a step wants done, in order.
#[derive(Debug)]
pub(crate) enum Effect<E> {
    /// Its records are to be made durable. Their names and details, where somebody watches.
    Sync(Vec<(&'static str, String)>),
    Send {
        to: NodeId,
        bytes: Bytes,
        name: &'static str,
        /// Empty where nobody watches.
        detail: String,
        is_early: bool,
    },
    Tell {
        event: E,
        is_early: bool,
    },
}

/// What comes to a machine from outside.
#[derive(Clone, Debug)]
pub(crate) enum Happens {
    Message { from: NodeId, bytes: Bytes },
    LinkUp { peer: NodeId, session: LinkSession },
    LinkDown { peer: NodeId },
    Storage(StorageFault),
    Timeout,
}

/// A machine, whatever runs on it.
pub(crate) trait Machine {
    /// What it tells the world.
    type Event;

    /// A life begins, with what the disk holds.
    fn start(&mut self, now: Time, out: &mut Vec<Effect<Self::Event>>);
    /// A life ends. What was not durable is lost; of a torn disk some of it is kept, and what is in words.
    fn crash(&mut self, is_torn: bool, rng: &mut Rng) -> Option<String>;
    fn is_up(&self) -> bool;
    fn step(&mut self, now: Time, happens: Happens, out: &mut Vec<Effect<Self::Event>>);
    /// The oldest sync has ended.
    fn synced(&mut self, now: Time, out: &mut Vec<Effect<Self::Event>>);
    /// The oldest sync has failed, and the machine is about to be stopped.
    fn sync_failed(&mut self, _now: Time, _out: &mut Vec<Effect<Self::Event>>) {}
    /// Its disk is full, or has room again. Says whether it finds that out by itself, with each write; otherwise its syncs
    /// wait for room.
    fn fill(&mut self, _is_full: bool) -> bool {
        false
    }
    fn deadline(&self) -> Option<Time>;
    /// Something durable cannot be read from the next life on. False if there is nothing.
    fn rot(&mut self, rng: &mut Rng) -> bool;
    /// All that was durable is gone. False if there was nothing.
    fn wipe(&mut self) -> bool;
    /// Until it crashes its disk says that it has synced, and has not. False if it has no such disk.
    fn lie(&mut self) -> bool {
        false
    }
    /// From now on effects say what they hold.
    fn watch(&mut self);
}

/// A process, its disk, and what is not durable yet. `V` is what the world above knows of it.
pub(crate) struct Host<P: Process, E = <P as Process>::Event, V = ()> {
    pub(crate) view: V,
    /// A configuration for a life, counted from 1.
    pub(crate) config: Box<dyn Fn(u64) -> P::Config>,
    tell: fn(P::Event) -> E,
    joins: bool,
    /// What stands before every message, where the others wrap theirs.
    envelope: Option<u8>,
    process: Option<P>,
    /// None is a record that cannot be read.
    disk: Vec<Option<P::Record>>,
    unsynced: VecDeque<Vec<P::Record>>,
    lives: u64,
    is_watched: bool,
}

impl<P: Process, E, V> Host<P, E, V> {
    pub(crate) fn new(
        view: V,
        tell: fn(P::Event) -> E,
        config: Box<dyn Fn(u64) -> P::Config>,
    ) -> Host<P, E, V> {
        Host {
            view,
            config,
            tell,
            joins: false,
            envelope: None,
            process: None,
            disk: Vec::new(),
            unsynced: VecDeque::new(),
            lives: 0,
            is_watched: false,
        }
    }

    /// It is none of the founders: its first life joins.
    pub(crate) fn joining(self) -> Host<P, E, V> {
        Host { joins: true, ..self }
    }

    pub(crate) fn wrapped(self, envelope: Option<u8>) -> Host<P, E, V> {
        Host { envelope, ..self }
    }

    pub(crate) fn process(&self) -> Option<&P> {
        self.process.as_ref()
    }

    pub(crate) fn request(&mut self, now: Time, request: P::Request, out: &mut Vec<Effect<E>>) {
        self.input(now, Input::Request(request), out);
    }

    fn input(&mut self, now: Time, input: Input<P>, out: &mut Vec<Effect<E>>) {
        let Some(process) = &mut self.process else { return };
        let mut effects = Effects::new();
        process.step(now, input, &mut effects);
        self.take(effects, out);
    }

    fn take(&mut self, effects: Effects<P>, out: &mut Vec<Effect<E>>) {
        let is_watched = self.is_watched;
        if !effects.records.is_empty() {
            let described =
                effects.records.iter().filter(|_| is_watched).map(|record| (record.name(), record.detail()));
            out.push(Effect::Sync(described.collect()));
            self.unsynced.push_back(effects.records);
        }
        for send in effects.sends {
            let mut bytes: Vec<u8> = self.envelope.into_iter().collect();
            send.message.encode(&mut bytes);
            out.push(Effect::Send {
                to: send.to,
                bytes: bytes.into(),
                name: send.message.name(),
                detail: if is_watched { send.message.detail() } else { String::new() },
                is_early: send.release == Release::Early,
            });
        }
        for emit in effects.events {
            let (event, is_early) = ((self.tell)(emit.event), emit.release == Release::Early);
            out.push(Effect::Tell { event, is_early });
        }
        assert!(effects.asks.is_empty(), "nothing is compacted here, so nothing is asked for");
    }
}

impl<P: Process<Base = ()>, E, V> Machine for Host<P, E, V> {
    type Event = E;

    fn start(&mut self, now: Time, out: &mut Vec<Effect<E>>) {
        self.lives += 1;
        let config = (self.config)(self.lives);
        let is_damaged = self.disk.iter().any(Option::is_none);
        let mut readable = self.disk.clone().into_iter().flatten();
        let mut records = self.disk.clone().into_iter();
        let from = match (self.lives, self.joins) {
            _ if is_damaged => Recovery::Damaged { records: &mut records },
            (1, false) => Recovery::First,
            (1, true) => Recovery::Join,
            _ => Recovery::Resume { records: &mut readable },
        };
        let mut effects = Effects::new();
        self.process = Some(P::recover(config, from, (), now, &mut effects));
        self.take(effects, out);
    }

    fn crash(&mut self, is_torn: bool, rng: &mut Rng) -> Option<String> {
        self.process = None;
        let unsynced = std::mem::take(&mut self.unsynced);
        let count = unsynced.len();
        // Steps are kept in order, and whole.
        let kept = if is_torn { rng.below(count as u64 + 1) as usize } else { 0 };
        self.disk.extend(unsynced.into_iter().take(kept).flatten().map(Some));
        is_torn.then(|| format!("{kept} of {count} steps that were not synced survive"))
    }

    fn is_up(&self) -> bool {
        self.process.is_some()
    }

    fn step(&mut self, now: Time, happens: Happens, out: &mut Vec<Effect<E>>) {
        let input = match happens {
            Happens::Message { from, bytes } => {
                let own = match self.envelope {
                    Some(envelope) if bytes.first() != Some(&envelope) => return,
                    Some(_) => bytes.slice(1..),
                    None => bytes,
                };
                // What another kind of process understands is nothing here.
                let Ok(message) = P::Message::from_bytes(own) else { return };
                Input::Message { from, message }
            }
            Happens::LinkUp { peer, session } => Input::LinkUp { peer, session },
            Happens::LinkDown { peer } => Input::LinkDown { peer },
            Happens::Storage(fault) => Input::StorageFault(fault),
            Happens::Timeout => Input::Timeout,
        };
        self.input(now, input, out);
    }

    fn synced(&mut self, _now: Time, _out: &mut Vec<Effect<E>>) {
        let oldest = self.unsynced.pop_front().expect("a sync ends for each that began");
        self.disk.extend(oldest.into_iter().map(Some));
    }

    fn deadline(&self) -> Option<Time> {
        self.process.as_ref()?.deadline()
    }

    fn rot(&mut self, rng: &mut Rng) -> bool {
        let place = (rng.next() as usize).checked_rem(self.disk.len());
        place.is_some_and(|place| self.disk[place].take().is_some())
    }

    fn wipe(&mut self) -> bool {
        // A blank disk of one who has lived: what was on it is missing.
        let had = !self.disk.is_empty();
        self.disk = if had { vec![None] } else { Vec::new() };
        had
    }

    fn watch(&mut self) {
        self.is_watched = true;
    }
}
