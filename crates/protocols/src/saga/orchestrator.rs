//! The orchestrator of sagas.

use super::SagaId;
use super::interface::{Config, Event, Limits, Outcome, PauseReason, Refusal, Request, Timing};
use super::message::{Failure, Message, SagaRecord as Record};
use super::plan::Plan;
use super::progress::{Progress, Saga, Shown, StepState};
use crate::contract::{Checkpoint, Effects, Input, Process, Recovery, StorageFault};
use crate::fingerprint::Fingerprint;
use crate::log::Ticket;
use crate::types::{NodeId, Time};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::Hash;

/// The orchestrator. See [the module](super).
#[derive(Clone, Debug)]
pub struct Orchestrator {
    config: Config,
    /// The latest saga.
    last: SagaId,
    /// What is not over.
    sagas: BTreeMap<SagaId, Saga>,
    /// What is over, the latest: to be shown, and of no consequence.
    over: BTreeMap<SagaId, Saga>,
    is_full: bool,
    abstains: bool,
    ignored: u64,
}

impl Process for Orchestrator {
    type Config = Config;
    type Message = Message;
    type Record = Record;
    type Request = Request;
    type Ask = ();
    type Answer = ();
    type Event = Event;
    type Base = ();

    fn recover(
        config: Config,
        from: Recovery<'_, Record>,
        (): (),
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        assert!(!config.timing.retry.is_zero(), "the retry must be above zero");
        let mut orchestrator = Orchestrator {
            config,
            last: SagaId(0),
            sagas: BTreeMap::new(),
            over: BTreeMap::new(),
            is_full: false,
            abstains: matches!(from, Recovery::Damaged { .. }),
            ignored: 0,
        };
        if let Recovery::Resume { records } = from {
            records.for_each(|record| orchestrator.restore(record, now));
        }
        let open: Vec<SagaId> = orchestrator.sagas.keys().copied().collect();
        for saga in open {
            orchestrator.advance(now, saga, out);
            orchestrator.send_due(now, saga, out);
        }
        orchestrator
    }

    fn step(&mut self, now: Time, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Request(request) => self.on_request(now, request, out),
            _ if self.abstains => {}
            Input::Message { from, message } => self.on_message(now, from, message, out),
            Input::Timeout => {
                let open: Vec<SagaId> = self.sagas.keys().copied().collect();
                open.into_iter().for_each(|saga| self.send_due(now, saga, out));
            }
            Input::StorageFault(fault) => self.is_full = fault == StorageFault::Full,
            Input::LinkUp { .. } | Input::LinkDown { .. } | Input::Answer(()) => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        let steps = self.sagas.values().flat_map(|saga| &saga.steps);
        steps.filter(|step| step.is_waiting()).map(|step| step.resend).min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        (self.last, self.is_full, self.abstains).hash(digest);
        for (id, saga) in &self.sagas {
            (id, &saga.plan, &saga.backward).hash(digest);
            for Progress { state, is_agreed, paused, attempts, resend } in &saga.steps {
                (state, is_agreed, paused, attempts, resend.since(now)).hash(digest);
            }
        }
    }
}

impl Checkpoint for Orchestrator {
    /// What is not over, what is shown though it is, and how far sagas were counted.
    fn checkpoint(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let all =
            self.over.iter().map(|saga| (saga, true)).chain(self.sagas.iter().map(|saga| (saga, false)));
        for ((id, saga), is_over) in all {
            records.push(Record::Began { saga: *id, plan: saga.plan.clone() });
            for (step, progress) in (0..).zip(&saga.steps) {
                if progress.is_agreed {
                    records.push(Record::Agreed { saga: *id, step });
                }
                match progress.state.clone() {
                    StepState::Pending => {}
                    // That it is being undone follows from the saga being undone.
                    StepState::Started | StepState::Undoing { output: None } => {
                        records.push(Record::Started { saga: *id, step });
                    }
                    StepState::Done { output } | StepState::Undoing { output: Some(output) } => {
                        records.push(Record::Done { saga: *id, step, output });
                    }
                    StepState::Refused => records.push(Record::Refused { saga: *id, step }),
                    StepState::Undone => records.push(Record::Undone { saga: *id, step }),
                }
            }
            if let Some(why) = &saga.backward {
                records.push(Record::Backward { saga: *id, why: why.clone() });
            }
            if is_over {
                records.push(Record::Ended { saga: *id });
            }
        }
        records.push(Record::Counted { saga: self.last });
        records
    }
}

