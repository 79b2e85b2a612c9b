//! What a seed does to a cluster: messages are lost, repeated and reordered, members crash with unsynced
//! records and come back, connections break, disks sync late. Safety is checked at every step;
//! then everything heals, and the cluster must make progress.

use crate::cluster::{Answer, Cluster, Node, Settings, Start};
use bytes::Bytes;
use std::time::Duration;
use synod_protocols::Rng;
use synod_protocols::log::{
    CommittedEntry, Index, Lease, LogLimits, MembershipChange, Payload, ReplicatedLog, Role, Timing,
};
use synod_protocols::types::NodeId;

const ACTIONS: u64 = 2_000;

/// How many machines a run with changes of members may add.
const MACHINES_MAX: u64 = 4;

/// What runs have done, so that nobody takes idle ones for a success.
#[derive(Default)]
pub struct Totals {
    pub steps: u64,
    pub crashes: u64,
    pub committed: u64,
    pub reads: u64,
    pub leased: u64,
    pub epochs: u64,
    pub done: u64,
    pub fetched: u64,
    pub damaged: u64,
}

/// A cluster whose size, limits, leases and priorities are drawn from the seed.
pub fn cluster<P: ReplicatedLog>(seed: u64) -> Cluster<P> {
    let mut rng = Rng::new(seed ^ 0x5EED);
    let mut limits = LogLimits::default();
    if rng.chance(1, 2) {
        // Bounds so small that all of them are met.
        limits.message_bytes_max = if rng.chance(1, 2) { 1 } else { 200 };
        limits.window_bytes_max = 500;
        limits.window_messages_max = 4;
        limits.uncommitted_bytes_max = 2_000;
        limits.tail_bytes_max = 300;
        limits.reads_max = 3;
    }
    // Drawn apart, so that what else a seed means does not depend on it.
    limits.alpha = [1, 2, 5, 30, 1_024][Rng::new(seed ^ 0xA1FA).below(5) as usize];
    let size = [1, 2, 3, 3, 3, 5, 5, 5][rng.below(8) as usize];
    let mut settings = Settings { limits, seed, ..Settings::default() };
    if rng.chance(1, 4) {
        // Clocks as different as they may be, and so much that it matters.
        settings.lease = Some(Lease { drift_ppm: 100_000 });
        for id in (1..=size + MACHINES_MAX).map(NodeId) {
            settings.drifts.insert(id, rng.below(95_000) as i64 - 47_500);
        }
    }
    if rng.chance(1, 4) {
        let priority = |id| (NodeId(id), [0, 1, 5][rng.below(3) as usize]);
        settings.priorities = (1..=size).map(priority).collect();
    }
    Cluster::new(size, settings)
}

/// How likely each kind of trouble is in this run, in thousandths of an action.
struct Weather {
    lose: u64,
    repeat: u64,
    reorder: u64,
    crash: u64,
    breaks: u64,
    cut: u64,
    /// In hundredths of the other actions: how often a timer fires. Many make elections collide.
    timers: u64,
    compact: u64,
    /// Whether members come and go.
    change: u64,
    transfer: u64,
    /// Whether one member's disk loses records.
    damage: u64,
}

