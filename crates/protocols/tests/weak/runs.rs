//! The random runs of both levels.

use super::random::{Totals, drive};
use super::subject::{Causal, Eventual, WeakReplica};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// One seed alone: `SYNOD_SEED=7 cargo test -p synod-protocols --test weak`.
fn seeds() -> std::ops::Range<u64> {
    match std::env::var("SYNOD_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..300,
    }
}

fn runs<P: WeakReplica>() -> Totals {
    let mut total = Totals::default();
    for seed in seeds() {
        let mut of_seed = Totals::default();
        let run = catch_unwind(AssertUnwindSafe(|| drive::<P>(seed, &mut of_seed)));
        run.unwrap_or_else(|panic| {
            println!("replay: SYNOD_SEED={seed} cargo test -p synod-protocols --test weak {}", P::NAME);
            resume_unwind(panic)
        });
        total.writes += of_seed.writes;
        total.reads += of_seed.reads;
        total.refused += of_seed.refused;
        total.crashes += of_seed.crashes;
        total.cuts += of_seed.cuts;
        total.deletes += of_seed.deletes;
        total.changes += of_seed.changes;
    }
    println!("{}: {total:?}", P::NAME);
    total
}

#[test]
fn causal_replicas_keep_every_promise() {
    let total = runs::<Causal>();
    let is_whole = seeds().count() > 1;
    assert!(!is_whole || total.writes > 10_000 && total.crashes > 300 && total.changes > 50, "{total:?}");
}

#[test]
fn eventual_replicas_keep_every_promise() {
    let total = runs::<Eventual>();
    let is_whole = seeds().count() > 1;
    assert!(!is_whole || total.writes > 10_000 && total.crashes > 300 && total.changes > 50, "{total:?}");
}

#[test]
fn a_run_is_a_pure_function_of_its_seed() {
    let totals = || {
        let mut total = Totals::default();
        drive::<Causal>(7, &mut total);
        format!("{total:?}")
    };
    assert_eq!(totals(), totals());
}
