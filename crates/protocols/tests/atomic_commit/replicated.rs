//! One coordinator of two-phase commit on a replicated log: another member finishes what the first began.

use super::party::{
    Branches, ByPiece, Part, Party, Told, TwoPhase, TwoPhaseRequest, told_by_bank, told_by_coordinator,
};
use super::subject::{
    Bank, Config, Coordinator, Event, Message, Participant, ParticipantConfig, ParticipantEvent,
    ParticipantRecord, Request, TxnId,
};
use super::timed::Timed;
use super::world::{World, account, transfer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use synod_protocols::contract::Checkpoint;
use synod_protocols::log::{LogConfig, ReplicatedLog, Ticket};
use synod_protocols::multi_paxos::MultiPaxos;
use synod_protocols::raft::Raft;
use synod_protocols::replicated::{self, CHECKPOINT_RECORDS, Replicated};
use synod_protocols::types::{NodeId, Time};
use synod_protocols::viewstamped::Viewstamped;
use synod_protocols::wire::{DecodeError, Reader};
use synod_protocols::zab::Zab;
use synod_protocols::{Describe, Effects, Emit, Fingerprint, Input, Process, Recovery, Rng, Wire};

/// A member of the replicated coordinator, or a bank, which cannot tell it from a plain one.
#[derive(Clone, Debug)]
enum Either<L: ReplicatedLog> {
    Member(Box<Replicated<L, Coordinator>>),
    Bank(Box<Participant<Bank>>),
}

#[derive(Clone, Debug)]
enum EitherConfig {
    Member(replicated::Config<Config>),
    Bank(ParticipantConfig<Bank>),
}

#[derive(Clone, Debug)]
enum EitherRecord<R> {
    Member(R),
    Bank(ParticipantRecord),
}

#[derive(Clone, Debug)]
enum EitherEvent {
    Member(replicated::Event<Event, Request>),
    Bank(ParticipantEvent),
}

impl<R: Wire> Wire for EitherRecord<R> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            EitherRecord::Member(record) => record.encode(out),
            EitherRecord::Bank(record) => record.encode(out),
        }
    }

    fn decode(_: &mut Reader) -> Result<Self, DecodeError> {
        Err(DecodeError::Short { what: "a record whose owner is not known" })
    }
}

impl<R: Describe> Describe for EitherRecord<R> {
    fn name(&self) -> &'static str {
        match self {
            EitherRecord::Member(record) => record.name(),
            EitherRecord::Bank(record) => record.name(),
        }
    }

    fn detail(&self) -> String {
        match self {
            EitherRecord::Member(record) => record.detail(),
            EitherRecord::Bank(record) => record.detail(),
        }
    }
}

fn from_member<L: ReplicatedLog>(from: Effects<Replicated<L, Coordinator>>, out: &mut Effects<Either<L>>) {
    assert!(from.asks.is_empty(), "nothing was compacted, so nothing is asked for");
    out.records.extend(from.records.into_iter().map(EitherRecord::Member));
    out.sends.extend(from.sends);
    let emit = |emit: Emit<replicated::Event<_, _>>| Emit {
        event: EitherEvent::Member(emit.event),
        release: emit.release,
    };
    out.events.extend(from.events.into_iter().map(emit));
}

fn from_bank<L: ReplicatedLog>(from: Effects<Participant<Bank>>, out: &mut Effects<Either<L>>) {
    out.records.extend(from.records.into_iter().map(EitherRecord::Bank));
    out.sends.extend(from.sends.into_iter().map(|send| synod_protocols::Send {
        to: send.to,
        message: replicated::Message::Process(send.message),
        release: send.release,
    }));
    let emit =
        |emit: Emit<ParticipantEvent>| Emit { event: EitherEvent::Bank(emit.event), release: emit.release };
    out.events.extend(from.events.into_iter().map(emit));
}

impl<L: ReplicatedLog> Process for Either<L> {
    type Config = EitherConfig;
    type Message = replicated::Message<L::Message, Message>;
    type Record = EitherRecord<L::Record>;
    type Request = Request;
    type Ask = ();
    type Answer = ();
    type Event = EitherEvent;
    type Base = ();

