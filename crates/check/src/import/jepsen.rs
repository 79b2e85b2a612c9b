//! Jepsen's operations: `{:process 0, :type :invoke, :f :write, :value 3}`, one a map.
//!
//! Maelstrom writes the same, and so does Porcupine's key-value log, whose maps have a `:key` of their own.

use std::io::BufRead;

use serde_json::{Value, json};

use super::Processes;
use super::edn::{Edn, Forms, parse};
use crate::Error;
use crate::format::{Lines, ReadLimits};
use crate::history::{Call, Header, History, Nanos, Outcome, Reply};

/// Reads a history in EDN: a vector of maps, or one map after the other; comments and blank lines are skipped.
///
/// Known are `:read`, `:write`, `:cas` (also of independent keys, as `[key value]`), `:get`, `:put`, `:append` with
/// a `:key`, `:add`, `:remove`, `:broadcast`, `:enqueue`, `:dequeue`, `:acquire`, `:release`, `:transfer` and `:txn`.
/// `:fail` means that nothing happened, `:info` that nobody knows; a `:cas` that failed with `:precondition-failed`
/// is answered `false`. Operations of processes that are no numbers (`:nemesis`) become notes.
///
/// Errors: with the number of the line, and what was expected there.
///
/// ```
/// # use synod_check::{import, ReadLimits};
/// let log = "[{:process 3, :type :invoke, :f :write, :value [1 2], :time 5}\n{:process 3 :type :ok :f :write :value [1 2]}]";
/// let history = import::jepsen_edn(log.as_bytes(), ReadLimits::default())?;
/// assert_eq!(history.operations[0].call.to_string(), "write 1 = 2");
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn jepsen_edn(input: impl BufRead, limits: ReadLimits) -> Result<History, Error> {
    let mut header = Header::new("");
    header.source = Some("jepsen".to_owned());
    let mut processes = Processes::new(header);
    let mut lines = Lines::new(input, limits);
    let (mut forms, mut found) = (Forms::default(), Vec::new());
    loop {
        let number = lines.number + 1;
        let Some((text, _)) = lines.next()? else { break };
        let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
        let outcome = forms.line(number, text, &mut found);
        outcome.map_err(|problem| lines.malformed(problem))?;
        if forms.pending_bytes() as u64 > limits.line_bytes_max {
            let value = limits.line_bytes_max;
            return Err(Error::TooLarge { line: forms.line, limit: "line_bytes_max", value });
        }
        for (line, form) in found.drain(..) {
            let outcome = parse(&form).and_then(|form| operation(&mut processes, line, &form));
            outcome.map_err(|problem| Error::Malformed { line, problem })?;
        }
        lines.room_for(processes.recorder.history().operations.len().saturating_sub(1))?;
    }
    let line = forms.line.min(lines.number);
    forms.end().map_err(|problem| Error::Malformed { line, problem })?;
    Ok(processes.recorder.finish())
}

fn operation(processes: &mut Processes, line: u64, form: &Edn) -> Result<(), String> {
    if !matches!(form, Edn::Map(_)) {
        return Err("expected a map such as {:process 0, :type :invoke, :f :read, :value nil}".into());
    }
    let word = |name: &str| match form.field(name) {
        Some(Edn::Keyword(word)) => Ok(word.as_str()),
        Some(other) => Err(format!("expected a keyword under :{name}, found {}", other.json())),
        None => Err(format!("expected a keyword under :{name}, found none")),
    };
    let time = match form.field("time") {
        Some(Edn::Integer(time)) => u64::try_from(*time).ok().map(Nanos),
        _ => None,
    };
    let process = form.field("process").ok_or("expected a process under :process, found none")?;
    if !matches!(process, Edn::Integer(_)) {
        let value = form.field("value").map_or(String::new(), |value| format!(" {}", value.json()));
        let text = format!("{} {}{value}", process.name(), word("f").unwrap_or_default());
        processes.recorder.note_at(time, text);
        return Ok(());
    }
    let error = form.field("error").map(|error| error.json().to_string());
    let line =
        Line { line, time, process: &process.name(), kind: word("type")?, function: word("f")?, error };
    let nil = Edn::Nil;
    let value = form.field("value").unwrap_or(&nil);
    if let Some(key) = form.field("key") {
        processes.recorder.header_mut().initial = "".into();
        return keyed(processes, &line, &key.name(), value);
    }
    event(processes, &line, value)
}

/// One line of a log, in any of Jepsen's notations.
pub(super) struct Line<'a> {
    pub(super) line: u64,
    pub(super) time: Option<Nanos>,
    pub(super) process: &'a str,
    /// `invoke`, `ok`, `fail` or `info`.
    pub(super) kind: &'a str,
    pub(super) function: &'a str,
    pub(super) error: Option<String>,
}

