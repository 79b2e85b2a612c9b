//! Linearizability of a history that is still growing, in bounded memory.
//!
//! For every part (key) there is a set of *configurations*: a state that the object may be in, and which of
//! the open operations have already taken effect. When an operation returns, each configuration is extended by open
//! operations until that one has taken effect; configurations in which it cannot are dropped (Lowe, "Testing for
//! Linearizability", 2017, section 4). When none is left, the history up to here is not linearizable, and never will be. At a
//! moment with nothing open, only states remain: the history before it is forgotten.
//!
//! What an operation answers must be known before it can take effect in somebody's past. So events wait
//! until the outcome of every operation invoked before them is known.
//!
//! Operations of unknown outcome stay open for good. Of two configurations with the same state and the same required
//! operations, one that used fewer of those can do all that the other can, and replaces it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::BufRead;

use serde_json::{Map, Value};

use crate::Error;
use crate::explain::named;
use crate::format::{Event, ReadLimits, read_header};
use crate::history::{Header, History, Moment, Operation, Outcome};
use crate::judge::Object;
use crate::model::{Bank, Counter, Election, Etcd, KeyValue, Lock, Model, Sequence, Set};

/// Bounds on what a follower holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowLimits {
    /// Configurations of one part. Beyond, the answer is unknown. Default: 100,000.
    pub configurations_max: usize,
    /// Events that wait for the outcome of an earlier operation. Beyond, that operation is taken to be of
    /// unknown outcome, and the answer can no longer be no. Default: 1,000,000.
    pub waiting_max: usize,
}

impl Default for FollowLimits {
    fn default() -> FollowLimits {
        FollowLimits { configurations_max: 100_000, waiting_max: 1_000_000 }
    }
}

/// How it stands with a growing history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Linearizable so far.
    Yes,
    /// Not linearizable, whatever comes.
    No {
        /// The line at which it stopped being so.
        line: u64,
        /// The operation that returned there, and what it could have found.
        words: String,
    },
    /// A bound was reached.
    Unknown {
        /// The line at which it was.
        line: u64,
        /// Which bound.
        words: String,
    },
}

/// Follows a history in our own format, line by line.
///
/// ```
/// use synod_check::stream::{Follower, Standing};
/// let mut follower = Follower::new(Default::default());
/// follower.line(r#"{"synod-history":1,"object":"register"}"#)?;
/// follower.line(r#"{"event":"invoke","id":0,"client":"a","op":"read"}"#)?;
/// follower.line(r#"{"event":"ok","id":0,"value":7}"#)?;
/// assert!(matches!(follower.standing(), Standing::No { line: 3, .. }));
/// # Ok::<(), synod_check::Error>(())
/// ```
pub struct Follower {
    limits: FollowLimits,
    number: u64,
    returned: u64,
    watcher: Option<Box<dyn Watch>>,
}

impl Follower {
    /// A follower that has seen nothing.
    pub fn new(limits: FollowLimits) -> Follower {
        Follower { limits, number: 0, returned: 0, watcher: None }
    }

    /// Takes the next line. Errors: it is no line of a history, or of no object that can be followed.
    pub fn line(&mut self, text: &str) -> Result<(), Error> {
        self.number += 1;
        if text.trim().is_empty() {
            return Ok(());
        }
        let line = self.number;
        let malformed = |problem: String| Error::Malformed { line, problem };
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| malformed(format!("this is no JSON object: {error}")))?;
        let Some(watcher) = &mut self.watcher else {
            let header = read_header(fields).map_err(malformed)?;
            self.watcher = Some(watcher(&header, self.limits).map_err(malformed)?);
            return Ok(());
        };
        let (_, event) = Event::of(fields).map_err(malformed)?;
        self.returned += u64::from(matches!(event, Event::Complete { .. }));
        watcher.event(line, event).map_err(malformed)
    }

    /// Takes lines until the input ends, which may be for now. Errors: as [`Follower::line`], or the input's own.
    pub fn read(&mut self, input: impl BufRead, limits: ReadLimits) -> Result<(), Error> {
        let mut lines = crate::format::Lines::new(input, limits);
        while let Some((text, _)) = lines.next()? {
            self.line(text)?;
        }
        Ok(())
    }

    /// Nothing more will come: what has no outcome yet never will.
    pub fn finish(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.finish(self.number);
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        self.watcher.as_ref().map_or(Standing::Yes, |watcher| watcher.standing())
    }

    /// Operations that returned so far.
    pub fn operations(&self) -> u64 {
        self.returned
    }

    /// Configurations that are held now.
    pub fn configurations(&self) -> usize {
        self.watcher.as_ref().map_or(0, |watcher| watcher.configurations())
    }
}

trait Watch {
    fn event(&mut self, line: u64, event: Event) -> Result<(), String>;
    fn finish(&mut self, line: u64);
    fn standing(&self) -> Standing;
    fn configurations(&self) -> usize;
}

