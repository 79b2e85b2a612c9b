//! Reads that rest on a lease (section 6.3): off unless configured, because they need what nothing
//! else here needs, clocks that run at nearly the same rate.
//!
//! A replica that hears from a primary promises to follow nobody else into another view within an
//! election timeout. So while fewer than an election timeout has passed since the primary *sent* what
//! a quorum answered, no later view can have been started, nor its epoch ended by another, and its
//! commit-number is as good as the cluster's. The lease is shorter than the election timeout by what
//! clocks may differ.
//!
//! Losing the connection to the primary does not end the promise, nor does a view that was entered
//! since; a restarted replica waits for an election timeout, because it forgot what it promised; one
//! that asks for a view change itself has heard nobody for that long. A view change that a primary asks
//! for breaks it, for those who are in that primary's view; and the primary that asked rests no read on
//! a lease any more in this view, since the request may be answered late. The primary which ends its
//! epoch has left its view before it tells anybody.

use super::Viewstamped;
use crate::types::Time;
use alloc::collections::VecDeque;
use core::time::Duration;

/// Rounds whose beginnings are remembered until a quorum has answered; a primary that has begun so
/// many more begins no new ones, so that its lease may end a little early.
const ROUNDS_MAX: usize = 64;

/// A primary's lease.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct LeaseState {
    /// When the rounds began that a quorum has not answered yet.
    pub(super) rounds: VecDeque<(u64, Time)>,
    /// When it ends.
    pub(super) until: Time,
    /// Whether there is none in this view any more.
    pub(super) void: bool,
}

impl Viewstamped {
    /// A round of messages is about to be sent.
    pub(super) fn begin_lease_round(&mut self) {
        if self.config.lease.is_none() || self.lease.rounds.len() >= ROUNDS_MAX {
            return;
        }
        // A number of its own: answers to what was sent before now do not count.
        let round = self.reads.advance();
        self.lease.rounds.push_back((round, self.now));
    }

    /// A peer has answered.
    pub(super) fn maybe_renew_lease(&mut self) {
        let Some(lease) = self.config.lease else { return };
        if !self.is_primary() || self.lease.void {
            return;
        }
        let latest = self.reads.latest();
        let Some(answered) = self.reached(&self.epochs.current, latest, |peer| peer.round) else { return };
        let mut sent = None;
        while let Some((round, began)) = self.lease.rounds.front().copied()
            && round <= answered
        {
            sent = Some(began);
            self.lease.rounds.pop_front();
        }
        let Some(sent) = sent else { return };
        let drift = u128::from(lease.drift_ppm.min(1_000_000));
        let length = self.config.timing.election.as_nanos() * (1_000_000 - drift) / 1_000_000;
        let length = Duration::from_nanos(u64::try_from(length).unwrap_or(u64::MAX));
        self.lease.until = self.lease.until.max(sent + length);
    }

    /// No lease in this view any more.
    pub(super) fn void_lease(&mut self) {
        self.lease.void = true;
    }

    /// Until when reads may rest on the lease, if they may now. Before what its view started with is
    /// committed a primary does not know what its predecessors committed.
    pub(super) fn leased_until(&self) -> Option<Time> {
        let holds = self.is_primary() && !self.lease.void && self.now < self.lease.until;
        (holds && self.commit >= self.start).then_some(self.lease.until)
    }

    /// Whether it has promised a primary to follow nobody else yet.
    pub(super) fn is_promised(&self) -> bool {
        self.config.lease.is_some() && self.now < self.promised_until
    }
}
