//! A machine of the bank's world: what it is asked for, and what can be seen of it.

use crate::small::{Effect, Host, Machine};
use bytes::Bytes;
use std::collections::BTreeMap;
use synod_protocols::Process;
use synod_protocols::commit::{BankOp, Decision};
use synod_protocols::log::Ticket;
use synod_protocols::saga::SagaId;
use synod_protocols::types::{NodeId, Time};

/// What a transaction does, by bank.
pub(super) type Branches = BTreeMap<NodeId, Vec<BankOp>>;

/// What a process tells its host, whatever the protocol. Transactions go by their names.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Opened(Ticket, String),
    Refused(Ticket, String),
    /// Decided, with what was read, by bank.
    Decided(String, Decision, BTreeMap<NodeId, Bytes>),
    /// Applied or undone at a bank.
    Ended(String, Decision),
    /// A step waits for a person.
    Waits(SagaId, String),
    Other,
}

/// What somebody asks of a machine.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// To carry this out.
    Run(Branches),
    /// To go on with a step: a person has looked at it.
    Resume(SagaId, String),
}

/// A machine, whatever runs on it.
pub(super) trait Actor: Machine<Event = Told> {
    /// Asks for something; false if nobody here can take it.
    fn ask(&mut self, now: Time, ticket: Ticket, asked: &Asked, out: &mut Vec<Effect<Told>>) -> bool;
    /// Names of what is locked.
    fn locks(&self) -> Vec<String>;
    /// Committed balances by account; none if it is no bank, or down.
    fn balances(&self) -> BTreeMap<String, u64>;
}

/// How the world looks at a process of one type.
pub(super) struct Lens<P: Process> {
    pub(super) request: fn(&P, Ticket, &Asked) -> Option<P::Request>,
    pub(super) locks: fn(&P) -> Vec<String>,
    pub(super) balances: fn(&P) -> BTreeMap<String, u64>,
}

/// A process of the bank's world on its disk.
pub(super) type Player<P> = Host<P, Told, Lens<P>>;

impl<P: Process<Base = ()>> Actor for Player<P> {
    fn ask(&mut self, now: Time, ticket: Ticket, asked: &Asked, out: &mut Vec<Effect<Told>>) -> bool {
        let request = self.process().and_then(|process| (self.view.request)(process, ticket, asked));
        let is_taken = request.is_some();
        request.into_iter().for_each(|request| self.request(now, request, out));
        is_taken
    }

    fn locks(&self) -> Vec<String> {
        self.process().map(self.view.locks).unwrap_or_default()
    }

    fn balances(&self) -> BTreeMap<String, u64> {
        self.process().map(self.view.balances).unwrap_or_default()
    }
}
