//! The replica of a weak keyspace and its log.

use crate::disk::MemoryDisk;
use bytes::Bytes;
use synod_node::*;
use synod_protocols::log::Ticket;
use synod_protocols::weak::{
    self, Causal, Config, Content, Event, Eventual, Kind, Limits, Name, Refusal, Request, Standing,
    WeakReplica, Write,
};
use synod_protocols::{Incarnation, Input, LinkSession, NodeId, Rng, Time};

const SEGMENT_BYTES: u64 = 4096;

/// A replica, its disk, and what it has said.
struct Host<P: WeakReplica> {
    node: WeakNode<P>,
    disk: MemoryDisk,
    pending: Vec<DiskCommand>,
    out: WeakOutbox,
    now: Time,
    tickets: u64,
    events: Vec<Event>,
    notices: Vec<WeakNotice>,
    /// Messages that left.
    sent: usize,
}

fn config(members: u64) -> WeakNodeConfig {
    let replica = Config {
        limits: Limits { log_max: 8, ..Limits::default() },
        ..Config::new(NodeId(1), (1..=members).map(NodeId).collect())
    };
    WeakNodeConfig {
        replica,
        blank: Blank::Founds,
        segment_bytes: SEGMENT_BYTES,
        batch_bytes_max: 1 << 20,
        compact_bytes: 2 * SEGMENT_BYTES,
    }
}

impl<P: WeakReplica> Host<P> {
    fn start(mut disk: MemoryDisk, config: WeakNodeConfig) -> Result<Self, StartError> {
        let mut out = WeakOutbox::default();
        let node = WeakNode::start(config, &mut disk, Time::from_millis(1), &mut out)?;
        let mut host = Host {
            node,
            disk,
            pending: Vec::new(),
            out,
            now: Time::from_millis(1),
            tickets: 0,
            events: Vec::new(),
            notices: Vec::new(),
            sent: 0,
        };
        host.collect();
        Ok(host)
    }

    /// One that has begun.
    fn running(disk: MemoryDisk, config: WeakNodeConfig) -> Self {
        let mut host = Host::start(disk, config).expect("it starts");
        host.settle();
        host
    }

    fn collect(&mut self) {
        self.pending.append(&mut self.out.disk);
        self.events.append(&mut self.out.events);
        self.notices.append(&mut self.out.notices);
        self.sent += self.out.sends.drain(..).count();
    }

    fn flush(&mut self) {
        self.node.flush(self.now, &mut self.out);
        self.collect();
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now + std::time::Duration::from_millis(millis);
        self.flush();
    }

    fn ask(&mut self, request: impl FnOnce(Ticket) -> Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.node.step(self.now, Input::Request(request(ticket)), &mut self.out);
        self.collect();
        ticket
    }

    fn put(&mut self, key: &str, value: &str) -> Ticket {
        let write = Write::Put { key: key.to_owned().into(), value: value.to_owned().into() };
        self.ask(|ticket| Request::Write { ticket, token: None, writes: vec![write] })
    }

    fn get(&mut self, key: &str) -> Result<Option<Bytes>, Refusal> {
        let name = Name { kind: Kind::Register, key: key.to_owned().into() };
        let ticket = self.ask(|ticket| Request::Read { ticket, token: None, names: vec![name] });
        self.settle();
        let answer = self.events.iter().find_map(|event| match event {
            Event::Read { ticket: own, contents, .. } if *own == ticket => match &contents[..] {
                [Content::Value(value)] => Some(Ok(value.clone())),
                other => panic!("a register holds {other:?}"),
            },
            Event::Refused { ticket: own, why } if *own == ticket => Some(Err(why.clone())),
            _ => None,
        });
        answer.expect("it is answered")
    }

    fn refusal(&self, ticket: Ticket) -> Option<&Refusal> {
        self.events.iter().find_map(|event| match event {
            Event::Refused { ticket: own, why } if *own == ticket => Some(why),
            _ => None,
        })
    }

    fn is_written(&self, ticket: Ticket) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Written { ticket: own, .. } if *own == ticket))
    }

    /// The disk does what it was asked.
    fn serve(&mut self) {
        for command in std::mem::take(&mut self.pending) {
            let reply = command.execute(&mut self.disk);
            self.node.on_disk(self.now, reply, &mut self.out);
        }
        self.collect();
    }

    fn settle(&mut self) {
        self.flush();
        while !self.pending.is_empty() {
            self.serve();
            self.flush();
        }
    }

    fn seen(&self) -> u64 {
        self.node.process().replica().seen().len()
    }
}

