//! A small world for atomic commit: machines with disks that sync when told, and messages that stay
//! in flight until somebody delivers, repeats or drops them. Nothing happens unasked.
//!
//! After every step it is checked that nobody commits what another aborts, that decisions are stable,
//! and that nothing is applied twice; and, whenever no transaction is under way, that no money is gone.

use super::party::{Branches, Part, Party, Told, locks};
use super::subject::{Bank, BankOp, Decision, Limits, TxnId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::hash::Hash;
use std::time::Duration;
use synod_protocols::log::Ticket;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Describe, Effects, Fingerprint, Input, Recovery, Release, Wire};

/// What each bank's account holds at first.
pub const BALANCE: u64 = 100;

#[derive(Clone)]
pub struct World<P: Party> {
    pub now: Time,
    pub machines: BTreeMap<NodeId, Machine<P>>,
    /// In the order in which they were sent.
    pub flight: Vec<Flying<P>>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    tickets: u64,
    /// What became of each transaction that was asked for.
    pub asked: BTreeMap<Ticket, Asked>,
    pub oracle: Oracle,
    /// Where people's decisions turned out to be wrong, once for each time that this was told.
    pub damage: Vec<(NodeId, TxnId)>,
    /// What happened, if anybody wants to know.
    pub trace: Option<String>,
    pub steps: u64,
    pub delivered: u64,
}

#[derive(Clone)]
pub struct Flying<P: Party> {
    pub from: NodeId,
    pub to: NodeId,
    pub message: P::Message,
}

/// One machine, its disk and its process.
#[derive(Clone)]
pub struct Machine<P: Party> {
    pub part: Part,
    lives: u64,
    pub process: Option<P>,
    /// What is durable.
    pub disk: Vec<P::Record>,
    /// Whether effects wait for [`World::sync`]; else every step is synced at once.
    pub is_slow: bool,
    waiting: VecDeque<Held<P>>,
}

#[derive(Clone)]
enum Held<P: Party> {
    Records(Vec<P::Record>),
    /// In the place of all records before.
    Checkpoint(Vec<P::Record>),
    Send(NodeId, P::Message),
    Event(P::Event),
}

impl<P: Party> Held<P> {
    fn is_batch(&self) -> bool {
        matches!(self, Held::Records(_) | Held::Checkpoint(_))
    }
}

impl<P: Party> Machine<P> {
    /// What waited for a sync is on disk.
    fn keep(&mut self, held: Held<P>) {
        match held {
            Held::Records(records) => self.disk.extend(records),
            Held::Checkpoint(records) => self.disk = records,
            Held::Send(..) | Held::Event(_) => {}
        }
    }
}

/// One request, and what its client knows.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub txn: Option<TxnId>,
    pub decision: Option<Decision>,
    pub answers: BTreeMap<NodeId, Bytes>,
    pub why: String,
    pub refused: Option<String>,
    /// Whether a person has decided the transaction by this request.
    pub is_by_hand: bool,
}

/// What must hold of everything that was ever told.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    decisions: BTreeMap<TxnId, Decision>,
    ended: BTreeMap<(NodeId, TxnId), Decision>,
    pub commits: u64,
    pub aborts: u64,
    /// Whether a split is noted and not the end of the run: a script wants to show one.
    pub is_split_allowed: bool,
    pub is_split: bool,
}

impl Oracle {
    /// Nobody commits what another aborts, and nobody changes its mind.
    fn decided(&mut self, who: NodeId, txn: TxnId, decision: Decision) {
        let before = *self.decisions.entry(txn).or_insert(decision);
        self.is_split |= before != decision;
        let is_fine = before == decision || self.is_split_allowed;
        assert!(is_fine, "ATOMICITY: {who} says {decision} of {txn}, which was {before} elsewhere");
    }

    fn ended(&mut self, who: NodeId, txn: TxnId, decision: Decision) {
        let before = self.ended.insert((who, txn), decision);
        assert!(before != Some(Decision::Commit), "TWICE: {who} applies {txn} again");
        match decision {
            Decision::Commit => self.commits += 1,
            Decision::Abort => self.aborts += 1,
        }
        self.decided(who, txn, decision);
    }
}

