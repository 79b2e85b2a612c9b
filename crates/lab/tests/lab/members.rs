//! What the page asks the members of a live cluster: keyspaces, transactions and sagas.

use crate::fake::Fake;
use crate::host::Served;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_browser::{Browser, Page};
use synod_lab::LiveCluster;

fn served() -> (Served, Arc<Fake>) {
    let fake = Fake::start();
    let cluster: Arc<dyn LiveCluster> = fake.clone();
    let lab = Served::with(move |lab| lab.with_live(cluster));
    fake.introduce();
    (lab, fake)
}

fn ask(lab: &Served, asked: Value) -> (u16, Value) {
    let answer = lab.post("/api/live/member", &asked.to_string());
    (answer.status, answer.json())
}

#[test]
fn a_member_is_asked_in_its_own_words_and_another_answers_for_it_where_it_points_there() {
    let (lab, fake) = served();
    let path = "/v1/keyspaces/feed/keys/x";
    let (status, said) =
        ask(&lab, json!({"at": "n2", "method": "PUT", "path": path, "body": {"value": "1"}}));
    assert_eq!(
        (status, &said["at"], &said["status"], &said["session"]),
        (200, &json!("n2"), &json!(200), &json!("seen-1"))
    );
    let (_, said) = ask(&lab, json!({"at": "n3", "method": "GET", "path": path, "session": "seen-1"}));
    assert_eq!(said["body"]["value"], "1");
    let (_, said) = ask(&lab, json!({"at": "n3", "method": "GET", "path": path, "session": "seen-9"}));
    assert_eq!((&said["status"], &said["body"]["error"]["code"]), (&json!(503), &json!("behind")));
    let (_, said) = ask(&lab, json!({"at": "n3", "method": "GET", "path": "/v1/transactions"}));
    assert_eq!((&said["at"], &said["status"]), (&json!("n1"), &json!(200)));
    assert_eq!(fake.heard().iter().filter(|heard| heard.ends_with("/v1/transactions")).count(), 2);
}

#[test]
fn who_does_not_answer_is_passed_over_and_who_is_none_of_ours_is_not_asked() {
    let (lab, fake) = served();
    fake.set_mute(0, true);
    let begun = Instant::now();
    let (status, said) = ask(&lab, json!({"method": "GET", "path": "/v1/keyspaces"}));
    assert_eq!((status, &said["at"]), (200, &json!("n2")));
    assert!(begun.elapsed() >= Duration::from_secs(1), "n1 was asked first");
    let (status, said) = ask(&lab, json!({"first": "n3", "method": "GET", "path": "/v1/keyspaces"}));
    assert_eq!((status, &said["at"]), (200, &json!("n3")));
    // Whoever points to a member that is mute keeps the asker waiting no longer than that.
    let (status, said) = ask(&lab, json!({"method": "GET", "path": "/v1/transactions"}));
    assert_eq!(status, 504);
    assert!(said["error"].as_str().expect("why").contains("did not answer within 2 s"), "{said}");
    for (asked, status) in [
        (json!({"at": "n9", "method": "GET", "path": "/v1/keyspaces"}), 404),
        (json!({"at": "n2", "method": "GET", "path": "/events"}), 400),
        (json!({"at": "n2", "method": "BREW", "path": "/v1/keyspaces"}), 400),
        (json!({"at": "n2", "method": "GET", "path": "/v1/keyspaces", "session": "a b"}), 400),
        (json!({"path": "/v1/keyspaces"}), 400),
    ] {
        assert_eq!(ask(&lab, asked.clone()).0, status, "{asked}");
    }
    let foreign = lab.request("POST", "/api/live/member", &[("Origin", "http://elsewhere.example")], "{}");
    assert_eq!(foreign.status, 403);
    assert_eq!(Served::start().post("/api/live/member", "{}").status, 404, "no live cluster");
}

#[test]
fn what_may_have_been_done_is_not_asked_of_another() {
    let (lab, fake) = served();
    fake.hang_up(0);
    let (status, said) = ask(&lab, json!({"first": "n1", "method": "GET", "path": "/v1/keyspaces"}));
    assert_eq!((status, &said["at"]), (200, &json!("n2")), "who only looks may look elsewhere");
    let transfer = json!({"first": "n1", "method": "POST", "path": "/v1/transactions", "body": {}});
    let (status, said) = ask(&lab, transfer);
    assert_eq!(status, 502);
    assert!(
        said["error"].as_str().expect("why").starts_with("n1 hung up before it answered")
            && said["error"].as_str().is_some_and(|why| why.contains("nobody knows")),
        "{said}"
    );
    let heard = fake.heard();
    assert_eq!(heard.iter().filter(|heard| heard.contains("POST")).count(), 1, "{heard:?}");
}

