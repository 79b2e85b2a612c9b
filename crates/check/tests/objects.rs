//! Every object, and every algorithm that avoids search, against brute force on small random histories.

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::{Random, brute_force, entries, shown, simulated};
use serde_json::{Value, json};
use synod_check::history::{Call, Header, History, Outcome, Reply};
use synod_check::judge::Object;
use synod_check::linearizable::{Limits, Verdict, check, verify};
use synod_check::model::*;

fn call(op: &str, value: impl Into<Value>) -> Call {
    Call { value: Some(value.into()), ..Call::new(op) }
}

/// How verdicts came out.
#[derive(Default)]
struct Tally {
    yes: u64,
    no: u64,
    shortcuts: u64,
    minimal: u64,
}

/// Judges a history and holds the verdict against brute force, and the evidence against replay.
fn agree<M: Model>(model: &M, history: &History, tally: &mut Tally) {
    let report = check(model, history, &Limits::default(), &mut || false)
        .unwrap_or_else(|error| panic!("{error}\n{}", shown(history)));
    let all = entries(model, history);
    let rest: Vec<&Entry<M>> = all.iter().map(|(_, entry)| entry).collect();
    let expected = brute_force(model, &rest, &model.init());
    tally.shortcuts += u64::from(report.shortcuts > 0);
    match &report.verdict {
        Verdict::Yes(witness) => {
            assert!(expected, "the checker says yes, brute force no\n{}", shown(history));
            verify(model, history, witness).unwrap_or_else(|problem| panic!("{problem}\n{}", shown(history)));
            tally.yes += 1;
        }
        Verdict::No(no) => {
            assert!(!expected, "the checker says no, brute force yes\n{}{}", shown(history), no.explanation);
            assert!(no.operations.contains(&no.blocked) || !no.minimal, "{}", shown(history));
            tally.no += 1;
            tally.minimal += u64::from(no.minimal);
        }
        Verdict::Unknown(unknown) => panic!("{unknown:?}\n{}", shown(history)),
    }
}

/// Gives one answered operation the answer of another, or one made up.
fn corrupt(random: &mut Random, history: &mut History, made_up: &dyn Fn(&mut Random) -> Value) {
    let answers: Vec<usize> = (0..history.operations.len())
        .filter(|index| {
            matches!(&history.operations[*index].outcome, Outcome::Ok(reply) if reply.value.is_some())
        })
        .collect();
    if answers.is_empty() {
        return;
    }
    let place = answers[random.below(answers.len() as u64) as usize];
    if let Outcome::Ok(reply) = &mut history.operations[place].outcome
        && random.one_in(4)
        && let Some(revision) = reply.more.get("revision").and_then(Value::as_i64)
    {
        reply.more.insert("revision".into(), (revision + 1 - 2 * random.below(2) as i64).into());
        return;
    }
    if let Outcome::Ok(reply) = &mut history.operations[place].outcome
        && let Some(Value::Array(results)) = reply.more.get_mut("results")
    {
        let at = random.below(results.len() as u64 + 1) as usize;
        match results.get_mut(at) {
            Some(Value::Bool(done)) => *done = !*done,
            Some(Value::Array(items)) => drop(items.pop()),
            Some(Value::Object(fields)) => drop(fields.insert("value".into(), random.below(7).into())),
            _ => {
                // Whether its comparisons held, and so which branch was taken.
                reply.more.remove("results");
                reply.value = reply.value.as_ref().and_then(Value::as_bool).map(|held| Value::Bool(!held));
            }
        }
        return;
    }
    let value = if random.one_in(2) {
        let from = answers[random.below(answers.len() as u64) as usize];
        let Outcome::Ok(reply) = &history.operations[from].outcome else { return };
        reply.value.clone().expect("chosen above")
    } else {
        made_up(random)
    };
    if let Outcome::Ok(reply) = &mut history.operations[place].outcome
        && std::mem::discriminant(&value) == std::mem::discriminant(reply.value.as_ref().expect("above"))
    {
        reply.value = Some(value);
    }
}

