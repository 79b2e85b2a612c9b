//! One partition under each level, on the page and from its server.

use crate::host::Served;
use crate::page::open;
use serde_json::{Value, json};
use synod_browser::{Browser, Page};

const QUICK: &str = "#cap&m=3&cut=2&d=10&seed=1";

/// Waits for a measurement, and returns what was refused of what was asked at the member that is cut off, by level.
fn refused(page: &mut Page) -> Vec<(u64, u64)> {
    let text = page.wait_for(
        "a measurement",
        "!document.getElementById('cap').ariaBusy && document.getElementById('cap').dataset.refused",
    );
    let number = |text: &str| text.parse().expect("a number");
    let pair =
        |pair: &str| pair.split_once('/').map(|(part, whole)| (number(part), number(whole))).expect("a pair");
    text.as_str().expect("text").split(' ').map(pair).collect()
}

#[test]
fn the_server_measures_what_it_is_asked_for_and_refuses_the_rest() {
    let lab = Served::start();
    let ask = |cut: u64, seed: u64| {
        lab.post("/api/cap", &json!({"members": 3, "seed": seed, "cut_ms": cut, "delay_ms": 10}).to_string())
    };
    let answer = ask(1_000, 1);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let measured = answer.json();
    let levels: Vec<&Value> =
        measured["films"].as_array().expect("films").iter().map(|film| &film["cap"]["level"]).collect();
    assert_eq!(levels, ["linearizable", "sequential", "causal", "eventual"]);
    assert_eq!(ask(1_000, 1).json(), measured, "the same question has the same answer");
    assert_ne!(ask(1_000, 2).json()["films"], measured["films"], "another seed is another run");
    let long = ask(60_000, 1);
    assert_eq!(long.status, 400);
    assert!(long.json()["error"].as_str().expect("why").contains("1000 to 10000 ms"), "{}", long.body);
    assert_eq!(lab.post("/api/cap", "{}").status, 400);
}

#[test]
fn the_cut_stops_the_strong_levels_where_it_leaves_them_alone_and_the_page_says_so() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, QUICK);
    let [linearizable, sequential, causal, eventual] = refused(&mut page)[..] else { panic!("four levels") };
    assert_eq!(linearizable.0, linearizable.1);
    assert!(sequential.0 > 0 && sequential.0 < sequential.1, "{sequential:?}");
    assert_eq!((causal.0, eventual.0), (0, 0));
    let says = |page: &mut Page, level: &str| page.text(&format!("[data-level={level}] .cap-says"));
    let strong = says(&mut page, "linearizable");
    assert!(
        strong.contains(&format!("n1 answers nothing: all {} requests are refused", linearizable.1)),
        "{strong}"
    );
    assert!(says(&mut page, "sequential").contains(&format!("n1 refuses every put ({})", sequential.0)));
    assert!(says(&mut page, "causal").contains(&format!("n1 answers all {} requests", causal.1)));
    assert!(says(&mut page, "eventual").contains("All the same"));
    let bar = page.text("[data-measure=refused] tbody tr:first-child td");
    assert!(bar.contains(&format!("100% at n1 ({} of {})", linearizable.0, linearizable.1)), "{bar}");

    // One cursor over all lanes, by keyboard alone; what is not yet to be seen is not yet told.
    page.evaluate("document.querySelector('#cap input[type=range]').focus()");
    page.press("Home");
    page.wait_for("the beginning", "document.getElementById('cap').dataset.t === '0'");
    assert!(!says(&mut page, "linearizable").contains("answers nothing"));
    page.press("End");
    page.wait_for(
        "the end",
        "document.querySelector('[data-level=causal] .cap-says').textContent.includes('All the same')",
    );

    // A knob is a new measurement and a new address, and Back undoes it.
    let before = page.evaluate("document.getElementById('cap').dataset.refused");
    page.click("[data-verb=seed]");
    page.wait_for("another run", &format!("!document.getElementById('cap').ariaBusy && document.getElementById('cap').dataset.refused !== {before}"));
    assert_eq!(page.evaluate("location.hash"), "#cap&m=3&cut=2&d=10&seed=2");
    page.evaluate("history.back()");
    page.wait_for("the first again", &format!("document.getElementById('cap').dataset.refused === {before}"));
    page.assert_clean();
}

#[test]
fn it_plays_by_itself_once_takes_a_guess_and_fits_on_a_phone() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "#cap");
    page.wait_for("a moment within the cut", "Number(document.getElementById('cap').dataset.t) > 5000");
    page.evaluate("[...document.querySelectorAll('.cap-question .answer')].find((b) => b.textContent === 'causal and eventual').click()");
    page.wait_for(
        "its end",
        "document.querySelector('.cap-question [role=status]').textContent.startsWith('So it is.')",
    );
    page.resize(1440, 1700);
    page.picture("cap");
    page.prefer("prefers-color-scheme", "dark");
    page.picture("cap-dark");
    page.resize(390, 844);
    page.wait_for("lanes that fit", "document.querySelector('.cap-svg').viewBox.baseVal.width <= 390");
    assert_eq!(page.evaluate("document.documentElement.scrollWidth > innerWidth"), false);
    page.evaluate("location.hash = '#cap&m=3'");
    page.wait_for(
        "the place's name in sight",
        "(() => { const r = document.getElementById('place-cap').getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth })()",
    );
    page.picture("cap-phone");
    page.evaluate("document.querySelector('.cap-legend').scrollIntoView()");
    page.picture("cap-phone-lanes");
    page.evaluate("document.querySelector('.cap-measures').scrollIntoView()");
    page.picture("cap-phone-chart");
    page.assert_clean();
}
