//! Who adds and removes members, and replaces those whose disks are damaged, as the documents say.
//!
//! A change is asked for again until somebody has carried it out: at the first member that is there, whoever that is.

use super::faults::Alarm;
use super::member::{Home, Member};
use super::world::World;
use std::collections::BTreeSet;
use std::time::Duration;
use synod_protocols::log::Ticket;
use synod_protocols::types::NodeId;
use synod_protocols::weak::{Event, Refusal, Request};

/// How often the operator looks.
const EVERY: Duration = Duration::from_millis(100);

/// A change that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A new member, with a number that nobody had.
    Add,
    Remove(NodeId),
    /// A new member in the place of this one, whose clients go to it.
    Replace(NodeId),
}

/// The operator's list.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// What is to be asked for, and under which ticket it was asked for last.
    wanted: Vec<(Request, Ticket)>,
    /// Those who were added, and those who were removed. What a removed one had taken and not sent is lost.
    pub(super) added: BTreeSet<NodeId>,
    pub(super) removed: BTreeSet<NodeId>,
}

impl Operator {
    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_empty()
    }

    /// An answer to the operator.
    pub(super) fn hear(&mut self, event: &Event) {
        let done = match event {
            Event::Changed { ticket } => ticket,
            Event::Refused { ticket, why: Refusal::NoMember | Refusal::WasMember } => ticket,
            _ => return,
        };
        self.wanted.retain(|(_, asked)| asked != done);
    }
}

impl<P: Member> World<P> {
    pub(super) fn want(&mut self, change: Change) {
        match change {
            Change::Add => drop(self.add()),
            Change::Remove(member) => self.remove(member),
            Change::Replace(member) => {
                self.remove(member);
                let id = self.add();
                self.move_sessions(member, id);
            }
        }
        self.stage.alarm(self.stage.now, Alarm::Operate);
    }

    fn add(&mut self) -> NodeId {
        let member = NodeId(1 + self.stage.ids().last().map_or(0, |id| id.0));
        self.seat(member, true);
        self.stage.fault("add", member, |id| format!("{id} is to join"));
        self.stage.start(member);
        self.operator.added.insert(member);
        self.operator.wanted.push((Request::AddMember { ticket: Ticket(0), member }, Ticket(0)));
        member
    }

    fn remove(&mut self, member: NodeId) {
        if self.operator.removed.insert(member) {
            self.stage.fault("remove", member, |id| format!("{id} is to be removed"));
            self.operator.wanted.push((Request::RemoveMember { ticket: Ticket(0), member }, Ticket(0)));
        }
    }

    /// Asks for the first change that is not done.
    pub(super) fn operate(&mut self) {
        let Some((request, _)) = self.operator.wanted.first().cloned() else { return };
        let ticket = self.ticket();
        let (request, subject) = match request {
            Request::RemoveMember { member, .. } => (Request::RemoveMember { ticket, member }, member),
            Request::AddMember { member, .. } => (Request::AddMember { ticket, member }, member),
            other => unreachable!("the operator changes members, and does not ask {other:?}"),
        };
        let is_asked = |id: &NodeId| *id != subject && self.stage.is_there(*id);
        let at = self.members_at_rest().into_iter().find(is_asked);
        if let Some(at) = at {
            self.operator.wanted[0].1 = ticket;
            self.request(at, request);
        }
        self.stage.alarm(self.stage.now + EVERY, Alarm::Operate);
    }

    /// Whose disk turns out to be damaged is replaced.
    pub(super) fn look_after_disks(&mut self) {
        let damaged = self.stage.machines().filter(|(_, home)| home.is_damaged());
        let new = damaged.map(|(id, _)| id).filter(|id| !self.operator.removed.contains(id));
        let new: Vec<NodeId> = new.collect();
        new.into_iter().for_each(|id| self.want(Change::Replace(id)));
    }

    /// Those who have to show the same at the end, beside the founders.
    pub(super) fn are_newcomers_in(&self) -> bool {
        let counts = self.members_at_rest();
        let mut newcomers = self.operator.added.difference(&self.operator.removed);
        self.operator.is_idle() && newcomers.all(|id| counts.contains(id))
    }
}
