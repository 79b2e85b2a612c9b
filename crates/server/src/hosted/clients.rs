//! Clients whose transactions are under way.

use super::plan::Planned;
use super::{Ended, HostedError, Route};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_protocols::commit::{AbortReason, Coordinator, Decision, RefusalReason, TxnId};
use synod_protocols::log::{Index, Ticket};
use synod_protocols::{Describe, NodeId, Time, Wire};
use tokio::sync::oneshot;

/// Clients at one time; more are told to come later. Their transactions are bounded by the coordinator's own limit.
const CLIENTS_MAX: usize = 10_000;

/// What a client asks.
pub(crate) struct Request {
    pub(super) planned: Planned,
    pub(super) timeout: Duration,
    pub(super) answer: oneshot::Sender<Result<Ended, HostedError>>,
}

/// Who waits.
#[derive(Default)]
pub(super) struct Clients {
    waiting: BTreeMap<Ticket, Client>,
    named: BTreeMap<TxnId, Ticket>,
    /// Transactions that are committed, and perhaps not applied by all keyspaces yet.
    decided: BTreeMap<TxnId, Commit>,
    last: u64,
}

struct Client {
    answer: oneshot::Sender<Result<Ended, HostedError>>,
    names: BTreeMap<NodeId, String>,
    route: Route,
    since: Time,
    timeout: Duration,
    txn: Option<TxnId>,
    /// It was asked to give up, or is past that.
    is_given_up: bool,
}

struct Commit {
    client: Client,
    answers: BTreeMap<NodeId, Bytes>,
}

/// A client whose time is up: the coordinator is to give its transaction up, if it still can.
pub(super) struct Late {
    pub(super) ticket: Ticket,
    pub(super) txn: TxnId,
}

