//! The command language of the golden scripts. One command a line, `#` begins a comment.
//!
//! The orchestrator is o; banks are b1, b2, b3, with one account each, a, b and c in this order, which hold
//! 100. Nothing happens by itself.
//!
//! | command | what it does |
//! |---|---|
//! | `start 2` | an orchestrator and two banks |
//! | `step out debit a 30`, `step in credit b =out after out` | one more step of the next plan: what it does, where, how much (`=out`: as much as out moved), after which; it is undone by the opposite |
//! | `step all sweep a` | takes all |
//! | … `pivot`, `person`, `forever` | at the end of a step: it is the pivot, it waits for a person, it has no compensation |
//! | `begin s` | asks for a saga of these steps, called s |
//! | `cancel s`, `resume s out` | asks for it to be undone; a person agrees to a step |
//! | `deliver o b1 [Act]`, `drop o b1 [Act]`, `repeat o b1 [Act]` | the oldest message (of that kind) arrives, is lost, or arrives and stays in flight |
//! | `run`, `timeout o`, `wait 50ms`, `pass 300ms` | as in the other scripts |
//! | `disk o slow`, `disk o quick`, `sync o`, `crash o [durable]`, `restart o`, `crash b1`, `restart b1` | the machines |
//! | `cut b1`, `heal` | messages from and to b1 are lost from now on; no more |
//! | `expect …` | see [`Runner::expect`] |

use super::subject::{
    Amount, Message, Movement, Outcome as SagaOutcome, Plan, Request, SagaId, Step, StepState,
};
use super::world::{ORCHESTRATOR, World};
use std::collections::BTreeMap;
use std::time::Duration;
use synod_protocols::log::Ticket;
use synod_protocols::types::NodeId;
use synod_protocols::{Describe, Wire};

type Outcome = Result<(), String>;

/// Runs a script. An error names the line, what was expected and what was found.
pub fn run(text: &str) -> Outcome {
    let mut runner = Runner { world: World::new(0), names: BTreeMap::new(), steps: Vec::new() };
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        runner.world.note(|| format!("> {line}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Err(error) = runner.command(&words) {
            let trace = runner.world.trace.unwrap_or_default();
            return Err(format!("{trace}\nline {}: `{line}`: {error}", number + 1));
        }
    }
    Ok(())
}

struct Runner {
    world: World,
    names: BTreeMap<String, Ticket>,
    steps: Vec<Step>,
}

impl Runner {
    fn command(&mut self, words: &[&str]) -> Outcome {
        let world = &mut self.world;
        match words {
            ["start", banks] => {
                *world = World::new(number(banks)?);
                world.trace = Some(String::new());
            }
            ["step", rest @ ..] => self.steps.push(step(rest)?),
            ["begin", name] => {
                let plan = Plan { steps: std::mem::take(&mut self.steps) };
                let ticket = world.ask(|ticket| Request::Begin { ticket, plan });
                self.names.insert((*name).into(), ticket);
            }
            ["cancel", name] => {
                let saga = self.saga(name)?;
                let ticket = self.world.ask(|ticket| Request::Cancel { ticket, saga });
                self.names.insert("cancel".into(), ticket);
            }
            ["resume", name, step] => {
                let (saga, step) = (self.saga(name)?, (*step).to_owned());
                let ticket = self.world.ask(|ticket| Request::Resume { ticket, saga, step });
                self.names.insert("resume".into(), ticket);
            }
            ["deliver" | "drop" | "repeat", ..] => return self.traffic(words),
            ["run"] => world.run(),
            ["timeout", "o"] => check(world.timeout(), || "it waits for nothing".into())?,
            ["wait", span] => world.now = world.now + duration(span)?,
            ["pass", span] => world.pass(duration(span)?),
            ["disk", "o", speed] => world.is_slow = *speed == "slow",
            ["sync", "o"] => world.sync(usize::MAX),
            ["checkpoint", "o"] => world.checkpoint(),
            ["crash", id] => world.crash(node(id)?, 0),
            ["crash", id, durable] => world.crash(node(id)?, number(durable)? as usize),
            ["restart", id] => world.start(node(id)?),
            ["cut", id] => drop(world.cut.insert(node(id)?)),
            ["heal"] => world.cut.clear(),
            ["expect", rest @ ..] => return self.expect(rest),
            _ => return Err("there is no such command".into()),
        }
        Ok(())
    }

