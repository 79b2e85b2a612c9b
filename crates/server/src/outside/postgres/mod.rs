//! A PostgreSQL database as a participant of two-phase commit.
//!
//! # The idea
//!
//! The promise of a yes vote is PostgreSQL's own `PREPARE TRANSACTION`: after it the transaction has its locks, survives a crash of the
//! server, and ends when somebody says `COMMIT PREPARED` or `ROLLBACK PREPARED`. The agent adds what that lacks:
//!
//! 1. *What became of it.* Once ended, a prepared transaction leaves nothing behind: "not found" may mean committed or rolled back. So a
//!    **mark** is written inside the transaction, which is there if and only if it committed. Where there is neither a
//!    prepared transaction nor a mark, nothing is acknowledged, and [`Postgres::lost`] says so.
//! 2. *Nothing happens twice.* The mark's key is the transaction's name, and it is written first. Whoever comes later, or at the same
//!    time on a connection that was given up for lost, meets it: so a late or repeated `Prepare` finds the transaction over.
//! 3. *One coordinator.* Its latest life is a **fence** in the database too, with its floor: marks below that are forgotten.
//! 4. *Nobody waits for ever.* Every lock, statement and answer has a timeout. A lock that is held by another is a no vote.
//!
//! # Lost connections
//!
//! Before `PREPARE TRANSACTION` was sent nothing is promised: PostgreSQL rolls back what a lost connection leaves. If it was sent and not
//! answered, the agent looks it up, and while it finds nothing it says nothing: the old session may still be at it. A transaction that is
//! prepared although nobody wants it any more is found by [`Postgres::in_doubt`], and ends as the coordinator says, which presumes abort.
//!
//! # Why a check of the fence before the work is enough
//!
//! A yes vote that leaves just after a later life was heard of is like one that left before and was slow on the way, which the protocol
//! bears. A commit in one phase is not a vote, so there the fence is held, by a lock on its row, until the commit.
//!
//! # Isolation
//!
//! Transactions are serializable in each database. Across databases that holds for what they write, and for what they read with
//! `FOR SHARE` or `FOR UPDATE`, since those locks are held until the decision; plain reads at two databases may see two moments.
//!
//! # What it leaves out
//!
//! Encrypted connections; waiting for locks beyond the timeout; databases whose standby takes over without all that the
//! primary had promised (replicate them synchronously).

mod marks;
mod register;
mod session;
mod work;

pub use register::{Cannot, CannotUrl};

use bytes::Bytes;
use marks::{Mark, Name, Standing};
use session::{Failure, Session, Sessions};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use synod_protocols::NodeId;
use synod_protocols::commit::{Decision, Message, Outcome, Peer, Refusal, Stamp, TxnId, Vote};
use tokio_postgres::error::SqlState;
use work::Sql;

/// Transactions whose work is done piece by piece, each of which keeps a session; more are refused as busy.
const OPEN_MAX: usize = 8;
/// Promises, and read-only votes, that are remembered; at the bound new ones are refused as busy.
const REMEMBERED_MAX: usize = 65_536;
/// Marks are forgotten when the floor has passed so many.
const FORGET_EVERY: u64 = 256;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a lock that another transaction holds, before the vote is no. Default 500 ms.
    pub lock: Duration,
    /// One statement, and waiting for a session. Default 2 s.
    pub statement: Duration,
    /// PostgreSQL's answer to anything, before the connection is given up for lost. Default 5 s.
    pub answer: Duration,
    /// How long work before phase 1 may hold locks and be idle. Default 5 s.
    pub open: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            lock: Duration::from_millis(500),
            statement: Duration::from_secs(2),
            answer: Duration::from_secs(5),
            open: Duration::from_secs(5),
        }
    }
}

/// A transaction that is prepared in the database: it holds its locks until it is told how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// Which.
    pub txn: TxnId,
    /// For how long, by the database's clock.
    pub age: Duration,
}

/// The agent of one database.
pub struct Postgres {
    participant: NodeId,
    url: String,
    /// Of this agent: what was open in another one is lost.
    life: u64,
    sessions: Sessions,
    timing: Timing,
    memory: Mutex<Memory>,
}

/// What the agent may forget: everything here can be asked for again, or is not needed by a later life.
#[derive(Default)]
struct Memory {
    /// Transactions of which a message is being handled.
    busy: BTreeSet<TxnId>,
    /// Work that was done before phase 1.
    open: BTreeMap<TxnId, Open>,
    promises: BTreeMap<TxnId, Promise>,
    read_only: BTreeSet<TxnId>,
    lost: BTreeSet<TxnId>,
    trouble: Option<String>,
}

