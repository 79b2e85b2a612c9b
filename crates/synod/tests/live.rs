//! The demo as a newcomer meets it: processes of their own, etcd's own client, kill -9, and
//! everything still there afterwards.

mod support;

use support::{Demo, etcdctl_or_skip};

#[test]
fn etcdctl_works_through_the_death_of_a_minority_and_is_refused_by_one() {
    let demo = Demo::start("minority");
    let Some(etcdctl) = etcdctl_or_skip(&demo.endpoints) else { return };
    assert_eq!(etcdctl.ok(&["put", "greeting", "hello"]), "OK\n");
    assert_eq!(etcdctl.ok(&["get", "greeting"]), "greeting\nhello\n");
    etcdctl.ok(&["put", "user/1", "ann"]);
    etcdctl.ok(&["put", "user/2", "bob"]);
    assert_eq!(etcdctl.ok(&["get", "--prefix", "user/"]), "user/1\nann\nuser/2\nbob\n");
    assert_eq!(etcdctl.ok(&["del", "user/1"]), "1\n");
    let txn = etcdctl.with_input(
        &["txn"],
        "value(\"greeting\") = \"hello\"\n\nput greeting goodbye\n\nput greeting lost\n\n",
    );
    assert!(txn.starts_with("SUCCESS"), "{txn}");
    assert_eq!(etcdctl.ok(&["get", "greeting", "--print-value-only"]), "goodbye\n");
    let revision = etcdctl.revision("greeting");
    assert!(etcdctl.ok(&["compaction", &revision.to_string()]).contains("compacted"));
    assert!(etcdctl.fails(&["get", "greeting", "--rev=1"]).contains("compacted"));
    assert_eq!(etcdctl.ok(&["endpoint", "health"]).matches("is healthy").count(), 3);
    assert_eq!(etcdctl.ok(&["endpoint", "status"]).lines().count(), 3);
    assert_eq!(etcdctl.ok(&["member", "list"]).matches("started").count(), 3);

    let leader = demo.leader();
    demo.act("kill", &leader);
    assert_eq!(etcdctl.ok(&["put", "greeting", "still here"]), "OK\n");
    assert_eq!(etcdctl.ok(&["get", "greeting", "--print-value-only"]), "still here\n");

    let second = demo.leader();
    demo.act("kill", &second);
    let refused = etcdctl.fails(&["put", "greeting", "nobody hears this"]);
    assert!(!refused.is_empty());

    demo.act("start", &leader);
    demo.act("start", &second);
    etcdctl.eventually(&["get", "greeting", "--print-value-only"], "still here\n");
}

#[test]
fn everything_is_there_after_all_processes_were_killed_at_once() {
    let demo = Demo::start("power");
    let Some(etcdctl) = etcdctl_or_skip(&demo.endpoints) else { return };
    for i in 0..50 {
        etcdctl.ok(&["put", &format!("key/{i:02}"), &format!("value {i}")]);
    }
    let before = etcdctl.ok(&["get", "--prefix", "key/"]);
    assert_eq!(before.lines().count(), 100);
    for name in ["n1", "n2", "n3"] {
        demo.act("kill", name);
    }
    for name in ["n1", "n2", "n3"] {
        demo.act("start", name);
    }
    etcdctl.eventually(&["get", "--prefix", "key/"], &before);
}

#[test]
fn a_paused_leader_is_replaced_and_a_cut_one_too() {
    let demo = Demo::start("paused");
    for (strike, mend) in [("stop", "cont"), ("cut", "heal")] {
        let leader = demo.leader();
        demo.strike(strike, &leader);
        demo.eventually("another leader", || {
            demo.try_leader().is_some_and(|new| new != leader).then_some(())
        });
        demo.strike(mend, &leader);
        demo.eventually("one leader for all three", || demo.agreed_leader());
    }
}

#[test]
fn our_own_client_commands_work_and_exit_as_documented() {
    let demo = Demo::start("client");
    let run = |arguments: &[&str]| demo.synod(arguments);
    assert_eq!(run(&["put", "greeting", "hello"]).0, 0);
    assert_eq!(run(&["get", "greeting"]), (0, "hello\n".into()));
    assert_eq!(run(&["get", "--prefix", ""]), (0, "greeting = hello\n".into()));
    assert_eq!(run(&["get", "missing"]).0, 1);
    assert_eq!(run(&["del", "greeting"]), (0, "deleted 1\n".into()));
    let (code, status) = run(&["status"]);
    // The column and the one member whose role it is.
    assert_eq!((code, status.matches("leader").count()), (0, 2), "{status}");
    demo.act("kill", "n1");
    assert_eq!(run(&["status"]).0, 3);
}
