//! The state machine: opening, applying, committing.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;

use crate::command::{Command, Response};
use crate::layout::{
    Damage, Meta, NODE, Record, Span, Stamp, Version, current_key, node_key, user_key, version_key,
};
use crate::map::OrderedMap;
use crate::overlay::Overlay;
use crate::proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, ResponseHeader,
};
use crate::refusal::{Code, Error, Refusal};
use crate::validate::{check_key, check_range_end};

/// The most bytes that one command may return, in keys and values, each key-value counted with
/// [`KEY_VALUE_OVERHEAD_BYTES`] on top: 64 MiB. Part of the replicated semantics, and so no
/// configuration: a transaction that reads more is refused by every member alike.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a key-value counts for beyond its key and value, in bytes: its numbers and its frame.
pub const KEY_VALUE_OVERHEAD_BYTES: usize = 48;

/// The most bytes of keys and values that one command may delete, counted as in
/// [`RESPONSE_BYTES_MAX`]: 256 MiB. They all stay in memory until the batch is committed.
pub const DELETE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How many old versions a commit looks at, at least, while history is being removed after a
/// compaction; twice as many as the batch wrote if that is more, so that removal keeps ahead.
pub const SWEEP_ENTRIES_MIN: usize = 512;

/// A point in the history of the store. A store begins at revision 1, and every command that
/// changes something makes the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl core::fmt::Display for Revision {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// The replicated key-value store over an ordered map.
///
/// Replicas that apply the same commands in the same order answer the same and hold the same.
/// Applied commands are seen by reads at once, and reach the map at [`Store::commit`].
#[derive(Clone, Debug)]
pub struct Store<M> {
    pub(crate) map: Overlay<M>,
    pub(crate) meta: Meta,
    /// `meta` as the map has it.
    committed_meta: Meta,
}

/// A change in the making: the revision that it will have, and what it did so far.
pub(crate) struct Change {
    pub(crate) revision: i64,
    /// Changes of keys so far.
    pub(crate) count: u32,
    pub(crate) returned: Budget,
    deleted: Budget,
}

impl Change {
    /// What the store's revision is as seen from inside the change.
    pub(crate) fn revision_seen(&self) -> i64 {
        if self.count == 0 { self.revision - 1 } else { self.revision }
    }

    fn next_stamp(&mut self) -> Stamp {
        let stamp = Stamp { main: self.revision, sub: self.count };
        self.count += 1;
        stamp
    }
}

/// Sees one stored pair; may end the scan, or fail.
pub(crate) type VisitPair<'a, E> = &'a mut dyn FnMut(&Bytes, &Bytes) -> Result<ControlFlow<()>, Error<E>>;

/// How many bytes may still be spent.
pub(crate) struct Budget {
    left: usize,
    refusal: fn() -> Refusal,
}

impl Budget {
    pub(crate) fn of_response() -> Self {
        Self {
            left: RESPONSE_BYTES_MAX,
            refusal: || {
                Refusal::new(
                    Code::ResourceExhausted,
                    "the answer would be larger than 64 MiB: set a limit and read on from the last key, or ask \
                     for keys only",
                )
            },
        }
    }

    fn of_deletion() -> Self {
        Self {
            left: DELETE_BYTES_MAX,
            refusal: || {
                Refusal::new(
                    Code::ResourceExhausted,
                    "more than 256 MiB of keys and values would be deleted at once: delete smaller ranges, one \
                     after the other",
                )
            },
        }
    }

    pub(crate) fn refund(&mut self, key: usize, value: usize) {
        self.left += key + value + KEY_VALUE_OVERHEAD_BYTES;
    }

    pub(crate) fn spend(&mut self, key: usize, value: usize) -> Result<(), Refusal> {
        match self.left.checked_sub(key + value + KEY_VALUE_OVERHEAD_BYTES) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err((self.refusal)()),
        }
    }
}

pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

pub(crate) fn corrupt<E>(table: &'static str) -> impl Fn(Damage) -> Error<E> {
    move |Damage(what)| Error::Corrupt { table, what }
}

pub(crate) const CURRENT_VALUES: &str = "current values";
pub(crate) const OLD_VERSIONS: &str = "old versions";

fn stored_meta<M: OrderedMap>(map: &M) -> Result<Meta, Error<M::Error>> {
    match map.get(Meta::KEY).map_err(Error::Map)? {
        Some(bytes) => Meta::decode(&bytes).map_err(corrupt("the store's own numbers")),
        None => Ok(Meta::NEW),
    }
}

impl<M: OrderedMap> Store<M> {
    /// Opens the store that `map` holds; an empty map is an empty store.
    ///
    /// # Errors
    /// The map's, and [`Error::Corrupt`] where the map holds something else.
    pub fn open(map: M) -> Result<Self, Error<M::Error>> {
        let meta = stored_meta(&map)?;
        Ok(Self { map: Overlay::new(map), committed_meta: meta.clone(), meta })
    }

