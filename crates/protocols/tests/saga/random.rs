//! Seeded random runs of random plans under loss, repetition, reordering and crashes: every saga ends all done
//! or all compensated, and no money is gone.

use super::subject::{Amount, Movement, Plan, Request, SagaId, SagaRecord, Step};
use super::world::{ORCHESTRATOR, World, account};
use std::time::Duration;
use synod_protocols::types::NodeId;
use synod_protocols::{Rng, Wire};

const ACTIONS: u64 = 500;

#[derive(Debug, Default)]
pub struct Totals {
    pub done: u64,
    pub compensated: u64,
    pub crashes: u64,
    /// Looks at all accounts that saw money missing or too much, of how many.
    pub anomalies: (u64, u64),
}

pub fn drive(seed: u64, total: &mut Totals) {
    let mut rng = Rng::new(seed);
    let (lose, repeat, crash) = (rng.below(3) * 60, rng.below(3) * 80, rng.below(3) * 8);
    let is_reordered = rng.chance(1, 2);
    let banks = 2 + rng.below(2);
    let mut world = World::new(banks);
    world.is_slow = rng.chance(1, 2);
    for _ in 0..ACTIONS {
        let id = if rng.chance(1, 2) { ORCHESTRATOR } else { NodeId(1 + rng.below(banks)) };
        if !world.is_up(id) {
            if rng.chance(1, 10) {
                world.start(id);
            }
        } else if rng.chance(crash, 1_000) {
            if rng.chance(1, 2) {
                world.checkpoint();
            }
            let durable = rng.below(1 + world.unsynced() as u64) as usize;
            world.crash(id, durable);
            total.crashes += 1;
        } else {
            act(&mut world, &mut rng, banks, (lose, repeat, is_reordered));
        }
    }
    heal(&mut world);
    world.check_ended();
    world.check_money();
    total.anomalies.0 += world.anomalies.0;
    total.anomalies.1 += world.anomalies.1;
    let began = world.asked.values().filter(|asked| asked.saga.is_some() && asked.plan.is_some());
    for asked in began {
        match asked.outcome {
            Some(super::subject::Outcome::Done) => total.done += 1,
            Some(super::subject::Outcome::Compensated { .. }) => total.compensated += 1,
            None => {}
        }
    }
}

fn act(world: &mut World, rng: &mut Rng, banks: u64, (lose, repeat, is_reordered): (u64, u64, bool)) {
    match rng.below(100) {
        0..60 if !world.flight.is_empty() => {
            let length = world.flight.len() as u64;
            let position = if is_reordered { rng.below(length) } else { 0 } as usize;
            if rng.chance(lose, 1_000) {
                world.flight.remove(position);
                return;
            }
            if rng.chance(repeat, 1_000) {
                let again = world.flight[position].clone();
                world.flight.push(again);
            }
            world.deliver(position);
        }
        60..75 => world.sync(rng.below(3) as usize),
        75..90 => drop(world.timeout()),
        _ if !world.is_up(ORCHESTRATOR) => {}
        90..97 => {
            let plan = plan(rng, banks);
            world.ask(|ticket| Request::Begin { ticket, plan });
        }
        _ => {
            let sagas: Vec<_> = world.asked.values().filter_map(|asked| asked.saga).collect();
            if !sagas.is_empty() {
                let saga = sagas[rng.below(sagas.len() as u64) as usize];
                world.ask(|ticket| Request::Cancel { ticket, saga });
            }
        }
    }
}

/// Money goes from some account to others, step by step or side by side, and none of it is made or lost.
fn plan(rng: &mut Rng, banks: u64) -> Plan {
    let pairs = 1 + rng.below(3);
    let has_pivot = rng.chance(1, 2);
    let mut steps: Vec<Step> = Vec::new();
    for pair in 0..pairs {
        let (from, to) = (NodeId(1 + rng.below(banks)), NodeId(1 + rng.below(banks)));
        let out = format!("out{pair}");
        let own = |name: &str| Amount::Output { step: name.into() };
        let action = match rng.chance(1, 8) {
            true => Movement::Sweep { account: account(from) },
            false => {
                Movement::Debit { account: account(from), amount: Amount::Fixed { units: rng.below(90) } }
            }
        };
        let undo = Movement::Credit { account: account(from), amount: own(&out) };
        let mut step = Step::new(&out, from, action.to_bytes(), undo.to_bytes());
        if pair > 0 && rng.chance(1, 2) {
            step = step.after(&["out0"]);
        }
        step.waits_for_person = rng.chance(1, 10);
        steps.push(step);
        let put = format!("in{pair}");
        let action = Movement::Credit { account: account(to), amount: own(&out) };
        let undo = Movement::Debit { account: account(to), amount: own(&put) };
        steps.push(Step::new(&put, to, action.to_bytes(), undo.to_bytes()).after(&[&out]));
    }
    if has_pivot {
        // All money is out, then comes the pivot, then nothing is undone any more.
        let outs: Vec<String> = (0..pairs).map(|pair| format!("out{pair}")).collect();
        let nothing = Movement::Credit { account: account(NodeId(1)), amount: Amount::Fixed { units: 0 } };
        let mut pivot = Step::new("pivot", NodeId(1), nothing.to_bytes(), nothing.to_bytes());
        (pivot.is_pivot, pivot.compensation, pivot.after) = (true, None, outs);
        for step in steps.iter_mut().filter(|step| step.name.starts_with("in")) {
            step.after.push("pivot".into());
            step.compensation = None;
        }
        steps.push(pivot);
    }
    Plan { steps }
}

fn heal(world: &mut World) {
    world.cut.clear();
    world.is_slow = false;
    world.sync(usize::MAX);
    let ids: Vec<NodeId> = world.banks.keys().copied().chain([ORCHESTRATOR]).collect();
    for id in ids {
        if !world.is_up(id) {
            world.start(id);
        }
    }
    // A person looks at what is paused. Where the money to undo a step was spent,
    // it may be held by others that wait in the same way: that is what a lack of isolation can do.
    for _ in 0..10 {
        world.pass(Duration::from_secs(10));
        let waits =
            |(saga, _): &(SagaId, String)| !world.history.contains(&SagaRecord::Ended { saga: *saga });
        let paused: Vec<_> = world.paused.iter().filter(|step| waits(step)).cloned().collect();
        for (saga, step) in paused {
            bring_money(world, saga, &step);
            world.ask(|ticket| Request::Resume { ticket, saga, step });
            world.pass(Duration::from_secs(10));
        }
    }
}

/// What a person brings from elsewhere at a time.
const LOAN: u64 = 1_000;

/// Money that was spent meanwhile is brought from elsewhere, to where this step is to be undone.
fn bring_money(world: &mut World, saga: SagaId, step: &str) {
    let began = world.history.iter().find_map(|record| match record {
        SagaRecord::Began { saga: other, plan } if *other == saga => Some(plan.clone()),
        _ => None,
    });
    let plan = began.expect("it was begun");
    let planned = plan.steps.iter().find(|planned| planned.name == step);
    let to = planned.expect("the step is of the plan").service;
    let amount = Amount::Fixed { units: LOAN };
    let loan = Movement::Credit { account: account(to), amount: amount.clone() }.to_bytes();
    let back = Movement::Debit { account: account(to), amount }.to_bytes();
    let steps = vec![Step::new("loan", to, loan, back)];
    world.ask(|ticket| Request::Begin { ticket, plan: Plan { steps } });
    world.lent += LOAN;
    world.pass(Duration::from_secs(10));
}
