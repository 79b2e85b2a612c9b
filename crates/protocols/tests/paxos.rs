//! Paxos for one value: every interleaving of small instances, and duels that end.

use bytes::Bytes;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;
use synod_protocols::ballot::Ballot;
use synod_protocols::paxos::{Chosen, Config, Message, Paxos, Propose, Record};
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Effects, Fingerprint, Input, Process, Recovery, Release, Rng, Wire};

/// Some members, their disks, and a network that keeps every message for ever: any of them may
/// arrive at any time, often or never. That is loss, duplication, delay and reordering at once.
#[derive(Clone)]
struct World {
    now: Time,
    members: Vec<Paxos>,
    disks: Vec<Vec<Record>>,
    sent: BTreeSet<(NodeId, NodeId, Bytes)>,
    chosen: BTreeSet<Bytes>,
}

impl World {
    fn new(size: u64) -> World {
        let mut world = World {
            now: Time::ZERO,
            members: Vec::new(),
            disks: vec![Vec::new(); size as usize],
            sent: BTreeSet::new(),
            chosen: BTreeSet::new(),
        };
        for id in 1..=size {
            let config = Config { id: NodeId(id), ..world.config() };
            world.members.push(Paxos::recover(config, Recovery::First, (), Time::ZERO, &mut Effects::new()));
        }
        world
    }

    fn config(&self) -> Config {
        let members = (1..=self.disks.len() as u64).map(NodeId).collect();
        Config { id: NodeId(1), members, patience: Duration::from_millis(100), seed: 7 }
    }

    fn step(&mut self, id: NodeId, input: Input<Paxos>) {
        let mut out = Effects::new();
        let i = id.0 as usize - 1;
        self.members[i].step(self.now, input, &mut out);
        // Everything is held: a crash before the sync is a crash before the step.
        assert!(out.sends.iter().all(|send| send.release == Release::Held));
        self.disks[i].append(&mut out.records);
        self.sent.extend(out.sends.iter().map(|send| (id, send.to, send.message.to_bytes())));
        for emit in out.events {
            let Chosen(value) = emit.event;
            assert!([&b"a"[..], b"b", b"c"].contains(&&value[..]), "VALIDITY: {value:?} was not proposed");
            self.chosen.insert(value);
            assert!(self.chosen.len() == 1, "AGREEMENT: {:?} are chosen", self.chosen);
        }
    }

    fn propose(&mut self, id: u64, value: &'static str) {
        self.step(NodeId(id), Input::Request(Propose(Bytes::from_static(value.as_bytes()))));
    }

    fn deliver(&mut self, (from, to, bytes): &(NodeId, NodeId, Bytes)) {
        let message = Message::from_bytes(bytes.clone()).expect("what was encoded decodes");
        self.step(*to, Input::Message { from: *from, message });
    }

    /// Delivers what one member has sent another of one kind.
    fn deliver_all(&mut self, from: u64, to: u64, kind: fn(&Message) -> bool) {
        let on_way = |(a, b, bytes): &&(NodeId, NodeId, Bytes)| {
            (a.0, b.0) == (from, to) && kind(&Message::from_bytes(bytes.clone()).expect("it decodes"))
        };
        let messages: Vec<_> = self.sent.iter().filter(on_way).cloned().collect();
        messages.iter().for_each(|message| self.deliver(message));
    }

    fn restart(&mut self, id: NodeId) {
        let i = id.0 as usize - 1;
        let mut records = self.disks[i].iter().cloned();
        let config = Config { id, ..self.config() };
        let from = Recovery::Resume { records: &mut records };
        self.members[i] = Paxos::recover(config, from, (), self.now, &mut Effects::new());
    }

    fn timeout(&mut self, id: NodeId) {
        let Some(deadline) = self.members[id.0 as usize - 1].deadline() else { return };
        self.now = self.now.max(deadline);
        self.step(id, Input::Timeout);
    }

    /// Timers fire when the explorer says so, so deadlines do not matter.
    fn digest(&self, left: (u8, u8)) -> u64 {
        let mut digest = Fingerprint::new();
        for (member, disk) in self.members.iter().zip(&self.disks) {
            member.fingerprint(Time(u64::MAX), &mut digest);
            disk.iter().for_each(|record| record.to_bytes().hash(&mut digest));
        }
        (&self.sent, left).hash(&mut digest);
        digest.finish()
    }
}

