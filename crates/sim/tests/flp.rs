//! The impossibility of Fischer, Lynch and Paterson: what the adversary can do, and against whom.

use std::time::Duration;
use synod_protocols::ben_or::BenOr;
use synod_protocols::paxos::Paxos;
use synod_sim::flp::{Configuration, MEMBERS, PATIENCE_MS, Valence, keep_bivalent, with_timeouts};

const TWO: [Option<bool>; MEMBERS] = [Some(false), Some(true), None];

#[test]
fn what_everybody_wants_is_all_that_can_be_decided() {
    for value in [false, true] {
        let same = Configuration::<Paxos>::new([Some(value), Some(value), None], 1);
        match same.valence(0, 1_000_000) {
            Valence::Univalent { outcome, configurations } => {
                assert_eq!(outcome, Some(value));
                println!("both propose {value}: {configurations} configurations");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_beginning_with_both_values_is_bivalent() {
    let first = Configuration::<Paxos>::new(TWO, 1);
    assert_eq!(first.valence(0, 1_000_000), Valence::Bivalent);
    for (schedule, outcome) in first.bivalence().expect("both can come").into_iter().zip([false, true]) {
        let mut run = first.clone();
        schedule.into_iter().for_each(|step| run.apply(step));
        assert_eq!(run.decided(), Some(outcome));
    }
}

#[test]
fn the_adversary_keeps_paxos_from_deciding_and_nobody_starves() {
    let run = keep_bivalent(Configuration::<Paxos>::new(TWO, 1), 2_000);
    assert_eq!(run.last.decided(), None);
    assert!(run.bivalence.is_some(), "the outcome is still open after {} steps", run.steps);
    assert!(run.steps >= 2_000);
    println!(
        "served {:?}, waited {} at most, {} letters",
        run.served,
        run.waited_max,
        run.last.letters().len()
    );
    let (least, most) = (run.served.iter().min().unwrap(), run.served.iter().max().unwrap());
    assert!(least * 2 >= *most, "turns are shared: {:?}", run.served);
}

#[test]
fn coins_end_what_the_adversary_would_keep_open() {
    let mut rounds = Vec::new();
    for seed in 0..40 {
        let run =
            keep_bivalent(Configuration::<BenOr>::new([Some(false), Some(true), Some(true)], seed), 5_000);
        assert!(run.last.decided().is_some(), "seed {seed}: no decision in {} steps", run.steps);
        rounds.push(run.rounds);
    }
    rounds.sort_unstable();
    println!("rounds to the decision: {rounds:?}");
    assert!(rounds.first() < rounds.last(), "the number of rounds is a distribution");
}

#[test]
fn a_bound_on_delays_brings_the_decision_back_even_if_nobody_knows_it() {
    for delay_ms in [1, PATIENCE_MS / 4, PATIENCE_MS, 10 * PATIENCE_MS] {
        for seed in 0..50 {
            let decided = with_timeouts::<Paxos>(
                TWO,
                seed,
                Duration::from_millis(delay_ms),
                Duration::from_millis(1_000 * (delay_ms + PATIENCE_MS)),
            );
            assert!(decided.is_some(), "delay {delay_ms} ms, seed {seed}");
        }
    }
}
