//! Partial connectivity (*OmniPaxos*, EuroSys 2023): wherever some member reaches a quorum, one that
//! does ends up leading and commits, also if the member in the middle lacks entries that the others
//! hold.

use crate::cluster::{Cluster, Settings};
use bytes::Bytes;
use std::time::Duration;
use synod_protocols::log::Payload;
use synod_protocols::raft::Raft;
use synod_protocols::types::NodeId;

const SEEDS: u64 = 25;

/// Members 1 to `size`; `hub` misses what is committed last, and then only `links` are left.
fn a_stale_hub_makes_progress(size: u64, hub: u64, links: &[(u64, u64)]) {
    for seed in 0..SEEDS {
        let mut cluster = Cluster::<Raft>::new(size, Settings { seed, ..Settings::default() });
        cluster.pass(Duration::from_secs(2));
        // Some leader other than the hub: else the hub is not stale, and the case another one.
        let leader = cluster.leader().expect("everybody is connected");
        if leader == NodeId(hub) {
            continue;
        }
        cluster.cut(leader, NodeId(hub));
        cluster.cut(NodeId(hub), leader);
        for i in 0..3 {
            cluster.propose(leader, vec![Bytes::from(vec![b'a' + i])]);
            cluster.pass(Duration::from_millis(20));
        }
        for a in 1..=size {
            for b in a + 1..=size {
                let linked = links.contains(&(a, b));
                for (from, to) in [(NodeId(a), NodeId(b)), (NodeId(b), NodeId(a))] {
                    if linked { cluster.heal(from, to) } else { cluster.cut(from, to) }
                }
            }
        }
        cluster.pass(Duration::from_secs(4));
        let marker = Bytes::from_static(b"after");
        for id in cluster.ids() {
            cluster.propose(id, vec![marker.clone()]);
        }
        cluster.pass(Duration::from_millis(500));
        let committed = |id: u64| {
            let mut delivered = cluster.node(NodeId(id)).delivered.iter();
            delivered.any(|entry| entry.payload == Payload::Command(marker.clone()))
        };
        assert!(committed(hub), "seed {seed}: nothing new is committed");
    }
}

#[test]
fn quorum_loss() {
    a_stale_hub_makes_progress(5, 3, &[(1, 3), (2, 3), (3, 4), (3, 5)]);
}

#[test]
fn constrained_election() {
    // The member with the longest log reaches the hub only, and the hub a quorum.
    a_stale_hub_makes_progress(5, 1, &[(1, 2), (1, 3), (1, 4)]);
}

#[test]
fn chain() {
    a_stale_hub_makes_progress(3, 2, &[(1, 2), (2, 3)]);
}

#[test]
fn bridge() {
    a_stale_hub_makes_progress(5, 2, &[(1, 2), (2, 3), (2, 4), (2, 5), (3, 4), (3, 5), (4, 5)]);
}
