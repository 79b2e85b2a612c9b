//! Everything weaker than linearizability, and transactions, against brute force by definition.

mod common;

use std::collections::BTreeMap;

use common::{Random, shown};
use serde_json::{Value, json};
use synod_check::answer::Answer;
use synod_check::history::{Call, Handle, Header, History, Nanos, Outcome, Recorder, Reply};
use synod_check::judge::{Consistency, Object, judge};
use synod_check::linearizable::Limits;

/// A transaction as brute force sees it.
#[derive(Clone, Debug)]
struct Txn {
    session: usize,
    /// Function, key, value: what was read, or what is written.
    ops: Vec<(char, usize, Value)>,
    known: bool,
    invoke: u64,
    ret: u64,
}

const KEYS: [&str; 3] = ["x", "y", "z"];

/// Sessions run transactions of random reads and writes on a store that answers mostly rightly; then some reads are changed to
/// other values that were written. `append`: writes append to lists.
fn transactions(random: &mut Random, count: usize, append: bool, single: bool) -> (History, Vec<Txn>) {
    repeating(random, count, append, single, u64::MAX)
}

/// The same, where the values written repeat after so many.
fn repeating(
    random: &mut Random,
    count: usize,
    append: bool,
    single: bool,
    values: u64,
) -> (History, Vec<Txn>) {
    struct Open {
        handle: Handle,
        index: usize,
        done: bool,
    }
    let mut header = Header::new(match (append, single) {
        (true, _) => "list-append",
        (false, true) => "kv",
        (false, false) => "rw-register",
    });
    header.source = Some("test".into());
    let keys = 1 + random.below(2 + u64::from(!append)) as usize;
    let sessions = 2 + random.below(2) as usize;
    let stale = random.below(3);
    let mut recorder = Recorder::new(header);
    let mut store: Vec<Vec<Value>> = vec![vec![if append { json!([]) } else { Value::Null }]; keys];
    let mut txns: Vec<Txn> = Vec::new();
    let mut open: Vec<Option<Open>> = (0..sessions).map(|_| None).collect();
    let (mut time, mut next_value) = (0, 0);
    while txns.len() < count || open.iter().any(Option::is_some) {
        time += 1;
        let session = random.below(sessions as u64) as usize;
        match open[session].take() {
            None if txns.len() < count => {
                let length = if single { 1 } else { 1 + random.below(3) };
                let mut ops = Vec::new();
                for _ in 0..length {
                    let key = random.below(keys as u64) as usize;
                    if random.one_in(2) {
                        next_value += 1;
                        ops.push(('w', key, json!(1 + next_value % values)));
                    } else {
                        ops.push(('r', key, Value::Null));
                    }
                }
                let call = call(&ops, append, single);
                let handle = recorder.invoke(Nanos(time), &format!("s{session}"), call);
                let invoke = recorder.history().operations.last().expect("just invoked").invoked.order;
                open[session] = Some(Open { handle, index: txns.len(), done: false });
                txns.push(Txn { session, ops, known: true, invoke, ret: u64::MAX });
            }
            None => {}
            Some(Open { handle, index, done: false }) => {
                for (function, key, value) in &mut txns[index].ops {
                    let versions = &mut store[*key];
                    let latest = versions.last().expect("never empty").clone();
                    match (*function, append) {
                        ('w', false) => versions.push(value.clone()),
                        ('w', true) => {
                            let mut list = latest.as_array().expect("a list").clone();
                            list.push(value.clone());
                            versions.push(list.into());
                        }
                        _ if random.below(8) < stale => {
                            *value = versions[random.below(versions.len() as u64) as usize].clone();
                        }
                        _ => *value = latest,
                    }
                }
                open[session] = Some(Open { handle, index, done: true });
            }
            Some(Open { handle, index, done: true }) => {
                if random.one_in(10) {
                    txns[index].known = false;
                    recorder.complete(Nanos(time), handle, Outcome::unknown("lost"));
                    continue;
                }
                let ops = &txns[index].ops;
                let reply = match (single, ops[0].0) {
                    (true, 'r') => Reply::value(ops[0].2.clone()),
                    (true, _) => Reply::none(),
                    (false, _) => Reply::value(json(ops, append)),
                };
                recorder.complete(Nanos(time), handle, Outcome::Ok(reply));
                let returned = recorder.history().operations[index].returned.expect("just returned");
                txns[index].ret = returned.order;
            }
        }
    }
    (recorder.finish(), txns)
}

