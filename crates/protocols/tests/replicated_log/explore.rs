//! Exhaustive exploration of small states: every interleaving of deliveries, losses, timeouts,
//! syncs and crashes within a budget, each state visited once.

use crate::cluster::{Cluster, Settings, Start};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use synod_protocols::log::{MembershipChange, ReplicatedLog, Role};
use synod_protocols::types::NodeId;

/// How often each thing may happen in one run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    timeouts: u8,
    proposals: u8,
    crashes: u8,
    losses: u8,
    /// Changes of members.
    changes: u8,
    /// Whether disks sync when the explorer says so.
    slow_disks: bool,
    depth: u8,
    states: usize,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Deliver(NodeId, NodeId),
    Lose(NodeId, NodeId),
    Timeout(NodeId),
    Propose(NodeId),
    /// Asks the first to let the second go.
    Remove(NodeId, NodeId),
    Sync(NodeId),
    Crash(NodeId),
    Restart(NodeId),
}

#[derive(Clone)]
struct State<P: ReplicatedLog> {
    cluster: Cluster<P>,
    left: Budget,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    transitions: usize,
    depth: u8,
    elections: usize,
    committed: usize,
    /// Whether everything within the budget was seen.
    complete: bool,
}

fn explore<P: ReplicatedLog>(members: u64, budget: Budget) -> Found {
    explore_from(Cluster::<P>::new(members, Settings::default()), budget)
}

fn explore_from<P: ReplicatedLog>(mut cluster: Cluster<P>, budget: Budget) -> Found {
    for node in &mut cluster.nodes {
        node.manual = budget.slow_disks;
    }
    let mut seen = HashSet::new();
    let mut found = Found { complete: true, ..Found::default() };
    let mut frontier = VecDeque::from([State { cluster, left: budget }]);
    seen.insert(digest(&frontier[0]));
    while let Some(state) = frontier.pop_front() {
        found.states += 1;
        found.depth = found.depth.max(budget.depth - state.left.depth);
        found.elections += usize::from(state.cluster.leader().is_some());
        found.committed += usize::from(state.cluster.oracle.committed().0 > 1);
        if state.left.depth == 0 {
            found.complete = false;
            continue;
        }
        for action in actions(&state) {
            let mut next = state.clone();
            next.left.depth -= 1;
            act(&mut next, action);
            found.transitions += 1;
            if seen.len() >= budget.states {
                found.complete = false;
            } else if seen.insert(digest(&next)) {
                frontier.push_back(next);
            }
        }
    }
    found
}

fn digest<P: ReplicatedLog>(state: &State<P>) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut digest = synod_protocols::Fingerprint::new();
    state.cluster.fingerprint().hash(&mut digest);
    // Breadth first, so that a state is met with the largest depth left first.
    let Budget { timeouts, proposals, crashes, losses, changes, .. } = state.left;
    (timeouts, proposals, crashes, losses, changes).hash(&mut digest);
    digest.finish()
}

fn actions<P: ReplicatedLog>(state: &State<P>) -> Vec<Action> {
    let (cluster, left) = (&state.cluster, &state.left);
    let mut actions = Vec::new();
    for to in cluster.ids() {
        for from in cluster.ids() {
            if !cluster.wire(from, to).is_empty() {
                actions.push(Action::Deliver(from, to));
                if left.losses > 0 && from != to {
                    actions.push(Action::Lose(from, to));
                }
            }
        }
        let Some(process) = &cluster.node(to).process else {
            actions.push(Action::Restart(to));
            continue;
        };
        if cluster.has_unsynced(to) {
            actions.push(Action::Sync(to));
        }
        if left.timeouts > 0 && process.status().role != Role::Leader {
            actions.push(Action::Timeout(to));
        }
        if left.proposals > 0 && process.status().role == Role::Leader {
            actions.push(Action::Propose(to));
        }
        if left.changes > 0 && process.status().role == Role::Leader {
            actions.extend(cluster.ids().map(|whom| Action::Remove(to, whom)));
        }
        if left.crashes > 0 {
            actions.push(Action::Crash(to));
        }
    }
    actions
}

fn act<P: ReplicatedLog>(state: &mut State<P>, action: Action) {
    let State { cluster, left } = state;
    match action {
        Action::Deliver(from, to) => drop(cluster.deliver(from, to, 0)),
        Action::Lose(from, to) => {
            left.losses -= 1;
            cluster.wire_mut(from, to).pop_front();
        }
        Action::Timeout(id) => {
            left.timeouts -= 1;
            cluster.timeout(id);
        }
        Action::Propose(id) => {
            left.proposals -= 1;
            cluster.propose(id, vec![Bytes::from_static(b"x")]);
        }
        Action::Remove(id, whom) => {
            left.changes -= 1;
            cluster.change(id, MembershipChange::Remove(whom));
        }
        Action::Sync(id) => cluster.sync(id, 1),
        Action::Crash(id) => {
            left.crashes -= 1;
            cluster.crash(id, 0);
        }
        Action::Restart(id) => cluster.start(id, Start::Resume),
    }
}

