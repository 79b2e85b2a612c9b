//! A replica from what its disk held; and what it does if that is not all (section 4.3, and
//! protocol-aware recovery, FAST 2018).
//!
//! A damaged record is not one that never was: the replica may have acknowledged what it held, or
//! promised it.
//!
//! - Where the last that is known about views comes before the damage, a promise may be lost. The
//!   replica *abstains* from everything.
//! - Where it comes after all damage (hosts restate it at the head of each segment), only entries are
//!   lost. The replica is *recovering*: it drops its log, receives the log of its view as any backup
//!   does, and takes no part in view changes.
//!
//! It asks the primary of its view for the op-number, under a number that no earlier life has used,
//! and recovers when it is normal in that view and its log reaches so far. Let the view be v, which
//! is not below its own. What it acknowledged in views before v and was committed with its help is in
//! what v started with: whoever started it had a quorum's DoViewChanges, and this replica's was either
//! not among them or from before the damage. What it acknowledged in v itself the primary had before
//! it answered. So it has back everything that may rest on it, and may promise again. Until then its
//! acknowledgements are true of its disk, and count. The paper asks f + 1 replicas, because its
//! replicas forget their view-numbers; a replica that lost its own abstains here. If the view changes
//! meanwhile, the answer is void and the question is asked again.

use super::OpNumber;
use super::configuration::{Configuration, Epochs, point};
use super::lease::LeaseState;
use super::message::Message;
use super::record::{Entry, EpochNumber, Log, Record, ViewNumber, Views};
use super::view_change::Campaign;
use super::{Standing, Status, Viewstamped};
use crate::contract::{Effects, Recovery};
use crate::epoch_log::LogEntry;
use crate::host_read::HostRead;
use crate::log::{Index, LogBase, LogConfig, Payload};
use crate::reading::{Forwarding, Rounds};
use crate::rng::Rng;
use crate::types::{NodeId, Time};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

impl Viewstamped {
    pub(super) fn recovered(
        config: LogConfig,
        from: Recovery<'_, Record>,
        base: &LogBase,
        now: Time,
        out: &mut Effects<Viewstamped>,
    ) -> Viewstamped {
        config.timing.check();
        let mut replica = Viewstamped::blank(config, base, now);
        match from {
            Recovery::First => {}
            Recovery::Join => {
                replica.views.joined = true;
                replica.epochs = Epochs::of(base.snapshot.as_ref(), Configuration::unknown());
                replica.sync_progress();
            }
            Recovery::Resume { records } => replica.replay(base, &mut records.map(Some), out),
            Recovery::Damaged { records } => replica.replay(base, records, out),
        }
        replica.resume_at(base.applied);
        replica
    }

    fn blank(config: LogConfig, base: &LogBase, now: Time) -> Viewstamped {
        let epochs = Epochs::of(base.snapshot.as_ref(), Configuration::founding(&config.members));
        let (base_op, base_view) = point(base.snapshot.as_ref());
        let mut rng = Rng::new(config.seed);
        let forwarding = Forwarding::starting_at(rng.next());
        let recovery = Rejoining { nonce: rng.next(), ..Rejoining::default() };
        let mut replica = Viewstamped {
            progress: Vec::new(),
            epochs,
            members_changed: false,
            standing: Standing::Replica,
            rng,
            now,
            status: Status::ViewChange,
            views: Views::default(),
            views_recorded: Views::default(),
            log: Log::after(base_op, base_view),
            stored: base_op,
            to_self: VecDeque::new(),
            storage_full: false,
            commit: base_op,
            delivered: base_op,
            applied: base_op,
            uncommitted_bytes: 0,
            redelivery: HostRead::Idle,
            leader: None,
            leader_contact: None,
            silent_until: now,
            promised_until: now,
            wait: config.timing.election,
            wait_deadline: now,
            attempts: 0,
            campaign: Campaign::None,
            view_seen: ViewNumber(0),
            state_asked: None,
            recovery,
            replayed: Index::ZERO,
            start: Index::ZERO,
            heartbeat_deadline: now,
            quorum_deadline: now,
            catch_up: HostRead::Idle,
            reads: Rounds::default(),
            lease: LeaseState::default(),
            transfer: None,
            change: None,
            commit_asked: Index::ZERO,
            handover: None,
            told_replaced: EpochNumber::default(),
            forwarding,
            reported: None,
            ignored: 0,
            config,
        };
        replica.sync_progress();
        replica.draw_wait();
        replica
    }

