//! The world: one clock, a network, disks that take their time, and whoever looks.

use super::actor::{Actor, Branches, Effect, Told};
use super::film::Happened;
use super::stage::{COORDINATOR, machines};
use super::{BALANCE, Faults, Protocol, Scenario, account};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;
use synod_check::history::{Call, Handle, Header, History, Nanos, Outcome as Ended, Recorder, Reply};
use synod_check::judge::{Object, judge};
use synod_check::linearizable::Limits;
use synod_protocols::commit::{BankOp, Decision};
use synod_protocols::log::Ticket;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Rng, Wire};

/// After the trouble everything must come to an end within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the search for a witness order may spend on one history.
const CONFIGURATIONS_MAX: u64 = 300_000;

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was played.
    pub scenario: Scenario,
    /// Transfers that the client was told were done.
    pub committed: u64,
    /// Transfers that the client was told were not.
    pub aborted: u64,
    /// Transfers whose outcome the client was never told, or that nobody took.
    pub unknown: u64,
    /// Reads of all accounts that succeeded, and how many of them saw another sum than there was at first.
    pub reads: u64,
    /// As above.
    pub wrong_reads: u64,
    /// Messages sent, the replicated log's own included.
    pub messages: u64,
    /// The money in all accounts at the end, and what it was at first.
    pub money: (u64, u64),
    /// Promises that were broken, in the order in which they were.
    pub violations: Vec<String>,
    /// What the clients saw.
    pub history: History,
    /// What the checker says of that: each model and its answer.
    pub verdicts: Vec<(String, String)>,
    /// What happened, a line each, if it was asked for.
    pub trace: String,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { protocol, participants, seed, .. } = self.scenario;
        writeln!(f, "{protocol} between {participants} banks, seed {seed}")?;
        writeln!(
            f,
            "  transfers  {} done, {} not done, {} unknown to their client",
            self.committed, self.aborted, self.unknown
        )?;
        writeln!(
            f,
            "  reads      {}, of which {} did not see all of the money",
            self.reads, self.wrong_reads
        )?;
        writeln!(f, "  money      {} of {}", self.money.0, self.money.1)?;
        writeln!(f, "  messages   {}", self.messages)?;
        for (model, answer) in &self.verdicts {
            writeln!(f, "  {model:<10} {answer}")?;
        }
        match self.violations.as_slice() {
            [] => write!(f, "  verdict    every promise was kept"),
            [first, rest @ ..] => {
                write!(f, "  verdict    BROKEN: {first}")?;
                rest.iter().take(4).try_for_each(|violation| write!(f, "\n             {violation}"))
            }
        }
    }
}

/// Plays a scenario. `is_traced`: whether the outcome says what happened.
pub fn run(scenario: &Scenario, is_traced: bool) -> Outcome {
    let mut world = World::new(*scenario, is_traced);
    world.plan_load();
    world.plan_faults();
    world.advance(Time::ZERO + scenario.span + Duration::from_secs(2) + PATIENCE);
    world.finish()
}

