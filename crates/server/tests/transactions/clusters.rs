//! Two clusters: a transfer between a keyspace of one and a keyspace of the other, and what is left when one of them is away.

use super::web::{Answered, Asked, Web};
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use synod_protocols::commit::{KeyOp, Message, Stamp, TxnId, Vote};
use synod_protocols::{NodeId, Wire};
use synod_server::outside::{Envelope, KeyspaceThere, MESSAGES_PATH, To};

/// A cluster of this name.
pub(super) fn named(name: &str, count: usize) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::stopped(count);
    cluster.configs.iter_mut().for_each(|config| config.cluster = name.to_owned());
    (0..count).for_each(|i| cluster.up(i));
    cluster.leader();
    let endpoints = (0..count).map(|i| cluster.endpoint(i)).collect();
    (cluster, endpoints)
}

pub(super) fn urls(endpoints: &[String]) -> Vec<String> {
    endpoints.iter().map(|endpoint| format!("http://{endpoint}")).collect()
}

pub(super) fn register(endpoint: &str, name: &str, there: &[String], keyspace: &str) -> Answer {
    let form = json!({"kind": "cluster", "endpoints": there, "keyspace": keyspace});
    surely(endpoint, "PUT", &format!("/v1/participants/{name}"), &form)
}

/// Accounts of 100: x in `bank1` of the one cluster, y in `bank2` of the other, which takes part as `far`.
pub(super) fn banks(here: &str, there: &[String], by: &[String]) {
    bank(here, "bank1", &["x"]);
    bank(&there[0], "bank2", &["y"]);
    let made = register(here, "far", by, "bank2");
    assert_eq!(made.status, 201, "{made:?}");
}

/// From x to y.
pub(super) fn payment(amount: i64) -> Value {
    json!({"branches": [
        {"participant": "bank1", "work": [add("x", -amount)]},
        {"participant": "far", "work": [add("y", amount)]},
    ]})
}

/// Both accounts, as one transaction sees them, if nothing is in its way.
fn audit(endpoint: &str) -> Option<(i64, i64)> {
    let get = |key: &str| json!([{"get": {"key": key}}]);
    let body = json!({"branches": [
        {"participant": "bank1", "work": get("x")}, {"participant": "far", "work": get("y")},
    ]});
    let read = follow(endpoint, "POST", "/v1/transactions", &body).filter(|read| read.status == 200)?.json();
    let one = |name: &str| read["answers"][name][0].as_str()?.parse().ok();
    (read["decision"] == "commit").then_some(())?;
    Some((one("bank1")?, one("far")?))
}

/// What is not over at a cluster's leader.
fn open(endpoint: &str) -> Vec<Value> {
    let open = surely(endpoint, "GET", "/v1/transactions", &Value::Null).json();
    open["transactions"].as_array().expect("a list").clone()
}

/// A coordinator whose messages are made up, and how `bank2` is to call itself to it.
pub(super) struct Orders {
    pub(super) coordinator: NodeId,
    pub(super) participant: NodeId,
    pub(super) reply: String,
}

impl Orders {
    /// What `bank2` of a cluster answers to a message.
    pub(super) fn post(&self, there: &str, message: Message) -> Vec<Message> {
        let id = surely(there, "GET", "/v1/keyspaces/bank2", &Value::Null).json()["id"].as_u64();
        let id = NodeId(id.expect("a number"));
        let to = To::Keyspace(KeyspaceThere { cluster: coordinator(there), id, name: "bank2".into() });
        let Orders { coordinator, participant, reply } = self;
        let reply = vec![reply.clone()];
        let envelope = Envelope {
            coordinator: *coordinator,
            participant: *participant,
            to,
            reply,
            messages: vec![message],
        };
        let answered = post(there, &envelope);
        assert_eq!(answered.status, 200, "{answered:?}");
        Envelope::decode(answered.text.as_bytes()).expect("an envelope").messages
    }
}

fn nothing_is_open(endpoint: &str) {
    until("nothing is open", || open(endpoint).is_empty().then_some(()));
}