impl<P: Party> World<P> {
    /// One coordinator on machine 10, and banks 1 to `banks`, whose accounts are called a, b, c…
    pub fn new(banks: u64, limits: Limits) -> Self {
        Self::with(banks, vec![Part::Coordinator(NodeId(10), limits)])
    }

    /// Banks, and these machines numbered from 10 on.
    pub fn with(banks: u64, others: Vec<Part>) -> Self {
        let mut world = World {
            now: Time::ZERO,
            machines: BTreeMap::new(),
            flight: Vec::new(),
            cut: BTreeSet::new(),
            tickets: 0,
            asked: BTreeMap::new(),
            oracle: Oracle::default(),
            damage: Vec::new(),
            trace: None,
            steps: 0,
            delivered: 0,
        };
        for id in (1..=banks).map(NodeId) {
            world.install(id, Part::Bank(id, Bank::new([(account(id), BALANCE)])));
        }
        for (id, part) in (10..).map(NodeId).zip(others) {
            world.install(id, part);
        }
        let ids: Vec<NodeId> = world.machines.keys().copied().collect();
        ids.into_iter().for_each(|id| world.start(id));
        world
    }

    fn install(&mut self, id: NodeId, part: Part) {
        let machine = Machine {
            part,
            lives: 0,
            process: None,
            disk: Vec::new(),
            is_slow: false,
            waiting: VecDeque::new(),
        };
        self.machines.insert(id, machine);
    }

    /// Another machine takes the coordinator over, from a copy of its disk; the first goes on if it can.
    pub fn take_over(&mut self, from: NodeId, to: NodeId) {
        let Part::Coordinator(_, limits) = self.machines[&from].part.clone() else {
            panic!("no coordinator")
        };
        let disk = self.machines[&from].disk.clone();
        self.install(to, Part::Coordinator(to, limits));
        self.machine(to).disk = disk;
        self.start(to);
    }

    pub fn machine(&mut self, id: NodeId) -> &mut Machine<P> {
        self.machines.get_mut(&id).expect("there is such a machine")
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.machines[&id].process.is_some()
    }

    pub fn bank(&self, id: NodeId) -> Option<&Bank> {
        self.machines[&id].process.as_ref()?.bank()
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>14?} {}", self.now, line());
        }
    }
}

/// Machines.
impl<P: Party> World<P> {
    pub fn start(&mut self, id: NodeId) {
        assert!(!self.is_up(id), "{id} is running");
        let now = self.now;
        let machine = self.machine(id);
        let mut records = machine.disk.clone().into_iter();
        let from = match machine.disk.is_empty() {
            true => Recovery::First,
            false => Recovery::Resume { records: &mut records },
        };
        let mut out = Effects::new();
        machine.lives += 1;
        let config = P::config(&machine.part, machine.lives);
        machine.process = Some(P::recover(config, from, (), now, &mut out));
        self.note(|| format!("{id} starts"));
        self.take(id, out);
    }

    /// It stops at once. Of the steps whose records wait for a sync, the first `durable` happen to be on
    /// disk already; nobody was told.
    pub fn crash(&mut self, id: NodeId, durable: usize) {
        self.note(|| format!("{id} crashes"));
        let machine = self.machine(id);
        machine.process = None;
        let waiting = std::mem::take(&mut machine.waiting);
        let batches = waiting.into_iter().filter(Held::is_batch);
        batches.take(durable).for_each(|held| machine.keep(held));
    }

    /// The process says in few records what all its records say; they are on disk after the next sync.
    pub fn checkpoint(&mut self, id: NodeId) {
        let machine = self.machine(id);
        let Some(records) = machine.process.as_ref().and_then(P::checkpoint) else { return };
        machine.waiting.push_back(Held::Checkpoint(records));
        let is_slow = machine.is_slow;
        self.sync(id, if is_slow { 0 } else { usize::MAX });
    }

    pub fn step(&mut self, id: NodeId, input: Input<P>) {
        self.steps += 1;
        let now = self.now;
        let mut out = Effects::new();
        if let Some(process) = &mut self.machine(id).process {
            process.step(now, input, &mut out);
            self.take(id, out);
        }
    }

