//! What a member says to programs, browsers, monitors and curl, over HTTP/1.1 on the clients' port.
//!
//! | path | answer |
//! |---|---|
//! | `GET /health` | 200 and `{"health":"true"}` while a leader is known, else 503 |
//! | `GET /version` | the versions of the API and of Synod |
//! | `GET /status` | where the member stands, as JSON |
//! | `GET /metrics` | figures in Prometheus' text form |
//! | `GET /events` | the live events, as Server-Sent Events |
//! | `POST /fault` | cuts and delays links, where fault injection is configured |
//! | `/v1/keyspaces...` | keyspaces: see `keyspaces` |

mod fault;
mod keyspaces;
mod observe;
mod reply;

use crate::api::VERSION;
use crate::member::Member;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use reply::{ApiError, Content, body, json_response, respond, text};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use synod_protocols::log::ReplicatedLog;
use tokio::net::TcpStream;

/// Headers must arrive within this.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's headers, at most.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// The body of a request about faults, at most.
const FAULT_BYTES_MAX: usize = 64 << 10;
/// How much longer a request's JSON may be than the largest value that it may carry.
const JSON_OVERHEAD_BYTES: usize = 64 << 10;

/// Serves one client's connection until it ends.
pub(crate) async fn serve<P: ReplicatedLog + 'static>(member: Rc<Member<P>>, stream: TcpStream) {
    let service = service_fn(|request| {
        let member = Rc::clone(&member);
        async move { Ok::<_, Infallible>(answer(&member, request).await) }
    });
    // What goes wrong here is the client's, and it has been told as far as it can be.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    request: Request<Incoming>,
) -> Response<Content> {
    match (request.method(), request.uri().path()) {
        (_, path) if path.starts_with("/v1/") => {
            api(member, request).await.unwrap_or_else(|error| error.response())
        }
        (&Method::GET, "/health") => observe::health(member),
        (&Method::GET, "/version") => json_response(
            StatusCode::OK,
            &json!({"etcdserver": VERSION, "etcdcluster": "3.4.0", "synod": env!("CARGO_PKG_VERSION")}),
        ),
        (&Method::GET, "/status") => json_response(StatusCode::OK, &observe::status(member)),
        (&Method::GET, "/metrics") => {
            respond(StatusCode::OK, "text/plain; version=0.0.4", observe::metrics(member))
        }
        (&Method::GET, "/events") => observe::events(member),
        (&Method::POST, "/fault") => match body(request.into_body(), FAULT_BYTES_MAX).await {
            Ok(body) => fault::fault(member, &body),
            Err(error) => error.response(),
        },
        (_, "/health" | "/version" | "/status" | "/metrics" | "/events" | "/fault") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "GET the others, POST /fault")
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "this is a Synod member: try /health, /version, /status, /metrics, /events or /v1/keyspaces. The client API \
             is gRPC (etcd v3), as in: etcdctl --endpoints=HOST:PORT get KEY",
        ),
    }
}

/// A request of the API, taken apart.
struct Call {
    method: Method,
    /// The path behind `/v1/`, split at its slashes and decoded.
    path: Vec<String>,
    /// What comes behind the question mark, decoded.
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// What the query says of a name.
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header's text.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as what it should be.
    fn json<T: DeserializeOwned>(&self, form: &str) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiError::malformed(format!("the body is not understood ({error}): send {form}"))
        })
    }
}

/// Finds out what a request asks, and has it done.
async fn api<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    request: Request<Incoming>,
) -> Result<Response<Content>, ApiError> {
    let bytes_max = usize::try_from(member.config.request_size_max).unwrap_or(usize::MAX);
    let (parts, incoming) = request.into_parts();
    let path =
        parts.uri.path().trim_start_matches("/v1/").split('/').map(decoded).collect::<Result<_, _>>()?;
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok::<_, ApiError>((decoded(key)?, decoded(value)?))
    });
    let query = query.collect::<Result<_, _>>()?;
    let body = body(incoming, bytes_max.saturating_add(JSON_OVERHEAD_BYTES)).await?;
    let call = Call { method: parts.method, path, query, headers: parts.headers, body };
    match call.path.first().map(String::as_str) {
        Some("keyspaces") => keyspaces::answer(member, &call).await,
        _ => Err(not_found(&call)),
    }
}

fn not_found(call: &Call) -> ApiError {
    let what = format!("there is no {} /v1/{}", call.method, call.path.join("/"));
    ApiError::new(StatusCode::NOT_FOUND, "no-such-path", what)
}

/// A part of a path without its percent signs.
fn decoded(part: &str) -> Result<String, ApiError> {
    let wrong = || ApiError::malformed(format!("`{part}` in the path is not percent-encoded UTF-8"));
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(wrong);
        bytes.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}
