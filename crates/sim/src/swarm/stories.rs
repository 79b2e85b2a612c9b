//! Short sequences of faults which put the rules of leadership to the test that single faults,
//! thrown at random, almost never do. Each is a story with random times and parts; most tellings
//! come to nothing, and a few hit the moment that a rule is there for.

use super::{Fault, Faults};
use crate::script::{Action, ClockFault, DiskAction, Member, OneWay, Target};
use crate::units::{Factor, Span};

impl Faults {
    /// The same story over and over.
    pub(super) fn repeat(&mut self, story: Fault) {
        let mut at = self.election * 2;
        while at < self.end {
            at = self.tell(at, story) + self.rng.between(self.election / 4, self.election * 3);
        }
    }

    /// Tells a story from `at` on. Returns when it ends.
    pub(super) fn tell(&mut self, at: u64, story: Fault) -> u64 {
        match story {
            Fault::Duel if self.nodes >= 3 => self.duel(at),
            Fault::Figure8 if self.nodes >= 5 => self.figure_8(at),
            Fault::Deposed | Fault::LeaseBroken => self.deposed(at),
            _ => self.relay(at),
        }
    }

    /// Both candidates get as far as asking for votes of one term, but the requests of the second wait
    /// for its disk. Meanwhile voters vote for the first, crash, and are over their silence when the
    /// second asks: whoever has forgotten its vote votes twice.
    fn duel(&mut self, at: u64) -> u64 {
        let election = self.election;
        let mut cast = self.cast();
        let (Some(first), Some(second)) = (cast.pop(), cast.pop()) else { return at };
        let start = self.interregnum(at);
        self.push(start, Action::Cut(first, second, OneWay::No));
        self.push(start, Action::Timeout(Target::Node(first)));
        let behind = self.rng.below(election / 20);
        self.push(start + behind, Action::Timeout(Target::Node(second)));
        let mut back = start;
        if let [third, faithful, wanted] = cast[..]
            && self.rng.chance(1, 3)
        {
            // A third member sounds the wanted voter out between the two requests; the faithful one
            // hears only the second.
            self.push(start, Action::Cut(first, faithful, OneWay::No));
            let stall = self.rng.between(election / 8, election / 3);
            self.push(start, Action::Disk(Target::Node(wanted), DiskAction::Stall(Span(stall))));
            self.push(start + stall, Action::Cut(first, wanted, OneWay::Yes));
            let asked = start + stall + self.rng.below(election / 8) - election / 16;
            self.push(asked, Action::Timeout(Target::Node(third)));
            back = asked;
            cast.clear();
        }
        for voter in cast {
            let one = Target::Node(voter);
            // Its vote leaves when the disk goes on, and nothing that the first one sends as a leader
            // comes back.
            let stall = self.rng.between(election / 8, election / 3);
            match self.rng.below(8) {
                // It hears from one side only.
                0 => self.push(start, Action::Cut(first, voter, OneWay::No)),
                // It campaigns itself.
                1 => {
                    let then = start + self.rng.below(election / 2);
                    self.push(then, Action::Timeout(one));
                    self.push(then, Action::Cut(first, voter, OneWay::No));
                }
                choice => {
                    self.push(start, Action::Disk(one, DiskAction::Stall(Span(stall))));
                    let after = if choice <= 4 {
                        // What it has not synced is lost with it.
                        self.push(start, Action::Disk(one, DiskAction::LoseUnsynced));
                        self.rng.between(election / 16, stall)
                    } else {
                        self.push(start + stall, Action::Cut(first, voter, OneWay::Yes));
                        stall + self.rng.between(election / 50, election / 8)
                    };
                    self.push(start + after, Action::Crash(one));
                    let restart = start + after + self.rng.between(1, election / 20);
                    self.push(restart, Action::Restart(one));
                    self.push(restart, Action::Disk(one, DiskAction::Clear));
                    self.push(restart, Action::Clock(one, ClockFault::Jump(Span(election))));
                    back = back.max(restart);
                }
            }
        }
        let stall = back - start + self.rng.between(election / 50, election / 4);
        self.push(start, Action::Disk(Target::Node(second), DiskAction::Stall(Span(stall))));
        self.all_well(back + election * 2)
    }

