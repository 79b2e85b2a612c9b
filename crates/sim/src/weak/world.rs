//! The world: sessions that put and get, faults, and what must hold at the end.

use super::ordered::Ordered;
use super::stage::{Conditions, Member, Next, Stage};
use super::{Fault, Level, Scenario};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use synod_check::history::{Call, Handle, Header, History, Nanos, Outcome as Ended, Recorder, Reply};
use synod_check::judge::{Consistency, Object, judge};
use synod_check::linearizable::Limits;
use synod_protocols::log::Ticket;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::weak::{Causal, Content, Event, Eventual, Kind, Name, Request, Write};
use synod_protocols::{Input, Rng};

/// After the trouble the members must come to show the same within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the search for a witness order may spend on one history.
const CONFIGURATIONS_MAX: u64 = 300_000;

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was played.
    pub scenario: Scenario,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests of which the session never heard again.
    pub unanswered: u64,
    /// Messages sent.
    pub messages: u64,
    /// How long after the last fault the members showed the same; none if never.
    pub convergence: Option<Duration>,
    /// Promises that were broken.
    pub violations: Vec<String>,
    /// What the sessions saw.
    pub history: History,
}

impl Outcome {
    /// Whether every promise was kept.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { level, members, seed, fault, .. } = self.scenario;
        writeln!(f, "{level}, {members} members, faults: {fault}, seed {seed}")?;
        let (answered, refused, unanswered) = (self.answered, self.refused, self.unanswered);
        writeln!(f, "  requests   {answered} answered, {refused} refused, {unanswered} not answered")?;
        writeln!(f, "  messages   {}", self.messages)?;
        match self.convergence {
            Some(span) => writeln!(f, "  the same   {} ms after the last fault", span.as_millis())?,
            None => writeln!(f, "  the same   never")?,
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

/// Plays a scenario.
pub fn run(scenario: &Scenario) -> Outcome {
    run_with(scenario, &[])
}

/// Plays a scenario with these things happening beside its faults.
pub(super) fn run_with(scenario: &Scenario, plan: &[(Time, Alarm)]) -> Outcome {
    match scenario.level {
        Level::Linearizable | Level::Sequential => World::<Ordered>::new(*scenario).play(plan),
        Level::Causal => World::<Causal>::new(*scenario).play(plan),
        Level::Eventual => World::<Eventual>::new(*scenario).play(plan),
    }
}

/// What the world has planned for a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// A session asks.
    Ask(u64),
    /// A session gives up.
    GiveUp(u64, Ticket),
    Crash(NodeId),
    Start(NodeId),
    Cut(NodeId, NodeId),
    Heal,
    SlowDisk(NodeId),
    Clock(NodeId, i64),
    Join(NodeId, NodeId),
    Remove(NodeId, NodeId),
}

struct Session {
    name: String,
    home: NodeId,
    token: Option<Bytes>,
    asked: Option<(Ticket, Option<Handle>)>,
}

struct World<P: Member> {
    scenario: Scenario,
    stage: Stage<P, Alarm>,
    /// What sessions draw from, so that a fault more does not move what they do.
    rng: Rng,
    recorder: Recorder,
    sessions: BTreeMap<u64, Session>,
    values: u64,
    tickets: u64,
    counts: (u64, u64, u64),
    violations: Vec<String>,
}

impl<P: Member> World<P> {
    fn new(scenario: Scenario) -> World<P> {
        let Scenario { level, members, seed, fault, latency, sync, .. } = scenario;
        let conditions = Conditions {
            latency,
            sync,
            lost: if fault.has(Fault::Loss) { 50 } else { 0 },
            repeated: if fault.has(Fault::Disorder) { 50 } else { 0 },
            is_disordered: fault.has(Fault::Disorder),
        };
        let session = |number| {
            let home = NodeId(1 + number % members);
            (number, Session { name: format!("s{}", number + 1), home, token: None, asked: None })
        };
        World {
            scenario,
            stage: Stage::new(level, members, seed, conditions),
            rng: Rng::new(seed ^ 0x5e55_1045),
            recorder: Recorder::new(Header::new("kv")),
            sessions: (0..scenario.sessions).map(session).collect(),
            values: 0,
            tickets: 0,
            counts: (0, 0, 0),
            violations: Vec::new(),
        }
    }

