//! What a script does to the world.

use crate::dice::{Place, dice};
use crate::event::Event;
use crate::script::{Action, ClockFault, DiskAction, HandOperation, Member, OneWay, Target, Topology};
use crate::units::{Factor, Span};
use crate::world::{World, member};
use synod_protocols::Time;
use synod_protocols::log::{ReplicatedLog, Role};

impl<P: ReplicatedLog> World<'_, P> {
    /// Carries out an action, if it can be.
    pub(crate) fn act(&mut self, action: &Action) {
        match action {
            Action::Crash(target) => self.each(*target, action, |world, index| world.crash_by_hand(index)),
            Action::Restart(target) => self.each(*target, action, |world, index| world.restart(index)),
            Action::Pause(target) => self.each(*target, action, |world, index| {
                let member = &mut world.members[usize::from(index)];
                let paused = member.is_up() && !member.paused;
                member.paused |= paused;
                if paused {
                    world.mark("fault", || format!("n{} is paused", index + 1));
                }
                paused
            }),
            Action::Resume(target) => self.each(*target, action, |world, index| {
                let paused = world.members[usize::from(index)].paused;
                if paused {
                    world.resume(index);
                }
                paused
            }),
            Action::Isolate(target) => self.each(*target, action, |world, index| world.isolate(index)),
            Action::Timeout(target) => self.each(*target, action, |world, index| world.let_time_out(index)),
            Action::Clock(target, fault) => {
                self.each(*target, action, |world, index| world.turn_clock(index, *fault));
            }
            Action::Disk(target, fault) => {
                self.each(*target, action, |world, index| world.harm_disk(index, *fault));
            }
            Action::Cut(a, b, one_way) => self.set_cut(action, *a, *b, *one_way, true),
            Action::Heal(a, b, one_way) => self.set_cut(action, *a, *b, *one_way, false),
            Action::HealAll => {
                self.rewire(|_, _| false);
                self.fault("heal", None, None, action);
                self.mark("heal", || "all links heal".into());
            }
            Action::Partition(groups) => {
                let group = |m: u8| groups.iter().position(|group| group.contains(&member(m)));
                self.rewire(|a, b| group(a).is_none() || group(a) != group(b));
                self.fault("partition", None, None, action);
                self.mark("partition", || action.to_string());
            }
            Action::Topology(topology) => self.shape(action, *topology),
            Action::Network(change) => {
                self.network.change(*change);
                self.fault("network", None, None, action);
            }
            Action::Operator(change) => self.begin_change(*change),
            Action::Client(on, operation) => self.ask_by_hand(*on, operation),
            Action::Lose(message) => {
                let lost = self.network.lose(self.now, *message, &mut self.queue);
                if lost.is_some() {
                    self.on_lost(*message, "lost by hand");
                }
                self.gesture(action, lost.is_some());
            }
            Action::Delay(message, span) => {
                let delayed = self.network.delay(*message, span.0);
                self.gesture(action, delayed.is_some());
            }
            Action::Duplicate(message) => self.duplicate(action, *message),
            Action::Recover => self.recover(),
        }
    }

    /// Does something to each member that is meant; says so if there is none, or nothing to do.
    fn each(&mut self, target: Target, action: &Action, mut act: impl FnMut(&mut Self, u8) -> bool) {
        let text = action.to_string();
        let what = first_word(action);
        let mut acted = false;
        for index in self.meant(target) {
            if act(self, index) {
                acted = true;
                let text = text.replacen(&target.to_string(), &member(index).to_string(), 1);
                self.fault_text(what, Some(member(index)), None, text);
            }
        }
        if !acted {
            self.show(&Event::Note { text: format!("nothing to do for `{text}` now") });
        }
    }

    fn meant(&self, target: Target) -> Vec<u8> {
        match target {
            Target::Node(Member(n)) => vec![n - 1],
            Target::All => self.all().collect(),
            Target::Leader => self.leader().into_iter().collect(),
            Target::Follower => {
                let leader = self.leader();
                let others: Vec<u8> = self
                    .all()
                    .filter(|index| self.members[usize::from(*index)].is_up() && Some(*index) != leader)
                    .collect();
                let mut rng = dice(self.script.seed, Place::Follower, 0, 0, self.now);
                match others.len() {
                    0 => Vec::new(),
                    n => vec![others[rng.below(n as u64) as usize]],
                }
            }
        }
    }

    /// Who leads, in the highest epoch if several believe so.
    pub(crate) fn leader(&self) -> Option<u8> {
        let led = |index: &u8| {
            let status = self.members[usize::from(*index)].node.as_ref()?.status().log;
            (status.role == Role::Leader).then_some(status.epoch)
        };
        self.all().filter(|index| led(index).is_some()).max_by_key(led)
    }

    fn crash_by_hand(&mut self, index: u8) -> bool {
        let up = self.members[usize::from(index)].is_up();
        if up {
            self.mark("crash", || format!("n{} crashes", index + 1));
            self.crash(index);
        }
        up
    }

    fn restart(&mut self, index: u8) -> bool {
        let member = &self.members[usize::from(index)];
        let down = member.exists() && !member.is_up();
        if down {
            self.counts.restarts += 1;
            self.mark("restart", || format!("n{} restarts", index + 1));
            self.start(index);
        }
        down
    }

    fn isolate(&mut self, index: u8) -> bool {
        let mut cut = false;
        for peer in self.all().filter(|peer| *peer != index) {
            cut |= self.network.set_cut(self.now, index, peer, true, &mut self.queue);
            cut |= self.network.set_cut(self.now, peer, index, true, &mut self.queue);
        }
        if cut {
            self.mark("partition", || format!("n{} is cut off", index + 1));
        }
        cut
    }

    /// Lets a member's clock jump to the deadline of its protocol.
    fn let_time_out(&mut self, index: u8) -> bool {
        let member = &mut self.members[usize::from(index)];
        let process = member.node.as_ref().map(|node| node.process());
        let Some(deadline) = process.and_then(P::deadline) else { return false };
        let Time(shown) = member.clock.at(self.now);
        member.clock.jump(self.now, Span(deadline.0.saturating_sub(shown)));
        self.set_timer(index);
        true
    }

    fn turn_clock(&mut self, index: u8, fault: ClockFault) -> bool {
        let clock = &mut self.members[usize::from(index)].clock;
        match fault {
            ClockFault::Rate(rate) => clock.set_rate(self.now, rate),
            ClockFault::Jump(span) => clock.jump(self.now, span),
        }
        self.set_timer(index);
        true
    }

    fn harm_disk(&mut self, index: u8, fault: DiskAction) -> bool {
        let at = &mut self.members[usize::from(index)];
        match fault {
            DiskAction::Stall(span) => at.stalled_until = at.stalled_until.max(self.now) + span.0,
            DiskAction::Full => at.disk.faults_mut().full = true,
            DiskAction::LoseUnsynced => at.disk.faults_mut().lose_unsynced = true,
            DiskAction::Tear => at.disk.faults_mut().tear = true,
            DiskAction::Fail => at.disk.faults_mut().fail = true,
            DiskAction::Lie => at.disk.faults_mut().lie = true,
            DiskAction::Clear => self.mend_disk(index),
            DiskAction::Rot => {
                let mut rng = dice(self.script.seed, Place::Rot, index.into(), 0, self.now);
                let rotten = at.disk.rot(&mut rng);
                if rotten.is_some() {
                    self.show(&Event::Disk { n: member(index), op: "rot", bytes: 1 });
                }
                return rotten.is_some();
            }
            DiskAction::Wipe => {
                self.crash_by_hand(index);
                self.members[usize::from(index)].wipe();
                self.checkers.on_wipe(index);
            }
        }
        true
    }

    fn mend_disk(&mut self, index: u8) {
        let at = &mut self.members[usize::from(index)];
        *at.disk.faults_mut() = Default::default();
        at.stalled_until = at.stalled_until.min(self.now);
    }

    fn set_cut(&mut self, action: &Action, a: Member, b: Member, one_way: OneWay, cut: bool) {
        let (from, to) = (a.0 - 1, b.0 - 1);
        self.rewire_one(from, to, cut);
        if one_way == OneWay::No {
            self.rewire_one(to, from, cut);
        }
        self.fault(if cut { "cut" } else { "heal" }, Some(a), Some(b), action);
        self.mark(if cut { "partition" } else { "heal" }, || action.to_string());
    }

    fn rewire_one(&mut self, from: u8, to: u8, cut: bool) {
        if self.network.set_cut(self.now, from, to, cut, &mut self.queue) && !cut {
            self.connect(from, to);
        }
    }

    /// Cuts exactly the links that are to be.
    fn rewire(&mut self, cut: impl Fn(u8, u8) -> bool) {
        for from in self.all() {
            for to in self.all().filter(|to| *to != from) {
                self.rewire_one(from, to, cut(from, to));
            }
        }
    }

    fn shape(&mut self, action: &Action, topology: Topology) {
        match topology {
            Topology::QuorumLoss(Member(hub)) => self.rewire(|a, b| a + 1 != hub && b + 1 != hub),
            Topology::Constrained(hub) => {
                let (leader, hub) = self.leader_and_hub(hub);
                self.rewire(|a, b| Some(a) == leader || Some(b) == leader || (a != hub && b != hub));
            }
            Topology::Bridge(hub) => {
                let (leader, hub) = self.leader_and_hub(hub);
                self.rewire(|a, b| (Some(a) == leader && b != hub) || (Some(b) == leader && a != hub));
            }
            Topology::Chained => self.rewire(|a, b| a.abs_diff(b) != 1),
        }
        self.fault("topology", None, None, action);
        self.mark("partition", || action.to_string());
    }

    /// Who leads, and who is the hub of a topology that is about those two: the member that is meant or, where
    /// that one leads, the next.
    fn leader_and_hub(&self, Member(meant): Member) -> (Option<u8>, u8) {
        match self.leader() {
            Some(leader) if leader + 1 == meant => (Some(leader), meant % self.script.nodes),
            leader => (leader, meant - 1),
        }
    }

    fn ask_by_hand(&mut self, on: Option<Member>, operation: &HandOperation) {
        let nodes = self.script.nodes;
        let wanted = match on {
            Some(Member(n)) => n - 1,
            None => dice(self.script.seed, Place::Hand, 0, 0, self.now).below(nodes.into()) as u8,
        };
        let candidates = if on.is_some() { 1 } else { nodes };
        let mut order = (0..candidates).map(|i| (wanted + i) % nodes);
        let asked = order.find(|index| self.members[usize::from(*index)].is_up());
        let number = self.clients.begin_by_hand(self.now, operation, asked.unwrap_or(wanted));
        self.ask(number, asked.is_some());
    }

    fn duplicate(&mut self, action: &Action, message: u64) {
        let copy = self.network.duplicate(message, &mut self.queue);
        self.gesture(action, copy.is_some());
        if let Some((copy, at)) = copy
            && self.shows
        {
            use synod_protocols::{Describe, Wire};
            let (from, to) = (member(copy.from), member(copy.to));
            let (name, detail) = (copy.message.name(), copy.message.detail());
            let (m, copy_of) = (copy.number, Some(message));
            // The copy leaves from the middle of the way: no disk has to do with it.
            let (bytes, early) = (copy.message.to_bytes().len() as u64, false);
            let at = Some(at);
            self.show(&Event::Send { m, copy_of, from, to, name, detail, bytes, early, at, lost: None });
        }
    }

    /// Says what became of something done to a message.
    fn gesture(&mut self, action: &Action, done: bool) {
        if done {
            self.fault("message", None, None, action);
        } else {
            self.show(&Event::Note { text: format!("`{action}`: that message is not on its way now") });
        }
    }

    /// Ends all faults.
    fn recover(&mut self) {
        self.network.clear_weather();
        for index in self.all() {
            self.mend_disk(index);
            let at = &mut self.members[usize::from(index)];
            at.clock.set_rate(self.now, Factor::ONE);
        }
        self.rewire(|_, _| false);
        self.fault("recover", None, None, &Action::Recover);
        self.mark("recover", || "all faults end".into());
        for index in self.all() {
            if !self.members[usize::from(index)].is_up() {
                self.restart(index);
            } else if self.members[usize::from(index)].paused {
                self.resume(index);
            }
            self.set_timer(index);
        }
    }

    fn fault(&mut self, what: &'static str, a: Option<Member>, b: Option<Member>, action: &Action) {
        self.fault_text(what, a, b, action.to_string());
    }

    fn fault_text(&mut self, what: &'static str, a: Option<Member>, b: Option<Member>, text: String) {
        self.counts.faults += 1;
        self.clients.note(self.now, &text);
        if self.shows {
            let cuts = self.network.cuts().map(|(from, to)| (member(from), member(to))).collect();
            self.show(&Event::Fault { what, a, b, text, cuts });
        }
    }
}

fn first_word(action: &Action) -> &'static str {
    match action {
        Action::Crash(_) => "crash",
        Action::Restart(_) => "restart",
        Action::Pause(_) => "pause",
        Action::Resume(_) => "resume",
        Action::Isolate(_) => "isolate",
        Action::Timeout(_) => "timeout",
        Action::Clock(..) => "clock",
        _ => "disk",
    }
}
