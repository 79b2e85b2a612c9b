//! The encoding of messages.

use super::message::{Message, Notification, State, Vote};
use super::record::{Zxid, decode_entries, encode_entries, node, put_node};
use crate::log::{Epoch, Index};
use crate::wire::{DecodeError, Reader, Wire, put_varint};
use alloc::vec::Vec;

impl Wire for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        match self {
            Message::Notification(notification) => notification.encode(out),
            Message::FollowerInfo { accepted, accepted_from, observer } => {
                put_varint(out, accepted.0);
                put_node(*accepted_from, out);
                out.push(u8::from(*observer));
            }
            Message::LeaderInfo { epoch } | Message::TakeOver { epoch } => put_varint(out, epoch.0),
            Message::AckEpoch { epoch, current, last } => {
                put_varint(out, epoch.0);
                put_varint(out, current.0);
                last.encode(out);
            }
            Message::FetchHistory { epoch, after: zxid }
            | Message::Diff { epoch, after: zxid }
            | Message::Snap { epoch, point: zxid }
            | Message::NewLeader { epoch, after: zxid } => {
                put_varint(out, epoch.0);
                zxid.encode(out);
            }
            Message::HistoryPart { epoch, after, entries, last } => {
                put_varint(out, epoch.0);
                after.encode(out);
                encode_entries(entries, out);
                last.encode(out);
            }
            Message::Trunc { epoch, last: first, to: second }
            | Message::Resync { epoch, last: first, hint: second } => {
                put_varint(out, epoch.0);
                first.encode(out);
                second.encode(out);
            }
            Message::Propose { epoch, after, commit, entries } => {
                put_varint(out, epoch.0);
                after.encode(out);
                put_varint(out, commit.0);
                encode_entries(entries, out);
            }
            Message::Ack { epoch, index }
            | Message::UpToDate { epoch, commit: index }
            | Message::Commit { epoch, commit: index } => {
                put_varint(out, epoch.0);
                put_varint(out, index.0);
            }
            Message::Ping { epoch, round, sent, commit } => {
                for number in [epoch.0, *round, sent.0, commit.0] {
                    put_varint(out, number);
                }
            }
            Message::Pong { epoch, round, index } => {
                for number in [epoch.0, *round, index.0] {
                    put_varint(out, number);
                }
            }
            Message::Sync { batch } => put_varint(out, *batch),
            Message::SyncReply { batch, index } => {
                put_varint(out, *batch);
                out.push(u8::from(index.is_some()));
                if let Some(index) = index {
                    put_varint(out, index.0);
                }
            }
            Message::RequestHistoryEnd { nonce } => put_varint(out, *nonce),
            Message::HistoryEnd { nonce, epoch, last } => {
                for number in [*nonce, epoch.0, last.0] {
                    put_varint(out, number);
                }
            }
            Message::Stored { cuts, index } => {
                put_varint(out, *cuts);
                put_varint(out, index.0);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match input.byte("message kind")? {
            1 => Message::Notification(Notification::decode(input)?),
            2 => Message::FollowerInfo {
                accepted: epoch(input)?,
                accepted_from: node(input)?,
                observer: input.flag("observer")?,
            },
            3 => Message::LeaderInfo { epoch: epoch(input)? },
            4 => {
                Message::AckEpoch { epoch: epoch(input)?, current: epoch(input)?, last: Zxid::decode(input)? }
            }
            5 => Message::FetchHistory { epoch: epoch(input)?, after: Zxid::decode(input)? },
            6 => Message::HistoryPart {
                epoch: epoch(input)?,
                after: Zxid::decode(input)?,
                entries: decode_entries(input)?,
                last: Zxid::decode(input)?,
            },
            7 => Message::Diff { epoch: epoch(input)?, after: Zxid::decode(input)? },
            8 => {
                Message::Trunc { epoch: epoch(input)?, last: Zxid::decode(input)?, to: Zxid::decode(input)? }
            }
            9 => Message::Snap { epoch: epoch(input)?, point: Zxid::decode(input)? },
            10 => Message::NewLeader { epoch: epoch(input)?, after: Zxid::decode(input)? },
            11 => Message::Propose {
                epoch: epoch(input)?,
                after: Zxid::decode(input)?,
                commit: index(input)?,
                entries: decode_entries(input)?,
            },
            12 => Message::Ack { epoch: epoch(input)?, index: index(input)? },
            13 => Message::Resync {
                epoch: epoch(input)?,
                last: Zxid::decode(input)?,
                hint: Zxid::decode(input)?,
            },
            14 => Message::UpToDate { epoch: epoch(input)?, commit: index(input)? },
            15 => Message::Commit { epoch: epoch(input)?, commit: index(input)? },
            16 => Message::Ping {
                epoch: epoch(input)?,
                round: input.varint("round")?,
                sent: index(input)?,
                commit: index(input)?,
            },
            17 => Message::Pong { epoch: epoch(input)?, round: input.varint("round")?, index: index(input)? },
            18 => Message::Sync { batch: input.varint("batch")? },
            19 => Message::SyncReply {
                batch: input.varint("batch")?,
                index: if input.flag("read index present")? { Some(index(input)?) } else { None },
            },
            21 => Message::TakeOver { epoch: epoch(input)? },
            20 => Message::Stored { cuts: input.varint("cuts")?, index: index(input)? },
            22 => Message::RequestHistoryEnd { nonce: input.varint("nonce")? },
            23 => {
                let nonce = input.varint("nonce")?;
                Message::HistoryEnd { nonce, epoch: epoch(input)?, last: index(input)? }
            }
            kind => return Err(DecodeError::Invalid { what: "message kind", value: u64::from(kind) }),
        })
    }
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Message::Notification(_) => 1,
            Message::FollowerInfo { .. } => 2,
            Message::LeaderInfo { .. } => 3,
            Message::AckEpoch { .. } => 4,
            Message::FetchHistory { .. } => 5,
            Message::HistoryPart { .. } => 6,
            Message::Diff { .. } => 7,
            Message::Trunc { .. } => 8,
            Message::Snap { .. } => 9,
            Message::NewLeader { .. } => 10,
            Message::Propose { .. } => 11,
            Message::Ack { .. } => 12,
            Message::Resync { .. } => 13,
            Message::UpToDate { .. } => 14,
            Message::Commit { .. } => 15,
            Message::Ping { .. } => 16,
            Message::Pong { .. } => 17,
            Message::Sync { .. } => 18,
            Message::SyncReply { .. } => 19,
            Message::Stored { .. } => 20,
            Message::TakeOver { .. } => 21,
            Message::RequestHistoryEnd { .. } => 22,
            Message::HistoryEnd { .. } => 23,
        }
    }
}

impl Notification {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.round);
        out.push(match self.state {
            State::Looking => 1,
            State::Following => 2,
            State::Leading => 3,
        });
        put_node(self.vote.map(|vote| vote.id), out);
        if let Some(vote) = self.vote {
            put_varint(out, vote.epoch.0);
            vote.zxid.encode(out);
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        let round = input.varint("round")?;
        let state = match input.byte("state")? {
            1 => State::Looking,
            2 => State::Following,
            3 => State::Leading,
            other => return Err(DecodeError::Invalid { what: "state", value: u64::from(other) }),
        };
        let vote = match node(input)? {
            Some(id) => Some(Vote { id, epoch: epoch(input)?, zxid: Zxid::decode(input)? }),
            None => None,
        };
        Ok(Notification { round, state, vote })
    }
}

fn epoch(input: &mut Reader) -> Result<Epoch, DecodeError> {
    input.varint("epoch").map(Epoch)
}

fn index(input: &mut Reader) -> Result<Index, DecodeError> {
    input.varint("index").map(Index)
}
