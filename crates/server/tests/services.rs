//! Services behind HTTP in sagas: late, twice, and dead after they have acted.

#[path = "outside/bank.rs"]
mod bank;
#[path = "outside/orchestrator.rs"]
mod orchestrator;
#[path = "outside/web.rs"]
mod web;

use bank::{Bank, Mishap};
use bytes::Bytes;
use orchestrator::Host;
use serde_json::json;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use synod_protocols::NodeId;
use synod_protocols::saga::{Failure, Given, Message, Outcome, PauseReason, Plan, SagaId, Step};
use synod_server::outside::{HttpService, OUTPUT_BYTES_MAX};
use web::Web;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
/// Attempts before a step is given up, where it is not to be.
const PATIENT: u32 = 100;
/// Before a request is given up.
const TIMEOUT: Duration = Duration::from_millis(150);

/// Two banks behind HTTP: a has 1,000 at the first, b nothing at the second.
struct Banks {
    one: Arc<Bank>,
    two: Arc<Bank>,
    services: BTreeMap<NodeId, Arc<HttpService>>,
    _webs: [Web; 2],
    _folder: tempfile::TempDir,
}

impl Banks {
    fn open() -> Banks {
        let folder = tempfile::tempdir().expect("a directory");
        let one = Bank::open(folder.path().join("one"), &[("a", 1_000)]);
        let two = Bank::open(folder.path().join("two"), &[("b", 0)]);
        let webs = [&one, &two].map(|bank| {
            let bank = Arc::clone(bank);
            Web::start(move |asked| Arc::clone(&bank).serve(asked))
        });
        let agent = |web: &Web| Arc::new(HttpService::new(&web.url(), "c1", TIMEOUT).expect("an address"));
        let services = BTreeMap::from([(ONE, agent(&webs[0])), (TWO, agent(&webs[1]))]);
        Banks { one, two, services, _webs: webs, _folder: folder }
    }

    fn balances(&self) -> (u64, u64) {
        (self.one.balance("a"), self.two.balance("b"))
    }
}

fn post(path: &str, body: serde_json::Value) -> Bytes {
    Bytes::from(json!({"post": {"path": path, "body": body}}).to_string())
}

/// $100 from a at the first bank to b at the second, which gets what the first step has moved.
fn transfer() -> Plan {
    let body = json!({"account": "a", "amount": 100});
    let debit = Step::new("debit", ONE, post("/debit", body.clone()), post("/credit", body));
    let body = json!({"account": "b"});
    let credit =
        Step::new("credit", TWO, post("/credit", body.clone()), post("/debit", body)).after(&["debit"]);
    Plan { steps: vec![debit, credit] }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("it ends") });
}

#[test]
fn a_transfer_is_two_requests_and_the_second_is_given_what_came_out_of_the_first() {
    run(async {
        let banks = Banks::open();
        let mut host = Host::start(Vec::new(), &banks.services, PATIENT);
        host.begin(transfer());
        assert_eq!(host.until_over().await, Outcome::Done);
        assert_eq!(banks.balances(), (900, 100));
        let requests = banks.two.requests.lock().expect("no panic");
        let (key, body) = &requests[0];
        assert_eq!(key, "c1/s1/credit/act");
        assert_eq!(body["given"], json!({"debit": {"moved": 100, "balance": 900}}));
    });
}

#[test]
fn a_service_that_dies_after_it_has_acted_has_acted_once() {
    run(async {
        let banks = Banks::open();
        banks.one.will([Mishap::DiesAfterActing, Mishap::Down]);
        banks.two.will([Mishap::Down, Mishap::DiesAfterActing]);
        let mut host = Host::start(Vec::new(), &banks.services, PATIENT);
        host.begin(transfer());
        assert_eq!(host.until_over().await, Outcome::Done);
        assert_eq!(banks.balances(), (900, 100));
        assert!(banks.one.requests.lock().expect("no panic").len() >= 3, "it was asked again");
    });
}

#[test]
fn a_late_answer_is_no_failure_and_its_duplicates_are_harmless() {
    run(async {
        let banks = Banks::open();
        banks.one.will([Mishap::Late(3 * TIMEOUT), Mishap::Late(2 * TIMEOUT)]);
        // "Not now" in every form, a gateway's included.
        banks.two.will([Mishap::Says(503), Mishap::Says(429), Mishap::Says(401)]);
        let mut host = Host::start(Vec::new(), &banks.services, PATIENT);
        host.begin(transfer());
        assert_eq!(host.until_over().await, Outcome::Done);
        assert_eq!(banks.balances(), (900, 100));
    });
}

#[test]
fn a_refusal_is_in_the_services_words_and_what_was_done_is_undone_once() {
    run(async {
        let banks = Banks::open();
        // The compensation's answer is lost as well.
        let mut plan = transfer();
        plan.steps[1].action = post("/credit", json!({"account": "nobody"}));
        banks.one.will([Mishap::Late(Duration::ZERO), Mishap::DiesAfterActing]);
        let mut host = Host::start(Vec::new(), &banks.services, PATIENT);
        host.begin(plan);
        let Outcome::Compensated { why } = host.until_over().await else { panic!("it cannot be done") };
        assert!(why.contains("there is no account nobody"), "{why}");
        assert_eq!(banks.balances(), (1_000, 0));
    });
}

