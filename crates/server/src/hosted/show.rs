//! What is shown of processes on the log.

use std::time::Duration;
use synod_node::spaces::{ProcessId, Step};
use synod_protocols::commit::{CoordinatorRecord, ParticipantRecord, Phase, TxnId};
use synod_protocols::replicated::Entry;
use synod_protocols::saga::SagaRecord;
use synod_protocols::{Describe, Wire};

/// An entry about a process in a few words.
pub(crate) fn label(step: &Step) -> String {
    let who = match step.process {
        ProcessId::Coordinator => "coordinator".to_owned(),
        ProcessId::Orchestrator => "orchestrator".to_owned(),
        ProcessId::Keyspace(space) => format!("keyspace {}", space.0),
    };
    match &step.entry {
        Entry::Begin { member, .. } => format!("{who} begins at {member}"),
        Entry::Records { records, replaces: true, .. } => format!("{who} sums up in {}", records.len()),
        Entry::Records { records, .. } => {
            let names = records.iter().map(|record| match step.process {
                ProcessId::Coordinator => named::<CoordinatorRecord>(record),
                ProcessId::Orchestrator => named::<SagaRecord>(record),
                ProcessId::Keyspace(_) => named::<ParticipantRecord>(record),
            });
            format!("{who} {}", names.collect::<Vec<_>>().join(", "))
        }
    }
}

fn named<R: Wire + Describe>(record: &bytes::Bytes) -> &'static str {
    R::from_bytes(record.clone()).map_or("?", |record| record.name())
}

/// A transaction that is not over, as this member knows it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) txn: TxnId,
    /// Whether this cluster coordinates it, or only takes part.
    pub(crate) role: &'static str,
    pub(crate) state: &'static str,
    /// Names, as far as they are known.
    pub(crate) participants: Vec<String>,
    /// Whose answer it waits for.
    pub(crate) waits_for: Vec<String>,
    /// Participant and key.
    pub(crate) locks: Vec<(String, String)>,
    pub(crate) age: Duration,
    /// Whether a promise here waits for a decision that is not known here.
    pub(crate) is_in_doubt: bool,
}

/// How far a transaction is, in a word.
pub(super) fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "open",
        Phase::Preparing => "preparing",
        Phase::Alone => "alone",
        Phase::Committing => "committing",
    }
}
