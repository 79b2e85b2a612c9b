//! One order of all transactions: sequential consistency, serializability with and without real time, and
//! snapshot isolation, where every value is written once.
//!
//! First saturation ([`crate::infer`]): what must come before what, until nothing new follows or a cycle shows.
//! Most histories that violate these models end here, with a short cycle. Otherwise transactions are placed one at a
//! time, depth first (Biswas and Enea, "On the Complexity of Checking Transactional Consistency", OOPSLA
//! 2019). A write may be placed only when everybody who read the value that it replaces is placed. So the
//! set of placed transactions determines the current value of every key, and sets that failed are remembered by
//! themselves.
//!
//! For snapshot isolation a transaction is two steps: it begins, and reads what was committed; it commits. Between
//! the two nobody else may commit a write of a key that it writes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasherDefault;

use crate::answer::Answer;
use crate::causal::initial_reason;
use crate::graph::Graph;
use crate::history::History;
use crate::infer::{Because, Inferred, Pass, Readers, Rules, Writers, pass, reason};
use crate::linearizable::Limits;
use crate::model::NEVER;
use crate::observed::Observed;
use crate::search::WordHasher;

/// Passes of saturation at the most; each one that finds nothing new is the last anyway.
const PASSES_MAX: usize = 12;
/// How often the stop callback is asked, in steps.
const STOP_INTERVAL: u64 = 256;

/// Which order is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whether what returned before something else was invoked comes before it.
    pub(crate) real_time: bool,
    /// Whether transactions may read from a snapshot, and only writes conflict.
    pub(crate) snapshots: bool,
}

