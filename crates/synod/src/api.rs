//! A client of the members' API over HTTP: one call at a time on a connection that is kept, another member when one
//! fails, and redirects to the leader followed.
//!
//! The point of it is to know, of a call without success, whether it may have had an effect.

use bytes::BytesMut;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{Method, Request, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Bytes of one answer at the most.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The pause after all members were tried, before the first one is tried again.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// What a member says that did nothing, where another member or another moment may be better.
const NOTHING_DONE: [&str; 9] = [
    "no-leader",
    "no-leader-address",
    "not-leader",
    "busy",
    "behind",
    "not-started",
    "joining",
    "clock-behind",
    "damaged",
];

/// Why a call did not succeed.
#[derive(Debug)]
pub enum CallError {
    /// A member answered that it was not and will not be done.
    Refused {
        /// The status of HTTP.
        status: u16,
        /// The error's name, for programs; empty if the answer had none.
        code: String,
        /// What was wrong and what to do.
        message: String,
    },
    /// Nobody took the request within the time, so that it surely had no effect: what was tried, and why it failed.
    Unreachable(Vec<(String, String)>),
    /// The request left and nobody knows whether it was or will be carried out.
    Unknown(String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Refused { message, .. } => f.write_str(message),
            CallError::Unknown(why) => {
                write!(f, "it may have been done or not ({why}): look before you repeat it")
            }
            CallError::Unreachable(tried) => {
                write!(f, "no member could do it, and nothing was done:")?;
                tried.iter().try_for_each(|(endpoint, why)| write!(f, "\n  {endpoint}: {why}"))?;
                write!(f, "\nIs the cluster running? `synod` starts one; --endpoints names another.")
            }
        }
    }
}

impl From<CallError> for crate::Failure {
    fn from(error: CallError) -> crate::Failure {
        let text = error.to_string();
        match error {
            CallError::Refused { status: 400..=499, .. } => crate::Failure::No(text),
            _ => crate::Failure::Unreachable(text),
        }
    }
}

/// What one attempt came to.
enum Attempt {
    Answer(StatusCode, Value),
    /// The leader is there.
    Elsewhere(String),
    /// Nothing left, or a member said that it did nothing and another moment may be better.
    NotDone(String),
    Unknown(String),
}

/// One client's way to a cluster.
pub struct Session {
    endpoints: Vec<String>,
    /// How many members were turned away from.
    turns: usize,
    /// The member that the next call asks.
    target: String,
    connection: Option<Connection>,
    timeout: Duration,
    /// What a session of the store has seen, shown with every call.
    token: Option<String>,
}

impl Session {
    /// Nothing is connected before the first call. Clients of different numbers begin at different members; a call
    /// takes `timeout` at the most.
    pub fn new(endpoints: &[String], number: usize, timeout: Duration) -> Session {
        let endpoints: Vec<String> = endpoints.iter().map(|endpoint| authority(endpoint)).collect();
        let target = endpoints.get(number % endpoints.len().max(1)).cloned().unwrap_or_default();
        Session { endpoints, turns: number, target, connection: None, timeout, token: None }
    }

    /// Shows from now on what a session of the store has seen.
    pub fn show(&mut self, token: Option<String>) {
        self.token = token;
    }

    /// The member that the next call asks.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What is behind a path.
    pub async fn read(&mut self, path: &str) -> Result<Value, CallError> {
        self.call(Method::GET, path, None).await
    }

