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
    change_before_own_commit: Script("raft-no-change-before-an-entry-of-its-term"),
    configuration_when_committed: Script("raft-joint-quorum"),
    damaged_member_votes: Script("raft-repairing-member-does-not-vote"),
    fetched_part_cuts: Script("raft-constrained-conflict"),
    fetched_without_check: Seeds(3000),
    joint_as_one_majority: Script("raft-joint-quorum"),
    learner_counted: Seeds(6000),
    lease_from_the_answer: Script("raft-lease-begins-when-it-was-asked"),
    lease_survives_the_transfer: Script("raft-lease-is-void-after-a-transfer"),
    old_term_counted: Script("raft-figure-8"),
    own_disk_not_awaited: Seeds(3000),
    pre_vote_clears_vote: Seeds(3000),
    read_unconfirmed: Script("raft-read-confirms-leadership-after-it-arrived"),
    repair_without_end: Script("raft-repair-asks-how-far"),
    restarted_voter_does_not_wait: Script("raft-restarted-voter-waits"),
    short_log_elected: Seeds(100),
    snapshot_taken_back: Script("raft-snapshot-replaces-what-differs"),
    stale_append_truncates: Seeds(3000),
    vote_before_sync: Script("raft-unsynced-vote-is-not-told"),
    vote_breaks_the_lease: Script("raft-lease-outlives-connections"),
    vote_forgotten: Script("raft-restart-keeps-the-vote"),
    word_of_what_was_cut: Script("raft-late-word-from-the-disk"),
}
