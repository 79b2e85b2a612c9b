//! Members as processes that are killed and stopped, and etcd's own client.
//!
//! What a process is: see `common/processes.rs`.

#[macro_use]
mod common;

use common::processes::Processes;
use common::*;
use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::time::Duration;
use synod_server::Server;

on_every_protocol! {
    what_was_acknowledged_survives_the_death_of_all_at_once;
    a_leader_that_is_killed_or_stopped_is_replaced_and_returns_as_a_follower;
}

/// Not a test of its own: what the processes below run.
#[test]
fn be_a_member() {
    processes::be_a_member();
}

fn what_was_acknowledged_survives_the_death_of_all_at_once(protocol: &str) {
    let mut processes = Processes::start(protocol, 3);
    processes.leader(&[0, 1, 2]);
    for i in 0..60 {
        put_surely(&processes.endpoint(i % 3), &format!("k{i}"), &format!("v{i}"));
    }
    for round in 0..2 {
        for i in 0..3 {
            processes.signal(i, Signal::KILL);
        }
        for i in 0..3 {
            processes.kill(i);
            processes.up(i);
        }
        for i in 0..60 {
            assert_eq!(get_surely(&processes.endpoint(i % 3), &format!("k{i}")), Some(format!("v{i}")));
        }
        put_surely(&processes.endpoint(round), &format!("round{round}"), "done");
    }
    let child = processes.children[2].take().expect("it runs");
    let second = processes.spawn(2).wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("the port is taken"), "{said}");
    let mut moved = processes.configs[2].clone();
    moved.listen_clients = Some("127.0.0.1:0".into());
    moved.listen_peers = Some("127.0.0.1:0".into());
    let said = Server::start(moved).expect_err("its directory is taken").to_string();
    assert!(said.contains(&format!("is in use by process {}", child.id())), "{said}");
    processes.children[2] = Some(child);
}

fn a_leader_that_is_killed_or_stopped_is_replaced_and_returns_as_a_follower(protocol: &str) {
    let mut processes = Processes::start(protocol, 3);
    let first = processes.leader(&[0, 1, 2]);
    put_surely(&processes.endpoint(first), "a", "1");
    processes.kill(first);
    let rest: Vec<usize> = (0..3).filter(|i| *i != first).collect();
    put_surely(&processes.endpoint(rest[0]), "a", "2");
    processes.up(first);
    let second = processes.leader(&[0, 1, 2]);
    processes.signal(second, Signal::STOP);
    let rest: Vec<usize> = (0..3).filter(|i| *i != second).collect();
    until("another leads", || {
        let name = leader_name(&processes.endpoint(rest[0]))?;
        (name != processes.configs[second].name).then_some(())
    });
    put_surely(&processes.endpoint(rest[1]), "a", "3");
    processes.signal(second, Signal::CONT);
    assert_eq!(
        get_surely(&processes.endpoint(second), "a"),
        Some("3".into()),
        "no stale read after the stop"
    );
}

fn etcdctl(endpoints: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    use std::io::Write;
    let mut child = match Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoints}"))
        .args(["--command-timeout=20s", "--dial-timeout=5s"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("etcdctl: {error}"),
    };
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), text))
}

#[test]
fn etcdctl_works() {
    let processes = Processes::start("raft", 3);
    let leader = processes.leader(&[0, 1, 2]);
    put_surely(&processes.endpoint(leader), "ready", "yes");
    let endpoints = (0..3).map(|i| processes.endpoint(i)).collect::<Vec<_>>().join(",");
    let Some((ok, text)) = etcdctl(&endpoints, &["put", "greeting", "hello"], "") else {
        eprintln!(
            "\n*** SKIPPED: etcdctl is not installed, so its behaviour against Synod was NOT tested ***\n"
        );
        return;
    };
    assert!(ok && text == "OK\n", "{text}");
    let run = |arguments: &[&str], input: &str| {
        let (ok, text) = etcdctl(&endpoints, arguments, input).expect("installed");
        assert!(ok, "etcdctl {arguments:?}: {text}");
        text
    };
    assert_eq!(run(&["get", "greeting"], ""), "greeting\nhello\n");
    assert_eq!(run(&["get", "greeting", "--consistency=s"], ""), "greeting\nhello\n");
    run(&["put", "greeted", "world"], "");
    assert_eq!(run(&["get", "--prefix", "greet", "--keys-only"], ""), "greeted\n\ngreeting\n\n");
    assert_eq!(run(&["del", "greeted"], ""), "1\n");
    let txn = "value(\"greeting\") = \"hello\"\n\nput greeting hi\n\nput greeting lost\n\n";
    assert!(run(&["txn"], txn).starts_with("SUCCESS"));
    assert!(run(&["txn"], txn).starts_with("FAILURE"));
    assert_eq!(run(&["get", "greeting", "--print-value-only"], ""), "lost\n");
    let json: serde_json::Value =
        serde_json::from_str(&run(&["get", "greeting", "-w", "json"], "")).expect("JSON");
    let revision = json["header"]["revision"].as_i64().expect("a revision");
    assert_eq!(run(&["compaction", &revision.to_string()], ""), format!("compacted revision {revision}\n"));
    let status = run(&["endpoint", "status"], "");
    assert_eq!((status.lines().count(), status.matches(", true, false,").count()), (3, 1), "{status}");
    assert_eq!(run(&["endpoint", "health"], "").matches("is healthy").count(), 3);
    assert_eq!(run(&["member", "list"], "").lines().count(), 3);
    assert!(run(&["endpoint", "hashkv"], "").lines().count() == 3);
    run(&["defrag"], "");
    let (ok, text) = etcdctl(&endpoints, &["lease", "grant", "10"], "").expect("installed");
    assert!(!ok && text.contains("leases are not offered by this version of Synod"), "{text}");
    std::thread::sleep(Duration::from_millis(1));
    assert!(processes.directory.path().exists());
}
