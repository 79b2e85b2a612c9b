//! The contract between a protocol and its host, and every protocol as a pure state machine.
//!
//! A protocol participant (a Raft server, a two-phase-commit coordinator, a causal replica) is a
//! [`Process`]: deterministic, single-threaded, without input or output of its own. Everything
//! that it learns arrives through [`Process::step`]; everything that it wants done leaves through
//! [`Effects`]. Time is an argument, randomness comes from a seed, and a process cannot tell
//! whether it lives in the simulator, in the explorer or on a real machine. That is what makes
//! the three the same program.
//!
//! # The durability rule
//!
//! Records are appended in the order in which they are emitted; the records of one step become
//! durable together or not at all. **An effect leaves only when every record emitted before it,
//! its own step's included, is durable.** The one exception is an effect marked *early*, see
//! [`Effects`]. A process counts its own vote, promise or acknowledgement by a message to itself,
//! which its host returns in order after the sync, and which a crash loses. Nothing in this crate
//! knows how records are written, and no host needs to know what they mean: it may run many
//! steps, sync once, and release everything.
//!
//! # What is here
//!
//! | module | what it holds |
//! |---|---|
//! | [`contract`] | [`Process`], [`Input`], [`Effects`], [`Recovery`]: the one trait and its vocabulary |
//! | [`log`] | the fixed vocabulary of a replicated log, which the consensus protocols share |
//! | [`wire`] | the bounded binary encoding of messages and records |
//! | [`types`], [`ballot`], [`rng`], [`fingerprint`] | identities and time, the seeded generator, state digests |
//! | [`epoch_log`], [`membership`], [`reading`], [`window`], [`host_read`] | what replicated logs do alike: the log in memory, quorums of changing members, linearizable reads, flow control, reading back |
//! | [`paxos`] | Paxos for one value: the place to begin |
//! | [`ben_or`] | Ben-Or's randomised consensus: what impossibility leaves possible |
//! | [`raft`] | Raft |
//! | [`multi_paxos`] | Multi-Paxos |
//! | [`viewstamped`] | Viewstamped Replication |
//! | [`zab`] | Zab |
//! | [`replicated`] | any process, run on any replicated log |
//! | [`saga`] | sagas: long transactions that are undone step by step |
//! | [`commit`] | two-phase and three-phase commit, and what transactions change |
//! | [`weak`] | causal and eventual replication: available under any partition |
//!
//! # What is deliberately absent
//!
//! No clock, socket, file, thread, `async`, environment, logger or hash map; no standard library
//! at all. Protocols do not import each other: what two of them share lives in the modules above.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod ballot;
pub mod ben_or;
pub mod catalogue;
pub mod commit;
pub mod contract;
pub mod epoch_log;
pub mod fingerprint;
pub mod host_read;
pub mod log;
pub mod membership;
pub mod multi_paxos;
pub mod paxos;
pub mod raft;
pub mod reading;
pub mod replicated;
pub mod rng;
pub mod saga;
pub mod types;
pub mod viewstamped;
pub mod weak;
pub mod window;
pub mod wire;
pub mod zab;

pub use contract::{
    Checkpoint, Describe, Effects, Emit, Input, Process, Recovery, Release, Send, StorageFault,
};
pub use fingerprint::Fingerprint;
pub use rng::Rng;
pub use types::{Incarnation, LinkSession, NodeId, Time};
pub use wire::{DecodeError, Reader, Wire};
