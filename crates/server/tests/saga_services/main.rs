//! Sagas between keyspaces and a service behind HTTP, in a cluster of processes whose leaders are killed.
//!
//! The service keeps a ledger of every movement of money by its idempotency key: what it did once and what it did
//! twice is told by that, and by nothing that the cluster says.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

#[allow(dead_code, reason = "sessions are tested elsewhere")]
#[path = "../http_api/client.rs"]
mod client;

#[path = "../outside/bank.rs"]
mod bank;

#[path = "../outside/web.rs"]
mod web;

use bank::{Bank, Mishap};
use client::{Answer, exchange};
use common::processes::Processes;
use common::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use web::Web;

on_every_protocol! {
    a_service_moves_money_once_whoever_is_killed_and_whatever_is_lost;
}

#[test]
fn be_a_member() {
    processes::be_a_member();
}

const SAGAS: usize = 24;
const AMOUNT: i64 = 10;
/// How often the leader is killed.
const KILLS: usize = 3;
/// Longer than the cluster waits for an answer.
const TIMED_OUT: Duration = Duration::from_millis(10_500);

/// One request, at the leader if it belongs there; nothing if a connection breaks or that one is gone.
fn follow(endpoint: &str, method: &str, target: &str, body: &Value) -> Option<Answer> {
    let answer = exchange(endpoint, method, target, &[], &body.to_string())?;
    match (answer.status, answer.header("location")) {
        (307, Some(location)) => {
            let (endpoint, target) = location.strip_prefix("http://")?.split_once('/')?;
            exchange(endpoint, method, &format!("/{target}"), &[], &body.to_string())
        }
        _ => Some(answer),
    }
}

/// Asks one after the other until an answer is no word about elections. What may be done twice is asked so.
fn surely(endpoints: &[String], method: &str, target: &str, body: &Value) -> Answer {
    until("an answer", || {
        let answers = endpoints.iter().filter_map(|endpoint| follow(endpoint, method, target, body));
        answers.into_iter().find(|answer| ![307, 429, 503, 504].contains(&answer.status))
    })
}

fn value(endpoints: &[String], space: &str, key: &str) -> i64 {
    let answer = surely(endpoints, "GET", &format!("/v1/keyspaces/{space}/keys/{key}"), &Value::Null);
    answer.json()["value"]
        .as_str()
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{answer:?}"))
}

fn add(key: &str, by: impl Into<Value>) -> Value {
    json!({"add": {"key": key, "by": by.into(), "at-least": 0}})
}

/// Money goes from ann at a keyspace through the till to bob at another one, who gets what the till says that it moved.
/// The till refuses one of four, and bob's keyspace another one, when the till has acted already.
fn transfer(number: usize) -> Value {
    let account = if number % 4 == 1 { "nobody" } else { "till" };
    let bob = if number % 4 == 3 { "nobody" } else { "bob" };
    let body = json!({"account": account, "amount": AMOUNT});
    json!({"name": format!("transfer {number}"), "steps": [
        {
            "name": "take", "service": "bank1",
            "action": {"ops": [add("ann", -AMOUNT), {"get": {"key": "ann"}}]},
            "compensation": {"ops": [add("ann", AMOUNT)]},
        },
        {
            "name": "hold", "service": "till", "after": ["take"],
            "action": {"post": {"path": "/credit", "body": body}},
            "compensation": {"post": {"path": "/debit", "body": body}},
        },
        {
            "name": "give", "service": "bank2", "after": ["hold", "take"],
            "action": {"ops": [add(bob, "${hold/moved}"), {"put": {"key": "ann-had", "value": "${take/0}"}}]},
            "compensation": {"ops": [add(bob, "-${hold/moved}")]},
        },
    ]})
}

/// Ann has 1,000 at the one keyspace, and bob nothing at the other.
fn make_banks(endpoints: &[String]) {
    for (space, key, balance) in [("bank1", "ann", "1000"), ("bank2", "bob", "0")] {
        let made =
            surely(endpoints, "PUT", &format!("/v1/keyspaces/{space}"), &json!({"model": "linearizable"}));
        assert!([200, 201].contains(&made.status), "{made:?}");
        let put = surely(
            endpoints,
            "PUT",
            &format!("/v1/keyspaces/{space}/keys/{key}"),
            &json!({"value": balance}),
        );
        assert_eq!(put.status, 200, "{put:?}");
    }
}

/// What befalls the till, request by request: three of eight go well.
fn mishaps() -> impl Iterator<Item = Mishap> {
    let well = Mishap::Late(Duration::ZERO);
    let round = [
        Mishap::DiesAfterActing,
        well,
        Mishap::Down,
        Mishap::HeldBack,
        well,
        Mishap::Says(503),
        Mishap::Late(Duration::from_millis(400)),
        well,
    ];
    round.into_iter().cycle().take(6 * round.len())
}