#[test]
fn neither_client_nor_peer_hears_of_an_update_before_it_is_durable_and_many_share_a_sync() {
    let mut host = Host::<Causal>::running(MemoryDisk::default(), config(3));
    let (syncs, sent) = (host.disk.syncs, host.sent);
    let tickets: Vec<Ticket> = (0..10).map(|i| host.put(&format!("k{i}"), "v")).collect();
    host.flush();
    assert!(tickets.iter().all(|ticket| !host.is_written(*ticket)) && host.sent == sent);
    host.serve();
    assert!(tickets.iter().all(|ticket| host.is_written(*ticket)));
    assert_eq!((host.disk.syncs - syncs, host.sent - sent), (1, 20), "to two peers each");
}

#[test]
fn whatever_a_crash_leaves_of_a_write_all_that_was_acknowledged_is_there() {
    let mut images = 0;
    for bytes in [10, 300, 700, 1500] {
        let mut host = Host::<Causal>::running(MemoryDisk::default(), config(1));
        for round in 0..6_u64 {
            let ticket = host.put(&format!("k{round}"), &"x".repeat(bytes));
            host.flush();
            let mut torn = host.disk.clone();
            for command in host.pending.clone() {
                let DiskCommand::Append { segment, create, offset, bytes, .. } = command else { continue };
                if let Some(size) = create {
                    torn.create(segment, size).expect("room");
                }
                torn.write(segment, offset, &bytes).expect("room");
            }
            for image in torn.crashes() {
                images += 1;
                let mut again = Host::<Causal>::running(image, config(1));
                assert!((round..=round + 1).contains(&again.seen()), "{} of {round}", again.seen());
                assert_eq!(again.node.damage(), None, "a torn write was taken for damage");
                let next = again.put("next", "v");
                again.settle();
                assert!(again.is_written(next));
            }
            host.settle();
            assert!(host.is_written(ticket));
        }
    }
    assert!(images > 100, "only {images} images were looked at");
}

#[test]
fn every_corrupt_byte_of_what_was_synced_is_found_and_the_replica_abstains_for_ever() {
    let mut host = Host::<Causal>::running(MemoryDisk::default(), config(1));
    for i in 0..4 {
        host.put(&format!("k{i}"), "value");
        host.settle();
    }
    host.wait(20);
    host.settle();
    let first = synod_node::frame::SEGMENT_HEADER_BYTES;
    let used = host.disk.bytes(SegmentId(1)).iter().rposition(|byte| *byte != 0).expect("it holds frames");
    let mut damaged = 0;
    for byte in first..used - synod_node::frame::FRAME_HEADER_BYTES {
        let mut disk = host.disk.clone();
        disk.flip(SegmentId(1), byte * 8 + byte % 8);
        let mut again = Host::<Causal>::running(disk.clone(), config(1));
        if again.node.damage().is_none() {
            // Padding holds nothing.
            assert_eq!(again.get("k3"), Ok(Some("value".into())), "byte {byte} was lost silently");
            continue;
        }
        damaged += 1;
        assert_eq!(again.node.process().replica().standing(), &Standing::Damaged);
        assert_eq!(again.get("k0"), Err(Refusal::Damaged));
        let ticket = again.put("k9", "v");
        again.wait(1_000);
        again.settle();
        assert_eq!(again.refusal(ticket), Some(&Refusal::Damaged));
        assert_eq!((again.sent, again.disk.syncs), (0, disk.syncs), "it says and writes nothing");
        assert!(Host::<Causal>::running(again.disk, config(1)).node.damage().is_some(), "nor later");
    }
    assert!(damaged > 200, "{damaged} bytes of {used}");
}

#[test]
fn a_blank_log_of_one_who_has_lived_is_not_a_first_start() {
    let lost = || WeakNodeConfig { blank: Blank::Lost, ..config(3) };
    let mut host = Host::<Eventual>::running(MemoryDisk::default(), lost());
    assert!(host.node.damage().is_some_and(|what| what.contains("has lived in this keyspace before")));
    assert_eq!(host.get("k"), Err(Refusal::Damaged));
    let again = Host::<Eventual>::running(host.disk, lost());
    assert_eq!(again.node.process().replica().standing(), &Standing::Damaged);
}

#[test]
fn each_life_has_a_number_of_its_own_and_the_first_ones_names_the_updates() {
    let mut host = Host::<Causal>::running(MemoryDisk::default(), config(1));
    host.put("k", "1");
    host.settle();
    let begun = WeakNodeConfig { blank: Blank::Lost, ..config(1) };
    let mut host = Host::<Causal>::running(host.disk, begun.clone());
    host.put("k", "2");
    host.settle();
    assert_eq!(host.node.process().replica().origin().since, Incarnation(1));
    let mut host = Host::<Causal>::running(host.disk, begun);
    assert_eq!((host.seen(), host.get("k")), (2, Ok(Some("2".into()))));
}

