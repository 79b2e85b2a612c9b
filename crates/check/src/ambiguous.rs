//! Histories in which values repeat: of some reads it is open who wrote what they read.
//!
//! - *No* is sound if it follows from the other reads alone: the models here ask for orders in which reads are right, and
//!   leaving out a read, or the write of unknown outcome that nobody else read, takes nothing from an order.
//! - *Yes* is sound if it follows for one choice of writers, since that choice explains what was read.
//! - *No* also follows if every choice has failed.
//!
//! Choices are tried while there are few of them. If there are many, the first takes for each read the write that was
//! invoked last before it returned; each next one changes a read that the contradiction found speaks of.

use std::collections::HashSet;

use crate::answer::{Answer, Reason};
use crate::history::History;
use crate::observed::{Choice, Observed, Open};

/// Choices tried at the most.
const CHOICES_MAX: usize = 256;
/// Operations looked at for all choices together.
const WORK_MAX: usize = 20_000_000;

/// Asks `answer` about the choices there are. `None`: it is not only repeated values that keep this from being judged.
/// `why`: what is told if no choice decides it.
pub(crate) fn decide(
    history: &History,
    why: &str,
    answer: &mut dyn FnMut(&Observed) -> Answer,
) -> Option<Answer> {
    let open = Observed::open(history).ok()?;
    let left_out: Choice = open.iter().map(|open| (open.read, None)).collect();
    let certain = Observed::chosen(history, &left_out).ok()?;
    match answer(&certain) {
        Answer::No(reason) if open.is_empty() => return Some(Answer::No(reason)),
        Answer::No(reason) => {
            let words = format!(
                "{} This holds whoever wrote what the {} reads of values that were written more than once have read.",
                reason.words,
                open.len()
            );
            return Some(Answer::No(Reason { words, ..reason }));
        }
        found if open.is_empty() => return Some(found),
        _ => {}
    }
    let all = open.iter().try_fold(1usize, |all, open| all.checked_mul(open.from.len()));
    let mut next: Vec<Vec<u8>> = vec![open.iter().map(|open| likely(history, open)).collect()];
    let mut known: HashSet<Vec<u8>> = next.iter().cloned().collect();
    let tries = (WORK_MAX / history.operations.len().max(1)).clamp(1, CHOICES_MAX);
    let mut failed = 0;
    let mut last = None;
    while let Some(choice) = next.pop().filter(|_| failed < tries) {
        failed += 1;
        let made = open.iter().zip(&choice);
        let made: Choice = made.map(|(open, at)| (open.read, Some(open.from[*at as usize]))).collect();
        let few = all.is_some_and(|all| all <= CHOICES_MAX);
        let suspects: Vec<usize> = match answer(&Observed::chosen(history, &made).ok()?) {
            Answer::Yes(mut proof) => {
                proof.words = format!(
                    "{} (values repeat; for each of the {} reads of such a value one of its writers was chosen)",
                    proof.words,
                    open.len()
                );
                return Some(Answer::Yes(proof));
            }
            Answer::No(reason) => {
                let named = |open: &Open| reason.operations.iter().any(|index| index.0 == open.read.0);
                let suspects = (0..open.len()).filter(|at| few || named(&open[*at])).collect();
                last = Some(reason);
                suspects
            }
            Answer::Unknown(spent) => {
                return Some(Answer::Unknown(format!("{why}; with one choice of writers: {spent}")));
            }
        };
        for at in suspects {
            for other in 0..open[at].from.len().min(CHOICES_MAX) {
                let mut changed = choice.clone();
                changed[at] = other as u8;
                if known.len() < CHOICES_MAX * 8 && known.insert(changed.clone()) {
                    next.push(changed);
                }
            }
        }
    }
    Some(match last.filter(|_| all == Some(failed)) {
        Some(reason) => {
            let words = format!(
                "None of the {failed} ways to say who read from whom is possible. With one: {}",
                reason.words
            );
            Answer::No(Reason { words, minimal: false, ..reason })
        }
        None => {
            Answer::Unknown(format!("{why}; of the ways to say who wrote it, {failed} were tried in vain"))
        }
    })
}

/// The write that was invoked last before the read returned.
fn likely(history: &History, open: &Open) -> u8 {
    let returned = history.operations[open.read.0].returned.map_or(u64::MAX, |returned| returned.order);
    let before =
        |from: &Option<usize>| from.is_none_or(|from| history.operations[from].invoked.order < returned);
    let last = open.from.iter().rposition(before).unwrap_or(0);
    u8::try_from(last).unwrap_or(u8::MAX)
}
