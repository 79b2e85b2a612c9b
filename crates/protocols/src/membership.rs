//! Who counts: configurations, the arithmetic of quorums, and which configuration is in effect.
//!
//! Every decision that needs a quorum asks here, because in a joint configuration (Ongaro's
//! dissertation, section 4.3; Shraer et al., USENIX ATC'12) a quorum is a majority of the old voters *and* a majority of the new ones. A configuration is in
//! effect as soon as it is in the log, committed or not, and is taken back if its entry is.

use crate::log::{ChangeRefusal, Index, Member, MemberPart, MembershipChange, SnapshotPoint};
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire, put_bytes, put_list, put_varint};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

/// Everything that an entry of membership says. It is whole, so that the last one in a log, or in
/// the point of a snapshot, is all that a member needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// In ascending order of ids, without repetition.
    members: Vec<Member>,
    /// The highest id that was ever a member's.
    highest: NodeId,
}

/// Half of a joint configuration; a simple one has equal halves.
#[derive(Clone, Copy)]
enum Half {
    Old,
    New,
}

/// Voters whose values are put in order to find what a quorum has reached; with more than that, which nobody
/// should have, every one is compared with every other.
const VOTERS_SORTED_MAX: usize = 16;

impl Configuration {
    /// The founding members.
    pub fn founding(members: &[NodeId]) -> Configuration {
        let mut ids = members.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let highest = ids.last().copied().unwrap_or_default();
        let voter = |id| Member { id, part: MemberPart::Voter, context: Bytes::new() };
        Configuration { members: ids.into_iter().map(voter).collect(), highest }
    }

    /// What a joining member knows: nothing. Nobody has a quorum, and nobody is excluded.
    pub fn unknown() -> Configuration {
        Configuration { members: Vec::new(), highest: NodeId(0) }
    }

    /// Whether it is not [`Configuration::unknown`].
    pub fn is_known(&self) -> bool {
        !self.members.is_empty()
    }

    /// In ascending order of ids.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The highest id that was ever a member's.
    pub fn highest(&self) -> NodeId {
        self.highest
    }

    /// What it does there, if it is a member.
    pub fn part(&self, id: NodeId) -> Option<MemberPart> {
        // Members are mostly numbered from 1 without a gap: then the number says where it stands.
        let usual = usize::try_from(id.0.wrapping_sub(1)).ok().and_then(|at| self.members.get(at));
        if let Some(member) = usual.filter(|member| member.id == id) {
            return Some(member.part);
        }
        let found = self.members.binary_search_by_key(&id, |member| member.id).ok()?;
        Some(self.members[found].part)
    }

    /// Whether its vote counts, in one half at least.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.part(id).is_some_and(|part| !matches!(part, MemberPart::Learner { .. }))
    }

    /// Whether it needs two majorities.
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|member| matches!(member.part, MemberPart::Leaving | MemberPart::Entering))
    }

    /// The learners that shall vote when they have caught up.
    pub fn to_promote(&self) -> impl Iterator<Item = NodeId> {
        let wanted = |member: &&Member| member.part == MemberPart::Learner { promote: true };
        self.members.iter().filter(wanted).map(|member| member.id)
    }

    /// The voters that there will be once a change that is under way is complete.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.half(Half::New)
    }

    fn half(&self, half: Half) -> impl Iterator<Item = NodeId> + Clone {
        let counts = move |member: &&Member| match member.part {
            MemberPart::Voter => true,
            MemberPart::Leaving => matches!(half, Half::Old),
            MemberPart::Entering => matches!(half, Half::New),
            MemberPart::Learner { .. } => false,
        };
        self.members.iter().filter(counts).map(|member| member.id)
    }

    /// The largest value that a quorum has reached; nothing for a member counts as less than any
    /// value. Free of memory.
    pub fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> Option<T>) -> Option<T> {
        let new = self.reached_in(Half::New, &value)?;
        if self.is_joint() { self.reached_in(Half::Old, &value).map(|old| old.min(new)) } else { Some(new) }
    }

    /// In descending order it is the value at which a majority is complete.
    fn reached_in<T: Ord + Copy>(&self, half: Half, value: &impl Fn(NodeId) -> Option<T>) -> Option<T> {
        let mut values = [None; VOTERS_SORTED_MAX];
        let mut count = 0;
        for id in self.half(half) {
            if count == VOTERS_SORTED_MAX {
                return self.reached_by_many(half, value);
            }
            let own = value(id);
            let mut place = count;
            while place > 0 && values[place - 1] < own {
                values[place] = values[place - 1];
                place -= 1;
            }
            values[place] = own;
            count += 1;
        }
        values[count / 2]
    }

    /// The same by comparing every voter's value with every other's.
    fn reached_by_many<T: Ord + Copy>(&self, half: Half, value: &impl Fn(NodeId) -> Option<T>) -> Option<T> {
        let voters = self.half(half);
        let majority = voters.clone().count() / 2 + 1;
        let at_least = |least: &Option<T>| voters.clone().filter(|id| value(*id) >= *least).count();
        let values = voters.clone().map(value);
        values.filter(|least| at_least(least) >= majority).max().flatten()
    }

    /// Whether the members for which it holds are a quorum.
    pub fn has_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        self.reached(|id| holds(id).then_some(())).is_some()
    }
}

