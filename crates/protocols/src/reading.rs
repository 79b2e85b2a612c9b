//! Linearizable reads without a log write, as far as all replicated logs do them alike.
//!
//! A read may be served from any state that has applied a position which a leader knew to be
//! committed after the read arrived, if a quorum confirmed after that that it still leads. The
//! leader confirms in *rounds*: its messages carry the number of the latest, and answers return
//! it. All reads that arrive while a round is under way share the next one. A follower forwards
//! the reads of its own host in batches, one at a time.
//!
//! What a round means, which messages carry it, and why a quorum's answer shows that nobody else
//! leads, is each protocol's own affair.

use crate::contract::{Effects, Process};
use crate::fingerprint::Fingerprint;
use crate::log::{Index, LogEvent, Refusal, Ticket, Timing};
use crate::types::Time;
use alloc::vec::Vec;
use core::hash::Hash;

/// The reads of a leader's own host, and the rounds that confirm that it leads.
#[derive(Clone, Debug, Default, Hash)]
pub struct Rounds {
    latest: u64,
    /// The round that serves the reads in `current`, if a quorum has yet to answer it.
    confirming: Option<u64>,
    /// What was known to be committed when it began.
    index: Index,
    current: Vec<Ticket>,
    next: Vec<Ticket>,
}

impl Rounds {
    /// The number of the latest round.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// Begins a round that serves no reads, and returns its number.
    pub fn advance(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    /// A read that waits for the next round.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`] if `reads_max` reads wait already.
    pub fn push(&mut self, ticket: Ticket, reads_max: usize) -> Result<(), Refusal> {
        if self.current.len() + self.next.len() >= reads_max {
            return Err(Refusal::Busy);
        }
        self.next.push(ticket);
        Ok(())
    }

    /// Begins a round for the reads that wait here and at the peers, unless there are none or a
    /// round is under way. `committed` is what the leader knows to be committed.
    pub fn begin<'a>(&mut self, committed: Index, peers: impl Iterator<Item = &'a mut PeerReads>) -> bool {
        if self.confirming.is_some() {
            return false;
        }
        let mut waiting = !self.next.is_empty();
        for peer in peers {
            peer.current = peer.next.take();
            waiting |= peer.current.is_some();
        }
        if !waiting {
            return false;
        }
        self.confirming = Some(self.advance());
        self.index = committed;
        core::mem::swap(&mut self.current, &mut self.next);
        true
    }

    /// The round that a quorum has yet to answer.
    pub fn confirming(&self) -> Option<u64> {
        self.confirming
    }

    /// The reads of the round under way are to be served from this position, or a later one.
    pub fn raise(&mut self, index: Index) {
        self.index = self.index.max(index);
    }

    /// A quorum has answered the round under way: serves this host's reads, and returns the
    /// position that serves those of the peers, too.
    pub fn confirm<P: Process<Event = LogEvent>>(&mut self, out: &mut Effects<P>) -> Index {
        self.confirming = None;
        serve(&mut self.current, Some(self.index), out);
        self.index
    }

    /// Leadership is lost: nothing that waits can be confirmed any more.
    pub fn refuse<P: Process<Event = LogEvent>>(&mut self, out: &mut Effects<P>) {
        serve(&mut self.current, None, out);
        serve(&mut self.next, None, out);
        (self.latest, self.confirming, self.index) = (0, None, Index::ZERO);
    }
}

/// The batches of reads that a peer has asked a leader to confirm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerReads {
    /// What the round under way confirms.
    current: Option<u64>,
    /// What waits for the next.
    next: Option<u64>,
}

impl PeerReads {
    /// A repetition of what is being confirmed waits for that; anything else is new.
    pub fn ask(&mut self, batch: u64) {
        if self.current != Some(batch) {
            self.next = Some(batch);
        }
    }

    /// The batch that was confirmed, once.
    pub fn confirmed(&mut self) -> Option<u64> {
        self.current.take()
    }

    /// All batches, which are to be refused.
    pub fn drain(&mut self) -> impl Iterator<Item = u64> + use<> {
        [self.current.take(), self.next.take()].into_iter().flatten()
    }
}

