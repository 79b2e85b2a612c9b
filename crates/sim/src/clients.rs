//! The clients: what they ask, what they are told, and the history of both.

use crate::dice::{Place, dice};
use crate::machine::SimMap;
use crate::script::{HandOperation, Script, Workload};
use std::sync::Arc;
use synod_check::history::{Call, Handle, Header, History, Nanos, Outcome as Answered, Recorder, Reply};
use synod_node::kv::{Answer, Query};
use synod_node::{ClientError, KvMachine, Outcome, Request};
use synod_protocols::log::Ticket;
use synod_store::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op,
};
use synod_store::{Command, Response};

/// The state machine of a simulated member.
pub(crate) type Machine = KvMachine<SimMap>;
/// What a member's client asks.
pub(crate) type Ask = Request<<Machine as synod_node::StateMachine>::Query>;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A client of the workload.
    Client(u16),
    /// A line of the script.
    Hand,
    /// The probe for progress.
    Probe,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Put,
    Get,
    Cas,
    Delete,
}

impl What {
    pub(crate) fn name(self) -> &'static str {
        match self {
            What::Put => "put",
            What::Get => "get",
            What::Cas => "cas",
            What::Delete => "delete",
        }
    }
}

/// An operation and how it stands.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) who: Who,
    pub(crate) what: What,
    pub(crate) key: Arc<str>,
    /// What is written.
    pub(crate) value: Option<Arc<str>>,
    /// What a compare-and-set expects.
    expect: Option<Arc<str>>,
    /// Which member was asked.
    pub(crate) member: u8,
    /// When, in virtual nanoseconds.
    began: u64,
    /// Gone when the outcome is known or given up.
    handle: Option<Handle>,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Ok(Option<String>),
    Fail(&'static str),
    Unknown(&'static str),
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    seed: u64,
    workload: Option<Workload>,
    keys: Vec<Arc<str>>,
    names: Vec<String>,
    /// How many operations each client began.
    begun: Vec<u64>,
    /// The value under each key as last read or written, for compare-and-set.
    seen: Vec<Option<Arc<str>>>,
    pub(crate) operations: Vec<Operation>,
    recorder: Recorder,
}

impl Clients {
    pub(crate) fn new(script: &Script) -> Clients {
        let workload = script.clients;
        let (count, keys) = workload.map_or((0, 0), |workload| (workload.clients, workload.keys));
        let mut header = Header::new("kv");
        header.source = Some("synod sim".into());
        Clients {
            seed: script.seed,
            workload,
            keys: (0..keys).map(key_name).collect(),
            names: (1..=count).map(|i| format!("c{i}")).collect(),
            begun: vec![0; count.into()],
            seen: vec![None; keys as usize],
            operations: Vec::new(),
            recorder: Recorder::new(header),
        }
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn name(&self, who: Who) -> &str {
        match who {
            Who::Client(client) => &self.names[usize::from(client)],
            Who::Hand => "you",
            Who::Probe => "probe",
        }
    }

    /// What a client of the workload does next, and which member it would like to ask.
    pub(crate) fn next(&mut self, client: u16, nodes: u8) -> Option<(What, usize, u8)> {
        let mix = self.workload?.mix;
        let begun = &mut self.begun[usize::from(client)];
        *begun += 1;
        let mut rng = dice(self.seed, Place::Client, client.into(), 0, *begun);
        let mut at = rng.below(mix.total());
        let kinds =
            [(What::Put, mix.put), (What::Get, mix.get), (What::Cas, mix.cas), (What::Delete, mix.delete)];
        let what = kinds.into_iter().find_map(|(what, frequency)| {
            let found = at < u64::from(frequency);
            at = at.saturating_sub(frequency.into());
            found.then_some(what)
        });
        let key = rng.below(self.keys.len() as u64) as usize;
        Some((what.expect("the draw is below the total"), key, rng.below(nodes.into()) as u8))
    }

    /// When a client that began its operation at `began` and is free at `now` begins the next one.
    pub(crate) fn next_at(&self, client: u16, began: u64, now: u64) -> u64 {
        let every = self.workload.map_or(0, |workload| workload.every.0);
        let mut rng = dice(self.seed, Place::Client, client.into(), 1, self.begun[usize::from(client)]);
        // A client never spins without virtual time going on.
        began.saturating_add(rng.between(every / 2, every + every / 2)).max(now + 1000)
    }

    /// Begins an operation of the workload.
    pub(crate) fn begin(&mut self, now: u64, client: u16, what: What, key: usize, member: u8) -> u32 {
        let number = self.operations.len();
        let value = matches!(what, What::Put | What::Cas).then(|| Arc::from(number.to_string()));
        let expect = if what == What::Cas { self.seen[key].clone() } else { None };
        let key = self.keys[key].clone();
        self.push(
            now,
            Operation {
                who: Who::Client(client),
                what,
                key,
                value,
                expect,
                member,
                began: now,
                handle: None,
            },
        )
    }

    /// Begins an operation by hand.
    pub(crate) fn begin_by_hand(&mut self, now: u64, operation: &HandOperation, member: u8) -> u32 {
        let (what, key, value) = match operation {
            HandOperation::Put(key, value) => (What::Put, key, Some(Arc::from(value.as_str()))),
            HandOperation::Get(key) => (What::Get, key, None),
            HandOperation::Delete(key) => (What::Delete, key, None),
        };
        let key = Arc::from(key.as_str());
        self.push(
            now,
            Operation { who: Who::Hand, what, key, value, expect: None, member, began: now, handle: None },
        )
    }

    /// Begins a write that shows progress.
    pub(crate) fn begin_probe(&mut self, now: u64, member: u8) -> u32 {
        let value = Some(Arc::from(self.operations.len().to_string()));
        let key = Arc::from("probe");
        self.push(
            now,
            Operation {
                who: Who::Probe,
                what: What::Put,
                key,
                value,
                expect: None,
                member,
                began: now,
                handle: None,
            },
        )
    }

    fn push(&mut self, now: u64, mut operation: Operation) -> u32 {
        let value = || operation.value.as_deref().unwrap_or_default();
        let call = match operation.what {
            What::Put => Call::put(&operation.key, value()),
            What::Get => Call::get(&operation.key),
            What::Cas => Call::cas(&operation.key, operation.expect.as_deref(), value()),
            What::Delete => Call::delete(&operation.key),
        };
        let name = match operation.who {
            Who::Client(client) => &self.names[usize::from(client)],
            Who::Hand => "you",
            Who::Probe => "probe",
        };
        operation.handle =
            Some(self.recorder.invoke_on(Nanos(now), name, MEMBERS[usize::from(operation.member)], call));
        self.operations.push(operation);
        (self.operations.len() - 1) as u32
    }

    /// What the member is asked. The operation's number is its ticket.
    pub(crate) fn request(&self, number: u32) -> (Ticket, Ask) {
        let operation = &self.operations[number as usize];
        let key = bytes::Bytes::copy_from_slice(operation.key.as_bytes());
        let value = operation.value.as_deref().unwrap_or_default();
        let value = bytes::Bytes::copy_from_slice(value.as_bytes());
        let put = PutRequest { key: key.clone(), value, ..PutRequest::default() };
        let command = match operation.what {
            What::Get => {
                return (Ticket(number.into()), read(RangeRequest { key, ..RangeRequest::default() }));
            }
            What::Put => Command::Put(put),
            What::Delete => Command::DeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }),
            What::Cas => Command::Txn(cas(put, operation.expect.as_deref())),
        };
        (Ticket(number.into()), Request::Command(command.encode()))
    }

    /// When an operation began.
    pub(crate) fn began(&self, number: u32) -> u64 {
        self.operations[number as usize].began
    }

    /// Whether the client still waits for the operation.
    pub(crate) fn is_open(&self, number: u32) -> bool {
        self.operations[number as usize].handle.is_some()
    }

    /// The operations at a member whose clients still wait.
    pub(crate) fn open_at(&self, member: u8) -> Vec<u32> {
        let open =
            |(_, operation): &(usize, &Operation)| operation.member == member && operation.handle.is_some();
        // Clients wait for a bounded time, so only the last operations can be open.
        let from = self.operations.len().saturating_sub(OPEN_LOOK_BACK);
        self.operations.iter().enumerate().skip(from).filter(open).map(|(number, _)| number as u32).collect()
    }

    /// What a member told the client.
    pub(crate) fn judge(&self, number: u32, outcome: Outcome<Machine>) -> Ending {
        let what = self.operations[number as usize].what;
        match outcome {
            Outcome::Failed(error) => failed(what, error),
            Outcome::Answered { answer, .. } => answered(answer),
            Outcome::Changed { .. } => Ending::Ok(None),
            Outcome::Applied { response: Err(_), .. } => Ending::Fail("refused by the store"),
            Outcome::Applied { response: Ok(response), .. } => Ending::Ok(match (what, response) {
                (What::Cas, Response::Txn(txn)) => Some(txn.succeeded.to_string()),
                (What::Delete, Response::DeleteRange(deleted)) => Some((deleted.deleted > 0).to_string()),
                _ => None,
            }),
        }
    }

    /// Ends an operation; it must be open.
    pub(crate) fn end(&mut self, now: u64, number: u32, ending: &Ending) {
        let operation = &mut self.operations[number as usize];
        let handle = operation.handle.take().expect("an operation ends once");
        let is = |text: &Option<String>| text.as_deref() == Some("true");
        let (reply, seen) = match (operation.what, ending) {
            (_, Ending::Fail(why)) => (Answered::fail(why), None),
            (_, Ending::Unknown(why)) => (Answered::unknown(why), None),
            (What::Put, Ending::Ok(_)) => (Answered::Ok(Reply::none()), Some(operation.value.clone())),
            (What::Get, Ending::Ok(value)) => {
                (Answered::Ok(Reply::value(value.clone())), Some(value.as_deref().map(Arc::from)))
            }
            (What::Cas, Ending::Ok(value)) => {
                let seen = is(value).then(|| operation.value.clone());
                (Answered::Ok(Reply::value(is(value))), seen)
            }
            (What::Delete, Ending::Ok(value)) => (Answered::Ok(Reply::value(is(value))), Some(None)),
        };
        if let (Some(seen), Some(at)) = (seen, self.keys.iter().position(|key| *key == operation.key)) {
            self.seen[at] = seen;
        }
        self.recorder.complete(Nanos(now), handle, reply);
    }

    pub(crate) fn note(&mut self, now: u64, text: &str) {
        self.recorder.note(Nanos(now), text);
    }

    pub(crate) fn finish(self) -> History {
        self.recorder.finish()
    }
}

