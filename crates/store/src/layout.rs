//! How the store's tables lie in the ordered map. The crate's documentation describes the format;
//! this is its only reader and writer.

use alloc::vec::Vec;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::proto::mvccpb::KeyValue;

/// The longest key that a client may use, in bytes. Stored keys stay below 64 KiB, the limit of
/// the engines in reach, even when every byte of the key is a zero, which takes two.
pub const KEY_BYTES_MAX: usize = 16 * 1024;

/// The longest key that the store asks an [`OrderedMap`](crate::OrderedMap) to hold, in bytes,
/// provided that the node keeps its own keys under it too.
pub const MAP_KEY_BYTES_MAX: usize = 1 + 2 * KEY_BYTES_MAX + TERMINATOR.len() + STAMP_BYTES;

pub(crate) const CURRENT: u8 = b'c';
pub(crate) const META: u8 = b'm';
pub(crate) const NODE: u8 = b'n';
pub(crate) const VERSIONS: u8 = b'v';

const TERMINATOR: [u8; 2] = [0x00, 0x01];
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xff];
const STAMP_BYTES: usize = 8 + 4;

const TOMBSTONE: u8 = 0;
const LIVE: u8 = 1;
const META_FORMAT: u8 = 1;

/// Some stored bytes are not what the store writes; says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) &'static str);

/// When a key changed: the revision, and which change of that revision it was, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) main: i64,
    pub(crate) sub: u32,
}

/// Which keys a request is about, in etcd's encoding of ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Span<'a> {
    One(&'a [u8]),
    /// From the first, inside, to the second, outside.
    Between(&'a [u8], &'a [u8]),
    From(&'a [u8]),
}

impl<'a> Span<'a> {
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            [0] => Self::From(key),
            end => Self::Between(key, end),
        }
    }

    /// Where the keys lie in the table of current values.
    pub(crate) fn in_current(self) -> (Bytes, Bytes) {
        let from = self.first();
        let to = match self {
            Self::One(key) => prefixed(CURRENT, &[key, &[0]]),
            Self::Between(_, end) => prefixed(CURRENT, &[end]),
            Self::From(_) => Bytes::from_static(&[CURRENT + 1]),
        };
        (current_key(from), to)
    }

    /// Where the keys lie in the table of versions.
    pub(crate) fn in_versions(self) -> (Bytes, Bytes) {
        let from = version_prefix(self.first());
        let to = match self {
            Self::One(key) => {
                let mut to = BytesMut::from(&from[..]);
                // Above the terminator, and below any longer key's escaped zero.
                *to.last_mut().expect("a prefix is never empty") += 1;
                debug_assert!(key.len() < to.len());
                to.freeze()
            }
            Self::Between(_, end) => version_prefix(end),
            Self::From(_) => Bytes::from_static(&[VERSIONS + 1]),
        };
        (from, to)
    }

    fn first(self) -> &'a [u8] {
        match self {
            Self::One(key) | Self::Between(key, _) | Self::From(key) => key,
        }
    }
}

/// The key of the current value of `key`.
pub(crate) fn current_key(key: &[u8]) -> Bytes {
    prefixed(CURRENT, &[key])
}

/// The user's key of an entry in the table of current values; shares its memory.
pub(crate) fn user_key(current: &Bytes) -> Bytes {
    current.slice(1..)
}

/// The node's key `key`.
pub(crate) fn node_key(key: &[u8]) -> Bytes {
    prefixed(NODE, &[key])
}

fn prefixed(table: u8, parts: &[&[u8]]) -> Bytes {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    out.push(table);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.into()
}

/// What all versions of `key` begin with, and nothing else does.
pub(crate) fn version_prefix(key: &[u8]) -> Bytes {
    version_prefix_with_room(key, 0).freeze()
}

