//! What others see of a server: the vocabulary of replicated logs, people, and exploration.

use super::progress::Sending;
use super::{Config, Part, Raft, Record, Standing};
use crate::fingerprint::Fingerprint;
use crate::log::{Epoch, Index, LogConfig, LogStatus, Member, Payload, ReplicatedLog, Role};
use crate::types::Time;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hash;

impl ReplicatedLog for Raft {
    const NAME: &'static str = "raft";

    fn config(common: LogConfig) -> Config {
        Config { common }
    }

    fn span(record: &Record) -> Option<(Index, Index)> {
        match record {
            Record::HardState(_) | Record::Snapshot { .. } => None,
            Record::Entries { first, entries } => {
                Some((*first, Index(first.0 + (entries.len() as u64).saturating_sub(1))))
            }
        }
    }

    // Hosts ask after every step, mostly for a part of it.
    #[inline]
    fn status(&self) -> LogStatus {
        LogStatus {
            role: self.role(),
            epoch: self.hard.term.epoch(),
            voted_for: self.hard.voted_for,
            leader: self.leader,
            base: self.log.base(),
            last: self.log.last(),
            last_epoch: self.log.last_epoch().epoch(),
            durable: self.stored,
            committed: self.commit,
            first_in_memory: self.log.first_in_memory(),
            ignored: self.ignored,
        }
    }

    fn restated(&self) -> Record {
        Record::HardState(self.hard_recorded)
    }

    fn members(&self) -> Vec<Member> {
        self.membership.current().members().to_vec()
    }

    fn entry(&self, index: Index) -> Option<(Epoch, &Payload)> {
        self.log.get(index).map(|entry| (entry.term.epoch(), &entry.payload))
    }

    fn describe(&self, now: Time) -> Vec<(&'static str, String)> {
        let part = match (self.standing(), self.part) {
            (Standing::Abstaining, _) => "abstaining: its disk is damaged, and may have lost a vote",
            (Standing::Repairing, _) => "abstaining: its disk lost entries, which it is receiving again",
            (Standing::Learner, _) if !self.membership.current().is_known() => "joining",
            (Standing::Learner, _) if !self.membership.lists(self.config.id) => "not a member any more",
            (Standing::Learner, _) => "learner",
            (Standing::Voter, Part::Follower) => "follower",
            (Standing::Voter, Part::PreCandidate) => "pre-candidate",
            (Standing::Voter, Part::Candidate) => "candidate",
            (Standing::Voter, Part::Leader) => "leader",
        };
        let name = |id: Option<_>| id.map_or("nobody".to_string(), |id: crate::types::NodeId| id.to_string());
        let mut lines = vec![
            ("part", part.to_string()),
            ("term", self.hard.term.to_string()),
            ("voted for", name(self.hard.voted_for)),
            ("leader", name(self.leader)),
            ("log", format!("{}@{}", self.log.last(), self.log.last_epoch())),
            ("log begins after", self.log.base().to_string()),
            ("on disk", self.stored.to_string()),
            ("committed", self.commit.to_string()),
        ];
        if self.part == Part::Leader {
            lines.push(("next heartbeat", in_ms(self.heartbeat_deadline, now)));
            for peer in &self.progress {
                let how = match peer.sending {
                    Sending::Probe { .. } => "probing",
                    Sending::Pipeline => "pipelining",
                    Sending::Snapshot => "offered a snapshot",
                };
                let (id, matched, next) = (peer.id, peer.matched, peer.next);
                lines.push(("peer", format!("{id}: matched {matched}, next {next}, {how}")));
            }
            lines.push(("round", self.reads.latest().to_string()));
            if let Some(until) = self.leased_until() {
                lines.push(("lease ends", in_ms(until, now)));
            }
        } else if self.may_campaign() {
            lines.push(("election timeout", in_ms(self.election_deadline, now)));
        }
        if self.membership.current().is_joint() {
            lines.push(("members", "joint: a quorum needs a majority of the old and of the new".to_string()));
        }
        if let Some(transfer) = &self.transfer {
            lines.push(("handing over to", transfer.heir.to_string()));
        }
        if matches!(self.part, Part::PreCandidate | Part::Candidate) {
            let granted: Vec<_> = self.granted.iter().map(ToString::to_string).collect();
            let what = if granted.is_empty() { "nobody yet".to_string() } else { granted.join(" ") };
            lines.push(("granted by", what));
        }
        lines
    }
}

