//! One member's replica of one weak keyspace, still pure: log frames, group commit, release of effects.
//!
//! A [`WeakNode`] is to a causal or eventual process what [`Node`](crate::Node) is to a replicated log, without all that
//! a replicated log needs and these do not: no state machine (the process holds the objects), nothing that is read back
//! while it runs, no requests that are passed on. It has a log of its own, of the same frames, which the same scan
//! recovers.
//!
//! # The log
//!
//! It holds every record since the last [`Record::Everything`], which stands at the head of a segment as a frame that
//! *restates*; the segments before it are removed once it is durable. So the first segment that exists is number 1, or
//! begins with everything: anything else is damage. When what came after has grown past a bound, and past twice what
//! everything took, the process is asked for everything anew; so a log is never much longer than three times what it
//! holds, and each byte of it is written again at most half a time.
//!
//! A damaged log is not written to. The process abstains and says so, now and at every later start.

use crate::disk::{Disk, DiskCommand, DiskFault, DiskReply, SegmentId};
use crate::frame::{FrameKind, LogIdentity};
use crate::interface::{ClusterId, StartError};
use crate::positions::FrameAt;
use crate::recovery::{LogEnd, Loss, Scanned, ScannedFrame, Scanner};
use crate::release::{Held, Local};
use crate::writer::{LogIndex, Volume, Writer};
use std::time::Duration;
use synod_protocols::log::Ticket;
use synod_protocols::weak::{self, Event, KeyspaceId, Message, Record, Request, WeakReplica};
use synod_protocols::{Effects, Incarnation, Input, NodeId, Reader, Recovery, StorageFault, Time, Wire};

/// How long a log is idle before a mark says that its last frame is synced.
const MARK_DELAY: Duration = Duration::from_millis(20);
/// How long a full disk is left alone before it is tried again.
const FULL_RETRY: Duration = Duration::from_millis(500);

/// What a log without records means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blank {
    /// The keyspace begins here: this is one of its founders.
    Founds,
    /// The member has yet to be taken in.
    Joins,
    /// Its disk was lost: this member has lived in this keyspace before.
    Lost,
}

/// What a [`WeakNode`] is configured with.
#[derive(Clone, Debug)]
pub struct WeakNodeConfig {
    /// What the process is configured with. Its incarnation must be higher than that of any earlier life of the member.
    pub replica: weak::Config,
    /// What a log without records means.
    pub blank: Blank,
    /// The size of one segment, in bytes; a larger write gets a segment of its own size.
    pub segment_bytes: u64,
    /// Bytes of one disk write at the most, unless one step alone is larger.
    pub batch_bytes_max: usize,
    /// The log is not shortened before this many bytes came after the last record of everything.
    pub compact_bytes: u64,
}

/// What a [`WeakNode`] wants done.
#[derive(Debug, Default)]
pub struct WeakOutbox {
    /// For the disk, in order; each is answered by [`WeakNode::on_disk`].
    pub disk: Vec<DiskCommand>,
    /// To other members, in order.
    pub sends: Vec<(NodeId, Message)>,
    /// For the host, in order.
    pub events: Vec<Event>,
    /// Of the disk.
    pub notices: Vec<WeakNotice>,
}

/// What the operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeakNotice {
    /// The disk is full: writes are refused.
    DiskFull,
    /// There is room again.
    DiskCleared,
    /// What is on the disk is unknown: the member must stop.
    Failed(String),
}

/// Figures of this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeakFigures {
    /// Syncs of the log.
    pub syncs: u64,
    /// Bytes written to it.
    pub bytes_written: u64,
    /// Bytes that it holds: of the last record of everything and of what came after it.
    pub log_bytes: u64,
    /// How often it was shortened.
    pub compactions: u64,
}

/// One member of a causal or eventual keyspace, still pure: a replica, its log, and what waits for a sync.
#[derive(Debug)]
pub struct WeakNode<P: WeakReplica> {
    process: P,
    incarnation: Incarnation,
    effects: Effects<P>,
    held: Held<P>,
    /// None while the log is damaged.
    writer: Option<Writer>,
    /// Why it is.
    damage: Option<String>,
    compact_bytes: u64,
    /// A record of everything is on its way to the disk.
    is_compacting: bool,
    compactions: u64,
    is_full: bool,
    full_until: Option<Time>,
    mark_at: Option<Time>,
    next_ticket: u64,
    is_stopped: bool,
}

