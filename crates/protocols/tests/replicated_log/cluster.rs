//! An in-memory cluster of any replicated log: a clock, disks that sync when told, and wires that
//! hold every message until somebody delivers, repeats or drops it. Nothing happens unasked.

use crate::oracle::Oracle;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use synod_protocols::log::{
    CommittedEntry, Index, LogAnswer, LogAsk, LogBase, LogConfig, LogEvent, LogLimits, LogRequest, Refusal,
    ReplicatedLog, Role, Ticket, Timing,
};
use synod_protocols::types::{LinkSession, NodeId, Time};
use synod_protocols::{Describe, Effects, Input, Recovery, Release, StorageFault, Wire};

/// What all members are configured with.
#[derive(Clone, Default)]
pub struct Settings {
    pub timing: Timing,
    pub limits: LogLimits,
    pub seed: u64,
}

#[derive(Clone)]
pub struct Cluster<P: ReplicatedLog> {
    pub now: Time,
    settings: Settings,
    pub nodes: Vec<Node<P>>,
    /// Messages on their way, by sender and receiver; to itself too.
    wires: Vec<VecDeque<P::Message>>,
    /// Which wires are cut: what enters them is lost.
    cut: Vec<bool>,
    sessions: u64,
    tickets: u64,
    /// What became of each request that was answered.
    pub outcomes: BTreeMap<Ticket, Answer>,
    pub oracle: Oracle,
    /// What happened, if anybody wants to know.
    pub trace: Option<String>,
    pub steps: u64,
    out: Effects<P>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ready(Index),
    Refused(Refusal),
}

/// One member and its host.
#[derive(Clone)]
pub struct Node<P: ReplicatedLog> {
    pub id: NodeId,
    pub process: Option<P>,
    lives: u64,
    disk: Disk<P::Record>,
    /// Whether effects wait for [`Cluster::sync`]; else every step is synced at once.
    pub manual: bool,
    waiting: VecDeque<Held<P>>,
    pub asks: VecDeque<LogAsk>,
    /// Whether [`Cluster::run`] leaves questions unanswered.
    pub hold_answers: bool,
    /// The reads asked of it in this life.
    reads: Vec<Ticket>,
    /// What the state machine has applied, and how much of that durably.
    pub delivered: Vec<CommittedEntry>,
    pub applied: Index,
}

/// Something that waits for a sync.
#[derive(Clone)]
enum Held<P: ReplicatedLog> {
    Records(Vec<P::Record>),
    Send(NodeId, P::Message),
    Event(LogEvent),
}

#[derive(Clone)]
struct Disk<R> {
    records: Vec<R>,
    /// For each position of the log, the record that holds it.
    holders: Vec<usize>,
}

impl<P: ReplicatedLog> Cluster<P> {
    pub fn new(size: u64, settings: Settings) -> Self {
        let nodes = (1..=size).map(|id| Node {
            id: NodeId(id),
            process: None,
            lives: 0,
            disk: Disk { records: Vec::new(), holders: Vec::new() },
            manual: false,
            waiting: VecDeque::new(),
            asks: VecDeque::new(),
            hold_answers: false,
            reads: Vec::new(),
            delivered: Vec::new(),
            applied: Index::ZERO,
        });
        let pairs = (size * size) as usize;
        let mut cluster = Cluster {
            now: Time::ZERO,
            settings,
            nodes: nodes.collect(),
            wires: vec![VecDeque::new(); pairs],
            cut: vec![false; pairs],
            sessions: 0,
            tickets: 0,
            outcomes: BTreeMap::new(),
            oracle: Oracle::default(),
            trace: None,
            steps: 0,
            out: Effects::new(),
        };
        for id in (1..=size).map(NodeId) {
            cluster.start(id, Start::First);
        }
        cluster
    }

    fn slot(&self, id: NodeId) -> usize {
        id.0 as usize - 1
    }

