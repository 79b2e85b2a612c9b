//! Weak keyspaces of members that are killed.

mod common;

use common::keyspaces::{Api, Session, value};
use common::processes::Processes;
use common::*;
use rustix::process::Signal;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Not a test of its own: what the processes below run.
#[test]
fn be_a_member() {
    processes::be_a_member();
}

/// Writes one key after the other until the member is gone, and gives how many were acknowledged.
fn write_until(
    endpoint: String,
    space: &'static str,
    writer: String,
    stop: Arc<AtomicBool>,
) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let (mut api, mut acknowledged) = (Api::to(&endpoint), 0);
        while !stop.load(Ordering::Relaxed) {
            let key = format!("{writer}-{acknowledged}");
            if api.try_put(space, &key, "v").is_none() {
                break;
            }
            acknowledged += 1;
        }
        acknowledged
    })
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_all_are_killed_at_once_in_the_middle_of_writing() {
    let mut processes = Processes::start("raft", 3);
    processes.leader(&[0, 1, 2]);
    for (space, model) in [("feed", "causal"), ("cache", "eventual")] {
        let path = format!("/v1/keyspaces/{space}");
        until("the keyspace is made", || {
            let mut api = Api::to(&processes.endpoint(0));
            let made = api.ask("PUT", &path, &Session::default(), Some(&json!({ "model": model })));
            (made.0 < 300).then_some(())
        });
        for i in 0..3 {
            begun(&processes.endpoint(i), space);
        }
    }
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for (i, space) in (0..3).flat_map(|i| [(i, "feed"), (i, "cache")]) {
            for writer in 0..2 {
                let name = format!("{round}-{i}-{writer}");
                let thread = write_until(processes.endpoint(i), space, name.clone(), Arc::clone(&stop));
                writers.push((i, space, name, thread));
            }
        }
        thread::sleep(Duration::from_millis(300));
        (0..3).for_each(|i| processes.signal(i, Signal::KILL));
        stop.store(true, Ordering::Relaxed);
        for (i, space, name, thread) in writers {
            acknowledged.push((i, space, name, thread.join().expect("no writer panics")));
        }
        for i in 0..3 {
            processes.kill(i);
            processes.up(i);
        }
        for i in 0..3 {
            until("it is back", || leader_name(&processes.endpoint(i)));
            ["feed", "cache"].into_iter().for_each(|space| begun(&processes.endpoint(i), space));
        }
        for (i, space, name, count) in &acknowledged {
            // Where it was acknowledged it is there at once; elsewhere it may not have arrived.
            let mut api = Api::to(&processes.endpoint(*i));
            for number in 0..*count {
                let found = api.get(space, &format!("{name}-{number}"), &mut Session::default());
                assert_eq!(found, value("v"), "{name}-{number} of {count} in {space} at n{}", i + 1);
            }
        }
    }
    let all: u64 = acknowledged.iter().map(|(.., count)| count).sum();
    assert!(all > 300, "only {all} writes were acknowledged");
    for space in ["feed", "cache"] {
        until("all show the same", || {
            let digest = |i: usize| Api::to(&processes.endpoint(i)).figures(space)["digest"].clone();
            (digest(0) == digest(1) && digest(1) == digest(2)).then_some(())
        });
    }
}

fn begun(endpoint: &str, space: &str) {
    until("it has begun", || (Api::to(endpoint).figures(space)["standing"] == "member").then_some(()));
}
