//! One running member: its node, and everything that feeds and obeys it.
//!
//! All of it lives on one thread. Tasks read sockets and leave what they read in the inbox; one task, the *turn*, takes
//! everything that is there, steps the node through it, flushes once, and carries out what the node wants: disk
//! commands to the disk's thread, frames to peers in one write each, answers into the clients' connections, which go
//! out when those connections' own tasks run next. A turn that finds more has a larger batch; that is all the batching
//! there is.

use crate::applied::Applied;
use crate::calls::Calls;
use crate::clock;
use crate::config::Config;
use crate::disk::DiskThread;
use crate::error::Error;
use crate::events::Events;
use crate::frame::{Hello, Kind};
use crate::members::Members;
use crate::peers::{Connection, FaultChange, Link};
use crate::recorder::Recorder;
use crate::service::Service;
use crate::weak::{self as weak_host, Weak};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::SpaceId;
use synod_node::{DiskReply, Input, Node, NodeStatus, Notice, Outbox, PeerMessage, Request, StateMachine};
use synod_protocols::log::{ReplicatedLog, Role, Ticket};
use synod_protocols::weak;
use synod_protocols::{Incarnation, LinkSession, NodeId, Time, Wire};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// What clients of a service ask.
pub(crate) type QueryOf<S> = <<S as Service>::Machine as StateMachine>::Query;

/// How long the same line about the same peer stays unsaid.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// When nothing wants a timeout, the turn looks around this often.
const IDLE: Duration = Duration::from_secs(3600);

/// What the tasks leave for the next turn.
pub(crate) enum Event<P: ReplicatedLog, S: Service = Calls> {
    /// A message from a peer.
    Peer {
        peer: NodeId,
        /// The connection that it came by: what an old one still delivers is dropped.
        connection: u64,
        /// The sender has shown it to its watchers.
        shown: bool,
        /// Its length.
        bytes: usize,
        message: PeerMessage<P::Message>,
    },
    /// The two sides of a new connection know each other.
    LinkUp { peer: NodeId, connection: Connection },
    /// A connection has ended, perhaps for a reason worth a line.
    LinkDown { peer: NodeId, connection: u64, why: Option<String> },
    /// The kernel takes more for a peer.
    Writable { peer: NodeId, connection: u64 },
    /// A client asks something.
    Client { ticket: Ticket, request: Request<QueryOf<S>> },
    /// The state is durable as far as was asked for, or cannot be made so.
    Persisted { ticket: Ticket, result: Result<(), String> },
    /// What is done to a link on purpose.
    Fault { peer: NodeId, change: FaultChange },
    /// A message from a peer to the replica of a weak keyspace.
    WeakPeer {
        peer: NodeId,
        connection: u64,
        shown: bool,
        bytes: usize,
        space: SpaceId,
        message: weak::Message,
    },
    /// Somebody asks the replica of a weak keyspace.
    Weak { space: SpaceId, request: weak::Request },
    /// The wall clock is taken to be ahead by so many milliseconds, on purpose.
    ClockAhead(i64),
}

/// What the storing thread says when the state is durable.
pub(crate) type Persisted = (Ticket, Result<(), String>);

/// Figures of this life.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: Cell<u64>,
    pub(crate) inputs: Cell<u64>,
    /// The longest turn.
    pub(crate) turn_micros_max: Cell<u64>,
    /// What the disk took: together, and for the slowest of its commands.
    pub(crate) disk_micros: Cell<u64>,
    pub(crate) disk_micros_max: Cell<u64>,
    pub(crate) client_connections: Cell<u64>,
    pub(crate) elections: Cell<u64>,
    pub(crate) leader_changes: Cell<u64>,
    /// Transactions that have ended otherwise at a participant than their coordinators decided.
    pub(crate) heuristic_damage: Cell<u64>,
}

pub(crate) fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

fn raise(most: &Cell<u64>, value: u64) {
    most.set(most.get().max(value));
}

/// A member and all that its tasks share. What it serves is the etcd store unless something else is said.
pub(crate) struct Member<P: ReplicatedLog, S: Service = Calls> {
    pub(crate) config: Config,
    pub(crate) id: NodeId,
    inbox: RefCell<Vec<Event<P, S>>>,
    wake: Notify,
    pub(crate) core: RefCell<Core<P, S>>,
    /// Who waits for an answer.
    pub(crate) calls: RefCell<S>,
    pub(crate) counters: Counters,
    /// Who waits for the log to be applied further.
    pub(crate) applied: Applied,
    connections: Cell<u64>,
    incarnation: Incarnation,
    said: RefCell<BTreeMap<(NodeId, String), Time>>,
    log: Box<dyn Fn(&str)>,
    stopping: Cell<bool>,
}

