//! Three members that only seem to run, and answer their HTTP API as real ones would: two keyspaces, open transactions,
//! sagas. n1 leads. Links can be cut, and then what one side writes the other does not see.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use synod_lab::{LiveAction, LiveCluster, LiveDescription, LiveNode, LiveVerb};
use tokio::sync::broadcast;

const MEMBERS: usize = 3;

/// The cluster. Its threads end with the test's process.
pub(crate) struct Fake {
    events: broadcast::Sender<Arc<str>>,
    ports: Vec<u16>,
    world: Mutex<World>,
}

#[derive(Default)]
struct World {
    spaces: BTreeMap<String, String>,
    /// What each member shows, and of how many writes it knows.
    shown: [BTreeMap<String, String>; MEMBERS],
    seen: [u64; MEMBERS],
    writes: u64,
    cuts: BTreeSet<(usize, usize)>,
    doubt: bool,
    paused: bool,
    cancelled: bool,
    /// Every request: member, method and path.
    heard: Vec<String>,
    /// Members that take requests and never answer.
    mute: BTreeSet<usize>,
    /// Members that hang up as soon as they have heard what is asked.
    hanging_up: BTreeSet<usize>,
}

/// What one member answers.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

impl Reply {
    fn ok(body: Value) -> Reply {
        Reply { status: 200, headers: Vec::new(), body }
    }

    fn refused(status: u16, code: &str, message: &str) -> Reply {
        Reply { status, headers: Vec::new(), body: json!({"error": {"code": code, "message": message}}) }
    }
}

