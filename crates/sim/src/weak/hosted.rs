//! A causal or eventual replica as the server hosts it: a [`WeakNode`] on a disk of bytes.
//!
//! Frames, group commit, the scan of a log that is torn or rotten, compaction, and what a member does on a full or a
//! failing disk are here what they are in the server, since they are the same code. Only the disk and the clock are
//! played.

use super::member::{Home, Start, config};
use crate::disk::SimDisk;
use crate::member::frames_in;
use crate::small::{Effect, Happens, Machine};
use bytes::Bytes;
use synod_node::frame::FrameKind;
use synod_node::{
    Blank, Disk, DiskCommand, DiskFault, DiskReply, SegmentId, WeakNode, WeakNodeConfig, WeakOutbox,
};
use synod_protocols::log::Ticket;
use synod_protocols::types::Time;
use synod_protocols::weak::{Event, Message, Record, Request, WeakReplica};
use synod_protocols::{Describe, Input, Reader, Rng, Wire};

/// Bytes of a segment: few, so that a run begins many, and finds a full disk full.
const SEGMENT_BYTES: u64 = 1024;
/// The log is shortened from here on.
const COMPACT_BYTES: u64 = 4 * SEGMENT_BYTES;
const BATCH_BYTES_MAX: usize = 64 << 10;

/// A replica, its node and its disk.
pub(super) struct Hosted<P: WeakReplica> {
    start: Start,
    joins: bool,
    node: Option<WeakNode<P>>,
    disk: SimDisk,
    /// The append that waits for its sync, and whether it found room.
    pending: Option<(Ticket, SegmentId, Result<(), DiskFault>)>,
    /// It has lived: an empty disk is a lost one from then on.
    has_lived: bool,
    /// Why it could not be started.
    failure: Option<String>,
    lives: u64,
    is_watched: bool,
}

/// The records in what is being appended, in words.
fn described(bytes: &Bytes, is_first: bool) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for (kind, body) in frames_in(bytes, is_first) {
        let at = match kind {
            FrameKind::Records => 0,
            // Behind the number of the life.
            FrameKind::Restated => 8,
            _ => continue,
        };
        let mut rest = Reader::new(body.slice(at..));
        while rest.remaining() > 0 {
            let record = Record::decode(&mut rest).expect("a node writes whole records");
            all.push((record.name(), record.detail()));
        }
    }
    all
}

impl<P: WeakReplica + 'static> Home for Hosted<P> {
    type Process = P;

    fn new(start: Start, joins: bool) -> Hosted<P> {
        Hosted {
            start,
            joins,
            node: None,
            disk: SimDisk::new(),
            pending: None,
            has_lived: false,
            failure: None,
            lives: 0,
            is_watched: false,
        }
    }

    fn process(&self) -> Option<&P> {
        self.node.as_ref().map(WeakNode::process)
    }

    fn request(&mut self, now: Time, request: Request, out: &mut Vec<Effect<Event>>) {
        self.input(now, Input::Request(request), out);
    }

    fn set_clock(&mut self, wall_at_zero: u64) {
        self.start.wall_at_zero = wall_at_zero;
    }

    /// A damaged log stays damaged: it is not written to any more.
    fn is_damaged(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.damage().is_some())
    }

    fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

impl<P: WeakReplica> Hosted<P> {
    fn input(&mut self, now: Time, input: Input<P>, out: &mut Vec<Effect<Event>>) {
        let Some(node) = &mut self.node else { return };
        let mut outbox = WeakOutbox::default();
        node.step(now, input, &mut outbox);
        node.flush(now, &mut outbox);
        self.take(now, outbox, out);
    }

    fn on_disk(&mut self, now: Time, reply: DiskReply, out: &mut Vec<Effect<Event>>) {
        let Some(node) = &mut self.node else { return };
        let mut outbox = WeakOutbox::default();
        node.on_disk(now, reply, &mut outbox);
        node.flush(now, &mut outbox);
        self.take(now, outbox, out);
    }

