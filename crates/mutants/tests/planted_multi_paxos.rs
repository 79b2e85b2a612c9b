//! Well-known mistakes, planted in copies of Multi-Paxos, must be found by the random runs of the
//! protocol's own tests; those that need a rare sequence of events, by its golden scripts.
//!
//! Each bound is a few times the number of seeds that it took when it was written down, so that a
//! driver which has become blind to a mistake fails here, and a change of its luck does not.

#![allow(unreachable_pub, dead_code)]

#[path = "../../protocols/tests/replicated_log/cluster.rs"]
mod cluster;
#[path = "../../protocols/tests/replicated_log/disk.rs"]
mod disk;
#[path = "../../protocols/tests/replicated_log/host.rs"]
mod host;
#[path = "../../protocols/tests/replicated_log/oracle.rs"]
mod oracle;
#[path = "../../protocols/tests/replicated_log/random.rs"]
mod random;
#[path = "../../protocols/tests/replicated_log/script.rs"]
mod script;
#[path = "../../protocols/tests/replicated_log/subjects.rs"]
mod subjects;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use synod_mutants::multi_paxos as bugs;
use synod_protocols::log::ReplicatedLog;

fn find<P: ReplicatedLog>(name: &str, seeds_max: u64) {
    let found = random::first_failure::<P>(0..seeds_max);
    let (seed, why) = found.unwrap_or_else(|| panic!("{name}: not found in {seeds_max} seeds"));
    println!("{name}: found after {} seeds: {}", seed + 1, why.lines().next().unwrap_or_default());
}

/// Runs the golden scripts until one fails.
fn find_by_script<P: ReplicatedLog>(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocols/tests/scripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|file| file.expect("readable").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("paxos-")))
        .collect();
    files.sort();
    let fails = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("readable");
        let run = catch_unwind(AssertUnwindSafe(|| script::run::<P>(&text)));
        !matches!(run, Ok(Ok(_)))
    };
    let found = files.iter().find(|path| fails(path)).unwrap_or_else(|| panic!("{name}: no script fails"));
    println!("{name}: found by {}", found.file_stem().unwrap_or_default().display());
}

macro_rules! planted {
    (random { $($bug:ident: $seeds_max:expr,)* } scripts { $($rare:ident,)* }) => {
        $(
            #[test]
            fn $bug() {
                find::<bugs::$bug::MultiPaxos>(stringify!($bug), $seeds_max);
            }
        )*
        $(
            #[test]
            fn $rare() {
                find_by_script::<bugs::$rare::MultiPaxos>(stringify!($rare));
            }
        )*

        #[test]
        fn every_bug_is_looked_for() {
            let names = [$(stringify!($bug),)* $(stringify!($rare)),*];
            for (bug, about) in bugs::BUGS {
                assert!(names.contains(&bug), "{bug}: nobody looks for it: {about}");
            }
        }
    };
}

planted! {
    random {
    accepted_past_a_gap: 100,
    acknowledged_before_sync: 10_000,
    chosen_without_acceptance: 400,
    own_disk_not_awaited: 800,
    own_values_preferred: 6_000,
    phase_1_incomplete: 600,
    promise_forgotten: 400,
    read_before_the_opening: 100,
    values_behind_dropped: 4_000,
    }
    scripts {
    ballot_used_again,
    lower_ballot_wins,
    promise_before_sync,
    read_unconfirmed,
    stale_ballot_accepted,
    }
}
