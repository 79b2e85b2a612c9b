//! Commands of this member's clients, on their way to the leader.
//!
//! ```text
//! client ──► queue (not sent, may be withdrawn) ──► stream (numbered, sent until applied) ──► answer
//! ```
//!
//! A command gets its sequence number when it is first sent. From then on it stays in the stream
//! until it is applied, even after its client was told that time is up, because one that is left
//! out would be a gap for all after it. Whenever something may have been lost, everything that is
//! not applied is sent again, in order; the replicated sessions drop what arrives twice.

use crate::sessions::{Sender, seal};
use bytes::Bytes;
use std::collections::VecDeque;
use synod_protocols::log::Ticket;
use synod_protocols::{Incarnation, NodeId, Time};

/// Bytes of commands sent and not applied; at the bound the rest waits in the queue.
pub(crate) const WINDOW_BYTES_MAX: usize = 8 << 20;
/// Bytes of commands in one proposal or one message to the leader. A larger command goes alone.
pub(crate) const BATCH_BYTES_MAX: usize = 1 << 20;

/// A command that was never sent.
#[derive(Debug)]
struct Queued {
    ticket: Ticket,
    command: Bytes,
    deadline: Time,
}

/// A command that was sent, and is not applied yet.
#[derive(Debug)]
struct Sent {
    /// The client that waits; none after it was told that time is up.
    ticket: Option<Ticket>,
    envelope: Bytes,
    /// Where the command begins in the envelope.
    command_at: usize,
    deadline: Time,
    /// The first command of the batch in which it was sent; none if it was sent more than once,
    /// so that one refusal proves nothing.
    batch: Option<u64>,
}

/// What became of a client's command whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// It was never sent, and never will be.
    Withdrawn(Ticket),
    /// It was sent, and may still be applied.
    Unknown(Ticket),
}

/// Commands to send together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The sequence number of the first.
    pub(crate) first: u64,
    /// In their envelopes.
    pub(crate) envelopes: Vec<Bytes>,
}

/// The queue and the stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    member: NodeId,
    incarnation: Incarnation,
    queue: VecDeque<Queued>,
    stream: VecDeque<Sent>,
    /// The sequence number of the stream's front.
    first: u64,
    /// The next sequence number to send: inside the stream to send again, at its end otherwise.
    next: u64,
    /// How many at the stream's front have no client waiting any more.
    expired: usize,
    /// Bytes of the stream before `next`.
    sent_bytes: usize,
    /// Bytes of all commands, queued and sent.
    bytes: usize,
}

impl Outgoing {
    /// Nothing to send yet.
    pub(crate) fn new(member: NodeId, incarnation: Incarnation) -> Outgoing {
        Outgoing {
            member,
            incarnation,
            queue: VecDeque::new(),
            stream: VecDeque::new(),
            first: 1,
            next: 1,
            expired: 0,
            sent_bytes: 0,
            bytes: 0,
        }
    }

    /// Takes a client's command. Deadlines never go back.
    pub(crate) fn push(&mut self, ticket: Ticket, command: Bytes, deadline: Time) {
        self.bytes += command.len();
        self.queue.push_back(Queued { ticket, command, deadline });
    }

