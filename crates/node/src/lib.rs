//! One member, still pure: log frames, group commit, release of effects, apply, forwarding,
//! sessions.
//!
//! A [`Node`] joins a replicated log (any [`synod_protocols::log::ReplicatedLog`]) and a
//! [`StateMachine`] into a member of a cluster. It does no input or output: its host hands it what
//! arrived ([`Input`]) and carries out what it wants ([`Outbox`]). The simulator and the server are
//! two such hosts, and this code cannot tell which one it lives in.
//!
//! ```text
//!   client, peer, disk reply, timeout            Outbox: sends, replies, disk commands, notices
//!              │                                                  ▲
//!              ▼                                                  │
//!   ┌─ step ──────────────┐   records   ┌─ frames ─┐  one write, one sync   ┌─ durable ─┐
//!   │ process (the        │ ──────────► │ group    │ ─────────────────────► │ release   │
//!   │ protocol), sessions │   effects   │ commit   │                        │ in order  │
//!   └─────────────────────┘ ──────────► held until their records are durable └───────────┘
//!              │ committed
//!              ▼
//!        state machine: apply, then answer the client that waits on this member
//! ```
//!
//! A host's loop: hand over every input that is ready, each by [`Node::step`]; then
//! [`Node::flush`] once, which proposes what clients asked meanwhile as one batch and starts a
//! disk write if none is in flight; then carry out the outbox. That is all of group commit.

mod asks;
mod changes;
pub mod disk;
mod forward;
pub mod frame;
mod interface;
pub mod kv;
pub mod machine;
pub mod metadata;
pub mod node;
pub mod peer;
mod positions;
mod reads;
pub mod recovery;
mod release;
mod segments;
pub mod sessions;
pub mod spaces;
mod start;
pub mod tape;
mod weak;
mod writer;

pub use changes::Change;
pub use disk::{Disk, DiskCommand, DiskFault, DiskReply, SegmentId};
pub use kv::KvMachine;
pub use machine::{Part, StateMachine, Stored};
pub use node::{
    Bootstrap, ClientError, ClusterId, Input, Node, NodeConfig, NodeLimits, NodeStatus, Notice, Outbox,
    Outcome, PeerSend, Reply, Request, StartError,
};
pub use peer::{PeerMessage, SnapshotId, SnapshotPart, SnapshotRequest};
pub use weak::{Blank, WeakFigures, WeakNode, WeakNodeConfig, WeakNotice, WeakOutbox};
