//! Sagas: the orchestrator, and the services that it asks.

use super::host::{Happened, Heard, Host, heard};
use super::{HostedError, service};
use crate::member::Member;
use crate::outside::{Description, HttpService};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::{ProcessId, Space, Step};
use synod_protocols::log::{ReplicatedLog, Role, Ticket};
use synod_protocols::replicated::Wants;
use synod_protocols::saga::{
    Config, Event, Failure, Message, Orchestrator, PauseReason, Plan, Refusal, Request, SagaId, StepState,
};
use synod_protocols::{Input, NodeId, Time, Wire};
use tokio::sync::oneshot;

/// How long a client waits for its saga to be begun, durably.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a service behind HTTP may take for one request.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client asks.
pub(crate) enum SagaAsk {
    Begin(Plan),
    Cancel(SagaId),
    Resume(SagaId, String),
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SagaError {
    Host(HostedError),
    Refused(Refusal),
}

/// A saga, as the orchestrator knows it.
#[derive(Clone, Debug)]
pub(crate) struct SagaSeen {
    pub(crate) saga: SagaId,
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) why: Option<String>,
    pub(crate) steps: Vec<StepSeen>,
}

/// One step of it.
#[derive(Clone, Debug)]
pub(crate) struct StepSeen {
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) state: &'static str,
    pub(crate) after: Vec<String>,
    pub(crate) output: Option<Bytes>,
    pub(crate) attempts: u32,
}

/// What a step's action, or its compensation, holds beside the work: what its saga is called.
pub(crate) fn work(saga: &str, work: Bytes) -> Bytes {
    (saga.to_owned(), work).to_bytes()
}

fn unwrapped(action: &Bytes) -> (String, Bytes) {
    Wire::from_bytes(action.clone()).unwrap_or_default()
}

/// Has a saga begun, cancelled, or a step of it resumed. Only on the leader.
pub(crate) async fn ask<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    ask: SagaAsk,
) -> Result<SagaId, SagaError> {
    if member.status().log.role != Role::Leader {
        return Err(SagaError::Host(HostedError::NotLeader));
    }
    let (answer, done) = oneshot::channel();
    let mailbox = member.calls.borrow().host.clone();
    mailbox.tell(Happened::Saga(ask, answer));
    match tokio::time::timeout(PATIENCE, done).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(SagaError::Host(HostedError::Stopping)),
        Err(_) => Err(SagaError::Host(HostedError::UnknownOutcome)),
    }
}

/// All sagas that are not over, and the latest of those that are. Only on the leader.
pub(crate) async fn look<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
) -> Result<Vec<SagaSeen>, HostedError> {
    let (answer, seen) = oneshot::channel();
    let mailbox = member.calls.borrow().host.clone();
    mailbox.tell(Happened::LookAtSagas(answer));
    match tokio::time::timeout(PATIENCE, seen).await {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(_)) => Err(HostedError::NotLeader),
        Err(_) => Err(HostedError::Unavailable),
    }
}

/// A step that a service was asked for, or its compensation.
pub(crate) type Asked = (SagaId, String, bool);

/// Who waits, and what is being asked.
#[derive(Default)]
pub(super) struct Sagas {
    clients: BTreeMap<Ticket, oneshot::Sender<Result<SagaId, SagaError>>>,
    /// Those of them whose requests wait for a life of the orchestrator to begin.
    held: BTreeSet<Ticket>,
    /// What the answer to a cancellation names.
    named: BTreeMap<Ticket, SagaId>,
    lookers: Vec<oneshot::Sender<Vec<SagaSeen>>>,
    /// What a service is at: the orchestrator's repetitions need not be sent meanwhile.
    serving: BTreeSet<Asked>,
    /// Who speaks for services behind HTTP, made anew when they are described anew.
    services: BTreeMap<NodeId, (Bytes, Rc<HttpService>)>,
    last: u64,
}

impl Sagas {
    /// The orchestrator's life is over, or did not begin: what was asked may have been done or not, unless it waits for
    /// the next life.
    fn life_is_over(&mut self) {
        let asked: Vec<Ticket> =
            self.clients.keys().filter(|ticket| !self.held.contains(ticket)).copied().collect();
        for ticket in asked {
            self.answer(ticket, Err(SagaError::Host(HostedError::UnknownOutcome)));
        }
    }

    /// There is no next life here: what waits for it is not done, with this as the reason.
    pub(super) fn end(&mut self, held: &HostedError) {
        self.life_is_over();
        for ticket in std::mem::take(&mut self.held) {
            self.answer(ticket, Err(SagaError::Host(held.clone())));
        }
    }

