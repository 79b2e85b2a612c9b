//! Agents of participants outside: they live while this member leads, and are made anew from the registry by the next leader.

use super::host::{Happened, Mailbox};
use crate::outside::{Description, InDoubt, Postgres, Timing};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use synod_node::spaces::Registry;
use synod_protocols::commit::{ByHand, Message, Outcome, Refusal, TxnId, Vote};
use synod_protocols::{NodeId, Time};
use tokio::task::JoinSet;

/// How often it is asked what is in doubt outside. The first time is when this member begins to lead.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// How long a database may take to say what is in doubt there, when people want to know.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// What a database and its agent know of transactions.
pub(super) struct Standing {
    pub(super) in_doubt: Vec<InDoubt>,
    /// What people have ended there, and nobody has confirmed.
    pub(super) by_hand: Vec<ByHand>,
    /// Commits of which there is nothing there.
    pub(super) lost: Vec<TxnId>,
}

#[derive(Default)]
pub(super) struct Agents {
    databases: BTreeMap<NodeId, Database>,
    swept: Option<Time>,
}

struct Database {
    /// Of which it was made: the registry may change.
    description: Bytes,
    agent: Arc<Postgres>,
}

impl Agents {
    /// Another member leads now.
    pub(super) fn forget(&mut self) {
        *self = Agents::default();
    }

    /// When it is to be asked what is in doubt, if there is anybody to ask.
    pub(super) fn deadline(&self, registry: &Registry) -> Option<Time> {
        let due = self.swept.map_or(Time::ZERO, |swept| swept + SWEEP_EVERY);
        registry.outside().next().map(|_| due)
    }

    /// Hands a message to an agent, whose answers come back by the mailbox.
    pub(super) fn send(
        &mut self,
        registry: &Registry,
        mailbox: &Mailbox,
        (from, to): (NodeId, NodeId),
        message: Message,
    ) {
        let Some(agent) = self.database(registry, to) else {
            if let Some(message) = decline(&message) {
                mailbox.tell(Happened::Message { from: to, to: from, message });
            }
            return;
        };
        let mailbox = mailbox.clone();
        tokio::task::spawn_local(async move {
            for message in agent.handle(from, message).await {
                mailbox.tell(Happened::Message { from: to, to: from, message });
            }
            for damage in agent.take_news() {
                mailbox.tell(Happened::Damaged { participant: to, damage });
            }
        });
    }

    /// Asks the coordinator, on behalf of the databases, about all that is prepared in them, and all that people have ended there.
    pub(super) fn sweep(&mut self, now: Time, registry: &Registry, mailbox: &Mailbox, coordinator: NodeId) {
        if self.deadline(registry).is_none_or(|due| due > now) {
            return;
        }
        self.swept = Some(now);
        for (id, agent) in self.all(registry) {
            let mailbox = mailbox.clone();
            tokio::task::spawn_local(async move {
                // A database that is away is asked again.
                let Ok(standing) = standing(&agent).await else { return };
                let guesses = standing.by_hand.iter().filter(|one| !one.is_damage).map(|one| one.txn);
                for txn in standing.in_doubt.iter().map(|one| one.txn).chain(guesses) {
                    let message = Message::Ask { txn, life: 0 };
                    mailbox.tell(Happened::Message { from: id, to: coordinator, message });
                }
            });
        }
    }

    /// Asks all databases how transactions stand there: each says so, or why it could not be asked.
    pub(super) fn ask_all(&mut self, registry: &Registry) -> JoinSet<(NodeId, Result<Standing, String>)> {
        let mut asked = JoinSet::new();
        for (id, agent) in self.all(registry) {
            asked.spawn_local(async move {
                let standing = tokio::time::timeout(LOOK_PATIENCE, standing(&agent)).await;
                let no_answer = |_| Err(format!("it does not answer within {LOOK_PATIENCE:?}"));
                (id, standing.unwrap_or_else(no_answer))
            });
        }
        asked
    }

    /// Agents of all databases that are registered. Those of others are forgotten.
    fn all(&mut self, registry: &Registry) -> Vec<(NodeId, Arc<Postgres>)> {
        let ids: Vec<NodeId> = registry.outside().map(|outside| NodeId(outside.id.0)).collect();
        self.databases.retain(|id, _| ids.contains(id));
        ids.into_iter().filter_map(|id| Some((id, self.database(registry, id)?))).collect()
    }

    pub(super) fn database(&mut self, registry: &Registry, id: NodeId) -> Option<Arc<Postgres>> {
        let outside = registry.outside().find(|outside| outside.id.0 == id.0)?;
        if let Some(known) = self.databases.get(&id)
            && known.description == outside.description
        {
            return Some(Arc::clone(&known.agent));
        }
        let Ok(Description::Postgres { url }) = Description::parse(&outside.description) else { return None };
        let agent = Arc::new(Postgres::new(&url, id, Timing::default()).ok()?);
        let (description, known) = (outside.description.clone(), Arc::clone(&agent));
        self.databases.insert(id, Database { description, agent: known });
        Some(agent)
    }
}

async fn standing(agent: &Postgres) -> Result<Standing, String> {
    let (in_doubt, by_hand) = (agent.in_doubt().await?, agent.by_hand().await?);
    Ok(Standing { in_doubt, by_hand, lost: agent.lost() })
}

/// What is not a database has never promised anything.
fn decline(message: &Message) -> Option<Message> {
    let why = || Refusal::Declined { why: "it takes part in sagas only, not in transactions".into() };
    match message {
        Message::Prepare { txn, .. } | Message::Work { txn, .. } => {
            Some(Message::Vote { txn: *txn, vote: Vote::No { why: why() } })
        }
        Message::OnePhase { txn, .. } => {
            Some(Message::Finished { txn: *txn, outcome: Outcome::Aborted { why: why() } })
        }
        _ => None,
    }
}
