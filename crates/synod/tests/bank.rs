//! `synod demo bank`: members and coordinators die, and the total is the same at every moment.

use serde_json::Value;
use std::process::Command;

fn demo(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["demo", "bank", "--json", "--for", "9s", "--kill-every", "2500ms"])
        .args(arguments)
        .output()
        .expect("synod runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let found: Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{found}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(found["wrong"], Value::Array(vec![]), "{found}");
    found
}

#[test]
fn money_is_conserved_at_every_read_while_coordinators_are_killed() {
    let history = std::env::temp_dir().join(format!("synod-bank-{}.jsonl", std::process::id()));
    let path = history.to_str().expect("UTF-8");
    let found = demo(&["--kill", "coordinator", "--out", path]);
    let count = |value: &Value| value.as_u64().expect("a count");
    assert!(count(&found["coordinators-killed"]) >= 1, "{found}");
    assert!(count(&found["committed"]) > 0 && count(&found["money"]["reads"]) > 0, "{found}");
    assert_eq!(found["money"]["wrong-reads"], 0, "{found}");
    assert_eq!((&found["total"], &found["linearizable"]), (&16_000.into(), &true.into()), "{found}");
    // What was written is what was judged.
    let checked = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["check", path, "--require", "linearizable"])
        .output()
        .expect("synod runs");
    std::fs::remove_file(&history).expect("removed");
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn sagas_end_with_all_of_the_money_though_members_are_killed() {
    let found = demo(&["--saga", "--kill", "members"]);
    assert_eq!((&found["total"], &found["left-open"]), (&16_000.into(), &Value::Array(vec![])), "{found}");
    assert!(found["kills"].as_u64().is_some_and(|kills| kills >= 1), "{found}");
}
