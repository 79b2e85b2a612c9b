//! A program's own state machine, replicated in its own process.
//!
//! It is the member that `synod serve` runs, with the program's state machine in the place of the etcd store, and the
//! program's threads in the place of clients that come over the network. A program writes a [`StateMachine`], starts one
//! [`Replica`] of it on every machine, and asks through a [`Handle`]:
//!
//! ```
//! use synod_server::{Index, Replica, StateMachine};
//!
//! /// A number that can be added to.
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     type Response = u64;
//!     type Query = ();
//!     type Answer = u64;
//!
//!     fn apply(&mut self, _index: Index, command: &[u8]) -> u64 {
//!         self.0 += command.len() as u64;
//!         self.0
//!     }
//!
//!     fn query(&self, (): &()) -> u64 {
//!         self.0
//!     }
//!
//!     fn snapshot(&self) -> Vec<u8> {
//!         self.0.to_le_bytes().to_vec()
//!     }
//!
//!     fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
//!         self.0 = u64::from_le_bytes(snapshot.try_into().map_err(|_| "not 8 bytes")?);
//!         Ok(())
//!     }
//! }
//!
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! // A cluster of one, to keep the example short; `examples/embed` runs three.
//! let replica = Replica::builder("tally", "n1")
//!     .member("n1", "127.0.0.1:0")
//!     .data_dir(directory.join("n1"))
//!     .start(Counter::default())?;
//! let handle = replica.handle();
//! handle.watch().wait(std::time::Duration::from_secs(10), |standing| standing.leader.is_some());
//!
//! assert_eq!(handle.propose("three").wait()?, 5);
//! assert_eq!(handle.read(()).wait()?, 5);
//! replica.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **What is promised.** A command whose response was given has been applied, is on the disks of a majority, and is
//! applied exactly once on every replica, in one order. A [`Handle::read`] sees every command that was answered before
//! it was asked, on whichever member. What is *not* promised is that a command without a response was not applied:
//! [`RequestError::is_surely_not_done`] tells the two apart.
//!
//! **What is not there.** The state lives in memory, and a snapshot is the whole of it: this is for state that fits there
//! several times over. The member's status port, its metrics and its event stream are the etcd server's alone so far.

mod handle;
mod machine;
mod service;

pub use handle::{Handle, Pending, RequestError, Standing, Watch};
pub use machine::SNAPSHOT_BYTES_MAX;

use crate::config::{Config, MemberAddress};
use crate::error::Error;
use crate::life::{Life, Stop};
use service::Waiting;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use synod_protocols::log::Index;

/// Before the names of clusters that replicate a program's own state machine, so that their members and data never mix
/// with those of a cluster that serves the etcd API.
const CLUSTER_PREFIX: &str = "program/";

/// What a program replicates.
///
/// **It must be deterministic.** Every replica applies the same commands in the same order, also again after a restart,
/// and must come to the same state: no clock, no randomness, no iteration over a `HashMap` in what `apply` does. What a
/// command needs of these, whoever proposes it puts into it.
///
/// All functions run on the member's own thread, which also keeps its leader's heartbeat: what takes longer than the
/// election timeout costs the leader its office. A panic ends the member, see [`Replica::wait`].
pub trait StateMachine: Send + 'static {
    /// What whoever proposed a command is told. It never leaves the process.
    type Response: fmt::Debug + Send + 'static;
    /// What can be asked without changing anything. It never leaves the process.
    type Query: fmt::Debug + Clone + Send + 'static;
    /// What is answered to that.
    type Answer: fmt::Debug + Send + 'static;

    /// Applies a command. One that makes no sense is answered so in the response; it was committed all the same.
    ///
    /// `index` is its place in the log, the same on every replica and higher with every command: good for ids, and for
    /// fencing tokens.
    fn apply(&mut self, index: Index, command: &[u8]) -> Self::Response;

    /// Answers from the present state.
    fn query(&self, query: &Self::Query) -> Self::Answer;

    /// The whole state, in an encoding of its own. Asked for when the log is to be cut, which is about once for every
    /// segment of it (`Config::segment_size`), and for a replica that is too far behind for the log.
    fn snapshot(&self) -> Vec<u8>;

    /// Becomes the state that [`StateMachine::snapshot`] encoded, here or on another replica, perhaps by an earlier
    /// version of the program.
    ///
    /// # Errors
    /// Why it cannot, in words for whoever runs the program. The replica stops, and says so.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;
}

