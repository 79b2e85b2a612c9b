//! Whatever was imported, a judgement ends within its budget, and every form of its report can be made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use synod_check::judge::judge;
use synod_check::linearizable::Limits;
use synod_check::{ReadLimits, import, picture, report};

fuzz_target!(|input: &[u8]| {
    let Ok((history, _)) = import::any(input, ReadLimits { line_bytes_max: 1 << 16, operations_max: 200 }) else {
        return;
    };
    let limits = Limits {
        configurations_max: 2_000,
        bytes_max: 1 << 22,
        minimise_configurations_max: 2_000,
        ..Limits::default()
    };
    let Ok(judgement) = judge(&history, None, None, &limits, &mut || false) else { return };
    let _ = report::text(&judgement);
    let _ = report::junit(&judgement, "fuzz", &[]);
    assert!(report::json(&history, &judgement).is_object());
    assert!(picture::html(&history, &judgement, "fuzz").len() < 200_000, "a page is bounded");
});
