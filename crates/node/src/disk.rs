//! The small interface below the log, and what a node asks of it.
//!
//! The server's implementation works on files; the simulator's loses what was not synced, tears
//! writes, rots bits, stalls, fills up and lies. Calls are synchronous: the server makes them on a
//! thread of their own, the simulator at a moment of its choice.

use bytes::Bytes;
use std::fmt;
use synod_protocols::log::Ticket;

/// A file of the log. Later segments have larger numbers; there are no gaps, but that the first ones
/// are removed once the state covers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// Why the disk did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// There is no room. Nothing was promised, and it may be tried again.
    Full,
    /// Anything else. What a failed write or sync covered is unknown: the member must stop.
    Failed(String),
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskFault::Full => write!(f, "the disk is full"),
            DiskFault::Failed(why) => write!(f, "the disk failed: {why}"),
        }
    }
}

impl std::error::Error for DiskFault {}

/// The files of one member's log.
pub trait Disk {
    /// The segments that exist, in ascending order, with their lengths in bytes.
    fn segments(&mut self) -> Result<Vec<(SegmentId, u64)>, DiskFault>;

    /// `len` bytes from `offset`; fewer at the end of the segment.
    fn read(&mut self, segment: SegmentId, offset: u64, len: usize) -> Result<Bytes, DiskFault>;

    /// A new segment of `bytes` zeros, preallocated: later writes inside it cannot find the disk
    /// full. It exists durably after the next [`Disk::sync`] of it. One that exists already, because
    /// its creation was interrupted or found the disk full, is replaced.
    fn create(&mut self, segment: SegmentId, bytes: u64) -> Result<(), DiskFault>;

    /// Overwrites inside a segment. Durable after the next [`Disk::sync`] of it, and until then
    /// whole, in part or not at all.
    fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> Result<(), DiskFault>;

    /// Makes everything written to the segment durable.
    fn sync(&mut self, segment: SegmentId) -> Result<(), DiskFault>;

    /// Removes a segment, if there is one; durable at some later time. Until then a crash may bring
    /// it back.
    fn remove(&mut self, segment: SegmentId) -> Result<(), DiskFault>;
}

/// What a node asks of its disk. Each is answered by one [`DiskReply`] with its ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskCommand {
    /// Create the segment if `create` gives its size, write, sync. At most one is in flight.
    Append {
        /// Returned with the reply.
        ticket: Ticket,
        /// Which segment.
        segment: SegmentId,
        /// The size of the segment, in bytes, if it is to be created first.
        create: Option<u64>,
        /// Where in the segment.
        offset: u64,
        /// What.
        bytes: Bytes,
        /// Whether to sync; a mark of how far the log is synced need not be.
        sync: bool,
    },
    /// Read.
    Read {
        /// Returned with the reply.
        ticket: Ticket,
        /// Which segment.
        segment: SegmentId,
        /// Where in the segment.
        offset: u64,
        /// How much.
        len: usize,
    },
    /// Remove a segment that the log no longer needs.
    Remove {
        /// Returned with the reply.
        ticket: Ticket,
        /// Which segment.
        segment: SegmentId,
    },
}

/// What came of a [`DiskCommand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskReply {
    /// Of an append.
    Appended {
        /// As asked.
        ticket: Ticket,
        /// Durable, or why not.
        result: Result<(), DiskFault>,
    },
    /// Of a read.
    Read {
        /// As asked.
        ticket: Ticket,
        /// The bytes, or why not.
        result: Result<Bytes, DiskFault>,
    },
    /// Of a removal.
    Removed {
        /// As asked.
        ticket: Ticket,
        /// Removed, or why not.
        result: Result<(), DiskFault>,
    },
}

impl DiskCommand {
    /// Carries the command out, in the one order that every host must keep.
    pub fn execute(self, disk: &mut impl Disk) -> DiskReply {
        match self {
            DiskCommand::Append { ticket, segment, create, offset, bytes, sync } => {
                let result = match create {
                    Some(size) => disk.create(segment, size),
                    None => Ok(()),
                }
                .and_then(|()| disk.write(segment, offset, &bytes))
                .and_then(|()| if sync { disk.sync(segment) } else { Ok(()) });
                DiskReply::Appended { ticket, result }
            }
            DiskCommand::Read { ticket, segment, offset, len } => {
                DiskReply::Read { ticket, result: disk.read(segment, offset, len) }
            }
            DiskCommand::Remove { ticket, segment } => {
                DiskReply::Removed { ticket, result: disk.remove(segment) }
            }
        }
    }
}
