//! Clusters of three in one process, through the client API.

#[macro_use]
mod common;

use common::*;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use synod_store::proto::etcdserverpb as pb;

const CALL: Duration = Duration::from_secs(10);

on_every_protocol! {
    keys_can_be_put_read_deleted_compared_and_compacted_through_any_member;
    a_minority_may_be_down_and_a_majority_down_is_a_refusal_in_bounded_time;
    everything_is_there_after_all_members_were_stopped_and_started;
    a_cut_link_is_a_partition_and_a_healed_one_brings_the_member_back;
}

fn keys_can_be_put_read_deleted_compared_and_compacted_through_any_member(protocol: &str) {
    let cluster = Cluster::of(protocol, 3);
    cluster.leader();
    let endpoints: Vec<String> = (0..3).map(|i| cluster.endpoint(i)).collect();
    for (i, endpoint) in endpoints.iter().enumerate() {
        put_surely(endpoint, &format!("k{i}"), &format!("v{i}"));
    }
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    for (i, endpoint) in endpoints.iter().enumerate() {
        let response = range(endpoint, &all).expect("a linearizable read");
        let header = response.header.expect("a header");
        assert_eq!((response.count, header.member_id, header.revision), (3, i as u64 + 1, 4));
        assert_eq!(header.cluster_id, cluster.configs[0].cluster_id().0);
        assert!(header.raft_term >= 1);
    }
    let delete = pb::DeleteRangeRequest { key: "k0".into(), ..Default::default() };
    let response: pb::DeleteRangeResponse =
        call(&endpoints[1], "/etcdserverpb.KV/DeleteRange", &delete, CALL).expect("deleted");
    assert_eq!(response.deleted, 1);
    assert_eq!(get(&endpoints[2], "k0"), Ok(None));

    let is = |key: &'static str, value: &'static str| pb::Compare {
        result: pb::compare::CompareResult::Equal as i32,
        target: pb::compare::CompareTarget::Value as i32,
        key: key.into(),
        target_union: Some(pb::compare::TargetUnion::Value(value.into())),
        ..Default::default()
    };
    let write = |value: &'static str| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: "k1".into(),
            value: value.into(),
            ..Default::default()
        })),
    };
    for (expected, endpoint) in [(true, &endpoints[0]), (false, &endpoints[2])] {
        let txn = pb::TxnRequest {
            compare: vec![is("k1", "v1")],
            success: vec![write("swapped")],
            failure: vec![write("too late")],
        };
        let response: pb::TxnResponse =
            call(endpoint, "/etcdserverpb.KV/Txn", &txn, CALL).expect("a transaction");
        assert_eq!(response.succeeded, expected);
    }
    assert_eq!(get(&endpoints[1], "k1"), Ok(Some("too late".into())));
    let look = pb::TxnRequest {
        compare: vec![is("k1", "too late")],
        success: vec![pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(all.clone())) }],
        failure: vec![],
    };
    let response: pb::TxnResponse = call(&endpoints[0], "/etcdserverpb.KV/Txn", &look, CALL).expect("a read");
    assert!(response.succeeded);
    assert_eq!(response.header.expect("a header").revision, 7, "a transaction that reads makes no revision");

    let compaction = pb::CompactionRequest { revision: 5, physical: false };
    let _: pb::CompactionResponse =
        call(&endpoints[2], "/etcdserverpb.KV/Compact", &compaction, CALL).expect("done");
    let past = pb::RangeRequest { revision: 3, ..all };
    let refused = range(&endpoints[0], &past).expect_err("compacted");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (11, "etcdserver: mvcc: required revision has been compacted")
    );

    let hash = |endpoint: &String| {
        let request = pb::HashKvRequest { revision: 0 };
        let hash: pb::HashKvResponse =
            call(endpoint, "/etcdserverpb.Maintenance/HashKV", &request, CALL).expect("a hash");
        (hash.hash, hash.compact_revision, hash.header.expect("a header").revision)
    };
    until("all members hold the same", || {
        let hashes: Vec<_> = endpoints.iter().map(hash).collect();
        (hashes[0] == hashes[1] && hashes[1] == hashes[2]).then_some(())
    });
}