fn version_prefix_with_room(key: &[u8], room: usize) -> BytesMut {
    let zeros = key.iter().filter(|byte| **byte == 0).count();
    let mut out = BytesMut::with_capacity(1 + key.len() + zeros + TERMINATOR.len() + room);
    out.put_u8(VERSIONS);
    if zeros == 0 {
        out.put_slice(key);
    } else {
        for byte in key {
            match byte {
                0 => out.put_slice(&ESCAPED_ZERO),
                byte => out.put_u8(*byte),
            }
        }
    }
    out.put_slice(&TERMINATOR);
    out
}

/// The key of one version of `key`: newer ones come first.
pub(crate) fn version_key(key: &[u8], stamp: Stamp) -> Bytes {
    let mut out = version_prefix_with_room(key, STAMP_BYTES);
    out.put_i64(!stamp.main);
    out.put_u32(!stamp.sub);
    out.freeze()
}

/// Splits an entry of the table of versions into what all versions of its key share, and when
/// this one was written.
pub(crate) fn split_version_key(entry: &[u8]) -> Result<(&[u8], Stamp), Damage> {
    let Some((prefix, mut stamp)) = entry.split_last_chunk::<STAMP_BYTES>().map(|(a, b)| (a, &b[..])) else {
        return Err(Damage("a key without its revision"));
    };
    if !prefix.ends_with(&TERMINATOR) {
        return Err(Damage("a key without its end"));
    }
    let stamp = Stamp { main: !stamp.get_i64(), sub: !stamp.get_u32() };
    Ok((prefix, stamp))
}

/// The user's key of the prefix that all its versions share.
pub(crate) fn unescape_version_prefix(prefix: &[u8]) -> Result<Bytes, Damage> {
    let escaped = prefix
        .strip_prefix(&[VERSIONS])
        .and_then(|rest| rest.strip_suffix(&TERMINATOR))
        .ok_or(Damage("a key without its beginning or end"))?;
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped.iter();
    while let Some(byte) = rest.next() {
        if *byte == 0 && rest.next() != Some(&ESCAPED_ZERO[1]) {
            return Err(Damage("a key with a bare zero"));
        }
        out.push(*byte);
    }
    Ok(out.into())
}

/// A key's value with its history in numbers, as both tables store it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) created: i64,
    pub(crate) modified: Stamp,
    /// Writes in this life of the key, this one included.
    pub(crate) version: i64,
    pub(crate) lease: i64,
    pub(crate) value: Bytes,
}

impl Version {
    /// Copies the value, once: what is stored must lie in one piece, and must not keep the
    /// network's buffer, with everything else in it, alive.
    pub(crate) fn encode(&self) -> Bytes {
        let mut head = Head::new(LIVE);
        head.varint(self.created as u64);
        head.varint(self.modified.main as u64);
        head.varint(u64::from(self.modified.sub));
        head.varint(self.version as u64);
        head.varint(self.lease as u64);
        head.followed_by(&self.value)
    }

    /// The value shares the memory of `record`.
    pub(crate) fn decode(record: &Bytes) -> Result<Self, Damage> {
        match Record::decode(record)? {
            Record::Live(version) => Ok(version),
            Record::Tombstone => Err(Damage("a tombstone among current values")),
        }
    }

    pub(crate) fn into_key_value(self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: self.created,
            mod_revision: self.modified.main,
            version: self.version,
            value: self.value,
            lease: self.lease,
        }
    }
}

/// An entry of the table of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Live(Version),
    /// The key was deleted here.
    Tombstone,
}

impl Record {
    pub(crate) const TOMBSTONE: Bytes = Bytes::from_static(&[TOMBSTONE]);

    pub(crate) fn is_tombstone(record: &Bytes) -> bool {
        **record == [TOMBSTONE]
    }

