//! Well-known mistakes, planted in copies of atomic commit and of sagas, must be found by their own tests: by a
//! golden script, and where a moment is rare and many would do, by random runs.
//!
//! A bound on seeds is a few times the number that it took when it was written down.

// The drivers are shared with the protocols' own tests, which use all of them, and each copy of a protocol has one.
#![allow(unreachable_pub, dead_code, unused_imports, missing_docs, clippy::duplicate_mod)]

extern crate alloc;

mod commit {
    include!(concat!(env!("OUT_DIR"), "/commit_driven.rs"));
}
mod saga {
    include!(concat!(env!("OUT_DIR"), "/saga_driven.rs"));
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Random runs must find it within so many seeds: in one of them a promise is broken.
fn by_seeds(bug: &str, max: u64, drive: impl Fn(u64)) {
    let found = (0..max).find_map(|seed| Some((seed, catch_unwind(AssertUnwindSafe(|| drive(seed))).err()?)));
    let (seed, panic) = found.unwrap_or_else(|| panic!("{bug}: not found in {max} seeds"));
    let why = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    println!(
        "{bug}: found after {} seeds: {}",
        seed + 1,
        why.and_then(|why| why.lines().next()).unwrap_or_default()
    );
}

/// This golden script must find it.
fn by_script(bug: &str, folder: &str, name: &str, run: fn(&str) -> Result<(), String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocols/tests").join(folder);
    let text = std::fs::read_to_string(folder.join(format!("scripts/{name}.txt"))).expect("the script");
    let why = match catch_unwind(AssertUnwindSafe(|| run(&text))) {
        Ok(Ok(())) => panic!("{bug}: {name} holds with the bug, too"),
        Ok(Err(why)) => why.lines().last().unwrap_or_default().to_owned(),
        Err(_) => "a promise is broken".to_owned(),
    };
    println!("{bug}: found by {name}: {why}");
}

/// One test for each bug, and one that none is left out. What finds a bug is compiled for it, and no more.
macro_rules! planted {
    ($protocol:ident, $every:ident, $($bug:ident: $finder:ident $what:literal,)*) => {
        $(
            #[test]
            fn $bug() {
                planted!(@ $protocol $finder $bug $what);
            }
        )*

        #[test]
        fn $every() {
            let names = [$(stringify!($bug)),*];
            for (bug, about) in $protocol::copies::BUGS {
                assert!(names.contains(&bug), "{bug}: nobody looks for it: {about}");
            }
        }
    };
    (@ commit seeds $bug:ident $max:literal) => {
        by_seeds(stringify!($bug), $max, |seed| {
            use commit::$bug::{party::TwoPhase, random};
            random::drive::<TwoPhase>(seed, &mut random::Totals::default(), false);
        })
    };
    (@ commit script $bug:ident $name:literal) => {
        by_script(
            stringify!($bug),
            "atomic_commit",
            $name,
            commit::$bug::script::run::<commit::$bug::party::TwoPhase>,
        )
    };
    (@ saga seeds $bug:ident $max:literal) => {
        by_seeds(stringify!($bug), $max, |seed| {
            use saga::$bug::random;
            random::drive(seed, &mut random::Totals::default());
        })
    };
    (@ saga script $bug:ident $name:literal) => {
        by_script(stringify!($bug), "saga", $name, saga::$bug::script::run)
    };
}

planted! {
    commit, every_bug_of_atomic_commit_is_looked_for,
    below_the_floor_begins: script "2pc-late-prepare-below-the-floor",
    commit_with_a_vote_missing: seeds 200,
    decision_before_sync: script "2pc-decision-before-anybody-hears-it",
    decision_not_logged: script "2pc-decision-survives-the-coordinator",
    epoch_used_again: script "2pc-new-life-names-its-own",
    fence_forgotten: script "2pc-fence-survives-a-restart",
    impatient_participant: script "2pc-blocks-when-the-coordinator-dies",
    late_prepare_begins_again: seeds 200,
    lost_work_is_not_noticed: script "2pc-lost-work-is-noticed",
    never_voted_is_committed: seeds 200,
    not_found_is_committed: script "2pc-not-found-is-not-committed",
    one_phase_refusal_forgotten: script "2pc-one-phase-refusal-is-remembered",
    read_only_never_voted: script "2pc-read-only-does-not-say-never-voted",
    read_only_too_early: seeds 200,
    refusal_is_forgotten: script "2pc-cooperative-refusal",
    stale_coordinator_obeyed: script "2pc-stale-coordinator-is-fenced",
    yes_before_sync: script "2pc-yes-after-its-sync",
    yes_forgotten: seeds 200,
}

planted! {
    saga, every_bug_of_sagas_is_looked_for,
    action_after_compensation: script "compensation-overtakes-action",
    backward_forgotten: script "orchestrator-goes-on-backward",
    compensation_twice: script "duplicates",
    compensation_without_action: script "compensation-overtakes-action",
    done_twice: script "duplicates",
    floor_too_high: seeds 100,
    own_output_forgotten: script "own-output-to-its-compensation",
    started_not_logged: seeds 100,
    timeout_is_a_failure: script "given-up-step-is-undone-too",
    undone_in_any_order: script "reverse-order",
    undone_past_the_pivot: script "pivot",
}
