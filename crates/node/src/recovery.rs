//! The recovery scan: what a log on disk holds, where it ends, and whether it is damaged.
//!
//! Frames are read in order. At the first place that holds no valid frame, everything behind it is
//! searched for evidence that the frame which should stand there had been synced: a later frame
//! whose `synced` says so, or a later segment, which is only created when everything before it is.
//! With evidence the log is *damaged*: reading goes on at the next whole frame, and the protocol is told
//! that something is missing there. Without it, what stands there is a write that a crash
//! interrupted and that nobody was ever told of: the log ends there, and the garbage behind it is
//! overwritten with zeros, so that it can never be mistaken for something later.
//!
//! One case cannot be told apart: the very last synced frames, when neither a later frame nor a
//! mark reached the disk after them, look the same whether they were torn or rotted. Marks keep
//! that window to some milliseconds of an idle log.

use crate::disk::{Disk, SegmentId};
use crate::frame::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, HeaderError, LogIdentity, Parsed,
    Place, SEGMENT_HEADER_BYTES, decode_segment_header, has_frame_magic, parse_frame, peek_frame_header,
};
use crate::node::StartError;
use bytes::Bytes;

/// How much of a segment is read at once, in bytes. Records share the memory of what was read, so
/// this also bounds how much one of them keeps alive.
const CHUNK_BYTES: usize = 64 << 10;
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

/// Frames that were synced and are not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where, and what proves that there was something.
    pub what: String,
    /// How many frames at the most.
    pub frames: u64,
}

/// What a scan finds next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// A frame.
    Frame(ScannedFrame),
    /// Damage.
    Lost(Loss),
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
    /// Damage that was found and not reported yet.
    loss: Option<Loss>,
    ended: bool,
}

impl<'d, D: Disk> Scanner<'d, D> {
    /// Begins at the segment `first`. Ones before it are what an interrupted removal left.
    ///
    /// # Errors
    /// [`StartError::Disk`]; [`StartError::Damaged`] where nothing is left to go on with;
    /// [`StartError::Foreign`] where the log is somebody else's.
    pub fn open(disk: &'d mut D, identity: LogIdentity, first: SegmentId) -> Result<Self, StartError> {
        let mut leftovers = disk.segments().map_err(StartError::Disk)?;
        let segments = leftovers.split_off(leftovers.partition_point(|(segment, _)| *segment < first));
        if segments.is_empty() && !leftovers.is_empty() {
            return Err(StartError::Damaged {
                what: format!("segment {} of the log is missing, and all after it. {REMEDY}", first.0),
            });
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
            loss: None,
            ended: false,
        };
        let Some((there, _)) = scanner.segments.first().copied() else {
            scanner.ended = true;
            return Ok(scanner);
        };
        let sequence = scanner.first_sequence_of(0)?;
        if there > first {
            let why = format!(
                "segment {} of the log is missing, though segment {} is there. (Of a log that was cut the state says \
                 where it begins: was the state's storage emptied?)",
                first.0, there.0
            );
            scanner.lose(why)?;
        } else if let Some(sequence) = sequence {
            if first > SegmentId(1) {
                // What came before is gone, and was synced.
                scanner.next_sequence = sequence;
            }
            scanner.leave_to(0, sequence, "the log begins elsewhere")?;
        } else {
            scanner.end("the segment's header is unreadable")?;
        }
        Ok(scanner)
    }

    /// The segments before the first that is read.
    pub fn leftovers(&self) -> &[SegmentId] {
        &self.leftovers
    }

