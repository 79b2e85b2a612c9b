//! The coordinator of two-phase commit.
//!
//! One file, since it is one state machine: a third of it is what hosts ask and are told, the rest the phases of a transaction, in
//! the order in which it goes through them.

use super::message::{CoordinatorRecord as Record, Message, Outcome, Peer, Stamp, Vote};
use super::resource::Refusal;
use super::{Decision, TxnId};
use crate::contract::{Checkpoint, Effects, Input, Process, Recovery, StorageFault};
use crate::fingerprint::Fingerprint;
use crate::log::Ticket;
use crate::types::{NodeId, Time};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::Hash;
use core::time::Duration;

/// What an owner of a coordinator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The coordinator's name: that of its transactions and of its epochs.
    pub id: NodeId,
    /// Where it can be asked: itself, or the members of the log that it is replicated on.
    pub addresses: Vec<NodeId>,
    /// Timeouts.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// A coordinator on its own, with defaults for everything else.
    pub fn new(id: NodeId) -> Config {
        Config { id, addresses: [id].into(), timing: Timing::default(), limits: Limits::default() }
    }
}

/// Timeouts of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// After how long a message that was not answered is sent again; eight times as long at the
    /// most, doubling. Default 100 ms.
    pub retry: Duration,
    /// How long votes are waited for before the transaction aborts. Default 1 s.
    pub vote: Duration,
    /// How long a transaction may stay open before it aborts. Default 10 s.
    pub open: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            retry: Duration::from_millis(100),
            vote: Duration::from_secs(1),
            open: Duration::from_secs(10),
        }
    }
}

/// Bounds of a coordinator. At each, what goes beyond is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transactions at one time, those whose commit is not acknowledged by all included. Default 1,024.
    pub transactions_max: usize,
    /// How far the newest transaction may be from the oldest that is not over, which bounds what
    /// participants must remember. Default 65,536.
    pub window_max: u64,
    /// Participants of one transaction. Default 64.
    pub participants_max: usize,
    /// Bytes of one piece of work. Default 1 MiB.
    pub work_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { transactions_max: 1_024, window_max: 65_536, participants_max: 64, work_bytes_max: 1 << 20 }
    }
}

/// What a host asks of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Have all of this done, or nothing. [`Event::Opened`] names it, [`Event::Decided`] ends it.
    Run {
        /// Returned with the name or the refusal.
        ticket: Ticket,
        /// The work, by participant.
        branches: BTreeMap<NodeId, Bytes>,
    },
    /// Begin a transaction whose work comes piece by piece.
    Open {
        /// Returned with the name or the refusal.
        ticket: Ticket,
    },
    /// One more piece, [`Event::Worked`] when it is done. If it is refused the transaction aborts.
    Work {
        /// Returned with the answer or the refusal.
        ticket: Ticket,
        /// Of which transaction.
        txn: TxnId,
        /// Where.
        participant: NodeId,
        /// What.
        work: Bytes,
    },
    /// No more work: commit, if all can.
    Commit {
        /// Returned with a refusal.
        ticket: Ticket,
        /// Which.
        txn: TxnId,
    },
    /// Undo it all, unless it is decided or its only participant decides.
    Abort {
        /// Returned with a refusal.
        ticket: Ticket,
        /// Which.
        txn: TxnId,
    },
}

/// What a coordinator tells its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The transaction has a name.
    Opened {
        /// Which request.
        ticket: Ticket,
        /// Its name.
        txn: TxnId,
    },
    /// A piece of work is done, and can still be undone.
    Worked {
        /// Which request.
        ticket: Ticket,
        /// What it read.
        answer: Bytes,
    },
    /// The request was not carried out, and changed nothing.
    Refused {
        /// Which request.
        ticket: Ticket,
        /// Why.
        why: RefusalReason,
    },
    /// The transaction is decided, and this is durable.
    Decided {
        /// Which.
        txn: TxnId,
        /// How.
        decision: Decision,
        /// What the work that came with `Prepare` read, by participant. Means nothing after an abort.
        answers: BTreeMap<NodeId, Bytes>,
        /// Why it aborted.
        why: Option<AbortReason>,
    },
    /// Somebody has heard of a later life: this one does nothing any more. What became of its
    /// transactions that were not decided is not known here.
    Deposed {
        /// The later life.
        epoch: u64,
    },
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// More is under way than the limits allow: try again.
    Busy,
    /// No participant, or too many, or too much work.
    Size,
    /// The transaction is not open: unknown, decided, or being decided.
    NotOpen,
    /// The disk is full.
    Storage,
    /// This coordinator was replaced, or its disk is damaged.
    Deposed,
}

