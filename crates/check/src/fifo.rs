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
//! Unknown outcomes: of puts, see [`crate::elements`]. A *take* of unknown outcome cannot simply be left
//! out: it may have taken a value that is missing now. An order without it is still an order; but patterns 3
//! and 4 count against the history only where no such take could have removed the value.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::elements::{Element, Elements, contradiction, replayed};
use crate::model::{Entry, Sequence, Shortcut};

/// Decides a queue. Does not apply where a value is put in twice.
pub(crate) fn decide(entries: &[Entry<Sequence>]) -> Shortcut {
    let mut elements = match Elements::of(entries) {
        Ok(elements) => elements,
        Err(found) => return found,
    };
    if let Some(found) = out_of_order(&elements) {
        return found;
    }
    match elements.quiet_moments(entries) {
        Ok(moments) => elements.all.extend(elements.empties.iter().zip(moments).map(empty)),
        Err(_) if elements.unknown_takes => return Shortcut::None,
        Err(kept) => return Shortcut::Contradiction(kept),
    }
    sorted(&elements.all)
        .and_then(|order| replayed(Sequence::Queue, entries, schedule(&order)))
        .map_or(Shortcut::None, Shortcut::Order)
}

/// An answer "empty" as an element that is put and taken at one moment.
fn empty((index, at): (&u32, u64)) -> Element {
    let take = Some(*index);
    Element { put: None, take, put_invoke: at, put_return: at, take_invoke: at, take_return: at }
}

/// Pattern 3. Among what was put before, the value that was taken latest decides.
fn out_of_order(elements: &Elements) -> Option<Shortcut> {
    let Elements { all: elements, unknown_takes, .. } = elements;
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
            return Some(contradiction([earlier.put, earlier.take, later.put, later.take]));
        }
        // Somebody whose take has no known outcome may have it.
        if let Some(earlier) = missing.filter(|_| !*unknown_takes) {
            return Some(contradiction([earlier.put, None, later.put, later.take]));
        }
    }
    None
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
