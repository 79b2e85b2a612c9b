//! Two clusters of three processes each, and a transfer between them that is struck exactly at each of its steps: there somebody is killed with
//! `kill -9`, or the message is lost, comes twice, or comes when all is over.
//!
//! Whatever is struck, both sides agree, no lock is left, what the client was told is true, and whoever reads all accounts meanwhile sees all
//! of the money. Where the protocol leaves no choice, the outcome is that one: nothing is committed that was not decided, and nothing that was
//! decided is lost.

use super::between::{Between, Fate, Loss, Stopped};
use super::*;
use common::processes::Processes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Which transaction is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Everybody can, and is told.
    Told,
    /// No order to commit arrives: the keyspace asks.
    Asked,
    /// The other cluster's keyspace is the only participant, and decides.
    Alone,
    /// The coordinator's own keyspace refuses.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The message has left, and not arrived.
    Before,
    /// It has arrived, and what follows from it is under way.
    After,
}

/// Here is the coordinator's cluster, there the keyspace's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    /// The leader here; the others end it.
    KillHere,
    /// The leader there; the others end it.
    KillThere,
    /// All there, which come back.
    KillAllThere,
    /// Everybody, who come back.
    KillAll,
    Lose,
    Twice,
    /// The message arrives when it is over.
    Late,
    /// The leader here is killed, and its message arrives when its successor has ended it.
    Ghost,
}

/// How it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Commit,
    Abort,
    /// It was not decided, and may end either way.
    Either,
}

use Flow::{Alone, Asked, Refused, Told};
use Moment::{After, Before};
use Must::{Abort, Commit, Either};
use Strike::{Ghost, KillAll, KillAllThere, KillHere, KillThere, Late, Lose, Twice};

type Step = (Flow, Moment, &'static str, &'static [(Strike, Must)]);

/// What may happen to a message or its sender after the decision.
const DECIDED: &[(Strike, Must)] = &[
    (KillHere, Commit),
    (KillThere, Commit),
    (KillAllThere, Commit),
    (KillAll, Commit),
    (Lose, Commit),
    (Twice, Commit),
];

/// Between promise and decision.
const PROMISED: &[Step] = &[
    (
        Told,
        Before,
        "Prepare",
        &[
            (KillHere, Abort),
            (KillThere, Either),
            (KillAllThere, Either),
            (KillAll, Abort),
            (Lose, Commit),
            (Twice, Commit),
            (Late, Abort),
            (Ghost, Abort),
        ],
    ),
    (
        Told,
        Before,
        "Yes",
        &[
            (KillHere, Abort),
            (KillThere, Either),
            (KillAllThere, Either),
            (KillAll, Abort),
            (Lose, Commit),
            (Twice, Commit),
            (Late, Abort),
            (Ghost, Abort),
        ],
    ),
    (
        Told,
        After,
        "Yes",
        &[(KillHere, Either), (KillThere, Commit), (KillAllThere, Commit), (KillAll, Either)],
    ),
    (
        Refused,
        Before,
        "Abort",
        &[
            (KillHere, Abort),
            (KillThere, Abort),
            (KillAllThere, Abort),
            (KillAll, Abort),
            (Lose, Abort),
            (Twice, Abort),
            (Late, Abort),
        ],
    ),
    (Refused, Before, "Prepare", &[(Late, Abort)]),
];

/// From the decision on.
const ENDED: &[Step] = &[
    (Told, Before, "Commit", DECIDED),
    (Told, Before, "Commit", &[(Late, Commit), (Ghost, Commit)]),
    (Told, Before, "Ack", DECIDED),
    (
        Told,
        After,
        "Ack",
        &[(KillHere, Commit), (KillThere, Commit), (KillAllThere, Commit), (KillAll, Commit)],
    ),
    (Asked, Before, "Ask", DECIDED),
    (Asked, Before, "Commit", DECIDED),
    (Asked, Before, "Ack", DECIDED),
];

/// The other cluster decides for itself.
const ALONE: &[Step] = &[
    (
        Alone,
        Before,
        "OnePhase",
        &[
            (KillHere, Either),
            (KillThere, Commit),
            (KillAllThere, Commit),
            (KillAll, Either),
            (Lose, Commit),
            (Twice, Commit),
            (Ghost, Abort),
        ],
    ),
    (Alone, Before, "Finished", DECIDED),
    (
        Alone,
        After,
        "Finished",
        &[(KillHere, Commit), (KillThere, Commit), (KillAllThere, Commit), (KillAll, Commit)],
    ),
];

