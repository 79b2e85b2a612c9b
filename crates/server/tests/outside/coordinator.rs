//! A coordinator of two-phase commit with agents as its participants: a small host for the protocol's own code.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use synod_protocols::commit::{
    AbortReason, Config, Coordinator, CoordinatorRecord, Decision, Event, Message, Request, TxnId,
};
use synod_protocols::contract::{Effects, Input, Process, Recovery};
use synod_protocols::log::Ticket;
use synod_protocols::wire::Wire;
use synod_protocols::{NodeId, Time};
use synod_server::outside::Postgres;
use tokio::sync::{mpsc, oneshot};

/// What the coordinator's disk holds. Clones share it, so that it outlives the coordinator.
#[derive(Clone, Default)]
pub struct Journal {
    records: Arc<Mutex<Vec<CoordinatorRecord>>>,
    /// Where they are written and synced, if that is to cost what it costs.
    file: Option<Arc<File>>,
}

impl Journal {
    pub fn synced(file: File) -> Journal {
        Journal { records: Arc::default(), file: Some(Arc::new(file)) }
    }

    pub fn records(&self) -> Vec<CoordinatorRecord> {
        self.records.lock().expect("no panic").clone()
    }

    async fn append(&self, records: Vec<CoordinatorRecord>) {
        if let (Some(file), false) = (self.file.clone(), records.is_empty()) {
            let bytes: Vec<u8> = records.iter().flat_map(|record| record.to_bytes().to_vec()).collect();
            let written = tokio::task::spawn_blocking(move || {
                (&*file).write_all(&bytes)?;
                file.sync_data()
            });
            written.await.expect("no panic").expect("the disk takes it");
        }
        self.records.lock().expect("no panic").extend(records);
    }
}

/// What a transaction came to.
#[derive(Debug)]
pub struct Outcome {
    pub txn: TxnId,
    pub decision: Decision,
    pub answers: BTreeMap<NodeId, Bytes>,
    pub why: Option<AbortReason>,
}

/// At which moment the coordinator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// When all votes are there, before it decides.
    BeforeDecision,
    /// When its commit is durable, before anybody hears of it.
    AfterDecision,
}

struct Order {
    branches: BTreeMap<NodeId, Bytes>,
    reply: oneshot::Sender<Outcome>,
}

/// A running coordinator. Dropped, it is dead; what it had said may still arrive.
pub struct Running {
    orders: mpsc::UnboundedSender<Order>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Starts a coordinator on its journal. `death` ends it at that moment of its first transaction.
    pub fn start(
        id: NodeId,
        journal: &Journal,
        agents: &BTreeMap<NodeId, Arc<Postgres>>,
        death: Option<Death>,
    ) -> Running {
        let (orders, inbox) = mpsc::unbounded_channel();
        let host = Host::new(id, journal.clone(), agents.clone(), death);
        Running { orders, task: tokio::spawn(host.run(inbox)) }
    }

    /// Runs a transaction; `None` if the coordinator dies over it.
    pub async fn transact(&self, branches: BTreeMap<NodeId, Bytes>) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.orders.send(Order { branches, reply }).ok()?;
        outcome.await.ok()
    }

    pub async fn until_dead(mut self) {
        let _ = (&mut self.task).await;
    }
}

struct Host {
    coordinator: Coordinator,
    journal: Journal,
    agents: BTreeMap<NodeId, Arc<Postgres>>,
    origin: Instant,
    effects: Effects<Coordinator>,
    waiting: BTreeMap<Ticket, oneshot::Sender<Outcome>>,
    named: BTreeMap<TxnId, oneshot::Sender<Outcome>>,
    said: mpsc::UnboundedSender<(NodeId, Message)>,
    heard: mpsc::UnboundedReceiver<(NodeId, Message)>,
    tickets: u64,
    death: Option<Death>,
    votes: usize,
}

