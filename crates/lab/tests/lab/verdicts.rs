//! Histories on the page: verdicts that follow the bars.

use crate::host::Served;
use crate::page::open;
use serde_json::json;
use synod_browser::{Browser, Page};

/// The chapter's examples, and at which of the four levels each holds.
const EXAMPLES: [(&str, &str); 8] = [
    ("one-copy", "linearizable: yes, sequential: yes, causal: yes, eventual: yes"),
    ("during", "linearizable: yes, sequential: yes, causal: yes, eventual: yes"),
    ("late", "linearizable: no, sequential: yes, causal: yes, eventual: yes"),
    ("disagree", "linearizable: no, sequential: no, causal: yes, eventual: yes"),
    ("reply", "linearizable: no, sequential: yes, causal: yes, eventual: yes"),
    ("before", "linearizable: no, sequential: no, causal: no, eventual: yes"),
    ("back", "linearizable: no, sequential: no, causal: no, eventual: yes"),
    ("converge", "linearizable: no, sequential: yes, causal: yes, eventual: yes"),
];

fn judged(page: &mut Page, levels: &str) {
    page.wait_for(levels, &format!("document.getElementById('verdicts').dataset.judged === '{levels}'"));
}

/// Where an end of a bar is on the page.
fn end_of(page: &mut Page, operation: u64, end: &str) -> (f64, f64) {
    let place = page.evaluate(&format!(
        "(() => {{ const r = document.querySelector('[data-op=\"{operation}\"] .bar-body').getBoundingClientRect(); \
         return {{ x: {end} === 'start' ? r.left + 3 : r.right - 3, y: r.top + r.height / 2 }} }})()",
        end = json!(end),
    ));
    (place["x"].as_f64().expect("x"), place["y"].as_f64().expect("y"))
}

#[test]
fn the_chapters_examples_have_the_levels_that_they_are_named_for() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#verdicts");
    let listed = page.evaluate("document.querySelectorAll('[data-example]').length");
    assert_eq!(listed, EXAMPLES.len());
    for (example, levels) in EXAMPLES {
        page.evaluate(&format!("location.hash = '#verdicts&e={example}'"));
        page.wait_for(
            "it",
            &format!("document.querySelector('[data-example={example}][aria-current]') !== null"),
        );
        judged(&mut page, levels);
    }
    page.assert_clean();
}

#[test]
fn a_write_whose_end_is_dragged_over_the_stale_read_makes_it_linearizable() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#verdicts&e=late");
    judged(&mut page, "linearizable: no, sequential: yes, causal: yes, eventual: yes");
    assert_eq!(page.evaluate("document.querySelectorAll('.bar.own').length"), 2);
    assert!(page.text(".because").contains("None of the marked operations can be left out"));
    page.picture("verdict-late");
    let (from, over) = (end_of(&mut page, 0, "end"), end_of(&mut page, 1, "start"));
    page.drag(from, (over.0 + 40.0, from.1));
    judged(&mut page, "linearizable: yes, sequential: yes, causal: yes, eventual: yes");
    assert_eq!(
        page.evaluate("document.querySelectorAll('.bar-number').length"),
        3,
        "the order that was found"
    );
    // The address carries what was made of it.
    page.reload();
    judged(&mut page, "linearizable: yes, sequential: yes, causal: yes, eventual: yes");
    page.assert_clean();
}

#[test]
fn a_bar_obeys_the_keys_and_the_form() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#verdicts&e=late");
    judged(&mut page, "linearizable: no, sequential: yes, causal: yes, eventual: yes");
    page.evaluate("document.querySelector('[data-op=\"0\"]').focus()");
    page.press("ArrowRight");
    judged(&mut page, "linearizable: yes, sequential: yes, causal: yes, eventual: yes");
    // What nobody wrote cannot be read at any level.
    page.click("[data-op='2'] .bar-body");
    page.wait_for("the form", "document.querySelector('[data-field=hears]') !== null");
    page.evaluate("(() => { const e = document.querySelector('[data-field=hears]'); e.value = '7'; e.dispatchEvent(new Event('change')); })()");
    judged(&mut page, "linearizable: no, sequential: no, causal: no, eventual: no");
    page.assert_clean();
}

#[test]
fn the_operations_of_a_run_are_judged_too_and_phones_have_room_for_them() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "");
    page.click("[data-verdicts]");
    judged(&mut page, "linearizable: yes, sequential: yes, causal: yes, eventual: yes");
    assert!(page.evaluate("document.querySelectorAll('.bar').length").as_u64() > Some(10));
    page.resize(390, 844);
    page.prefer("prefers-color-scheme", "dark");
    page.picture("verdicts-run-phone-dark");
    let spills = page.evaluate("document.documentElement.scrollWidth > innerWidth");
    assert_eq!(spills, false, "the page is as wide as the phone");
    page.assert_clean();
}

#[test]
fn any_history_can_be_asked_about_and_a_wrong_line_is_named() {
    let lab = Served::start();
    let ask = |body: &str| lab.request("POST", "/api/history", &[], body);
    let edn = "{:process 0, :type :invoke, :f :write, :value 3}\n{:process 0, :type :ok, :f :write, :value 3}\n\
               {:process 1, :type :invoke, :f :read, :value nil}\n{:process 1, :type :ok, :f :read, :value 4}\n";
    let answer = ask(edn);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let view = answer.json();
    assert_eq!(view["judgement"]["object"], "register");
    assert_eq!(view["judgement"]["models"][0]["verdict"], "no");
    assert_eq!(view["timed"], false);
    let refused = ask("{\"synod-history\":1,\"object\":\"kv\"}\n{\"event\":\"ok\",\"id\":5,\"time\":1}\n");
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"].as_str().expect("why").starts_with("line 2: "), "{}", refused.body);
}
