//! Avoid: the cheapest distributed transaction is the one that is not distributed.
//!
//! If everything that a transaction touches is in one partition, it is one entry of that partition's log:
//! all or nothing by itself, without locks, votes or doubt. This constrains the design, because it is decided
//! by where the data was put and not by the transaction; what is apart cannot be served this way.

use super::bank::BankOp;
use crate::types::NodeId;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Which partition holds which account.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Placement {
    homes: BTreeMap<String, NodeId>,
}

/// How a transaction is to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// As one entry of this partition's log: nothing needs to be agreed on between partitions.
    OneEntry {
        /// The partition.
        partition: NodeId,
        /// All of the work.
        work: Vec<BankOp>,
    },
    /// By two-phase commit between these partitions.
    TwoPhase {
        /// The work of each.
        branches: BTreeMap<NodeId, Vec<BankOp>>,
    },
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::OneEntry { partition, .. } => {
                write!(f, "one entry of {partition}'s log, since everything is there")
            }
            Route::TwoPhase { branches } => {
                let ids: Vec<_> = branches.keys().map(|id| alloc::format!("{id}")).collect();
                write!(f, "two-phase commit between {}", ids.join(", "))
            }
        }
    }
}

/// Why a transaction cannot be carried out as asked. Nothing was begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CannotRoute {
    /// There is nothing to do.
    Empty,
    /// No partition has this account.
    Unknown {
        /// The account.
        account: String,
    },
    /// Two accounts are in different partitions, so that one entry cannot hold both.
    Apart {
        /// The first account, and where it is.
        one: (String, NodeId),
        /// The second, and where that is.
        other: (String, NodeId),
    },
}

impl fmt::Display for CannotRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CannotRoute::Empty => write!(f, "there is nothing to do"),
            CannotRoute::Unknown { account } => write!(f, "no partition has an account {account}"),
            CannotRoute::Apart { one, other } => write!(
                f,
                "{} is at {} and {} at {}: one log entry cannot hold both. Put them together, or use two-phase commit or a saga",
                one.0, one.1, other.0, other.1
            ),
        }
    }
}

impl core::error::Error for CannotRoute {}

impl Placement {
    /// Accounts and where they are.
    pub fn new(homes: impl IntoIterator<Item = (String, NodeId)>) -> Placement {
        Placement { homes: homes.into_iter().collect() }
    }

    /// The cheapest way to do all of this or nothing.
    ///
    /// # Errors
    /// [`CannotRoute::Empty`] and [`CannotRoute::Unknown`].
    pub fn route(&self, work: &[BankOp]) -> Result<Route, CannotRoute> {
        let mut branches: BTreeMap<NodeId, Vec<BankOp>> = BTreeMap::new();
        for op in work {
            branches.entry(self.home(op)?).or_default().push(op.clone());
        }
        match branches.len() {
            0 => Err(CannotRoute::Empty),
            1 => {
                let (partition, work) = branches.pop_first().expect("there is one");
                Ok(Route::OneEntry { partition, work })
            }
            _ => Ok(Route::TwoPhase { branches }),
        }
    }

    /// The partition where one entry does all of this, for somebody who wants no other way.
    ///
    /// # Errors
    /// [`CannotRoute::Apart`] names the first two accounts that are not together; the others as
    /// [`Placement::route`].
    pub fn avoid(&self, work: &[BankOp]) -> Result<NodeId, CannotRoute> {
        let first = work.first().ok_or(CannotRoute::Empty)?;
        let home = self.home(first)?;
        for op in work {
            let other = self.home(op)?;
            if other != home {
                let (one, other) = ((first.account().into(), home), (op.account().into(), other));
                return Err(CannotRoute::Apart { one, other });
            }
        }
        Ok(home)
    }

    fn home(&self, op: &BankOp) -> Result<NodeId, CannotRoute> {
        let unknown = || CannotRoute::Unknown { account: op.account().into() };
        self.homes.get(op.account()).copied().ok_or_else(unknown)
    }
}
