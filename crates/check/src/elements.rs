//! What queues and stacks share: each value with the operations that put it in and took it out.
//!
//! Unknown outcomes: a put that nobody saw taken is left out (as an element that nobody takes, it could only be in the way). A put
//! that was taken took effect before its take returned. A *take* of unknown outcome may have taken a value that is missing now;
//! what that means is decided by each object.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use serde_json::Value;

use crate::model::{Entry, NEVER, Sequence, SequenceOp, Shortcut};
use crate::search::WordHasher;

/// A value, or an answer "empty", with the moments between which it was put and taken.
#[derive(Clone, Copy)]
pub(crate) struct Element {
    pub(crate) put: Option<u32>,
    pub(crate) take: Option<u32>,
    pub(crate) put_invoke: u64,
    pub(crate) put_return: u64,
    pub(crate) take_invoke: u64,
    pub(crate) take_return: u64,
}

impl Element {
    /// Whether it is inside for sure at some time: from the return of its put to the invocation of its take.
    pub(crate) fn is_certain(&self) -> bool {
        self.put_return < self.take_invoke
    }
}

/// The values of a part, and its answers "empty".
pub(crate) struct Elements {
    pub(crate) all: Vec<Element>,
    pub(crate) empties: Vec<u32>,
    pub(crate) unknown_takes: bool,
}

impl Elements {
    /// Pairs puts with takes. The error is a contradiction where a value is taken that nobody put, or before it was
    /// put, or twice; or that this does not apply, since a value is put in twice.
    pub(crate) fn of(entries: &[Entry<Sequence>]) -> Result<Elements, Shortcut> {
        let mut of_value: HashMap<&Value, u32, BuildHasherDefault<WordHasher>> = HashMap::default();
        let mut all = Vec::with_capacity(entries.len() / 2 + 1);
        for (index, entry) in (0..).zip(entries) {
            let SequenceOp::Put(_, value) = &entry.op else { continue };
            if of_value.insert(value, all.len() as u32).is_some() {
                return Err(Shortcut::None);
            }
            all.push(Element {
                put: Some(index),
                take: None,
                put_invoke: entry.invoke,
                put_return: entry.ret,
                take_invoke: NEVER,
                take_return: NEVER,
            });
        }
        let (mut empties, mut unknown_takes) = (Vec::new(), false);
        for (index, entry) in (0..).zip(entries) {
            match (&entry.op, &entry.answer) {
                (SequenceOp::Put(..), _) => {}
                (SequenceOp::Take(_), None) => unknown_takes = true,
                (SequenceOp::Take(_), Some(Value::Null)) => empties.push(index),
                (SequenceOp::Take(_), Some(value)) => {
                    let Some(at) = of_value.get(value) else {
                        return Err(Shortcut::Contradiction(vec![index]));
                    };
                    let element: &mut Element = &mut all[*at as usize];
                    if element.take.is_some() || entry.ret < element.put_invoke {
                        return Err(contradiction([element.put, element.take, Some(index)]));
                    }
                    element.take = Some(index);
                    (element.take_invoke, element.take_return) = (entry.invoke, entry.ret);
                    element.put_return = element.put_return.min(entry.ret);
                }
            }
        }
        all.retain(|element| element.take.is_some() || element.put_return != NEVER);
        Ok(Elements { all, empties, unknown_takes })
    }

    /// For every answer "empty", a moment at which nothing need be inside. The error: one that has none, with the
    /// fewest values that together are inside from its invocation to its return.
    pub(crate) fn quiet_moments(&self, entries: &[Entry<Sequence>]) -> Result<Vec<u64>, Vec<u32>> {
        let mut certain: Vec<&Element> = self.all.iter().filter(|element| element.is_certain()).collect();
        certain.sort_unstable_by_key(|element| element.put_return);
        let mut covers: Vec<(u64, u64, usize)> = Vec::new();
        for (at, element) in certain.iter().enumerate() {
            match covers.last_mut().filter(|cover| element.put_return < cover.1) {
                Some(cover) => cover.1 = cover.1.max(element.take_invoke),
                None => covers.push((element.put_return, element.take_invoke, at)),
            }
        }
        let mut moments = Vec::with_capacity(self.empties.len());
        for index in &self.empties {
            let Entry { invoke, ret, .. } = &entries[*index as usize];
            let after = covers.partition_point(|cover| cover.0 < *invoke);
            moments.push(match after.checked_sub(1).map(|last| covers[last]) {
                Some((_, end, first)) if end > *ret => {
                    let mut kept = cover(&certain[first..], *invoke, *ret);
                    kept.push(*index);
                    kept.sort_unstable();
                    return Err(kept);
                }
                Some((_, end, _)) if end > *invoke => end,
                _ => *invoke,
            });
        }
        Ok(moments)
    }
}

/// The operations on the fewest values that together are inside for sure from one moment to another, if these are; `certain` in
/// the order of the returns of their puts.
pub(crate) fn cover(certain: &[&Element], from: u64, to: u64) -> Vec<u32> {
    let mut kept = Vec::new();
    let (mut covered, mut rest) = (from, certain.iter().peekable());
    while covered < to {
        let mut best: Option<&Element> = None;
        while let Some(element) = rest.next_if(|element| element.put_return < covered) {
            if best.is_none_or(|known| known.take_invoke < element.take_invoke) {
                best = Some(element);
            }
        }
        let Some(best) = best.filter(|best| best.take_invoke > covered) else { break };
        kept.extend([best.put, best.take].into_iter().flatten());
        covered = best.take_invoke;
    }
    kept
}

/// A contradiction among these operations.
pub(crate) fn contradiction<const N: usize>(kept: [Option<u32>; N]) -> Shortcut {
    let mut kept: Vec<u32> = kept.into_iter().flatten().collect();
    kept.sort_unstable();
    Shortcut::Contradiction(kept)
}

/// The order, if it is one: replayed on the object, with every operation in its interval.
pub(crate) fn replayed(object: Sequence, entries: &[Entry<Sequence>], order: Vec<u32>) -> Option<Vec<u32>> {
    let mut inside: VecDeque<&Value> = VecDeque::new();
    let mut latest_invoke = 0;
    for index in &order {
        let entry = &entries[*index as usize];
        if entry.ret < latest_invoke {
            return None;
        }
        latest_invoke = latest_invoke.max(entry.invoke);
        match (&entry.op, &entry.answer) {
            (SequenceOp::Put(_, value), _) => inside.push_back(value),
            (SequenceOp::Take(_), answer) => {
                let taken = match object {
                    Sequence::Queue => inside.pop_front(),
                    Sequence::Stack => inside.pop_back(),
                };
                if answer.as_ref() != Some(taken.unwrap_or(&Value::Null)) {
                    return None;
                }
            }
        }
    }
    let required = entries.iter().filter(|entry| entry.ret != NEVER).count();
    let placed = order.iter().filter(|index| entries[**index as usize].ret != NEVER).count();
    (placed == required).then_some(order)
}
