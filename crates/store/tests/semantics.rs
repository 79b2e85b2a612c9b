//! etcd's semantics, one behaviour a test.

mod support;

use bytes::Bytes;
use support::{compact, delete, delete_op, put, put_op, range, range_op, txn, txn_op};
use synod_store::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::response_op::Response as Answer;
use synod_store::proto::etcdserverpb::*;
use synod_store::proto::mvccpb::KeyValue;
use synod_store::{
    Code, Command, Error, KEY_BYTES_MAX, Limits, MemoryMap, Refusal, Response, Revision, Store,
    TXN_DEPTH_MAX, validate, validate_range,
};

type Memory = Store<MemoryMap>;

fn empty() -> Memory {
    Store::open(MemoryMap::new()).unwrap()
}

/// A store with these keys, put one after the other from revision 2.
fn with(keys: &[(&'static str, &'static str)]) -> Memory {
    let mut store = empty();
    for (key, value) in keys {
        do_put(&mut store, put(key, value)).unwrap();
    }
    store
}

fn refusal<E: std::fmt::Debug>(error: Error<E>) -> Refusal {
    error.refusal().unwrap_or_else(|| panic!("{error:?}")).clone()
}

fn do_put(store: &mut Memory, request: PutRequest) -> Result<PutResponse, Refusal> {
    match store.apply(&Command::Put(request)).map_err(refusal)? {
        Response::Put(response) => Ok(response),
        other => panic!("{other:?}"),
    }
}

fn do_delete(store: &mut Memory, request: DeleteRangeRequest) -> DeleteRangeResponse {
    match store.apply(&Command::DeleteRange(request)).unwrap() {
        Response::DeleteRange(response) => response,
        other => panic!("{other:?}"),
    }
}

fn do_txn(store: &mut Memory, request: TxnRequest) -> Result<TxnResponse, Refusal> {
    match store.apply(&Command::Txn(request)).map_err(refusal)? {
        Response::Txn(response) => Ok(response),
        other => panic!("{other:?}"),
    }
}

fn do_compact(store: &mut Memory, revision: i64) -> Result<(), Refusal> {
    store.apply(&compact(revision)).map(drop).map_err(refusal)
}

fn do_range(store: &Memory, request: RangeRequest) -> RangeResponse {
    store.range(&request).unwrap()
}

fn keys(response: &RangeResponse) -> Vec<&str> {
    response.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

/// What a key holds at a revision (0: now); none if it does not exist then.
fn value_at(store: &Memory, key: &'static str, revision: i64) -> Option<Bytes> {
    let response = do_range(store, RangeRequest { revision, ..range(key, "") });
    response.kvs.into_iter().next().map(|kv| kv.value)
}

fn one(store: &Memory, key: &'static str) -> KeyValue {
    do_range(store, range(key, "")).kvs.remove(0)
}

fn kv(
    key: &'static str,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    value: &'static str,
) -> KeyValue {
    KeyValue { key: key.into(), create_revision, mod_revision, version, value: value.into(), lease: 0 }
}

fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().unwrap().revision
}

fn compare(key: &'static str, result: CompareResult, target: CompareTarget, union: TargetUnion) -> Compare {
    Compare {
        key: key.into(),
        result: result as i32,
        target: target as i32,
        target_union: Some(union),
        range_end: Bytes::new(),
    }
}

#[test]
fn an_empty_store_is_at_revision_1() {
    let store = empty();
    assert_eq!(store.revision(), Revision(1));
    assert_eq!(store.compacted_revision(), Revision(-1));
    assert_eq!(revision(&do_range(&store, range("a", "")).header), 1);
}

#[test]
fn the_first_put_makes_revision_2() {
    let mut store = empty();
    let response = do_put(&mut store, put("a", "1")).unwrap();
    assert_eq!(revision(&response.header), 2);
    assert_eq!(one(&store, "a"), kv("a", 2, 2, 1, "1"));
}

#[test]
fn a_put_keeps_the_creation_and_counts_the_version() {
    let store = with(&[("a", "1"), ("b", "x"), ("a", "2")]);
    assert_eq!(one(&store, "a"), kv("a", 2, 4, 2, "2"));
}

#[test]
fn a_deleted_key_begins_a_new_life() {
    let mut store = with(&[("a", "1"), ("a", "2")]);
    do_delete(&mut store, delete("a", ""));
    do_put(&mut store, put("a", "3")).unwrap();
    assert_eq!(one(&store, "a"), kv("a", 5, 5, 1, "3"));
}

#[test]
fn a_put_returns_the_previous_value_when_asked() {
    let mut store = with(&[("a", "1")]);
    let response = do_put(&mut store, PutRequest { prev_kv: true, ..put("a", "2") }).unwrap();
    assert_eq!(response.prev_kv, Some(kv("a", 2, 2, 1, "1")));
    let response = do_put(&mut store, PutRequest { prev_kv: true, ..put("b", "2") }).unwrap();
    assert_eq!(response.prev_kv, None);
    let response = do_put(&mut store, put("a", "3")).unwrap();
    assert_eq!(response.prev_kv, None);
}

