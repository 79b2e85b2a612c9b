//! The protocols under test, and in what they differ to an outsider.

use synod_protocols::log::{Epoch, ReplicatedLog};
use synod_protocols::multi_paxos::{self, MultiPaxos};
use synod_protocols::raft::Raft;

type Script = fn(&str) -> Result<u64, String>;

/// What a script's name begins with, and how it is run. `log-…` runs on all of them.
pub const SUBJECTS: [(&str, Script); 2] =
    [("raft", crate::scripts::run::<Raft>), ("paxos", crate::scripts::run::<MultiPaxos>)];

/// Whether a position and an epoch determine not only the entry but all entries before it (log
/// matching). Where each position is agreed on by itself, they do so only once it is committed.
pub fn has_log_matching<P: ReplicatedLog>() -> bool {
    P::NAME != MultiPaxos::NAME
}

/// An epoch in the field's own way of writing it.
pub fn show_epoch<P: ReplicatedLog>(epoch: Epoch) -> String {
    match P::NAME == MultiPaxos::NAME && epoch.0 > 0 {
        true => format!("{}.{}", epoch.0 / multi_paxos::ID_BOUND, epoch.0 % multi_paxos::ID_BOUND),
        false => epoch.0.to_string(),
    }
}
