//! The members of weak keyspaces follow those of the cluster.
//!
//! A weak keyspace's roster needs no consensus, so everybody may change it. Here the leader alone does, and what it does is
//! what the log has committed; a removal is for ever, so it must not rest on something old or on something that is taken
//! back. The leader
//!
//! 1. takes down the rosters, the members in effect, and the last entry of its log;
//! 2. makes sure that it leads still, by a linearizable read; and
//! 3. waits until that entry is committed in the same term, the members in effect being the same.
//!
//! Then those members are committed, and they are later than the rosters: who is in a roster and not a member was removed
//! since, and numbers are never used twice. And whoever is a member and in no roster is added.

use crate::calls::Calls;
use crate::member::{Core, Event, Member};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::{Query, SpaceId};
use synod_protocols::log::{Epoch, Index, ReplicatedLog, Role};
use synod_protocols::weak::{Request, Roster};
use synod_protocols::{NodeId, Time};
use tokio::time::sleep;

use super::host::{NOBODY, Weak};

/// How often the leader compares.
const EVERY: Duration = Duration::from_millis(500);
/// How long it waits for its last entry to be committed.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// When rosters were last compared.
#[derive(Debug, Default)]
pub(crate) struct Check {
    next: Time,
    is_under_way: bool,
}

/// Who is a member of what, at one moment.
struct Seen {
    epoch: Epoch,
    last: Index,
    members: BTreeSet<NodeId>,
    rosters: BTreeMap<SpaceId, Roster>,
}

impl Weak {
    fn rosters(&self) -> BTreeMap<SpaceId, Roster> {
        self.hosted.iter().map(|(id, hosted)| (*id, hosted.replica.state().roster().clone())).collect()
    }
}

fn differs(roster: &Roster, members: &BTreeSet<NodeId>) -> bool {
    let is_new = |id: &NodeId| !roster.members.contains(id) && !roster.removed.contains(id);
    members.iter().any(is_new) || !roster.members.is_subset(members)
}

fn members<P: ReplicatedLog>(core: &Core<P, Calls>) -> BTreeSet<NodeId> {
    core.node.process().members().iter().map(|member| member.id).collect()
}

/// What there is to compare, if this member leads.
fn look<P: ReplicatedLog>(core: &Core<P, Calls>) -> Option<Seen> {
    let log = core.node.status().log;
    (log.role == Role::Leader).then(|| Seen {
        epoch: log.epoch,
        last: log.last,
        members: members(core),
        rosters: core.weak.rosters(),
    })
}

/// Compares, now and then, and has a difference mended.
pub(crate) fn keep<P: ReplicatedLog + 'static>(member: &Rc<Member<P>>, core: &mut Core<P, Calls>, now: Time) {
    if core.weak.check.is_under_way || now < core.weak.check.next || core.weak.hosted.is_empty() {
        return;
    }
    core.weak.check.next = now + EVERY;
    let Some(seen) = look(core) else { return };
    if seen.rosters.values().any(|roster| differs(roster, &seen.members)) {
        core.weak.check.is_under_way = true;
        let member = Rc::clone(member);
        tokio::task::spawn_local(async move {
            mend(&member, seen).await;
            member.core.borrow_mut().weak.check.is_under_way = false;
        });
    }
}

async fn mend<P: ReplicatedLog + 'static>(member: &Member<P>, seen: Seen) {
    if member.ask(synod_node::Request::Read(Query::Reached)).await.is_err() {
        return;
    }
    let mut waited = Duration::ZERO;
    loop {
        match is_committed(&member.core.borrow(), &seen) {
            Some(true) => break,
            Some(false) if waited < PATIENCE => {}
            Some(false) | None => return,
        }
        sleep(PAUSE).await;
        waited += PAUSE;
    }
    for (space, request) in changes(&seen) {
        member.tell(Event::Weak { space, request });
    }
}

/// Whether what was seen is committed; nothing if it is not so any more.
fn is_committed<P: ReplicatedLog>(core: &Core<P, Calls>, seen: &Seen) -> Option<bool> {
    let log = core.node.status().log;
    let holds = log.role == Role::Leader && log.epoch == seen.epoch && members(core) == seen.members;
    holds.then_some(log.committed >= seen.last)
}

fn changes(seen: &Seen) -> Vec<(SpaceId, Request)> {
    let mut changes = Vec::new();
    for (space, roster) in &seen.rosters {
        for id in seen.members.iter().copied() {
            if !roster.members.contains(&id) && !roster.removed.contains(&id) {
                changes.push((*space, Request::AddMember { ticket: NOBODY, member: id }));
            }
        }
        for id in roster.members.difference(&seen.members).copied() {
            changes.push((*space, Request::RemoveMember { ticket: NOBODY, member: id }));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roster_comes_to_have_the_members_and_never_gets_back_whom_it_lost() {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let roster = Roster { members: ids(&[1, 2, 3]), removed: ids(&[4]) };
        let seen = Seen {
            epoch: Epoch(1),
            last: Index(9),
            members: ids(&[1, 3, 4, 5]),
            rosters: BTreeMap::from([(SpaceId(7), roster.clone())]),
        };
        assert!(differs(&roster, &seen.members) && !differs(&roster, &ids(&[1, 2, 3])));
        assert!(!differs(&roster, &ids(&[1, 2, 3, 4])), "a number of one who was removed");
        let expected = [
            (SpaceId(7), Request::AddMember { ticket: NOBODY, member: NodeId(5) }),
            (SpaceId(7), Request::RemoveMember { ticket: NOBODY, member: NodeId(2) }),
        ];
        assert_eq!(changes(&seen), expected);
    }
}
