//! A member whose disk lost records (protocol-aware recovery, FAST 2018).
//!
//! A damaged record is not one that never was: the member may have acknowledged what it held, or promised an
//! epoch in it.
//!
//! - Where the last that is known of its epochs comes before the damage, it may have promised another since.
//!   It *abstains* from everything, for ever.
//! - Where it comes after all damage (hosts restate it at the head of each segment), only entries are lost.
//!   The member is *under repair*: it drops its history and follows as an observer, which counts in no
//!   quorum, neither of discovery nor of acknowledgements, and does not vote.
//!
//! # When the repair is complete
//!
//! It asks the leader that it follows where that one's history ends, under a number that no earlier life has
//! used, and is whole when its own disk has the leader's history up to there, NEWLEADER included. Then it
//! asks to follow anew, as a participant.
//!
//! Let the leader's epoch be e, which is not below what the member has promised. What it acknowledged in
//! earlier epochs and was committed with its help is in the history that e began with: a quorum promised e,
//! this member either not among it or, before the damage, with its whole history. What it acknowledged in e
//! itself the leader had proposed before it answered. So it holds all that may rest on it, and its
//! currentEpoch says no more than is there.

use super::message::Message;
use super::{Part, Phase, Zab};
use crate::contract::Effects;
use crate::log::{Epoch, Index};
use crate::types::NodeId;

/// What a member under repair knows about the end of its repair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Repair {
    /// This life's number for its question.
    pub(super) nonce: u64,
    /// The epoch of the leader that answered, and where its history ended.
    pub(super) target: Option<(Epoch, Index)>,
}

impl Zab {
    /// With every PING of the leader's, until it has answered.
    pub(super) fn maybe_ask_for_the_end(&mut self, leader: NodeId, out: &mut Effects<Self>) {
        let known = self.repair.target.is_some_and(|(epoch, _)| epoch == self.epochs.accepted);
        if self.epochs.repairing && !known {
            // Early: the question promises nothing.
            out.send_early(leader, Message::RequestHistoryEnd { nonce: self.repair.nonce });
        }
    }

    pub(super) fn on_request_history_end(&mut self, from: NodeId, nonce: u64, out: &mut Effects<Self>) {
        if let (Part::Leading(Phase::Synchronization | Phase::Broadcast), Some(epoch)) =
            (self.part, self.epoch)
        {
            // Early: if the leader forgets some of it in a crash, it asked for too much.
            out.send_early(from, Message::HistoryEnd { nonce, epoch, last: self.history.last() });
        }
    }

    pub(super) fn on_history_end(&mut self, from: NodeId, nonce: u64, epoch: Epoch, last: Index) {
        let expected = self.epochs.repairing && nonce == self.repair.nonce && self.leader == Some(from);
        if !expected {
            self.ignored += 1;
        } else if epoch == self.epochs.accepted && self.repair.target.is_none_or(|(of, _)| of != epoch) {
            self.repair.target = Some((epoch, last));
        }
    }

    /// Ends the repair when the disk holds what the leader had.
    pub(super) fn maybe_end_repair(&mut self, out: &mut Effects<Self>) {
        let epoch = self.epochs.accepted;
        let complete = |(of, last)| of == epoch && last <= self.stored;
        let follows = matches!(self.part, Part::Following(Phase::Synchronization | Phase::Broadcast));
        if self.epochs.repairing
            && follows
            && self.agreed
            && self.epochs.current == epoch
            && self.repair.target.is_some_and(complete)
            // The host's state holds nothing that is not committed, and the leader had all that is.
            && self.delivered <= self.stored
        {
            if self.delivered > self.commit {
                self.commit_to(self.delivered);
            }
            // Recorded with this step: a crash before that only repeats the end of the repair.
            self.epochs.repairing = false;
            self.part = Part::Following(Phase::Discovery);
            self.send_follower_info(out);
        }
    }
}
