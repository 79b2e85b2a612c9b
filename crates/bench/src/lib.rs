//! A cheap load generator for any etcd v3 endpoint.
//!
//! A generator that shares a machine with the servers it measures takes processor time away from them, so
//! this one spends as little as it can: one thread, non-blocking sockets, HTTP/2 by hand, requests that
//! are encoded once and then only patched. It costs a few microseconds a call and reports how many.
//!
//! The load is a closed loop: every connection keeps a fixed number of calls under way, and begins
//! the next when one ends. What that hides is the waiting that an open loop would see: latencies here
//! are those of a system which is never asked for more than it gives.
//!
//! A member that dies, hangs or says goodbye does not end a run. Its connections move to the next endpoint,
//! the calls that were under way count as unknown, and the report says how long no put succeeded.
//!
//! ```no_run
//! use synod_bench::{Options, run, standard_rows};
//!
//! let options = Options { endpoints: vec!["127.0.0.1:2379".into()], ..Options::default() };
//! for row in standard_rows() {
//!     println!("{}", run(&options.with_row(row), &mut |_| {})?);
//! }
//! # Ok::<(), synod_bench::Error>(())
//! ```

mod connection;
mod driver;
mod histogram;
mod hpack;
mod options;
mod report;
mod request;
mod tally;
mod usage;
mod wire;

pub use driver::{Phase, Progress, run};
pub use histogram::Histogram;
pub use options::{
    CLIENTS_MAX, KEY_BYTES_MAX, Limit, Mix, OUTSTANDING_MAX, Options, Row, VALUE_BYTES_MAX, standard_rows,
};
pub use report::{ErrorCount, Gap, Latency, Member, Report, Servers, Table};
pub use request::Operation;
pub use usage::Usage;

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is out of its range.
    #[error("{option}: {problem}")]
    BadOption {
        /// The name of the field in [`Options`].
        option: &'static str,
        /// What is wrong with it, and what it may be.
        problem: String,
    },
    /// A process that was to be charged does not exist, or is not ours to read.
    #[error("server_pids: there is no process {0} whose use can be read")]
    NoProcess(u32),
    /// No endpoint could be spoken to at all.
    #[error("no endpoint answered within {seconds} s; the last said: {last}")]
    NoEndpoint {
        /// How long was tried.
        seconds: u64,
        /// What the last attempt failed with.
        last: String,
    },
    /// The operating system refused what the generator cannot do without.
    #[error("the operating system refused: {0}")]
    System(#[from] std::io::Error),
}