fn watcher(header: &Header, limits: FollowLimits) -> Result<Box<dyn Watch>, String> {
    let history = History { header: header.clone(), operations: Vec::new(), notes: Vec::new() };
    let Some(object) = Object::named(&header.object) else {
        return Err(format!("the header names {:?}, which is no object that we know", header.object));
    };
    fn watch<M: Model + 'static>(model: M, divides: bool, limits: FollowLimits) -> Box<dyn Watch> {
        Box::new(Watcher {
            model,
            divides,
            limits,
            waiting: VecDeque::new(),
            outcomes: HashMap::new(),
            undecided: HashMap::new(),
            open: HashMap::new(),
            parts: BTreeMap::new(),
            standing: Standing::Yes,
        })
    }
    Ok(match object {
        Object::Register | Object::Kv => watch(KeyValue::of(&history), true, limits),
        Object::Counter => watch(Counter::of(&history), true, limits),
        Object::Queue => watch(Sequence::Queue, true, limits),
        Object::Stack => watch(Sequence::Stack, true, limits),
        Object::Mutex => watch(Lock::mutex(), true, limits),
        Object::Lock => watch(Lock::fenced(&history), true, limits),
        Object::Election => watch(Election, true, limits),
        // Something that touches all of it may come at any time.
        Object::Set => watch(Set::of(&history), false, limits),
        Object::Etcd => watch(Etcd::of(&history), false, limits),
        Object::Bank => watch(Bank::of(&history)?, false, limits),
        Object::ListAppend | Object::RwRegister => {
            return Err("transactions cannot be followed; judge the whole history instead".into());
        }
    })
}

/// An event that waits for the outcomes of earlier operations.
enum Waiting {
    Invoke(u64),
    Return(u64, u64),
}

struct Open<M: Model> {
    part: Option<String>,
    op: M::Op,
    answer: Option<M::Answer>,
    /// Whether it must take effect before it returns.
    required: bool,
    /// As a person would write it.
    shown: String,
}

/// A state, and the open operations that have taken effect: required ones, and those of unknown outcome.
type Configuration<S> = (S, Vec<u64>, Vec<u64>);

/// By state and required operations done: the minimal sets of used operations of unknown outcome.
type MinimalSets<S> = HashMap<(S, Vec<u64>), Vec<Vec<u64>>>;

struct Part<S> {
    configurations: Vec<Configuration<S>>,
    open: Vec<u64>,
}

struct Watcher<M: Model> {
    model: M,
    divides: bool,
    limits: FollowLimits,
    waiting: VecDeque<Waiting>,
    /// Operations that have returned, with their line, while their invocation still waits.
    outcomes: HashMap<u64, (Operation, u64)>,
    /// Operations without an outcome yet.
    undecided: HashMap<u64, Operation>,
    open: HashMap<u64, Open<M>>,
    parts: BTreeMap<Option<String>, Part<M::State>>,
    standing: Standing,
}

impl<M: Model> Watch for Watcher<M> {
    fn event(&mut self, line: u64, event: Event) -> Result<(), String> {
        match event {
            Event::Invoke { id, client, node, session, call } => {
                if self.undecided.contains_key(&id)
                    || self.outcomes.contains_key(&id)
                    || self.open.contains_key(&id)
                {
                    return Err(format!("operation {id} was invoked before"));
                }
                // An early look, so that what is no operation of this object is told at its line.
                self.model.decode(&call, None)?;
                let invoked = Moment { order: line, time: None };
                let operation = Operation {
                    id,
                    client: client.into(),
                    node: node.map(Into::into),
                    session: session.map(Into::into),
                    call,
                    invoked,
                    returned: None,
                    outcome: Outcome::Unknown { error: None },
                };
                self.undecided.insert(id, operation);
                self.waiting.push_back(Waiting::Invoke(id));
            }
            Event::Complete { id, outcome } => {
                let Some(mut operation) = self.undecided.remove(&id) else {
                    return Err(format!("operation {id} returns, but it is not open"));
                };
                operation.outcome = outcome;
                self.model.decode_operation(&operation)?;
                if matches!(operation.outcome, Outcome::Ok(_)) {
                    self.waiting.push_back(Waiting::Return(id, line));
                }
                self.outcomes.insert(id, (operation, line));
            }
            Event::Note { .. } => {}
        }
        if self.waiting.len() > self.limits.waiting_max {
            self.give_up(line, "too many events wait for the outcome of an earlier operation");
        }
        self.drain();
        Ok(())
    }

    fn finish(&mut self, line: u64) {
        for (id, operation) in std::mem::take(&mut self.undecided) {
            self.outcomes.insert(id, (operation, line));
        }
        self.drain();
    }

    fn standing(&self) -> Standing {
        self.standing.clone()
    }

    fn configurations(&self) -> usize {
        self.parts.values().map(|part| part.configurations.len()).sum()
    }
}

