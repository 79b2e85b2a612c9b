//! From what a disk held to a server that may act on it.
//!
//! Records come in the order in which they were emitted, but the oldest may be gone: a host drops
//! whole segments behind its state and restates the hard state at the head of each. So the first
//! entries may begin anywhere up to right after the host's point. Entries before the point may
//! still be there; and if the host's state was fetched from a peer and the crash came before this
//! server could record what that means, entries after it may contradict it: then they were never
//! committed, and go.

use super::record::{HardState, Log, Record, Term};
use super::{Entry, Raft};
use crate::contract::Effects;
use crate::epoch_log::LogEntry;
use crate::log::{Index, LogBase, Payload};
use crate::membership::{Configuration, Membership};
use crate::wire::Wire;
use alloc::vec::Vec;

/// What has been read of the records so far.
pub(super) struct Replay {
    /// Where the host's state says that the log begins.
    point: Index,
    tail_bytes_max: usize,
    hard: HardState,
    /// The log, once anything was said about it. The term of its base may be unknown, and is then 0.
    log: Option<Log>,
    configurations: Vec<(Index, Configuration)>,
    /// Whether nothing that bears on term and vote is lost.
    hard_is_certain: bool,
    /// Whether nothing that bears on the log after the point is lost.
    log_is_certain: bool,
    /// Whether what was read can be what a server of this version has written.
    sound: bool,
}

impl Replay {
    pub(super) fn new(base: &LogBase, tail_bytes_max: usize) -> Replay {
        Replay {
            point: base.snapshot.as_ref().map_or(Index::ZERO, |point| point.index),
            tail_bytes_max,
            hard: HardState::default(),
            log: None,
            configurations: Vec::new(),
            hard_is_certain: true,
            log_is_certain: true,
            sound: true,
        }
    }

    pub(super) fn take(&mut self, record: Option<Record>) {
        match record {
            None => {
                self.hard_is_certain = false;
                self.lose_log();
            }
            Some(Record::HardState(hard)) => {
                self.hard = hard;
                self.hard_is_certain = !hard.uncertain;
            }
            Some(Record::Snapshot { index, term }) => {
                self.begin_log(Log::after(index, term));
                self.log_is_certain = true;
            }
            Some(Record::Entries { first, entries }) => self.take_entries(first, entries),
        }
    }

    fn take_entries(&mut self, first: Index, entries: Vec<Entry>) {
        let log = match &mut self.log {
            Some(log) if first > log.base() && first <= log.last().next() => {
                log.truncate(first);
                self.configurations.retain(|(index, _)| *index < first);
                log
            }
            other => {
                if other.as_ref().is_some_and(|log| first > log.last()) {
                    // Something between is missing.
                    self.log_is_certain = false;
                } else if first <= self.point.next() {
                    // Whatever was lost before, it is of no account: all after the point is here.
                    self.log_is_certain = true;
                } else {
                    self.log_is_certain = false;
                }
                self.configurations.clear();
                other.insert(Log::after(first.previous(), Term(0)))
            }
        };
        for entry in entries {
            if entry.term < log.last_epoch() {
                self.sound = false;
                return;
            }
            if let Payload::Membership(bytes) = &entry.payload {
                match Configuration::from_bytes(bytes.clone()) {
                    Ok(configuration) => self.configurations.push((log.last().next(), configuration)),
                    Err(_) => self.sound = false,
                }
            }
            log.push(entry);
        }
        while log.bytes() > self.tail_bytes_max {
            log.evict_first();
        }
    }

    fn begin_log(&mut self, log: Log) {
        self.log = Some(log);
        self.configurations.clear();
    }

    /// A record is lost: it may have held entries, or taken some back. What comes after it says
    /// again what the log is, or does not.
    fn lose_log(&mut self) {
        self.log = None;
        self.configurations.clear();
        self.log_is_certain = false;
    }
}

/// What came out of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Whole,
    /// Term and vote are certain, the log is not.
    LogLost,
    /// It may have promised anything.
    Uncertain,
}

