//! `omnipaxos`: a state machine whose outgoing messages are taken from it.

use crate::{COMMAND_BYTES, Cluster};
use omnipaxos::messages::Message;
use omnipaxos::storage::{Entry, NoSnapshot};
use omnipaxos::util::LogEntry;
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;

#[derive(Clone, Debug)]
struct Command(bytes::Bytes);

impl Entry for Command {
    type Snapshot = NoSnapshot;
}

type Node = OmniPaxos<Command, MemoryStorage<Command>>;

pub fn cluster(batch: usize) -> Box<dyn Cluster> {
    Box::new(Members::start(batch))
}

struct Members {
    nodes: Vec<Node>,
    delivered: Vec<usize>,
    messages: Vec<Message<Command>>,
    leader: usize,
    command: bytes::Bytes,
}

impl Members {
    fn start(batch: usize) -> Self {
        let node = |pid| {
            let config = OmniPaxosConfig {
                cluster_config: ClusterConfig {
                    configuration_id: 1,
                    nodes: vec![1, 2, 3],
                    flexible_quorum: None,
                },
                // Its own batching: entries are gathered up to this number.
                server_config: ServerConfig { pid, batch_size: batch, ..Default::default() },
            };
            config.build(MemoryStorage::default()).expect("a node")
        };
        let mut members = Members {
            nodes: (1..=3).map(node).collect(),
            delivered: vec![0; 3],
            messages: Vec::new(),
            leader: 0,
            command: bytes::Bytes::from_static(&[7; COMMAND_BYTES]),
        };
        for _ in 0..1000 {
            members.nodes.iter_mut().for_each(Node::tick);
            members.run();
            // With a leader of which it is sure, in its second phase.
            let known: Vec<_> = members.nodes.iter().map(Node::get_current_leader).collect();
            if let Some((leader, true)) = known[0]
                && known.iter().all(|other| *other == known[0])
            {
                members.leader = leader as usize - 1;
                return members;
            }
        }
        panic!("omnipaxos has elected nobody");
    }

    fn run(&mut self) {
        loop {
            for node in &mut self.nodes {
                node.take_outgoing_messages(&mut self.messages);
            }
            if self.messages.is_empty() {
                break;
            }
            for message in self.messages.drain(..) {
                let index = message.get_receiver() as usize - 1;
                self.nodes[index].handle_incoming(message);
            }
        }
        for (node, delivered) in self.nodes.iter().zip(&mut self.delivered) {
            let decided = node.get_decided_idx();
            if decided > *delivered {
                // Every command is looked at once, as whoever applies it has to.
                let entries = node.read_entries(*delivered..decided).expect("they are decided");
                let commands = entries
                    .iter()
                    .filter(|entry| matches!(entry, LogEntry::Decided(Command(bytes)) if !bytes.is_empty()));
                *delivered += commands.count();
            }
        }
    }
}

impl Cluster for Members {
    fn round(&mut self, batch: usize) {
        let wanted = self.delivered[self.leader] + batch;
        for _ in 0..batch {
            self.nodes[self.leader].append(Command(self.command.clone())).expect("it takes it");
        }
        self.run();
        assert_eq!(self.delivered[self.leader], wanted);
    }

    fn settle(&mut self, commands: usize) {
        self.run();
        assert_eq!(self.delivered, [commands; 3]);
    }
}
