//! Single-decree Paxos in a world of its own: members, a network and disks, and one value to agree on.
//!
//! The world of the replicated logs runs nodes with logs, state machines and clients, and agreement on one value needs
//! none of that. This one plays the same scripts and tells the same kind of trace. It understands proposals (`propose
//! red on n1`, or a `put` of any key), crashes, restarts, timeouts, cuts and partitions, and single messages lost or
//! late; whatever else a script says it notes and leaves. Two promises are checked: *agreement*, that nobody learns
//! another value than anybody else, and *validity*, that what is learnt was proposed.

mod seat;

use crate::dice::{Place, dice, draw};
use crate::event::{Event, Mark, Sink};
use crate::outcome::{Counts, Linearizable, Outcome, Verdict, Violation};
use crate::script::{Action, HandOperation, Member, OneWay, Script, Target};
use bytes::Bytes;
use seat::Seat;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use synod_check::history::{Header, History};
use synod_protocols::contract::Describe;
use synod_protocols::paxos::{Message, Paxos, Propose};
use synod_protocols::{Effects, Fingerprint, Input, NodeId, Time, Wire};

/// The name under which a script asks for it.
pub(crate) const NAME: &str = "single-paxos";

/// Who asks for proposals.
const CLIENT: &str = "you";

/// Things that happen in one run at most: members that preempt each other need not come to an end.
const EVENTS_MAX: u64 = 1_000_000;

enum Due {
    /// A message arrives.
    Arrival { number: u64, from: u8, to: u8, message: Message },
    /// A member's disk, in that life, holds so many of its records.
    Synced { member: u8, life: u32, records: usize },
    /// A member's timer may have run out.
    Timer { member: u8 },
    /// A line of the script.
    Script { line: usize },
}

struct World<'a> {
    script: &'a Script,
    sink: &'a mut dyn Sink,
    now: u64,
    queue: BTreeMap<(u64, u64), Due>,
    /// How much was ever put into the queue: what is due at the same time goes in that order.
    queued: u64,
    seats: Vec<Seat>,
    cuts: BTreeSet<(u8, u8)>,
    /// Messages sent, for each link.
    sent: BTreeMap<(u8, u8), u64>,
    proposed: Vec<Bytes>,
    /// What somebody has learnt first.
    chosen: Option<(u8, Bytes)>,
    counts: Counts,
    digest: Fingerprint,
    marks: Vec<Mark>,
    violations: Vec<Violation>,
}

/// Runs a script on single-decree Paxos.
pub(crate) fn run(script: &Script, sink: &mut dyn Sink) -> Outcome {
    let mut world = World {
        script,
        sink,
        now: 0,
        queue: BTreeMap::new(),
        queued: 0,
        seats: (0..script.nodes).map(|index| Seat::new(script, index)).collect(),
        cuts: BTreeSet::new(),
        sent: BTreeMap::new(),
        proposed: Vec::new(),
        chosen: None,
        counts: Counts::default(),
        digest: Fingerprint::new(),
        marks: Vec::new(),
        violations: Vec::new(),
    };
    for (line, timed) in script.actions.iter().enumerate() {
        world.push(timed.at.0, Due::Script { line });
    }
    (0..script.nodes).for_each(|index| world.show_state(index));
    while let Some(entry) = world.queue.first_entry()
        && entry.key().0 <= script.until.0
        && world.counts.events < EVENTS_MAX
    {
        let ((at, _), due) = entry.remove_entry();
        world.now = at;
        world.counts.events += 1;
        world.on_due(due);
    }
    world.finish()
}

fn member(index: u8) -> Member {
    Member(index + 1)
}

fn index(id: NodeId) -> u8 {
    (id.0 - 1) as u8
}

