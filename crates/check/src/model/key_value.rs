//! Registers and key-value stores.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Entry, Model, Shortcut};
use crate::history::{Call, History, Reply};
use crate::zones;

/// Registers and key-value stores: `get` (or `read`), `put` (or `write`), `delete`, `cas`, `append`.
///
/// Each key is a register of its own; an operation without a key is on the one register there is. A
/// key that does not exist reads as null. Values are any JSON; they are equal if they are the same
/// JSON value (1 and 1.0 are not). `append` works on strings, and a missing key counts as empty.
#[derive(Clone, Debug, Default)]
pub struct KeyValue {
    initial: Value,
}

/// An operation of a [`KeyValue`], on the key that comes first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyValueOp {
    /// Read the value.
    Get(String),
    /// Set the value.
    Put(String, Value),
    /// Remove the key.
    Delete(String),
    /// Set to the second value if it has the first.
    Cas(String, Value, Value),
    /// Append to the string.
    Append(String, String),
}

impl KeyValue {
    /// A store in which no key exists.
    pub fn new() -> KeyValue {
        KeyValue::default()
    }

    /// The store that a history was recorded on, with the initial value that its header names.
    ///
    /// ```
    /// # use synod_check::{history::*, model::*};
    /// let mut header = Header::new("register");
    /// header.initial = 0.into();
    /// let model = KeyValue::of(&Recorder::new(header).finish());
    /// assert_eq!(model.init(), 0);
    /// ```
    pub fn of(history: &History) -> KeyValue {
        KeyValue { initial: history.header.initial.clone() }
    }
}

/// Stands for all values that no kept operation names. It is a string, so that one may append to it.
/// A history that names this very value is only judged to have a longer contradiction.
const UNNAMED: &str = "\u{0}unnamed";

impl Model for KeyValue {
    type Op = KeyValueOp;
    type Answer = Option<Value>;
    type State = Value;

    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(Self::Op, Option<Self::Answer>), String> {
        let key = call.key.as_deref().unwrap_or_default().to_owned();
        let argument = || match &call.value {
            Some(value) if !value.is_null() => Ok(value.clone()),
            _ => {
                Err(format!("`{}` needs a `value` which is not null; to remove a key, use `delete`", call.op))
            }
        };
        let op = match &*call.op {
            "get" | "read" => KeyValueOp::Get(key),
            "put" | "write" => KeyValueOp::Put(key, argument()?),
            "delete" => KeyValueOp::Delete(key),
            "cas" => {
                let expect = call
                    .expect
                    .clone()
                    .ok_or("`cas` needs `expect`: the value to compare with, null for none")?;
                KeyValueOp::Cas(key, expect, argument()?)
            }
            "append" => match argument()? {
                Value::String(suffix) => KeyValueOp::Append(key, suffix),
                other => return Err(format!("`append` needs a string as its `value`, found {other}")),
            },
            other => {
                return Err(format!(
                    "`{other}` is no operation of a register or key-value store; it has get (read), put (write), delete, cas and append"
                ));
            }
        };
        let Some(reply) = reply else { return Ok((op, None)) };
        match (&op, &reply.value) {
            (KeyValueOp::Get(_), None) => {
                Err("a `get` that succeeded needs a `value` in its answer, null if the key does not exist".into())
            }
            (KeyValueOp::Cas(..), Some(Value::Bool(_))) | (KeyValueOp::Get(_), Some(_)) => {
                Ok((op, Some(reply.value.clone())))
            }
            (KeyValueOp::Cas(..), _) => {
                Err("a `cas` that was answered needs a `value` in its answer: true if it was set, false if the comparison failed".into())
            }
            (KeyValueOp::Delete(_), Some(value)) if !value.is_boolean() => {
                Err(format!("the answer to `delete` is a boolean (whether the key existed) or nothing, found {value}"))
            }
            (KeyValueOp::Delete(_), value) => Ok((op, Some(value.clone()))),
            // A store may echo something here (a version, the old value); no promise is checked on it.
            (KeyValueOp::Put(..) | KeyValueOp::Append(..), _) => Ok((op, Some(None))),
        }
    }

