//! A real member's flight recording, opened again: after a kill, and on the page.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use synod_browser::Browser;

/// The longest that anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn synod(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synod")).args(arguments).output().expect("synod runs")
}

/// Ends its process with SIGKILL.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

/// The recording of a member alone in its cluster, which took three puts and was killed.
fn recording(folder: &Path) -> PathBuf {
    let free = || TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let (peers, clients) = (free(), free());
    let tape = folder.join("tape");
    let serve = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["serve", "--name", "n1", "--member", &format!("n1={peers},{clients}")])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--flight-recorder")
        .arg(&tape)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let _killed = Killed(serve);
    let begun = Instant::now();
    for key in ["a", "b", "c"] {
        while !synod(&["put", "--endpoints", &clients.to_string(), key, "1"]).status.success() {
            assert!(begun.elapsed() < PATIENCE, "the member takes no put");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    tape
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("synod-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[test]
fn the_recording_of_a_killed_member_has_what_it_acknowledged() {
    let folder = folder("killed");
    let tape = recording(&folder);
    let output = synod(&["replay", "--text", &tape.display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let header = lines.next().expect("a header");
    assert_eq!((&header["protocol"], &header["recorded"]), (&"raft".into(), &"n1".into()));
    assert_eq!(header["marks"][0]["kind"], "leader", "{header}");
    let last = lines.rfind(|event| event["k"] == "state").expect("a state");
    let committed = last["s"]["committed"].as_u64().expect("a number");
    assert!(committed >= 4, "an entry that begins the term and three puts: {last}");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_recording_opens_on_the_page() {
    let Some(browser) = Browser::start() else { return };
    let folder = folder("opened");
    let tape = recording(&folder);
    let mut replay = Command::new(env!("CARGO_BIN_EXE_synod"));
    replay.args(["replay", "--page", "127.0.0.1:0"]).arg(&tape).stdout(Stdio::piped());
    let mut replay = Killed(replay.spawn().expect("it starts"));
    // Held until the end: whoever prints into a pipe that nobody holds is ended.
    let mut said = BufReader::new(replay.0.stdout.take().expect("a pipe")).lines();
    let address = said.find_map(|line| {
        let line = line.expect("text");
        line.strip_prefix("page").map(|rest| rest.trim().to_owned())
    });
    let mut page = browser.page(1440, 900);
    page.open(&address.expect("it says where the page is"));
    page.wait_for("the page", "document.getElementById('lab').dataset.ready");
    page.press("End");
    page.wait_for("the member at its end", "document.getElementById('lab').dataset.leader === 'n1'");
    let summary = page.text("#summary");
    assert!(summary.contains("n1 leads term 1"), "{summary}");
    page.picture("recording");
    page.assert_clean();
    std::fs::remove_dir_all(&folder).expect("removed");
}
