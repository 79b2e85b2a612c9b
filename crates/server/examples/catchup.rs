//! How long a blank member takes to catch up with a large state while clients write, and what they notice of it:
//!
//! ```text
//! cargo run --release -p synod-server --example catchup -- [MEGABYTES] [WRITES-A-SECOND]
//! ```
//!
//! Two founding members of three, each a process of its own on this machine's disk, take in so many megabytes (1000)
//! of values of 64 KiB. Then clients write 1 KiB at an even rate (200), which does not wait for answers: latencies count
//! from when a write was due. After a while the third member starts with an empty directory, and is sent the state. The
//! disk needs about five times the state; everything is removed at the end.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use synod_server::{Config, MemberAddress, Server};
use synod_store::proto::etcdserverpb::PutRequest;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, sleep_until, timeout};

type Done<T> = Result<T, Box<dyn Error>>;

const VALUE_BYTES: usize = 64 << 10;
const WRITE_BYTES: usize = 1 << 10;
/// Calls under way while the state is filled in.
const FILLERS: usize = 8;
/// How long writes are measured before and after the third member catches up.
const QUIET: Duration = Duration::from_secs(15);
/// After this long the third member is given up.
const PATIENCE: Duration = Duration::from_secs(900);
const CALL: Duration = Duration::from_secs(30);

fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, name, data_dir, members @ ..] = &arguments[..]
        && command == "member"
    {
        return member(name, data_dir, members);
    }
    let number = |i: usize, default: u64| arguments.get(i).map_or(Ok(default), |text| text.parse());
    let (megabytes, rate) = (number(0, 1000)?, number(1, 200)?);
    let directory = std::env::current_dir()?.join(format!("catchup-{}.tmp", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = LocalSet::new().block_on(&runtime, measure(&directory, megabytes, rate));
    std::fs::remove_dir_all(&directory)?;
    result
}

fn member(name: &str, data_dir: &str, members: &[String]) -> Done<()> {
    let members =
        members.iter().map(|member| member.parse()).collect::<Result<Vec<MemberAddress>, String>>()?;
    let config = Config { name: name.to_owned(), data_dir: data_dir.into(), members, ..Config::default() };
    let server = Server::start(config)?;
    // Until whoever started it goes away.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(server.stop()?)
}

async fn measure(directory: &Path, megabytes: u64, rate: u64) -> Done<()> {
    let mut cluster = Members::new(directory)?;
    cluster.start(0)?;
    cluster.start(1)?;
    let leader = loop {
        match status(&cluster.clients[0]).and_then(|status| status["leader"].as_str().map(str::to_owned)) {
            Some(leader) => break usize::from(leader == "n2"),
            None => sleep(Duration::from_millis(50)).await,
        }
    };
    let client = connect(&cluster.clients[leader]).await?;
    let begun = Instant::now();
    fill(&client, megabytes * 1_000_000 / VALUE_BYTES as u64).await?;
    println!("{megabytes} MB were written in {:.1} s", begun.elapsed().as_secs_f64());
    // Until what was put off is done.
    sleep(Duration::from_secs(5)).await;
    let at_rest = cluster.memory_mb();

    let before = write(&client, rate, QUIET, || false).await?;
    cluster.start(2)?;
    let begun = Instant::now();
    let caught_up = Arc::new(OnceLock::new());
    // A thread of its own: asking must not hold the writes up.
    let (told, addresses) =
        (Arc::clone(&caught_up), [cluster.clients[2].clone(), cluster.clients[leader].clone()]);
    std::thread::spawn(move || {
        while begun.elapsed() < PATIENCE {
            let applied = |address: &String| status(address)?["applied"].as_u64();
            // What was written in a fifth of a second may be on its way at any moment.
            if applied(&addresses[0])
                .zip(applied(&addresses[1]))
                .is_some_and(|(its, all)| its + rate / 5 + 1 >= all)
            {
                let _ = told.set(begun.elapsed());
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let during = write(&client, rate, PATIENCE, || caught_up.get().is_some()).await?;
    let took = caught_up.get().ok_or("the third member has not caught up in time")?;
    let peak = cluster.memory_mb();
    let after = write(&client, rate, QUIET, || false).await?;
    println!("a blank member has caught up after {:.1} s", took.as_secs_f64());
    println!(
        "memory at its highest, MB: n1 and n2 {:?} when the state was in, all three {:?} at the end",
        &at_rest[..2],
        peak
    );
    println!(
        "\n| {rate} writes of 1 KiB a second | count | p50 ms | p99 ms | highest ms |\n|---|---:|---:|---:|---:|"
    );
    for (when, latencies) in [("before", before), ("while it catches up", during), ("after", after)] {
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!("| {when} | {} | {:.1} | {:.1} | {:.1} |", latencies.len(), at(0.5), at(0.99), at(1.0));
    }
    Ok(())
}

type Client = h2::client::SendRequest<Bytes>;

async fn connect(address: &str) -> Done<Client> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::task::spawn_local(connection);
    Ok(client)
}

async fn put(client: Client, key: String, value: Bytes) -> Result<(), String> {
    let request = PutRequest { key: key.into(), value, ..Default::default() };
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(request.encoded_len() as u32);
    request.encode(&mut body).map_err(|error| error.to_string())?;
    let head = http::Request::post("http://member/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .body(())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let (response, mut stream) = client.ready().await?.send_request(head, false)?;
        stream.send_data(body.freeze(), true)?;
        let response = response.await?;
        let refused = response.headers().get("grpc-message").cloned();
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        Ok::<_, h2::Error>(refused)
    };
    match timeout(CALL, exchange).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(refused))) => Err(format!("a write was refused: {refused:?}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("a write took longer than {CALL:?}")),
    }
}

/// Values that no compression makes smaller.
fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut words = Vec::with_capacity(bytes);
    while words.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        words.extend_from_slice(&state.to_le_bytes());
    }
    words.into()
}

async fn fill(client: &Client, values: u64) -> Done<()> {
    let mut calls = JoinSet::new();
    for i in 0..values {
        if calls.len() >= FILLERS {
            calls.join_next().await.ok_or("calls are under way")???;
        }
        calls.spawn_local(put(client.clone(), format!("state/{i:08}"), noise(i, VALUE_BYTES)));
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    Ok(())
}

/// Writes at an even rate until `at_most` is over or `enough`; the latencies in ascending order.
async fn write(
    client: &Client,
    rate: u64,
    at_most: Duration,
    mut enough: impl FnMut() -> bool,
) -> Done<Vec<Duration>> {
    let mut calls = JoinSet::new();
    let begun = tokio::time::Instant::now();
    for i in 0.. {
        let due = begun + Duration::from_secs(1) * i as u32 / rate as u32;
        if due - begun > at_most || (i % rate == 0 && i > 0 && enough()) {
            break;
        }
        sleep_until(due).await;
        let call = put(client.clone(), format!("writes/{:04}", i % 1000), noise(i, WRITE_BYTES));
        calls.spawn_local(async move { call.await.map(|()| due.elapsed()) });
    }
    let mut latencies = Vec::new();
    while let Some(call) = calls.join_next().await {
        latencies.push(call??);
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// The members' processes.
struct Members {
    directory: std::path::PathBuf,
    members: Vec<String>,
    clients: Vec<String>,
    children: Vec<Option<Child>>,
}

impl Members {
    fn new(directory: &Path) -> Done<Members> {
        let ports = (0..6).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let address = |i: usize| ports[i].local_addr().map(|address| address.to_string());
        let mut members = Vec::new();
        let mut clients = Vec::new();
        for i in 0..3 {
            members.push(format!("n{}={},{}", i + 1, address(2 * i)?, address(2 * i + 1)?));
            clients.push(address(2 * i + 1)?);
        }
        Ok(Members { directory: directory.to_owned(), members, clients, children: vec![] })
    }

    fn start(&mut self, i: usize) -> Done<()> {
        let name = format!("n{}", i + 1);
        let child = Command::new(std::env::current_exe()?)
            .args(["member", &name])
            .arg(self.directory.join(&name))
            .args(&self.members)
            .stdin(Stdio::piped())
            .spawn()?;
        self.children.resize_with(i.max(self.children.len()), || None);
        self.children.push(Some(child));
        Ok(())
    }

    /// The most memory that each has had so far.
    fn memory_mb(&self) -> Vec<u64> {
        let of = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1000)
        };
        self.children.iter().flatten().map(|child| of(child).unwrap_or(0)).collect()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a member says of itself, if it answers.
fn status(address: &str) -> Option<serde_json::Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
