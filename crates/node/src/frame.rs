//! What a log segment is made of: one header, then frames. Pure code over bytes.
//!
//! A frame's checksum covers where it belongs (cluster, member, segment, offset) as well as what it
//! holds, so that a frame which a disk wrote to the wrong place, or which an earlier use of the same
//! file left behind, is not a frame here. The layouts stand in `docs/formats.md` and are pinned by
//! golden bytes.

use crate::disk::SegmentId;
use crate::node::ClusterId;
use bytes::Bytes;
use synod_protocols::NodeId;

/// The size of a segment's header, in bytes; the first frame follows it.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// The size of a frame's header, in bytes; its body follows, then zeros up to [`FRAME_ALIGNMENT`].
pub const FRAME_HEADER_BYTES: usize = 32;
/// Frames start at multiples of this, in bytes, so that the ones after a bad one can be found.
pub const FRAME_ALIGNMENT: usize = 16;
/// The version of the format that this code reads and writes.
pub const FORMAT_VERSION: u32 = 2;
/// The longest name of a protocol that a header has room for, in bytes.
pub const PROTOCOL_NAME_BYTES_MAX: usize = 16;

const SEGMENT_MAGIC: &[u8; 8] = b"SYNODLOG";
/// `fRAm`. No byte of it is zero, so that zeros are never a frame.
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"fRAm");

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub node: NodeId,
    /// The protocol whose records it holds; at most [`PROTOCOL_NAME_BYTES_MAX`] bytes.
    pub protocol: &'static str,
}

/// The header of a segment that was found to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The sequence number of the segment's first frame. Every frame before it was synced when the
    /// segment was created.
    pub first_sequence: u64,
}

/// Why a segment's header was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// It was never written, was torn, or is corrupt.
    Unreadable,
    /// It is whole, and somebody else's.
    Foreign {
        /// What was expected and what was found.
        what: String,
    },
}

/// Appends a segment's header.
pub fn encode_segment_header(
    out: &mut Vec<u8>,
    identity: &LogIdentity,
    segment: SegmentId,
    first_sequence: u64,
) {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&identity.cluster.0.to_le_bytes());
    header[24..32].copy_from_slice(&identity.node.0.to_le_bytes());
    header[32..40].copy_from_slice(&segment.0.to_le_bytes());
    header[40..48].copy_from_slice(&first_sequence.to_le_bytes());
    header[48..64].copy_from_slice(&protocol_field(identity.protocol));
    let checksum = header_checksum(&header);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&header);
}

/// Reads a segment's header from the first bytes of the segment.
pub fn decode_segment_header(
    bytes: &[u8],
    identity: &LogIdentity,
    segment: SegmentId,
) -> Result<SegmentHeader, HeaderError> {
    let Some(header) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
        return Err(HeaderError::Unreadable);
    };
    if &header[..8] != SEGMENT_MAGIC || le32(header, 12) != header_checksum(header) {
        return Err(HeaderError::Unreadable);
    }
    let foreign = |what: String| Err(HeaderError::Foreign { what });
    let version = le32(header, 8);
    if version != FORMAT_VERSION {
        return foreign(format!(
            "its format is version {version}, and this program reads version {FORMAT_VERSION}: start it with the \
             version of the program that wrote it"
        ));
    }
    let (cluster, node, number) = (le64(header, 16), le64(header, 24), le64(header, 32));
    if cluster != identity.cluster.0 {
        return foreign(format!(
            "it belongs to cluster {cluster:x}, and this member belongs to cluster {:x}",
            identity.cluster.0
        ));
    }
    if node != identity.node.0 {
        return foreign(format!("it belongs to member {node}, and this is member {}", identity.node.0));
    }
    if header[48..64] != protocol_field(identity.protocol) {
        let found = String::from_utf8_lossy(&header[48..64]);
        return foreign(format!(
            "it was written by the protocol {:?}, and this member runs {:?}",
            found.trim_end_matches('\0'),
            identity.protocol
        ));
    }
    if number != segment.0 {
        return foreign(format!(
            "the file of segment {} holds segment {number}: was it renamed or copied?",
            segment.0
        ));
    }
    Ok(SegmentHeader { first_sequence: le64(header, 40) })
}

fn protocol_field(name: &str) -> [u8; PROTOCOL_NAME_BYTES_MAX] {
    assert!(name.len() <= PROTOCOL_NAME_BYTES_MAX, "a segment header has no room for the name {name:?}");
    let mut field = [0; PROTOCOL_NAME_BYTES_MAX];
    field[..name.len()].copy_from_slice(name.as_bytes());
    field
}

