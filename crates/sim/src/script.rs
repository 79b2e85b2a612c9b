//! Scripts: a small readable document that says everything about a run.
//!
//! A script and the version of this crate decide a run completely. The text is canonical:
//! printing leaves out what has its default value, so two scripts that mean the same print the
//! same, and an address can carry one. `docs/scripts.md` explains the language to strangers;
//! `parse.rs` reads it.

use crate::units::{Factor, Share, Span};
use std::fmt;

/// Members of a cluster at most, founding ones and those that join.
pub const NODES_MAX: u8 = 15;
/// The longest run: a day of virtual time.
pub const DURATION_MAX: Span = Span::secs(24 * 3600);
/// Timed lines of one script at most.
pub const ACTIONS_MAX: usize = 10_000;
/// Bytes of a script's text at most.
pub const SCRIPT_BYTES_MAX: usize = 1 << 20;
/// Clients at most.
pub const CLIENTS_MAX: u16 = 1000;
/// Keys that the clients share at most.
pub const KEYS_MAX: u32 = 100_000;
/// The longest latency, sync or stall.
pub const DELAY_MAX: Span = Span::secs(3600);

/// Everything about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The protocol's name, such as `raft`.
    pub protocol: String,
    /// Founding members, from 1 to [`NODES_MAX`]; they are called `n1`, `n2` and so on.
    pub nodes: u8,
    /// What everything random is drawn from, by place and count, so that one more line does not
    /// reshuffle the rest.
    pub seed: u64,
    /// How much virtual time the run takes, up to [`DURATION_MAX`].
    pub until: Span,
    /// What the members' messages travel on.
    pub transport: Transport,
    /// How long a message travels.
    pub latency: Delay,
    /// How long until a member notices that a link is cut.
    pub detect: Delay,
    /// The share of messages that are lost.
    pub loss: Share,
    /// The share of messages that arrive twice; needs [`Transport::Datagrams`].
    pub duplicate: Share,
    /// The share of messages that may be overtaken; needs [`Transport::Datagrams`].
    pub reorder: Share,
    /// The protocol's election timeout.
    pub election: Span,
    /// The protocol's heartbeat; at most a third of the election timeout.
    pub heartbeat: Span,
    /// How long a write and its sync take.
    pub disk: Delay,
    /// Whether reads may rest on a lease, and by which share two members' clocks may then differ in rate.
    pub lease: Option<Share>,
    /// The size of a log segment in bytes.
    pub segment: u64,
    /// Bounds of the protocol.
    pub limits: Limits,
    /// What the clients do, if there are any.
    pub clients: Option<Workload>,
    /// The promise of progress, checked after the last fault or repair.
    pub progress: Option<Progress>,
    /// What happens when, in order of time.
    pub actions: Vec<Timed>,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            protocol: "raft".into(),
            nodes: 5,
            seed: 1,
            until: Span::secs(10),
            transport: Transport::Streams,
            latency: Delay::Uniform(Span::millis(1), Span::millis(5)),
            detect: Delay::Uniform(Span::millis(50), Span::millis(150)),
            loss: Share(0),
            duplicate: Share(0),
            reorder: Share(0),
            election: Span::millis(200),
            heartbeat: Span::millis(50),
            disk: Delay::Uniform(Span(500_000), Span::millis(2)),
            lease: None,
            segment: 256 << 10,
            limits: Limits::default(),
            clients: None,
            progress: None,
            actions: Vec::new(),
        }
    }
}

/// Bounds of the protocol that a script may lower, so that what a real cluster does only under
/// heavy load happens in a small run. See `synod_protocols::log::LogLimits` for what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes of one message of entries; at 1 every entry goes alone.
    pub message_bytes: u32,
    /// Messages of entries sent to one peer and not acknowledged.
    pub window: u32,
    /// Payload bytes of the log's tail kept in memory beyond what is uncommitted.
    pub tail_bytes: u32,
    /// Multi-Paxos' α: how far ahead of what is chosen it proposes, and after how many positions a change of members governs.
    pub alpha: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // So few that a change of members shows its window in a small run.
        Limits { message_bytes: 512 << 10, window: 64, tail_bytes: 16 << 20, alpha: 16 }
    }
}

/// What the members' messages travel on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections, as TCP gives them: within one, messages arrive in order and once. A lost
    /// message is a lost connection, and takes what was sent after it along.
    Streams,
    /// Single messages: each may be lost, repeated or overtaken on its own. That is less than
    /// the contract promises to a protocol, so only some can bear it.
    Datagrams,
}

