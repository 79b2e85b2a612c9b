//! Raft: agreement on a log through an elected leader.
//!
//! # The idea
//!
//! Time is cut into *terms*. In each term at most one server is elected *leader* by a majority, and
//! the leader alone decides what the log holds: it appends commands to its own log, sends them to
//! its followers, and an entry that a majority holds on disk is *committed*: it will be in the log
//! of every later leader, at the same place.
//!
//! # Why it is safe
//!
//! A server votes once a term, and remembers its vote on disk, so two leaders of one term would
//! need a common voter that voted twice (*election safety*). A follower appends only where its log
//! holds what the leader's log holds just before, so that two logs which agree at one position and
//! term agree on everything before it (*log matching*). A voter refuses a candidate whose log is
//! behind its own, and a committed entry is on a majority's disks, so that every elected candidate
//! met a voter that holds it and must itself hold it (*leader completeness*). The last step needs
//! care: an entry of an earlier term on a majority's disks may still be replaced by a leader that
//! never saw it, so only entries of the leader's own term are committed by counting, and earlier
//! ones with them (section 3.6.2, figure 3.7).
//!
//! Members change while the cluster serves. A change of voters goes through a *joint*
//! configuration, in which a quorum is a majority of the old and of the new voters, so that no two
//! configurations that follow each other have quorums without a common member; a configuration is
//! in effect when it is in the log. The argument is in `change.rs`.
//!
//! # Source
//!
//! Diego Ongaro, *Consensus: Bridging Theory and Practice*, dissertation, Stanford 2014. Chapter 3
//! is the protocol; 3.10 the transfer of leadership; chapter 4 changes of members, of which 4.3,
//! joint consensus, is the one taken, with learners from 4.2.1; chapter 5 snapshots; 6.2 the
//! leader that steps down when it no longer hears from a majority; 6.4 reads through a confirmed
//! commit index or a lease; 9.6 pre-vote; 10.2.1 writing to the leader's disk in parallel with
//! replication; 10.2.2 batching and pipelining. Repair of damaged logs follows the idea of Alagappan
//! and others, *Protocol-Aware Recovery for Consensus-Based Storage*, FAST 2018, in a simpler form.
//!
//! # The files
//!
//! | file | what it holds |
//! |---|---|
//! | `election` | pre-vote, votes, stepping down, the election timer and priorities |
//! | `fetch` | what a pre-candidate does about a log that is behind the voters' |
//! | `replication`, `progress` | the leader's view of its peers, the follower's check, commit |
//! | `membership`, `change` | configurations and quorums; changing them |
//! | `snapshot` | where the log begins, on both sides |
//! | `read`, `lease` | linearizable reads, by a round of messages or by a lease |
//! | `transfer` | handing leadership over |
//! | `recovery`, `repair` | from records to a server; what to do about lost ones |
//! | `log`, `disk`, `delivery` | the log in memory, on its way to the disk, and to the host |
//! | `message`, `record` | the formats |
//!
//! # Where this departs from the text
//!
//! - Nothing happens by calling; every step is a message, and every effect waits for the disk by
//!   the durability rule of [`crate::contract`]. A candidate counts its own vote, and a leader its
//!   own acknowledgement, when the message to itself has come back ([`Message::Stored`]).
//! - Heartbeats are AppendEntries after the last entry *sent*, not the last one acknowledged: the
//!   answer confirms everything before it, or shows that something was lost on the way.
//! - Pre-vote and check-quorum are always on. A voter which heard from a leader within the election
//!   timeout ignores requests for votes of higher terms, but not once its connection to that leader
//!   is lost: that is what makes failover after a crash quick. It costs no safety, since votes do
//!   not depend on time, and no disruption, since a quorum has to have lost the leader. With leases
//!   votes do depend on time, and the exception is off.
//! - A leader whose disk stalls steps down: its early AppendEntries would otherwise keep it in
//!   office while it can commit only with the others' disks.
//! - A pre-candidate whose log is behind a voter's fetches what it lacks from it, so that a member
//!   which alone reaches a quorum is elected although others of that quorum hold more. The argument
//!   is in `fetch.rs`.
//! - A commit index is pushed to followers at once and not with the next heartbeat.
//! - A restarted voter grants nothing for one election timeout, because it forgot which leader it
//!   heard last, and what it promised it.
//! - Snapshots do not travel in InstallSnapshot: it is a small offer, upon which the follower's
//!   host fetches the state from the leader's host.
//! - All changes of voters take the two steps of joint consensus, those of one voter too; learners
//!   that shall vote are promoted by whoever leads when they have caught up.
//! - A removed leader does not only step down when the change is committed, it hands over.
//! - After a transfer was tried a leader rests no read on a lease for the rest of its term, because
//!   the request to campaign may be late.
//!
//! # What it tolerates
//!
//! Messages may be lost, duplicated, reordered and delayed without bound. Connections, if the host
//! has any, only make it faster: their loss resets what was in flight. Peers are taken to be honest
//! but possibly broken: impossible messages are ignored and counted. Clocks matter for safety only
//! where leases are configured, and then only their rates.
//!
//! # What it leaves out
//!
//! - A pre-candidate fetches entries that conflict with its own log only if what it needs before
//!   they reach a higher term is at most `uncommitted_bytes_max`.
//! - A member whose disk may have lost a vote abstains for ever, and has to be replaced. One that
//!   lost entries fetches everything after its host's state again, what it could still read too;
//!   and where a majority is damaged at once nobody can be elected, even if their remains together
//!   hold everything.
//! - A member that is removed while it cannot be reached never learns of it from the others: its
//!   requests are ignored. Its owner tells it.
//! - Weights of voters, witnesses, and reads from learners under a lease.

