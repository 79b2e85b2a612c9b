//! A member: the protocol, its log on disk, its clients and its state machine, joined.
//!
//! Every input becomes steps of the protocol; what a step wants done is split here: records go to
//! the `Writer`, what must wait for them to `Held`, the rest leaves. Nothing in this module
//! knows which protocol it drives.

mod admin;
mod compaction;
mod requests;
mod snapshots;
mod storage;

use crate::asks::{Ask, Asks};
use crate::disk::{Disk, DiskReply};
use crate::forward::Outgoing;
use crate::frame::LogIdentity;
pub use crate::interface::*;
use crate::machine::{StateMachine, Stored};
use crate::metadata::{LogStart, Metadata};
use crate::peer::PeerMessage;
use crate::reads::{Read, Reads};
use crate::release::Held;
use crate::sessions::{self, Verdict};
use crate::start::{Recovered, recover};
use crate::tape::Tape;
use crate::writer::Writer;
use admin::Changes;
use bytes::Bytes;
use compaction::Compaction;
use snapshots::{Fetch, Serving};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use synod_protocols::log::{
    CommittedEntry, Epoch, Index, LogAsk, LogEvent, Payload, ReplicatedLog, Role, Ticket,
};
use synod_protocols::{Effects, Incarnation, Input as Step, NodeId, Time};

/// How long the log must be idle before a mark covers its last frame.
const MARK_DELAY: Duration = Duration::from_millis(20);
/// How often an append is tried again while the disk is full.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// Proposals whose refusal is still understood; the refusal of an older one is made good by the
/// retry timer.
const PROPOSALS_MAX: usize = 1024;
/// Commands that were sent and see no progress for this many election timeouts are sent again.
const RESEND_ELECTIONS: u32 = 4;

/// Commands that another member sent, for the next proposal.
#[derive(Debug)]
struct Forwarded {
    from: NodeId,
    incarnation: Incarnation,
    first: u64,
    commands: Vec<Bytes>,
    bytes: usize,
}

/// What one proposal was made of, in case it is refused.
#[derive(Debug, Default)]
struct Proposal {
    ticket: Ticket,
    /// The first command of this member's own.
    own: Option<u64>,
    /// Sender, life and first command of each batch that others sent.
    forwarded: Vec<(NodeId, Incarnation, u64)>,
}

/// A read that was answered under a lease.
struct Leased<S: StateMachine> {
    read: Read<S::Query>,
    valid_until: Time,
    index: Index,
    answer: S::Answer,
}

/// A member of a cluster.
pub struct Node<P: ReplicatedLog, S: StateMachine> {
    id: NodeId,
    identity: LogIdentity,
    /// The founding members.
    founders: Vec<NodeId>,
    limits: NodeLimits,
    /// How long to wait after a refusal.
    back_off: Duration,
    /// How long to wait for progress.
    resend_after: Duration,
    process: P,
    machine: S,
    metadata: Metadata,
    /// Where the log begins, and that encoded, because it is stored with every commit and hardly ever changes.
    start: LogStart,
    start_encoded: Bytes,
    /// What the machine's last commit covers.
    stored: Index,
    /// The metadata of that commit: what a view of the machine covers.
    committed: Metadata,
    /// The last entry that the protocol has delivered, held back or not.
    delivered: Index,
    /// Under way, if any.
    compaction: Option<Compaction>,
    serving: Serving<S::View>,
    fetch: Option<Fetch>,

    writer: Writer,
    held: Held<P>,
    /// Inputs of the protocol's own making whose time has come: messages to itself, answers.
    returns: VecDeque<Step<P>>,
    asks: Asks,
    /// Reused from step to step.
    effects: Effects<P>,
    scratch: Vec<u8>,

    incarnation: Incarnation,
    /// The frame that says that this life began.
    started: u64,
    outgoing: Outgoing,
    reads: Reads<S::Query>,
    /// Answers to reads under a lease, which leave if the lease still holds when the batch ends.
    leased: Vec<Leased<S>>,
    /// Reads answered under a lease.
    leased_reads: u64,
    changes: Changes,
    inbox: Vec<Forwarded>,
    /// The latest proposals, oldest first.
    proposals: VecDeque<Proposal>,
    /// From which command on a sender's batches are refused, because an earlier one was: proposed
    /// after a lost one they would only fill the log with gaps.
    refused: BTreeMap<NodeId, (Incarnation, u64)>,
    /// Under whom the commands outstanding were sent.
    target: (Epoch, Option<NodeId>),
    links: BTreeSet<NodeId>,

