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
