//! The golden scripts in `tests/scripts`: those named `log-…` run on every replicated log, the
//! others on the protocol that their name begins with.

use crate::script;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::multi_paxos::MultiPaxos;
use synod_protocols::raft::Raft;
use synod_protocols::viewstamped::Viewstamped;
use synod_protocols::zab::Zab;

type Run = fn(&str) -> Result<u64, String>;

/// Every replicated log, by what its scripts' names begin with.
const PROTOCOLS: [(&str, Run); 4] =
    [("raft", run::<Raft>), ("paxos", run::<MultiPaxos>), ("vr", run::<Viewstamped>), ("zab", run::<Zab>)];

/// Scripts that do not hold for a protocol: what it cannot do yet, the one in which a Paxos acceptor would
/// have to forget what it has accepted, and the one in which it would take a change for chosen by itself.
const NOT_FOR: [(&str, &str); 2] =
    [("paxos", "log-snapshot-crash-before-its-record"), ("paxos", "log-joining-member-restarts")];

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
        let runs: Vec<_> = PROTOCOLS.iter().filter(|(name, _)| kind == "log" || kind == *name).collect();
        assert!(!runs.is_empty(), "{name}: which protocol is this for?");
        for (protocol, run) in runs {
            if NOT_FOR.contains(&(*protocol, &name)) {
                continue;
            }
            // Protocols number their epochs differently: the neutral scripts count those led. And with the least α
            // changes of members need no no-ops in Multi-Paxos either.
            let changes =
                ["add", "remove", "replace"].iter().any(|word| text.contains(&format!("\n{word} ")));
            let head = match (kind, changes) {
                ("log", true) => "count epochs\nlimit alpha 1\n",
                ("log", false) => "count epochs\n",
                _ => "",
            };
            let text = format!("{head}{text}");
            ran += 1;
            if let Err(error) = run(&text) {
                failed += 1;
                println!("---- {name} on {protocol}: {error}");
            }
        }
    }
    println!("{ran} scripts, {failed} failed");
    assert!(ran >= 60 && failed == 0, "{failed} of {ran} scripts failed");
}

fn run<P: ReplicatedLog>(text: &str) -> Result<u64, String> {
    let run = catch_unwind(AssertUnwindSafe(|| script::run::<P>(text)));
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
        let found = script::run::<Raft>(script).expect_err("it must fail");
        assert!(found.contains(error), "{found}");
    }
}