fn header_checksum(header: &[u8; SEGMENT_HEADER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..]);
    hasher.finalize()
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FrameKind {
    /// Records of the protocol, one encoding after the other; those of one step share a frame.
    Records = 1,
    /// A life of the member began; the body is its incarnation, eight bytes.
    Started = 2,
    /// Nothing: written without a sync to tell how far the log is synced. It has the sequence
    /// number of the frame that will overwrite it, and does not count.
    Mark = 3,
    /// What no position holds, said again, so that older segments can be dropped: the incarnation,
    /// eight bytes, then one record of the protocol.
    Restated = 4,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<FrameKind> {
        match byte {
            1 => Some(FrameKind::Records),
            2 => Some(FrameKind::Started),
            3 => Some(FrameKind::Mark),
            4 => Some(FrameKind::Restated),
            _ => None,
        }
    }
}

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// Its number; consecutive frames have consecutive numbers, from 1.
    pub sequence: u64,
    /// The last frame that was known to be synced when this one was written.
    pub synced: u64,
    /// What it says.
    pub body: Bytes,
}

/// What stands at a place where a frame could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole frame.
    Frame(Frame),
    /// The start of a frame of which more bytes are needed: this many in all.
    Short(usize),
    /// No frame.
    Bad(&'static str),
}

/// The fields of a frame's header that can be read before its body is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame holds.
    pub kind: FrameKind,
    /// The length of the body, in bytes.
    pub body_len: usize,
    /// The frame's number.
    pub sequence: u64,
    /// The last frame known to be synced.
    pub synced: u64,
}

impl FrameHeader {
    /// The frame's size with its padding, in bytes.
    pub fn frame_len(&self) -> usize {
        frame_len(self.body_len)
    }
}

/// The size of a frame with a body of `body_len` bytes, padding included.
pub fn frame_len(body_len: usize) -> usize {
    (FRAME_HEADER_BYTES + body_len).next_multiple_of(FRAME_ALIGNMENT)
}

/// Whether `bytes` could start a frame: a cheap test before the dear one.
pub fn has_frame_magic(bytes: &[u8]) -> bool {
    bytes.len() >= 4 && le32(bytes, 0) == FRAME_MAGIC
}

/// Reads the header of a frame without checking its checksum.
pub fn peek_frame_header(bytes: &[u8]) -> Result<FrameHeader, &'static str> {
    if !has_frame_magic(bytes) {
        return Err(if bytes.iter().all(|byte| *byte == 0) {
            "there are zeros where a frame should be"
        } else {
            "no frame starts there"
        });
    }
    if bytes.len() < FRAME_HEADER_BYTES {
        return Err("a frame's header is cut off");
    }
    let Some(kind) = FrameKind::from_byte(bytes[12]) else {
        return Err("a frame is of an unknown kind");
    };
    if bytes[13] != 0 || bytes[14..16] != [0, 0] {
        return Err("a frame belongs to an unknown group");
    }
    let (sequence, synced) = (le64(bytes, 16), le64(bytes, 24));
    if sequence <= synced {
        return Err("a frame claims to have been synced before it was written");
    }
    Ok(FrameHeader { kind, body_len: le32(bytes, 4) as usize, sequence, synced })
}

