//! A replicated log that does what its messages say, and otherwise commits at once: it isolates
//! what the node does from what a protocol does.

use bytes::Bytes;
use synod_protocols::log::*;
use synod_protocols::wire::{put_bytes, put_list, put_varint};
use synod_protocols::*;

/// What a message tells the process to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Record a note of this many bytes.
    Note(u64),
    /// Record an entry at a position, replacing what follows.
    Entry(u64, u64),
    /// Send a tag, held.
    Held(NodeId, u64),
    /// Send a tag, early.
    Early(NodeId, u64),
    /// Take this part under this epoch, with this leader.
    Follow(u64, NodeId),
    /// Refuse proposals, or no longer.
    Refuse(bool),
    /// Keep proposals uncommitted, or commit them.
    Stall(bool),
    /// Ask for entries.
    Ask(u64, u64),
    /// A tag, to be remembered by the one that hears it.
    Tag(u64),
    /// An entry is stored.
    Stored(u64),
    /// Ask for the state of a member at a position.
    Fetch(NodeId, u64),
    /// The change or transfer with this ticket is complete.
    Finish(u64),
    /// The change with this ticket is refused, because this id was used before.
    Deny(u64, NodeId),
    /// Answer reads under a lease that ends at this millisecond; 0 for none.
    Lease(u64),
    /// The members are these many, from 1.
    Members(u64),
    /// Record a change of members as the next entry.
    Member(u64),
}

/// Ops to be run in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Say(pub(crate) Vec<Op>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Note {
        number: u64,
        padding: Bytes,
    },
    Entry {
        index: Index,
        value: u64,
        command: Bytes,
    },
    /// What no position holds.
    Restated {
        notes: u64,
    },
}

/// The value of an entry that changes the members.
const MEMBERSHIP: u64 = u64::MAX;

#[derive(Clone, Debug)]
pub(crate) struct Script {
    id: NodeId,
    pub(crate) notes: u64,
    /// How often it was told that something is lost.
    pub(crate) lost: u64,
    pub(crate) heard: Vec<u64>,
    pub(crate) faults: Vec<StorageFault>,
    pub(crate) answers: Vec<Vec<u64>>,
    pub(crate) proposals: u64,
    pub(crate) reads: u64,
    pub(crate) applied: Index,
    pub(crate) changes: Vec<LogRequest>,
    pub(crate) compacted: Vec<SnapshotPoint>,
    pub(crate) installed: Vec<SnapshotPoint>,
    pub(crate) base: SnapshotPoint,
    /// What follows on the base.
    pub(crate) log: Vec<(u64, Bytes)>,
    members: u64,
    lease: Option<Time>,
    committed: Index,
    epoch: Epoch,
    leader: Option<NodeId>,
    refuse: bool,
    stall: bool,
}

impl Script {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Restated { notes } => {
                assert!(
                    self.notes == 0 || self.notes == *notes || self.lost > 0,
                    "what is restated is what was recorded"
                );
                self.notes = *notes;
            }
            Record::Note { number, .. } => {
                let follows = if self.lost > 0 { *number >= self.notes } else { *number == self.notes };
                assert!(follows, "notes are recovered in order, without a gap");
                self.notes = number + 1;
            }
            Record::Entry { index, .. } if *index <= self.base.index => {}
            Record::Entry { index, value, command } => {
                let at = (index.0 - self.base.index.0 - 1) as usize;
                if at > self.log.len() && self.lost > 0 {
                    return;
                }
                assert!(at <= self.log.len(), "entry {index} follows on {}", self.last());
                self.log.truncate(at);
                self.log.push((*value, command.clone()));
            }
        }
    }

    fn record(&mut self, record: Record, out: &mut Effects<Self>) {
        self.take(&record);
        out.record(record);
    }

    fn last(&self) -> Index {
        Index(self.base.index.0 + self.log.len() as u64)
    }

    fn commit(&mut self, to: Index, out: &mut Effects<Self>) {
        let payload = |(value, bytes): &(u64, Bytes)| match *value {
            MEMBERSHIP => Payload::Membership(bytes.clone()),
            _ => Payload::Command(bytes.clone()),
        };
        let entries: Vec<_> = (self.committed.0..to.0)
            .map(|i| CommittedEntry {
                index: Index(i + 1),
                epoch: self.epoch,
                payload: payload(&self.log[(i - self.base.index.0) as usize]),
            })
            .collect();
        if !entries.is_empty() && !self.stall {
            self.committed = to;
            out.event_early(LogEvent::Committed { entries });
        }
    }

    fn run(&mut self, from: NodeId, op: Op, out: &mut Effects<Self>) {
        match op {
            Op::Note(bytes) => {
                let padding = vec![self.notes as u8 | 1; bytes as usize].into();
                self.record(Record::Note { number: self.notes, padding }, out);
            }
            Op::Entry(index, value) => {
                let command = Bytes::from(vec![value as u8; 1000]);
                self.record(Record::Entry { index: Index(index), value, command }, out);
            }
            Op::Held(to, tag) => out.send(to, Say(vec![Op::Tag(tag)])),
            Op::Early(to, tag) => out.send_early(to, Say(vec![Op::Tag(tag)])),
            Op::Follow(epoch, leader) => {
                self.epoch = Epoch(epoch);
                self.leader = (leader.0 != 0).then_some(leader);
                out.event(LogEvent::Role { role: self.role(), epoch: self.epoch, leader: self.leader });
            }
            Op::Refuse(refuse) => self.refuse = refuse,
            Op::Stall(stall) => {
                self.stall = stall;
                self.commit(self.last(), out);
            }
            Op::Ask(from, to) => {
                out.ask(LogAsk::Entries { from: Index(from), to: Index(to), bytes_max: 1 << 20 });
            }
            Op::Tag(tag) => self.heard.push(tag),
            Op::Stored(index) if from == self.id => self.commit(Index(index), out),
            Op::Stored(_) => {}
            Op::Fetch(from, index) => out.ask(LogAsk::Snapshot { from, index: Index(index) }),
            Op::Finish(ticket) => out.event_early(LogEvent::Done { ticket: Ticket(ticket) }),
            Op::Deny(ticket, highest) => {
                let why = Refusal::Change(ChangeRefusal::IdUsed { highest });
                out.event_early(LogEvent::Refused { ticket: Ticket(ticket), why });
            }
            Op::Lease(millis) => self.lease = (millis != 0).then_some(Time::from_millis(millis)),
            Op::Members(count) => {
                self.members = count;
                out.event(LogEvent::Members { members: self.members() });
            }
            Op::Member(tag) => {
                let (index, command) = (self.last().next(), Bytes::from(tag.to_le_bytes().to_vec()));
                self.record(Record::Entry { index, value: MEMBERSHIP, command }, out);
                out.send(self.id, Say(vec![Op::Stored(index.0)]));
            }
        }
    }

    fn role(&self) -> Role {
        if self.leader == Some(self.id) { Role::Leader } else { Role::Follower }
    }
}

