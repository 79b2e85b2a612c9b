//! The flight recorder: every input of one life of the protocol, so that the life can be run again.
//!
//! A tape begins with what the process was recovered from and goes on with its inputs. Since a
//! process is deterministic, that is all there is to know. The layout stands in `docs/formats.md`.
//! A tape whose end was lost in a crash is read up to there.

use crate::changes::{decode_membership_change, encode_membership_change};
use crate::metadata::{decode_point, encode_point};
use bytes::Bytes;
use std::fmt;
use std::time::Duration;
use synod_protocols::log::{
    Index, Lease, LogAnswer, LogBase, LogConfig, LogLimits, LogRequest, ReplicatedLog, Ticket, Timing,
};
use synod_protocols::wire::{put_bytes, put_list, put_varint};
use synod_protocols::{
    DecodeError, Effects, Input, LinkSession, NodeId, Reader as Cursor, Recovery, StorageFault, Time, Wire,
};

/// What a tape starts with.
const MAGIC: &[u8; 8] = b"SYNODTAP";
/// The version of the layout that this code reads and writes.
pub const TAPE_VERSION: u8 = 3;

const RECORD: u8 = 0;
const RECOVERED: u8 = 1;
const INPUT: u8 = 2;
const LOST: u8 = 3;

/// What a process was recovered from, its records apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The protocol, as [`ReplicatedLog::NAME`] has it.
    pub protocol: String,
    /// What the process was configured with.
    pub config: LogConfig,
    /// What the host's durable state covered.
    pub base: LogBase,
    /// How the process came to be.
    pub kind: RecoveryKind,
    /// When.
    pub now: Time,
}

/// A [`Recovery`] without its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryKind {
    /// [`Recovery::First`].
    First,
    /// [`Recovery::Join`].
    Join,
    /// [`Recovery::Resume`].
    Resume,
    /// [`Recovery::Damaged`].
    Damaged,
}

/// The recorder.
#[derive(Debug)]
pub struct Tape {
    out: Vec<u8>,
    item: Vec<u8>,
    last: Time,
}

impl Tape {
    /// A tape of the life that begins now.
    pub fn new(life: &Life) -> Tape {
        let mut tape = Tape { out: MAGIC.to_vec(), item: Vec::new(), last: life.now };
        tape.out.push(TAPE_VERSION);
        encode_life(life, &mut tape.item);
        tape.end_item();
        tape
    }

    /// Adds a record that the process was recovered from.
    pub fn record(&mut self, record: &impl Wire) {
        self.item.push(RECORD);
        record.encode(&mut self.item);
        self.end_item();
    }

    /// Records that the process was to be recovered from are lost here.
    pub fn lost(&mut self) {
        self.item.push(LOST);
        self.end_item();
    }

    /// There were no more records.
    pub fn recovered(&mut self) {
        self.item.push(RECOVERED);
        self.end_item();
    }

    /// Adds an input.
    pub fn input<P: ReplicatedLog>(&mut self, now: Time, input: &Input<P>) {
        self.item.push(INPUT);
        put_varint(&mut self.item, now.0.saturating_sub(self.last.0));
        self.last = now;
        encode_input(input, &mut self.item);
        self.end_item();
    }

    /// Moves what was recorded since the last time to the end of `out`.
    pub fn drain_into(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }

    fn end_item(&mut self) {
        put_bytes(&mut self.out, &self.item);
        self.item.clear();
    }
}

/// Why a tape cannot be played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapeError {
    /// These bytes are not a tape.
    NotATape,
    /// It was made by another version of this program.
    Version(u8),
    /// It was made with another protocol.
    Protocol {
        /// The protocol of the one who reads.
        expected: &'static str,
        /// The protocol on the tape.
        found: String,
    },
    /// An item does not decode.
    Corrupt {
        /// Which item, from 0.
        item: u64,
        /// What is wrong with it.
        why: DecodeError,
    },
}

impl fmt::Display for TapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TapeError::NotATape => {
                write!(f, "this is not a flight recording: its first bytes are not {MAGIC:?}")
            }
            TapeError::Version(version) => write!(
                f,
                "the recording's format is version {version}, and this program reads version {TAPE_VERSION}: use \
                 the version of the program that made it"
            ),
            TapeError::Protocol { expected, found } => {
                write!(f, "the recording is of the protocol {found:?}, not of {expected:?}")
            }
            TapeError::Corrupt { item, why } => write!(f, "item {item} of the recording is corrupt: {why}"),
        }
    }
}

