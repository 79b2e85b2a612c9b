//! Work, promises, and decisions of the only participant.

use super::marks::{self, Mark, Name};
use super::session::{Failure, Session};
use super::work::{self, Sql};
use super::{Admission, Answer, BEGIN, OPEN_MAX, Open, Order, Postgres, Promise, REMEMBERED_MAX, no};
use bytes::Bytes;
use std::time::Instant;
use synod_protocols::commit::{Decision, Message, Outcome, Peer, Refusal, Stamp, TxnId, Vote};
use tokio_postgres::error::SqlState;

/// What the coordinator says before it decides.
impl Postgres {
    /// A piece of work before phase 1, in a session that stays open.
    pub(super) async fn on_work(&self, order: Order, sequence: u64, work: &Bytes) -> Answer {
        let Order { txn, .. } = order;
        let standing = match self.admit(order).await {
            Ok(Admission::Yes(standing)) => standing,
            other => return self.not_admitted(txn, other, true),
        };
        if standing.is_prepared {
            return Ok(None);
        }
        let taken = self.memory().open.remove(&txn);
        let done = taken.as_ref().map_or(0, |open| open.answers.len() as u64);
        if sequence > done || standing.mark.is_some() {
            // A crash has lost what came before, or the transaction is over.
            return Ok(Some(no(txn, Refusal::Over)));
        }
        let mut open = match taken {
            Some(open) => open,
            None => match self.open(work).await {
                Ok(open) => open,
                Err(failure) => return Ok(Some(no(txn, failure.refusal()))),
            },
        };
        if sequence == done {
            let answer = match work::parse(work) {
                Ok(statements) => work::run(&mut open.session, &statements).await,
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(answer) => open.answers.push(answer),
                // The session goes, and with it all that the transaction did.
                Err(failure) => return Ok(Some(no(txn, failure.refusal()))),
            }
        } else if sequence + 1 < done {
            self.memory().open.insert(txn, open);
            return Ok(None);
        }
        let answer = open.answers[sequence as usize].clone();
        self.memory().open.insert(txn, open);
        Ok(Some(Message::Worked { txn, sequence, life: self.life, answer }))
    }

    async fn open(&self, work: &Bytes) -> Result<Open, Failure> {
        work::parse(work)?;
        {
            let mut memory = self.memory();
            // PostgreSQL has ended these sessions itself.
            memory.open.retain(|_, open| open.since.elapsed() < self.timing.open * 4);
            if memory.open.len() >= OPEN_MAX {
                return Err(Failure::Busy);
            }
        }
        let session = self.sessions.to_work().await?;
        session.execute(BEGIN).await?;
        Ok(Open { session, answers: Vec::new(), since: Instant::now() })
    }

    /// Phase 1.
    pub(super) async fn on_prepare(
        &self,
        order: Order,
        peers: Vec<Peer>,
        life: u64,
        work: Option<Bytes>,
    ) -> Answer {
        let Order { txn, name, .. } = order;
        let may_be_prepared = self.memory().promises.contains_key(&txn);
        let standing = match self.admit(order).await {
            Ok(Admission::Yes(standing)) => standing,
            other => return self.not_admitted(txn, other, !may_be_prepared),
        };
        // Whoever lost the yes of what a person has committed here may still commit, and a no would make that sure to be damage.
        if standing.is_prepared || standing.by_hand == Some(Decision::Commit) {
            return Ok(Some(self.yes(txn)));
        }
        if self.memory().read_only.contains(&txn) {
            return Ok(Some(Message::Vote { txn, vote: Vote::ReadOnly }));
        }
        let open = self.memory().open.remove(&txn);
        if standing.mark.is_some() {
            return Ok(Some(no(txn, Refusal::Over)));
        }
        let done = match (work, open) {
            (Some(work), _) => self.begin(name, &work).await,
            (None, Some(open)) if life == self.life => {
                if self.is_read_only(&open.session).await {
                    return Ok(Some(self.vote_read_only(txn, open).await));
                }
                self.mark(name, open).await
            }
            (None, _) => return Ok(Some(no(txn, Refusal::Over))),
        };
        match done {
            Ok((session, answer)) => self.promise(txn, name, Promise { answer, peers }, session).await,
            Err(failure) if failure.is(&SqlState::UNIQUE_VIOLATION) || may_be_prepared => {
                self.vote_again(txn, name, failure).await
            }
            Err(failure) => {
                let why = failure.refusal();
                self.remember_abort(name, &why).await;
                Ok(Some(no(txn, why)))
            }
        }
    }

