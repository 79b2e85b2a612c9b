//! What `synod bench levels` may be told.

use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use synod_server::parse_duration;

pub const LEVELS_EXAMPLE: &str = "\
Examples:
  synod bench levels                                   all four, in some seven minutes
  synod bench levels --levels causal,eventual --json
  synod bench levels --quick                           does it work at all?";

/// Options of `synod bench levels`.
#[derive(Args, Debug)]
pub struct Levels {
    /// The levels to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "linearizable,sequential,causal,eventual",
        value_parser = ["linearizable", "sequential", "causal", "eventual"]
    )]
    pub levels: Vec<String>,
    /// The consensus protocol below the stronger two: raft, multi-paxos, zab or viewstamped
    #[arg(long, default_value = "raft", value_parser = super::protocol)]
    pub protocol: String,
    /// Clients at each of the three members, each with one request under way
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: u16,
    /// How long each load is measured, after a fifth of that to warm up
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub span: Duration,
    /// How long the partition with conflicting writes lasts at the least
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub partition: Duration,
    /// Writes in that partition, half of them on either side
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(2..=10_000_000))]
    pub writes: u64,
    /// A few seconds for all of it: shows that it works, and measures nothing
    #[arg(long, conflicts_with_all = ["clients", "span", "partition", "writes"])]
    pub quick: bool,
    /// Where the clusters keep their data, on the disk to be measured [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