#[test]
fn a_transfer_between_clusters_is_done_on_both_or_on_none() {
    let ((_one, here), (_other, there)) = (named("here", 3), named("there", 3));
    banks(&here[0], &there, &urls(&there));
    assert_eq!(register(&here[1], "far", &urls(&there), "bank2").status, 200, "once more is the same");
    let shown = surely(&here[2], "GET", "/v1/participants/far", &Value::Null).json();
    assert_eq!((&shown["kind"], &shown["keyspace"]), (&json!("cluster"), &json!("bank2")), "{shown}");
    assert_eq!(shown["endpoints"], json!(urls(&there)));

    let ended = run(&here[0], &payment(30)).json();
    assert_eq!((&ended["decision"], &ended["route"]), (&json!("commit"), &json!("two-phase")), "{ended}");
    assert_eq!(until("a read of both", || audit(&here[0])), (70, 130));
    assert_eq!(value(&there[0], "bank2", "y"), "130");

    // Neither side's refusal leaves anything at the other.
    for (amount, whose) in [(71, "bank1"), (-131, "far")] {
        let ended = run(&here[0], &payment(amount)).json();
        let why = ended["why"].as_str().unwrap_or_default();
        assert!(ended["decision"] == "abort" && why.starts_with(whose), "{ended}");
    }
    assert_eq!(until("a read of both", || audit(&here[0])), (70, 130));

    // The other cluster alone decides for itself.
    let alone = json!({"branches": [{"participant": "far", "work": [add("y", 1)]}]});
    assert_eq!(run(&here[0], &alone).json()["decision"], "commit");
    assert_eq!(value(&there[0], "bank2", "y"), "131");
    let mut one_entry = alone.clone();
    one_entry["route"] = "one-entry".into();
    assert_eq!(run(&here[0], &one_entry).code(), "apart");
    let sql = json!({"branches": [{"participant": "far", "work": [{"sql": "select 1"}]}]});
    assert_eq!(run(&here[0], &sql).status, 400);

    nothing_is_open(&here[0]);
    nothing_is_open(&there[0]);
    assert_eq!(surely(&here[0], "DELETE", "/v1/participants/far", &Value::Null).status, 200);
    assert_eq!(run(&here[0], &payment(1)).status, 404);
}

#[test]
fn what_cannot_take_part_is_refused_with_the_reason() {
    let ((_one, here), (_other, there), (_third, third)) =
        (named("here", 1), named("there", 1), named("third", 1));
    banks(&here[0], &there, &urls(&there));
    bank(&here[0], "bank2", &["y"]);
    surely(&there[0], "PUT", "/v1/keyspaces/feed", &json!({"model": "causal"}));
    let dead = std::net::TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a port");
    let mixed = urls(&[there[0].clone(), third[0].clone()]);
    for (name, endpoints, keyspace, status, reason) in [
        ("more", urls(&there), "bank9", 409, "has no keyspace `bank9`: create it there first"),
        ("more", urls(&there), "feed", 409, "is causal"),
        ("more", urls(&there), "../status", 400, "no name of a keyspace"),
        ("more", urls(&here), "bank2", 409, "this cluster itself"),
        ("more", urls(&there), "bank2", 409, "as `far`"),
        ("more", mixed, "bank2", 409, "of two clusters"),
        ("more", vec![format!("http://{dead}")], "bank2", 409, "does not answer"),
        ("more", vec![], "bank2", 400, "1 to 16 endpoints"),
        ("more", vec!["http://h".into(); 17], "bank2", 400, "1 to 16 endpoints"),
        ("more", vec!["https://h".into()], "bank2", 400, "https is not spoken here"),
        ("bank1", urls(&there), "bank2", 409, "takes part already"),
    ] {
        let refused = register(&here[0], name, &endpoints, keyspace);
        assert!(refused.status == status && refused.text.contains(reason), "{reason}: {refused:?}");
    }

    // Messages that are for somebody else, or of somebody else.
    let coordinator = coordinator(&here[0]);
    let good = order(&here[0], &there[0], prepare(coordinator, 1, 1));
    let with = |change: fn(&mut Envelope)| {
        let mut envelope = good.clone();
        change(&mut envelope);
        post(&there[0], &envelope)
    };
    let keyspace = |envelope: &mut Envelope, change: fn(&mut KeyspaceThere)| match &mut envelope.to {
        To::Keyspace(there) => change(there),
        To::Coordinator => unreachable!("it is for a keyspace"),
    };
    let mut elsewhere = good.clone();
    keyspace(&mut elsewhere, |there| there.cluster = NodeId(77));
    let mut another = good.clone();
    keyspace(&mut another, |there| there.id = NodeId(77));
    let mut unknown = good.clone();
    keyspace(&mut unknown, |there| there.name = "bank9".into());
    for (answer, status, code) in [
        (post(&there[0], &elsewhere), 409, "other-cluster"),
        (post(&there[0], &another), 404, "keyspace-unknown"),
        (post(&there[0], &unknown), 404, "keyspace-unknown"),
        // The endpoints are another cluster's now.
        (post(&third[0], &good), 409, "other-cluster"),
        (with(|envelope| envelope.coordinator = NodeId(3)), 400, "malformed"),
        (
            with(|envelope| {
                envelope.messages = vec![Message::Ack {
                    txn: TxnId { coordinator: envelope.coordinator, epoch: 1, number: 1 },
                }]
            }),
            400,
            "malformed",
        ),
        (with(|envelope| (envelope.to, envelope.messages) = (To::Coordinator, vec![])), 409, "other-cluster"),
        (with(|envelope| envelope.reply = vec![]), 400, "address"),
        (surely(&there[0], "POST", MESSAGES_PATH, &json!({"x": 1})), 400, "malformed"),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
    }
    assert!(open(&there[0]).is_empty(), "nothing was promised");
}

