//! The whole judgement of a history: which models it satisfies, and why not the others.

use std::fmt;

use serde_json::Value;

use crate::Error;
use crate::ambiguous;
use crate::answer::{Answer, Reason};
use crate::append::{Dependencies, Isolation, Level};
use crate::causal;
use crate::explain;
use crate::guarantees::{self, Guarantee};
use crate::history::{History, Outcome};
use crate::linearizable::{self, Limits, Report, Verdict};
use crate::model::{Bank, Counter, Election, Etcd, KeyValue, Lock, Model, Sequence, Set};
use crate::observed::Observed;
use crate::reduce;
use crate::sequential;
use crate::serial::{self, Wanted};

/// A kind of object that a history may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Object {
    Register,
    Kv,
    Etcd,
    Set,
    Counter,
    Queue,
    Stack,
    Mutex,
    Lock,
    Election,
    ListAppend,
    RwRegister,
    Bank,
}

const OBJECTS: [(Object, &str); 13] = [
    (Object::Register, "register"),
    (Object::Kv, "kv"),
    (Object::Etcd, "etcd"),
    (Object::Set, "set"),
    (Object::Counter, "counter"),
    (Object::Queue, "queue"),
    (Object::Stack, "stack"),
    (Object::Mutex, "mutex"),
    (Object::Lock, "lock"),
    (Object::Election, "election"),
    (Object::ListAppend, "list-append"),
    (Object::RwRegister, "rw-register"),
    (Object::Bank, "bank"),
];

impl Object {
    /// The object of this name.
    pub fn named(name: &str) -> Option<Object> {
        OBJECTS.iter().find(|(_, other)| *other == name).map(|(object, _)| *object)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        OBJECTS.iter().find(|(object, _)| *object == self).map_or("", |(_, name)| name)
    }

    /// The names of all objects.
    pub fn names() -> impl Iterator<Item = &'static str> {
        OBJECTS.iter().map(|(_, name)| *name)
    }

    /// The object that a history's header names, or else the one that its operations look like.
    ///
    /// ```
    /// use synod_check::{history::*, judge::Object};
    /// let mut recorder = Recorder::new(Header::new(""));
    /// drop(recorder.invoke(Nanos(0), "a", Call::new("dequeue")));
    /// assert_eq!(Object::of(&recorder.finish()), Object::Queue);
    /// ```
    pub fn of(history: &History) -> Object {
        if let Some(named) = Object::named(&history.header.object) {
            return named;
        }
        let has =
            |names: &[&str]| history.operations.iter().any(|operation| names.contains(&&*operation.call.op));
        let answers = |operation: &&str, is: fn(&Value) -> bool| {
            history.operations.iter().filter(|found| &*found.call.op == *operation).any(
                |found| matches!(&found.outcome, Outcome::Ok(reply) if reply.value.as_ref().is_some_and(is)),
            )
        };
        let branches = |operation: &crate::history::Operation| {
            ["compare", "then", "else"].iter().any(|field| operation.call.more.contains_key(*field))
        };
        if has(&["txn"]) && !history.operations.iter().any(branches) {
            let appends = |operation: &crate::history::Operation| {
                let ops = operation.call.more.get("ops").and_then(Value::as_array);
                ops.into_iter().flatten().any(|op| op[0] == "append")
            };
            return match history.operations.iter().any(appends) {
                true => Object::ListAppend,
                false => Object::RwRegister,
            };
        }
        let kinds: [(&[&str], Object); 5] = [
            (&["transfer"], Object::Bank),
            (&["enqueue", "dequeue"], Object::Queue),
            (&["push", "pop"], Object::Stack),
            (&["campaign", "resign", "leader"], Object::Election),
            (&["contains", "remove"], Object::Set),
        ];
        if let Some((_, object)) = kinds.iter().find(|(names, _)| has(names)) {
            return *object;
        }
        if has(&["acquire", "release"]) {
            return if has(&["use"]) || answers(&"acquire", Value::is_number) {
                Object::Lock
            } else {
                Object::Mutex
            };
        }
        if has(&["add", "increment", "decrement", "inc", "dec"]) {
            let sets = answers(&"read", Value::is_array);
            return if sets || !(has(&["read"]) || answers(&"add", Value::is_number)) {
                Object::Set
            } else {
                Object::Counter
            };
        }
        let revisions = |operation: &crate::history::Operation| matches!(&operation.outcome, Outcome::Ok(reply) if reply.more.contains_key("revision"));
        if has(&["range", "txn"]) || history.operations.iter().any(revisions) {
            return Object::Etcd;
        }
        let keyed = history.operations.iter().any(|operation| operation.call.key.is_some());
        if keyed { Object::Kv } else { Object::Register }
    }

    /// The models that are asked for, strongest first, if none is named.
    fn ladder(self) -> &'static [Consistency] {
        use Consistency::*;
        match self {
            Object::Register | Object::Kv => &[
                Linearizable,
                Sequential,
                CausalConvergence,
                CausalMemory,
                Causal,
                ReadYourWrites,
                MonotonicReads,
                MonotonicWrites,
                WritesFollowReads,
                Eventual,
            ],
            Object::ListAppend => &[
                StrictSerializable,
                StrongSessionSerializable,
                Serializable,
                StrongSessionSnapshotIsolation,
                SnapshotIsolation,
                ReadCommitted,
            ],
            Object::RwRegister => &[
                StrictSerializable,
                StrongSessionSerializable,
                Serializable,
                StrongSessionSnapshotIsolation,
                SnapshotIsolation,
                CausalConvergence,
                Causal,
                ReadCommitted,
            ],
            Object::Bank => &[Linearizable, Sequential, Conservation],
            _ => &[Linearizable, Sequential],
        }
    }
}

