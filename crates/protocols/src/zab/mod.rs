//! Zab: primary order through epochs, as ZooKeeper runs it.
//!
//! # The idea
//!
//! One *leader* proposes, and everybody's *history* is to become a prefix of one sequence of its and
//! its predecessors' proposals. Leaders are told apart by *epochs*, and a proposal is named by its
//! *zxid*: the epoch, and a counter. A proposal is committed when a quorum has it on disk. What makes
//! it Zab is the change of leaders. Before a new one proposes anything, it
//!
//! - *discovers* (section III.A of the paper): it gets a quorum to promise a new epoch, larger than any
//!   they promised before, and with that not to follow an older leader; and it takes the newest history
//!   among them, which holds everything that was ever committed;
//! - *synchronises* (III.B): it brings a quorum to hold exactly that history, followed by NEWLEADER;
//!   when they do, all of it is committed at once, and the leader is *established*;
//! - *broadcasts* (III.C): only now it proposes, and what it proposes extends that history.
//!
//! So a history of an earlier epoch is settled as a whole, and before the first new proposal: a later
//! proposal is never committed without everything that its leader saw (*primary order*), and there
//! are no old entries whose fate is decided by counting.
//!
//! Who tries to lead is found by *fast leader election*. It is a hint only, and nothing in it is
//! durable.
//!
//! # Why it is safe
//!
//! Two things are durable beside the history: *acceptedEpoch*, the last epoch promised, and
//! *currentEpoch*, the last one whose first history was taken in whole. Histories are compared by
//! currentEpoch, then by their last zxid.
//!
//! *One leader an epoch.* An epoch is promised once, by each of a quorum, and durably; its proposer
//! has promised it durably before it tells anybody, so that no later life of it proposes the epoch
//! again. Hence a zxid names one proposal, and determines the history before it.
//!
//! *Nothing committed is lost.* Let a proposal be committed in epoch e: a quorum held it, with
//! currentEpoch e. Take the first later epoch whose chosen history lacks it. Its quorum shares a member
//! with the one that held it. Meanwhile that member followed only leaders whose histories had it, each
//! of which cut nothing but what was not in their own; so it still has it, and its currentEpoch is at
//! least e. The winner of the comparison has a currentEpoch at least as large. If larger, it took in the
//! whole first history of an epoch after e, which had the proposal, and followed only such leaders
//! since. If equal, its history is a prefix of one that has the proposal, and by its last zxid not
//! shorter than one that reaches it. Either way it has it: a contradiction.
//!
//! The argument needs that currentEpoch rises only when the history is there. A follower appends the
//! entry of NEWLEADER and raises currentEpoch in one step, after the history in the steps before, and
//! acknowledges when that is on disk (ZOOKEEPER-4643, -4646 and -4685 got one of the three wrong). It
//! does not need that synchronisation is atomic: a member that crashes in the middle holds a prefix of
//! a history which has everything committed that it had, under its old currentEpoch.
//!
//! # Sources
//!
//! Junqueira, Reed and Serafini, *Zab: High-performance broadcast for primary-backup systems*, DSN 2011;
//! "Zab 1.0" in ZooKeeper's wiki and its `Leader`, `Learner` and `FastLeaderElection`, whose names for
//! messages are used here (FOLLOWERINFO is the paper's CEPOCH, LEADERINFO its NEWEPOCH); Shraer, Reed,
//! Malkhi and Junqueira, *Dynamic Reconfiguration of Primary/Backup Clusters*, USENIX ATC 2012.
//!
//! # Where this departs from them
//!
//! - **The newest history is fetched**, as in the paper's phase 1. In Zab 1.0 a leader-to-be that meets a
//!   newer history gives up, and relies on the election to find the member that has it. That member may
//!   not reach a quorum (the constrained election of *OmniPaxos*, EuroSys 2023); here whoever reaches a
//!   quorum can lead.
//! - **NEWLEADER is an entry** of the history: a no-op, the first of its epoch. Its acknowledgement is that
//!   of a position like any other, commits everything before it, and an epoch that was ever established
//!   shows in every history that has seen it.
//! - **The counter of a zxid does not begin again** with each epoch, and is the position in the log.
//! - **No message relies on FIFO channels.** The contract's connections are hints, and messages may be lost,
//!   repeated and reordered. From DIFF on a message says of which epoch it is and where it fits; see
//!   `follower.rs`. A lost proposal shows as a gap, or by what the next PING says was sent, and the follower
//!   asks for what is missing (`Resync`). *Reconnection* restarts a follower's synchronisation from what it
//!   acknowledged, with a DIFF: nothing depends on it, it is only faster than the next PING.
//! - **A TRUNC is not durable by itself**, but with the entry that replaces what it cut, in one record. A crash
//!   in between brings the old history back, which is as good as before (ZOOKEEPER-2845, -4785, -4925 and
//!   -5094 are histories with holes or with entries cut that were acknowledged). It names the history that it
//!   was made for, so that a late one cuts nothing.
//! - **acceptedEpoch is kept with the name of its leader**, so that a lost ACKEPOCH can be sent again.
//! - **Commit indices ride on proposals and PINGs** too; a COMMIT goes out at once where nothing else does.
//! - **Proposals leave before the leader's own disk has them**, and it counts itself by a message to itself.
//!   A leader that crashes and forgets them can never propose in that epoch again: it needs a larger one.
//! - **In the election** only the candidate counts, and says that it leads; ties of history go to whoever began
//!   the round; and whoever did not hear from a quorum in the last round does not propose itself. Voters then
//!   follow whoever does reach a quorum, in all three partial topologies of *OmniPaxos*. There is no wait for
//!   better votes: discovery does not need it.
//! - **`sync` asks a quorum**; see `read.rs`.
//! - A leader that meets a promise of a later epoch than its own steps down for a new epoch, where ZooKeeper
//!   leaves that follower out until the next election. Epochs rise only through a quorum's FOLLOWERINFO, so a
//!   member that was cut off comes back without disturbing anybody.
//! - Changes of members are activated by an entry of their own; see `change.rs`.
//!
//! # What it tolerates
//!
//! Messages may be lost, duplicated, reordered and delayed without bound. Peers are taken to be honest
//! but possibly broken: impossible messages are ignored and counted. A leader that hears from no quorum for
//! an election timeout steps down, and so does one whose disk stalls or is full.
//!
//! # What it leaves out
//!
//! Reads by a lease: [`LogConfig::lease`] is ignored, and every read asks a quorum. Hierarchical and weighted
//! quorums. Observers that relay to others. A member whose disk may have lost a promise abstains for ever: it
//! is to be removed, and another added in its place. One that lost entries only receives them again (see
//! `repair.rs`); where a majority is damaged at once nobody can lead.

