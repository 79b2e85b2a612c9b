//! The actions of a script: what comes after `at` and a moment.

use super::Parsed;
use super::line::{Line, unknown};
use crate::script::{
    Action, ClockFault, DELAY_MAX, DURATION_MAX, DiskAction, HandOperation, Member, NetworkChange, OneWay,
    OperatorChange, Topology,
};
use crate::units::{Factor, Span};

impl Line<'_> {
    pub(super) fn action(&mut self) -> Parsed<Action> {
        let verb = self.word("an action", "at 3s crash leader")?;
        Ok(match verb {
            "crash" => Action::Crash(self.target("at 3s crash leader")?),
            "restart" => Action::Restart(self.target("at 4s restart n3")?),
            "pause" => Action::Pause(self.target("at 3s pause n2")?),
            "resume" => Action::Resume(self.target("at 4s resume n2")?),
            "isolate" => Action::Isolate(self.target("at 3s isolate leader")?),
            "timeout" => Action::Timeout(self.target("at 3s timeout n2")?),
            "recover" => Action::Recover,
            "cut" => {
                let (a, b, one_way) = self.link("at 3s cut n1 n2")?;
                Action::Cut(a, b, one_way)
            }
            "heal" if self.peek().is_none() => Action::HealAll,
            "heal" => {
                let (a, b, one_way) = self.link("at 4s heal n1 n2")?;
                Action::Heal(a, b, one_way)
            }
            "partition" => Action::Partition(self.groups()?),
            "topology" => Action::Topology(self.topology()?),
            "clock" => {
                let target = self.target("at 5s clock n2 rate 1.1")?;
                Action::Clock(target, self.clock_fault()?)
            }
            "disk" => {
                let target = self.target("at 5s disk n2 stall 500ms")?;
                Action::Disk(target, self.disk_action()?)
            }
            "latency" => Action::Network(NetworkChange::Latency(self.delay("at 5s latency 50ms..200ms")?)),
            "loss" => Action::Network(NetworkChange::Loss(self.share("at 5s loss 5%")?)),
            "reorder" => Action::Network(NetworkChange::Reorder(self.share("at 5s reorder 5%")?)),
            "duplicate" if self.peek().is_some_and(|word| word.starts_with('m')) => {
                Action::Duplicate(self.message("at 5s duplicate m17")?)
            }
            "duplicate" => Action::Network(NetworkChange::Duplicate(self.share("at 5s duplicate 5%")?)),
            "lose" => Action::Lose(self.message("at 5s lose m17")?),
            "delay" => {
                let message = self.message("at 5s delay m17 50ms")?;
                Action::Delay(message, self.span("a delay", Span(1), DELAY_MAX, "at 5s delay m17 50ms")?)
            }
            "propose" => {
                let value = self.word("a value", "at 6s propose hello")?.to_owned();
                let on =
                    if self.accept("on") { Some(self.member("at 6s propose hello on n2")?) } else { None };
                Action::Client(on, HandOperation::Put("hand".into(), value))
            }
            "put" | "get" | "delete" => self.hand(verb)?,
            "add" | "promote" | "remove" | "transfer" => Action::Operator(self.operator_change(verb)?),
            other => {
                return Err(unknown(
                    other,
                    "crash, restart, pause, resume, cut, heal, partition, isolate, topology, clock, disk, latency, loss, \
                     duplicate, reorder, add, promote, remove, transfer, propose, put, get, delete, timeout, lose, delay or recover",
                    "at 3s crash leader",
                ));
            }
        })
    }

    fn hand(&mut self, verb: &str) -> Parsed<Action> {
        let example = "at 6s put colour blue on n2";
        let key = self.word("a key", example)?.to_owned();
        let operation = match verb {
            "put" => HandOperation::Put(key, self.word("a value", example)?.to_owned()),
            "get" => HandOperation::Get(key),
            _ => HandOperation::Delete(key),
        };
        let on = if self.accept("on") { Some(self.member(example)?) } else { None };
        Ok(Action::Client(on, operation))
    }

    fn operator_change(&mut self, verb: &str) -> Parsed<OperatorChange> {
        Ok(match verb {
            "add" => {
                let member = self.member("at 3s add n6")?;
                OperatorChange::Add { member, learner: self.accept("learner") }
            }
            "promote" => OperatorChange::Promote(self.member("at 4s promote n6")?),
            "remove" => OperatorChange::Remove(self.member("at 3s remove n2")?),
            _ if self.peek().is_none() => OperatorChange::Transfer(None),
            _ => OperatorChange::Transfer(Some(self.member("at 3s transfer n2")?)),
        })
    }

    fn link(&mut self, example: &str) -> Parsed<(Member, Member, OneWay)> {
        let from = self.member(example)?;
        let one_way = if self.accept("->") { OneWay::Yes } else { OneWay::No };
        let to = self.member(example)?;
        if from == to {
            return Err(format!("a link joins two members, found {from} twice; for example: `{example}`"));
        }
        Ok((from, to, one_way))
    }

    fn groups(&mut self) -> Parsed<Vec<Vec<Member>>> {
        let example = "at 3s partition n1 n2 | n3 n4 n5";
        let mut groups = vec![Vec::new()];
        let mut seen = Vec::new();
        while self.peek().is_some() {
            if self.accept("|") {
                groups.push(Vec::new());
                continue;
            }
            let member = self.member(example)?;
            if seen.contains(&member) {
                return Err(format!("{member} is in two groups; for example: `{example}`"));
            }
            seen.push(member);
            groups.last_mut().expect("starts with one").push(member);
        }
        match groups.iter().any(Vec::is_empty) {
            true => Err(format!("a group has at least one member; for example: `{example}`")),
            false => Ok(groups),
        }
    }

    fn topology(&mut self) -> Parsed<Topology> {
        let example = "at 5s topology quorum-loss n1";
        match self.word("`quorum-loss`, `constrained`, `bridge` or `chained`", example)? {
            "quorum-loss" => Ok(Topology::QuorumLoss(self.member(example)?)),
            "constrained" => Ok(Topology::Constrained(self.member("at 5s topology constrained n1")?)),
            "bridge" => Ok(Topology::Bridge(self.member("at 5s topology bridge n1")?)),
            "chained" => Ok(Topology::Chained),
            other => Err(unknown(other, "`quorum-loss`, `constrained`, `bridge` or `chained`", example)),
        }
    }

    fn clock_fault(&mut self) -> Parsed<ClockFault> {
        let example = "at 5s clock n2 rate 1.1";
        match self.word("`rate` or `jump`", example)? {
            "rate" => {
                let word = self.word("a rate", example)?;
                let rate = Factor::parse(word).filter(|rate| (100_000..=10_000_000).contains(&rate.0));
                rate.map(ClockFault::Rate).ok_or_else(|| unknown(word, "a rate from 0.1 to 10", example))
            }
            "jump" => Ok(ClockFault::Jump(self.span(
                "a jump",
                Span(1),
                DURATION_MAX,
                "at 5s clock n2 jump 200ms",
            )?)),
            other => Err(unknown(other, "`rate` or `jump`", example)),
        }
    }

    fn disk_action(&mut self) -> Parsed<DiskAction> {
        let example = "at 5s disk n2 stall 500ms";
        let what = "stall, full, clear, lose-unsynced, tear, rot, fail, lie or wipe";
        Ok(match self.word(what, example)? {
            "stall" => DiskAction::Stall(self.span("a stall", Span(1), DELAY_MAX, example)?),
            "full" => DiskAction::Full,
            "clear" => DiskAction::Clear,
            "lose-unsynced" => DiskAction::LoseUnsynced,
            "tear" => DiskAction::Tear,
            "rot" => DiskAction::Rot,
            "fail" => DiskAction::Fail,
            "lie" => DiskAction::Lie,
            "wipe" => DiskAction::Wipe,
            other => return Err(unknown(other, what, example)),
        })
    }
}
