//! Paxos: some members agree on one value. The place to begin.
//!
//! # The idea
//!
//! A *proposer* wants a value chosen; *acceptors* remember; a value is **chosen** when a majority
//! of the acceptors has accepted it under one *ballot*. *Learners* find out. Here every member is
//! all three. A proposer goes through two phases:
//!
//! 1. *Prepare*: it picks a ballot above all that it has seen and asks the acceptors to *promise*
//!    that they will accept nothing under a lower one. Each says what it has accepted so far.
//! 2. *Accept*: when a majority has promised, it proposes the value accepted under the highest
//!    ballot among their answers, and only if there was none, its own. Acceptors that have not
//!    promised a higher ballot meanwhile accept it, and tell all learners.
//!
//! # Why it is safe
//!
//! Once a majority has accepted a value under a ballot, every higher ballot can only propose the
//! same value: its proposer heard from a majority, at least one of whom had accepted the value
//! before promising; and by induction whatever was accepted under ballots in between is that value
//! too. For this an acceptor must never forget: promises and accepted values are durable before
//! anybody hears of them. And a ballot must stand for one proposal: it carries its proposer's id,
//! and a proposer promises it to itself, durably, before it asks others; so even after a crash it
//! never uses it again.
//!
//! # Why it may not end
//!
//! Two proposers can preempt each other for ever, each preparing a higher ballot before the other's
//! Accept arrives. No deterministic protocol avoids that (Fischer, Lynch and Paterson, 1985); here
//! a preempted proposer waits for a random time, which doubles with each attempt. Agreement and
//! validity never depend on time.
//!
//! # Source
//!
//! Leslie Lamport, *Paxos Made Simple*, 2001, section 2. An acceptor that must refuse says so
//! (section 2.5's last paragraph suggests it), and a member that knows the outcome says that.
//!
//! # What it leaves out
//!
//! A member that neither proposes nor hears of the outcome does not learn it: proposing is how to
//! ask. Damaged disks: such a member must not be started. Everything beyond one value is in
//! [`crate::multi_paxos`].

use crate::ballot::{Ballot, ROUND_MAX};
use crate::contract::{Describe, Effects, Input, Process, Recovery};
use crate::fingerprint::Fingerprint;
use crate::rng::Rng;
use crate::types::{NodeId, Time};
use crate::wire::{DecodeError, Reader, Wire, put_bytes};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::Hash;
use core::time::Duration;

/// A proposal: under which ballot, and what.
pub type Proposal = (Ballot, Bytes);

/// What a member says. Everything goes to members, the sender itself included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Phase 1a.
    Prepare(Ballot),
    /// Phase 1b: the ballot promised, and the proposal accepted under the highest ballot so far.
    Promise(Ballot, Option<Proposal>),
    /// Phase 2a.
    Accept(Proposal),
    /// Phase 2b, for the learners.
    Accepted(Proposal),
    /// A higher ballot was promised: this one.
    Preempted(Ballot),
    /// It is over, and this is the outcome.
    Chosen(Bytes),
}

/// What an acceptor makes durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// It accepts nothing under a lower ballot.
    Promised(Ballot),
    /// It has accepted this, and promised its ballot.
    Accepted(Proposal),
}

/// What a host asks: have this chosen, or whatever was proposed before. Once in the process's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propose(pub Bytes);

/// What a host is told, once a life: the value that is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen(pub Bytes);

/// What an owner of a member decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// All members, this one included.
    pub members: Vec<NodeId>,
    /// How long a proposer waits for an answer at first; above zero.
    pub patience: Duration,
    /// The seed of this life's randomness.
    pub seed: u64,
}

/// A member: proposer, acceptor and learner.
#[derive(Clone, Debug)]
pub struct Paxos {
    config: Config,
    rng: Rng,
    /// The acceptor.
    promised: Ballot,
    accepted: Option<Proposal>,
    /// The proposer, if it proposes.
    attempt: Option<Attempt>,
    /// The highest round seen in anybody's ballot.
    round_seen: u64,
    /// The learner: what each acceptor has accepted under its highest ballot.
    votes: BTreeMap<NodeId, Proposal>,
    chosen: Option<Bytes>,
    /// Whether its disk is damaged: then it may have forgotten a promise, and only listens.
    abstains: bool,
}

/// One proposer's attempts.
#[derive(Clone, Debug)]
struct Attempt {
    own: Bytes,
    ballot: Ballot,
    /// Who has promised, and the highest proposal that they had accepted.
    promisers: Vec<NodeId>,
    highest: Option<Proposal>,
    /// When it tries a higher ballot, and how often it has tried.
    deadline: Time,
    count: u32,
}

impl Process for Paxos {
    type Config = Config;
    type Message = Message;
    type Record = Record;
    type Request = Propose;
    type Ask = ();
    type Answer = ();
    type Event = Chosen;
    type Base = ();