    /// The transaction with its mark and its work, in a session where it is open.
    async fn begin(&self, name: Name, work: &[u8]) -> Result<(Session, Bytes), Failure> {
        let statements = work::parse(work)?;
        let mut session = self.sessions.to_work().await?;
        session.execute(BEGIN).await?;
        marks::mark_commit(&mut session, name).await.map_err(of_the_mark)?;
        let answer = work::run(&mut session, &statements).await.map_err(of_the_work);
        self.or_roll_back(session, answer).await
    }

    /// The work was done before.
    async fn mark(&self, name: Name, mut open: Open) -> Result<(Session, Bytes), Failure> {
        marks::mark_commit(&mut open.session, name).await.map_err(of_the_mark)?;
        Ok((open.session, open.answers.pop().unwrap_or_default()))
    }

    /// What was refused is undone at once, and its session kept.
    async fn or_roll_back<T>(
        &self,
        session: Session,
        done: Result<T, Failure>,
    ) -> Result<(Session, T), Failure> {
        match done {
            Ok(done) => Ok((session, done)),
            Err(failure @ Failure::Lost(_)) => Err(failure),
            Err(failure) => {
                if session.execute("ROLLBACK").await.is_ok() {
                    self.sessions.give_back(session);
                }
                Err(failure)
            }
        }
    }

    /// A yes is said when PostgreSQL has promised, or when it is found to have.
    async fn promise(&self, txn: TxnId, name: Name, promise: Promise, session: Session) -> Answer {
        {
            let mut memory = self.memory();
            if memory.promises.len() >= REMEMBERED_MAX {
                return Ok(Some(no(txn, Refusal::Busy)));
            }
            memory.promises.insert(txn, promise);
        }
        match session.execute(&format!("PREPARE TRANSACTION '{}'", name.gid())).await {
            Ok(()) => {
                self.sessions.give_back(session);
                Ok(Some(self.yes(txn)))
            }
            Err(failure @ Failure::Lost(_)) => self.vote_again(txn, name, failure).await,
            Err(failure) => {
                self.memory().promises.remove(&txn);
                Ok(Some(no(txn, failure.refusal())))
            }
        }
    }

    /// Something went wrong, and an earlier attempt may have succeeded.
    async fn vote_again(&self, txn: TxnId, name: Name, failure: Failure) -> Answer {
        let standing = self.look_up(txn, name).await?;
        match (standing.is_prepared, standing.mark) {
            (true, _) => Ok(Some(self.yes(txn))),
            (false, Some(_)) => Ok(Some(no(txn, Refusal::Over))),
            // The work was refused under the mark, so that no earlier attempt is left.
            (false, None) if matches!(failure, Failure::Declined(_)) => {
                self.memory().promises.remove(&txn);
                Ok(Some(no(txn, failure.refusal())))
            }
            (false, None) => Err(failure),
        }
    }

    fn yes(&self, txn: TxnId) -> Message {
        let answer = self.memory().promises.get(&txn).map(|promise| promise.answer.clone());
        Message::Vote { txn, vote: Vote::Yes { answer: answer.unwrap_or_default() } }
    }

    async fn is_read_only(&self, session: &Session) -> bool {
        let sql = "SELECT pg_current_xact_id_if_assigned() IS NULL";
        let row = session.within(session.client().query_one(sql, &[])).await;
        row.is_ok_and(|row| row.try_get(0).unwrap_or(false)) && self.memory().read_only.len() < REMEMBERED_MAX
    }