/// The number of the cluster's coordinator.
pub(super) fn coordinator(endpoint: &str) -> NodeId {
    let status = surely(endpoint, "GET", "/status", &Value::Null).json();
    let id = u64::from_str_radix(status["cluster-id"].as_str().expect("a number"), 16).expect("a number");
    NodeId(id & (u64::MAX >> 1))
}

/// An order to promise ten more to y, of a life of a coordinator that has long been replaced, or is to come.
pub(super) fn prepare(coordinator: NodeId, epoch: u64, number: u64) -> Message {
    let txn = TxnId { coordinator, epoch, number };
    let stamp = Stamp { epoch, floor: TxnId { number: 1, ..txn } };
    let work = vec![KeyOp::Add { key: "y".into(), by: 10, at_least: None }].to_bytes();
    Message::Prepare { stamp, txn, addresses: vec![], peers: vec![], life: 0, work: Some(work) }
}

/// The message in an envelope from the coordinator of one cluster to `bank2` of another.
pub(super) fn order(here: &str, there: &str, message: Message) -> Envelope {
    let id =
        surely(there, "GET", "/v1/keyspaces/bank2", &Value::Null).json()["id"].as_u64().expect("a number");
    let known = surely(here, "GET", "/v1/participants/far", &Value::Null).json()["id"].as_u64();
    Envelope {
        coordinator: coordinator(here),
        participant: NodeId(known.expect("a number")),
        to: To::Keyspace(KeyspaceThere { cluster: coordinator(there), id: NodeId(id), name: "bank2".into() }),
        reply: vec![format!("http://{here}")],
        messages: vec![message],
    }
}

pub(super) fn post(endpoint: &str, envelope: &Envelope) -> Answer {
    let body = serde_json::from_slice(&envelope.encode()).expect("JSON");
    surely(endpoint, "POST", MESSAGES_PATH, &body)
}

#[test]
fn a_keyspace_in_doubt_after_a_restart_asks_the_other_cluster_and_what_that_does_not_know_has_aborted() {
    let ((mut one, here), (mut other, there)) = (named("here", 1), named("there", 1));
    banks(&here[0], &there, &urls(&there));
    assert_eq!(run(&here[0], &payment(1)).json()["decision"], "commit", "both have lived");
    let ordered = order(&here[0], &there[0], prepare(coordinator(&here[0]), 1, 1_000));
    one.down(0);
    let voted = Envelope::decode(post(&there[0], &ordered).text.as_bytes()).expect("an envelope");
    assert!(matches!(&voted.messages[..], [Message::Vote { vote: Vote::Yes { .. }, .. }]), "{voted:?}");
    for _ in 0..2 {
        // Soon after a restart: when the keyspace's next life has begun.
        until("it is in doubt", || open(&there[0]).iter().any(|open| open["in-doubt"] == true).then_some(()));
        let held = surely(&there[0], "PUT", "/v1/keyspaces/bank2/keys/y", &json!({"value": "0"}));
        assert_eq!(held.code(), "locked", "{held:?}");
        other.down(0);
        other.up(0);
        other.leader();
    }
    one.up(0);
    nothing_is_open(&there[0]);
    assert_eq!(until("a read of both", || audit(&here[0])), (99, 101));
}

/// What stands between the clusters lets through only what this says; of a request that it does not, or of its answer, nothing is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lost {
    Votes,
    Decisions,
}

