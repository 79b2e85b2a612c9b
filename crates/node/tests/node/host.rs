//! A host for one node of scripts.

use crate::disk::MemoryDisk;
use crate::list::List;
use crate::script::{Op, Say, Script};
use bytes::Bytes;
use std::time::Duration;
use synod_node::node::Outcome;
use synod_node::*;
use synod_protocols::log::{LogLimits, Ticket, Timing};
use synod_protocols::{NodeId, Time};

pub(crate) const ME: NodeId = NodeId(1);
pub(crate) const A: NodeId = NodeId(2);
pub(crate) const B: NodeId = NodeId(3);

pub(crate) fn config() -> NodeConfig {
    NodeConfig {
        cluster: ClusterId(7),
        id: ME,
        members: vec![ME, A, B],
        bootstrap: Bootstrap::Found,
        timing: Timing::default(),
        log: LogLimits::default(),
        priority: 1,
        lease: None,
        limits: NodeLimits { segment_bytes: 4096, snapshot_part_bytes: 1000, ..NodeLimits::default() },
        seed: 1,
        record: false,
    }
}

pub(crate) struct Host {
    pub(crate) node: Node<Script, List>,
    pub(crate) disk: MemoryDisk,
    pub(crate) out: Outbox<Script, List>,
    pub(crate) now: Time,
    /// What the node asked of the disk and was not carried out yet.
    pub(crate) pending: Vec<DiskCommand>,
    pub(crate) sent: Vec<(NodeId, PeerMessage<Say>)>,
    pub(crate) replies: Vec<Reply<List>>,
    pub(crate) notices: Vec<Notice>,
    /// What the machine was told to make durable, and has not.
    pub(crate) persists: Vec<Ticket>,
    pub(crate) tape: Vec<u8>,
    tickets: u64,
}

impl Host {
    pub(crate) fn start(disk: MemoryDisk, machine: List) -> Result<Host, StartError> {
        Host::start_with(config(), disk, machine)
    }

    /// A member that was started and whose host has not ended a batch yet.
    pub(crate) fn start_unflushed(disk: MemoryDisk) -> Host {
        Host::begin(config(), disk, List::default()).expect("nothing is damaged")
    }

    pub(crate) fn start_with(
        config: NodeConfig,
        disk: MemoryDisk,
        machine: List,
    ) -> Result<Host, StartError> {
        let mut host = Host::begin(config, disk, machine)?;
        host.flush();
        Ok(host)
    }

    fn begin(config: NodeConfig, mut disk: MemoryDisk, machine: List) -> Result<Host, StartError> {
        let mut out = Outbox::default();
        let now = Time::from_millis(1);
        let node = Node::start(config, &mut disk, machine, now, &mut out)?;
        Ok(Host {
            node,
            disk,
            out,
            now,
            pending: Vec::new(),
            sent: Vec::new(),
            replies: Vec::new(),
            notices: Vec::new(),
            persists: Vec::new(),
            tape: Vec::new(),
            tickets: 0,
        })
    }

    /// A member whose first sync is done.
    pub(crate) fn running() -> Host {
        let mut host = Host::start(MemoryDisk::default(), List::default()).expect("a blank disk is fine");
        host.settle();
        host
    }

    pub(crate) fn step(&mut self, input: Input<Script, List>) {
        self.node.step(self.now, input, &mut self.out);
    }

    pub(crate) fn say(&mut self, ops: impl Into<Vec<Op>>) {
        let message = PeerMessage::Protocol(Say(ops.into()));
        self.step(Input::Peer { from: A, message });
    }

    pub(crate) fn flush(&mut self) {
        self.node.flush(self.now, &mut self.out);
        self.pending.append(&mut self.out.disk);
        self.sent.extend(self.out.sends.drain(..).map(|sent| (sent.to, sent.message)));
        self.replies.append(&mut self.out.replies);
        self.notices.append(&mut self.out.notices);
        self.persists.append(&mut self.out.persists);
        self.tape.append(&mut self.out.tape);
    }

    /// Carries out the oldest disk command.
    pub(crate) fn disk(&mut self) {
        let command = self.pending.remove(0);
        let reply = command.execute(&mut self.disk);
        self.step(Input::Disk(reply));
        self.flush();
    }

    /// Carries out disk commands until there are none.
    pub(crate) fn settle(&mut self) {
        self.flush();
        while !self.pending.is_empty() {
            self.disk();
        }
    }

    /// The machine has made durable what it was told to.
    pub(crate) fn persist(&mut self) {
        for ticket in std::mem::take(&mut self.persists) {
            self.step(Input::Persisted { ticket, result: Ok(()) });
        }
        self.settle();
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.step(Input::Timeout);
        self.flush();
    }

    pub(crate) fn ask(&mut self, request: Request<()>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.step(Input::Client { ticket, request });
        ticket
    }

    pub(crate) fn put(&mut self, command: &'static str) -> Ticket {
        self.ask(Request::Command(Bytes::from_static(command.as_bytes())))
    }

    /// The error that a client was told, if it was told one.
    pub(crate) fn error(&self, ticket: Ticket) -> Option<ClientError> {
        self.replies.iter().find(|reply| reply.ticket == ticket).and_then(|reply| match &reply.outcome {
            Outcome::Failed(error) => Some(*error),
            _ => None,
        })
    }

    pub(crate) fn applied(&self, ticket: Ticket) -> Option<usize> {
        self.replies.iter().find(|reply| reply.ticket == ticket).and_then(|reply| match &reply.outcome {
            Outcome::Applied { response, .. } => Some(*response),
            _ => None,
        })
    }

    /// The tags that left for a peer since the last time.
    pub(crate) fn tags(&mut self, peer: NodeId) -> Vec<u64> {
        let (mine, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| *to == peer);
        self.sent = rest;
        let tags = |message| match message {
            PeerMessage::Protocol(Say(ops)) => ops
                .into_iter()
                .filter_map(|op| if let Op::Tag(tag) = op { Some(tag) } else { None })
                .collect(),
            _ => Vec::new(),
        };
        let mine: Vec<(NodeId, PeerMessage<Say>)> = mine;
        mine.into_iter().flat_map(|(_, message)| tags(message)).collect::<Vec<u64>>()
    }
}
