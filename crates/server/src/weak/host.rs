//! Which weak keyspaces run at this member, and all that happens to them.

use super::disk::{Replied, WeakDisk};
use super::lived::Lived;
use super::queues::Queues;
use super::replica::{Happening, Replica, told_ticket};
use super::roster::Check;
use super::wall::Wall;
use super::{TIMING, WeakError};
use crate::config::Config;
use crate::directory::sync_directory;
use crate::disk::FileDisk;
use crate::error::Error;
use crate::events::Events;
use crate::peers::Link;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;
use synod_node::spaces::{Registry, Space, SpaceId};
use synod_node::{Blank, DiskFault, StartError, WeakNodeConfig, WeakNotice, WeakOutbox};
use synod_protocols::log::Ticket;
use synod_protocols::weak::{self, CausalContext, Event, Limits, Message, Request, Secret};
use synod_protocols::{Incarnation, LinkSession, NodeId, Time};
use tokio::sync::{mpsc, oneshot};

/// Of the member's own requests, which nobody waits for.
pub(super) const NOBODY: Ticket = Ticket(0);
/// The largest segment of a keyspace's log: there may be many keyspaces.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// Bytes of one disk write at the most, unless one step alone is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A log is shortened once so many segments came after the last record of everything.
const SEGMENTS_KEPT: u64 = 2;
/// After how long a keyspace that found no room on the disk is started again.
const RETRY: Duration = Duration::from_secs(1);

/// One keyspace's replica and its figures.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) space: Space,
    pub(super) replica: Replica,
    pub(super) out: WeakOutbox,
    /// Something happened to it since it was last flushed.
    is_touched: bool,
    /// What each peer has said that it has seen.
    pub(super) heard: BTreeMap<NodeId, CausalContext>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) answered: u64,
    pub(super) refused: u64,
}

impl Hosted {
    pub(super) fn step(&mut self, now: Time, happening: Happening) {
        self.is_touched = true;
        self.replica.step(now, happening, &mut self.out);
    }
}

/// Who waits for the answer to a request.
pub(super) struct Waiting {
    pub(super) space: SpaceId,
    pub(super) tell: oneshot::Sender<Result<Event, WeakError>>,
}

/// All weak keyspaces of this member. See [the module](self).
pub(crate) struct Weak {
    config: Config,
    lived: Lived,
    disk: WeakDisk,
    pub(super) hosted: BTreeMap<SpaceId, Hosted>,
    /// The registry's, when the keyspaces were last compared with it.
    generation: u64,
    retry_at: Option<Time>,
    /// The connections that there are.
    links: BTreeMap<NodeId, LinkSession>,
    pub(super) waiting: HashMap<Ticket, Waiting>,
    tickets: u64,
    queues: Queues,
    wall: Wall,
    pub(super) check: Check,
    /// Messages for keyspaces that do not run here.
    pub(super) unknown: u64,
    /// For the operator.
    lines: Vec<String>,
}

/// Starting and stopping keyspaces.
impl Weak {
    /// Hosts nothing yet. Replies of the disk arrive at the receiver.
    pub(crate) fn open(config: &Config) -> Result<(Weak, mpsc::UnboundedReceiver<Replied>), Error> {
        let (disk, replies) = WeakDisk::new();
        let lived = Lived::read(&config.data_dir).map_err(|error| Error::Directory {
            path: config.data_dir.clone(),
            why: format!("its KEYSPACES cannot be read: {error}"),
        })?;
        let weak = Weak {
            config: config.clone(),
            lived,
            disk,
            hosted: BTreeMap::new(),
            generation: 0,
            retry_at: None,
            links: BTreeMap::new(),
            waiting: HashMap::new(),
            tickets: 0,
            queues: Queues::default(),
            wall: Wall::default(),
            check: Check::default(),
            unknown: 0,
            lines: Vec::new(),
        };
        Ok((weak, replies))
    }

    fn directory(&self, space: SpaceId) -> PathBuf {
        self.config.data_dir.join("keyspaces").join(space.0.to_string())
    }

