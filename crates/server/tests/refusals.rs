//! Whatever is wrong is said in one line, and nothing is harmed.

mod common;

use bytes::Bytes;
use common::*;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use synod_server::{Config, Error, PROTOCOLS, Server, Start};
use synod_store::proto::etcdserverpb as pb;

fn alone() -> Cluster {
    let cluster = Cluster::start(1);
    cluster.leader();
    put_surely(&cluster.endpoint(0), "a", "1");
    cluster
}

fn refusal(config: Config) -> Error {
    let error = Server::start(config).expect_err("it must not start");
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    error
}

#[test]
fn data_of_another_cluster_or_member_or_a_lost_disk_are_refused() {
    let mut cluster = alone();
    cluster.down(0);
    let config = cluster.configs[0].clone();
    let said = refusal(Config { cluster: "other".into(), ..config.clone() });
    assert!(
        said.to_string().contains("belongs to cluster synod, but this member is configured as cluster other"),
        "{said}"
    );
    assert!(matches!(said, Error::Foreign { .. }));
    let mut renamed = config.clone();
    renamed.name = "n2".into();
    renamed.members[0].name = "n2".into();
    let said = refusal(renamed);
    assert!(
        said.to_string().contains("belongs to member n1, but this member is configured as member n2"),
        "{said}"
    );
    let identity = config.data_dir.join("IDENTITY");
    let text = std::fs::read_to_string(&identity).expect("read");
    std::fs::write(&identity, text.replace("synod-data 2", "synod-data 3")).expect("written");
    let said = refusal(config.clone());
    assert!(said.to_string().contains("belongs to data format 3, but"), "{said}");
    std::fs::write(&identity, text).expect("written");

    std::fs::rename(config.data_dir.join("log"), cluster.directory.path().join("log-aside")).expect("moved");
    let said = refusal(config.clone());
    assert!(said.to_string().contains("its disk was lost"), "{said}");
    let said = refusal(Config {
        start: Start::Existing,
        data_dir: cluster.directory.path().join("fresh"),
        ..config.clone()
    });
    assert!(said.to_string().contains("its disk was lost"), "{said}");
    std::fs::remove_dir_all(config.data_dir.join("log")).expect("removed");
    std::fs::rename(cluster.directory.path().join("log-aside"), config.data_dir.join("log")).expect("moved");
    cluster.up(0);
    assert_eq!(get_surely(&cluster.endpoint(0), "a"), Some("1".into()));
}

#[test]
fn a_directory_in_use_a_file_in_its_place_and_taken_ports_are_named() {
    let cluster = alone();
    let config = cluster.configs[0].clone();
    let elsewhere = Config {
        listen_clients: Some("127.0.0.1:0".into()),
        listen_peers: Some("127.0.0.1:0".into()),
        ..config.clone()
    };
    let said = refusal(elsewhere.clone());
    assert!(said.to_string().contains(&format!("is in use by process {}", std::process::id())), "{said}");
    let file = cluster.directory.path().join("file");
    std::fs::write(&file, "x").expect("written");
    let said = refusal(Config { data_dir: file, ..elsewhere.clone() });
    assert!(said.to_string().contains("name another with data-dir"), "{said}");
    let said = refusal(Config { data_dir: cluster.directory.path().join("other"), ..config });
    assert!(said.to_string().contains("the port is taken"), "{said}");
    assert!(matches!(said, Error::Listen { .. }));
    let said = refusal(Config { protocol: "gossip".into(), ..elsewhere });
    assert!(matches!(said, Error::Config(_)));
    assert_eq!(get_surely(&cluster.endpoint(0), "a"), Some("1".into()));
}

/// Where the log's written part ends, by its last byte that is not zero.
fn written_end(path: &std::path::Path) -> u64 {
    let bytes = std::fs::read(path).expect("the segment");
    bytes.iter().rposition(|byte| *byte != 0).expect("something is written") as u64 + 1
}

fn overwrite(path: &std::path::Path, at: u64, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("the segment");
    file.seek(SeekFrom::Start(at)).expect("sought");
    file.write_all(bytes).expect("written");
}

