//! The network of a small world: what becomes of a message.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use synod_protocols::Rng;
use synod_protocols::types::{NodeId, Time};

/// How the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The fastest and the slowest message.
    pub(crate) latency: (Duration, Duration),
    /// Of a thousand messages, how many are lost, how many come twice, and how many linger.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) late: u64,
    /// Whether messages between two overtake each other.
    pub(crate) is_disordered: bool,
}

impl Weather {
    pub(crate) fn fair(latency: (Duration, Duration)) -> Weather {
        Weather { latency, lost: 0, repeated: 0, late: 0, is_disordered: false }
    }
}

/// For how long a late message lingers at the most: longer than a machine takes to crash and come back.
const LATE_MAX: Duration = Duration::from_millis(2_000);

/// One copy of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) at: Time,
    /// Why it never arrives.
    pub(crate) doom: Option<&'static str>,
}

pub(crate) struct Network {
    pub(crate) weather: Weather,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// When the last message between two machines arrives: they keep their order, as on one connection.
    last_arrival: BTreeMap<(NodeId, NodeId), Time>,
    /// Messages that were lost, came twice, lingered, or overtook another.
    pub(crate) harmed: u64,
}

impl Network {
    pub(crate) fn new(weather: Weather) -> Network {
        Network { weather, cut: BTreeSet::new(), last_arrival: BTreeMap::new(), harmed: 0 }
    }

    /// A message leaves: its copies, and what becomes of each.
    pub(crate) fn carry(&mut self, now: Time, from: NodeId, to: NodeId, rng: &mut Rng) -> Vec<Copy> {
        let Weather { latency: (fast, slow), lost, repeated, late, is_disordered } = self.weather;
        let times = 1 + u64::from(rng.chance(repeated, 1_000));
        let mut copies = Vec::new();
        for _ in 0..times {
            let delay = rng.between(fast.as_nanos() as u64, slow.as_nanos() as u64);
            let mut at = now + Duration::from_nanos(delay);
            let is_copy = !copies.is_empty();
            let last = self.last_arrival.entry((from, to)).or_default();
            let (mut is_late, mut is_overtaking) = (false, false);
            if late > 0 && rng.chance(late, 1_000) {
                // It overtakes nobody, and nobody waits for it.
                at = at + Duration::from_nanos(rng.below(LATE_MAX.as_nanos() as u64));
                is_late = true;
            } else {
                is_overtaking = is_disordered && at < *last;
                at = if is_disordered { at } else { at.max(*last) };
                *last = at.max(*last);
            }
            let doom = match self.is_cut(from, to) {
                true => Some("cut"),
                false => rng.chance(lost, 1_000).then_some("loss"),
            };
            let is_harmed = is_copy || is_late || is_overtaking || doom == Some("loss");
            self.harmed += u64::from(is_harmed);
            copies.push(Copy { at, doom });
        }
        copies
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// In this direction nothing arrives any more, not even what is on its way. Whether it is news.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) -> bool {
        self.cut.insert((from, to))
    }

    /// All is whole again. Returns what was cut.
    pub(crate) fn heal(&mut self) -> BTreeSet<(NodeId, NodeId)> {
        std::mem::take(&mut self.cut)
    }

    pub(crate) fn cuts(&self) -> &BTreeSet<(NodeId, NodeId)> {
        &self.cut
    }
}
