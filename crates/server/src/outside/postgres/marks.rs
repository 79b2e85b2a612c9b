//! What the agent writes into the database: names, marks and fences.
//!
//! A **mark** is a row of `synod_transactions`, written first of all inside the transaction that it speaks of, so that it is there if
//! and only if the transaction committed. Its key keeps out whoever does the same work at the same time, a session that was given up
//! for lost included: PostgreSQL lets the second wait for the end of the first. A mark of an abort is written after it.
//!
//! A **note** is a row of `synod_by_hand`: a person has ended the transaction, and it is not known yet that its coordinator did so too.
//!
//! A **fence** is a row of `synod_coordinators`: the coordinator's latest life, and its floor.

use super::session::{Failure, Session};
use bytes::Bytes;
use synod_protocols::NodeId;
use synod_protocols::commit::{ByHand, Decision, Refusal, Stamp, TxnId};
use synod_protocols::wire::Wire;
use tokio_postgres::Row;

/// The tables, made when the database is registered.
pub(super) const TABLES: &str = "\
CREATE TABLE IF NOT EXISTS synod_coordinators (
  coordinator bigint, participant bigint, epoch bigint NOT NULL, floor_epoch bigint NOT NULL, floor_number bigint NOT NULL,
  PRIMARY KEY (coordinator, participant));
CREATE TABLE IF NOT EXISTS synod_transactions (
  coordinator bigint, participant bigint, epoch bigint, number bigint, committed boolean NOT NULL, detail bytea NOT NULL,
  ended timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (coordinator, participant, epoch, number));
CREATE TABLE IF NOT EXISTS synod_by_hand (
  coordinator bigint, participant bigint, epoch bigint, number bigint, committed boolean NOT NULL, contradicted boolean NOT NULL,
  noted timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (coordinator, participant, epoch, number));";

/// All of it in one question: the fence, the mark, the note, and whether the transaction is prepared. The last is looked up live, the
/// others in a snapshot: of a transaction that ends meanwhile all of them may be missing, so that says nothing.
const LOOK_UP: &str = "\
SELECT c.epoch, c.floor_epoch, c.floor_number, t.committed, t.detail, p.gid IS NOT NULL, n.committed
FROM (VALUES (1)) AS one
LEFT JOIN synod_coordinators c ON c.coordinator = $1 AND c.participant = $2
LEFT JOIN synod_transactions t ON t.coordinator = $1 AND t.participant = $2 AND t.epoch = $3 AND t.number = $4
LEFT JOIN synod_by_hand n ON n.coordinator = $1 AND n.participant = $2 AND n.epoch = $3 AND n.number = $4
LEFT JOIN pg_prepared_xacts p ON p.gid = $5 AND p.database = current_database()";

/// Raises the fence, and forgets the marks that the new floor has passed, together.
const RAISE: &str = "\
WITH raised AS (
  INSERT INTO synod_coordinators AS known VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (coordinator, participant) DO UPDATE SET
    epoch = greatest(known.epoch, excluded.epoch),
    (floor_epoch, floor_number) = (
      SELECT f.epoch, f.number
      FROM (VALUES (known.floor_epoch, known.floor_number), (excluded.floor_epoch, excluded.floor_number)) AS f (epoch, number)
      ORDER BY f.epoch DESC, f.number DESC LIMIT 1)
  RETURNING epoch, floor_epoch, floor_number
), forgotten AS (
  DELETE FROM synod_transactions t USING raised
  WHERE t.coordinator = $1 AND t.participant = $2 AND (t.epoch, t.number) < (raised.floor_epoch, raised.floor_number)
)
SELECT epoch, floor_epoch, floor_number FROM raised";

/// Nobody may raise the fence while a transaction that takes this ends.
const HOLD_FENCE: &str = "SELECT epoch, floor_epoch, floor_number FROM synod_coordinators WHERE coordinator = $1 AND participant = $2 FOR SHARE";

/// What becomes a promise or a commit.
const MARK_COMMIT: &str = "INSERT INTO synod_transactions VALUES ($1, $2, $3, $4, true, '')";
const DETAIL: &str = "UPDATE synod_transactions SET detail = $5 WHERE coordinator = $1 AND participant = $2 AND epoch = $3 AND number = $4";
/// Durable when it returns, also if there is a mark of an abort already that perhaps is not.
const MARK_ABORT: &str = "\
INSERT INTO synod_transactions AS t VALUES ($1, $2, $3, $4, false, $5)
ON CONFLICT (coordinator, participant, epoch, number) DO UPDATE SET ended = now() WHERE NOT t.committed";
/// Durable some time after it returned.
const MARK_ABORT_SOON: &str = "\
INSERT INTO synod_transactions
SELECT $1, $2, $3, $4, false, $5 WHERE set_config('synchronous_commit', 'off', true) IS NOT NULL
ON CONFLICT DO NOTHING";

