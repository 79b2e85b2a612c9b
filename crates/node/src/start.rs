//! The start of a member: its log is streamed from disk into the protocol.

use crate::disk::Disk;
use crate::frame::{FrameKind, LogIdentity};
use crate::interface::{Bootstrap, NodeConfig, StartError};
use crate::metadata::{LogStart, Metadata};
use crate::positions::FrameAt;
use crate::recovery::{LogEnd, ScannedFrame, Scanner};
use crate::tape::{Life, RecoveryKind, Tape};
use crate::writer::LogIndex;
use synod_protocols::log::{Index, LogBase, LogConfig, ReplicatedLog};
use synod_protocols::{Effects, Incarnation, Reader, Recovery, Time, Wire};

/// What a member was recovered to.
pub(crate) struct Recovered<P: ReplicatedLog> {
    /// The protocol.
    pub(crate) process: P,
    /// What it wants done at once.
    pub(crate) effects: Effects<P>,
    /// Where the log goes on.
    pub(crate) end: LogEnd,
    /// What it holds, and where.
    pub(crate) index: LogIndex,
    /// The life that begins.
    pub(crate) incarnation: Incarnation,
    /// The recorder, if one is wanted.
    pub(crate) tape: Option<Tape>,
}

/// Recovers the protocol from its log, and leaves the log fit to be continued.
pub(crate) fn recover<P: ReplicatedLog, D: Disk>(
    config: &NodeConfig,
    disk: &mut D,
    metadata: &Metadata,
    start: &LogStart,
    now: Time,
) -> Result<Recovered<P>, StartError> {
    let identity = LogIdentity { cluster: config.cluster, node: config.id, protocol: P::NAME };
    let mut source = Source::<P, D>::new(Scanner::open(disk, identity, start.first)?);
    if let Some(base) = &start.base {
        for segment in source.scanner.leftovers() {
            source.index.segments.push_leftover(*segment, base);
        }
    }
    source.load()?;
    let lived = source.incarnation > Incarnation(0);
    let kind = match config.bootstrap {
        // A life that ended before its first record promised nothing, but may have got its state from
        // a peer.
        _ if source.has_record() || (lived && metadata.applied > Index::ZERO) => RecoveryKind::Resume,
        Bootstrap::Existing if lived => RecoveryKind::Resume,
        Bootstrap::Existing => return Err(StartError::Blank),
        Bootstrap::Found => RecoveryKind::First,
        Bootstrap::Join => RecoveryKind::Join,
    };
    if kind != RecoveryKind::Resume && metadata.applied > Index::ZERO {
        return Err(not_of_one_piece(metadata.applied, Index::ZERO));
    }
    let log_config = LogConfig {
        timing: config.timing,
        limits: config.log,
        priority: config.priority,
        lease: config.lease,
        ..LogConfig::new(config.id, config.members.clone(), config.seed)
    };
    let base = LogBase { applied: metadata.applied, snapshot: start.base.clone() };
    if config.record {
        let life =
            Life { protocol: P::NAME.into(), config: log_config.clone(), base: base.clone(), kind, now };
        source.tape = Some(Tape::new(&life));
    }
    let mut damaged = std::iter::empty();
    let recovery = match kind {
        RecoveryKind::Damaged => Recovery::Damaged { records: &mut damaged },
        RecoveryKind::First => Recovery::First,
        RecoveryKind::Join => Recovery::Join,
        RecoveryKind::Resume => Recovery::Resume { records: &mut source },
    };
    let mut effects = Effects::new();
    let process = P::recover(P::config(log_config), recovery, base, now, &mut effects);
    source.by_ref().for_each(drop);
    if let Some(tape) = &mut source.tape {
        tape.recovered();
    }
    if let Some(error) = source.error {
        return Err(error);
    }
    let last = process.status().last;
    if metadata.applied > last {
        return Err(not_of_one_piece(metadata.applied, last));
    }
    let Source { scanner, index, incarnation, tape, .. } = source;
    let end = scanner.finish()?;
    let incarnation = Incarnation(incarnation.0 + 1);
    Ok(Recovered { process, effects, end, index, incarnation, tape })
}

