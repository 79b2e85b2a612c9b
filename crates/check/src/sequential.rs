//! Sequential consistency of any object (Lamport 1979): one order of all operations that keeps the order of each
//! session, and in which every answer is the object's. Real time does not count.
//!
//! Unlike linearizability this is not a matter of each key by itself, so all parts are searched together: depth
//! first, one session's next operation at a time, remembering the positions and states from which it failed. Reads that
//! fit are taken at once, as in [`crate::search`]. Registers whose values are written once go the cheaper way of
//! [`crate::serial`] instead.
//!
//! An operation of unknown outcome follows what its session did before and may take effect any time after, or never:
//! its client did not wait for it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasherDefault;

use crate::Error;
use crate::answer::{Answer, Reason};
use crate::history::{History, Outcome};
use crate::linearizable::{Limits, OperationIndex};
use crate::model::{Entry, Model, NEVER};
use crate::search::WordHasher;

/// How often the stop callback is asked, in steps.
const STOP_INTERVAL: u64 = 256;

struct Step<M: Model> {
    entry: Entry<M>,
    part: usize,
    operation: OperationIndex,
    read_only: bool,
}

/// One session, or an operation of unknown outcome by itself.
struct Chain<M: Model> {
    steps: Vec<Step<M>>,
    /// Chain and length of it that must be done before this one starts.
    after: Option<(usize, u32)>,
    optional: bool,
}

/// Decides sequential consistency by search.
pub(crate) fn decide<M: Model>(
    model: &M,
    history: &History,
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Answer, Error> {
    let (chains, parts) = match chains(model, history)? {
        Ok(found) => found,
        Err(words) => return Ok(Answer::Unknown(words)),
    };
    let mut search = Search {
        model,
        at: vec![0; chains.len()],
        chains,
        states: vec![model.init(); parts],
        ids: HashMap::default(),
        interned: 0,
        state_ids: Vec::new(),
        order: Vec::new(),
        failed: HashSet::default(),
        bytes: 0,
        best: 0,
        stuck: Vec::new(),
    };
    search.state_ids = (0..parts).map(|part| search.intern(part)).collect();
    Ok(match search.run(limits, stop) {
        Ok(true) => {
            let order =
                search.order.iter().map(|(chain, place, _)| search.chains[*chain].steps[*place].operation);
            Answer::ordered(order.collect(), "one order that keeps each session's own explains every answer")
        }
        Ok(false) => {
            let mut operations = search.stuck;
            operations.sort();
            let words = format!(
                "Every order that keeps each session's own was tried. None explains more than {} operations: none of these can come next then.",
                search.best
            );
            Answer::No(Reason { operations, minimal: false, links: Vec::new(), words })
        }
        Err(what) => Answer::Unknown(format!("{what}; {} operations were put in order", search.best)),
    })
}

type Chains<M> = (Vec<Chain<M>>, usize);

fn chains<M: Model>(model: &M, history: &History) -> Result<Result<Chains<M>, String>, Error> {
    let mut chains: Vec<Chain<M>> = Vec::new();
    let mut sessions: HashMap<&str, (usize, u64)> = HashMap::new();
    let mut parts: BTreeMap<Option<String>, usize> = BTreeMap::new();
    let mut decoded = Vec::new();
    for (index, operation) in history.operations.iter().enumerate() {
        if matches!(operation.outcome, Outcome::Fail { .. }) {
            continue;
        }
        let (op, answer) = model.decode_operation(operation).map_err(|problem| Error::NotOfThisObject {
            operation: index,
            call: operation.call.to_string(),
            problem,
        })?;
        decoded.push((index, op, answer));
    }
    let divided = decoded.iter().all(|(_, op, _)| model.part(op).is_some());
    for (index, op, answer) in decoded {
        let operation = &history.operations[index];
        let name = operation.session.as_deref().unwrap_or(&operation.client);
        let known = matches!(operation.outcome, Outcome::Ok(_));
        let next = parts.len();
        let part = *parts.entry(model.part(&op).filter(|_| divided).map(str::to_owned)).or_insert(next);
        let read_only = model.is_read_only(&op, answer.as_ref());
        let ret = if known { 1 } else { NEVER };
        let entry = Entry { op, answer, invoke: 0, ret };
        let step = Step { entry, part, operation: OperationIndex(index), read_only };
        let (chain, busy_until) = match sessions.get(name) {
            Some(known) => *known,
            None => {
                chains.push(Chain { steps: Vec::new(), after: None, optional: false });
                (chains.len() - 1, 0)
            }
        };
        if busy_until > operation.invoked.order {
            return Ok(Err(format!("{name} has several operations open at once, so its order is not known")));
        }
        sessions.insert(name, (chain, operation.returned.map_or(0, |returned| returned.order)));
        if known {
            chains[chain].steps.push(step);
        } else if !read_only {
            let after = Some((chain, chains[chain].steps.len() as u32));
            chains.push(Chain { steps: vec![step], after, optional: true });
        }
    }
    let count = parts.len();
    Ok(Ok((chains, count)))
}

type WordMap<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;

/// Chain, place in it, and the state that the step replaced, if it changed.
type Taken<S> = (usize, usize, Option<(S, u32)>);

struct Search<'a, M: Model> {
    model: &'a M,
    chains: Vec<Chain<M>>,
    at: Vec<u32>,
    states: Vec<M::State>,
    /// A number for every state of a part that was met.
    ids: WordMap<(usize, M::State), u32>,
    interned: u32,
    state_ids: Vec<u32>,
    order: Vec<Taken<M::State>>,
    failed: HashSet<Box<[u32]>, BuildHasherDefault<WordHasher>>,
    bytes: usize,
    best: usize,
    stuck: Vec<OperationIndex>,
}

