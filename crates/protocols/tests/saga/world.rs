//! An orchestrator on machine 10, and banks on machines 1 and so on, each with one account. Messages stay in
//! flight until somebody delivers, repeats or drops them. Nothing happens unasked.
//!
//! After every step the banks' disks are looked at: no step is done twice, none is undone twice, and none
//! is done after it was undone.

use super::subject::{
    BankService, Config, Event, Message, Orchestrator, Outcome, Plan, Request, SagaId, SagaRecord,
    ServiceConfig, ServiceRecord,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;
use synod_protocols::contract::Checkpoint;
use synod_protocols::log::Ticket;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Describe, Effects, Input, Process, Recovery};

/// What each bank's account holds at first.
pub const BALANCE: u64 = 100;

pub const ORCHESTRATOR: NodeId = NodeId(10);

pub struct World {
    pub now: Time,
    pub orchestrator: Option<Orchestrator>,
    pub disk: Vec<SagaRecord>,
    /// All that was ever on the disk.
    pub history: Vec<SagaRecord>,
    /// Whether the orchestrator's effects wait for [`World::sync`].
    pub is_slow: bool,
    waiting: VecDeque<Held>,
    pub banks: BTreeMap<NodeId, Bank>,
    pub flight: Vec<(NodeId, NodeId, Message)>,
    pub cut: BTreeSet<NodeId>,
    tickets: u64,
    pub asked: BTreeMap<Ticket, Asked>,
    /// Steps that wait or have waited for a person, also of sagas whose client was never told their name.
    pub paused: BTreeSet<(SagaId, String)>,
    /// Money that a person brought from elsewhere.
    pub lent: u64,
    pub trace: Option<String>,
    /// How often an onlooker saw another total than there was at first, of how many looks.
    pub anomalies: (u64, u64),
}

pub struct Bank {
    pub service: Option<BankService>,
    pub disk: Vec<ServiceRecord>,
}

enum Held {
    Records(Vec<SagaRecord>),
    /// In the place of all records before.
    Checkpoint(Vec<SagaRecord>),
    Send(NodeId, Message),
    Event(Event),
}

impl Held {
    fn is_batch(&self) -> bool {
        matches!(self, Held::Records(_) | Held::Checkpoint(_))
    }
}

/// One request, and what its client knows.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub plan: Option<Plan>,
    pub saga: Option<SagaId>,
    pub outcome: Option<Outcome>,
    pub paused: BTreeSet<String>,
    pub refused: Option<String>,
}

/// The account at a bank: a at bank 1, b at bank 2.
pub fn account(bank: NodeId) -> String {
    char::from(b'a' + bank.0 as u8 - 1).to_string()
}

