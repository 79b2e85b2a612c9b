//! An orchestrator of sagas with agents as its services: a small host for the protocol's own code.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_protocols::contract::{Effects, Input, Process, Recovery};
use synod_protocols::log::Ticket;
use synod_protocols::saga::{
    Config, Event, Message, Orchestrator, Outcome, PauseReason, Plan, Request, SagaId, SagaRecord,
};
use synod_protocols::{NodeId, Time};
use synod_server::outside::HttpService;
use tokio::sync::mpsc;

pub struct Host {
    orchestrator: Orchestrator,
    services: BTreeMap<NodeId, Arc<HttpService>>,
    /// What its disk holds.
    records: Vec<SagaRecord>,
    origin: Instant,
    said: mpsc::UnboundedSender<(NodeId, Message)>,
    heard: mpsc::UnboundedReceiver<(NodeId, Message)>,
    pub paused: Vec<(String, PauseReason)>,
    ended: Option<Outcome>,
}

impl Host {
    /// An orchestrator on what its disk holds, which gives a step up after so many attempts.
    pub fn start(
        records: Vec<SagaRecord>,
        services: &BTreeMap<NodeId, Arc<HttpService>>,
        attempts_max: u32,
    ) -> Host {
        let mut config = Config::default();
        (config.timing.retry, config.timing.attempts_max) = (Duration::from_millis(30), attempts_max);
        let mut effects = Effects::new();
        let mut known = records.clone().into_iter();
        let recovery = match records.len() {
            0 => Recovery::First,
            _ => Recovery::Resume { records: &mut known },
        };
        let orchestrator = Orchestrator::recover(config, recovery, (), Time::ZERO, &mut effects);
        let (said, heard) = mpsc::unbounded_channel();
        let mut host = Host {
            orchestrator,
            services: services.clone(),
            records,
            origin: Instant::now(),
            said,
            heard,
            paused: Vec::new(),
            ended: None,
        };
        host.carry_out(effects);
        host
    }

    pub fn begin(&mut self, plan: Plan) {
        self.step(Input::Request(Request::Begin { ticket: Ticket(1), plan }));
    }

    pub fn resume(&mut self, step: &str) {
        let request = Request::Resume { ticket: Ticket(2), saga: SagaId(1), step: step.into() };
        self.step(Input::Request(request));
    }

    /// Goes on until the saga is over.
    pub async fn until_over(&mut self) -> Outcome {
        while self.ended.is_none() {
            self.next().await;
        }
        self.ended.take().expect("it is over")
    }

    /// Goes on until a step waits for a person.
    pub async fn until_paused(&mut self) -> (String, PauseReason) {
        while self.paused.is_empty() {
            self.next().await;
        }
        self.paused.remove(0)
    }

    /// Goes on until this many records are there, and dies: what is left is its disk.
    pub async fn until_dead_after(mut self, records: usize) -> Vec<SagaRecord> {
        while self.records.len() < records {
            self.next().await;
        }
        self.records
    }

    async fn next(&mut self) {
        let now = Time::ZERO + self.origin.elapsed();
        let wait =
            self.orchestrator.deadline().map_or(Duration::from_secs(60), |deadline| deadline.since(now));
        tokio::select! {
            heard = self.heard.recv() => {
                let (from, message) = heard.expect("it can speak to itself");
                self.step(Input::Message { from, message });
            }
            () = tokio::time::sleep(wait) => self.step(Input::Timeout),
        }
    }

    fn step(&mut self, input: Input<Orchestrator>) {
        let mut effects = Effects::new();
        let now = Time::ZERO + self.origin.elapsed();
        self.orchestrator.step(now, input, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects<Orchestrator>) {
        self.records.extend(effects.records);
        for send in effects.sends {
            let (service, said) = (Arc::clone(&self.services[&send.to]), self.said.clone());
            tokio::spawn(async move {
                if let Some(answer) = service.handle(send.message).await {
                    let _ = said.send((send.to, answer));
                }
            });
        }
        for emit in effects.events {
            match emit.event {
                Event::Agreed { .. } => {}
                Event::Paused { step, why, .. } => self.paused.push((step, why)),
                Event::Ended { outcome, .. } => self.ended = Some(outcome),
                Event::Began { .. } => {}
                Event::Refused { why, .. } => panic!("refused: {why:?}"),
            }
        }
    }
}
