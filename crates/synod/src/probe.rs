//! `synod probe`: drives an etcd v3 endpoint, records what its clients saw, and judges it.
//!
//! Several clients, each with one request under way, do what the workload says until the time is up; in the
//! middle of it the user's own command may break things. Then every client reads once more what there is, so that an
//! acknowledged write that was lost is missed by somebody. What is recorded holds for the real order of
//! things: an invocation is written before its request can leave, an outcome after its answer has come. A
//! request without an answer has an *unknown* outcome, and only what a member certainly refused has *failed*.
//!
//! All keys begin with a prefix of this run's own, and are deleted at the end.

pub mod log;
mod nemesis;
mod session;
mod workload;

use crate::check::{self, UNUSABLE};
use crate::{asked_to_stop, block_on, cli};
use log::Log;
use session::Session;
use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use synod_check::history::History;
use synod_protocols::rng::Rng;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};
pub use workload::Workload;
use workload::{Client, Shared};

/// How long a client waits after a request without success, before the next.
const BACKOFF: Duration = Duration::from_millis(50);
/// How long the last reads are tried for, once the load has ended.
const LAST_READS: Duration = Duration::from_secs(10);
/// How long the first and the last request of a run are tried for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Drives, records and judges; says with which code to end.
pub fn run(options: &cli::Probe) -> ExitCode {
    let recorded = block_on(async { LocalSet::new().run_until(record(options)).await });
    let judged = recorded.and_then(|history| {
        let shown = match &options.out {
            Some(path) => path.display().to_string(),
            None => format!("{} on {}", options.workload.name(), options.endpoints.join(",")),
        };
        check::judge_and_tell(&history, &check::Asked { shown, ..check::Asked::default() }, &options.judging)
    });
    ExitCode::from(judged.unwrap_or_else(|problem| {
        eprintln!("synod: {problem}");
        UNUSABLE
    }))
}

async fn record(options: &cli::Probe) -> Result<History, String> {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(clock.as_nanos() as u64);
    let prefix = format!("synod-probe/{:x}-{:x}/", clock.as_nanos(), std::process::id());
    let mut first = Session::new(&options.endpoints, 0, options.timeout);
    let header = workload::prepare(options, &prefix, seed, &mut first, PATIENCE).await?;
    let log = Rc::new(RefCell::new(Log::new(header, options.out.as_deref())?));
    let shared = Rc::new(Shared::new(options.workload, prefix, options.exclusive));

    let stop = stop_after(options.span);
    let nemesis = options.nemesis.clone().map(|command| {
        let (endpoints, wait) = (options.endpoints.join(","), options.span / 4);
        tokio::task::spawn_local(nemesis::run(command, endpoints, wait, stop.clone(), log.clone()))
    });
    let mut seeds = Rng::new(seed);
    let pause = options.rate.map(|rate| Duration::from_secs_f64(options.clients as f64 / rate as f64));
    let clients = (0..options.clients).map(|number| {
        let session = Session::new(&options.endpoints, number, options.timeout);
        let client = Client::new(number, session, Rng::new(seeds.next()), shared.clone(), log.clone());
        tokio::task::spawn_local(drive(client, stop.clone(), pause))
    });
    let clients = ended(clients.collect()).await?;
    ended(nemesis.into_iter().collect()).await?;
    let reads = clients.into_iter().map(|client| tokio::task::spawn_local(client.read_all(LAST_READS)));
    ended(reads.collect()).await?;
    shared.clean_up(&mut first, PATIENCE).await;
    log.borrow().history()
}

/// Becomes true when the time is up, or the person at the terminal has seen enough.
fn stop_after(span: Duration) -> watch::Receiver<bool> {
    let (ended, stop) = watch::channel(false);
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = tokio::time::sleep(span) => {}
            () = asked_to_stop() => {}
        }
        ended.send_replace(true);
        // A receiver waits in vain once there is no sender.
        ended.closed().await;
    });
    stop
}

async fn ended<T>(tasks: Vec<JoinHandle<T>>) -> Result<Vec<T>, String> {
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.map_err(|error| error.to_string())?);
    }
    Ok(results)
}

/// One client until the end, with a pause from one start to the next where a rate is asked for.
async fn drive(mut client: Client, mut stop: watch::Receiver<bool>, pause: Option<Duration>) -> Client {
    let mut next = Instant::now();
    while !*stop.borrow() {
        next += pause.unwrap_or_default();
        if !client.step().await {
            next = next.max(Instant::now() + BACKOFF);
        }
        if next > Instant::now() {
            // Ends early at the end.
            let _ = tokio::time::timeout_at(next.into(), stop.wait_for(|stop| *stop)).await;
        }
    }
    client
}
