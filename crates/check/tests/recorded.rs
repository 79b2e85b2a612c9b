//! Recorded histories with known verdicts, where their folder is at hand.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Instant;

use synod_check::history::History;
use synod_check::linearizable::{Limits, Verdict, check, verify};
use synod_check::model::KeyValue;
use synod_check::{ReadLimits, import};

fn folder(name: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/histories");
    let folder = std::env::var_os("SYNOD_HISTORIES").map_or(default, PathBuf::from).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: {} is missing, so no recorded history was checked", folder.display());
    None
}

fn open(path: &Path) -> BufReader<File> {
    BufReader::new(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Judges a history, checks the evidence, and says whether it is linearizable.
fn judge(name: &str, history: &History) -> bool {
    let model = KeyValue::of(history);
    let started = Instant::now();
    let report =
        check(&model, history, &Limits::default(), &mut || false).expect("operations of this object");
    let took = started.elapsed();
    println!(
        "{name}: {} in {took:?}: {} operations, {} parts, {} configurations, {} kB",
        report.verdict,
        report.operations,
        report.parts,
        report.configurations,
        report.bytes_peak / 1000
    );
    match &report.verdict {
        Verdict::Yes(witness) => {
            verify(&model, history, witness).expect("a witness that replays");
            true
        }
        Verdict::No(no) => {
            println!("{}", no.explanation);
            assert!(no.operations.contains(&no.blocked));
            assert!(no.minimal, "{name}: the contradiction is not minimal");
            false
        }
        Verdict::Unknown(unknown) => panic!("{name}: {unknown:?}"),
    }
}

#[test]
fn every_jepsen_etcd_log_gets_its_known_verdict() {
    let Some(folder) = folder("jepsen-etcd") else { return };
    let verdicts = std::fs::read_to_string(folder.join("verdicts.tsv")).expect("a readable list of verdicts");
    let mut histories = Vec::new();
    for line in verdicts.lines() {
        let (file, verdict) = line.split_once('\t').expect("file, tab, verdict");
        let history = import::jepsen_log(open(&folder.join(file)), ReadLimits::default());
        histories.push((file, verdict, history.unwrap_or_else(|error| panic!("{file}: {error}"))));
    }
    assert!(histories.len() >= 40, "found only {} logs", histories.len());
    let started = Instant::now();
    for (_, _, history) in &histories {
        check(&KeyValue::of(history), history, &Limits::default(), &mut || false).expect("a register");
    }
    println!("all {} logs: {:?}", histories.len(), started.elapsed());
    for (file, verdict, history) in &histories {
        let expected = match *verdict {
            "linearizable" => true,
            "not-linearizable" => false,
            other => panic!("{file}: unknown verdict {other}"),
        };
        assert_eq!(judge(file, history), expected, "{file}");
    }
}

#[test]
fn every_key_value_log_gets_its_known_verdict() {
    let Some(folder) = folder("kv") else { return };
    for (file, expected) in
        [("c01-ok.txt", true), ("c01-bad.txt", false), ("c10-ok.txt", true), ("c10-bad.txt", false)]
    {
        let history = import::jepsen_edn(open(&folder.join(file)), ReadLimits::default());
        let history = history.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(judge(file, &history), expected, "{file}");
    }
}

#[test]
fn an_imported_history_survives_writing_and_reading() {
    let Some(folder) = folder("jepsen-etcd") else { return };
    let history =
        import::jepsen_log(open(&folder.join("etcd_000.log")), ReadLimits::default()).expect("a log");
    let mut bytes = Vec::new();
    history.write(&mut bytes).expect("memory takes all");
    assert_eq!(History::read(&bytes[..], ReadLimits::default()).expect("our own format"), history);
}
