//! The document is true: every operation in it is called with its example, and answers as it says.

use super::client::{Answer, exchange};
use super::common::*;
use super::schema::complaint;
use super::{ask, cluster};
use serde_json::Value;

/// An operation of the document, with what its example asks.
struct Operation<'a> {
    method: String,
    path: &'a str,
    target: String,
    body: String,
    says: &'a Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, says) in item.as_object().expect("operations") {
            let mut target = path.clone();
            let mut query = Vec::new();
            for parameter in says["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().expect("a name");
                let example = match &parameter["example"] {
                    Value::Null => continue,
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                match parameter["in"].as_str() {
                    Some("path") => target = target.replace(&format!("{{{name}}}"), &example),
                    Some("query") => query.push(format!("{name}={example}")),
                    _ => {}
                }
            }
            if !query.is_empty() {
                target = format!("{target}?{}", query.join("&"));
            }
            let example = &says["requestBody"]["content"]["application/json"]["example"];
            let body = if example.is_null() { String::new() } else { example.to_string() };
            found.push(Operation { method: method.to_uppercase(), path, target, body, says });
        }
    }
    // What is made is made first, the containing before what it contains, and dropped last.
    let turn = |operation: &Operation<'_>| {
        let length = operation.path.len();
        match operation.method.as_str() {
            "PUT" => (0, length),
            "POST" => (1, length),
            "GET" => (2, length),
            _ => (3, usize::MAX - length),
        }
    };
    found.sort_by_key(turn);
    found
}

/// Why an answer is not as the document says.
fn wrong(document: &Value, operation: &Operation<'_>, answer: &Answer) -> Option<String> {
    let said = &operation.says["responses"][answer.status.to_string()];
    let said = if said.is_null() { &operation.says["responses"]["default"] } else { said };
    let said = match said["$ref"].as_str() {
        Some(place) => document.pointer(&place[1..]).expect("what is referred to"),
        None => said,
    };
    let content = said["content"].as_object().expect("every answer has a form");
    let json = content.get("application/json")?;
    complaint(document, &json["schema"], &answer.json())
}

#[test]
fn every_operation_of_the_document_does_what_it_says() {
    let (_cluster, endpoints) = cluster();
    let document = ask(&endpoints[0], "GET", "/openapi.json", &[], "").json();
    assert_eq!(document["openapi"], "3.1.0");
    let operations = operations(&document);
    assert!(operations.len() >= 15, "only {}", operations.len());
    let mut names = std::collections::BTreeSet::new();
    for operation in &operations {
        let name = operation.says["operationId"].as_str().expect("a name");
        assert!(names.insert(name), "{name} is the name of two operations");
        let expected = operation.says["x-example-status"].as_u64().map_or_else(
            || {
                let statuses = operation.says["responses"].as_object().expect("answers").keys();
                statuses
                    .filter_map(|status| status.parse::<u16>().ok())
                    .filter(|status| *status < 300)
                    .collect::<Vec<_>>()
            },
            |status| vec![status as u16],
        );
        let what = format!("{} {} {}", operation.method, operation.target, operation.body);
        if let Some(schema) = operation.says["requestBody"]["content"]["application/json"].get("schema") {
            let example = serde_json::from_str(&operation.body).expect("JSON");
            assert_eq!(
                complaint(&document, schema, &example),
                None,
                "{what}: the example is not as its schema says"
            );
        }
        // A keyspace that was just made may not have started at this member.
        let answer = until(&what, || {
            let answer = ask(&endpoints[1], &operation.method, &operation.target, &[], &operation.body);
            (answer.status != 503 || expected.contains(&503)).then_some(answer)
        });
        assert!(expected.contains(&answer.status), "{what}: {expected:?} and not {answer:?}");
        if answer.text.is_empty() {
            continue;
        }
        assert_eq!(wrong(&document, operation, &answer), None, "{what}");
    }
}

#[test]
fn what_is_not_in_the_document_is_not_there() {
    let (_cluster, endpoints) = cluster();
    let document = ask(&endpoints[0], "GET", "/openapi.json", &[], "").json();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let target = path.replace(['{', '}'], "");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            if item.get(method.to_lowercase()).is_none() {
                let answer = exchange(&endpoints[0], method, &target, &[], "").expect("an answer");
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (405, "method-not-allowed"),
                    "{method} {target}"
                );
                let allowed: Vec<String> =
                    item.as_object().expect("operations").keys().map(|name| name.to_uppercase()).collect();
                assert_eq!(answer.header("allow"), Some(allowed.join(", ").as_str()));
            }
        }
        let answer =
            exchange(&endpoints[0], "GET", &format!("{target}/and/more"), &[], "").expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (404, "no-such-path"), "{target}");
    }
}
