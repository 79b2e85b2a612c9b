//! Members that come and go while clients write: processes of their own, small segments, so that the
//! log is cut and new members are sent snapshots.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes of each function a test for the protocols that it is run on: the one place to name another.
macro_rules! on_protocols_with_changes {
    ($($test:ident;)*) => {
        $(mod $test {
            #[test]
            fn raft() {
                super::$test("raft");
            }
            #[test]
            fn multi_paxos() {
                super::$test("multi-paxos");
            }
            #[test]
            fn zab() {
                super::$test("zab");
            }
            #[test]
            fn viewstamped() {
                super::$test("viewstamped");
            }
        })*
    };
}

on_protocols_with_changes! {
    a_cluster_grows_from_one_to_five_while_clients_write_and_lets_a_member_go;
    a_dead_member_is_replaced_and_all_are_restarted_one_by_one_while_clients_write;
    etcdctl_changes_the_members_and_moves_the_leader;
}

/// A cluster of processes.
struct Cluster {
    protocol: String,
    folder: PathBuf,
    founders: Vec<String>,
    joined: Vec<String>,
    running: BTreeMap<String, Child>,
    /// The addresses for clients of all who were ever started.
    clients: Arc<Mutex<Vec<String>>>,
}

/// Two addresses, for peers and for clients.
fn addresses() -> (String, String) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [peers, clients] = listeners.map(|listener| listener.local_addr().expect("an address").to_string());
    (peers, clients)
}

impl Cluster {
    fn start(protocol: &str, name: &str, founders: u64) -> Cluster {
        let folder = std::env::temp_dir().join(format!("synod-{name}-{protocol}-{}", std::process::id()));
        let mut cluster = Cluster {
            protocol: protocol.to_owned(),
            folder,
            founders: Vec::new(),
            joined: Vec::new(),
            running: BTreeMap::new(),
            clients: Arc::default(),
        };
        for i in 1..=founders {
            let (peers, clients) = addresses();
            cluster.founders.push(format!("n{i}={peers},{clients}"));
            cluster.clients.lock().expect("no panic").push(clients);
        }
        (1..=founders).for_each(|i| cluster.up(&format!("n{i}")));
        cluster.eventually("a leader", |cluster| cluster.leader());
        cluster
    }

