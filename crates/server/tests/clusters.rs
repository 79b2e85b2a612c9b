//! The way between clusters: envelopes, endpoints that are dead or not the leader, and a participant at the other end.

#[path = "outside/web.rs"]
mod web;

use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use synod_protocols::commit::{
    Bank, BankOp, Decision, Message, Participant, ParticipantConfig, Refusal, Stamp, TxnId, Vote,
};
use synod_protocols::contract::{Effects, Input, Process, Recovery};
use synod_protocols::{NodeId, Time, Wire};
use synod_server::outside::{
    ClusterPeer, ENVELOPE_BYTES_MAX, Envelope, KeyspaceThere, MESSAGES_MAX, MESSAGES_PATH, PeerError, To,
};
use web::{Answered, Asked, Web};

const COORDINATOR: NodeId = NodeId(0x7FFF_FFFF_FFFF_FFFF);
const PARTICIPANT: NodeId = NodeId(12);
const TXN: TxnId = TxnId { coordinator: COORDINATOR, epoch: 1, number: 1 };
const STAMP: Stamp = Stamp { epoch: 1, floor: TXN };
const TIMEOUT: Duration = Duration::from_millis(300);

fn there() -> KeyspaceThere {
    KeyspaceThere { cluster: NodeId(99), id: NodeId(7), name: "bank2".into() }
}

fn envelope(messages: Vec<Message>) -> Envelope {
    Envelope {
        coordinator: COORDINATOR,
        participant: PARTICIPANT,
        to: To::Keyspace(there()),
        reply: vec!["http://127.0.0.1:23791".into()],
        messages,
    }
}

fn decide() -> Message {
    Message::Decide { stamp: STAMP, txn: TXN, decision: Decision::Commit }
}

fn ack() -> Message {
    Message::Ack { txn: TXN }
}

fn peer(endpoints: &[String]) -> ClusterPeer {
    ClusterPeer::new(endpoints, envelope(Vec::new()), TIMEOUT).expect("endpoints")
}

/// The other cluster's answer.
fn answer(messages: Vec<Message>) -> Answered {
    let envelope = Envelope { to: To::Coordinator, ..envelope(messages) };
    Some((200, None, String::from_utf8(envelope.encode().to_vec()).expect("text")))
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("it ends") });
}

/// An address at which nobody listens.
fn nobody() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr());
    format!("http://{}", port.expect("a port"))
}

#[test]
fn an_envelope_is_written_as_documented_and_read_again() {
    let envelope = envelope(vec![decide()]);
    let written = r#"{"coordinator":"9223372036854775807","participant":"12","keyspace":{"cluster":"99","id":"7","name":"bank2"},"reply":["http://127.0.0.1:23791"],"messages":["BwH//////////38BAf//////////fwEBAQ=="]}"#;
    assert_eq!(envelope.encode(), written);
    assert_eq!(Envelope::decode(written.as_bytes()), Ok(envelope.clone()));
    let back = Envelope { to: To::Coordinator, ..envelope };
    assert!(!std::str::from_utf8(&back.encode()).expect("text").contains("keyspace"));
    assert_eq!(Envelope::decode(&back.encode()), Ok(back));
}

