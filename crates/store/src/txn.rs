//! Transactions: compare, then do one of two lists of operations, as one change.
//!
//! As in etcd, every comparison, nested ones too, is judged on the state before the transaction;
//! then everything that could be refused is looked at; only then something is written. What is
//! refused in the midst all the same (an answer that grows too large; a put that keeps the value
//! of a key which the transaction has just deleted, where etcd would stop the server) is undone.

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::ControlFlow;
use core::slice;

use bytes::Bytes;

use crate::command::txn_is_read_only;
use crate::layout::{Span, Stamp, Version, current_key};
use crate::map::OrderedMap;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{Compare, PutRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse};
use crate::refusal::{Code, Error, Refusal};
use crate::store::{Budget, Change, Store, header};
use crate::validate::{TXN_DEPTH_MAX, check_compare, nested_too_deep};

/// Which side each transaction takes, in the order in which they are met.
type Sides<'a> = slice::Iter<'a, bool>;

impl<M: OrderedMap> Store<M> {
    /// Answers a transaction that only reads, without the log.
    ///
    /// # Errors
    /// As [`Store::range`]; also refuses a transaction that may write.
    pub fn read_txn(&self, txn: &TxnRequest) -> Result<TxnResponse, Error<M::Error>> {
        if !txn_is_read_only(txn) {
            return Err(Refusal::new(
                Code::InvalidArgument,
                "the transaction may write: propose it as a command instead of reading it",
            )
            .into());
        }
        let sides = self.sides(txn)?;
        let mut response = self.answer(txn, &mut sides.iter(), &mut Budget::of_response())?;
        response.header = header(self.meta.revision);
        Ok(response)
    }

    pub(crate) fn apply_txn(&mut self, txn: &TxnRequest) -> Result<TxnResponse, Error<M::Error>> {
        let sides = self.sides(txn)?;
        let before = self.meta.clone();
        let mut change = self.begin_change();
        self.map.begin();
        match self.carry_out(txn, &mut sides.iter(), &mut change) {
            Ok(mut response) => {
                self.map.keep();
                self.end_change(&change);
                response.header = header(self.meta.revision);
                Ok(response)
            }
            Err(error) => {
                self.map.roll_back();
                self.meta = before;
                Err(error)
            }
        }
    }

    /// Judges all comparisons, and refuses what could not be carried out.
    fn sides(&self, txn: &TxnRequest) -> Result<Vec<bool>, Error<M::Error>> {
        let mut sides = Vec::new();
        self.choose(txn, TXN_DEPTH_MAX, &mut sides)?;
        // In etcd's order: what is wrong with any put comes before what is wrong with any range.
        for_each_op(txn, &mut sides.iter(), &mut |op| match op {
            Some(Request::RequestPut(put)) => self.check_put(put),
            Some(_) => Ok(()),
            None => Err(Refusal::KEY_NOT_FOUND.into()),
        })?;
        for_each_op(txn, &mut sides.iter(), &mut |op| match op {
            Some(Request::RequestRange(range)) => self.check_revision(range.revision).map_err(Error::from),
            _ => Ok(()),
        })?;
        Ok(sides)
    }

    fn choose(
        &self,
        txn: &TxnRequest,
        depth_max: usize,
        sides: &mut Vec<bool>,
    ) -> Result<(), Error<M::Error>> {
        if depth_max == 0 {
            return Err(nested_too_deep().into());
        }
        let mut holds = true;
        for compare in &txn.compare {
            holds = self.compare_holds(compare)?;
            if !holds {
                break;
            }
        }
        sides.push(holds);
        for RequestOp { request } in ops(txn, holds) {
            if let Some(Request::RequestTxn(nested)) = request {
                self.choose(nested, depth_max - 1, sides)?;
            }
        }
        Ok(())
    }

