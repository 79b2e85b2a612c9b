//! The store against a model too simple to be wrong: one full copy of the keys per revision.

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use support::{Random, each_seed};
use synod_store::proto::etcdserverpb::compare::TargetUnion;
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::response_op::Response as Answer;
use synod_store::proto::etcdserverpb::*;
use synod_store::proto::mvccpb::KeyValue;
use synod_store::{Command, Error, Limits, MemoryMap, Refusal, Response, Revision, Store, validate};

type Keys = BTreeMap<Bytes, KeyValue>;

struct Model {
    /// The keys at each revision; the store begins at 1.
    history: Vec<Keys>,
    compacted: i64,
}

/// A transaction's own view.
struct Working {
    keys: Keys,
    changed: bool,
}

impl Model {
    fn new() -> Self {
        Self { history: vec![Keys::new(), Keys::new()], compacted: -1 }
    }

    fn revision(&self) -> i64 {
        self.history.len() as i64 - 1
    }

    fn now(&self) -> &Keys {
        self.history.last().unwrap()
    }

    fn apply(&mut self, command: &Command) -> Result<Response, Refusal> {
        let mut working = Working { keys: self.now().clone(), changed: false };
        let response = match command {
            Command::Put(put) => {
                self.check_put(put, true)?;
                Response::Put(self.put(put, &mut working)?)
            }
            Command::DeleteRange(delete) => Response::DeleteRange(self.delete(delete, &mut working)),
            Command::Txn(txn) => {
                self.check_puts(txn)?;
                self.check_ranges(txn)?;
                let mut response = self.txn(txn, &mut working)?;
                response.header = header(self.revision() + i64::from(working.changed));
                Response::Txn(response)
            }
            Command::Compact(CompactionRequest { revision, .. }) => {
                if *revision <= self.compacted {
                    return Err(Refusal::COMPACTED);
                }
                if *revision > self.revision() {
                    return Err(Refusal::FUTURE_REVISION);
                }
                self.compacted = *revision;
                Response::Compact(CompactionResponse { header: header(self.revision()) })
            }
        };
        if working.changed {
            self.history.push(working.keys);
        }
        Ok(response)
    }

    fn check_put(&self, put: &PutRequest, alone: bool) -> Result<(), Refusal> {
        let missing = (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key);
        match (missing, put.lease != 0) {
            (true, true) if alone => Err(Refusal::LEASE_NOT_FOUND),
            (true, _) => Err(Refusal::KEY_NOT_FOUND),
            (false, true) => Err(Refusal::LEASE_NOT_FOUND),
            (false, false) => Ok(()),
        }
    }