/// Starting.
impl<P: WeakReplica> WeakNode<P> {
    /// Recovers the process from its log, and leaves the log fit to be continued.
    ///
    /// # Errors
    /// [`StartError::Disk`]; [`StartError::Foreign`] where the log is somebody else's, or was written by a newer version.
    /// Damage is no error: the process abstains, and [`WeakNode::damage`] says why.
    pub fn start(
        config: WeakNodeConfig,
        disk: &mut impl Disk,
        now: Time,
        out: &mut WeakOutbox,
    ) -> Result<Self, StartError> {
        let WeakNodeConfig { mut replica, blank, segment_bytes, batch_bytes_max, compact_bytes } = config;
        let identity = LogIdentity {
            cluster: log_number(replica.cluster, replica.keyspace),
            node: replica.id,
            protocol: P::NAME,
        };
        let mut found = Found::read(disk, identity)?;
        if found.records.is_empty() && blank == Blank::Lost {
            found.lose("the log is empty, though this member has lived in this keyspace before".to_owned());
        }
        // No life's number is used twice, whatever the host says.
        replica.incarnation = replica.incarnation.max(Incarnation(found.incarnation.0 + 1));
        let incarnation = replica.incarnation;
        let mut effects = Effects::new();
        let mut records = found.records.into_iter();
        let process = match (&found.damage, blank) {
            (Some(_), _) => {
                P::recover(replica, Recovery::Damaged { records: &mut records }, (), now, &mut effects)
            }
            (None, Blank::Founds) if records.len() == 0 => {
                P::recover(replica, Recovery::First, (), now, &mut effects)
            }
            (None, Blank::Joins) if records.len() == 0 => {
                P::recover(replica, Recovery::Join, (), now, &mut effects)
            }
            (None, _) => {
                let mut records = records.flatten();
                P::recover(replica, Recovery::Resume { records: &mut records }, (), now, &mut effects)
            }
        };
        let writer = found.end.map(|end| {
            let mut writer = Writer::new(identity, segment_bytes, batch_bytes_max, end, found.index);
            writer.push_started(incarnation);
            writer
        });
        let mut node = WeakNode {
            process,
            incarnation,
            effects,
            held: Held::default(),
            writer,
            damage: found.damage,
            compact_bytes,
            is_compacting: false,
            compactions: 0,
            is_full: false,
            full_until: None,
            mark_at: None,
            next_ticket: 1,
            is_stopped: false,
        };
        node.absorb(out);
        Ok(node)
    }
}

/// A log's number, so that logs of different keyspaces are as foreign to each other as those of different clusters.
fn log_number(cluster: weak::ClusterId, keyspace: KeyspaceId) -> ClusterId {
    ClusterId(synod_protocols::rng::keyed(cluster.0, keyspace.0, 0))
}

/// What a log held.
struct Found {
    /// In order, since everything was last said; none stands for what is lost.
    records: Vec<Option<Record>>,
    incarnation: Incarnation,
    index: LogIndex,
    damage: Option<String>,
    /// Where it goes on; none if it is damaged.
    end: Option<LogEnd>,
}

impl Found {
    fn read(disk: &mut impl Disk, identity: LogIdentity) -> Result<Found, StartError> {
        let mut found = Found {
            records: Vec::new(),
            incarnation: Incarnation(0),
            index: LogIndex::default(),
            damage: None,
            end: None,
        };
        let first = disk.segments().map_err(StartError::Disk)?.first().map_or(SegmentId(1), |(id, _)| *id);
        match found.scan(disk, identity, first) {
            // Nothing is left to go on with.
            Err(StartError::Damaged { what }) => found.lose(what),
            other => other?,
        }
        Ok(found)
    }

    fn scan(
        &mut self,
        disk: &mut impl Disk,
        identity: LogIdentity,
        first: SegmentId,
    ) -> Result<(), StartError> {
        let mut scanner = Scanner::open(disk, identity, first)?;
        let mut is_first = true;
        while let Some(scanned) = scanner.next_frame()? {
            let is_cut = std::mem::take(&mut is_first) && first > SegmentId(1);
            match scanned {
                Scanned::Frame(frame) => {
                    if is_cut && frame.frame.kind != FrameKind::Restated {
                        self.lose(format!("the segments before {} are missing", first.0));
                    }
                    self.take(&frame)?;
                }
                Scanned::Lost(Loss { what, frames }) => {
                    self.lose(what);
                    // Each of them may have begun a life.
                    self.incarnation.0 += frames;
                }
            }
        }
        if self.damage.is_none() {
            self.end = Some(scanner.finish()?);
        }
        Ok(())
    }

