//! Options of `synod txn`, `synod saga`, `synod participant`, `synod demo bank` and `synod bench transfers`.

use super::{Cluster, protocol};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use synod_server::parse_duration;

pub const TXN_EXAMPLE: &str = "\
Examples:
  synod txn run --at bank1 'add a -100 min 0' --at bank2 'add b 100'
  synod txn run --at bank1 'expect owner none; put owner ann' --route one-entry
  synod txn run --at bank1 'add a -100 min 0' \\
      --at ledger 'sql \"update accounts set balance = balance + $1 where name = $2\" 100 b rows 1'
  synod txn run --file transfer.json --json
  synod txn list --open
  synod txn show 9f3c.2.17
  synod txn resolve 9f3c.2.17 --participant ledger --abort

What is done at a participant, several separated by `;`:
  get KEY                    read it
  put KEY VALUE              write it
  delete KEY
  expect KEY VALUE|none      go on only if it has this value, or there is no such key
  add KEY N [min N]          add to a whole number, which must not go below the minimum
  sql \"STATEMENT\" [PARAMETER ...] [rows N]
                             at a database: refused if another number of rows changed

A participant is a keyspace of the cluster's log (`synod keyspace`) or one outside (`synod participant`).";

pub const SAGA_EXAMPLE: &str = "\
Examples:
  synod saga check examples/transfer.toml      what is wrong with it, and in which line; asks no cluster
  synod saga run examples/transfer.toml --wait
  synod saga list
  synod saga show s1
  synod saga cancel s1
  synod saga resume s1 --step ship             a person has looked at a step that waits for one";

pub const PARTICIPANT_EXAMPLE: &str = "\
Examples:
  synod participant add ledger --postgres postgres://synod@127.0.0.1:5432/ledger --password-env LEDGER_PASSWORD
  synod participant add bank3 --cluster 127.0.0.1:2579,127.0.0.1:2679 --keyspace bank3
  synod participant add shop --http http://127.0.0.1:8080/saga       takes part in sagas only
  synod participant list
  synod participant remove ledger

A password is never shown again. It need not stand on the command line, where others can see it: --password-env
takes it from a variable, --password-file from a file's first line.";

pub const BANK_EXAMPLE: &str = "\
Examples:
  synod demo bank                                  half a minute on a cluster of its own
  synod demo bank --kill coordinator --for 2m --out history.jsonl
  synod demo bank --saga                           the same transfers as sagas: watch the money go missing for a while
  synod demo bank --protocol zab --json            for a program";

/// What `synod txn` does.
#[derive(Subcommand, Debug)]
pub enum TxnCommand {
    /// Do something at several participants, all of it or nothing
    Run(TxnRun),
    /// Show the transactions that the cluster knows
    List(TxnList),
    /// Draw one: who takes part, in which state, with which locks, since when
    Show(TxnName),
    /// Decide by hand at one participant what is in doubt there; this can break atomicity
    Resolve(TxnResolve),
}

/// Options of `synod txn run`.
#[derive(Args, Debug)]
pub struct TxnRun {
    /// A participant and what is done there; once for each, or several times
    #[arg(long, num_args = 2, value_names = ["PARTICIPANT", "OPERATIONS"], action = clap::ArgAction::Append,
          required_unless_present = "file", allow_hyphen_values = true)]
    pub at: Vec<String>,
    /// The transaction as the API's JSON; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "at")]
    pub file: Option<PathBuf>,
    /// How it is carried out [default: auto, the cheapest that can serve it]
    #[arg(long, value_enum)]
    pub route: Option<Route>,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// How a transaction is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Route {
    /// The cheapest that can serve it
    Auto,
    /// As one entry of one keyspace's log, or not at all
    OneEntry,
    /// By two-phase commit
    TwoPhase,
}

impl Route {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Route::Auto => "auto",
            Route::OneEntry => "one-entry",
            Route::TwoPhase => "two-phase",
        }
    }
}

