//! A client of Synod's HTTP API: what it takes, without a library.
//!
//! Every answer of a keyspace with sessions hands out a token of what the session has seen so far; the client shows the
//! latest one with its next request, whichever member that goes to. That is all there is to a session.

use crate::cluster::text;
use serde_json::{Value, json};
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

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

    /// Writes one key if another one has this value, and says whether it had, all in one step: a transaction of two keys, of
    /// which the first is left as it is.
    pub fn put_while(&mut self, guard: (&str, &str), key: &str, value: &str) -> Result<bool, Error> {
        let (lock, held) = guard;
        let body = json!({"writes": [
            {"key": lock, "value": held, "if": {"value": held}},
            {"key": key, "value": value},
        ]});
        let path = format!("/v1/keyspaces/{}/batch", self.keyspace);
        applied(self.ask("POST", &path, Some(&body)))
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

/// What a member answered.
pub(crate) struct Answer {
    status: u16,
    /// Where to ask instead.
    location: Option<String>,
    body: Value,
}

impl Answer {
    /// The body, if the request was carried out.
    pub(crate) fn success(self) -> Result<Value, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let said = |field: &str| text(&self.body["error"][field]).unwrap_or_default();
        Err(Error::Refused { status: self.status, code: said("code"), message: said("message") })
    }
}

/// One request and its answer. What only the leader can do is asked again there, if the member knows who leads.
pub(crate) fn exchange(
    member: SocketAddr,
    method: &str,
    path: &str,
    session: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer, Error> {
    let answer = exchange_once(member, method, path, session, body)?;
    let Some(location) = &answer.location else { return Ok(answer) };
    let host = location.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let leader = host.parse().map_err(|_| Error::Broken(format!("nobody can go to {location}")))?;
    exchange_once(leader, method, path, session, body)
}

fn exchange_once(
    member: SocketAddr,
    method: &str,
    path: &str,
    session: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer, Error> {
    let mut stream = TcpStream::connect(member)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let content = body.map(Value::to_string).unwrap_or_default();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {member}\r\nconnection: close\r\n");
    head += &format!("content-length: {}\r\n", content.len());
    head += &session.map(|token| format!("synod-session: {token}\r\n")).unwrap_or_default();
    stream.write_all(format!("{head}\r\n{content}").as_bytes())?;

    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let no_answer = || Error::Broken(format!("{member} gave no answer of HTTP: {answer:?}"));
    let (head, content) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(no_answer)?;
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let location = headers.find(|(name, _)| name.eq_ignore_ascii_case("location"));
    Ok(Answer {
        status,
        location: location.map(|(_, address)| address.to_owned()).filter(|_| status == 307),
        body: serde_json::from_str(content).unwrap_or(Value::Null),
    })
}

/// A key as a part of a path.
fn encoded(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    key.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
