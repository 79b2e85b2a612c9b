//! Why a member does not start, or does not go on.

use std::path::PathBuf;

/// Why a member did not start, or stopped. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration does not fit.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// The data directory cannot be used at all.
    #[error("the data directory {}: {why}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// Another process works on the data directory.
    #[error("the data directory {} is in use by {owner}: stop it, or give this member a directory of its own", path.display())]
    InUse {
        /// Which.
        path: PathBuf,
        /// Who holds it.
        owner: String,
    },
    /// The data belong to another cluster, member, protocol or format.
    #[error("the data directory {} belongs to {what}: correct the option, or name another directory", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// To whom it belongs, beside what was expected.
        what: String,
    },
    /// The directory is empty though the member has lived before.
    #[error("the data directory {} holds no log though this member has lived before: its disk was lost. Restore the \
             directory from this member's own disk. Starting without it could undo a vote or an acknowledged write", path.display())]
    Blank {
        /// Which.
        path: PathBuf,
    },
    /// Records that may have been acknowledged are unreadable.
    #[error("the log in {} is damaged ({what}): nothing was changed. Keep the directory for examination; the other \
             members go on without this one as long as they are a majority", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where and what.
        what: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {why}")]
    Listen {
        /// Which.
        address: String,
        /// For whom.
        what: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// The state's storage failed or contradicts the log.
    #[error("the state in {}: {why}. While the log is whole the state can be rebuilt from it: move this directory away and \
             start again", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The disk failed while the member ran, or something else without which it must not go on.
    #[error(
        "this member stopped: {0}. Nothing that was acknowledged is lost while a majority of the members keep their \
             disks; mend the cause and start it again"
    )]
    Fatal(String),
    /// The cluster has let this member go.
    #[error(
        "{name} was removed from the cluster and stops: its data directory {} is of no more use. To come back, it is \
         added as a new member, with a new number and an empty directory", path.display()
    )]
    Removed {
        /// Which.
        name: String,
        /// What it leaves behind.
        path: PathBuf,
    },
    /// The operating system refused something else.
    #[error("the operating system refused {what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        error: std::io::Error,
    },
}
