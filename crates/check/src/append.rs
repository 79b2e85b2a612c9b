//! Transactions that append to lists and read them, in time linear in the history.
//!
//! Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations" (VLDB 2020). Every element is
//! appended once, so a list that was read shows all versions that it went through, and who made each. From these
//! follow the dependencies of Adya (1999): *ww* to who appended next, *wr* to who read a version, *rw* from
//! who read a version to who appended next. A history has an isolation level if its graph lacks certain cycles:
//!
//! - read committed: none of ww and wr (G0, G1c), no reads of failed (G1a) or unfinished (G1b) transactions;
//! - snapshot isolation: none in which no two rw are adjacent (Cerone and Gotsman, 2018);
//! - serializable: none; *strong session* levels take the order of each session along, and strict
//!   serializability real time.
//!
//! Beyond Elle: an element of a committed transaction that no read shows comes after every version that was read,
//! since lists only grow. With that, and since the order among such elements is free, a graph without cycle is not only
//! evidence: any order along it is a witness.
//!
//! A transaction of unknown outcome counts once one of its elements was read; what it read is not known.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use serde_json::Value;

use crate::answer::{Answer, Link, Reason};
use crate::graph::Graph;
use crate::history::{History, Outcome};
use crate::linearizable::OperationIndex;
use crate::model::NEVER;
use crate::search::WordHasher;
use crate::serial::moments;

type Map<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;

const WW: u8 = 1;
const WR: u8 = 2;
const RW: u8 = 4;
const SESSION: u8 = 8;
const REAL_TIME: u8 = 16;
/// From a node that gathers readers to those who come after all of them; continues an `RW`.
const THROUGH: u8 = 32;
/// Of two elements that no read shows, the one whose appender had read the list without the other: under snapshot
/// isolation, where both commits conflict, it comes first.
const CONFLICT: u8 = 64;

/// An isolation level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) real_time: bool,
    pub(crate) sessions: bool,
    pub(crate) kind: Isolation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    ReadCommitted,
    Snapshot,
    Serializable,
}

#[derive(Clone, Copy)]
struct Edge {
    from: u32,
    to: u32,
    kind: u8,
    key: u32,
}

/// The dependencies of a history.
pub(crate) struct Dependencies<'a> {
    history: &'a History,
    /// The operation of each transaction; further nodes are none.
    operations: Vec<OperationIndex>,
    nodes: usize,
    edges: Vec<Edge>,
    keys: Vec<&'a str>,
    /// For each key, who appended what no read shows, where there are several.
    unseen: Vec<Vec<u32>>,
    /// What no isolation level allows.
    broken: Option<Reason>,
}

/// What a transaction did to one list: read so much of it, or appended, as which of the list's elements.
#[derive(Clone, Copy)]
enum Micro<'a> {
    Append(u32, u32),
    Read(u32, &'a [Value]),
}

/// What all transactions did, one after the other.
struct Parsed<'a> {
    micros: Vec<Micro<'a>>,
    /// Where the micros of each transaction begin, and where the last ones end.
    starts: Vec<usize>,
}

impl<'a> Parsed<'a> {
    fn each(&self) -> impl Iterator<Item = &[Micro<'a>]> {
        self.starts.windows(2).map(|range| &self.micros[range[0]..range[1]])
    }
}

struct Appended<'a> {
    element: &'a Value,
    operation: u32,
    /// Whether it was its transaction's last to this key.
    last: bool,
    /// Whether a read shows it.
    shown: bool,
}

/// Elements of one list up to which they are looked through one by one.
const FEW: usize = 32;

/// All that was appended to one list, in the order of invocation.
#[derive(Default)]
struct List<'a> {
    all: Vec<Appended<'a>>,
    /// Where to find an element, if they are many.
    places: Map<&'a Value, u32>,
}

impl<'a> List<'a> {
    fn index(&mut self) {
        if self.all.len() > FEW {
            self.places = self.all.iter().map(|known| known.element).zip(0..).collect();
        }
    }

