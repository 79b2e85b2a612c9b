//! The impossibility result of Fischer, Lynch and Paterson (JACM 1985), executable.
//!
//! # What it says
//!
//! In a world without time, no deterministic protocol can promise that a decision is ever made if
//! even one process may crash. Nobody is malicious, and no message is lost: each is only delivered
//! as late as a scheduler pleases. A process that is slow looks like one that is dead.
//!
//! # What is run
//!
//! The real processes of [`synod_protocols::paxos`] and [`synod_protocols::ben_or`], three of
//! them. A step delivers one message, or wakes a process whose timer is set: without time a timer
//! may run out at any moment. A *configuration* is the state of all processes, and the messages on
//! their way. It is **bivalent** if both outcomes can still come, which two schedules prove
//! ([`Configuration::bivalence`]), and **univalent** if only one can, which takes all schedules.
//!
//! All schedules are infinitely many, because a proposer can always try a higher ballot. So
//! [`Configuration::valence`] answers for a *finite instance*, and says for which: processes wake at
//! most so many more times, and the messages that only spread an outcome (Accepted, Chosen, Decided)
//! are delivered at once. The second takes nothing away: a value is chosen when a majority has
//! accepted it, and hearing of it later decides nothing else. Configurations are recognised by a
//! fingerprint of 64 bits.
//!
//! # The adversary
//!
//! [`keep_bivalent`] follows the proof's third lemma. The processes take turns, and each turn ends
//! with the oldest message that waits for that process, so that every message is delivered and
//! nobody starves. Before it delivers that message, it looks for steps after which the delivery
//! leaves the configuration bivalent. There always are some, says the lemma; the search finds them.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::time::Duration;
use synod_protocols::ben_or::{self, BenOr};
use synod_protocols::paxos::{self, Paxos};
use synod_protocols::{Describe, Effects, Fingerprint, Input, NodeId, Process, Recovery, Rng, Time, Wire};

/// How many processes there are; one of them may crash.
pub const MEMBERS: usize = 3;
/// How many steps a schedule may take to prove that an outcome can still come.
const WITNESS_STEPS_MAX: usize = 400;
/// How often coins are thrown anew to find such a schedule.
const WITNESS_COINS: u64 = 6;
/// How many configurations one turn of the adversary looks at.
const TURN_CONFIGURATIONS_MAX: usize = 2_000;
/// The patience of a proposer of Paxos at first, in milliseconds.
pub const PATIENCE_MS: u64 = 100;

/// A protocol that agrees on a bit.
pub trait Consensus: Process<Base = ()> {
    /// Its name, in small letters.
    const NAME: &'static str;

    /// What one of the members is configured with.
    fn config(id: NodeId, members: Vec<NodeId>, seed: u64) -> Self::Config;

    /// The wish for a value.
    fn propose(value: bool) -> Self::Request;

    /// The value of a decision.
    fn outcome(event: &Self::Event) -> bool;

    /// Whether a message only spreads an outcome.
    fn spreads(message: &Self::Message) -> bool;

    /// Which round or attempt it is in.
    fn round(&self) -> u64;

    /// Coins fall otherwise from here on: whoever looks ahead must not know how they will.
    fn change_coins(&mut self, _seed: u64) {}
}

impl Consensus for Paxos {
    const NAME: &'static str = "paxos";

    fn config(id: NodeId, members: Vec<NodeId>, seed: u64) -> paxos::Config {
        paxos::Config { id, members, patience: Duration::from_millis(PATIENCE_MS), seed }
    }

    fn propose(value: bool) -> paxos::Propose {
        paxos::Propose(vec![b'0' + u8::from(value)].into())
    }

    fn outcome(event: &paxos::Chosen) -> bool {
        event.0[0] == b'1'
    }

    fn spreads(message: &paxos::Message) -> bool {
        matches!(message, paxos::Message::Accepted(_) | paxos::Message::Chosen(_))
    }

    fn round(&self) -> u64 {
        self.attempts()
    }
}

impl Consensus for BenOr {
    const NAME: &'static str = "ben-or";

