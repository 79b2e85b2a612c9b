//! What people decide about promises whose coordinator does not come back.

use super::HostedError;
use super::{host::Host, inspector};
use crate::member::add;
use crate::outside::Damage;
use std::collections::BTreeMap;
use std::rc::Rc;
use synod_node::spaces::SpaceId;
use synod_protocols::commit::{Coordinator, Decision, ParticipantEvent, ParticipantRequest, TxnId};
use synod_protocols::log::{ReplicatedLog, Ticket};
use synod_protocols::{Input, NodeId, Time};
use tokio::sync::oneshot;

/// One such decision.
pub(crate) struct Ruling {
    pub(super) participant: NodeId,
    pub(super) txn: TxnId,
    pub(super) decision: Decision,
    pub(super) answer: oneshot::Sender<Result<(), HostedError>>,
}

/// Who waits for one to be durable. One whose participant's life ends meanwhile is told when its time is up.
#[derive(Default)]
pub(super) struct Rulings {
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<(), HostedError>>>,
    last: u64,
}

impl Rulings {
    fn take(&mut self, answer: oneshot::Sender<Result<(), HostedError>>) -> Ticket {
        self.waiting.retain(|_, answer| !answer.is_closed());
        self.last += 1;
        self.waiting.insert(Ticket(self.last), answer);
        Ticket(self.last)
    }

    fn answer(&mut self, ticket: Ticket, outcome: Result<(), HostedError>) {
        if let Some(answer) = self.waiting.remove(&ticket) {
            // Who does not wait any more was told that the outcome is not known.
            let _ = answer.send(outcome);
        }
    }

    /// Another member leads now: whether it was done is not known here.
    pub(super) fn end(&mut self) {
        for answer in std::mem::take(&mut self.waiting).into_values() {
            let _ = answer.send(Err(HostedError::UnknownOutcome));
        }
    }
}

fn refused(why: String) -> HostedError {
    HostedError::Refused { code: "not-in-doubt", why }
}

impl<P: ReplicatedLog + 'static> Host<P> {
    pub(super) fn on_ruling(&mut self, now: Time, ruling: Ruling) {
        let Ruling { participant, txn, decision, answer } = ruling;
        if !self.leads {
            let _ = answer.send(Err(HostedError::NotLeader));
            return;
        }
        let open = self.coordinator.running().into_iter().flat_map(Coordinator::transactions);
        if let Some(open) = open.into_iter().find(|open| open.txn == txn) {
            let phase = inspector::state(open.phase);
            let why = format!(
                "{txn}: its coordinator is here and at work on it ({phase}), so that nobody has to guess"
            );
            let _ = answer.send(Err(refused(why)));
            return;
        }
        let space = SpaceId(participant.0);
        if self.is_keyspace(space) {
            let ticket = self.rulings.take(answer);
            let request = ParticipantRequest::Resolve { ticket, txn, decision };
            return self.participate(now, space, Input::Request(request));
        }
        let member = Rc::clone(&self.member);
        let database = {
            let core = member.core.borrow();
            self.agents.database(core.node.machine().registry(), participant)
        };
        let Some(database) = database else {
            let _ = answer.send(Err(refused("it promises nothing: it takes part in sagas only".into())));
            return;
        };
        tokio::task::spawn_local(async move {
            let outcome = match database.resolve(txn, decision).await {
                Ok(Ok(())) => {
                    member.log(&format!("{txn} was ended in {} by hand: {decision}", database.url()));
                    Ok(())
                }
                Ok(Err(why)) => Err(refused(format!("{txn}: {why}"))),
                Err(why) => Err(HostedError::Refused { code: "cannot-take-part", why }),
            };
            let _ = answer.send(outcome);
        });
    }

    /// What a keyspace tells.
    pub(super) fn on_told(&mut self, space: SpaceId, event: ParticipantEvent) {
        let name = |txn: TxnId| {
            let names = self.names();
            let space = names.get(&NodeId(space.0)).cloned().unwrap_or_default();
            format!("{txn} in the keyspace `{space}`")
        };
        match event {
            ParticipantEvent::Resolved { ticket, txn, decision } => {
                self.member.log(&format!("{} was ended by hand: {decision}", name(txn)));
                self.rulings.answer(ticket, Ok(()));
            }
            ParticipantEvent::NotResolved { ticket, txn, why } => {
                self.rulings.answer(ticket, Err(refused(format!("{txn}: {why}"))));
            }
            ParticipantEvent::HeuristicDamage { txn, here, decided } => {
                self.on_damage(NodeId(space.0), Damage { txn, here: Some(here), decided });
            }
            ParticipantEvent::Prepared { .. } | ParticipantEvent::Ended { .. } => {}
        }
    }

    /// A transaction has ended otherwise at a participant than its coordinator has decided.
    pub(super) fn on_damage(&mut self, participant: NodeId, damage: Damage) {
        let Damage { txn, here, decided } = damage;
        add(&self.member.counters.heuristic_damage, 1);
        let place = self.names().get(&participant).cloned().unwrap_or_else(|| participant.to_string());
        let how = match here {
            Some(here) => format!("was ended otherwise at `{place}` ({here})"),
            None => format!("is neither prepared nor marked at `{place}`"),
        };
        self.member.log(&format!(
            "HEURISTIC DAMAGE: {txn} {how}, and its coordinator has decided {decided}: it is not atomic any more. Compare the \
             data of its participants, and mend them by hand"
        ));
    }
}
