//! The command line: what may be said, with examples.

mod keyspace;
mod levels;
mod sim;
mod txn;

use crate::probe::Workload;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use synod_protocols::catalogue::{REPLICATED_LOGS, replicated_log};
use synod_server::parse_duration;

pub use keyspace::{InKeyspace, KeyspaceCommand, KeyspaceCreate, KeyspaceDrop, Kind};
pub use levels::Levels;
pub use sim::{Bank, CapOptions, Costs, Elections, Form, Matrix, Run, Shrink, Sim, SimCommand, Weak};
pub use txn::{
    BenchCommand, BenchTransfers, DemoBank, DemoCommand, Kill, ParticipantAdd, ParticipantCommand,
    ParticipantName, SagaCheck, SagaCommand, SagaName, SagaResume, SagaRun, TxnCommand, TxnList, TxnName,
    TxnResolve, TxnRun,
};

/// The endpoints of the demo's members, which client commands ask unless told otherwise.
pub const DEMO_ENDPOINTS: &str = "127.0.0.1:23791,127.0.0.1:23792,127.0.0.1:23793";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it ran, and the answer is no: a violation was found, a key does not exist, a request was refused
  2  the command line, a configuration or a script is wrong, or an address is taken
  3  the cluster could not be reached, or did not answer in time
  4  a data directory cannot be used: foreign, damaged, locked or failing
  5  a member had to stop by itself: its disk failed";

/// Consensus and consistency that you can watch, run and prove.
///
/// Without a command, `synod demo` runs: three members of a replicated store as processes of their
/// own, and the laboratory page beside them.
#[derive(Parser, Debug)]
#[command(name = "synod", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do; `demo` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start a live cluster of three processes and the laboratory page (the default)
    Demo(Demo),
    /// Start one member of a cluster
    #[command(after_help = SERVE_EXAMPLE)]
    Serve(Box<Serve>),
    /// Serve the laboratory page alone, with simulated clusters
    Lab(Lab),
    /// Simulate a cluster under faults and judge what happened
    #[command(after_help = SIM_EXAMPLE)]
    Sim(Sim),
    /// Decide which consistency a recorded history of any system has
    #[command(after_help = CHECK_EXAMPLE)]
    Check(Check),
    /// Drive an etcd v3 endpoint while you break it, record what the clients see, and judge that
    #[command(after_help = PROBE_EXAMPLE)]
    Probe(Box<Probe>),
    /// Open a flight recording of a member in the laboratory
    Replay(Replay),
    /// Store a key, in the etcd store or in a keyspace
    #[command(after_help = keyspace::PUT_EXAMPLE)]
    Put(Put),
    /// Read a key, or all keys with a prefix
    #[command(after_help = keyspace::GET_EXAMPLE)]
    Get(Get),
    /// Delete a key, or all keys with a prefix
    #[command(after_help = keyspace::DEL_EXAMPLE)]
    Del(Del),
    /// Make, show and drop keyspaces, which declare how consistent they are
    #[command(subcommand, after_help = keyspace::KEYSPACE_EXAMPLE)]
    Keyspace(KeyspaceCommand),
    /// Show every member: role, term, leader, revision, log
    Status(Status),
    /// Show, add, remove or promote members of a running cluster
    #[command(subcommand, after_help = MEMBER_EXAMPLE)]
    Member(MemberCommand),
    /// Let another member lead, without a gap that clients would notice
    #[command(
        after_help = "Examples:\n  synod transfer            to whoever is best placed\n  synod transfer --to n2"
    )]
    Transfer(Transfer),
    /// Do something at several places, all of it or nothing; inspect and resolve what is under way
    #[command(subcommand, after_help = txn::TXN_EXAMPLE)]
    Txn(TxnCommand),
    /// Carry out long transactions as steps that can be undone
    #[command(subcommand, after_help = txn::SAGA_EXAMPLE)]
    Saga(SagaCommand),
    /// Show, add or remove systems outside that take part in transactions: PostgreSQL, other clusters, HTTP services
    #[command(subcommand, after_help = txn::PARTICIPANT_EXAMPLE)]
    Participant(ParticipantCommand),
    /// Measure any etcd v3 endpoint: throughput, latency, processor time per operation
    #[command(after_help = BENCH_EXAMPLE)]
    Bench(Bench),
    /// Make a failing run small, and tell in plain words what happens in it
    #[command(after_help = SHRINK_EXAMPLE)]
    Shrink(Shrink),
    /// Keep Paxos from deciding for as long as you like, and see what ends that
    #[command(after_help = crate::flp::EXAMPLE)]
    Flp(crate::flp::Flp),
    /// Measure how long writes pause when the leader dies, hangs or is cut off, on a cluster of its own
    Failover(Failover),
}

