//! What must come before what, as far as reads and sessions show.
//!
//! Everything rests on vector clocks: for every transaction, how much of each session lies in its past. They
//! are kept only while a later transaction still needs them. Two rules then add order between writers of one
//! key; in both, t3 read x from t1, and t2 is another writer of x:
//!
//! - *arbitration*: if t2 is in the past of t3, then t2 comes before t1, or t3 would have read t2's value;
//! - *anti-dependency*: if t1 is in the past of t2, then t3 comes before t2.
//!
//! Of each session, only the latest writer in somebody's past matters, since the session orders the others
//! before it. This is the algorithm of Møldrup and Pavlogiannis for causal consistency (AWDIT, PLDI 2025), which takes
//! time linear in the history times the number of sessions that write a key; applied again to its own results, with
//! both rules, it is a saturation for serializability (Biswas and Enea, OOPSLA 2019; Tan et al., OSDI 2020).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::answer::{Link, Reason};
use crate::graph::Graph;
use crate::history::History;
use crate::observed::{Observed, Read};

/// Why one transaction must come before another, beyond sessions and reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Because {
    /// `reader` read `key` from the later one, with the earlier one in its past.
    Arbitration { reader: u32, key: u32 },
    /// The earlier one read a value of `key` that the later one replaced. `from`: whose value it was.
    Replaced { from: Option<u32>, key: u32 },
}

/// Which rules apply.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) arbitration: Readers,
    pub(crate) anti_dependency: bool,
}

/// Whose reads speak.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    All,
    /// Those of this chain.
    Of(u32),
}

pub(crate) type Inferred = HashMap<(u32, u32), Because>;

/// What one pass came to.
pub(crate) enum Pass {
    /// How many new pairs were found.
    Added(usize),
    /// What was known already is contradictory.
    Cycle(Vec<u32>),
    /// The initial value of a key was read, by the second, with a write of it, the first, in its past.
    Late(u32, u32, u32),
    /// Clocks would take more than the budget of bytes.
    TooLarge,
}

/// Writers of each key by chain, each chain in its order.
pub(crate) struct Writers(pub(crate) Vec<Vec<(u32, Vec<u32>)>>);

impl Writers {
    pub(crate) fn of(observed: &Observed) -> Writers {
        let mut by_key: Vec<Vec<(u32, Vec<u32>)>> = vec![Vec::new(); observed.keys.len()];
        let mut pairs: Vec<(u32, u32, u32, u32)> = Vec::new();
        for (index, transaction) in (0..).zip(&observed.transactions) {
            pairs.extend(
                transaction.writes.iter().map(|key| (*key, transaction.chain, transaction.place, index)),
            );
        }
        pairs.sort_unstable();
        for (key, chain, _, index) in pairs {
            let chains = &mut by_key[key as usize];
            match chains.last_mut().filter(|(last, _)| *last == chain) {
                Some((_, writers)) => writers.push(index),
                None => chains.push((chain, vec![index])),
            }
        }
        Writers(by_key)
    }
}

/// Vector clocks of the transactions that are still needed.
struct Clocks {
    width: usize,
    rows: Vec<Option<Box<[u32]>>>,
    spare: Vec<Box<[u32]>>,
    live: usize,
}

impl Clocks {
    fn take(&mut self) -> Box<[u32]> {
        self.live += 1;
        match self.spare.pop() {
            Some(mut row) => {
                row.fill(0);
                row
            }
            None => vec![0; self.width].into(),
        }
    }

    fn free(&mut self, node: u32) {
        self.live -= 1;
        self.spare.extend(self.rows[node as usize].take());
    }
}

