//! Changes of members and transfers, as members pass them on to each other and as tapes keep them.

use crate::interface::ClientError;
use synod_protocols::log::{ChangeRefusal, Member, MemberPart, MembershipChange};
use synod_protocols::wire::{put_bytes, put_list, put_varint};
use synod_protocols::{DecodeError, NodeId, Reader};

/// What is asked of the leader about the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Change the members. To add one with the id 0 asks the leader to choose its id.
    Members(MembershipChange),
    /// Let another member lead: this one, or whoever is best placed.
    Transfer(Option<NodeId>),
}

/// What came of it: who was added, 0 if nobody was, and who the members are.
pub(crate) type Changed = (NodeId, Vec<Member>);

pub(crate) fn encode_membership_change(change: &MembershipChange, out: &mut Vec<u8>) {
    match change {
        MembershipChange::Add { id, context, promote } => {
            out.push(0);
            put_varint(out, id.0);
            put_bytes(out, context);
            out.push(u8::from(*promote));
        }
        MembershipChange::Promote(id) => {
            out.push(1);
            put_varint(out, id.0);
        }
        MembershipChange::Remove(id) => {
            out.push(2);
            put_varint(out, id.0);
        }
        MembershipChange::Replace(voters) => {
            out.push(3);
            put_list(out, voters, |id, out| put_varint(out, id.0));
        }
    }
}

pub(crate) fn decode_membership_change(input: &mut Reader) -> Result<MembershipChange, DecodeError> {
    Ok(match input.byte("a change's kind")? {
        0 => MembershipChange::Add {
            id: member(input)?,
            context: input.bytes("a member's context")?,
            promote: input.flag("whether to promote")?,
        },
        1 => MembershipChange::Promote(member(input)?),
        2 => MembershipChange::Remove(member(input)?),
        3 => MembershipChange::Replace(input.list("voters", member)?),
        other => return Err(DecodeError::Invalid { what: "a change's kind", value: u64::from(other) }),
    })
}

fn member(input: &mut Reader) -> Result<NodeId, DecodeError> {
    Ok(NodeId(input.varint("a member")?))
}

pub(crate) fn encode_change(change: &Change, out: &mut Vec<u8>) {
    match change {
        Change::Members(change) => encode_membership_change(change, out),
        Change::Transfer(to) => {
            out.push(4);
            // Zero is never a member.
            put_varint(out, to.map_or(0, |to| to.0));
        }
    }
}

pub(crate) fn decode_change(input: &mut Reader) -> Result<Change, DecodeError> {
    let mut rest = input.clone();
    if rest.byte("a change's kind")? != 4 {
        return decode_membership_change(input).map(Change::Members);
    }
    *input = rest;
    let to = member(input)?;
    Ok(Change::Transfer((to.0 != 0).then_some(to)))
}

pub(crate) fn encode_changed(result: &Result<Changed, ClientError>, out: &mut Vec<u8>) {
    match result {
        Ok((added, members)) => {
            out.push(0);
            put_varint(out, added.0);
            put_list(out, members, |member, out| {
                put_varint(out, member.id.0);
                out.push(match member.part {
                    MemberPart::Voter => 0,
                    MemberPart::Leaving => 1,
                    MemberPart::Entering => 2,
                    MemberPart::Learner { promote: false } => 3,
                    MemberPart::Learner { promote: true } => 4,
                });
                put_bytes(out, &member.context);
            });
        }
        Err(error) => {
            out.push(1);
            encode_error(*error, out);
        }
    }
}

pub(crate) fn decode_changed(input: &mut Reader) -> Result<Result<Changed, ClientError>, DecodeError> {
    if input.flag("whether a change failed")? {
        return decode_error(input).map(Err);
    }
    let added = member(input)?;
    let members = input.list("the members", |input| {
        let id = member(input)?;
        let part = match input.byte("a member's part")? {
            0 => MemberPart::Voter,
            1 => MemberPart::Leaving,
            2 => MemberPart::Entering,
            3 => MemberPart::Learner { promote: false },
            4 => MemberPart::Learner { promote: true },
            other => return Err(DecodeError::Invalid { what: "a member's part", value: u64::from(other) }),
        };
        Ok(Member { id, part, context: input.bytes("a member's context")? })
    })?;
    Ok(Ok((added, members)))
}

