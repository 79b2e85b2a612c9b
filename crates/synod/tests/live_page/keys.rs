//! Keyspaces by hand, at real members: every level, every kind of object, and a session that goes from member to member.

use crate::support::Demo;
use crate::{opened, press_until, seen_by_everybody, write};
use synod_browser::{Browser, Page};

/// Somebody at the tab *Keys*.
struct Hands {
    page: Page,
    answers: usize,
}

impl Hands {
    fn new(page: Page) -> Hands {
        Hands { page, answers: 0 }
    }

    fn make(&mut self, name: &str, model: &str) {
        self.page.click("[data-do=new]");
        write(&mut self.page, "keys-new-name", name);
        write(&mut self.page, "keys-new-model", model);
        let is_made = format!("document.querySelector('[data-space={name}][aria-pressed=true]') !== null");
        press_until(&mut self.page, "[data-do=make]", name, &is_made);
        self.page.wait_for(
            "who holds it",
            "document.querySelector('.about-space').textContent === 'Held by n1, n2, n3.'",
        );
    }

    fn asks(&mut self, member: &str, verb: &str) -> String {
        self.page.click(&format!("[data-at={member}]"));
        self.page.click(&format!("[data-ask={verb}]"));
        self.answer()
    }

    fn answer(&mut self) -> String {
        self.answers += 1;
        let count = (self.answers).min(30);
        self.page.wait_for(
            "an answer",
            &format!(
                "document.querySelectorAll('#panel-keys .answers-list li').length === {count} && \
                 document.querySelectorAll('#panel-keys .answers-list li.waiting').length === 0"
            ),
        );
        self.page.text("#panel-keys .answers-list li:first-child .said")
    }

    /// Does it, and it is done; what was refused because nobody led is asked for again.
    fn does(&mut self, member: &str, verb: &str, value: &str) {
        loop {
            write(&mut self.page, "keys-value", value);
            let said = self.asks(member, verb);
            if said.starts_with("✓ done") {
                return;
            }
            let nothing_was_done = said.contains("nothing was done") || said.contains("another member");
            assert!(nothing_was_done, "{verb} {value} at {member}: {said}");
        }
    }

    /// Asks until it is so: gossip takes its time.
    fn sees(&mut self, member: &str, wanted: impl Fn(&str) -> bool) -> String {
        for _ in 0..200 {
            let said = self.asks(member, "GET");
            if wanted(&said) {
                return said;
            }
        }
        panic!("{member} never showed it");
    }

    fn holds(&mut self, kind: &str, key: &str) {
        self.page.click(&format!("[data-kind={kind}]"));
        write(&mut self.page, "keys-key", key);
    }

    fn cut_off(&mut self, member: &str) {
        self.page.click(&format!("[data-at={member}]"));
        self.page.click("[data-do=cut-off]");
        self.page.wait_for("the cuts", "document.querySelectorAll('.link.cut').length === 2");
    }

    fn heal(&mut self) {
        self.page.click("[data-do=heal-all]");
        self.page.wait_for("whole again", "document.querySelectorAll('.link.cut').length === 0");
    }

    /// The values in the latest answer.
    fn values(&mut self) -> Vec<String> {
        let values = self.page.evaluate(
            "[...document.querySelectorAll('#panel-keys .answers-list li:first-child .held-value')].map((v) => v.textContent)",
        );
        values.as_array().expect("a list").iter().map(|v| v.as_str().expect("a text").to_owned()).collect()
    }
}

#[test]
fn a_keyspace_of_each_level_is_made_and_a_session_goes_from_member_to_member_and_over_a_reload() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("levels");
    let mut hands = Hands::new(opened(&browser, &demo, "keys"));
    hands.page.wait_for("what to do first", "!document.querySelector('.first-spaces').hidden");
    seen_by_everybody(&mut hands.page, "#panel-keys", "keys-empty");
    press_until(
        &mut hands.page,
        "[data-first=feed]",
        "feed",
        "document.querySelector('[data-space=feed][aria-pressed=true]') !== null",
    );
    for (name, model) in [("names", "sequential"), ("accounts", "linearizable"), ("likes", "eventual")] {
        hands.make(name, model);
    }
    for (name, kinds) in [("names", true), ("accounts", true), ("feed", false), ("likes", false)] {
        hands.page.click(&format!("[data-space={name}]"));
        assert_eq!(
            hands.page.evaluate("document.querySelector('.kinds').hidden"),
            kinds,
            "{name}: only weak keyspaces hold more than registers"
        );
        hands.does("n1", "PUT", "1");
        hands.sees("n3", |said| said.starts_with("✓ 1"));
        let session = hands.page.text(".session");
        match name {
            "likes" => assert!(session.contains("has no sessions"), "{session}"),
            _ => assert!(session.contains("the last of n3"), "{session}"),
        }
        hands.page.click("[data-at=n2]");
        let session = hands.page.text(".session");
        assert!(name == "likes" || session.contains("goes on at n2"), "{session}");
    }
    hands.page.click("[data-space=names]");
    let token = hands.page.text("#keys-token");
    assert!(token.ends_with('…'), "{token}");
    hands.page.reload();
    hands.page.wait_for("the keyspaces", "document.querySelectorAll('[data-space]').length === 4");
    hands.page.click("[data-space=names]");
    assert_eq!(hands.page.text("#keys-token"), token, "a session is kept");
    hands.page.click("[data-do=new-session]");
    assert!(hands.page.text(".session").contains("it has seen nothing yet"));
    // A level that is stronger than the keyspace's is not offered, and what was wrong is said.
    hands.page.click("[data-space=feed]");
    let levels = hands
        .page
        .evaluate("[...document.querySelectorAll('#keys-level option')].map((o) => o.textContent).join()");
    assert_eq!(levels, "causal, as promised,eventual");
    write(&mut hands.page, "keys-key", "");
    hands.page.click("[data-ask=GET]");
    hands.page.wait_for("why", "document.getElementById('toast').textContent === 'Say which key.'");
    hands.page.assert_clean();
}

