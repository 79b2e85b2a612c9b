//! The participant of two-phase commit.
//!
//! One file, since it is one state machine: what hosts ask, recovery, who is obeyed, and then the phases of a transaction, in the
//! order in which it goes through them. What people end by hand is beside it.

mod by_hand;

pub use by_hand::{ByHand, CannotResolve, ParticipantRequest};

use super::message::{Message, Outcome, ParticipantRecord as Record, Peer, Stamp, Vote};
use super::resource::{Refusal, Resource};
use super::{Decision, TxnId};
use crate::contract::{Checkpoint, Effects, Input, Process, Recovery, StorageFault};
use crate::fingerprint::Fingerprint;
use crate::log::Ticket;
use crate::types::{NodeId, Time};
use crate::wire::Wire;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::Hash;
use core::time::Duration;

/// What an owner of a participant decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantConfig<R> {
    /// This participant.
    pub id: NodeId,
    /// What the resource holds before its first transaction; the same in every life, unless the host keeps what is
    /// committed.
    pub initial: R,
    /// Whether the host stores what a transaction changes together with the record of its commit, so that `initial` holds
    /// all of that when a life begins. Otherwise it is done again from the records. Default false.
    pub is_kept: bool,
    /// After how long in doubt the participant asks; eight times as long at the most, doubling.
    /// Default 200 ms.
    pub ask: Duration,
    /// How long work that was not prepared may hold locks before it is undone. Default 5 s.
    pub active: Duration,
    /// Transactions under way at one time; more are refused as [`Refusal::Busy`]. Default 1,024.
    pub transactions_max: usize,
    /// Ended transactions that are remembered, so that a late message begins nothing; at the bound
    /// new ones are refused as [`Refusal::Busy`]. Default 65,536.
    pub ended_max: usize,
    /// Coordinators that are remembered; others are refused at the bound. Default 64.
    pub coordinators_max: usize,
}

impl<R> ParticipantConfig<R> {
    /// A participant with defaults for everything else.
    pub fn new(id: NodeId, initial: R) -> ParticipantConfig<R> {
        ParticipantConfig {
            id,
            initial,
            is_kept: false,
            ask: Duration::from_millis(200),
            active: Duration::from_secs(5),
            transactions_max: 1_024,
            ended_max: 65_536,
            coordinators_max: 64,
        }
    }
}

/// What a participant tells its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParticipantEvent {
    /// It has promised, and is in doubt from now on, with its locks held.
    Prepared {
        /// Which transaction.
        txn: TxnId,
    },
    /// It has kept or undone what the transaction did here, and released its locks.
    Ended {
        /// Which transaction.
        txn: TxnId,
        /// Which of the two.
        decision: Decision,
    },
    /// A person has ended a transaction that was in doubt.
    Resolved {
        /// Of the request.
        ticket: Ticket,
        /// Which transaction.
        txn: TxnId,
        /// How.
        decision: Decision,
    },
    /// A person's request changed nothing.
    NotResolved {
        /// Of the request.
        ticket: Ticket,
        /// Which transaction.
        txn: TxnId,
        /// Why.
        why: CannotResolve,
    },
    /// A person has decided a transaction here, and it has ended otherwise: it is atomic no more.
    HeuristicDamage {
        /// Which transaction.
        txn: TxnId,
        /// How it has ended here.
        here: Decision,
        /// How its coordinator has decided.
        decided: Decision,
    },
}

/// A transaction that this participant may not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// Which.
    pub txn: TxnId,
    /// Since when, in this life.
    pub since: Time,
    /// How often it has asked.
    pub asked: u32,
    /// Whom it asks: the coordinator's addresses, and the other participants.
    pub asks: Vec<NodeId>,
}