fn encode_error(error: ClientError, out: &mut Vec<u8>) {
    let (kind, id) = match error {
        ClientError::NoLeader => (0, None),
        ClientError::Busy => (1, None),
        ClientError::Storage => (2, None),
        ClientError::TooLarge => (3, None),
        ClientError::Timeout => (4, None),
        ClientError::Unsupported => (5, None),
        ClientError::Change(refusal) => match refusal {
            ChangeRefusal::InProgress => (6, None),
            ChangeRefusal::NotYet => (7, None),
            ChangeRefusal::Unknown(id) => (8, Some(id)),
            ChangeRefusal::AlreadyMember(id) => (9, Some(id)),
            ChangeRefusal::IdUsed { highest } => (10, Some(highest)),
            ChangeRefusal::NotCaughtUp(id) => (11, Some(id)),
            ChangeRefusal::WouldLoseQuorum => (12, None),
            ChangeRefusal::Size => (13, None),
            ChangeRefusal::CannotLead(id) => (14, Some(id)),
        },
    };
    out.push(kind);
    if let Some(id) = id {
        put_varint(out, id.0);
    }
}

fn decode_error(input: &mut Reader) -> Result<ClientError, DecodeError> {
    let change = match input.byte("why a change failed")? {
        0 => return Ok(ClientError::NoLeader),
        1 => return Ok(ClientError::Busy),
        2 => return Ok(ClientError::Storage),
        3 => return Ok(ClientError::TooLarge),
        4 => return Ok(ClientError::Timeout),
        5 => return Ok(ClientError::Unsupported),
        6 => ChangeRefusal::InProgress,
        7 => ChangeRefusal::NotYet,
        8 => ChangeRefusal::Unknown(member(input)?),
        9 => ChangeRefusal::AlreadyMember(member(input)?),
        10 => ChangeRefusal::IdUsed { highest: member(input)? },
        11 => ChangeRefusal::NotCaughtUp(member(input)?),
        12 => ChangeRefusal::WouldLoseQuorum,
        13 => ChangeRefusal::Size,
        14 => ChangeRefusal::CannotLead(member(input)?),
        other => return Err(DecodeError::Invalid { what: "why a change failed", value: u64::from(other) }),
    };
    Ok(ClientError::Change(change))
}

/// A member without a context, as checks and tests write it.
#[cfg(test)]
pub(crate) fn plain(id: u64, part: MemberPart) -> Member {
    Member { id: NodeId(id), part, context: bytes::Bytes::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn every_change_and_its_outcome_survive_a_round_trip_and_no_cut() {
        let id = NodeId(300);
        let add = MembershipChange::Add { id, context: Bytes::from_static(b"addr"), promote: true };
        let changes = [
            Change::Members(add),
            Change::Members(MembershipChange::Promote(id)),
            Change::Members(MembershipChange::Remove(id)),
            Change::Members(MembershipChange::Replace(vec![NodeId(1), id])),
            Change::Transfer(None),
            Change::Transfer(Some(id)),
        ];
        for change in changes {
            let mut bytes = Vec::new();
            encode_change(&change, &mut bytes);
            check(&bytes, decode_change, &change);
        }
        let parts = [
            MemberPart::Voter,
            MemberPart::Leaving,
            MemberPart::Entering,
            MemberPart::Learner { promote: false },
            MemberPart::Learner { promote: true },
        ];
        let mut results = vec![Ok((id, (1..).zip(parts).map(|(id, part)| plain(id, part)).collect()))];
        for error in (0..=14).map(|kind| decode_error(&mut Reader::new(vec![kind, 7].into()))) {
            results.push(Err(error.expect("every kind is known")));
        }
        assert!(decode_error(&mut Reader::new(vec![15].into())).is_err());
        for result in results {
            let mut bytes = Vec::new();
            encode_changed(&result, &mut bytes);
            check(&bytes, decode_changed, &result);
        }
    }

    fn check<T: PartialEq + std::fmt::Debug>(
        bytes: &[u8],
        decode: impl Fn(&mut Reader) -> Result<T, DecodeError>,
        expected: &T,
    ) {
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
        assert_eq!(decode(&mut reader).as_ref(), Ok(expected));
        assert_eq!(reader.remaining(), 0);
        for len in 0..bytes.len() {
            assert!(decode(&mut Reader::new(Bytes::copy_from_slice(&bytes[..len]))).is_err(), "{expected:?}");
        }
    }
}
