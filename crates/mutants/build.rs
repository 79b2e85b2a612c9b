//! Generates one copy of a protocol's sources for each file in its folder of `bugs/`, with that
//! file's patch applied.
//! A patch of a module that protocols share gives the copy one of its own.
//! A patch that no longer applies stops the build: the bug would otherwise be tested no more.
//!
//! A bug's file has this form, with one or more changes:
//!
//! ```text
//! what the mistake is, on the first line
//! in election.rs
//! <<<<
//! text that occurs exactly once in the file
//! ====
//! what stands there instead
//! >>>>
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Protocols with a folder of bugs.
const PROTOCOLS: [&str; 4] = ["multi_paxos", "raft", "viewstamped", "zab"];
/// Protocols whose bugs are no part of this crate: their tests take in one driver for each copy, since their
/// processes have types of their own. With the folder of the driver below `protocols/tests`, and its files.
const DRIVEN: [(&str, &str, &[&str]); 3] = [
    ("commit", "atomic_commit", &["party", "world", "script", "random"]),
    ("saga", "saga", &["world", "script", "random"]),
    ("weak", "weak", &["world", "script", "random"]),
];
/// What the laboratory's lessons are about: all that there is without the feature `all`.
const LESSONS: [&str; 1] = ["raft/old_term_counted.txt"];

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed={}", here.join("bugs").display());
    let sources = here.join("../protocols/src");
    let all = env::var_os("CARGO_FEATURE_ALL").is_some();
    let mut modules = String::new();
    for protocol in PROTOCOLS {
        let mut bugs = files(&here.join("bugs").join(protocol));
        bugs.retain(|file, _| all || LESSONS.contains(&format!("{protocol}/{file}").as_str()));
        let copies = generate(&sources.join(protocol), bugs, &out.join(protocol));
        modules += &format!("/// The bugs of `{protocol}`.\npub mod {protocol} {{\n{copies}}}\n");
    }
    fs::write(out.join("mutants.rs"), modules).expect("the build folder can be written");
    for (protocol, driver, parts) in DRIVEN {
        let bugs = files(&here.join("bugs").join(protocol));
        let tests = here.join("../protocols/tests").join(driver);
        println!("cargo::rerun-if-changed={}", tests.display());
        let mut modules = String::new();
        for bug in bugs.keys().filter_map(|file| file.strip_suffix(".txt")) {
            modules += &format!("pub mod {bug} {{\n    pub use super::copies::{bug} as subject;\n");
            for part in parts {
                let path = tests.join(format!("{part}.rs"));
                modules += &format!("    #[path = {path:?}]\n    pub mod {part};\n");
            }
            modules += "}\n";
        }
        let copies = generate(&sources.join(protocol), bugs, &out.join(protocol));
        let all = format!("pub mod copies {{\n{copies}}}\n{modules}");
        fs::write(out.join(format!("{protocol}_driven.rs")), all).expect("the build folder can be written");
    }
}

/// One copy of the sources for each bug. Returns the modules and the list of them.
fn generate(sources: &Path, bugs: BTreeMap<String, String>, out: &Path) -> String {
    println!("cargo::rerun-if-changed={}", sources.display());
    let mut own = files(sources);
    for folder in folders(sources) {
        let inside = files(&sources.join(&folder));
        own.extend(inside.into_iter().map(|(name, text)| (format!("{folder}/{name}"), text)));
    }
    let shared = files(&sources.join(".."));
    let mut modules = String::new();
    let mut list = String::new();
    for (file, text) in bugs {
        let bug = file.strip_suffix(".txt").unwrap_or_else(|| panic!("bugs/{file} must end in .txt"));
        let (about, sources) = patched(&file, &text, &own, &shared);
        let borrowed: Vec<&str> = sources
            .keys()
            .filter(|name| !own.contains_key(*name))
            .filter_map(|name| name.strip_suffix(".rs"))
            .collect();
        let folder = out.join(bug);
        fs::create_dir_all(&folder).expect("the build folder can be written");
        for (name, source) in &sources {
            // Without its unit tests, which would run once for each copy.
            let mut source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            for module in &borrowed {
                let here = if name == "mod.rs" { "self" } else { "super" };
                source = source.replace(&format!("crate::{module}::"), &format!("{here}::{module}::"));
                if name == "mod.rs" {
                    source += &format!("mod {module};\n");
                }
            }
            let source = source.replace("crate::", "synod_protocols::");
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&folder)).expect("the build folder can be written");
            fs::write(path, source).expect("the build folder can be written");
        }
        let path = folder.join("mod.rs");
        modules += &format!("#[doc = {about:?}]\n#[allow(warnings)]\n#[path = {path:?}]\npub mod {bug};\n");
        list += &format!("    ({bug:?}, {about:?}),\n");
    }
    let count = list.lines().count();
    modules += &format!(
        "/// Every planted bug, by name, and what the mistake is.\npub const BUGS: [(&str, &str); {count}] = [\n{list}];\n"
    );
    modules
}

/// Names of the folders in a folder: a module's own modules.
fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("a folder's entry").path()).filter(|path| path.is_dir());
    paths.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries
        .map(|entry| entry.expect("a folder's entry").path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        })
        .collect()
}

/// What the bug is, and the sources with it, which are the protocol's own and those shared ones that
/// the bug is in.
fn patched(
    bug: &str,
    text: &str,
    own: &BTreeMap<String, String>,
    shared: &BTreeMap<String, String>,
) -> (String, BTreeMap<String, String>) {
    let (about, mut rest) = text.split_once('\n').unwrap_or_else(|| panic!("bugs/{bug} has one line only"));
    let mut sources = own.clone();
    let mut changes = 0;
    while let Some((head, change)) = rest.split_once("\n<<<<\n") {
        let file = head
            .trim()
            .strip_prefix("in ")
            .unwrap_or_else(|| panic!("bugs/{bug}: `in FILE` comes before <<<<"));
        let (find, change) = change.split_once("\n====\n").unwrap_or_else(|| panic!("bugs/{bug}: no ===="));
        let (replace, after) = change.split_once("\n>>>>").unwrap_or_else(|| panic!("bugs/{bug}: no >>>>"));
        if let (false, Some(module)) = (sources.contains_key(file), shared.get(file)) {
            sources.insert(file.to_owned(), module.clone());
        }
        let source =
            sources.get_mut(file).unwrap_or_else(|| panic!("bugs/{bug}: there is no {file} to patch"));
        let times = source.matches(find).count();
        assert!(
            times == 1,
            "bugs/{bug}: its text occurs {times} times in {file}, not once; adapt the patch:\n{find}"
        );
        *source = source.replace(find, replace);
        changes += 1;
        rest = after;
    }
    assert!(
        changes > 0 && rest.trim().is_empty(),
        "bugs/{bug}: no change, or text after the last one: {rest}"
    );
    (about.to_owned(), sources)
}
