//! What is in doubt, whoever coordinates it: seen, ended by hand, and found out to have been ended wrongly.

use super::clusters::{Orders, named, payment, prepare, urls};
use super::databases::Ledger;
use super::*;
use std::time::Duration;
use synod_protocols::NodeId;
use synod_protocols::commit::{Decision, Message, Stamp, TxnId, Vote};

/// A coordinator of another cluster that never comes back: its number, and where it says that it answers.
const GONE: NodeId = NodeId(1 << 41);
const NOBODY: &str = "http://127.0.0.1:1";

fn of(coordinator: NodeId, number: u64) -> TxnId {
    TxnId { coordinator, epoch: 1, number }
}

fn decide(txn: TxnId, decision: Decision) -> Message {
    let stamp = Stamp { epoch: 1, floor: TxnId { number: 1, ..txn } };
    Message::Decide { stamp, txn, decision }
}

/// All that a leader's inspector sees.
fn seen(endpoint: &str) -> Vec<Value> {
    let seen = surely(endpoint, "GET", "/v1/transactions", &Value::Null).json();
    seen["transactions"].as_array().unwrap_or_else(|| panic!("a list: {seen}")).clone()
}

fn show(endpoint: &str, txn: TxnId) -> Answer {
    surely(endpoint, "GET", &format!("/v1/transactions/{txn}"), &Value::Null)
}

fn resolve(endpoint: &str, txn: TxnId, participant: &str, decision: Decision) -> Answer {
    let form = json!({
        "participant": participant, "decision": decision.to_string(), "i-know-that-this-can-break-atomicity": true,
    });
    surely(endpoint, "POST", &format!("/v1/transactions/{txn}/resolve"), &form)
}

/// What the member has counted since it started.
fn damage_counted(endpoint: &str) -> u64 {
    let metrics = exchange(endpoint, "GET", "/metrics", &[], "").expect("figures").text;
    let line = metrics.lines().find(|line| line.starts_with("synod_heuristic_damage_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
}

/// Counted once, soon after it was seen: when that is durable.
fn is_counted_once(endpoint: &str) {
    until("it is counted", || (damage_counted(endpoint) > 0).then_some(()));
    assert_eq!(damage_counted(endpoint), 1);
}

/// What the inspector says of a transaction, but for how long that is so.
fn without_ages(mut shown: Value) -> Value {
    let shown_at = shown.as_object_mut().expect("an object");
    shown_at.remove("age-ms").expect("an age");
    for branch in shown["branches"].as_array_mut().expect("branches") {
        branch.as_object_mut().expect("an object").remove("age-ms");
    }
    shown
}

#[test]
fn a_promise_to_a_coordinator_that_is_gone_is_seen_and_ended_by_hand_either_way() {
    let (mut cluster, there) = named("there", 1);
    bank(&there[0], "bank2", &["y"]);
    let orders = Orders { coordinator: GONE, participant: NodeId(7), reply: NOBODY.into() };
    let mut expected = 100;
    for (number, decision, money) in [(1, Decision::Commit, 10), (2, Decision::Abort, 0)] {
        let txn = of(GONE, number);
        let voted = orders.post(&there[0], prepare(GONE, 1, number));
        assert!(matches!(&voted[..], [Message::Vote { vote: Vote::Yes { .. }, .. }]), "{voted:?}");
        let shown = show(&there[0], txn).json();
        assert_eq!(
            without_ages(shown),
            json!({
                "id": txn.to_string(), "state": "prepared", "role": "participant", "participants": ["bank2"],
                "waits-for": [GONE.to_string()], "coordinator-at": [NOBODY], "in-doubt": true, "damage": false,
                "locks": [{"participant": "bank2", "key": "y"}],
                "branches": [{"participant": "bank2", "state": "prepared"}],
            })
        );
        let locked = surely(&there[0], "PUT", "/v1/keyspaces/bank2/keys/y", &json!({"value": "0"}));
        assert_eq!(locked.code(), "locked", "{locked:?}");

        let resolved = resolve(&there[0], txn, "bank2", decision);
        assert_eq!((resolved.status, &resolved.json()["decision"]), (200, &json!(decision.to_string())));
        assert!(resolved.text.contains("nothing repairs that by itself"), "{resolved:?}");
        expected += money;
        assert_eq!(value(&there[0], "bank2", "y"), json!(expected.to_string()));
        let shown = without_ages(show(&there[0], txn).json());
        assert_eq!((&shown["state"], &shown["in-doubt"]), (&json!("by-hand"), &json!(false)), "{shown}");
        assert_eq!(
            shown["branches"],
            json!([{"participant": "bank2", "state": "by-hand", "here": decision.to_string()}])
        );
        assert_eq!(shown["locks"], json!([]));
        let again = resolve(&there[0], txn, "bank2", decision);
        assert_eq!(again.code(), "not-in-doubt", "{again:?}");
        assert!(again.text.contains("it is over here"), "{again:?}");
    }
    // Nothing is locked, and nothing open.
    let written = surely(&there[0], "PUT", "/v1/keyspaces/bank2/keys/y", &json!({"value": "110"}));
    assert_eq!(written.status, 200, "{written:?}");
    let open = surely(&there[0], "GET", "/v1/transactions?state=open", &Value::Null).json();
    assert_eq!(open, json!({"transactions": []}));
    let wrong = surely(&there[0], "GET", "/v1/transactions?state=closed", &Value::Null);
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "malformed"), "{wrong:?}");

    // It comes back after all. The first guess was wrong, the second right; both were remembered across a restart.
    cluster.down(0);
    cluster.up(0);
    cluster.leader();
    until("both are seen again", || (seen(&there[0]).len() == 2).then_some(()));
    for number in [1, 2] {
        orders.post(&there[0], decide(of(GONE, number), Decision::Abort));
    }
    let is_damaged = |shown: &Value| shown["state"] == "damaged" && shown["damage"] == true;
    let shown = until("the damage is seen", || {
        let seen = seen(&there[0]);
        (seen.len() == 1 && is_damaged(&seen[0])).then(|| seen[0].clone())
    });
    assert_eq!(
        (&shown["id"], &shown["branches"]),
        (
            &json!(of(GONE, 1).to_string()),
            &json!([{"participant": "bank2", "state": "damaged", "here": "commit", "decided": "abort"}])
        )
    );
    is_counted_once(&there[0]);
    assert!(cluster.said("HEURISTIC DAMAGE"));
    cluster.down(0);
    cluster.up(0);
    cluster.leader();
    until("the damage is seen after a restart", || seen(&there[0]).iter().any(is_damaged).then_some(()));
    assert_eq!(surely(&there[0], "DELETE", "/v1/keyspaces/bank2?force=true", &Value::Null).status, 200);
    assert_eq!(seen(&there[0]), [] as [Value; 0], "it went with its keyspace");
}

