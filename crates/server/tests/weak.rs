//! Causal and eventual keyspaces of running members.

mod common;

use common::keyspaces::{Api, Session, value};
use common::*;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use synod_store::proto::etcdserverpb as pb;

impl Cluster {
    fn api(&self, i: usize) -> Api {
        Api::to(&self.endpoint(i))
    }

    fn running(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|i| self.servers[*i].is_some()).collect()
    }

    /// Makes a keyspace, and waits until it has begun at every member that runs.
    fn create(&self, name: &str, model: &str) {
        let first = self.running()[0];
        let path = format!("/v1/keyspaces/{name}");
        until("the keyspace is made", || {
            let made =
                self.api(first).ask("PUT", &path, &Session::default(), Some(&json!({ "model": model })));
            (made.0 < 300).then_some(())
        });
        for i in self.running() {
            until("it has begun", || (self.api(i).figures(name)["standing"] == "member").then_some(()));
        }
    }

    fn drop_keyspace(&self, name: &str) {
        let path = format!("/v1/keyspaces/{name}?force=true");
        until("it is dropped", || {
            let dropped = self.api(0).ask("DELETE", &path, &Session::default(), None);
            (dropped.0 == 200).then_some(())
        });
    }

    fn directory(&self, i: usize, name: &str) -> PathBuf {
        let id = self.api(i).figures(name)["id"].as_u64().expect("it runs there");
        self.configs[i].data_dir.join("keyspaces").join(id.to_string())
    }

    /// Waits until all members that run show the same, and have nothing more to tell each other.
    fn converge(&self, name: &str) -> Duration {
        let begun = Instant::now();
        until("all show the same", || self.is_same(name).then_some(()));
        begun.elapsed()
    }

    fn is_same(&self, name: &str) -> bool {
        let all: Vec<Value> = self.running().into_iter().map(|i| self.api(i).figures(name)).collect();
        let same = |what: &str| all.iter().all(|one| !one[what].is_null() && one[what] == all[0][what]);
        same("digest") && same("updates") && all.iter().all(|one| one["behind"] == 0)
    }

    /// Cuts one member off from all others, or puts it back.
    fn part(&self, i: usize, cut: bool) {
        let what = if cut { "block" } else { "unblock" };
        for (from, to) in (0..self.configs.len()).filter(|j| *j != i).flat_map(|j| [(i, j), (j, i)]) {
            if self.servers[from].is_some() {
                let body = json!({what: [self.configs[to].name]}).to_string();
                assert_eq!(post_fault(&self.endpoint(from), &body).0, 200);
            }
        }
    }
}

#[test]
fn both_sides_of_a_partition_take_writes_and_come_to_show_the_same() {
    let cluster = Cluster::start(3);
    cluster.leader();
    cluster.create("feed", "causal");
    cluster.create("cache", "eventual");
    cluster.part(2, true);
    let (mut majority, mut minority) = (cluster.api(0), cluster.api(2));
    for space in ["feed", "cache"] {
        for i in 0..50 {
            let (one, other) = (format!("a{i}"), format!("b{i}"));
            majority.put(space, &one, "from the majority", &mut Session::default()).expect("taken");
            minority.put(space, &other, "from the minority", &mut Session::default()).expect("taken");
            let add = json!({"kind": "counter", "add": 1});
            majority.write(space, "visits", &add, &mut Session::default()).expect("taken");
            minority.write(space, "visits", &add, &mut Session::default()).expect("taken");
            majority.put(space, "both", "early", &mut Session::default()).expect("taken");
        }
        minority.put(space, "both", "late", &mut Session::default()).expect("taken");
        assert_eq!(majority.get(space, "b0", &mut Session::default()), Ok(Value::Null));
        assert_eq!(minority.get(space, "both", &mut Session::default()), value("late"));
    }
    cluster.part(2, false);
    for space in ["feed", "cache"] {
        cluster.converge(space);
        for i in 0..3 {
            let mut api = cluster.api(i);
            let mut get = |key: &str| api.get(space, key, &mut Session::default());
            assert_eq!(get("b49"), value("from the minority"));
            assert_eq!((get("a0"), get("both")), (value("from the majority"), value("late")));
            let path = format!("/v1/keyspaces/{space}/keys/visits?kind=counter");
            let (_, answer) = cluster.api(i).ask("GET", &path, &Session::default(), None);
            assert_eq!(answer["value"], 100, "every addition counts once: {answer}");
        }
    }
}

