//! `synod saga`: what is wrong with a file is said in its line, without a cluster; and on a cluster a saga is done or undone.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::Demo;

/// What `synod` exits with when it is not known whether something was done.
const UNKNOWN_OUTCOME: i32 = 3;

fn synod(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_synod")).arg("saga").args(arguments).output().expect("synod runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// The example of the documents.
fn example() -> PathBuf {
    examples().join("transfer.toml")
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
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

/// A till behind HTTP: it remembers what it has answered by idempotency key.
struct Till {
    address: SocketAddr,
    /// Keys and bodies, in the order in which they came.
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    is_over: Arc<AtomicBool>,
}

impl Till {
    /// It answers each key once with a new receipt, and does not answer the first request at all.
    fn open() -> Till {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (asked, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end) = (Arc::clone(&asked), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut receipts: BTreeMap<String, usize> = BTreeMap::new();
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let Some((key, body)) = request(&stream) else { continue };
                let next = receipts.len() + 1;
                let receipt = *receipts.entry(key.clone()).or_insert(next);
                let mut log = log.lock().expect("no panic");
                log.push((key, body));
                if log.len() > 1 {
                    let body = format!("{{\"receipt\":\"r{receipt}\"}}");
                    let length = body.len();
                    let head =
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                    let _ = (&stream).write_all((head + &body).as_bytes());
                }
            }
        });
        Till { address, asked, is_over }
    }
}

