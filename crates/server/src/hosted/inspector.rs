//! The inspector: transactions that are not over, or that people have ended, as this member knows them.
//!
//! What the coordinator and the keyspaces here know is looked at in one moment. Databases are asked after it, and what is
//! prepared in them only since then by this cluster's coordinator is left out: its coordinator was not asked.

use super::host::Host;
use super::outside::Standing;
use crate::outside::InDoubt;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_node::spaces::SpaceId;
use synod_protocols::commit::{ByHand, Coordinator, Decision, OpenTxn, Phase, TxnId};
use synod_protocols::log::ReplicatedLog;
use synod_protocols::{NodeId, Time};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Who wants to know.
pub(crate) type Looker = oneshot::Sender<Picture>;

/// What is seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) transactions: Vec<Seen>,
    /// Databases that could not be asked what is in doubt there, and why.
    pub(crate) not_asked: Vec<(String, String)>,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) txn: TxnId,
    /// Whether this cluster coordinates it, or only takes part.
    pub(crate) role: &'static str,
    pub(crate) state: &'static str,
    /// Names, as far as they are known.
    pub(crate) participants: Vec<String>,
    /// Whose answer it waits for.
    pub(crate) waits_for: Vec<String>,
    /// Where its coordinator was last reached, if that is another cluster's and known here.
    pub(crate) coordinator_at: Vec<String>,
    /// Participant and what is locked there.
    pub(crate) locks: Vec<(String, String)>,
    pub(crate) age: Duration,
    /// Whether a promise here waits for a decision that is not known here.
    pub(crate) is_in_doubt: bool,
    /// What is known of its branches, by participant.
    pub(crate) branches: Vec<SeenBranch>,
}

/// What one participant has done of a transaction.
#[derive(Clone, Debug)]
pub(crate) struct SeenBranch {
    pub(crate) participant: String,
    pub(crate) state: BranchState,
}

/// How far that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BranchState {
    /// It has promised to commit, for so long.
    Prepared { age: Duration },
    /// A person has ended it, and nobody has confirmed that yet.
    ByHand { here: Decision },
    /// It has ended otherwise than its coordinator has decided. How is not known where it has vanished from a database.
    Damaged { here: Option<Decision>, decided: Decision },
}

impl Seen {
    /// Whether it is not over: it holds locks, or somebody is still to hear how it ends.
    pub(crate) fn is_open(&self) -> bool {
        self.state != DAMAGED && self.state != BY_HAND
    }

    /// Whether it is known to have ended otherwise at one participant than at others.
    pub(crate) fn is_damaged(&self) -> bool {
        self.branches.iter().any(|branch| matches!(branch.state, BranchState::Damaged { .. }))
    }
}

/// States of transactions of which only branches are known.
const PREPARED: &str = "prepared";
const BY_HAND: &str = "by-hand";
const DAMAGED: &str = "damaged";
/// Every state that a transaction may be shown in.
pub(crate) const STATES: [&str; 7] = ["open", "preparing", "alone", "committing", PREPARED, BY_HAND, DAMAGED];

/// How far a coordinator is, in a word.
pub(super) fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "open",
        Phase::Preparing => "preparing",
        Phase::Alone => "alone",
        Phase::Committing => "committing",
    }
}

impl<P: ReplicatedLog + 'static> Host<P> {
    /// Answers when the databases have, or their time is up.
    pub(super) fn look(&mut self, now: Time, answer: Looker) {
        let sketch = self.sketch(now);
        let mut asked = {
            let core = self.member.core.borrow();
            self.agents.ask_all(core.node.machine().registry())
        };
        let begun = Instant::now();
        tokio::task::spawn_local(async move {
            let mut sketch = sketch;
            while let Some(said) = asked.join_next().await {
                match said {
                    Ok((id, Ok(standing))) => sketch.add_database(id, standing, begun.elapsed()),
                    Ok((id, Err(why))) => sketch.not_asked.push((sketch.name(id), why)),
                    // The member stops.
                    Err(_) => return,
                }
            }
            // Whoever does not wait any more needs no answer.
            let _ = answer.send(sketch.finish());
        });
    }

    fn sketch(&self, now: Time) -> Sketch {
        let mut sketch = Sketch {
            names: self.names(),
            own: self.coordinator.id,
            knows_own: self.coordinator.running().is_some(),
            seen: BTreeMap::new(),
            not_asked: Vec::new(),
        };
        for open in self.coordinator.running().into_iter().flat_map(Coordinator::transactions) {
            let age = self.clients.age(now, open.txn).unwrap_or_default();
            sketch.add_open(open, age);
        }
        for (space, hosted) in &self.keyspaces {
            // One that was dropped may still live for a while.
            let id = NodeId(space.0);
            let Some(participant) = hosted.running().filter(|_| sketch.names.contains_key(&id)) else {
                continue;
            };
            for doubt in participant.in_doubt() {
                sketch.add_prepared(id, doubt.txn, now.since(doubt.since));
                sketch.seen(doubt.txn).coordinator_at = self.coordinator_at(*space, doubt.txn.coordinator);
            }
            participant.by_hand().into_iter().for_each(|one| sketch.add_by_hand(id, one));
            for (key, txn) in participant.locks() {
                sketch.add_lock(id, txn, key);
            }
        }
        sketch
    }

    /// Where a keyspace reaches a coordinator in another cluster.
    fn coordinator_at(&self, space: SpaceId, coordinator: NodeId) -> Vec<String> {
        let core = self.member.core.borrow();
        let contact = core.node.machine().contact(space, coordinator).ok().flatten();
        contact.map(|contact| contact.endpoints).unwrap_or_default()
    }
}

