//! A PostgreSQL database and a keyspace in one transaction.

use super::database::{PASSWORD, Server};
use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// A database with an account of 1,000, registered as `ledger`, and a runtime to look into it.
pub(super) struct Ledger {
    pub(super) server: Server,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl Ledger {
    pub(super) fn open() -> Option<Ledger> {
        let server = Server::start(&["max_prepared_transactions=64"])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(server.create_bank("bank", &[("a", 1_000)]));
        Some(Ledger { server, runtime })
    }

    pub(super) fn number(&self, sql: &str) -> i64 {
        self.runtime.block_on(async {
            self.server.connect("bank").await.query_one(sql, &[]).await.expect("a row").get(0)
        })
    }

    pub(super) fn text(&self, sql: &str) -> Option<String> {
        self.runtime.block_on(async {
            self.server.connect("bank").await.query_one(sql, &[]).await.expect("a row").get(0)
        })
    }

    pub(super) fn execute(&self, sql: &str) {
        let done =
            self.runtime.block_on(async { self.server.connect("bank").await.batch_execute(sql).await });
        done.expect("done");
    }

    pub(super) fn balance(&self) -> i64 {
        self.number("SELECT balance FROM accounts WHERE name = 'a'")
    }

    pub(super) fn in_doubt(&self) -> i64 {
        self.number("SELECT count(*) FROM pg_prepared_xacts")
    }

    pub(super) fn register(&self, endpoint: &str) -> Answer {
        let form = json!({"kind": "postgres", "url": self.server.url("bank")});
        surely(endpoint, "PUT", "/v1/participants/ledger", &form)
    }
}

/// Ends the payments when it is dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes from the database what the keyspace gets.
fn payment(amount: i64) -> Value {
    let sql = "update accounts set balance = balance - $1 where name = 'a' returning balance";
    json!({"branches": [
        {"participant": "ledger", "work": [{"sql": sql, "parameters": [amount.to_string()], "rows": 1}]},
        {"participant": "bank1", "work": [add("x", amount)]},
    ]})
}

#[test]
fn a_database_is_registered_without_showing_its_password_and_takes_part() {
    let Some(ledger) = Ledger::open() else { return };
    let (_cluster, endpoints) = cluster();
    let endpoint = &endpoints[0];
    bank(endpoint, "bank1", &["x"]);
    let made = ledger.register(endpoint);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(ledger.register(endpoint).status, 200);
    for path in ["/v1/participants", "/v1/participants/ledger"] {
        let shown = surely(endpoint, "GET", path, &Value::Null);
        let text = shown.json().to_string();
        assert!(
            shown.status == 200 && text.contains("keeper@127.0.0.1") && !text.contains(PASSWORD),
            "{text}"
        );
    }

    let ended = run(endpoint, &payment(100));
    assert_eq!((ended.status, &ended.json()["decision"]), (200, &json!("commit")), "{ended:?}");
    assert_eq!(ended.json()["route"], "two-phase");
    assert_eq!(value(endpoint, "bank1", "x"), "200");
    until("the database has committed", || (ledger.balance() == 900).then_some(()));

    // Neither side's refusal leaves anything at the other.
    let ended = run(endpoint, &payment(5_000));
    assert_eq!(ended.json()["decision"], "abort");
    assert!(ended.json()["why"].as_str().is_some_and(|why| why.contains("no_overdraft")), "{ended:?}");
    let mut refused = payment(100);
    refused["branches"][1]["work"] = json!([add("x", -1_000)]);
    assert_eq!(run(endpoint, &refused).json()["decision"], "abort");
    until("nothing is in doubt", || (ledger.in_doubt() == 0).then_some(()));
    assert_eq!((ledger.balance(), value(endpoint, "bank1", "x")), (900, json!("200")));

    // The database alone decides for itself.
    let mut alone = payment(1);
    alone["branches"].as_array_mut().expect("a list").truncate(1);
    let ended = run(endpoint, &alone);
    assert_eq!(ended.json()["decision"], "commit", "{ended:?}");
    assert_eq!(ledger.balance(), 899);

    for (form, status, reason) in [
        (json!({"kind": "postgres", "url": "postgres://u:hunter2@h"}), 400, "an address names one host"),
        (json!({"kind": "http", "url": "https://bank"}), 400, "https is not spoken here"),
        (json!({"kind": "fax", "url": "hunter2"}), 400, "is not understood"),
        (
            json!({"kind": "postgres", "url": ledger.server.url("bank").replace(PASSWORD, "hunter2")}),
            409,
            "password",
        ),
    ] {
        let refused = surely(endpoint, "PUT", "/v1/participants/other", &form);
        let text = refused.json().to_string();
        assert!(refused.status == status && text.contains(reason) && !text.contains("hunter2"), "{text}");
    }
    assert_eq!(surely(endpoint, "DELETE", "/v1/participants/ledger", &Value::Null).status, 200);
    assert_eq!(surely(endpoint, "DELETE", "/v1/participants/ledger", &Value::Null).status, 404);
    let mut gone = payment(1);
    gone["branches"][0]["work"] = json!([add("a", -1)]);
    assert_eq!(run(endpoint, &gone).status, 404);
}

#[test]
fn the_next_leader_ends_what_the_last_one_left_prepared_and_money_is_conserved() {
    let Some(ledger) = Ledger::open() else { return };
    let (mut cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["x"]);
    assert_eq!(ledger.register(&endpoints[0]).status, 201);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Whoever answers: some are lost with their leader, and their outcome with them.
                    for endpoint in &endpoints {
                        let _ = follow(endpoint, "POST", "/v1/transactions", &payment(1));
                    }
                }
            });
        }
        let _stop = Stop(&stop);
        for _ in 0..2 {
            std::thread::sleep(std::time::Duration::from_millis(1_500));
            let leader = cluster.leader();
            cluster.down(leader);
            cluster.up(leader);
            cluster.leader();
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    });
    until("nothing is in doubt", || (ledger.in_doubt() == 0).then_some(()));
    assert!(ledger.balance() < 1_000, "something was paid");
    until("what was taken has arrived", || {
        let x = value(&endpoints[0], "bank1", "x");
        let x: i64 = x.as_str().and_then(|x| x.parse().ok()).expect("a number");
        (x + ledger.balance() == 1_100).then_some(())
    });
}

