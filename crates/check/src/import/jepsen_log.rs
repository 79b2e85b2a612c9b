//! Jepsen's text log: `INFO  jepsen.util - 2 <tab> :invoke <tab> :cas <tab> [3 0]`.

use std::io::BufRead;

use super::Processes;
use super::edn::parse;
use super::jepsen::{Line, event};
use crate::Error;
use crate::format::{Lines, ReadLimits};
use crate::history::{Header, History, Outcome, Reply};

/// Reads a Jepsen log, in the old notation (`jepsen.util - `) or the newer one (`jepsen.util: `).
///
/// Lines of other loggers are skipped; `:nemesis` lines become notes. `:info`
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
    let mut header = Header::new("");
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
    let message = text.split_once("jepsen.util - ").or_else(|| text.split_once("jepsen.util: "));
    let Some((_, message)) = message else { return Ok(()) };
    let fields: Vec<&str> = message.split('\t').map(str::trim).collect();
    if fields[0].starts_with(':') {
        let words: Vec<&str> = fields.iter().map(|field| field.trim_start_matches(':')).collect();
        processes.recorder.note_at(None, words.join(" "));
        return Ok(());
    }
    let (process, kind, function, value, error) = match fields[..] {
        [process, kind, function, value] => (process, kind, function, value, None),
        [process, kind, function, value, error] => (process, kind, function, value, Some(error.to_owned())),
        _ => {
            return Err(format!(
                "expected process, type, function and value between tabs, found {message:?}"
            ));
        }
    };
    if process.parse::<u64>().is_err() {
        return Err(format!("expected the number of a process, found {process:?}"));
    }
    let word = |name: &str, text: &'_ str| match text.strip_prefix(':') {
        Some(word) => Ok(word.to_owned()),
        None => Err(format!("expected a keyword as {name}, found {text:?}")),
    };
    let (kind, function) = (word("the type", kind)?, word("the function", function)?);
    if kind == "fail" && function == "cas" {
        return processes.complete(None, process, "cas", Outcome::Ok(Reply::value(false)));
    }
    let line = Line { line: number, time: None, process, kind: &kind, function: &function, error };
    match line.kind {
        // What stands here then is the reason, in words.
        "fail" | "info" => {
            let outcome = match line.kind {
                "fail" => Outcome::fail(value),
                _ => Outcome::unknown(value),
            };
            let named = processes.open.get(process).map(|(_, named, _)| named.clone());
            let named = named.filter(|named| named.split(' ').next() == Some(line.function));
            processes.complete(None, process, named.as_deref().unwrap_or(line.function), outcome)
        }
        _ => event(processes, &line, &parse(value)?),
    }
}
