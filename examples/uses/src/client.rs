//! A client of one keyspace, and what a session is.
//!
//! Every answer of a keyspace with sessions hands out a token of what the session has seen so far; the client shows the
//! latest one with its next request, whichever member that goes to. That is all there is to a session.

use crate::exchange::exchange;
use serde_json::{Value, json};
use std::fmt;
use std::net::SocketAddr;

/// Why something was not done.
#[derive(Debug)]
pub enum Error {
    /// The member says so: a status of HTTP, a word for programs and a line for people.
    Refused { status: u16, code: String, message: String },
    /// Something does not work.
    Broken(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused { status, code, message } => write!(f, "{status} {code}: {message}"),
            Error::Broken(why) => f.write_str(why),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::Broken(error.to_string())
    }
}

/// Somebody who talks to one member about one keyspace, in one session.
pub struct Client {
    member: SocketAddr,
    keyspace: String,
    session: Option<String>,
}

impl Client {
    pub(crate) fn new(member: SocketAddr, keyspace: &str) -> Client {
        Client { member, keyspace: keyspace.into(), session: None }
    }

    pub(crate) fn at(self, member: SocketAddr) -> Client {
        Client { member, ..self }
    }

    /// The value of a key, at the level of the keyspace.
    pub fn get(&mut self, key: &str) -> Result<Option<String>, Error> {
        Ok(text(&self.ask("GET", &self.path(key), None)?["value"]))
    }

    /// Writes, whatever was there.
    pub fn put(&mut self, key: &str, value: &str) -> Result<(), Error> {
        self.ask("PUT", &self.path(key), Some(&json!({"value": value}))).map(drop)
    }

    /// Writes if the key has this value (or none), and says whether it had, all in one step.
    pub fn put_if(&mut self, key: &str, expected: Option<&str>, value: &str) -> Result<bool, Error> {
        let body = json!({"value": value, "if": {"value": expected}});
        applied(self.ask("PUT", &self.path(key), Some(&body)))
    }

    /// Writes one key if another one has this value, and says whether it was done, all in one step: a transaction of two
    /// keys, of which the first is left as it is.
    pub fn put_while(&mut self, (guard, held): (&str, &str), key: &str, value: &str) -> Result<bool, Error> {
        let body = json!({"writes": [
            {"key": guard, "value": held, "if": {"value": held}},
            {"key": key, "value": value},
        ]});
        applied(self.ask("POST", &format!("/v1/keyspaces/{}/batch", self.keyspace), Some(&body)))
    }

    fn path(&self, key: &str) -> String {
        format!("/v1/keyspaces/{}/keys/{}", self.keyspace, encoded(key))
    }

    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let answer = exchange(self.member, method, path, self.session.as_deref(), body)?.success()?;
        self.session = text(&answer["session"]).or(self.session.take());
        Ok(answer)
    }
}

/// Whether a write was done whose condition may not have held.
fn applied(written: Result<Value, Error>) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(Error::Refused { code, .. }) if code == "precondition" => Ok(false),
        Err(error) => Err(error),
    }
}

/// A key as a part of a path.
fn encoded(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    key.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(String::from)
}
