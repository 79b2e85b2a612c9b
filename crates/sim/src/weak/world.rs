//! The world: sessions that write and read, and what must hold at the end.

use super::faults::{Alarm, weather};
use super::kinds::{self, Fate, Ledger};
use super::member::{Home, Member, Members, Start, TODAY};
use super::note::{Note, Story};
use super::operator::Operator;
use super::ordered::Ordered;
use super::outcome::{Outcome, broken};
use super::{Level, Scenario};
use crate::small::{Happened, Next, Stage};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_check::history::{Call, Handle, Header, Nanos, Outcome as Ended, Recorder, Reply};
use synod_protocols::Rng;
use synod_protocols::log::Ticket;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::weak::{Causal, Content, Event, Eventual, Kind, Name, Refusal, Request, Write};

/// After the trouble the members must come to show the same within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays a scenario.
pub fn run(scenario: &Scenario) -> Outcome {
    run_with(scenario, &[], false)
}

/// Plays a scenario and keeps what happened.
pub fn watch(scenario: &Scenario) -> Outcome {
    run_with(scenario, &[], true)
}

/// Plays a scenario with these things happening beside its faults.
pub(super) fn run_with(scenario: &Scenario, plan: &[(Time, Alarm)], is_watched: bool) -> Outcome {
    match scenario.level {
        Level::Linearizable | Level::Sequential => {
            World::<Ordered>::new(Scenario { kind: Kind::Register, ..*scenario }, is_watched).play(plan)
        }
        Level::Causal => World::<Causal>::new(*scenario, is_watched).play(plan),
        Level::Eventual => World::<Eventual>::new(*scenario, is_watched).play(plan),
    }
}

struct Session {
    name: String,
    home: NodeId,
    token: Option<Bytes>,
    asked: Option<Asked>,
}

/// What a session waits for.
struct Asked {
    ticket: Ticket,
    handle: Handle,
    call: Call,
    key: String,
    at: NodeId,
    /// Its number among all writes, if it is one.
    write: Option<usize>,
}

pub(super) struct World<P: Member> {
    pub(super) scenario: Scenario,
    pub(super) stage: Members<P>,
    /// What sessions draw from, so that a fault more does not move what they do.
    rng: Rng,
    recorder: Recorder,
    sessions: BTreeMap<u64, Session>,
    ledger: Ledger,
    pub(super) operator: Operator,
    /// What came for members that are stopped: they find it when they go on.
    late: BTreeMap<NodeId, Vec<Request>>,
    /// At the end: who has not yet said that it has taken a write.
    untold: BTreeMap<Ticket, NodeId>,
    tickets: u64,
    /// Requests answered, refused, and not answered.
    counts: (u64, u64, u64),
    violations: Vec<String>,
}

impl<P: Member> World<P> {
    fn new(scenario: Scenario, is_watched: bool) -> World<P> {
        let Scenario { level, kind, members, seed, sync, .. } = scenario;
        let session = |number| {
            let home = NodeId(1 + number % members);
            (number, Session { name: format!("s{}", number + 1), home, token: None, asked: None })
        };
        let mut world = World {
            scenario,
            stage: Stage::new(Rng::new(seed), weather(&scenario), sync, is_watched),
            rng: Rng::new(seed ^ 0x5e55_1045),
            recorder: Recorder::new(Header::new(kinds::object(kind))),
            sessions: (0..scenario.sessions).map(session).collect(),
            ledger: Ledger::new(kind, level),
            operator: Operator::default(),
            late: BTreeMap::new(),
            untold: BTreeMap::new(),
            tickets: 0,
            counts: (0, 0, 0),
            violations: Vec::new(),
        };
        (1..=members).for_each(|id| world.seat(NodeId(id), false));
        (1..=members).for_each(|id| world.stage.start(NodeId(id)));
        world
    }

    /// A machine with a blank disk, which is not started.
    pub(super) fn seat(&mut self, id: NodeId, joins: bool) {
        let Scenario { level, members, seed, timing, .. } = self.scenario;
        let founders = (1..=members).map(NodeId).collect();
        let start = Start { level, id, founders, life: 0, seed, wall_at_zero: TODAY, timing };
        self.stage.add(id, Box::new(P::Home::new(start, joins)));
    }

