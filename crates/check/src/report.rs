//! A judgement for machines (JSON, JUnit) and for people (text).

use std::fmt::Write;

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::history::History;
use crate::judge::{Finding, Judgement};
use crate::linearizable::OperationIndex;

/// Operations of a witness order that the JSON names at the most; a longer one is left out.
const ORDER_MAX: usize = 100_000;

/// The judgement as lines of text.
pub fn text(judgement: &Judgement) -> String {
    let mut text = format!("{} operations on a {}\n", judgement.operations, judgement.object.name());
    let width = judgement.findings.iter().map(|finding| finding.model.name().len()).max().unwrap_or(0);
    for finding in &judgement.findings {
        let (mark, words) = match &finding.answer {
            Answer::Yes(proof) => ("yes", proof.words.as_str()),
            Answer::No(reason) => match finding.follows_from {
                Some(weaker) => ("no", weaker.name()),
                None => ("no", reason.words.as_str()),
            },
            Answer::Unknown(why) => ("unknown", why.as_str()),
        };
        let since = match (&finding.answer, finding.follows_from) {
            (Answer::No(_), Some(_)) => "it is not ",
            _ => "",
        };
        writeln!(text, "  {:width$}  {mark:7}  {since}{words}", finding.model.name()).expect("memory");
    }
    let strongest = judgement.strongest();
    if !strongest.is_empty() {
        let names: Vec<&str> = strongest.iter().map(|model| model.name()).collect();
        writeln!(text, "\nStrongest that hold: {}.", names.join(", ")).expect("memory");
    }
    if let Some(failed) = first_failure(judgement) {
        writeln!(text, "\nWhy it is not {}:\n{}", failed.model, failed.explanation).expect("memory");
    }
    text
}

/// The strongest model that fails, for reasons of its own.
pub fn first_failure(judgement: &Judgement) -> Option<&Finding> {
    judgement.findings.iter().find(|finding| finding.answer.is_no() && !finding.explanation.is_empty())
}

/// The judgement as JSON. Operations are named by their `id` in the history.
pub fn json(history: &History, judgement: &Judgement) -> Value {
    let ids = |operations: &[OperationIndex]| -> Value {
        operations.iter().map(|index| Value::from(history.operations[index.0].id)).collect()
    };
    let finding = |finding: &Finding| {
        let mut value = json!({"model": finding.model.name()});
        if let Some(other) = finding.follows_from {
            value["follows-from"] = other.name().into();
        }
        match &finding.answer {
            Answer::Yes(proof) => {
                value["verdict"] = "yes".into();
                value["words"] = proof.words.as_str().into();
                if let Some(order) = proof.order.as_ref().filter(|order| order.len() <= ORDER_MAX) {
                    value["order"] = ids(order);
                }
            }
            Answer::No(reason) => {
                value["verdict"] = "no".into();
                value["words"] = reason.words.as_str().into();
                value["operations"] = ids(&reason.operations);
                value["minimal"] = reason.minimal.into();
                let link = |link: &crate::answer::Link| json!({"from": history.operations[link.from.0].id, "to": history.operations[link.to.0].id, "why": link.why});
                value["because"] = reason.links.iter().map(link).collect();
                value["explanation"] = finding.explanation.as_str().into();
            }
            Answer::Unknown(why) => {
                value["verdict"] = "unknown".into();
                value["words"] = why.as_str().into();
            }
        }
        value
    };
    let strongest: Vec<&str> = judgement.strongest().iter().map(|model| model.name()).collect();
    json!({
        "object": judgement.object.name(),
        "operations": judgement.operations,
        "strongest": strongest,
        "models": judgement.findings.iter().map(finding).collect::<Vec<Value>>(),
    })
}

/// The judgement as a JUnit report: one test case per model that is required, an error if it was not decided. Without a
/// requirement every model is a case, and one that fails counts as skipped, since nobody asked for it.
pub fn junit(judgement: &Judgement, name: &str, required: &[crate::judge::Consistency]) -> String {
    let mut cases = String::new();
    let (mut count, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    let all = judgement.findings.iter().map(|finding| (finding.model, finding));
    let asked = required.iter().filter_map(|model| Some((*model, judgement.of(*model)?)));
    let cases_of: Vec<_> = if required.is_empty() { all.collect() } else { asked.collect() };
    for (model, finding) in cases_of {
        count += 1;
        let inside = match &finding.answer {
            Answer::Yes(_) => String::new(),
            Answer::No(reason) if !required.is_empty() => {
                failures += 1;
                format!(
                    "<failure message=\"{}\">{}</failure>",
                    escaped(&reason.words),
                    escaped(&finding.explanation)
                )
            }
            Answer::No(reason) => {
                skipped += 1;
                format!("<skipped message=\"does not hold: {}\"/>", escaped(&reason.words))
            }
            Answer::Unknown(why) if !required.is_empty() => {
                errors += 1;
                format!("<error message=\"unknown: {}\"/>", escaped(why))
            }
            Answer::Unknown(why) => {
                skipped += 1;
                format!("<skipped message=\"unknown: {}\"/>", escaped(why))
            }
        };
        writeln!(
            cases,
            "  <testcase classname=\"{}\" name=\"{}\">{inside}</testcase>",
            escaped(name),
            model.name()
        )
        .expect("memory");
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{count}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\">\n{cases}</testsuite>\n",
        escaped(name)
    )
}

/// Text as it may stand in XML and HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            // XML has no place for other control characters.
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}
