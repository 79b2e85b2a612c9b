//! One transfer under a script of faults, told event by event: what a picture of it needs.

use super::figures::bank_messages;
use super::note::Note;
use super::stage::COORDINATOR;
use super::world::World;
use super::{BALANCE, Fault, Protocol, Scenario, account};
use crate::small::{Happened, Message};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_protocols::commit::{BankOp, Decision};
use synod_protocols::types::{NodeId, Time};

/// What happens to a machine, or to its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It loses what was not synced.
    Crash,
    /// It comes back with what was.
    Start,
    /// Nobody hears it, and it hears nobody.
    Cut,
    /// All machines hear each other again, whoever is named.
    Heal,
}

/// When what befalls whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// After the beginning of the film.
    pub at: Duration,
    /// What.
    pub blow: Blow,
    /// Whom.
    pub whom: Whom,
}

/// Who is struck, by role: the same script fits every protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Whoever was asked for the transfer.
    Coordinator,
    /// A bank, 1 or 2.
    Bank(u8),
}

/// A transfer of all of account `a` to account `b`, as it goes by one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Play {
    /// How.
    pub protocol: Protocol,
    /// Bank 2 has no such account: it refuses.
    pub is_refused: bool,
    /// What goes wrong, in any order.
    pub strikes: Vec<Strike>,
    /// How long is watched.
    pub until: Duration,
}

/// When the transfer is asked for, after the film's beginning.
pub const ASKED_AT: Duration = Duration::from_millis(20);
/// How long every message of a film travels.
pub const LATENCY: Duration = Duration::from_millis(30);
/// How long every sync of a film takes.
pub const SYNC: Duration = Duration::from_millis(5);
/// How long a film is at the most.
pub const FILM_TIME_MAX: Duration = Duration::from_secs(60);
/// Strikes of a film at the most.
pub const STRIKES_MAX: usize = 32;
/// Before the film begins a replicated coordinator has elected its leader.
const PRELUDE: Time = Time(2_000_000_000);

