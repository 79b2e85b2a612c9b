//! What a replica knows about a peer that it sends its log to, and what it has asked of its host.

use super::OpNumber;
use crate::log::{Index, LogLimits};
use crate::reading::PeerReads;
use crate::types::{NodeId, Time};
use crate::window::Window;

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
    /// What was sent and not acknowledged.
    pub(super) window: Window,
    /// The last commit-number sent, as far as nothing sent since is known to be lost.
    pub(super) commit_sent: OpNumber,
    /// The latest round of confirming the view that it answered.
    pub(super) round: u64,
    /// When it last answered in this view; and whether it did, and the connection was not lost since.
    pub(super) heard: Time,
    pub(super) answered: bool,
    /// The batches of reads that it asked to have confirmed.
    pub(super) reads: PeerReads,
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
            window: Window::default(),
            commit_sent: Index::ZERO,
            round: 0,
            heard: Time::ZERO,
            answered: false,
            reads: PeerReads::default(),
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
        self.window.clear();
        self.commit_sent = Index::ZERO;
    }

    /// Entries were sent that end at `last` and cost `cost`.
    pub(super) fn sent(&mut self, last: OpNumber, cost: usize) {
        self.window.sent(last, cost);
        self.next = last.next();
    }

    /// Its disk holds the log up to `op`. Returns whether that is news.
    pub(super) fn acknowledge(&mut self, op: OpNumber) -> bool {
        let news = op > self.matched;
        self.matched = self.matched.max(op);
        self.window.acknowledge(self.matched);
        if self.sending != Sending::Pipeline {
            self.rewind(self.matched.next(), Sending::Pipeline);
        }
        self.next = self.next.max(self.matched.next());
        news
    }

    /// Whether it can take a whole message of entries which the host has to read back first.
    pub(super) fn waits_for_host(&self, limits: &LogLimits, first_in_memory: OpNumber) -> bool {
        let can_take = match self.sending {
            Sending::Waiting => false,
            Sending::State => true,
            Sending::Pipeline => self.window.takes_a_message(limits),
        };
        can_take && self.next < first_in_memory
    }
}