    fn play(mut self, plan: &[(Time, Alarm)]) -> Outcome {
        let end = Time::ZERO + self.scenario.span;
        for session in 0..self.scenario.sessions {
            let at = Time::ZERO + self.scenario.begin + self.think();
            self.stage.alarm(at, Alarm::Ask(session));
        }
        self.plan_faults();
        plan.iter().for_each(|(at, alarm)| self.stage.alarm(*at, *alarm));
        self.advance(end);
        let faults = self.stage.faults();
        self.restore();
        let healed = self.stage.now;
        let mut convergence = None;
        while self.stage.now < healed + PATIENCE {
            match self.is_at_rest() && self.are_newcomers_in() {
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
            self.complain(format!("{PATIENCE:?} after the last fault the members still differ"));
        }
        if !self.scenario.level.is_strong() {
            self.read_at_rest();
        }
        self.finish(convergence, faults)
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
            while let Some((id, event)) = self.stage.told.pop_front() {
                self.hear(id, event);
            }
        }
    }

    /// Whether all that are up and count have nothing more to tell each other.
    fn is_at_rest(&self) -> bool {
        let processes = self.stage.machines().filter_map(|(_, home)| home.process());
        let mut all = processes.filter(|process| process.counts());
        all.next().is_none_or(|first| all.all(|other| first.agrees_with(other)))
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(super) fn request(&mut self, id: NodeId, request: Request) {
        match self.stage.is_up(id) && !self.stage.is_there(id) {
            true => self.late.entry(id).or_default().push(request),
            false => self.stage.with(id, |home, now, out| home.request(now, request, out)),
        }
    }

    /// Who goes on finds what came meanwhile; who died will not.
    pub(super) fn hand_over_late(&mut self) {
        for id in self.late.keys().copied().collect::<Vec<NodeId>>() {
            if self.stage.is_there(id) || !self.stage.is_up(id) {
                let requests = self.late.remove(&id).into_iter().flatten();
                requests
                    .filter(|_| self.stage.is_up(id))
                    .collect::<Vec<Request>>()
                    .into_iter()
                    .for_each(|request| self.request(id, request));
            }
        }
    }

    /// The clients of one member go to another from now on.
    pub(super) fn move_sessions(&mut self, from: NodeId, to: NodeId) {
        let of_it = self.sessions.values_mut().filter(|session| session.home == from);
        of_it.for_each(|session| session.home = to);
    }

    fn complain(&mut self, what: String) {
        self.stage.note(|| Happened::Note(Note::Broken(what.clone())));
        self.violations.push(what);
    }
}

/// Sessions.
impl<P: Member> World<P> {
    pub(super) fn ask(&mut self, number: u64) {
        if self.stage.now >= Time::ZERO + self.scenario.span {
            return;
        }
        let roams = self.rng.chance(1, 3) && self.scenario.roams;
        let (home, members) = (self.sessions[&number].home, self.scenario.members);
        let at = if roams { NodeId(1 + self.rng.below(members)) } else { home };
        let key = format!("k{}", self.rng.below(self.scenario.keys));
        let is_write = self.rng.chance(2, 5);
        let ticket = self.ticket();
        let (now, kind) = (self.stage.now, self.scenario.kind);
        let session = self.sessions.get_mut(&number).expect("it is there");
        let token = session.token.clone();
        let (write, call, request) = match is_write {
            true => {
                let who = (session.name.as_str(), at);
                let (write, wanted, call) = self.ledger.write(&mut self.rng, now, who, &key);
                (Some(write), call, Request::Write { ticket, token, writes: vec![wanted] })
            }
            false => {
                let name = Name { kind, key: key.clone().into() };
                (None, kinds::read(kind, &key), Request::Read { ticket, token, names: vec![name] })
            }
        };
        let handle = self.recorder.invoke_on(Nanos(now.0), &session.name, &at.to_string(), call.clone());
        note::<P>(&mut self.stage, &session.name, ticket, &call, at, None);
        session.asked = Some(Asked { ticket, handle, call, key, at, write });
        match self.stage.is_up(at) {
            true => {
                self.stage.alarm(now + self.scenario.give_up, Alarm::GiveUp(number, ticket));
                self.request(at, request);
            }
            false => self.answer(number, Ended::fail("the member is down"), None),
        }
    }

