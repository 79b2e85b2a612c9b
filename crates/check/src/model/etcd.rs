//! Keys with revisions, as etcd has them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::etcd_txn::EtcdTxn;
use super::{Entry, Model, Shortcut, argument, integer, unknown};
use crate::history::{Call, History, Reply};
use crate::revisions;

/// A store of keys with one revision for all: every write that changes something raises it by one, and an
/// answer may say at which revision it was given. A history with revisions is not divided by key, since they order writes across keys; one without should
/// be judged as `kv`.
#[derive(Clone, Debug)]
pub struct Etcd {
    revision: i64,
}

/// An operation of [`Etcd`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EtcdOp {
    /// Read one key.
    Get(String),
    /// Read the keys from the first up to, but without, the second.
    Range(String, String),
    /// Set a key.
    Put(String, Value),
    /// Remove a key.
    Delete(String),
    /// Set a key to the second value if it has the first (null: if it does not exist).
    Cas(String, Value, Value),
    /// Compare, and do one of two things at one revision.
    Txn(Box<EtcdTxn>),
}

/// A key's value and how it came to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The value.
    pub value: Value,
    /// The revision at which the key was created.
    pub create: i64,
    /// The revision at which it was last written.
    pub modified: i64,
    /// How often it was written since it was created.
    pub version: i64,
}

/// All keys, and the revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EtcdState {
    /// The store's revision.
    pub revision: i64,
    /// The keys that exist.
    pub keys: BTreeMap<String, Held>,
}

/// What an answer shows of one key; `None` where it did not say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    pub(crate) key: Option<String>,
    pub(crate) value: Value,
    create: Option<i64>,
    pub(crate) modified: Option<i64>,
    version: Option<i64>,
}

/// What [`Etcd`] answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EtcdAnswer {
    /// The revision at which the answer was given.
    pub revision: Option<i64>,
    /// Keys that were read.
    pub seen: Vec<Seen>,
    /// Whether a delete found its key, or a comparison held.
    pub done: Option<bool>,
    /// What the operations of a transaction answered, if it says so.
    pub results: Option<Vec<EtcdAnswer>>,
}

/// What an operation does to a store.
pub(crate) struct Effect<'a> {
    /// The keys that it changes, each with what it then holds. If there are any, they make the next revision.
    pub(crate) changes: Vec<(&'a str, Option<Held>)>,
    /// Whether it found what it asked for.
    pub(crate) done: Option<bool>,
}

impl Etcd {
    /// The store that a history was recorded on. Its header may name the `revision` before the first operation; 1 if
    /// not, as in an empty etcd.
    pub fn of(history: &History) -> Etcd {
        Etcd { revision: history.header.more.get("revision").and_then(Value::as_i64).unwrap_or(1) }
    }
}

pub(super) fn optional(fields: &Map<String, Value>, name: &str) -> Result<Option<i64>, String> {
    fields.get(name).filter(|value| !value.is_null()).map(|value| integer(name, value)).transpose()
}

pub(super) fn seen(key: Option<String>, value: Value, fields: &Map<String, Value>) -> Result<Seen, String> {
    let (create, modified) = (optional(fields, "create")?, optional(fields, "mod")?);
    Ok(Seen { key, value, create, modified, version: optional(fields, "version")? })
}

/// What a range read: an array of keys.
pub(super) fn key_items(items: Option<&Value>) -> Result<Vec<Seen>, String> {
    let Some(Value::Array(items)) = items else {
        return Err("what `range` reads is an array of objects".into());
    };
    let item = |item: &Value| {
        let fields = item.as_object().ok_or("what `range` reads is an array of objects")?;
        let name = fields.get("key").and_then(Value::as_str).ok_or("an item needs a `key`")?;
        let value = fields.get("value").cloned().ok_or("an item needs a `value`")?;
        seen(Some(name.to_owned()), value, fields)
    };
    items.iter().map(item).collect()
}

impl Seen {
    fn shows(&self, key: &str, held: Option<&Held>) -> bool {
        let Some(held) = held else { return self.value.is_null() };
        let agrees = |said: Option<i64>, is: i64| said.is_none_or(|said| said == is);
        self.key.as_deref().is_none_or(|said| said == key)
            && self.value == held.value
            && agrees(self.create, held.create)
            && agrees(self.modified, held.modified)
            && agrees(self.version, held.version)
    }
}