/// One pass over all transactions, in an order that respects `known` (and the sessions and reads, if they
/// are in it). New pairs are added to `inferred`. `known` may have more nodes than there are transactions:
/// moments in time, which only pass the past on.
pub(crate) fn pass(
    observed: &Observed,
    writers: &Writers,
    known: &Graph,
    rules: Rules,
    inferred: &mut Inferred,
    bytes_max: usize,
) -> Pass {
    let count = observed.transactions.len();
    let mut waits = vec![0u32; known.nodes()];
    for node in 0..known.nodes() as u32 {
        known.next(node).iter().for_each(|target| waits[*target as usize] += 1);
    }
    // Whose clocks a node waits for, found by walking the edges backwards.
    let back =
        (0..known.nodes() as u32).flat_map(|node| known.next(node).iter().map(move |target| (*target, node)));
    let back = Graph::new(known.nodes(), back);
    let mut needed: Vec<u32> = (0..known.nodes() as u32).map(|node| known.next(node).len() as u32).collect();
    let mut clocks =
        Clocks { width: observed.chains, rows: vec![None; known.nodes()], spare: Vec::new(), live: 0 };
    let readers = if rules.anti_dependency { readers(observed) } else { HashMap::new() };
    let mut ready: BinaryHeap<Reverse<u32>> =
        (0..known.nodes() as u32).filter(|node| waits[*node as usize] == 0).map(Reverse).collect();
    let (mut done, before) = (0, inferred.len());
    while let Some(Reverse(node)) = ready.pop() {
        done += 1;
        let mut row = clocks.take();
        if (clocks.live + clocks.spare.len()).saturating_mul(clocks.width * 4) > bytes_max {
            return Pass::TooLarge;
        }
        for from in back.next(node) {
            let past = clocks.rows[*from as usize].as_ref().expect("kept until nobody waits for it");
            row.iter_mut().zip(past.iter()).for_each(|(own, past)| *own = (*own).max(*past));
        }
        if (node as usize) < count {
            let chain = observed.transactions[node as usize].chain;
            if (rules.arbitration == Readers::All || rules.arbitration == Readers::Of(chain))
                && let Some((writer, key)) = arbitrate(observed, writers, node, &row, &clocks, inferred)
            {
                return Pass::Late(writer, node, key);
            }
            if rules.anti_dependency {
                replace(observed, writers, &readers, node, &row, inferred);
            }
            let transaction = &observed.transactions[node as usize];
            row[transaction.chain as usize] = transaction.place + 1;
        }
        clocks.rows[node as usize] = Some(row);
        for from in back.next(node) {
            needed[*from as usize] -= 1;
            if needed[*from as usize] == 0 {
                clocks.free(*from);
            }
        }
        if needed[node as usize] == 0 {
            clocks.free(node);
        }
        for target in known.next(node) {
            waits[*target as usize] -= 1;
            if waits[*target as usize] == 0 {
                ready.push(Reverse(*target));
            }
        }
    }
    if done < known.nodes() {
        return Pass::Cycle(known.cycle().expect("what could not be sorted has a cycle"));
    }
    Pass::Added(inferred.len() - before)
}

/// The latest writer of a chain in a past.
fn latest(observed: &Observed, writers: &[u32], seen: u32) -> Option<u32> {
    let within = writers.partition_point(|writer| observed.transactions[*writer as usize].place < seen);
    within.checked_sub(1).map(|last| writers[last])
}

/// Adds what `node` shows about writers in its past. A write that precedes a read of the initial value is
/// given back, with the key.
fn arbitrate(
    observed: &Observed,
    writers: &Writers,
    node: u32,
    row: &[u32],
    clocks: &Clocks,
    inferred: &mut Inferred,
) -> Option<(u32, u32)> {
    for Read { key, from } in &observed.transactions[node as usize].reads {
        let past = from.and_then(|from| clocks.rows[from as usize].as_deref());
        for (chain, own) in &writers.0[*key as usize] {
            let seen = row[*chain as usize];
            let Some(other) = (seen > 0).then(|| latest(observed, own, seen)).flatten() else { continue };
            let Some(from) = from else { return Some((other, *key)) };
            let place = observed.transactions[other as usize].place;
            let implied = past.is_some_and(|past| past[*chain as usize] > place);
            if other != *from && other != node && !implied {
                inferred.entry((other, *from)).or_insert(Because::Arbitration { reader: node, key: *key });
            }
        }
    }
    None
}

type ReadersOf = HashMap<(Option<u32>, u32), Vec<u32>>;

fn readers(observed: &Observed) -> ReadersOf {
    let mut readers = ReadersOf::new();
    for (index, transaction) in (0..).zip(&observed.transactions) {
        for read in &transaction.reads {
            readers.entry((read.from, read.key)).or_default().push(index);
        }
    }
    readers
}

