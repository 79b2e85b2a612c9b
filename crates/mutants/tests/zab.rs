//! Well-known mistakes, planted in copies of Zab, must be found by the random runs of the
//! protocols' own tests.
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

use synod_mutants::zab as bugs;
use synod_protocols::log::ReplicatedLog;

fn find<P: ReplicatedLog>(name: &str, seeds_max: u64) {
    let found = random::first_failure::<P>(0..seeds_max);
    let (seed, why) = found.unwrap_or_else(|| panic!("{name}: not found in {seeds_max} seeds"));
    println!("{name}: found after {} seeds: {}", seed + 1, why.lines().next().unwrap_or_default());
}

macro_rules! planted {
    ($($(#[$rare:meta])* $bug:ident: $seeds_max:expr,)*) => {
        $(
            #[test]
            $(#[$rare])*
            fn $bug() {
                find::<bugs::$bug::Zab>(stringify!($bug), $seeds_max);
            }
        )*

        #[test]
        fn every_bug_is_looked_for() {
            let names = [$(stringify!($bug)),*];
            for (bug, about) in bugs::BUGS {
                assert!(names.contains(&bug), "{bug}: nobody looks for it: {about}");
            }
        }
    };
}

planted! {
    #[ignore = "rare: a minute of seeds"]
    acknowledged_before_sync: 40_000,
    commit_before_sync: 2_000,
    epoch_before_history: 1_000,
    #[ignore = "rare: minutes of seeds"]
    epoch_proposed_before_sync: 300_000,
    history_not_fetched: 3_000,
    hole_in_the_history: 500,
    #[ignore = "rare: a minute of seeds"]
    new_leader_not_awaited: 8_000,
    own_disk_not_awaited: 1_000,
    promise_forgotten: 3_000,
    #[ignore = "rare: minutes of seeds"]
    read_unconfirmed: 100_000,
    #[ignore = "rare: minutes of seeds"]
    trunc_repeated: 100_000,
}
