//! The storage below a simulated state machine: an ordered map that need not sync, and that a crash
//! puts back to an earlier commit.
//!
//! It keeps a digest of what it holds, so that replicas can be compared after every commit
//! without walking through them.

use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::Hasher;
use std::ops::ControlFlow;
use std::rc::Rc;
use synod_node::kv::{StateMap, is_own};
use synod_protocols::log::Ticket;
use synod_protocols::{Fingerprint, Rng};
use synod_store::{MemoryMap, OrderedMap, WriteBatch};

/// Commits of one life that a crash undoes at most, unless it undoes all that need not have been kept.
const UNDO_MAX: u64 = 8;

/// A handle on the storage of one machine, which outlives the state machine above it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimMap(Rc<RefCell<Storage>>);

/// An ordered map in memory whose commits a crash may undo.
#[derive(Debug, Default)]
struct Storage {
    map: MemoryMap,
    digest: u64,
    /// How many commits there were, how many of them a crash cannot undo, and how many came before this life.
    commits: u64,
    durable: u64,
    before: u64,
    /// The commits since the durable ones: the digest before each, and how many pairs it replaced.
    undo: VecDeque<(u64, u32)>,
    /// What these pairs held before, in the same order.
    replaced: VecDeque<(Bytes, Option<Bytes>)>,
    /// The commits that are being made durable.
    persisting: Option<(Ticket, u64)>,
    /// Pairs of another member's state.
    staged: WriteBatch,
}

impl SimMap {
    /// An empty map.
    pub(crate) fn new() -> SimMap {
        SimMap::default()
    }

    /// A digest of all pairs, whatever the way they came there.
    pub(crate) fn digest(&self) -> u64 {
        self.0.borrow().digest
    }

    /// What a crash leaves: everything up to some commit, at the worst what was made durable.
    pub(crate) fn crash(&self, rng: &mut Rng) {
        if rng.chance(1, 8) {
            return self.lose();
        }
        let mut storage = self.0.borrow_mut();
        let undoable = (storage.commits - storage.durable.max(storage.before)).min(UNDO_MAX);
        let undone = rng.below(undoable + 1);
        storage.undo(undone);
        storage.begin_life();
    }

    /// Everything goes that need not have been kept.
    pub(crate) fn lose(&self) {
        let mut storage = self.0.borrow_mut();
        let undone = storage.commits - storage.durable;
        storage.undo(undone);
        storage.begin_life();
    }
}

impl Storage {
    fn undo(&mut self, commits: u64) {
        for _ in 0..commits {
            let (digest, count) = self.undo.pop_back().expect("all since the durable ones are kept");
            for (key, old) in self.replaced.drain(self.replaced.len() - count as usize..) {
                self.map.replace(key, old);
            }
            self.digest = digest;
            self.commits -= 1;
        }
    }

    /// What only a running member knows is gone.
    fn begin_life(&mut self) {
        self.before = self.commits;
        self.persisting = None;
        self.staged = WriteBatch::default();
    }

    fn commit(&mut self, writes: WriteBatch) {
        let before = self.digest;
        let count = writes.len() as u32;
        for (key, value) in writes {
            if let Some(value) = &value {
                self.digest = self.digest.wrapping_add(pair_digest(&key, value));
            }
            let (key, old) = self.map.replace(key, value);
            if let Some(old) = &old {
                self.digest = self.digest.wrapping_sub(pair_digest(&key, old));
            }
            self.replaced.push_back((key, old));
        }
        self.commits += 1;
        self.undo.push_back((before, count));
    }

    /// All commits up to this one are durable.
    fn keep(&mut self, commits: u64) {
        let kept = self.undo.drain(..(commits - self.durable) as usize);
        let pairs: usize = kept.map(|(_, count)| count as usize).sum();
        self.replaced.drain(..pairs);
        self.durable = commits;
    }
}

impl OrderedMap for SimMap {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
        self.0.borrow().map.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        self.0.borrow().map.scan(from, to, visit)
    }

    fn commit(&mut self, writes: WriteBatch) -> Result<(), Infallible> {
        self.0.borrow_mut().commit(writes);
        Ok(())
    }
}

impl StateMap for SimMap {
    type View = MemoryMap;

    fn view(&mut self) -> Result<MemoryMap, Infallible> {
        Ok(self.0.borrow().map.clone())
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
        let mut storage = self.0.borrow_mut();
        storage.persisting = Some((ticket, storage.commits));
        Ok(())
    }

    fn persisted(&mut self, ticket: Ticket) {
        let mut storage = self.0.borrow_mut();
        if let Some((_, commits)) = storage.persisting.take_if(|(asked, _)| *asked == ticket) {
            storage.keep(commits);
        }
    }

    fn stage(&mut self, first: bool, pairs: Vec<(Bytes, Bytes)>) -> Result<(), Infallible> {
        if first {
            self.unstage();
        }
        let mut storage = self.0.borrow_mut();
        pairs.into_iter().for_each(|(key, value)| storage.staged.put(key, value));
        Ok(())
    }

    fn unstage(&mut self) {
        self.0.borrow_mut().staged = WriteBatch::default();
    }

    fn install(&mut self, writes: WriteBatch) -> Result<(), Infallible> {
        let mut storage = self.0.borrow_mut();
        (storage.map, storage.digest) = (MemoryMap::new(), 0);
        let staged = std::mem::take(&mut storage.staged);
        storage.commit(staged);
        storage.commit(writes);
        storage.persisting = None;
        let commits = storage.commits;
        storage.keep(commits);
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