/// All sagas, when there are as many as these and all are over.
fn until_over(endpoints: &[String], count: usize) -> Vec<Value> {
    until("the end of every saga", || {
        let seen = surely(endpoints, "GET", "/v1/sagas", &Value::Null).json()["sagas"].clone();
        let all = seen.as_array().cloned().unwrap_or_default();
        let is_over = |saga: &Value| saga["state"] == "done" || saga["state"] == "compensated";
        (all.len() >= count && all.iter().all(is_over)).then_some(all)
    })
}

/// The till's server, on a thread of its own until it is dropped.
struct Served {
    url: String,
    _end: oneshot::Sender<()>,
}

impl Served {
    fn start(till: &Arc<Bank>) -> Served {
        let (till, (end, ended), (say, url)) =
            (Arc::clone(till), oneshot::channel(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let web = Web::start(move |asked| Arc::clone(&till).serve(asked));
                say.send(web.url()).expect("the test waits for it");
                let _ = ended.await;
            });
        });
        Served { url: url.recv().expect("it has started"), _end: end }
    }
}

fn a_service_moves_money_once_whoever_is_killed_and_whatever_is_lost(protocol: &str) {
    let folder = tempfile::tempdir().expect("a directory");
    let till = Bank::open(folder.path().join("till"), &[("till", 0)]);
    till.will(mishaps());
    let served = Served::start(&till);
    let mut members = Processes::start(protocol, 3);
    members.leader(&[0, 1, 2]);
    let endpoints: Vec<String> = (0..3).map(|i| members.endpoint(i)).collect();
    make_banks(&endpoints);
    let described = json!({"kind": "http", "url": served.url});
    let registered = surely(&endpoints, "PUT", "/v1/participants/till", &described);
    assert!([200, 201].contains(&registered.status), "{registered:?}");

    for number in 0..SAGAS {
        // Not asked twice on purpose: a lost answer leaves a saga behind that is looked at below like the others.
        let begun = surely(&endpoints, "POST", "/v1/sagas", &transfer(number));
        assert_eq!(begun.status, 201, "{begun:?}");
        if (number + 1) % (SAGAS / KILLS) == 0 {
            // In the middle of some of them.
            let leader = members.leader(&[0, 1, 2]);
            members.kill(leader);
            let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
            members.leader(&others);
            members.up(leader);
            members.leader(&[0, 1, 2]);
        }
    }
    until_over(&endpoints, SAGAS);
    // Nobody is killed any more: the cluster itself gives an answer up that comes too late, and asks again.
    till.will_only([Mishap::Late(TIMED_OUT)]);
    surely(&endpoints, "POST", "/v1/sagas", &transfer(SAGAS));
    let sagas = until_over(&endpoints, SAGAS + 1);

    judge(protocol, &endpoints, &till, &sagas);
}

/// Each effect is there once or not at all, as its saga says, by the till's ledger and by the balances.
fn judge(protocol: &str, endpoints: &[String], till: &Bank, sagas: &[Value]) {
    // Requests that were on their way all the time arrive after everything, and move nothing.
    let before = till.movements();
    let late = till.release();
    assert_eq!(till.movements(), before, "late requests moved money: {late:?}");

    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    before.into_iter().for_each(|key| *times.entry(key).or_default() += 1);
    assert!(times.values().all(|count| *count == 1), "moved twice: {times:?}");
    let mut done = 0;
    for saga in sagas {
        let (id, name) = (saga["saga"].as_str().expect("a name"), saga["name"].as_str().expect("a name"));
        let moved = |kind: &str| times.contains_key(&format!("synod/{id}/hold/{kind}"));
        let number: usize = name.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        if saga["state"] == "done" {
            done += 1;
            assert!(moved("act") && !moved("compensate"), "done, and not once at the till: {saga}");
            assert!(number % 4 != 1 && number % 4 != 3, "what was refused is not done: {saga}");
        } else {
            assert_eq!(moved("act"), moved("compensate"), "undone by half at the till: {saga}");
        }
    }
    assert_eq!(till.balance("till"), (done * AMOUNT) as u64);
    assert_eq!(value(endpoints, "bank1", "ann"), 1_000 - done * AMOUNT);
    assert_eq!(value(endpoints, "bank2", "bob"), done * AMOUNT);

    let requests = till.requests.lock().expect("no panic");
    let keys: BTreeSet<&String> = requests.iter().map(|(key, _)| key).collect();
    // The service was told what it had answered, where the answer had arrived.
    let told = requests.iter().filter(|(key, body)| {
        key.ends_with("/compensate") && body.pointer("/given/hold/moved") == Some(&json!(AMOUNT))
    });
    let told = told.count();
    println!(
        "{protocol}: {} sagas, {done} done, {KILLS} leaders killed; the till was asked {} times for {} things and moved money {} times; \
         {told} compensations knew what they undo",
        sagas.len(),
        requests.len(),
        keys.len(),
        times.len(),
    );
    assert!(requests.len() > keys.len() && told > 0 && done > 0, "nothing was asked twice, undone or done");
}
