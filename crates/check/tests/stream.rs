//! Following a history line by line gives the verdict of judging it as a whole.

mod common;

use common::{Random, shown, simulated};
use serde_json::Value;
use synod_check::history::{Call, Header, History, Outcome, Reply};
use synod_check::linearizable::{Limits, check};
use synod_check::model::{KeyValue, Model, Sequence};
use synod_check::stream::{FollowLimits, Follower, Standing};

fn follow(history: &History) -> (Follower, usize) {
    let mut follower = Follower::new(FollowLimits::default());
    let mut most = 0;
    for line in shown(history).lines() {
        follower.line(line).unwrap_or_else(|error| panic!("{error}\n{}", shown(history)));
        most = most.max(follower.configurations());
    }
    follower.finish();
    (follower, most)
}

fn corrupt(random: &mut Random, history: &mut History) {
    let count = history.operations.len() as u64;
    let operation = &mut history.operations[random.below(count) as usize];
    if let Outcome::Ok(Reply { value: Some(value), .. }) = &mut operation.outcome
        && !value.is_boolean()
    {
        *value = random.below(3).into();
    }
}

fn campaign<M: Model>(
    model: &M,
    object: &str,
    call: &dyn Fn(&mut Random, usize) -> Call,
    answer: &dyn Fn(&M::State, &Call) -> Reply,
) {
    let (mut yes, mut no) = (0, 0);
    for seed in 0..1_000 {
        let random = &mut Random(seed);
        let lossy = random.one_in(2);
        let mut history = simulated(model, Header::new(object), random, (4, 10), lossy, call, answer);
        if random.one_in(2) {
            corrupt(random, &mut history);
        }
        let report = check(model, &history, &Limits::default(), &mut || false).expect("known operations");
        let (follower, _) = follow(&history);
        match follower.standing() {
            Standing::Yes => assert!(report.verdict.is_yes(), "seed {seed}\n{}", shown(&history)),
            Standing::No { words, .. } => {
                assert!(report.verdict.is_no(), "seed {seed}: {words}\n{}", shown(&history));
            }
            Standing::Unknown { words, .. } => panic!("seed {seed}: {words}"),
        }
        *(if report.verdict.is_yes() { &mut yes } else { &mut no }) += 1;
    }
    println!("{object}: {yes} yes, {no} no");
    assert!(yes > 60 && no > 60);
}

#[test]
fn registers() {
    let call = |random: &mut Random, _| match random.below(4) {
        0 => Call { value: Some(random.below(3).into()), ..Call::new("write") },
        1 => Call {
            expect: Some(random.below(3).into()),
            value: Some(random.below(3).into()),
            ..Call::new("cas")
        },
        _ => Call::new("read"),
    };
    let answer = |state: &Value, call: &Call| match &*call.op {
        "read" => Reply::value(state.clone()),
        "cas" => Reply::value(call.expect.as_ref() == Some(state)),
        _ => Reply::none(),
    };
    campaign(&KeyValue::new(), "register", &call, &answer);
}

#[test]
fn queues() {
    let call = |random: &mut Random, number: usize| match random.below(2) {
        0 => Call { value: Some((number + 3).into()), ..Call::new("enqueue") },
        _ => Call::new("dequeue"),
    };
    campaign(&Sequence::Queue, "queue", &call, &|state, call| match &*call.op {
        "dequeue" => Reply::value(state.front().cloned().unwrap_or_default()),
        _ => Reply::none(),
    });
}

#[test]
fn what_is_held_does_not_grow_with_the_history() {
    let call = |random: &mut Random, number: usize| match random.below(2) {
        0 => Call { value: Some(number.into()), ..Call::new("write") },
        _ => Call::new("read"),
    };
    let answer = |state: &Value, call: &Call| match &*call.op {
        "read" => Reply::value(state.clone()),
        _ => Reply::none(),
    };
    let history = simulated(
        &KeyValue::new(),
        Header::new("register"),
        &mut Random(1),
        (5, 5_000),
        false,
        &call,
        &answer,
    );
    let (follower, most) = follow(&history);
    assert_eq!(follower.standing(), Standing::Yes);
    assert!(most < 200, "{most} configurations");
    assert_eq!(follower.operations(), 5_000);
}

#[test]
fn what_cannot_be_followed_is_told_at_its_line() {
    let header = r#"{"synod-history":1,"object":"register"}"#;
    for (lines, words) in [
        (vec!["{}"], "no header"),
        (vec![r#"{"synod-history":1,"object":"list-append"}"#], "cannot be followed"),
        (vec![header, "nonsense"], "line 2: this is no JSON"),
        (vec![header, r#"{"event":"ok","id":3}"#], "not open"),
        (vec![header, r#"{"event":"invoke","id":3,"client":"a","op":"jump"}"#], "jump"),
    ] {
        let mut follower = Follower::new(FollowLimits::default());
        let result = lines.iter().try_for_each(|line| follower.line(line));
        let error = result.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}