/// How a delay is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// Always the same.
    Fixed(Span),
    /// Evenly between two.
    Uniform(Span, Span),
    /// Log-normal: half are below the median, two thirds between the median divided and
    /// multiplied by the factor. Cut off at [`DELAY_MAX`].
    LogNormal {
        /// The median.
        median: Span,
        /// The factor of one standard deviation, at least 1.
        factor: Factor,
    },
}

/// What clients do: each asks, waits for the answer or its timeout, pauses, and asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// How many clients, from 1 to [`CLIENTS_MAX`].
    pub clients: u16,
    /// From the beginning of one operation to that of the next at the least, give or take half.
    pub every: Span,
    /// How many keys they share, from 1 to [`KEYS_MAX`].
    pub keys: u32,
    /// The mix of operations.
    pub mix: Mix,
}

/// Relative frequencies of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Writes of one key.
    pub put: u32,
    /// Linearizable reads of one key.
    pub get: u32,
    /// Compare-and-set of one key, as a transaction.
    pub cas: u32,
    /// Deletions of one key.
    pub delete: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Mix { put: 5, get: 4, cas: 1, delete: 0 }
    }
}

impl Mix {
    /// The sum of the frequencies.
    pub fn total(self) -> u64 {
        [self.put, self.get, self.cas, self.delete].iter().map(|&n| u64::from(n)).sum()
    }
}

/// After the last fault or repair in the script, a write succeeds within so many election timeouts;
/// and at the end of the run all members that are up, learners included, have applied what was committed by then, but
/// for those that are cut off from the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many.
    pub elections: u32,
}

/// Something that happens at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// When, since the beginning.
    pub at: Span,
    /// What.
    pub action: Action,
}

/// A member, numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member(pub u8);

/// Whom an action concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// This member.
    Node(Member),
    /// The member that leads at that moment, in the highest epoch if several believe so.
    Leader,
    /// Some member that is up and does not lead, drawn from the seed.
    Follower,
    /// Every member.
    All,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The member stops at once and loses what is not on its disk.
    Crash(Target),
    /// A member that is down starts on its disk.
    Restart(Target),
    /// The member stops to run, and keeps everything.
    Pause(Target),
    /// A paused member goes on; what arrived meanwhile waits for it.
    Resume(Target),
    /// Messages from the first to the second are lost; and back, unless `one_way`.
    Cut(Member, Member, OneWay),
    /// The opposite of a cut.
    Heal(Member, Member, OneWay),
    /// Every cut is healed.
    HealAll,
    /// Only members of one group reach each other; who is named in no group is alone.
    Partition(Vec<Vec<Member>>),
    /// All links of the member are cut, both ways.
    Isolate(Target),
    /// A partial partition with a name.
    Topology(Topology),
    /// The member's clock.
    Clock(Target, ClockFault),
    /// The member's disk.
    Disk(Target, DiskAction),
    /// From now on the network is so.
    Network(NetworkChange),
    /// A change of the members, or of who leads. The operator asks for one after the other, and asks again
    /// as long as it may still be done.
    Operator(OperatorChange),
    /// A client operation by hand.
    Client(Option<Member>, HandOperation),
    /// The member's timer runs out now.
    Timeout(Target),
    /// This message is lost on its way.
    Lose(u64),
    /// This message takes so much longer.
    Delay(u64, Span),
    /// This message arrives twice.
    Duplicate(u64),
    /// All faults end: links heal, members restart and resume, disks and clocks are right again.
    Recover,
}

/// Whether a cut or heal concerns one direction only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OneWay {
    /// Both directions.
    No,
    /// From the first to the second.
    Yes,
}

/// Partial partitions on which protocols are known to stumble (Ng, Haridi and Carbone, "Omni-Paxos", EuroSys'23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Members reach this one and nobody else: it alone can reach a quorum.
    QuorumLoss(Member),
    /// The leader is cut off from everybody, and of the others each reaches only this one; if this one leads, the
    /// next takes its place, for without it nobody would reach a quorum.
    Constrained(Member),
    /// The leader reaches only this one, which reaches all others; if this one leads, the next takes its place.
    Bridge(Member),
    /// Each member reaches only the ones numbered before and after it.
    Chained,
}

/// What may be wrong with a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockFault {
    /// From now on it runs at this rate, from 0.1 to 10.
    Rate(Factor),
    /// It jumps ahead, as after a suspension. A monotonic clock does not jump back.
    Jump(Span),
}

