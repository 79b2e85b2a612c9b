//! What came out of a saga's steps, in what later ones do at keyspaces.
//!
//! In the keys and values of operations, and in what `add` adds, `${STEP}` stands for what came out of the step of that name, and
//! `${STEP/a/0}` for a part of it: what follows the name is a JSON Pointer (RFC 6901) into the output. So a reference is a path in the
//! object that an HTTP service gets as `given`. A `/` in a step's name is written `~1`, a `~` is written `~0`, and `$${` is a plain `${`.
//!
//! | a step's service | what comes out of the step |
//! |---|---|
//! | a keyspace | the list of the values that its `get`s read, in their order: texts, `null` where there was no such key, `{"base64": …}` where bytes are no text |
//! | an HTTP service | the body of its answer: as JSON, else as a text, else `{"base64": …}` |
//!
//! A text stands as it is, bytes as they are, and whatever else as its JSON.
//!
//! # Who is given what
//!
//! A step has the outputs of those that it names in `after`, and its compensation the step's own as well. Anything else is refused
//! when the saga is submitted ([`check`]). What the output holds is known only when the step's turn has come: if there is nothing in
//! the place that is named, the step is refused for good, in the same way as by a condition that does not hold.
//!
//! A keyspace finds the output of the step that is undone beside its mark that the step acted, so it is there whenever there is
//! something to undo. A service behind HTTP is not given the output of a step that was given up without an answer, since nobody but
//! the service knows it; that is why references are for keyspaces only, and services go by their idempotency keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use synod_protocols::saga::Given;

/// Bytes of all texts of one piece of work, once outputs are filled in. A step that would have more is refused.
pub const FILLED_BYTES_MAX: usize = 1 << 20;
/// Above this a number that is not whole may have lost digits when it was read: 2 to the 53rd.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A step as far as outputs go, with its work in the API's JSON.
#[derive(Clone, Debug)]
pub struct Planned<'a> {
    /// Its name.
    pub name: &'a str,
    /// The names of the steps that it comes after.
    pub after: Vec<&'a str>,
    /// What it does.
    pub action: &'a Value,
    /// What undoes it.
    pub compensation: Option<&'a Value>,
}

/// A reference to an output that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// The place of the step, from 0.
    pub step: usize,
    /// Whether the compensation is wrong, and not the action.
    pub is_compensation: bool,
    /// What is wrong and what to do, in one line.
    pub why: String,
}

/// Whether every output that is named in a saga's work can be had where it is named.
///
/// # Errors
/// The first that cannot.
pub fn check(steps: &[Planned<'_>]) -> Result<(), Misuse> {
    let yields = steps.iter().map(|step| (step.name, Yield::of(step.action))).collect();
    for (place, step) in steps.iter().enumerate() {
        let scope = |own| Scope { yields: &yields, step, own };
        let misuse = |is_compensation| move |why| Misuse { step: place, is_compensation, why };
        scope(None).check(step.action).map_err(misuse(false))?;
        if let Some(compensation) = step.compensation {
            scope(Some(step.name)).check(compensation).map_err(misuse(true))?;
        }
    }
    Ok(())
}

/// What comes out of a step, as far as its work tells.
#[derive(Clone, Copy)]
enum Yield {
    /// A list of so many values.
    Values(usize),
    Anything,
}

impl Yield {
    fn of(action: &Value) -> Yield {
        match action["ops"].as_array() {
            Some(ops) => Yield::Values(ops.iter().filter(|op| op.get("get").is_some()).count()),
            None => Yield::Anything,
        }
    }
}

/// What one piece of work may name.
struct Scope<'a> {
    yields: &'a BTreeMap<&'a str, Yield>,
    step: &'a Planned<'a>,
    /// The step itself, in what undoes it.
    own: Option<&'a str>,
}