#[test]
fn ignore_value_keeps_the_value_and_makes_a_revision() {
    let mut store = with(&[("a", "1")]);
    do_put(&mut store, PutRequest { ignore_value: true, ..put("a", "") }).unwrap();
    assert_eq!(one(&store, "a"), kv("a", 2, 3, 2, "1"));
}

#[test]
fn ignore_value_and_ignore_lease_need_a_key_that_exists() {
    let mut store = with(&[("a", "1")]);
    let ignoring = [
        PutRequest { ignore_value: true, ..put("b", "") },
        PutRequest { ignore_lease: true, ..put("b", "x") },
    ];
    for request in ignoring {
        assert_eq!(do_put(&mut store, request), Err(Refusal::KEY_NOT_FOUND));
    }
    assert_eq!(store.revision(), Revision(2), "a refusal changes nothing");
}

#[test]
fn a_put_that_names_a_lease_finds_none() {
    let mut store = empty();
    let leased = PutRequest { lease: 7, ..put("a", "1") };
    assert_eq!(do_put(&mut store, leased.clone()), Err(Refusal::LEASE_NOT_FOUND));
    let in_txn = txn(vec![], vec![put_op("b", "1"), support::op(Request::RequestPut(leased))], vec![]);
    assert_eq!(do_txn(&mut store, in_txn), Err(Refusal::LEASE_NOT_FOUND));
    assert_eq!((store.revision(), store.key_count()), (Revision(1), 0));
}

#[test]
fn a_deletion_takes_its_range_without_the_end() {
    let mut store = with(&[("a", ""), ("b", ""), ("c", "")]);
    let response = do_delete(&mut store, delete("a", "c"));
    assert_eq!((response.deleted, revision(&response.header)), (2, 5));
    assert_eq!(keys(&do_range(&store, range("\0", "\0"))), ["c"]);
    assert_eq!(store.key_count(), 1);
}

#[test]
fn an_end_of_one_zero_byte_means_everything_from_the_key_on() {
    let mut store = with(&[("a", ""), ("b", ""), ("\u{10ffff}", "")]);
    assert_eq!(do_range(&store, range("b", "\0")).count, 2);
    assert_eq!(do_range(&store, range("\0", "\0")).count, 3);
    assert_eq!(do_delete(&mut store, delete("b", "\0")).deleted, 2);
}

#[test]
fn an_end_that_is_not_above_the_key_means_nothing() {
    let mut store = with(&[("a", ""), ("b", "")]);
    assert_eq!(do_range(&store, range("b", "a")).count, 0);
    assert_eq!(do_range(&store, range("a", "a")).count, 0);
    assert_eq!(do_range(&store, RangeRequest { revision: 2, ..range("b", "a") }).count, 0);
    assert_eq!(do_delete(&mut store, delete("b", "a")).deleted, 0);
}

#[test]
fn a_deletion_of_nothing_makes_no_revision() {
    let mut store = with(&[("a", "")]);
    let response = do_delete(&mut store, delete("b", ""));
    assert_eq!((response.deleted, revision(&response.header)), (0, 2));
    assert_eq!(store.revision(), Revision(2));
}

#[test]
fn a_deletion_returns_what_it_deleted_when_asked() {
    let mut store = with(&[("a", "1"), ("b", "2")]);
    let response = do_delete(&mut store, DeleteRangeRequest { prev_kv: true, ..delete("a", "\0") });
    assert_eq!(response.prev_kvs, [kv("a", 2, 2, 1, "1"), kv("b", 3, 3, 1, "2")]);
}

#[test]
fn a_limit_cuts_and_the_count_does_not() {
    let store = with(&[("a", ""), ("b", ""), ("c", "")]);
    let response = do_range(&store, RangeRequest { limit: 2, ..range("a", "\0") });
    assert_eq!((keys(&response), response.more, response.count), (vec!["a", "b"], true, 3));
    let response = do_range(&store, RangeRequest { limit: 3, ..range("a", "\0") });
    assert_eq!((keys(&response).len(), response.more, response.count), (3, false, 3));
    let response = do_range(&store, RangeRequest { limit: -1, ..range("a", "\0") });
    assert_eq!((keys(&response).len(), response.more), (3, false));
}

