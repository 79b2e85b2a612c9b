//! The world: virtual time, members, network, clients, and what is checked after every step.
//!
//! It takes the next thing that is due, hands it to whom it concerns, carries out what they want,
//! and looks whether all promises still hold. Nothing in it depends on anything but the script.

use crate::checkers::Checkers;
use crate::clients::{Clients, Ending, Machine, Who};
use crate::dice::{Place, dice, draw};
use crate::event::{Event, Mark, Sink};
use crate::member::{Member, NEVER};
use crate::network::{Arrival, Fate, Network};
use crate::outcome::{Counts, Linearizable, Outcome, Verdict};
use crate::queue::{Due, Queue};
use crate::script::{self, Script};
use crate::show;
use std::hash::Hasher;
use synod_check::linearizable::{self, Limits};
use synod_check::model::KeyValue;
use synod_node::{DiskCommand, Input, Notice, Outbox, PeerMessage, PeerSend};
use synod_protocols::log::{ReplicatedLog, Role, Ticket};
use synod_protocols::{Describe, Fingerprint, LinkSession, NodeId, Wire};

/// Marks that an outcome keeps at most.
pub const MARKS_MAX: usize = 10_000;
/// A write that need not be synced takes this long, in nanoseconds.
const WRITE_NANOS: u64 = 50_000;
/// Election timeouts that a client waits for an answer, or the probe for its write.
const CLIENT_ELECTIONS: u64 = 15;
/// Timeouts of one member at one virtual time at most.
const SPINS_MAX: u32 = 100;
/// What judging a history may cost.
const JUDGE: Limits = Limits {
    configurations_max: 2_000_000,
    bytes_max: 256 << 20,
    minimise_configurations_max: 100_000,
    threads_max: 1,
};

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

