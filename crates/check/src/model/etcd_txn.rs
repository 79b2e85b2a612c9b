//! Transactions of etcd: comparisons, what is done if all of them hold, and what if not.
//!
//! As in etcd, all that a transaction writes has one revision, it writes each key once at the most, and it reads what it
//! wrote before. A comparison with the value of a key that does not exist never holds; its revisions and its version are 0.

use std::borrow::Cow;

use serde_json::Value;

use super::etcd::{EtcdAnswer, EtcdOp, EtcdState, Held, key_items, optional, seen};
use super::integer;
use crate::history::{Call, Reply};

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EtcdTxn {
    compare: Vec<Comparison>,
    then: Vec<EtcdOp>,
    otherwise: Vec<EtcdOp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Comparison {
    key: String,
    target: Target,
    relation: Relation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Value(Value),
    Create(i64),
    Modified(i64),
    Version(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Relation {
    Equal,
    Unequal,
    Less,
    Greater,
}

impl Comparison {
    fn of(fields: &Value) -> Result<Comparison, String> {
        let wrong = || {
            format!(
                "expected [key, \"value\", \"create\", \"mod\" or \"version\", \"=\", \"!=\", \"<\" or \">\", operand], found {fields}"
            )
        };
        let [Value::String(key), Value::String(target), Value::String(relation), operand] =
            fields.as_array().map(Vec::as_slice).ok_or_else(wrong)?
        else {
            return Err(wrong());
        };
        let target = match target.as_str() {
            "value" => Target::Value(operand.clone()),
            "create" => Target::Create(integer("`create`", operand)?),
            "mod" => Target::Modified(integer("`mod`", operand)?),
            "version" => Target::Version(integer("`version`", operand)?),
            _ => return Err(wrong()),
        };
        let relation = match relation.as_str() {
            "=" => Relation::Equal,
            "!=" => Relation::Unequal,
            "<" => Relation::Less,
            ">" => Relation::Greater,
            _ => return Err(wrong()),
        };
        if matches!(relation, Relation::Less | Relation::Greater)
            && matches!(&target, Target::Value(operand) if !operand.is_string())
        {
            return Err(format!("only texts are less or greater than others, found {operand}"));
        }
        Ok(Comparison { key: key.clone(), target, relation })
    }

    fn holds(&self, held: Option<&Held>) -> bool {
        let is = |found: i64, operand: i64| self.relation.is(found.cmp(&operand));
        match &self.target {
            Target::Value(operand) => match (held.map(|held| &held.value), self.relation) {
                (None, _) => false,
                (Some(found), Relation::Equal) => found == operand,
                (Some(found), Relation::Unequal) => found != operand,
                (Some(found), _) => match (found.as_str(), operand.as_str()) {
                    (Some(found), Some(operand)) => self.relation.is(found.cmp(operand)),
                    _ => false,
                },
            },
            Target::Create(operand) => is(held.map_or(0, |held| held.create), *operand),
            Target::Modified(operand) => is(held.map_or(0, |held| held.modified), *operand),
            Target::Version(operand) => is(held.map_or(0, |held| held.version), *operand),
        }
    }
}

impl Relation {
    fn is(self, found: std::cmp::Ordering) -> bool {
        match self {
            Relation::Equal => found.is_eq(),
            Relation::Unequal => found.is_ne(),
            Relation::Less => found.is_lt(),
            Relation::Greater => found.is_gt(),
        }
    }
}

impl EtcdTxn {
    /// Reads the `compare`, `then` and `else` of a call; each may be missing.
    pub(crate) fn of(call: &Call) -> Result<EtcdTxn, String> {
        let list = |name: &str| match call.more.get(name) {
            None | Some(Value::Null) => Ok(&[][..]),
            Some(Value::Array(list)) => Ok(list.as_slice()),
            Some(other) => Err(format!("`{name}` of a `txn` is an array, found {other}")),
        };
        let txn = EtcdTxn {
            compare: list("compare")?.iter().map(Comparison::of).collect::<Result<_, _>>()?,
            then: branch(list("then")?)?,
            otherwise: branch(list("else")?)?,
        };
        let known = ["compare", "then", "else"].iter().any(|name| call.more.contains_key(*name));
        if known { Ok(txn) } else { Err("`txn` needs `compare`, `then` or `else`".into()) }
    }

    /// Reads an answer: whether the comparisons held, and, if it says so, what each operation answered.
    pub(crate) fn answer(&self, reply: &Reply) -> Result<(bool, Option<Vec<EtcdAnswer>>), String> {
        let Some(Value::Bool(held)) = &reply.value else {
            return Err("the answer to `txn` is true if its comparisons held, or else false".into());
        };
        let results = match reply.more.get("results") {
            None | Some(Value::Null) => return Ok((*held, None)),
            Some(Value::Array(results)) => results,
            Some(other) => return Err(format!("the `results` of a `txn` are an array, found {other}")),
        };
        let branch = self.branch(*held);
        if results.len() != branch.len() {
            let (found, expected) = (results.len(), branch.len());
            return Err(format!("a `txn` of {expected} operations cannot have {found} `results`"));
        }
        let results = branch.iter().zip(results).map(|(op, result)| result_of(op, result));
        Ok((*held, Some(results.collect::<Result<_, _>>()?)))
    }

    pub(crate) fn holds(&self, state: &EtcdState) -> bool {
        self.compare.iter().all(|comparison| comparison.holds(state.keys.get(&comparison.key)))
    }

    /// What is done if the comparisons hold, or if not.
    pub(crate) fn branch(&self, held: bool) -> &[EtcdOp] {
        if held { &self.then } else { &self.otherwise }
    }

    /// Both branches, or the one that was taken if that is known.
    pub(crate) fn operations(&self, held: Option<bool>) -> impl Iterator<Item = &EtcdOp> {
        let taken = move |branch: bool| held.is_none_or(|held| held == branch);
        [true, false].into_iter().filter(move |branch| taken(*branch)).flat_map(|branch| self.branch(branch))
    }

    /// Whether each result is right, one after the other.
    pub(crate) fn fits(&self, state: &EtcdState, held: bool, results: &[EtcdAnswer]) -> bool {
        let mut now = Cow::Borrowed(state);
        self.branch(held).iter().zip(results).all(|(op, result)| {
            let effect = now.effect(op);
            let fits = now.fits(op, result, effect.done);
            let changes: Vec<(String, Option<Held>)> =
                effect.changes.into_iter().map(|(key, held)| (key.to_owned(), held)).collect();
            for (key, held) in changes {
                now.to_mut().set(&key, held);
            }
            fits
        })
    }
}

fn branch(ops: &[Value]) -> Result<Vec<EtcdOp>, String> {
    let mut written: Vec<&str> = Vec::new();
    let mut found = Vec::with_capacity(ops.len());
    for op in ops {
        let wrong = || {
            format!(
                "expected [\"get\", key], [\"range\", key, end], [\"put\", key, value] or [\"delete\", key], found {op}"
            )
        };
        let fields = op.as_array().ok_or_else(wrong)?;
        let texts: Vec<Option<&str>> = fields.iter().map(Value::as_str).collect();
        found.push(match (texts.as_slice(), fields.last()) {
            ([Some("get"), Some(key)], _) => EtcdOp::Get((*key).to_owned()),
            ([Some("range"), Some(key), Some(end)], _) => EtcdOp::Range((*key).to_owned(), (*end).to_owned()),
            ([Some("put"), Some(key), _], Some(value)) if !value.is_null() => {
                written.push(key);
                EtcdOp::Put((*key).to_owned(), value.clone())
            }
            ([Some("delete"), Some(key)], _) => {
                written.push(key);
                EtcdOp::Delete((*key).to_owned())
            }
            _ => return Err(wrong()),
        });
    }
    written.sort_unstable();
    match written.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("a `txn` writes each key once, and {:?} is written twice", pair[0])),
        None => Ok(found),
    }
}

fn result_of(op: &EtcdOp, result: &Value) -> Result<EtcdAnswer, String> {
    let mut answer = EtcdAnswer::default();
    match (op, result) {
        (EtcdOp::Get(_), Value::Null) => answer.seen.push(seen(None, Value::Null, &Default::default())?),
        (EtcdOp::Get(_), Value::Object(fields)) => {
            let value = fields.get("value").cloned().ok_or("what was read needs a `value`")?;
            answer.seen.push(seen(None, value, fields)?);
            optional(fields, "revision")?;
        }
        (EtcdOp::Get(_), _) => {
            return Err("the result of a `get` is null, or an object with a `value`".into());
        }
        (EtcdOp::Range(..), items) => answer.seen = key_items(Some(items))?,
        (EtcdOp::Delete(_), Value::Bool(done)) => answer.done = Some(*done),
        _ => {}
    }
    Ok(answer)
}