#[test]
fn what_a_foreign_coordinator_left_prepared_is_ended_by_hand_and_nothing_else_is() {
    let Some(ledger) = Ledger::open() else { return };
    let (_cluster, endpoints) = cluster();
    let endpoint = &endpoints[0];
    bank(endpoint, "bank1", &["x"]);
    let made = ledger.register(endpoint);
    let id = made.json()["id"].as_u64().expect("a number");
    // As a coordinator of another cluster would have left it, which is not there any more.
    for number in [1, 2] {
        ledger.runtime.block_on(async {
            let sql = format!(
                "BEGIN; UPDATE accounts SET balance = balance - 7 WHERE name = 'a'; \
                 PREPARE TRANSACTION 'synod/63/1.{number}/{id}'"
            );
            ledger.server.connect("bank").await.batch_execute(&sql).await.expect("prepared");
        });
        assert_eq!(ledger.in_doubt(), 1);
        let path = format!("/v1/transactions/n99.1.{number}/resolve");
        let decision = if number == 1 { "commit" } else { "abort" };
        let resolve = |participant: &str, is_meant: bool| {
            let form = json!({"participant": participant, "decision": decision, "i-know-that-this-can-break-atomicity": is_meant});
            surely(endpoint, "POST", &path, &form)
        };
        assert_eq!(resolve("ledger", false).code(), "malformed");
        assert_eq!(resolve("nobody", true).code(), "participant-unknown");
        let refused = resolve("bank1", true);
        assert_eq!(refused.code(), "not-in-doubt", "{refused:?}");
        assert!(refused.text.contains("it is not known here"), "{refused:?}");
        assert_eq!(ledger.in_doubt(), 1, "nothing was done");
        let resolved = resolve("ledger", true);
        assert_eq!((resolved.status, &resolved.json()["decision"]), (200, &json!(decision)), "{resolved:?}");
        assert_eq!((ledger.in_doubt(), ledger.balance()), (0, 993));
        assert_eq!(resolve("ledger", true).code(), "not-in-doubt");
    }
}
