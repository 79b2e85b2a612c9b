//! What two members say to each other, in bytes.
//!
//! A connection begins with eight magic bytes from the side that dialled, then carries frames both ways:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the body, little endian, at most [`FRAME_BYTES_MAX`] |
//! | 4 | CRC-32 of kind and body, little endian |
//! | 1 | kind: 0 hello, 1 refusal, 2 message, 3 message that the sender showed to its watchers, 4 message of a weak keyspace, 5 the same, shown |
//! | n | body |
//!
//! The first frame each way is a hello, or a refusal, whose body is a line of text for the operator. A message's
//! body is a `synod_node::PeerMessage` in its wire encoding; that of a weak keyspace is the keyspace's number, then a
//! `synod_protocols::weak::Message`.

use bytes::{Buf, Bytes, BytesMut};
use synod_protocols::wire::{put_bytes, put_list, put_varint};
use synod_protocols::{DecodeError, Incarnation, NodeId, Reader, Wire};

/// What the dialling side sends first: a name, and the version of all that follows.
pub(crate) const MAGIC: [u8; 8] = *b"SYNODP\0\x03";
/// The longest body.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// The longest body before the other side has said who it is.
pub(crate) const HELLO_BYTES_MAX: usize = 16 << 10;

const HEADER_BYTES: usize = 9;
/// Room for reading that is kept free; also the most that is set aside for a body that has not arrived.
const READ_BYTES: usize = 256 << 10;
/// A read into less is not worth its system call.
const READ_BYTES_MIN: usize = 4 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who speaks.
    Hello,
    /// Why not.
    Refusal,
    /// A message.
    Message,
    /// A message that the sender has shown to those who watch it.
    Shown,
    /// A message of a weak keyspace.
    Weak,
    /// The same, and the sender has shown it to those who watch it.
    WeakShown,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        let all = [Kind::Hello, Kind::Refusal, Kind::Message, Kind::Shown, Kind::Weak, Kind::WeakShown];
        all.get(usize::from(byte)).copied()
    }
}

/// Why a connection's bytes make no sense. The connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {len} bytes is above the limit of {max}")]
    TooLong { len: usize, max: usize },
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame's checksum is wrong: something between the members damages data")]
    Checksum,
    #[error("a frame's body is malformed: {0}")]
    Body(DecodeError),
}

/// Appends a frame, its body written by `body`.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES - 1]);
    out.push(kind as u8);
    body(out);
    let len = u32::try_from(out.len() - start - HEADER_BYTES).expect("limits keep messages far below 4 GiB");
    let checksum = crc32fast::hash(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Bytes of a connection on their way to being frames.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: BytesMut,
    body_max: usize,
}

impl FrameBuffer {
    pub(crate) fn new() -> FrameBuffer {
        FrameBuffer { bytes: BytesMut::new(), body_max: HELLO_BYTES_MAX }
    }

    /// From now on bodies may have full length.
    pub(crate) fn trust(&mut self) {
        self.body_max = FRAME_BYTES_MAX;
    }

    /// Where to read to. There is always room.
    pub(crate) fn space(&mut self) -> &mut BytesMut {
        let wanted = match self.header() {
            Some((len, ..)) => (len + HEADER_BYTES).saturating_sub(self.bytes.len()).min(READ_BYTES),
            None => HEADER_BYTES,
        };
        if self.bytes.capacity() - self.bytes.len() < wanted.max(READ_BYTES_MIN) {
            self.bytes.reserve(READ_BYTES);
        }
        &mut self.bytes
    }

    /// The next frame, once all of it is there; its body shares the buffer's memory.
    pub(crate) fn next(&mut self) -> Result<Option<(Kind, Bytes)>, FrameError> {
        let Some((len, checksum, kind)) = self.header() else { return Ok(None) };
        if len > self.body_max {
            return Err(FrameError::TooLong { len, max: self.body_max });
        }
        let known = Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        if self.bytes.len() < HEADER_BYTES + len {
            return Ok(None);
        }
        let mut frame = self.bytes.split_to(HEADER_BYTES + len).freeze();
        frame.advance(HEADER_BYTES - 1);
        if crc32fast::hash(&frame) != checksum {
            return Err(FrameError::Checksum);
        }
        frame.advance(1);
        Ok(Some((known, frame)))
    }

    /// Takes the magic bytes off the front; none while they have not all arrived.
    pub(crate) fn magic(&mut self) -> Option<bool> {
        let prefix = self.bytes.len().min(MAGIC.len());
        if self.bytes[..prefix] != MAGIC[..prefix] {
            return Some(false);
        }
        if prefix < MAGIC.len() {
            return None;
        }
        self.bytes.advance(MAGIC.len());
        Some(true)
    }