fn report<P: ReplicatedLog>(what: &str, found: &Found) {
    println!(
        "{}, {what}: {} states, {} transitions, depth {}, {} states with a leader, {} with a committed command{}",
        P::NAME,
        found.states,
        found.transitions,
        found.depth,
        found.elections,
        found.committed,
        if found.complete { ", complete" } else { ", cut off at the bound" }
    );
    // Breadth first, a protocol with many messages may not get that far within the bound.
    assert!(found.elections > 0 || !found.complete, "exploration never saw a leader");
}

fn one_election_and_one_command<P: ReplicatedLog>() {
    let budget = Budget {
        timeouts: 1,
        proposals: 1,
        crashes: 0,
        losses: 0,
        changes: 0,
        slow_disks: false,
        depth: 60,
        states: 40_000,
    };
    let found = explore::<P>(3, budget);
    report::<P>("3 members, 1 timeout, 1 command", &found);
    assert!(found.complete && found.committed > 0, "{found:?}");
}

fn two_candidates_and_a_loss<P: ReplicatedLog>() {
    let budget = Budget {
        timeouts: 2,
        proposals: 0,
        crashes: 0,
        losses: 1,
        changes: 0,
        slow_disks: false,
        depth: 60,
        states: 40_000,
    };
    report::<P>("3 members, 2 timeouts, 1 loss", &explore::<P>(3, budget));
}

fn a_crash_between_any_two_syncs<P: ReplicatedLog>() {
    let budget = Budget {
        timeouts: 2,
        proposals: 1,
        crashes: 1,
        losses: 0,
        changes: 0,
        slow_disks: true,
        depth: 60,
        states: 40_000,
    };
    let found = explore::<P>(2, budget);
    report::<P>("2 members, 2 timeouts, 1 command, 1 crash, slow disks", &found);
    assert!(found.committed > 0, "{found:?}");
}

/// One member leads, and its next command and somebody else's impatience meet a crash.
fn a_crash_after_an_election<P: ReplicatedLog>() {
    let mut cluster = Cluster::<P>::new(3, Settings::default());
    cluster.timeout(NodeId(1));
    cluster.run();
    assert!(cluster.leader() == Some(NodeId(1)), "an undisturbed member is elected");
    let budget = Budget {
        timeouts: 1,
        proposals: 1,
        crashes: 1,
        losses: 0,
        changes: 0,
        slow_disks: true,
        depth: 60,
        states: 15_000,
    };
    let found = explore_from(cluster, budget);
    report::<P>("3 members after an election, 1 timeout, 1 command, 1 crash, slow disks", &found);
    assert!(found.committed > 0, "{found:?}");
}

/// A change of members that meets two elections.
fn a_change_of_members_between_elections<P: ReplicatedLog>() {
    let budget = Budget {
        timeouts: 2,
        proposals: 0,
        crashes: 0,
        losses: 0,
        changes: 1,
        slow_disks: false,
        depth: 60,
        states: 15_000,
    };
    let found = explore::<P>(2, budget);
    report::<P>("2 members, 2 timeouts, 1 removal", &found);
    assert!(found.committed > 0, "{found:?}");
    report::<P>("3 members, 1 timeout, 1 removal", &explore::<P>(3, Budget { timeouts: 1, ..budget }));
}

/// A removal while steps are lost in a crash.
fn a_change_of_members_and_a_crash_between_syncs<P: ReplicatedLog>() {
    let budget = Budget {
        timeouts: 2,
        proposals: 0,
        crashes: 1,
        losses: 0,
        changes: 1,
        slow_disks: true,
        depth: 60,
        states: 15_000,
    };
    report::<P>("2 members, 2 timeouts, 1 removal, 1 crash, slow disks", &explore::<P>(2, budget));
}

macro_rules! explorations {
    ($($module:ident: $protocol:ty, $($what:ident)*;)*) => {$(
        mod $module {
            $(
                #[test]
                fn $what() {
                    super::$what::<$protocol>();
                }
            )*
        }
    )*};
}

explorations! {
    raft: synod_protocols::raft::Raft, one_election_and_one_command two_candidates_and_a_loss a_crash_between_any_two_syncs a_crash_after_an_election a_change_of_members_between_elections a_change_of_members_and_a_crash_between_syncs;
    multi_paxos: synod_protocols::multi_paxos::MultiPaxos, one_election_and_one_command two_candidates_and_a_loss a_crash_between_any_two_syncs;
    viewstamped: synod_protocols::viewstamped::Viewstamped, one_election_and_one_command two_candidates_and_a_loss a_crash_between_any_two_syncs;
    zab: synod_protocols::zab::Zab, one_election_and_one_command two_candidates_and_a_loss a_crash_between_any_two_syncs a_crash_after_an_election a_change_of_members_between_elections a_change_of_members_and_a_crash_between_syncs;
}
