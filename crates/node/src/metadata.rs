//! What the node stores with the state machine, atomically with its data.
//!
//! It is in two parts. The *replicated* one is the same on all members that have applied as much:
//! how far the log is applied, who the members were there, and the sessions; it travels with a
//! snapshot. The member's *own* says where its log begins, which is nobody else's business.

use crate::disk::SegmentId;
use crate::sessions::Sessions;
use bytes::Bytes;
use synod_protocols::log::{Epoch, Index, SnapshotPoint};
use synod_protocols::wire::{put_bytes, put_varint};
use synod_protocols::{DecodeError, Reader};

const METADATA_VERSION: u8 = 2;
const OWN_VERSION: u8 = 1;

/// The replicated part: how far the state has applied the log, and what else is as of there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The last entry applied.
    pub applied: Index,
    /// The epoch of that entry.
    pub epoch: Epoch,
    /// The payload of the last change of members at or before that entry; empty if there was none.
    pub membership: Bytes,
    /// The sessions as of that entry.
    pub sessions: Sessions,
}

impl Metadata {
    /// What the state covers.
    pub fn point(&self) -> SnapshotPoint {
        SnapshotPoint { index: self.applied, epoch: self.epoch, membership: self.membership.clone() }
    }

    /// Becomes a copy of `other`, and keeps its memory.
    pub(crate) fn copy(&mut self, other: &Metadata) {
        (self.applied, self.epoch) = (other.applied, other.epoch);
        self.membership.clone_from(&other.membership);
        self.sessions.copy(&other.sessions);
    }

    /// The encoding, which `docs/formats.md` documents.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode_to(&mut out);
        out.into()
    }

    /// Appends the encoding.
    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        out.reserve(32 + self.membership.len() + self.sessions.encoded_len_max());
        out.push(METADATA_VERSION);
        put_varint(out, self.applied.0);
        put_varint(out, self.epoch.0);
        put_bytes(out, &self.membership);
        self.sessions.encode(out);
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Bytes that [`Metadata::encode`] did not write.
    pub fn decode(bytes: Bytes) -> Result<Metadata, DecodeError> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader, "the metadata's version", METADATA_VERSION)?;
        let SnapshotPoint { index, epoch, membership } = decode_point(&mut reader)?;
        let sessions = Sessions::decode(&mut reader)?;
        check_end(&reader)?;
        Ok(Metadata { applied: index, epoch, membership, sessions })
    }
}

/// A member's own part: where its log begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// The point up to which the log was given up; none if it is whole. The state has always
    /// applied at least that much.
    pub base: Option<SnapshotPoint>,
    /// The first segment that the log needs; ones before it may linger.
    pub first: SegmentId,
}

impl Default for LogStart {
    fn default() -> Self {
        LogStart { base: None, first: SegmentId(1) }
    }
}

impl LogStart {
    /// The encoding, which `docs/formats.md` documents.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![OWN_VERSION];
        put_varint(&mut out, self.first.0);
        match &self.base {
            None => out.push(0),
            Some(point) => {
                out.push(1);
                encode_point(point, &mut out);
            }
        }
        out.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Bytes that [`LogStart::encode`] did not write.
    pub fn decode(bytes: Bytes) -> Result<LogStart, DecodeError> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader, "the version of the log's start", OWN_VERSION)?;
        let first = SegmentId(reader.varint("the first segment")?);
        let base =
            if reader.flag("whether the log was cut")? { Some(decode_point(&mut reader)?) } else { None };
        check_end(&reader)?;
        Ok(LogStart { base, first })
    }
}

pub(crate) fn encode_point(point: &SnapshotPoint, out: &mut Vec<u8>) {
    put_varint(out, point.index.0);
    put_varint(out, point.epoch.0);
    put_bytes(out, &point.membership);
}

pub(crate) fn decode_point(input: &mut Reader) -> Result<SnapshotPoint, DecodeError> {
    Ok(SnapshotPoint {
        index: Index(input.varint("a point's index")?),
        epoch: Epoch(input.varint("a point's epoch")?),
        membership: input.bytes("a point's members")?,
    })
}

fn check_version(reader: &mut Reader, what: &'static str, expected: u8) -> Result<(), DecodeError> {
    match reader.byte(what)? {
        version if version == expected => Ok(()),
        other => Err(DecodeError::Invalid { what, value: u64::from(other) }),
    }
}

fn check_end(reader: &Reader) -> Result<(), DecodeError> {
    match reader.remaining() {
        0 => Ok(()),
        bytes => Err(DecodeError::Trailing { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Sender;
    use synod_protocols::{Incarnation, NodeId};

    fn metadata() -> Metadata {
        let mut metadata = Metadata {
            applied: Index(200),
            epoch: Epoch(7),
            membership: Bytes::from_static(b"abc"),
            ..Metadata::default()
        };
        for (member, incarnation) in [(3, 2), (1, 1)] {
            let incarnation = Incarnation(incarnation);
            metadata.sessions.admit(Sender { member: NodeId(member), incarnation, sequence: 1 });
        }
        metadata
    }

    #[test]
    fn the_bytes_of_the_metadata_never_change() {
        let bytes = metadata().encode();
        assert_eq!(bytes, Bytes::from_static(b"\x02\xc8\x01\x07\x03abc\x02\x01\x01\x01\x03\x02\x01"));
        assert_eq!(Metadata::decode(bytes), Ok(metadata()));
    }

    #[test]
    fn the_bytes_of_a_logs_start_never_change() {
        let whole = LogStart::default();
        assert_eq!(whole.encode(), Bytes::from_static(b"\x01\x01\x00"));
        let cut = LogStart { base: Some(metadata().point()), first: SegmentId(9) };
        assert_eq!(cut.encode(), Bytes::from_static(b"\x01\x09\x01\xc8\x01\x07\x03abc"));
        for start in [whole, cut] {
            let bytes = start.encode();
            assert!((0..bytes.len()).all(|len| LogStart::decode(bytes.slice(..len)).is_err()));
            assert_eq!(LogStart::decode(bytes), Ok(start));
        }
    }

    #[test]
    fn metadata_that_was_cut_short_is_refused() {
        let bytes = metadata().encode();
        for len in 0..bytes.len() {
            assert!(Metadata::decode(bytes.slice(..len)).is_err(), "{len} bytes were taken for the whole");
        }
    }
}