#[test]
fn filters_choose_keys_and_leave_the_count_alone() {
    let store = with(&[("a", ""), ("b", ""), ("c", ""), ("a", "")]);
    let all = range("a", "\0");
    let cases = [
        (RangeRequest { min_mod_revision: 4, ..all.clone() }, vec!["a", "c"]),
        (RangeRequest { max_mod_revision: 3, ..all.clone() }, vec!["b"]),
        (RangeRequest { min_create_revision: 3, ..all.clone() }, vec!["b", "c"]),
        (RangeRequest { max_create_revision: 2, ..all.clone() }, vec!["a"]),
        (RangeRequest { min_mod_revision: 4, max_mod_revision: 4, ..all }, vec!["c"]),
    ];
    for (request, expected) in cases {
        let response = do_range(&store, request.clone());
        assert_eq!((keys(&response), response.count), (expected, 3), "{request:?}");
    }
}

#[test]
fn there_is_more_only_if_more_keys_pass_the_filters() {
    let store = with(&[("a", ""), ("b", ""), ("c", "")]);
    let first = RangeRequest { limit: 1, max_mod_revision: 2, ..range("a", "\0") };
    assert!(!do_range(&store, first.clone()).more);
    assert!(do_range(&store, RangeRequest { max_mod_revision: 3, ..first }).more);
}

#[test]
fn sorting_is_by_target_and_then_by_key() {
    use range_request::{SortOrder, SortTarget};
    // Versions 2, 1, 1; created 2, 3, 4; changed 5, 3, 4; values y, x, x.
    let store = with(&[("a", ""), ("b", "x"), ("c", "x"), ("a", "y")]);
    let cases = [
        (SortTarget::Key, SortOrder::Descend, ["c", "b", "a"]),
        (SortTarget::Version, SortOrder::Ascend, ["b", "c", "a"]),
        (SortTarget::Version, SortOrder::Descend, ["a", "b", "c"]),
        (SortTarget::Create, SortOrder::Descend, ["c", "b", "a"]),
        (SortTarget::Mod, SortOrder::Ascend, ["b", "c", "a"]),
        (SortTarget::Value, SortOrder::Descend, ["a", "b", "c"]),
        // Without an order, any target but the key means upwards.
        (SortTarget::Mod, SortOrder::None, ["b", "c", "a"]),
    ];
    for (target, order, expected) in cases {
        let request =
            RangeRequest { sort_target: target as i32, sort_order: order as i32, ..range("a", "\0") };
        assert_eq!(keys(&do_range(&store, request.clone())), expected, "{target:?} {order:?}");
        if order == SortOrder::None {
            continue;
        }
        let first = do_range(&store, RangeRequest { limit: 1, keys_only: true, ..request });
        assert_eq!((keys(&first), first.more, first.count), (vec![expected[0]], true, 3));
        assert!(first.kvs[0].value.is_empty());
    }
}

#[test]
fn without_an_order_the_limit_comes_before_the_sorting() {
    // An oddity of etcd's: of the first `limit` keys and one more, the lowest are returned.
    let store = with(&[("c", ""), ("b", ""), ("a", "")]);
    let by_creation = RangeRequest { sort_target: 2, ..range("a", "\0") };
    assert_eq!(keys(&do_range(&store, by_creation.clone())), ["c", "b", "a"]);
    assert_eq!(keys(&do_range(&store, RangeRequest { limit: 1, ..by_creation })), ["b"]);
}

#[test]
fn keys_only_leaves_values_out_and_count_only_leaves_keys_out() {
    let store = with(&[("a", "1"), ("b", "2")]);
    let response = do_range(&store, RangeRequest { keys_only: true, ..range("a", "\0") });
    assert_eq!(response.kvs, [kv("a", 2, 2, 1, ""), kv("b", 3, 3, 1, "")]);
    let response = do_range(&store, RangeRequest { count_only: true, limit: 1, ..range("a", "\0") });
    assert_eq!((response.kvs.len(), response.count, response.more), (0, 2, false));
}

#[test]
fn the_past_stays_readable_through_changes_deletion_and_rebirth() {
    let mut store = with(&[("a", "1"), ("a", "2")]);
    do_delete(&mut store, delete("a", ""));
    do_put(&mut store, put("a", "3")).unwrap();
    let values: Vec<_> = (1..=5).map(|revision| value_at(&store, "a", revision)).collect();
    assert_eq!(values, [None, Some("1".into()), Some("2".into()), None, Some("3".into())]);
    let response = do_range(&store, RangeRequest { revision: 3, ..range("a", "") });
    assert_eq!(revision(&response.header), 5, "the header tells the present revision");
}

#[test]
fn a_read_of_a_revision_to_come_is_refused() {
    let store = with(&[("a", "1")]);
    let error = store.range(&RangeRequest { revision: 3, ..range("a", "") }).unwrap_err();
    assert_eq!(refusal(error), Refusal::FUTURE_REVISION);
}

