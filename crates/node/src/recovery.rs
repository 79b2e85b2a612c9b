//! The recovery scan: what a log on disk holds, where it ends, and whether it is damaged.
//!
//! Frames are read in order. At the first place that holds no valid frame, everything behind it is
//! searched for evidence that the frame which should stand there had been synced: a later frame
//! whose `synced` says so, or a later segment, which is only created when everything before it is.
//! With evidence the log is *damaged*. Without it, what stands there is a write that a crash
//! interrupted and that nobody was ever told of: the log ends there, and the garbage behind it is
//! overwritten with zeros, so that it can never be mistaken for something later.
//!
//! One case cannot be told apart: the very last synced frames, when neither a later frame nor a
//! mark reached the disk after them, look the same whether they were torn or rotted. Marks keep
//! that window to some milliseconds of an idle log.

use crate::disk::{Disk, SegmentId};
use crate::frame::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, Frame, FrameKind, HeaderError, LogIdentity, Parsed, Place,
    SEGMENT_HEADER_BYTES, decode_segment_header, has_frame_magic, parse_frame, peek_frame_header,
};
use crate::node::StartError;
use bytes::Bytes;

/// How much of a segment is read at once, in bytes. Records share the memory of what was read, so
/// this also bounds how much one of them keeps alive.
const CHUNK_BYTES: usize = 1 << 20;
/// What is overwritten at once when garbage is cleared, in bytes.
const CLEAR_BYTES: usize = 4096;

/// A frame and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedFrame {
    /// The frame.
    pub frame: Frame,
    /// Its segment.
    pub segment: SegmentId,
    /// Bytes from the segment's start.
    pub offset: u64,
    /// Its size with padding, in bytes.
    pub len: usize,
}

/// Where a log ends, so that it can be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The last segment, with the first free offset and the segment's length in bytes; none if
    /// there is no segment.
    pub open: Option<(SegmentId, u64, u64)>,
    /// The sequence number of the next frame.
    pub next_sequence: u64,
}

/// Reads a log in order.
pub struct Scanner<'d, D> {
    disk: &'d mut D,
    identity: LogIdentity,
    segments: Vec<(SegmentId, u64)>,
    leftovers: Vec<SegmentId>,
    /// Which of `segments` is being read.
    at: usize,
    offset: u64,
    next_sequence: u64,
    chunk: Bytes,
    chunk_offset: u64,
    /// The end of a whole mark at `offset`, if there is one: it is left standing, because it
    /// covers the last frame until the next one does.
    mark_end: Option<u64>,
    ended: bool,
}

impl<'d, D: Disk> Scanner<'d, D> {
    /// Begins at the segment `first`. Ones before it are what an interrupted removal left.
    ///
    /// # Errors
    /// [`StartError::Disk`]; [`StartError::Damaged`] where segments are missing;
    /// [`StartError::Foreign`] where the log is somebody else's.
    pub fn open(disk: &'d mut D, identity: LogIdentity, first: SegmentId) -> Result<Self, StartError> {
        let mut leftovers = disk.segments().map_err(StartError::Disk)?;
        let segments = leftovers.split_off(leftovers.partition_point(|(segment, _)| *segment < first));
        if segments.is_empty() && !leftovers.is_empty() {
            return Err(StartError::Damaged {
                what: format!("segment {} of the log is missing, and all after it. {REMEDY}", first.0),
            });
        }
        for (i, (segment, _)) in segments.iter().enumerate() {
            let expected = first.0 + i as u64;
            if segment.0 != expected {
                return Err(StartError::Damaged {
                    what: format!(
                        "segment {expected} of the log is missing, though segment {} is there. (Of a log that was cut the state \
                         says where it begins: was the state's storage emptied?) {REMEDY}",
                        segment.0
                    ),
                });
            }
        }
        let mut scanner = Scanner {
            disk,
            identity,
            leftovers: leftovers.into_iter().map(|(segment, _)| segment).collect(),
            segments,
            at: 0,
            offset: 0,
            next_sequence: 1,
            chunk: Bytes::new(),
            chunk_offset: 0,
            mark_end: None,
            ended: false,
        };
        if scanner.segments.is_empty() {
            scanner.ended = true;
        } else if let Some(sequence) = scanner.first_sequence_of(0)? {
            if first > SegmentId(1) {
                // What came before is gone, and was synced.
                scanner.next_sequence = sequence;
            }
            scanner.enter(0)?;
        } else {
            scanner.end("the segment's header is unreadable")?;
        }
        Ok(scanner)
    }

