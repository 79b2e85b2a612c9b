//! Histories on the page: operations as bars, and what the checker says of them.

use crate::operations::{Kept, NOT_OVER};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use synod_check::answer::Answer;
use synod_check::history::{History, Moment, Nanos, Operation, Outcome};
use synod_check::judge::{Consistency, Judgement, judge};
use synod_check::linearizable::Limits;
use synod_check::{ReadLimits, import, report};

/// Bytes that a history may have which the page sends.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;

/// Operations that are drawn, and may be moved. Of a longer history only those are drawn that a verdict is about, with their
/// neighbours.
pub const OPERATIONS_DRAWN_MAX: usize = 240;

/// Neighbours in time that are drawn on either side of the operations of a contradiction.
const BESIDE: usize = 12;
/// Notes (faults) that are drawn at the most.
const NOTES_MAX: usize = 200;
/// How long one judgement may take; what is not decided by then is unknown. Every model but the first gets what is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// A run whose operations are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunHistory {
    /// Its hash.
    pub(crate) run: String,
    /// The moment, in nanoseconds, up to which its operations count; all of them if there is none.
    pub(crate) until: Option<u64>,
}

/// Reads a history in any format that the checker knows, and judges it.
///
/// # Errors
/// With a sentence for the page: which line is wrong, what was expected, or that the history is too long.
pub(crate) fn judged_text(text: &[u8]) -> Result<Value, (StatusCode, String)> {
    let bad = |error: synod_check::Error| (StatusCode::BAD_REQUEST, error.to_string());
    let (history, format) = import::any(text, ReadLimits::default()).map_err(bad)?;
    let mut view = judged(&history)?;
    view["format"] = format!("{format:?}").to_lowercase().into();
    Ok(view)
}

/// As [`judged_text`], of a file that is still written: its last line may not be whole yet.
///
/// # Errors
/// The same.
pub(crate) fn judged_growing(text: &[u8]) -> Result<Value, (StatusCode, String)> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    judged_text(if whole == 0 { NOTHING_YET } else { &text[..whole] })
}

/// A history of which nothing has been written yet.
const NOTHING_YET: &[u8] = b"{\"synod-history\":1,\"object\":\"kv\"}\n";

/// Judges the operations of a history for every model that its object has.
///
/// # Errors
/// With a sentence for the page, if the object does not know an operation.
pub(crate) fn judged(history: &History) -> Result<Value, (StatusCode, String)> {
    let end = Instant::now() + PATIENCE;
    let judgement = judge(history, None, None, &Limits::default(), &mut || Instant::now() > end)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(view(history, &judgement))
}

/// Judges what is known of a live cluster's keyspace, and whether what it promises was kept: reads that asked for less are left
/// out there.
///
/// # Errors
/// As [`judged`].
pub(crate) fn judged_keyspace(kept: &Kept) -> Result<Value, (StatusCode, String)> {
    let mut view = judged(&kept.history)?;
    let is_hidden =
        |id: &Value| id.as_u64().is_some_and(|id| *kept.history.operations[id as usize].client == *NOT_OVER);
    if let Some(operations) = view["operations"].as_array_mut() {
        operations.retain(|operation| !is_hidden(&operation["id"]));
    }
    for model in view["judgement"]["models"].as_array_mut().into_iter().flatten() {
        if let Some(order) = model["order"].as_array_mut() {
            order.retain(|id| !is_hidden(id));
        }
    }
    let own = || view["judgement"]["models"].as_array()?.iter().find(|model| model["model"] == *kept.model);
    let verdict = match kept.weaker.is_empty() {
        true => own().map_or(Value::Null, |model| model["verdict"].clone()),
        false => {
            let mut history = kept.history.clone();
            let mut index = 0..;
            history.operations.retain(|_| index.next().is_none_or(|index| !kept.weaker.contains(&index)));
            let end = Instant::now() + PATIENCE;
            let model = Consistency::named(&kept.model);
            let judgement = judge(&history, None, model, &Limits::default(), &mut || Instant::now() > end)
                .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
            report::json(&history, &judgement)["models"][0]["verdict"].clone()
        }
    };
    view["keyspace"] = json!({
        "name": kept.name, "model": kept.model, "version": kept.version, "anew": kept.anew, "blind": kept.is_blind,
        "verdict": verdict, "weaker": kept.weaker.len(),
    });
    Ok(view)
}