/// Gives a row if it says something new.
const NOTE: &str = "\
INSERT INTO synod_by_hand AS n VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (coordinator, participant, epoch, number) DO UPDATE SET contradicted = true
  WHERE excluded.contradicted AND NOT n.contradicted
RETURNING contradicted";
const FORGET_NOTE: &str = "\
DELETE FROM synod_by_hand
WHERE coordinator = $1 AND participant = $2 AND epoch = $3 AND number = $4 AND NOT contradicted";
const NOTES: &str = "\
SELECT coordinator, epoch, number, committed, contradicted FROM synod_by_hand WHERE participant = $1 ORDER BY noted LIMIT 1000";

/// A transaction's branch at this participant, as the database knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    coordinator: i64,
    participant: i64,
    epoch: i64,
    number: i64,
}

impl Name {
    /// `None` if a number is beyond what the database can hold: nobody counts that far.
    pub(super) fn of(txn: TxnId, participant: NodeId) -> Option<Name> {
        let number = |value: u64| i64::try_from(value).ok();
        Some(Name {
            coordinator: number(txn.coordinator.0)?,
            participant: number(participant.0)?,
            epoch: number(txn.epoch)?,
            number: number(txn.number)?,
        })
    }

    /// Under which the transaction is prepared. It is unique on the whole server, where other databases, and other participants,
    /// may have branches of the same transaction. Needs no quoting.
    pub(super) fn gid(self) -> String {
        format!("synod/{:x}/{}.{}/{}", self.coordinator, self.epoch, self.number, self.participant)
    }

    /// The transaction of a prepared branch, if it is one of this participant's.
    pub(super) fn parse(gid: &str, participant: NodeId) -> Option<TxnId> {
        let mut parts = gid.strip_prefix("synod/")?.split('/');
        let (coordinator, txn, of) = (parts.next()?, parts.next()?, parts.next()?);
        let (epoch, number) = txn.split_once('.')?;
        let txn = TxnId {
            coordinator: NodeId(u64::from_str_radix(coordinator, 16).ok()?),
            epoch: epoch.parse().ok()?,
            number: number.parse().ok()?,
        };
        // A name that would be written otherwise is not ours.
        let is_ours = of.parse() == Ok(participant.0) && Name::of(txn, participant)?.gid() == gid;
        is_ours.then_some(txn)
    }
}

/// What became of a transaction here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Committed { answer: Bytes },
    Aborted { why: Refusal },
}

impl Mark {
    pub(super) fn decision(&self) -> Decision {
        match self {
            Mark::Committed { .. } => Decision::Commit,
            Mark::Aborted { .. } => Decision::Abort,
        }
    }
}

/// What the database knows of a transaction.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) fence: Option<Stamp>,
    pub(super) mark: Option<Mark>,
    pub(super) is_prepared: bool,
    /// How a person has ended it, if it is not known that its coordinator did so too.
    pub(super) by_hand: Option<Decision>,
}

fn decision(committed: bool) -> Decision {
    if committed { Decision::Commit } else { Decision::Abort }
}

fn fence(row: &Row, coordinator: NodeId) -> Option<Stamp> {
    let number = |place: usize| row.try_get::<_, Option<i64>>(place).ok().flatten().map(|value| value as u64);
    let floor = TxnId { coordinator, epoch: number(1)?, number: number(2)? };
    Some(Stamp { epoch: number(0)?, floor })
}

pub(super) async fn look_up(session: &mut Session, txn: TxnId, name: Name) -> Result<Standing, Failure> {
    let Name { coordinator, participant, epoch, number } = name;
    let row = session.ask(LOOK_UP, &[&coordinator, &participant, &epoch, &number, &name.gid()]).await?;
    let row = row.ok_or_else(|| Failure::Lost("a question without an answer".into()))?;
    let read = |error| Failure::of(&error);
    let committed: Option<bool> = row.try_get(3).map_err(read)?;
    let detail = Bytes::from(row.try_get::<_, Option<Vec<u8>>>(4).map_err(read)?.unwrap_or_default());
    let mark = committed.map(|committed| match committed {
        true => Mark::Committed { answer: detail },
        false => Mark::Aborted { why: Refusal::from_bytes(detail).unwrap_or(Refusal::Over) },
    });
    let (is_prepared, noted) =
        (row.try_get(5).map_err(read)?, row.try_get::<_, Option<bool>>(6).map_err(read)?);
    let by_hand = noted.map(decision);
    Ok(Standing { fence: fence(&row, txn.coordinator), mark, is_prepared, by_hand })
}

