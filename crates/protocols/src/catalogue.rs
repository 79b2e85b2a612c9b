//! The replicated logs by name.

/// The names under which the replicated logs are chosen, in the order in which they are shown.
pub const REPLICATED_LOGS: &[&str] = &["raft", "multi-paxos", "zab", "viewstamped"];

/// The name that a protocol goes by, given that or its short form; none if there is no such one.
pub fn replicated_log(name: &str) -> Option<&'static str> {
    let name = match name {
        "paxos" => "multi-paxos",
        "vr" => "viewstamped",
        name => name,
    };
    REPLICATED_LOGS.iter().find(|known| **known == name).copied()
}

/// Evaluates an expression with a type standing for the replicated log of that name; none if there
/// is no such one. This is the one place that turns a name into a type.
///
/// ```
/// use synod_protocols::log::ReplicatedLog;
/// let name = synod_protocols::with_replicated_log!("vr", P => P::NAME);
/// assert_eq!(name, Some("viewstamped"));
/// ```
#[macro_export]
macro_rules! with_replicated_log {
    ($name:expr, $P:ident => $run:expr) => {
        match $crate::catalogue::replicated_log($name) {
            Some("raft") => {
                type $P = $crate::raft::Raft;
                Some($run)
            }
            Some("multi-paxos") => {
                type $P = $crate::multi_paxos::MultiPaxos;
                Some($run)
            }
            Some("zab") => {
                type $P = $crate::zab::Zab;
                Some($run)
            }
            Some("viewstamped") => {
                type $P = $crate::viewstamped::Viewstamped;
                Some($run)
            }
            _ => None,
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::ReplicatedLog;

    #[test]
    fn every_name_stands_for_the_protocol_of_that_name() {
        for name in REPLICATED_LOGS {
            assert_eq!(with_replicated_log!(name, P => P::NAME), Some(*name));
        }
        assert_eq!(with_replicated_log!("chubby", P => P::NAME), None);
    }
}
