//! The JSON-lines format, version 1: one header, then one line per event. See `docs/history-format.md`.
//!
//! One line per *event* rather than per operation, for soundness: a recorder that dies leaves the
//! invocations of what was under way, which may have taken effect. In a log of whole operations they
//! would be missing, and somebody's read of such a write would look like a violation.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};

use serde_json::{Map, Value};

use crate::Error;
use crate::history::{Call, Handle, Header, History, Nanos, Outcome, Recorder, Reply};

/// The version that is written, and the latest that is read.
const VERSION: u64 = 1;

/// Bounds on what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Bytes of one line without its end. Default: 16 MiB.
    pub line_bytes_max: u64,
    /// Operations in one history; at most 2^31 - 1. Default: 10 million.
    pub operations_max: u64,
}

impl Default for ReadLimits {
    fn default() -> ReadLimits {
        ReadLimits { line_bytes_max: 16 << 20, operations_max: 10_000_000 }
    }
}

/// Lines of text with their numbers, bounded in length.
pub(crate) struct Lines<R> {
    input: R,
    limits: ReadLimits,
    buffer: Vec<u8>,
    pub(crate) number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R, limits: ReadLimits) -> Lines<R> {
        Lines { input, limits, buffer: Vec::new(), number: 0 }
    }

    /// The next line without its end, and whether it had one. `None` at the end of the input.
    pub(crate) fn next(&mut self) -> Result<Option<(&str, bool)>, Error> {
        self.buffer.clear();
        let bound = self.limits.line_bytes_max.saturating_add(2);
        let read = self.input.by_ref().take(bound).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let ended = self.buffer.last() == Some(&b'\n');
        if ended {
            self.buffer.pop();
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        if self.buffer.len() as u64 > self.limits.line_bytes_max {
            let value = self.limits.line_bytes_max;
            return Err(Error::TooLarge { line: self.number, limit: "line_bytes_max", value });
        }
        let number = self.number;
        let text = std::str::from_utf8(&self.buffer).map_err(|error| Error::Malformed {
            line: number,
            problem: format!("this is no UTF-8 text: {error}"),
        })?;
        Ok(Some((text, ended)))
    }

    /// Refuses one operation more than the limit.
    pub(crate) fn room_for(&self, operations: usize) -> Result<(), Error> {
        let value = self.limits.operations_max;
        if operations as u64 >= value {
            return Err(Error::TooLarge { line: self.number, limit: "operations_max", value });
        }
        Ok(())
    }

    pub(crate) fn malformed(&self, problem: impl Into<String>) -> Error {
        Error::Malformed { line: self.number, problem: problem.into() }
    }
}

impl History {
    /// Reads a history. Blank lines are skipped; unknown fields of calls, answers, notes and the header
    /// are kept. Operations that never return have an unknown outcome.
    ///
    /// Errors: with the number of the line, what was found there and what was expected.
    ///
    /// ```
    /// # use synod_check::{history::History, ReadLimits};
    /// let text = r#"{"synod-history":1,"object":"kv"}
    /// {"event":"invoke","id":0,"client":"a","time":0,"op":"put","key":"x","value":"1"}
    /// {"event":"ok","id":0,"time":10}
    /// "#;
    /// let history = History::read(text.as_bytes(), ReadLimits::default())?;
    /// assert_eq!(history.operations[0].call.to_string(), "put x = \"1\"");
    /// let error = History::read("{}\n".as_bytes(), ReadLimits::default()).unwrap_err();
    /// assert!(error.to_string().starts_with("line 1: "));
    /// # Ok::<(), synod_check::Error>(())
    /// ```
    pub fn read(input: impl BufRead, limits: ReadLimits) -> Result<History, Error> {
        let mut lines = Lines::new(input, limits);
        let mut reader: Option<Reader> = None;
        while let Some((text, ended)) = lines.next()? {
            if text.trim().is_empty() {
                continue;
            }
            let parsed = serde_json::from_str::<Map<String, Value>>(text);
            let outcome = match (parsed, &mut reader) {
                (Err(error), _) => Err(match ended {
                    true => format!("this is no JSON object: {error}"),
                    false => "the file ends in the middle of this line; if its recorder was cut off, delete the line"
                        .to_owned(),
                }),
                (Ok(fields), None) => read_header(fields).map(|header| {
                    reader = Some(Reader { recorder: Recorder::new(header), open: BTreeMap::new() });
                }),
                (Ok(fields), Some(reader)) => {
                    let event = reader.event(fields);
                    lines.room_for(reader.recorder.history().operations.len().saturating_sub(1))?;
                    event
                }
            };
            outcome.map_err(|problem| lines.malformed(problem))?;
        }
        let first = "the history is empty; expected a header such as {\"synod-history\":1,\"object\":\"kv\"}";
        let reader = reader.ok_or(Error::Malformed { line: 1, problem: first.into() })?;
        Ok(reader.recorder.finish())
    }

