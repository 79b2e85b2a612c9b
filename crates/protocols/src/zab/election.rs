//! Fast leader election: who shall be the prospective leader.
//!
//! Nothing here is durable and nothing rests on it but progress: two members may both believe that
//! they were elected, and a member with an old history may be. Discovery sorts that out.
//!
//! A *round* is a try. Looking members tell their vote in it; a vote for a newer history, or for a
//! larger id, wins over the sender's own. The member voted for counts: when a quorum votes for it
//! in its round, it leads, and says so to all.

use super::message::{Message, Notification, State, Vote};
use super::{NUMBER_MAX, Part, Phase, Zab};
use crate::contract::Effects;
use crate::types::NodeId;

/// Becoming something else.
impl Zab {
    /// Looks for a leader in a new round.
    pub(super) fn become_looking(&mut self, out: &mut Effects<Self>) {
        self.leave_part(out);
        self.hopeful = true;
        self.begin_round(self.round + 1, None, out);
    }

    /// Leaves whatever it was doing.
    pub(super) fn leave_part(&mut self, out: &mut Effects<Self>) {
        if let Part::Leading(_) = self.part {
            self.end_leading(out);
        }
        self.forwarding.refuse(out);
        self.part = Part::Looking;
        self.leader = None;
        self.agreed = false;
        self.fetch_asked = None;
        self.heard.clear();
        self.votes.clear();
        self.draw_wait();
    }

    /// Takes part in `round`, into which it may have been drawn by another's vote. Ties go to
    /// that vote: the id decides only between members that began on their own.
    fn begin_round(&mut self, round: u64, drawn_by: Option<Vote>, out: &mut Effects<Self>) {
        self.round = round.min(NUMBER_MAX);
        self.votes.clear();
        self.draw_wait();
        self.vote = self.better_vote(drawn_by);
        self.tell_vote(None, out);
        self.maybe_elected(out);
    }

    /// Tells everybody of a candidacy, and of a change of mind; a first vote for another only its
    /// candidate, who counts. (Whoever missed it hears it with the next repetition.)
    fn tell_vote(&mut self, had: Option<Vote>, out: &mut Effects<Self>) {
        match self.vote {
            Some(vote) if had.is_none() && vote.id != self.config.id => {
                self.repeat = self.now + self.config.timing.heartbeat;
                self.send_notification(vote.id, out);
            }
            _ => self.repeat_notifications(out),
        }
    }

    /// The other's vote if its history is at least as new as this one's, or if this member had
    /// better not lead; else a vote for itself.
    fn better_vote(&mut self, other: Option<Vote>) -> Option<Vote> {
        let own = self.own_vote();
        let other = other.filter(|vote| vote.id != own.id || self.may_lead());
        if other.is_some_and(|vote| (vote.epoch, vote.zxid) >= (own.epoch, own.zxid)) || !self.may_lead() {
            return other;
        }
        // It costs its hope: when this comes to nothing, it has to hear from a quorum first.
        self.hopeful = false;
        Some(own)
    }

    /// Whether it may propose itself. Whoever does not hear from a quorum would only keep those
    /// who hear it from voting for somebody who can lead (the quorum-loss and the constrained
    /// election of *OmniPaxos*).
    fn may_lead(&self) -> bool {
        self.is_participant()
            && !self.storage_full
            && !self.is_disk_stalled()
            && (self.hopeful || self.hears_quorum())
    }

    fn hears_quorum(&self) -> bool {
        self.membership.current().has_quorum(|id| id == self.config.id || self.heard.contains(&id))
    }

    pub(super) fn own_vote(&self) -> Vote {
        Vote { epoch: self.epochs.current, zxid: self.history.last_zxid(), id: self.config.id }
    }

    /// The round came to nothing within its time. Whoever hears a quorum begins the next; the
    /// others wait for somebody who does, and bear nobody in mind meanwhile.
    pub(super) fn on_round_failed(&mut self, out: &mut Effects<Self>) {
        if self.may_lead() {
            self.begin_round(self.round + 1, None, out);
        } else {
            self.draw_wait();
            self.vote = None;
            self.repeat_notifications(out);
        }
        self.heard.clear();
    }