/// Says how a replica is to be started. Every setting but the members has a default.
///
/// What is wrong is said by [`Builder::start`], all of it at once.
#[derive(Debug)]
pub struct Builder<M> {
    config: Config,
    log: Logger,
    machine: PhantomData<fn(M)>,
}

struct Logger(Box<dyn Fn(&str) + Send>);

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a function")
    }
}

impl<M: StateMachine> Builder<M> {
    /// Names a founding member, this one included, and where its peers reach it. The same on all members for ever,
    /// whoever joins or leaves later.
    #[must_use]
    pub fn member(mut self, name: &str, peers: impl Into<String>) -> Self {
        self.config.members.push(address(name, peers.into()));
        self
    }

    /// Names a member that joined later, as [`Handle::add_member`] numbered it. One that starts for the first time
    /// names itself; it also names those who joined before it, as far as it must be able to reach them.
    #[must_use]
    pub fn joined(mut self, name: &str, peers: impl Into<String>) -> Self {
        self.config.join.push(address(name, peers.into()));
        self
    }

    /// Where this member keeps its log and its state: a directory of its own. Default `NAME.data`.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.data_dir = path.into();
        self
    }

    /// The consensus protocol, one of [`PROTOCOLS`](crate::PROTOCOLS), the same on all members. Default `raft`.
    #[must_use]
    pub fn protocol(mut self, name: &str) -> Self {
        name.clone_into(&mut self.config.protocol);
        self
    }

    /// Everything else: timeouts, bounds, sizes, priorities. What is about clients over the network has no effect, but
    /// for [`MemberAddress::clients`]: it is what [`Handle::members`] tells, for the program's own use.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn patient<M: synod_server::StateMachine>(builder: synod_server::Builder<M>) -> synod_server::Builder<M> {
    /// builder.configure(|config| config.election_timeout = Duration::from_secs(1))
    /// # }
    /// ```
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Where the member says what it has to say, line by line. Default: standard error, behind its name.
    #[must_use]
    pub fn log(mut self, log: impl Fn(&str) + Send + 'static) -> Self {
        self.log = Logger(Box::new(log));
        self
    }

    /// Starts the member on a thread of its own. `machine` is the state of a new cluster, the same on all members; what
    /// the data directory holds is restored and applied on top of it.
    ///
    /// # Errors
    /// Why it did not start, as a line that says what to do.
    pub fn start(mut self, machine: M) -> Result<Replica<M>, Error> {
        // Before the prefix makes a name of nothing.
        self.config.validate().map_err(Error::Config)?;
        self.config.cluster.insert_str(0, CLUSTER_PREFIX);
        let (handle, inlet) = handle::open(&self.config);
        let life = Life::begin(self.config, self.log.0, move |_| Waiting::new(machine, inlet))?;
        Ok(Replica { life, handle })
    }
}

fn address(name: &str, peers: String) -> MemberAddress {
    MemberAddress { name: name.to_owned(), peers, clients: None }
}

/// One replica of a program's state machine, running. Dropping it stops it as [`Replica::stop`] does.
#[derive(Debug)]
pub struct Replica<M: StateMachine> {
    life: Life,
    handle: Handle<M>,
}

impl<M: StateMachine> Replica<M> {
    /// Begins to describe a replica: of what, by the name of the cluster, and which one, by `n` and its number from 1.
    pub fn builder(cluster: &str, name: &str) -> Builder<M> {
        let said_by = name.to_owned();
        Builder {
            config: Config {
                cluster: cluster.to_owned(),
                name: name.to_owned(),
                data_dir: format!("{name}.data").into(),
                ..Config::default()
            },
            log: Logger(Box::new(move |line| eprintln!("{said_by}: {line}"))),
            machine: PhantomData,
        }
    }

    /// A handle to ask it, which can be cloned and sent to any thread.
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }

    /// Where it listens for peers.
    pub fn peer_address(&self) -> SocketAddr {
        self.life.addresses.peers
    }

    /// A handle that can ask it to stop.
    pub fn stop_handle(&self) -> Stop {
        self.life.stop_handle()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.life.is_running()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// Why it had to end, if nobody asked it to: also a panic of the state machine.
    pub fn wait(mut self) -> Result<(), Error> {
        self.life.join()
    }

    /// Stops it: who waits is told, and nothing that was answered is lost.
    ///
    /// # Errors
    /// Why it had to end before.
    pub fn stop(mut self) -> Result<(), Error> {
        self.life.stop_handle().stop();
        self.life.join()
    }
}
