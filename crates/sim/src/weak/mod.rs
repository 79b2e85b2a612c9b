//! Four levels of consistency under one clock, one network, one workload and the same faults.
//!
//! [`run`] is a pure function of a [`Scenario`]: members of one level, sessions that put and get and now and then
//! change members, and faults drawn from the seed. Causal and eventual members are the processes of
//! `synod_protocols::weak` on the server's own node and a disk of bytes (`hosted.rs`); linearizable and sequential ones are Raft with a map above it (`ordered.rs`), whose
//! reads are confirmed by a quorum, or local with the session's token. At the end all faults stop, the members must
//! come to show the same and to take writes, and the checker judges what the sessions saw at the level's own model.
//!
//! Faults are those of the banks ([`Hazard`]), with clocks and members beside them ([`Fault`]); [`Matrix`] plays every level
//! under every one. An operator replaces members whose disks are damaged, as the documents tell people to
//! (`operator.rs`).
//!
//! [`separate`] looks for a history that has a level and not the next stronger one, and makes it small. [`cap`] measures what
//! one partition does to each level.

mod cap;
mod fault;
mod faults;
mod hosted;
mod kinds;
mod matrix;
mod member;
mod note;
mod operator;
mod ordered;
mod outcome;
mod separate;
mod world;

pub use cap::{Cap, CapFilm, CapScenario, SLICE_MIN, Side, Slice, Tally, cap, cap_film};
pub use fault::{Fault, Hazard};
pub use matrix::{Cell, Matrix};
pub use note::Story;
pub use outcome::Outcome;
pub use separate::{Separation, judged, separate};
pub use world::{run, watch};

use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use synod_check::judge::Consistency;
use synod_protocols::log::Timing;
use synod_protocols::weak::Kind;

/// Members of one scenario at the most.
pub const MEMBERS_MAX: u64 = 9;

/// What the members promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As if there were one copy. Raft; reads are confirmed by a quorum.
    Linearizable,
    /// One order for all. Raft; local reads with session tokens.
    Sequential,
    /// Effects after causes.
    Causal,
    /// The same at last.
    Eventual,
}

impl Level {
    /// All of them, the strongest first.
    pub const ALL: [Level; 4] = [Level::Linearizable, Level::Sequential, Level::Causal, Level::Eventual];

    /// The models that the checker judges its histories by.
    pub fn models(self) -> &'static [Consistency] {
        use Consistency::*;
        match self {
            Level::Linearizable => &[Linearizable],
            Level::Sequential => &[Sequential],
            Level::Causal => &[
                CausalConvergence,
                ReadYourWrites,
                MonotonicReads,
                MonotonicWrites,
                WritesFollowReads,
                Eventual,
            ],
            Level::Eventual => &[Eventual],
        }
    }

    /// Whether it takes a replicated log.
    pub fn is_strong(self) -> bool {
        matches!(self, Level::Linearizable | Level::Sequential)
    }

    /// Whether sessions carry a token.
    pub fn has_sessions(self) -> bool {
        matches!(self, Level::Sequential | Level::Causal)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Linearizable => "linearizable",
            Level::Sequential => "sequential",
            Level::Causal => "causal",
            Level::Eventual => "eventual",
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Level, String> {
        let found = Level::ALL.into_iter().find(|level| level.to_string() == name);
        let names = Level::ALL.map(|level| level.to_string()).join(", ");
        found.ok_or_else(|| format!("there is no level `{name}`; there is: {names}"))
    }
}

/// What keys hold, by its name on command lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds(pub Kind);

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Holds {
    type Err = String;

    fn from_str(name: &str) -> Result<Holds, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.to_string() == name);
        let names = Kind::ALL.map(|kind| kind.to_string()).join(", ");
        found.map(Holds).ok_or_else(|| format!("no key holds `{name}`; there is: {names}"))
    }
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What is promised.
    pub level: Level,
    /// What keys hold. The strong levels have registers only, whatever is said here.
    pub kind: Kind,
    /// How many members found the cluster; 2 to [`MEMBERS_MAX`].
    pub members: u64,
    /// What everything random is drawn from.
    pub seed: u64,
    /// What goes wrong.
    pub fault: Fault,
    /// How many sessions put and get.
    pub sessions: u64,
    /// Over how many keys.
    pub keys: u64,
    /// Whether sessions now and then ask another member than their own.
    pub roams: bool,
    /// After how long a session gives up on an answer.
    pub give_up: Duration,
    /// What a session waits at most between an answer and its next request.
    pub think: Duration,
    /// When the first session asks: by then there is a leader, where there is one.
    pub begin: Duration,
    /// Until when there is load, and trouble.
    pub span: Duration,
    /// The fastest and the slowest message.
    pub latency: (Duration, Duration),
    /// How long a sync takes.
    pub sync: Duration,
    /// The timeouts of the two strong levels.
    pub timing: Timing,
}

impl Scenario {
    /// A scenario with defaults for everything else: registers, four sessions over three keys for 3 s, messages of 1 to 20 ms, syncs of
    /// 2 ms.
    pub fn new(level: Level, members: u64, seed: u64, fault: Fault) -> Scenario {
        Scenario {
            level,
            kind: Kind::Register,
            members,
            seed,
            fault,
            sessions: 4,
            keys: 3,
            roams: true,
            give_up: Duration::from_secs(3),
            think: Duration::from_millis(120),
            begin: Duration::from_millis(500),
            span: Duration::from_secs(3),
            latency: (Duration::from_millis(1), Duration::from_millis(20)),
            sync: Duration::from_millis(2),
            timing: Timing::default(),
        }
    }

    /// The command that plays it again, where the rest is by default.
    pub fn command(&self) -> String {
        let Scenario { level, kind, members, fault, seed, .. } = self;
        format!(
            "synod sim weak --level {level} --kind {kind} --members {members} --faults {fault} --seed {seed}"
        )
    }
}
