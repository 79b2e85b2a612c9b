//! Faults of machines, links, clocks and disks: by name, when each strikes, and what it does to a stage.
//!
//! Which of them a world can bear, and what it promises under each, is the world's own affair.

use super::host::Machine;
use super::network::Weather;
use super::stage::Stage;
use crate::units::Factor;
use std::time::Duration;
use synod_protocols::Rng;
use synod_protocols::types::{NodeId, Time};

/// A kind of fault. Where the replicated logs have it too, it goes by the same name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hazard {
    /// A machine crashes, loses what was not synced, and comes back.
    Crash,
    /// All lose power at once.
    PowerLoss,
    /// A crash leaves a part of what was not synced.
    Tear,
    /// A machine stops for a while, as under SIGSTOP.
    Pause,
    /// A link is cut.
    Cut,
    /// One direction of a link is cut.
    OneWayCut,
    /// A machine is cut off from all others.
    Isolate,
    /// The machines fall into two groups.
    Partition,
    /// Messages are lost.
    Loss,
    /// Messages arrive twice.
    Duplicate,
    /// Messages overtake each other.
    Reorder,
    /// Messages linger for up to two seconds.
    Late,
    /// Clocks run at a third to three times their rate.
    ClockRate,
    /// Syncs take fifty times as long.
    Slow,
    /// A disk does nothing for a while.
    Stall,
    /// A disk is full for a while.
    Full,
    /// A sync fails: what it covered is unknown, so the machine stops, and is started again.
    FailSync,
    /// Something on a disk that was synced cannot be read any more. It is found when the machine starts again.
    Rot,
    /// A machine loses all that was on its disk, and starts again.
    Wipe,
    /// A disk says for a while that it has synced, and has not; then its machine crashes. Nobody can bear that.
    Lie,
}

impl Hazard {
    /// Its name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Hazard::Crash => "crash",
            Hazard::PowerLoss => "power-loss",
            Hazard::Tear => "torn-write",
            Hazard::Pause => "pause",
            Hazard::Cut => "cut",
            Hazard::OneWayCut => "one-way-cut",
            Hazard::Isolate => "isolate",
            Hazard::Partition => "partition",
            Hazard::Loss => "loss",
            Hazard::Duplicate => "duplicate",
            Hazard::Reorder => "reorder",
            Hazard::Late => "late",
            Hazard::ClockRate => "clock-rate",
            Hazard::Slow => "disk-slow",
            Hazard::Stall => "disk-stall",
            Hazard::Full => "disk-full",
            Hazard::FailSync => "failed-sync",
            Hazard::Rot => "rot",
            Hazard::Wipe => "lost-disk",
            Hazard::Lie => "lying-disk",
        }
    }
}

/// The network under these.
pub(crate) fn weather(latency: (Duration, Duration), kinds: &[Hazard]) -> Weather {
    let share = |hazard, thousandths| if kinds.contains(&hazard) { thousandths } else { 0 };
    Weather {
        lost: share(Hazard::Loss, 50),
        repeated: share(Hazard::Duplicate, 100),
        late: share(Hazard::Late, 50),
        is_disordered: kinds.contains(&Hazard::Reorder),
        ..Weather::fair(latency)
    }
}

/// A blow on a machine or a link, or its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strike {
    Crash { id: NodeId, is_torn: bool },
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
    FailSync(NodeId),
    Rot(NodeId),
    Wipe(NodeId),
    Lie(NodeId),
}

/// When something strikes, whom, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) id: NodeId,
    /// Another one, or the same.
    pub(crate) other: NodeId,
    pub(crate) begin: Time,
    pub(crate) span: Duration,
    /// When it is over: not after the end of all trouble.
    pub(crate) over: Time,
    /// A few milliseconds after the beginning.
    pub(crate) soon: Time,
}

impl Moment {
    /// One among these machines, before that time.
    pub(crate) fn draw(ids: &[NodeId], rng: &mut Rng, end: Time) -> Moment {
        let one = |rng: &mut Rng| ids[rng.below(ids.len() as u64) as usize];
        let (id, other) = (one(rng), one(rng));
        let begin = Time(rng.below(end.0));
        let span = Duration::from_millis(rng.between(50, 1_500));
        let soon = begin + Duration::from_millis(rng.below(5));
        Moment { id, other, begin, span, over: (begin + span).min(end), soon }
    }
}

