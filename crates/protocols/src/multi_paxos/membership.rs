//! Who counts, slot by slot: the window of α slots.
//!
//! A change of members is a value like any other, and governs from α slots after its own on (*Paxos
//! Made Simple*, section 3: "the state after executing command i specifies who executes instance
//! i + α"). So that a proposer knows who the acceptors of a slot are, it proposes there only when
//! everything up to α slots before it is chosen. Hence what is chosen determines the configuration of
//! every slot that may be open: no configuration is ever taken back, and each slot is an instance of
//! Paxos with one set of acceptors.
//!
//! An entry of membership says all that a member needs to know: which configurations govern from its
//! own slot on, the old one and the new one, and from where. That is also how a snapshot that ends
//! within the window says it.

use crate::log::{Index, Member, MemberPart, SnapshotPoint};
use crate::membership::Configuration;
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire, put_list, put_varint};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

/// A configuration, and the first slot that it governs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stage {
    from: Index,
    configuration: Configuration,
}

/// What has come into effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    Nothing,
    /// A configuration with the same voters.
    Learners,
    /// A configuration with other voters.
    Voters,
}

/// The configurations of all slots that may be open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Membership {
    alpha: u64,
    /// Ascending, never empty. The first governs the first open slot.
    stages: Vec<Stage>,
}

impl Membership {
    /// A log without an entry of membership. A member that joins knows nothing.
    pub(super) fn first(founders: &[NodeId], joined: bool, alpha: u64) -> Membership {
        let configuration = match joined {
            true => Configuration::unknown(),
            false => Configuration::founding(founders),
        };
        Membership { alpha, stages: vec![Stage { from: Index::ZERO, configuration }] }
    }

    /// What governs after a point of the log; none if that cannot be read.
    pub(super) fn after(
        point: &SnapshotPoint,
        founders: &[NodeId],
        joined: bool,
        alpha: u64,
    ) -> Option<Membership> {
        if point.membership.is_empty() {
            return Some(Membership::first(founders, joined, alpha));
        }
        let stages = Stages::from_bytes(point.membership.clone()).ok()?.0;
        let mut membership = Membership { alpha, stages };
        membership.advance(point.index);
        Some(membership)
    }

    /// What governs the first open slot.
    pub(super) fn current(&self) -> &Configuration {
        &self.stages[0].configuration
    }

    /// What will govern once the window has passed all that is chosen.
    pub(super) fn last(&self) -> &Configuration {
        &self.stages[self.stages.len() - 1].configuration
    }

    /// The first slot that is governed by a configuration which is chosen and not in effect yet.
    pub(super) fn pending(&self) -> Option<Index> {
        self.stages.get(1..)?.last().map(|stage| stage.from)
    }

    /// What governs a slot that may be open, and the last slot that it governs, if there is one.
    pub(super) fn governing(&self, slot: Index) -> (&Configuration, Option<Index>) {
        let after = self.stages.partition_point(|stage| stage.from <= slot).max(1);
        let end = self.stages.get(after).map(|stage| stage.from.previous());
        (&self.stages[after - 1].configuration, end)
    }

    /// The last slot that may be open while everything up to `chosen` is chosen.
    pub(super) fn window_end(&self, chosen: Index) -> Index {
        Index(chosen.0.saturating_add(self.alpha))
    }

    /// The configuration in effect. Who will be a member by a later one is shown as a learner: it
    /// receives the log already.
    pub(super) fn members(&self) -> Vec<Member> {
        let mut members = self.current().members().to_vec();
        for stage in &self.stages[1..] {
            for member in stage.configuration.members() {
                if !members.iter().any(|known| known.id == member.id) {
                    let part = MemberPart::Learner { promote: member.part != LEARNER };
                    members.push(Member { part, ..member.clone() });
                }
            }
        }
        members.sort_unstable_by_key(|member| member.id);
        members
    }

    /// Everybody who is in a configuration of the window, in ascending order.
    pub(super) fn everybody(&self) -> Vec<NodeId> {
        self.members().into_iter().map(|member| member.id).collect()
    }

    /// Whether a configuration of the window counts it.
    pub(super) fn is_voter(&self, id: NodeId) -> bool {
        self.stages.iter().any(|stage| stage.configuration.is_voter(id))
    }

    /// Whether it is known to have been let go. (An id above all that are known may have been added
    /// since.)
    pub(super) fn excludes(&self, id: NodeId) -> bool {
        let lists = |stage: &Stage| stage.configuration.part(id).is_some();
        id == NodeId(0) || id <= self.last().highest() && !self.stages.iter().any(lists)
    }

