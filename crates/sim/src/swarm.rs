//! Scripts from seeds, swarm-style (Groce et al., "Swarm testing", ISSTA'12): each seed switches a random
//! subset of faults on, with random rates, so that some runs are dense with one kind of fault and
//! free of those that would hide its effects. All faults end before the run does, and then
//! progress is expected.
//!
//! Every script stays within the budget of a protocol that tolerates the loss of a minority:
//! disks are lost or rot on a minority of members only, and none lies about a sync.

mod fault;
mod stories;

use crate::dice::{Place, dice};
use crate::script::{
    Action, ClockFault, Delay, DiskAction, Limits, Member, Mix, NetworkChange, OneWay, OperatorChange,
    Progress, Script, Target, Timed, Topology, Transport, Workload,
};
use crate::units::{Factor, Share, Span};
pub use fault::{Expected, Fault};
use synod_protocols::Rng;

/// What the scripts of a swarm have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// The protocol.
    pub protocol: String,
    /// Members, from 1 to [`crate::script::NODES_MAX`].
    pub nodes: u8,
    /// The length of each run. Under two seconds there is no room for faults that matter.
    pub until: Span,
    /// The one fault that all scripts are about; otherwise each draws some, and a quarter of them
    /// tells one story over and over.
    pub only: Option<Fault>,
}

impl Default for Swarm {
    fn default() -> Self {
        Swarm { protocol: "raft".into(), nodes: 5, until: Span::secs(10), only: None }
    }
}

/// Election timeouts within which a write must succeed after all faults ended.
const PROGRESS_ELECTIONS: u32 = 20;
/// Election timeouts between the end of the faults and the end of the run.
const SETTLE_ELECTIONS: u64 = 25;
/// Election timeouts for which the only member that will reach a quorum is cut off before, to fall behind.
const BEHIND_ELECTIONS: u64 = 4;

/// The script of a seed.
pub fn swarm(seed: u64, swarm: &Swarm) -> Script {
    let mut rng = dice(seed, Place::Swarm, 0, 0, 0);
    // Short runs need short timeouts, or there is no time left to see progress after the faults.
    let drawn = [50, 100, 100, 150, 200, 300][rng.below(6) as usize];
    let election = Span::millis(drawn.min(swarm.until.0 / 30_000_000).max(50));
    let drawn = rng.chance(1, 4).then(|| Fault::STORIES[rng.below(Fault::STORIES.len() as u64) as usize]);
    let only = swarm.only.or(drawn);
    let datagrams = rng.chance(1, 3) || matches!(swarm.only, Some(Fault::Duplicate | Fault::Reorder));
    let transport = if datagrams { Transport::Datagrams } else { Transport::Streams };
    let mut script = Script {
        protocol: swarm.protocol.clone(),
        nodes: swarm.nodes,
        seed,
        until: swarm.until,
        transport,
        latency: latency(&mut rng, election),
        detect: Delay::Uniform(Span(election.0 / 10), Span(election.0 * rng.between(1, 3))),
        disk: disk(&mut rng, election),
        election,
        heartbeat: Span(election.0 / rng.between(3, 6)),
        limits: limits(&mut rng, only),
        segment: [4 << 10, 16 << 10, 64 << 10, 256 << 10][rng.below(4) as usize],
        clients: Some(workload(&mut rng, election)),
        progress: Some(Progress { elections: PROGRESS_ELECTIONS }),
        ..Script::default()
    };
    if let Some(fault) = only.filter(|fault| fault.has_leases()) {
        set_leases(&mut script, &mut rng, fault);
    }
    let end = swarm.until.0.saturating_sub(SETTLE_ELECTIONS * election.0).max(swarm.until.0 / 4);
    let mut faults = Faults::new(rng, &script, end, only == Some(Fault::Replaced));
    match only {
        Some(fault) if fault.is_story() => faults.repeat(fault),
        Some(fault) => {
            faults.kinds = fault.company();
            faults.draw();
        }
        None => faults.draw(),
    }
    let lasting = only.map_or(Vec::new(), |fault| faults.lasting(fault));
    let mut actions = faults.actions;
    actions.push(Timed { at: Span(end), action: Action::Recover });
    // What lasts to the end comes after all is well, so that a state to do harm to is there.
    actions.extend(lasting);
    actions.sort_by_key(|timed| timed.at);
    script.actions = actions;
    // Where every entry goes alone, a backlog takes longer than any bound worth checking.
    let slow = script.limits.message_bytes < 100 || script.limits.window < 3;
    if slow || script.progress_window().is_some_and(|(_, due)| due > script.until) {
        script.progress = None;
    }
    script
}

