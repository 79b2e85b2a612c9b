//! What the tests see of a process that takes part in atomic commit, whatever the protocol.

use super::subject::three_phase::{
    Config as SiteConfig, Event as SiteEvent, Message as SiteMessage, Record as SiteRecord, Run, Site,
};
use super::subject::{
    Bank, BankOp, ByHand, Config, Coordinator, CoordinatorRecord, Decision, Event, Limits, Message,
    Participant, ParticipantConfig, ParticipantEvent, ParticipantRecord, ParticipantRequest, Request,
    Resource, TxnId,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Debug;
use synod_protocols::log::Ticket;
use synod_protocols::replicated::Checkpoint;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::wire::{DecodeError, Reader};
use synod_protocols::{Describe, Effects, Emit, Fingerprint, Input, Process, Recovery, Wire};

/// The name that all coordinators' machines go by; their own ids are 10, 11 and so on.
pub const COORDINATOR: NodeId = NodeId(10);

/// Money moved or read, by participant.
pub type Branches = BTreeMap<NodeId, Vec<BankOp>>;

/// What a machine is for.
#[derive(Clone, Debug)]
pub enum Part {
    /// The coordinator, on the machine with this id.
    Coordinator(NodeId, Limits),
    /// A member of a replicated coordinator, and all members.
    Member(NodeId, Vec<NodeId>),
    /// A bank.
    Bank(NodeId, Bank),
}

/// A process that takes part in atomic commit.
pub trait Party: Process<Ask = (), Answer = (), Base = ()> {
    /// A configuration for the machine's so-manieth life.
    fn config(part: &Part, life: u64) -> Self::Config;
    fn run(ticket: Ticket, branches: &Branches) -> Self::Request;
    /// The same piece by piece, where the protocol can.
    fn by_piece(ticket: Ticket, asked: ByPiece) -> Option<Self::Request>;
    /// A person ends what is in doubt at a bank, where the protocol lets them.
    fn resolve(_: Ticket, _: TxnId, _: Decision) -> Option<Self::Request> {
        None
    }
    /// What people have ended here, and nobody has confirmed.
    fn by_hand(&self) -> Vec<ByHand> {
        Vec::new()
    }
    fn told(event: Self::Event) -> Told;
    fn bank(&self) -> Option<&Bank>;
    fn in_doubt(&self) -> Vec<TxnId>;
    /// Records that can take the place of all so far, where the protocol has them.
    fn checkpoint(&self) -> Option<Vec<Self::Record>>;
}

/// A transaction whose work comes piece by piece.
#[derive(Clone, Debug)]
pub enum ByPiece {
    Open,
    Work(TxnId, NodeId, Vec<BankOp>),
    Commit(TxnId),
    Abort(TxnId),
}

/// What a process tells its host, whatever the protocol.
#[derive(Clone, Debug)]
pub enum Told {
    Opened { ticket: Ticket, txn: TxnId },
    Worked { ticket: Ticket, answer: Bytes },
    Refused { ticket: Ticket, why: String },
    Decided { txn: TxnId, decision: Decision, answers: BTreeMap<NodeId, Bytes>, why: String },
    Ended { txn: TxnId, decision: Decision },
    Resolved { ticket: Ticket, txn: TxnId, decision: Decision },
    Damage { txn: TxnId },
    Other,
}

/// Two-phase commit: a coordinator or a participant.
#[derive(Clone, Debug)]
pub enum TwoPhase {
    Coordinator(Coordinator),
    Bank(Participant<Bank>),
}

#[derive(Clone, Debug)]
pub enum TwoPhaseConfig {
    Coordinator(Config),
    Bank(ParticipantConfig<Bank>),
}

#[derive(Clone, Debug)]
pub enum TwoPhaseRecord {
    Coordinator(CoordinatorRecord),
    Bank(ParticipantRecord),
}

#[derive(Clone, Debug)]
pub enum TwoPhaseRequest {
    Coordinator(Request),
    Bank(ParticipantRequest),
}

#[derive(Clone, Debug)]
pub enum TwoPhaseEvent {
    Coordinator(Event),
    Bank(ParticipantEvent),
}

impl Wire for TwoPhaseRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            TwoPhaseRecord::Coordinator(record) => record.encode(out),
            TwoPhaseRecord::Bank(record) => record.encode(out),
        }
    }

    fn decode(_: &mut Reader) -> Result<Self, DecodeError> {
        Err(DecodeError::Short { what: "a record whose owner is not known" })
    }
}

