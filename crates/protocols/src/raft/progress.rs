//! What a leader knows about a peer, and what it waits for from its host.

use crate::log::{Index, LogLimits};
use crate::reading::PeerReads;
use crate::types::{NodeId, Time};
use crate::window::Window;
use core::time::Duration;

/// What a leader knows about a peer.
#[derive(Clone, Debug, Hash)]
pub(super) struct Progress {
    pub(super) id: NodeId,
    /// The peer's disk holds the leader's log up to here.
    pub(super) matched: Index,
    /// The first entry to send; above `matched`.
    pub(super) next: Index,
    pub(super) sending: Sending,
    /// What was sent and not acknowledged.
    pub(super) window: Window,
    /// The last commit index sent, as far as nothing sent since is known to be lost.
    pub(super) commit_sent: Index,
    /// The latest round of confirming leadership that it answered.
    pub(super) round: u64,
    /// When it last answered in this term.
    pub(super) heard: Time,
    /// Whether it answered in this term and the connection was not lost since.
    pub(super) answered: bool,
    /// How quickly it catches up.
    pub(super) pace: Pace,
    /// The batches of reads that it asked to have confirmed.
    pub(super) reads: PeerReads,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sending {
    /// It is not known where the logs agree, or whether what was sent arrived: one message at a
    /// time. `waiting`: it was sent, and is not repeated before the next heartbeat.
    Probe { waiting: bool },
    /// The logs agree up to `next`: messages follow each other without waiting (section 10.2.2).
    Pipeline,
    /// It lacks what the log no longer has: it is offered a snapshot, and asks its host for it.
    Snapshot,
}

/// Rounds of catching up (section 4.2.1): in each the peer receives what the log held when the
/// round began. One that takes less than an election timeout shows a peer that keeps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Pace {
    target: Index,
    pub(super) since: Time,
    quick: bool,
}

impl Pace {
    /// The peer has everything up to `matched`, and the log ends at `last`.
    pub(super) fn note(&mut self, matched: Index, last: Index, now: Time, election: Duration) {
        if matched >= self.target {
            let quick = now < self.since + election;
            *self = Pace { target: last, since: now, quick };
        }
    }

    pub(super) fn keeps_up(&self, now: Time, election: Duration) -> bool {
        self.quick && now < self.since + election
    }
}

impl Progress {
    pub(super) fn new(id: NodeId) -> Progress {
        Progress {
            id,
            matched: Index::ZERO,
            next: Index(1),
            sending: Sending::Probe { waiting: false },
            window: Window::default(),
            commit_sent: Index::ZERO,
            round: 0,
            heard: Time::ZERO,
            answered: false,
            pace: Pace::default(),
            reads: PeerReads::default(),
        }
    }

    /// A new term begins: nothing is known.
    pub(super) fn reset(&mut self, next: Index, now: Time) {
        self.matched = Index::ZERO;
        self.round = 0;
        self.heard = now;
        self.answered = false;
        self.pace = Pace { target: next.previous(), since: now, quick: false };
        self.reads = PeerReads::default();
        self.probe(next, false);
    }

    /// Whatever was in flight is taken to be lost.
    pub(super) fn probe(&mut self, next: Index, waiting: bool) {
        self.next = next;
        self.sending = Sending::Probe { waiting };
        self.window.clear();
        self.commit_sent = Index::ZERO;
    }

    /// Where to go on when everything in flight may be lost: after what it acknowledged or, if it has
    /// not said anything in this term, where the search for the last common entry stands. (To begin
    /// that search at the first entry would send it the whole log again.)
    pub(super) fn resume(&self, base: Index) -> Index {
        let next = if self.matched > Index::ZERO { self.matched.next() } else { self.next };
        next.max(base.next())
    }

    /// Only a snapshot can help it.
    pub(super) fn offer_snapshot(&mut self) {
        self.probe(self.matched.next(), true);
        self.sending = Sending::Snapshot;
    }

    /// `count` entries that cost so much have been sent.
    pub(super) fn sent(&mut self, count: u64, cost: usize) {
        let last = Index(self.next.0 + count - 1);
        self.window.sent(last, cost);
        self.next = last.next();
    }

    /// Its disk holds the log up to `index`. Returns whether that is news.
    pub(super) fn acknowledge(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.window.acknowledge(self.matched);
        if self.sending != Sending::Pipeline {
            self.sending = Sending::Pipeline;
            self.next = self.matched.next();
        }
        self.next = self.next.max(self.matched.next());
        news
    }

    /// Whether it can take a whole message of entries which the host has to read back first.
    pub(super) fn waits_for_host(&self, limits: &LogLimits, first_in_memory: Index) -> bool {
        self.sending == Sending::Pipeline
            && self.next < first_in_memory
            && self.window.takes_a_message(limits)
    }
}