    /// Whether the registry has changed since the keyspaces were last compared with it, or one has to be started again.
    pub(crate) fn is_behind(&self, now: Time, generation: u64) -> bool {
        generation != self.generation || self.retry_at.is_some_and(|at| at <= now)
    }

    /// Starts and stops keyspaces as the registry says, which includes the log up to `applied`. `peers`: all to whom there
    /// are links.
    pub(crate) fn reconcile(
        &mut self,
        now: Time,
        (generation, applied, registry): (u64, u64, &Registry),
        incarnation: Incarnation,
        peers: &[NodeId],
    ) -> Result<(), Error> {
        (self.generation, self.retry_at) = (generation, None);
        let wanted: BTreeMap<SpaceId, &Space> = registry
            .spaces()
            .filter(|space| !space.model.is_on_log())
            .map(|space| (space.id, space))
            .collect();
        self.sweep(applied, &wanted).map_err(|error| self.refused(&error))?;
        let Some(secret) = registry.secret().map(|secret| Secret(secret.0)) else { return Ok(()) };
        for (id, space) in wanted {
            if !self.hosted.contains_key(&id) {
                self.start(now, space, secret, incarnation, peers)?;
            }
        }
        Ok(())
    }

    /// Removes what is left of keyspaces that were dropped. One whose number the state has not reached yet may only be not
    /// known yet: a keyspace's number is that of the entry which makes it.
    fn sweep(&mut self, applied: u64, wanted: &BTreeMap<SpaceId, &Space>) -> io::Result<()> {
        let is_gone = |id: SpaceId| id.0 <= applied && !wanted.contains_key(&id);
        let mut gone: Vec<SpaceId> = self.hosted.keys().copied().filter(|id| is_gone(*id)).collect();
        match fs::read_dir(self.config.data_dir.join("keyspaces")) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name();
                    let id = name.to_str().and_then(|name| name.parse().ok()).map(SpaceId);
                    gone.extend(id.filter(|id| is_gone(*id)));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        gone.sort_unstable();
        gone.dedup();
        for id in gone {
            self.hosted.remove(&id);
            self.disk.remove(id, self.directory(id))?;
        }
        let lost: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| is_gone(waiting.space))
            .map(|(ticket, _)| *ticket)
            .collect();
        for waiting in lost.into_iter().filter_map(|ticket| self.waiting.remove(&ticket)) {
            let _ = waiting.tell.send(Err(WeakError::NotHere));
        }
        self.lived.retain(|id| !is_gone(id))
    }

    fn refused(&self, error: &io::Error) -> Error {
        let path = self.config.data_dir.join("keyspaces");
        Error::Directory { path, why: format!("cannot be read or written: {error}") }
    }

    fn start(
        &mut self,
        now: Time,
        space: &Space,
        secret: Secret,
        incarnation: Incarnation,
        peers: &[NodeId],
    ) -> Result<(), Error> {
        let (id, own) = (space.id, self.config.id());
        let founds = space.founders.contains(&own);
        // Who joins may ask anybody who is there.
        let members = if founds || peers.is_empty() { space.founders.clone() } else { peers.to_vec() };
        let segment_bytes = self.config.segment_size.min(SEGMENT_BYTES_MAX);
        let replica = weak::Config {
            cluster: weak::ClusterId(self.config.cluster_id().0),
            keyspace: weak::KeyspaceId(id.0),
            incarnation,
            wall_at_zero: self.wall.at_zero(),
            secret,
            timing: TIMING,
            limits: Limits {
                write_bytes_max: usize::try_from(self.config.request_size_max).unwrap_or(usize::MAX),
                ..Limits::default()
            },
            ..weak::Config::new(own, members)
        };
        let config = WeakNodeConfig {
            replica,
            blank: match founds {
                _ if self.lived.contains(id) => Blank::Lost,
                true => Blank::Founds,
                false => Blank::Joins,
            },
            segment_bytes,
            batch_bytes_max: BATCH_BYTES_MAX,
            compact_bytes: SEGMENTS_KEPT * segment_bytes,
        };
        let directory = self.directory(id);
        let made = fs::create_dir_all(&directory).and_then(|()| {
            let above = directory.parent().unwrap_or(&self.config.data_dir);
            sync_directory(above).and_then(|()| sync_directory(&self.config.data_dir))
        });
        let mut disk = FileDisk::open(directory.clone());
        let mut out = WeakOutbox::default();
        let fault = |error: io::Error| StartError::Disk(crate::disk::fault("making room for")(error));
        let started =
            made.map_err(fault).and_then(|()| Replica::start(space, config, &mut disk, now, &mut out));
        let replica = match started {
            Ok(replica) => replica,
            Err(StartError::Disk(DiskFault::Full)) => {
                let line = format!(
                    "the disk is full: the keyspace `{}` cannot be started before there is room",
                    space.name
                );
                self.lines.push(line);
                self.retry_at = Some(now + RETRY);
                return Ok(());
            }
            Err(error) => {
                let why = format!("the log of the keyspace `{}`: {error}", space.name);
                return Err(Error::Directory { path: directory, why });
            }
        };
        if let Some(what) = replica.damage() {
            self.lines.push(format!(
                "{what}. The keyspace `{}` is neither read nor written at this member; the others go on. Remove this \
                 member from the cluster, and add a new one with an empty directory in its place",
                space.name
            ));
        }
        self.disk.open(id, disk).map_err(|error| self.refused(&error))?;
        let mut hosted = Hosted {
            space: space.clone(),
            replica,
            out,
            is_touched: true,
            heard: BTreeMap::new(),
            sent: 0,
            received: 0,
            answered: 0,
            refused: 0,
        };
        for peer in peers.iter().copied() {
            hosted.step(
                now,
                match self.links.get(&peer) {
                    Some(session) => Happening::LinkUp { peer, session: *session },
                    None => Happening::LinkDown { peer },
                },
            );
        }
        self.hosted.insert(id, hosted);
        Ok(())
    }
}

