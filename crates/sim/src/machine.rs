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
use synod_node::kv::{StateMap, is_own};
use synod_protocols::log::Ticket;
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
    /// How many commits there were, and how many of them a crash cannot undo.
    commits: u64,
    durable_commits: u64,
    /// What a crash leaves at the worst.
    durable: Option<Box<Kept>>,
    /// What is being made durable.
    persisting: Option<(Ticket, u64, Box<Kept>)>,
    /// Pairs of another member's state.
    staged: WriteBatch,
}

/// The pairs as of some commit, and their digest.
#[derive(Clone, Debug, Default)]
struct Kept {
    map: MemoryMap,
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
            return self.lose();
        }
        let undoable = (self.undo.len() as u64).min(self.commits - self.durable_commits);
        for _ in 0..rng.below(undoable + 1) {
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
        self.forget();
    }

    /// Everything goes that need not have been kept.
    pub(crate) fn lose(&mut self) {
        let durable = self.durable.clone().unwrap_or_default();
        (self.map, self.digest) = (durable.map, durable.digest);
        self.forget();
    }

    /// What only a running member knows is gone.
    fn forget(&mut self) {
        self.undo.clear();
        self.persisting = None;
        self.staged = WriteBatch::default();
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
        for (key, value) in writes {
            if let Some(value) = &value {
                self.digest = self.digest.wrapping_add(pair_digest(&key, value));
            }
            let old = self.map.replace(key.clone(), value);
            if let Some(old) = &old {
                self.digest = self.digest.wrapping_sub(pair_digest(&key, old));
            }
            pairs.push((key, old));
        }
        self.commits += 1;
        self.undo.push_back((before, pairs));
        Ok(())
    }
}

impl StateMap for SimMap {
    type View = MemoryMap;

    fn view(&mut self) -> Result<MemoryMap, Infallible> {
        Ok(self.map.clone())
    }

    fn scan_view(
        &self,
        view: &MemoryMap,
        from: &[u8],
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        view.scan(from, None, visit)
    }

    fn persist(&mut self, ticket: Ticket) -> Result<(), Infallible> {
        let kept = Kept { map: self.map.clone(), digest: self.digest };
        self.persisting = Some((ticket, self.commits, Box::new(kept)));
        Ok(())
    }

    fn persisted(&mut self, ticket: Ticket) {
        if let Some((_, commits, kept)) = self.persisting.take_if(|(asked, ..)| *asked == ticket) {
            (self.durable_commits, self.durable) = (commits, Some(kept));
        }
    }

    fn stage(&mut self, first: bool, pairs: Vec<(Bytes, Bytes)>) -> Result<(), Infallible> {
        if first {
            self.unstage();
        }
        pairs.into_iter().for_each(|(key, value)| self.staged.put(key, value));
        Ok(())
    }

    fn unstage(&mut self) {
        self.staged = WriteBatch::default();
    }

    fn install(&mut self, writes: WriteBatch) -> Result<(), Infallible> {
        self.map = MemoryMap::new();
        self.map.commit(std::mem::take(&mut self.staged))?;
        self.map.commit(writes)?;
        self.digest =
            self.map.iter().fold(0_u64, |digest, (key, value)| digest.wrapping_add(pair_digest(key, value)));
        self.forget();
        self.commits += 1;
        self.durable_commits = self.commits;
        self.durable = Some(Box::new(Kept { map: self.map.clone(), digest: self.digest }));
        Ok(())
    }
}

/// Digests of pairs are added up, so that the order in which they came does not matter. What is a
/// member's own business is left out.
fn pair_digest(key: &[u8], value: &[u8]) -> u64 {
    if is_own(key) {
        return 0;
    }
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
    fn what_was_made_durable_survives_every_crash() {
        for seed in 0..100 {
            let mut map = SimMap::new();
            put(&mut map, "a", "1");
            let Ok(()) = map.persist(Ticket(1));
            put(&mut map, "b", "2");
            map.persisted(Ticket(1));
            map.crash(&mut Rng::new(seed));
            assert_eq!(map.get(b"a"), Ok(Some(Bytes::from("1"))), "seed {seed}");
        }
    }

    #[test]
    fn what_was_installed_is_all_there_is_and_survives() {
        for seed in 0..20 {
            let mut map = SimMap::new();
            put(&mut map, "a", "1");
            let Ok(()) = map.stage(true, vec![(Bytes::from("b"), Bytes::from("2"))]);
            let Ok(()) = map.install(WriteBatch::default());
            map.crash(&mut Rng::new(seed));
            assert_eq!((map.get(b"a"), map.get(b"b")), (Ok(None), Ok(Some(Bytes::from("2")))));
            let mut same = SimMap::new();
            put(&mut same, "b", "2");
            assert_eq!(map.digest(), same.digest());
        }
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