/// Porcupine's key-value operations.
fn keyed(processes: &mut Processes, line: &Line<'_>, key: &str, value: &Edn) -> Result<(), String> {
    let text = || match value {
        Edn::Text(text) => Ok(text.clone()),
        other => Err(format!("expected a string under :value, found {}", other.json())),
    };
    let call = match line.function {
        "get" => Call::get(key),
        "put" => Call::put(key, if line.kind == "invoke" { text()? } else { String::new() }),
        "append" => Call::append(key, &if line.kind == "invoke" { text()? } else { String::new() }),
        other => return Err(format!("expected :get, :put or :append under :f, found :{other}")),
    };
    let reply = || match line.function {
        "get" => text().map(Reply::value),
        _ => Ok(Reply::none()),
    };
    record(processes, line, &format!("{} {key}", line.function), || Ok(call), reply)
}

/// Records an operation of Jepsen's common workloads.
pub(super) fn event(processes: &mut Processes, line: &Line<'_>, value: &Edn) -> Result<(), String> {
    let (key, inner) = independent(line.function, value);
    let named = match &key {
        Some(key) => format!("{} {key}", line.function),
        None => line.function.to_owned(),
    };
    let with_key = |call: Call| Call { key: key.as_deref().map(Into::into), ..call };
    let argument = || match inner {
        Edn::Nil => Err(format!("expected a value for :{}, found nil", line.function)),
        value => Ok(value.json()),
    };
    let call = || {
        let call = match line.function {
            "read" | "dequeue" | "acquire" | "release" => Call::new(line.function),
            "write" | "add" | "remove" | "enqueue" => {
                Call { value: Some(argument()?), ..Call::new(line.function) }
            }
            "broadcast" => Call { value: Some(argument()?), ..Call::new("add") },
            "cas" => match inner {
                Edn::Sequence(pair) if pair.len() == 2 && pair[1] != Edn::Nil => {
                    let (expect, value) = (Some(pair[0].json()), Some(pair[1].json()));
                    Call { expect, value, ..Call::new("cas") }
                }
                other => return Err(format!("expected [old new] for :cas, found {}", other.json())),
            },
            "transfer" => {
                let field = |name: &str| inner.field(name).map(Edn::json).unwrap_or_default();
                let mut call = Call::new("transfer");
                for name in ["from", "to", "amount"] {
                    call.more.insert(name.to_owned(), field(name));
                }
                call
            }
            "txn" => {
                let mut call = Call::new("txn");
                call.more.insert("ops".to_owned(), transaction(inner)?);
                call
            }
            other => {
                return Err(format!(
                    "expected :read, :write, :cas, :add, :remove, :broadcast, :enqueue, :dequeue, :acquire, :release, :transfer or :txn, found :{other}"
                ));
            }
        };
        Ok(with_key(call))
    };
    let reply = || {
        Ok(match line.function {
            "read" | "dequeue" => Reply::value(inner.json()),
            "cas" => Reply::value(true),
            "acquire" if matches!(inner, Edn::Integer(_)) => Reply::value(inner.json()),
            "txn" => Reply::value(transaction(inner)?),
            _ => Reply::none(),
        })
    };
    record(processes, line, &named, call, reply)
}

/// Jepsen's independent keys put the key before the value, as `[key value]`.
fn independent<'a>(function: &str, value: &'a Edn) -> (Option<String>, &'a Edn) {
    let (Edn::Sequence(pair), "read" | "write" | "cas") = (value, function) else { return (None, value) };
    let [key, inner] = &pair[..] else { return (None, value) };
    let is_key = matches!(key, Edn::Integer(_) | Edn::Text(_) | Edn::Keyword(_));
    let is_pair = function != "cas" || matches!(inner, Edn::Sequence(_));
    if is_key && is_pair { (Some(key.name()), inner) } else { (None, value) }
}

/// Micro-operations as our format has them: `["append", key, value]`, `["r", key, read]`, `["w", key, value]`.
fn transaction(value: &Edn) -> Result<Value, String> {
    let Edn::Sequence(operations) = value else {
        return Err(format!(
            "expected [[:append key value] [:r key nil] ...] for :txn, found {}",
            value.json()
        ));
    };
    let micro = |operation: &Edn| match operation {
        Edn::Sequence(parts) if parts.len() == 3 => {
            Ok(json!([parts[0].json(), parts[1].name(), parts[2].json()]))
        }
        other => Err(format!("expected [function key value] in :txn, found {}", other.json())),
    };
    operations.iter().map(micro).collect::<Result<Vec<Value>, String>>().map(Value::Array)
}

fn record(
    processes: &mut Processes,
    line: &Line<'_>,
    named: &str,
    call: impl FnOnce() -> Result<Call, String>,
    reply: impl FnOnce() -> Result<Reply, String>,
) -> Result<(), String> {
    let Line { line: number, time, process, kind, function, error } = line;
    let compared = error.as_deref().is_some_and(|error| error.contains("precondition-failed"));
    let outcome = match *kind {
        "invoke" => return processes.invoke(*number, *time, process, named, call()?),
        "ok" => Outcome::Ok(reply()?),
        "fail" if *function == "cas" && compared => Outcome::Ok(Reply::value(false)),
        "fail" => Outcome::Fail { error: error.clone() },
        "info" => Outcome::Unknown { error: error.clone() },
        other => return Err(format!("expected :invoke, :ok, :fail or :info, found :{other}")),
    };
    processes.complete(*time, process, named, outcome)
}