#[test]
fn the_past_of_many_keys_is_read_piece_by_piece() {
    // More keys than a read of the past holds at once, some changed, deleted and born since.
    let name = |i: usize| Bytes::from(format!("key{i:04}"));
    let mut store = empty();
    let put = |store: &mut Memory, i: usize, value: &'static str| {
        do_put(store, PutRequest { key: name(i), value: value.into(), ..PutRequest::default() }).unwrap();
    };
    for i in (0..1500).filter(|i| i % 5 != 4) {
        put(&mut store, i, "old");
    }
    let then = store.revision().0;
    let before = do_range(&store, range("k", "l"));
    for i in 0..1500 {
        match i % 5 {
            0 | 1 | 4 => put(&mut store, i, "new"),
            2 => {
                let delete = DeleteRangeRequest { key: name(i), ..DeleteRangeRequest::default() };
                do_delete(&mut store, delete);
            }
            _ => {}
        }
    }
    store.commit().unwrap();
    let past = RangeRequest { revision: then, ..range("k", "l") };
    let after = do_range(&store, past.clone());
    assert_eq!((&after.kvs, after.count), (&before.kvs, 1200));
    let some = do_range(&store, RangeRequest { limit: 700, ..past });
    assert_eq!((&some.kvs[..], some.more, some.count), (&before.kvs[..700], true, 1200));
}

#[test]
fn a_transaction_is_one_revision_however_much_it_writes() {
    let mut store = with(&[("a", "1")]);
    let response =
        do_txn(&mut store, txn(vec![], vec![put_op("b", "2"), delete_op("a", ""), put_op("c", "3")], vec![]))
            .unwrap();
    assert!(response.succeeded);
    assert_eq!(revision(&response.header), 3);
    assert_eq!(one(&store, "b"), kv("b", 3, 3, 1, "2"));
    assert_eq!(one(&store, "c"), kv("c", 3, 3, 1, "3"));
    assert_eq!(value_at(&store, "a", 0), None);
    assert_eq!(value_at(&store, "a", 2), Some("1".into()));
}

#[test]
fn a_transaction_that_writes_nothing_makes_no_revision() {
    let mut store = with(&[("a", "1")]);
    let response =
        do_txn(&mut store, txn(vec![], vec![range_op("a", ""), delete_op("b", "")], vec![])).unwrap();
    assert_eq!((revision(&response.header), store.revision()), (2, Revision(2)));
}

#[test]
fn a_range_in_a_transaction_sees_what_it_wrote() {
    let mut store = with(&[("a", "1")]);
    let ops = vec![range_op("a", "\0"), put_op("b", "2"), range_op("a", "\0")];
    let response = do_txn(&mut store, txn(vec![], ops, vec![])).unwrap();
    let seen: Vec<_> = response
        .responses
        .iter()
        .filter_map(|op| match op.response.as_ref().unwrap() {
            Answer::ResponseRange(range) => Some((range.count, revision(&range.header))),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [(1, 2), (2, 3)]);
}

#[test]
fn a_range_in_a_transaction_can_still_read_before_it() {
    let mut store = with(&[("a", "1")]);
    let before = RangeRequest { revision: 2, ..range("a", "\0") };
    let ops = vec![put_op("a", "2"), delete_op("x", "\0"), support::op(Request::RequestRange(before))];
    let response = do_txn(&mut store, txn(vec![], ops, vec![])).unwrap();
    let Some(Answer::ResponseRange(range)) = &response.responses[2].response else { panic!("{response:?}") };
    assert_eq!(range.kvs, [kv("a", 2, 2, 1, "1")]);
}

#[test]
fn a_transaction_cannot_read_the_revision_that_it_makes() {
    let mut store = with(&[("a", "1")]);
    let next = RangeRequest { revision: 3, ..range("a", "") };
    let request = txn(vec![], vec![put_op("a", "2"), support::op(Request::RequestRange(next))], vec![]);
    assert_eq!(do_txn(&mut store, request), Err(Refusal::FUTURE_REVISION));
    assert_eq!(one(&store, "a"), kv("a", 2, 2, 1, "1"));
}

#[test]
fn comparisons_look_at_every_target_and_relation() {
    use CompareResult::*;
    let mut store = with(&[("x", ""), ("a", "m"), ("a", "m")]); // a: created 3, changed 4, version 2
    type Given = fn(i64) -> TargetUnion;
    let cases: [(CompareTarget, Given, i64); 4] = [
        (CompareTarget::Version, TargetUnion::Version, 2),
        (CompareTarget::Create, TargetUnion::CreateRevision, 3),
        (CompareTarget::Mod, TargetUnion::ModRevision, 4),
        (CompareTarget::Lease, TargetUnion::Lease, 0),
    ];
    let mut expect = |compare: Compare, expected: bool| {
        let response = do_txn(&mut store, txn(vec![compare.clone()], vec![], vec![])).unwrap();
        assert_eq!(response.succeeded, expected, "{compare:?}");
    };
    let table =
        [(Equal, [false, true, false]), (NotEqual, [true, false, true]), (Greater, [true, false, false])];
    for (target, union, actual) in cases {
        for (result, [below, same, above]) in table {
            expect(compare("a", result, target, union(actual - 1)), below);
            expect(compare("a", result, target, union(actual)), same);
            expect(compare("a", result, target, union(actual + 1)), above);
        }
        expect(compare("a", Less, target, union(actual + 1)), true);
        expect(compare("a", Less, target, union(actual)), false);
    }
    for (result, [below, same, above]) in table {
        for (value, expected) in [("l", below), ("m", same), ("n", above)] {
            expect(compare("a", result, CompareTarget::Value, TargetUnion::Value(value.into())), expected);
        }
    }
}

#[test]
fn a_key_that_does_not_exist_has_zeros_and_no_value() {
    let mut store = empty();
    let mut holds = |compare| do_txn(&mut store, txn(vec![compare], vec![], vec![])).unwrap().succeeded;
    assert!(holds(compare("a", CompareResult::Equal, CompareTarget::Version, TargetUnion::Version(0))));
    assert!(holds(compare("a", CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(0))));
    assert!(!holds(compare("a", CompareResult::Equal, CompareTarget::Value, TargetUnion::Value("".into()))));
    assert!(!holds(compare(
        "a",
        CompareResult::NotEqual,
        CompareTarget::Value,
        TargetUnion::Value("x".into())
    )));
}

#[test]
fn a_comparison_over_a_range_must_hold_for_every_key() {
    let mut store = with(&[("a", "x"), ("b", "x"), ("c", "y")]);
    let mut holds = |range_end: &'static str| {
        let x = compare("a", CompareResult::Equal, CompareTarget::Value, TargetUnion::Value("x".into()));
        let over = Compare { range_end: range_end.into(), ..x };
        do_txn(&mut store, txn(vec![over], vec![], vec![])).unwrap().succeeded
    };
    assert!(holds("c"));
    assert!(!holds("\0"));
}

