//! `synod sim failover`: how long each protocol is without a leader when it loses the one that it has.

use crate::cli;
use crate::sim::{known_or_all, page_address, simulate};
use crate::{Done, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use synod_sim::NoTrace;
use synod_sim::failover::{Failovers, Loss, failovers, script};

/// What is told of a distribution.
const PERCENTILES: [(usize, &str); 5] = [(0, "min"), (50, "median"), (90, "p90"), (99, "p99"), (100, "max")];

/// One protocol that lost its leader in one way.
struct Row {
    protocol: String,
    loss: Loss,
    found: Failovers,
    /// The election timeout, in nanoseconds.
    election: u64,
    /// The address of its slowest run on the page.
    slowest: Option<String>,
}

pub fn run(options: &cli::Elections) -> Done {
    let protocols = known_or_all(&options.protocols)?;
    let bar = ProgressBar::new(options.seeds * (protocols.len() * Loss::ALL.len()) as u64);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let style = "{bar:30} {pos}/{len} runs, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
    let mut rows = Vec::new();
    for loss in Loss::ALL {
        for protocol in &protocols {
            rows.push(measure(options, protocol, loss, &bar)?);
        }
    }
    bar.finish_and_clear();
    if options.json {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        println!(
            "{}",
            json!({"nodes": options.nodes, "seeds": options.seeds, "first-seed": options.seed, "failovers": rows})
        );
    } else {
        print(options, &rows);
    }
    match rows.iter().map(|row| row.found.failed.len()).sum() {
        0 => Ok(()),
        failed => Err(Failure::No(format!("{failed} runs broke a promise, or had no other leader"))),
    }
}

fn measure(options: &cli::Elections, protocol: &str, loss: Loss, bar: &ProgressBar) -> Result<Row, Failure> {
    let nodes = u8::try_from(options.nodes).expect("the command line allows no more than the simulator does");
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or_else(cores);
    let seeds = options.seed..options.seed.saturating_add(options.seeds);
    let found = failovers(protocol, nodes, loss, seeds, threads, &|| bar.inc(1));
    let found = found.map_err(|e| Failure::Usage(e.to_string()))?;
    let address = |seed: u64| {
        let outcome = simulate(&script(protocol, nodes, loss, seed), &mut NoTrace)?;
        Ok::<_, Failure>(page_address(&outcome.script.to_string(), &outcome.hash_text()))
    };
    let slowest = found.times.last().map(|(_, seed)| address(*seed)).transpose()?;
    let election = script(protocol, nodes, loss, options.seed).election.0;
    Ok(Row { protocol: protocol.into(), loss, found, election, slowest })
}

impl Row {
    /// So many of a hundred took no longer than this, in milliseconds and in election timeouts.
    fn percentile(&self, percent: usize) -> Option<(f64, f64)> {
        let took = self.found.percentile(percent)? as f64;
        Some((took / 1e6, took / self.election as f64))
    }

    fn json(&self) -> Value {
        let in_ms: serde_json::Map<String, Value> = PERCENTILES
            .iter()
            .map(|(percent, name)| ((*name).into(), json!(self.percentile(*percent).map(|(ms, _)| ms))))
            .collect();
        json!({
            "protocol": self.protocol, "loss": self.loss, "runs": self.found.times.len(), "failed": self.found.failed,
            "election-ms": self.election as f64 / 1e6, "ms": in_ms, "slowest": self.slowest,
        })
    }
}

fn print(options: &cli::Elections, rows: &[Row]) {
    let Some(election) = rows.first().map(|row| row.election / 1_000_000) else { return };
    println!(
        "{} members, {} seeds; from the loss of the leader to the next one, in ms of virtual time and in election timeouts of {election} ms",
        options.nodes, options.seeds
    );
    print!("{:<22}", "");
    PERCENTILES.iter().for_each(|(_, name)| print!("{name:<16}"));
    println!();
    for row in rows {
        print!("{:<8}{:<14}", row.loss, row.protocol);
        for (percent, _) in PERCENTILES {
            let text = row
                .percentile(percent)
                .map_or("–".into(), |(ms, timeouts)| format!("{ms:.0}, {timeouts:.2}"));
            print!("{text:<16}");
        }
        println!();
    }
    println!("the slowest of each on the page (`synod lab`)");
    for row in rows {
        println!("{:<8}{:<14}{}", row.loss, row.protocol, row.slowest.as_deref().unwrap_or("–"));
        if !row.found.failed.is_empty() {
            println!("{:<22}failed seeds: {:?}", "", row.found.failed);
        }
    }
}