#[test]
fn a_member_with_a_corrupt_middle_abstains_aloud_and_a_torn_tail_is_recovered() {
    let mut cluster = alone();
    for i in 0..50 {
        put_surely(&cluster.endpoint(0), &format!("k{i}"), "value");
    }
    cluster.down(0);
    let segment = cluster.configs[0].data_dir.join("log/00000001.log");
    let end = written_end(&segment);
    // Torn: something that begins like a write in progress, behind all that was synced.
    overwrite(&segment, end, &[0xA5; 100]);
    cluster.up(0);
    assert_eq!(get_surely(&cluster.endpoint(0), "k49"), Some("value".into()));
    put_surely(&cluster.endpoint(0), "later", "too");
    cluster.down(0);
    overwrite(&segment, end / 2, &[0x5A; 8]);
    // It may have acknowledged what is lost: it says so, and takes no part.
    cluster.up(0);
    until("it says so", || cluster.said("the log is damaged in segment 1").then_some(()));
    std::thread::sleep(cluster.configs[0].election_timeout * 5);
    assert_eq!(leader_name(&cluster.endpoint(0)), None);
}

#[test]
fn garbage_on_either_port_closes_that_connection_alone() {
    let cluster = alone();
    let config = &cluster.configs[0];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let garbage: Vec<Vec<u8>> = vec![
        vec![0xFF; 100],
        vec![0; 100],
        b"P".to_vec(),
        b"PRI * HTTP/1.1\r\n\r\n".to_vec(),
        [preface.clone(), vec![0xFF; 100]].concat(),
        [preface, vec![0, 0, 0, 0xFF, 0, 0, 0, 0, 0]].concat(),
        b"GET / HTTP/1.1\r\n".iter().copied().chain(std::iter::repeat_n(b'a', 100_000)).collect(),
        b"SYNODP\0\x01".iter().copied().chain([0xFF; 64]).collect(),
        b"SYNODP\0\x09".iter().copied().chain([0; 64]).collect(),
    ];
    for address in [config.client_address(), config.peer_address()] {
        for bytes in &garbage {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
            let _ = stream.write_all(bytes);
            let _ = stream.read(&mut [0; 1000]);
        }
    }
    assert_eq!(get_surely(&cluster.endpoint(0), "a"), Some("1".into()));
    assert!(cluster.said("refused a connection from 127.0.0.1"), "{:?}", cluster.lines);
}

#[test]
fn data_of_one_protocol_are_refused_by_every_other() {
    for protocol in PROTOCOLS {
        let mut cluster = Cluster::of(protocol, 1);
        put_surely(&cluster.endpoint(0), "a", protocol);
        cluster.down(0);
        for other in PROTOCOLS.iter().filter(|other| *other != protocol) {
            let config = Config { protocol: (*other).to_owned(), ..cluster.configs[0].clone() };
            let said = refusal(config).to_string();
            let why =
                format!("belongs to protocol {protocol}, but this member is configured as protocol {other}");
            assert!(said.contains(&why), "{said}");
        }
        cluster.up(0);
        assert_eq!(get_surely(&cluster.endpoint(0), "a").as_deref(), Some(*protocol));
    }
}

/// Two members, the second of which is configured in another way.
fn members_that_disagree(change: impl FnOnce(&mut Config), said_by_the_first: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster {
        configs: configs(directory.path(), 2),
        servers: vec![None, None],
        lines: Default::default(),
        directory,
    };
    change(&mut cluster.configs[1]);
    cluster.up(0);
    cluster.up(1);
    until("both have said it", || {
        let here = cluster.said(&format!("n1: refused a connection from 127.0.0.1: {said_by_the_first}"));
        let there = cluster.said("n2: no connection to n1");
        (here && there).then_some(())
    });
}

#[test]
fn members_of_different_clusters_or_protocols_refuse_each_other_and_both_say_why() {
    members_that_disagree(|config| config.cluster = "other".into(), "n2 belongs to the cluster \"other\"");
    // Two found no cluster of Viewstamped Replication.
    for other in ["multi-paxos", "zab"] {
        let why = format!("n2 runs {other}, n1 runs raft: configure the same `protocol` on all members");
        members_that_disagree(|config| config.protocol = other.to_owned(), &why);
    }
}