#[test]
fn what_is_no_envelope_is_refused_with_the_reason() {
    let with = |field: &str, value: serde_json::Value| {
        let mut json: serde_json::Value =
            serde_json::from_slice(&envelope(vec![decide()]).encode()).expect("JSON");
        json[field] = value;
        json.to_string()
    };
    let cases = [
        ("{".to_owned(), "EOF"),
        (with("more", 1.into()), "unknown field"),
        (with("coordinator", "0".into()), "no number of a coordinator"),
        (with("participant", "-1".into()), "no number of a coordinator"),
        (with("reply", serde_json::json!(["https://h"])), "https is not spoken here"),
        (with("reply", serde_json::json!(vec!["http://h"; 17])), "at most"),
        (
            with("keyspace", serde_json::json!({"cluster": "1", "id": "1", "name": "x".repeat(300)})),
            "at most",
        ),
        (
            with("keyspace", serde_json::json!({"cluster": "0", "id": "1", "name": "x"})),
            "no number of a coordinator",
        ),
        (with("keyspace", "bank2".into()), "invalid type"),
        (with("messages", serde_json::json!(vec!["Bw=="; MESSAGES_MAX + 1])), "at most"),
        (with("messages", serde_json::json!(["%"])), "not base64"),
        (with("messages", serde_json::json!(["/w=="])), "cannot be read"),
        (" ".repeat(ENVELOPE_BYTES_MAX + 1), "more than"),
    ];
    for (json, reason) in cases {
        let error = Envelope::decode(json.as_bytes()).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
    // Nor does anything else make it panic.
    let whole = envelope(vec![decide()]).encode();
    (0..whole.len()).for_each(|end| assert!(Envelope::decode(&whole[..end]).is_err()));
}

#[test]
fn dead_endpoints_are_passed_over_redirections_followed_and_the_leader_remembered() {
    run(async {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let leader = {
            let asked = Arc::clone(&asked);
            Web::start(move |request: Asked| {
                let envelope = Envelope::decode(&request.body).expect("an envelope");
                asked.lock().expect("no panic").push((request.path, envelope));
                async { answer(vec![ack()]) }
            })
        };
        let location = format!("{}{MESSAGES_PATH}", leader.url());
        let behind = Web::start(|_| async { Some((503, None, "no leader is known".into())) });
        let silent = Web::start(|_| async { std::future::pending().await });
        let follower = {
            let asked = Arc::clone(&asked);
            Web::start(move |request: Asked| {
                let envelope = Envelope::decode(&request.body).expect("an envelope");
                asked.lock().expect("no panic").push(("follower".into(), envelope));
                let location = location.clone();
                async { Some((307, Some(location), String::new())) }
            })
        };
        let endpoints = [nobody(), behind.url(), silent.url(), follower.url()];
        let peer = peer(&endpoints);
        assert_eq!(peer.send(vec![decide()]).await, Ok(vec![ack()]));
        assert_eq!(peer.send(vec![decide()]).await, Ok(vec![ack()]));
        let asked = asked.lock().expect("no panic");
        let places: Vec<&str> = asked.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, ["follower", MESSAGES_PATH, "follower", MESSAGES_PATH]);
        assert!(asked.iter().all(|(_, sent)| *sent == envelope(vec![decide()])), "whole, the reply included");
    });
}