#[test]
fn a_session_takes_what_it_has_seen_from_member_to_member_and_waits_or_is_refused() {
    let cluster = Cluster::start(3);
    cluster.leader();
    cluster.create("feed", "causal");
    let session = &mut Session::default();
    for i in 0..20 {
        // Whoever is asked next has what was written a moment ago, or gets it.
        cluster.api(i % 3).put("feed", "count", &i.to_string(), session).expect("taken");
        assert_eq!(cluster.api((i + 1) % 3).get("feed", "count", session), value(&i.to_string()));
    }
    cluster.part(2, true);
    cluster.api(0).put("feed", "count", "more", session).expect("taken");
    let begun = Instant::now();
    let refused = cluster.api(2).get("feed", "count", session).expect_err("it cannot have it");
    assert!(refused.contains("this member lacks at least 1 updates which the session has seen"), "{refused}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "it waited for it");
    assert_eq!(cluster.api(2).get("feed", "count", &mut Session::default()), value("19"));
    assert_eq!(cluster.api(1).get("feed", "count", session), value("more"), "the others have it");
    cluster.part(2, false);
    until("the session is served again", || cluster.api(2).get("feed", "count", session).ok());
}

#[test]
fn an_answer_is_nowhere_seen_before_its_question() {
    let cluster = Cluster::start(3);
    cluster.leader();
    cluster.create("feed", "causal");
    // What the first tells the third comes late; what the second tells it comes at once.
    let delay = json!({"delay": {"n3": "300ms"}}).to_string();
    assert_eq!(post_fault(&cluster.endpoint(0), &delay).0, 200);
    let mut early = 0;
    for round in 0..5 {
        let (question, answer) = (format!("question{round}"), format!("answer{round}"));
        let session = &mut Session::default();
        cluster.api(0).put("feed", &question, "why?", session).expect("taken");
        assert_eq!(cluster.api(1).get("feed", &question, session), value("why?"));
        cluster.api(1).put("feed", &answer, "therefore", session).expect("taken");
        let mut third = cluster.api(2);
        until("the answer is there", || {
            let found = third.get("feed", &answer, &mut Session::default()).expect("answered");
            early += u64::from(found.is_null());
            (!found.is_null()).then_some(())
        });
        let found = third.get("feed", &question, &mut Session::default());
        assert_eq!(found, value("why?"), "an effect without its cause");
    }
    assert!(early > 0, "the answer never had to wait: nothing was tested");
}

#[test]
fn tokens_that_are_made_up_or_of_elsewhere_are_refused_with_the_reason() {
    let cluster = Cluster::start(1);
    cluster.leader();
    cluster.create("feed", "causal");
    cluster.create("other", "causal");
    cluster.create("cache", "eventual");
    let mut api = cluster.api(0);
    let mut session = Session::default();
    api.put("feed", "k", "v", &mut session).expect("taken");
    let token = session.0.clone().expect("a causal keyspace has sessions");
    let mut refused = |space: &str, token: &str| {
        api.get(space, "k", &mut Session(Some(token.to_owned()))).expect_err("it is not fine")
    };
    assert!(refused("other", &token).contains("each keyspace has sessions of its own"));
    assert!(refused("cache", &token).contains("an eventual keyspace has no sessions"));
    for at in [0, token.len() / 2, token.len() - 2] {
        let other = if token.as_bytes()[at] == b'1' { "2" } else { "1" };
        let mut altered = token.clone();
        altered.replace_range(at..=at, other);
        let why = refused("feed", &altered);
        assert!(why.contains("token"), "{at}: {why}");
    }
    assert!(refused("feed", "00").contains("not a session token"));
    let elsewhere = Cluster::start(1);
    elsewhere.leader();
    elsewhere.create("feed", "causal");
    let why = elsewhere.api(0).get("feed", "k", &mut Session(Some(token))).expect_err("another cluster's");
    assert!(why.contains("token"), "{why}");
}

#[test]
fn what_comes_from_a_clock_far_ahead_waits_and_a_clock_far_behind_takes_no_writes() {
    let cluster = Cluster::start(2);
    cluster.leader();
    cluster.create("feed", "causal");
    let set = |i: usize, millis: i64| {
        let (code, _) = post_fault(&cluster.endpoint(i), &json!({"clock-ahead-ms": millis}).to_string());
        assert_eq!(code, 200);
    };
    set(0, 60_000);
    until("the clock is read again", || {
        cluster.api(0).put("feed", "future", "v", &mut Session::default()).ok()?;
        cluster.said("the clock of n1 is").then_some(())
    });
    assert_eq!(cluster.api(1).get("feed", "future", &mut Session::default()), Ok(Value::Null));
    set(0, 0);
    let refused = until("its own clock is behind what it wrote", || {
        cluster.api(0).put("feed", "now", "v", &mut Session::default()).err()
    });
    assert!(refused.contains("this member's clock is") && refused.contains("set it"), "{refused}");
    cluster.api(1).put("feed", "now", "v", &mut Session::default()).expect("its clock is right");
    set(0, 60_000);
    set(1, 60_000);
    cluster.converge("feed");
}

#[test]
fn a_restarted_member_has_what_it_took_and_catches_up_with_the_rest() {
    for (model, many) in [("causal", 200), ("eventual", 200)] {
        let mut cluster = Cluster::start(3);
        cluster.leader();
        cluster.create("feed", model);
        let mut third = cluster.api(2);
        (0..20).for_each(|i| {
            third.put("feed", &format!("own{i}"), "v", &mut Session::default()).expect("taken")
        });
        cluster.down(2);
        let mut first = cluster.api(0);
        for i in 0..many {
            first.put("feed", &format!("k{i}"), "v", &mut Session::default()).expect("taken");
        }
        cluster.up(2);
        until("it runs", || (cluster.api(2).figures("feed")["standing"] == "member").then_some(()));
        let own = cluster.api(2).get("feed", "own19", &mut Session::default());
        assert_eq!(own, value("v"), "its own are there at once");
        cluster.converge("feed");
        let last = format!("k{}", many - 1);
        assert_eq!(cluster.api(2).get("feed", &last, &mut Session::default()), value("v"));
    }
}

#[test]
fn a_damaged_log_or_a_lost_one_makes_the_replica_abstain_and_the_others_go_on() {
    for corrupt in [true, false] {
        let mut cluster = Cluster::start(3);
        cluster.leader();
        cluster.create("feed", "causal");
        let mut third = cluster.api(2);
        (0..20)
            .for_each(|i| third.put("feed", &format!("k{i}"), "v", &mut Session::default()).expect("taken"));
        cluster.converge("feed");
        let directory = cluster.directory(2, "feed");
        cluster.down(2);
        match corrupt {
            true => {
                let path = directory.join("00000001.log");
                let mut bytes = fs::read(&path).expect("the log");
                // Behind the header and the first frame.
                bytes[64 + 60] ^= 0x10;
                fs::write(&path, bytes).expect("written");
            }
            false => fs::remove_dir_all(&directory).expect("removed"),
        }
        cluster.up(2);
        until("it runs", || (cluster.api(2).figures("feed")["standing"] == "damaged").then_some(()));
        let refused = cluster.api(2).get("feed", "k0", &mut Session::default()).expect_err("it abstains");
        assert!(
            refused.contains("this member's disk is damaged; remove it and start a new one"),
            "{refused}"
        );
        let said = "The keyspace `feed` is neither read nor written at this member";
        assert!(cluster.said(said), "{:?}", cluster.lines);
        cluster.api(0).put("feed", "k0", "w", &mut Session::default()).expect("the others go on");
        put_surely(&cluster.endpoint(2), "k", "v");
        // And it stays so.
        cluster.down(2);
        cluster.up(2);
        until("it runs", || (cluster.api(2).figures("feed")["standing"] == "damaged").then_some(()));
    }
}

#[test]
fn a_keyspace_goes_where_it_is_dropped_also_at_members_that_were_away() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    cluster.create("feed", "causal");
    cluster.create("cache", "eventual");
    cluster.api(0).put("feed", "k", "v", &mut Session::default()).expect("taken");
    cluster.converge("feed");
    let directories: Vec<PathBuf> = (0..3).map(|i| cluster.directory(i, "feed")).collect();
    assert!(directories.iter().all(|directory| directory.exists()));
    cluster.down(2);
    cluster.drop_keyspace("feed");
    assert!(directories[2].exists(), "who is away does not know");
    cluster.up(2);
    for (i, directory) in directories.iter().enumerate() {
        until("it is gone", || (!directory.exists()).then_some(()));
        let noted = fs::read_to_string(cluster.configs[i].data_dir.join("KEYSPACES")).expect("a file");
        assert_eq!(noted.lines().count(), 2, "the other one's: {noted}");
        until("the other runs", || (cluster.api(i).figures("cache")["standing"] == "member").then_some(()));
    }
    // One of the same name is another one.
    cluster.create("feed", "causal");
    assert_eq!(cluster.api(2).get("feed", "k", &mut Session::default()), Ok(Value::Null));
}