/// Why a transaction aborted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AbortReason {
    /// Its client wanted it.
    Asked,
    /// A participant voted no.
    No {
        /// Who.
        participant: NodeId,
        /// Why.
        why: Refusal,
    },
    /// A participant did not vote in time.
    Silent {
        /// The first of them.
        participant: NodeId,
    },
    /// It was open for too long.
    TooLong,
}

/// The coordinator of two-phase commit with presumed abort. See [the module](super).
#[derive(Clone, Debug)]
pub struct Coordinator {
    config: Config,
    epoch: u64,
    /// The number of the latest transaction of this life.
    number: u64,
    /// Whatever is not over.
    txns: BTreeMap<TxnId, Txn>,
    is_full: bool,
    /// Whether it must say nothing: it was replaced, or cannot know what it has said.
    is_inert: bool,
    ignored: u64,
}

#[derive(Clone, Debug)]
struct Txn {
    phase: Phase,
    branches: BTreeMap<NodeId, Branch>,
    /// When it is given up, unless it is past that.
    limit: Time,
    /// When what was not answered is said again, and how often it was.
    resend: Time,
    attempts: u32,
}

/// A transaction that is not over, as its coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTxn {
    /// Which.
    pub txn: TxnId,
    /// How far it is.
    pub phase: Phase,
    /// Who takes part, as far as it is still asked.
    pub participants: Vec<NodeId>,
    /// Whose answer is waited for.
    pub waits_for: Vec<NodeId>,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Work is being done.
    Open,
    /// Votes are being collected.
    Preparing,
    /// The only participant decides.
    Alone,
    /// The commit is durable; branches are those that have not acknowledged it.
    Committing,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Branch {
    /// Pieces sent so far.
    pieces: u64,
    /// The piece that is not answered yet.
    pending: Option<(Ticket, Bytes)>,
    /// The participant's life in which it did its work; 0 before its first answer.
    life: u64,
    /// The work that goes with `Prepare`.
    work: Option<Bytes>,
    vote: Option<Vote>,
}

impl Process for Coordinator {
    type Config = Config;
    type Message = Message;
    type Record = Record;
    type Request = Request;
    type Ask = ();
    type Answer = ();
    type Event = Event;
    type Base = ();

    fn recover(
        config: Config,
        from: Recovery<'_, Record>,
        (): (),
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        assert!(!config.timing.retry.is_zero(), "the retry must be above zero");
        let mut coordinator = Coordinator {
            config,
            epoch: 0,
            number: 0,
            txns: BTreeMap::new(),
            is_full: false,
            is_inert: matches!(from, Recovery::Damaged { .. }),
            ignored: 0,
        };
        if let Recovery::Resume { records } = from {
            records.for_each(|record| coordinator.restore(record, now));
        }
        if !coordinator.is_inert {
            // A new life, durably, before anybody hears of it: no transaction's name is used twice,
            // and what earlier lives did not decide nobody will.
            coordinator.epoch += 1;
            out.record(Record::Epoch { epoch: coordinator.epoch });
            let committed: Vec<TxnId> = coordinator.txns.keys().copied().collect();
            committed.into_iter().for_each(|txn| coordinator.send_due(now, txn, out));
        }
        coordinator
    }

    fn step(&mut self, now: Time, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            Input::Request(request) => self.on_request(now, request, out),
            _ if self.is_inert => {}
            Input::Message { from, message } => self.on_message(now, from, message, out),
            Input::Timeout => self.on_timeout(now, out),
            Input::StorageFault(fault) => self.is_full = fault == StorageFault::Full,
            Input::LinkUp { .. } | Input::LinkDown { .. } | Input::Answer(()) => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        let due = |txn: &Txn| match txn.phase {
            Phase::Open | Phase::Preparing => txn.limit.min(txn.resend),
            Phase::Alone | Phase::Committing => txn.resend,
        };
        self.txns.values().map(due).min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        (self.epoch, self.number, self.is_full, self.is_inert).hash(digest);
        for (id, txn) in &self.txns {
            (id, txn.phase, &txn.branches, txn.limit.since(now), txn.resend.since(now)).hash(digest);
        }
    }
}

