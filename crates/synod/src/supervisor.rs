//! The demo's members: processes of their own, started, killed and paused on request, and watched.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use synod_lab::{
    HISTORY_BYTES_MAX, LiveAction, LiveCluster, LiveDescription, LiveHistory, LiveNode, LiveVerb,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::broadcast;

/// Events kept for a page that is slow to read; a slower one misses some and is told.
const EVENTS_MAX: usize = 4096;
/// How long a member may take to say that it has started.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How the clients ask that the page can start: a few, slowly enough to be looked at, and soon tired of waiting.
const ASKING: [&str; 10] =
    ["--workload", "kv", "--clients", "3", "--rate", "9", "--for", "10s", "--timeout", "1500ms"];
/// The first client port that is tried; the next ones follow.
const CLIENT_PORT: u16 = 23791;
/// The first peer port that is tried.
const PEER_PORT: u16 = 23891;

/// Where the members listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// On ports that people can remember, if they are free.
    Usual,
    /// On any free ports.
    Any,
}

/// A running demo cluster. Cheap to clone; all clones are the same cluster.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

struct Shared {
    members: Vec<Member>,
    /// Links that are cut, as ordered pairs.
    cuts: Mutex<BTreeSet<(String, String)>>,
    /// Held while a member is told of its cuts: whoever tells it last says what holds now.
    telling: tokio::sync::Mutex<()>,
    events: broadcast::Sender<Arc<str>>,
    /// The boot clock when the demo started: the page's time zero.
    origin: u64,
    protocol: String,
    /// Where the clients that the page starts write down what they ask and hear.
    asked: PathBuf,
    /// Whether they are at it.
    asking: AtomicBool,
}

struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
    arguments: Vec<String>,
    life: Mutex<Life>,
}

/// What is known of a member's process.
#[derive(Default)]
struct Life {
    pid: Option<u32>,
    stopped: bool,
    /// It was killed, and is not gone yet.
    killed: bool,
    /// It shall be started as soon as it is gone.
    again: bool,
    /// Standard input of the process: the member stops when this end closes, whatever became of us.
    _leash: Option<tokio::process::ChildStdin>,
}

impl Supervisor {
    /// Starts `count` members of this protocol below `folder`, waits until each of them accepts clients, and passes on
    /// what happens in them.
    pub async fn start(
        folder: &Path,
        protocol: &str,
        count: u64,
        ports: Ports,
    ) -> Result<Supervisor, String> {
        Supervisor::start_named("demo", folder, protocol, count, ports).await
    }

    /// The same for one cluster of several, each of which has a name of its own.
    pub async fn start_named(
        cluster: &str,
        folder: &Path,
        protocol: &str,
        count: u64,
        ports: Ports,
    ) -> Result<Supervisor, String> {
        let supervisor = Supervisor::start_unwatched(cluster, folder, protocol, count, ports).await?;
        for i in 0..supervisor.shared.members.len() {
            tokio::spawn(supervisor.clone().watch(i));
        }
        Ok(supervisor)
    }

    /// The same, but what happens in the members is not passed on: showing it costs them time, which figures should not
    /// have in them.
    pub async fn start_unwatched(
        cluster: &str,
        folder: &Path,
        protocol: &str,
        count: u64,
        ports: Ports,
    ) -> Result<Supervisor, String> {
        let (clients, peers) = match ports {
            Ports::Usual => (
                free_ports(CLIENT_PORT..CLIENT_PORT + 90, count)?,
                free_ports(PEER_PORT..PEER_PORT + 90, count)?,
            ),
            Ports::Any => {
                let mut clients = free_ports(std::iter::repeat(0), 2 * count)?;
                let peers = clients.split_off(count as usize);
                (clients, peers)
            }
        };
        let addresses = peers.iter().zip(&clients);
        let list =
            (1..=count).zip(addresses).flat_map(|(i, (p, c))| ["--member".into(), format!("n{i}={p},{c}")]);
        let list: Vec<String> = list.collect();
        let mut members = Vec::new();
        for ((i, client), peer) in (1..=count).zip(clients).zip(peers) {
            let name = format!("n{i}");
            let data = folder.join(&name);
            fs::create_dir_all(&data).map_err(|e| format!("cannot create {}: {e}", data.display()))?;
            let folder = data.display().to_string();
            let fixed = ["serve", "--cluster", cluster, "--fault-injection", "--until-stdin-closes"];
            let mut arguments = fixed.map(String::from).to_vec();
            arguments.extend(["--protocol".into(), protocol.into()]);
            arguments.extend(["--name".into(), name.clone(), "--data-dir".into(), folder]);
            arguments.extend(list.iter().cloned());
            members.push(Member { name, client, peer, data, arguments, life: Mutex::default() });
        }
        let shared = Shared {
            members,
            cuts: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            origin: boot_clock(),
            protocol: protocol.into(),
            asked: folder.join("asked.jsonl"),
            asking: AtomicBool::new(false),
        };
        let supervisor = Supervisor { shared: Arc::new(shared) };
        for i in 0..supervisor.shared.members.len() {
            supervisor.spawn(i)?;
        }
        for member in &supervisor.shared.members {
            member.wait_until_ready().await?;
        }
        Ok(supervisor)
    }

