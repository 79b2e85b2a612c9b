//! Two banks, each a keyspace of the cluster's log: what is asked of them, and what the answers mean.

use crate::api::{CallError, Session};
use http::Method;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use synod_check::history::{Call, Header, Outcome, Reply};
use synod_protocols::rng::Rng;

/// The keyspaces.
pub const BANKS: [&str; 2] = ["bank1", "bank2"];
/// What each account holds at first.
pub const BALANCE: i64 = 1_000;
/// The most that is moved at a time.
const AMOUNT_MAX: u64 = 200;
/// How long the cluster may try to carry out one transaction.
const TRY: Duration = Duration::from_secs(3);
/// Between attempts to do what must succeed in the end.
const AGAIN: Duration = Duration::from_millis(50);

/// The accounts of both banks.
#[derive(Clone, Debug)]
pub struct Banks {
    accounts: u16,
}

/// Money goes from one bank to the other.
#[derive(Clone, Debug)]
pub struct Transfer {
    from: (usize, u16),
    to: (usize, u16),
    amount: i64,
}

/// How a request ended, for the one who asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// It was carried out, and this is the answer.
    Done(Value),
    /// It was not, since somebody else was at an account.
    InTheWay(String),
    /// It was not, for a reason that was said.
    Refused(String),
    /// It was not: nobody served it in time.
    Unserved(String),
    /// Nobody knows.
    Unknown(String),
}

impl Banks {
    /// So many accounts at each.
    pub fn new(accounts: u16) -> Banks {
        Banks { accounts }
    }

    /// All the money there is.
    pub fn total(&self) -> i64 {
        i64::from(self.accounts) * BALANCE * BANKS.len() as i64
    }

    fn names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.accounts).map(account)
    }

    /// What the history says of the beginning.
    pub fn header(&self) -> Header {
        let mut header = Header::new("bank");
        let both = BANKS.iter().flat_map(|bank| self.names().map(move |name| format!("{bank}/{name}")));
        header.initial = both.map(|name| (name, Value::from(BALANCE))).collect::<Map<_, _>>().into();
        header.more.insert("overdraft".into(), false.into());
        header
    }

    /// Makes the keyspaces and gives every account its first balance. Errors: nobody answered in time, or it was refused.
    pub async fn open(&self, session: &mut Session, patience: Duration) -> Result<(), CallError> {
        let until = Instant::now() + patience;
        for bank in BANKS {
            let path = format!("/v1/keyspaces/{bank}");
            let model = json!({"model": "linearizable"});
            insist(until, async || session.call(Method::PUT, &path, Some(&model)).await).await?;
            let writes = self.names().map(|name| json!({"key": name, "value": BALANCE.to_string()}));
            let work = writes.map(|put| json!({"put": put}));
            let request = transaction([(bank, work.collect())]);
            insist(until, async || session.call(Method::POST, "/v1/transactions", Some(&request)).await)
                .await?;
        }
        Ok(())
    }

    /// Somebody pays somebody at the other bank.
    pub fn draw(&self, rng: &mut Rng) -> Transfer {
        let bank = rng.below(BANKS.len() as u64) as usize;
        let mut account = || rng.below(u64::from(self.accounts)) as u16;
        let (from, to) = ((bank, account()), ((bank + 1) % BANKS.len(), account()));
        Transfer { from, to, amount: rng.between(1, AMOUNT_MAX) as i64 }
    }

    /// The transaction that reads every account.
    pub fn read(&self) -> Value {
        let gets = |_| self.names().map(|name| json!({"get": {"key": name}})).collect();
        transaction(BANKS.map(|bank| (bank, gets(bank))))
    }

    /// The balances in the answer to [`Banks::read`], as a history has them, and their sum. Errors: it does not hold
    /// every account.
    pub fn balances(&self, answer: &Value) -> Result<(Value, i64), String> {
        let (mut all, mut sum) = (Map::new(), 0);
        for bank in BANKS {
            let found = answer["answers"][bank].as_array().map(Vec::as_slice).unwrap_or_default();
            if found.len() != usize::from(self.accounts) {
                return Err(format!("{} of {} accounts of {bank} were read", found.len(), self.accounts));
            }
            for (name, value) in self.names().zip(found) {
                let balance: Option<i64> = value.as_str().and_then(|text| text.parse().ok());
                let balance =
                    balance.ok_or_else(|| format!("{bank}/{name} holds {value}, which is no amount"))?;
                sum += balance;
                all.insert(format!("{bank}/{name}"), balance.into());
            }
        }
        Ok((all.into(), sum))
    }
}

impl Transfer {
    /// As a history has it.
    pub fn call(&self) -> Call {
        let mut call = Call::new("transfer");
        let at = |(bank, number): (usize, u16)| Value::from(format!("{}/{}", BANKS[bank], account(number)));
        call.more.insert("from".into(), at(self.from));
        call.more.insert("to".into(), at(self.to));
        call.more.insert("amount".into(), self.amount.into());
        call
    }

    fn work(&self) -> (Value, Value) {
        let (from, to) = (account(self.from.1), account(self.to.1));
        (
            json!({"add": {"key": from, "by": -self.amount, "at-least": 0}}),
            json!({"add": {"key": to, "by": self.amount}}),
        )
    }

    /// All or nothing.
    pub fn transaction(&self) -> Value {
        let (take, give) = self.work();
        transaction([(BANKS[self.from.0], vec![take]), (BANKS[self.to.0], vec![give])])
    }