    /// Writes the history in the format, which [`History::read`] reads back.
    ///
    /// ```
    /// # use synod_check::{history::*, ReadLimits};
    /// let mut recorder = Recorder::new(Header::new("kv"));
    /// let get = recorder.invoke(Nanos(1), "b", Call::get("x"));
    /// recorder.complete(Nanos(2), get, Outcome::Ok(Reply::value(1)));
    /// let history = recorder.finish();
    /// let mut bytes = Vec::new();
    /// history.write(&mut bytes)?;
    /// assert_eq!(History::read(&bytes[..], ReadLimits::default())?, history);
    /// # Ok::<(), synod_check::Error>(())
    /// ```
    pub fn write(&self, output: impl Write) -> Result<(), Error> {
        enum Event {
            Invoke(usize),
            Return(usize),
            Note(usize),
        }
        let mut events = Vec::with_capacity(self.operations.len() * 2 + self.notes.len());
        for (index, operation) in self.operations.iter().enumerate() {
            events.push((operation.invoked.order, Event::Invoke(index)));
            events.extend(operation.returned.map(|at| (at.order, Event::Return(index))));
        }
        events.extend(
            self.notes.iter().enumerate().map(|(index, note)| (note.moment.order, Event::Note(index))),
        );
        events.sort_by_key(|(order, _)| *order);
        let mut writer = HistoryWriter::new(output, &self.header)?;
        for (_, event) in events {
            match event {
                Event::Invoke(index) => {
                    let operation = &self.operations[index];
                    let asked = Asked {
                        id: operation.id,
                        client: &operation.client,
                        node: operation.node.as_deref(),
                        session: operation.session.as_deref(),
                        time: operation.invoked.time,
                    };
                    writer.invoke(&asked, &operation.call)?;
                }
                Event::Return(index) => {
                    let operation = &self.operations[index];
                    let time = operation.returned.and_then(|at| at.time);
                    writer.complete(operation.id, time, &operation.outcome)?;
                }
                Event::Note(index) => {
                    let note = &self.notes[index];
                    writer.note(note.moment.time, &note.text, note.node.as_deref(), &note.more)?;
                }
            }
        }
        writer.finish()?;
        Ok(())
    }
}

/// Who invokes an operation, and when; the part of an `invoke` line that is not the call.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Number of the operation; no other operation of the history may have it.
    pub id: u64,
    /// Who asks.
    pub client: &'a str,
    /// Which node is asked, if known.
    pub node: Option<&'a str>,
    /// Within which session, if it is not the client's only one.
    pub session: Option<&'a str>,
    /// When; must not lie before the time of an earlier line.
    pub time: Option<Nanos>,
}

/// Writes a history line by line while it happens. Lines must be written in the order of the events.
///
/// ```
/// # use synod_check::{history::*, Asked, HistoryWriter};
/// let mut writer = HistoryWriter::new(Vec::new(), &Header::new("kv"))?;
/// let asked = Asked { id: 0, client: "a", node: None, session: None, time: Some(Nanos(3)) };
/// writer.invoke(&asked, &Call::get("x"))?;
/// writer.complete(0, Some(Nanos(5)), &Outcome::unknown("timeout"))?;
/// assert_eq!(writer.finish()?.split(|byte| *byte == b'\n').count(), 4); // three lines and their ends
/// # Ok::<(), synod_check::Error>(())
/// ```
#[derive(Debug)]
pub struct HistoryWriter<W: Write> {
    output: W,
}

impl<W: Write> HistoryWriter<W> {
    /// Writes the header.
    pub fn new(output: W, header: &Header) -> Result<HistoryWriter<W>, Error> {
        let mut writer = HistoryWriter { output };
        let mut line = Line::new("synod-history", VERSION.into());
        line.add("object", Some(header.object.as_str().into()));
        line.add("initial", Some(header.initial.clone()).filter(|value| !value.is_null()));
        line.add("source", header.source.as_deref().map(Value::from));
        line.add("about", header.about.as_deref().map(Value::from));
        writer.line(line, &header.more)?;
        Ok(writer)
    }

