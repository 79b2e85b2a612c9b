//! In what the protocols differ to an outsider.

use synod_protocols::ballot::ID_BOUND;
use synod_protocols::log::{Epoch, ReplicatedLog};
use synod_protocols::multi_paxos::MultiPaxos;
use synod_protocols::viewstamped::{ViewNumber, Viewstamped};

/// An epoch in the field's own way of writing it.
pub fn show_epoch<P: ReplicatedLog>(epoch: Epoch) -> String {
    match P::NAME {
        _ if epoch.0 == 0 => "0".to_owned(),
        MultiPaxos::NAME => format!("{}.{}", epoch.0 / ID_BOUND, epoch.0 % ID_BOUND),
        Viewstamped::NAME => ViewNumber(epoch.0).to_string(),
        _ => epoch.0.to_string(),
    }
}
