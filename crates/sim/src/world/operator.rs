//! The operator: carries out the changes of members, and the transfers, that a script asks for.
//!
//! Like a careful person it asks for one after the other, and asks again, of whoever leads by then, while what it
//! asked may still be done: a request that was lost, refused for the moment, or left without an answer.

use super::World;
use crate::clients::Machine;
use crate::event::Event;
use crate::member::Standing;
use crate::queue::Due;
use crate::script::{Member, OperatorChange};
use std::collections::VecDeque;
use synod_node::{Change, ClientError, Input, Outcome, Request};
use synod_protocols::NodeId;
use synod_protocols::log::{ChangeRefusal, MembershipChange, ReplicatedLog, Ticket};

/// Election timeouts that the operator waits for an answer: a little longer than a member keeps a request.
const ANSWER_ELECTIONS: u64 = 12;
/// The operator's tickets begin here, above all of the clients'.
const TICKETS_FROM: u64 = 1 << 32;

/// What is to be changed, and how that stands.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// In the order in which the script asks; the first is under way.
    changes: VecDeque<OperatorChange>,
    /// Requests so far, of all changes.
    attempts: u32,
    /// Requests for the first change.
    tries: u32,
}

/// What an answer means for a change.
enum Meaning {
    /// It is done.
    Done,
    /// It may be done later.
    Again,
    /// It will never be done, because the protocol has no such thing.
    Unserved,
    /// It will never be done.
    Refused(String),
}

/// The operator's request that a ticket belongs to.
pub(super) fn attempt_of(ticket: Ticket) -> Option<u32> {
    ticket.0.checked_sub(TICKETS_FROM).map(|attempt| attempt as u32)
}

impl<P: ReplicatedLog> World<'_, P> {
    /// The script asks for a change. A new machine starts at once, and waits to be taken in.
    pub(crate) fn begin_change(&mut self, change: OperatorChange) {
        if let OperatorChange::Add { member, .. } = change {
            let index = member.0 - 1;
            self.members[usize::from(index)].standing = Standing::Joined;
            self.mark("members", || format!("{member} wants to join"));
            self.start(index);
        }
        self.operator.changes.push_back(change);
        if self.operator.changes.len() == 1 {
            self.ask_for_change();
        }
    }

    /// The time for an answer, or until the next request, is over.
    pub(super) fn on_operator(&mut self, attempt: u32) {
        if attempt == self.operator.attempts && !self.operator.changes.is_empty() {
            self.ask_for_change();
        }
    }

    fn ask_for_change(&mut self) {
        let Some(change) = self.operator.changes.front().copied() else { return };
        self.operator.attempts += 1;
        self.operator.tries += 1;
        let attempt = self.operator.attempts;
        let election = self.script.election.0;
        self.queue.push(self.now + ANSWER_ELECTIONS * election, Due::Operator { attempt });
        let awake = |index: &u8| {
            let member = &self.members[usize::from(*index)];
            member.is_up() && !member.paused && member.standing != Standing::Removed
        };
        let size = self.members.len() as u8;
        let first = (attempt % u32::from(size)) as u8;
        let others = (0..size).map(|i| (first + i) % size);
        let asked = self.leader().into_iter().chain(others).find(awake);
        let Some(index) = asked else { return };
        self.note_digest(14, index.into(), attempt.into());
        let id = |member: Member| NodeId(member.0.into());
        let change = match change {
            OperatorChange::Add { member, learner } => {
                let context = bytes::Bytes::new();
                Change::Members(MembershipChange::Add { id: id(member), context, promote: !learner })
            }
            OperatorChange::Promote(member) => Change::Members(MembershipChange::Promote(id(member))),
            OperatorChange::Remove(member) => Change::Members(MembershipChange::Remove(id(member))),
            OperatorChange::Transfer(member) => Change::Transfer(member.map(id)),
        };
        let ticket = Ticket(TICKETS_FROM + u64::from(attempt));
        self.feed(index, Input::Client { ticket, request: Request::Change(change) });
    }

    /// A member has answered.
    pub(super) fn on_operator_reply(&mut self, attempt: u32, outcome: Outcome<Machine>) {
        if attempt != self.operator.attempts {
            return;
        }
        let Some(change) = self.operator.changes.front().copied() else { return };
        let text = match meaning(change, self.operator.tries, &outcome) {
            Meaning::Again => {
                let again = self.now + self.script.election.0;
                return self.queue.push(again, Due::Operator { attempt });
            }
            Meaning::Done => {
                self.counts.changes += 1;
                if let OperatorChange::Remove(member) = change {
                    self.members[usize::from(member.0 - 1)].standing = Standing::Removed;
                }
                self.mark("members", || format!("{change}: done"));
                format!("`{change}` is done")
            }
            Meaning::Unserved => {
                self.counts.unserved += 1;
                format!("`{change}`: the protocol does not offer it")
            }
            Meaning::Refused(why) => format!("`{change}` is refused: {why}"),
        };
        self.note_digest(15, attempt.into(), self.counts.changes);
        self.clients.note(self.now, &text);
        self.show(&Event::Note { text });
        self.operator.changes.pop_front();
        self.operator.tries = 0;
        // An answer comes in the middle of a member's step; the next request is a step of its own.
        self.queue.push(self.now, Due::Operator { attempt });
    }

    /// All members, learners and those that are about to leave included, as whoever leads has them, or, if nobody does,
    /// whoever has applied most.
    pub(super) fn known_members(&self) -> Vec<u8> {
        let applied =
            |index: &u8| self.members[usize::from(*index)].node.as_ref().map(|node| node.status().applied);
        let best = self.leader().or_else(|| self.all().max_by_key(applied));
        let node = best.and_then(|index| self.members[usize::from(index)].node.as_ref());
        let members = node.map(|node| node.process().members()).unwrap_or_default();
        members.iter().map(|member| (member.id.0 - 1) as u8).collect()
    }
}

/// What an answer to the `tries`-th request for a change means. After the first one an earlier request may have been
/// carried out although nobody heard of it.
fn meaning(change: OperatorChange, tries: u32, outcome: &Outcome<Machine>) -> Meaning {
    let error = match outcome {
        Outcome::Failed(error) => error,
        _ => return Meaning::Done,
    };
    match (change, error) {
        (_, ClientError::Unsupported) => Meaning::Unserved,
        (
            OperatorChange::Add { .. },
            ClientError::Change(ChangeRefusal::AlreadyMember(_) | ChangeRefusal::IdUsed { .. }),
        )
        | (OperatorChange::Promote(_), ClientError::Change(ChangeRefusal::AlreadyMember(_)))
        | (OperatorChange::Remove(_), ClientError::Change(ChangeRefusal::Unknown(_)))
            if tries > 1 =>
        {
            Meaning::Done
        }
        (
            _,
            ClientError::NoLeader
            | ClientError::Busy
            | ClientError::Storage
            | ClientError::Timeout
            | ClientError::Change(
                ChangeRefusal::InProgress
                | ChangeRefusal::NotYet
                | ChangeRefusal::NotCaughtUp(_)
                | ChangeRefusal::WouldLoseQuorum
                | ChangeRefusal::CannotLead(_),
            ),
        ) => Meaning::Again,
        (_, other) => Meaning::Refused(format!("{other:?}")),
    }
}
