//! Sessions with PostgreSQL: a bounded number, each with timeouts, and what can go wrong on them.

use super::Timing;
use crate::outside::one_line;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use synod_protocols::commit::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Error, NoTls, Row, Statement};

/// Sessions in which work is being done. More wait, and are refused as busy after the time of a statement.
const WORKING_MAX: usize = 16;
/// Sessions that ask and decide. They are apart from the former, so that what would release a lock never queues
/// behind those who wait for it.
const DECIDING_MAX: usize = 8;
/// Statements that a session keeps prepared; at the bound all are forgotten.
const STATEMENTS_MAX: usize = 64;

/// Why something was not done, or is not known to be.
#[derive(Debug)]
pub(super) enum Failure {
    /// PostgreSQL has said no: it is not done.
    Refused { code: SqlState, why: String },
    /// The work is not what it was declared to be, or may not be asked: it is not done.
    Declined(String),
    /// All sessions are taken: it is not done.
    Busy,
    /// There is no connection: it is not done.
    Unreachable(String),
    /// There was no answer: **it may be done or not**.
    Lost(String),
}

impl Failure {
    /// What PostgreSQL has said, or that it did not.
    pub(super) fn of(error: &Error) -> Failure {
        let Some(said) = error.as_db_error() else { return Failure::Lost(one_line(&error.to_string())) };
        // A session that is ended from its other side may have been ended at any moment of what it did.
        let is_over = said.parsed_severity() != Some(Severity::Error);
        let code = said.code().clone();
        let why = one_line(&format!("PostgreSQL says: {}{}", said.message(), advice(&code)));
        if is_over { Failure::Lost(why) } else { Failure::Refused { code, why } }
    }

    pub(super) fn is(&self, expected: &SqlState) -> bool {
        matches!(self, Failure::Refused { code, .. } if code == expected)
    }

    /// The reason of a no vote. It is for the caller to know that nothing can have been done.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Failure::Busy => Refusal::Busy,
            Failure::Refused { why, .. }
            | Failure::Declined(why)
            | Failure::Unreachable(why)
            | Failure::Lost(why) => Refusal::Declined { why: why.clone() },
        }
    }
}

/// What to do about a refusal that is not the work's fault.
fn advice(code: &SqlState) -> &'static str {
    if *code == SqlState::LOCK_NOT_AVAILABLE {
        " (another transaction holds the lock: try again)"
    } else if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED {
        " (another transaction was faster: try again)"
    } else if *code == SqlState::QUERY_CANCELED {
        " (nobody may take that long)"
    } else if *code == SqlState::OUT_OF_MEMORY {
        " (if it is about prepared transactions, raise max_prepared_transactions)"
    } else {
        ""
    }
}

/// One connection.
pub(super) struct Session {
    client: Client,
    own: BTreeMap<&'static str, Statement>,
    statements: BTreeMap<String, Prepared>,
    timing: Timing,
    driver: JoinHandle<()>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A statement that the server has read.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) statement: Statement,
    /// Whether it gives rows, each as one column of JSON.
    pub(super) gives_rows: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        // The socket closes now, even if the other side does not answer any more; the server undoes what was open.
        self.driver.abort();
    }
}

impl Session {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for an answer, but not for ever.
    pub(super) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timing.answer, answer).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&error)),
            Err(_) => Err(Failure::Lost(format!("no answer within {:?}", self.timing.answer))),
        }
    }

    /// Has statements executed that have neither parameters nor results.
    pub(super) async fn execute(&self, statements: &str) -> Result<(), Failure> {
        self.within(self.client.batch_execute(statements)).await
    }

    /// Has one of the agent's own statements executed, which is read by the server once. Gives its first row, if any.
    pub(super) async fn ask(
        &mut self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Failure> {
        let statement = match self.own.get(sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.within(self.client.prepare(sql)).await?;
                self.own.insert(sql, statement.clone());
                statement
            }
        };
        self.within(self.client.query_opt(&statement, parameters)).await
    }

    /// A statement of a client's, read by the server; its rows come as JSON, so that all types are read alike.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Prepared, Failure> {
        if let Some(prepared) = self.statements.get(sql) {
            return Ok(prepared.clone());
        }
        let mut statement = self.within(self.client.prepare(sql)).await?;
        let gives_rows = !statement.columns().is_empty();
        if gives_rows {
            let as_json = format!("WITH given AS ({sql}\n) SELECT row_to_json(given)::text FROM given");
            statement = self.within(self.client.prepare(&as_json)).await?;
        }
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        let prepared = Prepared { statement, gives_rows };
        self.statements.insert(sql.to_owned(), prepared.clone());
        Ok(prepared)
    }
}

/// All sessions of one agent.
pub(super) struct Sessions {
    config: Config,
    timing: Timing,
    idle: Mutex<Vec<Session>>,
    working: Arc<Semaphore>,
    deciding: Arc<Semaphore>,
}

impl Sessions {
    pub(super) fn new(mut config: Config, timing: Timing) -> Sessions {
        config.application_name("synod").connect_timeout(timing.statement).tcp_user_timeout(timing.answer);
        Sessions {
            config,
            timing,
            idle: Mutex::default(),
            working: Arc::new(Semaphore::new(WORKING_MAX)),
            deciding: Arc::new(Semaphore::new(DECIDING_MAX)),
        }
    }

    /// A session to do work in.
    pub(super) async fn to_work(&self) -> Result<Session, Failure> {
        self.take(&self.working).await
    }

    /// A session to ask or to decide in.
    pub(super) async fn to_decide(&self) -> Result<Session, Failure> {
        self.take(&self.deciding).await
    }

    async fn take(&self, kind: &Arc<Semaphore>) -> Result<Session, Failure> {
        let permit = tokio::time::timeout(self.timing.statement, Arc::clone(kind).acquire_owned()).await;
        let permit = permit.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(mut session) if !session.client.is_closed() => {
                    session._permit = Some(permit);
                    return Ok(session);
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut session = self.connect().await?;
        session._permit = Some(permit);
        Ok(session)
    }

    /// Gives back a session on which nothing is open.
    pub(super) fn give_back(&self, mut session: Session) {
        session._permit = None;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    async fn connect(&self) -> Result<Session, Failure> {
        let unreachable = |error: Error| match Failure::of(&error) {
            Failure::Refused { why, .. } => Failure::Unreachable(why),
            _ => {
                Failure::Unreachable(one_line(&format!("PostgreSQL cannot be reached: {}", because(&error))))
            }
        };
        let connected = tokio::time::timeout(self.timing.answer, self.config.connect(NoTls)).await;
        let no_answer = |_| Failure::Unreachable("PostgreSQL cannot be reached: no answer".into());
        let (client, connection) = connected.map_err(no_answer)?.map_err(unreachable)?;
        let driver = tokio::spawn(async move {
            // Its end is seen by whoever uses the session.
            let _ = connection.await;
        });
        let timing = self.timing;
        let session = Session {
            client,
            own: BTreeMap::new(),
            statements: BTreeMap::new(),
            timing,
            driver,
            _permit: None,
        };
        // A commit that was told must be durable, whatever the database's default is.
        let settings = format!(
            "SET lock_timeout = {}; SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            timing.lock.as_millis(),
            timing.statement.as_millis(),
            timing.open.as_millis(),
        );
        match session.execute(&settings).await {
            Ok(()) => Ok(session),
            Err(failure) => Err(Failure::Unreachable(match failure.refusal() {
                Refusal::Declined { why } => why,
                _ => "PostgreSQL cannot be reached".into(),
            })),
        }
    }
}

/// The cause below an error, which says more than the error.
fn because(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}
