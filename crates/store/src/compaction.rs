//! Forgetting history: at once for readers, little by little in the map.
//!
//! A compaction to revision C refuses reads before C from then on. What C made unreadable is
//! removed by a *sweep*, a walk through the table of versions that advances a bounded number of
//! entries with every commit and whose place is stored with it. What a client sees never depends
//! on how far the sweep is: replicas may sweep at different paces.
//!
//! An entry is still needed if it is newer than C, or if it is the newest of its key up to C and
//! not a tombstone, and the current value is newer than C. A tombstone goes only after everything
//! older of its key: removed first, it would let a deleted value reappear between two steps.

use alloc::vec::Vec;
use core::mem;
use core::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};

use crate::layout::{
    CURRENT, Record, Stamp, Sweep, VERSIONS, Version, current_key, split_version_key,
    unescape_version_prefix, version_prefix,
};
use crate::map::OrderedMap;
use crate::proto::etcdserverpb::{CompactionRequest, CompactionResponse};
use crate::refusal::{Error, Refusal};
use crate::store::{CURRENT_VALUES, OLD_VERSIONS, Revision, Store, corrupt, header};

impl<M: OrderedMap> Store<M> {
    pub(crate) fn compact(
        &mut self,
        compaction: &CompactionRequest,
    ) -> Result<CompactionResponse, Error<M::Error>> {
        let target = compaction.revision;
        if target <= self.meta.compacted {
            return Err(Refusal::COMPACTED.into());
        }
        if target > self.meta.revision {
            return Err(Refusal::FUTURE_REVISION.into());
        }
        self.meta.compacted = target;
        // A sweep under way goes on; the next one follows it.
        self.meta.sweep.get_or_insert_with(|| Sweep { target, cursor: Bytes::new() });
        Ok(CompactionResponse { header: header(self.meta.revision) })
    }

    /// History that nobody can read any more is still in the map. Every commit removes some of
    /// it; a host that must have it gone, for a physical compaction, commits until this is false.
    pub fn is_sweeping(&self) -> bool {
        self.meta.sweep.is_some()
    }

