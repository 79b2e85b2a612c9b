//! Causal and eventual keyspaces: kinds, sessions that travel, levels, and what is wrong with requests.

use super::client::Answer;
use super::common::*;
use super::{ask, cluster, create, surely};
use serde_json::{Value, json};

fn write(endpoint: &str, target: &str, token: Option<&str>, body: &Value) -> Answer {
    let headers: Vec<(&str, &str)> = token.map(|token| ("synod-session", token)).into_iter().collect();
    let answer = surely(endpoint, "PUT", target, &headers, &body.to_string());
    assert_eq!(answer.status, 200, "{target} {body}: {answer:?}");
    answer
}

fn cut(cluster: &Cluster, away: usize, what: &str) {
    let others: Vec<String> =
        (0..cluster.servers.len()).filter(|i| *i != away).map(|i| format!("\"n{}\"", i + 1)).collect();
    let (code, text) = post_fault(&cluster.endpoint(away), &format!("{{\"{what}\":[{}]}}", others.join(",")));
    assert_eq!(code, 200, "{text}");
}

#[test]
fn a_session_carries_what_it_has_seen_to_another_member() {
    let (cluster, endpoints) = cluster();
    create(&endpoints[0], "feed", "causal");
    for endpoint in &endpoints {
        surely(endpoint, "GET", "/v1/keyspaces/feed/keys/post", &[], "");
    }
    cut(&cluster, 2, "block");
    let post = write(&endpoints[0], "/v1/keyspaces/feed/keys/post", None, &json!({"value": "?"}));
    let token = post.session();
    let reply = write(&endpoints[1], "/v1/keyspaces/feed/keys/reply", Some(&token), &json!({"value": "!"}));
    let token = reply.session();
    // The member that is cut off writes and reads all the same, but not for this session.
    write(&endpoints[2], "/v1/keyspaces/feed/keys/alone", None, &json!({"value": "here"}));
    let behind = ask(&endpoints[2], "GET", "/v1/keyspaces/feed/keys/reply", &[("synod-session", &token)], "");
    assert_eq!((behind.status, behind.code().as_str()), (503, "behind"), "{behind:?}");
    let eventual = "/v1/keyspaces/feed/keys/reply?consistency=eventual";
    let stale = ask(&endpoints[2], "GET", eventual, &[("synod-session", &token)], "");
    assert_eq!((stale.status, &stale.json()["value"]), (200, &json!(null)), "{stale:?}");
    assert_eq!(stale.session(), token, "the session has still seen what it had");
    cut(&cluster, 2, "unblock");
    let read = surely(&endpoints[2], "GET", "/v1/keyspaces/feed/keys/post", &[("synod-session", &token)], "");
    assert_eq!(read.json()["value"], json!("?"), "{read:?}");
    let all = surely(&endpoints[2], "GET", "/v1/keyspaces/feed/keys", &[("synod-session", &token)], "");
    let keys: Vec<_> =
        all.json()["keys"].as_array().expect("keys").iter().map(|entry| entry["key"].clone()).collect();
    assert_eq!(keys, [json!("alone"), json!("post"), json!("reply")]);
    assert_ne!(all.session(), token, "what was listed was seen");
}

#[test]
fn kinds_keep_what_concurrent_writes_meant() {
    let (cluster, endpoints) = cluster();
    for (name, model) in [("shop", "causal"), ("cache", "eventual")] {
        create(&endpoints[0], name, model);
        let key = |key: &str| format!("/v1/keyspaces/{name}/keys/{key}");
        for endpoint in &endpoints {
            surely(endpoint, "GET", &key("n"), &[], "");
        }
        cut(&cluster, 2, "block");
        for endpoint in [&endpoints[0], &endpoints[2]] {
            let who = if *endpoint == endpoints[0] { "zero" } else { "two" };
            write(endpoint, &key("n"), None, &json!({"kind": "counter", "add": 3}));
            write(
                endpoint,
                &key("cart"),
                None,
                &json!({"kind": "set", "insert": ["tea", who], "remove": ["milk"]}),
            );
            write(endpoint, &key("note"), None, &json!({"kind": "siblings", "value": who}));
            write(endpoint, &key("last"), None, &json!({"value": who}));
        }
        cut(&cluster, 2, "unblock");
        let read = |i: usize, what: &str| {
            let target = format!(
                "{}?kind={what}",
                key(match what {
                    "counter" => "n",
                    "set" => "cart",
                    "siblings" => "note",
                    _ => "last",
                })
            );
            surely(&endpoints[i], "GET", &target, &[], "").json()
        };
        let sorted = |value: &Value| {
            let mut values: Vec<String> = serde_json::from_value(value.clone()).expect("texts");
            values.sort();
            values
        };
        for i in 0..3 {
            until("the member has both", || (read(i, "counter")["value"] == 6).then_some(()));
            until("the set has both", || {
                (sorted(&read(i, "set")["elements"]) == ["tea", "two", "zero"]).then_some(())
            });
            until("both notes are kept", || {
                (sorted(&read(i, "siblings")["values"]) == ["two", "zero"]).then_some(())
            });
        }
        until("the last writer won everywhere", || {
            let last: Vec<Value> = (0..3).map(|i| read(i, "register")["value"].clone()).collect();
            (last.iter().all(|value| *value == last[0] && value.is_string())).then_some(())
        });
        // Who has read the siblings replaces them.
        let notes = read(1, "siblings");
        let context = notes["context"].as_str().expect("a context");
        write(
            &endpoints[1],
            &key("note"),
            None,
            &json!({"kind": "siblings", "value": "one", "context": context}),
        );
        until("one is left", || (read(1, "siblings")["values"] == json!(["one"])).then_some(()));
        let list =
            surely(&endpoints[1], "GET", &format!("/v1/keyspaces/{name}/keys?kind=counter"), &[], "").json();
        assert_eq!(list["keys"], json!([{"key": "n", "kind": "counter", "value": 6}]));
    }
}

