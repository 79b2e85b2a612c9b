//! The document that says what there is: OpenAPI 3.1 at `/openapi.json`.
//!
//! It is put together from what each area says of its paths, and it is what requests are held against first: there is no path,
//! method or parameter that is not in it.

use super::codes::CODES;
use super::reply::ApiError;
use super::{fault, keys, keyspaces, level, messages, observe, participants, sagas, text, transactions};
use bytes::Bytes;
use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// What is known of the document, made once.
struct Document {
    text: String,
    paths: Vec<Path>,
}

/// A path of the document.
struct Path {
    parts: Vec<Part>,
    operations: Vec<Operation>,
}

enum Part {
    Is(String),
    Parameter,
}

struct Operation {
    method: Method,
    /// What its query may say.
    parameters: Vec<String>,
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let document = document();
    let paths = document["paths"].as_object().into_iter().flatten();
    Document { text: document.to_string(), paths: paths.map(|(path, item)| Path::of(path, item)).collect() }
});

/// The document.
pub(super) fn text() -> &'static str {
    &DOCUMENT.text
}

/// Whether there is such a thing: a path, a method, and what the query says. `segments` are the path's.
pub(super) fn check(method: &Method, segments: &[Bytes], query: &[(String, Bytes)]) -> Result<(), ApiError> {
    let path = DOCUMENT.paths.iter().find(|path| path.fits(segments));
    let target = || {
        let parts: Vec<_> = segments.iter().map(|part| String::from_utf8_lossy(part)).collect();
        format!("/{}", parts.join("/"))
    };
    let path = path.ok_or_else(|| no_such_path(method, &target()))?;
    let Some(operation) = path.operations.iter().find(|operation| operation.method == *method) else {
        let methods: Vec<&str> = path.operations.iter().map(|operation| operation.method.as_str()).collect();
        let methods = methods.join(", ");
        let why = format!("there is no {method} {}: use {methods}", shorten(&target()));
        let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", why);
        return Err(match HeaderValue::from_str(&methods) {
            Ok(methods) => error.with_header(ALLOW, methods),
            Err(_) => error,
        });
    };
    // The pages outside the API are asked by monitors, which add what they like.
    if segments.first().is_none_or(|first| first != "v1") {
        return Ok(());
    }
    for (name, value) in query {
        if !operation.parameters.contains(name) {
            let there_is = match operation.parameters.as_slice() {
                [] => "none is taken here".to_owned(),
                names => format!("there is: {}", names.join(", ")),
            };
            let why = format!("there is no parameter `{}`; {there_is}", shorten(name));
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "parameter-unknown", why));
        }
        // What keys begin with need not be text, as keys need not be.
        if name != "prefix" && std::str::from_utf8(value).is_err() {
            return Err(ApiError::malformed(format!("the parameter `{name}` is not UTF-8: send text")));
        }
    }
    Ok(())
}

/// There is nothing at a path.
pub(super) fn no_such_path(method: &Method, target: &str) -> ApiError {
    let hint = match target.contains("/keys/") {
        true => " A slash within a key is written %2F.",
        false => " The etcd v3 API is gRPC at the same address, as in: etcdctl --endpoints=HOST:PORT get KEY",
    };
    let why = format!("there is no {method} {}: see /openapi.json for what there is.{hint}", shorten(target));
    ApiError::new(StatusCode::NOT_FOUND, "no-such-path", why)
}

fn shorten(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

impl Path {
    fn of(path: &str, item: &Value) -> Path {
        let part = |part: &str| match part.starts_with('{') {
            true => Part::Parameter,
            false => Part::Is(part.to_owned()),
        };
        let parts = path.trim_start_matches('/').split('/').map(part).collect();
        let operation = |(method, operation): (&String, &Value)| {
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).ok()?;
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameters = parameters.filter(|parameter| parameter["in"] == "query");
            let parameters = parameters.filter_map(|parameter| Some(parameter["name"].as_str()?.to_owned()));
            Some(Operation { method, parameters: parameters.collect() })
        };
        Path { parts, operations: item.as_object().into_iter().flatten().filter_map(operation).collect() }
    }

    fn fits(&self, segments: &[Bytes]) -> bool {
        let fits = |(part, segment): (&Part, &Bytes)| match part {
            Part::Is(text) => segment == text.as_bytes(),
            Part::Parameter => true,
        };
        self.parts.len() == segments.len() && self.parts.iter().zip(segments).all(fits)
    }
}

/// All of it.
fn document() -> Value {
    let mut paths = Map::new();
    for area in [
        observe::paths(),
        fault::paths(),
        keyspaces::paths(),
        keys::paths(),
        participants::paths(),
        messages::paths(),
        transactions::paths(),
        sagas::paths(),
    ] {
        merge(&mut paths, area);
    }
    for (path, item) in &mut paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let words = path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty() && *word != "v1");
            let id: Vec<&str> = std::iter::once(method.as_str()).chain(words).collect();
            operation["operationId"] = id.join("-").into();
        }
    }
    let mut schemas = Map::new();
    for area in [
        keyspaces::schemas(),
        participants::schemas(),
        sagas::schemas(),
        transactions::schemas(),
        json!({"Text": text::schema(), "Error": error_schema()}),
    ] {
        merge(&mut schemas, area);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Synod",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keyspaces that declare what they promise, over HTTP and JSON, on every member. A session is the header \
                Synod-Session: each answer of a keyspace with sessions has one, to be shown with the next request, at whichever member."
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Refused": {
                    "description": "Nothing was done, unless the code is `unknown-outcome`. 400: the request is wrong; 404: there is no \
                        such thing; 409: it is in the way of something; 413: too large; 429: too much waits; 503: not now, or not \
                        here; 504: nobody knows whether it was done; 507: no room.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
                }
            }
        }
    })
}

