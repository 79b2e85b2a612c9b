//! Options of `synod sim`, of its commands, and of `synod shrink`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use synod_server::parse_duration;
use synod_sim::bank::{Fault as BankFault, Log, PARTICIPANTS_MAX, Protocol};
use synod_sim::costs::COMMANDS_MAX;
use synod_sim::weak::{Fault as LevelFault, Holds, Level, MEMBERS_MAX};
use synod_sim::{Fault, Shard};

const MATRIX_EXAMPLE: &str = "\
Examples:
  synod sim matrix                                             all faults, 100 seeds each
  synod sim matrix --seeds 1000 --out matrix.md                more of them, as a table for a document
  synod sim matrix --faults crash-leader,majority-down --json  two rows, for a program";

const BANK_EXAMPLE: &str = "\
Examples:
  synod sim bank --protocol 2pc --participants 3 --seed 7                    one run under faults drawn from the seed
  synod sim bank --protocol 2pc-replicated --log zab --faults pause --seeds 50
  synod sim bank --matrix                                                    every protocol under every fault";

const COSTS_EXAMPLE: &str = "\
Examples:
  synod sim costs                                              the tables of docs/measurements.md
  synod sim costs --protocols raft,zab --nodes 7 --json        for a program";

const FAILOVER_EXAMPLE: &str = "\
Examples:
  synod sim failover                                           the table of docs/measurements.md
  synod sim failover --protocols raft --nodes 3 --seeds 100    one protocol, fewer runs";

/// Options of `synod sim`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Sim {
    #[command(subcommand)]
    pub command: Option<SimCommand>,
    #[command(flatten)]
    pub run: Run,
    /// Run a campaign: this many seeds from --seed on, each under faults of its own
    #[arg(long, value_name = "COUNT")]
    pub seeds: Option<u64>,
    /// Of a campaign's seeds run the i-th of n parts only, so that n machines share the work
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub shard: Shard,
    /// Go on with a campaign after a failure
    #[arg(long)]
    pub keep_going: bool,
    /// Threads of a campaign [default: one a core]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Print the script that would run, and stop
    #[arg(long)]
    pub print_script: bool,
    /// Write the trace here as JSON
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write the clients' history here
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `synod sim` does beside running.
#[derive(Subcommand, Debug)]
pub enum SimCommand {
    /// Every protocol under every fault: a campaign in each cell, within the budget and beyond it
    #[command(after_help = MATRIX_EXAMPLE)]
    Matrix(Matrix),
    /// Transfers between banks, by every way to commit atomically and two ways not to
    #[command(after_help = BANK_EXAMPLE)]
    Bank(Bank),
    /// What a command costs each protocol when nothing goes wrong: messages, bytes, delays, syncs
    #[command(after_help = COSTS_EXAMPLE)]
    Costs(Costs),
    /// How long each protocol is without a leader when it loses the one that it has, over many seeds
    #[command(after_help = FAILOVER_EXAMPLE)]
    Failover(Elections),
    /// Four levels of consistency, from linearizable to eventual, under faults: the checker judges each at its own model
    #[command(
        after_help = "Examples:\n  synod sim weak --level causal --seeds 100\n  synod sim weak --matrix"
    )]
    Weak(Weak),
    /// CAP, measured: one partition, one workload, each level in turn
    #[command(after_help = "Example:\n  synod sim cap --json")]
    Cap(CapOptions),
}

/// Options of `synod sim costs`.
#[derive(Args, Debug)]
pub struct Costs {
    /// The protocols [default: all]
    #[arg(long, value_delimiter = ',')]
    pub protocols: Vec<String>,
    /// How many nodes, 1 to 15, one table for each number
    #[arg(long, value_delimiter = ',', default_value = "3,5", value_parser = clap::value_parser!(u8).range(1..=15))]
    pub nodes: Vec<u8>,
    /// How many commands are measured, 1 to 5000
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=i64::from(COMMANDS_MAX)))]
    pub commands: u32,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `synod sim failover`.