#[derive(Clone, Debug)]
enum Happening {
    Arrive { from: NodeId, to: NodeId, bytes: Bytes, name: &'static str },
    Synced { id: NodeId, life: u64 },
    Transfer { from: NodeId, to: NodeId, amount: u64 },
    Read,
    Crash(NodeId),
    Start(NodeId),
    Cut(NodeId),
    Heal,
}

/// A machine as the world has it.
struct Machine {
    actor: Box<dyn Actor>,
    life: u64,
    /// What waits for a sync; none stands for one step's records.
    held: VecDeque<Option<Effect>>,
    /// Until when its disk is busy.
    disk_free: Time,
}

pub(super) struct World {
    scenario: Scenario,
    pub(super) now: Time,
    rng: Rng,
    machines: BTreeMap<NodeId, Machine>,
    queue: BTreeMap<(Time, u64), Happening>,
    happenings: u64,
    cut: BTreeSet<NodeId>,
    /// When the last message between two machines arrives: they keep their order, as on one connection.
    last_arrival: BTreeMap<(NodeId, NodeId), Time>,
    recorder: Recorder,
    clients: BTreeMap<Ticket, Client>,
    names: BTreeMap<String, Ticket>,
    decisions: BTreeMap<String, Decision>,
    applied: BTreeMap<(NodeId, String), Decision>,
    violations: Vec<String>,
    messages: u64,
    /// Those of them from or to a bank: not the replicated log's own.
    pub(super) bank_messages: u64,
    /// When the first client was told an outcome.
    pub(super) known: Option<Time>,
    tickets: u64,
    reads: (u64, u64),
    trace: Option<Vec<(Time, Happened)>>,
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
        let actors = machines(scenario.protocol, scenario.participants, scenario.seed);
        let machine =
            |(id, actor)| (id, Machine { actor, life: 0, held: VecDeque::new(), disk_free: Time::ZERO });
        let mut world = World {
            scenario,
            now: Time::ZERO,
            rng: Rng::new(scenario.seed),
            machines: actors.into_iter().map(machine).collect(),
            queue: BTreeMap::new(),
            happenings: 0,
            cut: BTreeSet::new(),
            last_arrival: BTreeMap::new(),
            recorder: Recorder::new(header),
            clients: BTreeMap::new(),
            names: BTreeMap::new(),
            decisions: BTreeMap::new(),
            applied: BTreeMap::new(),
            violations: Vec::new(),
            messages: 0,
            bank_messages: 0,
            known: None,
            tickets: 0,
            reads: (0, 0),
            trace: is_traced.then(Vec::new),
        };
        let ids: Vec<NodeId> = world.machines.keys().copied().collect();
        ids.into_iter().for_each(|id| world.start(id));
        world
    }

    fn note(&mut self, happened: impl FnOnce() -> Happened) {
        if let Some(trace) = &mut self.trace {
            trace.push((self.now, happened()));
        }
    }

    fn schedule(&mut self, at: Time, happening: Happening) {
        self.happenings += 1;
        self.queue.insert((at, self.happenings), happening);
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
            self.schedule(at, Happening::Transfer { from, to, amount });
        }
        for _ in 0..self.scenario.reads {
            let at = self.moment();
            self.schedule(at, Happening::Read);
        }
        // Everybody looks once more when all is over.
        self.schedule(Time::ZERO + self.scenario.span + PATIENCE, Happening::Read);
    }

    fn plan_faults(&mut self) {
        if self.scenario.faults == Faults::None {
            return;
        }
        let ids: Vec<NodeId> = self.machines.keys().copied().collect();
        let end = Time::ZERO + self.scenario.span;
        for _ in 0..1 + self.rng.below(4) {
            let id = ids[self.rng.below(ids.len() as u64) as usize];
            let at = self.moment();
            let down = Duration::from_millis(self.rng.between(50, 1_500));
            self.schedule(at, Happening::Crash(id));
            self.schedule((at + down).min(end), Happening::Start(id));
        }
        if self.scenario.faults == Faults::All && self.rng.chance(2, 3) {
            let id = ids[self.rng.below(ids.len() as u64) as usize];
            let at = self.moment();
            self.schedule(at, Happening::Cut(id));
        }
        self.schedule(end, Happening::Heal);
    }
}

/// What happens.
impl World {
    pub(super) fn advance(&mut self, until: Time) {
        while self.advance_once(until) {}
        self.now = self.now.max(until);
    }