    /// What comes next, marks left out; none at the end of the log.
    ///
    /// # Errors
    /// As [`Scanner::open`].
    pub fn next_frame(&mut self) -> Result<Option<Scanned>, StartError> {
        loop {
            if let Some(loss) = self.loss.take() {
                return Ok(Some(Scanned::Lost(loss)));
            }
            if self.ended {
                return Ok(None);
            }
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
                    return Ok(Some(Scanned::Frame(found)));
                }
                Parsed::Frame(_) => self.leave("a frame is out of sequence")?,
                Parsed::Short(_) => self.leave("a frame is cut off by the end of the segment")?,
                Parsed::Bad(why) => self.leave(why)?,
            }
        }
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

    /// Goes on to the next segment if it continues here, and otherwise ends the log or skips damage.
    fn leave(&mut self, why: &'static str) -> Result<(), StartError> {
        if self.at + 1 < self.segments.len()
            && let Some(first) = self.first_sequence_of(self.at + 1)?
            && first == self.next_sequence
        {
            return self.leave_to(self.at + 1, first, why);
        }
        self.end(why)
    }

    /// Goes on to a segment whose header says with which frame it begins.
    fn leave_to(&mut self, at: usize, first: u64, why: &'static str) -> Result<(), StartError> {
        self.at = at;
        self.mark_end = None;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.chunk = Bytes::new();
        if first == self.next_sequence {
            return Ok(());
        }
        let why = self.place_of_damage(0, &format!("{why}: it starts with frame {first}"));
        self.lose(why)
    }

    /// Ends the log at the current place, unless something behind it proves that more was synced.
    fn end(&mut self, why: &'static str) -> Result<(), StartError> {
        for at in self.at..self.segments.len() {
            let number = self.segments[at].0.0;
            if at > self.at {
                let first = self.first_sequence_of(at)?.filter(|first| *first > self.next_sequence);
                if let Some(first) = first {
                    let witness = format!("{why}, and segment {number} begins with frame {first}");
                    return self.lose(self.place_of_damage(self.offset, &witness));
                }
            }
            let expected = self.next_sequence;
            let from = if at == self.at { self.offset } else { 0 };
            let knows = |header: &FrameHeader| header.synced >= expected;
            if let Some((offset, header)) = self.find_frame(at, from, knows)? {
                let witness = format!(
                    "{why}, and frame {} at offset {offset} of segment {number} knows that frames up to {} were synced",
                    header.sequence, header.synced
                );
                return self.lose(self.place_of_damage(self.offset, &witness));
            }
        }
        self.ended = true;
        Ok(())
    }

    /// Frames that were synced are lost here: reading goes on at the next one that is whole. What is
    /// damaged stays as it is, so that the next start finds the same.
    fn lose(&mut self, what: String) -> Result<(), StartError> {
        let expected = self.next_sequence;
        let mut offset = self.offset;
        for at in self.at..self.segments.len() {
            if at > self.at {
                offset = 0;
            }
            let found = match self.first_sequence_of(at)?.filter(|_| offset == 0) {
                Some(first) if first >= expected => Some((SEGMENT_HEADER_BYTES as u64, first)),
                _ => self
                    .find_frame(at, offset, |header| header.sequence >= expected)?
                    .map(|(offset, header)| (offset, header.sequence)),
            };
            if let Some((offset, sequence)) = found {
                (self.at, self.offset, self.next_sequence) = (at, offset, sequence);
                self.mark_end = None;
                self.chunk = Bytes::new();
                self.loss = Some(Loss { what, frames: (sequence - expected).max(1) });
                return Ok(());
            }
        }
        Err(StartError::Damaged { what: format!("{what}. {REMEDY}") })
    }

    /// The first valid frame at or after `from` whose header is accepted.
    fn find_frame(
        &mut self,
        at: usize,
        from: u64,
        accept: impl Fn(&FrameHeader) -> bool,
    ) -> Result<Option<(u64, FrameHeader)>, StartError> {
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
                    if !accept(&header) || header.frame_len() as u64 > len - place {
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

    fn place_of_damage(&self, offset: u64, why: &str) -> String {
        format!(
            "the log is damaged in segment {} at offset {offset}, where frame {} should be: {why}",
            self.segments[self.at].0.0, self.next_sequence
        )
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
