//! Transactions on lists: each reads its keys, then writes what it appended if nothing has changed meanwhile.

use super::{Client, Is, compare, key, one, operation, put, responses};
use crate::probe::session::Lost;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use synod_check::history::{Call, Reply};
use synod_store::proto::etcdserverpb::TxnRequest;
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::response_op::Response;

/// Lists in use at a time.
const LISTS: u64 = 3;
/// Attempts to append to a list before another takes its place: reads stay short.
const APPENDS_MAX: u64 = 40;

/// The lists of a run.
#[derive(Default)]
pub struct Lists {
    /// How many were used up.
    full: Cell<u64>,
    appends: RefCell<BTreeMap<u64, u64>>,
}

impl Lists {
    fn append(&self, list: u64) {
        let mut appends = self.appends.borrow_mut();
        let count = appends.entry(list).or_default();
        *count += 1;
        if *count == APPENDS_MAX {
            self.full.set(self.full.get() + 1);
        }
    }

    /// Of all that were ever in use.
    pub fn names(&self) -> Vec<String> {
        (0..self.full.get() + LISTS).map(name).collect()
    }
}

fn name(list: u64) -> String {
    format!("l{list}")
}

/// One step of a transaction.
#[derive(Clone)]
pub enum Micro {
    Read(String),
    Append(String, u64),
}

impl Micro {
    fn list(&self) -> &str {
        let (Micro::Read(list) | Micro::Append(list, _)) = self;
        list
    }
}

impl Client {
    /// One transaction of one to four steps.
    pub(super) async fn append(&mut self) -> bool {
        let steps = 1 + self.rng.below(4);
        let micros = (0..steps).map(|_| {
            let list = self.shared.lists.full.get() + self.rng.below(LISTS);
            if self.rng.chance(1, 2) {
                return Micro::Read(name(list));
            }
            self.shared.lists.append(list);
            Micro::Append(name(list), self.shared.fresh())
        });
        let micros: Vec<Micro> = micros.collect();
        self.transact(&micros).await
    }

    /// One transaction; whether it was committed.
    pub(super) async fn transact(&mut self, micros: &[Micro]) -> bool {
        let asked = micros.iter().map(|micro| match micro {
            Micro::Read(list) => json!(["r", list, null]),
            Micro::Append(list, value) => json!(["append", list, value]),
        });
        let mut call = Call::new("txn");
        call.more.insert("ops".into(), asked.collect());
        let prefix = self.shared.prefix.clone();
        let reply = self.record(call, async |session| {
            let mut lists: BTreeMap<&str, Stored> =
                micros.iter().map(|micro| (micro.list(), Stored::default())).collect();
            let reads = lists.keys().map(|list| Request::RequestRange(one(&key(&prefix, list))));
            let answer = session.all(reads.collect()).await.map_err(Lost::read)?;
            for (stored, response) in lists.values_mut().zip(responses(&answer)) {
                let Response::ResponseRange(range) = response else { continue };
                if let Some(kv) = range.kvs.first() {
                    stored.changed = kv.mod_revision;
                    stored.values = serde_json::from_slice(&kv.value).unwrap_or_default();
                }
            }
            let answered: Value = micros.iter().map(|micro| carry_out(micro, &mut lists)).collect();
            if lists.values().any(|stored| stored.appended) {
                let unchanged = lists
                    .iter()
                    .map(|(list, stored)| compare(&key(&prefix, list), Is::Changed(stored.changed)));
                let appended = lists.iter().filter(|(_, stored)| stored.appended);
                let puts =
                    appended.map(|(list, stored)| put(&key(&prefix, list), json!(stored.values).to_string()));
                let request = TxnRequest {
                    compare: unchanged.collect(),
                    success: puts.map(operation).collect(),
                    failure: Vec::new(),
                };
                if !session.txn(request).await?.succeeded {
                    return Err(Lost::without_effect("a list has changed since it was read"));
                }
            }
            Ok(Reply::value(answered))
        });
        reply.await.is_some()
    }
}

#[derive(Default)]
struct Stored {
    values: Vec<Value>,
    changed: i64,
    appended: bool,
}

/// Does a step to what was read, and says what it saw.
fn carry_out(micro: &Micro, lists: &mut BTreeMap<&str, Stored>) -> Value {
    let stored = lists.get_mut(micro.list()).expect("all lists of the steps were read");
    match micro {
        Micro::Read(list) => json!(["r", list, stored.values]),
        Micro::Append(list, value) => {
            stored.values.push((*value).into());
            stored.appended = true;
            json!(["append", list, value])
        }
    }
}