    /// Clients that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.stream.len() - self.expired
    }

    /// Bytes of all commands that are not applied.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether something was sent that is not applied yet.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.next > self.first
    }

    /// Whether there is something to send, window permitting.
    pub(crate) fn has_more(&self) -> bool {
        (self.next < self.end() || !self.queue.is_empty()) && self.sent_bytes < WINDOW_BYTES_MAX
    }

    /// The next commands to send: what must be sent again first.
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        if !self.has_more() {
            return None;
        }
        let first = self.next;
        let mut envelopes = Vec::new();
        let mut bytes = 0;
        loop {
            let at = (self.next - self.first) as usize;
            if at == self.stream.len() {
                let Some(queued) = self.queue.front() else { break };
                if !envelopes.is_empty() && !fits(bytes + queued.command.len()) {
                    break;
                }
                let Queued { ticket, command, deadline } = self.queue.pop_front().expect("just seen");
                let sender =
                    Sender { member: self.member, incarnation: self.incarnation, sequence: self.next };
                let envelope = seal(sender, &command);
                let command_at = envelope.len() - command.len();
                let ticket = Some(ticket);
                self.stream.push_back(Sent { ticket, envelope, command_at, deadline, batch: Some(first) });
            } else {
                self.stream[at].batch = None;
            }
            let sent = &self.stream[at];
            let len = sent.envelope.len() - sent.command_at;
            if !envelopes.is_empty() && !fits(bytes + len) {
                break;
            }
            envelopes.push(sent.envelope.clone());
            bytes += len;
            self.sent_bytes += len;
            self.next += 1;
            if self.sent_bytes >= WINDOW_BYTES_MAX {
                break;
            }
        }
        Some(Batch { first, envelopes })
    }

    /// Everything that is not applied must be sent again.
    pub(crate) fn rewind(&mut self) {
        self.rewind_to(self.first);
    }

    /// What is not applied from this sequence number on must be sent again.
    pub(crate) fn rewind_to(&mut self, sequence: u64) {
        while self.next > sequence.max(self.first) {
            self.next -= 1;
            let sent = &self.stream[(self.next - self.first) as usize];
            self.sent_bytes -= sent.envelope.len() - sent.command_at;
        }
    }

    /// Whoever got the batch that starts with `first` took nothing of it: it will be sent again. If
    /// it was sent only once, nobody has it, and if nothing was sent after it, its commands go back
    /// into the queue, where they have no number and may be withdrawn. (With something sent after
    /// it they must keep their numbers: that, arriving late, would be taken for what they number now.)
    pub(crate) fn on_refused(&mut self, first: u64) {
        self.rewind_to(first);
        if first < self.first + self.expired as u64 || first > self.end() {
            return;
        }
        let refused = (first - self.first) as usize;
        if self.stream.range(refused..).any(|sent| sent.batch != Some(first)) {
            return;
        }
        for _ in refused..self.stream.len() {
            let Sent { ticket, envelope, command_at, deadline, .. } =
                self.stream.pop_back().expect("the range was checked");
            let ticket = ticket.expect("only the front has expired");
            self.queue.push_front(Queued { ticket, command: envelope.slice(command_at..), deadline });
        }
    }

    /// The next command of the stream is applied: gives the client that waits for it.
    /// None also if it is not one of this life's stream, which only a foreign log could cause.
    pub(crate) fn on_applied(&mut self, sequence: u64) -> Option<Ticket> {
        if sequence != self.first {
            return None;
        }
        // It is applied, so it was sent: by this stream, or it would have no number.
        let sent = self.stream.pop_front()?;
        let len = sent.envelope.len() - sent.command_at;
        if self.next > self.first {
            self.sent_bytes -= len;
        } else {
            // A copy sent before a rewind arrived after all.
            self.next += 1;
        }
        self.first += 1;
        self.bytes -= len;
        self.expired = self.expired.saturating_sub(1);
        sent.ticket
    }

    /// The first command of the stream, if there is one.
    pub(crate) fn first_outstanding(&self) -> Option<u64> {
        (!self.stream.is_empty()).then_some(self.first)
    }

    /// Withdraws the commands that were never sent.
    pub(crate) fn withdraw(&mut self, mut tell: impl FnMut(Ticket)) {
        for queued in self.queue.drain(..) {
            self.bytes -= queued.command.len();
            tell(queued.ticket);
        }
    }

    /// Hands over the clients whose time is up.
    pub(crate) fn expire(&mut self, now: Time, mut tell: impl FnMut(Expired)) {
        while let Some(sent) = self.stream.get_mut(self.expired)
            && sent.deadline <= now
        {
            tell(Expired::Unknown(sent.ticket.take().expect("only the front has expired")));
            self.expired += 1;
        }
        while let Some(queued) = self.queue.front()
            && queued.deadline <= now
        {
            let queued = self.queue.pop_front().expect("just seen");
            self.bytes -= queued.command.len();
            tell(Expired::Withdrawn(queued.ticket));
        }
    }

    /// When the next client's time is up.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let sent = self.stream.get(self.expired).map(|sent| sent.deadline);
        let queued = self.queue.front().map(|queued| queued.deadline);
        match (sent, queued) {
            (Some(sent), Some(queued)) => Some(sent.min(queued)),
            (sent, queued) => sent.or(queued),
        }
    }

    /// The sequence number after the stream's last.
    fn end(&self) -> u64 {
        self.first + self.stream.len() as u64
    }
}

