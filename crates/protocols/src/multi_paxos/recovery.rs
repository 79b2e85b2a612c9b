//! A member from what its disk held, and what it does if that is not all (protocol-aware recovery, FAST
//! 2018).
//!
//! A damaged record is not one that never was: the acceptor may have promised what it held, and a value
//! may be chosen on the strength of what it had accepted. It therefore goes on counting towards the size
//! of every quorum, and says nothing that it cannot vouch for:
//!
//! - Where the last promise that is known comes before the damage, one may be lost. The acceptor *abstains*
//!   from everything, for ever.
//! - Where it comes after all damage (hosts restate it at the head of each segment), only values are lost.
//!   The acceptor is *under repair*: it promises nothing and does not campaign, because a Promise says what
//!   was accepted; it drops its log and accepts from the leader like a learner.
//!
//! # When the repair is complete
//!
//! It asks the leader up to where that has a value for a slot, proposed or waiting to be, and is whole when
//! its disk has all slots up to there, accepted under that leader's ballot or known to be chosen.
//!
//! Let that ballot be b, which is not below what the acceptor has promised. What it accepted under a lower
//! ballot and may be chosen, phase 1 of b has found: a quorum promised b, this acceptor either not among it
//! or, before the damage, with its whole log; and it is at a slot for which the leader has a value since. What
//! it accepted under b itself the leader had proposed before it answered. So it has back all that may rest on
//! it, and may promise again. Meanwhile that it has accepted something is true of its disk, and counts.

use super::log::Log;
use super::membership::Membership;
use super::message::Message;
use super::record::{Pledge, Pvalue, Record};
use super::{MultiPaxos, Part};
use crate::ballot::Ballot;
use crate::contract::Effects;
use crate::fingerprint::Fingerprint;
use crate::log::{Index, LogBase, SnapshotPoint};
use crate::types::{NodeId, Time};
use alloc::vec::Vec;
use core::hash::Hash;

/// What a member under repair knows about the end of its repair.
#[derive(Clone, Debug, Default)]
pub(super) struct Repair {
    /// This life's number for its question.
    pub(super) nonce: u64,
    asked: Option<Time>,
    /// The ballot of the leader that answered, and where its values ended.
    target: Option<(Ballot, Index)>,
}

impl Repair {
    /// What decides how it goes on, with times relative to now.
    pub(super) fn digest(&self, now: Time, digest: &mut Fingerprint) {
        (self.target, self.asked.map(|asked| now.since(asked).as_nanos() as u64)).hash(digest);
    }
}

/// From records to a member.
impl MultiPaxos {
    /// Takes in what the disk held, `None` for what is lost, keeping only the end of the log in memory, and
    /// decides what the member may still promise. `damaged`: the host knows that records are lost.
    pub(super) fn replay(
        &mut self,
        base: &LogBase,
        damaged: bool,
        records: &mut dyn Iterator<Item = Option<Record>>,
        out: &mut Effects<Self>,
    ) {
        let point = base.snapshot.clone().unwrap_or_default();
        let (mut promise_is_certain, mut log_is_certain) = (true, true);
        for record in records {
            match record {
                None => (promise_is_certain, log_is_certain) = (false, false),
                Some(Record::Promised(pledge)) => {
                    self.take_pledge(pledge, &point);
                    promise_is_certain = !pledge.uncertain;
                }
                Some(Record::Restarted { after }) => {
                    self.begin_log(&point);
                    log_is_certain = after <= point.index;
                }
                Some(Record::Accepted { first, pvalues, chosen }) => {
                    let from_the_start = first <= point.index.next();
                    if from_the_start && !log_is_certain {
                        // It repeats all that was accepted after the point: what was lost is of no account.
                        self.begin_log(&point);
                        log_is_certain = true;
                    }
                    log_is_certain = log_is_certain && self.take_accepted(first, pvalues, chosen);
                }
            }
        }
        // Whatever was accepted was promised, in the same step at the latest.
        let accepted = self.log.range(Index::ZERO, self.log.last()).map(|pvalue| pvalue.ballot).max();
        promise_is_certain &= accepted.is_none_or(|ballot| ballot <= self.pledge.ballot);
        // What was applied was durable here before; so the log has lost it.
        log_is_certain &= self.pledge.repairing || base.applied <= self.log.last();
        if !promise_is_certain || !log_is_certain && !damaged {
            // If the host says that everything is there, and it is not, nothing can be relied on.
            self.pledge.uncertain = true;
        } else if !log_is_certain {
            self.begin_log(&point);
            self.pledge.repairing = true;
            // What earlier records hold is not to be taken for this log again.
            out.record(Record::Restarted { after: point.index });
        }
    }

