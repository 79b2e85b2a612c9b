//! Transfers while leaders are killed in the middle of them, between two keyspaces of a cluster and between two clusters. What the clients
//! did and were told is recorded as a history, and the checker judges it: it is linearizable, each transfer and each read of all
//! accounts being one operation. No lock stays.

use super::pair::open;
use super::*;
use common::processes::Processes;
use serde_json::Map;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use synod_check::answer::Answer as Verdict;
use synod_check::history::{Call, Header, History, Nanos, Outcome, Recorder, Reply};
use synod_check::judge::{Consistency, judge};
use synod_check::linearizable::Limits;
use synod_protocols::Rng;

on_every_protocol! {
    transfers_between_keyspaces_are_linearizable_while_leaders_are_killed;
}

fn transfers_between_keyspaces_are_linearizable_while_leaders_are_killed(protocol: &str) {
    let cluster = Processes::start(protocol, 3);
    cluster.lead();
    let endpoints = cluster.endpoints();
    bank(&endpoints[0], "bank1", &ACCOUNTS);
    bank(&endpoints[0], "bank2", &ACCOUNTS);
    Town::new(["bank1", "bank2"], endpoints).lives_through_kills(protocol, &mut [cluster]);
}

#[test]
fn transfers_between_clusters_are_linearizable_while_leaders_of_both_are_killed() {
    let clusters = ["here", "there"].map(|name| Processes::named(name, "raft", 3));
    for cluster in &clusters {
        cluster.lead();
    }
    let (here, there) = (clusters[0].endpoints(), clusters[1].endpoints());
    bank(&here[0], "bank1", &ACCOUNTS);
    bank(&there[0], "bank2", &ACCOUNTS);
    let urls: Vec<String> = there.iter().map(|endpoint| format!("http://{endpoint}")).collect();
    let form = json!({"kind": "cluster", "endpoints": urls, "keyspace": "bank2"});
    let made = surely(&here[0], "PUT", "/v1/participants/far", &form);
    assert_eq!(made.status, 201, "{made:?}");
    Town::new(["bank1", "far"], here).lives_through_kills("two clusters", &mut { clusters });
}

const ACCOUNTS: [&str; 4] = ["a", "b", "c", "d"];
const BALANCE: i64 = 100;
const AMOUNT_MAX: u64 = 60;
/// Each may leave a transfer of unknown outcome at each kill, and the checker must think of all of them.
const CLIENTS: u64 = 3;
const KILLS: usize = 4;
/// Transfers that must be committed before the next leader is killed.
const COMMITS: u64 = 10;
/// What clients draw comes from this number, if it is set.
const SEED: &str = "SYNOD_BANK_SEED";