/// Panics where a promise is broken.
pub fn drive<P: ReplicatedLog>(cluster: &mut Cluster<P>, seed: u64, total: &mut Totals) {
    let mut rng = Rng::new(seed);
    let weather = Weather {
        lose: [0, 10, 100][rng.below(3) as usize],
        repeat: [0, 50][rng.below(2) as usize],
        reorder: [0, 0, 300][rng.below(3) as usize],
        crash: [0, 2, 10][rng.below(3) as usize],
        breaks: [0, 5][rng.below(2) as usize],
        cut: [0, 3][rng.below(2) as usize],
        timers: [0, 0, 20, 40][rng.below(4) as usize],
        compact: [0, 20, 60][rng.below(3) as usize],
        change: [0, 20, 60][rng.below(3) as usize],
        transfer: [0, 5, 20][rng.below(3) as usize],
        damage: [0, 0, 0, 100][rng.below(4) as usize],
    };
    let size = cluster.nodes.len();
    // One damaged member is what a quorum without it can bear.
    let damage = if weather.change == 0 && size > 2 { weather.damage } else { 0 };
    let weather = Weather { damage, ..weather };

    for id in cluster.ids() {
        cluster.nodes[id.0 as usize - 1].manual = rng.chance(2, 3);
    }
    for action in 0..ACTIONS {
        act(cluster, &mut rng, &weather, action, total);
    }
    heal(cluster);
    let marker = Bytes::from_static(b"healed");
    let done = |cluster: &Cluster<P>, marker: &Bytes| {
        let Some(leader) = cluster.leader().and_then(|id| cluster.node(id).process.as_ref()) else {
            return false;
        };
        leader.members().iter().all(|member| {
            let node = cluster.node(member.id);
            let role = node.process.as_ref().map(|process| process.status().role);
            let has = |entry: &CommittedEntry| entry.payload == Payload::Command(marker.clone());
            role == Some(Role::Abstaining) || node.delivered.iter().rev().any(has)
        })
    };
    for round in 0.. {
        assert!(round < 200, "NO PROGRESS: 10 s after the last fault nothing is committed everywhere");
        if let Some(leader) = cluster.leader() {
            cluster.propose(leader, vec![marker.clone()]);
        }
        cluster.pass(Duration::from_millis(50));
        if done(cluster, &marker) {
            break;
        }
    }
    total.committed += cluster.oracle.committed().0;
    total.reads +=
        cluster.outcomes.values().filter(|outcome| matches!(outcome, Answer::Ready(..))).count() as u64;
    let count = |what: fn(&Answer) -> bool| cluster.outcomes.values().filter(|answer| what(answer)).count();
    total.leased += count(|answer| matches!(answer, Answer::Ready(_, Some(_)))) as u64;
    total.done += count(|answer| *answer == Answer::Done) as u64;
    total.fetched += cluster.fetched;
    total.epochs += cluster.oracle.leaders();
    // Whoever was let go has nobody to ask, and gives up.
    cluster.pass(2 * Timing::default().election);
    assert!(cluster.oracle.reads_open() == 0, "a read was never answered");
}

fn act<P: ReplicatedLog>(
    cluster: &mut Cluster<P>,
    rng: &mut Rng,
    weather: &Weather,
    action: u64,
    total: &mut Totals,
) {
    let size = cluster.nodes.len() as u64;
    let id = NodeId(1 + rng.below(size));
    let other = NodeId(1 + rng.below(size));
    if rng.chance(weather.crash, 1_000) && cluster.is_up(id) {
        let durable = rng.below(1 + cluster.unsynced(id) as u64) as usize;
        cluster.crash(id, durable);
        total.crashes += 1;
        return;
    }
    if rng.chance(weather.breaks, 1_000) && id != other {
        cluster.link_down(id, other);
        return cluster.link_up(id, other);
    }
    if rng.chance(weather.cut, 1_000) && id != other {
        return if rng.chance(1, 3) { cluster.cut(id, other) } else { heal_wires(cluster) };
    }
    if rng.chance(weather.compact, 1_000) && cluster.is_up(id) {
        if rng.chance(1, 3) {
            return cluster.begin_segment(id);
        }
        let delivered = cluster.node(id).delivered.len() as u64;
        return cluster.compact(id, Index(rng.between(delivered / 2, delivered)));
    }
    if rng.chance(weather.change, 1_000) {
        return change(cluster, rng);
    }
    if rng.chance(weather.transfer, 1_000) && cluster.is_up(id) {
        let from = cluster.leader().unwrap_or(id);
        cluster.transfer(from, rng.chance(2, 3).then_some(other));
        return;
    }
    if rng.chance(weather.damage, 1_000)
        && !cluster.is_up(id)
        && cluster.nodes.iter().all(|node| node.id == id || !node.disk.was_damaged())
    {
        let records = cluster.node(id).disk.records().len() as u64;
        let lost = rng.between(1, records + 1) as usize;
        cluster.start(id, Start::Damaged(&[lost]));
        total.damaged += 1;
        return;
    }
    if rng.chance(weather.timers, 100) {
        cluster.timeout(id);
        return;
    }
    match rng.below(100) {
        0..60 => traffic(cluster, rng, weather, other, id),
        60..70 => {
            let some = rng.below(4) as usize;
            cluster.sync(id, some);
        }
        70..78 => {
            // Timers fire in order, but for now and then.
            let due = if rng.chance(1, 4) { Some(id) } else { cluster.next_deadline().map(|(_, id)| id) };
            due.map(|id| cluster.timeout(id));
        }
        78..86 => {
            let length = rng.below(60) as usize;
            let command = Bytes::from(format!("{action:-<length$}"));
            let to = if rng.chance(3, 4) { cluster.leader().unwrap_or(id) } else { id };
            if cluster.is_up(to) {
                cluster.propose(to, vec![command; 1 + rng.below(3) as usize]);
            }
        }
        86..91 if cluster.is_up(id) => drop(cluster.read(id)),
        91..94 if cluster.is_up(id) => cluster.apply(id),
        94..97 if rng.chance(1, 20) => drop(cluster.answer_and_crash(id)),
        94..97 => drop(cluster.answer(id, rng.chance(1, 5))),
        97 => cluster.now = cluster.now + Duration::from_millis(rng.below(30)),
        _ if !cluster.is_up(id) => cluster.start(id, Start::Resume),
        _ => {}
    }
}