    fn answer(&mut self, ticket: Ticket, result: Result<SagaId, SagaError>) {
        let client = self.clients.remove(&ticket);
        self.named.remove(&ticket);
        if let Some(client) = client {
            let _ = client.send(result);
        }
    }
}

impl<P: ReplicatedLog + 'static> Host<P> {
    pub(super) fn on_saga(
        &mut self,
        now: Time,
        ask: SagaAsk,
        answer: oneshot::Sender<Result<SagaId, SagaError>>,
    ) {
        if !self.leads {
            let _ = answer.send(Err(SagaError::Host(HostedError::NotLeader)));
            return;
        }
        self.sagas.last += 1;
        let ticket = Ticket(self.sagas.last);
        self.sagas.clients.insert(ticket, answer);
        let request = match ask {
            SagaAsk::Begin(plan) => Request::Begin { ticket, plan },
            SagaAsk::Cancel(saga) => {
                self.sagas.named.insert(ticket, saga);
                Request::Cancel { ticket, saga }
            }
            SagaAsk::Resume(saga, step) => {
                self.sagas.named.insert(ticket, saga);
                Request::Resume { ticket, saga, step }
            }
        };
        if self.orchestrator.running().is_none() {
            self.sagas.held.insert(ticket);
        }
        self.orchestrate(now, Input::Request(request));
    }

    pub(super) fn orchestrate(&mut self, now: Time, input: Input<Orchestrator>) {
        let wants = self.orchestrator.step(now, input);
        self.take_orchestrators(wants);
    }

    pub(super) fn on_orchestrators(&mut self, now: Time, proposed: super::Proposed) {
        let member = Rc::clone(&self.member);
        match heard(&member, &mut self.orchestrator, now, &proposed) {
            Heard::Counts => {
                let wants = self.orchestrator.accepted(now);
                self.take_orchestrators(wants);
            }
            Heard::Begins(life, records) => {
                let (wants, held) = self.orchestrator.begin(now, life, Config::default(), records);
                self.take_orchestrators(wants);
                self.sagas.held.clear();
                held.into_iter().for_each(|input| self.orchestrate(now, input));
                for looker in std::mem::take(&mut self.sagas.lookers) {
                    let _ = looker.send(self.seen_sagas());
                }
            }
            Heard::Over => self.sagas.life_is_over(),
            Heard::Nothing => {}
        }
    }

    fn take_orchestrators(&mut self, wants: Wants<Orchestrator>) {
        let life = self.orchestrator.life();
        for entry in wants.entries {
            self.propose(ProcessId::Orchestrator, life, |_| Step::new(ProcessId::Orchestrator, entry));
        }
        wants.sends.into_iter().for_each(|(to, message)| self.serve(to, message));
        for event in wants.events {
            match event {
                Event::Began { ticket, saga } => self.sagas.answer(ticket, Ok(saga)),
                Event::Agreed { ticket } => {
                    let saga = self.sagas.named.get(&ticket).copied().unwrap_or_default();
                    self.sagas.answer(ticket, Ok(saga));
                }
                Event::Refused { ticket, why } => self.sagas.answer(ticket, Err(SagaError::Refused(why))),
                Event::Paused { saga, step, .. } => {
                    self.member.log(&format!("the step {step} of the saga {saga} waits for a person"));
                }
                Event::Ended { .. } => {}
            }
        }
    }

    /// Asks a service, in a task of its own.
    fn serve(&mut self, to: NodeId, message: Message) {
        let Some(key) = asked(&message) else { return };
        if !self.sagas.serving.insert(key.clone()) {
            return;
        }
        let service = self.service(to);
        let member = Rc::clone(&self.member);
        let mailbox = member.calls.borrow().host.clone();
        tokio::task::spawn_local(async move {
            let answer = match service {
                Service::Keyspace(space) => service::serve(&member, &space, stripped(message)).await,
                Service::Outside(agent) => agent.handle(stripped(message)).await,
                Service::None => refused(message),
            };
            mailbox.tell(Happened::Served { from: to, asked: key, answer });
        });
    }

    pub(super) fn on_served(&mut self, now: Time, from: NodeId, asked: &Asked, answer: Option<Message>) {
        self.sagas.serving.remove(asked);
        // An answer to an earlier life is true for a later one.
        if let Some(message) = answer.filter(|_| self.orchestrator.running().is_some()) {
            self.orchestrate(now, Input::Message { from, message });
        }
    }

    fn service(&mut self, id: NodeId) -> Service {
        let core = self.member.core.borrow();
        let registry = core.node.machine().registry();
        if let Some(space) = registry.spaces().find(|space| space.id.0 == id.0 && space.model.is_on_log()) {
            return Service::Keyspace(space.clone());
        }
        let Some(outside) = registry.outside().find(|outside| outside.id.0 == id.0) else {
            return Service::None;
        };
        if let Some((description, agent)) = self.sagas.services.get(&id)
            && *description == outside.description
        {
            return Service::Outside(Rc::clone(agent));
        }
        let Ok(Description::Http { url }) = Description::parse(&outside.description) else {
            return Service::None;
        };
        let Ok(agent) = HttpService::new(&url, &self.member.config.cluster, SERVICE_TIMEOUT) else {
            return Service::None;
        };
        let agent = Rc::new(agent);
        self.sagas.services.insert(id, (outside.description.clone(), Rc::clone(&agent)));
        Service::Outside(agent)
    }

    pub(super) fn look_at_sagas(&mut self, answer: oneshot::Sender<Vec<SagaSeen>>) {
        match self.orchestrator.running() {
            Some(_) => drop(answer.send(self.seen_sagas())),
            None if self.leads && self.was_used(ProcessId::Orchestrator) => self.sagas.lookers.push(answer),
            None if self.leads => drop(answer.send(Vec::new())),
            None => {}
        }
    }

    fn seen_sagas(&self) -> Vec<SagaSeen> {
        let names = self.names();
        let name = |id: NodeId| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let shown = self.orchestrator.running().into_iter().flat_map(Orchestrator::shown);
        let seen = shown.map(|shown| {
            let steps = shown.plan.steps.iter().zip(&shown.steps);
            let steps: Vec<StepSeen> = steps
                .map(|(planned, (state, paused, attempts))| StepSeen {
                    name: planned.name.clone(),
                    service: name(planned.service),
                    state: if paused.is_some() { "paused" } else { step_state(state) },
                    after: planned.after.clone(),
                    output: state.output().cloned(),
                    attempts: *attempts,
                })
                .collect();
            let pause = shown.steps.iter().find_map(|(_, paused, _)| paused.map(pause));
            let (state, why) = match (shown.is_over, shown.backward, pause) {
                (true, None, _) => ("done", None),
                (true, Some(why), _) => ("compensated", Some(why.to_owned())),
                (false, _, Some(pause)) => ("paused", Some(pause)),
                (false, None, None) => ("running", None),
                (false, Some(why), None) => ("compensating", Some(why.to_owned())),
            };
            let called = shown.plan.steps.first().map(|step| unwrapped(&step.action).0);
            SagaSeen { saga: shown.saga, name: called.unwrap_or_default(), state, why, steps }
        });
        seen.collect()
    }
}