mod change;
mod delivery;
mod disk;
mod election;
mod fetch;
mod lease;
mod message;
mod progress;
mod read;
mod record;
mod recovery;
mod repair;
mod replication;
mod snapshot;
mod transfer;
mod view;

pub use message::{
    AppendEntries, AppendEntriesReply, FetchLog, FetchedLog, InstallSnapshot, Message, Outcome, RequestVote,
};
use record::Log;
pub use record::{ENTRY_BYTES, Entry, HardState, Record, Term};

use crate::contract::{Effects, Input, Process, Recovery, StorageFault};
use crate::epoch_log::LogEntry;
use crate::fingerprint::Fingerprint;
use crate::host_read::HostRead;
use crate::log::{
    Index, LogAnswer, LogAsk, LogBase, LogConfig, LogEvent, LogRequest, Payload, Refusal, Role, Ticket,
};
use crate::membership::{Configuration, Membership};
use crate::reading::{Forwarding, Rounds};
use crate::rng::Rng;
use crate::types::{NodeId, Time};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use fetch::Fetch;
use lease::LeaseState;
use progress::Progress;
use recovery::Replay;
use repair::Repair;
use transfer::Transfer;

/// Terms above this are taken to be garbage: honest servers would need centuries to count so far,
/// and no arithmetic on smaller ones overflows.
pub const TERM_MAX: Term = Term(u64::MAX >> 1);

/// What an owner of a Raft server decides. Pre-vote and check-quorum are not options: what they
/// cost is small, and without them one flapping link unseats a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What all replicated logs are configured with. The heartbeat must be above zero and the
    /// election timeout above the heartbeat.
    pub common: LogConfig,
}

/// A Raft server.
#[derive(Clone, Debug)]
pub struct Raft {
    config: LogConfig,
    membership: Membership,
    /// Whether the host is to be told of the configuration.
    members_changed: bool,
    rng: Rng,
    /// When the current step happens.
    now: Time,

    /// Term and vote, as of now and as last recorded: what changed in a step is recorded at its end.
    hard: HardState,
    hard_recorded: HardState,
    log: Log,
    /// The last entry known to be on this server's disk, and never after the end of the log.
    stored: Index,
    /// How often entries of the log were taken back in this life.
    truncations: u64,
    /// When each message to itself that has not come back was sent, and how many at that time.
    to_self: VecDeque<(Time, u32)>,
    storage_full: bool,
    repair: Repair,

    /// The last entry known to be committed.
    commit: Index,
    /// The last entry handed to the host as committed: at most `commit` and `stored`, unless the
    /// log is under repair.
    delivered: Index,
    /// The last entry that the host has applied durably.
    applied: Index,
    /// The cost of the entries in memory that are not committed.
    uncommitted_bytes: usize,
    /// Committed entries that are no longer in memory, on their way back from the host.
    redelivery: HostRead,