    fn pair(&self, from: NodeId, to: NodeId) -> usize {
        self.slot(from) * self.nodes.len() + self.slot(to)
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<P> {
        (1..=self.nodes.len() as u64).map(NodeId)
    }

    pub fn node(&self, id: NodeId) -> &Node<P> {
        &self.nodes[id.0 as usize - 1]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<P> {
        &mut self.nodes[id.0 as usize - 1]
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.node(id).process.is_some()
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node<P>| {
            node.process.as_ref().is_some_and(|process| process.status().role == Role::Leader)
        };
        self.nodes
            .iter()
            .filter(leads)
            .max_by_key(|node| node.process.as_ref().map(|process| process.status().epoch))
            .map(|node| node.id)
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>14?} {}", self.now, line());
        }
    }
}

/// How a member starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    First,
    Resume,
    Damaged,
    Join,
}

/// Members.
impl<P: ReplicatedLog> Cluster<P> {
    pub fn start(&mut self, id: NodeId, how: Start) {
        assert!(!self.is_up(id), "{id} is running");
        self.note(|| format!("{id} starts: {how:?}"));
        let (now, settings, members) = (self.now, self.settings.clone(), self.ids().collect());
        let slot = self.slot(id);
        let node = &mut self.nodes[slot];
        node.lives += 1;
        let seed = settings.seed.wrapping_mul(1_000_003) ^ (id.0 << 32) ^ node.lives;
        let (timing, limits) = (settings.timing, settings.limits);
        let common = LogConfig { timing, limits, ..LogConfig::new(id, members, seed) };
        let promised = node.delivered.clone();
        node.delivered.truncate(node.applied.0 as usize);
        let base = LogBase { applied: node.applied, snapshot: None };
        let mut records = node.disk.records.iter().cloned();
        let mut damaged = node.disk.records.iter().cloned().map(Some).chain([None]);
        let from = match how {
            Start::First => Recovery::First,
            Start::Join => Recovery::Join,
            Start::Resume => Recovery::Resume { records: &mut records },
            Start::Damaged => Recovery::Damaged { records: &mut damaged },
        };
        let mut out = std::mem::take(&mut self.out);
        let process = P::recover(P::config(common), from, base, now, &mut out);
        if how == Start::Resume {
            check_recovered(id, &process, &promised);
        }
        node.process = Some(process);
        self.out = out;
        self.take_effects(id);
    }

    /// The member stops at once. Of the batches of records that wait for a sync, the first
    /// `durable` happen to be on disk already; nobody was told.
    pub fn crash(&mut self, id: NodeId, durable: usize) {
        self.note(|| format!("{id} crashes"));
        let slot = self.slot(id);
        let node = &mut self.nodes[slot];
        node.process = None;
        let waiting = std::mem::take(&mut node.waiting);
        let batches = waiting.into_iter().filter_map(|held| match held {
            Held::Records(records) => Some(records),
            _ => None,
        });
        for records in batches.take(durable) {
            node.disk.write::<P>(records);
        }
        node.asks.clear();
        let reads = std::mem::take(&mut node.reads);
        self.oracle.reads_lost(&reads);
        let own = self.pair(id, id);
        self.wires[own].clear();
    }

    /// Makes the first `batches` steps' records durable, in order, and lets out what waited for them.
    pub fn sync(&mut self, id: NodeId, batches: usize) {
        let mut left = batches;
        loop {
            let node = self.node_mut(id);
            match node.waiting.front() {
                Some(Held::Records(_)) if left == 0 => return,
                None => return,
                Some(_) => {}
            }
            match node.waiting.pop_front().expect("just seen") {
                Held::Records(records) => {
                    left -= 1;
                    node.disk.write::<P>(records);
                    self.note(|| format!("{id} syncs"));
                }
                Held::Send(to, message) => self.post(id, to, message),
                Held::Event(event) => self.take_event(id, event),
            }
        }
    }

    /// Whether anything waits for a sync.
    pub fn has_unsynced(&self, id: NodeId) -> bool {
        !self.node(id).waiting.is_empty()
    }

