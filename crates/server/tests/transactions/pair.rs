//! Two clusters of three processes each, with the test between them, and somebody who reads all accounts all the time.

use super::between::{Between, Loss, Stopped};
use super::*;
use common::processes::Processes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What x in `bank1` here, and y and z in `bank2` there hold.
pub(super) type Balances = [i64; 3];

pub(super) const WHOLE: i64 = 300;

/// How long a read of all accounts may take before it is tried again.
const READ_MS: u64 = 1_000;

pub(super) fn branches(all: &[(&str, Vec<Value>)], timeout_ms: u64) -> Value {
    let all: Vec<Value> = all.iter().map(|(name, work)| json!({"participant": name, "work": work})).collect();
    json!({"branches": all, "timeout-ms": timeout_ms})
}

/// What a transaction that reads all accounts finds.
pub(super) struct Read {
    pub(super) balances: Balances,
    /// The life of the coordinator that carried it out.
    pub(super) epoch: String,
}

/// All accounts, as one transaction sees them; nothing if something is in its way.
pub(super) fn read_all(endpoints: &[String]) -> Option<Read> {
    let get = |key: &str| json!({"get": {"key": key}});
    let body = branches(&[("bank1", vec![get("x")]), ("far", vec![get("y"), get("z")])], READ_MS);
    let ask = |endpoint: &String| follow(endpoint, "POST", "/v1/transactions", &body);
    let read = endpoints.iter().filter_map(ask).find(|read| read.status == 200)?.json();
    (read["decision"] == "commit").then_some(())?;
    let one = |bank: &str, place: usize| read["answers"][bank][place].as_str()?.parse().ok();
    let epoch = read["transaction"].as_str()?.split('.').nth(1)?.to_owned();
    Some(Read { balances: [one("bank1", 0)?, one("far", 0)?, one("far", 1)?], epoch })
}

/// Somebody who reads all accounts again and again, but for the moments in which that would be in the way.
pub(super) struct Auditor {
    pub(super) shared: Arc<Audits>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
pub(super) struct Audits {
    is_over: AtomicBool,
    pub(super) reads: AtomicU64,
    pub(super) wrong: Mutex<Option<Balances>>,
    /// Who holds it reads, or wants nobody to read.
    turn: Mutex<()>,
}

impl Auditor {
    fn start(endpoints: Vec<String>) -> Auditor {
        let shared = Arc::new(Audits::default());
        let audits = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !audits.is_over.load(Ordering::Relaxed) {
                {
                    let _turn = audits.turn();
                    if let Some(read) = read_all(&endpoints) {
                        audits.see(read.balances);
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Auditor { shared, thread: Some(thread) }
    }
}

impl Audits {
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        // A test that fails while it holds it says why itself.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, read: Balances) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if read.iter().sum::<i64>() != WHOLE {
            *self.wrong.lock().expect("no panic") = Some(read);
        }
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

pub(super) struct Pair {
    pub(super) auditor: Auditor,
    pub(super) between: Between,
    pub(super) one: Processes,
    pub(super) other: Processes,
    pub(super) here: Vec<String>,
    pub(super) there: Vec<String>,
}

impl Pair {
    pub(super) fn start(protocol: &str) -> Pair {
        let (one, other) = (Processes::named("here", protocol, 3), Processes::named("there", protocol, 3));
        one.lead();
        other.lead();
        let (here, there) = (one.endpoints(), other.endpoints());
        bank(&here[0], "bank1", &["x"]);
        bank(&there[0], "bank2", &["y", "z"]);
        let between = Between::open(&here, &there);
        let form = json!({"kind": "cluster", "endpoints": [between.url_there()], "keyspace": "bank2"});
        let made = surely(&here[0], "PUT", "/v1/participants/far", &form);
        assert_eq!(made.status, 201, "{made:?}");
        let auditor = Auditor::start(here.clone());
        Pair { auditor, between, one, other, here, there }
    }

    /// Waits until all is over: what the accounts hold then.
    pub(super) fn rest(&self) -> Read {
        self.one.lead();
        self.other.lead();
        let read = || until("all accounts can be read", || read_all(&self.here));
        // After it both sides have met what was left there, so that nothing is open that is not shown.
        read();
        self.settle();
        let found = read();
        // The read itself.
        self.settle();
        found
    }

    fn settle(&self) {
        for endpoints in [&self.here, &self.there] {
            until("nothing is open, and no lock is held", || open(endpoints)?.is_empty().then_some(()));
        }
    }

    pub(super) fn is_in_doubt_there(&self) -> bool {
        open(&self.there).is_some_and(|open| open.iter().any(|one| one["in-doubt"] == true))
    }

    /// Has the transaction begun until it is stopped. One that does not come so far, as something was in its way, is begun again.
    pub(super) fn begin(
        &self,
        at: &'static str,
        loss: Loss,
        body: &Value,
    ) -> (JoinHandle<Option<Answer>>, Stopped) {
        until("the transaction comes to this step", || {
            let stops = self.between.aim(at, loss);
            let (endpoint, body) = (self.here[self.one.lead()].clone(), body.clone());
            let client = std::thread::spawn(move || follow(&endpoint, "POST", "/v1/transactions", &body));
            let stopped = first(&stops, || client.is_finished())?;
            Some((client, stopped))
        })
    }
}

/// What was stopped, unless it is given up. Who is told of a commit may be told before its last steps.
pub(super) fn first<T>(stops: &Receiver<T>, is_given_up: impl Fn() -> bool) -> Option<T> {
    let begun = Instant::now();
    let mut given_up = None;
    loop {
        if let Ok(stopped) = stops.recv_timeout(Duration::from_millis(10)) {
            return Some(stopped);
        }
        if is_given_up() && given_up.is_none() {
            given_up = Some(Instant::now());
        }
        let is_late = given_up.is_some_and(|since| since.elapsed() > Duration::from_secs(5));
        if is_late || begun.elapsed() > PATIENCE {
            return None;
        }
    }
}

/// Whether what a client was told, if it was, is so.
pub(super) fn is_true(answer: Option<&Answer>, committed: bool) -> bool {
    let Some(answer) = answer else { return true };
    match (answer.status, answer.code().as_str()) {
        (200, _) => (answer.json()["decision"] == "commit") == committed,
        (_, "unknown-outcome" | "stopping") => true,
        // It was told that nothing was done.
        _ => !committed,
    }
}

/// What is not over at a cluster's leader, if there is one.
pub(super) fn open(endpoints: &[String]) -> Option<Vec<Value>> {
    let ask = |endpoint: &String| follow(endpoint, "GET", "/v1/transactions", &Value::Null);
    let open = endpoints.iter().filter_map(ask).find(|open| open.status == 200)?.json();
    open["transactions"].as_array().cloned()
}
