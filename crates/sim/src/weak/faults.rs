//! What goes wrong in a run of a level, and when.

use super::member::{Member, TODAY, lives};
use super::world::World;
use super::{Fault, Level, Scenario};
use crate::small::Weather;
use std::time::Duration;
use synod_protocols::Rng;
use synod_protocols::log::Ticket;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::weak::{Request, WallTime};

/// For how long a disk is slow.
const SLOW_DISK: Duration = Duration::from_millis(400);

/// What the world has planned for a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// A session asks.
    Ask(u64),
    /// A session gives up.
    GiveUp(u64, Ticket),
    Crash(NodeId),
    Start(NodeId),
    Cut(NodeId, NodeId),
    Heal,
    SlowDisk(NodeId),
    /// By how many nanoseconds a wall clock is ahead from now on.
    Clock(NodeId, i64),
    /// A member joins, at another.
    Join(NodeId, NodeId),
    Remove(NodeId, NodeId),
}

/// The network under this fault.
pub(super) fn weather(scenario: &Scenario) -> Weather {
    let fault = scenario.fault;
    Weather {
        lost: if fault.has(Fault::Loss) { 50 } else { 0 },
        repeated: if fault.has(Fault::Disorder) { 50 } else { 0 },
        is_disordered: fault.has(Fault::Disorder),
        ..Weather::fair(scenario.latency)
    }
}

impl<P: Member> World<P> {
    pub(super) fn plan_faults(&mut self) {
        let Scenario { fault, members, span, level, .. } = self.scenario;
        let mut rng = Rng::new(self.scenario.seed ^ 0xfa17);
        let mut moment = |from: u64| Time(rng.between(from, span.as_nanos() as u64));
        let starts: Vec<Time> = (0..12).map(|_| moment(500_000_000)).collect();
        let mut rng = Rng::new(self.scenario.seed ^ 0xfa18);
        let mut member = || NodeId(1 + rng.below(members));
        let mut plan: Vec<(Time, Alarm)> = Vec::new();
        if fault.has(Fault::Partitions) {
            for start in &starts[..3] {
                let (one, other) = (member(), member());
                let is_one_way = start.0 % 3 == 0;
                plan.push((*start, Alarm::Cut(one, other)));
                if !is_one_way {
                    plan.push((*start, Alarm::Cut(other, one)));
                }
                plan.push((*start + Duration::from_millis(200 + start.0 % 900), Alarm::Heal));
            }
        }
        if fault.has(Fault::Crashes) {
            for start in &starts[3..6] {
                let id = member();
                plan.push((*start, Alarm::Crash(id)));
                plan.push((*start + Duration::from_millis(50 + start.0 % 800), Alarm::Start(id)));
            }
        }
        if fault.has(Fault::Disks) {
            plan.extend(starts[6..8].iter().map(|start| (*start, Alarm::SlowDisk(member()))));
        }
        if fault.has(Fault::Clocks) {
            for start in &starts[8..11] {
                let ahead = (start.0 % 24_000_000_000) as i64 - 12_000_000_000;
                plan.push((*start, Alarm::Clock(member(), ahead)));
            }
        }
        if fault.has(Fault::Members) && matches!(level, Level::Causal | Level::Eventual) {
            plan.push((starts[11], Alarm::Join(NodeId(members + 1), member())));
            if members > 2 {
                let later = starts[11] + Duration::from_millis(starts[0].0 % 1_000);
                plan.push((later, Alarm::Remove(NodeId(members), NodeId(1 + starts[1].0 % (members - 1)))));
            }
        }
        plan.into_iter().for_each(|(at, alarm)| self.stage.alarm(at, alarm));
    }

    /// All faults end.
    pub(super) fn restore(&mut self) {
        let weather = self.stage.weather();
        *weather = Weather { lost: 0, repeated: 0, ..*weather };
        self.stage.heal();
        for id in self.stage.ids() {
            self.stage.start(id);
            // The true time, by which nothing is from the future any more.
            self.set_clock(id, 60_000_000_000);
        }
    }

    pub(super) fn on_alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Ask(session) => self.ask(session),
            Alarm::GiveUp(session, ticket) => self.give_up(session, ticket),
            Alarm::Crash(id) => self.stage.crash(id, false),
            Alarm::Start(id) => self.stage.start(id),
            Alarm::Cut(from, to) => self.stage.cut(from, to),
            Alarm::Heal => self.stage.heal(),
            Alarm::SlowDisk(id) => self.stage.slow_disk(id, SLOW_DISK),
            Alarm::Clock(id, ahead) => self.set_clock(id, ahead),
            Alarm::Join(member, at) => {
                self.seat(member, true);
                self.stage.start(member);
                let ticket = self.ticket();
                self.request(at, Request::AddMember { ticket, member });
            }
            Alarm::Remove(member, at) => {
                let ticket = self.ticket();
                self.request(at, Request::RemoveMember { ticket, member });
            }
        }
    }

    /// The wall clock is set, relative to the true time: now, and for all lives to come.
    fn set_clock(&mut self, id: NodeId, ahead: i64) {
        let wall_at_zero = TODAY.saturating_add_signed(ahead);
        let config = lives::<P>(self.start_of(id, wall_at_zero));
        if let Some(host) = self.stage.machine_mut(id) {
            host.config = config;
        }
        self.request(id, Request::SetClock { wall_at_zero: WallTime(wall_at_zero) });
        self.stage.fault("clock", id, |id| format!("the wall clock of {id} is set {ahead} ns ahead"));
    }
}
