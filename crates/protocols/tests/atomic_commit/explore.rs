//! Every interleaving of small instances, with crashes, losses, repetitions and timers at any moment.

use super::party::{Party, TwoPhase};
use super::subject::Limits;
use super::world::{Flying, World, transfer};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use synod_protocols::types::NodeId;
use synod_protocols::{Fingerprint, Wire};

/// A world whose network keeps every message for ever: any of them may arrive at any time, often or
/// never. That is loss, repetition, delay and reordering at once.
#[derive(Clone)]
struct State<P: Party> {
    world: World<P>,
    sent: BTreeMap<(NodeId, NodeId, Vec<u8>), P::Message>,
    timeouts: u8,
    crashes: u8,
}

impl<P: Party> State<P> {
    fn settle(mut self) -> Self {
        for Flying { from, to, message } in std::mem::take(&mut self.world.flight) {
            self.sent.insert((from, to, message.to_bytes().to_vec()), message);
        }
        self
    }

    fn digest(&self) -> u64 {
        let mut digest = Fingerprint::new();
        self.world.digest(&mut digest);
        self.sent.keys().for_each(|key| key.hash(&mut digest));
        (self.timeouts, self.crashes).hash(&mut digest);
        digest.finish()
    }

    fn successors(&self) -> Vec<Self> {
        let mut next = Vec::new();
        for ((from, to, _), message) in &self.sent {
            let mut state = self.clone();
            state.world.arrive(*from, *to, message.clone());
            next.push(state);
        }
        for id in self.world.machines.keys().copied() {
            if self.timeouts > 0 && self.world.deadline(id).is_some() {
                let mut state = self.clone();
                state.timeouts -= 1;
                state.world.timeout(id);
                next.push(state);
            }
            if self.crashes > 0 {
                let mut state = self.clone();
                state.crashes -= 1;
                state.world.crash(id, 0);
                state.world.start(id);
                next.push(state);
            }
        }
        next.into_iter().map(State::settle).collect()
    }
}

struct Found {
    states: usize,
    committed: usize,
    aborted: usize,
    is_complete: bool,
}

fn explore<P: Party>(world: World<P>, timeouts: u8, crashes: u8, states_max: usize) -> Found {
    let first = State { world, sent: BTreeMap::new(), timeouts, crashes }.settle();
    let mut seen = HashSet::from([first.digest()]);
    let mut frontier = VecDeque::from([first]);
    let mut found = Found { states: 0, committed: 0, aborted: 0, is_complete: true };
    while let Some(state) = frontier.pop_front() {
        found.states += 1;
        found.committed += usize::from(state.world.oracle.commits == 2);
        found.aborted += usize::from(state.world.oracle.aborts > 0);
        if state.world.is_quiet() && state.world.oracle.commits != 1 {
            state.world.check_money();
        }
        for next in state.successors() {
            if seen.len() >= states_max {
                found.is_complete = false;
            } else if seen.insert(next.digest()) {
                frontier.push_back(next);
            }
        }
    }
    found
}

fn report(what: &str, found: &Found) {
    let end = if found.is_complete { "complete" } else { "cut off at the bound" };
    let Found { states, committed, aborted, .. } = found;
    println!("{what}: {states} states, {committed} committed everywhere, {aborted} aborted somewhere, {end}");
    assert!(*committed > 0, "no run committed");
}

fn two_banks() -> World<TwoPhase> {
    let mut world = World::new(2, Limits::default());
    world.run_txn(NodeId(10), &transfer("a", "b", 30));
    world
}

#[test]
fn two_participants_agree_in_every_interleaving_of_messages_and_timers() {
    let found = explore(two_banks(), 2, 0, 40_000);
    report("2pc, 2 participants, 2 timeouts", &found);
    assert!(found.is_complete && found.aborted > 0, "everything was to be seen");
}

#[test]
fn two_participants_agree_whoever_crashes_at_any_moment() {
    let found = explore(two_banks(), 1, 1, 40_000);
    report("2pc, 2 participants, 1 timeout, 1 crash", &found);
    assert!(found.aborted > 0, "no run aborted");
}
