//! The golden scripts in `tests/scripts`: those named `log-…` run on every replicated log, the
//! others on the protocol that their name begins with.

use crate::script::{self, Epochs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::raft::Raft;
use synod_protocols::viewstamped::Viewstamped;

/// What the names of a protocol's own scripts begin with, the protocol's name, and how to run it.
type Protocol = (&'static str, &'static str, fn(&str, Epochs) -> Result<u64, String>);

const PROTOCOLS: &[Protocol] =
    &[("raft", Raft::NAME, run::<Raft>), ("vr", Viewstamped::NAME, run::<Viewstamped>)];

#[test]
fn every_script_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|file| file.expect("readable").path())
        .collect();
    files.sort();
    let (mut ran, mut failed) = (0, 0);
    for path in files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "txt")) {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let text = std::fs::read_to_string(path).expect("readable");
        assert!(text.starts_with("# "), "{name}: the first line says what the script shows");
        let kind = name.split_once('-').map_or("", |(kind, _)| kind);
        let epochs = if kind == "log" { Epochs::Counted } else { Epochs::Numbered };
        let protocols: Vec<_> =
            PROTOCOLS.iter().filter(|(prefix, ..)| kind == "log" || kind == *prefix).collect();
        assert!(!protocols.is_empty(), "{name}: which protocol is this for?");
        for (_, protocol, run) in protocols {
            ran += 1;
            if let Err(error) = run(&text, epochs) {
                failed += 1;
                println!("---- {name} on {protocol}: {error}");
            }
        }
    }
    println!("{ran} scripts, {failed} failed");
    assert!(ran >= 25 && failed == 0, "{failed} of {ran} scripts failed");
}

fn run<P: ReplicatedLog>(text: &str, epochs: Epochs) -> Result<u64, String> {
    let run = catch_unwind(AssertUnwindSafe(|| script::run::<P>(text, epochs)));
    run.unwrap_or_else(|_| Err("panicked, see above".into()))
}

#[test]
fn a_wrong_expectation_fails() {
    for (script, error) in [
        ("start 3\nexpect n1 leader", "line 2: `expect n1 leader`: found `follower`"),
        ("start 3\nelect n1\nexpect n2 log -@2", "found `-@1`"),
        ("start 3\nfly n1", "there is no such command"),
        ("start 3\ndeliver n1 n2", "there are 0 messages"),
    ] {
        let found = script::run::<Raft>(script, Epochs::Numbered).expect_err("it must fail");
        assert!(found.contains(error), "{found}");
    }
}