/// What came of a play. Times are nanoseconds after its beginning.
#[derive(Clone, Debug, Serialize)]
pub struct Film {
    /// How it was carried out.
    pub protocol: String,
    /// The machines and their parts: `coordinator` or `bank`.
    pub machines: Vec<(String, &'static str)>,
    /// Who was asked; nobody if nobody was there.
    pub asked: Option<String>,
    /// Messages, crashes, decisions, in order.
    pub events: Vec<FilmEvent>,
    /// What could be seen, from each moment at which it changed.
    pub states: Vec<FilmState>,
    /// When the client was told, and what.
    pub told: Option<(u64, &'static str)>,
    /// Messages from and to banks.
    pub messages: u64,
    /// Promises that were broken.
    pub violations: Vec<String>,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
pub struct FilmEvent {
    /// When.
    pub t: u64,
    /// What: `send`, `lost`, `crash`, `start`, `cut`, `heal`, `decided`, `applied`.
    pub kind: &'static str,
    /// Who does it, or to whom it happens; the network for `heal`.
    pub who: String,
    /// To whom a message goes.
    pub to: Option<String>,
    /// The message's name, or the decision.
    pub what: Option<String>,
    /// When a message arrives, if nobody crashes or is cut off meanwhile.
    pub at: Option<u64>,
}

/// What could be seen from a moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilmState {
    /// Since when.
    pub t: u64,
    /// Committed balances of the banks that are up, by account.
    pub balances: BTreeMap<String, u64>,
    /// Banks that hold locks.
    pub locked: Vec<String>,
}

/// Plays one transfer by one protocol.
pub fn film(play: &Play) -> Film {
    let scenario = Scenario {
        latency: (LATENCY, LATENCY),
        sync: SYNC,
        fault: Fault::None,
        ..Scenario::new(play.protocol, 2, 1)
    };
    let mut world = World::new(scenario, true);
    world.advance(PRELUDE);
    world.stage.forget_seen();
    let mut shot = Shot { states: Vec::new() };
    shot.look(&world);
    let mut strikes = play.strikes.clone();
    strikes.sort_by_key(|strike| strike.at);
    let mut due: Vec<(Duration, Option<Strike>)> = vec![(ASKED_AT, None)];
    due.extend(strikes.into_iter().map(|strike| (strike.at.min(play.until), Some(strike))));
    due.sort_by_key(|(at, _)| *at);
    let mut asked = None;
    for (at, strike) in due {
        shot.advance(&mut world, PRELUDE + at);
        match strike {
            None => asked = world.ask(branches(play), false),
            Some(Strike { blow, whom, .. }) => {
                let id = match whom {
                    Whom::Coordinator => asked.unwrap_or(COORDINATOR),
                    Whom::Bank(number) => NodeId(number.into()),
                };
                match blow {
                    Blow::Crash => world.stage.crash(id, false),
                    Blow::Start => world.stage.start(id),
                    Blow::Cut => world.cut(id),
                    Blow::Heal => world.stage.heal(),
                }
            }
        }
        shot.look(&world);
    }
    shot.advance(&mut world, PRELUDE + play.until);
    let machines = world.stage.ids().into_iter().map(|id| (name(id), part(id))).collect();
    let told = world.known.map(since).zip(world.first_decision().map(word));
    let violations = world.violations().to_vec();
    let seen = world.into_seen();
    let messages = bank_messages(&seen);
    let events = seen.iter().filter_map(|(at, happened)| event(*at, happened)).collect();
    Film {
        protocol: play.protocol.to_string(),
        machines,
        asked: asked.map(name),
        events,
        states: shot.states,
        told,
        messages,
        violations,
    }
}

struct Shot {
    states: Vec<FilmState>,
}

impl Shot {
    fn advance(&mut self, world: &mut World, until: Time) {
        while world.advance_once(until) {
            self.look(world);
        }
    }

    /// Keeps what can be seen if it is not what was seen last.
    fn look(&mut self, world: &World) {
        let locked = world.locked().into_iter().map(name).collect();
        let state = FilmState { t: since(world.stage.now), balances: world.balances(), locked };
        let same = |last: &FilmState| last.balances == state.balances && last.locked == state.locked;
        if !self.states.last().is_some_and(same) {
            self.states.push(state);
        }
    }
}

fn branches(play: &Play) -> super::actor::Branches {
    let (from, to) = (NodeId(1), NodeId(2));
    let home = if play.protocol == Protocol::Avoid { from } else { to };
    let account_to = if play.is_refused { "closed".into() } else { account(to) };
    let mut branches = super::actor::Branches::new();
    branches.entry(from).or_default().push(BankOp::Debit { account: account(from), amount: BALANCE });
    branches.entry(home).or_default().push(BankOp::Credit { account: account_to, amount: BALANCE });
    branches
}

fn since(at: Time) -> u64 {
    at.0.saturating_sub(PRELUDE.0)
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "commit",
        Decision::Abort => "abort",
    }
}

/// `b1` and `b2` are the banks, `c1` and so on whoever coordinates.
fn name(id: NodeId) -> String {
    match id < COORDINATOR {
        true => format!("b{}", id.0),
        false => format!("c{}", id.0 - COORDINATOR.0 + 1),
    }
}

fn part(id: NodeId) -> &'static str {
    if id < COORDINATOR { "bank" } else { "coordinator" }
}

fn event(at: Time, happened: &Happened<Note>) -> Option<FilmEvent> {
    let plain = |kind, who: &NodeId| FilmEvent {
        t: since(at),
        kind,
        who: name(*who),
        to: None,
        what: None,
        at: None,
    };
    let carried = |kind, message: &Message| FilmEvent {
        to: Some(name(message.to)),
        what: Some(message.name.into()),
        ..plain(kind, &message.from)
    };
    let said =
        |kind, id, decision: &Decision| FilmEvent { what: Some(word(*decision).into()), ..plain(kind, id) };
    Some(match happened {
        Happened::Sent(message) => FilmEvent { at: Some(since(message.at)), ..carried("send", message) },
        Happened::Lost(message, _) => carried("lost", message),
        Happened::Fault { what: "crash", who: Some(id), .. } => plain("crash", id),
        Happened::Fault { what: "restart", who: Some(id), .. } => plain("start", id),
        Happened::Fault { what: "heal", .. } => {
            FilmEvent { who: "network".into(), ..plain("heal", &COORDINATOR) }
        }
        Happened::Note(Note::CutOff(id)) => plain("cut", id),
        Happened::Note(Note::Decided(id, decision, _)) => said("decided", id, decision),
        Happened::Note(Note::Applied(id, decision, _)) => said("applied", id, decision),
        _ => return None,
    })
}