/// A picture that is not finished.
struct Sketch {
    names: BTreeMap<NodeId, String>,
    /// This cluster's coordinator.
    own: NodeId,
    /// Whether that lives, so that it is known which of its transactions are not over.
    knows_own: bool,
    seen: BTreeMap<TxnId, Seen>,
    not_asked: Vec<(String, String)>,
}

impl Sketch {
    fn name(&self, id: NodeId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// A transaction; at first one of which nothing but a branch is known.
    fn seen(&mut self, txn: TxnId) -> &mut Seen {
        let is_own = txn.coordinator == self.own;
        self.seen.entry(txn).or_insert_with(|| Seen {
            txn,
            role: if is_own { "coordinator" } else { "participant" },
            state: PREPARED,
            participants: Vec::new(),
            waits_for: Vec::new(),
            coordinator_at: Vec::new(),
            locks: Vec::new(),
            age: Duration::ZERO,
            is_in_doubt: false,
            branches: Vec::new(),
        })
    }

    /// One that the coordinator here has not ended.
    fn add_open(&mut self, open: OpenTxn, age: Duration) {
        let participants = open.participants.iter().map(|id| self.name(*id)).collect();
        let waits_for = open.waits_for.iter().map(|id| self.name(*id)).collect();
        let seen = self.seen(open.txn);
        (seen.state, seen.age) = (state(open.phase), age);
        (seen.participants, seen.waits_for) = (participants, waits_for);
    }

    fn add_branch(&mut self, id: NodeId, txn: TxnId, state: BranchState) -> &mut Seen {
        let participant = self.name(id);
        let seen = self.seen(txn);
        if !seen.participants.contains(&participant) {
            seen.participants.push(participant.clone());
        }
        seen.branches.push(SeenBranch { participant, state });
        seen
    }

    fn add_prepared(&mut self, id: NodeId, txn: TxnId, age: Duration) {
        let seen = self.add_branch(id, txn, BranchState::Prepared { age });
        seen.age = seen.age.max(age);
    }

    fn add_by_hand(&mut self, id: NodeId, one: ByHand) {
        let ByHand { txn, decision: here, is_damage } = one;
        let decided = if here == Decision::Commit { Decision::Abort } else { Decision::Commit };
        self.add_branch(
            id,
            txn,
            match is_damage {
                true => BranchState::Damaged { here: Some(here), decided },
                false => BranchState::ByHand { here },
            },
        );
    }

    /// Locks of what nobody has promised are of this moment, and shown only where the coordinator is here.
    fn add_lock(&mut self, id: NodeId, txn: TxnId, key: String) {
        let participant = self.name(id);
        if let Some(seen) = self.seen.get_mut(&txn) {
            seen.locks.push((participant, key));
        }
    }

    /// What a database has said, so long after the rest was looked at.
    fn add_database(&mut self, id: NodeId, standing: Standing, later: Duration) {
        let is_too_late = |one: &InDoubt| {
            let is_open = !self.knows_own || self.seen.contains_key(&one.txn);
            one.txn.coordinator == self.own && !is_open && one.age <= later
        };
        let in_doubt: Vec<InDoubt> = standing.in_doubt.into_iter().filter(|one| !is_too_late(one)).collect();
        for one in in_doubt {
            self.add_prepared(id, one.txn, one.age);
            one.locks.into_iter().for_each(|table| self.add_lock(id, one.txn, format!("rows of {table}")));
        }
        standing.by_hand.into_iter().for_each(|one| self.add_by_hand(id, one));
        for txn in standing.lost {
            let damaged = BranchState::Damaged { here: None, decided: Decision::Commit };
            self.add_branch(id, txn, damaged);
        }
    }

    fn finish(mut self) -> Picture {
        let mut transactions: Vec<Seen> = std::mem::take(&mut self.seen).into_values().collect();
        for seen in transactions.iter_mut().filter(|seen| seen.state == PREPARED) {
            let is_prepared = |branch: &SeenBranch| matches!(branch.state, BranchState::Prepared { .. });
            if seen.branches.iter().any(is_prepared) {
                seen.is_in_doubt = true;
                seen.waits_for = vec![self.name(seen.txn.coordinator)];
            } else {
                seen.state = if seen.is_damaged() { DAMAGED } else { BY_HAND };
            }
        }
        Picture { transactions, not_asked: self.not_asked }
    }
}