/// Mostly as they are; sometimes so low that every entry goes alone or has left the memory.
fn limits(rng: &mut Rng, only: Option<Fault>) -> Limits {
    let mut limits = Limits::default();
    if only == Some(Fault::Figure8) || rng.chance(1, 5) {
        (limits.message_bytes, limits.window) = (1, 1);
    } else if rng.chance(1, 3) {
        limits.message_bytes = [1, 60, 300][rng.below(3) as usize];
    }
    if rng.chance(1, 3) {
        limits.window = rng.between(1, 4) as u32;
    }
    if rng.chance(1, 3) {
        limits.tail_bytes = rng.below(2000) as u32;
    }
    limits
}

/// Mostly fast for the election timeout, as a network must be for a leader to stay; sometimes not.
fn latency(rng: &mut Rng, election: Span) -> Delay {
    let low = election.0 / rng.between(100, 1000);
    match rng.below(4) {
        0 => Delay::Fixed(Span(low)),
        1 => Delay::LogNormal {
            median: Span(election.0 / 50),
            factor: Factor(rng.between(1_500_000, 2_500_000)),
        },
        _ => Delay::Uniform(Span(low), Span(low + election.0 / rng.between(10, 60))),
    }
}

fn disk(rng: &mut Rng, election: Span) -> Delay {
    let low = election.0 / rng.between(100, 2000);
    match rng.below(4) {
        0 => Delay::Fixed(Span(low)),
        1 => Delay::LogNormal {
            median: Span(election.0 / 40),
            factor: Factor(rng.between(1_500_000, 2_500_000)),
        },
        2 => Delay::Uniform(Span(low), Span(low + election.0 / rng.between(2, 5))),
        _ => Delay::Uniform(Span(low), Span(low + election.0 / rng.between(5, 60))),
    }
}

fn workload(rng: &mut Rng, election: Span) -> Workload {
    let mix = Mix {
        put: rng.between(1, 6) as u32,
        get: rng.below(6) as u32,
        cas: rng.below(3) as u32,
        delete: rng.below(2) as u32,
    };
    let clients = rng.between(1, 6) as u16;
    Workload { clients, every: Span(election.0 / rng.between(2, 20)), keys: rng.between(1, 4) as u32, mix }
}

/// Reads rest on leases, and there are reads.
fn set_leases(script: &mut Script, rng: &mut Rng, fault: Fault) {
    let drift = if fault == Fault::LeaseBroken { 1_000 } else { rng.between(20_000, 400_000) };
    script.lease = Some(Share(drift as u32));
    if let Some(workload) = &mut script.clients {
        workload.mix.get = workload.mix.get.max(4);
    }
}

/// The faults of one script in the making.
struct Faults {
    rng: Rng,
    nodes: u8,
    election: u64,
    datagrams: bool,
    fair: Delay,
    end: u64,
    kinds: Vec<Fault>,
    /// Members whose disks may be lost or rot; never a majority.
    victims: Vec<Member>,
    /// By how many parts in a million clocks may differ in rate, where that is bounded.
    drift: Option<u64>,
    /// The members as the operator wants them, and the last name given.
    roster: Vec<Member>,
    named: u8,
    actions: Vec<Timed>,
}

