//! Ben-Or's randomised consensus: some members agree on a bit, without clocks.
//!
//! # The idea
//!
//! Members go through rounds of two phases. First each *reports* its value; who hears a majority
//! report one value *proposes* it, and everybody else proposes nothing. Then, if enough members
//! propose a value, it is **decided**; who sees it proposed at all takes it for the next round;
//! and who sees nothing proposed flips a coin. In either phase a member waits for all but `f`
//! members, because `f` may have crashed, and goes on with what it has.
//!
//! # Why it is safe
//!
//! Two majorities share a member, so no two values are proposed in one round. Who decides has seen
//! `f + 1` members propose the value; of these everybody else hears at least one, because it waits
//! for all but `f`; so everybody begins the next round with that value and decides it there.
//!
//! # Why it ends, although Fischer, Lynch and Paterson forbid that to deterministic protocols
//!
//! It ends with probability one, which is less than always. Whoever delays messages cannot know how
//! coins will fall; with a probability above zero all that are flipped in a round agree, and then
//! the next round decides. The number of rounds is a distribution without a bound.
//!
//! # Source
//!
//! Michael Ben-Or, *Another Advantage of Free Choice*, PODC 1983, protocol A; its correctness proof
//! by Aguilera and Toueg, 2012.
//!
//! # What it leaves out
//!
//! A crash is for good, as in the paper: nothing is recorded, and a process that would have to
//! resume only listens. A member that has decided says so and stops; the paper's goes on for ever.

use crate::contract::{Describe, Effects, Input, Process, Recovery};
use crate::fingerprint::Fingerprint;
use crate::rng::Rng;
use crate::types::{NodeId, Time};
use crate::wire::{DecodeError, Reader, Wire, put_varint};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::hash::Hash;

/// How many rounds ahead of its own a member keeps what it hears. Others cannot be further than
/// one ahead of a member that they wait for; one that they do not wait for catches up by rounds.
pub const ROUNDS_AHEAD_MAX: u64 = 64;

/// What a member says. Everything goes to all members, the sender itself included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Phase 1 of a round: its value.
    Report(u64, bool),
    /// Phase 2: the value that a majority reported, as far as it heard.
    Proposal(u64, Option<bool>),
    /// It is over, and this is the outcome.
    Decided(bool),
}

/// Nothing is made durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {}

/// What a host asks: the member's own value. Once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propose(pub bool);

/// What a host is told, once: the value that is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided(pub bool);

/// What an owner of a member decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// All members, this one included. Fewer than half of them may crash.
    pub members: Vec<NodeId>,
    /// The seed of the coin.
    pub seed: u64,
}

/// A member.
#[derive(Clone, Debug)]
pub struct BenOr {
    config: Config,
    coin: Rng,
    /// The round and its phase, and the value; nothing before it was asked, or after the end.
    at: Option<Position>,
    heard: BTreeMap<Step, BTreeMap<NodeId, Option<bool>>>,
    decided: Option<bool>,
    /// Whether it lived before, and may have said what it does not know.
    abstains: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Position {
    step: Step,
    value: bool,
}

/// One of the two phases of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Step {
    round: u64,
    proposing: bool,
}

impl Process for BenOr {
    type Config = Config;
    type Message = Message;
    type Record = Record;
    type Request = Propose;
    type Ask = ();
    type Answer = ();
    type Event = Decided;
    type Base = ();

    fn recover(config: Config, from: Recovery<'_, Record>, (): (), _: Time, _: &mut Effects<Self>) -> Self {
        BenOr {
            coin: Rng::new(config.seed),
            at: None,
            heard: BTreeMap::new(),
            decided: None,
            abstains: !matches!(from, Recovery::First),
            config,
        }
    }

