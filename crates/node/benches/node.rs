//! What a node costs beside its disk and its network: three members of Raft in one thread, messages handed over
//! in memory, a disk that swallows everything.
//!
//! `cargo bench -p synod-node`

use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Instant;
use synod_node::*;
use synod_protocols::log::{LogLimits, Ticket, Timing};
use synod_protocols::raft::{Message, Raft};
use synod_protocols::{LinkSession, NodeId, Time};
use synod_store::proto::etcdserverpb::PutRequest;
use synod_store::{Command, MemoryMap};

type Machine = KvMachine<MemoryMap>;

/// It remembers nothing.
struct NoDisk;

impl Disk for NoDisk {
    fn segments(&mut self) -> Result<Vec<(SegmentId, u64)>, DiskFault> {
        Ok(Vec::new())
    }
    fn read(&mut self, _: SegmentId, _: u64, _: usize) -> Result<Bytes, DiskFault> {
        Ok(Bytes::new())
    }
    fn create(&mut self, _: SegmentId, _: u64) -> Result<(), DiskFault> {
        Ok(())
    }
    fn write(&mut self, _: SegmentId, _: u64, _: &[u8]) -> Result<(), DiskFault> {
        Ok(())
    }
    fn sync(&mut self, _: SegmentId) -> Result<(), DiskFault> {
        Ok(())
    }
    fn remove(&mut self, _: SegmentId) -> Result<(), DiskFault> {
        Ok(())
    }
}

struct Cluster {
    nodes: Vec<Node<Raft, Machine>>,
    inboxes: Vec<VecDeque<(NodeId, PeerMessage<Message>)>>,
    out: Outbox<Raft, Machine>,
    now: Time,
    replies: usize,
}

impl Cluster {
    fn new() -> Cluster {
        let members: Vec<_> = (1..=3).map(NodeId).collect();
        let mut out = Outbox::default();
        let now = Time::from_millis(1);
        let start = |id: &NodeId| {
            let config = NodeConfig {
                cluster: ClusterId(1),
                id: *id,
                members: members.clone(),
                bootstrap: Bootstrap::Found,
                timing: Timing::default(),
                log: LogLimits::default(),
                limits: NodeLimits::default(),
                seed: id.0,
                record: false,
            };
            let machine = KvMachine::open(MemoryMap::new()).expect("empty");
            Node::start(config, &mut NoDisk, machine, now, &mut out).expect("a blank disk")
        };
        let nodes: Vec<_> = members.iter().map(start).collect();
        let inboxes = vec![VecDeque::new(), VecDeque::new(), VecDeque::new()];
        let mut cluster = Cluster { nodes, inboxes, out: Outbox::default(), now, replies: 0 };
        for i in 0..3 {
            for peer in members.iter().filter(|peer| peer.0 != i as u64 + 1) {
                let up = Input::LinkUp { peer: *peer, session: LinkSession(1) };
                cluster.nodes[i].step(now, up, &mut cluster.out);
            }
        }
        cluster
    }

    /// One round of every member's loop. Gives whether anything happened.
    fn round(&mut self) -> bool {
        let mut busy = false;
        for i in 0..3 {
            let id = NodeId(i as u64 + 1);
            while let Some((from, message)) = self.inboxes[i].pop_front() {
                busy = true;
                self.nodes[i].step(self.now, Input::Peer { from, message }, &mut self.out);
            }
            if self.nodes[i].deadline().is_some_and(|deadline| deadline <= self.now) {
                self.nodes[i].step(self.now, Input::Timeout, &mut self.out);
            }
            loop {
                self.nodes[i].flush(self.now, &mut self.out);
                let commands = std::mem::take(&mut self.out.disk);
                for (to, message) in self.out.sends.drain(..) {
                    self.inboxes[to.0 as usize - 1].push_back((id, message));
                }
                self.replies += self.out.replies.drain(..).count();
                self.out.notices.clear();
                if commands.is_empty() {
                    break;
                }
                busy = true;
                for command in commands {
                    self.nodes[i].step(self.now, Input::Disk(command.execute(&mut NoDisk)), &mut self.out);
                }
            }
        }
        busy
    }

    fn settle(&mut self) {
        while self.round() {}
    }

    fn leader(&mut self) -> usize {
        loop {
            self.settle();
            if let Some(leader) = self.nodes[0].status().log.leader {
                return leader.0 as usize - 1;
            }
            self.now = self.now + std::time::Duration::from_millis(10);
        }
    }

    fn steps(&self) -> u64 {
        self.nodes.iter().map(|node| node.status().steps).sum()
    }
}

fn main() {
    for outstanding in [1, 64, 1024] {
        for through in ["leader", "follower"] {
            let mut cluster = Cluster::new();
            let leader = cluster.leader();
            let asked = if through == "leader" { leader } else { (leader + 1) % 3 };
            let puts = 300_000u64;
            let (mut ticket, mut done) = (0, 0);
            let before = cluster.steps();
            let started = Instant::now();
            while done < puts {
                for _ in 0..outstanding {
                    ticket += 1;
                    let key = Bytes::from(ticket.to_string());
                    let put = PutRequest { key, value: Bytes::from_static(&[7; 256]), ..PutRequest::default() };
                    let request = Request::Command(Command::Put(put).encode());
                    let client = Input::Client { ticket: Ticket(ticket), request };
                    cluster.nodes[asked].step(cluster.now, client, &mut cluster.out);
                }
                cluster.settle();
                done += std::mem::take(&mut cluster.replies) as u64;
            }
            let time = started.elapsed();
            let steps = cluster.steps() - before;
            println!(
                "{outstanding:5} outstanding through the {through:8}: {:6.2} µs a put for the three members, \
                 {:5.2} M steps/s, {:.2} steps a put",
                time.as_secs_f64() * 1e6 / done as f64,
                steps as f64 / time.as_secs_f64() / 1e6,
                steps as f64 / done as f64,
            );
        }
    }
}
