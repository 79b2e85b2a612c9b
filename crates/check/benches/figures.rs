//! The figures of docs/checking.md: `cargo bench -p synod-check --bench figures -- [ROW ...] [FOLDER]`.
//!
//! Each line is one history, made in memory and then judged once; making it does not count. With a folder of recorded
//! histories (`kv/` and `jepsen-etcd/`), those are judged as well. ROW: only the rows whose name contains it. Beside the
//! time that passed stands the time that the processor spent on it, where Linux tells, since a machine may be shared.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use synod_check::history::{Call, Handle, Header, History, Outcome, Recorder, Reply};
use synod_check::judge::{Consistency, Object, judge};
use synod_check::linearizable::{Limits, check};
use synod_check::model::{KeyValue, KeyValueOp, Model};
use synod_check::{ReadLimits, import};

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

/// Clients with one operation open each, which takes effect at a random moment while it is open. `lost`: so many of the first
/// writes never return.
fn concurrent(
    object: &str,
    (clients, operations): (u64, u64),
    lost: u64,
    call: &mut dyn FnMut(&mut Random, u64) -> Call,
    effect: &mut dyn FnMut(&Call) -> Reply,
) -> History {
    enum Open {
        Idle,
        Asked(Handle, Call),
        Answered(Handle, Reply),
    }
    let mut random = Random(7);
    let mut recorder = Recorder::new(Header::new(object));
    let mut open: Vec<Open> = (0..clients).map(|_| Open::Idle).collect();
    let names: Vec<String> = (0..clients).map(|client| format!("c{client}")).collect();
    let (mut started, mut lost) = (0, lost);
    while started < operations || open.iter().any(|open| !matches!(open, Open::Idle)) {
        let client = random.below(clients) as usize;
        open[client] = match std::mem::replace(&mut open[client], Open::Idle) {
            Open::Idle if started < operations => {
                let call = call(&mut random, started);
                started += 1;
                Open::Asked(recorder.invoke_at(None, &names[client], None, call.clone()), call)
            }
            Open::Idle => Open::Idle,
            Open::Asked(handle, call) => {
                let writes = call.value.is_some();
                let lose = writes && lost > 0 && random.below(operations / 100 + 1) == 0;
                lost -= u64::from(lose);
                if lose && random.below(2) == 0 {
                    recorder.complete_at(None, handle, Outcome::unknown("lost"));
                    Open::Idle
                } else {
                    let reply = effect(&call);
                    if lose {
                        recorder.complete_at(None, handle, Outcome::unknown("lost"));
                        Open::Idle
                    } else {
                        Open::Answered(handle, reply)
                    }
                }
            }
            Open::Answered(handle, reply) => {
                recorder.complete_at(None, handle, Outcome::Ok(reply));
                Open::Idle
            }
        };
    }
    recorder.finish()
}

fn with(op: &str, value: u64) -> Call {
    Call { value: Some(value.into()), ..Call::new(op) }
}

/// A register; `values`: written values repeat after so many, and comparisons are made.
fn register(size: (u64, u64), lost: u64, values: Option<u64>) -> History {
    let mut state = Value::Null;
    let mut call = |random: &mut Random, number: u64| match (random.below(3), values) {
        (0, _) => Call::new("read"),
        (1, Some(values)) => {
            Call { expect: Some(random.below(values).into()), ..with("cas", random.below(values)) }
        }
        (_, Some(values)) => with("write", random.below(values)),
        (_, None) if random.below(2) == 0 => Call::new("read"),
        (_, None) => with("write", number),
    };
    concurrent("register", size, lost, &mut call, &mut |call| match &*call.op {
        "read" => Reply::value(state.clone()),
        "cas" => {
            let equal = call.expect.as_ref() == Some(&state);
            if equal {
                state = call.value.clone().unwrap_or_default();
            }
            Reply::value(equal)
        }
        _ => {
            state = call.value.clone().unwrap_or_default();
            Reply::none()
        }
    })
}

fn queue(size: (u64, u64)) -> History {
    let mut state: VecDeque<Value> = VecDeque::new();
    let mut call = |random: &mut Random, number: u64| match random.below(2) {
        0 => Call::new("dequeue"),
        _ => with("enqueue", number),
    };
    concurrent("queue", size, 0, &mut call, &mut |call| match &call.value {
        None => Reply::value(state.pop_front().unwrap_or_default()),
        Some(value) => {
            state.push_back(value.clone());
            Reply::none()
        }
    })
}

fn stack(size: (u64, u64)) -> History {
    let mut state: Vec<Value> = Vec::new();
    let mut call = |random: &mut Random, number: u64| match random.below(2) {
        0 => Call::new("pop"),
        _ => with("push", number),
    };
    concurrent("stack", size, 0, &mut call, &mut |call| match &call.value {
        None => Reply::value(state.pop().unwrap_or_default()),
        Some(value) => {
            state.push(value.clone());
            Reply::none()
        }
    })
}