/// Writes the header of a frame whose body stands in place: `frame` is header, body and padding, of
/// which `body_len` bytes are body.
pub fn seal_frame(
    frame: &mut [u8],
    place: &Place,
    kind: FrameKind,
    body_len: usize,
    sequence: u64,
    synced: u64,
) {
    debug_assert_eq!(frame.len(), frame_len(body_len));
    assert!(synced < sequence, "a frame cannot be synced before it is written");
    let len = u32::try_from(body_len).expect("a frame's body is shorter than 4 GiB");
    frame[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    frame[12] = kind as u8;
    frame[13..16].copy_from_slice(&[0; 3]);
    frame[16..24].copy_from_slice(&sequence.to_le_bytes());
    frame[24..32].copy_from_slice(&synced.to_le_bytes());
    let checksum = place.checksum(&frame[..FRAME_HEADER_BYTES + body_len]);
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads the frame that starts `bytes`, which stand at `place`. Bytes after it are ignored.
pub fn parse_frame(bytes: &Bytes, place: &Place) -> Parsed {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Parsed::Short(FRAME_HEADER_BYTES);
    }
    let header = match peek_frame_header(&bytes[..FRAME_HEADER_BYTES]) {
        Ok(header) => header,
        Err(why) => return Parsed::Bad(why),
    };
    if bytes.len() < header.frame_len() {
        return Parsed::Short(header.frame_len());
    }
    let end = FRAME_HEADER_BYTES + header.body_len;
    if le32(bytes, 8) != place.checksum(&bytes[..end]) {
        return Parsed::Bad("a frame's checksum does not match its contents");
    }
    Parsed::Frame(Frame {
        kind: header.kind,
        sequence: header.sequence,
        synced: header.synced,
        body: bytes.slice(FRAME_HEADER_BYTES..end),
    })
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cluster whose log it is.
    pub cluster: ClusterId,
    /// The member whose log it is.
    pub node: NodeId,
    /// The segment.
    pub segment: SegmentId,
    /// Bytes from the segment's start.
    pub offset: u64,
}

impl Place {
    /// The checksum of header and body, the checksum's own field left out.
    fn checksum(&self, frame: &[u8]) -> u32 {
        let mut place = [0; 40];
        place[0..8].copy_from_slice(&self.cluster.0.to_le_bytes());
        place[8..16].copy_from_slice(&self.node.0.to_le_bytes());
        place[16..24].copy_from_slice(&self.segment.0.to_le_bytes());
        place[24..32].copy_from_slice(&self.offset.to_le_bytes());
        place[32..40].copy_from_slice(&frame[..8]);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&place);
        hasher.update(&frame[12..]);
        hasher.finalize()
    }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: LogIdentity = LogIdentity { cluster: ClusterId(0xC1), node: NodeId(3), protocol: "raft" };
    const PLACE: Place =
        Place { cluster: ClusterId(0xC1), node: NodeId(3), segment: SegmentId(7), offset: 64 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; frame_len(body.len())];
        frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + body.len()].copy_from_slice(body);
        seal_frame(&mut frame, &PLACE, FrameKind::Records, body.len(), 9, 8);
        frame
    }

    fn header() -> Vec<u8> {
        let mut out = Vec::new();
        encode_segment_header(&mut out, &IDENTITY, SegmentId(7), 9);
        out
    }

    #[test]
    fn the_bytes_of_a_segment_header_never_change() {
        assert_eq!(
            hex(&header()),
            concat!(
                "53594e4f444c4f47",
                "02000000",
                "5319c7cb",
                "c100000000000000",
                "0300000000000000",
                "0700000000000000",
                "0900000000000000",
                "72616674000000000000000000000000"
            )
        );
    }

    #[test]
    fn the_bytes_of_a_frame_never_change() {
        assert_eq!(
            hex(&frame(b"hello")),
            concat!(
                "6652416d",
                "05000000",
                "775e4332",
                "01",
                "00",
                "0000",
                "0900000000000000",
                "0800000000000000",
                "68656c6c6f",
                "0000000000000000000000"
            )
        );
    }

    #[test]
    fn what_was_written_is_read_back() {
        let read = parse_frame(&Bytes::from(frame(b"hello")), &PLACE);
        let expected =
            Frame { kind: FrameKind::Records, sequence: 9, synced: 8, body: Bytes::from_static(b"hello") };
        assert_eq!(read, Parsed::Frame(expected));
        let header = decode_segment_header(&header(), &IDENTITY, SegmentId(7));
        assert_eq!(header, Ok(SegmentHeader { first_sequence: 9 }));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_but_its_padding_is_noticed() {
        let whole = frame(b"hello");
        for bit in 0..(FRAME_HEADER_BYTES + 5) * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = parse_frame(&Bytes::from(bad), &PLACE);
            assert!(!matches!(read, Parsed::Frame(_)), "bit {bit} was flipped unnoticed");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_noticed() {
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bad = header();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = decode_segment_header(&bad, &IDENTITY, SegmentId(7));
            assert_eq!(read, Err(HeaderError::Unreadable), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_in_another_place_is_no_frame() {
        let bytes = Bytes::from(frame(b"hello"));
        for place in [
            Place { cluster: ClusterId(1), ..PLACE },
            Place { node: NodeId(1), ..PLACE },
            Place { segment: SegmentId(8), ..PLACE },
            Place { offset: 80, ..PLACE },
        ] {
            assert!(matches!(parse_frame(&bytes, &place), Parsed::Bad(_)), "{place:?}");
        }
    }

    #[test]
    fn somebody_elses_header_is_named() {
        let found = header();
        let name = |identity: LogIdentity, segment| match decode_segment_header(&found, &identity, segment) {
            Err(HeaderError::Foreign { what }) => what,
            other => panic!("{other:?}"),
        };
        assert!(name(LogIdentity { cluster: ClusterId(5), ..IDENTITY }, SegmentId(7)).contains("cluster c1"));
        assert!(name(LogIdentity { node: NodeId(4), ..IDENTITY }, SegmentId(7)).contains("member 3"));
        assert!(name(LogIdentity { protocol: "zab", ..IDENTITY }, SegmentId(7)).contains("\"raft\""));
        assert!(name(IDENTITY, SegmentId(6)).contains("segment 7"));
    }
}