/// Every state that deliveries, timeouts and crashes lead to, each once. Returns how many, how
/// many of them have an outcome, and whether that is all there are.
fn explore(world: World, timeouts: u8, crashes: u8, states_max: usize) -> (usize, usize, bool) {
    let mut seen = HashSet::from([world.digest((timeouts, crashes))]);
    let mut frontier = VecDeque::from([(world, timeouts, crashes)]);
    let (mut decided, mut complete) = (0, true);
    while let Some((world, timeouts, crashes)) = frontier.pop_front() {
        decided += usize::from(!world.chosen.is_empty());
        let mut visit = |next: World, timeouts, crashes| {
            if seen.len() >= states_max {
                complete = false;
            } else if seen.insert(next.digest((timeouts, crashes))) {
                frontier.push_back((next, timeouts, crashes));
            }
        };
        for message in &world.sent {
            let mut next = world.clone();
            next.deliver(message);
            visit(next, timeouts, crashes);
        }
        for id in (1..=world.members.len() as u64).map(NodeId) {
            if timeouts > 0 && world.members[id.0 as usize - 1].deadline().is_some() {
                let mut next = world.clone();
                next.timeout(id);
                visit(next, timeouts - 1, crashes);
            }
            if crashes > 0 {
                let mut next = world.clone();
                next.restart(id);
                visit(next, timeouts, crashes - 1);
            }
        }
    }
    (seen.len(), decided, complete)
}

fn report(what: &str, (states, decided, complete): (usize, usize, bool)) {
    let end = if complete { "complete" } else { "cut off at the bound" };
    println!("paxos, {what}: {states} states, {decided} with an outcome, {end}");
    assert!(decided > 0, "no run came to an end");
}

#[test]
fn two_members_and_two_proposers_agree_in_every_interleaving() {
    let mut world = World::new(2);
    world.propose(1, "a");
    world.propose(2, "b");
    let found = explore(world, 0, 0, 30_000);
    report("2 members, 2 proposers", found);
    assert!(found.2, "everything was to be seen");
}

#[test]
fn three_members_and_two_proposers_agree_as_far_as_one_can_see() {
    let mut world = World::new(3);
    world.propose(1, "a");
    world.propose(3, "b");
    report("3 members, 2 proposers", explore(world, 0, 0, 15_000));
}

#[test]
fn a_proposer_that_crashes_and_proposes_something_else_agrees_with_itself() {
    let mut world = World::new(2);
    world.propose(1, "a");
    world.deliver_all(1, 1, |_| true);
    world.deliver_all(1, 2, |_| true);
    world.deliver_all(2, 1, |_| true);
    world.deliver_all(1, 1, |_| true);
    // Its Accept is on its way for ever.
    world.restart(NodeId(1));
    world.propose(1, "c");
    report("2 members, a proposer that changed its mind, 1 crash", explore(world, 0, 1, 30_000));
}

#[test]
fn a_restarted_proposer_uses_no_ballot_again() {
    let mut world = World::new(3);
    world.propose(1, "a");
    world.restart(NodeId(1));
    world.propose(1, "c");
    let ballots: BTreeSet<_> = world.sent.iter().map(|(_, _, bytes)| bytes.clone()).collect();
    let prepare = |round| Message::Prepare(Ballot { round, id: NodeId(1) }).to_bytes();
    assert_eq!(ballots, BTreeSet::from([prepare(1), prepare(2)]));
}

#[test]
fn a_promise_survives_a_crash() {
    let mut world = World::new(3);
    world.propose(1, "a");
    for member in [1, 2] {
        world.deliver_all(1, member, |message| matches!(message, Message::Prepare(_)));
        world.deliver_all(member, 1, |message| matches!(message, Message::Promise(..)));
    }
    world.propose(3, "b");
    for member in [2, 3] {
        world.deliver_all(3, member, |message| matches!(message, Message::Prepare(_)));
        world.deliver_all(member, 3, |message| matches!(message, Message::Promise(..)));
    }
    world.restart(NodeId(2));
    for (proposer, acceptors) in [(1, [1, 2]), (3, [2, 3])] {
        for member in acceptors {
            world.deliver_all(proposer, member, |message| matches!(message, Message::Accept(_)));
            (1..=3).for_each(|learner| {
                world.deliver_all(member, learner, |message| matches!(message, Message::Accepted(_)));
            });
        }
    }
    assert_eq!(world.chosen, BTreeSet::from([Bytes::from_static(b"b")]));
}

#[test]
fn a_new_proposer_proposes_what_may_have_been_chosen() {
    let mut world = World::new(3);
    world.propose(1, "a");
    for member in [1, 2] {
        world.deliver_all(1, member, |message| matches!(message, Message::Prepare(_)));
        world.deliver_all(member, 1, |message| matches!(message, Message::Promise(..)));
    }
    // One acceptor has accepted it, and nobody else ever hears of it.
    world.deliver_all(1, 2, |message| matches!(message, Message::Accept(_)));
    world.propose(3, "b");
    world.timeout(NodeId(3)); // preempted once: its first ballot is above n1's only by its id
    for member in [2, 3] {
        world.deliver_all(3, member, |message| matches!(message, Message::Prepare(_)));
        world.deliver_all(member, 3, |message| matches!(message, Message::Promise(..)));
    }
    for member in [2, 3] {
        world.deliver_all(3, member, |message| matches!(message, Message::Accept(_)));
        world.deliver_all(member, 3, |message| matches!(message, Message::Accepted(_)));
    }
    assert_eq!(world.chosen, BTreeSet::from([Bytes::from_static(b"a")]));
}

