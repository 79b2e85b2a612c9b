//! What goes wrong in a run of a level, by name.

use super::Level;
pub use crate::small::Hazard;
use std::fmt;
use std::str::FromStr;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing.
    None,
    /// Something that strikes machines, links, clocks or disks.
    Of(Hazard),
    /// Wall clocks are set, by as much as clocks may be apart and more.
    ClockJump,
    /// Wall clocks are far apart from the beginning: in some runs further than they may be.
    ClocksApart,
    /// A member joins, and one is removed. Of the weaker levels only.
    Members,
    /// Some of all of these, other ones for each seed.
    All,
}

impl Fault {
    /// All, in the order of the table.
    pub const ALL: [Fault; 25] = [
        Fault::None,
        Fault::Of(Hazard::Crash),
        Fault::Of(Hazard::PowerLoss),
        Fault::Of(Hazard::Tear),
        Fault::Of(Hazard::Pause),
        Fault::Of(Hazard::Cut),
        Fault::Of(Hazard::OneWayCut),
        Fault::Of(Hazard::Isolate),
        Fault::Of(Hazard::Partition),
        Fault::Of(Hazard::Loss),
        Fault::Of(Hazard::Duplicate),
        Fault::Of(Hazard::Reorder),
        Fault::Of(Hazard::Late),
        Fault::Of(Hazard::ClockRate),
        Fault::ClockJump,
        Fault::ClocksApart,
        Fault::Of(Hazard::Slow),
        Fault::Of(Hazard::Stall),
        Fault::Of(Hazard::Full),
        Fault::Of(Hazard::FailSync),
        Fault::Of(Hazard::Rot),
        Fault::Of(Hazard::Wipe),
        Fault::Members,
        Fault::All,
        Fault::Of(Hazard::Lie),
    ];

    /// What [`Fault::All`] draws from: everything between nothing and all.
    pub(super) fn drawn() -> &'static [Fault] {
        &Fault::ALL[1..Fault::ALL.len() - 2]
    }

    /// Whether promises are kept under it. Where they cannot be, some runs must be seen to break one.
    pub const fn is_borne(self) -> bool {
        !matches!(self, Fault::Of(Hazard::Lie))
    }

    /// Whether a disk loses what it had kept: in one run one member's at the most.
    pub(super) fn loses_disk(self) -> bool {
        matches!(self, Fault::Of(Hazard::Rot | Hazard::Wipe))
    }

    /// Whether it can strike so many members of a level. The members of the strong levels are founders for ever here, of two
    /// none can be missed, and their disks do not lie.
    pub(super) fn strikes(self, level: Level, members: u64) -> bool {
        match self {
            _ if !level.is_strong() => true,
            Fault::Members | Fault::Of(Hazard::Lie) => false,
            fault => members > 2 || !fault.loses_disk(),
        }
    }

    /// Its name on command lines; where the replicated logs have such a fault, that one's.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::Of(hazard) => hazard.name(),
            Fault::ClockJump => "clock-jump",
            Fault::ClocksApart => "clocks-apart",
            Fault::Members => "members-change",
            Fault::All => "all",
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
