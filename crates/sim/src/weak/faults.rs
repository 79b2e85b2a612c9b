//! What goes wrong in a run of a level, and when.

use super::Scenario;
use super::fault::{Fault, Hazard};
use super::member::{Home, Member, TODAY};
use super::operator::Change;
use super::world::World;
use crate::small::{self, Moment, Strike, Weather};
use synod_protocols::Rng;
use synod_protocols::log::Ticket;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::weak::{Request, WallTime};

/// By how much a wall clock is set to either side, in nanoseconds: clocks may be 10 s apart.
const JUMP: u64 = 12_000_000_000;
/// How far clocks are from the true time, if they are within that bound of each other, and if not.
const APART: [u64; 2] = [5_000_000_000, 30_000_000_000];
/// The true time when all trouble ends, in nanoseconds after what clocks read at first: nothing is from the future any
/// more.
const TRUE_TIME: i64 = 60_000_000_000;

/// What the world has planned for a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// A session asks.
    Ask(u64),
    /// A session gives up.
    GiveUp(u64, Ticket),
    Strike(Strike),
    /// By how many nanoseconds a wall clock is ahead from now on.
    Clock(NodeId, i64),
    /// The operator wants the members changed.
    Want(Change),
    /// The operator looks after the changes that are not done.
    Operate,
}

/// What the seed of a scenario draws of its faults.
fn drawn(scenario: &Scenario) -> Vec<Fault> {
    let Scenario { level, members, seed, .. } = *scenario;
    let mut kinds = match scenario.fault {
        Fault::None => Vec::new(),
        Fault::All => {
            let mut rng = Rng::new(seed ^ 0xfa17);
            let more = rng.below(4);
            let mut any = || Fault::drawn()[rng.below(Fault::drawn().len() as u64) as usize];
            (0..2 + more).map(|_| any()).collect()
        }
        // Nothing is late for long where nobody has begun another life.
        Fault::Of(Hazard::Late) => vec![scenario.fault, Fault::Of(Hazard::Crash)],
        fault => vec![fault],
    };
    kinds.retain(|fault| fault.strikes(level, members));
    let mut lost = 0;
    kinds.retain(|fault| {
        lost += u64::from(fault.loses_disk());
        !fault.loses_disk() || lost == 1
    });
    kinds
}

/// The network under this fault.
pub(super) fn weather(scenario: &Scenario) -> Weather {
    let hazard = |fault| if let Fault::Of(hazard) = fault { Some(hazard) } else { None };
    let kinds: Vec<Hazard> = drawn(scenario).into_iter().filter_map(hazard).collect();
    small::weather(scenario.latency, &kinds)
}

impl<P: Member> World<P> {
    pub(super) fn plan_faults(&mut self) {
        let mut rng = Rng::new(self.scenario.seed ^ 0xb10e5);
        for fault in drawn(&self.scenario) {
            let is_once = matches!(fault, Fault::Members | Fault::ClocksApart) || fault.loses_disk();
            let times = if is_once { 1 } else { 1 + rng.below(4) };
            for _ in 0..times {
                self.plan_one(fault, &mut rng);
            }
        }
    }

    fn plan_one(&mut self, fault: Fault, rng: &mut Rng) {
        let Scenario { members, seed, span, .. } = self.scenario;
        let ids: Vec<NodeId> = (1..=members).map(NodeId).collect();
        let moment = Moment::draw(&ids, rng, Time::ZERO + span);
        let either_side = |rng: &mut Rng, bound: u64| rng.below(2 * bound) as i64 - bound as i64;
        let plan: Vec<(Time, Alarm)> = match fault {
            Fault::None | Fault::All => Vec::new(),
            Fault::Of(hazard) => {
                let strikes = hazard.plan(moment, &ids, rng).into_iter();
                strikes.map(|(at, strike)| (at, Alarm::Strike(strike))).collect()
            }
            Fault::ClockJump => vec![(moment.begin, Alarm::Clock(moment.id, either_side(rng, JUMP)))],
            Fault::ClocksApart => {
                let bound = APART[(seed / 4 % 2) as usize];
                let clock = |id: NodeId| (Time::ZERO, Alarm::Clock(id, either_side(rng, bound)));
                ids.into_iter().map(clock).collect()
            }
            Fault::Members => {
                let leaves = Alarm::Want(Change::Remove(NodeId(members)));
                let mut plan = vec![(moment.begin, Alarm::Want(Change::Add))];
                plan.extend((members > 2).then_some((moment.over, leaves)));
                plan
            }
        };
        plan.into_iter().for_each(|(at, alarm)| self.stage.alarm(at, alarm));
    }

    /// All faults end.
    pub(super) fn restore(&mut self) {
        self.stage.restore();
        self.stage.ids().into_iter().for_each(|id| self.set_clock(id, TRUE_TIME));
        self.look_after_disks();
        self.hand_over_late();
    }

    pub(super) fn on_alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Ask(session) => self.ask(session),
            Alarm::GiveUp(session, ticket) => self.give_up(session, ticket),
            Alarm::Clock(id, ahead) => self.set_clock(id, ahead),
            Alarm::Want(change) => self.want(change),
            Alarm::Operate => self.operate(),
            Alarm::Strike(strike) => {
                self.stage.strike(strike);
                self.look_after_disks();
                self.hand_over_late();
            }
        }
    }

    /// The wall clock is set, relative to the true time: now, and for all lives to come.
    fn set_clock(&mut self, id: NodeId, ahead: i64) {
        let wall_at_zero = TODAY.saturating_add_signed(ahead);
        self.stage.machine_mut(id).into_iter().for_each(|home| home.set_clock(wall_at_zero));
        self.request(id, Request::SetClock { wall_at_zero: WallTime(wall_at_zero) });
        self.stage.fault("clock", id, |id| format!("the wall clock of {id} is set {ahead} ns ahead"));
    }
}
