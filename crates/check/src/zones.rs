//! Linearizability of a register whose values are each written once, in O(n log n).
//!
//! Gibbons and Korach, "Testing Shared Memories" (SIAM J. Comput. 1997), section 4. A *cluster* is a write
//! and the reads that saw its value. In any linearization a cluster is one unbroken run, so it has a
//! *zone*: from the earliest return to the latest invocation in it, if the former comes first (a *forward*
//! zone: the value is certainly there throughout), and the other way round otherwise (a *backward* zone: all of the
//! cluster may happen at any one moment within). The history is linearizable if and only if
//!
//! 1. every value read was written, by a write invoked before the read returned,
//! 2. no two forward zones overlap, and
//! 3. no backward zone lies within a forward zone.
//!
//! The initial value is a write that returned before everything else.
//!
//! Operations of unknown outcome: a read says nothing and is left out. A write that nobody read is left
//! out: between it and the next write there is no read, so nobody notices. A write that was read took
//! effect, before the first such read returned; with its own return at infinity the zone's earliest
//! return is just that.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use serde_json::Value;

use crate::model::{Entry, KeyValue, KeyValueOp, NEVER, Shortcut};
use crate::search::WordHasher;

/// The cluster of each value.
type OfValue<'a> = HashMap<&'a Value, u32, BuildHasherDefault<WordHasher>>;

/// Who and when; the initial write is nobody, at 0. Moments are raised by one to make room for it.
type Event = (u64, Option<u32>);

struct Cluster {
    write: Option<u32>,
    write_invoke: u64,
    first_return: Event,
    last_invoke: Event,
    certain: bool,
}

impl Cluster {
    fn add(&mut self, entry: &Entry<KeyValue>, index: u32) {
        self.first_return = self.first_return.min((entry.ret.saturating_add(1), Some(index)));
        self.last_invoke = self.last_invoke.max((entry.invoke + 1, Some(index)));
        self.certain |= entry.ret != NEVER;
    }

    fn is_forward(&self) -> bool {
        self.first_return.0 < self.last_invoke.0
    }

    fn evidence(&self) -> impl Iterator<Item = u32> {
        [self.write, self.first_return.1, self.last_invoke.1].into_iter().flatten()
    }
}

/// Decides one register. Where a value is written twice, or something else than `get` and `put` is used, it only tells of values
/// that nobody wrote.
pub(crate) fn decide(initial: &Value, entries: &[Entry<KeyValue>]) -> Shortcut {
    let Some((mut clusters, of_value)) = writes(initial, entries) else { return unwritten(initial, entries) };
    let mut member = vec![u32::MAX; entries.len()];
    for (index, entry) in (0..).zip(entries) {
        match (&entry.op, &entry.answer) {
            (KeyValueOp::Put(_, value), _) => member[index as usize] = of_value[value],
            (_, Some(Some(seen))) => {
                let Some(cluster) = of_value.get(seen) else {
                    return Shortcut::Contradiction(vec![index]);
                };
                let found = &mut clusters[*cluster as usize];
                if entry.ret.saturating_add(1) < found.write_invoke {
                    return contradiction([Some(index), found.write].into_iter().flatten());
                }
                found.add(entry, index);
                member[index as usize] = *cluster;
            }
            // A read of unknown outcome.
            _ => {}
        }
    }
    drop(of_value);
    let mut forward: Vec<u32> = Vec::new();
    for (index, cluster) in (0..).zip(&clusters) {
        if cluster.certain && cluster.is_forward() {
            forward.push(index);
        }
    }
    forward.sort_unstable_by_key(|index| clusters[*index as usize].first_return.0);
    for pair in forward.windows(2) {
        let [first, second] = [&clusters[pair[0] as usize], &clusters[pair[1] as usize]];
        if second.first_return.0 < first.last_invoke.0 {
            return contradiction(first.evidence().chain(second.evidence()));
        }
    }
    // Forward zones are disjoint from here on, so at most one of them holds a given moment.
    let mut place = vec![(0, false); clusters.len()];
    for (index, cluster) in clusters.iter().enumerate().filter(|(_, cluster)| cluster.certain) {
        let starts = cluster.last_invoke.0;
        place[index] = (cluster.first_return.0, false);
        if cluster.is_forward() {
            continue;
        }
        let before = forward.partition_point(|index| clusters[*index as usize].first_return.0 < starts);
        let around = before.checked_sub(1).map(|last| &clusters[forward[last] as usize]);
        place[index] = match around {
            Some(around) if around.last_invoke.0 > cluster.first_return.0 => {
                return contradiction(around.evidence().chain(cluster.evidence()));
            }
            // Just after the forward zone that it reaches into, or as soon as all of it was invoked.
            Some(around) if around.last_invoke.0 > starts => (around.first_return.0, true),
            _ => (starts, true),
        };
    }
    Shortcut::Order(order(entries, &clusters, &member, &place))
}