#[test]
fn two_proposers_can_preempt_each_other_for_ever() {
    let mut world = World::new(3);
    world.propose(1, "a");
    world.propose(2, "b");
    for _ in 0..100 {
        // Each prepares, with a quorum of promises, before the other's Accept arrives.
        for proposer in [1, 2] {
            world.timeout(NodeId(proposer));
            for member in [1, 2, 3] {
                world.deliver_all(proposer, member, |message| matches!(message, Message::Prepare(_)));
                world.deliver_all(member, proposer, |message| {
                    matches!(message, Message::Promise(..) | Message::Preempted(_))
                });
            }
            for member in [1, 2, 3] {
                world.deliver_all(3 - proposer, member, |message| matches!(message, Message::Accept(_)));
                world.deliver_all(member, 3 - proposer, |message| matches!(message, Message::Preempted(_)));
            }
        }
        world.sent.clear();
    }
    assert!(world.chosen.is_empty(), "the schedule was meant to starve them: {:?}", world.chosen);
}

#[test]
fn duels_end_when_messages_take_less_than_the_patience() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let size = 3 + 2 * rng.below(2);
        let mut world = World::new(size);
        for id in 1..=size {
            let mut config = Config { id: NodeId(id), ..world.config() };
            config.seed = seed * 100 + id;
            world.members[id as usize - 1] =
                Paxos::recover(config, Recovery::First, (), Time::ZERO, &mut Effects::new());
        }
        for (id, value) in [(1, "a"), (2, "b"), (3, "c")] {
            world.propose(id, value);
        }
        let mut flight: Vec<(Time, (NodeId, NodeId, Bytes))> = Vec::new();
        for _ in 0..20_000 {
            let sent = std::mem::take(&mut world.sent);
            // One in ten is lost; the others take up to 40 ms.
            for message in sent {
                if message.0 == message.1 || !rng.chance(1, 10) {
                    flight.push((Time(world.now.0 + rng.below(40_000_000)), message));
                }
            }
            let next = flight.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(i, (at, _))| (*at, i));
            let timer = (1..=size).map(NodeId);
            let timer = timer.filter_map(|id| Some((world.members[id.0 as usize - 1].deadline()?, id))).min();
            match (next, timer) {
                (Some((at, i)), timer) if timer.is_none_or(|(deadline, _)| at <= deadline) => {
                    world.now = at;
                    let (_, message) = flight.swap_remove(i);
                    world.deliver(&message);
                }
                (_, Some((_, id))) => world.timeout(id),
                _ => break,
            }
        }
        assert_eq!(world.chosen.len(), 1, "seed {seed}: nothing was chosen");
        let waiting = world.members.iter().filter(|member| member.deadline().is_some()).count();
        assert_eq!(waiting, 0, "seed {seed}: a proposer never learnt the outcome");
    }
}

#[test]
fn messages_and_records_round_trip_and_garbage_is_refused() {
    let ballot = Ballot { round: 300, id: NodeId(2) };
    let proposal = (ballot, Bytes::from_static(b"value"));
    let messages = [
        Message::Prepare(ballot),
        Message::Promise(ballot, None),
        Message::Promise(ballot, Some(proposal.clone())),
        Message::Accept(proposal.clone()),
        Message::Accepted(proposal.clone()),
        Message::Preempted(ballot),
        Message::Chosen(Bytes::new()),
    ];
    for message in messages {
        let bytes = message.to_bytes();
        assert_eq!(Message::from_bytes(bytes.clone()), Ok(message));
        (0..bytes.len()).for_each(|end| assert!(Message::from_bytes(bytes.slice(..end)).is_err()));
    }
    for record in [Record::Promised(ballot), Record::Accepted(proposal)] {
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(bytes.clone()), Ok(record));
        (0..bytes.len()).for_each(|end| assert!(Record::from_bytes(bytes.slice(..end)).is_err()));
    }
    let mut rng = Rng::new(1);
    for _ in 0..100_000 {
        let bytes: Vec<u8> = (0..rng.below(20)).map(|_| rng.below(8) as u8).collect();
        if let Ok(message) = Message::from_bytes(bytes.clone().into()) {
            assert_eq!(Message::from_bytes(message.to_bytes()), Ok(message));
        }
        drop(Record::from_bytes(bytes.into()));
    }
}