/// A consistency model; `docs/checking.md` says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Consistency {
    Linearizable,
    Sequential,
    CausalConvergence,
    CausalMemory,
    Causal,
    ReadYourWrites,
    MonotonicReads,
    MonotonicWrites,
    WritesFollowReads,
    Eventual,
    StrictSerializable,
    StrongSessionSerializable,
    Serializable,
    StrongSessionSnapshotIsolation,
    SnapshotIsolation,
    ReadCommitted,
    Conservation,
}

const MODELS: [(Consistency, &str); 17] = [
    (Consistency::Linearizable, "linearizable"),
    (Consistency::Sequential, "sequential"),
    (Consistency::CausalConvergence, "causal-convergence"),
    (Consistency::CausalMemory, "causal-memory"),
    (Consistency::Causal, "causal"),
    (Consistency::ReadYourWrites, "read-your-writes"),
    (Consistency::MonotonicReads, "monotonic-reads"),
    (Consistency::MonotonicWrites, "monotonic-writes"),
    (Consistency::WritesFollowReads, "writes-follow-reads"),
    (Consistency::Eventual, "eventual"),
    (Consistency::StrictSerializable, "strict-serializable"),
    (Consistency::StrongSessionSerializable, "strong-session-serializable"),
    (Consistency::Serializable, "serializable"),
    (Consistency::StrongSessionSnapshotIsolation, "strong-session-snapshot-isolation"),
    (Consistency::SnapshotIsolation, "snapshot-isolation"),
    (Consistency::ReadCommitted, "read-committed"),
    (Consistency::Conservation, "conservation"),
];

impl Consistency {
    /// The model of this name.
    pub fn named(name: &str) -> Option<Consistency> {
        MODELS.iter().find(|(_, other)| *other == name).map(|(model, _)| *model)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        MODELS.iter().find(|(model, _)| *model == self).map_or("", |(_, name)| name)
    }

    /// The names of all models.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|(_, name)| *name)
    }

    /// The models that follow from this one directly.
    fn implies(self) -> &'static [Consistency] {
        use Consistency::*;
        match self {
            Linearizable => &[Sequential, Eventual],
            Sequential => &[CausalConvergence, CausalMemory],
            CausalConvergence => &[Causal],
            CausalMemory => &[Causal, ReadYourWrites, MonotonicReads],
            Causal => &[MonotonicWrites, WritesFollowReads],
            StrictSerializable => &[StrongSessionSerializable],
            StrongSessionSerializable => &[Serializable, StrongSessionSnapshotIsolation],
            Serializable => &[SnapshotIsolation],
            StrongSessionSnapshotIsolation => &[SnapshotIsolation, CausalConvergence],
            SnapshotIsolation => &[ReadCommitted],
            _ => &[],
        }
    }

    /// Whether this model is at least as strong as another.
    pub fn is_at_least(self, other: Consistency) -> bool {
        self == other || self.implies().iter().any(|weaker| weaker.is_at_least(other))
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found out about one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The model.
    pub model: Consistency,
    /// Whether the history satisfies it.
    pub answer: Answer,
    /// The model from whose answer this one follows.
    pub follows_from: Option<Consistency>,
    /// For a "no": the reason with a picture of plain text, for people.
    pub explanation: String,
}

