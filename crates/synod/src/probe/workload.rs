//! What the clients of a probe do, and how their requests look to etcd.
//!
//! Every value written is written once, so that a read shows which write it saw.

use super::log::Log;
use super::session::{Lost, Session};
use crate::cli;
use bytes::Bytes;
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use synod_check::history::{Call, Header, Outcome, Reply};
use synod_protocols::rng::Rng;
use synod_store::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::response_op::Response;
use synod_store::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};

mod append;
mod bank;
mod lock;

/// Keys of the `kv` workload.
const KEYS: u64 = 8;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// One key: read, write, compare-and-set
    Register,
    /// Eight keys: get, put, delete, compare-and-set
    Kv,
    /// Transactions that append to lists and read them
    Append,
    /// Transfers between accounts, and reads of all balances
    Bank,
    /// A lock with fencing tokens, and a resource that it guards
    Lock,
}

impl Workload {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Register => "register",
            Workload::Kv => "kv",
            Workload::Append => "append",
            Workload::Bank => "bank",
            Workload::Lock => "lock",
        }
    }
}

/// What all clients of a run have in common.
pub struct Shared {
    workload: Workload,
    prefix: String,
    exclusive: bool,
    /// The latest value written.
    latest: Cell<u64>,
    lists: append::Lists,
}

impl Shared {
    /// Of a run whose keys all begin with `prefix`.
    pub fn new(workload: Workload, prefix: String, exclusive: bool) -> Shared {
        Shared { workload, prefix, exclusive, latest: Cell::new(0), lists: append::Lists::default() }
    }

    fn fresh(&self) -> u64 {
        self.latest.set(self.latest.get() + 1);
        self.latest.get()
    }

    /// Deletes what the run wrote. Whoever cannot be reached keeps it.
    pub async fn clean_up(&self, session: &mut Session, patience: Duration) {
        let all = DeleteRangeRequest {
            key: self.prefix.clone().into(),
            range_end: after_prefix(&self.prefix),
            ..DeleteRangeRequest::default()
        };
        let _ = insist(patience, async || session.all(vec![Request::RequestDeleteRange(all.clone())]).await)
            .await;
    }
}

/// Makes the store ready and says what the history is of. Errors: nobody answered in time.
pub async fn prepare(
    options: &cli::Probe,
    prefix: &str,
    seed: u64,
    session: &mut Session,
    patience: Duration,
) -> Result<Header, String> {
    let object = match options.workload {
        Workload::Register => "register",
        Workload::Kv if options.exclusive => "etcd",
        Workload::Kv => "kv",
        Workload::Append => "list-append",
        Workload::Bank => "bank",
        Workload::Lock => "lock",
    };
    let mut header = Header::new(object);
    header.source = Some(format!("synod probe {}", options.endpoints.join(",")));
    header.about = Some(format!("{} clients, {:?}, seed {seed}", options.clients, options.span));
    let initial: Vec<(String, String)> = match options.workload {
        Workload::Bank => bank::initial(&mut header),
        Workload::Lock => lock::initial(&mut header),
        Workload::Register | Workload::Kv | Workload::Append => Vec::new(),
    };
    // Sent again without harm: it writes only if nothing is there.
    let absent = compare(&key(prefix, initial.first().map_or("", |(name, _)| name)), Is::Absent);
    let puts = initial.into_iter().map(|(name, value)| put(&key(prefix, &name), value)).map(operation);
    let request = TxnRequest { compare: vec![absent], success: puts.collect(), failure: Vec::new() };
    let answer = insist(patience, async || session.txn(request.clone()).await).await;
    let answer = answer.map_err(|lost| format!("no member could be spoken to: {}", lost.words))?;
    if object == "etcd" {
        header.more.insert("revision".into(), revision(&answer).into());
    }
    Ok(header)
}

/// Tries again until it succeeds or patience ends; then the last error.
async fn insist<T>(patience: Duration, mut attempt: impl AsyncFnMut() -> Result<T, Lost>) -> Result<T, Lost> {
    let until = Instant::now() + patience;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(lost) if Instant::now() >= until => return Err(lost),
            Err(_) => tokio::time::sleep(super::BACKOFF).await,
        }
    }
}

