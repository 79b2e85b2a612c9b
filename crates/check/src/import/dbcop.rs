//! dbcop's JSON: sessions of transactions of events
//! `{"write": true, "variable": 0, "version": 1, "success": true}`.

use std::io::{BufRead, Read};

use serde_json::Value;

use super::sessions::Sessions;
use crate::Error;
use crate::format::ReadLimits;
use crate::history::History;

/// Bytes of one file at the most: it is one JSON value, held as a whole.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Reads dbcop's history: an object with the sessions under `data`, or the array of sessions itself. Events
/// and transactions without success are left out, as what never happened.
///
/// Errors: with the number of the line where it is no JSON, or else the session and transaction that are wrong.
///
/// ```
/// # use synod_check::{import, ReadLimits};
/// let text = r#"{"data":[[{"events":[{"write":true,"variable":1,"version":5,"success":true}],"success":true}]]}"#;
/// assert_eq!(import::dbcop(text.as_bytes(), ReadLimits::default())?.operations.len(), 1);
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn dbcop(input: impl BufRead, limits: ReadLimits) -> Result<History, Error> {
    let mut bytes = Vec::new();
    input.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::TooLarge { line: 1, limit: "bytes of the file", value: FILE_BYTES_MAX });
    }
    let document: Value = serde_json::from_slice(&bytes).map_err(|error| Error::Malformed {
        line: error.line().max(1) as u64,
        problem: format!("this is no JSON: {error}"),
    })?;
    let mut sessions = Sessions::default();
    read(&document, &mut sessions, limits.operations_max)?;
    Ok(sessions.finish("dbcop"))
}

fn read(document: &Value, sessions: &mut Sessions, transactions_max: u64) -> Result<(), Error> {
    let bad = |problem: String| Error::Malformed { line: 1, problem };
    let data = document.get("data").unwrap_or(document).as_array();
    let data = data.ok_or_else(|| bad("expected an array of sessions under `data`".into()))?;
    for (number, session) in data.iter().enumerate() {
        let transactions = session.as_array();
        let transactions = transactions
            .ok_or_else(|| bad(format!("session {number}: expected an array of transactions")))?;
        for (place, transaction) in transactions.iter().enumerate() {
            let wrong = |what: &str| bad(format!("session {number}, transaction {place}: expected {what}"));
            if sessions.len() as u64 >= transactions_max {
                return Err(Error::TooLarge { line: 1, limit: "operations_max", value: transactions_max });
            }
            let (session, name) = (number.to_string(), place.to_string());
            let at = sessions.transaction(&session, &name);
            if transaction.get("success") == Some(&Value::Bool(false)) {
                sessions.abort(at);
            }
            let events = transaction.get("events").unwrap_or(transaction).as_array();
            for event in events.ok_or_else(|| wrong("an array of `events`"))? {
                if event.get("success") == Some(&Value::Bool(false)) {
                    continue;
                }
                let writes = event.get("write").and_then(Value::as_bool);
                let writes = writes.ok_or_else(|| wrong("`write`, true or false, in an event"))?;
                let key = event.get("variable").and_then(Value::as_u64);
                let key = key.ok_or_else(|| wrong("`variable`, a whole number, in an event"))?;
                let version =
                    event.get("version").filter(|version| version.is_u64() || !writes && version.is_null());
                let version = version.ok_or_else(|| wrong("`version`, a whole number, in an event"))?;
                sessions.add(&session, &name, writes, &key.to_string(), version.clone());
            }
        }
    }
    Ok(())
}
