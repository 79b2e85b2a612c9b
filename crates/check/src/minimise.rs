//! Makes a contradiction short enough to read.
//!
//! Leaving a write out of a history can make a read wrong that was right, so operations cannot simply
//! be dropped. Instead they are *set free*: a free operation may take effect at any time, any number of
//! times, or never, and its answer may be anything (only one whose answer says that it changes nothing,
//! such as a failed comparison, still changes nothing). Whatever order explains a history also explains it
//! with some operations set free, so if the rest still has no order, it contradicts itself whatever the
//! free operations did. A model says which states free operations may lead to
//! ([`Model::free_states`]); where it cannot say, only reads are set free.
//!
//! Other models name *strands* ([`Model::strand`]): operations that may well be dropped, all of a strand
//! together.

use std::collections::BTreeMap;

use crate::linearizable::Limits;
use crate::model::{Entry, Model, NEVER};
use crate::search::{Answer, Budget, Exhausted, search};

/// Configurations for one attempt. An attempt that runs out counts as one that found an order.
const ATTEMPT_CONFIGURATIONS_MAX: u64 = 20_000;
/// Operations before the contradiction with which the first attempt is made.
const FIRST_WINDOW: usize = 8;

pub(crate) struct Kept {
    pub(crate) entries: Vec<u32>,
    pub(crate) minimal: bool,
}

/// The operations that cannot be set free: first a small window before the end is found that contains a
/// contradiction; then ever smaller runs of it are set free, oldest first (after Zeller and
/// Hildebrandt's ddmin, 2002). `entries` may be a selection of the `part`.
pub(crate) fn minimise<M: Model>(
    model: &M,
    entries: &[Entry<M>],
    part: &[Entry<M>],
    blocked: u32,
    limits: &Limits,
    budget: &mut Budget<'_>,
) -> Kept {
    let cut = entries[blocked as usize].ret;
    let mut all: Vec<u32> =
        (0..entries.len() as u32).filter(|index| entries[*index as usize].invoke < cut).collect();
    all.sort_by_key(|index| entries[*index as usize].invoke);
    let left = limits.minimise_configurations_max;
    let strands = strands(model, entries, &all);
    let mut attempts =
        Attempts { model, entries, part, all, cut, left, unsure: false, drops: strands.is_some() };
    let mut kept = match strands {
        Some(strands) => strands,
        None => attempts.window(blocked, budget).into_iter().map(|index| vec![index]).collect(),
    };
    let mut run = kept.len().div_ceil(2).max(1);
    loop {
        let before = kept.len();
        attempts.unsure = false;
        let mut from = 0;
        while from < kept.len() && attempts.left > 0 {
            let to = (from + run).min(kept.len());
            let mut fewer = kept.clone();
            fewer.drain(from..to);
            let keeps_end = kept[from..to].iter().all(|unit| !unit.contains(&blocked));
            if keeps_end && attempts.contradict(&fewer.concat(), budget) {
                kept = fewer;
            } else {
                from = to;
            }
        }
        if attempts.left == 0 {
            return Kept { entries: kept.concat(), minimal: false };
        }
        if run == 1 && kept.len() == before {
            return Kept { entries: kept.concat(), minimal: !attempts.unsure };
        }
        run = run.div_ceil(2);
    }
}

/// The strands of a model that has them, in the order of their first invocation.
fn strands<M: Model>(model: &M, entries: &[Entry<M>], all: &[u32]) -> Option<Vec<Vec<u32>>> {
    let mut of_name: BTreeMap<String, usize> = BTreeMap::new();
    let mut strands: Vec<Vec<u32>> = Vec::new();
    for index in all {
        let entry = &entries[*index as usize];
        let at = *of_name.entry(model.strand(&entry.op, entry.answer.as_ref())?).or_insert(strands.len());
        if at == strands.len() {
            strands.push(Vec::new());
        }
        strands[at].push(*index);
    }
    Some(strands)
}

struct Attempts<'a, M: Model> {
    model: &'a M,
    entries: &'a [Entry<M>],
    part: &'a [Entry<M>],
    /// All operations invoked before the cut.
    all: Vec<u32>,
    cut: u64,
    left: u64,
    /// Whether an attempt ran out of its budget.
    unsure: bool,
    /// Whether what is not kept is dropped rather than set free.
    drops: bool,
}

impl<M: Model> Attempts<'_, M> {
    /// A contradiction among the last operations and those that may have produced what `blocked` saw.
    fn window(&mut self, blocked: u32, budget: &mut Budget<'_>) -> Vec<u32> {
        let all = self.all.clone();
        let Entry { op: asked, answer, .. } = &self.entries[blocked as usize];
        let mut last = FIRST_WINDOW;
        while last < all.len() && self.left > 0 {
            let from = all.len() - last;
            let explains =
                |index: u32| self.model.may_explain(&self.entries[index as usize].op, asked, answer.as_ref());
            let chosen = all
                .iter()
                .enumerate()
                .filter(|(at, index)| *at >= from || **index == blocked || explains(**index));
            let window: Vec<u32> = chosen.map(|(_, index)| *index).collect();
            if self.contradict(&window, budget) {
                return window;
            }
            last *= 2;
        }
        all
    }

    /// Whether these operations have no order up to the cut, all others before it being free.
    fn contradict(&mut self, kept: &[u32], budget: &mut Budget<'_>) -> bool {
        let mut is_kept = vec![false; self.entries.len()];
        kept.iter().for_each(|index| is_kept[*index as usize] = true);
        let free: Vec<&Entry<M>> = self
            .all
            .iter()
            .filter(|index| !is_kept[**index as usize])
            .map(|index| &self.entries[*index as usize])
            .filter(|entry| !self.model.is_read_only(&entry.op, entry.answer.as_ref()))
            .collect();
        let jumps = if free.is_empty() || self.drops {
            Vec::new()
        } else {
            let free: Vec<&M::Op> = free.iter().map(|entry| &entry.op).collect();
            let of_kept = |index: &u32| {
                let entry = &self.entries[*index as usize];
                (&entry.op, entry.answer.as_ref())
            };
            match self.model.free_states(&free, &kept.iter().map(of_kept).collect::<Vec<_>>()) {
                Some(states) => states,
                None => return false,
            }
        };
        let until_cut = |index: &u32| {
            let Entry { op, answer, invoke, ret } = &self.entries[*index as usize];
            // What was still open at the cut keeps its answer, but may be left out.
            let ret = if *ret > self.cut { NEVER } else { *ret };
            Entry { op: op.clone(), answer: answer.clone(), invoke: *invoke, ret }
        };
        let mut entries: Vec<Entry<M>> = kept.iter().map(until_cut).collect();
        if self.drops {
            entries = self.model.narrow(entries, self.part);
        }
        let mut own = Budget {
            configurations: self.left.min(ATTEMPT_CONFIGURATIONS_MAX),
            bytes: budget.bytes,
            stop: &mut *budget.stop,
            spent: 0,
            bytes_peak: 0,
            exhausted: None,
        };
        let answer = search(self.model, &entries, jumps, &mut own);
        // Building an attempt costs as much as some configurations, so their number is bounded as well.
        self.left = self.left.saturating_sub(own.spent + 1 + self.all.len() as u64 / 16);
        budget.spent += own.spent;
        budget.bytes_peak = budget.bytes_peak.max(own.bytes_peak);
        match answer {
            Answer::Found(_) => false,
            Answer::Impossible(_) => true,
            Answer::Exhausted(why, _) => {
                if why == Exhausted::Stopped {
                    self.left = 0;
                }
                self.unsure = true;
                false
            }
        }
    }
}
