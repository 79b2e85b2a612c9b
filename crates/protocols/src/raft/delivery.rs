//! What the host gets: committed entries in order, from memory or read back from its disk.

use super::{Entry, Raft, Record};
use crate::contract::Effects;
use crate::host_read::HostRead;
use crate::log::{CommittedEntry, Index, LogAnswer, LogAsk, LogEvent};
use alloc::vec::Vec;

impl Raft {
    /// Delivers committed entries which are on this server's disk.
    pub(super) fn deliver(&mut self, out: &mut Effects<Self>) {
        let ready = self.commit.min(self.stored);
        if self.delivered >= ready || self.hard.uncertain {
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
        let entries: Vec<_> = (from.0..=ready.0)
            .map(Index)
            .zip(entries)
            .map(|(index, entry)| committed(index, entry))
            .collect();
        let Some(last) = entries.last() else { return };
        self.delivered = last.index;
        // Early: it names only entries that a quorum's disks and this one hold.
        out.event_early(LogEvent::Committed { entries });
    }

    /// Forgets entries that neither the host nor an uncommitted suffix needs in memory.
    pub(super) fn evict(&mut self) {
        let free = self.applied.min(self.delivered);
        while self.log.bytes() - self.uncommitted_bytes > self.config.limits.tail_bytes_max
            && self.log.first_in_memory() <= free
        {
            self.log.evict_first();
        }
    }

    pub(super) fn on_answer(&mut self, answer: LogAnswer<Record>, out: &mut Effects<Self>) {
        let (from, records) = match answer {
            LogAnswer::Entries { from, records } => (from, records),
            LogAnswer::Snapshot { .. } if self.hard.uncertain => return,
            LogAnswer::Snapshot { point } => return self.on_snapshot(point, out),
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
                true => {
                    self.fetched_for = None;
                    self.catch_up = failed;
                }
                false => self.send_from_host(from, &entries, out),
            }
        }
        if !expected {
            self.ignored += 1;
        }
    }

    /// The entries at `from` and after it which an answer holds, as far as they are this log's: a
    /// record may begin earlier, and parts of it may have been replaced by later ones.
    fn entries_of(&self, from: Index, records: Vec<Record>) -> Vec<Entry> {
        let mut next = from;
        let mut found = Vec::new();
        for record in records {
            let Record::Entries { first, entries } = record else { continue };
            for (index, entry) in (first.0..).map(Index).zip(entries) {
                if index == next && self.log.epoch_at(index) == Some(entry.term) {
                    found.push(entry);
                    next = next.next();
                }
            }
        }
        found
    }
}

fn committed(index: Index, entry: &Entry) -> CommittedEntry {
    CommittedEntry { index, epoch: entry.term.epoch(), payload: entry.payload.clone() }
}
