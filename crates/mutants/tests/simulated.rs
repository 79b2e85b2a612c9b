//! Well-known mistakes, planted in copies of Raft, must be found by a bounded campaign of the simulator.
//! `-- --nocapture` shows how many seeds and how much time each took.
//!
//! Each bound is a few times the number of seeds that it took when it was written down, so that a
//! simulator which has become blind to a mistake fails here, and a change of the scripts' luck
//! does not. Mistakes that hurt only in one rare story are looked for in scripts that tell it.

use std::time::Instant;
use synod_mutants::raft as bugs;
use synod_protocols::log::ReplicatedLog;
use synod_sim::{Failure, Fault, NoTrace, Span, Swarm, run_with, swarm};

/// Which kind of promise a mistake breaks.
enum Broken {
    Safety,
    Progress,
}

/// Runs seeds until one breaks a promise of that kind.
fn find<P: ReplicatedLog>(name: &str, broken: Broken, nodes: u8, only: Option<Fault>, seeds_max: u64) {
    let common = Swarm { nodes, only, until: Span::secs(4), ..Swarm::default() };
    let began = Instant::now();
    for seed in 0..seeds_max {
        let outcome = run_with::<P>(&swarm(seed, &common), &mut NoTrace);
        let is_found = match broken {
            Broken::Safety => !outcome.verdict.safe,
            Broken::Progress => outcome.verdict.safe && outcome.verdict.live == Some(false),
        };
        if is_found {
            let failure = Failure::of(&common, &outcome).expect("a promise is broken");
            let seconds = began.elapsed().as_secs_f64();
            return println!("{name}: found after {} seeds, {seconds:.2} s: {failure}", seed + 1);
        }
    }
    panic!("{name}: not found in {seeds_max} seeds");
}

macro_rules! planted {
    ($($test:ident: $bug:ident, $nodes:literal, $only:expr, $seeds_max:literal;)*) => {
        $(#[test]
        fn $test() {
            find::<bugs::$bug::Raft>(stringify!($bug), Broken::Safety, $nodes, $only, $seeds_max);
        })*
    };
}

planted! {
    a_forgotten_vote_is_found: vote_forgotten, 3, Some(Fault::Duel), 300;
    a_vote_sent_before_it_is_on_disk_is_found: vote_before_sync, 3, Some(Fault::Duel), 400;
    a_pre_vote_that_clears_a_vote_is_found: pre_vote_clears_vote, 5, Some(Fault::Duel), 1200;
    an_entry_of_an_earlier_term_committed_by_counting_is_found: old_term_counted, 5, Some(Fault::Figure8), 1000;
    a_read_without_confirmed_leadership_is_found: read_unconfirmed, 5, Some(Fault::Deposed), 200;
    an_acknowledgement_before_the_sync_is_found: acknowledged_before_sync, 5, None, 400;
    a_leader_that_does_not_wait_for_its_own_disk_is_found: own_disk_not_awaited, 5, None, 400;
    a_log_truncated_by_a_stale_append_is_found: stale_append_truncates, 5, None, 1500;
    a_voter_that_does_not_compare_logs_is_found: short_log_elected, 5, None, 400;
}

#[test]
fn a_voter_that_does_not_offer_its_longer_log_stalls_a_constrained_election() {
    find::<bugs::longer_log_not_offered::Raft>(
        "longer_log_not_offered",
        Broken::Progress,
        5,
        Some(Fault::Constrained),
        40,
    );
}
