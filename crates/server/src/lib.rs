//! The real world for nodes: disk, sockets and client APIs; also a library.
//!
//! ```text
//!   etcd clients ── HTTP/2 ──► grpc ─► api ─┐            ┌─► disk thread: one write, one sync a batch
//!   curl, browsers ─ HTTP/1 ─► http ────────┤   member   ├─► peers: one write a batch and peer
//!   peers ──────── frames ───► peers ───────┼─► inbox ─► │ node.step … node.flush
//!   disk thread ── replies ─────────────────┘            └─► calls: answers into the clients' connections
//! ```
//!
//! A member is one thread for everything but the disk: nothing is locked, and processor time is
//! spent once. What is ready together is handled together.
//!
//! ```no_run
//! use synod_server::{Config, Server};
//!
//! let config = Config {
//!     name: "n1".into(),
//!     members: vec!["n1=127.0.0.1:2380,127.0.0.1:2379".parse()?],
//!     data_dir: "n1.data".into(),
//!     ..Config::default()
//! };
//! let server = Server::start(config)?;
//! println!("clients: {}", server.client_address());
//! server.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api;
mod applied;
mod calls;
mod clock;
mod config;
mod directory;
mod disk;
mod embed;
mod engine;
mod error;
mod events;
mod frame;
mod grpc;
mod hosted;
mod http;
mod life;
mod member;
mod members;
pub mod outputs;
pub mod outside;
mod peers;
mod recorder;
mod server;
mod service;
mod session;
mod weak;

pub use config::{
    CLUSTER_NAME_BYTES_MAX, Config, MEMBERS_MAX, MemberAddress, PROTOCOLS, REQUEST_BYTES_MAX_MAX, Start,
    parse_duration, parse_size,
};
pub use embed::{
    Builder, Handle, Pending, Replica, RequestError, SNAPSHOT_BYTES_MAX, Standing, StateMachine, Watch,
};
pub use error::Error;
pub use members::MemberInfo;
pub use server::{Server, Stop};
pub use synod_protocols::NodeId;
pub use synod_protocols::log::{Epoch, Index, MemberPart, Role};