/// Increments and reads; or, with sums in their answers, additions of which none makes a sum that was there before.
fn counter(size: (u64, u64), sums: bool) -> History {
    let mut sum = 0;
    let mut call = |random: &mut Random, _: u64| match random.below(2) {
        0 => Call::new("read"),
        _ => with("add", if sums { 1 + random.below(9) } else { 1 }),
    };
    concurrent("counter", size, 0, &mut call, &mut |call| match &call.value {
        None => Reply::value(sum),
        Some(value) => {
            sum += value.as_u64().unwrap_or_default();
            if sums { Reply::value(sum) } else { Reply::none() }
        }
    })
}

/// Every value is added and removed once, and asked for in between.
fn set(size: (u64, u64)) -> History {
    let mut state: BTreeSet<u64> = BTreeSet::new();
    let mut call = |random: &mut Random, number: u64| match (number % 2, random.below(2)) {
        (0, _) => with("add", number),
        (_, 0) => with("contains", number.saturating_sub(1 + 2 * random.below(50)) & !1),
        _ => with("remove", number.saturating_sub(101) & !1),
    };
    concurrent("set", size, 0, &mut call, &mut |call| {
        let value = call.value.as_ref().and_then(Value::as_u64).unwrap_or_default();
        Reply::value(match &*call.op {
            "add" => state.insert(value),
            "remove" => state.remove(&value),
            _ => state.contains(&value),
        })
    })
}

/// The last read sees the first value written, long replaced.
fn corrupted(mut history: History) -> History {
    let first = history
        .operations
        .iter()
        .find(|operation| operation.call.value.is_some() && matches!(operation.outcome, Outcome::Ok(_)));
    let stale = first.and_then(|operation| operation.call.value.clone()).expect("a write");
    let read = history
        .operations
        .iter_mut()
        .rev()
        .find(|operation| &*operation.call.op == "read" && matches!(operation.outcome, Outcome::Ok(_)));
    read.expect("a read").outcome = Outcome::Ok(Reply::value(stale));
    history
}

fn transaction(recorder: &mut Recorder, session: &str, ops: Vec<Value>) {
    let mut call = Call::new("txn");
    let asked = ops.iter().map(|op| if op[0] == "r" { json!(["r", op[1], null]) } else { op.clone() });
    call.more.insert("ops".into(), asked.collect());
    let handle = recorder.invoke_at(None, session, None, call);
    recorder.complete_at(None, handle, Outcome::Ok(Reply::value(ops)));
}

/// Sessions that read from ever later prefixes of one log, and append to it: causal, but not serializable.
fn causal(sessions: u64, events: u64, keys: u64) -> History {
    let mut random = Random(7);
    let mut recorder = Recorder::new(Header::new("rw-register"));
    let names: Vec<String> = (0..sessions).map(|session| format!("s{session}")).collect();
    let key_names: Vec<String> = (0..keys).map(|key| format!("k{key}")).collect();
    let mut versions: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    let mut snapshots = vec![0; sessions as usize];
    for commit in 1..=events / 10 {
        let session = random.below(sessions) as usize;
        let lag = random.below(200);
        snapshots[session] = commit.saturating_sub(lag + 1).max(snapshots[session]);
        let mut ops = Vec::new();
        let mut written = Vec::new();
        for place in 0..10 {
            let key = random.below(keys);
            let name = &key_names[key as usize];
            if place < 5 {
                let seen = versions.get(&key).and_then(|versions| {
                    versions.iter().rev().find(|(at, _)| *at <= snapshots[session]).map(|(_, value)| *value)
                });
                ops.push(json!(["r", name, seen]));
            } else if !written.contains(&key) {
                let value = commit * 10 + place;
                ops.push(json!(["w", name, value]));
                written.push(key);
                versions.entry(key).or_default().push((commit, value));
            }
        }
        snapshots[session] = commit;
        transaction(&mut recorder, &names[session], ops);
    }
    recorder.finish()
}

