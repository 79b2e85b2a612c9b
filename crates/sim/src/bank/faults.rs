//! What goes wrong in a run between banks, and when.

use super::fault::Fault;
use super::stage::COORDINATOR;
use super::world::{Alarm, World};
use super::{Protocol, Scenario};
use crate::small::{self, Hazard, Moment, Strike, Weather};
use std::time::Duration;
use synod_protocols::Rng;
use synod_protocols::types::{NodeId, Time};

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
    let kinds: Vec<Hazard> = drawn(scenario).into_iter().filter_map(Fault::hazard).collect();
    small::weather(scenario.latency, &kinds)
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
        self.stage.alarm(end, Alarm::Recover);
    }

    fn plan_one(&mut self, fault: Fault, rng: &mut Rng, end: Time) {
        let ids = self.stage.ids();
        let moment = Moment::draw(&ids, rng, end);
        match fault {
            Fault::CrashCoordinator => self.strike_at(rng, None),
            Fault::CrashBank => {
                let banks: Vec<NodeId> = ids.iter().copied().filter(|id| *id < COORDINATOR).collect();
                self.strike_at(rng, Some(banks[(self.scenario.seed % banks.len() as u64) as usize]));
            }
            other => {
                let plan = other.hazard().map(|hazard| hazard.plan(moment, &ids, rng));
                let alarm = |(at, strike)| self.stage.alarm(at, Alarm::Strike(strike));
                plan.into_iter().flatten().for_each(alarm);
            }
        }
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
            Strike::Isolate(id) => self.cut(id),
            Strike::Rot(id) => self.rotten.extend(self.stage.strike(strike).then_some(id)),
            other => drop(self.stage.strike(other)),
        }
    }

    /// All faults end.
    pub(super) fn recover(&mut self) {
        self.point = None;
        self.stage.restore();
    }

    /// Whether everything must come to an end: not if a machine that nobody can help abstains. A member of the
    /// replicated coordinator's log can be helped.
    pub(super) fn owes_an_end(&self) -> bool {
        let is_helped = |id: &NodeId| self.scenario.protocol == Protocol::Replicated && *id >= COORDINATOR;
        self.rotten.iter().all(is_helped)
    }
}
