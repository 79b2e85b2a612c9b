//! What people end in the database, and what it does to atomicity.
//!
//! What a person has ended through the agent is kept in the database, as a **note**: a row of `synod_by_hand`. It is a guess. It is told to nobody
//! who asks, and the coordinator is asked how the transaction has ended. Where that agrees, the note is removed before anything is acknowledged;
//! where it does not, the note says from then on that the transaction is atomic no more.
//!
//! A note is written when the transaction *has* been ended by hand, not before: what was noted, and then ended by its coordinator, would be asked
//! about when the coordinator has forgotten it, and the answer, a presumed abort, be taken for damage. So a crash between the two leaves no
//! note, and the person an error.
//!
//! Whoever ends a prepared transaction with SQL leaves no note. A commit is found out if the coordinator aborts it, by its mark; a rollback, if the
//! coordinator commits it: then there is nothing at all, and [`Postgres::lost`] says so.

use super::marks::{self, Name};
use super::session::Failure;
use super::{Postgres, Turn, words};
use synod_protocols::commit::{ByHand, CannotResolve, Decision, Refusal, TxnId};

/// A transaction that has ended here otherwise than its coordinator has decided: it is atomic no more, and only people can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which.
    pub txn: TxnId,
    /// How it has ended here. None if it is neither prepared nor marked: somebody has rolled it back with SQL, or this is not the database that promised.
    pub here: Option<Decision>,
    /// How its coordinator has decided.
    pub decided: Decision,
}

/// For people.
impl Postgres {
    /// Ends by hand what is in doubt: if its coordinator decides otherwise, atomicity is broken. Says why not, if it is not in doubt.
    ///
    /// # Errors
    /// Why it is not known to have ended, or not noted as ended by hand, for people.
    pub async fn resolve(&self, txn: TxnId, decision: Decision) -> Result<Result<(), CannotResolve>, String> {
        let Some(name) = Name::of(txn, self.participant) else { return Ok(Err(CannotResolve::Unknown)) };
        let busy = || format!("{txn} is being handled: try again");
        let _turn = Turn::take(self, txn).ok_or_else(busy)?;
        if !self.end(txn, name, decision).await.map_err(words)? {
            let standing = self.look_up(txn, name).await.map_err(words)?;
            let over = standing.mark.map(|mark| CannotResolve::Over { decision: mark.decision() });
            return Ok(Err(over.unwrap_or(CannotResolve::Unknown)));
        }
        let noted = async {
            if decision == Decision::Abort {
                self.abort(txn, name, &Refusal::Over).await?;
            }
            self.note(name, decision, false).await
        };
        match noted.await {
            Ok(_) => Ok(Ok(())),
            Err(failure) => Err(format!(
                "{txn} was ended here ({decision}), but that this was by hand could not be noted: whether its coordinator decides otherwise \
                 will not be asked. {}",
                words(failure)
            )),
        }
    }

    /// What people have ended through any agent of this participant, and its coordinator has not confirmed: some 1,000 at the most, the
    /// oldest first. The coordinator of what is no damage yet is to be asked ([`synod_protocols::commit::Message::Ask`]), and its answer to be handled.
    ///
    /// # Errors
    /// What keeps the database from being asked, for people.
    pub async fn by_hand(&self) -> Result<Vec<ByHand>, String> {
        let found = async {
            let session = self.sessions.to_decide().await?;
            let notes = marks::notes(&session, self.participant).await?;
            self.sessions.give_back(session);
            Ok(notes)
        };
        found.await.map_err(words)
    }

    /// Transactions that their coordinator has committed, and that are neither prepared nor marked here: somebody has rolled them back with
    /// SQL, or this is not the database that promised. Their atomicity is broken, and only people can mend it.
    pub fn lost(&self) -> Vec<TxnId> {
        self.memory().lost.iter().copied().collect()
    }

    /// The damage that was found out since this was asked the last time: each once in an agent's life, and what was by hand once in all.
    pub fn take_news(&self) -> Vec<Damage> {
        std::mem::take(&mut self.memory().news)
    }
}

/// What the coordinator has to say of it.
impl Postgres {
    /// It has ended here as its coordinator has decided.
    pub(super) async fn confirm(&self, name: Name) -> Result<(), Failure> {
        let mut session = self.sessions.to_decide().await?;
        marks::forget_note(&mut session, name).await?;
        self.sessions.give_back(session);
        Ok(())
    }

    /// It has ended otherwise here. That is durable when this returns.
    pub(super) async fn contradict(&self, txn: TxnId, name: Name, here: Decision) -> Result<(), Failure> {
        if self.note(name, here, true).await? {
            let decided = match here {
                Decision::Commit => Decision::Abort,
                Decision::Abort => Decision::Commit,
            };
            self.memory().news.push(Damage { txn, here: Some(here), decided });
        }
        Ok(())
    }

    /// Its coordinator has committed it, and there is nothing of it here.
    pub(super) fn lose(&self, txn: TxnId) {
        let mut memory = self.memory();
        if memory.lost.insert(txn) {
            memory.news.push(Damage { txn, here: None, decided: Decision::Commit });
        }
    }

    /// Whether the note says something new.
    async fn note(&self, name: Name, here: Decision, is_damage: bool) -> Result<bool, Failure> {
        let mut session = self.sessions.to_decide().await?;
        let is_new = marks::note(&mut session, name, here == Decision::Commit, is_damage).await?;
        self.sessions.give_back(session);
        Ok(is_new)
    }
}