/// For hosts, tests and people.
impl Orchestrator {
    /// Sagas below this one are over.
    pub fn floor(&self) -> SagaId {
        self.sagas.keys().next().copied().unwrap_or(SagaId(self.last.0 + 1))
    }

    /// Sagas that are not over, and the latest of those that are, in the order in which they began.
    pub fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        let over = self.over.iter().map(|(id, saga)| (id, saga, true));
        let mut all: Vec<_> = over.chain(self.sagas.iter().map(|(id, saga)| (id, saga, false))).collect();
        all.sort_unstable_by_key(|(id, ..)| **id);
        all.into_iter().map(|(id, saga, is_over)| Shown {
            saga: *id,
            plan: &saga.plan,
            backward: saga.backward.as_deref(),
            is_over,
            steps: saga.steps.iter().map(|step| (&step.state, step.paused.as_ref(), step.attempts)).collect(),
        })
    }

    /// The steps of a saga that is not over, by name, and where each stands.
    pub fn steps(&self, saga: SagaId) -> Vec<(String, StepState)> {
        let saga = self.sagas.get(&saga);
        let steps = saga.iter().flat_map(|saga| saga.plan.steps.iter().zip(&saga.steps));
        steps.map(|(step, progress)| (step.name.clone(), progress.state.clone())).collect()
    }

    /// Whether the saga is not over and is being undone.
    pub fn is_backward(&self, saga: SagaId) -> bool {
        self.sagas.get(&saga).is_some_and(|saga| saga.backward.is_some())
    }

    /// Malformed, late or foreign messages ignored in this life.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

/// Recovery.
impl Orchestrator {
    fn restore(&mut self, record: Record, now: Time) {
        match record {
            Record::Began { saga, plan } => {
                self.last = saga;
                if let Ok(after) = plan.check() {
                    self.sagas.insert(saga, Saga::new(plan, after));
                }
            }
            Record::Started { saga, step } => self.restore_step(saga, step, StepState::Started, now),
            Record::Done { saga, step, output } => {
                self.restore_step(saga, step, StepState::Done { output }, now);
            }
            Record::Refused { saga, step } => self.restore_step(saga, step, StepState::Refused, now),
            Record::Undone { saga, step } => self.restore_step(saga, step, StepState::Undone, now),
            Record::Agreed { saga, step } => {
                let saga = self.sagas.get_mut(&saga);
                if let Some(progress) = saga.and_then(|saga| saga.steps.get_mut(step as usize)) {
                    progress.is_agreed = true;
                }
            }
            Record::Backward { saga, why } => {
                if let Some(saga) = self.sagas.get_mut(&saga) {
                    saga.backward = Some(why);
                }
            }
            Record::Ended { saga } => self.end(saga),
            Record::Counted { saga } => self.last = saga,
        }
    }

    /// It is over, and shown for a while.
    fn end(&mut self, id: SagaId) {
        let Limits { shown_max, shown_bytes_max, .. } = self.config.limits;
        self.over.extend(self.sagas.remove(&id).map(|saga| (id, saga)));
        while self.over.len() > shown_max
            || self.over.values().map(Saga::bytes).sum::<usize>() > shown_bytes_max
        {
            self.over.pop_first();
        }
    }

    fn restore_step(&mut self, saga: SagaId, step: u64, state: StepState, now: Time) {
        let saga = self.sagas.get_mut(&saga);
        if let Some(progress) = saga.and_then(|saga| saga.steps.get_mut(step as usize)) {
            progress.change(state, now);
        }
    }
}

/// Requests.
impl Orchestrator {
    fn on_request(&mut self, now: Time, request: Request, out: &mut Effects<Self>) {
        let (ticket, done) = match request {
            _ if self.abstains => (request.ticket(), Err(Refusal::Damaged)),
            Request::Begin { ticket, plan } => (ticket, self.begin(now, ticket, plan, out)),
            Request::Cancel { ticket, saga } => {
                (ticket, self.cancel(now, saga, out).map(|()| out.event(Event::Agreed { ticket })))
            }
            Request::Resume { ticket, saga, step } => {
                (ticket, self.resume(now, saga, &step, out).map(|()| out.event(Event::Agreed { ticket })))
            }
        };
        if let Err(why) = done {
            out.event(Event::Refused { ticket, why });
        }
    }