    /// Where an element stands; most likely, here.
    fn find(&self, element: &Value, likely: usize) -> Option<u32> {
        if self.all.get(likely).is_some_and(|known| known.element == element) {
            return Some(likely as u32);
        }
        match self.all.len() {
            0..=FEW => (0..).zip(&self.all).find(|(_, known)| known.element == element).map(|(at, _)| at),
            _ => self.places.get(element).copied(),
        }
    }

    /// An element that was appended twice.
    fn twice(&self) -> Option<&'a Value> {
        let again = |(at, known): &(u32, &Appended<'_>)| self.find(known.element, usize::MAX) != Some(*at);
        (0..).zip(&self.all).find(again).map(|(_, known)| known.element)
    }
}

impl<'a> Dependencies<'a> {
    /// Finds them. The error says what in the history is no list-append.
    pub(crate) fn of(history: &'a History) -> Result<Dependencies<'a>, String> {
        let mut keys: Map<&str, u32> = Map::default();
        let count = history.operations.len();
        let mut parsed =
            Parsed { micros: Vec::with_capacity(count * 2), starts: Vec::with_capacity(count + 1) };
        let mut lists: Vec<List<'_>> = Vec::new();
        parsed.starts.push(0);
        for (index, operation) in (0..).zip(&history.operations) {
            micros(operation, index, &mut keys, &mut parsed.micros, &mut lists)?;
            parsed.starts.push(parsed.micros.len());
        }
        let mut names = vec![""; keys.len()];
        keys.iter().for_each(|(name, key)| names[*key as usize] = name);
        for (list, name) in lists.iter_mut().zip(&names) {
            list.index();
            if let Some(element) = list.twice() {
                return Err(format!(
                    "{element} is appended to {name:?} twice, so nobody can tell which was read"
                ));
            }
        }
        let mut found = Dependencies {
            history,
            operations: Vec::new(),
            nodes: 0,
            edges: Vec::new(),
            keys: names,
            unseen: Vec::new(),
            broken: None,
        };
        found.build(&parsed, &mut lists);
        Ok(found)
    }

    fn build(&mut self, parsed: &Parsed<'a>, lists: &mut [List<'a>]) {
        let versions = self.versions(parsed, lists);
        // Every transaction that took effect gets a number: all that succeeded, and those read from.
        let mut taken: Vec<bool> =
            self.history.operations.iter().map(|o| matches!(o.outcome, Outcome::Ok(_))).collect();
        let shown = lists.iter().flat_map(|list| &list.all).filter(|known| known.shown);
        shown.for_each(|known| taken[known.operation as usize] = true);
        let mut number = vec![u32::MAX; taken.len()];
        for (index, _) in taken.iter().enumerate().filter(|(_, taken)| **taken) {
            number[index] = self.operations.len() as u32;
            self.operations.push(OperationIndex(index));
        }
        self.nodes = self.operations.len();
        self.edges.reserve(parsed.micros.len() * 3);
        let makers: Vec<Vec<u32>> = versions
            .iter()
            .zip(lists.iter())
            .map(|(version, list)| {
                let of = |at: &u32| number[list.all[*at as usize].operation as usize];
                version.iter().map(of).collect()
            })
            .collect();
        for (key, makers) in (0..).zip(&makers) {
            for pair in makers.windows(2).filter(|pair| pair[0] != pair[1]) {
                self.edges.push(Edge { from: pair[0], to: pair[1], kind: WW, key });
            }
        }
        let mut up_to_date: Vec<Vec<u32>> = vec![Vec::new(); versions.len()];
        let mut unseen: Vec<Vec<u32>> = vec![Vec::new(); versions.len()];
        for (index, micros) in parsed.each().enumerate().filter(|(index, _)| taken[*index]) {
            let own = number[index];
            for (place, micro) in micros.iter().enumerate() {
                match micro {
                    Micro::Append(key, at) => {
                        if !lists[*key as usize].all[*at as usize].shown {
                            unseen[*key as usize].push(own);
                        }
                    }
                    Micro::Read(key, list) => {
                        let before =
                            micros[..place].iter().filter(|m| matches!(m, Micro::Append(k, _) if k == key));
                        let seen = list.len().saturating_sub(before.count());
                        let makers = &makers[*key as usize];
                        if let Some(maker) =
                            seen.checked_sub(1).and_then(|last| makers.get(last)).filter(|m| **m != own)
                        {
                            self.edges.push(Edge { from: *maker, to: own, kind: WR, key: *key });
                        }
                        match makers.get(seen) {
                            Some(next) if *next != own => {
                                self.edges.push(Edge { from: own, to: *next, kind: RW, key: *key });
                            }
                            None => up_to_date[*key as usize].push(own),
                            _ => {}
                        }
                    }
                }
            }
        }
        for key in 0..versions.len() {
            self.link_unseen(key as u32, makers[key].last().copied(), &up_to_date[key], &mut unseen[key]);
        }
        self.link_times();
    }