#[test]
fn what_clients_of_a_keyspace_hear_is_judged_at_the_level_that_it_promises() {
    let (lab, fake) = served();
    let judged = |query: &str| lab.get(&format!("/api/history/live?keyspace=feed{query}")).json();
    assert_eq!(judged("")["none"], true, "nobody has asked it anything");
    let op = |t: u64, node: &str, more: Value| {
        let mut event = json!({"t": t, "k": "op", "c": format!("at {node}"), "node": node, "o": 1});
        for (name, value) in more.as_object().expect("an object") {
            event[name] = value.clone();
        }
        fake.say(event);
    };
    let begins = |f: &str, level: &str| {
        json!({"phase": "invoke", "f": f, "key": "x", "value": "1", "kind": "register", "space": "feed", "id": 3,
            "model": "linearizable", "level": level})
    };
    op(10, "n1", begins("put", "linearizable"));
    op(20, "n1", json!({"phase": "ok"}));
    op(30, "n3", begins("get", "eventual"));
    op(40, "n3", json!({"phase": "ok", "value": null}));
    let start = Instant::now();
    let view = loop {
        let view = judged("");
        if view["operations"].as_array().is_some_and(|all| all.len() == 2 && all[1]["end"] == 40) {
            break view;
        }
        assert!(start.elapsed() < synod_browser::PATIENCE, "{view}");
    };
    let of = |view: &Value, model: &str| {
        let models = view["judgement"]["models"].as_array().expect("models");
        models.iter().find(|found| found["model"] == model).expect("the model")["verdict"].clone()
    };
    assert_eq!((of(&view, "linearizable"), of(&view, "sequential")), (json!("no"), json!("yes")));
    let keyspace = &view["keyspace"];
    assert_eq!((&keyspace["verdict"], &keyspace["weaker"]), (&json!("yes"), &json!(1)), "it asked for less");
    assert_eq!(judged(&format!("&seen={}", keyspace["version"]))["same"], true);
    let listed = lab.get("/api/history/live/keyspaces").json();
    assert_eq!(
        listed["keyspaces"][0],
        json!({"name": "feed", "model": "linearizable", "operations": 2, "blind": false})
    );
    assert_eq!(Served::start().get("/api/history/live?keyspace=feed").status, 404, "no live cluster");
}

fn open_live(browser: &Browser, lab: &Served, tab: &str) -> Page {
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}#live", lab.url));
    page.wait_for("the leader", "document.getElementById('lab').dataset.leader === 'n1'");
    page.click(&format!("#tab-{tab}"));
    page
}

/// The words of the latest answer, once it is there.
fn latest(page: &mut Page, count: usize) -> String {
    page.wait_for(
        "an answer",
        &format!("document.querySelectorAll('.answers-list li:not(.waiting)').length === {count}"),
    );
    page.text(".answers-list li:first-child .said")
}

#[test]
fn somebody_cuts_a_member_off_and_reads_the_past_there_by_hand_until_the_session_forbids_it() {
    let Some(browser) = Browser::start() else { return };
    let (lab, _fake) = served();
    let mut page = open_live(&browser, &lab, "keys");
    page.click("[data-space=feed]");
    page.wait_for(
        "its members",
        "document.querySelector('.about-space').textContent === 'Held by n1, n2, n3.'",
    );
    page.click("[data-ask=PUT]");
    assert!(latest(&mut page, 1).contains("done"));
    page.click("[data-at=n3]");
    page.click("[data-do=cut-off]");
    page.wait_for("the cuts", "document.querySelectorAll('.link.cut').length === 2");
    page.click("[data-at=n1]");
    page.click("[data-ask=PUT]");
    assert!(latest(&mut page, 2).contains("done"));
    page.click("[data-at=n3]");
    // A session does not go back; a stranger's eventual read does not care.
    page.click("[data-ask=GET]");
    let refused = latest(&mut page, 3);
    assert!(refused.contains("n3: this member has not seen 1 of the updates"), "{refused}");
    page.evaluate("(() => { const s = document.getElementById('keys-level'); s.value = 'eventual'; s.dispatchEvent(new Event('change')) })()");
    page.click("[data-ask=GET]");
    let past = latest(&mut page, 4);
    assert!(past.contains("⟲ 1") && past.contains("of the past: 2 had been acknowledged"), "{past}");
    page.picture("live-keys");
    page.prefer("prefers-color-scheme", "dark");
    page.picture("live-keys-dark");
    page.click("[data-do=heal-all]");
    page.wait_for("whole again", "document.querySelectorAll('.link.cut').length === 0");
    page.click("[data-ask=GET]");
    let now = latest(&mut page, 5);
    assert!(now.contains("✓ 2"), "{now}");
    page.assert_clean();
}

