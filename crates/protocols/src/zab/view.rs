//! What others see of a member: the vocabulary of replicated logs, people, and exploration.

use super::learner::{Learner, Sending};
use super::{Config, Part, Phase, Record, Zab};
use crate::fingerprint::Fingerprint;
use crate::log::{Epoch, Index, LogConfig, LogStatus, Member, Payload, ReplicatedLog, Role};
use crate::types::{NodeId, Time};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hash;

impl ReplicatedLog for Zab {
    const NAME: &'static str = "zab";

    fn config(common: LogConfig) -> Config {
        Config { common }
    }

    fn span(record: &Record) -> Option<(Index, Index)> {
        match record {
            Record::Epochs(_) | Record::Truncated { .. } => None,
            Record::Entries { first, entries } => {
                Some((*first, Index(first.0 + (entries.len() as u64).saturating_sub(1))))
            }
        }
    }

    /// The epoch is currentEpoch: a member that leads has its own there, and no other member ever
    /// leads under it. While it looks for a leader it is still that of the last one.
    fn status(&self) -> LogStatus {
        LogStatus {
            role: self.role(),
            epoch: self.epochs.current,
            voted_for: self.epochs.accepted_from,
            leader: self.leader_known(),
            base: self.history.base().counter,
            last: self.history.last(),
            last_epoch: self.history.last_epoch(),
            durable: self.stored,
            committed: self.commit,
            first_in_memory: self.history.first_in_memory(),
            ignored: self.ignored,
        }
    }

    fn restated(&self) -> Record {
        Record::Epochs(self.epochs_recorded)
    }

    fn members(&self) -> Vec<Member> {
        self.membership.current().members().to_vec()
    }

    fn entry(&self, index: Index) -> Option<(Epoch, &Payload)> {
        self.history.get(index).map(|entry| (entry.epoch, &entry.payload))
    }

    fn describe(&self, now: Time) -> Vec<(&'static str, String)> {
        let part = match (self.is_participant(), self.part) {
            _ if self.epochs.uncertain => {
                "abstaining: its disk is damaged, and it may have forgotten a promise"
            }
            _ if self.epochs.repairing => "abstaining: its disk lost entries, which it is receiving again",
            (_, Part::Looking) => "looking",
            (false, Part::Following(Phase::Discovery)) => "observing: discovery",
            (false, Part::Following(Phase::Synchronization)) => "observing: synchronisation",
            (false, _) => "observing",
            (_, Part::Following(Phase::Discovery)) => "following: discovery",
            (_, Part::Following(Phase::Synchronization)) => "following: synchronisation",
            (_, Part::Following(Phase::Broadcast)) => "following",
            (_, Part::Leading(Phase::Discovery)) => "leading: discovery",
            (_, Part::Leading(Phase::Synchronization)) => "leading: synchronisation",
            (_, Part::Leading(Phase::Broadcast)) => "leading",
        };
        let name = |id: Option<NodeId>| id.map_or("nobody".to_string(), |id| id.to_string());
        let accepted = match self.epochs.accepted_from {
            Some(id) => format!("{} of {id}", self.epochs.accepted.0),
            None => self.epochs.accepted.0.to_string(),
        };
        let mut lines = vec![
            ("part", part.to_string()),
            ("accepted epoch", accepted),
            ("current epoch", self.epochs.current.0.to_string()),
            ("leader", name(self.leader)),
            ("history", self.history.last_zxid().to_string()),
            ("on disk", self.stored.to_string()),
            ("committed", self.commit.to_string()),
        ];
        match self.part {
            Part::Looking => {
                lines.push(("round", self.round.to_string()));
                lines.push(("vote", name(self.vote.map(|vote| vote.id))));
                lines.push(("next round", in_ms(self.patience, now)));
            }
            Part::Following(_) => lines.push(("patience ends", in_ms(self.patience, now))),
            Part::Leading(_) => {
                lines.push(("next ping", in_ms(self.repeat, now)));
                if let Some(id) = self.fetching {
                    lines.push(("fetches history", format!("of {id}")));
                }
                lines.extend(self.learners.iter().map(|learner| ("learner", learner.describe())));
                lines.push(("round of reads", self.reads.latest().to_string()));
            }
        }
        lines
    }
}

impl Learner {
    fn describe(&self) -> String {
        let how = match self.sending {
            Sending::Nothing if self.following => "discovery",
            Sending::Nothing => "not here",
            Sending::Probe { last, to } if last == to => "DIFF",
            Sending::Probe { .. } => "TRUNC",
            Sending::Snapshot => "SNAP",
            Sending::Stream => "stream",
        };
        format!("{}: acknowledged {}, next {}, {how}", self.id, self.matched, self.next)
    }
}

fn in_ms(deadline: Time, now: Time) -> String {
    format!("in {} ms", deadline.since(now).as_millis())
}

impl Zab {
    pub(super) fn role(&self) -> Role {
        let own = |id| id == self.config.id;
        match self.part {
            _ if self.epochs.uncertain || self.epochs.repairing => Role::Abstaining,
            Part::Leading(Phase::Broadcast) => Role::Leader,
            _ if !self.is_participant() => Role::Learner,
            Part::Leading(_) => Role::Candidate,
            Part::Looking if self.vote.is_some_and(|vote| own(vote.id)) => Role::Candidate,
            Part::Looking | Part::Following(_) => Role::Follower,
        }
    }

    /// Everything that decides what it will do, except the generator and the counters.
    pub(super) fn digest(&self, now: Time, digest: &mut Fingerprint) {
        let until = |time: Time| time.since(now).as_nanos() as u64;
        let ago = |time: Time| now.since(time).as_nanos() as u64;
        let election = self.config.timing.election.as_nanos() as u64;
        (self.repair.target, &self.membership, self.epochs, self.epochs_recorded, self.storage_full)
            .hash(digest);
        self.history.hash(digest);
        (self.stored, self.cuts, self.commit, self.delivered, self.applied).hash(digest);
        for asked in [self.redelivery, self.catch_up] {
            (asked.waiting(), asked.retry().map(until)).hash(digest);
        }
        (self.part, self.leader, self.round, self.vote).hash(digest);
        (until(self.patience), self.wait, until(self.repeat), self.to_self.len()).hash(digest);
        for (sent, count) in &self.to_self {
            (ago(*sent).min(election), count).hash(digest);
        }
        match self.part {
            Part::Looking => {
                let mut votes = self.votes.clone();
                votes.sort_unstable();
                let mut heard = self.heard.clone();
                heard.sort_unstable();
                (votes, heard, self.hopeful).hash(digest);
            }
            Part::Following(_) => (self.agreed, self.fetch_asked).hash(digest),
            Part::Leading(_) => {
                (self.epoch, self.accepted_seen, self.promised, self.fetching, self.adopted).hash(digest);
                (self.start, until(self.quorum_deadline), self.catch_up_wanted, self.commit_pinged)
                    .hash(digest);
                (self.change.is_some(), self.transfer.map(|transfer| transfer.heir)).hash(digest);
                self.reads.hash(digest);
                for learner in &self.learners {
                    let heard_ago = ago(learner.heard).min(election);
                    let mut relative = learner.clone();
                    relative.heard = Time::ZERO;
                    (relative, heard_ago).hash(digest);
                }
            }
        }
        self.forwarding.digest(now, digest);
    }
}