impl Fake {
    pub(crate) fn start() -> Arc<Fake> {
        let listeners: Vec<TcpListener> =
            (0..MEMBERS).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
        let ports = listeners.iter().map(|one| one.local_addr().expect("an address").port()).collect();
        let spaces = [("bank", "linearizable"), ("feed", "causal")];
        let world = World {
            spaces: spaces.map(|(name, model)| (name.to_owned(), model.to_owned())).into(),
            doubt: true,
            paused: true,
            ..World::default()
        };
        let fake = Arc::new(Fake { events: broadcast::channel(64).0, ports, world: Mutex::new(world) });
        for (member, listener) in listeners.into_iter().enumerate() {
            let fake = Arc::clone(&fake);
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let fake = Arc::clone(&fake);
                    std::thread::spawn(move || fake.serve(member, stream));
                }
            });
        }
        fake
    }

    /// Lets the ring have something to draw.
    pub(crate) fn introduce(&self) {
        while self.events.receiver_count() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        for i in 1..=MEMBERS {
            let role = if i == 1 { "leader" } else { "follower" };
            let state = json!({"up": true, "paused": false, "role": role, "epoch": 1, "voted": "n1", "leader": "n1",
                "last": 1, "lastEpoch": 1, "durable": 1, "committed": 1, "applied": 1, "deadline": null,
                "deadlineFrom": 0, "log": [[1, 1, "noop"]], "fields": []});
            self.say(json!({"t": 1_000_000_000u64, "k": "state", "n": format!("n{i}"), "s": state}));
        }
    }

    /// Lets something happen in the live stream.
    pub(crate) fn say(&self, event: Value) {
        self.events.send(Arc::from(event.to_string())).expect("the laboratory listens");
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.world().heard.clone()
    }

    pub(crate) fn set_mute(&self, member: usize, is_mute: bool) {
        let mut world = self.world();
        if is_mute {
            world.mute.insert(member)
        } else {
            world.mute.remove(&member)
        };
    }

    pub(crate) fn hang_up(&self, member: usize) {
        self.world().hanging_up.insert(member);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }

    fn serve(&self, member: usize, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().expect("the same stream"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a request");
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
        let (mut length, mut session) = (0, None);
        loop {
            let mut header = String::new();
            lines.read_line(&mut header).expect("a header");
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().expect("a length"),
                "synod-session" => session = value.strip_prefix("seen-").and_then(|n| n.parse().ok()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body).expect("the body");
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if self.world().mute.contains(&member) {
            std::thread::sleep(Duration::from_secs(30));
            return;
        }
        if self.world().hanging_up.contains(&member) {
            self.world().heard.push(format!("n{} {method} {path}", member + 1));
            return;
        }
        let reply = self.answer(member, &method, &path, &body, session);
        let mut text = format!("HTTP/1.0 {} X\r\ncontent-type: application/json\r\n", reply.status);
        for (name, value) in reply.headers {
            text += &format!("{name}: {value}\r\n");
        }
        // Whoever asked may have gone.
        let _ = stream.write_all(format!("{text}\r\n{}", reply.body).as_bytes());
    }

    fn answer(&self, member: usize, method: &str, path: &str, body: &Value, session: Option<u64>) -> Reply {
        let mut world = self.world();
        world.heard.push(format!("n{} {method} {path}", member + 1));
        let (plain, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = plain.trim_start_matches("/v1/").split('/').collect();
        if matches!(parts[0], "transactions" | "sagas") && member != 0 {
            let place = format!("http://127.0.0.1:{}{path}", self.ports[0]);
            return Reply { status: 307, headers: vec![("location", place)], body: Value::Null };
        }
        match (method, parts.as_slice()) {
            ("GET", ["keyspaces"]) => {
                let shown = world.spaces.iter().enumerate();
                let shown: Vec<Value> = shown
                    .map(|(id, (name, model))| json!({"name": name, "id": id, "model": model}))
                    .collect();
                Reply::ok(json!({"keyspaces": shown}))
            }
            ("GET", ["keyspaces", name]) => Reply::ok(
                json!({"name": name, "id": 1, "model": world.spaces[*name], "members": ["n1", "n2", "n3"]}),
            ),
            ("PUT", ["keyspaces", name]) => {
                let model = body["model"].as_str().expect("a model").to_owned();
                match world.spaces.get(*name) {
                    Some(other) if *other != model => {
                        Reply::refused(409, "keyspace-exists", &format!("`{name}` is there, and is {other}"))
                    }
                    _ => {
                        world.spaces.insert((*name).to_owned(), model);
                        Reply { status: 201, ..Reply::ok(json!({"name": name})) }
                    }
                }
            }
            (_, ["keyspaces", space, "keys", key]) => {
                let weak = world.spaces[*space] == "causal";
                world.keys(member, method, &format!("{space}/{key}"), body, (weak, query, session))
            }
            ("GET", ["transactions"]) => Reply::ok(json!({"transactions": world.transactions()})),
            ("POST", ["transactions", _, "resolve"]) => world.resolve(body),
            ("GET", ["sagas"]) => Reply::ok(json!({"sagas": world.sagas()})),
            ("POST", ["sagas", "s2", "steps", "approve", "resume"]) => {
                world.paused = false;
                Reply::ok(json!({}))
            }
            ("POST", ["sagas", "s1", "cancel"]) => {
                world.cancelled = true;
                Reply::ok(json!({}))
            }
            _ => Reply::refused(404, "no-such-path", &format!("there is no {method} {path}")),
        }
    }
}

impl World {
    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    fn keys(
        &mut self,
        at: usize,
        method: &str,
        key: &str,
        body: &Value,
        (weak, query, session): (bool, &str, Option<u64>),
    ) -> Reply {
        let reached: Vec<usize> =
            (0..MEMBERS).filter(|other| *other == at || !self.is_cut(at, *other)).collect();
        if !weak && reached.len() * 2 <= MEMBERS {
            return Reply::refused(
                503,
                "no-leader",
                "no leader is known, so nothing was done: ask another member",
            );
        }
        if method != "GET" {
            self.writes += 1;
            for other in reached {
                match body["value"].as_str() {
                    Some(value) => self.shown[other].insert(key.to_owned(), value.to_owned()),
                    None => self.shown[other].remove(key),
                };
                self.seen[other] = self.writes;
            }
            return self.with_session(at, json!({"key": key}));
        }
        let missing = session.unwrap_or_default().saturating_sub(self.seen[at]);
        if missing > 0 && !query.contains("consistency=eventual") {
            let why = format!(
                "this member has not seen {missing} of the updates that the session has: ask another"
            );
            return Reply::refused(503, "behind", &why);
        }
        self.with_session(at, json!({"key": key, "value": self.shown[at].get(key)}))
    }

    fn with_session(&self, at: usize, body: Value) -> Reply {
        Reply { status: 200, headers: vec![("Synod-Session", format!("seen-{}", self.seen[at]))], body }
    }

    fn transactions(&self) -> Vec<Value> {
        let open = json!({"id": "n5.2.9", "state": "preparing", "role": "coordinator", "participants": ["bank", "shop"],
            "waits-for": ["shop"], "locks": [{"participant": "bank", "key": "a"}], "age-ms": 120, "in-doubt": false});
        let doubt = json!({"id": "n7.1.3", "state": "prepared", "role": "participant", "participants": ["bank"],
            "waits-for": [], "locks": [{"participant": "bank", "key": "alice"}, {"participant": "bank", "key": "bob"}],
            "age-ms": 61_500, "in-doubt": true});
        if self.doubt { vec![doubt, open] } else { vec![open] }
    }

    fn resolve(&mut self, body: &Value) -> Reply {
        let wanted =
            json!({"participant": "bank", "decision": "abort", "i-know-that-this-can-break-atomicity": true});
        if *body != wanted || !self.doubt {
            return Reply::refused(400, "refused", &format!("this resolves nothing: {body}"));
        }
        self.doubt = false;
        Reply::ok(json!({"warning": "bank aborted n7.1.3 by hand: whoever committed it now differs"}))
    }

    fn sagas(&self) -> Vec<Value> {
        let state = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
        vec![
            json!({"saga": "s1", "name": "journey", "state": state(self.cancelled, "compensated", "running"), "steps": [
                {"name": "flight", "service": "air", "state": state(self.cancelled, "undone", "done"), "attempts": 1},
                {"name": "hotel", "service": "inn", "state": state(self.cancelled, "undone", "started"), "attempts": 3}]}),
            json!({"saga": "s2", "name": "transfer", "state": state(self.paused, "paused", "done"),
                "why": self.paused.then_some("approve waits for a person"), "steps": [
                {"name": "debit", "service": "bank", "state": "done", "attempts": 1},
                {"name": "approve", "service": "desk", "state": state(self.paused, "started", "done"), "attempts": 0},
                {"name": "credit", "service": "bank2", "state": state(self.paused, "pending", "done"), "attempts": 0}]}),
            json!({"saga": "s3", "name": "transfer", "state": "compensating", "why": "credit was refused: there is no account b", "steps": [
                {"name": "debit", "service": "bank", "state": "undoing", "attempts": 1},
                {"name": "credit", "service": "bank2", "state": "refused", "attempts": 1}]}),
        ]
    }
}

impl LiveCluster for Fake {
    fn describe(&self) -> LiveDescription {
        let node = |(i, port): (usize, &u16)| LiveNode {
            name: format!("n{}", i + 1),
            pid: Some(4001 + i as u32),
            stopped: false,
            client: format!("127.0.0.1:{port}"),
            peer: "127.0.0.1:1".into(),
            data: "data".into(),
        };
        LiveDescription {
            protocol: "raft".into(),
            nodes: self.ports.iter().enumerate().map(node).collect(),
            actions: vec![LiveVerb::Kill, LiveVerb::Start, LiveVerb::Cut, LiveVerb::Heal],
            note: None,
            t: 2_000_000_000,
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.events.subscribe()
    }

    fn act(&self, action: &LiveAction) -> Result<(), String> {
        let place = |name: &Option<String>| {
            name.as_ref().and_then(|name| name.trim_start_matches('n').parse::<usize>().ok()).map(|n| n - 1)
        };
        let mut world = self.world();
        match (action.verb, place(&action.node), place(&action.peer)) {
            (LiveVerb::Cut, Some(a), Some(b)) => drop(world.cuts.insert((a.min(b), a.max(b)))),
            (LiveVerb::Heal, ..) => {
                world.cuts.clear();
                // Whoever has seen most has seen all, in these tests.
                let most = (0..MEMBERS).max_by_key(|member| world.seen[*member]).expect("three");
                let (shown, seen) = (world.shown[most].clone(), world.seen[most]);
                for member in 0..MEMBERS {
                    (world.shown[member], world.seen[member]) = (shown.clone(), seen);
                }
            }
            _ => return Err("this is not done here".into()),
        }
        let name = |i: usize| format!("n{}", i + 1);
        let both = world.cuts.iter().flat_map(|(a, b)| [[name(*a), name(*b)], [name(*b), name(*a)]]);
        let cuts: Vec<_> = both.collect();
        drop(world);
        self.say(json!({"t": 3_000_000_000u64, "k": "fault", "what": "cut", "text": "links", "cuts": cuts}));
        Ok(())
    }
}