mod broadcast;
mod change;
mod codec;
mod discovery;
mod election;
mod follower;
mod history;
mod host;
mod learner;
mod message;
mod read;
mod record;
mod recovery;
mod repair;
mod transfer;
mod view;

pub use message::{Message, Notification, State, Vote};
pub use record::{ENTRY_BYTES, Entry, Epochs, Record, Zxid};

use crate::contract::{Effects, Input, Process, Recovery, StorageFault};
use crate::fingerprint::Fingerprint;
use crate::host_read::HostRead;
use crate::log::{
    Epoch, Index, LogAnswer, LogAsk, LogBase, LogConfig, LogEvent, LogRequest, Refusal, Role, Ticket,
};
use crate::membership::Membership;
use crate::reading::{Forwarding, Rounds};
use crate::rng::Rng;
use crate::types::{NodeId, Time};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use history::History;
use learner::Learner;
use repair::Repair;
use transfer::Transfer;

/// Epochs, rounds and positions above this are taken to be garbage: honest members would need
/// centuries to count so far, and no arithmetic on smaller ones overflows.
pub const NUMBER_MAX: u64 = u64::MAX >> 1;

/// What an owner of a member decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What all replicated logs are configured with. The heartbeat must be above zero and the
    /// election timeout above the heartbeat. Leases are not used: every read asks a quorum.
    pub common: LogConfig,
}

/// A member of a Zab ensemble.
#[derive(Clone, Debug)]
pub struct Zab {
    config: LogConfig,
    membership: Membership,
    /// Whether learners and host have yet to hear of a change of members.
    members_changed: bool,
    rng: Rng,
    /// When the current step happens.
    now: Time,

    /// acceptedEpoch and currentEpoch, as of now and as last recorded: what changed in a step is
    /// recorded at its end, after the entries of the step.
    epochs: Epochs,
    epochs_recorded: Epochs,
    history: History,
    repair: Repair,
    /// The last entry known to be on this member's disk, and never after the end of the history.
    stored: Index,
    /// How often this life has cut its history.
    cuts: u64,
    /// When each message to itself that has not come back was sent, and how many at that time.
    to_self: VecDeque<(Time, u32)>,
    storage_full: bool,

