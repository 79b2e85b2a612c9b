//! How transactions end, and who is told.

use super::marks::{self, Mark, Name};
use super::session::Failure;
use super::{Admission, Answer, Order, Postgres, Promise};
use synod_protocols::NodeId;
use synod_protocols::commit::{Decision, Message, Refusal, TxnId};
use tokio_postgres::error::SqlState;

/// What the coordinator has decided.
impl Postgres {
    /// Phase 2.
    pub(super) async fn on_decide(&self, order: Order, decision: Decision) -> Answer {
        let Order { txn, name, .. } = order;
        // What is open is undone, whoever says so: the coordinator that opened it has ended it.
        if decision == Decision::Abort {
            self.memory().open.remove(&txn);
        }
        let (standing, is_below_floor) = match self.admit(order).await {
            Ok(Admission::Yes(standing)) => (standing, false),
            // What an earlier life has left behind is below the floor of a later one.
            Ok(Admission::BelowFloor(standing)) => (standing, true),
            other => return self.not_admitted(txn, other, false),
        };
        let was_prepared = self.end(txn, name, decision).await?;
        let here = standing.by_hand.or(standing.mark.as_ref().map(Mark::decision));
        match decision {
            Decision::Abort if !was_prepared && here == Some(Decision::Commit) => {
                self.contradict(txn, name, Decision::Commit).await?;
                Ok(None)
            }
            Decision::Abort => {
                if standing.by_hand.is_some() {
                    self.confirm(name).await?;
                }
                // The rollback may have overtaken `Prepare`, which must find the transaction over.
                if !is_below_floor {
                    self.remember_abort(name, &Refusal::Over).await;
                }
                Ok(None)
            }
            Decision::Commit if was_prepared => Ok(Some(self.acknowledge(txn))),
            // Below the floor the mark is forgotten, but a commit that is said again was carried out.
            Decision::Commit if is_below_floor && standing.by_hand.is_none() => {
                Ok(Some(self.acknowledge(txn)))
            }
            Decision::Commit => self.acknowledge_mark(txn, name).await,
        }
    }

    /// What is not prepared was committed before if there is its mark, and only then. What a person has ended otherwise is acknowledged
    /// too: the coordinator may forget its decision, since it was heard, and the damage is durable.
    async fn acknowledge_mark(&self, txn: TxnId, name: Name) -> Answer {
        let standing = self.look_up(txn, name).await?;
        match (standing.by_hand, standing.mark) {
            (Some(Decision::Commit), _) => self.confirm(name).await?,
            (Some(Decision::Abort), _) => self.contradict(txn, name, Decision::Abort).await?,
            (None, Some(Mark::Committed { .. })) => {}
            (None, None) if standing.is_prepared => return Ok(None),
            (None, _) => {
                self.lose(txn);
                return Err(Failure::Declined(format!(
                    "{txn} was committed, and is neither prepared nor marked in {}: it was ended by hand, or this is \
                     another database. Nothing is acknowledged: compare the data, and mend them by hand",
                    self.url
                )));
            }
        }
        Ok(Some(self.acknowledge(txn)))
    }

    fn acknowledge(&self, txn: TxnId) -> Message {
        self.memory().lost.remove(&txn);
        Message::Ack { txn }
    }

    /// Ends what is prepared; `false` if nothing is.
    pub(super) async fn end(&self, txn: TxnId, name: Name, decision: Decision) -> Result<bool, Failure> {
        let session = self.sessions.to_decide().await?;
        let words = match decision {
            Decision::Commit => "COMMIT PREPARED",
            Decision::Abort => "ROLLBACK PREPARED",
        };
        let ended = session.execute(&format!("{words} '{}'", name.gid())).await;
        let was_prepared = match ended {
            Ok(()) => true,
            Err(failure) if failure.is(&SqlState::UNDEFINED_OBJECT) => false,
            // Another session is at it, or it is not known: asked again.
            Err(failure) => return Err(failure),
        };
        self.sessions.give_back(session);
        self.memory().promises.remove(&txn);
        Ok(was_prepared)
    }

    /// Aborts what is not prepared, durably, unless it has ended otherwise. Returns how it ended. If it is being
    /// prepared just now, this waits for that, and fails.
    pub(super) async fn abort(&self, txn: TxnId, name: Name, why: &Refusal) -> Result<Option<Mark>, Failure> {
        let mut session = self.sessions.to_decide().await?;
        marks::mark_abort(&mut session, name, why).await?;
        let standing = marks::look_up(&mut session, txn, name).await?;
        self.sessions.give_back(session);
        Ok(standing.mark)
    }

    /// So that a late message finds the transaction over. This need not be durable before somebody relies on it: if it this fails, or is forgotten, the message is
    /// handled as if it were the first, and its transaction ends as the coordinator says: aborted.
    pub(super) async fn remember_abort(&self, name: Name, why: &Refusal) {
        if let Ok(mut session) = self.sessions.to_decide().await
            && marks::mark_abort_soon(&mut session, name, why).await.is_ok()
        {
            self.sessions.give_back(session);
        }
    }
}

/// What other participants say: cooperative termination.
impl Postgres {
    /// If this one has not voted it never will, durably; if it has voted yes it does not know either.
    pub(super) async fn on_ask(&self, txn: TxnId, name: Name, life: u64) -> Answer {
        if self.memory().read_only.contains(&txn) {
            return Ok(None);
        }
        let standing = self.look_up(txn, name).await?;
        let is_below_floor = standing.fence.is_some_and(|fence| txn < fence.floor);
        let may_be_forgotten = is_below_floor || life != 0 && life != self.life;
        // What a person has decided here is a guess, and no answer.
        let is_unknown = standing.is_prepared || standing.by_hand.is_some();
        if is_unknown || standing.mark.is_none() && may_be_forgotten {
            return Ok(None);
        }
        let mark = match standing.mark {
            Some(mark @ Mark::Committed { .. }) => Some(mark),
            Some(Mark::Aborted { why }) => self.abort(txn, name, &why).await?,
            None => {
                self.memory().open.remove(&txn);
                self.abort(txn, name, &Refusal::Over).await?
            }
        };
        Ok(mark.map(|mark| match mark {
            Mark::Committed { .. } => Message::Tell { txn, decision: Decision::Commit },
            Mark::Aborted { .. } => Message::Tell { txn, decision: Decision::Abort },
        }))
    }

    pub(super) async fn on_tell(&self, from: NodeId, txn: TxnId, name: Name, decision: Decision) -> Answer {
        let asked = |promise: &Promise| promise.peers.iter().any(|peer| peer.id == from);
        let is_peer = self.memory().promises.get(&txn).is_some_and(asked);
        if is_peer && self.end(txn, name, decision).await? && decision == Decision::Abort {
            self.remember_abort(name, &Refusal::Over).await;
        }
        Ok(None)
    }
}
