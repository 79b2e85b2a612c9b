//! Where the accounts are: in keyspaces, and in tables of PostgreSQL databases.

use crate::Failure;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_postgres::{Client, NoTls, Statement};

/// What every account holds at first: more than any run can move.
const BALANCE: i64 = 1_000_000_000;
/// The databases' table.
const TABLE: &str = "synod_bench_accounts";
/// How long a database may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A participant of transactions that has accounts.
#[derive(Clone, Debug)]
pub enum Place {
    /// A keyspace, of this cluster or of another one.
    Keyspace(String),
    Database(Database),
}

/// A PostgreSQL database.
#[derive(Clone, Debug)]
pub struct Database {
    /// As transactions name it.
    pub name: String,
    /// Where it is; it may contain a password.
    pub url: String,
}

impl Place {
    /// As transactions name it.
    pub fn name(&self) -> &str {
        match self {
            Place::Keyspace(name) => name,
            Place::Database(database) => &database.name,
        }
    }

    /// Adds to an account, as a part of a transaction.
    pub fn add(&self, account: u32, by: i64) -> Value {
        match self {
            Place::Keyspace(_) => json!({"add": {"key": format!("a{account}"), "by": by, "at-least": 0}}),
            Place::Database(_) => json!({
                "sql": update(),
                "parameters": [by.to_string(), format!("a{account}")],
                "rows": 1,
            }),
        }
    }

    /// What gives the accounts of a keyspace their first balances.
    pub fn first_balances(accounts: std::ops::Range<u32>) -> Vec<Value> {
        let put = |account| json!({"put": {"key": format!("a{account}"), "value": BALANCE.to_string()}});
        accounts.map(put).collect()
    }
}

fn update() -> String {
    format!("update {TABLE} set balance = balance + $1::text::bigint where name = $2")
}

/// A connection to a database, as any program has one that knows nothing of transactions elsewhere.
pub struct Direct {
    client: Client,
    update: Option<Statement>,
}

impl Direct {
    pub async fn connect(url: &str) -> Result<Direct, tokio_postgres::Error> {
        let mut config: tokio_postgres::Config = url.parse()?;
        config.connect_timeout(PATIENCE);
        let (client, connection) = config.connect(NoTls).await?;
        // It ends with the client, who hears of every error.
        tokio::task::spawn_local(connection);
        Ok(Direct { client, update: None })
    }

    /// Makes the table anew and fills it.
    pub async fn fill(&self, accounts: u32) -> Result<(), tokio_postgres::Error> {
        let statements = format!(
            "drop table if exists {TABLE};
             create table {TABLE} (name text primary key, balance bigint not null);
             insert into {TABLE} select 'a' || n, {BALANCE} from generate_series(0, {}) n",
            i64::from(accounts) - 1
        );
        self.client.batch_execute(&statements).await
    }

    pub async fn drop_table(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(&format!("drop table if exists {TABLE}")).await
    }

    /// Adds to an account, for good.
    pub async fn add(&mut self, account: u32, by: i64) -> Result<(), String> {
        let statement = match &self.update {
            Some(statement) => statement.clone(),
            None => {
                let prepared = self.client.prepare(&update()).await.map_err(|error| told(&error))?;
                self.update.insert(prepared).clone()
            }
        };
        let (by, name) = (by.to_string(), format!("a{account}"));
        match self.client.execute(&statement, &[&by, &name]).await {
            Ok(1) => Ok(()),
            Ok(rows) => Err(format!("{rows} rows were changed, not one")),
            Err(error) => Err(told(&error)),
        }
    }
}

/// An error with what the database said, which `Display` leaves out.
pub fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{}: {}", said.severity(), said.message()),
        None => error.to_string(),
    }
}

/// What a database's error ends the whole measurement with.
pub fn unusable(name: &str, error: &tokio_postgres::Error) -> Failure {
    Failure::No(format!("the database {name} cannot be used: {}", told(error)))
}
