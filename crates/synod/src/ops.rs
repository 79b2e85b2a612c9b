//! The short language for what is done at a participant, as in `add a -100 min 0; get b`, and the JSON of the API
//! that it stands for.

use serde_json::{Value, json};

/// What may be said, for messages.
pub const FORMS: &str = "get KEY, put KEY VALUE, delete KEY, expect KEY VALUE|none, add KEY N [min N], \
                         or at a database: sql \"STATEMENT\" [PARAMETER ...] [rows N]";
/// Operations in one text at the most; the cluster may allow fewer.
const OPS_MAX: usize = 10_000;

/// A word, and whether it was quoted: a quoted word is never a keyword.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: String,
    quoted: bool,
}

impl Word {
    fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }
}

/// The operations in a text, separated by `;` or line ends, as the API's JSON. Errors: one line that names the
/// operation and the form that it should have.
pub fn parse(text: &str) -> Result<Vec<Value>, String> {
    let ops: Vec<Value> = sentences(text)?.iter().map(|words| operation(words)).collect::<Result<_, _>>()?;
    match ops.len() {
        0 => Err(format!("nothing is said to be done: say {FORMS}")),
        1..=OPS_MAX => Ok(ops),
        count => Err(format!("{count} operations are more than {OPS_MAX}: use several transactions")),
    }
}

/// An operation of the API as it would be said.
pub fn shown(op: &Value) -> String {
    if op.get("sql").is_some() {
        return statement(op);
    }
    let Some((verb, what)) = op.as_object().and_then(|op| op.iter().next()) else { return op.to_string() };
    let key = || value(&what["key"]);
    match verb.as_str() {
        "get" | "delete" => format!("{verb} {}", key()),
        "put" => format!("put {} {}", key(), value(&what["value"])),
        "expect" => {
            let wanted = if what["value"].is_null() { "none".into() } else { value(&what["value"]) };
            format!("expect {} {wanted}", key())
        }
        "add" if what["at-least"].is_null() => format!("add {} {}", key(), value(&what["by"])),
        "add" => format!("add {} {} min {}", key(), value(&what["by"]), what["at-least"]),
        _ => op.to_string(),
    }
}

fn statement(op: &Value) -> String {
    let parameters = op["parameters"].as_array().into_iter().flatten();
    let rows = Some(&op["rows"]).filter(|rows| !rows.is_null()).map(|rows| format!("rows {rows}"));
    let words = std::iter::once(&op["sql"]).chain(parameters).map(value).chain(rows);
    format!("sql {}", words.collect::<Vec<_>>().join(" "))
}

/// A value of the API for people: a text that needs no quotes has none.
pub fn value(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text)
            if !text.is_empty()
                && text != "none"
                && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"\"';\\".contains(c)) =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

fn operation(words: &[Word]) -> Result<Value, String> {
    let said = || words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let [verb, rest @ ..] = words else { return Err(format!("an operation is empty: say {FORMS}")) };
    let form = |form: &str| Err(format!("`{}` is not understood: say {form}", said()));
    match (verb.text.as_str(), rest) {
        ("get", [key]) => Ok(json!({"get": {"key": key.text}})),
        ("get", _) => form("get KEY"),
        ("put", [key, value]) => Ok(json!({"put": {"key": key.text, "value": value.text}})),
        ("put", _) => form("put KEY VALUE, with quotes around a value of several words"),
        ("delete", [key]) => Ok(json!({"delete": {"key": key.text}})),
        ("delete", _) => form("delete KEY"),
        ("expect", [key, value]) if value.is("none") => {
            Ok(json!({"expect": {"key": key.text, "value": null}}))
        }
        ("expect", [key, value]) => Ok(json!({"expect": {"key": key.text, "value": value.text}})),
        ("expect", _) => form("expect KEY VALUE, or expect KEY none if there shall be no such key"),
        ("add", [key, by]) => Ok(json!({"add": {"key": key.text, "by": amount(by, &said())?}})),
        ("add", [key, by, min, least]) if min.is("min") => Ok(json!({"add":
            {"key": key.text, "by": amount(by, &said())?, "at-least": whole(least, &said())?}})),
        ("add", _) => form("add KEY N [min N], as in add a -100 min 0"),
        ("sql", [statement, rest @ ..]) => sql(statement, rest, &said()),
        ("sql", _) => form("sql \"STATEMENT\" [PARAMETER ...] [rows N]"),
        _ => form(FORMS),
    }
}

fn sql(statement: &Word, rest: &[Word], said: &str) -> Result<Value, String> {
    let (parameters, rows) = match rest {
        [parameters @ .., rows, count] if rows.is("rows") => (parameters, Some(whole(count, said)?)),
        parameters => (parameters, None),
    };
    if rows.is_some_and(|rows| rows < 0) {
        return Err(format!("`{said}`: a statement cannot change fewer than 0 rows"));
    }
    let parameters: Vec<&str> = parameters.iter().map(|word| word.text.as_str()).collect();
    let mut op = json!({"sql": statement.text, "parameters": parameters});
    if let Some(rows) = rows {
        op["rows"] = rows.into();
    }
    Ok(op)
}

