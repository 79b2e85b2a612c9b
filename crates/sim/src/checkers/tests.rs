//! What the checkers see, and what they let pass.

use super::*;
use synod_protocols::log::Epoch;
use synod_protocols::multi_paxos::MultiPaxos;
use synod_protocols::raft::Raft;

fn entry(index: u64, epoch: u64, command: &'static str) -> CommittedEntry {
    CommittedEntry { index: Index(index), epoch: Epoch(epoch), payload: Payload::Command(command.into()) }
}

fn status(role: Role, epoch: u64) -> LogStatus {
    LogStatus {
        role,
        epoch: Epoch(epoch),
        voted_for: None,
        leader: None,
        base: Index(0),
        last: Index(0),
        last_epoch: Epoch(0),
        durable: Index(0),
        committed: Index(0),
        first_in_memory: Index(1),
        ignored: 0,
    }
}

/// Three members that hold and have synced two entries of epoch 1.
fn checkers() -> Checkers {
    let mut checkers = Checkers::new::<Raft>(3, 3, 16);
    for member in 0..3 {
        checkers.members[usize::from(member)].log = vec![1, 1];
        checkers.on_synced(member, 2, true);
    }
    checkers
}

fn promises(checkers: &Checkers) -> Vec<&'static str> {
    checkers.violations.iter().map(|violation| violation.promise).collect()
}

#[test]
fn two_leaders_of_one_epoch_are_found() {
    let mut checkers = checkers();
    checkers.on_elected(1, 0, 3);
    checkers.on_elected(2, 0, 3);
    assert_eq!(promises(&checkers), [""; 0]);
    checkers.on_elected(3, 1, 3);
    assert_eq!(promises(&checkers), ["election safety"]);
}

#[test]
fn a_leader_without_a_committed_entry_is_found_but_an_old_one_may_lack_it() {
    let mut checkers = checkers();
    checkers.on_committed(1, 0, &[entry(1, 1, "a")], &status(Role::Leader, 4));
    checkers.members[2].log.clear();
    checkers.on_elected(2, 2, 3);
    assert_eq!(promises(&checkers), [""; 0]);
    checkers.on_elected(3, 2, 5);
    assert_eq!(promises(&checkers), ["leader completeness"]);
}

#[test]
fn a_commit_without_a_majority_of_disks_is_found() {
    let mut checkers = Checkers::new::<Raft>(3, 3, 16);
    for member in 0..3 {
        checkers.members[usize::from(member)].log = vec![1];
        checkers.on_synced(member, 1, member == 0);
    }
    checkers.on_committed(1, 0, &[entry(1, 1, "a")], &status(Role::Leader, 1));
    assert_eq!(promises(&checkers), ["durability"]);
    assert!(checkers.violations[0].detail.contains("n1 alone"), "{}", checkers.violations[0].detail);
}

#[test]
fn what_was_chosen_and_proposed_again_counts_where_positions_are_agreed_on_one_by_one() {
    let with = |mut checkers: Checkers, digest: u64| {
        for member in 0..3 {
            checkers.members[usize::from(member)].log = vec![if member == 0 { 1 } else { 2 }];
            checkers.on_synced(member, 1, member < 2);
        }
        checkers.learn(1, 2, 1, Seen { epoch: 2, digest, previous: 0 });
        checkers.on_committed(1, 0, &[entry(1, 1, "a")], &status(Role::Leader, 1));
        promises(&checkers)
    };
    let same = payload_digest(&Payload::Command("a".into()));
    assert_eq!(with(Checkers::new::<MultiPaxos>(3, 3, 16), same), [""; 0]);
    assert_eq!(with(Checkers::new::<MultiPaxos>(3, 3, 16), same + 1), ["durability"]);
    assert_eq!(with(Checkers::new::<Raft>(3, 3, 16), same), ["durability"]);
}

/// Five members; the first three found the cluster and hold two entries, which are on the disks of those named when
/// the first hears that it, the fourth and the fifth are the members from now on. Later they are on the second's disk.
fn commit_across_a_change(on_disk: &[u8]) -> Vec<&'static str> {
    let mut checkers = Checkers::new::<Raft>(3, 5, 16);
    for member in 0..3 {
        checkers.members[usize::from(member)].log = vec![1, 1];
        checkers.on_synced(member, 2, on_disk.contains(&member));
    }
    let members = [1, 4, 5].map(|id| Member {
        id: synod_protocols::NodeId(id),
        context: bytes::Bytes::new(),
        part: MemberPart::Voter,
    });
    checkers.on_members(0, &members);
    checkers.on_synced(1, 2, true);
    checkers.on_committed(1, 0, &[entry(1, 1, "a"), entry(2, 1, "b")], &status(Role::Leader, 1));
    promises(&checkers)
}

