//! Synchronisation and broadcast at a follower or observer.
//!
//! Every message means the same whenever it arrives, so that nothing rests on the order of the
//! channel. Once the history is known to be a part of the leader's (`agreed`), an entry of the
//! leader's at a position is the entry there, or comes next, or leaves a gap, and a gap is asked
//! for. Before, DIFF and TRUNC name the end of the history that they were made for: a history is
//! determined by its last zxid, so they fit or they do not, and a repeated one cuts nothing that
//! has been appended since.

use super::discovery::{are_readable, is_ascending};
use super::message::Message;
use super::record::{Entry, Zxid};
use super::{Part, Phase, Zab};
use crate::contract::Effects;
use crate::log::{Epoch, Index, LogAsk, Payload};
use crate::types::NodeId;
use alloc::vec;
use alloc::vec::Vec;

impl Zab {
    /// Whether a message comes from the leader followed, under the epoch promised to it. Then the
    /// leader is there.
    pub(super) fn follows(&mut self, from: NodeId, epoch: Epoch) -> bool {
        let follows = matches!(self.part, Part::Following(Phase::Synchronization | Phase::Broadcast))
            && self.leader == Some(from)
            && self.epochs.accepted == epoch;
        if follows {
            self.be_patient();
        } else {
            self.ignored += 1;
        }
        follows
    }

    pub(super) fn on_diff(&mut self, from: NodeId, epoch: Epoch, after: Zxid, out: &mut Effects<Self>) {
        if !self.follows(from, epoch) {
            return;
        }
        self.agreed |= after == self.history.last_zxid();
        if self.agreed && self.history.holds(after) {
            self.acknowledge(out);
        } else {
            // Not from there: what `after` was made for may be long past.
            self.complain(self.history.last_zxid(), out);
        }
    }

    pub(super) fn on_trunc(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        last: Zxid,
        to: Zxid,
        out: &mut Effects<Self>,
    ) {
        if !self.follows(from, epoch) {
            return;
        }
        if self.agreed {
            return self.acknowledge(out);
        }
        if last != self.history.last_zxid() {
            return self.complain(self.history.last_zxid(), out);
        }
        if !self.history.holds(to) {
            return self.complain(to, out);
        }
        if to.counter < self.commit {
            // No leader differs from what is committed.
            self.ignored += 1;
            return;
        }
        if to < last {
            // In memory only: it becomes durable with what replaces it. Until then a crash brings
            // back the old history, which is as good as it was before.
            self.cut(to.counter.next());
        }
        self.agreed = true;
        self.acknowledge(out);
    }

    pub(super) fn on_snap(&mut self, from: NodeId, epoch: Epoch, point: Zxid, out: &mut Effects<Self>) {
        let fetching = self.part == Part::Leading(Phase::Discovery)
            && self.epoch == Some(epoch)
            && self.fetching == Some(from);
        if !fetching && !self.follows(from, epoch) {
            return;
        }
        if let Some(i) = self.learner(from).filter(|_| fetching) {
            self.learners[i].hear(self.now);
        }
        if point.counter > self.commit {
            out.ask(LogAsk::Snapshot { from, index: point.counter });
        } else {
            self.complain_to_leader(out);
        }
    }

    pub(super) fn on_new_leader(&mut self, from: NodeId, epoch: Epoch, after: Zxid, out: &mut Effects<Self>) {
        if !self.follows(from, epoch) || self.storage_full || !self.fits(after, epoch, out) {
            return;
        }
        if after == self.history.last_zxid() {
            // The history is on disk before this record, and currentEpoch comes after it in the
            // same step: only then is NEWLEADER acknowledged.
            self.append(vec![Entry { epoch, payload: Payload::Noop }], out);
            self.epochs.current = epoch;
        } else if self.history.epoch_at(after.counter.next()) != Some(epoch) {
            self.ignored += 1;
            return;
        }
        self.acknowledge(out);
    }