    fn step(&mut self, _: Time, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Message { message: Message::Decided(value), .. } => self.decide(value, out),
            _ if self.abstains || self.decided.is_some() => {}
            Input::Request(Propose(value)) if self.at.is_none() => self.report(1, value, out),
            Input::Message { from, message } if self.config.members.contains(&from) => {
                let (step, value) = match message {
                    Message::Report(round, value) => (Step { round, proposing: false }, Some(value)),
                    Message::Proposal(round, value) => (Step { round, proposing: true }, value),
                    Message::Decided(_) => return,
                };
                self.hear(from, step, value);
                self.proceed(out);
            }
            _ => {}
        }
    }

    /// There is no clock in it.
    fn deadline(&self) -> Option<Time> {
        None
    }

    fn fingerprint(&self, _: Time, digest: &mut Fingerprint) {
        (self.at, &self.heard, self.decided).hash(digest);
    }
}

impl BenOr {
    /// How many members it waits for: all but the largest minority.
    fn awaited(&self) -> usize {
        self.config.members.len() / 2 + 1
    }

    /// The round that it is in; 0 before it was asked for a value.
    pub fn round(&self) -> u64 {
        self.at.map_or(0, |at| at.step.round)
    }

    /// Another coin from here on: for hosts that look ahead, and must not know how it will fall.
    pub fn change_coin(&mut self, seed: u64) {
        self.coin = Rng::new(seed);
    }

    fn hear(&mut self, from: NodeId, step: Step, value: Option<bool>) {
        let own = self.at.map_or(Step { round: 1, proposing: false }, |at| at.step);
        if step >= own && step.round <= own.round + ROUNDS_AHEAD_MAX {
            self.heard.entry(step).or_default().entry(from).or_insert(value);
        }
    }

    /// Goes on as long as enough was heard.
    fn proceed(&mut self, out: &mut Effects<Self>) {
        while let Some(Position { step, value }) = self.at {
            let Some(heard) = self.heard.get(&step).filter(|heard| heard.len() >= self.awaited()) else {
                return;
            };
            let count = |wanted| heard.values().filter(|value| **value == Some(wanted)).count();
            let (zeros, ones) = (count(false), count(true));
            if !step.proposing {
                let majority = self.config.members.len() / 2;
                let proposal = if zeros > majority { Some(false) } else { (ones > majority).then_some(true) };
                self.at = Some(Position { step: Step { proposing: true, ..step }, value });
                self.tell_all(Message::Proposal(step.round, proposal), out);
            } else {
                let faults = self.config.members.len() - self.awaited();
                // Among members that follow the protocol, only one value is proposed in a round.
                let proposed = if zeros > 0 { Some(false) } else { (ones > 0).then_some(true) };
                match proposed {
                    Some(value) if zeros.max(ones) > faults => {
                        self.tell_all(Message::Decided(value), out);
                        return self.decide(value, out);
                    }
                    Some(value) => self.report(step.round + 1, value, out),
                    None => {
                        let value = self.coin.chance(1, 2);
                        self.report(step.round + 1, value, out);
                    }
                }
            }
        }
    }

    fn report(&mut self, round: u64, value: bool, out: &mut Effects<Self>) {
        let step = Step { round, proposing: false };
        self.at = Some(Position { step, value });
        self.heard = self.heard.split_off(&step);
        self.tell_all(Message::Report(round, value), out);
    }

    fn decide(&mut self, value: bool, out: &mut Effects<Self>) {
        if self.decided.is_none() {
            (self.decided, self.at) = (Some(value), None);
            self.heard.clear();
            out.event(Decided(value));
        }
    }

    fn tell_all(&self, message: Message, out: &mut Effects<Self>) {
        self.config.members.iter().for_each(|member| out.send(*member, message.clone()));
    }
}

impl Wire for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, round) = match self {
            Message::Report(round, value) => (u8::from(*value), *round),
            Message::Proposal(round, value) => (2 + value.map_or(0, |value| 1 + u8::from(value)), *round),
            Message::Decided(value) => (5 + u8::from(*value), 0),
        };
        out.push(kind);
        put_varint(out, round);
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let kind = input.byte("message kind")?;
        let round = input.varint("round")?;
        match kind {
            0 | 1 => Ok(Message::Report(round, kind == 1)),
            2 => Ok(Message::Proposal(round, None)),
            3 | 4 => Ok(Message::Proposal(round, Some(kind == 4))),
            5 | 6 if round == 0 => Ok(Message::Decided(kind == 6)),
            kind => Err(DecodeError::Invalid { what: "message kind", value: u64::from(kind) }),
        }
    }
}

