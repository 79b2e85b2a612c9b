//! Linearizability: is there one order of all operations, which respects what returned before what
//! was invoked, and in which each answer is the one a sequential object would give? (Herlihy and Wing
//! 1990.)
//!
//! Operations that failed never took effect and are left out. Operations of unknown outcome may take
//! effect at any one moment after their invocation, or never. The history is divided into parts which
//! are judged apart ([`crate::model::Model::part`]), small ones first.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;

use crate::Error;
use crate::explain;
use crate::history::{History, Outcome};
use crate::minimise;
use crate::model::{Entry, Model, NEVER};
use crate::parts::{Decided, decide_all};
use crate::search::{Budget, Exhausted, Furthest};

/// What a check may spend. One configuration is one partial order tried, some hundred nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Configurations to enter in search of an order, for each independent part. Default: 50 million.
    pub configurations_max: u64,
    /// Bytes to hold at once, roughly. Default: 2 GiB.
    pub bytes_max: usize,
    /// Configurations to spend on making a contradiction shorter. Default: 2 million.
    pub minimise_configurations_max: u64,
    /// Threads for independent parts, at most 16. Answers do not depend on it. Default: as many as the machine has cores.
    pub threads_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            configurations_max: 50_000_000,
            bytes_max: 2 << 30,
            minimise_configurations_max: 2_000_000,
            threads_max: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }
}

/// An operation, as its index in [`History::operations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationIndex(pub usize);

/// The answer to a check, and what it cost.
#[derive(Clone, Debug)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// Operations that had to be judged: all but the failed ones.
    pub operations: usize,
    /// Independent parts (such as keys) that these divide into.
    pub parts: usize,
    /// Parts that were decided without search, by [`Model::shortcut`].
    pub shortcuts: usize,
    /// Configurations entered.
    pub configurations: u64,
    /// Bytes held at once, at the most, roughly.
    pub bytes_peak: usize,
}

/// Whether a history is linearizable.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is, and this order shows it.
    Yes(Witness),
    /// It is not, and these operations show it.
    No(Contradiction),
    /// The budget was spent before the answer was found.
    Unknown(Unfinished),
}

/// An order of operations that explains a whole history; anybody can replay it, see [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// All operations that succeeded, and those of unknown outcome that had to take effect.
    pub order: Vec<OperationIndex>,
}

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The part (the key) in which it lies; `None` if the history was not divided.
    pub part: Option<String>,
    /// Operations that have no order between them, even if every other operation invoked before
    /// `blocked` returned were free to take effect at any time, any number of times, or never (only reads
    /// and failed comparisons still change nothing). The history of these alone, up to the return of `blocked`, is not linearizable either (where those
    /// still open then give their later answers or are left out). In the order of invocation.
    pub operations: Vec<OperationIndex>,
    /// Whether it was tried in vain to set free any one of `operations` as well. `false`: the budget for making the
    /// contradiction shorter was spent first.
    pub minimal: bool,
    /// The operation at whose return the part stops being linearizable.
    pub blocked: OperationIndex,
    /// An order of everything in the part that returned before `blocked` did: the longest prefix of
    /// the part that can be explained (where operations then still open give their later answers).
    /// `None`: the contradiction was found without a search, and an earlier one may exist.
    pub prefix: Option<Vec<OperationIndex>>,
    /// States the object could be in when `blocked` had to find its place. At most eight are named.
    pub states: Vec<String>,
    /// The above in words and a picture, for people: lines of plain text.
    pub explanation: String,
}

/// Why there is no answer, and what was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// What stopped the search.
    pub why: Stopped,
    /// Parts that were proved linearizable.
    pub proved: Vec<Option<String>>,
    /// The part that was being searched.
    pub part: Option<String>,
    /// An order of the longest prefix of that part for which one was found.
    pub prefix: Vec<OperationIndex>,
    /// Further parts that were not decided.
    pub untouched: usize,
}

/// What stopped a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// [`Limits::configurations_max`] was reached.
    Configurations,
    /// [`Limits::bytes_max`] was reached.
    Bytes,
    /// The caller asked for it.
    Caller,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stopped::Configurations => "the budget of configurations was spent",
            Stopped::Bytes => "the budget of memory was spent",
            Stopped::Caller => "the caller stopped the search",
        })
    }
}