const SERVE_EXAMPLE: &str = "\
A cluster of three on one machine. Every member gets the same list, each address for peers and then for clients:
  export SYNOD_MEMBERS='n1=127.0.0.1:2380,127.0.0.1:2379 n2=127.0.0.1:2480,127.0.0.1:2479 n3=127.0.0.1:2580,127.0.0.1:2579'
  synod serve --name n1 --data-dir n1.data &
  synod serve --name n2 --data-dir n2.data &
  synod serve --name n3 --data-dir n3.data &

Then, with etcd's client or ours:
  etcdctl --endpoints=127.0.0.1:2379,127.0.0.1:2479,127.0.0.1:2579 put greeting hello
  synod get greeting --endpoints 127.0.0.1:2379,127.0.0.1:2479,127.0.0.1:2579

The same as a file, for `synod serve --config n1.toml`; a flag wins over its variable in the
environment (SYNOD_NAME, SYNOD_DATA_DIR, ...), and that over the file. The file may also set
limits, which docs/configuration.md lists:
  name = \"n1\"
  data-dir = \"n1.data\"
  members = [
    { name = \"n1\", peers = \"127.0.0.1:2380\", clients = \"127.0.0.1:2379\" },
    { name = \"n2\", peers = \"127.0.0.1:2480\", clients = \"127.0.0.1:2479\" },
    { name = \"n3\", peers = \"127.0.0.1:2580\", clients = \"127.0.0.1:2579\" },
  ]";

const MEMBER_EXAMPLE: &str = "\
Examples:
  synod member list
  synod member add 127.0.0.1:2680 --clients 127.0.0.1:2679     a new member; says its name and how to start it
  synod member add 127.0.0.1:2680 --learner                    one that votes only after `promote`
  synod member promote n4
  synod member remove n1

To replace a dead member, add the new one first and remove the dead one when the new one votes: a
change that would leave too few voters within reach is refused.";

const SIM_EXAMPLE: &str = "\
Examples:
  synod sim --protocol raft --nodes 5 --seed 7 --for 60s       one quiet run
  synod sim --protocol raft --nodes 5 --seed 7 --swarm         one run under faults drawn from the seed
  synod sim --protocol raft --nodes 5 --seeds 10000            ten thousand of them, each judged
  synod sim --script election.synod --json                     a script of your own
  synod sim --nodes 5 --seed 7 --swarm --print-script          what that run would do, as a script";

const CHECK_EXAMPLE: &str = "\
Examples:
  synod check history.jsonl                                    everything that can be said of it
  synod check history.edn --require sequential --junit out.xml for a build server
  synod check jepsen.log --model linearizable --html why.html  with a picture
  synod check - --follow < history.jsonl                       while it is being recorded

Formats: our JSON lines (docs/history-format.md), Jepsen's and Maelstrom's history.edn, Jepsen's text logs,
Porcupine's key-value logs, r(key,value,session,txn) lines, dbcop's JSON. Models: docs/checking.md.

Exit codes:
  0  the required model holds; without --require or --model, the strongest that the object has
  1  it does not
  2  it could not be decided within the budget
  3  the input or the flags cannot be used";

const PROBE_EXAMPLE: &str = "\
Examples:
  synod probe --endpoints 127.0.0.1:2379 --workload append --for 30s
  synod probe --workload kv --exclusive --out history.jsonl --html why.html
  synod probe --workload register --nemesis 'while true; do echo restart; systemctl restart etcd; sleep 5; done'

The command of --nemesis finds the members in SYNOD_ENDPOINTS.

Exit codes, as of `synod check`:
  0  the required model holds; without --require, the strongest that the workload's object has
  1  it does not
  2  it could not be decided within the budget
  3  the flags cannot be used, or no operation succeeded";

const SHRINK_EXAMPLE: &str = "\
Examples:
  synod shrink --nodes 3 --seed 17 --swarm --html story.html   the run that `synod sim` reported
  synod shrink --script failing.synod --out small.synod        a script of your own

A failing run is made small: fewer nodes, faults, commands and less time, as long as the same
promise is broken. Then it is told in plain words.";

const BENCH_EXAMPLE: &str = "\
Examples:
  synod bench --endpoints 127.0.0.1:2379,127.0.0.1:2479,127.0.0.1:2579
  synod bench --endpoints 127.0.0.1:2379 --clients 64 --outstanding 16 --for 10s
  synod bench --endpoints 127.0.0.1:2379 --server-pid 4711 --json
  synod bench levels                                           four levels of consistency, on a cluster of its own";

/// Options of `synod demo`.
#[derive(Args, Debug, Clone)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Demo {
    #[command(subcommand)]
    pub command: Option<DemoCommand>,
    /// Where the members keep their data; kept between runs
    #[arg(long, env = "SYNOD_DEMO_DATA_DIR", default_value = "synod-data")]
    pub data_dir: PathBuf,
    /// The page's address; another free port is taken if this one is not free
    #[arg(long, default_value = "127.0.0.1:8411")]
    pub page: SocketAddr,
    /// How many members
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// The consensus protocol: raft, multi-paxos, zab or viewstamped; data of one is no data of another
    #[arg(long, default_value = "raft", value_parser = protocol)]
    pub protocol: String,
    /// Let the members listen on any free ports, for tests
    #[arg(long, hide = true)]
    pub any_ports: bool,
    /// Print what was started as one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Default for Demo {
    fn default() -> Self {
        Demo {
            command: None,
            data_dir: "synod-data".into(),
            page: SocketAddr::from(([127, 0, 0, 1], 8411)),
            nodes: 3,
            protocol: "raft".into(),
            any_ports: false,
            json: false,
        }
    }
}

/// Options of `synod serve`. What is not said here may stand in the file; the defaults are the server's.
#[derive(Args, Debug, Default)]
pub struct Serve {
    /// A TOML file with any of these options
    #[arg(long, env = "SYNOD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This member's name, one of the members: n1, n2, ...
    #[arg(long, env = "SYNOD_NAME")]
    pub name: Option<String>,
    /// Where this member keeps its data; never shared
    #[arg(long, env = "SYNOD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A founding member's addresses, for peers and for clients; once for each, the same on all members for ever
    #[arg(
        long = "member",
        env = "SYNOD_MEMBERS",
        value_delimiter = ' ',
        value_name = "NAME=PEERS[,CLIENTS]"
    )]
    pub members: Vec<String>,
    /// A member that joined after the cluster was founded, with its addresses: this one itself if it joins, and
    /// those that it must be able to reach at first
    #[arg(long = "join", env = "SYNOD_JOIN", value_delimiter = ' ', value_name = "NAME=PEERS[,CLIENTS]")]
    pub join: Vec<String>,
    /// Listen here for clients [default: this member's address for clients]
    #[arg(long, env = "SYNOD_LISTEN_CLIENTS", value_name = "HOST:PORT")]
    pub listen_clients: Option<String>,
    /// Listen here for peers [default: this member's address for peers]
    #[arg(long, env = "SYNOD_LISTEN_PEERS", value_name = "HOST:PORT")]
    pub listen_peers: Option<String>,
    /// The cluster's name: members of different clusters refuse each other [default: synod]
    #[arg(long, env = "SYNOD_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// The consensus protocol [default: raft]
    #[arg(long, env = "SYNOD_PROTOCOL")]
    pub protocol: Option<String>,
    /// What an empty data directory means: `new`, a founding member; `existing`, a lost disk, refused [default: new]
    #[arg(long, env = "SYNOD_START", value_name = "new|existing")]
    pub start: Option<String>,
    /// How often an idle leader speaks [default: 50ms]
    #[arg(long, env = "SYNOD_HEARTBEAT", value_name = "TIME")]
    pub heartbeat: Option<String>,
    /// How long a member waits for its leader at the least [default: 200ms]
    #[arg(long, env = "SYNOD_ELECTION_TIMEOUT", value_name = "TIME")]
    pub election_timeout: Option<String>,
    /// How ready it is to lead: higher goes first, 0 only if nobody else does [default: 1]
    #[arg(long, env = "SYNOD_PRIORITY", value_name = "NUMBER")]
    pub priority: Option<u8>,
    /// Let the leader answer reads by itself, which relies on clocks of nearly the same rate; the same on all members
    #[arg(long, env = "SYNOD_LEASE_READS")]
    pub lease_reads: bool,
    /// Bytes of one segment of the log, such as 16MiB [default: 16MiB]
    #[arg(long, env = "SYNOD_SEGMENT_SIZE", value_name = "SIZE")]
    pub segment_size: Option<String>,
    /// Record this member's inputs for `synod replay`
    #[arg(long, env = "SYNOD_FLIGHT_RECORDER", value_name = "FILE")]
    pub flight_recorder: Option<PathBuf>,
    /// Let POST /fault on the client address cut links: for tests and the demo only
    #[arg(long, env = "SYNOD_FAULT_INJECTION")]
    pub fault_injection: bool,
    /// Stop when standard input closes: for supervisors
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

/// Options of `synod lab`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Lab {
    #[command(subcommand)]
    pub command: Option<LabCommand>,
    /// The page's address
    #[arg(long, default_value = "127.0.0.1:8411")]
    pub page: SocketAddr,
}

