//! A replica from what its disk held.

use super::configuration::Configuration;
use super::log::Log;
use super::progress::{HostRead, Progress};
use super::read::{Forwarding, Reads};
use super::record::{Entry, Record, ViewNumber, Views};
use super::view_change::Campaign;
use super::{Standing, Status, Viewstamped};
use crate::contract::Recovery;
use crate::log::{Index, LogBase, LogConfig};
use crate::rng::Rng;
use crate::types::Time;
use alloc::collections::VecDeque;

impl Viewstamped {
    pub(super) fn recovered(
        config: LogConfig,
        from: Recovery<'_, Record>,
        base: &LogBase,
        now: Time,
    ) -> Viewstamped {
        assert!(!config.timing.heartbeat.is_zero(), "the heartbeat must be above zero");
        assert!(
            config.timing.election > config.timing.heartbeat,
            "the election timeout must be above the heartbeat"
        );
        let mut replica = Viewstamped::blank(config, base, now);
        match from {
            Recovery::First => {}
            Recovery::Join => replica.standing = Standing::Learner,
            Recovery::Resume { records } => {
                let sound = replica.replay(base, records);
                // It forgot when it last heard from the primary.
                replica.silent_until = now + replica.config.timing.election;
                if !sound {
                    replica.standing = Standing::Abstaining;
                }
            }
            Recovery::Damaged { records } => {
                replica.replay(base, &mut records.map_while(|record| record));
                replica.standing = Standing::Abstaining;
            }
        }
        replica.resume_at(base.applied);
        replica
    }

    fn blank(config: LogConfig, base: &LogBase, now: Time) -> Viewstamped {
        let configuration = Configuration::founding(&config.members);
        let standing = if configuration.contains(config.id) { Standing::Replica } else { Standing::Learner };
        let (base_op, base_view) = point(base);
        let peers = configuration.replicas().iter().filter(|id| **id != config.id);
        let mut rng = Rng::new(config.seed);
        let forwarding = Forwarding::starting_at(rng.next());
        let mut replica = Viewstamped {
            progress: peers.map(|id| Progress::new(*id)).collect(),
            configuration,
            standing,
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
            wait: config.timing.election,
            wait_deadline: now,
            attempts: 0,
            campaign: Campaign::None,
            view_seen: ViewNumber(0),
            state_asked: None,
            start: Index::ZERO,
            heartbeat_deadline: now,
            quorum_deadline: now,
            catch_up: HostRead::Idle,
            reads: Reads::default(),
            transfer: None,
            forwarding,
            reported: None,
            ignored: 0,
            config,
        };
        replica.draw_wait();
        replica
    }

    /// Takes in what the disk held, keeping only the end of the log in memory. Returns whether it
    /// can be what a replica of this version has written: a record missing in the middle shows.
    fn replay(&mut self, base: &LogBase, records: &mut dyn Iterator<Item = Record>) -> bool {
        let (base_op, base_view) = point(base);
        let mut log = Log::after(base_op, base_view);
        let mut begun = false;
        for record in records {
            let (first, after_view, entries) = match record {
                Record::Views(views) => {
                    self.views = views;
                    continue;
                }
                Record::Entries { first, after_view, entries } => (first, after_view, entries),
            };
            let follows = begun && log.view_at(first.previous()) == Some(after_view);
            if !follows {
                // What follows on a checkpoint that the log was cut off at or replaced by.
                if first > base_op.next() {
                    return false;
                }
                log = Log::after(first.previous(), after_view);
                begun = true;
            } else if first <= log.last() {
                log.truncate(first);
            }
            for entry in entries {
                if entry.view < log.last_view() {
                    return false;
                }
                log.push(entry);
            }
            while log.bytes() > self.config.limits.tail_bytes_max {
                log.evict_first();
            }
        }
        self.views_recorded = self.views;
        if log.view_at(base_op) == Some(base_view) {
            log.compact(base_op);
            self.log = log;
        } // Else the checkpoint has replaced a log that differed or was shorter.

        // A checkpoint may be of a later view than any that this replica was told of.
        self.views.view = self.views.view.max(base_view);
        // A log that is newer than the view lost a record; so did one that is older than the view
        // in which it is normal, because every view begins with an entry.
        let Views { view, last_normal } = self.views;
        self.log.last_view() <= view && (last_normal < view || self.log.last_view() == view)
    }

    /// Starts where the host's state machine stands. What it applied was committed.
    fn resume_at(&mut self, applied: Index) {
        if applied > self.log.last() {
            // It was durable here before it was delivered; so the log has lost it.
            self.standing = Standing::Abstaining;
        }
        let applied = applied.clamp(self.log.base(), self.log.last());
        (self.commit, self.delivered, self.applied) = (applied, applied, applied);
        self.stored = self.log.last();
        self.uncommitted_bytes = self.log.range(applied.next(), self.log.last()).map(Entry::cost).sum();
        let Views { view, last_normal } = self.views;
        let was_primary = self.configuration.primary(view) == Some(self.config.id);
        // A backup goes on where it was: its log is a beginning of its view's. A primary may have
        // sent Prepares early and forgotten them: it must leave its view.
        let takes_part = self.standing != Standing::Abstaining && view > ViewNumber(0);
        if takes_part && last_normal == view && !was_primary {
            self.status = Status::Normal;
        }
        self.draw_wait();
        self.restart_wait();
    }
}

/// Where the log begins.
fn point(base: &LogBase) -> (Index, ViewNumber) {
    base.snapshot
        .as_ref()
        .map_or((Index::ZERO, ViewNumber(0)), |point| (point.index, ViewNumber(point.epoch.0)))
}
