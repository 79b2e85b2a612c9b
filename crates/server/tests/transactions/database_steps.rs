//! A transfer between a PostgreSQL database and a keyspace of three processes, struck at each statement that matters: before the database
//! hears of it, and when it has done it and nobody knows. There the leader or the database is killed with `kill -9`, or the connection breaks.

use super::database::Server;
use super::databases::{Ledger, payment};
use super::pair::{first, is_true, open};
use super::proxy::{Cut, Proxy};
use super::*;
use common::processes::Processes;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    /// The leader of the coordinator's cluster; the others end it.
    KillLeader,
    /// The database, which comes back.
    KillDatabase,
    /// The connection.
    Break,
    /// The leader, whose statement comes to the database when another one leads.
    Ghost,
}

/// How it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Commit,
    Abort,
    /// It was not decided, and may end either way.
    Either,
}

use Must::{Abort, Commit, Either};
use Strike::{Break, Ghost, KillDatabase, KillLeader};

type Step = (&'static str, Cut, &'static [(Strike, Must)]);

const UNDECIDED: &[(Strike, Must)] = &[(KillLeader, Abort), (KillDatabase, Either), (Break, Either)];
const COMMITTED: &[(Strike, Must)] = &[(KillLeader, Commit), (KillDatabase, Commit), (Break, Commit)];
const ABORTED: &[(Strike, Must)] = &[(KillLeader, Abort), (KillDatabase, Abort), (Break, Abort)];

const STEPS: &[Step] = &[
    ("PREPARE TRANSACTION", Cut::Before, UNDECIDED),
    ("PREPARE TRANSACTION", Cut::Before, &[(Ghost, Abort)]),
    ("PREPARE TRANSACTION", Cut::AfterAnswer, UNDECIDED),
    ("COMMIT PREPARED", Cut::Before, COMMITTED),
    ("COMMIT PREPARED", Cut::Before, &[(Ghost, Commit)]),
    ("COMMIT PREPARED", Cut::AfterAnswer, COMMITTED),
    (ROLLBACK, Cut::Before, ABORTED),
    (ROLLBACK, Cut::AfterAnswer, &[(KillLeader, Abort)]),
];

/// What the database hears if the keyspace refuses after the database has promised.
const ROLLBACK: &str = "ROLLBACK PREPARED";

/// What both accounts hold together.
const WHOLE: i64 = 1_100;

/// Strikes whose name has the text of this variable are carried out and no others.
const ONLY: &str = "SYNOD_STEPS_ONLY";

#[test]
fn a_transfer_with_a_database_is_struck_at_each_statement() {
    let only = std::env::var(ONLY).unwrap_or_default();
    let Some(mut scene) = Scene::start() else { return };
    for (at, cut, strikes) in STEPS {
        for (strike, must) in *strikes {
            let name = format!("{cut:?} {at} {strike:?}");
            if name.contains(&only) {
                // Seen if the test fails, with the one that it failed at as the last.
                println!("{name} ({ONLY}='{name}' carries out this one alone)");
                let begun = Instant::now();
                let ended = scene.strike((at, *cut), *strike, *must);
                println!("  {ended} after {:.1} s", begun.elapsed().as_secs_f64());
            }
        }
    }
}

