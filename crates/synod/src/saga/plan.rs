//! A saga as a person writes it: TOML, checked line by line before any cluster hears of it.
//!
//! What is checked here is what can be said without a cluster: the form, and by the protocol's own rules
//! ([`Plan::check`]) whether every step can be reached and undone, and whether it can have the outputs that it names. What a service thinks of its action, only
//! the cluster can tell.

use crate::ops;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use synod_protocols::saga::{Plan, PlanError, Step};
use synod_protocols::types::NodeId;
use synod_server::outputs::{self, Misuse, Planned};
use toml::Spanned;

/// Bytes of a file at the most: two for one of what the plan may hold.
pub const FILE_BYTES_MAX: u64 = 2 << 20;

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What was wrong and what to do, in one line.
    pub text: String,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SagaForm {
    name: String,
    #[serde(default, rename = "step")]
    steps: Vec<Spanned<StepForm>>,
}

/// One `[[step]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct StepForm {
    name: Spanned<String>,
    service: Spanned<String>,
    action: Spanned<toml::Value>,
    compensation: Option<Spanned<toml::Value>>,
    #[serde(default)]
    after: Vec<Spanned<String>>,
    #[serde(default)]
    pivot: bool,
    #[serde(default)]
    waits_for_person: bool,
}

/// Reads and checks a file's text; gives back the API's JSON. Errors: the first problem, with its line.
pub fn read(text: &str) -> Result<Value, Problem> {
    let form: SagaForm = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, &span));
        Problem { line, text: format!("{}: {FORM}", error.message().trim().replace('\n', " ")) }
    })?;
    let at = |span: Range<usize>, words: String| Problem { line: line_of(text, &span), text: words };
    if form.name.is_empty() {
        return Err(Problem { line: 1, text: "the saga has no name: write name = \"transfer\"".into() });
    }
    let mut steps = Vec::new();
    for step in &form.steps {
        let span = step.span();
        let step = step.get_ref();
        for (what, name) in [("step", &step.name), ("service", &step.service)] {
            if name.get_ref().is_empty() {
                return Err(at(name.span(), format!("a {what} has an empty name: give it one")));
            }
        }
        let work = |form: &Spanned<toml::Value>, what: &str| {
            work(form.get_ref())
                .map_err(|why| at(form.span(), format!("the {what} of {:?}: {why}", step.name.get_ref())))
        };
        let action = work(&step.action, "action")?;
        let compensation = step.compensation.as_ref().map(|form| work(form, "compensation")).transpose()?;
        steps.push(Read { form: step, span, action, compensation });
    }
    plan(&steps).check().map_err(|error| {
        let (span, words) = taught(&error, &steps);
        at(span.unwrap_or(0..0), words)
    })?;
    let planned: Vec<Planned<'_>> = steps.iter().map(Read::planned).collect();
    outputs::check(&planned).map_err(|Misuse { step, is_compensation, why }| {
        let form = steps[step].form;
        let (what, place) = match &form.compensation {
            Some(compensation) if is_compensation => ("compensation", compensation.span()),
            _ => ("action", form.action.span()),
        };
        at(place, format!("the {what} of {:?}: {why}", steps[step].name()))
    })?;
    Ok(json!({"name": form.name, "steps": steps.iter().map(Read::json).collect::<Vec<_>>()}))
}

const FORM: &str = "a saga has a name and a [[step]] for each step, with name, service, action, compensation, \
                    after, pivot and waits-for-person";

/// A step of which the work is understood.
struct Read<'a> {
    form: &'a StepForm,
    span: Range<usize>,
    action: Value,
    compensation: Option<Value>,
}

impl Read<'_> {
    fn name(&self) -> &str {
        self.form.name.get_ref()
    }

    fn planned(&self) -> Planned<'_> {
        Planned {
            name: self.name(),
            after: self.form.after.iter().map(|name| name.get_ref().as_str()).collect(),
            action: &self.action,
            compensation: self.compensation.as_ref(),
        }
    }

    fn json(&self) -> Value {
        let after: Vec<&str> = self.form.after.iter().map(|name| name.get_ref().as_str()).collect();
        json!({"name": self.name(), "service": self.form.service.get_ref(), "action": self.action,
            "compensation": self.compensation, "after": after, "pivot": self.form.pivot,
            "waits-for-person": self.form.waits_for_person})
    }
}