    pub(crate) fn decode(record: &Bytes) -> Result<Self, Damage> {
        let mut rest = &record[..];
        match rest.split_off_first() {
            Some(&TOMBSTONE) if rest.is_empty() => Ok(Self::Tombstone),
            Some(&LIVE) => {
                let created = take_revision(&mut rest)?;
                let main = take_revision(&mut rest)?;
                let sub = u32::try_from(take_varint(&mut rest)?)
                    .map_err(|_| Damage("a sub-revision out of range"))?;
                let version = take_revision(&mut rest)?;
                let lease = take_varint(&mut rest)? as i64;
                let value = record.slice(record.len() - rest.len()..);
                Ok(Self::Live(Version { created, modified: Stamp { main, sub }, version, lease, value }))
            }
            _ => Err(Damage("a record of an unknown kind")),
        }
    }
}

/// What the store keeps about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) revision: i64,
    /// -1 until the first compaction, as etcd has it.
    pub(crate) compacted: i64,
    pub(crate) key_count: u64,
    pub(crate) sweep: Option<Sweep>,
}

/// A walk through the table of versions that removes what nobody can read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// The compaction that it serves.
    pub(crate) target: i64,
    /// The last entry visited; empty at the beginning.
    pub(crate) cursor: Bytes,
}

impl Meta {
    pub(crate) const KEY: &'static [u8] = &[META];

    /// An empty store: etcd's first revision is 1, and the first write makes 2.
    pub(crate) const NEW: Self = Self { revision: 1, compacted: -1, key_count: 0, sweep: None };

    pub(crate) fn encode(&self) -> Bytes {
        let mut head = Head::new(META_FORMAT);
        head.varint(self.revision as u64);
        head.varint((self.compacted + 1) as u64);
        head.varint(self.key_count);
        let Some(sweep) = &self.sweep else { return head.followed_by(&[]) };
        head.varint(sweep.target as u64);
        head.followed_by(&sweep.cursor)
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Damage> {
        let mut rest = &bytes[..];
        match rest.split_off_first() {
            Some(&META_FORMAT) => {}
            Some(_) => return Err(Damage("a format that this version of Synod does not know")),
            None => return Err(Damage("no format")),
        }
        let revision = take_revision(&mut rest)?;
        let compacted = take_revision(&mut rest)? - 1;
        let key_count = take_varint(&mut rest)?;
        let sweep = match rest {
            [] => None,
            _ => {
                let target = take_revision(&mut rest)?;
                Some(Sweep { target, cursor: bytes.slice(bytes.len() - rest.len()..) })
            }
        };
        Ok(Self { revision, compacted, key_count, sweep })
    }
}

const VARINT_BYTES_MAX: usize = 10;
/// Numbers in a [`Head`] at the most.
const HEAD_NUMBERS_MAX: usize = 5;

/// The kind of a record and its numbers. They are put together aside, so that the record is one piece of memory of
/// exactly its length: a longer one would need a second, which says how long it is.
struct Head {
    bytes: [u8; 1 + HEAD_NUMBERS_MAX * VARINT_BYTES_MAX],
    len: usize,
}

impl Head {
    fn new(kind: u8) -> Self {
        let mut bytes = [0; 1 + HEAD_NUMBERS_MAX * VARINT_BYTES_MAX];
        bytes[0] = kind;
        Self { bytes, len: 1 }
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes[self.len] = number as u8 | 0x80;
            self.len += 1;
            number >>= 7;
        }
        self.bytes[self.len] = number as u8;
        self.len += 1;
    }

