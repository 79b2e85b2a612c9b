//! Just-in-time search for a linearization of one part of an object.
//!
//! The search orders operations one at a time: next may come any operation that was invoked before
//! the earliest return among those not yet ordered (Wing and Gong 1993). A *configuration* is the set
//! of operations ordered so far and the state they lead to; what has failed from one configuration is
//! remembered and not tried again (Lowe 2017). On top of that:
//!
//! - Operations which need not return ("optional": unknown outcome, or still open where the history
//!   was cut) are kept apart from those which must ("required"). A step of the search is a chain of
//!   optional operations followed by a required one: optional ones at the very end explain nothing.
//! - *Reads at once.* A required operation that never changes a state is ordered as soon as it may come
//!   next and fits: taking it out of its place in any completion and putting it first changes no state.
//! - *Fewer is better.* If no completion exists after using the optional operations U, none exists from
//!   the same required operations and state after using more than U, since a completion may leave out
//!   what it does not need. Failures are therefore kept as minimal sets. Chains are tried shortest first.
//! - *Twins.* Of optional operations with the same call and answer, the one invoked first is used first:
//!   none has to return, so in any completion twins may change places towards the earlier one.
//! - An optional operation that leaves the state as it is explains nothing now, and is not used.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::linearizable::Limits;
use crate::model::{Entry, Model, NEVER};

/// How often the stop callback is asked, in configurations.
const STOP_INTERVAL: u64 = 256;
/// Rough cost of one entry in a hash map beside its contents, in bytes.
const ENTRY_BYTES: usize = 64;
/// States that are reported at the point where the search got stuck.
const STUCK_STATES_MAX: usize = 8;

