//! What orchestrator and services say to each other, and what the orchestrator makes durable.

use super::SagaId;
use super::plan::Plan;
use crate::contract::Describe;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// The output of a step, given to a later one, or to what undoes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Given {
    /// Which step.
    pub step: String,
    /// What came out of it.
    pub output: Bytes,
}

crate::wire_format!(struct Given { step, output });

/// Why a service did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It will not. If the refusal is for good this is durable: asked again it says the same.
    Refused {
        /// Why, for people.
        why: String,
    },
    /// It cannot now.
    Busy,
}

crate::wire_format!(enum Failure { 1 => Refused { why }, 2 => Busy });

/// A message of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Orchestrator to service: do this step.
    Act {
        /// Sagas below this one are over.
        floor: SagaId,
        /// Whose step.
        saga: SagaId,
        /// Which step; with the saga, what makes a duplicate known.
        step: String,
        /// What to do.
        work: Bytes,
        /// What it may use.
        given: Vec<Given>,
        /// Whether a refusal is for good. After the pivot it is not: a person may see to it that the
        /// step can be done.
        is_final: bool,
    },
    /// Orchestrator to service: undo this step, if it was done, and never do it after.
    Compensate {
        /// Sagas below this one are over.
        floor: SagaId,
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: String,
        /// What undoes it.
        work: Bytes,
        /// What it may use: what came out of the steps before it and of the step itself, unless it was given up without
        /// an answer.
        given: Vec<Given>,
    },
    /// Service to orchestrator: the step is done.
    Acted {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: String,
        /// What came out of it.
        output: Bytes,
    },
    /// Service to orchestrator: the step is undone, or was never done and will not be.
    Compensated {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: String,
    },
    /// Service to orchestrator: not done, or not undone.
    Failed {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: String,
        /// Whether it was the compensation that failed.
        is_compensation: bool,
        /// Why.
        failure: Failure,
    },
}

crate::wire_format!(enum Message {
    1 => Act { floor, saga, step, work, given, is_final },
    2 => Compensate { floor, saga, step, work, given },
    3 => Acted { saga, step, output },
    4 => Compensated { saga, step },
    5 => Failed { saga, step, is_compensation, failure },
});

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::Act { .. } => "Act",
            Message::Compensate { .. } => "Compensate",
            Message::Acted { .. } => "Acted",
            Message::Compensated { .. } => "Compensated",
            Message::Failed { .. } => "Failed",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Act { saga, step, .. }
            | Message::Compensate { saga, step, .. }
            | Message::Acted { saga, step, .. }
            | Message::Compensated { saga, step } => format!("{saga} {step}"),
            Message::Failed { saga, step, failure: Failure::Busy, .. } => format!("{saga} {step}: busy"),
            Message::Failed { saga, step, failure: Failure::Refused { why }, .. } => {
                format!("{saga} {step}: {why}")
            }
        }
    }
}

/// What an orchestrator makes durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SagaRecord {
    /// The saga is to be carried out.
    Began {
        /// Its name.
        saga: SagaId,
        /// What it is to do.
        plan: Plan,
    },
    /// A step's service may hear of it from now on.
    Started {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: u64,
    },
    /// A step is done.
    Done {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: u64,
        /// What came out of it.
        output: Bytes,
    },
    /// A step was refused, and has done nothing.
    Refused {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: u64,
    },
    /// From here on the saga is undone.
    Backward {
        /// Which saga.
        saga: SagaId,
        /// Why, for people.
        why: String,
    },
    /// A step is undone.
    Undone {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: u64,
    },
    /// A person has agreed to a step.
    Agreed {
        /// Whose step.
        saga: SagaId,
        /// Which.
        step: u64,
    },
    /// It is over: all done, or all undone.
    Ended {
        /// Which saga.
        saga: SagaId,
    },
    /// Sagas were counted up to this one, which may be over and forgotten.
    Counted {
        /// The latest.
        saga: SagaId,
    },
}

crate::wire_format!(enum SagaRecord {
    1 => Began { saga, plan },
    2 => Started { saga, step },
    3 => Done { saga, step, output },
    4 => Refused { saga, step },
    5 => Backward { saga, why },
    6 => Undone { saga, step },
    7 => Agreed { saga, step },
    8 => Ended { saga },
    9 => Counted { saga },
});

impl Describe for SagaRecord {
    fn name(&self) -> &'static str {
        match self {
            SagaRecord::Began { .. } => "Began",
            SagaRecord::Started { .. } => "Started",
            SagaRecord::Done { .. } => "Done",
            SagaRecord::Refused { .. } => "Refused",
            SagaRecord::Backward { .. } => "Backward",
            SagaRecord::Undone { .. } => "Undone",
            SagaRecord::Agreed { .. } => "Agreed",
            SagaRecord::Ended { .. } => "Ended",
            SagaRecord::Counted { .. } => "Counted",
        }
    }

    fn detail(&self) -> String {
        match self {
            SagaRecord::Began { saga, plan } => format!("{saga}, {} steps", plan.steps.len()),
            SagaRecord::Started { saga, step }
            | SagaRecord::Done { saga, step, .. }
            | SagaRecord::Refused { saga, step }
            | SagaRecord::Undone { saga, step }
            | SagaRecord::Agreed { saga, step } => format!("{saga} step {step}"),
            SagaRecord::Backward { saga, why } => format!("{saga}: {why}"),
            SagaRecord::Ended { saga } | SagaRecord::Counted { saga } => format!("{saga}"),
        }
    }
}