/// What happens.
impl Weak {
    pub(crate) fn link_up(&mut self, now: Time, peer: NodeId, session: LinkSession) {
        self.links.insert(peer, session);
        self.hosted.values_mut().for_each(|hosted| hosted.step(now, Happening::LinkUp { peer, session }));
    }

    pub(crate) fn link_down(&mut self, now: Time, peer: NodeId) {
        self.links.remove(&peer);
        self.queues.forget(peer);
        self.hosted.values_mut().for_each(|hosted| hosted.step(now, Happening::LinkDown { peer }));
    }

    /// A peer's message. One for a keyspace that does not run here is dropped: either that one is no more, or the registry
    /// here lags, and gossip says again what was missed.
    pub(crate) fn message(&mut self, now: Time, from: NodeId, space: SpaceId, message: Message) {
        let Some(hosted) = self.hosted.get_mut(&space) else {
            self.unknown += 1;
            return;
        };
        hosted.received += 1;
        if let Message::Digest { seen, .. } = &message {
            hosted.heard.insert(from, seen.clone());
        }
        hosted.step(now, Happening::Message { from, message });
    }

    pub(crate) fn request(&mut self, now: Time, space: SpaceId, request: Request) {
        if let Some(hosted) = self.hosted.get_mut(&space) {
            hosted.step(now, Happening::Request(request));
        }
    }

