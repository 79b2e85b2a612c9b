//! The server's answers, asked for without a browser.

use crate::host::Served;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use synod_lab::{
    Lab, LabError, LiveAction, LiveCluster, LiveDescription, LiveNode, LiveVerb, SCRIPT_BYTES_MAX, Trace,
    TraceError,
};
use tokio::sync::broadcast;

const SCRIPT: &str = "synod-script 1\nprotocol raft\nnodes 3\nseed 4\nfor 3s\nclients 2 every 200ms keys 2 mix put:1,get:1\nat 1s crash leader\n";

#[test]
fn the_page_and_its_files_come_with_their_types_and_a_policy() {
    let lab = Served::start();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/main.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = lab.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{path}: {}", answer.head);
        assert!(answer.head.contains("default-src 'none'"), "{path}: {}", answer.head);
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{path}");
    }
    for path in ["/nothing.js", "/..%2fCargo.toml", "/%2e%2e/Cargo.toml", "/web/main.js"] {
        assert_eq!(lab.get(path).status, 404, "{path}");
    }
}

#[test]
fn the_page_names_no_other_machine() {
    let lab = Served::start();
    let page = lab.get("/").body;
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("//cdn"), "{page}");
}

#[test]
fn a_script_is_run_once_and_its_windows_meet() {
    let lab = Served::start();
    let answer = lab.post("/api/run", SCRIPT);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let header = answer.json();
    assert_eq!(header["synod-trace"], 1);
    assert_eq!(header["nodes"], json!(["n1", "n2", "n3"]));
    assert_eq!(lab.post("/api/run", SCRIPT).json(), header, "the same script gives the same run");

    let (hash, until) = (header["hash"].as_str().expect("a hash"), header["until"].as_u64().expect("an end"));
    let window = |from: u64, to: u64| -> Value {
        let answer = lab.get(&format!("/api/events?run={hash}&from={from}&to={to}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let events = |window: &Value| window["events"].as_array().expect("events").clone();
    let (whole, middle) = (window(0, until + 1), until / 2 + 1);
    let (early, late) = (window(0, middle), window(middle, until + 1));
    assert_eq!(whole["events"].as_array().map(Vec::len), header["events"].as_u64().map(|n| n as usize));
    assert_eq!([events(&early), events(&late)].concat(), events(&whole));
    for node in ["n1", "n2", "n3"] {
        let states = events(&early);
        let last = states.iter().rfind(|e| e["k"] == "state" && e["n"] == node).map(|e| &e["s"]);
        assert_eq!(last, late["keyframe"]["states"].get(node), "{node}");
    }
}

#[test]
fn a_script_that_does_not_parse_is_refused_with_its_line() {
    let lab = Served::start();
    let answer = lab.post("/api/run", "synod-script 1\nprotocol raft\nnodes many\n");
    assert_eq!(answer.status, 400);
    let error = answer.json();
    assert_eq!(error["line"], 3);
    assert!(error["error"].as_str().expect("a text").len() > 10, "{error}");
    assert_eq!(lab.post("/api/run", &"#".repeat(SCRIPT_BYTES_MAX + 1)).status, 413);
}

#[test]
fn windows_of_unknown_runs_and_turned_windows_are_refused() {
    let lab = Served::start();
    assert_eq!(lab.get("/api/events?run=0000000000000000&from=0&to=1").status, 404);
    assert_eq!(lab.get("/api/events?run=x&from=a&to=1").status, 400);
    let header = lab.post("/api/run", SCRIPT).json();
    let hash = header["hash"].as_str().expect("a hash");
    assert_eq!(lab.get(&format!("/api/events?run={hash}&from=2&to=1")).status, 400);
}

#[test]
fn other_sites_may_neither_read_nor_act() {
    let lab = Served::start();
    let rebound = lab.request("GET", "/api/about", &[("Host", "evil.example:80")], "");
    assert_eq!(rebound.status, 403);
    let foreign = lab.request("POST", "/api/run", &[("Origin", "http://evil.example")], SCRIPT);
    assert_eq!(foreign.status, 403);
    let own = format!("http://{}", lab.addr);
    assert_eq!(lab.request("POST", "/api/run", &[("Origin", &own)], SCRIPT).status, 200);
    assert_eq!(lab.request("POST", "/api/run", &[("Sec-Fetch-Site", "cross-site")], SCRIPT).status, 403);
}

#[tokio::test]
async fn only_loopback_is_served_and_a_taken_port_is_named() {
    let everywhere = Lab::new("0.0.0.0:0".parse().expect("an address")).bind().await;
    assert!(matches!(everywhere.err(), Some(LabError::NotLoopback(_))));
    let first = Lab::new("127.0.0.1:0".parse().expect("an address")).bind().await.expect("a free port");
    let second = Lab::new(first.local_addr()).bind().await.err().expect("the port is taken");
    assert!(second.to_string().contains(&first.local_addr().port().to_string()), "{second}");
}

#[test]
fn a_recorded_trace_is_served_beside_the_simulator() {
    let text = "{\"synod-trace\":1,\"protocol\":\"raft\",\"nodes\":[\"n1\"],\"clients\":[],\"until\":20,\"events\":3,\"hash\":\"abc\",\"script\":\"\",\"marks\":[]}\n\
        {\"i\":0,\"t\":1,\"k\":\"state\",\"n\":\"n1\",\"s\":{\"up\":true,\"epoch\":1}}\n\
        {\"i\":1,\"t\":5,\"k\":\"op\",\"c\":\"c1\",\"o\":1,\"phase\":\"invoke\",\"f\":\"put\"}\n\
        {\"i\":2,\"t\":9,\"k\":\"op\",\"c\":\"c1\",\"o\":1,\"phase\":\"ok\",\"f\":\"put\"}\n";
    let lab = Served::with(move |lab| lab.with_trace(Trace::read(text.as_bytes()).expect("a trace")));
    assert_eq!(lab.get("/api/about").json()["recorded"], "abc");
    assert_eq!(lab.get("/api/recorded").json()["nodes"], json!(["n1"]));
    let window = lab.get("/api/events?run=abc&from=6&to=21").json();
    assert_eq!(window["keyframe"]["states"]["n1"]["epoch"], 1);
    assert_eq!(window["keyframe"]["ops"][0]["phase"], "invoke");
    assert_eq!(window["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(window["to"], 21);
    assert_eq!(Served::start().get("/api/recorded").status, 404);
}

#[test]
fn a_file_that_is_no_trace_is_refused_with_the_reason() {
    let header = "{\"synod-trace\":1,\"nodes\":[],\"until\":2,\"hash\":\"a\"}\n";
    let refusal = |text: &str| Trace::read(text.as_bytes()).err().expect("a refusal");
    assert!(matches!(refusal(""), TraceError::NotATrace(_)));
    assert!(matches!(refusal("PK\u{3}\u{4}"), TraceError::NotATrace(_)));
    assert!(matches!(refusal("{\"synod-trace\":99}"), TraceError::Version(99)));
    assert!(matches!(
        refusal(&format!("{header}{{\"t\":1,\"k\":\"note\"}}\n{{\"t\":1,")),
        TraceError::Event { line: 3, .. }
    ));
    assert!(matches!(
        refusal(&format!("{header}{{\"t\":2,\"k\":\"note\"}}\n{{\"t\":1,\"k\":\"note\"}}")),
        TraceError::Event { line: 3, .. }
    ));
}

#[test]
fn a_crowded_moment_is_never_split_between_windows() {
    let header = json!({"synod-trace": 1, "nodes": [], "until": 10, "hash": "a"});
    let crowd = synod_lab::WINDOW_EVENTS_MAX + 5;
    let event = |t: u64| format!("{{\"t\":{t},\"k\":\"note\"}}").into_boxed_str();
    let events = std::iter::once(event(0)).chain((0..crowd).map(|_| event(3))).chain([event(4)]);
    let trace = Trace::new(header, events).expect("a trace");
    let (mut from, mut seen) = (0, Vec::new());
    while from < 11 {
        let window: Value = serde_json::from_str(&trace.window(from, 11)).expect("JSON");
        let to = window["to"].as_u64().expect("an end");
        assert!(to > from, "a window must go on");
        seen.push(window["events"].as_array().expect("events").len());
        from = to;
    }
    assert_eq!(seen.iter().sum::<usize>(), crowd + 2);
    assert!(seen.contains(&crowd), "{seen:?}");
}

/// A cluster that only remembers what was done to it.
struct Puppet {
    events: broadcast::Sender<Arc<str>>,
    done: Mutex<Vec<LiveAction>>,
}

impl LiveCluster for Puppet {
    fn describe(&self) -> LiveDescription {
        let node = |name: &str| LiveNode {
            name: name.into(),
            pid: Some(7),
            stopped: false,
            client: "http://127.0.0.1:1".into(),
            peer: "127.0.0.1:2".into(),
            data: "data".into(),
        };
        LiveDescription {
            protocol: "raft".into(),
            nodes: vec![node("n1"), node("n2")],
            actions: vec![LiveVerb::Kill, LiveVerb::Start],
            note: None,
            t: 5,
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.events.subscribe()
    }

    fn act(&self, action: &LiveAction) -> Result<(), String> {
        if action.node.as_deref() == Some("n9") {
            return Err("there is no n9".into());
        }
        self.done.lock().expect("no panic").push(action.clone());
        Ok(())
    }
}

fn puppet() -> (Arc<Puppet>, Served) {
    let puppet = Arc::new(Puppet { events: broadcast::channel(64).0, done: Mutex::default() });
    let cluster: Arc<dyn LiveCluster> = puppet.clone();
    (puppet, Served::with(move |lab| lab.with_live(cluster)))
}

#[test]
fn a_live_cluster_is_acted_on_only_as_it_allows() {
    let (puppet, lab) = puppet();
    let act = |action: Value| lab.post("/api/live/act", &action.to_string());
    assert_eq!(act(json!({"do": "kill", "node": "n1"})).status, 200);
    let cut = act(json!({"do": "cut", "node": "n1", "peer": "n2"}));
    assert_eq!(cut.status, 409);
    assert!(cut.json()["error"].as_str().expect("a reason").contains("fault injection"));
    assert_eq!(act(json!({"do": "kill", "node": "n9"})).json()["error"], "there is no n9");
    assert_eq!(act(json!({"do": "explode", "node": "n1"})).status, 400);
    let done = puppet.done.lock().expect("no panic").clone();
    assert_eq!(done, [LiveAction { verb: LiveVerb::Kill, node: Some("n1".into()), peer: None }]);
    assert_eq!(Served::start().post("/api/live/act", "{}").status, 404);
}

#[test]
fn a_page_that_opens_late_hears_the_past_and_then_the_present() {
    let (puppet, lab) = puppet();
    while puppet.events.receiver_count() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    puppet
        .events
        .send(Arc::from("{\"t\":1,\"k\":\"note\",\"text\":\"past\"}"))
        .expect("the laboratory listens");
    std::thread::sleep(Duration::from_millis(100));
    let mut stream = TcpStream::connect(lab.addr).expect("the laboratory listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    write!(stream, "GET /api/live HTTP/1.1\r\nHost: {}\r\n\r\n", lab.addr).expect("the request is taken");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("the stream goes on"));
    let mut until = |wanted: &str| {
        lines.by_ref().find(|line| line.contains(wanted)).unwrap_or_else(|| panic!("{wanted} comes"))
    };
    assert!(until("event:").ends_with("hello"));
    assert!(until("data:").contains("\"actions\":[\"kill\",\"start\"]"));
    until("keyframe");
    until("past");
    puppet
        .events
        .send(Arc::from("{\"t\":2,\"k\":\"note\",\"text\":\"present\"}"))
        .expect("the laboratory listens");
    until("present");
}