    fn lose(&mut self, what: String) {
        self.records.push(None);
        self.damage.get_or_insert(what);
        self.end = None;
    }

    fn take(&mut self, found: &ScannedFrame) -> Result<(), StartError> {
        let ScannedFrame { frame, segment, offset, len } = found;
        let restates = frame.kind == FrameKind::Restated;
        let at =
            FrameAt { segment: *segment, offset: *offset, len: *len, sequence: frame.sequence, span: None };
        self.index.segments.add(&at, restates);
        self.index.volume.since += *len as u64;
        let mut rest = Reader::new(frame.body.clone());
        if matches!(frame.kind, FrameKind::Started | FrameKind::Restated) {
            let life = frame.body.first_chunk::<8>().ok_or_else(|| StartError::Foreign {
                what: format!("frame {} does not say which life it is from", frame.sequence),
            })?;
            self.incarnation = self.incarnation.max(Incarnation(u64::from_le_bytes(*life)));
            rest = Reader::new(frame.body.slice(8..));
        }
        if restates {
            // Whatever came before, whole or not, is not needed.
            self.records.clear();
            self.damage = None;
            self.index.volume = Volume { everything: *len as u64, since: 0 };
        }
        while matches!(frame.kind, FrameKind::Records | FrameKind::Restated) && rest.remaining() > 0 {
            let record = Record::decode(&mut rest).map_err(|why| StartError::Foreign {
                what: format!(
                    "a record in frame {}, at offset {offset} of segment {}, is whole and cannot be understood: {why}. \
                     Was it written by a newer version of this program? Start it with that one",
                    frame.sequence, segment.0
                ),
            })?;
            self.records.push(Some(record));
        }
        Ok(())
    }
}

/// What there is to see.
impl<P: WeakReplica> WeakNode<P> {
    /// The process.
    pub fn process(&self) -> &P {
        &self.process
    }

    /// What is damaged, if anything is.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Figures of this life.
    pub fn figures(&self) -> WeakFigures {
        let writer = self.writer.as_ref();
        let volume = writer.map(Writer::volume).unwrap_or_default();
        WeakFigures {
            syncs: writer.map_or(0, Writer::syncs),
            bytes_written: writer.map_or(0, Writer::bytes_written),
            log_bytes: volume.everything + volume.since,
            compactions: self.compactions,
        }
    }

    /// Whether its first records are durable.
    pub fn has_begun(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.durable() > 0)
    }

    /// When it next wants [`WeakNode::flush`], though nothing arrives.
    pub fn deadline(&self) -> Option<Time> {
        let all = [self.process.deadline(), self.full_until, self.mark_at];
        if self.is_stopped { None } else { all.into_iter().flatten().min() }
    }
}

/// Running.
impl<P: WeakReplica> WeakNode<P> {
    /// Takes an input.
    pub fn step(&mut self, now: Time, input: Input<P>, out: &mut WeakOutbox) {
        if self.is_stopped {
            return;
        }
        if let Input::LinkDown { peer } = &input {
            self.held.forget(*peer);
        }
        self.process.step(now, input, &mut self.effects);
        self.absorb(out);
    }

    /// Once after all inputs that were ready: does what is due, and starts a write if one waits and none is in flight.
    pub fn flush(&mut self, now: Time, out: &mut WeakOutbox) {
        if self.process.deadline().is_some_and(|deadline| deadline <= now) {
            self.step(now, Input::Timeout, out);
        }
        if self.wants_compaction() {
            self.is_compacting = true;
            self.step(now, Input::Request(Request::Compact), out);
        }
        self.append(now, out);
    }

    /// The disk has answered.
    pub fn on_disk(&mut self, now: Time, reply: DiskReply, out: &mut WeakOutbox) {
        match reply {
            DiskReply::Appended { ticket, result } => self.on_appended(now, ticket, result, out),
            DiskReply::Removed { result: Err(fault), .. } => self.fail(&fault, out),
            DiskReply::Removed { .. } | DiskReply::Read { .. } => {}
        }
    }

