//! Crashes at every point of a member's recording: whatever part of it is on disk, the member comes
//! back, contradicts nobody, and catches up.

use crate::cluster::{Cluster, Settings, Start};
use bytes::Bytes;
use std::time::Duration;
use synod_protocols::log::{CommittedEntry, Index, MembershipChange, Payload, ReplicatedLog};
use synod_protocols::multi_paxos::MultiPaxos;
use synod_protocols::raft::Raft;
use synod_protocols::types::NodeId;
use synod_protocols::viewstamped::Viewstamped;
use synod_protocols::zab::Zab;

const VICTIM: NodeId = NodeId(3);
const PHASES: usize = 8;

fn propose<P: ReplicatedLog>(cluster: &mut Cluster<P>, command: &'static str) {
    let leader = cluster.leader().expect("somebody leads");
    cluster.propose(leader, vec![Bytes::from_static(command.as_bytes())]);
}

fn isolate<P: ReplicatedLog>(cluster: &mut Cluster<P>, id: NodeId) {
    for other in cluster.ids().filter(|other| *other != id) {
        cluster.cut(id, other);
        cluster.cut(other, id);
    }
}

fn heal<P: ReplicatedLog>(cluster: &mut Cluster<P>) {
    for a in cluster.ids() {
        cluster.ids().for_each(|b| cluster.heal(a, b));
    }
}

/// The victim leads, proposes what nobody hears, loses it to another leader, gets that one's state
/// as a snapshot, and then entries and a change of members. Its disk keeps up for so many phases of
/// that, and no longer.
fn scenario<P: ReplicatedLog>(fetch_and_crash: bool, cut_log: bool, phases: usize) -> Cluster<P> {
    let mut cluster = Cluster::<P>::new(3, Settings { seed: 3, ..Settings::default() });
    cluster.timeout(VICTIM);
    cluster.run();
    propose(&mut cluster, "before");
    cluster.run();
    isolate(&mut cluster, VICTIM);
    for command in ["x", "y", "z"] {
        cluster.propose(VICTIM, vec![command.into()]);
    }
    cluster.pass(Duration::from_millis(1_500));
    let leader = cluster.leader().expect("another leads");
    assert_ne!(leader, VICTIM);
    propose(&mut cluster, "a");
    cluster.run();
    cluster.begin_segment(VICTIM);
    if cut_log {
        let index = Index(cluster.node(leader).delivered.len() as u64);
        cluster.compact(leader, index);
    }
    heal(&mut cluster);
    cluster.node_mut(VICTIM).manual = true;
    cluster.node_mut(VICTIM).hold_answers = true;
    for phase in 0..PHASES {
        cluster.pass(Duration::from_millis(50));
        if fetch_and_crash && cluster.answer_and_crash(VICTIM) {
            return cluster;
        }
        cluster.answer(VICTIM, false);
        if phase < phases {
            cluster.sync(VICTIM, usize::MAX);
            cluster.run();
        }
        propose(&mut cluster, "b");
        // Viewstamped Replication cannot change its members yet.
        if phase == 3 && P::NAME != Viewstamped::NAME {
            let id = cluster.join();
            cluster.change(leader, MembershipChange::Add { id, context: Bytes::new(), promote: true });
        }
    }
    cluster
}

/// Restarts the victim, and waits until it has everything.
fn recover<P: ReplicatedLog>(mut cluster: Cluster<P>, how: Start<'_>, what: &str) {
    cluster.start(VICTIM, how);
    cluster.node_mut(VICTIM).manual = false;
    cluster.node_mut(VICTIM).hold_answers = false;
    cluster.sync(VICTIM, usize::MAX);
    for _ in 0..100 {
        if cluster.leader().is_some() {
            propose(&mut cluster, "end");
        }
        cluster.pass(Duration::from_millis(50));
        let end = |node: &crate::cluster::Node<P>| {
            let is_end = |entry: &CommittedEntry| entry.payload == Payload::Command("end".into());
            node.delivered.iter().any(is_end)
        };
        let leader = cluster.leader().and_then(|id| cluster.node(id).process.as_ref());
        let members = leader.map(P::members).unwrap_or_default();
        if !members.is_empty() && members.iter().all(|member| end(cluster.node(member.id))) {
            return;
        }
    }
    for node in &cluster.nodes {
        let lines = node.process.as_ref().map(|process| process.describe(cluster.now)).unwrap_or_default();
        println!("{}: {lines:?}", node.id);
    }
    panic!("{what}: the victim does not catch up");
}

