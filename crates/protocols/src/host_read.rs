//! A question to the host for entries that memory no longer holds.

use crate::log::Index;
use crate::types::Time;

/// Entries asked of the host for one purpose: one question at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostRead {
    /// Nothing is asked.
    #[default]
    Idle,
    /// The answer is on its way.
    Waiting {
        /// The first entry asked for.
        from: Index,
    },
    /// The host could not read them.
    Failed {
        /// When to ask again.
        retry: Time,
    },
}

impl HostRead {
    /// Whether the question may be asked now; then it counts as asked.
    pub fn begin(&mut self, from: Index) -> bool {
        let idle = *self == HostRead::Idle;
        if idle {
            *self = HostRead::Waiting { from };
        }
        idle
    }

    /// Whether this was asked; then it counts as answered.
    pub fn take(&mut self, from: Index) -> bool {
        let asked = *self == HostRead::Waiting { from };
        if asked {
            *self = HostRead::Idle;
        }
        asked
    }

    /// From where on entries were asked, if there was no answer yet.
    pub fn waiting(&self) -> Option<Index> {
        match self {
            HostRead::Waiting { from } => Some(*from),
            HostRead::Idle | HostRead::Failed { .. } => None,
        }
    }

    /// When a question that was answered with nothing may be asked again.
    pub fn retry(&self) -> Option<Time> {
        match self {
            HostRead::Failed { retry } => Some(*retry),
            HostRead::Idle | HostRead::Waiting { .. } => None,
        }
    }

    /// It may be asked again if the time has come.
    pub fn maybe_retry(&mut self, now: Time) {
        if self.retry().is_some_and(|at| now >= at) {
            *self = HostRead::Idle;
        }
    }

    /// What is asked stands at or before `index`, and is not needed any more.
    pub fn forget_up_to(&mut self, index: Index) {
        if self.waiting().is_some_and(|from| from <= index) {
            *self = HostRead::Idle;
        }
    }
}