    /// The last entry known to be committed.
    commit: Index,
    /// The last entry handed to the host as committed: at most `commit` and `stored`.
    delivered: Index,
    /// The last entry that the host has applied durably.
    applied: Index,
    /// The cost of the entries in memory that are not committed.
    uncommitted_bytes: usize,
    /// Committed entries that are no longer in memory, on their way back from the host.
    redelivery: HostRead,
    /// Entries for a lagging peer, on their way from the host.
    catch_up: HostRead,

    part: Part,
    leader: Option<NodeId>,
    /// How long this member waits for its leader, or for a round of voting, drawn anew after each
    /// wait; and until when.
    wait: Duration,
    patience: Time,
    /// When it repeats itself: a notification while looking, a FOLLOWERINFO while discovering, a
    /// PING while leading.
    repeat: Time,

    /// The round of voting, or the one that made the leader.
    round: u64,
    vote: Option<Vote>,
    /// The latest vote of each peer in this round.
    votes: Vec<(NodeId, Option<Vote>)>,
    /// Whom it heard of since it last lost patience.
    heard: Vec<NodeId>,
    /// Whether it may propose itself without having heard from a quorum: once each time it begins
    /// to look.
    hopeful: bool,

    /// While following: whether the history is known to be a part of the leader's. It is never
    /// cut for this leader again then.
    agreed: bool,
    /// Who waits for a part of this member's history, and what it asked for.
    fetch_asked: Option<(NodeId, Zxid)>,

    /// While leading: what is known about each peer, in ascending order of ids.
    learners: Vec<Learner>,
    /// The epoch that it proposes, once a quorum has said what it accepted.
    epoch: Option<Epoch>,
    /// The largest acceptedEpoch that anybody told.
    accepted_seen: Epoch,
    /// Whether it has promised its own epoch durably.
    promised: bool,
    /// Whose history, the newest among those that promised, is being fetched.
    fetching: Option<NodeId>,
    /// The currentEpoch of the history that it has: its own, or that of whom it was fetched from.
    adopted: Epoch,
    /// The position of NEWLEADER.
    start: Index,
    /// Before this time a quorum cannot have been silent for an election timeout.
    quorum_deadline: Time,
    /// Whether a lagging peer waits for entries that are not in memory.
    catch_up_wanted: bool,
    /// What was committed when the last PING went out.
    commit_pinged: Index,
    /// The change of members that was asked of this leader and is not complete.
    change: Option<Ticket>,
    /// The transfer that was asked of this member and has not ended.
    transfer: Option<Transfer>,
    reads: Rounds,

    /// Reads forwarded to the leader, while following.
    forwarding: Forwarding,

    reported: Option<(Role, Epoch, Option<NodeId>)>,
    ignored: u64,
}

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Looking,
    Following(Phase),
    Leading(Phase),
}

/// The phases of an epoch (sections III.A to III.C).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// No quorum has promised the epoch yet; at a follower, it has not.
    Discovery,
    /// No quorum holds the epoch's first history yet; at a follower, it does not know of one.
    Synchronization,
    /// Proposals are committed.
    Broadcast,
}