fn replace(
    observed: &Observed,
    writers: &Writers,
    readers: &ReadersOf,
    node: u32,
    row: &[u32],
    inferred: &mut Inferred,
) {
    for key in &observed.transactions[node as usize].writes {
        let replaced = writers.0[*key as usize].iter().filter_map(|(chain, own)| {
            let seen = row[*chain as usize];
            (seen > 0).then(|| latest(observed, own, seen)).flatten().map(Some)
        });
        for from in replaced.chain([None]) {
            for reader in readers.get(&(from, *key)).into_iter().flatten() {
                let transaction = &observed.transactions[*reader as usize];
                let implied = row[transaction.chain as usize] > transaction.place;
                if *reader != node && !implied {
                    inferred.entry((*reader, node)).or_insert(Because::Replaced { from, key: *key });
                }
            }
        }
    }
}

/// A cycle of transactions in words.
pub(crate) fn reason(history: &History, observed: &Observed, cycle: &[u32], inferred: &Inferred) -> Reason {
    // Moments in time are no operations; what stands around them did not overlap.
    let own: Vec<u32> =
        cycle.iter().copied().filter(|node| (*node as usize) < observed.transactions.len()).collect();
    let operation = |node: u32| observed.transactions[node as usize].operation;
    let pairs = own.iter().zip(own.iter().cycle().skip(1));
    let links = pairs.map(|(from, to)| Link {
        from: operation(*from),
        to: operation(*to),
        why: why(history, observed, *from, *to, inferred),
    });
    let links: Vec<Link> = links.collect();
    let mut operations: Vec<_> = own.iter().map(|node| operation(*node)).collect();
    operations.sort();
    operations.dedup();
    let words = match operations.len() {
        1 => "It would have to come before itself.".to_owned(),
        count => format!(
            "Each of these {count} would have to come before the next, and the last before the first."
        ),
    };
    Reason { operations, minimal: false, links, words }
}

/// What must come before what, as reads say, and sessions if they count.
pub(crate) fn links(history: &History, observed: &Observed, sessions: bool) -> Vec<Link> {
    let operation = |node: u32| observed.transactions[node as usize].operation;
    let all = || (0..).zip(&observed.transactions);
    let mut inferred = Inferred::new();
    for (reader, transaction) in all() {
        for Read { key, .. } in transaction.reads.iter().filter(|read| read.from.is_none()) {
            let writers = all().filter(|(writer, other)| *writer != reader && other.writes.contains(key));
            inferred.extend(
                writers.map(|(writer, _)| ((reader, writer), Because::Replaced { from: None, key: *key })),
            );
        }
    }
    let read = |(from, to): &(u32, u32)| {
        observed.transactions[*to as usize].reads.iter().any(|read| read.from == Some(*from))
    };
    let mut pairs: Vec<(u32, u32)> = observed.causes().filter(|pair| sessions || read(pair)).collect();
    pairs.extend(inferred.keys());
    pairs.sort_unstable();
    pairs.dedup();
    let link = |(from, to): (u32, u32)| Link {
        from: operation(from),
        to: operation(to),
        why: why(history, observed, from, to, &inferred),
    };
    pairs.into_iter().map(link).collect()
}

fn why(history: &History, observed: &Observed, from: u32, to: u32, inferred: &Inferred) -> String {
    let (first, second) = (&observed.transactions[from as usize], &observed.transactions[to as usize]);
    if let Some(read) = second.reads.iter().find(|read| read.from == Some(from)) {
        return format!("the second read what the first wrote to {:?}", observed.keys[read.key as usize]);
    }
    let name = |node: u32| {
        let operation = &history.operations[observed.transactions[node as usize].operation.0];
        format!("operation {} of {}", operation.id, operation.client)
    };
    match inferred.get(&(from, to)) {
        Some(Because::Arbitration { reader, key }) => format!(
            "{} read {:?} from the second although it already followed the first, which wrote it too",
            name(*reader),
            observed.keys[*key as usize]
        ),
        Some(Because::Replaced { from: None, key }) => format!(
            "the first read {:?} before anybody wrote it, and the second wrote it",
            observed.keys[*key as usize]
        ),
        Some(Because::Replaced { from: Some(writer), key }) => format!(
            "the first read {:?} from {}, and the second replaced that value",
            observed.keys[*key as usize],
            name(*writer)
        ),
        None if first.ret < second.invoke && first.chain != second.chain => {
            "the first returned before the second was invoked".into()
        }
        None => "both are of one session, in this order".into(),
    }
}
