//! What a transaction or a saga does at a keyspace, in JSON.

use super::reply::ApiError;
use super::text;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};
use synod_protocols::commit::KeyOp;

/// The operations, for those who wrote something else.
const FORMS: &str = r#"{"put":{"key":"k","value":"v"}}, {"delete":{"key":"k"}}, {"get":{"key":"k"}}, {"expect":{"key":"k","value":"v"}} (null: there is no such key), {"add":{"key":"k","by":-100,"at-least":0}}"#;

fn wrong(what: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "operation", format!("{what}: an operation is one of {FORMS}"))
}

/// Operations in their order.
pub(crate) fn read(ops: &[Value]) -> Result<Vec<KeyOp>, ApiError> {
    ops.iter().map(one).collect()
}

fn one(op: &Value) -> Result<KeyOp, ApiError> {
    let object = op.as_object().filter(|object| object.len() == 1);
    let (kind, fields) =
        object.and_then(|object| object.iter().next()).ok_or_else(|| wrong("not one thing to do"))?;
    let fields = fields.as_object().ok_or_else(|| wrong(&format!("`{kind}` has no fields")))?;
    let known: &[&str] = match kind.as_str() {
        "put" | "expect" => &["key", "value"],
        "delete" | "get" => &["key"],
        "add" => &["key", "by", "at-least"],
        _ => return Err(wrong(&format!("there is no `{kind}`"))),
    };
    if let Some(other) = fields.keys().find(|field| !known.contains(&field.as_str())) {
        return Err(wrong(&format!("`{kind}` has no `{other}`")));
    }
    let key =
        fields.get("key").and_then(Value::as_str).ok_or_else(|| wrong(&format!("`{kind}` has no key")))?;
    let key = key.to_owned();
    Ok(match kind.as_str() {
        "put" => KeyOp::Put { key, value: Some(value(kind, fields)?) },
        "delete" => KeyOp::Put { key, value: None },
        "get" => KeyOp::Get { key },
        "expect" if fields.get("value").is_some_and(Value::is_null) => KeyOp::Expect { key, value: None },
        "expect" => KeyOp::Expect { key, value: Some(value(kind, fields)?) },
        _ => {
            let by = fields.get("by").and_then(Value::as_i64);
            let by =
                by.ok_or_else(|| wrong("`add` has no `by` that is a whole number of at most 63 bits"))?;
            let at_least = match fields.get("at-least") {
                None | Some(Value::Null) => None,
                Some(least) => {
                    let least =
                        least.as_u64().ok_or_else(|| wrong("`at-least` is a whole number from 0 on"))?;
                    Some(least)
                }
            };
            KeyOp::Add { key, by, at_least }
        }
    })
}

fn value(kind: &str, fields: &Map<String, Value>) -> Result<Bytes, ApiError> {
    let value = fields.get("value").ok_or_else(|| wrong(&format!("`{kind}` has no value")))?;
    text::bytes(value, "a value")
}

/// Values that were read, one for each `get`.
pub(crate) fn shown(values: &[Option<Bytes>]) -> Value {
    values.iter().map(|value| value.as_ref().map_or(Value::Null, |value| text::shown(value))).collect()
}

/// An operation in the document.
pub(super) fn schema() -> Value {
    let key = || json!({"type": "string", "minLength": 1});
    let of = |kind: &str, fields: Value, required: &[&str]| {
        json!({
            "type": "object", "required": [kind], "additionalProperties": false,
            "properties": {kind: {
                "type": "object", "required": required, "additionalProperties": false, "properties": fields
            }}
        })
    };
    let text = || json!({"$ref": "#/components/schemas/Text"});
    let text_or_null = json!({"oneOf": [{"type": "null"}, text()]});
    json!({
        "description": "One thing to do with a key.",
        "oneOf": [
            of("put", json!({"key": key(), "value": text()}), &["key", "value"]),
            of("delete", json!({"key": key()}), &["key"]),
            of("get", json!({"key": key()}), &["key"]),
            of("expect", json!({"key": key(), "value": text_or_null}), &["key", "value"]),
            of(
                "add",
                json!({
                    "key": key(),
                    "by": {"type": "integer", "description": "Added to a value that is a whole number in decimal digits."},
                    "at-least": {"type": "integer", "minimum": 0, "description": "What must be left."}
                }),
                &["key", "by"],
            ),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_and_what_is_none_is_refused_in_words() {
        let ops = json!([
            {"put": {"key": "a", "value": "1"}}, {"delete": {"key": "a"}}, {"get": {"key": "a"}},
            {"expect": {"key": "a", "value": null}}, {"add": {"key": "a", "by": -7, "at-least": 0}},
        ]);
        let read = read(ops.as_array().expect("a list")).expect("they are fine");
        assert_eq!(read[0], KeyOp::Put { key: "a".into(), value: Some(Bytes::from("1")) });
        assert_eq!(read[3], KeyOp::Expect { key: "a".into(), value: None });
        assert_eq!(read[4], KeyOp::Add { key: "a".into(), by: -7, at_least: Some(0) });
        for (wrong, why) in [
            (json!({}), "not one thing"),
            (json!({"get": {"key": "a"}, "delete": {"key": "a"}}), "not one thing"),
            (json!({"take": {"key": "a"}}), "there is no `take`"),
            (json!({"get": {}}), "`get` has no key"),
            (json!({"get": {"key": "a", "value": "x"}}), "`get` has no `value`"),
            (json!({"put": {"key": "a", "value": null}}), "a value is neither"),
            (json!({"add": {"key": "a", "by": 1.5}}), "`add` has no `by`"),
            (json!({"add": {"key": "a", "by": 1, "at-least": -1}}), "`at-least` is"),
        ] {
            let error = format!("{:?}", one(&wrong).expect_err("it is wrong"));
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