impl Faults {
    fn new(mut rng: Rng, script: &Script, end: u64, replaced: bool) -> Faults {
        let mut any = || Fault::DRAWN[rng.below(Fault::DRAWN.len() as u64) as usize];
        // A third of the seeds with one or two kinds of faults only.
        let mut kinds = vec![any(), any()];
        if rng.chance(2, 3) {
            let share = rng.between(1, 4);
            kinds.extend(Fault::DRAWN.into_iter().filter(|_| rng.chance(1, share)));
        }
        let mut victims: Vec<Member> = script.members().collect();
        let count = rng.below(u64::from(script.nodes.div_ceil(2))) as usize;
        // A member that is to be replaced there always is, if there can be.
        let least = usize::from(replaced && script.nodes > 2);
        while victims.len() > count.max(least) {
            let at = rng.below(victims.len() as u64) as usize;
            victims.remove(at);
        }
        Faults {
            rng,
            nodes: script.nodes,
            election: script.election.0,
            datagrams: script.transport == Transport::Datagrams,
            fair: script.latency,
            end,
            kinds,
            victims,
            drift: script.lease.map(|drift| drift.0.into()),
            roster: script.members().collect(),
            named: script.nodes,
            actions: Vec::new(),
        }
    }

    /// From one fault to the next until the end.
    fn draw(&mut self) {
        let pace = self.election * [1, 2, 4, 8, 12][self.rng.below(5) as usize] / 2;
        let mut at = self.election * 2;
        loop {
            at += self.rng.between(pace / 4, pace * 2);
            if at >= self.end {
                return;
            }
            let kind = self.kinds[self.rng.below(self.kinds.len() as u64) as usize];
            self.add(at, kind);
        }
    }

    fn add(&mut self, at: u64, kind: Fault) {
        let one = Target::Node(self.member());
        let leader_or_one = if self.rng.chance(1, 2) { Target::Leader } else { one };
        match kind {
            Fault::Crash => self.crash(at, one),
            Fault::CrashLeader => {
                self.push(at, Action::Crash(Target::Leader));
                let later = at + self.span(4);
                self.push(later, Action::Restart(Target::All));
            }
            Fault::CrashTwice => {
                let soon = at + self.rng.between(self.election / 50, self.election / 2);
                self.crash(at, one);
                self.push(soon, Action::Restart(one));
                let again = soon + self.rng.between(self.election / 100, self.election / 4);
                self.crash(again, one);
            }
            Fault::PowerLoss => {
                self.push(at, Action::Crash(Target::All));
                let later = at + self.rng.between(self.election / 10, self.election);
                self.push(later, Action::Restart(Target::All));
            }
            Fault::Pause => {
                self.push(at, Action::Pause(leader_or_one));
                let later = at + self.span(5);
                self.push(later, Action::Resume(Target::All));
            }
            Fault::Cut | Fault::OneWayCut => {
                let (a, b) = self.pair();
                let one_way = if kind == Fault::Cut { OneWay::No } else { OneWay::Yes };
                self.push(at, Action::Cut(a, b, one_way));
                self.heal(at, Action::Heal(a, b, one_way));
            }
            Fault::Isolate => {
                self.push(at, Action::Isolate(leader_or_one));
                self.heal(at, Action::HealAll);
            }
            Fault::Partition => {
                let groups = self.groups();
                self.push(at, Action::Partition(groups));
                self.heal(at, Action::HealAll);
            }
            Fault::QuorumLoss | Fault::Constrained | Fault::Chained | Fault::Bridge => {
                let topology = self.topology(kind);
                self.push(at, Action::Topology(topology));
                self.heal(at, Action::HealAll);
            }
            Fault::Loss | Fault::Duplicate | Fault::Reorder | Fault::Latency => self.weather(at, kind),
            Fault::ClockRate => {
                let (slowest, fastest) =
                    self.drift.map_or((300_000, 3_000_000), |drift| (1_000_000, 1_000_000 + drift));
                let rate = Factor(self.rng.between(slowest, fastest));
                self.push(at, Action::Clock(one, ClockFault::Rate(rate)));
            }
            Fault::ClockJump => {
                let jump = Span(self.span(4));
                self.push(at, Action::Clock(one, ClockFault::Jump(jump)));
            }
            Fault::Storm => self.storm(at),
            Fault::Duel | Fault::Relay | Fault::Figure8 | Fault::Deposed | Fault::LeaseBroken => {
                self.tell(at, kind);
            }
            Fault::Churn => self.change_members(at),
            Fault::Replaced => self.replace_member(at),
            Fault::LeaseDrift => {}
            Fault::Timeout => {
                let target = if self.rng.chance(1, 2) { one } else { Target::Follower };
                self.push(at, Action::Timeout(target));
            }
            Fault::MajorityDown | Fault::MajorityCutOff => {}
            Fault::MajorityLies => {
                self.push(at, Action::Disk(Target::All, DiskAction::Lie));
                self.push(at + self.election, Action::Crash(Target::All));
                self.push(at + self.election * 2, Action::Restart(Target::All));
            }
            Fault::Stall
            | Fault::Tear
            | Fault::LoseUnsynced
            | Fault::FailSync
            | Fault::Full
            | Fault::Rot
            | Fault::Wipe => {
                self.harm_disk(at, kind, leader_or_one);
            }
        }
    }

