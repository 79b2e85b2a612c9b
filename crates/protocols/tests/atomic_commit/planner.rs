//! Where a transaction can be one log entry, and what is said where it cannot.

use super::subject::{BankOp, CannotRoute, Placement, Route};
use super::world::transfer;
use synod_protocols::types::NodeId;

fn placement() -> Placement {
    Placement::new([("a", 1), ("b", 2), ("x", 1)].map(|(name, home)| (name.to_owned(), NodeId(home))))
}

fn ops(from: &str, to: &str) -> Vec<BankOp> {
    let debit = BankOp::Debit { account: from.into(), amount: 30 };
    vec![debit, BankOp::Credit { account: to.into(), amount: 30 }]
}

#[test]
fn what_is_in_one_partition_is_one_entry() {
    let route = placement().route(&ops("a", "x")).expect("both are there");
    assert_eq!(route, Route::OneEntry { partition: NodeId(1), work: ops("a", "x") });
    assert_eq!(route.to_string(), "one entry of n1's log, since everything is there");
    assert_eq!(placement().avoid(&ops("a", "x")), Ok(NodeId(1)));
}

#[test]
fn what_is_apart_takes_two_phases_or_is_refused_with_the_reason() {
    let route = placement().route(&ops("a", "b")).expect("both are there");
    assert_eq!(route, Route::TwoPhase { branches: transfer("a", "b", 30) });
    let why = placement().avoid(&ops("a", "b")).expect_err("they are apart");
    let apart = CannotRoute::Apart { one: ("a".into(), NodeId(1)), other: ("b".into(), NodeId(2)) };
    assert_eq!(why, apart);
    assert!(why.to_string().starts_with("a is at n1 and b at n2: one log entry cannot hold both"));
}

#[test]
fn unknown_accounts_and_nothing_to_do_are_refused() {
    let unknown = CannotRoute::Unknown { account: "z".into() };
    assert_eq!(placement().route(&ops("a", "z")), Err(unknown.clone()));
    assert_eq!(placement().avoid(&ops("a", "z")), Err(unknown));
    assert_eq!(placement().route(&[]), Err(CannotRoute::Empty));
    assert_eq!(placement().avoid(&[]), Err(CannotRoute::Empty));
}