/// What was found out about a history.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The object that it was judged as.
    pub object: Object,
    /// How many operations it has.
    pub operations: usize,
    /// One entry per model that was asked for, strongest first.
    pub findings: Vec<Finding>,
}

impl Judgement {
    /// What was found out about a model, directly or by implication.
    pub fn of(&self, model: Consistency) -> Option<&Finding> {
        let exact = self.findings.iter().find(|finding| finding.model == model);
        exact.or_else(|| {
            self.findings.iter().find(|finding| finding.answer.is_yes() && finding.model.is_at_least(model))
        })
    }

    /// The models that hold and do not follow from another one that does.
    pub fn strongest(&self) -> Vec<Consistency> {
        let holds = |finding: &&Finding| finding.answer.is_yes() && finding.follows_from.is_none();
        self.findings.iter().filter(holds).map(|finding| finding.model).collect()
    }
}

/// Judges a history: one model if it is named, or else all that its object has.
///
/// `object`: [`Object::of`] if `None`. `limits` hold for each model by itself.
///
/// Errors: an operation that the object does not know, or a model that it does not have.
///
/// ```
/// use synod_check::{history::*, judge::*, linearizable::Limits};
/// let mut recorder = Recorder::new(Header::new("register"));
/// let write = recorder.invoke(Nanos(0), "a", Call { value: Some(1.into()), ..Call::new("write") });
/// recorder.complete(Nanos(1), write, Outcome::Ok(Reply::none()));
/// let read = recorder.invoke(Nanos(2), "b", Call::new("read"));
/// recorder.complete(Nanos(3), read, Outcome::Ok(Reply::value(serde_json::Value::Null)));
/// let judgement = judge(&recorder.finish(), None, None, &Limits::default(), &mut || false)?;
/// assert!(judgement.findings[0].answer.is_no());
/// assert_eq!(judgement.strongest()[0], Consistency::Sequential);
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn judge(
    history: &History,
    object: Option<Object>,
    model: Option<Consistency>,
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Judgement, Error> {
    let object = object.unwrap_or_else(|| Object::of(history));
    let real_time = history.header.more.get("real-time") != Some(&Value::Bool(false));
    let wanted: Vec<Consistency> = match model {
        Some(model) => vec![model],
        None => {
            let needs_time = |model: &&Consistency| {
                matches!(
                    model,
                    Consistency::Linearizable | Consistency::StrictSerializable | Consistency::Eventual
                )
            };
            object.ladder().iter().filter(|model| real_time || !needs_time(model)).copied().collect()
        }
    };
    let mut judge = Judge { history, object, limits, stop, real_time, observed: None, dependencies: None };
    let mut findings: Vec<Finding> = Vec::new();
    for model in wanted {
        let stronger =
            findings.iter().find(|finding| finding.answer.is_yes() && finding.model.is_at_least(model));
        let finding = match stronger {
            Some(stronger) => Finding {
                model,
                answer: Answer::yes(format!("it is {}", stronger.model)),
                follows_from: Some(stronger.model),
                explanation: String::new(),
            },
            None => judge.finding(model)?,
        };
        findings.push(finding);
    }
    refute_the_stronger(&mut findings);
    Ok(Judgement { object, operations: history.operations.len(), findings })
}

/// What was not decided is refuted if something weaker is.
fn refute_the_stronger(findings: &mut [Finding]) {
    for index in 0..findings.len() {
        let model = findings[index].model;
        if !matches!(findings[index].answer, Answer::Unknown(_)) {
            continue;
        }
        let weaker =
            findings.iter().find(|other| other.answer.is_no() && model.is_at_least(other.model)).cloned();
        if let Some(weaker) = weaker {
            findings[index] = Finding { model, follows_from: Some(weaker.model), ..weaker };
        }
    }
}

struct Judge<'a, 'b> {
    history: &'a History,
    object: Object,
    limits: &'a Limits,
    stop: &'b mut dyn FnMut() -> bool,
    real_time: bool,
    observed: Option<Result<Observed, String>>,
    dependencies: Option<Result<Dependencies<'a>, String>>,
}

impl<'a> Judge<'a, '_> {
    fn finding(&mut self, model: Consistency) -> Result<Finding, Error> {
        let (answer, explanation) = self.answer(model)?;
        let explanation = match (&answer, explanation) {
            (_, Some(explanation)) => explanation,
            (Answer::No(reason), None) => explain::reason(self.history, reason),
            _ => String::new(),
        };
        Ok(Finding { model, answer, follows_from: None, explanation })
    }

    fn answer(&mut self, model: Consistency) -> Result<(Answer, Option<String>), Error> {
        use Consistency::*;
        let plain = |answer: Answer| Ok((answer, None));
        let needs_time = matches!(model, Linearizable | StrictSerializable);
        if needs_time && !self.real_time {
            return plain(Answer::Unknown("the history does not say what happened before what".into()));
        }
        match (self.object, model) {
            (Object::ListAppend, _) => plain(self.list_append(model)),
            (_, Linearizable) => self.linearizable(),
            (Object::RwRegister, Sequential) => plain(self.rw_register(StrongSessionSerializable)),
            (_, Sequential) => self.sequential().map(|answer| (answer, None)),
            (Object::Bank, Conservation) => plain(guarantees::conservation(self.history)),
            (Object::Register | Object::Kv | Object::RwRegister, Eventual) => {
                plain(guarantees::eventual(self.history))
            }
            (Object::Register | Object::Kv | Object::RwRegister, _) => plain(self.rw_register(model)),
            _ => plain(Answer::Unknown(format!("{model} is not a matter of a {}", self.object.name()))),
        }
    }

    fn observed(&mut self) -> Result<&Observed, String> {
        self.observed.get_or_insert_with(|| Observed::of(self.history)).as_ref().map_err(Clone::clone)
    }

    fn rw_register(&mut self, model: Consistency) -> Answer {
        let (history, limits) = (self.history, self.limits);
        let why = self.observed().err();
        let stop = &mut *self.stop;
        match (&mut self.observed, why) {
            (Some(Ok(observed)), _) => {
                let answer = observed_answer(history, observed, model, limits, stop);
                let few = reduce::attempt(limits);
                let sessions = !matches!(
                    model,
                    Consistency::Serializable | Consistency::SnapshotIsolation | Consistency::ReadCommitted
                );
                reduce::observed(history, observed, sessions, answer, &mut |part| {
                    observed_answer(history, part, model, &few, stop)
                })
            }
            (_, why) => {
                let why = why.unwrap_or_default();
                ambiguous::decide(history, &why, &mut |observed| {
                    observed_answer(history, observed, model, limits, stop)
                })
                .unwrap_or(Answer::Unknown(why))
            }
        }
    }

    fn list_append(&mut self, model: Consistency) -> Answer {
        use Consistency::*;
        let (real_time, sessions, kind) = match model {
            StrictSerializable | Linearizable => (true, true, Isolation::Serializable),
            StrongSessionSerializable | Sequential => (false, true, Isolation::Serializable),
            Serializable => (false, false, Isolation::Serializable),
            StrongSessionSnapshotIsolation => (false, true, Isolation::Snapshot),
            SnapshotIsolation => (false, false, Isolation::Snapshot),
            ReadCommitted => (false, false, Isolation::ReadCommitted),
            other => return Answer::Unknown(format!("{other} is not decided for list-append")),
        };
        let (history, level) = (self.history, Level { real_time, sessions, kind });
        let answer = match self.dependencies.get_or_insert_with(|| Dependencies::of(history)) {
            Ok(dependencies) => dependencies.decide(level),
            Err(why) => return Answer::Unknown(why.clone()),
        };
        reduce::appends(history, answer, level)
    }

    fn linearizable(&mut self) -> Result<(Answer, Option<String>), Error> {
        let history = self.history;
        let report = match self.object {
            Object::Register | Object::Kv => self.check(&KeyValue::of(history)),
            Object::Etcd => self.check(&Etcd::of(history)),
            Object::Set => self.check(&Set::of(history)),
            Object::Counter => self.check(&Counter::of(history)),
            Object::Queue => self.check(&Sequence::Queue),
            Object::Stack => self.check(&Sequence::Stack),
            Object::Mutex => self.check(&Lock::mutex()),
            Object::Lock => self.check(&Lock::fenced(history)),
            Object::Election => self.check(&Election),
            Object::Bank => self.check(&bank(history)?),
            Object::ListAppend | Object::RwRegister => {
                return self.answer(Consistency::StrictSerializable);
            }
        }?;
        let (parts, operations) = (report.parts, report.operations);
        Ok(match report.verdict {
            Verdict::Yes(witness) => {
                let words =
                    format!("one order of {operations} operations in {parts} parts explains every answer");
                (Answer::ordered(witness.order, words), None)
            }
            Verdict::No(no) => {
                let words = no.explanation.lines().next().unwrap_or_default().to_owned();
                let links = explain::precedence(history, &no.operations);
                let reason = Reason { operations: no.operations, minimal: no.minimal, links, words };
                (Answer::No(reason), Some(no.explanation))
            }
            unknown @ Verdict::Unknown(_) => (Answer::Unknown(unknown.to_string()), None),
        })
    }

    fn check<M: Model>(&mut self, model: &M) -> Result<Report, Error> {
        linearizable::check(model, self.history, self.limits, self.stop)
    }

    fn sequential(&mut self) -> Result<Answer, Error> {
        let history = self.history;
        if matches!(self.object, Object::Register | Object::Kv) && self.observed().is_ok() {
            return Ok(self.rw_register(Consistency::StrongSessionSerializable));
        }
        match self.object {
            Object::Register | Object::Kv => match self.search(&KeyValue::of(history))? {
                Answer::Unknown(why) => Ok(match self.rw_register(Consistency::Sequential) {
                    Answer::Unknown(_) => Answer::Unknown(why),
                    decided => decided,
                }),
                decided => Ok(decided),
            },
            Object::Etcd => self.search(&Etcd::of(history)),
            Object::Set => self.search(&Set::of(history)),
            Object::Counter => self.search(&Counter::of(history)),
            Object::Queue => self.search(&Sequence::Queue),
            Object::Stack => self.search(&Sequence::Stack),
            Object::Mutex => self.search(&Lock::mutex()),
            Object::Lock => self.search(&Lock::fenced(history)),
            Object::Election => self.search(&Election),
            Object::Bank => self.search(&bank(history)?),
            Object::ListAppend | Object::RwRegister => Ok(self.list_append(Consistency::Sequential)),
        }
    }

    fn search<M: Model>(&mut self, model: &M) -> Result<Answer, Error> {
        sequential::decide(model, self.history, self.limits, self.stop)
    }
}

