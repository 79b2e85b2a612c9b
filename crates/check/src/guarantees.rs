//! The four session guarantees (Terry et al., "Session Guarantees for Weakly Consistent Replicated Data", PDIS 1994), each by
//! itself, and eventual consistency.
//!
//! A read shows which version its server had. Each guarantee says which other writes that server must have had as
//! well, and those must then be older than what was read. With the order in which each session wrote a key, this must not
//! go in circles:
//!
//! - *read your writes*: the session's own earlier writes are there;
//! - *monotonic reads*: what the session read before is there;
//! - *monotonic writes*: with a write, its session's earlier writes are there;
//! - *writes follow reads*: with a write, what its session had read before is there, and is older.
//!
//! The first two are about each session by itself, and other sessions may see other orders (so they follow from causal
//! memory); the last two are about one order for all. What a session read of one key never speaks of another key here: a server's
//! contents are only seen through what is read, one key at a time.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::answer::{Answer, Link, Reason};
use crate::graph::Graph;
use crate::history::{History, Operation, Outcome};
use crate::linearizable::OperationIndex;
use crate::observed::{Micro, Observed, Read, micros};

/// Which guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guarantee {
    ReadYourWrites,
    MonotonicReads,
    MonotonicWrites,
    WritesFollowReads,
}

/// One version must be older than another, both of one key.
#[derive(Clone, Copy)]
struct Older {
    key: u32,
    from: u32,
    to: u32,
    /// Who showed it; `None` for the order in which a session wrote.
    reader: Option<u32>,
}

/// Decides one guarantee.
pub(crate) fn decide(history: &History, observed: &Observed, guarantee: Guarantee) -> Answer {
    if let Some(found) = &observed.impossible {
        return Answer::No(found.clone());
    }
    let mut chains: Vec<Vec<u32>> = vec![Vec::new(); observed.chains];
    for (index, transaction) in (0..).zip(&observed.transactions) {
        chains[transaction.chain as usize].push(index);
    }
    let own_reads = matches!(guarantee, Guarantee::ReadYourWrites | Guarantee::MonotonicReads);
    let mut all = Vec::new();
    for chain in &chains {
        match shown(observed, chain, guarantee) {
            Ok(older) if own_reads => {
                if let Some(found) = circle(history, observed, &older) {
                    return Answer::No(found);
                }
            }
            Ok(older) => all.extend(older),
            Err((writer, reader, key)) => {
                let operation = |node: u32| observed.transactions[node as usize].operation;
                let words = format!(
                    "The second read the initial value of {:?}, although the first, which wrote it, must have been there.",
                    observed.keys[key as usize]
                );
                let mut operations = vec![operation(writer), operation(reader)];
                operations.dedup();
                return Answer::No(Reason { operations, minimal: false, links: Vec::new(), words });
            }
        }
    }
    match circle(history, observed, &all) {
        Some(found) => Answer::No(found),
        None => Answer::yes("every read shows what this guarantee asks for"),
    }
}

/// What the reads of one session show; an error if one shows the initial value too late.
fn shown(observed: &Observed, chain: &[u32], guarantee: Guarantee) -> Result<Vec<Older>, (u32, u32, u32)> {
    let mut older = Vec::new();
    let mut wrote: HashMap<u32, u32> = HashMap::new();
    let mut read: HashMap<u32, u32> = HashMap::new();
    for node in chain {
        let transaction = &observed.transactions[*node as usize];
        for Read { key, from } in &transaction.reads {
            let there = match guarantee {
                Guarantee::ReadYourWrites => wrote.get(key).copied(),
                Guarantee::MonotonicReads => read.get(key).copied(),
                Guarantee::MonotonicWrites | Guarantee::WritesFollowReads => None,
            };
            match (there, from) {
                (Some(there), None) => return Err((there, *node, *key)),
                (Some(there), Some(from)) if there != *from => {
                    older.push(Older { key: *key, from: there, to: *from, reader: Some(*node) });
                }
                _ => {}
            }
            if let Some(from) = from {
                read.insert(*key, *from);
            }
        }
        for key in &transaction.writes {
            match guarantee {
                Guarantee::MonotonicWrites => {
                    let before = wrote.get(key).map(|before| (*before, *node));
                    older.extend(before.map(|(from, to)| Older { key: *key, from, to, reader: None }));
                }
                Guarantee::WritesFollowReads => {
                    let before = read.get(key).filter(|before| *before != node);
                    older.extend(before.map(|from| Older {
                        key: *key,
                        from: *from,
                        to: *node,
                        reader: Some(*node),
                    }));
                }
                Guarantee::ReadYourWrites | Guarantee::MonotonicReads => {}
            }
            wrote.insert(*key, *node);
        }
    }
    Ok(older)
}

