//! A program's own state machine, replicated in its own process.

#[macro_use]
mod common;

use common::until;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use synod_server::{
    Builder, Config, Error, Handle, Index, MemberPart, NodeId, Replica, RequestError, Role, Server,
    StateMachine,
};

/// Words and how often they were said, and the place of the last one in the log.
#[derive(Debug, Default)]
struct Words {
    said: BTreeMap<String, u64>,
    last: u64,
}

impl StateMachine for Words {
    type Response = (u64, Index);
    type Query = String;
    type Answer = u64;

    fn apply(&mut self, index: Index, command: &[u8]) -> (u64, Index) {
        let word = String::from_utf8_lossy(command).into_owned();
        assert_ne!(word, "panic", "as it was asked to");
        assert!(index.0 > self.last, "places only go up, also across restarts");
        self.last = index.0;
        let count = self.said.entry(word).or_default();
        *count += 1;
        (*count, index)
    }

    fn query(&self, word: &String) -> u64 {
        if word.is_empty() { self.said.values().sum() } else { self.said.get(word).copied().unwrap_or(0) }
    }

    fn snapshot(&self) -> Vec<u8> {
        let lines = self.said.iter().map(|(word, count)| format!("{count} {word}\n"));
        format!("{}\n{}", self.last, lines.collect::<String>()).into_bytes()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(snapshot).map_err(|error| error.to_string())?;
        let mut lines = text.lines();
        self.last = lines.next().and_then(|line| line.parse().ok()).ok_or("the first line is no number")?;
        self.said = lines
            .map(|line| Some((line.split_once(' ')?.1.to_owned(), line.split_once(' ')?.0.parse().ok()?)))
            .collect::<Option<_>>()
            .ok_or("a line is not a number and a word")?;
        Ok(())
    }
}

struct Cluster {
    directory: tempfile::TempDir,
    protocol: String,
    /// The founders', and behind them those of members that may join.
    addresses: Vec<String>,
    founders: usize,
    replicas: Vec<Option<Replica<Words>>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    fn start(protocol: &str, founders: usize) -> Cluster {
        let ports: Vec<TcpListener> =
            (0..founders + 1).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let addresses = ports.iter().map(|port| port.local_addr().expect("an address").to_string()).collect();
        drop(ports);
        let mut cluster = Cluster {
            directory: tempfile::tempdir().expect("a directory"),
            protocol: protocol.to_owned(),
            addresses,
            founders,
            replicas: (0..=founders).map(|_| None).collect(),
            lines: Arc::default(),
        };
        (0..founders).for_each(|i| cluster.up(i));
        cluster
    }

    fn builder(&self, i: usize) -> Builder<Words> {
        let lines = Arc::clone(&self.lines);
        let mut builder = Replica::builder("words", &format!("n{}", i + 1))
            .protocol(&self.protocol)
            .data_dir(self.directory.path().join(format!("n{}", i + 1)))
            .log(move |line| lines.lock().expect("no test panics here").push(line.to_owned()))
            .configure(|config| {
                config.segment_size = 1 << 20;
                // Patient, because tests share their machine with builds.
                config.election_timeout = Duration::from_millis(400);
            });
        for (i, address) in self.addresses[..self.founders].iter().enumerate() {
            builder = builder.member(&format!("n{}", i + 1), address);
        }
        if i >= self.founders {
            builder = builder.joined(&format!("n{}", i + 1), &self.addresses[i]);
        }
        builder
    }

    fn up(&mut self, i: usize) {
        self.replicas[i] = Some(self.builder(i).start(Words::default()).expect("the replica starts"));
    }

    fn down(&mut self, i: usize) {
        self.replicas[i].take().expect("it runs").stop().expect("it stops in order");
    }

    fn handle(&self, i: usize) -> Handle<Words> {
        self.replicas[i].as_ref().expect("it runs").handle()
    }

    /// Waits until the running replicas agree on a leader, one of them.
    fn leader(&self) -> usize {
        let running: Vec<usize> = (0..self.replicas.len()).filter(|i| self.replicas[*i].is_some()).collect();
        until("the replicas agree on a leader", || {
            let known: Vec<_> = running.iter().map(|i| self.handle(*i).standing().leader).collect();
            let leader = usize::try_from(known.first()?.as_ref()?.0).ok()? - 1;
            (known.iter().all(|one| *one == known[0]) && running.contains(&leader)).then_some(leader)
        })
    }
}

