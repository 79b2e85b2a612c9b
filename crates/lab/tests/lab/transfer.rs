//! The transfer on the page: every protocol under the same blows.

use crate::host::Served;
use crate::page::open;
use synod_browser::{Browser, Page};

fn ends(page: &mut Page, rung: &str, kind: &str) {
    page.wait_for(
        &format!("{rung} to end {kind}"),
        &format!("document.querySelector('[data-rung=\"{rung}\"]')?.dataset.end === '{kind}'"),
    );
}

#[test]
fn the_ladder_under_one_crash_and_under_one_partition() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#transfer&e=death");
    ends(&mut page, "none", "bad");
    for rung in ["2pc", "3pc", "2pc-replicated", "saga", "avoid"] {
        ends(&mut page, rung, "good");
    }
    assert!(page.text("[data-rung='2pc'] .rung-says").contains("locks held for"));
    assert!(page.text("[data-rung='none'] .rung-says").contains("$100 are gone"));
    page.picture("transfer-death");
    page.click("[data-scene=partition]");
    ends(&mut page, "3pc", "bad");
    assert!(page.text("[data-rung='3pc'] .rung-says").contains("the other aborted"));
    ends(&mut page, "2pc", "good");
    page.assert_clean();
}

#[test]
fn a_click_on_a_line_strikes_there_and_the_address_keeps_it() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#transfer&e=calm");
    ends(&mut page, "2pc", "good");
    // In the middle of the picture: long after the transfer, so that nothing comes of it but the crash.
    page.click("[data-rung='2pc'] [data-line=b2]");
    page.wait_for("the menu", "document.querySelector('.menu button')");
    page.click(".menu button");
    page.wait_for("the blow", "location.hash.includes(':crash:b2')");
    page.wait_for("its mark", "document.querySelector('[data-rung=\"2pc\"] .rung-line.down')");
    page.reload();
    page.wait_for("the same", "document.querySelectorAll('.blow-list .remove').length === 1");
    page.click("[data-verb=refuse]");
    page.wait_for("the refusal in the address", "location.hash.startsWith('#transfer&no')");
    page.click(".blow-list .remove");
    ends(&mut page, "none", "bad");
    ends(&mut page, "2pc", "good");
    assert!(page.text("[data-rung='2pc'] .rung-says").contains("As if nothing had happened"));
    page.resize(390, 844);
    assert_eq!(page.evaluate("document.documentElement.scrollWidth > innerWidth"), false);
    page.picture("transfer-phone");
    page.assert_clean();
}
