//! The page on real processes: a click kills the leader, and another is elected in sight.

mod support;

use support::Demo;
use synod_browser::Browser;

#[test]
fn a_click_on_the_live_page_kills_the_leader_and_another_is_elected() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("page");
    let leader = demo.leader();
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}#live", demo.page));
    page.wait_for("the leader", &format!("document.getElementById('lab').dataset.leader === '{leader}'"));
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
    let leader = demo.leader();
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}#live", demo.page));
    page.wait_for("the leader", &format!("document.getElementById('lab').dataset.leader === '{leader}'"));
    page.click("[data-do=ask]");
    page.wait_for("their first word", "fetch('/api/history/live').then((r) => r.ok)");
    page.click("[data-verdicts]");
    page.wait_for("operations while there come more", "document.querySelectorAll('.bar').length > 12 && document.querySelector('.page-head').textContent.includes('go on asking')");
    page.evaluate(&format!(
        "fetch('/api/live/act', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: JSON.stringify({{ do: 'kill', node: '{leader}' }}) }}).then((r) => r.ok)"
    ));
    page.wait_for("their end", "document.querySelector('.page-head') && !document.querySelector('.page-head').textContent.includes('go on asking')");
    let judged = page.evaluate("document.getElementById('verdicts').dataset.judged");
    assert_eq!(judged, "linearizable: yes, sequential: yes, causal: yes, eventual: yes");
    let bars = page.evaluate("document.querySelectorAll('.bar').length");
    assert!(bars.as_u64() > Some(30), "{bars}");
    page.picture("demo-verdicts");
    page.assert_clean();
}