struct Campaign<'a, M: Model> {
    model: M,
    header: Header,
    seeds: std::ops::Range<u64>,
    call: &'a dyn Fn(&mut Random, usize) -> Call,
    answer: &'a dyn Fn(&M::State, &Call) -> Reply,
    made_up: &'a dyn Fn(&mut Random) -> Value,
    /// Whether it must come up that no search was needed.
    shortcuts: bool,
    /// Whether contradictions can be made short.
    strands: bool,
}

impl<M: Model> Campaign<'_, M> {
    fn run(&self) {
        let mut tally = Tally::default();
        for seed in self.seeds.clone() {
            let random = &mut Random(seed);
            let (clients, operations) = (2 + random.below(3) as usize, 3 + random.below(5) as usize);
            let lossy = random.one_in(2);
            let mut history = simulated(
                &self.model,
                self.header.clone(),
                random,
                (clients, operations),
                lossy,
                self.call,
                self.answer,
            );
            for _ in 0..random.below(3) {
                corrupt(random, &mut history, self.made_up);
            }
            agree(&self.model, &history, &mut tally);
        }
        let Tally { yes, no, shortcuts, minimal } = tally;
        println!("{}: {yes} yes, {no} no, {shortcuts} without search, {minimal} minimal", self.header.object);
        assert!(yes > 200 && no > 200, "both verdicts must come up");
        assert!(!self.shortcuts || shortcuts > (yes + no) / 3, "the shortcut must apply");
        assert!(!self.strands || minimal > no * 9 / 10, "contradictions must be minimal");
    }
}

#[test]
fn registers_with_distinct_values() {
    Campaign {
        model: KeyValue::new(),
        header: Header::new("register"),
        seeds: 0..6_000,
        call: &|random, number| if random.one_in(2) { Call::new("read") } else { call("write", number) },
        answer: &|state, call| if &*call.op == "read" { Reply::value(state.clone()) } else { Reply::none() },
        made_up: &|random| random.below(8).into(),
        shortcuts: true,
        strands: true,
    }
    .run();
}

fn take(state: &VecDeque<Value>, next: Option<&Value>, call: &Call) -> Reply {
    match &*call.op {
        "dequeue" | "pop" => Reply::value(next.filter(|_| !state.is_empty()).cloned().unwrap_or(Value::Null)),
        _ => Reply::none(),
    }
}

#[test]
fn queues_with_distinct_values() {
    Campaign {
        model: Sequence::Queue,
        header: Header::new("queue"),
        seeds: 0..12_000,
        call: &|random, number| if random.one_in(2) { Call::new("dequeue") } else { call("enqueue", number) },
        answer: &|state, call| take(state, state.front(), call),
        made_up: &|random| random.below(8).into(),
        shortcuts: true,
        strands: true,
    }
    .run();
}

#[test]
fn queues_with_values_that_repeat() {
    Campaign {
        model: Sequence::Queue,
        header: Header::new("queue"),
        seeds: 0..2_000,
        call: &|random, _| {
            if random.one_in(2) { Call::new("dequeue") } else { call("enqueue", random.below(3)) }
        },
        answer: &|state, call| take(state, state.front(), call),
        made_up: &|random| random.below(4).into(),
        shortcuts: false,
        strands: true,
    }
    .run();
}

#[test]
fn stacks() {
    Campaign {
        model: Sequence::Stack,
        header: Header::new("stack"),
        seeds: 0..16_000,
        call: &|random, number| if random.one_in(2) { Call::new("pop") } else { call("push", number) },
        answer: &|state, call| take(state, state.back(), call),
        made_up: &|random| random.below(8).into(),
        shortcuts: true,
        strands: true,
    }
    .run();
}

#[test]
fn stacks_with_values_that_repeat() {
    Campaign {
        model: Sequence::Stack,
        header: Header::new("stack"),
        seeds: 0..2_000,
        call: &|random, _| if random.one_in(2) { Call::new("pop") } else { call("push", random.below(3)) },
        answer: &|state, call| take(state, state.back(), call),
        made_up: &|random| random.below(4).into(),
        shortcuts: false,
        strands: true,
    }
    .run();
}

fn set_answer(state: &BTreeSet<String>, call: &Call) -> Reply {
    let named = call.value.as_ref().map(Value::to_string).unwrap_or_default();
    match &*call.op {
        "read" => {
            let values = state.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
            Reply::value(values.collect::<Vec<Value>>())
        }
        "contains" | "remove" => Reply::value(state.contains(&named)),
        _ => Reply::none(),
    }
}