impl Hazard {
    /// Its blows at a moment, among these machines.
    pub(crate) fn plan(self, moment: Moment, ids: &[NodeId], rng: &mut Rng) -> Vec<(Time, Strike)> {
        let Moment { id, other, begin, span, over, soon } = moment;
        let crash = |id| Strike::Crash { id, is_torn: self == Hazard::Tear };
        let both = |one, other| [(begin, Strike::Cut(one, other)), (begin, Strike::Cut(other, one))];
        match self {
            Hazard::Crash | Hazard::Tear => vec![(begin, crash(id)), (over, Strike::Start(id))],
            Hazard::PowerLoss => {
                let starts = ids.iter().map(|id| (over, Strike::Start(*id)));
                ids.iter().map(|id| (begin, crash(*id))).chain(starts).collect()
            }
            Hazard::Pause => vec![(begin, Strike::Pause(id)), (over, Strike::Resume(id))],
            Hazard::Cut => both(id, other).into_iter().chain([(over, Strike::Heal)]).collect(),
            Hazard::OneWayCut => vec![(begin, Strike::Cut(id, other)), (over, Strike::Heal)],
            Hazard::Isolate => vec![(begin, Strike::Isolate(id)), (over, Strike::Heal)],
            Hazard::Partition => {
                let (one, rest): (Vec<NodeId>, Vec<NodeId>) = ids.iter().partition(|_| rng.chance(1, 2));
                let pairs = one.iter().flat_map(|id| rest.iter().map(move |other| (*id, *other)));
                let cuts = pairs.flat_map(|(id, other)| both(id, other));
                cuts.chain([(over, Strike::Heal)]).collect()
            }
            Hazard::ClockRate => {
                let rate = Factor(rng.between(333_333, 3_000_000));
                vec![(begin, Strike::Clock(id, rate))]
            }
            Hazard::Slow => vec![(begin, Strike::Slow(id, span))],
            Hazard::Stall => vec![(begin, Strike::Stall(id, span))],
            Hazard::Full => vec![(begin, Strike::Fill(id)), (over, Strike::Clear(id))],
            Hazard::FailSync => vec![(begin, Strike::FailSync(id)), (over, Strike::Start(id))],
            Hazard::Rot => {
                vec![(begin, Strike::Rot(id)), (begin, crash(id)), (soon, Strike::Start(id))]
            }
            Hazard::Wipe => vec![(begin, crash(id)), (begin, Strike::Wipe(id)), (over, Strike::Start(id))],
            Hazard::Lie => vec![(begin, Strike::Lie(id)), (over, crash(id)), (over, Strike::Start(id))],
            // The network's own, all the time.
            Hazard::Loss | Hazard::Duplicate | Hazard::Reorder | Hazard::Late => Vec::new(),
        }
    }
}

impl<M: Machine + ?Sized, A, N> Stage<M, A, N> {
    /// A blow falls. False if there was nothing on a disk that could be lost, or no such disk.
    pub(crate) fn strike(&mut self, strike: Strike) -> bool {
        match strike {
            Strike::Crash { id, is_torn } => self.crash(id, is_torn),
            Strike::Start(id) => self.start(id),
            Strike::Pause(id) => self.pause(id),
            Strike::Resume(id) => self.resume(id),
            Strike::Cut(from, to) => self.cut(from, to),
            Strike::Isolate(id) => self.isolate(id),
            Strike::Heal => self.heal(),
            Strike::Clock(id, rate) => self.set_rate(id, rate),
            Strike::Slow(id, span) => self.slow_disk(id, span),
            Strike::Stall(id, span) => self.stall_disk(id, span),
            Strike::Fill(id) => self.fill_disk(id),
            Strike::Clear(id) => self.clear_disk(id),
            Strike::FailSync(id) => self.fail_sync(id),
            Strike::Rot(id) => return self.rot(id),
            Strike::Wipe(id) => return self.wipe(id),
            Strike::Lie(id) => return self.lie(id),
        }
        true
    }

    /// All of it ends: whoever is down starts, and whoever is stopped goes on.
    pub(crate) fn restore(&mut self) {
        let latency = self.weather().latency;
        *self.weather() = Weather::fair(latency);
        self.heal();
        for id in self.ids() {
            self.resume(id);
            self.start(id);
            self.clear_disk(id);
            self.set_rate(id, Factor::ONE);
        }
    }
}
