//! Viewstamped Replication: agreement on a log through a primary that is replaced by its number.
//!
//! # The idea
//!
//! Time is cut into *views*, and the number of a view says who its *primary* is: the replicas take
//! turns. The primary gives every operation the next *op-number*, sends it to the backups in a
//! Prepare, and when a quorum holds it on disk the operation is *committed*. Where the primary is
//! lost, a quorum of replicas leaves its view: each stops accepting anything from it and sends what
//! it has to the primary of a later view (DoViewChange), which takes over the best of the logs that
//! it was sent and starts its view with it (StartView).
//!
//! # Why it is safe
//!
//! Every replica remembers its *view-number* and the *last view in which its status was normal*. Of
//! the logs in a quorum's DoViewChanges the new primary takes the one with the largest last normal
//! view, and of these the longest. Let an operation have been committed in view w, and let v > w be
//! the first view started without it. A quorum held the operation while normal in w, and one of them,
//! r, is among those that sent DoViewChanges for v, after it had left w. So the log that was taken
//! has a last normal view of at least w. If it is larger, it is of a view started with the operation,
//! and whoever is normal in a view has everything that it was started with. If it is w, then the log
//! is at least as long as r's, and what replicas that are normal in w hold are beginnings of one log
//! (or, where one was overtaken by a later view before it was normal in that, of that one's, which
//! has the operation too): so it contains the operation. Three things must therefore be true of disks: a replica is normal in
//! a view only when its log durably holds what the view started with (*last normal* and log are
//! written in this order of dependence), it acknowledges only while normal and what it has synced,
//! and after it has sent a DoViewChange it acknowledges nothing for a lower view, not even when it
//! has crashed in between.
//!
//! Entries carry the view that they were proposed in, so that a position and a view determine an
//! entry and all before it, as in Raft. A log can be compared by its end, and repaired from where it
//! agrees: entries are cut off only in the very record that puts others in their place. That is safe
//! even while the last normal view is still an old one, because what was committed is in both logs
//! and so before the point where they part.
//!
//! # Source
//!
//! Barbara Liskov and James Cowling, *Viewstamped Replication Revisited*, MIT-CSAIL-TR-2012-021.
//! Section 4.1 is normal operation, 4.2 view changes, 5.1 checkpoints, 5.2 state transfer, 5.3 the
//! log's suffix instead of the log, 6.2 batching. The analysis of what the text gets wrong is Jack
//! Vanlightly's (`vsr-tlaplus`): a replica that cuts its log back to its commit-number before the new
//! state has arrived, and takes part in the next view change as one that was normal in the newer view,
//! can make a short log win.
//!
//! # Where this departs from the text
//!
//! - **Disks.** The paper keeps nothing on disk, recovers from the others (4.3), and never recovers
//!   from a crash of all. Here both views and the log are durable before anybody is told what rests on
//!   them. Status *recovering* is for a replica whose disk lost entries, see `recovery.rs`. Every effect
//!   waits for the disk by the durability rule of [`crate::contract`]; a primary counts its own PrepareOk
//!   and a new primary its own DoViewChange by messages to themselves.
//! - **Prepares are early**: they leave before the primary's own disk has the operations. This needs
//!   that nobody ever proposes again in the same view. A replica only starts a view that is larger than
//!   its own view-number, and sends the DoViewChange to itself, which it counts, after that number is on
//!   disk. So a primary that restarts finds a view-number not below the view which it led, is not
//!   normal in it, and must change the view before it proposes anything.
//! - **Who asks for a view change.** In the paper whoever times out names the next view, and that view's
//!   primary may be somebody whom nobody can reach. Here a replica names the next view *of its own*, and
//!   only after a quorum has said that it lost the primary too (PreViewChange); views between are
//!   skipped. So the primary of a view that is started was connected to a quorum when it started it:
//!   with one replica left in the middle of a network, that one leads. These answers take the place of
//!   the paper's round of StartViewChanges; StartViewChange itself comes from the primary to be. Turns
//!   are still taken: waits are staggered by whose turn is next, and double with every attempt in vain.
//! - **Loyalty.** A replica which heard from its primary within the timeout answers no PreViewChange,
//!   except the primary's own, and ignores StartViewChanges: whoever was cut off disturbs nobody when it
//!   returns. If it has meanwhile promised a view above the primary's, it can follow it no more; then it
//!   says so (NewerView), and the primary moves to a view of its own above that.
//! - **A view starts with a no-op.** Whoever has the entry holds nothing of an earlier view after it; so
//!   "normal" can be decided by one position, and every log shows when its views began.
//! - **State transfer** never cuts a log before the new state is there, and a replica becomes normal in a
//!   view only when its log has reached the view's first entry. Until then it answers view changes with
//!   its old last normal view.
//! - A primary that does not hear from a quorum, or whose disk stalls or is full, leaves its view.
//! - Commit-numbers are pushed at once and not with the next Prepare; a Commit carries the last op-number
//!   sent, so that its receiver sees whether it has lost something.
//! - Reads need no clocks, see `read.rs`, unless leases are configured, see `lease.rs`. The client table lives above the log, in the replicated state.
//! - A transfer of leadership is a view change to the target's next view that the primary itself asks for.
//!
//! - **Epochs.** A change of the replicas ends an epoch and begins the next, see `epoch.rs`. A view-number
//!   is a pair of an epoch and a view in it, so that no message needs a number more.
//!
//! # What it tolerates
//!
//! Messages may be lost, duplicated, reordered and delayed without bound. Connections, if the host has
//! any, only make it faster. Peers are taken to be honest but possibly broken: impossible messages are
//! ignored and counted.
//!
//! # What it leaves out
//!
//! Recovery without disks (4.3): a replica whose disk may have lost a view-number abstains, because it
//! may have forgotten a promise. Witnesses (6.1).

