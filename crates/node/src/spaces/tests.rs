use super::*;
use crate::kv::tests::TestMap;
use synod_protocols::replicated::{Entry, Journal};

fn create(name: &str, model: Model) -> Command {
    let founders = vec![NodeId(2), NodeId(1)];
    Command::Create { name: name.to_owned(), model, founders, secret: Secret([1, 2]) }
}

fn apply(machine: &mut SpacesMachine<TestMap>, index: u64, command: &Command) -> Result<Done, Refusal> {
    match machine.apply(Index(index), command.to_log()).expect("a map in memory does not fail") {
        Response::Spaces(done) => done,
        Response::Store(_) | Response::Process(_) => panic!("a command about keyspaces is answered in kind"),
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
fn the_first_secret_seals_for_ever() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    let seal = |secret| Command::Seal { secret: Secret(secret) };
    assert_eq!(apply(&mut machine, 1, &seal([7, 8])), Ok(Done::Sealed));
    assert_eq!(apply(&mut machine, 2, &seal([9, 9])), Ok(Done::Sealed));
    apply(&mut machine, 3, &create("feed", Model::Causal)).expect("made");
    assert_eq!(machine.registry().secret(), Some(Secret([7, 8])));
}

fn step(machine: &mut SpacesMachine<TestMap>, index: u64, step: Step) -> Verdict {
    match machine
        .apply(Index(index), Command::Process { step }.to_log())
        .expect("a map in memory does not fail")
    {
        Response::Process(verdict) => verdict,
        other => panic!("{other:?}"),
    }
}

fn begin(machine: &mut SpacesMachine<TestMap>, index: u64, process: ProcessId) -> Verdict {
    step(machine, index, Step::new(process, Entry::Begin { member: NodeId(1), nonce: 1 }))
}

fn records(life: u64, sequence: u64, replaces: bool, records: &[&'static str]) -> Entry {
    let records = records.iter().map(|record| Bytes::from(*record)).collect();
    Entry::Records { life, sequence, replaces, records }
}

fn texts(machine: &SpacesMachine<TestMap>, process: ProcessId) -> Vec<String> {
    let records = machine.records(process).expect("a map in memory does not fail");
    records.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect()
}

#[test]
fn records_of_the_life_that_began_last_are_kept_until_they_are_replaced_and_across_a_restart() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    let process = ProcessId::Coordinator;
    assert_eq!(begin(&mut machine, 3, process), Verdict::Began);
    let one = step(&mut machine, 4, Step::new(process, records(3, 0, false, &["a", "b"])));
    let other = step(&mut machine, 5, Step::new(ProcessId::Orchestrator, records(3, 1, false, &["x"])));
    assert_eq!((one, other), (Verdict::Accepted, Verdict::Stale));
    assert_eq!(begin(&mut machine, 6, process), Verdict::Began);
    let stale = step(&mut machine, 7, Step::new(process, records(3, 1, true, &["c"])));
    let broken = step(&mut machine, 8, Step::new(process, records(6, 1, true, &["c"])));
    assert_eq!((stale, broken), (Verdict::Stale, Verdict::Broken));
    assert_eq!(step(&mut machine, 9, Step::new(process, records(6, 0, false, &["d"]))), Verdict::Accepted);
    assert_eq!(texts(&machine, process), ["a", "b", "d"]);
    assert_eq!(step(&mut machine, 10, Step::new(process, records(6, 1, true, &["e"]))), Verdict::Accepted);
    machine.commit(Stored::default()).expect("committed");
    assert_eq!(
        step(&mut machine, 11, Step::new(process, records(6, 2, false, &["lost"]))),
        Verdict::Accepted
    );
    let machine = SpacesMachine::open(machine.into_map()).expect("the same");
    assert_eq!(texts(&machine, process), ["e"]);
    assert_eq!(machine.journal(process), Ok(Journal { life: Index(6), entries: 2 }));
}

#[test]
fn values_are_written_with_the_records_that_count_and_with_no_others() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    apply(&mut machine, 1, &create("bank", Model::Linearizable)).expect("made");
    let (space, process) = (SpaceId(1), ProcessId::Keyspace(SpaceId(1)));
    let put = |machine: &mut SpacesMachine<TestMap>, index, life, sequence, value: &'static str| {
        let writes = vec![("k".to_owned(), Some(Bytes::from(value)))];
        let entry = records(life, sequence, false, &["r"]);
        step(machine, index, Step { process, entry, writes, standing: Standing::InDoubt })
    };
    begin(&mut machine, 2, process);
    assert_eq!(put(&mut machine, 3, 2, 0, "one"), Verdict::Accepted);
    begin(&mut machine, 4, process);
    assert_eq!(put(&mut machine, 5, 2, 1, "two"), Verdict::Stale);
    assert_eq!(machine.value(space, b"k"), Ok(Some(Bytes::from("one"))));
    let drop = Command::Drop { name: "bank".into(), force: true };
    assert_eq!(apply(&mut machine, 6, &drop), Err(Refusal::InTransaction("bank".into())));
    let entry = records(4, 0, true, &["s"]);
    step(&mut machine, 7, Step { process, entry, writes: Vec::new(), standing: Standing::ByHand });
    assert_eq!(machine.standing(space), Ok(Standing::ByHand));
    assert!(apply(&mut machine, 8, &drop).is_ok(), "what a person has ended does not keep it");
    assert_eq!(machine.standing(space), Ok(Standing::Settled));
    assert_eq!(machine.value(space, b"k"), Ok(None));
    assert_eq!(texts(&machine, process), [""; 0]);
    assert_eq!(put(&mut machine, 9, 4, 1, "late"), Verdict::Stale, "the keyspace is gone");
    assert_eq!(begin(&mut machine, 10, process), Verdict::Stale);
}