/// A choice, for protocols whose every step is not struck.
const SOME: &[Step] = &[
    (Told, Before, "Prepare", &[(Ghost, Abort)]),
    (Told, Before, "Yes", &[(KillHere, Abort), (KillThere, Either), (KillAll, Abort), (Ghost, Abort)]),
    (Told, After, "Yes", &[(KillHere, Either), (KillThere, Commit)]),
    (Told, Before, "Commit", &[(KillHere, Commit), (KillAllThere, Commit)]),
    (Told, Before, "Ack", &[(KillHere, Commit)]),
    (Asked, Before, "Ask", &[(KillHere, Commit), (KillThere, Commit), (KillAll, Commit)]),
    (Alone, Before, "Finished", &[(KillHere, Commit), (KillThere, Commit)]),
];

#[test]
fn a_transfer_is_struck_at_each_step_before_its_decision() {
    strike("raft", PROMISED);
}

#[test]
fn a_transfer_is_struck_at_each_step_after_its_decision() {
    strike("raft", ENDED);
}

#[test]
fn a_transfer_that_another_cluster_decides_is_struck_at_each_step() {
    strike("raft", ALONE);
}

#[test]
fn transfers_on_multi_paxos_are_struck() {
    strike("multi-paxos", SOME);
}

#[test]
fn transfers_on_zab_are_struck() {
    strike("zab", SOME);
}

#[test]
fn transfers_on_viewstamped_replication_are_struck() {
    strike("viewstamped", SOME);
}

/// Strikes whose name has the text of this variable are carried out and no others: `Told Before Yes KillHere`.
const ONLY: &str = "SYNOD_STEPS_ONLY";

fn strike(protocol: &str, steps: &[Step]) {
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut pair = Pair::start(protocol);
    let mut count = 0;
    for (flow, moment, at, strikes) in steps {
        for (strike, must) in *strikes {
            let name = format!("{flow:?} {moment:?} {at} {strike:?}");
            if name.contains(&only) {
                // Seen if the test fails, with the one that it failed at as the last.
                println!("{name} ({ONLY}='{name}' carries out this one alone)");
                let begun = Instant::now();
                let ended =
                    until("nothing else is in its way", || pair.strike((*flow, *moment, at), *strike, *must));
                println!("  {ended} after {:.1} s", begun.elapsed().as_secs_f64());
                count += 1;
            }
        }
    }
    let reads = pair.auditor.shared.reads.load(Ordering::Relaxed);
    println!("{protocol}: {count} strikes, and {reads} reads of all accounts meanwhile saw all of the money");
    assert!(count > 0, "{ONLY}={only} is the name of none");
}

/// What x in `bank1` here, and y and z in `bank2` there hold.
type Balances = [i64; 3];

const WHOLE: i64 = 300;
const AMOUNT: i64 = 7;

/// How long a read of all accounts may take before it is tried again.
const READ_MS: u64 = 1_000;
/// How long a transfer may take whose message comes too late.
const HASTY_MS: u64 = 600;

fn branches(all: &[(&str, Vec<Value>)], timeout_ms: u64) -> Value {
    let all: Vec<Value> = all.iter().map(|(name, work)| json!({"participant": name, "work": work})).collect();
    json!({"branches": all, "timeout-ms": timeout_ms})
}

/// What a transaction that reads all accounts finds.
struct Read {
    balances: Balances,
    /// The life of the coordinator that carried it out.
    epoch: String,
}