    pub(super) fn give_up(&mut self, number: u64, ticket: Ticket) {
        if self.sessions[&number].asked.as_ref().is_some_and(|asked| asked.ticket == ticket) {
            self.counts.2 += 1;
            self.answer(number, Ended::unknown("no answer"), None);
            self.begin_anew(number);
        }
    }

    /// Whoever does not know what became of it, or has seen what is lost for ever, goes on as somebody else.
    fn begin_anew(&mut self, number: u64) {
        let session = self.sessions.get_mut(&number).expect("it is there");
        session.name.push('\'');
        session.token = None;
    }

    fn hear(&mut self, id: NodeId, event: Event) {
        self.operator.hear(&event);
        if let Event::Written { ticket, .. } = event {
            self.untold.remove(&ticket);
        }
        let is_served = matches!(event, Event::Written { .. } | Event::Read { .. });
        if is_served && self.stage.machine(id).is_some_and(Home::is_damaged) {
            self.complain(format!("{id} serves, though its disk has lost what it may have acknowledged"));
        }
        let is_behind = matches!(event, Event::Refused { why: Refusal::Behind { .. }, .. });
        let (ticket, outcome, token, content) = match event {
            Event::Written { ticket, token } => (ticket, Ended::Ok(Reply::none()), token, None),
            Event::Read { ticket, mut contents, token } => {
                let content = contents.pop().expect("one was asked for");
                (ticket, Ended::Ok(Reply::value(kinds::shown(&content))), token, Some(content))
            }
            Event::Refused { ticket, why } => (ticket, Ended::fail(&why.to_string()), None, None),
            _ => return,
        };
        let is_it = |session: &Session| session.asked.as_ref().is_some_and(|asked| asked.ticket == ticket);
        let Some((number, session)) = self.sessions.iter().find(|(_, session)| is_it(session)) else {
            return;
        };
        let (number, asked) = (*number, session.asked.as_ref().expect("just seen"));
        let wrong = content.and_then(|content| self.ledger.read(&session.name, &asked.key, &content));
        wrong.into_iter().for_each(|what| self.complain(what));
        self.answer(number, outcome, token);
        if is_behind && !self.operator.removed.is_empty() {
            self.begin_anew(number);
        }
    }

    fn answer(&mut self, number: u64, outcome: Ended, token: Option<Bytes>) {
        let now = self.stage.now;
        let think = self.think();
        self.stage.alarm(now + think, Alarm::Ask(number));
        let session = self.sessions.get_mut(&number).expect("it is there");
        let fate = match outcome {
            Ended::Ok(_) => {
                self.counts.0 += 1;
                Fate::Done
            }
            Ended::Fail { .. } => {
                self.counts.1 += 1;
                Fate::Refused
            }
            Ended::Unknown { .. } => Fate::Unknown,
        };
        if self.scenario.level.has_sessions() && token.is_some() {
            session.token = token;
        }
        let Some(Asked { ticket, handle, call, at, write, .. }) = session.asked.take() else { return };
        write.into_iter().for_each(|write| self.ledger.ended(write, now, fate));
        note::<P>(&mut self.stage, &session.name, ticket, &call, at, Some(&outcome));
        self.recorder.complete(Nanos(now.0), handle, outcome);
    }
}

fn note<P: Member>(
    stage: &mut Members<P>,
    session: &str,
    ticket: Ticket,
    call: &Call,
    at: NodeId,
    ended: Option<&Ended>,
) {
    stage.note(|| {
        let (session, number) = (session.to_owned(), u32::try_from(ticket.0).unwrap_or(u32::MAX));
        Happened::Note(Note::Operation { session, number, call: call.clone(), at, ended: ended.cloned() })
    });
}

/// The end.
impl<P: Member> World<P> {
    pub(super) fn members_at_rest(&self) -> Vec<NodeId> {
        let counts = |id: &NodeId| self.stage.machine(*id).and_then(Home::process).is_some_and(P::counts);
        self.stage.ids().into_iter().filter(counts).collect()
    }