    fn compare_holds(&self, compare: &Compare) -> Result<bool, Error<M::Error>> {
        check_compare(compare)?;
        let now = self.meta.revision;
        let mut found_any = false;
        let mut holds = true;
        self.visit(Span::new(&compare.key, &compare.range_end), now, now, &mut |found| {
            found_any = true;
            holds = version_meets(compare, &found.version()?);
            Ok(if holds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if found_any {
            return Ok(holds);
        }
        // Protobuf cannot tell an empty value from none, so a missing key meets no comparison
        // of values; its numbers are all 0.
        Ok(compare.target() != CompareTarget::Value && version_meets(compare, &NO_VERSION))
    }

    fn check_put(&self, put: &PutRequest) -> Result<(), Error<M::Error>> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.map.get(&current_key(&put.key)).map_err(Error::Map)?.is_none() {
            return Err(Refusal::KEY_NOT_FOUND.into());
        }
        if put.lease != 0 {
            return Err(Refusal::LEASE_NOT_FOUND.into());
        }
        Ok(())
    }

    /// Before the transaction, and so stricter than a range of its own: the revision in the
    /// making is a future one, and a negative one is older than any compaction.
    fn check_revision(&self, revision: i64) -> Result<(), Refusal> {
        match revision {
            0 => Ok(()),
            revision if revision > self.meta.revision => Err(Refusal::FUTURE_REVISION),
            revision if revision < self.meta.compacted => Err(Refusal::COMPACTED),
            _ => Ok(()),
        }
    }

    fn carry_out(
        &mut self,
        txn: &TxnRequest,
        sides: &mut Sides<'_>,
        change: &mut Change,
    ) -> Result<TxnResponse, Error<M::Error>> {
        let succeeded = next_side(sides);
        let mut responses = Vec::with_capacity(ops(txn, succeeded).len());
        for RequestOp { request } in ops(txn, succeeded) {
            let response = match request {
                Some(Request::RequestRange(range)) => {
                    let now = change.revision_seen();
                    Some(Response::ResponseRange(self.range_within(range, now, &mut change.returned)?))
                }
                Some(Request::RequestPut(put)) => Some(Response::ResponsePut(self.put(put, change)?)),
                Some(Request::RequestDeleteRange(delete)) => {
                    Some(Response::ResponseDeleteRange(self.delete_range(delete, change)?))
                }
                Some(Request::RequestTxn(nested)) => {
                    Some(Response::ResponseTxn(self.carry_out(nested, sides, change)?))
                }
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        // A nested transaction's header is there and empty, as etcd's is.
        Ok(TxnResponse { header: header(0), succeeded, responses })
    }

    fn answer(
        &self,
        txn: &TxnRequest,
        sides: &mut Sides<'_>,
        budget: &mut Budget,
    ) -> Result<TxnResponse, Error<M::Error>> {
        let succeeded = next_side(sides);
        let mut responses = Vec::with_capacity(ops(txn, succeeded).len());
        for RequestOp { request } in ops(txn, succeeded) {
            let response = match request {
                Some(Request::RequestRange(range)) => {
                    Some(Response::ResponseRange(self.range_within(range, self.meta.revision, budget)?))
                }
                Some(Request::RequestTxn(nested)) => {
                    Some(Response::ResponseTxn(self.answer(nested, sides, budget)?))
                }
                Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => None,
            };
            responses.push(ResponseOp { response });
        }
        Ok(TxnResponse { header: header(0), succeeded, responses })
    }
}

fn ops(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn next_side(sides: &mut Sides<'_>) -> bool {
    *sides.next().expect("every transaction on the way had its side chosen")
}

/// Visits the operations that will be carried out, nested ones in their place.
fn for_each_op<E>(
    txn: &TxnRequest,
    sides: &mut Sides<'_>,
    visit: &mut dyn FnMut(Option<&Request>) -> Result<(), E>,
) -> Result<(), E> {
    for RequestOp { request } in ops(txn, next_side(sides)) {
        match request {
            Some(Request::RequestTxn(nested)) => for_each_op(nested, sides, visit)?,
            other => visit(other.as_ref())?,
        }
    }
    Ok(())
}

/// What a key that does not exist is compared as.
const NO_VERSION: Version =
    Version { created: 0, modified: Stamp { main: 0, sub: 0 }, version: 0, lease: 0, value: Bytes::new() };

fn version_meets(compare: &Compare, version: &Version) -> bool {
    // A target without its value is compared with 0 or with nothing, as in etcd.
    let given = &compare.target_union;
    let ordering = match compare.target() {
        CompareTarget::Version => {
            version.version.cmp(&if let Some(TargetUnion::Version(v)) = given { *v } else { 0 })
        }
        CompareTarget::Create => {
            version.created.cmp(&if let Some(TargetUnion::CreateRevision(v)) = given { *v } else { 0 })
        }
        CompareTarget::Mod => {
            version.modified.main.cmp(&if let Some(TargetUnion::ModRevision(v)) = given { *v } else { 0 })
        }
        CompareTarget::Value => {
            version.value[..].cmp(if let Some(TargetUnion::Value(v)) = given { &v[..] } else { &[] })
        }
        CompareTarget::Lease => {
            version.lease.cmp(&if let Some(TargetUnion::Lease(v)) = given { *v } else { 0 })
        }
    };
    match compare.result() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
    }
}
