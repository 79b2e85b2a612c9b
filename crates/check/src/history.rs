//! What clients did and saw: operations with their moments and outcomes, and a recorder for them.
//!
//! The order of events is the truth, and times are a label. Two events with equal times are in the
//! order in which they were recorded: a simulator may have many at one instant, and a merged log of
//! coarse clocks must put invocations before returns at equal times, since that claims less.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// A time in integer nanoseconds since a moment of the recorder's choice. Range: all of `u64`
/// (584 years).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

/// When an event happened: its place among all events of the history, and its time if known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Place among all events, counted from 0. Decides what came before what.
    pub order: u64,
    /// Time by the recorder's clock. `None` where the source did not record one.
    pub time: Option<Nanos>,
}

/// What a history says of itself in its first line.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The object that was used, such as `register`, `kv` or `queue`; see `docs/history-format.md`.
    pub object: String,
    /// The value of every key before its first write; null means that it does not exist.
    pub initial: Value,
    /// Who or what recorded it.
    pub source: Option<String>,
    /// A remark for people.
    pub about: Option<String>,
    /// Fields that this version does not know; kept and written back.
    pub more: Map<String, Value>,
}

impl Header {
    /// A header for this object; the rest empty.
    ///
    /// ```
    /// let header = synod_check::history::Header::new("kv");
    /// assert!(header.initial.is_null());
    /// ```
    pub fn new(object: &str) -> Header {
        Header {
            object: object.to_owned(),
            initial: Value::Null,
            source: None,
            about: None,
            more: Map::new(),
        }
    }
}

/// What a client asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The operation's name, such as `get`, `put`, `cas` or `enqueue`.
    pub op: Arc<str>,
    /// The key, where the object has keys.
    pub key: Option<Arc<str>>,
    /// The argument: a value to write, to append, to enqueue.
    pub value: Option<Value>,
    /// What a compare-and-set expects; null means that the key does not exist.
    pub expect: Option<Value>,
    /// All other fields; their meaning is the object's.
    pub more: Map<String, Value>,
}

impl Call {
    /// A call of this operation without arguments.
    pub fn new(op: &str) -> Call {
        Call { op: op.into(), key: None, value: None, expect: None, more: Map::new() }
    }

    fn on(op: &str, key: &str) -> Call {
        Call { key: Some(key.into()), ..Call::new(op) }
    }

    /// Read the value of a key. Answered by a value, null if the key does not exist.
    pub fn get(key: &str) -> Call {
        Call::on("get", key)
    }

    /// Set a key to a value. `value` must not be null: that is what [`Call::delete`] is for.
    pub fn put(key: &str, value: impl Into<Value>) -> Call {
        Call { value: Some(value.into()), ..Call::on("put", key) }
    }

    /// Remove a key. May be answered by a boolean: whether the key existed.
    pub fn delete(key: &str) -> Call {
        Call::on("delete", key)
    }

    /// Set a key to `value` if it now has the value `expect` (null: if it does not exist).
    /// Answered by a boolean: whether it was set.
    pub fn cas(key: &str, expect: impl Into<Value>, value: impl Into<Value>) -> Call {
        Call { expect: Some(expect.into()), value: Some(value.into()), ..Call::on("cas", key) }
    }

    /// Append a string to the string under a key; a missing key counts as the empty string.
    pub fn append(key: &str, value: &str) -> Call {
        Call { value: Some(value.into()), ..Call::on("append", key) }
    }
}

