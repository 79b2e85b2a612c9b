//! Random runs of the real protocol: see [`super::random`].

use super::party::TwoPhase;
use super::random::{Totals, drive};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn two_phase_commit_keeps_its_promises_in_random_runs() {
    let mut total = Totals::default();
    for seed in 0..800 {
        let run = catch_unwind(AssertUnwindSafe(|| drive::<TwoPhase>(seed, &mut total, false)));
        assert!(run.is_ok(), "seed {seed} broke a promise: see above");
    }
    println!("{total:?}");
    assert!(total.commits > 5_000 && total.aborts > 3_000 && total.crashes > 500, "the runs did little");
    assert!(total.reads > 200 && total.doubts > 500, "the runs did little");
}