    fn maybe_elected(&mut self, out: &mut Effects<Self>) {
        let own = self.config.id;
        if self.part != Part::Looking || self.vote.is_none_or(|vote| vote.id != own) {
            return;
        }
        let for_me = |id| {
            let vote = self.votes.iter().find(|(voter, _)| *voter == id).and_then(|(_, vote)| *vote);
            id == own || vote.is_some_and(|vote| vote.id == own)
        };
        if self.membership.current().has_quorum(for_me) {
            self.become_leading(out);
        }
    }
}

/// Notifications.
impl Zab {
    pub(super) fn repeat_notifications(&mut self, out: &mut Effects<Self>) {
        self.repeat = self.now + self.config.timing.heartbeat;
        for i in 0..self.learners.len() {
            self.send_notification(self.learners[i].id, out);
        }
    }

    pub(super) fn send_notification(&self, to: NodeId, out: &mut Effects<Self>) {
        let (state, vote) = match self.part {
            Part::Looking => (State::Looking, self.vote),
            Part::Following(_) => {
                let follow = |id| Vote { id, ..self.own_vote() };
                (State::Following, self.leader.map(follow))
            }
            Part::Leading(_) => (State::Leading, Some(self.own_vote())),
        };
        // Early: it promises nothing, and whoever relies on it finds out by asking.
        out.send_early(to, Message::Notification(Notification { round: self.round, state, vote }));
    }

    pub(super) fn on_notification(&mut self, from: NodeId, other: Notification, out: &mut Effects<Self>) {
        match (self.part, other.state) {
            (Part::Looking, _) => {
                if !self.heard.contains(&from) {
                    self.heard.push(from);
                }
                match other.state {
                    State::Looking => self.on_vote(from, other, out),
                    State::Leading => self.become_following(from, other.round, out),
                    State::Following => self.on_following(other, out),
                }
            }
            (Part::Leading(_), State::Looking) if self.is_heir(from, &other) => self.abdicate(other, out),
            // Whoever looks is told what there is. A leader that looks is none any more, if it
            // says so in a later round than the one that made it.
            (Part::Following(_), State::Looking | State::Following)
                if self.leader == Some(from) && other.round > self.round =>
            {
                self.leave_part(out);
                self.hopeful = true;
                self.heard.push(from);
                match other.state {
                    State::Looking => self.on_vote(from, other, out),
                    _ => self.begin_round(self.round + 1, None, out),
                }
            }
            // Its own patience is longer than one election timeout; but when another has lost it and
            // the leader has been silent for that long, there is no reason to stay.
            (Part::Following(_), State::Looking) if self.leader_is_silent() => {
                self.leave_part(out);
                self.hopeful = true;
                self.on_vote(from, other, out);
            }
            (Part::Following(_) | Part::Leading(_), State::Looking) => self.send_notification(from, out),
            // It may have found another. Discovery decides, and patience.
            (Part::Following(_) | Part::Leading(_), State::Following | State::Leading) => {}
        }
    }

    /// Whether the leader was not heard for an election timeout, or its connection is lost.
    fn leader_is_silent(&self) -> bool {
        self.now + self.wait >= self.patience + self.config.timing.election
    }

    fn on_vote(&mut self, from: NodeId, other: Notification, out: &mut Effects<Self>) {
        if other.round < self.round {
            return self.send_notification(from, out);
        }
        if other.round > self.round {
            self.begin_round(other.round, other.vote, out);
        } else if self.vote.is_none() || other.vote > self.vote {
            let had = self.vote;
            self.vote = if had.is_none() { self.better_vote(other.vote) } else { other.vote };
            if self.vote != had {
                self.tell_vote(had, out);
            }
        } else if other.vote < self.vote {
            self.send_notification(from, out);
        }
        self.votes.retain(|(id, _)| *id != from);
        self.votes.push((from, other.vote));
        self.maybe_elected(out);
    }

    /// Somebody follows a leader. If that leader were here, it would say so itself; if it was
    /// this member, in a life or a round that it has forgotten, those who follow must be told.
    fn on_following(&mut self, other: Notification, out: &mut Effects<Self>) {
        if other.round >= self.round && other.vote.is_some_and(|vote| vote.id == self.config.id) {
            self.begin_round(other.round + 1, None, out);
        }
    }

    fn become_following(&mut self, leader: NodeId, round: u64, out: &mut Effects<Self>) {
        self.leave_part(out);
        self.round = round;
        self.part = Part::Following(Phase::Discovery);
        self.leader = Some(leader);
        self.send_follower_info(out);
    }
}
