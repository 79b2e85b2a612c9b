//! Bank transfers: `transfer` from one account to another, `read` of all balances.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Model, boolean, integer, unknown};
use crate::history::{Call, History, Reply};

/// Accounts with balances of whole numbers. An account that the header's `initial` does not name starts at
/// 0. Overdrafts are allowed unless the header says `"overdraft": false`; then a transfer beyond the balance must be refused.
#[derive(Clone, Debug, Default)]
pub struct Bank {
    initial: BTreeMap<String, i64>,
    covered: bool,
}

/// An operation of a [`Bank`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BankOp {
    /// Move an amount from the first account to the second.
    Transfer(String, String, i64),
    /// Ask for all balances.
    Read,
}

/// What a [`Bank`] answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BankAnswer {
    /// The transfer took place.
    Done,
    /// The transfer did not take place.
    Refused,
    /// Balances; accounts that are not named have 0.
    Balances(BTreeMap<String, i64>),
}

/// An account's name: a string, or a number as its text.
fn account(value: Option<&Value>) -> Result<String, String> {
    match value {
        Some(Value::String(name)) => Ok(name.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Err("`transfer` needs `from` and `to`, the names of accounts".into()),
    }
}

/// Reads an object of balances.
fn balances(value: &Value) -> Result<BTreeMap<String, i64>, String> {
    let Value::Object(all) = value else {
        return Err(format!("balances are an object of whole numbers, found {value}"));
    };
    let mut read = BTreeMap::new();
    for (name, balance) in all {
        // A missing account reads as null in some systems.
        if !balance.is_null() {
            read.insert(name.clone(), integer("a balance", balance)?);
        }
    }
    Ok(read)
}

impl Bank {
    /// The bank that a history was recorded on. Errors: `initial` is neither null nor an object of numbers.
    pub fn of(history: &History) -> Result<Bank, String> {
        let initial = match &history.header.initial {
            Value::Null => BTreeMap::new(),
            other => balances(other)?,
        };
        let covered = history.header.more.get("overdraft") == Some(&Value::Bool(false));
        Ok(Bank { initial: without_zeros(initial), covered })
    }
}

fn without_zeros(mut balances: BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    balances.retain(|_, balance| *balance != 0);
    balances
}

impl Model for Bank {
    type Op = BankOp;
    type Answer = BankAnswer;
    type State = BTreeMap<String, i64>;

    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(BankOp, Option<BankAnswer>), String> {
        let op = match &*call.op {
            "transfer" => {
                let amount =
                    call.more.get("amount").or(call.value.as_ref()).ok_or("`transfer` needs an `amount`")?;
                let amount = integer("an `amount`", amount)?;
                BankOp::Transfer(account(call.more.get("from"))?, account(call.more.get("to"))?, amount)
            }
            "read" => BankOp::Read,
            _ => return Err(unknown(call, "bank", "transfer and read")),
        };
        let Some(reply) = reply else { return Ok((op, None)) };
        let answer = match (&op, &reply.value) {
            (BankOp::Read, Some(value)) => BankAnswer::Balances(without_zeros(balances(value)?)),
            (BankOp::Read, None) => return Err("a `read` that succeeded needs the balances".into()),
            _ if boolean(call, reply)? == Some(false) => BankAnswer::Refused,
            _ => BankAnswer::Done,
        };
        Ok((op, Some(answer)))
    }

    fn part<'a>(&self, _op: &'a BankOp) -> Option<&'a str> {
        None
    }

    fn init(&self) -> BTreeMap<String, i64> {
        self.initial.clone()
    }

    fn step(
        &self,
        state: &BTreeMap<String, i64>,
        op: &BankOp,
        answer: Option<&BankAnswer>,
    ) -> Option<BTreeMap<String, i64>> {
        match (op, answer) {
            (BankOp::Read, Some(BankAnswer::Balances(seen))) => (seen == state).then(|| state.clone()),
            (BankOp::Read, _) => Some(state.clone()),
            (BankOp::Transfer(..), Some(BankAnswer::Refused)) if !self.covered => Some(state.clone()),
            (BankOp::Transfer(from, to, amount), _) => {
                let covered = !self.covered || state.get(from).copied().unwrap_or(0) >= *amount;
                match answer {
                    Some(BankAnswer::Refused) => return (!covered).then(|| state.clone()),
                    None if !covered => return Some(state.clone()),
                    Some(_) if !covered => return None,
                    _ => {}
                }
                let mut after = state.clone();
                let source = after.entry(from.clone()).or_default();
                *source = source.checked_sub(*amount)?;
                let target = after.entry(to.clone()).or_default();
                *target = target.checked_add(*amount)?;
                Some(without_zeros(after))
            }
        }
    }

    fn is_read_only(&self, op: &BankOp, answer: Option<&BankAnswer>) -> bool {
        matches!(op, BankOp::Read) || answer == Some(&BankAnswer::Refused)
    }

    fn state_bytes(&self, state: &BTreeMap<String, i64>) -> usize {
        state.len() * 64
    }
}