    /// The segments before the first that is read.
    pub fn leftovers(&self) -> &[SegmentId] {
        &self.leftovers
    }

    /// The next frame, marks left out; none at the end of the log.
    ///
    /// # Errors
    /// As [`Scanner::open`].
    pub fn next_frame(&mut self) -> Result<Option<ScannedFrame>, StartError> {
        while !self.ended {
            let (segment, len) = self.segments[self.at];
            match self.frame_at(self.offset)? {
                Parsed::Frame(frame) if frame.sequence == self.next_sequence => {
                    if frame.kind == FrameKind::Mark {
                        // Nothing follows a mark: what is written next overwrites it.
                        self.mark_end = Some(self.offset + FRAME_HEADER_BYTES as u64);
                        self.leave("a mark ends the segment")?;
                        continue;
                    }
                    let found = ScannedFrame {
                        segment,
                        offset: self.offset,
                        len: crate::frame::frame_len(frame.body.len()),
                        frame,
                    };
                    self.offset += found.len as u64;
                    assert!(self.offset <= len, "a frame was read beyond its segment");
                    self.next_sequence += 1;
                    return Ok(Some(found));
                }
                Parsed::Frame(_) => self.leave("a frame is out of sequence")?,
                Parsed::Short(_) => self.leave("a frame is cut off by the end of the segment")?,
                Parsed::Bad(why) => self.leave(why)?,
            }
        }
        Ok(None)
    }

    /// Clears what is behind the end. To be called when [`Scanner::next_frame`] gave none.
    ///
    /// # Errors
    /// [`StartError::Disk`].
    pub fn finish(self) -> Result<LogEnd, StartError> {
        assert!(self.ended, "a log was cut before it had been read to its end");
        let Scanner { disk, segments, at, offset, next_sequence, mark_end, .. } = self;
        // A segment whose header never became whole is made anew by the next write. It is cleared
        // before it is removed, because a removal may be undone by a crash.
        let mut open = None;
        for (i, (segment, len)) in segments.into_iter().enumerate().skip(at) {
            let keep = i == at && offset > 0;
            let from = if keep { mark_end.unwrap_or(offset) } else { 0 };
            clear(disk, segment, from, len).map_err(StartError::Disk)?;
            if keep {
                open = Some((segment, offset, len));
            } else {
                disk.remove(segment).map_err(StartError::Disk)?;
            }
        }
        Ok(LogEnd { open, next_sequence })
    }

    /// Goes on to the next segment if it continues here, and otherwise ends the log.
    fn leave(&mut self, why: &'static str) -> Result<(), StartError> {
        if self.at + 1 < self.segments.len()
            && self.first_sequence_of(self.at + 1)? == Some(self.next_sequence)
        {
            return self.enter(self.at + 1);
        }
        self.end(why)
    }

    fn enter(&mut self, at: usize) -> Result<(), StartError> {
        let first = self.first_sequence_of(at)?.expect("only readable segments are entered");
        self.at = at;
        self.mark_end = None;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.chunk = Bytes::new();
        if first != self.next_sequence {
            return Err(self.damaged(
                at,
                0,
                &format!(
                    "the segment starts with frame {first}, and frame {} was expected",
                    self.next_sequence
                ),
            ));
        }
        Ok(())
    }

    /// Ends the log at the current place, unless something behind it proves that more was synced.
    fn end(&mut self, why: &'static str) -> Result<(), StartError> {
        for at in self.at..self.segments.len() {
            if at > self.at {
                let first = self.first_sequence_of(at)?.filter(|first| *first > self.next_sequence);
                if let Some(first) = first {
                    let witness =
                        format!("{why}, and segment {} begins with frame {first}", self.segments[at].0.0);
                    return Err(self.damaged(self.at, self.offset, &witness));
                }
            }
            let from = if at == self.at { self.offset } else { 0 };
            if let Some((offset, header)) = self.find_witness(at, from)? {
                let witness = format!(
                    "{why}, and frame {} at offset {offset} of segment {} knows that frames up to {} were synced",
                    header.sequence, self.segments[at].0.0, header.synced
                );
                return Err(self.damaged(self.at, self.offset, &witness));
            }
        }
        self.ended = true;
        Ok(())
    }