    fn header(&self) -> Option<(usize, u32, u8)> {
        let header = self.bytes.get(..HEADER_BYTES)?;
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Some((number(0) as usize, number(4), header[8]))
    }
}

/// Who speaks, and in what it believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The cluster's number.
    pub(crate) cluster: u64,
    /// The cluster's name, for people.
    pub(crate) cluster_name: String,
    /// The speaker.
    pub(crate) from: NodeId,
    /// Whom it wants to speak to.
    pub(crate) to: NodeId,
    /// The speaker's life.
    pub(crate) incarnation: Incarnation,
    /// Which of the speaker's connections in this life.
    pub(crate) connection: u64,
    /// The protocol it runs.
    pub(crate) protocol: String,
    /// The founding members.
    pub(crate) members: Vec<NodeId>,
    /// Where the speaker takes clients, for those who ask who the members are.
    pub(crate) clients: String,
}

impl Hello {
    /// Why the two cannot talk, as a line for the operators of both. `known` says whether the other is a
    /// member, as far as this one knows.
    pub(crate) fn check(&self, theirs: &Hello, known: bool) -> Result<(), String> {
        let who = theirs.from;
        if theirs.cluster != self.cluster {
            return Err(format!(
                "{who} belongs to the cluster {:?}, {} to {:?}: correct `cluster` or the address in `members`",
                theirs.cluster_name, self.from, self.cluster_name
            ));
        }
        if theirs.to != self.from {
            return Err(format!(
                "{who} looks for {} at the address of {}: correct the addresses in `members`",
                theirs.to, self.from
            ));
        }
        if theirs.protocol != self.protocol {
            return Err(format!(
                "{who} runs {}, {} runs {}: configure the same `protocol` on all members",
                theirs.protocol, self.from, self.protocol
            ));
        }
        if theirs.members != self.members {
            return Err(format!(
                "{who} counts the members {}, {} counts {}: configure the same `members` everywhere",
                names(&theirs.members),
                self.from,
                names(&self.members)
            ));
        }
        if who == self.from || !known {
            return Err(format!(
                "{who} is no other member of this cluster, as far as {} knows: it was removed, or has yet to be added \
                 (synod member add), or its `name` is wrong",
                self.from
            ));
        }
        Ok(())
    }
}

