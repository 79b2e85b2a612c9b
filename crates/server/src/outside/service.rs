//! A service behind HTTP as one that takes part in sagas.
//!
//! A step becomes a POST. Its `Idempotency-Key` is `CLUSTER/SAGA/STEP/act`, or `/compensate` for what undoes it, and all that makes a saga
//! safe is for the service to remember by that key:
//!
//! - *a duplicate*: the same key gets the first answer, and nothing is done again;
//! - *a compensation without its action*: it answers 200, does nothing, and remembers;
//! - *an action after its compensation*: it is refused with 409.
//!
//! What it remembers must be durable before it answers. It may forget sagas below the number in `Synod-Floor`. With `Synod-Refusal: open`
//! a refusal is not for good, since a person may see to it that the step can be done: it should not be remembered.
//!
//! | answer | means |
//! |---|---|
//! | 2xx | done, and the body is the step's output |
//! | 400, 404, 405, 409, 410, 413, 415, 422 and the like | refused: it has not acted, and will not |
//! | 401, 403, 407, 408, 421, 425, 429, 3xx, 5xx | not now: asked again |
//! | none | **a timeout is not a failure**: nothing is known, asked again |
//!
//! A gateway before the service may answer 401 or 403 of its own accord after the service has acted. Hence those do not count as the
//! service's refusal: a step that is given up over them is compensated like one that may have acted.

use super::http::{Answer, BadUrl, Base, Client};
use super::one_line;
use crate::outputs::readable;
use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderName;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use synod_protocols::saga::{Failure, Given, Message, SagaId};

/// Bytes of a step's output. A service that answers more counts as one that has not answered.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 1_024;

/// The agent of one service.
#[derive(Debug)]
pub struct HttpService {
    base: Base,
    cluster: String,
    timeout: Duration,
    client: Client,
    /// What is being asked: the orchestrator's repetitions need not be sent meanwhile.
    busy: Mutex<BTreeSet<String>>,
}

/// What a step or its compensation asks, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Work {
    post: Post,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Post {
    path: String,
    #[serde(default)]
    body: Map<String, Value>,
}

/// Who asks for what.
struct Step<'a> {
    floor: SagaId,
    saga: SagaId,
    step: &'a str,
    is_compensation: bool,
    is_final: bool,
}

impl HttpService {
    /// An agent for the service at `url`, on behalf of the cluster of this name. A request that takes longer than `timeout` is given up,
    /// and asked again.
    ///
    /// # Errors
    /// If it is no `http` address.
    pub fn new(url: &str, cluster: &str, timeout: Duration) -> Result<HttpService, BadUrl> {
        let (base, cluster) = (Base::parse(url)?, escape(cluster));
        Ok(HttpService { base, cluster, timeout, client: Client::default(), busy: Mutex::default() })
    }

    /// Whether this is work for a service.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn check(work: &[u8]) -> Result<(), String> {
        parse(work).map(drop)
    }

    /// Handles one message, and returns the answer: none where it is not known what became of it.
    ///
    /// Needs a tokio runtime with I/O and time. May be dropped at any moment.
    pub async fn handle(&self, message: Message) -> Option<Message> {
        match message {
            Message::Act { floor, saga, step, work, given, is_final } => {
                let asked = Step { floor, saga, step: &step, is_compensation: false, is_final };
                let answer = self.ask(asked, &work, &given).await?;
                Some(match answer {
                    Ok(output) => Message::Acted { saga, step, output },
                    Err(failure) => Message::Failed { saga, step, is_compensation: false, failure },
                })
            }
            Message::Compensate { floor, saga, step, work, given } => {
                let asked = Step { floor, saga, step: &step, is_compensation: true, is_final: false };
                let answer = self.ask(asked, &work, &given).await?;
                Some(match answer {
                    Ok(_) => Message::Compensated { saga, step },
                    Err(failure) => Message::Failed { saga, step, is_compensation: true, failure },
                })
            }
            _ => None,
        }
    }

    async fn ask(&self, step: Step<'_>, work: &[u8], given: &[Given]) -> Option<Result<Bytes, Failure>> {
        let Post { path, mut body } = match parse(work) {
            Ok(post) => post,
            Err(why) => return Some(Err(Failure::Refused { why })),
        };
        let outputs = given.iter().map(|given| (given.step.clone(), readable(&given.output)));
        body.insert("given".into(), Value::Object(outputs.collect()));
        let kind = if step.is_compensation { "compensate" } else { "act" };
        let key = format!("{}/{}/{}/{kind}", self.cluster, step.saga, escape(step.step));
        let _asking = Asking::begin(self, &key)?;
        let headers = [
            (HeaderName::from_static("idempotency-key"), key.clone()),
            (HeaderName::from_static("synod-floor"), step.floor.0.to_string()),
            (HeaderName::from_static("synod-refusal"), if step.is_final { "final" } else { "open" }.into()),
        ];
        let body = Bytes::from(Value::Object(body).to_string());
        let bounds = (self.timeout, OUTPUT_BYTES_MAX);
        let answer = self.client.post(&self.base, &path, &headers, &body, bounds).await;
        answer.ok().map(judge)
    }
}

fn judge(answer: Answer) -> Result<Bytes, Failure> {
    // What somebody between here and the service may say as well, in place of it.
    const NOT_ITS_OWN: [StatusCode; 7] = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::MISDIRECTED_REQUEST,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    let status = answer.status;
    if status.is_success() {
        Ok(answer.body)
    } else if status.is_client_error() && !NOT_ITS_OWN.contains(&status) {
        Err(Failure::Refused { why: reason(status, &answer.body) })
    } else {
        Err(Failure::Busy)
    }
}

/// Why it was refused, from the forms in which services say so.
fn reason(status: StatusCode, body: &[u8]) -> String {
    let said: Option<Value> = serde_json::from_slice(body).ok();
    let said = said.as_ref().and_then(|said| {
        let places = ["/error/message", "/error", "/reason", "/why", "/message", "/detail", "/title", ""];
        places.into_iter().find_map(|place| said.pointer(place).and_then(Value::as_str))
    });
    let said = said.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    match one_line(&said) {
        said if said.is_empty() => format!("it answered {status}"),
        said => said,
    }
}

fn parse(work: &[u8]) -> Result<Post, String> {
    let form = r#"{"post":{"path":"/debit","body":{"account":"a","amount":100}}}"#;
    let work: Work = serde_json::from_slice(work)
        .map_err(|error| format!("the work of a service is not understood ({error}): write {form}"))?;
    let Post { path, body } = &work.post;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || !path.bytes().all(is_plain) {
        return Err(format!("a path begins with / and has at most {PATH_BYTES_MAX} plain characters"));
    }
    if body.contains_key("given") {
        return Err(
            "the body's field \"given\" is where the outputs of earlier steps will be: name yours otherwise"
                .into(),
        );
    }
    Ok(work.post)
}

/// A name as a part of a key: what could end the part, or is no plain character, as its percent-encoding.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// The right to ask for one thing at a time.
struct Asking<'a>(&'a HttpService, &'a str);

impl<'a> Asking<'a> {
    fn begin(service: &'a HttpService, key: &'a str) -> Option<Asking<'a>> {
        let mut busy = service.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(key.to_owned()).then(|| Asking(service, key))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(self.1);
    }
}