/// Says a word until it is certain that it was said; how often it was then.
fn say(handle: &Handle<Words>, word: &str) -> u64 {
    until("a word is said", || match handle.propose(word.to_owned()).wait() {
        Ok((count, _)) => Some(count),
        Err(error) if error.is_surely_not_done() => None,
        Err(error) => panic!("it is unknown whether {word:?} was said: {error}"),
    })
}

fn count(handle: &Handle<Words>, word: &str) -> u64 {
    until("a word is counted", || handle.read(word.to_owned()).wait().ok())
}

on_every_protocol! {
    what_was_answered_by_one_is_read_through_all_and_outlives_the_leader_and_then_everybody;
    one_that_was_away_for_too_long_gets_a_snapshot_and_keeps_it;
}

fn what_was_answered_by_one_is_read_through_all_and_outlives_the_leader_and_then_everybody(protocol: &str) {
    let mut cluster = Cluster::start(protocol, 3);
    let leader = cluster.leader();
    for i in 0..3 {
        assert_eq!(say(&cluster.handle(i), "word"), i as u64 + 1);
        assert_eq!(count(&cluster.handle((i + 1) % 3), "word"), i as u64 + 1, "it was answered before");
    }
    let followers: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let mut watch = cluster.handle(followers[0]).watch();
    cluster.down(leader);
    let gone = NodeId(leader as u64 + 1);
    let other = watch.wait(common::PATIENCE, |now| now.leader.is_some_and(|leader| leader != gone));
    let other = other.expect("another leads");
    assert_eq!(other.role == Role::Leader, other.leader == Some(NodeId(followers[0] as u64 + 1)));
    assert_eq!(say(&cluster.handle(followers[1]), "word"), 4);
    for i in followers {
        cluster.down(i);
    }
    (0..3).for_each(|i| cluster.up(i));
    for i in 0..3 {
        assert_eq!(count(&cluster.handle(i), "word"), 4);
    }
}

fn one_that_was_away_for_too_long_gets_a_snapshot_and_keeps_it(protocol: &str) {
    let mut cluster = Cluster::start(protocol, 3);
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    cluster.down(away);
    let handle = cluster.handle((leader + 2) % 3);
    // Segments are of 1 MiB: a few are filled, and cut off, meanwhile.
    let long = "o".repeat(100_000);
    for round in 0..60 {
        assert_eq!(say(&handle, &long), round + 1);
    }
    let first_segment =
        |i: usize| cluster.directory.path().join(format!("n{}/log/00000001.log", i + 1)).exists();
    until("the others have cut their logs", || (0..3).all(|i| i == away || !first_segment(i)).then_some(()));
    cluster.up(away);
    until("it has all", || (cluster.handle(away).read_local(long.clone()).wait().ok()? == 60).then_some(()));
    let fetched = cluster
        .lines
        .lock()
        .expect("no test panics here")
        .iter()
        .any(|line| line.contains("was fetched from"));
    assert!(fetched, "{:?}", cluster.lines);
    cluster.down(away);
    cluster.up(away);
    assert_eq!(count(&cluster.handle(away), &long), 60);
    assert_eq!(say(&cluster.handle(away), &long), 61);
}

#[test]
fn many_threads_ask_at_once_and_every_command_counts_once() {
    let cluster = Cluster::start("raft", 3);
    cluster.leader();
    std::thread::scope(|scope| {
        for i in 0..3 {
            let handle = cluster.handle(i);
            scope.spawn(move || {
                let asked: Vec<_> = (0..200).map(|_| handle.propose("word")).collect();
                let mut last = Index(0);
                for pending in asked {
                    let (_, index) = pending.wait().expect("nobody is disturbed");
                    assert!(index > last, "in the order in which they were asked");
                    last = index;
                }
            });
        }
    });
    assert_eq!(count(&cluster.handle(0), "word"), 600);
}

#[test]
fn answers_can_be_awaited_and_changes_of_the_leader_too() {
    let cluster = Cluster::start("raft", 3);
    let leader = cluster.leader();
    let handle = cluster.handle(leader);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        assert_eq!(handle.propose("word").await.expect("said").0, 1);
        let mut watch = handle.watch();
        let to = NodeId((leader as u64 + 1) % 3 + 1);
        let transfer = handle.transfer_leadership(Some(to));
        while watch.changed().await.expect("it runs").leader != Some(to) {}
        transfer.await.expect("done");
        assert_eq!(handle.read("word".to_owned()).await, Ok(1));
    });
}

