//! What a member and its host do for each other: delivery, values read back from the log on disk,
//! and snapshots.

use super::membership::Membership;
use super::message::Message;
use super::record::{Pvalue, Record};
use super::{MultiPaxos, Part};
use crate::contract::Effects;
use crate::host_read::HostRead;
use crate::log::{CommittedEntry, Index, LogAnswer, LogAsk, LogEvent, SnapshotPoint};
use alloc::vec::Vec;

/// Delivery.
impl MultiPaxos {
    /// Delivers chosen values which are on this member's disk.
    pub(super) fn deliver(&mut self, out: &mut Effects<Self>) {
        let ready = self.chosen.min(self.stored);
        if self.delivered >= ready || self.pledge.uncertain {
            return;
        }
        let from = self.delivered.next();
        let first_in_memory = self.log.first_in_memory();
        if from < first_in_memory {
            // After a restart: these are on disk only.
            let to = ready.min(first_in_memory.previous());
            let bytes_max = self.config.limits.message_bytes_max;
            if self.redelivery.begin(from) {
                out.ask(LogAsk::Entries { from, to, bytes_max });
            }
            return;
        }
        let entries = committed(from, self.log.range(from, ready));
        self.delivered = ready;
        // Early: it names only values that a quorum's disks and this one hold.
        out.event_early(LogEvent::Committed { entries });
    }

    /// Delivers values that the host has read back.
    fn redeliver(&mut self, from: Index, pvalues: &[Pvalue], out: &mut Effects<Self>) {
        let ready = self.chosen.min(self.stored);
        if from != self.delivered.next() {
            return;
        }
        let count = (ready.0 - self.delivered.0).min(pvalues.len() as u64) as usize;
        if count > 0 {
            self.delivered = Index(self.delivered.0 + count as u64);
            let entries = committed(from, pvalues[..count].iter());
            // Early: it names only values that a quorum's disks and this one hold.
            out.event_early(LogEvent::Committed { entries });
        }
    }
}

fn committed<'a>(from: Index, pvalues: impl Iterator<Item = &'a Pvalue>) -> Vec<CommittedEntry> {
    let entry = |(index, pvalue): (_, &Pvalue)| CommittedEntry {
        index,
        epoch: pvalue.value.origin.epoch(),
        payload: pvalue.value.payload.clone(),
    };
    (from.0..).map(Index).zip(pvalues).map(entry).collect()
}

/// Questions and answers.
impl MultiPaxos {
    pub(super) fn on_answer(&mut self, answer: LogAnswer<Record>, out: &mut Effects<Self>) {
        let (from, records) = match answer {
            LogAnswer::Entries { from, records } => (from, records),
            LogAnswer::Snapshot { point } => return self.on_snapshot(point, out),
        };
        let pvalues = self.pvalues_of(from, records);
        let failed = HostRead::Failed { retry: self.now + self.config.timing.heartbeat };
        let mut expected = false;
        if self.redelivery.take(from) {
            expected = true;
            match pvalues.is_empty() {
                true => self.redelivery = failed,
                false => self.redeliver(from, &pvalues, out),
            }
        }
        if self.catch_up.take(from) {
            expected = true;
            match pvalues.is_empty() {
                true => self.catch_up = failed,
                false => self.send_from_host(from, pvalues, out),
            }
        }
        self.ignored += u64::from(!expected);
    }

    /// The values at `from` and after it which an answer holds, as far as they are this log's: a
    /// record may begin earlier, and parts of it may have been replaced by later ones. A slot
    /// is accepted anew only under a higher ballot, so the ballot tells.
    fn pvalues_of(&self, from: Index, records: Vec<Record>) -> Vec<Pvalue> {
        let mut next = from;
        let mut found = Vec::new();
        for record in records {
            let Record::Accepted { first, pvalues, .. } = record else { continue };
            for (slot, pvalue) in (first.0..).map(Index).zip(pvalues) {
                if slot == next && self.log.ballot_at(slot) == Some(pvalue.ballot) {
                    found.push(pvalue);
                    next = next.next();
                }
            }
        }
        found
    }

