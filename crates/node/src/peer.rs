//! What members say to each other.

use bytes::Bytes;
use synod_protocols::log::Refusal;
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
}

/// Whom a peer message comes from or goes to.
pub type Peer = NodeId;

const PROTOCOL: u8 = 0;
const FORWARD: u8 = 1;
const FORWARD_REFUSED: u8 = 2;

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
            other => Err(DecodeError::Invalid { what: "a peer message's kind", value: u64::from(other) }),
        }
    }
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
        }
    }
}
