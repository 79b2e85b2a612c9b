//! `synod saga`: what is wrong with a file is said in its line, without a cluster; and on a cluster a saga is done or undone.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::Demo;

fn synod(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synod")).arg("saga").args(arguments).output().expect("synod runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// The example of the documents.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/transfer.toml")
}

/// A file that is gone with the test.
struct Written(PathBuf);

impl Written {
    fn new(name: &str, text: &str) -> Written {
        let path = std::env::temp_dir().join(format!("synod-saga-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("written");
        Written(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_example_can_be_carried_out_and_is_told_step_by_step() {
    let output = synod(&["check", example().to_str().expect("UTF-8")]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for words in ["take", "undone by add ann 100", "after take", "from which on nothing is undone"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json = synod(&["check", "--json", example().to_str().expect("UTF-8")]);
    let request: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(request["steps"][0]["action"]["ops"][0]["add"]["by"], -100);
}

#[test]
fn a_file_with_a_mistake_is_refused_with_its_line_and_a_remedy() {
    let text = std::fs::read_to_string(example()).expect("the example");
    let broken = |from: &str, to: &str| {
        assert!(text.contains(from), "the example holds {from}");
        text.replace(from, to)
    };
    let cases = [
        ("undo", broken("compensation = [\"add ann 100\"]", ""), "no compensation", "say what undoes it"),
        (
            "cycle",
            broken("name = \"take\"\n", "name = \"take\"\nafter = [\"give\"]\n"),
            "wait for each other",
            "after",
        ),
        ("step", broken("after = [\"take\"]", "after = [\"tkae\"]"), "no step", "take"),
        ("verb", broken("add bob 100", "pay bob 100"), "pay bob 100", "add KEY N"),
        ("field", broken("pivot = true", "pivto = true"), "pivto", "waits-for-person"),
        ("toml", broken("pivot = true", "pivot = "), "", "[[step]]"),
    ];
    for (name, text, what, remedy) in cases {
        let file = Written::new(name, &text);
        let output = synod(&["check", file.path()]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(what) && said.contains(remedy), "{name}: {said}");
        let place = said.trim_start_matches("synod: ").trim_start_matches(file.path());
        let line: usize = place[1..].split(':').next().and_then(|line| line.parse().ok()).expect("a line");
        assert!(line > 10 && line <= text.lines().count(), "{name}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "one line: {said}");
        // `run` refuses it likewise, before any cluster is asked.
        let run = synod(&["run", file.path(), "--endpoints", "127.0.0.1:1"]);
        assert_eq!(run.status.code(), Some(2), "{name}: {run:?}");
    }
    let missing = synod(&["check", "/nowhere/x.toml"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_saga_is_done_or_undone_and_can_wait_for_a_person() {
    let demo = Demo::start("saga");
    demo.make_keyspaces(&["bank1", "bank2"]);
    let (code, out) =
        demo.synod(&["txn", "run", "--at", "bank1", "put ann 500", "--at", "bank2", "put bob 0"]);
    assert_eq!(code, 0, "{out}");
    let balances = || {
        let (_, out) =
            demo.synod(&["txn", "run", "--json", "--at", "bank1", "get ann", "--at", "bank2", "get bob"]);
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        [answer["answers"]["bank1"][0].clone(), answer["answers"]["bank2"][0].clone()]
    };

    let file = example();
    let (code, out) = demo.synod(&["saga", "run", file.to_str().expect("UTF-8"), "--wait"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("done"), "{out}");
    assert_eq!(balances(), ["400", "100"]);

    // bob is not there: what was taken is given back.
    let text = std::fs::read_to_string(&file).expect("the example");
    let refused = Written::new("refused", &text.replace("add bob 100", "add nobody 100"));
    let (code, out) = demo.synod(&["saga", "run", refused.path(), "--wait", "--json"]);
    assert_eq!(code, 1, "{out}");
    let saga: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    assert_eq!(saga["state"], "compensated", "{saga}");
    assert_eq!(balances(), ["400", "100"]);

    let waits = text.replace("name = \"give\"\n", "name = \"give\"\nwaits-for-person = true\n");
    let waits = Written::new("waits", &waits);
    let (code, out) = demo.synod(&["saga", "run", waits.path(), "--wait", "--json"]);
    assert_eq!(code, 1, "it waits for a person: {out}");
    let saga: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
    assert_eq!(saga["state"], "paused", "{saga}");
    assert_eq!(balances(), ["300", "100"], "the window in which money is missing");
    let id = saga["saga"].as_str().expect("a name");
    let (code, out) = demo.synod(&["saga", "resume", id]);
    assert_eq!(code, 0, "{out}");
    demo.eventually("the saga's end", || {
        let (_, out) = demo.synod(&["saga", "show", id, "--json"]);
        out.contains("\"done\"").then_some(()).filter(|()| balances() == ["300", "200"])
    });
    let (_, out) = demo.synod(&["saga", "list"]);
    assert!(out.contains(id) && out.contains("transfer"), "{out}");

    let unknown = Written::new("unknown", &text.replace("\"bank2\"", "\"bank7\""));
    let (code, _) = demo.synod(&["saga", "run", unknown.path()]);
    assert_eq!(code, 1, "there is no service bank7");
    let (code, _) = demo.synod(&["saga", "resume", id, "--step", "give"]);
    assert_eq!(code, 1, "nothing waits any more");
    assert_eq!(balances(), ["300", "200"]);
}
