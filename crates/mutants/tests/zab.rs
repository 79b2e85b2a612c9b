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
    ($($bug:ident: $seeds_max:expr,)*) => {
        $(
            #[test]
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
    acknowledged_before_sync: 20_000,
    commit_before_sync: 20_000,
    epoch_before_history: 20_000,
    epoch_proposed_before_sync: 20_000,
    history_not_fetched: 20_000,
    hole_in_the_history: 20_000,
    new_leader_not_awaited: 20_000,
    own_disk_not_awaited: 20_000,
    promise_forgotten: 20_000,
    read_unconfirmed: 20_000,
    trunc_repeated: 20_000,
}
