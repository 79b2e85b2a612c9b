//! Snapshots on their way between members: part by part, each asked for when the one before has been
//! kept, so that neither side holds more than one part and a broken connection costs one part.
//!
//! The sender knows nothing of how far a receiver is: a request names the view and where in it the
//! part begins, and carries the checksum of everything before, from which the sender makes the one
//! that goes with the part. A receiver that computes another has got damaged bytes.

use super::{Node, Step, fail};
use crate::interface::*;
use crate::machine::{Part, StateMachine, Stored};
use crate::metadata::Metadata;
use crate::peer::{Manifest, PeerMessage, SnapshotId, SnapshotPart, SnapshotRequest};
use bytes::Bytes;
use std::time::Duration;
use synod_protocols::log::{Index, LogAnswer, ReplicatedLog};
use synod_protocols::{NodeId, Time};

/// Views kept for peers at the most; at the bound a request is told to come again.
const VIEWS_MAX: usize = 4;
/// A view that nobody has asked for so long is closed.
const VIEW_IDLE: Duration = Duration::from_secs(10);
/// Peers that begin to fetch within this time of each other share a view. An older one would only
/// have to be followed by more of the log, which waits for it.
const VIEW_SHARED: Duration = Duration::from_secs(2);
/// Damaged parts in a row after which the whole is fetched anew.
const DAMAGED_MAX: u32 = 3;

/// A view kept for peers.
struct Served<V> {
    id: SnapshotId,
    index: Index,
    manifest: Bytes,
    view: V,
    opened: Time,
    used: Time,
}

/// The views kept for peers.
pub(super) struct Serving<V> {
    views: Vec<Served<V>>,
    opened: u64,
}

impl<V> Serving<V> {
    pub(super) fn new() -> Self {
        Serving { views: Vec::new(), opened: 0 }
    }

    /// What the oldest of them covers.
    pub(super) fn oldest(&self) -> Option<Index> {
        self.views.iter().map(|view| view.index).min()
    }

    pub(super) fn expire(&mut self, now: Time) {
        self.views.retain(|view| view.used + VIEW_IDLE > now);
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.views.iter().map(|view| view.used + VIEW_IDLE).min()
    }
}

/// A snapshot that is being fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    from: NodeId,
    /// What it must cover at the least.
    index: Index,
    /// Which one, and what it covers, once the first part is here.
    begun: Option<(SnapshotId, Metadata)>,
    /// Where the next part begins.
    cursor: Bytes,
    /// The checksum of everything before it.
    checksum: u32,
    damaged: u32,
    /// When the part is asked for again.
    pub(super) retry_at: Time,
}

impl Fetch {
    fn new(from: NodeId, index: Index, retry_at: Time) -> Fetch {
        Fetch { from, index, begun: None, cursor: Bytes::new(), checksum: 0, damaged: 0, retry_at }
    }
}

/// Sending.
impl<P: ReplicatedLog, S: StateMachine> Node<P, S> {
    pub(super) fn on_snapshot_request(
        &mut self,
        now: Time,
        to: NodeId,
        request: SnapshotRequest,
        out: &mut Outbox<P, S>,
    ) {
        let SnapshotRequest { id, index, from, checksum } = request;
        let found = match id {
            Some(id) => self.serving.views.iter().position(|view| view.id == id),
            None => self.view_of(now, index, out),
        };
        let Some(at) = found else {
            out.send(to, PeerMessage::SnapshotGone { id });
            return;
        };
        let served = &mut self.serving.views[at];
        served.used = now;
        let manifest = if id.is_none() { served.manifest.clone() } else { Bytes::new() };
        let from = if id.is_none() { Bytes::new() } else { from };
        let before = if id.is_none() { 0 } else { checksum };
        match self.machine.read(&served.view, &from, self.limits.snapshot_part_bytes) {
            Ok(Part { bytes, next }) => {
                let mut part = SnapshotPart { id: served.id, manifest, from, bytes, next, checksum: 0 };
                part.checksum = part.checksum_after(before);
                out.send(to, PeerMessage::SnapshotPart(part));
            }
            Err(error) => self.stop(format!("the state machine cannot be read for a snapshot: {error}"), out),
        }
    }

