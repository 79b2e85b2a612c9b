//! Judgements for machines and people: complete, bounded, and without anything from elsewhere.

mod common;

use serde_json::{Value, json};
use synod_check::history::{Call, Header, History, Nanos, Outcome, Recorder, Reply};
use synod_check::judge::{Consistency, judge};
use synod_check::linearizable::Limits;
use synod_check::{picture, report};

fn judged(history: &History) -> synod_check::judge::Judgement {
    judge(history, None, None, &Limits::default(), &mut || false).expect("known operations")
}

/// A stale read after many writes, with a client whose name is hostile.
fn stale(writes: u64) -> History {
    let mut recorder = Recorder::new(Header::new("kv"));
    for number in 0..writes {
        let put = recorder.invoke(Nanos(number), "<script>alert(1)</script>", Call::put("k\"&", number));
        recorder.complete(Nanos(number), put, Outcome::Ok(Reply::none()));
    }
    let get = recorder.invoke(Nanos(writes), "reader", Call::get("k\"&"));
    recorder.complete(Nanos(writes), get, Outcome::Ok(Reply::value(0)));
    recorder.finish()
}

fn skew() -> History {
    let mut recorder = Recorder::new(Header::new("list-append"));
    for (client, ops) in [
        ("a", json!([["r", "x", []], ["append", "y", 1]])),
        ("b", json!([["r", "y", []], ["append", "x", 1]])),
    ] {
        let mut call = Call::new("txn");
        call.more.insert("ops".into(), ops.clone());
        let handle = recorder.invoke(Nanos(0), client, call);
        recorder.complete(Nanos(1), handle, Outcome::Ok(Reply::value(ops)));
    }
    recorder.finish()
}

#[test]
fn a_stale_read_is_explained_by_three_operations_however_long_the_history() {
    for writes in [2, 20, 2_000] {
        let history = stale(writes);
        let judgement = judged(&history);
        let json = report::json(&history, &judgement);
        assert_eq!(json["models"][0]["verdict"], "no");
        assert_eq!(json["models"][0]["minimal"], true);
        assert_eq!(json["models"][0]["operations"].as_array().map(Vec::len), Some(3), "{json}");
        assert_eq!(json["strongest"][0], "sequential");
        let text = report::text(&judgement);
        assert!(text.contains("Why it is not linearizable") && text.contains("fits nowhere"), "{text}");
    }
}

#[test]
fn the_page_is_bounded_and_needs_nothing_from_elsewhere() {
    for history in [stale(5_000), skew()] {
        let page = picture::html(&history, &judged(&history), "a <title> & more");
        assert!(page.len() < 40_000, "{} bytes", page.len());
        assert!(!page.contains("<script") && !page.contains("http") && !page.contains("src="));
        assert!(page.contains("<svg") && page.contains("prefers-color-scheme:dark"));
    }
    let page = picture::html(&skew(), &judged(&skew()), "skew");
    assert!(page.contains("marker-end"), "a cycle is drawn as a ring");
}

#[test]
fn a_junit_report_fails_what_was_required_and_skips_the_rest() {
    let judgement = judged(&stale(5));
    let required = report::junit(&judgement, "stale", &[Consistency::Linearizable]);
    assert!(required.contains("tests=\"1\" failures=\"1\"") && required.contains("<failure"), "{required}");
    let free = report::junit(&judgement, "stale", &[]);
    assert!(free.contains("failures=\"0\"") && free.contains("<skipped"), "{free}");
    assert!(!required.contains("<script"));
}

#[test]
fn a_stronger_model_is_refuted_by_a_weaker_one() {
    // Values repeat, so who read from whom is not known; but the value read was never written.
    let mut recorder = Recorder::new(Header::new("register"));
    for value in [1, 1] {
        let write = recorder.invoke(Nanos(0), "a", Call { value: Some(value.into()), ..Call::new("write") });
        recorder.complete(Nanos(0), write, Outcome::Ok(Reply::none()));
    }
    let read = recorder.invoke(Nanos(0), "b", Call::new("read"));
    recorder.complete(Nanos(0), read, Outcome::Ok(Reply::value(Value::from(9))));
    let judgement = judged(&recorder.finish());
    let of = |model| judgement.of(model).expect("judged");
    assert!(of(Consistency::Linearizable).answer.is_no());
    assert!(of(Consistency::Sequential).answer.is_no());
    assert!(of(Consistency::Eventual).answer.is_no());
}

#[test]
fn a_page_stays_small_whatever_was_read() {
    let mut recorder = Recorder::new(Header::new("register"));
    let value = "x".repeat(1 << 20);
    for number in 0..200 {
        let client = format!("{value}{number}");
        let read = recorder.invoke(Nanos(number * 2), &client, Call::new("read"));
        recorder.note(Nanos(number * 2), &value);
        recorder.complete(Nanos(number * 2 + 1), read, Outcome::Ok(Reply::value(value.as_str())));
    }
    let history = recorder.finish();
    let judgement = judge(&history, None, None, &Limits::default(), &mut || false).expect("a register");
    assert!(judgement.findings[0].answer.is_no());
    let page = picture::html(&history, &judgement, &value);
    assert!(page.len() < 200_000, "{} bytes", page.len());
}
