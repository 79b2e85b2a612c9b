//! Two clusters of three processes each, and a transfer between them that is struck exactly at each of its steps: there somebody is killed with
//! `kill -9`, or the message is lost, comes twice, or comes when all is over.
//!
//! Whatever is struck, both sides agree, no lock is left, what the client was told is true, and whoever reads all accounts meanwhile sees all
//! of the money. Where the protocol leaves no choice, the outcome is that one: nothing is committed that was not decided, and nothing that was
//! decided is lost.

use super::between::{Fate, Loss, Stopped};
use super::pair::{Balances, Pair, Read, WHOLE, branches, is_true, read_all};
use super::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use synod_protocols::Rng;

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
/// What is drawn comes from this number, if it is set.
const SEED: &str = "SYNOD_STEPS_SEED";
const DRAWN: u64 = 12;

/// One transaction, and what it meets.
#[derive(Clone, Copy, Debug)]
struct Case {
    flow: Flow,
    moment: Moment,
    at: &'static str,
    strike: Strike,
    /// A second message at which something strikes, if it comes so far.
    then: Option<(&'static str, Strike)>,
    must: Must,
}

fn cases(steps: &[Step]) -> impl Iterator<Item = Case> {
    steps.iter().flat_map(|(flow, moment, at, strikes)| {
        let case = |(strike, must): &(Strike, Must)| Case {
            flow: *flow,
            moment: *moment,
            at,
            strike: *strike,
            then: None,
            must: *must,
        };
        strikes.iter().map(case)
    })
}

fn strike(protocol: &str, steps: &[Step]) {
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut pair = Pair::start(protocol);
    let mut count = 0;
    for case in cases(steps) {
        let Case { flow, moment, at, strike, .. } = case;
        let name = format!("{flow:?} {moment:?} {at} {strike:?}");
        if name.contains(&only) {
            // Seen if the test fails, with the one that it failed at as the last.
            println!("{name} ({ONLY}='{name}' carries out this one alone)");
            meet(&mut pair, case);
            count += 1;
        }
    }
    let reads = pair.auditor.shared.reads.load(Ordering::Relaxed);
    println!("{protocol}: {count} strikes, and {reads} reads of all accounts meanwhile saw all of the money");
    assert!(count > 0, "{ONLY}={only} is the name of none");
}

#[test]
fn a_transfer_is_struck_twice_at_steps_that_are_drawn() {
    let seed = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a number"));
    let seed = seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    });
    println!("the same again: {SEED}={seed} cargo test -p synod-server --test transactions drawn");
    let mut rng = Rng::new(seed);
    let mut pick = |count: usize| rng.below(count as u64) as usize;
    // What comes when all is over is struck by nothing more.
    let firsts: Vec<Case> = cases(PROMISED)
        .chain(cases(ENDED))
        .chain(cases(ALONE))
        .filter(|case| !matches!(case.strike, Late | Ghost))
        .collect();
    let mut pair = Pair::start("raft");
    for _ in 0..DRAWN {
        let first = firsts[pick(firsts.len())];
        let messages = match first.flow {
            Told => ["Yes", "Commit", "Ack"],
            Asked => ["Ask", "Commit", "Ack"],
            Alone => ["OnePhase", "Finished", "Finished"],
            Refused => ["Yes", "Ask", "Abort"],
        };
        let at = messages[pick(messages.len())];
        let strikes = [KillHere, KillThere, KillAllThere, KillAll, Lose, Twice];
        let then = (at, strikes[pick(strikes.len())]);
        // Whoever dies second may have been to decide it.
        let must = if first.must == Commit && is_undecided(first.at) { Either } else { first.must };
        let case = Case { then: Some(then), must, ..first };
        println!("{case:?}");
        meet(&mut pair, case);
    }
}

fn meet(pair: &mut Pair, case: Case) {
    let begun = Instant::now();
    let ended = until("nothing else is in its way", || pair.meets(case));
    println!("  {ended} after {:.1} s", begun.elapsed().as_secs_f64());
}

const AMOUNT: i64 = 7;
/// How long a transfer may take: long enough for all to come back.
const PATIENT_MS: u64 = 15_000;
/// How long one may take whose message comes too late.
const HASTY_MS: u64 = 600;
/// How long after a first strike the message of a second one may come.
const SOON: Duration = Duration::from_millis(1_500);

impl Pair {
    /// Carries out a transaction that is struck, and looks what has become of it. Nothing if something else was in its way.
    fn meets(&mut self, case: Case) -> Option<&'static str> {
        let Case { flow, moment, at, strike, must, .. } = case;
        let audits = Arc::clone(&self.auditor.shared);
        let quiet = audits.turn();
        let Read { balances: before, epoch } = self.rest();
        let moved = flow.moves(before);
        let is_hasty = strike == Late && matches!((flow, at), (Told, "Prepare" | "Yes"));
        let body = flow.transaction(before, if is_hasty { HASTY_MS } else { PATIENT_MS });
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
        if let Some((at, strike)) = case.then {
            let stops = self.between.aim_again(at);
            if let Ok(stopped) = stops.recv_timeout(SOON) {
                self.one.heal();
                self.other.heal();
                self.carry_out(strike, Some(stopped));
            }
        }
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
