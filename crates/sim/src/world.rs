//! The world: virtual time, members, network, clients, and what is checked after every step.
//!
//! It takes the next thing that is due, hands it to whom it concerns, carries out what they want,
//! and looks whether all promises still hold. Nothing in it depends on anything but the script.

mod asking;
mod io;
mod judging;
mod operator;

use crate::checkers::Checkers;
use crate::clients::{Clients, Ending, Machine, Who};
use crate::event::{Event, Mark, Sink};
use crate::member::{Member, NEVER};
use crate::network::Network;
use crate::outcome::{Counts, Outcome};
use crate::queue::{Due, Queue};
use crate::script::{self, Script};
use crate::show;
use asking::Progress;
use operator::Operator;
use synod_node::{Input, Notice, Outbox, PeerMessage};
use synod_protocols::log::{LogStatus, ReplicatedLog, Role, Ticket};
use synod_protocols::{Fingerprint, LinkSession, NodeId};

/// Marks that an outcome keeps at most.
pub const MARKS_MAX: usize = 10_000;
/// Timeouts of one member at one virtual time at most.
const SPINS_MAX: u32 = 100;

/// Everything there is.
pub(crate) struct World<'a, P: ReplicatedLog> {
    pub(crate) script: &'a Script,
    sink: &'a mut dyn Sink,
    /// Whether the sink wants events.
    pub(crate) shows: bool,
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    pub(crate) network: Network<PeerMessage<P::Message>>,
    pub(crate) members: Vec<Member<P>>,
    operator: Operator,
    pub(crate) clients: Clients,
    pub(crate) checkers: Checkers,
    pub(crate) counts: Counts,
    pub(crate) digest: Fingerprint,
    marks: Vec<Mark>,
    /// Violations that were shown.
    reported: usize,
    /// Virtual time does not go on.
    halted: bool,
    outbox: Outbox<P, Machine>,
    scratch: Vec<u8>,
    progress: Progress,
}

/// Runs a script on a protocol of the caller's choice.
pub(crate) fn run_world<P: ReplicatedLog>(script: &Script, sink: &mut dyn Sink) -> Outcome {
    let mut world = World::<P>::new(script, sink);
    world.begin();
    while !world.halted
        && let Some((at, due)) = world.queue.pop(script.until.0)
    {
        world.now = at;
        world.counts.events += 1;
        world.on_due(due);
    }
    world.now = script.until.0;
    world.finish()
}

impl<'a, P: ReplicatedLog> World<'a, P> {
    fn new(script: &'a Script, sink: &'a mut dyn Sink) -> Self {
        let shows = sink.wants_events();
        World {
            script,
            sink,
            shows,
            now: 0,
            queue: Queue::default(),
            network: Network::new(script),
            members: (0..script.size()).map(|index| Member::new(script, index)).collect(),
            operator: Operator::default(),
            clients: Clients::new(script),
            checkers: Checkers::new::<P>(script.nodes, script.size(), script.limits.alpha),
            counts: Counts::default(),
            digest: Fingerprint::new(),
            marks: Vec::new(),
            reported: 0,
            halted: false,
            outbox: Outbox::default(),
            scratch: Vec::new(),
            progress: Progress::default(),
        }
    }

    fn begin(&mut self) {
        for (line, timed) in self.script.actions.iter().enumerate() {
            self.queue.push(timed.at.0, Due::Script { line: line as u32 });
        }
        for index in 0..self.script.nodes {
            self.start(index);
        }
        if let Some(workload) = self.script.clients {
            for client in 0..workload.clients {
                let at = self.clients.next_at(client, 0, 0);
                self.queue.push(at, Due::Client { client });
            }
        }
        if let Some((from, due)) = self.script.progress_window() {
            self.progress = Progress::new(from.0, due.0);
            self.queue.push(from.0, Due::Probe);
        }
    }