    fn recover(
        config: EitherConfig,
        from: Recovery<'_, Self::Record>,
        (): (),
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self {
        let is_first = matches!(from, Recovery::First);
        let mut earlier = Vec::new();
        if let Recovery::Resume { records } = from {
            earlier.extend(records);
        }
        let (members, banks): (Vec<_>, Vec<_>) =
            earlier.into_iter().partition(|record| matches!(record, EitherRecord::Member(_)));
        let mut members = members.into_iter().filter_map(|record| match record {
            EitherRecord::Member(record) => Some(record),
            EitherRecord::Bank(_) => None,
        });
        let mut banks = banks.into_iter().filter_map(|record| match record {
            EitherRecord::Bank(record) => Some(record),
            EitherRecord::Member(_) => None,
        });
        match config {
            EitherConfig::Member(config) => {
                let from =
                    if is_first { Recovery::First } else { Recovery::Resume { records: &mut members } };
                let mut inner = Effects::new();
                let member = Replicated::recover(config, from, (), now, &mut inner);
                from_member(inner, out);
                Either::Member(Box::new(member))
            }
            EitherConfig::Bank(config) => {
                let from = if is_first { Recovery::First } else { Recovery::Resume { records: &mut banks } };
                let mut inner = Effects::new();
                let bank = Participant::recover(config, from, (), now, &mut inner);
                from_bank(inner, out);
                Either::Bank(Box::new(bank))
            }
        }
    }

    fn step(&mut self, now: Time, asked: Input<Self>, out: &mut Effects<Self>) {
        match (self, asked) {
            (Either::Member(member), asked) => {
                let mut inner = Effects::new();
                let asked = match asked {
                    Input::Answer(()) => return,
                    Input::Message { from, message } => Input::Message { from, message },
                    Input::Request(request) => Input::Request(request),
                    Input::Timeout => Input::Timeout,
                    Input::LinkUp { peer, session } => Input::LinkUp { peer, session },
                    Input::LinkDown { peer } => Input::LinkDown { peer },
                    Input::StorageFault(fault) => Input::StorageFault(fault),
                };
                member.step(now, asked, &mut inner);
                from_member(inner, out);
            }
            (Either::Bank(bank), Input::Message { from, message: replicated::Message::Process(message) }) => {
                let mut inner = Effects::new();
                bank.step(now, Input::Message { from, message }, &mut inner);
                from_bank(inner, out);
            }
            (Either::Bank(bank), Input::Timeout) => {
                let mut inner = Effects::new();
                bank.step(now, Input::Timeout, &mut inner);
                from_bank(inner, out);
            }
            (Either::Bank(_), _) => {}
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Either::Member(member) => member.deadline(),
            Either::Bank(bank) => bank.deadline(),
        }
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        match self {
            Either::Member(member) => member.fingerprint(now, digest),
            Either::Bank(bank) => bank.fingerprint(now, digest),
        }
    }
}

/// What the coordinator is asked.
fn coordinators(request: TwoPhaseRequest) -> Request {
    match request {
        TwoPhaseRequest::Coordinator(request) => request,
        TwoPhaseRequest::Bank(_) => unreachable!("banks are asked nothing here"),
    }
}

impl<L: ReplicatedLog> Party for Either<L> {
    fn config(part: &Part, life: u64) -> EitherConfig {
        match part {
            Part::Member(id, members) => EitherConfig::Member(replicated::Config {
                log: LogConfig::new(*id, members.clone(), id.0 * 1_000_003 + life),
                id: NodeId(99),
                process: Config { addresses: members.clone(), ..Config::new(NodeId(99)) },
            }),
            Part::Bank(id, bank) => EitherConfig::Bank(ParticipantConfig::new(*id, bank.clone())),
            Part::Coordinator(..) => unreachable!("the coordinator is replicated"),
        }
    }

    fn run(ticket: Ticket, branches: &Branches) -> Request {
        coordinators(TwoPhase::run(ticket, branches))
    }

