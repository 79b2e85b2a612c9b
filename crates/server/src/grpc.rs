//! gRPC over HTTP/2, as far as unary calls need it: a thin layer on `h2`.
//!
//! One task drives a connection: it takes in the calls that have arrived, collects their bodies, and sends what
//! answers have been put into the connection meanwhile, all of them in as few writes as the socket allows. Calls are
//! handed to the member without a task of their own.

use crate::api;
use crate::clock;
use crate::member::{Member, add};
use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use prost::Message;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use synod_protocols::Time;
use synod_protocols::log::ReplicatedLog;
use synod_store::{Code, Refusal};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A member that stops says so to its clients, who turn to another.
pub(crate) const STOPPED: Refusal =
    Refusal { code: Code::Unavailable, message: std::borrow::Cow::Borrowed("etcdserver: server stopped") };

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client may send before it hears from us: per call, and per connection.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Headers of one call, at most.
const HEADER_BYTES_MAX: u32 = 16 << 10;
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// What gRPC puts before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// How much larger than a request its message may be before it is not even read: as in etcd.
const OVERHEAD_BYTES: usize = 512 << 10;
/// An answer up to this size is handed to the connection whole; a larger one waits for the client to take it.
const ANSWER_AT_ONCE_BYTES: usize = 64 << 10;
/// Bytes of larger answers that wait for their clients, at most, over all connections of one member.
const ANSWERS_BYTES_MAX: usize = 256 << 20;

/// Bytes of bodies that have not arrived whole, at most, on one connection.
const BODIES_BYTES_MAX: usize = 64 << 20;
/// With fewer unfinished calls than this, those bytes are not worth counting: the largest request is 16 MiB.
const BODIES_COUNTED: usize = 4;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Metadata of calls that belong to a session, both ways.
const SESSION: HeaderName = HeaderName::from_static("synod-session");
const APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

