//! A machine of the bank's world: any process with its disk, seen without its types.

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use synod_protocols::commit::{BankOp, Decision};
use synod_protocols::log::Ticket;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Describe, Effects, Input, Process, Recovery, Release, Wire};

/// What a transaction does, by bank.
pub(super) type Branches = BTreeMap<NodeId, Vec<BankOp>>;

/// One thing that a step wants done, in order.
#[derive(Debug)]
pub(super) enum Effect {
    /// Its records are to be made durable.
    Sync,
    Send {
        to: NodeId,
        bytes: Bytes,
        name: &'static str,
        is_early: bool,
    },
    Told {
        told: Told,
        is_early: bool,
    },
}

/// What a process tells its host, whatever the protocol. Transactions go by their names.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Opened(Ticket, String),
    Refused(Ticket, String),
    /// Decided, with what was read, by bank.
    Decided(String, Decision, BTreeMap<NodeId, Bytes>),
    /// Applied or undone at a bank.
    Ended(String, Decision),
    Other,
}

/// A machine, whatever runs on it.
pub(super) trait Actor {
    fn start(&mut self, now: Time, out: &mut Vec<Effect>);
    fn crash(&mut self);
    fn is_up(&self) -> bool;
    fn on_message(&mut self, now: Time, from: NodeId, bytes: Bytes, out: &mut Vec<Effect>);
    fn on_timeout(&mut self, now: Time, out: &mut Vec<Effect>);
    /// Asks for a transaction; false if nobody here can take it.
    fn ask(&mut self, now: Time, ticket: Ticket, branches: &Branches, out: &mut Vec<Effect>) -> bool;
    /// The oldest step's records are durable.
    fn synced(&mut self);
    fn deadline(&self) -> Option<Time>;
    /// Names of what is locked.
    fn locks(&self) -> Vec<String>;
    /// Committed balances by account; none if it is no bank, or down.
    fn balances(&self) -> BTreeMap<String, u64>;
}

/// How the world looks at a process of one type.
pub(super) struct Lens<P: Process> {
    /// A configuration for a life, counted from 1.
    pub(super) config: Box<dyn Fn(u64) -> P::Config>,
    pub(super) request: fn(&P, Ticket, &Branches) -> Option<P::Request>,
    pub(super) told: fn(P::Event) -> Told,
    pub(super) locks: fn(&P) -> Vec<String>,
    pub(super) balances: fn(&P) -> BTreeMap<String, u64>,
    /// What stands before every message, where the others wrap theirs.
    pub(super) envelope: Option<u8>,
}

/// A process, its disk, and what is not durable yet.
pub(super) struct Host<P: Process> {
    lens: Lens<P>,
    process: Option<P>,
    disk: Vec<P::Record>,
    unsynced: VecDeque<Vec<P::Record>>,
    lives: u64,
}

impl<P: Process<Base = ()>> Host<P> {
    pub(super) fn new(lens: Lens<P>) -> Host<P> {
        Host { lens, process: None, disk: Vec::new(), unsynced: VecDeque::new(), lives: 0 }
    }

    fn step(&mut self, now: Time, input: Input<P>, out: &mut Vec<Effect>) {
        let Some(process) = &mut self.process else { return };
        let mut effects = Effects::new();
        process.step(now, input, &mut effects);
        self.take(effects, out);
    }

    fn take(&mut self, effects: Effects<P>, out: &mut Vec<Effect>) {
        if !effects.records.is_empty() {
            self.unsynced.push_back(effects.records);
            out.push(Effect::Sync);
        }
        for send in effects.sends {
            let mut bytes: Vec<u8> = self.lens.envelope.into_iter().collect();
            send.message.encode(&mut bytes);
            let (name, is_early) = (send.message.name(), send.release == Release::Early);
            out.push(Effect::Send { to: send.to, bytes: bytes.into(), name, is_early });
        }
        for emit in effects.events {
            let (told, is_early) = ((self.lens.told)(emit.event), emit.release == Release::Early);
            out.push(Effect::Told { told, is_early });
        }
        assert!(effects.asks.is_empty(), "nothing is compacted here, so nothing is asked for");
    }
}

impl<P: Process<Base = ()>> Actor for Host<P> {
    fn start(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.lives += 1;
        let config = (self.lens.config)(self.lives);
        let mut records = self.disk.clone().into_iter();
        let from = match self.lives {
            1 => Recovery::First,
            _ => Recovery::Resume { records: &mut records },
        };
        let mut effects = Effects::new();
        self.process = Some(P::recover(config, from, (), now, &mut effects));
        self.take(effects, out);
    }

    fn crash(&mut self) {
        self.process = None;
        self.unsynced.clear();
    }

    fn is_up(&self) -> bool {
        self.process.is_some()
    }

    fn on_message(&mut self, now: Time, from: NodeId, mut bytes: Bytes, out: &mut Vec<Effect>) {
        if let Some(envelope) = self.lens.envelope {
            if bytes.first() != Some(&envelope) {
                return;
            }
            bytes = bytes.slice(1..);
        }
        if let Ok(message) = P::Message::from_bytes(bytes) {
            self.step(now, Input::Message { from, message }, out);
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.step(now, Input::Timeout, out);
    }

    fn ask(&mut self, now: Time, ticket: Ticket, branches: &Branches, out: &mut Vec<Effect>) -> bool {
        let request =
            self.process.as_ref().and_then(|process| (self.lens.request)(process, ticket, branches));
        let is_taken = request.is_some();
        request.into_iter().for_each(|request| self.step(now, Input::Request(request), out));
        is_taken
    }

    fn synced(&mut self) {
        self.disk.extend(self.unsynced.pop_front().unwrap_or_default());
    }

    fn deadline(&self) -> Option<Time> {
        self.process.as_ref()?.deadline()
    }

    fn locks(&self) -> Vec<String> {
        self.process.as_ref().map(self.lens.locks).unwrap_or_default()
    }

    fn balances(&self) -> BTreeMap<String, u64> {
        self.process.as_ref().map(self.lens.balances).unwrap_or_default()
    }
}
