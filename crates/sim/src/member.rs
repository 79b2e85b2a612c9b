//! One member in the world: its node, its disk, its clock, and how they fail.

use crate::clients::Machine;
use crate::clock::Clock;
use crate::dice::{Place, dice};
use crate::disk::SimDisk;
use crate::event::NodeState;
use crate::machine::SimMap;
use crate::script::Script;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use synod_node::frame::{
    FRAME_HEADER_BYTES, FrameKind, SEGMENT_HEADER_BYTES, has_frame_magic, peek_frame_header,
};
use synod_node::{
    Bootstrap, ClusterId, Disk, DiskCommand, DiskFault, DiskReply, Input, Node, NodeConfig, NodeLimits,
    Outbox, StartError,
};
use synod_protocols::log::{Lease, LogLimits, ReplicatedLog, Timing};
use synod_protocols::{NodeId, Reader, Time, Wire};

/// Election timeouts that a client's request may wait inside a member.
const REQUEST_ELECTIONS: u32 = 10;
/// No timer is set.
pub(crate) const NEVER: u64 = u64::MAX;

/// How a machine stands with the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It founded the cluster.
    Founder,
    /// There is no such machine yet.
    Absent,
    /// It was added later.
    Joined,
    /// It was removed; the machine is still there.
    Removed,
}

/// A member.
pub(crate) struct Member<P: ReplicatedLog> {
    /// None while it is down.
    pub(crate) node: Option<Node<P, Machine>>,
    /// How it stands with the cluster, as its operator knows.
    pub(crate) standing: Standing,
    /// The storage of its state machine.
    map: SimMap,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) paused: bool,
    /// What arrived while it was paused.
    pub(crate) inbox: VecDeque<Input<P, Machine>>,
    /// How often it was started; what was under way in an earlier life is void.
    pub(crate) life: u32,
    /// The virtual time of the timer in the queue.
    pub(crate) timer_at: u64,
    /// What its node wants to wait for, as of its last step.
    pub(crate) due: Option<Time>,
    /// How often its timer ran out at the same virtual time, and when that was.
    pub(crate) spins: (u64, u32),
    /// Commands of the disk under way.
    io: Vec<Option<Io>>,
    /// How many commands the disk was given.
    pub(crate) io_count: u64,
    /// How often its state machine was told to make durable what it holds.
    pub(crate) persist_count: u64,
    /// The disk does nothing before this virtual time.
    pub(crate) stalled_until: u64,
    /// Whether a sync ever reported success: then an empty disk is a lost one.
    lived: bool,
    /// Steps, reads under a lease, and bytes of earlier lives.
    pub(crate) steps_before: u64,
    pub(crate) leased_before: u64,
    pub(crate) bytes_before: u64,
    /// Its state as last shown.
    pub(crate) shown: NodeState,
    /// The deadline as last shown, and when it was set.
    pub(crate) deadline: (Option<Time>, u64),
}

/// A command of the disk under way.
struct Io {
    command: DiskCommand,
    /// What writing gave; the sync follows when it is done.
    written: Result<(), DiskFault>,
    /// The last log position that the records in it hold.
    last: Option<u64>,
}

/// What became of a command of the disk.
pub(crate) struct IoDone {
    pub(crate) reply: DiskReply,
    /// Bytes that were synced.
    pub(crate) synced: Option<u64>,
    /// The last log position that was synced with them.
    pub(crate) last: Option<u64>,
}

