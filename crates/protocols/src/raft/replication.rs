//! Replication: the leader's view of each peer, the follower's check of each append, and commit.

use super::lease::LeaseState;
use super::message::{AppendEntries, AppendEntriesReply, Message, Outcome};
use super::progress::{Progress, Sending};
use super::record::{Entry, Term};
use super::{Part, Raft};
use crate::contract::Effects;
use crate::epoch_log::LogEntry;
use crate::log::{Index, LogAsk, Payload};
use crate::membership::Configuration;
use crate::types::{NodeId, Time};
use crate::wire::Wire;
use alloc::vec::Vec;

/// At the leader: sending.
impl Raft {
    /// A new leader appends an entry of its own term, which will commit all earlier ones (section
    /// 3.6.2), and looks for where its peers' logs agree with its own.
    pub(super) fn begin_replication(&mut self, out: &mut Effects<Self>) {
        let next = self.log.last().next();
        for peer in &mut self.progress {
            peer.reset(next, self.now);
        }
        self.catch_up_wanted = false;
        self.lease = LeaseState::default();
        self.append_as_leader([Payload::Noop].into_iter(), out);
    }

    /// Leadership is lost.
    pub(super) fn end_replication(&mut self, out: &mut Effects<Self>) {
        self.refuse_reads(out);
        self.abandon_change(out);
        for peer in &mut self.progress {
            peer.reset(Index(1), Time::ZERO);
        }
        self.catch_up_wanted = false;
    }

    /// Keeps one [`Progress`] for each peer: for those of the configuration in effect, and for
    /// those of the last committed one, who still have to learn that they leave.
    pub(super) fn sync_progress(&mut self) {
        let wanted = self.membership.everybody();
        self.progress.retain(|peer| wanted.binary_search(&peer.id).is_ok());
        for id in wanted.into_iter().filter(|id| *id != self.config.id) {
            if let Err(place) = self.progress.binary_search_by_key(&id, |peer| peer.id) {
                let mut peer = Progress::new(id);
                if self.part == Part::Leader {
                    peer.reset(self.log.last().next(), self.now);
                }
                self.progress.insert(place, peer);
            }
        }
    }

    /// What is known about a peer.
    pub(super) fn peer(&self, id: NodeId) -> Option<&Progress> {
        self.progress.iter().find(|peer| peer.id == id)
    }

    pub(super) fn append_as_leader(
        &mut self,
        payloads: impl Iterator<Item = Payload>,
        out: &mut Effects<Self>,
    ) {
        let term = self.hard.term;
        self.append(payloads.map(|payload| Entry { term, payload }).collect(), out);
        for i in 0..self.progress.len() {
            self.replicate(i, out);
        }
    }

    /// Sends a peer what it lacks, as far as its window allows.
    pub(super) fn replicate(&mut self, i: usize, out: &mut Effects<Self>) {
        loop {
            let peer = &mut self.progress[i];
            let next = peer.next;
            match peer.sending {
                Sending::Probe { waiting: true } | Sending::Snapshot => return,
                _ if next <= self.log.base() => {
                    peer.offer_snapshot();
                    return self.send_append(i, Vec::new(), true, out);
                }
                Sending::Probe { waiting: false } => {
                    peer.sending = Sending::Probe { waiting: true };
                    let entries = if next >= self.log.first_in_memory() {
                        self.log.batch(next, self.config.limits.message_bytes_max).0
                    } else {
                        Vec::new()
                    };
                    return self.send_append(i, entries, true, out);
                }
                Sending::Pipeline if next > self.log.last() => return,
                Sending::Pipeline if next < self.log.first_in_memory() => {
                    self.catch_up_wanted = true;
                    return;
                }
                Sending::Pipeline => {
                    let room = peer.window.room(&self.config.limits);
                    let cost = self.log.get(next).map_or(0, Entry::cost);
                    if !peer.window.takes(cost, room) {
                        return;
                    }
                    let (entries, cost) = self.log.batch(next, room);
                    self.send_pipelined(i, entries, cost, out);
                }
            }
        }
    }

    fn send_pipelined(&mut self, i: usize, entries: Vec<Entry>, cost: usize, out: &mut Effects<Self>) {
        let count = entries.len() as u64;
        self.send_append(i, entries, true, out);
        self.progress[i].sent(count, cost);
    }

