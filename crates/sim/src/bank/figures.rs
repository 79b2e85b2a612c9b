//! What each protocol costs when nothing goes wrong, and what it holds up when the coordinator dies.

use super::actor::Branches;
use super::note::Note;
use super::stage::COORDINATOR;
use super::world::World;
use super::{BALANCE, Fault, Protocol, Scenario, account};
use crate::small::{Happened, Seen};
use std::time::Duration;
use synod_protocols::Rng;
use synod_protocols::commit::BankOp;
use synod_protocols::types::{NodeId, Time};

/// What one transaction with a branch at every bank costs without faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Messages from and to banks until nothing happens any more. The replicated coordinator's log has its own.
    pub messages: u64,
    /// Message delays until the client knows.
    pub delays: u64,
    /// Syncs, one after the other, until the client knows.
    pub syncs: u64,
}

const TICK: Duration = Duration::from_millis(1);

/// Measures the cost: once with messages that take one tick and free syncs, and once the other way round. The client's
/// own request and answer are not counted.
pub fn cost(protocol: Protocol, participants: u64) -> Cost {
    let (delays, messages) = measure(protocol, participants, TICK, Duration::ZERO);
    let (syncs, _) = measure(protocol, participants, Duration::ZERO, TICK);
    Cost { messages, delays, syncs }
}

/// How many ticks passed until the client knew, and how many messages were sent.
fn measure(protocol: Protocol, participants: u64, latency: Duration, sync: Duration) -> (u64, u64) {
    let scenario = Scenario {
        latency: (latency, latency),
        sync,
        fault: Fault::None,
        ..Scenario::new(protocol, participants, 1)
    };
    let mut world = World::new(scenario, true);
    world.advance(Time::from_millis(2_000));
    world.stage.forget_seen();
    let asked = world.stage.now;
    world.ask(spread(protocol, participants), false);
    world.advance(asked + Duration::from_secs(1));
    let known = world.known.expect("without faults the client is told");
    let messages = bank_messages(&world.into_seen());
    (known.since(asked).as_nanos() as u64 / TICK.as_nanos() as u64, messages)
}

/// Messages from and to banks: not the replicated log's own.
pub(super) fn bank_messages(seen: &Seen<Note>) -> u64 {
    let is_one = |(_, happened): &&(Time, Happened<Note>)| match happened {
        Happened::Sent(message) => message.from.min(message.to) < COORDINATOR,
        _ => false,
    };
    seen.iter().filter(is_one).count() as u64
}

/// The first account gives one to each of the others.
fn spread(protocol: Protocol, participants: u64) -> Branches {
    let mut branches = Branches::new();
    let home = |id| if protocol == Protocol::Avoid { NodeId(1) } else { id };
    let debit = BankOp::Debit { account: account(NodeId(1)), amount: participants - 1 };
    branches.entry(home(NodeId(1))).or_default().push(debit);
    for id in (2..=participants).map(NodeId) {
        let credit = BankOp::Credit { account: account(id), amount: 1 };
        branches.entry(home(id)).or_default().push(credit);
    }
    branches
}

/// For how long something was held up by the death of a coordinator, over many seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// From the death until no lock was held, ascending.
    pub locks: Vec<Duration>,
    /// From the death until a sum over all accounts was right again, ascending; the whole time watched where it never was.
    pub money: Vec<Duration>,
    /// In how many runs the money was wrong until the end.
    pub lost: u64,
}

impl Blocking {
    /// The smallest of these times that so many of a hundred do not exceed.
    ///
    /// Panics if there are none.
    pub fn percentile(times: &[Duration], percent: usize) -> Duration {
        times[(times.len() * percent).div_ceil(100).clamp(1, times.len()) - 1]
    }
}

/// A transfer between two banks begins, and whoever coordinates it dies at a random moment of its 100 ms and comes back after
/// `down`. Messages take 5 to 15 ms, syncs 2 ms.
pub fn blocking(protocol: Protocol, seeds: u64, down: Duration) -> Blocking {
    let mut found = Blocking { locks: Vec::new(), money: Vec::new(), lost: 0 };
    for seed in 0..seeds {
        let scenario = Scenario {
            latency: (Duration::from_millis(5), Duration::from_millis(15)),
            sync: Duration::from_millis(2),
            // The death is the only one.
            fault: Fault::None,
            ..Scenario::new(protocol, 2, seed)
        };
        let (locks, money) = one_death(scenario, down);
        found.locks.push(locks);
        found.lost += u64::from(money.is_none());
        found.money.push(money.unwrap_or(down + WATCHED));
    }
    found.locks.sort_unstable();
    found.money.sort_unstable();
    found
}

/// How long is watched after the coordinator is back.
const WATCHED: Duration = Duration::from_secs(30);

fn one_death(scenario: Scenario, down: Duration) -> (Duration, Option<Duration>) {
    let mut world = World::new(scenario, false);
    world.advance(Time::from_millis(2_000));
    let coordinator = world.ask(spread(scenario.protocol, 2), false).unwrap_or(COORDINATOR);
    let mut rng = Rng::new(scenario.seed ^ 0xDEAD);
    world.advance(world.stage.now + Duration::from_nanos(rng.below(100_000_000)));
    world.stage.crash(coordinator, false);
    assert!(!world.stage.is_there(coordinator));
    let died = world.stage.now;
    let (mut locked, mut wrong) = (died, died);
    for until in [died + down, died + down + WATCHED] {
        loop {
            let (is_locked, is_wrong) = (!world.locks().is_empty(), is_wrong(&world));
            let goes_on = world.advance_once(until);
            // What was so before the next thing happened was so until then.
            locked = if is_locked { world.stage.now } else { locked };
            wrong = if is_wrong { world.stage.now } else { wrong };
            if !goes_on {
                break;
            }
        }
        world.stage.start(coordinator);
    }
    let is_lost = is_wrong(&world);
    (locked.since(died), (!is_lost).then(|| wrong.since(died)))
}

/// Whether a sum over all accounts of banks that are up is not what there was at first.
fn is_wrong(world: &World) -> bool {
    world.balances().values().sum::<u64>() != 2 * BALANCE
}