impl Describe for TwoPhaseRecord {
    fn name(&self) -> &'static str {
        match self {
            TwoPhaseRecord::Coordinator(record) => record.name(),
            TwoPhaseRecord::Bank(record) => record.name(),
        }
    }

    fn detail(&self) -> String {
        match self {
            TwoPhaseRecord::Coordinator(record) => record.detail(),
            TwoPhaseRecord::Bank(record) => record.detail(),
        }
    }
}

/// Hands what one of the two wants done to the other's host.
fn pass_on<P: Process<Message = Message>>(
    from: Effects<P>,
    record: fn(P::Record) -> TwoPhaseRecord,
    event: fn(P::Event) -> TwoPhaseEvent,
    out: &mut Effects<TwoPhase>,
) {
    out.records.extend(from.records.into_iter().map(record));
    out.sends.extend(from.sends);
    let emit = |emit: Emit<P::Event>| Emit { event: event(emit.event), release: emit.release };
    out.events.extend(from.events.into_iter().map(emit));
}

fn input<P, Q>(input: Input<P>, request: impl FnOnce(P::Request) -> Q::Request) -> Input<Q>
where
    P: Process<Answer = ()>,
    Q: Process<Answer = (), Message = P::Message>,
{
    match input {
        Input::Message { from, message } => Input::Message { from, message },
        Input::LinkUp { peer, session } => Input::LinkUp { peer, session },
        Input::LinkDown { peer } => Input::LinkDown { peer },
        Input::Request(asked) => Input::Request(request(asked)),
        Input::Answer(()) => Input::Answer(()),
        Input::StorageFault(fault) => Input::StorageFault(fault),
        Input::Timeout => Input::Timeout,
    }
}

impl Process for TwoPhase {
    type Config = TwoPhaseConfig;
    type Message = Message;
    type Record = TwoPhaseRecord;
    type Request = TwoPhaseRequest;
    type Ask = ();
    type Answer = ();
    type Event = TwoPhaseEvent;
    type Base = ();

    fn recover(
        config: TwoPhaseConfig,
        from: Recovery<'_, TwoPhaseRecord>,
        (): (),
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        let mut earlier = Vec::new();
        let is_first = matches!(from, Recovery::First);
        if let Recovery::Resume { records } = from {
            earlier.extend(records);
        }
        match config {
            TwoPhaseConfig::Coordinator(config) => {
                let mut records = earlier.into_iter().filter_map(|record| match record {
                    TwoPhaseRecord::Coordinator(record) => Some(record),
                    TwoPhaseRecord::Bank(_) => None,
                });
                let from =
                    if is_first { Recovery::First } else { Recovery::Resume { records: &mut records } };
                let mut inner = Effects::new();
                let coordinator = Coordinator::recover(config, from, (), now, &mut inner);
                pass_on(inner, TwoPhaseRecord::Coordinator, TwoPhaseEvent::Coordinator, out);
                TwoPhase::Coordinator(coordinator)
            }
            TwoPhaseConfig::Bank(config) => {
                let mut records = earlier.into_iter().filter_map(|record| match record {
                    TwoPhaseRecord::Bank(record) => Some(record),
                    TwoPhaseRecord::Coordinator(_) => None,
                });
                let from =
                    if is_first { Recovery::First } else { Recovery::Resume { records: &mut records } };
                let mut inner = Effects::new();
                let bank = Participant::recover(config, from, (), now, &mut inner);
                pass_on(inner, TwoPhaseRecord::Bank, TwoPhaseEvent::Bank, out);
                TwoPhase::Bank(bank)
            }
        }
    }