    fn play(mut self, plan: &[(Time, Alarm)]) -> Outcome {
        let end = Time::ZERO + self.scenario.span;
        // A leader first, where there is one.
        for session in 0..self.scenario.sessions {
            let at = Time::from_millis(500) + self.think();
            self.stage.alarm(at, Alarm::Ask(session));
        }
        self.plan_faults();
        plan.iter().for_each(|(at, alarm)| self.stage.alarm(*at, *alarm));
        self.advance(end);
        self.restore();
        let healed = self.stage.now;
        let mut convergence = None;
        while self.stage.now < healed + PATIENCE {
            match self.stage.is_at_rest() {
                true => drop(convergence.get_or_insert(self.stage.now.since(healed))),
                false => convergence = None,
            }
            if convergence.is_some() && self.sessions.values().all(|session| session.asked.is_none()) {
                break;
            }
            let next = self.stage.now + Duration::from_millis(1);
            self.advance(next);
        }
        if convergence.is_none() {
            self.violations.push(format!("{PATIENCE:?} after the last fault the members still differ"));
        }
        self.read_at_rest();
        self.finish(convergence)
    }

    fn think(&mut self) -> Duration {
        Duration::from_nanos(self.rng.below(1 + self.scenario.think.as_nanos() as u64))
    }

    fn advance(&mut self, until: Time) {
        loop {
            match self.stage.next(until) {
                Next::Quiet => return,
                Next::Moved => {}
                Next::Alarm(alarm) => self.on_alarm(alarm),
            }
            while let Some((_, event)) = self.stage.told.pop_front() {
                self.hear(event);
            }
        }
    }

    fn plan_faults(&mut self) {
        let Scenario { fault, members, span, level, .. } = self.scenario;
        let mut rng = Rng::new(self.scenario.seed ^ 0xfa17);
        let mut moment = |from: u64| Time(rng.between(from, span.as_nanos() as u64));
        let starts: Vec<Time> = (0..12).map(|_| moment(500_000_000)).collect();
        let mut rng = Rng::new(self.scenario.seed ^ 0xfa18);
        let mut member = || NodeId(1 + rng.below(members));
        let mut plan: Vec<(Time, Alarm)> = Vec::new();
        if fault.has(Fault::Partitions) {
            for start in &starts[..3] {
                let (one, other) = (member(), member());
                let is_one_way = start.0 % 3 == 0;
                plan.push((*start, Alarm::Cut(one, other)));
                if !is_one_way {
                    plan.push((*start, Alarm::Cut(other, one)));
                }
                plan.push((*start + Duration::from_millis(200 + start.0 % 900), Alarm::Heal));
            }
        }
        if fault.has(Fault::Crashes) {
            for start in &starts[3..6] {
                let id = member();
                plan.push((*start, Alarm::Crash(id)));
                plan.push((*start + Duration::from_millis(50 + start.0 % 800), Alarm::Start(id)));
            }
        }
        if fault.has(Fault::Disks) {
            plan.extend(starts[6..8].iter().map(|start| (*start, Alarm::SlowDisk(member()))));
        }
        if fault.has(Fault::Clocks) {
            for start in &starts[8..11] {
                let ahead = (start.0 % 24_000_000_000) as i64 - 12_000_000_000;
                plan.push((*start, Alarm::Clock(member(), ahead)));
            }
        }
        if fault.has(Fault::Members) && matches!(level, Level::Causal | Level::Eventual) {
            plan.push((starts[11], Alarm::Join(NodeId(members + 1), member())));
            if members > 2 {
                let later = starts[11] + Duration::from_millis(starts[0].0 % 1_000);
                plan.push((later, Alarm::Remove(NodeId(members), NodeId(1 + starts[1].0 % (members - 1)))));
            }
        }
        plan.into_iter().for_each(|(at, alarm)| self.stage.alarm(at, alarm));
    }