impl std::error::Error for TapeError {}

/// Reads a tape: its life, its records, then its inputs.
#[derive(Debug)]
pub struct Reader {
    life: Life,
    rest: Cursor,
    items: u64,
}

impl Reader {
    /// Reads the beginning.
    ///
    /// # Errors
    /// Bytes that are not a tape of this version.
    pub fn open(tape: Bytes) -> Result<Reader, TapeError> {
        if !tape.starts_with(MAGIC) || tape.len() == MAGIC.len() {
            return Err(TapeError::NotATape);
        }
        if tape[MAGIC.len()] != TAPE_VERSION {
            return Err(TapeError::Version(tape[MAGIC.len()]));
        }
        let mut rest = Cursor::new(tape.slice(MAGIC.len() + 1..));
        let corrupt = |why| TapeError::Corrupt { item: 0, why };
        let mut item = Cursor::new(rest.bytes("the life").map_err(corrupt)?);
        let life = decode_life(&mut item).map_err(corrupt)?;
        Ok(Reader { life, rest, items: 0 })
    }

    /// What the process was recovered from.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// The next record that the process was recovered from, `Some(None)` where records were lost;
    /// none after the last.
    ///
    /// # Errors
    /// [`TapeError::Corrupt`].
    pub fn next_record<P: ReplicatedLog>(&mut self) -> Result<Option<Option<P::Record>>, TapeError> {
        let Some(mut item) = self.next_item() else { return Ok(None) };
        let read = match item.byte("an item's kind") {
            Ok(RECORD) => P::Record::decode(&mut item).map(|record| Some(Some(record))),
            Ok(LOST) => Ok(Some(None)),
            Ok(RECOVERED) => Ok(None),
            Ok(other) => Err(DecodeError::Invalid { what: "an item's kind", value: u64::from(other) }),
            Err(why) => Err(why),
        };
        read.map_err(|why| TapeError::Corrupt { item: self.items, why })
    }

    /// The next input; none at the end. To be called when [`Reader::next_record`] gave none.
    ///
    /// # Errors
    /// [`TapeError::Corrupt`].
    pub fn next_input<P: ReplicatedLog>(&mut self) -> Result<Option<(Time, Input<P>)>, TapeError> {
        let Some(mut item) = self.next_item() else { return Ok(None) };
        let read = match item.byte("an item's kind") {
            Ok(INPUT) => item.varint("a time").and_then(|since| {
                self.life.now = Time(self.life.now.0.saturating_add(since));
                Ok(Some((self.life.now, decode_input(&mut item)?)))
            }),
            Ok(other) => Err(DecodeError::Invalid { what: "an item's kind", value: u64::from(other) }),
            Err(why) => Err(why),
        };
        read.map_err(|why| TapeError::Corrupt { item: self.items, why })
    }

    /// The next whole item.
    fn next_item(&mut self) -> Option<Cursor> {
        let mut rest = self.rest.clone();
        let item = rest.bytes("an item").ok()?;
        self.rest = rest;
        self.items += 1;
        Some(Cursor::new(item))
    }
}