    next_ticket: u64,
    /// Nothing is sent to the leader before this.
    send_at: Option<Time>,
    /// Reads are not asked again before this.
    read_at: Option<Time>,
    /// What is outstanding is sent again at this time.
    resend_at: Option<Time>,
    /// The last frame is covered by a mark at this time.
    mark_at: Option<Time>,
    /// The append in flight is tried again at this time, because the disk was full.
    full_until: Option<Time>,
    disk_full: bool,
    /// Records were lost when this life began.
    damaged: bool,

    tape: Option<Tape>,
    stopped: bool,
    steps: u64,
}

impl<P: ReplicatedLog, S: StateMachine> Node<P, S> {
    /// Starts a member on its disk: recovers the log, or founds or joins as configured.
    ///
    /// # Errors
    /// [`StartError`], each of which says what to do. Nothing was written except that garbage of
    /// an interrupted write, which nobody was told of, may have been cleared.
    pub fn start(
        config: NodeConfig,
        disk: &mut impl Disk,
        machine: S,
        now: Time,
        out: &mut Outbox<P, S>,
    ) -> Result<Self, StartError> {
        let (metadata, start) = stored_metadata(&machine)?;
        let recovered = recover::<P, _>(&config, disk, &metadata, &start, now)?;
        let Recovered { process, effects, end, index, incarnation, tape, losses } = recovered;
        let damaged = !losses.is_empty();
        out.notices.extend(losses.into_iter().map(Notice::Damaged));
        let identity = LogIdentity { cluster: config.cluster, node: config.id, protocol: P::NAME };
        let limits = config.limits;
        let mut writer = Writer::new(identity, limits.segment_bytes, limits.batch_bytes_max, end, index);
        writer.push_started(incarnation);
        let mut node = Node {
            id: config.id,
            identity,
            founders: config.members,
            limits,
            back_off: config.timing.heartbeat,
            resend_after: config.timing.election * RESEND_ELECTIONS,
            process,
            machine,
            stored: metadata.applied,
            committed: metadata.clone(),
            delivered: metadata.applied,
            metadata,
            start_encoded: start.encode(),
            start,
            compaction: None,
            serving: Serving::new(),
            fetch: None,
            started: writer.last_sequence(),
            writer,
            held: Held::default(),
            returns: VecDeque::new(),
            asks: Asks::default(),
            effects,
            scratch: Vec::new(),
            incarnation,
            outgoing: Outgoing::new(config.id, incarnation),
            reads: Reads::new(),
            leased: Vec::new(),
            leased_reads: 0,
            changes: Changes::default(),
            inbox: Vec::new(),
            proposals: VecDeque::new(),
            refused: BTreeMap::new(),
            target: (Epoch::default(), None),
            links: BTreeSet::new(),
            next_ticket: 1,
            send_at: None,
            read_at: None,
            resend_at: None,
            mark_at: None,
            full_until: None,
            disk_full: false,
            damaged,
            tape,
            stopped: false,
            steps: 0,
        };
        node.absorb(now, out);
        node.drive_returns(now, out);
        if node.writer.segments().lacks_restated() {
            node.writer.push_restated(incarnation, &node.process.restated());
        }
        Ok(node)
    }

    /// Takes one input. `now` never goes back.
    pub fn step(&mut self, now: Time, input: Input<P, S>, out: &mut Outbox<P, S>) {
        if self.stopped {
            return;
        }
        match input {
            Input::Peer { from, message } => self.on_peer(now, from, message, out),
            Input::LinkUp { peer, session } => self.on_link_up(now, peer, session, out),
            Input::LinkDown { peer } => {
                self.links.remove(&peer);
                self.held.forget(peer);
                self.expire_changes(now, Some(peer), out);
                self.drive(now, Step::LinkDown { peer }, out);
            }
            Input::Client { ticket, request } => self.on_client(now, ticket, request, out),
            Input::Disk(DiskReply::Appended { ticket, result }) => self.on_appended(now, ticket, result, out),
            Input::Disk(DiskReply::Read { ticket, result }) => self.on_read(now, ticket, result, out),
            Input::Disk(DiskReply::Removed { result, .. }) => self.on_removed(result, out),
            Input::Persisted { ticket, result } => self.on_persisted(now, ticket, result, out),
            Input::Timeout => {
                if self.process.deadline().is_some_and(|deadline| deadline <= now) {
                    self.drive(now, Step::Timeout, out);
                }
            }
        }
    }

