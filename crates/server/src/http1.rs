//! What a member says to browsers, monitors and curl, over HTTP/1.1 on the clients' port.
//!
//! | path | answer |
//! |---|---|
//! | `GET /health` | 200 and `{"health":"true"}` while a leader is known, else 503 |
//! | `GET /version` | the versions of the API and of Synod |
//! | `GET /status` | where the member stands, as JSON |
//! | `GET /metrics` | figures in Prometheus' text form |
//! | `GET /events` | the live events, as Server-Sent Events |
//! | `POST /fault` | cuts and delays links, where fault injection is configured |

use crate::api::VERSION;
use crate::clock;
use crate::config::{parse_duration, parse_name};
use crate::events::{WATCHERS_MAX, role_name};
use crate::member::{Event, Member};
use crate::peers::FaultChange;
use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use synod_protocols::NodeId;
use synod_protocols::log::ReplicatedLog;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Headers must arrive within this.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's headers, at most.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// A request's body, at most.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Delays above this are a mistake.
const DELAY_MAX: Duration = Duration::from_secs(60);

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
    member: &Member<P>,
    request: Request<Incoming>,
) -> Response<Content> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => health(member),
        (&Method::GET, "/version") => json_response(
            StatusCode::OK,
            &json!({"etcdserver": VERSION, "etcdcluster": "3.4.0", "synod": env!("CARGO_PKG_VERSION")}),
        ),
        (&Method::GET, "/status") => json_response(StatusCode::OK, &status(member)),
        (&Method::GET, "/metrics") => respond(StatusCode::OK, "text/plain; version=0.0.4", metrics(member)),
        (&Method::GET, "/events") => events(member),
        (&Method::POST, "/fault") => match body(request.into_body()).await {
            Ok(body) => fault(member, &body),
            Err(response) => response,
        },
        (_, "/health" | "/version" | "/status" | "/metrics" | "/events" | "/fault") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "GET the others, POST /fault")
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "this is a Synod member: try /health, /version, /status, /metrics or /events. The client API is gRPC \
             (etcd v3), as in: etcdctl --endpoints=HOST:PORT get KEY",
        ),
    }
}

fn health<P: ReplicatedLog + 'static>(member: &Member<P>) -> Response<Content> {
    if member.status().log.leader.is_some() {
        json_response(StatusCode::OK, &json!({"health": "true"}))
    } else {
        json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"health": "false", "reason": "no leader is known"}),
        )
    }
}

fn status<P: ReplicatedLog + 'static>(member: &Member<P>) -> serde_json::Value {
    let core = member.core.borrow();
    let status = core.node.status();
    let store = core.node.machine().store();
    let peers: BTreeMap<String, _> = core
        .links
        .iter()
        .map(|(peer, link)| {
            let fault = link.fault;
            let value = json!({
                "connected": link.connection.is_some(),
                "incarnation": link.incarnation.0,
                "bytes-sent": link.bytes_sent,
                "bytes-received": link.bytes_received,
                "block-in": fault.block_in,
                "block-out": fault.block_out,
                "delay-ms": fault.delay.as_millis() as u64,
            });
            (peer.to_string(), value)
        })
        .collect();
    json!({
        "cluster": member.config.cluster,
        "cluster-id": format!("{:x}", member.config.cluster_id().0),
        "name": member.config.name,
        "protocol": P::NAME,
        "incarnation": status.incarnation.0,
        "role": role_name(status.log.role),
        "term": status.log.epoch.0,
        "leader": status.log.leader.map(|leader| leader.to_string()),
        "last": status.log.last.0,
        "durable": status.log.durable.0,
        "committed": status.log.committed.0,
        "applied": status.applied.0,
        "revision": store.revision().0,
        "compacted-revision": store.compacted_revision().0,
        "keys": store.key_count(),
        "requests-waiting": member.calls.borrow().waiting(),
        "log-syncs": status.syncs,
        "log-bytes-written": status.bytes_written,
        "steps": status.steps,
        "turns": member.counters.turns.get(),
        "inputs": member.counters.inputs.get(),
        "turn-us-max": member.counters.turn_micros_max.get(),
        "disk-us": member.counters.disk_micros.get(),
        "disk-us-max": member.counters.disk_micros_max.get(),
        "elections-started": member.counters.elections.get(),
        "leader-changes": member.counters.leader_changes.get(),
        "client-connections": member.counters.client_connections.get(),
        "fault-injection": member.config.fault_injection,
        "peers": peers,
    })
}

