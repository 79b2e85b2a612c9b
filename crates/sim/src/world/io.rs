//! What members send and write: messages on the network, commands of disks.

use super::{World, member};
use crate::dice::{Place, dice, draw};
use crate::event::Event;
use crate::network::{Arrival, Fate};
use crate::queue::Due;
use std::hash::Hasher;
use synod_node::{DiskCommand, Input, PeerSend};
use synod_protocols::log::{ReplicatedLog, Ticket};
use synod_protocols::{Describe, NodeId, Wire};

/// A write that need not be synced takes this long, in nanoseconds.
const WRITE_NANOS: u64 = 50_000;

impl<P: ReplicatedLog> World<'_, P> {
    pub(super) fn send(&mut self, from: u8, PeerSend { to, message, early }: PeerSend<P::Message>) {
        let to = (to.0 - 1) as u8;
        self.scratch.clear();
        message.encode(&mut self.scratch);
        self.counts.messages += 1;
        let bytes = self.scratch.len() as u64;
        self.counts.bytes += bytes;
        let mut digest = std::mem::take(&mut self.digest);
        digest.word(u64::from(from) << 8 | u64::from(to));
        digest.write(&self.scratch);
        self.digest = digest;
        let words = self.shows.then(|| (message.name(), message.detail()));
        let (number, fate, copy) = self.network.send(self.now, from, to, message, &mut self.queue);
        self.counts.lost += u64::from(matches!(fate, Fate::Lost(_)));
        if let Some((name, detail)) = words {
            let mut show = |m: u64, copy_of: Option<u64>, fate: Fate| {
                let (at, lost) = match fate {
                    Fate::Arrives(at) => (Some(at), None),
                    Fate::Lost(why) => (None, Some(why)),
                };
                let (from, to, detail) = (member(from), member(to), detail.clone());
                let sent = Event::Send { m, copy_of, from, to, name, detail, bytes, early, at, lost };
                self.sink.event(self.now, &sent);
            };
            show(number, None, fate);
            if let Some((copy, fate)) = copy {
                show(copy, Some(number), fate);
            }
        }
    }

    pub(super) fn on_arrival(&mut self, slot: u32) {
        match self.network.arrive(self.now, slot, &mut self.queue) {
            Arrival::Nothing => {}
            Arrival::Lost { number, why } => self.on_lost(number, why),
            Arrival::Message { number, from, to } if self.members[usize::from(to)].is_up() => {
                self.note_digest(8, number, 0);
                self.show(&Event::Recv { m: number });
                let from = NodeId(u64::from(from) + 1);
                let message = self.network.take(slot);
                self.feed(to, Input::Peer { from, message });
            }
            Arrival::Message { number, .. } => {
                self.network.take(slot);
                self.on_lost(number, "receiver down");
            }
        }
    }

    pub(crate) fn on_lost(&mut self, number: u64, why: &'static str) {
        self.counts.lost += 1;
        self.note_digest(9, number, 0);
        self.show(&Event::Drop { m: number, why });
    }

    // Disks.

    pub(super) fn issue(&mut self, index: u8, command: DiskCommand) {
        let bytes = match &command {
            DiskCommand::Append { bytes, sync, .. } => Some((bytes.len() as u64, *sync)),
            DiskCommand::Read { .. } | DiskCommand::Remove { .. } => None,
        };
        let mut records = Vec::new();
        let shows = self.shows;
        let at = &mut self.members[usize::from(index)];
        let (slot, last) = at.issue(command, |record| {
            if shows {
                records.push((record.name(), record.detail()));
            }
        });
        let mut rng = dice(self.script.seed, Place::Sync, index.into(), 0, at.io_count);
        let takes = match bytes {
            Some((_, false)) => WRITE_NANOS,
            _ => draw(self.script.disk, &mut rng),
        };
        let done = self.now.max(at.stalled_until) + takes;
        self.queue.push(done, Due::Disk { member: index, life: at.life, slot });
        if let Some(last) = last {
            self.checkers.on_writing(index, last);
        }
        if shows {
            let n = member(index);
            for (name, detail) in records {
                self.show(&Event::Record { n, name, detail });
            }
            let (op, bytes) = match bytes {
                Some((bytes, true)) => ("sync-begin", bytes),
                Some((bytes, false)) => ("write", bytes),
                None => ("read", 0),
            };
            self.show(&Event::Disk { n, op, bytes });
        }
    }

    /// Lets a state machine make durable what it holds, which takes about as long as ten syncs.
    pub(super) fn persist(&mut self, index: u8, ticket: Ticket) {
        let at = &mut self.members[usize::from(index)];
        at.persist_count += 1;
        let mut rng = dice(self.script.seed, Place::Sync, index.into(), 1, at.persist_count);
        let done = self.now.max(at.stalled_until) + 10 * draw(self.script.disk, &mut rng);
        self.queue.push(done, Due::Persisted { member: index, life: at.life, ticket: ticket.0 });
    }

    pub(super) fn on_disk(&mut self, index: u8, life: u32, slot: u32) {
        let at = &mut self.members[usize::from(index)];
        if at.life != life || !at.is_up() {
            return;
        }
        if at.stalled_until > self.now {
            self.queue.push(at.stalled_until, Due::Disk { member: index, life, slot });
            return;
        }
        let done = at.complete(slot);
        let truly = !at.disk.lies();
        if let Some(bytes) = done.synced {
            self.counts.syncs += 1;
            self.show(&Event::Disk { n: member(index), op: "sync-end", bytes });
        }
        if let Some(last) = done.last {
            self.checkers.on_synced(index, last, truly);
        }
        self.note_digest(10, index.into(), done.synced.unwrap_or(0));
        self.feed(index, Input::Disk(done.reply));
    }
}
