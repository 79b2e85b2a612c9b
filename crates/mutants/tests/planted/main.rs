//! Well-known mistakes, planted in copies of the protocols, must be found by the protocols' own
//! tests: by random runs, and where the luck that they need is rare, by a golden script.
//!
//! A bound on seeds is a few times the number that it took when it was written down, so that a
//! driver which has become blind to a mistake fails here, and a change of its luck does not.

// The driver is shared with the protocols' own tests, which use all of it.
#![allow(unreachable_pub, dead_code)]

#[path = "../../../protocols/tests/replicated_log/cluster.rs"]
mod cluster;
#[path = "../../../protocols/tests/replicated_log/disk.rs"]
mod disk;
#[path = "../../../protocols/tests/replicated_log/host.rs"]
mod host;
#[path = "../../../protocols/tests/replicated_log/oracle.rs"]
mod oracle;
#[path = "../../../protocols/tests/replicated_log/random.rs"]
mod random;
#[path = "../../../protocols/tests/replicated_log/script.rs"]
mod script;
#[path = "../../../protocols/tests/replicated_log/subjects.rs"]
mod subjects;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;
use synod_protocols::log::ReplicatedLog;

/// Who must find a bug.
enum Finder {
    /// Random runs, within so many seeds.
    Seeds(u64),
    /// This golden script.
    Script(&'static str),
}

fn find<P: ReplicatedLog>(name: &str, finder: &Finder) {
    let began = Instant::now();
    match finder {
        Finder::Seeds(max) => {
            let found = (0..*max).find_map(|seed| Some((seed, failure::<P>(seed)?)));
            let (seed, why) = found.unwrap_or_else(|| panic!("{name}: not found in {max} seeds"));
            let seconds = began.elapsed().as_secs_f64();
            println!("{name}: found after {} seeds, {seconds:.2} s: {why}", seed + 1);
        }
        Finder::Script(script) => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocols/tests/scripts");
            let text = std::fs::read_to_string(folder.join(format!("{script}.txt"))).expect("the script");
            let why = match catch_unwind(AssertUnwindSafe(|| script::run::<P>(&text))) {
                Ok(Ok(_)) => panic!("{name}: {script} holds with the bug, too"),
                Ok(Err(why)) => why.lines().last().unwrap_or_default().to_owned(),
                Err(panic) => first_line(&*panic),
            };
            println!("{name}: found by {script}: {why}");
        }
    }
}

/// Which promise the run of this seed breaks.
fn failure<P: ReplicatedLog>(seed: u64) -> Option<String> {
    let mut cluster = random::cluster::<P>(seed);
    let run = || random::drive(&mut cluster, seed, &mut random::Totals::default());
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    Some(first_line(&*panic))
}

fn first_line(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// One module of tests for each protocol: its bugs, and who finds each.
macro_rules! planted {
    ($protocol:ident::$Process:ident { $($bug:ident: $finder:expr,)* }) => {
        mod $protocol {
            use super::Finder::{Script, Seeds};
            use synod_mutants::$protocol::{self as bugs, BUGS};

            $(
                #[test]
                fn $bug() {
                    super::find::<bugs::$bug::$Process>(stringify!($bug), &$finder);
                }
            )*

            #[test]
            fn every_bug_is_looked_for() {
                let names = [$(stringify!($bug)),*];
                for (bug, about) in BUGS {
                    assert!(names.contains(&bug), "{bug}: nobody looks for it: {about}");
                }
            }
        }
    };
}

planted! { raft::Raft {
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
    longer_log_not_offered: Script("raft-constrained-topology"),
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
} }

planted! { multi_paxos::MultiPaxos {
    accepted_past_a_gap: Script("paxos-gap-is-not-closed-by-old-values"),
    acknowledged_before_sync: Script("paxos-acceptor-answers-after-its-sync"),
    ballot_used_again: Script("paxos-ballot-is-not-used-again"),
    change_at_once: Script("paxos-slots-of-the-window-need-the-old-members"),
    chosen_without_acceptance: Seeds(400),
    damaged_member_promises: Script("paxos-repairing-member-does-not-promise"),
    lower_ballot_wins: Script("paxos-highest-ballot-wins-among-promises"),
    new_members_not_asked: Script("paxos-new-members-are-asked"),
    one_quorum_of_phase_1: Script("paxos-phase-1-of-every-configuration"),
    own_disk_not_awaited: Seeds(800),
    own_values_preferred: Script("paxos-highest-ballot-wins"),
    phase_1_incomplete: Seeds(600),
    promise_before_sync: Script("paxos-promise-waits-for-its-sync"),
    promise_forgotten: Seeds(400),
    read_before_the_opening: Script("paxos-read-waits-for-the-opening"),
    read_unconfirmed: Script("paxos-read-confirms-the-ballot-after-it-arrived"),
    stale_ballot_accepted: Script("paxos-promise-survives-a-restart"),
    repair_without_end: Script("paxos-repair-asks-how-far"),
    values_behind_dropped: Script("paxos-values-behind-are-kept"),
    window_ignored: Script("paxos-window-of-slots"),
    window_of_another: Script("paxos-alpha-must-agree"),
} }

planted! { viewstamped::Viewstamped {
    acknowledged_before_sync: Script("vr-backup-acknowledges-after-its-sync"),
    entry_after_the_last: Script("vr-nothing-follows-the-last-command"),
    epoch_without_its_state: Script("vr-epoch-begins-with-its-own-log"),
    in_effect_when_proposed: Script("vr-uncommitted-change-is-taken-back"),
    last_normal_before_log: Seeds(3000),
    late_transfer_is_followed: Script("vr-lease-is-not-broken-by-a-late-transfer"),
    lease_from_the_answer: Script("vr-lease-begins-when-it-was-asked"),
    lease_survives_the_transfer: Script("vr-lease-is-void-after-a-transfer"),
    longest_log_wins: Script("vr-last-normal-view-beats-length"),
    normal_with_a_part: Seeds(3000),
    old_epoch_goes_on: Script("vr-new-replicas-hold-the-last-command"),
    own_disk_not_awaited: Seeds(3000),
    promise_before_sync: Script("vr-promise-waits-for-its-sync"),
    promise_ends_with_the_connection: Script("vr-lease-outlives-connections"),
    promise_forgotten: Seeds(3000),
    read_unconfirmed: Script("vr-stale-primary-serves-no-read"),
    recovered_too_early: Script("vr-crash-while-recovering"),
    restarted_primary_goes_on: Seeds(3000),
    truncated_before_state: Script("vr-state-transfer-does-not-truncate"),
} }

planted! { zab::Zab {
    acknowledged_before_sync: Script("zab-new-leader-is-acknowledged-last"),
    commit_before_sync: Seeds(2_000),
    damaged_member_counts: Script("zab-repairing-member-does-not-count"),
    epoch_before_history: Seeds(1_000),
    epoch_proposed_before_sync: Script("zab-epoch-is-proposed-after-its-own-promise"),
    history_not_fetched: Seeds(3_000),
    hole_in_the_history: Seeds(500),
    new_leader_not_awaited: Script("zab-commits-nothing-before-it-is-established"),
    own_disk_not_awaited: Seeds(1_000),
    promise_forgotten: Seeds(3_000),
    read_unconfirmed: Script("zab-cut-off-leader-serves-no-read"),
    repair_without_end: Script("zab-repair-asks-how-far"),
    trunc_repeated: Script("zab-trunc-fits-or-not"),
} }