/// What may still be spent, shared by all searches in one part.
pub(crate) struct Budget<'a> {
    pub(crate) configurations: u64,
    pub(crate) bytes: usize,
    pub(crate) stop: &'a mut dyn FnMut() -> bool,
    pub(crate) spent: u64,
    pub(crate) bytes_peak: usize,
    /// Set once and for all by the first charge that could not be paid.
    pub(crate) exhausted: Option<Exhausted>,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: &Limits, stop: &'a mut dyn FnMut() -> bool) -> Budget<'a> {
        Budget {
            configurations: limits.configurations_max,
            bytes: limits.bytes_max,
            stop,
            spent: 0,
            bytes_peak: 0,
            exhausted: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    Configurations,
    Bytes,
    Stopped,
}

/// Where the search came furthest: an order of all that returned before `blocked` did.
#[derive(Debug)]
pub(crate) struct Furthest<S> {
    pub(crate) order: Vec<u32>,
    pub(crate) blocked: Option<u32>,
    pub(crate) states: Vec<S>,
}

#[derive(Debug)]
pub(crate) enum Answer<S> {
    /// All required operations (and some optional ones), in an order that explains them.
    Found(Vec<u32>),
    /// There is no such order.
    Impossible(Furthest<S>),
    /// The budget was spent first.
    Exhausted(Exhausted, Furthest<S>),
}

/// Searches for an order. Indices in the answer are those of `entries`. Between any two operations the
/// state may also become one of `jumps`.
pub(crate) fn search<M: Model>(
    model: &M,
    entries: &[Entry<M>],
    jumps: Vec<M::State>,
    budget: &mut Budget<'_>,
) -> Answer<M::State> {
    let mut search = Search::new(model, entries);
    search.jumps = jumps.into_iter().map(|state| search.intern(state)).collect();
    search.run(budget)
}

/// A fast hash for keys of our own making; a history made to collide costs its author's own budget.
#[derive(Default)]
pub(crate) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        // The table uses the top bits and the low bits; a multiplication fills only the top ones.
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.write_u64(rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

type WordMap<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;
type Words = Box<[u64]>;

struct Required {
    invoke: u64,
    ret: u64,
    entry: u32,
    read_only: bool,
}

struct Optional {
    invoke: u64,
    entry: u32,
    /// The twin that must be used before this one.
    twin: Option<u32>,
}

/// A way to reach `state` by optional operations alone.
struct Chain {
    state: u32,
    used: Vec<u32>,
}

struct Frame {
    /// Required operations that may come next, those with the earliest return first.
    candidates: Box<[u32]>,
    /// The earliest return among the required operations not yet ordered, and whose it is.
    deadline: (u64, u32),
    state: u32,
    /// Length of `order` when the frame was entered, to which a retreat cuts it back.
    ordered: usize,
    chains: Vec<Chain>,
    chained: bool,
    chain: usize,
    next: usize,
}

struct Search<'a, M: Model> {
    model: &'a M,
    entries: &'a [Entry<M>],
    required: Vec<Required>,
    optional: Vec<Optional>,
    /// Which required operations are ordered, as bits; all below `low` are.
    done: Vec<u64>,
    low: usize,
    /// All words of `done` from here on are zero.
    high: usize,
    /// Which optional operations are used, as bits.
    used: Vec<u64>,
    /// The order so far: required operations by index, optional ones by index with `OPTIONAL` set.
    order: Vec<u32>,
    frames: Vec<Frame>,
    jumps: Vec<u32>,
    states: Vec<Rc<M::State>>,
    state_ids: WordMap<Rc<M::State>, u32>,
    /// The state that each entry last led to: mostly, as after a write, it is the same from everywhere.
    led_to: Vec<u32>,
    /// For (required operations, state): the minimal sets of used optional operations that were tried.
    tried: WordMap<Words, Vec<Words>>,
    bytes: usize,
    best: Furthest<u32>,
    best_deadline: u64,
}

const OPTIONAL: u32 = 1 << 31;

/// What entering a configuration came to.
enum Entered {
    Complete,
    Known,
    Open,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, entries: &'a [Entry<M>]) -> Self {
        assert!(
            entries.len() < OPTIONAL as usize,
            "the reader's limits keep histories below 2^31 operations"
        );
        let mut by_invocation: Vec<u32> = (0..entries.len() as u32).collect();
        by_invocation.sort_by_key(|index| entries[*index as usize].invoke);
        let (mut required, mut optional) = (Vec::new(), Vec::new());
        let mut twins: HashMap<(&M::Op, &Option<M::Answer>), u32> = HashMap::new();
        for index in by_invocation {
            let entry = &entries[index as usize];
            assert!(entry.invoke < entry.ret, "an operation returns after its invocation");
            let read_only = model.is_read_only(&entry.op, entry.answer.as_ref());
            if entry.ret != NEVER {
                required.push(Required { invoke: entry.invoke, ret: entry.ret, entry: index, read_only });
            } else if !read_only {
                let twin = twins.insert((&entry.op, &entry.answer), optional.len() as u32);
                optional.push(Optional { invoke: entry.invoke, entry: index, twin });
            }
        }
        let bytes = entries.len() * (size_of::<Entry<M>>() + ENTRY_BYTES);
        Search {
            model,
            entries,
            done: vec![0; required.len() / 64 + 1],
            low: 0,
            high: 0,
            used: vec![0; optional.len() / 64 + 1],
            required,
            optional,
            order: Vec::new(),
            frames: Vec::new(),
            jumps: Vec::new(),
            states: Vec::new(),
            state_ids: WordMap::default(),
            led_to: vec![u32::MAX; entries.len()],
            tried: WordMap::default(),
            bytes,
            best: Furthest { order: Vec::new(), blocked: None, states: Vec::new() },
            best_deadline: 0,
        }
    }

    fn run(mut self, budget: &mut Budget<'_>) -> Answer<M::State> {
        let init = self.intern(self.model.init());
        let mut entered = self.enter(init, 0);
        loop {
            if matches!(entered, Entered::Complete) {
                budget.bytes_peak = budget.bytes_peak.max(self.bytes);
                return Answer::Found(self.entry_order(&self.order));
            }
            self.charge(budget);
            let next = if budget.exhausted.is_none() { self.advance(budget) } else { None };
            // Also asked after `advance`, which may have run out in the middle of its chains.
            if let Some(why) = budget.exhausted {
                self.remember_furthest();
                return Answer::Exhausted(why, self.furthest());
            }
            match next {
                Some(next) => entered = next,
                None => {
                    budget.bytes_peak = budget.bytes_peak.max(self.bytes);
                    return Answer::Impossible(self.furthest());
                }
            }
        }
    }

    /// Charges one configuration; whether it could be paid.
    fn charge(&self, budget: &mut Budget<'_>) -> bool {
        budget.spent += 1;
        budget.bytes_peak = budget.bytes_peak.max(self.bytes);
        if budget.exhausted.is_none() {
            budget.exhausted = if budget.spent > budget.configurations {
                Some(Exhausted::Configurations)
            } else if self.bytes > budget.bytes {
                Some(Exhausted::Bytes)
            } else {
                (budget.spent.is_multiple_of(STOP_INTERVAL) && (budget.stop)()).then_some(Exhausted::Stopped)
            };
        }
        budget.exhausted.is_none()
    }

    /// Takes the next untried step of the innermost frame, leaving frames that have none.
    /// `None`: all of the search is done.
    fn advance(&mut self, budget: &mut Budget<'_>) -> Option<Entered> {
        loop {
            let frame = self.frames.last_mut()?;
            if frame.next < frame.candidates.len() {
                let candidate = frame.candidates[frame.next];
                frame.next += 1;
                let chain = frame.chained.then_some(frame.chain);
                let state = chain.map_or(frame.state, |chain| frame.chains[chain].state);
                let Some(next) = self.step(state, self.required[candidate as usize].entry) else { continue };
                let ordered = self.order.len();
                if let Some(chain) = chain {
                    let used = self.frames[self.frames.len() - 1].chains[chain].used.clone();
                    used.into_iter().for_each(|optional| self.take_optional(optional));
                }
                self.take_required(candidate);
                return Some(self.enter(next, ordered));
            }
            if frame.chained {
                frame.chain += 1;
            } else {
                let chains = self.chains(budget);
                let frame = self.frames.last_mut().expect("looked at above");
                (frame.chains, frame.chained) = (chains, true);
            }
            let frame = self.frames.last_mut().expect("looked at above");
            frame.next = 0;
            if frame.chain >= frame.chains.len() {
                self.remember_furthest();
                let frame = self.frames.pop().expect("looked at above");
                self.bytes -= frame.chains.iter().map(Chain::bytes).sum::<usize>();
                self.retreat(frame.ordered);
            }
        }
    }

    /// Enters the configuration that `order` now stands for. Opens a frame unless that is pointless,
    /// in which case the order is cut back to `ordered`.
    fn enter(&mut self, state: u32, ordered: usize) -> Entered {
        let (candidates, deadline) = loop {
            let (window, deadline) = self.window();
            if window.is_empty() {
                return Entered::Complete;
            }
            let before = self.order.len();
            for index in &window {
                let Required { read_only, entry, .. } = self.required[*index as usize];
                if read_only && self.step(state, entry).is_some() {
                    self.take_required(*index);
                }
            }
            if self.order.len() == before {
                break (window, deadline);
            }
        };
        if !self.is_new(state) {
            self.retreat(ordered);
            return Entered::Known;
        }
        self.frames.push(Frame {
            candidates: candidates.into(),
            deadline,
            state,
            ordered,
            chains: Vec::new(),
            chained: false,
            chain: 0,
            next: 0,
        });
        Entered::Open
    }

    /// The required operations that may come next, earliest return first, and that earliest return.
    fn window(&self) -> (Vec<u32>, (u64, u32)) {
        let mut window = Vec::new();
        let mut deadline = (NEVER, u32::MAX);
        // In the order of invocation, so a later return never ends before an earlier invocation: what was
        // put into the window stays in it.
        for index in self.low..self.required.len() {
            let required = &self.required[index];
            if required.invoke > deadline.0 {
                break;
            }
            if !has(&self.done, index) {
                window.push(index as u32);
                deadline = deadline.min((required.ret, index as u32));
            }
        }
        window.sort_by_key(|index| self.required[*index as usize].ret);
        (window, deadline)
    }

    /// Whether the configuration is worth entering; remembers it.
    fn is_new(&mut self, state: u32) -> bool {
        let from = self.low / 64;
        while self.high > from && self.done[self.high - 1] == 0 {
            self.high -= 1;
        }
        let to = self.high.max(from);
        let mut key = Vec::with_capacity(to - from + 1);
        key.push((self.low as u64) << 32 | u64::from(state));
        key.extend_from_slice(&self.done[from..to]);
        let used_words = self.used.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let used = &self.used[..used_words];
        let bytes = size_of_val(used) + size_of::<Words>();
        match self.tried.get_mut(key.as_slice()) {
            Some(sets) => {
                if sets.iter().any(|set| is_subset(set, used)) {
                    return false;
                }
                let before = sets.len();
                sets.retain(|set| !is_subset(used, set));
                // Sets that a smaller one replaces differ little in size from it.
                self.bytes = (self.bytes + bytes).saturating_sub((before - sets.len()) * bytes);
                sets.push(used.into());
            }
            None => {
                self.bytes += ENTRY_BYTES + key.len() * 8 + bytes;
                let used: Words = used.into();
                self.tried.insert(key.into(), vec![used]);
            }
        }
        true
    }

    /// All states that optional operations alone lead to from the innermost frame, by minimal sets of
    /// them, shortest first. Incomplete once the budget is spent, which the next charge reports.
    fn chains(&mut self, budget: &mut Budget<'_>) -> Vec<Chain> {
        let frame = self.frames.last().expect("called with a frame");
        let deadline = frame.deadline.0;
        let open: Vec<u32> = (0..self.optional.len() as u32)
            .take_while(|index| self.optional[*index as usize].invoke < deadline)
            .filter(|index| !has(&self.used, *index as usize))
            .collect();
        if open.is_empty() && self.jumps.is_empty() {
            return Vec::new();
        }
        // The empty chain stands first, so that a way back to the frame's own state is seen as useless.
        let mut chains = vec![Chain { state: frame.state, used: Vec::new() }];
        let mut by_state: WordMap<u32, Vec<usize>> = WordMap::default();
        by_state.insert(frame.state, vec![0]);
        for state in &self.jumps {
            by_state.entry(*state).or_insert_with(|| {
                chains.push(Chain { state: *state, used: Vec::new() });
                vec![chains.len() - 1]
            });
        }
        self.bytes += chains[1..].iter().map(Chain::bytes).sum::<usize>();
        let mut next = 0;
        while !open.is_empty() && next < chains.len() && self.charge(budget) {
            let state = chains[next].state;
            for optional in &open {
                let Optional { entry, twin, .. } = self.optional[*optional as usize];
                let used = &chains[next].used;
                let twin_waits =
                    twin.is_some_and(|twin| !has(&self.used, twin as usize) && !used.contains(&twin));
                if twin_waits || used.contains(optional) {
                    continue;
                }
                let Some(after) = self.step(state, entry).filter(|after| *after != state) else { continue };
                let known = by_state.entry(after).or_default();
                let used = &chains[next].used;
                let dominated =
                    |chain: &usize| chains[*chain].used.iter().all(|u| u == optional || used.contains(u));
                if known.iter().any(dominated) {
                    continue;
                }
                let mut longer = Vec::with_capacity(used.len() + 1);
                longer.extend_from_slice(used);
                longer.push(*optional);
                known.push(chains.len());
                let chain = Chain { state: after, used: longer };
                self.bytes += chain.bytes();
                chains.push(chain);
            }
            next += 1;
        }
        chains.remove(0);
        chains
    }

    fn step(&mut self, state: u32, entry: u32) -> Option<u32> {
        let Entry { op, answer, .. } = &self.entries[entry as usize];
        let before = &self.states[state as usize];
        let after = self.model.step(before, op, answer.as_ref())?;
        if after == **before {
            return Some(state);
        }
        let guess = self.led_to[entry as usize];
        if self.states.get(guess as usize).is_some_and(|known| **known == after) {
            return Some(guess);
        }
        let id = self.intern(after);
        self.led_to[entry as usize] = id;
        Some(id)
    }

    fn intern(&mut self, state: M::State) -> u32 {
        if let Some(id) = self.state_ids.get(&state) {
            return *id;
        }
        self.bytes += self.model.state_bytes(&state) + ENTRY_BYTES;
        let id = u32::try_from(self.states.len()).expect("the budget of bytes keeps states below 2^32");
        let state = Rc::new(state);
        self.states.push(state.clone());
        self.state_ids.insert(state, id);
        id
    }

    fn take_required(&mut self, index: u32) {
        set(&mut self.done, index as usize);
        self.high = self.high.max(index as usize / 64 + 1);
        while self.low < self.required.len() && has(&self.done, self.low) {
            self.low += 1;
        }
        self.order.push(index);
    }

    fn take_optional(&mut self, index: u32) {
        set(&mut self.used, index as usize);
        self.order.push(index | OPTIONAL);
    }

    /// Undoes the order down to this length.
    fn retreat(&mut self, ordered: usize) {
        while self.order.len() > ordered {
            let last = self.order.pop().expect("longer than `ordered`");
            if last & OPTIONAL != 0 {
                clear(&mut self.used, (last & !OPTIONAL) as usize);
            } else {
                clear(&mut self.done, last as usize);
                self.low = self.low.min(last as usize);
            }
        }
    }

    /// Notes the innermost frame if no other came further.
    fn remember_furthest(&mut self) {
        let Some(frame) = self.frames.last() else { return };
        let (deadline, blocked) = frame.deadline;
        if deadline > self.best_deadline {
            self.best_deadline = deadline;
            let order = self.entry_order(&self.order);
            let blocked = Some(self.required[blocked as usize].entry);
            self.best = Furthest { order, blocked, states: Vec::new() };
        }
        if deadline == self.best_deadline {
            let states = std::iter::once(frame.state).chain(frame.chains.iter().map(|chain| chain.state));
            for state in states {
                if self.best.states.len() < STUCK_STATES_MAX && !self.best.states.contains(&state) {
                    self.best.states.push(state);
                }
            }
        }
    }

    fn furthest(self) -> Furthest<M::State> {
        let Furthest { order, blocked, states } = self.best;
        let states = states.into_iter().map(|id| (*self.states[id as usize]).clone()).collect();
        Furthest { order, blocked, states }
    }

    fn entry_order(&self, order: &[u32]) -> Vec<u32> {
        let entry = |index: u32| match index & OPTIONAL {
            0 => self.required[index as usize].entry,
            _ => self.optional[(index & !OPTIONAL) as usize].entry,
        };
        order.iter().map(|index| entry(*index)).collect()
    }
}

impl Chain {
    fn bytes(&self) -> usize {
        size_of::<Chain>() + self.used.len() * size_of::<u32>()
    }
}

fn has(bits: &[u64], index: usize) -> bool {
    bits[index / 64] & (1 << (index % 64)) != 0
}

fn set(bits: &mut [u64], index: usize) {
    bits[index / 64] |= 1 << (index % 64);
}

fn clear(bits: &mut [u64], index: usize) {
    bits[index / 64] &= !(1 << (index % 64));
}

/// Whether every bit of `small` is in `large`; missing words are zero.
fn is_subset(small: &[u64], large: &[u64]) -> bool {
    small.iter().enumerate().all(|(index, word)| word & !large.get(index).copied().unwrap_or(0) == 0)
}
