use super::*;
use crate::kv::tests::TestMap;

fn create(name: &str, model: Model) -> Command {
    let founders = vec![NodeId(2), NodeId(1)];
    Command::Create { name: name.to_owned(), model, founders, secret: Secret([1, 2]) }
}

fn apply(machine: &mut SpacesMachine<TestMap>, index: u64, command: &Command) -> Result<Done, Refusal> {
    match machine.apply(Index(index), command.to_log()).expect("a map in memory does not fail") {
        Response::Spaces(done) => done,
        Response::Store(_) => panic!("a command about keyspaces is answered in kind"),
    }
}

#[test]
fn a_keyspace_is_named_by_its_entry_and_is_made_once() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    let made = apply(&mut machine, 7, &create("feed", Model::Causal));
    let space = Space {
        id: SpaceId(7),
        name: "feed".into(),
        model: Model::Causal,
        founders: vec![NodeId(1), NodeId(2)],
    };
    assert_eq!(made, Ok(Done::Space(space.clone())));
    assert_eq!(apply(&mut machine, 8, &create("feed", Model::Causal)), Ok(Done::Space(space.clone())));
    let other = apply(&mut machine, 9, &create("feed", Model::Eventual));
    assert_eq!(other, Err(Refusal::OtherModel("feed".into(), Model::Causal)));
    let drop = Command::Drop { name: "feed".into(), force: false };
    assert_eq!(apply(&mut machine, 10, &drop), Ok(Done::Space(space)));
    assert_eq!(apply(&mut machine, 11, &drop), Err(Refusal::Unknown("feed".into())));
}

#[test]
fn names_are_checked_and_shared_by_keyspaces_and_participants_outside() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    for name in ["", "Feed", "9", "a/b", "a b", &"a".repeat(65)] {
        let refused = apply(&mut machine, 1, &create(name, Model::Causal));
        assert!(matches!(refused, Err(Refusal::Name(_))), "{name:?}");
    }
    apply(&mut machine, 2, &create("bank", Model::Linearizable)).expect("made");
    let register = |name: &str, text: &'static [u8]| Command::Register {
        name: name.into(),
        description: Bytes::from_static(text),
    };
    assert_eq!(apply(&mut machine, 3, &register("bank", b"x")), Err(Refusal::Taken("bank".into())));
    apply(&mut machine, 4, &register("pg", b"one")).expect("made");
    let again = apply(&mut machine, 5, &register("pg", b"two"));
    let moved = Outside { id: SpaceId(4), name: "pg".into(), description: Bytes::from_static(b"two") };
    assert_eq!(again, Ok(Done::Outside(moved)));
    assert_eq!(apply(&mut machine, 6, &create("pg", Model::Causal)), Err(Refusal::Taken("pg".into())));
}

#[test]
fn the_registry_survives_a_restart_and_unreadable_commands_are_refused() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    apply(&mut machine, 1, &create("feed", Model::Causal)).expect("made");
    machine.commit(Stored::default()).expect("committed");
    apply(&mut machine, 2, &create("lost", Model::Causal)).expect("made");
    let registry = {
        let again = SpacesMachine::open(machine.into_map()).expect("the same");
        again.registry().clone()
    };
    assert_eq!(registry.spaces().map(|space| space.name.as_str()).collect::<Vec<_>>(), ["feed"]);
    assert_eq!(registry.secret(), Some(Secret([1, 2])));
    assert_eq!(Command::from_log(&Bytes::from_static(&[TAG, 99])), Some(Err(Refusal::Malformed)));
    assert_eq!(format!("{registry:?}").matches("Secret(..)").count(), 1, "it is not shown");
}

#[test]
fn a_keyspace_that_holds_keys_is_dropped_with_force_alone_and_leaves_nothing() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    for (index, name) in [(1, "one"), (2, "two")] {
        apply(&mut machine, index, &create(name, Model::Linearizable)).expect("made");
        for key in ["a", "ab", "b"] {
            machine.put_value(SpaceId(index), key.as_bytes(), Some(Bytes::from_static(b"x")));
        }
    }
    let keys = |machine: &SpacesMachine<TestMap>, space, prefix: &[u8], after: &[u8], max| {
        let values =
            machine.values(SpaceId(space), prefix, after, max).expect("a map in memory does not fail");
        values.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&machine, 1, b"a", b"", 9), ["a", "ab"]);
    assert_eq!(keys(&machine, 1, b"", b"a", 1), ["ab"]);
    let mut drop = |force| apply(&mut machine, 9, &Command::Drop { name: "one".into(), force });
    assert_eq!(drop(false), Err(Refusal::HoldsKeys("one".into())));
    assert!(drop(true).is_ok());
    assert_eq!(keys(&machine, 1, b"", b"", 9), [""; 0]);
    assert_eq!(keys(&machine, 2, b"", b"", 9), ["a", "ab", "b"]);
}

#[test]
fn a_write_changes_all_keys_or_none() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    apply(&mut machine, 1, &create("bank", Model::Linearizable)).expect("made");
    apply(&mut machine, 2, &create("feed", Model::Causal)).expect("made");
    let (one, two) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
    let put = |key: &'static str, value: &Bytes, condition| KeyChange {
        key: key.into(),
        value: Some(value.clone()),
        condition,
    };
    let write =
        |name: &str, space, changes| Command::Write { name: name.into(), space: SpaceId(space), changes };
    let both = write("bank", 1, vec![put("a", &one, Some(None)), put("b", &one, None)]);
    assert_eq!(apply(&mut machine, 3, &both), Ok(Done::Written));
    // The second condition does not hold: the first key stays as it is.
    let changes = vec![put("a", &two, Some(Some(one.clone()))), put("b", &two, Some(None))];
    assert_eq!(apply(&mut machine, 4, &write("bank", 1, changes)), Err(Refusal::Unexpected("b".into())));
    assert_eq!(machine.value(SpaceId(1), b"a").expect("read"), Some(one));
    let delete = KeyChange { key: "a".into(), value: None, condition: None };
    assert_eq!(apply(&mut machine, 5, &write("bank", 1, vec![delete])), Ok(Done::Written));
    assert_eq!(machine.value(SpaceId(1), b"a").expect("read"), None);
    for (name, space) in [("bank", 9), ("feed", 2), ("none", 1)] {
        let refused = apply(&mut machine, 6, &write(name, space, vec![put("a", &two, None)]));
        assert_eq!(refused, Err(Refusal::Unknown(name.into())), "{name} {space}");
    }
}

#[test]
fn the_first_secret_seals_for_ever() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    let seal = |secret| Command::Seal { secret: Secret(secret) };
    assert_eq!(apply(&mut machine, 1, &seal([7, 8])), Ok(Done::Sealed));
    assert_eq!(apply(&mut machine, 2, &seal([9, 9])), Ok(Done::Sealed));
    apply(&mut machine, 3, &create("feed", Model::Causal)).expect("made");
    assert_eq!(machine.registry().secret(), Some(Secret([7, 8])));
}
