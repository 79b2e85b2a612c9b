//! Which plans are refused, and why; and encodings.

use super::subject::{Failure, Given, Message, Plan, PlanError, STEPS_MAX, SagaId, SagaRecord, Step};
use bytes::Bytes;
use std::fmt::Debug;
use synod_protocols::Wire;
use synod_protocols::types::NodeId;

fn step(name: &str, after: &[&str]) -> Step {
    Step::new(name, NodeId(1), Bytes::from_static(b"do"), Bytes::from_static(b"undo")).after(after)
}

fn pivot(name: &str, after: &[&str]) -> Step {
    Step { is_pivot: true, compensation: None, ..step(name, after) }
}

fn forever(name: &str, after: &[&str]) -> Step {
    Step { compensation: None, ..step(name, after) }
}

fn refused(steps: Vec<Step>) -> PlanError {
    Plan { steps }.check().expect_err("it cannot be carried out")
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_refused_with_the_reason() {
    assert_eq!(refused(vec![]), PlanError::Size);
    assert_eq!(refused((0..=STEPS_MAX).map(|i| step(&i.to_string(), &[])).collect()), PlanError::Size);
    assert_eq!(refused(vec![step("a", &[]), step("a", &[])]), PlanError::Duplicate("a".into()));
    let unknown = PlanError::Unknown { step: "a".into(), after: "z".into() };
    assert_eq!(refused(vec![step("a", &["z"])]), unknown);
    assert_eq!(refused(vec![step("a", &["a"])]), PlanError::Cycle(vec!["a".into()]));
    let cycle = refused(vec![step("a", &[]), step("b", &["c", "a"]), step("c", &["b"])]);
    assert_eq!(cycle, PlanError::Cycle(vec!["b".into(), "c".into()]));
    assert_eq!(refused(vec![forever("a", &[])]), PlanError::NoCompensation("a".into()));
    assert_eq!(refused(vec![forever("a", &[]), pivot("p", &["a"])]), PlanError::NoCompensation("a".into()));
    let two = PlanError::TwoPivots("p".into(), "q".into());
    assert_eq!(refused(vec![pivot("p", &[]), pivot("q", &["p"])]), two);
    assert_eq!(refused(vec![pivot("p", &[]), step("a", &[])]), PlanError::BesidePivot("a".into()));
}

#[test]
fn steps_after_the_pivot_need_no_compensation() {
    let steps = vec![step("a", &[]), step("b", &[]), pivot("p", &["a", "b"]), forever("c", &["p"])];
    assert_eq!(Plan { steps }.check(), Ok(vec![vec![], vec![], vec![0, 1], vec![2]]));
}

fn round_trips<T: Wire + PartialEq + Debug>(values: impl IntoIterator<Item = T>) {
    for value in values {
        let bytes = value.to_bytes();
        assert_eq!(T::from_bytes(bytes.clone()), Ok(value));
        (0..bytes.len()).for_each(|end| assert!(T::from_bytes(bytes.slice(..end)).is_err()));
    }
}

#[test]
fn messages_and_records_round_trip() {
    let (saga, floor, name) = (SagaId(300), SagaId(2), String::from("out"));
    let work = Bytes::from_static(b"w");
    let given = vec![Given { step: "x".into(), output: work.clone() }];
    let failure = Failure::Refused { why: "no".into() };
    round_trips([
        Message::Act {
            floor,
            saga,
            step: name.clone(),
            work: work.clone(),
            given: given.clone(),
            is_final: true,
        },
        Message::Compensate { floor, saga, step: name.clone(), work: work.clone(), given },
        Message::Acted { saga, step: name.clone(), output: work.clone() },
        Message::Compensated { saga, step: name.clone() },
        Message::Failed { saga, step: name, is_compensation: false, failure },
    ]);
    round_trips([
        SagaRecord::Began { saga, plan: Plan { steps: vec![step("a", &["b"]), pivot("p", &[])] } },
        SagaRecord::Started { saga, step: 1 },
        SagaRecord::Done { saga, step: 1, output: work },
        SagaRecord::Backward { saga, why: "no".into() },
        SagaRecord::Ended { saga },
    ]);
}
