//! The vocabulary of a replicated log, which the consensus protocols share.
//!
//! Whatever sits on top (the store, a transaction coordinator, a user's own state machine) is
//! written against these requests and events and runs on every protocol. Exactly-once sessions
//! live above the log, in the replicated state.

use crate::contract::Process;
use crate::types::{NodeId, Time};
use crate::wire::{DecodeError, Reader, Wire, put_bytes};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// A position in the log; the first entry has index 1, and 0 is the position before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Index(pub u64);

impl Index {
    /// The position before the first entry.
    pub const ZERO: Index = Index(0);

    /// The position after this one.
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The position before this one; before the first there is none, so 0 stays 0.
    pub const fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What orders leaders: Raft's term, Paxos' ballot, Zab's epoch, Viewstamped Replication's view.
/// A larger one was led later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// The host's number for something that it asked, returned with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// What one log position holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Nothing: a new leader's first entry, or a filled gap.
    Noop,
    /// A command of the state machine's, opaque here.
    Command(Bytes),
    /// A change of the members, in the protocol's own encoding.
    Membership(Bytes),
}

impl Payload {
    /// Bytes that count against windows and limits.
    pub fn len(&self) -> usize {
        match self {
            Payload::Noop => 0,
            Payload::Command(bytes) | Payload::Membership(bytes) => bytes.len(),
        }
    }

    /// Whether it carries no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Wire for Payload {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Noop => out.push(0),
            Payload::Command(bytes) => {
                out.push(1);
                put_bytes(out, bytes);
            }
            Payload::Membership(bytes) => {
                out.push(2);
                put_bytes(out, bytes);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        match input.byte("payload kind")? {
            0 => Ok(Payload::Noop),
            1 => Ok(Payload::Command(input.bytes("command")?)),
            2 => Ok(Payload::Membership(input.bytes("membership")?)),
            kind => Err(DecodeError::Invalid { what: "payload kind", value: u64::from(kind) }),
        }
    }
}

/// An entry that a quorum holds durably and that no later leader can replace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommittedEntry {
    /// Where.
    pub index: Index,
    /// Under which leader it was proposed.
    pub epoch: Epoch,
    /// What.
    pub payload: Payload,
}

/// What a host asks of a replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRequest {
    /// Append these commands in this order. There is no direct answer on success: the commands
    /// come back committed. A refusal names the ticket and means that none of them was appended.
    Propose {
        /// Returned with a refusal.
        ticket: Ticket,
        /// At least one.
        commands: Vec<Bytes>,
    },
    /// Say when a linearizable read that arrived now may be served from local state
    /// ([`LogEvent::ReadReady`]), or refuse. Works on any member. Served from a lease without a
    /// round of messages where [`LogConfig::lease`] allows it.
    Read {
        /// Returned with the answer.
        ticket: Ticket,
    },
    /// The host's state machine covers the log up to here durably: entries up to it need not be
    /// kept in memory for the host's sake.
    Applied {
        /// The last entry applied.
        index: Index,
    },
    /// The host's durable state covers the log up to this point, and a peer that lacks what is
    /// before it can be sent that state instead: entries up to the point are never asked for again.
    Compact {
        /// The last entry that the state covers.
        point: SnapshotPoint,
    },
    /// Hand leadership to `to`, or to whoever is best placed. [`LogEvent::Done`] when this member
    /// has seen the new leader.
    TransferLeadership {
        /// Returned with the outcome.
        ticket: Ticket,
        /// The voter that shall lead.
        to: Option<NodeId>,
    },
    /// Change the members. [`LogEvent::Done`] when the change is complete and committed; refused
    /// as [`Refusal::LeadershipLost`] it may still happen.
    ChangeMembership {
        /// Returned with the outcome.
        ticket: Ticket,
        /// How.
        change: MembershipChange,
    },
}