    fn begin(
        &mut self,
        now: Time,
        ticket: Ticket,
        plan: Plan,
        out: &mut Effects<Self>,
    ) -> Result<(), Refusal> {
        let after = plan.check().map_err(Refusal::Plan)?;
        let bytes = |step: &super::Step| step.action.len() + step.compensation.as_ref().map_or(0, Bytes::len);
        if plan.steps.iter().map(bytes).sum::<usize>() > self.config.limits.plan_bytes_max {
            return Err(Refusal::Size);
        }
        let Limits { sagas_max, window_max, .. } = self.config.limits;
        if self.is_full || self.sagas.len() >= sagas_max || self.last.0 + 1 - self.floor().0 >= window_max {
            return Err(Refusal::Busy);
        }
        self.last = SagaId(self.last.0 + 1);
        let saga = self.last;
        out.record(Record::Began { saga, plan: plan.clone() });
        out.event(Event::Began { ticket, saga });
        self.sagas.insert(saga, Saga::new(plan, after));
        self.advance(now, saga, out);
        self.send_due(now, saga, out);
        Ok(())
    }

    fn cancel(&mut self, now: Time, id: SagaId, out: &mut Effects<Self>) -> Result<(), Refusal> {
        let saga = self.sagas.get(&id).ok_or(Refusal::Unknown)?;
        if saga.backward.is_some() || saga.is_pivot_started() {
            return Err(Refusal::TooLate);
        }
        self.turn_back(now, id, "it was cancelled".into(), out);
        Ok(())
    }

    fn resume(&mut self, now: Time, id: SagaId, name: &str, out: &mut Effects<Self>) -> Result<(), Refusal> {
        let saga = self.sagas.get_mut(&id).ok_or(Refusal::Unknown)?;
        let step = saga.place(name).ok_or(Refusal::Unknown)?;
        let progress = &mut saga.steps[step];
        if progress.paused.take().is_none() {
            return Err(Refusal::NotPaused);
        }
        (progress.attempts, progress.resend) = (0, now);
        if progress.state == StepState::Pending {
            progress.is_agreed = true;
            out.record(Record::Agreed { saga: id, step: step as u64 });
        }
        self.advance(now, id, out);
        self.send_due(now, id, out);
        Ok(())
    }
}