/// All accounts, as one transaction sees them; nothing if something is in its way.
fn read_all(endpoints: &[String]) -> Option<Read> {
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
struct Auditor {
    shared: Arc<Audits>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Audits {
    is_over: AtomicBool,
    reads: AtomicU64,
    wrong: Mutex<Option<Balances>>,
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
    fn turn(&self) -> MutexGuard<'_, ()> {
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

struct Pair {
    auditor: Auditor,
    between: Between,
    one: Processes,
    other: Processes,
    here: Vec<String>,
    there: Vec<String>,
}

impl Pair {
    fn start(protocol: &str) -> Pair {
        let (one, other) = (Processes::named("here", protocol, 3), Processes::named("there", protocol, 3));
        (one.lead(), other.lead());
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

    /// Carries out a transaction that is struck, and looks what has become of it. Nothing if something else was in its way.
    fn strike(
        &mut self,
        (flow, moment, at): (Flow, Moment, &'static str),
        strike: Strike,
        must: Must,
    ) -> Option<&'static str> {
        let audits = Arc::clone(&self.auditor.shared);
        let quiet = audits.turn();
        let Read { balances: before, epoch } = self.rest();
        let moved = flow.moves(before);
        let is_hasty = strike == Late && matches!((flow, at), (Told, "Prepare" | "Yes"));
        let body = flow.transaction(before, if is_hasty { HASTY_MS } else { 5_000 });
        let loss = match (flow, is_hasty) {
            (Asked, _) => Loss::Orders,
            (_, true) => Loss::Repetitions,
            _ => Loss::Nothing,
        };
        let (client, stopped) = self.begin(at, loss, &body);
        if (flow, at) == (Refused, "Abort") {
            until("it is promised there", || self.is_in_doubt_there().then_some(()));
        }
        let stopped = match moment {
            Before => Some(stopped),
            After => {
                stopped.meets(Fate::Deliver);
                None
            }
        };
        // Before there are locks at the other cluster, a read could be in the way of what must commit.
        let quiet = matches!(at, "Prepare" | "OnePhase").then_some(quiet);
        self.carry_out(strike, stopped);
        let answer = client.join().expect("no panic");
        println!("{}", self.between.seen());
        drop(quiet);
        let quiet = audits.turn();
        let Read { balances: after, epoch: last_epoch } = self.rest();
        drop(quiet);
        self.one.heal();
        self.other.heal();

        assert_eq!(*audits.wrong.lock().expect("no panic"), None, "money is gone or made");
        assert_eq!(after.iter().sum::<i64>(), WHOLE, "money is gone or made: {after:?}");
        let committed = flow != Refused && after == moved;
        assert!(committed || after == before, "{before:?} became {after:?}, and not {moved:?}");
        match must {
            // On a busy machine leaders are replaced though nobody was killed: what was not decided then has aborted.
            Commit if !committed && is_undecided(at) && epoch != last_epoch => return None,
            Commit => assert!(committed, "it was decided: {before:?} became {after:?}, {answer:?}"),
            Abort => assert!(!committed, "it was not decided: {before:?} became {after:?}, {answer:?}"),
            Either => {}
        }
        assert!(is_true(answer.as_ref(), committed), "committed: {committed}, but {answer:?}");
        for (place, key) in ["y", "z"].iter().enumerate() {
            let there = value(&self.there[self.other.running()[0]], "bank2", key);
            assert_eq!(there, after[place + 1].to_string(), "what the other cluster itself shows of {key}");
        }
        Some(if committed { "committed" } else { "aborted" })
    }

    /// Waits until all is over: what the accounts hold then.
    fn rest(&self) -> Read {
        (self.one.lead(), self.other.lead());
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

    fn is_in_doubt_there(&self) -> bool {
        open(&self.there).is_some_and(|open| open.iter().any(|one| one["in-doubt"] == true))
    }

    /// Has the transaction begun until it is stopped. One that does not come so far, as something was in its way, is begun again.
    fn begin(&self, at: &'static str, loss: Loss, body: &Value) -> (JoinHandle<Option<Answer>>, Stopped) {
        until("the transaction comes to this step", || {
            let stops = self.between.aim(at, loss);
            let (endpoint, body) = (self.here[self.one.lead()].clone(), body.clone());
            let client = std::thread::spawn(move || follow(&endpoint, "POST", "/v1/transactions", &body));
            let stopped = first(&stops, || client.is_finished())?;
            Some((client, stopped))
        })
    }

    fn carry_out(&mut self, strike: Strike, stopped: Option<Stopped>) {
        match strike {
            KillHere | Ghost => self.one.kill(self.one.lead()),
            KillThere => self.other.kill(self.other.lead()),
            KillAllThere => self.other.kill_all(),
            KillAll => {
                self.one.kill_all();
                self.other.kill_all();
            }
            Lose | Twice | Late => {}
        }
        if matches!(strike, KillAllThere | KillAll) {
            self.one.heal();
            self.other.heal();
        }
        let Some(stopped) = stopped else { return };
        if matches!(strike, Late | Ghost) {
            until("it is over", || read_all(&self.here));
        }
        stopped.meets(match strike {
            Lose => Fate::Lose,
            Twice => Fate::Twice,
            Late | Ghost => Fate::Deliver,
            KillHere | KillThere | KillAllThere | KillAll => Fate::Pass,
        });
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

impl Flow {
    fn transaction(self, before: Balances, timeout_ms: u64) -> Value {
        let by = self.by(before);
        match self {
            Told | Asked => {
                branches(&[("bank1", vec![add("x", -by)]), ("far", vec![add("y", by)])], timeout_ms)
            }
            Alone => branches(&[("far", vec![add("z", -by), add("y", by)])], timeout_ms),
            Refused => {
                let too_much = before[0] + 1;
                branches(
                    &[("bank1", vec![add("x", -too_much)]), ("far", vec![add("y", too_much)])],
                    timeout_ms,
                )
            }
        }
    }

    /// Who has more gives.
    fn by(self, [x, y, z]: Balances) -> i64 {
        let gives = if self == Alone { z } else { x };
        if gives >= y { AMOUNT } else { -AMOUNT }
    }

    /// What the accounts hold if it commits.
    fn moves(self, before: Balances) -> Balances {
        let (by, [x, y, z]) = (self.by(before), before);
        if self == Alone { [x, y + by, z - by] } else { [x - by, y + by, z] }
    }
}

/// Whether there may be no decision yet when this message is struck.
fn is_undecided(at: &str) -> bool {
    matches!(at, "Prepare" | "Yes" | "OnePhase")
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
