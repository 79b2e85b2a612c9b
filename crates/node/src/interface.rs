//! What a node and its host say to each other.

use crate::changes::Change;
use crate::disk::{DiskCommand, DiskFault, DiskReply};
use crate::machine::StateMachine;
use crate::peer::PeerMessage;
use bytes::Bytes;
use std::fmt;
use std::time::Duration;
use synod_protocols::log::{
    ChangeRefusal, CommittedEntry, Epoch, Index, Lease, LogLimits, LogStatus, Member, ReplicatedLog, Role,
    SnapshotPoint, Ticket, Timing,
};
use synod_protocols::{Incarnation, LinkSession, NodeId};

/// A cluster's identity: members, logs and connections of different clusters never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// How a member with an empty disk starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// It founds the cluster, together with the other founding members.
    Found,
    /// It joins a cluster that exists.
    Join,
    /// It has lived before: an empty disk is a lost disk, and is refused.
    Existing,
}

/// What a member is configured with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub id: NodeId,
    /// The founding members, itself included.
    pub members: Vec<NodeId>,
    /// What an empty disk means.
    pub bootstrap: Bootstrap,
    /// Timeouts of the protocol.
    pub timing: Timing,
    /// Bounds of the protocol.
    pub log: LogLimits,
    /// How ready it is to lead, see [`LogConfig::priority`](synod_protocols::log::LogConfig::priority).
    pub priority: u8,
    /// Whether reads may rest on a lease; all members must agree.
    pub lease: Option<Lease>,
    /// Bounds of the node.
    pub limits: NodeLimits,
    /// The seed of this life's randomness.
    pub seed: u64,
    /// Whether to keep a tape of the protocol's inputs ([`Outbox::tape`]).
    pub record: bool,
}

/// Bounds of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// How long a client waits at the most before it is told [`ClientError::Timeout`]. Default 5 s.
    pub request_timeout: Duration,
    /// Requests waiting at the most; at the bound clients are told [`ClientError::Busy`]. Default 65,536.
    pub requests_max: usize,
    /// Bytes of waiting commands at the most; at the bound clients are told [`ClientError::Busy`]. Default 64 MiB.
    pub request_bytes_max: usize,
    /// The size of one command at the most; a larger one is told [`ClientError::TooLarge`]. Default 4 MiB.
    pub command_bytes_max: usize,
    /// The size of one log segment. Default 64 MiB; a larger batch gets a segment of its own size.
    pub segment_bytes: u64,
    /// Bytes of one disk write at the most; what is more waits for the next. Default 4 MiB.
    pub batch_bytes_max: usize,
    /// About how many bytes of a snapshot go in one message. Default 256 KiB; a larger single item goes alone.
    pub snapshot_part_bytes: usize,
}

impl Default for NodeLimits {
    fn default() -> Self {
        NodeLimits {
            request_timeout: Duration::from_secs(5),
            requests_max: 65_536,
            request_bytes_max: 64 << 20,
            command_bytes_max: 4 << 20,
            segment_bytes: 64 << 20,
            batch_bytes_max: 4 << 20,
            snapshot_part_bytes: 256 << 10,
        }
    }
}

/// Why a member cannot start. Each says what to do.
#[derive(Debug)]
pub enum StartError {
    /// The log belongs to another cluster or member, or was written by another protocol or format.
    Foreign {
        /// What differs: what was expected and what was found.
        what: String,
    },
    /// The disk is empty though the member has lived before.
    Blank,
    /// Records that may have been acknowledged are unreadable, and nothing is left to go on with.
    Damaged {
        /// Where and what.
        what: String,
    },
    /// The disk failed.
    Disk(DiskFault),
    /// The state machine's storage failed or contradicts the log.
    Machine(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Foreign { what } | StartError::Damaged { what } | StartError::Machine(what) => {
                f.write_str(what)
            }
            StartError::Blank => f.write_str(
                "the log is empty, though this member has lived before: its data was lost. Restore its data \
                 directory, or remove the member from the cluster and add it again as a new one; started with \
                 nothing under its old name it could break promises that it no longer knows of",
            ),
            StartError::Disk(fault) => write!(f, "the log cannot be read: {fault}"),
        }
    }
}

impl std::error::Error for StartError {}

