//! How long transactions stay open after a `kill -9` of their coordinator.
//!
//! Clients transfer without a pause, the leader is killed, and from then on nobody transfers. What is measured is the
//! time until a transaction that reads every account at both banks commits: it includes the election, and no account
//! can be locked any more. An account that a transaction in doubt holds would refuse it.

use super::places::Place;
use super::{ABORTED, Client, PATIENCE, commit, steps};
use crate::api::{CallError, Session};
use crate::bank_demo::act;
use crate::cli::BenchTransfers;
use crate::failover;
use crate::supervisor::Supervisor;
use crate::{Done, Failure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use synod_lab::LiveVerb;
use synod_protocols::rng::Rng;
use tokio::sync::watch;

/// How long the clients transfer before the kill.
const BEFORE: Duration = Duration::from_secs(1);
/// How long it may take until nothing is open.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between attempts to read, which bounds how exact the figure is.
const READ_EVERY: Duration = Duration::from_millis(2);
/// Between runs: the killed member is back and has caught up.
const REST: Duration = Duration::from_secs(2);

/// One run.
struct Recovery {
    took: Duration,
    /// Reads that a lock refused: transactions of the dead coordinator still held accounts.
    locked: usize,
}

/// Prints the distribution over all runs.
pub async fn measure(options: &BenchTransfers, cluster: &Supervisor) -> Done {
    let mut runs = Vec::new();
    for run in 0..options.runs {
        runs.push(once(options, cluster, run).await?);
        tokio::time::sleep(REST).await;
    }
    let mut took: Vec<f64> = runs.iter().map(|run| run.took.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let (least, median, most) = (took[0], took[took.len() / 2], took[took.len() - 1]);
    let locked = runs.iter().filter(|run| run.locked > 0).count();
    if options.json {
        println!(
            "{}",
            json!({"row": "recovery after kill -9 of the coordinator", "protocol": options.protocol,
                "runs": took.len(), "runs-with-locks": locked, "ms": took})
        );
    } else {
        println!(
            "\nkill -9 of the coordinator, until nothing is locked: median {median:.0} ms, least {least:.0}, most {most:.0} \
             ({} runs; in {locked} the next leader found accounts locked)",
            took.len()
        );
    }
    Ok(())
}

async fn once(options: &BenchTransfers, cluster: &Supervisor, run: u64) -> Result<Recovery, Failure> {
    let (tell_stop, stop) = watch::channel(false);
    let clients = (0..usize::from(options.clients)).map(|number| {
        let mut client = Client::new(cluster, number);
        let mut rng = Rng::new(run * 1_000 + number as u64);
        let (mut stop, accounts) = (stop.clone(), options.accounts);
        tokio::task::spawn_local(async move {
            let (from, to) = (Place::Keyspace("bank1".into()), Place::Keyspace("bank2".into()));
            while !*stop.borrow() {
                let steps = steps(&from, &to, true, &mut rng, accounts);
                tokio::select! {
                    _ = client.take(&steps[0]) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    tokio::time::sleep(BEFORE).await;
    let leader = failover::leader(cluster).await?;
    act(cluster, LiveVerb::Kill, &leader).map_err(Failure::No)?;
    let killed = Instant::now();
    tell_stop.send_replace(true);
    for client in clients {
        client.await.map_err(|error| Failure::No(error.to_string()))?;
    }
    let read = read(options.accounts);
    let mut session = Session::new(&cluster.endpoints(), 0, PATIENCE);
    let mut locked = 0;
    let took = loop {
        match commit(&mut session, &read).await {
            Ok(_) => break killed.elapsed(),
            Err(CallError::Refused { code, .. }) if code == ABORTED => locked += 1,
            Err(_) => {}
        }
        if killed.elapsed() > RECOVERY_TIMEOUT {
            return Err(Failure::No(format!(
                "accounts could not be read {RECOVERY_TIMEOUT:?} after the kill"
            )));
        }
        tokio::time::sleep(READ_EVERY).await;
    };
    act(cluster, LiveVerb::Start, &leader).map_err(Failure::No)?;
    Ok(Recovery { took, locked })
}

/// Reads every account at both banks.
fn read(accounts: u32) -> Value {
    let gets: Vec<Value> =
        (0..accounts).map(|account| json!({"get": {"key": format!("a{account}")}})).collect();
    let branch = |bank: &str| json!({"participant": bank, "work": gets});
    json!({"branches": [branch("bank1"), branch("bank2")], "timeout-ms": 1_000})
}
