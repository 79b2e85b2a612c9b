//! A planned transfer of leadership: a view change to the target's next view, which the primary
//! itself asks for, so that nobody has to lose it first.

use super::message::Message;
use super::progress::Sending;
use super::record::ViewNumber;
use super::{Status, Viewstamped};
use crate::contract::Effects;
use crate::log::{ChangeRefusal, LogEvent, Refusal, Ticket};
use crate::types::{NodeId, Time};

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    ticket: Ticket,
    pub(super) to: NodeId,
    /// When it counts as failed.
    pub(super) deadline: Time,
}

impl Viewstamped {
    pub(super) fn on_transfer(&mut self, ticket: Ticket, to: Option<NodeId>, out: &mut Effects<Self>) {
        if !self.is_primary() {
            return self.refuse(ticket, Refusal::NotLeader { leader: self.leader }, out);
        }
        if let Some(unknown) = to.filter(|to| self.epochs.current.part(*to).is_none()) {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::Unknown(unknown)), out);
        }
        if self.transfer.is_some() || self.change.is_some() || self.epochs.is_changing() {
            return self.refuse(ticket, Refusal::Change(ChangeRefusal::InProgress), out);
        }
        if to == Some(self.config.id) {
            // Early: it promises nothing.
            return out.event_early(LogEvent::Done { ticket });
        }
        // Only one that has the log, but for what is in flight, can take over at once.
        let election = self.config.timing.election;
        let able = self.progress.iter().filter(|peer| {
            peer.sending == Sending::Pipeline
                && self.epochs.current.is_replica(peer.id)
                && self.now < peer.heard + election
                && to.is_none_or(|to| to == peer.id)
        });
        let Some(best) = able.max_by_key(|peer| (peer.matched, core::cmp::Reverse(peer.id))) else {
            let why = ChangeRefusal::CannotLead(to.unwrap_or(self.config.id));
            return self.refuse(ticket, Refusal::Change(why), out);
        };
        let to = best.id;
        let view = self.next_view_of(to);
        self.transfer = Some(Transfer { ticket, to, deadline: self.now + election });
        self.void_lease();
        // Early: the view change is as safe as any other, whoever asked for it.
        out.send_early(to, Message::TakeOver { view });
    }

    pub(super) fn on_take_over(&mut self, from: NodeId, view: ViewNumber, out: &mut Effects<Self>) {
        let mine = self.epochs.current.primary(view) == Some(self.config.id);
        let its_own =
            self.status == Status::Normal && self.epochs.current.primary(self.views.view) == Some(from);
        // The last primary of the epoch before may ask for the first view of this one.
        let first = self.views.view.is_before_first();
        if !mine || !its_own && !first {
            self.ignored += 1;
            return;
        }
        if view > self.views.view && self.may_campaign() && !self.is_disk_stalled() {
            self.start_view_change(view, Some(self.views.view), out);
        }
    }

    /// There is a new primary: the transfer has succeeded, or been overtaken.
    pub(super) fn on_new_leader(&mut self, leader: NodeId, out: &mut Effects<Self>) {
        let Some(Transfer { ticket, to, .. }) = self.transfer.take() else { return };
        if leader == to {
            // Early: it tells what was seen, and promises nothing.
            out.event_early(LogEvent::Done { ticket });
        } else {
            self.refuse(ticket, Refusal::LeadershipLost, out);
        }
    }

    /// The target has not taken over in time.
    pub(super) fn check_transfer(&mut self, out: &mut Effects<Self>) {
        let Some(Transfer { ticket, to, deadline }) = self.transfer else { return };
        if self.now < deadline {
            return;
        }
        self.transfer = None;
        let why = match self.is_primary() {
            true => Refusal::Change(ChangeRefusal::CannotLead(to)),
            false => Refusal::LeadershipLost,
        };
        self.refuse(ticket, why, out);
    }
}