    fn take(&mut self, id: NodeId, out: Effects<P>) {
        let machine = self.machine(id);
        if !out.records.is_empty() {
            machine.waiting.push_back(Held::Records(out.records));
        }
        let (mut early, mut early_events) = (Vec::new(), Vec::new());
        for send in out.sends {
            match send.release {
                Release::Held => machine.waiting.push_back(Held::Send(send.to, send.message)),
                Release::Early => early.push((send.to, send.message)),
            }
        }
        for emit in out.events {
            match emit.release {
                Release::Held => machine.waiting.push_back(Held::Event(emit.event)),
                Release::Early => early_events.push(emit.event),
            }
        }
        let is_slow = machine.is_slow;
        early.into_iter().for_each(|(to, message)| self.post(id, to, message));
        early_events.into_iter().for_each(|event| self.hear(id, P::told(event)));
        self.sync(id, if is_slow { 0 } else { usize::MAX });
    }

    /// Makes the first `batches` steps' records durable, in order, and lets out what waited for them.
    pub fn sync(&mut self, id: NodeId, batches: usize) {
        let mut left = batches;
        loop {
            let machine = self.machine(id);
            match machine.waiting.front() {
                Some(held) if held.is_batch() && left == 0 => return,
                None => return,
                Some(_) => {}
            }
            match machine.waiting.pop_front().expect("just seen") {
                held @ (Held::Records(_) | Held::Checkpoint(_)) => {
                    left -= 1;
                    machine.keep(held);
                }
                Held::Send(to, message) => self.post(id, to, message),
                Held::Event(event) => self.hear(id, P::told(event)),
            }
        }
    }

    /// How many steps' records wait for a sync.
    pub fn unsynced(&self, id: NodeId) -> usize {
        self.machines[&id].waiting.iter().filter(|held| held.is_batch()).count()
    }

    fn hear(&mut self, id: NodeId, told: Told) {
        self.note(|| format!("{id}: {told:?}"));
        match told {
            Told::Opened { ticket, txn } => self.asked_mut(ticket).txn = Some(txn),
            Told::Worked { ticket, answer } => drop(self.asked_mut(ticket).answers.insert(id, answer)),
            Told::Refused { ticket, why } => self.asked_mut(ticket).refused = Some(why),
            Told::Decided { txn, decision, answers, why } => {
                self.oracle.decided(id, txn, decision);
                let asked = self.asked.values_mut().find(|asked| asked.txn == Some(txn));
                if let Some(asked) = asked {
                    (asked.decision, asked.why) = (Some(decision), why);
                    asked.answers.extend(answers);
                }
            }
            Told::Ended { txn, decision } => self.oracle.ended(id, txn, decision),
            Told::Resolved { ticket, txn, decision } => {
                let asked = self.asked_mut(ticket);
                (asked.txn, asked.decision, asked.is_by_hand) = (Some(txn), Some(decision), true);
            }
            Told::Damage { txn } => self.damage.push((id, txn)),
            Told::Other => {}
        }
    }

    fn asked_mut(&mut self, ticket: Ticket) -> &mut Asked {
        self.asked.entry(ticket).or_default()
    }

    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Asks a coordinator to do all of this or nothing.
    pub fn run_txn(&mut self, coordinator: NodeId, branches: &Branches) -> Ticket {
        let ticket = self.ticket();
        self.asked.insert(ticket, Asked::default());
        self.step(coordinator, Input::Request(P::run(ticket, branches)));
        ticket
    }
}

/// Messages and time.
impl<P: Party> World<P> {
    fn post(&mut self, from: NodeId, to: NodeId, message: P::Message) {
        if from == to {
            // What a process tells itself is returned after the sync, which is now.
            return self.step(to, Input::Message { from, message });
        }
        let is_lost = self.cut.contains(&(from, to)) || !self.machines.contains_key(&to);
        let fate = if is_lost { "is lost" } else { "is sent" };
        self.note(|| format!("{from} -> {to} {} ({}) {fate}", message.name(), message.detail()));
        if !is_lost {
            self.flight.push(Flying { from, to, message });
        }
    }

    /// The message arrives; at a machine that is down it is lost.
    pub fn deliver(&mut self, position: usize) {
        let Flying { from, to, message } = self.flight.remove(position);
        self.arrive(from, to, message);
    }

    pub fn arrive(&mut self, from: NodeId, to: NodeId, message: P::Message) {
        self.note(|| format!("{from} => {to} {} ({})", message.name(), message.detail()));
        self.delivered += 1;
        self.step(to, Input::Message { from, message });
    }