    /// Sends the entries that begin at `next`; or offers a snapshot, if the log no longer has what
    /// comes before it.
    fn send_append(&mut self, i: usize, entries: Vec<Entry>, reply: bool, out: &mut Effects<Self>) {
        let peer = &mut self.progress[i];
        let prev_index = peer.next.previous();
        let prev_term = match (peer.sending, self.log.epoch_at(prev_index)) {
            (Sending::Snapshot, _) | (_, None) => return self.send_snapshot_offer(i, out),
            (_, Some(term)) => term,
        };
        peer.commit_sent = self.commit;
        let append = AppendEntries {
            term: self.hard.term,
            prev_index,
            prev_term,
            commit: self.commit,
            round: self.reads.latest(),
            reply,
            entries,
        };
        // Early, before this server's own disk has the entries (section 10.2.1): a leader that
        // crashes and forgets them never leads this term again, because its vote for itself in it
        // was durable before it was elected; so nothing else is ever proposed at these positions
        // in this term. It does not count itself among the quorum before its disk has them.
        out.send_early(peer.id, Message::AppendEntries(append));
    }

    /// An empty append after the last entry sent: the answer acknowledges all of them, or shows
    /// that some were lost. For a peer that is probed it repeats the probe.
    pub(super) fn send_heartbeats(&mut self, out: &mut Effects<Self>) {
        self.heartbeat_deadline = self.now + self.config.timing.heartbeat;
        self.begin_lease_round();
        for i in 0..self.progress.len() {
            self.send_append(i, Vec::new(), true, out);
        }
        self.repeat_hand_over(out);
    }

    /// A peer that has everything up to the commit index learns of it at once, unless something
    /// else has told it.
    fn maybe_push_commit(&mut self, i: usize, out: &mut Effects<Self>) {
        let peer = &self.progress[i];
        if peer.sending == Sending::Pipeline
            && peer.commit_sent < self.commit
            && peer.matched >= self.commit
            && peer.next > self.log.last()
        {
            self.send_append(i, Vec::new(), false, out);
        }
    }

    /// Asks the host for entries that a lagging peer lacks and memory no longer holds; the one
    /// that lags most goes first, and others at the same place share the answer.
    pub(super) fn ask_for_catch_up(&mut self, out: &mut Effects<Self>) {
        let limits = self.config.limits;
        let first_in_memory = self.log.first_in_memory();
        let waiting = self.progress.iter().filter(|peer| peer.waits_for_host(&limits, first_in_memory));
        let Some(from) = waiting.map(|peer| peer.next).min() else {
            self.catch_up_wanted = false;
            return;
        };
        if self.catch_up.begin(from) {
            let to = first_in_memory.previous();
            out.ask(LogAsk::Entries { from, to, bytes_max: limits.message_bytes_max });
        }
    }

    /// Sends entries that the host has read back to the peers that wait for them.
    pub(super) fn send_from_host(&mut self, from: Index, entries: &[Entry], out: &mut Effects<Self>) {
        let limits = self.config.limits;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.cost();
            bytes <= limits.message_bytes_max
        };
        let count = entries.iter().take_while(fits).count().max(1);
        let entries = &entries[..count];
        if self.part != Part::Leader {
            return self.send_fetched_from_host(from, entries, out);
        }
        let cost = entries.iter().map(Entry::cost).sum();
        for i in 0..self.progress.len() {
            let peer = &self.progress[i];
            if peer.next == from && peer.waits_for_host(&limits, self.log.first_in_memory()) {
                self.send_pipelined(i, entries.to_vec(), cost, out);
                self.replicate(i, out);
            }
        }
    }
}