/// As a person would write it: `put x = 1`, `cas x: 1 -> 2`, `get x`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        match (&self.expect, &self.value) {
            (Some(expect), Some(value)) => write!(f, ": {expect} -> {value}"),
            (Some(expect), None) => write!(f, ": {expect}"),
            (None, Some(value)) => write!(f, " = {value}"),
            (None, None) => {
                for (field, word) in [("ops", ""), ("compare", "if "), ("then", "then "), ("else", "else ")] {
                    if let Some(operations) = self.more.get(field) {
                        write!(f, " {word}{operations}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// What the system answered to a call that succeeded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The answer's value: what was read, whether a compare-and-set took place. `None`: the answer
    /// carried no value. That is not null, which says that there was nothing under the key.
    pub value: Option<Value>,
    /// All other fields (such as `revision`); their meaning is the object's.
    pub more: Map<String, Value>,
}

impl Reply {
    /// An answer that says no more than "done".
    pub fn none() -> Reply {
        Reply::default()
    }

    /// An answer with a value.
    ///
    /// ```
    /// # use synod_check::history::Reply;
    /// assert_eq!(Reply::value("1").value, Some("1".into()));
    /// ```
    pub fn value(value: impl Into<Value>) -> Reply {
        Reply { value: Some(value.into()), more: Map::new() }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It took effect, and this is the answer. A compare-and-set whose comparison failed is `Ok`
    /// with the value `false`: that is information, since it says what the value was not.
    Ok(Reply),
    /// It certainly never took effect and never will (refused before it was tried, for instance).
    /// When in doubt, it is [`Outcome::Unknown`].
    Fail {
        /// Why, if known.
        error: Option<String>,
    },
    /// Nobody knows (timeout, lost connection, crash, or the history ends first): it may take effect
    /// once at any time after its invocation, or never.
    Unknown {
        /// Why, if known.
        error: Option<String>,
    },
}

impl Outcome {
    /// Never took effect.
    pub fn fail(error: &str) -> Outcome {
        Outcome::Fail { error: Some(error.to_owned()) }
    }

    /// May have taken effect, or may yet.
    pub fn unknown(error: &str) -> Outcome {
        Outcome::Unknown { error: Some(error.to_owned()) }
    }
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Number of the operation, unique in its history.
    pub id: u64,
    /// Who asked. Operations of one client that overlap in time are concurrent, as any others.
    pub client: Arc<str>,
    /// Which node was asked, where that is known.
    pub node: Option<Arc<str>>,
    /// The session within which it was asked, where it is not the client's only one.
    pub session: Option<Arc<str>>,
    /// What was asked.
    pub call: Call,
    /// When it was asked.
    pub invoked: Moment,
    /// When the outcome was known to the client. `None`: not before the history ended.
    pub returned: Option<Moment>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Something that happened around the operations: a fault, a phase of the workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// When.
    pub moment: Moment,
    /// What, for people.
    pub text: String,
    /// The node it concerns, if it concerns one.
    pub node: Option<Arc<str>>,
    /// Fields that this version does not know; kept and written back.
    pub more: Map<String, Value>,
}

/// A recorded history: operations in the order of their invocation, and notes.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// What the history says of itself.
    pub header: Header,
    /// All operations, in the order of their invocation.
    pub operations: Vec<Operation>,
    /// All notes, in order.
    pub notes: Vec<Note>,
}

/// Refers to an operation that a [`Recorder`] has seen invoked. It is used up by its completion; one
/// that is dropped leaves an operation of unknown outcome, which is always sound.
#[derive(Debug)]
#[must_use = "complete the operation, or its outcome stays unknown"]
pub struct Handle(usize);

/// Builds a history while it happens.
///
/// Call [`Recorder::invoke`] *before* the request can reach the system, and [`Recorder::complete`]
/// *after* the answer has arrived; then what is recorded holds for the real order of things,
/// whichever thread comes first. Put it behind a mutex to share it between threads. A time that lies
/// before the latest one is raised to it, since the order of calls is the truth.
///
/// ```
/// use synod_check::history::{Call, Header, Nanos, Outcome, Recorder, Reply};
/// let mut recorder = Recorder::new(Header::new("kv"));
/// let get = recorder.invoke(Nanos(5), "c1", Call::get("x"));
/// recorder.complete(Nanos(9), get, Outcome::Ok(Reply::value("v")));
/// let lost = recorder.invoke(Nanos(10), "c1", Call::put("x", 2));
/// drop(lost);
/// let history = recorder.finish();
/// assert!(matches!(history.operations[1].outcome, Outcome::Unknown { .. }));
/// ```
#[derive(Clone, Debug)]
pub struct Recorder {
    history: History,
    names: BTreeSet<Arc<str>>,
    events: u64,
    latest: Option<Nanos>,
}

impl Recorder {
    /// A recorder of an empty history.
    pub fn new(header: Header) -> Recorder {
        let history = History { header, operations: Vec::new(), notes: Vec::new() };
        Recorder { history, names: BTreeSet::new(), events: 0, latest: None }
    }

    /// A client is about to make a call.
    pub fn invoke(&mut self, time: Nanos, client: &str, call: Call) -> Handle {
        self.invoke_at(Some(time), client, None, call)
    }

    /// A client is about to make a call to this node.
    pub fn invoke_on(&mut self, time: Nanos, client: &str, node: &str, call: Call) -> Handle {
        self.invoke_at(Some(time), client, Some(node), call)
    }

    /// As the two above; for sources that may know no time.
    pub fn invoke_at(&mut self, time: Option<Nanos>, client: &str, node: Option<&str>, call: Call) -> Handle {
        let invoked = self.moment(time);
        let index = self.history.operations.len();
        let operation = Operation {
            id: index as u64,
            client: self.name(client),
            node: node.map(|node| self.name(node)),
            session: None,
            call,
            invoked,
            returned: None,
            outcome: Outcome::Unknown { error: None },
        };
        self.history.operations.push(operation);
        Handle(index)
    }

    /// The outcome of a call has become known.
    ///
    /// Panics if the handle comes from another recorder with more operations.
    pub fn complete(&mut self, time: Nanos, handle: Handle, outcome: Outcome) {
        self.complete_at(Some(time), handle, outcome);
    }

    /// As above; for sources that may know no time.
    pub fn complete_at(&mut self, time: Option<Nanos>, handle: Handle, outcome: Outcome) {
        let moment = self.moment(time);
        let operation = &mut self.history.operations[handle.0];
        operation.returned = Some(moment);
        operation.outcome = outcome;
    }

    /// Something happened around the operations, such as a fault.
    pub fn note(&mut self, time: Nanos, text: &str) {
        let moment = self.moment(Some(time));
        self.history.notes.push(Note { moment, text: text.to_owned(), node: None, more: Map::new() });
    }

    /// What was recorded until now.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The history; operations still open have an unknown outcome.
    pub fn finish(self) -> History {
        self.history
    }

    pub(crate) fn operation_mut(&mut self, handle: &Handle) -> &mut Operation {
        &mut self.history.operations[handle.0]
    }

    pub(crate) fn header_mut(&mut self) -> &mut Header {
        &mut self.history.header
    }

    pub(crate) fn latest(&self) -> Option<Nanos> {
        self.latest
    }

    pub(crate) fn note_at(&mut self, time: Option<Nanos>, text: String) -> &mut Note {
        let moment = self.moment(time);
        self.history.notes.push(Note { moment, text, node: None, more: Map::new() });
        self.history.notes.last_mut().expect("pushed above")
    }

    /// One copy of each name, since a long history repeats few.
    pub(crate) fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.names.insert(new.clone());
        new
    }

    fn moment(&mut self, time: Option<Nanos>) -> Moment {
        let order = self.events;
        self.events += 1;
        let time = time.map(|time| self.latest.map_or(time, |latest| latest.max(time)));
        self.latest = time.or(self.latest);
        Moment { order, time }
    }
}
