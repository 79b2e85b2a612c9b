//! Banks, transfers between them, and what becomes of the money: every way to commit atomically, and two ways
//! not to, under one clock, one network and the same faults.
//!
//! [`run`] is a pure function of a [`Scenario`]: banks with one account each, clients that transfer and read,
//! and any [`Fault`] of machines, links, clocks and disks, or all of them. Everything random is drawn from the seed. After
//! every event it is checked that nobody commits what another aborts and that nothing is applied twice; at the end that
//! locks are released, every saga has ended, and no money is gone; and the history of what the clients saw is judged
//! by the checker. [`Matrix`] plays every protocol under every fault.
//!
//! A step of a saga that waits for a person is looked at half a second later, and tried again.
//!
//! What clients of a saga, or of no protocol at all, read is an onlooker's sum over all banks, since
//! nothing there can lock; how often it was wrong is counted and is no violation: isolation was never promised.

mod actor;
mod fault;
mod faults;
mod figures;
mod film;
mod matrix;
mod naive;
mod note;
mod outcome;
mod stage;
mod world;

pub use fault::{Expected, Fault};
pub use figures::{Blocking, Cost, blocking, cost};
pub use film::{
    ASKED_AT, Blow, FILM_TIME_MAX, Film, FilmEvent, FilmState, LATENCY, Play, STRIKES_MAX, SYNC, Strike,
    Whom, film,
};
pub use matrix::{Cell, Matrix, banks};
pub use outcome::Outcome;
pub use world::run;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use synod_protocols::catalogue::{REPLICATED_LOGS, replicated_log};
use synod_protocols::types::NodeId;

/// What each account holds at first.
pub const BALANCE: u64 = 100;

/// Banks of one scenario at the most.
pub const PARTICIPANTS_MAX: u64 = 16;

/// The account of a bank: `a` at the first, `b` at the second.
pub fn account(bank: NodeId) -> String {
    char::from(b'a' + (bank.0 as u8).saturating_sub(1)).to_string()
}

/// How a transfer is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Take it here, then put it there, and hope.
    None,
    /// All accounts in one partition: one log entry.
    Avoid,
    /// Two-phase commit.
    TwoPhase,
    /// Three-phase commit.
    ThreePhase,
    /// Two-phase commit whose coordinator is replicated on a log of three members.
    Replicated,
    /// A saga.
    Saga,
}

impl Protocol {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Protocol; 6] = [
        Protocol::None,
        Protocol::Avoid,
        Protocol::TwoPhase,
        Protocol::ThreePhase,
        Protocol::Replicated,
        Protocol::Saga,
    ];

    /// Whether reads are transactions of the protocol, and so see all of the money.
    pub fn isolates(self) -> bool {
        !matches!(self, Protocol::None | Protocol::Saga)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::None => "none",
            Protocol::Avoid => "avoid",
            Protocol::TwoPhase => "2pc",
            Protocol::ThreePhase => "3pc",
            Protocol::Replicated => "2pc-replicated",
            Protocol::Saga => "saga",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(name: &str) -> Result<Protocol, String> {
        let known = || Protocol::ALL.map(|protocol| protocol.to_string()).join(", ");
        let found = Protocol::ALL.into_iter().find(|protocol| protocol.to_string() == name);
        found.ok_or_else(|| format!("there is no protocol `{name}`; there is: {}", known()))
    }
}

/// What a replicated coordinator runs on: any of the replicated logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log(&'static str);

impl Log {
    /// The protocol's name.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Log> {
        REPLICATED_LOGS.iter().map(|name| Log(name))
    }
}

/// Raft.
impl Default for Log {
    fn default() -> Log {
        Log(REPLICATED_LOGS[0])
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl FromStr for Log {
    type Err = String;

    fn from_str(name: &str) -> Result<Log, String> {
        let known = || format!("there is no log `{name}`; there is: {}", REPLICATED_LOGS.join(", "));
        replicated_log(name).map(Log).ok_or_else(known)
    }
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// How.
    pub protocol: Protocol,
    /// Between how many banks; 2 to [`PARTICIPANTS_MAX`].
    pub participants: u64,
    /// What everything random is drawn from.
    pub seed: u64,
    /// How many transfers are asked for, at random moments of [`Scenario::span`].
    pub transfers: u64,
    /// How often somebody reads all accounts.
    pub reads: u64,
    /// How long there is load, and trouble.
    pub span: Duration,
    /// The fastest and the slowest message.
    pub latency: (Duration, Duration),
    /// How long a sync takes.
    pub sync: Duration,
    /// What goes wrong.
    pub fault: Fault,
    /// What a replicated coordinator runs on.
    pub log: Log,
}

impl Scenario {
    /// A scenario with defaults for everything else: 20 transfers and 20 reads in 3 s, messages of 1 to 20 ms, syncs of
    /// 2 ms, all faults, Raft.
    pub fn new(protocol: Protocol, participants: u64, seed: u64) -> Scenario {
        Scenario {
            protocol,
            participants,
            seed,
            transfers: 20,
            reads: 20,
            span: Duration::from_secs(3),
            latency: (Duration::from_millis(1), Duration::from_millis(20)),
            sync: Duration::from_millis(2),
            fault: Fault::All,
            log: Log::default(),
        }
    }
}
