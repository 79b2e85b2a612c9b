//! Linearizability of a queue whose values are each put in once, in O(n log n).
//!
//! A history is *not* linearizable if it shows one of four patterns (Henzinger, Sezgin and Vafeiadis, "Aspect-oriented
//! linearizability proofs", CONCUR 2013; Bouajjani, Emmi, Enea and Hamza, ICALP 2015):
//!
//! 1. a value is taken that nobody put, or taken before it was put;
//! 2. a value is taken twice;
//! 3. x was put before y, and y taken before x, or x never;
//! 4. nothing is found although, throughout, some value certainly was in the queue.
//!
//! Where none of them shows, an order of the values is built: x goes before y if its put, or its take, returned
//! before that of y was invoked. An answer "empty" counts as a value that is put and taken at one moment at
//! which nothing need be in the queue. Along that order every put and take is placed as early as possible.
//! Both sides are checked apart from each other, so that neither rests on the completeness of the patterns: the
//! order is replayed before it is given out, and what neither shows is left to the search.
//!
//! Unknown outcomes: a put that nobody saw taken is left out (as an element nobody takes, it could only be in the way). A put
//! that was taken took effect before its take returned. A *take* of unknown outcome cannot simply be left
//! out: it may have taken a value that is missing now. An order without it is still an order; but patterns 3
//! and 4 count against the history only where no such take could have removed the value.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use serde_json::Value;

use crate::model::{Entry, NEVER, Sequence, SequenceOp, Shortcut};
use crate::search::WordHasher;

/// A value, or an answer "empty", with the moments between which it was put and taken.
#[derive(Clone, Copy)]
struct Element {
    put: Option<u32>,
    take: Option<u32>,
    put_invoke: u64,
    put_return: u64,
    take_invoke: u64,
    take_return: u64,
}

/// Decides a queue. Does not apply where a value is put in twice.
pub(crate) fn decide(entries: &[Entry<Sequence>]) -> Shortcut {
    let mut of_value: HashMap<&Value, u32, BuildHasherDefault<WordHasher>> = HashMap::default();
    let mut elements = Vec::with_capacity(entries.len() / 2 + 1);
    for (index, entry) in (0..).zip(entries) {
        let SequenceOp::Put(_, value) = &entry.op else { continue };
        if of_value.insert(value, elements.len() as u32).is_some() {
            return Shortcut::None;
        }
        elements.push(Element {
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
                let Some(at) = of_value.get(value) else { return Shortcut::Contradiction(vec![index]) };
                let element = &mut elements[*at as usize];
                if element.take.is_some() || entry.ret < element.put_invoke {
                    return contradiction([element.put, element.take, Some(index)]);
                }
                element.take = Some(index);
                (element.take_invoke, element.take_return) = (entry.invoke, entry.ret);
                element.put_return = element.put_return.min(entry.ret);
            }
        }
    }
    elements.retain(|element| element.take.is_some() || element.put_return != NEVER);
    match out_of_order(&elements, unknown_takes) {
        Shortcut::None => {}
        found => return found,
    }
    match place_empties(entries, &mut elements, &empties, unknown_takes) {
        Shortcut::None => {}
        found => return found,
    }
    sorted(&elements)
        .and_then(|order| replayed(entries, schedule(&order)))
        .map_or(Shortcut::None, Shortcut::Order)
}

fn contradiction<const N: usize>(kept: [Option<u32>; N]) -> Shortcut {
    let mut kept: Vec<u32> = kept.into_iter().flatten().collect();
    kept.sort_unstable();
    Shortcut::Contradiction(kept)
}

/// Pattern 3. Among what was put before, the value that was taken latest decides.
fn out_of_order(elements: &[Element], unknown_takes: bool) -> Shortcut {
    let mut by_return: Vec<&Element> = elements.iter().collect();
    by_return.sort_unstable_by_key(|element| element.put_return);
    let mut by_invoke: Vec<&Element> = elements.iter().filter(|element| element.take.is_some()).collect();
    by_invoke.sort_unstable_by_key(|element| element.put_invoke);
    let mut before = by_return.into_iter().peekable();
    let (mut latest_taken, mut missing): (Option<&Element>, Option<&Element>) = (None, None);
    for later in by_invoke {
        while let Some(earlier) = before.next_if(|earlier| earlier.put_return < later.put_invoke) {
            if earlier.take.is_none() {
                missing = missing.or(Some(earlier));
            } else if latest_taken.is_none_or(|known| known.take_invoke < earlier.take_invoke) {
                latest_taken = Some(earlier);
            }
        }
        if let Some(earlier) = latest_taken.filter(|earlier| later.take_return < earlier.take_invoke) {
            return contradiction([earlier.put, earlier.take, later.put, later.take]);
        }
        // Somebody whose take has no known outcome may have it.
        if let Some(earlier) = missing.filter(|_| !unknown_takes) {
            return contradiction([earlier.put, None, later.put, later.take]);
        }
    }
    Shortcut::None
}