    fn saga(&self, name: &str) -> Result<SagaId, String> {
        let ticket = self.names.get(name).ok_or_else(|| format!("there is no {name}"))?;
        self.world.asked[ticket].saga.ok_or_else(|| format!("{name} was not begun"))
    }

    fn traffic(&mut self, words: &[&str]) -> Outcome {
        let [what, from, to, kind @ ..] = words else { return Err("from whom to whom?".into()) };
        let (from, to) = (node(from)?, node(to)?);
        let wanted = |(a, b, message): &(NodeId, NodeId, Message)| {
            (*a, *b) == (from, to) && kind.first().is_none_or(|kind| *kind == message.name())
        };
        let position = self.world.flight.iter().position(wanted).ok_or("there is no such message")?;
        match *what {
            "deliver" => self.world.deliver(position),
            "drop" => drop(self.world.flight.remove(position)),
            _ => {
                let message = self.world.flight[position].2.clone();
                self.world.arrive(from, to, message);
            }
        }
        Ok(())
    }

    /// | expectation | what must be so |
    /// |---|---|
    /// | `expect s done`, `expect s compensated [why]`, `expect s open`, `expect s refused Cycle` | what its client knows |
    /// | `expect s paused out` | it waits for a person there, so its client was told |
    /// | `expect s step out started` | where a step stands: pending, started, done, refused, undoing or undone |
    /// | `expect a 70` | the balance that anybody sees |
    /// | `expect o to b1 Act`, `expect o to b1 nothing` | what is in flight, oldest first |
    /// | `expect given b1 Compensate out=30` | the outputs in the latest such message in flight to the bank |
    /// | `expect o disk …`, `expect b1 disk …` | the kinds of all records on its disk |
    fn expect(&mut self, words: &[&str]) -> Outcome {
        let nothing = |list: Vec<&str>| if list.is_empty() { "nothing".into() } else { list.join(" ") };
        let (found, wanted) = match words {
            [from, "to", to, wanted @ ..] => {
                let (from, to) = (node(from)?, node(to)?);
                let flight = self.world.flight.iter().filter(|(a, b, _)| (*a, *b) == (from, to));
                (nothing(flight.map(|(_, _, message)| message.name()).collect()), wanted.join(" "))
            }
            ["given", to, kind, wanted @ ..] => {
                let to = node(to)?;
                let flight = self.world.flight.iter().rev();
                let given = flight.filter(|(_, b, message)| *b == to && message.name() == *kind).find_map(
                    |(_, _, message)| match message {
                        Message::Act { given, .. } | Message::Compensate { given, .. } => Some(given),
                        _ => None,
                    },
                );
                let given = given.ok_or("there is no such message")?.iter().map(|given| {
                    let moved = u64::from_bytes(given.output.clone()).expect("a bank's output is a number");
                    format!("{}={moved}", given.step)
                });
                (nothing(given.collect::<Vec<_>>().iter().map(String::as_str).collect()), wanted.join(" "))
            }
            ["o", "disk", wanted @ ..] => {
                (nothing(self.world.disk.iter().map(Describe::name).collect()), wanted.join(" "))
            }
            [id, "disk", wanted @ ..] => {
                let disk = &self.world.banks[&node(id)?].disk;
                (nothing(disk.iter().map(Describe::name).collect()), wanted.join(" "))
            }
            [account, wanted] if wanted.parse::<u64>().is_ok() => {
                (self.world.balance(bank_of(account)).to_string(), (*wanted).into())
            }
            [name, "step", step, wanted] => {
                let orchestrator = self.world.orchestrator.as_ref().ok_or("it is down")?;
                let steps = orchestrator.steps(self.saga(name)?);
                let state = steps.iter().find(|(name, _)| name == step).map(|(_, state)| state);
                let found = match state.ok_or("it is over, or has no such step")? {
                    StepState::Pending => "pending",
                    StepState::Started => "started",
                    StepState::Done { .. } => "done",
                    StepState::Refused => "refused",
                    StepState::Undoing { .. } => "undoing",
                    StepState::Undone => "undone",
                };
                (found.into(), (*wanted).into())
            }
            [name, wanted @ ..] => return self.expect_of_saga(name, wanted),
            [] => return Err("expect what?".into()),
        };
        check(found == wanted, || format!("found `{found}`"))
    }