    /// Several members campaign at once, and voters crash and come back in the middle of it: the
    /// moments at which a vote, once given, must not be forgotten.
    fn storm(&mut self, mut at: u64) {
        let pace = self.election / self.rng.between(4, 100);
        self.push(at, Action::Timeout(Target::All));
        for _ in 0..self.rng.between(2, 8) {
            at += self.rng.between(pace / 8, pace * 2);
            let one = Target::Node(self.member());
            match self.rng.below(5) {
                0 => self.push(at, Action::Timeout(Target::All)),
                1 => self.push(at, Action::Timeout(one)),
                2 => {
                    self.push(at, Action::Crash(Target::Leader));
                    self.push(at + pace, Action::Restart(Target::All));
                }
                _ => {
                    self.push(at, Action::Crash(one));
                    at += self.rng.between(1, pace);
                    self.push(at, Action::Restart(one));
                    // A restarted voter keeps silent for a while by its clock.
                    if self.rng.chance(1, 2) {
                        self.push(at, Action::Timeout(one));
                    }
                }
            }
        }
        self.push(at + self.election, Action::Restart(Target::All));
    }

    /// Somebody joins, leaves or takes over.
    fn change_members(&mut self, at: u64) {
        let founded = usize::from(self.nodes);
        match self.rng.below(5) {
            0 | 1 if self.roster.len() <= founded + 1 => self.add_member(at),
            2 | 3 if self.roster.len() > 3.max(founded.saturating_sub(1)) => {
                let gone = self.rng.below(self.roster.len() as u64) as usize;
                let member = self.roster.remove(gone);
                self.push(at, Action::Operator(OperatorChange::Remove(member)));
            }
            _ => {
                let heir = self.rng.below(2 * self.roster.len() as u64) as usize;
                let change = OperatorChange::Transfer(self.roster.get(heir).copied());
                self.push(at, Action::Operator(change));
            }
        }
    }

    fn add_member(&mut self, at: u64) {
        // Names are given in the order of time.
        let is_add = |timed: &&Timed| matches!(timed.action, Action::Operator(OperatorChange::Add { .. }));
        let at = self.actions.iter().rev().find(is_add).map_or(at, |last| at.max(last.at.0 + 1));
        if self.named == crate::script::NODES_MAX || at >= self.end {
            return;
        }
        self.named += 1;
        let member = Member(self.named);
        self.roster.push(member);
        let learner = self.rng.chance(1, 4);
        self.push(at, Action::Operator(OperatorChange::Add { member, learner }));
        if learner {
            let later = at + self.span(8);
            self.push(later, Action::Operator(OperatorChange::Promote(member)));
        }
    }

