//! What a node and its protocol cost beside disk, network and state machine: three members of Raft in one thread,
//! messages handed over in memory, a disk and a state machine that swallow everything.
//!
//! `cargo bench -p synod-node --bench node`. On Linux times are processor time, so that a busy machine matters less.

use bytes::Bytes;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};
use synod_node::*;
use synod_protocols::log::{Index, LogLimits, Ticket, Timing};
use synod_protocols::raft::{Message, Raft};
use synod_protocols::{LinkSession, NodeId, Time};

/// It remembers nothing.
struct Machine;

impl StateMachine for Machine {
    type Query = ();
    type Answer = ();
    type Response = ();
    type Error = Infallible;
    type View = ();

    fn apply(&mut self, _: Index, _: Bytes) -> Result<(), Infallible> {
        Ok(())
    }
    fn query(&mut self, (): ()) -> Result<(), Infallible> {
        Ok(())
    }
    fn metadata(&self) -> Result<Option<Stored>, Infallible> {
        Ok(None)
    }
    fn commit(&mut self, _: Stored) -> Result<(), Infallible> {
        Ok(())
    }
    fn persist(&mut self, _: Ticket) -> Result<(), Infallible> {
        Ok(())
    }
    fn view(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
    fn read(&self, (): &(), _: &Bytes, _: usize) -> Result<Part, Infallible> {
        Ok(Part { bytes: Bytes::new(), next: None })
    }
    fn stage(&mut self, _: bool, _: Bytes) -> Result<Result<(), String>, Infallible> {
        Ok(Ok(()))
    }
    fn unstage(&mut self) {}
    fn install(&mut self, _: Stored) -> Result<(), Infallible> {
        Ok(())
    }
}

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
                priority: 1,
                lease: None,
                limits: NodeLimits::default(),
                seed: id.0,
                record: false,
            };
            Node::start(config, &mut NoDisk, Machine, now, &mut out).expect("a blank disk")
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
                for PeerSend { to, message, .. } in self.out.sends.drain(..) {
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
            self.now = self.now + Duration::from_millis(10);
        }
    }

    fn steps(&self) -> u64 {
        self.nodes.iter().map(|node| node.status().steps).sum()
    }
}

/// Processor time of this thread where the system tells it, time on the wall elsewhere.
struct Clock(Option<Duration>, Instant);

impl Clock {
    fn start() -> Clock {
        Clock(Clock::processor(), Instant::now())
    }

    fn processor() -> Option<Duration> {
        let line = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        line.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }

    fn elapsed(&self) -> Duration {
        self.0.zip(Clock::processor()).map_or_else(|| self.1.elapsed(), |(start, end)| end - start)
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
            let clock = Clock::start();
            while done < puts {
                for _ in 0..outstanding {
                    ticket += 1;
                    let request = Request::Command(Bytes::from_static(&[7; 270]));
                    let client = Input::Client { ticket: Ticket(ticket), request };
                    cluster.nodes[asked].step(cluster.now, client, &mut cluster.out);
                }
                cluster.settle();
                done += std::mem::take(&mut cluster.replies) as u64;
            }
            let time = clock.elapsed();
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