    /// The next thing happens, if it is due until then.
    pub(super) fn advance_once(&mut self, until: Time) -> bool {
        let next = self.queue.keys().next().map(|(at, _)| *at);
        let timer =
            self.machines.iter().filter_map(|(id, machine)| Some((machine.actor.deadline()?, *id))).min();
        match (next, timer) {
            (next, Some((due, id))) if due <= until && next.is_none_or(|at| due < at) => {
                self.now = self.now.max(due);
                self.with(id, |actor, now, out| actor.on_timeout(now, out));
                true
            }
            (Some(at), _) if at <= until => {
                let (_, happening) = self.queue.pop_first().expect("just seen");
                self.now = self.now.max(at);
                self.happen(happening);
                true
            }
            _ => false,
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { from, to, bytes, name } => {
                // A cut loses what is on its way, too.
                if self.is_cut(from, to) || !self.is_up(to) {
                    return self.note(|| Happened::Lost { from, to, name });
                }
                self.note(|| Happened::Arrived { from, to, name });
                self.with(to, |actor, now, out| actor.on_message(now, from, bytes, out));
            }
            Happening::Synced { id, life } => self.synced(id, life),
            Happening::Transfer { from, to, amount } => drop(self.transfer(from, to, amount)),
            Happening::Read => self.read(),
            Happening::Crash(id) => self.crash(id),
            Happening::Start(id) => self.start(id),
            Happening::Cut(id) => self.cut(id),
            Happening::Heal => self.heal(),
        }
    }

    pub(super) fn cut(&mut self, id: NodeId) {
        self.note(|| Happened::CutOff(id));
        self.cut.insert(id);
    }

    pub(super) fn heal(&mut self) {
        self.note(|| Happened::Whole);
        self.cut.clear();
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        from != to && (self.cut.contains(&from) || self.cut.contains(&to))
    }

    pub(super) fn crash(&mut self, id: NodeId) {
        let Some(machine) = self.machines.get_mut(&id).filter(|machine| machine.actor.is_up()) else {
            return;
        };
        machine.actor.crash();
        machine.held.clear();
        machine.life += 1;
        self.note(|| Happened::Crashed(id));
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let is_down = self.machines.get(&id).is_some_and(|machine| !machine.actor.is_up());
        if is_down {
            self.note(|| Happened::Started(id));
            self.with(id, |actor, now, out| actor.start(now, out));
        }
    }

    fn with(&mut self, id: NodeId, step: impl FnOnce(&mut dyn Actor, Time, &mut Vec<Effect>)) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let mut out = Vec::new();
        step(&mut *machine.actor, now, &mut out);
        for effect in out {
            let machine = self.machines.get_mut(&id).expect("it was just there");
            let is_early = match &effect {
                Effect::Sync => {
                    machine.held.push_back(None);
                    machine.disk_free = machine.disk_free.max(now) + self.scenario.sync;
                    let (at, life) = (machine.disk_free, machine.life);
                    self.schedule(at, Happening::Synced { id, life });
                    continue;
                }
                Effect::Send { is_early, .. } | Effect::Told { is_early, .. } => *is_early,
            };
            match is_early || machine.held.is_empty() {
                true => self.let_out(id, effect),
                false => machine.held.push_back(Some(effect)),
            }
        }
    }

    fn synced(&mut self, id: NodeId, life: u64) {
        let Some(machine) = self.machines.get_mut(&id).filter(|machine| machine.life == life) else { return };
        machine.actor.synced();
        assert!(machine.held.pop_front().is_some_and(|first| first.is_none()), "syncs end in order");
        while let Some(Some(_)) = self.machines[&id].held.front() {
            let held = self.machines.get_mut(&id).and_then(|machine| machine.held.pop_front());
            held.flatten().into_iter().for_each(|effect| self.let_out(id, effect));
        }
    }

    fn let_out(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Send { to, bytes, name, .. } => self.send(id, to, bytes, name),
            Effect::Told { told, .. } => self.hear(id, told),
            Effect::Sync => {}
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, bytes: Bytes, name: &'static str) {
        if from == to {
            let at = self.now;
            return self.schedule(at, Happening::Arrive { from, to, bytes, name });
        }
        self.messages += 1;
        self.bank_messages += u64::from(from.min(to) < COORDINATOR);
        let (fastest, slowest) = self.scenario.latency;
        let delay = self.rng.between(fastest.as_nanos() as u64, slowest.as_nanos() as u64);
        let last = self.last_arrival.entry((from, to)).or_default();
        let at = (self.now + Duration::from_nanos(delay)).max(*last);
        *last = at;
        self.note(|| Happened::Sent { from, to, name, at });
        self.schedule(at, Happening::Arrive { from, to, bytes, name });
    }
}