/// How the promise of progress stands.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When it begins, and when it is due.
    from: u64,
    due: u64,
    /// The write under way, and how many were tried.
    probe: Option<u32>,
    tries: u64,
    /// What was committed when the write was done: everybody must catch up with that.
    shown: Option<u64>,
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
            members: (0..script.nodes).map(|index| Member::new(script, index)).collect(),
            clients: Clients::new(script),
            checkers: Checkers::new(script.nodes),
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
            self.progress = Progress { from: from.0, due: due.0, ..Progress::default() };
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
            Due::Probe => self.on_probe(),
        }
    }

    // Members.

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
                for peer in (0..self.script.nodes).filter(|peer| *peer != index) {
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
        let mut outbox = std::mem::take(&mut self.outbox);
        for command in outbox.disk.drain(..) {
            self.issue(index, command);
        }
        for ticket in outbox.persists.drain(..) {
            self.persist(index, ticket);
        }
        for sent in outbox.sends.drain(..) {
            self.send(index, sent);
        }
        let node = self.members[at].node.as_ref().expect("it has just made a step");
        let status = node.status();
        self.checkers.observe(self.now, index, node.process(), &status.log);
        let mut fatal = None;
        for notice in outbox.notices.drain(..) {
            match notice {
                Notice::Committed(entries) => {
                    self.checkers.on_committed(self.now, index, &entries, &status.log);
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
        let node = self.members[at].node.as_ref().expect("it has just made a step");
        let digest = node.machine().store().map().digest();
        self.checkers.on_state(self.now, index, status.applied.0, digest);
        for reply in outbox.replies.drain(..) {
            self.on_reply(index, reply);
        }
        self.outbox = outbox;
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
        let Some(deadline) = node.deadline() else { return };
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
        if member.paused {
            return;
        }
        let due = member
            .node
            .as_ref()
            .and_then(|node| node.deadline())
            .is_some_and(|at| at <= member.clock.at(self.now));
        if due {
            self.note_digest(7, index.into(), 0);
            self.note_spin(index);
            self.show(&Event::Timeout { n: script::Member(index + 1) });
            self.feed(index, Input::Timeout);
        } else {
            self.set_timer(index);
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

    // Network.

    fn send(&mut self, from: u8, PeerSend { to, message, early }: PeerSend<P::Message>) {
        let to = (to.0 - 1) as u8;
        self.scratch.clear();
        message.encode(&mut self.scratch);
        self.counts.messages += 1;
        let bytes = self.scratch.len() as u64;
        self.counts.bytes += bytes;
        let mut digest = std::mem::take(&mut self.digest);
        digest.word(u64::from(from) << 8 | u64::from(to));
        digest.write(&self.scratch);
        self.digest = digest;
        let words = self.shows.then(|| (message.name(), message.detail()));
        let (number, fate, copy) = self.network.send(self.now, from, to, message, &mut self.queue);
        self.counts.lost += u64::from(matches!(fate, Fate::Lost(_)));
        if let Some((name, detail)) = words {
            let mut show = |m: u64, copy_of: Option<u64>, fate: Fate| {
                let (at, lost) = match fate {
                    Fate::Arrives(at) => (Some(at), None),
                    Fate::Lost(why) => (None, Some(why)),
                };
                let (from, to, detail) = (member(from), member(to), detail.clone());
                let sent = Event::Send { m, copy_of, from, to, name, detail, bytes, early, at, lost };
                self.sink.event(self.now, &sent);
            };
            show(number, None, fate);
            if let Some((copy, fate)) = copy {
                show(copy, Some(number), fate);
            }
        }
    }

    fn on_arrival(&mut self, slot: u32) {
        match self.network.arrive(self.now, slot, &mut self.queue) {
            Arrival::Nothing => {}
            Arrival::Lost { number, why } => self.on_lost(number, why),
            Arrival::Message(flying) if self.members[usize::from(flying.to)].is_up() => {
                self.note_digest(8, flying.number, 0);
                self.show(&Event::Recv { m: flying.number });
                let from = NodeId(u64::from(flying.from) + 1);
                self.feed(flying.to, Input::Peer { from, message: flying.message });
            }
            Arrival::Message(flying) => self.on_lost(flying.number, "receiver down"),
        }
    }

    pub(crate) fn on_lost(&mut self, number: u64, why: &'static str) {
        self.counts.lost += 1;
        self.note_digest(9, number, 0);
        self.show(&Event::Drop { m: number, why });
    }

    // Disks.

    fn issue(&mut self, index: u8, command: DiskCommand) {
        let bytes = match &command {
            DiskCommand::Append { bytes, sync, .. } => Some((bytes.len() as u64, *sync)),
            DiskCommand::Read { .. } | DiskCommand::Remove { .. } => None,
        };
        let mut records = Vec::new();
        let shows = self.shows;
        let at = &mut self.members[usize::from(index)];
        let (slot, last) = at.issue(command, |record| {
            if shows {
                records.push((record.name(), record.detail()));
            }
        });
        let mut rng = dice(self.script.seed, Place::Sync, index.into(), 0, at.io_count);
        let takes = match bytes {
            Some((_, false)) => WRITE_NANOS,
            _ => draw(self.script.disk, &mut rng),
        };
        let done = self.now.max(at.stalled_until) + takes;
        self.queue.push(done, Due::Disk { member: index, life: at.life, slot });
        if let Some(last) = last {
            self.checkers.on_writing(index, last);
        }
        if shows {
            let n = member(index);
            for (name, detail) in records {
                self.show(&Event::Record { n, name, detail });
            }
            let (op, bytes) = match bytes {
                Some((bytes, true)) => ("sync-begin", bytes),
                Some((bytes, false)) => ("write", bytes),
                None => ("read", 0),
            };
            self.show(&Event::Disk { n, op, bytes });
        }
    }

    /// Lets a state machine make durable what it holds, which takes about as long as ten syncs.
    fn persist(&mut self, index: u8, ticket: Ticket) {
        let at = &mut self.members[usize::from(index)];
        at.persist_count += 1;
        let mut rng = dice(self.script.seed, Place::Sync, index.into(), 1, at.persist_count);
        let done = self.now.max(at.stalled_until) + 10 * draw(self.script.disk, &mut rng);
        self.queue.push(done, Due::Persisted { member: index, life: at.life, ticket: ticket.0 });
    }

    fn on_disk(&mut self, index: u8, life: u32, slot: u32) {
        let at = &mut self.members[usize::from(index)];
        if at.life != life || !at.is_up() {
            return;
        }
        if at.stalled_until > self.now {
            self.queue.push(at.stalled_until, Due::Disk { member: index, life, slot });
            return;
        }
        let done = at.complete(slot);
        let truly = !at.disk.lies();
        if let Some(bytes) = done.synced {
            self.counts.syncs += 1;
            self.show(&Event::Disk { n: member(index), op: "sync-end", bytes });
        }
        if let Some(last) = done.last {
            self.checkers.on_synced(index, last, truly);
        }
        self.note_digest(10, index.into(), done.synced.unwrap_or(0));
        self.feed(index, Input::Disk(done.reply));
    }

    // Clients.

    fn on_client(&mut self, client: u16) {
        let nodes = self.script.nodes;
        let Some((what, key, wanted)) = self.clients.next(client, nodes) else { return };
        // Who is refused a connection turns to the next member.
        let asked =
            (0..nodes).map(|i| (wanted + i) % nodes).find(|index| self.members[usize::from(*index)].is_up());
        let operation = self.clients.begin(self.now, client, what, key, asked.unwrap_or(wanted));
        let timeout = self.now + CLIENT_ELECTIONS * self.script.election.0;
        self.queue.push(timeout, Due::ClientTimeout { client, operation });
        self.ask(operation, asked.is_some());
    }

    /// Puts an operation that has begun to its member.
    pub(crate) fn ask(&mut self, number: u32, possible: bool) {
        self.counts.operations += 1;
        self.show_operation(number, "invoke", None);
        let index = self.clients.operations[number as usize].member;
        if !possible {
            self.end_operation(number, Ending::Fail("connection refused"));
            if let Who::Client(client) = self.clients.operations[number as usize].who {
                self.client_is_free(client, number);
            }
            return;
        }
        let (ticket, request) = self.clients.request(number);
        self.note_digest(11, index.into(), ticket.0);
        self.feed(index, Input::Client { ticket, request });
    }

    fn on_reply(&mut self, index: u8, reply: synod_node::Reply<Machine>) {
        let number = reply.ticket.0 as u32;
        if let synod_node::Outcome::Applied { index: entry, .. } = &reply.outcome {
            self.checkers.on_acknowledged(self.now, index, entry.0);
        }
        if !self.clients.is_open(number) {
            return;
        }
        let ending = self.clients.judge(number, reply.outcome);
        self.end_operation(number, ending);
        if let Who::Client(client) = self.clients.operations[number as usize].who {
            self.client_is_free(client, number);
        }
    }

    fn end_operation(&mut self, number: u32, ending: Ending) {
        let kind = match &ending {
            Ending::Ok(_) => &mut self.counts.ok,
            Ending::Fail(_) => &mut self.counts.failed,
            Ending::Unknown(_) => &mut self.counts.unknown,
        };
        *kind += 1;
        self.clients.end(self.now, number, &ending);
        let mut digest = std::mem::take(&mut self.digest);
        digest.word(u64::from(number) << 8 | 12);
        if let Ending::Ok(Some(value)) = &ending {
            digest.write(value.as_bytes());
        }
        self.digest = digest;
        match &ending {
            Ending::Ok(value) => self.show_operation(number, "ok", Some((value.as_deref(), None))),
            Ending::Fail(why) => self.show_operation(number, "fail", Some((None, Some(why)))),
            Ending::Unknown(why) => self.show_operation(number, "unknown", Some((None, Some(why)))),
        }
        if self.progress.probe == Some(number) {
            self.progress.probe = None;
            let ok = matches!(ending, Ending::Ok(_));
            if ok && self.now <= self.progress.due {
                self.progress.shown = Some(self.checkers.committed());
            }
        }
    }

    fn client_is_free(&mut self, client: u16, operation: u32) {
        let began = self.clients.began(operation);
        let at = self.clients.next_at(client, began, self.now);
        self.queue.push(at, Due::Client { client });
    }

    /// Tries to write, until it succeeds or the time is over.
    fn on_probe(&mut self) {
        if self.progress.shown.is_some() || self.now > self.progress.due {
            return;
        }
        if let Some(open) = self.progress.probe {
            // It asked somebody who does not answer: somebody else may.
            if self.clients.is_open(open) {
                self.end_operation(open, Ending::Unknown("no answer"));
            }
        }
        self.progress.tries += 1;
        let nodes = self.script.nodes;
        let first = dice(self.script.seed, Place::Probe, 0, 0, 0).below(nodes.into());
        let wanted = ((first + self.progress.tries) % u64::from(nodes)) as u8;
        let is_up = |index: &u8| {
            let member = &self.members[usize::from(*index)];
            member.is_up() && !member.paused
        };
        let asked = (0..nodes).map(|i| (wanted + i) % nodes).find(is_up);
        if let Some(index) = asked {
            let number = self.clients.begin_probe(self.now, index);
            self.progress.probe = Some(number);
            self.ask(number, true);
        }
        // Four members are tried within the shortest promise worth making.
        let again = (self.script.election.0 * 5).min((self.progress.due - self.progress.from) / 4).max(1);
        self.queue.push(self.now + again, Due::Probe);
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

    fn report_violations(&mut self) {
        while let Some(violation) = self.checkers.violations.get(self.reported).cloned() {
            self.reported += 1;
            self.mark("violation", || format!("{} is broken", violation.promise));
            self.show(&Event::Violation { promise: violation.promise, detail: &violation.detail });
        }
    }

    /// Judges the whole run.
    fn finish(mut self) -> Outcome {
        for member in &self.members {
            let status = member.node.as_ref().map(|node| node.status());
            self.counts.steps += member.steps_before + status.map_or(0, |status| status.steps);
            self.counts.disk_bytes += member.bytes_before + status.map_or(0, |status| status.bytes_written);
        }
        self.counts.commits = self.checkers.committed();
        let live = self.judge_progress();
        let mut digest = std::mem::take(&mut self.digest);
        for word in [self.counts.steps, self.counts.commits, self.counts.messages, self.counts.events] {
            digest.word(word);
        }
        let hash = digest.finish();
        let clients = self.clients.names().to_vec();
        let history = self.clients.finish();
        let report = linearizable::check(&KeyValue::of(&history), &history, &JUDGE, &mut || false);
        let report = report.expect("the simulator's clients only use what the model knows");
        let (linearizable, mut detail) = match &report.verdict {
            linearizable::Verdict::Yes(_) => (Linearizable::Yes, report.verdict.to_string()),
            linearizable::Verdict::No(no) => {
                (Linearizable::No, format!("{}\n{}", report.verdict, no.explanation))
            }
            linearizable::Verdict::Unknown(_) => (Linearizable::Unknown, report.verdict.to_string()),
        };
        let violations = self.checkers.violations;
        let broken = violations.iter().filter(|violation| violation.promise != "progress").count();
        let safe = broken == 0 && linearizable != Linearizable::No;
        let kept = match (broken, live) {
            (0, None) => "every promise of safety was kept",
            (0, Some(true)) => "every promise of safety and progress was kept",
            (0, Some(false)) => "safe, but without the progress that was promised",
            _ => "a promise of safety was broken",
        };
        detail = format!("{kept}; the clients' history is {detail}");
        Outcome {
            script: self.script.clone(),
            hash,
            clients,
            counts: self.counts,
            verdict: Verdict { safe, live, violations, linearizable, detail },
            marks: self.marks,
            history,
        }
    }

    fn judge_progress(&mut self) -> Option<bool> {
        self.script.progress?;
        let election = self.script.election;
        let (from, due) =
            (crate::outcome::seconds(self.progress.from), crate::outcome::seconds(self.progress.due));
        let Some(shown) = self.progress.shown else {
            let why = format!("no write succeeded from {from} to {due} (election timeout {election})");
            self.checkers.violation(self.now, "progress", why);
            self.report_violations();
            return Some(false);
        };
        if self.network.cuts().next().is_some() {
            return Some(true);
        }
        let behind = self.members.iter().enumerate().find_map(|(i, member)| {
            let status = member.node.as_ref().filter(|_| !member.paused)?.status();
            let applied = status.applied.0;
            // Who knows that its disk has lost a promise takes no part any more.
            let takes_part = status.log.role != Role::Abstaining;
            (takes_part && applied < shown).then(|| {
                format!("n{} has applied up to {applied}, and {shown} was committed at {from}", i + 1)
            })
        });
        match behind {
            Some(why) => {
                self.checkers.violation(self.now, "progress", why);
                self.report_violations();
                Some(false)
            }
            None => Some(true),
        }
    }
}

/// A member as scripts and traces name it.
pub(crate) fn member(index: u8) -> script::Member {
    script::Member(index + 1)
}
