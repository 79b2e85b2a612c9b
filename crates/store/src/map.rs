//! The one thing that the store needs from below: an ordered map of bytes.

use alloc::collections::{BTreeMap, btree_map};
use core::borrow::Borrow;
use core::cmp::Ordering;
use core::convert::Infallible;
use core::fmt;
use core::ops::{Bound, ControlFlow};

use bytes::Bytes;

/// An ordered map from byte strings to byte strings: in memory for the simulator
/// ([`MemoryMap`]), an embedded engine for a server.
///
/// Keys are ordered byte by byte. The store's keys are never empty, at most
/// [`MAP_KEY_BYTES_MAX`](crate::MAP_KEY_BYTES_MAX) long.
pub trait OrderedMap {
    /// What can go wrong below.
    type Error: fmt::Debug + fmt::Display;

    /// The value of one key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Self::Error>;

    /// Calls `visit` with the pairs from `from` (inside) to `to` (outside; none means the end),
    /// in the order of the keys, until it breaks. Pairs are lent as `Bytes`, so that a caller can
    /// keep one without copying it; an engine that can should lend its own buffers. Visits
    /// nothing where `to` is not above `from`.
    fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// Applies all writes, or none of them, also across a crash. It need not be durable on
    /// return: what is lost from the end is replayed from the replicated log, provided that
    /// commits survive in order, the later ones never without the earlier.
    fn commit(&mut self, writes: WriteBatch) -> Result<(), Self::Error>;
}

/// Writes that belong together: at most one for each key, in the order of the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    writes: BTreeMap<Bytes, Option<Bytes>>,
}

impl WriteBatch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.writes.insert(key, Some(value));
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: Bytes) {
        self.writes.insert(key, None);
    }

    /// The number of keys written or removed.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// There is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The writes in the order of the keys; no value means removal.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.writes.iter().map(|(key, value)| (key, value.as_ref()))
    }

    pub(crate) fn lookup(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.writes.get(key)
    }

    pub(crate) fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Option<Bytes>> {
        self.writes.insert(key, value)
    }

    pub(crate) fn forget(&mut self, key: &[u8]) {
        self.writes.remove(key);
    }

    pub(crate) fn range(&self, from: &[u8], to: Option<&[u8]>) -> btree_map::Range<'_, Bytes, Option<Bytes>> {
        self.writes.range::<[u8], _>(bounds(from, to))
    }
}

impl IntoIterator for WriteBatch {
    type Item = (Bytes, Option<Bytes>);
    type IntoIter = btree_map::IntoIter<Bytes, Option<Bytes>>;

    /// The writes in the order of the keys; no value means removal.
    fn into_iter(self) -> Self::IntoIter {
        self.writes.into_iter()
    }
}

/// An ordered map in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    pairs: BTreeMap<Key, Bytes>,
}

/// A key whose first bytes are also a number, zeros behind a shorter one: most keys differ in it, and a search in the
/// map then compares numbers and not memory elsewhere.
#[derive(Clone, Debug)]
struct Key {
    head: u128,
    bytes: Bytes,
}

impl Key {
    fn new(bytes: Bytes) -> Self {
        let head = bytes.first_chunk().copied().unwrap_or_else(|| {
            let mut head = [0; size_of::<u128>()];
            head[..bytes.len()].copy_from_slice(&bytes);
            head
        });
        Self { head: u128::from_be_bytes(head), bytes }
    }
}

impl Ord for Key {
    /// The order of the bytes. Where the heads are equal and one key ends within them, the rest of the other's head is
    /// zeros, so that the shorter one comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| {
            let within = |key: &Self| key.bytes.len() <= size_of::<u128>();
            if within(self) || within(other) {
                self.bytes.len().cmp(&other.bytes.len())
            } else {
                self.bytes.cmp(&other.bytes)
            }
        })
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

/// Keys are in the order of their bytes.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.bytes
    }
}

impl MemoryMap {
    /// An empty map.
    pub const fn new() -> Self {
        Self { pairs: BTreeMap::new() }
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The map holds nothing.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.pairs.iter().map(|(key, value)| (&key.bytes, value))
    }

    /// Writes one pair, or removes it; gives the key, in memory that the map shares, and the value that was there.
    pub fn replace(&mut self, key: Bytes, value: Option<Bytes>) -> (Bytes, Option<Bytes>) {
        let Some(value) = value else {
            let removed = self.pairs.remove_entry(&key[..]);
            return removed.map_or((key, None), |(key, old)| (key.bytes, Some(old)));
        };
        match self.pairs.entry(Key::new(key)) {
            btree_map::Entry::Occupied(mut pair) => (pair.key().bytes.clone(), Some(pair.insert(value))),
            btree_map::Entry::Vacant(place) => {
                let key = place.key().bytes.clone();
                place.insert(value);
                (key, None)
            }
        }
    }
}

impl OrderedMap for MemoryMap {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
        Ok(self.pairs.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        for (key, value) in self.pairs.range::<[u8], _>(bounds(from, to)) {
            if visit(&key.bytes, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, writes: WriteBatch) -> Result<(), Infallible> {
        for (key, value) in writes {
            match value {
                Some(value) => self.pairs.insert(Key::new(key), value),
                None => self.pairs.remove(&key[..]),
            };
        }
        Ok(())
    }
}

/// The bounds of `from..to`; empty instead of inverted, which `BTreeMap::range` would answer
/// with a panic.
fn bounds<'a>(from: &'a [u8], to: Option<&'a [u8]>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let end = match to {
        Some(to) => Bound::Excluded(to.max(from)),
        None => Bound::Unbounded,
    };
    (Bound::Included(from), end)
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_bytes() {
        let mut keys: Vec<Vec<u8>> = vec![Vec::new()];
        for len in [1, 2, 15, 16, 17, 18, 40] {
            for fill in [0, 1, 0xff] {
                let mut key = vec![fill; len];
                keys.push(key.clone());
                for last in [0, 1, 0xff] {
                    *key.last_mut().expect("it is not empty") = last;
                    keys.push(key.clone());
                }
            }
        }
        let key = |bytes: &Vec<u8>| Key::new(Bytes::copy_from_slice(bytes));
        for one in &keys {
            for other in &keys {
                assert_eq!(key(one).cmp(&key(other)), one.cmp(other), "{one:?} {other:?}");
                assert_eq!(key(one) == key(other), one == other);
            }
        }
    }
}