/// One change of the members.
///
/// An id names one disk for ever: it is never given out twice, so that a member which lost its
/// disk cannot come back as somebody who remembers nothing. New ids are larger than every id that
/// was ever a member's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// Take in a member that receives the log and does not vote yet.
    Add {
        /// A new id.
        id: NodeId,
        /// What the host wants every member to know about it, such as its address; opaque here.
        context: Bytes,
        /// Whether the leader shall let it vote, of its own accord, once it has caught up.
        promote: bool,
    },
    /// Let a learner vote that has caught up.
    Promote(NodeId),
    /// Let a member go.
    Remove(NodeId),
    /// Make these the voters, and nobody else, in one change. Each is a voter or a learner that
    /// has caught up; voters left out leave the cluster.
    Replace(Vec<NodeId>),
}

/// A member as the configuration in effect has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its part in quorums.
    pub part: MemberPart,
    /// What the host said about it when it was added; empty for founding members.
    pub context: Bytes,
}

/// A member's part in quorums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberPart {
    /// It votes.
    Voter,
    /// It votes while a change is under way, and not after it.
    Leaving,
    /// It receives the log, and votes once the change that is under way is complete.
    Entering,
    /// It receives the log.
    Learner {
        /// Whether it will be made a voter once it has caught up.
        promote: bool,
    },
}

impl MemberPart {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            MemberPart::Voter => "voter",
            MemberPart::Leaving => "leaving",
            MemberPart::Entering => "entering",
            MemberPart::Learner { .. } => "learner",
        }
    }
}

/// A point of the log which somebody's durable state covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct SnapshotPoint {
    /// The last entry that the state has applied.
    pub index: Index,
    /// The epoch of that entry.
    pub epoch: Epoch,
    /// The payload of the last [`Payload::Membership`] entry at or before `index`; empty if there
    /// is none, and the founding members are the members.
    pub membership: Bytes,
}

/// What a replicated log tells its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// These entries are committed, durable on this member too, and follow on the last ones
    /// without a gap.
    Committed {
        /// In order; never empty.
        entries: Vec<CommittedEntry>,
    },
    /// The read may be served from local state which has applied `index`.
    ReadReady {
        /// Which read.
        ticket: Ticket,
        /// What must have been applied.
        index: Index,
        /// For a read under a lease: the host must have read its state, and looked at its clock
        /// afterwards, before this time. Otherwise it asks again.
        valid_until: Option<Time>,
    },
    /// The transfer or change of members is complete.
    Done {
        /// Which request.
        ticket: Ticket,
    },
    /// The configuration in effect, whenever it changes and once after recovery: with whom to keep
    /// connections. It may be of an entry that is not committed yet, and be taken back.
    Members {
        /// In ascending order of ids.
        members: Vec<Member>,
    },
    /// The request was not carried out, and will not be.
    Refused {
        /// Which request.
        ticket: Ticket,
        /// Why, and where to turn.
        why: Refusal,
    },
    /// This member's part or the leader that it knows has changed.
    Role {
        /// The part it plays now.
        role: Role,
        /// Under which epoch.
        epoch: Epoch,
        /// Who leads, as far as it knows.
        leader: Option<NodeId>,
    },
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// This member does not lead; `leader` does, as far as it knows.
    NotLeader {
        /// Where to turn.
        leader: Option<NodeId>,
    },
    /// More is outstanding than the limits allow: slow down and try again.
    Busy,
    /// Leadership could not be confirmed in time, or was lost meanwhile: try again.
    LeadershipLost,
    /// The log cannot take it now: its disk is full or damaged.
    Storage,
    /// This protocol cannot do it.
    Unsupported,
    /// The change of members, or the transfer, is not one that can be made.
    Change(ChangeRefusal),
}

/// Why a change of members or a transfer was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeRefusal {
    /// Another change or transfer is under way.
    InProgress,
    /// The leader has not committed anything under its epoch yet: try again.
    NotYet,
    /// No such member.
    Unknown(NodeId),
    /// It is a member already, in that part.
    AlreadyMember(NodeId),
    /// The id was a member's before; ids are never used twice. A new one must be above `highest`.
    IdUsed {
        /// The highest id ever used.
        highest: NodeId,
    },
    /// The learner lacks too much of the log to vote: try again later.
    NotCaughtUp(NodeId),
    /// Of the voters that there would be, too few can be reached for a quorum.
    WouldLoseQuorum,
    /// There would be no voter left, or more members than the limit.
    Size,
    /// The member to lead does not vote, cannot be reached, or did not take over within an election
    /// timeout.
    CannotLead(NodeId),
}

