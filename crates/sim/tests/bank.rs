//! Banks in the simulator: which promises each way keeps under crashes and cuts, what it costs, and what it blocks.

use std::time::Duration;
use synod_sim::bank::{Blocking, Cost, Faults, Outcome, Protocol, Scenario, blocking, cost, run};

fn runs(protocol: Protocol, faults: Faults, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    let scenario = |seed| Scenario { faults, ..Scenario::new(protocol, 2 + seed % 3, seed) };
    seeds.map(|seed| run(&scenario(seed), false)).collect()
}

fn all_pass(protocol: Protocol, faults: Faults, seeds: std::ops::Range<u64>) -> u64 {
    let outcomes = runs(protocol, faults, seeds);
    for outcome in &outcomes {
        assert!(outcome.passed(), "{outcome}");
        assert!(
            outcome.verdicts.iter().all(|(_, answer)| answer != "no") || !protocol.isolates(),
            "{outcome}"
        );
    }
    outcomes.iter().map(|outcome| outcome.committed).sum()
}

#[test]
fn a_scenario_is_a_pure_function_of_its_seed() {
    let scenario = Scenario::new(Protocol::Replicated, 2, 7);
    let (one, other) = (run(&scenario, true), run(&scenario, true));
    assert_eq!(one.trace, other.trace);
    assert_eq!(one.history, other.history);
    assert!(one.trace.contains("Prepare") && one.trace.contains("AppendEntries"));
}

#[test]
fn two_phase_commit_plain_and_replicated_keep_every_promise_under_all_faults() {
    assert!(all_pass(Protocol::TwoPhase, Faults::All, 0..25) > 100);
    assert!(all_pass(Protocol::Replicated, Faults::All, 0..8) > 30);
    assert!(all_pass(Protocol::Avoid, Faults::All, 0..8) > 30);
}

#[test]
fn three_phase_commit_keeps_its_promises_under_crashes_and_not_under_cuts() {
    assert!(all_pass(Protocol::ThreePhase, Faults::Crashes, 0..25) > 80);
    let broken =
        runs(Protocol::ThreePhase, Faults::All, 0..200).into_iter().find(|outcome| !outcome.passed());
    println!("{}", broken.expect("a cut splits it"));
}

#[test]
fn every_saga_ends_and_readers_see_its_middle() {
    let outcomes = runs(Protocol::Saga, Faults::All, 0..20);
    outcomes.iter().for_each(|outcome| assert!(outcome.passed(), "{outcome}"));
    let wrong: u64 = outcomes.iter().map(|outcome| outcome.wrong_reads).sum();
    assert!(wrong > 10, "only {wrong} reads saw money missing");
}

#[test]
fn without_a_protocol_money_is_gone() {
    let outcomes = runs(Protocol::None, Faults::All, 0..20);
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
