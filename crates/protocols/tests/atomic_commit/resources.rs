//! The two resources by themselves: work is invisible until it commits, refused work changes nothing,
//! and a lock is held until the end.

use super::subject::{Bank, BankOp, KeyOp, Keyspace, READ_BYTES_MAX, Refusal, Resource, TxnId};
use bytes::Bytes;
use synod_protocols::Wire;
use synod_protocols::types::NodeId;

fn txn(number: u64) -> TxnId {
    TxnId { coordinator: NodeId(10), epoch: 1, number }
}

fn debit(account: &str, amount: u64) -> BankOp {
    BankOp::Debit { account: account.into(), amount }
}

fn credit(account: &str, amount: u64) -> BankOp {
    BankOp::Credit { account: account.into(), amount }
}

fn bank() -> Bank {
    Bank::new([("a".to_owned(), 100), ("b".to_owned(), u64::MAX - 5)])
}

#[test]
fn a_bank_shows_nothing_of_a_transaction_until_it_commits() {
    let mut bank = bank();
    bank.work(txn(1), &vec![debit("a", 30)]).expect("covered");
    assert_eq!(bank.accounts()["a"], 100);
    bank.commit(txn(1));
    assert_eq!(bank.accounts()["a"], 70);
    assert!(bank.locks().is_empty());
}

#[test]
fn a_bank_refuses_and_then_nothing_is_changed_or_locked() {
    for (work, why) in [
        (vec![debit("a", 60), debit("a", 60)], Refusal::Overdraft { account: "a".into(), balance: 40 }),
        (vec![debit("a", 1), credit("z", 1)], Refusal::Unknown { name: "z".into() }),
        (vec![debit("a", 10), credit("b", 10)], Refusal::Overflow { account: "b".into() }),
    ] {
        let mut tried = bank();
        assert_eq!(tried.work(txn(1), &work), Err(why));
        assert_eq!(tried, bank());
    }
}

#[test]
fn readers_share_a_lock_and_a_writer_does_not() {
    let mut bank = bank();
    let read = vec![BankOp::Balance { account: "a".into() }];
    assert_eq!(bank.work(txn(1), &read), Ok(vec![100u64].to_bytes()));
    assert_eq!(bank.work(txn(2), &read), Ok(vec![100u64].to_bytes()));
    let locked = Refusal::Locked { name: "a".into(), holder: txn(1) };
    assert_eq!(bank.work(txn(3), &vec![debit("a", 1)]), Err(locked));
    assert!(bank.is_read_only(txn(1)));
    bank.abort(txn(1));
    // The last reader may become the writer.
    bank.work(txn(2), &vec![debit("a", 1)]).expect("it is alone");
    assert!(matches!(bank.work(txn(1), &read), Err(Refusal::Locked { .. })));
}

#[test]
fn a_keyspace_keeps_or_undoes_all_of_a_transaction() {
    let put = |key: &str, value: Option<&'static str>| KeyOp::Put {
        key: key.into(),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    };
    let get = |key: &str| KeyOp::Get { key: key.into() };
    let mut keys = Keyspace::default();
    keys.work(txn(1), &vec![put("x", Some("1")), put("y", Some("2"))]).expect("free");
    assert!(keys.values().is_empty());
    assert!(matches!(keys.work(txn(2), &vec![get("x")]), Err(Refusal::Locked { .. })));
    keys.commit(txn(1));
    let changes = vec![put("x", None), put("y", Some("3")), get("y")];
    assert_eq!(keys.work(txn(2), &changes), Ok(vec![Some(Bytes::from_static(b"3"))].to_bytes()));
    keys.abort(txn(2));
    assert_eq!(keys.values().len(), 2);
    let wrong = vec![put("x", None), KeyOp::Expect { key: "y".into(), value: None }];
    assert_eq!(keys.work(txn(3), &wrong), Err(Refusal::Unexpected { name: "y".into() }));
    assert!(keys.locks().is_empty() && keys.is_read_only(txn(3)));
}

#[test]
fn a_keyspace_adds_to_numbers_and_refuses_what_a_bank_would() {
    let add = |key: &str, by, at_least| KeyOp::Add { key: key.into(), by, at_least };
    let put = |key: &str, value: &'static str| KeyOp::Put { key: key.into(), value: Some(value.into()) };
    let mut keys = Keyspace::default();
    let texts = [("a", "100"), ("most", "9223372036854775807"), ("owes", "-5"), ("word", "word")];
    keys.work(txn(1), &texts.map(|(key, value)| put(key, value)).to_vec()).expect("no conflict");
    keys.commit(txn(1));
    for (op, why) in [
        (add("a", -101, Some(0)), Refusal::Overdraft { account: "a".into(), balance: 100 }),
        (add("a", -1, Some(100)), Refusal::Overdraft { account: "a".into(), balance: 100 }),
        (add("owes", 1, Some(0)), Refusal::Overdraft { account: "owes".into(), balance: 0 }),
        (add("most", 1, None), Refusal::Overflow { account: "most".into() }),
        (add("nobody", 1, None), Refusal::Unknown { name: "nobody".into() }),
        (add("word", 1, None), Refusal::NoNumber { name: "word".into() }),
    ] {
        let mut tried = keys.clone();
        assert_eq!(tried.work(txn(2), &vec![put("b", "1"), op]), Err(why));
        assert_eq!(tried, keys, "nothing is changed or locked");
    }
    let work = vec![add("a", -130, None), add("a", 50, Some(20)), KeyOp::Get { key: "a".into() }];
    assert_eq!(keys.work(txn(3), &work), Ok(vec![Some(Bytes::from("20"))].to_bytes()));
    let locked = keys.work(txn(4), &vec![add("a", 1, None)]);
    assert!(matches!(locked, Err(Refusal::Locked { .. })), "{locked:?}");
    keys.commit(txn(3));
    assert_eq!(keys.values()["a"], "20");
}

#[test]
fn a_keyspace_keeps_what_work_has_read_and_bounds_it() {
    let get = || KeyOp::Get { key: "a".into() };
    let mut keys = Keyspace::kept([("a".to_owned(), Bytes::from("1"))].into());
    let answer = keys.work(txn(1), &vec![get(), KeyOp::Keep { key: "kept".into() }]).expect("no conflict");
    keys.commit(txn(1));
    assert_eq!(keys.values()["kept"], answer);
    assert_eq!(keys.take_committed(), [("kept".to_owned(), Some(answer))].into());
    assert!(keys.take_committed().is_empty(), "it was taken");
    let large = Bytes::from(vec![b'x'; READ_BYTES_MAX / 2 + 1]);
    keys.work(txn(2), &vec![KeyOp::Put { key: "a".into(), value: Some(large) }]).expect("no conflict");
    keys.commit(txn(2));
    assert!(keys.work(txn(3), &vec![get()]).is_ok());
    assert_eq!(keys.work(txn(4), &vec![get(), get()]), Err(Refusal::TooMuch));
}