/// One client, with one request under way at most.
pub struct Client {
    name: String,
    session: Session,
    rng: Rng,
    shared: Rc<Shared>,
    log: Rc<RefCell<Log>>,
    /// What it last saw of each key, to be expected by a compare-and-set.
    seen: Map<String, Value>,
    lock: lock::Held,
}

impl Client {
    /// A client of this number, which begins at once.
    pub fn new(
        number: usize,
        session: Session,
        rng: Rng,
        shared: Rc<Shared>,
        log: Rc<RefCell<Log>>,
    ) -> Client {
        let (name, lock) = (format!("c{number}"), lock::Held::default());
        Client { name, session, rng, shared, log, seen: Map::new(), lock }
    }

    /// One operation; whether it succeeded.
    pub async fn step(&mut self) -> bool {
        match self.shared.workload {
            Workload::Register => self.single("register").await,
            Workload::Kv => {
                let name = format!("k{}", self.rng.below(KEYS));
                self.single(&name).await
            }
            Workload::Append => self.append().await,
            Workload::Bank => self.bank().await,
            Workload::Lock => self.lock().await,
        }
    }

    /// Reads all there is, each thing until it succeeds or patience ends.
    pub async fn read_all(mut self, patience: Duration) {
        let until = Instant::now() + patience;
        let reads: Vec<String> = match self.shared.workload {
            Workload::Register => vec!["register".into()],
            Workload::Kv => (0..KEYS).map(|number| format!("k{number}")).collect(),
            Workload::Append => self.shared.lists.names(),
            Workload::Bank => vec![String::new()],
            Workload::Lock => Vec::new(),
        };
        for name in reads {
            loop {
                let done = match self.shared.workload {
                    Workload::Append => self.transact(&[append::Micro::Read(name.clone())]).await,
                    Workload::Bank => self.balances().await,
                    Workload::Register | Workload::Kv | Workload::Lock => self.read(&name).await,
                };
                if done || Instant::now() >= until {
                    break;
                }
                tokio::time::sleep(super::BACKOFF).await;
            }
        }
    }

    /// Records an operation around the requests that carry it out. Gives back its answer, if it has one.
    async fn record(
        &mut self,
        call: Call,
        work: impl AsyncFnOnce(&mut Session) -> Result<Reply, Lost>,
    ) -> Option<Reply> {
        let ticket = self.log.borrow_mut().invoke(&self.name, self.session.endpoint(), call);
        let outcome = match work(&mut self.session).await {
            Ok(reply) => Outcome::Ok(reply),
            Err(Lost { certain: true, words }) => Outcome::fail(&words),
            Err(Lost { certain: false, words }) => Outcome::unknown(&words),
        };
        let reply = match &outcome {
            Outcome::Ok(reply) => Some(reply.clone()),
            Outcome::Fail { .. } | Outcome::Unknown { .. } => None,
        };
        self.log.borrow_mut().complete(ticket, outcome);
        reply
    }

    fn key(&self, name: &str) -> String {
        key(&self.shared.prefix, name)
    }

    /// A call on one key, which a register's operations do not name.
    fn call(&self, name: &str, of_register: &str, of_store: &str) -> Call {
        match self.shared.workload {
            Workload::Register => Call::new(of_register),
            _ => Call { key: Some(name.into()), ..Call::new(of_store) },
        }
    }

    /// One operation on a single key.
    async fn single(&mut self, name: &str) -> bool {
        let deletes = self.shared.workload == Workload::Kv;
        match self.rng.below(100) {
            0..10 if deletes && self.shared.exclusive => self.range().await,
            10..20 if deletes && self.shared.exclusive => self.pair(name).await,
            0..45 => self.read(name).await,
            45..75 => self.write(name).await,
            75..80 if deletes => self.delete(name).await,
            _ => self.cas(name).await,
        }
    }

