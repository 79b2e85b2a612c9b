//! A deterministic world for nodes and protocols: script in, trace out.
//!
//! [`run`] takes a [`Script`], a small readable document, and plays it on real nodes
//! (`synod-node`) with a real protocol (`synod-protocols`) and the real store (`synod-store`), in
//! virtual time, on a network and disks that fail as the script says. It is a pure function: the
//! same script gives the same [`Outcome`], the same trace and the same hash, on every machine.
//! Everything random is drawn from the script's seed by place and count, in integers.
//!
//! ```
//! let script: synod_sim::Script = "
//!     synod-script 1
//!     for 3s
//!     clients 2 every 50ms keys 2
//!     at 1s crash leader
//!     at 2s recover
//! ".parse()?;
//! let outcome = synod_sim::run(&script, &mut synod_sim::NoTrace)?;
//! assert!(outcome.passed(), "{outcome}");
//! assert!(outcome.counts.elections >= 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The promises of a replicated log are checked after every step, the clients' history is judged for
//! linearizability at the end, and what a script expects of progress is asked for after its last
//! fault. [`swarm`] makes scripts of random faults from seeds, and [`Campaign`] runs many of them. [`costs`] and
//! [`failover`] measure the protocols on the same world.
//!
//! What it leaves out: faults of memory and processors, and malicious members.

pub mod bank;
mod campaign;
mod checkers;
mod clients;
mod clock;
pub mod costs;
mod dice;
mod disk;
mod event;
pub mod failover;
mod faults;
pub mod flp;
mod machine;
mod matrix;
mod member;
mod network;
mod outcome;
mod parse;
mod queue;
mod replay;
pub mod script;
mod show;
mod shrink;
mod single;
mod small;
mod story;
mod swarm;
mod trace;
mod units;
pub mod weak;
mod world;

pub use campaign::{Campaign, CampaignReport, FAILURES_MAX, Failure, Progress, Shard, replay_command};
pub use checkers::VIOLATIONS_MAX;
pub use disk::{SECTOR_BYTES, SimDisk};
pub use event::{Event, LOG_SHOWN, Mark, NoTrace, NodeState, Sink};
pub use matrix::{Cell, Matrix};
pub use outcome::{Counts, Linearizable, Outcome, Verdict, Violation};
pub use parse::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, ScriptError, WORD_BYTES_MAX};
pub use replay::{ReplayError, Replayed, replay};
pub use script::Script;
pub use shrink::{Shrunk, broken, shrink};
pub use story::Story;
pub use swarm::{Expected, Fault, Swarm, swarm};
pub use trace::{TRACE_BYTES_MAX, TRACE_EVENTS_MAX, TRACE_VERSION, Trace};
pub use units::{Factor, Share, Span};
pub use world::MARKS_MAX;

pub use synod_protocols::NodeId;
pub use synod_protocols::paxos::Paxos;

use std::fmt;
use synod_protocols::catalogue::REPLICATED_LOGS;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::with_replicated_log;

/// The protocols that [`run`] knows.
pub const PROTOCOLS: &[&str] = REPLICATED_LOGS;

/// A script names a protocol that there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProtocol(pub String);

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no protocol `{}`; there is: {}", self.0, PROTOCOLS.join(", "))
    }
}

impl std::error::Error for UnknownProtocol {}

/// Runs a script on the protocol that it names, and hands what happens to `sink`. Beside the replicated logs there is
/// `single-paxos`, in which the members agree on one value only; the campaigns leave it out.
///
/// # Errors
/// [`UnknownProtocol`]. Broken promises are no errors: they are in the outcome.
pub fn run(script: &Script, sink: &mut dyn Sink) -> Result<Outcome, UnknownProtocol> {
    let name = script.protocol.as_str();
    if name == single::NAME {
        return Ok(single::run(script, sink));
    }
    with_replicated_log!(name, P => run_with::<P>(script, sink)).ok_or_else(|| UnknownProtocol(name.into()))
}

/// Runs a script on a protocol of the caller's choice, whatever the script names: one of its own, or
/// a copy with a mistake planted in it.
pub fn run_with<P: ReplicatedLog>(script: &Script, sink: &mut dyn Sink) -> Outcome {
    world::run_world::<P>(script, sink)
}
