//! The one thing that the store needs from below: an ordered map of bytes.

use alloc::collections::{BTreeMap, btree_map};
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
    pairs: BTreeMap<Bytes, Bytes>,
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
        self.pairs.iter()
    }

    /// Writes one pair, or removes it; gives the value that was there.
    pub fn replace(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        match value {
            Some(value) => self.pairs.insert(key, value),
            None => self.pairs.remove(&key),
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
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, writes: WriteBatch) -> Result<(), Infallible> {
        for (key, value) in writes {
            self.replace(key, value);
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
