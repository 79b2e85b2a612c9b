//! Replication: the leader's view of each peer, the follower's check of each append, and commit.

use super::message::{AppendEntries, AppendEntriesReply, Message, Outcome};
use super::record::{Entry, Term};
use super::{Part, Raft};
use crate::contract::Effects;
use crate::log::{Index, LogAsk, LogLimits, Payload};
use crate::types::{NodeId, Time};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What a leader knows about a peer.
#[derive(Clone, Debug, Hash)]
pub(super) struct Progress {
    pub(super) id: NodeId,
    /// The peer's disk holds the leader's log up to here.
    pub(super) matched: Index,
    /// The first entry to send; above `matched`.
    pub(super) next: Index,
    pub(super) sending: Sending,
    /// The messages of entries that were not acknowledged: the last entry of each and its cost.
    in_flight: VecDeque<(Index, usize)>,
    in_flight_bytes: usize,
    /// The last commit index sent, as far as nothing sent since is known to be lost.
    commit_sent: Index,
    /// The latest round of confirming leadership that it answered.
    pub(super) round: u64,
    /// When it last answered in this term.
    pub(super) heard: Time,
    /// The batch of the peer's reads that the round under way confirms, and the one for the next.
    pub(super) read_current: Option<u64>,
    pub(super) read_next: Option<u64>,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sending {
    /// It is not known where the logs agree, or whether what was sent arrived: one message at a
    /// time. `waiting`: it was sent, and is not repeated before the next heartbeat.
    Probe { waiting: bool },
    /// The logs agree up to `next`: messages follow each other without waiting (section 10.2.2).
    Pipeline,
}

impl Progress {
    pub(super) fn new(id: NodeId) -> Progress {
        Progress {
            id,
            matched: Index::ZERO,
            next: Index(1),
            sending: Sending::Probe { waiting: false },
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            commit_sent: Index::ZERO,
            round: 0,
            heard: Time::ZERO,
            read_current: None,
            read_next: None,
        }
    }

    /// A new term begins: nothing is known.
    fn reset(&mut self, next: Index, now: Time) {
        self.matched = Index::ZERO;
        self.round = 0;
        self.heard = now;
        (self.read_current, self.read_next) = (None, None);
        self.probe(next, false);
    }

    /// Whatever was in flight is taken to be lost.
    fn probe(&mut self, next: Index, waiting: bool) {
        self.next = next;
        self.sending = Sending::Probe { waiting };
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.commit_sent = Index::ZERO;
    }

    /// Where to go on when everything in flight may be lost: after what it acknowledged or, if it has
    /// not said anything in this term, where the search for the last common entry stands. (To begin
    /// that search at the first entry would send it the whole log again.)
    fn resume(&self, base: Index) -> Index {
        let next = if self.matched > Index::ZERO { self.matched.next() } else { self.next };
        next.max(base.next())
    }

    /// Its disk holds the log up to `index`. Returns whether that is news.
    fn acknowledge(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        while let Some((last, cost)) = self.in_flight.front().copied()
            && last <= self.matched
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= cost;
        }
        if let Sending::Probe { .. } = self.sending {
            self.sending = Sending::Pipeline;
            self.next = self.matched.next();
        }
        self.next = self.next.max(self.matched.next());
        news
    }

    /// How many bytes may be sent now: 0 if the window is full. An empty window takes anything.
    fn room(&self, limits: &LogLimits) -> usize {
        if self.in_flight.is_empty() {
            return limits.message_bytes_max.max(1);
        }
        if self.in_flight.len() >= limits.window_messages_max {
            return 0;
        }
        limits.window_bytes_max.saturating_sub(self.in_flight_bytes).min(limits.message_bytes_max)
    }

    /// Whether the next entry, which costs `cost`, fits into `room`.
    fn takes(&self, cost: usize, room: usize) -> bool {
        room > 0 && (cost <= room || self.in_flight.is_empty())
    }

    /// Whether it can take a whole message of entries which the host has to read back first.
    fn waits_for_host(&self, limits: &LogLimits, first_in_memory: Index) -> bool {
        self.sending == Sending::Pipeline
            && self.next < first_in_memory
            && self.room(limits) >= limits.message_bytes_max.max(1)
    }
}

/// Entries asked of the host for one purpose: one question at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostRead {
    Idle,
    Waiting {
        from: Index,
    },
    /// The host could not read them.
    Failed {
        retry: Time,
    },
}

impl HostRead {
    pub(super) fn retry_after(retry: Time) -> HostRead {
        HostRead::Failed { retry }
    }

    /// Whether the question may be asked now; then it counts as asked.
    pub(super) fn begin(&mut self, from: Index) -> bool {
        let idle = *self == HostRead::Idle;
        if idle {
            *self = HostRead::Waiting { from };
        }
        idle
    }

    /// Whether this was asked; then it counts as answered.
    pub(super) fn take(&mut self, from: Index) -> bool {
        let asked = *self == HostRead::Waiting { from };
        if asked {
            *self = HostRead::Idle;
        }
        asked
    }

    /// From where on entries were asked, if there was no answer yet.
    pub(super) fn waiting(&self) -> Option<Index> {
        match self {
            HostRead::Waiting { from } => Some(*from),
            HostRead::Idle | HostRead::Failed { .. } => None,
        }
    }

