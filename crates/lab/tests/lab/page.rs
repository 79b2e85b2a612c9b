//! The page in a real browser, on the simulator.

use crate::host::Served;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use synod_browser::{Browser, Page};
use synod_lab::{LiveAction, LiveCluster, LiveDescription, LiveNode, LiveVerb};
use tokio::sync::broadcast;

pub(crate) const READY: &str =
    "document.getElementById('lab').dataset.ready && !document.getElementById('lab').ariaBusy";

pub(crate) fn open(browser: &Browser, lab: &Served, fragment: &str) -> Page {
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}{fragment}", lab.url));
    page.wait_for("the page", READY);
    page
}

pub(crate) fn said(page: &mut Page, what: &str) -> String {
    let value = page.evaluate(&format!("document.getElementById('lab').dataset.{what}"));
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits until a run other than `before` is shown, and returns its hash.
fn other_run(page: &mut Page, before: &str) -> String {
    let different = format!(
        "{READY} && document.getElementById('lab').dataset.hash !== '{before}' && document.getElementById('lab').dataset.hash"
    );
    page.wait_for("another run", &different).as_str().expect("a hash").to_owned()
}

/// Lets the run play to its end at the highest speed.
fn play_on(page: &mut Page) {
    page.evaluate("(() => { const s = document.getElementById('speed'); s.value = '4000000000'; s.dispatchEvent(new Event('change')); })()");
}

#[test]
fn the_first_run_loses_its_leader_plays_once_and_pauses_in_sight_of_the_next() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "");
    let old = page.wait_for("a leader", "document.getElementById('lab').dataset.leader");
    page.wait_for("its question", "document.querySelectorAll('.answer').length === 5");
    page.picture("first");
    page.wait_for("the crash", &format!("document.querySelector('[data-node={old}].crashed') !== null"));
    let next = page.wait_for("the end of the first play", "document.getElementById('lab').dataset.playing === 'false' && document.getElementById('lab').dataset.leader");
    assert_ne!(old, next);
    let title = page.text("#story h1");
    assert!(title.contains(next.as_str().expect("a name")), "{title}");
    assert!(page.text("#summary").contains("leads term"));
    page.picture("elected");
    page.assert_clean();
}

#[test]
fn a_click_on_the_leader_forks_history_and_the_address_brings_it_back() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "");
    let first = said(&mut page, "hash");
    page.press(" ");
    page.wait_for("the pause", "document.getElementById('lab').dataset.playing === 'false'");
    let old = page.wait_for("a leader", "document.getElementById('lab').dataset.leader");
    let old = old.as_str().expect("a name").to_owned();
    let address = page.evaluate("location.href");
    page.click(&format!("[data-node={old}] .disc"));
    let forked = other_run(&mut page, &first);
    play_on(&mut page);
    page.wait_for("the crash", &format!("document.querySelector('[data-node={old}].crashed') !== null"));
    page.wait_for("another leader", &format!("document.getElementById('lab').dataset.leader !== '{old}' && document.getElementById('lab').dataset.leader"));
    assert_ne!(page.evaluate("location.href"), address);
    let script = page.evaluate("document.getElementById('script').value");
    assert!(script.as_str().expect("a script").contains(&format!("crash {old}\n")), "{script}");

    // The address alone brings the same run back.
    page.reload();
    page.wait_for("the page again", READY);
    assert_eq!(said(&mut page, "hash"), forked);
    assert!(page.evaluate("document.querySelector('.warning[role=alert]:not([hidden])')").is_null());

    // And so does the way back.
    page.evaluate("history.back()");
    assert_eq!(other_run(&mut page, &forked), first);
    page.assert_clean();
}

#[test]
fn the_keyboard_alone_crashes_restarts_and_undoes() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "");
    let first = said(&mut page, "hash");
    page.press(" ");
    page.press("3");
    page.wait_for("the focus", "document.activeElement?.dataset?.node === 'n3'");
    page.press("Enter");
    let crashed = other_run(&mut page, &first);
    page.press(" ");
    page.wait_for("the crash", "document.querySelector('[data-node=n3].crashed') !== null");
    page.press("m");
    page.wait_for("its menu", "document.querySelector('.menu [role=menuitem]') === document.activeElement");
    page.press("Escape");
    page.wait_for("no menu", "document.querySelector('.menu') === null");
    page.press("c");
    let back = other_run(&mut page, &crashed);
    page.wait_for("the restart", "document.querySelector('[data-node=n3]:not(.crashed)') !== null");
    page.click("#undo");
    assert_eq!(other_run(&mut page, &back), crashed);
    page.assert_clean();
}