    /// Takes in what the disk held, and decides what the replica may still promise.
    fn replay(
        &mut self,
        base: &LogBase,
        records: &mut dyn Iterator<Item = Option<Record>>,
        out: &mut Effects<Self>,
    ) {
        // It forgot when it last heard from the primary.
        self.silent_until = self.now + self.config.timing.election;
        let (base_op, base_view) = point(base.snapshot.as_ref());
        let held = Held::of(records, base_op, base_view, self.config.limits.tail_bytes_max);
        self.views = held.views;
        self.views_recorded = held.views;
        // A checkpoint may be of a later view than any that this replica was told of.
        self.views.view = self.views.view.max(base_view);
        if held.views.joined {
            self.epochs = Epochs::of(base.snapshot.as_ref(), Configuration::unknown());
        }
        let Views { view, last_normal, recovering, .. } = self.views;
        if !held.promises_known {
            self.standing = Standing::Abstaining;
            self.log = held.log;
        } else if !held.log_known {
            self.standing = Standing::Recovering;
            self.views.recovering = true;
            self.log = Log::after(base_op, base_view);
            out.record(Record::Restart { op: base_op, view: base_view });
        } else {
            for (op, entry) in &held.configurations {
                self.epochs.note(*op, entry);
            }
            // Every view begins with an entry, but for those at the end of an epoch: who was normal in
            // it has that.
            let ends = self.epochs.ending(held.log.last()).is_some();
            let sound = held.log.last_epoch() <= view
                && (recovering || last_normal < view || held.log.last_epoch() == view || ends);
            self.log = held.log;
            match (sound, recovering) {
                (false, _) => self.standing = Standing::Abstaining,
                (true, true) => self.standing = Standing::Recovering,
                (true, false) => {}
            }
        }
    }

    /// Starts where the host's state machine stands. What it applied was committed.
    fn resume_at(&mut self, applied: Index) {
        if applied > self.log.last() && self.standing == Standing::Replica {
            // It was durable here before it was delivered; so the log has lost it.
            self.standing = Standing::Abstaining;
        }
        self.replayed = applied;
        let applied = applied.clamp(self.log.base(), self.log.last());
        (self.delivered, self.applied) = (applied, applied);
        // What an epoch begins with is committed, also where the host has not applied it yet.
        self.commit =
            if self.views.begun <= self.log.last() { applied.max(self.views.begun) } else { applied };
        self.stored = self.log.last();
        self.uncommitted_bytes = self.log.range(self.commit.next(), self.log.last()).map(Entry::cost).sum();
        self.epochs.commit_to(self.commit);
        self.views.view = self.views.view.max(ViewNumber::of(self.epochs.current.epoch, 0));
        self.sync_progress();
        self.update_standing();
        self.begin_handover();
        let Views { view, last_normal, .. } = self.views;
        let was_primary = self.epochs.current.primary(view) == Some(self.config.id);
        let takes_part = self.standing == Standing::Replica && view > ViewNumber(0);
        // A backup goes on where it was: its log is a beginning of its view's. A primary may have
        // sent Prepares early and forgotten them: it must leave its view.
        if takes_part && last_normal == view && !was_primary {
            self.status = Status::Normal;
        }
        self.draw_wait();
        self.restart_wait();
    }
}

/// What a disk held.
struct Held {
    views: Views,
    log: Log,
    /// Whether what it says of views is the last that was written.
    promises_known: bool,
    /// Whether what it says of the log is all that was written.
    log_known: bool,
    /// The entries of its log that speak of the members, and where they stand.
    configurations: Vec<(OpNumber, Entry)>,
}

