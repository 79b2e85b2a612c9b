//! The faults by name.

use crate::outcome::Counts;
use std::fmt;
use std::str::FromStr;

/// One kind of fault, or a story made of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A member crashes and comes back.
    Crash,
    /// The leader crashes and comes back.
    CrashLeader,
    /// A member crashes, comes back and crashes again soon.
    CrashTwice,
    /// All members lose power at once.
    PowerLoss,
    /// A member stops for a while, as under SIGSTOP.
    Pause,
    /// A link is cut.
    Cut,
    /// One direction of a link is cut.
    OneWayCut,
    /// A member is cut off from all others.
    Isolate,
    /// The members fall into groups.
    Partition,
    /// Everybody reaches the hub only, and the leader is not the hub (OmniPaxos, EuroSys'23).
    QuorumLoss,
    /// As above, and the leader reaches nobody.
    Constrained,
    /// Each member reaches its neighbours only.
    Chained,
    /// The leader reaches one member only, which reaches all others.
    Bridge,
    /// Messages are lost.
    Loss,
    /// Messages arrive twice.
    Duplicate,
    /// Messages overtake each other.
    Reorder,
    /// The network is slow.
    Latency,
    /// A clock runs at a third to three times its rate.
    ClockRate,
    /// A clock jumps ahead.
    ClockJump,
    /// A member's timer fires early.
    Timeout,
    /// A disk stalls.
    Stall,
    /// A write is torn by a crash.
    Tear,
    /// A crash loses all that was not synced.
    LoseUnsynced,
    /// A sync fails.
    FailSync,
    /// A disk is full for a while.
    Full,
    /// A bit rots in the log of a member of a minority.
    Rot,
    /// A member of a minority loses its disk.
    Wipe,
    /// Many members campaign while others crash.
    Storm,
    /// Two members campaign at once, and voters crash and come back between the two requests.
    Duel,
    /// Leaders come and go before their entries reach a majority.
    Relay,
    /// Figure 3.7 of Ongaro's dissertation: an old entry reaches a majority under a new leader,
    /// whose own entries do not.
    Figure8,
    /// A leader that nobody hears any more, with a slow clock, and clients who still ask it.
    Deposed,
    /// Members join, leave and hand over leadership, while others crash and links are cut.
    Churn,
    /// A member of a minority loses its disk, is removed, and another takes its place.
    Replaced,
    /// Reads rest on leases, and clocks run at different rates, by no more than the leases allow.
    LeaseDrift,
    /// Beyond the budget: a majority is down to the end.
    MajorityDown,
    /// Beyond the budget: a majority is cut off to the end, each member by itself.
    MajorityCutOff,
    /// Beyond the budget: disks that say that they have synced, and have not, lose power together.
    MajorityLies,
    /// Beyond the budget: a deposed leader's clock is slower than its leases allow.
    LeaseBroken,
}

/// What a protocol promises under a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Safety always, and progress once the fault ends or, for what lasts, in spite of it.
    Kept,
    /// Safety, but no progress: too few are left.
    Stalled,
    /// Nothing: what was acknowledged can be lost.
    Broken,
}

impl Fault {
    /// All, in the order of the matrix.
    pub const ALL: [Fault; 39] = [
        Fault::Crash,
        Fault::CrashLeader,
        Fault::CrashTwice,
        Fault::PowerLoss,
        Fault::Pause,
        Fault::Cut,
        Fault::OneWayCut,
        Fault::Isolate,
        Fault::Partition,
        Fault::QuorumLoss,
        Fault::Constrained,
        Fault::Chained,
        Fault::Bridge,
        Fault::Loss,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::Latency,
        Fault::ClockRate,
        Fault::ClockJump,
        Fault::Timeout,
        Fault::Stall,
        Fault::Tear,
        Fault::LoseUnsynced,
        Fault::FailSync,
        Fault::Full,
        Fault::Rot,
        Fault::Wipe,
        Fault::Storm,
        Fault::Duel,
        Fault::Relay,
        Fault::Figure8,
        Fault::Deposed,
        Fault::Churn,
        Fault::Replaced,
        Fault::LeaseDrift,
        Fault::MajorityDown,
        Fault::MajorityCutOff,
        Fault::MajorityLies,
        Fault::LeaseBroken,
    ];

