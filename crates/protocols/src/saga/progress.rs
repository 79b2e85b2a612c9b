//! One saga: its plan, and how far each of its steps is.

use super::SagaId;
use super::interface::PauseReason;
use super::message::Given;
use super::plan::Plan;
use crate::types::Time;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StepState {
    /// Its service has not heard of it.
    Pending,
    /// It may have acted or not.
    Started,
    /// It has acted.
    Done {
        /// What came out of it.
        output: Bytes,
    },
    /// It was refused, and has not acted.
    Refused,
    /// It may be undone or not.
    Undoing {
        /// What came out of it; none if it was given up without an answer.
        output: Option<Bytes>,
    },
    /// It is undone, or never acted and never will.
    Undone,
}

/// A saga, to be shown.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// Which.
    pub saga: SagaId,
    /// What it is to do.
    pub plan: &'a Plan,
    /// Why it is undone, if it is.
    pub backward: Option<&'a str>,
    /// Whether it is over.
    pub is_over: bool,
    /// For each step of the plan: where it stands, why it waits for a person if it does, and how often it was asked for.
    pub steps: Vec<(&'a StepState, Option<&'a PauseReason>, u32)>,
}

#[derive(Clone, Debug)]
pub(super) struct Saga {
    pub(super) plan: Plan,
    /// What each step comes after.
    pub(super) after: Vec<Vec<usize>>,
    pub(super) steps: Vec<Progress>,
    /// Why it is being undone, if it is.
    pub(super) backward: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) state: StepState,
    /// Whether a person has agreed to it.
    pub(super) is_agreed: bool,
    /// Whether it waits for a person.
    pub(super) paused: Option<PauseReason>,
    pub(super) attempts: u32,
    pub(super) resend: Time,
}

impl StepState {
    /// What came out of the step, while that is of use: to later steps, and to what undoes it.
    pub fn output(&self) -> Option<&Bytes> {
        match self {
            StepState::Done { output } => Some(output),
            StepState::Undoing { output } => output.as_ref(),
            StepState::Pending | StepState::Started | StepState::Refused | StepState::Undone => None,
        }
    }
}

impl Progress {
    /// Whether a service owes an answer.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, StepState::Started | StepState::Undoing { .. }) && self.paused.is_none()
    }

    pub(super) fn change(&mut self, state: StepState, now: Time) {
        (self.state, self.paused, self.attempts, self.resend) = (state, None, 0, now);
    }
}

impl Saga {
    pub(super) fn new(plan: Plan, after: Vec<Vec<usize>>) -> Saga {
        let progress = Progress {
            state: StepState::Pending,
            is_agreed: false,
            paused: None,
            attempts: 0,
            resend: Time::ZERO,
        };
        Saga { steps: vec![progress; plan.steps.len()], plan, after, backward: None }
    }

    /// Of actions, compensations and outputs.
    pub(super) fn bytes(&self) -> usize {
        let planned = self.plan.steps.iter();
        let planned =
            planned.map(|step| step.action.len() + step.compensation.as_ref().map_or(0, Bytes::len));
        let outputs = self.steps.iter().filter_map(|progress| progress.state.output()).map(Bytes::len);
        planned.chain(outputs).sum()
    }

    pub(super) fn is_done(&self, step: usize) -> bool {
        matches!(self.steps[step].state, StepState::Done { .. })
    }

    /// Whether it is bound to succeed.
    pub(super) fn is_past_pivot(&self) -> bool {
        (0..self.steps.len()).any(|step| self.plan.steps[step].is_pivot && self.is_done(step))
    }

    pub(super) fn is_pivot_started(&self) -> bool {
        let is_begun = |step: usize| {
            !matches!(self.steps[step].state, StepState::Pending | StepState::Refused | StepState::Undone)
        };
        (0..self.steps.len()).any(|step| self.plan.steps[step].is_pivot && is_begun(step))
    }

    /// Whether a step may still have acted and is not undone.
    pub(super) fn is_in_question(&self, step: usize) -> bool {
        let state = &self.steps[step].state;
        matches!(state, StepState::Started | StepState::Done { .. } | StepState::Undoing { .. })
    }

    /// The outputs that a step may use: of what it comes after, and its own when it is undone. Its own is not there if
    /// it was given up without an answer.
    pub(super) fn given(&self, step: usize) -> Vec<Given> {
        let of = |place: &usize| {
            let output = self.steps[*place].state.output()?.clone();
            Some(Given { step: self.plan.steps[*place].name.clone(), output })
        };
        self.after[step].iter().chain([&step]).filter_map(of).collect()
    }

    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.plan.steps.iter().position(|step| step.name == name)
    }
}
