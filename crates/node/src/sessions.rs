//! The sessions of members: every command applies at most once.
//!
//! A command enters the log in an *envelope* that says which member took it from a client, in
//! which life, and as which one of that life. The replicated table remembers, for every member, its
//! life and the last command applied; a command applies only if it is the next one. What was sent
//! twice applies once; what overtook a lost one is skipped by all members alike, and sent again by
//! the member that waits for it. The table has one line for each member of the cluster, so that it
//! needs no expiry.

use bytes::Bytes;
use synod_protocols::wire::{put_list, put_varint};
use synod_protocols::{DecodeError, Incarnation, NodeId, Reader};

const ENVELOPE_VERSION: u8 = 1;

/// Who asked for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The member whose client asked.
    pub member: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The how-manieth command of that life, from 1.
    pub sequence: u64,
}

/// Puts a command into its envelope.
pub fn seal(sender: Sender, command: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(command.len() + 24);
    out.push(ENVELOPE_VERSION);
    put_varint(&mut out, sender.member.0);
    put_varint(&mut out, sender.incarnation.0);
    put_varint(&mut out, sender.sequence);
    out.extend_from_slice(command);
    out.into()
}

/// Takes a command out of its envelope.
///
/// # Errors
/// Bytes that [`seal`] did not write.
pub fn open(envelope: Bytes) -> Result<(Sender, Bytes), DecodeError> {
    let mut reader = Reader::new(envelope);
    match reader.byte("an envelope's version")? {
        ENVELOPE_VERSION => {}
        other => {
            return Err(DecodeError::Invalid { what: "an envelope's version", value: u64::from(other) });
        }
    }
    let member = NodeId(reader.varint("an envelope's member")?);
    let incarnation = Incarnation(reader.varint("an envelope's incarnation")?);
    let sequence = reader.varint("an envelope's sequence number")?;
    Ok((Sender { member, incarnation, sequence }, reader.into_rest()))
}

/// What becomes of a committed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It applies.
    Apply,
    /// It was applied before.
    Duplicate,
    /// One before it has not been applied: its sender will send both again.
    Gap,
    /// It is from a life that is over.
    Stale,
}

/// The replicated table: for every member its life and the last command applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// In ascending order of members.
    lines: Vec<(NodeId, Incarnation, u64)>,
}

impl Sessions {
    /// The sequence number that applies next for this life of a member.
    pub fn next(&self, member: NodeId, incarnation: Incarnation) -> u64 {
        match self.lines.binary_search_by_key(&member, |line| line.0) {
            Ok(at) if self.lines[at].1 == incarnation => self.lines[at].2 + 1,
            _ => 1,
        }
    }

    /// Judges a committed command, and notes it if it applies.
    pub fn admit(&mut self, sender: Sender) -> Verdict {
        let at = match self.lines.binary_search_by_key(&sender.member, |line| line.0) {
            Ok(at) => at,
            Err(_) if sender.sequence != 1 => return Verdict::Gap,
            Err(at) => {
                self.lines.insert(at, (sender.member, sender.incarnation, 1));
                return Verdict::Apply;
            }
        };
        let (_, incarnation, last) = &mut self.lines[at];
        if sender.incarnation < *incarnation {
            return Verdict::Stale;
        }
        let expected = if sender.incarnation == *incarnation { *last + 1 } else { 1 };
        if sender.sequence != expected {
            return if sender.sequence < expected { Verdict::Duplicate } else { Verdict::Gap };
        }
        *incarnation = sender.incarnation;
        *last = sender.sequence;
        Verdict::Apply
    }

    /// Becomes a copy of `other`, and keeps its memory.
    pub(crate) fn copy(&mut self, other: &Sessions) {
        self.lines.clone_from(&other.lines);
    }

    /// More bytes than [`Sessions::encode`] writes.
    pub(crate) fn encoded_len_max(&self) -> usize {
        10 + 30 * self.lines.len()
    }

    /// Appends the encoding, a part of the metadata.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.lines, |(member, incarnation, last), out| {
            put_varint(out, member.0);
            put_varint(out, incarnation.0);
            put_varint(out, *last);
        });
    }

    /// Reads it back.
    pub(crate) fn decode(reader: &mut Reader) -> Result<Sessions, DecodeError> {
        let lines = reader.list("the sessions", |reader| {
            Ok((
                NodeId(reader.varint("a session's member")?),
                Incarnation(reader.varint("a session's incarnation")?),
                reader.varint("a session's last command")?,
            ))
        })?;
        if let Some(bad) = lines.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(DecodeError::Invalid { what: "the order of the sessions", value: bad[1].0.0 });
        }
        Ok(Sessions { lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(member: u64, incarnation: u64, sequence: u64) -> Sender {
        Sender { member: NodeId(member), incarnation: Incarnation(incarnation), sequence }
    }

    #[test]
    fn each_command_applies_once_and_in_order() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.admit(sender(1, 1, 2)), Verdict::Gap, "a life starts with its first command");
        assert_eq!(sessions.admit(sender(1, 1, 1)), Verdict::Apply);
        assert_eq!(sessions.admit(sender(1, 1, 1)), Verdict::Duplicate);
        assert_eq!(sessions.admit(sender(1, 1, 3)), Verdict::Gap);
        assert_eq!(sessions.admit(sender(1, 1, 2)), Verdict::Apply);
        assert_eq!(sessions.admit(sender(2, 1, 1)), Verdict::Apply, "members do not share sessions");
    }

    #[test]
    fn a_new_life_starts_anew_and_ends_the_old_one() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.admit(sender(1, 1, 1)), Verdict::Apply);
        assert_eq!(sessions.admit(sender(1, 2, 2)), Verdict::Gap);
        assert_eq!(sessions.admit(sender(1, 1, 2)), Verdict::Apply, "a gap of the new life changed nothing");
        assert_eq!(sessions.admit(sender(1, 2, 1)), Verdict::Apply);
        assert_eq!(sessions.admit(sender(1, 1, 3)), Verdict::Stale);
    }

    #[test]
    fn the_bytes_of_envelopes_never_change() {
        let envelope = seal(sender(3, 2, 300), b"put");
        assert_eq!(envelope, Bytes::from_static(b"\x01\x03\x02\xac\x02put"));
        assert_eq!(open(envelope), Ok((sender(3, 2, 300), Bytes::from_static(b"put"))));
    }
}
