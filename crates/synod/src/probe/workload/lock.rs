//! A lock: a key that holds its owner's name. The revision of its creation is the fencing token, and the
//! guarded resource is a key that remembers the largest token used.

use super::{Client, Is, compare, decoded, key, one, operation, put, responses, revision};
use serde_json::Value;
use synod_check::history::{Call, Header, Reply};
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::response_op::Response;
use synod_store::proto::etcdserverpb::{DeleteRangeRequest, TxnRequest};

const LOCK: &str = "lock";
const RESOURCE: &str = "resource";

/// What a client knows of the lock.
#[derive(Default)]
pub enum Held {
    #[default]
    No,
    /// Taken by a request whose answer never came, perhaps.
    Unsure,
    With(i64),
}

/// The resource, never used yet, and a lock that nobody loses by waiting.
pub fn initial(header: &mut Header) -> Vec<(String, String)> {
    header.more.insert("expires".into(), false.into());
    vec![(RESOURCE.into(), padded(0))]
}

/// Tokens as texts that are in the order of their numbers.
fn padded(token: i64) -> String {
    format!("\"{token:020}\"")
}

impl Client {
    /// Takes the lock, uses what it guards, or gives it back.
    pub(super) async fn lock(&mut self) -> bool {
        match self.lock {
            Held::No => self.acquire().await,
            Held::With(token) if self.rng.chance(2, 3) => self.use_resource(token).await,
            Held::With(_) | Held::Unsure => self.release().await,
        }
    }

    async fn acquire(&mut self) -> bool {
        let (key, owner) = (key(&self.shared.prefix, LOCK), Value::from(self.name.as_str()));
        let mut holder = Value::Null;
        let reply = self
            .record(Call::new("acquire"), async |session| {
                let request = TxnRequest {
                    compare: vec![compare(&key, Is::Absent)],
                    success: vec![operation(put(&key, owner.to_string()))],
                    failure: vec![operation(Request::RequestRange(one(&key)))],
                };
                let answer = session.txn(request).await?;
                if answer.succeeded {
                    return Ok(Reply::value(revision(&answer)));
                }
                if let Some(Response::ResponseRange(range)) = responses(&answer).next() {
                    holder = range.kvs.first().map_or(Value::Null, |kv| decoded(&kv.value));
                }
                Ok(Reply::value(false))
            })
            .await;
        self.lock = match reply.as_ref().and_then(|reply| reply.value.as_ref()).map(Value::as_i64) {
            Some(Some(token)) => Held::With(token),
            Some(None) if holder == owner => Held::Unsure,
            Some(None) => Held::No,
            None => Held::Unsure,
        };
        reply.is_some()
    }

    async fn release(&mut self) -> bool {
        let (key, owner) = (key(&self.shared.prefix, LOCK), Value::from(self.name.as_str()).to_string());
        let reply = self.record(Call::new("release"), async |session| {
            let delete = DeleteRangeRequest { key: key.clone().into(), ..DeleteRangeRequest::default() };
            let request = TxnRequest {
                compare: vec![compare(&key, Is::Value(owner))],
                success: vec![operation(Request::RequestDeleteRange(delete))],
                failure: Vec::new(),
            };
            Ok(Reply::value(session.txn(request).await?.succeeded))
        });
        let released = reply.await.is_some();
        self.lock = if released { Held::No } else { Held::Unsure };
        released
    }

    async fn use_resource(&mut self, token: i64) -> bool {
        let key = key(&self.shared.prefix, RESOURCE);
        let mut call = Call::new("use");
        call.more.insert("token".into(), token.into());
        let reply = self.record(call, async |session| {
            let request = TxnRequest {
                compare: vec![compare(&key, Is::Below(padded(token + 1)))],
                success: vec![operation(put(&key, padded(token)))],
                failure: Vec::new(),
            };
            Ok(Reply::value(session.txn(request).await?.succeeded))
        });
        reply.await.is_some()
    }
}
