//! What clients of keyspaces ask and hear, by hand or by program, comes to be judged at the level that was promised.

use crate::support::Demo;
use crate::{opened, press_until, seen_by_everybody, write};
use synod_browser::{Browser, Page};

fn asks(page: &mut Page, member: &str, verb: &str) -> String {
    let count =
        page.evaluate("document.querySelectorAll('.answers-list li').length").as_u64().expect("a count");
    page.click(&format!("[data-at={member}]"));
    page.click(&format!("[data-ask={verb}]"));
    page.wait_for(
        "an answer",
        &format!("document.querySelectorAll('.answers-list li:not(.waiting)').length === {}", count + 1),
    );
    page.text(".answers-list li:first-child .said")
}

#[test]
fn a_stale_read_of_a_causal_keyspace_is_seen_to_be_causal_and_not_linearizable() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("judged");
    let mut page = opened(&browser, &demo, "keys");
    page.open(&format!("{}#verdicts&live=feed", demo.page));
    page.wait_for(
        "that nothing is there",
        "document.getElementById('verdicts').textContent.includes('nobody has asked')"
            .replace("nobody", "Nobody")
            .as_str(),
    );
    page.open(&format!("{}#live&tab=keys", demo.page));
    page.wait_for("the live page", "document.querySelector('.first-spaces') !== null");
    let is_made = "document.querySelector('[data-space=feed][aria-pressed=true]') !== null";
    press_until(&mut page, "[data-first=feed]", "feed", is_made);
    while !asks(&mut page, "n1", "PUT").contains("✓ done") {}
    while !asks(&mut page, "n3", "GET").starts_with("✓ 1") {}
    page.click("[data-at=n3]");
    page.click("[data-do=cut-off]");
    page.wait_for("the cuts", "document.querySelectorAll('.link.cut').length === 2");
    while !asks(&mut page, "n1", "PUT").contains("✓ done") {}
    page.click("#keys-carries");
    assert!(asks(&mut page, "n3", "GET").starts_with("⟲ 1"));
    // A program asks as well.
    let near = demo.endpoints.split(',').next().expect("one").to_owned();
    let (code, out) = demo.synod(&["get", "x", "--keyspace", "feed", "--endpoints", &near]);
    assert_eq!((code, out.trim()), (0, "2"));
    page.click("[data-judged]");
    let verdicts = "document.getElementById('verdicts').dataset";
    page.wait_for("the verdict", &format!("{verdicts}.promise === 'yes'"));
    assert_eq!(
        page.evaluate(&format!("{verdicts}.judged")),
        "linearizable: no, sequential: yes, causal: yes, eventual: yes"
    );
    let bars = "document.querySelectorAll('#verdicts .bar').length";
    let before = page.evaluate(bars).as_u64().expect("a count");
    assert!(before >= 5, "{before}");
    assert!(page.text(".promised").contains("feed promises to be causal, and has kept it"));
    seen_by_everybody(&mut page, "#verdicts", "verdicts-live");
    // It goes on while somebody looks, and what is changed by hand is a copy.
    demo.synod(&["put", "x", "3", "--keyspace", "feed", "--endpoints", &near]);
    page.wait_for("one more", &format!("{bars} === {}", before + 1));
    page.click("#verdicts .bar:last-of-type");
    page.assert_clean();
}

#[test]
fn a_read_that_asks_for_less_breaks_no_promise_and_transactions_are_no_matter_of_keys() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("less");
    let leader = demo.leader();
    let far = if leader == "n3" { "n2" } else { "n3" };
    let mut page = opened(&browser, &demo, "keys");
    page.wait_for("the live page", "document.querySelector('[data-first=accounts]').offsetHeight > 0");
    let is_made = "document.querySelector('[data-space=accounts][aria-pressed=true]') !== null";
    press_until(&mut page, "[data-first=accounts]", "accounts", is_made);
    while !asks(&mut page, &leader, "PUT").contains("✓ done") {}
    while !asks(&mut page, far, "GET").starts_with("✓ 1") {}
    page.click(&format!("[data-at={far}]"));
    page.click("[data-do=cut-off]");
    page.wait_for("the cuts", "document.querySelectorAll('.link.cut').length === 2");
    while !asks(&mut page, &leader, "PUT").contains("✓ done") {}
    write(&mut page, "keys-level", "eventual");
    assert!(asks(&mut page, far, "GET").starts_with("⟲ 1"));
    page.click("[data-judged]");
    let promise = "document.getElementById('verdicts').dataset.promise";
    page.wait_for("the verdict", &format!("{promise} === 'yes'"));
    let judged = page.evaluate("document.getElementById('verdicts').dataset.judged");
    assert!(judged.as_str().expect("words").starts_with("linearizable: no"), "{judged}");
    assert!(
        page.text(".promised").contains("one read that asked for less is left out"),
        "{}",
        page.text(".promised")
    );
    page.picture("verdicts-less");
    let work = r#"{"branches":[{"participant":"accounts","work":[{"put":{"key":"x","value":"9"}}]}]}"#;
    page.evaluate(&format!(
        "fetch('/api/live/member', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: JSON.stringify({{ method: 'POST', path: '/v1/transactions', body: {work} }}) }}).then((r) => r.text())"
    ));
    page.wait_for("that it cannot be judged", &format!("{promise} === 'blind'"));
    page.assert_clean();
}
