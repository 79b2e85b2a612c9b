//! The world: clients that transfer and read, a person, and whoever looks.

use super::actor::{Actor, Asked, Branches, Told};
use super::faults::{Point, weather};
use super::note::Note;
use super::outcome::{Outcome, verdicts};
use super::stage::{COORDINATOR, machines};
use super::{BALANCE, Protocol, Scenario, account};
use crate::small::{Happened, Next, Seen, Stage, Strike, told};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_check::history::{Call, Handle, Header, Nanos, Outcome as Ended, Recorder, Reply};
use synod_protocols::commit::{BankOp, Decision};
use synod_protocols::log::Ticket;
use synod_protocols::saga::SagaId;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Rng, Wire};

/// After the trouble everything must come to an end within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a person takes to look at a step.
const LOOKED_AT: Duration = Duration::from_millis(500);

/// Plays a scenario. `is_traced`: whether the outcome says what happened.
pub fn run(scenario: &Scenario, is_traced: bool) -> Outcome {
    let mut world = World::new(*scenario, is_traced);
    world.plan_load();
    world.plan_faults();
    world.advance(Time::ZERO + scenario.span + Duration::from_secs(2) + PATIENCE);
    world.finish()
}

/// What the world has planned for a time.
#[derive(Clone, Debug)]
pub(super) enum Alarm {
    Transfer {
        from: NodeId,
        to: NodeId,
        amount: u64,
    },
    Read,
    /// A person has looked at a step that waits for one.
    Looked {
        at: NodeId,
        saga: SagaId,
        step: String,
    },
    Strike(Strike),
    /// All faults end.
    Recover,
}

/// The machines of the banks' world.
type Machines = Stage<dyn Actor, Alarm, Note>;

pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) stage: Machines,
    rng: Rng,
    recorder: Recorder,
    clients: BTreeMap<Ticket, Client>,
    names: BTreeMap<String, Ticket>,
    decisions: BTreeMap<String, Decision>,
    applied: BTreeMap<(NodeId, String), Decision>,
    violations: Vec<String>,
    /// Who was asked last, and where somebody is to crash.
    pub(super) coordinator: Option<NodeId>,
    pub(super) point: Option<Point>,
    pub(super) counted: Option<u64>,
    /// Whose disks have lost a record.
    pub(super) rotten: Vec<NodeId>,
    /// When the first client was told an outcome.
    pub(super) known: Option<Time>,
    tickets: u64,
    /// Reads that succeeded, and how many of them saw another sum.
    reads: (u64, u64),
    waits: u64,
}

/// Who asked for something.
struct Client {
    is_read: bool,
    handle: Option<Handle>,
    decision: Option<Decision>,
}

impl World {
    pub(super) fn new(scenario: Scenario, is_traced: bool) -> World {
        let mut header = Header::new("bank");
        let initial = (1..=scenario.participants).map(|id| (account(NodeId(id)), BALANCE.into()));
        header.initial = serde_json::Value::Object(initial.collect());
        header.more.insert("overdraft".into(), false.into());
        let rng = Rng::new(scenario.seed);
        let mut stage = Stage::new(rng.clone(), weather(&scenario), scenario.sync, is_traced);
        machines(&scenario).into_iter().for_each(|(id, machine)| stage.add(id, machine));
        let mut world = World {
            scenario,
            stage,
            rng,
            recorder: Recorder::new(header),
            clients: BTreeMap::new(),
            names: BTreeMap::new(),
            decisions: BTreeMap::new(),
            applied: BTreeMap::new(),
            violations: Vec::new(),
            coordinator: None,
            point: None,
            counted: None,
            rotten: Vec::new(),
            known: None,
            tickets: 0,
            reads: (0, 0),
            waits: 0,
        };
        world.stage.ids().into_iter().for_each(|id| world.stage.start(id));
        world.listen();
        world
    }

    fn note(&mut self, note: impl FnOnce() -> Note) {
        self.stage.note(|| Happened::Note(note()));
    }

    fn moment(&mut self) -> Time {
        Time(self.rng.below(self.scenario.span.as_nanos() as u64))
    }

    fn plan_load(&mut self) {
        let banks = self.scenario.participants;
        for _ in 0..self.scenario.transfers {
            let from = 1 + self.rng.below(banks);
            let to = 1 + (from + self.rng.below(banks - 1)) % banks;
            let (from, to, amount) = (NodeId(from), NodeId(to), 1 + self.rng.below(60));
            let at = self.moment();
            self.stage.alarm(at, Alarm::Transfer { from, to, amount });
        }
        for _ in 0..self.scenario.reads {
            let at = self.moment();
            self.stage.alarm(at, Alarm::Read);
        }
        // Everybody looks once more when all is over.
        self.stage.alarm(Time::ZERO + self.scenario.span + PATIENCE, Alarm::Read);
    }
}

/// What happens.
impl World {
    pub(super) fn advance(&mut self, until: Time) {
        while self.advance_once(until) {}
    }