    /// Writes the invocation of an operation.
    pub fn invoke(&mut self, asked: &Asked<'_>, call: &Call) -> Result<(), Error> {
        let mut line = Line::new("event", "invoke".into());
        line.add("id", Some(asked.id.into()));
        line.add("client", Some(asked.client.into()));
        line.add("node", asked.node.map(Value::from));
        line.add("session", asked.session.map(Value::from));
        line.add("time", asked.time.map(|time| time.0.into()));
        line.add("op", Some((*call.op).into()));
        line.add("key", call.key.as_deref().map(Value::from));
        line.add("expect", call.expect.clone());
        line.add("value", call.value.clone());
        self.line(line, &call.more)
    }

    /// Writes the outcome of an operation.
    pub fn complete(&mut self, id: u64, time: Option<Nanos>, outcome: &Outcome) -> Result<(), Error> {
        let none = Map::new();
        let (event, value, error, more) = match outcome {
            Outcome::Ok(reply) => ("ok", reply.value.clone(), None, &reply.more),
            Outcome::Fail { error } => ("fail", None, error.as_deref(), &none),
            Outcome::Unknown { error } => ("unknown", None, error.as_deref(), &none),
        };
        let mut line = Line::new("event", event.into());
        line.add("id", Some(id.into()));
        line.add("time", time.map(|time| time.0.into()));
        line.add("value", value);
        line.add("error", error.map(Value::from));
        self.line(line, more)
    }

    /// Writes a note.
    pub fn note(
        &mut self,
        time: Option<Nanos>,
        text: &str,
        node: Option<&str>,
        more: &Map<String, Value>,
    ) -> Result<(), Error> {
        let mut line = Line::new("event", "note".into());
        line.add("time", time.map(|time| time.0.into()));
        line.add("text", Some(text.into()));
        line.add("node", node.map(Value::from));
        self.line(line, more)
    }

    /// Flushes, and gives the output back.
    pub fn finish(mut self) -> Result<W, Error> {
        self.output.flush()?;
        Ok(self.output)
    }

    fn line(&mut self, mut line: Line, more: &Map<String, Value>) -> Result<(), Error> {
        for (name, value) in more {
            line.add(name, Some(value.clone()));
        }
        line.text.push_str("}\n");
        self.output.write_all(line.text.as_bytes())?;
        Ok(())
    }
}

/// A JSON object whose fields stay in the order given, for people who read the file.
struct Line {
    text: String,
}

impl Line {
    fn new(name: &str, value: Value) -> Line {
        Line { text: format!("{{{}:{value}", Value::from(name)) }
    }

    fn add(&mut self, name: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.text.push_str(&format!(",{}:{value}", Value::from(name)));
        }
    }
}

/// What has been read so far.
struct Reader {
    recorder: Recorder,
    /// Operations by id; `None` once they have returned.
    open: BTreeMap<u64, Option<Handle>>,
}

pub(crate) fn read_header(mut fields: Map<String, Value>) -> Result<Header, String> {
    let expected = "expected a header such as {\"synod-history\":1,\"object\":\"kv\"}";
    match fields.remove("synod-history") {
        Some(version) if version.as_u64() == Some(VERSION) => {}
        Some(version) => {
            return Err(format!(
                "this is a history of version {version}; this program reads version {VERSION}"
            ));
        }
        None => return Err(format!("this is no header; {expected}")),
    }
    let object =
        text(&mut fields, "object")?.ok_or_else(|| format!("the header names no `object`; {expected}"))?;
    Ok(Header {
        object,
        initial: fields.remove("initial").unwrap_or(Value::Null),
        source: text(&mut fields, "source")?,
        about: text(&mut fields, "about")?,
        more: fields,
    })
}

/// One line of a history, after its header.
pub(crate) enum Event {
    Invoke { id: u64, client: String, node: Option<String>, session: Option<String>, call: Call },
    Complete { id: u64, outcome: Outcome },
    Note { text: String, node: Option<String>, more: Map<String, Value> },
}

