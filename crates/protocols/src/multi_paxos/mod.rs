//! Multi-Paxos: agreement on a sequence of slots, each by Paxos, under one ballot for all of them.
//!
//! # The idea
//!
//! Read [`crate::paxos`] first: it is the protocol for one value. Here there is a value to choose
//! for each *slot* of a log, and each slot is an instance of its own. What makes it quick is that
//! phase 1 does not depend on the value: a proposer *prepares* one *ballot* for all slots at once,
//! and as long as nobody prepares a higher one it is the *distinguished proposer*, or leader, and
//! has each value chosen in one round of phase 2.
//!
//! # Why it is safe
//!
//! For each slot, what makes Paxos safe: a value is *chosen* when a quorum has accepted it under
//! one ballot. A proposer proposes at a slot only after a quorum has promised its ballot, and then
//! proposes the value that was accepted there under the highest ballot, if any was. A quorum that
//! promises shares a member with every quorum that had accepted, so once a value is chosen, every
//! higher ballot proposes that value and no other. Nothing is executed before everything before it
//! is chosen, and so all members execute the same sequence.
//!
//! Promises and accepted values are on disk before anybody hears of them, those of the proposer
//! itself too: it counts its own when the message to itself has come back. A restarted proposer
//! never again proposes under a ballot that it used, since its promise of it was durable first;
//! that is what lets an Accept leave before the proposer's own disk has the values (see
//! `send_accept`).
//!
//! # Sources
//!
//! Leslie Lamport, *Paxos Made Simple*, 2001: section 3 is the protocol for many instances.
//! Robbert van Renesse and Deniz Altinbuken, *Paxos Made Moderately Complex*, 2015, for what an
//! implementation keeps. Tushar Chandra and others, *Paxos Made Live*, 2007, for what it meets:
//! snapshots, broken disks, a master that must not be deposed without need. Harald Ng and others,
//! *OmniPaxos*, EuroSys 2023, for partial connectivity.
//!
//! # Where this departs from the texts
//!
//! - **An acceptor's log has no gaps.** It accepts a slot only when it has accepted all slots
//!   before it under the same ballot, or knows them to be chosen; so one number says up to where,
//!   and hosts store a log without holes. The price is that a lost Accept holds up the ones behind
//!   it until it is repeated, as connections do anyway. The gain is more than simplicity: since
//!   the logs of a quorum have no gaps, neither has what phase 1 finds, and the no-ops with which
//!   a new leader would fill gaps are not needed. It still proposes one, after everything else: as
//!   soon as that is chosen it knows that all its predecessors' slots are.
//! - **What follows an accepted slot is kept**, other than in Raft: the values there were accepted
//!   under lower ballots, and may have been chosen. They are written again in the same record, as
//!   the host's rule is that a record replaces everything after its first position.
//! - **A value carries the ballot of its first proposal**, so that everybody reports the same
//!   epoch for what was chosen, however often it was proposed again. Proposing it again costs a
//!   round of messages and a write, which only the slots open at the change of leaders pay.
//! - **Learning.** The leader says up to where slots are chosen. That alone means nothing to an
//!   acceptor: it may hold another value, accepted under a lower ballot. It takes a slot for chosen
//!   only where it accepted it under this leader's ballot, or knew already. The mark goes to disk
//!   with the next values, so that after a restart only what was open needs another phase 2.
//! - **The leader brings laggards up by Accept too**: to propose a chosen value again is allowed
//!   under every ballot, and idle. A candidate that lags fetches what is chosen by Prepare, before
//!   it leads.
//! - **Elections.** Every wait is random; a *probe* asks whether a quorum would promise before any
//!   ballot is used up, and acceptors are loyal to a leader that they hear. So a member that was
//!   cut off does not depose anybody on its return, and duels end. Safety rests on none of it.
//! - **Members change by the window of α slots** of section 3, with one change at a time; see
//!   `membership.rs` and `change.rs`. Values that phase 1 finds beyond the window wait like commands do.
//! - **Damage.** An acceptor that lost accepted values and knows its promise receives them again before it
//!   promises anything; see `recovery.rs`.
//! - A leader steps down when it hears from no quorum, when its disk stalls, and when it meets a
//!   higher ballot.
//!
//! Since phase 1 brings the values, **any member that reaches a quorum can lead**, however far its
//! log is behind. Raft cannot offer that (the constrained election of *OmniPaxos*).
//!
//! # What it tolerates
//!
//! Messages may be lost, duplicated, reordered and delayed without bound, and members crash and
//! come back with their disks. Connections, if the host has any, only make it faster. Peers are
//! taken to be honest but possibly broken: impossible messages are ignored and counted.
//!
//! # What it leaves out
//!
//! Leases: a read always asks a quorum. Priorities. A member whose disk may have lost a promise abstains
//! for ever, and has to be replaced; one that lost values receives them again, but where a majority is
//! damaged at once nobody can lead, even if their remains together hold everything. A member that is
//! removed while it cannot be reached never learns of it from the others, which ignore it.

