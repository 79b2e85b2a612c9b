//! What the banks' world notes beside what happens among its machines.

use std::fmt;
use synod_protocols::commit::Decision;
use synod_protocols::types::NodeId;

#[derive(Clone, Debug)]
pub(super) enum Note {
    Asked { client: String, amount: u64, from: String, to: String },
    CutOff(NodeId),
    Opened(NodeId, String),
    Decided(NodeId, Decision, String),
    Applied(NodeId, Decision, String),
    Contradiction(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Asked { client, amount, from, to } => {
                write!(f, "{client} asks for {amount} from {from} to {to}")
            }
            Note::CutOff(id) => write!(f, "{id} is cut off"),
            Note::Opened(id, name) => write!(f, "{id} opens {name}"),
            Note::Decided(id, decision, name) => write!(f, "{id} has decided: {decision} {name}"),
            Note::Applied(id, decision, name) => write!(f, "{id} applies: {decision} {name}"),
            Note::Contradiction(what) => f.write_str(what),
        }
    }
}