fn names(members: &[NodeId]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn text(reader: &mut Reader, what: &'static str) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&reader.bytes(what)?).into_owned())
}

impl Wire for Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.cluster);
        put_bytes(out, self.cluster_name.as_bytes());
        put_varint(out, self.from.0);
        put_varint(out, self.to.0);
        put_varint(out, self.incarnation.0);
        put_varint(out, self.connection);
        put_bytes(out, self.protocol.as_bytes());
        put_list(out, &self.members, |member, out| put_varint(out, member.0));
        put_bytes(out, self.clients.as_bytes());
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Hello {
            cluster: input.varint("cluster")?,
            cluster_name: text(input, "cluster name")?,
            from: NodeId(input.varint("sender")?),
            to: NodeId(input.varint("receiver")?),
            incarnation: Incarnation(input.varint("incarnation")?),
            connection: input.varint("connection")?,
            protocol: text(input, "protocol")?,
            members: input.list("members", |input| Ok(NodeId(input.varint("member")?)))?,
            clients: text(input, "address for clients")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_node::PeerMessage;
    use synod_protocols::log::Refusal;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Note(u64);
    impl Wire for Note {
        fn encode(&self, out: &mut Vec<u8>) {
            put_varint(out, self.0);
        }
        fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
            Ok(Note(input.varint("note")?))
        }
    }

    fn hello() -> Hello {
        Hello {
            cluster: 7,
            cluster_name: "a".into(),
            from: NodeId(2),
            to: NodeId(1),
            incarnation: Incarnation(3),
            connection: 4,
            protocol: "raft".into(),
            members: vec![NodeId(1), NodeId(2), NodeId(3)],
            clients: "c:1".into(),
        }
    }

    fn messages() -> Vec<PeerMessage<Note>> {
        let refused = |why| PeerMessage::ForwardRefused { incarnation: Incarnation(1), first: 300, why };
        vec![
            PeerMessage::Protocol(Note(1 << 40)),
            PeerMessage::Forward {
                incarnation: Incarnation(2),
                first: 9,
                commands: vec![Bytes::from_static(b"one"), Bytes::new()],
            },
            refused(Refusal::NotLeader { leader: Some(NodeId(3)) }),
            refused(Refusal::NotLeader { leader: None }),
            refused(Refusal::Busy),
            refused(Refusal::LeadershipLost),
            refused(Refusal::Storage),
            refused(Refusal::Unsupported),
        ]
    }

    fn feed(buffer: &mut FrameBuffer, bytes: &[u8]) {
        for chunk in bytes.chunks(1000) {
            buffer.space().extend_from_slice(chunk);
        }
    }

    #[test]
    fn messages_survive_the_wire_however_it_cuts_them() {
        let mut bytes = Vec::new();
        for message in messages() {
            put_frame(&mut bytes, Kind::Message, |out| message.encode(out));
        }
        for piece in [1, 2, 7, bytes.len()] {
            let mut buffer = FrameBuffer::new();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(piece) {
                feed(&mut buffer, chunk);
                while let Some((kind, body)) = buffer.next().expect("sound") {
                    assert_eq!(kind, Kind::Message);
                    seen.push(PeerMessage::<Note>::from_bytes(body).expect("sound"));
                }
            }
            assert_eq!(seen, messages());
        }
    }

    #[test]
    fn the_bytes_of_a_hello_and_a_message_are_as_they_were() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, Kind::Hello, |out| hello().encode(out));
        assert_eq!(
            bytes,
            [
                20, 0, 0, 0, 118, 112, 89, 235, 0, 7, 1, b'a', 2, 1, 3, 4, 4, b'r', b'a', b'f', b't', 3, 1,
                2, 3, 3, b'c', b':', b'1'
            ]
        );
        assert_eq!(Hello::from_bytes(Bytes::copy_from_slice(&bytes[9..])), Ok(hello()));
        let kinds = [Kind::Hello, Kind::Refusal, Kind::Message, Kind::Shown, Kind::Weak, Kind::WeakShown];
        assert_eq!(kinds.map(|kind| kind as u8), [0, 1, 2, 3, 4, 5]);
        let mut body = Vec::new();
        messages()[2].encode(&mut body);
        assert_eq!(body, [2, 1, 172, 2, 0, 3]);
    }

    #[test]
    fn a_frame_that_was_changed_in_any_bit_is_refused_or_never_complete() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, Kind::Message, |out| messages()[1].encode(out));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut buffer = FrameBuffer::new();
            feed(&mut buffer, &damaged);
            assert!(!matches!(buffer.next(), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn hostile_bytes_are_refused_and_set_nothing_aside() {
        let mut buffer = FrameBuffer::new();
        feed(&mut buffer, &[0xFF; 9]);
        assert!(matches!(buffer.next(), Err(FrameError::TooLong { max: HELLO_BYTES_MAX, .. })));
        buffer.trust();
        assert!(matches!(buffer.next(), Err(FrameError::TooLong { max: FRAME_BYTES_MAX, .. })));
        let mut buffer = FrameBuffer::new();
        buffer.trust();
        feed(&mut buffer, &[0, 0, 0, 4, 0, 0, 0, 0, 2]);
        assert_eq!(buffer.next(), Ok(None));
        assert!(buffer.space().capacity() <= 2 * READ_BYTES);
        let mut rng = synod_protocols::Rng::new(7);
        for _ in 0..20_000 {
            let len = rng.next() as usize % 40;
            let body: Vec<u8> = (0..len).map(|_| rng.next() as u8 % 8).collect();
            let _ = PeerMessage::<Note>::from_bytes(Bytes::from(body.clone()));
            let _ = Hello::from_bytes(Bytes::from(body));
        }
    }

    #[test]
    fn strangers_are_told_what_differs() {
        let mine = Hello { from: NodeId(1), to: NodeId(2), ..hello() };
        assert_eq!(mine.check(&hello(), true), Ok(()));
        let cases: [(Hello, &str); 5] = [
            (Hello { cluster: 8, cluster_name: "b".into(), ..hello() }, "belongs to the cluster \"b\""),
            (Hello { to: NodeId(3), ..hello() }, "looks for n3 at the address of n1"),
            (Hello { protocol: "zab".into(), ..hello() }, "n2 runs zab, n1 runs raft"),
            (
                Hello { members: vec![NodeId(1), NodeId(2)], ..hello() },
                "counts the members n1, n2, n1 counts n1, n2, n3",
            ),
            (
                Hello { from: NodeId(9), ..hello() },
                "n9 is no other member of this cluster, as far as n1 knows",
            ),
        ];
        for (theirs, expected) in cases {
            let said = mine.check(&theirs, theirs.from.0 < 4).expect_err("a stranger");
            assert!(said.contains(expected), "{said:?} does not say {expected:?}");
        }
    }
}
