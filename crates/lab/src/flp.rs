//! The reader as the scheduler: a schedule of single-decree Paxos, and what may happen next.

use serde::{Deserialize, Serialize};
use synod_sim::NodeId;
use synod_sim::Paxos;
use synod_sim::flp::{Configuration, MEMBERS, Step, Valence, harmless};

/// How long a schedule may be.
pub(crate) const STEPS_MAX: usize = 1_000;
/// Configurations that the proof of one mark may visit.
const PROOF_CONFIGURATIONS_MAX: usize = 4_000;
/// What the processes want: n1 and n2 propose, n3 helps.
const WISHES: [Option<bool>; MEMBERS] = [Some(false), Some(true), None];

/// A schedule, from the beginning.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    steps: Vec<String>,
}

/// A configuration, marked.
#[derive(Serialize)]
pub(crate) struct View {
    decided: Option<u8>,
    mark: Mark,
    /// How many more steps can decide 0, and how many 1, where both are known to be possible.
    witness: Option<[usize; 2]>,
    members: Vec<Member>,
    enabled: Vec<Choice>,
    turn: Option<Turn>,
    ballots: u64,
}

#[derive(Serialize)]
struct Member {
    id: String,
    wants: Option<u8>,
    state: Vec<(&'static str, String)>,
}

/// Which outcomes can come.
#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Mark {
    /// Two schedules prove that both can.
    Bivalent,
    /// All schedules without further retries lead to one.
    Zero,
    One,
    /// Decided, or not known.
    Unknown,
}

/// One thing that may happen, and where it leads.
#[derive(Serialize)]
struct Choice {
    step: String,
    what: String,
    mark: Mark,
    /// Whether it is a message, and to whom.
    to: Option<String>,
}

/// Whose turn it is if all processes are to go on, and what the proof's adversary would do in it.
#[derive(Serialize)]
struct Turn {
    member: String,
    due: String,
    /// Steps to take first, so that `due` leaves the outcome open; nothing if there is no need.
    before: Option<Vec<String>>,
}

/// Plays a schedule.
///
/// # Errors
/// In words: a step that is none, one that is not possible where it stands, a schedule too long.
pub(crate) fn play(schedule: &Schedule) -> Result<View, String> {
    if schedule.steps.len() > STEPS_MAX {
        return Err(format!("a schedule has at most {STEPS_MAX} steps"));
    }
    let mut now = Configuration::<Paxos>::new(WISHES, 1);
    let mut ballots = 0;
    let mut served = [0_u64; MEMBERS];
    for (text, number) in schedule.steps.iter().zip(1..) {
        let step: Step = text.parse()?;
        if !now.enabled().contains(&step) {
            return Err(format!("step {number}, {text}, is not possible there"));
        }
        if let Some(i) = (0..MEMBERS).find(|i| now.due(id(*i)) == Some(step)) {
            served[i] += 1;
        }
        now.apply(step);
        ballots = ballots.max(now.round());
    }
    let choices = now.enabled().into_iter().map(|step| choice(&now, step)).collect();
    let member = |i: usize| Member {
        id: id(i).to_string(),
        wants: WISHES[i].map(u8::from),
        state: now.member(id(i)).describe(),
    };
    let witness = now.bivalence();
    Ok(View {
        decided: now.decided().map(u8::from),
        mark: mark(&now),
        witness: witness.map(|[zero, one]| [zero.len(), one.len()]),
        members: (0..MEMBERS).map(member).collect(),
        enabled: if now.decided().is_some() { Vec::new() } else { choices },
        turn: turn(&now, &served),
        ballots,
    })
}

fn id(i: usize) -> NodeId {
    NodeId(i as u64 + 1)
}

fn choice(now: &Configuration<Paxos>, step: Step) -> Choice {
    let mut next = now.clone();
    next.apply(step);
    let to = match step {
        Step::Deliver(number) => now.letters().iter().find(|letter| letter.number == number),
        Step::Wake(_) => None,
    };
    Choice {
        step: step.to_string(),
        what: now.describe(step),
        mark: mark(&next),
        to: to.map(|letter| letter.to.to_string()),
    }
}

fn mark(configuration: &Configuration<Paxos>) -> Mark {
    let of = |outcome| if outcome { Mark::One } else { Mark::Zero };
    if let Some(decided) = configuration.decided() {
        return of(decided);
    }
    if configuration.bivalence().is_some() {
        return Mark::Bivalent;
    }
    match configuration.valence(0, PROOF_CONFIGURATIONS_MAX) {
        Valence::Univalent { outcome: Some(outcome), .. } => of(outcome),
        Valence::Bivalent => Mark::Bivalent,
        Valence::Univalent { outcome: None, .. } | Valence::Unknown { .. } => Mark::Unknown,
    }
}

/// The turn of whoever had the fewest.
fn turn(now: &Configuration<Paxos>, served: &[u64; MEMBERS]) -> Option<Turn> {
    if now.decided().is_some() {
        return None;
    }
    let member = (0..MEMBERS).filter(|i| now.due(id(*i)).is_some()).min_by_key(|i| (served[*i], *i))?;
    let due = now.due(id(member))?;
    let before = harmless(now, due, 0).map(|steps| steps.iter().map(Step::to_string).collect());
    Some(Turn { member: id(member).to_string(), due: due.to_string(), before })
}
