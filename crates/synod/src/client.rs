//! A small etcd v3 client for `synod put`, `get`, `del` and `status`: one unary call at a time over
//! `h2`, trying the endpoints in turn.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes of one answer at the most.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a call did not succeed.
#[derive(Debug)]
pub enum CallError {
    /// No endpoint could be reached or answered; each with its reason.
    Unreachable(Vec<(String, String)>),
    /// A member answered with a gRPC error.
    Refused {
        /// The gRPC status code.
        code: u32,
        /// Its text.
        message: String,
    },
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Refused { code, message } => write!(f, "{message} (gRPC code {code})"),
            CallError::Unreachable(tried) => {
                write!(f, "no endpoint answered:")?;
                for (endpoint, why) in tried {
                    write!(f, "\n  {endpoint}: {why}")?;
                }
                write!(f, "\nIs the cluster running? `synod` starts one; --endpoints names another.")
            }
        }
    }
}

/// gRPC's `Unavailable`: another endpoint may know better.
pub const UNAVAILABLE: u32 = 14;

/// Calls `method`, such as `/etcdserverpb.KV/Put`, on the first endpoint that can serve it.
pub async fn call<Request: Message, Answer: Message + Default>(
    endpoints: &[String],
    timeout: Duration,
    method: &str,
    request: &Request,
) -> Result<Answer, CallError> {
    let mut tried = Vec::new();
    let mut refused = None;
    for endpoint in endpoints {
        match tokio::time::timeout(timeout, call_one(endpoint, method, request)).await {
            Ok(Ok(Ok(answer))) => return Ok(answer),
            Ok(Ok(Err((UNAVAILABLE, message)))) => refused = Some((UNAVAILABLE, message)),
            Ok(Ok(Err((code, message)))) => return Err(CallError::Refused { code, message }),
            Ok(Err(why)) => tried.push((endpoint.clone(), why.to_string())),
            Err(_) => tried.push((endpoint.clone(), format!("no answer within {timeout:?}"))),
        }
    }
    Err(match refused {
        Some((code, message)) => CallError::Refused { code, message },
        None => CallError::Unreachable(tried),
    })
}

/// A gRPC status code other than 0, and its text.
pub type Status = (u32, String);
/// Why no answer came.
pub type Failure = Box<dyn std::error::Error>;

async fn call_one<Request: Message, Answer: Message + Default>(
    endpoint: &str,
    method: &str,
    request: &Request,
) -> Result<Result<Answer, Status>, Failure> {
    Connection::open(endpoint).await?.call(method, request).await
}

/// One connection to one member, for any number of calls. Dropping it gives up whatever is under way.
pub struct Connection {
    address: String,
    requests: h2::client::SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Connection {
    /// Connects; nothing of a call has left before.
    pub async fn open(endpoint: &str) -> Result<Connection, Failure> {
        let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).to_owned();
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = h2::client::handshake(stream).await?;
        Ok(Connection { address, requests, driver: tokio::spawn(connection) })
    }

    /// One unary call: the answer, or the status with which it was refused. After an error nobody knows
    /// whether the request was carried out.
    pub async fn call<Request: Message, Answer: Message + Default>(
        &mut self,
        method: &str,
        request: &Request,
    ) -> Result<Result<Answer, Status>, Failure> {
        let head = http::Request::post(format!("http://{}{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        std::future::poll_fn(|context| self.requests.poll_ready(context)).await?;
        let (response, mut body) = self.requests.send_request(head, false)?;
        body.send_data(frame(request), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes").into());
            }
        }
        let trailers = body.trailers().await?;
        let headers = trailers.as_ref().unwrap_or(&head.headers);
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        match text("grpc-status").parse() {
            Ok(0u32) => Ok(Ok(Answer::decode(unframe(bytes.freeze())?)?)),
            Ok(code) => Ok(Err((code, percent_decode(text("grpc-message"))))),
            Err(_) => Err(format!("not a gRPC answer (HTTP status {})", head.status).into()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// gRPC's length prefix: a compression flag and four bytes of length.
fn frame(message: &impl Message) -> Bytes {
    let mut bytes = vec![0; 5];
    message.encode(&mut bytes).expect("a vector grows as needed");
    let length = u32::try_from(bytes.len() - 5).expect("requests are small").to_be_bytes();
    bytes[1..5].copy_from_slice(&length);
    bytes.into()
}

fn unframe(mut bytes: Bytes) -> Result<Bytes, Failure> {
    if bytes.len() < 5 || bytes[0] != 0 {
        return Err("a gRPC answer without an uncompressed message".into());
    }
    bytes.advance(1);
    let length = bytes.get_u32() as usize;
    if bytes.len() < length {
        return Err("a gRPC answer cut short".into());
    }
    Ok(bytes.slice(..length))
}

/// `grpc-message` carries bytes outside printable ASCII as `%XX`.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_message_is_decoded() {
        assert_eq!(percent_decode("no%20leader%3A n2 100%"), "no leader: n2 100%");
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        assert!(unframe(Bytes::from_static(&[0, 0, 0, 0, 9, 1])).is_err());
        assert!(unframe(Bytes::from_static(&[1, 0, 0, 0, 0])).is_err());
        assert_eq!(
            unframe(Bytes::from_static(&[0, 0, 0, 0, 1, 7])).expect("whole"),
            Bytes::from_static(&[7])
        );
    }
}
