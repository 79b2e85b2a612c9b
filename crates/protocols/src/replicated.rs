//! Any process, run on a replicated log: its records become entries, and committed means durable.
//!
//! # The idea
//!
//! A [`Process`] does not know where its records go; it only relies on the durability rule. So instead
//! of a disk it can be given a log that a quorum of members holds. The member that leads the log runs
//! the process. What a step wants recorded is proposed as one entry, and what the step sends and says
//! waits until that entry is committed. When another member becomes the leader it starts the process
//! from the records in the log, exactly as a restart from a disk would, and finishes what the first began.
//!
//! # Why it is safe
//!
//! To the process a change of the leader is a crash and a recovery, which it must survive anyway. What is
//! new is that the crashed one may not know. Therefore every life of the process begins with an entry of
//! its own, [`Entry::Begin`], and is named by that entry's position; its records carry the name. Records
//! of any life but the one that began last are ignored, by every member alike, since all see the
//! entries in one order. So a replaced leader's records never count, what waited for them never
//! leaves, and the records that a life recovers from are all that there will ever be of earlier lives.
//! Entries of a life are numbered, and after a missing one none counts: a log that fills a gap with
//! nothing and keeps what was proposed behind it would otherwise lose a record from the middle. So this
//! needs nothing of the log but its order, and holds for every [`ReplicatedLog`].
//!
//! Messages that a replaced leader sent before may arrive late, as in any network: a process guards
//! against its own past with numbers (the epochs of [`crate::commit`]).
//!
//! # Source
//!
//! Gray and Lamport, *Consensus on Transaction Commit*, 2006, section 5, discuss the coordinator whose
//! state is replicated, and how Paxos Commit saves a delay by replicating each vote instead.
//!
//! # What it leaves out
//!
//! Compaction: records are kept in memory and in the log from the first on. A process that asks its host
//! for something cannot be run. Members do not pass messages on to the leader: whoever talks to the
//! process is given the addresses of all members and tries them.

use crate::contract::{Describe, Effects, Input, Process, Recovery, Release};
use crate::fingerprint::Fingerprint;
use crate::log::{
    CommittedEntry, Index, LogAnswer, LogAsk, LogBase, LogConfig, LogEvent, LogRequest, Payload,
    ReplicatedLog, Role, Ticket,
};
use crate::rng::Rng;
use crate::types::{NodeId, Time};
use crate::wire::{DecodeError, Reader, Wire};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::Hash;

/// What an owner of a member decides.
#[derive(Clone, Debug)]
pub struct Config<C> {
    /// The member of the log.
    pub log: LogConfig,
    /// The name that the process knows itself by: what it sends there comes back to it.
    pub id: NodeId,
    /// The process, wherever it runs.
    pub process: C,
}

/// What a member says: to other members, or on behalf of the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message<L, M> {
    /// Of the log.
    Log(L),
    /// Of the process.
    Process(M),
}

impl<L: Wire, M: Wire> Wire for Message<L, M> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Log(message) => {
                out.push(1);
                message.encode(out);
            }
            Message::Process(message) => {
                out.push(2);
                message.encode(out);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match input.byte("message kind")? {
            1 => Message::Log(L::decode(input)?),
            2 => Message::Process(M::decode(input)?),
            kind => return Err(DecodeError::Invalid { what: "message kind", value: u64::from(kind) }),
        })
    }
}

impl<L: Describe, M: Describe> Describe for Message<L, M> {
    fn name(&self) -> &'static str {
        match self {
            Message::Log(message) => message.name(),
            Message::Process(message) => message.name(),
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Log(message) => message.detail(),
            Message::Process(message) => message.detail(),
        }
    }
}

/// A command of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A life of the process begins on this member. The entry's position is the life's name.
    Begin {
        /// Where.
        member: NodeId,
        /// What tells the member's attempts apart.
        nonce: u64,
    },
    /// What one step of a life wants durable.
    Records {
        /// Which life.
        life: u64,
        /// Which of its entries, counted from 0.
        sequence: u64,
        /// The process's records.
        records: Vec<Bytes>,
    },
}

crate::wire_format!(enum Entry { 1 => Begin { member, nonce }, 2 => Records { life, sequence, records } });

/// What a member tells its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<E, R> {
    /// What the process says.
    Process(E),
    /// The process runs on this member from now on.
    Began,
    /// It does no more: what it was asked and has not answered may have happened or not.
    Ceased,
    /// The process does not run here.
    Refused {
        /// What was asked.
        request: R,
        /// Who leads, as far as this member knows.
        leader: Option<NodeId>,
    },
}

/// A member of a replicated process. See [the module](self).
#[derive(Clone, Debug)]
pub struct Replicated<L: ReplicatedLog, P: Process> {
    config: Config<P::Config>,
    rng: Rng,
    log: L,
    /// The records of all lives, as far as they are committed and this member knows.
    records: Vec<P::Record>,
    /// The life that began last, and how many of its entries are committed.
    life: Index,
    entries: u64,
    stage: Stage<P>,
}

