//! Makes a contradiction short enough to read.
//!
//! Leaving a write out of a history can make a read wrong that was right, so operations cannot simply
//! be dropped. Instead they are *set free*: a free operation may take effect once at any time, with any
//! answer, or never. Whatever order explains a history also explains it with some operations set free,
//! so if the rest still has no order, it contradicts itself whatever the free operations did.

use crate::linearizable::Limits;
use crate::model::Model;
use crate::search::{Answer, Budget, Entry, NEVER, search};

/// Configurations for one attempt. An attempt that runs out counts as one that found an order.
const ATTEMPT_CONFIGURATIONS_MAX: u64 = 20_000;

pub(crate) struct Kept {
    pub(crate) entries: Vec<u32>,
    pub(crate) minimal: bool,
}

/// The operations that cannot be set free, found by setting free ever smaller runs of them, oldest
/// first (after Zeller and Hildebrandt's ddmin, 2002).
pub(crate) fn minimise<M: Model>(
    model: &M,
    entries: &[Entry<M>],
    blocked: u32,
    limits: &Limits,
    budget: &mut Budget<'_>,
) -> Kept {
    let cut = entries[blocked as usize].ret;
    let mut kept: Vec<u32> =
        (0..entries.len() as u32).filter(|index| entries[*index as usize].invoke < cut).collect();
    kept.sort_by_key(|index| entries[*index as usize].invoke);
    let mut attempts =
        Attempts { model, entries, cut, left: limits.minimise_configurations_max, unsure: false };
    let mut run = kept.len().div_ceil(2).max(1);
    loop {
        let before = kept.len();
        attempts.unsure = false;
        let mut from = 0;
        while from < kept.len() && attempts.left > 0 {
            let to = (from + run).min(kept.len());
            if kept[from..to].contains(&blocked) && run > 1 {
                from = to;
                continue;
            }
            let mut fewer = kept.clone();
            fewer.drain(from..to);
            if kept[from..to] != [blocked] && attempts.contradict(&fewer, budget) {
                kept = fewer;
            } else {
                from = to;
            }
        }
        if attempts.left == 0 {
            return Kept { entries: kept, minimal: false };
        }
        if run == 1 && kept.len() == before {
            return Kept { entries: kept, minimal: !attempts.unsure };
        }
        run = run.div_ceil(2);
    }
}

struct Attempts<'a, M: Model> {
    model: &'a M,
    entries: &'a [Entry<M>],
    cut: u64,
    left: u64,
    /// Whether an attempt ran out of its budget.
    unsure: bool,
}

impl<M: Model> Attempts<'_, M> {
    /// Whether these operations have no order up to the cut, all others before it being free.
    fn contradict(&mut self, kept: &[u32], budget: &mut Budget<'_>) -> bool {
        let mut free: Vec<bool> = vec![true; self.entries.len()];
        kept.iter().for_each(|index| free[*index as usize] = false);
        let before_cut = self.entries.iter().zip(&free).filter(|(entry, _)| entry.invoke < self.cut);
        let relaxed: Vec<Entry<M>> = before_cut
            .map(|(entry, free)| {
                let free = *free;
                let ret = if free || entry.ret > self.cut { NEVER } else { entry.ret };
                let answer = if free { None } else { entry.answer.clone() };
                Entry { op: entry.op.clone(), answer, invoke: if free { 0 } else { entry.invoke }, ret }
            })
            .collect();
        let configurations = self.left.min(ATTEMPT_CONFIGURATIONS_MAX);
        let mut own = Budget {
            configurations,
            bytes: budget.bytes,
            stop: &mut *budget.stop,
            spent: 0,
            bytes_peak: 0,
            exhausted: None,
        };
        let answer = search(self.model, &relaxed, &mut own);
        // At least 16 for building the attempt, so that the number of attempts is bounded as well.
        self.left = self.left.saturating_sub(own.spent.max(16));
        budget.spent += own.spent;
        budget.bytes_peak = budget.bytes_peak.max(own.bytes_peak);
        match answer {
            Answer::Found(_) => false,
            Answer::Impossible(_) => true,
            Answer::Exhausted(why, _) => {
                if why == crate::search::Exhausted::Stopped {
                    self.left = 0;
                }
                self.unsure = true;
                false
            }
        }
    }
}