    fn take_pledge(&mut self, pledge: Pledge, point: &SnapshotPoint) {
        if pledge.joined && !self.pledge.joined && self.log.last() == self.log.base() {
            self.pledge.joined = true;
            self.begin_log(point);
        }
        let joined = self.pledge.joined || pledge.joined;
        self.pledge = Pledge { ballot: pledge.ballot.max(self.pledge.ballot), joined, ..pledge };
        self.pledge_recorded = self.pledge;
    }

    /// Returns whether it follows on what is before it: else a record in the middle is missing.
    fn take_accepted(&mut self, first: Index, mut pvalues: Vec<Pvalue>, chosen: Index) -> bool {
        // What a snapshot covers is not taken again.
        let covered = self.log.base().next().0.saturating_sub(first.0) as usize;
        if covered >= pvalues.len() {
            return true;
        }
        let first = first.max(self.log.base().next());
        if first > self.log.last().next() || first < self.log.first_in_memory() {
            return false;
        }
        self.log.replace(first, &pvalues.split_off(covered));
        if chosen > self.log.last() {
            return false;
        }
        self.note_chosen(chosen);
        while self.log.bytes() > self.config.limits.tail_bytes_max
            && self.log.first_in_memory() <= self.chosen
        {
            self.log.evict_first();
        }
        true
    }

    /// An empty log after what the host's state covers.
    fn begin_log(&mut self, point: &SnapshotPoint) {
        self.log = Log::after(point.clone());
        self.chosen = point.index;
        match Membership::after(point, &self.config.members, self.pledge.joined, self.alpha()) {
            Some(membership) => self.membership = membership,
            None => self.pledge.uncertain = true,
        }
    }

    /// Starts where the host's state machine stands. What it applied was chosen.
    pub(super) fn resume_at(&mut self, applied: Index) {
        self.round_seen = self.pledge.ballot.round;
        let (base, last) = (self.log.base(), self.log.last());
        let chosen = applied.clamp(base, last);
        self.note_chosen(chosen);
        // A log under repair is behind the state.
        let done = if self.pledge.repairing { applied.max(base) } else { chosen };
        (self.delivered, self.applied) = (done, done);
        self.stored = last;
        self.writing = self.pledge.ballot;
        self.upto = self.chosen;
        while self.log.get(self.upto.next()).is_some_and(|pvalue| pvalue.ballot == self.pledge.ballot) {
            self.upto = self.upto.next();
        }
        self.count_open_bytes();
    }
}

/// Repair.
impl MultiPaxos {
    /// The leader of the promised ballot has spoken: up to where does it have values?
    pub(super) fn maybe_ask_for_the_end(&mut self, leader: NodeId, out: &mut Effects<Self>) {
        let recently = self.repair.asked.is_some_and(|asked| self.now < asked + self.config.timing.heartbeat);
        let known = self.repair.target.is_some_and(|(ballot, _)| ballot == self.pledge.ballot);
        if self.pledge.repairing && !known && !recently {
            self.repair.asked = Some(self.now);
            // Early: the question promises nothing.
            out.send_early(leader, Message::RequestLogEnd { nonce: self.repair.nonce });
        }
    }

    pub(super) fn on_request_log_end(&mut self, from: NodeId, nonce: u64, out: &mut Effects<Self>) {
        if self.part == Part::Leader {
            if let Some(peer) = self.progress.iter_mut().find(|peer| peer.id == from) {
                // It no longer holds what it has acknowledged.
                peer.accepted = Index::ZERO;
            }
            let (ballot, last) = (self.pledge.ballot, self.last_wanted());
            // Early: if the leader forgets some of it in a crash, it asked for too much.
            out.send_early(from, Message::LogEnd { nonce, ballot, last });
        }
    }

    pub(super) fn on_log_end(&mut self, from: NodeId, nonce: u64, ballot: Ballot, last: Index) {
        let expected = self.pledge.repairing && nonce == self.repair.nonce && ballot.id == from;
        if !expected {
            self.ignored += 1;
        } else if ballot == self.pledge.ballot && self.repair.target.is_none_or(|(of, _)| of != ballot) {
            self.repair.target = Some((ballot, last));
        }
    }

    /// Ends the repair when the disk holds what the leader had.
    pub(super) fn maybe_end_repair(&mut self) {
        let held = self.upto.min(self.stored);
        let complete = |(ballot, last)| ballot == self.pledge.ballot && last <= held;
        // The host's state holds nothing that is not chosen, and the leader had all that is.
        if self.pledge.repairing && self.repair.target.is_some_and(complete) && self.delivered <= held {
            self.learn(self.delivered);
            // Recorded with this step: a crash before that only repeats the end of the repair.
            self.pledge.repairing = false;
            self.draw_election_wait();
            self.restart_election_timer();
        }
    }
}