fn in_ms(deadline: Time, now: Time) -> String {
    format!("in {} ms", deadline.since(now).as_millis())
}

impl Raft {
    pub(super) fn role(&self) -> Role {
        match (self.standing(), self.part) {
            (Standing::Abstaining | Standing::Repairing, _) => Role::Abstaining,
            (Standing::Learner, _) => Role::Learner,
            (Standing::Voter, Part::Follower) => Role::Follower,
            (Standing::Voter, Part::PreCandidate | Part::Candidate) => Role::Candidate,
            (Standing::Voter, Part::Leader) => Role::Leader,
        }
    }

    /// Everything that decides what it will do, except the generator and the counters.
    pub(super) fn digest(&self, now: Time, digest: &mut Fingerprint) {
        let until = |time: Time| time.since(now).as_nanos() as u64;
        let ago = |time: Time| now.since(time).as_nanos() as u64;
        let election = self.config.timing.election.as_nanos() as u64;
        (&self.membership, self.hard, self.hard_recorded, self.storage_full).hash(digest);
        if self.hard.repairing {
            self.repair.hash(digest);
        }
        if self.config.lease.is_some() {
            until(self.promised_until).hash(digest);
        }
        if let Some(transfer) = &self.transfer {
            transfer.digest(until(transfer.deadline), digest);
        }
        self.log.hash(digest);
        (self.stored, self.truncations, self.commit, self.delivered, self.applied).hash(digest);
        (&self.fetch, self.fetched_for).hash(digest);
        for asked in [self.redelivery, self.catch_up] {
            (asked.waiting(), asked.retry().map(until)).hash(digest);
        }
        self.catch_up_wanted.hash(digest);
        (self.part, self.leader, until(self.silent_until)).hash(digest);
        // A contact older than the timeout is like none.
        let contact = self.leader_contact.map(ago).filter(|ago| *ago < election);
        (contact, until(self.election_deadline), self.election_wait, self.to_self.len()).hash(digest);
        for (sent, count) in &self.to_self {
            (ago(*sent).min(election), count).hash(digest);
        }
        match self.part {
            Part::PreCandidate | Part::Candidate => {
                let mut granted = self.granted.clone();
                granted.sort_unstable();
                granted.hash(digest);
            }
            Part::Leader => {
                (until(self.heartbeat_deadline), until(self.quorum_deadline)).hash(digest);
                (&self.reads, self.change, self.lease.void, until(self.lease.until)).hash(digest);
                for (round, began) in &self.lease.rounds {
                    (round, ago(*began)).hash(digest);
                }
                for peer in &self.progress {
                    let ago = |time| ago(time).min(election);
                    peer.digest(ago(peer.heard), ago(peer.pace.since), digest);
                }
            }
            Part::Follower => {}
        }
        self.forwarding.digest(now, digest);
    }
}

impl super::progress::Progress {
    fn digest(&self, heard_ago: u64, pace_ago: u64, digest: &mut Fingerprint) {
        let mut relative = self.clone();
        (relative.heard, relative.pace.since) = (Time::ZERO, Time::ZERO);
        (relative, heard_ago, pace_ago).hash(digest);
    }
}

impl super::transfer::Transfer {
    fn digest(self, deadline: u64, digest: &mut Fingerprint) {
        (Self { deadline: Time::ZERO, ..self }, deadline).hash(digest);
    }
}