mod change;
mod configuration;
mod epoch;
mod lease;
mod message;
mod normal;
mod progress;
mod read;
mod record;
mod recovery;
mod settle;
mod state_transfer;
mod transfer;
mod view;
mod view_change;

pub use message::{DoViewChange, Message, NewState, Suffix};
use record::Log;
pub use record::{ENTRY_BYTES, Entry, EpochNumber, Record, VIEW_MAX, VIEWS, ViewNumber, Views};

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
use configuration::Epochs;
use core::time::Duration;
use epoch::Handover;
use lease::LeaseState;
use progress::Progress;
use recovery::Rejoining;
use transfer::Transfer;
use view_change::Campaign;

/// The paper's name for a position of the log.
pub type OpNumber = Index;

/// What an owner of a replica decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What all replicated logs are configured with. The heartbeat must be above zero and the
    /// election timeout above the heartbeat.
    pub common: LogConfig,
}

/// A replica.
#[derive(Clone, Debug)]
pub struct Viewstamped {
    config: LogConfig,
    /// The configuration of the last epoch that it knows, and those that may follow.
    epochs: Epochs,
    /// Whether the host does not know them yet.
    members_changed: bool,
    standing: Standing,
    rng: Rng,
    /// When the current step happens.
    now: Time,

    status: Status,
    /// View-number and last normal view, as of now and as last recorded: what changed in a step is
    /// recorded at its end.
    views: Views,
    views_recorded: Views,
    log: Log,
    /// The last entry known to be on this replica's disk, and never after the end of the log.
    stored: OpNumber,
    /// When each message to itself that has not come back was sent, and how many at that time.
    to_self: VecDeque<(Time, u32)>,
    storage_full: bool,

    /// The commit-number: the last entry known to be committed.
    commit: OpNumber,
    /// The last entry handed to the host as committed: at most `commit` and `stored`.
    delivered: OpNumber,
    /// The last entry that the host has applied durably.
    applied: OpNumber,
    /// The cost of the entries in memory that are not committed.
    uncommitted_bytes: usize,
    /// Committed entries that are no longer in memory, on their way back from the host.
    redelivery: HostRead,

    /// The primary of its view, once it has spoken and unless it was given up.
    leader: Option<NodeId>,
    /// When it last spoke, unless the connection to it is lost.
    leader_contact: Option<Time>,
    /// Until when a restarted replica would follow nobody into another view.
    silent_until: Time,
    /// Until when it has promised a primary to follow nobody else, if there are leases.
    promised_until: Time,
    /// How long this replica waits for a primary before it asks for a view change, and until when.
    wait: Duration,
    wait_deadline: Time,
    /// View changes in vain since a primary was last heard.
    attempts: u32,
    campaign: Campaign,
    /// The largest view that anybody said to be in.
    view_seen: ViewNumber,
    /// When state was asked for, if no answer has come.
    state_asked: Option<Time>,
    /// What is known about the end of its recovery.
    recovery: Rejoining,
    /// What the host had applied when this life began: it is not delivered again.
    replayed: OpNumber,

