//! What replicas say to each other, in the paper's words, and its encoding.

use super::OpNumber;
use super::record::{Entry, VIEW_MAX, ViewNumber, decode_entries, encode_entries};
use crate::contract::Describe;
use crate::log::Index;
use crate::wire::{DecodeError, Reader, Wire, put_varint};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A message of Viewstamped Replication's. Section numbers are those of the technical report.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// I lost the primary: would you follow me into this view? Changes nothing at the receiver.
    /// (Not in the paper.)
    PreViewChange {
        /// The sender's next view.
        view: ViewNumber,
    },
    /// I would: I lost the primary too. Together these are the paper's f StartViewChanges.
    PreViewChangeOk {
        /// As asked.
        view: ViewNumber,
    },
    /// What you say is of a view that I have left.
    NewerView {
        /// The sender's view.
        view: ViewNumber,
    },
    /// From the primary of a view to be: leave your view and send me a DoViewChange. (4.2.)
    StartViewChange {
        /// The view to start.
        view: ViewNumber,
        /// The view whose primary asked for it: those who are in that view need not be loyal to it. View
        /// 0 of the epoch if the primary of the epoch before did.
        transfer: Option<ViewNumber>,
    },
    /// To the primary of the new view: what I have. (4.2.)
    DoViewChange(DoViewChange),
    /// From the primary of the new view: it is started. (4.2.)
    StartView(NewState),
    /// From the primary: make these durable. (4.1.)
    Prepare {
        /// The primary's view.
        view: ViewNumber,
        /// Its commit-number.
        commit: OpNumber,
        /// Its latest round of confirming its view for reads; echoed in the answer.
        round: u64,
        /// The operations.
        suffix: Suffix,
    },
    /// The sender's disk holds the primary's log up to `op`, and that it was normal in `view`. To
    /// oneself: one's own disk does. (4.1.)
    PrepareOk {
        /// The sender's view.
        view: ViewNumber,
        /// The last operation held.
        op: OpNumber,
        /// As received.
        round: u64,
    },
    /// From the primary, when it has nothing to prepare: I am here, and this is committed. (4.1.)
    Commit {
        /// The primary's view.
        view: ViewNumber,
        /// The last operation that it has sent to the receiver: whoever lacks it has lost something.
        op: OpNumber,
        /// The view of the entry there.
        op_view: ViewNumber,
        /// The primary's commit-number.
        commit: OpNumber,
        /// As in Prepare.
        round: u64,
        /// Whether it wants a PrepareOk: not if it only tells of a commit.
        reply: bool,
    },
    /// To the primary, or from the primary of a view to be to the replica with the best log: send
    /// me what follows. With view 0 of an epoch, to anybody who knows it: send me what the epoch
    /// before ended with. (5.2, 7.1.)
    GetState {
        /// The sender's view.
        view: ViewNumber,
        /// The last position at which the logs may agree.
        op: OpNumber,
        /// The view of the sender's entry there.
        op_view: ViewNumber,
        /// As received last.
        round: u64,
    },
    /// The answer to GetState. (5.2.)
    NewState(NewState),
    /// The answer to GetState if what follows has been cut off: fetch my checkpoint first. (5.1, 5.2.)
    Checkpoint {
        /// The sender's view.
        view: ViewNumber,
        /// What its checkpoint covers at the least.
        op: OpNumber,
    },
    /// From the primary: start this view, whose primary you are. (Not in the paper.)
    TakeOver {
        /// The receiver's next view.
        view: ViewNumber,
    },
    /// From a backup: up to where must I have applied, to serve reads that arrived by now?
    ReadAt {
        /// The backup's number for all reads that wait for this answer. It starts at a random
        /// number in every life, so that an answer meant for an earlier life is not taken.
        batch: u64,
    },
    /// The answer to ReadAt.
    ReadAtOk {
        /// As asked.
        batch: u64,
        /// The op-number to have applied; `None` if the one asked is not the primary.
        op: Option<OpNumber>,
    },
    /// From a replica that lost a part of its log, to the primary: where does yours end? (4.3.)
    Recovery {
        /// x: a random number of this life's, so that no answer to an earlier one is taken.
        nonce: u64,
    },
    /// The answer to Recovery. (4.3.)
    RecoveryResponse {
        /// The primary's view.
        view: ViewNumber,
        /// As asked.
        nonce: u64,
        /// The primary's op-number.
        op: OpNumber,
    },
    /// The epoch has begun: whoever lacks what the one before ended with may ask me for it. To the
    /// replicas of the new epoch from those who know, to anybody else who speaks of an earlier one. (7.1.)
    StartEpoch {
        /// View 0 of the epoch.
        view: ViewNumber,
        /// A position, at or after the last of the epoch before, up to which all is committed.
        op: OpNumber,
        /// The view of the entry there.
        op_view: ViewNumber,
    },
    /// To a replica that was replaced: I am normal in the epoch, and do not need you any more. (7.1.)
    EpochStarted {
        /// View 0 of the epoch.
        view: ViewNumber,
    },
}

