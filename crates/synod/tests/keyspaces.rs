//! Keyspaces on the command line, and the examples of docs/http-api.md.

mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Demo, tool};

/// A folder of its own for a test's files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("synod-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `synod`: exit code, standard output, standard error.
fn synod(endpoints: &str, folder: &Folder, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(arguments)
        .current_dir(&folder.0)
        .env("SYNOD_ENDPOINTS", endpoints)
        .output()
        .expect("synod runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn keys_are_written_and_read_in_keyspaces_and_sessions() {
    let demo = Demo::start("keyspaces");
    let folder = Folder::new("keyspaces-files");
    let endpoints: Vec<&str> = demo.endpoints.split(',').collect();
    let at = |endpoint: &str, arguments: &[&str]| synod(endpoint, &folder, arguments);
    let all = |arguments: &[&str]| at(&demo.endpoints, arguments);
    let says = |arguments: &[&str], expected: &str| {
        let (code, out, err) = all(arguments);
        assert_eq!((code, out.as_str()), (0, expected), "synod {arguments:?}: {err}");
    };
    let refused = |arguments: &[&str], code: i32, why: &str| {
        let (found, out, err) = all(arguments);
        assert_eq!((found, out.as_str()), (code, ""), "synod {arguments:?}: {err}");
        assert!(err.contains(why), "synod {arguments:?}: {err}");
    };
    says(&["keyspace", "list"], "there is no keyspace: `synod keyspace create` makes one");
    for (name, model) in
        [("names", "linearizable"), ("config", "sequential"), ("feed", "causal"), ("cache", "eventual")]
    {
        says(&["keyspace", "create", name, "--model", model], &format!("keyspace {name}, {model}"));
        says(&["put", "k", "a b/c", "--keyspace", name], &format!("{name}/k is written"));
        says(
            &["get", "k", "--keyspace", name, "--consistency", "eventual", "--endpoints", endpoints[0]],
            "a b/c",
        );
    }
    let (_, list, _) = all(&["keyspace", "list", "--json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list["keyspaces"].as_array().map(Vec::len), Some(4));

    // One of two wins.
    says(&["put", "ada", "one", "--keyspace", "names", "--if-absent"], "names/ada is written");
    refused(&["put", "ada", "two", "--keyspace", "names", "--if-absent"], 1, "is not what \"if\" says");
    says(&["put", "ada", "two", "--keyspace", "names", "--if", "one"], "names/ada is written");
    says(&["get", "ada", "--keyspace", "names"], "two");

    // A session goes from member to member, by a file.
    for (space, rounds) in [("feed", 6), ("config", 6)] {
        for round in 0..rounds {
            let (writer, reader) = (endpoints[round % 3], endpoints[(round + 1) % 3]);
            let value = round.to_string();
            let written = at(writer, &["put", "n", &value, "--keyspace", space, "--session", space]);
            assert_eq!(written.0, 0, "{written:?}");
            let read = at(reader, &["get", "n", "--keyspace", space, "--session", space]);
            assert_eq!((read.0, read.1), (0, value), "{}", read.2);
        }
    }
    refused(
        &["get", "n", "--keyspace", "config", "--session", "feed"],
        1,
        "each keyspace has sessions of its own",
    );
    let token = std::fs::read_to_string(folder.0.join("feed")).expect("the session");
    let (code, out, err) = all(&["get", "n", "--keyspace", "feed", "--session", token.trim()]);
    assert_eq!((code, out.as_str()), (0, "5"), "{err}");
    assert!(err.starts_with("session: "), "the next token is said: {err}");
    let mut forged = token.trim().to_owned();
    forged.replace_range(20..22, if &forged[20..22] == "AA" { "BB" } else { "AA" });
    refused(&["get", "n", "--keyspace", "feed", "--session", &forged], 1, "session token");
    refused(&["get", "n", "--keyspace", "cache", "--session", token.trim()], 1, "has no sessions");

    // Kinds.
    for value in ["2", "-5"] {
        says(
            &["put", "n", value, "--keyspace", "cache", "--kind", "counter", "--endpoints", endpoints[0]],
            "cache/n is written",
        );
    }
    says(&["get", "n", "--keyspace", "cache", "--kind", "counter", "--endpoints", endpoints[0]], "-3");
    let set = |arguments: &[&str]| {
        let more = ["--keyspace", "cache", "--kind", "set", "--endpoints", endpoints[0]];
        let arguments: Vec<&str> = arguments.iter().chain(&more).copied().collect();
        all(&arguments)
    };
    for (element, more) in [("tea", None), ("milk", None), ("milk", Some("--remove"))] {
        let arguments: Vec<&str> = ["put", "cart", element].into_iter().chain(more).collect();
        assert_eq!(set(&arguments).0, 0);
    }
    assert_eq!(set(&["get", "cart"]).1, "tea");
    let (_, siblings, _) = {
        all(&["put", "note", "one", "--keyspace", "feed", "--kind", "siblings", "--endpoints", endpoints[0]]);
        all(&[
            "get",
            "note",
            "--keyspace",
            "feed",
            "--kind",
            "siblings",
            "--json",
            "--endpoints",
            endpoints[0],
        ])
    };
    let siblings: Value = serde_json::from_str(&siblings).expect("JSON");
    let context = siblings["context"].as_str().expect("a context");
    let replace = ["put", "note", "two", "--keyspace", "feed", "--kind", "siblings", "--context", context];
    assert_eq!(at(endpoints[0], &replace).0, 0);
    says(&["get", "note", "--keyspace", "feed", "--kind", "siblings", "--endpoints", endpoints[0]], "two");

    // Lists.
    for i in 0..5 {
        let key = format!("list/{i}");
        assert_eq!(all(&["put", &key, "x", "--keyspace", "config"]).0, 0);
    }
    let (_, listed, _) = all(&["get", "--prefix", "list/", "--keyspace", "config", "--limit", "3", "--json"]);
    let keys: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["key"].clone())
        .collect();
    assert_eq!(keys, [json!("list/0"), json!("list/1"), json!("list/2")]);

    // What is no.
    refused(&["get", "nothing", "--keyspace", "names"], 1, "there is no key `nothing` in names");
    refused(
        &["get", "k", "--keyspace", "feed", "--consistency", "linearizable"],
        1,
        "is causal and cannot give linearizable",
    );
    refused(&["get", "k", "--keyspace", "none"], 1, "nothing called `none`");
    refused(&["put", "n", "many", "--keyspace", "feed", "--kind", "counter"], 2, "adds a whole number");
    refused(&["get", "k", "--consistency", "causal"], 2, "--keyspace");
    refused(&["keyspace", "create", "x", "--model", "strong"], 2, "strong");
    refused(&["keyspace", "drop", "names"], 1, "holds keys");
    std::fs::write(folder.0.join("diary"), "dear diary").expect("written");
    refused(&["get", "k", "--keyspace", "feed", "--session", "diary"], 2, "left as it is");
    let (code, _, err) = at("127.0.0.1:1", &["get", "k", "--keyspace", "feed", "--timeout", "300ms"]);
    assert_eq!(code, 3, "{err}");
    says(&["del", "k", "--keyspace", "names"], "names/k is deleted");
    refused(&["get", "k", "--keyspace", "names"], 1, "there is no key");
    says(&["keyspace", "drop", "names", "--force"], "dropped names");
}

/// The commands of a document's consoles, each with what it prints.
fn commands(document: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for console in document.split("```console\n").skip(1) {
        for line in console.split("```").next().unwrap_or_default().lines() {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push((command.to_owned(), String::new())),
                (None, Some((_, said))) => said.push_str(line),
                (None, None) => panic!("a console begins with a command: {line}"),
            }
        }
    }
    found
}

/// Whether a text is what was expected, where `…` stands for anything.
fn is_like(text: &str, expected: &str) -> bool {
    let mut parts = expected.split('\u{2026}');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn what_the_document_shows_is_what_happens() {
    if !tool("curl") {
        return;
    }
    let demo = Demo::start("http-document");
    let folder = Folder::new("http-document-files");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/http-api.md");
    let mut document = std::fs::read_to_string(path).expect("the document");
    for (member, endpoint) in demo.endpoints.split(',').enumerate() {
        document = document.replace(&format!("127.0.0.1:2379{}", member + 1), endpoint);
    }
    let commands = commands(&document);
    assert!(commands.len() > 20, "only {}", commands.len());
    // One shell for all of them: what one sets, others use.
    let mut script =
        String::from("synod() { \"$SYNOD\" \"$@\"; }\ncurl() { command curl --silent --retry 5 \"$@\"; }\n");
    for (command, _) in &commands {
        script.push_str(&format!("{command}\nprintf '\\036'\n"));
    }
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&folder.0)
        .env("SYNOD_ENDPOINTS", &demo.endpoints)
        .env("SYNOD", env!("CARGO_BIN_EXE_synod"))
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.split('\u{1e}').collect();
    for ((command, expected), said) in commands.iter().zip(&said) {
        assert!(
            is_like(said.trim(), expected),
            "{command}\nsays      {said}\nand not   {expected}\n{errors}"
        );
    }
    assert_eq!(said.len(), commands.len() + 1, "{errors}");
}

#[test]
fn what_is_not_alike_is_found() {
    assert!(is_like("{\"id\":12}", "{\"id\":\u{2026}}") && is_like("same", "same"));
    assert!(
        !is_like("{\"id\":12", "{\"id\":\u{2026}}") && !is_like("same", "sam") && !is_like("a", "b\u{2026}")
    );
}