    /// Remembered by this life: nobody may be told that such a transaction was never voted for.
    async fn vote_read_only(&self, txn: TxnId, open: Open) -> Message {
        // Whether what it read was all there at one moment PostgreSQL says at the end.
        match open.session.execute("COMMIT").await {
            Ok(()) => {
                self.sessions.give_back(open.session);
                self.memory().read_only.insert(txn);
                Message::Vote { txn, vote: Vote::ReadOnly }
            }
            Err(failure) => no(txn, failure.refusal()),
        }
    }

    /// The only participant decides. Both outcomes are durable before they are told.
    pub(super) async fn on_one_phase(&self, order: Order, life: u64, work: Option<Bytes>) -> Answer {
        let Order { stamp, txn, name } = order;
        let standing = match self.admit(order).await {
            Ok(Admission::Yes(standing)) => standing,
            other => return self.not_admitted(txn, other, false),
        };
        match standing.mark {
            Some(mark @ Mark::Committed { .. }) => return Ok(Some(finished(txn, mark))),
            Some(Mark::Aborted { why }) => {
                return Ok(self.abort(txn, name, &why).await?.map(|mark| finished(txn, mark)));
            }
            None => {}
        }
        let open = self.memory().open.remove(&txn);
        let done = match (work, open) {
            (Some(work), _) => self.commit_alone(stamp, txn, name, &work).await,
            (None, Some(open)) if life == self.life => match self.mark(name, open).await {
                Ok((session, answer)) => self.commit_with(session, name, answer).await,
                Err(failure) => Err(failure),
            },
            (None, _) => Err(Failure::Declined("its earlier work was lost in a crash".into())),
        };
        match done {
            Ok(answer) => Ok(Some(finished(txn, Mark::Committed { answer }))),
            // It has said no, but another session may have been faster, with whatever result.
            Err(failure @ (Failure::Refused { .. } | Failure::Declined(_))) => {
                let mark = self.abort(txn, name, &failure.refusal()).await?;
                Ok(mark.map(|mark| finished(txn, mark)))
            }
            Err(failure) => {
                let standing = self.look_up(txn, name).await?;
                standing.mark.map(|mark| Some(finished(txn, mark))).ok_or(failure)
            }
        }
    }

    async fn commit_alone(
        &self,
        stamp: Stamp,
        txn: TxnId,
        name: Name,
        work: &[u8],
    ) -> Result<Bytes, Failure> {
        let statements: Vec<Sql> = work::parse(work)?;
        let mut session = self.sessions.to_work().await?;
        session.execute(BEGIN).await?;
        // See the module: here the fence must not move before the end.
        let fence = marks::hold_fence(&mut session, txn, name).await.map_err(of_the_mark)?;
        if fence.is_none_or(|fence| fence.epoch > stamp.epoch || txn < fence.floor) {
            return Err(Failure::Lost("a later life of the coordinator was heard of".into()));
        }
        marks::mark_commit(&mut session, name).await.map_err(of_the_mark)?;
        let answer = work::run(&mut session, &statements).await.map_err(of_the_work);
        let (session, answer) = self.or_roll_back(session, answer).await?;
        self.commit_with(session, name, answer).await
    }

    async fn commit_with(&self, mut session: Session, name: Name, answer: Bytes) -> Result<Bytes, Failure> {
        marks::remember_answer(&mut session, name, &answer).await?;
        session.execute("COMMIT").await?;
        self.sessions.give_back(session);
        Ok(answer)
    }
}

/// The mark could not be written: there is one, or somebody is writing it.
fn of_the_mark(failure: Failure) -> Failure {
    match failure {
        failure if failure.is(&SqlState::UNIQUE_VIOLATION) => failure,
        Failure::Refused { why, .. } => Failure::Lost(format!("an earlier attempt is not over: {why}")),
        failure => failure,
    }
}

/// The work's own violations are not those of the mark.
fn of_the_work(failure: Failure) -> Failure {
    match failure {
        Failure::Refused { why, .. } => Failure::Declined(why),
        failure => failure,
    }
}

fn finished(txn: TxnId, mark: Mark) -> Message {
    let outcome = match mark {
        Mark::Committed { answer } => Outcome::Committed { answer },
        Mark::Aborted { why } => Outcome::Aborted { why },
    };
    Message::Finished { txn, outcome }
}