#[test]
fn what_is_too_large_or_malformed_is_refused_with_etcds_words() {
    let cluster = alone();
    let endpoint = cluster.endpoint(0);
    let refused = put(&endpoint, "", "x").expect_err("no key");
    assert_eq!((refused.code, refused.message.as_str()), (3, "etcdserver: key is not provided"));
    let refused = put(&endpoint, "a", &"x".repeat(1536 << 10)).expect_err("too large");
    assert_eq!((refused.code, refused.message.as_str()), (3, "etcdserver: request is too large"));
    let refused = put(&endpoint, "a", &"x".repeat(3 << 20)).expect_err("far too large");
    assert_eq!(refused.code, 8);
    assert!(refused.message.contains("received message larger than max"), "{refused:?}");
    let op = |i: usize| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: format!("k{i}").into(),
            ..Default::default()
        })),
    };
    let txn = pb::TxnRequest { success: (0..129).map(op).collect(), ..Default::default() };
    let refused =
        call::<_, pb::TxnResponse>(&endpoint, "/etcdserverpb.KV/Txn", &txn, PATIENCE).expect_err("too many");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (3, "etcdserver: too many operations in txn request")
    );
    let raw = |method: &str, body: &'static [u8]| {
        raw_call(&endpoint, method, Bytes::from_static(body), PATIENCE).expect_err("refused")
    };
    assert_eq!(raw("/etcdserverpb.KV/Put", b"\0\0\0\0\x02\xFF\xFF").code, 3);
    assert_eq!(raw("/etcdserverpb.KV/Put", b"\x01\0\0\0\0").code, 12, "compressed");
    assert_eq!(raw("/etcdserverpb.KV/Put", b"\0\0\0\0\x09abc").code, 13, "cut short");
    assert_eq!(raw("/etcdserverpb.KV/Put", b"\0\0\0\0\0more").code, 13, "too much");
    let refused = raw("/etcdserverpb.Watch/Watch", b"\0\0\0\0\0");
    assert_eq!(refused.code, 12);
    assert!(refused.message.contains("watches are not offered by this version of Synod"), "{refused:?}");
    assert_eq!(raw("/no.Such/Method", b"").code, 12);
    assert_eq!(get_surely(&endpoint, "a"), Some("1".into()), "nothing was harmed");
}

#[test]
fn faults_cannot_be_injected_unless_configured() {
    let mut cluster = alone();
    cluster.down(0);
    cluster.configs[0].fault_injection = false;
    cluster.up(0);
    let (code, text) = post_fault(&cluster.endpoint(0), "{\"block\":[]}");
    assert_eq!(code, 404);
    assert!(text.contains("started without fault injection"), "{text}");
}

#[test]
fn ports_are_free_again_after_a_stop() {
    let mut cluster = alone();
    cluster.down(0);
    TcpListener::bind(cluster.configs[0].peer_address()).expect("nobody listens any more");
}

#[test]
fn unfinished_requests_on_one_connection_are_bounded() {
    let cluster = alone();
    let endpoint = cluster.endpoint(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let refused = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(&endpoint).await.expect("connects");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("speaks HTTP/2");
        tokio::spawn(connection);
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..60 {
            client = client.ready().await.expect("takes more");
            let head = http::Request::post(format!("http://{endpoint}/etcdserverpb.KV/Put"))
                .header("content-type", "application/grpc")
                .body(())
                .expect("a request");
            let (response, mut body) = client.send_request(head, false).expect("sent");
            // All but the last byte of a message of 1.5 MiB.
            let len = 1536_u32 << 10;
            let mut bytes = vec![0; 4 + len as usize];
            bytes[1..5].copy_from_slice(&len.to_be_bytes());
            body.send_data(bytes.into(), false).expect("queued");
            calls.spawn(async move {
                // Dropping the body would reset the call.
                let _body = body;
                let response = tokio::time::timeout(Duration::from_secs(20), response).await.ok()?.ok()?;
                response.headers().get("grpc-status").map(|status| status.to_str().expect("text").to_owned())
            });
        }
        let first = tokio::time::timeout(PATIENCE, async {
            while let Some(call) = calls.join_next().await {
                if let Ok(Some(status)) = call {
                    return Some(status);
                }
            }
            None
        });
        first.await.expect("in time")
    });
    assert_eq!(refused.as_deref(), Some("8"), "60 times 1.5 MiB are more than one connection may keep");
    assert_eq!(get_surely(&endpoint, "a"), Some("1".into()));
}