impl Memory {
    fn forget_below(&mut self, floor: TxnId) {
        let is_kept = |txn: &TxnId| txn.coordinator != floor.coordinator || *txn >= floor;
        self.read_only.retain(is_kept);
        self.promises.retain(|txn, _| is_kept(txn));
    }
}

struct Open {
    session: Session,
    answers: Vec<Bytes>,
    since: Instant,
}

/// A promise, from when PostgreSQL is asked for it.
struct Promise {
    answer: Bytes,
    peers: Vec<Peer>,
}

/// What a coordinator wants done, and by what right.
#[derive(Clone, Copy)]
struct Order {
    stamp: Stamp,
    txn: TxnId,
    name: Name,
}

/// Whether an order is to be followed.
enum Admission {
    Yes(Standing),
    /// There is a later life of the coordinator.
    Fenced(u64),
    /// The transaction is over, and forgotten.
    BelowFloor,
}

type Answer = Result<Option<Message>, Failure>;

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("participant", &self.participant).field("url", &self.url).finish()
    }
}

/// For hosts and people.
impl Postgres {
    /// Handles one message, and returns what is to be sent back to `from`: nothing where it is not known what became of something, or where
    /// another message about the same transaction is being handled. The sender asks again.
    ///
    /// Needs a tokio runtime with I/O and time. May be dropped at any moment.
    pub async fn handle(&self, from: NodeId, message: Message) -> Vec<Message> {
        let Some(txn) = subject(&message) else { return Vec::new() };
        let Some(name) = Name::of(txn, self.participant) else { return Vec::new() };
        let Some(_turn) = Turn::take(self, txn) else { return Vec::new() };
        let answer = match message {
            Message::Work { stamp, sequence, work, .. } => {
                self.on_work(Order { stamp, txn, name }, sequence, &work).await
            }
            Message::Prepare { stamp, peers, life, work, .. } => {
                self.on_prepare(Order { stamp, txn, name }, peers, life, work).await
            }
            Message::OnePhase { stamp, life, work, .. } => {
                self.on_one_phase(Order { stamp, txn, name }, life, work).await
            }
            Message::Decide { stamp, decision, .. } => {
                self.on_decide(Order { stamp, txn, name }, decision).await
            }
            Message::Ask { life, .. } => self.on_ask(txn, name, life).await,
            Message::Tell { decision, .. } => self.on_tell(from, txn, name, decision).await,
            _ => Ok(None),
        };
        let mut memory = self.memory();
        match answer {
            Ok(answer) => {
                memory.trouble = None;
                answer.into_iter().collect()
            }
            Err(failure) => {
                memory.trouble = Some(words(failure));
                Vec::new()
            }
        }
    }

    /// What is prepared in the database by this participant, whoever prepared it: the coordinator of each is to be asked ([`Message::Ask`]) and its
    /// answer to be handled. What is young may just be waiting for the votes of others, and its coordinator then says nothing.
    ///
    /// # Errors
    /// What keeps the database from being asked, for people.
    pub async fn in_doubt(&self) -> Result<Vec<InDoubt>, String> {
        let found = async {
            let session = self.sessions.to_decide().await?;
            let sql = "SELECT gid, extract(epoch FROM now() - prepared)::float8 FROM pg_prepared_xacts \
                       WHERE database = current_database() AND gid LIKE 'synod/%' ORDER BY prepared";
            let rows = session.within(session.client().query(sql, &[])).await?;
            self.sessions.give_back(session);
            Ok(rows)
        };
        let rows = found.await.map_err(words)?;
        let in_doubt = |row: tokio_postgres::Row| {
            let txn = Name::parse(row.try_get(0).ok()?, self.participant)?;
            let seconds: f64 = row.try_get(1).ok()?;
            Some(InDoubt { txn, age: Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default() })
        };
        let found: Vec<InDoubt> = rows.into_iter().filter_map(in_doubt).collect();
        Ok(found)
    }

    /// Transactions that their coordinator has committed, and that are neither prepared nor marked here: somebody has rolled them back by
    /// hand, or this is not the database that promised. Their atomicity is broken, and only people can mend it.
    pub fn lost(&self) -> Vec<TxnId> {
        self.memory().lost.iter().copied().collect()
    }

    /// Why the database could not be asked the last time, if it could not.
    pub fn trouble(&self) -> Option<String> {
        self.memory().trouble.clone()
    }