/// The participant of two-phase commit. See [the module](super).
#[derive(Clone, Debug)]
pub struct Participant<R> {
    config: ParticipantConfig<R>,
    life: u64,
    resource: R,
    /// What has done work here and is not over.
    branches: BTreeMap<TxnId, Branch>,
    /// What is over, and not yet below its coordinator's floor.
    ended: BTreeMap<TxnId, End>,
    /// What a person has ended here, and nobody has confirmed.
    by_hand: BTreeMap<TxnId, by_hand::Guess>,
    coordinators: BTreeMap<NodeId, Stamp>,
    is_full: bool,
    /// Whether its disk is damaged: what it promised is not known, so it says nothing.
    abstains: bool,
    ignored: u64,
}

#[derive(Clone, Debug)]
struct Branch {
    /// Its pieces of work, in order, and what each read.
    work: Vec<Bytes>,
    answers: Vec<Bytes>,
    /// Where to ask.
    addresses: Vec<NodeId>,
    peers: Vec<Peer>,
    is_prepared: bool,
    since: Time,
    /// When it asks, or before the promise: when it is undone.
    deadline: Time,
    asked: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum End {
    Committed { answer: Bytes },
    ReadOnly,
    Aborted { why: Refusal, is_durable: bool },
}

impl<R: Resource> Process for Participant<R> {
    type Config = ParticipantConfig<R>;
    type Message = Message;
    type Record = Record;
    type Request = ParticipantRequest;
    type Ask = ();
    type Answer = ();
    type Event = ParticipantEvent;
    type Base = ();

    fn recover(
        config: ParticipantConfig<R>,
        from: Recovery<'_, Record>,
        (): (),
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        assert!(!config.ask.is_zero(), "the time before it asks must be above zero");
        let mut participant = Participant {
            life: 0,
            resource: config.initial.clone(),
            config,
            branches: BTreeMap::new(),
            ended: BTreeMap::new(),
            by_hand: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            is_full: false,
            abstains: matches!(from, Recovery::Damaged { .. }),
            ignored: 0,
        };
        if let Recovery::Resume { records } = from {
            records.for_each(|record| participant.restore(record, now));
            participant.redo_prepared();
        }
        if !participant.abstains {
            participant.life += 1;
            out.record(Record::Life { life: participant.life });
        }
        participant
    }

    fn step(&mut self, now: Time, input: Input<Self>, out: &mut Effects<Self>) {
        match input {
            _ if self.abstains => {}
            Input::Message { from, message } => self.on_message(now, from, message, out),
            Input::Timeout => self.on_timeout(now, out),
            Input::StorageFault(fault) => self.is_full = fault == StorageFault::Full,
            Input::Request(request) => self.on_request(now, request, out),
            Input::Answer(()) | Input::LinkUp { .. } | Input::LinkDown { .. } => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        let guesses = self.by_hand.values().filter_map(by_hand::Guess::deadline);
        self.branches.values().map(|branch| branch.deadline).chain(guesses).min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        (self.life, &self.resource, &self.ended, &self.coordinators, self.is_full, self.abstains)
            .hash(digest);
        for (txn, branch) in &self.branches {
            let Branch { work, addresses, peers, is_prepared, deadline, .. } = branch;
            (txn, work, addresses, peers, is_prepared, deadline.since(now)).hash(digest);
        }
        for (txn, guess) in &self.by_hand {
            let until = guess.deadline().map(|deadline| deadline.since(now));
            (txn, guess.record(*txn).to_bytes(), until).hash(digest);
        }
    }
}

impl<R: Resource> Checkpoint for Participant<R> {
    /// Its life and its coordinators', what is committed, how what is remembered has ended, and what is promised.
    fn checkpoint(&self) -> Vec<Record> {
        let mut records = vec![Record::Life { life: self.life }];
        records.extend(self.coordinators.values().map(|stamp| Record::Fence { stamp: *stamp }));
        if !self.config.is_kept {
            records.push(Record::State { committed: self.resource.committed() });
        }
        for (txn, end) in &self.ended {
            match end {
                End::Committed { answer } => records.push(Record::Kept { txn: *txn, answer: answer.clone() }),
                End::Aborted { is_durable: true, .. } => records.push(Record::Aborted { txn: *txn }),
                // A crash would have forgotten these too.
                End::Aborted { is_durable: false, .. } | End::ReadOnly => {}
            }
        }
        for (txn, guess) in &self.by_hand {
            records.push(guess.record(*txn));
            records.extend(guess.is_damage.then_some(Record::Damage { txn: *txn }));
        }
        for (txn, branch) in self.branches.iter().filter(|(_, branch)| branch.is_prepared) {
            records.push(Record::Prepared {
                txn: *txn,
                floor: self.coordinators[&txn.coordinator].floor,
                addresses: branch.addresses.clone(),
                peers: branch.peers.clone(),
                work: branch.work.clone(),
            });
        }
        records
    }
}

/// For hosts, tests and people.
impl<R: Resource> Participant<R> {
    /// What transactions change here.
    pub fn resource(&self) -> &R {
        &self.resource
    }