impl<P: ReplicatedLog> Member<P> {
    pub(crate) fn new(script: &Script, index: u8) -> Member<P> {
        // Machines that were switched on within an hour of each other.
        let origin =
            dice(script.seed, Place::ClockOrigin, index.into(), 0, 0).below(3600 * crate::units::SECOND);
        Member {
            node: None,
            standing: if index < script.nodes { Standing::Founder } else { Standing::Absent },
            map: SimMap::new(),
            disk: SimDisk::new(),
            clock: Clock::new(origin),
            paused: false,
            inbox: VecDeque::new(),
            life: 0,
            timer_at: NEVER,
            due: None,
            spins: (0, 0),
            io: Vec::new(),
            io_count: 0,
            persist_count: 0,
            stalled_until: 0,
            lived: false,
            steps_before: 0,
            leased_before: 0,
            bytes_before: 0,
            shown: NodeState { role: "down", ..NodeState::default() },
            deadline: (None, 0),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Whether there is such a machine.
    pub(crate) fn exists(&self) -> bool {
        self.standing != Standing::Absent
    }

    /// Starts it on its disk. An empty one is a beginning only if it never lived.
    pub(crate) fn start(
        &mut self,
        script: &Script,
        index: u8,
        now: u64,
        out: &mut Outbox<P, Machine>,
    ) -> Result<(), StartError> {
        assert!(self.node.is_none(), "a member is started while it runs");
        self.life += 1;
        let millis = |span: crate::units::Span| Duration::from_nanos(span.0);
        let election = millis(script.election);
        let config = NodeConfig {
            cluster: ClusterId(1),
            id: NodeId(u64::from(index) + 1),
            members: (1..=u64::from(script.nodes)).map(NodeId).collect(),
            bootstrap: match self.lived {
                true => Bootstrap::Existing,
                false if index < script.nodes => Bootstrap::Found,
                false => Bootstrap::Join,
            },
            timing: Timing { heartbeat: millis(script.heartbeat), election },
            log: LogLimits {
                message_bytes_max: script.limits.message_bytes as usize,
                window_messages_max: script.limits.window as usize,
                tail_bytes_max: script.limits.tail_bytes as usize,
                alpha: script.limits.alpha as usize,
                ..LogLimits::default()
            },
            priority: 1,
            lease: script.lease.map(|drift| Lease { drift_ppm: drift.0 }),
            limits: NodeLimits {
                request_timeout: election * REQUEST_ELECTIONS,
                segment_bytes: script.segment,
                ..NodeLimits::default()
            },
            seed: dice(script.seed, Place::Life, index.into(), 0, self.life.into()).next(),
            record: false,
        };
        let machine =
            Machine::open(self.map.clone()).map_err(|error| StartError::Machine(error.to_string()))?;
        self.node = Some(Node::start(config, &mut self.disk, machine, self.clock.at(now), out)?);
        Ok(())
    }

    /// The power goes. Nothing remains but what the disk kept.
    pub(crate) fn crash(&mut self, script: &Script, index: u8) -> crate::disk::CrashReport {
        let mut rng = dice(script.seed, Place::Crash, index.into(), 0, self.life.into());
        let lied = self.disk.has_lied();
        if let Some(node) = self.node.take() {
            let status = node.status();
            self.steps_before += status.steps;
            self.leased_before += status.leased_reads;
            self.bytes_before += status.bytes_written;
            self.map.crash(&mut rng);
        }
        if lied {
            // What lies about the log lies about the state, too, as far as it was not asked for otherwise.
            self.map.lose();
        }
        self.paused = false;
        self.inbox.clear();
        self.io.clear();
        self.timer_at = NEVER;
        self.disk.crash(&mut rng)
    }

    /// The machine's disk is lost, log and state.
    pub(crate) fn wipe(&mut self) {
        assert!(self.node.is_none(), "a disk is lost while its member runs");
        self.disk.wipe();
        self.map = SimMap::new();
    }

    /// Writes what a command wants written, and keeps it until it is done, in the slot that it
    /// returns with the last log position of the records. `each` sees the records.
    pub(crate) fn issue(&mut self, command: DiskCommand, each: impl FnMut(P::Record)) -> (u32, Option<u64>) {
        self.io_count += 1;
        let (written, last) = match &command {
            DiskCommand::Append { segment, create, offset, bytes, .. } => {
                let created = create.map_or(Ok(()), |size| self.disk.create(*segment, size));
                let last = last_position::<P>(bytes, *offset == 0, each);
                (created.and_then(|()| self.disk.write(*segment, *offset, bytes)), last)
            }
            DiskCommand::Read { .. } | DiskCommand::Remove { .. } => (Ok(()), None),
        };
        let io = Some(Io { command, written, last });
        let slot = match self.io.iter().position(Option::is_none) {
            Some(free) => {
                self.io[free] = io;
                free
            }
            None => {
                self.io.push(io);
                self.io.len() - 1
            }
        };
        (slot as u32, last)
    }

    /// A command's time has come.
    pub(crate) fn complete(&mut self, slot: u32) -> IoDone {
        let io = self.io[slot as usize].take().expect("a command of the disk is done once");
        match io.command {
            DiskCommand::Append { ticket, segment, bytes, sync, .. } => {
                let result = io.written.and_then(|()| if sync { self.disk.sync(segment) } else { Ok(()) });
                let synced = (sync && result.is_ok()).then_some(bytes.len() as u64);
                self.lived |= synced.is_some();
                let last = io.last.filter(|_| synced.is_some());
                IoDone { reply: DiskReply::Appended { ticket, result }, synced, last }
            }
            DiskCommand::Read { ticket, segment, offset, len } => {
                let result = self.disk.read(segment, offset, len);
                IoDone { reply: DiskReply::Read { ticket, result }, synced: None, last: None }
            }
            DiskCommand::Remove { ticket, segment } => {
                let result = self.disk.remove(segment);
                IoDone { reply: DiskReply::Removed { ticket, result }, synced: None, last: None }
            }
        }
    }
}

/// The whole frames in what is being appended, which may begin with a segment's header.
pub(crate) fn frames_in(bytes: &Bytes, header: bool) -> impl Iterator<Item = (FrameKind, Bytes)> {
    let mut at = if header { SEGMENT_HEADER_BYTES } else { 0 };
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| has_frame_magic(rest))?;
        let header = peek_frame_header(rest).ok()?;
        let body = at + FRAME_HEADER_BYTES;
        at += header.frame_len();
        Some((header.kind, bytes.slice(body..body + header.body_len)))
    })
}

/// Reads the records in what is being appended: what the disk holds is judged by what was written
/// to it, and not by what the member believes. Returns the last log position that they hold.
fn last_position<P: ReplicatedLog>(
    bytes: &Bytes,
    header: bool,
    mut each: impl FnMut(P::Record),
) -> Option<u64> {
    let mut last = None;
    for (_, body) in frames_in(bytes, header).filter(|(kind, _)| *kind == FrameKind::Records) {
        let mut reader = Reader::new(body);
        while reader.remaining() > 0 {
            let record = P::Record::decode(&mut reader).expect("a node writes whole records");
            if let Some((_, end)) = P::span(&record) {
                last = Some(end.0);
            }
            each(record);
        }
    }
    last
}
