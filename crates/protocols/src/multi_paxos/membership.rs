//! Who counts: the arithmetic of quorums over the acceptors.

use crate::log::{Member, MemberPart};
use crate::types::NodeId;
use alloc::vec::Vec;
use bytes::Bytes;

/// The acceptors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Membership {
    /// In ascending order, without repetition.
    voters: Vec<NodeId>,
}

impl Membership {
    /// The founding members.
    pub(super) fn founding(members: &[NodeId]) -> Membership {
        let mut voters = members.to_vec();
        voters.sort_unstable();
        voters.dedup();
        Membership { voters }
    }

    /// In ascending order.
    pub(super) fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let voter = |id: &_| Member { id: *id, part: MemberPart::Voter, context: Bytes::new() };
        self.voters.iter().map(voter).collect()
    }

    pub(super) fn is_voter(&self, id: NodeId) -> bool {
        self.voters.binary_search(&id).is_ok()
    }

    /// How many acceptors make a quorum.
    pub(super) fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The largest value which a quorum has reached, given one value for every acceptor. Quadratic
    /// in the few that there are, and free of memory.
    pub(super) fn reached<T: Ord + Copy>(&self, values: impl Iterator<Item = T> + Clone) -> Option<T> {
        let quorum = self.quorum();
        let has_quorum = |value: &T| values.clone().filter(|other| other >= value).count() >= quorum;
        values.clone().filter(has_quorum).max()
    }
}
