//! One transfer between two banks by every protocol, under the same blows.

use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use synod_sim::bank::{
    ASKED_AT, Blow, FILM_TIME_MAX, LATENCY, Play, Protocol, STRIKES_MAX, SYNC, Strike, Whom, cost, film,
};

/// What is asked for. Times are nanoseconds after the beginning.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// What befalls whom: `crash`, `start`, `cut` or `heal`, to `c` (whoever coordinates), `b1` or `b2`.
    strikes: Vec<Blown>,
    /// Bank 2 has no such account.
    #[serde(default)]
    refused: bool,
    /// How long is watched.
    until: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Blown {
    at: u64,
    blow: String,
    whom: String,
}

impl Blown {
    fn strike(&self) -> Result<Strike, String> {
        let blow = match self.blow.as_str() {
            "crash" => Blow::Crash,
            "start" => Blow::Start,
            "cut" => Blow::Cut,
            "heal" => Blow::Heal,
            other => return Err(format!("`{other}` is no blow: there is crash, start, cut, heal")),
        };
        let whom = match self.whom.as_str() {
            "c" => Whom::Coordinator,
            "b1" => Whom::Bank(1),
            "b2" => Whom::Bank(2),
            other => return Err(format!("`{other}` is nobody: there is c, b1, b2")),
        };
        Ok(Strike { at: Duration::from_nanos(self.at), blow, whom })
    }
}

/// A film of each protocol, and what each costs when nothing goes wrong.
///
/// # Errors
/// In words: what befalls nobody, too many blows, too long a film.
pub(crate) fn films(asked: &Asked) -> Result<Value, String> {
    if asked.strikes.len() > STRIKES_MAX {
        return Err(format!("at most {STRIKES_MAX} blows fall in one film"));
    }
    let until = Duration::from_nanos(asked.until);
    if until > FILM_TIME_MAX {
        return Err(format!("a film takes at most {} s", FILM_TIME_MAX.as_secs()));
    }
    let strikes: Vec<Strike> = asked.strikes.iter().map(Blown::strike).collect::<Result<_, _>>()?;
    let films = Protocol::ALL.map(|protocol| {
        let played = film(&Play { protocol, is_refused: asked.refused, strikes: strikes.clone(), until });
        let price = cost(protocol, 2);
        json!({
            "film": played,
            "cost": { "messages": price.messages, "delays": price.delays, "syncs": price.syncs },
        })
    });
    let nanos = |time: Duration| time.as_nanos() as u64;
    Ok(json!({
        "films": films,
        "asked_at": nanos(ASKED_AT),
        "latency": nanos(LATENCY),
        "sync": nanos(SYNC),
        "until": asked.until,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Value, String> {
        films(&serde_json::from_str(text).expect("a question"))
    }

    /// The film of a protocol under a script.
    fn shot(strikes: &str, refused: bool, protocol: &str) -> Value {
        let text = format!("{{\"strikes\":[{strikes}],\"refused\":{refused},\"until\":4000000000}}");
        let all = asked(&text).expect("films");
        let films = all["films"].as_array().expect("six");
        films.iter().map(|one| one["film"].clone()).find(|film| film["protocol"] == protocol).expect("it")
    }

    fn last(film: &Value) -> Value {
        film["states"].as_array().expect("states").last().expect("one").clone()
    }

    const DEATH: &str = r#"{"at":70000000,"blow":"crash","whom":"c"}"#;
    const CUT: &str =
        r#"{"at":110000000,"blow":"cut","whom":"b2"},{"at":3000000000,"blow":"heal","whom":"c"}"#;

    #[test]
    fn without_trouble_the_money_moves_by_every_protocol() {
        for protocol in ["none", "avoid", "2pc", "3pc", "2pc-replicated", "saga"] {
            let film = shot("", false, protocol);
            assert_eq!(last(&film)["balances"], json!({"a": 0, "b": 200}), "{protocol}");
            assert_eq!(film["told"][1], "commit", "{protocol}");
            assert_eq!(last(&film)["locked"], json!([]), "{protocol}");
        }
    }

    #[test]
    fn a_bank_that_refuses_leaves_everything_as_it_was_but_without_a_protocol() {
        for protocol in ["avoid", "2pc", "3pc", "2pc-replicated", "saga"] {
            let film = shot("", true, protocol);
            assert_eq!(last(&film)["balances"], json!({"a": 100, "b": 100}), "{protocol}");
            assert_eq!(film["told"][1], "abort", "{protocol}");
        }
        assert_eq!(last(&shot("", true, "none"))["balances"], json!({"a": 0, "b": 100}));
    }

    #[test]
    fn the_death_of_the_coordinator_after_the_votes_shows_the_ladder() {
        assert_eq!(
            last(&shot(DEATH, false, "none"))["balances"],
            json!({"a": 0, "b": 100}),
            "the money is gone"
        );
        assert_eq!(last(&shot(DEATH, false, "2pc"))["locked"], json!(["b1", "b2"]), "it blocks");
        for protocol in ["3pc", "2pc-replicated"] {
            let film = shot(DEATH, false, protocol);
            assert_eq!(last(&film)["locked"], json!([]), "{protocol} goes on without it");
            let sum: u64 = last(&film)["balances"]
                .as_object()
                .expect("accounts")
                .values()
                .filter_map(Value::as_u64)
                .sum();
            assert_eq!(sum, 200, "{protocol}");
        }
    }

    #[test]
    fn the_same_partition_splits_three_phases_only() {
        for protocol in ["2pc", "2pc-replicated", "avoid"] {
            assert_eq!(shot(CUT, false, protocol)["violations"], json!([]), "{protocol}");
        }
        let split = shot(CUT, false, "3pc");
        assert_ne!(split["violations"], json!([]), "one side commits and the other aborts");
    }

    #[test]
    fn what_is_no_blow_is_refused() {
        let why = asked(r#"{"strikes":[{"at":0,"blow":"kick","whom":"c"}],"until":1}"#).expect_err("no blow");
        assert!(why.contains("`kick` is no blow"), "{why}");
        let why = asked(r#"{"strikes":[],"until":61000000000}"#).expect_err("too long");
        assert!(why.contains("at most 60 s"), "{why}");
    }
}