/// Clients.
impl World {
    /// Whoever coordinates now is asked; none if nobody is there.
    pub(super) fn ask(&mut self, branches: &Branches, is_read: bool) -> (Ticket, Option<NodeId>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.clients.insert(ticket, Client { is_read, handle: None, decision: None });
        let candidates: Vec<NodeId> = self.machines.keys().copied().filter(|id| *id >= COORDINATOR).collect();
        let mut asked = None;
        for id in candidates {
            let mut is_taken = false;
            self.with(id, |actor, now, out| is_taken = actor.ask(now, ticket, branches, out));
            if is_taken {
                asked = Some(id);
                break;
            }
        }
        (ticket, asked)
    }

    fn transfer(&mut self, from: NodeId, to: NodeId, amount: u64) -> Option<NodeId> {
        let mut call = Call::new("transfer");
        call.more.insert("from".into(), account(from).into());
        call.more.insert("to".into(), account(to).into());
        call.more.insert("amount".into(), amount.into());
        let client = format!("c{}", self.tickets + 1);
        let handle = self.recorder.invoke(Nanos(self.now.0), &client, call);
        self.note(|| Happened::Asked { client, amount, from: account(from), to: account(to) });
        let branches = self.place(transfer(from, to, amount));
        let (ticket, asked) = self.ask(&branches, false);
        self.remember(ticket, handle);
        asked
    }

    fn read(&mut self) {
        let client = format!("c{}", self.tickets + 1);
        let handle = self.recorder.invoke(Nanos(self.now.0), &client, Call::new("read"));
        if self.scenario.protocol.isolates() {
            let all = (1..=self.scenario.participants).map(NodeId);
            let branches = all.map(|id| (id, vec![BankOp::Balance { account: account(id) }])).collect();
            let branches = self.place(branches);
            let (ticket, _) = self.ask(&branches, true);
            return self.remember(ticket, handle);
        }
        let seen = self.balances();
        let outcome = match seen.len() as u64 == self.scenario.participants {
            true => {
                self.count_read(seen.values().sum());
                Ended::Ok(Reply::value(serde_json::json!(seen)))
            }
            false => Ended::fail("a bank is down"),
        };
        self.recorder.complete(Nanos(self.now.0), handle, outcome);
    }