    fn side<'a>(&self, txn: &'a TxnRequest) -> (bool, &'a [RequestOp]) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        (holds, if holds { &txn.success } else { &txn.failure })
    }

    fn check_puts(&self, txn: &TxnRequest) -> Result<(), Refusal> {
        for op in self.side(txn).1 {
            match op.request.as_ref().unwrap() {
                Request::RequestPut(put) => self.check_put(put, false)?,
                Request::RequestTxn(nested) => self.check_puts(nested)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_ranges(&self, txn: &TxnRequest) -> Result<(), Refusal> {
        for op in self.side(txn).1 {
            match op.request.as_ref().unwrap() {
                Request::RequestRange(range) if range.revision > self.revision() => {
                    return Err(Refusal::FUTURE_REVISION);
                }
                Request::RequestRange(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Refusal::COMPACTED);
                }
                Request::RequestTxn(nested) => self.check_ranges(nested)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let chosen: Vec<_> = self
            .now()
            .values()
            .filter(|kv| within(&compare.key, &compare.range_end, &kv.key))
            .cloned()
            .collect();
        if chosen.is_empty() {
            return compare.target != 3 && meets(compare, &KeyValue::default());
        }
        chosen.iter().all(|kv| meets(compare, kv))
    }

    fn txn(&self, txn: &TxnRequest, working: &mut Working) -> Result<TxnResponse, Refusal> {
        let (succeeded, ops) = self.side(txn);
        let mut responses = vec![];
        for op in ops {
            let response = match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => Answer::ResponseRange(self.range(range, working)?),
                Request::RequestPut(put) => Answer::ResponsePut(self.put(put, working)?),
                Request::RequestDeleteRange(delete) => {
                    Answer::ResponseDeleteRange(self.delete(delete, working))
                }
                Request::RequestTxn(nested) => Answer::ResponseTxn(self.txn(nested, working)?),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: header(0), succeeded, responses })
    }

    fn put(&self, put: &PutRequest, working: &mut Working) -> Result<PutResponse, Refusal> {
        let next = self.revision() + 1;
        let old = working.keys.get(&put.key).cloned();
        if old.is_none() && (put.ignore_value || put.ignore_lease) {
            return Err(Refusal::KEY_NOT_FOUND);
        }
        let new = KeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(next, |old| old.create_revision),
            mod_revision: next,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            value: match &old {
                Some(old) if put.ignore_value => old.value.clone(),
                _ => put.value.clone(),
            },
            lease: 0,
        };
        working.keys.insert(put.key.clone(), new);
        working.changed = true;
        Ok(PutResponse { header: header(next), prev_kv: old.filter(|_| put.prev_kv) })
    }

    fn delete(&self, delete: &DeleteRangeRequest, working: &mut Working) -> DeleteRangeResponse {
        let mut gone = vec![];
        working.keys.retain(|key, kv| {
            let doomed = within(&delete.key, &delete.range_end, key);
            if doomed {
                gone.push(kv.clone());
            }
            !doomed
        });
        working.changed |= !gone.is_empty();
        DeleteRangeResponse {
            header: header(self.revision() + i64::from(working.changed)),
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { vec![] },
        }
    }

    fn range(&self, range: &RangeRequest, working: &Working) -> Result<RangeResponse, Refusal> {
        let now = self.revision() + i64::from(working.changed);
        if range.revision > now {
            return Err(Refusal::FUTURE_REVISION);
        }
        let at = if range.revision <= 0 { now } else { range.revision };
        if at < self.compacted {
            return Err(Refusal::COMPACTED);
        }
        let keys = if at == now { &working.keys } else { &self.history[at as usize] };
        let mut kvs: Vec<_> =
            keys.values().filter(|kv| within(&range.key, &range.range_end, &kv.key)).cloned().collect();
        let count = kvs.len() as i64;
        if range.count_only {
            kvs.clear();
        }
        kvs.retain(|kv| {
            (range.max_mod_revision == 0 || kv.mod_revision <= range.max_mod_revision)
                && (range.min_mod_revision == 0 || kv.mod_revision >= range.min_mod_revision)
                && (range.max_create_revision == 0 || kv.create_revision <= range.max_create_revision)
                && (range.min_create_revision == 0 || kv.create_revision >= range.min_create_revision)
        });
        let filters = [
            range.max_mod_revision,
            range.min_mod_revision,
            range.max_create_revision,
            range.min_create_revision,
        ];
        if range.limit > 0 && range.sort_order == 0 && filters == [0; 4] {
            kvs.truncate(range.limit as usize + 1);
        }
        let descending = range.sort_order == 2;
        kvs.sort_by(|a, b| {
            let (a, b) = if descending { (b, a) } else { (a, b) };
            match range.sort_target {
                0 => a.key.cmp(&b.key),
                1 => a.version.cmp(&b.version),
                2 => a.create_revision.cmp(&b.create_revision),
                3 => a.mod_revision.cmp(&b.mod_revision),
                _ => a.value.cmp(&b.value),
            }
        });
        let more = range.limit > 0 && kvs.len() as i64 > range.limit;
        if more {
            kvs.truncate(range.limit as usize);
        }
        if range.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        Ok(RangeResponse { header: header(now), kvs, more, count })
    }

    fn range_now(&self, range: &RangeRequest) -> Result<RangeResponse, Refusal> {
        self.range(range, &Working { keys: self.now().clone(), changed: false })
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn within(from: &Bytes, end: &Bytes, key: &Bytes) -> bool {
    match &end[..] {
        [] => key == from,
        [0] => key >= from,
        _ => key >= from && key < end,
    }
}

fn meets(compare: &Compare, kv: &KeyValue) -> bool {
    let number = match compare.target_union {
        Some(
            TargetUnion::Version(n)
            | TargetUnion::CreateRevision(n)
            | TargetUnion::ModRevision(n)
            | TargetUnion::Lease(n),
        ) => n,
        _ => 0,
    };
    let value = match &compare.target_union {
        Some(TargetUnion::Value(value)) => value.clone(),
        _ => Bytes::new(),
    };
    let ordering = match compare.target {
        0 => kv.version.cmp(&number),
        1 => kv.create_revision.cmp(&number),
        2 => kv.mod_revision.cmp(&number),
        3 => kv.value.cmp(&value),
        _ => kv.lease.cmp(&number),
    };
    match compare.result {
        0 => ordering.is_eq(),
        1 => ordering.is_gt(),
        2 => ordering.is_lt(),
        _ => ordering.is_ne(),
    }
}

fn refused<T, E: std::fmt::Debug>(result: Result<T, Error<E>>) -> Result<T, Refusal> {
    result.map_err(|error| error.refusal().unwrap_or_else(|| panic!("{error:?}")).clone())
}

/// Commands as a member proposes them: only what validation lets through.
fn proposed(random: &mut Random, revision: i64) -> Command {
    loop {
        let command = random.command(revision);
        if validate(&command, &Limits::default()).is_ok() {
            return command;
        }
    }
}

#[test]
fn answers_and_history_are_the_models() {
    each_seed(500, |seed| {
        let mut random = Random(seed);
        let mut model = Model::new();
        let mut store = Store::open(MemoryMap::new()).unwrap();
        for step in 0..120 {
            let command = proposed(&mut random, model.revision());
            let expected = model.apply(&command);
            assert_eq!(refused(store.apply(&command)), expected, "step {step}: {command:?}");
            if random.one_in(3) {
                store.sweep(2).unwrap();
            }
            if random.one_in(20) {
                store.commit().unwrap();
            }
            assert_eq!(store.revision(), Revision(model.revision()));
            assert_eq!(store.compacted_revision(), Revision(model.compacted));
            assert_eq!(store.key_count(), model.now().len() as u64);
            for _ in 0..3 {
                let range = random.range(model.revision());
                let expected = model.range_now(&range);
                assert_eq!(refused(store.range(&range)), expected, "step {step}: {range:?}");
            }
        }
    });
}

#[test]
fn replicas_agree_however_they_batch_sweep_and_restart() {
    each_seed(200, |seed| {
        let mut random = Random(seed);
        let mut eager = Store::open(MemoryMap::new()).unwrap();
        let mut lazy = Store::open(MemoryMap::new()).unwrap();
        for step in 0..150 {
            let command = proposed(&mut random, eager.revision().0);
            let answer = refused(eager.apply(&command));
            eager.commit().unwrap();
            eager = Store::open(eager.into_map()).unwrap();
            assert_eq!(refused(lazy.apply(&command)), answer, "step {step}: {command:?}");
            if random.one_in(4) {
                lazy.sweep(2 + random.below(3) as usize).unwrap();
            }
            if random.one_in(50) {
                lazy.commit().unwrap();
            }
            assert_eq!(eager.fingerprint(), lazy.fingerprint(), "step {step}: {command:?}");
        }
        for store in [&mut lazy, &mut eager] {
            store.commit().unwrap();
            while store.is_sweeping() {
                store.commit().unwrap();
            }
        }
        assert_eq!(eager.map(), lazy.map(), "once swept, the maps are the same, byte for byte");
    });
}

#[test]
fn a_replica_that_is_behind_hashes_like_one_that_is_ahead() {
    each_seed(100, |seed| {
        let mut random = Random(seed);
        let mut behind = Store::open(MemoryMap::new()).unwrap();
        for _ in 0..80 {
            let _ = behind.apply(&proposed(&mut random, behind.revision().0));
        }
        let mut ahead = behind.clone();
        for _ in 0..40 {
            let command = proposed(&mut random, ahead.revision().0);
            if !matches!(command, Command::Compact(_)) {
                let _ = ahead.apply(&command);
            }
        }
        ahead.commit().unwrap();
        assert_eq!(ahead.hash_at(behind.revision()), behind.fingerprint());
        if ahead.revision() != behind.revision() {
            assert_ne!(ahead.fingerprint(), behind.fingerprint());
        }
    });
}

#[test]
fn compacting_everything_leaves_the_current_values_alone() {
    each_seed(100, |seed| {
        let mut random = Random(seed);
        let mut store = Store::open(MemoryMap::new()).unwrap();
        for _ in 0..100 {
            let _ = store.apply(&proposed(&mut random, store.revision().0));
        }
        let now = store.revision().0;
        if store.compacted_revision().0 < now {
            store.apply(&support::compact(now)).unwrap();
        }
        // A sweep under way first ends, then the one for this compaction follows.
        while store.is_sweeping() {
            store.sweep(2).unwrap();
        }
        store.commit().unwrap();
        let numbers = 1;
        assert_eq!(store.map().len() as u64, store.key_count() + numbers);
    });
}
