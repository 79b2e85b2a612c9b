//! What a member's host does for it: the state machine, snapshots, and answers to its questions.
//!
//! The state is the list of everything that was delivered, so that a snapshot is that list: a
//! member that fetches one from a peer has in its place what the peer has, durably.

use crate::cluster::{Cluster, Node};
use synod_protocols::log::{
    CommittedEntry, Epoch, Index, LogAnswer, LogAsk, LogRequest, Payload, ReplicatedLog, SnapshotPoint,
};
use synod_protocols::types::NodeId;
use synod_protocols::{Input, Wire};

impl<P: ReplicatedLog> Node<P> {
    /// The point of the log at `index`, which the state has applied.
    pub fn point(&self, index: Index) -> SnapshotPoint {
        let covered = &self.delivered[..index.0 as usize];
        let membership = covered.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Membership(bytes) => Some(bytes.clone()),
            Payload::Noop | Payload::Command(_) => None,
        });
        SnapshotPoint {
            index,
            epoch: covered.last().map_or(Epoch(0), |entry| entry.epoch),
            membership: membership.unwrap_or_default(),
        }
    }

    /// Asks that the process repeats are one; a new one takes the place of an older one.
    pub fn take_ask(&mut self, ask: LogAsk) {
        if matches!(ask, LogAsk::Snapshot { .. }) {
            self.asks.retain(|other| !matches!(other, LogAsk::Snapshot { .. }));
        }
        self.asks.push_back(ask);
    }
}

impl<P: ReplicatedLog> Cluster<P> {
    /// The state machine makes durable what it has applied.
    pub fn apply(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let index = Index(node.delivered.len() as u64);
        node.applied = index;
        self.step(id, Input::Request(LogRequest::Applied { index }));
    }

    /// The log is cut after `index`, which the state covers durably; old segments are dropped.
    pub fn compact(&mut self, id: NodeId, index: Index) {
        self.apply(id);
        self.note(|| format!("{id} compacts its log up to {index}"));
        let node = self.node_mut(id);
        let point = node.point(index);
        if node.snapshot.as_ref().is_none_or(|old| old.index < index) {
            node.snapshot = Some(point.clone());
        }
        node.disk.drop_segments::<P>(index);
        self.step(id, Input::Request(LogRequest::Compact { point }));
    }

    /// Answers the oldest question of a member's; `unreadable`: with nothing.
    pub fn answer(&mut self, id: NodeId, unreadable: bool) -> bool {
        let node = self.node_mut(id);
        let Some(ask) = node.asks.pop_front() else { return false };
        match ask {
            LogAsk::Entries { from, to, bytes_max } => {
                let records = if unreadable {
                    Vec::new()
                } else {
                    node.disk.read(from, to, bytes_max, |record| record.to_bytes().len())
                };
                self.note(|| format!("{id} reads {} records from {from} on", records.len()));
                self.step(id, Input::Answer(LogAnswer::Entries { from, records }));
            }
            LogAsk::Snapshot { from, index } if !unreadable => {
                if let Some(point) = self.fetch(id, from, index) {
                    self.step(id, Input::Answer(LogAnswer::Snapshot { point }));
                }
            }
            // It could not be fetched: the process asks again when it is offered again.
            LogAsk::Snapshot { .. } => {}
        }
        true
    }

    /// As `answer` to a question for a snapshot, but the member crashes when the state is durable
    /// and before its process learns of it.
    pub fn answer_and_crash(&mut self, id: NodeId) -> bool {
        match self.node(id).asks.front().copied() {
            Some(LogAsk::Snapshot { from, index }) => {
                self.node_mut(id).asks.pop_front();
                let fetched = self.fetch(id, from, index).is_some();
                self.crash(id, 0);
                fetched
            }
            _ => false,
        }
    }

    /// Puts a peer's state in the place of its own, durably, if the peer is up, reached and has
    /// what is wanted, and if that is news.
    fn fetch(&mut self, id: NodeId, from: NodeId, index: Index) -> Option<SnapshotPoint> {
        if from == id || !self.is_up(from) || self.is_cut(from, id) {
            return None;
        }
        let state: Vec<CommittedEntry> = self.node(from).delivered.clone();
        let node = self.node_mut(id);
        if node.delivered.len() as u64 >= index.0 {
            // Its own state covers that: only its log does not.
        } else if state.len() as u64 >= index.0 {
            node.delivered = state;
        } else {
            return None;
        }
        node.applied = Index(node.delivered.len() as u64);
        let point = node.point(node.applied);
        node.snapshot = Some(point.clone());
        node.disk.drop_segments::<P>(point.index);
        self.fetched += 1;
        self.note(|| format!("{id} has fetched the state of {from} at {}", point.index));
        Some(point)
    }
}