thread_local! {
    /// Bytes of large answers under way. A member is one thread.
    static ANSWER_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Serves one client's connection until it ends.
pub(crate) async fn serve<P: ReplicatedLog + 'static>(member: Rc<Member<P>>, stream: TcpStream) {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(member.config.client_streams_max);
    let Ok(Ok(mut connection)) = timeout(HANDSHAKE_TIMEOUT, builder.handshake::<_, Bytes>(stream)).await
    else {
        return;
    };
    let body_max = usize::try_from(member.config.request_size_max).unwrap_or(usize::MAX) + OVERHEAD_BYTES;
    let mut incoming: Vec<Incoming> = Vec::new();
    let mut said_goodbye = false;
    poll_fn(|cx| {
        if member.is_stopping() && !said_goodbye {
            said_goodbye = true;
            connection.graceful_shutdown();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    if let Some(call) = Incoming::new(&request, respond) {
                        incoming.push(call.with_body(request.into_body()));
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let mut i = 0;
        while i < incoming.len() {
            match incoming[i].poll(cx, body_max) {
                Poll::Pending => i += 1,
                Poll::Ready(result) => {
                    let Incoming { method, respond, deadline, session, .. } = incoming.swap_remove(i);
                    let responder = Responder::new(respond);
                    match result {
                        Ok(message) => match session {
                            None => api::call(&member, method, message, responder, deadline),
                            Some(session) => {
                                api::call_in_session(&member, method, message, responder, deadline, session);
                            }
                        },
                        Err(Some(refusal)) => responder.refuse(&refusal),
                        Err(None) => {}
                    }
                }
            }
        }
        bound_bodies(&mut incoming);
        Poll::Pending
    })
    .await;
}

/// Refuses the calls that came last while too much of unfinished bodies is kept.
fn bound_bodies(incoming: &mut Vec<Incoming>) {
    if incoming.len() < BODIES_COUNTED {
        return;
    }
    let mut bytes: usize = incoming.iter().map(|call| call.bytes().len()).sum();
    while bytes > BODIES_BYTES_MAX {
        let Some(call) = incoming.pop() else { return };
        bytes -= call.bytes().len();
        let text = format!(
            "more than {BODIES_BYTES_MAX} bytes of unfinished requests on one connection: send fewer at a time"
        );
        Responder::new(call.respond).refuse(&Refusal::new(Code::ResourceExhausted, text));
    }
}

/// A call whose body is still arriving.
struct Incoming {
    method: api::Method,
    respond: SendResponse<Bytes>,
    body: Option<RecvStream>,
    received: BytesMut,
    first: Bytes,
    deadline: Option<Time>,
    /// The session that the call belongs to.
    session: Option<HeaderValue>,
}

impl Incoming {
    /// Looks at a call's headers; answers at once what is no gRPC call.
    fn new(request: &Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<Incoming> {
        let is_grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let status = match (request.method(), is_grpc) {
            (&Method::POST, true) => None,
            (&Method::POST, false) => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            _ => Some(StatusCode::METHOD_NOT_ALLOWED),
        };
        if let Some(status) = status {
            let mut response = Response::new(());
            *response.status_mut() = status;
            let _ = respond.send_response(response, true);
            return None;
        }
        let method = match api::Method::of(request.uri().path()) {
            Ok(method) => method,
            Err(refusal) => {
                Responder::new(respond).refuse(&refusal);
                return None;
            }
        };
        let deadline =
            request.headers().get("grpc-timeout").and_then(parse_timeout).map(|span| clock::now() + span);
        Some(Incoming {
            method,
            respond,
            body: None,
            received: BytesMut::new(),
            first: Bytes::new(),
            deadline,
            session: request.headers().get(SESSION).cloned(),
        })
    }

    fn with_body(mut self, body: RecvStream) -> Incoming {
        self.body = Some(body);
        self
    }

    /// The message, once the call's body has arrived; a refusal if there is a wrong one; an error without a
    /// refusal if nobody waits any more.
    fn poll(&mut self, cx: &mut Context<'_>, body_max: usize) -> Poll<Result<Bytes, Option<Refusal>>> {
        loop {
            if let Some(refusal) = self.too_long(body_max) {
                return Poll::Ready(Err(Some(refusal)));
            }
            // Whether the client has ended its side does not matter: a unary call is its first message.
            if let Some(message) = self.message() {
                return Poll::Ready(message.map_err(Some));
            }
            let Some(body) = &mut self.body else { return Poll::Ready(Err(None)) };
            match body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(data))) => {
                    let _ = body.flow_control().release_capacity(data.len());
                    if self.first.is_empty() && self.received.is_empty() {
                        self.first = data;
                    } else {
                        if self.received.is_empty() {
                            self.received.extend_from_slice(&self.first);
                            self.first = Bytes::new();
                        }
                        self.received.extend_from_slice(&data);
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(None)),
                Poll::Ready(None) => {
                    let refusal =
                        Refusal::new(Code::Internal, "grpc: the request ends before its message does");
                    return Poll::Ready(Err(Some(refusal)));
                }
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        if self.received.is_empty() { &self.first } else { &self.received }
    }

    fn announced(&self) -> Option<usize> {
        let prefix = self.bytes().get(..PREFIX_BYTES)?;
        Some(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize)
    }

    fn too_long(&self, body_max: usize) -> Option<Refusal> {
        let len = self.announced().filter(|len| *len > body_max)?;
        let text = format!("grpc: received message larger than max ({len} vs. {body_max})");
        Some(Refusal::new(Code::ResourceExhausted, text))
    }

    fn message(&mut self) -> Option<Result<Bytes, Refusal>> {
        let len = self.announced()?;
        if self.bytes().len() < PREFIX_BYTES + len {
            return None;
        }
        if self.bytes()[0] != 0 {
            return Some(Err(Refusal::new(
                Code::Unimplemented,
                "grpc: compressed messages are not understood here: send them plain",
            )));
        }
        if self.bytes().len() > PREFIX_BYTES + len {
            return Some(Err(Refusal::new(
                Code::Internal,
                "grpc: more than one message in a call that takes one",
            )));
        }
        let all = if self.received.is_empty() { self.first.clone() } else { self.received.split().freeze() };
        Some(Ok(all.slice(PREFIX_BYTES..)))
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The way back to a client.
pub(crate) struct Responder {
    respond: SendResponse<Bytes>,
    /// What its session has seen with this answer.
    session: Option<HeaderValue>,
}

/// A message behind its prefix, written by `write` in `len` bytes.
fn frame(len: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + len);
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("an answer is bounded far below 4 GiB"));
    write(&mut out);
    out.freeze()
}

impl Responder {
    fn new(respond: SendResponse<Bytes>) -> Responder {
        Responder { respond, session: None }
    }

    /// Says with the answer what its session has seen by then.
    pub(crate) fn in_session(mut self, token: &str) -> Responder {
        self.session = HeaderValue::from_str(token).ok();
        self
    }

    /// Answers with a message. A client that has gone does not hear it, which is no error.
    pub(crate) fn answer(self, message: &impl Message) {
        self.send(frame(message.encoded_len(), |out| {
            message.encode(out).expect("a buffer that grows has room")
        }));
    }

    /// Answers with the response to a command.
    pub(crate) fn answer_command(self, response: &synod_store::Response) {
        self.send(frame(response.message_len(), |out| response.encode_message(out)));
    }

    fn send(mut self, frame: Bytes) {
        if frame.len() > ANSWER_AT_ONCE_BYTES {
            let waiting = ANSWER_BYTES.get() + frame.len();
            if waiting > ANSWERS_BYTES_MAX {
                return self.refuse(&Refusal::new(
                    Code::ResourceExhausted,
                    "too many large answers wait for clients that do not take them: read with a limit",
                ));
            }
        }
        let mut response = Response::new(());
        response.headers_mut().insert(CONTENT_TYPE, APPLICATION_GRPC);
        if let Some(token) = self.session {
            response.headers_mut().insert(SESSION, token);
        }
        let Ok(mut stream) = self.respond.send_response(response, false) else { return };
        if frame.len() > ANSWER_AT_ONCE_BYTES {
            tokio::task::spawn_local(send_large(stream, frame));
        } else if stream.send_data(frame, false).is_ok() {
            finish(&mut stream);
        }
    }

    /// Says no, in a response that consists of its headers alone.
    pub(crate) fn refuse(mut self, refusal: &Refusal) {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, APPLICATION_GRPC);
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(refusal.code.number())));
        headers.insert(GRPC_MESSAGE, percent_encoded(&refusal.message));
        let _ = self.respond.send_response(response, true);
    }
}