    /// The same, for a host that takes from it what it keeps.
    pub fn resource_mut(&mut self) -> &mut R {
        &mut self.resource
    }

    /// Whether something is promised here and not decided.
    pub fn is_in_doubt(&self) -> bool {
        self.branches.values().any(|branch| branch.is_prepared)
    }

    /// Who waits for a decision, in ascending order.
    pub fn in_doubt(&self) -> Vec<InDoubt> {
        let prepared = self.branches.iter().filter(|(_, branch)| branch.is_prepared);
        let in_doubt = |(txn, branch): (&TxnId, &Branch)| InDoubt {
            txn: *txn,
            since: branch.since,
            asked: branch.asked,
            asks: branch.asks().map(|(id, _)| id).collect(),
        };
        prepared.map(in_doubt).collect()
    }

    /// Who holds which lock.
    pub fn locks(&self) -> Vec<(String, TxnId)> {
        self.resource.locks()
    }

    /// How many ended transactions it remembers.
    pub fn remembered(&self) -> usize {
        self.ended.len()
    }

    /// Malformed, stale or foreign messages ignored in this life.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

/// Recovery: the work of what was prepared or committed is done again, and gives the same. What was prepared is done when
/// it is known how it ended: until then its locks kept what it had read as it was.
impl<R: Resource> Participant<R> {
    fn restore(&mut self, record: Record, now: Time) {
        match record {
            Record::Life { life } => self.life = life,
            Record::Fence { stamp } => self.raise(stamp),
            Record::Prepared { txn, floor, addresses, peers, work } => {
                self.raise(Stamp { epoch: floor.epoch.max(txn.epoch), floor });
                let deadline = now + self.config.ask;
                let branch = Branch {
                    work,
                    answers: Vec::new(),
                    addresses,
                    peers,
                    is_prepared: true,
                    since: now,
                    deadline,
                    asked: 0,
                };
                self.branches.insert(txn, branch);
            }
            Record::Committed { txn } => {
                self.by_hand.remove(&txn);
                if let Some(branch) = self.branches.remove(&txn).filter(|_| !self.config.is_kept) {
                    self.redo(txn, &branch.work);
                    self.resource.commit(txn);
                }
                self.ended.insert(txn, End::Committed { answer: Bytes::new() });
            }
            Record::Aborted { txn } => {
                self.by_hand.remove(&txn);
                self.branches.remove(&txn);
                self.ended.insert(txn, End::Aborted { why: Refusal::Over, is_durable: true });
            }
            Record::CommittedAlone { txn, work } => {
                let answer = self.redo(txn, &work).pop().unwrap_or_default();
                self.resource.commit(txn);
                self.ended.insert(txn, End::Committed { answer });
            }
            Record::Kept { txn, answer } => drop(self.ended.insert(txn, End::Committed { answer })),
            Record::ByHand { txn, decision, answer, addresses, peers } => {
                self.restore_guess(now, txn, (decision, answer), (addresses, peers));
            }
            Record::Damage { txn } => {
                if let Some(guess) = self.by_hand.get_mut(&txn) {
                    guess.is_damage = true;
                }
            }
            Record::State { committed } => {
                let restored = self.resource.restore(committed);
                assert!(restored.is_ok(), "what this participant has recorded cannot be read: {restored:?}");
            }
        }
    }