impl Process for Script {
    type Config = LogConfig;
    type Message = Say;
    type Record = Record;
    type Request = LogRequest;
    type Ask = LogAsk;
    type Answer = LogAnswer<Record>;
    type Event = LogEvent;
    type Base = LogBase;

    fn recover(
        config: LogConfig,
        from: Recovery<'_, Record>,
        base: LogBase,
        _now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        let mut script = Script {
            id: config.id,
            notes: 0,
            lost: 0,
            heard: Vec::new(),
            faults: Vec::new(),
            answers: Vec::new(),
            proposals: 0,
            reads: 0,
            applied: base.applied,
            changes: Vec::new(),
            compacted: Vec::new(),
            installed: Vec::new(),
            base: base.snapshot.unwrap_or_default(),
            log: Vec::new(),
            members: 3,
            lease: None,
            committed: base.applied,
            epoch: Epoch(1),
            leader: Some(config.id),
            refuse: false,
            stall: false,
        };
        match from {
            Recovery::First | Recovery::Join => {}
            Recovery::Resume { records } => records.for_each(|record| script.take(&record)),
            Recovery::Damaged { records } => {
                for record in records {
                    match record {
                        Some(record) => script.take(&record),
                        None => script.lost += 1,
                    }
                }
            }
        }
        script.commit(script.last(), out);
        script
    }

    fn step(&mut self, _now: Time, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Message { from, message } => message.0.into_iter().for_each(|op| self.run(from, op, out)),
            Input::Request(LogRequest::Propose { ticket, commands }) => {
                self.proposals += 1;
                if self.refuse || self.role() != Role::Leader {
                    return out.event_early(LogEvent::Refused { ticket, why: Refusal::LeadershipLost });
                }
                for command in commands {
                    let index = self.last().next();
                    self.record(Record::Entry { index, value: 0, command }, out);
                }
                out.send(self.id, Say(vec![Op::Stored(self.last().0)]));
            }
            Input::Request(LogRequest::Read { ticket }) => {
                self.reads += 1;
                match (self.refuse, self.leader) {
                    (true, _) => out.event_early(LogEvent::Refused { ticket, why: Refusal::LeadershipLost }),
                    (_, None) => {
                        let why = Refusal::NotLeader { leader: None };
                        out.event_early(LogEvent::Refused { ticket, why });
                    }
                    _ if self.stall => {}
                    _ => out.event_early(LogEvent::ReadReady {
                        ticket,
                        index: self.last(),
                        valid_until: self.lease,
                    }),
                }
            }
            Input::Request(LogRequest::Applied { index }) => self.applied = index,
            Input::Request(LogRequest::Compact { point }) => {
                let gone = (point.index.0 - self.base.index.0) as usize;
                self.log.drain(..gone);
                self.base = point.clone();
                self.compacted.push(point);
            }
            Input::Request(request) => self.changes.push(request),
            Input::Answer(LogAnswer::Snapshot { point }) => {
                self.log.clear();
                self.committed = point.index;
                self.base = point.clone();
                self.installed.push(point);
            }
            Input::Answer(LogAnswer::Entries { records, .. }) => {
                let value = |record| if let Record::Entry { value, .. } = record { value } else { u64::MAX };
                self.answers.push(records.into_iter().map(value).collect());
            }
            Input::StorageFault(fault) => self.faults.push(fault),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn fingerprint(&self, _now: Time, digest: &mut Fingerprint) {
        digest.word(self.notes);
        self.heard.iter().for_each(|tag| digest.word(*tag));
        digest.word(self.log.len() as u64);
    }
}

impl ReplicatedLog for Script {
    const NAME: &'static str = "script";

