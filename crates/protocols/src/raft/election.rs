//! Elections: pre-vote, votes, and the two reasons to step down unasked.

use super::message::{Message, RequestVote};
use super::record::Term;
use super::{Part, Raft, Standing};
use crate::contract::Effects;
use crate::log::Index;
use crate::types::{NodeId, Time};
use alloc::vec::Vec;
use core::time::Duration;

/// Becoming something else.
impl Raft {
    /// Asks whether an election could be won, without disturbing anybody (section 9.6).
    pub(super) fn become_pre_candidate(&mut self, out: &mut Effects<Self>) {
        self.draw_election_wait();
        self.restart_election_timer();
        if self.is_disk_stalled() {
            // It could not keep a vote for itself: let the others lead, and try again later.
            return;
        }
        self.part = Part::PreCandidate;
        self.leave_leader(out);
        self.leader_contact = None;
        self.fetch = None;
        self.granted.clear();
        let term = self.hard.term.next();
        let request = self.vote_request(term, false);
        // Its own word counts like the others', when everything before it is on disk.
        self.send_to_self(Message::PreVote { term, granted: true }, out);
        for peer in self.voting_peers() {
            // Early: the question promises nothing.
            out.send_early(peer, Message::RequestPreVote(request));
        }
    }

    /// Campaigns: after a pre-vote, or because the leader asked for it (`transfer`).
    pub(super) fn become_candidate(&mut self, transfer: bool, out: &mut Effects<Self>) {
        assert!(transfer || self.part == Part::PreCandidate, "a campaign begins with a pre-vote");
        assert!(self.may_campaign(), "only a voter campaigns");
        if transfer {
            self.leave_leader(out);
            self.leader_contact = None;
        }
        self.part = Part::Candidate;
        self.fetch = None;
        self.hard.term = self.hard.term.next();
        self.hard.voted_for = Some(self.config.id);
        self.granted.clear();
        self.draw_election_wait();
        self.restart_election_timer();
        let term = self.hard.term;
        let request = self.vote_request(term, transfer);
        self.send_to_self(Message::Vote { term, granted: true }, out);
        for peer in self.voting_peers() {
            // Held until its vote for itself is durable: else it might crash, forget the term,
            // campaign in it again with a shorter log and be elected by votes for the longer one.
            out.send(peer, Message::RequestVote(request));
        }
    }

    fn become_leader(&mut self, out: &mut Effects<Self>) {
        assert!(self.part == Part::Candidate, "only a candidate is elected");
        self.part = Part::Leader;
        self.leader = Some(self.config.id);
        self.leader_contact = None;
        self.quorum_deadline = self.now + self.config.timing.election;
        self.heartbeat_deadline = self.now + self.config.timing.heartbeat;
        self.end_transfer(out);
        self.begin_replication(out);
    }

    /// Follows `leader`, or nobody, in `term`, which is not below its own.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>, out: &mut Effects<Self>) {
        assert!(term >= self.hard.term, "a term never goes back");
        if term > self.hard.term {
            self.hard.term = term;
            self.hard.voted_for = None;
            self.leader_contact = None;
        }
        if self.part == Part::Leader {
            self.end_replication(out);
        }
        if self.leader != leader {
            self.leave_leader(out);
            self.leader = leader;
            if leader.is_some() {
                self.end_transfer(out);
            }
        }
        if self.part != Part::Follower {
            self.part = Part::Follower;
            self.leader_contact = None;
            self.draw_election_wait();
            self.restart_election_timer();
        }
    }

    /// Forgets the leader, and answers the reads that wait for it.
    fn leave_leader(&mut self, out: &mut Effects<Self>) {
        self.leader = None;
        self.forwarding.refuse(out);
    }

    /// A leader which has not heard from a quorum for an election timeout steps down (section
    /// 6.2): its clients can then turn to another, and its traffic does not keep voters loyal to a
    /// leader that cannot commit.
    pub(super) fn check_quorum(&mut self, out: &mut Effects<Self>) {
        let heard = self.reached(self.now, |peer| peer.heard).unwrap_or(Time::ZERO);
        self.quorum_deadline = heard + self.config.timing.election;
        if self.now >= self.quorum_deadline {
            self.become_follower(self.hard.term, None, out);
        }
    }

    /// A leader whose disk stalls steps down: its heartbeats would keep the others from electing
    /// one whose disk works.
    pub(super) fn check_disk(&mut self, out: &mut Effects<Self>) {
        if self.is_disk_stalled() {
            self.become_follower(self.hard.term, None, out);
        }
    }
}

/// Votes.
impl Raft {
    pub(super) fn on_request_pre_vote(
        &mut self,
        from: NodeId,
        request: RequestVote,
        out: &mut Effects<Self>,
    ) {
        let term = self.hard.term;
        if request.term > term && self.is_loyal() || self.storage_full {
            return;
        }
        // Would the vote itself be granted? Nothing of its own changes: not its vote, not its
        // leader, not its timer.
        let free = request.term > term
            || request.term == term && self.hard.voted_for.is_none_or(|id| id == from) && !self.is_loyal();
        if free && self.may_vote() && !self.is_up_to_date(&request) {
            // Nothing but its log is against it: it may fetch what it lacks (`fetch`).
            let (last_term, last_index) = self.log_end();
            return out.send(from, Message::LogAhead { term, last_index, last_term });
        }
        let granted = free && self.may_vote() && self.is_up_to_date(&request);
        let term = if granted { request.term } else { term };
        out.send(from, Message::PreVote { term, granted });
    }

