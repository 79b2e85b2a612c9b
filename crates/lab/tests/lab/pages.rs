//! The pages beside the first run: protocols in lockstep, the matrix, a lesson, and the exported file.

use crate::host::Served;
use crate::page::{READY, open, other_run, said};
use synod_browser::Browser;
use synod_lab::{export, simulate};

const SCRIPT: &str = "synod-script 1\nprotocol zab\nnodes 3\nseed 4\nfor 3s\nclients 2 every 200ms keys 2 mix put:1,get:1\nat 1s crash leader\n";

#[test]
fn four_protocols_move_in_lockstep_and_a_click_strikes_all_of_them() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#compare");
    page.wait_for(
        "four lanes, each with its leader",
        "document.querySelectorAll('.lane[data-leader^=n]').length === 4",
    );
    page.press("End");
    page.wait_for("costs", "[...document.querySelectorAll('.costs tbody tr:first-child td')].every((td) => Number(td.textContent) > 5)");
    let text = page.text("#compare");
    for words in ["ballot", "term", "epoch", "view", "Chubby, Spanner", "StartViewChange, DoViewChange"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let before = said(&mut page, "hash");
    page.click("[data-line='crash leader']");
    page.wait_for(
        "other runs",
        &format!("{READY} && document.getElementById('lab').dataset.hash !== '{before}'"),
    );
    page.click("[data-protocol=zab]");
    page.wait_for("three lanes", "document.querySelectorAll('.lane').length === 3");
    let address = page.evaluate("location.hash");
    assert!(address.as_str().expect("an address").contains("p=multi-paxos,raft,viewstamped&"), "{address}");
    page.assert_clean();
}

#[test]
fn a_cell_of_the_matrix_opens_its_run() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#matrix");
    page.click("[data-cell='viewstamped/majority-lies']");
    page.wait_for("its run", &format!("{READY} && document.getElementById('lab').dataset.place === 'sim'"));
    page.wait_for("the broken promise", "document.querySelector('.chips .bad')");
    page.assert_clean();
}

#[test]
fn the_reader_schedules_paxos_and_the_adversary_keeps_it_open() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#flp");
    page.wait_for("an open beginning", "document.getElementById('flp').dataset.mark === 'bivalent'");
    page.click("[data-verb=adversary]");
    page.wait_for(
        "thirty turns, and still open",
        "Number(document.getElementById('flp').dataset.steps) >= 30 && document.getElementById('flp').dataset.mark === 'bivalent'",
    );
    let address = page.evaluate("location.hash");
    assert!(address.as_str().expect("an address").starts_with("#flp&d"), "{address}");
    // Whoever lets everybody have their turns, come what may, sees a decision.
    page.evaluate("location.hash = '#flp'");
    page.wait_for("the beginning", "document.getElementById('flp').dataset.steps === '0'");
    for step in 1..=60 {
        if page.evaluate("document.getElementById('flp').dataset.mark === 'decided'") == true {
            break;
        }
        page.click("[data-verb=fair]");
        page.wait_for("the step", &format!("document.getElementById('flp').dataset.steps === '{step}'"));
    }
    assert_eq!(page.evaluate("document.getElementById('flp').dataset.mark"), "decided");
    page.assert_clean();
}

#[test]
fn the_lesson_opens_on_the_run_that_breaks_and_the_rule_mends_it() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#matrix");
    page.click("[data-lesson='raft/old_term_counted']");
    page.wait_for(
        "the violation",
        "document.querySelector('.steps .violation')?.textContent.includes('leader completeness')",
    );
    page.click(".steps .violation");
    page.wait_for("its moment", "Number(document.getElementById('lab').dataset.t) > 140e6");
    page.click("[data-with-rule]");
    page.wait_for("Raft as it is", "document.querySelector('.chips .good')?.textContent.includes('safe')");
    page.assert_clean();
}

#[test]
fn an_exported_page_shows_its_run_from_a_file_without_a_server() {
    let Some(browser) = Browser::start() else { return };
    let trace = simulate(SCRIPT).expect("the script runs");
    let file = std::env::temp_dir().join(format!("synod-export-{}.html", std::process::id()));
    std::fs::write(&file, export(&trace).expect("it is small")).expect("written");
    let mut page = browser.page(1440, 900);
    page.open(&format!("file://{}", file.display()));
    page.wait_for("the page", READY);
    assert_eq!(said(&mut page, "hash"), trace.hash());
    let leader = page.wait_for("a leader", "document.getElementById('lab').dataset.leader");
    page.press("End");
    page.wait_for("the crash", &format!("document.querySelector('[data-node={leader}].crashed') !== null"));
    page.click("#tab-events");
    page.wait_for("its events", "document.querySelectorAll('.event-table tbody tr').length > 10");
    page.picture("exported");
    page.assert_clean();
    std::fs::remove_file(&file).expect("it was there");
}

#[test]
fn two_proposers_duel_over_one_value_until_it_is_chosen() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#compare");
    page.click("[data-duel]");
    page.wait_for("its run", &format!("{READY} && document.getElementById('lab').dataset.place === 'sim'"));
    page.wait_for("the words", "document.querySelector('#story h1').textContent === 'Agreeing on one value'");
    page.press("End");
    page.wait_for("the outcome", "document.getElementById('summary').textContent.includes('is chosen')");
    page.wait_for("the verdict", "document.querySelector('.chips .good')?.textContent.includes('safe')");
    page.assert_clean();
}

#[test]
fn a_node_is_added_by_a_click_counts_once_it_has_caught_up_and_is_removed_again() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#sim&v=1&s=synod-script+1~nodes+3~for+6s&t=2000");
    let first = said(&mut page, "hash");
    page.press(" ");
    page.click("[data-line='add n4']");
    let added = other_run(&mut page, &first);
    page.press("End");
    page.wait_for("a member", "document.querySelector('[data-node=n4]:not(.part-out):not(.part-learner)')");
    page.picture("added");
    page.press("4");
    page.press("m");
    page.wait_for("its menu", "document.querySelector('.menu [role=menuitem]') === document.activeElement");
    page.evaluate("[...document.querySelectorAll('.menu [role=menuitem]')].find((i) => i.textContent.startsWith('Remove it')).click()");
    other_run(&mut page, &added);
    page.press("End");
    page.wait_for("no member", "document.querySelector('[data-node=n4].part-out') !== null");
    let summary = page.text("#summary");
    assert!(summary.contains("n4 is not in the cluster"), "{summary}");
    page.assert_clean();
}

#[test]
fn the_row_of_places_fits_beside_the_tools_at_every_width() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#cap&m=3&cut=1");
    // A laboratory may have all of them.
    page.evaluate(
        "['place-live', 'place-replay'].forEach((id) => { document.getElementById(id).hidden = false })",
    );
    for width in [1440, 1366, 1280, 1200, 1181, 1100, 1024, 901, 900, 768, 390, 360] {
        page.resize(width, 844);
        let beyond = page.evaluate(
            "(() => { const at = (s) => document.querySelector(s).getBoundingClientRect(), [row, tools] = [at('.places'), at('.tools')]; \
             const last = document.querySelector('#place-flp').getBoundingClientRect(); \
             if (tools.right > innerWidth + 1) return `tools end at ${tools.right}`; \
             if (document.documentElement.scrollWidth > innerWidth) return `the page is ${document.documentElement.scrollWidth} wide`; \
             return row.top === tools.top && last.right > tools.left ? `places end at ${last.right}, tools begin at ${tools.left}` : '' })()",
        );
        assert_eq!(beyond, "", "at {width}");
    }
    page.assert_clean();
}