    fn by_piece(ticket: Ticket, asked: ByPiece) -> Option<Request> {
        TwoPhase::by_piece(ticket, asked).map(coordinators)
    }

    fn told(event: EitherEvent) -> Told {
        match event {
            EitherEvent::Member(replicated::Event::Process(event)) => told_by_coordinator(event),
            EitherEvent::Member(_) => Told::Other,
            EitherEvent::Bank(event) => told_by_bank(event),
        }
    }

    fn bank(&self) -> Option<&Bank> {
        match self {
            Either::Member(_) => None,
            Either::Bank(bank) => Some(bank.resource()),
        }
    }

    fn in_doubt(&self) -> Vec<TxnId> {
        match self {
            Either::Member(_) => Vec::new(),
            Either::Bank(bank) => bank.in_doubt().into_iter().map(|doubt| doubt.txn).collect(),
        }
    }

    /// Members do it by themselves, in the log.
    fn checkpoint(&self) -> Option<Vec<EitherRecord<L::Record>>> {
        match self {
            Either::Member(_) => None,
            Either::Bank(bank) => Some(bank.checkpoint().into_iter().map(EitherRecord::Bank).collect()),
        }
    }
}

const MEMBERS: [NodeId; 3] = [NodeId(10), NodeId(11), NodeId(12)];

/// Three members and two banks, when a member runs the coordinator.
fn started<L: ReplicatedLog>(seed: u64) -> Timed<Either<L>> {
    let parts = MEMBERS.map(|id| Part::Member(id, MEMBERS.to_vec())).to_vec();
    let mut run = Timed::of(World::with(2, parts), seed);
    run.keeps_order = true;
    while coordinator(&run).is_none() {
        assert!(run.world.now < Time::from_millis(30_000), "nobody leads");
        run.advance(run.world.now + Duration::from_millis(50));
    }
    run
}

/// Which member runs the coordinator.
fn coordinator<L: ReplicatedLog>(run: &Timed<Either<L>>) -> Option<NodeId> {
    let runs = |id: &NodeId| match run.world.machines[id].process.as_ref() {
        Some(Either::Member(member)) => member.process().is_some(),
        _ => false,
    };
    MEMBERS.into_iter().rev().find(runs)
}

/// How many deaths of the leader found both banks in doubt, and how many transfers the next one committed.
#[derive(Debug, Default)]
struct Deaths {
    in_doubt: u64,
    committed: u64,
    aborted: u64,
}

/// One transfer, and the leader dies for ever at a random moment of it.
fn leader_dies<L: ReplicatedLog>(seed: u64, deaths: &mut Deaths) {
    let mut run = started::<L>(seed);
    let leader = coordinator(&run).expect("somebody leads");
    run.world.run_txn(leader, &transfer("a", "b", 30));
    let moment = run.moment(250);
    run.advance(run.world.now + Duration::from_nanos(moment.0));
    let doubts = |id: u64| {
        run.world.machines[&NodeId(id)].process.as_ref().is_some_and(|bank| !bank.in_doubt().is_empty())
    };
    deaths.in_doubt += u64::from(doubts(1) && doubts(2));
    run.world.crash(leader, 0);
    run.advance(run.world.now + Duration::from_secs(20));
    assert!(run.world.is_quiet(), "BLOCKED: the other members did not finish it");
    assert!(coordinator(&run).is_some_and(|next| next != leader));
    run.world.check_money();
    let moved = run.world.bank(NodeId(1)).expect("it is up").accounts()[&account(NodeId(1))] == 70;
    deaths.committed += u64::from(moved);
    deaths.aborted += u64::from(!moved);
}

#[test]
fn another_member_finishes_what_a_dead_leader_began_on_every_log() {
    for (name, run) in [
        (Raft::NAME, leader_dies::<Raft> as fn(u64, &mut Deaths)),
        (MultiPaxos::NAME, leader_dies::<MultiPaxos>),
        (Zab::NAME, leader_dies::<Zab>),
        (Viewstamped::NAME, leader_dies::<Viewstamped>),
    ] {
        let mut deaths = Deaths::default();
        for seed in 0..60 {
            let result = catch_unwind(AssertUnwindSafe(|| run(seed, &mut deaths)));
            assert!(result.is_ok(), "{name}, seed {seed}: see above");
        }
        println!("{name}: of 60 deaths of the leader {deaths:?}, none blocked");
        assert!(deaths.in_doubt > 5 && deaths.committed > 5 && deaths.aborted > 5, "{name}: {deaths:?}");
    }
}

/// Transfers while members and banks crash, come back and are cut off; in the end all is well.
fn trouble<L: ReplicatedLog>(seed: u64) -> u64 {
    let mut rng = Rng::new(seed ^ 0x7B0B);
    let mut run = started::<L>(seed);
    let ids: Vec<NodeId> = run.world.machines.keys().copied().collect();
    for _ in 0..40 {
        let span = Duration::from_millis(rng.below(150));
        run.advance(run.world.now + span);
        let id = ids[rng.below(ids.len() as u64) as usize];
        match rng.below(10) {
            0 | 1 if run.world.is_up(id) => run.world.crash(id, 0),
            2..4 if !run.world.is_up(id) => run.world.start(id),
            4 => ids.iter().filter(|other| **other != id).for_each(|other| {
                run.world.cut(id, *other);
                run.world.cut(*other, id);
            }),
            5 => run.world.cut.clear(),
            _ => {
                let (from, to) = if rng.chance(1, 2) { ("a", "b") } else { ("b", "a") };
                // Whoever believes to lead is asked, and there may be two of them.
                for member in MEMBERS {
                    if run.world.is_up(member) {
                        run.world.run_txn(member, &transfer(from, to, rng.below(20)));
                    }
                }
            }
        }
    }
    run.world.cut.clear();
    for id in ids {
        if !run.world.is_up(id) {
            run.world.start(id);
        }
    }
    run.advance(run.world.now + Duration::from_secs(60));
    assert!(run.world.is_quiet(), "NO PROGRESS: a minute after the last fault a lock is held");
    run.world.check_money();
    run.world.oracle.commits
}

#[test]
fn a_replicated_coordinator_keeps_its_promises_in_trouble_on_every_log() {
    for (name, run) in [
        (Raft::NAME, trouble::<Raft> as fn(u64) -> u64),
        (MultiPaxos::NAME, trouble::<MultiPaxos>),
        (Zab::NAME, trouble::<Zab>),
        (Viewstamped::NAME, trouble::<Viewstamped>),
    ] {
        let mut commits = 0;
        for seed in 0..40 {
            let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
            commits += result.unwrap_or_else(|_| panic!("{name}, seed {seed}: see above"));
        }
        println!("{name}: {commits} commits in trouble");
        assert!(commits > 100, "{name}: {commits}");
    }
}

/// So many transfers that records are replaced several times, and then another leader.
#[test]
fn records_are_replaced_by_few_and_the_next_leader_goes_on_from_those() {
    let mut run = started::<Raft>(5);
    let kept = |run: &Timed<Either<Raft>>, id: NodeId| match run.world.machines[&id].process.as_ref() {
        Some(Either::Member(member)) => member.records().len(),
        _ => 0,
    };
    for round in 0..150 {
        let leader = coordinator(&run).expect("somebody leads");
        let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        run.world.run_txn(leader, &transfer(from, to, 1));
        run.advance(run.world.now + Duration::from_millis(100));
        let most = MEMBERS.map(|id| kept(&run, id)).into_iter().max().unwrap_or_default();
        assert!(most <= 2 * CHECKPOINT_RECORDS, "round {round}: {most} records are kept");
    }
    let commits = run.world.oracle.commits;
    assert!(commits > 200, "{commits}");
    let leader = coordinator(&run).expect("somebody leads");
    run.world.crash(leader, 0);
    run.advance(run.world.now + Duration::from_secs(20));
    let next = coordinator(&run).expect("another one leads");
    let commits = run.world.oracle.commits;
    run.world.run_txn(next, &transfer("a", "b", 1));
    run.advance(run.world.now + Duration::from_secs(1));
    assert!(run.world.oracle.commits == commits + 2 && run.world.is_quiet());
    run.world.check_money();
}
