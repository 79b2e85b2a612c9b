//! Starts the demo on free ports and a folder of its own, and stops what it started.
#![allow(dead_code, unreachable_pub)] // Each test file uses a part of it.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `synod demo`.
pub struct Demo {
    process: Child,
    folder: PathBuf,
    /// The page's address, `http://127.0.0.1:PORT/`.
    pub page: String,
    /// Where clients connect, separated by commas.
    pub endpoints: String,
}

impl Demo {
    /// Starts three members and the page.
    pub fn start(name: &str) -> Demo {
        let folder = std::env::temp_dir().join(format!("synod-{name}-{}", std::process::id()));
        let mut process = Command::new(env!("CARGO_BIN_EXE_synod"))
            .args(["demo", "--json", "--any-ports", "--page", "127.0.0.1:0", "--data-dir"])
            .arg(&folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("standard output is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the demo says where it is");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: `{line}`"));
        let text = |field: &str| said[field].as_str().expect("a text").to_string();
        let demo = Demo { page: text("page"), endpoints: text("endpoints"), process, folder };
        demo.eventually("one leader for all three", || demo.agreed_leader());
        demo
    }

    /// Does something to a member, as a click on the page would.
    pub fn act(&self, verb: &str, node: &str) {
        self.post(&json!({"do": verb, "node": node}));
    }

    /// Pauses or cuts off a member, or undoes that.
    pub fn strike(&self, verb: &str, node: &str) {
        if matches!(verb, "cut" | "heal") {
            for other in ["n1", "n2", "n3"].into_iter().filter(|other| *other != node) {
                self.post(&json!({"do": verb, "node": node, "peer": other}));
            }
        } else {
            self.act(verb, node);
        }
    }

    fn post(&self, action: &Value) {
        let body = action.to_string();
        let host = self.page.trim_start_matches("http://").trim_end_matches('/');
        let request = format!(
            "POST /api/live/act HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(host).expect("the page answers");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 2"), "{action}: {answer}");
    }

    /// Runs `synod` against this cluster: its exit code and standard output.
    pub fn synod(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_synod"))
            .args(arguments)
            .env("SYNOD_ENDPOINTS", &self.endpoints)
            .output()
            .expect("synod runs");
        // Shown if the test fails.
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same, with what it said on standard error.
    pub fn synod_said(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_synod"))
            .args(arguments)
            .env("SYNOD_ENDPOINTS", &self.endpoints)
            .stdin(Stdio::null())
            .output()
            .expect("synod runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
    }

    /// Makes keyspaces on the cluster's log.
    pub fn make_keyspaces(&self, names: &[&str]) {
        for name in names {
            let (body, host) =
                (r#"{"model":"linearizable"}"#, self.endpoints.split(',').next().expect("one"));
            let request = format!(
                "PUT /v1/keyspaces/{name} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            self.eventually("a keyspace", || {
                let mut stream = TcpStream::connect(host).ok()?;
                stream.write_all(request.as_bytes()).ok()?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).ok()?;
                answer.starts_with("HTTP/1.1 20").then_some(())
            });
        }
    }

    fn status(&self) -> Vec<Value> {
        let (_, text) = self.synod(&["status", "--json", "--timeout", "500ms"]);
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The member that says it leads in the highest term, if any does.
    pub fn try_leader(&self) -> Option<String> {
        let status = self.status();
        let leaders = status.iter().filter(|row| row["role"] == "leader");
        let newest = leaders.max_by_key(|row| row["term"].as_u64());
        newest.and_then(|row| row["name"].as_str()).map(String::from)
    }

    /// The leader, which is waited for.
    pub fn leader(&self) -> String {
        self.eventually("a leader", || self.try_leader())
    }

    /// Whether all three members name the same leader.
    pub fn agreed_leader(&self) -> Option<()> {
        let status = self.status();
        let first = status.first()?["leader"].clone();
        let agreed = status.len() == 3 && status.iter().all(|row| row["leader"] == first) && first != "none";
        (agreed && first.is_string()).then_some(())
    }

    /// Waits until `what` is there.
    pub fn eventually<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = probe() {
                return found;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "waited {PATIENCE:?} for {what}; status: {:?}",
                self.status()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(10) {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if std::thread::panicking() {
            for name in ["n1", "n2", "n3"] {
                let log =
                    std::fs::read_to_string(self.folder.join(name).join("member.log")).unwrap_or_default();
                eprintln!("--- {name} said:\n{log}");
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Says whether a tool is there: if not, the test is skipped loudly, or fails where tools are required.
pub fn tool(name: &str) -> bool {
    let found =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|p| p.join(name).exists());
    if !found {
        assert!(
            std::env::var_os("SYNOD_REQUIRE_TOOLS").is_none(),
            "{name} is required here and not installed"
        );
        eprintln!("SKIPPED: {name} is not installed");
    }
    found
}

/// etcd's own client.
pub struct Etcdctl {
    endpoints: String,
}

/// etcd's own client for these endpoints, if it is installed.
pub fn etcdctl_or_skip(endpoints: &str) -> Option<Etcdctl> {
    tool("etcdctl").then(|| Etcdctl { endpoints: endpoints.into() })
}

impl Etcdctl {
    fn run(&self, arguments: &[&str], input: &str) -> (bool, String, String) {
        let mut child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints))
            .arg("--command-timeout=8s")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcdctl runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("etcdctl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    /// What it prints when it succeeds.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let (success, out, err) = self.run(arguments, "");
        assert!(success, "etcdctl {arguments:?}: {out}{err}");
        // `endpoint health` reports on standard error in this version.
        if out.is_empty() { err } else { out }
    }

    /// What it complains about when it fails.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let (success, out, err) = self.run(arguments, "");
        assert!(!success, "etcdctl {arguments:?} should have failed: {out}");
        err
    }

    /// With standard input.
    pub fn with_input(&self, arguments: &[&str], input: &str) -> String {
        let (success, out, err) = self.run(arguments, input);
        assert!(success, "etcdctl {arguments:?}: {out}{err}");
        out
    }

    /// Waits until it prints exactly this.
    pub fn eventually(&self, arguments: &[&str], expected: &str) {
        let start = Instant::now();
        loop {
            let (_, out, err) = self.run(arguments, "");
            if out == expected {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "etcdctl {arguments:?}: `{out}{err}` instead of `{expected}`"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The store's revision.
    pub fn revision(&self, key: &str) -> i64 {
        let text = self.ok(&["get", key, "-w", "json"]);
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        answer["header"]["revision"].as_i64().expect("a revision")
    }
}