/// Options of `synod txn list`.
#[derive(Args, Debug)]
pub struct TxnList {
    /// Only those that are not over
    #[arg(long)]
    pub open: bool,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// A transaction.
#[derive(Args, Debug)]
pub struct TxnName {
    /// Its name, as `synod txn run` said it
    pub id: String,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod txn resolve`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("decision").required(true)))]
pub struct TxnResolve {
    /// Its name
    pub id: String,
    /// Where it is decided by hand
    #[arg(long, value_name = "NAME")]
    pub participant: String,
    /// Let the participant commit it
    #[arg(long, group = "decision")]
    pub commit: bool,
    /// Let the participant abort it
    #[arg(long, group = "decision")]
    pub abort: bool,
    /// Do not ask whether this is meant
    #[arg(long)]
    pub yes: bool,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// What `synod saga` does.
#[derive(Subcommand, Debug)]
pub enum SagaCommand {
    /// Carry out the saga in a file
    Run(SagaRun),
    /// Say what is wrong with the saga in a file, without a cluster
    Check(SagaCheck),
    /// Show the sagas that the cluster knows
    List(Cluster),
    /// Draw one: its steps, their order and their states
    Show(SagaName),
    /// Undo what it has done, unless it is bound to succeed
    Cancel(SagaName),
    /// Go on with a step that waits for a person
    Resume(SagaResume),
}

/// Options of `synod saga run`.
#[derive(Args, Debug)]
pub struct SagaRun {
    /// The saga, as TOML
    pub file: PathBuf,
    /// Wait until it is over or waits for a person
    #[arg(long)]
    pub wait: bool,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod saga check`.
#[derive(Args, Debug)]
pub struct SagaCheck {
    /// The saga, as TOML
    pub file: PathBuf,
    /// Print what it says as the API's JSON
    #[arg(long)]
    pub json: bool,
}

/// A saga.
#[derive(Args, Debug)]
pub struct SagaName {
    /// Its name, as in s1
    pub id: String,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod saga resume`.
#[derive(Args, Debug)]
pub struct SagaResume {
    /// Its name, as in s1
    pub id: String,
    /// The step [default: the one that waits]
    #[arg(long)]
    pub step: Option<String>,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// What `synod participant` does.
#[derive(Subcommand, Debug)]
pub enum ParticipantCommand {
    /// Make a system outside known by a name, so that it can take part
    Add(ParticipantAdd),
    /// Show them
    List(Cluster),
    /// Forget one, if no transaction needs it
    Remove(ParticipantName),
}

/// Options of `synod participant add`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("kind").required(true)))]
pub struct ParticipantAdd {
    /// Its name in transactions and sagas
    pub name: String,
    /// A PostgreSQL database that can prepare transactions: postgres://USER@HOST/DATABASE
    #[arg(long, group = "kind", value_name = "URL")]
    pub postgres: Option<String>,
    /// Another Synod cluster, by its members' addresses for clients
    #[arg(
        long = "cluster",
        group = "kind",
        value_name = "ENDPOINTS",
        value_delimiter = ',',
        requires = "keyspace"
    )]
    pub other: Vec<String>,
    /// The keyspace of the other cluster
    #[arg(long, requires = "other")]
    pub keyspace: Option<String>,
    /// A service that knows a repeated request by its Idempotency-Key
    #[arg(long, group = "kind", value_name = "URL")]
    pub http: Option<String>,
    /// The variable of the environment that holds the password
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    pub password_env: Option<String>,
    /// The file whose first line is the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// A participant outside.
#[derive(Args, Debug)]
pub struct ParticipantName {
    /// Its name
    pub name: String,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// What `synod demo` starts beside itself.
#[derive(Subcommand, Debug, Clone)]
pub enum DemoCommand {
    /// Two banks, concurrent transfers between them, members killed all the time, and the total at every moment
    #[command(after_help = BANK_EXAMPLE)]
    Bank(DemoBank),
}

/// Options of `synod demo bank`.
#[derive(Args, Debug, Clone)]
pub struct DemoBank {
    /// The consensus protocol: raft, multi-paxos, zab or viewstamped
    #[arg(long, default_value = "raft", value_parser = protocol)]
    pub protocol: String,
    /// How long
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub span: Duration,
    /// Transfers that the clients begin in a second, all together
    #[arg(long, value_name = "NUMBER", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub transfers_per_second: u32,
    /// How many clients, each with one transfer under way
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub clients: u16,
    /// Accounts of each bank
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub accounts: u16,
    /// Whom a `kill -9` strikes
    #[arg(long, value_enum, default_value_t = Kill::Any)]
    pub kill: Kill,
    /// From one kill to the next
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub kill_every: Duration,
    /// Transfer by sagas, which others see half done
    #[arg(long)]
    pub saga: bool,
    /// The seed of who pays whom how much, and of who is killed when [default: from the clock]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write what the clients saw here, for `synod check`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the cluster keeps its data [default: a temporary folder, deleted at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print the outcome as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Whom `synod demo bank` kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kill {
    /// The coordinator, which is the leader, and other members in turn
    Any,
    /// Members drawn at random
    Members,
    /// The coordinator, always
    Coordinator,
    /// Nobody
    Nobody,
}

pub const TRANSFERS_EXAMPLE: &str = "\
Examples:
  synod bench transfers
  synod bench transfers --protocol zab --for 10s --json
  SYNOD_BENCH_POSTGRES=postgres://USER:PASSWORD@HOST/ONE,postgres://USER:PASSWORD@HOST/TWO synod bench transfers

In each database the table synod_bench_accounts is made, and left there.";

/// What `synod bench` measures beside puts and reads.
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Transfers between keyspaces, clusters and databases, with a protocol and without, on clusters of its own
    #[command(after_help = TRANSFERS_EXAMPLE)]
    Transfers(BenchTransfers),
    /// Four levels of consistency, while all is well and in a partition, on clusters of its own
    #[command(after_help = super::levels::LEVELS_EXAMPLE)]
    Levels(super::Levels),
}

/// Options of `synod bench transfers`.
#[derive(Args, Debug)]
pub struct BenchTransfers {
    /// The consensus protocol: raft, multi-paxos, zab or viewstamped
    #[arg(long, default_value = "raft", value_parser = protocol)]
    pub protocol: String,
    /// How long each row is measured
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub span: Duration,
    /// How many clients, each with one transfer under way
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub clients: u16,
    /// Accounts at each place: with few, transfers are in each other's way
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub accounts: u32,
    /// How often the coordinator is killed to see how long transactions stay open; 0 leaves that out
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub runs: u64,
    /// One or two PostgreSQL databases that allow prepared transactions
    #[arg(
        long,
        value_name = "URL",
        env = "SYNOD_BENCH_POSTGRES",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub postgres: Vec<String>,
    /// Where the clusters keep their data, on the disk to be measured [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