#[test]
fn what_the_other_cluster_says_instead_of_an_answer_is_passed_on() {
    run(async {
        let cases: [(Answered, bool, &str); 6] = [
            (Some((404, None, "there is no keyspace bank2".into())), true, "there is no keyspace bank2"),
            (Some((503, None, "no leader is known".into())), false, "no leader is known"),
            (Some((200, None, "hello".into())), false, "no envelope"),
            (
                Some((307, Some("/v1/participant/messages".into()), String::new())),
                false,
                "redirects more than",
            ),
            (Some((307, Some("https://h/".into()), String::new())), false, "https is not spoken"),
            (None, false, "http://127.0.0.1"),
        ];
        for (said, is_refused, reason) in cases {
            let web = Web::start(move |_| {
                let said = said.clone();
                async { said }
            });
            let error = peer(&[web.url()]).send(vec![decide()]).await.expect_err(reason);
            assert_eq!(matches!(error, PeerError::Refused(_)), is_refused, "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
        let foreign = Envelope { participant: NodeId(13), ..envelope(Vec::new()) }.encode();
        let web = Web::start(move |_| {
            let foreign = String::from_utf8(foreign.to_vec()).expect("text");
            async { Some((200, None, foreign)) }
        });
        let error = peer(&[web.url()]).send(vec![decide()]).await.expect_err("not to this one");
        assert!(error.to_string().contains("somebody else"), "{error}");
        let error = ClusterPeer::new(&[], envelope(Vec::new()), TIMEOUT).expect_err("none");
        assert!(error.to_string().contains("1 to 16 endpoints"), "{error}");
    });
}

#[test]
fn many_messages_go_in_several_envelopes_and_too_large_ones_not_at_all() {
    run(async {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let web = {
            let sizes = Arc::clone(&sizes);
            Web::start(move |request: Asked| {
                let messages = Envelope::decode(&request.body).expect("an envelope").messages;
                sizes.lock().expect("no panic").push(messages.len());
                async { answer(vec![ack()]) }
            })
        };
        let peer = peer(&[web.url()]);
        let answers = peer.send(vec![decide(); 2 * MESSAGES_MAX + 1]).await;
        assert_eq!(answers, Ok(vec![ack(); 3]));
        let work = |bytes: usize| Message::OnePhase {
            stamp: STAMP,
            txn: TXN,
            life: 0,
            work: Some(Bytes::from(vec![7; bytes])),
        };
        assert_eq!(peer.send(vec![work(1 << 20); 4]).await.map(|answers| answers.len()), Ok(4));
        assert_eq!(*sizes.lock().expect("no panic"), [MESSAGES_MAX, MESSAGES_MAX, 1, 1, 1, 1, 1]);
        let error = peer.send(vec![work(ENVELOPE_BYTES_MAX)]).await.expect_err("too large");
        assert!(matches!(error, PeerError::Refused(_)), "{error}");
    });
}

/// A participant, and what its disk holds.
type Other = (Participant<Bank>, Effects<Participant<Bank>>);

/// The participant of the other cluster: the protocol's own code, behind the way.
fn handle(other: &mut Other, messages: Vec<Message>) -> Vec<Message> {
    let (participant, effects) = other;
    for message in messages {
        participant.step(Time::ZERO, Input::Message { from: COORDINATOR, message }, effects);
    }
    effects.records.clear();
    effects.events.clear();
    effects.sends.drain(..).map(|send| send.message).collect()
}

#[test]
fn a_participant_in_another_cluster_votes_commits_and_bears_repetition() {
    run(async {
        let accounts = BTreeMap::from([("b".to_owned(), 0)]);
        let config = ParticipantConfig::new(NodeId(3), Bank::new(accounts));
        let mut effects = Effects::new();
        let participant = Participant::recover(config, Recovery::First, (), Time::ZERO, &mut effects);
        let other = Arc::new(Mutex::new((participant, effects)));
        let web = {
            let other = Arc::clone(&other);
            Web::start(move |request: Asked| {
                let envelope = Envelope::decode(&request.body).expect("an envelope");
                assert_eq!(envelope.to, To::Keyspace(there()));
                let answers = handle(&mut other.lock().expect("no panic"), envelope.messages);
                async { answer(answers) }
            })
        };
        let peer = peer(&[web.url()]);
        let work = |account: &str, amount: u64| {
            let work = Some(vec![BankOp::Credit { account: account.into(), amount }].to_bytes());
            Message::Prepare { stamp: STAMP, txn: TXN, addresses: vec![], peers: vec![], life: 0, work }
        };
        for _ in 0..2 {
            let votes = peer.send(vec![work("b", 100)]).await.expect("an answer");
            assert!(matches!(&votes[..], [Message::Vote { vote: Vote::Yes { .. }, .. }]), "{votes:?}");
        }
        assert_eq!(peer.send(vec![decide(), decide()]).await, Ok(vec![ack(), ack()]));
        let late = peer.send(vec![work("b", 100)]).await;
        assert_eq!(late, Ok(vec![Message::Vote { txn: TXN, vote: Vote::No { why: Refusal::Over } }]));
        assert_eq!(other.lock().expect("no panic").0.resource().accounts().get("b"), Some(&100));
    });
}
