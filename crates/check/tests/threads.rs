//! A verdict and all its evidence are the same, however many threads decide the parts.

mod common;

use common::{Random, simulated};
use serde_json::Value;
use synod_check::history::{Call, Header, History, Outcome, Reply};
use synod_check::linearizable::{Limits, Verdict, check, verify};
use synod_check::model::KeyValue;

const KEYS: u64 = 8;

fn call(random: &mut Random, key: &str) -> Call {
    let value = |random: &mut Random| Value::from(random.below(4));
    match random.below(4) {
        0 => Call::put(key, value(random)),
        1 => Call::cas(key, value(random), value(random)),
        _ => Call::get(key),
    }
}

/// Keys that were used at the same time, each by clients of its own; in some of them one answer is wrong.
fn many_keys(random: &mut Random, wrong_one_in: u64) -> History {
    let mut all = History { header: Header::new("kv"), operations: Vec::new(), notes: Vec::new() };
    for number in 0..KEYS {
        let key = format!("k{number}");
        let answer = |state: &Value, call: &Call| match &*call.op {
            "get" => Reply::value(state.clone()),
            "cas" => Reply::value(call.expect.as_ref() == Some(state)),
            _ => Reply::none(),
        };
        let call = |random: &mut Random, _| call(random, &key);
        let (size, header) = ((5, 300 + number as usize), Header::new("kv"));
        let mut own = simulated(&KeyValue::new(), header, random, size, true, &call, &answer).operations;
        if random.one_in(wrong_one_in) {
            let read = own.iter_mut().filter(|operation| &*operation.call.op == "get").nth(60);
            read.expect("a third are reads").outcome = Outcome::Ok(Reply::value(99));
        }
        for operation in &mut own {
            operation.invoked.order = operation.invoked.order * KEYS + number;
            if let Some(returned) = &mut operation.returned {
                returned.order = returned.order * KEYS + number;
            }
        }
        all.operations.append(&mut own);
    }
    all.operations.sort_by_key(|operation| operation.invoked.order);
    // A read that never returned was answered above.
    all.operations
        .retain(|operation| !matches!(operation.outcome, Outcome::Ok(_)) || operation.returned.is_some());
    all
}

#[test]
fn the_answer_does_not_depend_on_the_number_of_threads() {
    let mut verdicts = [0; 3];
    for seed in 0..60 {
        let history = many_keys(&mut Random(seed), 12);
        let configurations_max = if seed % 3 == 0 { 120 } else { 50_000_000 };
        let with = |threads_max| {
            let limits = Limits { configurations_max, threads_max, ..Limits::default() };
            check(&KeyValue::new(), &history, &limits, &mut || false).expect("key-value operations")
        };
        let one = with(1);
        for threads in [2, 3, 16] {
            assert_eq!(format!("{one:?}"), format!("{:?}", with(threads)), "seed {seed}, {threads} threads");
        }
        match &one.verdict {
            Verdict::Yes(witness) => {
                verify(&KeyValue::new(), &history, witness).expect("a witness replays");
                verdicts[0] += 1;
            }
            Verdict::No(_) => verdicts[1] += 1,
            Verdict::Unknown(_) => verdicts[2] += 1,
        }
    }
    println!("yes, no, unknown: {verdicts:?}");
    assert!(verdicts.iter().all(|count| *count >= 5), "each verdict comes up: {verdicts:?}");
}

#[test]
fn a_caller_that_says_stop_is_heard_while_others_work() {
    let history = many_keys(&mut Random(1), u64::MAX);
    let limits = Limits { threads_max: 4, ..Limits::default() };
    let asked = std::cell::Cell::new(0u32);
    // On one thread the search asks; with more of them the caller's own thread does, and may come too late.
    let one = Limits { threads_max: 1, ..limits };
    let stop = &mut || {
        asked.set(asked.get() + 1);
        true
    };
    let report = check(&KeyValue::new(), &history, &one, stop).expect("key-value operations");
    assert!(matches!(report.verdict, Verdict::Unknown(_)) && asked.get() > 0, "{}", report.verdict);
    let report = check(&KeyValue::new(), &history, &limits, &mut || true).expect("key-value operations");
    assert!(!report.verdict.is_no(), "{}", report.verdict);
}