/// What clients had asked and heard by a moment: later answers are not known yet.
pub(crate) fn until(history: &History, t: u64) -> History {
    let by_then = |moment: &Moment| moment.time.is_none_or(|Nanos(time)| time <= t);
    let mut cut = history.clone();
    cut.operations.retain(|operation| by_then(&operation.invoked));
    for operation in &mut cut.operations {
        if operation.returned.as_ref().is_some_and(|returned| !by_then(returned)) {
            operation.returned = None;
            operation.outcome = Outcome::Unknown { error: None };
        }
    }
    cut.notes.retain(|note| by_then(&note.moment));
    cut
}

fn view(history: &History, judgement: &Judgement) -> Value {
    let places = Places::of(history);
    let drawn = drawn(history, judgement);
    let operations: Vec<Value> =
        drawn.iter().map(|index| operation(&history.operations[*index], &places)).collect();
    let notes: Vec<Value> = (history.notes.iter().take(NOTES_MAX))
        .map(|note| json!({ "t": places.at(&note.moment), "text": note.text, "node": note.node.as_deref() }))
        .collect();
    json!({
        "header": {
            "object": judgement.object.name(),
            "initial": history.header.initial,
            "about": history.header.about,
            "more": history.header.more,
        },
        "timed": places.timed(),
        "whole": operations.len() == history.operations.len(),
        "operations": operations,
        "notes": notes,
        "judgement": report::json(history, judgement),
    })
}

fn operation(operation: &Operation, places: &Places) -> Value {
    let (outcome, answer, error) = match &operation.outcome {
        Outcome::Ok(reply) => ("ok", json!(reply.value), &None),
        Outcome::Fail { error } => ("fail", Value::Null, error),
        Outcome::Unknown { error } => ("unknown", Value::Null, error),
    };
    let reply = match &operation.outcome {
        Outcome::Ok(reply) => json!(reply.more),
        _ => json!({}),
    };
    json!({
        "id": operation.id,
        "client": *operation.client,
        "node": operation.node.as_deref(),
        "session": operation.session.as_deref(),
        "op": *operation.call.op,
        "key": operation.call.key.as_deref(),
        "value": operation.call.value,
        "expect": operation.call.expect,
        "more": operation.call.more,
        "start": places.at(&operation.invoked),
        "end": operation.returned.as_ref().map(|returned| places.at(returned)),
        "outcome": outcome,
        "answered": matches!(&operation.outcome, Outcome::Ok(reply) if reply.value.is_some()),
        "answer": answer,
        "reply": reply,
        "error": error,
    })
}

/// Which operations are drawn: all, or those that the strongest failed model is about, with their neighbours.
fn drawn(history: &History, judgement: &Judgement) -> Vec<usize> {
    let count = history.operations.len();
    if count <= OPERATIONS_DRAWN_MAX {
        return (0..count).collect();
    }
    let reasons = judgement.findings.iter().filter_map(|finding| match &finding.answer {
        Answer::No(reason) => Some(reason.operations.iter().map(|index| index.0)),
        _ => None,
    });
    let mut chosen = BTreeSet::new();
    for index in reasons.flatten().take(OPERATIONS_DRAWN_MAX) {
        chosen.insert(index);
    }
    if chosen.is_empty() {
        return (0..OPERATIONS_DRAWN_MAX).collect();
    }
    for index in chosen.clone() {
        for beside in index.saturating_sub(BESIDE)..(index + BESIDE + 1).min(count) {
            if chosen.len() < OPERATIONS_DRAWN_MAX {
                chosen.insert(beside);
            }
        }
    }
    chosen.into_iter().collect()
}

/// Where each event stands on the line of time: its time, moved on by a nanosecond where two share one, since the order of
/// events is the truth; or its number, where a history has no times.
struct Places {
    at: Vec<u64>,
    timed: bool,
}