#[test]
fn a_failed_comparison_takes_the_other_side() {
    let mut store = empty();
    let exists = compare("a", CompareResult::Greater, CompareTarget::Version, TargetUnion::Version(0));
    let request = txn(vec![exists], vec![put_op("a", "then")], vec![put_op("a", "else")]);
    assert!(!do_txn(&mut store, request.clone()).unwrap().succeeded);
    assert_eq!(value_at(&store, "a", 0), Some("else".into()));
    assert!(do_txn(&mut store, request).unwrap().succeeded);
    assert_eq!(value_at(&store, "a", 0), Some("then".into()));
}

#[test]
fn a_nested_transaction_compares_with_the_state_before_the_outer_one() {
    let mut store = empty();
    let missing = compare("a", CompareResult::Equal, CompareTarget::Version, TargetUnion::Version(0));
    let nested = txn(vec![missing], vec![put_op("b", "a was missing")], vec![put_op("b", "a was there")]);
    let response = do_txn(&mut store, txn(vec![], vec![put_op("a", "1"), txn_op(nested)], vec![])).unwrap();
    assert_eq!(value_at(&store, "b", 0), Some("a was missing".into()));
    assert_eq!(store.revision(), Revision(2));
    let Some(Answer::ResponseTxn(nested)) = &response.responses[1].response else { panic!("{response:?}") };
    assert!(nested.succeeded);
    assert_eq!(nested.header, Some(ResponseHeader::default()), "as etcd's: there, and empty");
}

#[test]
fn a_transaction_refused_in_the_midst_changes_nothing() {
    let mut store = with(&[("a", "1")]);
    let keep = PutRequest { ignore_value: true, ..put("a", "") };
    let ops = vec![put_op("b", "2"), delete_op("a", "\0"), support::op(Request::RequestPut(keep))];
    let before = store.fingerprint();
    assert_eq!(do_txn(&mut store, txn(vec![], ops, vec![])), Err(Refusal::KEY_NOT_FOUND));
    assert_eq!(store.fingerprint(), before);
    assert_eq!((store.revision(), store.key_count()), (Revision(2), 1));
}

#[test]
fn a_key_put_and_deleted_in_one_revision_was_never_there() {
    // Allowed, since what a nested transaction deletes may have been put by one before it.
    let mut store = empty();
    let ops = vec![
        txn_op(txn(vec![], vec![put_op("a", "1")], vec![])),
        txn_op(txn(vec![], vec![delete_op("a", "")], vec![])),
    ];
    let request = txn(vec![], ops, vec![]);
    validate(&Command::Txn(request.clone()), &Limits::default()).unwrap();
    do_txn(&mut store, request).unwrap();
    do_put(&mut store, put("a", "2")).unwrap();
    assert_eq!(store.revision(), Revision(3));
    assert_eq!(value_at(&store, "a", 2), None);
    assert_eq!(one(&store, "a"), kv("a", 3, 3, 1, "2"));
}

