//! The commands whose figures are in docs/measurements.md, with small counts.

use serde_json::Value;
use std::process::{Command, Output};

fn synod(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synod")).arg("sim").args(arguments).output().expect("synod runs")
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("it is text")
}

fn json(arguments: &[&str]) -> Value {
    let output = synod(arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

#[test]
fn costs_are_told_for_each_number_of_members() {
    let found = json(&["costs", "--protocols", "raft,zab", "--nodes", "3,5", "--commands", "20", "--json"]);
    let rows = found["costs"].as_array().expect("rows");
    let messages: Vec<f64> =
        rows.iter().map(|row| row["alone"]["messages"].as_f64().expect("a figure")).collect();
    assert_eq!(messages.len(), 4);
    assert!(messages[2] > messages[0] && messages[3] > messages[1], "{messages:?}");
    let output = synod(&["costs", "--protocols", "viewstamped", "--nodes", "3", "--commands", "20"]);
    assert!(
        text(&output).contains("3 members") && text(&output).contains("2 PrepareOk"),
        "{}",
        text(&output)
    );
}

#[test]
fn failovers_are_told_as_a_distribution_with_the_slowest_run() {
    let found = json(&["failover", "--protocols", "raft", "--nodes", "3", "--seeds", "6", "--json"]);
    let rows = found["failovers"].as_array().expect("rows");
    assert_eq!(rows.len(), 2, "a crash and a hang");
    for row in rows {
        let ms = |name: &str| row["ms"][name].as_f64().expect("a figure");
        assert!(0.0 < ms("min") && ms("min") <= ms("median") && ms("median") <= ms("max"), "{row}");
        assert_eq!((&row["runs"], &row["failed"]), (&6.into(), &Value::Array(vec![])));
        assert!(row["slowest"].as_str().expect("an address").contains("#sim&v=1&s="));
    }
    let output = synod(&["failover", "--protocols", "zab", "--seeds", "2", "--threads", "1"]);
    assert!(text(&output).contains("median") && text(&output).contains("hang    zab"), "{}", text(&output));
}

#[test]
fn the_matrix_of_levels_and_faults_has_a_cell_for_each() {
    // Its status says whether a lying disk was seen to break something, for which one seed may be too few.
    let found = synod(&["weak", "--matrix", "--seeds", "1", "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).expect("it is JSON");
    let cells = found.as_array().expect("cells");
    let named = |name: &str| cells.iter().filter(|cell| cell["fault"] == name).count();
    for name in ["none", "pause", "torn-write", "disk-full", "failed-sync", "rot", "clocks-apart", "all"] {
        assert_eq!(named(name), 4, "{name}");
    }
    for cell in cells {
        let is_borne = cell["fault"] != "lying-disk";
        assert!(!is_borne || (cell["broken"] == 0 && cell["as_expected"] == true), "{cell}");
        assert!(cell["runs"] == 0 || cell["answered"].as_u64() > Some(0), "{cell}");
    }
    let output = synod(&["weak", "--faults", "gremlins"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("no fault `gremlins`") && said.contains("clocks-apart"), "{said}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for arguments in [
        ["costs", "--protocols", "gossip"],
        ["costs", "--nodes", "16"],
        ["costs", "--commands", "0"],
        ["failover", "--protocols", "gossip"],
        ["failover", "--nodes", "2"],
    ] {
        let output = synod(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}