impl<M: Model> Search<'_, M> {
    fn intern(&mut self, part: usize) -> u32 {
        let state = &self.states[part];
        if let Some(id) = self.ids.get(&(part, state.clone())) {
            return *id;
        }
        self.bytes += self.model.state_bytes(state) + 64;
        self.ids.insert((part, state.clone()), self.interned);
        self.interned += 1;
        self.interned - 1
    }

    fn run(&mut self, limits: &Limits, stop: &mut dyn FnMut() -> bool) -> Result<bool, &'static str> {
        // Where each frame's order began, and the chain that it tries next.
        let mut frames: Vec<(usize, usize)> = vec![(0, 0)];
        self.take_reads();
        let mut spent = 0u64;
        loop {
            if self
                .chains
                .iter()
                .zip(&self.at)
                .all(|(chain, at)| chain.optional || *at as usize == chain.steps.len())
            {
                return Ok(true);
            }
            spent += 1;
            if spent > limits.configurations_max {
                return Err("the budget of configurations was spent");
            }
            if self.bytes > limits.bytes_max {
                return Err("the budget of memory was spent");
            }
            if spent.is_multiple_of(STOP_INTERVAL) && stop() {
                return Err("the caller stopped the search");
            }
            let Some((_, next)) = frames.last_mut() else { return Ok(false) };
            if *next < self.chains.len() {
                let chain = *next;
                *next += 1;
                let before = self.order.len();
                if self.step(chain) {
                    self.take_reads();
                    if self.failed.contains(&self.key()) {
                        self.retreat(before);
                    } else {
                        frames.push((before, 0));
                    }
                }
                continue;
            }
            if self.order.len() >= self.best {
                self.best = self.order.len();
                self.stuck = self.open().collect();
            }
            let key = self.key();
            self.bytes += key.len() * 4 + 48;
            self.failed.insert(key);
            let (before, _) = frames.pop().expect("looked at above");
            self.retreat(before);
        }
    }

    fn open(&self) -> impl Iterator<Item = OperationIndex> {
        let required = self.chains.iter().zip(&self.at).filter(|(chain, _)| !chain.optional);
        required.filter_map(|(chain, at)| chain.steps.get(*at as usize)).map(|step| step.operation)
    }

    /// Takes the next operation of a chain, if it fits.
    fn step(&mut self, chain: usize) -> bool {
        let Chain { steps, after, optional } = &self.chains[chain];
        let place = self.at[chain] as usize;
        let Some(Step { entry, part, .. }) = steps.get(place) else { return false };
        if after.is_some_and(|(other, length)| self.at[other] < length) {
            return false;
        }
        let (part, optional) = (*part, *optional);
        let before = &self.states[part];
        let Some(next) = self.model.step(before, &entry.op, entry.answer.as_ref()) else { return false };
        let replaced = if next == *before {
            // One that changes nothing and need not happen explains nothing.
            if optional {
                return false;
            }
            None
        } else {
            let old = std::mem::replace(&mut self.states[part], next);
            let id = self.intern(part);
            Some((old, std::mem::replace(&mut self.state_ids[part], id)))
        };
        self.at[chain] += 1;
        self.order.push((chain, place, replaced));
        true
    }

    /// Takes every read that is next in its session and fits: in any order that completes this one it could
    /// as well come first.
    fn take_reads(&mut self) {
        let mut chain = 0;
        while chain < self.chains.len() {
            let next = self.chains[chain].steps.get(self.at[chain] as usize);
            let taken = next.is_some_and(|step| step.read_only) && self.step(chain);
            chain += usize::from(!taken);
        }
    }

    fn retreat(&mut self, length: usize) {
        while self.order.len() > length {
            let Some((chain, place, replaced)) = self.order.pop() else { return };
            self.at[chain] -= 1;
            if let Some((state, id)) = replaced {
                let part = self.chains[chain].steps[place].part;
                (self.states[part], self.state_ids[part]) = (state, id);
            }
        }
    }

    fn key(&self) -> Box<[u32]> {
        self.at.iter().chain(&self.state_ids).copied().collect()
    }
}
