//! Runs in which messages take time: crashes at random moments, and then what blocks and what does not;
//! and partitions, which three-phase commit does not survive.

use super::party::{Party, ThreePhase, TwoPhase, locks};
use super::subject::Limits;
use super::world::{Flying, World, account, transfer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Describe, Rng};

const COORDINATOR: NodeId = NodeId(10);

/// No message is slower, so that three-phase commit's patience of 200 ms is enough.
const SLOWEST_MS: u64 = 40;

/// A world whose messages arrive by themselves.
pub struct Timed<P: Party> {
    pub world: World<P>,
    pub rng: Rng,
    /// Whether messages between two machines keep their order, as the replicated logs like it.
    pub keeps_order: bool,
    arrivals: Vec<(Time, Flying<P>)>,
}

impl<P: Party> Timed<P> {
    fn new(seed: u64, banks: u64) -> Self {
        let mut world = World::new(banks, Limits::default());
        world.trace = Some(String::new());
        Self::of(world, seed)
    }

    pub fn of(world: World<P>, seed: u64) -> Self {
        Timed { world, rng: Rng::new(seed), keeps_order: false, arrivals: Vec::new() }
    }

    /// Everything happens that is due until then.
    pub fn advance(&mut self, until: Time) {
        loop {
            for flying in std::mem::take(&mut self.world.flight) {
                let delay = Duration::from_micros(self.rng.between(1_000, SLOWEST_MS * 1_000));
                let pair = (flying.from, flying.to);
                let earlier = self.arrivals.iter().filter(|(_, other)| (other.from, other.to) == pair);
                let last = earlier.map(|(at, _)| *at).max().filter(|_| self.keeps_order);
                let at = (self.world.now + delay)
                    .max(last.map_or(Time::ZERO, |last| last + Duration::from_nanos(1)));
                self.arrivals.push((at, flying));
            }
            let next = self.arrivals.iter().enumerate().map(|(i, (at, _))| (*at, i)).min();
            let timer = self.world.next_deadline();
            let timer_first = timer.is_some_and(|(due, _)| next.is_none_or(|(at, _)| due < at));
            match (next, timer) {
                (_, Some((due, id))) if timer_first && due <= until => drop(self.world.timeout(id)),
                (Some((at, i)), _) if !timer_first && at <= until => {
                    self.world.now = self.world.now.max(at);
                    let (_, Flying { from, to, message }) = self.arrivals.swap_remove(i);
                    // A cut loses what is on its way, too.
                    if !self.world.cut.contains(&(from, to)) {
                        self.world.arrive(from, to, message);
                    }
                }
                _ => break,
            }
        }
        self.world.now = self.world.now.max(until);
    }

    pub fn moment(&mut self, until_ms: u64) -> Time {
        Time(self.rng.below(until_ms * 1_000_000))
    }

    /// A transfer between two different banks at random, or a read by accident of equal accounts.
    fn ask(&mut self, banks: u64) {
        let from = 1 + self.rng.below(banks);
        let to = 1 + (from + self.rng.below(banks - 1)) % banks;
        let amount = self.rng.below(30);
        if self.world.is_up(COORDINATOR) {
            let branches = transfer(&account(NodeId(from)), &account(NodeId(to)), amount);
            self.world.run_txn(COORDINATOR, &branches);
        }
    }

    /// Whether somebody who is up holds locks.
    fn is_blocked(&self) -> bool {
        let ids = self.world.machines.keys();
        ids.filter_map(|id| self.world.bank(*id)).any(|bank| !locks(bank).is_empty())
    }
}

