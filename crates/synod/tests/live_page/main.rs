//! The page on real processes: a click kills the leader, and another is elected in sight.

mod keys;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
mod verdicts;

use support::Demo;
use synod_browser::{Browser, Page};

/// The sizes and grounds in which people see the page, each kept as a picture of this name.
const VIEWS: [(&str, u32, u32, &str); 4] = [
    ("dark", 1440, 900, "dark"),
    ("phone", 390, 844, "light"),
    ("phone-dark", 390, 844, "dark"),
    ("light", 1440, 900, "light"),
];

/// The live page at this tab, once it knows the leader.
fn opened(browser: &Browser, demo: &Demo, tab: &str) -> Page {
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}#live&tab={tab}", demo.page));
    shown_leader(&mut page);
    page
}

/// The leader that the page shows: on a busy machine it is not always the one of a moment ago.
fn shown_leader(page: &mut Page) -> String {
    let leader = page.wait_for("a leader", "document.getElementById('lab').dataset.leader");
    leader.as_str().expect("a name").to_owned()
}

/// Presses a button until it is so: what is refused while there is no leader is asked for again.
fn press_until(page: &mut Page, button: &str, what: &str, is: &str) {
    let start = std::time::Instant::now();
    let press = format!(
        "(() => {{ const b = document.querySelector('{button}'); if (b?.offsetHeight && !b.disabled) b.click() }})()"
    );
    while page.evaluate(is) != true {
        page.evaluate(&press);
        let pressed = std::time::Instant::now();
        while page.evaluate(is) != true && pressed.elapsed().as_secs() < 3 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let said = page.text("#toast");
        assert!(
            start.elapsed() < synod_browser::PATIENCE,
            "pressed {button} in vain: {what}; it says: {said}"
        );
    }
}

/// Looks at a panel as everybody sees it: nothing may be wider than the screen. Ends as it began.
fn seen_by_everybody(page: &mut Page, panel: &str, name: &str) {
    for (view, width, height, scheme) in VIEWS {
        page.resize(width, height);
        page.prefer("prefers-color-scheme", scheme);
        if width < 500 {
            page.evaluate(&format!("document.querySelector('{panel}').scrollIntoView()"));
        }
        // What is too wide makes the whole page of a phone wider.
        let wide = page.evaluate("Math.max(document.documentElement.scrollWidth, innerWidth)");
        assert_eq!(wide, width, "{name}, {view}: wider than the screen");
        page.picture(&format!("{name}-{view}"));
    }
}

/// Writes into a field, as a person who has marked what was there.
fn write(page: &mut Page, field: &str, text: &str) {
    page.evaluate(&format!(
        "(() => {{ const f = document.getElementById('{field}'); f.value = {}; for (const e of ['input', 'change']) f.dispatchEvent(new Event(e, {{ bubbles: true }})) }})()",
        serde_json::json!(text)
    ));
}

#[test]
fn a_click_on_the_live_page_kills_the_leader_and_another_is_elected() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("page");
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}#live", demo.page));
    let leader = shown_leader(&mut page);
    page.click(&format!("[data-process={leader}] [data-do=kill]"));
    page.wait_for("its end", &format!("document.querySelector('[data-node={leader}].crashed') !== null"));
    page.wait_for(
        "another leader",
        &format!("(l => l && l !== '{leader}')(document.getElementById('lab').dataset.leader)"),
    );
    assert_ne!(demo.leader(), leader, "what the page shows is what the members say");
    page.click(&format!("[data-process={leader}] [data-do=start]"));
    page.wait_for("its return", &format!("document.querySelector('[data-node={leader}].crashed') === null"));
    page.picture("demo-live");
    page.assert_clean();
}

#[test]
fn clients_of_the_live_cluster_are_judged_while_its_leader_dies() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("asked");
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}#live", demo.page));
    shown_leader(&mut page);
    page.click("[data-do=ask]");
    page.wait_for("their first word", "fetch('/api/history/live').then((r) => r.ok)");
    let leader = shown_leader(&mut page);
    page.click(&format!("[data-process={leader}] [data-do=kill]"));
    page.click("[data-verdicts]");
    // While they go on, the page says so.
    page.wait_for("the last of their operations", "document.querySelector('#verdicts .page-head')?.textContent.includes('operations of clients') && !document.querySelector('#verdicts .page-head').textContent.includes('go on asking')");
    let judged = page.evaluate("document.getElementById('verdicts').dataset.judged");
    assert_eq!(judged, "linearizable: yes, sequential: yes, causal: yes, eventual: yes");
    let bars = page.evaluate("document.querySelectorAll('.bar').length");
    assert!(bars.as_u64() > Some(30), "{bars}");
    page.picture("demo-verdicts");
    page.assert_clean();
}

#[test]
fn a_read_of_the_past_is_had_by_hand_at_a_member_that_is_cut_off() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("keys");
    let leader = demo.leader();
    let follower = if leader == "n3" { "n2" } else { "n3" };
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}#live", demo.page));
    shown_leader(&mut page);
    page.click("#tab-keys");
    page.click("[data-do=new]");
    page.evaluate("document.getElementById('keys-new-name').value = 'feed'");
    press_until(
        &mut page,
        "[data-do=make]",
        "the keyspace",
        "document.querySelector('[data-space=feed][aria-pressed=true]') !== null",
    );
    page.wait_for(
        "who holds it",
        "document.querySelector('.about-space').textContent.includes('n1, n2, n3')",
    );
    let mut answers = 0;
    let mut ask = |page: &mut Page, member: &str, what: &str| -> String {
        page.click(&format!("[data-at={member}]"));
        page.click(&format!("[data-ask={what}]"));
        answers += 1;
        page.wait_for(
            "an answer",
            &format!("document.querySelectorAll('.answers-list li:not(.waiting)').length === {answers}"),
        );
        page.text(".answers-list li:first-child .said")
    };
    assert!(ask(&mut page, &leader, "PUT").contains("done"));
    let seen = ask(&mut page, follower, "GET");
    assert!(seen.starts_with("✓ 1"), "the session's own write, at another member: {seen}");
    page.click("[data-do=cut-off]");
    page.wait_for("the cuts", "document.querySelectorAll('.link.cut').length === 2");
    assert!(ask(&mut page, &leader, "PUT").contains("done"));
    // The session has seen 2 and does not go back; a stranger is told what this member has.
    let refused = ask(&mut page, follower, "GET");
    assert!(refused.starts_with("✗"), "{refused}");
    page.click("#keys-carries");
    let past = ask(&mut page, follower, "GET");
    assert!(past.starts_with("⟲ 1") && past.contains("2 had been acknowledged"), "{past}");
    page.picture("demo-keys");
    page.click("[data-do=heal-all]");
    page.wait_for("whole again", "document.querySelectorAll('.link.cut').length === 0");
    page.click("#keys-carries");
    let now = ask(&mut page, follower, "GET");
    assert!(now.starts_with("✓ 2"), "the session waits until the member has caught up: {now}");
    page.assert_clean();
}
