//! What coordinator and participants say to each other, and what they make durable.

use super::resource::Refusal;
use super::{Decision, TxnId};
use crate::contract::Describe;
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// What everything that a coordinator says begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The coordinator's life. A participant that has heard of a later one obeys no earlier one.
    pub epoch: u64,
    /// Transactions of this coordinator below this one are over: aborted, or committed everywhere.
    pub floor: TxnId,
}

crate::wire_format!(struct Stamp { epoch, floor });

/// Another participant of a transaction, who may know the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Who.
    pub id: NodeId,
    /// The life in which it did its work; 0 if its work comes with `Prepare`. In a later life it may
    /// have forgotten that it voted read-only, and cannot say that it never voted.
    pub life: u64,
}

crate::wire_format!(struct Peer { id, life });

/// A participant's answer to `Prepare`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Vote {
    /// It will commit or abort as it is told, whatever happens to it meanwhile.
    Yes {
        /// What its work read, if the work came with `Prepare`.
        answer: Bytes,
    },
    /// It changed nothing, and wants to hear no more of it.
    ReadOnly,
    /// It cannot, and has forgotten the transaction.
    No {
        /// Why.
        why: Refusal,
    },
}

crate::wire_format!(enum Vote { 1 => Yes { answer }, 2 => ReadOnly, 3 => No { why } });

impl Wire for Decision {
    fn encode(&self, out: &mut Vec<u8>) {
        (*self == Decision::Commit).encode(out);
    }

    fn decode(input: &mut Reader) -> Result<Decision, DecodeError> {
        Ok(if input.flag("decision")? { Decision::Commit } else { Decision::Abort })
    }
}

/// A message of two-phase commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Coordinator to participant: do this, as the next piece of the transaction's work.
    Work {
        /// Whose order it is.
        stamp: Stamp,
        /// For which transaction.
        txn: TxnId,
        /// Which piece, counted from 0, so that none is done twice.
        sequence: u64,
        /// Where to ask for the outcome.
        addresses: Vec<NodeId>,
        /// What.
        work: Bytes,
    },
    /// Participant to coordinator: the piece is done; a refused one is answered by a no vote.
    Worked {
        /// For which transaction.
        txn: TxnId,
        /// Which piece.
        sequence: u64,
        /// The participant's life: another one has lost this work, and its locks.
        life: u64,
        /// What it read.
        answer: Bytes,
    },
    /// Phase 1: promise to do as you will be told.
    Prepare {
        /// Whose order it is.
        stamp: Stamp,
        /// Which transaction.
        txn: TxnId,
        /// Where to ask for the outcome.
        addresses: Vec<NodeId>,
        /// The other participants, who may know the outcome.
        peers: Vec<Peer>,
        /// The life in which the participant did its work; 0 if it comes now.
        life: u64,
        /// The work, if it was not sent before.
        work: Option<Bytes>,
    },
    /// The answer to `Prepare`.
    Vote {
        /// Which transaction.
        txn: TxnId,
        /// What.
        vote: Vote,
    },
    /// The only participant decides for itself.
    OnePhase {
        /// Whose order it is.
        stamp: Stamp,
        /// Which transaction.
        txn: TxnId,
        /// The life in which the participant did its work; 0 if it comes now.
        life: u64,
        /// The work, if it was not sent before.
        work: Option<Bytes>,
    },
    /// What the only participant has decided, durably.
    Finished {
        /// Which transaction.
        txn: TxnId,
        /// What it read if it committed, why not if it aborted.
        outcome: Outcome,
    },
    /// Phase 2.
    Decide {
        /// Whose order it is.
        stamp: Stamp,
        /// Which transaction.
        txn: TxnId,
        /// What.
        decision: Decision,
    },
    /// The commit is durable here: no need to say it again.
    Ack {
        /// Which transaction.
        txn: TxnId,
    },
    /// A participant in doubt asks the coordinator and the other participants.
    Ask {
        /// Which transaction.
        txn: TxnId,
        /// The life in which the one that is asked did its work; 0 if it came with `Prepare`.
        life: u64,
    },
    /// A participant that knows tells one that asked.
    Tell {
        /// Which transaction.
        txn: TxnId,
        /// What became of it.
        decision: Decision,
    },
    /// A participant has heard of a later life of this coordinator.
    Fenced {
        /// The coordinator.
        coordinator: NodeId,
        /// Its latest life known there.
        epoch: u64,
    },
}

