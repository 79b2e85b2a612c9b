//! Who plays in which protocol: the machines, and how each is looked at.

use super::actor::{Actor, Asked, Branches, Lens, Player, Told};
use super::naive::Naive;
use super::{BALANCE, Protocol, Scenario, account};
use crate::small::Host;
use std::collections::BTreeMap;
use synod_protocols::Wire;
use synod_protocols::commit::three_phase::{self, Site};
use synod_protocols::commit::{
    Bank, BankOp, Config, Coordinator, Decision, Event, Participant, ParticipantConfig, ParticipantEvent,
    Request, Resource,
};
use synod_protocols::log::{LogConfig, ReplicatedLog, Ticket};
use synod_protocols::replicated::{self, Replicated};
use synod_protocols::saga::{
    self, Amount, BankService, Movement, Orchestrator, Plan, ServiceConfig, ServiceEvent, Step,
};
use synod_protocols::types::NodeId;
use synod_protocols::with_replicated_log;

/// Machines that coordinate have ids from here on; banks count from 1.
pub(super) const COORDINATOR: NodeId = NodeId(100);

/// How often the orchestrator asks for a step before it undoes the saga: few enough that faults of some seconds
/// make it.
const ATTEMPTS_MAX: u32 = 3;

/// What stands before a process's own message in the replicated coordinator's.
const PROCESS_MESSAGE: u8 = 2;

/// The machines of a scenario's protocol.
pub(super) fn machines(scenario: &Scenario) -> BTreeMap<NodeId, Box<dyn Actor>> {
    let Scenario { protocol, participants, log, seed, .. } = *scenario;
    let mut all: BTreeMap<NodeId, Box<dyn Actor>> = BTreeMap::new();
    let ids = || (1..=participants).map(NodeId);
    match protocol {
        Protocol::None => {
            ids().for_each(|id| drop(all.insert(id, Box::new(service(id)))));
            all.insert(COORDINATOR, Box::new(Naive::new()));
        }
        Protocol::Saga => {
            ids().for_each(|id| drop(all.insert(id, Box::new(service(id)))));
            all.insert(COORDINATOR, Box::new(orchestrator()));
        }
        Protocol::TwoPhase | Protocol::Avoid => {
            let homes: Vec<Vec<NodeId>> = match protocol {
                // Everything in one partition.
                Protocol::Avoid => vec![ids().collect()],
                _ => ids().map(|id| vec![id]).collect(),
            };
            for (id, accounts) in (1..).map(NodeId).zip(homes) {
                all.insert(id, Box::new(participant(id, &accounts, None)));
            }
            all.insert(COORDINATOR, Box::new(coordinator()));
        }
        Protocol::ThreePhase => {
            ids().for_each(|id| drop(all.insert(id, Box::new(site(id, &[id])))));
            all.insert(COORDINATOR, Box::new(site(COORDINATOR, &[])));
        }
        Protocol::Replicated => {
            ids()
                .for_each(|id| drop(all.insert(id, Box::new(participant(id, &[id], Some(PROCESS_MESSAGE))))));
            let members: Vec<NodeId> = (0..3).map(|i| NodeId(COORDINATOR.0 + i)).collect();
            for id in members.clone() {
                let member = with_replicated_log!(log.name(), L => member::<L>(id, members.clone(), seed));
                all.insert(id, member.expect("a log's name is that of a protocol"));
            }
        }
    }
    all
}

fn bank(accounts: &[NodeId]) -> Bank {
    Bank::new(accounts.iter().map(|id| (account(*id), BALANCE)))
}

fn names(resource: &Bank) -> Vec<String> {
    Resource::locks(resource).into_iter().map(|(name, _)| name).collect()
}

fn encoded(asked: &Asked) -> Option<BTreeMap<NodeId, bytes::Bytes>> {
    match asked {
        Asked::Run(branches) => Some(branches.iter().map(|(id, work)| (*id, work.to_bytes())).collect()),
        Asked::Resume(..) => None,
    }
}

fn told(event: Event) -> Told {
    match event {
        Event::Opened { ticket, txn } => Told::Opened(ticket, txn.to_string()),
        Event::Refused { ticket, why } => Told::Refused(ticket, format!("{why:?}")),
        Event::Decided { txn, decision, answers, .. } => Told::Decided(txn.to_string(), decision, answers),
        Event::Worked { .. } | Event::Deposed { .. } => Told::Other,
    }
}

fn coordinator() -> Player<Coordinator> {
    let lens = Lens {
        request: |_, ticket, asked| Some(Request::Run { ticket, branches: encoded(asked)? }),
        locks: |_| Vec::new(),
        balances: |_| BTreeMap::new(),
    };
    Host::new(lens, told, Box::new(|_| Config::new(COORDINATOR)))
}

fn participant(id: NodeId, accounts: &[NodeId], envelope: Option<u8>) -> Player<Participant<Bank>> {
    let initial = bank(accounts);
    let lens = Lens {
        request: |_, _, _| None,
        locks: |bank: &Participant<Bank>| names(bank.resource()),
        balances: |bank| bank.resource().accounts().clone(),
    };
    let told = |event| match event {
        ParticipantEvent::Ended { txn, decision } => Told::Ended(txn.to_string(), decision),
        ParticipantEvent::Prepared { .. } => Told::Other,
        // Nobody decides by hand here.
        ParticipantEvent::Resolved { .. }
        | ParticipantEvent::NotResolved { .. }
        | ParticipantEvent::HeuristicDamage { .. } => Told::Other,
    };
    let config = move |_| ParticipantConfig::new(id, initial.clone());
    Host::new(lens, told, Box::new(config)).wrapped(envelope)
}