/// One line: the answer, without its evidence.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Yes(witness) => write!(f, "linearizable ({} operations in order)", witness.order.len()),
            Verdict::No(no) => write!(f, "not linearizable ({} operations contradict)", no.operations.len()),
            Verdict::Unknown(unknown) => write!(
                f,
                "unknown: {}; {} parts proved linearizable, 1 unfinished, {} others not decided",
                unknown.why,
                unknown.proved.len(),
                unknown.untouched
            ),
        }
    }
}

impl Verdict {
    /// Whether the history was proved linearizable.
    pub fn is_yes(&self) -> bool {
        matches!(self, Verdict::Yes(_))
    }

    /// Whether the history was proved not to be linearizable.
    pub fn is_no(&self) -> bool {
        matches!(self, Verdict::No(_))
    }
}

/// One part of a history, decoded; `operations[i]` is the operation of `entries[i]`.
pub(crate) struct Part<M: Model> {
    pub(crate) name: Option<String>,
    pub(crate) entries: Vec<Entry<M>>,
    pub(crate) operations: Vec<OperationIndex>,
}

impl<M: Model> Part<M> {
    fn indices(&self, order: &[u32]) -> Vec<OperationIndex> {
        order.iter().map(|entry| self.operations[*entry as usize]).collect()
    }
}