    /// The longest version of each list, as its elements' places; notes what contradicts every level.
    fn versions(&mut self, parsed: &Parsed<'a>, lists: &mut [List<'a>]) -> Vec<Vec<u32>> {
        let mut longest: Vec<(&[Value], u32)> = vec![(&[], 0); self.keys.len()];
        let mut external: Vec<(u32, u32, &'a [Value])> = Vec::with_capacity(parsed.micros.len());
        for (index, micros) in (0..).zip(parsed.each()) {
            for (place, micro) in micros.iter().enumerate() {
                let Micro::Read(key, list) = micro else { continue };
                let all = &lists[*key as usize].all;
                let own: Vec<&Value> = micros[..place]
                    .iter()
                    .filter_map(|micro| match micro {
                        Micro::Append(other, at) if other == key => Some(all[*at as usize].element),
                        _ => None,
                    })
                    .collect();
                let ends_with_own = list.len() >= own.len()
                    && list[list.len() - own.len()..].iter().zip(&own).all(|(seen, own)| seen == *own);
                if !ends_with_own {
                    self.note(
                        &[index],
                        format!("It does not see its own appends to {:?}.", self.keys[*key as usize]),
                    );
                    continue;
                }
                let list = &list[..list.len() - own.len()];
                external.push((index, *key, list));
                let whole = &mut longest[*key as usize];
                if list.len() > whole.0.len() {
                    *whole = (list, index);
                }
            }
        }
        let mut versions = Vec::with_capacity(longest.len());
        for (key, (version, by)) in longest.iter().enumerate() {
            versions.push(self.version(key, version, *by, &mut lists[key]));
        }
        for (index, key, list) in external {
            let (whole, by) = longest[key as usize];
            if whole[..list.len()] != *list {
                let words = format!(
                    "They read {:?} in versions of which none is the beginning of the other.",
                    self.keys[key as usize]
                );
                self.note(&[by, index], words);
            }
            let version = &versions[key as usize];
            let Some(at) = list.len().checked_sub(1).and_then(|last| version.get(last)) else { continue };
            let known = &lists[key as usize].all[*at as usize];
            if !known.last && known.operation != index {
                let words = format!(
                    "It read {:?} up to {}, which was not its writer's last append.",
                    self.keys[key as usize], known.element
                );
                self.note(&[known.operation, index], words);
            }
        }
        versions
    }

    /// The places of a version's elements, which are marked as shown; `by`: who read it.
    fn version(&mut self, key: usize, version: &[Value], by: u32, list: &mut List<'a>) -> Vec<u32> {
        let mut places = Vec::with_capacity(version.len());
        for (likely, element) in version.iter().enumerate() {
            let name = self.keys[key];
            let Some(at) = list.find(element, likely) else {
                self.note(&[by], format!("It read {element} from {name:?}, which nobody appended."));
                continue;
            };
            places.push(at);
            let known = &mut list.all[at as usize];
            if std::mem::replace(&mut known.shown, true) {
                self.note(&[by], format!("It read {element} from {name:?} twice, and it was appended once."));
            }
            let writer = &self.history.operations[known.operation as usize];
            if matches!(writer.outcome, Outcome::Fail { .. }) {
                let words = format!("It read {element} from {name:?}, whose writer failed.");
                self.note(&[known.operation, by], words);
            }
        }
        places
    }

    fn note(&mut self, operations: &[u32], words: String) {
        if self.broken.is_none() {
            let mut operations: Vec<_> =
                operations.iter().map(|index| OperationIndex(*index as usize)).collect();
            operations.sort();
            operations.dedup();
            self.broken = Some(Reason { operations, minimal: true, links: Vec::new(), words });
        }
    }

    /// Elements that no read shows come after the last version that one shows, and after its readers.
    fn link_unseen(&mut self, key: u32, last: Option<u32>, readers: &[u32], unseen: &mut Vec<u32>) {
        unseen.sort_unstable();
        unseen.dedup();
        for later in unseen.iter().filter(|later| last.is_some_and(|last| last != **later)) {
            self.edges.push(Edge { from: last.expect("filtered"), to: *later, kind: WW, key });
        }
        if unseen.is_empty() {
            return;
        }
        if unseen.len() > 1 {
            self.unseen.push(unseen.clone());
        }
        let gather = self.nodes as u32;
        let mut gathered = false;
        for reader in readers {
            if unseen.binary_search(reader).is_ok() {
                for later in unseen.iter().filter(|later| *later != reader) {
                    self.edges.push(Edge { from: *reader, to: *later, kind: RW, key });
                    self.edges.push(Edge { from: *reader, to: *later, kind: CONFLICT, key });
                }
            } else {
                gathered = true;
                self.edges.push(Edge { from: *reader, to: gather, kind: RW, key });
            }
        }
        if gathered {
            self.nodes += 1;
            for later in unseen.iter() {
                self.edges.push(Edge { from: gather, to: *later, kind: THROUGH, key });
            }
        }
    }

    fn link_times(&mut self) {
        let operation = |index: &OperationIndex| &self.history.operations[index.0];
        let mut last: Map<&str, (u32, bool)> = Map::default();
        for (node, index) in (0..).zip(&self.operations) {
            let operation = operation(index);
            let session = operation.session.as_deref().unwrap_or(&operation.client);
            let known = matches!(operation.outcome, Outcome::Ok(_));
            if let Some((before, _)) = last.get(session) {
                self.edges.push(Edge { from: *before, to: node, kind: SESSION, key: 0 });
            }
            // Its client did not wait for one of unknown outcome, so nothing comes after it.
            if known {
                last.insert(session, (node, known));
            }
        }
        let times = self.operations.iter().map(|index| {
            let operation = operation(index);
            let returned = operation.returned.filter(|_| matches!(operation.outcome, Outcome::Ok(_)));
            (operation.invoked.order, returned.map_or(NEVER, |returned| returned.order))
        });
        let (count, edges) = moments(times);
        let (transactions, offset) = (self.operations.len() as u32, self.nodes as u32);
        let node = |node: u32| if node < transactions { node } else { node - transactions + offset };
        for (from, to) in edges {
            self.edges.push(Edge { from: node(from), to: node(to), kind: REAL_TIME, key: 0 });
        }
        self.nodes += count;
    }

    /// Whether the history has this level.
    pub(crate) fn decide(&self, level: Level) -> Answer {
        if let Some(found) = &self.broken {
            return Answer::No(found.clone());
        }
        let mut kinds = WW | WR;
        if level.kind != Isolation::ReadCommitted {
            kinds |= RW | THROUGH;
        }
        if level.sessions {
            kinds |= SESSION;
        }
        if level.real_time {
            kinds |= REAL_TIME;
        }
        let edges = self.edges.iter().filter(|edge| edge.kind & kinds != 0);
        if level.kind == Isolation::Snapshot {
            return self.snapshot(kinds | CONFLICT);
        }
        let graph = Graph::new(self.nodes, edges.map(|edge| (edge.from, edge.to)));
        match graph.sorted() {
            Ok(order) => {
                let order: Vec<OperationIndex> =
                    order.iter().filter_map(|node| self.operations.get(*node as usize)).copied().collect();
                match level.kind {
                    Isolation::Serializable => Answer::ordered(order, "the dependencies have no cycle"),
                    _ => Answer::yes("neither dirty writes nor dirty reads"),
                }
            }
            Err(()) => {
                let cycle = graph.cycle().expect("what cannot be sorted has a cycle");
                Answer::No(self.reason(&cycle, kinds))
            }
        }
    }

    /// Two of each node: as reached by an rw, from which no further rw leads on, and otherwise.
    ///
    /// Commits that write the same key have an order, also where no read shows it. So the graph must stay without such
    /// cycles for *some* order of those. There is one if the history is serializable. Otherwise two are tried: the one in
    /// which the graph is sorted, and that of invocation.
    fn snapshot(&self, kinds: u8) -> Answer {
        let count = self.nodes as u32;
        let edges = self.edges.iter().filter(|edge| edge.kind & kinds != 0);
        let doubled = edges.flat_map(|edge| match edge.kind {
            RW => [Some((edge.from, edge.to + count)), None],
            THROUGH => [Some((edge.from + count, edge.to + count)), None],
            _ => [Some((edge.from, edge.to)), Some((edge.from + count, edge.to))],
        });
        let doubled: Vec<(u32, u32)> = doubled.flatten().collect();
        let graph = Graph::new(self.nodes * 2, doubled.iter().copied());
        let Ok(order) = graph.sorted() else {
            let cycle = graph.cycle().expect("what cannot be sorted has a cycle");
            let cycle: Vec<u32> = cycle.into_iter().map(|node| node % count).collect();
            return Answer::No(self.reason(&cycle, kinds));
        };
        let serial = self.edges.iter().filter(|edge| edge.kind & kinds != 0).map(|edge| (edge.from, edge.to));
        if self.unseen.is_empty() || Graph::new(self.nodes, serial).sorted().is_ok() {
            return Answer::yes("no cycle without two adjacent anti-dependencies");
        }
        let mut place = vec![0; self.nodes * 2];
        (0u32..).zip(&order).for_each(|(at, node)| place[*node as usize] = at);
        let by_order = |node: &u32| place[*node as usize];
        let by_invocation = |node: &u32| *node;
        let orders: [&dyn Fn(&u32) -> u32; 2] = [&by_order, &by_invocation];
        let fits = |key: &&dyn Fn(&u32) -> u32| {
            let unseen = self.unseen.iter().flat_map(|unseen| {
                let mut sorted = unseen.clone();
                sorted.sort_by_key(key);
                let pairs: Vec<(u32, u32)> = sorted.windows(2).map(|pair| (pair[0], pair[1])).collect();
                pairs.into_iter().flat_map(|(from, to)| [(from, to), (from + count, to)])
            });
            Graph::new(self.nodes * 2, doubled.iter().copied().chain(unseen)).sorted().is_ok()
        };
        match orders.iter().any(fits) {
            true => Answer::yes("no cycle without two adjacent anti-dependencies"),
            false => Answer::Unknown(
                "there is no forbidden cycle among what was read, but some appends were not read, and no order was found for them".into(),
            ),
        }
    }

    fn reason(&self, cycle: &[u32], kinds: u8) -> Reason {
        let own: Vec<u32> =
            cycle.iter().copied().filter(|node| (*node as usize) < self.operations.len()).collect();
        let links = own.iter().zip(own.iter().cycle().skip(1)).map(|(from, to)| Link {
            from: self.operations[*from as usize],
            to: self.operations[*to as usize],
            why: self.why(*from, *to, kinds),
        });
        let links: Vec<Link> = links.collect();
        let mut operations: Vec<OperationIndex> =
            own.iter().map(|node| self.operations[*node as usize]).collect();
        operations.sort();
        operations.dedup();
        let count = operations.len();
        let words =
            format!("Each of these {count} must come before the next, and the last before the first.");
        Reason { operations, minimal: false, links, words }
    }

    fn why(&self, from: u32, to: u32, kinds: u8) -> String {
        let direct = |edge: &&Edge| {
            edge.kind & kinds != 0 && edge.from == from && (edge.to == to || self.leads_through(edge, to))
        };
        let edge = self.edges.iter().filter(direct).min_by_key(|edge| edge.kind);
        let Some(edge) = edge else { return "the first returned before the second was invoked".into() };
        let key = self.keys.get(edge.key as usize).copied().unwrap_or_default();
        match edge.kind {
            WW => format!("the second appended to {key:?} after the first"),
            WR => format!("the second read what the first appended to {key:?}"),
            RW | CONFLICT => format!("the first read {key:?} without what the second appended"),
            SESSION => "both are of one session, in this order".into(),
            _ => "the first returned before the second was invoked".into(),
        }
    }

    fn leads_through(&self, edge: &Edge, to: u32) -> bool {
        edge.kind == RW
            && edge.to as usize >= self.operations.len()
            && self.edges.iter().any(|next| next.kind == THROUGH && next.from == edge.to && next.to == to)
    }
}

