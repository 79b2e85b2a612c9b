//! What watchers of members see of clients' operations on keyspaces, and of what causal members say to each other.

use super::common::*;
use super::{cluster, create, surely};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Everything that some members tell from now on. The thread ends with the member's connection.
#[derive(Clone, Default)]
struct Watcher {
    events: Arc<Mutex<Vec<Value>>>,
}

impl Watcher {
    fn watch(&self, endpoint: &str) {
        let mut stream = TcpStream::connect(endpoint).expect("the member answers");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").expect("written");
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let begun = lines.by_ref().find(|line| line.starts_with("data:")).expect("a first event");
        assert!(begun.contains("watching"), "{begun}");
        let events = Arc::clone(&self.events);
        std::thread::spawn(move || {
            for line in lines {
                if let Some(event) = line.strip_prefix("data:") {
                    events.lock().expect("no panic").push(serde_json::from_str(event).expect("JSON"));
                }
            }
        });
    }

    fn all(&self, kind: &str) -> Vec<Value> {
        let events = self.events.lock().expect("no panic");
        events.iter().filter(|event| event["k"] == kind).cloned().collect()
    }

    /// Operations of one member with their ends, once there are so many.
    fn operations(&self, node: &str, count: usize) -> Vec<(Value, Value)> {
        until("the operations", || {
            let all = self.all("op");
            let of = |phase: bool| {
                move |event: &&Value| event["node"] == node && (event["phase"] == "invoke") == phase
            };
            let ends: Vec<&Value> = all.iter().filter(of(false)).collect();
            let both = all.iter().filter(of(true)).filter_map(|begun| {
                let end = ends.iter().find(|end| end["o"] == begun["o"])?;
                Some((begun.clone(), (*end).clone()))
            });
            let both: Vec<(Value, Value)> = both.collect();
            (both.len() >= count).then_some(both)
        })
    }
}

#[test]
fn operations_are_told_with_their_ends_where_they_are_carried_out_and_tokens_are_not() {
    let (cluster, endpoints) = cluster();
    create(&endpoints[0], "feed", "causal");
    create(&endpoints[0], "accounts", "linearizable");
    // Once all members have them, nothing is refused and asked again.
    for path in ["feed", "accounts"] {
        for endpoint in &endpoints {
            surely(endpoint, "GET", &format!("/v1/keyspaces/{path}/keys/x"), &[], "");
        }
    }
    let watcher = Watcher::default();
    endpoints.iter().for_each(|endpoint| watcher.watch(endpoint));
    let (leader, key) = (cluster.leader(), "/v1/keyspaces/feed/keys/x");
    let put = surely(&endpoints[0], "PUT", key, &[], r#"{"value":"1"}"#);
    let token = put.session();
    surely(&endpoints[0], "GET", key, &[("synod-session", &token)], "");
    surely(&endpoints[0], "PUT", "/v1/keyspaces/feed/keys/n", &[], r#"{"kind":"counter","add":2}"#);
    surely(&endpoints[0], "GET", &format!("{key}?consistency=linearizable"), &[], "");
    let seen = watcher.operations("n1", 3);
    assert_eq!(seen.len(), 3, "what is no request of a keyspace is none of its operations: {seen:?}");
    let [(put, written), (get, read), (add, _)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&put["f"], &put["key"], &put["value"]), (&json!("put"), &json!("x"), &json!("1")));
    assert_eq!(
        (&put["space"], &put["model"], &put["session"]),
        (&json!("feed"), &json!("causal"), &json!(null))
    );
    assert_eq!(
        (&get["f"], &get["session"]),
        (&json!("get"), &written["session"]),
        "the same session goes on"
    );
    assert_eq!((&read["phase"], &read["value"]), (&json!("ok"), &json!("1")));
    assert!(put["t"].as_u64() <= written["t"].as_u64() && written["t"].as_u64() <= get["t"].as_u64());
    assert_eq!((&add["kind"], &add["f"], &add["value"]), (&json!("counter"), &json!("add"), &json!(2)));
    let told = watcher.events.lock().expect("no panic").iter().map(Value::to_string).collect::<String>();
    assert!(!told.contains(&token), "a token opens a session for whoever has it");
    // A write on the log is the leader's, whoever was asked first; a condition that does not hold has no effect.
    let key = "/v1/keyspaces/accounts/keys/a";
    let (near, far) = (format!("n{}", leader + 1), &endpoints[(leader + 1) % 3]);
    let before = watcher.operations(&near, 0).len();
    surely(far, "PUT", key, &[], r#"{"value":"1"}"#);
    surely(far, "PUT", key, &[], r#"{"value":"2","if":{"value":"0"}}"#);
    let seen = watcher.operations(&near, before + 2);
    let (refused, ended) = seen.last().expect("two");
    assert_eq!((&refused["if"], &ended["phase"]), (&json!("0"), &json!("fail")));
    assert_eq!(ended["error"], "precondition");
    assert_eq!(
        watcher
            .operations(&format!("n{}", (leader + 1) % 3 + 1), 0)
            .iter()
            .filter(|(one, _)| one["space"] == "accounts")
            .count(),
        0
    );
    // What a transaction writes is not told as operations, and that is told.
    let work = r#"{"branches":[{"participant":"accounts","work":[{"put":{"key":"a","value":"9"}}]}]}"#;
    surely(far, "POST", "/v1/transactions", &[], work);
    until("the hole", || watcher.all("hole").first().map(|hole| assert_eq!(hole["text"], "transactions")));
}

#[test]
fn what_causal_members_say_to_each_other_is_shown_at_both_ends_and_not_all_of_it() {
    let (cluster, endpoints) = cluster();
    create(&endpoints[0], "feed", "causal");
    let watcher = Watcher::default();
    endpoints.iter().for_each(|endpoint| watcher.watch(endpoint));
    for value in 0..40 {
        surely(
            &endpoints[0],
            "PUT",
            "/v1/keyspaces/feed/keys/x",
            &[],
            &json!({"value": value.to_string()}).to_string(),
        );
    }
    let pair = until("an update that was sent and received", || {
        let received = watcher.all("recv");
        watcher.all("send").into_iter().find(|sent| {
            sent["name"] == "Updates"
                && sent["m"].is_string()
                && received.iter().any(|event| event["m"] == sent["m"])
        })
    });
    assert!(pair["detail"].as_str().expect("words").starts_with("feed: "), "{pair}");
    assert_eq!(pair["lost"], json!(null));
    // Of two ends that count alike, none takes a message for another: who received it is who it was for.
    for received in watcher.all("recv") {
        let of: Vec<Value> =
            watcher.all("send").into_iter().filter(|sent| sent["m"] == received["m"]).collect();
        assert!(
            of.iter().all(|sent| sent["to"] == received["to"] && sent["from"] == received["from"]),
            "{received} {of:?}"
        );
    }
    let updates: Vec<u64> = watcher
        .all("send")
        .iter()
        .filter(|sent| sent["name"] == "Updates" && sent["from"] == "n1" && sent["to"] == "n2")
        .filter_map(|sent| sent["t"].as_u64())
        .collect();
    assert!(updates.windows(2).all(|two| two[1] - two[0] >= 49_000_000), "a sample: {updates:?}");
    // Behind a cut they are seen to be lost.
    let (code, text) = post_fault(&cluster.endpoint(2), r#"{"block":["n1","n2"]}"#);
    assert_eq!(code, 200, "{text}");
    until("one that is lost", || {
        let lost =
            |event: &Value| event["name"] == "Digest" && event["from"] == "n3" && event["lost"].is_string();
        watcher.all("send").iter().any(lost).then_some(())
    });
}
