//! Who counts: the arithmetic of quorums.

use crate::types::NodeId;
use alloc::vec::Vec;

/// The members whose promises and acknowledgements count.
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

    pub(super) fn is_voter(&self, id: NodeId) -> bool {
        self.voters.binary_search(&id).is_ok()
    }

    /// Whether those for whom `holds` are a quorum.
    pub(super) fn is_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        2 * self.voters.iter().filter(|id| holds(**id)).count() > self.voters.len()
    }

    /// The largest value which a quorum has reached. Quadratic in the few voters there are, and
    /// free of memory.
    pub(super) fn reached<T: Ord>(&self, value: impl Fn(NodeId) -> T) -> Option<T> {
        let by_quorum = |id: &NodeId| {
            let own = value(*id);
            self.is_quorum(|other| value(other) >= own).then_some(own)
        };
        self.voters.iter().filter_map(by_quorum).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_reaches_the_median() {
        let ids: Vec<_> = [5, 1, 2, 3, 4, 1].map(NodeId).to_vec();
        let five = Membership::founding(&ids);
        assert_eq!(five.reached(|id| [7, 1, 9, 3, 3][id.0 as usize - 1]), Some(3));
        let four = Membership::founding(&ids[1..5]);
        assert_eq!(four.reached(|id| id.0), Some(2));
        assert!(!four.is_quorum(|id| id.0 < 3) && four.is_quorum(|id| id.0 < 4));
        assert_eq!(Membership::founding(&ids[..1]).reached(|_| 8), Some(8));
    }
}