#[test]
fn a_member_that_is_added_catches_up_and_one_that_is_removed_is_out_for_ever() {
    let mut cluster = Cluster::start(3);
    cluster.leader();
    cluster.create("feed", "causal");
    cluster.create("cache", "eventual");
    for space in ["feed", "cache"] {
        let mut api = cluster.api(0);
        (0..100).for_each(|i| api.put(space, &format!("k{i}"), "v", &mut Session::default()).expect("taken"));
    }
    add(&mut cluster);
    for space in ["feed", "cache"] {
        until("it is a member", || (cluster.api(3).figures(space)["standing"] == "member").then_some(()));
        cluster.converge(space);
        assert_eq!(cluster.api(3).get(space, "k99", &mut Session::default()), value("v"));
        cluster.api(3).put(space, "newcomer", "v", &mut Session::default()).expect("it takes writes");
        cluster.converge(space);
    }
    let request = pb::MemberRemoveRequest { id: 1 };
    until("the first is removed", || {
        let wait = Duration::from_secs(10);
        call::<_, pb::MemberRemoveResponse>(
            &cluster.endpoint(1),
            "/etcdserverpb.Cluster/MemberRemove",
            &request,
            wait,
        )
        .ok()
    });
    let first = cluster.servers[0].take().expect("it runs");
    until("it stops", || (!first.is_running()).then_some(()));
    for (i, space) in (1..4).flat_map(|i| [(i, "feed"), (i, "cache")]) {
        until("all know", || (cluster.api(i).figures(space)["roster"] == "n2 n3 n4 -n1").then_some(()));
        assert_eq!(cluster.api(i).get(space, "k0", &mut Session::default()), value("v"));
    }
    // Without it deletes can be forgotten again.
    let delete = "/v1/keyspaces/feed/keys/k0";
    cluster.api(2).answered("DELETE", delete, &mut Session::default(), Some(&json!({}))).expect("taken");
    for i in 1..4 {
        until("the tombstone is gone", || (cluster.api(i).figures("feed")["tombstones"] == 0).then_some(()));
    }
}

