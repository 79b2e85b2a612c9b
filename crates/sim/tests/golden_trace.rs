//! The trace of one small script, byte for byte.
//!
//! Links and exported pages carry traces and their hashes to other machines and later versions, so that a change of
//! what a script gives must be meant. Reasons to change the file: the trace format says more or other things, a
//! protocol or the store works differently, or the dice are drawn differently. A change of the format that breaks its
//! readers also needs another `TRACE_VERSION`. `SYNOD_BLESS=1` writes what the run gives now, and the diff says
//! what that means.

use std::path::Path;
use synod_sim::{Script, Trace};

const SCRIPT: &str = "synod-script 1
protocol raft
nodes 3
seed 1
for 470ms
latency 10ms
disk 1ms
at 380ms put k v
at 440ms cut n1 n2
at 450ms crash leader
";

#[test]
fn the_trace_of_a_small_script_is_what_it_was() {
    let script: Script = SCRIPT.parse().expect("the script parses");
    let mut trace = Trace::new();
    let outcome = synod_sim::run(&script, &mut trace).expect("the protocol is known");
    let text = format!("{}\n{}", trace.header(&outcome), trace.lines());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_trace.jsonl");
    if std::env::var_os("SYNOD_BLESS").is_some() {
        std::fs::write(&path, &text).expect("the golden trace is written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden trace");
    for (number, (was, is)) in golden.lines().zip(text.lines()).enumerate() {
        assert_eq!(is, was, "line {} of the trace", number + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "the trace has another length");
    let early = |name: &str| text.lines().any(|line| line.contains(name) && line.contains("\"early\":true"));
    assert!(early("AppendEntries"), "a leader's entries leave while its own disk still writes them");
    assert!(!early("Vote"), "a vote waits for its disk");
}
