//! `synod check` as a build server meets it: exit codes, reports, and which line is wrong.

use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const HEADER: &str = "{\"synod-history\":1,\"object\":\"register\"}\n";
const WRITE: &str = "{\"event\":\"invoke\",\"id\":0,\"client\":\"alice\",\"op\":\"write\",\"value\":1}\n{\"event\":\"ok\",\"id\":0}\n";

/// A register of which 1 was written, and then this was read.
fn history(read: &str) -> String {
    format!(
        "{HEADER}{WRITE}{{\"event\":\"note\",\"text\":\"leader killed\"}}\n{{\"event\":\"invoke\",\"id\":1,\"client\":\"bob\",\"op\":\"read\"}}\n{{\"event\":\"ok\",\"id\":1,\"value\":{read}}}\n"
    )
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("synod-check-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn holding(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("it was written")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn check(arguments: &[&str]) -> (i32, String, String) {
    check_with(arguments, "")
}

fn check_with(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_synod"))
        .arg("check")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("synod runs");
    // Whoever refuses its flags does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("synod ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

#[test]
fn a_linearizable_history_ends_with_0() {
    let folder = Folder::new("valid");
    let (code, out, err) = check(&[&folder.holding("h", &history("1"))]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("Strongest that hold: linearizable."), "{out}");
    assert!(out.contains("valid: linearizable was required"), "{out}");
}

#[test]
fn a_stale_read_ends_with_1_and_says_why_and_what_holds() {
    let folder = Folder::new("invalid");
    let (code, out, _) = check(&[&folder.holding("h", &history("null"))]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("read") && out.contains("bob"), "{out}");
    assert!(out.contains("Strongest that hold: sequential, eventual."), "{out}");
    assert!(out.contains("invalid: linearizable was required"), "{out}");
}

#[test]
fn the_bar_is_what_is_required() {
    let folder = Folder::new("bar");
    let stale = folder.holding("h", &history("null"));
    assert_eq!(check(&[&stale, "--require", "sequential"]).0, 0);
    assert_eq!(check(&[&stale, "--require", "linearizable"]).0, 1);
    assert_eq!(check(&[&stale, "--model", "sequential"]).0, 0);
    // A bar beside the only model asked for is judged as well.
    assert_eq!(check(&[&stale, "--model", "sequential", "--require", "linearizable"]).0, 1);
}

#[test]
fn what_cannot_be_decided_ends_with_2_and_says_what_stopped_it() {
    let folder = Folder::new("unknown");
    let searched = history("1")
        + "{\"event\":\"invoke\",\"id\":2,\"client\":\"eve\",\"op\":\"cas\",\"expect\":1,\"value\":1}\n{\"event\":\"ok\",\"id\":2,\"value\":true}\n";
    let (code, out, _) =
        check(&[&folder.holding("h", &searched), "--memory-mib", "0", "--model", "linearizable"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("budget of memory"), "{out}");
    assert!(out.contains("unknown: linearizable was required"), "{out}");
}

#[test]
fn flags_that_make_no_sense_end_with_3_and_name_what_there_is() {
    let folder = Folder::new("flags");
    let fine = folder.holding("h", &history("1"));
    for (arguments, words) in [
        (vec![fine.as_str(), "--require", "perfect"], "linearizable, sequential"),
        (vec![fine.as_str(), "--model", "perfect"], "linearizable, sequential"),
        (vec![fine.as_str(), "--object", "teapot"], "register, kv"),
        (vec![fine.as_str(), "--time", "soon"], "--time"),
        (vec![fine.as_str(), "--object", "queue"], "operation of a queue"),
        (vec![], "<FILE>"),
        (vec!["/nowhere/at/all"], "cannot read /nowhere/at/all"),
        (vec![fine.as_str(), "--follow", "--json"], "--follow"),
    ] {
        let (code, _, err) = check(&arguments);
        assert_eq!(code, 3, "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
}

#[test]
fn a_wrong_line_is_named_by_its_number() {
    let folder = Folder::new("lines");
    for (text, words) in [
        (format!("{HEADER}{WRITE}oops\n"), "line 4: "),
        (
            format!("{HEADER}{{\"event\":\"ok\",\"id\":9}}\n"),
            "line 2: operation 9 returns, but no earlier line invokes it",
        ),
        (format!("{HEADER}{WRITE}{WRITE}"), "line 4: operation 0 was invoked before"),
        (format!("{HEADER}{WRITE}{{\"event\":\"inv"), "line 4: the file ends in the middle of this line"),
        (format!("{HEADER}{{\"event\":\"invoke\",\"id\":\"zero\"}}\n"), "line 2: `id` is \"zero\""),
        (format!("{HEADER}{{\"event\":\"sneeze\",\"id\":0}}\n"), "line 2: `event` is \"sneeze\""),
        ("{\"synod-history\":99,\"object\":\"kv\"}\n".into(), "line 1: this is a history of version 99"),
        (history("1").replace("\"read\"", "\"dance\""), "dance"),
    ] {
        let (code, _, err) = check(&[&folder.holding("h", &text)]);
        assert_eq!(code, 3, "{text}{err}");
        assert!(err.contains(words), "`{words}` is not in: {err}");
    }
    assert_eq!(check(&[&folder.holding("empty", "")]).0, 3);
    assert_eq!(check(&[&folder.holding("nothing", HEADER)]).0, 0, "a history of nothing has every order");
}

#[test]
fn json_holds_the_answer_for_every_model_and_the_exit_code() {
    let folder = Folder::new("json");
    let (code, out, _) = check(&[&folder.holding("h", &history("null")), "--json"]);
    let json: Value = serde_json::from_str(&out).expect("one JSON object");
    assert_eq!((code, &json["exit"]), (1, &Value::from(1)));
    assert_eq!(json["required"], "linearizable");
    assert_eq!((&json["object"], &json["operations"]), (&"register".into(), &2.into()));
    let models = json["models"].as_array().expect("an entry per model");
    assert_eq!((&models[0]["model"], &models[0]["verdict"]), (&"linearizable".into(), &"no".into()));
    assert_eq!(models[0]["operations"], serde_json::json!([0, 1]));
    assert_eq!((&models[1]["model"], &models[1]["verdict"]), (&"sequential".into(), &"yes".into()));
}

#[test]
fn junit_has_a_failed_case_for_a_model_that_was_required_and_fails() {
    let folder = Folder::new("junit");
    let (stale, path) = (folder.holding("h", &history("null")), folder.holding("out.xml", ""));
    assert_eq!(check(&[&stale, "--require", "linearizable", "--junit", &path]).0, 1);
    let failed = folder.read("out.xml");
    assert!(failed.starts_with("<?xml") && failed.contains("<failure"), "{failed}");
    assert_eq!(check(&[&stale, "--require", "sequential", "--junit", &path]).0, 0);
    let passed = folder.read("out.xml");
    assert!(passed.contains("sequential") && !passed.contains("<failure"), "{passed}");
    // Without a requirement it fails as the exit code does.
    assert_eq!(check(&[&stale, "--junit", &path]).0, 1);
    assert!(folder.read("out.xml").contains("<failure"));
    // A model that follows from another one is a case as well.
    let queue = "{\"synod-history\":1,\"object\":\"queue\"}\n";
    assert_eq!(check(&[&folder.holding("q", queue), "--require", "causal", "--junit", &path]).0, 0);
    assert!(folder.read("out.xml").contains("tests=\"1\" failures=\"0\""), "{}", folder.read("out.xml"));
    assert_eq!(check(&[&stale, "--junit", "/nowhere/at/all.xml"]).0, 3);
}

#[test]
fn a_reader_who_has_seen_enough_changes_no_verdict() {
    let folder = Folder::new("pipe");
    let stale = folder.holding("h", &history("null"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["check", &stale])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("synod runs");
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().expect("synod ends");
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(1), ""));
}

#[test]
fn the_page_shows_the_contradiction_with_the_fault_on_it_and_needs_nothing_else() {
    let folder = Folder::new("html");
    let (stale, path) = (folder.holding("h", &history("null")), folder.holding("why.html", ""));
    assert_eq!(check(&[&stale, "--html", &path]).0, 1);
    let page = folder.read("why.html");
    for part in ["<svg", "alice", "bob", "leader killed", "Why it is not linearizable"] {
        assert!(page.contains(part), "`{part}` is not in: {page}");
    }
    assert!(!page.contains("http"), "something is fetched from elsewhere: {page}");
}

#[test]
fn a_history_that_is_followed_is_judged_as_it_comes() {
    let (code, out, _) = check_with(&["-", "--follow"], &history("1"));
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("2 operations, linearizable"), "{out}");
    let (code, out, _) = check_with(&["-", "--follow"], &history("null"));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("line 6: not linearizable"), "{out}");
    let (code, _, err) = check_with(&["-", "--follow"], &format!("{HEADER}nonsense\n"));
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("line 2"), "{err}");
}

#[test]
fn a_file_that_grows_is_followed_until_it_is_idle() {
    let folder = Folder::new("grows");
    let whole = history("1");
    let (first, second) = whole.split_at(whole.len() / 2);
    let path = folder.holding("h", first);
    let mut child = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["check", &path, "--follow", "--idle", "1500ms"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("synod runs");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("it is there");
    file.write_all(second.as_bytes()).expect("written");
    let mut out = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("a pipe"), &mut out).expect("it ends");
    assert!(child.wait().expect("it ends").success(), "{out}");
    assert!(out.contains("2 operations, linearizable"), "{out}");
}
