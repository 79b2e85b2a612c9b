//! Seeded random runs of every replicated log.
//!
//! `SYNOD_SEED=7` runs one seed and shows the end of its trace, `SYNOD_SEEDS=1000` that many.

use crate::random::{Totals, cluster, drive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::multi_paxos::MultiPaxos;
use synod_protocols::raft::Raft;
use synod_protocols::viewstamped::Viewstamped;
use synod_protocols::zab::Zab;

#[test]
fn random_runs_of_raft_are_safe_and_recover() {
    campaign::<Raft>();
}

#[test]
fn random_runs_of_multi_paxos_are_safe_and_recover() {
    campaign::<MultiPaxos>();
}

#[test]
fn random_runs_of_viewstamped_are_safe_and_recover() {
    campaign::<Viewstamped>();
}

#[test]
fn random_runs_of_zab_are_safe_and_recover() {
    campaign::<Zab>();
}

fn campaign<P: ReplicatedLog>() {
    let setting = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match setting("SYNOD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("SYNOD_SEEDS").unwrap_or(150),
    };
    let alone = seeds.end - seeds.start == 1;
    let begun = Instant::now();
    let mut total = Totals::default();
    for seed in seeds.clone() {
        let mut cluster = cluster::<P>(seed);
        if alone {
            cluster.trace = Some(String::new());
        }
        let run = catch_unwind(AssertUnwindSafe(|| drive(&mut cluster, seed, &mut total)));
        total.steps += cluster.steps;
        if let Err(panic) = run {
            let trace = cluster.trace.take().unwrap_or_default();
            let skipped = trace.lines().count().saturating_sub(120);
            trace.lines().skip(skipped).for_each(|line| println!("{line}"));
            for node in &cluster.nodes {
                let describe = |process: &P| process.describe(cluster.local(node.id));
                let lines = node.process.as_ref().map(describe).unwrap_or_default();
                let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                println!("{} of {}: {}", node.id, P::NAME, lines.join("; "));
            }
            println!(
                "seed {seed} failed; replay: SYNOD_SEED={seed} cargo test -p synod-protocols --test replicated_log random_runs_of_{} -- --nocapture",
                P::NAME.replace('-', "_")
            );
            std::panic::resume_unwind(panic);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{}: {} seeds, {} steps, {} crashes, {} committed, {} reads served, {} of them by a lease, {} elections, {} transfers and changes of members, {} snapshots fetched, {} damaged disks, {:.0} steps/s with all checks",
        P::NAME,
        seeds.end - seeds.start,
        total.steps,
        total.crashes,
        total.committed,
        total.reads,
        total.leased,
        total.epochs,
        total.done,
        total.fetched,
        total.damaged,
        total.steps as f64 / seconds
    );
    assert!(total.committed > 0 && (alone || total.reads > 0), "the runs did nothing");
}
