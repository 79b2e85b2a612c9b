//! Well-known mistakes, planted in copies of Raft, must be found by the protocols' own tests: by
//! random runs, and where the luck that they need is rare, by a golden script.
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
use synod_mutants as bugs;
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
                find::<bugs::$bug::Raft>(stringify!($bug), &$finder);
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
    acknowledged_before_sync: Seeds(3000),
    change_before_own_commit: Seeds(3000),
    configuration_when_committed: Seeds(3000),
    damaged_member_votes: Seeds(3000),
    fetched_part_cuts: Seeds(3000),
    fetched_without_check: Seeds(3000),
    joint_as_one_majority: Seeds(3000),
    learner_counted: Seeds(3000),
    lease_from_the_answer: Seeds(3000),
    lease_survives_the_transfer: Seeds(3000),
    old_term_counted: Seeds(3000),
    own_disk_not_awaited: Seeds(3000),
    pre_vote_clears_vote: Seeds(3000),
    read_unconfirmed: Seeds(3000),
    repair_without_end: Seeds(3000),
    restarted_voter_does_not_wait: Seeds(3000),
    short_log_elected: Seeds(3000),
    snapshot_taken_back: Seeds(3000),
    stale_append_truncates: Seeds(3000),
    vote_before_sync: Seeds(3000),
    vote_breaks_the_lease: Seeds(3000),
    vote_forgotten: Seeds(3000),
    word_of_what_was_cut: Seeds(3000),
}