fn json(ops: &[(char, usize, Value)], append: bool) -> Value {
    let name = |function: char| match function {
        'w' if append => "append",
        'w' => "w",
        _ => "r",
    };
    ops.iter().map(|(function, key, value)| json!([name(*function), KEYS[*key], value])).collect()
}

fn call(ops: &[(char, usize, Value)], append: bool, single: bool) -> Call {
    if single {
        let (function, key, value) = &ops[0];
        return if *function == 'w' { Call::put(KEYS[*key], value.clone()) } else { Call::get(KEYS[*key]) };
    }
    let mut call = Call::new("txn");
    call.more.insert("ops".into(), json(ops, append));
    call
}

/// Which order brute force looks for.
#[derive(Clone, Copy)]
struct Wanted {
    sessions: bool,
    real_time: bool,
    snapshots: bool,
    append: bool,
}

type Store = BTreeMap<usize, Value>;

/// Whether the reads of a transaction are right on this store; and the store after it.
fn apply(txn: &Txn, snapshot: &Store, onto: &Store, append: bool) -> Option<Store> {
    let initial = if append { json!([]) } else { Value::Null };
    let (mut view, mut after) = (snapshot.clone(), onto.clone());
    for (function, key, value) in &txn.ops {
        let written = |store: &Store| {
            let now = store.get(key).unwrap_or(&initial);
            match append {
                true => {
                    let mut list = now.as_array().expect("a list").clone();
                    list.push(value.clone());
                    Value::Array(list)
                }
                false => value.clone(),
            }
        };
        if *function == 'w' {
            let (seen, stored) = (written(&view), written(&after));
            view.insert(*key, seen);
            after.insert(*key, stored);
        } else if txn.known && view.get(key).unwrap_or(&initial) != value {
            return None;
        }
    }
    Some(after)
}

/// Tries every order of steps: begin and commit, which come together unless snapshots are wanted.
fn exists(txns: &[Txn], wanted: Wanted) -> bool {
    fn extend(
        txns: &[Txn],
        wanted: Wanted,
        begun: &mut Vec<Option<(Store, u64)>>,
        committed: &mut Vec<Option<u64>>,
        store: &Store,
        clock: u64,
    ) -> bool {
        if (0..txns.len()).all(|t| committed[t].is_some() || !txns[t].known) {
            return true;
        }
        for t in 0..txns.len() {
            if committed[t].is_some() {
                continue;
            }
            if begun[t].is_none() {
                // A session waits for what it knows the outcome of; one of unknown outcome follows its session.
                let before = (0..t).rfind(|p| txns[*p].session == txns[t].session && txns[*p].known);
                let waits = |p: usize| committed[p].is_none();
                if wanted.sessions && before.is_some_and(waits) {
                    continue;
                }
                if wanted.real_time
                    && (0..txns.len()).any(|p| txns[p].known && txns[p].ret < txns[t].invoke && waits(p))
                {
                    continue;
                }
                begun[t] = Some((store.clone(), clock));
                if wanted.snapshots {
                    if extend(txns, wanted, begun, committed, store, clock + 1) {
                        return true;
                    }
                } else if let Some(after) = apply(&txns[t], store, store, wanted.append) {
                    committed[t] = Some(clock);
                    if extend(txns, wanted, begun, committed, &after, clock + 1) {
                        return true;
                    }
                    committed[t] = None;
                }
                begun[t] = None;
            } else if wanted.snapshots {
                let (snapshot, since) = begun[t].clone().expect("begun");
                let writes = |t: usize, key: usize| txns[t].ops.iter().any(|op| op.0 == 'w' && op.1 == key);
                let conflicts = |o: usize| {
                    committed[o].is_some_and(|at| at > since)
                        && (0..KEYS.len()).any(|key| writes(t, key) && writes(o, key))
                };
                if (0..txns.len()).any(conflicts) {
                    continue;
                }
                if let Some(after) = apply(&txns[t], &snapshot, store, wanted.append) {
                    committed[t] = Some(clock);
                    if extend(txns, wanted, begun, committed, &after, clock + 1) {
                        return true;
                    }
                    committed[t] = None;
                }
            }
        }
        false
    }
    extend(txns, wanted, &mut vec![None; txns.len()], &mut vec![None; txns.len()], &Store::new(), 1)
}