/// What this member has to do with the process.
#[derive(Clone, Debug)]
enum Stage<P: Process> {
    /// Nothing.
    Idle,
    /// It has proposed to begin a life.
    Beginning { nonce: u64 },
    /// It runs it.
    Running { process: P, proposed: u64, waiting: VecDeque<Held<P>> },
}

/// Something that waits for entries to be committed.
#[derive(Clone, Debug)]
enum Held<P: Process> {
    /// One step's records.
    Records,
    Send(NodeId, P::Message),
    Event(P::Event),
}

impl<L: ReplicatedLog, P: Process<Ask = (), Answer = ()>> Process for Replicated<L, P> {
    type Config = Config<P::Config>;
    type Message = Message<L::Message, P::Message>;
    type Record = L::Record;
    type Request = P::Request;
    type Ask = LogAsk;
    type Answer = LogAnswer<L::Record>;
    type Event = Event<P::Event, P::Request>;
    type Base = ();

    fn recover(
        config: Config<P::Config>,
        from: Recovery<'_, L::Record>,
        (): (),
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        let mut effects = Effects::new();
        // Nothing but the log is durable here: it delivers everything again from the first entry on.
        let log = L::recover(L::config(config.log.clone()), from, LogBase::default(), now, &mut effects);
        let rng = Rng::new(config.log.seed);
        let (records, life, stage) = (Vec::new(), Index::ZERO, Stage::Idle);
        let mut member = Replicated { config, rng, log, records, life, entries: 0, stage };
        member.take_log(now, effects, out);
        member
    }

    fn step(&mut self, now: Time, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Message { from, message: Message::Log(message) } => {
                self.step_log(now, Input::Message { from, message }, out);
            }
            Input::Message { from, message: Message::Process(message) } => {
                self.step_process(now, Input::Message { from, message }, out);
            }
            Input::Request(request) if matches!(self.stage, Stage::Running { .. }) => {
                self.step_process(now, Input::Request(request), out);
            }
            Input::Request(request) => {
                out.event(Event::Refused { request, leader: self.log.status().leader });
            }
            Input::LinkUp { peer, session } => self.step_log(now, Input::LinkUp { peer, session }, out),
            Input::LinkDown { peer } => self.step_log(now, Input::LinkDown { peer }, out),
            Input::Answer(answer) => self.step_log(now, Input::Answer(answer), out),
            Input::StorageFault(fault) => self.step_log(now, Input::StorageFault(fault), out),
            Input::Timeout => {
                if self.log.deadline().is_some_and(|deadline| now >= deadline) {
                    self.step_log(now, Input::Timeout, out);
                }
                if self.process().and_then(P::deadline).is_some_and(|deadline| now >= deadline) {
                    self.step_process(now, Input::Timeout, out);
                }
            }
        }
        self.maybe_begin(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.log.deadline().into_iter().chain(self.process().and_then(P::deadline)).min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.log.fingerprint(now, digest);
        self.records.iter().for_each(|record| record.to_bytes().hash(digest));
        (self.life, self.entries).hash(digest);
        if let Stage::Running { process, waiting, .. } = &self.stage {
            process.fingerprint(now, digest);
            waiting.len().hash(digest);
        }
    }
}

/// For hosts, tests and people.
impl<L: ReplicatedLog, P: Process> Replicated<L, P> {
    /// The process, if it runs here.
    pub fn process(&self) -> Option<&P> {
        match &self.stage {
            Stage::Running { process, .. } => Some(process),
            Stage::Idle | Stage::Beginning { .. } => None,
        }
    }

    /// The log below it.
    pub fn log(&self) -> &L {
        &self.log
    }

    /// All committed records that this member knows.
    pub fn records(&self) -> &[P::Record] {
        &self.records
    }
}

/// The log.
impl<L: ReplicatedLog, P: Process<Ask = (), Answer = ()>> Replicated<L, P> {
    fn step_log(&mut self, now: Time, input: Input<L>, out: &mut Effects<Self>) {
        let mut effects = Effects::new();
        self.log.step(now, input, &mut effects);
        self.take_log(now, effects, out);
    }

    /// The events that matter here are early ones, and so may be acted on at once: they speak of a
    /// quorum's disks, or of what this member does not do any more.
    fn take_log(&mut self, now: Time, effects: Effects<L>, out: &mut Effects<Self>) {
        out.records.extend(effects.records);
        for send in effects.sends {
            let message = Message::Log(send.message);
            match send.release {
                Release::Held => out.send(send.to, message),
                Release::Early => out.send_early(send.to, message),
            }
        }
        out.asks.extend(effects.asks);
        for emit in effects.events {
            match emit.event {
                LogEvent::Committed { entries } => {
                    entries.into_iter().for_each(|entry| self.on_committed(now, entry, out));
                }
                LogEvent::Role { role, .. } if role != Role::Leader => self.cease(out),
                // A step's records will not be durable: to the process that is a crash.
                LogEvent::Refused { .. } => self.cease(out),
                _ => {}
            }
        }
    }