/// Other configurations made from this one.
impl Configuration {
    /// With one more learner, whose id is above all others.
    fn with_learner(&self, id: NodeId, context: Bytes, promote: bool) -> Configuration {
        assert!(id > self.highest, "ids are never used twice");
        let mut next = self.clone();
        next.members.push(Member { id, part: MemberPart::Learner { promote }, context });
        next.highest = id;
        next
    }

    /// Without a learner.
    fn without(&self, id: NodeId) -> Configuration {
        let mut next = self.clone();
        next.members.retain(|member| member.id != id);
        next
    }

    /// The joint configuration on the way to one in which exactly `voters` vote. Each is a member.
    fn joint(&self, voters: &[NodeId]) -> Configuration {
        assert!(!self.is_joint(), "one change at a time");
        let mut next = self.clone();
        for member in &mut next.members {
            member.part = match (member.part, voters.contains(&member.id)) {
                (MemberPart::Voter, false) => MemberPart::Leaving,
                (MemberPart::Learner { .. }, true) => MemberPart::Entering,
                (part, _) => part,
            };
        }
        next
    }

    /// The configuration that a joint one leads to.
    pub fn settled(&self) -> Configuration {
        let mut next = self.clone();
        next.members.retain(|member| member.part != MemberPart::Leaving);
        for member in &mut next.members {
            if member.part == MemberPart::Entering {
                member.part = MemberPart::Voter;
            }
        }
        next
    }
}

/// What to do about a request for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// This is the next configuration.
    Append(Configuration),
    /// It is so already.
    Nothing,
    /// It cannot be done, or not yet.
    Refuse(ChangeRefusal),
}

/// What a leader knows of its peers when it is asked for a change.
pub trait Peers {
    /// Whether it has answered of late.
    fn is_reachable(&self, id: NodeId) -> bool;

    /// Whether a learner has what it needs to vote at once.
    fn is_caught_up(&self, id: NodeId) -> bool;
}

impl Configuration {
    /// How a change begins: with one more or one less learner, or with the joint configuration on
    /// the way to other voters. At most `members_max` members, learners included.
    pub fn plan(&self, change: MembershipChange, members_max: usize, peers: &impl Peers) -> Plan {
        let refuse = Plan::Refuse;
        match change {
            MembershipChange::Add { id, context, promote } => {
                if self.part(id).is_some() {
                    return refuse(ChangeRefusal::AlreadyMember(id));
                }
                if id <= self.highest {
                    return refuse(ChangeRefusal::IdUsed { highest: self.highest });
                }
                if self.members.len() >= members_max {
                    return refuse(ChangeRefusal::Size);
                }
                Plan::Append(self.with_learner(id, context, promote))
            }
            MembershipChange::Promote(id) => match self.part(id) {
                None => refuse(ChangeRefusal::Unknown(id)),
                Some(MemberPart::Learner { .. }) => {
                    self.plan_voters(self.voters().chain([id]).collect(), peers)
                }
                Some(_) => refuse(ChangeRefusal::AlreadyMember(id)),
            },
            MembershipChange::Remove(id) => match self.part(id) {
                None => refuse(ChangeRefusal::Unknown(id)),
                Some(MemberPart::Learner { .. }) => Plan::Append(self.without(id)),
                Some(_) => self.plan_voters(self.voters().filter(|voter| *voter != id).collect(), peers),
            },
            MembershipChange::Replace(voters) => self.plan_voters(voters, peers),
        }
    }

    /// A change to exactly these voters, each of which is a member.
    pub fn plan_voters(&self, mut voters: Vec<NodeId>, peers: &impl Peers) -> Plan {
        voters.sort_unstable();
        voters.dedup();
        if voters.is_empty() {
            return Plan::Refuse(ChangeRefusal::Size);
        }
        for id in &voters {
            match self.part(*id) {
                None => return Plan::Refuse(ChangeRefusal::Unknown(*id)),
                Some(MemberPart::Learner { .. }) if !peers.is_caught_up(*id) => {
                    return Plan::Refuse(ChangeRefusal::NotCaughtUp(*id));
                }
                Some(_) => {}
            }
        }
        let joint = self.joint(&voters);
        if !joint.is_joint() {
            return Plan::Nothing;
        }
        if !joint.settled().has_quorum(|id| peers.is_reachable(id)) {
            return Plan::Refuse(ChangeRefusal::WouldLoseQuorum);
        }
        Plan::Append(joint)
    }
}