enum Service {
    Keyspace(Space),
    Outside(Rc<HttpService>),
    None,
}

fn asked(message: &Message) -> Option<Asked> {
    match message {
        Message::Act { saga, step, .. } => Some((*saga, step.clone(), false)),
        Message::Compensate { saga, step, .. } => Some((*saga, step.clone(), true)),
        _ => None,
    }
}

/// The message with the work alone, as services know it.
fn stripped(mut message: Message) -> Message {
    if let Message::Act { work, .. } | Message::Compensate { work, .. } = &mut message {
        *work = unwrapped(work).1;
    }
    message
}

/// There is no such service any more. What it did is gone with it, or out of reach.
fn refused(message: Message) -> Option<Message> {
    let (saga, step, is_compensation) = asked(&message)?;
    let failure = Failure::Refused { why: "there is no such service any more".into() };
    Some(Message::Failed { saga, step, is_compensation, failure })
}

fn step_state(state: &StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Started => "started",
        StepState::Done { .. } => "done",
        StepState::Refused => "refused",
        StepState::Undoing { .. } => "undoing",
        StepState::Undone => "undone",
    }
}

fn pause(why: &PauseReason) -> String {
    match why {
        PauseReason::Planned => "a step waits for a person, as planned: resume it".to_owned(),
        PauseReason::Forward(why) => {
            format!("a step was refused that cannot be given up any more ({why}): see to it, and resume it")
        }
        PauseReason::Backward(why) => {
            format!("a step could not be undone ({why}): see to it, and resume it")
        }
    }
}