#[test]
fn a_read_only_transaction_needs_no_log() {
    let mut store = with(&[("a", "1")]);
    let nested = txn(vec![], vec![range_op("a", "")], vec![]);
    let request = txn(vec![], vec![range_op("a", "\0"), txn_op(nested)], vec![]);
    assert!(Command::Txn(request.clone()).is_read_only());
    let read = store.read_txn(&request).unwrap();
    assert_eq!(read, do_txn(&mut store, request).unwrap());
    let writing = txn(vec![], vec![], vec![txn_op(txn(vec![], vec![put_op("a", "")], vec![]))]);
    assert!(!Command::Txn(writing.clone()).is_read_only());
    assert_eq!(refusal(store.read_txn(&writing).unwrap_err()).code, Code::InvalidArgument);
}

#[test]
fn a_compaction_forgets_what_came_before_it_and_keeps_what_was_true_then() {
    let mut store = with(&[("a", "1"), ("a", "2"), ("a", "3")]);
    do_compact(&mut store, 3).unwrap();
    let error = store.range(&RangeRequest { revision: 2, ..range("a", "") }).unwrap_err();
    assert_eq!(refusal(error), Refusal::COMPACTED);
    assert_eq!(value_at(&store, "a", 3), Some("2".into()));
    assert_eq!(store.compacted_revision(), Revision(3));
    assert_eq!(store.revision(), Revision(4), "it makes no revision of its own");
}

#[test]
fn a_compaction_backwards_or_into_the_future_is_refused() {
    let mut store = with(&[("a", "1"), ("a", "2")]);
    assert_eq!(do_compact(&mut store, 4), Err(Refusal::FUTURE_REVISION));
    do_compact(&mut store, 2).unwrap();
    assert_eq!(do_compact(&mut store, 2), Err(Refusal::COMPACTED));
    assert_eq!(do_compact(&mut store, 1), Err(Refusal::COMPACTED));
}

#[test]
fn a_sweep_cut_short_goes_on_after_a_restart() {
    let mut store = empty();
    for _ in 0..2000 {
        do_put(&mut store, put("a", "x")).unwrap();
    }
    store.commit().unwrap();
    do_compact(&mut store, 2001).unwrap();
    store.commit().unwrap();
    assert!(store.is_sweeping());
    let mut store = Store::open(store.into_map()).unwrap();
    let mut commits = 0;
    while store.is_sweeping() {
        store.commit().unwrap();
        commits += 1;
    }
    assert!(commits > 1, "a commit looks at a bounded number of entries");
    assert_eq!(store.map().len(), 2, "the key, and the store's numbers");
}

#[test]
fn no_deleted_value_reappears_while_history_is_removed() {
    let mut store = with(&[("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")]);
    do_delete(&mut store, delete("a", ""));
    do_compact(&mut store, 6).unwrap();
    while store.is_sweeping() {
        store.sweep(2).unwrap();
        assert_eq!(value_at(&store, "a", 6), None);
    }
    do_put(&mut store, put("b", "")).unwrap();
    store.commit().unwrap();
    assert_eq!(store.map().len(), 2);
}

#[test]
fn what_was_not_committed_is_gone_after_a_crash_with_the_nodes_own_writes() {
    let mut store = with(&[("a", "1")]);
    store.node_put(b"applied", "1".into());
    store.commit().unwrap();
    do_put(&mut store, put("a", "2")).unwrap();
    store.node_put(b"applied", "2".into());
    assert_eq!(store.node_get(b"applied").unwrap(), Some("2".into()));
    let store = Store::open(store.into_map()).unwrap();
    assert_eq!(value_at(&store, "a", 0), Some("1".into()));
    assert_eq!(store.node_get(b"applied").unwrap(), Some("1".into()));
    assert_eq!(store.revision(), Revision(2));
}

