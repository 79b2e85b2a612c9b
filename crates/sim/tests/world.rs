//! One behaviour of the world each: determinism, faults that can be seen, and budgets.

use serde_json::Value;
use synod_sim::{Linearizable, NoTrace, Outcome, Script, Trace};

fn script(lines: &str) -> Script {
    format!("synod-script 1\n{lines}\n").parse().unwrap_or_else(|error| panic!("{error}\n{lines}"))
}

fn run(lines: &str) -> Outcome {
    synod_sim::run(&script(lines), &mut NoTrace).expect("the protocol is known")
}

fn traced(lines: &str) -> (Outcome, Vec<Value>) {
    let mut trace = Trace::new();
    let outcome = synod_sim::run(&script(lines), &mut trace).expect("the protocol is known");
    let events =
        trace.lines().lines().map(|line| serde_json::from_str(line).expect("an event is JSON")).collect();
    (outcome, events)
}

fn count(events: &[Value], is: impl Fn(&Value) -> bool) -> usize {
    events.iter().filter(|event| is(event)).count()
}

const BUSY: &str =
    "for 5s\nclients 3 every 20ms keys 3 mix put:4,get:3,cas:2,delete:1\nexpect progress within 15 elections";

#[test]
fn a_quiet_cluster_elects_one_leader_and_serves_everybody() {
    let outcome = run(BUSY);
    assert!(outcome.passed(), "{outcome}");
    assert_eq!(outcome.counts.elections, 1);
    assert_eq!(outcome.verdict.linearizable, Linearizable::Yes);
    assert!(outcome.counts.ok > 400 && outcome.counts.unknown == 0, "{outcome}");
}

#[test]
fn the_same_script_is_the_same_run_watched_or_not_printed_or_not() {
    let lines = format!(
        "{BUSY}\nloss 1%\nat 1s crash leader\nat 2s partition n1 n2 | n3 n4 n5\nat 1500ms restart all\nat 2s recover"
    );
    let (watched, events) = traced(&lines);
    let unwatched = run(&lines);
    let printed = synod_sim::run(&unwatched.script.to_string().parse().expect("canonical"), &mut NoTrace)
        .expect("known");
    assert_eq!((watched.hash, watched.counts), (unwatched.hash, unwatched.counts));
    assert_eq!((printed.hash, printed.counts), (unwatched.hash, unwatched.counts));
    assert_eq!(watched.history, unwatched.history);
    assert!(events.len() > 1000);
    let other = run(&format!("seed 2\n{lines}"));
    assert_ne!(other.hash, unwatched.hash);
}

#[test]
fn a_later_line_does_not_change_what_came_before() {
    let until = |events: Vec<Value>| -> Vec<Value> {
        events.into_iter().take_while(|event| event["t"].as_u64().expect("a time") < 2_000_000_000).collect()
    };
    let (_, before) = traced("for 3s\nclients 2 every 50ms keys 2");
    let (_, after) = traced("for 3s\nclients 2 every 50ms keys 2\nat 2s crash leader");
    assert_eq!(until(before), until(after));
}

#[test]
fn a_crashed_leader_is_replaced_and_comes_back() {
    let (outcome, events) =
        traced("for 4s\nclients 2 every 50ms keys 2\nat 1s crash leader\nat 2s restart all");
    assert!(outcome.passed(), "{outcome}");
    assert!(outcome.counts.elections >= 2 && outcome.counts.crashes == 1 && outcome.counts.restarts == 1);
    let down = |event: &Value| event["k"] == "state" && event["s"]["up"] == false;
    assert!(count(&events, down) >= 1);
    assert!(outcome.marks.iter().any(|mark| mark.kind == "crash"));
}

#[test]
fn two_of_five_may_be_down_and_three_may_not() {
    let lines = |down: &str| {
        format!("for 6s\nclients 2 every 50ms keys 2\nexpect progress within 20 elections\n{down}")
    };
    let two = run(&lines("at 1s crash n1\nat 1s crash n2"));
    assert!(two.passed(), "{two}");
    let three = run(&lines("at 1s crash n1\nat 1s crash n2\nat 1s crash n3"));
    assert!(three.verdict.safe && three.verdict.live == Some(false), "{three}");
}

#[test]
fn a_minority_behind_a_partition_does_not_commit() {
    let (outcome, events) = traced("for 4s\nclients 3 every 50ms keys 2\nat 1s partition n1 n2 | n3 n4 n5");
    assert!(outcome.passed(), "{outcome}");
    let late = |event: &Value| event["t"].as_u64() > Some(2_000_000_000) && event["k"] == "commit";
    assert_eq!(count(&events, |event| late(event) && (event["n"] == "n1" || event["n"] == "n2")), 0);
    assert!(count(&events, |event| late(event) && event["n"] == "n4") > 0);
}

