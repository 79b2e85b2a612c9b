//! Histories that people already have, in other formats.

mod jepsen_log;
mod porcupine_kv;

pub use jepsen_log::jepsen_log;
pub use porcupine_kv::porcupine_kv;

use std::collections::BTreeMap;

use crate::history::{Call, Handle, Header, Outcome, Recorder};

/// Pairs invocations with returns by process, of which each has at most one operation open.
struct Processes {
    recorder: Recorder,
    open: BTreeMap<String, (Handle, String, u64)>,
}

impl Processes {
    fn new(header: Header) -> Processes {
        Processes { recorder: Recorder::new(header), open: BTreeMap::new() }
    }

    fn invoke(&mut self, line: u64, process: &str, function: &str, call: Call) -> Result<(), String> {
        if let Some((_, open, since)) = self.open.get(process) {
            return Err(format!(
                "process {process} invokes {function}, but its {open} of line {since} has not returned"
            ));
        }
        let handle = self.recorder.invoke_at(None, process, None, call);
        self.open.insert(process.to_owned(), (handle, function.to_owned(), line));
        Ok(())
    }

    fn complete(&mut self, process: &str, function: &str, outcome: Outcome) -> Result<(), String> {
        match self.open.remove(process) {
            Some((handle, open, _)) if open == function => {
                self.recorder.complete_at(None, handle, outcome);
                Ok(())
            }
            Some((_, open, since)) => Err(format!(
                "process {process} returns from {function}, but it invoked {open} in line {since}"
            )),
            None => Err(format!("process {process} returns from {function}, which it had not invoked")),
        }
    }
}
