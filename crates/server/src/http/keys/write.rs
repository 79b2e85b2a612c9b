//! What a request writes, as JSON says it.

use super::super::level::bad_request;
use super::super::reply::ApiError;
use super::super::{Call, session_text, text};
use super::{BATCH_MAX, checked_key};
use crate::member::Member;
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use synod_protocols::Wire;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::weak::{Dot, Kind};

/// One key, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyWrite {
    pub(super) key: Bytes,
    pub(super) change: Change,
    /// The value that the key must have, or that there must be none: keyspaces on the log only.
    pub(super) condition: Option<Option<Bytes>>,
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A register gets this value, or none.
    Put(Option<Bytes>),
    /// Those siblings are replaced.
    Siblings { seen: Vec<Dot>, value: Option<Bytes> },
    /// A counter counts.
    Add(i64),
    /// A set gets elements and loses elements.
    Set { insert: Vec<Bytes>, remove: Vec<Bytes> },
}

/// A write as JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct WriteForm {
    kind: Option<String>,
    #[serde(deserialize_with = "even_null")]
    key: Option<Value>,
    #[serde(deserialize_with = "even_null")]
    value: Option<Value>,
    context: Option<String>,
    #[serde(rename = "if")]
    condition: Option<Condition>,
    add: Option<i64>,
    insert: Option<Vec<Value>>,
    remove: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    value: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchForm {
    writes: Vec<WriteForm>,
}

/// `null` says something else than nothing.
fn even_null<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(input).map(Some)
}

const FORMS: &str = r#"{"value":"text"}, {"kind":"counter","add":1}, {"kind":"set","insert":["a"],"remove":["b"]} or {"kind":"siblings","value":"x"}"#;

/// The write of a PUT.
pub(super) fn of_put<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    call: &Call,
    key: Bytes,
) -> Result<KeyWrite, ApiError> {
    let form: WriteForm = call.json(FORMS)?;
    if form.key.is_some() {
        return Err(ApiError::malformed("the key is in the path already: leave it out of the body"));
    }
    let write = KeyWrite { change: change(&form)?, condition: condition(&form)?, key };
    check_size(member, std::slice::from_ref(&write))?;
    Ok(write)
}

/// The write of a DELETE: of a register, or of the siblings that were read with `context`.
pub(super) fn of_delete(call: &Call, key: Bytes, kind: Kind) -> Result<KeyWrite, ApiError> {
    let change = match kind {
        Kind::Register => Change::Put(None),
        Kind::Siblings => Change::Siblings { seen: seen(call.query("context"))?, value: None },
        Kind::Counter | Kind::Set => {
            let why = format!("a {kind} cannot be deleted: subtract what it holds, or remove its elements");
            return Err(bad_request("kind-not-here", why));
        }
    };
    Ok(KeyWrite { key, change, condition: None })
}