    fn config(common: LogConfig) -> LogConfig {
        common
    }

    fn span(record: &Record) -> Option<(Index, Index)> {
        match record {
            Record::Note { .. } | Record::Restated { .. } => None,
            Record::Entry { index, .. } => Some((*index, *index)),
        }
    }

    fn status(&self) -> LogStatus {
        LogStatus {
            role: self.role(),
            epoch: self.epoch,
            voted_for: None,
            leader: self.leader,
            base: self.base.index,
            last: self.last(),
            last_epoch: self.epoch,
            durable: self.last(),
            committed: self.committed,
            first_in_memory: Index(1),
            ignored: 0,
        }
    }

    fn restated(&self) -> Record {
        Record::Restated { notes: self.notes }
    }

    fn members(&self) -> Vec<Member> {
        let member = |id| Member { id: NodeId(id), part: MemberPart::Voter, context: Bytes::new() };
        (1..=self.members).map(member).collect()
    }

    fn entry(&self, _index: Index) -> Option<(Epoch, &Payload)> {
        None
    }

    fn describe(&self, _now: Time) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl Op {
    fn put(op: &Op, out: &mut Vec<u8>) {
        let (kind, a, b) = match op {
            Op::Note(a) => (0, *a, 0),
            Op::Entry(a, b) => (1, *a, *b),
            Op::Held(a, b) => (2, a.0, *b),
            Op::Early(a, b) => (3, a.0, *b),
            Op::Follow(a, b) => (4, *a, b.0),
            Op::Refuse(a) => (5, u64::from(*a), 0),
            Op::Stall(a) => (6, u64::from(*a), 0),
            Op::Ask(a, b) => (7, *a, *b),
            Op::Tag(a) => (8, *a, 0),
            Op::Stored(a) => (9, *a, 0),
            Op::Fetch(a, b) => (10, a.0, *b),
            Op::Finish(a) => (11, *a, 0),
            Op::Deny(a, b) => (12, *a, b.0),
            Op::Lease(a) => (13, *a, 0),
            Op::Members(a) => (14, *a, 0),
            Op::Member(a) => (15, *a, 0),
        };
        out.push(kind);
        put_varint(out, a);
        put_varint(out, b);
    }

    fn read(input: &mut Reader) -> Result<Op, DecodeError> {
        let kind = input.byte("an op")?;
        let (a, b) = (input.varint("an operand")?, input.varint("an operand")?);
        Ok(match kind {
            0 => Op::Note(a),
            1 => Op::Entry(a, b),
            2 => Op::Held(NodeId(a), b),
            3 => Op::Early(NodeId(a), b),
            4 => Op::Follow(a, NodeId(b)),
            5 => Op::Refuse(a == 1),
            6 => Op::Stall(a == 1),
            7 => Op::Ask(a, b),
            8 => Op::Tag(a),
            9 => Op::Stored(a),
            10 => Op::Fetch(NodeId(a), b),
            11 => Op::Finish(a),
            12 => Op::Deny(a, NodeId(b)),
            13 => Op::Lease(a),
            14 => Op::Members(a),
            15 => Op::Member(a),
            other => return Err(DecodeError::Invalid { what: "an op", value: u64::from(other) }),
        })
    }
}

impl Wire for Say {
    fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.0, Op::put);
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        input.list("ops", Op::read).map(Say)
    }
}

impl Describe for Say {
    fn name(&self) -> &'static str {
        "Say"
    }
    fn detail(&self) -> String {
        format!("{:?}", self.0)
    }
}

impl Wire for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Note { number, padding } => {
                out.push(0);
                put_varint(out, *number);
                put_bytes(out, padding);
            }
            Record::Entry { index, value, command } => {
                out.push(1);
                put_varint(out, index.0);
                put_varint(out, *value);
                put_bytes(out, command);
            }
            Record::Restated { notes } => {
                out.push(2);
                put_varint(out, *notes);
            }
        }
    }

    fn decode(input: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match input.byte("a record")? {
            0 => Record::Note { number: input.varint("a number")?, padding: input.bytes("padding")? },
            2 => Record::Restated { notes: input.varint("notes")? },
            _ => Record::Entry {
                index: Index(input.varint("an index")?),
                value: input.varint("a value")?,
                command: input.bytes("a command")?,
            },
        })
    }
}

impl Describe for Record {
    fn name(&self) -> &'static str {
        "Record"
    }
    fn detail(&self) -> String {
        format!("{self:?}")
    }
}