#[derive(Args, Debug)]
pub struct Elections {
    /// The protocols [default: all]
    #[arg(long, value_delimiter = ',')]
    pub protocols: Vec<String>,
    /// How many nodes, 3 to 15
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(3..=15))]
    pub nodes: u64,
    /// How many seeds, from --seed on
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Threads [default: one a core]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// What the levels are put to.
#[derive(Args, Debug)]
pub struct Weak {
    /// What is promised: linearizable, sequential, causal or eventual
    #[arg(long, default_value = "causal")]
    pub level: Level,
    /// How many members, 2 to 9
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=MEMBERS_MAX))]
    pub members: u64,
    /// What everything random is drawn from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Run so many seeds from this one on, and say what came of all
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    #[arg(long, default_value = "all", help = level_faults())]
    pub faults: LevelFault,
    /// What keys hold, at the causal and the eventual level: register, siblings, counter or set
    #[arg(long, default_value = "register")]
    pub kind: Holds,
    /// Write what happened here: messages, faults, operations, as JSON lines
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "separate"])]
    pub trace: Option<PathBuf>,
    /// Print what happened, a line each
    #[arg(long, conflicts_with_all = ["seeds", "separate"])]
    pub story: bool,
    /// Write what the sessions saw, for `synod check`; with --separate a folder
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// For each level look for a history that has it and not the next stronger one, and make it small
    #[arg(long)]
    pub separate: bool,
    /// Play every level under every fault instead, so many seeds each as --seeds says [default: 40]
    #[arg(long, conflicts_with_all = ["separate", "trace", "story", "history"])]
    pub matrix: bool,
    /// Print the matrix as Markdown, or as JSON
    #[arg(long, value_name = "FORM", requires = "matrix")]
    pub form: Option<Form>,
    /// The same as --form json
    #[arg(long, requires = "matrix", conflicts_with = "form")]
    pub json: bool,
}

/// Every fault by name: the rows of the matrix.
fn level_faults() -> String {
    format!("What goes wrong: {}", LevelFault::ALL.map(LevelFault::name).join(", "))
}

/// What the partition is like.
#[derive(Args, Debug)]
pub struct CapOptions {
    /// How many members, 3 to 9; one of them is cut off
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=MEMBERS_MAX))]
    pub members: u64,
    /// What everything random is drawn from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long there is load before the partition
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub calm: Duration,
    /// How long the partition lasts
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub partition: Duration,
    /// How long each message takes
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_duration)]
    pub delay: Duration,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// What the bank does.
#[derive(Args, Debug)]
pub struct Bank {
    /// How transfers are carried out: none, avoid, 2pc, 3pc, 2pc-replicated or saga
    #[arg(long, default_value = "2pc")]
    pub protocol: Protocol,
    /// Between how many banks, 2 to 16
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=PARTICIPANTS_MAX))]
    pub participants: u64,
    /// What everything random is drawn from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Run so many seeds from this one on, and say what came of all
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// What goes wrong: one of the rows of --matrix, such as crash, isolate, loss or disk-full; none, or all
    #[arg(long, default_value = "all")]
    pub faults: BankFault,
    /// What a replicated coordinator runs on: raft, multi-paxos, zab or viewstamped
    #[arg(long, default_value_t = Log::default())]
    pub log: Log,
    /// Print every message, crash and decision
    #[arg(long)]
    pub trace: bool,
    /// Write what the clients saw, for `synod check`
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Measure every protocol instead: messages, delays and syncs, and what the death of a coordinator holds up
    #[arg(long)]
    pub figures: bool,
    /// Play every protocol under every fault instead, so many seeds each as --seeds says [default: 40]
    #[arg(long, conflicts_with_all = ["figures", "trace", "history"])]
    pub matrix: bool,
    /// Print the matrix as Markdown, or as JSON
    #[arg(long, value_name = "FORM", requires = "matrix")]
    pub form: Option<Form>,
}

/// How a table is printed for others than people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A table for a document.
    Markdown,
    /// For a program.
    Json,
}

/// Which run.
#[derive(Args, Debug)]
pub struct Run {
    /// The consensus protocol
    #[arg(long, default_value = "raft")]
    pub protocol: String,
    /// How many nodes, 1 to 15
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=15))]
    pub nodes: u64,
    /// The seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How much virtual time, such as 60s or 1500ms [default: 60s, and 10s under faults]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub span: Option<Duration>,
    /// Draw faults from the seed: crashes, partitions, bad disks, drifting clocks; or one kind only,
    /// as in --swarm=crash-leader
    #[arg(long, value_name = "FAULT", num_args = 0..=1, require_equals = true)]
    pub swarm: Option<Option<Fault>>,
    /// Run this script instead of the options above
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
}

/// Options of `synod sim matrix`.
#[derive(Args, Debug)]
pub struct Matrix {
    /// The protocols, a column each [default: all]
    #[arg(long, value_delimiter = ',')]
    pub protocols: Vec<String>,
    /// The faults, a row each [default: all]
    #[arg(long, value_delimiter = ',')]
    pub faults: Vec<Fault>,
    /// How many nodes, 3 to 15
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(3..=15))]
    pub nodes: u64,
    /// Seeds in each cell
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// How much virtual time each run takes
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, default_value = "6s")]
    pub span: Duration,
    /// Threads [default: one a core]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Write the table here, in Markdown
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print the cells as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `synod shrink`.
#[derive(Args, Debug)]
pub struct Shrink {
    #[command(flatten)]
    pub run: Run,
    /// Write the small script here
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write the story here: words and diagram, one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
