//! Three members of Raft whose connections break, whose disks tear and whose clients ask everybody:
//! every command applies at most once, and the acknowledged ones exactly once.

use crate::disk::MemoryDisk;
use crate::list::List;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use synod_node::node::Outcome;
use synod_node::*;
use synod_protocols::log::{LogLimits, ReplicatedLog, Ticket, Timing};
use synod_protocols::raft::{Message, Raft};
use synod_protocols::{Fingerprint, LinkSession, NodeId, Process, Rng, Time};

const MEMBERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// A member, running or not.
struct Member {
    node: Option<Node<Raft, List>>,
    disk: MemoryDisk,
    machine: List,
    commands: VecDeque<DiskCommand>,
    /// What its machine was told to make durable.
    persists: VecDeque<Ticket>,
    tape: Vec<u8>,
    lives: u64,
}

type Queue = VecDeque<PeerMessage<Message>>;

struct World {
    rng: Rng,
    seed: u64,
    now: Time,
    members: Vec<Member>,
    /// The connections that exist, by lower and higher member, and what is under way in each direction.
    links: BTreeMap<(usize, usize), [Queue; 2]>,
    sessions: u64,
    tickets: u64,
    /// Commands that wait for an answer: which member was asked.
    asked: BTreeMap<Ticket, usize>,
    acknowledged: BTreeSet<u64>,
    /// Commands that were answered as surely not done.
    not_done: BTreeSet<u64>,
    unknown: u64,
    lives: u64,
    snapshots: u64,
    /// The longest order of commands that any member applied.
    order: Vec<Bytes>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            rng: Rng::new(seed),
            seed,
            now: Time::from_millis(1),
            members: Vec::new(),
            links: BTreeMap::new(),
            sessions: 0,
            tickets: 0,
            asked: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            not_done: BTreeSet::new(),
            unknown: 0,
            lives: 0,
            snapshots: 0,
            order: Vec::new(),
        };
        for _ in MEMBERS {
            world.members.push(Member {
                node: None,
                disk: MemoryDisk::default(),
                machine: List::default(),
                commands: VecDeque::new(),
                persists: VecDeque::new(),
                tape: Vec::new(),
                lives: 0,
            });
        }
        for i in 0..MEMBERS.len() {
            world.start(i);
        }
        world
    }

    fn start(&mut self, i: usize) {
        let member = &mut self.members[i];
        member.lives += 1;
        self.lives += 1;
        let config = NodeConfig {
            cluster: ClusterId(1),
            id: MEMBERS[i],
            members: MEMBERS.to_vec(),
            bootstrap: Bootstrap::Found,
            timing: Timing::default(),
            // Small, so that entries leave memory and are read back from the disk.
            log: LogLimits { tail_bytes_max: 2000, ..LogLimits::default() },
            priority: 1,
            lease: None,
            limits: NodeLimits {
                request_timeout: Duration::from_millis(250),
                segment_bytes: 8192,
                snapshot_part_bytes: 2000,
                batch_bytes_max: 2048,
                ..NodeLimits::default()
            },
            seed: self.rng.next(),
            record: true,
        };
        let mut out = Outbox::default();
        let machine = member.machine.clone();
        let node = Node::start(config, &mut member.disk, machine, self.now, &mut out)
            .unwrap_or_else(|error| panic!("seed {}: {} cannot start: {error}", self.seed, MEMBERS[i]));
        member.node = Some(node);
        member.tape.clear();
        self.carry_out(i, out);
        for j in 0..MEMBERS.len() {
            self.connect(i, j);
        }
    }

    fn crash(&mut self, i: usize) {
        for j in 0..MEMBERS.len() {
            self.cut(i, j);
        }
        let member = &mut self.members[i];
        let Some(node) = member.node.take() else { return };
        let rng = &mut self.rng;
        // The write under way may have reached the disk in part.
        if let Some(DiskCommand::Append { segment, create, offset, bytes, .. }) = member.commands.pop_front()
            && rng.chance(1, 2)
        {
            create.into_iter().for_each(|size| member.disk.create(segment, size).expect("there is room"));
            member.disk.write(segment, offset, &bytes).expect("there is room");
        }
        member.commands.clear();
        member.persists.clear();
        member.disk = member.disk.crash(|n| rng.below(n as u64) as usize);
        let machine = node.into_machine();
        let lost = rng.below(machine.commits() as u64 + 1) as usize;
        member.machine = machine.crash(if rng.chance(1, 2) { 0 } else { lost });
        self.asked.retain(|_, asked| *asked != i);
    }

    fn key(i: usize, j: usize) -> (usize, usize) {
        (i.min(j), i.max(j))
    }

    fn connect(&mut self, i: usize, j: usize) {
        let both = self.members[i].node.is_some() && self.members[j].node.is_some();
        if i == j || !both || self.links.contains_key(&World::key(i, j)) {
            return;
        }
        self.links.insert(World::key(i, j), [VecDeque::new(), VecDeque::new()]);
        self.sessions += 1;
        let session = LinkSession(self.sessions);
        self.step(i, Input::LinkUp { peer: MEMBERS[j], session });
        self.step(j, Input::LinkUp { peer: MEMBERS[i], session });
    }

    /// Ends a connection; what is under way is lost.
    fn cut(&mut self, i: usize, j: usize) {
        if self.links.remove(&World::key(i, j)).is_some() {
            self.step(i, Input::LinkDown { peer: MEMBERS[j] });
            self.step(j, Input::LinkDown { peer: MEMBERS[i] });
        }
    }

    fn step(&mut self, i: usize, input: Input<Raft, List>) {
        let Some(node) = &mut self.members[i].node else { return };
        let mut out = Outbox::default();
        node.step(self.now, input, &mut out);
        if self.rng.chance(2, 3) {
            node.flush(self.now, &mut out);
        }
        self.carry_out(i, out);
    }

    fn flush(&mut self, i: usize) {
        let Some(node) = &mut self.members[i].node else { return };
        let mut out = Outbox::default();
        node.flush(self.now, &mut out);
        self.carry_out(i, out);
    }

    fn carry_out(&mut self, i: usize, out: Outbox<Raft, List>) {
        self.members[i].commands.extend(out.disk);
        self.members[i].persists.extend(out.persists);
        self.members[i].tape.extend(out.tape);
        for PeerSend { to, message, .. } in out.sends {
            let j = MEMBERS.iter().position(|member| *member == to).expect("a member");
            if let Some(queues) = self.links.get_mut(&World::key(i, j)) {
                // What crosses a wire is what its bytes say.
                let message = synod_protocols::Wire::from_bytes(synod_protocols::Wire::to_bytes(&message));
                queues[usize::from(i > j)].push_back(message.expect("it was just encoded"));
            }
        }
        for reply in out.replies {
            self.asked.remove(&reply.ticket).expect("every request is answered once");
            let number = reply.ticket.0;
            match reply.outcome {
                Outcome::Applied { .. } => drop(self.acknowledged.insert(number)),
                Outcome::Changed { .. } => {}
                Outcome::Answered { answer, .. } => {
                    // Commands that were acknowledged before the read was asked are seen; here a
                    // weaker thing is checked: nothing is seen that nobody applied.
                    assert!(answer <= self.order.len().max(self.longest()), "seed {}", self.seed);
                }
                Outcome::Failed(ClientError::Timeout) => self.unknown += 1,
                Outcome::Failed(_) => drop(self.not_done.insert(number)),
            }
        }
        for notice in out.notices {
            self.snapshots += u64::from(matches!(notice, Notice::Installed { .. }));
            assert!(!matches!(notice, Notice::Fatal(_)), "seed {}: {notice:?}", self.seed);
        }
        if let Some(node) = &self.members[i].node {
            let commands = &node.machine().commands;
            let common = commands.len().min(self.order.len());
            // Comparing the ends keeps this cheap; every prefix was compared when it was the end.
            let from = common.saturating_sub(4);
            assert_eq!(
                commands[from..common],
                self.order[from..common],
                "seed {}: members disagree",
                self.seed
            );
            if commands.len() > self.order.len() {
                self.order = commands.clone();
            }
        }
    }

    fn longest(&self) -> usize {
        let nodes = self.members.iter().filter_map(|member| member.node.as_ref());
        nodes.map(|node| node.machine().commands.len()).max().unwrap_or(0)
    }

    fn put(&mut self, i: usize) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if self.members[i].node.is_some() {
            self.asked.insert(ticket, i);
            let mut command = format!("{} ", ticket.0).into_bytes();
            command.resize(10 + self.rng.below(200) as usize, b'.');
            self.step(i, Input::Client { ticket, request: Request::Command(command.into()) });
        }
        ticket
    }

    fn read(&mut self, i: usize) {
        self.tickets += 1;
        if self.members[i].node.is_some() {
            self.asked.insert(Ticket(self.tickets), i);
            self.step(i, Input::Client { ticket: Ticket(self.tickets), request: Request::Read(()) });
        }
    }

    /// Lets time pass until the next deadline, or a little.
    fn advance(&mut self, at_most: Duration) {
        let nodes = self.members.iter().filter_map(|member| member.node.as_ref());
        let deadline = nodes.filter_map(|node| node.deadline()).min();
        let latest = self.now + at_most;
        self.now = deadline.map_or(latest, |deadline| deadline.clamp(self.now, latest));
        for i in 0..MEMBERS.len() {
            let node = self.members[i].node.as_ref();
            if node.and_then(|node| node.deadline()).is_some_and(|deadline| deadline <= self.now) {
                self.step(i, Input::Timeout);
            }
            self.flush(i);
        }
    }

    fn deliver(&mut self, i: usize, j: usize) {
        let queues = self.links.get_mut(&World::key(i, j));
        if let Some(message) = queues.and_then(|queues| queues[usize::from(i > j)].pop_front()) {
            self.step(j, Input::Peer { from: MEMBERS[i], message });
        }
    }

    fn disk(&mut self, i: usize) {
        if let Some(command) = self.members[i].commands.pop_front() {
            let reply = command.execute(&mut self.members[i].disk);
            self.step(i, Input::Disk(reply));
        }
    }

    fn persist(&mut self, i: usize) {
        if let Some(ticket) = self.members[i].persists.pop_front() {
            self.step(i, Input::Persisted { ticket, result: Ok(()) });
        }
    }

    fn random_step(&mut self, faults: bool) {
        let i = self.rng.below(3) as usize;
        let j = (i + 1 + self.rng.below(2) as usize) % 3;
        match self.rng.below(400) {
            0 if faults => self.cut(i, j),
            1 | 2 => self.connect(i, j),
            3 if faults && self.rng.chance(1, 6) => self.crash(i),
            4 if self.members[i].node.is_none() => self.start(i),
            5..=30 => drop(self.put(i)),
            31..=40 => self.read(i),
            41..=90 => self.advance(Duration::from_millis(2)),
            91..=300 => self.deliver(i, j),
            301..=378 => self.disk(i),
            379 | 380 => self.persist(i),
            _ => self.flush(i),
        }
    }

    /// Mends everything and lets it run until every client was answered.
    fn heal(&mut self) {
        for i in 0..MEMBERS.len() {
            if self.members[i].node.is_none() {
                self.start(i);
            }
        }
        for i in 0..MEMBERS.len() {
            self.connect(i, (i + 1) % 3);
        }
        for _ in 0..40_000 {
            for i in 0..MEMBERS.len() {
                for j in 0..MEMBERS.len() {
                    self.deliver(i, j);
                }
                self.disk(i);
                self.persist(i);
                self.flush(i);
            }
            let quiet = self.links.values().flatten().all(VecDeque::is_empty)
                && self.members.iter().all(|member| member.commands.is_empty());
            if quiet {
                let same = self.members.iter().all(|member| {
                    member.node.as_ref().is_some_and(|node| node.machine().commands.len() == self.order.len())
                });
                if self.asked.is_empty() && same {
                    return;
                }
                self.advance(Duration::from_millis(10));
            }
        }
        for member in &self.members {
            let node = member.node.as_ref().expect("all run");
            println!("{:?} deadline {:?} {:?}", self.now, node.deadline(), node.status());
            println!("{} commands, {:?}", node.machine().commands.len(), node.process().describe(self.now));
        }
        panic!("seed {}: {} clients were never answered", self.seed, self.asked.len());
    }

    fn number(command: &Bytes) -> u64 {
        let digits = command.split(|byte| *byte == b' ').next().expect("there is a first part");
        std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).expect("it is a number")
    }

    fn check(&self) {
        let mut seen = BTreeSet::new();
        for command in &self.order {
            assert!(seen.insert(World::number(command)), "seed {}: a command applied twice", self.seed);
        }
        let lost = self.acknowledged.difference(&seen).next();
        assert_eq!(lost, None, "seed {}: an acknowledged command is lost", self.seed);
        let done = self.not_done.intersection(&seen).next();
        assert_eq!(done, None, "seed {}: a command was done that was reported as not done", self.seed);
        for member in &self.members {
            let node = member.node.as_ref().expect("all run");
            assert_eq!(node.machine().commands, self.order, "seed {}: members disagree", self.seed);
        }
    }

    /// The life of each member, played again from its tape, ends where the member is.
    fn check_tapes(&self) {
        for member in &self.members {
            let node = member.node.as_ref().expect("all run");
            let digest = |process: &Raft| {
                let mut digest = Fingerprint::new();
                process.fingerprint(self.now, &mut digest);
                std::hash::Hasher::finish(&digest)
            };
            let mut last = None;
            let inputs = tape::replay::<Raft>(Bytes::from(member.tape.clone()), |_, _, _, process| {
                last = Some((process.status(), digest(process)));
            });
            assert_eq!(inputs, Ok(node.status().steps), "seed {}", self.seed);
            let live = (node.process().status(), digest(node.process()));
            assert_eq!(last, Some(live), "seed {}: a replay went another way", self.seed);
        }
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    let steps = 2000 + world.rng.below(6000);
    for _ in 0..steps {
        world.random_step(true);
    }
    world.heal();
    world.check();
    // Whatever happened before, everybody is served soon.
    for i in 0..MEMBERS.len() {
        let served = (0..10).any(|_| {
            let ticket = world.put(i);
            world.heal();
            world.acknowledged.contains(&ticket.0)
        });
        assert!(served, "seed {seed}: no progress after healing");
    }
    world.check();
    (0..MEMBERS.len()).for_each(|i| world.flush(i));
    world.check_tapes();
    world
}