    fn on_due(&mut self, due: Due) {
        match due {
            Due::Arrival { slot } => self.on_arrival(slot),
            Due::Timer { member } => self.on_timer(member),
            Due::Disk { member, life, slot } => self.on_disk(member, life, slot),
            Due::Persisted { member, life, ticket } => {
                let at = &self.members[usize::from(member)];
                if at.life == life && at.is_up() {
                    self.note_digest(13, member.into(), ticket);
                    self.feed(member, Input::Persisted { ticket: Ticket(ticket), result: Ok(()) });
                }
            }
            Due::LinkUp { from, to, generation } => {
                if let Some(session) = self.network.on_link_up(from, to, generation) {
                    self.note_digest(1, from.into(), to.into());
                    self.show(&Event::Link { n: member(from), to: member(to), up: true });
                    let peer = NodeId(u64::from(to) + 1);
                    self.feed(from, Input::LinkUp { peer, session: LinkSession(session) });
                }
            }
            Due::LinkDown { from, to, generation } => {
                if self.network.on_link_down(from, to, generation) {
                    self.note_digest(2, from.into(), to.into());
                    self.show(&Event::Link { n: member(from), to: member(to), up: false });
                    self.feed(from, Input::LinkDown { peer: NodeId(u64::from(to) + 1) });
                    self.connect(from, to);
                }
            }
            Due::Client { client } => self.on_client(client),
            Due::ClientTimeout { client, operation } => {
                if self.clients.is_open(operation) {
                    self.end_operation(operation, Ending::Unknown("no answer"));
                    self.client_is_free(client, operation);
                }
            }
            Due::Script { line } => {
                let script = self.script;
                self.note_digest(3, line.into(), 0);
                self.act(&script.actions[line as usize].action);
            }
            Due::Operator { attempt } => self.on_operator(attempt),
            Due::Probe => self.on_probe(),
        }
    }

    // Members.

    /// All members that there ever are.
    pub(crate) fn all(&self) -> std::ops::Range<u8> {
        0..self.members.len() as u8
    }

    /// Starts a member that is down; it stays down if its disk does not let it.
    pub(crate) fn start(&mut self, index: u8) {
        let at = usize::from(index);
        let mut outbox = std::mem::take(&mut self.outbox);
        let started = self.members[at].start(self.script, index, self.now, &mut outbox);
        self.outbox = outbox;
        self.note_digest(4, index.into(), started.is_ok().into());
        match started {
            Ok(()) => {
                let member = &mut self.members[at];
                let node = member.node.as_mut().expect("it was started");
                let status = node.status();
                // A protocol may remember what was committed, and deliver it as it recovers.
                let delivered = self.outbox.notices.iter().find_map(|notice| match notice {
                    Notice::Committed(entries) => entries.first().map(|first| first.index.previous()),
                    _ => None,
                });
                let applied = delivered.unwrap_or(status.applied);
                let digest = node.machine().store().map().digest();
                node.flush(member.clock.at(self.now), &mut self.outbox);
                let node = self.members[at].node.as_ref().expect("it was started");
                if status.damaged {
                    // It knows that it has lost something: the promise is that it does not act as if it had not.
                    self.checkers.on_wipe(index);
                    self.counts.damaged += 1;
                }
                self.checkers.on_start(self.now, index, node.process(), &status.log, applied);
                self.checkers.on_state(self.now, index, applied.0, digest);
                self.after(index);
                for peer in self.all().filter(|peer| *peer != index) {
                    self.connect(index, peer);
                    self.connect(peer, index);
                }
            }
            Err(error) => {
                self.counts.refused += 1;
                let text = format!("n{} does not start: {error}", index + 1);
                self.mark("fault", || format!("n{} refuses to start", index + 1));
                self.clients.note(self.now, &text);
                self.show(&Event::Note { text });
                self.show_state(index);
            }
        }
    }

    /// Makes a connection if both ends run and nothing is in the way.
    pub(crate) fn connect(&mut self, from: u8, to: u8) {
        let up = |index: u8| self.members[usize::from(index)].is_up();
        let possible = up(from) && up(to);
        self.network.connect(self.now, from, to, possible, &mut self.queue);
    }

    /// Stops a member at once.
    pub(crate) fn crash(&mut self, index: u8) {
        self.counts.crashes += 1;
        let report = self.members[usize::from(index)].crash(self.script, index);
        self.note_digest(5, u64::from(report.kept) << 32 | u64::from(report.lost), report.torn.into());
        self.network.on_crash(self.now, index, &mut self.queue);
        for operation in self.clients.open_at(index) {
            self.end_operation(operation, Ending::Unknown("connection lost"));
            if let Who::Client(client) = self.clients.operations[operation as usize].who {
                self.client_is_free(client, operation);
            }
        }
        let sector = crate::disk::SECTOR_BYTES as u64;
        if report.lost > 0 {
            self.show(&Event::Disk { n: member(index), op: "lost", bytes: u64::from(report.lost) * sector });
        }
        if report.torn > 0 {
            self.show(&Event::Disk { n: member(index), op: "torn", bytes: u64::from(report.torn) * sector });
        }
        self.show_state(index);
    }