/// The writes of a batch.
pub(super) fn of_batch<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    call: &Call,
) -> Result<Vec<KeyWrite>, ApiError> {
    let form: BatchForm =
        call.json(&format!(r#"{{"writes":[{{"key":"k",...}}]}}, where ... is as in {FORMS}"#))?;
    match form.writes.len() {
        0 => return Err(bad_request("empty", "there is nothing to do: send at least one write".into())),
        1..=BATCH_MAX => {}
        many => return Err(too_large(format!("{many} writes in one batch; at most {BATCH_MAX} are taken"))),
    }
    let write = |form: &WriteForm| {
        let key =
            form.key.as_ref().ok_or_else(|| ApiError::malformed("a write of a batch has no \"key\""))?;
        let key = checked_key(text::bytes(key, "the key")?)?;
        let change = change(form)?;
        if let Change::Set { insert, remove } = &change
            && insert.len() + remove.len() > 1
        {
            let why = "a write of a set in a batch names one element: a batch is one update, and an update changes one element of a set";
            return Err(bad_request("elements", why.into()));
        }
        Ok(KeyWrite { key, change, condition: condition(form)? })
    };
    let writes: Vec<KeyWrite> = form.writes.iter().map(write).collect::<Result<_, ApiError>>()?;
    check_size(member, &writes)?;
    Ok(writes)
}

fn change(form: &WriteForm) -> Result<Change, ApiError> {
    let value = || match &form.value {
        None => Err(ApiError::malformed(format!("a write without \"value\": send {FORMS}"))),
        Some(Value::Null) => Ok(None),
        Some(value) => text::bytes(value, "the value").map(Some),
    };
    let elements = |list: &Option<Vec<Value>>| -> Result<Vec<Bytes>, ApiError> {
        list.iter().flatten().map(|element| text::bytes(element, "an element")).collect()
    };
    let is_strange = |kind: &str| {
        let fields = [
            ("value", form.value.is_some(), ["register", "siblings"].contains(&kind)),
            ("context", form.context.is_some(), kind == "siblings"),
            ("add", form.add.is_some(), kind == "counter"),
            ("insert", form.insert.is_some(), kind == "set"),
            ("remove", form.remove.is_some(), kind == "set"),
        ];
        fields.into_iter().find(|(_, there, fits)| *there && !fits).map(|(field, ..)| field)
    };
    let kind = form.kind.as_deref().unwrap_or("register");
    if let Some(field) = is_strange(kind) {
        return Err(ApiError::malformed(format!("\"{field}\" says nothing about a {kind}: send {FORMS}")));
    }
    Ok(match kind {
        "register" => Change::Put(value()?),
        "siblings" => Change::Siblings { seen: seen(form.context.as_deref())?, value: value()? },
        "counter" => Change::Add(form.add.ok_or_else(|| {
            ApiError::malformed(r#"a counter is written by {"kind":"counter","add":1}: say how much"#)
        })?),
        "set" => {
            let (insert, remove) = (elements(&form.insert)?, elements(&form.remove)?);
            match insert.len() + remove.len() {
                0 => {
                    return Err(bad_request(
                        "empty",
                        r#"no element: send {"kind":"set","insert":["a"]}"#.into(),
                    ));
                }
                1..=BATCH_MAX => Change::Set { insert, remove },
                many => {
                    return Err(too_large(format!(
                        "{many} elements; at most {BATCH_MAX} are taken at a time"
                    )));
                }
            }
        }
        other => {
            let names = Kind::ALL.map(|kind| kind.to_string()).join(", ");
            return Err(bad_request(
                "kind-unknown",
                format!("there is no kind `{other}`; there is: {names}"),
            ));
        }
    })
}

fn condition(form: &WriteForm) -> Result<Option<Option<Bytes>>, ApiError> {
    let Some(Condition { value }) = &form.condition else { return Ok(None) };
    match value {
        Value::Null => Ok(Some(None)),
        value => Ok(Some(Some(text::bytes(value, "the value of \"if\"")?))),
    }
}

/// The siblings that a context names: what a read of them said.
fn seen(context: Option<&str>) -> Result<Vec<Dot>, ApiError> {
    let Some(context) = context else { return Ok(Vec::new()) };
    let dots = session_text::from_text(context).ok().and_then(|bytes| Vec::from_bytes(bytes).ok());
    dots.ok_or_else(|| {
        bad_request(
            "context",
            "`context` is not what a read of the siblings said: pass that on unchanged".into(),
        )
    })
}

fn check_size<P: ReplicatedLog + 'static>(member: &Member<P>, writes: &[KeyWrite]) -> Result<(), ApiError> {
    let value = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
    let of = |write: &KeyWrite| {
        let change = match &write.change {
            Change::Put(new) | Change::Siblings { value: new, .. } => value(new),
            Change::Add(_) => 8,
            Change::Set { insert, remove } => insert.iter().chain(remove).map(Bytes::len).sum(),
        };
        write.key.len() + change + write.condition.as_ref().map_or(0, value)
    };
    let bytes: usize = writes.iter().map(of).sum();
    match bytes as u64 > member.config.request_size_max {
        true => Err(too_large(format!(
            "{bytes} bytes of keys and values; at most {} are taken at a time",
            member.config.request_size_max
        ))),
        false => Ok(()),
    }
}

fn too_large(why: String) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", why)
}