    /// Where clients connect.
    pub fn endpoints(&self) -> Vec<String> {
        self.shared.members.iter().map(|m| m.client.to_string()).collect()
    }

    /// The members' names, in the order of [`Supervisor::endpoints`].
    pub fn names(&self) -> Vec<String> {
        self.shared.members.iter().map(|m| m.name.clone()).collect()
    }

    /// The process ids of the members that run.
    pub fn pids(&self) -> Vec<u32> {
        self.shared.members.iter().filter_map(|m| m.life().pid).collect()
    }

    /// Stops every member: politely, then by force.
    pub async fn stop(&self) {
        for member in &self.shared.members {
            // A paused process cannot hear that it shall stop.
            let _ = member.signal(rustix::process::Signal::CONT);
            let _ = member.signal(rustix::process::Signal::TERM);
        }
        for _ in 0..60 {
            if self.pids().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for member in &self.shared.members {
            let _ = member.signal(rustix::process::Signal::KILL);
        }
    }

    /// Lets clients ask, as a process of their own: `synod probe`, which records what they hear.
    fn ask(&self) -> Result<(), String> {
        if self.shared.asking.swap(true, Ordering::SeqCst) {
            return Err("clients are asking already: wait until they have done".into());
        }
        let begun = self.start_asking();
        if begun.is_err() {
            self.shared.asking.store(false, Ordering::SeqCst);
        }
        begun
    }

    fn start_asking(&self) -> Result<(), String> {
        let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
        // Who looks before the first answer finds nobody's, and not that nobody asks.
        File::create(&self.shared.asked).map_err(|e| format!("no history can be kept: {e}"))?;
        let mut child = Command::new(program)
            .arg("probe")
            .args(ASKING)
            .args(["--endpoints", &self.endpoints().join(",")])
            .arg("--out")
            .arg(&self.shared.asked)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start clients: {e}"))?;
        self.tell(json!({"k": "note", "text": "clients begin to ask"}));
        let supervisor = self.clone();
        tokio::spawn(async move {
            let _ = child.wait().await;
            supervisor.shared.asking.store(false, Ordering::SeqCst);
            supervisor.tell(json!({"k": "note", "text": "the clients have done"}));
        });
        Ok(())
    }

    fn spawn(&self, i: usize) -> Result<(), String> {
        let member = &self.shared.members[i];
        let mut life = member.life();
        if life.pid.is_some() {
            return Err(format!("{} runs already", member.name));
        }
        let log = member.data.join("member.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| format!("{}: {e}", log.display()))?;
        let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
        let mut child = Command::new(program)
            .args(&member.arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", member.name))?;
        *life = Life { pid: child.id(), _leash: child.stdin.take(), ..Life::default() };
        drop(life);
        self.tell_process(member);
        tokio::spawn(self.clone().reap(i, child));
        Ok(())
    }

    /// Waits for the end of a process, whoever caused it.
    async fn reap(self, i: usize, mut child: Child) {
        let status = child.wait().await;
        let member = &self.shared.members[i];
        let again = std::mem::take(&mut *member.life()).again;
        self.tell_process(member);
        if let Ok(status) = status {
            self.tell(
                json!({"k": "note", "n": member.name, "text": format!("{} ended: {status}", member.name)}),
            );
        }
        if again && let Err(why) = self.spawn(i) {
            self.tell(json!({"k": "note", "n": member.name, "text": why}));
        }
    }

    /// Passes a member's events on for as long as the demo lives.
    async fn watch(self, i: usize) {
        loop {
            let _ = self.pass_events_on(i).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn pass_events_on(&self, i: usize) -> std::io::Result<()> {
        let member = &self.shared.members[i];
        let mut stream = TcpStream::connect(member.client).await?;
        // HTTP/1.0, so that the stream is not chunked.
        stream.write_all(b"GET /events HTTP/1.0\r\naccept: text/event-stream\r\n\r\n").await?;
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await? {
            let Some(Ok(mut event)) = line.strip_prefix("data:").map(serde_json::from_str::<Value>) else {
                continue;
            };
            for field in ["t", "at"] {
                if let Some(t) = event[field].as_u64() {
                    event[field] = t.saturating_sub(self.shared.origin).into();
                }
            }
            if let Some(state) = event["s"].as_object_mut() {
                for field in ["deadline", "deadlineFrom"] {
                    if let Some(t) = state.get(field).and_then(Value::as_u64) {
                        state.insert(field.into(), t.saturating_sub(self.shared.origin).into());
                    }
                }
            }
            let _ = self.shared.events.send(event.to_string().into());
        }
        Ok(())
    }

    fn tell(&self, mut event: Value) {
        event["t"] = self.now().into();
        // Without a page nobody listens, which is no error.
        let _ = self.shared.events.send(event.to_string().into());
    }

    fn tell_process(&self, member: &Member) {
        let life = member.life();
        let event = json!({"k": "process", "n": member.name, "pid": life.pid, "running": life.pid.is_some(),
            "stopped": life.stopped});
        drop(life);
        self.tell(event);
    }

    fn tell_fault(&self, what: &str, a: &str, b: Option<&str>) {
        let cuts: Vec<_> = lock(&self.shared.cuts).iter().cloned().collect();
        let text = [what, a, b.unwrap_or_default()].join(" ");
        self.tell(json!({"k": "fault", "what": what, "a": a, "b": b, "text": text.trim_end(), "cuts": cuts}));
    }

    fn now(&self) -> u64 {
        boot_clock().saturating_sub(self.shared.origin)
    }

    fn position(&self, name: Option<&String>) -> Result<usize, String> {
        let name = name.ok_or("say which node")?;
        let found = self.shared.members.iter().position(|m| m.name == *name);
        found.ok_or_else(|| format!("there is no member {name}"))
    }

    /// Cuts or heals the link between two members, in both directions.
    fn set_link(&self, a: usize, b: usize, cut: bool) {
        let members = &self.shared.members;
        for (from, to) in [(a, b), (b, a)] {
            let pair = (members[from].name.clone(), members[to].name.clone());
            let mut cuts = lock(&self.shared.cuts);
            if cut {
                cuts.insert(pair)
            } else {
                cuts.remove(&pair)
            };
        }
        for (at, other) in [(a, b), (b, a)] {
            let (supervisor, other) = (self.clone(), members[other].name.clone());
            tokio::spawn(async move {
                let member = &supervisor.shared.members[at];
                let _telling = supervisor.shared.telling.lock().await;
                let cut = lock(&supervisor.shared.cuts).contains(&(member.name.clone(), other.clone()));
                let verb = if cut { "block" } else { "unblock" };
                if let Err(why) = post_fault(member.client, &json!({ verb: [other] })).await {
                    let text = format!("{} could not be told to {verb} {other}: {why}", member.name);
                    supervisor.tell(json!({"k": "note", "n": member.name, "text": text}));
                }
            });
        }
    }
}

impl LiveCluster for Supervisor {
    fn describe(&self) -> LiveDescription {
        let node = |member: &Member| {
            let life = member.life();
            LiveNode {
                name: member.name.clone(),
                pid: life.pid,
                stopped: life.stopped,
                client: member.client.to_string(),
                peer: member.peer.to_string(),
                data: member.data.display().to_string(),
            }
        };
        LiveDescription {
            protocol: self.shared.protocol.clone(),
            nodes: self.shared.members.iter().map(node).collect(),
            actions: vec![
                LiveVerb::Kill,
                LiveVerb::Stop,
                LiveVerb::Cont,
                LiveVerb::Start,
                LiveVerb::Cut,
                LiveVerb::Heal,
                LiveVerb::Ask,
            ],
            note: None,
            t: self.now(),
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.shared.events.subscribe()
    }

    fn act(&self, action: &LiveAction) -> Result<(), String> {
        use rustix::process::Signal;
        if action.verb == LiveVerb::Heal && action.node.is_none() {
            let cuts: Vec<_> = lock(&self.shared.cuts).iter().cloned().collect();
            for (from, to) in cuts {
                self.set_link(self.position(Some(&from))?, self.position(Some(&to))?, false);
            }
            self.tell_fault("heal", "", None);
            return Ok(());
        }
        if action.verb == LiveVerb::Ask {
            return self.ask();
        }
        let i = self.position(action.node.as_ref())?;
        let member = &self.shared.members[i];
        match action.verb {
            LiveVerb::Ask => self.ask(),
            LiveVerb::Kill => {
                member.signal(Signal::KILL)?;
                member.life().killed = true;
                self.tell_fault("crash", &member.name, None);
                Ok(())
            }
            LiveVerb::Start => {
                // The system takes a moment to end a process that was killed.
                let mut life = member.life();
                if life.killed && life.pid.is_some() {
                    life.again = true;
                } else {
                    drop(life);
                    self.spawn(i)?;
                }
                self.tell_fault("restart", &member.name, None);
                Ok(())
            }
            LiveVerb::Stop => {
                member.signal(Signal::STOP)?;
                member.life().stopped = true;
                self.tell_process(member);
                self.tell_fault("pause", &member.name, None);
                Ok(())
            }
            LiveVerb::Cont => {
                member.signal(Signal::CONT)?;
                member.life().stopped = false;
                self.tell_process(member);
                self.tell_fault("resume", &member.name, None);
                Ok(())
            }
            LiveVerb::Cut | LiveVerb::Heal => {
                let other = self.position(action.peer.as_ref())?;
                if other == i {
                    return Err("a link has two ends".into());
                }
                let cut = action.verb == LiveVerb::Cut;
                self.set_link(i, other, cut);
                let what = if cut { "cut" } else { "heal" };
                self.tell_fault(what, &member.name, Some(&self.shared.members[other].name));
                Ok(())
            }
        }
    }

    fn history(&self) -> Option<LiveHistory> {
        let growing = self.shared.asking.load(Ordering::SeqCst);
        let file = File::open(&self.shared.asked).ok()?;
        let mut text = Vec::new();
        file.take(HISTORY_BYTES_MAX as u64).read_to_end(&mut text).ok()?;
        Some(LiveHistory { text, growing })
    }
}

impl Member {
    fn life(&self) -> MutexGuard<'_, Life> {
        lock(&self.life)
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<(), String> {
        let pid = self.life().pid.ok_or_else(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or("the process id is out of range")?;
        rustix::process::kill_process(pid, signal).map_err(|e| format!("{}: {e}", self.name))
    }

    async fn wait_until_ready(&self) -> Result<(), String> {
        let patience = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            if TcpStream::connect(self.client).await.is_ok() {
                return Ok(());
            }
            if self.life().pid.is_none() || tokio::time::Instant::now() > patience {
                let log = self.data.join("member.log");
                let text = fs::read_to_string(&log).unwrap_or_default();
                let last = text.lines().last().unwrap_or("it said nothing");
                return Err(format!("{} did not start: {last}\n(all it said: {})", self.name, log.display()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A lock whose holder panicked still guards plain data: go on with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn post_fault(client: SocketAddr, body: &Value) -> Result<(), String> {
    let body = body.to_string();
    let request = format!(
        "POST /fault HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(client).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), exchange).await;
    let answer =
        answer.map_err(|_| "it does not answer (paused?)".to_string())?.map_err(|e| e.to_string())?;
    match answer.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(()),
        _ => Err(answer.lines().last().unwrap_or("it closed the connection").to_string()),
    }
}

/// `count` loopback addresses nobody listens on, on the first of `ports` that are free; port 0 is any.
fn free_ports(ports: impl IntoIterator<Item = u16>, count: u64) -> Result<Vec<SocketAddr>, String> {
    let free = ports.into_iter().filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    // All are held until all are found, so that none is found twice.
    let held: Vec<TcpListener> = free.take(count as usize).collect();
    if (held.len() as u64) < count {
        return Err(format!("{count} free ports are needed and were not found: stop what listens there"));
    }
    held.iter().map(|listener| listener.local_addr().map_err(|e| e.to_string())).collect()
}

/// Nanoseconds since the machine started, sleep included: the members' clock too.
fn boot_clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
