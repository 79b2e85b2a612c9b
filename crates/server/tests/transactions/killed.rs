//! Members as processes that are killed in the middle of transfers: no money is gone at any moment, and no lock stays.

use super::*;
use common::processes::Processes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

on_every_protocol! {
    leaders_are_killed_under_transfers_and_no_money_is_gone;
}

/// Asks whoever is there and follows it to the leader; nothing if that one is gone.
fn try_run(endpoints: &[String], body: &Value) -> Option<Value> {
    let answers = endpoints.iter().filter_map(|endpoint| follow(endpoint, "POST", "/v1/transactions", body));
    answers.filter(|answer| answer.status == 200).map(|answer| answer.json()).next()
}

const ACCOUNTS: [&str; 4] = ["a", "b", "c", "d"];

fn total(read: &Value) -> i64 {
    let values = read["answers"]
        .as_object()
        .expect("answers")
        .values()
        .flat_map(|one| one.as_array().expect("values"));
    values.map(|value| value.as_str().expect("an account").parse::<i64>().expect("a balance")).sum()
}

fn audit() -> Value {
    let gets: Vec<Value> = ACCOUNTS.iter().map(|key| json!({"get": {"key": key}})).collect();
    json!({"branches": [{"participant": "bank1", "work": gets}, {"participant": "bank2", "work": gets}]})
}

/// Transfers both ways while the leader is killed again and again. A killing that meets a transaction between two of
/// its steps is what this is about, and which step is a matter of chance: there are many of both.
fn leaders_are_killed_under_transfers_and_no_money_is_gone(protocol: &str) {
    let mut members = Processes::start(protocol, 3);
    members.lead();
    let endpoints = members.endpoints();
    bank(&endpoints[0], "bank1", &ACCOUNTS);
    bank(&endpoints[0], "bank2", &ACCOUNTS);
    let whole = 2 * 100 * ACCOUNTS.len() as i64;
    let (is_over, commits, reads) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    // While it is set nobody transfers: a read of all accounts may never find all of them unlocked otherwise.
    let is_resting = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (i, account) in ACCOUNTS.iter().enumerate() {
            let (is_over, is_resting, commits, endpoints) = (&is_over, &is_resting, &commits, &endpoints);
            scope.spawn(move || {
                for round in 0i64.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    while is_resting.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    let other = ACCOUNTS[(i + round as usize) % ACCOUNTS.len()];
                    let amount = if round % 2 == 0 { 3 } else { -3 };
                    let ended = try_run(endpoints, &transfer(account, other, amount));
                    match ended {
                        Some(ended) if ended["decision"] == "commit" => {
                            commits.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(_) => {}
                        None => std::thread::sleep(Duration::from_millis(50)),
                    }
                }
            });
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if let Some(read) = try_run(&endpoints, &audit()).filter(|read| read["decision"] == "commit")
                {
                    assert_eq!(total(&read), whole, "money is gone or made: {read}");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for _ in 0..4 {
            let before = commits.load(Ordering::Relaxed);
            let begun = Instant::now();
            while commits.load(Ordering::Relaxed) < before + 10 && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
            if commits.load(Ordering::Relaxed) < before + 10 {
                is_over.store(true, Ordering::Relaxed);
                panic!("no progress: {} transfers are committed", before);
            }
            let leader = members.lead();
            members.kill(leader);
            members.lead();
            members.up(leader);
            let (before, begun) = (reads.load(Ordering::Relaxed), Instant::now());
            is_resting.store(true, Ordering::Relaxed);
            while reads.load(Ordering::Relaxed) == before && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
            is_resting.store(false, Ordering::Relaxed);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    members.lead();
    let read = until("every account can be read", || {
        try_run(&endpoints, &audit()).filter(|read| read["decision"] == "commit")
    });
    assert_eq!(total(&read), whole, "{read}");
    until("no transaction is open, and no lock is held", || {
        let open = exchange(&endpoints[members.lead()], "GET", "/v1/transactions", &[], "")?;
        (open.status == 200 && open.json()["transactions"] == json!([])).then_some(())
    });
    let (commits, reads) = (commits.into_inner(), reads.into_inner());
    println!("{protocol}: {commits} transfers and {reads} reads of all accounts across 4 leaders killed");
    assert!(reads >= 4, "one after each kill");
}