/// The reads that a follower has forwarded, and those that go with the next message.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    batch: u64,
    current: Vec<Ticket>,
    next: Vec<Ticket>,
    /// When the oldest of each arrived.
    current_since: Time,
    next_since: Time,
    /// When the current batch was last sent.
    sent: Time,
}

/// What is to be done about forwarded reads that are not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The batch may have been lost, and is sent again.
    Repeat(u64),
    /// The oldest read has waited for an election timeout: all are refused.
    GiveUp,
}

impl Forwarding {
    /// Batches are numbered from here on: a random number, so that an answer to an earlier life's
    /// batch is not taken for one to this life's.
    pub fn starting_at(batch: u64) -> Forwarding {
        Forwarding { batch, ..Forwarding::default() }
    }

    /// A read that is to be forwarded.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`] if `reads_max` reads wait already.
    pub fn push(&mut self, ticket: Ticket, now: Time, reads_max: usize) -> Result<(), Refusal> {
        if self.current.len() + self.next.len() >= reads_max {
            return Err(Refusal::Busy);
        }
        if self.next.is_empty() {
            self.next_since = now;
        }
        self.next.push(ticket);
        Ok(())
    }

    /// The batch to send to the leader now, if reads wait and no others are on their way.
    pub fn begin(&mut self, now: Time) -> Option<u64> {
        if self.next.is_empty() || !self.current.is_empty() {
            return None;
        }
        core::mem::swap(&mut self.current, &mut self.next);
        (self.current_since, self.sent) = (self.next_since, now);
        self.batch = self.batch.wrapping_add(1);
        Some(self.batch)
    }

    /// The leader's answer to a batch: from which position on its reads may be served, or that it
    /// does not lead. Returns whether that batch was on its way.
    pub fn answer<P: Process<Event = LogEvent>>(
        &mut self,
        batch: u64,
        index: Option<Index>,
        out: &mut Effects<P>,
    ) -> bool {
        let expected = batch == self.batch;
        if expected {
            serve(&mut self.current, index, out);
        }
        expected
    }

    /// What is to be done now; what is to be repeated counts as sent.
    pub fn overdue(&mut self, now: Time, timing: &Timing) -> Option<Overdue> {
        if self.current.is_empty() {
            return None;
        }
        if now >= self.current_since + timing.election {
            return Some(Overdue::GiveUp);
        }
        (now >= self.sent + timing.heartbeat).then(|| {
            self.sent = now;
            Overdue::Repeat(self.batch)
        })
    }

    /// There is nobody any more who could answer.
    pub fn refuse<P: Process<Event = LogEvent>>(&mut self, out: &mut Effects<P>) {
        serve(&mut self.current, None, out);
        serve(&mut self.next, None, out);
    }

    /// When something is overdue. Those of `next` are no older than those of `current`, and wait
    /// only while there are such.
    pub fn deadline(&self, timing: &Timing) -> Option<Time> {
        let give_up = self.current_since + timing.election;
        (!self.current.is_empty()).then(|| give_up.min(self.sent + timing.heartbeat))
    }

    /// What decides how it goes on, with times relative to now.
    pub fn digest(&self, now: Time, digest: &mut Fingerprint) {
        (self.current.as_slice(), self.next.as_slice()).hash(digest);
        if !self.current.is_empty() {
            let ago = |time: Time| now.since(time).as_nanos() as u64;
            (self.batch, ago(self.current_since), ago(self.sent)).hash(digest);
        }
    }
}

/// Serves reads from a position, or refuses them. The list keeps its memory.
fn serve<P: Process<Event = LogEvent>>(
    tickets: &mut Vec<Ticket>,
    index: Option<Index>,
    out: &mut Effects<P>,
) {
    for ticket in tickets.drain(..) {
        // Early: the position is committed, and that nobody else led when the read arrived is known
        // from durable answers of a quorum; and what is refused has left no record.
        out.event_early(match index {
            Some(index) => LogEvent::ReadReady { ticket, index, valid_until: None },
            None => LogEvent::Refused { ticket, why: Refusal::LeadershipLost },
        });
    }
}
