//! Who plays in which protocol: the machines, and how each is looked at.

use super::actor::{Actor, Branches, Host, Lens, Told};
use super::naive::Naive;
use super::{BALANCE, Protocol, account};
use std::collections::BTreeMap;
use synod_protocols::Wire;
use synod_protocols::commit::three_phase::{self, Site};
use synod_protocols::commit::{
    Bank, BankOp, Config, Coordinator, Decision, Event, Participant, ParticipantConfig, ParticipantEvent,
    Request, Resource,
};
use synod_protocols::log::{LogConfig, Ticket};
use synod_protocols::raft::Raft;
use synod_protocols::replicated::{self, Replicated};
use synod_protocols::saga::{
    self, Amount, BankService, Movement, Orchestrator, Plan, ServiceConfig, ServiceEvent, Step,
};
use synod_protocols::types::NodeId;

/// Machines that coordinate have ids from here on; banks count from 1.
pub(super) const COORDINATOR: NodeId = NodeId(100);

/// What stands before a process's own message in the replicated coordinator's.
const PROCESS_MESSAGE: u8 = 2;

/// The machines of a protocol between so many banks.
pub(super) fn machines(protocol: Protocol, banks: u64, seed: u64) -> BTreeMap<NodeId, Box<dyn Actor>> {
    let mut all: BTreeMap<NodeId, Box<dyn Actor>> = BTreeMap::new();
    let ids = || (1..=banks).map(NodeId);
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
                all.insert(id, Box::new(member(id, members.clone(), seed)));
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

fn encoded(branches: &Branches) -> BTreeMap<NodeId, bytes::Bytes> {
    branches.iter().map(|(id, work)| (*id, work.to_bytes())).collect()
}

fn told(event: Event) -> Told {
    match event {
        Event::Opened { ticket, txn } => Told::Opened(ticket, txn.to_string()),
        Event::Refused { ticket, why } => Told::Refused(ticket, format!("{why:?}")),
        Event::Decided { txn, decision, answers, .. } => Told::Decided(txn.to_string(), decision, answers),
        Event::Worked { .. } | Event::Deposed { .. } => Told::Other,
    }
}

fn coordinator() -> Host<Coordinator> {
    Host::new(Lens {
        config: Box::new(|_| Config::new(COORDINATOR)),
        request: |_, ticket, branches| Some(Request::Run { ticket, branches: encoded(branches) }),
        told,
        locks: |_| Vec::new(),
        balances: |_| BTreeMap::new(),
        envelope: None,
    })
}

fn participant(id: NodeId, accounts: &[NodeId], envelope: Option<u8>) -> Host<Participant<Bank>> {
    let initial = bank(accounts);
    Host::new(Lens {
        config: Box::new(move |_| ParticipantConfig::new(id, initial.clone())),
        request: |_, _, _| None,
        told: |event| match event {
            ParticipantEvent::Ended { txn, decision } => Told::Ended(txn.to_string(), decision),
            ParticipantEvent::Prepared { .. } => Told::Other,
        },
        locks: |bank| names(bank.resource()),
        balances: |bank| bank.resource().accounts().clone(),
        envelope,
    })
}

fn site(id: NodeId, accounts: &[NodeId]) -> Host<Site<Bank>> {
    let initial = bank(accounts);
    Host::new(Lens {
        config: Box::new(move |_| three_phase::Config::new(id, initial.clone())),
        request: |_, ticket, branches| Some(three_phase::Run { ticket, branches: encoded(branches) }),
        told: |event| match event {
            three_phase::Event::Opened { ticket, txn } => Told::Opened(ticket, txn.to_string()),
            three_phase::Event::Refused { ticket } => Told::Refused(ticket, "Busy".into()),
            three_phase::Event::Decided { txn, decision, answers, .. } => {
                Told::Decided(txn.to_string(), decision, answers)
            }
            three_phase::Event::Ended { txn, decision } => Told::Ended(txn.to_string(), decision),
            three_phase::Event::Prepared { .. } => Told::Other,
        },
        locks: |site| names(site.resource()),
        balances: |site| site.resource().accounts().clone(),
        envelope: None,
    })
}

fn member(id: NodeId, members: Vec<NodeId>, seed: u64) -> Host<Replicated<Raft, Coordinator>> {
    Host::new(Lens {
        config: Box::new(move |life| replicated::Config {
            log: LogConfig::new(id, members.clone(), seed.wrapping_mul(1_000_003) ^ (id.0 << 32) ^ life),
            id: NodeId(999),
            process: Config { addresses: members.clone(), ..Config::new(NodeId(999)) },
        }),
        request: |member, ticket, branches| {
            member.process().map(|_| Request::Run { ticket, branches: encoded(branches) })
        },
        told: |event| match event {
            replicated::Event::Process(event) => told(event),
            _ => Told::Other,
        },
        locks: |_| Vec::new(),
        balances: |_| BTreeMap::new(),
        envelope: None,
    })
}

fn service(id: NodeId) -> Host<BankService> {
    Host::new(Lens {
        config: Box::new(move |_| ServiceConfig::new([(account(id), BALANCE)])),
        request: |_, _, _| None,
        told: |event| match event {
            ServiceEvent::Moved { .. } => Told::Other,
        },
        locks: |_| Vec::new(),
        balances: |bank| bank.accounts().clone(),
        envelope: None,
    })
}

fn orchestrator() -> Host<Orchestrator> {
    Host::new(Lens {
        config: Box::new(|_| saga::Config::default()),
        request: |_, ticket, branches| Some(saga::Request::Begin { ticket, plan: plan(branches)? }),
        told: |event| match event {
            saga::Event::Began { ticket, saga } => Told::Opened(ticket, saga.to_string()),
            saga::Event::Refused { ticket, why } => Told::Refused(ticket, format!("{why:?}")),
            saga::Event::Ended { saga, outcome: saga::Outcome::Done } => {
                Told::Decided(saga.to_string(), Decision::Commit, BTreeMap::new())
            }
            saga::Event::Ended { saga, .. } => {
                Told::Decided(saga.to_string(), Decision::Abort, BTreeMap::new())
            }
            saga::Event::Paused { .. } | saga::Event::Agreed { .. } => Told::Other,
        },
        locks: |_| Vec::new(),
        balances: |_| BTreeMap::new(),
        envelope: None,
    })
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