#[test]
fn sets_that_grow_and_are_read_as_a_whole() {
    let mut header = Header::new("set");
    header.initial = json!([100]);
    let model = Set::of(&synod_check::history::Recorder::new(header.clone()).finish());
    Campaign {
        model,
        header,
        seeds: 0..10_000,
        call: &|random, number| if random.one_in(2) { Call::new("read") } else { call("add", number) },
        answer: &set_answer,
        made_up: &|random| {
            let mut values: Vec<u64> = (0..random.below(4)).map(|_| random.below(6)).collect();
            values.sort();
            values.dedup();
            if !random.one_in(6) {
                values.push(100);
            }
            json!(values)
        },
        shortcuts: true,
        strands: true,
    }
    .run();
}

#[test]
fn sets_with_every_operation() {
    Campaign {
        model: Set::default(),
        header: Header::new("set"),
        seeds: 0..4_000,
        call: &|random, _| match random.below(8) {
            0..3 => call("add", random.below(3)),
            3 => call("remove", random.below(3)),
            4..7 => call("contains", random.below(3)),
            _ => Call::new("read"),
        },
        answer: &set_answer,
        made_up: &|random| random.one_in(2).into(),
        shortcuts: false,
        strands: true,
    }
    .run();
}

/// Adds what `amount` says; `says` whether an addition's answer is the new sum.
fn counters(
    about: &str,
    seeds: std::ops::Range<u64>,
    shortcuts: bool,
    amount: &dyn Fn(&mut Random, usize) -> i64,
    says: &dyn Fn(&Call) -> bool,
) {
    let mut campaign = Campaign {
        model: Counter::default(),
        header: Header::new("counter"),
        seeds,
        call: &|random, number| {
            if random.one_in(2) { Call::new("read") } else { call("add", amount(random, number)) }
        },
        answer: &|state, call| match &call.value {
            None => Reply::value(*state),
            Some(added) if says(call) => Reply::value(state + added.as_i64().expect("a number")),
            Some(_) => Reply::none(),
        },
        made_up: &|random| random.below(5).into(),
        shortcuts,
        strands: false,
    };
    campaign.header.about = Some(about.into());
    campaign.run();
}

#[test]
fn counters_of_any_steps() {
    counters("any steps", 0..3_000, false, &|random, _| random.below(3) as i64 - 1, &|_| false);
}

#[test]
fn counters_of_equal_steps() {
    counters("steps of one", 0..10_000, true, &|_, _| 1, &|_| false);
    counters("steps of minus two", 0..4_000, true, &|_, _| -2, &|_| false);
    counters("steps of one, with sums", 0..10_000, true, &|_, _| 1, &|_| true);
}

#[test]
fn counters_whose_answers_are_all_different() {
    let powers = |random: &mut Random, number: usize| [1, -1][random.below(2) as usize] * (1 << number);
    counters("distinct sums", 0..10_000, true, &powers, &|_| true);
}