    /// Hands an input to a member, or keeps it while the member is paused.
    pub(crate) fn feed(&mut self, index: u8, input: Input<P, Machine>) {
        let member = &mut self.members[usize::from(index)];
        if member.paused {
            member.inbox.push_back(input);
            return;
        }
        let Some(node) = &mut member.node else { return };
        let now = member.clock.at(self.now);
        node.step(now, input, &mut self.outbox);
        node.flush(now, &mut self.outbox);
        self.after(index);
    }

    /// A member goes on after a pause: what waited is handed over as one batch.
    pub(crate) fn resume(&mut self, index: u8) {
        let member = &mut self.members[usize::from(index)];
        member.paused = false;
        let Some(node) = &mut member.node else { return };
        let now = member.clock.at(self.now);
        while let Some(input) = member.inbox.pop_front() {
            node.step(now, input, &mut self.outbox);
        }
        node.flush(now, &mut self.outbox);
        self.after(index);
    }

    /// Carries out what a member wants, looks at what it has become, and sets its timer.
    fn after(&mut self, index: u8) {
        let at = usize::from(index);
        // Most steps leave most of the outbox empty, and this is done after each of them.
        if !self.outbox.disk.is_empty() {
            let mut disk = std::mem::take(&mut self.outbox.disk);
            disk.drain(..).for_each(|command| self.issue(index, command));
            self.outbox.disk = disk;
        }
        if !self.outbox.persists.is_empty() {
            let mut persists = std::mem::take(&mut self.outbox.persists);
            persists.drain(..).for_each(|ticket| self.persist(index, ticket));
            self.outbox.persists = persists;
        }
        if !self.outbox.sends.is_empty() {
            let mut sends = std::mem::take(&mut self.outbox.sends);
            sends.drain(..).for_each(|sent| self.send(index, sent));
            self.outbox.sends = sends;
        }
        let node = self.members[at].node.as_ref().expect("it has just made a step");
        let status = node.status();
        self.checkers.observe(self.now, index, node.process(), &status.log);
        let mut fatal = None;
        if !self.outbox.notices.is_empty() {
            let mut notices = std::mem::take(&mut self.outbox.notices);
            fatal = self.heed(index, &mut notices, &status.log);
            self.outbox.notices = notices;
        }
        let node = self.members[at].node.as_ref().expect("it has just made a step");
        let digest = node.machine().store().map().digest();
        self.checkers.on_state(self.now, index, status.applied.0, digest);
        if !self.outbox.replies.is_empty() {
            let mut replies = std::mem::take(&mut self.outbox.replies);
            replies.drain(..).for_each(|reply| self.on_reply(index, reply));
            self.outbox.replies = replies;
        }
        self.look_for_leader(index, status.log.role, status.log.epoch.0);
        self.report_violations();
        if let Some(why) = fatal {
            let text = format!("n{} stops: {why}", index + 1);
            self.mark("crash", || format!("n{} stops", index + 1));
            self.show(&Event::Note { text });
            self.crash(index);
            return;
        }
        self.set_timer(index);
        if self.shows {
            self.show_state(index);
        }
    }