    /// The client's answer may have come already.
    fn remember(&mut self, ticket: Ticket, handle: Handle) {
        if let Some(client) = self.clients.get_mut(&ticket) {
            client.handle = Some(handle);
        }
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
                self.note(|| Happened::Opened(id, name.clone()));
                self.names.insert(name, ticket);
            }
            Told::Refused(ticket, why) => {
                let handle = self.clients.get_mut(&ticket).and_then(|client| client.handle.take());
                let now = Nanos(self.now.0);
                handle.into_iter().for_each(|handle| self.recorder.complete(now, handle, Ended::fail(&why)));
            }
            Told::Decided(name, decision, answers) => {
                self.note(|| Happened::Decided(id, decision, name.clone()));
                self.decided(id, &name, decision);
                self.tell_client(&name, decision, &answers);
            }
            Told::Ended(name, decision) => {
                self.note(|| Happened::Applied(id, decision, name.clone()));
                if self.applied.insert((id, name.clone()), decision) == Some(Decision::Commit) {
                    self.violations.push(format!("{id} applies {name} twice"));
                }
                self.decided(id, &name, decision);
            }
            Told::Other => {}
        }
    }

    fn decided(&mut self, id: NodeId, name: &str, decision: Decision) {
        let first = *self.decisions.entry(name.to_owned()).or_insert(decision);
        if first != decision {
            let line = format!("{id} says {decision} of {name}, and another said {first}");
            self.note(|| Happened::Contradiction(line.clone()));
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
        self.known.get_or_insert(self.now);
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
        let now = Nanos(self.now.0);
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
        self.machines.values().flat_map(|machine| machine.actor.balances()).collect()
    }

    pub(super) fn locks(&self) -> Vec<String> {
        self.machines.values().flat_map(|machine| machine.actor.locks()).collect()
    }

    /// Machines that hold locks.
    pub(super) fn locked(&self) -> Vec<NodeId> {
        let holds = |(id, machine): (&NodeId, &Machine)| (!machine.actor.locks().is_empty()).then_some(*id);
        self.machines.iter().filter_map(holds).collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.machines.keys().copied()
    }

    /// What the first client that was told anything was told.
    pub(super) fn first_decision(&self) -> Option<Decision> {
        self.clients.values().find_map(|client| client.decision)
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// What came before is not worth telling.
    pub(super) fn forget_trace(&mut self) {
        self.trace.iter_mut().for_each(Vec::clear);
        self.bank_messages = 0;
    }

    pub(super) fn into_trace(self) -> Vec<(Time, Happened)> {
        self.trace.unwrap_or_default()
    }

    /// Whether somebody coordinates who can be asked.
    pub(super) fn is_up(&self, id: NodeId) -> bool {
        self.machines[&id].actor.is_up()
    }

    fn finish(mut self) -> Outcome {
        let Scenario { participants, protocol, .. } = self.scenario;
        let (total, all) = (self.balances().values().sum::<u64>(), participants * BALANCE);
        if total != all {
            self.violations.push(format!("at the end there is {total} in all accounts, and not {all}"));
        }
        let locks = self.locks();
        if !locks.is_empty() {
            self.violations.push(format!("long after the last fault locks are held: {}", locks.join(", ")));
        }
        if protocol == Protocol::Saga {
            let open = self.names.keys().filter(|name| !self.decisions.contains_key(*name)).count();
            if open > 0 {
                self.violations.push(format!("{open} sagas have not ended"));
            }
        }
        let count = |decision| {
            let is_so = |client: &&Client| !client.is_read && client.decision == decision;
            self.clients.values().filter(is_so).count() as u64
        };
        let (committed, aborted, unknown) =
            (count(Some(Decision::Commit)), count(Some(Decision::Abort)), count(None));
        let history = self.recorder.finish();
        let limits = Limits { configurations_max: CONFIGURATIONS_MAX, threads_max: 1, ..Limits::default() };
        let judgement = judge(&history, Some(Object::Bank), None, &limits, &mut || false);
        let verdicts = judgement.map(|judgement| judgement.findings).unwrap_or_default();
        let verdict = |finding: &synod_check::judge::Finding| {
            let answer = match (finding.answer.is_yes(), finding.answer.is_no()) {
                (true, _) => "yes",
                (_, true) => "no",
                _ => "not found out within the budget",
            };
            (finding.model.name().to_owned(), answer.to_owned())
        };
        let verdicts: Vec<_> = verdicts.iter().map(verdict).collect();
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
            messages: self.messages,
            money: (total, all),
            violations: self.violations,
            history,
            verdicts,
            trace: told(&self.trace.unwrap_or_default()),
        }
    }
}

/// A line for each thing that happened.
fn told(trace: &[(Time, Happened)]) -> String {
    let mut text = String::new();
    for (at, happened) in trace {
        let _ = writeln!(text, "{at:>15?} {happened}");
    }
    text
}

/// Moves money from one bank's account to another's.
fn transfer(from: NodeId, to: NodeId, amount: u64) -> Branches {
    let mut branches = Branches::new();
    branches.entry(from).or_default().push(BankOp::Debit { account: account(from), amount });
    branches.entry(to).or_default().push(BankOp::Credit { account: account(to), amount });
    branches
}