    /// A disk is lost. Under its old name the member would be one that forgot its promises, so it leaves, and
    /// a new one comes.
    fn replace_member(&mut self, at: u64) {
        let Some(victim) = self.victims.pop() else { return };
        self.push(at, Action::Disk(Target::Node(victim), DiskAction::Wipe));
        let later = at + self.span(4);
        if later < self.end && self.named < crate::script::NODES_MAX {
            self.push(later, Action::Operator(OperatorChange::Remove(victim)));
            self.add_member(later);
        }
    }

    fn topology(&mut self, fault: Fault) -> Topology {
        let hub = self.member();
        match fault {
            Fault::QuorumLoss => Topology::QuorumLoss(hub),
            Fault::Constrained => Topology::Constrained(hub),
            Fault::Bridge => Topology::Bridge(hub),
            _ => Topology::Chained,
        }
    }

    fn weather(&mut self, at: u64, fault: Fault) {
        let share = Share(self.rng.between(1_000, 200_000) as u32);
        // Streams deliver in order and once.
        let fault = match fault {
            Fault::Duplicate | Fault::Reorder if !self.datagrams => Fault::Loss,
            other => other,
        };
        let (worse, better) = match fault {
            Fault::Latency => {
                let slow = Delay::Uniform(
                    Span(self.election / 20),
                    Span(self.election * self.rng.between(1, 4) / 2),
                );
                (NetworkChange::Latency(slow), NetworkChange::Latency(self.fair))
            }
            Fault::Duplicate => (NetworkChange::Duplicate(share), NetworkChange::Duplicate(Share(0))),
            Fault::Reorder => (NetworkChange::Reorder(share), NetworkChange::Reorder(Share(0))),
            _ => (NetworkChange::Loss(share), NetworkChange::Loss(Share(0))),
        };
        self.push(at, Action::Network(worse));
        let later = at + self.span(10);
        self.push(later, Action::Network(better));
    }

    /// What is to hold from the end of all other faults to the end of the run.
    fn lasting(&mut self, fault: Fault) -> Vec<Timed> {
        let begin = Span(self.end + 1);
        let at_once = |action| Timed { at: begin, action };
        let majority = self.cast().into_iter().take(usize::from(self.nodes / 2 + 1)).map(Target::Node);
        match fault {
            Fault::Constrained => {
                let hub = self.member();
                let behind = Span(begin.0 + BEHIND_ELECTIONS * self.election);
                vec![
                    at_once(Action::Isolate(Target::Node(hub))),
                    Timed { at: behind, action: Action::Topology(Topology::Constrained(hub)) },
                ]
            }
            Fault::QuorumLoss | Fault::Chained | Fault::Bridge => {
                vec![at_once(Action::Topology(self.topology(fault)))]
            }
            Fault::MajorityDown => majority.map(Action::Crash).map(at_once).collect(),
            Fault::MajorityCutOff => majority.map(Action::Isolate).map(at_once).collect(),
            _ => Vec::new(),
        }
    }

    fn harm_disk(&mut self, at: u64, kind: Fault, target: Target) {
        let victim = match self.victims.len() as u64 {
            0 => None,
            n => Some(Target::Node(self.victims[self.rng.below(n) as usize])),
        };
        match kind {
            Fault::Stall => {
                let stall = Span(self.span(3));
                self.push(at, Action::Disk(target, DiskAction::Stall(stall)));
            }
            Fault::Tear | Fault::LoseUnsynced => {
                let armed = if kind == Fault::Tear { DiskAction::Tear } else { DiskAction::LoseUnsynced };
                self.push(at, Action::Disk(target, armed));
                self.crash(at, target);
            }
            Fault::FailSync => {
                self.push(at, Action::Disk(target, DiskAction::Fail));
                let later = at + self.span(6);
                self.push(later, Action::Restart(Target::All));
            }
            Fault::Full => {
                self.push(at, Action::Disk(target, DiskAction::Full));
                let later = at + self.span(8);
                self.push(later, Action::Disk(Target::All, DiskAction::Clear));
            }
            Fault::Rot => {
                if let Some(victim) = victim {
                    self.push(at, Action::Disk(victim, DiskAction::Rot));
                    self.crash(at, victim);
                }
            }
            _ => {
                if let Some(victim) = victim {
                    self.push(at, Action::Disk(victim, DiskAction::Wipe));
                }
            }
        }
    }