/// Adds a fourth member, and starts it.
fn add(cluster: &mut Cluster) {
    let more = configs(cluster.directory.path(), 4);
    let address = more[3].members[3].clone();
    let clients = address.clients.clone().expect("one");
    let peer_urls = vec![format!("http://{},{clients}", address.peers)];
    let request = pb::MemberAddRequest { peer_urls, is_learner: false };
    let added = until("it is added", || {
        let wait = Duration::from_secs(10);
        call::<_, pb::MemberAddResponse>(
            &cluster.endpoint(0),
            "/etcdserverpb.Cluster/MemberAdd",
            &request,
            wait,
        )
        .ok()
    });
    assert_eq!(added.member.map(|member| member.id), Some(4));
    cluster.configs.push(synod_server::Config {
        name: "n4".into(),
        members: cluster.configs[0].members.clone(),
        join: vec![address],
        data_dir: cluster.directory.path().join("n4"),
        ..cluster.configs[0].clone()
    });
    cluster.servers.push(None);
    cluster.up(3);
}

#[test]
fn messages_for_a_keyspace_that_a_member_does_not_know_of_yet_are_made_up_for() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let lagging = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    // It hears of nothing that the log says, and still of what the third member says.
    let cut = json!({"block": [cluster.configs[leader].name]}).to_string();
    assert_eq!(post_fault(&cluster.endpoint(lagging), &cut).0, 200);
    let path = "/v1/keyspaces/feed";
    until("it is made", || {
        let made =
            cluster.api(other).ask("PUT", path, &Session::default(), Some(&json!({"model": "eventual"})));
        (made.0 < 300).then_some(())
    });
    until("it runs there", || (cluster.api(other).figures("feed")["standing"] == "member").then_some(()));
    for i in 0..20 {
        cluster.api(other).put("feed", &format!("k{i}"), "v", &mut Session::default()).expect("taken");
    }
    until("messages are dropped, or another leads and has told of the keyspace", || {
        let known = cluster.leader() != leader && !cluster.api(lagging).figures("feed").is_null();
        let (_, metrics) = http(&cluster.endpoint(lagging), "GET /metrics HTTP/1.0\r\n\r\n")?;
        let line = metrics.lines().find(|line| line.starts_with("synod_keyspace_messages_unknown_total "))?;
        (known || !line.ends_with(" 0")).then_some(())
    });
    let heal = json!({"unblock": [cluster.configs[leader].name]}).to_string();
    assert_eq!(post_fault(&cluster.endpoint(lagging), &heal).0, 200);
    cluster.converge("feed");
    assert_eq!(cluster.api(lagging).get("feed", "k0", &mut Session::default()), value("v"));
}

