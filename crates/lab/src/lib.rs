//! The web page and the small server that feeds it.
//!
//! The page is a view of a trace: it sends a script, gets the run's header, and asks for windows of
//! its events. It also watches a live cluster, when the program that starts the laboratory has one
//! ([`LiveCluster`]), and opens a recorded trace ([`Lab::with_trace`]).
//!
//! The server answers on loopback only, to its own page only: it checks the `Host` of each request
//! against names of this machine, so that a foreign site cannot reach it by a rebound name, and the
//! `Origin` of each request that does something.

mod assets;
mod cap;
mod export;
mod flp;
mod lessons;
mod live;
mod member;
mod operations;
mod runs;
mod server;
mod trace;
mod transfer;
mod verdicts;

pub use export::{EXPORT_BYTES_MAX, ExportError, export};
pub use lessons::LESSONS;
pub use live::{
    LIVE_BYTES_MAX, LIVE_EVENTS_MAX, LIVE_LAG_MAX, LiveAction, LiveCluster, LiveDescription, LiveHistory,
    LiveNode, LiveVerb,
};
pub use member::{MEMBER_ANSWER_BYTES_MAX, MEMBER_WAIT_MAX};
pub use operations::OPERATIONS_KEPT_MAX;
pub use runs::{CACHE_BYTES_MAX, CACHE_RUNS_MAX, RUN_TIME_MAX, RUNS_AT_ONCE_MAX, ScriptError, simulate};
pub use server::{BoundLab, SCRIPT_BYTES_MAX};
pub use trace::{TRACE_BYTES_MAX, TRACE_VERSION, Trace, TraceError, WINDOW_EVENTS_MAX};
pub use verdicts::{HISTORY_BYTES_MAX, OPERATIONS_DRAWN_MAX};

use std::net::SocketAddr;
use std::sync::Arc;

/// A laboratory that is about to be opened.
pub struct Lab {
    pub(crate) addr: SocketAddr,
    pub(crate) live: Option<Arc<dyn LiveCluster>>,
    pub(crate) trace: Option<Trace>,
}

/// Why the laboratory cannot be opened or go on.
#[derive(Debug)]
pub enum LabError {
    /// The address is not one of this machine's loopback addresses.
    NotLoopback(SocketAddr),
    /// The address is taken or may not be used.
    Bind(SocketAddr, std::io::Error),
    /// The listening socket failed.
    Serve(std::io::Error),
}

impl std::fmt::Display for LabError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LabError::NotLoopback(addr) => write!(
                f,
                "the laboratory has no login and answers on loopback only, not on {addr}: use 127.0.0.1, and a tunnel to reach it from elsewhere"
            ),
            LabError::Bind(addr, error) if error.kind() == std::io::ErrorKind::AddrInUse => write!(
                f,
                "port {} is taken by another program: choose another, or 0 for any free one",
                addr.port()
            ),
            LabError::Bind(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
            LabError::Serve(error) => write!(f, "the laboratory's socket failed: {error}"),
        }
    }
}

impl std::error::Error for LabError {}

impl Lab {
    /// A laboratory of simulated clusters on this loopback address; port 0 takes any free one.
    pub fn new(addr: SocketAddr) -> Lab {
        Lab { addr, live: None, trace: None }
    }

    /// Also shows this live cluster.
    #[must_use]
    pub fn with_live(mut self, cluster: Arc<dyn LiveCluster>) -> Lab {
        self.live = Some(cluster);
        self
    }

    /// Also shows this recorded trace, under `#replay`.
    #[must_use]
    pub fn with_trace(mut self, trace: Trace) -> Lab {
        self.trace = Some(trace);
        self
    }

    /// Takes the address, so that it can be printed before anybody is served.
    ///
    /// # Errors
    /// [`LabError`] when the address is not loopback, is taken, or may not be used.
    pub async fn bind(self) -> Result<BoundLab, LabError> {
        server::bind(self).await
    }
}
