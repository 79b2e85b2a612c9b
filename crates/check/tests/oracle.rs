//! The search against brute force, on many small random histories, valid, corrupted and arbitrary.

use serde_json::Value;
use synod_check::history::{Call, Handle, Header, History, Nanos, Operation, Outcome, Recorder, Reply};
use synod_check::linearizable::{Contradiction, Limits, Verdict, check, verify};
use synod_check::model::{KeyValue, Model};

/// SplitMix64: a small named generator, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// An operation as brute force sees it. `ret` is `u64::MAX` if it need not return, and may be left out.
#[derive(Clone)]
struct Item {
    call: Call,
    reply: Option<Reply>,
    invoke: u64,
    ret: u64,
}

/// All but the failed operations, with their indices in the history.
fn items(history: &History) -> Vec<(usize, Item)> {
    let item = |(index, operation): (usize, &Operation)| {
        let (reply, ret) = match &operation.outcome {
            Outcome::Fail { .. } => return None,
            Outcome::Unknown { .. } => (None, u64::MAX),
            Outcome::Ok(reply) => (Some(reply.clone()), operation.returned.expect("ok").order),
        };
        Some((index, Item { call: operation.call.clone(), reply, invoke: operation.invoked.order, ret }))
    };
    history.operations.iter().enumerate().filter_map(item).collect()
}

/// Tries every order of every choice of operations. Shares nothing with the search but the model.
fn brute_force(model: &KeyValue, items: &[Item]) -> bool {
    fn extend(model: &KeyValue, rest: &[Item], state: &Value) -> bool {
        rest.iter().all(|item| item.ret == u64::MAX)
            || (0..rest.len()).any(|first| {
                let item = &rest[first];
                if rest.iter().any(|other| other.ret < item.invoke) {
                    return false;
                }
                let (op, answer) =
                    model.decode(&item.call, item.reply.as_ref()).expect("a key-value operation");
                let mut others = rest.to_vec();
                others.remove(first);
                model.step(state, &op, answer.as_ref()).is_some_and(|next| extend(model, &others, &next))
            })
    }
    extend(model, items, &model.init())
}

/// Keys one by one, which is right by locality; also divides the cost.
fn brute_force_history(history: &History) -> bool {
    ["x", "y"].iter().all(|key| {
        let own = items(history).into_iter().filter(|(_, item)| item.call.key.as_deref() == Some(key));
        brute_force(&KeyValue::of(history), &own.map(|(_, item)| item).collect::<Vec<Item>>())
    })
}

fn call(random: &mut Random, keys: u64, values: u64, appends: bool) -> Call {
    let key = ["x", "y"][random.below(keys) as usize];
    let value = |random: &mut Random| format!("{}", (b'a' + random.below(values) as u8) as char);
    match random.below(10) {
        0..4 => Call::get(key),
        4..6 => Call::put(key, value(random)),
        6 => Call::delete(key),
        7 if appends => Call::append(key, &value(random)),
        _ => match random.below(3) {
            0 => Call::cas(key, Value::Null, value(random)),
            _ => Call::cas(key, value(random), value(random)),
        },
    }
}