    /// Sends the effects of one step where they belong.
    fn absorb(&mut self, out: &mut WeakOutbox) {
        let Some(writer) = &mut self.writer else {
            // Who abstains says so to its clients, and nothing to anybody else.
            out.events.extend(self.effects.events.drain(..).map(|emit| emit.event));
            return self.effects.clear();
        };
        let mut records = std::mem::take(&mut self.effects.records);
        while let Some(at) = records.iter().position(|record| matches!(record, Record::Everything { .. })) {
            let mut rest = records.split_off(at);
            push(writer, &mut records);
            writer.push_everything(self.incarnation, &rest.remove(0));
            records = rest;
        }
        push(writer, &mut records);
        self.effects.records = records;
        let (emitted, durable) = (writer.last_sequence(), writer.durable());
        for send in self.effects.sends.drain(..) {
            if let Some(message) = self.held.send(send.to, send.message, send.release, emitted, durable) {
                out.sends.push((send.to, message));
            }
        }
        for emit in self.effects.events.drain(..) {
            if let Some(event) = self.held.emit(emit.event, emit.release, emitted, durable) {
                out.events.push(event);
            }
        }
    }

    fn wants_compaction(&self) -> bool {
        let Some(Volume { everything, since }) = self.writer.as_ref().map(Writer::volume) else {
            return false;
        };
        !self.is_compacting && !self.is_full && since > self.compact_bytes.max(2 * everything)
    }

    fn append(&mut self, now: Time, out: &mut WeakOutbox) {
        let Some(writer) = self.writer.as_mut().filter(|_| !self.is_stopped) else { return };
        if let Some(at) = self.full_until {
            if at <= now {
                let (_, command) = writer.append_in_flight().expect("a full disk refused an append");
                out.disk.push(command.clone());
                self.full_until = None;
            }
            return;
        }
        let ticket = Ticket(self.next_ticket);
        let command = match writer.start_append(ticket) {
            Some(command) => command,
            None if self.mark_at.is_some_and(|at| at <= now) => {
                self.mark_at = None;
                let Some(command) = writer.start_mark(ticket) else { return };
                command
            }
            None => return,
        };
        self.next_ticket += 1;
        self.mark_at = None;
        out.disk.push(command);
    }

    fn on_appended(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<(), DiskFault>,
        out: &mut WeakOutbox,
    ) {
        let Some(writer) = self.writer.as_mut().filter(|_| !self.is_stopped) else { return };
        let Some((_, command)) = writer.append_in_flight().filter(|(own, _)| *own == ticket) else { return };
        let is_synced = matches!(command, DiskCommand::Append { sync: true, .. });
        match result {
            Ok(()) => {}
            Err(DiskFault::Full) => {
                self.full_until = Some(now + FULL_RETRY);
                if !std::mem::replace(&mut self.is_full, true) {
                    out.notices.push(WeakNotice::DiskFull);
                    self.step(now, Input::StorageFault(StorageFault::Full), out);
                }
                return;
            }
            // Never tried again: what a failed write or sync covered is unknown.
            Err(fault) => return self.fail(&fault, out),
        }
        writer.on_appended(ticket);
        if is_synced && writer.is_idle() {
            self.mark_at = Some(now + MARK_DELAY);
        }
        let durable = writer.durable();
        for segment in writer.drop_needless() {
            out.disk.push(DiskCommand::Remove { ticket: Ticket(0), segment });
        }
        self.held.release_sends(durable, |to, message| out.sends.push((to, message)));
        while let Some(local) = self.held.next_local(durable) {
            match local {
                Local::Event(event) => {
                    if event == Event::Compacted {
                        self.is_compacting = false;
                        self.compactions += 1;
                    }
                    out.events.push(event);
                }
                Local::Return(_) => unreachable!("a weak replica says nothing to itself"),
            }
        }
        if std::mem::take(&mut self.is_full) {
            out.notices.push(WeakNotice::DiskCleared);
            self.step(now, Input::StorageFault(StorageFault::Cleared), out);
        }
    }

    fn fail(&mut self, fault: &DiskFault, out: &mut WeakOutbox) {
        self.is_stopped = true;
        out.notices.push(WeakNotice::Failed(format!(
            "{fault}. Which records reached the disk is unknown, so the member stops; start it again and it recovers \
             from what is really there"
        )));
    }
}

fn push(writer: &mut Writer, records: &mut Vec<Record>) {
    if !records.is_empty() {
        writer.push_step(records, |_| None);
    }
}