#[test]
fn an_action_that_arrives_after_its_compensation_never_happens() {
    run(async {
        let banks = Banks::open();
        // All four requests are on their way for long: the step is given up, and undone though it never acted.
        banks.two.will([Mishap::HeldBack; 4]);
        let mut host = Host::start(Vec::new(), &banks.services, 4);
        host.begin(transfer());
        assert!(matches!(host.until_over().await, Outcome::Compensated { .. }));
        assert_eq!(banks.two.release(), [409; 4]);
        assert_eq!(banks.balances(), (1_000, 0));
    });
}

#[test]
fn an_orchestrator_that_dies_at_any_moment_is_followed_by_one_that_finishes() {
    run(async {
        for records in 1..=4 {
            let banks = Banks::open();
            banks.one.will([Mishap::Late(Duration::from_millis(20))]);
            let mut host = Host::start(Vec::new(), &banks.services, PATIENT);
            host.begin(transfer());
            let disk = host.until_dead_after(records).await;
            let mut host = Host::start(disk, &banks.services, PATIENT);
            assert_eq!(host.until_over().await, Outcome::Done, "after {records} records");
            assert_eq!(banks.balances(), (900, 100), "after {records} records");
        }
    });
}

#[test]
fn after_the_pivot_a_refusal_waits_for_a_person_and_is_not_for_good() {
    run(async {
        let banks = Banks::open();
        let mut plan = transfer();
        plan.steps[0].is_pivot = true;
        plan.steps[1].action = post("/debit", json!({"account": "b", "amount": 5}));
        let mut host = Host::start(Vec::new(), &banks.services, PATIENT);
        host.begin(plan);
        let (step, why) = host.until_paused().await;
        assert_eq!((step.as_str(), why), ("credit", PauseReason::Forward("b has only 0".into())));
        // Somebody pays in, by the bank's own door.
        let deposit = Message::Act {
            floor: SagaId(1),
            saga: SagaId(99),
            step: "deposit".into(),
            work: post("/credit", json!({"account": "b", "amount": 5})),
            given: Vec::new(),
            is_final: true,
        };
        let acted = banks.services[&TWO].handle(deposit).await;
        assert!(matches!(acted, Some(Message::Acted { .. })), "{acted:?}");
        host.resume("credit");
        assert_eq!(host.until_over().await, Outcome::Done);
        assert_eq!(banks.balances(), (900, 0));
    });
}

#[test]
fn outputs_and_names_of_any_kind_travel_and_bounds_hold() {
    run(async {
        let web = Web::start(|asked| async move {
            let key = asked.headers["idempotency-key"].to_str().expect("text").to_owned();
            let (head, given) = (asked.headers["synod-floor"].to_str().expect("text").to_owned(), asked.body);
            match asked.path.as_str() {
                "/large" => Some((200, None, "x".repeat(OUTPUT_BYTES_MAX + 1))),
                "/elsewhere" => Some((307, Some("/echo".to_owned()), String::new())),
                _ => Some((200, None, format!("{key} {head} {}", String::from_utf8_lossy(&given)))),
            }
        });
        let service = HttpService::new(&web.url(), "c/1", TIMEOUT).expect("an address");
        let act = |path: &str, given: Vec<Given>| Message::Act {
            floor: SagaId(3),
            saga: SagaId(4),
            step: "a/b c".into(),
            work: post(path, json!({})),
            given,
            is_final: true,
        };
        let given = [("text", &b"plain"[..]), ("json", b"[1]"), ("bytes", b"\xFF\xFE")];
        let given =
            given.map(|(step, output)| Given { step: step.into(), output: Bytes::from_static(output) });
        let Some(Message::Acted { output, .. }) = service.handle(act("/echo", given.into())).await else {
            panic!("not acted")
        };
        let expected =
            r#"c%2F1/s4/a%2Fb%20c/act 3 {"given":{"bytes":{"base64":"//4="},"json":[1],"text":"plain"}}"#;
        assert_eq!(output, expected);

        // What is too large may have been done: nothing is said.
        assert_eq!(service.handle(act("/large", Vec::new())).await, None);
        let busy = service.handle(act("/elsewhere", Vec::new())).await;
        assert!(matches!(busy, Some(Message::Failed { failure: Failure::Busy, .. })), "{busy:?}");
    });
}

#[test]
fn work_and_addresses_that_cannot_be_used_are_refused_with_advice() {
    let https = HttpService::new("https://bank.example", "c1", TIMEOUT).expect_err("not spoken").to_string();
    assert!(https.contains("let a proxy on this machine encrypt"), "{https}");
    for url in ["bank:80", "ftp://bank", "http://", "http://u:hunter2@bank", "http://bank/?a=b"] {
        let error = HttpService::new(url, "c1", TIMEOUT).expect_err(url).to_string();
        assert!(error.contains("address") && !error.contains("hunter2"), "{error}");
    }
    for (work, reason) in [
        (json!({"ops": []}), "is not understood"),
        (json!({"post": {"path": "debit"}}), "begins with /"),
        (json!({"post": {"path": "/a b"}}), "plain characters"),
        (json!({"post": {"path": "/x", "body": {"given": 1}}}), "name yours otherwise"),
        (json!({"post": {"path": "/x", "body": []}}), "is not understood"),
    ] {
        let error = HttpService::check(work.to_string().as_bytes()).expect_err("it is wrong");
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(HttpService::check(&post("/debit", json!({"account": "a"}))), Ok(()));
}