/// Runs clients against a real store that takes each operation's effect at a random moment between
/// invocation and return, so the history is linearizable; then perhaps corrupts an answer.
fn simulated(random: &mut Random, clients: usize, operations: usize, keys: u64, lossy: bool) -> History {
    struct Open {
        handle: Handle,
        call: Call,
        reply: Option<Reply>,
    }
    let model = KeyValue::new();
    let mut store = [Value::Null, Value::Null];
    let mut open: Vec<Option<Open>> = (0..clients).map(|_| None).collect();
    let mut recorder = Recorder::new(Header::new("kv"));
    let (mut started, mut time) = (0, 0);
    while started < operations || open.iter().any(Option::is_some) {
        time += 1;
        let client = random.below(clients as u64) as usize;
        match open[client].take() {
            None if started < operations => {
                started += 1;
                let call = call(random, keys, 3, true);
                let handle = recorder.invoke(Nanos(time), &format!("c{client}"), call.clone());
                open[client] = Some(Open { handle, call, reply: None });
            }
            None => {}
            Some(Open { handle, call, reply: None }) => {
                if lossy && random.one_in(5) {
                    if random.one_in(2) {
                        recorder.complete(Nanos(time), handle, Outcome::unknown("lost"));
                    } else {
                        recorder.complete(Nanos(time), handle, Outcome::fail("refused"));
                    }
                    continue;
                }
                let state = &mut store[usize::from(call.key.as_deref() == Some("y"))];
                let reply = match &*call.op {
                    "get" => Reply::value(state.clone()),
                    "cas" => Reply::value(call.expect.as_ref() == Some(&*state)),
                    "delete" => Reply::value(!state.is_null()),
                    _ => Reply::none(),
                };
                let (op, answer) = model.decode(&call, Some(&reply)).expect("a key-value operation");
                *state = model.step(state, &op, answer.as_ref()).expect("the store answers as it should");
                open[client] = Some(Open { handle, call, reply: Some(reply) });
            }
            Some(Open { handle, reply: Some(reply), .. }) => {
                let lost = lossy && random.one_in(6);
                let outcome = if lost { Outcome::unknown("lost") } else { Outcome::Ok(reply) };
                recorder.complete(Nanos(time), handle, outcome);
            }
        }
    }
    recorder.finish()
}

/// Changes one answer, and perhaps who was lost.
fn corrupt(random: &mut Random, history: &mut History) {
    let Some(operation) = history
        .operations
        .iter_mut()
        .filter(|operation| matches!(&operation.outcome, Outcome::Ok(reply) if reply.value.is_some()))
        .max_by_key(|_| random.next())
    else {
        return;
    };
    let Outcome::Ok(reply) = &mut operation.outcome else { unreachable!("filtered above") };
    reply.value = match reply.value.take() {
        Some(Value::Bool(answer)) => Some(Value::Bool(!answer)),
        _ if random.one_in(4) => Some(Value::Null),
        _ => Some(["a", "b", "c", "ab"][random.below(4) as usize].into()),
    };
}

/// The evidence of a "no", by brute force: the operations that it names have no order up to the cut,
/// whatever all others did, and the prefix holds all that returned before.
fn assert_contradicts(history: &History, no: &Contradiction) {
    let model = KeyValue::of(history);
    let cut = history.operations[no.blocked.0].returned.expect("it returned").order;
    let until_cut = |keeps: &dyn Fn(usize) -> bool| -> Vec<Item> {
        let of_part =
            items(history).into_iter().filter(|(_, item)| item.call.key.as_deref() == no.part.as_deref());
        of_part
            .filter(|(_, item)| item.invoke < cut)
            // A free operation may have any answer, save that one which changed nothing still changes nothing.
            .filter(|(index, item)| {
                let failed_cas = &*item.call.op == "cas" && item.reply == Some(Reply::value(false));
                keeps(*index) || !failed_cas
            })
            .map(|(index, item)| match keeps(index) {
                true => Item { ret: if item.ret > cut { u64::MAX } else { item.ret }, ..item },
                false => Item { invoke: 0, ret: u64::MAX, reply: None, ..item },
            })
            .collect()
    };
    let names = |index: usize| no.operations.iter().any(|named| named.0 == index);
    assert!(!brute_force(&model, &until_cut(&names)), "this is no contradiction:\n{}", no.explanation);
    let Some(prefix) = &no.prefix else { return };
    let prefix: Vec<usize> = prefix.iter().map(|index| index.0).collect();
    for (index, item) in items(history) {
        let due = item.ret < cut && item.call.key.as_deref() == no.part.as_deref();
        assert!(!due || prefix.contains(&index), "the prefix lacks operation {index}");
    }
}

