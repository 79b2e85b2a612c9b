//! Every importer on what it should read, and on thousands of inputs that are broken at random.

mod common;

use common::Random;
use serde_json::{Value, json};
use synod_check::history::{History, Outcome};
use synod_check::import::{Format, any};
use synod_check::{Error, ReadLimits};

const OURS: &str = r#"{"synod-history":1,"object":"kv","source":"my test","about":"three nodes"}
{"event":"invoke","id":0,"client":"alice","node":"n1","time":1000,"op":"put","key":"x","value":"1"}
{"event":"invoke","id":1,"client":"bob","time":1500,"op":"get","key":"x"}
{"event":"ok","id":1,"time":2100,"value":null}
{"event":"note","time":2200,"text":"kill","node":"n1"}
{"event":"unknown","id":0,"time":5000,"error":"timeout"}
"#;

const ELLE: &str = r#"; list-append
[{:process 0, :type :invoke, :f :txn, :value [[:append 1 5] [:r 2 nil]], :time 10, :index 0}
 {:process :nemesis, :type :info, :f :kill, :value ["n1" "n2"], :time 11}
 #jepsen.history.Op{:process 0, :type :ok, :f :txn,
  :value [[:append 1 5] [:r 2 [3 4]]], :time 12 :index 1 :error nil}
 {:process 1 :type :invoke :f :txn :value [[:r 1 nil]]} {:process 1 :type :info :f :txn :value [[:r 1 nil]] :error [:timeout "late"]}]
"#;

const MAELSTROM: &str = r#"{:index 0, :time 100, :type :invoke, :process 3, :f :write, :value [0 4]}
{:index 1, :time 200, :type :ok, :process 3, :f :write, :value [0 4]}
{:index 2, :time 300, :type :invoke, :process 3, :f :cas, :value [0 [4 2]]}
{:index 3, :time 400, :type :fail, :process 3, :f :cas, :value [0 [4 2]], :error [:precondition-failed "expected 4"]}
{:index 4, :time 500, :type :invoke, :process 3, :f :read, :value [0 nil]}
{:index 5, :time 600, :type :ok, :process 3, :f :read, :value [0 4]}
"#;

const PORCUPINE: &str = r#"{:process 1, :type :invoke, :f :append, :key "7", :value "x 1 0 y"}
{:process 1, :type :ok, :f :append, :key "7", :value "x 1 0 y"}
{:process 1, :type :invoke, :f :get, :key "7", :value nil}
{:process 1, :type :ok, :f :get, :key "7", :value "x 1 0 y\n\"\u00e9"}
"#;

const LOG: &str = "INFO  jepsen.util - 2\t:invoke\t:write\t4\n\
                   INFO  other - something else\n\
                   INFO  jepsen.util - :nemesis\t:info\t:start\tnil\n\
                   INFO  jepsen.util - 2\t:info\t:write\t:timed-out\n\
                   2026-01-01 INFO [jepsen worker 1] jepsen.util: 1\t:invoke\t:read\tnil\n\
                   2026-01-01 INFO [jepsen worker 1] jepsen.util: 1\t:ok\t:read\t4\n";

const PLUME: &str = "w(1,10,0,0)\nw(2,11,0,0)\nr(1,10,1,1)\nr(3,0,1,2)\n";

const DBCOP: &str = r#"{"params":{"id":0},"info":"x","start":"1","end":"2","data":[
 [{"events":[{"write":true,"variable":1,"version":5,"success":true},
             {"write":false,"variable":2,"version":0,"success":true}],"success":true}],
 [{"events":[{"write":false,"variable":1,"version":5,"success":true}],"success":false}]]}"#;

const SAMPLES: [(&str, Format); 7] = [
    (OURS, Format::Synod),
    (ELLE, Format::Edn),
    (MAELSTROM, Format::Edn),
    (PORCUPINE, Format::Edn),
    (LOG, Format::JepsenLog),
    (PLUME, Format::Plume),
    (DBCOP, Format::Dbcop),
];

fn read(text: &str) -> History {
    any(text.as_bytes(), ReadLimits::default()).unwrap_or_else(|error| panic!("{error}\n{text}")).0
}

fn value(history: &History, operation: usize) -> Value {
    match &history.operations[operation].outcome {
        Outcome::Ok(reply) => reply.value.clone().unwrap_or_default(),
        other => panic!("operation {operation}: {other:?}"),
    }
}

#[test]
fn the_format_is_found_out_from_the_content() {
    for (text, expected) in SAMPLES {
        let (history, format) = any(text.as_bytes(), ReadLimits::default()).expect("a history");
        assert_eq!(format, expected, "{text}");
        assert!(!history.operations.is_empty(), "{text}");
    }
}

#[test]
fn transactions_keep_their_operations_and_what_they_read() {
    let history = read(ELLE);
    assert_eq!(history.operations[0].call.more["ops"], json!([["append", "1", 5], ["r", "2", null]]));
    assert_eq!(value(&history, 0), json!([["append", "1", 5], ["r", "2", [3, 4]]]));
    assert!(matches!(history.operations[1].outcome, Outcome::Unknown { .. }));
    assert!(history.notes[0].text.contains("kill") && history.notes[0].text.contains("n2"));
    assert_eq!(history.operations[0].invoked.time, Some(synod_check::history::Nanos(10)));
}

