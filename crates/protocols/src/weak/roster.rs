//! Who the members are, what each has said it has seen, and what may therefore be forgotten.
//!
//! # Members without consensus
//!
//! Members are added and removed at any member, during any partition, so the roster is a convergent type as well: a
//! set of those who were added and a set of those who were removed, each merged by union, and whoever was removed
//! never comes back under that number. Two members that remove each other at the same time are therefore both gone.
//!
//! # Causal stability
//!
//! A tombstone has to stay as long as an older write may arrive somewhere. An update is *stable* here (Baquero, Almeida and
//! Shoker, *Making Operation-based CRDTs Operation-based*, 2014) when
//!
//! 1. every member has said that it has seen it, under the roster that holds here; and
//! 2. everything that those members had seen when they said so has been seen here.
//!
//! Then no older write can arrive any more. Whoever writes after having seen the tombstone gives a higher stamp. A
//! write that a member took before that is in what it had seen (1), and so is here (2). A member which the others
//! do not know of yet was introduced by somebody: either that one said what it had seen after it introduced it,
//! then its roster came with it; or before, then the newcomer has caught up with all of that before it took its
//! first write. And who was removed is not listened to by anybody who says so under the roster without it, so what
//! these have not seen of it by then they never will.
//!
//! One case is left: somebody is introduced by a member that is removed before anybody heard of it. The newcomer is
//! believed when it names itself, and all come to show the same; but a delete that was forgotten in between may
//! lose against a write of the newcomer's that was older.
//!
//! A member that is away for ever must be removed, or tombstones and logs live for ever, up to their bounds.

use super::dots::CausalContext;
use crate::types::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;

/// Members that there may ever be, those included who are gone.
pub const ROSTER_MAX: usize = 256;

/// Who the members are and were.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Roster {
    /// Everybody who was added and not removed.
    pub members: BTreeSet<NodeId>,
    /// Everybody who was removed; they never come back.
    pub removed: BTreeSet<NodeId>,
}

impl Roster {
    /// The members that found a cluster.
    pub fn of(members: impl IntoIterator<Item = NodeId>) -> Roster {
        Roster { members: members.into_iter().collect(), removed: BTreeSet::new() }
    }

    /// Adds what another one knows. Says whether that was news.
    pub fn merge(&mut self, other: &Roster) -> bool {
        let before = (self.members.len(), self.removed.len(), self.members.clone());
        self.removed.extend(&other.removed);
        self.members.extend(&other.members);
        let removed = &self.removed;
        self.members.retain(|id| !removed.contains(id));
        before != (self.members.len(), self.removed.len(), self.members.clone())
    }

    /// How many there are and were.
    pub fn len(&self) -> usize {
        self.members.len() + self.removed.len()
    }

    /// Whether there never was anybody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for id in &self.members {
            write!(f, "{space}{id}")?;
            space = " ";
        }
        for id in &self.removed {
            write!(f, "{space}-{id}")?;
            space = " ";
        }
        Ok(())
    }
}

/// What the other members have said, under the present roster, that they have seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports {
    of: BTreeMap<NodeId, Report>,
}

#[derive(Clone, Debug, Default)]
struct Report {
    /// The latest of which everything has been seen here, too.
    known: CausalContext,
    /// A later one, of which something is on its way. The next ones are not needed before it counts.
    next: Option<CausalContext>,
}

impl Reports {
    /// The roster has changed: what was said under the old one does not count.
    pub(super) fn clear(&mut self) {
        self.of.clear();
    }

    /// A member says what it has seen, when `seen` has been seen here.
    pub(super) fn hear(&mut self, from: NodeId, seen_there: CausalContext, seen: &CausalContext) {
        let report = self.of.entry(from).or_default();
        report.settle(seen);
        report.next.get_or_insert(seen_there);
    }

    /// What is stable, when `seen` has been seen here.
    pub(super) fn stable(&mut self, own: NodeId, roster: &Roster, seen: &CausalContext) -> CausalContext {
        let mut stable = seen.clone();
        for id in roster.members.iter().filter(|id| **id != own) {
            let report = self.of.entry(*id).or_default();
            report.settle(seen);
            stable = stable.meet(&report.known);
        }
        stable
    }
}

impl Report {
    /// The later one counts, once everything of it has been seen.
    fn settle(&mut self, seen: &CausalContext) {
        if self.next.as_ref().is_some_and(|next| seen.includes(next)) {
            self.known = self.next.take().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dots::{Dot, Origin};
    use super::*;
    use crate::types::Incarnation;

    fn context(counts: &[(u64, u64)]) -> CausalContext {
        let mut context = CausalContext::new();
        for (node, up_to) in counts {
            let origin = Origin { node: NodeId(*node), since: Incarnation(1) };
            (1..=*up_to).for_each(|count| context.insert(Dot { origin, count }));
        }
        context
    }

    #[test]
    fn who_was_removed_stays_removed_in_whatever_order_it_is_heard() {
        let founders = Roster::of([NodeId(1), NodeId(2)]);
        let (mut with, mut without) = (founders.clone(), founders.clone());
        with.members.insert(NodeId(3));
        without.removed.insert(NodeId(2));
        without.members.remove(&NodeId(2));
        let (mut one, mut other) = (with.clone(), without.clone());
        assert!(one.merge(&without) && other.merge(&with) && !other.merge(&founders));
        assert_eq!(one, other);
        assert_eq!(one.members, BTreeSet::from([NodeId(1), NodeId(3)]));
    }

    #[test]
    fn stable_is_what_all_have_seen_once_their_reports_are_seen_here() {
        let roster = Roster::of((1..=3).map(NodeId));
        let mut reports = Reports::default();
        let seen = context(&[(1, 4), (2, 2)]);
        reports.hear(NodeId(2), context(&[(1, 3), (2, 2)]), &seen);
        assert_eq!(reports.stable(NodeId(1), &roster, &seen), context(&[]), "the third has not spoken");
        // The third had seen an update which is not here: its report has to wait.
        reports.hear(NodeId(3), context(&[(1, 3), (2, 3)]), &seen);
        assert_eq!(reports.stable(NodeId(1), &roster, &seen), context(&[]));
        let seen = context(&[(1, 4), (2, 3)]);
        assert_eq!(reports.stable(NodeId(1), &roster, &seen), context(&[(1, 3), (2, 2)]));
    }
}
