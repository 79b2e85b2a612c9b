//! Giving up the old part of the log: what must be durable before a segment goes, and what every
//! crash on the way leaves.

use crate::disk::MemoryDisk;
use crate::host::{Host, config};
use crate::list::List;
use crate::script::Op;
use bytes::Bytes;
use synod_node::*;
use synod_protocols::log::{Index, Ticket};

/// A command that is its number, of a size of which a few fill a segment.
fn command(number: u64) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(600, number as u8);
    bytes.into()
}

fn put(host: &mut Host, number: u64) -> Ticket {
    let ticket = host.ask(Request::Command(command(number)));
    host.settle();
    ticket
}

fn numbers(machine: &List) -> Vec<u64> {
    let number =
        |command: &Bytes| u64::from_le_bytes(*command.first_chunk().expect("it begins with a number"));
    machine.commands.iter().map(number).collect()
}

/// A member that has taken commands until its machine was told to make durable what it holds.
fn until_persist(host: &mut Host, from: u64) -> u64 {
    (from..)
        .find(|number| {
            put(host, *number);
            !host.persists.is_empty()
        })
        .expect("the log grows until some of it may go")
}

#[test]
fn segments_go_only_when_the_state_that_covers_them_is_durable() {
    let mut host = Host::running();
    let last = until_persist(&mut host, 1);
    put(&mut host, last + 1);
    assert_eq!(host.disk.ids()[0], 1, "nothing goes before the state is durable");
    assert_eq!(host.node.process().compacted, []);
    assert_eq!(host.persists.len(), 1, "it is told once");
    host.persist();
    let ids = host.disk.ids();
    assert!(ids[0] > 1, "the first segments are gone");
    assert!(ids.len() >= 2, "the last whole segment stays for those who are a little behind");
    let [point] = &host.node.process().compacted[..] else { panic!("the protocol is told once") };
    assert!(point.index > Index(0) && point.index < Index(last), "{point:?} leaves entries for those behind");
    assert_eq!(host.node.process().log.len() as u64, last + 1 - point.index.0);
}

#[test]
fn a_long_life_takes_a_bounded_number_of_segments_and_recovers() {
    let mut host = Host::running();
    host.say([Op::Note(5), Op::Member(77)]);
    let mut most = 0;
    for number in 1..=300 {
        put(&mut host, number);
        host.persist();
        most = most.max(host.disk.ids().len());
    }
    assert!(most <= 4, "{most} segments");
    let incarnation = host.node.status().incarnation;
    for lost in 0..=host.node.machine().commits() {
        let machine = host.node.machine().crash(lost);
        let mut again = Host::start(host.disk.clone(), machine).expect("it recovers");
        again.settle();
        assert_eq!(numbers(again.node.machine()), (1..=300).collect::<Vec<_>>(), "{lost} commits were lost");
        assert_eq!(again.node.process().notes, 1, "what no position holds was restated");
        assert!(again.node.status().incarnation > incarnation, "lives are still counted");
        let base = &again.node.process().base;
        assert_eq!(base.membership[..], 77_u64.to_le_bytes(), "the point knows who the members were");
        put(&mut again, 301);
        assert_eq!(again.node.machine().commands.len(), 301);
    }
}

#[test]
fn every_crash_on_the_way_leaves_a_member_that_has_everything() {
    let mut host = Host::running();
    let mut last = until_persist(&mut host, 1);
    let mut images = 0;
    let mut check = |host: &Host, last: u64| {
        for disk in host.disk.crashes() {
            for lost in 0..=host.node.machine().commits() {
                images += 1;
                let machine = host.node.machine().crash(lost);
                let mut again = Host::start(disk.clone(), machine)
                    .unwrap_or_else(|error| panic!("{:?}, {lost} lost: {error}", disk.ids()));
                again.settle();
                assert_eq!(numbers(again.node.machine()), (1..=last).collect::<Vec<_>>(), "{lost} lost");
                // It goes on, gives up more, and recovers from that as well.
                let next = until_persist(&mut again, last + 1);
                again.persist();
                assert!(again.disk.ids().len() <= 4, "what an interrupted removal left goes with the next");
                let mut third =
                    Host::start(again.disk.clone(), again.node.machine().crash(99)).expect("it recovers");
                third.settle();
                assert_eq!(third.node.machine().commands.len() as u64, next);
            }
        }
    };
    for _ in 0..4 {
        check(&host, last);
        // The state is durable; the segments go one by one.
        for ticket in std::mem::take(&mut host.persists) {
            host.step(Input::Persisted { ticket, result: Ok(()) });
        }
        host.flush();
        check(&host, last);
        while !host.pending.is_empty() {
            assert!(matches!(host.pending[0], DiskCommand::Remove { .. }));
            host.disk();
            check(&host, last);
        }
        last = until_persist(&mut host, last + 1);
    }
    assert!(images > 40, "{images}");
}

#[test]
fn a_state_that_cannot_be_made_durable_stops_the_member() {
    let mut host = Host::running();
    until_persist(&mut host, 1);
    let ticket = host.persists.remove(0);
    host.step(Input::Persisted { ticket, result: Err("input/output error".into()) });
    host.flush();
    let Some(Notice::Fatal(why)) = host.notices.last() else { panic!("{:?}", host.notices) };
    assert!(why.contains("input/output error"), "{why}");
    assert_eq!(host.disk.ids()[0], 1);
}

#[test]
fn a_log_that_was_cut_is_not_taken_for_whole_without_its_state() {
    let mut host = Host::running();
    until_persist(&mut host, 1);
    host.persist();
    let told = |host: &Host| {
        let told = |notice: &Notice| match notice {
            Notice::Damaged(what) => Some(what.clone()),
            _ => None,
        };
        (host.node.process().lost, host.notices.iter().find_map(told).unwrap_or_default())
    };
    let emptied =
        Host::start(host.disk.clone(), List::default()).expect("the protocol knows what to make of it");
    let (lost, what) = told(&emptied);
    assert!(lost == 1 && what.contains("segment 1 ") && what.contains("emptied"), "{what}");
    let mut hole = host.disk.clone();
    let first = hole.ids()[0];
    hole.lose(SegmentId(first));
    let holed =
        Host::start(hole, host.node.machine().crash(0)).expect("the protocol knows what to make of it");
    let (lost, what) = told(&holed);
    assert!(lost == 1 && what.contains(&format!("segment {first} ")), "{what}");
    let Err(error) = Host::start(MemoryDisk::default(), host.node.machine().crash(0)) else {
        panic!("the log is gone")
    };
    assert!(matches!(error, StartError::Machine(_)), "{error}");
}

#[test]
fn large_batches_that_wait_are_restated_behind_themselves() {
    let mut config = config();
    config.limits.batch_bytes_max = 1000;
    let mut host = Host::start_with(config.clone(), MemoryDisk::default(), List::default()).expect("blank");
    host.settle();
    let mut notes = 0;
    for round in 0..20 {
        // Many writes wait at once, some of which begin segments.
        for bytes in 0..20 {
            host.say([Op::Note(bytes * 60)]);
            notes += 1;
        }
        if round % 3 == 0 {
            host.flush();
            while host.pending.len() > round % 2 {
                host.disk();
                // The assertions of the script see to it that what is restated is true where it stands.
                let again = Host::start_with(config.clone(), host.disk.clone(), List::default());
                assert!(again.expect("it recovers").node.process().notes <= notes);
            }
        }
    }
    host.settle();
    let again = Host::start_with(config, host.disk, List::default()).expect("it recovers");
    assert_eq!(again.node.process().notes, notes);
}