/// Runs the life on a tape again. `visit` is called once after recovery, without an input, and then
/// after every input, with what it was, what the process did, and the process as it then stood.
/// Gives the number of inputs.
///
/// # Errors
/// A tape that cannot be read, or of another protocol.
pub fn replay<P: ReplicatedLog>(
    tape: Bytes,
    mut visit: impl FnMut(Time, Option<&Input<P>>, &Effects<P>, &P),
) -> Result<u64, TapeError> {
    let mut reader = Reader::open(tape)?;
    let life = reader.life().clone();
    if life.protocol != P::NAME {
        return Err(TapeError::Protocol { expected: P::NAME, found: life.protocol });
    }
    let mut error = None;
    let mut ended = false;
    let mut records = std::iter::from_fn(|| {
        if ended {
            return None;
        }
        let record = reader.next_record::<P>().unwrap_or_else(|why| {
            error = Some(why);
            None
        });
        ended = record.is_none();
        record
    });
    let mut sound = records.by_ref().flatten();
    let recovery = match life.kind {
        RecoveryKind::First => Recovery::First,
        RecoveryKind::Join => Recovery::Join,
        RecoveryKind::Resume => Recovery::Resume { records: &mut sound },
        RecoveryKind::Damaged => Recovery::Damaged { records: &mut records },
    };
    let mut effects = Effects::new();
    let mut process = P::recover(P::config(life.config), recovery, life.base, life.now, &mut effects);
    records.by_ref().for_each(drop);
    if let Some(why) = error {
        return Err(why);
    }
    visit(life.now, None, &effects, &process);
    let mut inputs = 0;
    while let Some((now, input)) = reader.next_input::<P>()? {
        effects.clear();
        process.step(now, input.clone(), &mut effects);
        inputs += 1;
        visit(now, Some(&input), &effects, &process);
    }
    Ok(inputs)
}

fn encode_life(life: &Life, out: &mut Vec<u8>) {
    put_bytes(out, life.protocol.as_bytes());
    put_varint(out, life.config.id.0);
    put_list(out, &life.config.members, |member, out| put_varint(out, member.0));
    let Timing { heartbeat, election } = life.config.timing;
    put_varint(out, u64::try_from(heartbeat.as_nanos()).unwrap_or(u64::MAX));
    put_varint(out, u64::try_from(election.as_nanos()).unwrap_or(u64::MAX));
    let limits = &life.config.limits;
    for limit in [
        limits.message_bytes_max,
        limits.window_bytes_max,
        limits.window_messages_max,
        limits.uncommitted_bytes_max,
        limits.tail_bytes_max,
        limits.reads_max,
        limits.members_max,
        limits.alpha,
    ] {
        put_varint(out, limit as u64);
    }
    put_varint(out, life.config.seed);
    out.push(life.config.priority);
    // A lease always allows for some drift; zero says that there is none.
    put_varint(out, life.config.lease.map_or(0, |lease| u64::from(lease.drift_ppm) + 1));
    put_varint(out, life.base.applied.0);
    match &life.base.snapshot {
        None => out.push(0),
        Some(point) => {
            out.push(1);
            encode_point(point, out);
        }
    }
    out.push(life.kind as u8);
    put_varint(out, life.now.0);
}

fn decode_life(input: &mut Cursor) -> Result<Life, DecodeError> {
    let name = input.bytes("the protocol's name")?;
    let protocol = String::from_utf8_lossy(&name).into_owned();
    let id = NodeId(input.varint("the member")?);
    let members = input.list("the members", |input| Ok(NodeId(input.varint("a member")?)))?;
    let timing = Timing {
        heartbeat: Duration::from_nanos(input.varint("the heartbeat")?),
        election: Duration::from_nanos(input.varint("the election timeout")?),
    };
    let mut limit = || Ok(usize::try_from(input.varint("a limit")?).unwrap_or(usize::MAX));
    let limits = LogLimits {
        message_bytes_max: limit()?,
        window_bytes_max: limit()?,
        window_messages_max: limit()?,
        uncommitted_bytes_max: limit()?,
        tail_bytes_max: limit()?,
        reads_max: limit()?,
        members_max: limit()?,
        alpha: limit()?,
    };
    let seed = input.varint("the seed")?;
    let priority = input.byte("the priority")?;
    let lease = match input.varint("the lease")? {
        0 => None,
        drift => Some(Lease { drift_ppm: u32::try_from(drift - 1).unwrap_or(u32::MAX) }),
    };
    let applied = Index(input.varint("the applied index")?);
    let snapshot = if input.flag("whether there is a snapshot")? { Some(decode_point(input)?) } else { None };
    let kind = match input.byte("the kind of recovery")? {
        0 => RecoveryKind::First,
        1 => RecoveryKind::Join,
        2 => RecoveryKind::Resume,
        3 => RecoveryKind::Damaged,
        other => return Err(DecodeError::Invalid { what: "the kind of recovery", value: u64::from(other) }),
    };
    let now = Time(input.varint("the time of recovery")?);
    let config = LogConfig { id, members, timing, limits, seed, priority, lease };
    Ok(Life { protocol, config, base: LogBase { applied, snapshot }, kind, now })
}

