//! The server: the page's files, runs and their events, and the live cluster.

use crate::live::{LiveAction, LiveCluster, LiveFeed, gap};
use crate::runs::{RUN_TIME_MAX, Runs};
use crate::trace::{TRACE_VERSION, Trace};
use crate::verdicts::{self, HISTORY_BYTES_MAX, RunHistory};
use crate::{Lab, LabError, assets};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use synod_sim::script::NODES_MAX;
use synod_sim::{Fault, Span, Swarm};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Bytes that a script may have.
pub const SCRIPT_BYTES_MAX: usize = 64 << 10;

/// How often an idle live stream shows that it is still there.
const LIVE_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The page may load nothing from anywhere but this server.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

struct Shared {
    runs: Runs,
    recorded: Option<Arc<Trace>>,
    live: Option<(Arc<dyn LiveCluster>, Arc<LiveFeed>)>,
}

type App = State<Arc<Shared>>;

/// A laboratory that has its address and serves nobody yet.
pub struct BoundLab {
    listener: TcpListener,
    addr: SocketAddr,
    router: Router,
}

pub(crate) async fn bind(lab: Lab) -> Result<BoundLab, LabError> {
    if !lab.addr.ip().is_loopback() {
        return Err(LabError::NotLoopback(lab.addr));
    }
    let refused = |error| LabError::Bind(lab.addr, error);
    let listener = TcpListener::bind(lab.addr).await.map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    let shared = Arc::new(Shared {
        runs: Runs::new(),
        recorded: lab.trace.map(Arc::new),
        live: lab.live.map(|cluster| {
            let feed = LiveFeed::start(&cluster);
            (cluster, feed)
        }),
    });
    let router = Router::new()
        .route("/api/about", get(about))
        .route("/api/run", post(run))
        .route("/api/swarm", post(swarm))
        .route("/api/flp", post(flp))
        .route("/api/transfer", post(transfer))
        .route("/api/cap", post(cap))
        .route("/api/history", post(history).layer(DefaultBodyLimit::max(HISTORY_BYTES_MAX)))
        .route("/api/history/run", post(run_history))
        .route("/api/history/live", get(live_history))
        .route("/api/history/live/keyspaces", get(live_keyspaces))
        .route("/api/recorded", get(recorded))
        .route("/api/events", get(events))
        .route("/api/live", get(live))
        .route("/api/live/act", post(act))
        .route("/api/live/member", post(ask_member))
        .route("/", get(|| async { file("") }))
        .route("/{name}", get(|Path(name): Path<String>| async move { file(&name) }))
        .layer(DefaultBodyLimit::max(SCRIPT_BYTES_MAX))
        .layer(middleware::from_fn_with_state(addr.port(), guard))
        .with_state(shared);
    Ok(BoundLab { listener, addr, router })
}

impl BoundLab {
    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to open in a browser.
    pub fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// Serves until `stop` completes; live streams that are open then are cut.
    ///
    /// # Errors
    /// [`LabError::Serve`] when the listening socket fails.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), LabError> {
        let serving = axum::serve(self.listener, self.router).into_future();
        tokio::select! {
            outcome = serving => outcome.map_err(LabError::Serve),
            () = stop => Ok(()),
        }
    }
}

/// Lets only this machine's own page in, and sets what every answer carries.
async fn guard(State(port): State<u16>, request: Request, next: Next) -> Response {
    let mut response = match foreign(&request, port) {
        Some(why) => refuse(StatusCode::FORBIDDEN, why),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why a request is not our own page's, if it is not.
fn foreign(request: &Request, port: u16) -> Option<&'static str> {
    let headers = request.headers();
    let host = text(headers, &header::HOST).unwrap_or_default();
    let ours = ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|name| host.eq_ignore_ascii_case(&format!("{name}:{port}")));
    if !ours {
        return Some("the laboratory answers only under this machine's own names (127.0.0.1, localhost)");
    }
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return None;
    }
    let same_origin = match text(headers, &header::ORIGIN) {
        Some(origin) => origin.eq_ignore_ascii_case(&format!("http://{host}")),
        // A program on this machine sends no Origin; a browser always does for a POST.
        None => !headers.contains_key("sec-fetch-site"),
    };
    (!same_origin).then_some("this request comes from another site, which may not act here")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn refuse(status: StatusCode, why: impl Into<String>) -> Response {
    (status, Json(json!({ "error": why.into() }))).into_response()
}

fn file(name: &str) -> Response {
    let Some(asset) = assets::find(name) else {
        return refuse(StatusCode::NOT_FOUND, format!("there is no file \"{name}\" here"));
    };
    match asset.bytes() {
        Ok(bytes) => ([(header::CONTENT_TYPE, asset.kind)], bytes).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("{name}: {error}")),
    }
}

