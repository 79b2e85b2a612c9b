//! Who the replicas are, in which epoch: quorums, and whose turn it is to be the primary.
//!
//! An *epoch* (section 7) is a period with one group of replicas. Learners are no replicas: they come
//! and go within an epoch.

use super::OpNumber;
use super::record::{Entry, EpochNumber, ViewNumber};
use crate::log::{Index, MemberPart, Payload, SnapshotPoint};
use crate::membership;
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire, put_list, put_varint};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What an entry of membership says, whole: the epoch, its group, and everybody who learns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Configuration {
    pub(super) epoch: EpochNumber,
    members: membership::Configuration,
    /// The replicas in the order in which they take their turns: ascending (the paper sorts by address).
    replicas: Vec<NodeId>,
    /// The replicas of the epoch before that are no members of this one.
    replaced: Vec<NodeId>,
}

impl Configuration {
    fn new(epoch: EpochNumber, members: membership::Configuration, replaced: Vec<NodeId>) -> Configuration {
        let replicas = members.voters().collect();
        Configuration { epoch, members, replicas, replaced }
    }

    pub(super) fn founding(members: &[NodeId]) -> Configuration {
        Configuration::new(EpochNumber(0), membership::Configuration::founding(members), Vec::new())
    }

    /// What a joining member knows.
    pub(super) fn unknown() -> Configuration {
        Configuration::new(EpochNumber(0), membership::Configuration::unknown(), Vec::new())
    }

    /// The one that comes after this one, with these members: a change of the replicas begins an
    /// epoch, and is made at once.
    pub(super) fn followed_by(&self, planned: &membership::Configuration) -> Configuration {
        let members = planned.settled();
        if members.voters().eq(self.members.voters()) {
            return Configuration::new(self.epoch, members, self.replaced.clone());
        }
        let left = |id: &NodeId| members.part(*id).is_none();
        let replaced = self.replicas.iter().copied().filter(left).collect();
        Configuration::new(EpochNumber(self.epoch.0 + 1), members, replaced)
    }

    pub(super) fn members(&self) -> &membership::Configuration {
        &self.members
    }

    pub(super) fn part(&self, id: NodeId) -> Option<MemberPart> {
        self.members.part(id)
    }

    /// In ascending order.
    pub(super) fn replicas(&self) -> &[NodeId] {
        &self.replicas
    }

    /// The replicas of the epoch before that are no members of this one.
    pub(super) fn replaced(&self) -> &[NodeId] {
        &self.replaced
    }

    pub(super) fn is_replica(&self, id: NodeId) -> bool {
        self.replicas.binary_search(&id).is_ok()
    }

    /// Whether it is known to be nobody's peer any more. Those who were just replaced still have
    /// something to say.
    pub(super) fn excludes(&self, id: NodeId) -> bool {
        let gone = self.part(id).is_none() && !self.replaced.contains(&id);
        id == NodeId(0) || id <= self.members.highest() && gone
    }

    /// The primary of a view of this epoch: the replicas take turns, and view 1 is the first one's.
    pub(super) fn primary(&self, view: ViewNumber) -> Option<NodeId> {
        if view.epoch_number() != self.epoch {
            return None;
        }
        let turn = view.number().checked_sub(1)? % (self.replicas.len() as u64).max(1);
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

    /// Whether those for which it holds are a quorum: f + 1 of 2f + 1.
    pub(super) fn has_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        self.members.has_quorum(holds)
    }

    /// The largest value which a quorum has reached.
    pub(super) fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> Option<T>) -> Option<T> {
        self.members.reached(value)
    }

    /// What an entry says about the members, if it is readable and speaks of them.
    pub(super) fn of_entry(entry: &Entry) -> Option<Configuration> {
        match &entry.payload {
            Payload::Membership(bytes) => Configuration::from_bytes(bytes.clone()).ok(),
            _ => None,
        }
    }
}

impl Wire for Configuration {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.epoch.0);
        put_list(out, &self.replaced, |id, out| put_varint(out, id.0));
        self.members.encode(out);
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let epoch = EpochNumber(input.varint("epoch-number")?);
        let replaced = input.list("replaced", |input| input.varint("replaced id").map(NodeId))?;
        let members = membership::Configuration::decode(input)?;
        match epoch <= EpochNumber::MAX && !members.is_joint() {
            true => Ok(Configuration::new(epoch, members, replaced)),
            false => Err(DecodeError::Invalid { what: "epoch-number", value: epoch.0 }),
        }
    }
}

/// The configurations that a log holds: the last one that is known to be committed, which is the one
/// in effect, and those after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Epochs {
    pub(super) current: Configuration,
    /// In ascending order of positions and epochs.
    pending: VecDeque<(OpNumber, Configuration)>,
}

impl Epochs {
    /// What a snapshot says, or what is known without one.
    pub(super) fn of(point: Option<&SnapshotPoint>, otherwise: Configuration) -> Epochs {
        let told = point.and_then(|point| Configuration::from_bytes(point.membership.clone()).ok());
        Epochs { current: told.unwrap_or(otherwise), pending: VecDeque::new() }
    }