    /// The node has held back what had to wait, so that all of this may leave now.
    fn take(&mut self, now: Time, outbox: WeakOutbox, out: &mut Vec<Effect<Event>>) {
        let is_watched = self.is_watched;
        out.extend(outbox.sends.into_iter().map(|(to, message)| Effect::Send {
            to,
            name: message.name(),
            detail: if is_watched { message.detail() } else { String::new() },
            bytes: message.to_bytes(),
            is_early: true,
        }));
        out.extend(outbox.events.into_iter().map(|event| Effect::Tell { event, is_early: true }));
        for command in outbox.disk {
            match command {
                DiskCommand::Append { ticket, segment, create, offset, bytes, sync: true } => {
                    let records = if is_watched { described(&bytes, offset == 0) } else { Vec::new() };
                    let made = create.map_or(Ok(()), |size| self.disk.create(segment, size));
                    let written = made.and_then(|()| self.disk.write(segment, offset, &bytes));
                    self.pending = Some((ticket, segment, written));
                    out.push(Effect::Sync(records));
                }
                // A mark and a removal wait for no sync.
                other => {
                    let reply = other.execute(&mut self.disk);
                    self.on_disk(now, reply, out);
                }
            }
        }
    }

    fn appended(&mut self, now: Time, out: &mut Vec<Effect<Event>>) {
        let Some((ticket, segment, written)) = self.pending.take() else { return };
        let result = written.and_then(|()| self.disk.sync(segment));
        self.has_lived |= result.is_ok();
        self.on_disk(now, DiskReply::Appended { ticket, result }, out);
    }
}

impl<P: WeakReplica> Machine for Hosted<P> {
    type Event = Event;

    fn start(&mut self, now: Time, out: &mut Vec<Effect<Event>>) {
        self.lives += 1;
        let config = WeakNodeConfig {
            replica: config(&Start { life: self.lives, ..self.start.clone() }),
            blank: match self.joins {
                _ if self.has_lived => Blank::Lost,
                true => Blank::Joins,
                false => Blank::Founds,
            },
            segment_bytes: SEGMENT_BYTES,
            batch_bytes_max: BATCH_BYTES_MAX,
            compact_bytes: COMPACT_BYTES,
        };
        let mut outbox = WeakOutbox::default();
        match WeakNode::start(config, &mut self.disk, now, &mut outbox) {
            Ok(mut node) => {
                node.flush(now, &mut outbox);
                self.node = Some(node);
                self.take(now, outbox, out);
            }
            Err(error) => self.failure = Some(error.to_string()),
        }
    }

    fn crash(&mut self, is_torn: bool, rng: &mut Rng) -> Option<String> {
        (self.node, self.pending) = (None, None);
        let faults = self.disk.faults_mut();
        (faults.tear, faults.lose_unsynced) = (is_torn, !is_torn);
        let report = self.disk.crash(rng);
        self.disk.faults_mut().lie = false;
        is_torn.then(|| {
            format!(
                "of the sectors that were not synced {} survive, {} are lost, {} are torn",
                report.kept, report.lost, report.torn
            )
        })
    }

    fn is_up(&self) -> bool {
        self.node.is_some()
    }

    fn step(&mut self, now: Time, happens: Happens, out: &mut Vec<Effect<Event>>) {
        let input = match happens {
            Happens::Message { from, bytes } => match Message::from_bytes(bytes) {
                Ok(message) => Input::Message { from, message },
                Err(_) => return,
            },
            Happens::LinkUp { peer, session } => Input::LinkUp { peer, session },
            Happens::LinkDown { peer } => Input::LinkDown { peer },
            // The node learns of its disk from its appends.
            Happens::Storage(_) => return,
            Happens::Timeout => {
                let Some(node) = &mut self.node else { return };
                let mut outbox = WeakOutbox::default();
                node.flush(now, &mut outbox);
                return self.take(now, outbox, out);
            }
        };
        self.input(now, input, out);
    }

    fn synced(&mut self, now: Time, out: &mut Vec<Effect<Event>>) {
        self.appended(now, out);
    }

    fn sync_failed(&mut self, now: Time, out: &mut Vec<Effect<Event>>) {
        self.disk.faults_mut().fail = true;
        self.appended(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.node.as_ref()?.deadline()
    }

    fn fill(&mut self, is_full: bool) -> bool {
        self.disk.faults_mut().full = is_full;
        true
    }

    fn rot(&mut self, rng: &mut Rng) -> bool {
        self.disk.rot(rng).is_some()
    }

    fn wipe(&mut self) -> bool {
        self.disk.wipe();
        self.has_lived
    }

    fn lie(&mut self) -> bool {
        self.disk.faults_mut().lie = true;
        true
    }

    fn watch(&mut self) {
        self.is_watched = true;
    }
}