    fn redo_prepared(&mut self) {
        let mut branches = core::mem::take(&mut self.branches);
        for (txn, branch) in &mut branches {
            branch.answers = self.redo(*txn, &branch.work);
        }
        self.branches = branches;
    }

    fn redo(&mut self, txn: TxnId, work: &[Bytes]) -> Vec<Bytes> {
        let again = |piece: &Bytes| {
            let work = R::Work::from_bytes(piece.clone()).ok()?;
            self.resource.work(txn, &work).ok()
        };
        let answers: Vec<Bytes> = work.iter().filter_map(again).collect();
        assert_eq!(answers.len(), work.len(), "{txn}: work that was done once cannot be done again");
        answers
    }
}

/// What the coordinator says.
impl<R: Resource> Participant<R> {
    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Effects<Self>) {
        match message {
            Message::Work { stamp, txn, sequence, addresses, work } => {
                if self.obeys(from, stamp, txn, out) {
                    self.on_work(now, from, txn, sequence, (addresses, work), out);
                }
            }
            Message::Prepare { stamp, txn, addresses, peers, life, work } => {
                if self.obeys(from, stamp, txn, out) {
                    let vote = self.on_prepare(now, txn, (addresses, peers), (life, work), out);
                    self.vote(from, txn, vote, out);
                }
            }
            Message::OnePhase { stamp, txn, life, work } => {
                if self.obeys(from, stamp, txn, out) {
                    self.on_one_phase(now, from, txn, (life, work), out);
                }
            }
            Message::Decide { stamp, txn, decision } => {
                if self.is_current(from, stamp, txn, out) {
                    self.on_decide(from, txn, decision, out);
                }
            }
            Message::Ask { txn, life } => self.on_ask(from, txn, life, out),
            Message::Tell { txn, decision } => self.on_tell(from, txn, decision, out),
            _ => self.ignored += 1,
        }
    }

    /// Whether an order to work or to prepare is one to follow: not of a coordinator that was
    /// replaced, and not of a transaction that is over.
    fn obeys(&mut self, from: NodeId, stamp: Stamp, txn: TxnId, out: &mut Effects<Self>) -> bool {
        if !self.is_current(from, stamp, txn, out) {
            return false;
        }
        let is_over = stamp.epoch != txn.epoch || self.is_below_floor(txn);
        self.ignored += u64::from(is_over);
        !is_over
    }

    /// Whether the sender is the latest life of its coordinator that anybody here has heard of.
    fn is_current(&mut self, from: NodeId, stamp: Stamp, txn: TxnId, out: &mut Effects<Self>) -> bool {
        let coordinator = txn.coordinator;
        let known = self.coordinators.get(&coordinator).copied();
        if stamp.floor.coordinator != coordinator
            || known.is_none() && self.coordinators.len() >= self.config.coordinators_max
        {
            self.ignored += 1;
            return false;
        }
        if let Some(Stamp { epoch, .. }) = known.filter(|known| known.epoch > stamp.epoch) {
            self.ignored += 1;
            out.send(from, Message::Fenced { coordinator, epoch });
            return false;
        }
        if known.is_none_or(|known| known.epoch < stamp.epoch) {
            out.record(Record::Fence { stamp });
        }
        self.raise(stamp);
        self.compare_closed(coordinator, out);
        true
    }

    fn raise(&mut self, stamp: Stamp) {
        let coordinator = stamp.floor.coordinator;
        let known = self.coordinators.entry(coordinator).or_insert(stamp);
        known.epoch = known.epoch.max(stamp.epoch);
        known.floor = known.floor.max(stamp.floor);
        let floor = known.floor;
        self.ended.retain(|txn, _| txn.coordinator != coordinator || *txn >= floor);
    }

    fn is_below_floor(&self, txn: TxnId) -> bool {
        self.coordinators.get(&txn.coordinator).is_some_and(|stamp| txn < stamp.floor)
    }