#[test]
fn a_guess_is_asked_about_after_a_restart_too_and_damage_is_found_without_anybodys_doing() {
    let ((mut one, here), (mut other, there)) = (named("here", 1), named("there", 1));
    clusters::banks(&here[0], &there, &urls(&there));
    assert_eq!(run(&here[0], &payment(1)).json()["decision"], "commit", "both have lived");
    let coordinator = clusters::coordinator(&here[0]);
    let ordered = clusters::order(&here[0], &there[0], prepare(coordinator, 1, 1_000));
    one.down(0);
    assert_eq!(clusters::post(&there[0], &ordered).status, 200);
    let txn = of(coordinator, 1_000);
    assert_eq!(show(&there[0], txn).json()["coordinator-at"], json!(urls(&here)));
    assert_eq!(resolve(&there[0], txn, "bank2", Decision::Commit).status, 200);
    other.down(0);
    other.up(0);
    other.leader();
    one.up(0);
    let shown =
        until("the damage is found", || seen(&there[0]).into_iter().find(|seen| seen["damage"] == true));
    assert_eq!(shown["id"], json!(txn.to_string()));
    is_counted_once(&there[0]);
    assert_eq!(value(&there[0], "bank2", "y"), "111", "it stays as it was decided by hand");
}

#[test]
fn what_its_coordinator_is_at_work_on_or_has_decided_is_not_for_people_to_end() {
    let ((_one, here), (mut other, there)) = (named("here", 1), named("there", 1));
    clusters::banks(&here[0], &there, &urls(&there));
    let ended = run(&here[0], &payment(1)).json();
    let over: TxnId = ended["transaction"].as_str().and_then(|id| id.parse().ok()).expect("a name");
    until("it is over", || seen(&here[0]).is_empty().then_some(()));
    for decision in [Decision::Commit, Decision::Abort] {
        let refused = resolve(&here[0], over, "bank1", decision);
        assert_eq!((refused.status, refused.code().as_str()), (400, "not-in-doubt"), "{refused:?}");
    }
    assert_eq!(show(&here[0], over).code(), "transaction-unknown");
    assert_eq!(resolve(&here[0], of(GONE, 5), "bank1", Decision::Commit).code(), "not-in-doubt", "never was");
    assert_eq!(resolve(&here[0], over, "bank9", Decision::Commit).code(), "participant-unknown");
    assert_eq!(value(&here[0], "bank1", "x"), "99");

    // The vote of the other cluster does not come: the coordinator waits for it, and lives.
    other.down(0);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut body = payment(1);
            body["timeout-ms"] = 3_000.into();
            run(&here[0], &body)
        });
        let waiting = until("a vote is waited for", || {
            seen(&here[0]).into_iter().find(|seen| seen["waits-for"] == json!(["far"]))
        });
        assert_eq!(
            (&waiting["state"], &waiting["in-doubt"]),
            (&json!("preparing"), &json!(false)),
            "{waiting}"
        );
        assert_eq!(waiting["branches"][0]["state"], "prepared", "{waiting}");
        let txn: TxnId = waiting["id"].as_str().and_then(|id| id.parse().ok()).expect("a name");
        let refused = resolve(&here[0], txn, "bank1", Decision::Commit);
        assert_eq!(refused.code(), "not-in-doubt");
        assert!(refused.text.contains("at work on it (preparing)"), "{refused:?}");
        assert_eq!(client.join().expect("no panic").json()["decision"], "abort");
    });
    assert_eq!(value(&here[0], "bank1", "x"), "99");
}