/// The part a member plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// It proposes.
    Leader,
    /// It asks to lead.
    Candidate,
    /// It follows.
    Follower,
    /// It receives and does not vote.
    Learner,
    /// It takes no part, because its disk is damaged or it is still recovering.
    Abstaining,
}

/// What a replicated log asks of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogAsk {
    /// The durable records that hold `from..=to`, or a first part of them of about `bytes_max`.
    Entries {
        /// The first position wanted.
        from: Index,
        /// The last position wanted.
        to: Index,
        /// Stop after this many bytes of payload; at least one record is given.
        bytes_max: usize,
    },
    /// The state of `from` at `index` or later, fetched in chunks, made durable and put in the
    /// place of this member's own. Asked again while it is under way it changes nothing, except
    /// that a new `from` takes over. It is answered by [`LogAnswer::Snapshot`] if it succeeds.
    Snapshot {
        /// Who has it.
        from: NodeId,
        /// What it must cover at the least.
        index: Index,
    },
}

/// What the host answers.
#[derive(Clone, Debug)]
pub enum LogAnswer<R> {
    /// The records asked for, in order. They start with the one that holds `from`; none means
    /// that they could not be read, and the process may ask again later.
    Entries {
        /// As asked.
        from: Index,
        /// What the log holds there.
        records: Vec<R>,
    },
    /// The host's state is now, durably, one that was fetched from a peer; it covers the log up to
    /// this point, which is after the last entry that was delivered. Where the host's own state
    /// covers what was asked already (the log below it was lost), nothing is fetched, and this is
    /// the point of that state, made durable.
    Snapshot {
        /// What it covers.
        point: SnapshotPoint,
    },
}

/// What the host's durable state covers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LogBase {
    /// The last entry that the state machine has applied durably; it was committed, and must not
    /// be delivered again.
    pub applied: Index,
    /// Where the log begins: the last [`LogRequest::Compact`] or [`LogAnswer::Snapshot`] that
    /// became durable. Records may still hold entries before it, and then after it entries which
    /// contradict it: those were replaced.
    pub snapshot: Option<SnapshotPoint>,
}

/// A process that replicates a log.
pub trait ReplicatedLog:
    Process<
        Request = LogRequest,
        Event = LogEvent,
        Ask = LogAsk,
        Answer = LogAnswer<<Self as Process>::Record>,
        Base = LogBase,
    >
{
    /// Its name on command lines and in data directories, such as `raft`.
    const NAME: &'static str;

    /// Whether a position and an epoch determine not only the entry but all entries before it. Where
    /// each position is agreed on by itself, that holds only for what is committed.
    const LOG_MATCHING: bool = true;

    /// A configuration from what all protocols have in common.
    fn config(common: LogConfig) -> Self::Config;

    /// The positions which a record holds, first and last, if it holds any. A later record
    /// replaces what earlier ones held at and after its first position.
    fn span(record: &Self::Record) -> Option<(Index, Index)>;

    /// Where it stands, for hosts, checkers and people.
    fn status(&self) -> LogStatus;

    /// What of its durable state no position holds, such as term and vote, as a record that says
    /// it again. The host appends it at the head of every segment, so that whole segments of old
    /// positions can be dropped and a damaged record costs nothing but positions.
    fn restated(&self) -> Self::Record;

    /// The configuration in effect, in ascending order of ids.
    fn members(&self) -> Vec<Member>;

    /// The epoch and payload at `index`, if it is in memory: for checkers and the page.
    fn entry(&self, index: Index) -> Option<(Epoch, &Payload)>;

    /// Its state in the field's own words, a name and a value each, for people.
    fn describe(&self, now: Time) -> Vec<(&'static str, String)>;
}

/// What all replicated logs are configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// This member.
    pub id: NodeId,
    /// The founding members, this one included.
    pub members: Vec<NodeId>,
    /// Timeouts.
    pub timing: Timing,
    /// Bounds.
    pub limits: LogLimits,
    /// The seed of this life's randomness: different for every member and every life.
    pub seed: u64,
    /// How ready it is to lead: among members that could, those of higher priority campaign
    /// first. 0 leads only if nobody else does. Default 1.
    pub priority: u8,
    /// Whether reads may rest on a lease. All members must agree. Default no.
    pub lease: Option<Lease>,
}

