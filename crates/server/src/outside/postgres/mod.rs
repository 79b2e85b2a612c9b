//! A PostgreSQL database as a participant of two-phase commit.
//!
//! # The idea
//!
//! The promise of a yes vote is PostgreSQL's own `PREPARE TRANSACTION`: after it the transaction has its locks, survives a crash of the
//! server, and ends when somebody says `COMMIT PREPARED` or `ROLLBACK PREPARED`. The agent adds what that lacks:
//!
//! 1. *What became of it.* Once ended, a prepared transaction leaves nothing behind: "not found" may mean committed or rolled back. So a
//!    **mark** is written inside the transaction, which is there if and only if it committed. Where there is neither a
//!    prepared transaction nor a mark, nothing is acknowledged, and [`Postgres::lost`] says so. What people end is noted
//!    (`by_hand`).
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

mod by_hand;
mod ending;
mod marks;
mod register;
mod session;
mod voting;
mod work;

pub use by_hand::Damage;
pub use register::{Cannot, CannotUrl};

use bytes::Bytes;
use marks::{Name, Standing};
use session::{Failure, Session, Sessions};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use synod_protocols::NodeId;
use synod_protocols::commit::{Message, Peer, Refusal, Stamp, TxnId, Vote};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// Which.
    pub txn: TxnId,
    /// For how long, by the database's clock.
    pub age: Duration,
    /// Tables of which it holds rows, or more, locked; some 100 at the most. Which rows PostgreSQL does not list.
    pub locks: Vec<String>,
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
    /// Damage of which nobody was told yet.
    news: Vec<Damage>,
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
    /// The transaction is over, and forgotten but for what people have done.
    BelowFloor(Standing),
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
            let rows = session.within(session.client().query(PREPARED, &[])).await?;
            self.sessions.give_back(session);
            Ok(rows)
        };
        let rows = found.await.map_err(words)?;
        let in_doubt = |row: tokio_postgres::Row| {
            let txn = Name::parse(row.try_get(0).ok()?, self.participant)?;
            let seconds: f64 = row.try_get(1).ok()?;
            let age = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
            Some(InDoubt { txn, age, locks: row.try_get(2).ok()? })
        };
        let found: Vec<InDoubt> = rows.into_iter().filter_map(in_doubt).collect();
        Ok(found)
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

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
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
            Admission::BelowFloor(standing)
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

/// What is prepared, for how long, and of which tables it holds rows. Its locks are those of whoever holds that of its number without being a
/// session. Plain reads, and what only serializable transactions look at, are in nobody's way.
const PREPARED: &str = "\
SELECT p.gid, extract(epoch FROM now() - p.prepared)::float8, array(
  SELECT DISTINCT l.relation::regclass::text FROM pg_locks holder
  JOIN pg_locks l ON l.virtualtransaction = holder.virtualtransaction AND l.pid IS NULL
  JOIN pg_class c ON c.oid = l.relation
  WHERE holder.transactionid = p.transaction AND holder.granted AND holder.pid IS NULL AND l.locktype = 'relation'
    AND l.mode NOT IN ('AccessShareLock', 'SIReadLock') AND c.relkind IN ('r', 'p')
    AND c.relname NOT IN ('synod_transactions', 'synod_coordinators', 'synod_by_hand')
  ORDER BY 1 LIMIT 100)
FROM pg_prepared_xacts p WHERE p.database = current_database() AND p.gid LIKE 'synod/%' ORDER BY p.prepared";

const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE";

fn no(txn: TxnId, why: Refusal) -> Message {
    Message::Vote { txn, vote: Vote::No { why } }
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
        let is_free = agent.memory().busy.insert(txn);
        is_free.then(|| Turn { agent, txn })
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
