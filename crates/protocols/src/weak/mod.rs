//! Weaker replication: every member takes reads and writes during any partition, and afterwards all are the same.
//!
//! Two levels, each a [`Process`] behind the contract, in one vocabulary, so that a host is written once:
//!
//! | | [`causal`] | [`eventual`] |
//! |---|---|---|
//! | an update is shown | after all that it depends on | when it arrives |
//! | a session, carried by a token | reads its writes, never reads back in time | promises nothing |
//! | what a member missed | is sent again from a log of updates | is handed over when a link is up again |
//! | what no log holds any more | is repaired from digests | is repaired from digests |
//!
//! What they share:
//!
//! - [`dots`]: names of updates, and sets of them;
//! - [`clock`]: stamps by which the last writer wins;
//! - [`object`], [`store`]: what keys hold, and how versions are merged;
//! - [`roster`]: who the members are, without consensus, and what may be forgotten;
//! - [`replica`]: recovery, writing, gossip; [`anti_entropy`]: repair;
//! - [`token`]: sessions that travel.
//!
//! # Durability
//!
//! An update is a record of the step that takes it, so by the durability rule neither its client nor another member
//! hears of it before it is on this disk. It is on *this* disk only: a member whose disk is lost for ever takes
//! with it what it had not sent. That is the price of taking writes alone, and what the stronger levels are for.
//!
//! So a dot is never used twice either: one that was heard of is durable, and one that was not is nobody's. A blank
//! disk under an old identity has another incarnation, and thereby other dots.
//!
//! # What is left out
//!
//! Partial replication: every member holds every key. Transactions that read what they write: an update is atomic,
//! and several keys are read at one moment, but nothing is isolated. Damaged disks are not repaired: such a member
//! abstains, to be removed and replaced. Deleting counters; a set's elements are searched one by one.

pub mod anti_entropy;
pub mod causal;
pub mod clock;
pub mod dots;
pub mod eventual;
pub mod object;
pub mod replica;
pub mod roster;
pub mod store;
pub mod token;
pub mod update;

pub use causal::Causal;
pub use clock::{Stamp, WallTime};
pub use dots::{CausalContext, Dot, Origin};
pub use eventual::Eventual;
pub use object::{Content, Kind, Name, Write};
pub use replica::{Replica, Standing};
pub use roster::Roster;
pub use token::{Secret, TokenError};
pub use update::{Message, Record, Update};

use crate::contract::Process;
use crate::log::Ticket;
use crate::types::{Incarnation, NodeId};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::time::Duration;

/// A process of either level.
pub trait WeakReplica:
    Process<
        Config = Config,
        Message = Message,
        Record = Record,
        Request = Request,
        Event = Event,
        Ask = (),
        Answer = (),
        Base = (),
    >
{
    /// What the level is called.
    const NAME: &'static str;

    /// What there is to see.
    fn replica(&self) -> &Replica;
}

/// A cluster, so that tokens of another one are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ClusterId(pub u64);

/// A keyspace of a cluster: one process for each at every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct KeyspaceId(pub u64);

/// What the owner of a replica decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which member this is.
    pub id: NodeId,
    /// Which cluster.
    pub cluster: ClusterId,
    /// Which of its keyspaces.
    pub keyspace: KeyspaceId,
    /// The founding members; for one that joins, whom it may ask.
    pub members: Vec<NodeId>,
    /// This life's, counted durably by the host: that of its first life names its updates.
    pub incarnation: Incarnation,
    /// What the wall clock reads when the host's monotonic clock reads zero. [`Request::SetClock`] changes it.
    pub wall_at_zero: WallTime,
    /// What seals session tokens; the same at all members.
    pub secret: Secret,
    /// Timeouts.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// A configuration with defaults for everything else.
    pub fn new(id: NodeId, members: Vec<NodeId>) -> Config {
        Config {
            id,
            cluster: ClusterId(0),
            keyspace: KeyspaceId(0),
            members,
            incarnation: Incarnation(1),
            wall_at_zero: WallTime(0),
            secret: Secret([0; 2]),
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }
}

/// Timeouts of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often it says what it has. Default 100 ms.
    pub gossip: Duration,
    /// How long a request waits for what its session has seen elsewhere before it is refused. Default 2 s.
    pub wait_max: Duration,
    /// How far clocks may be apart. What comes from further ahead is not let in before its time. Default 10 s.
    pub skew_max: Duration,
    /// After how long an answer to a question about differences is not waited for any more. Default 1 s.
    pub pull_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            gossip: Duration::from_millis(100),
            wait_max: Duration::from_secs(2),
            skew_max: Duration::from_secs(10),
            pull_max: Duration::from_secs(1),
        }
    }
}

/// Bounds of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of keys and values in one write; a larger one is refused. Default 1 MiB.
    pub write_bytes_max: usize,
    /// Requests that wait for what their sessions have seen; at the bound they are refused. Default 4,096.
    pub waiting_max: usize,
    /// Updates kept for members that lack them; at the bound the oldest goes, and who lacks it is repaired from
    /// digests. Default 65,536; for each link that is down at the eventual level.
    pub log_max: usize,
    /// Updates kept that came before what they depend on; at the bound they are dropped, and sent again. Default 4,096.
    pub early_max: usize,
    /// Bytes of updates or objects in one message, unless one alone is larger. Default 256 KiB.
    pub batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            write_bytes_max: 1 << 20,
            waiting_max: 4_096,
            log_max: 65_536,
            early_max: 4_096,
            batch_bytes_max: 256 << 10,
        }
    }
}