    /// Takes note of what a member says about itself; why it cannot go on, if it says so.
    fn heed(&mut self, index: u8, notices: &mut Vec<Notice>, status: &LogStatus) -> Option<String> {
        // What is committed is judged by who counts by now.
        for notice in &*notices {
            if let Notice::Members(members) = notice {
                self.checkers.on_members(index, members);
            }
        }
        let mut fatal = None;
        for notice in notices.drain(..) {
            match notice {
                Notice::Committed(entries) => {
                    self.checkers.on_committed(self.now, index, &entries, status);
                    self.counts.applied += entries.len() as u64;
                    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { continue };
                    self.note_digest(6, index.into(), last.index.0);
                    self.show(&Event::Commit { n: member(index), from: first.index.0, to: last.index.0 });
                }
                Notice::Fatal(why) => fatal = Some(why),
                Notice::DiskFull => self.show(&Event::Disk { n: member(index), op: "full", bytes: 0 }),
                Notice::Installed { point, .. } => {
                    self.checkers.on_installed(index, point.index.0);
                    self.mark("snapshot", || format!("n{} has got a snapshot", index + 1));
                }
                Notice::Damaged(what) => {
                    self.mark("fault", || format!("n{} finds damage", index + 1));
                    self.show(&Event::Note { text: format!("n{}: {what}", index + 1) });
                }
                Notice::SnapshotRefused { from, why } => {
                    self.show(&Event::Note {
                        text: format!("n{} refuses a snapshot of {from}: {why}", index + 1),
                    });
                }
                Notice::Role { .. } | Notice::DiskCleared | Notice::Members(_) => {}
            }
        }
        fatal
    }

    fn look_for_leader(&mut self, index: u8, role: Role, epoch: u64) {
        if self.checkers.elections > self.counts.elections {
            self.counts.elections = self.checkers.elections;
            debug_assert_eq!(role, Role::Leader);
            self.mark("leader", || format!("n{} leads {}", index + 1, show::epoch_words(P::NAME, epoch)));
        }
    }

    pub(crate) fn set_timer(&mut self, index: u8) {
        let member = &mut self.members[usize::from(index)];
        let Some(node) = &member.node else { return };
        member.due = node.deadline();
        let Some(deadline) = member.due else { return };
        let at = member.clock.when(deadline).max(self.now);
        // A timer that comes too early looks again when it comes: members move their deadlines far
        // more often than they let them pass.
        if at < member.timer_at {
            member.timer_at = at;
            self.queue.push(at, Due::Timer { member: index });
        }
    }

    fn on_timer(&mut self, index: u8) {
        let member = &mut self.members[usize::from(index)];
        if member.timer_at != self.now {
            return;
        }
        member.timer_at = NEVER;
        if member.paused || !member.is_up() {
            return;
        }
        let Some(deadline) = member.due else { return };
        if deadline <= member.clock.at(self.now) {
            self.note_digest(7, index.into(), 0);
            self.note_spin(index);
            self.show(&Event::Timeout { n: script::Member(index + 1) });
            self.feed(index, Input::Timeout);
        } else {
            let at = member.clock.when(deadline).max(self.now);
            member.timer_at = at;
            self.queue.push(at, Due::Timer { member: index });
        }
    }

    /// A deadline that stays in the past however often its timeout is delivered keeps a real
    /// member's processor busy for nothing.
    fn note_spin(&mut self, index: u8) {
        let member = &mut self.members[usize::from(index)];
        let (at, count) = &mut member.spins;
        if *at != self.now {
            (*at, *count) = (self.now, 0);
        }
        *count += 1;
        if *count == SPINS_MAX {
            let described =
                member.node.as_ref().map(|node| node.process().describe(member.clock.at(self.now)));
            let detail = format!(
                "n{}'s deadline does not move although its timeout was delivered {SPINS_MAX} times: {:?}",
                index + 1,
                described.unwrap_or_default()
            );
            self.checkers.violation(self.now, "timeouts are used up", detail);
            self.report_violations();
            self.halted = true;
        }
    }

    // Showing.

    pub(crate) fn note_digest(&mut self, what: u64, a: u64, b: u64) {
        self.digest.word(self.now << 4 ^ what);
        self.digest.word(a);
        self.digest.word(b);
    }

    pub(crate) fn show(&mut self, event: &Event<'_>) {
        if self.shows {
            self.sink.event(self.now, event);
        }
    }

    pub(crate) fn mark(&mut self, kind: &'static str, label: impl FnOnce() -> String) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push(Mark { t: self.now, label: label(), kind });
        }
    }

    #[inline]
    fn report_violations(&mut self) {
        while self.reported < self.checkers.violations.len() {
            let violation = self.checkers.violations[self.reported].clone();
            self.reported += 1;
            self.mark("violation", || format!("{} is broken", violation.promise));
            self.show(&Event::Violation { promise: violation.promise, detail: &violation.detail });
        }
    }
}

/// A member as scripts and traces name it.
pub(crate) fn member(index: u8) -> script::Member {
    script::Member(index + 1)
}
