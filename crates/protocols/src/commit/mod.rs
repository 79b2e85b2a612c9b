//! Atomic commit: a transaction spans independent systems, and either all of it happens or none.
//!
//! # The idea: two-phase commit
//!
//! A [`Coordinator`] asks every [`Participant`] whether it can commit (*prepare*). Whoever votes yes
//! has made the work durable, keeps its locks, and from then on does as it is told: it has given up
//! the right to change its mind. If all vote yes, the coordinator makes its decision durable and
//! says *commit*; otherwise, or if a vote is missing for too long, *abort*.
//!
//! # Why it is safe
//!
//! 1. *One decision.* Only the coordinator decides, and a commit is a durable record before anybody
//!    hears of it. A restarted coordinator that has no such record never said commit, so it may say
//!    abort to whoever asks: **presumed abort**. It cannot commit that transaction later, because its
//!    name carries the epoch of the life that began it, and every life starts with a new one, durably.
//! 2. *Nobody decides alone.* A participant that voted yes commits or aborts only when told, by the
//!    coordinator or by a participant that knows. Its vote left after its record was durable, so a
//!    restart finds it in doubt again, with its locks.
//! 3. *Nothing happens twice.* A participant remembers every transaction that ended until the
//!    coordinator's *floor* passes it; below the floor nothing begins. So a late or repeated `Prepare`,
//!    piece of work or decision finds the transaction over. The floor is below every transaction that
//!    somebody may still ask about: the coordinator raises it only past what is aborted, or committed
//!    and acknowledged by all.
//! 4. *One coordinator.* Participants remember the highest epoch of each coordinator durably, and
//!    refuse lower ones. In the replicated coordinator ([`crate::replicated`]) this fences a leader that
//!    does not know yet that it was replaced.
//!
//! # Where it blocks
//!
//! A participant in doubt whose coordinator is dead waits, with its locks held, until the coordinator
//! is back or another participant knows the outcome (*cooperative termination*): one that committed or
//! aborted tells; one that has not voted refuses for ever, durably, and says abort. If all that can be
//! reached have voted yes, nobody may decide. [`Participant::in_doubt`] shows who waits and since when.
//!
//! # Short cuts
//!
//! - *Read-only*: a participant that changed nothing votes so, releases its locks and hears no more. This
//!   needs that no other participant takes locks later, or reads of one transaction could see two
//!   moments. So it is taken only where the work was done before phase 1 ([`Request::Work`]), and not
//!   where the work comes with `Prepare`.
//! - *One phase*: the only participant decides for itself, and the coordinator writes nothing. It says
//!   neither yes nor no for it, and asks until it is answered.
//! - If all are read-only there is no second phase, and no record.
//!
//! # Three-phase commit
//!
//! See [`three_phase`].
//!
//! # Sources
//!
//! Mohan, Lindsay and Obermarck, *Transaction Management in the R\* Distributed Database Management
//! System*, TODS 11(4), 1986: presumed abort, read-only. Bernstein, Hadzilacos and Goodman, *Concurrency
//! Control and Recovery in Database Systems*, 1987, chapter 7: cooperative termination, three-phase commit.
//! Gray and Lamport, *Consensus on Transaction Commit*, TODS 31(1), 2006: what replication adds.
//!
//! # Departures
//!
//! Participants are independent systems: nothing here assumes a shared clock, log or owner. Epochs and
//! floors are not in R\*, where the channels are sessions. R\*'s tree of processes is flat here. An
//! abort is not retransmitted: whoever missed it asks.
//!
//! # What it leaves out
//!
//! Waiting for locks (a conflict is a no, and the client tries again), partial rollback, damaged disks
//! (such a process abstains and says nothing: what it promised is not known), and an answer to a client whose
//! coordinator died before it told the outcome.

mod bank;
mod coordinator;
mod keyspace;
mod message;
mod participant;
mod planner;
mod resource;
pub mod three_phase;
mod three_phase_message;

pub use bank::{Bank, BankOp};
pub use coordinator::{
    AbortReason, Config, Coordinator, Event, Limits, OpenTxn, Phase, RefusalReason, Request, Timing,
};
pub use keyspace::{Changes, KeyOp, Keyspace, READ_BYTES_MAX};
pub use message::{CoordinatorRecord, Message, Outcome, ParticipantRecord, Peer, Stamp, Vote};
pub use participant::{
    ByHand, CannotResolve, InDoubt, Participant, ParticipantConfig, ParticipantEvent, ParticipantRequest,
};
pub use planner::{CannotRoute, Placement, Route};
pub use resource::{Refusal, Resource};

use crate::types::NodeId;
use core::fmt;

/// The name of a transaction, never used twice: whose it is, in which of its lives, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId {
    /// The coordinator that began it.
    pub coordinator: NodeId,
    /// The life of the coordinator in which it did.
    pub epoch: u64,
    /// Which of that life's transactions, counted from 1.
    pub number: u64,
}

crate::wire_format!(struct TxnId { coordinator, epoch, number });

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.coordinator, self.epoch, self.number)
    }
}

/// As [`fmt::Display`] shows it.
impl core::str::FromStr for TxnId {
    type Err = core::num::ParseIntError;

    fn from_str(text: &str) -> Result<TxnId, Self::Err> {
        let mut parts = text.strip_prefix('n').unwrap_or_default().splitn(3, '.');
        let mut number = || parts.next().unwrap_or_default().parse::<u64>();
        Ok(TxnId { coordinator: NodeId(number()?), epoch: number()?, number: number()? })
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// All of it happens.
    Commit,
    /// None of it happens.
    Abort,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decision::Commit => "commit",
            Decision::Abort => "abort",
        })
    }
}