impl World {
    pub fn new(banks: u64) -> World {
        let bank = |id| (id, Bank { service: None, disk: Vec::new() });
        let mut world = World {
            now: Time::ZERO,
            orchestrator: None,
            disk: Vec::new(),
            history: Vec::new(),
            is_slow: false,
            waiting: VecDeque::new(),
            banks: (1..=banks).map(NodeId).map(bank).collect(),
            flight: Vec::new(),
            cut: BTreeSet::new(),
            tickets: 0,
            asked: BTreeMap::new(),
            paused: BTreeSet::new(),
            lent: 0,
            trace: None,
            anomalies: (0, 0),
        };
        let ids: Vec<NodeId> = world.banks.keys().copied().chain([ORCHESTRATOR]).collect();
        ids.into_iter().for_each(|id| world.start(id));
        world
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>14?} {}", self.now, line());
        }
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        match self.banks.get(&id) {
            Some(bank) => bank.service.is_some(),
            None => self.orchestrator.is_some(),
        }
    }

    pub fn start(&mut self, id: NodeId) {
        self.note(|| format!("{id} starts"));
        if let Some(bank) = self.banks.get_mut(&id) {
            let config = ServiceConfig::new([(account(id), BALANCE)]);
            let mut records = bank.disk.clone().into_iter();
            let from = Recovery::Resume { records: &mut records };
            bank.service = Some(BankService::recover(config, from, (), self.now, &mut Effects::new()));
            return;
        }
        let mut records = self.disk.clone().into_iter();
        let from = Recovery::Resume { records: &mut records };
        let mut out = Effects::new();
        let orchestrator = Orchestrator::recover(Config::default(), from, (), self.now, &mut out);
        self.orchestrator = Some(orchestrator);
        self.take(out);
    }

    /// It stops at once. Of the orchestrator's steps whose records wait for a sync, the first `durable`
    /// happen to be on disk already.
    pub fn crash(&mut self, id: NodeId, durable: usize) {
        self.note(|| format!("{id} crashes"));
        if let Some(bank) = self.banks.get_mut(&id) {
            bank.service = None;
            return;
        }
        self.orchestrator = None;
        let batches = std::mem::take(&mut self.waiting).into_iter().filter(Held::is_batch);
        batches.take(durable).for_each(|held| self.keep(held));
    }

    /// The orchestrator says in few records what all its records say; they are on disk after the next sync.
    pub fn checkpoint(&mut self) {
        if let Some(orchestrator) = &self.orchestrator {
            self.waiting.push_back(Held::Checkpoint(orchestrator.checkpoint()));
            self.sync(if self.is_slow { 0 } else { usize::MAX });
        }
    }

    /// What waited for a sync is on disk.
    fn keep(&mut self, held: Held) {
        match held {
            Held::Records(records) => {
                self.history.extend(records.iter().cloned());
                self.disk.extend(records);
            }
            Held::Checkpoint(records) => self.disk = records,
            Held::Send(..) | Held::Event(_) => {}
        }
    }

    fn step(&mut self, input: Input<Orchestrator>) {
        let mut out = Effects::new();
        if let Some(orchestrator) = &mut self.orchestrator {
            orchestrator.step(self.now, input, &mut out);
            self.take(out);
        }
    }

    fn take(&mut self, out: Effects<Orchestrator>) {
        if !out.records.is_empty() {
            self.waiting.push_back(Held::Records(out.records));
        }
        self.waiting.extend(out.sends.into_iter().map(|send| Held::Send(send.to, send.message)));
        self.waiting.extend(out.events.into_iter().map(|emit| Held::Event(emit.event)));
        self.sync(if self.is_slow { 0 } else { usize::MAX });
    }

    /// Makes the orchestrator's first `batches` steps durable, and lets out what waited for them.
    pub fn sync(&mut self, batches: usize) {
        let mut left = batches;
        loop {
            match self.waiting.front() {
                Some(held) if held.is_batch() && left == 0 => return,
                None => return,
                Some(_) => {}
            }
            match self.waiting.pop_front().expect("just seen") {
                held @ (Held::Records(_) | Held::Checkpoint(_)) => {
                    left -= 1;
                    self.keep(held);
                }
                Held::Send(to, message) => self.post(ORCHESTRATOR, to, message),
                Held::Event(event) => self.hear(event),
            }
        }
    }

    pub fn unsynced(&self) -> usize {
        self.waiting.iter().filter(|held| held.is_batch()).count()
    }

    fn hear(&mut self, event: Event) {
        self.note(|| format!("{event:?}"));
        let of = |asked: &mut BTreeMap<Ticket, Asked>, saga: SagaId, tell: &dyn Fn(&mut Asked)| {
            asked.values_mut().filter(|asked| asked.saga == Some(saga)).for_each(tell);
        };
        match event {
            Event::Began { ticket, saga } => self.asked.entry(ticket).or_default().saga = Some(saga),
            Event::Refused { ticket, why } => {
                self.asked.entry(ticket).or_default().refused = Some(format!("{why:?}"));
            }
            Event::Agreed { .. } => {}
            Event::Paused { saga, step, .. } => {
                self.paused.insert((saga, step.clone()));
                of(&mut self.asked, saga, &|asked| asked.paused.extend([step.clone()]));
            }
            Event::Ended { saga, outcome } => {
                of(&mut self.asked, saga, &|asked| asked.outcome = Some(outcome.clone()));
            }
        }
    }

    pub fn ask(&mut self, request: impl FnOnce(Ticket) -> Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let request = request(ticket);
        let plan = match &request {
            Request::Begin { plan, .. } => Some(plan.clone()),
            _ => None,
        };
        self.asked.insert(ticket, Asked { plan, ..Asked::default() });
        self.step(Input::Request(request));
        ticket
    }

    fn post(&mut self, from: NodeId, to: NodeId, message: Message) {
        let is_lost = [from, to].iter().any(|end| self.cut.contains(end));
        let fate = if is_lost { "is lost" } else { "is sent" };
        self.note(|| format!("{from} -> {to} {} ({}) {fate}", message.name(), message.detail()));
        if !is_lost {
            self.flight.push((from, to, message));
        }
    }

    pub fn deliver(&mut self, position: usize) {
        let (from, to, message) = self.flight.remove(position);
        self.arrive(from, to, message);
    }

    /// The message arrives; at a machine that is down it is lost.
    pub fn arrive(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.note(|| format!("{from} => {to} {} ({})", message.name(), message.detail()));
        if to == ORCHESTRATOR {
            return self.step(Input::Message { from, message });
        }
        let now = self.now;
        let bank = self.banks.get_mut(&to).expect("there is such a bank");
        let Some(service) = &mut bank.service else { return };
        let mut out = Effects::new();
        service.step(now, Input::Message { from, message }, &mut out);
        bank.disk.extend(out.records);
        out.sends.into_iter().for_each(|send| self.post(to, send.to, send.message));
        self.check_traps();
        self.look();
    }

    /// Somebody without any locks looks at all accounts.
    fn look(&mut self) {
        let services: Vec<_> = self.banks.values().filter_map(|bank| bank.service.as_ref()).collect();
        if services.len() == self.banks.len() {
            let total: u64 = services.iter().flat_map(|service| service.accounts().values()).sum();
            self.anomalies.1 += 1;
            self.anomalies.0 += u64::from(total != services.len() as u64 * BALANCE);
        }
    }

    fn check_traps(&self) {
        for (id, bank) in &self.banks {
            let (mut done, mut undone) = (BTreeSet::new(), BTreeSet::new());
            for record in &bank.disk {
                match record {
                    ServiceRecord::Acted { saga, step, .. } => {
                        assert!(done.insert((saga, step)), "TWICE: {id} does {saga} {step} again");
                        assert!(
                            !undone.contains(&(saga, step)),
                            "LATE: {id} does {saga} {step} after undoing it"
                        );
                    }
                    ServiceRecord::Compensated { saga, step, had_acted, .. } => {
                        assert!(undone.insert((saga, step)), "TWICE: {id} undoes {saga} {step} again");
                        let is_so = done.contains(&(saga, step)) == *had_acted;
                        assert!(is_so, "UNDONE: {id} undoes {saga} {step}, which it had not done");
                    }
                    ServiceRecord::Refused { .. } => {}
                }
            }
        }
    }

    pub fn run(&mut self) {
        for _ in 0..100_000 {
            if self.flight.is_empty() {
                return;
            }
            self.deliver(0);
        }
        panic!("messages without end");
    }

    pub fn timeout(&mut self) -> bool {
        let Some(deadline) = self.orchestrator.as_ref().and_then(Orchestrator::deadline) else {
            return false;
        };
        self.now = self.now.max(deadline);
        self.step(Input::Timeout);
        true
    }

    /// Time goes on: timers fire when they are due, and messages arrive at once.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        self.run();
        while self.orchestrator.as_ref().and_then(Orchestrator::deadline).is_some_and(|due| due <= end) {
            self.timeout();
            self.run();
        }
        self.now = end;
    }

    pub fn balance(&self, bank: NodeId) -> u64 {
        self.banks[&bank].service.as_ref().map_or(0, |service| service.accounts()[&account(bank)])
    }

    /// Every saga that was begun has ended, and what the banks did is all of it or, undone, none.
    pub fn check_ended(&self) {
        for record in &self.history {
            let SagaRecord::Began { saga, plan } = record else { continue };
            let saga = *saga;
            let has_ended = self.history.contains(&SagaRecord::Ended { saga });
            assert!(has_ended, "NO PROGRESS: {saga} has not ended");
            let is_undone = self
                .history
                .iter()
                .any(|record| matches!(record, SagaRecord::Backward { saga: other, .. } if *other == saga));
            for step in &plan.steps {
                let records = || self.banks[&step.service].disk.iter();
                let is_own = |other: &SagaId, name: &String| *other == saga && *name == step.name;
                let did = records()
                    .any(|r| matches!(r, ServiceRecord::Acted { saga, step, .. } if is_own(saga, step)));
                let undid = records().any(
                    |r| matches!(r, ServiceRecord::Compensated { saga, step, had_acted: true, .. } if is_own(saga, step)),
                );
                let remains = did && !undid;
                assert!(
                    remains != is_undone,
                    "HALF: {saga} {}: remains {remains}, undone {is_undone}",
                    step.name
                );
            }
        }
    }

    pub fn check_money(&self) {
        let total: u64 = self.banks.keys().map(|id| self.balance(*id)).sum();
        let all = self.banks.len() as u64 * BALANCE + self.lent;
        assert!(total == all, "MONEY: there is {total}, not {all}");
    }
}
