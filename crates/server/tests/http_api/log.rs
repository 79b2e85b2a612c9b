//! Keyspaces on the log: levels, sessions, conditions, limits and what is wrong with requests.

use super::client::{Answer, exchange};
use super::common::*;
use super::{ask, cluster, create, surely};
use serde_json::json;
use std::time::{Duration, Instant};

fn get(endpoint: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    ask(endpoint, "GET", target, headers, "")
}

#[test]
fn a_linearizable_keyspace_is_the_same_at_every_member() {
    let (cluster, endpoints) = cluster();
    create(&endpoints[0], "accounts", "linearizable");
    let key = "/v1/keyspaces/accounts/keys/alice";
    for (i, endpoint) in endpoints.iter().enumerate() {
        let put = surely(endpoint, "PUT", key, &[], &format!("{{\"value\":\"{i}\"}}"));
        assert_eq!((put.status, put.json()["written"].as_u64()), (200, Some(1)), "{put:?}");
        for reader in &endpoints {
            let read = surely(reader, "GET", key, &[], "").json();
            assert_eq!(
                (&read["value"], &read["consistency"]),
                (&json!(i.to_string()), &json!("linearizable"))
            );
        }
    }
    // Who does not lead says who does.
    let follower = (0..3).find(|i| *i != cluster.leader()).expect("a follower");
    let answer = exchange(&endpoints[follower], "DELETE", key, &[], "").expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (307, "not-leader"));
    let leader = &endpoints[cluster.leader()];
    assert_eq!(answer.header("location"), Some(format!("http://{leader}{key}").as_str()));
    assert_eq!(surely(&endpoints[follower], "DELETE", key, &[], "").status, 200);
    assert_eq!(surely(&endpoints[0], "GET", key, &[], "").json()["value"], json!(null));
}

#[test]
fn a_condition_lets_one_of_two_writers_through() {
    let (_cluster, endpoints) = cluster();
    create(&endpoints[0], "names", "linearizable");
    let key = "/v1/keyspaces/names/keys/ada";
    let claim = |who: &str| {
        let body = format!("{{\"value\":\"{who}\",\"if\":{{\"value\":null}}}}");
        surely(&endpoints[1], "PUT", key, &[], &body)
    };
    assert_eq!(claim("one").status, 200);
    let refused = claim("two");
    assert_eq!((refused.status, refused.code().as_str()), (409, "precondition"));
    assert!(refused.text.contains("the value of `ada` is not what"), "{refused:?}");
    let batch = r#"{"writes":[{"key":"grace","value":"x"},{"key":"ada","value":"y","if":{"value":"two"}}]}"#;
    assert_eq!(surely(&endpoints[2], "POST", "/v1/keyspaces/names/batch", &[], batch).code(), "precondition");
    let list = surely(&endpoints[0], "GET", "/v1/keyspaces/names/keys", &[], "").json();
    assert_eq!(list["keys"], json!([{"key": "ada", "value": "one"}]), "all or nothing");
}