    fn config(id: NodeId, members: Vec<NodeId>, seed: u64) -> ben_or::Config {
        ben_or::Config { id, members, seed: seed ^ id.0 << 56 }
    }

    fn propose(value: bool) -> ben_or::Propose {
        ben_or::Propose(value)
    }

    fn outcome(event: &ben_or::Decided) -> bool {
        event.0
    }

    fn spreads(message: &ben_or::Message) -> bool {
        matches!(message, ben_or::Message::Decided(_))
    }

    fn round(&self) -> u64 {
        BenOr::round(self)
    }

    fn change_coins(&mut self, seed: u64) {
        self.change_coin(seed);
    }
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Letter<M> {
    /// Letters are numbered in the order in which they were sent.
    pub number: u64,
    /// Who sent it.
    pub from: NodeId,
    /// Who will receive it.
    pub to: NodeId,
    /// What it says.
    pub message: M,
    sent: Time,
    /// After how many steps it was sent.
    sent_step: u64,
    digest: u64,
}

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The letter with this number arrives.
    Deliver(u64),
    /// The timer of this process runs out.
    Wake(NodeId),
}

/// `d17` delivers letter 17, `w2` wakes n2.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Deliver(number) => write!(f, "d{number}"),
            Step::Wake(id) => write!(f, "w{}", id.0),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Step, String> {
        let wrong = || format!("`{text}` is no step: `d17` delivers letter 17, `w2` wakes n2");
        let number = |rest: &str| rest.parse().map_err(|_| wrong());
        match text.split_at_checked(1) {
            Some(("d", rest)) => Ok(Step::Deliver(number(rest)?)),
            Some(("w", rest)) => Ok(Step::Wake(NodeId(number(rest)?))),
            _ => Err(wrong()),
        }
    }
}

/// The state of all processes, and the messages on their way.
#[derive(Clone)]
pub struct Configuration<P: Consensus> {
    now: Time,
    members: Vec<P>,
    letters: Vec<Letter<P::Message>>,
    sent: u64,
    steps: u64,
    decided: Option<bool>,
    /// Whether what only spreads an outcome is delivered at once.
    spreads_at_once: bool,
}

impl<P: Consensus> Configuration<P> {
    /// The beginning: every process that has a value proposes it.
    pub fn new(values: [Option<bool>; MEMBERS], seed: u64) -> Configuration<P> {
        let ids: Vec<NodeId> = (1..=MEMBERS as u64).map(NodeId).collect();
        let start = |id: &NodeId| {
            let config = P::config(*id, ids.clone(), seed.wrapping_add(id.0));
            P::recover(config, Recovery::First, (), Time::ZERO, &mut Effects::new())
        };
        let mut configuration = Configuration {
            now: Time::ZERO,
            members: ids.iter().map(start).collect(),
            letters: Vec::new(),
            sent: 0,
            steps: 0,
            decided: None,
            spreads_at_once: false,
        };
        for (id, value) in ids.into_iter().zip(values) {
            if let Some(value) = value {
                configuration.feed(id, Input::Request(P::propose(value)));
            }
        }
        configuration
    }

    /// What was decided, by whomever.
    pub fn decided(&self) -> Option<bool> {
        self.decided
    }

    /// The letters on their way, in the order in which they were sent.
    pub fn letters(&self) -> &[Letter<P::Message>] {
        &self.letters
    }

    /// The furthest round that any process is in.
    pub fn round(&self) -> u64 {
        self.members.iter().map(P::round).max().unwrap_or(0)
    }

    /// One of the processes.
    pub fn member(&self, id: NodeId) -> &P {
        &self.members[id.0 as usize - 1]
    }

