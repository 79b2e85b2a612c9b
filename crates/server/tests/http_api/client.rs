//! A small HTTP client: one exchange a connection, and redirects followed.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The session's next token.
    pub(crate) fn session(&self) -> String {
        let token = self.header("synod-session").unwrap_or_else(|| panic!("no token: {self:?}"));
        assert_eq!(self.json()["session"], token, "the token is in the body too");
        token.to_owned()
    }
}

/// One exchange; `None` if the connection broke.
pub(crate) fn exchange(
    endpoint: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let mut stream = TcpStream::connect(endpoint).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {endpoint}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    // A refusal may come before all of the body is taken.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut bytes = Vec::new();
    if (method, target) == ("GET", "/events") {
        // A stream without an end: its beginning is all that is looked at.
        bytes.resize(4096, 0);
        let read = stream.read(&mut bytes).ok()?;
        bytes.truncate(read);
    } else {
        // What was sent before the connection was closed counts.
        let _ = stream.read_to_end(&mut bytes);
    }
    let text = String::from_utf8(bytes).expect("answers are text");
    let (head, text) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some(Answer { status, headers: headers.collect(), text: text.to_owned() })
}

/// As [`exchange`], and to where the leader is if that is the answer.
pub(crate) fn ask(
    endpoint: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let answer = exchange(endpoint, method, target, headers, body).expect("an answer");
    match (answer.status, answer.header("location")) {
        (307, Some(location)) => {
            let rest = location.strip_prefix("http://").expect("an address");
            let (endpoint, target) = rest.split_at(rest.find('/').expect("a path"));
            exchange(endpoint, method, target, headers, body).expect("an answer of the leader")
        }
        _ => answer,
    }
}