    /// Where the database is, without the password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The agent's life, which goes with work that is done piece by piece.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Ends by hand what is in doubt: if its coordinator decides otherwise, atomicity is broken. Returns whether it was in doubt.
    ///
    /// # Errors
    /// Why it is not known to have ended, for people.
    pub async fn resolve(&self, txn: TxnId, decision: Decision) -> Result<bool, String> {
        let Some(name) = Name::of(txn, self.participant) else { return Ok(false) };
        let busy = || format!("{txn} is being handled: try again");
        let _turn = Turn::take(self, txn).ok_or_else(busy)?;
        let was_prepared = self.end(txn, name, decision).await.map_err(words)?;
        if was_prepared && decision == Decision::Abort {
            self.abort(txn, name, &Refusal::Over).await.map_err(words)?;
        }
        Ok(was_prepared)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the coordinator says.
impl Postgres {
    /// A piece of work before phase 1, in a session that stays open.
    async fn on_work(&self, order: Order, sequence: u64, work: &Bytes) -> Answer {
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
    async fn on_prepare(&self, order: Order, peers: Vec<Peer>, life: u64, work: Option<Bytes>) -> Answer {
        let Order { txn, name, .. } = order;
        let may_be_prepared = self.memory().promises.contains_key(&txn);
        let standing = match self.admit(order).await {
            Ok(Admission::Yes(standing)) => standing,
            other => return self.not_admitted(txn, other, !may_be_prepared),
        };
        if standing.is_prepared {
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
    async fn on_one_phase(&self, order: Order, life: u64, work: Option<Bytes>) -> Answer {
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

    /// Phase 2.
    async fn on_decide(&self, order: Order, decision: Decision) -> Answer {
        let Order { txn, name, .. } = order;
        // What is open is undone, whoever says so: the coordinator that opened it has ended it.
        if decision == Decision::Abort {
            self.memory().open.remove(&txn);
        }
        let is_below_floor = match self.admit(order).await {
            Ok(Admission::Yes(_)) => false,
            // What an earlier life has left behind is below the floor of a later one.
            Ok(Admission::BelowFloor) => true,
            other => return self.not_admitted(txn, other, false),
        };
        let was_prepared = self.end(txn, name, decision).await?;
        match decision {
            // The rollback may have overtaken `Prepare`, which must find the transaction over.
            Decision::Abort if is_below_floor => Ok(None),
            Decision::Abort => {
                self.remember_abort(name, &Refusal::Over).await;
                Ok(None)
            }
            // Below the floor the mark is forgotten, but a commit that is said again was carried out.
            Decision::Commit if was_prepared || is_below_floor => Ok(Some(self.acknowledge(txn))),
            Decision::Commit => self.acknowledge_mark(txn, name).await,
        }
    }

    /// What is not prepared was committed before if there is its mark, and only then.
    async fn acknowledge_mark(&self, txn: TxnId, name: Name) -> Answer {
        let standing = self.look_up(txn, name).await?;
        match standing.mark {
            Some(Mark::Committed { .. }) => Ok(Some(self.acknowledge(txn))),
            None if standing.is_prepared => Ok(None),
            _ => {
                self.memory().lost.insert(txn);
                Err(Failure::Declined(format!(
                    "{txn} was committed, and is neither prepared nor marked in {}: it was ended by hand, or this is \
                     another database. Nothing is acknowledged: compare the data, and mend them by hand",
                    self.url
                )))
            }
        }
    }

    fn acknowledge(&self, txn: TxnId) -> Message {
        self.memory().lost.remove(&txn);
        Message::Ack { txn }
    }

    /// Ends what is prepared; `false` if nothing is.
    async fn end(&self, txn: TxnId, name: Name, decision: Decision) -> Result<bool, Failure> {
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
    async fn abort(&self, txn: TxnId, name: Name, why: &Refusal) -> Result<Option<Mark>, Failure> {
        let mut session = self.sessions.to_decide().await?;
        marks::mark_abort(&mut session, name, why).await?;
        let standing = marks::look_up(&mut session, txn, name).await?;
        self.sessions.give_back(session);
        Ok(standing.mark)
    }

    /// So that a late message finds the transaction over. This need not be durable before somebody relies on it: if it this fails, or is forgotten, the message is
    /// handled as if it were the first, and its transaction ends as the coordinator says: aborted.
    async fn remember_abort(&self, name: Name, why: &Refusal) {
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
    async fn on_ask(&self, txn: TxnId, name: Name, life: u64) -> Answer {
        if self.memory().read_only.contains(&txn) {
            return Ok(None);
        }
        let standing = self.look_up(txn, name).await?;
        let is_below_floor = standing.fence.is_some_and(|fence| txn < fence.floor);
        let may_be_forgotten = is_below_floor || life != 0 && life != self.life;
        if standing.is_prepared || standing.mark.is_none() && may_be_forgotten {
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

    async fn on_tell(&self, from: NodeId, txn: TxnId, name: Name, decision: Decision) -> Answer {
        let asked = |promise: &Promise| promise.peers.iter().any(|peer| peer.id == from);
        let is_peer = self.memory().promises.get(&txn).is_some_and(asked);
        if is_peer && self.end(txn, name, decision).await? && decision == Decision::Abort {
            self.remember_abort(name, &Refusal::Over).await;
        }
        Ok(None)
    }
}

/// Fences and floors.
impl Postgres {
    /// Whether the order is one to follow, and how its transaction stands.
    async fn admit(&self, order: Order) -> Result<Admission, Failure> {
        let Order { stamp, txn, name } = order;
        if stamp.floor.coordinator != txn.coordinator {
            return Err(Failure::Declined("a coordinator speaks of another one's floor".into()));
        }
        let standing = self.look_up(txn, name).await?;
        let is_due = |fence: Stamp| {
            fence.epoch < stamp.epoch
                || fence.floor.epoch < stamp.floor.epoch
                || fence.floor.epoch == stamp.floor.epoch
                    && fence.floor.number.saturating_add(FORGET_EVERY) <= stamp.floor.number
        };
        let fence = match standing.fence {
            Some(fence) if !is_due(fence) => fence,
            _ => {
                let mut session = self.sessions.to_decide().await?;
                let fence = marks::raise(&mut session, stamp, name).await?;
                self.sessions.give_back(session);
                self.memory().forget_below(fence.floor);
                fence
            }
        };
        Ok(if fence.epoch > stamp.epoch {
            Admission::Fenced(fence.epoch)
        } else if txn < fence.floor.max(stamp.floor) {
            Admission::BelowFloor
        } else {
            Admission::Yes(standing)
        })
    }

    /// What is said to an order that is not followed. A no only where nothing can have been promised.
    fn not_admitted(&self, txn: TxnId, admission: Result<Admission, Failure>, may_say_no: bool) -> Answer {
        match admission {
            Ok(Admission::Fenced(epoch)) => {
                self.memory().open.remove(&txn);
                Ok(Some(Message::Fenced { coordinator: txn.coordinator, epoch }))
            }
            Ok(_) => Ok(None),
            Err(failure @ (Failure::Unreachable(_) | Failure::Busy | Failure::Refused { .. }))
                if may_say_no =>
            {
                Ok(Some(no(txn, failure.refusal())))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Asks twice, since a session that was idle may have died meanwhile.
    async fn look_up(&self, txn: TxnId, name: Name) -> Result<Standing, Failure> {
        for _ in 0..2 {
            let mut session = self.sessions.to_decide().await?;
            match marks::look_up(&mut session, txn, name).await {
                Ok(standing) => {
                    self.sessions.give_back(session);
                    return Ok(standing);
                }
                Err(Failure::Lost(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Unreachable("PostgreSQL cannot be reached: connections are lost at once".into()))
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE";

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

fn no(txn: TxnId, why: Refusal) -> Message {
    Message::Vote { txn, vote: Vote::No { why } }
}

fn finished(txn: TxnId, mark: Mark) -> Message {
    let outcome = match mark {
        Mark::Committed { answer } => Outcome::Committed { answer },
        Mark::Aborted { why } => Outcome::Aborted { why },
    };
    Message::Finished { txn, outcome }
}

fn words(failure: Failure) -> String {
    match failure.refusal() {
        Refusal::Declined { why } => why,
        _ => "too much is under way at this database: try again".into(),
    }
}

/// Which transaction a message to a participant is about.
fn subject(message: &Message) -> Option<TxnId> {
    match message {
        Message::Work { txn, stamp, .. }
        | Message::Prepare { txn, stamp, .. }
        | Message::OnePhase { txn, stamp, .. } => (stamp.epoch == txn.epoch).then_some(*txn),
        Message::Decide { txn, .. } | Message::Ask { txn, .. } | Message::Tell { txn, .. } => Some(*txn),
        _ => None,
    }
}

/// The right to handle a transaction's message: one at a time.
struct Turn<'a> {
    agent: &'a Postgres,
    txn: TxnId,
}

impl<'a> Turn<'a> {
    fn take(agent: &'a Postgres, txn: TxnId) -> Option<Turn<'a>> {
        agent.memory().busy.insert(txn).then_some(Turn { agent, txn })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.agent.memory().busy.remove(&self.txn);
    }
}

fn new_life() -> u64 {
    RandomState::new().build_hasher().finish() | 1
}