/// Decides whether a history is linearizable.
///
/// `stop` is asked every few hundred configurations; once it says `true`, the answer is
/// [`Verdict::Unknown`]. The first part that is not linearizable decides, and the rest is not looked at. Long
/// histories of several parts are judged on [`Limits::threads_max`] threads; the answer is the same on one.
///
/// Errors: an operation that `model` does not know, or whose answer it cannot read.
///
/// ```
/// use synod_check::{history::*, linearizable::*, model::KeyValue};
/// let mut recorder = Recorder::new(Header::new("kv"));
/// let put = recorder.invoke(Nanos(0), "a", Call::put("x", 1));
/// let get = recorder.invoke(Nanos(1), "b", Call::get("x"));
/// recorder.complete(Nanos(2), get, Outcome::Ok(Reply::value(1)));
/// recorder.complete(Nanos(3), put, Outcome::Ok(Reply::none()));
/// let history = recorder.finish();
/// let report = check(&KeyValue::new(), &history, &Limits::default(), &mut || false)?;
/// let Verdict::Yes(witness) = report.verdict else { panic!("the read overlaps the write") };
/// assert_eq!(witness.order, [OperationIndex(0), OperationIndex(1)]);
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn check<M: Model>(
    model: &M,
    history: &History,
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Report, Error> {
    let parts = divide(model, history)?;
    let results = decide_all(model, &parts, limits, stop);
    let spent = results.iter().flatten().map(|(_, spent)| *spent);
    let mut report = Report {
        verdict: Verdict::Yes(Witness { order: Vec::new() }),
        operations: parts.iter().map(|part| part.entries.len()).sum(),
        parts: parts.len(),
        shortcuts: results
            .iter()
            .flatten()
            .filter(|(decided, _)| matches!(decided, Decided::Order(_, true) | Decided::Short(..)))
            .count(),
        configurations: spent.clone().map(|spent| spent.configurations).sum(),
        bytes_peak: spent.map(|spent| spent.bytes_peak).max().unwrap_or(0),
    };
    let decided = results.into_iter().map(|result| result.map(|(decided, _)| decided)).collect();
    let mut budget = Budget::new(limits, stop);
    report.verdict = verdict(model, history, &parts, decided, limits, &mut budget);
    report.configurations += budget.spent;
    report.bytes_peak = report.bytes_peak.max(budget.bytes_peak);
    Ok(report)
}

/// What follows from what was found out about the parts: one without an order decides, and is then the last.
fn verdict<M: Model>(
    model: &M,
    history: &History,
    parts: &[Part<M>],
    mut decided: Vec<Option<Decided<M::State>>>,
    limits: &Limits,
    budget: &mut Budget<'_>,
) -> Verdict {
    if let (Some(last), Some(part)) = (decided.pop(), parts.get(decided.len())) {
        match last {
            Some(Decided::Impossible(furthest)) => {
                return Verdict::No(contradiction(model, history, part, furthest, limits, budget));
            }
            Some(Decided::Short(kept, blocked)) => {
                return Verdict::No(short_contradiction(
                    model, history, part, &kept, blocked, limits, budget,
                ));
            }
            last => decided.push(last),
        }
    }
    let (mut points, mut proved) = (Vec::new(), Vec::new());
    let (mut unfinished, mut untouched) = (None, 0);
    for (part, decided) in parts.iter().zip(decided) {
        match decided {
            Some(Decided::Order(order, _)) => {
                points.extend(linearization_points(part, &order));
                proved.push(part.name.clone());
            }
            Some(Decided::Exhausted(why, furthest)) if unfinished.is_none() => {
                unfinished = Some((why, part.name.clone(), part.indices(&furthest.order)));
            }
            _ => untouched += 1,
        }
    }
    match unfinished {
        Some((why, part, prefix)) => {
            let why = match why {
                Exhausted::Configurations => Stopped::Configurations,
                Exhausted::Bytes => Stopped::Bytes,
                Exhausted::Stopped => Stopped::Caller,
            };
            Verdict::Unknown(Unfinished { why, proved, part, prefix, untouched })
        }
        // Nothing was begun: the caller had said stop before.
        None if untouched > 0 => Verdict::Unknown(Unfinished {
            why: Stopped::Caller,
            proved,
            part: None,
            prefix: Vec::new(),
            untouched,
        }),
        None => {
            points.sort_by_key(|(point, _)| *point);
            Verdict::Yes(Witness { order: points.into_iter().map(|(_, operation)| operation).collect() })
        }
    }
}

/// A contradiction between a few operations, of which the model's own algorithm says that they have no order.
fn short_contradiction<M: Model>(
    model: &M,
    history: &History,
    part: &Part<M>,
    kept: &[u32],
    blocked: u32,
    limits: &Limits,
    budget: &mut Budget<'_>,
) -> Contradiction {
    let own: Vec<Entry<M>> = kept.iter().map(|index| part.entries[*index as usize].clone()).collect();
    let minimal = minimise::minimise(model, &own, &part.entries, blocked, limits, budget);
    let whole = |index: &u32| part.operations[kept[*index as usize] as usize];
    let mut operations: Vec<OperationIndex> = minimal.entries.iter().map(whole).collect();
    operations.sort();
    let mut contradiction = Contradiction {
        part: part.name.clone(),
        operations,
        minimal: minimal.minimal,
        blocked: whole(&blocked),
        prefix: None,
        states: Vec::new(),
        explanation: String::new(),
    };
    contradiction.explanation = explain::explain(history, &contradiction, &part.operations);
    contradiction
}

fn contradiction<M: Model>(
    model: &M,
    history: &History,
    part: &Part<M>,
    furthest: Furthest<M::State>,
    limits: &Limits,
    budget: &mut Budget<'_>,
) -> Contradiction {
    let blocked = furthest.blocked.expect("a search that failed was stuck at some operation");
    let kept = minimise::minimise(model, &part.entries, &part.entries, blocked, limits, budget);
    let mut states: Vec<String> = furthest.states.iter().map(|state| model.describe(state)).collect();
    states.sort();
    let mut contradiction = Contradiction {
        part: part.name.clone(),
        operations: part.indices(&kept.entries),
        minimal: kept.minimal,
        blocked: part.operations[blocked as usize],
        prefix: Some(part.indices(&furthest.order)),
        states,
        explanation: String::new(),
    };
    contradiction.operations.sort();
    contradiction.explanation = explain::explain(history, &contradiction, &part.operations);
    contradiction
}

/// A moment for each operation within its interval, such that the moments follow the order found.
/// Sorting by them merges the orders of parts into one that respects real time across parts.
fn linearization_points<M: Model>(part: &Part<M>, order: &[u32]) -> Vec<(u64, OperationIndex)> {
    let mut point = 0;
    let at = |entry: &u32| {
        point = point.max(part.entries[*entry as usize].invoke);
        (point, part.operations[*entry as usize])
    };
    order.iter().map(at).collect()
}

/// Decodes a history and divides it, smallest part first, so that much is proved for little.
fn divide<M: Model>(model: &M, history: &History) -> Result<Vec<Part<M>>, Error> {
    let mut decoded = Vec::with_capacity(history.operations.len());
    for (index, operation) in history.operations.iter().enumerate() {
        let reply = match &operation.outcome {
            Outcome::Fail { .. } => continue,
            Outcome::Ok(reply) => Some(reply),
            Outcome::Unknown { .. } => None,
        };
        let bad =
            |problem| Error::NotOfThisObject { operation: index, call: operation.call.to_string(), problem };
        let (op, answer) = model.decode_operation(operation).map_err(bad)?;
        let invoke = operation.invoked.order;
        let ret = match (reply, operation.returned) {
            (Some(_), Some(returned)) if returned.order > invoke && returned.order < NEVER => returned.order,
            (Some(_), _) => {
                return Err(bad(
                    "it succeeded, so it needs a moment of return after that of its invocation".into()
                ));
            }
            (None, _) => NEVER,
        };
        decoded.push((OperationIndex(index), Entry { op, answer, invoke, ret }));
    }
    let divided = decoded.iter().all(|(_, entry)| model.part(&entry.op).is_some());
    let mut parts: Vec<Part<M>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (index, entry) in decoded {
        let name = model.part(&entry.op).filter(|_| divided).unwrap_or_default();
        let place = match places.get(name) {
            Some(place) => *place,
            None => {
                places.insert(name.to_owned(), parts.len());
                let name = divided.then(|| name.to_owned());
                parts.push(Part { name, entries: Vec::new(), operations: Vec::new() });
                parts.len() - 1
            }
        };
        parts[place].entries.push(entry);
        parts[place].operations.push(index);
    }
    parts.sort_by(|one, other| one.name.cmp(&other.name));
    parts.sort_by_key(|part| part.entries.len());
    Ok(parts)
}

/// Replays an order without any search: every operation that succeeded is in it, once; none that failed
/// is; nothing stands before an operation that returned before it was invoked; and each answer is the
/// object's. The error names the first thing that is wrong.
///
/// ```
/// # use synod_check::{history::*, linearizable::*, model::KeyValue};
/// # let mut recorder = Recorder::new(Header::new("kv"));
/// # let get = recorder.invoke(Nanos(1), "b", Call::get("x"));
/// # recorder.complete(Nanos(2), get, Outcome::Ok(Reply::value(1)));
/// # let history = recorder.finish();
/// let wrong = Witness { order: vec![OperationIndex(0)] };
/// assert!(verify(&KeyValue::new(), &history, &wrong).is_err()); // nobody wrote the 1 that it read
/// ```
pub fn verify<M: Model>(model: &M, history: &History, witness: &Witness) -> Result<(), String> {
    let parts = divide(model, history).map_err(|error| error.to_string())?;
    let mut place = vec![None; history.operations.len()];
    for (at, operation) in witness.order.iter().enumerate() {
        let slot =
            place.get_mut(operation.0).ok_or_else(|| format!("there is no operation {}", operation.0))?;
        if slot.replace(at).is_some() {
            return Err(format!("operation {} stands in the order twice", operation.0));
        }
    }
    let mut latest_invocation = 0;
    for operation in &witness.order {
        let operation = &history.operations[operation.0];
        if let (Outcome::Ok(_), Some(returned)) = (&operation.outcome, operation.returned)
            && returned.order < latest_invocation
        {
            return Err(format!("operation {} stands after one invoked after its return", operation.id));
        }
        latest_invocation = latest_invocation.max(operation.invoked.order);
    }
    let ordered = place.iter().flatten().count();
    let mut judged = 0;
    for part in &parts {
        let mut order: Vec<(usize, &Entry<M>)> = Vec::new();
        for (entry, operation) in part.entries.iter().zip(&part.operations) {
            match place[operation.0] {
                Some(at) => order.push((at, entry)),
                None if entry.ret != NEVER => return Err(format!("operation {} is left out", operation.0)),
                None => {}
            }
        }
        order.sort_by_key(|(at, _)| *at);
        judged += order.len();
        let mut state = model.init();
        for (at, entry) in order {
            state = model.step(&state, &entry.op, entry.answer.as_ref()).ok_or_else(|| {
                format!("operation {}: its answer is impossible in state {state:?}", witness.order[at].0)
            })?;
        }
    }
    if judged == ordered { Ok(()) } else { Err("an operation that failed stands in the order".into()) }
}
