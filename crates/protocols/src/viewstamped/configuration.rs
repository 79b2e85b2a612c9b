//! Who the replicas are: quorums, and whose turn it is to be the primary.
//!
//! One place for both, because a reconfiguration (section 7) would change both at once. Until then
//! the founding members are the only configuration there is.

use super::record::ViewNumber;
use crate::types::NodeId;
use alloc::vec::Vec;

/// The configuration: the replicas in the order in which they take their turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Configuration {
    /// In ascending order, without repetition (the paper sorts by address).
    replicas: Vec<NodeId>,
}

impl Configuration {
    pub(super) fn founding(members: &[NodeId]) -> Configuration {
        let mut replicas = members.to_vec();
        replicas.sort_unstable();
        replicas.dedup();
        Configuration { replicas }
    }

    /// In ascending order.
    pub(super) fn replicas(&self) -> &[NodeId] {
        &self.replicas
    }

    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.replicas.binary_search(&id).is_ok()
    }

    /// f + 1 of 2f + 1.
    pub(super) fn quorum(&self) -> usize {
        self.replicas.len() / 2 + 1
    }

    /// The primary of a view: the replicas take turns, and view 1 is the first one's.
    pub(super) fn primary(&self, view: ViewNumber) -> Option<NodeId> {
        let turn = view.0.checked_sub(1)? % (self.replicas.len() as u64).max(1);
        self.replicas.get(turn as usize).copied()
    }

    /// The first view after `view` whose primary is `id`, which is a replica.
    pub(super) fn next_view_of(&self, id: NodeId, view: ViewNumber) -> ViewNumber {
        ViewNumber(view.0 + self.turns_until(id, view))
    }

    /// How many views after `view` it is `id`'s turn: 1 if it is next, and as many as there are
    /// replicas if it has just had its turn or is not a replica.
    pub(super) fn turns_until(&self, id: NodeId, view: ViewNumber) -> u64 {
        let count = (self.replicas.len() as u64).max(1);
        let found = (1..=count).find(|turns| self.primary(ViewNumber(view.0 + turns)) == Some(id));
        found.unwrap_or(count)
    }

    /// The largest value which a quorum has reached, given one value for every replica. Quadratic
    /// in the few replicas there are, and free of memory.
    pub(super) fn reached<T: Ord + Copy>(&self, values: impl Iterator<Item = T> + Clone) -> Option<T> {
        let quorum = self.quorum();
        let has_quorum = |value: &T| values.clone().filter(|other| other >= value).count() >= quorum;
        values.clone().filter(has_quorum).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Configuration {
        Configuration::founding(&[NodeId(3), NodeId(1), NodeId(2), NodeId(1)])
    }

    #[test]
    fn replicas_take_turns() {
        let turns: Vec<_> = (0..5).map(|view| three().primary(ViewNumber(view)).map(|id| id.0)).collect();
        assert_eq!(turns, [None, Some(1), Some(2), Some(3), Some(1)]);
    }

    #[test]
    fn the_next_view_of_a_replica_is_after_the_given_one() {
        assert_eq!(three().next_view_of(NodeId(2), ViewNumber(0)), ViewNumber(2));
        assert_eq!(three().next_view_of(NodeId(2), ViewNumber(2)), ViewNumber(5));
        assert_eq!(three().turns_until(NodeId(3), ViewNumber(2)), 1);
        assert_eq!(three().turns_until(NodeId(9), ViewNumber(2)), 3);
    }

    #[test]
    fn a_quorum_reaches_the_median() {
        assert_eq!(three().reached([7, 1, 9].into_iter()), Some(7));
        assert_eq!(three().reached([7].into_iter()), None);
    }
}