    fn on_work(
        &mut self,
        now: Time,
        from: NodeId,
        txn: TxnId,
        sequence: u64,
        (addresses, work): (Vec<NodeId>, Bytes),
        out: &mut Effects<Self>,
    ) {
        let done = self.branches.get(&txn).map_or(0, |branch| branch.work.len() as u64);
        let is_promised = self.branches.get(&txn).is_some_and(|branch| branch.is_prepared);
        if is_promised || self.by_hand.contains_key(&txn) || sequence + 1 < done {
            self.ignored += 1;
            return;
        }
        if sequence >= done
            && let Err(why) = self.do_work(now, txn, sequence, (addresses, Vec::new()), work)
        {
            self.undo(txn, why.clone());
            return self.vote(from, txn, Vote::No { why }, out);
        }
        let answer = self.branches[&txn].answers[sequence as usize].clone();
        out.send(from, Message::Worked { txn, sequence, life: self.life, answer });
    }

    /// Does the next piece of a transaction's work.
    fn do_work(
        &mut self,
        now: Time,
        txn: TxnId,
        sequence: u64,
        (addresses, peers): (Vec<NodeId>, Vec<Peer>),
        work: Bytes,
    ) -> Result<(), Refusal> {
        if self.ended.contains_key(&txn) {
            return Err(Refusal::Over);
        }
        let is_new = !self.branches.contains_key(&txn);
        let limits = (self.config.transactions_max, self.config.ended_max);
        if self.is_full || is_new && self.branches.len() >= limits.0 || self.ended.len() >= limits.1 {
            return Err(Refusal::Busy);
        }
        // An earlier piece is missing: a crash has lost it, and its locks.
        if sequence > self.branches.get(&txn).map_or(0, |branch| branch.work.len() as u64) {
            return Err(Refusal::Over);
        }
        let parsed = R::Work::from_bytes(work.clone()).map_err(|_| Refusal::Malformed)?;
        let answer = self.resource.work(txn, &parsed)?;
        let deadline = now + self.config.active;
        let branch = self.branches.entry(txn).or_insert_with(|| Branch {
            work: Vec::new(),
            answers: Vec::new(),
            addresses,
            peers,
            is_prepared: false,
            since: now,
            deadline,
            asked: 0,
        });
        branch.deadline = deadline;
        branch.work.push(work);
        branch.answers.push(answer);
        Ok(())
    }

    /// Phase 1. A yes is durable before it leaves, and is not taken back.
    fn on_prepare(
        &mut self,
        now: Time,
        txn: TxnId,
        asks: (Vec<NodeId>, Vec<Peer>),
        (life, work): (u64, Option<Bytes>),
        out: &mut Effects<Self>,
    ) -> Vote {
        // Whoever lost its yes may still commit, and a no would make that sure to be damage.
        if let Some(guess) = self.by_hand.get(&txn).filter(|guess| guess.decision == Decision::Commit) {
            return Vote::Yes { answer: guess.answer() };
        }
        match self.ended.get(&txn) {
            Some(End::ReadOnly) => return Vote::ReadOnly,
            Some(_) => return Vote::No { why: Refusal::Over },
            None => {}
        }
        let came_with_work = work.is_some();
        if let (Some(work), false) = (work, self.branches.contains_key(&txn))
            && let Err(why) = self.do_work(now, txn, 0, asks.clone(), work)
        {
            self.undo(txn, why.clone());
            return Vote::No { why };
        }
        let is_lost = !came_with_work && life != self.life;
        let Some(branch) = self.branches.get_mut(&txn).filter(|branch| branch.is_prepared || !is_lost) else {
            // The work is not there, or a late copy of a part of it is, which was done again after a
            // crash had lost the whole.
            self.undo(txn, Refusal::Over);
            return Vote::No { why: Refusal::Over };
        };
        if !branch.is_prepared && !came_with_work && self.resource.is_read_only(txn) {
            self.branches.remove(&txn);
            self.resource.abort(txn);
            self.ended.insert(txn, End::ReadOnly);
            return Vote::ReadOnly;
        }
        if !branch.is_prepared {
            branch.is_prepared = true;
            (branch.addresses, branch.peers) = asks;
            (branch.since, branch.deadline) = (now, now + self.config.ask);
            let (addresses, peers) = (branch.addresses.clone(), branch.peers.clone());
            let (floor, work) = (self.coordinators[&txn.coordinator].floor, branch.work.clone());
            out.record(Record::Prepared { txn, floor, addresses, peers, work });
            out.event(ParticipantEvent::Prepared { txn });
        }
        Vote::Yes { answer: self.branches[&txn].answers.last().cloned().unwrap_or_default() }
    }

