//! What others see of a member: the vocabulary of replicated logs, people, and exploration.

use super::progress::{Progress, Sending};
use super::{Config, MultiPaxos, Part, Record, Standing};
use crate::fingerprint::Fingerprint;
use crate::log::{Epoch, Index, LogConfig, LogStatus, Member, Payload, ReplicatedLog, Role};
use crate::types::{NodeId, Time};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hash;

impl ReplicatedLog for MultiPaxos {
    const NAME: &'static str = "multi-paxos";
    const LOG_MATCHING: bool = false;

    fn config(common: LogConfig) -> Config {
        Config { common }
    }

    fn span(record: &Record) -> Option<(Index, Index)> {
        match record {
            Record::Promised(_) | Record::Restarted { .. } => None,
            Record::Accepted { first, pvalues, .. } => {
                Some((*first, Index(first.0 + (pvalues.len() as u64).saturating_sub(1))))
            }
        }
    }

    fn status(&self) -> LogStatus {
        LogStatus {
            role: self.role(),
            epoch: self.pledge.ballot.epoch(),
            voted_for: (self.pledge.ballot.id.0 > 0).then_some(self.pledge.ballot.id),
            leader: self.leader,
            base: self.log.base(),
            last: self.log.last(),
            last_epoch: self.log.last_epoch(),
            durable: self.stored,
            committed: self.chosen,
            first_in_memory: self.log.first_in_memory(),
            ignored: self.ignored,
        }
    }

    fn restated(&self) -> Record {
        Record::Promised(self.pledge_recorded)
    }

    fn members(&self) -> Vec<Member> {
        self.membership.members()
    }

    fn entry(&self, index: Index) -> Option<(Epoch, &Payload)> {
        self.log.get(index).map(|pvalue| (pvalue.value.origin.epoch(), &pvalue.value.payload))
    }

    fn describe(&self, now: Time) -> Vec<(&'static str, String)> {
        let part = match (self.standing(), self.part) {
            (Standing::Abstaining, _) => {
                "abstaining: its disk is damaged, and it may have forgotten a promise"
            }
            (Standing::Repairing, _) => "abstaining: its disk lost values, which it is receiving again",
            (Standing::Learner, _) => "learner",
            (Standing::Acceptor, Part::Follower) => "acceptor",
            (Standing::Acceptor, Part::Probing) => "probing",
            (Standing::Acceptor, Part::Preparing) => "preparing: phase 1",
            (Standing::Acceptor, Part::Leader) => "distinguished proposer: phase 2",
        };
        let leader = self.leader.map_or("nobody".to_string(), |id| id.to_string());
        let mut lines = vec![
            ("part", part.to_string()),
            ("promised ballot", self.pledge.ballot.to_string()),
            ("leader", leader),
            ("accepted", format!("up to {} under it, {} in all", self.upto, self.log.last())),
            ("on disk", self.stored.to_string()),
            ("chosen", self.chosen.to_string()),
        ];
        if let Some(first) = self.membership.pending() {
            lines.push(("change of members", format!("governs from slot {first} on")));
        }
        if self.part == Part::Leader {
            let end = self.membership.window_end(self.chosen);
            lines.push(("window", format!("up to {end}, {} waiting", self.waiting.len())));
            lines.push(("next heartbeat", in_ms(self.heartbeat_deadline, now)));
            for peer in &self.progress {
                let how = match peer.sending {
                    Sending::Probe { .. } => "probing",
                    Sending::Pipeline => "pipelining",
                };
                let (id, accepted, next) = (peer.id, peer.accepted, peer.next);
                lines.push(("peer", format!("{id}: accepted {accepted}, next {next}, {how}")));
            }
            lines.push(("read round", self.reads.latest().to_string()));
        } else if self.may_campaign() {
            lines.push(("election timeout", in_ms(self.election_deadline, now)));
        }
        if matches!(self.part, Part::Probing | Part::Preparing) {
            lines.push(("attempt", self.attempt.to_string()));
            let granted: Vec<_> = self.granted.iter().map(ToString::to_string).collect();
            let what = if granted.is_empty() { "nobody yet".to_string() } else { granted.join(" ") };
            let how = if self.part == Part::Probing { "willing" } else { "promised by" };
            lines.push((how, what));
        }
        lines
    }
}

fn in_ms(deadline: Time, now: Time) -> String {
    format!("in {} ms", deadline.since(now).as_millis())
}

impl MultiPaxos {
    pub(super) fn role(&self) -> Role {
        match (self.standing(), self.part) {
            (Standing::Abstaining | Standing::Repairing, _) => Role::Abstaining,
            (Standing::Learner, _) => Role::Learner,
            (Standing::Acceptor, Part::Follower) => Role::Follower,
            (Standing::Acceptor, Part::Probing | Part::Preparing) => Role::Candidate,
            (Standing::Acceptor, Part::Leader) => Role::Leader,
        }
    }

    /// Everything that decides what it will do, except the generator and the counters.
    pub(super) fn digest(&self, now: Time, digest: &mut Fingerprint) {
        let until = |time: Time| time.since(now).as_nanos() as u64;
        let ago = |time: Time| now.since(time).as_nanos() as u64;
        let election = self.config.timing.election.as_nanos() as u64;
        (self.pledge, &self.membership, self.round_seen, self.storage_full).hash(digest);
        self.repair.digest(now, digest);
        self.log.hash(digest);
        (self.upto, self.writing, self.stored).hash(digest);
        (self.chosen, self.delivered, self.applied).hash(digest);
        for asked in [self.redelivery, self.catch_up] {
            (asked.waiting(), asked.retry().map(until)).hash(digest);
        }
        (self.catch_up_wanted, self.promise_wanted).hash(digest);
        (self.part, self.leader, until(self.silent_until)).hash(digest);
        // A contact older than the timeout is like none.
        let contact = self.contact.map(ago).filter(|ago| *ago < election);
        (contact, until(self.election_deadline), self.election_wait, self.to_self.len()).hash(digest);
        for (sent, count) in &self.to_self {
            (ago(*sent).min(election), count).hash(digest);
        }
        match self.part {
            Part::Probing | Part::Preparing => {
                let mut granted: Vec<NodeId> = self.granted.clone();
                granted.sort_unstable();
                (granted, self.attempt).hash(digest);
                if self.part == Part::Preparing {
                    self.phase1.hash(digest);
                    until(self.heartbeat_deadline).hash(digest);
                }
            }
            Part::Leader => {
                (until(self.heartbeat_deadline), until(self.quorum_deadline)).hash(digest);
                (self.opening, &self.waiting, self.chosen_at_heartbeat).hash(digest);
                self.change.digest(now, digest);
                self.reads.hash(digest);
                for peer in &self.progress {
                    let mut relative: Progress = peer.clone();
                    relative.heard = Time::ZERO;
                    (relative, ago(peer.heard).min(election)).hash(digest);
                }
            }
            Part::Follower => {}
        }
        if let Some(transfer) = &self.transfer {
            transfer.digest(until(transfer.deadline), digest);
        }
        self.forwarding.digest(now, digest);
    }
}

impl super::transfer::Transfer {
    fn digest(&self, left: u64, digest: &mut Fingerprint) {
        let mut relative = self.clone();
        relative.deadline = Time::ZERO;
        (relative, left).hash(digest);
    }
}