    /// How many batches of records wait for a sync.
    pub fn unsynced(&self, id: NodeId) -> usize {
        self.node(id).waiting.iter().filter(|held| matches!(held, Held::Records(_))).count()
    }

    /// The state machine makes durable what it has applied.
    pub fn apply(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let index = Index(node.delivered.len() as u64);
        node.applied = index;
        self.step(id, Input::Request(LogRequest::Applied { index }));
    }

    pub fn propose(&mut self, id: NodeId, commands: Vec<Bytes>) -> Ticket {
        let ticket = self.ticket();
        self.step(id, Input::Request(LogRequest::Propose { ticket, commands }));
        ticket
    }

    pub fn read(&mut self, id: NodeId) -> Ticket {
        let ticket = self.ticket();
        self.oracle.read_asked(ticket);
        self.node_mut(id).reads.push(ticket);
        self.step(id, Input::Request(LogRequest::Read { ticket }));
        ticket
    }

    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub fn fault(&mut self, id: NodeId, fault: StorageFault) {
        self.step(id, Input::StorageFault(fault));
    }

    /// Answers the oldest question of a member's; `unreadable`: with nothing.
    pub fn answer(&mut self, id: NodeId, unreadable: bool) -> bool {
        let node = self.node_mut(id);
        let Some(ask) = node.asks.pop_front() else { return false };
        let LogAsk::Entries { from, to, bytes_max } = ask else {
            panic!("there are no snapshots to fetch yet")
        };
        let records = if unreadable {
            Vec::new()
        } else {
            node.disk.read(from, to, bytes_max, |record| record.to_bytes().len())
        };
        self.note(|| format!("{id} reads {} records from {from} on", records.len()));
        self.step(id, Input::Answer(LogAnswer::Entries { from, records }));
        true
    }

    /// Lets the member's timer fire; the clock moves there if it is not there yet.
    pub fn timeout(&mut self, id: NodeId) -> bool {
        let deadline = self.node(id).process.as_ref().and_then(P::deadline);
        let Some(deadline) = deadline else { return false };
        self.now = self.now.max(deadline);
        self.note(|| format!("{id} times out"));
        self.step(id, Input::Timeout);
        true
    }

    /// The member whose deadline comes first.
    pub fn next_deadline(&self) -> Option<(Time, NodeId)> {
        let deadlines =
            self.nodes.iter().filter_map(|node| Some((node.process.as_ref()?.deadline()?, node.id)));
        deadlines.min()
    }

    /// Time goes on: timers fire when they are due, and everything else happens at once.
    pub fn pass(&mut self, span: std::time::Duration) {
        let end = self.now + span;
        self.run();
        while let Some((deadline, id)) = self.next_deadline()
            && deadline <= end
        {
            let before = (self.now, deadline);
            self.timeout(id);
            self.run();
            let after = self.node(id).process.as_ref().and_then(P::deadline);
            assert!(
                self.now > before.0 || after != Some(before.1),
                "{id} does not move on from its deadline at {deadline:?}"
            );
        }
        self.now = end;
    }
}

/// Wires.
impl<P: ReplicatedLog> Cluster<P> {
    pub fn wire(&self, from: NodeId, to: NodeId) -> &VecDeque<P::Message> {
        &self.wires[self.pair(from, to)]
    }

    pub fn wire_mut(&mut self, from: NodeId, to: NodeId) -> &mut VecDeque<P::Message> {
        let pair = self.pair(from, to);
        &mut self.wires[pair]
    }