/// Two banks, and those who live with them.
struct Town {
    /// Participants, as the coordinator's cluster calls them.
    banks: [&'static str; 2],
    /// The coordinator's cluster.
    endpoints: Vec<String>,
    began: Instant,
    recorder: Mutex<Recorder>,
    is_over: AtomicBool,
    /// While it is set nobody transfers: a read of all accounts may never find all of them unlocked otherwise.
    is_resting: AtomicBool,
    commits: AtomicU64,
    reads: AtomicU64,
}

/// What a client knows of its request.
enum Heard {
    /// It did not leave.
    Unsent,
    Answer(Answer),
    /// Its answer did not come.
    Lost,
}

impl Town {
    fn new(banks: [&'static str; 2], endpoints: Vec<String>) -> Town {
        let mut header = Header::new("bank");
        let names = banks.iter().flat_map(|bank| ACCOUNTS.map(|account| format!("{bank}/{account}")));
        header.initial = names.map(|name| (name, Value::from(BALANCE))).collect::<Map<_, _>>().into();
        header.more.insert("overdraft".into(), false.into());
        Town {
            banks,
            endpoints,
            began: Instant::now(),
            recorder: Mutex::new(Recorder::new(header)),
            is_over: AtomicBool::new(false),
            is_resting: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }
    }

    fn lives_through_kills(self, what: &str, clusters: &mut [Processes]) {
        let seed = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a number"));
        let seed = seed.unwrap_or_else(|| {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
        });
        println!("the same again: {SEED}={seed} cargo test -p synod-server --test transactions judged");
        std::thread::scope(|scope| {
            let _end = End(&self);
            for client in 0..CLIENTS {
                let town = &self;
                scope.spawn(move || town.pay(client, Rng::new(seed + client)));
            }
            scope.spawn(|| self.count());
            for kill in 0..KILLS {
                let before = self.commits.load(Ordering::Relaxed);
                until("transfers are committed", || {
                    (self.commits.load(Ordering::Relaxed) >= before + COMMITS).then_some(())
                });
                let cluster = &mut clusters[kill % clusters.len()];
                let leader = cluster.lead();
                self.note(&format!(
                    "kill -9 {} of {}",
                    cluster.configs[leader].name, cluster.configs[leader].cluster
                ));
                cluster.kill(leader);
                cluster.lead();
                cluster.up(leader);
                let before = self.reads.load(Ordering::Relaxed);
                self.is_resting.store(true, Ordering::Relaxed);
                until("all accounts are read", || {
                    (self.reads.load(Ordering::Relaxed) > before).then_some(())
                });
                self.is_resting.store(false, Ordering::Relaxed);
            }
        });
        until("all accounts can be read", || self.read_all("the last"));
        for cluster in clusters.iter() {
            let endpoints = cluster.endpoints();
            until("nothing is open, and no lock is held", || open(&endpoints)?.is_empty().then_some(()));
        }
        let (commits, reads) = (self.commits.into_inner(), self.reads.into_inner());
        println!("{what}: {commits} transfers and {reads} reads of all accounts, {KILLS} leaders killed");
        is_linearizable(&self.recorder.into_inner().expect("no panic").finish());
    }

    fn now(&self) -> Nanos {
        Nanos(self.began.elapsed().as_nanos() as u64)
    }

    fn note(&self, text: &str) {
        self.recorder.lock().expect("no panic").note(self.now(), text);
    }

    /// One client: pays, one transfer after the other.
    fn pay(&self, client: u64, mut rng: Rng) {
        while !self.is_over.load(Ordering::Relaxed) {
            if self.is_resting.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            let from = rng.below(2) as usize;
            let mut account = || ACCOUNTS[rng.below(ACCOUNTS.len() as u64) as usize];
            let (one, other) = ((self.banks[from], account()), (self.banks[1 - from], account()));
            let amount = rng.between(1, AMOUNT_MAX) as i64;
            let mut call = Call::new("transfer");
            let name = |(bank, account): (&str, &str)| Value::from(format!("{bank}/{account}"));
            call.more.insert("from".into(), name(one));
            call.more.insert("to".into(), name(other));
            call.more.insert("amount".into(), amount.into());
            let body = json!({"branches": [
                {"participant": one.0, "work": [add(one.1, -amount)]},
                {"participant": other.0, "work": [add(other.1, amount)]},
            ]});
            let endpoint = &self.endpoints[rng.below(self.endpoints.len() as u64) as usize];
            match self.record(&format!("client {client}"), endpoint, call, &body, |_| true.into()) {
                Some(_) => drop(self.commits.fetch_add(1, Ordering::Relaxed)),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Somebody reads all accounts again and again.
    fn count(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            self.read_all("the reader");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn read_all(&self, client: &str) -> Option<()> {
        let gets = ACCOUNTS.map(|account| json!({"get": {"key": account}}));
        let branches = self.banks.map(|bank| json!({"participant": bank, "work": gets}));
        let body = json!({"branches": branches, "timeout-ms": 2_000});
        let balances = |answer: &Value| {
            let one = |bank: &'static str| {
                let values = ACCOUNTS.iter().zip(answer["answers"][bank].as_array().expect("values"));
                values.map(move |(account, value)| {
                    let balance: i64 = value.as_str().expect("an account").parse().expect("a balance");
                    (format!("{bank}/{account}"), Value::from(balance))
                })
            };
            Value::Object(self.banks.into_iter().flat_map(one).collect())
        };
        let place = self.reads.load(Ordering::Relaxed) as usize % self.endpoints.len();
        let answered = self.endpoints[place..]
            .iter()
            .chain(&self.endpoints[..place])
            .find_map(|endpoint| self.record(client, endpoint, Call::new("read"), &body, balances))?;
        let whole = BALANCE * 2 * ACCOUNTS.len() as i64;
        let sum: i64 = answered.as_object().expect("balances").values().filter_map(Value::as_i64).sum();
        assert_eq!(sum, whole, "money is gone or made: {answered}");
        self.reads.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    /// Asks, and records what was asked and what came of it: what the answer says, if it was carried out.
    fn record(
        &self,
        client: &str,
        endpoint: &str,
        call: Call,
        body: &Value,
        reply: impl Fn(&Value) -> Value,
    ) -> Option<Value> {
        let asked = self.recorder.lock().expect("no panic").invoke(self.now(), client, call);
        let (outcome, found) = match ask(endpoint, body) {
            Heard::Unsent => (Outcome::fail("nobody is there"), None),
            Heard::Lost => (Outcome::unknown("no answer came"), None),
            Heard::Answer(answer) => {
                let said = answer.json();
                match (answer.status, answer.code().as_str()) {
                    (200, _) if said["decision"] == "commit" => {
                        let found = reply(&said);
                        (Outcome::Ok(Reply::value(found.clone())), Some(found))
                    }
                    (200, _) => (Outcome::fail(said["why"].as_str().unwrap_or("aborted")), None),
                    (_, code @ ("unknown-outcome" | "stopping")) => (Outcome::unknown(code), None),
                    (_, code) => (Outcome::fail(code), None),
                }
            }
        };
        self.recorder.lock().expect("no panic").complete(self.now(), asked, outcome);
        found
    }
}

/// Ends the transfers when it is dropped, also by a panic.
struct End<'a>(&'a Town);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.is_resting.store(false, Ordering::Relaxed);
    }
}

/// Asks once, and follows to the leader once.
fn ask(endpoint: &str, body: &Value) -> Heard {
    // What cannot leave has certainly not happened, and the fewer outcomes are unknown the more the checker can tell.
    let post = |endpoint: &str| match TcpStream::connect(endpoint) {
        Err(_) => Heard::Unsent,
        Ok(_) => match exchange(endpoint, "POST", "/v1/transactions", &[], &body.to_string()) {
            Some(answer) => Heard::Answer(answer),
            None => Heard::Lost,
        },
    };
    match post(endpoint) {
        Heard::Answer(answer) if answer.status == 307 => {
            let location = answer.header("location").expect("where the leader is");
            let leader = location.strip_prefix("http://").and_then(|rest| rest.split('/').next());
            post(leader.expect("an address"))
        }
        heard => heard,
    }
}

/// How long the checker may think.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(60);

fn is_linearizable(history: &History) {
    let (begun, model) = (Instant::now(), Consistency::Linearizable);
    let mut is_late = || begun.elapsed() > JUDGE_TIMEOUT;
    let judged = judge(history, None, Some(model), &Limits::default(), &mut is_late).expect("a bank");
    let finding = &judged.findings[0];
    if matches!(finding.answer, Verdict::Yes(_)) {
        let outcomes = history.operations.iter().map(|operation| &operation.outcome);
        let unknown = outcomes.filter(|outcome| matches!(outcome, Outcome::Unknown { .. })).count();
        let (count, time) = (history.operations.len(), begun.elapsed().as_secs_f64());
        println!(
            "{count} operations, {unknown} of unknown outcome: linearizable, as is known after {time:.2} s"
        );
        return;
    }
    let path = std::env::temp_dir().join(format!("synod-judged-{}.jsonl", std::process::id()));
    let written = std::fs::File::create(&path).map(|file| history.write(file));
    panic!(
        "not linearizable: {:?}\n{}\nThe history: synod check {} ({written:?})",
        finding.answer,
        finding.explanation,
        path.display()
    );
}