#[test]
fn a_link_cut_by_a_click_shows_its_gap_and_heals() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "");
    let first = said(&mut page, "hash");
    page.press(" ");
    page.evaluate(
        "document.querySelector('.link .hit').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
    );
    let cut = other_run(&mut page, &first);
    page.wait_for("the gap", "document.querySelector('.link.cut .gap')?.getAttribute('d')");
    page.evaluate(
        "document.querySelector('.link.cut .hit').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
    );
    other_run(&mut page, &cut);
    page.wait_for("no gap", "document.querySelector('.link.cut') === null");
    page.assert_clean();
}

#[test]
fn a_script_that_does_not_parse_is_shown_with_its_line() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "");
    page.click("#tab-script");
    page.evaluate(
        "document.getElementById('script').value = 'synod-script 1\\nprotocol raft\\nnodes many\\n'",
    );
    page.click("#run-script");
    let error = page.wait_for("the error", "!document.getElementById('script-error').hidden && document.getElementById('script-error').textContent");
    assert!(error.as_str().expect("a text").starts_with("Line 3: "), "{error}");
    let selected = page.evaluate("(() => { const s = document.getElementById('script'); return s.value.slice(s.selectionStart, s.selectionEnd) })()");
    assert_eq!(selected, "nodes many");
}

#[test]
fn a_link_whose_run_came_out_differently_says_so() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(
        &browser,
        &lab,
        "#sim&v=1&s=synod-script+1~protocol+raft~nodes+3~seed+9~for+4s&h=0123456789abcdef",
    );
    let warning = page
        .wait_for("the warning", "document.querySelector('.warning[role=alert]:not([hidden])')?.textContent");
    assert!(warning.as_str().expect("a text").contains("0123456789abcdef"), "{warning}");
    page.assert_clean();
}

#[test]
fn scrubbing_moves_both_pictures_and_going_back_shows_the_same_again() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = open(&browser, &lab, "");
    page.press(" ");
    let shown = "[...document.querySelectorAll('.node')].map((n) => n.getAttribute('class') + n.textContent + n.getAttribute('transform')).join()";
    let at = |page: &mut Page| page.evaluate("document.querySelector('.over').getAttribute('aria-valuenow')");
    let (then, picture): (Value, Value) = (at(&mut page), page.evaluate(shown));
    for _ in 0..40 {
        page.press(".");
    }
    assert_ne!(at(&mut page), then);
    page.press("Home");
    page.wait_for("the start", "document.querySelector('.over').getAttribute('aria-valuenow') === '0'");
    page.wait_for("the address of the start", "location.hash.endsWith('&t=0')");
    let ms = then.as_str().expect("a number").to_owned();
    page.evaluate(&format!("location.hash = location.hash.replace(/&t=\\d+/, '') + '&t={ms}'"));
    page.wait_for(
        "the moment",
        &format!("document.querySelector('.over').getAttribute('aria-valuenow') === '{ms}'"),
    );
    let names = |value: &Value| value.as_str().unwrap_or_default().matches("leader").count();
    assert_eq!(names(&page.evaluate(shown)), names(&picture));
    page.assert_clean();
}

#[test]
fn on_a_phone_the_ring_stands_above_the_timeline_and_everything_can_be_touched() {
    let Some(browser) = Browser::start() else { return };
    let lab = Served::start();
    let mut page = browser.page(390, 844);
    page.prefer("prefers-color-scheme", "dark");
    page.open(&lab.url);
    page.wait_for("the page", READY);
    let order = page.evaluate("document.querySelector('.ring').getBoundingClientRect().bottom <= document.querySelector('.spacetime').getBoundingClientRect().top + 1");
    assert_eq!(order, true);
    let overflow = page.evaluate("document.documentElement.scrollWidth");
    assert!(overflow.as_u64().expect("a width") <= 390, "{overflow}");
    let small = page.evaluate(
        "[...document.querySelectorAll('button, select, .node .disc')].map((b) => [b.id || b.textContent || 'node', b.getBoundingClientRect()]) \
         .filter(([, r]) => r.width && (r.height < 36 || r.width < 40)).map(([n, r]) => `${n} ${r.width}x${r.height}`).join()",
    );
    assert_eq!(small, "");
    let ground = page.evaluate("getComputedStyle(document.body).backgroundColor");
    assert_eq!(ground, "rgb(20, 24, 31)");
    page.picture("phone");
    page.assert_clean();
}

