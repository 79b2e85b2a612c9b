//! Histories that people already have, in other formats.
//!
//! [`any`] finds out from the content which format it is. Every importer names the line that is wrong and what it
//! expected there, and none of them panics, whatever the bytes.

mod dbcop;
mod edn;
mod jepsen;
mod jepsen_log;
mod plume;
mod sessions;

pub use dbcop::dbcop;
pub use jepsen::jepsen_edn;
pub use jepsen_log::jepsen_log;
pub use plume::plume;

use std::collections::BTreeMap;
use std::io::{BufRead, Cursor, Read};

use crate::Error;
use crate::format::ReadLimits;
use crate::history::{Call, Handle, Header, History, Nanos, Outcome, Recorder};

/// How much of the input is looked at to find out its format, in bytes.
const LOOK_BYTES: u64 = 256 << 10;

/// A format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own JSON lines, see `docs/history-format.md`.
    Synod,
    /// Jepsen's and Maelstrom's `history.edn`, and Porcupine's key-value logs.
    Edn,
    /// Jepsen's text log.
    JepsenLog,
    /// `r(key,value,session,txn)`, as Plume, PolySI and IsoVista have it.
    Plume,
    /// dbcop's JSON.
    Dbcop,
}

/// The format of a file that begins so; `None` if it is none of ours.
///
/// ```
/// use synod_check::import::{Format, detect};
/// assert_eq!(detect(b"; a comment\n{:process 0, :type :invoke, :f :read, :value nil}"), Some(Format::Edn));
/// assert_eq!(detect(b"w(1,2,0,0)\n"), Some(Format::Plume));
/// assert_eq!(detect(b"hello"), None);
/// ```
pub fn detect(start: &[u8]) -> Option<Format> {
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}');
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines().find(|line| !line.starts_with([';', '#']) || line.starts_with("#jepsen"))?;
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).take(4096).collect();
    if lines().any(|line| line.contains("jepsen.util")) && !first.starts_with(['{', '[', '(', '#']) {
        return Some(Format::JepsenLog);
    }
    if first.starts_with("r(") || first.starts_with("w(") {
        return Some(Format::Plume);
    }
    if compact.starts_with("{\"") {
        let first_object = first.starts_with("{\"synod-history\"") || compact.contains("\"synod-history\"");
        return Some(if first_object { Format::Synod } else { Format::Dbcop });
    }
    if first.starts_with(['{', '[', '(', '#']) {
        return Some(if compact.starts_with("[[{\"") { Format::Dbcop } else { Format::Edn });
    }
    None
}

/// Reads a history in any of the known formats, and says which it was.
///
/// Errors: with the number of the line, and what was expected there.
///
/// ```
/// # use synod_check::{import, ReadLimits};
/// let (history, format) = import::any("w(1,2,0,0)\nr(1,2,1,0)\n".as_bytes(), ReadLimits::default())?;
/// assert_eq!((history.operations.len(), format), (2, import::Format::Plume));
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn any(mut input: impl BufRead, limits: ReadLimits) -> Result<(History, Format), Error> {
    let mut start = Vec::new();
    input.by_ref().take(LOOK_BYTES).read_to_end(&mut start)?;
    let format = detect(&start);
    let input = Cursor::new(start).chain(input);
    let history = match format {
        Some(Format::Synod) => History::read(input, limits),
        Some(Format::Edn) => jepsen_edn(input, limits),
        Some(Format::JepsenLog) => jepsen_log(input, limits),
        Some(Format::Plume) => plume(input, limits),
        Some(Format::Dbcop) => dbcop(input, limits),
        None => Err(Error::Malformed {
            line: 1,
            problem: "this is no history that we know; expected our JSON lines (a header such as \
                      {\"synod-history\":1,\"object\":\"kv\"}), Jepsen's history.edn or text log, \
                      lines such as r(key,value,session,txn), or dbcop's JSON"
                .into(),
        }),
    };
    Ok((history?, format.expect("an unknown format is an error")))
}

/// Pairs invocations with returns by process, of which each has at most one operation open.
struct Processes {
    recorder: Recorder,
    open: BTreeMap<String, (Handle, String, u64)>,
}

impl Processes {
    fn new(header: Header) -> Processes {
        Processes { recorder: Recorder::new(header), open: BTreeMap::new() }
    }

    fn invoke(
        &mut self,
        line: u64,
        time: Option<Nanos>,
        process: &str,
        function: &str,
        call: Call,
    ) -> Result<(), String> {
        if let Some((_, open, since)) = self.open.get(process) {
            return Err(format!(
                "process {process} invokes {function}, but its {open} of line {since} has not returned"
            ));
        }
        let handle = self.recorder.invoke_at(time, process, None, call);
        self.open.insert(process.to_owned(), (handle, function.to_owned(), line));
        Ok(())
    }

    fn complete(
        &mut self,
        time: Option<Nanos>,
        process: &str,
        function: &str,
        outcome: Outcome,
    ) -> Result<(), String> {
        match self.open.remove(process) {
            Some((handle, open, _)) if open == function => {
                self.recorder.complete_at(time, handle, outcome);
                Ok(())
            }
            Some((_, open, since)) => Err(format!(
                "process {process} returns from {function}, but it invoked {open} in line {since}"
            )),
            None => Err(format!("process {process} returns from {function}, which it had not invoked")),
        }
    }
}