/// Makes the fence durable, and returns what it is then.
pub(super) async fn raise(session: &mut Session, stamp: Stamp, name: Name) -> Result<Stamp, Failure> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (epoch, floor_epoch) = (number(stamp.epoch), number(stamp.floor.epoch));
    let floor_number = number(stamp.floor.number);
    let Name { coordinator, participant, .. } = name;
    let row = session.ask(RAISE, &[&coordinator, &participant, &epoch, &floor_epoch, &floor_number]).await?;
    Ok(row.and_then(|row| fence(&row, stamp.floor.coordinator)).unwrap_or(stamp))
}

/// Reads the fence, and keeps it as it is until the transaction ends.
pub(super) async fn hold_fence(
    session: &mut Session,
    txn: TxnId,
    name: Name,
) -> Result<Option<Stamp>, Failure> {
    let row = session.ask(HOLD_FENCE, &[&name.coordinator, &name.participant]).await?;
    Ok(row.and_then(|row| fence(&row, txn.coordinator)))
}

/// Writes, inside the transaction, that it committed. Fails with a unique violation if it is over.
pub(super) async fn mark_commit(session: &mut Session, name: Name) -> Result<(), Failure> {
    let Name { coordinator, participant, epoch, number } = name;
    session.ask(MARK_COMMIT, &[&coordinator, &participant, &epoch, &number]).await.map(drop)
}

/// Adds the answer to the mark, where the mark is its only memory.
pub(super) async fn remember_answer(session: &mut Session, name: Name, answer: &[u8]) -> Result<(), Failure> {
    let Name { coordinator, participant, epoch, number } = name;
    session.ask(DETAIL, &[&coordinator, &participant, &epoch, &number, &answer]).await.map(drop)
}

/// Marks an abort, durably, unless there is a mark of a commit.
pub(super) async fn mark_abort(session: &mut Session, name: Name, why: &Refusal) -> Result<(), Failure> {
    write_abort(session, MARK_ABORT, name, why).await
}

/// Marks an abort unless there is a mark, without waiting for the disk.
pub(super) async fn mark_abort_soon(session: &mut Session, name: Name, why: &Refusal) -> Result<(), Failure> {
    write_abort(session, MARK_ABORT_SOON, name, why).await
}

async fn write_abort(
    session: &mut Session,
    sql: &'static str,
    name: Name,
    why: &Refusal,
) -> Result<(), Failure> {
    let Name { coordinator, participant, epoch, number } = name;
    let why = why.to_bytes();
    session.ask(sql, &[&coordinator, &participant, &epoch, &number, &&why[..]]).await.map(drop)
}

/// Notes, durably, that a transaction was ended by hand, or that its coordinator has decided otherwise. Returns whether that is news.
pub(super) async fn note(
    session: &mut Session,
    name: Name,
    committed: bool,
    contradicted: bool,
) -> Result<bool, Failure> {
    let Name { coordinator, participant, epoch, number } = name;
    let row =
        session.ask(NOTE, &[&coordinator, &participant, &epoch, &number, &committed, &contradicted]).await?;
    Ok(row.is_some())
}

/// Its coordinator has decided so too. What was contradicted stays.
pub(super) async fn forget_note(session: &mut Session, name: Name) -> Result<(), Failure> {
    let Name { coordinator, participant, epoch, number } = name;
    session.ask(FORGET_NOTE, &[&coordinator, &participant, &epoch, &number]).await.map(drop)
}

/// All notes of a participant.
pub(super) async fn notes(session: &Session, participant: NodeId) -> Result<Vec<ByHand>, Failure> {
    let participant = i64::try_from(participant.0).unwrap_or(i64::MAX);
    let rows = session.within(session.client().query(NOTES, &[&participant])).await?;
    let noted = |row: &Row| {
        let number = |place: usize| row.try_get::<_, i64>(place).ok().map(|value| value as u64);
        let txn = TxnId { coordinator: NodeId(number(0)?), epoch: number(1)?, number: number(2)? };
        Some(ByHand { txn, decision: decision(row.try_get(3).ok()?), is_damage: row.try_get(4).ok()? })
    };
    Ok(rows.iter().filter_map(noted).collect())
}