    /// At the primary: the first entry of its view.
    start: OpNumber,
    /// The peers, in ascending order.
    progress: Vec<Progress>,
    heartbeat_deadline: Time,
    /// Before this time a quorum cannot have been silent for an election timeout.
    quorum_deadline: Time,
    /// Entries for peers, on their way from the host.
    catch_up: HostRead,
    reads: Rounds,
    lease: LeaseState,
    transfer: Option<Transfer>,
    /// The change of members that it was asked for.
    change: Option<Ticket>,
    /// The commit-number when it last asked all peers what they have.
    commit_asked: OpNumber,

    /// At a replica that was replaced: who still needs it.
    handover: Option<Handover>,
    /// The last epoch of which it told those who were replaced that it is normal in it.
    told_replaced: EpochNumber,

    /// Reads forwarded to the primary.
    forwarding: Forwarding,

    reported: Option<(Role, ViewNumber, Option<NodeId>)>,
    ignored: u64,
}

/// Whether a replica takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    /// Its acknowledgements and promises count.
    Replica,
    /// It receives the log only: it is no replica of the epoch, or does not know who is.
    Learner,
    /// It lost a part of its log: it promises nothing until it has everything back that it may
    /// have acknowledged. The paper's status *recovering*.
    Recovering,
    /// Its disk is damaged so that it may have forgotten a promise.
    Abstaining,
}

/// The paper's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    /// Its log is a beginning of its view's, and holds what the view started with.
    Normal,
    /// It has left the view before, or given up this one.
    ViewChange,
}

impl Process for Viewstamped {
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
        let mut replica = Viewstamped::recovered(config.common, from, &base, now, out);
        replica.members_changed = true;
        replica.settle(out);
        replica
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
        let timing = &self.config.timing;
        let part = if self.is_primary() {
            let disk = self.to_self.front().map(|(sent, _)| *sent + timing.election);
            let own = self.heartbeat_deadline.min(self.quorum_deadline);
            Some(disk.map_or(own, |disk| own.min(disk)))
        } else {
            self.may_campaign().then_some(self.wait_deadline)
        };
        [
            part,
            self.state_deadline(),
            self.transfer.as_ref().map(|transfer| transfer.deadline),
            self.forwarding.deadline(timing),
            self.redelivery.retry(),
            self.catch_up.retry(),
            self.handover.as_ref().map(|handover| handover.repeat),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.digest(now, digest);
    }
}

/// What may happen to a replica.
impl Viewstamped {
    fn is_primary(&self) -> bool {
        self.status == Status::Normal && self.epochs.current.primary(self.views.view) == Some(self.config.id)
    }

    fn on_message(&mut self, from: NodeId, message: Message, out: &mut Effects<Self>) {
        let to_itself = from == self.config.id;
        if to_itself {
            self.note_answer_to_self();
        }
        if !message.is_plausible() {
            self.ignored += 1;
            return;
        }
        if !to_itself && self.is_of_another_epoch(from, &message, out) {
            return;
        }
        if !to_itself && self.epochs.current.excludes(from) {
            self.ignored += 1;
            return;
        }
        if self.standing == Standing::Abstaining {
            return self.on_message_abstaining(from, &message);
        }
        match message {
            Message::PreViewChangeOk { view } => self.on_pre_view_change_ok(from, view, out),
            Message::DoViewChange(state) => self.on_do_view_change(from, state, out),
            Message::PrepareOk { view, op, .. } if to_itself => self.on_stored(view, op, out),
            _ if to_itself => self.ignored += 1,
            Message::PreViewChange { view } => self.on_pre_view_change(from, view, out),
            Message::NewerView { view } => self.on_newer_view(view, out),
            Message::StartViewChange { view, transfer } => {
                self.on_start_view_change(from, view, transfer, out);
            }
            Message::StartView(state) | Message::NewState(state) => self.on_new_state(from, state, out),
            Message::Prepare { view, commit, round, suffix } => {
                self.on_prepare(from, view, commit, round, suffix, true, out);
            }
            Message::PrepareOk { view, op, round } => self.on_prepare_ok(from, view, op, round, out),
            Message::Commit { view, op, op_view, commit, round, reply } => {
                let suffix = Suffix { after: op, after_view: op_view, entries: Vec::new() };
                self.on_prepare(from, view, commit, round, suffix, reply, out);
            }
            Message::GetState { view, op, op_view, round } => {
                self.on_get_state(from, view, (op, op_view), round, out);
            }
            Message::Checkpoint { view, op } => self.on_checkpoint(from, view, op, out),
            Message::TakeOver { view } => self.on_take_over(from, view, out),
            Message::ReadAt { batch } => self.on_read_at(from, batch, out),
            Message::ReadAtOk { batch, op } => self.on_read_at_ok(from, batch, op, out),
            Message::Recovery { nonce } => self.on_recovery(from, nonce, out),
            Message::RecoveryResponse { view, nonce, op } => {
                self.on_recovery_response(from, view, nonce, op);
            }
            Message::StartEpoch { .. } | Message::EpochStarted { .. } => self.ignored += 1,
        }
    }

