//! Fetching entries before an election: the constrained election (*OmniPaxos*, EuroSys 2023).
//!
//! Where the only member that reaches a quorum lacks entries that others of that quorum hold,
//! nobody could be elected: the others reach no quorum, and refuse it their votes. So a voter that
//! refuses a pre-vote for no other reason than that the candidate's log is behind its own says how
//! far its log reaches ([`Message::LogAhead`]); the pre-candidate asks it for what it lacks
//! ([`Message::FetchLog`]), takes what it is sent ([`Message::FetchedLog`]), and campaigns again.
//!
//! # Why it is safe
//!
//! What is fetched is acknowledged to nobody; a leader counts it after its own check of this log,
//! as if it had always been here. So all that has to be shown is that what this log gives up is
//! nothing that was or will be committed with this server's help.
//!
//! - *Where it only grows*, it gives up nothing, and is afterwards still the beginning of the log
//!   of the leader of its last entry's term, which is all that voters compare.
//! - *Where it is cut*, what replaces it ends in an entry of a term U above every term in this log
//!   (`adopt` does not cut before it has such an entry at hand). Suppose that something is or will be
//!   committed in a term T by a quorum that counts this server. It then acknowledged an entry of T,
//!   which is in this log or in one that replaced it in the same way, and so T is below U. The leader
//!   of U was elected by a quorum, too; a member of both acknowledged in T before it voted in U, and
//!   so that leader held everything committed in T before its first entry of U. Logs that hold the
//!   same entry of U are equal before it: what was committed is in what replaces.
//!
//! A part of the voter's suffix is taken only under the same conditions. What conflicts with this
//! log and does not reach a higher term yet waits in memory until it does, bounded by
//! `uncommitted_bytes_max`.
//!
//! A leader of the present term may remember what this server acknowledged of earlier terms' entries,
//! and takes no rejection of that. So whoever cuts its log enters a new term in the same step, in
//! which nobody remembers anything. The voter's commit index speaks of the log that both share, and
//! is as true here as there.

use super::message::{FetchLog, FetchedLog, Message};
use super::record::{Entry, Term};
use super::{Part, Raft};
use crate::contract::Effects;
use crate::epoch_log::LogEntry;
use crate::log::{Index, LogAsk};
use crate::types::NodeId;
use alloc::vec::Vec;

/// What a pre-candidate is fetching: from one voter at a time, the one with the most.
#[derive(Clone, Debug, Hash)]
pub(super) struct Fetch {
    from: NodeId,
    /// Where the voter's log ended.
    last: (Term, Index),
    /// Entries that follow on `after`, which both logs hold, and conflict with this log, but do
    /// not yet reach a term above its last.
    after: Index,
    held: Vec<Entry>,
}

/// At the voter.
impl Raft {
    /// Serves entries from memory, or else from the host.
    pub(super) fn on_fetch_log(&mut self, from: NodeId, fetch: FetchLog, out: &mut Effects<Self>) {
        if self.is_loyal() || !self.may_vote() {
            return;
        }
        let FetchLog { index, term } = fetch;
        // If this log does not hold the position, the logs cannot agree after this one.
        let (prev_index, _) = self.log.last_not_above(index, term);
        let first_in_memory = self.log.first_in_memory();
        let next = prev_index.next();
        let bytes_max = self.config.limits.message_bytes_max;
        if next >= first_in_memory {
            let entries = self.log.batch(next, bytes_max).0;
            self.send_fetched(from, prev_index, entries, out);
        } else if self.catch_up.begin(next) {
            self.fetched_for = Some(from);
            out.ask(LogAsk::Entries { from: next, to: first_in_memory.previous(), bytes_max });
        }
    }

    /// The host has read entries that this server no longer leads anybody to, but was asked for.
    pub(super) fn send_fetched_from_host(&mut self, from: Index, entries: &[Entry], out: &mut Effects<Self>) {
        if let Some(to) = self.fetched_for.take()
            && from > self.log.base()
        {
            self.send_fetched(to, from.previous(), entries.to_vec(), out);
        }
    }

    fn send_fetched(&mut self, to: NodeId, prev_index: Index, entries: Vec<Entry>, out: &mut Effects<Self>) {
        let fetched = FetchedLog {
            term: self.hard.term,
            prev_index,
            prev_term: self.log.epoch_at(prev_index).unwrap_or_default(),
            base: self.log.base(),
            last_index: self.log.last(),
            last_term: self.log.last_epoch(),
            commit: self.commit,
            entries,
        };
        out.send(to, Message::FetchedLog(fetched));
    }
}

/// At the pre-candidate.
impl Raft {
    /// A voter would vote for this server, if its log were as long.
    pub(super) fn on_log_ahead(
        &mut self,
        from: NodeId,
        term: Term,
        last: (Term, Index),
        out: &mut Effects<Self>,
    ) {
        let asked = self.part == Part::PreCandidate;
        self.observe_term(term, out);
        if !asked || !self.may_fetch() || last.0 > self.hard.term || last <= self.log_end() {
            return;
        }
        if self.fetch.as_ref().is_some_and(|fetch| fetch.last >= last) {
            return;
        }
        self.fetch = Some(Fetch { from, last, after: Index::ZERO, held: Vec::new() });
        let (index, term) = self.log.last_not_above(last.1, last.0);
        self.ask_for_log(from, index, term, out);
    }

