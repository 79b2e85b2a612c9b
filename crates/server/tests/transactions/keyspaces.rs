//! Transactions between keyspaces of one cluster, and what is wrong with requests.

use super::*;

#[test]
fn money_moves_between_two_keyspaces_and_whoever_reads_afterwards_sees_it() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a"]);
    bank(&endpoints[1], "bank2", &["b"]);
    for (round, endpoint) in (1..).zip(&endpoints) {
        let ended = run(endpoint, &transfer("a", "b", 10));
        let found = ended.json();
        assert_eq!((ended.status, &found["decision"]), (200, &json!("commit")), "{ended:?}");
        assert_eq!(found["route"], "two-phase");
        for reader in &endpoints {
            assert_eq!(value(reader, "bank1", "a"), json!((100 - 10 * round).to_string()));
            assert_eq!(value(reader, "bank2", "b"), json!((100 + 10 * round).to_string()));
        }
    }
    let read = json!({"branches": [
        {"participant": "bank1", "work": [{"get": {"key": "a"}}, {"get": {"key": "nobody"}}]},
        {"participant": "bank2", "work": [{"get": {"key": "b"}}]},
    ]});
    let read = run(&endpoints[0], &read).json();
    assert_eq!(read["answers"], json!({"bank1": ["70", null], "bank2": ["130"]}), "{read}");
    let open = surely(&endpoints[0], "GET", "/v1/transactions", &Value::Null).json();
    assert_eq!(open, json!({"transactions": []}));
}

#[test]
fn what_is_in_one_keyspace_is_one_entry_and_what_is_not_is_refused_if_that_was_wanted() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a", "c"]);
    bank(&endpoints[0], "bank2", &["b"]);
    let within = json!({"branches": [{"participant": "bank1", "work": [add("a", -30), add("c", 30), {"get": {"key": "a"}}]}]});
    let ended = run(&endpoints[0], &within).json();
    assert_eq!((&ended["decision"], &ended["route"]), (&json!("commit"), &json!("one-entry")), "{ended}");
    assert_eq!(ended["answers"]["bank1"], json!(["70"]));
    let mut apart = transfer("a", "b", 1);
    apart["route"] = "one-entry".into();
    let refused = run(&endpoints[0], &apart);
    assert_eq!((refused.status, refused.code().as_str()), (400, "apart"), "{refused:?}");
    assert!(refused.text.contains("`bank1` and `bank2` are apart"), "{refused:?}");
    assert_eq!(value(&endpoints[0], "bank1", "a"), "70");
}

#[test]
fn what_a_participant_refuses_aborts_all_of_it_with_the_reason() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a"]);
    bank(&endpoints[0], "bank2", &["b"]);
    surely(&endpoints[0], "PUT", "/v1/keyspaces/bank2/keys/word", &json!({"value": "word"}));
    for (body, why) in [
        (transfer("a", "b", 101), "bank1: a has only 100"),
        (transfer("nobody", "b", 1), "bank1: there is no nobody"),
        (transfer("a", "nobody", 1), "bank2: there is no nobody"),
        (transfer("a", "word", 1), "bank2: the value of word is no decimal number"),
        (
            json!({"branches": [
                {"participant": "bank1", "work": [add("a", -1)]},
                {"participant": "bank2", "work": [{"expect": {"key": "b", "value": "99"}}]},
            ]}),
            "bank2: b is not as expected",
        ),
    ] {
        let ended = run(&endpoints[0], &body).json();
        assert_eq!((&ended["decision"], &ended["why"]), (&json!("abort"), &json!(why)), "{ended}");
    }
    assert_eq!(
        (value(&endpoints[0], "bank1", "a"), value(&endpoints[0], "bank2", "b")),
        (json!("100"), json!("100"))
    );
    let open = surely(&endpoints[0], "GET", "/v1/transactions?state=open", &Value::Null).json();
    assert_eq!(open, json!({"transactions": []}), "nothing is locked");
}

#[test]
fn requests_that_cannot_be_carried_out_are_refused_in_words() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a"]);
    surely(&endpoints[0], "PUT", "/v1/keyspaces/feed", &json!({"model": "causal"}));
    let branch =
        |participant: &str, work: Value| json!({"branches": [{"participant": participant, "work": work}]});
    let get = json!([{"get": {"key": "a"}}]);
    let many: Vec<Value> = (0..10_001).map(|_| json!({"get": {"key": "a"}})).collect();
    let mut slow = branch("bank1", get.clone());
    slow["timeout-ms"] = 61_000.into();
    for (body, status, code, why) in [
        (branch("nobody", get.clone()), 404, "participant-unknown", "`nobody` is no keyspace"),
        (branch("feed", get.clone()), 400, "not-on-the-log", "the keyspace `feed` is causal"),
        (branch("bank1", json!([])), 400, "empty", "there is nothing to do"),
        (json!({"branches": []}), 400, "empty", "there is nothing to do"),
        (branch("bank1", json!([{"take": {}}])), 400, "operation", "there is no `take`"),
        (branch("bank1", json!([{"get": {"key": ""}}])), 400, "key", "a key is empty"),
        (branch("bank1", json!([{"get": {"key": "\u{0}x"}}])), 400, "key", "those are Synod's own"),
        (branch("bank1", json!(many)), 413, "too-large", "10001 operations"),
        (
            branch("bank1", json!([{"put": {"key": "k", "value": "v".repeat(1600 << 10)}}])),
            413,
            "too-large",
            "bytes",
        ),
        (slow, 400, "timeout", "may take up to 60s"),
        (json!({"branch": []}), 400, "malformed", "unknown field `branch`"),
    ] {
        let refused = run(&endpoints[0], &body);
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{refused:?}");
        assert!(refused.text.contains(why), "{refused:?}");
    }
    let unknown = surely(&endpoints[0], "GET", "/v1/transactions/n1.2.3", &Value::Null);
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "transaction-unknown"));
    let malformed = surely(&endpoints[0], "GET", "/v1/transactions/seven", &Value::Null);
    assert_eq!((malformed.status, malformed.code().as_str()), (400, "malformed"));
}

