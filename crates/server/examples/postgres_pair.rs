//! What two-phase commit between two PostgreSQL servers costs, beside the same two updates without any protocol:
//! `cargo run --release -p synod-server --example postgres_pair [SECONDS]`
//!
//! Starts two servers of its own on this machine. The coordinator runs here, with a log that it syncs before it says anything. Every transfer
//! takes one unit from a random account at one server and gives it to one at the other. At the end the coordinator is killed under load,
//! and the next one finishes what it left.

#[path = "../tests/outside/coordinator.rs"]
mod coordinator;
#[path = "../tests/outside/database.rs"]
mod database;

use bytes::Bytes;
use coordinator::{Journal, Running};
use database::Server;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Seek, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_protocols::commit::{AbortReason, Decision};
use synod_protocols::{Describe, NodeId, Rng};
use synod_server::outside::{Postgres, Timing};

const ACCOUNTS: u64 = 1_000;
/// Of the coordinator's log.
const LOG_BYTES: usize = 32 << 20;
const CLIENTS: [u64; 3] = [1, 8, 32];
const COORDINATOR: NodeId = NodeId(1);
const BANKS: [(NodeId, &str); 2] = [(NodeId(1), "bank1"), (NodeId(2), "bank2")];
const UPDATE: &str = "UPDATE accounts SET balance = balance + $1 WHERE name = $2";

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    aborts: BTreeMap<String, u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(5), |seconds| seconds.parse())?;
    let length = Duration::from_secs(seconds);
    let mut servers = Vec::new();
    for (_, bank) in BANKS {
        let server = Server::start(&["max_prepared_transactions=100"]).ok_or("this needs PostgreSQL")?;
        server.create_bank(bank, &[]).await;
        let fill = format!(
            "INSERT INTO accounts SELECT 'x' || n, 1000000 FROM generate_series(0, {}) n",
            ACCOUNTS - 1
        );
        server.connect(bank).await.batch_execute(&fill).await?;
        servers.push(server);
    }
    println!("| clients | protocol | transfers/s | p50 ms | p99 ms | aborted |\n|---|---|---|---|---|---|");
    for clients in CLIENTS {
        print(clients, "none: one after the other", length, without(&servers, clients, length).await);
        print(clients, "two-phase commit", length, with(&servers, clients, length).await?);
    }
    recover(&servers).await
}

fn print(clients: u64, protocol: &str, length: Duration, mut tally: Tally) {
    tally.latencies.sort_unstable();
    let count = tally.latencies.len();
    let at = |part: usize| tally.latencies.get((count * part / 100).min(count.saturating_sub(1)));
    let millis = |part| at(part).map_or(0.0, |latency| latency.as_secs_f64() * 1e3);
    let rate = count as f64 / length.as_secs_f64();
    let aborted: u64 = tally.aborts.values().sum();
    println!("| {clients} | {protocol} | {rate:.0} | {:.1} | {:.1} | {aborted} |", millis(50), millis(99));
    for (why, count) in tally.aborts {
        eprintln!("  {count} times: {why}");
    }
}

/// Two updates, each durable on its own: nobody knows if the second is missing.
async fn without(servers: &[Server], clients: u64, length: Duration) -> Tally {
    let mut running = tokio::task::JoinSet::new();
    for client in 0..clients {
        let mut connections = Vec::new();
        for (server, (_, bank)) in servers.iter().zip(BANKS) {
            let connection = server.connect(bank).await;
            let statement = connection.prepare(UPDATE).await.expect("a statement");
            connections.push((connection, statement));
        }
        running.spawn(async move {
            let (mut rng, mut latencies, begun) = (Rng::new(client), Vec::new(), Instant::now());
            while begun.elapsed() < length {
                let start = Instant::now();
                let amounts = [-1_i64, 1];
                for ((connection, statement), amount) in connections.iter().zip(amounts) {
                    let account = format!("x{}", rng.below(ACCOUNTS));
                    connection.execute(statement, &[&amount, &account]).await.expect("updated");
                }
                latencies.push(start.elapsed());
            }
            latencies
        });
    }
    let mut tally = Tally::default();
    while let Some(latencies) = running.join_next().await {
        tally.latencies.extend(latencies.expect("no panic"));
    }
    tally
}

/// A file whose blocks are there before they are written, as those of a database's log are: a sync has nothing else to do.
fn log_file() -> std::io::Result<std::fs::File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&vec![0; LOG_BYTES])?;
    file.sync_all()?;
    file.rewind()?;
    Ok(file)
}