impl Scope<'_> {
    fn check(&self, work: &Value) -> Result<(), String> {
        match work["ops"].as_array() {
            Some(ops) => ops.iter().flat_map(texts).try_for_each(|text| self.check_text(text)),
            None => self.check_request(work),
        }
    }

    fn check_text(&self, text: &str) -> Result<(), String> {
        for piece in pieces(text)? {
            let Piece::Output { shown, step, pointer } = piece else { continue };
            let Some(found) = self.yields.get(step.as_str()) else {
                return Err(format!("`{shown}`: there is no step {step}"));
            };
            if step == self.step.name && self.own.is_none() {
                return Err(format!(
                    "`{shown}`: what comes out of a step is not there before it is done: only what undoes it has it"
                ));
            }
            if step != self.step.name && !self.step.after.contains(&step.as_str()) {
                return Err(format!(
                    "`{shown}`: {} does not come after {step}: say so in `after`",
                    self.step.name
                ));
            }
            if let Yield::Values(count) = found {
                let last = count.checked_sub(1).ok_or_else(|| {
                    format!("`{shown}`: {step} reads nothing, so nothing comes out of it: add a `get` to what it does")
                })?;
                let place: Option<usize> = pointer.strip_prefix('/').and_then(|place| place.parse().ok());
                if !pointer.is_empty() && place.is_none_or(|place| place > last) {
                    return Err(format!(
                        "`{shown}`: what {step} reads is ${{{step}/0}} to ${{{step}/{last}}}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A service behind HTTP: a reference would reach it as it is written.
    fn check_request(&self, work: &Value) -> Result<(), String> {
        match work {
            Value::String(text) => {
                let named = pieces(text).unwrap_or_default().into_iter().find_map(|piece| match piece {
                    Piece::Output { shown, step, .. } if self.yields.contains_key(step.as_str()) => {
                        Some(shown)
                    }
                    _ => None,
                });
                named.map_or(Ok(()), |shown| {
                    Err(format!(
                        "`{shown}` is for keyspaces: an HTTP service finds the outputs in the body, as `given`"
                    ))
                })
            }
            Value::Array(all) => all.iter().try_for_each(|one| self.check_request(one)),
            Value::Object(fields) => fields.values().try_for_each(|one| self.check_request(one)),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }
}

/// The texts of an operation in which outputs may be named.
fn texts(op: &Value) -> impl Iterator<Item = &str> {
    let fields = op.as_object().into_iter().flat_map(|op| op.values()).filter_map(Value::as_object);
    fields
        .flatten()
        .filter(|(field, _)| FIELDS.contains(&field.as_str()))
        .filter_map(|(_, text)| text.as_str())
}

const FIELDS: [&str; 3] = ["key", "value", "by"];

/// The same operations with a number in place of each amount that is an output, so that their form can be checked before it is known.
pub(crate) fn stand_in(ops: &[Value]) -> Vec<Value> {
    let mut ops = ops.to_vec();
    for by in ops.iter_mut().filter_map(|op| op.get_mut("add")?.get_mut("by")) {
        let names_output = |piece: &Piece<'_>| matches!(piece, Piece::Output { .. });
        if by.as_str().is_some_and(|text| pieces(text).is_ok_and(|all| all.iter().any(names_output))) {
            *by = 0.into();
        }
    }
    ops
}

/// The operations with all outputs filled in.
///
/// # Errors
/// Why that can never be done.
pub(crate) fn fill(ops: &[Value], given: &[Given]) -> Result<Vec<Value>, String> {
    let outputs: BTreeMap<&str, Value> =
        given.iter().map(|given| (given.step.as_str(), readable(&given.output))).collect();
    let mut filling = Filling { outputs, room: FILLED_BYTES_MAX };
    ops.iter().map(|op| filling.operation(op)).collect()
}

struct Filling<'a> {
    outputs: BTreeMap<&'a str, Value>,
    /// Bytes that may still be written.
    room: usize,
}

impl Filling<'_> {
    fn operation(&mut self, op: &Value) -> Result<Value, String> {
        let mut op = op.clone();
        let fields =
            op.as_object_mut().into_iter().flat_map(|op| op.values_mut()).filter_map(Value::as_object_mut);
        for (field, value) in fields.flatten() {
            let Some(text) = value.as_str().filter(|_| FIELDS.contains(&field.as_str())) else { continue };
            let filled = self.text(text)?;
            *value = match (field.as_str(), std::str::from_utf8(&filled)) {
                ("by", number) => {
                    let number = number.ok().and_then(|number| number.parse::<i64>().ok());
                    let found =
                        || String::from_utf8_lossy(&filled).chars().take(SHOWN_MAX).collect::<String>();
                    number
                        .ok_or_else(|| format!("`{text}` is `{}`, which is no whole number", found()))?
                        .into()
                }
                (_, Ok(text)) => text.into(),
                ("key", Err(_)) => {
                    return Err(format!("`{text}` is bytes that are no text, and a key is one"));
                }
                (_, Err(_)) => json!({"base64": STANDARD.encode(&filled)}),
            };
        }
        Ok(op)
    }

    fn text(&mut self, text: &str) -> Result<Vec<u8>, String> {
        let mut filled = Vec::new();
        for piece in pieces(text)? {
            let bytes = match piece {
                Piece::Text(text) => text.as_bytes().to_vec(),
                Piece::Output { shown, step, pointer } => {
                    let output = self.outputs.get(step.as_str()).and_then(|output| output.pointer(pointer));
                    plain(output.unwrap_or(&Value::Null)).map_err(|why| format!("`{shown}`: {why}"))?
                }
            };
            self.room = self.room.checked_sub(bytes.len()).ok_or_else(|| {
                format!("with outputs filled in the work is larger than {FILLED_BYTES_MAX} bytes")
            })?;
            filled.extend(bytes);
        }
        Ok(filled)
    }
}

/// Characters of an output that a refusal shows.
const SHOWN_MAX: usize = 40;

/// What stands for a part of an output.
fn plain(output: &Value) -> Result<Vec<u8>, String> {
    match output {
        Value::Null => Err("what came out of that step has nothing there".into()),
        Value::String(text) => Ok(text.clone().into_bytes()),
        Value::Number(number) if number.is_f64() && number.as_f64().is_none_or(|it| it.abs() > EXACT_MAX) => {
            Err(format!("{number} may have lost digits: let the service answer such numbers as texts"))
        }
        Value::Object(fields) if fields.len() == 1 => {
            let encoded = fields.get("base64").and_then(Value::as_str);
            Ok(encoded
                .and_then(|text| STANDARD.decode(text).ok())
                .unwrap_or_else(|| output.to_string().into_bytes()))
        }
        other => Ok(other.to_string().into_bytes()),
    }
}

/// An output as JSON: itself, text, or bytes that are neither.
pub(crate) fn readable(output: &Bytes) -> Value {
    match (serde_json::from_slice(output), std::str::from_utf8(output)) {
        (Ok(json), _) => json,
        (_, Ok(text)) => text.into(),
        _ => json!({"base64": STANDARD.encode(output)}),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Output {
        /// As it is written.
        shown: &'a str,
        step: String,
        pointer: &'a str,
    },
}

/// A text, taken apart. Errors: what is wrong with it.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, found) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Text(before), Piece::Text("${")]);
            rest = &found[2..];
            continue;
        }
        let end = found.find('}').ok_or_else(|| {
            format!("`{found}` does not end: write ${{STEP}} or ${{STEP/PART}}, and $${{ for a plain ${{")
        })?;
        let (shown, after) = found.split_at(end + 1);
        let inside = &shown[2..end];
        let (name, pointer) = inside.split_at(inside.find('/').unwrap_or(inside.len()));
        if name.is_empty() {
            return Err(format!("`{shown}` names no step: write ${{STEP}} or ${{STEP/PART}}"));
        }
        let step = name.replace("~1", "/").replace("~0", "~");
        pieces.extend([Piece::Text(before), Piece::Output { shown, step, pointer }]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(outputs: &[(&str, &str)]) -> Vec<Given> {
        let given = |(step, output): &(&str, &str)| Given {
            step: (*step).to_owned(),
            output: Bytes::from((*output).to_owned()),
        };
        outputs.iter().map(given).collect()
    }

    fn filled(value: &str, outputs: &[(&str, &str)]) -> Result<Value, String> {
        let ops = fill(&[json!({"put": {"key": "k", "value": value}})], &given(outputs))?;
        Ok(ops[0]["put"]["value"].clone())
    }

    #[test]
    fn an_output_is_filled_in_as_what_it_is() {
        let outputs = [
            ("book", r#"{"booking": "b7", "seats": [12, 13], "paid": true, "note": null, "price": 12.5}"#),
            ("read", r#"["70", null, {"base64": "/wA="}]"#),
            ("text", "no JSON"),
            ("a/b~c", r#"{"d/e": 1}"#),
        ];
        for (written, expected) in [
            ("${book/booking}", json!("b7")),
            ("seat ${book/seats/1} of ${book/booking}!", json!("seat 13 of b7!")),
            ("${book/seats}", json!("[12,13]")),
            ("${book/paid} ${book/price}", json!("true 12.5")),
            ("${read/0}", json!("70")),
            ("${read/2}", json!({"base64": "/wA="})),
            ("x${read/2}", json!({"base64": "eP8A"})),
            ("${text}", json!("no JSON")),
            ("${a~1b~0c/d~1e}", json!("1")),
            ("$${book} costs $5, ${read/0}", json!("${book} costs $5, 70")),
            ("plain $ {}", json!("plain $ {}")),
        ] {
            assert_eq!(filled(written, &outputs), Ok(expected), "{written}");
        }
        for (written, why) in [
            ("${book/nothing}", "has nothing there"),
            ("${book/note}", "has nothing there"),
            ("${read/1}", "has nothing there"),
            ("${gone}", "has nothing there"),
            ("${book", "does not end"),
            ("${/x}", "names no step"),
        ] {
            let error = filled(written, &outputs).expect_err(written);
            assert!(error.contains(why) && error.contains(written), "{written}: {error}");
        }
    }

    #[test]
    fn keys_are_texts_and_amounts_are_whole_numbers() {
        let outputs = given(&[("read", r#"["70", "many", {"base64": "/w=="}]"#)]);
        let ops = [
            json!({"add": {"key": "a/${read/0}", "by": "-${read/0}", "at-least": 0}}),
            json!({"expect": {"key": "b", "value": null}}),
            json!({"add": {"key": "b", "by": 7}}),
        ];
        let filled = fill(&ops, &outputs).expect("filled");
        assert_eq!(filled[0], json!({"add": {"key": "a/70", "by": -70, "at-least": 0}}));
        assert_eq!(filled[1..], ops[1..]);
        assert_eq!(stand_in(&ops)[0]["add"]["by"], 0);
        let refused = |op: Value| fill(&[op], &outputs).expect_err("it cannot be");
        let many = refused(json!({"add": {"key": "a", "by": "${read/1}"}}));
        assert!(many.contains("`many`, which is no whole number"), "{many}");
        assert!(refused(json!({"get": {"key": "${read/2}"}})).contains("no text"));
    }

    #[test]
    fn what_is_filled_in_is_bounded_and_digits_are_not_lost() {
        // With the key, of one byte, all but one of the bytes that there may be.
        let output = "x".repeat(FILLED_BYTES_MAX / 2 - 1);
        assert!(filled("${a}${a}", &[("a", &output)]).is_ok());
        let error = filled("${a}${a}!!", &[("a", &output)]).expect_err("too large");
        assert!(error.contains("larger than 1048576 bytes"), "{error}");
        assert_eq!(filled("${a}", &[("a", "18446744073709551615")]), Ok(json!("18446744073709551615")));
        let error = filled("${a}", &[("a", "123456789012345678901234567890")]).expect_err("digits are lost");
        assert!(error.contains("may have lost digits"), "{error}");
    }

    #[test]
    fn what_cannot_be_had_is_refused_when_it_is_submitted() {
        let reads = json!({"ops": [{"get": {"key": "a"}}, {"get": {"key": "b"}}]});
        let post = json!({"post": {"path": "/x", "body": {"deep": ["$5", "${odd"]}}});
        let check_one = |action: Value, compensation: Value| {
            let steps = [
                Planned { name: "read", after: vec![], action: &reads, compensation: Some(&reads) },
                Planned { name: "post", after: vec!["read"], action: &post, compensation: Some(&post) },
                Planned { name: "aside", after: vec![], action: &reads, compensation: Some(&reads) },
                Planned {
                    name: "last",
                    after: vec!["read", "post"],
                    action: &action,
                    compensation: Some(&compensation),
                },
            ];
            check(&steps)
        };
        let put =
            |value: &str| json!({"ops": [{"put": {"key": "k", "value": value}}, {"get": {"key": "k"}}]});
        for (action, compensation) in
            [("${read/0}${read/1}${read}", "${last/0}${read/1}"), ("${post/any/where}", "$${nobody}")]
        {
            assert_eq!(check_one(put(action), put(compensation)), Ok(()), "{action}");
        }
        let request = |text: &str| json!({"post": {"path": "/x", "body": {"deep": [{"er": text}]}}});
        for (action, compensation, why) in [
            (put("${nobody}"), put(""), "there is no step nobody"),
            (put("${aside/0}"), put(""), "last does not come after aside: say so in `after`"),
            (put("${last/0}"), put(""), "only what undoes it has it"),
            (put("${read/2}"), put(""), "what read reads is ${read/0} to ${read/1}"),
            (put("${read/first}"), put(""), "what read reads is"),
            (put("${read"), put(""), "does not end"),
            (put(""), put("${last/1}"), "what last reads is ${last/0} to ${last/0}"),
            (put(""), json!({"ops": [{"delete": {"key": "${aside/0}"}}]}), "does not come after aside"),
            (json!({"ops": [{"put": {"key": "k", "value": "x"}}]}), put("${last/0}"), "last reads nothing"),
            (json!({"ops": [{"add": {"key": "k", "by": "${nobody}"}}]}), put(""), "there is no step nobody"),
            (request("a ${read/0}"), put(""), "an HTTP service finds the outputs in the body, as `given`"),
        ] {
            let misuse = check_one(action, compensation).expect_err(why);
            assert!(misuse.why.contains(why), "{misuse:?}");
            assert_eq!(misuse.step, 3, "{misuse:?}");
        }
    }
}