    /// The same step by step.
    pub fn saga(&self) -> Value {
        let (take, give) = self.work();
        let mut undo = take.clone();
        undo["add"] = json!({"key": take["add"]["key"], "by": self.amount});
        let mut back = give.clone();
        back["add"]["by"] = (-self.amount).into();
        json!({"name": "transfer", "steps": [
            {"name": "take", "service": BANKS[self.from.0], "action": {"ops": [take]},
                "compensation": {"ops": [undo]}, "after": [], "pivot": false, "waits-for-person": false},
            {"name": "give", "service": BANKS[self.to.0], "action": {"ops": [give]},
                "compensation": {"ops": [back]}, "after": ["take"], "pivot": false, "waits-for-person": false},
        ]})
    }
}

impl Ended {
    /// What the answer to a transaction, or its absence, means.
    pub fn of(answer: Result<Value, CallError>) -> Ended {
        match answer {
            Ok(answer) if answer["decision"] == "commit" => Ended::Done(answer),
            Ok(answer) => Ended::aborted(answer["why"].as_str().unwrap_or("no reason was given")),
            Err(error) => Ended::failed(error),
        }
    }

    /// It was not carried out, and this was said.
    pub fn aborted(why: &str) -> Ended {
        match why.contains("lock") || why.contains("busy") {
            true => Ended::InTheWay(why.into()),
            false => Ended::Refused(why.into()),
        }
    }

    /// No answer came that says what became of it.
    pub fn failed(error: CallError) -> Ended {
        match error {
            CallError::Refused { code, message, .. } if code == "locked" => Ended::InTheWay(message),
            CallError::Refused { status: 400..=499, message, .. } => Ended::Refused(message),
            CallError::Refused { message, .. } | CallError::Unknown(message) => Ended::Unknown(message),
            CallError::Unreachable(tried) => {
                Ended::Unserved(tried.into_iter().next_back().map(|(_, why)| why).unwrap_or_default())
            }
        }
    }

    /// As a history has it; of a read nothing is in doubt.
    pub fn outcome(&self, reply: Option<Value>) -> Outcome {
        match self {
            Ended::Done(_) => Outcome::Ok(Reply::value(reply.unwrap_or(true.into()))),
            Ended::InTheWay(why) | Ended::Refused(why) | Ended::Unserved(why) => Outcome::fail(why),
            Ended::Unknown(why) => Outcome::unknown(why),
        }
    }
}

/// A transaction of the API.
fn transaction<const N: usize>(branches: [(&str, Vec<Value>); N]) -> Value {
    let branches = branches.map(|(participant, work)| json!({"participant": participant, "work": work}));
    json!({"branches": branches.to_vec(), "route": "auto", "timeout-ms": TRY.as_millis() as u64})
}

fn account(number: u16) -> String {
    format!("a{number}")
}

/// Tries until it succeeds, is refused for good, or the time is up; for what may be done twice.
pub async fn insist(
    until: Instant,
    mut attempt: impl AsyncFnMut() -> Result<Value, CallError>,
) -> Result<Value, CallError> {
    loop {
        match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(CallError::Refused { status, code, message }) if (400..500).contains(&status) => {
                return Err(CallError::Refused { status, code, message });
            }
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_always_goes_to_the_other_bank() {
        let banks = Banks::new(3);
        let mut rng = Rng::new(7);
        for _ in 0..200 {
            let transfer = banks.draw(&mut rng);
            assert_ne!(transfer.from.0, transfer.to.0);
            let request = transfer.transaction();
            assert_eq!(request["branches"][0]["work"][0]["add"]["by"], -transfer.amount);
            assert_eq!(request["branches"][1]["work"][0]["add"]["by"], transfer.amount);
            assert!((1..=AMOUNT_MAX as i64).contains(&transfer.amount));
        }
    }

    #[test]
    fn a_sagas_compensations_take_back_what_its_actions_did() {
        let transfer = Banks::new(3).draw(&mut Rng::new(7));
        for step in transfer.saga()["steps"].as_array().expect("steps") {
            let (action, undo) = (&step["action"]["ops"][0]["add"], &step["compensation"]["ops"][0]["add"]);
            assert_eq!(action["key"], undo["key"]);
            assert_eq!(action["by"].as_i64().map(|by| -by), undo["by"].as_i64());
        }
    }

    #[test]
    fn balances_are_those_of_every_account_or_none() {
        let banks = Banks::new(2);
        let answer = json!({"answers": {"bank1": ["900", "1000"], "bank2": ["1100", "1000"]}});
        let (all, sum) = banks.balances(&answer).expect("all");
        assert_eq!((sum, &all["bank2/a0"]), (4_000, &json!(1_100)));
        assert_eq!(banks.total(), 4_000);
        assert_eq!(banks.header().initial["bank1/a1"], 1_000);
        for wrong in [json!({}), json!({"answers": {"bank1": ["1", "1"], "bank2": ["1", null]}})] {
            assert!(banks.balances(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_surely_did_not_happen_has_failed() {
        let refused = |status| CallError::Refused { status, code: String::new(), message: "no".into() };
        for (answer, outcome) in [
            (Ok(json!({"decision": "commit"})), Outcome::Ok(Reply::value(true))),
            (Ok(json!({"decision": "abort", "why": "a1 is locked"})), Outcome::fail("a1 is locked")),
            (Err(refused(409)), Outcome::fail("no")),
            (Err(refused(500)), Outcome::unknown("no")),
            (Err(CallError::Unknown("silence".into())), Outcome::unknown("silence")),
            (Err(CallError::Unreachable(vec![("h".into(), "gone".into())])), Outcome::fail("gone")),
        ] {
            assert_eq!(Ended::of(answer).outcome(None), outcome);
        }
        assert!(matches!(Ended::aborted("a1 is locked by 1.2.3"), Ended::InTheWay(_)));
    }
}