impl Checkpoint for Coordinator {
    /// The life, so that the next one has another number, and the commits that somebody has not acknowledged.
    fn checkpoint(&self) -> Vec<Record> {
        let committing = self.txns.iter().filter(|(_, state)| state.phase == Phase::Committing);
        let committed = committing.map(|(txn, state)| Record::Committed {
            txn: *txn,
            participants: state.branches.keys().copied().collect(),
        });
        [Record::Epoch { epoch: self.epoch }].into_iter().chain(committed).collect()
    }
}

/// For hosts, tests and people.
impl Coordinator {
    /// The current life.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many transactions are not over.
    pub fn open(&self) -> usize {
        self.txns.len()
    }

    /// What is not over, in ascending order.
    pub fn transactions(&self) -> impl Iterator<Item = OpenTxn> {
        self.txns.iter().map(|(txn, state)| OpenTxn {
            txn: *txn,
            phase: state.phase,
            waits_for: state
                .branches
                .iter()
                .filter(|(_, branch)| state.phase != Phase::Preparing || branch.vote.is_none())
                .map(|(id, _)| *id)
                .collect(),
            participants: state.branches.keys().copied().collect(),
        })
    }

    /// Who has not acknowledged the commit of a transaction; nobody if it is over, or was never committed.
    pub fn unacknowledged(&self, txn: TxnId) -> impl Iterator<Item = NodeId> {
        let committing = self.txns.get(&txn).filter(|state| state.phase == Phase::Committing);
        committing.into_iter().flat_map(|state| state.branches.keys().copied())
    }

    /// All transactions of this coordinator below this one are over.
    pub fn floor(&self) -> TxnId {
        let next = TxnId { coordinator: self.config.id, epoch: self.epoch, number: self.number + 1 };
        self.txns.keys().next().copied().unwrap_or(next)
    }

    /// Malformed, stale or foreign messages ignored in this life.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

/// Recovery.
impl Coordinator {
    fn restore(&mut self, record: Record, now: Time) {
        match record {
            Record::Epoch { epoch } => self.epoch = epoch,
            Record::Committed { txn, participants } => {
                let branches = participants.into_iter().map(|id| (id, Branch::default())).collect();
                let txn_state =
                    Txn { phase: Phase::Committing, branches, limit: now, resend: now, attempts: 0 };
                self.txns.insert(txn, txn_state);
            }
            Record::Ended { txn } => drop(self.txns.remove(&txn)),
        }
    }
}

/// Requests.
impl Coordinator {
    fn on_request(&mut self, now: Time, request: Request, out: &mut Effects<Self>) {
        let ticket = request.ticket();
        if let Err(why) = self.carry_out(now, request, out) {
            out.event(Event::Refused { ticket, why });
        }
    }

    fn carry_out(
        &mut self,
        now: Time,
        request: Request,
        out: &mut Effects<Self>,
    ) -> Result<(), RefusalReason> {
        if self.is_inert {
            return Err(RefusalReason::Deposed);
        }
        match request {
            Request::Run { ticket, branches } => {
                let sizes = branches.values().map(Bytes::len);
                if branches.is_empty()
                    || branches.len() > self.config.limits.participants_max
                    || sizes.max() > Some(self.config.limits.work_bytes_max)
                {
                    return Err(RefusalReason::Size);
                }
                let branch = |(id, work)| (id, Branch { work: Some(work), ..Branch::default() });
                let txn = self.open_txn(now, branches.into_iter().map(branch).collect())?;
                out.event(Event::Opened { ticket, txn });
                self.prepare(now, txn, out);
            }
            Request::Open { ticket } => {
                let txn = self.open_txn(now, BTreeMap::new())?;
                out.event(Event::Opened { ticket, txn });
            }
            Request::Work { ticket, txn, participant, work } => {
                return self.work(now, ticket, txn, participant, work, out);
            }
            Request::Commit { txn, .. } => {
                if self.open_mut(txn)?.branches.values().any(|branch| branch.pending.is_some()) {
                    return Err(RefusalReason::Busy);
                }
                self.prepare(now, txn, out);
            }
            Request::Abort { txn, .. } => {
                // Also while votes are collected: what is not decided may still be aborted.
                let phase = self.txns.get(&txn).map(|state| state.phase);
                if !matches!(phase, Some(Phase::Open | Phase::Preparing)) {
                    return Err(RefusalReason::NotOpen);
                }
                self.abort(txn, AbortReason::Asked, out);
            }
        }
        Ok(())
    }

