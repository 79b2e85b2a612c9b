//! What members say to each other, in ZooKeeper's words.

use super::record::{Entry, Zxid};
use crate::contract::Describe;
use crate::log::{Epoch, Index};
use crate::types::NodeId;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A message of Zab's. From [`Message::LeaderInfo`] on every one names the epoch of the leader
/// whose matter it is, and means the same whenever and how often it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Fast leader election: what the sender is doing, and for whom it votes.
    Notification(Notification),
    /// FOLLOWERINFO or OBSERVERINFO, the paper's CEPOCH: the sender wants to follow.
    FollowerInfo {
        /// Its acceptedEpoch.
        accepted: Epoch,
        /// Whose that epoch is.
        accepted_from: Option<NodeId>,
        /// Whether it may have forgotten what its id has promised, because it joined: neither its
        /// promise nor its acknowledgements count, whatever the configuration says.
        observer: bool,
    },
    /// LEADERINFO, the paper's NEWEPOCH: follow me in `epoch`, and nobody in an older one.
    LeaderInfo {
        /// The new epoch.
        epoch: Epoch,
    },
    /// ACKEPOCH: promised. It also tells what the sender's history is.
    AckEpoch {
        /// As received.
        epoch: Epoch,
        /// The sender's currentEpoch.
        current: Epoch,
        /// The last zxid of its history.
        last: Zxid,
    },
    /// From the prospective leader to the follower with the newest history: what follows this?
    FetchHistory {
        /// The leader's epoch.
        epoch: Epoch,
        /// Where the leader believes that both histories agree.
        after: Zxid,
    },
    /// The answer to [`Message::FetchHistory`].
    HistoryPart {
        /// As received.
        epoch: Epoch,
        /// As asked if the follower holds it; else the largest zxid it holds before that.
        after: Zxid,
        /// What follows, or the first part of it; nothing if the follower does not hold `after`.
        entries: Vec<Entry>,
        /// The last zxid of the follower's history.
        last: Zxid,
    },
    /// Synchronisation: your history is a part of mine, up to its end `after`; what is missing comes.
    Diff {
        /// The leader's epoch.
        epoch: Epoch,
        /// The end of the follower's history.
        after: Zxid,
    },
    /// Synchronisation: a history which ends with `last` agrees with mine up to `to` only; what
    /// follows `to` goes.
    Trunc {
        /// The leader's epoch.
        epoch: Epoch,
        /// The end of the follower's history, as the leader knows it.
        last: Zxid,
        /// The last zxid that stays.
        to: Zxid,
    },
    /// Synchronisation: what is missing is no longer in the sender's log; take its state at
    /// `point` or later.
    Snap {
        /// The leader's epoch.
        epoch: Epoch,
        /// What the sender's snapshot covers.
        point: Zxid,
    },
    /// The history that `epoch` begins with is complete up to `after`. It is the epoch's first
    /// proposal itself, and takes a position of its own.
    NewLeader {
        /// The new epoch.
        epoch: Epoch,
        /// The last zxid of the history it begins with.
        after: Zxid,
    },
    /// Proposals, and during synchronisation older entries.
    Propose {
        /// The leader's epoch.
        epoch: Epoch,
        /// The zxid right before the first of them.
        after: Zxid,
        /// The leader's last committed position.
        commit: Index,
        /// At least one.
        entries: Vec<Entry>,
    },
    /// The sender's disk holds the leader's history up to `index`. Where that covers NEWLEADER it
    /// acknowledges it, with all that the acknowledgement means.
    Ack {
        /// The leader's epoch.
        epoch: Epoch,
        /// The last position.
        index: Index,
    },
    /// Something is missing between what the sender holds and what it received: go on from here.
    Resync {
        /// The leader's epoch.
        epoch: Epoch,
        /// The end of the sender's history.
        last: Zxid,
        /// The largest zxid in it that is not above the one that did not fit.
        hint: Zxid,
    },
    /// The leader is established, and the receiver may serve.
    UpToDate {
        /// The leader's epoch.
        epoch: Epoch,
        /// The leader's last committed position.
        commit: Index,
    },
    /// More is committed.
    Commit {
        /// The leader's epoch.
        epoch: Epoch,
        /// The leader's last committed position.
        commit: Index,
    },
    /// The leader is there.
    Ping {
        /// The leader's epoch.
        epoch: Epoch,
        /// The leader's latest round of confirming its leadership for reads; echoed in the answer.
        round: u64,
        /// The last position sent to the receiver, so that a lost end shows.
        sent: Index,
        /// The leader's last committed position.
        commit: Index,
    },
    /// The follower's answer to a PING (ZooKeeper calls it by the same name).
    Pong {
        /// The leader's epoch.
        epoch: Epoch,
        /// As received.
        round: u64,
        /// As in [`Message::Ack`]; 0 while the histories may differ.
        index: Index,
    },
    /// From a leader that wants to be followed by another: propose yourself. What the leader then
    /// does is a matter of its [`Message::Notification`].
    TakeOver {
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// From a follower: up to where must I have applied, to serve reads that arrived by now?
    Sync {
        /// The follower's number for all reads that wait for this answer. It starts at a random
        /// number in every life, so that an answer meant for an earlier life is not taken.
        batch: u64,
    },
    /// The answer to [`Message::Sync`].
    SyncReply {
        /// As asked.
        batch: u64,
        /// The last position to have applied; `None` if the one asked does not lead.
        index: Option<Index>,
    },
    /// From a member that lost entries: where does your history end?
    RequestHistoryEnd {
        /// This life's number for the question, so that an answer meant for an earlier one is not taken.
        nonce: u64,
    },
    /// The answer of the leader to [`Message::RequestHistoryEnd`].
    HistoryEnd {
        /// As asked.
        nonce: u64,
        /// The leader's epoch.
        epoch: Epoch,
        /// Where its history ended when it answered.
        last: Index,
    },
    /// To oneself: the history up to `index` is on this member's disk.
    Stored {
        /// How often this life had cut its history when it appended that.
        cuts: u64,
        /// The last position appended.
        index: Index,
    },
}