/// What can be said without search where values repeat: nobody can read, or find by comparing, what nobody ever
/// wrote. Appending makes values of its own, so it must not occur.
fn unwritten(initial: &Value, entries: &[Entry<KeyValue>]) -> Shortcut {
    let mut written: HashSet<&Value, BuildHasherDefault<WordHasher>> = HashSet::default();
    written.insert(initial);
    for entry in entries {
        match &entry.op {
            KeyValueOp::Get(_) => {}
            KeyValueOp::Put(_, value) | KeyValueOp::Cas(_, _, value) => drop(written.insert(value)),
            KeyValueOp::Delete(_) => drop(written.insert(&Value::Null)),
            KeyValueOp::Append(..) => return Shortcut::None,
        }
    }
    let seen = |entry: &'_ Entry<KeyValue>| match (&entry.op, &entry.answer) {
        (KeyValueOp::Get(_), Some(Some(seen))) => written.contains(seen),
        (KeyValueOp::Cas(_, expect, _), Some(Some(Value::Bool(true)))) => written.contains(expect),
        _ => true,
    };
    match entries.iter().position(|entry| !seen(entry)) {
        Some(index) => Shortcut::Contradiction(vec![index as u32]),
        None => Shortcut::None,
    }
}

/// A cluster for every value that is written, and for the initial one. `None` if a value is written twice.
fn writes<'a>(initial: &'a Value, entries: &'a [Entry<KeyValue>]) -> Option<(Vec<Cluster>, OfValue<'a>)> {
    let mut clusters = Vec::with_capacity(entries.len() / 2 + 1);
    let start = (0, None);
    clusters.push(Cluster {
        write: None,
        write_invoke: 0,
        first_return: start,
        last_invoke: start,
        certain: true,
    });
    let mut of_value = HashMap::default();
    of_value.reserve(entries.len() / 2 + 1);
    of_value.insert(initial, 0);
    for (index, entry) in (0..).zip(entries) {
        match &entry.op {
            KeyValueOp::Get(_) => {}
            KeyValueOp::Put(_, value) => {
                if of_value.insert(value, clusters.len() as u32).is_some() {
                    return None;
                }
                let mut cluster = Cluster {
                    write: Some(index),
                    write_invoke: entry.invoke + 1,
                    first_return: (NEVER, None),
                    last_invoke: start,
                    certain: false,
                };
                cluster.add(entry, index);
                clusters.push(cluster);
            }
            _ => return None,
        }
    }
    Some((clusters, of_value))
}

fn contradiction(evidence: impl Iterator<Item = u32>) -> Shortcut {
    let mut kept: Vec<u32> = evidence.collect();
    kept.sort_unstable();
    kept.dedup();
    Shortcut::Contradiction(kept)
}

/// Clusters one after the other, each write before its reads, and reads in the order of invocation. Every
/// operation of a forward cluster can happen at its invocation or at the zone's start, whichever is later.
fn order(
    entries: &[Entry<KeyValue>],
    clusters: &[Cluster],
    member: &[u32],
    place: &[(u64, bool)],
) -> Vec<u32> {
    let mut keyed = Vec::with_capacity(entries.len());
    for (index, entry) in (0..).zip(entries) {
        let cluster = member[index as usize];
        if cluster != u32::MAX && clusters[cluster as usize].certain {
            let is_read = clusters[cluster as usize].write != Some(index);
            keyed.push((place[cluster as usize], cluster, is_read, entry.invoke, index));
        }
    }
    keyed.sort_unstable();
    keyed.into_iter().map(|(.., index)| index).collect()
}