    /// The next thing happens, if it is due until then; otherwise it is that time.
    pub(super) fn advance_once(&mut self, until: Time) -> bool {
        match self.stage.next(until) {
            Next::Quiet => return false,
            Next::Moved => {}
            Next::Alarm(Alarm::Transfer { from, to, amount }) => self.transfer(from, to, amount),
            Next::Alarm(Alarm::Read) => self.read(),
            Next::Alarm(Alarm::Looked { at, saga, step }) => {
                let asked = Asked::Resume(saga, step);
                let ticket = self.ticket();
                self.stage.with(at, |actor, now, out| {
                    actor.ask(now, ticket, &asked, out);
                });
            }
            Next::Alarm(Alarm::Strike(strike)) => self.strike(strike),
            Next::Alarm(Alarm::Recover) => self.recover(),
        }
        self.listen();
        self.strike_if_due();
        true
    }

    fn listen(&mut self) {
        while let Some((id, told)) = self.stage.told.pop_front() {
            self.hear(id, told);
        }
    }

    /// Nobody hears it, and it hears nobody.
    pub(super) fn cut(&mut self, id: NodeId) {
        self.note(|| Note::CutOff(id));
        self.stage.isolate(id);
    }
}

/// Clients.
impl World {
    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Whoever coordinates now is asked; none if nobody is there.
    pub(super) fn ask(&mut self, branches: Branches, is_read: bool) -> Option<NodeId> {
        self.ask_for(branches, is_read, None)
    }

    fn ask_for(&mut self, branches: Branches, is_read: bool, handle: Option<Handle>) -> Option<NodeId> {
        let ticket = self.ticket();
        self.clients.insert(ticket, Client { is_read, handle, decision: None });
        let asked = Asked::Run(branches);
        let candidates = self.stage.ids().into_iter().filter(|id| *id >= COORDINATOR);
        let mut takes = |id: &NodeId| {
            let mut is_taken = false;
            if self.stage.is_there(*id) {
                self.stage.with(*id, |actor, now, out| is_taken = actor.ask(now, ticket, &asked, out));
            }
            is_taken
        };
        let found = candidates.into_iter().find(&mut takes);
        self.coordinator = found.or(self.coordinator);
        self.listen();
        found
    }

    fn transfer(&mut self, from: NodeId, to: NodeId, amount: u64) {
        let mut call = Call::new("transfer");
        call.more.insert("from".into(), account(from).into());
        call.more.insert("to".into(), account(to).into());
        call.more.insert("amount".into(), amount.into());
        let client = format!("c{}", self.tickets + 1);
        let handle = self.recorder.invoke(Nanos(self.stage.now.0), &client, call);
        self.note(|| Note::Asked { client, amount, from: account(from), to: account(to) });
        let branches = self.place(transfer(from, to, amount));
        self.ask_for(branches, false, Some(handle));
    }

    fn read(&mut self) {
        let client = format!("c{}", self.tickets + 1);
        let handle = self.recorder.invoke(Nanos(self.stage.now.0), &client, Call::new("read"));
        if self.scenario.protocol.isolates() {
            let all = (1..=self.scenario.participants).map(NodeId);
            let branches = all.map(|id| (id, vec![BankOp::Balance { account: account(id) }])).collect();
            let branches = self.place(branches);
            self.ask_for(branches, true, Some(handle));
            return;
        }
        let seen = self.balances();
        let outcome = match seen.len() as u64 == self.scenario.participants {
            true => {
                self.count_read(seen.values().sum());
                Ended::Ok(Reply::value(serde_json::json!(seen)))
            }
            false => Ended::fail("a bank is down"),
        };
        self.recorder.complete(Nanos(self.stage.now.0), handle, outcome);
    }

    /// With everything in one partition its work is in one place.
    fn place(&self, branches: Branches) -> Branches {
        match self.scenario.protocol {
            Protocol::Avoid => Branches::from([(NodeId(1), branches.into_values().flatten().collect())]),
            _ => branches,
        }
    }

    fn hear(&mut self, id: NodeId, told: Told) {
        match told {
            Told::Opened(ticket, name) => {
                self.note(|| Note::Opened(id, name.clone()));
                self.names.insert(name, ticket);
            }
            Told::Refused(ticket, why) => {
                let handle = self.clients.get_mut(&ticket).and_then(|client| client.handle.take());
                let now = Nanos(self.stage.now.0);
                handle.into_iter().for_each(|handle| self.recorder.complete(now, handle, Ended::fail(&why)));
            }
            Told::Decided(name, decision, answers) => {
                self.note(|| Note::Decided(id, decision, name.clone()));
                self.decided(id, &name, decision);
                self.tell_client(&name, decision, &answers);
            }
            Told::Ended(name, decision) => {
                self.note(|| Note::Applied(id, decision, name.clone()));
                if self.applied.insert((id, name.clone()), decision) == Some(Decision::Commit) {
                    self.violations.push(format!("{id} applies {name} twice"));
                }
                self.decided(id, &name, decision);
            }
            Told::Waits(saga, step) => {
                self.waits += 1;
                let at = self.stage.now + LOOKED_AT;
                self.stage.alarm(at, Alarm::Looked { at: id, saga, step });
            }
            Told::Other => {}
        }
    }

