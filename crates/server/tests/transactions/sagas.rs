//! Sagas on keyspaces: done, undone, paused, cancelled, and across the death of their orchestrator.

use super::*;

fn step(name: &str, service: &str, key: &str, by: i64) -> Value {
    json!({
        "name": name, "service": service, "action": {"ops": [add(key, by), {"get": {"key": key}}]},
        "compensation": {"ops": [add(key, -by)]},
    })
}

fn after(mut step: Value, steps: &[&str]) -> Value {
    step["after"] = json!(steps);
    step
}

fn begin(endpoint: &str, steps: &[Value]) -> String {
    let begun = surely(endpoint, "POST", "/v1/sagas", &json!({"name": "transfer", "steps": steps}));
    assert_eq!(begun.status, 201, "{begun:?}");
    begun.json()["saga"].as_str().expect("a name").to_owned()
}

fn saga(endpoint: &str, id: &str) -> Value {
    surely(endpoint, "GET", &format!("/v1/sagas/{id}"), &Value::Null).json()
}

fn until_it_is(endpoint: &str, id: &str, state: &str) -> Value {
    until(state, || Some(saga(endpoint, id)).filter(|saga| saga["state"] == state))
}

#[test]
fn a_saga_is_done_step_by_step_or_undone_in_reverse() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a"]);
    bank(&endpoints[0], "bank2", &["b"]);
    let id = begin(
        &endpoints[1],
        &[step("take", "bank1", "a", -30), after(step("give", "bank2", "b", 30), &["take"])],
    );
    let done = until_it_is(&endpoints[0], &id, "done");
    assert_eq!(done["name"], "transfer");
    assert_eq!(
        (&done["steps"][0]["state"], &done["steps"][0]["output"]),
        (&json!("done"), &json!(["70"])),
        "{done}"
    );
    assert_eq!(
        (value(&endpoints[2], "bank1", "a"), value(&endpoints[2], "bank2", "b")),
        (json!("70"), json!("130"))
    );

    let id = begin(
        &endpoints[1],
        &[step("take", "bank1", "a", -30), after(step("give", "bank2", "nobody", 30), &["take"])],
    );
    let undone = until_it_is(&endpoints[0], &id, "compensated");
    assert_eq!(undone["why"], "give: there is no nobody");
    assert_eq!(
        (&undone["steps"][0]["state"], &undone["steps"][1]["state"]),
        (&json!("undone"), &json!("refused"))
    );
    assert_eq!(value(&endpoints[0], "bank1", "a"), "70");
    // The marks of it all are nobody's business.
    let keys = surely(&endpoints[0], "GET", "/v1/keyspaces/bank1/keys", &Value::Null).json();
    assert_eq!(keys["keys"], json!([{"key": "a", "value": "70"}]));
}

#[test]
fn a_step_that_waits_for_a_person_is_resumed_and_a_saga_is_cancelled() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a"]);
    bank(&endpoints[0], "bank2", &["b"]);
    let mut give = after(step("give", "bank2", "b", 1), &["take"]);
    give["waits-for-person"] = true.into();
    let steps = [step("take", "bank1", "a", -1), give];
    let (first, second) = (begin(&endpoints[0], &steps), begin(&endpoints[0], &steps));
    let paused = until_it_is(&endpoints[0], &first, "paused");
    assert_eq!(paused["steps"][1]["state"], "paused", "{paused}");
    let resume = |id: &str, step: &str| {
        surely(&endpoints[0], "POST", &format!("/v1/sagas/{id}/steps/{step}/resume"), &Value::Null)
    };
    assert_eq!(resume(&first, "take").code(), "not-paused");
    assert_eq!(resume(&first, "give").status, 200);
    until_it_is(&endpoints[0], &first, "done");
    until_it_is(&endpoints[0], &second, "paused");
    let cancel = |id: &str| surely(&endpoints[0], "POST", &format!("/v1/sagas/{id}/cancel"), &Value::Null);
    assert_eq!(cancel(&second).status, 200);
    until_it_is(&endpoints[0], &second, "compensated");
    assert_eq!((cancel(&second).code().as_str(), cancel("s99").status), ("saga-unknown", 404));
    assert_eq!(
        (value(&endpoints[0], "bank1", "a"), value(&endpoints[0], "bank2", "b")),
        (json!("99"), json!("101"))
    );
}

#[test]
fn plans_that_cannot_be_carried_out_are_refused_in_words() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a"]);
    surely(&endpoints[0], "PUT", "/v1/keyspaces/feed", &json!({"model": "causal"}));
    let plain = || step("take", "bank1", "a", -1);
    let with = |field: &str, value: Value| {
        let mut step = plain();
        step[field] = value;
        vec![step]
    };
    for (steps, code, why) in [
        (vec![], "plan", "a saga has 1 to 64 steps"),
        (vec![plain(), plain()], "plan", "two steps are called take"),
        (with("after", json!(["nothing"])), "plan", "take comes after nothing, which is no step"),
        (with("after", json!(["take"])), "plan", "wait for each other: take"),
        (with("compensation", Value::Null), "plan", "take has no compensation and is before the pivot"),
        (with("service", json!("nobody")), "participant-unknown", "`nobody` is no keyspace"),
        (with("service", json!("feed")), "not-on-the-log", "the keyspace `feed` is causal"),
        (
            with("action", json!({"post": {"path": "/x"}})),
            "plan",
            "the action of take: the work of a keyspace is",
        ),
        (with("action", json!({"ops": [{"take": {}}]})), "operation", "there is no `take`"),
        (with("name", json!("")), "plan", "have a name"),
    ] {
        let refused = surely(&endpoints[0], "POST", "/v1/sagas", &json!({"name": "wrong", "steps": steps}));
        assert!([400, 404].contains(&refused.status), "{refused:?}");
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.text.contains(why), "{refused:?}");
    }
    assert_eq!(surely(&endpoints[0], "GET", "/v1/sagas", &Value::Null).json(), json!({"sagas": []}));
}

#[test]
fn sagas_go_on_when_their_orchestrators_member_stops_and_act_once() {
    let (mut cluster, endpoints) = cluster();
    bank(&endpoints[0], "bank1", &["a", "c"]);
    bank(&endpoints[0], "bank2", &["b", "d"]);
    let mut ids = Vec::new();
    for round in 0..12 {
        let to = if round % 3 == 2 { "nobody" } else { "b" };
        ids.push(begin(
            &endpoints[0],
            &[step("take", "bank1", "a", -1), after(step("give", "bank2", to, 1), &["take"])],
        ));
        if round % 4 == 3 {
            let leader = cluster.leader();
            cluster.down(leader);
            cluster.leader();
            cluster.up(leader);
            cluster.leader();
        }
    }
    for (round, id) in ids.iter().enumerate() {
        until_it_is(&endpoints[1], id, if round % 3 == 2 { "compensated" } else { "done" });
    }
    assert_eq!(
        (value(&endpoints[0], "bank1", "a"), value(&endpoints[0], "bank2", "b")),
        (json!("92"), json!("108"))
    );
}
