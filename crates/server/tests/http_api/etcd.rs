//! Sessions of the etcd store, as metadata of calls.

use super::common::*;
use super::{cluster, create, surely};
use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_store::proto::etcdserverpb as pb;

/// A call with `synod-session` in its metadata: the response and the session's next token, or the status.
fn call<Response: Message + Default>(
    endpoint: &str,
    method: &str,
    session: Option<&str>,
    request: &impl Message,
) -> Result<(Response, Option<String>), Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut framed = BytesMut::from(&[0][..]);
    framed.extend_from_slice(&(request.encoded_len() as u32).to_be_bytes());
    request.encode(&mut framed).expect("room");
    runtime
        .block_on(exchange(endpoint.parse().expect("an address"), method, session, framed.freeze()))
        .expect("the connection lasts")
        .map(|(message, token)| (Response::decode(message).expect("a response"), token))
}

type Exchanged = Result<(Bytes, Option<String>), Status>;

async fn exchange(
    address: SocketAddr,
    method: &str,
    session: Option<&str>,
    body: Bytes,
) -> Result<Exchanged, Box<dyn std::error::Error>> {
    let (client, connection) = h2::client::handshake(tokio::net::TcpStream::connect(address).await?).await?;
    tokio::spawn(connection);
    let mut head = http::Request::post(format!("http://{address}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "20S");
    if let Some(session) = session {
        head = head.header("synod-session", session);
    }
    let (response, mut stream) = client.ready().await?.send_request(head.body(())?, false)?;
    stream.send_data(body, true)?;
    let response = response.await?;
    let text = |headers: &http::HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let token = text(response.headers(), "synod-session");
    let mut trailers = response.headers().clone();
    let mut received = BytesMut::new();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
    }
    trailers.extend(body.trailers().await?.unwrap_or_default());
    let code: u32 = text(&trailers, "grpc-status").unwrap_or_default().parse()?;
    if code != 0 {
        let message = text(&trailers, "grpc-message").unwrap_or_default();
        return Ok(Err(Status { code, message }));
    }
    received.advance(5);
    Ok(Ok((received.freeze(), token)))
}

fn put_in(endpoint: &str, session: Option<&str>, value: &str) -> Option<String> {
    let request = pb::PutRequest { key: "k".into(), value: value.to_owned().into(), ..Default::default() };
    let put = || call::<pb::PutResponse>(endpoint, "/etcdserverpb.KV/Put", session, &request).ok();
    until("a put is accepted", put).1
}

/// A serializable read: the value, and the session's next token.
fn read_in(endpoint: &str, session: Option<&str>) -> Result<(String, Option<String>), Status> {
    let request = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    let (response, token) = call::<pb::RangeResponse>(endpoint, "/etcdserverpb.KV/Range", session, &request)?;
    let value = response.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    Ok((value.unwrap_or_default(), token))
}

#[test]
fn serializable_reads_are_sequential_in_a_session_and_only_there() {
    let (cluster, endpoints) = cluster();
    assert_eq!(put_in(&endpoints[0], None, "old"), None, "who asks for no session hears of none");
    // Nobody has made a keyspace: what seals tokens is drawn when the first session begins.
    let first = put_in(&endpoints[1], Some("new"), "old").expect("a token");
    let away = (0..3).find(|i| *i != cluster.leader()).expect("a follower");
    let (value, token) = until("it has caught up", || read_in(&endpoints[away], Some(&first)).ok());
    assert_eq!(value, "old");
    assert!(token.is_some());
    let others: Vec<String> = (0..3).filter(|i| *i != away).map(|i| format!("\"n{}\"", i + 1)).collect();
    assert_eq!(post_fault(&endpoints[away], &format!("{{\"block\":[{}]}}", others.join(","))).0, 200);
    let near = &endpoints[(away + 1) % 3];
    let second = put_in(near, token.as_deref(), "new").expect("a token");

    assert_eq!(read_in(&endpoints[away], None).expect("a stale prefix").0, "old");
    let begun = Instant::now();
    let behind = read_in(&endpoints[away], Some(&second)).expect_err("the session has seen more");
    assert_eq!(behind.code, 14, "{behind:?}");
    assert!(behind.message.contains("has seen the log up to"), "{behind:?}");
    assert!((2..15).contains(&begun.elapsed().as_secs()), "it took {:?}", begun.elapsed());
    let (value, third) = read_in(near, Some(&second)).expect("it has applied that");
    assert_eq!(value, "new");
    let nothing = pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
                key: "k".into(),
                serializable: true,
                ..Default::default()
            })),
        }],
        ..Default::default()
    };
    let txn = call::<pb::TxnResponse>(&endpoints[away], "/etcdserverpb.KV/Txn", third.as_deref(), &nothing);
    assert_eq!(txn.map(|_| ()).expect_err("read-only transactions too").code, 14);
    assert_eq!(post_fault(&endpoints[away], &format!("{{\"unblock\":[{}]}}", others.join(","))).0, 200);
    let (value, _) = until("it catches up", || read_in(&endpoints[away], third.as_deref()).ok());
    assert_eq!(value, "new");
    // A read that waits is answered when what it waits for has come, and not when its time is up.
    for round in 0..20 {
        let written = put_in(near, Some("new"), &round.to_string()).expect("a token");
        let begun = Instant::now();
        assert_eq!(read_in(&endpoints[away], Some(&written)).expect("in time").0, round.to_string());
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    }
}

#[test]
fn tokens_that_are_not_of_this_store_are_refused() {
    let (_cluster, endpoints) = cluster();
    let at = &endpoints[0];
    let ours = put_in(at, Some("new"), "1").expect("a token");
    create(at, "log", "sequential");
    let other = surely(at, "PUT", "/v1/keyspaces/log/keys/a", &[], r#"{"value":"1"}"#).session();
    let mut forged = ours.clone();
    let last = if forged.ends_with('A') { "Q" } else { "A" };
    forged.replace_range(
        forged.len() - 4..forged.len() - 3,
        if &forged[forged.len() - 4..forged.len() - 3] == last { "B" } else { last },
    );
    for (token, said) in [
        ("nonsense", "not a session token"),
        (&forged, "seal does not fit"),
        (&other, "of keyspace"),
        (&"A".repeat(12_000), "not a session token"),
    ] {
        let refused = read_in(at, Some(token)).expect_err("no token of this store");
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.message.contains(said), "{refused:?}");
    }
    let theirs = surely(at, "GET", "/v1/keyspaces/log/keys/a", &[("synod-session", &ours)], "");
    assert_eq!(theirs.code(), "session-other-keyspace", "{theirs:?}");
    let status = call::<pb::StatusResponse>(
        at,
        "/etcdserverpb.Maintenance/Status",
        Some(&ours),
        &pb::StatusRequest::default(),
    );
    assert!(status.expect("answered").1.is_some(), "every answer has a token");
}
