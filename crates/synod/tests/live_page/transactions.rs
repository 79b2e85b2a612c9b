//! Transfers and sagas by hand at real members, and a transaction in doubt that a person ends.

use crate::support::Demo;
use crate::{opened, press_until, seen_by_everybody, write};
use serde_json::Value;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use synod_browser::{Browser, Page};
use synod_protocols::commit::{KeyOp, Message, Stamp, TxnId, Vote};
use synod_protocols::{NodeId, Wire};
use synod_server::outside::{Envelope, KeyspaceThere, MESSAGES_PATH, To};

fn with_banks(browser: &Browser, demo: &Demo) -> Page {
    let mut page = opened(browser, demo, "transactions");
    page.wait_for("what to do first", "document.querySelector('[data-do=open-banks]').offsetHeight > 0");
    seen_by_everybody(&mut page, "#panel-transactions", "transactions-empty");
    // Where a new leader had just begun, what is still missing is opened by the same button.
    let is_open = "(t => t.endsWith('together 100') && !t.includes('no account'))(document.querySelector('.sums').textContent)";
    press_until(&mut page, "[data-do=open-banks]", "two accounts", is_open);
    sums(&mut page, "100", "0");
    page
}

/// Waits until the balances of alice and bob are these, read in one transaction.
fn sums(page: &mut Page, alice: &str, bob: &str) {
    let sum =
        |account: &str| format!("document.querySelector('[data-account=\"{account}\"] strong').textContent");
    page.wait_for(
        "the balances",
        &format!("{} === '{alice}' && {} === '{bob}'", sum("bank1/alice"), sum("bank2/bob")),
    );
}

/// Clicks, and what comes of it.
fn outcome(page: &mut Page, button: &str) -> String {
    let count = page.evaluate("document.querySelectorAll('.moves li').length").as_u64().expect("a count");
    page.click(&format!("[data-do={button}]"));
    page.wait_for(
        "an outcome",
        &format!("document.querySelectorAll('.moves li:not(.waiting)').length === {}", count + 1),
    );
    page.text(".moves li:first-child .said")
}

/// The same of a transfer that has to commit: where somebody was in the way, or nobody led, nothing has happened.
fn commits(page: &mut Page) -> String {
    loop {
        let said = outcome(page, "transact");
        if said.contains("committed") {
            return said;
        }
        assert!(said.contains("nothing has happened") || said.contains("so nothing was"), "{said}");
    }
}

#[test]
fn money_moves_all_or_nothing_and_by_sagas_that_wait_for_a_person_or_are_undone() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("banks");
    let mut page = with_banks(&browser, &demo);
    let said = commits(&mut page);
    assert!(said.contains("two-phase commit"), "{said}");
    sums(&mut page, "70", "30");
    write(&mut page, "move-amount", "1000");
    let refused = outcome(&mut page, "transact");
    assert!(refused.contains("aborted, and nothing has happened") && refused.contains("alice"), "{refused}");
    sums(&mut page, "70", "30");
    write(&mut page, "move-amount", "a lot");
    page.click("[data-do=transact]");
    page.wait_for("why not", "document.getElementById('toast').textContent.includes('whole number above 0')");
    write(&mut page, "move-amount", "10");
    page.click("#move-person");
    assert!(outcome(&mut page, "begin-saga").contains("begun, as s"));
    page.wait_for("it waits for a person", "document.querySelector('[data-resume$=\"/give\"]') !== null");
    sums(&mut page, "60", "30");
    assert!(page.text(".sums").contains("together 90"), "the money is nowhere: {}", page.text(".sums"));
    seen_by_everybody(&mut page, "#panel-transactions", "saga-paused");
    page.click("[data-resume$='/give']");
    page.wait_for("its end", "document.querySelector('.saga[data-state=done]') !== null");
    page.click("#move-person");
    write(&mut page, "move-to-key", "nobody");
    assert!(outcome(&mut page, "begin-saga").contains("begun"));
    page.wait_for("it undone", "document.querySelector('.saga[data-state=compensated]') !== null");
    let undone = page.text(".saga[data-state=compensated]");
    assert!(undone.contains("nobody") && undone.contains("take"), "why it was undone: {undone}");
    write(&mut page, "move-to-key", "bob");
    sums(&mut page, "60", "40");
    // Both in one keyspace: there is nothing that two would have to agree on.
    page.evaluate("(() => { const s = document.getElementById('move-to'); s.value = 'bank1'; s.dispatchEvent(new Event('change')) })()");
    write(&mut page, "move-to-key", "carol");
    let unknown = outcome(&mut page, "transact");
    assert!(unknown.contains("carol"), "{unknown}");
    seen_by_everybody(&mut page, "#panel-transactions", "transfers");
    page.assert_clean();
}