fn finish(stream: &mut SendStream<Bytes>) {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
}

/// Hands a large answer to the connection piece by piece, as its client takes it.
async fn send_large(mut stream: SendStream<Bytes>, mut frame: Bytes) {
    let len = frame.len();
    ANSWER_BYTES.set(ANSWER_BYTES.get() + len);
    while !frame.is_empty() {
        stream.reserve_capacity(frame.len().min(ANSWER_AT_ONCE_BYTES));
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(capacity)) => {
                let piece = frame.split_to(capacity.min(frame.len()));
                if stream.send_data(piece, false).is_err() {
                    break;
                }
            }
            Some(Err(_)) | None => {
                stream.send_reset(Reason::CANCEL);
                break;
            }
        }
    }
    if frame.is_empty() {
        finish(&mut stream);
    }
    ANSWER_BYTES.set(ANSWER_BYTES.get().saturating_sub(len));
}

/// `grpc-message` is percent-encoded: printable ASCII but `%` stands for itself.
fn percent_encoded(text: &str) -> HeaderValue {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => {
                use std::fmt::Write;
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    HeaderValue::from_str(&out).unwrap_or(HeaderValue::from_static(""))
}

/// Counts a connection for as long as it lives.
pub(crate) struct Counted<'a>(pub(crate) &'a Cell<u64>);

impl<'a> Counted<'a> {
    pub(crate) fn new(count: &'a Cell<u64>) -> Counted<'a> {
        add(count, 1);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let parsed = |text: &str| parse_timeout(&HeaderValue::from_str(text).expect("ASCII"));
        assert_eq!(parsed("4999900u"), Some(Duration::from_micros(4_999_900)));
        assert_eq!(parsed("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parsed("2H"), Some(Duration::from_secs(7200)));
        for text in ["", "S", "5", "5x", "-5S", "+5S", "123456789S", "5 S"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    #[test]
    fn messages_in_headers_are_printable_ascii() {
        assert_eq!(percent_encoded("100% käse\n"), "100%25 k%C3%A4se%0A");
    }
}
