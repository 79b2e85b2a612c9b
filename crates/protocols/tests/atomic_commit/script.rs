//! The command language of the golden scripts. One command a line, `#` begins a comment.
//!
//! The coordinator is c, on a machine of its own; banks are p1, p2, p3, with one account each, a, b and
//! c in this order, which hold 100. Nothing happens by itself: messages stay in flight until they are
//! delivered, timers do not fire, and only disks are quick (every step is synced at once) unless told otherwise.
//!
//! | command | what it does |
//! |---|---|
//! | `start 2` | a coordinator and two banks |
//! | `limit transactions 1`, `limit window 4` | before `start`: sets a bound |
//! | `transfer t a b 30` | asks c to move 30 from a to b as one transaction, called t; `transfer at d t a b 30` asks d |
//! | `audit t 2` | asks c to read the accounts of the first two banks in one transaction, called t |
//! | `open t`, `work t debit a 30`, `work t credit b 30`, `work t read a`, `commit t`, `abort t` | the same by pieces |
//! | `deliver c p1 [Prepare]` | the oldest message (of that kind) from c to p1 arrives |
//! | `drop c p1 [Prepare]`, `repeat c p1 [Prepare]` | it is lost; it arrives and stays in flight |
//! | `run` | everything in flight arrives, and what comes of it |
//! | `cut c p1`, `heal` | messages both ways are lost from now on, silently; all wires are whole again |
//! | `timeout c`, `wait 50ms`, `pass 300ms` | c's timer fires when it is due; the clock moves; it moves, timers fire, messages arrive |
//! | `disk p1 slow`, `disk p1 quick`, `sync p1` | effects wait for `sync`, or no longer do |
//! | `crash p1 [durable]`, `restart p1` | unsynced records are lost, but for the first `durable` steps' |
//! | `takeover c d` | d starts as the coordinator, from a copy of c's disk; c goes on if it is up |
//! | `resolve r p1 t commit` | a person ends t at p1, as request r; needs `allow split` where that is wrong |
//! | `allow split` | that one commits what another aborts is noted, and does not end the run |
//! | `expect …` | see [`Runner::expect`] |

use super::party::{ByPiece, Party, locks};
use super::subject::{BankOp, Decision, Limits};
use super::world::{World, account, audit, balances, bank_of, transfer};
use std::collections::BTreeMap;
use std::time::Duration;
use synod_protocols::Describe;
use synod_protocols::log::Ticket;
use synod_protocols::types::NodeId;

type Outcome = Result<(), String>;