/// For a longer campaign: `SEEDS=<how many> cargo test -p synod-node --test node cluster`. To run one
/// seed again: `SEED=<seed> cargo test -p synod-node --test node one_seed -- --nocapture`.
#[test]
fn one_seed_named_by_the_environment() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let world = run(seed);
    println!(
        "seed {seed}: {} acknowledged, {} unknown, {} lives",
        world.acknowledged.len(),
        world.unknown,
        world.lives
    );
}

#[test]
fn every_command_applies_at_most_once_and_the_acknowledged_ones_exactly_once() {
    let (mut acknowledged, mut unknown, mut lives, mut not_done, mut snapshots) = (0, 0, 0, 0, 0);
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    for seed in 0..seeds {
        println!("to run this again: SEED={seed} cargo test -p synod-node --test node one_seed");
        let world = run(seed);
        acknowledged += world.acknowledged.len();
        unknown += world.unknown;
        lives += world.lives;
        not_done += world.not_done.len();
        snapshots += world.snapshots;
    }
    println!(
        "{acknowledged} acknowledged, {unknown} unknown, {not_done} not done, {lives} lives, {snapshots} snapshots"
    );
    // What was to be tested did happen.
    assert!(
        acknowledged > 3000 && unknown > 20 && lives > 250 && snapshots > 5,
        "{acknowledged} {unknown} {not_done} {lives} {snapshots}"
    );
}
