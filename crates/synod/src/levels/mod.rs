//! `synod bench levels`: what each level of consistency costs live, and what a partition does to it. Each level runs on a
//! fresh cluster of three real members with one keyspace, so that nothing else is in its figures.

mod book;
mod cluster;
mod load;
mod report;
mod wire;

use crate::cli::Levels;
use crate::{Done, Failure, block_on};
use book::Book;
use cluster::{Cluster, KEYSPACE};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use load::{KEYS, Limit, Load, Tally, VALUE_BYTES};
use report::{Convergence, Level, Row, Side, Table};
use serde_json::json;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Steps of a level that the bar shows.
const STEPS: u64 = 6;
/// Reads in a hundred requests of the mixed loads: two writes for three reads, as `synod sim cap` has them.
const MIXED_READS: u64 = 60;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Plan {
    clients: u16,
    span: Duration,
    partition: Duration,
    writes: u64,
}

impl Plan {
    fn new(options: &Levels) -> Plan {
        if options.quick {
            return Plan {
                clients: 2,
                span: Duration::from_millis(500),
                partition: Duration::from_secs(1),
                writes: 400,
            };
        }
        Plan {
            clients: options.clients,
            span: options.span,
            partition: options.partition,
            writes: options.writes,
        }
    }
}

pub fn run(options: &Levels) -> Done {
    block_on(measure(options))
}

async fn measure(options: &Levels) -> Done {
    let plan = Plan::new(options);
    let folder = options
        .data_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("synod-levels-{}", std::process::id())));
    let steps = STEPS * options.levels.len() as u64;
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("the template is well formed"),
    );
    let mut found = Vec::new();
    for level in &options.levels {
        let outcome = measure_level(&folder.join(level), &options.protocol, level, plan, &bar).await;
        if options.data_dir.is_none() {
            let _ = std::fs::remove_dir_all(Path::new(&folder));
        }
        found.push(outcome?);
    }
    bar.finish_and_clear();
    if options.json {
        let json = json!({
            "protocol": options.protocol, "members": 3, "clients-per-member": plan.clients, "keys": KEYS,
            "value-bytes": VALUE_BYTES, "span-s": plan.span.as_secs_f64(), "levels": found,
        });
        println!("{json}");
    } else {
        println!(
            "three members, {}, {} clients at each, {KEYS} keys, values of {VALUE_BYTES} bytes, {:?} for each load\n",
            options.protocol, plan.clients, plan.span
        );
        print!("{}", Table(&found));
    }
    Ok(())
}

async fn measure_level(
    folder: &Path,
    protocol: &str,
    level: &str,
    plan: Plan,
    bar: &ProgressBar,
) -> Result<Level, Failure> {
    let cluster = Cluster::start(folder, protocol, level).await?;
    let mut measured = Measured { cluster, plan, book: Rc::new(RefCell::new(Book::new(KEYS))), loads: 0 };
    let outcome = measured.all(level, bar).await;
    measured.cluster.stop().await;
    outcome
}

/// A cluster that is being measured.
struct Measured {
    cluster: Cluster,
    plan: Plan,
    /// Of all writes to it, whichever load they were of.
    book: Rc<RefCell<Book>>,
    loads: u64,
}

impl Measured {
    async fn all(&mut self, level: &str, bar: &ProgressBar) -> Result<Level, Failure> {
        let step = |what: &str| {
            bar.set_message(format!("{level}: {what}"));
            bar.inc(1);
        };
        step("writes");
        let writes = self.row(0, |tally| (&tally.writes, tally.writes_refused)).await?;
        step("reads");
        let reads = self.row(100, |tally| (&tally.reads, tally.reads_refused)).await?;
        step("reads and writes");
        let everywhere = self.cluster.endpoints();
        let well = self.load(everywhere, MIXED_READS, Limit::Time(self.plan.span)).await.into();
        step("reads and writes in a partition");
        let (minority, majority) = self.divided().await?;
        step("conflicting writes in a partition");
        let convergence = self.conflict().await?;
        step("done");
        Ok(Level { level: level.into(), writes, reads, well, minority, majority, convergence })
    }

    /// Reads or writes alone, with what the members use for them.
    async fn row(
        &mut self,
        reads: u64,
        kind: fn(&Tally) -> (&synod_bench::Histogram, u64),
    ) -> Result<Row, Failure> {
        let everywhere = self.cluster.endpoints();
        self.load(everywhere.clone(), reads, Limit::Time(self.plan.span / 5)).await;
        let before = self.cluster.figures().await?;
        let tally = self.load(everywhere, reads, Limit::Time(self.plan.span)).await;
        let after = self.cluster.figures().await?;
        if kind(&tally).0.count() == 0 {
            return Err(Failure::Unreachable("no request of a load was answered".into()));
        }
        Ok(Row::of(kind, &tally, after.since(before)))
    }

    /// Both sides of a partition under the same load.
    async fn divided(&mut self) -> Result<(Side, Side), Failure> {
        let sides = self.cluster.cut().await?;
        let limit = Limit::Time(self.plan.span);
        let minority = self.load(sides.minority, MIXED_READS, limit);
        let majority = self.load(sides.majority, MIXED_READS, limit);
        let (minority, majority) = tokio::join!(minority, majority);
        self.cluster.heal().await?;
        self.cluster.converge().await?;
        Ok((minority.into(), majority.into()))
    }

    /// A partition in which both sides write to the same keys, and how long it takes afterwards until all are the same.
    async fn conflict(&mut self) -> Result<Convergence, Failure> {
        let begun = Instant::now();
        let sides = self.cluster.cut().await?;
        let limit = Limit::Writes(self.plan.writes / 2, self.plan.partition);
        let minority = self.load(sides.minority, 0, limit);
        let majority = self.load(sides.majority, 0, limit);
        let (minority, majority) = tokio::join!(minority, majority);
        sleep(self.plan.partition.saturating_sub(begun.elapsed())).await;
        let partition_s = begun.elapsed().as_secs_f64();
        let healed = Instant::now();
        self.cluster.heal().await?;
        let keys = self.cluster.converge().await?;
        Ok(Convergence {
            partition_s,
            writes_minority: minority.writes.count(),
            writes_majority: majority.writes.count(),
            keys,
            ms: healed.elapsed().as_secs_f64() * 1e3,
        })
    }

    /// Begins a load, and returns what came of it when it has ended.
    fn load(&mut self, side: Vec<String>, reads: u64, limit: Limit) -> impl Future<Output = Tally> + use<> {
        self.loads += 1;
        let keyspace = KEYSPACE.to_owned();
        let load = Load { keyspace, side, clients: self.plan.clients, reads, limit, seed: self.loads };
        load::run(load, Rc::clone(&self.book))
    }
}