    /// What must happen in a member's turn: the oldest letter to it arrives or, without one, it
    /// wakes if it waits.
    pub fn due(&self, member: NodeId) -> Option<Step> {
        let oldest = self.letters.iter().find(|letter| letter.to == member);
        let wakes = self.member(member).deadline().is_some();
        oldest.map(|letter| Step::Deliver(letter.number)).or(wakes.then_some(Step::Wake(member)))
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Everything that may happen next.
    pub fn enabled(&self) -> Vec<Step> {
        let wakes = (1..=MEMBERS as u64).map(NodeId).filter(|id| self.member(*id).deadline().is_some());
        self.letters.iter().map(|letter| Step::Deliver(letter.number)).chain(wakes.map(Step::Wake)).collect()
    }

    /// Takes a step that is enabled.
    pub fn apply(&mut self, step: Step) {
        self.steps += 1;
        match step {
            Step::Deliver(number) => {
                let found = self.letters.iter().position(|letter| letter.number == number);
                let letter = self.letters.remove(found.expect("only what is on its way arrives"));
                self.feed(letter.to, Input::Message { from: letter.from, message: letter.message });
            }
            Step::Wake(id) => {
                let deadline = self.member(id).deadline().expect("only who waits wakes");
                self.now = self.now.max(deadline);
                self.feed(id, Input::Timeout);
            }
        }
    }

    /// A step in words.
    pub fn describe(&self, step: Step) -> String {
        match step {
            Step::Wake(id) => format!("{id} loses patience"),
            Step::Deliver(number) => {
                let letter = self.letters.iter().find(|letter| letter.number == number);
                letter.map_or(String::new(), |Letter { from, to, message, .. }| {
                    format!("{from} → {to}  {} ({})", message.name(), message.detail())
                })
            }
        }
    }

    /// One process takes a step, and everything that it tells itself is part of it.
    fn feed(&mut self, id: NodeId, input: Input<P>) {
        let mut inputs = VecDeque::from([(id, input)]);
        let mut out = Effects::new();
        while let Some((at, input)) = inputs.pop_front() {
            self.members[at.0 as usize - 1].step(self.now, input, &mut out);
            // Nobody comes back from a crash here, so what is recorded is never read.
            out.records.clear();
            for emit in out.events.drain(..) {
                let outcome = P::outcome(&emit.event);
                assert!(self.decided.is_none_or(|before| before == outcome), "two values are decided");
                self.decided = Some(outcome);
            }
            for send in out.sends.drain(..) {
                let (to, message) = (send.to, send.message);
                if to == at || self.spreads_at_once && P::spreads(&message) {
                    inputs.push_back((to, Input::Message { from: at, message }));
                    continue;
                }
                let mut digest = Fingerprint::new();
                (at, to, &message.to_bytes()).hash(&mut digest);
                let (sent, sent_step, digest) = (self.now, self.steps, digest.finish());
                self.letters.push(Letter {
                    number: self.sent,
                    from: at,
                    to,
                    message,
                    sent,
                    sent_step,
                    digest,
                });
                self.sent += 1;
            }
        }
    }

    /// What decides its future, except when timers run out: they may at any moment.
    fn digest(&self) -> u64 {
        let mut digest = Fingerprint::new();
        self.members.iter().for_each(|member| member.fingerprint(Time(u64::MAX), &mut digest));
        let mut letters: Vec<u64> = self.letters.iter().map(|letter| letter.digest).collect();
        letters.sort_unstable();
        (letters, self.decided).hash(&mut digest);
        digest.finish()
    }
}

/// Two schedules from one configuration: the first ends with 0 decided, the second with 1.
pub type Bivalence = [Vec<Step>; 2];

/// Which outcomes a configuration of a finite instance can still have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valence {
    /// Only this one, or none: all configurations that can follow were looked at.
    Univalent {
        /// The outcome; `None` if the instance ends before any decision.
        outcome: Option<bool>,
        /// How many configurations that took.
        configurations: usize,
    },
    /// Both.
    Bivalent,
    /// At most one was found before the budget was spent.
    Unknown {
        /// The budget.
        configurations: usize,
    },
}

impl fmt::Display for Valence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Valence::Univalent { outcome: Some(outcome), configurations } => {
                write!(f, "{}-valent ({configurations} configurations)", u8::from(*outcome))
            }
            Valence::Univalent { outcome: None, configurations } => {
                write!(f, "undecided ({configurations} configurations)")
            }
            Valence::Bivalent => f.write_str("bivalent"),
            Valence::Unknown { configurations } => write!(f, "unknown after {configurations} configurations"),
        }
    }
}