#[test]
fn a_log_that_is_written_over_and_over_stays_as_short_as_what_it_holds_through_crashes() {
    let mut rng = Rng::new(7);
    let mut host = Host::<Eventual>::running(MemoryDisk::default(), config(1));
    let mut compactions = 0;
    for i in 0..3_000_u64 {
        let ticket = host.put(&format!("k{}", i % 10), &format!("value {i}"));
        host.flush();
        if rng.chance(1, 40) {
            // In the middle of whatever it does.
            let image = host.disk.crash(|n| rng.below(n as u64) as usize);
            compactions += host.node.figures().compactions;
            let seen = host.seen();
            host = Host::running(image, config(1));
            assert!((seen - 1..=seen).contains(&host.seen()), "{} of {seen}", host.seen());
            assert_eq!(host.node.damage(), None);
            continue;
        }
        host.settle();
        assert!(host.is_written(ticket));
    }
    compactions += host.node.figures().compactions;
    assert!(compactions > 20, "{compactions}");
    let figures = host.node.figures();
    assert!(figures.log_bytes < 4 * SEGMENT_BYTES, "{figures:?}");
    assert!(host.disk.ids().len() <= 4, "{:?}", host.disk.ids());
    let held = host.get("k9").expect("it is answered").expect("it was written");
    let mut again = Host::<Eventual>::running(host.disk, config(1));
    assert_eq!(again.get("k9"), Ok(Some(held)));
}

#[test]
fn a_log_whose_beginning_is_missing_is_damaged() {
    let mut host = Host::<Eventual>::running(MemoryDisk::default(), config(1));
    while host.disk.ids().len() < 3 {
        host.put("k", &"x".repeat(500));
        host.settle();
    }
    let first = host.disk.ids()[0];
    host.disk.lose(SegmentId(first));
    let again = Host::<Eventual>::running(host.disk, config(1));
    assert!(again.node.damage().is_some_and(|what| what.contains("missing")), "{:?}", again.node.damage());
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room() {
    let mut host = Host::<Causal>::running(MemoryDisk::default(), config(1));
    host.disk.full = true;
    let mut waiting = Vec::new();
    while !host.notices.contains(&WeakNotice::DiskFull) {
        waiting.push(host.put("k", &"x".repeat(900)));
        host.flush();
        host.serve();
    }
    let last = *waiting.last().expect("there is one");
    assert!(!host.is_written(last) && host.refusal(last).is_none(), "its end is open");
    let refused = host.put("k", "v");
    host.flush();
    host.disk.full = false;
    host.wait(500);
    host.settle();
    assert_eq!(host.refusal(refused), Some(&Refusal::Full));
    assert!(waiting.iter().all(|ticket| host.is_written(*ticket)), "nothing that was taken is lost");
    assert_eq!(host.notices, [WeakNotice::DiskFull, WeakNotice::DiskCleared]);
    let taken = host.put("k", "v");
    host.settle();
    assert!(host.is_written(taken));
}

#[test]
fn a_sync_that_fails_stops_the_member_and_is_not_tried_again() {
    let mut host = Host::<Causal>::running(MemoryDisk::default(), config(1));
    host.disk.broken = true;
    let ticket = host.put("k", "v");
    host.flush();
    host.serve();
    assert!(matches!(&host.notices[..], [WeakNotice::Failed(why)] if why.contains("input/output error")));
    host.disk.broken = false;
    host.wait(1_000);
    assert!(host.pending.is_empty() && !host.is_written(ticket) && host.node.deadline().is_none());
}

#[test]
fn the_log_of_another_keyspace_or_level_is_refused() {
    let host = Host::<Causal>::running(MemoryDisk::default(), config(1));
    let mut other = config(1);
    other.replica.keyspace = weak::KeyspaceId(9);
    let keyspace = Host::<Causal>::start(host.disk.clone(), other).map(drop);
    let level = Host::<Eventual>::start(host.disk, config(1)).map(drop);
    assert!(matches!(keyspace, Err(StartError::Foreign { .. })), "{keyspace:?}");
    assert!(matches!(level, Err(StartError::Foreign { what }) if what.contains("causal")));
}

#[test]
fn messages_for_a_peer_whose_link_ends_are_lost_with_it_and_others_leave() {
    let mut host = Host::<Causal>::running(MemoryDisk::default(), config(3));
    let sent = host.sent;
    host.put("k", "v");
    host.flush();
    host.node.step(host.now, Input::LinkDown { peer: NodeId(2) }, &mut host.out);
    host.serve();
    assert_eq!(host.sent - sent, 1);
    host.node.step(host.now, Input::LinkUp { peer: NodeId(2), session: LinkSession(2) }, &mut host.out);
    host.settle();
    assert_eq!(host.sent - sent, 2, "a digest that asks");
}