    fn step(&mut self, now: Time, asked: Input<Self>, out: &mut Effects<Self>) {
        let wrong = "a request for the other one";
        match self {
            TwoPhase::Coordinator(coordinator) => {
                let mut inner = Effects::new();
                let request = |request| match request {
                    TwoPhaseRequest::Coordinator(request) => request,
                    TwoPhaseRequest::Bank(_) => panic!("{wrong}"),
                };
                coordinator.step(now, input(asked, request), &mut inner);
                pass_on(inner, TwoPhaseRecord::Coordinator, TwoPhaseEvent::Coordinator, out);
            }
            TwoPhase::Bank(bank) => {
                let mut inner = Effects::new();
                let request = |request| match request {
                    TwoPhaseRequest::Bank(request) => request,
                    TwoPhaseRequest::Coordinator(_) => panic!("{wrong}"),
                };
                bank.step(now, input(asked, request), &mut inner);
                pass_on(inner, TwoPhaseRecord::Bank, TwoPhaseEvent::Bank, out);
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            TwoPhase::Coordinator(coordinator) => coordinator.deadline(),
            TwoPhase::Bank(bank) => bank.deadline(),
        }
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        match self {
            TwoPhase::Coordinator(coordinator) => coordinator.fingerprint(now, digest),
            TwoPhase::Bank(bank) => bank.fingerprint(now, digest),
        }
    }
}

pub fn told_by_coordinator(event: Event) -> Told {
    match event {
        Event::Opened { ticket, txn } => Told::Opened { ticket, txn },
        Event::Worked { ticket, answer } => Told::Worked { ticket, answer },
        Event::Refused { ticket, why } => Told::Refused { ticket, why: format!("{why:?}") },
        Event::Decided { txn, decision, answers, why } => {
            let why = why.map(|why| format!("{why:?}")).unwrap_or_default();
            Told::Decided { txn, decision, answers, why }
        }
        Event::Deposed { .. } => Told::Other,
    }
}

pub fn told_by_bank(event: ParticipantEvent) -> Told {
    match event {
        ParticipantEvent::Prepared { .. } => Told::Other,
        ParticipantEvent::Ended { txn, decision } => Told::Ended { txn, decision },
        ParticipantEvent::Resolved { ticket, txn, decision } => Told::Resolved { ticket, txn, decision },
        ParticipantEvent::NotResolved { ticket, why, .. } => {
            Told::Refused { ticket, why: format!("{why:?}") }
        }
        ParticipantEvent::HeuristicDamage { txn, .. } => Told::Damage { txn },
    }
}

impl Party for TwoPhase {
    fn config(part: &Part, _: u64) -> TwoPhaseConfig {
        match part {
            Part::Coordinator(machine, limits) => {
                let addresses = vec![*machine];
                let limits = *limits;
                TwoPhaseConfig::Coordinator(Config { addresses, limits, ..Config::new(COORDINATOR) })
            }
            Part::Bank(id, bank) => TwoPhaseConfig::Bank(ParticipantConfig::new(*id, bank.clone())),
            Part::Member(..) => unreachable!("a coordinator of its own is no member"),
        }
    }

    fn run(ticket: Ticket, branches: &Branches) -> TwoPhaseRequest {
        let branches = branches.iter().map(|(id, work)| (*id, work.to_bytes())).collect();
        TwoPhaseRequest::Coordinator(Request::Run { ticket, branches })
    }

    fn resolve(ticket: Ticket, txn: TxnId, decision: Decision) -> Option<TwoPhaseRequest> {
        Some(TwoPhaseRequest::Bank(ParticipantRequest::Resolve { ticket, txn, decision }))
    }

    fn by_hand(&self) -> Vec<ByHand> {
        match self {
            TwoPhase::Coordinator(_) => Vec::new(),
            TwoPhase::Bank(bank) => bank.by_hand(),
        }
    }

    fn by_piece(ticket: Ticket, asked: ByPiece) -> Option<TwoPhaseRequest> {
        Some(TwoPhaseRequest::Coordinator(match asked {
            ByPiece::Open => Request::Open { ticket },
            ByPiece::Work(txn, participant, work) => {
                Request::Work { ticket, txn, participant, work: work.to_bytes() }
            }
            ByPiece::Commit(txn) => Request::Commit { ticket, txn },
            ByPiece::Abort(txn) => Request::Abort { ticket, txn },
        }))
    }

