//! Histories, models and verdicts: which consistency a recorded history has.
//!
//! A [`history::History`] is who asked what, when it was asked, when and how it was answered; [`import`]
//! reads those that others have recorded. A [`model::Model`] is a sequential object: one initial state and one pure step. A verdict is never
//! a bare yes or no: *yes* comes with an order of the operations that anybody can replay, *no* with
//! the shortest contradiction found and a picture of it, and *unknown* says what stopped the search
//! and what was proved until then.
//!
//! This crate knows nothing of protocols, clocks or files, and needs threads only to be faster, so it judges the history of any
//! system, inside a simulator, a test, a command line or a web page.
//!
//! ```
//! use synod_check::history::{Call, Header, Nanos, Outcome, Recorder, Reply};
//! use synod_check::linearizable::{self, Limits, Verdict};
//! use synod_check::model::KeyValue;
//!
//! let mut recorder = Recorder::new(Header::new("kv"));
//! let put = recorder.invoke(Nanos(0), "alice", Call::put("x", "1"));
//! recorder.complete(Nanos(10), put, Outcome::Ok(Reply::none()));
//! let get = recorder.invoke(Nanos(20), "bob", Call::get("x"));
//! recorder.complete(Nanos(30), get, Outcome::Ok(Reply::value(serde_json::Value::Null)));
//!
//! let history = recorder.finish();
//! let report = linearizable::check(&KeyValue::of(&history), &history, &Limits::default(), &mut || false)?;
//! let Verdict::No(contradiction) = &report.verdict else { panic!("bob read a stale value") };
//! assert_eq!(contradiction.operations.len(), 2);
//! println!("{}", contradiction.explanation);
//! # Ok::<(), synod_check::Error>(())
//! ```
//!
//! [`judge::judge`] asks for all models that an object has, [`linearizable::check`] for linearizability of
//! any model of yours, [`stream::Follower`] while a history still grows. `docs/checking.md` says what each
//! model means, how it is decided and at what cost.
//!
//! What it leaves out: fast algorithms for sets with removals that are read as a whole, and causal models of list-append.

pub mod answer;
pub mod history;
pub mod import;
pub mod judge;
pub mod linearizable;
pub mod model;
pub mod picture;
pub mod report;
pub mod stream;

mod ambiguous;
mod append;
mod causal;
mod counting;
mod elements;
mod explain;
mod fifo;
mod format;
mod graph;
mod growing;
mod guarantees;
mod infer;
mod lifo;
mod minimise;
mod observed;
mod parts;
mod reduce;
mod revisions;
mod search;
mod sequential;
mod serial;
mod zones;

pub use format::{Asked, HistoryWriter, ReadLimits};

/// What went wrong, whose fault it is, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a history; the author of the file or of its recorder must mend it.
    #[error("line {line}: {problem}")]
    Malformed {
        /// Line in the input, counted from 1.
        line: u64,
        /// What was found and what was expected.
        problem: String,
    },
    /// The history is well formed, but the model does not know one of its operations.
    #[error("operation {operation} ({call}): {problem}")]
    NotOfThisObject {
        /// Index of the operation in [`history::History::operations`].
        operation: usize,
        /// The call as a person would write it.
        call: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The input is larger than the caller allowed; raise the limit or split the history.
    #[error("line {line}: {limit} exceeded (the limit is {value}); raise it, or split the history")]
    TooLarge {
        /// Line in the input, counted from 1.
        line: u64,
        /// The limit's name.
        limit: &'static str,
        /// The limit's value.
        value: u64,
    },
    /// Reading or writing failed below this crate.
    #[error("the history could not be read or written: {0}")]
    Io(#[from] std::io::Error),
}