/// Three processes that only seem to run: the first leads, and whoever is killed is gone.
struct Puppet {
    events: broadcast::Sender<Arc<str>>,
    done: Mutex<Vec<LiveAction>>,
}

impl Puppet {
    fn say(&self, event: Value) {
        self.events.send(Arc::from(event.to_string())).expect("the laboratory listens");
    }

    fn state(&self, t: u64, node: &str, role: &str, epoch: u64) {
        let state = json!({"up": true, "paused": false, "role": role, "epoch": epoch, "voted": "n1", "leader": "n1",
            "last": 1, "lastEpoch": 1, "durable": 1, "committed": 1, "applied": 1, "deadline": null,
            "deadlineFrom": 0, "log": [[1, 1, "noop"]], "fields": [["part", role]]});
        self.say(json!({"t": t, "k": "state", "n": node, "s": state}));
    }
}

impl LiveCluster for Puppet {
    fn describe(&self) -> LiveDescription {
        let node = |i: u32| LiveNode {
            name: format!("n{i}"),
            pid: Some(4000 + i),
            stopped: false,
            client: format!("127.0.0.1:{}", 2000 + i),
            peer: format!("127.0.0.1:{}", 3000 + i),
            data: "data".into(),
        };
        LiveDescription {
            protocol: "raft".into(),
            nodes: (1..=3).map(node).collect(),
            actions: vec![LiveVerb::Kill, LiveVerb::Stop, LiveVerb::Cont, LiveVerb::Start],
            note: Some("Links can be cut once fault injection is on.".into()),
            t: 2_000_000_000,
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.events.subscribe()
    }

    fn act(&self, action: &LiveAction) -> Result<(), String> {
        self.done.lock().expect("no panic").push(action.clone());
        let node = action.node.clone().unwrap_or_default();
        self.say(json!({"t": 3_000_000_000u64, "k": "process", "n": node, "pid": null, "running": false, "stopped": false}));
        self.state(3_500_000_000, "n2", "leader", 2);
        Ok(())
    }
}

#[test]
fn the_live_view_shows_the_processes_kills_one_and_follows_the_present() {
    let Some(browser) = Browser::start() else { return };
    let puppet = Arc::new(Puppet { events: broadcast::channel(64).0, done: Mutex::default() });
    let cluster: Arc<dyn LiveCluster> = puppet.clone();
    let lab = Served::with(move |lab| lab.with_live(cluster));
    while puppet.events.receiver_count() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for (node, role) in [("n1", "leader"), ("n2", "follower"), ("n3", "follower")] {
        puppet.state(1_000_000_000, node, role, 1);
    }
    let mut page = browser.page(1440, 900);
    page.open(&format!("{}#live", lab.url));
    page.wait_for("the leader", "document.getElementById('lab').dataset.leader === 'n1'");
    page.wait_for(
        "a process id",
        "document.querySelector('[data-process=n3] .pid').textContent === 'pid 4003'",
    );
    let story = page.text("#story");
    assert!(story.contains("Links can be cut once fault injection is on."), "{story}");
    page.click("[data-process=n1] [data-do=kill]");
    page.wait_for("its end", "document.querySelector('[data-node=n1].crashed') && document.querySelector('[data-process=n1] [data-do=start]')");
    page.wait_for("the next leader", "document.getElementById('lab').dataset.leader === 'n2'");
    let done = puppet.done.lock().expect("no panic").clone();
    assert_eq!(done, [LiveAction { verb: LiveVerb::Kill, node: Some("n1".into()), peer: None }]);
    page.picture("live");
    page.press("Home");
    page.wait_for("the past", "document.getElementById('lab').dataset.leader === 'n1'");
    page.press("End");
    page.wait_for("the present", "document.getElementById('lab').dataset.leader === 'n2'");
    page.assert_clean();
}