/// At the leader: answers.
impl Raft {
    pub(super) fn on_append_entries_reply(
        &mut self,
        from: NodeId,
        reply: AppendEntriesReply,
        out: &mut Effects<Self>,
    ) {
        self.observe_term(reply.term, out);
        if self.part != Part::Leader || reply.term != self.hard.term {
            return;
        }
        let Some(i) = self.progress.iter().position(|peer| peer.id == from) else {
            self.ignored += 1;
            return;
        };
        let possible = match reply.outcome {
            Outcome::Matched { index } => index <= self.log.last(),
            Outcome::Rejected { prev_index, hint_index, .. } => {
                prev_index <= self.log.last() && hint_index < prev_index
            }
            Outcome::Fetching => true,
            Outcome::Stale => false,
        };
        if !possible || reply.round > self.reads.latest() {
            self.ignored += 1;
            return;
        }
        let peer = &mut self.progress[i];
        peer.heard = self.now;
        peer.answered = true;
        peer.round = peer.round.max(reply.round);
        match reply.outcome {
            Outcome::Matched { index } => {
                if peer.acknowledge(index) && index > self.commit {
                    self.maybe_commit(out);
                }
            }
            Outcome::Rejected { prev_index, hint_index, hint_term } => {
                self.on_rejected(i, prev_index, hint_index, hint_term);
            }
            Outcome::Fetching | Outcome::Stale => {}
        }
        if self.part != Part::Leader {
            // It has led the change that let it go.
            return;
        }
        let (last, now, election) = (self.log.last(), self.now, self.config.timing.election);
        // A commit may have let the peer go.
        if let Some(peer) = self.progress.get_mut(i).filter(|peer| peer.id == from) {
            peer.pace.note(peer.matched, last, now, election);
            self.replicate(i, out);
            self.maybe_push_commit(i, out);
        }
        self.maybe_renew_lease();
        self.maybe_confirm_round(out);
        self.maybe_advance_change(out);
        self.maybe_hand_over(out);
    }

    /// The peer's log does not hold `prev_index`: something was lost, or the logs differ there.
    fn on_rejected(&mut self, i: usize, prev_index: Index, hint_index: Index, hint_term: Term) {
        let peer = &mut self.progress[i];
        let stale = match peer.sending {
            Sending::Probe { .. } => prev_index != peer.next.previous(),
            Sending::Pipeline => false,
            Sending::Snapshot => true,
        };
        // What is known to match cannot be rejected now: this was sent before it did.
        if stale || prev_index <= peer.matched {
            return;
        }
        // The follower's term at its hint is the largest it has up to there, so the logs cannot
        // agree where the leader's terms are above it: whole terms are skipped at once.
        let (agree, _) = self.log.last_not_above(hint_index, hint_term);
        let next = agree.max(peer.matched).max(self.log.base()).next();
        if next > prev_index {
            // It rejected the base itself: nothing in this log follows on what it has.
            return peer.probe(self.log.base(), false);
        }
        peer.probe(next, false);
    }

    /// Commits what a quorum's disks hold, if it is of this term: an entry of an earlier term can
    /// still be replaced, even if a quorum holds it, until one of this term is committed after it
    /// (section 3.6.2).
    pub(super) fn maybe_commit(&mut self, out: &mut Effects<Self>) {
        let index = self.reached(self.stored, |peer| peer.matched);
        let Some(index) = index else { return };
        if index <= self.commit || self.log.epoch_at(index) != Some(self.hard.term) {
            return;
        }
        self.commit_to(index);
        for i in 0..self.progress.len() {
            self.maybe_push_commit(i, out);
        }
        self.maybe_begin_round(out);
        self.maybe_advance_change(out);
    }

    /// What a quorum has reached, given this server's own value and how to see a peer's.
    pub(super) fn reached<T: Ord + Copy>(&self, own: T, of: impl Fn(&Progress) -> T) -> Option<T> {
        let id = self.config.id;
        self.membership.current().reached(
            |member| {
                if member == id { Some(own) } else { self.peer(member).map(&of) }
            },
        )
    }

    /// A connection begins with what is known: everything that was in flight may be lost.
    pub(super) fn on_link_up(&mut self, peer: NodeId, out: &mut Effects<Self>) {
        if self.part == Part::Leader
            && let Some(i) = self.progress.iter().position(|progress| progress.id == peer)
        {
            let next = self.progress[i].resume(self.log.base());
            self.progress[i].probe(next, false);
            self.replicate(i, out);
        }
    }

    /// Nothing is sent to the peer beyond heartbeats before it answers again.
    pub(super) fn on_link_down(&mut self, peer: NodeId) {
        if self.part == Part::Leader {
            let base = self.log.base();
            if let Some(progress) = self.progress.iter_mut().find(|progress| progress.id == peer) {
                progress.probe(progress.resume(base), true);
                progress.answered = false;
            }
        } else if self.part == Part::Follower && self.leader == Some(peer) && self.config.lease.is_none() {
            self.hasten_election();
        }
    }
}

