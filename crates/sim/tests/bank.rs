//! Banks in the simulator: which promises each way keeps under crashes and cuts, what it costs, and what it blocks.

use std::time::Duration;
use synod_sim::bank::{
    Blocking, Blow, Cost, Expected, Fault, Film, Log, Matrix, Outcome, Play, Protocol, Scenario, Strike,
    Whom, banks, blocking, cost, film, run,
};

/// How many seeds of each kind; `SYNOD_SEEDS=200 cargo test -p synod-sim --test bank` runs more.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..std::env::var("SYNOD_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

fn runs(protocol: Protocol, fault: Fault, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    let scenario = |seed| Scenario { fault, ..Scenario::new(protocol, banks(seed), seed) };
    seeds.map(|seed| run(&scenario(seed), false)).collect()
}

/// Every promise is kept in all of these; returns how many transfers were done.
fn all_pass(protocol: Protocol, fault: Fault, seeds: std::ops::Range<u64>) -> u64 {
    let outcomes = runs(protocol, fault, seeds);
    outcomes.iter().for_each(passes);
    outcomes.iter().map(|outcome| outcome.committed).sum()
}

fn passes(outcome: &Outcome) {
    let Scenario { protocol, participants, seed, fault, log, .. } = outcome.scenario;
    assert!(
        outcome.passed(),
        "{outcome}\nreplay: synod sim bank --protocol {protocol} --log {log} --participants {participants} --faults {fault} --seed {seed} --trace"
    );
}

#[test]
fn a_scenario_is_a_pure_function_of_its_seed() {
    let scenario = Scenario::new(Protocol::Replicated, 2, 7);
    let (one, other) = (run(&scenario, true), run(&scenario, true));
    assert_eq!(one.trace, other.trace);
    assert_eq!(one.history, other.history);
    assert_eq!(one.history, run(&scenario, false).history, "watching changes nothing");
    assert!(one.trace.contains("Prepare") && one.trace.contains("AppendEntries"));
}

/// The whole table, with few seeds in each cell; what must break is looked for with more in the next test.
#[test]
fn what_is_to_be_kept_is_kept_under_every_fault() {
    for protocol in Protocol::ALL {
        for fault in Fault::ALL {
            if matches!(fault.expected(protocol), Expected::Kept | Expected::Safe) {
                let done = all_pass(protocol, fault, seeds(4));
                assert!(done > 8 || fault == Fault::Rot, "{protocol} {fault}: only {done} transfers");
            }
        }
    }
}

#[test]
fn what_must_break_is_seen_to_break() {
    let matrix = Matrix {
        protocols: vec![Protocol::None, Protocol::ThreePhase],
        faults: vec![Fault::Isolate, Fault::Partition, Fault::All],
        log: Log::default(),
        seeds: 20,
        threads: 2,
    };
    let cells = matrix.run(&|_, _| {});
    assert!(cells.iter().all(|cell| cell.as_expected), "{}", matrix.markdown(&cells));
}

#[test]
fn the_coordinator_survives_on_every_log() {
    for log in Log::all() {
        for seed in seeds(3) {
            for fault in [Fault::CrashCoordinator, Fault::All] {
                let scenario = Scenario { fault, log, ..Scenario::new(Protocol::Replicated, 2, 3 + seed) };
                let outcome = run(&scenario, false);
                passes(&outcome);
                assert!(outcome.committed > 0, "{log}: {outcome}");
            }
        }
    }
}

/// A member of the coordinator's log whose disk lost a record is helped by the others; a bank is not.
#[test]
fn who_abstains_holds_up_what_waits_for_it_and_breaks_nothing() {
    let outcomes = runs(Protocol::TwoPhase, Fault::Rot, 0..12);
    outcomes.iter().for_each(passes);
    let unknown: u64 = outcomes.iter().map(|outcome| outcome.unknown).sum();
    assert!(unknown > 5, "a coordinator that abstains answers nobody: {unknown}");
    assert!(all_pass(Protocol::Replicated, Fault::Rot, 0..6) > 20);
}

