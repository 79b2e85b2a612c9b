//! What others see of a replica: the vocabulary of replicated logs, people, and exploration.

use super::progress::Sending;
use super::view_change::Campaign;
use super::{Config, OpNumber, Record, Standing, Status, Viewstamped};
use crate::fingerprint::Fingerprint;
use crate::log::{Epoch, Index, LogConfig, LogStatus, Member, Payload, ReplicatedLog, Role};
use crate::types::{NodeId, Time};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hash;

impl ReplicatedLog for Viewstamped {
    const NAME: &'static str = "viewstamped";

    fn config(common: LogConfig) -> Config {
        Config { common }
    }

    fn span(record: &Record) -> Option<(Index, Index)> {
        match record {
            Record::Views(_) | Record::Restart { .. } => None,
            Record::Entries { first, entries, .. } => {
                Some((*first, Index(first.0 + (entries.len() as u64).saturating_sub(1))))
            }
        }
    }

    fn status(&self) -> LogStatus {
        LogStatus {
            role: self.role(),
            epoch: self.views.view.epoch(),
            voted_for: self.epochs.current.primary(self.views.view),
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
        Record::Views(self.views_recorded)
    }

    fn members(&self) -> Vec<Member> {
        self.configured()
    }

    fn entry(&self, index: Index) -> Option<(Epoch, &Payload)> {
        self.log.get(index).map(|entry| (entry.view.epoch(), &entry.payload))
    }

    fn describe(&self, now: Time) -> Vec<(&'static str, String)> {
        let status = match (self.standing, self.status) {
            (Standing::Abstaining, _) => "abstaining: its disk is damaged",
            (Standing::Recovering, Status::Normal) => "recovering, normal",
            (Standing::Recovering, Status::ViewChange) => "recovering",
            (Standing::Learner, _) => "learner",
            (Standing::Replica, Status::Normal) if self.is_primary() => "normal, primary",
            (Standing::Replica, Status::Normal) => "normal, backup",
            (Standing::Replica, Status::ViewChange) => "view-change",
        };
        let name = |id: Option<NodeId>| id.map_or("nobody".to_string(), |id| id.to_string());
        let mut lines = vec![
            ("status", status.to_string()),
            ("epoch-number", self.views.view.epoch_number().0.to_string()),
            ("view-number", self.views.view.number().to_string()),
            ("last normal view", self.views.last_normal.to_string()),
            ("primary of the view", name(self.epochs.current.primary(self.views.view))),
            ("primary heard", name(self.leader)),
            ("op-number", format!("{}@{}", self.log.last(), self.log.last_epoch())),
            ("on disk", self.stored.to_string()),
            ("commit-number", self.commit.to_string()),
        ];
        if self.is_primary() {
            lines.push(("view starts with", self.start.to_string()));
            lines.push(("next Commit", in_ms(self.heartbeat_deadline, now)));
            for peer in &self.progress {
                let how = match peer.sending {
                    Sending::Waiting => "waiting for its answer",
                    Sending::State => "owed state",
                    Sending::Pipeline => "pipelining",
                };
                let (id, matched, next) = (peer.id, peer.matched, peer.next);
                lines.push(("backup", format!("{id}: has {matched}, next {next}, {how}")));
            }
            lines.push(("round", self.reads.latest().to_string()));
            if let Some(until) = self.leased_until() {
                lines.push(("lease ends", in_ms(until, now)));
            }
        } else if self.may_campaign() {
            lines.push(("timeout", in_ms(self.wait_deadline, now)));
        }
        lines.extend(self.campaign.describe());
        lines.extend(self.describe_epoch());
        lines
    }
}

fn in_ms(deadline: Time, now: Time) -> String {
    format!("in {} ms", deadline.since(now).as_millis())
}

impl Campaign {
    fn describe(&self) -> Option<(&'static str, String)> {
        let list = |ids: &[NodeId]| match ids {
            [] => "nobody yet".to_string(),
            ids => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        };
        match self {
            Campaign::None => None,
            Campaign::Asking { view, willing } => {
                Some(("would follow", format!("into view {view}: {}", list(willing))))
            }
            Campaign::Collecting { received, .. } => Some(("DoViewChanges", list(received))),
            Campaign::Fetching { best, op, op_view, .. } => {
                Some(("fetching", format!("the log of {best} up to {op}@{op_view}")))
            }
        }
    }
}

impl Viewstamped {
    pub(super) fn role(&self) -> Role {
        match self.standing {
            Standing::Abstaining | Standing::Recovering => Role::Abstaining,
            Standing::Learner => Role::Learner,
            Standing::Replica if self.is_primary() => Role::Leader,
            Standing::Replica if self.campaign != Campaign::None => Role::Candidate,
            Standing::Replica => Role::Follower,
        }
    }

