//! A contradiction in words and a picture of plain text.

use std::fmt::Write;

use crate::answer::{Link, Reason};
use crate::history::{History, Operation, Outcome};
use crate::linearizable::{Contradiction, OperationIndex};

/// Operations drawn at the most; the ones closest before the end are kept.
const BARS_MAX: usize = 24;
/// Columns of the picture's time axis at the most.
const COLUMNS_MAX: usize = 64;
/// Characters of a call or an answer; longer ones are cut.
const TEXT_CHARS_MAX: usize = 44;
/// Operations beside the contradiction, open when it became one, that are drawn for orientation.
const NEIGHBOURS_MAX: usize = 4;
/// Links of a chain of reasons that are told.
const LINKS_MAX: usize = 12;

pub(crate) fn explain(history: &History, no: &Contradiction, part: &[OperationIndex]) -> String {
    let mut text = String::new();
    let operations = &history.operations;
    let blocked = &operations[no.blocked.0];
    let place = no.part.as_deref().filter(|key| !key.is_empty()).map(|key| format!(" on key {key:?}"));
    let place = place.unwrap_or_default();
    let count = no.operations.len();
    match count {
        1 => writeln!(text, "Nothing that was asked{place} explains this answer:"),
        _ => writeln!(text, "No order of these {count} operations{place} explains what their clients saw:"),
    }
    .expect("a String takes all text");
    text.push('\n');
    picture(&mut text, history, &no.operations, Some(no.blocked), &neighbours(history, no, part));
    text.push('\n');
    because(&mut text, history, &precedence(history, &no.operations));
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    let returned = blocked.returned.map_or(u64::MAX, |returned| returned.order);
    let free = part
        .iter()
        .filter(|index| operations[index.0].invoked.order < returned)
        .count()
        .saturating_sub(count);
    if free > 0 {
        let which = if free == 1 { "The other operation" } else { "Each of the other operations" };
        line(format!(
            "{which} there until then ({free}) may take effect at any time, often or never: it does not help."
        ));
    }
    if let Some(prefix) = &no.prefix {
        let found = prefix.iter().filter(|index| **index != no.blocked).count();
        let states = no.states.join(", or ");
        line(format!(
            "Until `{}` of {} returned, all was explained ({found} operations in order); what it could find was: {}.",
            cut(&blocked.call.to_string()),
            cut(&blocked.client),
            cut(&states)
        ));
    }
    if !no.minimal {
        line("Fewer operations may be enough to show it: the budget for leaving some out was spent.".into());
    }
    text
}

/// The reason why a model other than linearizability fails.
pub(crate) fn reason(history: &History, reason: &Reason) -> String {
    let mut text = format!("{}\n\n", reason.words);
    if !reason.operations.is_empty() {
        picture(&mut text, history, &reason.operations, None, &[]);
        text.push('\n');
    }
    because(&mut text, history, &reason.links);
    text
}

/// An operation in a few words: its number, client, call and answer.
pub(crate) fn named(operation: &Operation) -> String {
    let answer = answer(operation);
    let answer = if answer == "ok" { String::new() } else { format!(" {answer}") };
    format!(
        "operation {} of {} ({}{answer})",
        operation.id,
        cut(&operation.client),
        cut(&operation.call.to_string())
    )
}

fn because(text: &mut String, history: &History, links: &[Link]) {
    for (number, link) in links.iter().take(LINKS_MAX).enumerate() {
        let [from, to] = [link.from, link.to].map(|index| named(&history.operations[index.0]));
        writeln!(text, "  {}. {from} before {to}: {}.", number + 1, link.why)
            .expect("a String takes all text");
    }
    if links.len() > LINKS_MAX {
        writeln!(text, "  … and {} more.", links.len() - LINKS_MAX).expect("a String takes all text");
    }
    if !links.is_empty() {
        text.push('\n');
    }
}

/// What real time says of a few operations: for each, the latest ones that had returned when it was invoked.
pub(crate) fn precedence(history: &History, operations: &[OperationIndex]) -> Vec<Link> {
    let mut links = Vec::new();
    for to in operations.iter().take(BARS_MAX) {
        let invoked = history.operations[to.0].invoked.order;
        let returned_before = |from: &&OperationIndex| {
            returned(&history.operations[from.0]).is_some_and(|returned| returned < invoked)
        };
        let latest = operations
            .iter()
            .filter(returned_before)
            .max_by_key(|from| history.operations[from.0].invoked.order);
        links.extend(latest.map(|from| Link {
            from: *from,
            to: *to,
            why: "it returned before the other was invoked".into(),
        }));
    }
    links
}

