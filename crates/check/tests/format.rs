//! The format: what it keeps, what it refuses and in which words; and the bounds of a check.

use synod_check::history::{Call, Header, History, Nanos, Outcome, Recorder, Reply};
use synod_check::linearizable::{Limits, Stopped, Verdict, check};
use synod_check::model::KeyValue;
use synod_check::{Error, ReadLimits, import};

const HEADER: &str = r#"{"synod-history":1,"object":"kv"}"#;
const PUT: &str = r#"{"event":"invoke","id":4,"client":"a","time":7,"op":"put","key":"x","value":1}"#;

fn read(lines: &[&str]) -> Result<History, Error> {
    History::read(lines.join("\n").as_bytes(), ReadLimits::default())
}

/// The line that is blamed, and the words.
fn refused(lines: &[&str]) -> (u64, String) {
    match read(lines) {
        Err(Error::Malformed { line, problem }) => (line, problem),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_was_expected() {
    let cases: &[(&[&str], u64, &str)] = &[
        (&[], 1, "empty"),
        (&[PUT], 1, "no header"),
        (&[r#"{"synod-history":2,"object":"kv"}"#], 1, "reads version 1"),
        (&[r#"{"synod-history":1}"#], 1, "`object`"),
        (&[HEADER, "", "nonsense", PUT], 3, "no JSON object"),
        (&[HEADER, PUT, r#"{"event":"ok","#], 3, "ends in the middle"),
        (&[HEADER, r#"{"event":"done","id":4}"#], 2, "expected \"invoke\""),
        (&[HEADER, r#"{"event":"ok","id":4}"#], 2, "no earlier line invokes it"),
        (&[HEADER, PUT, PUT], 3, "invoked before"),
        (&[HEADER, PUT, r#"{"event":"ok","id":4}"#, r#"{"event":"fail","id":4}"#], 4, "returned before"),
        (&[HEADER, PUT, r#"{"event":"ok","id":4,"time":6}"#], 3, "sort them by time"),
        (&[HEADER, r#"{"event":"ok","id":-1}"#], 2, "from 0 to"),
        (&[HEADER, r#"{"event":"ok","id":1,"time":1.5}"#], 2, "whole number of nanoseconds"),
        (&[HEADER, r#"{"event":"invoke","id":1,"client":7,"op":"get"}"#], 2, "expected a string"),
        (&[HEADER, r#"{"event":"invoke","id":1,"client":"a"}"#], 2, "`op` is missing"),
        (&[HEADER, r#"{"event":"note"}"#], 2, "`text`"),
    ];
    for (lines, expected_line, words) in cases {
        let (line, problem) = refused(lines);
        assert!(line == *expected_line && problem.contains(words), "line {line}: {problem} ({words})");
    }
}

#[test]
fn limits_are_enforced_at_their_line() {
    let text = [HEADER, PUT, &PUT.replace("4", "5")].join("\n");
    let short = ReadLimits { line_bytes_max: 40, ..ReadLimits::default() };
    let few = ReadLimits { operations_max: 1, ..ReadLimits::default() };
    let enough = ReadLimits { operations_max: 2, line_bytes_max: PUT.len() as u64 };
    assert!(matches!(
        History::read(text.as_bytes(), short),
        Err(Error::TooLarge { line: 2, limit: "line_bytes_max", value: 40 })
    ));
    assert!(matches!(
        History::read(text.as_bytes(), few),
        Err(Error::TooLarge { line: 3, limit: "operations_max", value: 1 })
    ));
    assert_eq!(History::read(text.as_bytes(), enough).expect("at the limits").operations.len(), 2);
}

#[test]
fn everything_in_a_history_survives_writing_and_reading() {
    let text = concat!(
        r#"{"synod-history":1,"object":"etcd","initial":"","source":"s","about":"a","cluster":[1,2]}"#,
        "\n",
        r#"{"event":"invoke","id":9,"client":"c","node":"n","session":"s1","time":5,"op":"cas","key":"k","expect":null,"value":{"a":1},"lease":7}"#,
        "\n",
        r#"{"event":"note","time":5,"text":"kill","node":"n1","signal":9}"#,
        "\n",
        r#"{"event":"invoke","id":3,"client":"d","op":"get","key":"k"}"#,
        "\n",
        r#"{"event":"fail","id":3,"error":"refused"}"#,
        "\n",
        r#"{"event":"ok","id":9,"time":18446744073709551615,"value":null,"revision":12}"#,
        "\n",
    );
    let history = History::read(text.as_bytes(), ReadLimits::default()).expect("well formed");
    let mut written = Vec::new();
    history.write(&mut written).expect("memory takes all");
    assert_eq!(String::from_utf8(written).expect("JSON"), text);
}

#[test]
fn importers_name_the_line_that_is_wrong() {
    let log = "INFO  jepsen.util - 0\t:invoke\t:read\tnil\nother logger\nINFO  jepsen.util - 0\t:invoke\t:read\tnil\n";
    let error = import::jepsen_log(log.as_bytes(), ReadLimits::default()).expect_err("two open operations");
    assert_eq!(error.to_string(), "line 3: process 0 invokes read, but its read of line 1 has not returned");
    let error = import::jepsen_log("jepsen.util - 1\t:ok\t:write\t3".as_bytes(), ReadLimits::default());
    assert!(error.expect_err("not invoked").to_string().starts_with("line 1: process 1 returns"));
}

/// Writers of distinct values that all overlap, and a read of something else.
fn hard(writers: usize) -> History {
    let mut recorder = Recorder::new(Header::new("kv"));
    let open: Vec<_> =
        (0..writers).map(|n| recorder.invoke(Nanos(0), "w", Call::append("x", &n.to_string()))).collect();
    for handle in open {
        recorder.complete(Nanos(1), handle, Outcome::Ok(Reply::none()));
    }
    let get = recorder.invoke(Nanos(2), "r", Call::get("x"));
    recorder.complete(Nanos(3), get, Outcome::Ok(Reply::value("never")));
    let put = recorder.invoke(Nanos(4), "w", Call::put("a", 1));
    recorder.complete(Nanos(5), put, Outcome::Ok(Reply::none()));
    recorder.finish()
}

#[test]
fn a_spent_budget_is_its_own_answer_and_says_what_was_proved() {
    let history = hard(12);
    let few = Limits { configurations_max: 1_000, ..Limits::default() };
    let small = Limits { bytes_max: 100_000, ..Limits::default() };
    for (limits, stop, why) in [
        (few, false, Stopped::Configurations),
        (small, false, Stopped::Bytes),
        (Limits::default(), true, Stopped::Caller),
    ] {
        let report = check(&KeyValue::new(), &history, &limits, &mut || stop).expect("a kv history");
        let Verdict::Unknown(unknown) = report.verdict else { panic!("{why}: {}", report.verdict) };
        assert_eq!(unknown.why, why);
        assert_eq!(unknown.proved, [Some("a".to_owned())]);
        assert_eq!(unknown.part.as_deref(), Some("x"));
    }
    let report = check(&KeyValue::new(), &hard(6), &Limits::default(), &mut || false).expect("a kv history");
    let Verdict::No(no) = report.verdict else { panic!("{}", report.verdict) };
    assert_eq!(no.operations.len(), 1, "only the read is wrong:\n{}", no.explanation);
}

#[test]
fn an_empty_history_is_linearizable() {
    let history = Recorder::new(Header::new("kv")).finish();
    let report =
        check(&KeyValue::new(), &history, &Limits::default(), &mut || false).expect("nothing to refuse");
    assert!(report.verdict.is_yes());
}

#[test]
fn the_schema_is_json_and_names_every_event() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../schema/history-v1.json")).expect("the schema is JSON");
    let kinds = &schema["$defs"];
    assert_eq!(kinds["header"]["properties"]["synod-history"]["const"], 1);
    assert_eq!(kinds["invoke"]["properties"]["event"]["const"], "invoke");
    assert_eq!(kinds["ok"]["properties"]["event"]["const"], "ok");
    assert_eq!(kinds["end"]["properties"]["event"]["enum"], serde_json::json!(["fail", "unknown"]));
    assert_eq!(kinds["note"]["properties"]["event"]["const"], "note");
}
