//! What members say to each other.

use bytes::Bytes;
use synod_protocols::log::Refusal;
use synod_protocols::{Incarnation, NodeId};

/// A message between two nodes of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage<M> {
    /// The protocol's own.
    Protocol(M),
    /// Commands of the sender's clients, for the leader to propose in this order. They carry
    /// consecutive sequence numbers of the session of this life of the sender, so that a retry
    /// cannot apply twice.
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
