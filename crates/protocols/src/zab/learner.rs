//! What a leader knows about one of its learners: followers and observers.

use super::record::Zxid;
use crate::log::{Epoch, Index, LogLimits};
use crate::reading::PeerReads;
use crate::types::{NodeId, Time};
use crate::window::Window;

/// ZooKeeper's LearnerHandler.
#[derive(Clone, Debug, Hash)]
pub(super) struct Learner {
    pub(super) id: NodeId,
    /// Whether it asked to follow this leader.
    pub(super) following: bool,
    /// Whether it said that it only learns.
    pub(super) observer: bool,
    /// The currentEpoch and the end of its history, if it has promised this leader's epoch.
    pub(super) promised: Option<(Epoch, Zxid)>,
    /// Its disk holds the leader's history up to here.
    pub(super) matched: Index,
    /// The first entry to send.
    pub(super) next: Index,
    pub(super) sending: Sending,
    /// What was sent and not acknowledged.
    pub(super) window: Window,
    /// The last committed position sent, as far as nothing sent since is known to be lost.
    pub(super) commit_sent: Index,
    /// Whether it was told UPTODATE.
    pub(super) up_to_date: bool,
    /// The latest round of confirming leadership that it answered.
    pub(super) round: u64,
    /// When it last answered; and whether it did, and the connection was not lost since.
    pub(super) heard: Time,
    pub(super) answered: bool,
    /// The batches of reads that it asked to have confirmed.
    pub(super) reads: PeerReads,
}

/// How a leader sends to a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sending {
    /// It has not promised the epoch.
    Nothing,
    /// DIFF or TRUNC was sent, and the answer will tell whether its history agrees up to `to`.
    /// Repeated with every heartbeat.
    Probe {
        /// The end of its history.
        last: Zxid,
        /// Where its history is believed to agree.
        to: Zxid,
    },
    /// SNAP was sent. Repeated with every heartbeat.
    Snapshot,
    /// The histories agree up to `next`: messages follow each other without waiting.
    Stream,
}

impl Learner {
    pub(super) fn new(id: NodeId) -> Learner {
        Learner {
            id,
            following: false,
            observer: false,
            promised: None,
            matched: Index::ZERO,
            next: Index(1),
            sending: Sending::Nothing,
            window: Window::default(),
            commit_sent: Index::ZERO,
            up_to_date: false,
            round: 0,
            heard: Time::ZERO,
            answered: false,
            reads: PeerReads::default(),
        }
    }

    /// An epoch begins or ends: nothing is known.
    pub(super) fn reset(&mut self, now: Time) {
        *self = Learner { heard: now, ..Learner::new(self.id) };
    }

    /// It asks to follow, perhaps after a crash: everything but the reads begins anew.
    pub(super) fn begin_session(&mut self, observer: bool, now: Time) {
        let reads = self.reads;
        *self = Learner { following: true, observer, heard: now, reads, ..Learner::new(self.id) };
    }

    /// It answers.
    pub(super) fn hear(&mut self, now: Time) {
        (self.heard, self.answered) = (now, true);
    }

    /// Whatever was in flight is taken to be lost.
    pub(super) fn send_as(&mut self, sending: Sending, next: Index) {
        self.sending = sending;
        self.next = next;
        self.window.clear();
        self.commit_sent = Index::ZERO;
    }

    /// Its disk holds the leader's history up to `index`. Returns whether that is news.
    pub(super) fn acknowledge(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.window.acknowledge(self.matched);
        if let Sending::Probe { .. } = self.sending {
            self.send_as(Sending::Stream, self.matched.next());
        }
        if self.sending == Sending::Stream {
            self.next = self.next.max(self.matched.next());
        }
        news
    }

    pub(super) fn note_sent(&mut self, last: Index, cost: usize) {
        self.window.sent(last, cost);
        self.next = last.next();
    }

    /// Whether it can take a whole message of entries which the host has to read back first.
    pub(super) fn waits_for_host(&self, limits: &LogLimits, first_in_memory: Index) -> bool {
        self.sending == Sending::Stream && self.next < first_in_memory && self.window.takes_a_message(limits)
    }
}
