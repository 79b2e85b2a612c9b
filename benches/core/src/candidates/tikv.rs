//! `raft`, which TiKV is built on: a state machine that hands out what is `Ready`.

use crate::{COMMAND_BYTES, Cluster};
use raft::eraftpb::{ConfState, Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use std::collections::VecDeque;

pub fn cluster(_batch: usize) -> Box<dyn Cluster> {
    Box::new(Members::start())
}

struct Members {
    nodes: Vec<RawNode<MemStorage>>,
    delivered: Vec<usize>,
    messages: VecDeque<Message>,
    command: bytes::Bytes,
}

impl Members {
    fn start() -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = |id| {
            let config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 3,
                max_size_per_msg: 512 << 10,
                max_inflight_msgs: 256,
                // Messages of entries that follow on each other become one.
                batch_append: true,
                ..Default::default()
            };
            let mut members = ConfState::default();
            members.set_voters(vec![1, 2, 3]);
            RawNode::new(&config, MemStorage::new_with_conf_state(members), &logger).expect("a node")
        };
        let mut members = Members {
            nodes: (1..=3).map(node).collect(),
            delivered: vec![0; 3],
            messages: VecDeque::new(),
            command: bytes::Bytes::from_static(&[7; COMMAND_BYTES]),
        };
        members.nodes[0].campaign().expect("it may");
        members.run();
        assert_eq!(members.nodes[0].raft.state, StateRole::Leader);
        members
    }

    /// As in the library's example of five nodes.
    fn handle_ready(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.has_ready() {
            return;
        }
        let store = node.raft.raft_log.store.clone();
        let mut ready = node.ready();
        self.messages.extend(ready.take_messages());
        let mut delivered = count(&ready.take_committed_entries());
        store.wl().append(ready.entries()).expect("it is in memory");
        if let Some(state) = ready.hs() {
            store.wl().set_hardstate(state.clone());
        }
        self.messages.extend(ready.take_persisted_messages());
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            store.wl().mut_hard_state().set_commit(commit);
        }
        self.messages.extend(light.take_messages());
        delivered += count(&light.take_committed_entries());
        node.advance_apply();
        self.delivered[index] += delivered;
    }

    fn run(&mut self) {
        loop {
            (0..3).for_each(|index| self.handle_ready(index));
            if self.messages.is_empty() {
                return;
            }
            while let Some(message) = self.messages.pop_front() {
                let index = message.to as usize - 1;
                self.nodes[index].step(message).expect("it takes it");
            }
        }
    }
}

/// Empty entries are those of new leaders.
fn count(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| !entry.data.is_empty()).count()
}

impl Cluster for Members {
    fn round(&mut self, batch: usize) {
        let wanted = self.delivered[0] + batch;
        // One proposal of many entries, rather than many proposals of one, for its sake.
        let mut proposal = Message { from: 1, to: 1, ..Default::default() };
        proposal.set_msg_type(MessageType::MsgPropose);
        for _ in 0..batch {
            let mut entry = Entry::default();
            entry.set_data(self.command.clone());
            proposal.mut_entries().push(entry);
        }
        self.nodes[0].step(proposal).expect("it takes it");
        self.run();
        assert_eq!(self.delivered[0], wanted);
    }

    fn settle(&mut self, commands: usize) {
        self.run();
        assert_eq!(self.delivered, [commands; 3]);
    }
}
