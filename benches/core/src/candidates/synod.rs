//! Synod's four: one driver, since they share the contract.

use crate::{COMMAND_BYTES, Cluster};
use bytes::Bytes;
use std::collections::VecDeque;
use synod_protocols::log::{LogConfig, LogEvent, LogRequest, Payload, ReplicatedLog, Role, Ticket};
use synod_protocols::{Effects, Input, LinkSession, NodeId, Recovery, Time};

pub fn raft(_batch: usize) -> Box<dyn Cluster> {
    Box::new(Members::<synod_protocols::raft::Raft>::start())
}

pub fn multi_paxos(_batch: usize) -> Box<dyn Cluster> {
    Box::new(Members::<synod_protocols::multi_paxos::MultiPaxos>::start())
}

pub fn zab(_batch: usize) -> Box<dyn Cluster> {
    Box::new(Members::<synod_protocols::zab::Zab>::start())
}

pub fn viewstamped(_batch: usize) -> Box<dyn Cluster> {
    Box::new(Members::<synod_protocols::viewstamped::Viewstamped>::start())
}

/// The whole log stays in memory, as with the others.
const TAIL_BYTES: usize = 1 << 30;

struct Members<P: ReplicatedLog> {
    processes: Vec<P>,
    /// Commands that each has delivered.
    delivered: Vec<usize>,
    messages: VecDeque<(NodeId, NodeId, P::Message)>,
    effects: Effects<P>,
    now: Time,
    leader: usize,
    command: Bytes,
}

impl<P: ReplicatedLog> Members<P> {
    fn start() -> Self {
        let ids: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let mut effects = Effects::new();
        let mut processes = Vec::new();
        for id in &ids {
            let mut config = LogConfig::new(*id, ids.clone(), id.0);
            config.limits.tail_bytes_max = TAIL_BYTES;
            let config = P::config(config);
            processes.push(P::recover(config, Recovery::First, Default::default(), Time::ZERO, &mut effects));
            assert!(effects.sends.is_empty(), "nobody is connected yet");
            effects.clear();
        }
        let mut members = Members {
            processes,
            delivered: vec![0; 3],
            messages: VecDeque::new(),
            effects,
            now: Time::ZERO,
            leader: 0,
            command: Bytes::from_static(&[7; COMMAND_BYTES]),
        };
        for (id, peer) in ids.iter().flat_map(|id| ids.iter().map(move |peer| (*id, *peer))) {
            if id != peer {
                members.step(id, Input::LinkUp { peer, session: LinkSession(1) });
            }
        }
        members.elect();
        members
    }

    /// Lets time pass until one leads and the others know it.
    fn elect(&mut self) {
        for _ in 0..10_000 {
            self.run();
            let leader = self.processes[0].status().leader;
            let agreed = self.processes.iter().all(|process| process.status().leader == leader);
            if let (true, Some(leader)) = (agreed, leader) {
                let index = leader.0 as usize - 1;
                let status = self.processes[index].status();
                // What a new leader proposes of its own must be out of the way.
                if status.role == Role::Leader && status.committed == status.last {
                    self.leader = index;
                    return;
                }
            }
            let deadlines = self.processes.iter().map(|process| process.deadline().unwrap_or(Time(u64::MAX)));
            let (at, next) = deadlines.zip(1..).min().expect("three members");
            self.now = self.now.max(at);
            self.step(NodeId(next), Input::Timeout);
        }
        panic!("{} has elected nobody", P::NAME);
    }

    fn step(&mut self, id: NodeId, input: Input<P>) {
        let index = id.0 as usize - 1;
        self.processes[index].step(self.now, input, &mut self.effects);
        let Effects { records, sends, events, asks } = &mut self.effects;
        // Durable at once, so every effect may leave. The log in memory is the process's own.
        records.clear();
        self.messages.extend(sends.drain(..).map(|send| (id, send.to, send.message)));
        for emit in events.drain(..) {
            match emit.event {
                LogEvent::Committed { entries } => {
                    let commands =
                        entries.iter().filter(|entry| matches!(entry.payload, Payload::Command(_)));
                    self.delivered[index] += commands.count();
                }
                LogEvent::Refused { why, .. } => panic!("{} refuses: {why:?}", P::NAME),
                _ => {}
            }
        }
        assert!(asks.is_empty(), "{} asks for what it has just had", P::NAME);
    }

    fn run(&mut self) {
        while let Some((from, to, message)) = self.messages.pop_front() {
            self.step(to, Input::Message { from, message });
        }
    }
}

impl<P: ReplicatedLog> Cluster for Members<P> {
    fn round(&mut self, batch: usize) {
        let wanted = self.delivered[self.leader] + batch;
        let commands = (0..batch).map(|_| self.command.clone()).collect();
        let request = LogRequest::Propose { ticket: Ticket(1), commands };
        self.step(NodeId(self.leader as u64 + 1), Input::Request(request));
        self.run();
        assert_eq!(self.delivered[self.leader], wanted, "{}", P::NAME);
    }

    fn settle(&mut self, commands: usize) {
        for _ in 0..100 {
            if self.delivered.iter().all(|delivered| *delivered == commands) {
                return;
            }
            // The next heartbeat tells the others how far the log is committed.
            let leader = &self.processes[self.leader];
            self.now = self.now.max(leader.deadline().unwrap_or(self.now));
            self.step(NodeId(self.leader as u64 + 1), Input::Timeout);
            self.run();
        }
        panic!("{} has delivered {:?} of {commands}", P::NAME, self.delivered);
    }
}
