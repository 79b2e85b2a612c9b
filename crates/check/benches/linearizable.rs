//! How long verdicts take: `cargo bench -p synod-check`. Each line is one history, checked once.

use std::time::Instant;

use serde_json::Value;
use synod_check::history::{Call, Handle, Header, History, Nanos, Outcome, Recorder, Reply};
use synod_check::linearizable::{Limits, check};
use synod_check::model::{KeyValue, Model};

/// What clients do.
struct Workload {
    name: &'static str,
    operations: u64,
    clients: u64,
    keys: u64,
    /// Written values repeat after so many; `u64::MAX`: never.
    values: u64,
    /// Percent of operations that are `get`, `cas`, `append`; the rest is `put`.
    mix: [u64; 3],
    /// One operation in so many is lost, before or after it took effect; 0: none.
    lost_one_in: u64,
    /// Whether the last read is made to see the first value ever written.
    corrupt: bool,
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "10,000 ops, 10 keys, 10 clients, distinct puts", values: u64::MAX, ..BASE },
    Workload { name: "the same, values repeat, with cas", mix: [40, 30, 0], ..BASE },
    Workload { name: "the same, one op in 100 lost", mix: [40, 30, 0], lost_one_in: 100, ..BASE },
    Workload { name: "the same, one op in 20 lost", mix: [40, 30, 0], lost_one_in: 20, ..BASE },
    Workload { name: "the same, stale read at the end", mix: [40, 30, 0], corrupt: true, ..BASE },
    Workload {
        name: "one in 100 lost and a stale read",
        mix: [40, 30, 0],
        lost_one_in: 100,
        corrupt: true,
        ..BASE
    },
    Workload {
        name: "distinct puts, one in 100 lost, stale read",
        values: u64::MAX,
        lost_one_in: 100,
        corrupt: true,
        ..BASE
    },
    Workload { name: "appends", mix: [50, 0, 50], ..BASE },
    Workload { name: "appends, one in 100 lost", mix: [50, 0, 45], lost_one_in: 100, ..BASE },
    Workload { name: "one key, distinct puts", keys: 1, values: u64::MAX, ..BASE },
    Workload { name: "one key, values repeat, with cas", keys: 1, mix: [40, 30, 0], ..BASE },
    Workload { name: "one key, distinct puts, stale read", keys: 1, values: u64::MAX, corrupt: true, ..BASE },
    Workload {
        name: "one key, 1,000 ops, 20 clients, distinct",
        keys: 1,
        operations: 1000,
        clients: 20,
        values: u64::MAX,
        ..BASE
    },
    Workload {
        name: "one key, 2,000 ops, 20 or so lost, stale read",
        keys: 1,
        operations: 2000,
        lost_one_in: 50,
        values: u64::MAX,
        corrupt: true,
        ..BASE
    },
];

const BASE: Workload = Workload {
    name: "",
    operations: 10_000,
    clients: 10,
    keys: 10,
    values: 5,
    mix: [50, 0, 0],
    lost_one_in: 0,
    corrupt: false,
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn call(random: &mut Random, workload: &Workload, started: u64) -> Call {
    let key = format!("k{}", random.below(workload.keys));
    let value = if workload.values == u64::MAX { started } else { random.below(workload.values) };
    let [get, cas, append] = workload.mix;
    match random.below(100) {
        percent if percent < get => Call::get(&key),
        percent if percent < get + cas => Call::cas(&key, random.below(workload.values), value),
        percent if percent < get + cas + append => Call::append(&key, &format!("{started},")),
        _ if append > 0 => Call::put(&key, ""),
        _ => Call::put(&key, value),
    }
}

/// The history of a correct store whose operations take effect at a random moment while they are open.
fn record(workload: &Workload) -> History {
    enum Open {
        Idle,
        Asked(Handle, Call),
        Answered(Handle, Reply),
    }
    let model = KeyValue::new();
    let mut random = Random(7);
    let mut store: std::collections::BTreeMap<String, Value> = Default::default();
    let mut clients: Vec<Open> = (0..workload.clients).map(|_| Open::Idle).collect();
    let mut recorder = Recorder::new(Header::new("kv"));
    let (mut started, mut time) = (0, 0);
    while started < workload.operations || clients.iter().any(|open| !matches!(open, Open::Idle)) {
        time += 1;
        let client = random.below(workload.clients) as usize;
        let lost = workload.lost_one_in > 0 && random.below(workload.lost_one_in * 2) == 0;
        clients[client] = match std::mem::replace(&mut clients[client], Open::Idle) {
            Open::Idle if started < workload.operations => {
                started += 1;
                let call = call(&mut random, workload, started);
                let handle = recorder.invoke(Nanos(time), &format!("c{client}"), call.clone());
                Open::Asked(handle, call)
            }
            Open::Idle => Open::Idle,
            Open::Asked(handle, _) | Open::Answered(handle, _) if lost => {
                recorder.complete(Nanos(time), handle, Outcome::unknown("lost"));
                Open::Idle
            }
            Open::Asked(handle, call) => {
                let state = store.entry(call.key.as_deref().unwrap_or_default().to_owned()).or_default();
                let reply = match &*call.op {
                    "get" => Reply::value(state.clone()),
                    "cas" => Reply::value(call.expect.as_ref() == Some(&*state)),
                    _ => Reply::none(),
                };
                let (op, answer) = model.decode(&call, Some(&reply)).expect("a key-value operation");
                *state = model.step(state, &op, answer.as_ref()).expect("the store answers as it should");
                Open::Answered(handle, reply)
            }
            Open::Answered(handle, reply) => {
                recorder.complete(Nanos(time), handle, Outcome::Ok(reply));
                Open::Idle
            }
        };
    }
    let mut history = recorder.finish();
    if workload.corrupt {
        corrupt(&mut history);
    }
    history
}

/// Makes a read near the end see what another client first put there, long overwritten; where values
/// repeat, one that was never written.
fn corrupt(history: &mut History) {
    let place = history.operations.iter().rposition(
        |operation| matches!(&operation.outcome, Outcome::Ok(reply) if &*operation.call.op == "get" && reply.value.is_some()),
    );
    let place = place.expect("a read that was answered");
    let key = history.operations[place].call.key.clone();
    let first_put = history.operations.iter().find(|operation| {
        operation.call.key == key
            && &*operation.call.op == "put"
            && matches!(operation.outcome, Outcome::Ok(_))
    });
    let stale = first_put.and_then(|operation| operation.call.value.clone()).expect("a put");
    let repeats =
        history.operations.iter().filter(|operation| operation.call.value.as_ref() == Some(&stale)).count();
    let seen = if repeats > 1 { Value::from(u64::MAX) } else { stale };
    history.operations[place].outcome = Outcome::Ok(Reply::value(seen));
}

fn main() {
    for workload in WORKLOADS {
        let history = record(workload);
        let started = Instant::now();
        let report = check(&KeyValue::of(&history), &history, &Limits::default(), &mut || false);
        let took = started.elapsed();
        let report = report.expect("a key-value history");
        println!(
            "{:<48} {:>9.3} ms  {:>9} configurations {:>7} kB  {}",
            workload.name,
            took.as_secs_f64() * 1e3,
            report.configurations,
            report.bytes_peak / 1000,
            report.verdict
        );
    }
}