    /// A view that covers `index`: one that is open, or a new one.
    fn view_of(&mut self, now: Time, index: Index, out: &mut Outbox<P, S>) -> Option<usize> {
        let shared = |view: &Served<S::View>| view.index >= index && view.opened + VIEW_SHARED > now;
        if let Some(at) = self.serving.views.iter().position(shared) {
            return Some(at);
        }
        if self.committed.applied < index || self.serving.views.len() == VIEWS_MAX {
            return None;
        }
        let view = match self.machine.view() {
            Ok(view) => view,
            Err(error) => {
                self.stop(format!("the state machine cannot be read for a snapshot: {error}"), out);
                return None;
            }
        };
        self.serving.opened += 1;
        let manifest = Manifest {
            cluster: self.identity.cluster,
            protocol: self.identity.protocol.to_owned(),
            metadata: self.committed.encode(),
        };
        self.serving.views.push(Served {
            id: SnapshotId { incarnation: self.incarnation, number: self.serving.opened },
            index: self.committed.applied,
            manifest: manifest.encode(),
            view,
            opened: now,
            used: now,
        });
        Some(self.serving.views.len() - 1)
    }
}

/// Fetching.
impl<P: ReplicatedLog, S: StateMachine> Node<P, S> {
    /// The protocol wants the state of a peer.
    pub(super) fn begin_fetch(&mut self, now: Time, from: NodeId, index: Index, out: &mut Outbox<P, S>) {
        if from == self.id || self.fetch.as_ref().is_some_and(|fetch| fetch.from == from) {
            return;
        }
        self.machine.unstage();
        self.fetch = Some(Fetch::new(from, index, now));
        self.ask_for_part(now, out);
    }

    /// Asks for the part that is wanted next, for the first time or again.
    pub(super) fn ask_for_part(&mut self, now: Time, out: &mut Outbox<P, S>) {
        let retry_at = now + self.resend_after;
        let Some(fetch) = &mut self.fetch else { return };
        fetch.retry_at = retry_at;
        let request = SnapshotRequest {
            id: fetch.begun.as_ref().map(|(id, _)| *id),
            index: fetch.index,
            from: fetch.cursor.clone(),
            checksum: fetch.checksum,
        };
        out.send(fetch.from, PeerMessage::SnapshotRequest(request));
    }

    /// There is a new connection: what was asked over the old one may be lost.
    pub(super) fn ask_again_on(&mut self, now: Time, peer: NodeId, out: &mut Outbox<P, S>) {
        if self.fetch.as_ref().is_some_and(|fetch| fetch.from == peer) {
            self.ask_for_part(now, out);
        }
    }

    pub(super) fn on_snapshot_gone(&mut self, now: Time, from: NodeId, id: Option<SnapshotId>) {
        let asked = |fetch: &&mut Fetch| fetch.from == from && fetch.begun.as_ref().map(|(id, _)| *id) == id;
        if self.fetch.as_mut().filter(asked).is_some() {
            self.fetch_anew(now);
        }
    }

    /// Begins the fetch again, a little later.
    fn fetch_anew(&mut self, now: Time) {
        self.machine.unstage();
        let retry_at = now + self.back_off;
        self.fetch = self.fetch.take().map(|fetch| Fetch::new(fetch.from, fetch.index, retry_at));
    }

