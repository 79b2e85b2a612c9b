//! The member and its host: the disk, the state machine, snapshots, and entries read back.

use super::message::Message;
use super::record::{Entry, Record, Zxid};
use super::{Part, Zab};
use crate::contract::Effects;
use crate::host_read::HostRead;
use crate::log::{CommittedEntry, Index, LogAnswer, LogAsk, LogEvent, Refusal, SnapshotPoint, Ticket};
use crate::membership::Membership;
use alloc::vec::Vec;

/// What every step ends with.
impl Zab {
    /// Hands over what has become committed, frees what is no longer needed, and records and
    /// reports what has changed.
    pub(super) fn settle(&mut self, out: &mut Effects<Self>) {
        self.maybe_end_repair(out);
        self.deliver(out);
        self.evict();
        if self.members_changed {
            self.sync_learners(out);
        }
        self.maybe_end_transfer(out);
        if matches!(self.part, Part::Leading(_)) && self.catch_up_wanted {
            self.ask_for_catch_up(out);
        }
        if self.epochs != self.epochs_recorded {
            // In the same step as what rests on it, so durable with that; and after the entries
            // of the step, so that not even a torn write shows a currentEpoch without its history.
            out.record(Record::Epochs(self.epochs));
            self.epochs_recorded = self.epochs;
        }
        let role = (self.role(), self.epochs.current, self.leader_known());
        if self.reported != Some(role) {
            self.reported = Some(role);
            let (role, epoch, leader) = role;
            // Early: it tells what this life knows and promises nothing. That a leader's epoch is
            // its own is on a quorum's disks.
            out.event_early(LogEvent::Role { role, epoch, leader });
        }
        assert!(
            (self.delivered <= self.commit || self.epochs.repairing) && self.stored <= self.history.last(),
            "the history's marks are in order"
        );
    }

    /// Delivers committed entries which are on this member's disk.
    fn deliver(&mut self, out: &mut Effects<Self>) {
        let ready = self.commit.min(self.stored);
        if self.delivered >= ready || self.epochs.uncertain {
            return;
        }
        let from = self.delivered.next();
        let first_in_memory = self.history.first_in_memory();
        if from < first_in_memory {
            // After a restart: these are on disk only.
            let to = ready.min(first_in_memory.previous());
            let bytes_max = self.config.limits.message_bytes_max;
            if self.redelivery.begin(from) {
                out.ask(LogAsk::Entries { from, to, bytes_max });
            }
            return;
        }
        let log = self.history.range(from, ready);
        let entries = (from.0..).map(Index).zip(log).map(|(index, entry)| committed(index, entry)).collect();
        self.delivered = ready;
        // Early: it names only entries that a quorum's disks and this one hold.
        out.event_early(LogEvent::Committed { entries });
    }

    /// Delivers entries that the host has read back.
    fn redeliver(&mut self, from: Index, entries: &[Entry], out: &mut Effects<Self>) {
        let ready = self.commit.min(self.stored);
        if from != self.delivered.next() {
            return;
        }
        let positions = (from.0..=ready.0).map(Index).zip(entries);
        let entries: Vec<_> = positions.map(|(index, entry)| committed(index, entry)).collect();
        let Some(last) = entries.last() else { return };
        self.delivered = last.index;
        // Early: it names only entries that a quorum's disks and this one hold.
        out.event_early(LogEvent::Committed { entries });
    }

    /// Forgets entries that neither the host nor an uncommitted end needs in memory.
    fn evict(&mut self) {
        let free = self.applied.min(self.delivered);
        while self.history.bytes() - self.uncommitted_bytes > self.config.limits.tail_bytes_max
            && self.history.first_in_memory() <= free
        {
            self.history.evict_first();
        }
    }
}

/// The history and the disk.
impl Zab {
    /// Raises the commit index.
    pub(super) fn commit_to(&mut self, index: Index) {
        assert!(
            index > self.commit && index <= self.history.last(),
            "a commit index rises within the history"
        );
        let committed: usize = self.history.range(self.commit.next(), index).map(Entry::cost).sum();
        self.uncommitted_bytes -= committed;
        self.commit = index;
        self.members_changed |= self.membership.commit_to(index);
    }

    /// Appends at the end of the history, in memory and to the disk, and arranges to learn when
    /// the disk has it.
    pub(super) fn append(&mut self, entries: Vec<Entry>, out: &mut Effects<Self>) {
        let first = self.history.last().next();
        for entry in &entries {
            self.uncommitted_bytes += entry.cost();
            self.history.push(entry.clone());
            self.note_membership(entry, self.history.last());
        }
        out.record(Record::Entries { first, entries });
        self.send_to_self(Message::Stored { cuts: self.cuts, index: self.history.last() }, out);
    }

    /// Removes `from` and what follows, none of which is committed.
    pub(super) fn cut(&mut self, from: Index) {
        assert!(from > self.commit, "what is committed stays");
        self.uncommitted_bytes -= self.history.truncate(from);
        self.stored = self.stored.min(from.previous());
        self.cuts += 1;
        self.members_changed |= self.membership.truncate(from);
    }

    /// Everything appended up to `index` is on this member's disk, unless it was cut since: then
    /// the next entry stored will tell.
    pub(super) fn on_stored(&mut self, cuts: u64, index: Index, out: &mut Effects<Self>) {
        if cuts != self.cuts || index <= self.stored || index > self.history.last() {
            return;
        }
        self.stored = index;
        if let Part::Leading(super::Phase::Synchronization | super::Phase::Broadcast) = self.part {
            self.maybe_commit(out);
        }
    }