    /// One request, until it is answered, may have had an effect, or the time is up.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CallError> {
        let until = Instant::now() + self.timeout;
        let mut tried: Vec<(String, String)> = Vec::new();
        loop {
            let why = match self.attempt(&method, path, body, until).await {
                Attempt::Answer(status, answer) if status.is_success() => return Ok(answer),
                Attempt::Answer(StatusCode::GATEWAY_TIMEOUT, answer) => {
                    return Err(CallError::Unknown(told(&answer).1));
                }
                Attempt::Answer(status, answer) => {
                    let (code, message) = told(&answer);
                    return Err(CallError::Refused { status: status.as_u16(), code, message });
                }
                Attempt::Unknown(why) if method != Method::GET => return Err(CallError::Unknown(why)),
                Attempt::Elsewhere(leader) if leader != self.target => {
                    self.connection = None;
                    self.target = leader;
                    if Instant::now() < until {
                        continue;
                    }
                    "it knows another leader".to_owned()
                }
                Attempt::Elsewhere(_) => "it names itself as the leader and does not lead".to_owned(),
                Attempt::NotDone(why) | Attempt::Unknown(why) => why,
            };
            match tried.iter_mut().find(|(endpoint, _)| *endpoint == self.target) {
                Some((_, last)) => *last = why,
                None => tried.push((self.target.clone(), why)),
            }
            if Instant::now() >= until {
                return Err(CallError::Unreachable(tried));
            }
            self.turn(until).await;
        }
    }

    /// Turns to the next member; after all of them, with a pause.
    async fn turn(&mut self, until: Instant) {
        self.connection = None;
        self.turns += 1;
        if let Some(next) = self.endpoints.get(self.turns % self.endpoints.len().max(1)) {
            self.target.clone_from(next);
        }
        if self.turns.is_multiple_of(self.endpoints.len().max(1)) {
            let _ = tokio::time::timeout_at(until.into(), tokio::time::sleep(ROUND_PAUSE)).await;
        }
    }

    async fn attempt(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        until: Instant,
    ) -> Attempt {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match tokio::time::timeout_at(until.into(), Connection::open(&self.target)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(why)) => return Attempt::NotDone(why),
                Err(_) => return Attempt::NotDone("no connection in time".into()),
            },
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.target)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header("synod-session", token);
        }
        let request = request.body(body.map(Value::to_string).unwrap_or_default());
        let request = match request {
            Ok(request) => request,
            Err(error) => return Attempt::NotDone(format!("{path} cannot be asked for: {error}")),
        };
        match tokio::time::timeout_at(until.into(), connection.exchange(request)).await {
            Ok(attempt) => {
                if matches!(attempt, Attempt::Answer(..)) {
                    self.connection = Some(connection);
                }
                attempt
            }
            Err(_) => Attempt::Unknown("no answer in time".into()),
        }
    }
}