    /// A valid frame at or after `from` that was written when the frame expected now was synced.
    fn find_witness(
        &mut self,
        at: usize,
        from: u64,
    ) -> Result<Option<(u64, crate::frame::FrameHeader)>, StartError> {
        let (segment, len) = self.segments[at];
        let mut offset = from.next_multiple_of(FRAME_ALIGNMENT as u64);
        while offset < len {
            // A little more than a chunk, so that a header which straddles two is read whole.
            let chunk = read(self.disk, segment, offset, CHUNK_BYTES + FRAME_HEADER_BYTES)?;
            let searched = chunk.len().min(CHUNK_BYTES);
            if searched == 0 {
                break;
            }
            if !is_zero(&chunk[..searched]) {
                for start in (0..searched).step_by(FRAME_ALIGNMENT) {
                    if !has_frame_magic(&chunk[start..]) {
                        continue;
                    }
                    let end = chunk.len().min(start + FRAME_HEADER_BYTES);
                    let Ok(header) = peek_frame_header(&chunk[start..end]) else { continue };
                    let place = offset + start as u64;
                    if header.synced < self.next_sequence || header.frame_len() as u64 > len - place {
                        continue;
                    }
                    let bytes = read(self.disk, segment, place, header.frame_len())?;
                    if let Parsed::Frame(_) = parse_frame(&bytes, &self.place(segment, place)) {
                        return Ok(Some((place, header)));
                    }
                }
            }
            offset += searched as u64;
        }
        Ok(None)
    }

    fn frame_at(&mut self, offset: u64) -> Result<Parsed, StartError> {
        let (segment, len) = self.segments[self.at];
        let place = self.place(segment, offset);
        if offset >= self.chunk_offset && offset <= self.chunk_offset + self.chunk.len() as u64 {
            let start = (offset - self.chunk_offset) as usize;
            match parse_frame(&self.chunk.slice(start..), &place) {
                Parsed::Short(_) => {}
                parsed => return Ok(parsed),
            }
        }
        self.chunk = read(self.disk, segment, offset, CHUNK_BYTES)?;
        self.chunk_offset = offset;
        match parse_frame(&self.chunk, &place) {
            Parsed::Short(needed)
                if needed as u64 <= len.saturating_sub(offset) && needed > self.chunk.len() =>
            {
                let bytes = read(self.disk, segment, offset, needed)?;
                Ok(parse_frame(&bytes, &place))
            }
            parsed => Ok(parsed),
        }
    }

    fn first_sequence_of(&mut self, at: usize) -> Result<Option<u64>, StartError> {
        let (segment, _) = self.segments[at];
        let bytes = read(self.disk, segment, 0, SEGMENT_HEADER_BYTES)?;
        match decode_segment_header(&bytes, &self.identity, segment) {
            Ok(header) => Ok(Some(header.first_sequence)),
            Err(HeaderError::Unreadable) => Ok(None),
            Err(HeaderError::Foreign { what }) => Err(StartError::Foreign {
                what: format!("segment {} of the log is not this member's: {what}", segment.0),
            }),
        }
    }

    fn place(&self, segment: SegmentId, offset: u64) -> Place {
        Place { cluster: self.identity.cluster, node: self.identity.node, segment, offset }
    }

    fn damaged(&self, at: usize, offset: u64, why: &str) -> StartError {
        StartError::Damaged {
            what: format!(
                "the log is damaged in segment {} at offset {offset}, where frame {} should be: {why}. {REMEDY}",
                self.segments[at].0.0, self.next_sequence
            ),
        }
    }
}

const REMEDY: &str = "Records that this member has acknowledged are unreadable, so it must not go on as if they \
     had never been. Restore its data directory from an intact copy of this very member, or remove it from \
     the cluster and add it again with an empty one; the other members hold the data";

fn read<D: Disk>(disk: &mut D, segment: SegmentId, offset: u64, len: usize) -> Result<Bytes, StartError> {
    disk.read(segment, offset, len).map_err(StartError::Disk)
}

/// Overwrites what is not zero, from `from` to the segment's end, and syncs it.
fn clear<D: Disk>(
    disk: &mut D,
    segment: SegmentId,
    from: u64,
    len: u64,
) -> Result<(), crate::disk::DiskFault> {
    let zeros = [0; CLEAR_BYTES];
    let mut dirty = false;
    let mut offset = from;
    while offset < len {
        let chunk = disk.read(segment, offset, CHUNK_BYTES)?;
        if chunk.is_empty() {
            break;
        }
        for (i, piece) in chunk.chunks(CLEAR_BYTES).enumerate() {
            if !is_zero(piece) {
                disk.write(segment, offset + (i * CLEAR_BYTES) as u64, &zeros[..piece.len()])?;
                dirty = true;
            }
        }
        offset += chunk.len() as u64;
    }
    if dirty { disk.sync(segment) } else { Ok(()) }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |or, byte| or | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