impl Process for Zab {
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
        let mut zab = Zab::blank(config, &base, now);
        match from {
            Recovery::First => {}
            Recovery::Join => zab.epochs.joined = true,
            Recovery::Resume { records } => zab.replay(&base, false, &mut records.map(Some), out),
            Recovery::Damaged { records } => zab.replay(&base, true, records, out),
        }
        if zab.epochs.repairing {
            zab.repair.nonce = zab.rng.next();
        }
        zab.resume_at(base.applied);
        zab.members_changed = true;
        if zab.epochs != Epochs::default() || !zab.is_participant() {
            // Somebody may be leading: ask, and wait for the answer as long as for a lost leader.
            zab.repeat_notifications(out);
        }
        zab.settle(out);
        zab
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
        let own = match self.part {
            Part::Leading(_) => {
                let disk = self.to_self.front().map(|(sent, _)| *sent + self.config.timing.election);
                let own = self.repeat.min(self.quorum_deadline);
                disk.map_or(own, |disk| own.min(disk))
            }
            Part::Following(Phase::Discovery) => self.patience.min(self.repeat),
            Part::Following(_) => self.patience,
            // Before the first round there is nothing to repeat.
            Part::Looking if self.round == 0 && self.epochs == Epochs::default() => self.patience,
            Part::Looking => self.patience.min(self.repeat),
        };
        [
            Some(own),
            self.transfer.map(|transfer| transfer.deadline),
            self.forwarding.deadline(&self.config.timing),
            self.redelivery.retry(),
            self.catch_up.retry(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.digest(now, digest);
    }
}

/// What may happen to a member.
impl Zab {
    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Effects<Self>) {
        let to_itself = from == self.config.id;
        if to_itself {
            self.note_answer_to_self();
        }
        let foreign = self.membership.excludes(from) && self.leader != Some(from);
        if !to_itself && foreign || message.largest_number() > NUMBER_MAX {
            self.ignored += 1;
            return;
        }
        if self.epochs.uncertain {
            return self.on_message_abstaining(from, &message);
        }
        match message {
            Message::AckEpoch { epoch, .. } if to_itself => self.on_own_promise(epoch, out),
            Message::Stored { cuts, index } if to_itself => self.on_stored(cuts, index, out),
            _ if to_itself => self.ignored += 1,
            Message::Stored { .. } => self.ignored += 1,
            Message::Notification(notification) => self.on_notification(from, notification, out),
            Message::FollowerInfo { accepted, accepted_from, observer } => {
                self.on_follower_info(from, accepted, accepted_from, observer, out);
            }
            Message::LeaderInfo { epoch } => self.on_leader_info(from, epoch, out),
            Message::AckEpoch { epoch, current, last } => self.on_ack_epoch(from, epoch, current, last, out),
            Message::FetchHistory { epoch, after } => self.on_fetch_history(from, epoch, after, out),
            Message::HistoryPart { epoch, after, entries, last } => {
                self.on_history_part(from, epoch, after, entries, last, out);
            }
            Message::Diff { epoch, after } => self.on_diff(from, epoch, after, out),
            Message::Trunc { epoch, last, to } => self.on_trunc(from, epoch, last, to, out),
            Message::Snap { epoch, point } => self.on_snap(from, epoch, point, out),
            Message::NewLeader { epoch, after } => self.on_new_leader(from, epoch, after, out),
            Message::Propose { epoch, after, commit, entries } => {
                self.on_propose(from, epoch, after, commit, entries, out);
            }
            Message::Ack { epoch, index } => self.on_ack(from, epoch, index, out),
            Message::Resync { epoch, last, hint } => self.on_resync(from, epoch, last, hint, out),
            Message::UpToDate { epoch, commit } | Message::Commit { epoch, commit } => {
                self.on_commit(from, epoch, commit);
            }
            Message::Ping { epoch, round, sent, commit } => {
                self.on_ping(from, epoch, round, sent, commit, out);
            }
            Message::Pong { epoch, round, index } => self.on_pong(from, epoch, round, index, out),
            Message::TakeOver { epoch } => self.on_take_over(from, epoch, out),
            Message::Sync { batch } => self.on_sync(from, batch, out),
            Message::RequestHistoryEnd { nonce } => self.on_request_history_end(from, nonce, out),
            Message::HistoryEnd { nonce, epoch, last } => self.on_history_end(from, nonce, epoch, last),
            Message::SyncReply { batch, index } => self.on_sync_reply(from, batch, index, out),
        }
    }

    /// A damaged member promises nothing; it only learns who leads, to direct its clients there.
    fn on_message_abstaining(&mut self, from: NodeId, message: &Message) {
        if let Message::Notification(Notification { state: State::Leading, .. }) = message {
            self.leader = Some(from);
        }
    }

    fn on_request(&mut self, request: LogRequest, out: &mut Effects<Self>) {
        match request {
            LogRequest::Propose { ticket, commands } => self.on_commands(ticket, commands, out),
            LogRequest::Read { ticket } => self.on_read(ticket, out),
            LogRequest::Applied { index } => self.applied = self.applied.max(index.min(self.delivered)),
            LogRequest::Compact { point } => self.on_compact(&point, out),
            LogRequest::TransferLeadership { ticket, to } => self.on_transfer(ticket, to, out),
            LogRequest::ChangeMembership { ticket, change } => self.on_change(ticket, change, out),
        }
    }