impl Clients {
    /// Takes a client in; its request goes to the coordinator under this ticket.
    pub(super) fn take(&mut self, now: Time, request: Request) -> Option<(Ticket, BTreeMap<NodeId, Bytes>)> {
        let Request { planned: Planned { branches, names, route }, timeout, answer } = request;
        if self.waiting.len() + self.decided.len() >= CLIENTS_MAX {
            let _ = answer.send(Err(HostedError::Busy));
            return None;
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        let client = Client { answer, names, route, since: now, timeout, txn: None, is_given_up: false };
        self.waiting.insert(ticket, client);
        Some((ticket, branches))
    }

    /// When the next one's time is up.
    pub(super) fn deadline(&self) -> Option<Time> {
        let waiting = self.waiting.values().filter(|client| !client.is_given_up);
        waiting.map(|client| client.since + client.timeout).min()
    }

    /// How long the client of a transaction waits, if one does.
    pub(super) fn age(&self, now: Time, txn: TxnId) -> Option<Duration> {
        let waiting = self.named.get(&txn).and_then(|ticket| self.waiting.get(ticket));
        waiting.or(self.decided.get(&txn).map(|commit| &commit.client)).map(|client| now.since(client.since))
    }

    /// Those whose time is up. One whose transaction has no name yet is told: that nothing was done, while the request
    /// waits for the coordinator to live (it is not carried out then); otherwise that the outcome is not known.
    pub(super) fn expire(&mut self, now: Time, coordinator_lives: bool) -> Vec<Late> {
        let is_late = |client: &Client| !client.is_given_up && client.since + client.timeout <= now;
        let late: Vec<Ticket> =
            self.waiting.iter().filter(|(_, client)| is_late(client)).map(|(ticket, _)| *ticket).collect();
        let mut found = Vec::new();
        for ticket in late {
            match self.waiting.get_mut(&ticket).map(|client| (client.txn, &mut client.is_given_up)) {
                Some((Some(txn), is_given_up)) => {
                    *is_given_up = true;
                    found.push(Late { ticket, txn });
                }
                _ if coordinator_lives => self.fail(ticket, HostedError::UnknownOutcome),
                _ => self.fail(ticket, HostedError::Unavailable),
            }
        }
        found
    }

    /// Whether the client of a request still waits: one that is held back for too long is not begun any more.
    pub(super) fn waits(&self, ticket: Ticket) -> bool {
        self.waiting.contains_key(&ticket)
    }

    pub(super) fn opened(&mut self, ticket: Ticket, txn: TxnId) {
        if let Some(client) = self.waiting.get_mut(&ticket) {
            client.txn = Some(txn);
            self.named.insert(txn, ticket);
        }
    }

    pub(super) fn refused(&mut self, ticket: Ticket, why: RefusalReason) {
        let is_given_up = self.waiting.get(&ticket).is_some_and(|client| client.is_given_up);
        let error = match why {
            // It could not be given up: its only participant decides, and does not answer.
            RefusalReason::NotOpen if is_given_up => HostedError::UnknownOutcome,
            RefusalReason::Busy => HostedError::Busy,
            RefusalReason::Size => {
                HostedError::TooLarge("the work is larger than the coordinator takes".into())
            }
            RefusalReason::Storage => HostedError::Busy,
            RefusalReason::NotOpen | RefusalReason::Deposed => HostedError::Unavailable,
        };
        self.fail(ticket, error);
    }

    fn fail(&mut self, ticket: Ticket, error: HostedError) {
        if let Some(client) = self.waiting.remove(&ticket) {
            if let Some(txn) = client.txn {
                self.named.remove(&txn);
            }
            let _ = client.answer.send(Err(error));
        }
    }

    pub(super) fn decided(
        &mut self,
        applied: Index,
        txn: TxnId,
        decision: Decision,
        answers: BTreeMap<NodeId, Bytes>,
        why: Option<AbortReason>,
    ) {
        let Some(client) = self.named.remove(&txn).and_then(|ticket| self.waiting.remove(&ticket)) else {
            return;
        };
        match decision {
            Decision::Commit => drop(self.decided.insert(txn, Commit { client, answers })),
            Decision::Abort => {
                let refusal = match &why {
                    Some(AbortReason::No { why, .. }) => Some(why.clone()),
                    _ => None,
                };
                let why = why.map(|why| explained(&why, &client));
                let (route, answers) = (client.route, BTreeMap::new());
                let ended = Ended { txn, decision, why, refusal, route, answers, index: applied };
                let _ = client.answer.send(Ok(ended));
            }
        }
    }

    /// Answers those whose commit all keyspaces of this cluster have applied.
    pub(super) fn settle(
        &mut self,
        applied: Index,
        coordinator: &Coordinator,
        is_here: impl Fn(NodeId) -> bool,
    ) {
        let is_applied = |txn: &TxnId| !coordinator.unacknowledged(*txn).any(&is_here);
        let ready: Vec<TxnId> = self.decided.keys().filter(|txn| is_applied(txn)).copied().collect();
        for txn in ready {
            let Some(Commit { client, answers }) = self.decided.remove(&txn) else { continue };
            let read = |(id, answer): (NodeId, Bytes)| {
                let name = client.names.get(&id)?.clone();
                // A participant that answers in other words has read one thing: those.
                let values = Vec::from_bytes(answer.clone()).unwrap_or_else(|_| vec![Some(answer)]);
                Some((name, values))
            };
            let answers = answers.into_iter().filter_map(read).collect();
            let (decision, route) = (Decision::Commit, client.route);
            let ended = Ended { txn, decision, why: None, refusal: None, route, answers, index: applied };
            let _ = client.answer.send(Ok(ended));
        }
    }

    /// The coordinator's life is over: what was under way may come to either end. What had no name yet was not begun,
    /// unless it waits for the next life.
    pub(super) fn life_is_over(&mut self) {
        let unnamed = |client: &Client| client.txn.is_none();
        let named: Vec<Ticket> =
            self.waiting.iter().filter(|(_, client)| !unnamed(client)).map(|(ticket, _)| *ticket).collect();
        named.into_iter().for_each(|ticket| self.fail(ticket, HostedError::UnknownOutcome));
        // A commit is decided and durable, but whoever reads now may not see it yet.
        for (_, commit) in std::mem::take(&mut self.decided) {
            let _ = commit.client.answer.send(Err(HostedError::UnknownOutcome));
        }
    }

    /// Tells everybody.
    pub(super) fn end(&mut self, unnamed: &HostedError) {
        self.life_is_over();
        for (_, client) in std::mem::take(&mut self.waiting) {
            let _ = client.answer.send(Err(unnamed.clone()));
        }
        self.named.clear();
    }
}

fn explained(why: &AbortReason, client: &Client) -> String {
    let name = |id: &NodeId| client.names.get(id).cloned().unwrap_or_else(|| id.to_string());
    match why {
        AbortReason::No { participant, why } => format!("{}: {}", name(participant), why.detail()),
        AbortReason::Silent { participant } => {
            format!("{} did not say in time whether it can commit", name(participant))
        }
        AbortReason::Asked | AbortReason::TooLong => {
            format!("it was not decided within {:?}", client.timeout)
        }
    }
}