#[test]
fn etcd_with_revisions() {
    Campaign {
        model: Etcd::of(&synod_check::history::Recorder::new(Header::new("etcd")).finish()),
        header: Header::new("etcd"),
        seeds: 0..16_000,
        call: &|random, number| {
            let key = ["x", "y"][random.below(2) as usize];
            match random.below(6) {
                0..2 => Call::get(key),
                2 => Call::delete(key),
                3 => Call::cas(key, random.below(7), number),
                4 => {
                    let end = ("end".to_owned(), "z".into());
                    Call { key: Some(key.into()), more: [end].into_iter().collect(), ..Call::new("range") }
                }
                // Some values are written twice.
                _ => Call::put(key, number / 2),
            }
        },
        answer: &|state, call| {
            let key = call.key.as_deref().unwrap_or_default();
            let held = state.keys.get(key);
            let value = held.map_or(Value::Null, |held| held.value.clone());
            let versions = |held: &Held| {
                let versions = json!({"create": held.create, "mod": held.modified, "version": held.version});
                versions.as_object().cloned().unwrap_or_default()
            };
            let (mut reply, writes) = match &*call.op {
                "get" => (Reply::value(value), false),
                "range" => {
                    let items = state.keys.range(key.to_owned()..).map(|(key, held)| {
                        let mut item = versions(held);
                        item.extend([
                            ("key".into(), key.as_str().into()),
                            ("value".into(), held.value.clone()),
                        ]);
                        Value::Object(item)
                    });
                    (Reply::value(items.collect::<Vec<Value>>()), false)
                }
                "delete" => (Reply::value(held.is_some()), held.is_some()),
                "put" => (Reply::value("done"), true),
                _ => {
                    let equal = call.expect.as_ref() == Some(&value);
                    (Reply::value(equal), equal)
                }
            };
            // What a key's versions were is said of every other one.
            if let Some(held) = held.filter(|held| &*call.op == "get" && held.modified % 2 == 0) {
                reply.more.extend(versions(held));
            }
            reply.more.insert("revision".into(), (state.revision + i64::from(writes)).into());
            reply
        },
        made_up: &|random| random.below(7).into(),
        shortcuts: true,
        strands: false,
    }
    .run();
}

/// What an operation of a transaction answers, and what it leaves; `all` is what the store holds by then.
fn txn_result(all: &mut BTreeMap<String, Value>, op: &Value) -> Value {
    let key = op[1].as_str().expect("a key").to_owned();
    match op[0].as_str() {
        Some("put") => {
            all.insert(key, op[2].clone());
            Value::Null
        }
        Some("delete") => all.remove(&key).is_some().into(),
        Some("range") => {
            let items = all.range(key..).map(|(key, value)| json!({"key": key, "value": value}));
            items.collect()
        }
        _ => all.get(&key).map_or(Value::Null, |value| json!({"value": value})),
    }
}

#[test]
fn etcd_with_transactions() {
    let ops = |random: &mut Random, number: usize| -> Value {
        match random.below(6) {
            0 => json!([["put", "x", number], ["get", "x"]]),
            1 => json!([["get", "y"], ["put", "y", number], ["delete", "x"]]),
            2 => json!([["delete", "y"]]),
            3 => json!([["get", "x"], ["range", "x", "z"]]),
            4 => json!([["put", "x", number], ["put", "y", number], ["range", "x", "z"]]),
            _ => json!([]),
        }
    };
    Campaign {
        model: Etcd::of(&synod_check::history::Recorder::new(Header::new("etcd")).finish()),
        header: Header::new("etcd"),
        seeds: 0..16_000,
        call: &|random, number| {
            let key = ["x", "y"][random.below(2) as usize];
            match random.below(5) {
                0 => Call::get(key),
                1 => Call::put(key, number),
                _ => {
                    let compare = match random.below(4) {
                        0 => json!([[key, "value", "=", random.below(6)]]),
                        1 => json!([["x", "version", "<", random.below(3)], ["y", "create", "=", 0]]),
                        2 => json!([[key, "mod", ">", 1 + random.below(4)]]),
                        _ => json!([[key, "value", "!=", number]]),
                    };
                    let (then, otherwise) = (ops(random, number), ops(random, number));
                    let more = [("compare", compare), ("then", then), ("else", otherwise)];
                    let more = more.into_iter().map(|(name, value)| (name.to_owned(), value));
                    Call { more: more.collect(), ..Call::new("txn") }
                }
            }
        },
        answer: &|state, call| {
            let mut all: BTreeMap<String, Value> =
                state.keys.iter().map(|(key, held)| (key.clone(), held.value.clone())).collect();
            let (mut reply, changed) = match &*call.op {
                "get" => (
                    Reply::value(all.get(call.key.as_deref().expect("a key")).cloned().unwrap_or_default()),
                    false,
                ),
                "put" => (Reply::value("done"), true),
                _ => {
                    let holds = |comparison: &Value| {
                        let held = state.keys.get(comparison[0].as_str().expect("a key"));
                        let of = |number: fn(&Held) -> i64| held.map_or(0, number);
                        let operand = comparison[3].as_i64().expect("a number");
                        match comparison[1].as_str() {
                            Some("version") => of(|held| held.version) < operand,
                            Some("create") => of(|held| held.create) == operand,
                            Some("mod") => of(|held| held.modified) > operand,
                            _ => held
                                .is_some_and(|held| (held.value == comparison[3]) == (comparison[2] == "=")),
                        }
                    };
                    let held = call.more["compare"].as_array().expect("an array").iter().all(holds);
                    let branch = call.more[if held { "then" } else { "else" }].as_array().expect("an array");
                    let before = all.clone();
                    let results: Value = branch.iter().map(|op| txn_result(&mut all, op)).collect();
                    let puts = branch.iter().any(|op| op[0] == "put");
                    let mut reply = Reply::value(held);
                    reply.more.insert("results".into(), results);
                    (reply, puts || before != all)
                }
            };
            reply.more.insert("revision".into(), (state.revision + i64::from(changed)).into());
            reply
        },
        made_up: &|random| if random.one_in(3) { random.one_in(2).into() } else { random.below(7).into() },
        shortcuts: true,
        strands: false,
    }
    .run();
}