#[test]
fn transactions_at_one_time_do_not_lose_each_others_work() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a", "c"]);
    bank(&endpoints[0], "bank2", &["b", "d"]);
    let committed: i64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|i| {
                let endpoint = &endpoints[i % 3];
                scope.spawn(move || {
                    let (from, to) = if i % 2 == 0 { ("a", "b") } else { ("c", "d") };
                    let commits =
                        |_: &u32| run(endpoint, &transfer(from, to, 1)).json()["decision"] == "commit";
                    (0..15).filter(commits).count() as i64
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("no client panics")).sum()
    });
    let amount = |bank: &str, key: &str| {
        let value = value(&endpoints[0], bank, key);
        value.as_str().expect("a number").parse::<i64>().expect("a number")
    };
    assert_eq!(amount("bank1", "a") + amount("bank1", "c"), 200 - committed);
    assert_eq!(amount("bank2", "b") + amount("bank2", "d"), 200 + committed);
    assert!(committed >= 6, "a conflict is a no, and yet {committed} of 90 got through");
}

#[test]
fn what_one_leader_has_done_the_next_one_goes_on_from_and_so_after_a_restart_of_all() {
    let (mut cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a"]);
    bank(&endpoints[0], "bank2", &["b"]);
    let mut moved = 0;
    for _ in 0..3 {
        assert_eq!(run(&endpoints[0], &transfer("a", "b", 1)).json()["decision"], "commit");
        moved += 1;
        let leader = cluster.leader();
        cluster.down(leader);
        let other = (leader + 1) % 3;
        assert_eq!(run(&endpoints[other], &transfer("a", "b", 1)).json()["decision"], "commit");
        moved += 1;
        cluster.up(leader);
        assert_eq!(value(&endpoints[leader], "bank2", "b"), json!((100 + moved).to_string()));
    }
    (0..3).for_each(|i| cluster.down(i));
    (0..3).for_each(|i| cluster.up(i));
    cluster.leader();
    assert_eq!(run(&endpoints[0], &transfer("a", "b", 1)).json()["decision"], "commit");
    assert_eq!(value(&endpoints[1], "bank1", "a"), json!((99 - moved).to_string()));
}

#[test]
fn at_a_member_that_does_not_lead_the_answer_is_where_the_leader_is() {
    let (cluster, endpoints) = cluster();
    let follower = (0..3).find(|i| *i != cluster.leader()).expect("a follower");
    let answer = exchange(&endpoints[follower], "POST", "/v1/transactions", &[], "{}").expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (307, "not-leader"), "{answer:?}");
}

#[test]
fn a_keyspace_that_another_member_has_just_made_is_known_to_a_leader_with_a_slower_disk() {
    const ROUNDS: usize = 60;
    let (cluster, endpoints) = cluster();
    let leader = cluster.leader();
    // Every sync on this disk takes its turn with these, so that the leader's own is the last one now and then.
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let (refused, asked) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut other = tempfile::tempfile().expect("a file");
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                std::io::Seek::rewind(&mut other).expect("a file");
                std::io::Write::write_all(&mut other, &[7; 2 << 20]).expect("written");
                other.sync_all().expect("synced");
            }
        });
        let (mut refused, mut asked) = (Vec::new(), 0);
        for round in 0..ROUNDS {
            let (follower, name) = ((leader + 1 + round % 2) % 3, format!("k{round}"));
            let target = format!("/v1/keyspaces/{name}");
            let made = exchange(
                &endpoints[follower],
                "PUT",
                &target,
                &[],
                &json!({"model": "linearizable"}).to_string(),
            );
            if made.is_none_or(|made| made.status != 201) {
                continue;
            }
            let put = json!({"put": {"key": "a", "value": "1"}});
            let (target, body) = match round % 4 {
                0 | 1 => ("/v1/transactions", json!({"branches": [{"participant": name, "work": [put]}]})),
                _ => {
                    let ops = json!({"ops": [put]});
                    let step = json!({"name": "one", "service": name, "action": ops, "compensation": ops});
                    ("/v1/sagas", json!({"name": "one", "steps": [step]}))
                }
            };
            asked += 1;
            let answer = exchange(&endpoints[leader], "POST", target, &[], &body.to_string());
            refused.extend(answer.filter(|answer| answer.status == 404));
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        (refused, asked)
    });
    assert!(asked > ROUNDS / 2, "the leader was asked {asked} times only");
    assert!(refused.is_empty(), "refused {} of {asked} times: {:?}", refused.len(), refused[0]);
}
