//! Jepsen's text log of a compare-and-set register:
//! `INFO  jepsen.util - 2 <tab> :invoke <tab> :cas <tab> [3 0]`.

use std::io::BufRead;

use serde_json::Value;

use super::Processes;
use crate::Error;
use crate::format::{Lines, ReadLimits};
use crate::history::{Call, Header, History, Outcome, Reply};

/// Reads a Jepsen log of `:read`, `:write` and `:cas` on one register, which starts as nil.
///
/// Lines of other loggers are skipped, and so are `:nemesis` and `:info` lines of no process. `:info`
/// is an unknown outcome. `:fail` of a `:cas` means that the comparison failed, which says something
/// about the register: it becomes the answer `false`. `:fail` of others means that nothing happened.
///
/// Errors: with the number of the line, and what was expected there.
///
/// ```
/// # use synod_check::{import, ReadLimits};
/// let log = "INFO  jepsen.util - 0\t:invoke\t:cas\t[1 2]\nINFO  jepsen.util - 0\t:fail\t:cas\t[1 2]\n";
/// let history = import::jepsen_log(log.as_bytes(), ReadLimits::default())?;
/// assert_eq!(history.operations[0].call.to_string(), "cas: 1 -> 2");
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn jepsen_log(input: impl BufRead, limits: ReadLimits) -> Result<History, Error> {
    let mut header = Header::new("register");
    header.source = Some("jepsen".to_owned());
    let mut processes = Processes::new(header);
    let mut lines = Lines::new(input, limits);
    loop {
        let number = lines.number + 1;
        let Some((text, _)) = lines.next()? else { break };
        let outcome = line(&mut processes, number, text);
        outcome.map_err(|problem| lines.malformed(problem))?;
        lines.room_for(processes.recorder.history().operations.len().saturating_sub(1))?;
    }
    Ok(processes.recorder.finish())
}

fn line(processes: &mut Processes, number: u64, text: &str) -> Result<(), String> {
    let Some((_, message)) = text.split_once("jepsen.util - ") else { return Ok(()) };
    let fields: Vec<&str> = message.split('\t').map(str::trim).collect();
    if fields[0].starts_with(":nemesis") {
        return Ok(());
    }
    let [process, kind, function, value] = fields[..] else {
        return Err(format!("expected process, type, function and value between tabs, found {message:?}"));
    };
    if process.parse::<u64>().is_err() {
        return Err(format!("expected the number of a process, found {process:?}"));
    }
    match (kind, function) {
        (":invoke", ":read") => processes.invoke(number, process, function, Call::new("get")),
        (":invoke", ":write") => {
            let call = Call { value: Some(integer(value)?), ..Call::new("put") };
            processes.invoke(number, process, function, call)
        }
        (":invoke", ":cas") => {
            let (expect, value) = pair(value)?;
            let call = Call { expect: Some(expect), value: Some(value), ..Call::new("cas") };
            processes.invoke(number, process, function, call)
        }
        (":ok", ":read") => {
            processes.complete(process, function, Outcome::Ok(Reply::value(nil_or_integer(value)?)))
        }
        (":ok", ":write") => processes.complete(process, function, Outcome::Ok(Reply::none())),
        (":ok", ":cas") => processes.complete(process, function, Outcome::Ok(Reply::value(true))),
        (":fail", ":cas") => processes.complete(process, function, Outcome::Ok(Reply::value(false))),
        (":fail", ":read" | ":write") => processes.complete(process, function, Outcome::fail(value)),
        (":info", ":read" | ":write" | ":cas") => {
            processes.complete(process, function, Outcome::unknown(value))
        }
        (":invoke" | ":ok" | ":fail" | ":info", _) => {
            Err(format!("expected :read, :write or :cas, found {function:?}"))
        }
        _ => Err(format!("expected :invoke, :ok, :fail or :info, found {kind:?}")),
    }
}

fn integer(text: &str) -> Result<Value, String> {
    text.parse::<i64>().map(Value::from).map_err(|_| format!("expected an integer, found {text:?}"))
}

fn nil_or_integer(text: &str) -> Result<Value, String> {
    if text == "nil" { Ok(Value::Null) } else { integer(text) }
}

fn pair(text: &str) -> Result<(Value, Value), String> {
    let expected = || format!("expected [old new], found {text:?}");
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or_else(expected)?;
    let mut parts = inside.split_whitespace();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(old), Some(new), None) => Ok((nil_or_integer(old)?, integer(new)?)),
        _ => Err(expected()),
    }
}
