//! EDN, the notation of Clojure: enough of it for histories.

use serde_json::{Map, Number, Value};

/// Forms nest no deeper than this.
const DEPTH_MAX: usize = 64;

/// A form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Edn {
    Nil,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Keyword(String),
    Symbol(String),
    /// A vector or a list.
    Sequence(Vec<Edn>),
    Set(Vec<Edn>),
    Map(Vec<(Edn, Edn)>),
}

impl Edn {
    /// What a map has under a keyword; nil counts as missing.
    pub(crate) fn field(&self, name: &str) -> Option<&Edn> {
        let Edn::Map(fields) = self else { return None };
        let is_name = |key: &Edn| matches!(key, Edn::Keyword(word) if word == name);
        fields
            .iter()
            .find(|(key, _)| is_name(key))
            .map(|(_, value)| value)
            .filter(|value| **value != Edn::Nil)
    }

    /// The value as JSON: keywords and symbols become strings, sets become arrays, keys of maps their text.
    pub(crate) fn json(&self) -> Value {
        match self {
            Edn::Nil => Value::Null,
            Edn::Bool(value) => Value::Bool(*value),
            Edn::Integer(value) => Value::from(*value),
            Edn::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Edn::Text(text) | Edn::Keyword(text) | Edn::Symbol(text) => Value::String(text.clone()),
            Edn::Sequence(items) | Edn::Set(items) => Value::Array(items.iter().map(Edn::json).collect()),
            Edn::Map(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.name(), value.json()));
                Value::Object(fields.collect::<Map<String, Value>>())
            }
        }
    }

    /// The form as the name of a key, a process or an account.
    pub(crate) fn name(&self) -> String {
        match self {
            Edn::Text(text) | Edn::Keyword(text) | Edn::Symbol(text) => text.clone(),
            other => other.json().to_string(),
        }
    }
}

/// Reads one form, which must be all there is.
pub(crate) fn parse(text: &str) -> Result<Edn, String> {
    let mut parser = Parser { rest: text, depth: 0 };
    let form = parser.form()?;
    parser.skip_blank();
    match parser.rest {
        "" => Ok(form),
        rest => Err(format!("expected nothing after the form, found {}", start(rest))),
    }
}

/// Cuts a text into top-level forms as its lines come. A top-level vector or list is opened up: its
/// items count as top-level.
#[derive(Default)]
pub(crate) struct Forms {
    pending: String,
    /// Line in which the pending form began.
    pub(crate) line: u64,
    depth: usize,
    in_text: bool,
    escaped: bool,
    opened: bool,
    closed: bool,
}

impl Forms {
    /// Takes one line, and gives the forms that it completes, each with the line in which it began.
    pub(crate) fn line(
        &mut self,
        number: u64,
        text: &str,
        found: &mut Vec<(u64, String)>,
    ) -> Result<(), String> {
        if self.pending.trim().is_empty() {
            self.line = number;
        }
        for character in text.chars().chain(['\n']) {
            if self.in_text || self.escaped {
                self.pending.push(character);
                match character {
                    _ if self.escaped => self.escaped = false,
                    '\\' => self.escaped = true,
                    '"' => self.in_text = false,
                    _ => {}
                }
                continue;
            }
            match character {
                // A comment ends with the line, and a line is what was handed in.
                ';' => {
                    self.pending.push('\n');
                    return Ok(());
                }
                '[' | '(' if self.depth == 0 && !self.opened && self.pending.trim().is_empty() => {
                    if self.closed {
                        return Err("expected nothing after the vector of operations".into());
                    }
                    self.opened = true;
                    continue;
                }
                ']' | ')' if self.depth == 0 && self.opened && self.pending.trim().is_empty() => {
                    (self.opened, self.closed) = (false, true);
                    continue;
                }
                '"' => self.in_text = true,
                '\\' => self.escaped = true,
                '[' | '(' | '{' => self.depth += 1,
                ']' | ')' | '}' => {
                    self.depth =
                        self.depth.checked_sub(1).ok_or_else(|| format!("unexpected {character}"))?;
                }
                ',' | ' ' | '\t' | '\n' | '\r' if self.depth == 0 && self.pending.trim().is_empty() => {
                    self.pending.clear();
                    self.line = number + u64::from(character == '\n');
                    continue;
                }
                _ => {}
            }
            self.pending.push(character);
            if self.depth == 0 && matches!(character, ']' | ')' | '}') {
                found.push((self.line, std::mem::take(&mut self.pending)));
                self.line = number;
            }
        }
        Ok(())
    }