#[test]
fn a_session_never_reads_back_in_time_though_its_member_is_cut_off() {
    let (cluster, endpoints) = cluster();
    create(&endpoints[0], "config", "sequential");
    let key = "/v1/keyspaces/config/keys/mode";
    let first = surely(&endpoints[0], "PUT", key, &[], r#"{"value":"old"}"#).session();
    let away = (0..3).find(|i| *i != cluster.leader()).expect("a follower");
    surely(&endpoints[away], "GET", key, &[("synod-session", &first)], "");
    let others: Vec<String> = (0..3).filter(|i| *i != away).map(|i| format!("\"n{}\"", i + 1)).collect();
    let fault = |what: &str| {
        let body = format!("{{\"{what}\":[{}]}}", others.join(","));
        assert_eq!(post_fault(&endpoints[away], &body).0, 200);
    };
    fault("block");
    let leader = &endpoints[cluster_leader_among(&cluster, away)];
    let second = surely(leader, "PUT", key, &[("synod-session", &first)], r#"{"value":"new"}"#).session();

    // By design: without a session, or in one that has seen no more, it is a read of the past.
    for headers in [&[][..], &[("synod-session", first.as_str())][..]] {
        let stale = get(&endpoints[away], key, headers);
        assert_eq!((stale.status, &stale.json()["value"]), (200, &json!("old")), "{headers:?}");
    }
    // The session that wrote is refused in bounded time and not told the past, unless it asks for what is there.
    let begun = Instant::now();
    let behind = get(&endpoints[away], key, &[("synod-session", &second)]);
    assert_eq!((behind.status, behind.code().as_str()), (503, "behind"), "{behind:?}");
    assert!((2..15).contains(&begun.elapsed().as_secs()), "it took {:?}", begun.elapsed());
    let eventual =
        get(&endpoints[away], &format!("{key}?consistency=eventual"), &[("synod-session", &second)]);
    assert_eq!(eventual.json()["value"], json!("old"));
    assert_eq!(eventual.session(), second, "the session has still seen what it had");
    fault("unblock");
    let caught_up = until("the member catches up", || {
        let answer = get(&endpoints[away], key, &[("synod-session", &second)]);
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(caught_up.json()["value"], json!("new"));
    // It is in the process of being told: a read that waits is answered as soon as that has happened.
    let third = surely(leader, "PUT", key, &[], r#"{"value":"newest"}"#).session();
    let read = get(&endpoints[away], key, &[("synod-session", &third)]);
    assert_eq!((read.status, &read.json()["value"]), (200, &json!("newest")), "{read:?}");
}

/// Who leads, as those know who are not cut off.
fn cluster_leader_among(cluster: &Cluster, away: usize) -> usize {
    until("the majority has a leader", || {
        let others = (0..3).filter(|i| *i != away);
        let names: Vec<_> = others.filter_map(|i| leader_name(&cluster.endpoint(i))).collect();
        let leader = (0..3).find(|i| names.first() == Some(&format!("n{}", i + 1)))?;
        (names.len() == 2 && names[0] == names[1] && leader != away).then_some(leader)
    })
}

#[test]
fn a_cut_off_member_answers_no_linearizable_read_and_no_write() {
    let (cluster, endpoints) = cluster();
    create(&endpoints[0], "ledger", "linearizable");
    let key = "/v1/keyspaces/ledger/keys/a";
    surely(&endpoints[0], "PUT", key, &[], r#"{"value":"1"}"#);
    let away = cluster.leader();
    let others: Vec<String> = (0..3).filter(|i| *i != away).map(|i| format!("\"n{}\"", i + 1)).collect();
    assert_eq!(post_fault(&endpoints[away], &format!("{{\"block\":[{}]}}", others.join(","))).0, 200);
    let leader = cluster_leader_among(&cluster, away);
    surely(&endpoints[leader], "PUT", key, &[], r#"{"value":"2"}"#);
    let begun = Instant::now();
    for (method, body) in [("GET", ""), ("PUT", r#"{"value":"3"}"#)] {
        let answer = exchange(&endpoints[away], method, key, &[], body).expect("an answer");
        assert!([503, 504].contains(&answer.status), "{method}: {answer:?}");
        assert!(["no-leader", "unknown-outcome"].contains(&answer.code().as_str()), "{method}: {answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    // A weaker level may be asked for, and is then what it is.
    let stale = get(&endpoints[away], &format!("{key}?consistency=sequential"), &[]);
    assert_eq!((stale.status, &stale.json()["value"]), (200, &json!("1")));
    assert_eq!(surely(&endpoints[leader], "GET", key, &[], "").json()["value"], json!("2"));
}

#[test]
fn tokens_that_help_nobody_are_refused_each_with_its_reason() {
    let (_cluster, endpoints) = cluster();
    create(&endpoints[0], "one", "sequential");
    create(&endpoints[0], "two", "sequential");
    let token = surely(&endpoints[0], "PUT", "/v1/keyspaces/one/keys/a", &[], r#"{"value":"1"}"#).session();
    let (elsewhere, theirs) = {
        let mut other = Cluster::stopped(1);
        other.configs[0].cluster = "elsewhere".into();
        other.up(0);
        other.leader();
        let endpoint = other.endpoint(0);
        create(&endpoint, "one", "sequential");
        let token = surely(&endpoint, "PUT", "/v1/keyspaces/one/keys/a", &[], r#"{"value":"1"}"#).session();
        (other, token)
    };
    drop(elsewhere);
    let altered = |place: usize| {
        let mut text = token.clone().into_bytes();
        text[place] = if text[place] == b'A' { b'B' } else { b'A' };
        String::from_utf8(text).expect("ASCII")
    };
    let last = altered(token.len() - 4);
    let long = "A".repeat(30_000);
    let cases = [
        ("one", "nonsense", 400, "session-malformed"),
        ("one", "?", 400, "session-malformed"),
        ("one", &token[..token.len() - 8], 400, "session-"),
        ("one", &last, 400, "session-forged"),
        ("one", &theirs, 400, "session-other-cluster"),
        ("two", &token, 400, "session-other-keyspace"),
        ("one", &long, 413, "session-too-long"),
        ("one", "new", 200, ""),
        ("one", &token, 200, ""),
    ];
    for (space, token, status, code) in cases {
        let target = format!("/v1/keyspaces/{space}/keys/a");
        let requests = [("GET", ""), ("PUT", r#"{"value":"2"}"#)];
        for (method, body) in requests {
            let answer = surely(&endpoints[0], method, &target, &[("synod-session", token)], body);
            assert_eq!(answer.status, status, "{method} {space} {token}: {answer:?}");
            if status != 200 {
                assert!(answer.code().starts_with(code), "{method} {space} {token}: {answer:?}");
            }
        }
    }
    for place in 0..token.len() {
        let answer = get(&endpoints[0], "/v1/keyspaces/one/keys/a", &[("synod-session", &altered(place))]);
        assert!(answer.status == 400 && answer.code().starts_with("session-"), "{place}: {answer:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let (_cluster, endpoints) = cluster();
    let at = &endpoints[0];
    create(at, "log", "sequential");
    let keys = "/v1/keyspaces/log/keys";
    let long_key = format!("{keys}/{}", "k".repeat(4_097));
    let many = format!("{{\"writes\":[{}]}}", vec![r#"{"key":"a","value":"1"}"#; 129].join(","));
    let put = "/v1/keyspaces/log/keys/a";
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("GET", "/v1/keyspaces/none/keys/a", "", 404, "keyspace-unknown"),
        ("GET", "/v1/keyspaces/none", "", 404, "keyspace-unknown"),
        ("DELETE", "/v1/keyspaces/none", "", 404, "keyspace-unknown"),
        ("PUT", "/v1/keyspaces/log", r#"{"model":"causal"}"#, 409, "keyspace-exists"),
        ("PUT", "/v1/keyspaces/new", r#"{"model":"strong"}"#, 400, "consistency-unknown"),
        ("PUT", "/v1/keyspaces/New", r#"{"model":"causal"}"#, 400, "name"),
        ("PUT", "/v1/keyspaces/new", r#"{"modell":"causal"}"#, 400, "malformed"),
        ("GET", "/v1/keyspaces/log/keys/a?consistency=linearizable", "", 400, "consistency-too-strong"),
        ("GET", "/v1/keyspaces/log/keys/a?consistency=strong", "", 400, "consistency-unknown"),
        ("GET", "/v1/keyspaces/log/keys/a?kind=counter", "", 400, "kind-not-here"),
        ("GET", "/v1/keyspaces/log/keys/a?kind=list", "", 400, "kind-unknown"),
        ("GET", "/v1/keyspaces/log/keys/a?consistenci=causal", "", 400, "parameter-unknown"),
        ("GET", "/v1/keyspaces/log/keys/", "", 400, "key-empty"),
        ("GET", "/v1/keyspaces/log/keys/a/b", "", 404, "no-such-path"),
        ("GET", "/v1/keyspaces/log/keys/%zz", "", 400, "malformed"),
        ("GET", "/v1/keyspaces/log/keys?limit=0", "", 400, "limit"),
        ("GET", "/v1/keyspaces/log/keys?limit=1001", "", 400, "limit"),
        ("GET", "/v1/keyspaces/log/keys?after=%3F", "", 400, "after"),
        ("GET", &long_key, "", 413, "too-large"),
        ("PUT", "/v1/keyspaces/log/keys/%FF", r#"{"value":"1"}"#, 400, "key"),
        ("PUT", "/v1/keyspaces/log/keys/%00a", r#"{"value":"1"}"#, 400, "key"),
        ("GET", "/v1/keyspaces/log/keys/%00a", "", 400, "key"),
        ("PUT", put, "", 400, "malformed"),
        ("PUT", put, "{}", 400, "malformed"),
        ("PUT", put, r#"{"value":1}"#, 400, "malformed"),
        ("PUT", put, r#"{"value":{"base64":"?"}}"#, 400, "malformed"),
        ("PUT", put, r#"{"value":"1","more":2}"#, 400, "malformed"),
        ("PUT", put, r#"{"value":"1","key":"b"}"#, 400, "malformed"),
        ("PUT", put, r#"{"value":"1","add":2}"#, 400, "malformed"),
        ("PUT", put, r#"{"kind":"counter","add":1}"#, 400, "kind-not-here"),
        ("POST", "/v1/keyspaces/log/batch", r#"{"writes":[]}"#, 400, "empty"),
        ("POST", "/v1/keyspaces/log/batch", r#"{"writes":[{"value":"1"}]}"#, 400, "malformed"),
        (
            "POST",
            "/v1/keyspaces/log/batch",
            r#"{"writes":[{"key":"a","value":"1"},{"key":"a","value":"2"}]}"#,
            400,
            "twice",
        ),
        ("POST", "/v1/keyspaces/log/batch", &many, 413, "too-large"),
        ("DELETE", "/v1/keyspaces/log?force=yes", "", 400, "force"),
    ];
    for (method, target, body, status, code) in cases {
        let answer = surely(at, method, target, &[], body);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (*status, *code),
            "{method} {target} {body}: {answer:?}"
        );
        assert!(!answer.json()["error"]["message"].as_str().expect("a message").contains('\n'), "one line");
    }
    let twice = get(at, "/v1/keyspaces/log/keys/a?consistency=causal", &[("synod-consistency", "eventual")]);
    assert_eq!((twice.status, twice.code().as_str()), (400, "malformed"), "{twice:?}");
    let by_header = get(at, put, &[("synod-consistency", "eventual")]);
    assert_eq!(by_header.json()["consistency"], "eventual");
}

#[test]
fn values_up_to_the_limit_are_taken_and_larger_ones_refused() {
    let (cluster, endpoints) = cluster();
    create(&endpoints[0], "log", "linearizable");
    let limit = cluster.configs[0].request_size_max as usize;
    let key = "/v1/keyspaces/log/keys/large";
    let body = |bytes: usize| format!("{{\"value\":\"{}\"}}", "x".repeat(bytes));
    assert_eq!(surely(&endpoints[0], "PUT", key, &[], &body(limit - 200)).status, 200);
    assert_eq!(surely(&endpoints[0], "PUT", key, &[], &body(limit + 1)).status, 413);
    assert_eq!(
        surely(&endpoints[0], "GET", key, &[], "").json()["value"].as_str().map(str::len),
        Some(limit - 200)
    );
    let begun = exchange(&endpoints[0], "PUT", key, &[], &body(3 * limit));
    // The connection may be closed before all of it was sent.
    assert!(begun.is_none_or(|answer| answer.status == 413 || answer.status == 307));
}

#[test]
fn keys_are_bytes_and_lists_go_on_where_they_ended() {
    let (_cluster, endpoints) = cluster();
    let at = &endpoints[0];
    create(at, "log", "linearizable");
    create(at, "cache", "eventual");
    let keys = ["a%2Fb", "a%20b", "k%C3%A4se", "a+b", "%25", "%FF%00"];
    for (i, key) in keys.iter().enumerate() {
        // On the log a key is text.
        let space = if *key == "%FF%00" { "cache" } else { "log" };
        let target = format!("/v1/keyspaces/{space}/keys/{key}");
        let body = format!("{{\"value\":{{\"base64\":\"{}\"}}}}", ["/wA=", "YQ=="][i % 2]);
        assert_eq!(surely(at, "PUT", &target, &[], &body).status, 200, "{key}");
        let read = surely(at, "GET", &target, &[], "").json();
        let expected = [json!({"base64": "/wA="}), json!("a")];
        assert_eq!(read["value"], expected[i % 2], "{key}");
    }
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let target = format!("/v1/keyspaces/log/keys?limit=2{next}");
        let page = surely(at, "GET", &target, &[], "").json();
        let keys = page["keys"].as_array().expect("keys");
        assert!(keys.len() <= 2);
        found.extend(keys.iter().map(|entry| entry["key"].clone()));
        match page["next"].as_str() {
            Some(text) => next = format!("&after={text}"),
            None => break,
        }
        assert_eq!(page["more"], true);
    }
    let sorted = [json!("%"), json!("a b"), json!("a+b"), json!("a/b"), json!("k\u{e4}se")];
    assert_eq!(found, sorted);
    let some = surely(at, "GET", "/v1/keyspaces/log/keys?prefix=a+b", &[], "").json();
    assert_eq!(some["keys"].as_array().map(Vec::len), Some(1), "a plus in a query is a space: {some}");
    let bytes = surely(at, "GET", "/v1/keyspaces/cache/keys?prefix=%FF", &[], "").json();
    assert_eq!(bytes["keys"][0]["key"], json!({"base64": "/wA="}));
}

#[test]
fn a_keyspace_that_holds_keys_is_dropped_with_force_only() {
    let (_cluster, endpoints) = cluster();
    let at = &endpoints[1];
    create(at, "log", "linearizable");
    surely(at, "PUT", "/v1/keyspaces/log/keys/a", &[], r#"{"value":"1"}"#);
    let refused = surely(at, "DELETE", "/v1/keyspaces/log", &[], "");
    assert_eq!((refused.status, refused.code().as_str()), (409, "keyspace-holds-keys"));
    assert_eq!(surely(at, "DELETE", "/v1/keyspaces/log?force=true", &[], "").status, 200);
    assert_eq!(surely(at, "GET", "/v1/keyspaces/log/keys/a", &[], "").code(), "keyspace-unknown");
    create(at, "log", "sequential");
    assert_eq!(surely(at, "GET", "/v1/keyspaces/log/keys/a", &[], "").json()["value"], json!(null));
    let again = surely(at, "PUT", "/v1/keyspaces/log", &[], r#"{"model":"sequential"}"#);
    assert_eq!((again.status, &again.json()["levels"]), (200, &json!(["sequential", "causal", "eventual"])));
}