impl Wire for Configuration {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.highest.0);
        put_list(out, &self.members, |member, out| {
            put_varint(out, member.id.0);
            out.push(match member.part {
                MemberPart::Voter => 1,
                MemberPart::Leaving => 2,
                MemberPart::Entering => 3,
                MemberPart::Learner { promote: false } => 4,
                MemberPart::Learner { promote: true } => 5,
            });
            put_bytes(out, &member.context);
        });
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let highest = NodeId(input.varint("highest id")?);
        let mut before = NodeId(0);
        let members = input.list("members", |input| {
            let id = NodeId(input.varint("member id")?);
            if id <= before || id > highest {
                return Err(DecodeError::Invalid { what: "member id", value: id.0 });
            }
            before = id;
            let part = match input.byte("part")? {
                1 => MemberPart::Voter,
                2 => MemberPart::Leaving,
                3 => MemberPart::Entering,
                4 => MemberPart::Learner { promote: false },
                5 => MemberPart::Learner { promote: true },
                part => return Err(DecodeError::Invalid { what: "part", value: u64::from(part) }),
            };
            Ok(Member { id, part, context: input.bytes("context")? })
        })?;
        let configuration = Configuration { members, highest };
        match [Half::Old, Half::New].iter().all(|half| configuration.half(*half).next().is_some()) {
            true => Ok(configuration),
            false => Err(DecodeError::Invalid { what: "number of voters", value: 0 }),
        }
    }
}

/// The configurations that a log holds: the last one that is committed, and all after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// In ascending order of positions, never empty.
    history: Vec<(Index, Configuration)>,
}

impl Membership {
    /// A log that begins after `index` with `configuration` in effect.
    pub fn after(index: Index, configuration: Configuration) -> Membership {
        Membership { history: vec![(index, configuration)] }
    }

    /// What a snapshot says, or the founding members if it says nothing.
    pub fn of(point: &SnapshotPoint, founders: &[NodeId]) -> Membership {
        match Configuration::from_bytes(point.membership.clone()) {
            Ok(configuration) => Membership::after(point.index, configuration),
            Err(_) => Membership::after(Index::ZERO, Configuration::founding(founders)),
        }
    }

    /// The one in effect.
    pub fn current(&self) -> &Configuration {
        &self.history[self.history.len() - 1].1
    }

    /// Where the one in effect stands in the log.
    pub fn current_index(&self) -> Index {
        self.history[self.history.len() - 1].0
    }

    /// The last one that is known to be committed.
    pub fn committed(&self) -> &Configuration {
        &self.history[0].1
    }

    /// Whether any of those that may yet govern lists it.
    pub fn lists(&self, id: NodeId) -> bool {
        self.history.iter().any(|(_, configuration)| configuration.part(id).is_some())
    }

    /// Whether it votes in any of those that may yet govern. A server which the last configuration
    /// in its log lets go may be the only one left that holds that configuration's entry: until it
    /// is committed nobody else might be electable, and so it still campaigns (section 4.2.2).
    pub fn may_lead(&self, id: NodeId) -> bool {
        self.history.iter().any(|(_, configuration)| configuration.is_voter(id))
    }

