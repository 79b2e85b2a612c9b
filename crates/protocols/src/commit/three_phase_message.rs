//! What sites of three-phase commit say to each other, and what they make durable.

use super::resource::Refusal;
use super::{Decision, TxnId};
use crate::ballot::Ballot;
use crate::contract::Describe;
use crate::types::NodeId;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// What a site says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Phase 1.
    CanCommit {
        /// Which transaction.
        txn: TxnId,
        /// Everybody who takes part.
        sites: Vec<NodeId>,
        /// What to do.
        work: Bytes,
    },
    /// It can, and waits.
    Yes {
        /// Which transaction.
        txn: TxnId,
        /// What its work read.
        answer: Bytes,
    },
    /// It cannot, and has forgotten it.
    No {
        /// Which transaction.
        txn: TxnId,
        /// Why.
        why: Refusal,
    },
    /// Phase 2: all have voted yes.
    PreCommit {
        /// Which transaction.
        txn: TxnId,
        /// Who coordinates: zero for the first coordinator.
        ballot: Ballot,
    },
    /// The answer to `PreCommit`.
    PreCommitted {
        /// Which transaction.
        txn: TxnId,
        /// As asked.
        ballot: Ballot,
    },
    /// Phase 3.
    Decide {
        /// Which transaction.
        txn: TxnId,
        /// What.
        decision: Decision,
    },
    /// A backup coordinator asks for states.
    StateAsk {
        /// Of which transaction.
        txn: TxnId,
        /// The number of its attempt.
        ballot: Ballot,
    },
    /// The answer to `StateAsk`.
    State {
        /// Of which transaction.
        txn: TxnId,
        /// As asked.
        ballot: Ballot,
        /// The state.
        state: State,
        /// Whether it has been alive all the time since it voted.
        is_living: bool,
    },
}

crate::wire_format!(enum Message {
    1 => CanCommit { txn, sites, work },
    2 => Yes { txn, answer },
    3 => No { txn, why },
    4 => PreCommit { txn, ballot },
    5 => PreCommitted { txn, ballot },
    6 => Decide { txn, decision },
    7 => StateAsk { txn, ballot },
    8 => State { txn, ballot, state, is_living },
});

/// Where a site stands with a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It voted yes.
    Waiting,
    /// It knows that all voted yes.
    PreCommitted,
    /// It has committed.
    Committed,
    /// It has aborted, or never voted and never will.
    Aborted,
}

crate::wire_format!(enum State { 1 => Waiting, 2 => PreCommitted, 3 => Committed, 4 => Aborted });

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::CanCommit { .. } => "CanCommit",
            Message::Yes { .. } => "Yes",
            Message::No { .. } => "No",
            Message::PreCommit { .. } => "PreCommit",
            Message::PreCommitted { .. } => "PreCommitted",
            Message::Decide { decision: Decision::Commit, .. } => "Commit",
            Message::Decide { decision: Decision::Abort, .. } => "Abort",
            Message::StateAsk { .. } => "StateAsk",
            Message::State { .. } => "State",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::CanCommit { txn, sites, .. } => format!("{txn}, sites {sites:?}"),
            Message::No { txn, why } => format!("{txn}: {}", why.detail()),
            Message::Yes { txn, .. } | Message::Decide { txn, .. } => format!("{txn}"),
            Message::PreCommit { txn, ballot }
            | Message::PreCommitted { txn, ballot }
            | Message::StateAsk { txn, ballot } => format!("{txn}, ballot {ballot}"),
            Message::State { txn, ballot, state, .. } => format!("{txn}, ballot {ballot}, {state:?}"),
        }
    }
}

/// What a site makes durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// A life begins, so that no transaction's name is used twice.
    Epoch {
        /// Its number, one above the last.
        epoch: u64,
    },
    /// It voted yes.
    Prepared {
        /// For which transaction.
        txn: TxnId,
        /// Everybody who takes part.
        sites: Vec<NodeId>,
        /// What it would do.
        work: Bytes,
    },
    /// It knows that all voted yes.
    PreCommitted {
        /// For which transaction.
        txn: TxnId,
    },
    /// It is over here.
    Ended {
        /// Which transaction.
        txn: TxnId,
        /// How.
        decision: Decision,
    },
}

crate::wire_format!(enum Record {
    1 => Epoch { epoch },
    2 => Prepared { txn, sites, work },
    3 => PreCommitted { txn },
    4 => Ended { txn, decision },
});

impl Describe for Record {
    fn name(&self) -> &'static str {
        match self {
            Record::Epoch { .. } => "Epoch",
            Record::Prepared { .. } => "Prepared",
            Record::PreCommitted { .. } => "PreCommitted",
            Record::Ended { decision: Decision::Commit, .. } => "Committed",
            Record::Ended { decision: Decision::Abort, .. } => "Aborted",
        }
    }

    fn detail(&self) -> String {
        match self {
            Record::Epoch { epoch } => format!("{epoch}"),
            Record::Prepared { txn, .. } | Record::PreCommitted { txn } | Record::Ended { txn, .. } => {
                format!("{txn}")
            }
        }
    }
}
