//! Texts and bytes in JSON: a string where the bytes are UTF-8, and `{"base64": "..."}` where they are not.

use super::reply::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// Bytes as JSON.
pub(super) fn shown(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// Bytes from JSON; `what` is what a refusal calls them.
pub(super) fn bytes(value: &Value, what: &str) -> Result<Bytes, ApiError> {
    if let Value::String(text) = value {
        return Ok(Bytes::from(text.clone()));
    }
    let encoded =
        value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("base64"));
    let decoded = encoded.and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
    decoded.map(Bytes::from).ok_or_else(|| {
        ApiError::malformed(format!(
            r#"{what} is neither a string nor bytes: send "text" or {{"base64":"dGV4dA=="}}"#
        ))
    })
}

/// What stands for such bytes in the document.
pub(super) fn schema() -> Value {
    json!({
        "description": "Text, or bytes that are not UTF-8 in base64.",
        "oneOf": [
            {"type": "string"},
            {
                "type": "object", "required": ["base64"], "additionalProperties": false,
                "properties": {"base64": {"type": "string", "contentEncoding": "base64"}}
            }
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_went() {
        for case in [&b"text"[..], b"", "k\u{e4}se\n\0".as_bytes(), b"\xff\x00\xfe"] {
            assert_eq!(bytes(&shown(case), "it").expect("read"), case);
        }
        assert_eq!(shown(b"\xff"), json!({"base64": "/w=="}));
        for wrong in
            [json!(1), json!(null), json!({"base64": "?"}), json!({"base64": "", "more": 1}), json!([])]
        {
            assert!(bytes(&wrong, "it").is_err(), "{wrong}");
        }
    }
}