/// Looks for an order. Sessions count as far as `observed` has them.
pub(crate) fn decide(
    history: &History,
    observed: &Observed,
    wanted: Wanted,
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Answer {
    if let Some(found) = observed.broken() {
        return Answer::No(found.clone());
    }
    let inferred = match saturate(history, observed, wanted, limits.bytes_max / 2) {
        Ok(inferred) => inferred,
        Err(answer) => return *answer,
    };
    let mut search = Search::new(observed, wanted, &inferred);
    match search.run(limits, stop) {
        Outcome::Found => {
            let order = search.placed.iter().filter_map(|(step, _)| search.transaction_of(*step));
            let order = order.map(|node| observed.transactions[node as usize].operation).collect();
            Answer::ordered(order, "one order of all explains every read")
        }
        Outcome::Impossible => {
            let words = match search.furthest {
                Some(node) => {
                    let operation = &history.operations[observed.transactions[node as usize].operation.0];
                    format!(
                        "Every order was tried. None comes further than operation {} of {}, which then cannot be placed.",
                        operation.id, operation.client
                    )
                }
                None => "Every order was tried, and none explains all reads.".into(),
            };
            let operations = search.furthest.map(|node| observed.transactions[node as usize].operation);
            let operations = operations.into_iter().collect();
            Answer::No(crate::answer::Reason { operations, minimal: false, links: Vec::new(), words })
        }
        Outcome::Spent(what) => Answer::Unknown(format!(
            "{what}; no cycle follows from what was read, and {} of {} transactions were put in order",
            search.most_placed / search.steps_each,
            observed.transactions.len()
        )),
    }
}

/// Pairs that must be in this order in any order asked for, or the cycle that they form.
fn saturate(
    history: &History,
    observed: &Observed,
    wanted: Wanted,
    bytes_max: usize,
) -> Result<Inferred, Box<Answer>> {
    let count = observed.transactions.len();
    let writers = Writers::of(observed);
    let mut inferred = Inferred::new();
    let moments = if wanted.real_time { real_time(observed) } else { (0, Vec::new()) };
    let (nodes, moments) = (count + moments.0, moments.1);
    let rules = Rules { arbitration: Readers::All, anti_dependency: !wanted.snapshots };
    for _ in 0..PASSES_MAX {
        let edges = observed.causes().chain(moments.iter().copied()).chain(inferred.keys().copied());
        let known = Graph::new(nodes, edges);
        match pass(observed, &writers, &known, rules, &mut inferred, bytes_max) {
            Pass::Cycle(cycle) => {
                return Err(Box::new(Answer::No(reason(history, observed, &cycle, &inferred))));
            }
            Pass::Late(writer, reader, key) => {
                return Err(Box::new(Answer::No(initial_reason(history, observed, writer, reader, key))));
            }
            // Everything found so far is sound, and the search needs none of it to be complete.
            Pass::TooLarge | Pass::Added(0) => break,
            Pass::Added(_) => {}
        }
    }
    Ok(inferred)
}

/// Real time as edges, linear in number: a line of moments, one after each return, which a transaction reaches when it
/// returns, and which reaches those invoked later (after Elle, VLDB 2020).
pub(crate) fn real_time(observed: &Observed) -> (usize, Vec<(u32, u32)>) {
    let times = observed.transactions.iter().map(|transaction| (transaction.invoke, transaction.ret));
    moments(times)
}

/// As above, of intervals.
pub(crate) fn moments(times: impl Iterator<Item = (u64, u64)>) -> (usize, Vec<(u32, u32)>) {
    let mut events: Vec<(u64, bool, u32)> = Vec::new();
    let mut count = 0;
    for (invoke, ret) in times {
        events.push((invoke, false, count));
        if ret != NEVER {
            events.push((ret, true, count));
        }
        count += 1;
    }
    events.sort_unstable();
    let mut edges = Vec::with_capacity(events.len() * 2);
    let mut latest: Option<u32> = None;
    let mut next = count;
    for (at, (_, returns, node)) in events.iter().enumerate() {
        if !returns {
            edges.extend(latest.map(|latest| (latest, *node)));
            continue;
        }
        // Returns with no invocation between them share one moment.
        let after_return = at > 0 && events[at - 1].1;
        if !after_return || latest.is_none() {
            edges.extend(latest.map(|latest| (latest, next)));
            latest = Some(next);
            next += 1;
        }
        edges.extend(latest.map(|latest| (*node, latest)));
    }
    ((next - count) as usize, edges)
}

enum Outcome {
    Found,
    Impossible,
    Spent(&'static str),
}

/// A version of a key: its initial value or one that a transaction wrote.
type Version = u32;

struct Step {
    reads: Vec<(u32, Version)>,
    writes: Vec<(u32, Version)>,
    /// Keys that nobody else may hold while this transaction is under way, for snapshot isolation.
    holds: Vec<u32>,
    frees: Vec<u32>,
    invoke: u64,
    ret: u64,
}

struct Search {
    steps: Vec<Step>,
    steps_each: usize,
    after: Vec<Vec<u32>>,
    waits: Vec<u32>,
    ready: BTreeSet<u32>,
    current: Vec<Version>,
    /// Steps not yet placed that read this version.
    pending: Vec<u32>,
    held: Vec<bool>,
    /// Steps in the order placed, with the versions that their writes replaced.
    placed: Vec<(u32, Vec<Version>)>,
    done: Vec<u64>,
    low: usize,
    by_return: Vec<u32>,
    earliest: usize,
    real_time: bool,
    failed: HashSet<Box<[u64]>, BuildHasherDefault<WordHasher>>,
    bytes: usize,
    most_placed: usize,
    furthest: Option<u32>,
}

impl Search {
    fn new(observed: &Observed, wanted: Wanted, inferred: &Inferred) -> Search {
        let count = observed.transactions.len();
        let mut versions: HashMap<(Option<u32>, u32), Version> = HashMap::new();
        let mut current = Vec::new();
        for key in 0..observed.keys.len() as u32 {
            versions.insert((None, key), key);
            current.push(key);
        }
        for (index, transaction) in (0..).zip(&observed.transactions) {
            for key in &transaction.writes {
                let next = versions.len() as Version;
                versions.insert((Some(index), *key), next);
            }
        }
        let mut pending = vec![0; versions.len()];
        let mut steps = Vec::new();
        for (index, transaction) in (0..).zip(&observed.transactions) {
            let reads = transaction.reads.iter().map(|read| (read.key, versions[&(read.from, read.key)]));
            let reads: Vec<(u32, Version)> = reads.collect();
            reads.iter().for_each(|(_, version)| pending[*version as usize] += 1);
            let writes =
                transaction.writes.iter().map(|key| (*key, versions[&(Some(index), *key)])).collect();
            let (invoke, ret) = (transaction.invoke, transaction.ret);
            let begin = Step { reads, writes, holds: Vec::new(), frees: Vec::new(), invoke, ret };
            if wanted.snapshots {
                let (keys, writes) = (transaction.writes.clone(), begin.writes);
                steps.push(Step { writes: Vec::new(), holds: keys.clone(), ..begin });
                steps.push(Step { reads: Vec::new(), writes, holds: Vec::new(), frees: keys, invoke, ret });
            } else {
                steps.push(begin);
            }
        }
        let each = if wanted.snapshots { 2 } else { 1 };
        let (mut after, mut waits) = (vec![Vec::new(); steps.len()], vec![0; steps.len()]);
        let mut edge = |from: u32, to: u32| {
            after[from as usize].push(to);
            waits[to as usize] += 1;
        };
        for (from, to) in observed.causes() {
            edge(from * each + each - 1, to * each);
        }
        for (from, to) in inferred.keys() {
            // For snapshot isolation these order commits.
            edge(from * each + each - 1, to * each + each - 1);
        }
        if wanted.snapshots {
            (0..count as u32).for_each(|node| edge(node * 2, node * 2 + 1));
        }
        let ready = (0..steps.len() as u32).filter(|step| waits[*step as usize] == 0).collect();
        let mut by_return: Vec<u32> = (0..steps.len() as u32).collect();
        by_return.sort_by_key(|step| steps[*step as usize].ret);
        Search {
            done: vec![0; steps.len() / 64 + 1],
            steps,
            steps_each: each as usize,
            after,
            waits,
            ready,
            current,
            pending,
            held: vec![false; observed.keys.len()],
            placed: Vec::new(),
            low: 0,
            by_return,
            earliest: 0,
            real_time: wanted.real_time,
            failed: HashSet::default(),
            bytes: 0,
            most_placed: 0,
            furthest: None,
        }
    }

    /// The transaction that takes effect with a step; none with the first of two.
    fn transaction_of(&self, step: u32) -> Option<u32> {
        let each = self.steps_each as u32;
        (step % each == each - 1).then_some(step / each)
    }

    fn run(&mut self, limits: &Limits, stop: &mut dyn FnMut() -> bool) -> Outcome {
        let (mut tried, mut spent) = (vec![0u32], 0u64);
        loop {
            if self.placed.len() == self.steps.len() {
                return Outcome::Found;
            }
            spent += 1;
            if spent > limits.configurations_max {
                return Outcome::Spent("the budget of configurations was spent");
            }
            if self.bytes > limits.bytes_max {
                return Outcome::Spent("the budget of memory was spent");
            }
            if spent.is_multiple_of(STOP_INTERVAL) && stop() {
                return Outcome::Spent("the caller stopped the search");
            }
            let from = *tried.last().expect("one for every step placed, and one");
            if let Some(step) = self.candidate(from) {
                *tried.last_mut().expect("as above") = step + 1;
                self.place(step);
                if self.failed.contains(&self.key()) {
                    self.undo();
                } else {
                    tried.push(0);
                }
                continue;
            }
            if self.placed.len() >= self.most_placed {
                self.most_placed = self.placed.len();
                self.furthest = self.ready.first().map(|step| step / self.steps_each as u32);
            }
            let key = self.key();
            self.bytes += key.len() * 8 + 48;
            self.failed.insert(key);
            tried.pop();
            if tried.is_empty() {
                return Outcome::Impossible;
            }
            self.undo();
        }
    }

    /// The next step, from this number on, that may be placed now.
    fn candidate(&self, from: u32) -> Option<u32> {
        let deadline = match self.real_time {
            true => self.by_return.get(self.earliest).map_or(NEVER, |step| self.steps[*step as usize].ret),
            false => NEVER,
        };
        let in_time = |step: &&u32| self.steps[**step as usize].invoke <= deadline;
        // Steps are in the order of invocation, so the first that is too late ends it.
        self.ready.range(from..).take_while(in_time).copied().find(|step| self.fits(*step))
    }

    fn fits(&self, step: u32) -> bool {
        let Step { reads, writes, holds, .. } = &self.steps[step as usize];
        reads.iter().all(|(key, version)| self.current[*key as usize] == *version)
            && holds.iter().all(|key| !self.held[*key as usize])
            && writes.iter().all(|(key, _)| {
                let replaced = self.current[*key as usize];
                let own = reads.iter().any(|(_, version)| *version == replaced);
                self.pending[replaced as usize] == u32::from(own)
            })
    }

    fn place(&mut self, step: u32) {
        let Step { reads, writes, holds, frees, .. } = &self.steps[step as usize];
        reads.iter().for_each(|(_, version)| self.pending[*version as usize] -= 1);
        holds.iter().for_each(|key| self.held[*key as usize] = true);
        frees.iter().for_each(|key| self.held[*key as usize] = false);
        let replaced = writes
            .iter()
            .map(|(key, version)| std::mem::replace(&mut self.current[*key as usize], *version))
            .collect();
        self.placed.push((step, replaced));
        self.done[step as usize / 64] |= 1 << (step % 64);
        self.ready.remove(&step);
        for later in &self.after[step as usize] {
            self.waits[*later as usize] -= 1;
            if self.waits[*later as usize] == 0 {
                self.ready.insert(*later);
            }
        }
        while self.low < self.done.len() && self.done[self.low] == u64::MAX {
            self.low += 1;
        }
        while self.by_return.get(self.earliest).is_some_and(|step| self.is_done(*step)) {
            self.earliest += 1;
        }
    }

    fn is_done(&self, step: u32) -> bool {
        self.done[step as usize / 64] & (1 << (step % 64)) != 0
    }

    fn undo(&mut self) {
        let Some((step, replaced)) = self.placed.pop() else { return };
        for later in &self.after[step as usize] {
            if self.waits[*later as usize] == 0 {
                self.ready.remove(later);
            }
            self.waits[*later as usize] += 1;
        }
        let Step { reads, writes, holds, frees, ret, .. } = &self.steps[step as usize];
        reads.iter().for_each(|(_, version)| self.pending[*version as usize] += 1);
        holds.iter().for_each(|key| self.held[*key as usize] = false);
        frees.iter().for_each(|key| self.held[*key as usize] = true);
        writes.iter().zip(replaced).for_each(|((key, _), version)| self.current[*key as usize] = version);
        let returns = self.by_return.partition_point(|other| self.steps[*other as usize].ret < *ret);
        self.earliest = self.earliest.min(returns);
        self.done[step as usize / 64] &= !(1 << (step % 64));
        self.low = self.low.min(step as usize / 64);
        self.ready.insert(step);
    }

    /// Which steps are placed, without the words at both ends that say nothing.
    fn key(&self) -> Box<[u64]> {
        let end =
            self.done.iter().rposition(|word| *word != 0).map_or(self.low, |last| (last + 1).max(self.low));
        let mut key = Vec::with_capacity(end - self.low + 1);
        key.push(self.low as u64);
        key.extend_from_slice(&self.done[self.low..end]);
        key.into()
    }
}

/// The same without sessions: every transaction for itself.
pub(crate) fn without_sessions(observed: &Observed) -> Observed {
    let mut observed = observed.clone();
    observed.chains = observed.transactions.len();
    for (index, transaction) in (0..).zip(&mut observed.transactions) {
        (transaction.chain, transaction.place, transaction.previous) = (index, 0, None);
    }
    observed
}

/// Read committed, for values written once (Biswas and Enea; AWDIT, PLDI 2025): nobody reads from what failed or was not final, and if a
/// transaction read from t2 and later read x from t1, and t2 wrote x as well, then t2 comes before t1.
pub(crate) fn read_committed(history: &History, observed: &Observed) -> Answer {
    if let Some(found) = observed.broken() {
        return Answer::No(found.clone());
    }
    let mut inferred = Inferred::new();
    for (index, transaction) in (0..).zip(&observed.transactions) {
        let mut seen: Vec<u32> = Vec::new();
        for read in &transaction.reads {
            if let Some(from) = read.from {
                for other in seen.iter().filter(|other| **other != from) {
                    if observed.transactions[*other as usize].writes.contains(&read.key) {
                        let because = Because::Arbitration { reader: index, key: read.key };
                        inferred.entry((*other, from)).or_insert(because);
                    }
                }
                if !seen.contains(&from) {
                    seen.push(from);
                }
            } else if let Some(other) =
                seen.iter().find(|other| observed.transactions[**other as usize].writes.contains(&read.key))
            {
                return Answer::No(initial_reason(history, observed, *other, index, read.key));
            }
        }
    }
    let edges = observed.causes().chain(inferred.keys().copied());
    match Graph::new(observed.transactions.len(), edges).cycle() {
        Some(cycle) => Answer::No(reason(history, observed, &cycle, &inferred)),
        None => Answer::yes("nobody read what was not committed, and commits fit one order"),
    }
}