    /// All faults end.
    fn restore(&mut self) {
        self.stage.conditions = Conditions { lost: 0, repeated: 0, ..self.stage.conditions };
        self.stage.heal();
        for id in self.stage.ids() {
            self.stage.start(id);
            // The true time, by which nothing is from the future any more.
            self.stage.set_clock(id, 60_000_000_000);
        }
    }

    fn on_alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Ask(session) => self.ask(session),
            Alarm::GiveUp(session, ticket) => self.give_up(session, ticket),
            Alarm::Crash(id) => self.stage.crash(id),
            Alarm::Start(id) => self.stage.start(id),
            Alarm::Cut(from, to) if from != to => self.stage.cut(from, to),
            Alarm::Cut(..) => {}
            Alarm::Heal => self.stage.heal(),
            Alarm::SlowDisk(id) => self.stage.slow_disk(id, Duration::from_millis(400)),
            Alarm::Clock(id, ahead) => self.stage.set_clock(id, ahead),
            Alarm::Join(member, at) => {
                self.stage.add(member, true);
                self.stage.start(member);
                let ticket = self.ticket();
                self.stage.step(at, Input::Request(Request::AddMember { ticket, member }));
            }
            Alarm::Remove(member, at) => {
                let ticket = self.ticket();
                self.stage.step(at, Input::Request(Request::RemoveMember { ticket, member }));
            }
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn ask(&mut self, number: u64) {
        if self.stage.now >= Time::ZERO + self.scenario.span {
            return;
        }
        let roams = self.rng.chance(1, 3) && self.scenario.roams;
        let (home, members) = (self.sessions[&number].home, self.scenario.members);
        let id = if roams { NodeId(1 + self.rng.below(members)) } else { home };
        let key = format!("k{}", self.rng.below(self.scenario.keys));
        let is_put = self.rng.chance(2, 5);
        let ticket = self.ticket();
        let (now, give_up) = (Nanos(self.stage.now.0), self.stage.now + self.scenario.give_up);
        let session = self.sessions.get_mut(&number).expect("it is there");
        let token = session.token.clone();
        let (call, request) = match is_put {
            true => {
                self.values += 1;
                let value = self.values.to_string();
                let write = Write::Put { key: key.clone().into(), value: value.clone().into() };
                (Call::put(&key, value), Request::Write { ticket, token, writes: vec![write] })
            }
            false => {
                let name = Name { kind: Kind::Register, key: key.clone().into() };
                (Call::get(&key), Request::Read { ticket, token, names: vec![name] })
            }
        };
        let handle = self.recorder.invoke_on(now, &session.name, &id.to_string(), call);
        session.asked = Some((ticket, Some(handle)));
        match self.stage.process(id).is_some() {
            true => {
                self.stage.alarm(give_up, Alarm::GiveUp(number, ticket));
                self.stage.step(id, Input::Request(request));
            }
            false => self.answer(number, Ended::fail("the member is down"), None),
        }
    }

    fn give_up(&mut self, number: u64, ticket: Ticket) {
        if self.sessions[&number].asked.as_ref().is_some_and(|(asked, _)| *asked == ticket) {
            self.counts.2 += 1;
            self.answer(number, Ended::unknown("no answer"), None);
            // Whoever does not know what became of it goes on as somebody else.
            let session = self.sessions.get_mut(&number).expect("it is there");
            session.name.push('\'');
            session.token = None;
        }
    }

