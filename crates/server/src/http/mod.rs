//! What a member says to programs, browsers, monitors and curl, over HTTP/1.1 on the clients' port.
//!
//! What there is, is what the document at `/openapi.json` says ([`openapi`]): a request that is not in it does not get further than
//! that. Each area has a file with its `paths()` for the document and an `answer` to what they are asked.

mod codes;
mod fault;
mod keys;
mod keyspaces;
mod leader;
mod level;
mod messages;
mod observe;
mod openapi;
mod ops;
mod participants;
mod reply;
mod sagas;
mod text;
mod transactions;

pub(crate) use ops::{read as read_ops, shown as shown_values};
pub(crate) use reply::ApiError;

use crate::api::VERSION;
use crate::member::Member;
use crate::session as session_text;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use reply::{Content, body, json_response, respond};
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
const HEADER_BYTES_MAX: usize = 48 << 10;
/// The body of a request about faults, at most.
const FAULT_BYTES_MAX: usize = 64 << 10;
/// How much longer than the largest value a request's JSON may be: base64 takes four bytes for three.
const JSON_FACTOR: usize = 2;
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
    let answer = match taken_apart(member, request).await {
        Ok(call) => routed(member, &call).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| error.response())
}

/// A request of the API, taken apart.
struct Call {
    method: Method,
    /// Path and query as they came.
    target: String,
    /// The path, without the `v1` that all of the API begins with: split at its slashes and decoded. What is not UTF-8 is
    /// only in a key, and is seen there in `segments`.
    path: Vec<String>,
    /// The same as bytes.
    segments: Vec<Bytes>,
    /// What comes behind the question mark, decoded.
    query: Vec<(String, Bytes)>,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// What the query says of a name.
    fn query(&self, name: &str) -> Option<&str> {
        let (_, value) = self.query.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The same of what need not be text.
    fn query_bytes(&self, name: &str) -> Option<Bytes> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
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

/// Finds out what a request asks, and whether there is such a thing.
async fn taken_apart<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    request: Request<Incoming>,
) -> Result<Call, ApiError> {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path().trim_start_matches('/');
    let mut segments = path.split('/').map(|part| decoded(part, false)).collect::<Result<Vec<_>, _>>()?;
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = String::from_utf8_lossy(&decoded(name, true)?).into_owned();
        Ok::<_, ApiError>((name, decoded(value, true)?))
    });
    let query = query.collect::<Result<Vec<_>, _>>()?;
    openapi::check(&parts.method, &segments, &query)?;
    let bytes_max = match path {
        "fault" => FAULT_BYTES_MAX,
        _ => usize::try_from(member.config.request_size_max)
            .unwrap_or(usize::MAX)
            .saturating_mul(JSON_FACTOR)
            .saturating_add(JSON_OVERHEAD_BYTES),
    };
    let target = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    if segments.first().is_some_and(|first| first == "v1") {
        segments.remove(0);
    }
    let path = segments.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    let body = body(incoming, bytes_max).await?;
    Ok(Call { method: parts.method, target, path, segments, query, headers: parts.headers, body })
}

/// Has done what was asked.
async fn routed<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
) -> Result<Response<Content>, ApiError> {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    Ok(match path.as_slice() {
        ["keyspaces", _, "keys" | "batch", ..] => keys::answer(member, call).await?,
        ["keyspaces", ..] => keyspaces::answer(member, call).await?,
        ["participant", ..] => messages::answer(member, call).await?,
        ["participants", ..] => participants::answer(member, call).await?,
        ["transactions", ..] => transactions::answer(member, call).await?,
        ["sagas", ..] => sagas::answer(member, call).await?,
        ["openapi.json"] => respond(StatusCode::OK, "application/json", openapi::text().to_owned()),
        ["health"] => observe::health(member),
        ["version"] => json_response(
            StatusCode::OK,
            &json!({"etcdserver": VERSION, "etcdcluster": "3.4.0", "synod": env!("CARGO_PKG_VERSION")}),
        ),
        ["status"] => json_response(StatusCode::OK, &observe::status(member)),
        ["metrics"] => respond(StatusCode::OK, "text/plain; version=0.0.4", observe::metrics(member)),
        ["events"] => observe::events(member),
        ["fault"] => fault::fault(member, &call.body),
        _ => return Err(no_such_path(call)),
    })
}

fn no_such_path(call: &Call) -> ApiError {
    openapi::no_such_path(&call.method, &call.target)
}

/// A part of a path or a query without its percent signs; a plus in a query is a space.
fn decoded(part: &str, is_query: bool) -> Result<Bytes, ApiError> {
    let wrong = || {
        let part: String = part.chars().take(200).collect();
        ApiError::malformed(format!(
            "`{part}` is not percent-encoded: write each byte of it as % and two digits"
        ))
    };
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit =
                    || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(wrong);
                bytes.push((digit()? * 16 + digit()?) as u8);
            }
            b'+' if is_query => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    Ok(bytes.into())
}