    fn followed_by(&self, rest: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(self.len + rest.len());
        out.extend_from_slice(&self.bytes[..self.len]);
        out.extend_from_slice(rest);
        out.into()
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, Damage> {
    let mut number = 0;
    for place in 0..VARINT_BYTES_MAX {
        let byte = *rest.split_off_first().ok_or(Damage("a number cut short"))?;
        let bits = u64::from(byte & 0x7f);
        if place == VARINT_BYTES_MAX - 1 && bits > 1 {
            break;
        }
        number |= bits << (7 * place);
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Damage("a number out of range"))
}

fn take_revision(rest: &mut &[u8]) -> Result<i64, Damage> {
    i64::try_from(take_varint(rest)?).map_err(|_| Damage("a number out of range"))
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;

    use super::*;

    const KEYS: [&[u8]; 10] =
        [b"\0", b"\0\0", b"\0\x01", b"a", b"a\0", b"a\0\0", b"a\0\x01", b"a\x01", b"ab", b"\xff\xff"];

    #[test]
    fn versions_lie_in_the_order_of_their_keys_and_newest_first() {
        let stamps = [(9, 1), (9, 0), (8, u32::MAX), (2, 0), (0, 0)].map(|(main, sub)| Stamp { main, sub });
        let mut entries = vec![];
        for key in KEYS {
            for stamp in stamps {
                let entry = version_key(key, stamp);
                let (prefix, its_stamp) = split_version_key(&entry).unwrap();
                assert_eq!(its_stamp, stamp);
                assert_eq!(unescape_version_prefix(prefix).unwrap(), key);
                entries.push(entry);
            }
        }
        assert!(entries.is_sorted());
    }

    #[test]
    fn a_span_covers_its_keys_versions_and_no_others() {
        let within = |span: Span<'_>, key: &[u8]| {
            let (from, to) = span.in_versions();
            let entry = version_key(key, Stamp { main: 5, sub: 0 });
            let (from_current, to_current) = span.in_current();
            let current = current_key(key);
            let inside = from <= entry && entry < to;
            assert_eq!(inside, from_current <= current && current < to_current);
            inside
        };
        for a in KEYS {
            for key in KEYS {
                assert_eq!(within(Span::new(a, b""), key), key == a);
                assert_eq!(within(Span::new(a, b"\0"), key), key >= a);
                for b in KEYS.into_iter().filter(|b| *b != b"\0") {
                    assert_eq!(within(Span::new(a, b), key), key >= a && key < b);
                }
            }
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let version = Version {
            created: 2,
            modified: Stamp { main: 300, sub: 1 },
            version: 3,
            lease: -1,
            value: "value".into(),
        };
        let record = version.encode();
        let expected = b"\x01\x02\xac\x02\x01\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01value";
        assert_eq!(record, expected[..]);
        assert_eq!(Record::decode(&record), Ok(Record::Live(version)));
        let key = version_key(b"k\0", Stamp { main: 300, sub: 1 });
        assert_eq!(key, b"vk\0\xff\0\x01\xff\xff\xff\xff\xff\xff\xfe\xd3\xff\xff\xff\xfe"[..]);
        let meta = Meta {
            revision: 300,
            compacted: -1,
            key_count: 2,
            sweep: Some(Sweep { target: 7, cursor: "v".into() }),
        };
        assert_eq!(meta.encode(), b"\x01\xac\x02\x00\x02\x07v"[..]);
        assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
    }

    #[test]
    fn numbers_of_every_length_come_back_and_have_the_length_foretold() {
        for shift in 0..64 {
            for number in [0, (1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let mut head = Head::new(LIVE);
                head.varint(number);
                let out = head.followed_by(&[]).slice(1..);
                assert_eq!(take_varint(&mut &out[..]), Ok(number));
            }
        }
    }

    #[test]
    fn damaged_records_are_reported_and_never_panic() {
        let version = Version {
            created: 2,
            modified: Stamp { main: 300, sub: 1 },
            version: 3,
            lease: 0,
            value: Bytes::new(),
        };
        let record = version.encode();
        for length in 0..record.len() {
            assert!(Record::decode(&record.slice(..length)).is_err(), "{length}");
        }
        for byte in 0..=u8::MAX {
            let bytes = Bytes::from(vec![byte; 30]);
            let _ = (Record::decode(&bytes), Meta::decode(&bytes));
            let _ = split_version_key(&bytes).map(|(prefix, _)| unescape_version_prefix(prefix));
        }
        assert!(Record::decode(&Bytes::from_static(b"\0?")).is_err(), "a tombstone says no more");
        assert_eq!(MAP_KEY_BYTES_MAX.to_string(), "32783", "below the 64 KiB that engines allow");
    }
}
