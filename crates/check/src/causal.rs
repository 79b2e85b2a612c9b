//! Causal consistency in its three definitions, by the bad patterns of Bouajjani, Enea, Guerraoui and
//! Hamza, "On Verifying Causal Consistency" (POPL 2017).
//!
//! The causal order is the transitive closure of the sessions' orders and of reads-from. Then a history is
//!
//! - *causally consistent* (CC) if that order has no cycle, no read of an initial value follows a write
//!   of the key (WriteCOInitRead), and no write of a key comes between a write and a read from it (WriteCORead);
//! - *causally convergent* (CCv) if moreover all writes of a key can be arbitrated in one order
//!   for everybody: the conflict order is acyclic together with the causal one (CyclicCF);
//! - a *causal memory* (CM) if moreover each session has an order of its own that explains all of its reads (WriteHBInitRead,
//!   CyclicHB).
//!
//! CCv and CM each imply CC, and neither the other. CCv takes one pass of vector clocks ([`crate::infer`]); CC
//! is asked only if CCv fails, and then holds all clocks at once. CM takes such passes for each session: whatever precedes
//! a read of its own also precedes the write that was read, until nothing new follows; most sessions need one pass, or two.
//! Transactions count as one event, which for single operations is the papers' definition.

use crate::answer::{Answer, Reason};
use crate::graph::Graph;
use crate::history::History;
use crate::infer::{Inferred, Pass, Readers, Rules, Writers, pass, reason};
use crate::observed::{Observed, Read};

/// Causal convergence.
pub(crate) fn convergent(history: &History, observed: &Observed, bytes_max: usize) -> Answer {
    if let Some(found) = observed.broken() {
        return Answer::No(found.clone());
    }
    let count = observed.transactions.len();
    let writers = Writers::of(observed);
    let known = Graph::new(count, observed.causes());
    let mut inferred = Inferred::new();
    let rules = Rules { arbitration: Readers::All, anti_dependency: false };
    match pass(observed, &writers, &known, rules, &mut inferred, bytes_max) {
        Pass::Cycle(cycle) => return Answer::No(reason(history, observed, &cycle, &Inferred::new())),
        Pass::Late(writer, reader, key) => {
            return Answer::No(initial_reason(history, observed, writer, reader, key));
        }
        Pass::TooLarge => return too_large(),
        Pass::Added(_) => {}
    }
    let edges = observed.causes().chain(inferred.keys().copied());
    match Graph::new(count, edges).cycle() {
        Some(cycle) => Answer::No(reason(history, observed, &cycle, &inferred)),
        None => Answer::yes(
            "effects never come before causes, and all writes of a key fit one order for everybody",
        ),
    }
}

fn too_large() -> Answer {
    Answer::Unknown("the budget of memory does not hold the clocks that are needed".into())
}

/// WriteCOInitRead: a read of the initial value with a write of the key in its causal past.
pub(crate) fn initial_reason(
    history: &History,
    observed: &Observed,
    writer: u32,
    reader: u32,
    key: u32,
) -> Reason {
    let path = path(observed, writer, reader);
    let mut found = reason(history, observed, &path, &Inferred::new());
    found.links.pop();
    found.words = format!(
        "The last of these read the initial value of {:?}, which the first had written, and was caused by it.",
        observed.keys[key as usize]
    );
    found
}

/// A shortest way in the causal order.
fn path(observed: &Observed, from: u32, to: u32) -> Vec<u32> {
    let graph = Graph::new(observed.transactions.len(), observed.causes());
    graph.through(from, to).unwrap_or_else(|| vec![from, to])
}

/// Takes a transaction, its row, and the rows of all before it.
type Visit<'a> = dyn FnMut(u32, &[u32], &[Box<[u32]>]) + 'a;

