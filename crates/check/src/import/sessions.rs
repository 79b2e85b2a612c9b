//! Sessions of transactions without any times, as the testers of isolation levels log them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::history::{Call, Header, History, Outcome, Recorder, Reply};

/// Collects reads and writes by session and transaction.
#[derive(Default)]
pub(super) struct Sessions {
    /// Transactions in the order of their first line: session, micro-operations, whether it committed.
    transactions: Vec<(String, Vec<Value>, bool)>,
    known: BTreeMap<(String, String), usize>,
    writes_zero: bool,
}

impl Sessions {
    /// How many transactions there are.
    pub(super) fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Adds a read or a write to a transaction.
    pub(super) fn add(&mut self, session: &str, transaction: &str, writes: bool, key: &str, value: Value) {
        self.writes_zero |= writes && value == 0;
        let at = self.transaction(session, transaction);
        let function = if writes { "w" } else { "r" };
        self.transactions[at].1.push(json!([function, key, value]));
    }

    /// The place of a transaction, which is added if it is new.
    pub(super) fn transaction(&mut self, session: &str, transaction: &str) -> usize {
        let next = self.transactions.len();
        let at = *self.known.entry((session.to_owned(), transaction.to_owned())).or_insert(next);
        if at == next {
            self.transactions.push((session.to_owned(), Vec::new(), true));
        }
        at
    }

    /// Marks a transaction as one that did not commit.
    pub(super) fn abort(&mut self, at: usize) {
        self.transactions[at].2 = false;
    }

    /// The history. Its order says nothing but the order within each session, and its header says so. A
    /// zero that nobody writes is the initial value.
    pub(super) fn finish(self, source: &str) -> History {
        let mut header = Header::new("rw-register");
        header.source = Some(source.to_owned());
        header.more.insert("real-time".to_owned(), Value::Bool(false));
        if !self.writes_zero {
            header.initial = 0.into();
        }
        let mut recorder = Recorder::new(header);
        for (session, operations, committed) in self.transactions {
            let asked = operations.iter().map(|operation| match operation[0].as_str() {
                Some("r") => json!(["r", operation[1], null]),
                _ => operation.clone(),
            });
            let mut call = Call::new("txn");
            call.more.insert("ops".to_owned(), asked.collect());
            let handle = recorder.invoke_at(None, &session, None, call);
            let outcome = match committed {
                true => Outcome::Ok(Reply::value(operations)),
                false => Outcome::fail("aborted"),
            };
            recorder.complete_at(None, handle, outcome);
        }
        recorder.finish()
    }
}