#[test]
fn a_member_that_alone_reaches_a_quorum_ends_up_leading() {
    for hub in 1..=5 {
        let lines = format!(
            "for 6s\nclients 2 every 50ms keys 2\nexpect progress within 20 elections\nat 1s topology quorum-loss n{hub}"
        );
        let (outcome, events) = traced(&lines);
        assert!(outcome.passed(), "{outcome}");
        let leads = |event: &&Value| event["k"] == "state" && event["s"]["role"] == "leader";
        assert_eq!(events.iter().rfind(leads).expect("somebody leads")["n"], format!("n{hub}"));
    }
}

#[test]
fn a_one_way_cut_loses_messages_in_one_direction_only() {
    let (outcome, events) = traced("for 3s\nclients 2 every 50ms keys 2\nat 1s cut n5 -> n1");
    assert!(outcome.marks[0].label.starts_with("n5 leads"), "the script is about the leader");
    let late = |event: &Value| {
        event["t"].as_u64() > Some(1_500_000_000) && event["k"] == "send" && event["lost"].is_null()
    };
    assert_eq!(count(&events, |event| late(event) && event["from"] == "n5" && event["to"] == "n1"), 0);
    assert!(count(&events, |event| late(event) && event["from"] == "n1" && event["to"] == "n5") > 0);
}

#[test]
fn a_paused_leader_is_replaced_and_serves_no_stale_read_when_it_goes_on() {
    let outcome = run("for 5s\nclients 4 every 20ms keys 1\nat 1s pause leader\nat 3s resume all");
    assert!(outcome.passed(), "{outcome}");
    assert!(outcome.counts.elections >= 2);
}

#[test]
fn fast_slow_and_jumping_clocks_are_borne() {
    let outcome = run(&format!(
        "{BUSY}\nat 500ms clock n1 rate 2\nat 500ms clock n2 rate 0.5\nat 1s clock n3 jump 3s\nat 1500ms timeout follower"
    ));
    assert!(outcome.passed(), "{outcome}");
}

#[test]
fn a_stalled_disk_costs_a_leader_its_office() {
    let outcome = run(
        "for 7s\nclients 2 every 20ms keys 2\nexpect progress within 20 elections\nat 1s disk leader stall 4s",
    );
    assert!(outcome.passed(), "{outcome}");
    assert!(outcome.counts.elections >= 2, "{outcome}");
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let lines = "for 5s\nsegment 4096\nclients 4 every 10ms keys 2\nexpect progress within 10 elections\nat 1s disk all full\nat 2s disk all clear";
    let (outcome, events) = traced(lines);
    assert!(outcome.passed(), "{outcome}");
    assert!(count(&events, |event| event["k"] == "disk" && event["op"] == "full") >= 1);
    assert!(outcome.counts.failed > 0, "{outcome}");
}

#[test]
fn a_failed_sync_stops_the_member() {
    let outcome = run("for 4s\nclients 2 every 20ms keys 2\nat 1s disk n1 fail\nat 2s restart n1");
    assert!(outcome.passed(), "{outcome}");
    assert_eq!((outcome.counts.crashes, outcome.counts.restarts), (1, 1));
}

#[test]
fn torn_and_lost_writes_are_recovered_from() {
    let mut torn = 0;
    for seed in 0..20 {
        let lines = format!(
            "seed {seed}\n{BUSY}\ndisk 5ms..20ms\nat 1s disk all tear\nat 1s crash all\nat 1100ms restart all\nat 1800ms disk all lose-unsynced\nat 1800ms crash all\nat 1900ms restart all"
        );
        let (outcome, events) = traced(&lines);
        assert!(outcome.passed(), "{outcome}");
        torn += count(&events, |event| event["op"] == "torn");
    }
    assert!(torn > 0);
}

#[test]
fn rot_in_an_old_record_is_noticed_and_borne() {
    let mut noticed = 0;
    for seed in 0..10 {
        let outcome = run(&format!(
            "seed {seed}\nfor 4s\nclients 2 every 20ms keys 2\nat 2s disk n1 rot\nat 2s crash n1\nat 2500ms restart n1"
        ));
        assert!(outcome.passed(), "{outcome}");
        noticed += outcome.counts.damaged + outcome.counts.refused;
    }
    assert!(noticed >= 5, "{noticed}");
}

