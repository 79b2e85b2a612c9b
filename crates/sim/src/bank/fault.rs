//! What goes wrong between banks, by name, and what each protocol promises under it.

use super::Protocol;
use crate::small::Hazard;
use std::fmt;
use std::str::FromStr;

/// One kind of fault, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing.
    None,
    /// Machines crash, lose what was not synced, and come back.
    Crash,
    /// Whoever coordinates crashes after so many of its steps as the seed says: with seeds one after the other, at
    /// every point.
    CrashCoordinator,
    /// A bank crashes, in the same way.
    CrashBank,
    /// All machines lose power at once.
    PowerLoss,
    /// A crash leaves a first part of what was not synced.
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
    /// Messages linger for up to two seconds, while machines crash and come back.
    Late,
    /// Clocks run at a third to three times their rate.
    ClockRate,
    /// Syncs take fifty times as long.
    Slow,
    /// A disk does nothing for a while.
    Stall,
    /// A disk is full for a while.
    Full,
    /// A record on one disk cannot be read any more: its machine abstains, or is helped by others who have it.
    Rot,
    /// Some of all of these but the last, other ones for each seed.
    All,
}

/// What a protocol promises under a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing is half done, and once the fault is over everything ends.
    Kept,
    /// Nothing is half done, but what waits for a machine that abstains waits for ever.
    Safe,
    /// Nothing, and it takes a rare moment to break: whether it does is told, and not asked for.
    Nothing,
    /// Nothing, and some runs leave something half done: this must be seen.
    Broken,
}

impl Fault {
    /// All, in the order of the table.
    pub const ALL: [Fault; 21] = [
        Fault::None,
        Fault::Crash,
        Fault::CrashCoordinator,
        Fault::CrashBank,
        Fault::PowerLoss,
        Fault::Tear,
        Fault::Pause,
        Fault::Cut,
        Fault::OneWayCut,
        Fault::Isolate,
        Fault::Partition,
        Fault::Loss,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::Late,
        Fault::ClockRate,
        Fault::Slow,
        Fault::Stall,
        Fault::Full,
        Fault::Rot,
        Fault::All,
    ];

    /// What [`Fault::All`] draws from.
    pub(super) const DRAWN: [Fault; 16] = [
        Fault::Crash,
        Fault::PowerLoss,
        Fault::Tear,
        Fault::Pause,
        Fault::Cut,
        Fault::OneWayCut,
        Fault::Isolate,
        Fault::Partition,
        Fault::Loss,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::Late,
        Fault::ClockRate,
        Fault::Slow,
        Fault::Stall,
        Fault::Full,
    ];

    /// Its name on command lines; where the replicated logs have such a fault, that one's.
    pub const fn name(self) -> &'static str {
        match (self.hazard(), self) {
            (Some(hazard), _) => hazard.name(),
            (None, Fault::CrashCoordinator) => "crash-coordinator",
            (None, Fault::CrashBank) => "crash-bank",
            (None, Fault::All) => "all",
            (None, _) => "none",
        }
    }

    /// What strikes; none if it is not one thing that strikes anywhere.
    pub(super) const fn hazard(self) -> Option<Hazard> {
        Some(match self {
            Fault::None | Fault::CrashCoordinator | Fault::CrashBank | Fault::All => return None,
            Fault::Crash => Hazard::Crash,
            Fault::PowerLoss => Hazard::PowerLoss,
            Fault::Tear => Hazard::Tear,
            Fault::Pause => Hazard::Pause,
            Fault::Cut => Hazard::Cut,
            Fault::OneWayCut => Hazard::OneWayCut,
            Fault::Isolate => Hazard::Isolate,
            Fault::Partition => Hazard::Partition,
            Fault::Loss => Hazard::Loss,
            Fault::Duplicate => Hazard::Duplicate,
            Fault::Reorder => Hazard::Reorder,
            Fault::Late => Hazard::Late,
            Fault::ClockRate => Hazard::ClockRate,
            Fault::Slow => Hazard::Slow,
            Fault::Stall => Hazard::Stall,
            Fault::Full => Hazard::Full,
            Fault::Rot => Hazard::Rot,
        })
    }

    /// What a protocol promises under it.
    pub const fn expected(self, protocol: Protocol) -> Expected {
        use Fault::*;
        match (protocol, self) {
            // Each side takes the other for dead.
            (Protocol::ThreePhase, Isolate | Partition | All) => Expected::Broken,
            // Somebody who lives is not heard within the others' patience; one more such moment has to follow.
            (Protocol::ThreePhase, Pause | Cut | OneWayCut | Loss | Late | Slow | Stall | Full) => {
                Expected::Nothing
            }
            // A request or its answer is lost, or whoever waits for it dies, and nobody knows any more. What is only slow,
            // or comes twice, it bears.
            (Protocol::None, Crash | CrashCoordinator | CrashBank | PowerLoss | Tear) => Expected::Broken,
            (Protocol::None, Cut | OneWayCut | Isolate | Partition | Loss | Late | All) => Expected::Broken,
            (_, Rot) => Expected::Safe,
            _ => Expected::Kept,
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

    fn from_str(name: &str) -> Result<Fault, String> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or_else(|| {
            let names = Fault::ALL.map(Fault::name).join(", ");
            format!("there is no fault `{name}`; there is: {names}")
        })
    }
}