    pub(super) fn on_pre_vote(&mut self, from: NodeId, term: Term, granted: bool, out: &mut Effects<Self>) {
        if !granted {
            return self.observe_term(term, out);
        }
        let asked = self.part == Part::PreCandidate && term == self.hard.term.next();
        if asked && self.may_campaign() && self.count_vote(from) {
            self.become_candidate(false, out);
        }
    }

    pub(super) fn on_request_vote(&mut self, from: NodeId, request: RequestVote, out: &mut Effects<Self>) {
        if request.term > self.hard.term {
            // A leader that asks another to campaign wants no loyalty.
            if self.is_loyal() && !request.transfer {
                return;
            }
            self.observe_term(request.term, out);
        }
        if self.storage_full {
            return;
        }
        let term = self.hard.term;
        let granted = request.term == term
            && self.may_vote()
            && self.hard.voted_for.is_none_or(|id| id == from)
            && (self.now >= self.silent_until || request.transfer)
            && self.is_up_to_date(&request);
        if granted {
            self.hard.voted_for = Some(from);
            self.restart_election_timer();
        }
        out.send(from, Message::Vote { term, granted });
    }

    pub(super) fn on_vote(&mut self, from: NodeId, term: Term, granted: bool, out: &mut Effects<Self>) {
        self.observe_term(term, out);
        if granted && self.part == Part::Candidate && term == self.hard.term && self.count_vote(from) {
            self.become_leader(out);
        }
    }

    /// Adopts a higher term, unless the disk has no room to remember it.
    pub(super) fn observe_term(&mut self, term: Term, out: &mut Effects<Self>) {
        if term > self.hard.term && !self.storage_full {
            self.become_follower(term, None, out);
        }
    }

    /// Counts a grant, once for each voter. Returns whether they are a quorum.
    fn count_vote(&mut self, from: NodeId) -> bool {
        if !self.granted.contains(&from) {
            self.granted.push(from);
        }
        self.membership.current().has_quorum(|id| self.granted.contains(&id))
    }

    fn vote_request(&self, term: Term, transfer: bool) -> RequestVote {
        RequestVote { term, last_index: self.log.last(), last_term: self.log.last_epoch(), transfer }
    }

    /// Those whose votes count, but for itself.
    fn voting_peers(&self) -> Vec<NodeId> {
        let current = self.membership.current();
        self.progress.iter().map(|peer| peer.id).filter(|id| current.is_voter(*id)).collect()
    }

    /// Whether it votes if it is asked. Not only voters do: somebody who is a voter in the
    /// candidate's configuration may not know that yet, and the candidate counts nobody else
    /// (section 4.2.2). But a server that joined and is not listed in its own log could also be
    /// one which came back under its old name with a blank disk.
    pub(super) fn may_vote(&self) -> bool {
        let unheard_of = self.hard.joined && !self.membership.lists(self.config.id);
        !self.hard.uncertain && !self.hard.repairing && !unheard_of
    }

    /// Whether a candidate's log is at least as complete as this one (section 3.6.1).
    fn is_up_to_date(&self, request: &RequestVote) -> bool {
        let own: (Term, Index) = self.log_end();
        (request.last_term, request.last_index) >= own
    }

    /// Whether it has reason to believe that there is a leader which has not failed: it leads, it
    /// heard from one within an election timeout, or it has just restarted and cannot know.
    pub(super) fn is_loyal(&self) -> bool {
        let election = self.config.timing.election;
        self.part == Part::Leader
            || self.now < self.silent_until
            || self.config.lease.is_some() && self.now < self.promised_until
            || self.leader_contact.is_some_and(|heard| self.now < heard + election)
    }
}

/// The election timer.
impl Raft {
    /// Whether it campaigns when its timer fires.
    pub(super) fn may_campaign(&self) -> bool {
        self.standing() == Standing::Voter && !self.storage_full
    }

    /// Between one and two election timeouts, so that servers rarely campaign together.
    pub(super) fn draw_election_wait(&mut self) {
        let election = nanos(self.config.timing.election);
        let (from, span) = self.election_slot(election);
        self.election_wait = Duration::from_nanos(self.rng.between(from, from + span - 1));
    }

    /// Where in time it campaigns, after a pause in which nobody does: from when on and over how
    /// long a span. Members of the default priority, 1, wait for up to one more election timeout;
    /// those of a higher one for a shorter part of it, so that they mostly come first; and those
    /// of priority 0 after all others. Everybody campaigns in the end, so that priority never
    /// decides whether there is a leader.
    fn election_slot(&self, span: u64) -> (u64, u64) {
        match self.config.priority {
            0 => (2 * span, span),
            1 => (span, span),
            higher => (span, (span / 4 / u64::from(higher)).max(1)),
        }
    }

    pub(super) fn restart_election_timer(&mut self) {
        self.election_deadline = self.now + self.election_wait;
    }

    /// The connection to the leader is lost, and perhaps the leader with it: campaign soon, after
    /// a small random delay that keeps the followers apart. If the leader is well, the others
    /// still hear from it and ignore the pre-vote; so only a leader that a quorum lost is
    /// replaced. Safety does not rest on timers.
    pub(super) fn hasten_election(&mut self) {
        let heartbeat = nanos(self.config.timing.heartbeat);
        let (from, span) = match self.config.priority {
            0 => (3 * heartbeat, heartbeat),
            1 => (heartbeat / 4, 2 * heartbeat - heartbeat / 4),
            _ => (heartbeat / 8, heartbeat / 8),
        };
        let delay = Duration::from_nanos(self.rng.between(from, from + span));
        self.leader_contact = None;
        self.election_deadline = self.election_deadline.min(self.now + delay);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
}