    fn recover(config: Config, from: Recovery<'_, Record>, (): (), _: Time, _: &mut Effects<Self>) -> Self {
        assert!(!config.patience.is_zero(), "the patience must be above zero");
        let mut paxos = Paxos {
            rng: Rng::new(config.seed),
            promised: Ballot::ZERO,
            accepted: None,
            attempt: None,
            round_seen: 0,
            votes: BTreeMap::new(),
            chosen: None,
            abstains: matches!(from, Recovery::Damaged { .. }),
            config,
        };
        if let Recovery::Resume { records } = from {
            for record in records {
                match record {
                    Record::Promised(ballot) => paxos.promised = ballot,
                    Record::Accepted(proposal) => {
                        paxos.promised = proposal.0;
                        paxos.accepted = Some(proposal);
                    }
                }
            }
        }
        paxos
    }

    fn step(&mut self, now: Time, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Message { message: Message::Chosen(value), .. } => self.learn(value, out),
            _ if self.abstains => {}
            Input::Request(Propose(own)) if self.attempt.is_none() && self.chosen.is_none() => {
                let attempt = Attempt {
                    own,
                    ballot: Ballot::ZERO,
                    promisers: Vec::new(),
                    highest: None,
                    deadline: now,
                    count: 0,
                };
                self.attempt = Some(attempt);
                self.prepare(now, out);
            }
            Input::Timeout if self.deadline().is_some_and(|deadline| now >= deadline) => {
                self.prepare(now, out);
            }
            Input::Message { from, message } if message.ballot().is_plausible() => {
                self.on_message(now, from, message, out);
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.attempt.as_ref().map(|attempt| attempt.deadline)
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        (self.promised, &self.accepted, &self.votes, &self.chosen, self.round_seen).hash(digest);
        if let Some(Attempt { own, ballot, promisers, highest, deadline, .. }) = &self.attempt {
            let mut promisers = promisers.clone();
            promisers.sort_unstable();
            (own, ballot, promisers, highest, deadline.since(now)).hash(digest);
        }
    }
}

impl Paxos {
    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Effects<Self>) {
        if !self.config.members.contains(&from) {
            return;
        }
        match (message, &self.chosen) {
            (Message::Prepare(_) | Message::Accept(_), Some(value)) => {
                out.send(from, Message::Chosen(value.clone()));
            }
            (Message::Prepare(ballot), _) if ballot.id == from => self.on_prepare(ballot, out),
            (Message::Promise(ballot, accepted), _) => self.on_promise(from, ballot, accepted, out),
            (Message::Accept(proposal), _) if proposal.0.id == from => self.on_accept(proposal, out),
            (Message::Accepted(proposal), _) => self.on_accepted(from, proposal, out),
            (Message::Preempted(ballot), _) => self.on_preempted(now, ballot),
            _ => {}
        }
    }

    /// Phase 1a, under a ballot above all that this member has seen.
    fn prepare(&mut self, now: Time, out: &mut Effects<Self>) {
        let round = self.round_seen.max(self.promised.round) + 1;
        let Some(attempt) = self.attempt.as_mut().filter(|_| round <= ROUND_MAX) else {
            self.attempt = None;
            return;
        };
        attempt.ballot = Ballot { round, id: self.config.id };
        attempt.promisers.clear();
        attempt.highest = None;
        let patience = self.config.patience.as_nanos() as u64 >> 1 << attempt.count.min(10);
        attempt.deadline = now + Duration::from_nanos(self.rng.between(patience, 2 * patience));
        attempt.count += 1;
        // Its own promise is durable before anybody is asked, or a restart could use the ballot again.
        self.promised = attempt.ballot;
        out.record(Record::Promised(self.promised));
        self.tell_all(Message::Prepare(self.promised), out);
    }

    /// Phase 1b.
    fn on_prepare(&mut self, ballot: Ballot, out: &mut Effects<Self>) {
        if ballot < self.promised {
            return out.send(ballot.id, Message::Preempted(self.promised));
        }
        if ballot > self.promised {
            self.promised = ballot;
            out.record(Record::Promised(ballot));
        }
        out.send(ballot.id, Message::Promise(ballot, self.accepted.clone()));
    }