/// What else `synod lab` does.
#[derive(Subcommand, Debug)]
pub enum LabCommand {
    /// Write one HTML file that shows a run and opens anywhere, without a server or a network
    Export(Export),
}

/// Options of `synod lab export`.
#[derive(Args, Debug)]
pub struct Export {
    /// The script to run; the language is described in docs/scripts.md
    pub script: PathBuf,
    /// The file to write
    #[arg(long, short)]
    pub output: PathBuf,
}

/// Options of `synod check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The history; - for standard input. Its format is found out from its content
    pub file: PathBuf,
    /// Decide this model only, such as linearizable, sequential, causal or serializable
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// What the history is of, such as kv, queue or list-append [default: guessed from the operations]
    #[arg(long, value_name = "OBJECT")]
    pub object: Option<String>,
    /// How it is judged, and where that is told
    #[command(flatten)]
    pub judging: Judging,
    /// Decide linearizability while the file grows, in bounded memory
    #[arg(long, conflicts_with_all = ["model", "object", "require", "json", "junit", "html"])]
    pub follow: bool,
    /// Stop following when nothing was added for this time [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "follow")]
    pub idle: Option<Duration>,
}

/// How a history is judged, and where that is told.
#[derive(Args, Debug)]
pub struct Judging {
    /// The model that decides the exit code
    #[arg(long, value_name = "MODEL")]
    pub require: Option<String>,
    /// Print the judgement as JSON
    #[arg(long)]
    pub json: bool,
    /// Write a JUnit report here
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write a page with the reason and a picture of it here
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Give up after this time, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "60s")]
    pub time: Duration,
    /// Give up beyond so much memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub memory_mib: usize,
}

