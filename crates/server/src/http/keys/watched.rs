//! What watchers are told of requests for keys: each operation with its end, as the clients of a simulated run are.

use super::super::level;
use super::super::reply::{ApiError, Content};
use super::super::{Call, leader, text};
use super::write::{Change, KeyWrite};
use crate::clock;
use crate::member::Member;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hasher};
use synod_node::spaces::{Model, Space};
use synod_protocols::log::ReplicatedLog;
use synod_protocols::weak::Kind;

/// Bytes of a key or value that are shown; of a longer one its beginning, and a hash that tells it from others.
const SHOWN_BYTES_MAX: usize = 200;
const BEGINNING_BYTES: usize = 40;
/// Elements of a set, or siblings, that are shown.
const ELEMENTS_MAX: usize = 20;
/// An answer that is longer is not taken apart to be shown.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What a request does with keys.
pub(super) enum Does<'a> {
    Read(Kind, &'a Bytes),
    Write(&'a [KeyWrite]),
}

/// Operations of one request that watchers have seen begin.
pub(super) struct Watched {
    numbers: Vec<u64>,
    reads: bool,
}

/// Tells watchers that a request begins; costs next to nothing if there are none. A request that another member answers is
/// told there.
pub(super) fn begin<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    call: &Call,
    (space, level): (&Space, Model),
    does: &Does<'_>,
) -> Watched {
    let reads = matches!(does, Does::Read(..));
    let mut watched = Watched { numbers: Vec::new(), reads };
    let is_elsewhere = || !reads && space.model.is_on_log() && leader::redirect(member, call).is_err();
    if !member.core.borrow().events.watched() || is_elsewhere() {
        return watched;
    }
    // Composed only for those that are shown.
    let with_common = |mut operation: Value| {
        let session = level::shown(&call.headers).ok().flatten().map(name_of_session);
        operation["space"] = space.name.as_str().into();
        operation["id"] = space.id.0.into();
        operation["model"] = space.model.to_string().into();
        operation["level"] = level.to_string().into();
        operation["session"] = session.into();
        operation
    };
    let (now, events) = (clock::now(), &mut member.core.borrow_mut().events);
    let mut begins = |describe: &dyn Fn() -> Value| events.operation_begins(now, || with_common(describe()));
    match does {
        Does::Read(kind, key) => {
            let read = || json!({"kind": kind.to_string(), "f": "get", "key": short(key)});
            watched.numbers.extend(begins(&read));
        }
        Does::Write(writes) => {
            watched.numbers.extend(writes.iter().filter_map(|write| begins(&|| described(write))));
        }
    }
    watched
}

impl Watched {
    /// Tells how it ended. One that is never told goes on for ever: its client has left, and nobody knows.
    pub(super) fn end<P: ReplicatedLog + 'static>(
        self,
        member: &Member<P>,
        answer: &Result<Response<Content>, ApiError>,
    ) {
        if self.numbers.is_empty() {
            return;
        }
        let (phase, said) = match answer {
            Ok(response) => self.done(response),
            Err(error) => {
                let (status, code) = error.outcome();
                let nobody_knows =
                    matches!(status, StatusCode::GATEWAY_TIMEOUT | StatusCode::INTERNAL_SERVER_ERROR)
                        || code == "stopping";
                (if nobody_knows && !self.reads { "unknown" } else { "fail" }, json!({"error": code}))
            }
        };
        let (now, events) = (clock::now(), &mut member.core.borrow_mut().events);
        for number in self.numbers {
            events.operation_ends(now, number, phase, said.clone());
        }
    }

    fn done(&self, response: &Response<Content>) -> (&'static str, Value) {
        let session = response.headers().get(level::SESSION).and_then(|token| token.to_str().ok());
        let mut said = json!({"session": session.map(name_of_session)});
        if self.reads {
            let body = match response.body() {
                Content::Whole(Some(bytes)) if bytes.len() <= ANSWER_BYTES_MAX => bytes,
                _ => return ("unknown", json!({"error": "too long to be shown"})),
            };
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            said["value"] = match (&body["values"], &body["elements"]) {
                (Value::Array(many), _) | (_, Value::Array(many)) => several(many),
                _ => again(&body["value"]),
            };
        }
        ("ok", said)
    }
}

/// A name for a token that opens nothing: whoever has a token may use it.
fn name_of_session(token: &str) -> String {
    format!("{:016x}", hash(token.as_bytes()))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn described(KeyWrite { key, change, condition }: &KeyWrite) -> Value {
    let (kind, f, value) = match change {
        Change::Put(Some(value)) => (Kind::Register, "put", short(value)),
        Change::Put(None) => (Kind::Register, "delete", Value::Null),
        Change::Siblings { value: Some(value), .. } => (Kind::Siblings, "put", short(value)),
        Change::Siblings { value: None, .. } => (Kind::Siblings, "delete", Value::Null),
        Change::Add(by) => (Kind::Counter, "add", (*by).into()),
        Change::Set { insert, remove } if remove.is_empty() => (Kind::Set, "insert", elements(insert)),
        Change::Set { insert, remove } if insert.is_empty() => (Kind::Set, "remove", elements(remove)),
        Change::Set { insert, remove } => {
            (Kind::Set, "change", json!({"insert": elements(insert), "remove": elements(remove)}))
        }
    };
    let mut described = json!({"kind": kind.to_string(), "f": f, "key": short(key), "value": value});
    if let Some(expected) = condition {
        described["if"] = expected.as_deref().map_or(Value::Null, short);
    }
    described
}

fn elements(elements: &[Bytes]) -> Value {
    elements.iter().take(ELEMENTS_MAX).map(|element| short(element)).collect()
}

fn several(many: &[Value]) -> Value {
    many.iter().take(ELEMENTS_MAX).map(again).collect()
}

/// What an answer says, as a write of it was shown.
fn again(value: &Value) -> Value {
    match text::bytes(value, "what was read") {
        Ok(bytes) => short(&bytes),
        Err(_) => value.clone(),
    }
}

/// A key or a value, or what stands for a long one.
fn short(bytes: &[u8]) -> Value {
    if bytes.len() <= SHOWN_BYTES_MAX {
        return text::shown(bytes);
    }
    let beginning = String::from_utf8_lossy(&bytes[..BEGINNING_BYTES]);
    format!("{beginning}… ({} bytes, {:016x})", bytes.len(), hash(bytes)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shown_by_its_beginning_and_is_the_same_when_it_is_read_again() {
        let (long, other) = (vec![b'a'; 300], [vec![b'a'; 299], vec![b'b']].concat());
        assert_eq!(short(&long), again(&text::shown(&long)));
        assert_ne!(short(&long), short(&other));
        assert_eq!(short(b"a"), json!("a"));
        assert_eq!(again(&json!({"base64": "/w=="})), short(b"\xff"));
        assert_eq!((again(&json!(3)), again(&Value::Null)), (json!(3), Value::Null));
    }

    #[test]
    fn a_session_is_named_by_something_that_is_no_token() {
        let name = name_of_session("c2VhbGVk");
        assert_eq!(name, name_of_session("c2VhbGVk"));
        assert!(!name.contains("c2VhbGVk") && name != name_of_session("c2VhbGVl"));
    }
}
