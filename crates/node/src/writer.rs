//! Group commit: records become frames, frames become one write and one sync at a time.
//!
//! ```text
//! records ──► open frame ──► batches waiting ──► one append in flight ──► durable
//! ```

use crate::disk::{DiskCommand, SegmentId};
use crate::frame::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameKind, LogIdentity, Place, SEGMENT_HEADER_BYTES,
    encode_segment_header, frame_len, seal_frame,
};
use crate::positions::{FrameAt, Positions};
use crate::recovery::LogEnd;
use crate::segments::Segments;
use bytes::Bytes;
use std::collections::VecDeque;
use synod_protocols::Incarnation;
use synod_protocols::Wire;
use synod_protocols::log::{Index, ReplicatedLog, SnapshotPoint, Ticket};

/// A frame that has grown to this many bytes takes no further steps. One step may make a larger one.
const FRAME_BYTES_TARGET: usize = 64 << 10;
/// What a batch has room for before it grows.
const BATCH_BYTES_USUAL: usize = 1024;

/// A frame that waits to be written. Its body stands in its batch.
#[derive(Debug)]
struct Waiting {
    start: usize,
    body_len: usize,
    kind: FrameKind,
    sequence: u64,
    span: Option<(Index, Index)>,
}

/// Frames that will be written and synced together. The bytes begin with room for a segment's
/// header, which is cut off where none is needed.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    frames: Vec<Waiting>,
    /// Whether the last frame may take more records.
    open: bool,
    /// Whether it is written at the head of a new segment, however much room there is.
    begins_segment: bool,
}

impl Batch {
    /// An empty batch in the memory of an earlier one's frames.
    fn new(mut frames: Vec<Waiting>) -> Batch {
        frames.clear();
        let mut bytes = Vec::with_capacity(BATCH_BYTES_USUAL);
        bytes.resize(SEGMENT_HEADER_BYTES, 0);
        Batch { bytes, frames, open: false, begins_segment: false }
    }
}

/// The append that the disk is working on.
#[derive(Debug)]
struct InFlight {
    /// Kept, so that it can be repeated when the disk was full.
    command: DiskCommand,
    ticket: Ticket,
    last_sequence: u64,
}

/// What is known of a log on disk.
#[derive(Debug, Default)]
pub(crate) struct LogIndex {
    /// Where its positions are.
    pub(crate) positions: Positions,
    /// Its segments.
    pub(crate) segments: Segments,
    /// The last position that a record held.
    pub(crate) last_position: Index,
    /// How much of it there is.
    pub(crate) volume: Volume,
}

/// How long a log is that is cut where a record says everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Bytes of the last such record; zero if there is none.
    pub(crate) everything: u64,
    /// Bytes of what came after it.
    pub(crate) since: u64,
}

/// The writing end of the log.
#[derive(Debug)]
pub(crate) struct Writer {
    identity: LogIdentity,
    segment_bytes: u64,
    batch_bytes_max: usize,
    /// The segment being written: its number, first free offset and length in bytes.
    open: Option<(SegmentId, u64, u64)>,
    batches: VecDeque<Batch>,
    /// Memory for the frames of the next batch.
    spare: Vec<Waiting>,
    in_flight: Option<InFlight>,
    next_sequence: u64,
    durable: u64,
    /// The lowest position held by a frame that is not in `positions` yet.
    waiting_first: Option<Index>,
    /// The last position that any record held.
    last_position: Index,
    /// Counts how often a record replaced positions that earlier ones held.
    replaced: u64,
    positions: Positions,
    segments: Segments,
    syncs: u64,
    bytes_written: u64,
    volume: Volume,
}

impl Writer {
    /// Continues a log at `end`.
    pub(crate) fn new(
        identity: LogIdentity,
        segment_bytes: u64,
        batch_bytes_max: usize,
        end: LogEnd,
        index: LogIndex,
    ) -> Writer {
        let LogIndex { positions, segments, last_position, volume } = index;
        Writer {
            identity,
            segment_bytes,
            batch_bytes_max,
            open: end.open,
            batches: VecDeque::new(),
            spare: Vec::new(),
            in_flight: None,
            next_sequence: end.next_sequence,
            durable: end.next_sequence - 1,
            waiting_first: None,
            last_position,
            replaced: 0,
            positions,
            segments,
            syncs: 0,
            bytes_written: 0,
            volume,
        }
    }