/// What may be wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskAction {
    /// What is being written or is next to be takes so much longer.
    Stall(Span),
    /// There is no room for new segments.
    Full,
    /// No fault from now on; what is lost stays lost.
    Clear,
    /// The next crash loses all that was not synced, instead of a part drawn from the seed.
    LoseUnsynced,
    /// The next crash tears a sector that was not synced in the middle.
    Tear,
    /// One bit flips among those that were written before the last write that was synced: rot in
    /// what is newer cannot be told from a write that a crash interrupted, whatever the format.
    Rot,
    /// The next sync fails: the member stops.
    Fail,
    /// Syncs report success and keep nothing, until `clear`. No protocol can bear this on a quorum.
    Lie,
    /// All files are gone at the next start. The member stops now if it runs.
    Wipe,
}

/// A change of the network for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// As [`Script::latency`].
    Latency(Delay),
    /// As [`Script::loss`].
    Loss(Share),
    /// As [`Script::duplicate`].
    Duplicate(Share),
    /// As [`Script::reorder`].
    Reorder(Share),
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorChange {
    /// A new machine with an empty disk joins. It receives the log and, unless it is to stay a learner, votes
    /// once it has caught up. Names are never given twice: the next is the one after the highest ever used.
    Add {
        /// The new member.
        member: Member,
        /// Whether it is to vote only when it is promoted.
        learner: bool,
    },
    /// A learner that has caught up shall vote.
    Promote(Member),
    /// The member leaves the cluster. Its machine runs on.
    Remove(Member),
    /// That member shall lead, or whoever is best placed.
    Transfer(Option<Member>),
}

/// A client operation by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandOperation {
    /// Write a key.
    Put(String, String),
    /// Read a key.
    Get(String),
    /// Remove a key.
    Delete(String),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Node(member) => member.fmt(f),
            Target::Leader => f.write_str("leader"),
            Target::Follower => f.write_str("follower"),
            Target::All => f.write_str("all"),
        }
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Delay::Fixed(span) => span.fmt(f),
            Delay::Uniform(low, high) => write!(f, "{low}..{high}"),
            Delay::LogNormal { median, factor } => write!(f, "lognormal {median} {factor}"),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clients {} every {} keys {} mix ", self.clients, self.every, self.keys)?;
        let Mix { put, get, cas, delete } = self.mix;
        let parts = [("put", put), ("get", get), ("cas", cas), ("delete", delete)];
        let mut separator = "";
        for (name, frequency) in parts.into_iter().filter(|(_, frequency)| *frequency > 0) {
            write!(f, "{separator}{name}:{frequency}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = |one_way: &OneWay| if *one_way == OneWay::Yes { " -> " } else { " " };
        match self {
            Action::Crash(target) => write!(f, "crash {target}"),
            Action::Restart(target) => write!(f, "restart {target}"),
            Action::Pause(target) => write!(f, "pause {target}"),
            Action::Resume(target) => write!(f, "resume {target}"),
            Action::Cut(a, b, one_way) => write!(f, "cut {a}{}{b}", arrow(one_way)),
            Action::Heal(a, b, one_way) => write!(f, "heal {a}{}{b}", arrow(one_way)),
            Action::HealAll => f.write_str("heal"),
            Action::Partition(groups) => {
                f.write_str("partition")?;
                for (i, group) in groups.iter().enumerate() {
                    if i > 0 {
                        f.write_str(" |")?;
                    }
                    group.iter().try_for_each(|member| write!(f, " {member}"))?;
                }
                Ok(())
            }
            Action::Isolate(target) => write!(f, "isolate {target}"),
            Action::Topology(Topology::QuorumLoss(hub)) => write!(f, "topology quorum-loss {hub}"),
            Action::Topology(Topology::Constrained(hub)) => write!(f, "topology constrained {hub}"),
            Action::Topology(Topology::Bridge(hub)) => write!(f, "topology bridge {hub}"),
            Action::Topology(Topology::Chained) => f.write_str("topology chained"),
            Action::Clock(target, ClockFault::Rate(rate)) => write!(f, "clock {target} rate {rate}"),
            Action::Clock(target, ClockFault::Jump(span)) => write!(f, "clock {target} jump {span}"),
            Action::Disk(target, action) => write!(f, "disk {target} {action}"),
            Action::Network(change) => change.fmt(f),
            Action::Client(on, operation) => {
                match operation {
                    HandOperation::Put(key, value) => write!(f, "put {key} {value}")?,
                    HandOperation::Get(key) => write!(f, "get {key}")?,
                    HandOperation::Delete(key) => write!(f, "delete {key}")?,
                }
                on.map_or(Ok(()), |member| write!(f, " on {member}"))
            }
            Action::Operator(change) => change.fmt(f),
            Action::Timeout(target) => write!(f, "timeout {target}"),
            Action::Lose(message) => write!(f, "lose m{message}"),
            Action::Delay(message, span) => write!(f, "delay m{message} {span}"),
            Action::Duplicate(message) => write!(f, "duplicate m{message}"),
            Action::Recover => f.write_str("recover"),
        }
    }
}