    /// Everything in flight arrives, and what comes of it.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            if self.flight.is_empty() {
                return;
            }
            self.deliver(0);
        }
        panic!("messages without end");
    }

    pub fn cut(&mut self, a: NodeId, b: NodeId) {
        self.cut.insert((a, b));
        self.flight.retain(|flying| (flying.from, flying.to) != (a, b));
    }

    pub fn deadline(&self, id: NodeId) -> Option<Time> {
        self.machines[&id].process.as_ref()?.deadline()
    }

    /// The clock moves to the machine's deadline, and its timer fires.
    pub fn timeout(&mut self, id: NodeId) -> bool {
        let Some(deadline) = self.deadline(id) else { return false };
        self.now = self.now.max(deadline);
        self.note(|| format!("{id} times out"));
        self.step(id, Input::Timeout);
        true
    }

    pub fn next_deadline(&self) -> Option<(Time, NodeId)> {
        self.machines.keys().filter_map(|id| Some((self.deadline(*id)?, *id))).min()
    }

    /// Time goes on: timers fire when they are due, and messages arrive at once.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        self.run();
        while let Some((deadline, id)) = self.next_deadline()
            && deadline <= end
        {
            self.timeout(id);
            self.run();
        }
        self.now = end;
    }
}

/// What must hold in the end.
impl<P: Party> World<P> {
    /// Whether nothing holds a lock.
    pub fn is_quiet(&self) -> bool {
        self.machines.keys().all(|id| self.bank(*id).is_none_or(|bank| locks(bank).is_empty()))
    }

    /// With everybody up and nothing under way, no money is gone and none was made.
    pub fn check_money(&self) {
        let banks = self.machines.keys().filter_map(|id| self.bank(*id));
        let (count, total) = banks.fold((0, 0), |(count, sum), bank| (count + 1, sum + bank.total()));
        assert!(total == count * BALANCE, "MONEY: there is {total}, not {}", count * BALANCE);
    }

    /// A committed transaction that read every account saw all of the money.
    pub fn check_reads(&self, reads: &BTreeSet<Ticket>) {
        let banks = self.machines.values().filter(|machine| matches!(machine.part, Part::Bank(..))).count();
        for ticket in reads {
            let asked = &self.asked[ticket];
            if asked.decision == Some(Decision::Commit) {
                let total: u64 = asked.answers.values().flat_map(balances).sum();
                let all = banks as u64 * BALANCE;
                assert!(total == all, "READ: {ticket:?} saw {total}, not {all}: {:?}", asked.answers);
            }
        }
    }

    /// A digest without times, for exploration, where timers fire when the explorer says so.
    pub fn digest(&self, digest: &mut Fingerprint) {
        for machine in self.machines.values() {
            machine.process.is_some().hash(digest);
            if let Some(process) = &machine.process {
                process.fingerprint(Time(u64::MAX), digest);
            }
            machine.disk.iter().for_each(|record| record.to_bytes().hash(digest));
        }
        for ((who, txn), decision) in &self.oracle.ended {
            (who, txn, decision).hash(digest);
        }
    }
}

/// The account at a bank: a at bank 1, b at bank 2.
pub fn account(bank: NodeId) -> String {
    char::from(b'a' + bank.0 as u8 - 1).to_string()
}

/// The bank of an account.
pub fn bank_of(account: &str) -> NodeId {
    NodeId(u64::from(account.as_bytes()[0] - b'a') + 1)
}

pub fn balances(answer: &Bytes) -> Vec<u64> {
    Vec::from_bytes(answer.clone()).unwrap_or_default()
}

/// What moves money from one account to another.
pub fn transfer(from: &str, to: &str, amount: u64) -> Branches {
    let debit = BankOp::Debit { account: from.into(), amount };
    let credit = BankOp::Credit { account: to.into(), amount };
    let mut branches = Branches::new();
    branches.entry(bank_of(from)).or_default().push(debit);
    branches.entry(bank_of(to)).or_default().push(credit);
    branches
}

/// What reads the accounts of the first `banks` banks.
pub fn audit(banks: u64) -> Branches {
    let read = |id| (id, vec![BankOp::Balance { account: account(id) }]);
    (1..=banks).map(NodeId).map(read).collect()
}