#[test]
fn what_a_quorum_held_before_the_members_changed_stays_committed() {
    assert_eq!(commit_across_a_change(&[0, 1]), [""; 0]);
}

#[test]
fn what_reaches_the_disks_after_a_change_is_judged_by_who_counts_then() {
    assert_eq!(commit_across_a_change(&[0]), ["durability"]);
}

#[test]
fn what_was_settled_of_a_log_says_nothing_of_what_replaces_it() {
    let mut checkers = checkers();
    (checkers.members[0].settled, checkers.members[0].last) = (2, 2);
    let taken_back = LogStatus { last: Index(0), ..status(Role::Follower, 2) };
    checkers.observe(1, 0, &founder(), &taken_back);
    assert_eq!(checkers.members[0].settled, 0);
}

#[test]
fn while_members_change_a_quorum_is_two_majorities() {
    let parts = [
        MemberPart::Voter,
        MemberPart::Leaving,
        MemberPart::Leaving,
        MemberPart::Entering,
        MemberPart::Entering,
    ];
    let members: Vec<(u8, MemberPart)> = (0..).zip(parts).collect();
    let counts = |holders: &[u8]| is_quorum(&members, |member| holders.contains(&member));
    assert!(counts(&[0, 1, 3]) && counts(&[1, 2, 3, 4]));
    assert!(!counts(&[0, 1]) && !counts(&[0, 3]) && !counts(&[1, 2, 3]) && !counts(&[]));
    assert!(!is_quorum(&[(0, MemberPart::Learner { promote: true })], |_| true));
}

#[test]
fn different_entries_gaps_and_states_are_found() {
    let mut checkers = checkers();
    let leader = status(Role::Leader, 1);
    checkers.on_committed(1, 0, &[entry(1, 1, "a"), entry(2, 1, "b")], &leader);
    checkers.on_committed(2, 1, &[entry(1, 1, "a")], &leader);
    assert_eq!(promises(&checkers), [""; 0]);
    checkers.on_committed(3, 2, &[entry(1, 1, "x")], &leader);
    checkers.on_committed(4, 1, &[entry(1, 1, "a")], &leader);
    checkers.on_state(5, 0, 2, 77);
    checkers.on_state(6, 1, 2, 78);
    assert_eq!(promises(&checkers), ["state-machine safety"; 3]);
}

#[test]
fn entries_of_one_index_and_epoch_are_one() {
    let mut checkers = checkers();
    checkers.learn(1, 1, 2, Seen { epoch: 2, digest: 5, previous: 1 });
    checkers.learn(1, 2, 2, Seen { epoch: 3, digest: 6, previous: 1 });
    checkers.learn(1, 3, 2, Seen { epoch: 2, digest: 5, previous: 1 });
    assert_eq!(promises(&checkers), [""; 0]);
    checkers.learn(1, 3, 2, Seen { epoch: 3, digest: 5, previous: 1 });
    checkers.learn(1, 3, 2, Seen { epoch: 3, digest: 6, previous: 2 });
    assert_eq!(promises(&checkers), ["log matching"; 2]);
}

#[test]
fn a_member_may_come_back_shorter_only_by_what_was_being_written() {
    let raft = founder();
    let mut checkers = checkers();
    checkers.on_writing(0, 0);
    checkers.on_start(1, 0, &raft, &raft.status(), Index(0));
    assert_eq!(promises(&checkers), [""; 0]);
    checkers.on_start(1, 1, &raft, &raft.status(), Index(0));
    assert_eq!(promises(&checkers), ["durability"]);
}

/// A member that has just begun, with an empty log.
fn founder() -> Raft {
    use synod_protocols::log::{LogConfig, LogLimits, Timing};
    use synod_protocols::{Effects, NodeId, Process, Recovery, Time};
    let (timing, limits) = (Timing::default(), LogLimits::default());
    let common = LogConfig { timing, limits, ..LogConfig::new(NodeId(1), vec![NodeId(1)], 1) };
    let base = Default::default();
    Raft::recover(Raft::config(common), Recovery::First, base, Time(0), &mut Effects::new())
}

#[test]
fn an_acknowledgement_needs_a_commit() {
    let mut checkers = checkers();
    checkers.on_acknowledged(1, 0, 1);
    assert_eq!(promises(&checkers), ["durability"]);
}
