//! Every program's story goes as it says: with the level that it needs, and with one less.

use std::process::Command;

fn tells_its_story(program: &str) {
    let output = Command::new(program).output().expect("the program starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let kept = told.find("=> kept").expect("the first half keeps the promise");
    let broken = told.find("=> BROKEN").expect("the second half breaks it");
    assert!(kept < broken, "{told}");
}

#[test]
fn one_person_has_a_unique_name() {
    tells_its_story(env!("CARGO_BIN_EXE_unique_name"));
}

#[test]
fn one_worker_leads() {
    tells_its_story(env!("CARGO_BIN_EXE_leader_election"));
}

#[test]
fn a_fenced_lock_loses_no_write_of_its_holder() {
    tells_its_story(env!("CARGO_BIN_EXE_lock"));
}

#[test]
fn a_name_service_stays_open() {
    tells_its_story(env!("CARGO_BIN_EXE_name_service"));
}

#[test]
fn a_cache_comes_to_show_the_newest() {
    tells_its_story(env!("CARGO_BIN_EXE_cache"));
}

#[test]
fn a_feed_shows_no_reply_without_its_post() {
    tells_its_story(env!("CARGO_BIN_EXE_social_feed"));
}