/// Operations that were open when the contradiction became one.
fn neighbours(history: &History, no: &Contradiction, part: &[OperationIndex]) -> Vec<OperationIndex> {
    let operations = &history.operations;
    let end = operations[no.blocked.0].returned.map_or(u64::MAX, |returned| returned.order);
    let last_start = no.operations.iter().map(|index| operations[index.0].invoked.order).max().unwrap_or(0);
    let beside = part.iter().rev().filter(|index| {
        let operation = &operations[index.0];
        let open = operation.invoked.order < end && returned(operation).is_none_or(|at| at > last_start);
        open && !no.operations.contains(index)
    });
    beside.take(NEIGHBOURS_MAX).copied().collect()
}

fn picture(
    text: &mut String,
    history: &History,
    contradiction: &[OperationIndex],
    blocked: Option<OperationIndex>,
    beside: &[OperationIndex],
) {
    let operations = &history.operations;
    let mut drawn: Vec<OperationIndex> = contradiction.to_vec();
    drawn.sort();
    let omitted = drawn.len().saturating_sub(BARS_MAX);
    drawn.drain(..omitted);
    drawn.extend(beside.iter().take(BARS_MAX - drawn.len()));
    drawn.sort();

    // Only the order of events counts, so each event that is drawn gets a column of its own.
    let mut events: Vec<u64> = drawn.iter().map(|index| operations[index.0].invoked.order).collect();
    events.extend(drawn.iter().filter_map(|index| returned(&operations[index.0])));
    events.sort_unstable();
    let spacing = (COLUMNS_MAX / events.len().max(1)).clamp(1, 4);
    let column = |event: u64| events.partition_point(|other| *other < event) * spacing;
    let width = events.len() * spacing;

    let rows: Vec<(String, String, String)> = drawn
        .iter()
        .map(|index| {
            let operation = &operations[index.0];
            let mut bar = " ".repeat(column(operation.invoked.order));
            match returned(operation) {
                Some(at) => {
                    bar.push('├');
                    bar.push_str(
                        &"─".repeat((column(at) - column(operation.invoked.order)).saturating_sub(1)),
                    );
                    bar.push('┤');
                }
                None => {
                    bar.push('├');
                    bar.push_str(&"┄".repeat(width - column(operation.invoked.order)));
                }
            }
            let call = format!("{}: {}", cut(&operation.client), cut(&operation.call.to_string()));
            (call, answer(operation), bar)
        })
        .collect();
    let call_width = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0);
    let answer_width = rows.iter().map(|row| row.1.chars().count()).max().unwrap_or(0);
    if omitted > 0 {
        writeln!(text, "    ({omitted} earlier ones are not drawn)").expect("a String takes all text");
    }
    for (index, (call, answer, bar)) in drawn.iter().zip(&rows) {
        let mark = if contradiction.contains(index) { '*' } else { ' ' };
        let remark = if Some(*index) == blocked { "  <- fits nowhere" } else { "" };
        let line = format!("  {mark} {call:call_width$}  {answer:answer_width$}  {bar}{remark}");
        writeln!(text, "{}", line.trim_end()).expect("a String takes all text");
    }
    if rows.len() + omitted > contradiction.len() {
        text.push_str("    (*: the contradiction; the others were open at that time)\n");
    }
}

/// When the operation ended, if it certainly had taken effect by then.
pub(crate) fn returned(operation: &Operation) -> Option<u64> {
    match operation.outcome {
        Outcome::Unknown { .. } => None,
        Outcome::Ok(_) | Outcome::Fail { .. } => operation.returned.map(|returned| returned.order),
    }
}

pub(crate) fn answer(operation: &Operation) -> String {
    match &operation.outcome {
        Outcome::Ok(reply) => {
            let value = reply.value.as_ref().map_or("ok".into(), |value| cut(&format!("-> {value}")));
            match reply.more.get("revision") {
                Some(revision) => format!("{value} at revision {}", cut(&revision.to_string())),
                None => value,
            }
        }
        Outcome::Fail { .. } => "failed".into(),
        Outcome::Unknown { .. } => "?".into(),
    }
}

/// At most `TEXT_CHARS_MAX` characters, the middle left out, on one line.
pub(crate) fn cut(text: &str) -> String {
    let characters: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if characters.len() <= TEXT_CHARS_MAX {
        return characters.into_iter().collect();
    }
    let half = (TEXT_CHARS_MAX - 1) / 2;
    let start: String = characters[..half].iter().collect();
    let end: String = characters[characters.len() - half..].iter().collect();
    format!("{start}…{end}")
}
