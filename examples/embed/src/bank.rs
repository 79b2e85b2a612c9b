//! The bank: accounts with whole amounts of money, none of them below zero.
//!
//! Nothing here knows that it is replicated, but for one thing: it is deterministic. The accounts are a `BTreeMap`, there
//! is no clock, and a command that cannot be carried out is answered so, by every replica alike.

use std::collections::BTreeMap;
use synod_server::{Index, StateMachine};

/// The accounts, and how many commands were carried out.
#[derive(Debug, Default, PartialEq)]
pub struct Bank {
    accounts: BTreeMap<String, u64>,
    /// By how many deposits the bank's money came to be what it is.
    deposits: u64,
}

/// What can be asked.
#[derive(Clone, Debug)]
pub enum Query {
    /// What an account holds.
    Balance(String),
    /// What all of them hold together, and how many deposits were made.
    Total,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Balance(u64),
    Total { money: u64, deposits: u64 },
}

impl StateMachine for Bank {
    /// The account's new balance, or why nothing was done.
    type Response = Result<u64, String>;
    type Query = Query;
    type Answer = Answer;

    /// A command is text: `deposit ACCOUNT AMOUNT` or `transfer FROM TO AMOUNT`.
    fn apply(&mut self, _index: Index, command: &[u8]) -> Self::Response {
        let text = std::str::from_utf8(command).map_err(|_| "a command is text")?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let amount = |word: &str| word.parse::<u64>().map_err(|_| format!("{word:?} is no amount"));
        match words[..] {
            ["deposit", to, money] => {
                let balance = self.add(to, amount(money)?)?;
                self.deposits += 1;
                Ok(balance)
            }
            ["transfer", from, to, money] => {
                let money = amount(money)?;
                let left =
                    self.balance(from).checked_sub(money).ok_or(format!("{from} has less than that"))?;
                self.accounts.insert(from.to_owned(), left);
                self.add(to, money).inspect_err(|_| {
                    self.accounts.insert(from.to_owned(), left + money);
                })?;
                Ok(self.balance(from))
            }
            _ => Err("commands are: deposit ACCOUNT AMOUNT, transfer FROM TO AMOUNT".to_owned()),
        }
    }

    fn query(&self, query: &Query) -> Answer {
        match query {
            Query::Balance(account) => Answer::Balance(self.balance(account)),
            Query::Total => Answer::Total { money: self.accounts.values().sum(), deposits: self.deposits },
        }
    }

    /// A line for the deposits, and one for each account.
    fn snapshot(&self) -> Vec<u8> {
        let lines = self.accounts.iter().map(|(name, money)| format!("{money} {name}\n"));
        format!("{}\n", self.deposits)
            .into_bytes()
            .into_iter()
            .chain(lines.flat_map(String::into_bytes))
            .collect()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        *self = Bank::read(snapshot).ok_or("these are not the lines of a bank")?;
        Ok(())
    }
}

impl Bank {
    fn balance(&self, account: &str) -> u64 {
        self.accounts.get(account).copied().unwrap_or(0)
    }

    fn add(&mut self, account: &str, money: u64) -> Result<u64, String> {
        // So that the sum of all accounts can always be told.
        let total: u64 = self.accounts.values().sum();
        total.checked_add(money).ok_or("there is not that much money")?;
        let balance = self.accounts.entry(account.to_owned()).or_default();
        *balance += money;
        Ok(*balance)
    }

    fn read(snapshot: &[u8]) -> Option<Bank> {
        let mut lines = std::str::from_utf8(snapshot).ok()?.lines();
        let deposits = lines.next()?.parse().ok()?;
        let account = |line: &str| {
            let (money, name) = line.split_once(' ')?;
            Some((name.to_owned(), money.parse().ok()?))
        };
        Some(Bank { accounts: lines.map(account).collect::<Option<_>>()?, deposits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank(commands: &[&str]) -> Bank {
        let mut bank = Bank::default();
        for (index, command) in (1..).zip(commands) {
            bank.apply(Index(index), command.as_bytes()).expect(command);
        }
        bank
    }

    #[test]
    fn money_is_neither_made_nor_lost() {
        let mut bank = bank(&["deposit ann 100", "transfer ann bob 30"]);
        assert_eq!((bank.balance("ann"), bank.balance("bob")), (70, 30));
        for command in
            ["transfer bob ann 31", "transfer bob ann -1", "deposit ann 18446744073709551615", "steal"]
        {
            assert!(bank.apply(Index(9), command.as_bytes()).is_err(), "{command}");
        }
        assert_eq!(bank.query(&Query::Total), Answer::Total { money: 100, deposits: 1 });
        assert_eq!(bank.apply(Index(9), b"transfer ann ann 5"), Ok(70), "to oneself");
    }

    #[test]
    fn a_snapshot_restores_the_same_bank_and_nothing_else_does() {
        let bank = bank(&["deposit ann 100", "deposit bob 5"]);
        let mut other = Bank::default();
        assert_eq!(other.restore(&bank.snapshot()), Ok(()));
        assert_eq!(other, bank);
        assert!(other.restore(b"100\nann").is_err());
        assert_eq!(other, bank, "what cannot be restored changes nothing");
    }
}
