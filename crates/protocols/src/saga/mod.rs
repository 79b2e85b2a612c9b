//! Sagas: a long transaction as a sequence of steps, each of which can be undone by another one.
//!
//! # The idea
//!
//! A step *acts* on an independent system, at once and visibly: it holds no locks and waits for nobody. If
//! a later step fails, the *compensations* of those that have acted run in reverse order. An
//! [`Orchestrator`] drives this from durable records, so that it can crash at any moment, or be
//! another member of a replicated log ([`crate::replicated`]), and go on.
//!
//! A [`Plan`] says which step comes after which; steps that are not ordered run side by side, and a step is
//! given the outputs of those that it comes after. One step may be the *pivot*: before it everything can
//! be undone, after it nothing is, and steps are tried until they succeed.
//!
//! # Why every saga ends all done or all compensated
//!
//! 1. That a step is *started* is durable before its service hears of it. So whatever may have acted is
//!    known to be in question, in every later life.
//! 2. **A timeout is not a failure.** Who does not answer is asked again. A step that is given up without
//!    an answer may have acted, so it is compensated like one that has; only a refusal, which the service
//!    makes durable, counts as not having acted.
//! 3. A service ([`BankService`]) remembers by saga and step what it did, and so bears the three traps: a
//!    *compensation without its action* does nothing and leaves a mark; an *action after its compensation*
//!    finds the mark and is refused; a *duplicate* finds the first answer. It may forget a saga when the
//!    orchestrator's floor has passed it: below the floor nothing begins.
//! 4. A plan is checked before it starts: no cycle, every step before the pivot has a compensation, and every
//!    step stands before or after the pivot. What goes wrong after the pivot, and a compensation
//!    that is refused, is no end: it waits for a person.
//!
//! # What a saga does not promise
//!
//! Isolation. Others see money that has left one bank and not arrived at the other, and money that
//! will be taken back. A compensation may be refused because somebody has spent it meanwhile.
//!
//! # Source
//!
//! Garcia-Molina and Salem, *Sagas*, SIGMOD 1987: section 2 for compensation, section 5 for recovery forward
//! and backward, section 7 for parallel sagas. Pivot and retriable steps are from Mehrotra, Rastogi, Korth
//! and Silberschatz, *A Transaction Model for Multidatabase Systems*, 1992.
//!
//! # What it leaves out
//!
//! Nested sagas, save-points, damaged disks (such a process abstains).

mod bank;
mod interface;
mod message;
mod orchestrator;
mod plan;
mod progress;

pub use bank::{Amount, BankService, Movement, ServiceConfig, ServiceEvent, ServiceRecord};
pub use interface::{Config, Event, Limits, Outcome, PauseReason, Refusal, Request, Timing};
pub use message::{Failure, Given, Message, SagaRecord};
pub use orchestrator::Orchestrator;
pub use plan::{Plan, PlanError, STEPS_MAX, Step};
pub use progress::{Shown, StepState};

use core::fmt;

/// The name of a saga, counted by its orchestrator from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SagaId(pub u64);

impl crate::wire::Wire for SagaId {
    fn encode(&self, out: &mut crate::wire::Output) {
        self.0.encode(out);
    }

    fn decode(input: &mut crate::wire::Reader) -> Result<SagaId, crate::wire::DecodeError> {
        Ok(SagaId(input.varint("saga")?))
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}
