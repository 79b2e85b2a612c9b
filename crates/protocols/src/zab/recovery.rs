//! A member from what its disk held.

use super::discovery::are_readable;
use super::history::History;
use super::learner::Learner;
use super::record::{Entry, Epochs, Record, Zxid};
use super::{Part, Zab};
use crate::contract::Effects;
use crate::host_read::HostRead;
use crate::log::{Epoch, Index, LogBase, LogConfig};
use crate::membership::{Configuration, Membership};
use crate::reading::{Forwarding, Rounds};
use crate::rng::Rng;
use crate::types::Time;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

impl Zab {
    pub(super) fn blank(config: LogConfig, base: &LogBase, now: Time) -> Zab {
        let point = base.snapshot.as_ref();
        let base = point.map_or(Zxid::ZERO, |point| Zxid { epoch: point.epoch, counter: point.index });
        let membership = match point {
            Some(point) => Membership::of(point, &config.members),
            None => Membership::after(Index::ZERO, Configuration::founding(&config.members)),
        };
        let peers = membership.everybody().into_iter().filter(|id| *id != config.id);
        let mut zab = Zab {
            learners: peers.map(Learner::new).collect(),
            membership,
            members_changed: false,
            abstaining: false,
            rng: Rng::new(config.seed),
            now,
            epochs: Epochs::default(),
            epochs_recorded: Epochs::default(),
            history: History::after(base),
            stored: base.counter,
            cuts: 0,
            to_self: VecDeque::new(),
            storage_full: false,
            commit: base.counter,
            delivered: base.counter,
            applied: base.counter,
            uncommitted_bytes: 0,
            redelivery: HostRead::Idle,
            catch_up: HostRead::Idle,
            part: Part::Looking,
            leader: None,
            wait: Duration::ZERO,
            patience: now,
            repeat: now,
            round: 0,
            vote: None,
            votes: Vec::new(),
            heard: Vec::new(),
            hopeful: true,
            agreed: false,
            fetch_asked: None,
            epoch: None,
            accepted_seen: Epoch(0),
            promised: false,
            fetching: None,
            adopted: Epoch(0),
            start: Index::ZERO,
            quorum_deadline: now,
            catch_up_wanted: false,
            commit_pinged: Index::ZERO,
            change: None,
            transfer: None,
            reads: Rounds::default(),
            forwarding: Forwarding::default(),
            reported: None,
            ignored: 0,
            config,
        };
        zab.forwarding = Forwarding::starting_at(zab.rng.next());
        zab.draw_wait();
        zab
    }

    /// Takes in what the disk held, keeping only the end of the history in memory. Returns whether
    /// it can be what a member of this version has written: a record missing in the middle shows.
    pub(super) fn replay(
        &mut self,
        records: &mut dyn Iterator<Item = Record>,
        out: &mut Effects<Self>,
    ) -> bool {
        let base = self.history.base();
        // Whether what was read so far contradicts the snapshot: then a snapshot had replaced it.
        let mut replaced = false;
        for record in records {
            match record {
                Record::Epochs(epochs) => self.epochs = epochs,
                Record::Truncated { after } => {
                    replaced = false;
                    if after < self.history.last() {
                        self.history.truncate(after.max(base.counter).next());
                        self.membership.truncate(after.max(base.counter).next());
                    }
                }
                Record::Entries { first, entries } => {
                    let at_base = base.counter.0.checked_sub(first.0).and_then(|i| entries.get(i as usize));
                    if let Some(entry) = at_base {
                        replaced = entry.epoch != base.epoch;
                    }
                    let gap = first > self.history.last().next();
                    if gap && !replaced {
                        return false;
                    }
                    // What a snapshot covers is not taken again; what came after it goes all the same.
                    let covered = base.counter.next().0.saturating_sub(first.0) as usize;
                    let first = first.max(base.counter.next());
                    if first <= self.history.last() {
                        self.history.truncate(first);
                        self.membership.truncate(first);
                    }
                    // The record that would show the contradiction may have been dropped.
                    let next = entries.get(covered);
                    replaced |= self.history.last() == base.counter
                        && next.is_some_and(|entry| entry.epoch < base.epoch);
                    if replaced {
                        continue;
                    }
                    for entry in entries.into_iter().skip(covered) {
                        if entry.epoch < self.history.last_epoch() || !are_readable([&entry]) {
                            return false;
                        }
                        self.history.push(entry.clone());
                        self.note_membership(&entry, self.history.last());
                    }
                    while self.history.bytes() > self.config.limits.tail_bytes_max {
                        self.history.evict_first();
                    }
                }
            }
        }
        self.epochs_recorded = self.epochs;
        if replaced {
            out.record(Record::Truncated { after: self.history.last() });
        }
        self.raise_epochs(base);
        // A history that is newer than every promise lost a record.
        self.epochs.accepted >= self.epochs.current.max(self.history.last_epoch())
    }

    /// Starts where the host's state machine stands. What it applied was committed.
    pub(super) fn resume_at(&mut self, applied: Index) {
        if applied > self.history.last() {
            // It was durable here before it was delivered; so the disk has lost it.
            self.abstaining = true;
        }
        let applied = applied.clamp(self.history.base().counter, self.history.last());
        (self.commit, self.delivered, self.applied) = (applied, applied, applied);
        self.membership.commit_to(applied);
        self.stored = self.history.last();
        self.uncommitted_bytes =
            self.history.range(applied.next(), self.history.last()).map(Entry::cost).sum();
    }
}