impl EtcdState {
    pub(crate) fn effect<'a>(&self, op: &'a EtcdOp) -> Effect<'a> {
        let put = |key: &'a str, value: &Value| (key, Some(self.held(key, value)));
        let (changes, done) = match op {
            EtcdOp::Get(_) | EtcdOp::Range(..) => (Vec::new(), None),
            EtcdOp::Put(key, value) => (vec![put(key, value)], None),
            EtcdOp::Delete(key) => match self.keys.contains_key(key) {
                true => (vec![(key.as_str(), None)], Some(true)),
                false => (Vec::new(), Some(false)),
            },
            EtcdOp::Cas(key, expect, value) => match self.value(key) == expect {
                true => (vec![put(key, value)], Some(true)),
                false => (Vec::new(), Some(false)),
            },
            EtcdOp::Txn(txn) => {
                let held = txn.holds(self);
                let changes = txn.branch(held).iter().flat_map(|op| self.effect(op).changes);
                (changes.collect(), Some(held))
            }
        };
        Effect { changes, done }
    }

    /// What a key will hold when it is set to a value next.
    fn held(&self, key: &str, value: &Value) -> Held {
        let modified = self.revision + 1;
        let (create, version) =
            self.keys.get(key).map_or((modified, 1), |held| (held.create, held.version + 1));
        Held { value: value.clone(), create, modified, version }
    }

    /// Sets or removes a key, and gives back what it held.
    pub(crate) fn set(&mut self, key: &str, held: Option<Held>) -> Option<Held> {
        match held {
            Some(held) => self.keys.insert(key.to_owned(), held),
            None => self.keys.remove(key),
        }
    }

    /// Whether an answer is right in this state, its revision aside. `done`: what [`EtcdState::effect`] said.
    pub(crate) fn fits(&self, op: &EtcdOp, answer: &EtcdAnswer, done: Option<bool>) -> bool {
        if answer.done.is_some() && answer.done != done {
            return false;
        }
        match op {
            EtcdOp::Get(key) => answer.seen.iter().all(|seen| seen.shows(key, self.keys.get(key))),
            EtcdOp::Range(from, to) if from < to => {
                let held = self.keys.range(from.clone()..to.clone());
                held.clone().count() == answer.seen.len()
                    && held.zip(&answer.seen).all(|((key, held), seen)| seen.shows(key, Some(held)))
            }
            EtcdOp::Range(..) => answer.seen.is_empty(),
            EtcdOp::Txn(txn) => match (&answer.results, done) {
                (Some(results), Some(held)) => txn.fits(self, held, results),
                _ => true,
            },
            EtcdOp::Put(..) | EtcdOp::Delete(_) | EtcdOp::Cas(..) => true,
        }
    }

    fn value(&self, key: &str) -> &Value {
        self.keys.get(key).map_or(&Value::Null, |held| &held.value)
    }
}

impl Model for Etcd {
    type Op = EtcdOp;
    type Answer = EtcdAnswer;
    type State = EtcdState;

    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(EtcdOp, Option<EtcdAnswer>), String> {
        let key =
            || call.key.as_deref().map(str::to_owned).ok_or_else(|| format!("`{}` needs a `key`", call.op));
        let op = match &*call.op {
            "get" => EtcdOp::Get(key()?),
            "range" => match call.more.get("end") {
                Some(Value::String(end)) => EtcdOp::Range(key()?, end.clone()),
                _ => return Err("`range` needs an `end`, the first key that is not read".into()),
            },
            "put" => EtcdOp::Put(key()?, argument(call)?),
            "delete" => EtcdOp::Delete(key()?),
            "cas" => {
                let expect = call.expect.clone().ok_or("`cas` needs `expect`, null for a missing key")?;
                EtcdOp::Cas(key()?, expect, argument(call)?)
            }
            "txn" => EtcdOp::Txn(Box::new(EtcdTxn::of(call)?)),
            _ => return Err(unknown(call, "store with revisions", "get, range, put, delete, cas and txn")),
        };
        let Some(reply) = reply else { return Ok((op, None)) };
        let revision = optional(&reply.more, "revision")?;
        let mut answer = EtcdAnswer { revision, ..EtcdAnswer::default() };
        match (&op, &reply.value) {
            (EtcdOp::Get(_), Some(value)) => answer.seen.push(seen(None, value.clone(), &reply.more)?),
            (EtcdOp::Get(_), None) => {
                return Err("a `get` that succeeded needs a `value`, null for none".into());
            }
            (EtcdOp::Range(..), items) => answer.seen = key_items(items.as_ref())?,
            (EtcdOp::Txn(txn), _) => {
                let (held, results) = txn.answer(reply)?;
                (answer.done, answer.results) = (Some(held), results);
            }
            (EtcdOp::Cas(..), Some(Value::Bool(done))) => answer.done = Some(*done),
            (EtcdOp::Cas(..), _) => return Err("the answer to `cas` is true or false".into()),
            (EtcdOp::Delete(_), Some(Value::Bool(done))) => answer.done = Some(*done),
            (EtcdOp::Delete(_) | EtcdOp::Put(..), _) => {}
        }
        Ok((op, Some(answer)))
    }

    fn part<'a>(&self, _op: &'a EtcdOp) -> Option<&'a str> {
        None
    }

    fn init(&self) -> EtcdState {
        EtcdState { revision: self.revision, keys: BTreeMap::new() }
    }

    fn step(&self, state: &EtcdState, op: &EtcdOp, answer: Option<&EtcdAnswer>) -> Option<EtcdState> {
        let Effect { changes, done } = state.effect(op);
        let mut after = state.clone();
        after.revision += i64::from(!changes.is_empty());
        for (key, held) in changes {
            after.set(key, held);
        }
        let fits = |answer: &EtcdAnswer| {
            answer.revision.is_none_or(|revision| revision == after.revision) && state.fits(op, answer, done)
        };
        answer.is_none_or(fits).then_some(after)
    }

    fn shortcut(&self, entries: &[Entry<Etcd>]) -> Shortcut {
        revisions::decide(&self.init(), entries)
    }

    fn is_read_only(&self, op: &EtcdOp, answer: Option<&EtcdAnswer>) -> bool {
        let done = answer.and_then(|answer| answer.done);
        match op {
            EtcdOp::Get(_) | EtcdOp::Range(..) => true,
            EtcdOp::Put(..) => false,
            EtcdOp::Delete(_) | EtcdOp::Cas(..) => done == Some(false),
            EtcdOp::Txn(txn) => txn.operations(done).all(|op| self.is_read_only(op, None)),
        }
    }

    fn state_bytes(&self, state: &EtcdState) -> usize {
        state.keys.len() * 128
    }

    fn describe(&self, state: &EtcdState) -> String {
        let keys: Vec<String> =
            state.keys.iter().take(8).map(|(key, held)| format!("{key} = {}", held.value)).collect();
        format!("revision {}: {}", state.revision, keys.join(", "))
    }
}
