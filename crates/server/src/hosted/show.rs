//! What is shown of processes on the log.

use synod_node::spaces::{ProcessId, Step};
use synod_protocols::commit::{CoordinatorRecord, ParticipantRecord};
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
