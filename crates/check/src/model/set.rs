//! Sets: `add`, `remove` and `contains` of one value, `read` of all.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Entry, Model, Shortcut, argument, boolean, unknown};
use crate::growing;
use crate::history::{Call, History, Reply};

/// A set of JSON values, each known by its text.
///
/// Where nobody reads the whole set, each value is a part of its own: whether it is in the set depends on
/// no other value. Where the whole is read and nothing removed, it is decided without search.
#[derive(Clone, Debug, Default)]
pub struct Set {
    initial: BTreeSet<String>,
}

/// An operation of a [`Set`]; values by their JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SetOp {
    /// Put a value in. May answer whether it was new.
    Add(String),
    /// Take a value out. May answer whether it was there.
    Remove(String),
    /// Ask whether a value is in.
    Contains(String),
    /// Ask for all values.
    Read,
}

impl Set {
    /// The set that a history was recorded on; its header's `initial` is an array, or null for empty.
    pub fn of(history: &History) -> Set {
        let initial = history.header.initial.as_array();
        Set { initial: initial.into_iter().flatten().map(Value::to_string).collect() }
    }
}

/// What a [`Set`] answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SetAnswer {
    /// Whether it changed something, or contained the value; `None` if the answer did not say.
    Was(Option<bool>),
    /// All values.
    All(BTreeSet<String>),
}

impl Model for Set {
    type Op = SetOp;
    type Answer = SetAnswer;
    type State = BTreeSet<String>;

    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(SetOp, Option<SetAnswer>), String> {
        let value = || argument(call).map(|value| value.to_string());
        let op = match &*call.op {
            "add" => SetOp::Add(value()?),
            "remove" => SetOp::Remove(value()?),
            "contains" => SetOp::Contains(value()?),
            "read" => SetOp::Read,
            _ => return Err(unknown(call, "set", "add, remove, contains and read")),
        };
        let Some(reply) = reply else { return Ok((op, None)) };
        let answer = match (&op, &reply.value) {
            (SetOp::Read, Some(Value::Array(all))) => {
                let values: BTreeSet<String> = all.iter().map(Value::to_string).collect();
                if values.len() < all.len() {
                    return Err("the answer to `read` names a value twice; a set has each once".into());
                }
                SetAnswer::All(values)
            }
            (SetOp::Read, other) => {
                let found = other.as_ref().map_or("none".to_owned(), Value::to_string);
                return Err(format!("the answer to `read` is an array of values, found {found}"));
            }
            (SetOp::Contains(_), Some(Value::Bool(found))) => SetAnswer::Was(Some(*found)),
            (SetOp::Contains(_), _) => return Err("the answer to `contains` is true or false".into()),
            _ => SetAnswer::Was(boolean(call, reply)?),
        };
        Ok((op, Some(answer)))
    }

    fn part<'a>(&self, op: &'a SetOp) -> Option<&'a str> {
        match op {
            SetOp::Add(value) | SetOp::Remove(value) | SetOp::Contains(value) => Some(value),
            SetOp::Read => None,
        }
    }

    fn init(&self) -> BTreeSet<String> {
        self.initial.clone()
    }

    fn step(
        &self,
        state: &BTreeSet<String>,
        op: &SetOp,
        answer: Option<&SetAnswer>,
    ) -> Option<BTreeSet<String>> {
        let fits = |was: bool| match answer {
            Some(SetAnswer::Was(Some(said))) => *said == was,
            _ => true,
        };
        match op {
            SetOp::Add(value) => {
                let is_in = state.contains(value);
                let mut after = state.clone();
                after.insert(value.clone());
                fits(!is_in).then_some(after)
            }
            SetOp::Remove(value) => {
                let mut after = state.clone();
                let was_in = after.remove(value);
                fits(was_in).then_some(after)
            }
            SetOp::Contains(value) => fits(state.contains(value)).then(|| state.clone()),
            SetOp::Read => match answer {
                Some(SetAnswer::All(seen)) if seen != state => None,
                _ => Some(state.clone()),
            },
        }
    }

    fn is_read_only(&self, op: &SetOp, answer: Option<&SetAnswer>) -> bool {
        let unchanged = answer == Some(&SetAnswer::Was(Some(false)));
        matches!(op, SetOp::Contains(_) | SetOp::Read) || unchanged
    }

    fn shortcut(&self, entries: &[Entry<Set>]) -> Shortcut {
        growing::decide(&self.initial, entries)
    }

    /// One strand per value; a read of the whole is one of its own, since it changes nothing.
    fn strand(&self, op: &SetOp, answer: Option<&SetAnswer>) -> Option<String> {
        match op {
            SetOp::Add(value) | SetOp::Remove(value) | SetOp::Contains(value) => Some(value.clone()),
            SetOp::Read => Some(format!("read {answer:?}")),
        }
    }

    /// What was read says nothing any more of values whose operations were left out.
    fn narrow(&self, mut kept: Vec<Entry<Set>>, part: &[Entry<Set>]) -> Vec<Entry<Set>> {
        let of = |entries: &[Entry<Set>]| -> BTreeSet<String> {
            entries.iter().filter_map(|entry| self.part(&entry.op)).map(str::to_owned).collect()
        };
        let (named, left_out) = (of(&kept), of(part));
        let is_left_out = |value: &String| left_out.contains(value) && !named.contains(value);
        for entry in &mut kept {
            if let Some(SetAnswer::All(seen)) = &mut entry.answer {
                seen.retain(|value| !is_left_out(value));
                seen.extend(self.initial.iter().filter(|value| is_left_out(value)).cloned());
            }
        }
        kept
    }

    fn state_bytes(&self, state: &BTreeSet<String>) -> usize {
        state.iter().map(|value| value.len() + 48).sum()
    }
}
