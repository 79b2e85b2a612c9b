//! What members say to each other.

use crate::changes::{Change, Changed, decode_change, decode_changed, encode_change, encode_changed};
use crate::interface::{ClientError, ClusterId};
use bytes::Bytes;
use synod_protocols::log::{Index, Refusal};
use synod_protocols::wire::{put_bytes, put_list, put_varint};
use synod_protocols::{DecodeError, Describe, Incarnation, NodeId, Reader, Wire};

/// A message between two nodes of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage<M> {
    /// The protocol's own.
    Protocol(M),
    /// Commands of the sender's clients in their envelopes, for the leader to propose in this
    /// order. They carry consecutive sequence numbers of the session of this life of the sender,
    /// so that a retry cannot apply twice.
    Forward {
        /// The sender's life.
        incarnation: Incarnation,
        /// The sequence number of the first command.
        first: u64,
        /// The commands.
        commands: Vec<Bytes>,
    },
    /// The receiver of a [`PeerMessage::Forward`] did not propose it.
    ForwardRefused {
        /// As forwarded.
        incarnation: Incarnation,
        /// As forwarded.
        first: u64,
        /// Why, and where to turn.
        why: Refusal,
    },
    /// The sender wants a part of a snapshot.
    SnapshotRequest(SnapshotRequest),
    /// A part of a snapshot.
    SnapshotPart(SnapshotPart),
    /// There is no such snapshot, or not any more, or not now.
    SnapshotGone {
        /// As asked.
        id: Option<SnapshotId>,
    },
    /// A client of the sender's asks to change the members, or who leads.
    Change {
        /// The sender's life.
        incarnation: Incarnation,
        /// Returned with the reply.
        number: u64,
        /// What.
        change: Change,
    },
    /// What came of a [`PeerMessage::Change`].
    ChangeReply {
        /// As asked.
        incarnation: Incarnation,
        /// As asked.
        number: u64,
        /// Who was added, 0 if nobody was, and who the members are; or why not.
        result: Result<Changed, ClientError>,
    },
}

/// Which of the views that a member keeps for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotId {
    /// The life in which it was opened.
    pub incarnation: Incarnation,
    /// Which one of that life, from 1.
    pub number: u64,
}

/// What is wanted of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Which one; none for the first part of any that will do.
    pub id: Option<SnapshotId>,
    /// What it must cover at the least.
    pub index: Index,
    /// Where the part begins, as the part before it said; empty for the first.
    pub from: Bytes,
    /// The checksum of everything before it; 0 for the first.
    pub checksum: u32,
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// Which one.
    pub id: SnapshotId,
    /// With the first part a [`Manifest`], and else nothing.
    pub manifest: Bytes,
    /// Where it begins, as asked.
    pub from: Bytes,
    /// What the state machine read.
    pub bytes: Bytes,
    /// Where the next part begins; none if this is the last.
    pub next: Option<Bytes>,
    /// The CRC-32 of everything up to and with this part: of each part the manifest, the bytes and
    /// where the next one begins.
    pub checksum: u32,
}

impl SnapshotPart {
    /// What the checksum must be if that of everything before is `before`.
    pub fn checksum_after(&self, before: u32) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(before);
        hasher.update(&self.manifest);
        hasher.update(&self.bytes);
        if let Some(next) = &self.next {
            hasher.update(next);
        }
        hasher.finalize()
    }
}

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The protocol under which the log ran.
    pub protocol: String,
    /// The node's replicated metadata: what is covered, and the sessions.
    pub metadata: Bytes,
}

const MANIFEST_VERSION: u8 = 1;