/// Walks over all transactions with what lies in their causal past: row of each, and all rows so far. `None`: the
/// causal order has a cycle, or the rows take too much.
fn each_past(observed: &Observed, bytes_max: usize, visit: &mut Visit<'_>) -> Option<()> {
    let count = observed.transactions.len();
    if count.saturating_mul(observed.chains).saturating_mul(4) > bytes_max {
        return None;
    }
    let order = Graph::new(count, observed.causes()).sorted().ok()?;
    let mut rows: Vec<Box<[u32]>> = vec![Box::default(); count];
    for node in order {
        let transaction = &observed.transactions[node as usize];
        let mut row = vec![0u32; observed.chains].into_boxed_slice();
        let sources = transaction.reads.iter().filter_map(|read| read.from);
        for from in transaction.previous.into_iter().chain(sources) {
            row.iter_mut().zip(rows[from as usize].iter()).for_each(|(own, past)| *own = (*own).max(*past));
        }
        visit(node, &row, &rows);
        row[transaction.chain as usize] = transaction.place + 1;
        rows[node as usize] = row;
    }
    Some(())
}

/// Plain causal consistency, for histories that are not convergent.
pub(crate) fn consistent(history: &History, observed: &Observed, bytes_max: usize) -> Answer {
    if let Some(found) = observed.broken() {
        return Answer::No(found.clone());
    }
    let writers = Writers::of(observed);
    if let Some(cycle) = Graph::new(observed.transactions.len(), observed.causes()).cycle() {
        return Answer::No(reason(history, observed, &cycle, &Inferred::new()));
    }
    let mut found: Option<(u32, u32, u32, u32)> = None;
    let mut late: Option<(u32, u32, u32)> = None;
    let walked = each_past(observed, bytes_max, &mut |node, row, rows| {
        for Read { key, from } in &observed.transactions[node as usize].reads {
            for (chain, own) in &writers.0[*key as usize] {
                let seen = row[*chain as usize];
                let within =
                    own.partition_point(|writer| observed.transactions[*writer as usize].place < seen);
                let Some(between) = within.checked_sub(1).map(|last| own[last]) else { continue };
                match from {
                    None => late = late.or(Some((own[0], node, *key))),
                    Some(from) => {
                        let source = &observed.transactions[*from as usize];
                        let follows = rows[between as usize][source.chain as usize] > source.place;
                        if between != *from && follows {
                            found = found.or(Some((*from, between, node, *key)));
                        }
                    }
                }
            }
        }
    });
    if walked.is_none() {
        return too_large();
    }
    if let Some((writer, reader, key)) = late {
        return Answer::No(initial_reason(history, observed, writer, reader, key));
    }
    let Some((from, between, reader, key)) = found else {
        return Answer::yes("effects never come before causes");
    };
    let mut way = path(observed, from, between);
    way.extend(path(observed, between, reader).into_iter().skip(1));
    let mut shown = reason(history, observed, &way, &Inferred::new());
    shown.links.pop();
    shown.words = format!(
        "The last of these read {:?} from the first, although a later write of it was among its causes.",
        observed.keys[key as usize]
    );
    Answer::No(shown)
}

/// Causal memory: every session's reads fit one order of all that is in its past.
pub(crate) fn memory(
    history: &History,
    observed: &Observed,
    bytes_max: usize,
    stop: &mut dyn FnMut() -> bool,
) -> Answer {
    if let Some(found) = observed.broken() {
        return Answer::No(found.clone());
    }
    let writers = Writers::of(observed);
    let mut reads = vec![false; observed.chains];
    for transaction in &observed.transactions {
        reads[transaction.chain as usize] |= !transaction.reads.is_empty();
    }
    let sessions = reads.iter().filter(|reads| **reads).count();
    for (done, chain) in (0..).zip((0..).zip(&reads).filter(|(_, reads)| **reads).map(|(chain, _)| chain)) {
        let rules = Rules { arbitration: Readers::Of(chain), anti_dependency: false };
        let mut inferred = Inferred::new();
        loop {
            if stop() {
                return Answer::Unknown(format!(
                    "the caller stopped it; {done} of {sessions} sessions that read have an order of their own"
                ));
            }
            let edges = observed.causes().chain(inferred.keys().copied());
            let known = Graph::new(observed.transactions.len(), edges);
            match pass(observed, &writers, &known, rules, &mut inferred, bytes_max) {
                Pass::Cycle(cycle) => return Answer::No(reason(history, observed, &cycle, &inferred)),
                Pass::Late(writer, reader, key) => {
                    return Answer::No(initial_reason(history, observed, writer, reader, key));
                }
                Pass::TooLarge => return too_large(),
                Pass::Added(0) => break,
                Pass::Added(_) => {}
            }
        }
    }
    Answer::yes("each session's reads fit one order of all that is in their past")
}
