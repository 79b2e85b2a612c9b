//! Whole runs against servers in this process, which speak HTTP/2 through the `h2` crate: an independent
//! reading of the protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Response};
use synod_bench::{Error, Limit, Mix, Options, Phase, run};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How a server treats its calls.
#[derive(Clone)]
struct Manner {
    /// Answers that come before a connection is said goodbye to; 0 for never.
    goodbye_after: u64,
    status: &'static str,
    message: &'static str,
    /// Trailers alone, without headers and a message before them.
    trailers_only: bool,
    window: u32,
    streams_max: u32,
    silent: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            goodbye_after: 0,
            status: "0",
            message: "",
            trailers_only: false,
            window: 65_535,
            streams_max: 1000,
            silent: false,
        }
    }
}

#[derive(Default)]
struct Seen {
    calls: AtomicU64,
    connections: AtomicU64,
    body_bytes: AtomicU64,
    /// The most calls that one connection had under way at once.
    open_max: AtomicU64,
}

/// A server on a thread of its own; dropping it closes its connections and its port.
struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(manner: Manner) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (stop, stopped) = oneshot::channel();
        let for_thread = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(TcpListener::from_std(listener).unwrap(), manner, for_thread) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, seen, stop: Some(stop), thread: Some(thread) }
    }

    fn endpoint(&self) -> String {
        self.address.to_string()
    }

    fn calls(&self) -> u64 {
        self.seen.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn serve(listener: TcpListener, manner: Manner, seen: Arc<Seen>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        seen.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connection(socket, manner.clone(), Arc::clone(&seen)));
    }
}