/// One exchange with a member, and with the leader if that is where it points; nothing if it is refused for now.
fn try_exchange(host: &str, method: &str, path: &str, body: &str) -> Option<Value> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).expect("the member answers");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, text) = answer.split_once("\r\n\r\n").expect("an answer");
    if let Some(location) = head.lines().find_map(|line| line.strip_prefix("location: http://")) {
        let (host, path) = location.split_once('/').expect("a path");
        return try_exchange(host, method, &format!("/{path}"), body);
    }
    if head.starts_with("HTTP/1.1 503") || head.starts_with("HTTP/1.1 504") {
        return None;
    }
    assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
    Some(serde_json::from_str(text).expect("JSON"))
}

/// A coordinator elsewhere asks bank1 to promise that alice loses 5, and is never heard of again.
fn leave_in_doubt(demo: &Demo) -> TxnId {
    let host = demo.endpoints.split(',').next().expect("one");
    let asks = |path: &str| demo.eventually("an answer", || try_exchange(host, "GET", path, ""));
    let status = asks("/status");
    let cluster =
        u64::from_str_radix(status["cluster-id"].as_str().expect("a number"), 16).expect("a number");
    let space = asks("/v1/keyspaces/bank1");
    // Whoever reads just then is in the way, and the vote is no: then it asks for another one. An answer that does not come
    // in time is asked for again.
    demo.eventually("a promise", {
        let mut number = 7;
        move || {
            let txn = TxnId { coordinator: NodeId(1 << 50), epoch: 1, number };
            let work = vec![KeyOp::Add { key: "alice".into(), by: -5, at_least: Some(0) }].to_bytes();
            let message = Message::Prepare {
                stamp: Stamp { epoch: 1, floor: TxnId { number: 1, ..txn } },
                txn,
                addresses: vec![],
                peers: vec![],
                life: 0,
                work: Some(work),
            };
            let envelope = Envelope {
                coordinator: txn.coordinator,
                participant: NodeId(3),
                to: To::Keyspace(KeyspaceThere {
                    cluster: NodeId(cluster & (u64::MAX >> 1)),
                    id: NodeId(space["id"].as_u64().expect("a number")),
                    name: "bank1".into(),
                }),
                reply: vec!["http://127.0.0.1:1".into()],
                messages: vec![message],
            };
            let body = String::from_utf8(envelope.encode().into()).expect("text");
            let answer = try_exchange(host, "POST", MESSAGES_PATH, &body)?;
            let answer = Envelope::decode(answer.to_string().as_bytes()).expect("an envelope");
            match answer.messages.first()? {
                Message::Vote { vote: Vote::Yes { .. }, .. } => Some(txn),
                _ => {
                    number += 1;
                    None
                }
            }
        }
    })
}

#[test]
fn a_transaction_in_doubt_holds_its_locks_in_sight_until_a_person_ends_it_behind_the_warning() {
    let Some(browser) = Browser::start() else { return };
    let demo = Demo::start("doubt");
    let mut page = with_banks(&browser, &demo);
    let txn = leave_in_doubt(&demo).to_string();
    let row = format!("[data-txn=\"{txn}\"]");
    page.wait_for("the doubt", &format!("document.querySelector('{row}')?.dataset.doubt === 'true'"));
    let told = page.text(&row);
    for words in ["prepared", "? in doubt", "bank1", "alice"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let age = page.text(&format!("{row} .age"));
    page.wait_for("an older lock", &format!("document.querySelector('{row} .age').textContent !== '{age}'"));
    let locked = outcome(&mut page, "transact");
    assert!(locked.contains("aborted") && locked.contains("locked"), "{locked}");
    seen_by_everybody(&mut page, "#panel-transactions", "doubt");
    // By keyboard: opened, left alone by Escape, opened again.
    page.evaluate(&format!("document.querySelector('{row} [data-resolve]').focus()"));
    page.press("Enter");
    page.wait_for("the dialog", "document.getElementById('resolve').open");
    assert_eq!(page.evaluate("document.activeElement.textContent"), "Leave it alone");
    seen_by_everybody(&mut page, "#resolve", "resolve");
    page.evaluate("document.activeElement.click()");
    page.wait_for("it closed", "!document.getElementById('resolve').open");
    assert!(page.evaluate(&format!("document.querySelector('{row}') !== null")) == true, "nothing was done");
    page.click(&format!("{row} [data-resolve]"));
    page.wait_for("the dialog", "document.getElementById('resolve').open");
    let disabled = "document.querySelector('[data-do=resolve]').disabled";
    page.click("#resolve input[value=commit]");
    assert_eq!(page.evaluate(disabled), true, "not before the danger is known");
    page.click("#resolve-sure");
    assert_eq!(page.evaluate(disabled), false);
    page.click("[data-do=resolve]");
    page.wait_for("its end", "!document.getElementById('resolve').open");
    page.wait_for("the lock released", &format!("document.querySelector('{row} [data-resolve]') === null"));
    assert!(page.text("#toast").contains("coordinator"), "{}", page.text("#toast"));
    // Committed by hand, so alice has 5 less, and is free to pay.
    commits(&mut page);
    sums(&mut page, "65", "30");
    page.assert_clean();
}