crate::wire_format!(enum Message {
    1 => Work { stamp, txn, sequence, addresses, work },
    2 => Worked { txn, sequence, life, answer },
    3 => Prepare { stamp, txn, addresses, peers, life, work },
    4 => Vote { txn, vote },
    5 => OnePhase { stamp, txn, life, work },
    6 => Finished { txn, outcome },
    7 => Decide { stamp, txn, decision },
    8 => Ack { txn },
    9 => Ask { txn, life },
    10 => Tell { txn, decision },
    11 => Fenced { coordinator, epoch },
});

/// How a transaction with one participant ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It committed.
    Committed {
        /// What it read.
        answer: Bytes,
    },
    /// It aborted.
    Aborted {
        /// Why.
        why: Refusal,
    },
}

crate::wire_format!(enum Outcome { 1 => Committed { answer }, 2 => Aborted { why } });

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::Work { .. } => "Work",
            Message::Worked { .. } => "Worked",
            Message::Prepare { .. } => "Prepare",
            Message::Vote { vote: Vote::Yes { .. }, .. } => "Yes",
            Message::Vote { vote: Vote::ReadOnly, .. } => "ReadOnly",
            Message::Vote { vote: Vote::No { .. }, .. } => "No",
            Message::OnePhase { .. } => "OnePhase",
            Message::Finished { .. } => "Finished",
            Message::Decide { decision: Decision::Commit, .. } => "Commit",
            Message::Decide { decision: Decision::Abort, .. } => "Abort",
            Message::Ack { .. } => "Ack",
            Message::Ask { .. } => "Ask",
            Message::Tell { .. } => "Tell",
            Message::Fenced { .. } => "Fenced",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Work { stamp, txn, sequence, .. } => {
                format!("{txn}, piece {sequence}, epoch {}", stamp.epoch)
            }
            Message::Worked { txn, sequence, .. } => format!("{txn}, piece {sequence}"),
            Message::Prepare { stamp, txn, peers, .. } => {
                format!("{txn}, epoch {}, {} others", stamp.epoch, peers.len())
            }
            Message::Vote { txn, vote: Vote::No { why } } => format!("{txn}: {}", why.detail()),
            Message::OnePhase { stamp, txn, .. } | Message::Decide { stamp, txn, .. } => {
                format!("{txn}, epoch {}", stamp.epoch)
            }
            Message::Finished { txn, outcome: Outcome::Committed { .. } } => format!("{txn}, committed"),
            Message::Finished { txn, outcome: Outcome::Aborted { why } } => {
                format!("{txn}, aborted: {}", why.detail())
            }
            Message::Vote { txn, .. } | Message::Ack { txn } | Message::Ask { txn, .. } => format!("{txn}"),
            Message::Tell { txn, decision } => format!("{txn}, {decision}"),
            Message::Fenced { coordinator, epoch } => format!("{coordinator} is in epoch {epoch}"),
        }
    }
}

/// What a coordinator makes durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorRecord {
    /// A life begins.
    Epoch {
        /// Its number, above all before it.
        epoch: u64,
    },
    /// The transaction commits. There is no such record for an abort.
    Committed {
        /// Which.
        txn: TxnId,
        /// Who must acknowledge it.
        participants: Vec<NodeId>,
    },
    /// Everybody has acknowledged the commit.
    Ended {
        /// Which transaction.
        txn: TxnId,
    },
}

crate::wire_format!(enum CoordinatorRecord {
    1 => Epoch { epoch },
    2 => Committed { txn, participants },
    3 => Ended { txn },
});

impl Describe for CoordinatorRecord {
    fn name(&self) -> &'static str {
        match self {
            CoordinatorRecord::Epoch { .. } => "Epoch",
            CoordinatorRecord::Committed { .. } => "Committed",
            CoordinatorRecord::Ended { .. } => "Ended",
        }
    }

    fn detail(&self) -> String {
        match self {
            CoordinatorRecord::Epoch { epoch } => format!("{epoch}"),
            CoordinatorRecord::Committed { txn, participants } => format!("{txn}, {participants:?}"),
            CoordinatorRecord::Ended { txn } => format!("{txn}"),
        }
    }
}

