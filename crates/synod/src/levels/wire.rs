//! A connection to a member's HTTP API that costs the load as little as it can: requests are one write, answers are
//! looked through for the few things that count.

use serde_json::Value;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of an answer at the most.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A connection that is opened when it is first needed, and again after an error.
#[derive(Debug)]
pub struct Wire {
    /// Where the member listens for clients.
    pub address: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// What a member answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// `host:port` of the member to ask instead.
    pub elsewhere: Option<String>,
    /// The session's next token.
    pub session: Option<String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; nothing if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Wire {
    pub fn new(address: &str) -> Wire {
        Wire { address: address.to_owned(), stream: None, buffer: Vec::new() }
    }

    /// Forgets the connection, and with it whatever is under way on it.
    pub fn close(&mut self) {
        self.stream = None;
    }

    /// One request and its answer.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        session: Option<&str>,
        body: &str,
    ) -> io::Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if let Some(token) = session {
            request += "synod-session: ";
            request += token;
            request += "\r\n";
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        let answer = self.exchange(request.as_bytes()).await;
        if answer.is_err() {
            self.close();
        }
        answer
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            more(stream, &mut self.buffer).await?;
        };
        let text = std::str::from_utf8(&self.buffer[..head]).map_err(|_| malformed())?;
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
        let header = |wanted: &str| {
            let fields = text.lines().filter_map(|line| line.split_once(':'));
            let mut found = fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.next().map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = header("content-length").and_then(|n| n.parse().ok()).ok_or_else(malformed)?;
        if length > ANSWER_BYTES_MAX {
            return Err(malformed());
        }
        let (session, location) = (header("synod-session"), header("location"));
        while self.buffer.len() < head + length {
            more(stream, &mut self.buffer).await?;
        }
        let elsewhere = location
            .filter(|_| status == 307)
            .and_then(|address| Some(address.strip_prefix("http://")?.split('/').next()?.to_owned()));
        Ok(Answer { status, elsewhere, session, body: self.buffer[head..head + length].to_vec() })
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    if stream.read_buf(buffer).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an answer of a member's HTTP API")
}