    /// Asks the host for values that a lagging peer or a proposer lacks and memory no longer
    /// holds; the peer that lags most goes first, and others at the same place share the answer.
    pub(super) fn ask_for_catch_up(&mut self, out: &mut Effects<Self>) {
        let limits = self.config.limits;
        let first_in_memory = self.log.first_in_memory();
        let from = match (self.part, self.promise_wanted) {
            (Part::Leader, _) if self.catch_up_wanted => {
                let waiting =
                    self.progress.iter().filter(|peer| peer.waits_for_host(&limits, first_in_memory));
                let from = waiting.map(|peer| peer.next).min();
                self.catch_up_wanted = from.is_some();
                from
            }
            (Part::Follower, Some((to, first))) if first <= self.log.base() => {
                // It was cut meanwhile: all that is left is the state.
                self.promise_wanted = None;
                self.send_promise(to, first, Vec::new(), out);
                None
            }
            (Part::Follower, Some((_, first))) => Some(first),
            _ => None,
        };
        if let Some(from) = from
            && self.catch_up.begin(from)
        {
            let to = first_in_memory.previous();
            out.ask(LogAsk::Entries { from, to, bytes_max: limits.message_bytes_max });
        }
    }

    /// Sends values that the host has read back to those who wait for them.
    fn send_from_host(&mut self, from: Index, mut pvalues: Vec<Pvalue>, out: &mut Effects<Self>) {
        let limits = self.config.limits;
        let mut bytes = 0;
        let fits = |pvalue: &&Pvalue| {
            bytes += pvalue.value.cost();
            bytes <= limits.message_bytes_max
        };
        let count = pvalues.iter().take_while(fits).count().max(1);
        pvalues.truncate(count);
        if let Some((to, first)) = self.promise_wanted
            && first == from
        {
            self.promise_wanted = None;
            return self.send_promise(to, first, pvalues, out);
        }
        if self.part != Part::Leader {
            return;
        }
        let cost = pvalues.iter().map(|pvalue| pvalue.value.cost()).sum();
        for i in 0..self.progress.len() {
            let peer = &self.progress[i];
            if peer.next == from && peer.waits_for_host(&limits, self.log.first_in_memory()) {
                self.send_pipelined(i, pvalues.clone(), cost, out);
                self.replicate(i, out);
            }
        }
    }
}

/// Snapshots.
impl MultiPaxos {
    /// The host's state covers the log up to `point`: what is before it is dropped.
    pub(super) fn on_compact(&mut self, point: SnapshotPoint, out: &mut Effects<Self>) {
        if point.index <= self.log.base() || point.index > self.delivered {
            self.ignored += u64::from(point.index > self.delivered);
            return;
        }
        self.applied = self.applied.max(point.index);
        self.begin_after(&point);
        if self.part == Part::Leader {
            for i in 0..self.progress.len() {
                self.replicate(i, out);
            }
        }
    }

    /// The host's state is a peer's now. What this acceptor has accepted after the point it keeps:
    /// that it was accepted may be what makes it chosen.
    fn on_snapshot(&mut self, point: SnapshotPoint, out: &mut Effects<Self>) {
        let news = point.index > self.log.base() && point.index >= self.delivered;
        if !news || self.pledge.uncertain {
            self.ignored += 1;
            return;
        }
        if point.index > self.chosen && self.part == Part::Leader {
            // Somebody else has had something chosen since: a peer's state can be newer than this ballot.
            self.become_follower(self.pledge.ballot, None, out);
        }
        if !self.begin_after(&point) {
            return;
        }
        (self.delivered, self.applied) = (point.index, point.index);
        if let Some(leader) = self.leader.filter(|leader| *leader != self.config.id) {
            out.send(leader, Message::Accepted(self.accepted(0, true)));
        }
        self.proceed(out);
    }

    /// Cuts the log behind a point that the host's state covers. Returns whether the point can be read.
    fn begin_after(&mut self, point: &SnapshotPoint) -> bool {
        if point.index > self.chosen {
            let (founders, joined) = (&self.config.members, self.pledge.joined);
            let Some(membership) = Membership::after(point, founders, joined, self.alpha()) else {
                self.ignored += 1;
                return false;
            };
            self.membership = membership;
            self.members_changed = true;
            self.chosen = point.index;
        }
        self.log.compact(point.clone());
        self.upto = self.upto.max(self.chosen);
        self.stored = self.stored.max(self.log.base());
        self.count_open_bytes();
        let base = self.log.base();
        self.redelivery.forget_up_to(base);
        self.catch_up.forget_up_to(base);
        true
    }
}