/// A circle among versions of one key, together with the order in which sessions wrote them.
fn circle(history: &History, observed: &Observed, older: &[Older]) -> Option<Reason> {
    let mut nodes: BTreeMap<(u32, u32, u32), u32> = BTreeMap::new();
    let mut names = Vec::new();
    let mut id = |key: u32, node: u32| {
        let transaction = &observed.transactions[node as usize];
        *nodes.entry((key, transaction.chain, transaction.place)).or_insert_with(|| {
            names.push(node);
            names.len() as u32 - 1
        })
    };
    let mut edges: Vec<(u32, u32)> =
        older.iter().map(|pair| (id(pair.key, pair.from), id(pair.key, pair.to))).collect();
    let mut before: Option<((u32, u32, u32), u32)> = None;
    for (place, node) in nodes {
        if let Some((earlier, from)) =
            before.filter(|(earlier, _)| (earlier.0, earlier.1) == (place.0, place.1))
        {
            debug_assert!(earlier < place);
            edges.push((from, node));
        }
        before = Some((place, node));
    }
    let cycle = Graph::new(names.len(), edges.iter().copied()).cycle()?;
    let operation = |node: u32| observed.transactions[names[node as usize] as usize].operation;
    let (mut links, mut operations) = (Vec::new(), Vec::new());
    for (from, to) in cycle.iter().zip(cycle.iter().cycle().skip(1)) {
        let pair = older.iter().zip(&edges).find(|(_, edge)| **edge == (*from, *to)).map(|(pair, _)| pair);
        let why = match pair.and_then(|pair| pair.reader) {
            Some(reader) => {
                let reader = observed.transactions[reader as usize].operation;
                operations.push(reader);
                let shown = &history.operations[reader.0];
                format!("operation {} of {} shows that the first is older", shown.id, shown.client)
            }
            None => "one session wrote both, in this order".into(),
        };
        links.push(Link { from: operation(*from), to: operation(*to), why });
        operations.push(operation(*from));
    }
    operations.sort();
    operations.dedup();
    let words =
        "Each of these versions would have to be older than the next, and the last older than the first."
            .into();
    Some(Reason { operations, minimal: false, links, words })
}

