//! Keyspaces on the command line.

use super::Cluster;
use clap::{Args, Subcommand, ValueEnum};

pub const KEYSPACE_EXAMPLE: &str = "\
Examples:
  synod keyspace create accounts --model linearizable    as if there were one copy
  synod keyspace create feed --model causal              any member serves, whatever the others do
  synod keyspace list
  synod keyspace drop feed --force

What the four models promise and cost: docs/consistency.md.";

pub const PUT_EXAMPLE: &str = "\
Examples:
  synod put greeting hello                                         in the etcd store
  synod put post 'Is anybody there?' --keyspace feed --session me  what `me` has seen comes before it
  synod put visits 1 --keyspace feed --kind counter                adds
  synod put cart tea --keyspace feed --kind set                    and --remove takes out
  synod put ada me --keyspace names --if-absent                    one of two wins; the other is told";

pub const GET_EXAMPLE: &str = "\
Examples:
  synod get greeting
  synod get --prefix user/ --json
  synod get post --keyspace feed --session me            never back in time, at whichever member
  synod get mode --keyspace accounts --consistency eventual
  synod get --prefix '' --keyspace feed                  all keys";

pub const DEL_EXAMPLE: &str = "\
Examples:
  synod del greeting
  synod del post --keyspace feed --session me";

/// What `synod keyspace` does.
#[derive(Subcommand, Debug)]
pub enum KeyspaceCommand {
    /// Make a keyspace; nothing happens if it is there with this model
    Create(KeyspaceCreate),
    /// Show the keyspaces
    List(Cluster),
    /// Drop a keyspace
    Drop(KeyspaceDrop),
}

/// Options of `synod keyspace create`.
#[derive(Args, Debug)]
pub struct KeyspaceCreate {
    /// Its name
    pub name: String,
    /// What it promises, for ever
    #[arg(long, value_enum)]
    pub model: Level,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Options of `synod keyspace drop`.
#[derive(Args, Debug)]
pub struct KeyspaceDrop {
    /// Its name
    pub name: String,
    /// Also if it holds keys
    #[arg(long)]
    pub force: bool,
    /// Which cluster
    #[command(flatten)]
    pub cluster: Cluster,
}

/// Where a key is, and how consistent the request is to be.
#[derive(Args, Debug)]
pub struct InKeyspace {
    /// In this keyspace and not in the etcd store
    #[arg(long, value_name = "NAME")]
    pub keyspace: Option<String>,
    /// A weaker level than the keyspace's own
    #[arg(long, value_enum, requires = "keyspace", value_name = "LEVEL")]
    pub consistency: Option<Level>,
    /// Belong to a session: a file that is read, and written anew with each answer; or a token itself
    #[arg(long, requires = "keyspace", value_name = "FILE|TOKEN")]
    pub session: Option<String>,
    /// What the key holds, in causal and eventual keyspaces [default: register]
    #[arg(long, value_enum, requires = "keyspace")]
    pub kind: Option<Kind>,
    /// Replace the siblings that a `get --json` said this of
    #[arg(long, requires = "keyspace", value_name = "TEXT")]
    pub context: Option<String>,
}

/// What a keyspace promises, or a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// As if there were one copy
    Linearizable,
    /// One order for all, which keeps every session's own
    Sequential,
    /// Effects never before causes
    Causal,
    /// Without new writes all members come to show the same
    Eventual,
}

impl Level {
    /// As the API calls it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Linearizable => "linearizable",
            Level::Sequential => "sequential",
            Level::Causal => "causal",
            Level::Eventual => "eventual",
        }
    }
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// One value; the last writer wins
    Register,
    /// All values that nobody has replaced
    Siblings,
    /// A sum
    Counter,
    /// Elements; an addition wins against a removal at the same time
    Set,
}

impl Kind {
    /// As the API calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Register => "register",
            Kind::Siblings => "siblings",
            Kind::Counter => "counter",
            Kind::Set => "set",
        }
    }
}