fn a_minority_may_be_down_and_a_majority_down_is_a_refusal_in_bounded_time(protocol: &str) {
    let mut cluster = Cluster::of(protocol, 3);
    for config in &mut cluster.configs {
        config.request_timeout = Duration::from_secs(2);
    }
    let leader = cluster.leader();
    put_surely(&cluster.endpoint(leader), "a", "1");
    cluster.down(leader);
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    put_surely(&cluster.endpoint(others[0]), "b", "2");
    assert_eq!(get_surely(&cluster.endpoint(others[1]), "a"), Some("1".into()));
    cluster.down(others[0]);
    let alone = cluster.endpoint(others[1]);
    until("the last member gives up its leader", || leader_name(&alone).is_none().then_some(()));
    let begun = Instant::now();
    let refused = put(&alone, "c", "3").expect_err("no majority");
    assert_eq!(refused.code, 14, "{refused:?}");
    assert!(
        ["etcdserver: no leader", "etcdserver: request timed out"].contains(&refused.message.as_str()),
        "{refused:?}"
    );
    assert!(get(&alone, "a").is_err(), "a linearizable read needs a majority");
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    let local = pb::RangeRequest { key: "a".into(), serializable: true, ..Default::default() };
    assert_eq!(range(&alone, &local).expect("its own state").count, 1);
    assert_eq!(http(&alone, "GET /health HTTP/1.0\r\n\r\n").expect("an answer").0, 503);
    cluster.up(leader);
    put_surely(&alone, "c", "3");
    assert_eq!(get_surely(&cluster.endpoint(leader), "b"), Some("2".into()));
}

fn everything_is_there_after_all_members_were_stopped_and_started(protocol: &str) {
    let mut cluster = Cluster::of(protocol, 3);
    cluster.leader();
    let value = "x".repeat(40_000);
    for i in 0..100 {
        put_surely(&cluster.endpoint(i % 3), &format!("k{i:03}"), &value);
    }
    for i in 0..3 {
        cluster.down(i);
    }
    assert!(
        !cluster.directory.path().join("n2/log/00000001.log").exists(),
        "the log has been cut: it alone does not make up for a lost state"
    );
    // One member's state is lost: it is fetched from the others.
    std::fs::remove_dir_all(cluster.directory.path().join("n2/state")).expect("removed");
    for i in 0..3 {
        cluster.up(i);
    }
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    for i in 0..3 {
        let response = until("the range is read", || range(&cluster.endpoint(i), &all).ok());
        assert_eq!((response.count, response.kvs.len()), (100, 100));
        assert!(response.kvs.iter().all(|kv| kv.value == value.as_bytes()));
    }
}

fn a_cut_link_is_a_partition_and_a_healed_one_brings_the_member_back(protocol: &str) {
    let cluster = Cluster::of(protocol, 3);
    let leader = cluster.leader();
    put_surely(&cluster.endpoint(leader), "a", "1");
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let names = format!("[\"n{}\",\"n{}\"]", others[0] + 1, others[1] + 1);
    assert_eq!(post_fault(&cluster.endpoint(leader), &format!("{{\"block\":{names}}}")).0, 200);
    until("the others elect a leader", || {
        let name = leader_name(&cluster.endpoint(others[0]))?;
        (name != format!("n{}", leader + 1)).then_some(())
    });
    put_surely(&cluster.endpoint(others[1]), "a", "2");
    assert!(get(&cluster.endpoint(leader), "a").is_err(), "the old leader must not answer with what it has");
    assert_eq!(post_fault(&cluster.endpoint(leader), &format!("{{\"unblock\":{names}}}")).0, 200);
    assert_eq!(get_surely(&cluster.endpoint(leader), "a"), Some("2".into()));
    let (code, text) = post_fault(&cluster.endpoint(leader), "{\"block\":[\"n9\"]}");
    assert_eq!(code, 400);
    assert!(text.contains("\"n9\" is no peer"), "{text}");
}