    fn decided(&mut self, id: NodeId, name: &str, decision: Decision) {
        let first = *self.decisions.entry(name.to_owned()).or_insert(decision);
        if first != decision {
            let line = format!("{id} says {decision} of {name}, and another said {first}");
            self.note(|| Note::Contradiction(line.clone()));
            self.violations.push(line);
        }
    }

    fn tell_client(&mut self, name: &str, decision: Decision, answers: &BTreeMap<NodeId, Bytes>) {
        let Some(client) = self.names.get(name).and_then(|ticket| self.clients.get_mut(ticket)) else {
            return;
        };
        if client.decision.replace(decision).is_some() {
            return;
        }
        self.known.get_or_insert(self.stage.now);
        let (is_read, handle) = (client.is_read, client.handle.take());
        let outcome = match (decision, is_read) {
            (Decision::Abort, _) => Ended::fail("aborted"),
            (Decision::Commit, false) => Ended::Ok(Reply::none()),
            (Decision::Commit, true) => {
                let read = |bytes: &Bytes| Vec::<u64>::from_bytes(bytes.clone()).unwrap_or_default();
                let balances: Vec<u64> = answers.values().flat_map(read).collect();
                self.count_read(balances.iter().sum());
                let accounts = (1..=self.scenario.participants).map(|id| account(NodeId(id)));
                let seen: BTreeMap<String, u64> = accounts.zip(balances).collect();
                Ended::Ok(Reply::value(serde_json::json!(seen)))
            }
        };
        let now = Nanos(self.stage.now.0);
        handle.into_iter().for_each(|handle| self.recorder.complete(now, handle, outcome.clone()));
    }

    fn count_read(&mut self, total: u64) {
        let is_wrong = total != self.scenario.participants * BALANCE;
        self.reads.0 += 1;
        self.reads.1 += u64::from(is_wrong);
        if is_wrong && self.scenario.protocol.isolates() {
            self.violations.push(format!("a committed read saw {total} in all"));
        }
    }
}

/// What there is to see.
impl World {
    pub(super) fn balances(&self) -> BTreeMap<String, u64> {
        self.stage.machines().flat_map(|(_, actor)| actor.balances()).collect()
    }

    pub(super) fn locks(&self) -> Vec<String> {
        self.stage.machines().flat_map(|(_, actor)| actor.locks()).collect()
    }

    /// Machines that hold locks.
    pub(super) fn locked(&self) -> Vec<NodeId> {
        let machines = self.stage.machines();
        machines.filter(|(_, actor)| !actor.locks().is_empty()).map(|(id, _)| id).collect()
    }

    /// What the first client that was told anything was told.
    pub(super) fn first_decision(&self) -> Option<Decision> {
        self.clients.values().find_map(|client| client.decision)
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn into_seen(mut self) -> Seen<Note> {
        self.stage.take_seen()
    }

    fn finish(mut self) -> Outcome {
        let Scenario { participants, protocol, .. } = self.scenario;
        let (total, all) = (self.balances().values().sum::<u64>(), participants * BALANCE);
        let mut stalls = Vec::new();
        let locks = self.locks();
        if !locks.is_empty() {
            stalls.push(format!("long after the last fault locks are held: {}", locks.join(", ")));
        }
        let open = self.names.keys().filter(|name| !self.decisions.contains_key(*name)).count();
        if protocol == Protocol::Saga && open > 0 {
            stalls.push(format!("{open} sagas have not ended"));
        }
        let owes_an_end = self.owes_an_end();
        // A bank that abstains shows nothing that could be counted, and what is in doubt is not applied yet.
        if total != all && owes_an_end && stalls.is_empty() {
            self.violations.push(format!("at the end there is {total} in all accounts, and not {all}"));
        }
        if !owes_an_end {
            stalls.clear();
        }
        let count = |decision| {
            let is_so = |client: &&Client| !client.is_read && client.decision == decision;
            self.clients.values().filter(is_so).count() as u64
        };
        let (committed, aborted, unknown) =
            (count(Some(Decision::Commit)), count(Some(Decision::Abort)), count(None));
        let history = self.recorder.finish();
        let verdicts = verdicts(&history, protocol.isolates());
        if protocol.isolates() {
            for (model, _) in verdicts.iter().filter(|(_, answer)| answer == "no") {
                self.violations.push(format!("the clients' history is not {model}"));
            }
        }
        Outcome {
            scenario: self.scenario,
            committed,
            aborted,
            unknown,
            reads: self.reads.0,
            wrong_reads: self.reads.1,
            messages: self.stage.messages,
            money: (total, all),
            waits: self.waits,
            violations: self.violations,
            stalls,
            history,
            verdicts,
            trace: told(&self.stage.take_seen()),
        }
    }
}

/// Moves money from one bank's account to another's.
fn transfer(from: NodeId, to: NodeId, amount: u64) -> Branches {
    let mut branches = Branches::new();
    branches.entry(from).or_default().push(BankOp::Debit { account: account(from), amount });
    branches.entry(to).or_default().push(BankOp::Credit { account: account(to), amount });
    branches
}