/// A way to a member at which something is lost, on a thread of its own.
struct Gate {
    url: String,
    over: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Gate {
    fn open(to: String, lost: Lost) -> Gate {
        let (over, is_over) = tokio::sync::oneshot::channel();
        let (url, known) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let web = Web::start(move |asked| {
                    let to = to.clone();
                    async move {
                        let passed = tokio::task::spawn_blocking(move || pass(&to, &asked, lost));
                        passed.await.expect("no panic")
                    }
                });
                url.send(web.url()).expect("it is waited for");
                let _ = is_over.await;
            });
        });
        Gate { url: known.recv().expect("an address"), over: Some(over), thread: Some(thread) }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        drop(self.over.take());
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn pass(to: &str, asked: &Asked, lost: Lost) -> Answered {
    let silence = Some((503, None, String::new()));
    let text = String::from_utf8(asked.body.to_vec()).expect("text");
    let Ok(envelope) = Envelope::decode(&asked.body) else {
        return exchange(to, "GET", &asked.path, &[], "").map(|said| (said.status, None, said.text));
    };
    let is_decision = |message: &Message| matches!(message, Message::Decide { .. });
    let is_decided = envelope.messages.iter().any(is_decision);
    if is_decided {
        return silence;
    }
    let said = exchange(to, "POST", &asked.path, &[], &text)?;
    if lost == Lost::Votes { silence } else { Some((said.status, None, said.text)) }
}

#[test]
fn a_commit_of_which_a_keyspace_does_not_hear_is_asked_for() {
    let ((_one, here), (_other, there)) = (named("here", 1), named("there", 1));
    let gate = Gate::open(there[0].clone(), Lost::Decisions);
    banks(&here[0], &there, std::slice::from_ref(&gate.url));
    assert_eq!(run(&here[0], &payment(30)).json()["decision"], "commit");
    // No decision ever comes through: the keyspace has asked.
    until("it has arrived", || (value(&there[0], "bank2", "y") == "130").then_some(()));
    nothing_is_open(&there[0]);
    // And has said so.
    nothing_is_open(&here[0]);
}

#[test]
fn a_coordinator_that_is_gone_between_votes_and_decision_has_aborted_when_it_is_back() {
    let ((mut one, here), (_other, there)) = (named("here", 1), named("there", 1));
    let gate = Gate::open(there[0].clone(), Lost::Votes);
    banks(&here[0], &there, std::slice::from_ref(&gate.url));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| follow(&here[0], "POST", "/v1/transactions", &payment(30)));
        until("it is promised there", || {
            open(&there[0]).iter().any(|open| open["in-doubt"] == true).then_some(())
        });
        one.down(0);
        let answer = client.join().expect("no panic");
        assert!(answer.is_none_or(|answer| answer.status != 200), "nothing is decided");
    });
    assert_eq!(open(&there[0]).len(), 1, "it waits");
    one.up(0);
    one.leader();
    nothing_is_open(&there[0]);
    nothing_is_open(&here[0]);
    assert_eq!((value(&here[0], "bank1", "x"), value(&there[0], "bank2", "y")), (json!("100"), json!("100")));
}

#[test]
fn leaders_of_both_clusters_are_restarted_under_transfers_and_no_money_is_gone() {
    let ((mut one, here), (mut other, there)) = (named("here", 3), named("there", 3));
    banks(&here[0], &there, &urls(&there));
    let (is_over, commits, reads) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (is_over, commits, reads) = (Arc::new(is_over), Arc::new(commits), Arc::new(reads));
    std::thread::scope(|scope| {
        for client in 0..3 {
            let (is_over, commits, here) = (Arc::clone(&is_over), Arc::clone(&commits), &here);
            scope.spawn(move || {
                for round in client.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let body = payment(if round % 2 == 0 { 3 } else { -3 });
                    let ended = follow(&here[round % 3], "POST", "/v1/transactions", &body);
                    match ended.filter(|ended| ended.status == 200) {
                        Some(ended) if ended.json()["decision"] == "commit" => {
                            commits.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => {}
                    }
                    // So that a read of both finds them free now and then.
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let (over, counted, endpoints) = (Arc::clone(&is_over), Arc::clone(&reads), &here);
        scope.spawn(move || {
            for round in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                if let Some((x, y)) = audit(&endpoints[round % 3]) {
                    assert_eq!(x + y, 200, "money is gone or made");
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let _stop = Stop(&is_over);
        for round in 0..4 {
            let seen = || (commits.load(Ordering::Relaxed), reads.load(Ordering::Relaxed));
            let before = seen();
            until("transfers and reads go on", || {
                let now = seen();
                (now.0 >= before.0 + 10 && now.1 > before.1).then_some(())
            });
            let cluster = if round % 2 == 0 { &mut one } else { &mut other };
            let leader = cluster.leader();
            cluster.down(leader);
            cluster.leader();
            cluster.up(leader);
        }
    });
    let (x, y) = until("a read of both", || audit(&here[0]));
    assert_eq!(x + y, 200);
    nothing_is_open(&here[0]);
    nothing_is_open(&there[0]);
    let (commits, reads) = (commits.load(Ordering::Relaxed), reads.load(Ordering::Relaxed));
    println!("{commits} transfers and {reads} reads of both accounts across 4 leaders restarted");
}

/// Ends the transfers when it is dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
