//! Keys in the document.

use super::super::openapi::{
    answer, body, elsewhere, level_parameters, operation, path_parameter, query_parameter, with_session,
};
use super::{BATCH_MAX, LIST_DEFAULT, LIST_MAX};
use serde_json::{Value, json};
use synod_protocols::weak::Kind;

const TEXT: &str = "#/components/schemas/Text";

/// These paths in the document.
pub(in super::super) fn paths() -> Value {
    let keyspace = || path_parameter("keyspace", "The keyspace's name.", "feed");
    let key = || path_parameter("key", "The key, percent-encoded: 1 to 4,096 bytes.", "greeting");
    let kinds = Kind::ALL.map(|kind| kind.to_string());
    let kind = || {
        let description = "What the key holds, on causal and eventual keyspaces; a key of one kind has nothing to do with the same \
                           key of another kind. A register if nothing is said; in a list, all.";
        query_parameter("kind", description, json!({"type": "string", "enum": kinds}), json!("register"))
    };
    let levels = level_parameters;
    let written = || {
        with_session(answer(
            200,
            "Written: durable as the keyspace's model says.",
            json!({
                "type": "object", "required": ["written"], "additionalProperties": false,
                "properties": {
                    "written": {"type": "integer", "minimum": 1, "description": "How many keys."},
                    "session": {"type": "string"}
                }
            }),
        ))
    };
    let parameters = |own: Vec<Value>| own.into_iter().chain(levels()).collect::<Vec<_>>();
    json!({
        "/v1/keyspaces/{keyspace}/keys": {
            "get": operation(
                "List keys",
                "In the order of their bytes, those of each kind together.",
                parameters(vec![
                    keyspace(),
                    query_parameter("prefix", "Only keys that begin so.", json!({"type": "string"}), json!("gree")),
                    query_parameter(
                        "limit",
                        "So many at the most; fewer where values are large.",
                        json!({"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": LIST_DEFAULT}),
                        json!(10),
                    ),
                    query_without_example("after", "What the answer before said as `next`."),
                    kind(),
                ]),
                [with_session(answer(200, "Keys and what they hold.", json!({
                    "type": "object", "required": ["keys", "more", "consistency"], "additionalProperties": false,
                    "properties": {
                        "keys": {"type": "array", "items": entry_schema(false)},
                        "more": {"type": "boolean", "description": "Whether there are more: ask again with `after`."},
                        "next": {"type": "string", "description": "For `after`."},
                        "consistency": {"type": "string"},
                        "session": {"type": "string"}
                    }
                })))],
            )
        },
        "/v1/keyspaces/{keyspace}/keys/{key}": {
            "get": operation(
                "Read a key",
                "Linearizable: as if there were one copy. Sequential and causal: what this member has, once it has caught up with the \
                 session. Eventual: what it has.",
                parameters(vec![keyspace(), key(), kind()]),
                [with_session(answer(200, "What the key holds; a value of null if it holds nothing.", entry_schema(true)))],
            ),
            "put": body(
                operation(
                    "Write a key",
                    "A value of null deletes. `if` is for keyspaces on the log: the write is made only if the key has that value, or \
                     none where it is null. Several elements of a set are an update each.",
                    parameters(vec![keyspace(), key()]),
                    [written(), elsewhere()],
                ),
                write_schema(false),
                json!({"value": "hello"}),
            ),
            "delete": operation(
                "Delete a key",
                "Of siblings, those that were read with `context`.",
                parameters(vec![
                    keyspace(),
                    key(),
                    kind(),
                    query_without_example("context", "What the read of the siblings said as `context`."),
                ]),
                [written(), elsewhere()],
            )
        },
        "/v1/keyspaces/{keyspace}/batch": {
            "post": body(
                operation(
                    "Write several keys as one update",
                    "All or nothing, and others see all or nothing of it.",
                    parameters(vec![keyspace()]),
                    [written(), elsewhere()],
                ),
                json!({
                    "type": "object", "required": ["writes"], "additionalProperties": false,
                    "properties": {"writes": {
                        "type": "array", "minItems": 1, "maxItems": BATCH_MAX, "items": write_schema(true)
                    }}
                }),
                json!({"writes": [{"key": "a", "value": "1"}, {"key": "b", "value": null}]}),
            )
        }
    })
}

fn query_without_example(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": "string"}})
}

/// What a key holds. Alone it comes with the session's token.
fn entry_schema(is_alone: bool) -> Value {
    let mut schema = json!({
        "type": "object", "required": ["key"], "additionalProperties": false,
        "properties": {
            "key": {"$ref": TEXT},
            "kind": {"type": "string", "enum": Kind::ALL.map(|kind| kind.to_string())},
            "value": {
                "description": "Of a register; a number of a counter.",
                "oneOf": [{"$ref": TEXT}, {"type": "integer"}, {"type": "null"}]
            },
            "values": {"type": "array", "items": {"$ref": TEXT}, "description": "Of siblings: all that nobody has replaced."},
            "context": {"type": "string", "description": "Of siblings: names them, for the write that replaces them."},
            "elements": {"type": "array", "items": {"$ref": TEXT}, "description": "Of a set."}
        }
    });
    if is_alone {
        schema["properties"]["consistency"] =
            json!({"type": "string", "description": "The level that was given."});
        schema["properties"]["session"] = json!({"type": "string"});
        schema["required"] = json!(["key", "consistency"]);
    }
    schema
}

/// What is written. In a batch with its key.
fn write_schema(is_in_batch: bool) -> Value {
    let mut schema = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "kind": {"type": "string", "enum": Kind::ALL.map(|kind| kind.to_string()), "default": "register"},
            "value": {"oneOf": [{"$ref": TEXT}, {"type": "null"}], "description": "Of a register or siblings; null deletes."},
            "context": {"type": "string", "description": "Which siblings are replaced: what their read said."},
            "if": {
                "type": "object", "required": ["value"], "additionalProperties": false,
                "properties": {"value": {"oneOf": [{"$ref": TEXT}, {"type": "null"}]}}
            },
            "add": {"type": "integer", "description": "To a counter."},
            "insert": {"type": "array", "items": {"$ref": TEXT}, "description": "Into a set."},
            "remove": {"type": "array", "items": {"$ref": TEXT}, "description": "From a set."}
        }
    });
    if is_in_batch {
        schema["properties"]["key"] = json!({"$ref": TEXT});
        schema["required"] = json!(["key"]);
    }
    schema
}
