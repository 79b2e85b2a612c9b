//! Decides the independent parts of a history, on several threads where that pays.
//!
//! The answer does not depend on how many threads there are. Each part has a budget of its own, and parts are taken in
//! their order; the first in this order that has no linearization decides, so every part before it is
//! decided, and what was found out about those behind it is forgotten. Memory is shared out evenly among as
//! many threads as there may ever be; a part that needs more than its share is decided again when it is
//! alone.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::linearizable::{Limits, Part};
use crate::model::{Entry, Model, Shortcut};
use crate::search::{Answer, Budget, Exhausted, Furthest, search};

/// Threads at the most. Also the number of shares of the memory.
const THREADS_MAX: usize = 16;
/// A smaller history is decided sooner than threads are started.
const PARALLEL_ENTRIES_MIN: usize = 2_048;
/// How often the caller's `stop` is asked while others work.
const STOP_INTERVAL: Duration = Duration::from_millis(5);

/// What was found out about one part.
pub(crate) enum Decided<S> {
    /// An order; whether it was found by the model's own algorithm.
    Order(Vec<u32>, bool),
    /// The model's own algorithm found that these entries alone have no order; the last named, as an index of
    /// them, is where they stop having one.
    Short(Vec<u32>, u32),
    /// There is no order.
    Impossible(Furthest<S>),
    /// The budget was spent first.
    Exhausted(Exhausted, Furthest<S>),
}

impl<S> Decided<S> {
    fn is_no(&self) -> bool {
        matches!(self, Decided::Short(..) | Decided::Impossible(_))
    }
}

/// What deciding a part took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) configurations: u64,
    pub(crate) bytes_peak: usize,
}

type Results<S> = Vec<Option<(Decided<S>, Spent)>>;

/// Decides parts in their order, up to the first without a linearization, which is then the last of the
/// results. `None` stands for a part that was not begun because the caller said stop.
pub(crate) fn decide_all<M: Model>(
    model: &M,
    parts: &[Part<M>],
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Results<M::State> {
    let entries: usize = parts.iter().map(|part| part.entries.len()).sum();
    let threads = limits.threads_max.min(THREADS_MAX).min(parts.len());
    let alone = parts.len() == 1;
    let share = Limits {
        bytes_max: if alone { limits.bytes_max } else { limits.bytes_max / THREADS_MAX },
        ..*limits
    };
    let mut results = match threads > 1 && entries >= PARALLEL_ENTRIES_MIN {
        true => on_threads(model, parts, &share, threads, stop),
        false => one_by_one(model, parts, &share, stop),
    };
    for (part, result) in parts.iter().zip(&mut results) {
        if !alone && matches!(result, Some((Decided::Exhausted(Exhausted::Bytes, _), _))) {
            *result = Some(decide(model, part, limits, stop));
        }
    }
    let first = results.iter().position(|result| result.as_ref().is_some_and(|(decided, _)| decided.is_no()));
    results.truncate(first.map_or(parts.len(), |first| first + 1));
    results
}

fn one_by_one<M: Model>(
    model: &M,
    parts: &[Part<M>],
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Results<M::State> {
    let mut results = Results::new();
    for part in parts {
        let result = decide(model, part, limits, stop);
        let last = match &result.0 {
            Decided::Exhausted(why, _) => *why == Exhausted::Stopped,
            decided => decided.is_no(),
        };
        results.push(Some(result));
        if last {
            break;
        }
    }
    results.resize_with(parts.len(), || None);
    results
}

fn on_threads<M: Model>(
    model: &M,
    parts: &[Part<M>],
    limits: &Limits,
    threads: usize,
    stop: &mut dyn FnMut() -> bool,
) -> Results<M::State> {
    let (next, first_no, stopped) =
        (AtomicUsize::new(0), AtomicUsize::new(usize::MAX), AtomicBool::new(false));
    let mut results = Results::new();
    results.resize_with(parts.len(), || None);
    let results = Mutex::new(results);
    let work = || loop {
        let index = next.fetch_add(1, Relaxed);
        let is_pointless = || stopped.load(Relaxed) || first_no.load(Relaxed) < index;
        let Some(part) = parts.get(index).filter(|_| !is_pointless()) else { return };
        let result = decide(model, part, limits, &mut || is_pointless());
        if result.0.is_no() {
            first_no.fetch_min(index, Relaxed);
        }
        results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
    };
    std::thread::scope(|scope| {
        // Nothing is sent: the channel closes when the last worker ends, even by a panic, which the scope passes on.
        let (working, ended) = channel::<()>();
        for _ in 0..threads {
            let working = working.clone();
            scope.spawn(move || {
                let _working = working;
                work();
            });
        }
        drop(working);
        while ended.recv_timeout(STOP_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if stop() {
                stopped.store(true, Relaxed);
            }
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn decide<M: Model>(
    model: &M,
    part: &Part<M>,
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> (Decided<M::State>, Spent) {
    let mut budget = Budget::new(limits, stop);
    let decided = decide_within(model, part, &mut budget);
    (decided, Spent { configurations: budget.spent, bytes_peak: budget.bytes_peak })
}

fn decide_within<M: Model>(model: &M, part: &Part<M>, budget: &mut Budget<'_>) -> Decided<M::State> {
    match model.shortcut(&part.entries) {
        Shortcut::Order(order) => return Decided::Order(order, true),
        Shortcut::Contradiction(kept) => {
            // The search, which shares nothing with the shortcut, has to agree.
            let own: Vec<Entry<M>> = kept.iter().map(|index| part.entries[*index as usize].clone()).collect();
            if let Answer::Impossible(Furthest { blocked: Some(blocked), .. }) =
                search(model, &model.narrow(own, &part.entries), Vec::new(), budget)
            {
                return Decided::Short(kept, blocked);
            }
        }
        Shortcut::Stuck(blocked) => return Decided::Short((0..part.entries.len() as u32).collect(), blocked),
        Shortcut::None => {}
    }
    match search(model, &part.entries, Vec::new(), budget) {
        Answer::Found(order) => Decided::Order(order, false),
        Answer::Impossible(furthest) => Decided::Impossible(furthest),
        Answer::Exhausted(why, furthest) => Decided::Exhausted(why, furthest),
    }
}
