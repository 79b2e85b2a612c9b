//! What transactions change: anything that can do work under locks, and then keep or undo it.

use super::TxnId;
use crate::contract::Describe;
use crate::wire::{DecodeError, Wire};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt::Debug;
use core::hash::Hash;

/// State of one independent system, which transactions share without seeing each other's work.
///
/// Deterministic: the same calls give the same state and answers, because a participant that
/// restarts does the work of its prepared and committed transactions again.
pub trait Resource: Clone + Debug + Hash {
    /// What a transaction asks to have done, in one piece.
    type Work: Clone + Debug + Wire;

    /// Does `work` for `txn`, under locks and invisibly to others, or refuses and changes nothing.
    /// The answer is what the work reads, in the resource's own encoding.
    fn work(&mut self, txn: TxnId, work: &Self::Work) -> Result<Bytes, Refusal>;

    /// Whether `txn` has changed nothing so far.
    fn is_read_only(&self, txn: TxnId) -> bool;

    /// Keeps what `txn` did, and releases its locks. Without effect if it did nothing.
    fn commit(&mut self, txn: TxnId);

    /// Undoes what `txn` did, and releases its locks. Without effect if it did nothing.
    fn abort(&mut self, txn: TxnId);

    /// Who holds which lock, in ascending order of what is locked.
    fn locks(&self) -> Vec<(String, TxnId)>;

    /// All that is committed, and nothing of open transactions, in the resource's own encoding.
    fn committed(&self) -> Bytes;

    /// Puts what [`Resource::committed`] gave in the place of what is committed.
    ///
    /// # Errors
    /// [`DecodeError`] if it is something else; nothing is changed.
    fn restore(&mut self, committed: Bytes) -> Result<(), DecodeError>;
}

/// Why work was refused. Nothing was done, and the transaction cannot commit any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is nothing by that name.
    Unknown {
        /// The name.
        name: String,
    },
    /// The account would be overdrawn.
    Overdraft {
        /// The account.
        account: String,
        /// What it has.
        balance: u64,
    },
    /// The number would be too large for the account.
    Overflow {
        /// The account.
        account: String,
    },
    /// Another transaction holds the lock. Nobody waits for a lock here, so nobody waits for ever:
    /// a deadlock is two refusals.
    Locked {
        /// What is locked.
        name: String,
        /// By whom.
        holder: TxnId,
    },
    /// The value is not what the work expects.
    Unexpected {
        /// Of what.
        name: String,
    },
    /// The work cannot be read, or is larger than the limit.
    Malformed,
    /// The participant has as many transactions as it can bear, or no room on its disk.
    Busy,
    /// The transaction is over here, or its earlier work was lost in a crash.
    Over,
    /// The value is to be added to, and is no number.
    NoNumber {
        /// Of what.
        name: String,
    },
    /// It reads more bytes than one transaction may.
    TooMuch,
    /// A system outside has declined, for a reason of its own.
    Declined {
        /// The reason, on one line for people.
        why: String,
    },
}

crate::wire_format!(enum Refusal {
    1 => Unknown { name },
    2 => Overdraft { account, balance },
    3 => Overflow { account },
    4 => Locked { name, holder },
    5 => Unexpected { name },
    6 => Malformed,
    7 => Busy,
    8 => Over,
    9 => NoNumber { name },
    10 => Declined { why },
    11 => TooMuch,
});

impl Describe for Refusal {
    fn name(&self) -> &'static str {
        match self {
            Refusal::Unknown { .. } => "unknown",
            Refusal::Overdraft { .. } => "overdraft",
            Refusal::Overflow { .. } => "overflow",
            Refusal::Locked { .. } => "locked",
            Refusal::Unexpected { .. } => "unexpected",
            Refusal::Malformed => "malformed",
            Refusal::Busy => "busy",
            Refusal::Over => "over",
            Refusal::NoNumber { .. } => "no-number",
            Refusal::TooMuch => "too-much",
            Refusal::Declined { .. } => "declined",
        }
    }

    fn detail(&self) -> String {
        match self {
            Refusal::Unknown { name } => alloc::format!("there is no {name}"),
            Refusal::Overdraft { account, balance } => alloc::format!("{account} has only {balance}"),
            Refusal::Overflow { account } => alloc::format!("{account} cannot hold that much"),
            Refusal::Locked { name, holder } => alloc::format!("{name} is locked by {holder}"),
            Refusal::Unexpected { name } => alloc::format!("{name} is not as expected"),
            Refusal::Malformed => "the work cannot be read".into(),
            Refusal::Busy => "too much is under way".into(),
            Refusal::Over => "the transaction is over here".into(),
            Refusal::TooMuch => "it reads more bytes than a transaction may".into(),
            Refusal::NoNumber { name } => alloc::format!("the value of {name} is no decimal number"),
            Refusal::Declined { why } => why.clone(),
        }
    }
}

/// Locks by name: one writer, or any number of readers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Locks(BTreeMap<String, Lock>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Lock {
    Shared(BTreeSet<TxnId>),
    Exclusive(TxnId),
}

impl Locks {
    /// Whether `txn` may read, or write, what has this name.
    pub(super) fn check(&self, txn: TxnId, name: &str, writes: bool) -> Result<(), Refusal> {
        let holder = match self.0.get(name) {
            Some(Lock::Exclusive(holder)) => Some(*holder).filter(|holder| *holder != txn),
            Some(Lock::Shared(holders)) if writes => holders.iter().copied().find(|holder| *holder != txn),
            _ => None,
        };
        holder.map_or(Ok(()), |holder| Err(Refusal::Locked { name: name.into(), holder }))
    }

    /// Takes what [`Locks::check`] allows.
    pub(super) fn take(&mut self, txn: TxnId, name: &str, writes: bool) {
        assert!(self.check(txn, name, writes).is_ok(), "a lock is taken from its holder");
        match self.0.get_mut(name) {
            Some(Lock::Shared(holders)) if !writes => {
                holders.insert(txn);
            }
            Some(Lock::Exclusive(_)) => {}
            _ if writes => {
                self.0.insert(name.into(), Lock::Exclusive(txn));
            }
            _ => {
                self.0.insert(name.into(), Lock::Shared(BTreeSet::from([txn])));
            }
        }
    }

    pub(super) fn release(&mut self, txn: TxnId) {
        self.0.retain(|_, lock| match lock {
            Lock::Exclusive(holder) => *holder != txn,
            Lock::Shared(holders) => {
                holders.remove(&txn);
                !holders.is_empty()
            }
        });
    }

    pub(super) fn held(&self) -> Vec<(String, TxnId)> {
        let mut held = Vec::new();
        for (name, lock) in &self.0 {
            match lock {
                Lock::Exclusive(holder) => held.push((name.clone(), *holder)),
                Lock::Shared(holders) => held.extend(holders.iter().map(|holder| (name.clone(), *holder))),
            }
        }
        held
    }
}