/// Transactions of two operations on lists of at most 16 elements, each taking effect between invocation and return.
fn appends(count: u64, clients: u64) -> History {
    let mut random = Random(7);
    let mut recorder = Recorder::new(Header::new("list-append"));
    let names: Vec<String> = (0..clients).map(|client| format!("c{client}")).collect();
    let mut lists: Vec<(u64, Vec<Value>)> = (0..20).map(|key| (key, Vec::new())).collect();
    let mut next_key = 20;
    let mut open: VecDeque<(Handle, Vec<Value>)> = VecDeque::new();
    for number in 0..count {
        let mut ops = Vec::new();
        for place in 0..2 {
            let at = random.below(20) as usize;
            if random.below(2) == 0 {
                ops.push(json!(["r", lists[at].0.to_string(), lists[at].1.clone()]));
                continue;
            }
            let (key, list) = &mut lists[at];
            ops.push(json!(["append", key.to_string(), number * 2 + place]));
            list.push((number * 2 + place).into());
            if list.len() >= 16 {
                lists[at] = (next_key, Vec::new());
                next_key += 1;
            }
        }
        let mut call = Call::new("txn");
        let asked = ops.iter().map(|op| if op[0] == "r" { json!(["r", op[1], null]) } else { op.clone() });
        call.more.insert("ops".into(), asked.collect());
        let handle = recorder.invoke_at(None, &names[(number % clients) as usize], None, call);
        open.push_back((handle, ops));
        // A client asks again once it was answered.
        if open.len() as u64 == clients {
            let (handle, ops) = open.pop_front().expect("as many as clients");
            recorder.complete_at(None, handle, Outcome::Ok(Reply::value(ops)));
        }
    }
    for (handle, ops) in open {
        recorder.complete_at(None, handle, Outcome::Ok(Reply::value(ops)));
    }
    recorder.finish()
}

/// A key-value store that is not divided by key.
struct Whole(KeyValue);

/// A key's value, with its hash: most of a state stays as it was, and is shared.
#[derive(Clone, Debug)]
struct Cell {
    key: Arc<str>,
    value: Arc<Value>,
    hash: u64,
}

impl PartialEq for Cell {
    fn eq(&self, other: &Cell) -> bool {
        self.hash == other.hash
            && (Arc::ptr_eq(&self.value, &other.value) || self.value == other.value)
            && self.key == other.key
    }
}

impl Eq for Cell {}

impl Hash for Cell {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

impl Cell {
    fn of(key: Arc<str>, value: Value) -> Cell {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((&key, &value));
        Cell { key, value: Arc::new(value), hash }
    }
}

impl Model for Whole {
    type Op = KeyValueOp;
    type Answer = Option<Value>;
    type State = Vec<Cell>;

    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(Self::Op, Option<Self::Answer>), String> {
        self.0.decode(call, reply)
    }
    fn part<'a>(&self, _op: &'a Self::Op) -> Option<&'a str> {
        None
    }
    fn init(&self) -> Self::State {
        Vec::new()
    }
    fn step(&self, state: &Self::State, op: &Self::Op, answer: Option<&Self::Answer>) -> Option<Self::State> {
        let key = self.0.part(op).unwrap_or_default();
        let place = state.iter().position(|cell| &*cell.key >= key);
        let found = place.filter(|place| &*state[*place].key == key);
        let init = self.0.init();
        let before = found.map_or(&init, |place| &*state[place].value);
        if let (KeyValueOp::Get(_), Some(Some(seen))) = (op, answer) {
            return (seen == before).then(|| state.clone());
        }
        let after = self.0.step(before, op, answer)?;
        let mut next = state.clone();
        if after != *before {
            match (found, place) {
                (Some(place), _) => next[place] = Cell::of(next[place].key.clone(), after),
                (None, place) => next.insert(place.unwrap_or(state.len()), Cell::of(key.into(), after)),
            }
        }
        Some(next)
    }
    fn is_read_only(&self, op: &Self::Op, answer: Option<&Self::Answer>) -> bool {
        self.0.is_read_only(op, answer)
    }
    fn state_bytes(&self, state: &Self::State) -> usize {
        state.len() * size_of::<Cell>()
    }
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let folder = arguments.iter().map(PathBuf::from).find(|path| path.is_dir());
    let rows: Vec<&String> = arguments.iter().filter(|argument| !Path::new(argument).is_dir()).collect();
    let wanted = |name: &str| rows.is_empty() || rows.iter().any(|row| name.contains(row.as_str()));
    let object = |name: &str, model: Consistency, make: &dyn Fn() -> History| {
        if wanted(name) {
            let history = make();
            let started = Clock::now();
            let judgement = judge(&history, None, Some(model), &Limits::default(), &mut || false);
            let took = started.elapsed();
            let judgement = judgement.expect("operations of this object");
            let finding = &judgement.findings[0];
            let verdict = match &finding.answer {
                synod_check::answer::Answer::Yes(_) => "yes".to_owned(),
                synod_check::answer::Answer::No(reason) => {
                    format!("no: {} operations, minimal: {}", reason.operations.len(), reason.minimal)
                }
                synod_check::answer::Answer::Unknown(why) => format!("unknown: {why}"),
            };
            row(name, took, &verdict);
        }
    };
    let linearizable = Consistency::Linearizable;
    object("register, distinct, 20 clients, 1,000", linearizable, &|| register((20, 1_000), 0, None));
    object("register, distinct, 10 clients, 10,000", linearizable, &|| register((10, 10_000), 0, None));
    object("register, distinct, 40 clients, 1,000,000", linearizable, &|| register((40, 1_000_000), 0, None));
    object("one corrupted read, 10 clients, 10,000", linearizable, &|| {
        corrupted(register((10, 10_000), 0, None))
    });
    object("cas register, 5 values, 10 clients, 10,000", linearizable, &|| {
        register((10, 10_000), 0, Some(5))
    });
    object("20 crashed writes, a bad read, 2,000", linearizable, &|| {
        corrupted(register((10, 2_000), 20, None))
    });
    object("the same, values repeat, with cas", linearizable, &|| {
        let mut history = register((10, 2_000), 20, Some(5));
        let read = history.operations.iter_mut().rev().find(|operation| &*operation.call.op == "read");
        read.expect("a read").outcome = Outcome::Ok(Reply::value(77));
        history
    });
    object("queue, 40 clients, 1,000,000", linearizable, &|| queue((40, 1_000_000)));
    object("stack, 40 clients, 1,000,000", linearizable, &|| stack((40, 1_000_000)));
    object("counter, increments, 40 clients, 1,000,000", linearizable, &|| counter((40, 1_000_000), false));
    object("counter, distinct sums, 40 clients, 1,000,000", linearizable, &|| counter((40, 1_000_000), true));
    object("set with removals, 40 clients, 1,000,000", linearizable, &|| set((40, 1_000_000)));
    object("causal memory, 20,000 events, 20 sessions", Consistency::CausalMemory, &|| {
        causal(20, 20_000, 100)
    });
    object("causal memory, 500,000 events, 20 sessions", Consistency::CausalMemory, &|| {
        causal(20, 500_000, 1_000)
    });
    object("causal (CCv), 1,000,000 events, 1,001 sessions", Consistency::CausalConvergence, &|| {
        causal(1_001, 1_000_000, 1_000)
    });
    object("causal (CC), 1,000,000 events, 1,001 sessions", Consistency::Causal, &|| {
        causal(1_001, 1_000_000, 1_000)
    });
    object("list-append, strict, 1,000,000 transactions", Consistency::StrictSerializable, &|| {
        appends(1_000_000, 20)
    });
    if let Some(folder) = folder {
        recorded(&folder, &wanted);
    }
}