#[test]
fn independent_keys_and_failed_comparisons_of_maelstrom_are_understood() {
    let history = read(MAELSTROM);
    let calls: Vec<String> = history.operations.iter().map(|operation| operation.call.to_string()).collect();
    assert_eq!(calls, ["write 0 = 4", "cas 0: 4 -> 2", "read 0"]);
    assert_eq!(value(&history, 1), json!(false));
    assert_eq!(value(&history, 2), json!(4));
}

#[test]
fn porcupine_reads_a_missing_key_as_the_empty_string() {
    let history = read(PORCUPINE);
    assert_eq!(history.header.initial, json!(""));
    assert_eq!(value(&history, 1), json!("x 1 0 y\n\"é"));
}

#[test]
fn both_notations_of_jepsen_logs_are_read() {
    let history = read(LOG);
    assert!(
        matches!(&history.operations[0].outcome, Outcome::Unknown { error: Some(error) } if error == ":timed-out")
    );
    assert_eq!(value(&history, 1), json!(4));
    assert_eq!(history.notes.len(), 1);
}

#[test]
fn sessions_without_times_say_so() {
    for text in [PLUME, DBCOP] {
        let history = read(text);
        assert_eq!(history.header.more["real-time"], json!(false));
        assert_eq!(history.header.initial, json!(0));
    }
    assert_eq!(read(PLUME).operations[0].call.more["ops"], json!([["w", "1", 10], ["w", "2", 11]]));
    assert!(matches!(read(DBCOP).operations[1].outcome, Outcome::Fail { .. }));
}

#[test]
fn a_wrong_line_is_named() {
    for (text, line, expected) in [
        ("w(1,2,0,0)\nw(1,2,0)\n", 2, "r(key,value,session,txn)"),
        ("{:process 1, :type :ok, :f :read, :value 1}\n", 1, "had not invoked"),
        (
            "\n[{:process 1, :type :invoke, :f :read}\n {:process 1, :type :invoke, :f :read}]",
            3,
            "has not returned",
        ),
        ("[{:process 1, :type :invoke, :f :read}\n", 1, "closed by ]"),
        ("{:process 1, :type :invoke,\n :f :jump}\n", 1, ":jump"),
        ("{:process 1, :type :invoke, :f :read", 1, "middle of this form"),
        ("{\"data\":[[{\"events\":[{\"write\":1}]}]]}", 1, "session 0, transaction 0"),
        ("{\"data\":\n[1,]}", 2, "no JSON"),
        ("INFO jepsen.util - 1\t:invoke\t:read\n", 1, "between tabs"),
        ("what is this", 1, "no history that we know"),
        ("", 1, "no history that we know"),
    ] {
        let error = any(text.as_bytes(), ReadLimits::default()).expect_err(text);
        let Error::Malformed { line: found, problem } = &error else { panic!("{text}: {error}") };
        assert!(problem.contains(expected), "{text:?}: {error}");
        assert_eq!(*found, line, "{text:?}: {error}");
    }
}

#[test]
fn deep_nesting_and_long_forms_are_refused() {
    let deep = format!("{{:process 1 :type :invoke :f :read :value {}", "[".repeat(100_000));
    any(format!("{deep}\n").as_bytes(), ReadLimits::default()).expect_err("never closed");
    let closed = format!("{deep}{}}}\n", "]".repeat(100_000));
    let error = any(closed.as_bytes(), ReadLimits::default()).expect_err("too deep");
    assert!(error.to_string().contains("deep"), "{error}");
    let limits = ReadLimits { line_bytes_max: 100, ..ReadLimits::default() };
    let long = format!("{{:process 1\n{}}}", ":a 1\n".repeat(100));
    assert!(matches!(any(long.as_bytes(), limits), Err(Error::TooLarge { .. })));
}

/// Cuts, doubles, swaps and overwrites bytes. Whatever comes of it is a history or an error, never a panic.
#[test]
fn no_bytes_make_an_importer_panic() {
    let (mut read, mut refused) = (0, 0);
    for (sample, (text, _)) in SAMPLES.iter().enumerate() {
        for seed in 0..3_000 {
            let random = &mut Random(seed * 7 + sample as u64);
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len() as u64 + 1) as usize;
                match random.below(6) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, random.next() as u8),
                    2 => bytes.insert(at, b"[]{}()\"\\:;#,\n\t-9"[random.below(16) as usize]),
                    3 if at < bytes.len() => bytes[at] = random.next() as u8,
                    4 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => {
                        let to = (at + random.below(40) as usize).min(bytes.len());
                        let piece = bytes[at..to].to_vec();
                        let place = random.below(bytes.len() as u64 + 1) as usize;
                        bytes.splice(place..place, piece);
                    }
                }
                if bytes.is_empty() {
                    break;
                }
            }
            match any(&bytes[..], ReadLimits::default()) {
                Ok((history, _)) => {
                    read += 1;
                    let mut written = Vec::new();
                    history.write(&mut written).expect("memory takes all");
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    println!("{read} read, {refused} refused");
    assert!(read > 1_000 && refused > 1_000);
}