/// A whole number, or what a step of a saga will put in the place of `${STEP}`: the cluster refuses that elsewhere.
fn amount(word: &Word, said: &str) -> Result<Value, String> {
    if word.text.contains("${") { Ok(word.text.clone().into()) } else { Ok(whole(word, said)?.into()) }
}

fn whole(word: &Word, said: &str) -> Result<i64, String> {
    let wrong = |_| format!("`{said}`: {:?} is no whole number from {} to {}", word.text, i64::MIN, i64::MAX);
    word.text.parse().map_err(wrong)
}

/// Splits a text into operations and those into words. Quotes, single or double, hold words together; a backslash
/// takes the next character as it is, but not within single quotes.
fn sentences(text: &str) -> Result<Vec<Vec<Word>>, String> {
    let (mut all, mut words): (Vec<Vec<Word>>, Vec<Word>) = (Vec::new(), Vec::new());
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    let unended = |what: &str| format!("{what} does not end in `{text}`");
    while let Some(character) = characters.next() {
        let open = |word: &mut Option<Word>, quoted: bool| {
            let word = word.get_or_insert(Word { text: String::new(), quoted: false });
            word.quoted |= quoted;
        };
        match (character, quote) {
            (end, Some(begun)) if end == begun => quote = None,
            ('\\', None | Some('"')) => {
                open(&mut word, true);
                let next = characters.next().ok_or_else(|| unended("a backslash"))?;
                word.as_mut().expect("it is open").text.push(next);
            }
            ('"' | '\'', None) => {
                open(&mut word, true);
                quote = Some(character);
            }
            (';' | '\n', None) => {
                words.extend(word.take());
                all.extend(Some(std::mem::take(&mut words)).filter(|words| !words.is_empty()));
            }
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            _ => {
                open(&mut word, false);
                word.as_mut().expect("it is open").text.push(character);
            }
        }
    }
    if let Some(begun) = quote {
        return Err(unended(&format!("a quotation that begins with {begun}")));
    }
    words.extend(word);
    all.extend(Some(words).filter(|words| !words.is_empty()));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Value {
        let mut ops = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(ops.len(), 1, "{text}");
        ops.remove(0)
    }

    #[test]
    fn each_form_is_the_apis_json() {
        assert_eq!(one("get a"), json!({"get": {"key": "a"}}));
        assert_eq!(one("put a 'two words'"), json!({"put": {"key": "a", "value": "two words"}}));
        assert_eq!(one("delete a"), json!({"delete": {"key": "a"}}));
        assert_eq!(one("expect a 7"), json!({"expect": {"key": "a", "value": "7"}}));
        assert_eq!(one("expect a none"), json!({"expect": {"key": "a", "value": null}}));
        assert_eq!(one("add a -100"), json!({"add": {"key": "a", "by": -100}}));
        assert_eq!(one("add a -${take/0}"), json!({"add": {"key": "a", "by": "-${take/0}"}}));
        assert_eq!(one("add a -100 min 0"), json!({"add": {"key": "a", "by": -100, "at-least": 0}}));
        assert_eq!(
            one("sql \"update t set v = v - $1 where k = $2\" 100 a rows 1"),
            json!({"sql": "update t set v = v - $1 where k = $2", "parameters": ["100", "a"], "rows": 1})
        );
        assert_eq!(one("sql 'select 1'"), json!({"sql": "select 1", "parameters": []}));
    }

    #[test]
    fn a_quoted_word_is_no_keyword() {
        assert_eq!(one("expect a \"none\""), json!({"expect": {"key": "a", "value": "none"}}));
        assert_eq!(one("put \"\" ''"), json!({"put": {"key": "", "value": ""}}));
        assert_eq!(
            one("sql s \"rows\" 1"),
            json!({"sql": "s", "parameters": ["rows", "1"]}),
            "no count of rows but two parameters"
        );
        assert_eq!(one(r#"put a "say \"hi\"; bye""#)["put"]["value"], "say \"hi\"; bye");
        assert_eq!(one(r"put a 'C:\x'")["put"]["value"], r"C:\x");
    }

    #[test]
    fn several_operations_are_told_apart() {
        assert_eq!(parse("get a; add b 1;\n get c ;").expect("three").len(), 3);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_form_that_it_should_have() {
        for (text, word) in [
            ("", "nothing"),
            (" ; ", "nothing"),
            ("steal a", "get KEY"),
            ("get", "get KEY"),
            ("get a b", "get KEY"),
            ("put a two words", "quotes"),
            ("add a ten", "whole number"),
            ("add a 1 max 3", "add KEY N [min N]"),
            ("add a 1 \"min\" 3", "add KEY N [min N]"),
            ("add a 9223372036854775808", "whole number"),
            ("expect a", "expect KEY none"),
            ("sql", "STATEMENT"),
            ("sql s rows -1", "fewer than 0"),
            ("put a \"open", "does not end"),
            ("put a b\\", "backslash"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
            assert!(!error.contains('\n') || text.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_shown_can_be_said_again() {
        let statement = "sql 'select $1' \"it's\" rows 1";
        let said = [
            "get a",
            "put a 'x y'",
            "delete a",
            "expect a none",
            "expect a \"none\"",
            "add a -3 min 0",
            "add a -${take/0} min 0",
            statement,
        ];
        for text in said {
            let op = one(text);
            assert_eq!(one(&shown(&op)), op, "{text}");
        }
    }
}
