//! Who counts: the arithmetic of quorums.
//!
//! One place for it, because joint consensus (section 4.3) will make a quorum mean a majority of
//! the old members and a majority of the new ones. Until then the founding members are all there are.

use crate::types::NodeId;
use alloc::vec::Vec;

/// The members whose votes and acknowledgements count.
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

    /// How many voters make a quorum.
    pub(super) fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The largest value which a quorum has reached, given one value for every voter. Quadratic in
    /// the few voters there are, and free of memory.
    pub(super) fn reached<T: Ord + Copy>(&self, values: impl Iterator<Item = T> + Clone) -> Option<T> {
        let quorum = self.quorum();
        let has_quorum = |value: &T| values.clone().filter(|other| other >= value).count() >= quorum;
        values.clone().filter(has_quorum).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_reaches_the_median() {
        let five = Membership::founding(&[NodeId(5), NodeId(1), NodeId(2), NodeId(3), NodeId(4), NodeId(1)]);
        assert_eq!(five.quorum(), 3);
        assert_eq!(five.reached([7, 1, 9, 3, 3].into_iter()), Some(3));
        let four = Membership::founding(&[NodeId(1), NodeId(2), NodeId(3), NodeId(4)]);
        assert_eq!(four.reached([1, 2, 3, 4].into_iter()), Some(2));
        let one = Membership::founding(&[NodeId(1)]);
        assert_eq!(one.reached([8].into_iter()), Some(8));
    }

    #[test]
    fn too_few_values_reach_nothing() {
        let three = Membership::founding(&[NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(three.reached([8].into_iter()), None);
    }
}
