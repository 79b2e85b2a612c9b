//! What a replica knows about a peer that it sends its log to, and what it has asked of its host.

use super::OpNumber;
use crate::log::{Index, LogLimits};
use crate::types::{NodeId, Time};
use alloc::collections::VecDeque;

/// What a primary knows about a peer. (Another replica uses `next` and `sending` only, for the
/// state that the primary of a view to be asks of it.)
#[derive(Clone, Debug, Hash)]
pub(super) struct Progress {
    pub(super) id: NodeId,
    /// The peer's disk holds the primary's log up to here.
    pub(super) matched: OpNumber,
    /// The first entry to send; above `matched`.
    pub(super) next: OpNumber,
    pub(super) sending: Sending,
    /// The messages of entries that were not acknowledged: the last entry of each and its cost.
    in_flight: VecDeque<(OpNumber, usize)>,
    pub(super) in_flight_bytes: usize,
    /// The last commit-number sent, as far as nothing sent since is known to be lost.
    pub(super) commit_sent: OpNumber,
    /// The latest round of confirming the view that it answered.
    pub(super) round: u64,
    /// When it last answered in this view.
    pub(super) heard: Time,
    /// The batch of the peer's reads that the round under way confirms, and the one for the next.
    pub(super) read_current: Option<u64>,
    pub(super) read_next: Option<u64>,
}

/// How entries are sent to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sending {
    /// Not before it answers: it is not known what it has, or whether it can be reached.
    Waiting,
    /// It asked for state, and is owed one NewState from `next` on.
    State,
    /// It has the log up to `next`: Prepares follow each other without waiting.
    Pipeline,
}

impl Progress {
    pub(super) fn new(id: NodeId) -> Progress {
        Progress {
            id,
            matched: Index::ZERO,
            next: Index(1),
            sending: Sending::Waiting,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            commit_sent: Index::ZERO,
            round: 0,
            heard: Time::ZERO,
            read_current: None,
            read_next: None,
        }
    }

    /// A new view begins: nothing is known.
    pub(super) fn reset(&mut self, now: Time) {
        *self = Progress { heard: now, ..Progress::new(self.id) };
    }

    /// Whatever was in flight is taken to be lost.
    pub(super) fn rewind(&mut self, next: OpNumber, sending: Sending) {
        self.next = next;
        self.sending = sending;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.commit_sent = Index::ZERO;
    }

    /// Entries were sent that end at `last` and cost `cost`.
    pub(super) fn sent(&mut self, last: OpNumber, cost: usize) {
        self.in_flight.push_back((last, cost));
        self.in_flight_bytes += cost;
        self.next = last.next();
    }

    /// Its disk holds the log up to `op`. Returns whether that is news.
    pub(super) fn acknowledge(&mut self, op: OpNumber) -> bool {
        let news = op > self.matched;
        self.matched = self.matched.max(op);
        while let Some((last, cost)) = self.in_flight.front().copied()
            && last <= self.matched
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= cost;
        }
        if self.sending != Sending::Pipeline {
            self.rewind(self.matched.next(), Sending::Pipeline);
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
    pub(super) fn waits_for_host(&self, limits: &LogLimits, first_in_memory: OpNumber) -> bool {
        let can_take = match self.sending {
            Sending::Waiting => false,
            Sending::State => true,
            Sending::Pipeline => self.room(limits) >= limits.message_bytes_max.max(1),
        };
        can_take && self.next < first_in_memory
    }
}

/// Entries asked of the host for one purpose: one question at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostRead {
    Idle,
    Waiting {
        from: OpNumber,
    },
    /// The host could not read them.
    Failed {
        retry: Time,
    },
}

impl HostRead {
    /// Whether the question may be asked now; then it counts as asked.
    pub(super) fn begin(&mut self, from: OpNumber) -> bool {
        let idle = *self == HostRead::Idle;
        if idle {
            *self = HostRead::Waiting { from };
        }
        idle
    }

    /// Whether this was asked; then it counts as answered.
    pub(super) fn take(&mut self, from: OpNumber) -> bool {
        let asked = *self == HostRead::Waiting { from };
        if asked {
            *self = HostRead::Idle;
        }
        asked
    }

    /// From where on entries were asked, if there was no answer yet.
    pub(super) fn waiting(&self) -> Option<OpNumber> {
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

    /// Time has come to ask again.
    pub(super) fn maybe_retry(&mut self, now: Time) {
        if self.retry().is_some_and(|at| now >= at) {
            *self = HostRead::Idle;
        }
    }
}
