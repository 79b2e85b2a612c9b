//! Well-known mistakes, planted in copies of the protocols, must be found by the random runs of the
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

use synod_mutants::viewstamped as bugs;
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
                find::<bugs::$bug::Viewstamped>(stringify!($bug), $seeds_max);
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
    acknowledged_before_sync: 100000,
    last_normal_before_log: 100000,
    longest_log_wins: 100000,
    normal_with_a_part: 100000,
    own_disk_not_awaited: 100000,
    promise_before_sync: 100000,
    promise_forgotten: 100000,
    read_unconfirmed: 100000,
    restarted_primary_goes_on: 100000,
    truncated_before_state: 100000,
}