/// Runs a script. An error names the line, what was expected and what was found.
pub fn run<P: Party>(text: &str) -> Outcome {
    let mut runner: Runner<P> =
        Runner { world: World::new(0, Limits::default()), limits: Limits::default(), names: BTreeMap::new() };
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

struct Runner<P: Party> {
    world: World<P>,
    limits: Limits,
    names: BTreeMap<String, Ticket>,
}

impl<P: Party> Runner<P> {
    fn command(&mut self, words: &[&str]) -> Outcome {
        let world = &mut self.world;
        match words {
            ["start", banks] => {
                *world = World::new(number(banks)?, self.limits);
                world.trace = Some(String::new());
            }
            ["limit", "transactions", value] => self.limits.transactions_max = number(value)? as usize,
            ["limit", "window", value] => self.limits.window_max = number(value)?,
            ["transfer", "at", at, t, from, to, amount] => {
                let ticket = world.run_txn(node(at)?, &transfer(from, to, number(amount)?));
                self.names.insert((*t).into(), ticket);
            }
            ["transfer", t, from, to, amount] => {
                return self.command(&["transfer", "at", "c", t, from, to, amount]);
            }
            ["audit", t, banks] => {
                let ticket = world.run_txn(NodeId(10), &audit(number(banks)?));
                self.names.insert((*t).into(), ticket);
            }
            ["open" | "work" | "commit" | "abort", ..] => return self.by_piece(words),
            ["resolve", name, id, t, decision] => {
                let decision = match *decision {
                    "commit" => Decision::Commit,
                    "abort" => Decision::Abort,
                    _ => return Err("commit or abort?".into()),
                };
                let (txn, ticket) = (self.txn(t)?, self.world.ticket());
                let request = P::resolve(ticket, txn, decision).ok_or("nobody may resolve here")?;
                self.world.asked.insert(ticket, Default::default());
                self.names.insert((*name).into(), ticket);
                self.world.step(node(id)?, synod_protocols::Input::Request(request));
            }
            ["allow", "split"] => world.oracle.is_split_allowed = true,
            ["run"] => world.run(),
            ["deliver" | "drop" | "repeat", ..] => return self.traffic(words),
            ["heal"] => world.cut.clear(),
            ["cut", a, b] => {
                let (a, b) = (node(a)?, node(b)?);
                world.cut(a, b);
                world.cut(b, a);
            }
            ["timeout", id] => {
                let id = node(id)?;
                check(world.timeout(id), || "it waits for nothing".into())?;
            }
            ["wait", span] => world.now = world.now + duration(span)?,
            ["pass", span] => world.pass(duration(span)?),
            ["disk", id, speed] => world.machine(node(id)?).is_slow = *speed == "slow",
            ["sync", id] => world.sync(node(id)?, usize::MAX),
            ["checkpoint", id] => world.checkpoint(node(id)?),
            ["crash", id] => world.crash(node(id)?, 0),
            ["crash", id, durable] => world.crash(node(id)?, number(durable)? as usize),
            ["restart", id] => world.start(node(id)?),
            ["takeover", from, to] => world.take_over(node(from)?, node(to)?),
            ["expect", rest @ ..] => return self.expect(rest),
            _ => return Err("there is no such command".into()),
        }
        Ok(())
    }

    fn by_piece(&mut self, words: &[&str]) -> Outcome {
        let name = *words.get(1).ok_or("which transaction?")?;
        let op = |account: &&str, amount: &&str, is_debit| {
            let (account, amount) = ((*account).to_owned(), number(amount)?);
            Ok::<_, String>(match is_debit {
                true => BankOp::Debit { account, amount },
                false => BankOp::Credit { account, amount },
            })
        };
        let (asked, name) = match words {
            ["open", _] => (ByPiece::Open, name.to_owned()),
            ["work", _, "debit", account, amount] => {
                let work = vec![op(account, amount, true)?];
                (ByPiece::Work(self.txn(name)?, bank_of(account), work), format!("{name}.{account}"))
            }
            ["work", _, "credit", account, amount] => {
                let work = vec![op(account, amount, false)?];
                (ByPiece::Work(self.txn(name)?, bank_of(account), work), format!("{name}.{account}"))
            }
            ["work", _, "read", account] => {
                let work = vec![BankOp::Balance { account: (*account).into() }];
                (ByPiece::Work(self.txn(name)?, bank_of(account), work), format!("{name}.{account}"))
            }
            ["commit", _] => (ByPiece::Commit(self.txn(name)?), format!("{name}.end")),
            ["abort", _] => (ByPiece::Abort(self.txn(name)?), format!("{name}.end")),
            _ => return Err("there is no such command".into()),
        };
        let ticket = self.world.ticket();
        let request = P::by_piece(ticket, asked).ok_or("this protocol has no pieces")?;
        self.world.asked.insert(ticket, Default::default());
        self.names.insert(name, ticket);
        self.world.step(NodeId(10), synod_protocols::Input::Request(request));
        Ok(())
    }

    fn txn(&self, name: &str) -> Result<super::subject::TxnId, String> {
        let ticket = self.names.get(name).ok_or_else(|| format!("there is no {name}"))?;
        self.world.asked[ticket].txn.ok_or_else(|| format!("{name} was not opened"))
    }

    /// What the script calls it.
    fn name(&self, txn: super::subject::TxnId) -> String {
        let is_it = |(_, ticket): &(&String, &Ticket)| {
            let asked = &self.world.asked[*ticket];
            asked.txn == Some(txn) && !asked.is_by_hand
        };
        self.names.iter().find(is_it).map_or_else(|| "?".into(), |(name, _)| name.clone())
    }

    fn traffic(&mut self, words: &[&str]) -> Outcome {
        let [what, from, to, kind @ ..] = words else { return Err("from whom to whom?".into()) };
        let (from, to) = (node(from)?, node(to)?);
        let wanted = |flying: &super::world::Flying<P>| {
            (flying.from, flying.to) == (from, to)
                && kind.first().is_none_or(|kind| *kind == flying.message.name())
        };
        let position = self.world.flight.iter().position(wanted).ok_or("there is no such message")?;
        match *what {
            "deliver" => self.world.deliver(position),
            "drop" => drop(self.world.flight.remove(position)),
            _ => {
                let message = self.world.flight[position].message.clone();
                self.world.arrive(from, to, message);
            }
        }
        Ok(())
    }

    /// | expectation | what must be so |
    /// |---|---|
    /// | `expect t committed`, `expect t aborted [Silent]`, `expect t undecided`, `expect t refused Busy` | what its client knows |
    /// | `expect t reads 70 130` | what it read, in the order of the banks |
    /// | `expect split` | somebody committed what another aborted |
    /// | `expect a 70` | the committed balance of account a |
    /// | `expect p1 locks a`, `expect p1 locks nothing` | what is locked at p1 |
    /// | `expect p1 in doubt about t`, `expect p1 in doubt about nothing` | for what p1 waits |
    /// | `expect p1 by hand t`, `expect p1 by hand nothing` | what people decided at p1, and nobody confirmed |
    /// | `expect p1 damage t`, `expect p1 damage nothing` | what p1 has told of heuristic damage, in order |
    /// | `expect c to p1 Prepare Commit`, `expect c to p1 nothing` | what is in flight, oldest first |
    /// | `expect c disk Epoch Committed` | the kinds of all records on its disk |
    fn expect(&mut self, words: &[&str]) -> Outcome {
        let nothing = |list: Vec<String>| if list.is_empty() { "nothing".into() } else { list.join(" ") };
        let (found, wanted) = match words {
            ["split"] => (self.world.oracle.is_split.to_string(), "true".into()),
            [id, "locks", wanted @ ..] => {
                let bank = self.world.bank(node(id)?).ok_or("it is down, or no bank")?;
                (nothing(locks(bank).into_iter().map(|(name, _)| name).collect()), wanted.join(" "))
            }
            [id, "in", "doubt", "about", wanted @ ..] => {
                let process = self.world.machines[&node(id)?].process.as_ref().ok_or("it is down")?;
                let name = |txn| self.name(txn);
                (nothing(process.in_doubt().into_iter().map(name).collect()), wanted.join(" "))
            }
            [id, "by", "hand", wanted @ ..] => {
                let process = self.world.machines[&node(id)?].process.as_ref().ok_or("it is down")?;
                let names = process.by_hand().into_iter().map(|one| self.name(one.txn));
                (nothing(names.collect()), wanted.join(" "))
            }
            [id, "damage", wanted @ ..] => {
                let id = node(id)?;
                let here = self.world.damage.iter().filter(|(at, _)| *at == id);
                (nothing(here.map(|(_, txn)| self.name(*txn)).collect()), wanted.join(" "))
            }
            [from, "to", to, wanted @ ..] => {
                let (from, to) = (node(from)?, node(to)?);
                let flying = self.world.flight.iter().filter(|flying| (flying.from, flying.to) == (from, to));
                (nothing(flying.map(|flying| flying.message.name().to_owned()).collect()), wanted.join(" "))
            }
            [id, "disk", wanted @ ..] => {
                let disk = &self.world.machines[&node(id)?].disk;
                (nothing(disk.iter().map(|record| record.name().to_owned()).collect()), wanted.join(" "))
            }
            [name, wanted] if wanted.parse::<u64>().is_ok() => {
                let bank = self.world.bank(bank_of(name)).ok_or("its bank is down")?;
                (bank.accounts()[&account(bank_of(name))].to_string(), (*wanted).into())
            }
            [name, wanted @ ..] => return self.expect_of_txn(name, wanted),
            _ => return Err("expect what?".into()),
        };
        check(found == wanted, || format!("found `{found}`"))
    }

    fn expect_of_txn(&self, name: &str, wanted: &[&str]) -> Outcome {
        let ticket = self.names.get(name).ok_or_else(|| format!("there is no {name}"))?;
        let asked = &self.world.asked[ticket];
        let found = match (asked.decision, &asked.refused) {
            (Some(Decision::Commit), _) => "committed".into(),
            (Some(Decision::Abort), _) => format!("aborted {}", asked.why),
            (None, Some(why)) => format!("refused {why}"),
            (None, None) => "undecided".to_owned(),
        };
        let is_so = match wanted {
            ["reads", rest @ ..] => {
                let read = asked.answers.values().flat_map(balances).map(|balance| balance.to_string());
                let read: Vec<String> = read.collect();
                return check(read == rest, || format!("found `{}`", read.join(" ")));
            }
            [state] => found.starts_with(state),
            [state, why @ ..] => found.starts_with(state) && found.contains(&why.join(" ")),
            [] => false,
        };
        check(is_so, || format!("found `{found}`"))
    }
}

fn check(is_so: bool, error: impl FnOnce() -> String) -> Outcome {
    if is_so { Ok(()) } else { Err(error()) }
}

fn node(word: &str) -> Result<NodeId, String> {
    match (word, word.strip_prefix('p')) {
        ("c", _) => Ok(NodeId(10)),
        ("d", _) => Ok(NodeId(11)),
        ("e", _) => Ok(NodeId(12)),
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