    /// Ends a batch of inputs: proposes what clients asked, commits the state machine, starts a
    /// disk write if none is in flight. With leases `now` must have been looked at after the last
    /// step: it decides whether what the steps read may still be told.
    pub fn flush(&mut self, now: Time, out: &mut Outbox<P, S>) {
        if !self.stopped {
            self.end_waits(now);
            self.end_leased(now, out);
            self.expire_changes(now, None, out);
            self.serving.expire(now);
            if self.fetch.as_ref().is_some_and(|fetch| fetch.retry_at <= now) {
                self.ask_for_part(now, out);
            }
            let status = self.process.status();
            self.expire(now, status.leader, out);
            self.follow_leader(&status);
            if status.role == Role::Leader {
                self.propose(now, out);
            } else {
                self.refuse_inbox(status.leader, out);
                self.forward(now, status.leader, out);
            }
            self.ask_reads(now, out);
            self.store(now, out);
            self.append(now, out);
        }
        // Also of a member that stopped: its last inputs are the ones worth having.
        if let Some(tape) = &mut self.tape {
            tape.drain_into(&mut out.tape);
        }
    }

    /// When the node next wants [`Input::Timeout`].
    pub fn deadline(&self) -> Option<Time> {
        if self.stopped {
            return None;
        }
        let sends = if self.outgoing.has_more() { self.send_at } else { None };
        let reads = if self.reads.has_queued() { self.read_at } else { None };
        let resend = if self.outgoing.is_outstanding() { self.resend_at } else { None };
        let fetch = self.fetch.as_ref().map(|fetch| fetch.retry_at);
        // One after the other, because hosts ask after every input.
        let never = Time(u64::MAX);
        let mut earliest = self.process.deadline().unwrap_or(never);
        let mut at_the_latest = |other: Option<Time>| {
            if let Some(other) = other {
                earliest = earliest.min(other);
            }
        };
        at_the_latest(self.outgoing.deadline());
        at_the_latest(self.reads.deadline());
        at_the_latest(sends);
        at_the_latest(reads);
        at_the_latest(resend);
        at_the_latest(self.mark_at);
        at_the_latest(self.full_until);
        at_the_latest(self.changes.deadline());
        at_the_latest(self.serving.deadline());
        at_the_latest(fetch);
        (earliest < never).then_some(earliest)
    }