fn metrics<P: ReplicatedLog + 'static>(member: &Member<P>) -> String {
    let mut out = String::new();
    let mut figure = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(out, "# HELP synod_{name} {help}\n# TYPE synod_{name} {kind}\nsynod_{name} {value}");
    };
    let status = member.status();
    let (calls, waiting) = {
        let calls = member.calls.borrow();
        (calls.figures, calls.waiting() as u64)
    };
    let counters = &member.counters;
    figure("has_leader", "gauge", "Whether a leader is known.", u64::from(status.log.leader.is_some()));
    figure(
        "is_leader",
        "gauge",
        "Whether this member leads.",
        u64::from(status.log.leader == Some(member.id)),
    );
    figure("term", "gauge", "The term, or what orders leaders in the protocol.", status.log.epoch.0);
    figure(
        "leader_changes_total",
        "counter",
        "Leaders that this life has known.",
        counters.leader_changes.get(),
    );
    figure(
        "elections_started_total",
        "counter",
        "Elections that this member began.",
        counters.elections.get(),
    );
    figure("log_last_index", "gauge", "The last entry in the log.", status.log.last.0);
    figure("log_committed_index", "gauge", "The last entry known to be committed.", status.log.committed.0);
    figure("applied_index", "gauge", "The last entry applied to the store.", status.applied.0);
    figure("log_syncs_total", "counter", "Syncs of the log.", status.syncs);
    figure("log_written_bytes_total", "counter", "Bytes written to the log.", status.bytes_written);
    figure("inputs_ignored_total", "counter", "Malformed, stale or foreign inputs.", status.log.ignored);
    figure("turns_total", "counter", "Batches of inputs.", counters.turns.get());
    figure("inputs_total", "counter", "Inputs in those batches.", counters.inputs.get());
    figure(
        "turn_microseconds_max",
        "gauge",
        "The longest turn of this life.",
        counters.turn_micros_max.get(),
    );
    figure(
        "disk_microseconds_total",
        "counter",
        "Time that writes and syncs of the log took.",
        counters.disk_micros.get(),
    );
    figure("disk_microseconds_max", "gauge", "The slowest of them.", counters.disk_micros_max.get());
    figure("commands_total", "counter", "Writes answered.", calls.commands);
    figure("reads_total", "counter", "Reads answered.", calls.reads);
    figure("requests_refused_total", "counter", "Requests refused for what they ask.", calls.refused);
    figure("requests_timed_out_total", "counter", "Requests whose time ran out.", calls.timed_out);
    figure("requests_failed_total", "counter", "Requests that could not be served.", calls.failed);
    figure("requests_waiting", "gauge", "Requests under way.", waiting);
    figure("client_connections", "gauge", "Connections of clients.", counters.client_connections.get());
    let core = member.core.borrow();
    let (size, _) = core.node.machine().store().map().disk_bytes();
    figure("state_disk_bytes", "gauge", "Bytes that the state takes on disk.", size);
    figure("keys", "gauge", "Keys that exist.", core.node.machine().store().key_count());
    for (name, help, value) in [
        (
            "peer_sent_bytes_total",
            "Bytes sent to a peer.",
            (|link| link.bytes_sent) as fn(&crate::peers::Link) -> u64,
        ),
        ("peer_received_bytes_total", "Bytes of messages from a peer.", |link| link.bytes_received),
    ] {
        let _ = writeln!(out, "# HELP synod_{name} {help}\n# TYPE synod_{name} counter");
        for (peer, link) in &core.links {
            let _ = writeln!(out, "synod_{name}{{peer=\"{peer}\"}} {}", value(link));
        }
    }
    out
}

