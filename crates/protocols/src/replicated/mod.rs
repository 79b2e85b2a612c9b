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
//! # Compaction
//!
//! From time to time a process says in few records what all its records say ([`Checkpoint`]), in an
//! entry that *replaces* all before it. What the entry says includes what earlier entries of the same life
//! say, committed or not: they come before it in the log, or it does not count.
//!
//! # Its parts
//!
//! [`Journal`] is what every member knows from the log alone; [`Tenant`] is a life, with what waits for
//! which entry. [`Replicated`] joins the two to a log and is itself a process, so that it can be simulated;
//! the server joins the same two to the log that it has anyway.
//!
//! # What it leaves out
//!
//! A process that asks its host for something cannot be run. Members do not pass messages on to the
//! leader: whoever talks to the process is given the addresses of all members and tries them.

mod journal;
mod tenant;

pub use journal::{Entry, Journal, Verdict};
pub use tenant::{CHECKPOINT_BYTES_MAX, CHECKPOINT_RECORDS, Tenant, Wants};

use crate::contract::{Checkpoint, Describe, Effects, Input, Process, Recovery, Release};
use crate::fingerprint::Fingerprint;
use crate::log::{
    CommittedEntry, LogAnswer, LogAsk, LogBase, LogConfig, LogEvent, LogRequest, Payload, ReplicatedLog,
    Role, Ticket,
};
use crate::rng::Rng;
use crate::types::{NodeId, Time};
use crate::wire::{DecodeError, Reader, Wire};
use alloc::string::String;
use alloc::vec::Vec;
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
    /// The records of all lives, as far as they are committed, not replaced, and known here.
    records: Vec<P::Record>,
    journal: Journal,
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
    Running(Tenant<P>),
}

impl<L: ReplicatedLog, P: Checkpoint<Ask = (), Answer = ()>> Process for Replicated<L, P> {
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
        let (records, journal, stage) = (Vec::new(), Journal::default(), Stage::Idle);
        let mut member = Replicated { config, rng, log, records, journal, stage };
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
            Input::Request(request) if matches!(self.stage, Stage::Running(_)) => {
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
        self.journal.hash(digest);
        if let Stage::Running(tenant) = &self.stage {
            tenant.process().fingerprint(now, digest);
            tenant.waiting().hash(digest);
        }
    }
}

/// For hosts, tests and people.
impl<L: ReplicatedLog, P: Checkpoint<Ask = (), Answer = ()>> Replicated<L, P> {
    /// The process, if it runs here.
    pub fn process(&self) -> Option<&P> {
        match &self.stage {
            Stage::Running(tenant) => Some(tenant.process()),
            Stage::Idle | Stage::Beginning { .. } => None,
        }
    }

    /// The log below it.
    pub fn log(&self) -> &L {
        &self.log
    }

    /// All committed records that this member knows and that were not replaced.
    pub fn records(&self) -> &[P::Record] {
        &self.records
    }
}

/// The log.
impl<L: ReplicatedLog, P: Checkpoint<Ask = (), Answer = ()>> Replicated<L, P> {
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

    /// All at once: what one of them causes comes behind the others.
    fn propose(&mut self, now: Time, entries: &[Entry], out: &mut Effects<Self>) {
        let commands = entries.iter().map(Wire::to_bytes).collect();
        let request = LogRequest::Propose { ticket: Ticket(0), commands };
        self.step_log(now, Input::Request(request), out);
    }

    fn on_committed(&mut self, now: Time, committed: CommittedEntry, out: &mut Effects<Self>) {
        let Payload::Command(command) = committed.payload else { return };
        // What cannot be read is not of this process.
        let Ok(entry) = Entry::from_bytes(command) else { return };
        let verdict = self.journal.apply(committed.index, &entry);
        match (verdict, entry) {
            (Verdict::Began, Entry::Begin { member, nonce }) => {
                let is_own = matches!(self.stage, Stage::Beginning { nonce: own } if own == nonce);
                match is_own && member == self.config.log.id {
                    true => self.begin(now, out),
                    false if self.process().is_some() => self.cease(out),
                    false => {}
                }
            }
            (Verdict::Accepted, Entry::Records { replaces, records, .. }) => {
                if replaces {
                    self.records.clear();
                }
                self.records
                    .extend(records.into_iter().filter_map(|record| P::Record::from_bytes(record).ok()));
                self.run(now, out, |tenant, wants| tenant.accepted(now, wants));
            }
            (Verdict::Broken, _) => self.cease(out),
            _ => {}
        }
    }
}

/// The process.
impl<L: ReplicatedLog, P: Checkpoint<Ask = (), Answer = ()>> Replicated<L, P> {
    /// A leader that does not run the process proposes to.
    fn maybe_begin(&mut self, now: Time, out: &mut Effects<Self>) {
        if matches!(self.stage, Stage::Idle) && self.log.status().role == Role::Leader {
            let nonce = self.rng.next();
            self.stage = Stage::Beginning { nonce };
            self.propose(now, &[Entry::Begin { member: self.config.log.id, nonce }], out);
        }
    }

    /// A life begins here, from the records of all before it.
    fn begin(&mut self, now: Time, out: &mut Effects<Self>) {
        let mut wants = Wants::default();
        let (id, config, records) = (self.config.id, self.config.process.clone(), self.records.clone());
        let tenant = Tenant::begin(id, self.journal.life, config, records, now, &mut wants);
        self.stage = Stage::Running(tenant);
        out.event(Event::Began);
        self.carry_out(now, wants, out);
    }

    /// To the process this is a crash: what waits for its records is lost.
    fn cease(&mut self, out: &mut Effects<Self>) {
        if self.process().is_some() {
            out.event(Event::Ceased);
        }
        self.stage = Stage::Idle;
    }

    fn step_process(&mut self, now: Time, input: Input<P>, out: &mut Effects<Self>) {
        self.run(now, out, |tenant, wants| tenant.step(now, input, wants));
    }

    fn run(&mut self, now: Time, out: &mut Effects<Self>, act: impl FnOnce(&mut Tenant<P>, &mut Wants<P>)) {
        let Stage::Running(tenant) = &mut self.stage else { return };
        let mut wants = Wants::default();
        act(tenant, &mut wants);
        self.carry_out(now, wants, out);
    }

    fn carry_out(&mut self, now: Time, wants: Wants<P>, out: &mut Effects<Self>) {
        wants.sends.into_iter().for_each(|(to, message)| out.send_early(to, Message::Process(message)));
        wants.events.into_iter().for_each(|event| out.event_early(Event::Process(event)));
        if !wants.entries.is_empty() {
            self.propose(now, &wants.entries, out);
        }
    }
}