    /// Where the member stands.
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            log: self.process.status(),
            applied: self.metadata.applied,
            incarnation: self.incarnation,
            damaged: self.damaged,
            requests: self.requests(),
            leased_reads: self.leased_reads,
            syncs: self.writer.syncs(),
            bytes_written: self.writer.bytes_written(),
            steps: self.steps,
        }
    }

    /// The protocol, for checkers and the page.
    pub fn process(&self) -> &P {
        &self.process
    }

    /// The state machine, for checkers and the page.
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// The state machine, to be started again on another life of the member.
    pub fn into_machine(self) -> S {
        self.machine
    }

    // The protocol's steps and what they want done.

    /// One step of the protocol, and the ones that it causes at once.
    fn drive(&mut self, now: Time, input: Step<P>, out: &mut Outbox<P, S>) {
        self.run(now, input, out);
        self.drive_returns(now, out);
    }

    fn drive_returns(&mut self, now: Time, out: &mut Outbox<P, S>) {
        while let Some(input) = self.returns.pop_front() {
            self.run(now, input, out);
        }
    }

    fn run(&mut self, now: Time, input: Step<P>, out: &mut Outbox<P, S>) {
        if let Some(tape) = &mut self.tape {
            tape.input(now, &input);
        }
        self.steps += 1;
        self.process.step(now, input, &mut self.effects);
        self.absorb(now, out);
    }

    /// Sends the effects of one step where they belong.
    fn absorb(&mut self, now: Time, out: &mut Outbox<P, S>) {
        if self.effects.is_empty() {
            return;
        }
        if !self.effects.records.is_empty() {
            self.writer.push_records::<P>(&mut self.effects.records);
        }
        let (emitted, durable) = (self.writer.last_sequence(), self.writer.durable());
        for send in self.effects.sends.drain(..) {
            if send.to == self.id {
                if let Some(message) = self.held.give_back(send.message, emitted, durable) {
                    self.returns.push_back(Step::Message { from: self.id, message });
                }
            } else if let Some(message) =
                self.held.send(send.to, send.message, send.release, emitted, durable)
            {
                let message = PeerMessage::Protocol(message);
                out.sends.push(PeerSend { to: send.to, message, early: emitted > durable });
            }
        }
        if self.effects.events.is_empty() && self.effects.asks.is_empty() {
            return;
        }
        // Taken out, because what they cause may be steps of their own.
        let mut events = std::mem::take(&mut self.effects.events);
        let mut asks = std::mem::take(&mut self.effects.asks);
        for emit in events.drain(..) {
            if let LogEvent::Committed { entries } = &emit.event {
                self.delivered = entries.last().map_or(self.delivered, |last| last.index.max(self.delivered));
            }
            if let Some(event) = self.held.emit(emit.event, emit.release, emitted, durable) {
                self.on_event(now, event, out);
            }
        }
        for ask in asks.drain(..) {
            match ask {
                LogAsk::Entries { from, to, bytes_max } => self.begin_ask(Ask { from, to, bytes_max }, out),
                LogAsk::Snapshot { from, index } => self.begin_fetch(now, from, index, out),
            }
        }
        self.effects.events = events;
        self.effects.asks = asks;
    }

    fn on_event(&mut self, now: Time, event: LogEvent, out: &mut Outbox<P, S>) {
        match event {
            LogEvent::Committed { entries } => self.on_committed(now, entries, out),
            LogEvent::ReadReady { ticket, index, valid_until } => {
                self.reads.on_ready(ticket, index, valid_until);
                self.serve_reads(out);
            }
            LogEvent::Refused { ticket, why } => self.on_refused(now, ticket, why, out),
            LogEvent::Done { ticket } => self.on_done(ticket, out),
            LogEvent::Members { members } => out.notices.push(Notice::Members(members)),
            LogEvent::Role { role, epoch, leader } => out.notices.push(Notice::Role { role, epoch, leader }),
        }
    }

    // The state machine.

    fn on_committed(&mut self, now: Time, mut entries: Vec<CommittedEntry>, out: &mut Outbox<P, S>) {
        // What waited for the disk while a snapshot that holds it was installed.
        if entries.first().is_some_and(|first| first.index <= self.metadata.applied) {
            entries.drain(..entries.partition_point(|entry| entry.index <= self.metadata.applied));
        }
        if entries.is_empty() {
            return;
        }
        for entry in &entries {
            assert_eq!(
                entry.index,
                self.metadata.applied.next(),
                "committed entries follow on each other without a gap"
            );
            self.metadata.applied = entry.index;
            self.metadata.epoch = entry.epoch;
            let envelope = match &entry.payload {
                Payload::Noop => continue,
                Payload::Membership(change) => {
                    self.metadata.membership = change.clone();
                    continue;
                }
                Payload::Command(envelope) => envelope,
            };
            // What is no envelope was never proposed by a member; all members skip it alike.
            let Ok((sender, command)) = sessions::open(envelope.clone()) else { continue };
            if self.metadata.sessions.admit(sender) != Verdict::Apply {
                continue;
            }
            let response = match self.machine.apply(entry.index, command) {
                Ok(response) => response,
                Err(error) => {
                    return self
                        .stop(format!("the state machine cannot apply entry {}: {error}", entry.index), out);
                }
            };
            if sender.member == self.id && sender.incarnation == self.incarnation {
                self.resend_at = Some(now + self.resend_after);
                if let Some(ticket) = self.outgoing.on_applied(sender.sequence) {
                    let outcome = Outcome::Applied { index: entry.index, response };
                    out.replies.push(Reply { ticket, outcome });
                }
            }
        }
        out.notices.push(Notice::Committed(entries));
        self.serve_reads(out);
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket - 1)
    }

    /// The member cannot go on.
    fn stop(&mut self, why: String, out: &mut Outbox<P, S>) {
        if !self.stopped {
            self.stopped = true;
            out.notices.push(Notice::Fatal(why));
        }
    }
}

fn stored_metadata<S: StateMachine>(machine: &S) -> Result<(Metadata, LogStart), StartError> {
    let stored = machine
        .metadata()
        .map_err(|error| StartError::Machine(format!("the state machine cannot be read: {error}")))?;
    let Some(Stored { replicated, own }) = stored else { return Ok(Default::default()) };
    let decoded = Metadata::decode(replicated).and_then(|metadata| Ok((metadata, LogStart::decode(own)?)));
    decoded.map_err(|why| {
        StartError::Machine(format!(
            "what the state machine stored for the node cannot be understood: {why}. If another version of this \
             program wrote it, start that one; otherwise, while the log is whole, empty the state machine's storage, \
             which the log then fills again"
        ))
    })
}

fn fail<P: ReplicatedLog, S: StateMachine>(ticket: Ticket, error: ClientError, out: &mut Outbox<P, S>) {
    out.replies.push(Reply { ticket, outcome: Outcome::Failed(error) });
}