impl Message {
    /// The view that it is of, or view 0 of its epoch.
    pub(super) fn view(&self) -> Option<ViewNumber> {
        match self {
            Message::PreViewChange { view }
            | Message::PreViewChangeOk { view }
            | Message::NewerView { view }
            | Message::StartViewChange { view, .. }
            | Message::PrepareOk { view, .. }
            | Message::GetState { view, .. }
            | Message::Checkpoint { view, .. }
            | Message::Commit { view, .. }
            | Message::RecoveryResponse { view, .. }
            | Message::StartEpoch { view, .. }
            | Message::EpochStarted { view }
            | Message::Prepare { view, .. }
            | Message::TakeOver { view } => Some(*view),
            Message::StartView(state) | Message::NewState(state) => Some(state.view),
            Message::DoViewChange(state) => Some(state.view),
            Message::ReadAt { .. } | Message::ReadAtOk { .. } | Message::Recovery { .. } => None,
        }
    }

    /// Whether its view-number is such as replicas count, and its entries such as a log holds.
    pub(super) fn is_plausible(&self) -> bool {
        let Some(view) = self.view() else { return true };
        let suffix = match self {
            Message::Prepare { suffix, .. } => Some(suffix),
            Message::StartView(state) | Message::NewState(state) => Some(&state.suffix),
            Message::DoViewChange(state) => Some(&state.suffix),
            _ => None,
        };
        let possible = |suffix: &Suffix| suffix.is_possible() && suffix.last_view() <= view;
        view <= VIEW_MAX && suffix.is_none_or(possible)
    }
}

/// A part of a log: entries that follow right after a position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suffix {
    /// The position before the entries.
    pub after: OpNumber,
    /// The view of the entry there. Logs that agree on it agree on everything before.
    pub after_view: ViewNumber,
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Suffix {
    /// The last position that it speaks of.
    pub(super) fn last(&self) -> OpNumber {
        Index(self.after.0 + self.entries.len() as u64)
    }

    /// The view of the entry there.
    pub(super) fn last_view(&self) -> ViewNumber {
        self.entries.last().map_or(self.after_view, |entry| entry.view)
    }

    /// Whether some log can hold it: views ascend, and nothing comes before the first position.
    pub(super) fn is_possible(&self) -> bool {
        let mut view = self.after_view;
        let mut ascending =
            self.entries.iter().map(|entry| core::mem::replace(&mut view, entry.view) <= entry.view);
        ascending.all(|ascends| ascends)
            && (self.after > Index::ZERO || self.after_view == ViewNumber(0))
            && self.after.0.checked_add(self.entries.len() as u64).is_some_and(|last| last < u64::MAX)
    }
}

/// The arguments of DoViewChange.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DoViewChange {
    /// The view to start.
    pub view: ViewNumber,
    /// The last view in which the sender was normal (v′).
    pub last_normal: ViewNumber,
    /// The sender's op-number (n).
    pub op: OpNumber,
    /// The view of its last entry.
    pub op_view: ViewNumber,
    /// The sender's commit-number (k).
    pub commit: OpNumber,
    /// The end of the sender's log: what it does not know to be committed, as far as it fits into
    /// a message. What else the new primary lacks it gets by GetState.
    pub suffix: Suffix,
}

/// The arguments of StartView and NewState.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewState {
    /// The sender's view.
    pub view: ViewNumber,
    /// The op-number with which the view starts: whoever has less is not normal in it.
    pub start: OpNumber,
    /// The sender's commit-number.
    pub commit: OpNumber,
    /// As in Prepare.
    pub round: u64,
    /// The end of the log, or as much of it as fits into a message.
    pub suffix: Suffix,
}