    async fn read(&mut self, name: &str) -> bool {
        let (key, exclusive) = (self.key(name), self.shared.exclusive);
        let call = self.call(name, "read", "get");
        let reply = self
            .record(call, async |session| {
                let answer: RangeResponse =
                    session.call("/etcdserverpb.KV/Range", &one(&key)).await.map_err(Lost::read)?;
                let mut reply = Reply::value(answer.kvs.first().map_or(Value::Null, |kv| decoded(&kv.value)));
                if exclusive {
                    reply.more.insert("revision".into(), answer.header.unwrap_or_default().revision.into());
                    if let Some(kv) = answer.kvs.first() {
                        reply.more.extend(versions(kv));
                    }
                }
                Ok(reply)
            })
            .await;
        match reply.and_then(|reply| reply.value) {
            Some(value) => {
                self.seen.insert(name.to_owned(), value);
                true
            }
            None => false,
        }
    }

    /// All keys but those after the seventh, which a history may only record where revisions order them.
    async fn range(&mut self) -> bool {
        let (first, end) = ("k0".to_owned(), format!("k{}", KEYS - 1));
        let prefix = self.shared.prefix.clone();
        let mut call = Call { key: Some(first.as_str().into()), ..Call::new("range") };
        call.more.insert("end".into(), end.clone().into());
        let reply = self.record(call, async |session| {
            let range_end = key(&prefix, &end).into();
            let request = RangeRequest { range_end, ..one(&key(&prefix, &first)) };
            let answer: RangeResponse =
                session.call("/etcdserverpb.KV/Range", &request).await.map_err(Lost::read)?;
            let items = answer.kvs.iter().map(|kv| {
                let mut item = versions(kv);
                let name = String::from_utf8_lossy(&kv.key);
                item.insert("key".into(), name.strip_prefix(&prefix).unwrap_or(&name).into());
                item.insert("value".into(), decoded(&kv.value));
                Value::Object(item)
            });
            let mut reply = Reply::value(items.collect::<Vec<Value>>());
            reply.more.insert("revision".into(), answer.header.unwrap_or_default().revision.into());
            Ok(reply)
        });
        reply.await.is_some()
    }

    /// A transaction on two keys: if the first is as it was last seen, both are written, or else both are read. A history may only
    /// record it where revisions order it.
    async fn pair(&mut self, first: &str) -> bool {
        let second = format!("k{}", self.rng.below(KEYS));
        if second == first {
            return self.read(first).await;
        }
        let values = [self.shared.fresh(), self.shared.fresh()];
        let names = [first, second.as_str()];
        let expect = self.seen.get(first).cloned().unwrap_or(Value::Null);
        let (is, compared) = match expect.is_null() {
            true => (Is::Absent, json!([first, "create", "=", 0])),
            false => (Is::Value(expect.to_string()), json!([first, "value", "=", expect])),
        };
        let puts: Value = names.iter().zip(values).map(|(name, value)| json!(["put", name, value])).collect();
        let gets: Value = names.iter().map(|name| json!(["get", name])).collect();
        let mut call = Call::new("txn");
        let fields = [("compare", json!([compared])), ("then", puts), ("else", gets)];
        call.more.extend(fields.map(|(name, value)| (name.to_owned(), value)));
        let keys = names.map(|name| self.key(name));
        let reply = self.record(call, async |session| {
            let puts = keys.iter().zip(values).map(|(key, value)| operation(put(key, value.to_string())));
            let gets = keys.iter().map(|key| operation(Request::RequestRange(one(key))));
            let request = TxnRequest {
                compare: vec![compare(&keys[0], is)],
                success: puts.collect(),
                failure: gets.collect(),
            };
            let answer = session.txn(request).await?;
            let results = responses(&answer).map(|response| match response {
                Response::ResponseRange(range) => range.kvs.first().map_or(Value::Null, |kv| {
                    let mut found = versions(kv);
                    found.insert("value".into(), decoded(&kv.value));
                    Value::Object(found)
                }),
                _ => Value::Null,
            });
            let mut reply = Reply::value(answer.succeeded);
            reply.more.insert("results".into(), results.collect());
            Ok(at_revision(reply, &answer, true))
        });
        reply.await.is_some()
    }

