//! Makes a contradiction of transactions short: as few of them as still contradict the model.
//!
//! What a history has, it still has without some of its transactions, provided that what others read of them is left out
//! too: the order that explained the whole explains the rest. So transactions are left out, ever smaller runs of them
//! (after Zeller and Hildebrandt's ddmin, 2002), and what is left is decided again. In the end each of those that
//! are kept was left out alone, and the others then had an order. It begins with the operations of the contradiction that was
//! found, if they alone are one, or else with all.
//!
//! What the kept ones say of the rest (elements of lists, for instance) is left out of the pictures, not of the history.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::answer::{Answer, Link, Reason};
use crate::append::{Dependencies, Level};
use crate::history::{History, Outcome};
use crate::infer;
use crate::linearizable::{Limits, OperationIndex};
use crate::observed::Observed;

/// Work for all attempts: clock entries, or operations.
const WORK_MAX: usize = 100_000_000;
/// What an attempt costs beside.
const WORK_EACH: usize = 1_000;
/// Configurations that the search of one attempt may look at. One that needs more counts as having found an order.
const ATTEMPT_CONFIGURATIONS_MAX: u64 = 20_000;

/// The limits of one attempt.
pub(crate) fn attempt(limits: &Limits) -> Limits {
    Limits { configurations_max: limits.configurations_max.min(ATTEMPT_CONFIGURATIONS_MAX), ..*limits }
}

/// Shortens the answer of a model that was decided on `observed`. `sessions`: whether their order counts. `answer` decides it for
/// some of the transactions.
pub(crate) fn observed(
    history: &History,
    observed: &Observed,
    sessions: bool,
    found: Answer,
    answer: &mut dyn FnMut(&Observed) -> Answer,
) -> Answer {
    let found = match found {
        Answer::No(reason) if !reason.minimal => reason,
        other => return other,
    };
    let all: Vec<u32> = (0..observed.transactions.len() as u32).collect();
    let operation = |index: &u32| observed.transactions[*index as usize].operation;
    let of_reason: BTreeSet<OperationIndex> = found.operations.iter().copied().collect();
    let named = all.iter().copied().filter(|index| of_reason.contains(&operation(index))).collect();
    let mut last: Option<Reason> = None;
    let kept =
        minimise(named, all.clone(), observed.chains, &mut |kept| match answer(&observed.part(kept)) {
            Answer::No(reason) => {
                last = Some(reason);
                Some(true)
            }
            Answer::Yes(_) => Some(false),
            Answer::Unknown(_) => None,
        });
    let (Some((kept, minimal)), Some(mut reason)) = (kept, last) else { return Answer::No(found) };
    let part = observed.part(&kept);
    if reason.links.is_empty() {
        // No cycle shows: told is what reads and sessions say.
        reason.links = infer::links(history, &part, sessions);
        reason.words = format!("No order of these {} explains all that they read.", kept.len());
    }
    reason.operations = kept.iter().map(operation).collect();
    Answer::No(Reason { minimal, ..reason })
}

/// Shortens the answer about lists.
pub(crate) fn appends(history: &History, found: Answer, level: Level) -> Answer {
    let found = match found {
        Answer::No(reason) if !reason.minimal => reason,
        other => return other,
    };
    let all: Vec<u32> = (0..history.operations.len() as u32).collect();
    let named = found.operations.iter().map(|index| index.0 as u32).collect();
    let mut last: Option<Reason> = None;
    let kept = minimise(named, all, 8, &mut |kept| {
        let part = part(history, kept);
        match Dependencies::of(&part).map(|dependencies| dependencies.decide(level)) {
            Ok(Answer::No(mut reason)) => {
                let whole = |index: &mut OperationIndex| index.0 = kept[index.0] as usize;
                reason.operations.iter_mut().for_each(whole);
                for Link { from, to, .. } in &mut reason.links {
                    whole(from);
                    whole(to);
                }
                last = Some(reason);
                Some(true)
            }
            Ok(Answer::Yes(_)) => Some(false),
            Ok(Answer::Unknown(_)) | Err(_) => None,
        }
    });
    let (Some((kept, minimal)), Some(reason)) = (kept, last) else { return Answer::No(found) };
    let operations = kept.iter().map(|index| OperationIndex(*index as usize)).collect();
    Answer::No(Reason { operations, minimal, ..reason })
}

/// Some of the operations, with lists as if the others had appended nothing.
fn part(history: &History, kept: &[u32]) -> History {
    let mut operations: Vec<_> =
        kept.iter().map(|index| history.operations[*index as usize].clone()).collect();
    let mut appended: Vec<(String, String)> = Vec::new();
    let fields = |op: &Value| Some((op.get(0)?.as_str()?.to_owned(), op.get(1)?.to_string()));
    for operation in &operations {
        for op in operation.call.more.get("ops").and_then(Value::as_array).into_iter().flatten() {
            if let Some((_, key)) = fields(op).filter(|(function, _)| function == "append") {
                appended.push((key, op[2].to_string()));
            }
        }
    }
    appended.sort_unstable();
    for operation in &mut operations {
        let Outcome::Ok(reply) = &mut operation.outcome else { continue };
        for op in reply.value.as_mut().and_then(Value::as_array_mut).into_iter().flatten() {
            let Some((_, key)) = fields(op).filter(|(function, _)| function == "r") else { continue };
            if let Some(Value::Array(list)) = op.get_mut(2) {
                list.retain(|element| appended.binary_search(&(key.clone(), element.to_string())).is_ok());
            }
        }
    }
    History { header: history.header.clone(), operations, notes: Vec::new() }
}

/// The fewest that still contradict, and whether each was shown to be needed; `None` if not even all do, or
/// if they are too many. The last call of `contradicts` that said yes was for these; it says nothing where it does not know.
fn minimise(
    named: Vec<u32>,
    all: Vec<u32>,
    width: usize,
    contradicts: &mut dyn FnMut(&[u32]) -> Option<bool>,
) -> Option<(Vec<u32>, bool)> {
    let (mut left, mut unsure) = (WORK_MAX, false);
    let mut attempt = |kept: &[u32]| {
        let work = kept.len().saturating_mul(width) + WORK_EACH;
        let affordable = work <= left;
        left = left.saturating_sub(work);
        let found = affordable.then(|| contradicts(kept))?;
        unsure |= found.is_none();
        Some(found.unwrap_or(false))
    };
    let mut kept = match attempt(&named)? {
        true => named,
        false => attempt(&all)?.then_some(all)?,
    };
    let mut run = kept.len().div_ceil(2).max(1);
    let minimal = 'done: loop {
        let before = kept.len();
        let mut from = 0;
        while from < kept.len() {
            let mut fewer = kept.clone();
            fewer.drain(from..(from + run).min(kept.len()));
            match attempt(&fewer) {
                Some(true) => kept = fewer,
                Some(false) => from += run,
                None => break 'done false,
            }
        }
        if run == 1 && kept.len() == before {
            break true;
        }
        run = run.div_ceil(2);
    };
    Some((kept, minimal && !unsure))
}