/// The protocol.
impl Orchestrator {
    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Effects<Self>) {
        let (id, name) = match &message {
            Message::Acted { saga, step, .. }
            | Message::Compensated { saga, step }
            | Message::Failed { saga, step, .. } => (*saga, step),
            Message::Act { .. } | Message::Compensate { .. } => {
                self.ignored += 1;
                return;
            }
        };
        let Some(saga) = self.sagas.get_mut(&id) else { return };
        let Some(step) = saga.place(name).filter(|step| saga.plan.steps[*step].service == from) else {
            self.ignored += 1;
            return;
        };
        let progress = &mut saga.steps[step];
        match (message, &progress.state) {
            (Message::Acted { output, .. }, StepState::Started) => {
                out.record(Record::Done { saga: id, step: step as u64, output: output.clone() });
                progress.change(StepState::Done { output }, now);
            }
            (Message::Compensated { .. }, StepState::Undoing { .. }) => {
                out.record(Record::Undone { saga: id, step: step as u64 });
                progress.change(StepState::Undone, now);
            }
            (Message::Failed { is_compensation, failure: Failure::Refused { why }, .. }, state) => {
                match (is_compensation, state) {
                    (false, StepState::Started) => return self.on_refused(now, id, step, why, out),
                    (true, StepState::Undoing { .. }) => {
                        return self.pause(id, step, PauseReason::Backward(why), out);
                    }
                    _ => self.ignored += 1,
                }
            }
            // It is asked again when it is time.
            (Message::Failed { failure: Failure::Busy, .. }, _) => {}
            // Answers twice, and answers to an action that is being undone.
            _ => self.ignored += 1,
        }
        self.advance(now, id, out);
        self.send_due(now, id, out);
    }

    /// A step has not acted and never will.
    fn on_refused(&mut self, now: Time, id: SagaId, step: usize, why: String, out: &mut Effects<Self>) {
        let Some(saga) = self.sagas.get_mut(&id) else { return };
        if saga.is_past_pivot() {
            return self.pause(id, step, PauseReason::Forward(why), out);
        }
        out.record(Record::Refused { saga: id, step: step as u64 });
        saga.steps[step].change(StepState::Refused, now);
        let why = format!("{}: {why}", saga.plan.steps[step].name);
        self.turn_back(now, id, why, out);
    }

    fn pause(&mut self, id: SagaId, step: usize, why: PauseReason, out: &mut Effects<Self>) {
        let Some(saga) = self.sagas.get_mut(&id) else { return };
        if saga.steps[step].paused.replace(why.clone()).is_none() {
            out.event(Event::Paused { saga: id, step: saga.plan.steps[step].name.clone(), why });
        }
    }

    fn turn_back(&mut self, now: Time, id: SagaId, why: String, out: &mut Effects<Self>) {
        let Some(saga) = self.sagas.get_mut(&id) else { return };
        if saga.backward.is_none() {
            assert!(!saga.is_past_pivot(), "a saga that is past its pivot is never undone");
            out.record(Record::Backward { saga: id, why: why.clone() });
            saga.backward = Some(why);
        }
        self.advance(now, id, out);
        self.send_due(now, id, out);
    }

    /// Starts whatever may start now, and ends what is over.
    fn advance(&mut self, now: Time, id: SagaId, out: &mut Effects<Self>) {
        let Some(saga) = self.sagas.get_mut(&id) else { return };
        let outcome = match saga.backward.clone() {
            None => {
                Self::go_forward(now, id, saga, out);
                (0..saga.steps.len()).all(|step| saga.is_done(step)).then_some(Outcome::Done)
            }
            Some(why) => {
                Self::go_backward(now, saga);
                let is_over = (0..saga.steps.len()).all(|step| !saga.is_in_question(step));
                is_over.then_some(Outcome::Compensated { why })
            }
        };
        if let Some(outcome) = outcome {
            self.end(id);
            out.record(Record::Ended { saga: id });
            out.event(Event::Ended { saga: id, outcome });
        }
    }

    fn go_forward(now: Time, id: SagaId, saga: &mut Saga, out: &mut Effects<Self>) {
        for step in 0..saga.steps.len() {
            let is_ready = saga.after[step].iter().all(|before| saga.is_done(*before));
            if saga.steps[step].state != StepState::Pending || !is_ready {
                continue;
            }
            if saga.plan.steps[step].waits_for_person && !saga.steps[step].is_agreed {
                if saga.steps[step].paused.replace(PauseReason::Planned).is_none() {
                    let (step, why) = (saga.plan.steps[step].name.clone(), PauseReason::Planned);
                    out.event(Event::Paused { saga: id, step, why });
                }
                continue;
            }
            // Durable before its service hears of it: from now on it may have acted.
            out.record(Record::Started { saga: id, step: step as u64 });
            saga.steps[step].change(StepState::Started, now);
        }
    }

    /// In reverse order: a step is undone when nothing that came after it is in question any more.
    fn go_backward(now: Time, saga: &mut Saga) {
        for step in (0..saga.steps.len()).rev() {
            let follows = |later: &usize| saga.after[*later].contains(&step);
            let is_last = !(0..saga.steps.len()).filter(follows).any(|later| saga.is_in_question(later));
            let state = &saga.steps[step].state;
            let may_have_acted = matches!(state, StepState::Started | StepState::Done { .. });
            if may_have_acted && is_last {
                let output = state.output().cloned();
                saga.steps[step].change(StepState::Undoing { output }, now);
            }
        }
    }

    /// Asks, for the first time or again, whoever owes an answer. A step that was asked for too often is given up: whether
    /// it acted is not known, so it will be undone like one that did.
    fn send_due(&mut self, now: Time, id: SagaId, out: &mut Effects<Self>) {
        let floor = self.floor();
        let Timing { retry, attempts_max } = self.config.timing;
        let Some(saga) = self.sagas.get_mut(&id) else { return };
        let mut given_up = None;
        for step in 0..saga.steps.len() {
            if !saga.steps[step].is_waiting() || now < saga.steps[step].resend {
                continue;
            }
            let planned = &saga.plan.steps[step];
            let is_acting = saga.steps[step].state == StepState::Started;
            let is_final = !saga.is_past_pivot();
            let can_be_undone = !planned.is_pivot && !saga.is_past_pivot();
            if is_acting && can_be_undone && saga.steps[step].attempts >= attempts_max {
                given_up = Some(format!("{} did not answer", planned.name));
                continue;
            }
            let (name, given) = (planned.name.clone(), saga.given(step));
            let message = match (is_acting, &planned.compensation) {
                (true, _) => Message::Act {
                    floor,
                    saga: id,
                    step: name,
                    work: planned.action.clone(),
                    given,
                    is_final,
                },
                (false, Some(work)) => {
                    Message::Compensate { floor, saga: id, step: name, work: work.clone(), given }
                }
                (false, None) => continue,
            };
            out.send(planned.service, message);
            let progress = &mut saga.steps[step];
            progress.resend = now + retry * (1 << progress.attempts.min(6));
            progress.attempts = progress.attempts.saturating_add(1);
        }
        if let Some(why) = given_up {
            self.turn_back(now, id, why, out);
        }
    }
}