/// What this laboratory has to show.
async fn about(State(shared): App) -> Response {
    Json(json!({
        "synod": env!("CARGO_PKG_VERSION"),
        "trace-format": TRACE_VERSION,
        "live": shared.live.is_some(),
        "recorded": shared.recorded.as_ref().map(|trace| trace.hash()),
    }))
    .into_response()
}

async fn run(State(shared): App, body: Bytes) -> Response {
    let Ok(script) = String::from_utf8(body.into()) else {
        return refuse(StatusCode::BAD_REQUEST, "the script is not UTF-8 text");
    };
    match shared.runs.run(script).await {
        Ok(trace) => Json(trace.header()).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, Json(error)).into_response(),
    }
}

/// A cell of the matrix: which fault, on which protocol, and the seed of one of its runs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CellRun {
    protocol: String,
    fault: String,
    seed: u64,
    /// Members.
    nodes: u8,
    /// The length of the run, in nanoseconds.
    until: u64,
}

/// The script that a seed of the matrix stands for.
async fn swarm(body: Bytes) -> Response {
    let cell: CellRun = match serde_json::from_slice(&body) {
        Ok(cell) => cell,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("this is not a cell: {error}")),
    };
    let only = match cell.fault.parse::<Fault>() {
        Ok(fault) => Some(fault),
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why.to_string()),
    };
    if !(1..=NODES_MAX).contains(&cell.nodes) {
        return refuse(StatusCode::BAD_REQUEST, format!("a cluster has 1 to {NODES_MAX} nodes"));
    }
    let until = Span(cell.until.min(RUN_TIME_MAX.0));
    let swarm = Swarm { protocol: cell.protocol, nodes: cell.nodes, until, only };
    synod_sim::swarm(cell.seed, &swarm).to_string().into_response()
}

/// Where a schedule leads, and what may happen there.
async fn flp(body: Bytes) -> Response {
    let schedule: crate::flp::Schedule = match serde_json::from_slice(&body) {
        Ok(schedule) => schedule,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("this is not a schedule: {error}")),
    };
    match tokio::task::spawn_blocking(move || crate::flp::play(&schedule)).await {
        Ok(Ok(view)) => Json(view).into_response(),
        Ok(Err(why)) => refuse(StatusCode::BAD_REQUEST, why),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// One transfer by every protocol.
async fn transfer(body: Bytes) -> Response {
    let asked: crate::transfer::Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("this is no transfer: {error}")),
    };
    apart(move || crate::transfer::films(&asked).map_err(|why| (StatusCode::BAD_REQUEST, why))).await
}

/// One partition under each level of consistency.
async fn cap(body: Bytes) -> Response {
    let asked: crate::cap::Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("this is no measurement: {error}")),
    };
    apart(move || crate::cap::films(&asked).map_err(|why| (StatusCode::BAD_REQUEST, why))).await
}

/// A history of anybody's, judged.
async fn history(body: Bytes) -> Response {
    apart(move || verdicts::judged_text(&body)).await
}

/// The operations of a simulated run, judged.
async fn run_history(State(shared): App, body: Bytes) -> Response {
    let asked: RunHistory = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("this names no run: {error}")),
    };
    let Some(trace) = shared.runs.by_hash(&asked.run) else { return no_run() };
    apart(move || match (trace.history(), asked.until) {
        (None, _) => Err((StatusCode::NOT_FOUND, "the clients of this run kept no history".into())),
        (Some(history), None) => verdicts::judged(history),
        (Some(history), Some(t)) => verdicts::judged(&verdicts::until(history, t)),
    })
    .await
}

/// Of which keyspaces of the live cluster something is known to be judged.
async fn live_keyspaces(State(shared): App) -> Response {
    let Some((cluster, feed)) = &shared.live else { return no_live() };
    let (keyspaces, clients) = (feed.operations().list(), cluster.history().is_some());
    Json(json!({"keyspaces": keyspaces, "clients": clients})).into_response()
}

/// Whose history is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoseHistory {
    /// A keyspace's, by its name; without it, that of the clients that the page has started.
    keyspace: Option<String>,
    /// The version that is known: there is no need to judge it again.
    seen: Option<u64>,
}

