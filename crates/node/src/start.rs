//! The start of a member: its log is streamed from disk into the protocol.

use crate::disk::Disk;
use crate::frame::{FrameKind, LogIdentity};
use crate::interface::{Bootstrap, NodeConfig, StartError};
use crate::metadata::{LogStart, Metadata};
use crate::positions::FrameAt;
use crate::recovery::{LogEnd, Loss, Scanned, ScannedFrame, Scanner};
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
    /// What is lost of the log, for people.
    pub(crate) losses: Vec<String>,
}

/// Recovers the protocol from its log, and leaves the log fit to be continued.
pub(crate) fn recover<P: ReplicatedLog, D: Disk>(
    config: &NodeConfig,
    disk: &mut D,
    metadata: &Metadata,
    start: &LogStart,
    now: Time,
) -> Result<Recovered<P>, StartError> {
    match try_recover(config, disk, metadata, start, now, false)? {
        Some(recovered) => Ok(recovered),
        // Damage is rare, and shows only where it is met: then all is read once more.
        None => Ok(try_recover(config, disk, metadata, start, now, true)?.expect("damage is expected")),
    }
}

/// As [`recover`]; gives none if there is damage that was not expected.
fn try_recover<P: ReplicatedLog, D: Disk>(
    config: &NodeConfig,
    disk: &mut D,
    metadata: &Metadata,
    start: &LogStart,
    now: Time,
    damaged: bool,
) -> Result<Option<Recovered<P>>, StartError> {
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
        _ if damaged => RecoveryKind::Damaged,
        // A life that ended before its first record promised nothing, but may have got its state from
        // a peer.
        _ if source.has_more() || (lived && metadata.applied > Index::ZERO) => RecoveryKind::Resume,
        Bootstrap::Existing if lived => RecoveryKind::Resume,
        Bootstrap::Existing => return Err(StartError::Blank),
        Bootstrap::Found => RecoveryKind::First,
        Bootstrap::Join => RecoveryKind::Join,
    };
    if matches!(kind, RecoveryKind::First | RecoveryKind::Join) && metadata.applied > Index::ZERO {
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
    let mut effects = Effects::new();
    let process = {
        let mut sound = source.by_ref().map_while(|record| record);
        let recovery = match kind {
            RecoveryKind::First => Recovery::First,
            RecoveryKind::Join => Recovery::Join,
            RecoveryKind::Resume => Recovery::Resume { records: &mut sound },
            RecoveryKind::Damaged => {
                drop(sound);
                Recovery::Damaged { records: &mut source }
            }
        };
        P::recover(P::config(log_config), recovery, base, now, &mut effects)
    };
    source.by_ref().for_each(drop);
    if let Some(tape) = &mut source.tape {
        tape.recovered();
    }
    if let Some(error) = source.error {
        return Err(error);
    }
    if !damaged && !source.losses.is_empty() {
        return Ok(None);
    }
    let last = process.status().last;
    // Of a damaged log the protocol knows what to make.
    if metadata.applied > last && !damaged {
        return Err(not_of_one_piece(metadata.applied, last));
    }
    let Source { scanner, index, incarnation, tape, losses, .. } = source;
    let end = scanner.finish()?;
    let incarnation = Incarnation(incarnation.0 + 1);
    Ok(Some(Recovered { process, effects, end, index, incarnation, tape, losses }))
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
    /// Whether something is lost just behind the frame being read.
    lost: bool,
    losses: Vec<String>,
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
            lost: false,
            losses: Vec::new(),
            tape: None,
            error: None,
            _protocol: std::marker::PhantomData,
        }
    }

    fn has_more(&self) -> bool {
        self.frame.is_some() || self.lost
    }

    /// Goes on to the next frame with a record that was not read yet, or to damage.
    fn load(&mut self) -> Result<(), StartError> {
        while !self.lost && self.frame.as_ref().is_none_or(|(_, rest)| rest.remaining() == 0) {
            if let Some((frame, _)) = self.frame.take() {
                let span = self.span.take();
                self.note(&frame, span);
            }
            let found = match self.scanner.next_frame()? {
                None => return Ok(()),
                Some(Scanned::Frame(found)) => found,
                Some(Scanned::Lost(Loss { what, frames })) => {
                    self.lost = true;
                    self.losses.push(what);
                    // Each of them may have begun a life, and no life's number is used twice.
                    self.incarnation.0 += frames;
                    return Ok(());
                }
            };
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

    fn next_record(&mut self) -> Result<Option<Option<P::Record>>, StartError> {
        self.load()?;
        if std::mem::take(&mut self.lost) {
            if let Some(tape) = &mut self.tape {
                tape.lost();
            }
            return Ok(Some(None));
        }
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
        Ok(Some(Some(record)))
    }
}

impl<P: ReplicatedLog, D: Disk> Iterator for Source<'_, P, D> {
    /// None stands for what is lost.
    type Item = Option<P::Record>;

    fn next(&mut self) -> Option<Option<P::Record>> {
        if self.error.is_some() {
            return None;
        }
        self.next_record().unwrap_or_else(|error| {
            self.error = Some(error);
            None
        })
    }
}