impl LogConfig {
    /// A member with defaults for everything else.
    pub fn new(id: NodeId, members: Vec<NodeId>, seed: u64) -> LogConfig {
        LogConfig {
            id,
            members,
            timing: Timing::default(),
            limits: LogLimits::default(),
            seed,
            priority: 1,
            lease: None,
        }
    }
}

/// Reads by a lease: a leader that a quorum has supported within the last election timeout answers
/// by itself, since no other can have been elected meanwhile. This holds only while clocks run at
/// nearly the same rate, which the other reads do not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// By how many parts in a million two members' clocks may differ in rate. Default 1,000, which
    /// is far above what crystals do and far below what a suspended virtual machine can do.
    pub drift_ppm: u32,
}

impl Default for Lease {
    fn default() -> Self {
        Lease { drift_ppm: 1_000 }
    }
}

/// Timeouts. The defaults suit one data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often an idle leader speaks. Default 50 ms.
    pub heartbeat: core::time::Duration,
    /// How long a member waits for its leader at the least; each wait is drawn between this and
    /// twice this. Also how long a leader serves without hearing from a quorum, and how long its
    /// disk may stall. Default 200 ms; at least three heartbeats.
    pub election: core::time::Duration,
}

impl Timing {
    /// # Panics
    ///
    /// If the heartbeat is zero, or the election timeout is not above it.
    pub fn check(&self) {
        assert!(!self.heartbeat.is_zero(), "the heartbeat must be above zero");
        assert!(self.election > self.heartbeat, "the election timeout must be above the heartbeat");
    }
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat: core::time::Duration::from_millis(50),
            election: core::time::Duration::from_millis(200),
        }
    }
}

/// Bounds of a replicated log; what happens at each is said beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Payload bytes of one message of entries; more go into the next. Default 512 KiB. A larger
    /// single entry goes alone.
    pub message_bytes_max: usize,
    /// Payload bytes sent to one peer and not acknowledged; at the bound the peer waits. Default 4 MiB.
    pub window_bytes_max: usize,
    /// Messages of entries sent to one peer and not acknowledged; at the bound the peer waits.
    /// Default 64.
    pub window_messages_max: usize,
    /// Payload bytes proposed and not committed; at the bound proposals are refused as
    /// [`Refusal::Busy`]. Default 32 MiB.
    pub uncommitted_bytes_max: usize,
    /// Payload bytes of the log's tail kept in memory beyond what is uncommitted; older entries
    /// are asked of the host. Default 16 MiB.
    pub tail_bytes_max: usize,
    /// Reads waiting for confirmation; at the bound reads are refused as [`Refusal::Busy`].
    /// Default 65,536.
    pub reads_max: usize,
    /// Members at the most, learners included; at the bound a change is refused as
    /// [`ChangeRefusal::Size`]. Default 31.
    pub members_max: usize,
    /// Multi-Paxos' α: how many slots may be open at once, and after how many a change of members
    /// governs; at the bound what is proposed waits for its turn. At least 1, and the same at all members:
    /// who has another is not followed. Default 1,024. The other protocols have no use for it.
    pub alpha: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits {
            message_bytes_max: 512 << 10,
            window_bytes_max: 4 << 20,
            window_messages_max: 64,
            uncommitted_bytes_max: 32 << 20,
            tail_bytes_max: 16 << 20,
            reads_max: 65_536,
            members_max: 31,
            alpha: 1_024,
        }
    }
}

/// Where a member of a replicated log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogStatus {
    /// The part it plays.
    pub role: Role,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whom it supports under that epoch: its vote or promise.
    pub voted_for: Option<NodeId>,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The position before the first entry that its log still has.
    pub base: Index,
    /// The last entry in its log.
    pub last: Index,
    /// The epoch of that entry.
    pub last_epoch: Epoch,
    /// The last entry that its own disk holds.
    pub durable: Index,
    /// The last entry that it knows to be committed.
    pub committed: Index,
    /// The first entry that it has in memory; `last + 1` if none.
    pub first_in_memory: Index,
    /// Malformed, stale or foreign inputs ignored in this life.
    pub ignored: u64,
}