/// Crashes and restarts at random moments, while transfers go on; in the end all are up.
fn crashes<P: Party>(seed: u64) -> u64 {
    let mut rng = Rng::new(seed ^ 0xC4A5);
    let banks = 2 + rng.below(3);
    let mut run: Timed<P> = Timed::new(seed, banks);
    let ids: Vec<NodeId> = run.world.machines.keys().copied().collect();
    let mut plan: Vec<(Time, Option<NodeId>)> = (0..6).map(|_| (run.moment(3_000), None)).collect();
    for _ in 0..1 + rng.below(6) {
        plan.push((run.moment(3_000), Some(ids[rng.below(ids.len() as u64) as usize])));
    }
    plan.sort_unstable();
    for (at, what) in plan {
        run.advance(at);
        match what {
            None => run.ask(banks),
            Some(id) if run.world.is_up(id) => run.world.crash(id, 0),
            Some(id) => run.world.start(id),
        }
    }
    for id in ids {
        if !run.world.is_up(id) {
            run.world.start(id);
        }
    }
    run.advance(Time::from_millis(60_000));
    assert!(run.world.is_quiet(), "NO PROGRESS: a minute after the last crash a lock is held");
    run.world.check_money();
    run.world.oracle.commits
}

#[test]
fn three_phase_commit_keeps_its_promises_under_crashes() {
    let commits: u64 = (0..3_000)
        .map(|seed| {
            let run = catch_unwind(AssertUnwindSafe(|| crashes::<ThreePhase>(seed)));
            run.unwrap_or_else(|_| panic!("seed {seed} broke a promise: see above"))
        })
        .sum();
    println!("3pc under crashes: {commits} commits");
    assert!(commits > 3_000);
}

/// One transfer, and the coordinator dies for ever at a random moment of it. Whether locks are held after
/// ten seconds.
fn coordinator_dies<P: Party>(seed: u64) -> bool {
    let mut run: Timed<P> = Timed::new(seed, 3);
    run.ask(3);
    let at = run.moment(200);
    run.advance(at);
    run.world.crash(COORDINATOR, 0);
    run.advance(Time::from_millis(10_000));
    run.is_blocked()
}

#[test]
fn two_phase_commit_blocks_when_the_coordinator_dies_and_three_phase_commit_does_not() {
    let blocked = |run: fn(u64) -> bool| (0..500).filter(|seed| run(*seed)).count();
    let two = blocked(coordinator_dies::<TwoPhase>);
    let three = blocked(coordinator_dies::<ThreePhase>);
    println!("of 500 deaths of the coordinator, {two} blocked 2pc, {three} blocked 3pc");
    assert!(two > 50, "the deaths were not at the right moments");
    assert_eq!(three, 0);
}

/// One transfer, and a cut at a random moment that heals again.
fn partition<P: Party>(seed: u64) -> Result<(), String> {
    let mut run: Timed<P> = Timed::new(seed, 2);
    run.world.oracle.is_split_allowed = true;
    run.world.run_txn(COORDINATOR, &transfer("a", "b", 30));
    let at = run.moment(200);
    run.advance(at);
    let alone = NodeId([1, 2, 10][run.rng.below(3) as usize]);
    for other in [1, 2, 10].map(NodeId).into_iter().filter(|other| *other != alone) {
        run.world.cut(alone, other);
        run.world.cut(other, alone);
    }
    run.advance(Time::from_millis(5_000));
    run.world.cut.clear();
    run.advance(Time::from_millis(20_000));
    match run.world.oracle.is_split {
        true => Err(run.world.trace.unwrap_or_default()),
        false => Ok(()),
    }
}

#[test]
fn a_partition_splits_three_phase_commit_and_not_two_phase_commit() {
    let found =
        |run: fn(u64) -> Result<(), String>| (0..2_000).find_map(|seed| Some((seed, run(seed).err()?)));
    let (seed, trace) = found(partition::<ThreePhase>).expect("a split is found");
    println!("3pc splits with seed {seed}:\n{trace}");
    assert!(trace.contains("PreCommit"));
    assert!(found(partition::<TwoPhase>).is_none(), "two-phase commit must not split");
}

#[test]
fn messages_describe_themselves() {
    let mut run: Timed<ThreePhase> = Timed::new(1, 2);
    run.world.run_txn(COORDINATOR, &transfer("a", "b", 30));
    let names: Vec<&str> = run.world.flight.iter().map(|flying| flying.message.name()).collect();
    assert_eq!(names, ["CanCommit", "CanCommit"]);
}
