//! An in-memory cluster of any replicated log: a clock, disks that sync when told, and wires that
//! hold every message until somebody delivers, repeats or drops it. Nothing happens unasked.

use crate::disk::Disk;
use crate::oracle::Oracle;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use synod_protocols::log::{
    CommittedEntry, Index, Lease, LogAsk, LogBase, LogConfig, LogEvent, LogLimits, LogRequest, Member,
    MembershipChange, Refusal, ReplicatedLog, Role, SnapshotPoint, Ticket, Timing,
};
use synod_protocols::types::{LinkSession, NodeId, Time};
use synod_protocols::{Describe, Effects, Input, Recovery, Release, StorageFault, Wire};

/// What all members are configured with.
#[derive(Clone, Default)]
pub struct Settings {
    pub timing: Timing,
    pub limits: LogLimits,
    pub seed: u64,
    pub lease: Option<Lease>,
    /// Priorities that are not the default.
    pub priorities: BTreeMap<NodeId, u8>,
    /// The α of members that are configured wrongly.
    pub alphas: BTreeMap<NodeId, usize>,
    /// By how many parts in a million a member's clock runs faster than the cluster's.
    pub drifts: BTreeMap<NodeId, i64>,
}

#[derive(Clone)]
pub struct Cluster<P: ReplicatedLog> {
    pub now: Time,
    settings: Settings,
    pub nodes: Vec<Node<P>>,
    /// How many members founded the cluster.
    pub founders: u64,
    /// How many snapshots were fetched.
    pub fetched: u64,
    /// Messages on their way, by sender and receiver; to itself too.
    wires: Vec<Vec<VecDeque<P::Message>>>,
    /// Which wires are cut: what enters them is lost.
    cut: Vec<Vec<bool>>,
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
    /// A read, with the end of its lease by the member's own clock if it rests on one.
    Ready(Index, Option<Time>),
    Done,
    Refused(Refusal),
}

/// One member and its host.
#[derive(Clone)]
pub struct Node<P: ReplicatedLog> {
    pub id: NodeId,
    pub process: Option<P>,
    lives: u64,
    pub disk: Disk<P::Record>,
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
    /// Where the log begins: what was compacted or fetched last.
    pub snapshot: Option<SnapshotPoint>,
    /// The configuration that it told last, in this life.
    pub members: Option<Vec<Member>>,
}

/// Something that waits for a sync.
#[derive(Clone)]
enum Held<P: ReplicatedLog> {
    Records(Vec<P::Record>),
    Send(NodeId, P::Message),
    Event(LogEvent),
}

impl<P: ReplicatedLog> Cluster<P> {
    pub fn new(size: u64, settings: Settings) -> Self {
        let mut cluster = Cluster {
            now: Time::ZERO,
            settings,
            nodes: Vec::new(),
            founders: size,
            fetched: 0,
            wires: Vec::new(),
            cut: Vec::new(),
            sessions: 0,
            tickets: 0,
            outcomes: BTreeMap::new(),
            oracle: Oracle::default(),
            trace: None,
            steps: 0,
            out: Effects::new(),
        };
        for _ in 0..size {
            cluster.install();
        }
        for id in cluster.ids() {
            cluster.start(id, Start::First);
        }
        cluster
    }

    /// One more machine, with a blank disk and the next free id. It is not started.
    pub fn install(&mut self) -> NodeId {
        let id = NodeId(self.nodes.len() as u64 + 1);
        self.nodes.push(Node {
            id,
            process: None,
            lives: 0,
            disk: Disk::default(),
            manual: false,
            waiting: VecDeque::new(),
            asks: VecDeque::new(),
            hold_answers: false,
            reads: Vec::new(),
            delivered: Vec::new(),
            applied: Index::ZERO,
            snapshot: None,
            members: None,
        });
        let size = self.nodes.len();
        self.wires.resize(size, Vec::new());
        self.cut.resize(size, Vec::new());
        self.wires.iter_mut().for_each(|wires| wires.resize(size, VecDeque::new()));
        self.cut.iter_mut().for_each(|cut| cut.resize(size, false));
        id
    }