mod acceptor;
mod change;
mod host;
mod leader;
mod log;
mod membership;
mod message;
mod progress;
mod proposer;
mod read;
mod record;
mod recovery;
mod transfer;
mod view;

pub use message::{Accept, Accepted, Message, Promise};
pub use record::{Pledge, Pvalue, Record, VALUE_BYTES, Value};

use crate::ballot::{Ballot, ID_BOUND};
use crate::contract::{Effects, Input, Process, Recovery, StorageFault};
use crate::fingerprint::Fingerprint;
use crate::host_read::HostRead;
use crate::log::{
    Index, LogAnswer, LogAsk, LogBase, LogConfig, LogEvent, LogRequest, Payload, Refusal, Role, Ticket,
};
use crate::reading::{Forwarding, Rounds};
use crate::rng::Rng;
use crate::types::{NodeId, Time};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use change::Change;
use core::time::Duration;
use log::Log;
use membership::Membership;
use progress::Progress;
use proposer::Phase1;
use recovery::Repair;
use transfer::Transfer;

/// What an owner of a member decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What all replicated logs are configured with. The heartbeat must be above zero, the
    /// election timeout above the heartbeat, and every id below [`crate::ballot::ID_BOUND`].
    pub common: LogConfig,
}

/// A member: proposer, acceptor and learner in one.
#[derive(Clone, Debug)]
pub struct MultiPaxos {
    config: LogConfig,
    membership: Membership,
    /// Whether the host is to be told of the members.
    members_changed: bool,
    rng: Rng,
    /// When the current step happens.
    now: Time,

    /// The highest ballot promised and what else decides what may be promised, as of now and as last
    /// recorded: a change is recorded at the end of its step.
    pledge: Pledge,
    pledge_recorded: Pledge,
    repair: Repair,
    /// The highest round seen in anybody's ballot: a new one goes above it.
    round_seen: u64,
    log: Log,
    /// Every slot up to here was accepted under the promised ballot, or is chosen.
    upto: Index,
    /// The ballot under which values were last written, and how far they are known to be on disk.
    writing: Ballot,
    stored: Index,
    /// When each message to itself that has not come back was sent, and how many at that time.
    to_self: VecDeque<(Time, u32)>,
    storage_full: bool,

    /// Every slot up to here is chosen, with the value in the log.
    chosen: Index,
    /// The last slot handed to the host: at most `chosen` and `stored`.
    delivered: Index,
    /// The last slot that the host has applied durably.
    applied: Index,
    /// The cost of the values in memory that are not known to be chosen.
    open_bytes: usize,
    /// Chosen values that are no longer in memory, on their way back from the host to be delivered.
    redelivery: HostRead,
    /// Values for a peer that lags, or for one that prepares, on their way from the host.
    catch_up: HostRead,
    /// Whether a peer that lags waits for values that are not in memory.
    catch_up_wanted: bool,
    /// A proposer that waits for values which are not in memory, and from where on.
    promise_wanted: Option<(NodeId, Index)>,