/// Time that passed, and that this thread spent.
struct Clock(Instant, Duration);

impl Clock {
    fn now() -> Clock {
        let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let spent = spent.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
        Clock(Instant::now(), Duration::from_nanos(spent))
    }

    fn elapsed(&self) -> (Duration, Duration) {
        let Clock(now, spent) = Clock::now();
        (now - self.0, spent.saturating_sub(self.1))
    }
}

fn row(name: &str, (took, spent): (Duration, Duration), verdict: &str) {
    let rss = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = rss.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("", str::trim).to_owned();
    let [took, spent] = [took, spent].map(|time| time.as_secs_f64() * 1e3);
    println!("{name:<50} {took:>11.3} ms {spent:>11.3} ms cpu  peak with the history {peak:>12}  {verdict}");
}

fn recorded(folder: &Path, wanted: &dyn Fn(&str) -> bool) {
    let read = |path: &Path| {
        let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        import::any(BufReader::new(file), ReadLimits::default())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .0
    };
    let time = |name: &str, histories: &[History], whole: bool| {
        let started = Clock::now();
        let mut verdicts: BTreeMap<&str, u32> = BTreeMap::new();
        for history in histories {
            let limits = Limits::default();
            let report = match whole {
                true => check(&Whole(KeyValue::of(history)), history, &limits, &mut || false),
                false => check(&KeyValue::of(history), history, &limits, &mut || false),
            };
            let verdict = report.expect("key-value operations").verdict;
            *verdicts
                .entry(if verdict.is_yes() {
                    "yes"
                } else if verdict.is_no() {
                    "no"
                } else {
                    "unknown"
                })
                .or_default() += 1;
        }
        row(name, started.elapsed(), &format!("{verdicts:?}"));
    };
    let ok = [read(&folder.join("kv/c10-ok.txt"))];
    if wanted("Porcupine's c10-ok") {
        time("Porcupine's c10-ok", &ok, false);
        time("Porcupine's c10-ok, not divided by key", &ok, true);
    }
    if wanted("Jepsen's etcd logs") {
        let folder = std::fs::read_dir(folder.join("jepsen-etcd")).expect("a readable folder");
        let mut logs: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        let histories: Vec<History> = logs.iter().map(|path| read(path)).collect();
        assert!(histories.iter().all(|history| Object::of(history) == Object::Register));
        time(&format!("Jepsen's etcd logs, all {}", histories.len()), &histories, false);
    }
}