impl Places {
    fn of(history: &History) -> Places {
        let operations = history.operations.iter();
        let moments =
            operations.flat_map(|operation| [Some(operation.invoked), operation.returned]).flatten();
        let mut moments: Vec<Moment> = moments.chain(history.notes.iter().map(|note| note.moment)).collect();
        moments.sort_by_key(|moment| moment.order);
        let timed = moments.iter().all(|moment| moment.time.is_some());
        let size = moments.last().map_or(0, |moment| moment.order as usize + 1);
        let mut at = vec![0; size];
        let mut next = 0;
        for moment in moments {
            let wanted = if timed { moment.time.map_or(0, |time| time.0) } else { moment.order };
            let place = wanted.max(next);
            at[moment.order as usize] = place;
            next = place + 1;
        }
        Places { at, timed }
    }

    fn at(&self, moment: &Moment) -> u64 {
        self.at[moment.order as usize]
    }

    fn timed(&self) -> bool {
        self.timed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: &str = r#"{"synod-history":1,"object":"kv"}
{"event":"invoke","id":0,"client":"a","time":0,"op":"put","key":"x","value":"1"}
{"event":"ok","id":0,"time":10}
{"event":"invoke","id":1,"client":"b","time":20,"op":"get","key":"x"}
{"event":"ok","id":1,"time":30,"value":null}
"#;

    fn verdict(view: &Value, model: &str) -> Value {
        let models = view["judgement"]["models"].as_array().expect("models");
        let found = models.iter().find(|found| found["model"] == model);
        found.map_or(Value::Null, |found| found["verdict"].clone())
    }

    #[test]
    fn a_stale_read_is_sequential_and_not_linearizable() {
        let view = judged_text(STALE.as_bytes()).expect("a history");
        assert_eq!(verdict(&view, "linearizable"), "no");
        assert_eq!(verdict(&view, "sequential"), "yes");
        assert_eq!(view["operations"][1]["start"], 20);
        assert_eq!(view["operations"][1]["answered"], true);
        assert_eq!(view["operations"][0]["answered"], false);
        assert_eq!(view["whole"], true);
    }

    #[test]
    fn an_answer_that_comes_later_is_not_known_yet() {
        let history = History::read(STALE.as_bytes(), ReadLimits::default()).expect("a history");
        let view = judged(&until(&history, 25)).expect("judged");
        assert_eq!(verdict(&view, "linearizable"), "yes");
        assert_eq!(view["operations"][1]["outcome"], "unknown");
        assert_eq!(view["operations"][1]["end"], Value::Null);
        assert_eq!(until(&history, 5).operations.len(), 1);
    }

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let text = STALE.replace("\"time\":20", "\"time\":10");
        let view = judged_text(text.as_bytes()).expect("a history");
        assert_eq!(view["operations"][0]["end"], 10);
        assert_eq!(view["operations"][1]["start"], 11);
    }

    #[test]
    fn a_long_history_is_drawn_where_it_breaks() {
        let mut text = String::from("{\"synod-history\":1,\"object\":\"kv\"}\n");
        for id in 0..2_000_u64 {
            let (start, end) = (id * 10, id * 10 + 5);
            let what = if id % 2 == 0 {
                format!("\"op\":\"put\",\"key\":\"x\",\"value\":{id}")
            } else {
                "\"op\":\"get\",\"key\":\"x\"".into()
            };
            let seen = if id == 1_001 { 4 } else { id - id % 2 };
            let value = if id % 2 == 0 { String::new() } else { format!(",\"value\":{seen}") };
            text +=
                &format!("{{\"event\":\"invoke\",\"id\":{id},\"client\":\"a\",\"time\":{start},{what}}}\n");
            text += &format!("{{\"event\":\"ok\",\"id\":{id},\"time\":{end}{value}}}\n");
        }
        let view = judged_text(text.as_bytes()).expect("a history");
        assert_eq!(view["whole"], false);
        let drawn = view["operations"].as_array().expect("operations");
        assert!(drawn.len() <= OPERATIONS_DRAWN_MAX);
        assert!(drawn.iter().any(|operation| operation["id"] == 1_001));
    }

    #[test]
    fn a_file_without_a_whole_line_is_a_history_that_nobody_has_begun() {
        for text in [&b""[..], b"{\"synod-hist"] {
            let view = judged_growing(text).expect("a history");
            assert_eq!(view["operations"], serde_json::json!([]));
        }
    }

    #[test]
    fn what_is_no_history_is_refused_with_its_line() {
        let (status, why) = judged_text(b"hello").expect_err("no history");
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(why.starts_with("line 1: "), "{why}");
    }
}