impl<P: Consensus> Configuration<P> {
    /// A proof that both outcomes can still come, if an easy one is found: two processes are left
    /// alone with each other, as if the third had crashed, in every pairing and with several coins.
    pub fn bivalence(&self) -> Option<Bivalence> {
        if self.decided.is_some() {
            return None;
        }
        let (mut zero, mut one) = (None, None);
        for coins in 0..WITNESS_COINS {
            for leader in 1..=MEMBERS as u64 {
                for helper in (1..=MEMBERS as u64).filter(|helper| *helper != leader) {
                    match self.alone([NodeId(leader), NodeId(helper)], coins) {
                        Some((false, schedule)) => zero = zero.or(Some(schedule)),
                        Some((true, schedule)) => one = one.or(Some(schedule)),
                        None => {}
                    }
                    if let (Some(zero), Some(one)) = (&zero, &one) {
                        return Some([zero.clone(), one.clone()]);
                    }
                }
            }
        }
        None
    }

    /// What two processes decide if nobody else takes part, the first waking whenever nothing is
    /// on its way between them.
    fn alone(&self, pair: [NodeId; 2], coins: u64) -> Option<(bool, Vec<Step>)> {
        let mut ahead = self.clone();
        ahead.members.iter_mut().zip(0..).for_each(|(member, i)| member.change_coins(coins << 8 | i));
        let mut schedule = Vec::new();
        let mut wakes = ahead.member(pair[0]).deadline().is_some();
        while ahead.decided.is_none() && schedule.len() < WITNESS_STEPS_MAX {
            let between = |letter: &&Letter<_>| pair.contains(&letter.from) && pair.contains(&letter.to);
            let step = match ahead.letters.iter().find(between) {
                Some(letter) if !wakes => Step::Deliver(letter.number),
                _ if ahead.member(pair[0]).deadline().is_some() => Step::Wake(pair[0]),
                _ => return None,
            };
            wakes = false;
            ahead.apply(step);
            schedule.push(step);
        }
        Some((ahead.decided?, schedule))
    }

    /// Which outcomes can come in the finite instance in which processes wake at most `wakes` more
    /// times. Looks at `configurations_max` configurations at most.
    pub fn valence(&self, wakes: u32, configurations_max: usize) -> Valence {
        let mut first = self.clone();
        first.spreads_at_once = true;
        let mut seen = HashSet::from([(first.digest(), wakes)]);
        let mut stack = vec![(first, wakes)];
        let mut outcome = None;
        while let Some((configuration, wakes)) = stack.pop() {
            if let Some(decided) = configuration.decided {
                match outcome {
                    Some(other) if other != decided => return Valence::Bivalent,
                    _ => outcome = Some(decided),
                }
                continue;
            }
            for step in configuration.enabled() {
                let left = match step {
                    Step::Wake(_) => wakes.checked_sub(1),
                    Step::Deliver(_) => Some(wakes),
                };
                let Some(left) = left else { continue };
                let mut next = configuration.clone();
                next.apply(step);
                if seen.insert((next.digest(), left)) {
                    if seen.len() > configurations_max {
                        return Valence::Unknown { configurations: configurations_max };
                    }
                    stack.push((next, left));
                }
            }
        }
        Valence::Univalent { outcome, configurations: seen.len() }
    }
}

/// What the adversary did in one turn.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Whose turn it was.
    pub member: NodeId,
    /// What had to happen, in words: the oldest letter to it arrives, or it wakes.
    pub due: String,
    /// What the adversary did before that, in words; empty if it was harmless at once.
    pub before: Vec<String>,
}

/// A run under the adversary.
#[derive(Clone)]
pub struct Run<P: Consensus> {
    /// Where it ended.
    pub last: Configuration<P>,
    /// How many steps it took.
    pub steps: u64,
    /// Every turn, in order.
    pub turns: Vec<Turn>,
    /// Two schedules which prove that the outcome is still open at the end.
    pub bivalence: Option<Bivalence>,
    /// For how many steps a letter waited at the most, those still on their way included.
    pub waited_max: u64,
    /// How many turns each process had.
    pub served: [u64; MEMBERS],
    /// The furthest round, or attempt, that any process came to.
    pub rounds: u64,
}