#[test]
fn a_keyspace_is_made_and_a_strong_one_answers_nothing_where_it_is_cut_off() {
    let Some(browser) = Browser::start() else { return };
    let (lab, fake) = served();
    let mut page = open_live(&browser, &lab, "keys");
    page.click("#panel-keys [data-do=new]");
    page.evaluate("(() => { document.getElementById('keys-new-name').value = 'names'; document.getElementById('keys-new-model').value = 'sequential' })()");
    page.click("[data-do=make]");
    page.wait_for("the keyspace", "document.querySelector('[data-space=names][aria-pressed=true]') !== null");
    assert!(
        fake.heard().iter().any(|heard| heard.ends_with("PUT /v1/keyspaces/names")),
        "{:?}",
        fake.heard()
    );
    page.evaluate("document.getElementById('keys-key').value = 'a/b c'");
    page.click("[data-at=n2]");
    page.click("[data-do=cut-off]");
    page.click("[data-ask=PUT]");
    let refused = latest(&mut page, 1);
    assert!(refused.contains("no leader is known"), "{refused}");
    assert!(fake.heard().contains(&"n2 PUT /v1/keyspaces/names/keys/a%2Fb%20c".to_owned()));
    page.assert_clean();
}

#[test]
fn transactions_show_their_locks_ticking_and_doubt_is_resolved_only_behind_its_warning() {
    let Some(browser) = Browser::start() else { return };
    let (lab, fake) = served();
    let mut page = open_live(&browser, &lab, "transactions");
    page.wait_for("the transactions", "document.querySelectorAll('[data-txn]').length === 2");
    let doubt = page.text("[data-txn='n7.1.3']");
    for words in ["? in doubt", "bank: ", "alice", "bob", "1 min"] {
        assert!(doubt.contains(words), "{words}: {doubt}");
    }
    let open = page.text("[data-txn='n5.2.9']");
    assert!(open.contains("shop … awaited") && !open.contains("bank … awaited"), "{open}");
    let age = page.text("[data-txn='n7.1.3'] .age");
    page.wait_for(
        "an older lock",
        &format!("document.querySelector('[data-txn=\"n7.1.3\"] .age').textContent !== '{age}'"),
    );
    assert_eq!(
        page.evaluate("document.querySelectorAll('[data-resolve]').length"),
        1,
        "only doubt is resolved"
    );
    assert_eq!(page.evaluate("location.hash"), "#live&tab=transactions");
    page.reload();
    page.wait_for("the same tab", "document.querySelectorAll('[data-txn]').length === 2");
    page.picture("live-transactions");
    page.prefer("prefers-color-scheme", "dark");
    page.picture("live-transactions-dark");
    page.click("[data-resolve='n7.1.3']");
    page.wait_for("the dialog", "document.getElementById('resolve').open");
    let warning = page.text("#resolve");
    assert!(warning.contains("What can break") && warning.contains("Money is lost or made"), "{warning}");
    page.picture("live-resolve");
    let disabled = "document.querySelector('[data-do=resolve]').disabled";
    assert_eq!(page.evaluate("document.activeElement.textContent"), "Leave it alone");
    page.click("#resolve input[value=abort]");
    assert_eq!(page.evaluate(disabled), true);
    page.click("#resolve-sure");
    assert_eq!(page.evaluate(disabled), false);
    page.click("[data-do=resolve]");
    page.wait_for(
        "its end",
        "!document.getElementById('resolve').open && document.querySelectorAll('[data-txn]').length === 1",
    );
    assert!(page.text("#toast").contains("by hand"), "{}", page.text("#toast"));
    assert!(fake.heard().contains(&"n1 POST /v1/transactions/n7.1.3/resolve".to_owned()));
    page.assert_clean();
}

#[test]
fn sagas_show_their_steps_as_boxes_and_a_person_resumes_one_and_cancels_another() {
    let Some(browser) = Browser::start() else { return };
    let (lab, _fake) = served();
    let mut page = open_live(&browser, &lab, "transactions");
    let states = |saga: &str| {
        format!(
            "[...document.querySelectorAll('[data-saga={saga}] .saga-step')].map((s) => s.className.split(' ')[1]).join()"
        )
    };
    page.wait_for("three sagas", "document.querySelectorAll('.saga').length === 3");
    assert_eq!(page.evaluate(&states("s2")), "done,paused,pending");
    assert_eq!(page.evaluate(&states("s3")), "undoing,refused");
    assert!(
        page.evaluate("document.querySelector('[data-cancel=s3]')").is_null(),
        "it is being undone already"
    );
    page.click("[data-resume='s2/approve']");
    page.wait_for("its end", &format!("{} === 'done,done,done'", states("s2")));
    page.click("[data-cancel=s1]");
    page.wait_for("it undone", &format!("{} === 'undone,undone'", states("s1")));
    page.resize(390, 844);
    page.evaluate("document.getElementById('panel-transactions').scrollIntoView()");
    assert_eq!(page.evaluate("document.documentElement.scrollWidth > innerWidth"), false);
    page.picture("live-transactions-phone");
    page.click("#tab-keys");
    page.wait_for("keyspaces", "document.querySelectorAll('[data-space]').length === 2");
    page.evaluate("document.getElementById('panel-keys').scrollIntoView()");
    assert_eq!(page.evaluate("document.documentElement.scrollWidth > innerWidth"), false);
    page.picture("live-keys-phone");
    page.assert_clean();
}