#[test]
fn what_is_in_doubt_in_a_database_is_seen_with_its_locks_and_ended_by_hand() {
    let Some(mut ledger) = Ledger::open() else { return };
    let (_cluster, endpoints) = cluster();
    let endpoint = &endpoints[0];
    let id = ledger.register(endpoint).json()["id"].as_u64().expect("a number");
    // As a coordinator of another cluster would have left it, which is not there any more.
    let gone = NodeId(0x63);
    for (number, decision, balance) in [(1, Decision::Commit, 993), (2, Decision::Abort, 993)] {
        let txn = of(gone, number);
        ledger.execute(&format!(
            "BEGIN; UPDATE accounts SET balance = balance - 7 WHERE name = 'a'; \
             PREPARE TRANSACTION 'synod/63/1.{number}/{id}'"
        ));
        let shown = show(endpoint, txn);
        let age = shown.json()["branches"][0]["age-ms"].as_u64();
        assert!(age.is_some_and(|ms| ms < 60_000), "{shown:?}");
        assert_eq!(
            without_ages(shown.json()),
            json!({
                "id": txn.to_string(), "state": "prepared", "role": "participant", "participants": ["ledger"],
                "waits-for": ["n99"], "in-doubt": true, "damage": false,
                "locks": [{"participant": "ledger", "key": "rows of accounts"}],
                "branches": [{"participant": "ledger", "state": "prepared"}],
            })
        );
        assert_eq!(seen(endpoint).iter().filter(|seen| seen["in-doubt"] == true).count(), 1);
        let resolved = resolve(endpoint, txn, "ledger", decision);
        assert_eq!(resolved.status, 200, "{resolved:?}");
        assert_eq!((ledger.in_doubt(), ledger.balance()), (0, balance));
        let shown = show(endpoint, txn).json();
        assert_eq!(
            shown["branches"],
            json!([{"participant": "ledger", "state": "by-hand", "here": decision.to_string()}]),
            "{shown}"
        );
    }
    // Nobody is told that nothing is in doubt where that is not known.
    ledger.server.kill();
    let list = surely(endpoint, "GET", "/v1/transactions", &Value::Null).json();
    assert_eq!(list["not-asked"][0]["participant"], "ledger", "{list}");
    let why = list["not-asked"][0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("PostgreSQL"), "{why}");
    let unknown = show(endpoint, of(gone, 1));
    assert!(unknown.code() == "transaction-unknown" && unknown.text.contains("which could not be asked"));
}