/// Pattern 4: finds a moment for every answer "empty", and adds it as an element.
fn place_empties(
    entries: &[Entry<Sequence>],
    elements: &mut Vec<Element>,
    empties: &[u32],
    unknown_takes: bool,
) -> Shortcut {
    if empties.is_empty() {
        return Shortcut::None;
    }
    // From the return of its put to the invocation of its take, a value certainly is in the queue.
    let mut certain: Vec<&Element> =
        elements.iter().filter(|element| element.put_return < element.take_invoke).collect();
    certain.sort_unstable_by_key(|element| element.put_return);
    let mut covers: Vec<(u64, u64, usize)> = Vec::new();
    for (at, element) in certain.iter().enumerate() {
        match covers.last_mut().filter(|cover| element.put_return < cover.1) {
            Some(cover) => cover.1 = cover.1.max(element.take_invoke),
            None => covers.push((element.put_return, element.take_invoke, at)),
        }
    }
    let mut moments = Vec::with_capacity(empties.len());
    for index in empties {
        let Entry { invoke, ret, .. } = &entries[*index as usize];
        let after = covers.partition_point(|cover| cover.0 < *invoke);
        moments.push(match after.checked_sub(1).map(|last| covers[last]) {
            Some((_, end, _)) if end > *ret && unknown_takes => return Shortcut::None,
            Some((_, end, first)) if end > *ret => return chain(&certain[first..], *index, *invoke, *ret),
            Some((_, end, _)) if end > *invoke => end,
            _ => *invoke,
        });
    }
    elements.extend(empties.iter().zip(moments).map(|(index, at)| Element {
        put: None,
        take: Some(*index),
        put_invoke: at,
        put_return: at,
        take_invoke: at,
        take_return: at,
    }));
    Shortcut::None
}

/// The fewest values that together cover an answer "empty" from its invocation to its return.
fn chain(certain: &[&Element], index: u32, invoke: u64, ret: u64) -> Shortcut {
    let mut kept = vec![index];
    let (mut covered, mut rest) = (invoke, certain.iter().peekable());
    while covered < ret {
        let mut best: Option<&Element> = None;
        while let Some(element) = rest.next_if(|element| element.put_return < covered) {
            if best.is_none_or(|known| known.take_invoke < element.take_invoke) {
                best = Some(element);
            }
        }
        let Some(best) = best.filter(|best| best.take_invoke > covered) else { return Shortcut::None };
        kept.extend([best.put, best.take].into_iter().flatten());
        covered = best.take_invoke;
    }
    kept.sort_unstable();
    Shortcut::Contradiction(kept)
}

/// The elements such that none stands before one whose put or take had returned when its own was invoked.
/// An element may come next once its put was invoked before the earliest return, and its take before the earliest
/// return of a take, among all that remain; both only grow. `None`: there is no such order.
fn sorted(elements: &[Element]) -> Option<Vec<Element>> {
    let by = |key: fn(&Element) -> u64| {
        let mut indices: Vec<u32> = (0..elements.len() as u32).collect();
        indices.sort_unstable_by_key(|index| key(&elements[*index as usize]));
        indices
    };
    let (by_put_invoke, by_put_return, by_take_return) = (
        by(|element| element.put_invoke),
        by(|element| element.put_return),
        by(|element| element.take_return),
    );
    let mut removed = vec![false; elements.len()];
    let (mut arrivals, mut put_at, mut take_at) = (by_put_invoke.into_iter().peekable(), 0, 0);
    let mut waiting: BinaryHeap<Reverse<(u64, u64, u32)>> = BinaryHeap::new();
    let mut order = Vec::with_capacity(elements.len());
    while order.len() < elements.len() {
        while removed[by_put_return[put_at] as usize] {
            put_at += 1;
        }
        while removed[by_take_return[take_at] as usize] {
            take_at += 1;
        }
        let take_returns = elements[by_take_return[take_at] as usize].take_return;
        let returns = elements[by_put_return[put_at] as usize].put_return.min(take_returns);
        while let Some(index) = arrivals.next_if(|index| elements[*index as usize].put_invoke <= returns) {
            let element = &elements[index as usize];
            waiting.push(Reverse((element.take_invoke, element.put_return, index)));
        }
        let Reverse((take_invoke, _, index)) = waiting.pop()?;
        if take_invoke > take_returns {
            return None;
        }
        removed[index as usize] = true;
        order.push(elements[index as usize]);
    }
    Some(order)
}

/// Puts and takes, each as early as the elements' order allows.
fn schedule(order: &[Element]) -> Vec<u32> {
    let (mut puts, mut takes) = (Vec::with_capacity(order.len()), Vec::with_capacity(order.len()));
    let (mut put_at, mut take_at) = (0, 0);
    for element in order {
        put_at = element.put_invoke.max(put_at);
        take_at = element.take_invoke.max(take_at).max(put_at);
        puts.push(put_at);
        takes.push(take_at);
    }
    let mut operations = Vec::with_capacity(order.len() * 2);
    let (mut put, mut take) = (0, 0);
    while take < order.len() {
        if put < order.len() && (puts[put], put) <= (takes[take], take) {
            operations.extend(order[put].put);
            put += 1;
        } else {
            operations.extend(order[take].take);
            take += 1;
        }
    }
    operations
}

/// The order, if it is one: replayed on a queue, with every operation in its interval.
fn replayed(entries: &[Entry<Sequence>], order: Vec<u32>) -> Option<Vec<u32>> {
    let mut queue: VecDeque<&Value> = VecDeque::new();
    let mut latest_invoke = 0;
    for index in &order {
        let entry = &entries[*index as usize];
        if entry.ret < latest_invoke {
            return None;
        }
        latest_invoke = latest_invoke.max(entry.invoke);
        match (&entry.op, &entry.answer) {
            (SequenceOp::Put(_, value), _) => queue.push_back(value),
            (SequenceOp::Take(_), answer) => {
                let taken = queue.pop_front().unwrap_or(&Value::Null);
                if answer.as_ref() != Some(taken) {
                    return None;
                }
            }
        }
    }
    let required = entries.iter().filter(|entry| entry.ret != NEVER).count();
    let placed = order.iter().filter(|index| entries[**index as usize].ret != NEVER).count();
    (placed == required).then_some(order)
}
