//! The golden scripts in `scripts/`.

use super::script;
use std::panic::catch_unwind;
use std::path::Path;

#[test]
fn every_script_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weak/scripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|file| file.expect("readable").path())
        .collect();
    files.sort();
    let (mut ran, mut failed) = (0, 0);
    for path in files {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("# "), "{name}: the first line says what the script shows");
        ran += 1;
        let result = catch_unwind(|| script::run(&text));
        if let Err(error) = result.unwrap_or_else(|_| Err("panicked, see above".into())) {
            failed += 1;
            println!("---- {name}: {error}");
        }
    }
    println!("{ran} scripts, {failed} failed");
    assert!(ran >= 30 && failed == 0, "{failed} of {ran} scripts failed");
}

#[test]
fn a_wrong_expectation_fails() {
    for (script, error) in [
        ("start causal 2\na: put x 1 at n1\nexpect n2 x 1", "line 3: `expect n2 x 1`: found `nothing`"),
        ("start eventual 2\na: put x 1 at n1\nexpect a waits", "found `written`"),
        ("start causal 2\nfly n1", "there is no such command"),
    ] {
        let found = script::run(script).expect_err("it must fail");
        assert!(found.contains(error), "{found}");
    }
}
