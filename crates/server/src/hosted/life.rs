//! One process of the log, while this member leads: waiting for its life to begin, or living.

use std::mem;
use std::time::Duration;
use synod_node::spaces::ProcessId;
use synod_protocols::Checkpoint;
use synod_protocols::commit::{Coordinator, Keyspace, Participant};
use synod_protocols::log::{Index, Ticket};
use synod_protocols::replicated::{Tenant, Wants};
use synod_protocols::saga::Orchestrator;
use synod_protocols::{Input, NodeId, Process, Time, Wire};

/// Inputs that wait for a life to begin, at the most; what is more is lost like a message, and said again.
const HELD_MAX: usize = 4096;
/// How long after a life that ended, or did not begin, the next one is tried.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A process that this member may run.
pub(super) struct Hosted<P: Process> {
    /// What it is called in messages.
    pub(super) id: NodeId,
    /// What it is called in the log.
    pub(super) process: ProcessId,
    stage: Stage<P>,
    /// Whether it should live even if nothing waits for that.
    is_due: bool,
    /// What waits for the life to begin.
    held: Vec<Input<P>>,
}

enum Stage<P: Process> {
    Idle {
        not_before: Time,
    },
    /// It is asked for under this ticket.
    Beginning {
        ticket: Ticket,
    },
    Running(Box<Tenant<P>>),
}

/// Processes that can be hosted.
pub(super) trait Hostable: Checkpoint<Ask = (), Answer = ()> {}
impl Hostable for Coordinator {}
impl Hostable for Participant<Keyspace> {}
impl Hostable for Orchestrator {}

impl<P: Hostable> Hosted<P> {
    pub(super) fn new(id: NodeId, process: ProcessId) -> Self {
        let stage = Stage::Idle { not_before: Time::ZERO };
        Hosted { id, process, stage, is_due: false, held: Vec::new() }
    }

    /// The process, if it lives.
    pub(super) fn running(&self) -> Option<&P> {
        match &self.stage {
            Stage::Running(tenant) => Some(tenant.process()),
            Stage::Idle { .. } | Stage::Beginning { .. } => None,
        }
    }

    /// It should live.
    pub(super) fn want(&mut self) {
        self.is_due = true;
    }

    /// When a life is to be asked for, if it should live and does not.
    pub(super) fn begin_at(&self) -> Option<Time> {
        match self.stage {
            Stage::Idle { not_before } if self.is_due || !self.held.is_empty() => Some(not_before),
            _ => None,
        }
    }

    /// When it wants to know that time has passed.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.running().and_then(P::deadline)
    }

    /// A life is asked for.
    pub(super) fn beginning(&mut self, ticket: Ticket) {
        self.stage = Stage::Beginning { ticket };
    }

    pub(super) fn is_beginning(&self, ticket: Ticket) -> bool {
        matches!(self.stage, Stage::Beginning { ticket: own } if own == ticket)
    }

    /// A life begins, from the records of all before it. What has waited for it comes back: it is the next that
    /// happens to it.
    pub(super) fn begin(
        &mut self,
        now: Time,
        life: Index,
        config: P::Config,
        records: Vec<bytes::Bytes>,
    ) -> (Wants<P>, Vec<Input<P>>) {
        let mut wants = Wants::default();
        let records = records.into_iter().filter_map(|record| P::Record::from_bytes(record).ok()).collect();
        let tenant = Tenant::begin(self.id, life, config, records, now, &mut wants);
        self.stage = Stage::Running(Box::new(tenant));
        self.is_due = false;
        (wants, mem::take(&mut self.held))
    }

    /// Something happens to it: at once if it lives, or when it does.
    pub(super) fn step(&mut self, now: Time, input: Input<P>) -> Wants<P> {
        let mut wants = Wants::default();
        match &mut self.stage {
            Stage::Running(tenant) => tenant.step(now, input, &mut wants),
            Stage::Idle { .. } | Stage::Beginning { .. } => {
                if self.held.len() < HELD_MAX {
                    self.held.push(input);
                }
            }
        }
        wants
    }

    /// The host looks into it, or takes something from it.
    pub(super) fn tenant(&mut self) -> Option<&mut Tenant<P>> {
        match &mut self.stage {
            Stage::Running(tenant) => Some(tenant),
            Stage::Idle { .. } | Stage::Beginning { .. } => None,
        }
    }

    /// Which life it is in.
    pub(super) fn life(&self) -> Option<Index> {
        match &self.stage {
            Stage::Running(tenant) => Some(tenant.life()),
            Stage::Idle { .. } | Stage::Beginning { .. } => None,
        }
    }

    /// The oldest entry that this life has asked for counts.
    pub(super) fn accepted(&mut self, now: Time) -> Wants<P> {
        let mut wants = Wants::default();
        if let Stage::Running(tenant) = &mut self.stage {
            tenant.accepted(now, &mut wants);
        }
        wants
    }

    /// The life is over, or was not begun. To the process that is a crash, and another life follows.
    pub(super) fn cease(&mut self, now: Time) {
        self.stage = Stage::Idle { not_before: now + BACK_OFF };
        self.is_due = true;
    }

    /// The member does not lead: whatever waits is forgotten too.
    pub(super) fn forget(&mut self) {
        *self = Hosted::new(self.id, self.process);
    }
}
