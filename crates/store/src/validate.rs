//! What a member checks before it proposes a command: the same checks as etcd's, in the same
//! order, with the same texts, since clients match on them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use core::ops::Bound;

use prost::Message;

use crate::command::Command;
use crate::layout::KEY_BYTES_MAX;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare, request_op,
};
use crate::refusal::{Code, Refusal};

/// How deep transactions may nest, the outermost included. It bounds the stack.
pub const TXN_DEPTH_MAX: usize = 32;

/// How large a request may be. Each member checks the requests that it proposes, so members may
/// differ in their limits without differing in their state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest encoded request, in bytes. etcd's default: 1.5 MiB.
    pub request_bytes_max: usize,
    /// The longest value, in bytes. As long as a request by default, as in etcd.
    pub value_bytes_max: usize,
    /// The most operations in each list of a transaction, nested ones added to those around
    /// them. etcd's default: 128.
    pub txn_ops_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const REQUEST_BYTES_MAX: usize = 1536 * 1024;
        Self { request_bytes_max: REQUEST_BYTES_MAX, value_bytes_max: REQUEST_BYTES_MAX, txn_ops_max: 128 }
    }
}

/// Checks a command before it is proposed.
///
/// # Errors
/// The refusal to send to the client.
pub fn validate(command: &Command, limits: &Limits) -> Result<(), Refusal> {
    if command.request_len() > limits.request_bytes_max {
        return Err(Refusal::REQUEST_TOO_LARGE);
    }
    match command {
        Command::Put(put) => validate_put(put, limits),
        Command::DeleteRange(delete) => validate_delete(delete),
        Command::Txn(txn) => {
            validate_txn(txn, limits, limits.txn_ops_max, TXN_DEPTH_MAX)?;
            // Afterwards, since only then the number of operations is known to be bounded.
            Writes::of(&txn.success)?;
            Writes::of(&txn.failure)?;
            Ok(())
        }
        Command::Compact(_) => Ok(()),
    }
}

/// Checks a read; [`Store::range`](crate::Store::range) does so itself.
///
/// # Errors
/// The refusal to send to the client.
pub fn validate_range(range: &RangeRequest, limits: &Limits) -> Result<(), Refusal> {
    if range.encoded_len() > limits.request_bytes_max {
        return Err(Refusal::REQUEST_TOO_LARGE);
    }
    check_range(range)
}

pub(crate) fn check_range(range: &RangeRequest) -> Result<(), Refusal> {
    check_key(&range.key)?;
    check_range_end(&range.range_end)?;
    if SortOrder::try_from(range.sort_order).is_err() || SortTarget::try_from(range.sort_target).is_err() {
        return Err(Refusal::INVALID_SORT_OPTION);
    }
    Ok(())
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), Refusal> {
    match key.len() {
        0 => Err(Refusal::EMPTY_KEY),
        1..=KEY_BYTES_MAX => Ok(()),
        length => Err(key_too_long(length)),
    }
}

pub(crate) fn check_range_end(end: &[u8]) -> Result<(), Refusal> {
    if end.len() > KEY_BYTES_MAX { Err(key_too_long(end.len())) } else { Ok(()) }
}

fn key_too_long(length: usize) -> Refusal {
    Refusal::new(
        Code::InvalidArgument,
        format!(
            "a key of {length} bytes is too long: use at most {KEY_BYTES_MAX}, and keep the rest in the value"
        ),
    )
}

fn validate_put(put: &PutRequest, limits: &Limits) -> Result<(), Refusal> {
    check_key(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(Refusal::VALUE_PROVIDED);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Refusal::LEASE_PROVIDED);
    }
    if put.value.len() > limits.value_bytes_max {
        return Err(Refusal::new(
            Code::InvalidArgument,
            format!(
                "a value of {} bytes is too long: use at most {}, or split it over several keys",
                put.value.len(),
                limits.value_bytes_max
            ),
        ));
    }
    Ok(())
}

fn validate_delete(delete: &DeleteRangeRequest) -> Result<(), Refusal> {
    check_key(&delete.key)?;
    check_range_end(&delete.range_end)
}

