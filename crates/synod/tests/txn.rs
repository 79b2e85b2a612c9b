//! `synod txn` on real processes: all or nothing, refusals with their reasons, and nothing half done.

mod support;

use serde_json::Value;
use std::process::Command;
use support::Demo;

fn json(text: &str) -> Value {
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
        (code, if out.is_empty() { Value::Null } else { json(&out) })
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
    let request = serde_json::json!({"branches": [{"participant": "bank1", "work": [{"put": {"key": "a", "value": value}}]}]});
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
    assert_eq!((code, json(&out)["transactions"].as_array().map(Vec::len)), (0, Some(0)), "{out}");

    // It goes on when the coordinator dies, and everything is as it was.
    demo.act("kill", &demo.leader());
    assert_eq!(balances(), ["399", "100"]);
    let (code, answer) = run(&["--at", "bank1", "add a -99 min 0", "--at", "bank2", "add b 99"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(balances(), ["300", "199"]);
}