    /// Appends the records of one step of a replicated log; they share a frame.
    pub(crate) fn push_records<P: ReplicatedLog>(&mut self, records: &mut Vec<P::Record>) {
        self.push_step(records, P::span);
    }

    /// Appends the records of one step; they share a frame. `span_of`: the positions that a record holds.
    pub(crate) fn push_step<R: Wire>(
        &mut self,
        records: &mut Vec<R>,
        span_of: impl Fn(&R) -> Option<(Index, Index)>,
    ) {
        let batch_bytes_max = self.batch_bytes_max;
        let mut last_position = self.last_position;
        let mut replaced = 0;
        let mut span = None;
        let batch = self.batch_with_open_frame();
        let step_start = batch.bytes.len();
        for record in records.drain(..) {
            record.encode(&mut batch.bytes);
            if let Some((first, last)) = span_of(&record) {
                span = Some(widen(span, first, last));
                replaced += u64::from(first <= last_position);
                last_position = last;
            }
        }
        if batch.bytes.len() > batch_bytes_max && step_start > SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES {
            self.move_to_new_batch(step_start);
        }
        let batch = self.batches.back_mut().expect("a batch is open");
        let frame = batch.frames.last_mut().expect("a frame is open");
        frame.body_len = batch.bytes.len() - frame.start - FRAME_HEADER_BYTES;
        if let Some((first, last)) = span {
            frame.span = Some(widen(frame.span, first, last));
            self.waiting_first = Some(self.waiting_first.map_or(first, |waiting| waiting.min(first)));
            self.last_position = last_position;
            self.replaced += replaced;
        }
    }

    /// Moves the records of the step that begins at `start` into the next write.
    fn move_to_new_batch(&mut self, start: usize) {
        let batch = self.batches.back_mut().expect("a batch is open");
        let tail = batch.bytes.split_off(start);
        let frame = batch.frames.last().expect("a frame is open");
        if frame.body_len == 0 {
            // The frame was opened for this step alone.
            batch.bytes.truncate(frame.start);
            batch.frames.pop();
            self.next_sequence -= 1;
        }
        self.batches.push_back(Batch::new(Vec::new()));
        self.batch_with_open_frame().bytes.extend_from_slice(&tail);
    }

    /// Appends the beginning of a life.
    pub(crate) fn push_started(&mut self, incarnation: Incarnation) {
        assert!(self.batches.is_empty(), "a life begins before its first record");
        self.push_frame(FrameKind::Started, |body| body.extend_from_slice(&incarnation.0.to_le_bytes()));
    }

    /// Appends what no position holds. `record` must say it as of the last record appended.
    pub(crate) fn push_restated(&mut self, incarnation: Incarnation, record: &impl Wire) {
        self.push_frame(FrameKind::Restated, |body| {
            body.extend_from_slice(&incarnation.0.to_le_bytes());
            record.encode(body);
        });
    }

    /// Appends a record that makes all earlier ones needless, at the head of a segment of its own, so that the segments
    /// before it can go when it is durable.
    pub(crate) fn push_everything(&mut self, incarnation: Incarnation, record: &impl Wire) {
        self.batches.push_back(Batch { begins_segment: true, ..Batch::new(Vec::new()) });
        self.push_restated(incarnation, record);
    }

    /// Appends a frame that takes no records.
    fn push_frame(&mut self, kind: FrameKind, body: impl FnOnce(&mut Vec<u8>)) {
        if let Some(batch) = self.batches.back_mut() {
            batch.open = false;
        }
        let batch = self.batch_with_open_frame();
        body(&mut batch.bytes);
        batch.open = false;
        let frame = batch.frames.last_mut().expect("a frame is open");
        frame.kind = kind;
        frame.body_len = batch.bytes.len() - frame.start - FRAME_HEADER_BYTES;
    }

    /// Whether the next write will begin a segment that needs a frame which restates what no
    /// position holds. Such a frame is appended behind all that waits, where it is true.
    pub(crate) fn wants_restated(&self) -> bool {
        let Some((_, offset, len)) = self.open else { return false };
        let next = self.batches.front().filter(|_| self.in_flight.is_none());
        next.is_some_and(|batch| len.saturating_sub(offset) < needed_bytes(batch.bytes.len()))
    }

