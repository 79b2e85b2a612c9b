//! What a person decides about a promise whose coordinator does not come back: a *heuristic decision* (X/Open, *Distributed
//! Transaction Processing: The XA Specification*, 1991).
//!
//! It is a guess. It is recorded as one, it is told to nobody who asks, and the participant goes on asking how the
//! transaction has ended. When it hears that, the guess was right and is forgotten, or it was wrong: that is *heuristic
//! damage*, which is recorded, told to the host, and remembered. Nothing mends it but people.
//!
//! A commit that is heard is acknowledged in both cases: the acknowledgement says that the decision was heard, so that the
//! coordinator may forget it. The damage is durable before it leaves.

use super::super::{Decision, Message, TxnId};
use super::{Branch, End, Participant, ParticipantEvent, Peer, Record, Refusal, Resource};
use crate::contract::Effects;
use crate::log::Ticket;
use crate::types::{NodeId, Time};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// Decisions of people that are remembered: those that nobody has confirmed, and those that did damage.
const BY_HAND_MAX: usize = 1_024;
/// How many times as long as one in doubt such a participant waits before it asks.
const PATIENCE: u32 = 8;

/// What a person asks of a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParticipantRequest {
    /// To end what is in doubt, without its coordinator's word. Answered by [`ParticipantEvent::Resolved`] or
    /// [`ParticipantEvent::NotResolved`].
    Resolve {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Which transaction.
        txn: TxnId,
        /// How.
        decision: Decision,
    },
}

/// Why a transaction was not ended by hand. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotResolve {
    /// It has done nothing here, or that is forgotten.
    Unknown,
    /// It has promised nothing here yet, so it ends by itself.
    NotInDoubt,
    /// It has ended here.
    Over {
        /// How.
        decision: Decision,
    },
    /// As many decisions of people are remembered as may be.
    TooMany,
}

impl fmt::Display for CannotResolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CannotResolve::Unknown => {
                f.write_str("it is not known here: it did nothing here, or is over and forgotten")
            }
            CannotResolve::NotInDoubt => {
                f.write_str("it is not in doubt: it has promised nothing here, and ends by itself")
            }
            CannotResolve::Over { decision } => write!(f, "it is over here: {decision}"),
            CannotResolve::TooMany => {
                write!(f, "{BY_HAND_MAX} decisions of people are remembered here already")
            }
        }
    }
}

/// A transaction that a person has ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// Which.
    pub txn: TxnId,
    /// How.
    pub decision: Decision,
    /// Whether it has ended otherwise elsewhere. If not, that is not known here yet.
    pub is_damage: bool,
}

/// What is remembered of it.
#[derive(Clone, Debug, Hash)]
pub(super) struct Guess {
    pub(super) decision: Decision,
    pub(super) is_damage: bool,
    /// What the promise's vote said.
    answer: Bytes,
    addresses: Vec<NodeId>,
    peers: Vec<Peer>,
    /// When it asks.
    deadline: Time,
}

impl Guess {
    pub(super) fn record(&self, txn: TxnId) -> Record {
        let Guess { decision, answer, addresses, peers, .. } = self.clone();
        Record::ByHand { txn, decision, answer, addresses, peers }
    }

    pub(super) fn answer(&self) -> Bytes {
        self.answer.clone()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.is_damage).then_some(self.deadline)
    }

    fn is_peer(&self, id: NodeId) -> bool {
        self.peers.iter().any(|peer| peer.id == id)
    }
}

impl<R: Resource> Participant<R> {
    /// What people have ended here and nobody has confirmed, in ascending order.
    pub fn by_hand(&self) -> Vec<ByHand> {
        let shown = |(txn, guess): (&TxnId, &Guess)| ByHand {
            txn: *txn,
            decision: guess.decision,
            is_damage: guess.is_damage,
        };
        self.by_hand.iter().map(shown).collect()
    }

    pub(super) fn on_request(&mut self, now: Time, request: ParticipantRequest, out: &mut Effects<Self>) {
        let ParticipantRequest::Resolve { ticket, txn, decision } = request;
        if let Err(why) = self.may_resolve(txn) {
            return out.event(ParticipantEvent::NotResolved { ticket, txn, why });
        }
        let Some(Branch { mut answers, addresses, peers, .. }) = self.branches.remove(&txn) else { return };
        let answer = answers.pop().unwrap_or_default();
        let deadline = now + self.config.ask * PATIENCE;
        let guess = Guess { decision, is_damage: false, answer, addresses, peers, deadline };
        out.record(guess.record(txn));
        match decision {
            Decision::Commit => self.resource.commit(txn),
            Decision::Abort => self.resource.abort(txn),
        }
        self.remember_guess(txn, guess);
        out.event(ParticipantEvent::Ended { txn, decision });
        out.event(ParticipantEvent::Resolved { ticket, txn, decision });
    }