#[test]
fn what_is_done_on_both_sides_of_a_cut_converges_as_its_kind_says() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("kinds");
    let mut hands = Hands::new(opened(&browser, &demo, "keys"));
    hands.make("feed", "causal");
    hands.holds("counter", "likes");
    hands.does("n1", "ADD", "2");
    hands.sees("n3", |said| said.starts_with("✓ 2"));
    write(&mut hands.page, "keys-value", "much");
    hands.page.click("[data-ask=ADD]");
    hands.page.wait_for("why not", "document.getElementById('toast').textContent.includes('whole numbers')");
    hands.holds("set", "tags");
    hands.does("n1", "INSERT", "old");
    hands.sees("n3", |said| said.starts_with('✓') && !said.contains("nothing"));
    hands.holds("siblings", "note");
    let replace = "document.querySelector('[data-ask=MERGE]').disabled";
    assert_eq!(hands.page.evaluate(replace), true, "what was not read is not replaced");
    hands.does("n1", "PUT", "first");
    hands.sees("n3", |said| !said.contains("nothing"));
    hands.cut_off("n3");
    hands.holds("siblings", "note");
    hands.does("n1", "PUT", "mine");
    // The session has seen that, and n3 cannot: a stranger goes on there.
    let behind = hands.asks("n3", "GET");
    assert!(behind.starts_with('✗') && behind.contains("n3: "), "{behind}");
    hands.page.click("#keys-carries");
    hands.does("n3", "PUT", "yours");
    hands.holds("counter", "likes");
    hands.does("n1", "ADD", "10");
    hands.does("n3", "ADD", "-5");
    hands.holds("set", "tags");
    hands.does("n1", "REMOVE", "old");
    hands.does("n3", "INSERT", "old");
    hands.does("n3", "INSERT", "new");
    hands.heal();
    hands.holds("counter", "likes");
    hands.sees("n1", |said| said.starts_with("✓ 7"));
    hands.sees("n3", |said| said.starts_with("✓ 7"));
    hands.holds("set", "tags");
    hands.sees("n1", |said| said.contains("old") && said.contains("new"));
    assert_eq!(hands.values(), ["new", "old"], "the insertion had not been seen by the removal");
    hands.holds("siblings", "note");
    let said = hands.sees("n1", |said| said.contains("3 siblings"));
    assert!(said.contains("without knowing of each other"), "{said}");
    let mut values = hands.values();
    values.sort();
    assert_eq!(values, ["first", "mine", "yours"]);
    seen_by_everybody(&mut hands.page, "#panel-keys", "keys-siblings");
    assert_eq!(hands.page.evaluate(replace), false);
    hands.does("n1", "MERGE", "ours");
    hands.sees("n3", |said| said.contains("ours"));
    assert_eq!(hands.values(), ["ours"]);
    hands.page.assert_clean();
}

#[test]
fn the_keyboard_alone_puts_and_gets_and_what_keyspaces_say_to_each_other_is_seen() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("gossip");
    let mut hands = Hands::new(opened(&browser, &demo, "node"));
    let focus = |page: &mut Page, what: &str| {
        page.evaluate(&format!("document.querySelector('{what}').focus()"));
    };
    focus(&mut hands.page, "#tab-node");
    for _ in 0..2 {
        hands.page.press("ArrowRight");
    }
    assert_eq!(hands.page.evaluate("document.activeElement.id"), "tab-keys");
    hands.page.wait_for("what to do first", "!document.querySelector('.first-spaces').hidden");
    focus(&mut hands.page, "[data-first=feed]");
    hands.page.press("Enter");
    hands.page.wait_for("feed", "document.querySelector('[data-space=feed][aria-pressed=true]') !== null");
    focus(&mut hands.page, "[data-ask=PUT]");
    hands.page.press("Enter");
    assert!(hands.answer().starts_with("✓ done"));
    focus(&mut hands.page, "#keys-key");
    hands.page.press("Enter");
    assert!(hands.answer().starts_with("✓ 1"), "Enter in a field asks");
    assert_eq!(hands.page.evaluate("document.activeElement.id"), "keys-key");
    hands.page.wait_for("what was seen", "document.querySelector('.message.digest') !== null");
    // Updates are short: more are made until one is caught in flight.
    hands.page.evaluate(
        "window.updates = setInterval(() => document.querySelector('[data-ask=PUT]').click(), 120)",
    );
    hands.page.wait_for("an update", "document.querySelector('.message.gossip') !== null");
    hands.page.picture("gossip");
    // The table shows what is near the present, so there must go on to be some.
    hands.page.click("#tab-events");
    hands.page.evaluate(
        "(() => { const f = document.querySelector('#panel-events input[type=search]'); f.value = 'updates'; f.dispatchEvent(new Event('input')) })()",
    );
    hands.page.wait_for(
        "it among the events",
        "/(sends|receives) Updates/.test(document.getElementById('panel-events').textContent)",
    );
    hands.page.evaluate("clearInterval(window.updates)");
    assert!(hands.page.text("#legend").contains("causal and eventual"), "{}", hands.page.text("#legend"));
    hands.page.assert_clean();
}