    /// The last batch, with a frame at its end that takes records.
    fn batch_with_open_frame(&mut self) -> &mut Batch {
        let is_full = |batch: &Batch| batch.bytes.len() >= self.batch_bytes_max;
        if self.batches.back().is_none_or(is_full) {
            self.batches.push_back(Batch::new(std::mem::take(&mut self.spare)));
        }
        let batch = self.batches.back_mut().expect("just made sure");
        let is_full =
            batch.frames.last().is_some_and(|frame| batch.bytes.len() - frame.start >= FRAME_BYTES_TARGET);
        if !batch.open || is_full {
            let start = batch.bytes.len().next_multiple_of(FRAME_ALIGNMENT);
            batch.bytes.resize(start + FRAME_HEADER_BYTES, 0);
            batch.frames.push(Waiting {
                start,
                body_len: 0,
                kind: FrameKind::Records,
                sequence: self.next_sequence,
                span: None,
            });
            batch.open = true;
            self.next_sequence += 1;
        }
        batch
    }

    /// The next write, if one waits and none is in flight.
    pub(crate) fn start_append(&mut self, ticket: Ticket) -> Option<DiskCommand> {
        if self.in_flight.is_some() {
            return None;
        }
        let Batch { mut bytes, frames, begins_segment, .. } = self.batches.pop_front()?;
        bytes.resize(bytes.len().next_multiple_of(FRAME_ALIGNMENT), 0);
        let frames_len = (bytes.len() - SEGMENT_HEADER_BYTES) as u64;
        let needed = needed_bytes(bytes.len());
        let first_sequence = frames.first().expect("a batch has a frame").sequence;
        let last_sequence = frames.last().expect("a batch has a frame").sequence;
        let (segment, offset, len, create) = match self.open {
            Some((segment, offset, len)) if !begins_segment && len.saturating_sub(offset) >= needed => {
                (segment, offset, len, None)
            }
            open => {
                let segment = SegmentId(open.map_or(1, |(segment, ..)| segment.0 + 1));
                let len = self.segment_bytes.max(needed + SEGMENT_HEADER_BYTES as u64);
                let mut header = Vec::with_capacity(SEGMENT_HEADER_BYTES);
                encode_segment_header(&mut header, &self.identity, segment, first_sequence);
                bytes[..SEGMENT_HEADER_BYTES].copy_from_slice(&header);
                (segment, SEGMENT_HEADER_BYTES as u64, len, Some(len))
            }
        };
        for (i, frame) in frames.iter().enumerate() {
            let end = frames.get(i + 1).map_or(bytes.len(), |next| next.start);
            let place = self.place(segment, offset + (frame.start - SEGMENT_HEADER_BYTES) as u64);
            let len = end - frame.start;
            seal_frame(
                &mut bytes[frame.start..end],
                &place,
                frame.kind,
                frame.body_len,
                frame.sequence,
                self.durable,
            );
            let sequence = frame.sequence;
            let at = FrameAt { segment, offset: place.offset, len, sequence, span: frame.span };
            self.segments.add(&at, frame.kind == FrameKind::Restated);
            self.positions.add(at);
        }
        self.spare = frames;
        self.waiting_first =
            self.batches.iter().flat_map(|batch| &batch.frames).filter_map(|frame| Some(frame.span?.0)).min();
        self.open = Some((segment, offset + frames_len, len));
        match begins_segment {
            true => {
                let everything = self.spare.first().map_or(0, |first| frame_len(first.body_len) as u64);
                self.volume = Volume { everything, since: frames_len - everything };
            }
            false => self.volume.since += frames_len,
        }
        let bytes = Bytes::from(bytes);
        let (offset, bytes) =
            if create.is_some() { (0, bytes) } else { (offset, bytes.slice(SEGMENT_HEADER_BYTES..)) };
        self.syncs += 1;
        self.bytes_written += bytes.len() as u64;
        let command = DiskCommand::Append { ticket, segment, create, offset, bytes, sync: true };
        self.in_flight = Some(InFlight { command: command.clone(), ticket, last_sequence });
        Some(command)
    }

