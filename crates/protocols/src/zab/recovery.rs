//! A member from what its disk held.

use super::discovery::are_readable;
use super::history::History;
use super::learner::Learner;
use super::record::{Entry, Epochs, Record, Zxid};
use super::repair::Repair;
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
        let membership = first_membership(base, &config);
        let point = base.snapshot.as_ref();
        let base = point.map_or(Zxid::ZERO, |point| Zxid { epoch: point.epoch, counter: point.index });
        let peers = membership.everybody().into_iter().filter(|id| *id != config.id);
        let mut zab = Zab {
            learners: peers.map(Learner::new).collect(),
            membership,
            members_changed: false,
            rng: Rng::new(config.seed),
            now,
            epochs: Epochs::default(),
            epochs_recorded: Epochs::default(),
            history: History::after(base),
            repair: Repair::default(),
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

    /// Takes in what the disk held, `None` for what is lost, keeping only the end of the history in memory,
    /// and decides what the member may still promise. `damaged`: the host knows that records are lost.
    pub(super) fn replay(
        &mut self,
        from: &LogBase,
        damaged: bool,
        records: &mut dyn Iterator<Item = Option<Record>>,
        out: &mut Effects<Self>,
    ) {
        let base = self.history.base();
        // Whether what was read so far contradicts the snapshot: then a snapshot had replaced it.
        let mut replaced = false;
        let (mut promises_known, mut history_known) = (true, true);
        for record in records {
            // What begins at the base or before it makes whatever was lost before of no account.
            let begins = match &record {
                Some(Record::Truncated { after }) => *after <= base.counter,
                Some(Record::Entries { first, .. }) => *first <= base.counter.next(),
                Some(Record::Epochs(_)) | None => false,
            };
            if begins && !history_known {
                self.begin_history(from);
                (history_known, replaced) = (true, false);
            }
            match record {
                None => (promises_known, history_known) = (false, false),
                Some(Record::Epochs(epochs)) => {
                    self.epochs = epochs;
                    promises_known = !epochs.uncertain;
                }
                Some(_) if !history_known => {}
                Some(Record::Truncated { after }) => {
                    replaced = false;
                    self.cut_replayed(after.max(base.counter).next());
                }
                Some(Record::Entries { first, entries }) => {
                    match self.take_entries(first, entries, &mut replaced) {
                        Taken::Follows => {}
                        Taken::LeavesGap => history_known = false,
                        Taken::Unreadable => (promises_known, history_known) = (false, false),
                    }
                }
            }
        }
        self.epochs_recorded = self.epochs;
        self.raise_epochs(base);
        // A history that is newer than every promise lost a record.
        promises_known &= self.epochs.accepted >= self.epochs.current.max(self.history.last_epoch());
        // What was applied was durable here before; so the disk has lost it.
        history_known &= self.epochs.repairing || from.applied <= self.history.last();
        if !promises_known || !history_known && !damaged {
            // If the host says that everything is there, and it is not, nothing can be relied on.
            self.epochs.uncertain = true;
        } else if !history_known {
            self.begin_history(from);
            self.epochs.repairing = true;
            // What earlier records hold is not to be taken for this history again.
            out.record(Record::Truncated { after: base.counter });
        } else if replaced {
            out.record(Record::Truncated { after: self.history.last() });
        }
    }

    /// An empty history after what the host's state covers.
    fn begin_history(&mut self, from: &LogBase) {
        self.history = History::after(self.history.base());
        self.membership = first_membership(from, &self.config);
    }

    fn cut_replayed(&mut self, first: Index) {
        if first <= self.history.last() {
            self.history.truncate(first);
            self.membership.truncate(first);
        }
    }

    fn take_entries(&mut self, first: Index, entries: Vec<Entry>, replaced: &mut bool) -> Taken {
        let base = self.history.base();
        let at_base = base.counter.0.checked_sub(first.0).and_then(|i| entries.get(i as usize));
        if let Some(entry) = at_base {
            *replaced = entry.epoch != base.epoch;
        }
        if first > self.history.last().next() && !*replaced {
            return Taken::LeavesGap;
        }
        // What a snapshot covers is not taken again; what came after it goes all the same.
        let covered = base.counter.next().0.saturating_sub(first.0) as usize;
        self.cut_replayed(first.max(base.counter.next()));
        // The record that would show the contradiction may have been dropped.
        let next = entries.get(covered);
        *replaced |=
            self.history.last() == base.counter && next.is_some_and(|entry| entry.epoch < base.epoch);
        if *replaced {
            return Taken::Follows;
        }
        for entry in entries.into_iter().skip(covered) {
            if entry.epoch < self.history.last_epoch() || !are_readable([&entry]) {
                return Taken::Unreadable;
            }
            self.history.push(entry.clone());
            self.note_membership(&entry, self.history.last());
        }
        while self.history.bytes() > self.config.limits.tail_bytes_max {
            self.history.evict_first();
        }
        Taken::Follows
    }

    /// Starts where the host's state machine stands. What it applied was committed.
    pub(super) fn resume_at(&mut self, applied: Index) {
        let (base, last) = (self.history.base().counter, self.history.last());
        self.commit = applied.clamp(base, last);
        // A history under repair is behind the state.
        let done = if self.epochs.repairing { applied.max(base) } else { self.commit };
        (self.delivered, self.applied) = (done, done);
        self.membership.commit_to(self.commit);
        self.stored = last;
        self.uncommitted_bytes = self.history.range(self.commit.next(), last).map(Entry::cost).sum();
    }
}

/// What a record of entries is to the history before it.
enum Taken {
    Follows,
    /// A record in the middle is missing.
    LeavesGap,
    /// No member of this version has written it.
    Unreadable,
}

fn first_membership(base: &LogBase, config: &LogConfig) -> Membership {
    match &base.snapshot {
        Some(point) => Membership::of(point, &config.members),
        None => Membership::after(Index::ZERO, Configuration::founding(&config.members)),
    }
}