/// What only a turn changes.
pub(crate) struct Core<P: ReplicatedLog, S: Service = Calls> {
    pub(crate) node: Node<P, S::Machine>,
    pub(crate) links: BTreeMap<NodeId, Link>,
    pub(crate) members: Members,
    pub(crate) events: Events,
    pub(crate) weak: Weak,
    outbox: Outbox<P, S::Machine>,
    disk: DiskThread,
    recorder: Option<Recorder>,
    sessions: u64,
}

impl<P: ReplicatedLog + 'static, S: Service> Member<P, S> {
    pub(crate) fn new(
        config: Config,
        calls: S,
        (node, outbox): (Node<P, S::Machine>, Outbox<P, S::Machine>),
        disk: DiskThread,
        weak: Weak,
        recorder: Option<Recorder>,
        log: Box<dyn Fn(&str)>,
    ) -> Rc<Self> {
        let id = config.id();
        let incarnation = node.status().incarnation;
        let events = Events::new(id);
        let members = Members::new(&config);
        let core =
            Core { node, links: BTreeMap::new(), members, events, weak, outbox, disk, recorder, sessions: 0 };
        Rc::new(Member {
            calls: RefCell::new(calls),
            config,
            id,
            inbox: RefCell::default(),
            wake: Notify::new(),
            core: RefCell::new(core),
            counters: Counters::default(),
            applied: Applied::default(),
            connections: Cell::new(0),
            incarnation,
            said: RefCell::default(),
            log,
            stopping: Cell::new(false),
        })
    }

    /// Leaves something for the next turn.
    pub(crate) fn tell(&self, event: Event<P, S>) {
        let mut inbox = self.inbox.borrow_mut();
        if inbox.is_empty() {
            self.wake.notify_one();
        }
        inbox.push(event);
    }

    /// Asks for a turn though nothing was left for it.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Says a line.
    pub(crate) fn log(&self, line: &str) {
        (self.log)(line);
    }

    /// Says a line about a peer, unless it was said a moment ago.
    pub(crate) fn log_once(&self, peer: NodeId, line: String) {
        let now = clock::now();
        let mut said = self.said.borrow_mut();
        said.retain(|_, when| now.since(*when) < LOG_AGAIN_AFTER);
        let key = (peer, line);
        // A stranger that varies its lines must not fill memory.
        if said.len() < 1000 && !said.contains_key(&key) {
            self.log(&key.1);
            said.insert(key, now);
        }
    }

    pub(crate) fn next_connection(&self) -> u64 {
        add(&self.connections, 1);
        self.connections.get()
    }

    /// What this member says of itself; `to` and `connection` are the caller's.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            cluster: self.config.cluster_id().0,
            cluster_name: self.config.cluster.clone(),
            from: self.id,
            to: NodeId::default(),
            incarnation: self.incarnation,
            connection: 0,
            protocol: P::NAME.to_owned(),
            members: self.config.ids(),
            clients: S::clients_at(&self.config).unwrap_or_default(),
        }
    }

    /// Remembers the life in which a peer was met. One that has fewer lives behind it than before has lost its disk:
    /// it may have forgotten votes and acknowledged entries, and must not be counted.
    pub(crate) fn meet(&self, theirs: &Hello) -> Result<(), String> {
        let mut core = self.core.borrow_mut();
        let Some(link) = core.links.get_mut(&theirs.from) else { return Err("unknown".to_owned()) };
        if theirs.incarnation < link.incarnation {
            return Err(format!(
                "{} comes back in life {} after life {}: it lost its disk. Restore its data directory; without it, it \
                 could undo what it voted for and acknowledged",
                theirs.from, theirs.incarnation.0, link.incarnation.0
            ));
        }
        link.incarnation = theirs.incarnation;
        link.clients = Some(theirs.clients.clone()).filter(|address| !address.is_empty());
        Ok(())
    }

    /// Whether this is another member, as far as this one knows.
    pub(crate) fn knows(&self, peer: NodeId) -> bool {
        self.core.borrow().links.contains_key(&peer)
    }

    /// Begins to look for those whom the configuration names.
    pub(crate) fn look_for_peers(self: &Rc<Self>) {
        let mut core = self.core.borrow_mut();
        let known = self.config.known().filter_map(|member| crate::config::parse_name(&member.name).ok());
        for peer in known.filter(|peer| *peer != self.id) {
            self.keep_link(&mut core, peer);
        }
    }

    pub(crate) fn is_blocked(&self, peer: NodeId) -> bool {
        self.core.borrow().links.get(&peer).is_some_and(|link| link.fault.block_in || link.fault.block_out)
    }

    pub(crate) fn status(&self) -> NodeStatus {
        self.core.borrow().node.status()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Runs turns until asked to stop, or until the member must.
    pub(crate) async fn run(
        self: &Rc<Self>,
        mut disk: mpsc::UnboundedReceiver<(DiskReply, Duration)>,
        mut persisted: mpsc::UnboundedReceiver<Persisted>,
        mut weak_disk: mpsc::UnboundedReceiver<weak_host::Replied>,
        stop: &Notify,
    ) -> Result<(), Error> {
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        let mut armed = Time::ZERO;
        let mut replies = Vec::new();
        self.turn(&mut replies)?;
        loop {
            let now = clock::now();
            let wanted = self.next_deadline().unwrap_or(now + IDLE);
            // A timer that rings too early is cheaper than one that is set anew each turn.
            if wanted < armed || armed <= now {
                armed = wanted;
                sleep.as_mut().reset(Instant::now() + wanted.since(now));
            }
            tokio::select! {
                biased;
                () = stop.notified() => return Ok(()),
                reply = disk.recv() => match reply {
                    Some((reply, took)) => {
                        self.disk_took(took);
                        replies.push(reply);
                    }
                    None => return Err(Error::Fatal("the disk's thread ended: see the lines above".to_owned())),
                },
                () = self.wake.notified() => {}
                // Its sending end is the member's own.
                Some(reply) = weak_disk.recv() => self.core.borrow_mut().weak.on_disk(clock::now(), reply),
                done = persisted.recv() => match done {
                    Some((ticket, result)) => self.tell(Event::Persisted { ticket, result }),
                    None => return Err(Error::Fatal("the thread that stores the state ended: see the lines above".to_owned())),
                },
                () = &mut sleep => {
                    armed = Time::ZERO;
                    // Sockets before timers: after a stall what arrived meanwhile may well be what the timer waited
                    // for. Twice, because the first pass finds the sockets ready and the second has read them.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                }
            }
            while let Ok((reply, took)) = disk.try_recv() {
                self.disk_took(took);
                replies.push(reply);
            }
            while let Ok(reply) = weak_disk.try_recv() {
                self.core.borrow_mut().weak.on_disk(clock::now(), reply);
            }
            self.turn(&mut replies)?;
        }
    }

    fn disk_took(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        add(&self.counters.disk_micros, micros);
        raise(&self.counters.disk_micros_max, micros);
        if took > self.config.election_timeout {
            self.log_once(self.id, format!(
                "the disk took longer than the election timeout of {:?} for one write: a leader gives up its office then. If \
                 this happens again, use a faster disk or a longer election-timeout",
                self.config.election_timeout
            ));
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        let core = self.core.borrow();
        let links = core.links.values().filter_map(Link::due);
        let own = [
            core.node.deadline(),
            self.calls.borrow().deadline(),
            core.events.deadline(),
            core.members.deadline(),
            core.weak.deadline(),
        ];
        own.into_iter().flatten().chain(links).min()
    }

    fn turn(self: &Rc<Self>, disk: &mut Vec<DiskReply>) -> Result<(), Error> {
        let now = clock::now();
        let inbox = std::mem::take(&mut *self.inbox.borrow_mut());
        add(&self.counters.turns, 1);
        add(&self.counters.inputs, (inbox.len() + disk.len()) as u64);
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        for reply in disk.drain(..) {
            core.node.step(now, Input::Disk(reply), &mut core.outbox);
        }
        for event in inbox {
            self.take(core, now, event);
        }
        if core.node.deadline().is_some_and(|deadline| deadline <= now) {
            core.node.step(now, Input::Timeout, &mut core.outbox);
        }
        // What was read under a lease may be told only if the lease holds now.
        let flushed = if self.config.lease_reads { clock::now() } else { now };
        core.node.flush(flushed, &mut core.outbox);
        self.end_leaving(core, now);
        if core.members.is_gone(now) {
            let (name, path) = (self.config.name.clone(), self.config.data_dir.clone());
            return Err(Error::Removed { name, path });
        }
        self.calls.borrow_mut().expire(now);
        S::turned(self, core, now)?;
        core.weak.flush(now, &mut core.events)?;
        self.carry_out(core, now)?;
        self.applied.reach(core.node.status().applied);
        raise(&self.counters.turn_micros_max, clock::now().since(now).as_micros() as u64);
        Ok(())
    }

    fn take(self: &Rc<Self>, core: &mut Core<P, S>, now: Time, event: Event<P, S>) {
        match event {
            Event::Client { ticket, request } => {
                core.node.step(now, Input::Client { ticket, request }, &mut core.outbox);
            }
            Event::Peer { peer, connection, shown, bytes, message } => {
                if arrives(core, now, (peer, connection), shown, bytes) {
                    core.node.step(now, Input::Peer { from: peer, message }, &mut core.outbox);
                }
            }
            Event::WeakPeer { peer, connection, shown, bytes, space, message } => {
                if arrives(core, now, (peer, connection), shown, bytes) {
                    core.weak.message(now, peer, space, message);
                }
            }
            Event::Weak { space, request } => core.weak.request(now, space, request),
            Event::ClockAhead(millis) => core.weak.set_clock_ahead(millis),
            Event::LinkUp { peer, mut connection } => {
                self.disconnect(core, now, peer, None);
                let Some(link) = core.links.get_mut(&peer) else { return };
                self.start_reading(peer, &mut connection);
                link.connect(Some(connection));
                core.sessions += 1;
                let session = LinkSession(core.sessions);
                core.node.step(now, Input::LinkUp { peer, session }, &mut core.outbox);
                core.weak.link_up(now, peer, session);
                core.events.note(now, &format!("connected to {peer}"));
            }
            Event::LinkDown { peer, connection, why } => {
                let current = core.links.get(&peer).and_then(|link| link.connection.as_ref());
                if current.is_some_and(|current| current.number == connection) {
                    self.disconnect(core, now, peer, why);
                }
            }
            Event::Writable { peer, connection } => {
                if let Some(link) = core.links.get_mut(&peer)
                    && link.connection.as_ref().is_some_and(|current| current.number == connection)
                {
                    link.unstick();
                }
            }
            Event::Persisted { ticket, result } => {
                core.node.step(now, Input::Persisted { ticket, result }, &mut core.outbox);
            }
            Event::Fault { peer, change } => {
                let Some(link) = core.links.get_mut(&peer) else { return };
                let (before, fault) = (link.fault, link.fault.after(change));
                link.fault = fault;
                core.events.link_fault(now, peer, before, fault);
                // What was dropped meanwhile leaves a gap, and a session has none: begin another.
                if (before.block_in && !fault.block_in) || (before.block_out && !fault.block_out) {
                    self.disconnect(core, now, peer, None);
                }
            }
        }
    }

    pub(crate) fn disconnect(&self, core: &mut Core<P, S>, now: Time, peer: NodeId, why: Option<String>) {
        let Some(link) = core.links.get_mut(&peer) else { return };
        if link.connection.is_none() {
            return;
        }
        if let Some(why) = why {
            self.log_once(peer, format!("closed the connection with {peer}: {why}"));
        }
        link.connect(None);
        core.node.step(now, Input::LinkDown { peer }, &mut core.outbox);
        core.weak.link_down(now, peer);
        core.events.note(now, &format!("lost the connection to {peer}"));
    }

    /// Does what the node wants, in the order of the outbox's fields.
    fn carry_out(self: &Rc<Self>, core: &mut Core<P, S>, now: Time) -> Result<(), Error> {
        for command in core.outbox.disk.drain(..) {
            core.disk.submit(command);
        }
        // The machine has begun by itself, and its thread says when it is done.
        core.outbox.persists.clear();
        for sent in core.outbox.sends.drain(..) {
            let Some(link) = core.links.get_mut(&sent.to) else { continue };
            let kind = if core.events.shows(now, link, &sent) { Kind::Shown } else { Kind::Message };
            link.send(now, kind, |out| sent.message.encode(out));
        }
        let mut lost = Vec::new();
        for (peer, link) in &mut core.links {
            core.weak.fill(now, link, &mut core.events);
            if let Err(error) = link.flush(now, self) {
                lost.push((*peer, error.to_string()));
            } else if core.weak.waits_for(*peer) && link.held_bytes() == 0 {
                // The kernel has taken all that there was.
                self.wake();
            }
        }
        if !core.outbox.replies.is_empty() {
            let replies = std::mem::take(&mut core.outbox.replies);
            S::answer(self, core, replies);
        }
        let notices = std::mem::take(&mut core.outbox.notices);
        for notice in notices {
            self.notice(core, now, notice)?;
        }
        for line in core.weak.take_lines() {
            self.log_once(self.id, line);
        }
        if let Some(recorder) = &mut core.recorder
            && let Some(line) = recorder.record(&mut core.outbox.tape)
        {
            self.log(&line);
        }
        core.outbox.tape.clear();
        core.events.state::<P, S>(now, &core.node);
        for (peer, why) in lost {
            // Told as an event, so that the node's step comes in the next turn, in its order.
            let number = core.links.get(&peer).and_then(|link| link.connection.as_ref()).map(|c| c.number);
            if let Some(connection) = number {
                self.tell(Event::LinkDown { peer, connection, why: Some(why) });
            }
        }
        Ok(())
    }

    fn notice(self: &Rc<Self>, core: &mut Core<P, S>, now: Time, notice: Notice) -> Result<(), Error> {
        match notice {
            Notice::Role { role, epoch, leader } => {
                self.calls.borrow_mut().standing(role, epoch, leader);
                match role {
                    Role::Leader => {
                        add(&self.counters.leader_changes, 1);
                        self.log(&format!("leads in term {}", epoch.0));
                    }
                    Role::Candidate => add(&self.counters.elections, 1),
                    Role::Follower => {
                        if let Some(leader) = leader {
                            add(&self.counters.leader_changes, 1);
                            self.log(&format!("follows {leader} in term {}", epoch.0));
                        }
                    }
                    Role::Learner | Role::Abstaining => self.log(&format!("takes part as {role:?}")),
                }
                Ok(())
            }
            Notice::Committed(entries) => {
                core.events.committed(now, &entries);
                Ok(())
            }
            Notice::Members(members) => {
                self.on_members(core, now, members);
                Ok(())
            }
            Notice::Installed { from, point } => {
                let line =
                    format!("the state was fetched from {from}: it covers the log up to {}", point.index);
                self.log(&line);
                core.events.note(now, &line);
                Ok(())
            }
            Notice::SnapshotRefused { from, why } => {
                self.log_once(from, format!("a snapshot of {from} is fetched again: {why}"));
                Ok(())
            }
            Notice::Damaged(what) => {
                self.log(&format!(
                    "{what}. This member does not vote before it has fetched what is lost from the others. If it goes \
                     on abstaining, because its vote may be lost too, replace it: add a new member and remove this one. \
                     A disk that loses what it was given should be replaced in any case"
                ));
                core.events.note(now, "records of the log are damaged");
                Ok(())
            }
            Notice::DiskFull => {
                self.log(
                    "the disk is full: writes are refused until there is room; free some on its file system",
                );
                core.events.disk(now, "full");
                Ok(())
            }
            Notice::DiskCleared => {
                self.log("the disk has room again: writes are accepted");
                core.events.disk(now, "clear");
                Ok(())
            }
            Notice::Fatal(why) => Err(Error::Fatal(why)),
        }
    }

    /// Tells every waiting client that the member stops.
    pub(crate) fn wind_up(&self) {
        self.stopping.set(true);
        self.calls.borrow_mut().stop();
        self.core.borrow_mut().weak.stop();
    }
}

/// Whether what a peer has sent is heard: not by a connection that is no more, nor by a link that is blocked. Watchers are told of
/// what is `shown`, and its bytes are counted.
fn arrives<P: ReplicatedLog + 'static, S: Service>(
    core: &mut Core<P, S>,
    now: Time,
    (peer, connection): (NodeId, u64),
    shown: bool,
    bytes: usize,
) -> bool {
    let Some(link) = core.links.get_mut(&peer) else { return false };
    let Some(current) = link.connection.as_ref().filter(|current| current.number == connection) else {
        return false;
    };
    let (key, is_heard) = (current.key, !link.fault.block_in);
    link.bytes_received += bytes as u64;
    link.shown.1 += u64::from(shown);
    if shown && is_heard {
        core.events.received(now, peer, key, link.shown.1);
    }
    is_heard
}
