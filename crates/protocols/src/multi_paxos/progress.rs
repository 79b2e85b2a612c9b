//! What a leader knows about a peer, and how much it may send to it.

use crate::log::{Index, LogLimits};
use crate::reading::PeerReads;
use crate::types::{NodeId, Time};
use crate::window::Window;
use core::time::Duration;

#[derive(Clone, Debug, Hash)]
pub(super) struct Progress {
    pub(super) id: NodeId,
    /// The peer has accepted every slot up to here under this ballot, or knows it to be chosen;
    /// and its disk holds them. It only rises.
    pub(super) accepted: Index,
    /// The first slot to send; after the base of the log.
    pub(super) next: Index,
    pub(super) sending: Sending,
    /// What was sent and not acknowledged.
    pub(super) window: Window,
    /// What it was last told to be chosen, as far as nothing sent since is known to be lost.
    pub(super) chosen_sent: Index,
    /// The latest round of confirming the ballot that it answered.
    pub(super) read_round: u64,
    /// When it last answered under this ballot; and whether it did, and the connection was not lost since.
    pub(super) heard: Time,
    pub(super) answered: bool,
    /// Whether it has promised this ballot and told all that it had accepted under others.
    pub(super) told: bool,
    /// The batches of reads that it asked to have confirmed.
    pub(super) reads: PeerReads,
    /// Up to where it has yet to learn what is chosen, if it is let go by that.
    pub(super) leaving: Option<Index>,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sending {
    /// It is not known from where on the peer needs values, or whether what was sent arrived: one
    /// message at a time. `waiting`: it was sent, and is not repeated before the next heartbeat.
    Probe { waiting: bool },
    /// The peer takes what begins at `next`: messages follow each other without waiting.
    Pipeline,
}

impl Progress {
    pub(super) fn new(id: NodeId) -> Progress {
        Progress {
            id,
            accepted: Index::ZERO,
            next: Index(1),
            sending: Sending::Probe { waiting: false },
            window: Window::default(),
            chosen_sent: Index::ZERO,
            read_round: 0,
            heard: Time::ZERO,
            answered: false,
            told: false,
            reads: PeerReads::default(),
            leaving: None,
        }
    }

    /// Whether it has been told that it is let go, or cannot be.
    pub(super) fn is_gone(&self, now: Time, election: Duration) -> bool {
        let told = |index| self.accepted >= index && self.chosen_sent >= index;
        self.leaving.is_some_and(|index| told(index) || now >= self.heard + election)
    }

    /// A new ballot begins. A peer that has promised it said how much it knows to be chosen.
    pub(super) fn reset(&mut self, known: Option<Index>, next: Index, now: Time) {
        self.accepted = known.unwrap_or(Index::ZERO);
        self.read_round = 0;
        self.heard = now;
        (self.answered, self.told) = (false, false);
        self.reads = PeerReads::default();
        self.probe(next, false);
        if known.is_some() {
            self.sending = Sending::Pipeline;
        }
    }

    /// Whatever was in flight is taken to be lost.
    pub(super) fn probe(&mut self, next: Index, waiting: bool) {
        self.next = next;
        self.sending = Sending::Probe { waiting };
        self.window.clear();
        self.chosen_sent = Index::ZERO;
    }

    /// It has accepted everything up to `upto`, and the last message began where it could take it.
    /// Returns whether that is news.
    pub(super) fn acknowledge(&mut self, upto: Index) -> bool {
        let news = upto > self.accepted;
        self.accepted = self.accepted.max(upto);
        self.window.acknowledge(upto);
        if let Sending::Probe { .. } = self.sending {
            self.sending = Sending::Pipeline;
            self.next = upto.next();
        }
        self.next = self.next.max(upto.next());
        news
    }

    pub(super) fn sent(&mut self, last: Index, cost: usize) {
        self.window.sent(last, cost);
        self.next = last.next();
    }

    /// Whether it can take a whole message of values which the host has to read back first.
    pub(super) fn waits_for_host(&self, limits: &LogLimits, first_in_memory: Index) -> bool {
        self.sending == Sending::Pipeline
            && self.next < first_in_memory
            && self.window.takes_a_message(limits)
    }
}