/// One thing that happens to a node.
#[derive(Debug)]
pub enum Input<P: ReplicatedLog, S: StateMachine> {
    /// A message from a peer.
    Peer {
        /// The sender, as authenticated by the host.
        from: NodeId,
        /// The message.
        message: PeerMessage<P::Message>,
    },
    /// A connection to a peer exists.
    LinkUp {
        /// The peer.
        peer: NodeId,
        /// A larger number than any before it.
        session: LinkSession,
    },
    /// The connection to a peer is lost.
    LinkDown {
        /// The peer.
        peer: NodeId,
    },
    /// A client asks something.
    Client {
        /// Returned with the reply; never used twice in one life.
        ticket: Ticket,
        /// What.
        request: Request<S::Query>,
    },
    /// The disk answers.
    Disk(DiskReply),
    /// The state machine has made durable what [`Outbox::persists`] asked for, or cannot.
    Persisted {
        /// As asked.
        ticket: Ticket,
        /// Why not: the member stops.
        result: Result<(), String>,
    },
    /// The deadline has passed.
    Timeout,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Request<Q> {
    /// Apply this command, once.
    Command(Bytes),
    /// A linearizable read: it sees every write that was acknowledged before it was asked.
    Read(Q),
    /// A read from this member's own state: a prefix of the one order, possibly stale.
    LocalRead(Q),
    /// Change the members, or who leads: passed on to the leader, and answered by
    /// [`Outcome::Changed`] when it is complete.
    Change(Change),
    /// Who the members are, as this one has it: answered by [`Outcome::Changed`] at once.
    Members,
}

/// What a client is told.
#[derive(Debug)]
pub struct Reply<S: StateMachine> {
    /// Which request.
    pub ticket: Ticket,
    /// The outcome.
    pub outcome: Outcome<S>,
}

/// The outcome of a request.
#[derive(Debug)]
pub enum Outcome<S: StateMachine> {
    /// The command was committed and applied.
    Applied {
        /// Where in the log.
        index: Index,
        /// What the state machine said.
        response: S::Response,
    },
    /// The read was served.
    Answered {
        /// The last entry that the state had applied.
        index: Index,
        /// What the state machine said.
        answer: S::Answer,
    },
    /// The change of members, or the transfer, is complete.
    Changed {
        /// Who was added; 0 if nobody was.
        added: NodeId,
        /// Who the members are, as the leader has it.
        members: Vec<Member>,
    },
    /// It was not done, or it is unknown whether it was.
    Failed(ClientError),
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// It was not done: no leader is known that could do it.
    NoLeader,
    /// It was not done: more is waiting than the limits allow.
    Busy,
    /// It was not done: the disk is full or damaged.
    Storage,
    /// It was not done: larger than one entry may be.
    TooLarge,
    /// A read: leadership could not be confirmed in time, nothing was read. A command or a change: it
    /// was sent to the leader and no answer came, **it may or may not take effect**.
    Timeout,
    /// It was not done: the protocol cannot do it.
    Unsupported,
    /// It was not done: the change of members, or the transfer, is not one that can be made.
    Change(ChangeRefusal),
}

/// Something worth knowing to a checker, a page or a log.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The part that this member plays, or the leader that it knows, has changed.
    Role {
        /// Its part.
        role: Role,
        /// Its epoch.
        epoch: Epoch,
        /// The leader it knows.
        leader: Option<NodeId>,
    },
    /// Entries were committed and applied.
    Committed(Vec<CommittedEntry>),
    /// Who the members are, now: whom to keep connections with. It may be taken back.
    Members(Vec<Member>),
    /// The state is now one that was fetched from a peer.
    Installed {
        /// From whom.
        from: NodeId,
        /// What it covers.
        point: SnapshotPoint,
    },
    /// A snapshot, or a part of it, was not accepted, and is fetched again.
    SnapshotRefused {
        /// Whose.
        from: NodeId,
        /// What is wrong with it.
        why: String,
    },
    /// Records that may have been acknowledged are unreadable: where, and how that is known. The
    /// protocol mends what it can, and abstains until then.
    Damaged(String),
    /// The disk has no room; clients are refused until it has.
    DiskFull,
    /// The disk has room again.
    DiskCleared,
    /// The member cannot go on and must be stopped by its host.
    Fatal(String),
}

/// What a node wants done. Hosts empty it, in the order of its fields, after each flush.
#[derive(Debug)]
pub struct Outbox<P: ReplicatedLog, S: StateMachine> {
    /// For the disk, in order. Every command is answered by [`Input::Disk`].
    pub disk: Vec<DiskCommand>,
    /// The state machine was told to make durable what it holds, under these tickets; each is
    /// answered by [`Input::Persisted`].
    pub persists: Vec<Ticket>,
    /// For peers, in order for each peer. Messages to a peer without a connection are dropped.
    pub sends: Vec<PeerSend<P::Message>>,
    /// For clients.
    pub replies: Vec<Reply<S>>,
    /// For checkers, the page, the log.
    pub notices: Vec<Notice>,
    /// The protocol's inputs since the last time, encoded, if [`NodeConfig::record`] is set.
    pub tape: Vec<u8>,
}

/// A message to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSend<M> {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: PeerMessage<M>,
    /// Whether it leaves before this member's disk holds all that was recorded before it. The
    /// protocol has marked it as true even if that is lost.
    pub early: bool,
}

impl<P: ReplicatedLog, S: StateMachine> Outbox<P, S> {
    /// Sends a message which waits for nothing.
    pub(crate) fn send(&mut self, to: NodeId, message: PeerMessage<P::Message>) {
        self.sends.push(PeerSend { to, message, early: false });
    }
}

impl<P: ReplicatedLog, S: StateMachine> Default for Outbox<P, S> {
    fn default() -> Self {
        Outbox {
            disk: Vec::new(),
            persists: Vec::new(),
            sends: Vec::new(),
            replies: Vec::new(),
            notices: Vec::new(),
            tape: Vec::new(),
        }
    }
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The log's own view.
    pub log: LogStatus,
    /// The last entry applied.
    pub applied: Index,
    /// This life.
    pub incarnation: Incarnation,
    /// Whether records that may have been acknowledged were unreadable when this life began.
    pub damaged: bool,
    /// Client requests waiting.
    pub requests: usize,
    /// Reads answered under a lease in this life.
    pub leased_reads: u64,
    /// Syncs of the log in this life.
    pub syncs: u64,
    /// Bytes written to the log in this life.
    pub bytes_written: u64,
    /// Steps of the protocol in this life.
    pub steps: u64,
}
