//! What an owner of an orchestrator decides, asks, and is told.

use super::SagaId;
use super::plan::{Plan, PlanError};
use crate::log::Ticket;
use alloc::string::String;
use core::time::Duration;

/// What an owner of an orchestrator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// Timeouts.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
}

/// Timeouts of an orchestrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// After how long a service is asked again for the first time; twice as long each time, up to 64
    /// times as long. Default 100 ms.
    pub retry: Duration,
    /// How often a step is asked for before the saga is undone, unless it is the pivot or comes after it.
    /// Default 8.
    pub attempts_max: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { retry: Duration::from_millis(100), attempts_max: 8 }
    }
}

/// Bounds of an orchestrator. At each, a new saga is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sagas at one time. Default 1,024.
    pub sagas_max: usize,
    /// How far the newest saga may be from the oldest that is not over, which bounds what services must
    /// remember. Default 65,536.
    pub window_max: u64,
    /// Bytes of all actions and compensations of one saga. Default 1 MiB.
    pub plan_bytes_max: usize,
    /// Sagas that are over and still shown. Default 128.
    pub shown_max: usize,
    /// Bytes of their actions, compensations and outputs. Default 256 KiB.
    pub shown_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sagas_max: 1_024,
            window_max: 65_536,
            plan_bytes_max: 1 << 20,
            shown_max: 128,
            shown_bytes_max: 256 << 10,
        }
    }
}

/// What a host asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Carry this out.
    Begin {
        /// Returned with the name or the refusal.
        ticket: Ticket,
        /// What.
        plan: Plan,
    },
    /// Undo it, unless the pivot was started.
    Cancel {
        /// Returned with a refusal.
        ticket: Ticket,
        /// Which saga.
        saga: SagaId,
    },
    /// A person has looked at a step that waits for one: go on with it, or try it again.
    Resume {
        /// Returned with a refusal.
        ticket: Ticket,
        /// Which saga.
        saga: SagaId,
        /// Which step.
        step: String,
    },
}

/// What a host is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The saga will be carried out, whatever happens.
    Began {
        /// Which request.
        ticket: Ticket,
        /// Its name.
        saga: SagaId,
    },
    /// The request was not carried out, and nothing was begun.
    Refused {
        /// Which request.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
    /// A cancellation or a resumption is carried out.
    Agreed {
        /// Which request.
        ticket: Ticket,
    },
    /// A step waits for a person. Said again after a restart.
    Paused {
        /// Which saga.
        saga: SagaId,
        /// Which step.
        step: String,
        /// Why.
        why: PauseReason,
    },
    /// It is over.
    Ended {
        /// Which saga.
        saga: SagaId,
        /// How.
        outcome: Outcome,
    },
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The plan cannot be carried out.
    Plan(PlanError),
    /// More is under way than the limits allow, or the disk is full: try again.
    Busy,
    /// The plan is larger than the limit.
    Size,
    /// There is no such saga, or it is over.
    Unknown,
    /// The pivot was started, or the saga is being undone already.
    TooLate,
    /// The step does not wait for a person.
    NotPaused,
    /// The disk is damaged: what is under way is not known.
    Damaged,
}

/// Why a step waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PauseReason {
    /// The plan wants it.
    Planned,
    /// It was refused, and what came before it cannot be undone any more.
    Forward(String),
    /// It was to be undone, and that was refused.
    Backward(String),
}

/// How a saga ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every step is done.
    Done,
    /// Every step that had acted is undone.
    Compensated {
        /// Why.
        why: String,
    },
}

impl Request {
    pub(super) fn ticket(&self) -> Ticket {
        match self {
            Request::Begin { ticket, .. }
            | Request::Cancel { ticket, .. }
            | Request::Resume { ticket, .. } => *ticket,
        }
    }
}