    fn slot(&self, id: NodeId) -> usize {
        id.0 as usize - 1
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<P> {
        (1..=self.nodes.len() as u64).map(NodeId)
    }

    pub fn node(&self, id: NodeId) -> &Node<P> {
        &self.nodes[id.0 as usize - 1]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node<P> {
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
pub enum Start<'a> {
    First,
    Resume,
    /// These records are lost from now on, see [`Disk::lose`].
    Damaged(&'a [usize]),
    /// Its state machine is empty, and its log is as it was.
    Stateless,
    Join,
}

/// Members.
impl<P: ReplicatedLog> Cluster<P> {
    pub fn start(&mut self, id: NodeId, how: Start<'_>) {
        assert!(!self.is_up(id), "{id} is running");
        self.note(|| format!("{id} starts: {how:?}"));
        let (now, settings) = (self.local(id), self.settings.clone());
        let members = (1..=self.founders).map(NodeId).collect();
        let slot = self.slot(id);
        let node = &mut self.nodes[slot];
        node.lives += 1;
        node.members = None;
        let seed = settings.seed.wrapping_mul(1_000_003) ^ (id.0 << 32) ^ node.lives;
        let (timing, mut limits, lease) = (settings.timing, settings.limits, settings.lease);
        limits.alpha = settings.alphas.get(&id).copied().unwrap_or(limits.alpha);
        let priority = settings.priorities.get(&id).copied().unwrap_or(1);
        let common = LogConfig { timing, limits, lease, priority, ..LogConfig::new(id, members, seed) };
        if how == Start::Stateless {
            (node.applied, node.snapshot) = (Index::ZERO, None);
            node.disk.miss_the_beginning();
        }
        let promised = node.delivered.clone();
        node.delivered.truncate(node.applied.0 as usize);
        let base = LogBase { applied: node.applied, snapshot: node.snapshot.clone() };
        if let Start::Damaged(lost) = how {
            node.disk.lose(lost);
        }
        let is_damaged = node.disk.is_damaged();
        let mut records = node.disk.records().iter().flatten().cloned();
        let mut damaged = node.disk.records().iter().cloned();
        let from = match how {
            Start::First => Recovery::First,
            Start::Join => Recovery::Join,
            _ if is_damaged => Recovery::Damaged { records: &mut damaged },
            _ => Recovery::Resume { records: &mut records },
        };
        let mut out = std::mem::take(&mut self.out);
        let process = P::recover(P::config(common), from, base, now, &mut out);
        if how == Start::Resume && !node.disk.was_damaged() {
            check_recovered(id, &process, &promised);
        }
        node.process = Some(process);
        self.out = out;
        self.take_effects(id);
    }

    /// A new machine joins the cluster.
    pub fn join(&mut self) -> NodeId {
        let id = self.install();
        self.start(id, Start::Join);
        id
    }

    /// A new segment of the log begins.
    pub fn begin_segment(&mut self, id: NodeId) {
        self.sync(id, usize::MAX);
        let node = self.node_mut(id);
        if let Some(process) = &node.process {
            node.disk.begin_segment(process.restated());
        }
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
        let covered = node.snapshot.as_ref().map_or(Index::ZERO, |point| point.index);
        for records in batches.take(durable) {
            node.disk.write::<P>(records, covered);
        }
        node.asks.clear();
        let reads = std::mem::take(&mut node.reads);
        self.oracle.reads_lost(&reads);
        self.wire_mut(id, id).clear();
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
                    let covered = node.snapshot.as_ref().map_or(Index::ZERO, |point| point.index);
                    node.disk.write::<P>(records, covered);
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

    pub fn change(&mut self, id: NodeId, change: MembershipChange) -> Ticket {
        let ticket = self.ticket();
        self.step(id, Input::Request(LogRequest::ChangeMembership { ticket, change }));
        ticket
    }

    pub fn transfer(&mut self, id: NodeId, to: Option<NodeId>) -> Ticket {
        let ticket = self.ticket();
        self.step(id, Input::Request(LogRequest::TransferLeadership { ticket, to }));
        ticket
    }

    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub fn fault(&mut self, id: NodeId, fault: StorageFault) {
        self.step(id, Input::StorageFault(fault));
    }

    /// The time on the member's own clock.
    pub fn local(&self, id: NodeId) -> Time {
        let drift = self.settings.drifts.get(&id).copied().unwrap_or(0);
        Time((i128::from(self.now.0) * i128::from(1_000_000 + drift) / 1_000_000) as u64)
    }

    /// When the member wants its timer to fire, on the cluster's clock.
    fn deadline(&self, id: NodeId) -> Option<Time> {
        let deadline = self.node(id).process.as_ref()?.deadline()?;
        let rate = i128::from(1_000_000 + self.settings.drifts.get(&id).copied().unwrap_or(0));
        Some(Time(((i128::from(deadline.0) * 1_000_000 + rate - 1) / rate) as u64))
    }

    /// Lets the member's timer fire; the clock moves there if it is not there yet.
    pub fn timeout(&mut self, id: NodeId) -> bool {
        let Some(deadline) = self.deadline(id) else { return false };
        self.now = self.now.max(deadline);
        self.note(|| format!("{id} times out"));
        self.step(id, Input::Timeout);
        true
    }

    /// The member whose deadline comes first.
    pub fn next_deadline(&self) -> Option<(Time, NodeId)> {
        self.ids().filter_map(|id| Some((self.deadline(id)?, id))).min()
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
            let after = self.deadline(id);
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
        &self.wires[self.slot(from)][self.slot(to)]
    }

    pub fn wire_mut(&mut self, from: NodeId, to: NodeId) -> &mut VecDeque<P::Message> {
        let (from, to) = (self.slot(from), self.slot(to));
        &mut self.wires[from][to]
    }

    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut[self.slot(from)][self.slot(to)]
    }

    /// Loses what is and what comes on the wire, until it is healed. Nobody is told.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        let (slot, other) = (self.slot(from), self.slot(to));
        self.cut[slot][other] = true;
        self.wires[slot][other].clear();
    }

    pub fn heal(&mut self, from: NodeId, to: NodeId) {
        let (from, to) = (self.slot(from), self.slot(to));
        self.cut[from][to] = false;
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
        // An id without a machine is as good as a machine without a wire.
        if to.0 as usize > self.nodes.len() || self.is_cut(from, to) {
            return;
        }
        self.note(|| format!("  {from} -> {to} {} ({})", message.name(), message.detail()));
        self.wire_mut(from, to).push_back(message);
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
        let (slot, now) = (self.slot(id), self.local(id));
        let Some(process) = self.nodes[slot].process.as_mut() else { return };
        process.step(now, input, &mut self.out);
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
        out.asks.drain(..).for_each(|ask| self.nodes[slot].take_ask(ask));
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
                    let covered = node.snapshot.as_ref().map_or(Index::ZERO, |point| point.index);
                    assert!(
                        entry.index <= covered || node.disk.holds(entry.index),
                        "{id} delivers {}, which its disk does not hold",
                        entry.index
                    );
                    node.delivered.push(entry);
                }
            }
            LogEvent::ReadReady { ticket, index, valid_until } => {
                self.outcomes.insert(ticket, Answer::Ready(index, valid_until));
            }
            LogEvent::Done { ticket } => {
                self.outcomes.insert(ticket, Answer::Done);
            }
            LogEvent::Members { members } => node.members = Some(members),
            LogEvent::Refused { ticket, why } => {
                self.outcomes.insert(ticket, Answer::Refused(why));
            }
            LogEvent::Role { .. } => {}
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
            for record in node.disk.records() {
                encode(&mut digest, record.as_ref().map(Wire::to_bytes).unwrap_or_default());
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
            node.snapshot.hash(&mut digest);
        }
        for wire in self.wires.iter().flatten() {
            wire.len().hash(&mut digest);
            wire.iter().for_each(|message| encode(&mut digest, message.to_bytes()));
        }
        self.oracle.hash_into(&mut digest);
        digest.finish()
    }
}