    fn may_resolve(&self, txn: TxnId) -> Result<(), CannotResolve> {
        match (self.branches.get(&txn), self.ended.get(&txn)) {
            (Some(branch), _) if !branch.is_prepared => Err(CannotResolve::NotInDoubt),
            (Some(_), _) if self.by_hand.len() >= BY_HAND_MAX => Err(CannotResolve::TooMany),
            (Some(_), _) => Ok(()),
            (None, Some(End::Committed { .. })) => Err(CannotResolve::Over { decision: Decision::Commit }),
            (None, Some(End::Aborted { .. })) => Err(CannotResolve::Over { decision: Decision::Abort }),
            (None, Some(End::ReadOnly)) => Err(CannotResolve::NotInDoubt),
            (None, None) => Err(CannotResolve::Unknown),
        }
    }

    fn remember_guess(&mut self, txn: TxnId, guess: Guess) {
        if !self.is_below_floor(txn) {
            let end = match guess.decision {
                Decision::Commit => End::Committed { answer: Bytes::new() },
                Decision::Abort => End::Aborted { why: Refusal::Over, is_durable: true },
            };
            self.ended.insert(txn, end);
        }
        self.by_hand.insert(txn, guess);
    }

    pub(super) fn restore_guess(
        &mut self,
        now: Time,
        txn: TxnId,
        (decision, answer): (Decision, Bytes),
        (addresses, peers): (Vec<NodeId>, Vec<Peer>),
    ) {
        // Without its promise it comes from a checkpoint, whose values hold what it did.
        if let Some(branch) = self.branches.remove(&txn)
            && decision == Decision::Commit
            && !self.config.is_kept
        {
            self.redo(txn, &branch.work);
            self.resource.commit(txn);
        }
        let guess =
            Guess { decision, is_damage: false, answer, addresses, peers, deadline: now + self.config.ask };
        self.remember_guess(txn, guess);
    }

    /// Somebody who knows has said how the transaction ended. Returns whether a person had decided it here.
    pub(super) fn compare(&mut self, txn: TxnId, decision: Decision, out: &mut Effects<Self>) -> bool {
        let Some(guess) = self.by_hand.get_mut(&txn) else { return false };
        if guess.decision != decision {
            if !guess.is_damage {
                guess.is_damage = true;
                let here = guess.decision;
                out.record(Record::Damage { txn });
                out.event(ParticipantEvent::HeuristicDamage { txn, here, decided: decision });
            }
        } else if !guess.is_damage {
            self.by_hand.remove(&txn);
            out.record(match decision {
                Decision::Commit => Record::Committed { txn },
                Decision::Abort => Record::Aborted { txn },
            });
        }
        true
    }

    /// What the coordinator has closed without a commit that this one acknowledged has aborted.
    pub(super) fn compare_closed(&mut self, coordinator: NodeId, out: &mut Effects<Self>) {
        let is_closed = |(txn, guess): &(&TxnId, &Guess)| {
            txn.coordinator == coordinator && !guess.is_damage && self.is_below_floor(**txn)
        };
        let closed: Vec<TxnId> = self.by_hand.iter().filter(is_closed).map(|(txn, _)| *txn).collect();
        for txn in closed {
            self.compare(txn, Decision::Abort, out);
        }
    }

    /// What another participant tells about a transaction that a person has decided here.
    pub(super) fn compare_told(
        &mut self,
        from: NodeId,
        (txn, decision): (TxnId, Decision),
        out: &mut Effects<Self>,
    ) -> bool {
        let is_asked = self.by_hand.get(&txn).is_some_and(|guess| guess.is_peer(from));
        is_asked && self.compare(txn, decision, out)
    }

    /// It is still not known here whether they were right.
    pub(super) fn ask_about_guesses(&mut self, now: Time, out: &mut Effects<Self>) {
        for (txn, guess) in &mut self.by_hand {
            if guess.deadline().is_some_and(|deadline| now >= deadline) {
                guess.deadline = now + self.config.ask * PATIENCE;
                let asks = super::asks(&guess.addresses, &guess.peers);
                asks.for_each(|(to, life)| out.send(to, Message::Ask { txn: *txn, life }));
            }
        }
    }
}