impl Wire for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |kind: u8, numbers: &[u64]| {
            out.push(kind);
            numbers.iter().for_each(|number| put_varint(out, *number));
        };
        match self {
            Message::PreViewChange { view } => put(1, &[view.0]),
            Message::PreViewChangeOk { view } => put(2, &[view.0]),
            Message::NewerView { view } => put(3, &[view.0]),
            Message::StartViewChange { view, transfer } => {
                put(4, &[view.0, transfer.map_or(0, |view| view.0 + 1)])
            }
            Message::DoViewChange(DoViewChange { view, last_normal, op, op_view, commit, suffix }) => {
                put(5, &[view.0, last_normal.0, op.0, op_view.0, commit.0]);
                encode_suffix(suffix, out);
            }
            Message::StartView(state) => encode_state(6, state, out),
            Message::Prepare { view, commit, round, suffix } => {
                put(7, &[view.0, commit.0, *round]);
                encode_suffix(suffix, out);
            }
            Message::PrepareOk { view, op, round } => put(8, &[view.0, op.0, *round]),
            Message::Commit { view, op, op_view, commit, round, reply } => {
                put(9, &[view.0, op.0, op_view.0, commit.0, *round, u64::from(*reply)]);
            }
            Message::GetState { view, op, op_view, round } => put(10, &[view.0, op.0, op_view.0, *round]),
            Message::NewState(state) => encode_state(11, state, out),
            Message::Checkpoint { view, op } => put(12, &[view.0, op.0]),
            Message::TakeOver { view } => put(13, &[view.0]),
            Message::ReadAt { batch } => put(14, &[*batch]),
            Message::ReadAtOk { batch, op: Some(op) } => put(15, &[*batch, 1, op.0]),
            Message::ReadAtOk { batch, op: None } => put(15, &[*batch, 0]),
            Message::Recovery { nonce } => put(16, &[*nonce]),
            Message::RecoveryResponse { view, nonce, op } => put(17, &[view.0, *nonce, op.0]),
            Message::StartEpoch { view, op, op_view } => put(18, &[view.0, op.0, op_view.0]),
            Message::EpochStarted { view } => put(19, &[view.0]),
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match input.byte("message kind")? {
            1 => Message::PreViewChange { view: view(input)? },
            2 => Message::PreViewChangeOk { view: view(input)? },
            3 => Message::NewerView { view: view(input)? },
            4 => Message::StartViewChange { view: view(input)?, transfer: transfer(input)? },
            5 => Message::DoViewChange(DoViewChange {
                view: view(input)?,
                last_normal: ViewNumber(input.varint("last normal view")?),
                op: op(input)?,
                op_view: view(input)?,
                commit: Index(input.varint("commit-number")?),
                suffix: decode_suffix(input)?,
            }),
            6 => Message::StartView(decode_state(input)?),
            7 => Message::Prepare {
                view: view(input)?,
                commit: Index(input.varint("commit-number")?),
                round: input.varint("round")?,
                suffix: decode_suffix(input)?,
            },
            8 => Message::PrepareOk { view: view(input)?, op: op(input)?, round: input.varint("round")? },
            9 => Message::Commit {
                view: view(input)?,
                op: op(input)?,
                op_view: view(input)?,
                commit: Index(input.varint("commit-number")?),
                round: input.varint("round")?,
                reply: input.flag("reply")?,
            },
            10 => Message::GetState {
                view: view(input)?,
                op: op(input)?,
                op_view: view(input)?,
                round: input.varint("round")?,
            },
            11 => Message::NewState(decode_state(input)?),
            12 => Message::Checkpoint { view: view(input)?, op: op(input)? },
            13 => Message::TakeOver { view: view(input)? },
            14 => Message::ReadAt { batch: input.varint("batch")? },
            15 => {
                let batch = input.varint("batch")?;
                let op = if input.flag("answered")? { Some(op(input)?) } else { None };
                Message::ReadAtOk { batch, op }
            }
            16 => Message::Recovery { nonce: input.varint("nonce")? },
            17 => Message::RecoveryResponse {
                view: view(input)?,
                nonce: input.varint("nonce")?,
                op: op(input)?,
            },
            18 => Message::StartEpoch { view: view(input)?, op: op(input)?, op_view: view(input)? },
            19 => Message::EpochStarted { view: view(input)? },
            kind => return Err(DecodeError::Invalid { what: "message kind", value: u64::from(kind) }),
        })
    }
}

fn view(input: &mut Reader) -> Result<ViewNumber, DecodeError> {
    input.varint("view-number").map(ViewNumber)
}

fn transfer(input: &mut Reader) -> Result<Option<ViewNumber>, DecodeError> {
    Ok(input.varint("view that is left")?.checked_sub(1).map(ViewNumber))
}

fn op(input: &mut Reader) -> Result<OpNumber, DecodeError> {
    input.varint("op-number").map(Index)
}

