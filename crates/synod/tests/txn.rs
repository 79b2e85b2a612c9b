//! `synod txn` on real processes: all or nothing, refusals with their reasons, and nothing half done.

#[path = "../../server/tests/outside/database.rs"]
mod database;
mod support;

use database::{PASSWORD, Server};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use support::Demo;
use synod_protocols::commit::{Decision, KeyOp, Message, Stamp, TxnId};
use synod_protocols::{NodeId, Wire};
use synod_server::outside::{Envelope, KeyspaceThere, MESSAGES_PATH, To};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_is_wrong_on_the_command_line_is_said_before_anybody_is_asked() {
    for (arguments, words) in [
        (&["txn", "run"][..], "--at"),
        (&["txn", "run", "--at", "bank1"], "2 values"),
        (&["txn", "run", "--at", "bank1", "steal a"], "add KEY N [min N]"),
        (&["txn", "run", "--at", "bank1", "add a ten"], "whole number"),
        (&["txn", "run", "--at", "bank1", "get a", "--route", "fastest"], "two-phase"),
        (&["txn", "run", "--file", "/nowhere/x.json"], "cannot read"),
        (&["txn", "resolve", "1.2.3", "--participant", "bank1"], "--commit"),
        (
            &["txn", "resolve", "1.2.3", "--participant", "bank1", "--commit", "--abort"],
            "cannot be used with",
        ),
        (&["participant", "add", "p"], "--postgres"),
        (&["participant", "add", "p", "--cluster", "127.0.0.1:1"], "--keyspace"),
        (
            &[
                "participant",
                "add",
                "p",
                "--postgres",
                "postgres://u@h/d",
                "--password-env",
                "NO_SUCH_VARIABLE",
            ],
            "NO_SUCH",
        ),
        (&["participant", "add", "p", "--postgres", "h"], "scheme"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_synod"))
            .args(arguments)
            .env("SYNOD_ENDPOINTS", "127.0.0.1:1")
            .output()
            .expect("synod runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_cluster_that_is_not_there_is_said_to_be_unreachable_and_nothing_done() {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["txn", "run", "--at", "bank1", "get a", "--timeout", "300ms", "--endpoints", "127.0.0.1:1"])
        .output()
        .expect("synod runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("nothing was done") && said.contains("127.0.0.1:1"), "{said}");
}

#[test]
fn a_transfer_happens_at_both_banks_or_at_none() {
    let demo = Demo::start("txn");
    demo.make_keyspaces(&["bank1", "bank2"]);
    let run = |arguments: &[&str]| {
        let (code, out) = demo.synod(&[&["txn", "run", "--json"], arguments].concat());
        (code, if out.is_empty() { Value::Null } else { parsed(&out) })
    };
    let (code, answer) = run(&["--at", "bank1", "put a 500; put c 7", "--at", "bank2", "put b 0"]);
    assert_eq!((code, &answer["decision"]), (0, &"commit".into()), "{answer}");
    let balances = || {
        let (code, answer) = run(&["--at", "bank1", "get a", "--at", "bank2", "get b"]);
        assert_eq!(code, 0, "{answer}");
        [answer["answers"]["bank1"][0].clone(), answer["answers"]["bank2"][0].clone()]
    };
    let (code, answer) = run(&["--at", "bank1", "add a -100 min 0", "--at", "bank2", "add b 100"]);
    assert_eq!((code, &answer["route"]), (0, &"two-phase".into()), "{answer}");
    assert_eq!(balances(), ["400", "100"]);

    // Whatever is refused at one bank does not happen at the other.
    for (one, other, word) in [
        ("add a -500 min 0", "add b 500", "a"),
        ("add nobody -1 min 0", "add b 1", "nobody"),
        ("add a -1 min 0", "add nobody 1", "nobody"),
        ("expect a 1; put a 2", "add b 1", "a"),
    ] {
        let (code, answer) = run(&["--at", "bank1", one, "--at", "bank2", other]);
        assert_eq!(code, 1, "{one}: {answer}");
        assert_eq!(answer["decision"], "abort", "{one}: {answer}");
        assert!(answer["why"].as_str().is_some_and(|why| why.contains(word)), "{one}: {answer}");
        assert_eq!(balances(), ["400", "100"], "after {one}");
    }

    // Everything at one place is one log entry; what is apart cannot be.
    let (code, answer) = run(&["--at", "bank1", "add a -1 min 0; add c 1"]);
    assert_eq!((code, &answer["route"]), (0, &"one-entry".into()), "{answer}");
    let (code, _) = run(&["--route", "one-entry", "--at", "bank1", "add a 1", "--at", "bank2", "add b 1"]);
    assert_eq!(code, 1);
    assert_eq!(balances(), ["399", "100"]);

    // There is no such participant; too much at once; nothing to resolve.
    assert_eq!(run(&["--at", "bank1", "add a 1", "--at", "bank9", "add b 1"]).0, 1);
    assert_eq!(balances(), ["399", "100"]);
    let large = std::env::temp_dir().join(format!("synod-txn-{}.json", std::process::id()));
    let value = "x".repeat(3 << 20);
    let request =
        json!({"branches": [{"participant": "bank1", "work": [{"put": {"key": "a", "value": value}}]}]});
    std::fs::write(&large, request.to_string()).expect("written");
    let (code, _) = run(&["--file", large.to_str().expect("UTF-8")]);
    std::fs::remove_file(&large).expect("removed");
    assert_eq!(code, 1, "larger than a transaction may be");
    assert_eq!(balances(), ["399", "100"]);
    let id = answer["transaction"].as_str().expect("a name").to_owned();
    let (code, _) = demo.synod(&["txn", "resolve", &id, "--participant", "bank1", "--abort", "--yes"]);
    assert_eq!(code, 1, "what is over is not in doubt");
    assert_eq!(balances(), ["399", "100"]);

    let (code, out) = demo.synod(&["txn", "list", "--open", "--json"]);
    assert_eq!((code, parsed(&out)["transactions"].as_array().map(Vec::len)), (0, Some(0)), "{out}");

    // It goes on when the coordinator dies, and everything is as it was.
    demo.act("kill", &demo.leader());
    assert_eq!(balances(), ["399", "100"]);
    let (code, answer) = run(&["--at", "bank1", "add a -99 min 0", "--at", "bank2", "add b 99"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(balances(), ["300", "199"]);
}

/// One request to a member: the status, and the body.
fn exchange(host: &str, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(host).ok()?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// What a coordinator of another cluster, that never comes back, says to a keyspace of the demo.
fn order(demo: &Demo, keyspace: &str, message: Message) {
    let hosts = || demo.endpoints.split(',');
    let ask = |path: &str| {
        let answer = hosts().find_map(|host| exchange(host, "GET", path, "")).expect("somebody answers");
        parsed(&answer.1)
    };
    let id = ask(&format!("/v1/keyspaces/{keyspace}"))["id"].as_u64().expect("a number");
    let cluster = ask("/status")["cluster-id"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok());
    // As a coordinator is called by others.
    let cluster = NodeId(cluster.expect("a number") & (u64::MAX >> 1));
    let envelope = Envelope {
        coordinator: GONE,
        participant: NodeId(7),
        to: To::Keyspace(KeyspaceThere { cluster, id: NodeId(id), name: keyspace.into() }),
        reply: vec!["http://127.0.0.1:1".into()],
        messages: vec![message],
    };
    let body = String::from_utf8(envelope.encode().to_vec()).expect("JSON");
    // Only the leader takes it: the others say where that is.
    demo.eventually("the leader takes it", || {
        hosts().find(|host| {
            exchange(host, "POST", MESSAGES_PATH, &body).is_some_and(|(status, _)| status == 200)
        })
    });
}

const GONE: NodeId = NodeId(1 << 41);

fn txn(number: u64) -> TxnId {
    TxnId { coordinator: GONE, epoch: 1, number }
}

fn stamp() -> Stamp {
    Stamp { epoch: 1, floor: txn(1) }
}

/// To promise ten more to an account.
fn prepare(number: u64, account: &str) -> Message {
    let work = vec![KeyOp::Add { key: account.into(), by: 10, at_least: None }].to_bytes();
    Message::Prepare {
        stamp: stamp(),
        txn: txn(number),
        addresses: vec![],
        peers: vec![],
        life: 0,
        work: Some(work),
    }
}

#[test]
fn a_keyspace_in_doubt_is_found_and_resolved_by_hand_and_a_wrong_guess_is_shown() {
    let demo = Demo::start("txn-doubt");
    demo.make_keyspaces(&["bank1"]);
    let read = |key: &str| {
        let (code, out) = demo.synod(&["get", key, "--keyspace", "bank1"]);
        assert_eq!(code, 0, "{out}");
        out.trim().to_owned()
    };
    assert_eq!(demo.synod(&["txn", "run", "--at", "bank1", "put a 100"]).0, 0);
    for (number, decision, balance) in [(1, "--commit", "110"), (2, "--abort", "110")] {
        let id = txn(number).to_string();
        order(&demo, "bank1", prepare(number, "a"));
        let (code, list) = demo.synod(&["txn", "list", "--open"]);
        assert!(code == 0 && list.contains(&id) && list.contains("IN DOUBT bank1 (in doubt for "), "{list}");
        let (code, drawn) = demo.synod(&["txn", "show", &id]);
        assert_eq!(code, 0, "{drawn}");
        for words in [
            "last reached at http://127.0.0.1:1",
            "bank1  in doubt for",
            "locks a",
            "waits for n2199023255552",
        ] {
            assert!(drawn.contains(words), "{words}: {drawn}");
        }
        let (code, _, said) = demo.synod_said(&["txn", "run", "--at", "bank1", "put a 0"]);
        assert_eq!(code, 1, "it is locked: {said}");

        // Somewhere else, or without being sure, nothing is done.
        let resolve = ["txn", "resolve", &id, "--participant", "bank1", decision];
        let (code, _, said) =
            demo.synod_said(&["txn", "resolve", &id, "--participant", "bank2", decision, "--yes"]);
        assert!(code == 1 && said.contains("is in doubt at bank1, and not at bank2"), "{said}");
        let (code, _, said) = demo.synod_said(&resolve);
        assert!(code == 2 && said.contains("WARNING") && said.contains("say --yes"), "{said}");
        let (_, shown) = demo.synod(&["txn", "show", &id, "--json"]);
        assert_eq!(parsed(&shown)["in-doubt"], true, "{shown}");

        let (code, out, said) = demo.synod_said(&[&resolve[..], &["--yes"]].concat());
        assert!(
            code == 0 && said.contains("WARNING") && said.contains("Ask the coordinator's side first"),
            "{said}"
        );
        assert!(out.contains("by hand") && out.contains("nothing repairs that by itself"), "{out}");
        assert_eq!(read("a"), balance);
        assert_eq!(demo.synod(&["txn", "run", "--at", "bank1", "add a 0"]).0, 0, "the lock is free");
        let (code, _, said) = demo.synod_said(&[&resolve[..], &["--yes"]].concat());
        assert!(code == 1 && said.contains("was ended by hand already"), "{said}");
    }
    let (_, open) = demo.synod(&["txn", "list", "--open"]);
    assert_eq!(open, "no transaction is under way\n");
    let (code, _, said) =
        demo.synod_said(&["txn", "resolve", "n9.9.9", "--participant", "bank1", "--abort", "--yes"]);
    assert!(code == 1 && said.contains("there was none of this name"), "{said}");

    // The coordinator comes back after all, and has decided otherwise, and the same.
    for number in [1, 2] {
        order(
            &demo,
            "bank1",
            Message::Decide { stamp: stamp(), txn: txn(number), decision: Decision::Abort },
        );
    }
    let list = demo.eventually("the damage is shown", || {
        let (_, list) = demo.synod(&["txn", "list"]);
        (list.contains("DAMAGE") && !list.contains(&txn(2).to_string())).then_some(list)
    });
    assert!(list.contains("bank1 (DAMAGE: committed, and abort was decided)"), "{list}");
    let (code, drawn) = demo.synod(&["txn", "show", &txn(1).to_string()]);
    assert!(code == 0 && drawn.contains("mend them by hand") && drawn.contains("not in doubt"), "{drawn}");
    let (_, shown) = demo.synod(&["txn", "show", &txn(1).to_string(), "--json"]);
    assert_eq!(
        (&parsed(&shown)["damage"], &parsed(&shown)["state"]),
        (&json!(true), &json!("damaged")),
        "{shown}"
    );
    assert_eq!(read("a"), "110", "people mend it");
}

#[test]
fn a_database_in_doubt_is_found_and_resolved_by_hand() {
    let Some(server) = Server::start(&["max_prepared_transactions=8"]) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(server.create_bank("ledger", &[("a", 1_000)]));
    let balance = || {
        let sql = "SELECT balance FROM accounts WHERE name = 'a'";
        runtime.block_on(async {
            server.connect("ledger").await.query_one(sql, &[]).await.expect("a row").get::<_, i64>(0)
        })
    };
    let demo = Demo::start("txn-ledger");
    let url = server.url("ledger");
    let (code, out) = demo.synod(&["participant", "add", "ledger", "--postgres", &url, "--json"]);
    assert!(code == 0 && !out.contains(PASSWORD), "{out}");
    let participant = parsed(&out)["id"].as_u64().expect("a number");
    for (number, decision, left) in [(1, "--commit", 993), (2, "--abort", 993)] {
        // As a coordinator that has gone would have left it.
        let sql = format!(
            "BEGIN; UPDATE accounts SET balance = balance - 7 WHERE name = 'a'; \
             PREPARE TRANSACTION 'synod/{:x}/1.{number}/{participant}'",
            GONE.0
        );
        runtime
            .block_on(async { server.connect("ledger").await.batch_execute(&sql).await.expect("prepared") });
        let id = txn(number).to_string();
        let (code, list) = demo.synod(&["txn", "list", "--open"]);
        assert!(code == 0 && list.contains(&id) && list.contains("IN DOUBT ledger (in doubt for "), "{list}");
        let (code, drawn) = demo.synod(&["txn", "show", &id]);
        assert!(code == 0 && drawn.contains(r#"locks "rows of accounts""#), "{drawn}");
        let update = "sql \"update accounts set balance = balance - 1 where name = 'a'\" rows 1";
        let (code, _, said) = demo.synod_said(&["txn", "run", "--at", "ledger", update]);
        assert_eq!(code, 1, "the row is locked: {said}");
        let resolve = ["txn", "resolve", &id, "--participant", "ledger", decision];
        let (code, _, said) = demo.synod_said(&resolve);
        assert!(code == 2 && said.contains("WARNING") && said.contains("say --yes"), "{said}");
        assert_eq!(balance(), if number == 1 { 1_000 } else { 993 }, "nothing was done");
        let (code, out, _) = demo.synod_said(&[&resolve[..], &["--yes"]].concat());
        assert!(code == 0 && out.contains("by hand"), "{out}");
        assert_eq!(balance(), left);
        let (code, _, said) = demo.synod_said(&[&resolve[..], &["--yes"]].concat());
        assert!(code == 1 && said.contains("was ended by hand already"), "{said}");
        let nothing = "sql \"update accounts set balance = balance + 0 where name = 'a'\" rows 1";
        assert_eq!(demo.synod(&["txn", "run", "--at", "ledger", nothing]).0, 0, "the lock is free");
    }
}