#[derive(Default)]
struct Tally {
    models: BTreeMap<&'static str, [u64; 2]>,
    open: u64,
    minimal: u64,
}

impl Tally {
    fn compare(&mut self, history: &History, model: Consistency, expected: bool) {
        let object = Object::of(history);
        let judgement = judge(history, Some(object), Some(model), &Limits::default(), &mut || false)
            .unwrap_or_else(|error| panic!("{error}\n{}", shown(history)));
        let finding = &judgement.findings[0];
        match &finding.answer {
            Answer::Yes(_) => assert!(expected, "{model}: yes, but brute force says no\n{}", shown(history)),
            Answer::No(reason) => {
                assert!(
                    !expected,
                    "{model}: no, but brute force says yes\n{}\n{}",
                    shown(history),
                    finding.explanation
                );
                assert!(
                    !reason.operations.is_empty() && !finding.explanation.is_empty(),
                    "{}",
                    shown(history)
                );
                self.minimal += u64::from(reason.minimal);
            }
            // Appends that nobody read have no known order, which may leave snapshot isolation open.
            Answer::Unknown(why) if why.contains("not read") => return self.open += 1,
            Answer::Unknown(why) => panic!("{model}: {why}\n{}", shown(history)),
        }
        self.models.entry(model.name()).or_default()[usize::from(expected)] += 1;
    }

    fn check(&self, least: u64) {
        println!("{} left open, {} minimal", self.open, self.minimal);
        assert!(self.open < 20, "{} left open", self.open);
        for (model, [no, yes]) in &self.models {
            println!("{model}: {yes} yes, {no} no");
            assert!(*yes >= least && *no >= least, "{model}: both verdicts must come up");
        }
    }
}

/// Some of the transactions, without what their reads show of the others.
fn restricted(txns: &[Txn], kept: &[usize], append: bool) -> Vec<Txn> {
    let wrote = |key: usize, value: &Value| {
        kept.iter().any(|t| txns[*t].ops.iter().any(|op| op.0 == 'w' && op.1 == key && op.2 == *value))
    };
    let part = kept.iter().map(|t| {
        let mut txn = txns[*t].clone();
        if append {
            for (function, key, value) in &mut txn.ops {
                if let Some(list) = value.as_array_mut().filter(|_| *function == 'r') {
                    list.retain(|element| wrote(*key, element));
                }
            }
        } else {
            txn.ops
                .retain(|(function, key, value)| *function == 'w' || value.is_null() || wrote(*key, value));
        }
        txn
    });
    part.collect()
}

/// Whether what was named of a history without this order has none either, and has one without any one of it.
fn assert_minimal(history: &History, txns: &[Txn], model: Consistency, wanted: Wanted) -> bool {
    let judgement = judge(history, None, Some(model), &Limits::default(), &mut || false).expect("known");
    let Answer::No(reason) = &judgement.findings[0].answer else { return false };
    // What a single read shows by itself is not an order.
    if !["Each of", "It would", "The last", "No order"].iter().any(|words| reason.words.starts_with(words)) {
        return false;
    }
    let kept: Vec<usize> = reason.operations.iter().map(|index| index.0).collect();
    let text = || format!("{model}: {}\n{}", shown(history), judgement.findings[0].explanation);
    assert!(reason.minimal && !reason.links.is_empty(), "{}", text());
    assert!(!exists(&restricted(txns, &kept, wanted.append), wanted), "{}", text());
    for left_out in &kept {
        let fewer: Vec<usize> = kept.iter().copied().filter(|t| t != left_out).collect();
        assert!(exists(&restricted(txns, &fewer, wanted.append), wanted), "{left_out}: {}", text());
    }
    true
}

#[test]
fn contradictions_of_transactions_are_minimal() {
    for append in [false, true] {
        let mut shown = 0;
        for seed in 0..3_000 {
            let random = &mut Random(seed + 150_000);
            let count = 3 + random.below(4) as usize;
            let (history, txns) = transactions(random, count, append, false);
            for (model, sessions, real_time, snapshots) in [
                (Consistency::StrictSerializable, true, true, false),
                (Consistency::StrongSessionSerializable, true, false, false),
                (Consistency::Serializable, false, false, false),
                (Consistency::StrongSessionSnapshotIsolation, true, false, true),
            ] {
                let wanted = Wanted { sessions, real_time, snapshots, append };
                shown += u64::from(assert_minimal(&history, &txns, model, wanted));
            }
        }
        println!("{shown} contradictions of transactions, append: {append}");
        assert!(shown > 300, "contradictions must come up, and there were {shown}");
    }
}