    part: Part,
    leader: Option<NodeId>,
    /// When the leader of this term last spoke, unless the connection to it is lost.
    leader_contact: Option<Time>,
    /// Until when a restarted voter grants nothing.
    silent_until: Time,
    /// Until when it has promised a leader not to vote for another, if there are leases.
    promised_until: Time,
    /// How long this server waits for a leader before it campaigns, drawn anew after each wait.
    election_wait: Duration,
    election_deadline: Time,
    /// Who granted the current campaign.
    granted: Vec<NodeId>,
    /// What it fetches in order to be electable.
    fetch: Option<Fetch>,
    /// For which pre-candidate entries are on their way from the host.
    fetched_for: Option<NodeId>,

    /// The peers, in ascending order. What it says is meaningful while leading.
    progress: Vec<Progress>,
    /// Whether some of them are no longer needed.
    progress_stale: bool,
    heartbeat_deadline: Time,
    /// Before this time a quorum cannot have been silent for an election timeout.
    quorum_deadline: Time,
    /// Entries for a lagging peer, on their way from the host.
    catch_up: HostRead,
    /// Whether a lagging peer waits for entries that are not in memory.
    catch_up_wanted: bool,
    /// The change of members that was asked of this leader and is under way.
    change: Option<Ticket>,
    transfer: Option<Transfer>,
    reads: Rounds,
    lease: LeaseState,

    /// Reads forwarded to the leader, while following.
    forwarding: Forwarding,

    reported: Option<(Role, Term, Option<NodeId>)>,
    ignored: u64,
}

/// Whether a server takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    /// A configuration that may yet govern counts it in quorums.
    Voter,
    /// The configuration in effect, if it knows one, lets it receive the log only.
    Learner,
    /// Its disk lost entries, and it receives the log again before it votes.
    Repairing,
    /// Its disk may have lost a vote.
    Abstaining,
}

/// What a server that takes part is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

impl Process for Raft {
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
        let mut raft = Raft::blank(config, now);
        let mut replay = Replay::new(&base, raft.config.limits.tail_bytes_max);
        let mut damaged = false;
        match from {
            Recovery::First => {}
            Recovery::Join => raft.hard.joined = true,
            Recovery::Resume { records } => {
                raft.silent_until = now + raft.config.timing.election;
                records.for_each(|record| replay.take(Some(record)));
            }
            Recovery::Damaged { records } => {
                raft.silent_until = now + raft.config.timing.election;
                damaged = true;
                records.for_each(|record| replay.take(record));
            }
        }
        raft.take_replay(replay, &base, damaged, out);
        if raft.hard.repairing {
            raft.repair.nonce = raft.rng.next();
        }
        raft.resume_at(base.applied);
        raft.settle(out);
        raft
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
        let mut earliest = match self.part {
            Part::Leader => self.heartbeat_deadline.min(self.quorum_deadline),
            _ if self.may_campaign() => self.election_deadline,
            _ => Time(u64::MAX),
        };
        let disk = match self.part {
            Part::Leader => self.to_self.front().map(|(sent, _)| *sent + self.config.timing.election),
            _ => None,
        };
        // One after the other, because hosts ask after every step.
        let mut at_the_latest = |other: Option<Time>| {
            if let Some(other) = other {
                earliest = earliest.min(other);
            }
        };
        at_the_latest(disk);
        at_the_latest(self.transfer.map(|transfer| transfer.deadline));
        at_the_latest(self.forwarding.deadline(&self.config.timing));
        at_the_latest(self.redelivery.retry());
        at_the_latest(self.catch_up.retry());
        (earliest < Time(u64::MAX)).then_some(earliest)
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.digest(now, digest);
    }
}

/// Recovery.
impl Raft {
    fn blank(config: LogConfig, now: Time) -> Raft {
        let mut raft = Raft {
            membership: Membership::after(Index::ZERO, Configuration::unknown()),
            members_changed: true,
            rng: Rng::new(config.seed),
            now,
            hard: HardState::default(),
            hard_recorded: HardState::default(),
            log: Log::after(Index::ZERO, Term(0)),
            stored: Index::ZERO,
            truncations: 0,
            to_self: VecDeque::new(),
            storage_full: false,
            repair: Repair::default(),
            commit: Index::ZERO,
            delivered: Index::ZERO,
            applied: Index::ZERO,
            uncommitted_bytes: 0,
            redelivery: HostRead::Idle,
            part: Part::Follower,
            leader: None,
            leader_contact: None,
            silent_until: now,
            promised_until: now,
            election_wait: config.timing.election,
            election_deadline: now,
            granted: Vec::new(),
            fetch: None,
            fetched_for: None,
            progress: Vec::new(),
            progress_stale: false,
            heartbeat_deadline: now,
            quorum_deadline: now,
            catch_up: HostRead::Idle,
            catch_up_wanted: false,
            change: None,
            transfer: None,
            reads: Rounds::default(),
            lease: LeaseState::default(),
            forwarding: Forwarding::default(),
            reported: None,
            ignored: 0,
            config,
        };
        raft.forwarding = Forwarding::starting_at(raft.rng.next());
        raft.draw_election_wait();
        raft.restart_election_timer();
        raft
    }