    fn on_commands(&mut self, ticket: Ticket, commands: Vec<Bytes>, out: &mut Effects<Self>) {
        if self.epochs.uncertain || self.storage_full {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if self.part != Part::Leading(Phase::Broadcast) {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader_known() }, out);
        }
        if commands.is_empty() {
            self.ignored += 1;
            return;
        }
        let cost: usize = commands.iter().map(|command| command.len() + ENTRY_BYTES).sum();
        let room = self.config.limits.uncommitted_bytes_max.saturating_sub(self.uncommitted_bytes);
        // A proposal that is larger than the limit goes alone, rather than never.
        if cost > room && self.uncommitted_bytes > 0 || self.transfer.is_some() {
            return self.refuse(ticket, Refusal::Busy, out);
        }
        let epoch = self.epochs.accepted;
        let entry = |command| Entry { epoch, payload: crate::log::Payload::Command(command) };
        self.append(commands.into_iter().map(entry).collect(), out);
        self.replicate_all(out);
    }

    fn on_storage_fault(&mut self, fault: StorageFault, out: &mut Effects<Self>) {
        self.storage_full = fault == StorageFault::Full;
        if self.storage_full && matches!(self.part, Part::Leading(_)) {
            // A leader that cannot append makes way for one that can.
            self.become_looking(out);
        }
        if !self.storage_full {
            self.be_patient();
        }
    }

    fn on_timeout(&mut self, out: &mut Effects<Self>) {
        if let Part::Leading(_) = self.part {
            self.check_disk(out);
        }
        if matches!(self.part, Part::Leading(_)) && self.now >= self.quorum_deadline {
            self.check_quorum(out);
        }
        match self.part {
            Part::Leading(_) if self.now >= self.repeat => {
                self.send_pings(out);
                // Whoever a round waited for may be no member any more.
                self.maybe_confirm_round(out);
            }
            Part::Following(_) if self.now >= self.patience => self.become_looking(out),
            Part::Following(Phase::Discovery) if self.now >= self.repeat => self.send_follower_info(out),
            Part::Looking if self.now >= self.patience => self.on_round_failed(out),
            Part::Looking if self.now >= self.repeat => self.repeat_notifications(out),
            _ => {}
        }
        self.retry_forwarded_reads(out);
        self.check_transfer(out);
        self.redelivery.maybe_retry(self.now);
        self.catch_up.maybe_retry(self.now);
    }

    /// A lost connection says nothing about what arrived, and a new one nothing about what did
    /// not: both only hasten what time would bring.
    fn on_link_up(&mut self, peer: NodeId, out: &mut Effects<Self>) {
        match self.part {
            _ if self.epochs.uncertain => {}
            Part::Leading(_) => self.restart_learner(peer, out),
            Part::Following(Phase::Discovery) if self.leader == Some(peer) => self.send_follower_info(out),
            Part::Following(_) => {}
            Part::Looking if self.round > 0 || self.epochs != Epochs::default() => {
                self.send_notification(peer, out);
            }
            Part::Looking => {}
        }
    }

    fn on_link_down(&mut self, peer: NodeId) {
        match self.part {
            Part::Leading(_) => self.suspend_learner(peer),
            Part::Following(_) if self.leader == Some(peer) => self.lose_patience(),
            Part::Following(_) | Part::Looking => {}
        }
    }

    /// The leader, if it is one that serves.
    fn leader_known(&self) -> Option<NodeId> {
        match self.part {
            Part::Leading(Phase::Broadcast) | Part::Following(Phase::Broadcast) => self.leader,
            Part::Looking if self.epochs.uncertain => self.leader,
            _ => None,
        }
    }

    /// Between one and two election timeouts, so that members rarely lose patience together.
    /// Those of higher priority wait less, those of priority 0 one timeout more.
    fn draw_wait(&mut self) {
        let election = nanos(self.config.timing.election);
        let priority = u64::from(self.config.priority);
        let spread = self.rng.between(0, election - 1) / priority.max(1);
        let base = if priority == 0 { 2 * election } else { election };
        self.wait = Duration::from_nanos(base + spread);
        self.be_patient();
    }

    /// Waits anew, as long as before.
    fn be_patient(&mut self) {
        self.patience = self.now + self.wait;
    }

    /// The connection to the leader is lost, and perhaps the leader with it: look for another
    /// soon, after a small random delay that keeps the followers apart. If the leader is well, the
    /// others still follow it and say so; nobody is disturbed.
    fn lose_patience(&mut self) {
        let heartbeat = nanos(self.config.timing.heartbeat);
        let delay = Duration::from_nanos(self.rng.between(heartbeat / 4, 2 * heartbeat));
        self.patience = self.patience.min(self.now + delay);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