impl World<'_> {
    fn push(&mut self, at: u64, due: Due) {
        self.queued += 1;
        self.queue.insert((at, self.queued), due);
    }

    fn show(&mut self, event: &Event<'_>) {
        if self.sink.wants_events() {
            self.sink.event(self.now, event);
        }
    }

    fn mark(&mut self, kind: &'static str, label: String) {
        self.marks.push(Mark { t: self.now, label, kind });
    }

    fn on_due(&mut self, due: Due) {
        match due {
            Due::Arrival { number, from, to, message } => {
                if !self.seats[usize::from(to)].is_up() {
                    return self.lose(number, "receiver down");
                }
                self.show(&Event::Recv { m: number });
                self.step(to, Input::Message { from: NodeId(u64::from(from) + 1), message });
            }
            Due::Synced { member: at, life, records } => {
                let seat = &mut self.seats[usize::from(at)];
                if seat.life != life {
                    return;
                }
                let released = seat.synced(records);
                self.counts.syncs += 1;
                self.show(&Event::Disk { n: member(at), op: "sync-end", bytes: 0 });
                for (to, message) in released {
                    self.send(at, to, message);
                }
                self.show_state(at);
            }
            Due::Timer { member: at } => {
                let due =
                    self.seats[usize::from(at)].deadline().is_some_and(|deadline| deadline.0 <= self.now);
                if due {
                    self.show(&Event::Timeout { n: member(at) });
                    self.step(at, Input::Timeout);
                }
            }
            Due::Script { line } => {
                let script = self.script;
                self.act(&script.actions[line].action);
            }
        }
    }

    /// Hands an input to a member and carries out what it wants.
    fn step(&mut self, at: u8, input: Input<Paxos>) {
        let mut effects = Effects::new();
        let seat = &mut self.seats[usize::from(at)];
        let timer = seat.deadline();
        let Some(learnt) = seat.step(Time(self.now), input, &mut effects) else { return };
        self.counts.steps += 1;
        if !effects.records.is_empty() {
            self.write(at, &effects);
        }
        for send in effects.sends {
            if let Some(message) = self.seats[usize::from(at)].hold(send.to, send.message) {
                self.send(at, send.to, message);
            }
        }
        if let Some(value) = learnt {
            self.on_learnt(at, value);
        }
        let seat = &self.seats[usize::from(at)];
        if let Some(deadline) = seat.deadline().filter(|deadline| Some(*deadline) != timer) {
            self.push(deadline.0.max(self.now), Due::Timer { member: at });
        }
        self.show_state(at);
    }

    /// Begins to write the records of a step.
    fn write(&mut self, at: u8, effects: &Effects<Paxos>) {
        let (n, seat) = (member(at), &self.seats[usize::from(at)]);
        let (life, records) = (seat.life, seat.records());
        let mut rng = dice(self.script.seed, Place::Sync, at.into(), life.into(), records as u64);
        let done = self.now + draw(self.script.disk, &mut rng);
        self.push(done, Due::Synced { member: at, life, records });
        let bytes = effects.records.iter().map(|record| record.to_bytes().len() as u64).sum();
        self.counts.disk_bytes += bytes;
        for record in &effects.records {
            self.show(&Event::Record { n, name: record.name(), detail: record.detail() });
        }
        self.show(&Event::Disk { n, op: "sync-begin", bytes });
    }

    /// Puts a message on its way. What a member tells itself needs none.
    fn send(&mut self, from: u8, to: NodeId, message: Message) {
        let to = index(to);
        if to == from {
            return self.step(from, Input::Message { from: NodeId(u64::from(from) + 1), message });
        }
        let number = self.counts.messages;
        self.counts.messages += 1;
        let bytes = message.to_bytes();
        self.counts.bytes += bytes.len() as u64;
        self.digest.word(self.now);
        self.digest.word(u64::from(from) << 8 | u64::from(to));
        self.digest.write(&bytes);
        let count = self.sent.entry((from, to)).or_default();
        *count += 1;
        let mut rng = dice(self.script.seed, Place::Message, from.into(), to.into(), *count);
        let lost = if self.cuts.contains(&(from, to)) {
            Some("cut")
        } else {
            rng.chance(self.script.loss.0.into(), 1_000_000).then_some("lost")
        };
        let arrives = self.now + draw(self.script.latency, &mut rng);
        let at = lost.is_none().then_some(arrives);
        let (name, detail, bytes) = (message.name(), message.detail(), bytes.len() as u64);
        let (m, copy_of, early) = (number, None, false);
        let sent = Event::Send {
            m,
            copy_of,
            from: member(from),
            to: member(to),
            name,
            detail,
            bytes,
            early,
            at,
            lost,
        };
        self.show(&sent);
        match lost {
            Some(_) => self.counts.lost += 1,
            None => self.push(arrives, Due::Arrival { number, from, to, message }),
        }
    }

    fn lose(&mut self, number: u64, why: &'static str) {
        self.counts.lost += 1;
        self.show(&Event::Drop { m: number, why });
    }

    /// A member has learnt what was chosen.
    fn on_learnt(&mut self, at: u8, value: Bytes) {
        let text = String::from_utf8_lossy(&value).into_owned();
        self.digest.word(u64::from(at));
        self.digest.write(&value);
        match &self.chosen {
            None => {
                self.counts.commits += 1;
                self.mark("chosen", format!("{text} is chosen, as {} learns first", member(at)));
                self.chosen = Some((at, value.clone()));
            }
            Some((first, other)) if *other != value => {
                let other = String::from_utf8_lossy(other);
                let detail =
                    format!("{} learns {text}, but {} has learnt {other}", member(at), member(*first));
                self.violation("agreement", detail);
            }
            Some(_) => {}
        }
        if !self.proposed.contains(&value) {
            self.violation("validity", format!("{} learns {text}, which nobody has proposed", member(at)));
        }
        if let Some((number, own)) = self.seats[usize::from(at)].answered() {
            let own = String::from_utf8_lossy(&own).into_owned();
            self.counts.ok += 1;
            self.operation(number, "ok", at, &format!("{own}, chosen: {text}"));
        }
    }

    fn violation(&mut self, promise: &'static str, detail: String) {
        self.mark("violation", format!("{promise} is broken"));
        self.show(&Event::Violation { promise, detail: &detail });
        self.violations.push(Violation { t: self.now, promise, detail });
    }

    fn operation(&mut self, number: u32, phase: &'static str, at: u8, value: &str) {
        let (c, o, f, key) = (CLIENT, number, "propose", "");
        self.show(&Event::Op {
            c,
            o,
            phase,
            f,
            key,
            value: Some(value),
            node: Some(member(at)),
            error: None,
        });
    }

    fn show_state(&mut self, at: u8) {
        if self.sink.wants_events()
            && let Some(state) = self.seats[usize::from(at)].changed(self.now)
        {
            self.sink.event(self.now, &Event::State { n: member(at), s: &state });
        }
    }

    // What a script does.

    fn act(&mut self, action: &Action) {
        let before = self.counts.faults;
        match action {
            Action::Client(on, HandOperation::Put(_, value)) => {
                return self.propose(on.map_or(0, |on| on.0 - 1), Bytes::from(value.clone().into_bytes()));
            }
            Action::Crash(target) => self.each(target, World::crash),
            Action::Restart(target) => self.each(target, World::restart),
            Action::Timeout(target) => self.each(target, |world, at| world.step(at, Input::Timeout)),
            Action::Cut(a, b, way) => self.cut(*a, *b, *way, true),
            Action::Heal(a, b, way) => self.cut(*a, *b, *way, false),
            Action::HealAll => self.rewire(|_, _| false),
            Action::Partition(groups) => {
                let side = |index: u8| groups.iter().position(|group| group.contains(&member(index)));
                self.rewire(|a, b| side(a).is_none() || side(a) != side(b));
            }
            Action::Isolate(Target::Node(one)) => {
                let kept = self.cuts.clone();
                self.rewire(|a, b| member(a) == *one || member(b) == *one || kept.contains(&(a, b)));
            }
            Action::Lose(number) => self.reach(*number, None),
            Action::Delay(number, span) => self.reach(*number, Some(span.0)),
            Action::Recover => {
                self.rewire(|_, _| false);
                self.each(&Target::All, World::restart);
            }
            _ => {}
        }
        if self.counts.faults == before {
            let text = format!("`{action}` does nothing here now");
            return self.show(&Event::Note { text });
        }
        let text = action.to_string();
        let (what, a, b) = words(action);
        self.mark(what, text.clone());
        let cuts = self.cuts.iter().map(|(from, to)| (member(*from), member(*to))).collect();
        self.show(&Event::Fault { what, a, b, text, cuts });
    }

    fn each(&mut self, target: &Target, mut act: impl FnMut(&mut Self, u8)) {
        let all: Vec<u8> = match target {
            Target::Node(one) => vec![one.0 - 1],
            Target::All => (0..self.script.nodes).collect(),
            // Nobody leads, and so nobody follows.
            Target::Leader | Target::Follower => Vec::new(),
        };
        for at in all {
            self.counts.faults += 1;
            act(self, at);
        }
    }

    fn propose(&mut self, at: u8, value: Bytes) {
        if !self.seats[usize::from(at)].is_up() {
            let text = format!("{} is down and proposes nothing", member(at));
            return self.show(&Event::Note { text });
        }
        let number = self.counts.operations as u32;
        self.counts.operations += 1;
        let text = String::from_utf8_lossy(&value).into_owned();
        self.proposed.push(value.clone());
        self.mark("propose", format!("{} proposes {text}", member(at)));
        self.operation(number, "invoke", at, &text);
        self.seats[usize::from(at)].asked(number, value.clone());
        self.step(at, Input::Request(Propose(value)));
    }

    fn crash(&mut self, at: u8) {
        if let Some(number) = self.seats[usize::from(at)].crash() {
            self.counts.unknown += 1;
            self.operation(number, "unknown", at, "");
        }
        self.counts.crashes += 1;
        self.show_state(at);
    }

    fn restart(&mut self, at: u8) {
        if self.seats[usize::from(at)].start(self.script, at, self.now) {
            self.counts.restarts += 1;
            self.show_state(at);
        }
    }

    fn cut(&mut self, a: Member, b: Member, way: OneWay, cut: bool) {
        self.counts.faults += 1;
        let there = (a.0 - 1, b.0 - 1);
        let back = (way == OneWay::No).then_some((there.1, there.0));
        for link in [Some(there), back].into_iter().flatten() {
            if cut {
                self.cuts.insert(link);
            } else {
                self.cuts.remove(&link);
            }
        }
    }

    fn rewire(&mut self, is_cut: impl Fn(u8, u8) -> bool) {
        self.counts.faults += 1;
        let nodes = self.script.nodes;
        let links = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
        self.cuts = links.filter(|(a, b)| a != b && is_cut(*a, *b)).collect();
    }

    /// Loses a message that is on its way, or lets it come later.
    fn reach(&mut self, wanted: u64, later: Option<u64>) {
        let is = |due: &Due| matches!(due, Due::Arrival { number, .. } if *number == wanted);
        let Some(key) = self.queue.iter().find_map(|(key, due)| is(due).then_some(*key)) else { return };
        let due = self.queue.remove(&key).expect("it was just found");
        self.counts.faults += 1;
        match later {
            Some(span) => self.push(key.0 + span, due),
            None => self.lose(wanted, "lost by hand"),
        }
    }

    fn finish(self) -> Outcome {
        let detail = match (&self.chosen, self.violations.is_empty()) {
            (Some((_, value)), true) => format!("one value was chosen: {}", String::from_utf8_lossy(value)),
            (None, true) => "no value was chosen".to_owned(),
            (_, false) => "a promise of safety was broken".to_owned(),
        };
        Outcome {
            script: self.script.clone(),
            hash: self.digest.finish(),
            clients: vec![CLIENT.to_owned()],
            counts: self.counts,
            verdict: Verdict {
                safe: self.violations.is_empty(),
                live: None,
                violations: self.violations,
                // There is no object to read and write, and so nothing that could contradict.
                linearizable: Linearizable::Yes,
                detail,
            },
            marks: self.marks,
            history: History { header: Header::new("register"), operations: Vec::new(), notes: Vec::new() },
        }
    }
}

/// The kind of a fault, and whom it concerns.
fn words(action: &Action) -> (&'static str, Option<Member>, Option<Member>) {
    let one = |target: &Target| if let Target::Node(one) = target { Some(*one) } else { None };
    match action {
        Action::Crash(target) => ("crash", one(target), None),
        Action::Restart(target) => ("restart", one(target), None),
        Action::Timeout(target) => ("timeout", one(target), None),
        Action::Cut(a, b, _) => ("cut", Some(*a), Some(*b)),
        Action::Heal(a, b, _) => ("heal", Some(*a), Some(*b)),
        Action::HealAll => ("heal", None, None),
        Action::Partition(_) => ("partition", None, None),
        Action::Isolate(target) => ("isolate", one(target), None),
        Action::Recover => ("recover", None, None),
        _ => ("message", None, None),
    }
}

#[cfg(test)]
mod tests;