    pub(super) fn configured(&self) -> Vec<Member> {
        self.epochs.current.members().members().to_vec()
    }

    /// What an end of its epoch, or a beginning, waits for.
    fn describe_epoch(&self) -> Option<(&'static str, String)> {
        if let Some(handover) = &self.handover {
            return Some(("replaced", handover.describe()));
        }
        if !self.knows_epoch() {
            let known = self.epochs.current.epoch.0;
            return Some(("transitioning", format!("it knows the members of epoch {known}")));
        }
        let next = self.ending()?;
        Some(("epoch ends with", format!("{}, then epoch {}", self.log.last(), next.epoch.0)))
    }

    /// Everything that decides what it will do, except the generator and the counters.
    pub(super) fn digest(&self, now: Time, digest: &mut Fingerprint) {
        let until = |time: Time| time.since(now).as_nanos() as u64;
        let ago = |time: Time| now.since(time).as_nanos() as u64;
        let election = self.config.timing.election.as_nanos() as u64;
        (self.standing, self.status, self.views, self.views_recorded, self.storage_full).hash(digest);
        (&self.epochs, self.change.is_some(), self.told_replaced).hash(digest);
        let handover = self.handover.as_ref();
        handover.map(|handover| (handover.started(), until(handover.repeat))).hash(digest);
        self.log.hash(digest);
        let marks: (OpNumber, OpNumber, OpNumber, OpNumber) =
            (self.stored, self.commit, self.delivered, self.applied);
        marks.hash(digest);
        for asked in [self.redelivery, self.catch_up] {
            (asked.waiting(), asked.retry().map(until)).hash(digest);
        }
        (self.leader, until(self.silent_until)).hash(digest);
        // A contact older than the timeout is like none.
        let contact = self.leader_contact.map(ago).filter(|ago| *ago < election);
        (contact, until(self.wait_deadline), self.wait, self.attempts, self.view_seen).hash(digest);
        if self.config.lease.is_some() {
            until(self.promised_until).hash(digest);
        }
        self.to_self.len().hash(digest);
        for (sent, count) in &self.to_self {
            (ago(*sent).min(election), count).hash(digest);
        }
        let heartbeat = self.config.timing.heartbeat.as_nanos() as u64;
        self.state_asked.map(ago).filter(|ago| *ago < heartbeat).hash(digest);
        self.campaign.hash(digest);
        (self.replayed, self.recovery.target, self.recovery.asked.map(ago)).hash(digest);
        self.transfer.map(|transfer| (transfer.to, until(transfer.deadline))).hash(digest);
        if self.is_primary() {
            (self.start, until(self.heartbeat_deadline), until(self.quorum_deadline)).hash(digest);
            (self.commit_asked, self.lease.void, until(self.lease.until)).hash(digest);
            for (round, began) in &self.lease.rounds {
                (round, ago(*began)).hash(digest);
            }
            self.reads.hash(digest);
        }
        for peer in &self.progress {
            let mut relative = peer.clone();
            relative.heard = Time::ZERO;
            let heard = if self.is_primary() { ago(peer.heard).min(election) } else { 0 };
            (relative, heard).hash(digest);
        }
        self.forwarding.digest(now, digest);
    }
}
