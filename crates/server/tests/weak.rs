//! Causal and eventual keyspaces of running members.

mod common;

use common::*;
use serde_json::{Value, json};
use std::time::Duration;

/// One exchange with a member: the code, and what it says.
fn exchange(
    endpoint: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Option<(u16, Value)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let (code, text) = http(
        endpoint,
        &format!("{method} {path} HTTP/1.0\r\ncontent-length: {length}\r\n{headers}\r\n{body}"),
    )?;
    Some((code, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

fn create(cluster: &Cluster, name: &str, model: &str) {
    until("the keyspace is made", || {
        let made = exchange(
            &cluster.endpoint(0),
            "PUT",
            &format!("/v1/keyspaces/{name}"),
            &[],
            Some(&json!({"model": model})),
        );
        made.filter(|(code, _)| *code < 300)
    });
    for i in 0..cluster.servers.len() {
        if cluster.servers[i].is_some() {
            until("it has begun", || {
                (figures(&cluster.endpoint(i), name)["standing"] == "member").then_some(())
            });
        }
    }
}

/// What a member says of a weak keyspace.
fn figures(endpoint: &str, name: &str) -> Value {
    let status = exchange(endpoint, "GET", "/status", &[], None);
    status.map(|(_, status)| status["keyspaces"][name].clone()).unwrap_or_default()
}

#[test]
fn a_keyspace_runs_at_every_member_and_goes_where_it_is_dropped() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    create(&cluster, "feed", "causal");
    create(&cluster, "cache", "eventual");
    let id = figures(&cluster.endpoint(0), "feed")["id"].as_u64().expect("a number");
    let directory = |i: usize| cluster.configs[i].data_dir.join("keyspaces").join(id.to_string());
    assert!((0..3).all(|i| directory(i).exists()));
    let (feed, cache) = (directory(2), id);
    cluster.down(2);
    until("it is dropped", || {
        let dropped = exchange(&cluster.endpoint(0), "DELETE", "/v1/keyspaces/feed?force=true", &[], None);
        dropped.filter(|(code, _)| *code == 200)
    });
    assert!(feed.exists(), "who is away does not know");
    cluster.up(2);
    for i in 0..3 {
        let directory = cluster.configs[i].data_dir.join("keyspaces").join(cache.to_string());
        until("it is gone", || (!directory.exists()).then_some(()));
        let noted = std::fs::read_to_string(cluster.configs[i].data_dir.join("KEYSPACES")).expect("a file");
        assert!(!noted.lines().any(|line| line == id.to_string()), "{noted}");
        until("the other runs", || {
            (figures(&cluster.endpoint(i), "cache")["standing"] == "member").then_some(())
        });
    }
    std::thread::sleep(Duration::from_millis(1));
}