    /// A write that tells how far the log is synced, if none is in flight or waits. It is not
    /// synced, and what is written next overwrites it.
    pub(crate) fn start_mark(&mut self, ticket: Ticket) -> Option<DiskCommand> {
        if self.in_flight.is_some() || !self.batches.is_empty() {
            return None;
        }
        let (segment, offset, len) = self.open?;
        if len.saturating_sub(offset) < FRAME_HEADER_BYTES as u64 {
            return None;
        }
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        let place = self.place(segment, offset);
        seal_frame(&mut bytes, &place, FrameKind::Mark, 0, self.next_sequence, self.durable);
        self.bytes_written += bytes.len() as u64;
        let bytes = Bytes::from(bytes);
        let command = DiskCommand::Append { ticket, segment, create: None, offset, bytes, sync: false };
        self.in_flight = Some(InFlight { command: command.clone(), ticket, last_sequence: self.durable });
        Some(command)
    }

    /// The append with this ticket is durable. False if none with it was in flight.
    pub(crate) fn on_appended(&mut self, ticket: Ticket) -> bool {
        match self.in_flight.take() {
            Some(append) if append.ticket == ticket => {
                assert!(append.last_sequence >= self.durable, "the log became durable backwards");
                self.durable = append.last_sequence;
                true
            }
            other => {
                self.in_flight = other;
                false
            }
        }
    }

    /// The append in flight, to be repeated.
    pub(crate) fn append_in_flight(&self) -> Option<(Ticket, &DiskCommand)> {
        self.in_flight.as_ref().map(|append| (append.ticket, &append.command))
    }

    /// The last frame that has a number: what an effect of now waits for.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// The last frame that is synced.
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether everything is synced.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.batches.is_empty()
    }

    /// How often records replaced positions that earlier ones held.
    pub(crate) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Which runs to read for an ask; none while records that matter to it are not synced.
    pub(crate) fn select(
        &self,
        from: Index,
        to: Index,
        bytes_max: usize,
    ) -> Option<Vec<crate::positions::Run>> {
        let Some(waiting) = self.waiting_first else {
            return self.positions.select(from, to, bytes_max, self.durable);
        };
        if waiting <= from {
            return None;
        }
        let runs = self.positions.select(from, to.min(waiting.previous()), bytes_max, self.durable)?;
        // A run which a waiting record replaces in part may not be read without it.
        if runs.iter().any(|run| run.last >= waiting) { None } else { Some(runs) }
    }

    /// Which segments there are.
    pub(crate) fn segments(&mut self) -> &mut Segments {
        &mut self.segments
    }

    /// The first segment that must stay, and the point to which the log is given up for it.
    pub(crate) fn droppable(&self, limit: Index) -> Option<(SegmentId, SnapshotPoint)> {
        self.segments.droppable(self.durable, limit)
    }

    /// Forgets the segments before `first`, and gives them, to be removed.
    pub(crate) fn drop_before(&mut self, first: SegmentId) -> Vec<SegmentId> {
        let dropped = self.segments.drop_before(first);
        if let Some(last) = dropped.last() {
            self.positions.forget_through(*last);
        }
        dropped
    }

    /// Forgets the segments before the last one that durably begins with everything, and gives them, to be removed.
    pub(crate) fn drop_needless(&mut self) -> Vec<SegmentId> {
        let first = self.segments.last_restated(self.durable);
        first.map(|first| self.drop_before(first)).unwrap_or_default()
    }

    /// How long the log is, if it is cut where a record says everything.
    pub(crate) fn volume(&self) -> Volume {
        self.volume
    }

    /// Where a frame of this log stands.
    pub(crate) fn place(&self, segment: SegmentId, offset: u64) -> Place {
        Place { cluster: self.identity.cluster, node: self.identity.node, segment, offset }
    }

    /// Syncs asked for in this life.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Bytes written in this life.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }
}

/// The room in a segment without which a batch goes into a new one. Some is kept for a mark, so that
/// the last frame of a segment can be covered by one.
fn needed_bytes(batch_bytes: usize) -> u64 {
    (batch_bytes.next_multiple_of(FRAME_ALIGNMENT) - SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES) as u64
}

fn widen(span: Option<(Index, Index)>, first: Index, last: Index) -> (Index, Index) {
    span.map_or((first, last), |(low, high)| (low.min(first), high.max(last)))
}