fn fits(bytes: usize) -> bool {
    bytes <= BATCH_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(commands: u64) -> Outgoing {
        let mut outgoing = Outgoing::new(NodeId(1), Incarnation(1));
        for i in 1..=commands {
            outgoing.push(Ticket(i), Bytes::from_static(b"put"), Time::from_millis(1000 + i));
        }
        outgoing
    }

    fn expired(outgoing: &mut Outgoing, millis: u64) -> Vec<Expired> {
        let mut told = Vec::new();
        outgoing.expire(Time::from_millis(millis), |expired| told.push(expired));
        told
    }

    #[test]
    fn what_is_not_applied_is_sent_again_after_a_rewind() {
        let mut outgoing = outgoing(3);
        let sent = outgoing.next_batch().expect("three wait");
        assert_eq!((sent.first, sent.envelopes.len()), (1, 3));
        assert_eq!(outgoing.next_batch(), None);
        assert_eq!(outgoing.on_applied(1), Some(Ticket(1)));
        outgoing.rewind();
        let again = outgoing.next_batch().expect("two are not applied");
        assert_eq!((again.first, &again.envelopes[..]), (2, &sent.envelopes[1..]));
    }

    #[test]
    fn a_copy_that_arrives_after_a_rewind_counts() {
        let mut outgoing = outgoing(2);
        outgoing.next_batch();
        outgoing.rewind();
        assert_eq!(outgoing.on_applied(1), Some(Ticket(1)));
        assert_eq!(outgoing.next_batch().map(|batch| batch.first), Some(2));
        assert_eq!(outgoing.on_applied(2), Some(Ticket(2)));
        assert_eq!((outgoing.bytes(), outgoing.waiting(), outgoing.sent_bytes), (0, 0, 0));
    }

    #[test]
    fn a_client_that_was_told_that_time_is_up_leaves_no_gap() {
        let mut outgoing = outgoing(1);
        outgoing.next_batch();
        outgoing.push(Ticket(2), Bytes::from_static(b"put"), Time::from_millis(1002));
        assert_eq!(
            expired(&mut outgoing, 1002),
            [Expired::Unknown(Ticket(1)), Expired::Withdrawn(Ticket(2))]
        );
        assert_eq!(outgoing.waiting(), 0);
        outgoing.push(Ticket(3), Bytes::from_static(b"put"), Time::from_millis(2000));
        assert_eq!(
            outgoing.next_batch().map(|batch| batch.first),
            Some(2),
            "the withdrawn one took no number"
        );
        assert_eq!(outgoing.on_applied(1), None);
        assert_eq!(outgoing.on_applied(2), Some(Ticket(3)));
    }

    #[test]
    fn what_surely_nobody_took_may_be_withdrawn() {
        let mut outgoing = outgoing(2);
        outgoing.next_batch();
        outgoing.on_refused(1);
        assert_eq!(
            expired(&mut outgoing, 2000),
            [Expired::Withdrawn(Ticket(1)), Expired::Withdrawn(Ticket(2))]
        );
        assert_eq!((outgoing.bytes(), outgoing.sent_bytes), (0, 0));
    }

    #[test]
    fn what_was_sent_before_something_else_keeps_its_number() {
        let mut outgoing = outgoing(1);
        outgoing.next_batch();
        outgoing.push(Ticket(2), Bytes::from_static(b"put"), Time::from_millis(3000));
        outgoing.next_batch();
        outgoing.on_refused(1);
        assert_eq!(expired(&mut outgoing, 2000), [Expired::Unknown(Ticket(1))]);
        let again = outgoing.next_batch().expect("both are sent again");
        assert_eq!((again.first, again.envelopes.len()), (1, 2));
        outgoing.on_refused(1);
        assert_eq!(expired(&mut outgoing, 3000), [Expired::Unknown(Ticket(2))], "sent twice, refused once");
    }

    #[test]
    fn the_window_bounds_what_is_sent() {
        let mut outgoing = Outgoing::new(NodeId(1), Incarnation(1));
        for i in 1..=20 {
            outgoing.push(Ticket(i), Bytes::from(vec![0; BATCH_BYTES_MAX]), Time::from_millis(1));
        }
        let sent = std::iter::from_fn(|| outgoing.next_batch()).count();
        assert_eq!(sent, WINDOW_BYTES_MAX / BATCH_BYTES_MAX);
        outgoing.on_applied(1);
        assert_eq!(std::iter::from_fn(|| outgoing.next_batch()).count(), 1);
    }
}
