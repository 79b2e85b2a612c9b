//! `synod failover`: how long writes pause when the leader dies, hangs or is cut off. Runs on a
//! cluster of its own, under load.

use crate::cli::Failover;
use crate::client;
use crate::supervisor::{Ports, Supervisor};
use crate::{Done, Failure, block_on};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use synod_bench::{Limit, Options};
use synod_lab::{LiveAction, LiveCluster, LiveVerb};
use synod_store::proto::etcdserverpb::{StatusRequest, StatusResponse};

/// Connections of the load.
const CLIENTS: usize = 16;
/// How long the load runs before the fault, and after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);
/// How long a call may take before the load gives its connection up: it finds a paused member by this.
const CALL_TIMEOUT: Duration = Duration::from_millis(300);
/// Between runs: the member that was struck is back and has caught up.
const REST: Duration = Duration::from_secs(2);

/// What strikes the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Partition,
}

pub fn run(options: &Failover) -> Done {
    block_on(measure(options))
}

async fn measure(options: &Failover) -> Done {
    let folder = options
        .data_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("synod-failover-{}", std::process::id())));
    let started = Supervisor::start(&folder, &options.protocol, 3, Ports::Any).await;
    let supervisor = started.map_err(Failure::Storage)?;
    let outcome = rows(options, &supervisor).await;
    supervisor.stop().await;
    if options.data_dir.is_none() {
        let _ = std::fs::remove_dir_all(Path::new(&folder));
    }
    outcome
}

async fn rows(options: &Failover, supervisor: &Supervisor) -> Done {
    let bar = ProgressBar::with_draw_target(Some(3 * options.runs), ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("the template is well formed"),
    );
    if !options.json {
        println!(
            "{:<34} {:>6} {:>10} {:>10} {:>10}",
            "longest pause of writes after", "runs", "median ms", "least ms", "most ms"
        );
    }
    for (fault, name) in [
        (Fault::Kill, "kill -9 of the leader"),
        (Fault::Stop, "SIGSTOP of the leader"),
        (Fault::Partition, "partition of the leader"),
    ] {
        let mut gaps = Vec::new();
        for _ in 0..options.runs {
            bar.set_message(name);
            gaps.push(strike(supervisor, fault).await?);
            bar.inc(1);
        }
        gaps.sort_by(f64::total_cmp);
        let (least, median, most) = (gaps[0], gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        if options.json {
            println!("{}", json!({"protocol": options.protocol, "fault": name, "gaps-ms": gaps}));
        } else {
            bar.suspend(|| {
                println!("{name:<34} {:>6} {median:>10.0} {least:>10.0} {most:>10.0}", gaps.len())
            });
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// One fault under load: the longest time in which no put succeeded, in milliseconds.
async fn strike(supervisor: &Supervisor, fault: Fault) -> Result<f64, Failure> {
    let load = Options {
        endpoints: supervisor.endpoints(),
        clients: CLIENTS,
        limit: Limit::Time(BEFORE + AFTER),
        warmup: Duration::from_millis(500),
        timeout: CALL_TIMEOUT,
        ..Options::default()
    };
    let load = tokio::task::spawn_blocking(move || synod_bench::run(&load, &mut |_| {}));
    tokio::time::sleep(BEFORE).await;
    let leader = leader(supervisor).await?;
    let act = |verb, node: &str, peer: Option<&str>| {
        let action = LiveAction { verb, node: Some(node.into()), peer: peer.map(String::from) };
        supervisor.act(&action).map_err(Failure::No)
    };
    let others: Vec<String> = supervisor.names().into_iter().filter(|name| *name != leader).collect();
    match fault {
        Fault::Kill => act(LiveVerb::Kill, &leader, None)?,
        Fault::Stop => act(LiveVerb::Stop, &leader, None)?,
        Fault::Partition => others.iter().try_for_each(|other| act(LiveVerb::Cut, &leader, Some(other)))?,
    }
    let report =
        load.await.map_err(|e| Failure::No(e.to_string()))?.map_err(|e| Failure::No(e.to_string()))?;
    match fault {
        Fault::Kill => act(LiveVerb::Start, &leader, None)?,
        Fault::Stop => act(LiveVerb::Cont, &leader, None)?,
        Fault::Partition => others.iter().try_for_each(|other| act(LiveVerb::Heal, &leader, Some(other)))?,
    }
    tokio::time::sleep(REST).await;
    let gap = report.longest_write_gap.ok_or_else(|| Failure::No("no put succeeded".into()))?;
    Ok(gap.ms)
}

/// The name of the member that leads.
pub async fn leader(supervisor: &Supervisor) -> Result<String, Failure> {
    for (endpoint, name) in supervisor.endpoints().into_iter().zip(supervisor.names()) {
        let status: Result<StatusResponse, _> = client::call(
            std::slice::from_ref(&endpoint),
            Duration::from_secs(1),
            "/etcdserverpb.Maintenance/Status",
            &StatusRequest::default(),
        )
        .await;
        if let Ok(status) = status
            && status.leader == status.header.unwrap_or_default().member_id
        {
            return Ok(name);
        }
    }
    Err(Failure::Unreachable("no member says that it leads".into()))
}