    part: Part,
    leader: Option<NodeId>,
    /// When the holder of the promised ballot last spoke, unless the connection to it is lost.
    contact: Option<Time>,
    /// Until when a restarted acceptor promises nothing: it forgot whom it heard last.
    silent_until: Time,
    /// How long it waits for a leader before it campaigns, drawn anew after each wait.
    election_wait: Duration,
    election_deadline: Time,
    /// The ballot that is probed or prepared.
    attempt: Ballot,
    /// Who was willing, or has promised.
    granted: Vec<NodeId>,
    phase1: Phase1,

    /// The peers, in ascending order. What it says is meaningful while leading.
    progress: Vec<Progress>,
    /// The slot of the no-op with which this leader began.
    opening: Index,
    /// What this leader will propose at the slots after `upto`, when the window reaches them; and its cost.
    waiting: VecDeque<Value>,
    waiting_bytes: usize,
    change: Change,
    /// What was known to be chosen when the last heartbeat went out.
    chosen_at_heartbeat: Index,
    heartbeat_deadline: Time,
    /// Before this time a quorum cannot have been silent for an election timeout.
    quorum_deadline: Time,
    transfer: Option<Transfer>,
    reads: Rounds,
    /// Reads forwarded to the leader, while following.
    forwarding: Forwarding,

    reported: Option<(Role, Ballot, Option<NodeId>)>,
    ignored: u64,
}

/// Whether a member takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    /// Its promises and acceptances count.
    Acceptor,
    /// It receives the log only: no configuration that it knows counts it.
    Learner,
    /// Its disk lost values, and it receives them again before it promises anything.
    Repairing,
    /// Its disk may have lost a promise.
    Abstaining,
}

/// What a member that takes part is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Follower,
    /// It asks whether a quorum would promise.
    Probing,
    /// Phase 1.
    Preparing,
    /// It proposes.
    Leader,
}

impl Process for MultiPaxos {
    type Config = Config;
    type Message = Message;
    type Record = Record;
    type Request = LogRequest;
    type Ask = LogAsk;
    type Answer = LogAnswer<Record>;
    type Event = LogEvent;
    type Base = LogBase;

    fn recover(
        config: Config,
        from: Recovery<'_, Record>,
        base: LogBase,
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        let config = config.common;
        config.timing.check();
        let ids = config.members.iter().chain([&config.id]);
        assert!(ids.into_iter().all(|id| id.0 < ID_BOUND), "ids must be below {ID_BOUND}");
        assert!(config.limits.alpha > 0, "alpha must be above zero: no slot could be open");
        let joined = matches!(from, Recovery::Join) || !config.members.contains(&config.id);
        let mut member = MultiPaxos::blank(config, joined, &base, now);
        match from {
            Recovery::First | Recovery::Join => {}
            Recovery::Resume { records } => {
                member.silent_until = now + member.config.timing.election;
                member.replay(&base, false, &mut records.map(Some), out);
            }
            Recovery::Damaged { records } => {
                member.silent_until = now + member.config.timing.election;
                member.replay(&base, true, records, out);
            }
        }
        if member.pledge.repairing {
            member.repair.nonce = member.rng.next();
        }
        member.resume_at(base.applied);
        member.settle(out);
        member
    }

    fn step(&mut self, now: Time, input: Input<Self>, out: &mut Effects<Self>) {
        self.now = self.now.max(now);
        match input {
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::LinkUp { peer, .. } => self.on_link_up(peer, out),
            Input::LinkDown { peer } => self.on_link_down(peer),
            Input::Request(request) => self.on_request(request, out),
            Input::Answer(answer) => self.on_answer(answer, out),
            Input::StorageFault(fault) => self.on_storage_fault(fault, out),
            Input::Timeout => self.on_timeout(out),
        }
        self.settle(out);
    }

