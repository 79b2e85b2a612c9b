//! A bank behind HTTP that takes part in sagas: it forgets nothing that it has answered, and fails in every way that it may.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use super::web::{Answered, Asked};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to the next request.
#[derive(Clone, Copy, Debug)]
pub enum Mishap {
    /// The bank dies after it has acted, and before it answers.
    DiesAfterActing,
    /// It is down: nobody hears the request.
    Down,
    /// It answers after this.
    Late(Duration),
    /// The request is on its way for long: it arrives when the test wants.
    HeldBack,
    /// Somebody answers this in its place.
    Says(u16),
}

/// What is on its disk.
#[derive(Default, Serialize, Deserialize)]
struct Disk {
    accounts: BTreeMap<String, u64>,
    /// The answer to each idempotency key.
    answers: BTreeMap<String, (u16, String)>,
    /// The idempotency key of each movement of money, in their order.
    movements: Vec<String>,
}

pub struct Bank {
    path: PathBuf,
    disk: Mutex<Disk>,
    mishaps: Mutex<VecDeque<Mishap>>,
    held_back: Mutex<Vec<(String, String, bool, Value)>>,
    pub requests: Mutex<Vec<(String, Value)>>,
}

impl Bank {
    pub fn open(path: PathBuf, accounts: &[(&str, u64)]) -> Arc<Bank> {
        let accounts = accounts.iter().map(|(name, balance)| ((*name).to_owned(), *balance)).collect();
        let disk = Mutex::new(Disk { accounts, answers: BTreeMap::new(), movements: Vec::new() });
        let bank = Bank {
            path,
            disk,
            mishaps: Mutex::default(),
            held_back: Mutex::default(),
            requests: Mutex::default(),
        };
        bank.save();
        Arc::new(bank)
    }

    pub fn will(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.mishaps.lock().expect("no panic").extend(mishaps);
    }

    /// What befalls the next requests, in place of what would have.
    pub fn will_only(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        *self.mishaps.lock().expect("no panic") = mishaps.into_iter().collect();
    }

    pub fn balance(&self, account: &str) -> u64 {
        self.disk.lock().expect("no panic").accounts[account]
    }

    pub fn movements(&self) -> Vec<String> {
        self.disk.lock().expect("no panic").movements.clone()
    }

    fn save(&self) {
        let disk = self.disk.lock().expect("no panic");
        let file = std::fs::File::create(&self.path).expect("a file");
        serde_json::to_writer(&file, &*disk).expect("written");
        file.sync_data().expect("durable");
    }

    /// Everything that is not on its disk is gone.
    fn die(&self) {
        let text = std::fs::read(&self.path).expect("a file");
        *self.disk.lock().expect("no panic") = serde_json::from_slice(&text).expect("as it was written");
    }

    pub async fn serve(self: Arc<Bank>, asked: Asked) -> Answered {
        let key = asked.headers["idempotency-key"].to_str().expect("text").to_owned();
        let is_final = asked.headers["synod-refusal"] == "final";
        let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
        self.requests.lock().expect("no panic").push((key.clone(), body.clone()));
        let mishap = self.mishaps.lock().expect("no panic").pop_front();
        match mishap {
            Some(Mishap::Down) => return None,
            Some(Mishap::Says(status)) => return Some((status, None, "not the bank's own word".into())),
            Some(Mishap::HeldBack) => {
                self.held_back.lock().expect("no panic").push((asked.path, key, is_final, body));
                return None;
            }
            _ => {}
        }
        let (status, text) = self.act(&asked.path, &key, is_final, &body);
        match mishap {
            Some(Mishap::DiesAfterActing) => {
                self.die();
                return None;
            }
            Some(Mishap::Late(delay)) => tokio::time::sleep(delay).await,
            _ => {}
        }
        Some((status, None, text))
    }

    /// What was held back arrives now.
    pub fn release(&self) -> Vec<u16> {
        let held_back = std::mem::take(&mut *self.held_back.lock().expect("no panic"));
        let act = |(path, key, is_final, body): &(String, String, bool, Value)| {
            self.act(path, key, *is_final, body).0
        };
        held_back.iter().map(act).collect()
    }

    fn act(&self, path: &str, key: &str, is_final: bool, body: &Value) -> (u16, String) {
        let answer = {
            let mut disk = self.disk.lock().expect("no panic");
            if let Some(answer) = disk.answers.get(key) {
                return answer.clone();
            }
            let (step, kind) = key.rsplit_once('/').expect("a key has parts");
            let has_acted =
                disk.answers.get(&format!("{step}/act")).is_some_and(|(status, _)| *status == 200);
            let answer = match kind {
                "act" if disk.answers.contains_key(&format!("{step}/compensate")) => {
                    (409, "it was compensated before".to_owned())
                }
                "compensate" if !has_acted => (200, "{}".to_owned()),
                _ => {
                    let answer = transfer(&mut disk, path, body);
                    if answer.0 == 200 {
                        disk.movements.push(key.to_owned());
                    }
                    answer
                }
            };
            if answer.0 == 200 || is_final {
                disk.answers.insert(key.to_owned(), answer.clone());
            }
            answer
        };
        // Durable before it is told.
        self.save();
        answer
    }
}

fn transfer(disk: &mut Disk, path: &str, body: &Value) -> (u16, String) {
    let account = body["account"].as_str().expect("an account");
    // As much as an earlier step has moved, where no amount is given.
    let amount = body["amount"].as_u64().or_else(|| body.pointer("/given/debit/moved")?.as_u64());
    let amount = amount.expect("an amount");
    let Some(balance) = disk.accounts.get_mut(account) else {
        return (404, json!({"error": {"message": format!("there is no account {account}")}}).to_string());
    };
    *balance = match path {
        "/credit" => *balance + amount,
        _ => match balance.checked_sub(amount) {
            Some(left) => left,
            None => return (409, format!("{account} has only {balance}")),
        },
    };
    (200, json!({"moved": amount, "balance": *balance}).to_string())
}