    /// Goes on with the sweep, if there is one, over up to `entries_max` entries and at least two;
    /// the removals wait for the next commit. Commits do this by themselves: it is for a host that
    /// has time to spare.
    ///
    /// # Errors
    /// The map's.
    pub fn sweep(&mut self, entries_max: usize) -> Result<(), Error<M::Error>> {
        let Some(sweep) = self.meta.sweep.clone() else {
            return Ok(());
        };
        let mut judge = Judge::resume(sweep.target, &sweep.cursor)?;
        let mut from = BytesMut::from(&sweep.cursor[..]);
        // The first entry after the cursor; before all of them at the beginning.
        from.put_u8(if sweep.cursor.is_empty() { VERSIONS } else { 0 });
        let mut removals = Vec::new();
        // The tombstone of the key in hand, and the last entry that need not be seen again.
        let mut tombstone = None;
        let mut cursor = sweep.cursor.clone();
        let mut visited = 0;
        let mut finished = true;
        self.scan(&from, &[VERSIONS + 1], &mut |entry, record| {
            if visited >= entries_max.max(2) {
                finished = false;
                return Ok(ControlFlow::Break(()));
            }
            visited += 1;
            if judge.is_of_another_key(entry)? {
                removals.extend(tombstone.take());
            }
            match judge.judge(self, entry, record)? {
                Verdict::Needed => {}
                Verdict::Superseded => removals.push(entry.clone()),
                Verdict::DeadTombstone => tombstone = Some(entry.clone()),
            }
            if tombstone.is_none() {
                cursor = entry.clone();
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if finished {
            removals.extend(tombstone);
            let target = self.meta.compacted;
            self.meta.sweep = (sweep.target < target).then(|| Sweep { target, cursor: Bytes::new() });
        } else {
            self.meta.sweep = Some(Sweep { target: sweep.target, cursor });
        }
        for entry in removals {
            self.map.remove(entry);
        }
        Ok(())
    }

    /// A hash of everything that clients can read at the present revision, history included.
    /// Replicas that applied the same commands agree on it. It walks the whole store.
    ///
    /// # Errors
    /// The map's.
    pub fn fingerprint(&self) -> Result<u64, Error<M::Error>> {
        self.hash_at(self.revision())
    }

    /// The same as of an earlier revision, so that replicas can be compared of which one is
    /// behind; only between replicas with the same [`Store::compacted_revision`]. A revision of 0
    /// or less means the present one.
    ///
    /// # Errors
    /// Refuses a revision that is compacted or still to come; else the map's.
    pub fn hash_at(&self, revision: Revision) -> Result<u64, Error<M::Error>> {
        let at = self.revision_to_read(revision.0, self.meta.revision)?;
        // A sum, since the same version may lie in either table, depending on what came after.
        let mut sum = mix(at as u64).wrapping_add(mix(!self.meta.compacted as u64));
        self.scan(&[CURRENT], &[CURRENT + 1], &mut |entry, record| {
            let version = Version::decode(record).map_err(corrupt(CURRENT_VALUES))?;
            if version.modified.main <= at {
                sum = sum.wrapping_add(entry_hash(&version_prefix(&entry[1..]), version.modified, record));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut judge = Judge::resume(self.meta.compacted, &Bytes::new())?;
        self.scan(&[VERSIONS], &[VERSIONS + 1], &mut |entry, record| {
            if judge.judge(self, entry, record)? == Verdict::Needed {
                let (prefix, stamp) = split_version_key(entry).map_err(corrupt(OLD_VERSIONS))?;
                if stamp.main <= at {
                    sum = sum.wrapping_add(entry_hash(prefix, stamp, record));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(mix(sum))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Somebody may still read it.
    Needed,
    /// Nobody can read it any more.
    Superseded,
    /// Nobody can read it any more, once everything older of its key is gone.
    DeadTombstone,
}

/// Judges the entries of the table of versions one after the other.
struct Judge {
    target: i64,
    /// What the versions of the key in hand begin with.
    prefix: Bytes,
    /// No newer version of the key in hand came by.
    is_first: bool,
    /// The newest version up to the target came by.
    is_settled: bool,
}

impl Judge {
    /// A judge who has seen everything up to `cursor`, inside; or nothing, if that is empty.
    fn resume<E>(target: i64, cursor: &Bytes) -> Result<Self, Error<E>> {
        if cursor.is_empty() {
            return Ok(Self { target, prefix: Bytes::new(), is_first: true, is_settled: false });
        }
        let (prefix, stamp) = split_version_key(cursor).map_err(corrupt(OLD_VERSIONS))?;
        let prefix = cursor.slice(..prefix.len());
        Ok(Self { target, prefix, is_first: false, is_settled: stamp.main <= target })
    }

    fn is_of_another_key<E>(&self, entry: &Bytes) -> Result<bool, Error<E>> {
        let (prefix, _) = split_version_key(entry).map_err(corrupt(OLD_VERSIONS))?;
        Ok(prefix != self.prefix)
    }

    fn judge<M: OrderedMap>(
        &mut self,
        store: &Store<M>,
        entry: &Bytes,
        record: &Bytes,
    ) -> Result<Verdict, Error<M::Error>> {
        let (prefix, stamp) = split_version_key(entry).map_err(corrupt(OLD_VERSIONS))?;
        if prefix != self.prefix {
            self.prefix = entry.slice(..prefix.len());
            self.is_first = true;
            self.is_settled = false;
        }
        let is_first = mem::replace(&mut self.is_first, false);
        if stamp.main > self.target {
            return Ok(Verdict::Needed);
        }
        if mem::replace(&mut self.is_settled, true) {
            return Ok(Verdict::Superseded);
        }
        if Record::is_tombstone(record) {
            return Ok(Verdict::DeadTombstone);
        }
        if is_first {
            let key = unescape_version_prefix(prefix).map_err(corrupt(OLD_VERSIONS))?;
            if let Some((current, _)) = store.current(&current_key(&key))?
                && current.modified.main <= self.target
            {
                return Ok(Verdict::Superseded);
            }
        }
        Ok(Verdict::Needed)
    }
}

/// FNV-1a over one version, finished so that sums of hashes do not cancel. Stable across
/// platforms and releases, and no protection against somebody who wants a collision.
fn entry_hash(prefix: &[u8], stamp: Stamp, record: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let main = stamp.main.to_be_bytes();
    let sub = stamp.sub.to_be_bytes();
    // The prefix ends where it says, and the stamp is of one length: no two versions look alike.
    let bytes = prefix.iter().chain(&main).chain(&sub).chain(record);
    mix(bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
}

/// The finisher of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