    /// Loses what is and what comes on the wire, until it is healed. Nobody is told.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        let pair = self.pair(from, to);
        self.cut[pair] = true;
        self.wires[pair].clear();
    }

    pub fn heal(&mut self, from: NodeId, to: NodeId) {
        let pair = self.pair(from, to);
        self.cut[pair] = false;
    }

    /// The connection breaks: messages on their way are lost, and whoever runs is told.
    pub fn link_down(&mut self, a: NodeId, b: NodeId) {
        self.note(|| format!("the connection of {a} and {b} breaks"));
        for (own, peer) in [(a, b), (b, a)] {
            self.wire_mut(own, peer).clear();
        }
        for (own, peer) in [(a, b), (b, a)] {
            self.step(own, Input::LinkDown { peer });
        }
    }

    pub fn link_up(&mut self, a: NodeId, b: NodeId) {
        self.sessions += 1;
        let session = LinkSession(self.sessions);
        self.note(|| format!("{a} and {b} connect"));
        for (own, peer) in [(a, b), (b, a)] {
            self.step(own, Input::LinkUp { peer, session });
        }
    }

    fn post(&mut self, from: NodeId, to: NodeId, message: P::Message) {
        let pair = self.pair(from, to);
        if self.cut[pair] {
            return;
        }
        self.note(|| format!("  {from} -> {to} {} ({})", message.name(), message.detail()));
        self.wires[pair].push_back(message);
    }

    /// Delivers the message at `position` of a wire, if there is one.
    pub fn deliver(&mut self, from: NodeId, to: NodeId, position: usize) -> bool {
        let Some(message) = self.wire_mut(from, to).remove(position) else { return false };
        self.note(|| format!("{to} receives from {from} {} ({})", message.name(), message.detail()));
        self.step(to, Input::Message { from, message });
        true
    }

    /// Delivers everything and answers every question until nothing is on its way.
    pub fn run(&mut self) {
        for _ in 0..1_000_000 {
            let mut moved = false;
            for to in self.ids() {
                moved |= self.is_up(to) && !self.node(to).hold_answers && self.answer(to, false);
                for from in self.ids() {
                    moved |= self.deliver(from, to, 0);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the members never stop talking");
    }
}

/// Steps and their effects.
impl<P: ReplicatedLog> Cluster<P> {
    pub fn step(&mut self, id: NodeId, input: Input<P>) {
        let slot = self.slot(id);
        let Some(process) = self.nodes[slot].process.as_mut() else { return };
        process.step(self.now, input, &mut self.out);
        self.steps += 1;
        self.take_effects(id);
    }

    fn take_effects(&mut self, id: NodeId) {
        let slot = self.slot(id);
        let mut out = std::mem::take(&mut self.out);
        self.check_state(id, &out);
        let records = std::mem::take(&mut out.records);
        if !records.is_empty() {
            if self.trace.is_some() {
                for record in &records {
                    self.note(|| format!("  {id} records {} ({})", record.name(), record.detail()));
                }
            }
            self.nodes[slot].waiting.push_back(Held::Records(records));
        }
        for send in out.sends.drain(..) {
            let waiting = &mut self.nodes[slot].waiting;
            let behind = |held: &Held<P>| matches!(held, Held::Send(to, _) if *to == send.to);
            // An early message never overtakes a held one to the same peer.
            if send.release == Release::Early && send.to != id && !waiting.iter().any(behind) {
                self.post(id, send.to, send.message);
            } else {
                waiting.push_back(Held::Send(send.to, send.message));
            }
        }
        for emit in out.events.drain(..) {
            match emit.release {
                Release::Early => self.take_event(id, emit.event),
                Release::Held => self.nodes[slot].waiting.push_back(Held::Event(emit.event)),
            }
        }
        self.nodes[slot].asks.extend(out.asks.drain(..));
        out.clear();
        self.out = out;
        let batches = if self.nodes[slot].manual { 0 } else { usize::MAX };
        self.sync(id, batches);
    }

    fn check_state(&mut self, id: NodeId, out: &Effects<P>) {
        let slot = self.slot(id);
        let Some(process) = self.nodes[slot].process.as_ref() else { return };
        for (first, last) in out.records.iter().filter_map(P::span) {
            self.oracle.check_appended(id, process, first, last);
        }
        let status = process.status();
        if status.committed > self.oracle.committed() {
            self.oracle.check_commit(id, process, status.committed);
        }
    }

    fn take_event(&mut self, id: NodeId, event: LogEvent) {
        self.note(|| format!("  {id} says {event:?}"));
        let slot = self.slot(id);
        let node = &mut self.nodes[slot];
        self.oracle.check_event(id, node.process.as_ref(), &event);
        match event {
            LogEvent::Committed { entries } => {
                for entry in entries {
                    let next = Index(node.delivered.len() as u64 + 1);
                    assert_eq!(entry.index, next, "{id} delivers with a gap or twice");
                    assert!(
                        node.disk.holders.len() as u64 >= entry.index.0,
                        "{id} delivers {}, which its disk does not hold",
                        entry.index
                    );
                    node.delivered.push(entry);
                }
            }
            LogEvent::ReadReady { ticket, index, .. } => {
                self.outcomes.insert(ticket, Answer::Ready(index));
            }
            LogEvent::Refused { ticket, why } => {
                self.outcomes.insert(ticket, Answer::Refused(why));
            }
            LogEvent::Done { .. } | LogEvent::Members { .. } | LogEvent::Role { .. } => {}
        }
    }
}

/// What a member delivered in an earlier life was on its disk, and still is.
fn check_recovered<P: ReplicatedLog>(id: NodeId, process: &P, delivered: &[CommittedEntry]) {
    let last = process.status().last;
    assert!(
        last.0 >= delivered.len() as u64,
        "{id} delivered {} entries, its disk held {last}",
        delivered.len()
    );
    for entry in delivered {
        let held = process.entry(entry.index);
        let same = held.is_none_or(|held| held == (entry.epoch, &entry.payload));
        assert!(same, "{id} delivered {entry:?}, its disk held {held:?}");
    }
}

impl<R: Clone> Disk<R> {
    fn write<P: ReplicatedLog<Record = R>>(&mut self, records: Vec<R>) {
        for record in records {
            if let Some((first, last)) = P::span(&record) {
                self.holders.truncate(first.0 as usize - 1);
                assert_eq!(self.holders.len() as u64 + 1, first.0, "records leave no gap");
                self.holders.resize(last.0 as usize, self.records.len());
            }
            self.records.push(record);
        }
    }

    fn read(&self, from: Index, to: Index, bytes_max: usize, size: impl Fn(&R) -> usize) -> Vec<R> {
        let mut records = Vec::new();
        let (mut bytes, mut previous) = (0, None);
        for holder in self.holders.iter().take(to.0 as usize).skip(from.0 as usize - 1) {
            if previous == Some(*holder) {
                continue;
            }
            previous = Some(*holder);
            let record = &self.records[*holder];
            bytes += size(record);
            if !records.is_empty() && bytes > bytes_max {
                break;
            }
            records.push(record.clone());
        }
        records
    }
}

/// A digest of everything that decides what can happen next, and of what the oracle remembers.
impl<P: ReplicatedLog> Cluster<P> {
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut digest = synod_protocols::Fingerprint::new();
        let encode = |digest: &mut synod_protocols::Fingerprint, bytes: Bytes| bytes.hash(digest);
        for node in &self.nodes {
            match &node.process {
                Some(process) => process.fingerprint(self.now, &mut digest),
                None => 0u8.hash(&mut digest),
            }
            for record in &node.disk.records {
                encode(&mut digest, record.to_bytes());
            }
            node.waiting.len().hash(&mut digest);
            for held in &node.waiting {
                match held {
                    Held::Records(records) => {
                        records.iter().for_each(|record| encode(&mut digest, record.to_bytes()));
                    }
                    Held::Send(to, message) => {
                        to.hash(&mut digest);
                        encode(&mut digest, message.to_bytes());
                    }
                    Held::Event(event) => format!("{event:?}").hash(&mut digest),
                }
            }
            (node.delivered.len(), node.applied, node.asks.len()).hash(&mut digest);
        }
        for wire in &self.wires {
            wire.len().hash(&mut digest);
            wire.iter().for_each(|message| encode(&mut digest, message.to_bytes()));
        }
        self.oracle.hash_into(&mut digest);
        digest.finish()
    }
}