/// Options of `synod probe`.
#[derive(Args, Debug)]
pub struct Probe {
    /// What is driven: any endpoint with etcd's v3 API
    #[arg(long, value_enum, default_value_t = Target::Etcd)]
    pub target: Target,
    /// The members to drive
    #[arg(long, env = "SYNOD_ENDPOINTS", value_delimiter = ',', default_value = DEMO_ENDPOINTS)]
    pub endpoints: Vec<String>,
    /// What the clients do
    #[arg(long, value_enum, default_value_t = Workload::Register)]
    pub workload: Workload,
    /// How long
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub span: Duration,
    /// How many clients, 1 to 1000, each with one request under way
    #[arg(long, default_value = "5", value_parser = clients)]
    pub clients: usize,
    /// Operations a second of all clients together [default: as fast as answers come]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// How long an answer is waited for; after that the outcome is unknown
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// A command that breaks things, run by `sh -c` after a quarter of the time and stopped at the end; what it
    /// prints is noted in the history
    #[arg(long, value_name = "COMMAND")]
    pub nemesis: Option<String>,
    /// With `kv`: nobody else writes meanwhile, so record revisions and ranges, and judge them as well
    #[arg(long)]
    pub exclusive: bool,
    /// The seed of what the clients choose [default: from the clock]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the history here, line by line while it happens
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How it is judged, and where that is told
    #[command(flatten)]
    pub judging: Judging,
}

/// What a probe can drive.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Target {
    /// etcd's v3 API: etcd, Synod and whatever else speaks it
    Etcd,
}

/// A replicated log by any of its names, under its own.
fn protocol(text: &str) -> Result<String, String> {
    let known = || format!("there is: {}", REPLICATED_LOGS.join(", "));
    replicated_log(text).map(String::from).ok_or_else(known)
}

fn clients(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    (1..=1000).contains(&number).then_some(number).ok_or_else(|| "not from 1 to 1000".into())
}

/// Options of `synod replay`.
#[derive(Args, Debug)]
pub struct Replay {
    /// The recording, made with `synod serve --flight-recorder FILE`
    pub recording: PathBuf,
    /// The page's address
    #[arg(long, default_value = "127.0.0.1:8411")]
    pub page: SocketAddr,
    /// Print what the member did instead of opening the page
    #[arg(long)]
    pub text: bool,
}

