//! A client's way to the members: one connection, and another member once that fails.

use crate::client::{Connection, UNAVAILABLE};
use prost::Message;
use std::time::Duration;
use synod_store::proto::etcdserverpb::request_op::Request;
use synod_store::proto::etcdserverpb::{RequestOp, TxnRequest, TxnResponse};

/// gRPC codes of requests that were refused and had no effect. Others, `Unavailable` and
/// `DeadlineExceeded` among them, are also how a member says that it lost sight of a request under way.
const REFUSED: [u32; 8] = [3, 5, 7, 8, 9, 11, 12, 16];

/// A request without success.
#[derive(Debug)]
pub struct Lost {
    /// Whether it certainly had no effect and never will.
    pub certain: bool,
    /// Why, for people.
    pub words: String,
}

impl Lost {
    /// It had no effect.
    pub fn without_effect(words: impl Into<String>) -> Lost {
        Lost { certain: true, words: words.into() }
    }

    /// The same of a request that changes nothing.
    pub fn read(self) -> Lost {
        Lost { certain: true, ..self }
    }
}

/// One client's connection.
pub struct Session {
    endpoints: Vec<String>,
    at: usize,
    connection: Option<Connection>,
    timeout: Duration,
}

impl Session {
    /// Nothing is connected before the first call. Clients of different numbers begin at different members.
    pub fn new(endpoints: &[String], number: usize, timeout: Duration) -> Session {
        Session { endpoints: endpoints.to_vec(), at: number % endpoints.len(), connection: None, timeout }
    }

    /// The member that the next call asks.
    pub fn endpoint(&self) -> &str {
        &self.endpoints[self.at]
    }

    /// One transaction.
    pub async fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Lost> {
        self.call("/etcdserverpb.KV/Txn", &request).await
    }

    /// Several reads or writes as one change, without conditions.
    pub async fn all(&mut self, requests: Vec<Request>) -> Result<TxnResponse, Lost> {
        let success = requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
        self.txn(TxnRequest { success, ..TxnRequest::default() }).await
    }

    /// One call of a method such as `/etcdserverpb.KV/Put`.
    pub async fn call<Request: Message, Answer: Message + Default>(
        &mut self,
        method: &str,
        request: &Request,
    ) -> Result<Answer, Lost> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match tokio::time::timeout(self.timeout, Connection::open(self.endpoint())).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => return Err(Lost::without_effect(self.leave(&error.to_string()))),
                Err(_) => return Err(Lost::without_effect(self.leave("no connection in time"))),
            },
        };
        match tokio::time::timeout(self.timeout, connection.call(method, request)).await {
            Ok(Ok(Ok(answer))) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Ok(Ok(Err((UNAVAILABLE, words)))) => Err(Lost { certain: false, words: self.leave(&words) }),
            Ok(Ok(Err((code, words)))) => {
                self.connection = Some(connection);
                Err(Lost { certain: REFUSED.contains(&code), words: format!("{words} (gRPC code {code})") })
            }
            Ok(Err(error)) => Err(Lost { certain: false, words: self.leave(&error.to_string()) }),
            Err(_) => Err(Lost { certain: false, words: self.leave("no answer in time") }),
        }
    }

    /// Turns to the next member; what went wrong with this one.
    fn leave(&mut self, why: &str) -> String {
        let words = format!("{}: {why}", self.endpoint());
        self.at = (self.at + 1) % self.endpoints.len();
        words
    }
}
