//! A client of keyspaces.

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection to a member's API that is kept, over which many requests go.
pub struct Api(BufReader<TcpStream>);

/// A session at a keyspace: its token goes from member to member.
#[derive(Default)]
pub struct Session(pub Option<String>);

impl Api {
    pub fn to(endpoint: &str) -> Api {
        let stream = TcpStream::connect(endpoint).expect("the member listens");
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        Api(BufReader::new(stream))
    }

    /// One exchange: the code, and what the member says.
    pub fn ask(&mut self, method: &str, path: &str, session: &Session, body: Option<&Value>) -> (u16, Value) {
        self.exchange(method, path, session, body).expect("an answer")
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        session: &Session,
        body: Option<&Value>,
    ) -> io::Result<(u16, Value)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let session = session.0.iter().map(|token| format!("synod-session: {token}\r\n")).collect::<String>();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: synod\r\ncontent-length: {}\r\n{session}\r\n",
            body.len()
        );
        self.0.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        let mut line = || {
            let mut line = String::new();
            match self.0.read_line(&mut line)? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(line.trim_end().to_owned()),
            }
        };
        let code = line()?.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        let mut length = 0;
        loop {
            let header = line()?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text)?;
        Ok((code, serde_json::from_slice(&text).unwrap_or(Value::Null)))
    }

    /// Sets a register without a session; nothing if no answer comes.
    pub fn try_put(&mut self, space: &str, key: &str, value: &str) -> Option<()> {
        let path = format!("/v1/keyspaces/{space}/keys/{key}");
        let body = json!({ "value": value });
        let (code, answer) = self.exchange("PUT", &path, &Session::default(), Some(&body)).ok()?;
        assert!(code < 300, "refused: {answer}");
        Some(())
    }

    /// Writes to a key, within a session; refused, it says why.
    pub fn write(
        &mut self,
        space: &str,
        key: &str,
        body: &Value,
        session: &mut Session,
    ) -> Result<(), String> {
        self.answered("PUT", &format!("/v1/keyspaces/{space}/keys/{key}"), session, Some(body)).map(drop)
    }

    pub fn put(&mut self, space: &str, key: &str, value: &str, session: &mut Session) -> Result<(), String> {
        self.write(space, key, &json!({ "value": value }), session)
    }

    pub fn get(&mut self, space: &str, key: &str, session: &mut Session) -> Result<Value, String> {
        let path = format!("/v1/keyspaces/{space}/keys/{key}");
        self.answered("GET", &path, session, None).map(|answer| answer["value"].clone())
    }

    pub fn answered(
        &mut self,
        method: &str,
        path: &str,
        session: &mut Session,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let (code, answer) = self.ask(method, path, session, body);
        if code >= 300 {
            return Err(answer["error"]["message"].as_str().unwrap_or_default().to_owned());
        }
        if let Some(token) = answer["session"].as_str() {
            session.0 = Some(token.to_owned());
        }
        Ok(answer)
    }

    /// What the member says of a weak keyspace.
    pub fn figures(&mut self, space: &str) -> Value {
        self.ask("GET", "/status", &Session::default(), None).1["keyspaces"][space].clone()
    }
}

/// What a read gives that found this.
pub fn value(text: &str) -> Result<Value, String> {
    Ok(Value::from(text))
}
