//! What every step ends with, and what all parts share: delivery, the log's growth, and messages to
//! oneself.

use super::message::Message;
use super::record::{Entry, Record, ViewNumber};
use super::{OpNumber, Standing, Status, Viewstamped};
use crate::contract::Effects;
use crate::epoch_log::LogEntry;
use crate::log::{CommittedEntry, Index, LogAsk, LogEvent, Refusal, Ticket};
use alloc::vec::Vec;

impl Viewstamped {
    /// Hands over what has become committed, frees what is no longer needed, and records and
    /// reports what has changed.
    pub(super) fn settle(&mut self, out: &mut Effects<Self>) {
        self.maybe_begin_epoch(out);
        self.maybe_recovered();
        self.update_standing();
        self.maybe_finish_change(out);
        self.maybe_promote(out);
        self.tell_replaced(out);
        self.deliver(out);
        self.evict();
        self.ask_for_catch_up(out);
        if self.views != self.views_recorded {
            // In the same step as the entries below it and the messages that rest on it.
            out.record(Record::Views(self.views));
            self.views_recorded = self.views;
        }
        let role = (self.role(), self.views.view, self.leader);
        if self.reported != Some(role) {
            self.reported = Some(role);
            let (role, view, leader) = role;
            // Early: it tells what this life knows and promises nothing. That a primary's view was
            // started rests on DoViewChanges which were all durable.
            out.event_early(LogEvent::Role { role, epoch: view.epoch(), leader });
        }
        assert!(
            self.delivered <= self.commit && self.stored <= self.log.last(),
            "the log's marks are in order"
        );
        assert!(
            self.views.last_normal <= self.views.view
                && (self.status == Status::ViewChange || self.views.last_normal == self.views.view),
            "who is normal in a view has recorded it"
        );
    }

    /// Delivers committed entries which are on this replica's disk.
    fn deliver(&mut self, out: &mut Effects<Self>) {
        let ready = self.commit.min(self.stored);
        if self.delivered >= ready || self.standing == Standing::Abstaining {
            return;
        }
        let from = self.delivered.next();
        let first_in_memory = self.log.first_in_memory();
        if from < first_in_memory {
            // After a restart: these are on disk only.
            let to = ready.min(first_in_memory.previous());
            let bytes_max = self.config.limits.message_bytes_max;
            if self.redelivery.begin(from) {
                out.ask(LogAsk::Entries { from, to, bytes_max });
            }
            return;
        }
        let log = self.log.range(from, ready);
        let entries = (from.0..).map(Index).zip(log).map(|(index, entry)| committed(index, entry)).collect();
        self.hand_over(entries, out);
    }

    fn hand_over(&mut self, mut entries: Vec<CommittedEntry>, out: &mut Effects<Self>) {
        let Some(last) = entries.last() else { return };
        self.delivered = last.index;
        entries.retain(|entry| entry.index > self.replayed);
        if !entries.is_empty() {
            // Early: it names only entries that a quorum's disks and this one hold.
            out.event_early(LogEvent::Committed { entries });
        }
    }

    /// Delivers entries that the host has read back.
    pub(super) fn redeliver(&mut self, from: OpNumber, entries: &[Entry], out: &mut Effects<Self>) {
        let ready = self.commit.min(self.stored);
        if from != self.delivered.next() {
            return;
        }
        let entries: Vec<_> = (from.0..=ready.0)
            .map(Index)
            .zip(entries)
            .map(|(index, entry)| committed(index, entry))
            .collect();
        self.hand_over(entries, out);
    }

    /// The entries at `from` and after it which an answer holds, as far as they are this log's: a
    /// record may begin earlier, and parts of it may have been replaced by later ones.
    pub(super) fn entries_of(&self, from: OpNumber, records: Vec<Record>) -> Vec<Entry> {
        let mut next = from;
        let mut found = Vec::new();
        for record in records {
            let Record::Entries { first, entries, .. } = record else { continue };
            for (index, entry) in (first.0..).map(Index).zip(entries) {
                if index == next && self.log.epoch_at(index) == Some(entry.view) {
                    found.push(entry);
                    next = next.next();
                }
            }
        }
        found
    }

    /// Forgets entries that neither the host nor an uncommitted suffix needs in memory.
    fn evict(&mut self) {
        let free = self.applied.min(self.delivered);
        while self.log.bytes() - self.uncommitted_bytes > self.config.limits.tail_bytes_max
            && self.log.first_in_memory() <= free
        {
            self.log.evict_first();
        }
    }

    /// Raises the commit-number, if `op` is above it.
    pub(super) fn commit_to(&mut self, op: OpNumber) {
        assert!(op <= self.log.last(), "a commit-number stays within the log");
        if op > self.commit {
            let committed: usize = self.log.range(self.commit.next(), op).map(Entry::cost).sum();
            self.uncommitted_bytes -= committed;
            self.commit = op;
        }
    }

    /// Appends at the end of the log, in memory and to the disk, and arranges to learn when the
    /// disk has it.
    pub(super) fn append(&mut self, entries: Vec<Entry>, out: &mut Effects<Self>) {
        let (first, after_view) = (self.log.last().next(), self.log.last_epoch());
        for entry in &entries {
            self.uncommitted_bytes += entry.cost();
            self.push(entry.clone());
        }
        out.record(Record::Entries { first, after_view, entries });
        self.tell_self(out);
    }

    /// Sends itself a PrepareOk, which comes back when everything so far is on disk.
    pub(super) fn tell_self(&mut self, out: &mut Effects<Self>) {
        let ok = Message::PrepareOk { view: self.views.view, op: self.log.last(), round: 0 };
        self.send_to_self(ok, out);
    }

    /// Everything that was in the log up to `op` while the view-number was `view` is on disk. In one
    /// view only that view's primary determines what is appended, and never takes it back; so if the
    /// view is still the same, the log up to `op` is what the disk holds. If it is not, the next
    /// entry stored will tell.
    pub(super) fn on_stored(&mut self, view: ViewNumber, op: OpNumber, out: &mut Effects<Self>) {
        // (A primary that does take back its own entries is broken; what it took back is not ours.)
        if view != self.views.view || op <= self.stored || op > self.log.last() {
            return;
        }
        self.stored = op;
        if self.is_primary() {
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

fn committed(index: OpNumber, entry: &Entry) -> CommittedEntry {
    CommittedEntry { index, epoch: entry.view.epoch(), payload: entry.payload.clone() }
}
