//! The proposer: when it campaigns, how it prepares, and why it steps down.

use super::membership::Membership;
use super::message::{Message, Promise};
use super::record::{Pvalue, Value};
use super::{MultiPaxos, Part, Standing};
use crate::ballot::{Ballot, ROUND_MAX};
use crate::contract::Effects;
use crate::log::{Index, LogAsk, Payload};
use crate::types::{NodeId, Time};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// What phase 1 has brought so far.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Phase1 {
    /// From where on acceptors were asked at first.
    first: Index,
    /// The acceptors that have promised, but for this member itself.
    promisers: Vec<Promiser>,
    /// What was accepted under the highest ballot at each slot that is not chosen.
    best: BTreeMap<Index, Pvalue>,
    /// Whether the leader has asked for it.
    transfer: bool,
}

/// An acceptor that has promised. It accepts nothing more before phase 1 ends, so its log stands
/// still and can be fetched piece by piece.
#[derive(Clone, Debug, Hash)]
struct Promiser {
    id: NodeId,
    /// The next slot that it was not asked about.
    next: Index,
    last: Index,
    chosen: Index,
    base: Index,
    /// Whether it has yet to answer about `next`.
    asked: bool,
}

impl Promiser {
    fn has_told_all(&self) -> bool {
        self.next > self.last
    }
}

/// Becoming something else.
impl MultiPaxos {
    /// Asks whether a quorum would promise, without disturbing anybody.
    pub(super) fn become_probing(&mut self, out: &mut Effects<Self>) {
        self.draw_election_wait();
        self.restart_election_timer();
        if self.is_disk_stalled() {
            // It could not keep a promise to itself: let the others lead, and try again later.
            return;
        }
        let Some(ballot) = self.next_attempt() else { return };
        self.part = Part::Probing;
        self.phase1 = Phase1::default();
        self.leave_leader(out);
        self.contact = None;
        // Its own word counts like the others', when everything before it is on disk.
        self.send_to_self(Message::Willing { ballot }, out);
        for peer in &self.progress {
            // Early: the question promises nothing.
            out.send_early(peer.id, Message::Probe { ballot, alpha: self.alpha() });
        }
    }

    /// Phase 1 for all slots that are not known to be chosen.
    pub(super) fn become_preparing(&mut self, transfer: bool, out: &mut Effects<Self>) {
        let ballot = self.attempt;
        assert!(ballot > self.pledge.ballot, "a proposer prepares a ballot that it has never used");
        self.become_follower(ballot, None, out);
        self.part = Part::Preparing;
        self.granted.clear();
        let first = self.chosen.next();
        self.phase1 = Phase1 { first, transfer, ..Phase1::default() };
        self.heartbeat_deadline = self.now + self.config.timing.heartbeat;
        self.draw_election_wait();
        self.restart_election_timer();
        let (last, chosen, base) = (self.log.last(), self.chosen, self.log.base());
        let own = Promise { ballot, first, pvalues: Vec::new(), last, chosen, base };
        self.send_to_self(Message::Promise(own), out);
        for peer in &self.progress {
            // Held until its own promise is durable: else it might crash, forget the ballot, and
            // propose something else under it.
            let alpha = self.alpha();
            out.send(peer.id, Message::Prepare { ballot, from: first, transfer, alpha });
        }
    }

    /// Phase 1 is complete: everything that may have been chosen is proposed again.
    fn become_leader(&mut self, out: &mut Effects<Self>) {
        assert!(
            self.part == Part::Preparing && self.upto == self.chosen,
            "a leader begins after what is chosen"
        );
        self.part = Part::Leader;
        self.leader = Some(self.config.id);
        self.contact = None;
        self.quorum_deadline = self.now + self.config.timing.election;
        self.heartbeat_deadline = self.now + self.config.timing.heartbeat;
        let found = self.highest_accepted();
        let phase1 = core::mem::take(&mut self.phase1);
        let known = phase1.promisers.iter();
        let known = known.map(|promiser| (promiser.id, promiser.chosen, promiser.has_told_all()));
        self.begin_phase2(known.collect(), found, out);
    }