    fn ask_for_log(&self, from: NodeId, index: Index, term: Term, out: &mut Effects<Self>) {
        // Early: the question promises nothing.
        out.send_early(from, Message::FetchLog(FetchLog { index, term }));
    }

    pub(super) fn on_fetched_log(&mut self, from: NodeId, fetched: FetchedLog, out: &mut Effects<Self>) {
        let Some(mut fetch) = self.fetch.take_if(|fetch| fetch.from == from) else { return };
        if !is_well_formed(&fetched) {
            self.ignored += 1;
            return;
        }
        // First the term: no log holds an entry of a term that its server has not reached.
        self.observe_term(fetched.term, out);
        fetch.last = (fetched.last_term, fetched.last_index);
        if !self.may_fetch() || fetch.last.0 > self.hard.term || fetch.last <= self.log_end() {
            return;
        }
        let FetchedLog { prev_index, prev_term, base, commit, entries, .. } = fetched;
        let progress = !entries.is_empty();
        if fetch.end().is_some_and(|end| end == (prev_index, prev_term)) {
            fetch.held.extend(entries);
        } else if prev_index < self.log.base() || self.log.epoch_at(prev_index) == Some(prev_term) {
            (fetch.after, fetch.held) = (prev_index, entries);
        } else if prev_index <= base {
            // Only the voter's state can help, if it is news.
            if prev_index > self.commit {
                out.ask(LogAsk::Snapshot { from, index: prev_index });
            }
            return;
        } else {
            let (index, term) = self.log.last_not_above(prev_index, prev_term);
            self.fetch = Some(fetch);
            return self.ask_for_log(from, index, term, out);
        }
        if progress && self.adopt(&mut fetch, commit, out) {
            self.go_on_fetching(fetch, out);
        }
    }

    /// Takes into the log what has been fetched, as far as that is safe now. Returns whether to go on.
    fn adopt(&mut self, fetch: &mut Fetch, commit: Index, out: &mut Effects<Self>) -> bool {
        let base = self.log.base();
        let same = (fetch.after.0 + 1..)
            .map(Index)
            .zip(&fetch.held)
            .take_while(|(index, entry)| *index <= base || self.log.epoch_at(*index) == Some(entry.term))
            .count();
        fetch.held.drain(..same);
        fetch.after = Index(fetch.after.0 + same as u64);
        let first = fetch.after.next();
        if let Some(highest) = fetch.held.last().map(|entry| entry.term) {
            let conflict = first <= self.log.last();
            if first <= self.commit {
                // What is committed is in every log that is ahead.
                self.ignored += 1;
                return false;
            }
            if conflict && highest <= self.log.last_epoch() {
                let bytes: usize = fetch.held.iter().map(Entry::cost).sum();
                return bytes <= self.config.limits.uncommitted_bytes_max;
            }
            if conflict {
                self.become_follower(self.hard.term.next(), None, out);
                self.truncate(first);
            }
            let entries = core::mem::take(&mut fetch.held);
            fetch.after = Index(fetch.after.0 + entries.len() as u64);
            self.append(entries, out);
        }
        let commit = commit.min(fetch.after);
        if commit > self.commit {
            self.commit_to(commit);
        }
        true
    }

    fn go_on_fetching(&mut self, fetch: Fetch, out: &mut Effects<Self>) {
        if self.log_end() >= fetch.last {
            return self.become_pre_candidate(out);
        }
        // It gets on: no need to begin anew.
        self.restart_election_timer();
        let (index, term) = match fetch.end() {
            Some(end) => end,
            None => (fetch.after, self.log.epoch_at(fetch.after).unwrap_or_default()),
        };
        self.ask_for_log(fetch.from, index, term, out);
        self.fetch = Some(fetch);
    }

    /// Whether this server is one that may take entries from somebody who does not lead.
    fn may_fetch(&self) -> bool {
        matches!(self.part, Part::Follower | Part::PreCandidate)
            && self.leader.is_none()
            && self.may_campaign()
    }

    /// What decides whose log is ahead (section 3.6.1).
    pub(super) fn log_end(&self) -> (Term, Index) {
        (self.log.last_epoch(), self.log.last())
    }
}

impl Fetch {
    /// Where what waits in memory ends, if anything waits.
    fn end(&self) -> Option<(Index, Term)> {
        let last = self.held.last()?;
        Some((Index(self.after.0 + self.held.len() as u64), last.term))
    }
}

/// Whether a voter's log can be what the message says.
fn is_well_formed(fetched: &FetchedLog) -> bool {
    let end = fetched.prev_index.0.checked_add(fetched.entries.len() as u64);
    let last = fetched.entries.last().map_or(fetched.prev_term, |entry| entry.term);
    end.is_some_and(|end| (last, Index(end)) <= (fetched.last_term, fetched.last_index))
        && end.is_some_and(|end| end <= fetched.last_index.0)
        && fetched.last_term <= fetched.term
        && fetched.commit <= fetched.last_index
        && super::replication::is_run(fetched.prev_index, fetched.prev_term, &fetched.entries)
}