    fn open_txn(&mut self, now: Time, branches: BTreeMap<NodeId, Branch>) -> Result<TxnId, RefusalReason> {
        if self.is_full {
            return Err(RefusalReason::Storage);
        }
        let floor = self.floor();
        let oldest = if floor.epoch == self.epoch { floor.number } else { 0 };
        let Limits { transactions_max, window_max, .. } = self.config.limits;
        if self.txns.len() >= transactions_max || self.number + 1 - oldest >= window_max {
            return Err(RefusalReason::Busy);
        }
        self.number += 1;
        let txn = TxnId { coordinator: self.config.id, epoch: self.epoch, number: self.number };
        let Timing { open, retry, .. } = self.config.timing;
        let state = Txn { phase: Phase::Open, branches, limit: now + open, resend: now + retry, attempts: 0 };
        self.txns.insert(txn, state);
        Ok(txn)
    }

    /// A transaction takes more work only until it begins to be decided: a late piece is refused.
    fn open_mut(&mut self, txn: TxnId) -> Result<&mut Txn, RefusalReason> {
        let open = self.txns.get_mut(&txn).filter(|state| state.phase == Phase::Open);
        open.ok_or(RefusalReason::NotOpen)
    }

    fn work(
        &mut self,
        now: Time,
        ticket: Ticket,
        txn: TxnId,
        participant: NodeId,
        work: Bytes,
        out: &mut Effects<Self>,
    ) -> Result<(), RefusalReason> {
        let Limits { participants_max, work_bytes_max, .. } = self.config.limits;
        let state = self.open_mut(txn)?;
        let is_new = !state.branches.contains_key(&participant);
        if work.len() > work_bytes_max || is_new && state.branches.len() >= participants_max {
            return Err(RefusalReason::Size);
        }
        let branch = state.branches.entry(participant).or_default();
        if branch.pending.is_some() {
            return Err(RefusalReason::Busy);
        }
        branch.pending = Some((ticket, work));
        branch.pieces += 1;
        state.attempts = 0;
        self.send_due(now, txn, out);
        Ok(())
    }
}

/// The protocol.
impl Coordinator {
    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Effects<Self>) {
        match message {
            Message::Worked { txn, sequence, life, answer } => {
                self.on_worked(from, txn, (sequence, life), answer, out);
            }
            Message::Vote { txn, vote } => self.on_vote(now, from, txn, vote, out),
            Message::Finished { txn, outcome } => self.on_finished(from, txn, outcome, out),
            Message::Ack { txn } => self.on_ack(from, txn, out),
            Message::Ask { txn, .. } => self.on_ask(from, txn, out),
            Message::Fenced { coordinator, epoch } if coordinator == self.config.id && epoch > self.epoch => {
                self.is_inert = true;
                self.txns.clear();
                out.event(Event::Deposed { epoch });
            }
            _ => self.ignored += 1,
        }
    }

    fn on_worked(
        &mut self,
        from: NodeId,
        txn: TxnId,
        (sequence, life): (u64, u64),
        answer: Bytes,
        out: &mut Effects<Self>,
    ) {
        let branch = self.open_mut(txn).ok().and_then(|state| state.branches.get_mut(&from));
        let due = |branch: &&mut Branch| branch.pieces == sequence + 1 && branch.pending.is_some();
        let Some(branch) = branch.filter(due) else {
            self.ignored += 1;
            return;
        };
        if branch.life != 0 && branch.life != life {
            // It has restarted and lost the earlier pieces, with their locks.
            return self.abort(txn, AbortReason::No { participant: from, why: Refusal::Over }, out);
        }
        branch.life = life;
        if let Some((ticket, _)) = branch.pending.take() {
            out.event(Event::Worked { ticket, answer });
        }
    }