    /// At each open slot what was accepted under the highest ballot, by this member or another. There are
    /// no gaps between them, because no acceptor's log has any.
    fn highest_accepted(&self) -> Vec<Pvalue> {
        let ballot = self.pledge.ballot;
        let noop = Pvalue { ballot, value: Value { origin: ballot, payload: Payload::Noop } };
        let highest = |slot| self.highest_accepted_at(slot).unwrap_or(&noop).clone();
        (self.chosen.next().0..=self.last_found().0).map(Index).map(highest).collect()
    }

    /// What was accepted there under the highest ballot, as far as phase 1 has found.
    fn highest_accepted_at(&self, slot: Index) -> Option<&Pvalue> {
        match (self.phase1.best.get(&slot), self.log.get(slot)) {
            (Some(theirs), Some(own)) if own.ballot > theirs.ballot => Some(own),
            (theirs, own) => theirs.or(own),
        }
    }

    /// The last slot at which anything is known to have been accepted.
    fn last_found(&self) -> Index {
        let theirs = self.phase1.best.last_key_value().map(|(slot, _)| *slot);
        theirs.unwrap_or_default().max(self.log.last())
    }

    /// Follows `leader`, or nobody, under `ballot`, which is not below what it has promised.
    pub(super) fn become_follower(
        &mut self,
        ballot: Ballot,
        leader: Option<NodeId>,
        out: &mut Effects<Self>,
    ) {
        assert!(ballot >= self.pledge.ballot, "a promise is never taken back");
        if ballot > self.pledge.ballot {
            self.pledge.ballot = ballot;
            self.round_seen = self.round_seen.max(ballot.round);
            self.contact = None;
            // Under the new ballot nothing is accepted yet.
            self.upto = self.chosen;
            self.promise_wanted = None;
        }
        if self.part == Part::Leader {
            self.end_phase2(out);
        }
        if self.leader != leader {
            self.leave_leader(out);
            self.leader = leader;
            self.note_transferred(out);
        }
        if self.part != Part::Follower {
            self.part = Part::Follower;
            self.phase1 = Phase1::default();
            self.contact = None;
            self.draw_election_wait();
            self.restart_election_timer();
        }
    }

    /// Forgets the leader, and answers the reads that wait for it.
    fn leave_leader(&mut self, out: &mut Effects<Self>) {
        self.leader = None;
        self.forwarding.refuse(out);
    }

    /// A leader which has not heard from a quorum for an election timeout steps down: its clients
    /// can then turn to another, and its traffic does not keep acceptors loyal to a leader that
    /// can have nothing chosen.
    pub(super) fn check_quorum(&mut self, out: &mut Effects<Self>) {
        let heard = |id| match id == self.config.id {
            true => Some(self.now),
            false => self.peer(id).map(|peer| peer.heard),
        };
        let heard = self.membership.reached(heard).unwrap_or(Time::ZERO);
        self.quorum_deadline = heard + self.config.timing.election;
        if self.now >= self.quorum_deadline {
            self.become_follower(self.pledge.ballot, None, out);
        }
    }

    /// A leader whose disk stalls steps down: its heartbeats would keep the others from preferring
    /// one whose disk works.
    pub(super) fn check_disk(&mut self, out: &mut Effects<Self>) {
        if self.is_disk_stalled() {
            self.become_follower(self.pledge.ballot, None, out);
        }
    }

    /// Somebody has promised a higher ballot. Whoever leads or prepares cannot count on that
    /// acceptor any more, and makes way; the next attempt goes above it.
    pub(super) fn on_preempted(&mut self, promised: Ballot, out: &mut Effects<Self>) {
        self.round_seen = self.round_seen.max(promised.round);
        if promised > self.pledge.ballot && matches!(self.part, Part::Leader | Part::Preparing) {
            self.become_follower(self.pledge.ballot, None, out);
        }
    }
}