    fn up(&mut self, name: &str) {
        let data = self.folder.join(name);
        std::fs::create_dir_all(&data).expect("a folder");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(name)).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
        command.args(["serve", "--segment-size", "64KiB", "--election-timeout", "400ms", "--name", name]);
        command.args(["--protocol", &self.protocol]);
        command.arg("--data-dir").arg(data.join("data"));
        for (option, members) in [("--member", &self.founders), ("--join", &self.joined)] {
            for member in members {
                command.args([option, member]);
            }
        }
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("it starts");
        self.running.insert(name.to_owned(), child);
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("log.txt")
    }

    fn said(&self, name: &str, text: &str) -> bool {
        std::fs::read_to_string(self.log(name)).unwrap_or_default().contains(text)
    }

    fn signal(&mut self, name: &str, signal: &str) {
        let mut child = self.running.remove(name).expect("it runs");
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
        child.wait().expect("it ends");
    }

    fn endpoints(&self) -> String {
        self.clients.lock().expect("no panic").join(",")
    }

    /// Runs `synod` against the cluster: exit code, standard output, standard error.
    fn synod(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_synod"))
            .args(arguments)
            .env("SYNOD_ENDPOINTS", self.endpoints())
            .output()
            .expect("synod runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
    }

    fn ok(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.synod(arguments);
        assert_eq!(code, 0, "synod {arguments:?}: {out}{err}");
        serde_json::from_str(&out).unwrap_or_default()
    }

    fn status(&self) -> Vec<Value> {
        let (_, out, _) = self.synod(&["status", "--json", "--timeout", "1s"]);
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn leader(&self) -> Option<String> {
        let leads = |row: &&Value| row["role"] == "leader";
        self.status().iter().find(leads).and_then(|row| row["name"].as_str()).map(str::to_owned)
    }

    fn members(&self) -> Vec<(String, String)> {
        let said = self.ok(&["member", "list", "--json"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let members = said["members"].as_array().expect("a list");
        members.iter().map(|member| (text(&member["name"]), text(&member["part"]))).collect()
    }

    /// Adds a member, starts it, and waits until it votes.
    fn grow(&mut self) -> String {
        let (peers, clients) = addresses();
        let said = self.ok(&["member", "add", &peers, "--clients", &clients, "--json"]);
        let name = said["added"].as_str().expect("a name").to_owned();
        self.joined.push(format!("{name}={peers},{clients}"));
        self.up(&name);
        let voter = (name.clone(), "voter".to_owned());
        self.eventually("the new member votes", |cluster| cluster.members().contains(&voter).then_some(()));
        self.clients.lock().expect("no panic").push(clients);
        name
    }

    fn eventually<T>(&self, what: &str, mut probe: impl FnMut(&Cluster) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = probe(self) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}: {:?}", self.status());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The number of the first segment of a member's log.
    fn first_segment(&self, name: &str) -> u64 {
        let files = std::fs::read_dir(self.folder.join(name).join("data/log")).expect("a folder").flatten();
        let number = |file: std::fs::DirEntry| {
            file.file_name().to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok())
        };
        files.filter_map(number).min().expect("there are segments")
    }

    /// Every member holds everything that was acknowledged.
    fn check(&self, writer: Writer) {
        let (acknowledged, failed) = writer.stop();
        assert!(acknowledged > 20, "only {acknowledged} writes");
        assert_eq!(failed, 0, "writes failed, of {acknowledged}");
        let endpoints = self.clients.lock().expect("no panic").clone();
        for endpoint in &endpoints {
            self.eventually("everything is everywhere", |cluster| {
                let get = ["get", "--serializable", "--prefix", "w/", "--json", "--endpoints", endpoint];
                let (code, out, _) = cluster.synod(&get);
                (code == 0 && out.matches("w/").count() as u64 >= acknowledged).then_some(())
            });
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            let names: Vec<String> = self.founders.iter().chain(&self.joined).cloned().collect();
            for name in names.iter().filter_map(|member| member.split('=').next()) {
                eprintln!(
                    "--- {name} said:\n{}",
                    std::fs::read_to_string(self.log(name)).unwrap_or_default()
                );
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Puts one key after the other until it is stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: thread::JoinHandle<u64>,
}

impl Writer {
    fn start(cluster: &Cluster) -> Writer {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (asked, done, clients) =
            (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(&cluster.clients));
        let value = "v".repeat(6000);
        let thread = thread::spawn(move || {
            let mut failed = 0;
            while !asked.load(Ordering::SeqCst) {
                let key = format!("w/{:05}", done.load(Ordering::SeqCst));
                let endpoints = clients.lock().expect("no panic").join(",");
                let put = Command::new(env!("CARGO_BIN_EXE_synod"))
                    .args(["put", &key, &value, "--json"])
                    .env("SYNOD_ENDPOINTS", endpoints)
                    .output()
                    .expect("synod runs");
                if put.status.success() {
                    done.fetch_add(1, Ordering::SeqCst);
                } else {
                    eprintln!("a write failed: {}", String::from_utf8_lossy(&put.stderr));
                    failed += 1;
                }
            }
            failed
        });
        Writer { stop, acknowledged, thread }
    }

    /// Waits for this many more writes.
    fn more(&self, count: u64) {
        let until = self.acknowledged.load(Ordering::SeqCst) + count;
        let begun = Instant::now();
        while self.acknowledged.load(Ordering::SeqCst) < until {
            assert!(begun.elapsed() < PATIENCE, "nothing is written any more");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::SeqCst);
        let failed = self.thread.join().expect("no panic");
        (self.acknowledged.load(Ordering::SeqCst), failed)
    }
}

fn a_cluster_grows_from_one_to_five_while_clients_write_and_lets_a_member_go(protocol: &str) {
    let mut cluster = Cluster::start(protocol, "grow", 1);
    let writer = Writer::start(&cluster);
    // More than three segments, so that the log of the first member is cut before anybody joins.
    writer.more(60);
    cluster.eventually("the log is cut", |cluster| (cluster.first_segment("n1") > 1).then_some(()));
    for name in ["n2", "n3", "n4", "n5"] {
        assert_eq!(cluster.grow(), name, "numbers are given out in order");
        assert!(cluster.said(name, "the state was fetched from"), "{name} needs a snapshot");
        writer.more(5);
    }
    cluster.ok(&["transfer", "--to", "n3", "--json"]);
    cluster.eventually("n3 leads", |cluster| (cluster.leader()? == "n3").then_some(()));

    cluster.ok(&["member", "remove", "n1", "--json"]);
    let mut first = cluster.running.remove("n1").expect("it runs");
    let begun = Instant::now();
    let ended = loop {
        if let Some(status) = first.try_wait().expect("it can be asked") {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            let _ = first.kill();
            panic!("a member that was removed goes on");
        }
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(ended.code(), Some(5));
    assert!(cluster.said("n1", "n1 was removed from the cluster"));
    cluster.clients.lock().expect("no panic").remove(0);
    writer.more(5);
    assert_eq!(cluster.members().len(), 4);
    cluster.check(writer);
}

fn a_dead_member_is_replaced_and_all_are_restarted_one_by_one_while_clients_write(protocol: &str) {
    let mut cluster = Cluster::start(protocol, "replace", 3);
    let writer = Writer::start(&cluster);
    writer.more(30);
    cluster.signal("n3", "-KILL");
    // A change that would leave too few is refused, and so is nonsense.
    let (code, _, err) = cluster.synod(&["member", "remove", "n2"]);
    assert!(code == 1 && err.contains("too few can be reached"), "{code} {err}");
    let (code, _, err) = cluster.synod(&["member", "remove", "n9"]);
    assert!(code == 1 && err.contains("member not found"), "{code} {err}");
    let (code, _, err) = cluster.synod(&["member", "promote", "n1"]);
    assert!(code == 1 && err.contains("n1 has that part already"), "{code} {err}");
    let (code, _, err) = cluster.synod(&["transfer", "--to", "n3"]);
    assert!(code == 1 && err.contains("cannot be reached"), "{code} {err}");

    assert_eq!(cluster.grow(), "n4");
    cluster.ok(&["member", "remove", "n3", "--json"]);
    cluster.clients.lock().expect("no panic").remove(2);
    for name in ["n1", "n2", "n4"] {
        // The one that leads hands over first, so that nobody has to wait for an election. On a
        // slow disk an heir may need longer than the election timeout that a transfer is given.
        cluster.eventually("another leads", |cluster| {
            let leads = cluster.leader()? == name;
            (!leads || cluster.synod(&["transfer", "--json"]).0 == 0).then_some(())
        });
        cluster.signal(name, "-TERM");
        writer.more(5);
        cluster.up(name);
        cluster.eventually("it is back", |cluster| {
            let status = cluster.status();
            let revisions: Vec<_> = status.iter().filter_map(|row| row["revision"].as_i64()).collect();
            let close = revisions.iter().max()? - revisions.iter().min()? < 20;
            (revisions.len() == 3 && close).then_some(())
        });
    }
    assert!(cluster.first_segment("n4") > 1 || cluster.said("n4", "the state was fetched from"));
    cluster.check(writer);
}

fn etcdctl_changes_the_members_and_moves_the_leader(protocol: &str) {
    let mut cluster = Cluster::start(protocol, "etcdctl", 1);
    let Some(etcdctl) = support::etcdctl_or_skip(&cluster.endpoints()) else { return };
    let (peers, clients) = addresses();
    let added = etcdctl.ok(&["member", "add", "n2", "--learner", &format!("--peer-urls=http://{peers}")]);
    assert!(added.contains("Member") && added.contains("added to cluster"), "{added}");
    let listed = etcdctl.ok(&["member", "list"]);
    assert!(listed.contains("unstarted") && listed.contains("true"), "{listed}");
    cluster.joined.push(format!("n2={peers},{clients}"));
    cluster.up("n2");
    cluster.eventually("n2 is met", |_| etcdctl.ok(&["member", "list"]).contains("n2").then_some(()));
    let begun = Instant::now();
    while !cluster.members().contains(&("n2".to_owned(), "voter".to_owned())) {
        assert!(begun.elapsed() < PATIENCE, "n2 is never let vote");
        let _ = cluster.synod(&["member", "promote", "2"]);
    }
    cluster.clients.lock().expect("no panic").push(clients);
    let both = support::etcdctl_or_skip(&cluster.endpoints()).expect("it was there a moment ago");
    let moved = both.ok(&["move-leader", "2"]);
    assert!(moved.contains("Leadership transferred"), "{moved}");
    cluster.eventually("n2 leads", |cluster| (cluster.leader()? == "n2").then_some(()));
    let refused = both.fails(&["member", "update", "2", "--peer-urls=http://127.0.0.1:1"]);
    assert!(refused.contains("addresses cannot be changed"), "{refused}");
    let removed = both.ok(&["member", "remove", "1"]);
    assert!(removed.contains("removed from cluster"), "{removed}");
}