/// The way to the database, on a thread of its own.
struct Wire {
    proxy: Arc<Proxy>,
    over: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    fn to(port: u16) -> Wire {
        let (over, is_over) = oneshot::channel();
        let (tell, known) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                tell.send(Arc::new(Proxy::start(port))).expect("it is waited for");
                let _ = is_over.await;
            });
        });
        Wire { proxy: known.recv().expect("a wire"), over: Some(over), thread: Some(thread) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.over.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Scene {
    cluster: Processes,
    endpoints: Vec<String>,
    wire: Wire,
    ledger: Ledger,
}

impl Scene {
    fn start() -> Option<Scene> {
        let ledger = Ledger::open()?;
        let wire = Wire::to(ledger.server.port());
        let cluster = Processes::start("raft", 3);
        cluster.lead();
        let endpoints = cluster.endpoints();
        bank(&endpoints[0], "bank1", &["x"]);
        let form = json!({"kind": "postgres", "url": Server::url_at(wire.proxy.port(), "bank")});
        let made = surely(&endpoints[0], "PUT", "/v1/participants/ledger", &form);
        assert_eq!(made.status, 201, "{made:?}");
        Some(Scene { cluster, endpoints, wire, ledger })
    }

    fn strike(&mut self, (at, cut): (&'static str, Cut), strike: Strike, must: Must) -> &'static str {
        let before = self.rest();
        let mut body = payment(1);
        if at == ROLLBACK {
            body["branches"][1]["work"] = json!([add("x", -WHOLE)]);
        }
        let (client, still) = until("the transaction comes to this statement", || {
            let still = self.wire.proxy.stop(cut, at);
            let (endpoint, body) = (self.endpoints[self.cluster.lead()].clone(), body.clone());
            let client = std::thread::spawn(move || follow(&endpoint, "POST", "/v1/transactions", &body));
            first(&still.stands, || client.is_finished())?;
            Some((client, still))
        });
        match strike {
            KillLeader | Ghost => self.cluster.kill(self.cluster.lead()),
            KillDatabase => self.ledger.server.kill(),
            Break => {}
        }
        if strike == Ghost {
            self.cluster.lead();
            until("the next leader has begun", || open(&self.endpoints));
            still.let_through();
        } else {
            drop(still);
        }
        if strike == KillDatabase {
            self.ledger.server.up();
        }
        let answer = client.join().expect("no panic");
        let after = self.rest();
        self.cluster.heal();

        let committed = after == (before.0 - 1, before.1 + 1);
        assert!(committed || after == before, "{before:?} became {after:?}");
        match must {
            Commit => assert!(committed, "it was decided: {before:?} became {after:?}, {answer:?}"),
            Abort => assert!(!committed, "it was not decided: {before:?} became {after:?}, {answer:?}"),
            Either => {}
        }
        assert!(is_true(answer.as_ref(), committed), "committed: {committed}, but {answer:?}");
        let alone = (self.ledger.balance(), value(&self.endpoints[self.cluster.lead()], "bank1", "x"));
        assert_eq!(alone, (after.0, json!(after.1.to_string())), "what each of the two itself shows");
        if committed { "committed" } else { "aborted" }
    }

    /// Waits until all is over: what both accounts hold then.
    fn rest(&self) -> (i64, i64) {
        self.cluster.lead();
        let read = || {
            let (a, x) = until("both accounts can be read", || self.read());
            assert_eq!(a + x, WHOLE, "money is gone or made");
            (a, x)
        };
        // After it both sides have met what was left there, so that nothing is open that is not shown.
        read();
        self.settle();
        let found = read();
        // The read itself.
        self.settle();
        found
    }

    fn settle(&self) {
        until("nothing is open, and no lock is held", || open(&self.endpoints)?.is_empty().then_some(()));
        until("nothing is prepared", || (self.ledger.in_doubt() == 0).then_some(()));
    }

    /// Both accounts, as one transaction sees them; nothing if something is in its way.
    fn read(&self) -> Option<(i64, i64)> {
        let sql = "select balance from accounts where name = 'a' for share";
        let body = json!({"branches": [
            {"participant": "ledger", "work": [{"sql": sql, "rows": 1}]},
            {"participant": "bank1", "work": [{"get": {"key": "x"}}]},
        ], "timeout-ms": 1_000});
        let ask = |endpoint: &String| follow(endpoint, "POST", "/v1/transactions", &body);
        let read = self.endpoints.iter().filter_map(ask).find(|read| read.status == 200)?.json();
        (read["decision"] == "commit").then_some(())?;
        let found: Value = serde_json::from_str(read["answers"]["ledger"][0].as_str()?).expect("JSON");
        let balance = found[0]["values"][0]["balance"].as_i64().expect("a balance");
        Some((balance, read["answers"]["bank1"][0].as_str()?.parse().ok()?))
    }
}
