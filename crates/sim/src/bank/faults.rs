//! What goes wrong in a run between banks, and when.

use super::fault::Fault;
use super::stage::COORDINATOR;
use super::world::{Alarm, World};
use super::{Protocol, Scenario};
use crate::small::Weather;
use crate::units::Factor;
use std::time::Duration;
use synod_protocols::Rng;
use synod_protocols::types::{NodeId, Time};

/// A blow on a machine or a link, and its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Strike {
    Crash {
        id: NodeId,
        is_torn: bool,
    },
    Start(NodeId),
    Pause(NodeId),
    Resume(NodeId),
    Cut(NodeId, NodeId),
    Isolate(NodeId),
    Heal,
    Clock(NodeId, Factor),
    Slow(NodeId, Duration),
    Stall(NodeId, Duration),
    Fill(NodeId),
    Clear(NodeId),
    Rot(NodeId),
    /// All faults end.
    Recover,
}

/// Who crashes after which of its steps, counted from the first transaction on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// None: whoever coordinates.
    pub(super) whom: Option<NodeId>,
    pub(super) step: u64,
    pub(super) down: Duration,
}

/// Points that are tried, one for each seed; the next seeds begin again.
const POINTS: u64 = 256;

/// What the seed of a scenario draws of its faults.
pub(super) fn drawn(scenario: &Scenario) -> Vec<Fault> {
    let mut rng = Rng::new(scenario.seed ^ 0xfa17);
    match scenario.fault {
        Fault::None => Vec::new(),
        Fault::All => {
            let mut any = || Fault::DRAWN[rng.below(Fault::DRAWN.len() as u64) as usize];
            (0..2 + scenario.seed % 4).map(|_| any()).collect()
        }
        // Nothing is late for long where nobody has begun another life.
        Fault::Late => vec![Fault::Late, Fault::Crash],
        fault => vec![fault],
    }
}

