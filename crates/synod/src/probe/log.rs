//! What the clients of a probe did and saw, kept and written line by line while it happens.

use std::fs::File;
use std::io::LineWriter;
use std::path::Path;
use std::time::Instant;
use synod_check::history::{Call, Handle, Header, History, Nanos, Outcome, Recorder};
use synod_check::{Asked, HistoryWriter};

/// The recorder of one run.
pub struct Log {
    recorder: Recorder,
    file: Option<HistoryWriter<LineWriter<File>>>,
    started: Instant,
    /// The first error of the file, told at the end.
    problem: Option<String>,
    succeeded: u64,
    last_error: Option<String>,
}

/// An operation under way.
#[must_use = "complete the operation, or its outcome stays unknown"]
pub struct Ticket {
    id: u64,
    handle: Handle,
}

impl Log {
    /// Begins; with a file, whose lines are complete as soon as they are written.
    pub fn new(header: Header, path: Option<&Path>) -> Result<Log, String> {
        let file = path.map(|path| {
            let told = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
            let file = File::create(path).map_err(|error| told(&error))?;
            HistoryWriter::new(LineWriter::new(file), &header).map_err(|error| told(&error))
        });
        Ok(Log {
            file: file.transpose()?,
            recorder: Recorder::new(header),
            started: Instant::now(),
            problem: None,
            succeeded: 0,
            last_error: None,
        })
    }

    fn now(&self) -> Nanos {
        Nanos(self.started.elapsed().as_nanos() as u64)
    }

    /// Before the request leaves.
    pub fn invoke(&mut self, client: &str, node: &str, call: Call) -> Ticket {
        let (id, time) = (self.recorder.history().operations.len() as u64, self.now());
        if let Some(file) = &mut self.file {
            let asked = Asked { id, client, node: Some(node), session: None, time: Some(time) };
            let written = file.invoke(&asked, &call);
            self.keep_problem(written);
        }
        Ticket { id, handle: self.recorder.invoke_on(time, client, node, call) }
    }

    /// After the answer has come, or is waited for no longer.
    pub fn complete(&mut self, ticket: Ticket, outcome: Outcome) {
        let time = self.now();
        if let Some(file) = &mut self.file {
            let written = file.complete(ticket.id, Some(time), &outcome);
            self.keep_problem(written);
        }
        match &outcome {
            Outcome::Ok(_) => self.succeeded += 1,
            Outcome::Fail { error } | Outcome::Unknown { error } => self.last_error.clone_from(error),
        }
        self.recorder.complete(time, ticket.handle, outcome);
    }

    /// Something happened around the operations.
    pub fn note(&mut self, text: &str) {
        let time = self.now();
        if let Some(file) = &mut self.file {
            let written = file.note(Some(time), text, None, &serde_json::Map::new());
            self.keep_problem(written);
        }
        self.recorder.note(time, text);
    }

    fn keep_problem(&mut self, written: Result<(), synod_check::Error>) {
        if let Err(error) = written {
            self.problem.get_or_insert(format!("the history cannot be written: {error}"));
        }
    }

    /// What was recorded. Errors: the file could not be written, or nothing ever succeeded.
    pub fn history(&self) -> Result<History, String> {
        match (&self.problem, self.succeeded, &self.last_error) {
            (Some(problem), ..) => Err(problem.clone()),
            (None, 0, Some(error)) => Err(format!("no operation succeeded; the last said: {error}")),
            (None, 0, None) => Err("no operation ended within the time".into()),
            (None, ..) => Ok(self.recorder.history().clone()),
        }
    }
}