/// Which cluster, and how long to wait.
#[derive(Args, Debug)]
pub struct Cluster {
    /// Members to ask, in turn
    #[arg(long, env = "SYNOD_ENDPOINTS", value_delimiter = ',', default_value = DEMO_ENDPOINTS)]
    pub endpoints: Vec<String>,
    /// How long to wait for each
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `synod put`.
#[derive(Args, Debug)]
pub struct Put {
    /// The key
    pub key: String,
    /// Its value; of a counter what is added, of a set the element
    #[arg(allow_negative_numbers = true)]
    pub value: String,
    /// Take the element out of the set instead
    #[arg(long, requires = "kind")]
    pub remove: bool,
    /// Write only if the key has this value
    #[arg(long = "if", value_name = "VALUE", requires = "keyspace", conflicts_with = "if_absent")]
    pub condition: Option<String>,
    /// Write only if there is no such key
    #[arg(long, requires = "keyspace")]
    pub if_absent: bool,
    /// Where, and how consistent
    #[command(flatten)]
    pub place: InKeyspace,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod get`.
#[derive(Args, Debug)]
pub struct Get {
    /// The key
    pub key: String,
    /// All keys that begin with it
    #[arg(long)]
    pub prefix: bool,
    /// As of this revision; 0 means now
    #[arg(long, default_value_t = 0, conflicts_with = "keyspace")]
    pub revision: i64,
    /// At most this many; 0 means all
    #[arg(long, default_value_t = 0)]
    pub limit: i64,
    /// From the asked member's own state, possibly stale, without asking the others
    #[arg(long, conflicts_with = "keyspace")]
    pub serializable: bool,
    /// Where, and how consistent
    #[command(flatten)]
    pub place: InKeyspace,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod del`.
#[derive(Args, Debug)]
pub struct Del {
    /// The key
    pub key: String,
    /// All keys that begin with it
    #[arg(long, conflicts_with = "keyspace")]
    pub prefix: bool,
    /// Where, and how consistent
    #[command(flatten)]
    pub place: InKeyspace,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// What `synod member` does.
#[derive(Subcommand, Debug)]
pub enum MemberCommand {
    /// Show the members
    List(Cluster),
    /// Take in a new member, whose number the cluster chooses
    Add(MemberAdd),
    /// Let a member go: it stops by itself, and its number is never used again
    Remove(MemberName),
    /// Let a learner vote that has caught up
    Promote(MemberName),
}

/// Options of `synod member add`.
#[derive(Args, Debug)]
pub struct MemberAdd {
    /// Where the other members will reach it, host:port
    pub peers: String,
    /// Where clients will reach it, host:port
    #[arg(long, value_name = "HOST:PORT")]
    pub clients: Option<String>,
    /// Let it vote only after `synod member promote`, and not of its own accord once it has caught up
    #[arg(long)]
    pub learner: bool,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// A member that something is done to.
#[derive(Args, Debug)]
pub struct MemberName {
    /// Its name, as in n4
    pub name: String,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod transfer`.
#[derive(Args, Debug)]
pub struct Transfer {
    /// The member that shall lead [default: whoever is best placed]
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod bench`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// The members to load
    #[arg(long, env = "SYNOD_ENDPOINTS", value_delimiter = ',', default_value = DEMO_ENDPOINTS)]
    pub endpoints: Vec<String>,
    /// Connections; without it the standard rows are measured: 1, 64, 256 clients, and 64 with 16 outstanding each
    #[arg(long)]
    pub clients: Option<usize>,
    /// Requests outstanding on each connection
    #[arg(long, default_value_t = 1)]
    pub outstanding: usize,
    /// How long each row is measured
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub span: Duration,
    /// How long each row warms up first
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Bytes of a key
    #[arg(long, default_value_t = 8)]
    pub key_bytes: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,
    /// Operations in a hundred which are linearizable reads
    #[arg(long, default_value_t = 0)]
    pub reads: u8,
    /// Process ids of the servers, to report their processor time per operation
    #[arg(long = "server-pid", value_delimiter = ',')]
    pub server_pids: Vec<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `synod failover`.
#[derive(Args, Debug)]
pub struct Failover {
    /// The consensus protocol: raft, multi-paxos, zab or viewstamped
    #[arg(long, default_value = "raft", value_parser = protocol)]
    pub protocol: String,
    /// How often each fault strikes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub runs: u64,
    /// Where the cluster keeps its data, on the disk to be measured [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
