//! Random commands and reads over few keys, so that they meet; and shorthands for requests.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use bytes::Bytes;
use synod_store::Command;
use synod_store::proto::etcdserverpb::compare::TargetUnion;
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Keys that are each other's prefixes and neighbours, with the bytes that an encoding could trip
/// over.
pub const KEYS: [&[u8]; 12] = [
    b"a",
    b"a\0",
    b"a\0\0",
    b"a\0\x01",
    b"a\0\xff",
    b"a\x01",
    b"ab",
    b"b",
    b"c\xff",
    b"\0",
    b"\xff",
    b"\xff\xff",
];

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn key(&mut self) -> Bytes {
        Bytes::from_static(self.pick(&KEYS))
    }

    pub fn value(&mut self) -> Bytes {
        Bytes::from_static(self.pick(&[&b""[..], b"\0", b"x", b"y", b"a longer value"]))
    }

    pub fn range_end(&mut self) -> Bytes {
        match self.below(4) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(b"\0"),
            _ => self.key(),
        }
    }

    pub fn command(&mut self, revision: i64) -> Command {
        match self.below(20) {
            0..=8 => Command::Put(self.put()),
            9..=12 => Command::DeleteRange(self.delete()),
            13 => Command::Compact(CompactionRequest { revision: self.revision(revision), physical: false }),
            _ => Command::Txn(self.txn(revision, 0)),
        }
    }

    pub fn put(&mut self) -> PutRequest {
        let ignore_value = self.one_in(8);
        PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if self.one_in(40) { 7 } else { 0 },
            prev_kv: self.one_in(2),
            ignore_value,
            ignore_lease: self.one_in(8),
        }
    }

    pub fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.one_in(2) }
    }

    /// Often now, sometimes then, rarely wrong.
    pub fn revision(&mut self, revision: i64) -> i64 {
        match self.below(8) {
            0..=2 => 0,
            3 => revision + self.below(3) as i64 - 1,
            4 => -1,
            _ => revision - self.below(12) as i64,
        }
    }

    pub fn range(&mut self, revision: i64) -> RangeRequest {
        let bound = |random: &mut Self| if random.one_in(6) { random.revision(revision).max(0) } else { 0 };
        RangeRequest {
            min_mod_revision: bound(self),
            max_mod_revision: bound(self),
            min_create_revision: bound(self),
            max_create_revision: bound(self),
            key: self.key(),
            range_end: self.range_end(),
            limit: self.below(8) as i64 - 1,
            revision: self.revision(revision),
            sort_order: self.below(3) as i32,
            sort_target: if self.one_in(2) { 0 } else { self.below(5) as i32 },
            serializable: self.one_in(2),
            keys_only: self.one_in(4),
            count_only: self.one_in(8),
        }
    }

    pub fn compare(&mut self, revision: i64) -> Compare {
        let number = match self.below(3) {
            0 => 0,
            1 => self.below(4) as i64,
            _ => self.revision(revision),
        };
        let (target, union) = match self.below(5) {
            0 => (0, TargetUnion::Version(number)),
            1 => (1, TargetUnion::CreateRevision(number)),
            2 => (2, TargetUnion::ModRevision(number)),
            3 => (3, TargetUnion::Value(self.value())),
            _ => (4, TargetUnion::Lease(number)),
        };
        Compare {
            result: self.below(4) as i32,
            target,
            key: self.key(),
            target_union: (!self.one_in(10)).then_some(union),
            range_end: if self.one_in(3) { self.range_end() } else { Bytes::new() },
        }
    }

    pub fn txn(&mut self, revision: i64, depth: u32) -> TxnRequest {
        let compare = (0..self.below(3)).map(|_| self.compare(revision)).collect();
        let side = |random: &mut Self| {
            (0..random.below(4)).map(|_| RequestOp { request: Some(random.op(revision, depth)) }).collect()
        };
        TxnRequest { compare, success: side(self), failure: side(self) }
    }

    fn op(&mut self, revision: i64, depth: u32) -> Request {
        match self.below(if depth < 2 { 8 } else { 6 }) {
            0..=2 => Request::RequestPut(self.put()),
            3 => Request::RequestDeleteRange(self.delete()),
            4 | 5 => {
                let mut range = self.range(revision);
                if !self.one_in(8) {
                    range.revision = 0;
                }
                Request::RequestRange(range)
            }
            _ => Request::RequestTxn(self.txn(revision, depth + 1)),
        }
    }
}

/// The seeds to try: the one in `SEED`, else `count` of them. A failure prints its seed.
pub fn each_seed(count: u64, mut test: impl FnMut(u64)) {
    if let Ok(seed) = std::env::var("SEED") {
        return test(seed.parse().expect("SEED must be a number"));
    }
    for seed in 0..count {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(seed)));
        if let Err(panic) = result {
            let name = std::thread::current().name().unwrap_or("model").to_owned();
            eprintln!("replay with: SEED={seed} cargo test -p synod-store {name}");
            std::panic::resume_unwind(panic);
        }
    }
}

pub fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

pub fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false }
}

pub fn range(key: &'static str, range_end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: range_end.into(), ..RangeRequest::default() }
}

pub fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub fn put_op(key: &'static str, value: &'static str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

pub fn delete_op(key: &'static str, range_end: &'static str) -> RequestOp {
    op(Request::RequestDeleteRange(delete(key, range_end)))
}

pub fn range_op(key: &'static str, range_end: &'static str) -> RequestOp {
    op(Request::RequestRange(range(key, range_end)))
}

pub fn txn_op(txn: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(txn))
}

pub fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { compare, success, failure }
}

pub fn compact(revision: i64) -> Command {
    Command::Compact(CompactionRequest { revision, physical: false })
}
