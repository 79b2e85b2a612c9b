//! The numbers that order proposers, in Paxos and what is made of it.

use crate::log::Epoch;
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire, put_varint};
use alloc::vec::Vec;
use core::fmt;

/// The number of a proposer's attempt. No two proposers share one, because the id breaks ties;
/// and no proposer uses one twice, because its own promise of it is durable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    /// Which attempt.
    pub round: u64,
    /// Whose.
    pub id: NodeId,
}

/// Rounds above this are taken to be garbage; no arithmetic on smaller ones overflows.
pub const ROUND_MAX: u64 = 1 << 40;

/// Members have ids below this, so that a ballot is one number for outsiders.
pub const ID_BOUND: u64 = 1_000_000;

impl Ballot {
    /// Below every ballot that is ever used.
    pub const ZERO: Ballot = Ballot { round: 0, id: NodeId(0) };

    /// The same in the words that the replicated logs share: `round * ID_BOUND + id`, which orders
    /// as ballots do, and of which each has at most one leader.
    pub const fn epoch(self) -> Epoch {
        Epoch(self.round * ID_BOUND + self.id.0)
    }

    /// Whether a proposer can have made it.
    pub fn is_plausible(self) -> bool {
        self.round <= ROUND_MAX && self.id.0 < ID_BOUND && (self.round == 0) == (self.id.0 == 0)
    }
}

impl Wire for Ballot {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.round);
        put_varint(out, self.id.0);
    }

    fn decode(input: &mut Reader) -> Result<Ballot, DecodeError> {
        let ballot = Ballot { round: input.varint("round")?, id: NodeId(input.varint("proposer")?) };
        match ballot.is_plausible() {
            true => Ok(ballot),
            false => Err(DecodeError::Invalid { what: "ballot", value: ballot.round }),
        }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.id)
    }
}