/// Writes so many updates through a few connections to these members, over so many keys.
fn write_many(cluster: &Cluster, members: &[usize], space: &str, updates: usize, keys: usize) {
    const CONNECTIONS: usize = 24;
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let endpoint = cluster.endpoint(members[connection % members.len()]);
            scope.spawn(move || {
                let mut api = Api::to(&endpoint);
                for i in (connection..updates).step_by(CONNECTIONS) {
                    let (key, value) = (format!("k{}", i % keys), format!("value {i}"));
                    api.put(space, &key, &value, &mut Session::default()).expect("taken");
                }
            });
        }
    });
}

#[test]
fn logs_stay_short_while_a_member_is_away_and_it_is_the_same_as_the_others_after_its_return() {
    const UPDATES: usize = 100_000;
    const KEYS: usize = 5_000;
    for model in ["causal", "eventual"] {
        let mut cluster = Cluster::start(3);
        cluster.leader();
        cluster.create("feed", model);
        cluster.api(2).put("feed", "k0", "before", &mut Session::default()).expect("taken");
        cluster.converge("feed");
        cluster.down(2);
        let begun = Instant::now();
        write_many(&cluster, &[0, 1], "feed", UPDATES, KEYS);
        let took = begun.elapsed();
        cluster.converge("feed");
        let figures = cluster.api(0).figures("feed");
        let number = |name: &str| figures[name].as_u64().expect("a number");
        // What is held: objects, and at the causal level the latest 65,536 updates for the one who is away.
        assert!(number("log-bytes") < 48 << 20, "{figures}");
        assert_eq!((number("updates"), number("keys")), (UPDATES as u64 + 1, KEYS as u64));
        let before = number("messages-sent");
        // One of so many connections may have been given its port meanwhile.
        until("it starts", || cluster.try_up(2).ok());
        until("it runs", || (cluster.api(2).figures("feed")["standing"] == "member").then_some(()));
        let begun = Instant::now();
        while !cluster.is_same("feed") {
            assert!(begun.elapsed() < 5 * PATIENCE, "{}", cluster.api(2).figures("feed"));
            std::thread::sleep(Duration::from_millis(50));
        }
        let back = begun.elapsed();
        let after = cluster.api(0).figures("feed")["messages-sent"].as_u64().expect("a number");
        eprintln!(
            "{model}: {UPDATES} updates in {took:?}; the same {back:?} after the return, {} messages of n1 later",
            after - before
        );
        eprintln!("{figures}");
        assert_eq!(cluster.api(2).figures("feed")["updates"], UPDATES as u64 + 1);
        let last = format!("k{}", (UPDATES - 1) % KEYS);
        let both = [0, 2].map(|i| cluster.api(i).get("feed", &last, &mut Session::default()));
        assert_eq!(both[0], both[1]);
    }
}