#[test]
fn a_delayed_link_only_takes_longer() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    put_surely(&cluster.endpoint(leader), "a", "1");
    let delays: Vec<String> =
        (0..3).filter(|i| *i != leader).map(|i| format!("\"n{}\":\"100ms\"", i + 1)).collect();
    let (code, _) = post_fault(&cluster.endpoint(leader), &format!("{{\"delay\":{{{}}}}}", delays.join(",")));
    assert_eq!(code, 200);
    let begun = Instant::now();
    put_surely(&cluster.endpoint(leader), "a", "2");
    assert!(begun.elapsed() >= Duration::from_millis(100), "it took {:?}", begun.elapsed());
}

#[test]
fn watchers_see_the_states_and_messages_of_a_live_member() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let follower = (0..3).find(|i| *i != leader).expect("a follower");
    let listen = |i: usize| {
        let mut stream = TcpStream::connect(cluster.endpoint(i)).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").expect("written");
        BufReader::new(stream).lines().filter_map(|line| {
            let line = line.expect("the stream goes on");
            line.strip_prefix("data: ")
                .map(|json| serde_json::from_str::<serde_json::Value>(json).expect("JSON"))
        })
    };
    let mut at_leader = listen(leader);
    let state = at_leader.find(|event| event["k"] == "state").expect("a state");
    assert_eq!(state["s"]["role"], "leader");
    assert_eq!(state["n"], format!("n{}", leader + 1));
    assert!(state["t"].is_u64() && state["s"]["fields"].is_array());
    // The leader is watched longer, so that whatever it has shown and the follower received is in its stream.
    let mut at_follower = listen(follower);
    let leader_name = format!("n{}", leader + 1);
    let received = at_follower
        .find(|event| event["k"] == "recv" && event["from"] == leader_name.as_str())
        .expect("a message arrives");
    assert!(received["m"].is_string());
    let sent = at_leader
        .find(|event| event["k"] == "send" && event["m"] == received["m"])
        .expect("the leader has shown it");
    assert!(sent["name"].is_string() && sent["detail"].is_string());
    put_surely(&cluster.endpoint(leader), "greeting", "hello");
    let (mut labelled, mut committed) = (false, false);
    let seen = at_leader.take(10_000).any(|event| {
        let log = event["s"]["log"].as_array();
        labelled |= log.is_some_and(|log| log.iter().any(|entry| entry[2] == "put greeting"));
        committed |= event["k"] == "commit";
        labelled && committed
    });
    assert!(seen, "labelled: {labelled}, committed: {committed}");
}

#[test]
fn the_http_pages_say_how_the_member_is() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let endpoint = cluster.endpoint(leader);
    put_surely(&endpoint, "a", "1");
    let page = |path: &str| http(&endpoint, &format!("GET {path} HTTP/1.0\r\n\r\n")).expect("an answer");
    assert_eq!(page("/health"), (200, "{\"health\":\"true\"}".into()));
    assert!(page("/version").1.contains("\"etcdserver\":\"3.4.0"));
    let status: serde_json::Value = serde_json::from_str(&page("/status").1).expect("JSON");
    assert_eq!((status["role"].as_str(), status["keys"].as_u64()), (Some("leader"), Some(1)));
    assert!(page("/metrics").1.contains("\nsynod_is_leader 1\n"));
    assert_eq!(page("/nothing").0, 404);
    let post = http(&endpoint, "POST /status HTTP/1.0\r\ncontent-length: 0\r\n\r\n").expect("an answer");
    assert_eq!(post.0, 405);
}

#[test]
fn a_recording_of_inputs_is_kept_where_asked_for() {
    let mut cluster = Cluster::start(3);
    let path = cluster.directory.path().join("tape");
    cluster.down(0);
    cluster.configs[0].flight_recorder = Some(path.clone());
    cluster.up(0);
    put_surely(&cluster.endpoint(0), "a", "1");
    cluster.down(0);
    let tape = std::fs::read(&path).expect("recorded");
    let end = tape.iter().position(|byte| *byte == b'\n').expect("a first line");
    let header: serde_json::Value = serde_json::from_slice(&tape[..end]).expect("JSON");
    assert_eq!((header["member"].as_str(), header["protocol"].as_str()), (Some("n1"), Some("raft")));
    assert!(tape.len() > end + 100, "{} bytes", tape.len());
}