    fn told(event: TwoPhaseEvent) -> Told {
        match event {
            TwoPhaseEvent::Coordinator(event) => told_by_coordinator(event),
            TwoPhaseEvent::Bank(event) => told_by_bank(event),
        }
    }

    fn bank(&self) -> Option<&Bank> {
        match self {
            TwoPhase::Coordinator(_) => None,
            TwoPhase::Bank(bank) => Some(bank.resource()),
        }
    }

    fn in_doubt(&self) -> Vec<TxnId> {
        match self {
            TwoPhase::Coordinator(_) => Vec::new(),
            TwoPhase::Bank(bank) => bank.in_doubt().into_iter().map(|doubt| doubt.txn).collect(),
        }
    }

    fn checkpoint(&self) -> Option<Vec<TwoPhaseRecord>> {
        Some(match self {
            TwoPhase::Coordinator(coordinator) => {
                coordinator.checkpoint().into_iter().map(TwoPhaseRecord::Coordinator).collect()
            }
            TwoPhase::Bank(bank) => bank.checkpoint().into_iter().map(TwoPhaseRecord::Bank).collect(),
        })
    }
}

/// Three-phase commit: the coordinator is a site without money.
#[derive(Clone, Debug)]
pub struct ThreePhase(Site<Bank>);

impl Process for ThreePhase {
    type Config = SiteConfig<Bank>;
    type Message = SiteMessage;
    type Record = SiteRecord;
    type Request = Run;
    type Ask = ();
    type Answer = ();
    type Event = SiteEvent;
    type Base = ();

    fn recover(
        config: SiteConfig<Bank>,
        from: Recovery<'_, SiteRecord>,
        (): (),
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        let mut inner = Effects::new();
        let site = Site::recover(config, from, (), now, &mut inner);
        (out.records, out.sends, out.events) = (inner.records, inner.sends, inner.events);
        ThreePhase(site)
    }

    fn step(&mut self, now: Time, asked: Input<Self>, out: &mut Effects<Self>) {
        let mut inner = Effects::new();
        self.0.step(now, input(asked, |request| request), &mut inner);
        (out.records, out.sends, out.events) = (inner.records, inner.sends, inner.events);
    }

    fn deadline(&self) -> Option<Time> {
        self.0.deadline()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.0.fingerprint(now, digest);
    }
}

impl Party for ThreePhase {
    fn config(part: &Part, _: u64) -> SiteConfig<Bank> {
        match part {
            Part::Coordinator(machine, _) => SiteConfig::new(*machine, Bank::default()),
            Part::Bank(id, bank) => SiteConfig::new(*id, bank.clone()),
            Part::Member(..) => unreachable!("a site is no member"),
        }
    }

    fn run(ticket: Ticket, branches: &Branches) -> Run {
        let branches = branches.iter().map(|(id, work)| (*id, work.to_bytes())).collect();
        Run { ticket, branches }
    }

    fn by_piece(_: Ticket, _: ByPiece) -> Option<Run> {
        None
    }

    fn told(event: SiteEvent) -> Told {
        match event {
            SiteEvent::Opened { ticket, txn } => Told::Opened { ticket, txn },
            SiteEvent::Refused { ticket } => Told::Refused { ticket, why: String::new() },
            SiteEvent::Decided { txn, decision, answers, why } => {
                Told::Decided { txn, decision, answers, why: format!("{why:?}") }
            }
            SiteEvent::Prepared { .. } => Told::Other,
            SiteEvent::Ended { txn, decision } => Told::Ended { txn, decision },
        }
    }

    fn bank(&self) -> Option<&Bank> {
        Some(self.0.resource()).filter(|bank| !bank.accounts().is_empty())
    }

    fn in_doubt(&self) -> Vec<TxnId> {
        self.0.in_doubt().into_iter().map(|(txn, _)| txn).collect()
    }

    fn checkpoint(&self) -> Option<Vec<SiteRecord>> {
        None
    }
}

/// Locks of a bank, by transaction.
pub fn locks(bank: &Bank) -> Vec<(String, TxnId)> {
    Resource::locks(bank)
}