/// Eventual consistency, as far as a history can show it: every value read was written by somebody whose
/// write did not fail, and once all writes had returned, the last reads of a key agree.
pub(crate) fn eventual(history: &History) -> Answer {
    let mut written: HashMap<(&str, &Value), bool> = HashMap::new();
    let mut quiet_from = 0;
    let mut parsed: Vec<(usize, &Operation, Vec<Micro<'_>>)> = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let failed = matches!(operation.outcome, Outcome::Fail { .. });
        match writes_at_least(operation).map_or_else(|| micros(operation), Ok) {
            Ok(found) => parsed.push((index, operation, found)),
            Err(_) if failed => {}
            Err(why) => return Answer::Unknown(why),
        }
    }
    for (_, operation, micros) in &parsed {
        let failed = matches!(operation.outcome, Outcome::Fail { .. });
        for micro in micros {
            if let Micro::Write(key, value) = micro {
                let possible = written.entry((key, value)).or_default();
                *possible |= !failed;
                let unknown = matches!(operation.outcome, Outcome::Unknown { .. });
                let until = operation.returned.map_or(u64::MAX, |returned| returned.order);
                if !failed {
                    // One of unknown outcome may take effect any time later.
                    quiet_from = quiet_from.max(if unknown { u64::MAX } else { until });
                }
            }
        }
    }
    let mut last: BTreeMap<(&str, &str), (&Value, usize)> = BTreeMap::new();
    for (index, operation, micros) in &parsed {
        let session = operation.session.as_deref().unwrap_or(&operation.client);
        for micro in micros {
            let Micro::Read(key, Some(value)) = micro else { continue };
            let initial = **value == history.header.initial;
            if !initial && written.get(&(*key, *value)) != Some(&true) {
                let words = format!("It read {value} from {key:?}, which nobody wrote.");
                let operations = vec![OperationIndex(*index)];
                return Answer::No(Reason { operations, minimal: true, links: Vec::new(), words });
            }
            if operation.invoked.order > quiet_from {
                last.insert((key, session), (value, *index));
            }
        }
    }
    let mut of_key: HashMap<&str, (&Value, usize)> = HashMap::new();
    for ((key, _), (value, index)) in &last {
        match of_key.get(key) {
            Some((other, by)) if other != value => {
                let words =
                    format!("After the last write these are the last reads of {key:?}, and they disagree.");
                let mut operations = vec![OperationIndex(*by), OperationIndex(*index)];
                operations.sort();
                return Answer::No(Reason { operations, minimal: true, links: Vec::new(), words });
            }
            _ => drop(of_key.insert(key, (value, *index))),
        }
    }
    match (quiet_from, of_key.len()) {
        (u64::MAX, _) => Answer::yes(
            "every value read was written; whether reads agree at last is not tested, since a write of unknown outcome may come any time",
        ),
        (_, 0) => Answer::yes(
            "every value read was written; nothing was read after the last write, so agreement is not tested",
        ),
        (_, keys) => Answer::yes(format!(
            "every value read was written, and after the last write the last reads of {keys} keys agree"
        )),
    }
}

/// What an operation may have written, where it is no plain read or write but that is all that matters here.
fn writes_at_least(operation: &Operation) -> Option<Vec<Micro<'_>>> {
    let call = &operation.call;
    let key = call.key.as_deref().unwrap_or_default();
    match (&*call.op, &operation.outcome) {
        ("cas", Outcome::Ok(reply)) if reply.value != Some(Value::Bool(true)) => Some(Vec::new()),
        ("cas", Outcome::Unknown { .. }) => Some(vec![Micro::Write(key, call.value.as_ref()?)]),
        ("delete", _) => Some(vec![Micro::Write(key, &Value::Null)]),
        _ => None,
    }
}

/// Conservation of a bank's money: the sum of the balances is the same in every read.
pub(crate) fn conservation(history: &History) -> Answer {
    let sum = |value: &Value| -> Option<i64> {
        let balances = value.as_object()?.values().filter(|balance| !balance.is_null());
        balances.map(Value::as_i64).try_fold(0i64, |sum, balance| sum.checked_add(balance?))
    };
    let mut first: Option<(i64, Option<usize>)> = sum(&history.header.initial).map(|total| (total, None));
    let mut reads = 0u64;
    for (index, operation) in history.operations.iter().enumerate() {
        let (Outcome::Ok(reply), "read") = (&operation.outcome, &*operation.call.op) else { continue };
        let Some(total) = reply.value.as_ref().and_then(sum) else {
            return Answer::Unknown(format!(
                "operation {} read something else than an object of balances",
                operation.id
            ));
        };
        reads += 1;
        match first {
            None => first = Some((total, Some(index))),
            Some((expected, by)) if expected != total => {
                let operations = by.into_iter().chain([index]).map(OperationIndex).collect();
                let words = format!("The balances sum up to {expected} and then to {total}.");
                return Answer::No(Reason { operations, minimal: true, links: Vec::new(), words });
            }
            Some(_) => {}
        }
    }
    match first {
        Some((total, _)) => Answer::yes(format!("all {reads} reads sum up to {total}")),
        None => Answer::Unknown("nobody read the balances".into()),
    }
}