    /// Whether the members for which it holds are a quorum of every configuration in the window.
    pub(super) fn has_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        self.stages.iter().all(|stage| stage.configuration.has_quorum(&holds))
    }

    /// The largest value that a quorum of every configuration in the window has reached.
    pub(super) fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> Option<T>) -> Option<T> {
        let reached = self.stages.iter().map(|stage| stage.configuration.reached(&value));
        reached.min().flatten()
    }

    /// What to propose at `slot`, so that `next` governs from α slots after it on.
    pub(super) fn change(&self, slot: Index, next: Configuration) -> Bytes {
        let mut stages = self.stages.clone();
        stages.push(Stage { from: self.window_end(slot), configuration: next });
        Stages(stages).to_bytes()
    }

    /// An entry of membership is chosen at `slot`. Returns false if it is none that a member with the
    /// same α can have proposed; then it changes nothing.
    pub(super) fn note(&mut self, slot: Index, entry: &Bytes) -> bool {
        let Ok(Stages(stages)) = Stages::from_bytes(entry.clone()) else { return false };
        let fits = stages.last().is_some_and(|stage| stage.from == self.window_end(slot));
        if fits {
            self.stages = stages;
        }
        fits
    }

    /// An entry of membership may be chosen at an open slot.
    pub(super) fn consider(&mut self, entry: &Bytes) {
        let Ok(Stages(stages)) = Stages::from_bytes(entry.clone()) else { return };
        for stage in stages {
            if !self.stages.contains(&stage) {
                self.stages.push(stage);
            }
        }
        self.stages.sort_by_key(|stage| stage.from);
    }

    /// Everything up to `chosen` is chosen. Returns what that has put into effect.
    pub(super) fn advance(&mut self, chosen: Index) -> Advance {
        let open = chosen.next();
        let begun = self.stages.iter().filter(|stage| stage.from <= open).count();
        let passed: Vec<Stage> = self.stages.drain(..begun.saturating_sub(1)).collect();
        match passed.iter().any(|stage| !stage.configuration.voters().eq(self.current().voters())) {
            _ if passed.is_empty() => Advance::Nothing,
            true => Advance::Voters,
            false => Advance::Learners,
        }
    }
}

const LEARNER: MemberPart = MemberPart::Learner { promote: false };

/// An entry of membership: what governs from its slot on, the last of it from α slots later on.
struct Stages(Vec<Stage>);

impl Wire for Stages {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.0, |stage, out| {
            put_varint(out, stage.from.0);
            stage.configuration.encode(out);
        });
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let mut before = None;
        let stages = input.list("configurations", |input| {
            let from = Index(input.varint("first slot governed")?);
            if before.is_some_and(|before| from <= before) {
                return Err(DecodeError::Invalid { what: "first slot governed", value: from.0 });
            }
            before = Some(from);
            Ok(Stage { from, configuration: Configuration::decode(input)? })
        })?;
        match stages.is_empty() {
            true => Err(DecodeError::Invalid { what: "number of configurations", value: 0 }),
            false => Ok(Stages(stages)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn changed() -> (Membership, Bytes) {
        let mut membership = Membership::first(&ids(&[1, 2, 3]), false, 4);
        let entry = membership.change(Index(6), Configuration::founding(&ids(&[4, 5, 6])));
        assert!(membership.note(Index(6), &entry));
        (membership, entry)
    }

    #[test]
    fn a_change_governs_from_the_end_of_its_window_on() {
        let (mut membership, _) = changed();
        assert_eq!(membership.governing(Index(9)).1, Some(Index(9)));
        assert!(membership.governing(Index(9)).0.is_voter(NodeId(1)));
        assert!(membership.governing(Index(10)).0.is_voter(NodeId(4)));
        assert_eq!((membership.advance(Index(8)), membership.pending()), (Advance::Nothing, Some(Index(10))));
        assert_eq!((membership.advance(Index(9)), membership.pending()), (Advance::Voters, None));
        assert!(membership.excludes(NodeId(1)) && !membership.excludes(NodeId(7)));
    }

    #[test]
    fn within_the_window_a_quorum_of_each_configuration_is_needed() {
        let (membership, _) = changed();
        assert!(!membership.has_quorum(|id| id.0 <= 3) && !membership.has_quorum(|id| id.0 > 3));
        assert!(membership.has_quorum(|id| [1, 3, 4, 6].contains(&id.0)));
        assert_eq!(membership.reached(|id| Some(id.0)), Some(2));
    }

    #[test]
    fn a_snapshot_within_the_window_knows_both_configurations() {
        let (membership, entry) = changed();
        let point =
            |index| SnapshotPoint { index: Index(index), membership: entry.clone(), ..Default::default() };
        let after = |index| Membership::after(&point(index), &ids(&[1, 2, 3]), true, 4).expect("readable");
        assert_eq!(after(6), membership);
        assert_eq!(after(9).members().len(), 3);
        assert!(after(9).current().is_voter(NodeId(4)));
    }

    #[test]
    fn an_entry_of_another_window_is_refused() {
        let (mut membership, entry) = changed();
        assert!(!membership.note(Index(7), &entry));
        assert!(!membership.note(Index(6), &Bytes::from_static(&[0])));
    }
}