fn site(id: NodeId, accounts: &[NodeId]) -> Player<Site<Bank>> {
    let initial = bank(accounts);
    let lens = Lens {
        request: |_, ticket, asked| Some(three_phase::Run { ticket, branches: encoded(asked)? }),
        locks: |site: &Site<Bank>| names(site.resource()),
        balances: |site| site.resource().accounts().clone(),
    };
    let told = |event| match event {
        three_phase::Event::Opened { ticket, txn } => Told::Opened(ticket, txn.to_string()),
        three_phase::Event::Refused { ticket } => Told::Refused(ticket, "Busy".into()),
        three_phase::Event::Decided { txn, decision, answers, .. } => {
            Told::Decided(txn.to_string(), decision, answers)
        }
        three_phase::Event::Ended { txn, decision } => Told::Ended(txn.to_string(), decision),
        three_phase::Event::Prepared { .. } => Told::Other,
    };
    Host::new(lens, told, Box::new(move |_| three_phase::Config::new(id, initial.clone())))
}

fn member<L: ReplicatedLog + 'static>(id: NodeId, members: Vec<NodeId>, seed: u64) -> Box<dyn Actor> {
    let lens = Lens::<Replicated<L, Coordinator>> {
        request: |member, ticket, asked| {
            let branches = encoded(asked)?;
            member.process().map(|_| Request::Run { ticket, branches })
        },
        locks: |_| Vec::new(),
        balances: |_| BTreeMap::new(),
    };
    let told = |event| match event {
        replicated::Event::Process(event) => told(event),
        _ => Told::Other,
    };
    let config = move |life| replicated::Config {
        log: LogConfig::new(id, members.clone(), seed.wrapping_mul(1_000_003) ^ (id.0 << 32) ^ life),
        id: NodeId(999),
        process: Config { addresses: members.clone(), ..Config::new(NodeId(999)) },
    };
    Box::new(Host::new(lens, told, Box::new(config)))
}

fn service(id: NodeId) -> Player<BankService> {
    let lens = Lens {
        request: |_, _, _| None,
        locks: |_| Vec::new(),
        balances: |bank: &BankService| bank.accounts().clone(),
    };
    let told = |ServiceEvent::Moved { .. }| Told::Other;
    Host::new(lens, told, Box::new(move |_| ServiceConfig::new([(account(id), BALANCE)])))
}

fn orchestrator() -> Player<Orchestrator> {
    let lens = Lens {
        request: |_, ticket, asked| match asked {
            Asked::Run(branches) => Some(saga::Request::Begin { ticket, plan: plan(branches)? }),
            Asked::Resume(saga, step) => {
                Some(saga::Request::Resume { ticket, saga: *saga, step: step.clone() })
            }
        },
        locks: |_| Vec::new(),
        balances: |_| BTreeMap::new(),
    };
    let told = |event| match event {
        saga::Event::Began { ticket, saga } => Told::Opened(ticket, saga.to_string()),
        saga::Event::Refused { ticket, why } => Told::Refused(ticket, format!("{why:?}")),
        saga::Event::Ended { saga, outcome: saga::Outcome::Done } => {
            Told::Decided(saga.to_string(), Decision::Commit, BTreeMap::new())
        }
        saga::Event::Ended { saga, .. } => Told::Decided(saga.to_string(), Decision::Abort, BTreeMap::new()),
        saga::Event::Paused { saga, step, .. } => Told::Waits(saga, step),
        saga::Event::Agreed { .. } => Told::Other,
    };
    let timing = saga::Timing { attempts_max: ATTEMPTS_MAX, ..saga::Timing::default() };
    Host::new(lens, told, Box::new(move |_| saga::Config { timing, ..saga::Config::default() }))
}

/// Money leaves first, and arrives one bank after the other. A saga has no read of its own.
fn plan(branches: &Branches) -> Option<Plan> {
    let mut steps: Vec<Step> = Vec::new();
    for (name, service, action, undo) in movements(branches)? {
        let step = Step::new(&name, service, action.to_bytes(), undo.to_bytes());
        let last = steps.last().map(|last| last.name.clone());
        steps.push(match &last {
            Some(last) => step.after(&[last]),
            None => step,
        });
    }
    Some(Plan { steps })
}

/// Each movement with its name, where it is, and what undoes it; debits first. None if something is read.
pub(super) fn movements(branches: &Branches) -> Option<Vec<(String, NodeId, Movement, Movement)>> {
    let mut all = Vec::new();
    for (id, ops) in branches {
        for op in ops {
            let (account, fixed) = match op {
                BankOp::Debit { account, amount } | BankOp::Credit { account, amount } => {
                    (account.clone(), Amount::Fixed { units: *amount })
                }
                BankOp::Balance { .. } => return None,
            };
            let debit = Movement::Debit { account: account.clone(), amount: fixed.clone() };
            let credit = Movement::Credit { account: account.clone(), amount: fixed };
            let is_debit = matches!(op, BankOp::Debit { .. });
            let (name, action, undo) = match is_debit {
                true => (format!("out-{account}"), debit, credit),
                false => (format!("in-{account}"), credit, debit),
            };
            all.push((!is_debit, name, *id, action, undo));
        }
    }
    all.sort_by_key(|(order, ..)| *order);
    Some(all.into_iter().map(|(_, name, id, action, undo)| (name, id, action, undo)).collect())
}

/// The request's ticket as a name, for a protocol that has none.
pub(super) fn ticket_name(ticket: Ticket) -> String {
    format!("t{}", ticket.0)
}