fn every_crash<P: ReplicatedLog>() -> usize {
    let mut crashes = 0;
    for (cut_log, phases) in (0..PHASES).flat_map(|phases| [(false, phases), (true, phases)]) {
        let full = scenario::<P>(false, cut_log, phases);
        for durable in 0..=full.unsynced(VICTIM) {
            let mut cluster = full.clone();
            cluster.crash(VICTIM, durable);
            recover(cluster, Start::Resume, &format!("after {phases} phases, with {durable} steps durable"));
            crashes += 1;
        }
    }
    recover(scenario::<P>(true, true, PHASES), Start::Resume, "with a state that is durable and unknown");
    crashes + 1
}

/// As `every_crash`, but one record or the end of the log is lost as well. The member may abstain.
fn every_loss<P: ReplicatedLog>() -> (usize, usize) {
    let (mut recovered, mut abstaining) = (0, 0);
    for cut_log in [false, true] {
        let mut full = scenario::<P>(false, cut_log, PHASES);
        full.node_mut(VICTIM).hold_answers = false;
        full.node_mut(VICTIM).manual = false;
        full.begin_segment(VICTIM);
        full.crash(VICTIM, usize::MAX);
        for lost in 1..=full.node(VICTIM).disk.records().len() + 1 {
            let mut cluster = full.clone();
            cluster.start(VICTIM, Start::Damaged(&[lost]));
            cluster.pass(Duration::from_millis(400));
            let role = cluster.node(VICTIM).process.as_ref().map(|process| process.status().role);
            cluster.crash(VICTIM, usize::MAX);
            if role == Some(synod_protocols::log::Role::Abstaining) {
                abstaining += 1;
            } else {
                recovered += 1;
                recover(cluster, Start::Resume, &format!("without record {lost}"));
            }
        }
    }
    (recovered, abstaining)
}

#[test]
fn raft_recovers_from_a_crash_at_every_point() {
    let crashes = every_crash::<Raft>();
    println!("raft: {crashes} crashes at different points");
    assert!(crashes > 20);
}

#[test]
fn raft_recovers_from_the_loss_of_any_record() {
    let (recovered, abstaining) = every_loss::<Raft>();
    println!("raft: {recovered} losses repaired, {abstaining} that made the member abstain");
    // Only the loss of the last word on the hard state, or of what may have come after it.
    assert!(recovered > 15 && abstaining == 4);
}

#[test]
fn multi_paxos_recovers_from_a_crash_at_every_point() {
    let crashes = every_crash::<MultiPaxos>();
    println!("multi-paxos: {crashes} crashes at different points");
    assert!(crashes > 20);
}

#[test]
fn multi_paxos_recovers_from_the_loss_of_any_record() {
    let (recovered, abstaining) = every_loss::<MultiPaxos>();
    println!("multi-paxos: {recovered} losses repaired, {abstaining} that made the member abstain");
    // Only the loss of the last word on its promise, or of what may have come after it.
    assert!(recovered > 15 && abstaining <= 4);
}

#[test]
fn viewstamped_recovers_from_a_crash_at_every_point() {
    let crashes = every_crash::<Viewstamped>();
    println!("viewstamped: {crashes} crashes at different points");
    assert!(crashes > 20);
}

#[test]
fn viewstamped_recovers_from_the_loss_of_any_record() {
    let (recovered, abstaining) = every_loss::<Viewstamped>();
    println!("viewstamped: {recovered} losses repaired, {abstaining} that made the member abstain");
    assert!(recovered > 15 && abstaining <= 4);
}

#[test]
fn zab_recovers_from_a_crash_at_every_point() {
    let crashes = every_crash::<Zab>();
    println!("zab: {crashes} crashes at different points");
    assert!(crashes > 20);
}

#[test]
fn zab_recovers_from_the_loss_of_any_record() {
    let (recovered, abstaining) = every_loss::<Zab>();
    println!("zab: {recovered} losses repaired, {abstaining} that made the member abstain");
    assert!(recovered > 15 && abstaining <= 4);
}
