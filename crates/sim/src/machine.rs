//! The storage below a simulated state machine: an ordered map that need not sync, and that a crash
//! puts back to an earlier commit.
//!
//! It keeps a digest of what it holds, so that replicas can be compared after every commit
//! without walking through them.

use bytes::Bytes;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::Hasher;
use std::ops::ControlFlow;
use synod_protocols::{Fingerprint, Rng};
use synod_store::{MemoryMap, OrderedMap, WriteBatch};

/// Commits that a crash may undo at most.
const UNDO_MAX: usize = 8;

/// Keys and what they held before.
type Replaced = Vec<(Bytes, Option<Bytes>)>;

/// An ordered map in memory whose last commits a crash may undo.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimMap {
    map: MemoryMap,
    /// What the last commits replaced, and the digest before each.
    undo: VecDeque<(u64, Replaced)>,
    digest: u64,
}

impl SimMap {
    /// An empty map.
    pub(crate) fn new() -> SimMap {
        SimMap::default()
    }

    /// A digest of all pairs, whatever the way they came there.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// What a crash leaves: everything up to some commit, at the worst nothing.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        if rng.chance(1, 8) {
            *self = SimMap::new();
            return;
        }
        for _ in 0..rng.below(self.undo.len() as u64 + 1) {
            let (digest, pairs) = self.undo.pop_back().expect("not more than there are");
            let mut batch = WriteBatch::default();
            for (key, old) in pairs {
                match old {
                    Some(value) => batch.put(key, value),
                    None => batch.remove(key),
                }
            }
            let Ok(()) = self.map.commit(batch);
            self.digest = digest;
        }
        self.undo.clear();
    }
}

impl OrderedMap for SimMap {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
        self.map.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        self.map.scan(from, to, visit)
    }

    fn commit(&mut self, writes: WriteBatch) -> Result<(), Infallible> {
        let (before, mut pairs) = if self.undo.len() == UNDO_MAX {
            let (_, mut pairs) = self.undo.pop_front().expect("it is full");
            pairs.clear();
            (self.digest, pairs)
        } else {
            (self.digest, Vec::with_capacity(writes.len()))
        };
        for (key, value) in writes.iter() {
            let Ok(old) = self.map.get(key);
            if let Some(old) = &old {
                self.digest = self.digest.wrapping_sub(pair_digest(key, old));
            }
            if let Some(value) = value {
                self.digest = self.digest.wrapping_add(pair_digest(key, value));
            }
            pairs.push((key.clone(), old));
        }
        self.undo.push_back((before, pairs));
        self.map.commit(writes)
    }
}

/// Digests of pairs are added up, so that the order in which they came does not matter.
fn pair_digest(key: &[u8], value: &[u8]) -> u64 {
    let mut digest = Fingerprint::new();
    digest.write(key);
    digest.write(value);
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(map: &mut SimMap, key: &'static str, value: &'static str) {
        let mut batch = WriteBatch::default();
        batch.put(Bytes::from(key), Bytes::from(value));
        let Ok(()) = map.commit(batch);
    }

    #[test]
    fn the_digest_depends_on_what_is_there_alone() {
        let (mut a, mut b) = (SimMap::new(), SimMap::new());
        put(&mut a, "x", "1");
        put(&mut a, "y", "2");
        put(&mut b, "y", "3");
        put(&mut b, "y", "2");
        assert_ne!(a.digest(), b.digest());
        put(&mut b, "x", "1");
        assert_eq!(a.digest(), b.digest());
    }

    #[test]
    fn a_crash_leaves_a_prefix_of_the_commits() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let mut map = SimMap::new();
            let mut digests = vec![map.digest()];
            for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
                put(&mut map, key, value);
                digests.push(map.digest());
            }
            map.crash(&mut Rng::new(seed));
            let kept = digests.iter().position(|digest| *digest == map.digest()).expect("a prefix");
            lengths.insert(kept);
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