    /// Phase 1, or the only one.
    fn prepare(&mut self, now: Time, txn: TxnId, out: &mut Effects<Self>) {
        let vote = self.config.timing.vote;
        let state = self.txns.get_mut(&txn).expect("it was just found open");
        state.phase = if state.branches.len() == 1 { Phase::Alone } else { Phase::Preparing };
        state.limit = now + vote;
        state.attempts = 0;
        match state.branches.is_empty() {
            true => self.commit(now, txn, out),
            false => self.send_due(now, txn, out),
        }
    }

    fn on_vote(&mut self, now: Time, from: NodeId, txn: TxnId, vote: Vote, out: &mut Effects<Self>) {
        let Some(state) = self.txns.get_mut(&txn) else {
            // Presumed abort: what is not known here, of this life or an earlier one, did not commit.
            if matches!(vote, Vote::Yes { .. }) && self.may_presume(txn) {
                self.decide(from, txn, Decision::Abort, out);
            }
            return;
        };
        let Some(branch) = state.branches.get_mut(&from) else {
            self.ignored += 1;
            return;
        };
        match (state.phase, vote) {
            (Phase::Open | Phase::Preparing, Vote::No { why }) if branch.vote.is_none() => {
                self.abort(txn, AbortReason::No { participant: from, why }, out);
            }
            (Phase::Preparing, vote) if branch.vote.is_none() => {
                branch.vote = Some(vote);
                if state.branches.values().all(|branch| branch.vote.is_some()) {
                    self.commit(now, txn, out);
                }
            }
            (Phase::Committing, Vote::Yes { .. }) => self.decide(from, txn, Decision::Commit, out),
            _ => self.ignored += 1,
        }
    }

    /// All have voted, and none no.
    fn commit(&mut self, now: Time, txn: TxnId, out: &mut Effects<Self>) {
        let state = self.txns.get_mut(&txn).expect("it is being decided");
        let mut answers = BTreeMap::new();
        for (id, branch) in &mut state.branches {
            if let Some(Vote::Yes { answer }) = &mut branch.vote {
                answers.insert(*id, core::mem::take(answer));
            }
        }
        state.branches.retain(|_, branch| branch.vote != Some(Vote::ReadOnly));
        if state.branches.is_empty() {
            self.txns.remove(&txn);
        } else {
            state.phase = Phase::Committing;
            state.attempts = 0;
            // The decision: durable before anybody hears of it.
            let participants = state.branches.keys().copied().collect();
            out.record(Record::Committed { txn, participants });
            self.send_due(now, txn, out);
        }
        out.event(Event::Decided { txn, decision: Decision::Commit, answers, why: None });
    }

    /// Nothing is recorded and nothing is waited for: whoever does not hear of it asks.
    fn abort(&mut self, txn: TxnId, why: AbortReason, out: &mut Effects<Self>) {
        let Some(state) = self.txns.remove(&txn) else { return };
        assert!(state.phase != Phase::Committing, "a commit is never taken back");
        let no = match &why {
            AbortReason::No { participant, .. } => Some(*participant),
            _ => None,
        };
        for (id, branch) in &state.branches {
            if branch.vote != Some(Vote::ReadOnly) && no != Some(*id) {
                self.decide(*id, txn, Decision::Abort, out);
            }
        }
        let answers = BTreeMap::new();
        out.event(Event::Decided { txn, decision: Decision::Abort, answers, why: Some(why) });
    }

    fn on_finished(&mut self, from: NodeId, txn: TxnId, outcome: Outcome, out: &mut Effects<Self>) {
        let alone = |state: &Txn| state.phase == Phase::Alone && state.branches.contains_key(&from);
        if !self.txns.get(&txn).is_some_and(alone) {
            self.ignored += 1;
            return;
        }
        self.txns.remove(&txn);
        let (decision, answers, why) = match outcome {
            Outcome::Committed { answer } => (Decision::Commit, BTreeMap::from([(from, answer)]), None),
            Outcome::Aborted { why } => {
                (Decision::Abort, BTreeMap::new(), Some(AbortReason::No { participant: from, why }))
            }
        };
        out.event(Event::Decided { txn, decision, answers, why });
    }

