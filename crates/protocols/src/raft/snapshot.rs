//! Where the log begins: cutting it behind the host's state, and taking a leader's state instead
//! of entries which that leader no longer has (dissertation, chapter 5).
//!
//! A snapshot never passes through a step. A leader whose log has been cut *offers* its state; the
//! follower asks its host to fetch it, from host to host, and the host answers when the state is
//! durable in the place of its own. Only then does the follower's log change. So there are three
//! moments at which a crash may come: before the state is durable, nothing has happened; after
//! it and before the process has recorded what it means for its log, recovery draws the same
//! conclusion from the point that the host names; after that, the record says it.

use super::message::{AppendEntriesReply, InstallSnapshot, Message, Outcome};
use super::progress::Sending;
use super::record::{Log, Record, Term};
use super::{Part, Raft};
use crate::contract::Effects;
use crate::host_read::HostRead;
use crate::log::{Index, LogAsk, SnapshotPoint};
use crate::membership::{Configuration, Membership};
use crate::types::NodeId;
use crate::wire::Wire;

/// At a member whose host has a snapshot of its own.
impl Raft {
    /// The host's state covers the log up to `point` durably.
    pub(super) fn on_compact(&mut self, point: SnapshotPoint, out: &mut Effects<Self>) {
        if point.index <= self.log.base() {
            return;
        }
        let term = Term(point.epoch.0);
        if point.index <= self.delivered && self.log.epoch_at(point.index) == Some(term) {
            self.log.compact(point.index, term);
            self.offer_where_cut(out);
        } else if self.delivered > self.log.last() {
            // The log is being repaired, and the host's state is ahead of it.
            self.on_snapshot(point, out);
        } else {
            self.ignored += 1;
        }
    }

    /// Peers that have yet to receive what has been cut off get the state instead.
    fn offer_where_cut(&mut self, out: &mut Effects<Self>) {
        for i in 0..self.progress.len() {
            if self.part == Part::Leader && self.progress[i].next <= self.log.base() {
                self.replicate(i, out);
            }
        }
    }

    pub(super) fn send_snapshot_offer(&mut self, i: usize, out: &mut Effects<Self>) {
        let index = self.log.base();
        let index_term = self.log.epoch_at(index).unwrap_or_default();
        let peer = &mut self.progress[i];
        if peer.sending != Sending::Snapshot {
            peer.offer_snapshot();
        }
        let offer = InstallSnapshot { term: self.hard.term, index, index_term, round: self.reads.latest() };
        // Early: the state is on this host's disk, and this server never leads the term again if
        // it restarts.
        out.send_early(peer.id, Message::InstallSnapshot(offer));
    }
}

/// At a member that lacks what the leader has cut off.
impl Raft {
    pub(super) fn on_install_snapshot(
        &mut self,
        from: NodeId,
        offer: InstallSnapshot,
        out: &mut Effects<Self>,
    ) {
        let InstallSnapshot { term, index, index_term, round } = offer;
        if term < self.hard.term {
            let reply = AppendEntriesReply { term: self.hard.term, round: 0, outcome: Outcome::Stale };
            return out.send(from, Message::AppendEntriesReply(reply));
        }
        if self.storage_full && term > self.hard.term {
            return;
        }
        let second_leader = term == self.hard.term && self.leader.is_some_and(|leader| leader != from);
        if second_leader || index_term > term || index == Index::ZERO {
            self.ignored += 1;
            return;
        }
        self.hear_from_leader(from, term, out);
        let covered = index <= self.commit || self.log.epoch_at(index) == Some(index_term);
        let outcome = if covered {
            // What a snapshot covers is committed.
            if index > self.commit {
                self.commit_to(index);
            }
            Outcome::Matched { index }
        } else {
            if !self.storage_full {
                out.ask(LogAsk::Snapshot { from, index });
            }
            Outcome::Fetching
        };
        self.note_repaired(from, covered.then_some(index), out);
        // Held: it may acknowledge what is not on disk yet.
        out.send(from, Message::AppendEntriesReply(AppendEntriesReply { term, round, outcome }));
    }

    /// The host's state is now one that covers the log up to `point`.
    pub(super) fn on_snapshot(&mut self, point: SnapshotPoint, out: &mut Effects<Self>) {
        let (index, term) = (point.index, Term(point.epoch.0));
        let configuration = self.configuration_at(&point);
        let news = index > self.log.base() && index >= self.delivered;
        let (true, Some(configuration)) = (news, configuration) else {
            self.ignored += 1;
            return;
        };
        if self.log.epoch_at(index) == Some(term) {
            // Logs that agree at one position agree before it: only the state was behind.
            if index > self.commit {
                self.commit_to(index);
            }
            self.log.compact(index, term);
            self.stored = self.stored.max(index);
            self.offer_where_cut(out);
        } else {
            // What this log holds there was never committed, nor was anything after it. It may be
            // a leader's or a candidate's of an old term: a peer's state can be newer than that.
            if term > self.hard.term || self.part != Part::Follower {
                self.become_follower(self.hard.term.max(term), None, out);
            }
            self.begin_log_after(index, term, configuration);
            out.record(Record::Snapshot { index, term });
        }
        (self.delivered, self.applied) = (index, index);
        self.redelivery = HostRead::Idle;
        if let Some(leader) = self.leader
            && self.part != Part::Leader
        {
            self.note_repaired(leader, Some(index), out);
            let outcome = Outcome::Matched { index };
            let reply = AppendEntriesReply { term: self.hard.term, round: 0, outcome };
            // Held: the record above comes first. That the leader's log holds `index`, too, needs
            // no asking: it is committed.
            out.send(leader, Message::AppendEntriesReply(reply));
        }
    }

    /// An empty log after a point which the host's state covers.
    pub(super) fn begin_log_after(&mut self, index: Index, term: Term, configuration: Configuration) {
        self.log = Log::after(index, term);
        self.truncations += 1;
        self.uncommitted_bytes = 0;
        (self.commit, self.stored) = (index, index);
        self.membership = Membership::after(index, configuration);
        self.note_membership();
    }

    /// The configuration that is in effect at a point; none if it cannot be read.
    pub(super) fn configuration_at(&self, point: &SnapshotPoint) -> Option<Configuration> {
        if point.membership.is_empty() {
            return Some(self.first_configuration());
        }
        Configuration::from_bytes(point.membership.clone()).ok()
    }

    /// The configuration before any entry says otherwise.
    pub(super) fn first_configuration(&self) -> Configuration {
        match self.hard.joined {
            true => Configuration::unknown(),
            false => Configuration::founding(&self.config.members),
        }
    }
}
