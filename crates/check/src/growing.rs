//! Linearizability of a set that only grows and is read as a whole, in time about linear in its answers.
//!
//! Each value is added by one operation. Reads of a growing set are ordered by inclusion, and the additions
//! between two of them are exactly those of the values in which they differ. So the order is fixed up to
//! *groups*: equal reads, and the additions first seen by them. The history is linearizable if and only if every read is within the
//! next larger one and nothing that comes later in this order returned before something earlier was invoked. Additions
//! of one group commute, and its reads, which come after them, are equal: among themselves they keep the order of invocation.
//!
//! An addition of unknown outcome that nobody saw is left out; one that was seen took effect, and has no
//! return that anybody could contradict. One that succeeded and was seen by no read comes after all of them.

use std::collections::{BTreeSet, HashMap};

use crate::model::{Entry, NEVER, Set, SetAnswer, SetOp, Shortcut};

/// Decides a set. Does not apply where something is removed, asked for alone, or added twice.
pub(crate) fn decide(initial: &BTreeSet<String>, entries: &[Entry<Set>]) -> Shortcut {
    let mut adds: HashMap<&str, u32> = HashMap::new();
    let mut reads: Vec<(u32, &BTreeSet<String>)> = Vec::new();
    for (index, entry) in (0..).zip(entries) {
        match (&entry.op, &entry.answer) {
            (SetOp::Add(_), Some(SetAnswer::Was(Some(false)))) => return Shortcut::None,
            (SetOp::Add(value), _) => {
                if initial.contains(value) || adds.insert(value, index).is_some() {
                    return Shortcut::None;
                }
            }
            (SetOp::Read, Some(SetAnswer::All(seen))) => reads.push((index, seen)),
            (SetOp::Read, _) => {}
            _ => return Shortcut::None,
        }
    }
    if reads.is_empty() {
        return Shortcut::None;
    }
    reads.sort_by_key(|(index, seen)| (seen.len(), *index));
    let mut groups: Vec<Group<'_>> = vec![Group { seen: initial, adds: Vec::new(), reads: Vec::new() }];
    let mut group_of: HashMap<&str, usize> = HashMap::new();
    for (read, seen) in reads {
        let last = groups.len() - 1;
        if let Some(missing) = groups[last].seen.iter().find(|value| !seen.contains(*value)) {
            let other = seen.iter().find(|value| !groups[last].seen.contains(*value));
            let values =
                [Some(missing), other].into_iter().flatten().filter_map(|value| adds.get(value.as_str()));
            let kept = values.chain(groups[last].reads.first()).chain([&read]);
            return contradiction(kept.copied());
        }
        if seen.len() > groups[last].seen.len() {
            let mut new = Vec::new();
            for value in seen.iter().filter(|value| !groups[last].seen.contains(*value)) {
                let Some(add) = adds.get(value.as_str()) else { return Shortcut::Contradiction(vec![read]) };
                group_of.insert(value, groups.len());
                new.push(*add);
            }
            groups.push(Group { seen, adds: new, reads: Vec::new() });
        }
        groups.last_mut().expect("never empty").reads.push(read);
    }
    let unseen = adds
        .iter()
        .filter(|(value, index)| !group_of.contains_key(**value) && entries[**index as usize].ret != NEVER);
    let last = groups.last().expect("never empty").seen;
    let unseen = unseen.map(|(_, index)| *index).collect();
    groups.push(Group { seen: last, adds: unseen, reads: Vec::new() });
    order(entries, &groups)
}

/// Reads that saw the same, and the additions first seen by them.
struct Group<'a> {
    seen: &'a BTreeSet<String>,
    adds: Vec<u32>,
    reads: Vec<u32>,
}

fn order(entries: &[Entry<Set>], groups: &[Group<'_>]) -> Shortcut {
    let mut order = Vec::with_capacity(entries.len());
    let mut latest: Option<(u64, u32, usize)> = None;
    for at in 0..groups.len() {
        for mut own in [groups[at].adds.clone(), groups[at].reads.clone()] {
            own.sort_by_key(|index| entries[*index as usize].invoke);
            let early =
                |index: &&u32| latest.is_some_and(|(invoke, ..)| entries[**index as usize].ret < invoke);
            if let Some(index) = own.iter().find(early) {
                return out_of_order(groups, at, *index, latest.expect("compared above"));
            }
            if let Some(last) = own.last() {
                latest = latest.max(Some((entries[*last as usize].invoke, *last, at)));
            }
            order.extend(own);
        }
    }
    Shortcut::Order(order)
}

/// `index` belongs to a later group than `other`, but returned before it was invoked. Shown by what a read
/// of the earlier group lacks, and an addition that the later one has.
fn out_of_order(groups: &[Group<'_>], at: usize, index: u32, latest: (u64, u32, usize)) -> Shortcut {
    let (_, other, earlier) = latest;
    let mut kept = vec![index, other];
    kept.extend(groups[earlier].reads.first());
    kept.extend(groups[at].reads.first());
    kept.extend(groups[earlier + 1..=at].iter().filter_map(|group| group.adds.first()));
    contradiction(kept.into_iter())
}

fn contradiction(kept: impl Iterator<Item = u32>) -> Shortcut {
    let mut kept: Vec<u32> = kept.collect();
    kept.sort_unstable();
    kept.dedup();
    Shortcut::Contradiction(kept)
}
