//! A server whose disk lost records (protocol-aware recovery, FAST 2018).
//!
//! A damaged record is not one that never was: the server may have acknowledged what it held, and
//! an entry that is committed on the strength of it may be nowhere else but on one other disk. It
//! therefore goes on counting towards the size of every quorum, and does not act as if it held
//! less than it did:
//!
//! - Where the last thing known about term and vote comes before the damage, it may have voted
//!   since. It *abstains* from everything.
//! - Where it comes after all damage (hosts restate it at the head of each segment), term and vote
//!   are certain, and only entries are lost. Such a server is *under repair*: it does not vote or
//!   campaign, and drops what it has of the log, but receives entries like a learner.
//!
//! # When the repair is complete
//!
//! It asks the leader of its term for the end of its log, under a number that no earlier life has
//! used, and is whole when its own disk holds the leader's log up to there.
//!
//! Let that leader's term be T, which is not below the server's own. What the server acknowledged
//! in terms below T and what was committed by it is in the leader's log: the leader was elected by
//! a quorum which voted with what it held, this server either not among it or, before the damage,
//! with its whole log. What it acknowledged in T itself was the same leader's, before the leader
//! answered the question, and a leader only appends. So once the server holds that much it holds
//! everything that may have been committed with its help, and may vote again. Meanwhile its
//! acknowledgements are true statements about its disk, so that they count; those of an earlier
//! life which the leader still remembers are about entries which only the vote that is withheld
//! could endanger.
//!
//! What it cannot do: if more members than a minority are under repair at once, nobody can be
//! elected, even where their remains together hold everything.

use super::message::Message;
use super::record::{Record, Term};
use super::{Part, Raft};
use crate::contract::Effects;
use crate::log::Index;
use crate::types::NodeId;

/// What a server under repair knows about the end of its repair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Repair {
    /// This life's number for its question.
    pub(super) nonce: u64,
    /// The term of the leader that answered, and where its log ended.
    target: Option<(Term, Index)>,
    /// Up to where this log is known to be the log of the leader of that term.
    matched: (Term, Index),
}

impl Raft {
    /// A server that was under repair, or has to be, begins anew with what the host's state covers.
    pub(super) fn begin_repair(&mut self, out: &mut Effects<Self>) {
        self.hard.repairing = true;
        let (index, term) = (self.log.base(), self.log.epoch_at(self.log.base()).unwrap_or_default());
        // What earlier records hold is not to be taken for this log again.
        out.record(Record::Snapshot { index, term });
    }

    /// The leader of this term has spoken, and the log matches its log up to `index`, if anywhere.
    pub(super) fn note_repaired(&mut self, leader: NodeId, index: Option<Index>, out: &mut Effects<Self>) {
        if !self.hard.repairing {
            return;
        }
        let term = self.hard.term;
        self.repair.matched = match self.repair.matched {
            (of, matched) if of == term => (term, matched.max(index.unwrap_or_default())),
            _ => (term, index.unwrap_or_default()),
        };
        if index.is_none() || self.repair.target.is_none_or(|(of, _)| of != term) {
            // Early: the question promises nothing.
            out.send_early(leader, Message::RequestLogEnd { nonce: self.repair.nonce });
        }
    }

    pub(super) fn on_request_log_end(&mut self, from: NodeId, nonce: u64, out: &mut Effects<Self>) {
        if self.part == Part::Leader {
            if let Some(peer) = self.progress.iter_mut().find(|peer| peer.id == from) {
                // It no longer holds what it acknowledged, and may reject what it once had.
                peer.matched = Index::ZERO;
            }
            let (term, last) = (self.hard.term, self.log.last());
            // Early: if the leader forgets some of it in a crash, it asked for too much.
            out.send_early(from, Message::LogEnd { nonce, term, last });
        }
    }

    pub(super) fn on_log_end(&mut self, from: NodeId, nonce: u64, term: Term, last: Index) {
        if self.hard.repairing
            && nonce == self.repair.nonce
            && term == self.hard.term
            && self.leader == Some(from)
            && self.repair.target.is_none_or(|(of, _)| of != term)
        {
            self.repair.target = Some((term, last));
        }
    }

    /// Ends the repair when the disk holds what the leader had.
    pub(super) fn maybe_end_repair(&mut self) {
        let (term, matched) = self.repair.matched;
        if self.hard.repairing
            && term == self.hard.term
            && self.repair.target.is_some_and(|(of, last)| of == term && last <= matched.min(self.stored))
            // The host's state holds nothing that is not committed, and the leader's log all that is.
            && self.delivered <= self.stored
        {
            if self.delivered > self.commit {
                self.commit_to(self.delivered);
            }
            // Recorded with this step: a crash before that only repeats the end of the repair.
            self.hard.repairing = false;
            self.draw_election_wait();
            self.restart_election_timer();
        }
    }
}