    /// When a question that was answered with nothing may be asked again.
    pub(super) fn retry(&self) -> Option<Time> {
        match self {
            HostRead::Failed { retry } => Some(*retry),
            HostRead::Idle | HostRead::Waiting { .. } => None,
        }
    }
}

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
        self.append_as_leader([Payload::Noop].into_iter(), out);
    }

    /// Leadership is lost.
    pub(super) fn end_replication(&mut self, out: &mut Effects<Self>) {
        self.refuse_reads(out);
        for peer in &mut self.progress {
            peer.reset(Index(1), Time::ZERO);
        }
        self.catch_up_wanted = false;
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
    fn replicate(&mut self, i: usize, out: &mut Effects<Self>) {
        loop {
            let peer = &mut self.progress[i];
            let next = peer.next;
            match peer.sending {
                Sending::Probe { waiting: true } => return,
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
                    let room = peer.room(&self.config.limits);
                    let cost = self.log.get(next).map_or(0, Entry::cost);
                    if !peer.takes(cost, room) {
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
        let peer = &mut self.progress[i];
        let last = Index(peer.next.0 + count - 1);
        peer.in_flight.push_back((last, cost));
        peer.in_flight_bytes += cost;
        peer.next = last.next();
    }

    /// Sends the entries that follow right before `next`.
    fn send_append(&mut self, i: usize, entries: Vec<Entry>, reply: bool, out: &mut Effects<Self>) {
        let peer = &mut self.progress[i];
        let prev_index = peer.next.previous();
        let prev_term = self.log.term_at(prev_index);
        let prev_term = prev_term.expect("a leader sends only what follows on its log's base");
        peer.commit_sent = self.commit;
        let append = AppendEntries {
            term: self.hard.term,
            prev_index,
            prev_term,
            commit: self.commit,
            round: self.reads.round,
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
        for i in 0..self.progress.len() {
            self.send_append(i, Vec::new(), true, out);
        }
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
        if self.part != Part::Leader {
            return;
        }
        let limits = self.config.limits;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.cost();
            bytes <= limits.message_bytes_max
        };
        let count = entries.iter().take_while(fits).count().max(1);
        let entries = &entries[..count];
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
            Outcome::Stale => false,
        };
        if !possible || reply.round > self.reads.round {
            self.ignored += 1;
            return;
        }
        let peer = &mut self.progress[i];
        peer.heard = self.now;
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
            Outcome::Stale => {}
        }
        self.maybe_confirm_round(out);
        self.replicate(i, out);
        self.maybe_push_commit(i, out);
    }

    /// The peer's log does not hold `prev_index`: something was lost, or the logs differ there.
    fn on_rejected(&mut self, i: usize, prev_index: Index, hint_index: Index, hint_term: Term) {
        let peer = &mut self.progress[i];
        let stale = match peer.sending {
            Sending::Probe { .. } => prev_index != peer.next.previous(),
            Sending::Pipeline => false,
        };
        // What is known to match cannot be rejected now: this was sent before it did.
        if stale || prev_index <= peer.matched {
            return;
        }
        // The follower's term at its hint is the largest it has up to there, so the logs cannot
        // agree where the leader's terms are above it: whole terms are skipped at once.
        let (agree, _) = self.log.last_not_above(hint_index, hint_term);
        let next = agree.max(peer.matched).max(self.log.base()).next();
        peer.probe(next, false);
    }

    /// Commits what a quorum's disks hold, if it is of this term: an entry of an earlier term can
    /// still be replaced, even if a quorum holds it, until one of this term is committed after it
    /// (section 3.6.2).
    pub(super) fn maybe_commit(&mut self, out: &mut Effects<Self>) {
        let matched = self.progress.iter().map(|peer| peer.matched).chain([self.stored]);
        let Some(index) = self.membership.reached(matched) else { return };
        if index <= self.commit || self.log.term_at(index) != Some(self.hard.term) {
            return;
        }
        self.commit_to(index);
        for i in 0..self.progress.len() {
            self.maybe_push_commit(i, out);
        }
        self.maybe_begin_round(out);
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
            }
        } else if self.part == Part::Follower && self.leader == Some(peer) {
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
        self.become_follower(append.term, Some(from), out);
        self.leader_contact = Some(self.now);
        self.restart_election_timer();

        let (round, wants_reply) = (append.round, append.reply);
        let outcome = self.accept(append, out);
        let reply = match outcome {
            None => return,
            Some(Outcome::Matched { .. }) if !wants_reply => return,
            Some(outcome) => AppendEntriesReply { term: self.hard.term, round, outcome },
        };
        // Held: it acknowledges what this step and earlier ones have appended.
        out.send(from, Message::AppendEntriesReply(reply));
    }

    /// Makes the log agree with the leader's up to the end of the message. Returns nothing if
    /// that is impossible.
    fn accept(&mut self, append: AppendEntries, out: &mut Effects<Self>) -> Option<Outcome> {
        let AppendEntries { prev_index, prev_term, commit, mut entries, .. } = append;
        let base = self.log.base();
        if prev_index >= base && self.log.term_at(prev_index) != Some(prev_term) {
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
            .take_while(|(index, entry)| *index <= base || self.log.term_at(*index) == Some(entry.term))
            .count();
        if held < entries.len() {
            let first = Index(prev_index.0 + 1 + held as u64);
            if first <= self.commit {
                // No leader differs from what is committed.
                self.ignored += 1;
                return None;
            }
            if first <= self.log.last() {
                self.uncommitted_bytes -= self.log.truncate(first);
                self.stored = self.stored.min(first.previous());
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

/// Whether a leader's log can hold what the message says.
fn is_well_formed(append: &AppendEntries) -> bool {
    let mut term = append.prev_term;
    let ascending =
        append.entries.iter().all(|entry| core::mem::replace(&mut term, entry.term) <= entry.term);
    ascending && term <= append.term && (append.prev_index > Index::ZERO || append.prev_term == Term(0))
}