/// What a host asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take these writes as one update: others see all of them or none.
    Write {
        /// Returned with the answer.
        ticket: Ticket,
        /// The session's latest token, if it has one.
        token: Option<Bytes>,
        /// One for each object at the most.
        writes: Vec<Write>,
    },
    /// Read these objects, all at one moment.
    Read {
        /// Returned with the answer.
        ticket: Ticket,
        /// The session's latest token, if it has one.
        token: Option<Bytes>,
        /// Which.
        names: Vec<Name>,
    },
    /// Take in a member. It is started as one that joins, with a number that nobody ever had.
    AddMember {
        /// Returned with the answer.
        ticket: Ticket,
        /// Which.
        member: NodeId,
    },
    /// Remove a member for ever. What it had taken and not sent is lost.
    RemoveMember {
        /// Returned with the answer.
        ticket: Ticket,
        /// Which.
        member: NodeId,
    },
    /// Put everything into one record, so that earlier ones are not needed any more.
    Compact,
    /// The wall clock was set: this is what it would have read when the host's monotonic clock read zero.
    SetClock {
        /// It.
        wall_at_zero: WallTime,
    },
}

/// What a host is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The update is durable here and on its way.
    Written {
        /// Which request.
        ticket: Ticket,
        /// The session's new token; none at the eventual level.
        token: Option<Bytes>,
    },
    /// What was read.
    Read {
        /// Which request.
        ticket: Ticket,
        /// In the order of the request.
        contents: Vec<Content>,
        /// The session's new token; none at the eventual level.
        token: Option<Bytes>,
    },
    /// The members are changed here and the change is on its way.
    Changed {
        /// Which request.
        ticket: Ticket,
    },
    /// Nothing was done.
    Refused {
        /// Which request.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// Who the members are, from now on.
    Members {
        /// They, and those who were.
        roster: Roster,
    },
    /// Clocks are too far apart: what this origin writes is not let in before its time. Said once a minute.
    ClockAhead {
        /// Whose updates.
        origin: Origin,
        /// By how much they are ahead of the clock here.
        ahead: Duration,
    },
    /// All records before the latest [`Record::Everything`] may go.
    Compacted,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The session's token cannot be used.
    Token(TokenError),
    /// A token was shown at the eventual level.
    NoSessions,
    /// The session has seen updates elsewhere which did not arrive in time.
    Behind {
        /// How many at least.
        missing: u64,
    },
    /// Too many requests wait.
    Busy,
    /// The disk is full.
    Full,
    /// There is nothing to write, or to read.
    Empty,
    /// One object twice in one write.
    Twice {
        /// Which.
        name: Name,
    },
    /// More bytes than a write may have.
    TooLarge {
        /// Bytes of keys and values.
        bytes: usize,
        /// As many may be.
        bytes_max: usize,
    },
    /// The clock here is further behind what was heard than clocks may be apart.
    ClockBehind {
        /// By how much.
        by: Duration,
    },
    /// The member is new and has not caught up.
    Joining,
    /// The member was removed.
    Removed,
    /// The disk is damaged.
    Damaged,
    /// Who is to be added is or was a member.
    WasMember,
    /// Who is to be removed is no member.
    NoMember,
    /// The last member cannot be removed.
    LastMember,
    /// So many members there cannot ever be.
    RosterFull,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Token(error) => write!(f, "{error}"),
            Refusal::NoSessions => {
                write!(
                    f,
                    "an eventual keyspace has no sessions; leave the token out, or use a causal keyspace"
                )
            }
            Refusal::Behind { missing } => write!(
                f,
                "this member lacks at least {missing} updates which the session has seen elsewhere; ask that member, or try again"
            ),
            Refusal::Busy => write!(f, "too many requests wait for updates; try again"),
            Refusal::Full => write!(f, "the disk is full; make room, or ask another member"),
            Refusal::Empty => write!(f, "there is nothing to do; name at least one key"),
            Refusal::Twice { name } => {
                let key = alloc::string::String::from_utf8_lossy(&name.key);
                write!(f, "the {} `{key}` is written twice; write each key once", name.kind)
            }
            Refusal::TooLarge { bytes, bytes_max } => {
                write!(f, "a write of {bytes} bytes; at most {bytes_max} are taken at a time")
            }
            Refusal::ClockBehind { by } => write!(
                f,
                "this member's clock is {} ms behind what others have written; set it, or ask another member",
                by.as_millis()
            ),
            Refusal::Joining => write!(f, "this member is catching up; ask another one, or try again"),
            Refusal::Removed => write!(f, "this member was removed from the cluster; ask another one"),
            Refusal::Damaged => {
                write!(f, "this member's disk is damaged; remove it and start a new one in its place")
            }
            Refusal::WasMember => {
                write!(f, "this number belongs to somebody who is or was a member; choose a new one")
            }
            Refusal::NoMember => write!(f, "there is no such member"),
            Refusal::LastMember => write!(f, "the last member cannot be removed"),
            Refusal::RosterFull => {
                write!(f, "not more than {} members there can ever be", roster::ROSTER_MAX)
            }
        }
    }
}