    /// Carries out one committed command. A refusal is part of the replicated semantics: every
    /// replica refuses alike, and nothing has changed.
    ///
    /// # Errors
    /// [`Error::Refused`] with what to tell the client; else the map's, after which the store
    /// must be dropped.
    pub fn apply(&mut self, command: &Command) -> Result<Response, Error<M::Error>> {
        match command {
            Command::Put(put) => {
                if put.lease != 0 {
                    return Err(Refusal::LEASE_NOT_FOUND.into());
                }
                let mut change = self.begin_change();
                let response = self.put(put, &mut change)?;
                self.end_change(&change);
                Ok(Response::Put(response))
            }
            Command::DeleteRange(delete) => {
                let mut change = self.begin_change();
                let response = self.delete_range(delete, &mut change)?;
                self.end_change(&change);
                Ok(Response::DeleteRange(response))
            }
            Command::Txn(txn) => self.apply_txn(txn).map(Response::Txn),
            Command::Compact(compaction) => self.compact(compaction).map(Response::Compact),
        }
    }

    /// Hands everything applied since the last commit to the map, in one piece, with the node's
    /// own writes. After a compaction it also removes some of the history that nobody can read
    /// any more: see [`Store::is_sweeping`].
    ///
    /// # Errors
    /// The map's, after which the store must be dropped: what it holds in memory may not be what
    /// the map holds.
    pub fn commit(&mut self) -> Result<(), Error<M::Error>> {
        if self.is_sweeping() {
            self.sweep(SWEEP_ENTRIES_MIN.max(2 * self.map.pending_len()))?;
        }
        if self.meta != self.committed_meta {
            self.map.put(Bytes::from_static(Meta::KEY), self.meta.encode());
            self.committed_meta = self.meta.clone();
        }
        self.map.commit().map_err(Error::Map)
    }

    /// The revision of the last change; 1 for a store that was never changed.
    pub fn revision(&self) -> Revision {
        Revision(self.meta.revision)
    }

    /// The revision up to which history was forgotten; -1 before the first compaction, as etcd
    /// has it.
    pub fn compacted_revision(&self) -> Revision {
        Revision(self.meta.compacted)
    }

    /// The number of keys that exist now.
    pub fn key_count(&self) -> u64 {
        self.meta.key_count
    }

    /// The map below, without what is applied and not yet committed.
    pub fn map(&self) -> &M {
        self.map.base()
    }

    /// The map below, for what an engine needs beside the store: to flush, to measure. Writing to
    /// the store's keys behind its back breaks it.
    pub fn map_mut(&mut self) -> &mut M {
        self.map.base_mut()
    }

    /// The map below; what was applied and not committed is gone, as after a crash.
    pub fn into_map(self) -> M {
        self.map.into_base()
    }

    /// Lets `replace` put another store's pairs into the map below, and goes on from them. What is
    /// applied and not yet committed is gone.
    ///
    /// # Errors
    /// The map's, and [`Error::Corrupt`] where it then holds something else; in both cases the store
    /// must be dropped.
    pub fn replace(
        &mut self,
        replace: impl FnOnce(&mut M) -> Result<(), M::Error>,
    ) -> Result<(), Error<M::Error>> {
        self.map.forget_pending();
        replace(self.map.base_mut()).map_err(Error::Map)?;
        self.meta = stored_meta(self.map.base())?;
        self.committed_meta = self.meta.clone();
        Ok(())
    }

    /// The key in the map under which [`Store::node_put`] keeps a pair of the node's own.
    pub fn node_map_key(key: &[u8]) -> Bytes {
        node_key(key)
    }

    /// Writes a pair of the node's own, kept apart from the clients' keys, committed with them.
    /// Keys up to [`MAP_KEY_BYTES_MAX`](crate::MAP_KEY_BYTES_MAX) - 1 bytes.
    pub fn node_put(&mut self, key: &[u8], value: Bytes) {
        self.node_put_at(node_key(key), value);
    }

    /// As [`Store::node_put`], under a key that [`Store::node_map_key`] has made: for pairs that are written often.
    ///
    /// # Panics
    /// If the key is one of the clients'.
    pub fn node_put_at(&mut self, map_key: Bytes, value: Bytes) {
        assert_eq!(map_key.first(), Some(&NODE), "a key of the node's own");
        self.map.put(map_key, value);
    }

    /// Removes a pair of the node's own.
    pub fn node_remove(&mut self, key: &[u8]) {
        self.map.remove(node_key(key));
    }

    /// Reads a pair of the node's own, also one not yet committed.
    ///
    /// # Errors
    /// The map's.
    pub fn node_get(&self, key: &[u8]) -> Result<Option<Bytes>, M::Error> {
        self.map.get(&node_key(key))
    }