/// The steps as the protocol sees them, with services numbered in the order of their names.
fn plan(steps: &[Read<'_>]) -> Plan {
    let mut services: BTreeMap<&str, u64> = BTreeMap::new();
    for step in steps {
        let next = services.len() as u64 + 1;
        services.entry(step.form.service.get_ref()).or_insert(next);
    }
    let bytes = |work: &Value| Bytes::from(work.to_string());
    let step = |step: &Read<'_>| Step {
        name: step.name().into(),
        service: NodeId(services[step.form.service.get_ref().as_str()]),
        action: bytes(&step.action),
        compensation: step.compensation.as_ref().map(bytes),
        after: step.form.after.iter().map(|name| name.get_ref().clone()).collect(),
        is_pivot: step.form.pivot,
        waits_for_person: step.form.waits_for_person,
    };
    Plan { steps: steps.iter().map(step).collect() }
}

/// Where the mistake is, and what to do about it.
fn taught(error: &PlanError, steps: &[Read<'_>]) -> (Option<Range<usize>>, String) {
    let named = |name: &str| steps.iter().find(|step| step.name() == name);
    let place = |name: &str| named(name).map(|step| step.form.name.span());
    let (span, remedy) = match error {
        PlanError::Size => {
            (None, "split the work into several sagas, or write at least one [[step]]".to_owned())
        }
        PlanError::Duplicate(name) => {
            let second = steps.iter().filter(|step| step.name() == name).nth(1);
            (second.map(|step| step.form.name.span()), "give each its own name".into())
        }
        PlanError::Unknown { step, after } => {
            let wrong = named(step).and_then(|s| s.form.after.iter().find(|name| name.get_ref() == after));
            let names: Vec<&str> = steps.iter().map(Read::name).filter(|name| name != step).collect();
            (wrong.map(Spanned::span), format!("there is {}", names.join(", ")))
        }
        PlanError::Cycle(names) => (
            names.first().and_then(|name| named(name)).and_then(|s| s.form.after.first()).map(Spanned::span),
            "take a name out of an `after`, so that one of them can begin".into(),
        ),
        PlanError::TwoPivots(_, second) => {
            (place(second), "a saga has one step from which on it cannot fail: mark that one".into())
        }
        PlanError::BesidePivot(name) => {
            (place(name), "say so with `after`, so that it is known whether it can be undone".into())
        }
        PlanError::NoCompensation(name) => (
            named(name).map(|step| step.span.clone()),
            "say what undoes it, or let it come after the pivot, from which on nothing is undone".into(),
        ),
    };
    (span, format!("{error}: {remedy}"))
}

/// What is done at a service. Texts are the short language of operations; tables are the API's own forms.
fn work(form: &toml::Value) -> Result<Value, String> {
    let wanted = "write it as action = [\"add a -100 min 0\"] for a keyspace, or \
                  action = { post = { path = \"/debit\", body = { amount = 100 } } } for an HTTP service";
    match form {
        toml::Value::String(text) => Ok(json!({"ops": ops::parse(text)?})),
        toml::Value::Array(all) => {
            let mut ops = Vec::new();
            for one in all {
                match one {
                    toml::Value::String(text) => ops.extend(ops::parse(text)?),
                    table @ toml::Value::Table(_) => ops.push(to_json(table)?),
                    other => return Err(format!("{other} is no operation: {wanted}")),
                }
            }
            match ops.is_empty() {
                true => Err(format!("there is nothing to do: {wanted}")),
                false => Ok(json!({"ops": ops})),
            }
        }
        toml::Value::Table(table) if table.len() == 1 => match table.iter().next() {
            Some((key, ops @ (toml::Value::Array(_) | toml::Value::String(_)))) if key == "ops" => work(ops),
            Some((key, toml::Value::Table(post)))
                if key == "post" && post.get("path").is_some_and(is_path) =>
            {
                to_json(form)
            }
            _ => Err(format!("it is neither operations nor a request: {wanted}")),
        },
        _ => Err(format!("it is neither operations nor a request: {wanted}")),
    }
}

fn is_path(path: &toml::Value) -> bool {
    path.as_str().is_some_and(|path| path.starts_with('/'))
}

fn to_json(form: &toml::Value) -> Result<Value, String> {
    Ok(match form {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Boolean(yes) => (*yes).into(),
        toml::Value::Float(number) if number.is_finite() => (*number).into(),
        toml::Value::Float(number) => {
            return Err(format!("{number} cannot be said in JSON: write it as a text"));
        }
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(all) => all.iter().map(to_json).collect::<Result<Vec<_>, _>>()?.into(),
        toml::Value::Table(table) => {
            let mut map = Map::new();
            for (key, value) in table {
                map.insert(key.clone(), to_json(value)?);
            }
            map.into()
        }
    })
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, more: &str) -> String {
        format!("[[step]]\nname = \"{name}\"\nservice = \"bank\"\naction = \"get a\"\n{more}\n")
    }

    fn saga(steps: &[String]) -> String {
        format!("name = \"t\"\n{}", steps.concat())
    }

    const UNDO: &str = "compensation = \"get a\"";

    #[test]
    fn the_short_language_and_the_apis_own_forms_say_the_same() {
        let short = r#"
            name = "t"
            [[step]]
            name = "take"
            service = "bank1"
            action = ["add a -100 min 0", "get a"]
            compensation = "add a 100"
            [[step]]
            name = "tell"
            service = "shop"
            after = ["take"]
            pivot = true
            action = { post = { path = "/told", body = { amount = 100, to = ["b"] } } }
        "#;
        let long = short.replace(
            r#"["add a -100 min 0", "get a"]"#,
            r#"{ ops = [{ add = { key = "a", by = -100, at-least = 0 } }, { get = { key = "a" } }] }"#,
        );
        let read = |text: &str| read(text).expect("a saga");
        assert_eq!(read(short), read(&long));
        assert_eq!(
            read(short)["steps"][1],
            json!({"name": "tell", "service": "shop", "after": ["take"], "pivot": true, "waits-for-person": false,
                "compensation": null, "action": {"post": {"path": "/told", "body": {"amount": 100, "to": ["b"]}}}})
        );
    }

    #[test]
    fn a_plan_that_cannot_be_carried_out_is_refused_in_the_line_that_is_wrong() {
        let after = |name: &str| format!("after = [\"{name}\"]\n{UNDO}");
        for (text, line, words) in [
            (saga(&[]), 1, "1 to 64 steps"),
            (
                saga(&[step("a", UNDO), step("b", "")]),
                7,
                "b has no compensation and is before the pivot: say what",
            ),
            (saga(&[step("a", UNDO), step("a", UNDO)]), 8, "two steps are called a"),
            (
                saga(&[step("a", &after("c")), step("b", UNDO)]),
                6,
                "a comes after c, which is no step: there is b",
            ),
            (saga(&[step("a", &after("b")), step("b", &after("a"))]), 6, "wait for each other: a, b"),
            (
                saga(&[step("a", "pivot = true"), step("b", "after = [\"a\"]\npivot = true")]),
                8,
                "both a and b",
            ),
            (saga(&[step("a", "pivot = true"), step("b", UNDO)]), 8, "b must come before or after the pivot"),
        ] {
            let problem = read(&text).expect_err(words);
            assert!(problem.text.contains(words), "{problem:?}");
            assert_eq!(problem.line, line, "{problem:?} in\n{text}");
        }
    }

    #[test]
    fn an_output_that_cannot_be_had_is_refused_in_the_line_that_names_it() {
        let saga = |action: &str, undo: &str| {
            let first = step("a", UNDO);
            format!(
                "name = \"t\"\n{first}[[step]]\nname = \"b\"\nservice = \"bank\"\nafter = [\"a\"]\naction = \"{action}\"\n\
                 compensation = \"{undo}\"\n"
            )
        };
        let fine = read(&saga("add ${a/0} -${a/0}; get x", "put x ${b/0}")).expect("a saga");
        assert_eq!(fine["steps"][1]["action"]["ops"][0], json!({"add": {"key": "${a/0}", "by": "-${a/0}"}}));
        for (action, undo, line, words) in [
            ("put x ${a/1}", UNDO, 11, "the action of \"b\": `${a/1}`: what a reads is"),
            ("put x ${c}", UNDO, 11, "there is no step c"),
            ("get x", "put x ${b/1}", 12, "the compensation of \"b\": `${b/1}`"),
        ] {
            let undo = if undo == UNDO { "get a" } else { undo };
            let problem = read(&saga(action, undo)).expect_err(words);
            assert!(problem.text.contains(words), "{problem:?}");
            assert_eq!(problem.line, line, "{problem:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_in_its_line_with_the_form_that_it_should_have() {
        for (text, line, words) in [
            ("name = ".to_owned(), 1, "a saga has a name"),
            (step("a", UNDO), 1, "missing field `name`"),
            (saga(&[step("a", "compensate = \"get a\"")]), 6, "unknown field `compensate`"),
            (saga(&[step("a", "compensation = \"steal a\"")]), 6, "the compensation of \"a\": `steal a`"),
            (saga(&[step("a", "compensation = []")]), 6, "nothing to do"),
            (saga(&[step("a", "compensation = 7")]), 6, "neither operations nor a request"),
            (saga(&[step("a", "compensation = { post = { path = \"debit\" } }")]), 6, "neither operations"),
            (saga(&[step("a", "compensation = [{ add = { by = nan } }]")]), 6, "cannot be said in JSON"),
            (saga(&[step("", UNDO)]), 3, "empty name"),
        ] {
            let problem = read(&text).expect_err(words);
            assert!(problem.text.contains(words), "{problem:?}");
            assert!(!problem.text.contains('\n'), "{problem:?}");
            assert_eq!(problem.line, line, "{problem:?} in\n{text}");
        }
    }
}