async fn agents(servers: &[Server]) -> Result<BTreeMap<NodeId, Arc<Postgres>>, Box<dyn Error>> {
    let mut agents = BTreeMap::new();
    for (server, (id, bank)) in servers.iter().zip(BANKS) {
        let agent = Postgres::new(&server.url(bank), id, Timing::default())?;
        agent.register().await?;
        agents.insert(id, Arc::new(agent));
    }
    Ok(agents)
}

/// Both updates or none.
async fn with(servers: &[Server], clients: u64, length: Duration) -> Result<Tally, Box<dyn Error>> {
    let journal = Journal::synced(log_file()?);
    // Each row is a coordinator of its own, so that none meets the marks of another.
    let coordinator =
        Running::start(NodeId(COORDINATOR.0 + clients), &journal, &agents(servers).await?, None);
    let coordinator = Arc::new(coordinator);
    let mut running = tokio::task::JoinSet::new();
    for client in 0..clients {
        let coordinator = Arc::clone(&coordinator);
        running.spawn(async move {
            let (mut rng, mut tally, begun) = (Rng::new(client), Tally::default(), Instant::now());
            while begun.elapsed() < length {
                let start = Instant::now();
                let outcome = coordinator.transact(transfer(&mut rng)).await.expect("it lives");
                match (outcome.decision, outcome.why) {
                    (Decision::Commit, _) => tally.latencies.push(start.elapsed()),
                    (_, Some(AbortReason::No { why, .. })) => {
                        *tally.aborts.entry(why.detail()).or_default() += 1;
                    }
                    (_, why) => *tally.aborts.entry(format!("{why:?}")).or_default() += 1,
                }
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = running.join_next().await {
        let tally = tally.expect("no panic");
        all.latencies.extend(tally.latencies);
        tally.aborts.into_iter().for_each(|(why, count)| *all.aborts.entry(why).or_default() += count);
    }
    Ok(all)
}

fn transfer(rng: &mut Rng) -> BTreeMap<NodeId, Bytes> {
    let mut branch = |(id, _): (NodeId, &str), amount: i64| {
        let account = format!("x{}", rng.below(ACCOUNTS));
        let work =
            serde_json::json!([{"sql": UPDATE, "parameters": [amount.to_string(), account], "rows": 1}]);
        (id, Bytes::from(work.to_string()))
    };
    BTreeMap::from([branch(BANKS[0], -1), branch(BANKS[1], 1)])
}

/// How long the death of a coordinator under load is felt, from the start of the next one.
async fn recover(servers: &[Server]) -> Result<(), Box<dyn Error>> {
    const ROUNDS: usize = 10;
    let mut times = Vec::new();
    let mut left = 0;
    let journal = Journal::synced(log_file()?);
    for _ in 0..ROUNDS {
        let coordinator = Arc::new(Running::start(COORDINATOR, &journal, &agents(servers).await?, None));
        let mut running = tokio::task::JoinSet::new();
        for client in 0..32 {
            let coordinator = Arc::clone(&coordinator);
            running.spawn(async move {
                let mut rng = Rng::new(client);
                while coordinator.transact(transfer(&mut rng)).await.is_some() {}
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        running.abort_all();
        drop(running);
        drop(coordinator);
        // What it had said arrives, and is answered to nobody.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let agents = agents(servers).await?;
        let begun = Instant::now();
        let mut in_doubt = count_in_doubt(&agents).await?;
        left += in_doubt;
        let _next = Running::start(COORDINATOR, &journal, &agents, None);
        while in_doubt > 0 {
            in_doubt = count_in_doubt(&agents).await?;
        }
        times.push(begun.elapsed().as_millis());
    }
    times.sort_unstable();
    println!(
        "\nA coordinator killed under 32 clients, {ROUNDS} times: {left} branches in doubt in all, ended {} ms (median), {} ms (longest) after \
         the next one began.",
        times[ROUNDS / 2],
        times[ROUNDS - 1]
    );
    Ok(())
}

async fn count_in_doubt(agents: &BTreeMap<NodeId, Arc<Postgres>>) -> Result<usize, Box<dyn Error>> {
    let mut count = 0;
    for agent in agents.values() {
        count += agent.in_doubt().await?.len();
    }
    Ok(count)
}