    /// Bytes of the form under way.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// What is wrong with an input that ends here.
    pub(crate) fn end(&self) -> Result<(), String> {
        if !self.pending.trim().is_empty() {
            return Err(
                "the file ends in the middle of this form; if its writer was cut off, delete it".into()
            );
        }
        if self.opened {
            return Err("the file ends before the vector of operations is closed by ]".into());
        }
        Ok(())
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

fn start(text: &str) -> String {
    format!("{:?}", text.chars().take(24).collect::<String>())
}

impl Parser<'_> {
    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            let Some(comment) = self.rest.strip_prefix(';') else { return };
            self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    fn form(&mut self) -> Result<Edn, String> {
        self.skip_blank();
        let Some(first) = self.rest.chars().next() else {
            return Err("expected a value, found the end".into());
        };
        if "[({#".contains(first) {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(format!("forms are nested more than {DEPTH_MAX} deep"));
            }
        }
        let form = match first {
            '[' => self.items(1, ']').map(Edn::Sequence)?,
            '(' => self.items(1, ')').map(Edn::Sequence)?,
            '{' => {
                let items = self.items(1, '}')?;
                if items.len() % 2 != 0 {
                    return Err("a map needs a value for every key".into());
                }
                let mut items = items.into_iter();
                let mut fields = Vec::new();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    fields.push((key, value));
                }
                Edn::Map(fields)
            }
            '#' if self.rest.starts_with("#{") => self.items(2, '}').map(Edn::Set)?,
            '#' => {
                // A tagged form: what it is matters more than what it was called.
                self.rest = &self.rest[1..];
                self.word();
                self.form()?
            }
            '"' => return self.text(),
            ']' | ')' | '}' => return Err(format!("unexpected {first}")),
            _ => return self.atom(),
        };
        self.depth -= 1;
        Ok(form)
    }

    fn items(&mut self, open: usize, close: char) -> Result<Vec<Edn>, String> {
        self.rest = &self.rest[open..];
        let mut items = Vec::new();
        loop {
            self.skip_blank();
            if let Some(rest) = self.rest.strip_prefix(close) {
                self.rest = rest;
                return Ok(items);
            }
            if self.rest.is_empty() {
                return Err(format!("expected {close}, found the end"));
            }
            items.push(self.form()?);
        }
    }

    fn word(&mut self) -> &str {
        let ends = |c: char| c.is_whitespace() || ",()[]{}\";".contains(c);
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn atom(&mut self) -> Result<Edn, String> {
        let before = self.rest;
        let word = self.word();
        if word.is_empty() {
            return Err(format!("expected a value, found {}", start(before)));
        }
        if let Some(keyword) = word.strip_prefix(':').filter(|keyword| !keyword.is_empty()) {
            return Ok(Edn::Keyword(keyword.to_owned()));
        }
        let digits = word.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit());
        match word {
            "nil" => Ok(Edn::Nil),
            "true" => Ok(Edn::Bool(true)),
            "false" => Ok(Edn::Bool(false)),
            _ if digits => {
                let integer = word.strip_suffix('N').unwrap_or(word).parse();
                let float =
                    word.strip_suffix('M').unwrap_or(word).parse::<f64>().ok().filter(|f| f.is_finite());
                match (integer, float) {
                    (Ok(integer), _) => Ok(Edn::Integer(integer)),
                    (_, Some(float)) if word.contains(['.', 'e', 'E']) => Ok(Edn::Float(float)),
                    _ => Err(format!("expected a number of at most 64 bits, found {}", start(word))),
                }
            }
            _ => Ok(Edn::Symbol(word.to_owned())),
        }
    }

    fn text(&mut self) -> Result<Edn, String> {
        let mut text = String::new();
        let mut characters = self.rest[1..].char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[at + 2..];
                    return Ok(Edn::Text(text));
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, plain @ ('"' | '\\'))) => text.push(plain),
                    Some((at, 'u')) => {
                        let code =
                            self.rest.get(at + 2..at + 6).and_then(|code| u32::from_str_radix(code, 16).ok());
                        let Some(code) = code else { return Err("expected four digits after \\u".into()) };
                        text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                        characters.nth(3);
                    }
                    other => {
                        let found =
                            other.map_or("the end".to_owned(), |(_, character)| character.to_string());
                        return Err(format!("expected n, t, r, u, \" or \\ after \\, found {found}"));
                    }
                },
                other => text.push(other),
            }
        }
        Err("the string has no closing \"".into())
    }
}