fn campaign(seeds: std::ops::Range<u64>, append: bool) {
    let mut tally = Tally::default();
    for seed in seeds {
        let random = &mut Random(seed);
        let count = 2 + random.below(4) as usize;
        let (history, txns) = transactions(random, count, append, false);
        let wanted = |sessions, real_time, snapshots| Wanted { sessions, real_time, snapshots, append };
        tally.compare(&history, Consistency::StrictSerializable, exists(&txns, wanted(true, true, false)));
        tally.compare(
            &history,
            Consistency::StrongSessionSerializable,
            exists(&txns, wanted(true, false, false)),
        );
        tally.compare(&history, Consistency::Serializable, exists(&txns, wanted(false, false, false)));
        tally.compare(
            &history,
            Consistency::StrongSessionSnapshotIsolation,
            exists(&txns, wanted(true, false, true)),
        );
        tally.compare(&history, Consistency::SnapshotIsolation, exists(&txns, wanted(false, false, true)));
    }
    tally.check(100);
}

#[test]
fn list_append_levels_are_those_of_brute_force() {
    campaign(0..3_000, true);
}

#[test]
fn register_transaction_levels_are_those_of_brute_force() {
    campaign(10_000..13_000, false);
}

#[test]
fn weaker_levels_follow_from_stronger_ones() {
    for seed in 0..1_500 {
        let random = &mut Random(seed + 70_000);
        let (append, single) = (random.one_in(2), random.one_in(3));
        let (history, _) = transactions(random, 6, append && !single, single);
        let judgement =
            judge(&history, None, None, &Limits::default(), &mut || false).expect("known operations");
        for stronger in &judgement.findings {
            let alone = |model| {
                let one =
                    judge(&history, None, Some(model), &Limits::default(), &mut || false).expect("known");
                one.findings[0].answer.clone()
            };
            for weaker in judgement.findings.iter().filter(|weaker| stronger.model.is_at_least(weaker.model))
            {
                let holds = !stronger.answer.is_yes() || !alone(weaker.model).is_no();
                assert!(holds, "{} but not {}\n{}", stronger.model, weaker.model, shown(&history));
            }
        }
    }
}

/// Operations as bits.
type Bits = u32;

/// The causal order of single reads and writes: for each, what precedes it. `None`: it has a cycle.
fn causal_pasts(txns: &[Txn]) -> Option<Vec<Bits>> {
    let mut sources = Vec::new();
    for txn in txns {
        let (function, key, value) = &txn.ops[0];
        let wrote = |other: &Txn| other.ops[0].0 == 'w' && other.ops[0].1 == *key && other.ops[0].2 == *value;
        let reads = *function == 'r' && !value.is_null();
        sources.push(if reads { Some(txns.iter().position(wrote)?) } else { None });
    }
    closed_pasts(txns, &sources)
}

/// The same, where it is given from whom each has read.
fn closed_pasts(txns: &[Txn], sources: &[Option<usize>]) -> Option<Vec<Bits>> {
    let mut past: Vec<Bits> = vec![0; txns.len()];
    for (t, txn) in txns.iter().enumerate() {
        let before = (0..t).filter(|p| txns[*p].session == txn.session && txns[*p].known);
        before.for_each(|p| past[t] |= 1 << p);
        past[t] |= sources[t].map_or(0, |from| 1 << from);
    }
    for _ in 0..txns.len() {
        for t in 0..txns.len() {
            past[t] = (0..txns.len()).filter(|p| past[t] & 1 << p != 0).fold(past[t], |all, p| all | past[p]);
        }
    }
    (0..txns.len()).all(|t| past[t] & 1 << t == 0).then_some(past)
}