impl<P: Consensus> Run<P> {
    fn take(&mut self, step: Step) -> String {
        let words = self.last.describe(step);
        self.last.apply(step);
        self.steps += 1;
        self.rounds = self.rounds.max(self.last.round());
        words
    }
}

/// Schedules a protocol so that the outcome stays open for at least `steps` steps if that is
/// possible, while every letter is delivered in its turn and every process goes on. Where no way
/// is found it goes on all the same, and the run ends with the decision.
pub fn keep_bivalent<P: Consensus>(first: Configuration<P>, steps: u64) -> Run<P> {
    let mut run = Run {
        bivalence: None,
        last: first,
        steps: 0,
        turns: Vec::new(),
        waited_max: 0,
        served: [0; MEMBERS],
        rounds: 0,
    };
    for turn in 0.. {
        if run.steps >= steps || run.last.decided.is_some() {
            break;
        }
        let member = NodeId(turn % MEMBERS as u64 + 1);
        let Some(due) = run.last.due(member) else { continue };
        let oldest = run.last.letters.iter().find(|letter| letter.to == member);
        run.waited_max = run.waited_max.max(oldest.map_or(0, |letter| run.steps - letter.sent_step));
        let before = harmless(&run.last, due, turn).unwrap_or_default();
        let before = before.into_iter().map(|step| run.take(step)).collect();
        let due = run.take(due);
        run.served[member.0 as usize - 1] += 1;
        run.turns.push(Turn { member, due, before });
    }
    let waits = run.last.letters.iter().map(|letter| run.steps - letter.sent_step).max();
    run.waited_max = run.waited_max.max(waits.unwrap_or(0));
    run.bivalence = run.last.bivalence();
    run
}

/// The fewest steps after which `due` leaves the outcome open, if the search finds any. Coins fall
/// as the number of the turn says, not as they will.
pub fn harmless<P: Consensus>(from: &Configuration<P>, due: Step, turn: u64) -> Option<Vec<Step>> {
    let mut blind = from.clone();
    blind.members.iter_mut().zip(0..).for_each(|(member, i)| member.change_coins(!turn << 8 | i));
    let mut seen = HashSet::from([blind.digest()]);
    let mut queue = VecDeque::from([(blind, Vec::new())]);
    while let Some((configuration, path)) = queue.pop_front() {
        let mut after = configuration.clone();
        after.apply(due);
        if after.bivalence().is_some() {
            return Some(path);
        }
        for step in configuration.enabled().into_iter().filter(|step| *step != due) {
            let mut next = configuration.clone();
            next.apply(step);
            if next.decided.is_none() && seen.len() < TURN_CONFIGURATIONS_MAX && seen.insert(next.digest()) {
                queue.push_back((next, path.iter().copied().chain([step]).collect()));
            }
        }
    }
    None
}

/// The same processes in a world with time: every letter arrives after exactly `delay`, and timers
/// run out when they are due. Returns when a decision is made, if that is before `until`.
pub fn with_timeouts<P: Consensus>(
    values: [Option<bool>; MEMBERS],
    seed: u64,
    delay: Duration,
    until: Duration,
) -> Option<Duration> {
    let mut configuration = Configuration::<P>::new(values, Rng::new(seed).next());
    let end = Time::ZERO + until;
    while configuration.decided.is_none() {
        let letter = configuration.letters.first().map(|letter| letter.sent + delay);
        let wakes = (1..=MEMBERS as u64).map(NodeId);
        let wakes = wakes.filter_map(|id| Some((configuration.member(id).deadline()?, id))).min();
        let (at, step) = match (letter, wakes) {
            (Some(arrives), Some((due, id))) if due < arrives => (due, Step::Wake(id)),
            (Some(arrives), _) => (arrives, Step::Deliver(configuration.letters[0].number)),
            (None, Some((due, id))) => (due, Step::Wake(id)),
            (None, None) => return None,
        };
        if at > end {
            return None;
        }
        configuration.now = configuration.now.max(at);
        configuration.apply(step);
    }
    Some(configuration.now.since(Time::ZERO))
}