#[test]
fn every_saga_ends_and_readers_see_its_middle() {
    let outcomes = runs(Protocol::Saga, Fault::All, 0..20);
    outcomes.iter().for_each(passes);
    let wrong: u64 = outcomes.iter().map(|outcome| outcome.wrong_reads).sum();
    assert!(wrong > 10, "only {wrong} reads saw money missing");
}

#[test]
fn without_a_protocol_money_is_gone() {
    let outcomes = runs(Protocol::None, Fault::All, 0..20);
    let lost = outcomes.iter().filter(|outcome| outcome.money.0 < outcome.money.1).count();
    assert!(lost > 2, "money was lost in only {lost} of 20 runs");
}

#[test]
fn costs_are_those_of_the_theory() {
    for n in [2, 3, 5] {
        let of = |protocol| cost(protocol, n);
        // Prepare, vote, commit and acknowledgement; a vote and the decision are forced.
        assert_eq!(of(Protocol::TwoPhase), Cost { messages: 4 * n, delays: 2, syncs: 2 });
        // The log's own round trip comes on top, and its sync goes on beside the leader's.
        assert_eq!(of(Protocol::Replicated), Cost { messages: 4 * n, delays: 4, syncs: 2 });
        // No acknowledgement of the last phase; a vote and a pre-commit are forced.
        assert_eq!(of(Protocol::ThreePhase), Cost { messages: 5 * n, delays: 4, syncs: 2 });
        assert_eq!(of(Protocol::Avoid), Cost { messages: 2, delays: 2, syncs: 1 });
        // One call after the other; the orchestrator and the service force once each for each call.
        let saga = of(Protocol::Saga);
        assert_eq!((saga.messages, saga.delays), (2 * n, 2 * n));
        println!("n = {n}: {:?} {saga:?} {:?}", of(Protocol::None), of(Protocol::Replicated));
    }
}

#[test]
fn only_the_plain_coordinator_of_two_phase_commit_holds_locks_until_it_is_back() {
    let down = Duration::from_secs(10);
    for protocol in [Protocol::TwoPhase, Protocol::ThreePhase, Protocol::Replicated] {
        let Blocking { locks, .. } = blocking(protocol, 40, down);
        let longest = Blocking::percentile(&locks, 100);
        println!("{protocol}: {:?} {longest:?}", Blocking::percentile(&locks, 50));
        assert_eq!(longest >= down, protocol == Protocol::TwoPhase, "{protocol}: {longest:?}");
    }
    assert!(blocking(Protocol::None, 40, down).lost > 0);
    assert_eq!(blocking(Protocol::Saga, 40, down).lost, 0);
}

/// A transfer under one cut of bank 2, which comes while the third phase is on its way and ends after three seconds.
fn cut_off(protocol: Protocol) -> Film {
    let strike = |at, blow| Strike { at: Duration::from_millis(at), blow, whom: Whom::Bank(2) };
    let strikes = vec![strike(110, Blow::Cut), strike(3_000, Blow::Heal)];
    film(&Play { protocol, is_refused: false, strikes, until: Duration::from_secs(4) })
}

#[test]
fn a_film_tells_what_was_sent_and_what_was_lost_and_the_cut_splits_three_phases_only() {
    for protocol in [Protocol::Avoid, Protocol::TwoPhase, Protocol::Replicated] {
        assert!(cut_off(protocol).violations.is_empty(), "{protocol}");
    }
    let split = cut_off(Protocol::ThreePhase);
    assert!(!split.violations.is_empty(), "one side commits and the other aborts");
    let times = |kind| split.events.iter().filter(|event| event.kind == kind).count() as u64;
    assert_eq!((times("cut"), times("heal"), times("crash")), (1, 1, 0));
    assert!(times("lost") > 0 && times("send") == split.messages, "{split:?}");
}