    fn expect_of_saga(&self, name: &str, wanted: &[&str]) -> Outcome {
        let ticket = self.names.get(name).ok_or_else(|| format!("there is no {name}"))?;
        let asked = &self.world.asked[ticket];
        let found = match (&asked.outcome, &asked.refused) {
            (Some(SagaOutcome::Done), _) => "done".into(),
            (Some(SagaOutcome::Compensated { why }), _) => format!("compensated {why}"),
            (None, Some(why)) => format!("refused {why}"),
            (None, None) => "open".to_owned(),
        };
        let is_so = match wanted {
            ["paused", step] => {
                return check(asked.paused.contains(*step), || format!("found `{:?}`", asked.paused));
            }
            [state] => found.starts_with(state),
            [state, why @ ..] => found.starts_with(state) && found.contains(&why.join(" ")),
            [] => false,
        };
        check(is_so, || format!("found `{found}`"))
    }
}

fn step(words: &[&str]) -> Result<Step, String> {
    let [name, what, account, rest @ ..] = words else { return Err("a step is NAME WHAT ACCOUNT".into()) };
    let (amount, rest) = match (*what, rest) {
        ("sweep", rest) => (Amount::Fixed { units: 0 }, rest),
        (_, [amount, rest @ ..]) => match amount.strip_prefix('=') {
            Some(step) => (Amount::Output { step: step.into() }, rest),
            None => (Amount::Fixed { units: number(amount)? }, rest),
        },
        _ => return Err("how much?".into()),
    };
    let account = (*account).to_owned();
    let bank = bank_of(&account);
    let own = Amount::Output { step: (*name).into() };
    let (action, undo) = match *what {
        "debit" => {
            (Movement::Debit { account: account.clone(), amount }, Movement::Credit { account, amount: own })
        }
        "credit" => {
            (Movement::Credit { account: account.clone(), amount }, Movement::Debit { account, amount: own })
        }
        "sweep" => (Movement::Sweep { account: account.clone() }, Movement::Credit { account, amount: own }),
        _ => return Err(format!("a bank cannot {what}")),
    };
    let mut step = Step::new(name, bank, action.to_bytes(), undo.to_bytes());
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        match *word {
            "after" => {
                let names = words.next().ok_or("after what?")?;
                step.after = names.split(',').map(String::from).collect();
            }
            "pivot" => (step.is_pivot, step.compensation) = (true, None),
            "person" => step.waits_for_person = true,
            "forever" => step.compensation = None,
            _ => return Err(format!("what is `{word}`?")),
        }
    }
    Ok(step)
}

fn check(is_so: bool, error: impl FnOnce() -> String) -> Outcome {
    if is_so { Ok(()) } else { Err(error()) }
}

fn bank_of(account: &str) -> NodeId {
    NodeId(u64::from(account.as_bytes()[0].saturating_sub(b'a')) + 1)
}

fn node(word: &str) -> Result<NodeId, String> {
    match (word, word.strip_prefix('b')) {
        ("o", _) => Ok(ORCHESTRATOR),
        (_, Some(number)) if number.parse::<u64>().is_ok() => Ok(NodeId(number.parse().unwrap_or_default())),
        _ => Err(format!("`{word}` is not a machine")),
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is not a number"))
}

fn duration(word: &str) -> Result<Duration, String> {
    let millis = word.strip_suffix("ms").ok_or_else(|| format!("`{word}` is not like 50ms"))?;
    Ok(Duration::from_millis(number(millis)?))
}