#[test]
fn keys_of_the_host_are_not_listed_and_do_not_keep_a_keyspace() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    apply(&mut machine, 1, &create("bank", Model::Linearizable)).expect("made");
    machine.put_value(SpaceId(1), b"\0mark", Some(Bytes::from_static(b"x")));
    machine.put_value(SpaceId(1), b"k", Some(Bytes::from_static(b"x")));
    let keys = |machine: &SpacesMachine<TestMap>, prefix: &[u8]| {
        machine.values(SpaceId(1), prefix, b"", 9).expect("a map in memory does not fail").len()
    };
    assert_eq!((keys(&machine, b""), keys(&machine, b"\0")), (1, 1));
    machine.put_value(SpaceId(1), b"k", None);
    assert!(apply(&mut machine, 2, &Command::Drop { name: "bank".into(), force: false }).is_ok());
    assert_eq!(keys(&machine, b"\0"), 0);
}

#[test]
fn how_coordinators_elsewhere_are_reached_is_kept_bounded_and_goes_with_the_keyspace() {
    let mut machine = SpacesMachine::open(TestMap::default()).expect("empty");
    apply(&mut machine, 1, &create("bank", Model::Linearizable)).expect("made");
    apply(&mut machine, 2, &create("feed", Model::Causal)).expect("made");
    let contact = |endpoints: &[&str]| Contact {
        participant: NodeId(9),
        endpoints: endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect(),
    };
    let keep = |space: u64, coordinator: u64, contact: &Contact| Command::Contact {
        space: SpaceId(space),
        coordinator: NodeId(coordinator),
        contact: contact.clone(),
    };
    let (first, moved) = (contact(&["http://a:1"]), contact(&["http://b:1", "http://b:2"]));
    assert_eq!(apply(&mut machine, 3, &keep(1, 100, &first)), Ok(Done::Contact));
    assert_eq!(apply(&mut machine, 4, &keep(1, 100, &moved)), Ok(Done::Contact), "the latest counts");
    for (space, contact, refusal) in [
        (7, &first, Refusal::Unknown("keyspace 7".into())),
        (2, &first, Refusal::Unknown("keyspace 2".into())),
        (1, &contact(&[]), Refusal::Endpoints),
        (1, &contact(&["http://a"; CONTACT_ENDPOINTS_MAX + 1]), Refusal::Endpoints),
        (1, &contact(&[&"x".repeat(CONTACT_ENDPOINT_BYTES_MAX + 1)]), Refusal::Endpoints),
    ] {
        assert_eq!(apply(&mut machine, 5, &keep(space, 101, contact)), Err(refusal));
    }
    for more in 1..CONTACTS_MAX as u64 {
        assert_eq!(apply(&mut machine, 5 + more, &keep(1, 100 + more, &first)), Ok(Done::Contact));
    }
    assert_eq!(apply(&mut machine, 100, &keep(1, 999, &first)), Err(Refusal::Coordinators));
    assert_eq!(apply(&mut machine, 101, &keep(1, 100, &first)), Ok(Done::Contact), "known ones may move");
    machine.commit(Stored::default()).expect("committed");
    let mut machine = SpacesMachine::open(machine.into_map()).expect("the same");
    assert_eq!(machine.contact(SpaceId(1), NodeId(100)).expect("read"), Some(first.clone()));
    assert_eq!(machine.contact(SpaceId(2), NodeId(100)).expect("read"), None);
    let drop = Command::Drop { name: "bank".into(), force: false };
    apply(&mut machine, 102, &drop).expect("dropped");
    assert_eq!(machine.contact(SpaceId(1), NodeId(100)).expect("read"), None);
}