#[test]
fn members_are_added_and_removed_while_it_serves() {
    for protocol in ["raft", "zab"] {
        let mut cluster = Cluster::start(protocol, 3);
        let leader = cluster.leader();
        let handle = cluster.handle(leader);
        say(&handle, "word");
        let refused = |pending: Result<_, RequestError>, expected: &str| {
            let error = pending.expect_err("it is refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused(handle.add_member("nowhere").wait(), "\"nowhere\" is no address");
        refused(handle.add_member(&cluster.addresses[1]).wait(), "n2 is at that address already");
        let address = format!("{},127.0.0.1:9", cluster.addresses[3]);
        let added = until("it is added", || handle.add_learner(&address).wait().ok());
        assert_eq!((added.id, added.clients.as_deref()), (NodeId(4), Some("127.0.0.1:9")));
        cluster.up(3);
        until("it has caught up", || {
            (cluster.handle(3).read_local("word".to_owned()).wait().ok()? == 1).then_some(())
        });
        assert_eq!(cluster.handle(3).standing().role, Role::Learner);
        until("it votes", || cluster.handle(leader).promote(NodeId(4)).wait().ok());
        let gone = (0..3).find(|i| *i != leader).expect("there are others");
        let rest = until("one is removed", || {
            cluster.handle(leader).remove_member(NodeId(gone as u64 + 1)).wait().ok()
        });
        assert_eq!(rest.len(), 3);
        assert!(rest.iter().all(|member| member.part == MemberPart::Voter), "{rest:?}");
        let said = cluster.replicas[gone].take().expect("it ran").wait().expect_err("it ends by itself");
        assert!(matches!(said, Error::Removed { .. }), "{said}");
        assert_eq!(say(&cluster.handle(3), "word"), 2);
    }
}

#[test]
fn without_a_majority_and_after_the_end_everything_is_refused_and_the_words_help() {
    let mut cluster = Cluster::start("raft", 3);
    let leader = cluster.leader();
    let handle = cluster.handle(leader);
    let error = handle.propose(vec![b'x'; 1537 << 10]).wait().expect_err("too large");
    assert_eq!(error, RequestError::TooLarge { bytes_max: 1536 << 10 });
    assert!(error.is_surely_not_done());
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    others.iter().for_each(|i| cluster.down(*i));
    let mut watch = handle.watch();
    watch.wait(common::PATIENCE, |now| now.leader.is_none()).expect("it gives up its office");
    assert_eq!(handle.propose("word").wait(), Err(RequestError::NoLeader));
    handle.read("word".to_owned()).wait().expect_err("that needs a majority");
    assert_eq!(handle.read_local("word".to_owned()).wait(), Ok(0));
    cluster.down(leader);
    let error = handle.propose("word").wait().expect_err("it has stopped");
    assert!(error == RequestError::Stopped && !error.is_surely_not_done());
    assert_eq!(watch.wait(common::PATIENCE, |now| now.leader.is_some()), None);
}

#[test]
fn a_panic_of_the_state_machine_ends_the_replica_and_is_told() {
    let mut cluster = Cluster::start("raft", 1);
    cluster.leader();
    let error = cluster.handle(0).propose("panic").wait().expect_err("it panics");
    assert_eq!(error, RequestError::Stopped);
    let said = cluster.replicas[0].take().expect("it ran").wait().expect_err("it ends by itself").to_string();
    assert!(said.contains("a defect: see the lines above"), "{said}");
}

#[test]
fn data_of_a_program_and_of_the_etcd_server_are_refused_by_each_other() {
    let mut cluster = Cluster::start("raft", 1);
    cluster.leader();
    cluster.down(0);
    let data_dir = cluster.directory.path().join("n1");
    let etcd = |data_dir: &Path| Config {
        cluster: "words".into(),
        members: vec!["n1=127.0.0.1:0".parse().expect("a member")],
        listen_clients: Some("127.0.0.1:0".into()),
        data_dir: data_dir.to_owned(),
        ..Config::default()
    };
    let said = Server::start(etcd(&data_dir)).expect_err("it is a program's").to_string();
    assert!(
        said.contains("belongs to cluster program/words, but this member is configured as cluster words"),
        "{said}"
    );
    let theirs = cluster.directory.path().join("etcd");
    Server::start(etcd(&theirs)).expect("starts").stop().expect("stops");
    let said =
        cluster.builder(0).data_dir(theirs).start(Words::default()).expect_err("it is etcd's").to_string();
    assert!(
        said.contains("belongs to cluster words, but this member is configured as cluster program/words"),
        "{said}"
    );
    let said =
        Replica::<Words>::builder("", "one").start(Words::default()).expect_err("nothing fits").to_string();
    assert!(said.contains("cluster: \"\" is no name") && said.contains("members: is empty"), "{said}");
}
