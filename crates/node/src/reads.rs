//! Linearizable reads: asked of the log in batches, served when the state machine has caught up.

use std::collections::VecDeque;
use synod_protocols::Time;
use synod_protocols::log::{Index, Ticket};

/// A read that a client waits for.
#[derive(Debug)]
pub(crate) struct Read<Q> {
    /// The client's.
    pub(crate) ticket: Ticket,
    /// What it asks.
    pub(crate) query: Q,
    /// When its time is up.
    pub(crate) deadline: Time,
}

/// Reads that may be served.
#[derive(Debug)]
struct Ready<Q> {
    /// What must have been applied.
    index: Index,
    /// For reads under a lease, when it ends.
    valid_until: Option<Time>,
    reads: Vec<Read<Q>>,
}

/// All reads that are not answered yet.
#[derive(Debug)]
pub(crate) struct Reads<Q> {
    /// Not asked of the log yet.
    queue: Vec<Read<Q>>,
    /// Asked, with the log's ticket.
    asked: VecDeque<(Ticket, Vec<Read<Q>>)>,
    /// May be served when this entry is applied.
    ready: VecDeque<Ready<Q>>,
    waiting: usize,
}

impl<Q> Reads<Q> {
    /// No reads.
    pub(crate) fn new() -> Self {
        Reads { queue: Vec::new(), asked: VecDeque::new(), ready: VecDeque::new(), waiting: 0 }
    }

    /// Takes a client's read.
    pub(crate) fn push(&mut self, read: Read<Q>) {
        self.waiting += 1;
        self.queue.push(read);
    }

    /// Takes back a read whose lease has ended. It is older than what is queued, so that deadlines
    /// in the queue still never go back.
    pub(crate) fn push_back(&mut self, read: Read<Q>) {
        self.waiting += 1;
        let at = self.queue.partition_point(|queued| queued.deadline <= read.deadline);
        self.queue.insert(at, read);
    }

    /// Reads that are not answered yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether some are to be asked of the log.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// All that are to be asked now go under this ticket.
    pub(crate) fn ask(&mut self, ticket: Ticket) {
        self.asked.push_back((ticket, std::mem::take(&mut self.queue)));
    }

    /// The log answered: they may be served when `index` is applied, and before the lease ends if
    /// they are under one.
    pub(crate) fn on_ready(&mut self, ticket: Ticket, index: Index, valid_until: Option<Time>) {
        if let Some(reads) = self.take_asked(ticket) {
            self.ready.push_back(Ready { index, valid_until, reads });
        }
    }

    /// The log refused for now: they will be asked again. False if there are none under this ticket.
    pub(crate) fn ask_again(&mut self, ticket: Ticket) -> bool {
        let Some(mut reads) = self.take_asked(ticket) else { return false };
        reads.append(&mut self.queue);
        self.queue = reads;
        true
    }

    /// The log refused: hands over the reads, to be refused too.
    pub(crate) fn refuse(&mut self, ticket: Ticket) -> Vec<Read<Q>> {
        let reads = self.take_asked(ticket).unwrap_or_default();
        self.waiting -= reads.len();
        reads
    }

    /// Reads that may be served now that `applied` is applied.
    pub(crate) fn next_served(&mut self, applied: Index) -> Option<(Vec<Read<Q>>, Option<Time>)> {
        let at = self.ready.iter().position(|ready| ready.index <= applied)?;
        let Ready { valid_until, reads, .. } = self.ready.remove(at)?;
        self.waiting -= reads.len();
        Some((reads, valid_until))
    }

    /// Hands over the reads whose time is up.
    pub(crate) fn expire(&mut self, now: Time, mut tell: impl FnMut(Ticket)) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let asked = self.asked.iter_mut().map(|(_, reads)| reads);
        let ready = self.ready.iter_mut().map(|ready| &mut ready.reads);
        for reads in asked.chain(ready).chain([&mut self.queue]) {
            let expired = reads.iter().take_while(|read| read.deadline <= now).count();
            self.waiting -= expired;
            reads.drain(..expired).for_each(|read| tell(read.ticket));
        }
        self.asked.retain(|(_, reads)| !reads.is_empty());
        self.ready.retain(|ready| !ready.reads.is_empty());
    }

    /// When the next read's time is up. Within one batch deadlines never go back.
    pub(crate) fn deadline(&self) -> Option<Time> {
        if self.waiting == 0 {
            return None;
        }
        let asked = self.asked.iter().map(|(_, reads)| reads);
        let ready = self.ready.iter().map(|ready| &ready.reads);
        asked.chain(ready).chain([&self.queue]).filter_map(|reads| Some(reads.first()?.deadline)).min()
    }

    fn take_asked(&mut self, ticket: Ticket) -> Option<Vec<Read<Q>>> {
        let at = self.asked.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        self.asked.remove(at).map(|(_, reads)| reads)
    }
}