    pub(super) fn send_to_self(&mut self, message: Message, out: &mut Effects<Self>) {
        match self.to_self.back_mut() {
            Some((sent, count)) if *sent == self.now => *count += 1,
            _ => self.to_self.push_back((self.now, 1)),
        }
        out.send(self.config.id, message);
    }

    pub(super) fn note_answer_to_self(&mut self) {
        if let Some((_, count)) = self.to_self.front_mut() {
            *count -= 1;
            if *count == 0 {
                self.to_self.pop_front();
            }
        }
    }

    /// Whether a message to itself has been waiting for the disk for an election timeout.
    pub(super) fn is_disk_stalled(&self) -> bool {
        self.to_self.front().is_some_and(|(sent, _)| self.now >= *sent + self.config.timing.election)
    }

    pub(super) fn refuse(&self, ticket: Ticket, why: Refusal, out: &mut Effects<Self>) {
        // Early: what is refused has left no record, so a crash cannot make it untrue.
        out.event_early(LogEvent::Refused { ticket, why });
    }
}

/// Snapshots and entries read back.
impl Zab {
    /// The host's state covers the log up to `point`: what is before it is never sent again.
    pub(super) fn on_compact(&mut self, point: &SnapshotPoint, out: &mut Effects<Self>) {
        let base = Zxid { epoch: point.epoch, counter: point.index };
        if base.counter <= self.history.base().counter {
            return;
        }
        if self.delivered > self.history.last() {
            // The history is being repaired, and the host's state is ahead of it.
            return self.on_snapshot(point, out);
        }
        if base.counter > self.delivered.min(self.stored) || !self.history.holds(base) {
            self.ignored += 1;
            return;
        }
        self.history.compact(base);
        // Whoever waited for what is gone gets the state.
        self.replicate_all(out);
    }

    /// A snapshot from a peer has replaced the host's state. It covers committed entries only, so
    /// it holds whatever leader this member follows meanwhile.
    fn on_snapshot(&mut self, point: &SnapshotPoint, out: &mut Effects<Self>) {
        let base = Zxid { epoch: point.epoch, counter: point.index };
        let news = base.counter > self.history.base().counter && base.counter >= self.delivered;
        if !news || self.epochs.uncertain {
            self.ignored += 1;
            return;
        }
        if self.history.holds(base) {
            if base.counter > self.commit {
                self.commit_to(base.counter);
            }
            self.history.compact(base);
            self.members_changed |= self.membership.commit_to(base.counter);
        } else {
            // What it had is older, or contradicts what is committed.
            self.history = super::History::after(base);
            self.uncommitted_bytes = 0;
            self.cuts += 1;
            self.commit = base.counter;
            self.stored = base.counter;
            self.membership = Membership::of(point, &self.config.members);
            self.members_changed = true;
            out.record(Record::Truncated { after: base.counter });
            self.agreed = false;
        }
        self.stored = self.stored.max(base.counter);
        self.commit = self.commit.max(base.counter);
        self.delivered = base.counter;
        self.applied = base.counter;
        self.raise_epochs(base);
        self.complain_to_leader(out);
        self.resume_fetch(out);
    }

    /// A snapshot that ends within an epoch covers its NEWLEADER too.
    pub(super) fn raise_epochs(&mut self, base: Zxid) {
        self.epochs.current = self.epochs.current.max(base.epoch);
        if self.epochs.accepted < base.epoch {
            self.epochs.accepted = base.epoch;
            self.epochs.accepted_from = None;
        }
    }

    pub(super) fn on_answer(&mut self, answer: LogAnswer<Record>, out: &mut Effects<Self>) {
        let (from, records) = match answer {
            LogAnswer::Snapshot { point } => return self.on_snapshot(&point, out),
            LogAnswer::Entries { from, records } => (from, records),
        };
        let entries = self.entries_of(from, records);
        let retry = HostRead::Failed { retry: self.now + self.config.timing.heartbeat };
        let mut expected = false;
        if self.redelivery.take(from) {
            expected = true;
            match entries.is_empty() {
                true => self.redelivery = retry,
                false => self.redeliver(from, &entries, out),
            }
        }
        if self.catch_up.take(from) {
            expected = true;
            match (entries.is_empty(), self.part) {
                (true, _) => self.catch_up = retry,
                (false, Part::Leading(_)) => self.send_from_host(from, &entries, out),
                (false, _) => self.answer_fetch(from, &entries, out),
            }
        }
        if !expected {
            self.ignored += 1;
        }
    }

    /// The entries at `from` and after it which an answer holds, as far as they are this
    /// history's: a record may begin earlier, and parts of it may have been replaced by later ones.
    fn entries_of(&self, from: Index, records: Vec<Record>) -> Vec<Entry> {
        let mut next = from;
        let mut found = Vec::new();
        for record in records {
            let Record::Entries { first, entries } = record else { continue };
            for (index, entry) in (first.0..).map(Index).zip(entries) {
                if index == next && self.history.epoch_at(index) == Some(entry.epoch) {
                    found.push(entry);
                    next = next.next();
                }
            }
        }
        found
    }
}

fn committed(index: Index, entry: &Entry) -> CommittedEntry {
    CommittedEntry { index, epoch: entry.epoch, payload: entry.payload.clone() }
}