    /// Those that are told in several acts, and need the right moment.
    pub(super) const STORIES: [Fault; 4] = [Fault::Duel, Fault::Relay, Fault::Figure8, Fault::Deposed];

    /// What a swarm draws from: all that every protocol must withstand.
    pub(super) const DRAWN: [Fault; 32] = {
        let mut drawn = [Fault::Crash; 32];
        let mut at = 0;
        while at < drawn.len() {
            drawn[at] = Fault::ALL[at];
            at += 1;
        }
        drawn
    };

    pub(super) fn is_story(self) -> bool {
        Fault::STORIES.contains(&self) || self == Fault::LeaseBroken
    }

    /// What happens where it is the only fault that a script is about: changes of members, and leases, are
    /// nothing without other faults. Each kind is as likely as it is often named.
    pub(super) fn company(self) -> Vec<Fault> {
        use Fault::*;
        match self {
            Churn => {
                vec![Churn, Churn, Churn, Crash, CrashLeader, Isolate, Partition, Pause, Loss, LoseUnsynced]
            }
            Replaced => vec![Replaced, Replaced, CrashLeader, Isolate, Pause, Loss],
            LeaseDrift => {
                vec![ClockRate, ClockRate, CrashLeader, Isolate, Partition, OneWayCut, Pause, Latency]
            }
            alone => vec![alone],
        }
    }

    /// Whether clients' reads rest on leases under it.
    pub(super) fn has_leases(self) -> bool {
        matches!(self, Fault::LeaseDrift | Fault::LeaseBroken)
    }

    /// Whether it took place: a protocol need not offer changes of members, nor reads under a lease.
    pub(crate) fn was_served(self, counts: &Counts) -> bool {
        match self {
            Fault::Churn | Fault::Replaced => counts.unserved == 0,
            Fault::LeaseDrift | Fault::LeaseBroken => counts.leased_reads > 0,
            _ => true,
        }
    }

    /// What is promised under it.
    pub const fn expected(self) -> Expected {
        match self {
            Fault::MajorityDown | Fault::MajorityCutOff => Expected::Stalled,
            Fault::MajorityLies | Fault::LeaseBroken => Expected::Broken,
            _ => Expected::Kept,
        }
    }

    /// Its name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::CrashLeader => "crash-leader",
            Fault::CrashTwice => "crash-twice",
            Fault::PowerLoss => "power-loss",
            Fault::Pause => "pause",
            Fault::Cut => "cut",
            Fault::OneWayCut => "one-way-cut",
            Fault::Isolate => "isolate",
            Fault::Partition => "partition",
            Fault::QuorumLoss => "quorum-loss",
            Fault::Constrained => "constrained",
            Fault::Chained => "chained",
            Fault::Bridge => "bridge",
            Fault::Loss => "loss",
            Fault::Duplicate => "duplicate",
            Fault::Reorder => "reorder",
            Fault::Latency => "latency",
            Fault::ClockRate => "clock-rate",
            Fault::ClockJump => "clock-jump",
            Fault::Timeout => "timeout",
            Fault::Stall => "disk-stall",
            Fault::Tear => "torn-write",
            Fault::LoseUnsynced => "lose-unsynced",
            Fault::FailSync => "failed-sync",
            Fault::Full => "disk-full",
            Fault::Rot => "rot",
            Fault::Wipe => "lost-disk",
            Fault::Storm => "storm",
            Fault::Duel => "duel",
            Fault::Relay => "relay",
            Fault::Figure8 => "figure-8",
            Fault::Deposed => "deposed",
            Fault::Churn => "members-change",
            Fault::Replaced => "member-replaced",
            Fault::LeaseDrift => "lease-drift",
            Fault::MajorityDown => "majority-down",
            Fault::MajorityCutOff => "majority-cut-off",
            Fault::MajorityLies => "majority-lies",
            Fault::LeaseBroken => "lease-broken",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        Fault::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| {
            let names = Fault::ALL.map(Fault::name).join(", ");
            format!("there is no fault `{text}`; there are: {names}")
        })
    }
}