    fn on_ack(&mut self, from: NodeId, txn: TxnId, out: &mut Effects<Self>) {
        let committing = self.txns.get_mut(&txn).filter(|state| state.phase == Phase::Committing);
        let Some(state) = committing else { return };
        state.branches.remove(&from);
        if state.branches.is_empty() {
            self.txns.remove(&txn);
            out.record(Record::Ended { txn });
        }
    }

    /// A participant is in doubt. While votes are being collected there is nothing to say yet.
    fn on_ask(&mut self, from: NodeId, txn: TxnId, out: &mut Effects<Self>) {
        match self.txns.get(&txn).map(|state| state.phase) {
            Some(Phase::Committing) => self.decide(from, txn, Decision::Commit, out),
            None if self.may_presume(txn) => self.decide(from, txn, Decision::Abort, out),
            _ => {}
        }
    }

    /// Whether a transaction that is not known here is over. One of a later life belongs to a
    /// coordinator that replaced this one.
    fn may_presume(&self, txn: TxnId) -> bool {
        txn.coordinator == self.config.id && txn.epoch <= self.epoch
    }

    fn on_timeout(&mut self, now: Time, out: &mut Effects<Self>) {
        let ids: Vec<TxnId> = self.txns.keys().copied().collect();
        for txn in ids {
            let state = &self.txns[&txn];
            match state.phase {
                Phase::Open if now >= state.limit => self.abort(txn, AbortReason::TooLong, out),
                Phase::Preparing if now >= state.limit => {
                    let silent = state.branches.iter().find(|(_, branch)| branch.vote.is_none());
                    let participant = *silent.expect("somebody has not voted").0;
                    self.abort(txn, AbortReason::Silent { participant }, out);
                }
                _ if now >= state.resend => self.send_due(now, txn, out),
                _ => {}
            }
        }
    }

    /// Says, for the first time or again, what each branch has not answered.
    fn send_due(&mut self, now: Time, txn: TxnId, out: &mut Effects<Self>) {
        let stamp = Stamp { epoch: self.epoch, floor: self.floor() };
        let addresses = &self.config.addresses;
        let Some(state) = self.txns.get_mut(&txn) else { return };
        state.resend = now + self.config.timing.retry * (1 << state.attempts.min(3));
        state.attempts = state.attempts.saturating_add(1);
        let all: Vec<Peer> =
            state.branches.iter().map(|(id, branch)| Peer { id: *id, life: branch.life }).collect();
        for (id, branch) in &state.branches {
            let (life, work) = (branch.life, branch.work.clone());
            let addresses = addresses.clone();
            match (state.phase, &branch.pending) {
                (Phase::Open, Some((_, work))) => {
                    let (sequence, work) = (branch.pieces - 1, work.clone());
                    out.send(*id, Message::Work { stamp, txn, sequence, addresses, work });
                }
                (Phase::Preparing, _) if branch.vote.is_none() => {
                    let peers = all.iter().copied().filter(|peer| peer.id != *id).collect();
                    out.send(*id, Message::Prepare { stamp, txn, addresses, peers, life, work });
                }
                (Phase::Alone, _) => out.send(*id, Message::OnePhase { stamp, txn, life, work }),
                (Phase::Committing, _) => {
                    out.send(*id, Message::Decide { stamp, txn, decision: Decision::Commit });
                }
                _ => {}
            }
        }
    }

    fn decide(&self, to: NodeId, txn: TxnId, decision: Decision, out: &mut Effects<Self>) {
        let stamp = Stamp { epoch: self.epoch, floor: self.floor() };
        out.send(to, Message::Decide { stamp, txn, decision });
    }
}

impl Request {
    fn ticket(&self) -> Ticket {
        match self {
            Request::Run { ticket, .. }
            | Request::Open { ticket }
            | Request::Work { ticket, .. }
            | Request::Commit { ticket, .. }
            | Request::Abort { ticket, .. } => *ticket,
        }
    }
}
