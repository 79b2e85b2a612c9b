//! Transactions and sagas, against clusters of three.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

#[allow(dead_code, reason = "sessions are tested elsewhere")]
#[path = "../http_api/client.rs"]
mod client;

#[path = "../outside/database.rs"]
mod database;

#[path = "../outside/proxy.rs"]
mod proxy;

#[path = "../outside/web.rs"]
mod web;

mod between;
mod by_hand;
mod clusters;
mod database_steps;
mod databases;
mod judged;
mod keyspaces;
mod pair;
mod records;
mod sagas;
mod steps;

use client::{Answer, exchange};
use common::*;
use serde_json::{Value, json};

/// Not a test of its own: what the processes of other tests run.
#[test]
fn be_a_member() {
    processes::be_a_member();
}

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

/// Asks until it is not refused because of an election.
fn surely(endpoint: &str, method: &str, target: &str, body: &Value) -> Answer {
    until("an answer", || {
        follow(endpoint, method, target, body).filter(|answer| ![307, 429, 503].contains(&answer.status))
    })
}

/// Three members that agree on a leader.
fn cluster() -> (Cluster, Vec<String>) {
    let cluster = Cluster::start(3);
    cluster.leader();
    let endpoints = (0..3).map(|i| cluster.endpoint(i)).collect();
    (cluster, endpoints)
}

/// A keyspace in which each of these accounts has 100.
fn bank(endpoint: &str, name: &str, accounts: &[&str]) {
    let made = surely(endpoint, "PUT", &format!("/v1/keyspaces/{name}"), &json!({"model": "linearizable"}));
    assert!([200, 201].contains(&made.status), "{made:?}");
    let writes: Vec<Value> = accounts.iter().map(|key| json!({"key": key, "value": "100"})).collect();
    // What an election has left unknown may be done again.
    let written = until("the accounts are written", || {
        let path = format!("/v1/keyspaces/{name}/batch");
        let written = surely(endpoint, "POST", &path, &json!({"writes": writes}));
        (written.status != 504).then_some(written)
    });
    assert_eq!(written.status, 200, "{written:?}");
}

fn add(key: &str, by: i64) -> Value {
    json!({"add": {"key": key, "by": by, "at-least": 0}})
}

/// What moves money between an account of `bank1` and one of `bank2`.
fn transfer(from: &str, to: &str, amount: i64) -> Value {
    json!({"branches": [
        {"participant": "bank1", "work": [add(from, -amount)]},
        {"participant": "bank2", "work": [add(to, amount)]},
    ]})
}

fn run(endpoint: &str, body: &Value) -> Answer {
    surely(endpoint, "POST", "/v1/transactions", body)
}

fn value(endpoint: &str, bank: &str, key: &str) -> Value {
    surely(endpoint, "GET", &format!("/v1/keyspaces/{bank}/keys/{key}"), &Value::Null).json()["value"].clone()
}