#[test]
fn the_nodes_keys_are_scanned_by_prefix_and_never_seen_by_clients() {
    let mut store = with(&[("session", "client")]);
    store.node_put(b"session/1", "a".into());
    store.node_put(b"session/2", "b".into());
    store.node_put(b"tail", "c".into());
    store.commit().unwrap();
    store.node_put(b"session/3", "d".into());
    store.node_remove(b"session/1");
    let mut seen = vec![];
    store
        .node_scan(b"session/", &mut |key, value| {
            seen.push((key, value.clone()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, [("session/2".into(), "b".into()), (Bytes::from("session/3"), Bytes::from("d"))]);
    let mut later = vec![];
    store
        .node_scan_from(b"session/", b"session/2x", &mut |key, _| {
            later.push(key);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(later, ["session/3"], "what comes before is not looked at");
    assert_eq!(keys(&do_range(&store, range("\0", "\0"))), ["session"]);
}

#[test]
fn an_answer_that_grows_too_large_is_refused_with_advice() {
    let mut store = empty();
    let value = Bytes::from(vec![7; 1024 * 1024]);
    for i in 0..65 {
        let key = Bytes::from(format!("k{i:02}"));
        do_put(&mut store, PutRequest { key, value: value.clone(), ..PutRequest::default() }).unwrap();
    }
    let error = refusal(store.range(&range("k", "l")).unwrap_err());
    assert_eq!(error.code, Code::ResourceExhausted);
    assert!(error.message.contains("set a limit"), "{error}");
    assert_eq!(do_range(&store, RangeRequest { limit: 60, ..range("k", "l") }).count, 65);
    assert_eq!(do_range(&store, RangeRequest { keys_only: true, ..range("k", "l") }).kvs.len(), 65);
    let newest = RangeRequest { limit: 1, sort_order: 2, sort_target: 3, ..range("k", "l") };
    assert_eq!(keys(&do_range(&store, newest)), ["k64"], "a limit helps a sorted read, too");

    let mut twice = txn(vec![], vec![put_op("z", ""), range_op("k", "k40"), range_op("k", "k40")], vec![]);
    let before = store.fingerprint();
    assert_eq!(do_txn(&mut store, twice.clone()).unwrap_err().code, Code::ResourceExhausted);
    assert_eq!(store.fingerprint(), before);
    twice.success.pop();
    do_txn(&mut store, twice).unwrap();
}

#[test]
fn a_deletion_that_grows_too_large_is_refused_with_advice() {
    let mut store = empty();
    let value = Bytes::from(vec![7; 1024 * 1024]);
    for i in 0..257 {
        let key = Bytes::from(format!("k{i:03}"));
        do_put(&mut store, PutRequest { key, value: value.clone(), ..PutRequest::default() }).unwrap();
    }
    let error = refusal(store.apply(&Command::DeleteRange(delete("k", "l"))).unwrap_err());
    assert_eq!(error.code, Code::ResourceExhausted);
    assert!(error.message.contains("delete smaller ranges"), "{error}");
    assert_eq!(store.key_count(), 257);
    assert_eq!(do_delete(&mut store, delete("k", "k2")).deleted, 200);
}

#[test]
fn a_foreign_or_damaged_map_is_reported_with_what_to_do() {
    use synod_store::{OrderedMap, WriteBatch};
    for (key, value) in [("m", "\u{9}"), ("m", ""), ("ca", "?"), ("ca", "\u{1}\u{1}")] {
        let mut map = MemoryMap::new();
        let mut writes = WriteBatch::default();
        writes.put(key.into(), value.into());
        let Ok(()) = map.commit(writes);
        let error = Store::open(map).and_then(|store| store.range(&range("a", ""))).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("stop this member"), "{error}");
    }
}

#[test]
fn requests_without_a_key_are_refused() {
    let limits = Limits::default();
    let commands = [
        Command::Put(put("", "x")),
        Command::DeleteRange(delete("", "\0")),
        Command::Txn(txn(vec![Compare::default()], vec![], vec![])),
        Command::Txn(txn(vec![], vec![], vec![range_op("", "\0")])),
    ];
    for command in commands {
        assert_eq!(validate(&command, &limits), Err(Refusal::EMPTY_KEY), "{command:?}");
        if !matches!(command, Command::Txn(_)) {
            assert_eq!(empty().apply(&command).map_err(refusal), Err(Refusal::EMPTY_KEY));
        }
    }
    assert_eq!(validate_range(&range("", "a"), &limits), Err(Refusal::EMPTY_KEY));
    assert_eq!(refusal(empty().range(&range("", "a")).unwrap_err()), Refusal::EMPTY_KEY);
}

#[test]
fn each_wrong_request_gets_etcds_answer() {
    let limits = Limits::default();
    let one = |op: RequestOp| Command::Txn(txn(vec![], vec![op], vec![]));
    let many = |count: usize| (0..count).map(|_| range_op("a", "")).collect::<Vec<_>>();
    let large = PutRequest { key: "a".into(), value: vec![0; 1536 * 1024].into(), ..PutRequest::default() };
    let cases = [
        (Command::Put(PutRequest { ignore_value: true, ..put("a", "x") }), Refusal::VALUE_PROVIDED),
        (Command::Put(PutRequest { ignore_lease: true, lease: 1, ..put("a", "") }), Refusal::LEASE_PROVIDED),
        (Command::Put(large), Refusal::REQUEST_TOO_LARGE),
        (Command::Txn(txn(vec![], many(129), vec![])), Refusal::TOO_MANY_OPS),
        (Command::Txn(txn(vec![], vec![], many(129))), Refusal::TOO_MANY_OPS),
        (one(RequestOp { request: None }), Refusal::KEY_NOT_FOUND),
        (
            one(support::op(Request::RequestRange(RangeRequest { sort_order: 9, ..range("a", "") }))),
            Refusal::INVALID_SORT_OPTION,
        ),
    ];
    for (command, expected) in cases {
        assert_eq!(validate(&command, &limits), Err(expected));
    }
    validate(&Command::Txn(txn(vec![], many(128), many(128))), &limits).unwrap();
    assert_eq!(Refusal::KEY_NOT_FOUND.code.number(), 3);
    assert_eq!(Refusal::COMPACTED.code.number(), 11);
    assert_eq!(Refusal::LEASE_NOT_FOUND.code.number(), 5);
}

#[test]
fn a_nested_transaction_spends_the_operations_of_the_outer_one() {
    let nested = |inner: usize| {
        let inner = txn(vec![], (0..inner).map(|_| range_op("a", "")).collect(), vec![]);
        let mut ops: Vec<_> = (0..99).map(|_| range_op("a", "")).collect();
        ops.push(txn_op(inner));
        Command::Txn(txn(vec![], ops, vec![]))
    };
    validate(&nested(28), &Limits::default()).unwrap();
    assert_eq!(validate(&nested(29), &Limits::default()), Err(Refusal::TOO_MANY_OPS));
}

#[test]
fn our_own_limits_say_what_to_do() {
    let limits = Limits { value_bytes_max: 10, ..Limits::default() };
    let long = Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1]);
    let mut deep = txn(vec![], vec![range_op("a", "")], vec![]);
    for _ in 0..TXN_DEPTH_MAX {
        deep = txn(vec![], vec![txn_op(deep)], vec![]);
    }
    let unknown = Compare {
        result: 17,
        ..compare("a", CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(0))
    };
    let cases = [
        (Command::Put(PutRequest { key: long.clone(), ..PutRequest::default() }), "a key of 16385 bytes"),
        (
            Command::DeleteRange(DeleteRangeRequest { range_end: long, ..delete("a", "") }),
            "a key of 16385 bytes",
        ),
        (Command::Put(put("a", "eleven bytes")), "a value of 12 bytes"),
        (Command::Txn(deep.clone()), "nested too deep: use at most 32 levels"),
        (Command::Txn(txn(vec![unknown], vec![], vec![])), "unknown comparison 17"),
    ];
    for (command, expected) in cases {
        let error = validate(&command, &limits).unwrap_err();
        assert!(error.message.contains(expected), "{error}");
        assert_eq!(error.code, Code::InvalidArgument);
    }
    assert!(do_txn(&mut empty(), deep).unwrap_err().message.contains("nested too deep"));
}

#[test]
fn a_transaction_may_write_each_key_once() {
    let t = |success, failure| txn_op(txn(vec![], success, failure));
    let duplicate = [
        vec![put_op("a", "1"), put_op("a", "2")],
        vec![put_op("a", "1"), delete_op("a", "")],
        vec![delete_op("a", "c"), put_op("b", "1")],
        vec![put_op("a", "1"), t(vec![put_op("a", "2")], vec![])],
        vec![t(vec![put_op("a", "1")], vec![]), t(vec![], vec![put_op("a", "2")])],
        vec![delete_op("a", "b"), t(vec![], vec![put_op("a", "2")])],
        vec![t(vec![delete_op("a", "b")], vec![]), put_op("a", "2")],
        vec![t(vec![delete_op("a", "b")], vec![]), t(vec![put_op("a", "2")], vec![])],
        vec![delete_op("a", "c"), delete_op("b", "e"), delete_op("x", "z"), put_op("d", "")],
        vec![delete_op("x", "z"), delete_op("b", "e"), delete_op("a", "y"), put_op("f", "")],
        vec![delete_op("a", "z"), delete_op("b", "c"), put_op("d", "")],
    ];
    for ops in duplicate {
        for txn in [txn(vec![], ops.clone(), vec![]), txn(vec![], vec![], ops.clone())] {
            let result = validate(&Command::Txn(txn), &Limits::default());
            assert_eq!(result, Err(Refusal::DUPLICATE_KEY), "{ops:?}");
        }
    }
    let fine = [
        vec![put_op("a", "1"), put_op("b", "2"), delete_op("c", "d"), put_op("d", "")],
        vec![t(vec![put_op("a", "1")], vec![put_op("a", "2")])],
        vec![delete_op("a", ""), delete_op("a", "b"), put_op("b", "")],
        vec![delete_op("c", "a"), put_op("b", "")],
        // Oddities of etcd's: it does not see "everything from the key on" here, nor what a
        // nested transaction deletes after another one put it.
        vec![delete_op("a", "\0"), put_op("b", "")],
        vec![t(vec![put_op("a", "1")], vec![]), t(vec![delete_op("a", "b")], vec![])],
    ];
    for ops in fine {
        let command = Command::Txn(txn(vec![], ops.clone(), ops));
        validate(&command, &Limits::default()).unwrap_or_else(|error| panic!("{error}: {command:?}"));
    }
}
