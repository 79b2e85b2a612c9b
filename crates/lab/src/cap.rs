//! One partition under each level of consistency: what its requests met, slice by slice.

use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use synod_sim::weak::{CapScenario, Level, cap_film};

/// Members of one measurement; one of them is cut off.
const MEMBERS: [u64; 3] = [3, 5, 7];

/// The longest cut, in milliseconds.
const CUT_MS_MAX: u64 = 10_000;

/// The shortest cut: of a shorter one there is nothing to see.
const CUT_MS_MIN: u64 = 1_000;

/// How long a message may take, in milliseconds. Members that are further apart need longer timeouts than these have: a
/// follower gives up on a read after one election timeout.
const DELAY_MS_MAX: u64 = 20;

/// What one bar of the picture stands for: a whole number of them before the cut.
const SLICE: Duration = Duration::from_millis(125);

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    members: u64,
    seed: u64,
    cut_ms: u64,
    delay_ms: u64,
}

impl Asked {
    fn scenario(&self) -> Result<CapScenario, String> {
        if !MEMBERS.contains(&self.members) {
            return Err(format!("{} members are not offered: choose 3, 5 or 7", self.members));
        }
        if !(CUT_MS_MIN..=CUT_MS_MAX).contains(&self.cut_ms) {
            return Err(format!("a cut takes {CUT_MS_MIN} to {CUT_MS_MAX} ms, not {}", self.cut_ms));
        }
        if !(1..=DELAY_MS_MAX).contains(&self.delay_ms) {
            return Err(format!("a message takes 1 to {DELAY_MS_MAX} ms, not {}", self.delay_ms));
        }
        Ok(CapScenario {
            members: self.members,
            seed: self.seed,
            partition: Duration::from_millis(self.cut_ms),
            delay: Duration::from_millis(self.delay_ms),
            ..CapScenario::default()
        })
    }
}

/// A film of each level, the strongest first.
///
/// # Errors
/// In words: a number that is out of its bounds.
pub(crate) fn films(asked: &Asked) -> Result<Value, String> {
    let what = asked.scenario()?;
    // The levels do not share anything, so they can be measured side by side.
    let films = std::thread::scope(|scope| {
        let begun = Level::ALL.map(|level| scope.spawn(move || cap_film(level, &what, SLICE)));
        begun.map(|thread| thread.join().expect("a measurement does not panic"))
    });
    let alone = "n1";
    let others: Vec<String> = (2..=what.members).map(|id| format!("n{id}")).collect();
    Ok(json!({
        "films": films,
        "alone": alone,
        "others": others,
        "sync_ms": what.sync.as_millis() as u64,
        "command": format!(
            "synod sim cap --members {} --partition {}ms --delay {}ms --seed {}",
            asked.members, asked.cut_ms, asked.delay_ms, asked.seed
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(members: u64, cut_ms: u64, delay_ms: u64) -> Result<Value, String> {
        films(&Asked { members, seed: 1, cut_ms, delay_ms })
    }

    #[test]
    fn the_levels_come_in_order_each_with_its_slices() {
        let answer = asked(3, 1_000, 10).expect("films");
        let films = answer["films"].as_array().expect("four");
        let levels: Vec<&str> = films.iter().filter_map(|film| film["cap"]["level"].as_str()).collect();
        assert_eq!(levels, ["linearizable", "sequential", "causal", "eventual"]);
        for film in films {
            assert_eq!(film["slices"].as_array().expect("slices").len(), 48, "{film}");
            assert_eq!((&film["split_ms"], &film["end_ms"]), (&json!(5_000.0), &json!(6_000.0)));
        }
        assert_eq!(answer["others"], json!(["n2", "n3"]));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_the_bounds() {
        for (refused, why) in [
            (asked(4, 5_000, 10), "choose 3, 5 or 7"),
            (asked(3, 999, 10), "1000 to 10000 ms"),
            (asked(3, 10_001, 10), "1000 to 10000 ms"),
            (asked(3, 5_000, 0), "1 to 20 ms"),
            (asked(3, 5_000, 21), "1 to 20 ms"),
        ] {
            let said = refused.expect_err("out of bounds");
            assert!(said.contains(why), "{said}");
        }
    }
}