/// What a member tells about the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The round of voting which it is in, or which made its leader.
    pub round: u64,
    /// What it is doing.
    pub state: State,
    /// For whom it votes, or whom it follows; nobody if it cannot lead and heard of no candidate.
    pub vote: Option<Vote>,
}

/// A member's part, as ZooKeeper names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It looks for a leader.
    Looking,
    /// It follows the one it names.
    Following,
    /// It leads, or is about to.
    Leading,
}

/// A candidate. Those with newer histories are larger, ties are broken by the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    /// Its currentEpoch.
    pub epoch: Epoch,
    /// The last zxid of its history.
    pub zxid: Zxid,
    /// Who it is.
    pub id: NodeId,
}

impl Message {
    /// The largest epoch, round or position in it: no honest one is out of all proportion.
    pub(super) fn largest_number(&self) -> u64 {
        let of = |zxid: &Zxid| zxid.epoch.0.max(zxid.counter.0);
        match self {
            Message::Notification(notification) => {
                notification.vote.map_or(0, |vote| vote.epoch.0.max(of(&vote.zxid))).max(notification.round)
            }
            Message::FollowerInfo { accepted: epoch, .. }
            | Message::LeaderInfo { epoch }
            | Message::TakeOver { epoch } => epoch.0,
            Message::AckEpoch { epoch, current, last } => epoch.0.max(current.0).max(of(last)),
            Message::FetchHistory { epoch, after: zxid }
            | Message::Diff { epoch, after: zxid }
            | Message::Snap { epoch, point: zxid }
            | Message::NewLeader { epoch, after: zxid } => epoch.0.max(of(zxid)),
            Message::HistoryPart { epoch, after: one, last: other, .. }
            | Message::Trunc { epoch, last: one, to: other }
            | Message::Resync { epoch, last: one, hint: other } => epoch.0.max(of(one)).max(of(other)),
            Message::Propose { epoch, after, commit, .. } => epoch.0.max(of(after)).max(commit.0),
            Message::Ack { epoch, index }
            | Message::UpToDate { epoch, commit: index }
            | Message::HistoryEnd { epoch, last: index, .. }
            | Message::Commit { epoch, commit: index } => epoch.0.max(index.0),
            Message::Ping { epoch, round, sent, commit } => epoch.0.max(*round).max(sent.0).max(commit.0),
            Message::Pong { epoch, round, index } => epoch.0.max(*round).max(index.0),
            Message::SyncReply { index, .. } => index.map_or(0, |index| index.0),
            Message::Stored { index, .. } => index.0,
            Message::Sync { .. } | Message::RequestHistoryEnd { .. } => 0,
        }
    }
}

