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
        (
            with("action", json!({"ops": [{"put": {"key": "k", "value": "${nobody/0}"}}]})),
            "plan",
            "the action of take: `${nobody/0}`: there is no step nobody",
        ),
        (
            with("action", json!({"ops": [{"get": {"key": "${take/0}"}}]})),
            "plan",
            "only what undoes it has it",
        ),
        (
            with("compensation", json!({"ops": [{"get": {"key": "${take/7}"}}]})),
            "plan",
            "the compensation of take: `${take/7}`: what take reads is ${take/0} to ${take/0}",
        ),
        (
            vec![plain(), step("give", "bank1", "${take/0}", 1)],
            "plan",
            "the action of give: `${take/0}`: give does not come after take: say so in `after`",
        ),
        (
            with("action", json!({"ops": [{"add": {"key": "a", "by": 1, "at-least": "${take/0}"}}]})),
            "operation",
            "`at-least` is a whole number",
        ),
        (
            with("action", json!({"ops": [{"add": {"key": "a", "by": "one"}}]})),
            "operation",
            "`add` has no `by`",
        ),
        (with("action", json!({"ops": [{"put": {"key": "${take", "value": ""}}]})), "plan", "does not end"),
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

fn planned(name: &str, service: &str, action: Value, compensation: Value) -> Value {
    json!({"name": name, "service": service, "action": {"ops": action}, "compensation": {"ops": compensation}})
}

fn put(key: &str, value: &str) -> Value {
    json!({"put": {"key": key, "value": value}})
}

fn get(key: &str) -> Value {
    json!({"get": {"key": key}})
}

#[test]
fn what_a_step_reads_is_used_by_later_ones_and_by_what_undoes_it() {
    let (_cluster, endpoints) = cluster();
    bank(&endpoints[0], "shop", &["price", "stock"]);
    bank(&endpoints[0], "bank1", &["ann"]);
    let prepared = run(
        &endpoints[0],
        &json!({"branches": [{"participant": "shop", "work": [
        put("owner", "ann"), put("price", "30"), {"put": {"key": "seal", "value": {"base64": "/wA="}}}]}]}),
    );
    assert_eq!(prepared.json()["decision"], "commit", "{prepared:?}");
    let look = planned(
        "look",
        "shop",
        json!([add("stock", -1), get("owner"), get("price"), get("seal")]),
        json!([add("stock", 1), put("undone", "price was ${look/1}")]),
    );
    let pay = |last: Value| {
        let mut actions = vec![
            json!({"add": {"key": "${look/0}", "by": "-${look/1}", "at-least": 0}}),
            put("paid/${look/0}", "${look/1} of $${price}"),
            put("seal", "${look/2}"),
            get("${look/0}"),
        ];
        actions.push(last);
        let undo =
            json!([{"add": {"key": "${look/0}", "by": "${look/1}"}}, {"delete": {"key": "paid/${look/0}"}}]);
        after(planned("pay", "bank1", actions.into(), undo), &["look"])
    };
    let id = begin(&endpoints[1], &[look.clone(), pay(put("left", "see the receipt"))]);
    let done = until_it_is(&endpoints[0], &id, "done");
    assert_eq!(done["steps"][0]["output"], json!(["ann", "30", {"base64": "/wA="}]), "{done}");
    assert_eq!(done["steps"][1]["output"], json!(["70"]), "{done}");
    let read = |service: &str, key: &str| value(&endpoints[2], service, key);
    assert_eq!(read("bank1", "ann"), "70");
    assert_eq!(read("bank1", "paid%2Fann"), "30 of ${price}");
    assert_eq!(read("bank1", "seal"), json!({"base64": "/wA="}));

    // A later step is refused: what undoes a step knows what came out of it, and of what came before.
    let fail = after(planned("fail", "bank1", json!([add("nobody", 1)]), json!([get("ann")])), &["pay"]);
    let id = begin(&endpoints[1], &[look, pay(put("left", "nothing")), fail]);
    until_it_is(&endpoints[0], &id, "compensated");
    assert_eq!(read("shop", "undone"), "price was 30");
    assert_eq!((read("shop", "stock"), read("bank1", "ann")), (json!("99"), json!("70")));
}

#[test]
fn an_output_that_is_not_there_when_it_is_needed_refuses_the_step_for_good() {
    let (mut cluster, endpoints) = cluster();
    bank(&endpoints[0], "shop", &["price"]);
    bank(&endpoints[0], "bank1", &["ann"]);
    let look = planned("look", "shop", json!([get("price"), get("nothing")]), json!([get("price")]));
    let large = "x".repeat(600_000);
    let made = surely(&endpoints[0], "PUT", "/v1/keyspaces/shop/keys/large", &json!({"value": large}));
    assert_eq!(made.status, 200, "{made:?}");
    let big = planned("look", "shop", json!([get("large")]), json!([get("price")]));
    for (first, work, why) in [
        (&look, put("k", "${look/1}"), "use: `${look/1}`: what came out of that step has nothing there"),
        (&look, json!({"add": {"key": "ann", "by": "${look/0}.5"}}), "`100.5`, which is no whole number"),
        (&look, put("${look/0}${look/0}", "x"), ""),
        (&big, put("k", "${look/0}${look/0}"), "larger than 1048576 bytes"),
        (&big, put("${look/0}", "x"), "a key of 600000 bytes"),
    ] {
        let step = after(planned("use", "bank1", json!([work]), json!([get("ann")])), &["look"]);
        let id = begin(&endpoints[0], &[first.clone(), step]);
        let end = until("its end", || {
            Some(saga(&endpoints[0], &id))
                .filter(|saga| ["done", "compensated"].iter().any(|end| saga["state"] == *end))
        });
        let state = if why.is_empty() { "done" } else { "compensated" };
        assert_eq!(end["state"], state, "{end}");
        let said = end["why"].as_str().unwrap_or_default();
        assert!(said.contains(why), "{said}");
    }
    // A key of Synod's own cannot be made either: the mark of this very step, to be found as if it were done.
    let zero =
        surely(&endpoints[0], "PUT", "/v1/keyspaces/shop/keys/own", &json!({"value": "\u{0}saga-floor"}));
    assert_eq!(zero.status, 200, "{zero:?}");
    let look = planned("look", "shop", json!([get("own")]), json!([get("price")]));
    let step = after(planned("use", "bank1", json!([put("${look/0}", "9")]), json!([get("ann")])), &["look"]);
    let id = begin(&endpoints[0], &[look, step]);
    let undone = until_it_is(&endpoints[0], &id, "compensated");
    assert!(undone["why"].as_str().is_some_and(|why| why.contains("those are Synod's own")), "{undone}");
    // What the refusals were is known to the next leader, too.
    let leader = cluster.leader();
    cluster.down(leader);
    cluster.leader();
    let other = &endpoints[(leader + 1) % 3];
    assert_eq!(saga(other, &id)["why"], undone["why"]);
    assert_eq!(value(other, "bank1", "ann"), "100");
}