#[test]
fn a_commit_by_hand_in_a_database_whose_coordinator_aborts_is_damage() {
    let Some(ledger) = Ledger::open() else { return };
    let (cluster, endpoints) = cluster();
    let id = ledger.register(&endpoints[0]).json()["id"].as_u64().expect("a number");
    let own = clusters::coordinator(&endpoints[0]);
    // The coordinator here, which has never heard of it, is asked every other second, and says that it has aborted: whoever is faster.
    let txn = until("a person is faster", || {
        let number = ledger.number("SELECT 1000 + count(*) FROM synod_transactions");
        ledger.execute(&format!(
            "BEGIN; UPDATE accounts SET balance = balance - 7 WHERE name = 'a'; \
             PREPARE TRANSACTION 'synod/{:x}/1.{number}/{id}'",
            own.0
        ));
        let txn = of(own, u64::try_from(number).expect("a count"));
        (resolve(&endpoints[0], txn, "ledger", Decision::Commit).status == 200).then_some(txn)
    });
    let shown =
        until("the damage is found", || seen(&endpoints[0]).into_iter().find(|seen| seen["damage"] == true));
    assert_eq!((&shown["id"], &shown["state"]), (&json!(txn.to_string()), &json!("damaged")), "{shown}");
    assert_eq!(
        shown["branches"],
        json!([{"participant": "ledger", "state": "damaged", "here": "commit", "decided": "abort"}])
    );
    is_counted_once(&endpoints[cluster.leader()]);
    assert!(cluster.said("HEURISTIC DAMAGE"));
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(damage_counted(&endpoints[cluster.leader()]), 1, "once, however often it is asked");
    assert_eq!(ledger.balance(), 993);
}

#[test]
fn a_promise_that_vanished_from_a_database_is_damage_when_it_is_to_be_committed() {
    let Some(ledger) = Ledger::open() else { return };
    let (cluster, endpoints) = cluster();
    let id = ledger.register(&endpoints[0]).json()["id"].as_u64().expect("a number");
    ledger.runtime.block_on(ledger.server.create_bank("other", &[("b", 0)]));
    let form = json!({"kind": "postgres", "url": ledger.server.url("other")});
    assert_eq!(surely(&endpoints[0], "PUT", "/v1/participants/other", &form).status, 201);
    // The other one takes its time to promise, so that a person can roll back what the first has promised.
    let update = |name: &str, by: i64| json!({"sql": format!("update accounts set balance = balance + {by} where name = '{name}'"), "rows": 1});
    let body = json!({"branches": [
        {"participant": "ledger", "work": [update("a", -7)]},
        {"participant": "other", "work": [update("b", 7), {"sql": "select 1 from pg_sleep(1.5)"}]},
    ]});
    std::thread::scope(|scope| {
        let client = scope.spawn(|| run(&endpoints[0], &body));
        let gid = until("the first has promised", || ledger.text("SELECT min(gid) FROM pg_prepared_xacts"));
        ledger.execute(&format!("ROLLBACK PREPARED '{gid}'"));
        let ended = client.join().expect("no panic");
        assert_eq!(ended.json()["decision"], "commit", "{ended:?}");
    });
    let shown =
        until("the loss is seen", || seen(&endpoints[0]).into_iter().find(|seen| seen["damage"] == true));
    assert_eq!((&shown["state"], &shown["role"]), (&json!("committing"), &json!("coordinator")), "{shown}");
    let lost = json!({"participant": "ledger", "state": "damaged", "here": "lost", "decided": "commit"});
    assert!(shown["branches"].as_array().is_some_and(|branches| branches.contains(&lost)), "{shown}");
    is_counted_once(&endpoints[cluster.leader()]);
    assert!(cluster.said("is neither prepared nor marked at `ledger`"));
    assert_eq!(ledger.balance(), 1_000);

    // A person does the work again, and says so with a mark.
    let txn: TxnId = shown["id"].as_str().and_then(|id| id.parse().ok()).expect("a name");
    let TxnId { coordinator, epoch, number } = txn;
    ledger.execute(&format!(
        "BEGIN; UPDATE accounts SET balance = balance - 7 WHERE name = 'a'; \
         INSERT INTO synod_transactions VALUES ({}, {id}, {epoch}, {number}, true, ''); COMMIT",
        coordinator.0
    ));
    until("it is over", || seen(&endpoints[0]).is_empty().then_some(()));
}
