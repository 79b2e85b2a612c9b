//! A bank: accounts with balances that are never negative.

use super::TxnId;
use super::resource::{Locks, Refusal, Resource};
use crate::wire::{DecodeError, Wire};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// One movement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BankOp {
    /// Takes an amount from an account that has it.
    Debit {
        /// The account.
        account: String,
        /// How much, in the smallest unit of the currency.
        amount: u64,
    },
    /// Puts an amount into an account.
    Credit {
        /// The account.
        account: String,
        /// How much.
        amount: u64,
    },
    /// Reads a balance. The answers are the balances in the order in which they were asked for.
    Balance {
        /// The account.
        account: String,
    },
}

crate::wire_format!(enum BankOp {
    1 => Debit { account, amount },
    2 => Credit { account, amount },
    3 => Balance { account },
});

impl BankOp {
    /// The account that it is about.
    pub fn account(&self) -> &str {
        match self {
            BankOp::Debit { account, .. } | BankOp::Credit { account, .. } | BankOp::Balance { account } => {
                account
            }
        }
    }

    fn writes(&self) -> bool {
        !matches!(self, BankOp::Balance { .. })
    }

    fn apply(&self, balance: u64) -> Result<u64, Refusal> {
        let account = || String::from(self.account());
        match self {
            BankOp::Debit { amount, .. } => {
                balance.checked_sub(*amount).ok_or_else(|| Refusal::Overdraft { account: account(), balance })
            }
            BankOp::Credit { amount, .. } => {
                balance.checked_add(*amount).ok_or_else(|| Refusal::Overflow { account: account() })
            }
            BankOp::Balance { .. } => Ok(balance),
        }
    }
}

/// Accounts, and the balances that open transactions would leave.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Bank {
    accounts: BTreeMap<String, u64>,
    changes: BTreeMap<TxnId, BTreeMap<String, u64>>,
    locks: Locks,
}

impl Bank {
    /// A bank with these accounts and balances.
    pub fn new(accounts: impl IntoIterator<Item = (String, u64)>) -> Bank {
        Bank { accounts: accounts.into_iter().collect(), ..Bank::default() }
    }

    /// The committed balances.
    pub fn accounts(&self) -> &BTreeMap<String, u64> {
        &self.accounts
    }

    /// The sum of all committed balances.
    pub fn total(&self) -> u64 {
        self.accounts.values().sum()
    }
}

impl Resource for Bank {
    type Work = Vec<BankOp>;

    fn work(&mut self, txn: TxnId, work: &Vec<BankOp>) -> Result<Bytes, Refusal> {
        let mut changed = self.changes.get(&txn).cloned().unwrap_or_default();
        let mut read: Vec<u64> = Vec::new();
        for op in work {
            let account = op.account();
            self.locks.check(txn, account, op.writes())?;
            let before = changed.get(account).or_else(|| self.accounts.get(account)).copied();
            let before = before.ok_or_else(|| Refusal::Unknown { name: account.into() })?;
            let after = op.apply(before)?;
            match op.writes() {
                true => drop(changed.insert(account.into(), after)),
                false => read.push(after),
            }
        }
        for op in work {
            self.locks.take(txn, op.account(), op.writes());
        }
        if !changed.is_empty() {
            self.changes.insert(txn, changed);
        }
        Ok(read.to_bytes())
    }

    fn is_read_only(&self, txn: TxnId) -> bool {
        !self.changes.contains_key(&txn)
    }

    fn commit(&mut self, txn: TxnId) {
        self.accounts.extend(self.changes.remove(&txn).unwrap_or_default());
        self.locks.release(txn);
    }

    fn abort(&mut self, txn: TxnId) {
        self.changes.remove(&txn);
        self.locks.release(txn);
    }

    fn locks(&self) -> Vec<(String, TxnId)> {
        self.locks.held()
    }

    fn committed(&self) -> Bytes {
        let accounts: Vec<(String, u64)> = self.accounts.clone().into_iter().collect();
        accounts.to_bytes()
    }

    fn restore(&mut self, committed: Bytes) -> Result<(), DecodeError> {
        self.accounts = Vec::from_bytes(committed)?.into_iter().collect();
        Ok(())
    }
}