/// Whether some order of `set`, which respects the pasts, gives each read of `checked` its value.
fn explains(txns: &[Txn], past: &[Bits], set: Bits, checked: Bits, placed: Bits, store: &Store) -> bool {
    if placed == set {
        return true;
    }
    (0..txns.len()).filter(|t| set & !placed & 1 << t != 0 && past[*t] & set & !placed == 0).any(|t| {
        let (function, key, value) = &txns[t].ops[0];
        let mut after = store.clone();
        if *function == 'w' {
            after.insert(*key, value.clone());
        } else if checked & 1 << t != 0 && store.get(key).unwrap_or(&Value::Null) != value {
            return false;
        }
        explains(txns, past, set, checked, placed | 1 << t, &after)
    })
}

/// Whether the writes fit one order for everybody, in which each read returns the latest of its past.
fn converges(txns: &[Txn], past: &[Bits], order: &mut Vec<usize>) -> bool {
    if order.len() == txns.len() {
        return (0..txns.len()).filter(|t| txns[*t].ops[0].0 == 'r').all(|t| {
            let (_, key, value) = &txns[t].ops[0];
            let visible = order
                .iter()
                .rev()
                .find(|w| past[t] & 1 << **w != 0 && txns[**w].ops[0].0 == 'w' && txns[**w].ops[0].1 == *key);
            visible.map_or(&Value::Null, |w| &txns[*w].ops[0].2) == value
        });
    }
    let placed = order.iter().fold(0, |bits: Bits, t| bits | 1 << t);
    (0..txns.len()).filter(|t| placed & 1 << t == 0 && past[*t] & !placed == 0).any(|t| {
        order.push(t);
        let found = converges(txns, past, order);
        order.pop();
        found
    })
}

#[test]
fn sequential_and_causal_models_are_those_of_brute_force() {
    let mut tally = Tally::default();
    for seed in 0..4_000 {
        let random = &mut Random(seed + 30_000);
        let count = 4 + random.below(4) as usize;
        let (mut history, txns) = transactions(random, count, false, true);
        history.header.object = "kv".into();
        // A read of unknown outcome says nothing, and a write only if somebody read it.
        let read = |txn: &Txn| {
            txns.iter().any(|r| {
                r.known && r.ops[0].0 == 'r' && r.ops[0].1 == txn.ops[0].1 && r.ops[0].2 == txn.ops[0].2
            })
        };
        let kept: Vec<Txn> =
            txns.iter().filter(|txn| txn.known || txn.ops[0].0 == 'w' && read(txn)).cloned().collect();
        let wanted = Wanted { sessions: true, real_time: false, snapshots: false, append: false };
        tally.compare(&history, Consistency::Sequential, exists(&txns, wanted));
        let past = causal_pasts(&kept);
        let all = |each: &dyn Fn(usize, &[Bits]) -> bool| {
            past.as_ref().is_some_and(|past| (0..kept.len()).all(|t| each(t, past)))
        };
        let consistent = all(&|t, past| explains(&kept, past, past[t] | 1 << t, 1 << t, 0, &Store::new()));
        let memory = all(&|t, past| {
            let own = (0..kept.len())
                .filter(|o| kept[*o].session == kept[t].session && (past[t] | 1 << t) & 1 << o != 0);
            let own = own.filter(|o| kept[*o].known).fold(0, |bits: Bits, o| bits | 1 << o);
            explains(&kept, past, past[t] | 1 << t, own, 0, &Store::new())
        });
        let convergent = past.as_ref().is_some_and(|past| converges(&kept, past, &mut Vec::new()));
        tally.compare(&history, Consistency::Causal, consistent);
        tally.compare(&history, Consistency::CausalMemory, memory);
        tally.compare(&history, Consistency::CausalConvergence, convergent);
    }
    tally.check(50);
}

/// Who wrote what each read returned, in all ways; `None` for the initial value.
fn all_sources(txns: &[Txn]) -> Vec<Vec<Option<usize>>> {
    let mut all = vec![Vec::new()];
    for txn in txns {
        let (function, key, value) = &txn.ops[0];
        let wrote = |other: &usize| txns[*other].ops[0] == ('w', *key, value.clone());
        let from: Vec<Option<usize>> = match *function == 'r' && txn.known && !value.is_null() {
            true => (0..txns.len()).filter(wrote).map(Some).collect(),
            false => vec![None],
        };
        let longer = all.iter().flat_map(|sources| {
            let longer = |from: &Option<usize>| [sources.as_slice(), &[*from]].concat();
            from.iter().map(longer).collect::<Vec<_>>()
        });
        all = longer.collect();
    }
    all
}

