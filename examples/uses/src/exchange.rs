//! One request to a member's HTTP API and its answer: what it takes, without a library.

use crate::client::Error;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

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
        let said = |field: &str| self.body["error"][field].as_str().unwrap_or_default().to_owned();
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