    /// Whoever was struck, all is well now: everybody takes a write, of a key that nobody is asked about.
    fn write_at_rest(&mut self) {
        for id in self.members_at_rest() {
            let ticket = self.ticket();
            let write = Write::Put { key: "at rest".into(), value: id.to_string().into() };
            self.untold.insert(ticket, id);
            self.request(id, Request::Write { ticket, token: None, writes: vec![write] });
        }
    }

    /// Everybody looks at every key, after one more write that is everywhere: what was read on the way is no last read.
    fn read_at_rest(&mut self) {
        // A disk that was full is tried again after half a second.
        self.advance(self.stage.now + Duration::from_secs(1));
        let Some(first) = self.members_at_rest().first().copied() else { return };
        let kind = self.scenario.kind;
        self.write_at_rest();
        let handle = (kind == Kind::Register).then(|| {
            let handle = self.recorder.invoke(Nanos(self.stage.now.0), "the last", Call::put("k0", "last"));
            let write = Write::Put { key: "k0".into(), value: "last".into() };
            let ticket = self.ticket();
            self.request(first, Request::Write { ticket, token: None, writes: vec![write] });
            handle
        });
        self.advance(self.stage.now + Duration::from_secs(1));
        if let Some(handle) = handle {
            self.recorder.complete(Nanos(self.stage.now.0), handle, Ended::Ok(Reply::none()));
        }
        for id in std::mem::take(&mut self.untold).into_values() {
            self.complain(format!("{id} takes no write, though all faults are over"));
        }
        let forgotten = self.operator.removed.clone();
        for key in (0..self.scenario.keys).map(|key| format!("k{key}")) {
            let name = Name { kind, key: key.clone().into() };
            let mut shown: Option<Content> = None;
            // One that was removed may have learnt of it only now.
            for id in self.members_at_rest() {
                let process = self.stage.machine(id).and_then(Home::process).expect("it counts");
                let content = process.content(&name);
                let (now, call) = (Nanos(self.stage.now.0), kinds::read(kind, &key));
                let handle = self.recorder.invoke_on(now, &format!("at {id}"), &id.to_string(), call);
                self.recorder.complete(now, handle, Ended::Ok(Reply::value(kinds::shown(&content))));
                if shown.get_or_insert_with(|| content.clone()) != &content {
                    self.complain(format!("{id} shows another {key} than the others"));
                }
            }
            let wrong = shown.map(|content| self.ledger.at_rest(&key, &content, &forgotten));
            wrong.into_iter().flatten().for_each(|what| self.complain(what));
        }
    }

    fn finish(mut self, convergence: Option<Duration>, faults: u64) -> Outcome {
        let failures = self
            .stage
            .machines()
            .filter_map(|(id, home)| Some(format!("{id} cannot be started: {}", home.failure()?)));
        failures.collect::<Vec<String>>().into_iter().for_each(|what| self.complain(what));
        let Scenario { level, kind, .. } = self.scenario;
        let recorder = std::mem::replace(&mut self.recorder, Recorder::new(Header::new("kv")));
        let history = recorder.finish();
        let models = if kind == Kind::Register { level.models() } else { &[] };
        for model in models {
            if let Some(why) = broken(&history, *model) {
                self.complain(format!("the sessions' history is not {model}: {why}"));
            }
        }
        let (answered, refused, unanswered) = self.counts;
        Outcome {
            scenario: self.scenario,
            answered,
            refused,
            unanswered,
            messages: self.stage.messages,
            faults,
            convergence,
            violations: self.violations,
            history,
            story: Story::new(self.stage.take_seen()),
        }
    }
}