    /// Everybody whom one that may yet govern lists, in ascending order.
    pub fn everybody(&self) -> Vec<NodeId> {
        let listed = self.history.iter().flat_map(|(_, configuration)| configuration.members());
        let mut ids: Vec<_> = listed.map(|member| member.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whether it is known to have been let go for good. A member is not excluded because the
    /// configuration in effect does not list it: that one may be taken back, and a leader that is
    /// about to leave goes on leading until its successor is committed. Nor is one with an id
    /// above all that are known: it may have been added since. (Section 4.2.2: what a server takes
    /// from a leader, and whom it votes for, does not depend on its own configuration.)
    pub fn excludes(&self, id: NodeId) -> bool {
        id == NodeId(0) || id <= self.committed().highest() && !self.lists(id)
    }

    /// The entry at `index` changes the configuration, at once.
    pub fn push(&mut self, index: Index, configuration: Configuration) {
        assert!(index > self.current_index(), "configurations follow each other in the log");
        self.history.push((index, configuration));
    }

    /// Takes back those at `from` and after it. Returns whether there were any.
    pub fn truncate(&mut self, from: Index) -> bool {
        let before = self.history.len();
        self.history.retain(|(index, _)| *index < from);
        assert!(!self.history.is_empty(), "a committed configuration is never taken back");
        self.history.len() < before
    }

    /// Everything up to `commit` is committed. Returns whether another one is now the last of them.
    pub fn commit_to(&mut self, commit: Index) -> bool {
        let superseded = self.history.iter().skip(1).take_while(|(index, _)| *index <= commit).count();
        self.history.drain(..superseded);
        superseded > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// What the members from 1 on have, in order.
    fn values(values: &[u64]) -> impl Fn(NodeId) -> Option<u64> {
        |id| values.get(id.0 as usize - 1).copied()
    }

    #[test]
    fn a_quorum_reaches_the_median() {
        let five = Configuration::founding(&ids(&[5, 1, 2, 3, 4, 1]));
        assert_eq!(five.reached(values(&[7, 1, 9, 3, 3])), Some(3));
        let four = Configuration::founding(&ids(&[1, 2, 3, 4]));
        assert_eq!(four.reached(values(&[1, 2, 3, 4])), Some(2));
        let one = Configuration::founding(&ids(&[1]));
        assert_eq!(one.reached(values(&[8])), Some(8));
    }

    #[test]
    fn both_ways_to_find_what_a_quorum_reached_agree() {
        let mut rng = crate::rng::Rng::new(7);
        for round in 0..2000 {
            let count = 1 + rng.below(VOTERS_SORTED_MAX as u64 + 3);
            let config = Configuration::founding(&(1..=count).map(NodeId).collect::<Vec<_>>());
            let values: Vec<_> = (0..count).map(|_| (!rng.chance(1, 4)).then(|| rng.below(6))).collect();
            let value = |id: NodeId| values[id.0 as usize - 1];
            let slow = config.reached_by_many(Half::New, &value);
            assert_eq!(config.reached(value), slow, "round {round}: {values:?}");
        }
    }

    #[test]
    fn too_few_values_reach_nothing() {
        let three = Configuration::founding(&ids(&[1, 2, 3]));
        assert_eq!(three.reached(values(&[8])), None);
        assert_eq!(Configuration::unknown().reached(values(&[8])), None);
        assert!(!Configuration::unknown().has_quorum(|_| true));
    }

    #[test]
    fn a_joint_quorum_needs_both_majorities() {
        let mut joint = Configuration::founding(&ids(&[1, 2, 3]));
        for id in ids(&[4, 5, 6]) {
            joint = joint.with_learner(id, Bytes::new(), false);
        }
        let joint = joint.joint(&ids(&[3, 4, 5]));
        assert!(joint.is_joint());
        assert_eq!(joint.reached(values(&[9, 9, 9, 0, 0, 9])), Some(0));
        assert_eq!(joint.reached(values(&[0, 9, 9, 0, 9, 0])), Some(9));
        assert_eq!(joint.reached(values(&[7, 7, 0, 5, 5, 0])), Some(5));
        let settled = joint.settled();
        assert_eq!(settled.voters().collect::<Vec<_>>(), ids(&[3, 4, 5]));
        assert_eq!(settled.part(NodeId(6)), Some(MemberPart::Learner { promote: false }));
        assert_eq!((settled.part(NodeId(1)), settled.highest()), (None, NodeId(6)));
    }

    #[test]
    fn configurations_have_one_encoding() {
        let three = Configuration::founding(&ids(&[1, 2, 3]));
        let four = three.with_learner(NodeId(7), Bytes::from_static(b"host"), true);
        let joint = four.joint(&ids(&[1, 2, 7]));
        let bytes = [7, 4, 1, 1, 0, 2, 1, 0, 3, 2, 0, 7, 3, 4, b'h', b'o', b's', b't'];
        assert_eq!(joint.to_bytes(), &bytes[..]);
        assert_eq!(Configuration::from_bytes(joint.to_bytes()), Ok(joint));
        for wrong in [&[3, 0][..], &[3, 1, 1, 4, 0], &[1, 1, 2, 1, 0], &[3, 2, 2, 1, 0, 1, 1, 0]] {
            assert!(Configuration::from_bytes(Bytes::copy_from_slice(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_what_is_committed_excludes() {
        let three = Configuration::founding(&ids(&[1, 2, 3]));
        let mut membership = Membership::after(Index(0), three.clone());
        membership.push(Index(4), three.joint(&ids(&[1, 2])));
        membership.push(Index(5), three.joint(&ids(&[1, 2])).settled());
        assert!(!membership.excludes(NodeId(3)) && !membership.excludes(NodeId(4)));
        membership.commit_to(Index(4));
        assert!(!membership.excludes(NodeId(3)));
        membership.commit_to(Index(5));
        assert!(membership.excludes(NodeId(3)) && !membership.excludes(NodeId(4)));
    }
}