    fn crash(&mut self, at: u64, target: Target) {
        self.push(at, Action::Crash(target));
        let later = at + self.span(6);
        let again = if matches!(target, Target::Node(_)) { target } else { Target::All };
        self.push(later, Action::Restart(again));
    }

    fn heal(&mut self, at: u64, action: Action) {
        let later = at + self.span(12);
        self.push(later, action);
    }

    /// Up to so many election timeouts; short ones are as likely as long ones.
    fn span(&mut self, elections: u64) -> u64 {
        let top = self.election * elections;
        (top >> self.rng.below(6)).max(self.election / 20) - self.rng.below(self.election / 50)
    }

    fn member(&mut self) -> Member {
        Member(self.rng.between(1, self.nodes.into()) as u8)
    }

    fn pair(&mut self) -> (Member, Member) {
        let a = self.member();
        let step = self.rng.between(1, u64::from(self.nodes).max(2) - 1) as u8;
        (a, Member((a.0 - 1 + step) % self.nodes + 1))
    }

    /// Two groups, or three; sometimes members are in none.
    fn groups(&mut self) -> Vec<Vec<Member>> {
        let count = self.rng.between(2, 3);
        let mut groups = vec![Vec::new(); count as usize];
        for n in 1..=self.nodes {
            if !self.rng.chance(1, 10) {
                groups[self.rng.below(count) as usize].push(Member(n));
            }
        }
        groups.retain(|group| !group.is_empty());
        if groups.is_empty() {
            groups.push(vec![Member(1)]);
        }
        groups
    }

    /// What would come after the end is left out: all faults end then.
    fn push(&mut self, at: u64, action: Action) {
        // A cluster of one has no links.
        let links = matches!(action, Action::Cut(..) | Action::Heal(..));
        if at < self.end && !(links && self.nodes == 1) && self.actions.len() < crate::script::ACTIONS_MAX - 1
        {
            self.actions.push(Timed { at: Span(at), action });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_swarm_script_is_a_script() {
        for seed in 0..2000 {
            let nodes = (seed % 15) as u8 + 1;
            let script = swarm(seed, &Swarm { nodes, ..Swarm::default() });
            assert_eq!(script.to_string().parse().as_ref(), Ok(&script), "{script}");
        }
    }

    #[test]
    fn every_script_about_one_fault_is_a_script() {
        for (seed, fault) in (0..20).flat_map(|seed| Fault::ALL.map(|fault| (seed, fault))) {
            let script = swarm(seed, &Swarm { only: Some(fault), ..Swarm::default() });
            assert_eq!(script.to_string().parse().as_ref(), Ok(&script), "{fault}: {script}");
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let text: String = (0..300).map(|seed| swarm(seed, &Swarm::default()).to_string()).collect();
        for part in [
            "crash n",
            "crash leader",
            "crash all",
            "restart",
            "pause",
            "resume",
            "cut n",
            " -> ",
            "isolate",
            "partition",
            "quorum-loss",
            "constrained",
            "chained",
            "latency",
            "loss",
            "duplicate",
            "reorder",
            "rate",
            "jump",
            "timeout",
            "stall",
            "full",
            "clear",
            "lose-unsynced",
            "tear",
            "rot",
            "fail",
            "wipe",
            "recover",
            "datagrams",
        ] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains(" lie"), "a disk that lies is beyond every budget");
    }
}