impl Wire for Record {
    fn encode(&self, _: &mut Vec<u8>) {
        match *self {}
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Err(DecodeError::Invalid { what: "record kind", value: u64::from(input.byte("record kind")?) })
    }
}

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::Report(..) => "Report",
            Message::Proposal(..) => "Proposal",
            Message::Decided(_) => "Decided",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Report(round, value) => format!("round {round}, {}", u8::from(*value)),
            Message::Proposal(round, Some(value)) => format!("round {round}, {}", u8::from(*value)),
            Message::Proposal(round, None) => format!("round {round}, nothing"),
            Message::Decided(value) => u8::from(*value).to_string(),
        }
    }
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        match *self {}
    }

    fn detail(&self) -> String {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Delivers in a random order. A crashed member says and hears nothing.
    fn run(values: [bool; 3], seed: u64, crashed: Option<u64>) -> Vec<Option<bool>> {
        let members: Vec<_> = (1..=3).map(NodeId).collect();
        let mut wires = VecDeque::new();
        let mut out = Effects::new();
        let mut processes: Vec<BenOr> = Vec::new();
        let mut decided = [None; 3];
        let mut carry = |from: NodeId, out: &mut Effects<BenOr>, wires: &mut VecDeque<_>| {
            wires.extend(out.sends.drain(..).map(|send| (from, send.to, send.message)));
            for emit in out.events.drain(..) {
                decided[from.0 as usize - 1] = Some(emit.event.0);
            }
            decided
        };
        for id in &members {
            let config = Config { id: *id, members: members.clone(), seed: seed ^ id.0 << 40 };
            processes.push(BenOr::recover(config, Recovery::First, (), Time::ZERO, &mut out));
        }
        for (process, value) in processes.iter_mut().zip(values) {
            process.step(Time::ZERO, Input::Request(Propose(value)), &mut out);
            carry(process.config.id, &mut out, &mut wires);
        }
        let mut rng = Rng::new(seed);
        let mut outcome = [None; 3];
        while !wires.is_empty() {
            let next = rng.below(wires.len() as u64) as usize;
            let (from, to, message) = wires.remove(next).expect("it is there");
            if crashed != Some(to.0) && crashed != Some(from.0) {
                processes[to.0 as usize - 1].step(Time::ZERO, Input::Message { from, message }, &mut out);
                outcome = carry(to, &mut out, &mut wires);
            }
        }
        outcome.to_vec()
    }

    #[test]
    fn members_agree_on_something_proposed_though_one_crashed() {
        for seed in 0..500 {
            for values in
                [[false, false, false], [true, true, true], [false, true, true], [true, false, false]]
            {
                for crashed in [None, Some(3)] {
                    let outcome = run(values, seed, crashed);
                    let up = if crashed.is_some() { &outcome[..2] } else { &outcome[..] };
                    let first = up[0].unwrap_or_else(|| panic!("seed {seed}: no decision: {outcome:?}"));
                    assert!(up.iter().all(|value| *value == Some(first)), "seed {seed}: {outcome:?}");
                    assert!(values.contains(&first), "seed {seed}: nobody proposed {first}");
                }
            }
        }
    }

    #[test]
    fn messages_have_one_encoding() {
        let all = [
            Message::Report(7, false),
            Message::Report(7, true),
            Message::Proposal(300, None),
            Message::Proposal(1, Some(false)),
            Message::Proposal(1, Some(true)),
            Message::Decided(false),
            Message::Decided(true),
        ];
        for message in all {
            assert_eq!(Message::from_bytes(message.to_bytes()), Ok(message));
        }
        assert!(Message::from_bytes(bytes::Bytes::from_static(&[9, 0])).is_err());
    }
}
