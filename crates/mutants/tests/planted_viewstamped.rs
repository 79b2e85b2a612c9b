//! Well-known mistakes, planted in copies of Viewstamped Replication, must be found by the protocols'
//! own tests: by random runs, and where the luck that they need is rare, by a golden script.
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
use std::path::Path;
use synod_mutants::viewstamped as bugs;
use synod_protocols::log::ReplicatedLog;

/// Who must find a bug.
enum Finder {
    /// Random runs, within so many seeds.
    Seeds(u64),
    /// This golden script.
    Script(&'static str),
}
use Finder::{Script, Seeds};

fn find<P: ReplicatedLog>(name: &str, finder: &Finder) {
    match finder {
        Seeds(max) => {
            let found = random::first_failure::<P>(0..*max);
            let (seed, why) = found.unwrap_or_else(|| panic!("{name}: not found in {max} seeds"));
            println!("{name}: found after {} seeds: {}", seed + 1, why.lines().next().unwrap_or_default());
        }
        Script(script) => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocols/tests/scripts");
            let text = std::fs::read_to_string(folder.join(format!("{script}.txt"))).expect("the script");
            match catch_unwind(AssertUnwindSafe(|| script::run::<P>(&text))) {
                Ok(Ok(_)) => panic!("{name}: {script} holds with the bug, too"),
                Ok(Err(why)) => {
                    println!("{name}: found by {script}: {}", why.lines().last().unwrap_or_default())
                }
                Err(_) => println!("{name}: found by {script}: the oracle objects"),
            }
        }
    }
}

macro_rules! planted {
    ($($bug:ident: $finder:expr,)*) => {
        $(
            #[test]
            fn $bug() {
                find::<bugs::$bug::Viewstamped>(stringify!($bug), &$finder);
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
    acknowledged_before_sync: Script("vr-backup-acknowledges-after-its-sync"),
    last_normal_before_log: Seeds(3000),
    longest_log_wins: Script("vr-last-normal-view-beats-length"),
    normal_with_a_part: Seeds(3000),
    own_disk_not_awaited: Seeds(3000),
    promise_before_sync: Script("vr-promise-waits-for-its-sync"),
    promise_forgotten: Seeds(3000),
    read_unconfirmed: Script("vr-stale-primary-serves-no-read"),
    recovered_too_early: Script("vr-crash-while-recovering"),
    restarted_primary_goes_on: Seeds(3000),
    truncated_before_state: Script("vr-state-transfer-does-not-truncate"),
}
