//! What a saga is to do, and whether it can be done.

use crate::types::NodeId;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// Steps of one saga at the most.
pub const STEPS_MAX: usize = 64;

/// Steps in the order in which they were written; which comes first is said by [`Step::after`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

crate::wire_format!(struct Plan { steps });

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// Its name, unique in the plan.
    pub name: String,
    /// The service that does it.
    pub service: NodeId,
    /// What to do.
    pub action: Bytes,
    /// What undoes it. After the pivot nothing is undone.
    pub compensation: Option<Bytes>,
    /// The steps that must be done before it starts, and whose outputs it is given.
    pub after: Vec<String>,
    /// Whether the saga is bound to succeed once this is done. At most one step.
    pub is_pivot: bool,
    /// Whether a person must agree before it starts.
    pub waits_for_person: bool,
}

crate::wire_format!(struct Step { name, service, action, compensation, after, is_pivot, waits_for_person });

impl Step {
    /// A step that comes after nothing and can be undone.
    pub fn new(name: &str, service: NodeId, action: Bytes, compensation: Bytes) -> Step {
        Step {
            name: name.into(),
            service,
            action,
            compensation: Some(compensation),
            after: Vec::new(),
            is_pivot: false,
            waits_for_person: false,
        }
    }

    /// The same, after these steps.
    pub fn after(mut self, steps: &[&str]) -> Step {
        self.after = steps.iter().map(|step| String::from(*step)).collect();
        self
    }
}

/// Why a plan cannot be carried out. Nothing was begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PlanError {
    /// There is no step, or there are more than [`STEPS_MAX`].
    Size,
    /// Two steps have this name.
    Duplicate(String),
    /// A step comes after one that there is not.
    Unknown {
        /// The step.
        step: String,
        /// What there is not.
        after: String,
    },
    /// These steps wait for each other.
    Cycle(Vec<String>),
    /// There are two pivots: these.
    TwoPivots(String, String),
    /// The step is neither before nor after the pivot, so that it is not known whether it can be undone.
    BesidePivot(String),
    /// The step has to be undone when a later one fails, and has no compensation.
    NoCompensation(String),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::Size => write!(f, "a saga has 1 to {STEPS_MAX} steps"),
            PlanError::Duplicate(name) => write!(f, "two steps are called {name}"),
            PlanError::Unknown { step, after } => write!(f, "{step} comes after {after}, which is no step"),
            PlanError::Cycle(names) => write!(f, "these steps wait for each other: {}", names.join(", ")),
            PlanError::TwoPivots(a, b) => write!(f, "both {a} and {b} are pivots"),
            PlanError::BesidePivot(name) => write!(f, "{name} must come before or after the pivot"),
            PlanError::NoCompensation(name) => {
                write!(f, "{name} has no compensation and is before the pivot")
            }
        }
    }
}

impl core::error::Error for PlanError {}

impl Plan {
    /// The steps, by their places, that each step comes after.
    ///
    /// # Errors
    /// [`PlanError`] if the plan cannot be carried out.
    pub fn check(&self) -> Result<Vec<Vec<usize>>, PlanError> {
        if self.steps.is_empty() || self.steps.len() > STEPS_MAX {
            return Err(PlanError::Size);
        }
        let after = self.resolve()?;
        let order = topological(&after).map_err(|cycle| {
            PlanError::Cycle(cycle.into_iter().map(|step| self.steps[step].name.clone()).collect())
        })?;
        self.check_pivot(&after, &order)?;
        Ok(after)
    }

    fn resolve(&self) -> Result<Vec<Vec<usize>>, PlanError> {
        let mut places = BTreeMap::new();
        for (place, step) in self.steps.iter().enumerate() {
            if places.insert(&step.name, place).is_some() {
                return Err(PlanError::Duplicate(step.name.clone()));
            }
        }
        let resolve = |step: &Step| {
            let place = |name: &String| {
                let unknown = || PlanError::Unknown { step: step.name.clone(), after: name.clone() };
                places.get(name).copied().ok_or_else(unknown)
            };
            step.after.iter().map(place).collect()
        };
        self.steps.iter().map(resolve).collect()
    }

    fn check_pivot(&self, after: &[Vec<usize>], order: &[usize]) -> Result<(), PlanError> {
        let mut pivots = (0..self.steps.len()).filter(|step| self.steps[*step].is_pivot);
        let (pivot, second) = (pivots.next(), pivots.next());
        let name = |step: usize| self.steps[step].name.clone();
        if let (Some(first), Some(second)) = (pivot, second) {
            return Err(PlanError::TwoPivots(name(first), name(second)));
        }
        // What comes after the pivot, and what the pivot comes after, each by way of others too.
        let mut is_later = vec![false; after.len()];
        let mut is_earlier = vec![false; after.len()];
        for step in order.iter().copied() {
            is_later[step] = after[step].iter().any(|before| Some(*before) == pivot || is_later[*before]);
        }
        for step in order.iter().rev().copied() {
            if Some(step) == pivot || is_earlier[step] {
                after[step].iter().for_each(|before| is_earlier[*before] = true);
            }
        }
        for step in 0..self.steps.len() {
            let is_pivot = Some(step) == pivot;
            if pivot.is_some() && !is_pivot && !is_later[step] && !is_earlier[step] {
                return Err(PlanError::BesidePivot(name(step)));
            }
            if !is_pivot && !is_later[step] && self.steps[step].compensation.is_none() {
                return Err(PlanError::NoCompensation(name(step)));
            }
        }
        Ok(())
    }
}

/// An order in which every step comes after what it is to come after; or the steps that no order can hold.
fn topological(after: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut order = Vec::new();
    let mut is_placed = vec![false; after.len()];
    loop {
        let is_free =
            |step: &usize| !is_placed[*step] && after[*step].iter().all(|before| is_placed[*before]);
        match (0..after.len()).find(is_free) {
            Some(step) => {
                is_placed[step] = true;
                order.push(step);
            }
            None if order.len() == after.len() => return Ok(order),
            None => return Err((0..after.len()).filter(|step| !is_placed[*step]).collect()),
        }
    }
}
