//! `synod bench levels` as a whole, with small counts: figures are there, and they tell the levels apart.

use serde_json::Value;
use std::process::Command;

fn levels(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["bench", "levels"])
        .args(arguments)
        .output()
        .expect("synod runs");
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn each_level_is_measured_well_and_in_a_partition() {
    let (code, said, why) = levels(&["--quick", "--json"]);
    assert_eq!(code, Some(0), "{why}");
    let found: Value = serde_json::from_str(&said).expect("it is JSON");
    let found = found["levels"].as_array().expect("levels");
    assert_eq!(found.len(), 4);
    for level in found {
        let name = level["level"].as_str().expect("a name");
        let is_strong = ["linearizable", "sequential"].contains(&name);
        for kind in ["reads", "writes"] {
            let row = &level[kind];
            let figure = |of: &str| row[of].as_f64().unwrap_or_else(|| panic!("{name}, {kind}: no {of}"));
            assert!(figure("per-second") > 0.0 && figure("p50-ms") > 0.0, "{row}");
            assert!(figure("p99-ms") >= figure("p50-ms"), "{row}");
        }
        let minority = |of: &str| level["minority"][of].as_u64().expect("a count");
        let conflict = |of: &str| level["convergence"][of].as_u64().expect("a count");
        // What consistency costs in a partition: who is alone writes at the weaker levels only, and reads at all but one.
        assert_eq!(minority("writes") == 0, is_strong, "{name}");
        assert_eq!(minority("reads") == 0, name == "linearizable", "{name}");
        assert_eq!(conflict("writes-minority") == 0, is_strong, "{name}");
        assert!(conflict("writes-majority") > 0, "{name}");
        assert!(level["convergence"]["keys"].as_u64() > Some(0), "{name}");
        if name == "linearizable" {
            for side in ["well", "minority", "majority"] {
                assert_eq!(level[side]["reads-stale"], 0, "a stale read at the linearizable level: {level}");
            }
        }
    }
}

#[test]
fn a_level_that_nobody_knows_is_refused() {
    let (code, _, why) = levels(&["--levels", "strict"]);
    assert_eq!(code, Some(2));
    assert!(why.contains("linearizable"), "{why}");
}