    pub(super) fn on_snapshot_part(
        &mut self,
        now: Time,
        from: NodeId,
        part: SnapshotPart,
        out: &mut Outbox<P, S>,
    ) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.from == from) else { return };
        let first = fetch.begun.is_none();
        // What belongs to an earlier request, or comes twice, is not what was asked for.
        if fetch.begun.as_ref().is_some_and(|(id, _)| *id != part.id)
            || part.from != fetch.cursor
            || first == part.manifest.is_empty()
        {
            return;
        }
        let checksum = part.checksum_after(fetch.checksum);
        if checksum != part.checksum {
            fetch.damaged += 1;
            let why = "a part was damaged on the way".to_owned();
            let anew = fetch.damaged >= DAMAGED_MAX;
            out.notices.push(Notice::SnapshotRefused { from, why });
            if anew {
                self.fetch_anew(now);
            } else {
                self.ask_for_part(now, out);
            }
            return;
        }
        if first {
            match self.read_manifest(&part.manifest) {
                Ok(metadata) => {
                    let fetch = self.fetch.as_mut().expect("it was just there");
                    fetch.begun = Some((part.id, metadata));
                }
                Err(why) => {
                    out.notices.push(Notice::SnapshotRefused { from, why });
                    return self.fetch_anew(now);
                }
            }
        }
        match self.machine.stage(first, part.bytes) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                out.notices.push(Notice::SnapshotRefused { from, why });
                return self.fetch_anew(now);
            }
            Err(error) => return self.stop(format!("a snapshot cannot be kept: {error}"), out),
        }
        let fetch = self.fetch.as_mut().expect("it was just there");
        fetch.checksum = checksum;
        fetch.damaged = 0;
        match part.next {
            Some(next) => {
                fetch.cursor = next;
                self.ask_for_part(now, out);
            }
            None => self.install(now, out),
        }
    }

    /// What a snapshot covers, if it is one for this member.
    fn read_manifest(&self, manifest: &Bytes) -> Result<Metadata, String> {
        let malformed = |why| format!("its manifest cannot be understood: {why}");
        let Manifest { cluster, protocol, metadata } =
            Manifest::decode(manifest.clone()).map_err(malformed)?;
        if cluster != self.identity.cluster {
            return Err(format!(
                "it is of cluster {:x}, and this member belongs to cluster {:x}",
                cluster.0, self.identity.cluster.0
            ));
        }
        if protocol != self.identity.protocol {
            return Err(format!(
                "it is of the protocol {protocol:?}, and this member runs {:?}",
                self.identity.protocol
            ));
        }
        let metadata = Metadata::decode(metadata).map_err(malformed)?;
        let wanted = self.fetch.as_ref().map_or(Index::ZERO, |fetch| fetch.index);
        if metadata.applied < wanted {
            return Err(format!("it covers the log up to {}, and {wanted} is needed", metadata.applied));
        }
        Ok(metadata)
    }

    /// All parts are here: the state becomes the one that was fetched.
    fn install(&mut self, now: Time, out: &mut Outbox<P, S>) {
        if self.writer.durable() < self.started {
            // The log must be able to say that this member has lived.
            return self.fetch_anew(now);
        }
        let fetch = self.fetch.take().expect("a fetch ends with its last part");
        let (_, metadata) = fetch.begun.expect("it has begun");
        let point = metadata.point();
        if point.index <= self.delivered {
            // The log itself has got there meanwhile.
            self.machine.unstage();
            return;
        }
        self.start.base = Some(point.clone());
        self.start_encoded = self.start.encode();
        let stored = Stored { replicated: metadata.encode(), own: self.start_encoded.clone() };
        if let Err(error) = self.machine.install(stored) {
            return self.stop(format!("a snapshot cannot be installed: {error}"), out);
        }
        // What was being made durable is gone. The segments that were to go then go the next time.
        self.compaction = None;
        self.metadata = metadata.clone();
        self.committed = metadata;
        self.stored = point.index;
        self.delivered = point.index;
        self.writer.segments().cover(&point);
        // What this member's clients asked and the snapshot holds was applied elsewhere, together
        // with what they were to be told.
        let next = self.metadata.sessions.next(self.id, self.incarnation);
        while let Some(first) = self.outgoing.first_outstanding().filter(|first| *first < next) {
            if let Some(ticket) = self.outgoing.on_applied(first) {
                fail(ticket, ClientError::Timeout, out);
            }
        }
        out.notices.push(Notice::Installed { from: fetch.from, point: point.clone() });
        self.drive(now, Step::Answer(LogAnswer::Snapshot { point }), out);
        self.serve_reads(out);
    }
}