/// The answer where it is known who read from whom.
fn observed_answer(
    history: &History,
    observed: &Observed,
    model: Consistency,
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Answer {
    use Consistency::*;
    let mut order = |observed: &Observed, real_time: bool, snapshots: bool| {
        serial::decide(history, observed, Wanted { real_time, snapshots }, limits, stop)
    };
    match model {
        CausalConvergence => causal::convergent(history, observed, limits.bytes_max),
        CausalMemory => causal::memory(history, observed, limits.bytes_max, stop),
        Causal => match causal::convergent(history, observed, limits.bytes_max) {
            // The cheaper question, in memory above all; asked before if the whole ladder is.
            Answer::Yes(_) => Answer::yes("it is causally convergent"),
            _ => causal::consistent(history, observed, limits.bytes_max),
        },
        ReadYourWrites => guarantees::decide(history, observed, Guarantee::ReadYourWrites),
        MonotonicReads => guarantees::decide(history, observed, Guarantee::MonotonicReads),
        MonotonicWrites => guarantees::decide(history, observed, Guarantee::MonotonicWrites),
        WritesFollowReads => guarantees::decide(history, observed, Guarantee::WritesFollowReads),
        StrictSerializable => order(observed, true, false),
        Sequential | StrongSessionSerializable => order(observed, false, false),
        StrongSessionSnapshotIsolation => order(observed, false, true),
        ReadCommitted => serial::read_committed(history, &serial::without_sessions(observed)),
        Serializable => order(&serial::without_sessions(observed), false, false),
        SnapshotIsolation => order(&serial::without_sessions(observed), false, true),
        other => Answer::Unknown(format!("{other} is not a matter of single reads and writes")),
    }
}

fn bank(history: &History) -> Result<Bank, Error> {
    Bank::of(history)
        .map_err(|problem| Error::Malformed { line: 1, problem: format!("`initial`: {problem}") })
}
