//! Puts per second, latency and processor time per put of a ZooKeeper ensemble, in the rows of `synod bench`:
//! 256 bytes under names of 8, drawn from 10,000 nodes.
//!
//! `cargo run --release -- 127.0.0.1:2181,127.0.0.1:2182,127.0.0.1:2183 [SECONDS [PID,PID,PID]]`

mod wire;

use std::collections::VecDeque;
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Clients, and requests outstanding on each connection.
const ROWS: [(usize, usize); 4] = [(1, 1), (64, 1), (256, 1), (64, 16)];
const NODES: u64 = 10_000;
const VALUE: [u8; 256] = [b'v'; 256];
const WARM_UP: Duration = Duration::from_secs(1);
/// Creations on their way at a time.
const CREATING: u64 = 200;
/// Of `/proc/PID/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "{error}\nusage: synod-bench-zookeeper HOST:PORT,HOST:PORT,... [SECONDS [PID,PID,...]]"
            );
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> io::Result<()> {
    let bad = |what: &str| io::Error::other(format!("{what} is not understood"));
    let servers: Vec<String> = arguments
        .first()
        .ok_or_else(|| io::Error::other("no servers are named"))?
        .split(',')
        .map(String::from)
        .collect();
    let span = arguments.get(1).map_or(Ok(3), |text| text.parse().map_err(|_| bad(text)))?;
    let pids = arguments.get(2).map_or("", String::as_str);
    let pids: Vec<u32> = pids
        .split(',')
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|_| bad(text)))
        .collect::<Result<_, _>>()?;
    make_nodes(&servers[0])?;
    println!(
        "{:>8} {:>12} {:>10} {:>10} {:>10} {:>10}",
        "clients", "outstanding", "puts/s", "p50 ms", "p99 ms", "µs/put"
    );
    for (clients, outstanding) in ROWS {
        row(&servers, clients, outstanding, Duration::from_secs(span), &pids)?;
    }
    Ok(())
}

fn session(server: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    wire::connect(&mut stream)?;
    Ok(stream)
}

fn path(number: u64) -> String {
    format!("/{number:07}")
}

fn make_nodes(server: &str) -> io::Result<()> {
    let mut stream = session(server)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    for first in (0..NODES).step_by(CREATING as usize) {
        let batch = first..(first + CREATING).min(NODES);
        for number in batch.clone() {
            stream.write_all(&wire::create(number as i32 + 1, &path(number), &VALUE))?;
        }
        batch.into_iter().try_for_each(|_| wire::reply(&mut answers))?;
    }
    Ok(())
}

fn row(
    servers: &[String],
    clients: usize,
    outstanding: usize,
    span: Duration,
    pids: &[u32],
) -> io::Result<()> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let (server, phase) = (servers[client % servers.len()].clone(), Arc::clone(&phase));
            std::thread::spawn(move || drive(&server, client as u64, outstanding, &phase))
        })
        .collect();
    std::thread::sleep(WARM_UP);
    let (begun, processor) = (Instant::now(), processor_seconds(pids)?);
    phase.store(MEASURING, Ordering::Relaxed);
    std::thread::sleep(span);
    phase.store(OVER, Ordering::Relaxed);
    let (took, processor) = (begun.elapsed(), processor_seconds(pids)? - processor);
    let mut latencies: Vec<Duration> = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().map_err(|_| io::Error::other("a client failed"))??);
    }
    latencies.sort_unstable();
    let puts = latencies.len();
    if puts == 0 {
        return Err(io::Error::other("no put succeeded"));
    }
    let ms = |percent: usize| latencies[(puts * percent / 100).min(puts - 1)].as_secs_f64() * 1e3;
    println!(
        "{clients:>8} {outstanding:>12} {:>10.0} {:>10.1} {:>10.1} {:>10.0}",
        puts as f64 / took.as_secs_f64(),
        ms(50),
        ms(99),
        processor * 1e6 / puts as f64,
    );
    Ok(())
}

/// One connection: keeps so many requests under way, and returns how long those that were answered while it counted took.
fn drive(server: &str, client: u64, outstanding: usize, phase: &AtomicU8) -> io::Result<Vec<Duration>> {
    let mut stream = session(server)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let (mut sent, mut xid, mut latencies) = (VecDeque::new(), 0, Vec::new());
    // A linear congruential generator is enough to spread puts over nodes.
    let mut random = client.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while phase.load(Ordering::Relaxed) != OVER {
        while sent.len() < outstanding {
            xid += 1;
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sent.push_back(Instant::now());
            stream.write_all(&wire::set_data(xid, &path((random >> 33) % NODES), &VALUE))?;
        }
        wire::reply(&mut answers)?;
        let began: Instant = sent.pop_front().expect("one was sent");
        if phase.load(Ordering::Relaxed) == MEASURING {
            latencies.push(began.elapsed());
        }
    }
    Ok(latencies)
}

/// Processor time of these processes until now.
fn processor_seconds(pids: &[u32]) -> io::Result<f64> {
    let mut ticks = 0_u64;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command's name may hold spaces; what is counted stands behind its closing bracket.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let field = |i: usize| fields.get(i).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        ticks += field(11) + field(12);
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}
