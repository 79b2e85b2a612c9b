//! No protocol at all: a client that takes the money here and then puts it there.

use super::actor::{Actor, Branches, Effect, Told};
use super::stage::{movements, ticket_name};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use synod_protocols::commit::Decision;
use synod_protocols::log::Ticket;
use synod_protocols::saga::{Message, SagaId};
use synod_protocols::types::{NodeId, Time};
use synod_protocols::{Describe, Wire};

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

    fn next(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        match self.open.get(&ticket).and_then(|steps| steps.front()) {
            Some((to, message)) => {
                let (bytes, name) = (message.to_bytes(), message.name());
                out.push(Effect::Send { to: *to, bytes, name, is_early: true });
            }
            None => self.end(ticket, Decision::Commit, out),
        }
    }

    fn end(&mut self, ticket: u64, decision: Decision, out: &mut Vec<Effect>) {
        if self.open.remove(&ticket).is_some() {
            let told = Told::Decided(ticket_name(Ticket(ticket)), decision, BTreeMap::new());
            out.push(Effect::Told { told, is_early: true });
        }
    }
}

impl Actor for Naive {
    fn start(&mut self, _: Time, _: &mut Vec<Effect>) {
        self.is_up = true;
    }

    fn crash(&mut self) {
        *self = Naive::new();
    }

    fn is_up(&self) -> bool {
        self.is_up
    }

    fn on_message(&mut self, _: Time, _: NodeId, bytes: Bytes, out: &mut Vec<Effect>) {
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

    fn on_timeout(&mut self, _: Time, _: &mut Vec<Effect>) {}

    fn ask(&mut self, _: Time, ticket: Ticket, branches: &Branches, out: &mut Vec<Effect>) -> bool {
        let Some(all) = movements(branches).filter(|_| self.is_up) else { return false };
        let saga = SagaId(ticket.0);
        let step = |(step, to, action, _): (String, NodeId, synod_protocols::saga::Movement, _)| {
            let (floor, work, given) = (SagaId(0), action.to_bytes(), Vec::new());
            (to, Message::Act { floor, saga, step, work, given, is_final: true })
        };
        self.open.insert(ticket.0, all.into_iter().map(step).collect());
        out.push(Effect::Told { told: Told::Opened(ticket, ticket_name(ticket)), is_early: true });
        self.next(ticket.0, out);
        true
    }

    fn synced(&mut self) {}

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn locks(&self) -> Vec<String> {
        Vec::new()
    }

    fn balances(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}