    fn propose(&mut self, now: Time, entry: Entry, out: &mut Effects<Self>) {
        let request = LogRequest::Propose { ticket: Ticket(0), commands: vec![entry.to_bytes()] };
        self.step_log(now, Input::Request(request), out);
    }

    fn on_committed(&mut self, now: Time, committed: CommittedEntry, out: &mut Effects<Self>) {
        let Payload::Command(command) = committed.payload else { return };
        match Entry::from_bytes(command) {
            Ok(Entry::Begin { member, nonce }) => {
                (self.life, self.entries) = (committed.index, 0);
                let is_own = matches!(self.stage, Stage::Beginning { nonce: own } if own == nonce);
                match is_own && member == self.config.log.id {
                    true => self.begin(now, out),
                    false if self.process().is_some() => self.cease(out),
                    false => {}
                }
            }
            Ok(Entry::Records { life, sequence, records })
                if (life, sequence) == (self.life.0, self.entries) =>
            {
                self.entries += 1;
                self.records
                    .extend(records.into_iter().filter_map(|record| P::Record::from_bytes(record).ok()));
                self.release(now, out);
            }
            // An entry before it is missing, so this life has lost its memory.
            Ok(Entry::Records { life, .. }) if life == self.life.0 => self.cease(out),
            // Of a life that another one has replaced, or not of this process.
            Ok(Entry::Records { .. }) | Err(_) => {}
        }
    }
}

/// The process.
impl<L: ReplicatedLog, P: Process<Ask = (), Answer = ()>> Replicated<L, P> {
    /// A leader that does not run the process proposes to.
    fn maybe_begin(&mut self, now: Time, out: &mut Effects<Self>) {
        if matches!(self.stage, Stage::Idle) && self.log.status().role == Role::Leader {
            let nonce = self.rng.next();
            self.stage = Stage::Beginning { nonce };
            self.propose(now, Entry::Begin { member: self.config.log.id, nonce }, out);
        }
    }

    /// A life begins here, from the records of all before it.
    fn begin(&mut self, now: Time, out: &mut Effects<Self>) {
        let mut effects = Effects::new();
        let mut records = self.records.iter().cloned();
        let from = match self.records.is_empty() {
            true => Recovery::First,
            false => Recovery::Resume { records: &mut records },
        };
        let process = P::recover(self.config.process.clone(), from, P::Base::default(), now, &mut effects);
        self.stage = Stage::Running { process, proposed: 0, waiting: VecDeque::new() };
        out.event(Event::Began);
        self.take_process(now, effects, out);
    }

    /// To the process this is a crash: what waits for its records is lost.
    fn cease(&mut self, out: &mut Effects<Self>) {
        if self.process().is_some() {
            out.event(Event::Ceased);
        }
        self.stage = Stage::Idle;
    }

    fn step_process(&mut self, now: Time, input: Input<P>, out: &mut Effects<Self>) {
        let Stage::Running { process, .. } = &mut self.stage else { return };
        let mut effects = Effects::new();
        process.step(now, input, &mut effects);
        self.take_process(now, effects, out);
    }

    fn take_process(&mut self, now: Time, effects: Effects<P>, out: &mut Effects<Self>) {
        let Stage::Running { waiting, proposed, .. } = &mut self.stage else { return };
        let sequence = *proposed;
        let has_records = !effects.records.is_empty();
        if has_records {
            *proposed += 1;
            waiting.push_back(Held::Records);
        }
        for send in effects.sends {
            match send.release {
                Release::Held => waiting.push_back(Held::Send(send.to, send.message)),
                // What is true though its sender forgets is true though its sender is replaced.
                Release::Early => out.send_early(send.to, Message::Process(send.message)),
            }
        }
        for emit in effects.events {
            match emit.release {
                Release::Held => waiting.push_back(Held::Event(emit.event)),
                Release::Early => out.event_early(Event::Process(emit.event)),
            }
        }
        if has_records {
            let records = effects.records.iter().map(Wire::to_bytes).collect();
            self.propose(now, Entry::Records { life: self.life.0, sequence, records }, out);
        }
        self.let_out(now, out);
    }

    /// The oldest step's records are committed.
    fn release(&mut self, now: Time, out: &mut Effects<Self>) {
        if let Stage::Running { waiting, .. } = &mut self.stage {
            let oldest = waiting.pop_front();
            assert!(matches!(oldest, Some(Held::Records)), "entries of this life are committed in order");
        }
        self.let_out(now, out);
    }

    /// Lets out what waits for nothing any more. It may leave early: it rests on a quorum's disks, and
    /// on nothing that this member has not synced.
    fn let_out(&mut self, now: Time, out: &mut Effects<Self>) {
        while let Stage::Running { waiting, .. } = &mut self.stage {
            match waiting.pop_front() {
                Some(Held::Send(to, message)) if to == self.config.id => {
                    self.step_process(now, Input::Message { from: to, message }, out);
                }
                Some(Held::Send(to, message)) => out.send_early(to, Message::Process(message)),
                Some(Held::Event(event)) => out.event_early(Event::Process(event)),
                Some(Held::Records) => return waiting.push_front(Held::Records),
                None => return,
            }
        }
    }
}