/// At a follower.
impl Raft {
    pub(super) fn on_append_entries(&mut self, from: NodeId, append: AppendEntries, out: &mut Effects<Self>) {
        if append.term < self.hard.term {
            let reply = AppendEntriesReply { term: self.hard.term, round: 0, outcome: Outcome::Stale };
            return out.send(from, Message::AppendEntriesReply(reply));
        }
        if self.storage_full && (append.term > self.hard.term || !append.entries.is_empty()) {
            return;
        }
        let second_leader = append.term == self.hard.term && self.leader.is_some_and(|leader| leader != from);
        if second_leader || !is_well_formed(&append) {
            self.ignored += 1;
            return;
        }
        self.hear_from_leader(from, append.term, out);
        let (round, wants_reply) = (append.round, append.reply);
        let outcome = self.accept(append, out);
        self.note_repaired(
            from,
            match outcome {
                Some(Outcome::Matched { index }) => Some(index),
                _ => None,
            },
            out,
        );
        let reply = match outcome {
            None => return,
            Some(Outcome::Matched { .. }) if !wants_reply => return,
            Some(outcome) => AppendEntriesReply { term: self.hard.term, round, outcome },
        };
        // Held: it acknowledges what this step and earlier ones have appended.
        out.send(from, Message::AppendEntriesReply(reply));
    }

    /// A leader of its term, or of a later one, has spoken.
    pub(super) fn hear_from_leader(&mut self, leader: NodeId, term: Term, out: &mut Effects<Self>) {
        self.become_follower(term, Some(leader), out);
        self.leader_contact = Some(self.now);
        self.promised_until = self.promised_until.max(self.now + self.config.timing.election);
        self.restart_election_timer();
    }

    /// Makes the log agree with the leader's up to the end of the message. Returns nothing if
    /// that is impossible.
    fn accept(&mut self, append: AppendEntries, out: &mut Effects<Self>) -> Option<Outcome> {
        let AppendEntries { prev_index, prev_term, commit, mut entries, .. } = append;
        let base = self.log.base();
        if prev_index >= base && self.log.epoch_at(prev_index) != Some(prev_term) {
            let (hint_index, hint_term) = self.log.last_not_above(prev_index.previous(), prev_term);
            if hint_index >= prev_index {
                // Only the base can be this: a leader never differs from what a snapshot covers.
                self.ignored += 1;
                return None;
            }
            return Some(Outcome::Rejected { prev_index, hint_index, hint_term });
        }
        let matched = Index(prev_index.0 + entries.len() as u64);
        // What the log already holds stays, and so does what follows it: a message that is late
        // or repeated must not take back what was acknowledged since.
        let held = (prev_index.0 + 1..)
            .map(Index)
            .zip(&entries)
            .take_while(|(index, entry)| *index <= base || self.log.epoch_at(*index) == Some(entry.term))
            .count();
        if held < entries.len() {
            let first = Index(prev_index.0 + 1 + held as u64);
            if first <= self.commit {
                // No leader differs from what is committed.
                self.ignored += 1;
                return None;
            }
            if first <= self.log.last() {
                self.truncate(first);
            }
            let new = if held == 0 { entries } else { entries.split_off(held) };
            self.append(new, out);
        }
        // Beyond the message the log may still differ from the leader's.
        let commit = commit.min(matched);
        if commit > self.commit {
            self.commit_to(commit);
        }
        Some(Outcome::Matched { index: matched })
    }
}

impl Raft {
    /// Takes back `first` and everything after it, a configuration too (section 4.1).
    pub(super) fn truncate(&mut self, first: Index) {
        self.uncommitted_bytes -= self.log.truncate(first);
        self.truncations += 1;
        self.stored = self.stored.min(first.previous());
        if self.membership.truncate(first) {
            self.note_membership();
        }
    }
}

/// Whether a leader's log can hold what the message says.
fn is_well_formed(append: &AppendEntries) -> bool {
    let last = append.entries.last().map_or(append.prev_term, |entry| entry.term);
    last <= append.term && is_run(append.prev_index, append.prev_term, &append.entries)
}

/// Whether a log can hold these entries after this position.
pub(super) fn is_run(prev_index: Index, prev_term: Term, entries: &[Entry]) -> bool {
    let mut term = prev_term;
    let ascending = entries.iter().all(|entry| core::mem::replace(&mut term, entry.term) <= entry.term);
    let readable = |entry: &Entry| match &entry.payload {
        Payload::Membership(bytes) => Configuration::from_bytes(bytes.clone()).is_ok(),
        Payload::Noop | Payload::Command(_) => true,
    };
    ascending && (prev_index > Index::ZERO || prev_term == Term(0)) && entries.iter().all(readable)
}
