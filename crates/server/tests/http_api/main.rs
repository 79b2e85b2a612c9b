//! The API over HTTP and JSON, against clusters of three in one process.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod client;
mod document;
mod etcd;
mod log;
mod schema;
mod watched;
mod weak;

use client::{Answer, ask};
use common::*;

/// Three members that agree on a leader.
fn cluster() -> (Cluster, Vec<String>) {
    let cluster = Cluster::start(3);
    cluster.leader();
    let endpoints = (0..3).map(|i| cluster.endpoint(i)).collect();
    (cluster, endpoints)
}

/// Asks until it is not refused because of an election.
fn surely(endpoint: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    until("an answer", || {
        let answer = ask(endpoint, method, target, headers, body);
        (![429, 503].contains(&answer.status)).then_some(answer)
    })
}

fn create(endpoint: &str, name: &str, model: &str) {
    let body = format!("{{\"model\":\"{model}\"}}");
    let made = surely(endpoint, "PUT", &format!("/v1/keyspaces/{name}"), &[], &body);
    assert_eq!(made.status, 201, "{made:?}");
}