    fn deadline(&self) -> Option<Time> {
        let part = match self.part {
            Part::Leader => {
                let disk = self.to_self.front().map(|(sent, _)| *sent + self.config.timing.election);
                let own = self.heartbeat_deadline.min(self.quorum_deadline);
                Some(disk.map_or(own, |disk| own.min(disk)))
            }
            Part::Preparing => Some(self.election_deadline.min(self.heartbeat_deadline)),
            _ if self.may_campaign() => Some(self.election_deadline),
            _ => None,
        };
        let transfer = self.transfer.as_ref().map(|transfer| transfer.deadline);
        let forwarding = self.forwarding.deadline(&self.config.timing);
        [part, transfer, forwarding, self.redelivery.retry(), self.catch_up.retry()]
            .into_iter()
            .flatten()
            .min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.digest(now, digest);
    }
}

/// Recovery.
impl MultiPaxos {
    fn blank(config: LogConfig, joined: bool, base: &LogBase, now: Time) -> MultiPaxos {
        let point = base.snapshot.clone().unwrap_or_default();
        let start = point.index;
        let alpha = config.limits.alpha as u64;
        let membership = Membership::after(&point, &config.members, joined, alpha);
        let uncertain = membership.is_none();
        let mut member = MultiPaxos {
            progress: Vec::new(),
            membership: membership.unwrap_or_else(|| Membership::first(&[], true, alpha)),
            members_changed: true,
            rng: Rng::new(config.seed),
            now,
            pledge: Pledge { joined, uncertain, ..Pledge::default() },
            pledge_recorded: Pledge::default(),
            repair: Repair::default(),
            round_seen: 0,
            log: Log::after(point),
            upto: start,
            writing: Ballot::ZERO,
            stored: start,
            to_self: VecDeque::new(),
            storage_full: false,
            chosen: start,
            delivered: start,
            applied: start,
            open_bytes: 0,
            redelivery: HostRead::Idle,
            catch_up: HostRead::Idle,
            catch_up_wanted: false,
            promise_wanted: None,
            part: Part::Follower,
            leader: None,
            contact: None,
            silent_until: now,
            election_wait: config.timing.election,
            election_deadline: now,
            attempt: Ballot::ZERO,
            granted: Vec::new(),
            phase1: Phase1::default(),
            opening: Index::ZERO,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            change: Change::default(),
            chosen_at_heartbeat: Index::ZERO,
            heartbeat_deadline: now,
            quorum_deadline: now,
            transfer: None,
            reads: Rounds::default(),
            forwarding: Forwarding::default(),
            reported: None,
            ignored: 0,
            config,
        };
        member.forwarding = Forwarding::starting_at(member.rng.next());
        member.draw_election_wait();
        member.restart_election_timer();
        member
    }

    /// How many slots may be open at once.
    fn alpha(&self) -> u64 {
        self.config.limits.alpha as u64
    }

    fn standing(&self) -> Standing {
        match self.pledge {
            Pledge { uncertain: true, .. } => Standing::Abstaining,
            Pledge { repairing: true, .. } => Standing::Repairing,
            _ if self.membership.is_voter(self.config.id) && !self.has_forgotten() => Standing::Acceptor,
            _ => Standing::Learner,
        }
    }

    /// Whether it may have promised and accepted, under its id, what its disk does not say: the disk is
    /// that of a joining member, but the id is a founder's.
    fn has_forgotten(&self) -> bool {
        self.pledge.joined && self.config.members.contains(&self.config.id)
    }

    /// Whether what it would say in a promise is all that there is to say. It does not matter whether it
    /// knows a configuration that counts it: whoever asks may know more.
    fn may_promise(&self) -> bool {
        !self.pledge.uncertain && !self.pledge.repairing && !self.has_forgotten()
    }
}