fn merge(into: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        into.extend(more);
    }
}

fn error_schema() -> Value {
    let codes: Vec<&str> = CODES.iter().map(|(code, _)| *code).collect();
    let meanings: Vec<String> = CODES.iter().map(|(code, meaning)| format!("`{code}`: {meaning}")).collect();
    json!({
        "type": "object", "required": ["error"], "additionalProperties": false,
        "properties": {"error": {
            "type": "object", "required": ["code", "message"], "additionalProperties": false,
            "properties": {
                "code": {"type": "string", "enum": codes, "description": meanings.join("\n")},
                "message": {"type": "string", "description": "What was wrong and what to do, in one line for people."}
            }
        }}
    })
}

/// An operation that answers what is said, or an error.
pub(super) fn operation(
    summary: &str,
    description: &str,
    parameters: impl IntoIterator<Item = Value>,
    answers: impl IntoIterator<Item = (String, Value)>,
) -> Value {
    let mut responses: Map<String, Value> = answers.into_iter().collect();
    responses.insert("default".into(), json!({"$ref": "#/components/responses/Refused"}));
    let parameters: Vec<Value> = parameters.into_iter().collect();
    let mut operation = json!({"summary": summary, "parameters": parameters, "responses": responses});
    if !description.is_empty() {
        operation["description"] = description.into();
    }
    operation
}

/// The operation with a body.
pub(super) fn body(mut operation: Value, schema: Value, example: Value) -> Value {
    operation["requestBody"] =
        json!({"required": true, "content": {"application/json": {"schema": schema, "example": example}}});
    operation
}

/// The operation, whose example finds nothing of the names that it is about.
pub(super) fn finds_nothing(mut operation: Value) -> Value {
    operation["x-example-status"] = 404.into();
    operation
}

/// What an operation answers in JSON.
pub(super) fn answer(status: u16, description: &str, schema: Value) -> (String, Value) {
    let content = json!({"application/json": {"schema": schema}});
    (status.to_string(), json!({"description": description, "content": content}))
}

/// What an operation answers in words.
pub(super) fn page(status: u16, description: &str, kind: &str) -> (String, Value) {
    let content = json!({kind: {"schema": {"type": "string"}}});
    (status.to_string(), json!({"description": description, "content": content}))
}

/// The answer with a session's token in its header.
pub(super) fn with_session((status, mut answer): (String, Value)) -> (String, Value) {
    answer["headers"] = json!({"Synod-Session": {
        "description": "What the session has seen with this answer: for its next request. Not of eventual keyspaces.",
        "schema": {"type": "string"}
    }});
    (status, answer)
}

/// The answer of a member that does not lead.
pub(super) fn elsewhere() -> (String, Value) {
    let answer = json!({
        "description": "Another member leads: the same request belongs there.",
        "headers": {"Location": {"required": true, "schema": {"type": "string"}}},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    });
    ("307".into(), answer)
}

pub(super) fn path_parameter(name: &str, description: &str, example: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description, "example": example,
        "schema": {"type": "string"}
    })
}

pub(super) fn query_parameter(name: &str, description: &str, schema: Value, example: Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema, "example": example})
}

/// Which level a request asks for, as a parameter.
pub(super) fn level_parameters() -> [Value; 3] {
    let levels = synod_node::spaces::Model::ALL.map(|level| level.to_string());
    let description = "The level, no stronger than the keyspace's: its own if nothing is said.";
    let schema = json!({"type": "string", "enum": levels});
    [
        query_parameter("consistency", description, schema.clone(), json!("eventual")),
        json!({"name": level::CONSISTENCY.as_str(), "in": "header", "description": "The same as a header.", "schema": schema}),
        json!({
            "name": level::SESSION.as_str(), "in": "header", "schema": {"type": "string"},
            "description": "The token of the session's last answer; none, or `new`, begins a session."
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: Method, target: &str) -> Result<(), String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let segments: Vec<Bytes> =
            path.trim_start_matches('/').split('/').map(|part| Bytes::from(part.to_owned())).collect();
        let query: Vec<_> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), Bytes::from(value.to_owned())))
            .collect();
        check(&method, &segments, &query).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn only_what_the_document_has_is_there() {
        for (method, target) in [
            (Method::GET, "/health?_=17"),
            (Method::GET, "/v1/keyspaces"),
            (Method::PUT, "/v1/keyspaces/feed/keys/k?consistency=causal"),
            (Method::GET, "/v1/keyspaces/feed/keys?prefix=a&limit=3"),
        ] {
            assert_eq!(checked(method, target), Ok(()), "{target}");
        }
        for (method, target, said) in [
            (Method::GET, "/", "no-such-path"),
            (Method::GET, "/v1/keyspaces/", "name"),
            (Method::GET, "/v1/keyspaces/feed/keys/a/b", "written %2F"),
            (Method::POST, "/v1/keyspaces", "use GET"),
            (Method::GET, "/v1/keyspaces?limit=3", "none is taken here"),
            (Method::GET, "/v1/keyspaces/feed/keys?limits=3", "there is: prefix"),
        ] {
            let answer = checked(method, target);
            // An empty name is a name, which is refused later.
            if said != "name" {
                assert!(answer.as_ref().is_err_and(|why| why.contains(said)), "{target}: {answer:?}");
            }
        }
    }
}
