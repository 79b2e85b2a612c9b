//! Queues and stacks.

use std::collections::VecDeque;

use serde_json::Value;

use super::{Entry, Model, Shortcut, argument, unknown};
use crate::fifo;
use crate::history::{Call, Reply};
use crate::lifo;

/// A queue (what came first goes first) or a stack (what came last goes first), unbounded, at first empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// `enqueue` and `dequeue`.
    Queue,
    /// `push` and `pop`.
    Stack,
}

/// An operation of a [`Sequence`], on the one whose key comes first (empty if there is only one).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SequenceOp {
    /// Put a value in.
    Put(String, Value),
    /// Take a value out; null if there is none.
    Take(String),
}

impl Model for Sequence {
    type Op = SequenceOp;
    /// What was taken; null for nothing. A put's answer says nothing, and is null as well.
    type Answer = Value;
    type State = VecDeque<Value>;

    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(SequenceOp, Option<Value>), String> {
        let key = call.key.as_deref().unwrap_or_default().to_owned();
        let op = match (&*call.op, self) {
            ("enqueue", Sequence::Queue) | ("push", Sequence::Stack) => SequenceOp::Put(key, argument(call)?),
            ("dequeue", Sequence::Queue) | ("pop", Sequence::Stack) => SequenceOp::Take(key),
            (_, Sequence::Queue) => return Err(unknown(call, "queue", "enqueue and dequeue")),
            (_, Sequence::Stack) => return Err(unknown(call, "stack", "push and pop")),
        };
        let answer = match (&op, reply) {
            (_, None) => None,
            (SequenceOp::Put(..), Some(_)) => Some(Value::Null),
            (SequenceOp::Take(_), Some(Reply { value: Some(taken), .. })) => Some(taken.clone()),
            (SequenceOp::Take(_), Some(_)) => {
                return Err(format!(
                    "a `{}` that succeeded needs a `value` in its answer, null if it was empty",
                    call.op
                ));
            }
        };
        Ok((op, answer))
    }

    fn part<'a>(&self, op: &'a SequenceOp) -> Option<&'a str> {
        match op {
            SequenceOp::Put(key, _) | SequenceOp::Take(key) => Some(key),
        }
    }

    fn init(&self) -> VecDeque<Value> {
        VecDeque::new()
    }

    fn step(
        &self,
        state: &VecDeque<Value>,
        op: &SequenceOp,
        answer: Option<&Value>,
    ) -> Option<VecDeque<Value>> {
        match op {
            SequenceOp::Put(_, value) => {
                let mut after = state.clone();
                after.push_back(value.clone());
                Some(after)
            }
            SequenceOp::Take(_) => {
                let next = match self {
                    Sequence::Queue => state.front(),
                    Sequence::Stack => state.back(),
                };
                if answer.is_some_and(|seen| seen != next.unwrap_or(&Value::Null)) {
                    return None;
                }
                let mut after = state.clone();
                match self {
                    Sequence::Queue => after.pop_front(),
                    Sequence::Stack => after.pop_back(),
                };
                Some(after)
            }
        }
    }

    fn is_read_only(&self, op: &SequenceOp, answer: Option<&Value>) -> bool {
        matches!(op, SequenceOp::Take(_)) && answer == Some(&Value::Null)
    }

    fn shortcut(&self, entries: &[Entry<Sequence>]) -> Shortcut {
        match self {
            Sequence::Queue => fifo::decide(entries),
            Sequence::Stack => lifo::decide(entries),
        }
    }

    /// One strand per value: leaving out a value, with the operation that put it and the ones that took
    /// it, leaves the order of the others as it was. A take of unknown outcome might have taken
    /// any value, so histories with one have no strands; an empty answer is a strand of its own.
    fn strand(&self, op: &SequenceOp, answer: Option<&Value>) -> Option<String> {
        match (op, answer) {
            (SequenceOp::Put(_, value), _) => Some(value.to_string()),
            (SequenceOp::Take(_), Some(value)) => Some(value.to_string()),
            (SequenceOp::Take(_), None) => None,
        }
    }

    fn state_bytes(&self, state: &VecDeque<Value>) -> usize {
        state.len() * 48
    }

    fn describe(&self, state: &VecDeque<Value>) -> String {
        let values: Vec<String> = state.iter().take(12).map(Value::to_string).collect();
        let more = if state.len() > 12 { ", …" } else { "" };
        format!("[{}{more}]", values.join(", "))
    }
}
