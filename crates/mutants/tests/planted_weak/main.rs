//! Well-known mistakes, planted in copies of causal and eventual replication, must be found by their own tests: by
//! a golden script, and where a moment is rare and many would do, by random runs.
//!
//! A bound on seeds is a few times the number that it took when it was written down.

// The driver is shared with the protocols' own tests, which use all of it, and each copy of a protocol has one.
#![allow(unreachable_pub, dead_code, unused_imports, missing_docs, clippy::duplicate_mod)]

extern crate alloc;

mod weak {
    include!(concat!(env!("OUT_DIR"), "/weak_driven.rs"));
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
fn by_script(bug: &str, name: &str, run: fn(&str) -> Result<(), String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocols/tests/weak/scripts");
    let text = std::fs::read_to_string(folder.join(format!("{name}.txt"))).expect("the script");
    let why = match catch_unwind(AssertUnwindSafe(|| run(&text))) {
        Ok(Ok(())) => panic!("{bug}: {name} holds with the bug, too"),
        Ok(Err(why)) => why.lines().last().unwrap_or_default().to_owned(),
        Err(_) => "a promise is broken".to_owned(),
    };
    println!("{bug}: found by {name}: {why}");
}

/// One test for each bug, and one that none is left out. What finds a bug is compiled for it, and no more.
macro_rules! planted {
    ($($bug:ident: $finder:ident $what:literal,)*) => {
        $(
            #[test]
            fn $bug() {
                planted!(@ $finder $bug $what);
            }
        )*

        #[test]
        fn every_bug_is_looked_for() {
            let names = [$(stringify!($bug)),*];
            for (bug, about) in weak::copies::BUGS {
                assert!(names.contains(&bug), "{bug}: nobody looks for it: {about}");
            }
        }
    };
    (@ causal $bug:ident $max:literal) => {
        by_seeds(stringify!($bug), $max, |seed| {
            use weak::$bug::{random, subject::Causal};
            random::drive::<Causal>(seed, &mut random::Totals::default());
        })
    };
    (@ eventual $bug:ident $max:literal) => {
        by_seeds(stringify!($bug), $max, |seed| {
            use weak::$bug::{random, subject::Eventual};
            random::drive::<Eventual>(seed, &mut random::Totals::default());
        })
    };
    (@ script $bug:ident $name:literal) => {
        by_script(stringify!($bug), $name, weak::$bug::script::run)
    };
}

planted! {
    acknowledged_before_sync: script "nothing-is-heard-before-its-sync",
    came_meanwhile_stays: script "what-came-meanwhile-was-removed",
    clock_runs_back: script "clock-set-back-while-down",
    damage_is_forgotten: script "damaged-newcomer-abstains",
    damage_is_served: script "damaged-member-abstains",
    dot_used_again: causal 10,
    early_ones_block: script "early-ones-do-not-block-what-they-wait-for",
    full_disk_takes_writes: script "full-disk-and-room-again",
    full_for_ever: script "full-disk-and-room-again",
    last_to_arrive_wins: eventual 10,
    newcomer_writes_at_once: script "newcomer-catches-up-first",
    parts_are_mixed: script "parts-of-two-answers",
    removal_is_forgotten: script "removal-before-its-addition",
    report_not_awaited: script "tombstone-waits-for-what-the-others-had-seen",
    shown_before_its_causes: script "effects-after-causes",
    token_ignored: causal 10,
    token_not_sealed: script "forged-token",
    tombstone_too_early: eventual 10,
}
