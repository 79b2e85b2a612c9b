//! Clusters on this machine, and a small client to drive them.

#![allow(dead_code, unused_macros, unreachable_pub, reason = "each test file uses its part")]

pub mod keyspaces;
pub mod processes;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use synod_server::{Config, MemberAddress, Server};
use synod_store::proto::etcdserverpb as pb;

/// Makes of each function a test for every protocol, whose name it is called with.
macro_rules! on_every_protocol {
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

/// How long anything may take on a busy machine before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Configurations of `count` members on free ports, with their data below `root`.
pub fn configs(root: &std::path::Path, count: usize) -> Vec<Config> {
    // All ports are held until all are known, so that none is given out twice.
    let listeners: Vec<TcpListener> =
        (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let port = |i: usize| listeners[i].local_addr().expect("an address").to_string();
    let members: Vec<MemberAddress> = (0..count)
        .map(|i| MemberAddress {
            name: format!("n{}", i + 1),
            peers: port(2 * i),
            clients: Some(port(2 * i + 1)),
        })
        .collect();
    members
        .iter()
        .map(|member| Config {
            name: member.name.clone(),
            members: members.clone(),
            data_dir: root.join(&member.name),
            segment_size: 1 << 20,
            fault_injection: true,
            // Patient, because tests share their machine with builds.
            election_timeout: Duration::from_millis(400),
            ..Config::default()
        })
        .collect()
}

/// A cluster in this process.
pub struct Cluster {
    pub directory: tempfile::TempDir,
    pub configs: Vec<Config>,
    pub servers: Vec<Option<Server>>,
    pub lines: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    pub fn start(count: usize) -> Cluster {
        Cluster::of("raft", count)
    }

    /// A cluster that runs this protocol.
    pub fn of(protocol: &str, count: usize) -> Cluster {
        let mut cluster = Cluster::stopped(count);
        cluster.configs.iter_mut().for_each(|config| config.protocol = protocol.to_owned());
        (0..count).for_each(|i| cluster.up(i));
        cluster
    }

    /// A cluster of which no member runs yet.
    pub fn stopped(count: usize) -> Cluster {
        let directory = tempfile::tempdir().expect("a directory");
        let configs = configs(directory.path(), count);
        let servers = configs.iter().map(|_| None).collect();
        Cluster { directory, configs, servers, lines: Arc::default() }
    }

    pub fn up(&mut self, i: usize) {
        self.try_up(i).expect("the member starts");
    }

    pub fn try_up(&mut self, i: usize) -> Result<(), synod_server::Error> {
        let (lines, name) = (Arc::clone(&self.lines), self.configs[i].name.clone());
        let log =
            move |line: &str| lines.lock().expect("no test panics here").push(format!("{name}: {line}"));
        self.servers[i] = Some(Server::start_with_log(self.configs[i].clone(), log)?);
        Ok(())
    }

    pub fn down(&mut self, i: usize) {
        self.servers[i].take().expect("it runs").stop().expect("it stops in order");
    }

    pub fn endpoint(&self, i: usize) -> String {
        self.configs[i].client_address().to_owned()
    }

    pub fn said(&self, text: &str) -> bool {
        self.lines.lock().expect("no test panics here").iter().any(|line| line.contains(text))
    }

    /// Waits until the running members agree on a leader, one of them.
    pub fn leader(&self) -> usize {
        let running: Vec<usize> = (0..self.servers.len()).filter(|i| self.servers[*i].is_some()).collect();
        let name = until("a leader is known", || {
            let names: Vec<String> = running.iter().filter_map(|i| leader_name(&self.endpoint(*i))).collect();
            let first = names.first()?.clone();
            let alive = running.iter().any(|i| self.configs[*i].name == first);
            (names.len() == running.len() && names.iter().all(|name| *name == first) && alive)
                .then_some(first)
        });
        self.configs.iter().position(|config| config.name == name).expect("a member")
    }
}

pub fn leader_name(endpoint: &str) -> Option<String> {
    let (_, body) = http(endpoint, "GET /status HTTP/1.0\r\n\r\n")?;
    let status: serde_json::Value = serde_json::from_str(&body).ok()?;
    status["leader"].as_str().map(str::to_owned)
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?}, but not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One exchange of HTTP/1: the status line's code, and the body.
pub fn http(endpoint: &str, request: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(endpoint).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let code = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((code, body))
}

pub fn post_fault(endpoint: &str, body: &str) -> (u16, String) {
    let request = format!("POST /fault HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    http(endpoint, &request).expect("an answer")
}

/// A gRPC status other than success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: u32,
    pub message: String,
}

pub type Answer<T> = Result<T, Status>;

/// One unary call, on a connection of its own.
pub fn call<Request: Message, Response: Message + Default>(
    endpoint: &str,
    method: &str,
    request: &Request,
    wait: Duration,
) -> Answer<Response> {
    let mut framed = BytesMut::new();
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&(request.encoded_len() as u32).to_be_bytes());
    request.encode(&mut framed).expect("room");
    let message = raw_call(endpoint, method, framed.freeze(), wait)?;
    Ok(Response::decode(message).expect("a response"))
}

/// A call with a body as it is: the response's message, or the status.
pub fn raw_call(endpoint: &str, method: &str, body: Bytes, wait: Duration) -> Answer<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let unreachable = |why: String| Status { code: 14, message: format!("unreachable: {why}") };
    let address: SocketAddr = endpoint.parse().expect("an address");
    runtime.block_on(async {
        match tokio::time::timeout(wait, exchange(address, method, body, wait)).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(Status { code: 4, message: "the client's time is up".into() }),
        }
    })
}

async fn exchange(
    address: SocketAddr,
    method: &str,
    body: Bytes,
    wait: Duration,
) -> Result<Answer<Bytes>, Box<dyn std::error::Error>> {
    let (client, connection) = h2::client::handshake(tokio::net::TcpStream::connect(address).await?).await?;
    tokio::spawn(connection);
    let head = http::Request::post(format!("http://{address}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{}m", wait.as_millis()))
        .body(())?;
    let (response, mut stream) = client.ready().await?.send_request(head, false)?;
    // A refusal may come before the body has been taken.
    let _ = stream.send_data(body, true);
    let response = response.await?;
    let mut trailers = response.headers().clone();
    let mut received = BytesMut::new();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
    }
    if let Some(more) = body.trailers().await? {
        trailers.extend(more);
    }
    let text =
        |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    match text("grpc-status").parse()? {
        0 => {
            received.advance(5);
            Ok(Ok(received.freeze()))
        }
        code => Ok(Err(Status { code, message: text("grpc-message") })),
    }
}

const CALL: Duration = Duration::from_secs(10);

pub fn put(endpoint: &str, key: &str, value: &str) -> Answer<pb::PutResponse> {
    let request =
        pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    call(endpoint, "/etcdserverpb.KV/Put", &request, CALL)
}

/// Puts until it is done: around elections a refusal is an answer too.
pub fn put_surely(endpoint: &str, key: &str, value: &str) {
    until("a put is accepted", || put(endpoint, key, value).ok());
}

pub fn range(endpoint: &str, request: &pb::RangeRequest) -> Answer<pb::RangeResponse> {
    call(endpoint, "/etcdserverpb.KV/Range", request, CALL)
}

pub fn get(endpoint: &str, key: &str) -> Answer<Option<String>> {
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let response = range(endpoint, &request)?;
    Ok(response.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}

pub fn get_surely(endpoint: &str, key: &str) -> Option<String> {
    until("a get is answered", || get(endpoint, key).ok())
}