impl Drop for Till {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// The idempotency key and the body of one request.
fn request(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut key, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() { break } else { continue }
        };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => key = value.into(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((key, serde_json::from_slice(&body).ok()?))
}

#[test]
fn a_step_at_an_http_service_is_given_outputs_and_gives_its_own_to_a_keyspace() {
    let demo = Demo::start("saga-http");
    demo.make_keyspaces(&["train"]);
    let till = Till::open();
    carry_out_twice(&demo, &["--at", "train", "put seats 2; put price 42; put income 0"]);
    let url = format!("http://{}", till.address);
    demo.eventually("a participant", || {
        let (code, out) = demo.synod(&["participant", "add", "till", "--http", &url]);
        assert!([0, UNKNOWN_OUTCOME].contains(&code), "{out}");
        (code == 0).then_some(())
    });
    let train = |ops: &str| {
        let out = carry_out_twice(&demo, &["--json", "--at", "train", ops]);
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        answer["answers"]["train"].clone()
    };

    let file = examples().join("booking.toml");
    let saga = carry_out(&demo, file.to_str().expect("UTF-8"));
    assert_eq!(saga["state"], "done", "{saga}");
    let (_, out) = demo.synod(&["saga", "show", saga["saga"].as_str().expect("a name")]);
    assert!(out.contains("receipt"), "what came out of each step is shown: {out}");
    assert_eq!(train("get seats; get income; get ticket/r1"), json!(["1", "42", "ann"]));
    let first = till.asked.lock().expect("no panic").clone();
    assert!(
        first.len() >= 2 && first.iter().all(|asked| *asked == first[0]),
        "asked again, the same: {first:?}"
    );
    assert_eq!(first[0].1, json!({"passenger": "ann", "given": {"seat": ["42"]}}));

    // The ticket cannot be written: what was paid is given back by its receipt.
    let text = std::fs::read_to_string(&file).expect("the example");
    let refused =
        Written::new("no-income", &text.replace("\"add income ${seat/0}\"", "\"add nothing ${seat/0}\""));
    let saga = carry_out(&demo, refused.path());
    assert_eq!(saga["state"], "compensated", "{saga}");
    assert_eq!(train("get seats; get income; get ticket/r2"), json!(["1", "42", null]));
    let all = till.asked.lock().expect("no panic").clone();
    let (key, body) = all.last().expect("a refund");
    assert!(key.ends_with("/pay/compensate"), "{key}");
    assert_eq!(body["given"], json!({"seat": ["42"], "pay": {"receipt": "r2"}}));
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
        ("output", broken("add bob 100", "add bob ${taek/0}"), "no step taek", "give"),
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
    let transaction = |arguments: &[&str]| carry_out_twice(&demo, arguments);
    transaction(&["--at", "bank1", "put ann 500", "--at", "bank2", "put bob 0"]);
    let balances = || {
        let out = transaction(&["--json", "--at", "bank1", "get ann", "--at", "bank2", "get bob"]);
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        [answer["answers"]["bank1"][0].clone(), answer["answers"]["bank2"][0].clone()]
    };

    let file = example();
    let saga = carry_out(&demo, file.to_str().expect("UTF-8"));
    assert_eq!(saga["state"], "done", "{saga}");
    assert_eq!(balances(), ["400", "100"]);

    // bob is not there: what was taken is given back.
    let text = std::fs::read_to_string(&file).expect("the example");
    let refused = Written::new("refused", &text.replace("add bob 100", "add nobody 100"));
    let saga = carry_out(&demo, refused.path());
    assert_eq!(saga["state"], "compensated", "{saga}");
    assert_eq!(balances(), ["400", "100"]);

    let waits = text.replace("name = \"give\"\n", "name = \"give\"\nwaits-for-person = true\n");
    let waits = Written::new("waits", &waits);
    let saga = carry_out(&demo, waits.path());
    assert_eq!(saga["state"], "paused", "{saga}");
    assert_eq!(balances(), ["300", "100"], "the window in which money is missing");
    let id = saga["saga"].as_str().expect("a name");
    let (code, out) = demo.synod(&["saga", "resume", id]);
    assert!([0, UNKNOWN_OUTCOME].contains(&code), "{out}");
    demo.eventually("the saga's end", || {
        let (_, out) = demo.synod(&["saga", "show", id, "--json"]);
        if code == UNKNOWN_OUTCOME && out.contains("\"paused\"") {
            demo.synod(&["saga", "resume", id]);
        }
        out.contains("\"done\"").then_some(()).filter(|()| balances() == ["300", "200"])
    });
    let known = |arguments: &[&str]| {
        demo.eventually("an outcome that is known", || {
            Some(demo.synod(arguments)).filter(|(code, _)| *code != UNKNOWN_OUTCOME)
        })
    };
    let (_, out) = known(&["saga", "list"]);
    assert!(out.contains(id) && out.contains("transfer"), "{out}");

    let unknown = Written::new("unknown", &text.replace("\"bank2\"", "\"bank7\""));
    let (code, _) = known(&["saga", "run", unknown.path()]);
    assert_eq!(code, 1, "there is no service bank7");
    let (code, _) = known(&["saga", "resume", id, "--step", "give"]);
    assert_eq!(code, 1, "nothing waits any more");
    assert_eq!(balances(), ["300", "200"]);
}

/// Runs a transaction that may be done twice, until it is done. On a machine that is busy with other tests a leader may
/// be lost in between: then nobody knows whether it was done, and until the next one has ended it, it is in the way of itself.
fn carry_out_twice(demo: &Demo, arguments: &[&str]) -> String {
    demo.eventually("a transaction that is done", || {
        let (code, out) = demo.synod(&[&["txn", "run"], arguments].concat());
        assert!(code == 0 || code == UNKNOWN_OUTCOME || out.contains(" is locked by "), "{code}: {out}");
        (code == 0).then_some(out)
    })
}

/// Runs a saga until it is over or waits for a person. If it is not known whether it was begun, as when a leader is lost
/// while the machine is busy with other tests, this does what the command says: it looks before it repeats.
fn carry_out(demo: &Demo, file: &str) -> Value {
    let sagas = || {
        demo.eventually("a list of sagas", || {
            let (_, out) = demo.synod(&["saga", "list", "--json"]);
            serde_json::from_str::<Value>(&out).ok()?["sagas"].as_array().cloned()
        })
    };
    let before = sagas().len();
    demo.eventually("a saga's end", || {
        let begun = sagas().get(before).cloned();
        let saga = begun.or_else(|| {
            let (code, out) = demo.synod(&["saga", "run", file, "--wait", "--json"]);
            let saga = serde_json::from_str::<Value>(&out).ok();
            let is_done = saga.as_ref().is_some_and(|saga| saga["state"] == "done");
            assert!(code == UNKNOWN_OUTCOME || (code == 0) == is_done, "{code}: {out}");
            saga
        });
        saga.filter(|saga| saga["state"] != "running" && saga["state"] != "compensating")
    })
}