    fn hear(&mut self, event: Event) {
        let (ticket, outcome, token) = match event {
            Event::Written { ticket, token } => (ticket, Ended::Ok(Reply::none()), token),
            Event::Read { ticket, contents, token } => {
                let value = match contents.first() {
                    Some(Content::Value(Some(bytes))) => Value::from(String::from_utf8_lossy(bytes)),
                    _ => Value::Null,
                };
                (ticket, Ended::Ok(Reply::value(value)), token)
            }
            Event::Refused { ticket, why } => (ticket, Ended::fail(&why.to_string()), None),
            _ => return,
        };
        let is_it = |(_, session): &(&u64, &Session)| {
            session.asked.as_ref().is_some_and(|(asked, _)| *asked == ticket)
        };
        if let Some(number) = self.sessions.iter().find(is_it).map(|(number, _)| *number) {
            self.answer(number, outcome, token);
        }
    }

    fn answer(&mut self, number: u64, outcome: Ended, token: Option<Bytes>) {
        let now = self.stage.now;
        let think = self.think();
        self.stage.alarm(now + think, Alarm::Ask(number));
        let session = self.sessions.get_mut(&number).expect("it is there");
        match outcome {
            Ended::Ok(_) => self.counts.0 += 1,
            Ended::Fail { .. } => self.counts.1 += 1,
            Ended::Unknown { .. } => {}
        }
        if self.scenario.level.has_sessions() && token.is_some() {
            session.token = token;
        }
        let handle = session.asked.take().and_then(|(_, handle)| handle);
        handle.into_iter().for_each(|handle| self.recorder.complete(Nanos(now.0), handle, outcome.clone()));
    }

    /// Everybody looks at every key, after one more write that is everywhere.
    fn read_at_rest(&mut self) {
        if !matches!(self.scenario.level, Level::Causal | Level::Eventual) {
            return;
        }
        let now = |world: &World<P>| Nanos(world.stage.now.0);
        let counts = |world: &World<P>, id: &NodeId| world.stage.process(*id).is_some_and(Member::counts);
        let ids: Vec<NodeId> = self.stage.ids().into_iter().filter(|id| counts(self, id)).collect();
        let Some(first) = ids.first() else { return };
        let handle = self.recorder.invoke(now(self), "the last", Call::put("k0", "last"));
        let write = Write::Put { key: "k0".into(), value: "last".into() };
        let ticket = self.ticket();
        let request = Request::Write { ticket, token: None, writes: vec![write] };
        self.stage.step(*first, Input::Request(request));
        let until = self.stage.now + Duration::from_secs(2);
        self.advance(until);
        self.recorder.complete(now(self), handle, Ended::Ok(Reply::none()));
        // One that was removed may have learnt of it only now.
        for id in ids.into_iter().filter(|id| counts(self, id)).collect::<Vec<_>>() {
            for key in (0..self.scenario.keys).map(|key| format!("k{key}")) {
                let handle =
                    self.recorder.invoke_on(now(self), &format!("at {id}"), &id.to_string(), Call::get(&key));
                let shown = self.stage.process(id).and_then(|process| process.shows(key.as_bytes()));
                let value = shown.map_or(Value::Null, |bytes| String::from_utf8_lossy(&bytes).into());
                self.recorder.complete(now(self), handle, Ended::Ok(Reply::value(value)));
            }
        }
    }

    fn finish(mut self, convergence: Option<Duration>) -> Outcome {
        let history = self.recorder.finish();
        for model in self.scenario.level.models() {
            if let Some(why) = broken(&history, *model) {
                self.violations.push(format!("the sessions' history is not {model}: {why}"));
            }
        }
        let (answered, refused, unanswered) = self.counts;
        Outcome {
            scenario: self.scenario,
            answered,
            refused,
            unanswered,
            messages: self.stage.messages,
            convergence,
            violations: self.violations,
            history,
        }
    }
}

/// Why a history does not satisfy a model; none if it does, or the budget was spent.
fn broken(history: &History, model: Consistency) -> Option<String> {
    let limits = Limits { configurations_max: CONFIGURATIONS_MAX, threads_max: 1, ..Limits::default() };
    let judgement = judge(history, Some(Object::Kv), Some(model), &limits, &mut || false);
    let finding = judgement.ok()?.findings.into_iter().next()?;
    finding.answer.is_no().then_some(finding.explanation)
}
