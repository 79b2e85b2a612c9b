//! Whether a database can be a participant: asked when it is registered, with advice where it cannot.

use super::marks::{self, Name, TABLES};
use super::session::{Failure, Session, Sessions};
use super::{BEGIN, Memory, Postgres, Timing, new_life, words};
use std::fmt;
use std::sync::Mutex;
use synod_protocols::NodeId;
use synod_protocols::commit::TxnId;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;

/// The oldest PostgreSQL that has all that is asked of it (`server_version_num`).
const VERSION_MIN: i32 = 130_000;
/// As text.
const VERSION_MIN_NAME: &str = "13";

/// Why a text does not say where a database is. Never holds the text, since that may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CannotUrl(&'static str);

impl fmt::Display for CannotUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: write postgres://USER:PASSWORD@HOST:PORT/DATABASE", self.0)
    }
}

impl std::error::Error for CannotUrl {}

/// Why a database cannot be a participant, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cannot {
    /// It cannot be reached, or does not let this user in.
    Reach(String),
    /// It is too old.
    Version {
        /// What it is.
        found: String,
    },
    /// It follows another server.
    Standby,
    /// It is configured to keep no promise: this is how to configure it.
    Prepare(String),
    /// The user lacks a right.
    Permission(String),
}

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cannot::Reach(why) => f.write_str(why),
            Cannot::Version { found } => {
                write!(f, "this is PostgreSQL {found}, and {VERSION_MIN_NAME} is the oldest that will do")
            }
            Cannot::Standby => {
                f.write_str("this PostgreSQL is a standby and takes no writes: name its primary")
            }
            Cannot::Prepare(what) => write!(f, "this PostgreSQL cannot promise to commit: {what}"),
            Cannot::Permission(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Cannot {}

impl Postgres {
    /// An agent for the database at `url`, which speaks for the participant of this number. Nothing is connected yet.
    ///
    /// # Errors
    /// If the text does not say where a database is, or wants an encrypted connection.
    pub fn new(url: &str, participant: NodeId, timing: Timing) -> Result<Postgres, CannotUrl> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(CannotUrl("this is no address of a PostgreSQL database"));
        }
        let config: Config = url.parse().map_err(|_| CannotUrl("this address is malformed"))?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(CannotUrl(
                "encrypted connections are not spoken here. Take sslmode=disable, to a database on this machine or behind \
                 a tunnel that ends here",
            ));
        }
        if config.get_hosts().len() != 1 || config.get_user().is_none() || config.get_dbname().is_none() {
            return Err(CannotUrl("an address names one host, a user and a database"));
        }
        Ok(Postgres {
            participant,
            url: without_password(&config),
            life: new_life(),
            sessions: Sessions::new(config, timing),
            timing,
            memory: Mutex::new(Memory::default()),
        })
    }

    /// Asks the database whether it can be a participant, makes the agent's tables if they are not there, and tries a promise. May be repeated.
    ///
    /// # Errors
    /// [`Cannot`] says why not, and what to do.
    pub async fn register(&self) -> Result<(), Cannot> {
        let mut session = self.sessions.to_decide().await.map_err(|failure| Cannot::Reach(words(failure)))?;
        check_server(&session).await?;
        make_tables(&session).await?;
        self.try_a_promise(&mut session).await?;
        self.sessions.give_back(session);
        Ok(())
    }

    async fn try_a_promise(&self, session: &mut Session) -> Result<(), Cannot> {
        // A transaction that no coordinator begins: they count from 1. What a crash has left of it is in the way.
        let probe = TxnId { coordinator: NodeId(0), epoch: 0, number: 0 };
        let too_large = || Cannot::Reach("the participant's number is too large".into());
        let name = Name::of(probe, self.participant).ok_or_else(too_large)?;
        let roll_back = format!("ROLLBACK PREPARED '{}'", name.gid());
        let tried = async {
            match session.execute(&roll_back).await {
                Err(failure) if !failure.is(&SqlState::UNDEFINED_OBJECT) => return Err(failure),
                _ => {}
            }
            session.execute(BEGIN).await?;
            marks::mark_commit(session, name).await?;
            session.execute(&format!("PREPARE TRANSACTION '{}'", name.gid())).await?;
            session.execute(&roll_back).await?;
            marks::look_up(session, probe, name).await
        };
        tried.await.map(drop).map_err(|failure| match failure {
            failure if failure.is(&SqlState::INSUFFICIENT_PRIVILEGE) => Cannot::Permission(format!(
                "{}. Give this user SELECT, INSERT, UPDATE and DELETE on synod_transactions, synod_coordinators and synod_by_hand",
                words(failure)
            )),
            failure => Cannot::Prepare(words(failure)),
        })
    }
}

async fn check_server(session: &Session) -> Result<(), Cannot> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(), \
               current_setting('max_prepared_transactions')::int, current_setting('fsync')::bool";
    let row = session.within(session.client().query_one(sql, &[])).await;
    let row = row.map_err(|failure| Cannot::Reach(words(failure)))?;
    let read = |error: tokio_postgres::Error| Cannot::Reach(words(Failure::of(&error)));
    let (number, found): (i32, String) = (row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?);
    if number < VERSION_MIN {
        return Err(Cannot::Version { found });
    }
    if row.try_get(2).map_err(read)? {
        return Err(Cannot::Standby);
    }
    if row.try_get::<_, i32>(3).map_err(read)? == 0 {
        return Err(Cannot::Prepare(
            "max_prepared_transactions is 0. Say ALTER SYSTEM SET max_prepared_transactions = 64 as a superuser, and restart it"
                .into(),
        ));
    }
    if !row.try_get::<_, bool>(4).map_err(read)? {
        return Err(Cannot::Prepare(
            "fsync is off, so a crash makes it forget. Say ALTER SYSTEM SET fsync = on as a superuser, and SELECT pg_reload_conf()"
                .into(),
        ));
    }
    Ok(())
}

async fn make_tables(session: &Session) -> Result<(), Cannot> {
    let sql = "SELECT to_regclass('synod_transactions') IS NOT NULL AND to_regclass('synod_coordinators') IS NOT NULL \
               AND to_regclass('synod_by_hand') IS NOT NULL";
    let row = session.within(session.client().query_one(sql, &[])).await;
    let are_there = row.and_then(|row| row.try_get::<_, bool>(0).map_err(|error| Failure::of(&error)));
    if are_there.map_err(|failure| Cannot::Reach(words(failure)))? {
        return Ok(());
    }
    match session.execute(TABLES).await {
        Ok(()) => Ok(()),
        // Somebody makes them at the same time.
        Err(failure) if failure.is(&SqlState::UNIQUE_VIOLATION) || failure.is(&SqlState::DUPLICATE_TABLE) => {
            Ok(())
        }
        Err(failure) => Err(Cannot::Permission(format!(
            "{}. Let this user create tables here, or have somebody else create these: {TABLES}",
            words(failure)
        ))),
    }
}

fn without_password(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => String::new(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let (user, database) = (config.get_user().unwrap_or_default(), config.get_dbname().unwrap_or_default());
    format!("postgres://{user}@{host}:{port}/{database}")
}
