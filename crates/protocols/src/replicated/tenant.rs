//! A life of a process: what it does, and what waits for which entry of the log.

use super::journal::Entry;
use crate::contract::{Checkpoint, Effects, Input, Process, Recovery, Release};
use crate::log::Index;
use crate::types::{NodeId, Time};
use crate::wire::Wire;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Records after which fewer are asked for at the least; and never before there are four times as many as the last
/// checkpoint had, so that checkpoints cost a part of what they replace.
pub const CHECKPOINT_RECORDS: usize = 64;

/// Bytes of a checkpoint at the most, since it is one entry: one that would be larger is put off.
pub const CHECKPOINT_BYTES_MAX: usize = 1 << 20;

/// A process that runs on this member, as one of its lives.
#[derive(Clone, Debug)]
pub struct Tenant<P: Process> {
    /// The name that the process knows itself by: what it sends there comes back to it.
    id: NodeId,
    life: Index,
    process: P,
    /// How many entries were asked for.
    proposed: u64,
    waiting: VecDeque<Held<P>>,
    /// Records since the last checkpoint, and how many that one had.
    since_checkpoint: (usize, usize),
}

/// Something that waits for entries to be committed.
#[derive(Clone, Debug)]
enum Held<P: Process> {
    /// One entry.
    Entry,
    Send(NodeId, P::Message),
    Event(P::Event),
}

/// What a tenant wants done.
#[derive(Clone, Debug)]
pub struct Wants<P: Process> {
    /// To propose to the log, in order; each is answered by [`Tenant::accepted`] when it counts, or else the life is over.
    pub entries: Vec<Entry>,
    /// To send, in order. These wait for nothing any more.
    pub sends: Vec<(NodeId, P::Message)>,
    /// For the host, in order. These wait for nothing any more.
    pub events: Vec<P::Event>,
}

impl<P: Process> Default for Wants<P> {
    fn default() -> Self {
        Wants { entries: Vec::new(), sends: Vec::new(), events: Vec::new() }
    }
}

impl<P: Checkpoint<Ask = (), Answer = ()>> Tenant<P> {
    /// A life begins, from the records of all before it.
    pub fn begin(
        id: NodeId,
        life: Index,
        config: P::Config,
        records: Vec<P::Record>,
        now: Time,
        wants: &mut Wants<P>,
    ) -> Self {
        let mut effects = Effects::new();
        let (is_first, count) = (records.is_empty(), records.len());
        let mut records = records.into_iter();
        let from = match is_first {
            true => Recovery::First,
            false => Recovery::Resume { records: &mut records },
        };
        let process = P::recover(config, from, P::Base::default(), now, &mut effects);
        let mut tenant =
            Tenant { id, life, process, proposed: 0, waiting: VecDeque::new(), since_checkpoint: (count, 0) };
        tenant.take(now, effects, wants);
        tenant
    }

    /// Which life this is.
    pub fn life(&self) -> Index {
        self.life
    }

    /// The process.
    pub fn process(&self) -> &P {
        &self.process
    }

    /// How many things wait for entries, those included.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The process, for a host that takes something from it which is no step and records nothing.
    pub fn process_mut(&mut self) -> &mut P {
        &mut self.process
    }

    /// Something happens to the process.
    pub fn step(&mut self, now: Time, input: Input<P>, wants: &mut Wants<P>) {
        let mut effects = Effects::new();
        self.process.step(now, input, &mut effects);
        self.take(now, effects, wants);
    }

    /// The oldest entry that was asked for is committed, and counts.
    pub fn accepted(&mut self, now: Time, wants: &mut Wants<P>) {
        let oldest = self.waiting.pop_front();
        assert!(matches!(oldest, Some(Held::Entry)), "entries of a life are committed in order");
        self.let_out(now, wants);
    }

    fn take(&mut self, now: Time, effects: Effects<P>, wants: &mut Wants<P>) {
        if !effects.records.is_empty() {
            self.since_checkpoint.0 += effects.records.len();
            self.propose(effects.records, false, wants);
        }
        for send in effects.sends {
            match send.release {
                Release::Held => self.waiting.push_back(Held::Send(send.to, send.message)),
                // What is true though its sender forgets is true though its sender is replaced.
                Release::Early => wants.sends.push((send.to, send.message)),
            }
        }
        for emit in effects.events {
            match emit.release {
                Release::Held => self.waiting.push_back(Held::Event(emit.event)),
                Release::Early => wants.events.push(emit.event),
            }
        }
        let (since, last) = self.since_checkpoint;
        if since >= CHECKPOINT_RECORDS.max(last.saturating_mul(4)) {
            let records = self.process.checkpoint();
            self.since_checkpoint = (0, records.len());
            if records.iter().map(|record| record.to_bytes().len()).sum::<usize>() <= CHECKPOINT_BYTES_MAX {
                self.propose(records, true, wants);
            }
        }
        self.let_out(now, wants);
    }

    fn propose(&mut self, records: Vec<P::Record>, replaces: bool, wants: &mut Wants<P>) {
        let records = records.iter().map(Wire::to_bytes).collect();
        wants.entries.push(Entry::Records { life: self.life.0, sequence: self.proposed, replaces, records });
        self.proposed += 1;
        self.waiting.push_back(Held::Entry);
    }

    /// Lets out what waits for nothing any more. It may leave early: it rests on a quorum's disks, and
    /// on nothing that this member has not synced.
    fn let_out(&mut self, now: Time, wants: &mut Wants<P>) {
        loop {
            match self.waiting.pop_front() {
                Some(Held::Send(to, message)) if to == self.id => {
                    self.step(now, Input::Message { from: to, message }, wants);
                }
                Some(Held::Send(to, message)) => wants.sends.push((to, message)),
                Some(Held::Event(event)) => wants.events.push(event),
                Some(Held::Entry) => return self.waiting.push_front(Held::Entry),
                None => return,
            }
        }
    }
}
