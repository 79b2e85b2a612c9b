//! The golden scripts in `scripts/`: those named `2pc-…` run on two-phase commit, `3pc-…`
//! on three-phase commit.

use super::party::{ThreePhase, TwoPhase};
use super::script;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

type Run = fn(&str) -> Result<(), String>;

/// Every protocol, by what its scripts' names begin with.
const PROTOCOLS: [(&str, Run); 2] = [("2pc", script::run::<TwoPhase>), ("3pc", script::run::<ThreePhase>)];

#[test]
fn every_script_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/atomic_commit/scripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|file| file.expect("readable").path())
        .collect();
    files.sort();
    let (mut ran, mut failed) = (0, 0);
    for path in files {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("# "), "{name}: the first line says what the script shows");
        let runs: Vec<_> =
            PROTOCOLS.iter().filter(|(kind, _)| name.starts_with(&format!("{kind}-"))).collect();
        assert!(!runs.is_empty(), "{name}: which protocol is this for?");
        for (protocol, run) in runs {
            ran += 1;
            let result = catch_unwind(AssertUnwindSafe(|| run(&text)));
            if let Err(error) = result.unwrap_or_else(|_| Err("panicked, see above".into())) {
                failed += 1;
                println!("---- {name} on {protocol}: {error}");
            }
        }
    }
    println!("{ran} scripts, {failed} failed");
    assert!(ran >= 20 && failed == 0, "{failed} of {ran} scripts failed");
}

#[test]
fn a_wrong_expectation_fails() {
    for (script, error) in [
        ("start 2\nexpect a 99", "line 2: `expect a 99`: found `100`"),
        ("start 2\ntransfer t a b 30\nrun\nexpect t aborted", "found `committed`"),
        ("start 2\ntransfer t a b 30\nexpect c to p1 nothing", "found `Prepare`"),
        ("start 2\nfly c", "there is no such command"),
        ("start 2\ndeliver c p1", "there is no such message"),
    ] {
        let found = script::run::<TwoPhase>(script).expect_err("it must fail");
        assert!(found.contains(error), "{found}");
    }
}