impl<M: Model> Watcher<M> {
    fn give_up(&mut self, line: u64, words: &str) {
        if self.standing == Standing::Yes {
            self.standing = Standing::Unknown { line, words: words.to_owned() };
        }
        self.waiting.clear();
        self.parts.clear();
    }

    /// Plays the events whose operations are all decided.
    fn drain(&mut self) {
        while self.standing == Standing::Yes {
            match self.waiting.front() {
                Some(Waiting::Invoke(id)) => {
                    let Some((operation, _)) = self.outcomes.remove(id) else { return };
                    let id = *id;
                    self.waiting.pop_front();
                    self.invoke(id, &operation);
                }
                Some(Waiting::Return(id, line)) => {
                    let (id, line) = (*id, *line);
                    self.waiting.pop_front();
                    self.returns(id, line);
                }
                None => return,
            }
        }
    }

    fn invoke(&mut self, id: u64, operation: &Operation) {
        if matches!(operation.outcome, Outcome::Fail { .. }) {
            return;
        }
        let Ok((op, answer)) = self.model.decode_operation(operation) else { return };
        let required = matches!(operation.outcome, Outcome::Ok(_));
        // One of unknown outcome that changes nothing says nothing.
        if !required && self.model.is_read_only(&op, answer.as_ref()) {
            return;
        }
        let name = self.model.part(&op).filter(|_| self.divides).map(str::to_owned);
        let init =
            || Part { configurations: vec![(self.model.init(), Vec::new(), Vec::new())], open: Vec::new() };
        self.parts.entry(name.clone()).or_insert_with(init).open.push(id);
        self.open.insert(id, Open { part: name, op, answer, required, shown: named(operation) });
    }

    fn returns(&mut self, id: u64, line: u64) {
        let Some(operation) = self.open.get(&id) else { return };
        let name = operation.part.clone();
        let Some(part) = self.parts.get(&name) else { return };
        let Some(next) = self.extend(part, id) else {
            return self.give_up(line, "the budget of configurations was spent");
        };
        if next.is_empty() {
            let states = part.configurations.iter().map(|(state, ..)| self.model.describe(state));
            let mut states: Vec<String> = states.take(64).collect();
            states.sort();
            states.dedup();
            states.truncate(8);
            let words = format!(
                "no order explains {}; before it and what was open beside it, the state could be: {}",
                operation.shown,
                states.join(", or ")
            );
            self.standing = Standing::No { line, words };
            return;
        }
        self.open.remove(&id);
        if let Some(part) = self.parts.get_mut(&name) {
            part.open.retain(|open| *open != id);
            part.configurations = next;
        }
    }

    /// All configurations in which the operation has taken effect, without it. `None`: there are too many.
    fn extend(&self, part: &Part<M::State>, id: u64) -> Option<Vec<Configuration<M::State>>> {
        let mut seen = MinimalSets::new();
        let mut found = MinimalSets::new();
        let mut queue: VecDeque<Configuration<M::State>> = part.configurations.iter().cloned().collect();
        let mut entered = 0;
        while let Some((state, done, used)) = queue.pop_front() {
            if done.contains(&id) {
                let done: Vec<u64> = done.into_iter().filter(|other| *other != id).collect();
                keep_minimal(found.entry((state, done)).or_default(), used);
                continue;
            }
            if !keep_minimal(seen.entry((state.clone(), done.clone())).or_default(), used.clone()) {
                continue;
            }
            entered += 1;
            if entered > self.limits.configurations_max {
                return None;
            }
            for next in &part.open {
                let Some(operation) = self.open.get(next) else { continue };
                if done.contains(next) || used.contains(next) {
                    continue;
                }
                let Some(after) = self.model.step(&state, &operation.op, operation.answer.as_ref()) else {
                    continue;
                };
                if operation.required {
                    queue.push_back((after, with(&done, *next), used.clone()));
                } else if after != state {
                    queue.push_back((after, done.clone(), with(&used, *next)));
                }
            }
        }
        let all = found.into_iter().flat_map(|((state, done), sets)| {
            sets.into_iter().map(move |used| (state.clone(), done.clone(), used))
        });
        Some(all.collect())
    }
}

fn with(sorted: &[u64], id: u64) -> Vec<u64> {
    let mut longer = sorted.to_vec();
    longer.insert(sorted.partition_point(|other| *other < id), id);
    longer
}

/// Adds a set unless one that is in it is there already; drops those that contain it. Whether it was added.
fn keep_minimal(sets: &mut Vec<Vec<u64>>, new: Vec<u64>) -> bool {
    let within = |small: &[u64], large: &[u64]| small.iter().all(|id| large.contains(id));
    if sets.iter().any(|set| within(set, &new)) {
        return false;
    }
    sets.retain(|set| !within(&new, set));
    sets.push(new);
    true
}
