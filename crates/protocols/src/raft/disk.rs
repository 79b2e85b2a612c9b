//! This server's own disk: what is on its way there, and what is known to have arrived.

use super::message::Message;
use super::record::{Entry, Record};
use super::{Part, Raft};
use crate::contract::Effects;
use crate::epoch_log::LogEntry;
use crate::log::{Index, Payload};
use crate::membership::Configuration;
use crate::wire::Wire;
use alloc::vec::Vec;

impl Raft {
    /// Appends at the end of the log, in memory and to the disk, and arranges to learn when the
    /// disk has it.
    pub(super) fn append(&mut self, entries: Vec<Entry>, out: &mut Effects<Self>) {
        let first = self.log.last().next();
        for entry in &entries {
            self.uncommitted_bytes += entry.cost();
            self.log.push(entry.clone());
            if let Payload::Membership(bytes) = &entry.payload {
                let configuration = Configuration::from_bytes(bytes.clone());
                let configuration = configuration.expect("what is appended was checked");
                self.membership.push(self.log.last(), configuration);
                self.note_membership();
            }
        }
        out.record(Record::Entries { first, entries });
        self.send_to_self(Message::Stored { truncations: self.truncations, index: self.log.last() }, out);
    }

    /// Everything up to `index` that was in this log when so much of it had been taken back is on
    /// its disk. If nothing was taken back since, the log up to `index` is what the disk holds. If
    /// something was, what was appended in its place will tell.
    pub(super) fn on_stored(&mut self, truncations: u64, index: Index, out: &mut Effects<Self>) {
        if truncations != self.truncations || index <= self.stored || index > self.log.last() {
            return;
        }
        self.stored = index;
        if self.part == Part::Leader {
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
}