/// One call of a command: `method`, a path such as `/v1/sagas`, and what it carries.
pub fn call(
    cluster: &crate::cli::Cluster,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, CallError> {
    crate::block_on(Session::new(&cluster.endpoints, 0, cluster.timeout).call(method, path, body))
}

/// A name as a part of a path.
pub fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// One connection to one member. Dropping it gives up what is under way.
struct Connection {
    requests: SendRequest<String>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Connection {
    async fn open(target: &str) -> Result<Connection, String> {
        let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (requests, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        Ok(Connection { requests, driver: tokio::spawn(connection) })
    }

    async fn exchange(&mut self, request: Request<String>) -> Attempt {
        if let Err(error) = self.requests.ready().await {
            return Attempt::NotDone(error.to_string());
        }
        let response = match self.requests.try_send_request(request).await {
            Ok(response) => response,
            // Whoever gives the request back has not sent any of it.
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                let why = error.into_error().to_string();
                return if unsent { Attempt::NotDone(why) } else { Attempt::Unknown(why) };
            }
        };
        let (head, body) = response.into_parts();
        if head.status == StatusCode::TEMPORARY_REDIRECT {
            let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            return match location.map(authority).filter(|leader| !leader.is_empty()) {
                Some(leader) => Attempt::Elsewhere(leader),
                None => Attempt::NotDone("it is not the leader, and does not say who is".into()),
            };
        }
        let answer = match whole(body).await {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).trim().to_owned().into()),
            Err(why) => return Attempt::Unknown(why),
        };
        match told(&answer) {
            // These say that nothing was done.
            (code, why) if NOTHING_DONE.contains(&code.as_str()) => Attempt::NotDone(why),
            (_, why) if head.status == StatusCode::SERVICE_UNAVAILABLE => Attempt::Unknown(why),
            _ => Attempt::Answer(head.status, answer),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn whole(mut body: Incoming) -> Result<BytesMut, String> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}

/// An error's name and text; of an answer that is none, an empty name and the whole answer.
fn told(answer: &Value) -> (String, String) {
    let error = &answer["error"];
    match (error["code"].as_str(), error["message"].as_str()) {
        (code, Some(message)) => (code.unwrap_or_default().into(), message.into()),
        _ => (String::new(), answer.as_str().map_or_else(|| answer.to_string(), String::from)),
    }
}

/// `host:port` of an address with or without a scheme and a path.
fn authority(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A member that says these answers, one on each connection, and then is gone.
    fn member(listener: TcpListener, answers: Vec<String>) -> std::thread::JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            let answer = |answer: String| {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut request = [0; 4096];
                let length = stream.read(&mut request).expect("a request");
                stream.write_all(answer.as_bytes()).expect("answered");
                String::from_utf8_lossy(&request[..length]).into_owned()
            };
            answers.into_iter().map(answer).collect()
        })
    }

    fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        (listener, address)
    }

    fn response(status: &str, more: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn a_call_follows_the_redirect_to_the_leader_and_stays_there() {
        let ((follower, one), (leader, two)) = (listen(), listen());
        let location = format!("location: http://{two}/v1/sagas\r\n");
        let follower = member(follower, vec![response("307 Temporary Redirect", &location, "")]);
        let leader = member(leader, vec![response("201 Created", "", r#"{"saga":"s1"}"#)]);
        let mut session = Session::new(&[format!("http://{one}")], 0, Duration::from_secs(10));
        let answer =
            block_on(session.call(Method::POST, "/v1/sagas", Some(&serde_json::json!({"name": "t"}))));
        assert_eq!(answer.expect("an answer")["saga"], "s1");
        assert_eq!(session.target(), two);
        assert!(follower.join().expect("it ends")[0].starts_with("POST /v1/sagas HTTP/1.1"));
        assert!(leader.join().expect("it ends")[0].ends_with(r#"{"name":"t"}"#));
    }

    #[test]
    fn a_member_that_is_gone_or_knows_no_leader_is_passed_over() {
        let ((gone, one), (lost, two), (well, three)) = (listen(), listen(), listen());
        drop(gone);
        let no_leader = r#"{"error":{"code":"no-leader","message":"no leader is known"}}"#;
        let lost = member(lost, vec![response("503 Service Unavailable", "", no_leader)]);
        let well = member(well, vec![response("200 OK", "", "{}")]);
        let mut session = Session::new(&[one, two, three], 0, Duration::from_secs(10));
        assert!(block_on(session.call(Method::POST, "/v1/transactions", None)).is_ok());
        lost.join().expect("it ends");
        well.join().expect("it ends");
    }

    #[test]
    fn a_change_without_an_answer_is_unknown_and_not_repeated() {
        let ((dies, one), (well, two)) = (listen(), listen());
        let dies = member(dies, vec![String::new()]);
        let mut session = Session::new(&[one, two], 0, Duration::from_secs(10));
        let error = block_on(session.call(Method::POST, "/v1/transactions", None)).expect_err("no answer");
        assert!(matches!(error, CallError::Unknown(_)), "{error:?}");
        dies.join().expect("it ends");
        well.set_nonblocking(true).expect("set");
        assert!(well.accept().is_err(), "nobody else was asked");
    }

    #[test]
    fn a_refusal_carries_its_reason_and_nobody_there_says_what_was_tried() {
        let (refuses, one) = listen();
        let body = r#"{"error":{"code":"keyspace-unknown","message":"there is no keyspace x"}}"#;
        let refuses = member(refuses, vec![response("404 Not Found", "", body)]);
        let mut session = Session::new(std::slice::from_ref(&one), 0, Duration::from_millis(200));
        let error = block_on(session.read("/v1/keyspaces/x")).expect_err("refused");
        assert!(matches!(&error, CallError::Refused { status: 404, code, .. } if code == "keyspace-unknown"));
        assert_eq!(error.to_string(), "there is no keyspace x");
        refuses.join().expect("it ends");
        let error = block_on(session.read("/v1/keyspaces/x")).expect_err("gone");
        assert!(error.to_string().contains(&one), "{error}");
    }

    #[test]
    fn names_are_encoded_in_paths() {
        assert_eq!(segment("a/b ü.1"), "a%2Fb%20%C3%BC.1");
    }
}
