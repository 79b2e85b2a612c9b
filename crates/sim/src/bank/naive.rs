//! No protocol at all: a client that takes the money here and then puts it there.

use super::actor::{Actor, Asked, Told};
use super::stage::{movements, ticket_name};
use crate::small::{Effect, Happens, Machine};
use std::collections::{BTreeMap, VecDeque};
use synod_protocols::commit::Decision;
use synod_protocols::log::Ticket;
use synod_protocols::saga::{Message, SagaId};
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Describe, Rng, Wire};

/// What it still has to do of each transfer, in memory only. If it dies, or a bank says no in the middle, or a
/// message is lost, nobody knows any more that something is half done.
pub(super) struct Naive {
    is_up: bool,
    open: BTreeMap<u64, VecDeque<(NodeId, Message)>>,
}

impl Naive {
    pub(super) fn new() -> Naive {
        Naive { is_up: false, open: BTreeMap::new() }
    }

    fn next(&mut self, ticket: u64, out: &mut Vec<Effect<Told>>) {
        match self.open.get(&ticket).and_then(|steps| steps.front()) {
            Some((to, message)) => {
                let (bytes, name, detail) = (message.to_bytes(), message.name(), message.detail());
                out.push(Effect::Send { to: *to, bytes, name, detail, is_early: true });
            }
            None => self.end(ticket, Decision::Commit, out),
        }
    }

    fn end(&mut self, ticket: u64, decision: Decision, out: &mut Vec<Effect<Told>>) {
        if self.open.remove(&ticket).is_some() {
            let event = Told::Decided(ticket_name(Ticket(ticket)), decision, BTreeMap::new());
            out.push(Effect::Tell { event, is_early: true });
        }
    }
}

impl Machine for Naive {
    type Event = Told;

    fn start(&mut self, _: Time, _: &mut Vec<Effect<Told>>) {
        self.is_up = true;
    }

    fn crash(&mut self, _: bool, _: &mut Rng) -> Option<String> {
        *self = Naive::new();
        None
    }

    fn is_up(&self) -> bool {
        self.is_up
    }

    fn step(&mut self, _: Time, happens: Happens, out: &mut Vec<Effect<Told>>) {
        let Happens::Message { bytes, .. } = happens else { return };
        match Message::from_bytes(bytes) {
            Ok(Message::Acted { saga, .. }) => {
                if let Some(steps) = self.open.get_mut(&saga.0) {
                    steps.pop_front();
                    self.next(saga.0, out);
                }
            }
            Ok(Message::Failed { saga, .. }) => self.end(saga.0, Decision::Abort, out),
            _ => {}
        }
    }

    // It writes nothing down.

    fn synced(&mut self, _: Time, _: &mut Vec<Effect<Told>>) {}

    fn rot(&mut self, _: &mut Rng) -> bool {
        false
    }

    fn wipe(&mut self) -> bool {
        false
    }

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn watch(&mut self) {}
}

impl Actor for Naive {
    fn ask(&mut self, _: Time, ticket: Ticket, asked: &Asked, out: &mut Vec<Effect<Told>>) -> bool {
        let Asked::Run(branches) = asked else { return false };
        let Some(all) = movements(branches).filter(|_| self.is_up) else { return false };
        let saga = SagaId(ticket.0);
        let step = |(step, to, action, _): (String, NodeId, synod_protocols::saga::Movement, _)| {
            let (floor, work, given) = (SagaId(0), action.to_bytes(), Vec::new());
            (to, Message::Act { floor, saga, step, work, given, is_final: true })
        };
        self.open.insert(ticket.0, all.into_iter().map(step).collect());
        let event = Told::Opened(ticket, ticket_name(ticket));
        out.push(Effect::Tell { event, is_early: true });
        self.next(ticket.0, out);
        true
    }

    fn locks(&self) -> Vec<String> {
        Vec::new()
    }

    fn balances(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}