    /// A no leaves early: if a crash makes this participant forget it, it may vote yes later, but then
    /// it is prepared, and either decision of the coordinator's binds it.
    fn vote(&self, to: NodeId, txn: TxnId, vote: Vote, out: &mut Effects<Self>) {
        match vote {
            Vote::No { .. } => out.send_early(to, Message::Vote { txn, vote }),
            vote => out.send(to, Message::Vote { txn, vote }),
        }
    }

    /// The only participant decides. Both outcomes are durable before they are told: the coordinator
    /// has no other memory of them.
    fn on_one_phase(
        &mut self,
        now: Time,
        from: NodeId,
        txn: TxnId,
        (life, work): (u64, Option<Bytes>),
        out: &mut Effects<Self>,
    ) {
        if !self.ended.contains_key(&txn) {
            let done = match (work, self.branches.contains_key(&txn)) {
                (Some(work), false) => self.do_work(now, txn, 0, (Vec::new(), Vec::new()), work),
                (None, true) if life == self.life => Ok(()),
                _ => Err(Refusal::Over),
            };
            match done {
                Ok(()) => self.commit_alone(txn, out),
                Err(why) => self.undo(txn, why),
            }
        }
        let outcome = match self.ended.get(&txn) {
            Some(End::Committed { answer }) => Outcome::Committed { answer: answer.clone() },
            Some(End::Aborted { why, .. }) => Outcome::Aborted { why: why.clone() },
            // It could not be remembered, so nothing may be said; the coordinator asks again.
            Some(End::ReadOnly) | None => return,
        };
        self.harden(txn, out);
        out.send(from, Message::Finished { txn, outcome });
    }

    fn commit_alone(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        let Some(mut branch) = self.branches.remove(&txn) else { return };
        let answer = branch.answers.pop().unwrap_or_default();
        out.record(match self.config.is_kept {
            true => Record::Kept { txn, answer: answer.clone() },
            false => Record::CommittedAlone { txn, work: branch.work },
        });
        self.resource.commit(txn);
        self.ended.insert(txn, End::Committed { answer });
        out.event(ParticipantEvent::Ended { txn, decision: Decision::Commit });
    }

    fn on_decide(&mut self, from: NodeId, txn: TxnId, decision: Decision, out: &mut Effects<Self>) {
        let is_prepared = self.branches.get(&txn).map(|branch| branch.is_prepared);
        match (decision, is_prepared) {
            (_, Some(true)) => self.end(txn, decision, out),
            (Decision::Abort, Some(false)) => self.undo(txn, Refusal::Over),
            // The rollback has overtaken `Prepare`: that must find the transaction over.
            (Decision::Abort, None) if !self.is_below_floor(txn) && !self.ended.contains_key(&txn) => {
                self.undo(txn, Refusal::Over);
            }
            _ => {}
        }
        let is_by_hand = is_prepared.is_none() && self.compare(txn, decision, out);
        // Below the floor the end is forgotten, but a commit that is said again was carried out.
        let is_committed = matches!(self.ended.get(&txn), Some(End::Committed { .. }));
        let is_forgotten = !self.ended.contains_key(&txn) && self.is_below_floor(txn);
        if decision == Decision::Commit && (is_committed || is_forgotten || is_by_hand) {
            out.send(from, Message::Ack { txn });
        }
    }
}

/// How a transaction ends here.
impl<R: Resource> Participant<R> {
    /// What was promised is kept or undone, as somebody who knows has said.
    fn end(&mut self, txn: TxnId, decision: Decision, out: &mut Effects<Self>) {
        self.branches.remove(&txn);
        match decision {
            Decision::Commit => {
                self.resource.commit(txn);
                out.record(Record::Committed { txn });
                self.ended.insert(txn, End::Committed { answer: Bytes::new() });
            }
            Decision::Abort => {
                self.resource.abort(txn);
                out.record(Record::Aborted { txn });
                self.ended.insert(txn, End::Aborted { why: Refusal::Over, is_durable: true });
            }
        }
        out.event(ParticipantEvent::Ended { txn, decision });
    }