#[test]
fn models_where_values_repeat_are_those_of_brute_force() {
    let mut tally = Tally::default();
    for seed in 0..4_000 {
        let random = &mut Random(seed + 90_000);
        let count = 4 + random.below(4) as usize;
        let (mut history, txns) = repeating(random, count, false, true, 3);
        history.header.object = "kv".into();
        let wanted = Wanted { sessions: true, real_time: false, snapshots: false, append: false };
        tally.compare(&history, Consistency::Sequential, exists(&txns, wanted));
        let mut found = [false; 3];
        for sources in all_sources(&txns) {
            let kept: Vec<usize> =
                (0..txns.len()).filter(|t| txns[*t].known || sources.contains(&Some(*t))).collect();
            let sources: Vec<Option<usize>> = kept
                .iter()
                .map(|t| sources[*t].and_then(|from| kept.iter().position(|known| *known == from)))
                .collect();
            let kept: Vec<Txn> = kept.iter().map(|t| txns[*t].clone()).collect();
            let Some(past) = closed_pasts(&kept, &sources) else { continue };
            let all = |each: &dyn Fn(usize) -> bool| (0..kept.len()).all(each);
            found[0] |= all(&|t| explains(&kept, &past, past[t] | 1 << t, 1 << t, 0, &Store::new()));
            found[1] |= all(&|t| {
                let own = (0..kept.len())
                    .filter(|o| kept[*o].session == kept[t].session && (past[t] | 1 << t) & 1 << o != 0);
                let own = own.filter(|o| kept[*o].known).fold(0, |bits: Bits, o| bits | 1 << o);
                explains(&kept, &past, past[t] | 1 << t, own, 0, &Store::new())
            });
            found[2] |= converges(&kept, &past, &mut Vec::new());
        }
        tally.compare(&history, Consistency::Causal, found[0]);
        tally.compare(&history, Consistency::CausalMemory, found[1]);
        tally.compare(&history, Consistency::CausalConvergence, found[2]);
    }
    tally.check(50);
    let mut tally = Tally::default();
    for seed in 0..2_000 {
        let random = &mut Random(seed + 120_000);
        let count = 2 + random.below(4) as usize;
        let (history, txns) = repeating(random, count, false, false, 3);
        let wanted =
            |sessions, real_time, snapshots| Wanted { sessions, real_time, snapshots, append: false };
        tally.compare(&history, Consistency::StrictSerializable, exists(&txns, wanted(true, true, false)));
        tally.compare(&history, Consistency::Serializable, exists(&txns, wanted(false, false, false)));
        tally.compare(&history, Consistency::SnapshotIsolation, exists(&txns, wanted(false, false, true)));
    }
    tally.check(100);
}

#[test]
fn anomalies_by_name() {
    let history = |lines: &[(&str, Value)]| {
        let mut recorder = Recorder::new(Header::new("list-append"));
        for (client, ops) in lines {
            let mut call = Call::new("txn");
            call.more.insert("ops".into(), ops.clone());
            let handle = recorder.invoke(Nanos(0), client, call);
            recorder.complete(Nanos(0), handle, Outcome::Ok(Reply::value(ops.clone())));
        }
        recorder.finish()
    };
    let strongest = |history: &History| {
        let judgement = judge(history, None, None, &Limits::default(), &mut || false).expect("list-append");
        judgement.strongest().first().map(|model| model.name()).unwrap_or("none")
    };
    let stale = history(&[("a", json!([["append", "x", 1]])), ("b", json!([["r", "x", []]]))]);
    assert_eq!(strongest(&stale), "strong-session-serializable");
    let skew = history(&[
        ("a", json!([["r", "x", []], ["append", "y", 1]])),
        ("b", json!([["r", "y", []], ["append", "x", 1]])),
        ("c", json!([["r", "x", [1]], ["r", "y", [1]]])),
    ]);
    assert_eq!(strongest(&skew), "strong-session-snapshot-isolation");
    let circular = history(&[
        ("a", json!([["append", "x", 1], ["r", "y", [2]]])),
        ("b", json!([["append", "y", 2], ["r", "x", [1]]])),
    ]);
    assert_eq!(strongest(&circular), "none");
}
