//! A request of the page to a member of the live cluster, in the words of the member's own HTTP API (`/v1/`).
//!
//! The page may load from its own server only, so the server asks for it: one short connection, bounded in time
//! and size, and to addresses of the cluster's own members only, wherever an answer points to.

use crate::live::{LiveCluster, LiveNode};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a member that was named may take; longer than a member waits before it gives up by itself.
pub const MEMBER_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long one of several members may take before the next is asked.
const NEXT_AFTER: Duration = Duration::from_secs(2);

/// Bytes of an answer that are read; a longer one is refused.
pub const MEMBER_ANSWER_BYTES_MAX: usize = 1 << 20;

/// Bytes of a path with its query, and of a session's token.
const LINE_BYTES_MAX: usize = 4 << 10;

/// How often one request may be sent on to another member: leaders change, but not for ever.
const HOPS_MAX: usize = 3;

/// What the page asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// The member; without it, any that answers.
    #[serde(default)]
    at: Option<String>,
    /// Of any, the one that is asked first: it answered last time.
    #[serde(default)]
    first: Option<String>,
    method: String,
    /// From `/v1/` on, percent-encoded.
    path: String,
    #[serde(default)]
    body: Option<Value>,
    /// The token of a session.
    #[serde(default)]
    session: Option<String>,
}

/// Of a member to whom nothing has come: another may be asked the same.
const UNREACHED: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// Why there is no answer of a member, with the status that says so.
type Failed = (StatusCode, String);

/// What a member said.
#[derive(Debug)]
struct Said {
    status: u16,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether it comes from a member that cannot, and another could be asked the same. That nobody knows what became of
    /// something (504) is an answer, unless nothing was to be done.
    fn is_elsewhere(&self, asked: &Asked) -> bool {
        self.status == 503 || self.status == 504 && asked.only_looks()
    }
}

/// Asks, and says who answered what: `{"at","status","body","session"}`.
///
/// # Errors
/// In words: the request is none of this API's, there is no such member, or none answered.
pub(crate) async fn ask(cluster: &Arc<dyn LiveCluster>, asked: Asked) -> Result<Value, Failed> {
    asked.check()?;
    let nodes = cluster.describe().nodes;
    let (candidates, patience): (Vec<&LiveNode>, _) = match &asked.at {
        Some(name) => {
            let named = nodes.iter().filter(|node| node.name == *name).collect();
            (named, MEMBER_WAIT_MAX)
        }
        None => {
            let is_awake = |node: &&LiveNode| node.pid.is_some() && !node.stopped;
            let mut awake: Vec<&LiveNode> = nodes.iter().filter(is_awake).collect();
            awake.sort_by_key(|node| asked.first.as_ref() != Some(&node.name));
            (awake, if asked.only_looks() { NEXT_AFTER } else { MEMBER_WAIT_MAX })
        }
    };
    let mut last = match &asked.at {
        Some(name) => Err((StatusCode::NOT_FOUND, format!("there is no member {name}"))),
        None => Err((StatusCode::BAD_GATEWAY, "no member runs: start one".to_owned())),
    };
    for node in candidates {
        let answer = tokio::time::timeout(patience, follow(&nodes, node, &asked)).await;
        last = answer.unwrap_or_else(|_| {
            let why = format!(
                "{} did not answer within {} s: it is paused, or waits for members that it cannot reach{}",
                node.name,
                patience.as_secs(),
                asked.outcome_unknown()
            );
            Err((StatusCode::GATEWAY_TIMEOUT, why))
        });
        // What may have been done is not asked of another, who would do it once more.
        let may_go_on = match &last {
            Ok((_, said)) => said.is_elsewhere(&asked),
            Err((status, _)) => asked.only_looks() || *status == UNREACHED,
        };
        if !may_go_on {
            break;
        }
    }
    let (at, said) = last?;
    let session = said.header("synod-session").map(str::to_owned);
    Ok(json!({"at": at, "status": said.status, "body": said.body, "session": session}))
}

/// Asks one member, and whoever it points to.
async fn follow(nodes: &[LiveNode], node: &LiveNode, asked: &Asked) -> Result<(String, Said), Failed> {
    let (mut at, mut path) = (node, asked.path.clone());
    for _ in 0..HOPS_MAX {
        let said = exchange(at, &path, asked).await?;
        let location = said.header("location").filter(|_| matches!(said.status, 307 | 308));
        let Some(location) = location.map(str::to_owned) else { return Ok((at.name.clone(), said)) };
        let place = location.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let next = place.and_then(|(authority, rest)| {
            nodes.iter().find(|node| address(node) == authority).map(|node| (node, format!("/{rest}")))
        });
        let Some((next, rest)) = next else {
            let why = format!("{} points to {location}, which is no member of this cluster", at.name);
            return Err((StatusCode::BAD_GATEWAY, why));
        };
        check_path(&rest)?;
        (at, path) = (next, rest);
    }
    Err((StatusCode::BAD_GATEWAY, "the members point at each other: ask again once there is a leader".into()))
}