fn agree(seed: u64, history: &History) -> bool {
    let model = KeyValue::of(history);
    let report = check(&model, history, &Limits::default(), &mut || false).expect("key-value operations");
    let expected = brute_force_history(history);
    let shown = || {
        let mut text = Vec::new();
        history.write(&mut text).expect("memory takes all");
        String::from_utf8(text).expect("JSON")
    };
    match &report.verdict {
        Verdict::Yes(witness) => {
            assert!(expected, "seed {seed}: the search says yes\n{}", shown());
            if let Err(problem) = verify(&model, history, witness) {
                panic!("seed {seed}: {problem}\n{}", shown());
            }
        }
        Verdict::No(no) => {
            assert!(!expected, "seed {seed}: the search says no\n{}{}", shown(), no.explanation);
            assert!(no.minimal && no.operations.contains(&no.blocked), "seed {seed}\n{}", shown());
            assert_contradicts(history, no);
        }
        Verdict::Unknown(unknown) => panic!("seed {seed}: {unknown:?}\n{}", shown()),
    }
    expected
}

/// Agreement over `count` seeds; both verdicts must come up often, or the test would show little.
fn campaign(first_seed: u64, count: u64, both: bool, history: impl Fn(&mut Random) -> History) {
    let valid =
        (first_seed..first_seed + count).filter(|seed| agree(*seed, &history(&mut Random(*seed)))).count();
    println!("seeds {first_seed}..{}: {valid} linearizable of {count}", first_seed + count);
    if both {
        assert!(valid as u64 > count / 20 && (valid as u64) < count * 19 / 20, "{valid} of {count}");
    } else {
        assert_eq!(valid as u64, count, "a correct store gives linearizable histories");
    }
}

#[test]
fn histories_of_a_correct_store_are_linearizable() {
    campaign(0, 3_000, false, |random| simulated(random, 3, 7, 2, false));
    campaign(10_000, 3_000, false, |random| simulated(random, 4, 7, 1, true));
}

#[test]
fn corrupted_histories_are_judged_as_brute_force_does() {
    campaign(20_000, 6_000, true, |random| {
        let mut history = simulated(random, 3, 7, 1, false);
        corrupt(random, &mut history);
        history
    });
}

#[test]
fn corrupted_histories_with_unknown_outcomes_are_judged_as_brute_force_does() {
    campaign(30_000, 8_000, true, |random| {
        let (clients, keys) = (2 + random.below(4) as usize, 1 + random.below(2));
        let mut history = simulated(random, clients, 7, keys, true);
        corrupt(random, &mut history);
        if random.one_in(2) {
            corrupt(random, &mut history);
        }
        history
    });
}

#[test]
fn mostly_unknown_writes_are_judged_as_brute_force_does() {
    campaign(50_000, 6_000, true, |random| {
        let mut history = simulated(random, 5, 7, 1, true);
        for operation in &mut history.operations {
            if &*operation.call.op != "get" && random.one_in(2) {
                operation.outcome = Outcome::unknown("lost");
            }
        }
        corrupt(random, &mut history);
        history
    });
}

#[test]
fn a_witness_that_is_wrong_is_refused() {
    let mut refused = 0;
    for seed in 0..500 {
        let history = simulated(&mut Random(seed), 3, 7, 1, false);
        let model = KeyValue::of(&history);
        let report =
            check(&model, &history, &Limits::default(), &mut || false).expect("key-value operations");
        let Verdict::Yes(mut witness) = report.verdict else { panic!("seed {seed}: a correct store") };
        let dropped = witness.order.pop().expect("seven operations");
        assert!(verify(&model, &history, &witness).is_err(), "seed {seed}: an operation is missing");
        witness.order.insert(0, dropped);
        refused += usize::from(verify(&model, &history, &witness).is_err());
    }
    assert!(refused > 400, "only {refused} of 500 rotated orders were refused");
}