    /// Visits the node's own pairs whose keys begin with `prefix`, in order, also those not yet
    /// committed, until `visit` breaks.
    ///
    /// # Errors
    /// The map's.
    pub fn node_scan(
        &self,
        prefix: &[u8],
        visit: &mut dyn FnMut(Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), M::Error> {
        self.node_scan_from(prefix, prefix, visit)
    }

    /// The same from the key `from` on; what comes before it is not looked at.
    ///
    /// # Errors
    /// The map's.
    pub fn node_scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        visit: &mut dyn FnMut(Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), M::Error> {
        let prefix = node_key(prefix);
        let from = node_key(from).max(prefix.clone());
        self.map.scan(&from, Some(&[NODE + 1]), &mut |key, value| {
            if !key.starts_with(&prefix) {
                return ControlFlow::Break(());
            }
            visit(key.slice(1..), value)
        })
    }

    pub(crate) fn begin_change(&self) -> Change {
        Change {
            revision: self.meta.revision + 1,
            count: 0,
            returned: Budget::of_response(),
            deleted: Budget::of_deletion(),
        }
    }

    pub(crate) fn end_change(&mut self, change: &Change) {
        debug_assert_eq!(change.revision, self.meta.revision + 1, "one change at a time");
        self.meta.revision = change.revision_seen();
    }

    pub(crate) fn current(&self, current: &[u8]) -> Result<Option<(Version, Bytes)>, Error<M::Error>> {
        let Some(record) = self.map.get(current).map_err(Error::Map)? else {
            return Ok(None);
        };
        let version = Version::decode(&record).map_err(corrupt(CURRENT_VALUES))?;
        Ok(Some((version, record)))
    }

    pub(crate) fn put(
        &mut self,
        put: &PutRequest,
        change: &mut Change,
    ) -> Result<PutResponse, Error<M::Error>> {
        check_key(&put.key)?;
        let key = current_key(&put.key);
        let old = self.current(&key)?;
        if old.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(Refusal::KEY_NOT_FOUND.into());
        }
        let mut prev_kv = None;
        if put.prev_kv
            && let Some((old, _)) = &old
        {
            change.returned.spend(put.key.len(), old.value.len())?;
            prev_kv = Some(old.clone().into_key_value(put.key.clone()));
        }
        let stamp = change.next_stamp();
        let mut new = Version {
            created: stamp.main,
            modified: stamp,
            version: 1,
            lease: put.lease,
            value: put.value.clone(),
        };
        match old {
            Some((old, record)) => {
                new.created = old.created;
                new.version = old.version + 1;
                if put.ignore_value {
                    new.value = old.value;
                }
                if put.ignore_lease {
                    new.lease = old.lease;
                }
                self.map.put(version_key(&put.key, old.modified), record);
            }
            None => self.meta.key_count += 1,
        }
        self.map.put(key, new.encode());
        Ok(PutResponse { header: header(stamp.main), prev_kv })
    }

    pub(crate) fn delete_range(
        &mut self,
        delete: &DeleteRangeRequest,
        change: &mut Change,
    ) -> Result<DeleteRangeResponse, Error<M::Error>> {
        check_key(&delete.key)?;
        check_range_end(&delete.range_end)?;
        let doomed = self.doomed(Span::new(&delete.key, &delete.range_end), change)?;
        let mut prev_kvs = Vec::new();
        if delete.prev_kv {
            for (key, record) in &doomed {
                let old = Version::decode(record).map_err(corrupt(CURRENT_VALUES))?;
                change.returned.spend(key.len(), old.value.len())?;
                prev_kvs.push(old.into_key_value(user_key(key)));
            }
        }
        let deleted = doomed.len();
        for (key, record) in doomed {
            let modified = Version::decode(&record).map_err(corrupt(CURRENT_VALUES))?.modified;
            self.map.put(version_key(&key[1..], modified), record);
            self.map.put(version_key(&key[1..], change.next_stamp()), Record::TOMBSTONE);
            self.map.remove(key);
        }
        self.meta.key_count = self.meta.key_count.saturating_sub(deleted as u64);
        Ok(DeleteRangeResponse { header: header(change.revision_seen()), deleted: deleted as i64, prev_kvs })
    }

    /// The current values of the keys in `span`, as entries of their table.
    fn doomed(&self, span: Span<'_>, change: &mut Change) -> Result<Vec<(Bytes, Bytes)>, Error<M::Error>> {
        let mut doomed = Vec::new();
        if let Span::One(key) = span {
            let key = current_key(key);
            if let Some(record) = self.map.get(&key).map_err(Error::Map)? {
                doomed.push((key, record));
            }
            return Ok(doomed);
        }
        let (from, to) = span.in_current();
        self.scan(&from, &to, &mut |key, record| {
            change.deleted.spend(key.len(), record.len())?;
            doomed.push((key.clone(), record.clone()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(doomed)
    }

    /// Scans the map with its pending writes; `visit` may fail.
    pub(crate) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: VisitPair<'_, M::Error>,
    ) -> Result<(), Error<M::Error>> {
        let mut failure = None;
        self.map
            .scan(from, Some(to), &mut |key, record| {
                visit(key, record).unwrap_or_else(|error| {
                    failure = Some(error);
                    ControlFlow::Break(())
                })
            })
            .map_err(Error::Map)?;
        failure.map_or(Ok(()), Err)
    }
}
