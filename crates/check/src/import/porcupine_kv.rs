//! Porcupine's key-value logs: one EDN map a line, such as
//! `{:process 0, :type :invoke, :f :append, :key "0", :value "x"}`.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::Processes;
use crate::Error;
use crate::format::{Lines, ReadLimits};
use crate::history::{Call, Header, History, Outcome, Reply};

/// Reads a key-value log of `:get`, `:put` and `:append`. Keys start as the empty string, which is also
/// what a `:get` of a missing key reads.
///
/// Blank lines and comments (`;`) are skipped. `:fail` means that nothing happened, `:info` that nobody
/// knows.
///
/// Errors: with the number of the line, and what was expected there.
///
/// ```
/// # use synod_check::{import, ReadLimits};
/// let log = r#"{:process 3, :type :invoke, :f :get, :key "a", :value nil}
/// {:process 3, :type :ok, :f :get, :key "a", :value ""}"#;
/// let history = import::porcupine_kv(log.as_bytes(), ReadLimits::default())?;
/// assert_eq!(history.operations[0].call.to_string(), "get a");
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn porcupine_kv(input: impl BufRead, limits: ReadLimits) -> Result<History, Error> {
    let mut header = Header::new("kv");
    header.initial = "".into();
    header.source = Some("porcupine".to_owned());
    let mut processes = Processes::new(header);
    let mut lines = Lines::new(input, limits);
    loop {
        let number = lines.number + 1;
        let Some((text, _)) = lines.next()? else { break };
        let outcome = line(&mut processes, number, text.trim());
        outcome.map_err(|problem| lines.malformed(problem))?;
        lines.room_for(processes.recorder.history().operations.len().saturating_sub(1))?;
    }
    Ok(processes.recorder.finish())
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edn {
    Nil,
    Integer(i64),
    Keyword(String),
    Text(String),
}

fn line(processes: &mut Processes, number: u64, text: &str) -> Result<(), String> {
    if text.is_empty() || text.starts_with(';') {
        return Ok(());
    }
    let fields = map(text)?;
    let field = |name: &str| fields.get(name).unwrap_or(&Edn::Nil);
    let keyword = |name: &str| match field(name) {
        Edn::Keyword(word) => Ok(word.as_str()),
        other => Err(format!("expected a keyword under :{name}, found {other:?}")),
    };
    let string = |name: &str| match field(name) {
        Edn::Text(text) => Ok(text.as_str()),
        other => Err(format!("expected a string under :{name}, found {other:?}")),
    };
    let Edn::Integer(process) = field("process") else {
        return Err(format!("expected a number under :process, found {:?}", field("process")));
    };
    let process = process.to_string();
    let function = keyword("f")?;
    // The key is part of what is compared when an operation returns.
    let key = string("key")?;
    let named = format!("{function} {key}");
    match (keyword("type")?, function) {
        ("invoke", "get") => processes.invoke(number, &process, &named, Call::get(key)),
        ("invoke", "put") => processes.invoke(number, &process, &named, Call::put(key, string("value")?)),
        ("invoke", "append") => {
            processes.invoke(number, &process, &named, Call::append(key, string("value")?))
        }
        ("ok", "get") => processes.complete(&process, &named, Outcome::Ok(Reply::value(string("value")?))),
        ("ok", "put" | "append") => processes.complete(&process, &named, Outcome::Ok(Reply::none())),
        ("fail", "get" | "put" | "append") => {
            processes.complete(&process, &named, Outcome::Fail { error: None })
        }
        ("info", "get" | "put" | "append") => {
            processes.complete(&process, &named, Outcome::Unknown { error: None })
        }
        ("invoke" | "ok" | "fail" | "info", other) => {
            Err(format!("expected :get, :put or :append under :f, found :{other}"))
        }
        (other, _) => Err(format!("expected :invoke, :ok, :fail or :info under :type, found :{other}")),
    }
}

/// A map of keywords to plain values; nothing may follow it.
fn map(text: &str) -> Result<BTreeMap<String, Edn>, String> {
    let mut rest = text.strip_prefix('{').ok_or("expected a map, which starts with {")?;
    let mut fields = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            let after = after.trim();
            let problem = || format!("expected nothing after the map, found {after:?}");
            return if after.is_empty() || after.starts_with(';') { Ok(fields) } else { Err(problem()) };
        }
        let (Edn::Keyword(name), after) = value(rest)? else {
            return Err(format!("expected a keyword such as :process, found {rest:?}"));
        };
        let (found, after) = value(after.trim_start_matches([' ', ',', '\t']))?;
        fields.insert(name, found);
        rest = after;
    }
}

/// One value, and what follows it.
fn value(text: &str) -> Result<(Edn, &str), String> {
    if let Some(quoted) = text.strip_prefix('"') {
        return string(quoted);
    }
    let end = text.find([' ', ',', '\t', '}']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let found = if let Some(keyword) = word.strip_prefix(':').filter(|keyword| !keyword.is_empty()) {
        Edn::Keyword(keyword.to_owned())
    } else if word == "nil" {
        Edn::Nil
    } else if let Ok(integer) = word.parse() {
        Edn::Integer(integer)
    } else {
        return Err(format!("expected a keyword, a string, an integer or nil, found {word:?}"));
    };
    Ok((found, rest))
}

fn string(quoted: &str) -> Result<(Edn, &str), String> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((Edn::Text(text), &quoted[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, plain @ ('"' | '\\'))) => text.push(plain),
                other => {
                    let found = other.map_or("the end".to_owned(), |(_, character)| character.to_string());
                    return Err(format!("expected n, t, r, \" or \\ after \\, found {found}"));
                }
            },
            other => text.push(other),
        }
    }
    Err("the string has no closing \"".into())
}