    /// Whether it takes part, and how.
    fn standing(&self) -> Standing {
        if self.hard.uncertain {
            Standing::Abstaining
        } else if self.hard.repairing {
            Standing::Repairing
        } else if self.membership.may_lead(self.config.id) {
            Standing::Voter
        } else {
            Standing::Learner
        }
    }
}

/// What may happen to a server.
impl Raft {
    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Effects<Self>) {
        let to_itself = from == self.config.id;
        if to_itself {
            self.note_answer_to_self();
        }
        // A leader that leaves is heard to the end of its term.
        let excluded = self.membership.excludes(from) && self.leader != Some(from);
        if !to_itself && excluded || !plausible(&message) {
            self.ignored += 1;
            return;
        }
        if self.hard.uncertain {
            return self.on_message_abstaining(from, &message);
        }
        match message {
            Message::PreVote { term, granted } => self.on_pre_vote(from, term, granted, out),
            Message::Vote { term, granted } => self.on_vote(from, term, granted, out),
            Message::Stored { truncations, index } if to_itself => self.on_stored(truncations, index, out),
            _ if to_itself => self.ignored += 1,
            Message::RequestPreVote(request) => self.on_request_pre_vote(from, request, out),
            Message::RequestVote(request) => self.on_request_vote(from, request, out),
            Message::AppendEntries(append) => self.on_append_entries(from, append, out),
            Message::AppendEntriesReply(reply) => self.on_append_entries_reply(from, reply, out),
            Message::ReadIndex { batch } => self.on_read_index(from, batch, out),
            Message::ReadIndexReply { batch, index } => self.on_read_index_reply(from, batch, index, out),
            Message::Stored { .. } => self.ignored += 1,
            Message::InstallSnapshot(offer) => self.on_install_snapshot(from, offer, out),
            Message::TimeoutNow { term } => self.on_timeout_now(from, term, out),
            Message::RequestLogEnd { nonce } => self.on_request_log_end(from, nonce, out),
            Message::LogEnd { nonce, term, last } => self.on_log_end(from, nonce, term, last),
            Message::LogAhead { term, last_index, last_term } => {
                self.on_log_ahead(from, term, (last_term, last_index), out);
            }
            Message::FetchLog(fetch) => self.on_fetch_log(from, fetch, out),
            Message::FetchedLog(fetched) => self.on_fetched_log(from, fetched, out),
        }
    }

    /// A damaged member promises nothing; it only learns who leads, to direct its clients there.
    fn on_message_abstaining(&mut self, from: NodeId, message: &Message) {
        if let Message::AppendEntries(append) = message
            && append.term >= self.hard.term
        {
            // Not recorded: nothing rests on it.
            self.hard = HardState { term: append.term, voted_for: None, ..self.hard };
            self.hard_recorded = self.hard;
            self.leader = Some(from);
        }
    }

    fn on_request(&mut self, request: LogRequest, out: &mut Effects<Self>) {
        match request {
            LogRequest::Propose { ticket, commands } => self.on_propose(ticket, commands, out),
            LogRequest::Read { ticket } => self.on_read(ticket, out),
            LogRequest::Applied { index } => self.applied = self.applied.max(index.min(self.delivered)),
            LogRequest::Compact { .. } if self.hard.uncertain => {}
            LogRequest::Compact { point } => self.on_compact(point, out),
            LogRequest::TransferLeadership { ticket, to } => self.on_transfer(ticket, to, out),
            LogRequest::ChangeMembership { ticket, change } => self.on_change(ticket, change, out),
        }
    }

    /// Whether its disk keeps it from taking anything in.
    fn is_out_of_order(&self) -> bool {
        self.hard.uncertain || self.hard.repairing || self.storage_full
    }

    fn on_propose(&mut self, ticket: Ticket, commands: Vec<Bytes>, out: &mut Effects<Self>) {
        if self.is_out_of_order() {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leader {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if commands.is_empty() {
            self.ignored += 1;
            return;
        }
        let cost: usize = commands.iter().map(|command| command.len() + ENTRY_BYTES).sum();
        let room = self.config.limits.uncommitted_bytes_max.saturating_sub(self.uncommitted_bytes);
        // A proposal that is larger than the limit goes alone, rather than never.
        if cost > room && self.uncommitted_bytes > 0 {
            return self.refuse(ticket, Refusal::Busy, out);
        }
        if self.transfer.is_some() {
            // Nothing was appended, and within an election timeout this server or another takes
            // commands again: the proposer waits, as for room.
            return self.refuse(ticket, Refusal::Busy, out);
        }
        self.append_as_leader(commands.into_iter().map(Payload::Command), out);
    }

    fn on_storage_fault(&mut self, fault: StorageFault, out: &mut Effects<Self>) {
        self.storage_full = fault == StorageFault::Full;
        if self.storage_full && self.part != Part::Follower {
            // A leader that cannot append makes way for one that can.
            self.become_follower(self.hard.term, None, out);
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
        }
        if self.part != Part::Leader && self.may_campaign() && self.now >= self.election_deadline {
            self.become_pre_candidate(out);
        }
        self.check_transfer(out);
        self.retry_forwarded_reads(out);
        self.redelivery.maybe_retry(self.now);
        self.catch_up.maybe_retry(self.now);
    }
}

/// What every step ends with, and what all parts share.
impl Raft {
    /// Hands over what has become committed, frees what is no longer needed, and records and
    /// reports what has changed.
    fn settle(&mut self, out: &mut Effects<Self>) {
        self.maybe_end_repair();
        self.deliver(out);
        self.evict();
        if core::mem::take(&mut self.progress_stale) {
            self.sync_progress();
        }
        if self.part == Part::Leader && self.catch_up_wanted {
            self.ask_for_catch_up(out);
        }
        if self.hard != self.hard_recorded {
            // In the same step as the votes and entries that rest on it, so durable with them.
            out.record(Record::HardState(self.hard));
            self.hard_recorded = self.hard;
        }
        if core::mem::take(&mut self.members_changed) && self.membership.current().is_known() {
            let members = self.membership.current().members().to_vec();
            // Early: it tells what this life's log says, and may be taken back anyway.
            out.event_early(LogEvent::Members { members });
        }
        let role = (self.role(), self.hard.term, self.leader);
        if self.reported != Some(role) {
            self.reported = Some(role);
            let (role, term, leader) = role;
            // Early: it tells what this life knows and promises nothing. A leader's own term and
            // vote were durable before anybody voted for it, and another leader's are on a
            // quorum's disks; a candidate's are not, and a crash ends its candidacy with it.
            out.event_early(LogEvent::Role { role, epoch: term.epoch(), leader });
        }
        assert!(
            (self.delivered <= self.commit || self.hard.repairing)
                && self.commit <= self.log.last()
                && self.stored <= self.log.last(),
            "the log's marks are in order"
        );
    }

    /// Raises the commit index.
    fn commit_to(&mut self, index: Index) {
        assert!(index > self.commit && index <= self.log.last(), "a commit index rises within the log");
        let committed: usize = self.log.range(self.commit.next(), index).map(Entry::cost).sum();
        self.uncommitted_bytes -= committed;
        self.commit = index;
        // Those whom only an older configuration lists are told of this before they are forgotten.
        self.progress_stale |= self.membership.commit_to(index);
    }

    fn refuse(&self, ticket: Ticket, why: Refusal, out: &mut Effects<Self>) {
        // Early: what is refused has left no record, so a crash cannot make it untrue.
        out.event_early(LogEvent::Refused { ticket, why });
    }
}

/// Whether a message's terms are such as servers count.
fn plausible(message: &Message) -> bool {
    let term = match message {
        Message::RequestPreVote(request) | Message::RequestVote(request) => request.term,
        Message::PreVote { term, .. }
        | Message::Vote { term, .. }
        | Message::TimeoutNow { term }
        | Message::LogAhead { term, .. }
        | Message::LogEnd { term, .. } => *term,
        Message::AppendEntries(append) => append.term,
        Message::InstallSnapshot(offer) => offer.term,
        Message::AppendEntriesReply(reply) => reply.term,
        Message::FetchedLog(fetched) => fetched.term,
        Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::Stored { .. }
        | Message::FetchLog(_)
        | Message::RequestLogEnd { .. } => {
            return true;
        }
    };
    term <= TERM_MAX
}
