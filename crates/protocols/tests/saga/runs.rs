//! Random runs of the real protocol: see [`super::random`].

use super::random::{Totals, drive};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn every_saga_ends_all_done_or_all_compensated() {
    let mut total = Totals::default();
    for seed in 0..1_000 {
        let run = catch_unwind(AssertUnwindSafe(|| drive(seed, &mut total)));
        assert!(run.is_ok(), "seed {seed} broke a promise: see above");
    }
    println!("{total:?}");
    assert!(total.done > 1_500 && total.compensated > 1_500 && total.crashes > 500, "the runs did little");
    assert!(total.anomalies.0 > 0, "a saga shows its middle, or the look is blind");
}
