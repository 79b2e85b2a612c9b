//! `synod probe` against a real etcd and against a cluster of ours: it records what it saw, and judges it.

mod support;

use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{Demo, tool};

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("synod-probe-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One member of etcd, whose data lies in a folder. A probe waits until it serves.
struct Etcd {
    process: Child,
    endpoint: String,
}

impl Etcd {
    fn start(folder: &Path) -> Etcd {
        let free = || TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        let (client, peer) = (free(), free());
        let (clients, peers) = (format!("http://{client}"), format!("http://{peer}"));
        let process = Command::new("etcd")
            .args(["--name", "one", "--initial-cluster", &format!("one={peers}"), "--data-dir"])
            .arg(folder.join("etcd"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        Etcd { process, endpoint: client.to_string() }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a probe: its exit code and its judgement.
fn probe(endpoints: &str, arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["probe", "--endpoints", endpoints, "--json"])
        .args(arguments)
        .output()
        .expect("synod runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let judgement = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("an exit code"), judgement)
}

/// The lines of a history.
fn lines(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the history was written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn count(lines: &[Value], field: &str, value: &str) -> usize {
    lines.iter().filter(|line| line[field] == value).count()
}

#[test]
fn every_workload_finds_an_etcd_correct() {
    if !tool("etcd") {
        return;
    }
    let folder = Folder::new("etcd");
    let etcd = Etcd::start(&folder.0);
    for (workload, model) in [
        ("register", "linearizable"),
        ("kv", "linearizable"),
        ("append", "strict-serializable"),
        ("bank", "linearizable"),
        ("lock", "linearizable"),
    ] {
        let out = folder.file(workload);
        let arguments = ["--workload", workload, "--for", "700ms", "--seed", "7", "--out", &out];
        let (code, judgement) = probe(&etcd.endpoint, &arguments);
        assert_eq!((code, judgement["required"].as_str()), (0, Some(model)), "{workload}: {judgement}");
        let lines = lines(&out);
        let answered = count(&lines, "event", "ok");
        assert!(answered > 20, "{workload}: only {answered} operations succeeded");
        // What was written is what was judged.
        let again =
            Command::new(env!("CARGO_BIN_EXE_synod")).args(["check", &out]).output().expect("it runs");
        assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stdout));
    }
    let out = folder.file("revisions");
    let (code, judgement) =
        probe(&etcd.endpoint, &["--workload", "kv", "--exclusive", "--for", "700ms", "--out", &out]);
    assert_eq!((code, judgement["object"].as_str()), (0, Some("etcd")), "{judgement}");
    assert!(count(&lines(&out), "op", "range") > 0 && count(&lines(&out), "op", "txn") > 0);
}

#[test]
fn what_a_paused_etcd_did_not_answer_is_unknown_and_the_fault_is_in_the_history() {
    if !tool("etcd") {
        return;
    }
    let folder = Folder::new("paused");
    let etcd = Etcd::start(&folder.0);
    let (out, page) = (folder.file("history"), folder.file("page.html"));
    let pid = etcd.process.id();
    let nemesis = format!("echo pause; kill -STOP {pid}; sleep 1; kill -CONT {pid}; echo resume");
    let (code, judgement) = probe(
        &etcd.endpoint,
        &["--workload", "kv", "--exclusive", "--for", "2400ms", "--timeout", "400ms", "--clients", "8"]
            .into_iter()
            .chain(["--nemesis", &nemesis, "--out", &out, "--html", &page])
            .collect::<Vec<&str>>(),
    );
    assert_eq!(code, 0, "{judgement}");
    let lines = lines(&out);
    assert!(count(&lines, "event", "unknown") >= 3, "nobody waited in vain");
    let notes: Vec<&str> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    assert!(notes[0].starts_with("nemesis begins: echo pause"), "{notes:?}");
    assert_eq!(notes[1..], ["pause", "resume", "nemesis ends"]);
    assert!(std::fs::read_to_string(&page).expect("a page").starts_with("<!doctype html>"));
}

#[test]
fn a_cluster_of_ours_stays_linearizable_while_its_leadership_moves() {
    let demo = Demo::start("probe");
    let folder = Folder::new("ours");
    let synod = env!("CARGO_BIN_EXE_synod");
    let nemesis = format!("while true; do {synod} transfer && echo transferred; sleep 0.2; done");
    for workload in ["register", "append", "bank", "lock"] {
        let out = folder.file(workload);
        let arguments = ["--workload", workload, "--for", "1s", "--nemesis", &nemesis, "--out", &out];
        let (code, judgement) = probe(&demo.endpoints, &arguments);
        assert_eq!(code, 0, "{workload}: {judgement}");
        let lines = lines(&out);
        assert!(count(&lines, "event", "ok") > 20, "{workload}");
        assert!(count(&lines, "text", "transferred") > 0, "{workload}: leadership never moved");
    }
    // The death of the leader, with revisions.
    let (leader, out) = (demo.leader(), folder.file("killed"));
    let started = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(700));
            demo.act("kill", &leader);
        });
        probe(&demo.endpoints, &["--workload", "kv", "--exclusive", "--for", "2500ms", "--out", &out])
    });
    assert_eq!(started.0, 0, "{}", started.1);
    assert!(count(&lines(&out), "event", "ok") > 20);
}

#[test]
fn nobody_there_and_wrong_flags_are_no_verdict() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let ends = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_synod")).arg("probe").args(arguments).output();
        let output = output.expect("synod runs");
        (output.status.code().expect("a code"), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, words) = ends(&["--endpoints", &endpoint, "--for", "100ms"]);
    assert_eq!(code, 3, "{words}");
    assert!(words.contains("no member could be spoken to") && words.contains(&endpoint), "{words}");
    let (code, words) = ends(&["--workload", "chess"]);
    assert_eq!(code, 3, "{words}");
    assert!(words.contains("register, kv, append, bank, lock"), "{words}");
    assert_eq!(ends(&["--clients", "0"]).0, 3);
}