fn events<P: ReplicatedLog + 'static>(member: &Member<P>) -> Response<Content> {
    let watcher = member.core.borrow_mut().events.watch(clock::now(), P::NAME);
    let Some(receiver) = watcher else {
        return text(StatusCode::SERVICE_UNAVAILABLE, &format!("{WATCHERS_MAX} watch already: close one"));
    };
    member.wake();
    let mut response = Response::new(Content::Events(receiver));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What `POST /fault` may ask. Lists name peers; a plain block cuts both ways.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct FaultRequest {
    block: Vec<String>,
    block_in: Vec<String>,
    block_out: Vec<String>,
    unblock: Vec<String>,
    delay: BTreeMap<String, String>,
}

fn fault<P: ReplicatedLog + 'static>(member: &Member<P>, body: &[u8]) -> Response<Content> {
    if !member.config.fault_injection {
        return text(
            StatusCode::NOT_FOUND,
            "this member was started without fault injection: its links cannot be cut. Start it with --fault-injection, \
             for tests only",
        );
    }
    let request: FaultRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            let form =
                r#"{"block":["n2"],"block-in":[],"block-out":[],"unblock":["n3"],"delay":{"n2":"50ms"}}"#;
            return text(StatusCode::BAD_REQUEST, &format!("not understood ({error}): POST {form}"));
        }
    };
    match changes(member, &request) {
        Ok(changes) => {
            for (peer, change) in changes {
                member.tell(Event::Fault { peer, change });
            }
            json_response(StatusCode::OK, &json!({"ok": true}))
        }
        Err(why) => text(StatusCode::BAD_REQUEST, &why),
    }
}

/// What the request changes, for each peer that it names.
fn changes<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    request: &FaultRequest,
) -> Result<BTreeMap<NodeId, FaultChange>, String> {
    let mut changes: BTreeMap<NodeId, FaultChange> = BTreeMap::new();
    let mut at = |name: &String, change: &dyn Fn(&mut FaultChange)| {
        let peer = parse_name(name).ok().filter(|peer| member.core.borrow().links.contains_key(peer));
        let peer = peer.ok_or_else(|| format!("{name:?} is no peer of {}", member.id))?;
        change(changes.entry(peer).or_default());
        Ok::<(), String>(())
    };
    for name in &request.unblock {
        at(name, &|fault| (fault.block_in, fault.block_out) = (Some(false), Some(false)))?;
    }
    for name in &request.block {
        at(name, &|fault| (fault.block_in, fault.block_out) = (Some(true), Some(true)))?;
    }
    for name in &request.block_in {
        at(name, &|fault| fault.block_in = Some(true))?;
    }
    for name in &request.block_out {
        at(name, &|fault| fault.block_out = Some(true))?;
    }
    for (name, delay) in &request.delay {
        let delay = parse_duration(delay)?;
        if delay > DELAY_MAX {
            return Err(format!("a delay of {delay:?} is above {DELAY_MAX:?}"));
        }
        at(name, &|fault| fault.delay = Some(delay))?;
    }
    Ok(changes)
}

async fn body(mut body: Incoming) -> Result<Bytes, Response<Content>> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return Err(text(StatusCode::BAD_REQUEST, "the request ended early")) };
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(text(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    &format!("send at most {BODY_BYTES_MAX} bytes"),
                ));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes.freeze())
}

fn text(status: StatusCode, text: &str) -> Response<Content> {
    respond(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn json_response(status: StatusCode, value: &serde_json::Value) -> Response<Content> {
    respond(status, "application/json", value.to_string())
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Content> {
    let mut response = Response::new(Content::Whole(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A response's body.
enum Content {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Events(events) => {
                events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Content::Whole(None))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Content::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Content::Events(_) => hyper::body::SizeHint::default(),
        }
    }
}