    /// Phase 2a, when a majority has promised: the highest proposal that they had accepted decides.
    fn on_promise(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        accepted: Option<Proposal>,
        out: &mut Effects<Self>,
    ) {
        let majority = self.majority();
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.ballot == ballot) else { return };
        if attempt.promisers.contains(&from) || attempt.promisers.len() >= majority {
            return;
        }
        attempt.promisers.push(from);
        if accepted.as_ref().map(|proposal| proposal.0) > attempt.highest.as_ref().map(|proposal| proposal.0)
        {
            attempt.highest = accepted;
        }
        if attempt.promisers.len() == majority {
            let value = attempt.highest.as_ref().map_or(&attempt.own, |(_, value)| value).clone();
            self.tell_all(Message::Accept((ballot, value)), out);
        }
    }

    /// Phase 2b.
    fn on_accept(&mut self, proposal: Proposal, out: &mut Effects<Self>) {
        if proposal.0 < self.promised {
            return out.send(proposal.0.id, Message::Preempted(self.promised));
        }
        if self.accepted.as_ref() != Some(&proposal) {
            self.promised = proposal.0;
            self.accepted = Some(proposal.clone());
            out.record(Record::Accepted(proposal.clone()));
        }
        self.tell_all(Message::Accepted(proposal), out);
    }

    /// Chosen is what a majority has accepted under one ballot.
    fn on_accepted(&mut self, from: NodeId, proposal: Proposal, out: &mut Effects<Self>) {
        if self.votes.get(&from).is_none_or(|vote| vote.0 < proposal.0) {
            self.votes.insert(from, proposal.clone());
            if self.votes.values().filter(|vote| **vote == proposal).count() >= self.majority() {
                self.learn(proposal.1, out);
            }
        }
    }

    fn learn(&mut self, value: Bytes, out: &mut Effects<Self>) {
        self.attempt = None;
        if self.chosen.is_none() {
            self.chosen = Some(value.clone());
            out.event(Chosen(value));
        }
    }

    /// Another proposer is at work: let it finish, and then try above its ballot.
    fn on_preempted(&mut self, now: Time, ballot: Ballot) {
        self.round_seen = self.round_seen.max(ballot.round);
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| ballot > attempt.ballot) {
            attempt.deadline = attempt.deadline.max(now + self.config.patience);
        }
    }

    /// How many ballots it has tried; 0 if it does not propose.
    pub fn attempts(&self) -> u64 {
        self.attempt.as_ref().map_or(0, |attempt| attempt.count.into())
    }

    fn majority(&self) -> usize {
        self.config.members.len() / 2 + 1
    }

    fn tell_all(&self, message: Message, out: &mut Effects<Self>) {
        self.config.members.iter().for_each(|member| out.send(*member, message.clone()));
    }
}

impl Message {
    fn ballot(&self) -> Ballot {
        match self {
            Message::Prepare(ballot) | Message::Promise(ballot, _) | Message::Preempted(ballot) => *ballot,
            Message::Accept(proposal) | Message::Accepted(proposal) => proposal.0,
            Message::Chosen(_) => Ballot::ZERO,
        }
    }
}

impl Wire for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Prepare(ballot) => put(1, ballot, out),
            Message::Promise(ballot, None) => put(2, ballot, out),
            Message::Promise(ballot, Some(accepted)) => {
                put(3, ballot, out);
                put_proposal(accepted, out);
            }
            Message::Accept(proposal) => {
                out.push(4);
                put_proposal(proposal, out);
            }
            Message::Accepted(proposal) => {
                out.push(5);
                put_proposal(proposal, out);
            }
            Message::Preempted(ballot) => put(6, ballot, out),
            Message::Chosen(value) => {
                out.push(7);
                put_bytes(out, value);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match input.byte("message kind")? {
            1 => Message::Prepare(Ballot::decode(input)?),
            2 => Message::Promise(Ballot::decode(input)?, None),
            3 => Message::Promise(Ballot::decode(input)?, Some(proposal(input)?)),
            4 => Message::Accept(proposal(input)?),
            5 => Message::Accepted(proposal(input)?),
            6 => Message::Preempted(Ballot::decode(input)?),
            7 => Message::Chosen(input.bytes("value")?),
            kind => return Err(DecodeError::Invalid { what: "message kind", value: u64::from(kind) }),
        })
    }
}

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Promised(ballot) => put(1, ballot, out),
            Record::Accepted(proposal) => {
                out.push(2);
                put_proposal(proposal, out);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        match input.byte("record kind")? {
            1 => Ok(Record::Promised(Ballot::decode(input)?)),
            2 => Ok(Record::Accepted(proposal(input)?)),
            kind => Err(DecodeError::Invalid { what: "record kind", value: u64::from(kind) }),
        }
    }
}

fn put(kind: u8, ballot: &Ballot, out: &mut Vec<u8>) {
    out.push(kind);
    ballot.encode(out);
}

fn put_proposal((ballot, value): &Proposal, out: &mut Vec<u8>) {
    ballot.encode(out);
    put_bytes(out, value);
}

fn proposal(input: &mut Reader) -> Result<Proposal, DecodeError> {
    Ok((Ballot::decode(input)?, input.bytes("value")?))
}

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::Prepare(_) => "Prepare",
            Message::Promise(..) => "Promise",
            Message::Accept(_) => "Accept",
            Message::Accepted(_) => "Accepted",
            Message::Preempted(_) => "Preempted",
            Message::Chosen(_) => "Chosen",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Prepare(ballot) => format!("ballot {ballot}"),
            Message::Promise(ballot, None) => format!("ballot {ballot}, nothing accepted"),
            Message::Promise(ballot, Some((accepted, value))) => {
                format!("ballot {ballot}, accepted {value:?} under {accepted}")
            }
            Message::Accept((ballot, value)) | Message::Accepted((ballot, value)) => {
                format!("ballot {ballot}, {value:?}")
            }
            Message::Preempted(ballot) => format!("promised {ballot}"),
            Message::Chosen(value) => format!("{value:?}"),
        }
    }
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        match self {
            Record::Promised(_) => "Promised",
            Record::Accepted(_) => "Accepted",
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::Promised(ballot) => format!("ballot {ballot}"),
            Record::Accepted((ballot, value)) => format!("ballot {ballot}, {value:?}"),
        }
    }
}