    pub(super) fn on_propose(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        after: Zxid,
        commit: Index,
        mut entries: Vec<Entry>,
        out: &mut Effects<Self>,
    ) {
        if !self.follows(from, epoch) || self.storage_full {
            return;
        }
        let before_new_leader =
            self.epochs.current < epoch && entries.last().is_some_and(|entry| entry.epoch == epoch);
        if !is_ascending(after, &entries, epoch) || !are_readable(&entries) {
            self.ignored += 1;
            return;
        }
        if !self.fits(after, epoch, out) {
            return;
        }
        let positions = (after.counter.0 + 1..).map(Index).zip(&entries);
        let base = self.history.base().counter;
        let held = positions
            .take_while(|(index, entry)| *index <= base || self.history.epoch_at(*index) == Some(entry.epoch))
            .count();
        let new = entries.split_off(held);
        let first = Index(after.counter.0 + 1 + held as u64);
        if !new.is_empty() && (first != self.history.last().next() || before_new_leader) {
            // A leader that contradicts what it sent before, or that forgot NEWLEADER.
            self.ignored += 1;
            return;
        }
        if !new.is_empty() {
            self.append(new, out);
        }
        self.learn_commit(commit);
        self.acknowledge(out);
    }

    /// Whether this history is a part of the leader's at least up to `after`; else the leader is
    /// told where it stands.
    fn fits(&mut self, after: Zxid, epoch: Epoch, out: &mut Effects<Self>) -> bool {
        self.agreed |= after == self.history.last_zxid();
        let fits = self.agreed && (self.history.holds(after) || after.counter < self.history.base().counter);
        if !fits && self.agreed && after.counter <= self.history.last() {
            // Both cannot be this leader's.
            self.ignored += 1;
        } else if !fits {
            assert!(epoch == self.epochs.accepted, "only the leader followed is answered");
            self.complain(self.history.last_zxid(), out);
        }
        fits
    }

    pub(super) fn on_commit(&mut self, from: NodeId, epoch: Epoch, commit: Index) {
        if self.follows(from, epoch) {
            self.learn_commit(commit);
        }
    }

    pub(super) fn on_ping(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        round: u64,
        sent: Index,
        commit: Index,
        out: &mut Effects<Self>,
    ) {
        if !self.follows(from, epoch) {
            return;
        }
        self.learn_commit(commit);
        let index = if self.agreed { self.history.last() } else { Index::ZERO };
        // Held, like every acknowledgement. That it answers at all confirms that it has promised
        // no later epoch.
        out.send(from, Message::Pong { epoch, round, index });
        if sent > self.history.last() || sent > Index::ZERO && !self.agreed {
            self.complain(self.history.last_zxid(), out);
        }
        self.maybe_ask_for_the_end(from, out);
    }

    /// What the leader says is committed, as far as this history is known to be a part of the
    /// leader's. When that covers NEWLEADER, the leader is established.
    fn learn_commit(&mut self, commit: Index) {
        let commit = commit.min(self.history.last());
        if self.agreed && commit > self.commit {
            self.commit_to(commit);
        }
        if self.part == Part::Following(Phase::Synchronization)
            && self.history.epoch_at(self.commit) == Some(self.epochs.accepted)
        {
            self.part = Part::Following(Phase::Broadcast);
        }
    }

    fn acknowledge(&self, out: &mut Effects<Self>) {
        assert!(self.agreed, "only a part of the leader's history is acknowledged");
        if let Some(leader) = self.leader {
            let (epoch, index) = (self.epochs.accepted, self.history.last());
            // Held: it acknowledges what this step and earlier ones have recorded.
            out.send(leader, Message::Ack { epoch, index });
        }
    }

    /// Tells the leader where to go on, since `wanted` is not in this history.
    fn complain(&self, wanted: Zxid, out: &mut Effects<Self>) {
        if let Some(leader) = self.leader {
            let (epoch, last) = (self.epochs.accepted, self.history.last_zxid());
            let hint = self.history.last_not_above(wanted).min(last);
            out.send(leader, Message::Resync { epoch, last, hint });
        }
    }

    /// After a snapshot has been installed, or was not needed.
    pub(super) fn complain_to_leader(&self, out: &mut Effects<Self>) {
        if let Part::Following(Phase::Synchronization | Phase::Broadcast) = self.part {
            self.complain(self.history.last_zxid(), out);
        }
    }
}