/// Reads what a transaction did, and adds what it appended to the lists.
fn micros<'a>(
    operation: &'a crate::history::Operation,
    index: u32,
    keys: &mut Map<&'a str, u32>,
    found: &mut Vec<Micro<'a>>,
    lists: &mut Vec<List<'a>>,
) -> Result<(), String> {
    let call = &operation.call;
    if &*call.op != "txn" {
        return Err(format!("`{}` is no operation of list-append; it has txn", call.op));
    }
    let asked = call.more.get("ops").ok_or("`txn` needs `ops`")?;
    let reply = match &operation.outcome {
        Outcome::Ok(reply) => reply.value.as_ref(),
        Outcome::Fail { .. } | Outcome::Unknown { .. } => None,
    };
    if matches!(operation.outcome, Outcome::Ok(_)) && reply.is_none() {
        return Err("a `txn` that succeeded needs its operations with reads filled in as its `value`".into());
    }
    let ops = reply.unwrap_or(asked).as_array().ok_or("the `ops` of a `txn` are an array")?;
    let first = found.len();
    for op in ops {
        let wrong = || format!("expected [\"append\", key, element] or [\"r\", key, list], found {op}");
        let [function, key, value] = op.as_array().map(Vec::as_slice).ok_or_else(wrong)? else {
            return Err(wrong());
        };
        let next = keys.len() as u32;
        let key = *keys.entry(key.as_str().ok_or_else(wrong)?).or_insert(next);
        if key == next {
            lists.push(List::default());
        }
        match (function.as_str(), value) {
            (Some("append"), Value::Null) => return Err(wrong()),
            (Some("append"), element) => {
                let all = &mut lists[key as usize].all;
                for micro in &found[first..] {
                    if let Micro::Append(other, at) = micro
                        && *other == key
                    {
                        all[*at as usize].last = false;
                    }
                }
                found.push(Micro::Append(key, all.len() as u32));
                all.push(Appended { element, operation: index, last: true, shown: false });
            }
            (Some("r"), Value::Array(list)) if reply.is_some() => found.push(Micro::Read(key, list)),
            (Some("r"), Value::Null) if reply.is_some() => found.push(Micro::Read(key, &[])),
            (Some("r"), _) if reply.is_none() => {}
            _ => return Err(wrong()),
        }
    }
    Ok(())
}