impl Event {
    /// Reads a line's fields; also its time.
    pub(crate) fn of(mut fields: Map<String, Value>) -> Result<(Option<Nanos>, Event), String> {
        let time = number(&mut fields, "time", "a whole number of nanoseconds")?.map(Nanos);
        let expected = "expected \"invoke\", \"ok\", \"fail\", \"unknown\" or \"note\"";
        let event = match text(&mut fields, "event")?.as_deref() {
            Some("invoke") => Event::invoke(fields)?,
            Some("ok") => {
                let id = id(&mut fields)?;
                let value = fields.remove("value");
                Event::Complete { id, outcome: Outcome::Ok(Reply { value, more: fields }) }
            }
            Some("fail") => {
                let id = id(&mut fields)?;
                Event::Complete { id, outcome: Outcome::Fail { error: text(&mut fields, "error")? } }
            }
            Some("unknown") => {
                let id = id(&mut fields)?;
                Event::Complete { id, outcome: Outcome::Unknown { error: text(&mut fields, "error")? } }
            }
            Some("note") => {
                let words = text(&mut fields, "text")?.ok_or("a note needs a `text`")?;
                Event::Note { text: words, node: text(&mut fields, "node")?, more: fields }
            }
            Some(other) => return Err(format!("`event` is {other:?}; {expected}")),
            None => return Err(format!("`event` is missing; {expected}")),
        };
        Ok((time, event))
    }

    fn invoke(mut fields: Map<String, Value>) -> Result<Event, String> {
        let id = id(&mut fields)?;
        let client = text(&mut fields, "client")?.ok_or("`client` is missing: the name of who asks")?;
        let (node, session) = (text(&mut fields, "node")?, text(&mut fields, "session")?);
        let op =
            text(&mut fields, "op")?.ok_or("`op` is missing: the name of the operation, such as \"get\"")?;
        let key = text(&mut fields, "key")?.map(Into::into);
        let (value, expect) = (fields.remove("value"), fields.remove("expect"));
        let call = Call { op: op.into(), key, value, expect, more: fields };
        Ok(Event::Invoke { id, client, node, session, call })
    }
}

fn id(fields: &mut Map<String, Value>) -> Result<u64, String> {
    number(fields, "id", "the operation's number")?
        .ok_or_else(|| "`id` is missing: the operation's number".into())
}

impl Reader {
    fn event(&mut self, fields: Map<String, Value>) -> Result<(), String> {
        let (time, event) = Event::of(fields)?;
        if let (Some(time), Some(latest)) = (time, self.recorder.latest())
            && time < latest
        {
            return Err(format!(
                "`time` is {}, before the {} of an earlier line; lines stand in the order of events: sort them by time, invocations before returns where times are equal",
                time.0, latest.0
            ));
        }
        match event {
            Event::Invoke { id, client, node, session, mut call } => {
                if self.open.contains_key(&id) {
                    return Err(format!(
                        "operation {id} was invoked before; every operation needs an `id` of its own"
                    ));
                }
                call.op = self.recorder.name(&call.op);
                call.key = call.key.map(|key| self.recorder.name(&key));
                let session = session.map(|session| self.recorder.name(&session));
                let handle = self.recorder.invoke_at(time, &client, node.as_deref(), call);
                let operation = self.recorder.operation_mut(&handle);
                (operation.id, operation.session) = (id, session);
                self.open.insert(id, Some(handle));
                Ok(())
            }
            Event::Complete { id, outcome } => self.complete(time, id, outcome),
            Event::Note { text, node, more } => {
                let node = node.map(|node| self.recorder.name(&node));
                let note = self.recorder.note_at(time, text);
                (note.node, note.more) = (node, more);
                Ok(())
            }
        }
    }

    fn complete(&mut self, time: Option<Nanos>, id: u64, outcome: Outcome) -> Result<(), String> {
        match self.open.get_mut(&id).map(Option::take) {
            Some(Some(handle)) => {
                self.recorder.complete_at(time, handle, outcome);
                Ok(())
            }
            Some(None) => Err(format!("operation {id} has returned before; an operation has one outcome")),
            None => Err(format!("operation {id} returns, but no earlier line invokes it")),
        }
    }
}

/// A field of text; null counts as missing.
fn text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{name}` is {other}; expected a string")),
    }
}

/// A field with a whole number from 0 to 2^64 - 1; null counts as missing.
fn number(fields: &mut Map<String, Value>, name: &str, meaning: &str) -> Result<Option<u64>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(format!("`{name}` is {value}; expected {meaning}, from 0 to 18446744073709551615")),
        },
    }
}