/// What a participant makes durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantRecord {
    /// A life begins.
    Life {
        /// Its number, one above the last.
        life: u64,
    },
    /// It has heard of this life of a coordinator.
    Fence {
        /// Whose life, and what is over.
        stamp: Stamp,
    },
    /// It has voted yes.
    Prepared {
        /// Which transaction.
        txn: TxnId,
        /// What is over.
        floor: TxnId,
        /// Where to ask for the outcome.
        addresses: Vec<NodeId>,
        /// The other participants.
        peers: Vec<Peer>,
        /// What it would do.
        work: Vec<Bytes>,
    },
    /// What was prepared is kept.
    Committed {
        /// Which transaction.
        txn: TxnId,
    },
    /// The transaction has not happened here, and will not.
    Aborted {
        /// Which.
        txn: TxnId,
    },
    /// The transaction has happened here, and nowhere else.
    CommittedAlone {
        /// Which.
        txn: TxnId,
        /// What it did.
        work: Vec<Bytes>,
    },
    /// The transaction has happened here, and what it did is in a [`ParticipantRecord::State`], or kept by the host.
    Kept {
        /// Which.
        txn: TxnId,
        /// What it read, if it was decided here.
        answer: Bytes,
    },
    /// What all transactions that committed so far have made of the resource.
    State {
        /// In the resource's own encoding.
        committed: Bytes,
    },
    /// A person has decided what was prepared, without its coordinator's word. If that agrees later, a record of how it
    /// ended follows.
    ByHand {
        /// Which transaction.
        txn: TxnId,
        /// How it has ended here.
        decision: Decision,
        /// What its vote said.
        answer: Bytes,
        /// Where to ask for the outcome.
        addresses: Vec<NodeId>,
        /// The other participants.
        peers: Vec<Peer>,
    },
    /// What a person has decided has ended otherwise elsewhere.
    Damage {
        /// Which transaction.
        txn: TxnId,
    },
}

crate::wire_format!(enum ParticipantRecord {
    1 => Fence { stamp },
    2 => Prepared { txn, floor, addresses, peers, work },
    3 => Committed { txn },
    4 => Aborted { txn },
    5 => CommittedAlone { txn, work },
    6 => Life { life },
    7 => Kept { txn, answer },
    8 => State { committed },
    9 => ByHand { txn, decision, answer, addresses, peers },
    10 => Damage { txn },
});

impl Describe for ParticipantRecord {
    fn name(&self) -> &'static str {
        match self {
            ParticipantRecord::Life { .. } => "Life",
            ParticipantRecord::Fence { .. } => "Fence",
            ParticipantRecord::Prepared { .. } => "Prepared",
            ParticipantRecord::Committed { .. } => "Committed",
            ParticipantRecord::Aborted { .. } => "Aborted",
            ParticipantRecord::CommittedAlone { .. } => "CommittedAlone",
            ParticipantRecord::Kept { .. } => "Kept",
            ParticipantRecord::State { .. } => "State",
            ParticipantRecord::ByHand { .. } => "ByHand",
            ParticipantRecord::Damage { .. } => "Damage",
        }
    }

    fn detail(&self) -> String {
        match self {
            ParticipantRecord::Life { life } => format!("{life}"),
            ParticipantRecord::Fence { stamp } => {
                format!("{} epoch {}", stamp.floor.coordinator, stamp.epoch)
            }
            ParticipantRecord::Prepared { txn, .. }
            | ParticipantRecord::Committed { txn }
            | ParticipantRecord::Aborted { txn }
            | ParticipantRecord::Kept { txn, .. }
            | ParticipantRecord::Damage { txn }
            | ParticipantRecord::CommittedAlone { txn, .. } => format!("{txn}"),
            ParticipantRecord::ByHand { txn, decision, .. } => format!("{txn}, {decision}"),
            ParticipantRecord::State { committed } => format!("{} bytes", committed.len()),
        }
    }
}