    /// An entry has come to stand at `op`.
    pub(super) fn note(&mut self, op: OpNumber, entry: &Entry) {
        if let Some(next) = Configuration::of_entry(entry)
            && next.epoch >= self.last().epoch
        {
            self.pending.push_back((op, next));
        }
    }

    /// The entries at `from` and after it are gone.
    pub(super) fn truncate(&mut self, from: OpNumber) {
        while self.pending.back().is_some_and(|(op, _)| *op >= from) {
            self.pending.pop_back();
        }
    }

    /// Everything up to `commit` is committed. Returns whether another configuration is now in effect.
    pub(super) fn commit_to(&mut self, commit: OpNumber) -> bool {
        let mut changed = false;
        while self.pending.front().is_some_and(|(op, _)| *op <= commit)
            && let Some((_, next)) = self.pending.pop_front()
        {
            self.current = next;
            changed = true;
        }
        changed
    }

    /// Whether a change waits to be committed.
    pub(super) fn is_changing(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The last entry, if it is the last one of its epoch, with what it leads to: nothing may ever
    /// stand behind it before the next epoch.
    pub(super) fn ending(&self, last: OpNumber) -> Option<&Configuration> {
        let (op, next) = self.pending.back()?;
        (*op == last && next.epoch > self.current.epoch).then_some(next)
    }

    /// The one that comes last, committed or not.
    fn last(&self) -> &Configuration {
        self.pending.back().map_or(&self.current, |(_, next)| next)
    }
}

/// Where the log begins.
pub(super) fn point(snapshot: Option<&SnapshotPoint>) -> (OpNumber, ViewNumber) {
    snapshot.map_or((Index::ZERO, ViewNumber(0)), |point| (point.index, ViewNumber(point.epoch.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::MembershipChange;
    use crate::membership::{Peers, Plan};
    use bytes::Bytes;

    struct Well;

    impl Peers for Well {
        fn is_reachable(&self, _: NodeId) -> bool {
            true
        }

        fn is_caught_up(&self, _: NodeId) -> bool {
            true
        }
    }

    fn three() -> Configuration {
        Configuration::founding(&[NodeId(3), NodeId(1), NodeId(2), NodeId(1)])
    }

    fn after(configuration: &Configuration, change: MembershipChange) -> Configuration {
        match configuration.members().plan(change, 9, &Well) {
            Plan::Append(next) => configuration.followed_by(&next),
            plan => panic!("{plan:?}"),
        }
    }

    #[test]
    fn replicas_take_turns() {
        let turns: Vec<_> = (0..5).map(|view| three().primary(ViewNumber(view)).map(|id| id.0)).collect();
        assert_eq!(turns, [None, Some(1), Some(2), Some(3), Some(1)]);
        assert_eq!(three().primary(ViewNumber::of(EpochNumber(1), 1)), None);
    }

    #[test]
    fn the_next_view_of_a_replica_is_after_the_given_one() {
        assert_eq!(three().next_view_of(NodeId(2), ViewNumber(0)), ViewNumber(2));
        assert_eq!(three().next_view_of(NodeId(2), ViewNumber(2)), ViewNumber(5));
        assert_eq!(three().turns_until(NodeId(3), ViewNumber(2)), 1);
        assert_eq!(three().turns_until(NodeId(9), ViewNumber(2)), 3);
    }

    #[test]
    fn only_a_change_of_the_replicas_begins_an_epoch() {
        let add = MembershipChange::Add { id: NodeId(4), context: Bytes::new(), promote: false };
        let learning = after(&three(), add);
        assert_eq!((learning.epoch, learning.replicas()), (EpochNumber(0), three().replicas()));
        let next = after(&learning, MembershipChange::Replace([2, 3, 4].map(NodeId).to_vec()));
        assert_eq!((next.epoch, next.replaced()), (EpochNumber(1), &[NodeId(1)][..]));
        assert_eq!(next.replicas(), [NodeId(2), NodeId(3), NodeId(4)]);
        assert_eq!(Configuration::from_bytes(next.to_bytes()), Ok(next));
    }

    #[test]
    fn a_configuration_is_in_effect_when_it_is_committed() {
        let mut epochs = Epochs::of(None, three());
        let next = after(&three(), MembershipChange::Remove(NodeId(3)));
        let entry = Entry { view: ViewNumber(1), payload: Payload::Membership(next.to_bytes()) };
        epochs.note(Index(4), &entry);
        assert_eq!((epochs.ending(Index(4)), epochs.ending(Index(5))), (Some(&next), None));
        assert!(!epochs.commit_to(Index(3)) && epochs.is_changing());
        let mut taken_back = epochs.clone();
        taken_back.truncate(Index(4));
        assert!(!taken_back.commit_to(Index(4)));
        assert!(epochs.commit_to(Index(4)) && epochs.current == next);
    }
}