    /// Faults of leaders only, in quick succession.
    fn relay(&mut self, mut at: u64) -> u64 {
        let pace = self.election / self.rng.between(1, 20);
        for _ in 0..self.rng.between(4, 16) {
            at += self.rng.between(pace / 10, pace * 2);
            let one = Target::Node(self.member());
            let action = match self.rng.below(8) {
                0 | 1 => Action::Isolate(Target::Leader),
                2 | 3 => Action::Crash(Target::Leader),
                4 => Action::HealAll,
                5 => Action::Restart(Target::All),
                6 => Action::Restart(one),
                _ => Action::Timeout(one),
            };
            self.push(at, action);
        }
        self.all_well(at + pace)
    }

    /// `first` leads, with `second` as its only follower that hears it; then `last` is elected by the
    /// other two and cut off before anything of its own arrives; then `first` again, which brings its
    /// old entries to a majority and falls before it can bring a new one; then `last` again, which
    /// knows nothing of them.
    fn figure_8(&mut self, at: u64) -> u64 {
        let election = self.election;
        let cast = self.cast();
        let [first, second, last, others @ ..] = &cast[..] else { return at };
        let (first, second, last) = (*first, *second, *last);
        let (one, five) = (Target::Node(first), Target::Node(last));

        let mut now = self.interregnum(at);
        now = self.campaign(now, one);
        let rest: Vec<Member> = others.iter().copied().chain([last]).collect();
        self.push(now, Action::Partition(vec![vec![first, second], rest.clone()]));
        now += self.rng.between(election / 10, election / 2);
        self.push(now, Action::Crash(one));
        self.push(now, Action::Crash(Target::Node(second)));

        for member in &rest {
            self.push(now, Action::Clock(Target::Node(*member), ClockFault::Jump(Span(election))));
        }
        let vote = now + self.rng.between(election / 20, election / 3);
        for voter in others {
            // Their votes leave when the candidate cannot be heard any more.
            let stall = vote - now + election / 20;
            self.push(now, Action::Disk(Target::Node(*voter), DiskAction::Stall(Span(stall))));
            self.push(vote, Action::Cut(last, *voter, OneWay::Yes));
        }
        self.push(now, Action::Timeout(five));
        now = vote + self.rng.between(election / 8, election / 2);
        self.push(now, Action::Crash(five));

        self.push(now, Action::HealAll);
        self.push(now, Action::Restart(one));
        self.push(now, Action::Restart(Target::Node(second)));
        now += self.rng.between(election / 20, election / 5);
        self.push(now, Action::Clock(Target::All, ClockFault::Jump(Span(election))));
        now = self.campaign(now, one);
        now += self.rng.below(election / 2);
        self.push(now, Action::Crash(one));

        self.push(now, Action::Crash(Target::Node(second)));
        self.push(now, Action::Restart(five));
        now += self.rng.between(election / 20, election / 5);
        self.push(now, Action::Clock(Target::All, ClockFault::Jump(Span(election))));
        now = self.campaign(now, five);
        self.all_well(now + election)
    }

    fn deposed(&mut self, at: u64) -> u64 {
        self.push(at, Action::Clock(Target::Leader, ClockFault::Rate(Factor(300_000))));
        self.push(at, Action::Isolate(Target::Leader));
        let end = at + self.election * self.rng.between(2, 5);
        self.push(end, Action::Clock(Target::All, ClockFault::Rate(Factor::ONE)));
        self.all_well(end)
    }

    /// The leader is gone for a moment, and all silence and loyalty is over. Returns when everybody
    /// is there again and nobody leads.
    fn interregnum(&mut self, at: u64) -> u64 {
        let election = self.election;
        self.push(at, Action::HealAll);
        self.push(at, Action::Crash(Target::Leader));
        let back = at + self.rng.between(1, election / 20);
        self.push(back, Action::Restart(Target::All));
        let start = back + self.rng.between(election / 20, election / 5);
        self.push(start, Action::Clock(Target::All, ClockFault::Jump(Span(election))));
        start
    }

    /// A member campaigns, more than once in case it has to learn of a higher term first.
    fn campaign(&mut self, mut at: u64, who: Target) -> u64 {
        for _ in 0..3 {
            self.push(at, Action::Timeout(who));
            at += self.rng.between(self.election / 20, self.election / 4);
        }
        at
    }

    /// All links heal and everybody is up again.
    fn all_well(&mut self, at: u64) -> u64 {
        self.push(at, Action::HealAll);
        self.push(at, Action::Restart(Target::All));
        at
    }

    /// All members in random order.
    pub(super) fn cast(&mut self) -> Vec<Member> {
        let mut members: Vec<Member> = (1..=self.nodes).map(Member).collect();
        for i in (1..members.len()).rev() {
            let j = self.rng.below(i as u64 + 1) as usize;
            members.swap(i, j);
        }
        members
    }
}