fn validate_txn(txn: &TxnRequest, limits: &Limits, ops_max: usize, depth_max: usize) -> Result<(), Refusal> {
    if depth_max == 0 {
        return Err(nested_too_deep());
    }
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let Some(ops_left) = ops_max.checked_sub(ops) else {
        return Err(Refusal::TOO_MANY_OPS);
    };
    for compare in &txn.compare {
        check_compare(compare)?;
    }
    for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
        match request {
            Some(request_op::Request::RequestRange(range)) => check_range(range)?,
            Some(request_op::Request::RequestPut(put)) => validate_put(put, limits)?,
            Some(request_op::Request::RequestDeleteRange(delete)) => validate_delete(delete)?,
            Some(request_op::Request::RequestTxn(nested)) => {
                validate_txn(nested, limits, ops_left, depth_max - 1)?;
            }
            // Surprising, but what etcd answers.
            None => return Err(Refusal::KEY_NOT_FOUND),
        }
    }
    Ok(())
}

pub(crate) fn nested_too_deep() -> Refusal {
    Refusal::new(
        Code::InvalidArgument,
        format!("the transaction is nested too deep: use at most {TXN_DEPTH_MAX} levels"),
    )
}

pub(crate) fn check_compare(compare: &Compare) -> Result<(), Refusal> {
    check_key(&compare.key)?;
    check_range_end(&compare.range_end)?;
    if compare::CompareResult::try_from(compare.result).is_err() {
        return Err(Refusal::new(
            Code::InvalidArgument,
            format!("unknown comparison {}: use EQUAL, GREATER, LESS or NOT_EQUAL (0 to 3)", compare.result),
        ));
    }
    if compare::CompareTarget::try_from(compare.target).is_err() {
        return Err(Refusal::new(
            Code::InvalidArgument,
            format!(
                "unknown target of a comparison {}: use VERSION, CREATE, MOD, VALUE or LEASE (0 to 4)",
                compare.target
            ),
        ));
    }
    Ok(())
}

/// The keys that a list of operations may put, and the ranges that it may delete.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

impl<'a> Writes<'a> {
    /// Collects them, and refuses what may put a key twice or put a key and delete it. The two
    /// sides of a nested transaction exclude each other, so they may put the same key.
    fn of(ops: &'a [RequestOp]) -> Result<Self, Refusal> {
        let mut writes = Self::default();
        for RequestOp { request } in ops {
            if let Some(request_op::Request::RequestDeleteRange(delete)) = request {
                writes.deletes.add_request(&delete.key, &delete.range_end);
            }
        }
        for RequestOp { request } in ops {
            if let Some(request_op::Request::RequestTxn(nested)) = request {
                let success = Self::of(&nested.success)?;
                let failure = Self::of(&nested.failure)?;
                for key in &success.puts {
                    writes.put(key)?;
                }
                for key in failure.puts.difference(&success.puts) {
                    writes.put(key)?;
                }
                // Only now: as in etcd, what one nested transaction deletes may have been put by
                // one before it, not by one after it.
                writes.deletes.merge(success.deletes);
                writes.deletes.merge(failure.deletes);
            }
        }
        for RequestOp { request } in ops {
            if let Some(request_op::Request::RequestPut(put)) = request {
                writes.put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), Refusal> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Refusal::DUPLICATE_KEY);
        }
        Ok(())
    }
}

/// A set of keys: some one by one, and ranges that do not touch, each under its first key with
/// the key before which it ends.
#[derive(Default)]
struct Intervals<'a> {
    points: BTreeSet<&'a [u8]>,
    ranges: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Intervals<'a> {
    fn add_request(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.points.insert(key);
        } else {
            // An end of one zero byte, "everything from `key` on", is an empty range here: etcd
            // lets a transaction put a key and delete such a range, and applies both in order.
            self.add_range(key, range_end);
        }
    }

    fn add_range(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        if start >= end {
            return;
        }
        if let Some((before, its_end)) = self.ranges.range(..=start).next_back()
            && *its_end >= start
        {
            start = before;
            end = end.max(its_end);
        }
        while let Some((&next, &its_end)) = self.ranges.range(start..).next()
            && next <= end
        {
            self.ranges.remove(next);
            end = end.max(its_end);
        }
        self.ranges.insert(start, end);
    }

    fn merge(&mut self, other: Self) {
        self.points.extend(other.points);
        for (start, end) in other.ranges {
            self.add_range(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.points.contains(key)
            || self
                .ranges
                .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
                .next_back()
                .is_some_and(|(_, end)| key < *end)
    }
}
