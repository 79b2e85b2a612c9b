//! Older log entries that the protocol asks for: read from disk, checked, and handed back.

use crate::disk::{DiskCommand, DiskFault, SegmentId};
use crate::frame::{FrameKind, Parsed, parse_frame};
use crate::positions::Run;
use crate::writer::Writer;
use bytes::Bytes;
use synod_protocols::log::{Index, ReplicatedLog, Ticket};
use synod_protocols::{Reader, Wire};

/// Neighbouring runs are read together up to this many bytes.
const EXTENT_BYTES_MAX: usize = 1 << 20;

/// What the protocol asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The first position wanted.
    pub(crate) from: Index,
    /// The last position wanted.
    pub(crate) to: Index,
    /// Enough.
    pub(crate) bytes_max: usize,
}

/// A piece of a segment that is read at once.
#[derive(Clone, Copy, Debug)]
struct Extent {
    segment: SegmentId,
    offset: u64,
    len: usize,
    first_sequence: u64,
    last_sequence: u64,
}

/// An ask whose reads are under way.
#[derive(Debug)]
struct Reading {
    ask: Ask,
    /// [`Writer::replaced`] when the reads were chosen: if it has moved on, they may be stale.
    replaced: u64,
    extents: Vec<(Ticket, Extent, Option<Bytes>)>,
}

/// All asks that are not answered yet; the protocol bounds their number.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    /// For records that are not synced yet.
    waiting: Vec<Ask>,
    reading: Vec<Reading>,
}

/// What came of looking at an ask.
pub(crate) enum Answer<R> {
    /// Its records.
    Records(Ask, Vec<R>),
    /// The disk does not hold what was written to it.
    Corrupt(String),
    /// It was begun again, or is not complete.
    NotYet,
}

impl Asks {
    /// Begins to answer: issues reads, or gives back the ask if the log holds nothing to read for it.
    pub(crate) fn begin(
        &mut self,
        ask: Ask,
        writer: &Writer,
        mut ticket: impl FnMut() -> Ticket,
        disk: &mut Vec<DiskCommand>,
    ) -> Option<Ask> {
        let Some(runs) = writer.select(ask.from, ask.to, ask.bytes_max) else {
            if writer.is_idle() {
                return Some(ask);
            }
            self.waiting.push(ask);
            return None;
        };
        let extents = extents(&runs).into_iter().map(|extent| (ticket(), extent, None)).collect::<Vec<_>>();
        disk.extend(extents.iter().map(|(ticket, extent, _)| DiskCommand::Read {
            ticket: *ticket,
            segment: extent.segment,
            offset: extent.offset,
            len: extent.len,
        }));
        self.reading.push(Reading { ask, replaced: writer.replaced(), extents });
        None
    }

    /// Asks that waited for a sync, to be begun again after one.
    pub(crate) fn take_waiting(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.waiting)
    }

    /// A read is done.
    pub(crate) fn on_read<P: ReplicatedLog>(
        &mut self,
        ticket: Ticket,
        result: Result<Bytes, DiskFault>,
        writer: &Writer,
    ) -> Answer<P::Record> {
        let holds = |reading: &Reading| reading.extents.iter().any(|(own, ..)| *own == ticket);
        let Some(at) = self.reading.iter().position(holds) else { return Answer::NotYet };
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(fault) => return Answer::Corrupt(format!("the log cannot be read back: {fault}")),
        };
        let reading = &mut self.reading[at];
        for (own, _, slot) in &mut reading.extents {
            if *own == ticket {
                *slot = Some(bytes.clone());
            }
        }
        if reading.extents.iter().any(|(_, _, slot)| slot.is_none()) {
            return Answer::NotYet;
        }
        let reading = self.reading.remove(at);
        if reading.replaced != writer.replaced() {
            // Records that were replaced meanwhile must not be served.
            self.waiting.push(reading.ask);
            return Answer::NotYet;
        }
        match decode::<P>(&reading, writer) {
            Ok(records) => Answer::Records(reading.ask, records),
            Err(why) => Answer::Corrupt(why),
        }
    }
}

fn extents(runs: &[Run]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for run in runs {
        match extents.last_mut() {
            Some(extent)
                if extent.segment == run.segment
                    && extent.offset + extent.len as u64 == run.offset
                    && extent.len + run.len <= EXTENT_BYTES_MAX =>
            {
                extent.len += run.len;
                extent.last_sequence = run.last_sequence;
            }
            _ => extents.push(Extent {
                segment: run.segment,
                offset: run.offset,
                len: run.len,
                first_sequence: run.first_sequence,
                last_sequence: run.last_sequence,
            }),
        }
    }
    extents
}

/// The records that hold the positions asked for, without the ones that later ones replaced.
fn decode<P: ReplicatedLog>(reading: &Reading, writer: &Writer) -> Result<Vec<P::Record>, String> {
    let Ask { from, to, bytes_max } = reading.ask;
    let mut found: Vec<(Index, Index, usize, P::Record)> = Vec::new();
    for (_, extent, bytes) in &reading.extents {
        let mut rest = bytes.clone().expect("the reading is complete");
        let mut offset = extent.offset;
        for sequence in extent.first_sequence..=extent.last_sequence {
            let damaged = |why: &str| {
                format!(
                    "segment {} of the log is corrupt at offset {offset}, where frame {sequence} was written and \
                     synced: {why}. The disk does not keep what it was given; stop using it",
                    extent.segment.0
                )
            };
            let frame = match parse_frame(&rest, &writer.place(extent.segment, offset)) {
                Parsed::Frame(frame) if frame.sequence == sequence => frame,
                Parsed::Frame(_) => return Err(damaged("another frame stands there")),
                Parsed::Short(_) => return Err(damaged("it is cut off")),
                Parsed::Bad(why) => return Err(damaged(why)),
            };
            let len = crate::frame::frame_len(frame.body.len());
            if frame.kind == FrameKind::Records {
                let mut reader = Reader::new(frame.body);
                while reader.remaining() > 0 {
                    let before = reader.remaining();
                    let record = P::Record::decode(&mut reader).map_err(|why| damaged(&why.to_string()))?;
                    if let Some((first, last)) = P::span(&record) {
                        while found.last().is_some_and(|(earlier, ..)| *earlier >= first) {
                            found.pop();
                        }
                        found.push((first, last, before - reader.remaining(), record));
                    }
                }
            }
            rest = rest.slice(len..);
            offset += len as u64;
        }
    }
    let start = found.partition_point(|(_, last, ..)| *last < from);
    let mut end = start;
    let mut bytes = 0;
    while let Some((first, last, len, _)) = found.get(end) {
        // A record which the next one replaces in part never goes without it.
        let whole = end == start || found[end - 1].1 < *first;
        if whole && end > start && (bytes >= bytes_max || *first > to) {
            break;
        }
        debug_assert!(first <= last, "a record's span is backwards");
        bytes += len;
        end += 1;
    }
    let records: Vec<_> = found.drain(start..end).collect();
    let holds_from = records.first().is_some_and(|(first, ..)| *first <= from);
    Ok(if holds_from { records.into_iter().map(|(.., record)| record).collect() } else { Vec::new() })
}