impl Host {
    fn new(
        id: NodeId,
        journal: Journal,
        agents: BTreeMap<NodeId, Arc<Postgres>>,
        death: Option<Death>,
    ) -> Host {
        let mut effects = Effects::new();
        let mut config = Config::new(id);
        // Patient, because tests share their machine with builds.
        (config.timing.vote, config.limits.transactions_max) = (Duration::from_secs(5), 4_096);
        let records = journal.records();
        let mut records = records.into_iter();
        let recovery = match records.len() {
            0 => Recovery::First,
            _ => Recovery::Resume { records: &mut records },
        };
        let coordinator = Coordinator::recover(config, recovery, (), Time::ZERO, &mut effects);
        let (said, heard) = mpsc::unbounded_channel();
        let (waiting, named) = (BTreeMap::new(), BTreeMap::new());
        let origin = Instant::now();
        Host {
            coordinator,
            journal,
            agents,
            origin,
            effects,
            waiting,
            named,
            said,
            heard,
            tickets: 0,
            death,
            votes: 0,
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        self.ask_about_what_is_in_doubt();
        loop {
            if !self.carry_out().await {
                return;
            }
            let deadline = self.coordinator.deadline();
            let wait = deadline.map_or(Duration::from_secs(3_600), |deadline| deadline.since(self.now()));
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    None => return,
                },
                heard = self.heard.recv() => {
                    let (from, message) = heard.expect("this host can speak to itself");
                    if !self.on_message(from, message) {
                        return;
                    }
                }
                () = tokio::time::sleep(wait) => self.step(Input::Timeout),
            }
            // What is there together is synced together.
            while let Ok(order) = orders.try_recv() {
                self.on_order(order);
            }
            while let Ok((from, message)) = self.heard.try_recv() {
                if !self.on_message(from, message) {
                    return;
                }
            }
        }
    }

    fn step(&mut self, input: Input<Coordinator>) {
        let now = self.now();
        self.coordinator.step(now, input, &mut self.effects);
    }

    fn on_order(&mut self, order: Order) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.insert(ticket, order.reply);
        self.step(Input::Request(Request::Run { ticket, branches: order.branches }));
    }

    /// Returns whether the coordinator lives.
    fn on_message(&mut self, from: NodeId, message: Message) -> bool {
        self.votes += usize::from(matches!(message, Message::Vote { .. }));
        if self.death == Some(Death::BeforeDecision) && self.votes == self.agents.len() {
            return false;
        }
        self.step(Input::Message { from, message });
        true
    }

    /// The durability rule. Returns whether the coordinator lives.
    async fn carry_out(&mut self) -> bool {
        let effects = std::mem::take(&mut self.effects);
        let decides = |record: &CoordinatorRecord| matches!(record, CoordinatorRecord::Committed { .. });
        let is_decided = effects.records.iter().any(decides);
        self.journal.append(effects.records).await;
        if self.death == Some(Death::AfterDecision) && is_decided {
            return false;
        }
        effects.sends.into_iter().for_each(|send| self.send(send.to, send.message));
        effects.events.into_iter().for_each(|emit| self.on_event(emit.event));
        true
    }

    fn send(&self, to: NodeId, message: Message) {
        let (agent, said) = (Arc::clone(&self.agents[&to]), self.said.clone());
        let me = NodeId(u64::MAX);
        tokio::spawn(async move {
            for answer in agent.handle(me, message).await {
                let _ = said.send((to, answer));
            }
        });
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened { ticket, txn } => {
                let reply = self.waiting.remove(&ticket).expect("somebody has asked");
                self.named.insert(txn, reply);
            }
            Event::Decided { txn, decision, answers, why } => {
                if let Some(reply) = self.named.remove(&txn) {
                    let _ = reply.send(Outcome { txn, decision, answers, why });
                }
            }
            Event::Refused { ticket, .. } => drop(self.waiting.remove(&ticket)),
            Event::Worked { .. } | Event::Deposed { .. } => {}
        }
    }

    /// On behalf of the agents' databases, which cannot ask themselves.
    fn ask_about_what_is_in_doubt(&self) {
        for (id, agent) in &self.agents {
            let (id, agent, said) = (*id, Arc::clone(agent), self.said.clone());
            tokio::spawn(async move {
                loop {
                    for in_doubt in agent.in_doubt().await.unwrap_or_default() {
                        let _ = said.send((id, Message::Ask { txn: in_doubt.txn, life: 0 }));
                    }
                    if said.is_closed() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        }
    }
}
