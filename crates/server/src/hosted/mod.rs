//! Transactions and sagas: the processes that this member runs on the cluster's log while it leads.
//!
//! # The idea
//!
//! A coordinator of two-phase commit, a participant for each keyspace on the log and an orchestrator of sagas are
//! [`Process`](synod_protocols::Process)es that know no log. What a step of theirs wants durable goes through the node as
//! a command; the state machine keeps it in a journal ([`synod_node::spaces`]); what the step sends and says waits until
//! it is applied. When another member begins to lead, it begins a *life* of each from those records, and finishes
//! what the first began. Which records count is decided by every member alike, with the same two parts that the
//! simulator runs ([`synod_protocols::replicated::Journal`] and [`synod_protocols::replicated::Tenant`]).
//!
//! # A keyspace's values
//!
//! The entry that carries a participant's commit carries the new values too, so that every member has them for reads of
//! its own. The leader's participant holds all values of its keyspace in memory, from the moment of its first
//! transaction in this term: **a keyspace on the log must fit the leader's memory**.
//!
//! A transaction on one keyspace is one entry: it is decided where it is done, in one phase. One on several is
//! prepared in one entry each, decided in one, and committed in one each; its client is answered when all keyspaces of
//! this cluster have applied it, so that whoever reads afterwards sees it.
//!
//! # Other clusters
//!
//! A keyspace of another cluster takes part with the same code as one here, and messages between the two go over HTTP
//! (`ways`). How its coordinator is reached is in a keyspace's log before it promises anything to that.
//!
//! # Where it runs
//!
//! All of it is one task on the member's thread (`host`; `coordinating` and `participants` are its processes). It hears from the node's answers, from clients and
//! from its clock through one queue, and changes nothing outside itself but by proposals and answers.

mod by_hand;
mod clients;
mod coordinating;
mod elsewhere;
mod host;
mod inspector;
mod life;
mod outside;
mod participants;
mod plan;
pub(crate) mod sagas;
mod service;
mod show;
mod ways;

pub(crate) use elsewhere::{endpoints, exchange};
pub(crate) use host::{Happened, Mailbox, Proposed, spawn};
pub(crate) use inspector::{BranchState, Picture, STATES, Seen, SeenBranch};
pub(crate) use plan::{Asked, Branch, Route, Work, check_key, takes_keys};
pub(crate) use show::label;

use crate::member::Member;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use synod_node::ClusterId;
use synod_protocols::NodeId;
use synod_protocols::commit::{Decision, Refusal, TxnId};
use synod_protocols::log::{Index, ReplicatedLog, Role};
use tokio::sync::oneshot;

/// How long a transaction may take at the most before it is aborted.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Participants of one transaction at the most.
pub(crate) const PARTICIPANTS_MAX: usize = 64;
/// Operations of one transaction at the most.
pub(crate) const OPS_MAX: usize = 10_000;

/// What a cluster's coordinator of transactions is called, here and elsewhere: not as a keyspace could be, since those are counted from 1.
pub(crate) fn coordinator_of(cluster: ClusterId) -> NodeId {
    NodeId((cluster.0 & (u64::MAX >> 1)).max(1))
}

/// How a transaction ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) txn: TxnId,
    pub(crate) decision: Decision,
    /// Why it aborted, for people.
    pub(crate) why: Option<String>,
    /// The refusal of the participant because of which it aborted.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) route: Route,
    /// What it read, by participant, in the order in which it was asked for. Nothing after an abort.
    pub(crate) answers: BTreeMap<String, Vec<Option<Bytes>>>,
    /// A state that has applied this entry shows what the transaction did.
    pub(crate) index: Index,
}

/// Why a transaction was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostedError {
    /// Another member leads, or none.
    NotLeader,
    /// Nothing was done: no life of the coordinator began in time.
    Unavailable,
    /// Nothing was done: the request is wrong, in these words.
    Refused { code: &'static str, why: String },
    /// Nothing was done: too large.
    TooLarge(String),
    /// Nothing was done: there is no such participant.
    Unknown(String),
    /// Nothing was done: too much is under way.
    Busy,
    /// It may have happened or not.
    UnknownOutcome,
    /// The member stops: it may have happened or not.
    Stopping,
}

/// Does work on participants, all of it or none. Only on the leader.
pub(crate) async fn run<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    branches: Vec<Branch>,
    route: Asked,
    timeout: Duration,
) -> Result<Ended, HostedError> {
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        let why = format!("a transaction may take up to {TIMEOUT_MAX:?}, and {timeout:?} were asked for");
        return Err(HostedError::Refused { code: "timeout", why });
    }
    if member.status().log.role != Role::Leader {
        return Err(HostedError::NotLeader);
    }
    let planned = plan::plan(member, branches, route)?;
    let (answer, ended) = oneshot::channel();
    let mailbox = member.calls.borrow().host.clone();
    mailbox.tell(Happened::Run(clients::Request { planned, timeout, answer }));
    ended.await.unwrap_or(Err(HostedError::Stopping))
}

/// How long a decision by hand may take.
const RULING_TIMEOUT: Duration = Duration::from_secs(10);

/// A person ends, at one participant, what is in doubt there. Only on the leader.
pub(crate) async fn resolve<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    txn: TxnId,
    participant: &str,
    decision: Decision,
) -> Result<(), HostedError> {
    let id = {
        let core = member.core.borrow();
        let registry = core.node.machine().registry();
        let space = registry.space(participant).filter(|space| space.model.is_on_log());
        let outside = || registry.outside().find(|outside| outside.name == participant);
        space.map(|space| space.id.0).or_else(|| outside().map(|outside| outside.id.0))
    };
    let id = id.ok_or_else(|| HostedError::Unknown(participant.to_owned()))?;
    let (answer, ended) = oneshot::channel();
    let mailbox = member.calls.borrow().host.clone();
    mailbox.tell(Happened::Ruled(by_hand::Ruling { participant: NodeId(id), txn, decision, answer }));
    let ended = tokio::time::timeout(RULING_TIMEOUT, ended).await;
    ended.map_err(|_| HostedError::UnknownOutcome)?.unwrap_or(Err(HostedError::Stopping))
}

/// Transactions that are not over, or that people have ended, as this member knows them: those that it coordinates, and those that
/// keyspaces here and databases have promised. Only on the leader.
pub(crate) async fn look<P: ReplicatedLog + 'static>(member: &Rc<Member<P>>) -> Result<Picture, HostedError> {
    let (answer, seen) = oneshot::channel();
    let mailbox = member.calls.borrow().host.clone();
    mailbox.tell(Happened::Look(answer));
    seen.await.map_err(|_| HostedError::Stopping)
}