impl Describe for Message {
    fn name(&self) -> &'static str {
        match self {
            Message::Notification(_) => "Notification",
            Message::FollowerInfo { observer: false, .. } => "FollowerInfo",
            Message::FollowerInfo { observer: true, .. } => "ObserverInfo",
            Message::LeaderInfo { .. } => "LeaderInfo",
            Message::AckEpoch { .. } => "AckEpoch",
            Message::FetchHistory { .. } => "FetchHistory",
            Message::HistoryPart { .. } => "HistoryPart",
            Message::Diff { .. } => "Diff",
            Message::Trunc { .. } => "Trunc",
            Message::Snap { .. } => "Snap",
            Message::NewLeader { .. } => "NewLeader",
            Message::Propose { .. } => "Propose",
            Message::Ack { .. } => "Ack",
            Message::Resync { .. } => "Resync",
            Message::UpToDate { .. } => "UpToDate",
            Message::Commit { .. } => "Commit",
            Message::Ping { .. } => "Ping",
            Message::Pong { .. } => "Pong",
            Message::Sync { .. } => "Sync",
            Message::SyncReply { .. } => "SyncReply",
            Message::RequestHistoryEnd { .. } => "RequestHistoryEnd",
            Message::HistoryEnd { .. } => "HistoryEnd",
            Message::Stored { .. } => "Stored",
            Message::TakeOver { .. } => "TakeOver",
        }
    }

    fn detail(&self) -> String {
        match self {
            Message::Notification(notification) => notification.detail(),
            Message::FollowerInfo { accepted, accepted_from: Some(id), .. } => {
                format!("accepted epoch {} of {id}", accepted.0)
            }
            Message::FollowerInfo { accepted, .. } => format!("accepted epoch {}", accepted.0),
            Message::LeaderInfo { epoch } | Message::TakeOver { epoch } => format!("epoch {}", epoch.0),
            Message::AckEpoch { epoch, current, last } => {
                format!("epoch {}, current epoch {}, history ends {last}", epoch.0, current.0)
            }
            Message::FetchHistory { epoch, after } | Message::Diff { epoch, after } => {
                format!("epoch {}, after {after}", epoch.0)
            }
            Message::NewLeader { epoch, after } => format!("epoch {}, after {after}", epoch.0),
            Message::HistoryPart { epoch, after, entries, last } => {
                format!("epoch {}, after {after}, {}, history ends {last}", epoch.0, count(entries))
            }
            Message::Trunc { epoch, last, to } => format!("epoch {}, {last} back to {to}", epoch.0),
            Message::Snap { epoch, point } => format!("epoch {}, up to {point}", epoch.0),
            Message::Propose { epoch, after, commit, entries } => {
                format!("epoch {}, after {after}, {}, commit {commit}", epoch.0, count(entries))
            }
            Message::Ack { epoch, index } => format!("epoch {}, up to {index}", epoch.0),
            Message::Resync { epoch, last, hint } => {
                format!("epoch {}, history ends {last}, go on after {hint}", epoch.0)
            }
            Message::UpToDate { epoch, commit } | Message::Commit { epoch, commit } => {
                format!("epoch {}, commit {commit}", epoch.0)
            }
            Message::Ping { epoch, round, sent, commit } => {
                format!("epoch {}, sent up to {sent}, commit {commit}, round {round}", epoch.0)
            }
            Message::Pong { epoch, round, index } => {
                format!("epoch {}, up to {index}, round {round}", epoch.0)
            }
            Message::Sync { batch } => format!("batch {}", batch & 0xFFFF),
            Message::SyncReply { batch, index: Some(index) } => {
                format!("batch {}, index {index}", batch & 0xFFFF)
            }
            Message::RequestHistoryEnd { nonce } => format!("number {}", nonce & 0xFFFF),
            Message::HistoryEnd { nonce, epoch, last } => {
                format!("number {}, epoch {}, ends {last}", nonce & 0xFFFF, epoch.0)
            }
            Message::SyncReply { batch, index: None } => format!("batch {}, refused", batch & 0xFFFF),
            Message::Stored { index, .. } => format!("up to {index}"),
        }
    }
}

impl Notification {
    fn detail(&self) -> String {
        let state = match self.state {
            State::Looking => "looking",
            State::Following => "following",
            State::Leading => "leading",
        };
        let vote = match self.vote {
            Some(vote) => format!("votes {} with {} in epoch {}", vote.id, vote.zxid, vote.epoch.0),
            None => "votes nobody".to_string(),
        };
        format!("round {}, {state}, {vote}", self.round)
    }
}

fn count(entries: &[Entry]) -> String {
    match entries.len() {
        0 => "no entries".to_string(),
        1 => "1 entry".to_string(),
        n => format!("{n} entries"),
    }
}
