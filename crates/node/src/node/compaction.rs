//! Giving up the old part of the log.
//!
//! ```text
//! state covers a segment ──► commit says where the log will begin ──► the state is made durable up to
//! that commit ──► the protocol is told ──► the segments before are removed
//! ```
//!
//! In this order a crash at any moment leaves either a log that reaches back to what the state on
//! disk has applied, or a state that says where the log begins.

use super::{Node, Step};
use crate::disk::{DiskCommand, DiskFault, SegmentId};
use crate::interface::*;
use crate::machine::{StateMachine, Stored};
use bytes::Bytes;
use synod_protocols::Time;
use synod_protocols::log::{Index, LogRequest, ReplicatedLog, SnapshotPoint, Ticket};

/// The log is being given up to a point: the state is on its way to the disk.
#[derive(Debug)]
pub(super) struct Compaction {
    ticket: Ticket,
    point: SnapshotPoint,
    /// The first segment that stays.
    first: SegmentId,
}

impl<P: ReplicatedLog, S: StateMachine> Node<P, S> {
    /// Stores what was applied since the last time.
    pub(super) fn store(&mut self, now: Time, out: &mut Outbox<P, S>) {
        let index = self.metadata.applied;
        if index == self.stored || self.stopped {
            return;
        }
        self.writer.segments().cover(&self.metadata.point());
        let cut = self.choose_cut();
        if let Some(Compaction { point, first, .. }) = &cut {
            self.start.base = Some(point.clone());
            self.start.first = *first;
            self.start_encoded = self.start.encode();
        }
        self.scratch.clear();
        self.metadata.encode_to(&mut self.scratch);
        let stored =
            Stored { replicated: Bytes::copy_from_slice(&self.scratch), own: self.start_encoded.clone() };
        let persist = |cut: &Compaction, machine: &mut S| machine.persist(cut.ticket);
        let result = self
            .machine
            .commit(stored)
            .and_then(|()| cut.as_ref().map_or(Ok(()), |cut| persist(cut, &mut self.machine)));
        if let Err(error) = result {
            return self.stop(format!("the state machine cannot store what it applied: {error}"), out);
        }
        if let Some(cut) = cut {
            out.persists.push(cut.ticket);
            self.compaction = Some(cut);
        }
        self.stored = index;
        self.committed.copy(&self.metadata);
        self.drive(now, Step::Request(LogRequest::Applied { index }), out);
    }

    /// Whether the log is to be cut with the commit that comes, and where.
    fn choose_cut(&mut self) -> Option<Compaction> {
        if self.compaction.is_some() {
            return None;
        }
        // What is being sent to a peer must go on to be followed by entries.
        let limit = self.serving.oldest().unwrap_or(Index(u64::MAX));
        let (first, point) = self.writer.droppable(limit)?;
        let base = self.start.base.as_ref().map_or(Index::ZERO, |base| base.index);
        // A snapshot that was installed has moved the log's beginning further than its segments say.
        let point =
            if point.index < base { self.start.base.clone().expect("it has an index") } else { point };
        Some(Compaction { ticket: self.ticket(), point, first })
    }

    pub(super) fn on_persisted(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<(), String>,
        out: &mut Outbox<P, S>,
    ) {
        let Some(Compaction { ticket, point, first }) = self.compaction.take_if(|cut| cut.ticket == ticket)
        else {
            return;
        };
        if let Err(why) = result {
            return self.stop(format!("the state machine cannot make durable what it stored: {why}"), out);
        }
        self.machine.persisted(ticket);
        // Unless a snapshot that was installed meanwhile covers more.
        if self.start.base.as_ref() == Some(&point) {
            self.drive(now, Step::Request(LogRequest::Compact { point }), out);
        }
        for segment in self.writer.drop_before(first) {
            let ticket = self.ticket();
            out.disk.push(DiskCommand::Remove { ticket, segment });
        }
    }

    pub(super) fn on_removed(&mut self, result: Result<(), DiskFault>, out: &mut Outbox<P, S>) {
        if let Err(fault) = result {
            self.stop(
                format!("a segment of the log that is no longer needed cannot be removed: {fault}"),
                out,
            );
        }
    }
}