/// No client waits while this many operations are begun by all others.
const OPEN_LOOK_BACK: usize = 50_000;

/// Names of members by position.
pub(crate) const MEMBERS: [&str; crate::script::NODES_MAX as usize] =
    ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10", "n11", "n12", "n13", "n14", "n15"];

fn key_name(i: u32) -> Arc<str> {
    match ["x", "y", "z", "w"].get(i as usize) {
        Some(name) => Arc::from(*name),
        None => Arc::from(format!("k{i}")),
    }
}

fn read(range: RangeRequest) -> Ask {
    Request::Read(Query::Range(range))
}

fn answered(answer: <Machine as synod_node::StateMachine>::Answer) -> Ending {
    match answer {
        Ok(Answer::Range(range)) => {
            let value =
                range.kvs.into_iter().next().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
            Ending::Ok(value)
        }
        Ok(_) | Err(_) => Ending::Fail("refused by the store"),
    }
}

fn failed(what: What, error: ClientError) -> Ending {
    match error {
        ClientError::NoLeader => Ending::Fail("no leader"),
        ClientError::Busy => Ending::Fail("busy"),
        ClientError::Storage => Ending::Fail("disk full"),
        ClientError::TooLarge => Ending::Fail("too large"),
        ClientError::Unsupported => Ending::Fail("not offered"),
        ClientError::Change(_) => Ending::Fail("refused by the log"),
        ClientError::Timeout if what == What::Get => Ending::Fail("timeout"),
        ClientError::Timeout => Ending::Unknown("timeout"),
    }
}

/// Put if the key has the value expected, or does not exist.
fn cas(put: PutRequest, expect: Option<&str>) -> TxnRequest {
    let (target, union) = match expect {
        Some(value) => {
            let value = bytes::Bytes::copy_from_slice(value.as_bytes());
            (compare::CompareTarget::Value, compare::TargetUnion::Value(value))
        }
        None => (compare::CompareTarget::Version, compare::TargetUnion::Version(0)),
    };
    let compare = Compare {
        result: compare::CompareResult::Equal.into(),
        target: target.into(),
        key: put.key.clone(),
        target_union: Some(union),
        ..Compare::default()
    };
    let put = RequestOp { request: Some(request_op::Request::RequestPut(put)) };
    TxnRequest { compare: vec![compare], success: vec![put], failure: Vec::new() }
}