fn encode_input<P: ReplicatedLog>(input: &Input<P>, out: &mut Vec<u8>) {
    match input {
        Input::Message { from, message } => {
            out.push(0);
            put_varint(out, from.0);
            message.encode(out);
        }
        Input::LinkUp { peer, session } => {
            out.push(1);
            put_varint(out, peer.0);
            put_varint(out, session.0);
        }
        Input::LinkDown { peer } => {
            out.push(2);
            put_varint(out, peer.0);
        }
        Input::Request(request) => {
            out.push(3);
            encode_request(request, out);
        }
        Input::Answer(LogAnswer::Entries { from, records }) => {
            out.push(4);
            put_varint(out, from.0);
            put_list(out, records, Wire::encode);
        }
        Input::Answer(LogAnswer::Snapshot { point }) => {
            out.push(8);
            encode_point(point, out);
        }
        Input::StorageFault(StorageFault::Full) => out.push(5),
        Input::StorageFault(StorageFault::Cleared) => out.push(6),
        Input::Timeout => out.push(7),
    }
}

fn decode_input<P: ReplicatedLog>(input: &mut Cursor) -> Result<Input<P>, DecodeError> {
    Ok(match input.byte("an input's kind")? {
        0 => Input::Message { from: NodeId(input.varint("a sender")?), message: P::Message::decode(input)? },
        1 => Input::LinkUp {
            peer: NodeId(input.varint("a peer")?),
            session: LinkSession(input.varint("a session")?),
        },
        2 => Input::LinkDown { peer: NodeId(input.varint("a peer")?) },
        3 => Input::Request(decode_request(input)?),
        4 => Input::Answer(LogAnswer::Entries {
            from: Index(input.varint("a position")?),
            records: input.list("records", P::Record::decode)?,
        }),
        5 => Input::StorageFault(StorageFault::Full),
        6 => Input::StorageFault(StorageFault::Cleared),
        7 => Input::Timeout,
        8 => Input::Answer(LogAnswer::Snapshot { point: decode_point(input)? }),
        other => return Err(DecodeError::Invalid { what: "an input's kind", value: u64::from(other) }),
    })
}

fn encode_request(request: &LogRequest, out: &mut Vec<u8>) {
    match request {
        LogRequest::Propose { ticket, commands } => {
            out.push(0);
            put_varint(out, ticket.0);
            put_list(out, commands, |command, out| put_bytes(out, command));
        }
        LogRequest::Read { ticket } => {
            out.push(1);
            put_varint(out, ticket.0);
        }
        LogRequest::Applied { index } => {
            out.push(2);
            put_varint(out, index.0);
        }
        LogRequest::Compact { point } => {
            out.push(3);
            encode_point(point, out);
        }
        LogRequest::TransferLeadership { ticket, to } => {
            out.push(4);
            put_varint(out, ticket.0);
            // Zero is never a member.
            put_varint(out, to.map_or(0, |to| to.0));
        }
        LogRequest::ChangeMembership { ticket, change } => {
            out.push(5);
            put_varint(out, ticket.0);
            encode_membership_change(change, out);
        }
    }
}

fn decode_request(input: &mut Cursor) -> Result<LogRequest, DecodeError> {
    let kind = input.byte("a request's kind")?;
    if kind == 3 {
        return Ok(LogRequest::Compact { point: decode_point(input)? });
    }
    let word = input.varint("a request's ticket or index")?;
    let (ticket, index) = (Ticket(word), Index(word));
    Ok(match kind {
        0 => LogRequest::Propose {
            ticket,
            commands: input.list("commands", |input| input.bytes("a command"))?,
        },
        1 => LogRequest::Read { ticket },
        2 => LogRequest::Applied { index },
        4 => {
            let to = input.varint("the next leader")?;
            LogRequest::TransferLeadership { ticket, to: (to != 0).then_some(NodeId(to)) }
        }
        5 => LogRequest::ChangeMembership { ticket, change: decode_membership_change(input)? },
        other => return Err(DecodeError::Invalid { what: "a request's kind", value: u64::from(other) }),
    })
}
