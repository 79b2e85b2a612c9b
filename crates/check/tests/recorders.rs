//! The recorders in docs/history-format.md, taken from there and run: what they write is read and judged.

use std::path::{Path, PathBuf};
use std::process::Command;

use synod_check::history::{History, Outcome};
use synod_check::judge::{Consistency, judge};
use synod_check::linearizable::Limits;
use synod_check::{ReadLimits, import};

/// The first block of code in a language.
fn block(language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/history-format.md");
    let text = std::fs::read_to_string(path).expect("the format is documented");
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("a block in this language");
    rest.split_once("```").expect("blocks end").0.to_owned()
}

/// Runs a program in a folder of its own and judges the file `history` that it leaves there.
fn records(tool: &str, arguments: &[&str], file: &str, program: &str) {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&paths).any(|path| path.join(tool).exists()) {
        assert!(
            std::env::var_os("SYNOD_REQUIRE_TOOLS").is_none(),
            "{tool} is required here and not installed"
        );
        eprintln!("SKIPPED: {tool} is not installed");
        return;
    }
    let folder: PathBuf = std::env::temp_dir().join(format!("synod-recorder-{tool}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    std::fs::write(folder.join(file), program).expect("a file can be written");
    let run = Command::new(tool).args(arguments).arg(file).current_dir(&folder).output();
    let run = run.expect("it runs");
    assert!(run.status.success(), "{}\n{program}", String::from_utf8_lossy(&run.stderr));
    let written = std::fs::read(folder.join("history")).expect("a history was recorded");
    let (history, _) = import::any(written.as_slice(), ReadLimits::default()).expect("it is one");
    std::fs::remove_dir_all(&folder).expect("the folder goes");
    assert_three_operations(&history);
}

/// A put, a get that saw it, and a put whose answer was lost.
fn assert_three_operations(history: &History) {
    let [put, get, lost] = &history.operations[..] else { panic!("three operations: {history:?}") };
    assert_eq!(put.call.to_string(), "put x = 1");
    assert!(matches!(&get.outcome, Outcome::Ok(reply) if reply.value == Some(1.into())));
    assert!(matches!(&lost.outcome, Outcome::Unknown { error: Some(error) } if error == "timeout"));
    assert!(
        put.invoked.time.is_some() && put.invoked.time <= put.returned.and_then(|returned| returned.time)
    );
    let judgement = judge(history, None, None, &Limits::default(), &mut || false).expect("a kv");
    assert_eq!(judgement.strongest()[0], Consistency::Linearizable);
}

#[test]
fn the_recorder_in_python() {
    let run = r#"
recorder = Recorder("history", "kv")
put = recorder.invoke("alice", "put", key="x", value=1)
recorder.complete(put, "ok")
get = recorder.invoke("bob", "get", key="x")
recorder.complete(get, "ok", value=1)
lost = recorder.invoke("alice", "put", key="x", value=2)
recorder.complete(lost, "unknown", error="timeout")
"#;
    records("python3", &[], "program.py", &(block("python") + run));
}

#[test]
fn the_recorder_in_javascript() {
    let run = r#"
const recorder = new Recorder("history", "kv");
const put = recorder.invoke("alice", "put", { key: "x", value: 1 });
recorder.complete(put, "ok");
const get = recorder.invoke("bob", "get", { key: "x" });
recorder.complete(get, "ok", { value: 1 });
const lost = recorder.invoke("alice", "put", { key: "x", value: 2 });
recorder.complete(lost, "unknown", { error: "timeout" });
"#;
    records("node", &[], "program.js", &(block("js") + run));
}

#[test]
fn the_recorder_in_go() {
    let imports = "package main\nimport (\"encoding/json\"; \"io\"; \"os\"; \"sync\"; \"time\")\n";
    let run = r#"
func main() {
	file, err := os.Create("history")
	if err != nil { panic(err) }
	type fields = map[string]any
	recorder := NewRecorder(file, "kv")
	put := recorder.Invoke("alice", "put", fields{"key": "x", "value": 1})
	recorder.Complete(put, "ok", nil)
	get := recorder.Invoke("bob", "get", fields{"key": "x"})
	recorder.Complete(get, "ok", fields{"value": 1})
	lost := recorder.Invoke("alice", "put", fields{"key": "x", "value": 2})
	recorder.Complete(lost, "unknown", fields{"error": "timeout"})
}
"#;
    records("go", &["run"], "program.go", &(imports.to_owned() + &block("go") + run));
}