    /// What was not promised is undone. This need not be durable before somebody relies on it.
    fn undo(&mut self, txn: TxnId, why: Refusal) {
        self.branches.remove(&txn);
        self.resource.abort(txn);
        if !self.ended.contains_key(&txn) && self.ended.len() < self.config.ended_max.saturating_mul(2) {
            self.ended.insert(txn, End::Aborted { why, is_durable: false });
        }
    }

    /// Makes an abort durable that was not, because somebody will rely on it.
    fn harden(&mut self, txn: TxnId, out: &mut Effects<Self>) {
        if let Some(End::Aborted { is_durable, .. }) = self.ended.get_mut(&txn)
            && !*is_durable
        {
            *is_durable = true;
            out.record(Record::Aborted { txn });
        }
    }
}

/// Cooperative termination.
impl<R: Resource> Participant<R> {
    /// Another participant is in doubt. If this one has not voted, it never will; if it has voted yes,
    /// it does not know either. Nothing can be said of what may be forgotten: what is below the floor,
    /// and what was perhaps voted read-only in an earlier life.
    fn on_ask(&mut self, from: NodeId, txn: TxnId, life: u64, out: &mut Effects<Self>) {
        let is_prepared = self.branches.get(&txn).is_some_and(|branch| branch.is_prepared);
        let may_be_forgotten = self.is_below_floor(txn) || life != 0 && life != self.life;
        // What a person has decided here is a guess, and no answer.
        let is_guess = self.by_hand.contains_key(&txn);
        if is_prepared || is_guess || !self.ended.contains_key(&txn) && may_be_forgotten {
            return;
        }
        if !self.ended.contains_key(&txn) {
            self.undo(txn, Refusal::Over);
        }
        self.harden(txn, out);
        let decision = match self.ended.get(&txn) {
            Some(End::Committed { .. }) => Decision::Commit,
            Some(End::Aborted { .. }) => Decision::Abort,
            Some(End::ReadOnly) | None => return,
        };
        out.send(from, Message::Tell { txn, decision });
    }

    fn on_tell(&mut self, from: NodeId, txn: TxnId, decision: Decision, out: &mut Effects<Self>) {
        let asked = |branch: &Branch| branch.is_prepared && branch.peers.iter().any(|peer| peer.id == from);
        if self.branches.get(&txn).is_some_and(asked) {
            self.end(txn, decision, out);
        } else if !self.compare_told(from, (txn, decision), out) {
            self.ignored += 1;
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Effects<Self>) {
        let is_due = |(_, branch): &(&TxnId, &Branch)| now >= branch.deadline;
        let due: Vec<TxnId> = self.branches.iter().filter(is_due).map(|(txn, _)| *txn).collect();
        for txn in due {
            let branch = self.branches.get_mut(&txn).expect("it was just found");
            if !branch.is_prepared {
                // It has promised nothing, so it may go.
                self.undo(txn, Refusal::Over);
                continue;
            }
            branch.deadline = now + self.config.ask * (1 << branch.asked.min(3));
            branch.asked = branch.asked.saturating_add(1);
            branch.asks().for_each(|(to, life)| out.send(to, Message::Ask { txn, life }));
        }
        self.ask_about_guesses(now, out);
    }
}

impl Branch {
    /// Whom to ask, and in which life they did their work.
    fn asks(&self) -> impl Iterator<Item = (NodeId, u64)> {
        asks(&self.addresses, &self.peers)
    }
}

fn asks(addresses: &[NodeId], peers: &[Peer]) -> impl Iterator<Item = (NodeId, u64)> {
    addresses.iter().map(|id| (*id, 0)).chain(peers.iter().map(|peer| (peer.id, peer.life)))
}