async fn connection(socket: tokio::net::TcpStream, manner: Manner, seen: Arc<Seen>) {
    let mut builder = Builder::new();
    builder.initial_window_size(manner.window).initial_connection_window_size(manner.window.max(65_535));
    builder.max_concurrent_streams(manner.streams_max);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    let open = Arc::new(AtomicU64::new(0));
    let mut accepted = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        accepted += 1;
        let now_open = open.fetch_add(1, Ordering::Relaxed) + 1;
        seen.open_max.fetch_max(now_open, Ordering::Relaxed);
        let (manner, seen, open) = (manner.clone(), Arc::clone(&seen), Arc::clone(&open));
        if manner.goodbye_after == accepted {
            connection.graceful_shutdown();
        }
        tokio::spawn(async move {
            assert!(request.uri().path().starts_with("/etcdserverpb.KV/"));
            assert_eq!(request.headers()["te"], "trailers");
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                seen.body_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                let _ = body.flow_control().release_capacity(data.len());
            }
            seen.calls.fetch_add(1, Ordering::Relaxed);
            if manner.silent {
                std::future::pending::<()>().await;
            }
            tokio::task::yield_now().await;
            answer(respond, &manner);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(mut respond: SendResponse<Bytes>, manner: &Manner) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", manner.status.parse().unwrap());
    if !manner.message.is_empty() {
        trailers.insert("grpc-message", manner.message.parse().unwrap());
    }
    let response = Response::builder().header("content-type", "application/grpc");
    if manner.trailers_only {
        let mut response = response.body(()).unwrap();
        response.headers_mut().extend(trailers);
        let _ = respond.send_response(response, true);
        return;
    }
    let Ok(mut stream) = respond.send_response(response.body(()).unwrap(), false) else { return };
    let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
    let _ = stream.send_trailers(trailers);
}

fn options(endpoints: &[&Server]) -> Options {
    Options {
        endpoints: endpoints.iter().map(|server| server.endpoint()).collect(),
        limit: Limit::Operations(2000),
        warmup: Duration::ZERO,
        timeout: Duration::from_secs(20),
        ..Options::default()
    }
}

#[test]
fn every_call_is_answered_over_many_connections_and_streams() {
    let servers = [Server::start(Manner::default()), Server::start(Manner::default())];
    let options =
        Options { clients: 8, outstanding_per_connection: 16, ..options(&[&servers[0], &servers[1]]) };
    let mut progresses = 0;
    let report = run(&options, &mut |_| progresses += 1).unwrap();
    assert_eq!((report.operations, report.failures()), (2000, 0), "{report}");
    assert_eq!(report.connections_lost, 0);
    assert!(progresses > 0);
    assert!(report.latency.p50_us > 0.0 && report.latency.p50_us <= report.latency.max_us);
    assert!(report.generator_us_per_operation > 0.0);
    for server in &servers {
        assert_eq!(server.seen.connections.load(Ordering::Relaxed), 4, "connections are dealt out evenly");
        assert!(server.seen.open_max.load(Ordering::Relaxed) > 1, "calls share a connection");
    }
}

#[test]
fn values_larger_than_every_window_arrive_whole() {
    let server = Server::start(Manner { window: 1000, ..Manner::default() });
    let options = Options {
        value_bytes: 200_000,
        outstanding_per_connection: 4,
        limit: Limit::Operations(40),
        ..options(&[&server])
    };
    let report = run(&options, &mut |_| {}).unwrap();
    assert_eq!((report.operations, report.failures()), (40, 0), "{report}");
    assert!(server.seen.body_bytes.load(Ordering::Relaxed) >= 40 * 200_000);
}

#[test]
fn the_servers_limit_on_streams_is_kept() {
    let server = Server::start(Manner { streams_max: 3, ..Manner::default() });
    let options = Options { outstanding_per_connection: 50, ..options(&[&server]) };
    let report = run(&options, &mut |_| {}).unwrap();
    assert_eq!((report.operations, report.failures()), (2000, 0), "{report}");
    assert!(server.seen.open_max.load(Ordering::Relaxed) <= 3);
}

#[test]
fn refusals_are_counted_with_their_words_and_without_haste() {
    for trailers_only in [true, false] {
        let server = Server::start(Manner {
            status: "14",
            message: "etcdserver: leader changed",
            trailers_only,
            ..Manner::default()
        });
        let options = Options { limit: Limit::Time(Duration::from_millis(500)), ..options(&[&server]) };
        let report = run(&options, &mut |_| {}).unwrap();
        assert_eq!(report.operations, 0);
        assert_eq!(report.errors[0].code, "UNAVAILABLE");
        assert_eq!(report.errors[0].first_message, "etcdserver: leader changed");
        assert_eq!(report.puts_unknown, report.errors[0].count);
        assert!((2..=51).contains(&report.errors[0].count), "at most one a pause: {report}");
        assert!(report.longest_write_gap.unwrap().open);
    }
}

#[test]
fn a_friendly_goodbye_costs_no_call() {
    let server = Server::start(Manner { goodbye_after: 100, ..Manner::default() });
    let options = Options { outstanding_per_connection: 1, ..options(&[&server]) };
    let report = run(&options, &mut |_| {}).unwrap();
    assert_eq!(report.operations + report.failures(), 2000);
    assert_eq!(report.puts_unknown, 0, "{report}");
    assert!(server.seen.connections.load(Ordering::Relaxed) > 10);
}

#[test]
fn a_member_that_dies_loses_its_calls_but_not_the_run() {
    let survivor = Server::start(Manner::default());
    let mut victim = Some(Server::start(Manner::default()));
    let options = Options {
        clients: 4,
        outstanding_per_connection: 4,
        limit: Limit::Time(Duration::from_millis(1500)),
        ..options(&[&survivor, victim.as_ref().unwrap()])
    };
    let mut survivor_calls = (0, 0);
    let report = run(&options, &mut |progress| {
        if progress.elapsed > Duration::from_millis(500) && victim.take().is_some() {
            survivor_calls.0 = survivor.calls();
        }
        survivor_calls.1 = survivor.calls();
    })
    .unwrap();
    assert_eq!(report.connections_lost, 2, "{report}");
    assert_eq!(survivor.seen.connections.load(Ordering::Relaxed), 4, "the lost two moved here");
    assert!(report.errors.iter().all(|error| error.code == "connection lost"), "{report}");
    assert_eq!(report.puts_unknown, report.failures());
    assert!(survivor_calls.1 > survivor_calls.0, "the run went on");
    assert!(report.longest_write_gap.is_some_and(|gap| !gap.open));
}

#[test]
fn a_member_that_falls_silent_is_left_after_the_timeout() {
    let silent = Server::start(Manner { silent: true, ..Manner::default() });
    let awake = Server::start(Manner::default());
    let options = Options {
        timeout: Duration::from_millis(200),
        limit: Limit::Time(Duration::from_secs(1)),
        ..options(&[&silent, &awake])
    };
    let report = run(&options, &mut |_| {}).unwrap();
    assert_eq!(report.errors[0].code, "no answer in time", "{report}");
    assert_eq!(report.errors[0].count, 1);
    assert!(awake.calls() > 0 && report.operations > 0);
    let gap = report.longest_write_gap.unwrap();
    assert!(gap.ms >= 200.0 && !gap.open, "{gap:?}");
}

#[test]
fn a_member_that_only_refuses_is_left_after_the_timeout() {
    let refusing = Server::start(Manner { status: "14", ..Manner::default() });
    let willing = Server::start(Manner::default());
    let options = Options {
        timeout: Duration::from_millis(200),
        limit: Limit::Time(Duration::from_secs(1)),
        ..options(&[&refusing, &willing])
    };
    let report = run(&options, &mut |_| {}).unwrap();
    assert!(willing.calls() > 0 && report.operations > 0, "{report}");
    assert_eq!(report.connections_lost, 1, "{report}");
    assert_eq!(report.errors[0].code, "UNAVAILABLE");
}

#[test]
fn a_port_that_nobody_listens_on_and_one_that_is_not_http2_are_told_apart() {
    // Kept, so that nobody else gets the port; it does not listen.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = taken.local_addr().unwrap().to_string();
    let http1 = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http1_endpoint = http1.local_addr().unwrap().to_string();
    // Ends with the process: it would otherwise wait for a connection for ever.
    std::thread::spawn(move || {
        use std::io::Write;
        for socket in http1.incoming() {
            let _ = socket.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    for (endpoint, said) in [(nobody, "refused"), (http1_endpoint, "HTTP/1")] {
        let options = Options { endpoints: vec![endpoint], ..options(&[]) };
        let error = run(&options, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::NoEndpoint { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error} does not say {said:?}");
    }
}

#[test]
fn bad_options_and_unknown_processes_are_refused_before_anything_runs() {
    let error = run(&Options::default(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("endpoints: none given"), "{error}");
    let unresolvable = Options { endpoints: vec!["nonsense".into()], ..options(&[]) };
    assert!(run(&unresolvable, &mut |_| {}).unwrap_err().to_string().contains("expected host:port"));
    let nobody =
        Options { endpoints: vec!["127.0.0.1:1".into()], server_pids: vec![u32::MAX], ..options(&[]) };
    assert!(matches!(run(&nobody, &mut |_| {}).unwrap_err(), Error::NoProcess(u32::MAX)));
}

#[test]
fn gets_are_mixed_in_and_have_no_write_gap_of_their_own() {
    let server = Server::start(Manner::default());
    let mix = Mix { put: 0, get: 1, serializable_get: 1 };
    let report = run(&Options { mix, ..options(&[&server]) }, &mut |_| {}).unwrap();
    assert_eq!((report.operations, report.failures()), (2000, 0), "{report}");
    assert!(report.longest_write_gap.is_none());
}

#[test]
fn a_process_that_is_charged_shows_its_use() {
    let server = Server::start(Manner::default());
    let options = Options {
        server_pids: vec![std::process::id()],
        warmup: Duration::from_millis(50),
        limit: Limit::Time(Duration::from_millis(500)),
        outstanding_per_connection: 8,
        ..options(&[&server])
    };
    // A process is charged in steps of 10 ms: this makes sure of some.
    let mut worked = false;
    let report = run(&options, &mut |progress| {
        if progress.phase == Phase::Measuring && !worked {
            worked = true;
            (0..200_000_000_u64).for_each(|step| _ = std::hint::black_box(step));
        }
    })
    .unwrap();
    let servers = report.servers.unwrap();
    assert!(servers.processor_us_per_operation.unwrap() > 0.0);
    assert!(servers.members[0].resident_bytes.unwrap() > 0);
}