#[test]
fn what_a_transaction_wrote_is_shown_by_all_of_its_keys() {
    let texts = |results: &str, seen: &str| {
        let txn = r#""op":"txn","compare":[["x","version","=",0]],"then":[["put","x","1"],["put","y","2"],["get","x"]]"#;
        format!(
            r#"{{"synod-history":1,"object":""}}
{{"event":"invoke","id":0,"client":"a",{txn}}}
{{"event":"ok","id":0,"value":true,"revision":2{results}}}
{{"event":"invoke","id":1,"client":"a","op":"get","key":"y"}}
{{"event":"ok","id":1,"revision":2,{seen}}}
"#
        )
    };
    let results = |read: &str| format!(r#","results":[null,null,{{"value":{read}}}]"#);
    for (results, seen, holds) in [
        (results("\"1\""), r#""value":"2","mod":2,"version":1"#, true),
        (String::new(), r#""value":"2","create":2"#, true),
        (results("\"0\""), r#""value":"2","mod":2,"version":1"#, false),
        (String::new(), r#""value":"1""#, false),
        (String::new(), r#""value":"2","version":2"#, false),
    ] {
        let text = texts(&results, seen);
        let history = History::read(text.as_bytes(), synod_check::ReadLimits::default()).expect("a history");
        assert_eq!(Object::of(&history), Object::Etcd);
        let report = check(&Etcd::of(&history), &history, &Limits::default(), &mut || false);
        assert_eq!(report.expect("etcd").verdict.is_yes(), holds, "{text}");
    }
    for (bad, words) in [
        (r#""then":[["put","x","1"],["delete","x"]]"#, "is written twice"),
        (r#""compare":[["x","valu","=",1]]"#, "expected [key, "),
        (r#""then":[["increment","x"]]"#, "expected [\"get\", key]"),
        (r#""compare":[["x","value","<",1]]"#, "only texts are less"),
    ] {
        let text = format!(
            "{{\"synod-history\":1,\"object\":\"etcd\"}}\n{{\"event\":\"invoke\",\"id\":0,\"client\":\"a\",\"op\":\"txn\",{bad}}}\n"
        );
        let history = History::read(text.as_bytes(), synod_check::ReadLimits::default()).expect("a history");
        let error = check(&Etcd::of(&history), &history, &Limits::default(), &mut || false).expect_err(&text);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn revisions_that_contradict_each_other_are_named() {
    let line =
        |id: u64, fields: &str| format!("{{\"event\":\"invoke\",\"id\":{id},\"client\":\"c\",{fields}}}\n");
    let put = line(0, "\"op\":\"put\",\"key\":\"x\",\"value\":1");
    let put = put + "{\"event\":\"ok\",\"id\":0,\"revision\":2}\n";
    for (rest, words) in [
        // A value that nobody wrote, and one that was not the latest.
        (",\"value\":7,\"mod\":2,\"revision\":2", "shown otherwise than its last write"),
        (",\"value\":null,\"revision\":3", "shown otherwise than its last write"),
        // Revisions that go backwards.
        (",\"value\":null,\"revision\":1", "its revision is not the earlier one"),
        (",\"value\":null,\"revision\":0", "at revision 1 before the first operation"),
    ] {
        let lost = line(2, "\"op\":\"put\",\"key\":\"y\",\"value\":5");
        let get = line(1, "\"op\":\"get\",\"key\":\"x\"") + "{\"event\":\"ok\",\"id\":1" + rest + "}\n";
        let text = format!("{{\"synod-history\":1,\"object\":\"etcd\"}}\n{put}{lost}{get}");
        let history = History::read(text.as_bytes(), synod_check::ReadLimits::default()).expect("a history");
        let report = check(&Etcd::of(&history), &history, &Limits::default(), &mut || false);
        let Verdict::No(no) = report.expect("etcd").verdict else { panic!("{text}") };
        assert!(no.explanation.contains(words), "{}", no.explanation);
        assert!(no.minimal && no.operations.len() <= 2, "{}", no.explanation);
    }
}

#[test]
fn locks_elections_and_banks_say_what_is_impossible() {
    let history = |object: &str, lines: &str| {
        let text = format!("{{\"synod-history\":1,\"object\":\"{object}\"}}\n{lines}");
        History::read(text.as_bytes(), synod_check::ReadLimits::default()).expect("a history")
    };
    let line = |id: u64, client: &str, op: &str, value: Value| {
        format!(
            "{{\"event\":\"invoke\",\"id\":{id},\"client\":\"{client}\",{op}}}\n{{\"event\":\"ok\",\"id\":{id},\"value\":{value}}}\n"
        )
    };
    let judge = |history: &History, model: &str| {
        let stop = &mut || false;
        let limits = Limits::default();
        match model {
            "mutex" => check(&Lock::mutex(), history, &limits, stop).expect("mutex").verdict.is_yes(),
            "lock" => check(&Lock::fenced(history), history, &limits, stop).expect("lock").verdict.is_yes(),
            "election" => check(&Election, history, &limits, stop).expect("election").verdict.is_yes(),
            _ => check(&Bank::of(history).expect("bank"), history, &limits, stop)
                .expect("bank")
                .verdict
                .is_yes(),
        }
    };
    let acquire = |id, client, token: Value| line(id, client, "\"op\":\"acquire\"", token);
    let twice = acquire(0, "a", Value::Null) + &acquire(1, "b", Value::Null);
    assert!(!judge(&history("mutex", &twice), "mutex"));
    let released = acquire(0, "a", Value::Null)
        + &line(1, "a", "\"op\":\"release\"", Value::Null)
        + &acquire(2, "b", Value::Null);
    assert!(judge(&history("mutex", &released), "mutex"));
    assert!(judge(&history("lock", &(acquire(0, "a", json!(1)) + &acquire(1, "b", json!(2)))), "lock"));
    assert!(!judge(&history("lock", &(acquire(0, "a", json!(2)) + &acquire(1, "b", json!(2)))), "lock"));
    let used = |token: u64, accepted: bool| {
        line(7 + token, "r", &format!("\"op\":\"use\",\"token\":{token}"), json!(accepted))
    };
    assert!(!judge(&history("lock", &(used(2, true) + &used(1, true))), "lock"));
    assert!(judge(&history("lock", &(used(2, true) + &used(1, false))), "lock"));
    let campaign = |id, client, term: Value| line(id, client, "\"op\":\"campaign\"", term);
    let leader = |id, who: &str| line(id, "o", "\"op\":\"leader\"", json!(who));
    assert!(judge(&history("election", &(campaign(0, "a", json!(1)) + &leader(1, "a"))), "election"));
    assert!(!judge(&history("election", &(campaign(0, "a", json!(1)) + &leader(1, "b"))), "election"));
    assert!(!judge(
        &history("election", &(campaign(0, "a", json!(3)) + &campaign(1, "b", json!(3)))),
        "election"
    ));
    let transfer = line(0, "a", "\"op\":\"transfer\",\"from\":\"x\",\"to\":\"y\",\"amount\":5", Value::Null);
    let read = |x: i64, y: i64| line(1, "b", "\"op\":\"read\"", json!({"x": x, "y": y}));
    assert!(judge(&history("bank", &(transfer.clone() + &read(-5, 5))), "bank"));
    assert!(!judge(&history("bank", &(transfer + &read(0, 5))), "bank"));
}