/// Phase 1.
impl MultiPaxos {
    pub(super) fn on_willing(&mut self, from: NodeId, ballot: Ballot, out: &mut Effects<Self>) {
        if self.part == Part::Probing && ballot == self.attempt && self.count(from) {
            self.become_preparing(false, out);
        }
    }

    pub(super) fn on_promise(&mut self, from: NodeId, promise: Promise, out: &mut Effects<Self>) {
        if self.part != Part::Preparing || promise.ballot != self.pledge.ballot {
            return;
        }
        let promisers = &mut self.phase1.promisers;
        if from != self.config.id {
            let expected = match promisers.iter().find(|promiser| promiser.id == from) {
                Some(promiser) => promiser.next,
                None => self.phase1.first,
            };
            if promise.first != expected {
                return;
            }
            let Promise { first, last, chosen, base, .. } = promise;
            let next = Index(first.0 + promise.pvalues.len() as u64);
            let promiser = Promiser { id: from, next, last, chosen, base, asked: false };
            match promisers.iter_mut().find(|promiser| promiser.id == from) {
                Some(known) => *known = promiser,
                None => promisers.push(promiser),
            }
            self.take_promised(promise, out);
        }
        self.count(from);
        self.proceed(out);
    }

    /// Learns what the acceptor knows to be chosen, and keeps what it has accepted beyond, unless
    /// something accepted under a higher ballot is known.
    fn take_promised(&mut self, promise: Promise, out: &mut Effects<Self>) {
        let news = !promise.pvalues.is_empty();
        let mut learned = Vec::new();
        for (slot, pvalue) in (promise.first.0..).map(Index).zip(promise.pvalues) {
            let open = Index(self.chosen.0 + learned.len() as u64).next();
            if slot <= promise.chosen {
                if slot == open {
                    learned.push(pvalue.value);
                }
            } else if slot >= open {
                let best = self.phase1.best.entry(slot).or_insert_with(|| pvalue.clone());
                if pvalue.ballot > best.ballot {
                    *best = pvalue;
                }
            }
        }
        if !learned.is_empty() {
            // What is chosen is what every higher ballot proposes; so it may accept it under its own.
            self.accept(learned, out);
            self.learn(self.upto);
            self.phase1.best = self.phase1.best.split_off(&self.chosen.next());
        }
        if news && self.has_quorum() {
            self.restart_election_timer();
        }
    }

    /// Goes on with phase 1: first fetches what is chosen, from the one that knows most of it, since that
    /// says whose promises are needed; then, once there is a quorum of all who may be acceptors of the open
    /// slots, what else they have accepted; and then leads.
    pub(super) fn proceed(&mut self, out: &mut Effects<Self>) {
        if self.part != Part::Preparing {
            return;
        }
        let (ballot, transfer, alpha) = (self.pledge.ballot, self.phase1.transfer, self.alpha());
        let need = self.chosen.next();
        let promisers = &mut self.phase1.promisers;
        let source = promisers.iter_mut().max_by_key(|promiser| promiser.chosen);
        if let Some(source) = source.filter(|source| source.chosen >= need) {
            if source.base >= need {
                out.ask(LogAsk::Snapshot { from: source.id, index: source.base });
            } else if !source.asked || source.next != need {
                (source.next, source.asked) = (need, true);
                out.send(source.id, Message::Prepare { ballot, from: need, transfer, alpha });
            }
            return;
        }
        if !self.membership.has_quorum(|id| self.granted.contains(&id)) {
            return;
        }
        for promiser in promisers.iter_mut().filter(|promiser| promiser.next <= promiser.last) {
            // What it says of chosen slots is known by now.
            let next = promiser.next.max(need);
            let known = next > promiser.last;
            if promiser.next != next {
                (promiser.next, promiser.asked) = (next, false);
            }
            if !promiser.asked && !known {
                promiser.asked = true;
                out.send(promiser.id, Message::Prepare { ballot, from: next, transfer, alpha });
            }
        }
        let promisers = &self.phase1.promisers;
        let told = |promiser: &Promiser| promiser.has_told_all();
        let complete = |id| promisers.iter().any(|promiser| promiser.id == id && told(promiser));
        let own = |id| id == self.config.id && self.granted.contains(&id);
        let told_all = |id| own(id) || complete(id);
        if self.membership.has_quorum(told_all) && self.membership_found().has_quorum(told_all) {
            self.become_leader(out);
        }
    }

