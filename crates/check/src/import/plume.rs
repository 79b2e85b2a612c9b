//! The text format of Plume, PolySI and IsoVista: `w(key,value,session,txn)` or `r(key,value,session,txn)`, one a line.

use std::io::BufRead;

use serde_json::Value;

use super::sessions::Sessions;
use crate::Error;
use crate::format::{Lines, ReadLimits};
use crate::history::History;

/// Reads sessions of transactions in Plume's text format. Lines of one transaction need not stand together;
/// transactions of a session are in the order of their first lines. Blank lines and lines that start with `#` are skipped.
///
/// Errors: with the number of the line, and what was expected there.
///
/// ```
/// # use synod_check::{import, ReadLimits};
/// let history = import::plume("w(7,1,0,0)\nw(8,1,0,0)\nr(7,1,1,1)\n".as_bytes(), ReadLimits::default())?;
/// assert_eq!(history.operations.len(), 2);
/// # Ok::<(), synod_check::Error>(())
/// ```
pub fn plume(input: impl BufRead, limits: ReadLimits) -> Result<History, Error> {
    let mut sessions = Sessions::default();
    let mut lines = Lines::new(input, limits);
    while let Some((text, _)) = lines.next()? {
        let text = text.trim().trim_start_matches('\u{feff}');
        if !text.is_empty() && !text.starts_with('#') {
            let outcome = line(&mut sessions, text);
            outcome.map_err(|problem| lines.malformed(problem))?;
            lines.room_for(sessions.len().saturating_sub(1))?;
        }
    }
    Ok(sessions.finish("plume"))
}

fn line(sessions: &mut Sessions, text: &str) -> Result<(), String> {
    let expected =
        || format!("expected r(key,value,session,txn) or w(key,value,session,txn), found {text:?}");
    let (writes, rest) = match (text.strip_prefix("w("), text.strip_prefix("r(")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(expected()),
    };
    let inside = rest.trim_end_matches([',', ';']).strip_suffix(')').ok_or_else(expected)?;
    let fields: Vec<&str> = inside.split(',').map(str::trim).collect();
    let [key, value, session, transaction] = fields[..] else { return Err(expected()) };
    if [key, value, session, transaction].contains(&"") {
        return Err(expected());
    }
    let value = match value {
        "null" | "nil" if !writes => Value::Null,
        _ => value.parse::<i64>().map_or_else(|_| Value::from(value), Value::from),
    };
    sessions.add(session, transaction, writes, key, value);
    Ok(())
}
