//! Reads that rest on a lease (dissertation, 6.4.1): off unless configured, because they need what
//! nothing else in Raft needs, clocks that run at nearly the same rate.
//!
//! A voter that hears from a leader promises not to vote for another within an election timeout.
//! So while fewer than an election timeout has passed since the leader *sent* what a quorum
//! answered, no other leader can have been elected, and the commit index of this one is as good as
//! the cluster's. The lease is shorter than the election timeout by what clocks may differ.
//!
//! Everything that grants a vote keeps the promise: being told of a higher term does not end it,
//! nor does losing the connection to the leader; a restarted voter waits for an election timeout,
//! because it forgot what it promised; a leader that steps down keeps the promise which it gave
//! itself. Only a vote in a transfer breaks it, and the leader that wanted the transfer has given
//! up its leases for the whole of its term, since its request may be answered late.

use super::{Part, Raft};
use crate::types::Time;
use alloc::collections::VecDeque;
use core::time::Duration;

/// Rounds whose beginnings are remembered until a quorum has answered; a leader that has begun so
/// many more begins no new ones, so that its lease may end a little early.
const ROUNDS_MAX: usize = 64;

/// A leader's lease.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct LeaseState {
    /// When the rounds began that a quorum has not answered yet, and the last one that it has.
    pub(super) rounds: VecDeque<(u64, Time)>,
    /// When it ends.
    pub(super) until: Time,
    /// Whether there is none in this term any more.
    pub(super) void: bool,
}

impl Raft {
    /// A round of messages is about to be sent.
    pub(super) fn begin_lease_round(&mut self) {
        if self.config.lease.is_none() || self.lease.rounds.len() >= ROUNDS_MAX {
            return;
        }
        // A number of its own: answers to what was sent before now do not count.
        self.reads.advance();
        self.lease.rounds.push_back((self.reads.latest(), self.now));
    }

    /// A peer has answered.
    pub(super) fn maybe_renew_lease(&mut self) {
        let Some(lease) = self.config.lease else { return };
        if self.part != Part::Leader || self.lease.void {
            return;
        }
        let Some(answered) = self.reached(self.reads.latest(), |peer| peer.round) else { return };
        let mut sent = None;
        while let Some((round, began)) = self.lease.rounds.front().copied()
            && round <= answered
        {
            sent = Some(began);
            self.lease.rounds.pop_front();
        }
        let Some(sent) = sent else { return };
        let election = self.config.timing.election;
        let drift = u128::from(lease.drift_ppm.min(1_000_000));
        let length = election.as_nanos() * (1_000_000 - drift) / 1_000_000;
        let length = Duration::from_nanos(u64::try_from(length).unwrap_or(u64::MAX));
        self.lease.until = self.lease.until.max(sent + length);
        // Its own part of the quorum's promise, by the same clock.
        self.promised_until = self.promised_until.max(sent + election);
    }

    /// No lease in this term any more.
    pub(super) fn void_lease(&mut self) {
        self.lease.void = true;
    }

    /// Until when reads may rest on the lease, if they may now. Before an entry of its own term is
    /// committed a leader does not know what its predecessors committed.
    pub(super) fn leased_until(&self) -> Option<Time> {
        let holds = self.part == Part::Leader && !self.lease.void && self.now < self.lease.until;
        (holds && self.own_term_committed()).then_some(self.lease.until)
    }
}