    /// The configurations of the window, and those that may be chosen at an open slot: by their members
    /// values may be chosen that the others do not know of.
    fn membership_found(&self) -> Membership {
        let mut membership = self.membership.clone();
        for slot in (self.chosen.next().0..=self.last_found().0).map(Index) {
            let value = self.highest_accepted_at(slot).map(|pvalue| &pvalue.value.payload);
            if let Some(Payload::Membership(entry)) = value {
                membership.consider(entry);
            }
        }
        membership
    }

    /// Repeats what may have been lost. It also keeps those who have promised from campaigning
    /// while this member fetches what it lacks.
    pub(super) fn repeat_prepare(&mut self, out: &mut Effects<Self>) {
        self.heartbeat_deadline = self.now + self.config.timing.heartbeat;
        for i in 0..self.progress.len() {
            self.send_prepare(self.progress[i].id, out);
        }
        self.proceed(out);
    }

    /// Asks `peer` for its promise, or for what it has yet to tell.
    pub(super) fn send_prepare(&mut self, peer: NodeId, out: &mut Effects<Self>) {
        let promiser = self.phase1.promisers.iter().find(|promiser| promiser.id == peer);
        let from = promiser.map_or(self.phase1.first, |promiser| promiser.next);
        let (ballot, transfer, alpha) = (self.pledge.ballot, self.phase1.transfer, self.alpha());
        out.send(peer, Message::Prepare { ballot, from, transfer, alpha });
    }

    /// Counts a word, once for each acceptor. Returns whether they are a quorum.
    fn count(&mut self, from: NodeId) -> bool {
        if !self.granted.contains(&from) {
            self.granted.push(from);
        }
        self.has_quorum()
    }

    /// Whether a quorum of every configuration in the window was willing, or has promised.
    fn has_quorum(&self) -> bool {
        self.membership.has_quorum(|id| self.granted.contains(&id))
    }

    /// A ballot above all that were seen, unless somebody has used up the rounds.
    pub(super) fn next_attempt(&mut self) -> Option<Ballot> {
        self.granted.clear();
        let round = self.round_seen.max(self.pledge.ballot.round) + 1;
        self.attempt = Ballot { round, id: self.config.id };
        (round <= ROUND_MAX).then_some(self.attempt)
    }

    /// Whether it has reason to believe that there is a leader which has not failed: it leads, it
    /// heard from one within an election timeout, or it has just restarted and cannot know.
    pub(super) fn is_loyal(&self) -> bool {
        let election = self.config.timing.election;
        self.part == Part::Leader
            || self.now < self.silent_until
            || self.contact.is_some_and(|heard| self.now < heard + election)
    }
}

/// The election timer.
impl MultiPaxos {
    /// Whether it campaigns when its timer fires.
    pub(super) fn may_campaign(&self) -> bool {
        self.standing() == Standing::Acceptor && !self.storage_full
    }

    /// Between one and two election timeouts, so that members rarely campaign together.
    pub(super) fn draw_election_wait(&mut self) {
        let election = nanos(self.config.timing.election);
        self.election_wait = Duration::from_nanos(self.rng.between(election, 2 * election - 1));
    }

    pub(super) fn restart_election_timer(&mut self) {
        self.election_deadline = self.now + self.election_wait;
    }

    /// The connection to the leader is lost, and perhaps the leader with it: campaign soon, after
    /// a small random delay that keeps the followers apart. If the leader is well, the others
    /// still hear from it and ignore the probe; so only a leader that a quorum lost is replaced.
    pub(super) fn hasten_election(&mut self) {
        let heartbeat = nanos(self.config.timing.heartbeat);
        let delay = Duration::from_nanos(self.rng.between(heartbeat / 4, 2 * heartbeat));
        self.contact = None;
        self.election_deadline = self.election_deadline.min(self.now + delay);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
}