fn not_of_one_piece(applied: Index, last: Index) -> StartError {
    StartError::Machine(format!(
        "the state machine has applied the log up to entry {applied}, but the log ends with entry {last}: they are not \
         of one piece, as after only one of them was restored from a copy. Restore both from the same copy, or, \
         while the log is whole, empty the state machine's storage, which the log then fills again"
    ))
}

/// The records of a log, in order.
struct Source<'d, P: ReplicatedLog, D> {
    scanner: Scanner<'d, D>,
    /// The frame being read, and what is left of it.
    frame: Option<(ScannedFrame, Reader)>,
    span: Option<(Index, Index)>,
    index: LogIndex,
    incarnation: Incarnation,
    tape: Option<Tape>,
    error: Option<StartError>,
    _protocol: std::marker::PhantomData<P>,
}

impl<'d, P: ReplicatedLog, D: Disk> Source<'d, P, D> {
    fn new(scanner: Scanner<'d, D>) -> Self {
        Source {
            scanner,
            frame: None,
            span: None,
            index: LogIndex::default(),
            incarnation: Incarnation(0),
            tape: None,
            error: None,
            _protocol: std::marker::PhantomData,
        }
    }

    fn has_record(&self) -> bool {
        self.frame.is_some()
    }

    /// Goes on to the next frame with a record that was not read yet.
    fn load(&mut self) -> Result<(), StartError> {
        while self.frame.as_ref().is_none_or(|(_, rest)| rest.remaining() == 0) {
            if let Some((frame, _)) = self.frame.take() {
                let span = self.span.take();
                self.note(&frame, span);
            }
            let Some(found) = self.scanner.next_frame()? else { return Ok(()) };
            match found.frame.kind {
                FrameKind::Started => {
                    self.note_life(&found)?;
                    self.note(&found, None);
                }
                FrameKind::Restated => {
                    self.note_life(&found)?;
                    let rest = Reader::new(found.frame.body.slice(8..));
                    self.frame = Some((found, rest));
                }
                FrameKind::Records => {
                    let rest = Reader::new(found.frame.body.clone());
                    self.frame = Some((found, rest));
                }
                FrameKind::Mark => {}
            }
        }
        Ok(())
    }

    /// A whole frame has been read.
    fn note(&mut self, found: &ScannedFrame, span: Option<(Index, Index)>) {
        let ScannedFrame { frame, segment, offset, len } = found;
        let at = FrameAt { segment: *segment, offset: *offset, len: *len, sequence: frame.sequence, span };
        self.index.segments.add(&at, frame.kind == FrameKind::Restated);
        self.index.positions.add(at);
    }

    fn note_life(&mut self, found: &ScannedFrame) -> Result<(), StartError> {
        let body = found.frame.body.first_chunk::<8>().ok_or_else(|| StartError::Foreign {
            what: format!("frame {} does not say which life it is from", found.frame.sequence),
        })?;
        self.incarnation = self.incarnation.max(Incarnation(u64::from_le_bytes(*body)));
        Ok(())
    }

    fn next_record(&mut self) -> Result<Option<P::Record>, StartError> {
        self.load()?;
        let Some((frame, rest)) = &mut self.frame else { return Ok(None) };
        let record = P::Record::decode(rest).map_err(|why| StartError::Foreign {
            what: format!(
                "a record in frame {} of the log, at offset {} of segment {}, is whole and cannot be understood: {why}. \
                 Was it written by a newer version of this program? Start it with that one",
                frame.frame.sequence, frame.offset, frame.segment.0
            ),
        })?;
        if let Some((first, last)) = P::span(&record) {
            self.span = Some(self.span.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
            self.index.last_position = last;
        }
        if let Some(tape) = &mut self.tape {
            tape.record(&record);
        }
        Ok(Some(record))
    }
}

impl<P: ReplicatedLog, D: Disk> Iterator for Source<'_, P, D> {
    type Item = P::Record;

    fn next(&mut self) -> Option<P::Record> {
        if self.error.is_some() {
            return None;
        }
        self.next_record().unwrap_or_else(|error| {
            self.error = Some(error);
            None
        })
    }
}
