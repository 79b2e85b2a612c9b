//! The walls of ARCHITECTURE.md, checked: which crate may use which, what the pure crates may not
//! see, and under which licences everything comes that is linked in.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may use whom, below the binary. A missing arrow is a wall.
const ARROWS: &[(&str, &[&str])] = &[
    ("synod-protocols", &[]),
    ("synod-check", &[]),
    ("synod-store", &[]),
    ("synod-bench", &[]),
    ("synod-node", &["synod-protocols", "synod-store"]),
    ("synod-sim", &["synod-protocols", "synod-store", "synod-node", "synod-check"]),
    ("synod-server", &["synod-protocols", "synod-store", "synod-node"]),
    ("synod-lab", &["synod-sim", "synod-check", "synod-mutants"]),
    ("synod-mutants", &["synod-protocols"]),
];

/// What no pure crate may name outside its tests: clocks, sockets, files, threads, the environment,
/// loggers, ordering accidents, entropy.
const IMPURE: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime",
    "Instant::now",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "std::io",
    "HashMap",
    "HashSet",
    "tokio",
    "tracing::",
    "log::info",
    "println!",
    "eprintln!",
    "rand::",
    "async fn",
];

const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
    "BSL-1.0",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[test]
fn arrows_point_downwards_only() {
    let metadata = metadata(&["--no-deps"]);
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for package in metadata["packages"].as_array().expect("packages") {
        let Some(allowed) = allowed.get(text(package, "name")) else { continue };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let (name, production) = (text(dependency, "name"), dependency["kind"].as_str() != Some("dev"));
            let ours = name == "synod" || name.starts_with("synod-");
            assert!(
                !(ours && production) || allowed.contains(&name),
                "{} must not use {name}: see the house in ARCHITECTURE.md",
                text(package, "name")
            );
        }
    }
}

/// The part of a source file that ships: without comments and without what follows `#[cfg(test)]`
/// on a module.
fn shipped(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = source.find("#[cfg(test)]\nmod ").unwrap_or(source.len());
    source[..end].lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn sources(folder: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, visit);
        } else if path.extension().is_some_and(|e| e == "rs") {
            visit(&path, &std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn pure_crates_see_no_clock_socket_file_thread_or_unordered_map() {
    for name in ["protocols", "store", "node"] {
        sources(&root().join("crates").join(name).join("src"), &mut |path, source| {
            if path.file_name().is_some_and(|f| f == "tests.rs") {
                return;
            }
            for (number, line) in shipped(source) {
                for word in IMPURE {
                    assert!(
                        !line.contains(word),
                        "{}:{}: `{word}` in a pure crate",
                        path.display(),
                        number + 1
                    );
                }
            }
        });
    }
}

#[test]
fn protocols_and_store_do_not_link_the_standard_library() {
    for name in ["protocols", "store"] {
        let source =
            std::fs::read_to_string(root().join("crates").join(name).join("src/lib.rs")).expect("lib.rs");
        assert!(source.contains("#![no_std]"), "crates/{name} must be no_std");
    }
}

#[test]
fn protocols_do_not_import_each_other() {
    let folder = root().join("crates/protocols/src");
    let protocols: Vec<String> = std::fs::read_dir(&folder)
        .expect("protocols")
        .filter_map(|entry| {
            let path = entry.expect("an entry").path();
            path.is_dir().then(|| path.file_name().expect("a name").to_string_lossy().into_owned())
        })
        .collect();
    assert!(!protocols.is_empty());
    for protocol in &protocols {
        sources(&folder.join(protocol), &mut |path, source| {
            for other in protocols.iter().filter(|other| *other != protocol) {
                let import = format!("crate::{other}");
                assert!(
                    shipped(source).all(|(_, line)| !line.contains(&import)),
                    "{}: {import}",
                    path.display()
                );
            }
        });
    }
}

/// Whether a licence expression can be satisfied by what we allow: any alternative of each `OR`.
fn allowed(expression: &str) -> bool {
    expression
        .replace('/', " OR ")
        .replace(['(', ')'], "")
        .split(" OR ")
        .any(|alternative| alternative.split(" AND ").all(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn every_dependency_has_a_licence_that_we_allow() {
    let metadata = metadata(&[]);
    for package in metadata["packages"].as_array().expect("packages") {
        let licence = text(package, "license");
        assert!(allowed(licence), "{} is under `{licence}`", text(package, "name"));
    }
}