/// What may happen to a member.
impl MultiPaxos {
    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Effects<Self>) {
        let to_itself = from == self.config.id;
        if to_itself {
            self.note_answer_to_self();
        }
        // Whoever leads its own removal leads until the others have sealed it; and who is let go still says
        // how much it knows.
        let expected = from == self.pledge.ballot.id || self.peer(from).is_some();
        let excluded = self.membership.excludes(from) && !expected;
        if !to_itself && excluded || !message.is_plausible() {
            self.ignored += 1;
            return;
        }
        if self.pledge.uncertain {
            return self.on_message_abstaining(from, &message);
        }
        match message {
            Message::Willing { ballot } => self.on_willing(from, ballot, out),
            Message::Promise(promise) => self.on_promise(from, promise, out),
            Message::Accepted(accepted) if to_itself => self.on_stored(accepted, out),
            _ if to_itself => self.ignored += 1,
            Message::Probe { alpha, .. } | Message::Prepare { alpha, .. } if alpha != self.alpha() => {
                self.ignored += 1;
            }
            Message::Probe { ballot, .. } => self.on_probe(from, ballot, out),
            Message::Prepare { ballot, from: first, transfer, .. } => {
                self.on_prepare(from, ballot, first, transfer, out);
            }
            Message::Accept(accept) => self.on_accept(from, accept, out),
            Message::Accepted(accepted) => self.on_accepted(from, accepted, out),
            Message::Preempted { promised } => self.on_preempted(promised, out),
            Message::Compacted { ballot, base } => self.on_compacted(from, ballot, base, out),
            Message::TakeOver { ballot } => self.on_take_over(from, ballot, out),
            Message::ReadIndex { batch } => self.on_read_index(from, batch, out),
            Message::ReadIndexReply { batch, index } => self.on_read_index_reply(from, batch, index, out),
            Message::RequestLogEnd { nonce } => self.on_request_log_end(from, nonce, out),
            Message::LogEnd { nonce, ballot, last } => self.on_log_end(from, nonce, ballot, last),
        }
    }

    /// A damaged member promises nothing; it only learns who leads, to direct its clients there.
    fn on_message_abstaining(&mut self, from: NodeId, message: &Message) {
        if let Message::Accept(accept) = message
            && accept.ballot >= self.pledge.ballot
            && accept.ballot.id == from
        {
            self.pledge.ballot = accept.ballot;
            self.leader = Some(from);
        }
    }

    fn on_request(&mut self, request: LogRequest, out: &mut Effects<Self>) {
        match request {
            LogRequest::Propose { ticket, commands } => self.on_propose(ticket, commands, out),
            LogRequest::Read { ticket } => self.on_read(ticket, out),
            LogRequest::Applied { index } => self.applied = self.applied.max(index.min(self.delivered)),
            LogRequest::Compact { point } => self.on_compact(point, out),
            LogRequest::TransferLeadership { ticket, to } => self.on_transfer(ticket, to, out),
            LogRequest::ChangeMembership { ticket, change } => self.on_change(ticket, change, out),
        }
    }

    fn on_propose(&mut self, ticket: Ticket, commands: Vec<Bytes>, out: &mut Effects<Self>) {
        if self.pledge.uncertain || self.storage_full {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leader {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if commands.is_empty() {
            self.ignored += 1;
            return;
        }
        let cost: usize = commands.iter().map(|command| command.len() + VALUE_BYTES).sum();
        let open = self.open_bytes + self.waiting_bytes;
        let room = self.config.limits.uncommitted_bytes_max.saturating_sub(open);
        // A proposal that is larger than the limit goes alone, rather than never.
        let full = cost > room && open > 0;
        if full || self.transfer.is_some() {
            return self.refuse(ticket, Refusal::Busy, out);
        }
        commands.into_iter().for_each(|command| self.wait_to_propose(Payload::Command(command)));
    }

    fn on_storage_fault(&mut self, fault: StorageFault, out: &mut Effects<Self>) {
        self.storage_full = fault == StorageFault::Full;
        if self.storage_full && self.part != Part::Follower {
            // A leader that cannot accept makes way for one that can.
            self.become_follower(self.pledge.ballot, None, out);
        }
        if !self.storage_full {
            self.restart_election_timer();
        }
    }

    fn on_timeout(&mut self, out: &mut Effects<Self>) {
        if self.part == Part::Leader {
            self.check_disk(out);
        }
        if self.part == Part::Leader && self.now >= self.quorum_deadline {
            self.check_quorum(out);
        }
        if self.part == Part::Leader && self.now >= self.heartbeat_deadline {
            self.send_heartbeats(out);
            self.check_barred(out);
        }
        if self.part != Part::Leader && self.may_campaign() && self.now >= self.election_deadline {
            self.become_probing(out);
        }
        if self.part == Part::Preparing && self.now >= self.heartbeat_deadline {
            self.repeat_prepare(out);
        }
        self.check_transfer(out);
        self.retry_forwarded_reads(out);
        self.redelivery.maybe_retry(self.now);
        self.catch_up.maybe_retry(self.now);
    }
}

/// What every step ends with, and what all parts share.
impl MultiPaxos {
    /// Hands over what has become chosen, frees what is no longer needed, asks the host for what
    /// is, and records and reports what has changed.
    fn settle(&mut self, out: &mut Effects<Self>) {
        if self.part == Part::Leader {
            self.advance_change(out);
        }
        if self.part == Part::Leader {
            self.propose_waiting(out);
        }
        self.maybe_end_repair();
        if self.members_changed {
            self.sync_members(out);
        }
        self.deliver(out);
        self.evict();
        self.ask_for_catch_up(out);
        if self.pledge != self.pledge_recorded {
            // In the same step as the values that were accepted under it, so durable with them.
            out.record(Record::Promised(self.pledge));
            self.pledge_recorded = self.pledge;
        }
        let role = (self.role(), self.pledge.ballot, self.leader);
        if self.reported != Some(role) {
            self.reported = Some(role);
            let (role, ballot, leader) = role;
            // Early: it tells what this life knows and promises nothing. A leader's own promise
            // was durable before it asked for others', and another leader's are on a quorum's
            // disks; a candidate's is not, and a crash ends its candidacy with it.
            out.event_early(LogEvent::Role { role, epoch: ballot.epoch(), leader });
        }
        assert!(
            (self.delivered <= self.chosen.min(self.stored) || self.pledge.repairing)
                && self.chosen <= self.upto
                && self.upto <= self.log.last()
                && self.stored <= self.log.last(),
            "the log's marks are in order"
        );
    }

    /// Forgets values that the host no longer needs and that are chosen.
    fn evict(&mut self) {
        let free = self.applied.min(self.delivered);
        while self.log.bytes() - self.open_bytes > self.config.limits.tail_bytes_max
            && self.log.first_in_memory() <= free
        {
            self.log.evict_first();
        }
    }

    fn count_open_bytes(&mut self) {
        let open = self.log.range(self.chosen.next(), self.log.last());
        self.open_bytes = open.map(|pvalue| pvalue.value.cost()).sum();
    }

    fn send_to_self(&mut self, message: Message, out: &mut Effects<Self>) {
        match self.to_self.back_mut() {
            Some((sent, count)) if *sent == self.now => *count += 1,
            _ => self.to_self.push_back((self.now, 1)),
        }
        out.send(self.config.id, message);
    }

    fn note_answer_to_self(&mut self) {
        if let Some((_, count)) = self.to_self.front_mut() {
            *count -= 1;
            if *count == 0 {
                self.to_self.pop_front();
            }
        }
    }

    /// Whether a message to itself has been waiting for the disk for an election timeout.
    fn is_disk_stalled(&self) -> bool {
        self.to_self.front().is_some_and(|(sent, _)| self.now >= *sent + self.config.timing.election)
    }

    fn refuse(&self, ticket: Ticket, why: Refusal, out: &mut Effects<Self>) {
        // Early: what is refused has left no record, so a crash cannot make it untrue.
        out.event_early(LogEvent::Refused { ticket, why });
    }
}