    fn part<'a>(&self, op: &'a KeyValueOp) -> Option<&'a str> {
        match op {
            KeyValueOp::Get(key)
            | KeyValueOp::Put(key, _)
            | KeyValueOp::Delete(key)
            | KeyValueOp::Cas(key, ..)
            | KeyValueOp::Append(key, _) => Some(key),
        }
    }

    fn init(&self) -> Value {
        self.initial.clone()
    }

    fn step(&self, state: &Value, op: &KeyValueOp, answer: Option<&Option<Value>>) -> Option<Value> {
        let answer = answer.and_then(Option::as_ref);
        match op {
            KeyValueOp::Get(_) => answer.is_none_or(|seen| seen == state).then(|| state.clone()),
            KeyValueOp::Put(_, value) => Some(value.clone()),
            KeyValueOp::Delete(_) => {
                let existed = !state.is_null();
                answer.is_none_or(|answer| *answer == Value::Bool(existed)).then_some(Value::Null)
            }
            KeyValueOp::Cas(_, expect, value) => {
                let equal = state == expect;
                let possible = answer.is_none_or(|answer| *answer == Value::Bool(equal));
                possible.then(|| if equal { value.clone() } else { state.clone() })
            }
            KeyValueOp::Append(_, suffix) => match state {
                Value::Null => Some(Value::String(suffix.clone())),
                Value::String(text) => {
                    let mut joined = String::with_capacity(text.len() + suffix.len());
                    joined.push_str(text);
                    joined.push_str(suffix);
                    Some(Value::String(joined))
                }
                _ => None,
            },
        }
    }

    fn is_read_only(&self, op: &KeyValueOp, answer: Option<&Option<Value>>) -> bool {
        match op {
            KeyValueOp::Get(_) => true,
            KeyValueOp::Cas(_, expect, value) => answer == Some(&Some(Value::Bool(false))) || expect == value,
            _ => false,
        }
    }

    /// Kept operations compare the value with what they saw or expect, and append to it. So a value
    /// matters if it is one of those, or a beginning of one; every other is like one that nobody names.
    fn free_states(
        &self,
        free: &[&KeyValueOp],
        kept: &[(&KeyValueOp, Option<&Option<Value>>)],
    ) -> Option<Vec<Value>> {
        let mut named: Vec<&Value> = Vec::new();
        for (op, answer) in kept {
            match op {
                KeyValueOp::Get(_) => named.extend(answer.and_then(Option::as_ref)),
                KeyValueOp::Cas(_, expect, _) => named.push(expect),
                _ => {}
            }
        }
        let mut states = BTreeSet::new();
        let mut add = |state: Value| states.insert(state.to_string()).then_some(state);
        let mut found: Vec<Value> = Vec::new();
        for op in free {
            match op {
                KeyValueOp::Get(_) => continue,
                KeyValueOp::Put(_, value) | KeyValueOp::Cas(_, _, value) => {
                    let begins = |name: &&Value| match (value, name) {
                        (Value::String(value), Value::String(name)) => name.starts_with(value.as_str()),
                        _ => value == *name,
                    };
                    if named.iter().any(begins) {
                        found.extend(add(value.clone()));
                    }
                }
                KeyValueOp::Delete(_) => found.extend(add(Value::Null)),
                KeyValueOp::Append(_, suffix) => {
                    for name in named.iter().filter_map(|name| name.as_str()) {
                        let ends = name.match_indices(suffix.as_str()).map(|(at, _)| at + suffix.len());
                        ends.for_each(|end| found.extend(add(name[..end].into())));
                    }
                }
            }
            found.extend(add(UNNAMED.into()));
        }
        Some(found)
    }

    fn may_explain(&self, op: &KeyValueOp, asked: &KeyValueOp, answer: Option<&Option<Value>>) -> bool {
        let shown = match (asked, answer) {
            (KeyValueOp::Get(_), Some(Some(value))) => value,
            (KeyValueOp::Cas(_, expect, _), Some(Some(Value::Bool(true)))) => expect,
            _ => return false,
        };
        match op {
            KeyValueOp::Put(_, value) | KeyValueOp::Cas(_, _, value) => value == shown,
            KeyValueOp::Append(_, suffix) => {
                shown.as_str().is_some_and(|shown| shown.ends_with(suffix.as_str()))
            }
            KeyValueOp::Delete(_) => shown.is_null(),
            KeyValueOp::Get(_) => false,
        }
    }

    /// Zones, where every value is written once (Gibbons and Korach 1997).
    fn shortcut(&self, entries: &[Entry<KeyValue>]) -> Shortcut {
        zones::decide(&self.initial, entries)
    }

    fn state_bytes(&self, state: &Value) -> usize {
        size_of::<Value>() + state.as_str().map_or(0, str::len)
    }

    fn describe(&self, state: &Value) -> String {
        if state.is_null() { "no value".to_owned() } else { state.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(state: Value, call: Call, reply: Option<Value>) -> Option<Value> {
        let model = KeyValue::new();
        let reply = reply.map(|value| Reply { value: Some(value), more: Default::default() });
        let (op, answer) = model.decode(&call, reply.as_ref()).expect("a call of this object");
        model.step(&state, &op, answer.as_ref())
    }

    #[test]
    fn a_get_of_a_missing_key_reads_null() {
        assert_eq!(step(Value::Null, Call::get("x"), Some(Value::Null)), Some(Value::Null));
        assert_eq!(step(json!(1), Call::get("x"), Some(Value::Null)), None);
    }

    #[test]
    fn a_cas_whose_comparison_failed_says_what_the_value_was_not() {
        assert_eq!(step(json!(1), Call::cas("x", 1, 2), Some(json!(true))), Some(json!(2)));
        assert_eq!(step(json!(1), Call::cas("x", 1, 2), Some(json!(false))), None);
        assert_eq!(step(json!(3), Call::cas("x", 1, 2), Some(json!(false))), Some(json!(3)));
        assert_eq!(step(json!(3), Call::cas("x", 1, 2), Some(json!(true))), None);
        assert_eq!(step(json!(3), Call::cas("x", 1, 2), None), Some(json!(3)));
        assert_eq!(step(json!(1), Call::cas("x", 1, 2), None), Some(json!(2)));
    }

    #[test]
    fn a_delete_may_say_whether_the_key_existed() {
        assert_eq!(step(json!(1), Call::delete("x"), Some(json!(true))), Some(Value::Null));
        assert_eq!(step(json!(1), Call::delete("x"), Some(json!(false))), None);
        assert_eq!(step(json!(1), Call::delete("x"), None), Some(Value::Null));
    }

    #[test]
    fn an_append_to_a_missing_key_starts_from_the_empty_string() {
        assert_eq!(step(Value::Null, Call::append("x", "a"), None), Some(json!("a")));
        assert_eq!(step(json!("a"), Call::append("x", "b"), None), Some(json!("ab")));
    }

    #[test]
    fn an_operation_of_another_object_is_refused_with_what_there_is() {
        let problem = KeyValue::new().decode(&Call::new("enqueue"), None).expect_err("no such operation");
        assert!(problem.contains("enqueue") && problem.contains("append"), "{problem}");
        let problem = KeyValue::new().decode(&Call::get("x"), Some(&Reply::none())).expect_err("no value");
        assert!(problem.contains("needs a `value`"), "{problem}");
    }
}
