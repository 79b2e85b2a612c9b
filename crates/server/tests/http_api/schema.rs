//! The part of JSON Schema that the document uses. A word that is not known here fails the test: nothing is passed over.

use serde_json::Value;

/// Why `value` is not as `schema` says, if it is not. `document` is what references point into.
pub(crate) fn complaint(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    let words = schema.as_object().unwrap_or_else(|| panic!("no schema: {schema}"));
    let number = |word: &Value| word.as_i64().expect("a number");
    for (word, says) in words {
        let fits = match word.as_str() {
            "description" | "default" | "contentEncoding" | "example" | "format" => true,
            "$ref" => {
                let place = says.as_str().expect("a reference").strip_prefix('#').expect("in this document");
                let schema = document.pointer(place).unwrap_or_else(|| panic!("nothing at {place}"));
                match complaint(document, schema, value) {
                    Some(why) => return Some(why),
                    None => true,
                }
            }
            "type" => has_type(says, value),
            "enum" => says.as_array().expect("a list").contains(value),
            "const" => says == value,
            "oneOf" => {
                let fitting = says.as_array().expect("a list").iter();
                fitting.filter(|schema| complaint(document, schema, value).is_none()).count() == 1
            }
            "anyOf" => {
                let mut all = says.as_array().expect("a list").iter();
                all.any(|schema| complaint(document, schema, value).is_none())
            }
            "required" => says.as_array().expect("a list").iter().all(|name| {
                value.as_object().is_none_or(|object| object.contains_key(name.as_str().expect("a name")))
            }),
            "properties" => {
                for (name, schema) in says.as_object().expect("schemas") {
                    if let Some(inner) = value.get(name)
                        && let Some(why) = complaint(document, schema, inner)
                    {
                        return Some(format!("{name}: {why}"));
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object();
                let is_known = |name: &String| known.is_some_and(|known| known.contains_key(name));
                let more = value.as_object().into_iter().flatten().filter(|(name, _)| !is_known(name));
                let mut wrong = more.filter(|(_, value)| match says {
                    Value::Bool(allowed) => !allowed,
                    schema => complaint(document, schema, value).is_some(),
                });
                wrong.next().is_none()
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    if let Some(why) = complaint(document, says, item) {
                        return Some(why);
                    }
                }
                true
            }
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() as i64 >= number(says)),
            "minItems" => value.as_array().is_none_or(|list| list.len() as i64 >= number(says)),
            "maxItems" => value.as_array().is_none_or(|list| list.len() as i64 <= number(says)),
            "minimum" => value.as_i64().is_none_or(|value| value >= number(says)),
            "maximum" => value.as_i64().is_none_or(|value| value <= number(says)),
            // The one pattern that there is: names.
            "pattern" => value.as_str().is_none_or(|text| text.starts_with(|c: char| c.is_ascii_lowercase())),
            other => panic!("the document says `{other}`, which this test does not understand"),
        };
        if !fits {
            return Some(format!("{value} is not {word} {says}"));
        }
    }
    None
}

fn has_type(says: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("there is no type `{other}`"),
    };
    says.as_array().map_or_else(|| is(says), |types| types.iter().any(is))
}

#[test]
fn what_does_not_fit_is_found() {
    use serde_json::json;
    let document = json!({"components": {"schemas": {"Name": {"type": "string"}}}});
    let schema = json!({
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {"name": {"$ref": "#/components/schemas/Name"}, "of": {"type": "array", "items": {"type": ["integer", "null"]}}}
    });
    assert_eq!(complaint(&document, &schema, &json!({"name": "a", "of": [1, null]})), None);
    for wrong in [
        json!([]),
        json!({}),
        json!({"name": 1}),
        json!({"name": "a", "x": 1}),
        json!({"name": "a", "of": ["b"]}),
    ] {
        assert!(complaint(&document, &schema, &wrong).is_some(), "{wrong}");
    }
}