impl Raft {
    /// Takes in what the disk held. `damaged`: the host knows that records are lost.
    pub(super) fn take_replay(
        &mut self,
        replay: Replay,
        base: &LogBase,
        damaged: bool,
        out: &mut Effects<Self>,
    ) {
        // A member that its own configuration does not list cannot have founded the cluster.
        let joined = self.hard.joined || !self.config.members.contains(&self.config.id);
        self.hard = HardState { joined: replay.hard.joined || joined, ..replay.hard };
        self.hard_recorded = replay.hard;
        let (hard_is_certain, sound) = (replay.hard_is_certain, replay.sound);
        let mut verdict = if !sound || !hard_is_certain { Verdict::Uncertain } else { Verdict::Whole };
        let point = base.snapshot.clone().unwrap_or_default();
        let Some(configuration) = self.configuration_at(&point) else {
            self.abstain();
            return;
        };
        self.begin_log_after(point.index, Term(point.epoch.0), configuration);
        if verdict == Verdict::Whole {
            verdict = match replay.log_is_certain {
                false => Verdict::LogLost,
                true => self.rebase(replay, Term(point.epoch.0), out),
            };
        }
        if self.log.last() < base.applied && verdict == Verdict::Whole {
            // What was applied was on this disk, so the log has lost it.
            verdict = Verdict::LogLost;
        }
        if self.hard.term < self.log.last_epoch() && self.log.last() > self.log.base() {
            // Entries are recorded together with their term.
            verdict = Verdict::Uncertain;
        }
        let base_term = self.log.epoch_at(self.log.base()).unwrap_or_default();
        if self.hard.term < base_term {
            // A state was fetched and made durable before the term of its leader was. Nobody was
            // told of anything in that term, a vote least of all.
            self.hard = HardState { term: base_term, voted_for: None, ..self.hard };
        }
        match verdict {
            Verdict::Whole => {}
            Verdict::LogLost if damaged => {
                let index = self.log.base();
                let term = self.log.epoch_at(index).unwrap_or_default();
                let configuration = self.membership.committed().clone();
                self.begin_log_after(index, term, configuration);
                self.begin_repair(out);
            }
            // The host says that everything is there, and it is not: nothing can be relied on.
            Verdict::LogLost | Verdict::Uncertain => self.abstain(),
        }
    }

    /// Keeps what follows on the host's point, if it does not contradict it.
    fn rebase(&mut self, replay: Replay, term: Term, out: &mut Effects<Self>) -> Verdict {
        let index = replay.point;
        let Some(mut log) = replay.log else { return Verdict::Whole };
        if log.base() > index {
            // The log begins after a state which the host no longer has.
            return Verdict::LogLost;
        }
        let follows = match log.epoch_at(index) {
            // The term of the first record's base is unknown.
            Some(Term(0)) if index == log.base() => {
                log.epoch_at(index.next()).is_none_or(|first| first >= term)
            }
            found => found == Some(term),
        };
        if !follows {
            out.record(Record::Snapshot { index, term });
            return Verdict::Whole;
        }
        log.compact(index, term);
        self.log = log;
        let mut membership = Membership::after(index, self.membership.current().clone());
        for (at, configuration) in replay.configurations.into_iter().filter(|(at, _)| *at > index) {
            membership.push(at, configuration);
        }
        self.membership = membership;
        self.note_membership();
        Verdict::Whole
    }

    /// Starts where the host's state machine stands. What it applied was committed.
    pub(super) fn resume_at(&mut self, applied: Index) {
        let (base, last) = (self.log.base(), self.log.last());
        self.commit = applied.clamp(base, last);
        // A log under repair is behind the state.
        let done = applied.max(base);
        (self.delivered, self.applied) =
            if self.hard.repairing { (done, done) } else { (self.commit, self.commit) };
        self.stored = last;
        self.uncommitted_bytes = self.log.range(self.commit.next(), last).map(Entry::cost).sum();
        if self.membership.commit_to(self.commit) {
            self.sync_progress();
        }
    }

    /// It takes no part in this life or a later one. The record keeps what a host restates at the
    /// head of the next segment from passing for certain.
    fn abstain(&mut self) {
        self.hard.uncertain = true;
    }
}