#[test]
fn a_member_that_comes_back_behind_the_logs_beginning_is_sent_a_snapshot() {
    let mut snapshots = 0;
    for seed in 0..6 {
        let outcome = run(&format!(
            "seed {seed}\nsegment 8192\nfor 6s\nclients 4 every 5ms keys 3\nat 500ms crash n3\nat 3s restart n3\nat 4s crash all\nat 4200ms restart all"
        ));
        assert!(outcome.passed(), "{outcome}");
        snapshots += outcome.marks.iter().filter(|mark| mark.kind == "snapshot").count();
    }
    assert!(snapshots >= 6, "{snapshots}");
}

#[test]
fn a_lost_disk_is_not_taken_for_a_new_one() {
    let outcome = run("for 4s\nclients 2 every 20ms keys 2\nat 2s disk n1 wipe\nat 2500ms restart n1");
    assert!(outcome.passed(), "{outcome}");
    assert_eq!(outcome.counts.refused, 1);
}

#[test]
fn disks_that_lie_on_a_quorum_are_found() {
    let outcome =
        run("for 4s\nclients 2 every 20ms keys 2\nat 1s disk n1 lie\nat 1s disk n2 lie\nat 1s disk n3 lie");
    assert!(!outcome.verdict.safe);
    assert_eq!(outcome.verdict.violations[0].promise, "durability", "{outcome}");
}

#[test]
fn one_lying_disk_is_found_out_when_its_member_comes_back() {
    let outcome =
        run("for 4s\nclients 2 every 20ms keys 2\nat 1s disk n1 lie\nat 3s crash n1\nat 3100ms restart n1");
    assert!(
        outcome.verdict.violations.iter().any(|violation| violation.promise == "durability"),
        "{outcome}"
    );
}

#[test]
fn loss_repetition_and_overtaking_are_borne() {
    for transport in ["streams\nloss 2%", "datagrams\nloss 10%\nduplicate 10%\nreorder 20%"] {
        let outcome = run(&format!("{BUSY}\ntransport {transport}"));
        assert!(outcome.passed(), "{outcome}");
        assert!(outcome.counts.lost > 10);
    }
}

#[test]
fn a_message_is_lost_by_its_number() {
    let base = "for 2s\ntransport datagrams\nlatency 20ms\nclients 1 every 50ms keys 1";
    let (_, events) = traced(base);
    let flying = |event: &&Value| {
        event["k"] == "send" && (1_000_000_000..1_010_000_000).contains(&event["t"].as_u64().expect("a time"))
    };
    let message = events.iter().find(flying).expect("something is sent")["m"].as_u64().expect("a number");
    let (_, events) = traced(&format!("{base}\nat 1011ms lose m{message}\nat 1012ms lose m{message}"));
    assert_eq!(count(&events, |event| event["k"] == "drop" && event["m"] == message), 1);
    assert_eq!(count(&events, |event| event["k"] == "recv" && event["m"] == message), 0);
    assert_eq!(count(&events, |event| event["k"] == "note"), 1, "the second time it is not on its way");
}

#[test]
fn operations_by_hand_are_part_of_the_history() {
    let outcome = run("for 3s\nat 1s put colour blue on n2\nat 2s get colour on n4");
    assert!(outcome.passed(), "{outcome}");
    let read = &outcome.history.operations[1];
    assert_eq!(read.call.to_string(), "get colour");
    assert!(format!("{:?}", read.outcome).contains("blue"), "{:?}", read.outcome);
}

#[test]
fn clusters_of_every_size_run() {
    for nodes in 1..=15 {
        let outcome = run(&format!("nodes {nodes}\n{BUSY}\nat 1s crash leader\nat 1500ms recover"));
        assert!(outcome.passed(), "{outcome}");
    }
}

#[test]
fn the_outcome_is_told_in_plain_words_and_in_json() {
    let outcome = run("for 2s\nclients 1 every 50ms keys 1");
    let text = outcome.to_string();
    for part in [
        "5 members of raft, 2s of virtual time, seed 1",
        "leads term 1",
        "entries committed",
        "every promise of safety was kept",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let json = serde_json::to_value(&outcome).expect("JSON");
    assert_eq!(json["verdict"]["safe"], true);
    assert_eq!(json["hash"].as_str().map(str::len), Some(16));
}

#[test]
fn an_unknown_protocol_is_refused_by_name() {
    let error = synod_sim::run(&script("protocol rumour"), &mut NoTrace).expect_err("there is none");
    assert_eq!(
        error.to_string(),
        "there is no protocol `rumour`; there is: raft, multi-paxos, zab, viewstamped"
    );
}