/// What the live cluster's clients have asked and heard until now, judged.
async fn live_history(State(shared): App, Query(whose): Query<WhoseHistory>) -> Response {
    let Some((cluster, feed)) = shared.live.clone() else { return no_live() };
    if let Some(name) = whose.keyspace {
        let Some(kept) = feed.operations().kept(&name) else {
            // No error: whoever follows it waits for the first operation.
            return Json(json!({"none": true})).into_response();
        };
        if whose.seen == Some(kept.version) {
            return Json(json!({"same": true})).into_response();
        }
        return apart(move || verdicts::judged_keyspace(&kept)).await;
    }
    apart(move || {
        let none = "nobody has asked this cluster anything yet: let clients ask, on its page";
        let history = cluster.history().ok_or((StatusCode::NOT_FOUND, none.to_owned()))?;
        let mut view = verdicts::judged_growing(&history.text)?;
        view["growing"] = history.growing.into();
        Ok(view)
    })
    .await
}

/// Thinks apart from the event loop.
async fn apart(
    work: impl FnOnce() -> Result<serde_json::Value, (StatusCode, String)> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(view)) => Json(view).into_response(),
        Ok(Err((status, why))) => refuse(status, why),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn no_run() -> Response {
    refuse(StatusCode::NOT_FOUND, "this run is no longer kept here: send its script again (POST /api/run)")
}

async fn recorded(State(shared): App) -> Response {
    match &shared.recorded {
        Some(trace) => Json(trace.header()).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "no recording was given: open one with `synod replay <file>`"),
    }
}

#[derive(Deserialize)]
struct Window {
    run: String,
    from: u64,
    to: u64,
}

async fn events(State(shared): App, Query(window): Query<Window>) -> Response {
    let recorded = shared.recorded.as_ref().filter(|trace| trace.hash() == window.run);
    let Some(trace) = recorded.cloned().or_else(|| shared.runs.by_hash(&window.run)) else {
        return no_run();
    };
    if window.from > window.to {
        return refuse(StatusCode::BAD_REQUEST, "the window ends before it begins: from > to");
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, trace.window(window.from, window.to)).into_response()
}

fn no_live() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is no live cluster here: start one with `synod demo`")
}

async fn live(State(shared): App) -> Response {
    let Some((cluster, feed)) = &shared.live else { return no_live() };
    let (past, onward) = feed.join();
    let hello = Event::default().event("hello").json_data(cluster.describe());
    let stream = live_stream(hello.ok(), past.into(), onward, Arc::clone(cluster));
    Sse::new(stream).keep_alive(KeepAlive::new().interval(LIVE_KEEP_ALIVE)).into_response()
}

/// The description, the past, then the present. After a gap comes a new description, since the
/// missed events may have held a process's end or start.
fn live_stream(
    hello: Option<Event>,
    past: VecDeque<Arc<str>>,
    onward: broadcast::Receiver<Arc<str>>,
    cluster: Arc<dyn LiveCluster>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((hello, past, onward, cluster), |(hello, mut past, mut onward, cluster)| async {
        if let Some(hello) = hello {
            return Some((Ok(hello), (None, past, onward, cluster)));
        }
        if let Some(event) = past.pop_front() {
            return Some((Ok(Event::default().data(&*event)), (None, past, onward, cluster)));
        }
        match onward.recv().await {
            Ok(event) => Some((Ok(Event::default().data(&*event)), (None, past, onward, cluster))),
            Err(RecvError::Lagged(missed)) => {
                let hello = Event::default().event("hello").json_data(cluster.describe()).ok();
                let event = Event::default().data(&*gap(missed));
                Some((Ok(event), (hello, past, onward, cluster)))
            }
            Err(RecvError::Closed) => None,
        }
    })
}

async fn act(State(shared): App, body: Bytes) -> Response {
    let Some((cluster, _)) = &shared.live else { return no_live() };
    let action: LiveAction = match serde_json::from_slice(&body) {
        Ok(action) => action,
        Err(error) => {
            return refuse(StatusCode::BAD_REQUEST, format!("this is not an action: {error}"));
        }
    };
    if !cluster.describe().actions.contains(&action.verb) {
        return refuse(
            StatusCode::CONFLICT,
            "this cluster cannot do that: it was started without fault injection",
        );
    }
    match cluster.act(&action) {
        Ok(()) => Json(json!({ "done": true })).into_response(),
        Err(why) => refuse(StatusCode::CONFLICT, why),
    }
}

/// What a member of the live cluster says to a request of its own API.
async fn ask_member(State(shared): App, body: Bytes) -> Response {
    let Some((cluster, _)) = &shared.live else { return no_live() };
    let asked: crate::member::Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => {
            return refuse(StatusCode::BAD_REQUEST, format!("this asks no member anything: {error}"));
        }
    };
    match crate::member::ask(cluster, asked).await {
        Ok(said) => Json(said).into_response(),
        Err((status, why)) => refuse(status, why),
    }
}