/// Somebody asks for another set of members.
fn change<P: ReplicatedLog>(cluster: &mut Cluster<P>, rng: &mut Rng) {
    let size = cluster.nodes.len() as u64;
    let some = NodeId(1 + rng.below(size));
    let change = match rng.below(8) {
        0..4 => {
            let waits = |node: &Node<P>| {
                let leader = cluster.leader().and_then(|id| cluster.node(id).process.as_ref());
                leader.is_some_and(|leader| leader.members().iter().all(|member| member.id < node.id))
            };
            let id = match cluster.nodes.iter().find(|node| waits(node)).map(|node| node.id) {
                Some(id) => id,
                None if size < cluster.founders + MACHINES_MAX => cluster.join(),
                None => some,
            };
            MembershipChange::Add { id, context: Bytes::new(), promote: rng.chance(2, 3) }
        }
        4 => MembershipChange::Promote(some),
        5 | 6 => MembershipChange::Remove(some),
        _ => MembershipChange::Replace((1..=size).map(NodeId).filter(|_| rng.chance(1, 2)).collect()),
    };
    let asked = cluster.leader().unwrap_or(some);
    if cluster.is_up(asked) {
        cluster.change(asked, change);
    }
}

fn traffic<P: ReplicatedLog>(
    cluster: &mut Cluster<P>,
    rng: &mut Rng,
    weather: &Weather,
    from: NodeId,
    to: NodeId,
) {
    let length = cluster.wire(from, to).len() as u64;
    if length == 0 {
        return;
    }
    // What a member sends itself is as reliable as its memory.
    if from != to {
        if rng.chance(weather.lose, 1_000) {
            cluster.wire_mut(from, to).pop_front();
            return;
        }
        if rng.chance(weather.repeat, 1_000) {
            let wire = cluster.wire_mut(from, to);
            wire.push_back(wire[0].clone());
        }
    }
    let position = if from != to && rng.chance(weather.reorder, 1_000) { rng.below(length) } else { 0 };
    // Some at once, else queues only grow.
    for _ in 0..1 + rng.below(3) {
        cluster.deliver(from, to, position as usize);
    }
}

fn heal_wires<P: ReplicatedLog>(cluster: &mut Cluster<P>) {
    for a in cluster.ids() {
        cluster.ids().for_each(|b| cluster.heal(a, b));
    }
}

fn heal<P: ReplicatedLog>(cluster: &mut Cluster<P>) {
    heal_wires(cluster);
    for id in cluster.ids() {
        cluster.nodes[id.0 as usize - 1].manual = false;
        cluster.sync(id, usize::MAX);
        if !cluster.is_up(id) {
            cluster.start(id, Start::Resume);
        }
    }
}