    /// A damaged replica promises nothing; it only learns who leads, to direct its clients there.
    fn on_message_abstaining(&mut self, from: NodeId, message: &Message) {
        let view = match message {
            Message::Prepare { view, .. } | Message::Commit { view, .. } => *view,
            Message::StartView(state) => state.view,
            _ => return,
        };
        if view >= self.views.view && self.speaks_as_primary(from, view) {
            // Recorded nowhere: the record would claim that there is a sound log below it.
            self.views.view = view;
            self.views_recorded = self.views;
            self.leader = Some(from);
        }
    }

    fn on_request(&mut self, request: LogRequest, out: &mut Effects<Self>) {
        match request {
            LogRequest::Propose { ticket, commands } => self.on_propose(ticket, commands, out),
            LogRequest::Read { ticket } => self.on_read(ticket, out),
            LogRequest::Applied { index } => self.applied = self.applied.max(index.min(self.delivered)),
            LogRequest::Compact { point } => self.on_compact(&point),
            LogRequest::TransferLeadership { ticket, to } => self.on_transfer(ticket, to, out),
            LogRequest::ChangeMembership { ticket, change } => self.on_change(ticket, change, out),
        }
    }

    fn on_propose(&mut self, ticket: Ticket, commands: Vec<Bytes>, out: &mut Effects<Self>) {
        if self.standing == Standing::Abstaining || self.storage_full {
            return self.refuse(ticket, Refusal::Storage, out);
        }
        if !self.is_primary() {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if commands.is_empty() {
            self.ignored += 1;
            return;
        }
        if self.transfer.is_some() || self.ending().is_some() {
            // What it proposed now would only be at risk; and nothing follows the last of an epoch.
            return self.refuse(ticket, Refusal::Busy, out);
        }
        let cost: usize = commands.iter().map(|command| command.len() + ENTRY_BYTES).sum();
        let room = self.config.limits.uncommitted_bytes_max.saturating_sub(self.uncommitted_bytes);
        // A proposal that is larger than the limit goes alone, rather than never.
        if cost > room && self.uncommitted_bytes > 0 {
            return self.refuse(ticket, Refusal::Busy, out);
        }
        self.prepare(commands.into_iter().map(Payload::Command), out);
    }

    fn on_answer(&mut self, answer: LogAnswer<Record>, out: &mut Effects<Self>) {
        let (from, records) = match answer {
            LogAnswer::Entries { from, records } => (from, records),
            LogAnswer::Snapshot { point } => return self.on_snapshot(&point, out),
        };
        let entries = self.entries_of(from, records);
        let failed = HostRead::Failed { retry: self.now + self.config.timing.heartbeat };
        let mut expected = false;
        if self.redelivery.take(from) {
            expected = true;
            match entries.is_empty() {
                true => self.redelivery = failed,
                false => self.redeliver(from, &entries, out),
            }
        }
        if self.catch_up.take(from) {
            expected = true;
            match entries.is_empty() {
                true => self.catch_up = failed,
                false => self.send_from_host(from, &entries, out),
            }
        }
        if !expected {
            self.ignored += 1;
        }
    }

    fn on_storage_fault(&mut self, fault: StorageFault, out: &mut Effects<Self>) {
        self.storage_full = fault == StorageFault::Full;
        if self.storage_full {
            // A primary that cannot append makes way for one that can.
            self.campaign = Campaign::None;
            if self.is_primary() {
                self.give_up_view(out);
            }
        } else {
            self.restart_wait();
        }
    }

    fn on_timeout(&mut self, out: &mut Effects<Self>) {
        if self.is_primary() && self.is_disk_stalled() {
            self.give_up_view(out);
        }
        if self.is_primary() && self.now >= self.quorum_deadline {
            self.check_quorum(out);
        }
        if self.is_primary() && self.now >= self.heartbeat_deadline {
            self.send_commits(out);
        }
        if !self.is_primary() && self.may_campaign() && self.now >= self.wait_deadline {
            self.ask_for_view_change(out);
        }
        self.retry_state(out);
        self.check_transfer(out);
        self.retry_forwarded_reads(out);
        self.repeat_handover(out);
        self.redelivery.maybe_retry(self.now);
        self.catch_up.maybe_retry(self.now);
    }
}