#[test]
fn a_list_of_all_kinds_goes_on_where_it_ended() {
    let (_cluster, endpoints) = cluster();
    create(&endpoints[0], "feed", "eventual");
    let batch = json!({"writes": [
        {"key": "a", "value": "1"}, {"key": "b", "value": "2"}, {"key": "a", "kind": "counter", "add": -4},
        {"key": "a", "kind": "set", "insert": ["x"]}, {"key": "c", "value": null}
    ]});
    let wrote = surely(&endpoints[0], "POST", "/v1/keyspaces/feed/batch", &[], &batch.to_string());
    assert_eq!((wrote.status, &wrote.json()["written"]), (200, &json!(5)), "{wrote:?}");
    assert_eq!(wrote.header("synod-session"), None, "eventual keyspaces have no sessions");
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let page =
            ask(&endpoints[0], "GET", &format!("/v1/keyspaces/feed/keys?limit=1{next}"), &[], "").json();
        found.extend(page["keys"].as_array().expect("keys").iter().cloned());
        match page["next"].as_str() {
            Some(text) => next = format!("&after={text}"),
            None => break,
        }
    }
    let expected = json!([
        {"key": "a", "kind": "register", "value": "1"}, {"key": "b", "kind": "register", "value": "2"},
        {"key": "a", "kind": "counter", "value": -4}, {"key": "a", "kind": "set", "elements": ["x"]}
    ]);
    assert_eq!(Value::from(found), expected);
}

#[test]
fn what_weak_keyspaces_do_not_give_is_refused() {
    let (_cluster, endpoints) = cluster();
    let at = &endpoints[0];
    create(at, "feed", "causal");
    create(at, "other", "causal");
    create(at, "cache", "eventual");
    create(at, "log", "sequential");
    let token = |space: &str| {
        write(at, &format!("/v1/keyspaces/{space}/keys/a"), None, &json!({"value": "1"})).session()
    };
    let (feed, other, log) = (token("feed"), token("other"), token("log"));
    let forged = {
        let mut text = feed.clone().into_bytes();
        let last = text.len() - 3;
        text[last] = if text[last] == b'A' { b'B' } else { b'A' };
        String::from_utf8(text).expect("ASCII")
    };
    let cases = [
        ("feed", Some("nonsense"), 400, "session-malformed"),
        ("feed", Some(forged.as_str()), 400, "session-forged"),
        ("feed", Some(other.as_str()), 400, "session-other-keyspace"),
        ("feed", Some(log.as_str()), 400, "session-other-keyspace"),
        ("log", Some(feed.as_str()), 400, "session-other-keyspace"),
        ("cache", Some(feed.as_str()), 400, "no-sessions"),
        ("feed", Some(feed.as_str()), 200, ""),
    ];
    for (space, token, status, code) in cases {
        let headers: Vec<(&str, &str)> = token.map(|token| ("synod-session", token)).into_iter().collect();
        for query in ["", "?consistency=eventual"] {
            let target = format!("/v1/keyspaces/{space}/keys/a{query}");
            let answer = surely(at, "GET", &target, &headers, "");
            assert_eq!(answer.status, status, "{target} {token:?}: {answer:?}");
            if status != 200 {
                assert_eq!(answer.code(), code, "{target} {token:?}");
            }
        }
    }
    let put = "/v1/keyspaces/feed/keys/a";
    let requests = [
        ("GET", "/v1/keyspaces/feed/keys/a?consistency=sequential", json!({}), 400, "consistency-too-strong"),
        ("GET", "/v1/keyspaces/cache/keys/a?consistency=causal", json!({}), 400, "consistency-too-strong"),
        ("PUT", put, json!({"value": "1", "if": {"value": null}}), 400, "if-not-here"),
        ("PUT", put, json!({"kind": "set"}), 400, "empty"),
        ("PUT", put, json!({"kind": "counter"}), 400, "malformed"),
        ("PUT", put, json!({"kind": "siblings", "value": "1", "context": "?"}), 400, "context"),
        ("PUT", put, json!({"value": "x".repeat(1_600_000)}), 413, "too-large"),
        ("DELETE", "/v1/keyspaces/feed/keys/a?kind=counter", json!({}), 400, "kind-not-here"),
        (
            "POST",
            "/v1/keyspaces/feed/batch",
            json!({"writes": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}),
            400,
            "twice",
        ),
        (
            "POST",
            "/v1/keyspaces/feed/batch",
            json!({"writes": [{"key": "s", "kind": "set", "insert": ["a", "b"]}]}),
            400,
            "elements",
        ),
        ("DELETE", "/v1/keyspaces/feed", json!({}), 409, "keyspace-holds-keys"),
    ];
    for (method, target, body, status, code) in requests {
        let answer = surely(at, method, target, &[], &body.to_string());
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}: {answer:?}");
    }
    assert_eq!(surely(at, "DELETE", "/v1/keyspaces/feed/keys/a", &[], "").status, 200);
    until("what was deleted is gone", || {
        (surely(at, "GET", put, &[("synod-session", "new")], "").json()["value"].is_null()).then_some(())
    });
    assert_eq!(surely(at, "DELETE", "/v1/keyspaces/feed", &[], "").status, 200);
}