impl Held {
    /// Reads the records, `None` for what is lost, keeping only the end of the log in memory. A
    /// record that does not follow on what is before it shows that one is missing, too.
    fn of(
        records: &mut dyn Iterator<Item = Option<Record>>,
        base_op: OpNumber,
        base_view: ViewNumber,
        tail_bytes_max: usize,
    ) -> Held {
        let log = Log::after(base_op, base_view);
        let mut held = Held {
            views: Views::default(),
            log,
            promises_known: true,
            log_known: true,
            configurations: Vec::new(),
        };
        let mut begun = false;
        for record in records {
            match record {
                None => (held.promises_known, held.log_known) = (false, false),
                Some(Record::Views(views)) => (held.views, held.promises_known) = (views, true),
                Some(Record::Restart { op, view }) => {
                    (held.log, held.log_known, begun) = (Log::after(op, view), true, true);
                    held.configurations.clear();
                }
                Some(Record::Entries { .. }) if !held.log_known => {}
                Some(Record::Entries { first, after_view, entries }) => {
                    let follows = begun && held.log.epoch_at(first.previous()) == Some(after_view);
                    // What does not may follow on a checkpoint, at which the log was cut off or by
                    // which it was replaced.
                    if !follows && first <= base_op.next() {
                        held.log = Log::after(first.previous(), after_view);
                        held.configurations.clear();
                    } else if !follows {
                        (held.promises_known, held.log_known) = (false, false);
                        continue;
                    } else if first <= held.log.last() {
                        held.log.truncate(first);
                        held.configurations.retain(|(op, _)| *op < first);
                    }
                    begun = true;
                    held.append(entries, tail_bytes_max);
                }
            }
        }
        if held.log.epoch_at(base_op) == Some(base_view) {
            held.log.compact(base_op, base_view);
        } else {
            // The checkpoint has replaced a log that differed or was shorter.
            held.log = Log::after(base_op, base_view);
            held.configurations.clear();
        }
        held.configurations.retain(|(op, _)| *op > base_op);
        held
    }

    fn append(&mut self, entries: Vec<Entry>, tail_bytes_max: usize) {
        for entry in entries {
            if entry.view < self.log.last_epoch() {
                (self.promises_known, self.log_known) = (false, false);
                return;
            }
            if let Payload::Membership(_) = entry.payload {
                self.configurations.push((self.log.last().next(), entry.clone()));
            }
            self.log.push(entry);
        }
        while self.log.bytes() > tail_bytes_max {
            self.log.evict_first();
        }
    }
}

/// What a recovering replica knows about the end of its recovery.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejoining {
    /// This life's number for its question.
    nonce: u64,
    pub(super) asked: Option<Time>,
    /// The view whose primary answered, and where its log ended.
    pub(super) target: Option<(ViewNumber, OpNumber)>,
}

/// Recovering.
impl Viewstamped {
    /// The primary of its view speaks: where does its log end?
    pub(super) fn maybe_ask_for_the_end(&mut self, primary: NodeId, out: &mut Effects<Self>) {
        let recently =
            self.recovery.asked.is_some_and(|asked| self.now < asked + self.config.timing.heartbeat);
        let known = self.recovery.target.is_some_and(|(view, _)| view == self.views.view);
        if self.standing == Standing::Recovering && !known && !recently {
            self.recovery.asked = Some(self.now);
            // Early: the question promises nothing.
            out.send_early(primary, Message::Recovery { nonce: self.recovery.nonce });
        }
    }

    pub(super) fn on_recovery(&mut self, from: NodeId, nonce: u64, out: &mut Effects<Self>) {
        if let (true, Some(i)) = (self.is_primary(), self.peer(from)) {
            // What it acknowledged in an earlier life it may have lost.
            self.progress[i].matched = Index::ZERO;
            let (view, op) = (self.views.view, self.log.last());
            // Early: if the primary forgets some of it in a crash, it asked for too much.
            out.send_early(from, Message::RecoveryResponse { view, nonce, op });
        }
    }

    pub(super) fn on_recovery_response(&mut self, from: NodeId, view: ViewNumber, nonce: u64, op: OpNumber) {
        let expected = self.standing == Standing::Recovering
            && nonce == self.recovery.nonce
            && self.leader == Some(from);
        if !expected {
            self.ignored += 1;
        } else if view == self.views.view {
            self.recovery.target = Some((view, op));
        }
    }

    /// It is normal in its view again and has what the primary had when it answered.
    pub(super) fn maybe_recovered(&mut self) {
        let complete = |(view, op)| view == self.views.view && op <= self.log.last();
        if self.standing == Standing::Recovering
            && self.status == Status::Normal
            && self.recovery.target.is_some_and(complete)
        {
            self.standing = Standing::Replica;
            // The host's state holds nothing that is not committed, and this log now holds all that is.
            self.commit_to(self.replayed.min(self.log.last()).max(self.commit));
            // Recorded after the entries.
            self.views.recovering = false;
        }
    }
}