/// One request and its answer. HTTP/1.0, so that the answer ends with the connection.
async fn exchange(node: &LiveNode, path: &str, asked: &Asked) -> Result<Said, Failed> {
    let body = asked.body.as_ref().map(Value::to_string).unwrap_or_default();
    let (method, host, length) = (&asked.method, address(node), body.len());
    let mut request = format!("{method} {path} HTTP/1.0\r\nhost: {host}\r\ncontent-length: {length}\r\n");
    if !body.is_empty() {
        request += "content-type: application/json\r\n";
    }
    if let Some(session) = &asked.session {
        request += &format!("synod-session: {session}\r\n");
    }
    let unreached = |error: std::io::Error| {
        (UNREACHED, format!("{} cannot be reached ({error}): does it run?", node.name))
    };
    let mut stream = TcpStream::connect(host).await.map_err(unreached)?;
    let bytes = async {
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(MEMBER_ANSWER_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = bytes.await.unwrap_or_default();
    if bytes.is_empty() {
        let why =
            format!("{} hung up before it answered: was it killed{}", node.name, asked.outcome_unknown());
        return Err((StatusCode::BAD_GATEWAY, why));
    }
    if bytes.len() > MEMBER_ANSWER_BYTES_MAX {
        let why =
            format!("{} answers with more than {MEMBER_ANSWER_BYTES_MAX} bytes: ask for less", node.name);
        return Err((StatusCode::BAD_GATEWAY, why));
    }
    understood(&bytes).ok_or_else(|| {
        (StatusCode::BAD_GATEWAY, format!("{} answered with something that is no answer", node.name))
    })
}

/// An answer taken apart. A body that is no JSON is one line for people, and is shown as such.
fn understood(bytes: &[u8]) -> Option<Said> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body.trim()));
    Some(Said { status, headers: lines.filter_map(header).collect(), body })
}

/// Where clients reach it, without a scheme.
fn address(node: &LiveNode) -> &str {
    node.client.trim_start_matches("http://").trim_end_matches('/')
}

impl Asked {
    /// Whether nothing is to be done, so that it can be asked twice.
    fn only_looks(&self) -> bool {
        self.method == "GET"
    }

    /// What to say where no answer came.
    fn outcome_unknown(&self) -> &'static str {
        match self.only_looks() {
            true => "",
            false => ". Whether it was done nobody knows: look before you repeat it",
        }
    }

    fn check(&self) -> Result<(), Failed> {
        if !["GET", "PUT", "POST", "DELETE"].contains(&self.method.as_str()) {
            let why = format!("`{}` is no method here: GET, PUT, POST or DELETE", self.method);
            return Err((StatusCode::BAD_REQUEST, why));
        }
        check_path(&self.path)?;
        let is_token = |token: &String| token.len() <= LINE_BYTES_MAX && is_one_word(token);
        if !self.session.as_ref().is_none_or(is_token) {
            return Err((StatusCode::BAD_REQUEST, "this is no session's token: begin a new session".into()));
        }
        Ok(())
    }
}

fn check_path(path: &str) -> Result<(), Failed> {
    let is_ours = path.starts_with("/v1/") && path.len() <= LINE_BYTES_MAX && is_one_word(path);
    if is_ours {
        Ok(())
    } else {
        let why = format!("a member is asked below /v1/ here, percent-encoded and in {LINE_BYTES_MAX} bytes");
        Err((StatusCode::BAD_REQUEST, why))
    }
}

/// Nothing in it ends a line of a request, or a word of its first.
fn is_one_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str, session: Option<&str>) -> Asked {
        Asked {
            at: None,
            first: None,
            method: method.into(),
            path: path.into(),
            body: None,
            session: session.map(Into::into),
        }
    }

    #[test]
    fn only_the_members_own_api_is_asked_and_nothing_is_smuggled_into_a_request() {
        asked("GET", "/v1/keyspaces/a%20b/keys/x?consistency=causal", Some("dG9rZW4"))
            .check()
            .expect("a request");
        let long = format!("/v1/{}", "x".repeat(LINE_BYTES_MAX));
        for (method, path, session) in [
            ("PATCH", "/v1/keyspaces", None),
            ("GET", "/fault", None),
            ("GET", "/v1/x HTTP/1.0\r\nx: y", None),
            ("GET", "/v1/\u{e4}", None),
            ("GET", long.as_str(), None),
            ("GET", "/v1/keyspaces", Some("a\r\nhost: b")),
        ] {
            let (status, why) = asked(method, path, session).check().expect_err("no request of ours");
            assert_eq!(status, StatusCode::BAD_REQUEST, "{why}");
        }
    }

    #[test]
    fn an_answer_is_taken_apart_whatever_its_body_is() {
        let said = understood(b"HTTP/1.1 200 OK\r\nSynod-Session: abc\r\n\r\n{\"a\":1}").expect("an answer");
        assert_eq!(
            (said.status, said.header("synod-session"), &said.body["a"]),
            (200, Some("abc"), &json!(1))
        );
        let said = understood(b"HTTP/1.0 404 Not Found\r\n\r\ntry /health\n").expect("an answer");
        assert_eq!((said.status, &said.body), (404, &json!("try /health")));
        for nonsense in [&b"SSH-2.0-x\r\n\r\n"[..], b"", b"HTTP/1.1 OK\r\n\r\n", b"\xff\xfe"] {
            assert!(understood(nonsense).is_none(), "{nonsense:?}");
        }
    }
}
