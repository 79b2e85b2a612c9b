//! Transfers between accounts: read both, then write both if neither has changed meanwhile.

use super::{Client, Is, after_prefix, compare, decoded, key, one, operation, put, responses};
use crate::probe::session::Lost;
use serde_json::{Map, Value};
use synod_check::history::{Call, Header, Reply};
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::response_op::Response;
use synod_store::proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest};

const ACCOUNTS: u64 = 6;
const BALANCE: i64 = 100;
const AMOUNT_MAX: u64 = 40;

fn account(number: u64) -> String {
    format!("a{number}")
}

/// The first balances: what is stored, and what the history says of them.
pub fn initial(header: &mut Header) -> Vec<(String, String)> {
    let all: Map<String, Value> = (0..ACCOUNTS).map(|number| (account(number), BALANCE.into())).collect();
    header.initial = Value::Object(all);
    header.more.insert("overdraft".into(), false.into());
    (0..ACCOUNTS).map(|number| (account(number), BALANCE.to_string())).collect()
}

impl Client {
    /// One transfer or one read.
    pub(super) async fn bank(&mut self) -> bool {
        if self.rng.chance(1, 3) {
            return self.balances().await;
        }
        let from = self.rng.below(ACCOUNTS);
        let to = (from + 1 + self.rng.below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = self.rng.between(1, AMOUNT_MAX) as i64;
        self.transfer(&account(from), &account(to), amount).await
    }

    /// All balances at one moment.
    pub(super) async fn balances(&mut self) -> bool {
        let prefix = self.shared.prefix.clone();
        let reply = self.record(Call::new("read"), async |session| {
            let request = RangeRequest { range_end: after_prefix(&prefix), ..one(&prefix) };
            let answer: RangeResponse =
                session.call("/etcdserverpb.KV/Range", &request).await.map_err(Lost::read)?;
            let balances = answer.kvs.iter().map(|kv| {
                let name = String::from_utf8_lossy(&kv.key);
                (name.strip_prefix(&prefix).unwrap_or(&name).to_owned(), decoded(&kv.value))
            });
            Ok(Reply::value(Value::Object(balances.collect())))
        });
        reply.await.is_some()
    }

    async fn transfer(&mut self, from: &str, to: &str, amount: i64) -> bool {
        let mut call = Call::new("transfer");
        call.more.insert("from".into(), from.into());
        call.more.insert("to".into(), to.into());
        call.more.insert("amount".into(), amount.into());
        let keys = [key(&self.shared.prefix, from), key(&self.shared.prefix, to)];
        let reply = self.record(call, async |session| {
            let reads = keys.iter().map(|key| Request::RequestRange(one(key)));
            let answer = session.all(reads.collect()).await.map_err(Lost::read)?;
            // A missing account shows in the next read of all balances.
            let read: Vec<(i64, i64)> = responses(&answer)
                .map(|response| match response {
                    Response::ResponseRange(range) => range
                        .kvs
                        .first()
                        .map_or((0, 0), |kv| (decoded(&kv.value).as_i64().unwrap_or(0), kv.mod_revision)),
                    _ => (0, 0),
                })
                .collect();
            let [(source, source_changed), (target, target_changed)] = read[..] else {
                return Err(Lost::without_effect("the answer does not show both accounts"));
            };
            if source < amount {
                return Ok(Reply::value(false));
            }
            let request = TxnRequest {
                compare: vec![
                    compare(&keys[0], Is::Changed(source_changed)),
                    compare(&keys[1], Is::Changed(target_changed)),
                ],
                success: vec![
                    operation(put(&keys[0], (source - amount).to_string())),
                    operation(put(&keys[1], (target + amount).to_string())),
                ],
                failure: Vec::new(),
            };
            match session.txn(request).await?.succeeded {
                true => Ok(Reply::value(true)),
                false => Err(Lost::without_effect("an account has changed since it was read")),
            }
        });
        reply.await.is_some()
    }
}