    /// Keeps somebody who waits for the answer to a request with this ticket.
    pub(super) fn wait(&mut self, waiting: Waiting) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.insert(ticket, waiting);
        ticket
    }

    pub(crate) fn on_disk(&mut self, now: Time, (space, reply): Replied) {
        // One that was dropped meanwhile needs no answer.
        if let Some(hosted) = self.hosted.get_mut(&space) {
            hosted.is_touched = true;
            hosted.replica.on_disk(now, reply, &mut hosted.out);
        }
    }

    /// The wall clock is taken to be ahead by so much more than it is, in milliseconds, or behind.
    pub(crate) fn set_clock_ahead(&mut self, millis: i64) {
        self.wall.set_ahead(millis);
    }

    /// When something is due though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.hosted.values().filter_map(|hosted| hosted.replica.deadline()).chain(self.retry_at).min()
    }

    /// Once a turn, after all that happened: does what is due, and carries out what the replicas want.
    pub(crate) fn flush(&mut self, now: Time, events: &mut Events) -> Result<(), Error> {
        if self.hosted.is_empty() {
            return Ok(());
        }
        if let Some(wall_at_zero) = self.wall.changed(now) {
            for hosted in self.hosted.values_mut() {
                hosted.step(now, Happening::Request(Request::SetClock { wall_at_zero }));
            }
        }
        let Weak { hosted, disk, links, queues, waiting, lines, lived, .. } = self;
        for (id, hosted) in hosted {
            if !hosted.is_touched && hosted.replica.deadline().is_none_or(|due| due > now) {
                continue;
            }
            hosted.is_touched = false;
            hosted.replica.flush(now, &mut hosted.out);
            if hosted.replica.has_begun() && !lived.contains(*id) {
                // Before anybody hears of what its log holds.
                lived.note(*id).map_err(|error| {
                    Error::Fatal(format!("KEYSPACES in the data directory cannot be written ({error})"))
                })?;
            }
            for command in hosted.out.disk.drain(..) {
                disk.submit(*id, command).map_err(|error| Error::Fatal(error.to_string()))?;
            }
            for (to, message) in hosted.out.sends.drain(..) {
                let shown = events.shows_weak(now, to, &hosted.space.name, &message);
                if links.contains_key(&to) {
                    hosted.sent += 1;
                    queues.push(to, *id, &message, shown);
                } else if let Some(shown) = shown {
                    // What is said to who cannot be reached is lost, and said again by gossip.
                    events.weak_unsent(now, to, shown);
                }
            }
            for event in std::mem::take(&mut hosted.out.events) {
                let refused = matches!(event, Event::Refused { .. });
                match told_ticket(&event).and_then(|ticket| waiting.remove(&ticket)) {
                    Some(waiting) => {
                        let count = if refused { &mut hosted.refused } else { &mut hosted.answered };
                        *count += 1;
                        // Who does not wait any longer need not hear it.
                        let _ = waiting.tell.send(Ok(event));
                    }
                    None => lines.extend(said(&hosted.space.name, &event)),
                }
            }
            for notice in hosted.out.notices.drain(..) {
                let name = &hosted.space.name;
                match notice {
                    WeakNotice::DiskFull => lines.push(format!(
                        "the disk is full: writes to the keyspace `{name}` are refused until there is room; free some \
                         on its file system"
                    )),
                    WeakNotice::DiskCleared => {
                        lines.push(format!("the disk has room again: writes to the keyspace `{name}` are accepted"));
                    }
                    WeakNotice::Failed(why) => {
                        return Err(Error::Fatal(format!("the log of the keyspace `{name}`: {why}")));
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts messages on their way, as many as a link should hold. Says whether more wait.
    pub(crate) fn fill(&mut self, now: Time, link: &mut Link, events: &mut Events) {
        self.queues.fill(now, link, events);
    }

    /// Whether messages wait for a peer.
    pub(crate) fn waits_for(&self, peer: NodeId) -> bool {
        self.queues.has(peer)
    }

    /// Messages that were dropped because too much waited for their receivers.
    pub(super) fn dropped(&self) -> u64 {
        self.queues.dropped
    }

    /// What the operator should read.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Tells all who wait that the member stops.
    pub(crate) fn stop(&mut self) {
        self.waiting.clear();
    }
}

/// What the operator should know of an event that answers nobody.
fn said(space: &str, event: &Event) -> Option<String> {
    match event {
        Event::Members { roster } => Some(format!("the members of the keyspace `{space}` are {roster}")),
        Event::ClockAhead { origin, ahead } => Some(format!(
            "the clock of {} is {} ms ahead of the one here: what it writes to the keyspace `{space}` is not let in before \
             its time. Set the clocks",
            origin.node,
            ahead.as_millis()
        )),
        Event::Refused { ticket: NOBODY, why } => {
            Some(format!("a change of members of the keyspace `{space}` waits: {why}"))
        }
        _ => None,
    }
}