fn encode_suffix(suffix: &Suffix, out: &mut Vec<u8>) {
    put_varint(out, suffix.after.0);
    put_varint(out, suffix.after_view.0);
    encode_entries(&suffix.entries, out);
}

fn decode_suffix(input: &mut Reader) -> Result<Suffix, DecodeError> {
    Ok(Suffix { after: op(input)?, after_view: view(input)?, entries: decode_entries(input)? })
}

fn encode_state(kind: u8, state: &NewState, out: &mut Vec<u8>) {
    out.push(kind);
    for number in [state.view.0, state.start.0, state.commit.0, state.round] {
        put_varint(out, number);
    }
    encode_suffix(&state.suffix, out);
}

fn decode_state(input: &mut Reader) -> Result<NewState, DecodeError> {
    Ok(NewState {
        view: view(input)?,
        start: op(input)?,
        commit: Index(input.varint("commit-number")?),
        round: input.varint("round")?,
        suffix: decode_suffix(input)?,
    })
}

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::PreViewChange { .. } => "PreViewChange",
            Message::PreViewChangeOk { .. } => "PreViewChangeOk",
            Message::NewerView { .. } => "NewerView",
            Message::StartViewChange { .. } => "StartViewChange",
            Message::DoViewChange(_) => "DoViewChange",
            Message::StartView(_) => "StartView",
            Message::Prepare { .. } => "Prepare",
            Message::PrepareOk { .. } => "PrepareOk",
            Message::Commit { .. } => "Commit",
            Message::GetState { .. } => "GetState",
            Message::NewState(_) => "NewState",
            Message::Checkpoint { .. } => "Checkpoint",
            Message::TakeOver { .. } => "TakeOver",
            Message::ReadAt { .. } => "ReadAt",
            Message::ReadAtOk { .. } => "ReadAtOk",
            Message::Recovery { .. } => "Recovery",
            Message::RecoveryResponse { .. } => "RecoveryResponse",
            Message::StartEpoch { .. } => "StartEpoch",
            Message::EpochStarted { .. } => "EpochStarted",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::PreViewChange { view }
            | Message::PreViewChangeOk { view }
            | Message::NewerView { view }
            | Message::StartViewChange { view, transfer: None }
            | Message::TakeOver { view } => format!("view {view}"),
            Message::StartViewChange { view, transfer: Some(_) } => {
                format!("view {view}, as asked by its primary")
            }
            Message::DoViewChange(DoViewChange { view, last_normal, op, op_view, commit, suffix }) => {
                let suffix = suffix.entries.len();
                format!(
                    "view {view}, last normal {last_normal}, log {op}@{op_view}, commit {commit}, {}",
                    entries(suffix)
                )
            }
            Message::StartView(state) | Message::NewState(state) => {
                let NewState { view, start, commit, suffix, .. } = state;
                format!("view {view}, starts with {start}, {}, commit {commit}", after(suffix))
            }
            Message::Prepare { view, commit, suffix, .. } => {
                format!("view {view}, {}, commit {commit}", after(suffix))
            }
            Message::PrepareOk { view, op, .. } => format!("view {view}, up to {op}"),
            Message::Commit { view, op, op_view, commit, .. } => {
                format!("view {view}, log {op}@{op_view}, commit {commit}")
            }
            Message::GetState { view, op, op_view, .. } => format!("view {view}, after {op}@{op_view}"),
            Message::Checkpoint { view, op } => format!("view {view}, covers {op}"),
            Message::StartEpoch { view, op, op_view } => {
                format!("epoch {}, committed up to {op}@{op_view}", view.epoch_number().0)
            }
            Message::EpochStarted { view } => format!("epoch {}", view.epoch_number().0),
            Message::ReadAt { batch } => format!("batch {batch}"),
            Message::Recovery { nonce } => format!("nonce {nonce}"),
            Message::RecoveryResponse { view, nonce, op } => format!("view {view}, nonce {nonce}, log {op}"),
            Message::ReadAtOk { batch, op } => {
                let op = op.map_or("not the primary".to_string(), |op| format!("apply {op}"));
                format!("batch {batch}, {op}")
            }
        }
    }
}

fn after(suffix: &Suffix) -> String {
    let Suffix { after, after_view, entries: list } = suffix;
    format!("after {after}@{after_view}, {}", entries(list.len()))
}

fn entries(count: usize) -> String {
    match count {
        1 => "1 entry".to_string(),
        count => format!("{count} entries"),
    }
}