impl Manifest {
    /// The encoding, which `docs/formats.md` documents.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![MANIFEST_VERSION];
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        put_bytes(&mut out, self.protocol.as_bytes());
        put_bytes(&mut out, &self.metadata);
        out.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Bytes that [`Manifest::encode`] did not write.
    pub fn decode(bytes: Bytes) -> Result<Manifest, DecodeError> {
        let mut input = Reader::new(bytes);
        match input.byte("a manifest's version")? {
            MANIFEST_VERSION => {}
            other => {
                return Err(DecodeError::Invalid { what: "a manifest's version", value: u64::from(other) });
            }
        }
        let mut cluster = [0; 8];
        for byte in &mut cluster {
            *byte = input.byte("a manifest's cluster")?;
        }
        let protocol = input.bytes("a manifest's protocol")?;
        let metadata = input.bytes("a manifest's metadata")?;
        match input.remaining() {
            0 => Ok(Manifest {
                cluster: ClusterId(u64::from_le_bytes(cluster)),
                protocol: String::from_utf8_lossy(&protocol).into_owned(),
                metadata,
            }),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

/// Whom a peer message comes from or goes to.
pub type Peer = NodeId;

const PROTOCOL: u8 = 0;
const FORWARD: u8 = 1;
const FORWARD_REFUSED: u8 = 2;
const SNAPSHOT_REQUEST: u8 = 3;
const SNAPSHOT_PART: u8 = 4;
const SNAPSHOT_GONE: u8 = 5;
const CHANGE: u8 = 6;
const CHANGE_REPLY: u8 = 7;

impl<M: Wire> Wire for PeerMessage<M> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            PeerMessage::Protocol(message) => {
                out.push(PROTOCOL);
                message.encode(out);
            }
            PeerMessage::Forward { incarnation, first, commands } => {
                out.push(FORWARD);
                put_varint(out, incarnation.0);
                put_varint(out, *first);
                put_list(out, commands, |command, out| put_bytes(out, command));
            }
            PeerMessage::ForwardRefused { incarnation, first, why } => {
                out.push(FORWARD_REFUSED);
                put_varint(out, incarnation.0);
                put_varint(out, *first);
                encode_refusal(*why, out);
            }
            PeerMessage::SnapshotRequest(request) => {
                out.push(SNAPSHOT_REQUEST);
                encode_id(request.id, out);
                put_varint(out, request.index.0);
                put_bytes(out, &request.from);
                put_varint(out, u64::from(request.checksum));
            }
            PeerMessage::SnapshotPart(part) => {
                out.push(SNAPSHOT_PART);
                encode_id(Some(part.id), out);
                put_bytes(out, &part.manifest);
                put_bytes(out, &part.from);
                put_bytes(out, &part.bytes);
                out.push(u8::from(part.next.is_some()));
                if let Some(next) = &part.next {
                    put_bytes(out, next);
                }
                put_varint(out, u64::from(part.checksum));
            }
            PeerMessage::SnapshotGone { id } => {
                out.push(SNAPSHOT_GONE);
                encode_id(*id, out);
            }
            PeerMessage::Change { incarnation, number, change } => {
                out.push(CHANGE);
                put_varint(out, incarnation.0);
                put_varint(out, *number);
                encode_change(change, out);
            }
            PeerMessage::ChangeReply { incarnation, number, result } => {
                out.push(CHANGE_REPLY);
                put_varint(out, incarnation.0);
                put_varint(out, *number);
                encode_changed(result, out);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        match input.byte("a peer message's kind")? {
            PROTOCOL => Ok(PeerMessage::Protocol(M::decode(input)?)),
            FORWARD => Ok(PeerMessage::Forward {
                incarnation: Incarnation(input.varint("a forward's incarnation")?),
                first: input.varint("a forward's first sequence number")?,
                commands: input.list("a forward's commands", |input| input.bytes("a command"))?,
            }),
            FORWARD_REFUSED => Ok(PeerMessage::ForwardRefused {
                incarnation: Incarnation(input.varint("a refusal's incarnation")?),
                first: input.varint("a refusal's first sequence number")?,
                why: decode_refusal(input)?,
            }),
            SNAPSHOT_REQUEST => Ok(PeerMessage::SnapshotRequest(SnapshotRequest {
                id: decode_id(input)?,
                index: Index(input.varint("what a snapshot must cover")?),
                from: input.bytes("where a part begins")?,
                checksum: decode_checksum(input)?,
            })),
            SNAPSHOT_PART => Ok(PeerMessage::SnapshotPart(SnapshotPart {
                id: decode_id(input)?
                    .ok_or(DecodeError::Invalid { what: "the number of a snapshot", value: 0 })?,
                manifest: input.bytes("a manifest")?,
                from: input.bytes("where a part begins")?,
                bytes: input.bytes("a part of a snapshot")?,
                next: if input.flag("whether there is a next part")? {
                    Some(input.bytes("where the next part begins")?)
                } else {
                    None
                },
                checksum: decode_checksum(input)?,
            })),
            SNAPSHOT_GONE => Ok(PeerMessage::SnapshotGone { id: decode_id(input)? }),
            CHANGE => Ok(PeerMessage::Change {
                incarnation: Incarnation(input.varint("a change's incarnation")?),
                number: input.varint("a change's number")?,
                change: decode_change(input)?,
            }),
            CHANGE_REPLY => Ok(PeerMessage::ChangeReply {
                incarnation: Incarnation(input.varint("a change's incarnation")?),
                number: input.varint("a change's number")?,
                result: decode_changed(input)?,
            }),
            other => Err(DecodeError::Invalid { what: "a peer message's kind", value: u64::from(other) }),
        }
    }
}

/// Views are numbered from 1, so that 0 is none.
fn encode_id(id: Option<SnapshotId>, out: &mut Vec<u8>) {
    put_varint(out, id.map_or(0, |id| id.number));
    if let Some(id) = id {
        put_varint(out, id.incarnation.0);
    }
}

fn decode_id(input: &mut Reader) -> Result<Option<SnapshotId>, DecodeError> {
    Ok(match input.varint("the number of a snapshot")? {
        0 => None,
        number => {
            Some(SnapshotId { incarnation: Incarnation(input.varint("a snapshot's incarnation")?), number })
        }
    })
}

fn decode_checksum(input: &mut Reader) -> Result<u32, DecodeError> {
    let value = input.varint("a checksum")?;
    u32::try_from(value).map_err(|_| DecodeError::Invalid { what: "a checksum", value })
}

fn encode_refusal(why: Refusal, out: &mut Vec<u8>) {
    match why {
        Refusal::NotLeader { leader } => {
            out.push(0);
            // Zero is never a member.
            put_varint(out, leader.map_or(0, |leader| leader.0));
        }
        Refusal::Busy => out.push(1),
        Refusal::LeadershipLost => out.push(2),
        Refusal::Storage => out.push(3),
        // Changes of members are never forwarded.
        Refusal::Unsupported | Refusal::Change(_) => out.push(4),
    }
}

fn decode_refusal(input: &mut Reader) -> Result<Refusal, DecodeError> {
    match input.byte("the reason of a refusal")? {
        0 => {
            let leader = input.varint("the leader in a refusal")?;
            Ok(Refusal::NotLeader { leader: (leader != 0).then_some(NodeId(leader)) })
        }
        1 => Ok(Refusal::Busy),
        2 => Ok(Refusal::LeadershipLost),
        3 => Ok(Refusal::Storage),
        4 => Ok(Refusal::Unsupported),
        other => Err(DecodeError::Invalid { what: "the reason of a refusal", value: u64::from(other) }),
    }
}

impl<M: Describe> Describe for PeerMessage<M> {
    fn name(&self) -> &'static str {
        match self {
            PeerMessage::Protocol(message) => message.name(),
            PeerMessage::Forward { .. } => "Forward",
            PeerMessage::ForwardRefused { .. } => "ForwardRefused",
            PeerMessage::SnapshotRequest(_) => "SnapshotRequest",
            PeerMessage::SnapshotPart(_) => "SnapshotPart",
            PeerMessage::SnapshotGone { .. } => "SnapshotGone",
            PeerMessage::Change { .. } => "Change",
            PeerMessage::ChangeReply { .. } => "ChangeReply",
        }
    }

    fn detail(&self) -> String {
        match self {
            PeerMessage::Protocol(message) => message.detail(),
            PeerMessage::Forward { incarnation, first, commands } => {
                let bytes: usize = commands.iter().map(Bytes::len).sum();
                let last = first + (commands.len() as u64).saturating_sub(1);
                format!("life {}, commands {first} to {last}, {bytes} bytes", incarnation.0)
            }
            PeerMessage::ForwardRefused { incarnation, first, why } => {
                format!("life {}, from command {first}: {why:?}", incarnation.0)
            }
            PeerMessage::SnapshotRequest(request) => match request.id {
                None => format!("of any that covers entry {}", request.index),
                Some(id) => format!("of number {}, the next part", id.number),
            },
            PeerMessage::SnapshotPart(part) => {
                let last = if part.next.is_some() { "" } else { ", the last part" };
                format!("of number {}, {} bytes{last}", part.id.number, part.bytes.len())
            }
            PeerMessage::SnapshotGone { id: None } => "there is none that would do".to_owned(),
            PeerMessage::SnapshotGone { id: Some(id) } => format!("number {} is no more", id.number),
            PeerMessage::Change { change, .. } => format!("{change:?}"),
            PeerMessage::ChangeReply { result, .. } => match result {
                Ok((_, members)) => format!("done, {} members", members.len()),
                Err(error) => format!("{error:?}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_manifest_never_change() {
        let manifest = Manifest {
            cluster: ClusterId(0xC1),
            protocol: "raft".to_owned(),
            metadata: Bytes::from_static(b"meta"),
        };
        let bytes = manifest.encode();
        assert_eq!(bytes, Bytes::from_static(b"\x01\xc1\0\0\0\0\0\0\0\x04raft\x04meta"));
        assert!((0..bytes.len()).all(|len| Manifest::decode(bytes.slice(..len)).is_err()));
        assert_eq!(Manifest::decode(bytes), Ok(manifest));
    }

    #[test]
    fn the_checksum_of_a_part_covers_what_is_kept_of_it() {
        let part = SnapshotPart {
            id: SnapshotId { incarnation: Incarnation(1), number: 1 },
            manifest: Bytes::from_static(b"m"),
            from: Bytes::new(),
            bytes: Bytes::from_static(b"bytes"),
            next: Some(Bytes::from_static(b"n")),
            checksum: 0,
        };
        let all = crc32fast::hash(b"mbytesn");
        assert_eq!(part.checksum_after(0), all);
        assert_ne!(SnapshotPart { next: None, ..part }.checksum_after(0), all);
    }
}
