//! Counters: `add` (or `increment`, `decrement`) and `read`.

use super::{Entry, Model, Shortcut, integer, unknown};
use crate::counting;
use crate::history::{Call, History, Reply};

/// A sum of whole numbers of 64 bits; a sum beyond that is impossible.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    initial: i64,
}

/// An operation of a [`Counter`], on the counter whose key comes first (empty if there is only one).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CounterOp {
    /// Add a number, which may be negative. May answer with the new sum.
    Add(String, i64),
    /// Ask for the sum.
    Read(String),
}

impl Counter {
    /// The counter that a history was recorded on; its header's `initial` is a number, or null for 0.
    pub fn of(history: &History) -> Counter {
        Counter { initial: history.header.initial.as_i64().unwrap_or(0) }
    }
}

impl Model for Counter {
    type Op = CounterOp;
    type Answer = Option<i64>;
    type State = i64;

    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(CounterOp, Option<Option<i64>>), String> {
        let key = call.key.as_deref().unwrap_or_default().to_owned();
        let amount =
            || call.value.as_ref().map_or(Ok(1), |value| integer("what is added to a counter", value));
        let op = match &*call.op {
            "add" if call.value.is_none() => return Err("`add` needs a `value`".into()),
            "add" | "increment" | "inc" => CounterOp::Add(key, amount()?),
            "decrement" | "dec" => {
                let less = amount()?.checked_neg().ok_or("the number is too large to be subtracted")?;
                CounterOp::Add(key, less)
            }
            "read" | "get" => CounterOp::Read(key),
            _ => return Err(unknown(call, "counter", "add, increment, decrement and read")),
        };
        let Some(reply) = reply else { return Ok((op, None)) };
        let seen = match (&op, &reply.value) {
            (CounterOp::Read(_), None) => return Err("a `read` that succeeded needs a `value`".into()),
            (_, Some(value)) if !value.is_null() && !value.is_boolean() => {
                Some(integer("a counter's answer", value)?)
            }
            (CounterOp::Read(_), Some(other)) => {
                return Err(format!("a counter's answer is a whole number, found {other}"));
            }
            (CounterOp::Add(..), _) => None,
        };
        Ok((op, Some(seen)))
    }

    fn part<'a>(&self, op: &'a CounterOp) -> Option<&'a str> {
        match op {
            CounterOp::Add(key, _) | CounterOp::Read(key) => Some(key),
        }
    }

    fn init(&self) -> i64 {
        self.initial
    }

    fn step(&self, state: &i64, op: &CounterOp, answer: Option<&Option<i64>>) -> Option<i64> {
        let after = match op {
            CounterOp::Add(_, amount) => state.checked_add(*amount)?,
            CounterOp::Read(_) => *state,
        };
        answer.copied().flatten().is_none_or(|seen| seen == after).then_some(after)
    }

    fn shortcut(&self, entries: &[Entry<Counter>]) -> Shortcut {
        counting::decide(self, entries)
    }

    fn is_read_only(&self, op: &CounterOp, _answer: Option<&Option<i64>>) -> bool {
        matches!(op, CounterOp::Read(_) | CounterOp::Add(_, 0))
    }
}