impl fmt::Display for DiskAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskAction::Stall(span) => write!(f, "stall {span}"),
            other => f.write_str(match other {
                DiskAction::Full => "full",
                DiskAction::Clear => "clear",
                DiskAction::LoseUnsynced => "lose-unsynced",
                DiskAction::Tear => "tear",
                DiskAction::Rot => "rot",
                DiskAction::Fail => "fail",
                DiskAction::Lie => "lie",
                DiskAction::Wipe | DiskAction::Stall(_) => "wipe",
            }),
        }
    }
}

impl fmt::Display for OperatorChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OperatorChange::Add { member, learner: false } => write!(f, "add {member}"),
            OperatorChange::Add { member, learner: true } => write!(f, "add {member} learner"),
            OperatorChange::Promote(member) => write!(f, "promote {member}"),
            OperatorChange::Remove(member) => write!(f, "remove {member}"),
            OperatorChange::Transfer(None) => f.write_str("transfer"),
            OperatorChange::Transfer(Some(member)) => write!(f, "transfer {member}"),
        }
    }
}

impl fmt::Display for NetworkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkChange::Latency(delay) => write!(f, "latency {delay}"),
            NetworkChange::Loss(share) => write!(f, "loss {share}"),
            NetworkChange::Duplicate(share) => write!(f, "duplicate {share}"),
            NetworkChange::Reorder(share) => write!(f, "reorder {share}"),
        }
    }
}

/// The canonical text.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Script::default();
        writeln!(f, "synod-script 1")?;
        writeln!(f, "protocol {}", self.protocol)?;
        writeln!(f, "nodes {}", self.nodes)?;
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "for {}", self.until)?;
        if self.transport == Transport::Datagrams {
            writeln!(f, "transport datagrams")?;
        }
        if self.latency != default.latency {
            writeln!(f, "latency {}", self.latency)?;
        }
        if self.detect != default.detect {
            writeln!(f, "detect {}", self.detect)?;
        }
        for (name, share) in [("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder)] {
            if share != Share(0) {
                writeln!(f, "{name} {share}")?;
            }
        }
        if self.election != default.election {
            writeln!(f, "election {}", self.election)?;
        }
        if self.heartbeat != default.heartbeat {
            writeln!(f, "heartbeat {}", self.heartbeat)?;
        }
        if self.disk != default.disk {
            writeln!(f, "disk {}", self.disk)?;
        }
        if let Some(drift) = self.lease {
            writeln!(f, "lease {drift}")?;
        }
        if self.segment != default.segment {
            writeln!(f, "segment {}", self.segment)?;
        }
        let Limits { message_bytes, window, tail_bytes, alpha } = self.limits;
        if message_bytes != default.limits.message_bytes {
            writeln!(f, "message-bytes {message_bytes}")?;
        }
        if window != default.limits.window {
            writeln!(f, "window {window}")?;
        }
        if tail_bytes != default.limits.tail_bytes {
            writeln!(f, "tail-bytes {tail_bytes}")?;
        }
        if alpha != default.limits.alpha {
            writeln!(f, "alpha {alpha}")?;
        }
        if let Some(clients) = self.clients {
            writeln!(f, "{clients}")?;
        }
        if let Some(Progress { elections }) = self.progress {
            writeln!(f, "expect progress within {elections} elections")?;
        }
        self.actions.iter().try_for_each(|timed| writeln!(f, "at {} {}", timed.at, timed.action))
    }
}

impl Script {
    /// From when to when a write must succeed, if progress is promised: it begins with the last
    /// line that is not a client's.
    pub fn progress_window(&self) -> Option<(Span, Span)> {
        let Progress { elections } = self.progress?;
        let last = self.actions.iter().rev().find(|timed| !matches!(timed.action, Action::Client(..)));
        let from = last.map_or(Span(0), |timed| timed.at);
        Some((from, Span(from.0.saturating_add(u64::from(elections) * self.election.0))))
    }

    /// The members that join, in the order of time.
    pub fn joining(&self) -> impl Iterator<Item = Member> {
        self.actions.iter().filter_map(|timed| match timed.action {
            Action::Operator(OperatorChange::Add { member, .. }) => Some(member),
            _ => None,
        })
    }

    /// How many members there ever are: the founding ones, and those that join.
    pub fn size(&self) -> u8 {
        self.joining().fold(self.nodes, |size, member| size.max(member.0))
    }

    /// The names of all members that there ever are: `n1`, `n2` and so on.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        (1..=self.size()).map(Member)
    }
}