    async fn write(&mut self, name: &str) -> bool {
        let (key, value, exclusive) = (self.key(name), self.shared.fresh(), self.shared.exclusive);
        let call = Call { value: Some(value.into()), ..self.call(name, "write", "put") };
        let reply = self.record(call, async |session| {
            let answer = session.all(vec![put(&key, value.to_string())]).await?;
            Ok(at_revision(Reply::none(), &answer, exclusive))
        });
        reply.await.is_some()
    }

    async fn delete(&mut self, name: &str) -> bool {
        let (key, exclusive) = (self.key(name), self.shared.exclusive);
        let reply = self.record(self.call(name, "", "delete"), async |session| {
            let request = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
            let answer = session.all(vec![Request::RequestDeleteRange(request)]).await?;
            let deleted = matches!(responses(&answer).next(),
                Some(Response::ResponseDeleteRange(deleted)) if deleted.deleted > 0);
            Ok(at_revision(Reply::value(deleted), &answer, exclusive))
        });
        reply.await.is_some()
    }

    async fn cas(&mut self, name: &str) -> bool {
        let (key, value, exclusive) = (self.key(name), self.shared.fresh(), self.shared.exclusive);
        let expect = self.seen.get(name).cloned().unwrap_or(Value::Null);
        let call =
            Call { expect: Some(expect.clone()), value: Some(value.into()), ..self.call(name, "cas", "cas") };
        let reply = self
            .record(call, async |session| {
                let is = if expect.is_null() { Is::Absent } else { Is::Value(expect.to_string()) };
                let (compare, put) = (vec![compare(&key, is)], operation(put(&key, value.to_string())));
                let request = TxnRequest { compare, success: vec![put], failure: Vec::new() };
                let answer = session.txn(request).await?;
                Ok(at_revision(Reply::value(answer.succeeded), &answer, exclusive))
            })
            .await;
        if reply.as_ref().is_some_and(|reply| reply.value == Some(Value::Bool(true))) {
            self.seen.insert(name.to_owned(), value.into());
        }
        reply.is_some()
    }
}

/// What a key is compared with.
enum Is {
    Absent,
    Value(String),
    /// Smaller than this, byte by byte.
    Below(String),
    /// Last changed at this revision; 0: absent.
    Changed(i64),
}

fn compare(key: &str, is: Is) -> Compare {
    let (target, result, union) = match is {
        Is::Absent => (CompareTarget::Create, CompareResult::Equal, TargetUnion::CreateRevision(0)),
        Is::Value(value) => (CompareTarget::Value, CompareResult::Equal, TargetUnion::Value(value.into())),
        Is::Below(value) => (CompareTarget::Value, CompareResult::Less, TargetUnion::Value(value.into())),
        Is::Changed(at) => (CompareTarget::Mod, CompareResult::Equal, TargetUnion::ModRevision(at)),
    };
    Compare {
        key: key.to_owned().into(),
        target: target.into(),
        result: result.into(),
        target_union: Some(union),
        ..Compare::default()
    }
}

fn key(prefix: &str, name: &str) -> String {
    format!("{prefix}{name}")
}

fn one(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn put(key: &str, value: String) -> Request {
    Request::RequestPut(PutRequest {
        key: key.to_owned().into(),
        value: value.into(),
        ..PutRequest::default()
    })
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn responses(answer: &TxnResponse) -> impl Iterator<Item = &Response> {
    answer.responses.iter().filter_map(|response| response.response.as_ref())
}

fn revision(answer: &TxnResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

fn at_revision(mut reply: Reply, answer: &TxnResponse, exclusive: bool) -> Reply {
    if exclusive {
        reply.more.insert("revision".into(), revision(answer).into());
    }
    reply
}

fn versions(kv: &synod_store::proto::mvccpb::KeyValue) -> Map<String, Value> {
    let versions = json!({"create": kv.create_revision, "mod": kv.mod_revision, "version": kv.version});
    versions.as_object().cloned().unwrap_or_default()
}

/// A stored value as it was written; what was not written by a probe is a text.
fn decoded(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}

/// The first key after all that begin with `prefix`, which ends in a slash.
fn after_prefix(prefix: &str) -> Bytes {
    let below = prefix.strip_suffix('/').expect("a prefix ends in a slash");
    // The next character.
    format!("{below}0").into()
}
