//! Makes a contradiction of transactions short: as few of them as still contradict the model.
//!
//! What a history has, it still has without some of its transactions, provided that what others read of them is left out
//! too: the order that explained the whole explains the rest. So transactions are left out, ever smaller runs of them
//! (after Zeller and Hildebrandt's ddmin, 2002), and what is left is decided again. In the end each of those that
//! are kept was left out alone, and the others then had an order. It begins with the operations of the contradiction that was
//! found, if they alone are one, or else with all.
//!
//! What the kept ones say of the rest (elements of lists, for instance) is left out of the pictures, not of the history.

use serde_json::Value;

use crate::answer::{Answer, Link, Reason};
use crate::append::{Dependencies, Level};
use crate::history::{History, Outcome};
use crate::infer;
use crate::linearizable::OperationIndex;
use crate::observed::Observed;

/// Work for all attempts: clock entries, or operations.
const WORK_MAX: usize = 100_000_000;
/// What an attempt costs beside.
const WORK_EACH: usize = 1_000;

/// Shortens the answer of a model that was decided on `observed`. `answer` decides it for some of the transactions.
pub(crate) fn observed(
    history: &History,
    observed: &Observed,
    found: Answer,
    answer: &mut dyn FnMut(&Observed) -> Answer,
) -> Answer {
    let found = match found {
        Answer::No(reason) if !reason.minimal => reason,
        other => return other,
    };
    let all: Vec<u32> = (0..observed.transactions.len() as u32).collect();
    let operation = |index: &u32| observed.transactions[*index as usize].operation;
    let named = all.iter().copied().filter(|index| found.operations.contains(&operation(index))).collect();
    let mut last: Option<Reason> = None;
    let kept =
        minimise(named, all.clone(), observed.chains, &mut |kept| match answer(&observed.part(kept)) {
            Answer::No(reason) => {
                last = Some(reason);
                true
            }
            _ => false,
        });
    let (Some((kept, minimal)), Some(mut reason)) = (kept, last) else { return Answer::No(found) };
    let part = observed.part(&kept);
    if reason.links.is_empty() {
        // No cycle shows: told is what reads and sessions say.
        let why = |(from, to): (u32, u32)| infer::link(history, &part, from, to);
        reason.links = part.causes().map(why).collect();
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
                true
            }
            _ => false,
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
            if let Some((function, key)) = fields(op).filter(|(function, _)| function == "append") {
                debug_assert_eq!(function, "append");
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
/// if they are too many. The last call of `contradicts` that said yes was for these.
fn minimise(
    named: Vec<u32>,
    all: Vec<u32>,
    width: usize,
    contradicts: &mut dyn FnMut(&[u32]) -> bool,
) -> Option<(Vec<u32>, bool)> {
    let mut left = WORK_MAX;
    let mut attempt = |kept: &[u32]| {
        let work = kept.len().saturating_mul(width) + WORK_EACH;
        let affordable = work <= left;
        left = left.saturating_sub(work);
        affordable.then(|| contradicts(kept))
    };
    let mut kept = match attempt(&named)? {
        true => named,
        false => attempt(&all)?.then_some(all)?,
    };
    let mut run = kept.len().div_ceil(2).max(1);
    loop {
        let before = kept.len();
        let mut from = 0;
        while from < kept.len() {
            let mut fewer = kept.clone();
            fewer.drain(from..(from + run).min(kept.len()));
            match attempt(&fewer) {
                Some(true) => kept = fewer,
                Some(false) => from += run,
                None => return Some((kept, false)),
            }
        }
        if run == 1 && kept.len() == before {
            return Some((kept, true));
        }
        run = run.div_ceil(2);
    }
}