/// The network under these faults.
pub(super) fn weather(scenario: &Scenario) -> Weather {
    let kinds = drawn(scenario);
    let share = |fault, thousandths| if kinds.contains(&fault) { thousandths } else { 0 };
    Weather {
        lost: share(Fault::Loss, 50),
        repeated: share(Fault::Duplicate, 100),
        late: share(Fault::Late, 50),
        is_disordered: kinds.contains(&Fault::Reorder),
        ..Weather::fair(scenario.latency)
    }
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        let scenario = self.scenario;
        let end = Time::ZERO + scenario.span;
        let mut rng = Rng::new(scenario.seed ^ 0xb10e5);
        let kinds = drawn(&scenario);
        for fault in &kinds {
            let times = if *fault == Fault::Rot { 1 } else { 1 + rng.below(4) };
            for _ in 0..times {
                self.plan_one(*fault, &mut rng, end);
            }
        }
        self.stage.alarm(end, Alarm::Strike(Strike::Recover));
    }

    fn plan_one(&mut self, fault: Fault, rng: &mut Rng, end: Time) {
        let ids = self.stage.ids();
        let one = |rng: &mut Rng| ids[rng.below(ids.len() as u64) as usize];
        let (id, other) = (one(rng), one(rng));
        let begin = Time(rng.below(end.0));
        let span = Duration::from_millis(rng.between(50, 1_500));
        let over = (begin + span).min(end);
        let soon = Duration::from_millis(rng.below(5));
        let crash = |id| Strike::Crash { id, is_torn: fault == Fault::Tear };
        let mut plan: Vec<(Time, Strike)> = Vec::new();
        match fault {
            Fault::Crash | Fault::Tear => plan.extend([(begin, crash(id)), (over, Strike::Start(id))]),
            Fault::CrashCoordinator => self.strike_at(rng, None),
            Fault::CrashBank => {
                let banks: Vec<NodeId> = ids.iter().copied().filter(|id| *id < COORDINATOR).collect();
                self.strike_at(rng, Some(banks[(self.scenario.seed % banks.len() as u64) as usize]));
            }
            Fault::PowerLoss => {
                plan.extend(ids.iter().map(|id| (begin, crash(*id))));
                plan.extend(ids.iter().map(|id| (over, Strike::Start(*id))));
            }
            Fault::Pause => plan.extend([(begin, Strike::Pause(id)), (over, Strike::Resume(id))]),
            Fault::Cut => {
                let both = [(begin, Strike::Cut(id, other)), (begin, Strike::Cut(other, id))];
                plan.extend(both);
                plan.push((over, Strike::Heal));
            }
            Fault::OneWayCut => plan.extend([(begin, Strike::Cut(id, other)), (over, Strike::Heal)]),
            Fault::Isolate => plan.extend([(begin, Strike::Isolate(id)), (over, Strike::Heal)]),
            Fault::Partition => {
                let (one, rest): (Vec<NodeId>, Vec<NodeId>) = ids.iter().partition(|_| rng.chance(1, 2));
                for (id, other) in one.iter().flat_map(|id| rest.iter().map(move |other| (*id, *other))) {
                    plan.extend([(begin, Strike::Cut(id, other)), (begin, Strike::Cut(other, id))]);
                }
                plan.push((over, Strike::Heal));
            }
            Fault::ClockRate => {
                let rate = Factor(rng.between(333_333, 3_000_000));
                plan.push((begin, Strike::Clock(id, rate)));
            }
            Fault::Slow => plan.push((begin, Strike::Slow(id, span))),
            Fault::Stall => plan.push((begin, Strike::Stall(id, span))),
            Fault::Full => plan.extend([(begin, Strike::Fill(id)), (over, Strike::Clear(id))]),
            Fault::Rot => {
                // Found when it starts again.
                let again = begin + soon;
                plan.extend([(begin, Strike::Rot(id)), (begin, crash(id)), (again, Strike::Start(id))]);
            }
            // The network's own, all the time.
            Fault::Loss | Fault::Duplicate | Fault::Reorder | Fault::Late => {}
            Fault::None | Fault::All => {}
        }
        plan.into_iter().for_each(|(at, strike)| self.stage.alarm(at, Alarm::Strike(strike)));
    }

    fn strike_at(&mut self, rng: &mut Rng, whom: Option<NodeId>) {
        let down = Duration::from_millis(rng.between(50, 1_500));
        self.point = Some(Point { whom, step: self.scenario.seed % POINTS, down });
    }

    /// Whoever is at the point where it is to crash does.
    pub(super) fn strike_if_due(&mut self) {
        let Some(Point { whom, step, down }) = self.point else { return };
        let Some(id) = whom.or(self.coordinator) else { return };
        let begun = *self.counted.get_or_insert_with(|| self.stage.steps(id));
        if self.stage.steps(id) >= begun + step {
            self.point = None;
            self.stage.crash(id, false);
            let end = Time::ZERO + self.scenario.span;
            let back = (self.stage.now + down).min(end.max(self.stage.now));
            self.stage.alarm(back, Alarm::Strike(Strike::Start(id)));
        }
    }

    pub(super) fn strike(&mut self, strike: Strike) {
        match strike {
            Strike::Crash { id, is_torn } => self.stage.crash(id, is_torn),
            Strike::Start(id) => self.stage.start(id),
            Strike::Pause(id) => self.stage.pause(id),
            Strike::Resume(id) => self.stage.resume(id),
            Strike::Cut(from, to) => self.stage.cut(from, to),
            Strike::Isolate(id) => self.cut(id),
            Strike::Heal => self.stage.heal(),
            Strike::Clock(id, rate) => self.stage.set_rate(id, rate),
            Strike::Slow(id, span) => self.stage.slow_disk(id, span),
            Strike::Stall(id, span) => self.stage.stall_disk(id, span),
            Strike::Fill(id) => self.stage.fill_disk(id),
            Strike::Clear(id) => self.stage.clear_disk(id),
            Strike::Rot(id) => {
                if self.stage.rot(id) {
                    self.rotten.push(id);
                }
            }
            Strike::Recover => self.recover(),
        }
    }

    fn recover(&mut self) {
        self.point = None;
        *self.stage.weather() = Weather::fair(self.scenario.latency);
        self.stage.heal();
        for id in self.stage.ids() {
            self.stage.resume(id);
            self.stage.start(id);
            self.stage.clear_disk(id);
            self.stage.set_rate(id, Factor::ONE);
        }
    }

    /// Whether everything must come to an end: not if a machine that nobody can help abstains. A member of the
    /// replicated coordinator's log can be helped.
    pub(super) fn owes_an_end(&self) -> bool {
        let is_helped = |id: &NodeId| self.scenario.protocol == Protocol::Replicated && *id >= COORDINATOR;
        self.rotten.iter().all(is_helped)
    }
}
