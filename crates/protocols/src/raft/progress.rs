//! What a leader knows about a peer, and what it waits for from its host.

use crate::log::{Index, LogLimits};
use crate::types::{NodeId, Time};
use alloc::collections::VecDeque;
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
    /// The messages of entries that were not acknowledged: the last entry of each and its cost.
    in_flight: VecDeque<(Index, usize)>,
    in_flight_bytes: usize,
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
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            commit_sent: Index::ZERO,
            round: 0,
            heard: Time::ZERO,
            answered: false,
            pace: Pace::default(),
            read_current: None,
            read_next: None,
        }
    }

    /// A new term begins: nothing is known.
    pub(super) fn reset(&mut self, next: Index, now: Time) {
        self.matched = Index::ZERO;
        self.round = 0;
        self.heard = now;
        self.answered = false;
        self.pace = Pace { target: next.previous(), since: now, quick: false };
        (self.read_current, self.read_next) = (None, None);
        self.probe(next, false);
    }

    /// Whatever was in flight is taken to be lost.
    pub(super) fn probe(&mut self, next: Index, waiting: bool) {
        self.next = next;
        self.sending = Sending::Probe { waiting };
        self.in_flight.clear();
        self.in_flight_bytes = 0;
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
        self.in_flight.push_back((last, cost));
        self.in_flight_bytes += cost;
        self.next = last.next();
    }

    /// Its disk holds the log up to `index`. Returns whether that is news.
    pub(super) fn acknowledge(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        while let Some((last, cost)) = self.in_flight.front().copied()
            && last <= self.matched
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= cost;
        }
        if self.sending != Sending::Pipeline {
            self.sending = Sending::Pipeline;
            self.next = self.matched.next();
        }
        self.next = self.next.max(self.matched.next());
        news
    }

    /// How many bytes may be sent now: 0 if the window is full. An empty window takes anything.
    pub(super) fn room(&self, limits: &LogLimits) -> usize {
        if self.in_flight.is_empty() {
            return limits.message_bytes_max.max(1);
        }
        if self.in_flight.len() >= limits.window_messages_max {
            return 0;
        }
        limits.window_bytes_max.saturating_sub(self.in_flight_bytes).min(limits.message_bytes_max)
    }

    /// Whether the next entry, which costs `cost`, fits into `room`.
    pub(super) fn takes(&self, cost: usize, room: usize) -> bool {
        room > 0 && (cost <= room || self.in_flight.is_empty())
    }

    /// Whether it can take a whole message of entries which the host has to read back first.
    pub(super) fn waits_for_host(&self, limits: &LogLimits, first_in_memory: Index) -> bool {
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
