//! PostgreSQL as a participant of two-phase commit: a real server, which is killed, and a real coordinator, which dies.

#[path = "outside/coordinator.rs"]
mod coordinator;
#[path = "outside/database.rs"]
mod database;
#[path = "outside/proxy.rs"]
mod proxy;

use bytes::Bytes;
use coordinator::{Death, Journal, Running};
use database::{PASSWORD, Server};
use proxy::{Cut, Proxy};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use synod_protocols::commit::{
    AbortReason, ByHand, CannotResolve, CoordinatorRecord, Decision, Message, Outcome, Refusal, Stamp, TxnId,
    Vote,
};
use synod_protocols::{Describe, NodeId, Rng};
use synod_server::outside::{Cannot, Damage, Postgres, Timing};
use tokio_postgres::Client;

const COORDINATOR: NodeId = NodeId(0x51);
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const PREPARES: &str = "max_prepared_transactions=64";
const PATIENCE: Duration = Duration::from_secs(60);

/// Two banks in two databases of one server. In each, a has 1,000 and b nothing.
struct Banks {
    server: Server,
    agents: BTreeMap<NodeId, Arc<Postgres>>,
    clients: BTreeMap<NodeId, Client>,
}

impl Banks {
    async fn start() -> Option<Banks> {
        let server = Server::start(&[PREPARES])?;
        for bank in ["bank1", "bank2"] {
            server.create_bank(bank, &[("a", 1_000), ("b", 0)]).await;
        }
        let mut banks = Banks { server, agents: BTreeMap::new(), clients: BTreeMap::new() };
        banks.connect().await;
        for agent in banks.agents.values() {
            agent.register().await.expect("it can be a participant");
        }
        Some(banks)
    }

    /// New agents, as on another member, and new connections of the test's own.
    async fn connect(&mut self) {
        for (id, bank) in [(ONE, "bank1"), (TWO, "bank2")] {
            self.agents.insert(id, Arc::new(agent(&self.server.url(bank), id)));
            self.clients.insert(id, self.server.connect(bank).await);
        }
    }

    fn one(&self) -> &Postgres {
        &self.agents[&ONE]
    }

    async fn balance(&self, bank: NodeId, account: &str) -> i64 {
        let sql = "SELECT balance FROM accounts WHERE name = $1";
        self.clients[&bank].query_one(sql, &[&account]).await.expect("an account").get(0)
    }

    async fn in_doubt(&self) -> usize {
        let mut count = 0;
        for agent in self.agents.values() {
            let begun = Instant::now();
            // Its connection may have been one of those that are cut on purpose.
            let found = loop {
                match agent.in_doubt().await {
                    Ok(found) => break found,
                    Err(error) => assert!(begun.elapsed() < PATIENCE, "it does not answer: {error}"),
                }
            };
            count += found.len();
        }
        count
    }

    async fn until_nothing_is_in_doubt(&self) {
        let begun = Instant::now();
        while self.in_doubt().await > 0 {
            assert!(begun.elapsed() < PATIENCE, "transactions stay in doubt");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn agent(url: &str, id: NodeId) -> Postgres {
    Postgres::new(url, id, Timing::default()).expect("an address")
}

fn add(account: &str, amount: i64) -> Bytes {
    let sql = "update accounts set balance = balance + $1 where name = $2 returning balance";
    let work = serde_json::json!([{"sql": sql, "parameters": [amount.to_string(), account], "rows": 1}]);
    Bytes::from(work.to_string())
}

/// $100 from a at the first bank to b at the second.
fn transfer() -> BTreeMap<NodeId, Bytes> {
    BTreeMap::from([(ONE, add("a", -100)), (TWO, add("b", 100))])
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(4 * PATIENCE, test).await.expect("the test ends") });
}

/// Messages of a coordinator that is in this life, with this number of its first transaction that is not over.
#[derive(Clone, Copy)]
struct Says {
    epoch: u64,
    floor: u64,
}

const SAYS: Says = Says { epoch: 1, floor: 1 };

impl Says {
    fn txn(self, number: u64) -> TxnId {
        TxnId { coordinator: COORDINATOR, epoch: self.epoch, number }
    }

    fn stamp(self) -> Stamp {
        Stamp { epoch: self.epoch, floor: self.txn(self.floor) }
    }

    fn prepare(self, number: u64, work: &Bytes) -> Message {
        let (stamp, txn) = (self.stamp(), self.txn(number));
        let (addresses, peers, work) = (vec![COORDINATOR], Vec::new(), Some(work.clone()));
        Message::Prepare { stamp, txn, addresses, peers, life: 0, work }
    }

    fn one_phase(self, number: u64, work: &Bytes) -> Message {
        Message::OnePhase { stamp: self.stamp(), txn: self.txn(number), life: 0, work: Some(work.clone()) }
    }

    fn work(self, number: u64, sequence: u64, work: &Bytes) -> Message {
        let (stamp, txn, work) = (self.stamp(), self.txn(number), work.clone());
        Message::Work { stamp, txn, sequence, addresses: vec![COORDINATOR], work }
    }

    fn decide(self, number: u64, decision: Decision) -> Message {
        Message::Decide { stamp: self.stamp(), txn: self.txn(number), decision }
    }
}

/// One message, and the one answer to it, if any.
async fn say(agent: &Postgres, message: Message) -> Option<Message> {
    let mut answers = agent.handle(COORDINATOR, message).await;
    assert!(answers.len() <= 1, "more than one answer: {answers:?}");
    answers.pop()
}

fn is_yes(answer: &Option<Message>) -> bool {
    matches!(answer, Some(Message::Vote { vote: Vote::Yes { .. }, .. }))
}

/// Why the vote, or the only participant's decision, is no.
fn no(answer: Option<Message>) -> Refusal {
    match answer {
        Some(
            Message::Vote { vote: Vote::No { why }, .. }
            | Message::Finished { outcome: Outcome::Aborted { why }, .. },
        ) => why,
        other => panic!("not a no: {other:?}"),
    }
}

/// The same, in words.
fn why(answer: Option<Message>) -> String {
    no(answer).detail()
}

#[test]
fn a_transfer_between_two_databases_commits_and_its_answers_say_what_was_read() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        let coordinator = Running::start(COORDINATOR, &Journal::default(), &banks.agents, None);
        let outcome = coordinator.transact(transfer()).await.expect("it lives");
        assert_eq!(outcome.decision, Decision::Commit, "{:?}", outcome.why);
        assert_eq!(outcome.answers[&ONE], r#"[{"rows":1,"values":[{"balance":900}]}]"#);
        banks.until_nothing_is_in_doubt().await;
        assert_eq!((banks.balance(ONE, "a").await, banks.balance(TWO, "b").await), (900, 100));

        // One participant decides alone.
        let alone = BTreeMap::from([(ONE, add("b", 7))]);
        assert_eq!(coordinator.transact(alone).await.expect("it lives").decision, Decision::Commit);
        assert_eq!(banks.balance(ONE, "b").await, 7);
    });
}

#[test]
fn what_comes_twice_or_late_changes_nothing_and_is_answered_the_same() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        let (one, work) = (banks.one(), add("a", -100));
        let yes = say(one, SAYS.prepare(1, &work)).await;
        assert!(is_yes(&yes), "{yes:?}");
        assert_eq!(say(one, SAYS.prepare(1, &work)).await, yes, "the same vote, and the same answer");
        let ack = Some(Message::Ack { txn: SAYS.txn(1) });
        assert_eq!(say(one, SAYS.decide(1, Decision::Commit)).await, ack);
        assert_eq!(say(one, SAYS.decide(1, Decision::Commit)).await, ack);
        assert_eq!(no(say(one, SAYS.prepare(1, &work)).await), Refusal::Over);

        // A rollback that overtakes its Prepare.
        assert_eq!(say(one, SAYS.decide(2, Decision::Abort)).await, None);
        assert_eq!(no(say(one, SAYS.prepare(2, &work)).await), Refusal::Over);

        // A rollback after the vote.
        assert!(is_yes(&say(one, SAYS.prepare(3, &work)).await));
        assert_eq!(say(one, SAYS.decide(3, Decision::Abort)).await, None);
        assert_eq!(no(say(one, SAYS.prepare(3, &work)).await), Refusal::Over);

        // A decision of one's own is made once, and remembered by whoever comes after.
        let finished = say(one, SAYS.one_phase(4, &work)).await;
        assert!(matches!(&finished, Some(Message::Finished { outcome: Outcome::Committed { .. }, .. })));
        let another = agent(&banks.server.url("bank1"), ONE);
        assert_eq!(say(&another, SAYS.one_phase(4, &work)).await, finished);
        assert_eq!(banks.balance(ONE, "a").await, 800, "two of four were to happen, once each");

        // Three at the same moment are one: the others are not answered, and would be asked again.
        let at_once = tokio::join!(
            say(one, SAYS.prepare(5, &work)),
            say(one, SAYS.prepare(5, &work)),
            say(one, SAYS.decide(5, Decision::Abort))
        );
        assert!(is_yes(&at_once.0) && at_once.1.is_none() && at_once.2.is_none(), "{at_once:?}");
        say(one, SAYS.decide(5, Decision::Abort)).await;

        // Two agents at the same moment: the mark lets the second wait for the end of the first.
        let at_once = tokio::join!(
            say(one, SAYS.one_phase(6, &add("a", -1))),
            say(&another, SAYS.one_phase(6, &add("a", -1)))
        );
        let (first, second) = (at_once.0.or(at_once.1.clone()), at_once.1);
        assert!(
            matches!(&first, Some(Message::Finished { outcome: Outcome::Committed { .. }, .. })),
            "{first:?}"
        );
        assert!(second.is_none() || second == first, "{second:?}");
        assert_eq!(say(&another, SAYS.one_phase(6, &add("a", -1))).await, first);
        assert_eq!(banks.balance(ONE, "a").await, 799);

        // A new agent knows of a commit by the mark alone.
        assert_eq!(say(&another, SAYS.decide(1, Decision::Commit)).await, ack);
        assert_eq!(banks.in_doubt().await, 0);
    });
}

#[test]
fn refusals_say_why_and_nothing_is_half_done() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        let one = banks.one();
        let work = |work: serde_json::Value| Bytes::from(work.to_string());
        let sql = |sql: &str| work(serde_json::json!([{ "sql": sql }]));
        let half = serde_json::json!([
            {"sql": "update accounts set balance = balance + 1 where name = 'b'"},
            {"sql": "update accounts set balance = 5 where name = 'nobody'", "rows": 1},
        ]);
        let cases = [
            (add("a", -1_001), "no_overdraft"),
            (add("nobody", 1), "found 0 rows and not 1"),
            (work(half), "statement 2 found 0 rows and not 1"),
            (sql("selectt 1"), "begins with one of SELECT"),
            (sql("COMMIT"), "not with \"COMMIT\""),
            (sql("select 1; commit"), "multiple commands"),
            (sql("select * from generate_series(1, 2000)"), "ask for less"),
            (sql("select * from missing"), "does not exist"),
            (sql("select $1::text"), "takes 1 parameters and got 0"),
            (sql("select pg_sleep(3)"), "nobody may take that long"),
            (work(serde_json::json!({"sql": "select 1"})), "is not understood"),
            (work(serde_json::json!([])), "has 1 to"),
            (work(serde_json::json!([{"sql": "select $1::int", "parameters": [{}]}])), "a parameter is text"),
        ];
        for (number, (work, reason)) in (1..).zip(&cases) {
            let said = why(say(one, SAYS.prepare(number, work)).await);
            assert!(said.contains(reason), "{said}");
            assert!(!said.contains('\n'), "on one line: {said}");
            let said = why(say(one, SAYS.one_phase(100 + number, work)).await);
            assert!(said.contains(reason), "{said}");
            // For good.
            assert_eq!(no(say(one, SAYS.prepare(number, &add("b", 1))).await), Refusal::Over);
            assert!(why(say(one, SAYS.one_phase(100 + number, &add("b", 1))).await).contains(reason));
        }

        // What another transaction has locked is not waited for longer than a moment.
        assert!(is_yes(&say(one, SAYS.prepare(50, &add("a", -100))).await));
        let said = why(say(one, SAYS.prepare(51, &add("a", -100))).await);
        assert!(said.contains("holds the lock: try again"), "{said}");
        say(one, SAYS.decide(50, Decision::Abort)).await;
        assert!(is_yes(&say(one, SAYS.prepare(52, &add("a", -100))).await), "the lock is free");
        say(one, SAYS.decide(52, Decision::Abort)).await;

        assert_eq!((banks.balance(ONE, "a").await, banks.balance(ONE, "b").await), (1_000, 0));
        assert_eq!(banks.in_doubt().await, 0);
    });
}

#[test]
fn a_coordinator_that_dies_between_votes_and_decision_leaves_locks_until_the_next_aborts() {
    run(async {
        let Some(mut banks) = Banks::start().await else { return };
        let journal = Journal::default();
        let coordinator = Running::start(COORDINATOR, &journal, &banks.agents, Some(Death::BeforeDecision));
        assert!(coordinator.transact(transfer()).await.is_none(), "it is dead");
        coordinator.until_dead().await;
        assert_eq!(banks.in_doubt().await, 2, "both have promised");
        let said = why(say(banks.one(), SAYS.prepare(9, &add("a", 1))).await);
        assert!(said.contains("holds the lock"), "{said}");

        // Another member takes over, with agents of its own.
        banks.connect().await;
        let _coordinator = Running::start(COORDINATOR, &journal, &banks.agents, None);
        banks.until_nothing_is_in_doubt().await;
        assert_eq!((banks.balance(ONE, "a").await, banks.balance(TWO, "b").await), (1_000, 0));
    });
}

#[test]
fn a_coordinator_that_dies_after_its_decision_is_finished_by_the_next() {
    run(async {
        let Some(mut banks) = Banks::start().await else { return };
        let journal = Journal::default();
        let coordinator = Running::start(COORDINATOR, &journal, &banks.agents, Some(Death::AfterDecision));
        assert!(coordinator.transact(transfer()).await.is_none(), "it is dead");
        coordinator.until_dead().await;
        assert_eq!(banks.in_doubt().await, 2);

        // The database dies as well, and comes back with what it has promised.
        banks.server.kill();
        banks.server.up();
        banks.connect().await;
        assert_eq!(banks.in_doubt().await, 2);
        let _coordinator = Running::start(COORDINATOR, &journal, &banks.agents, None);
        banks.until_nothing_is_in_doubt().await;
        assert_eq!((banks.balance(ONE, "a").await, banks.balance(TWO, "b").await), (900, 100));
    });
}

#[test]
fn a_killed_server_keeps_its_promises_and_its_agent_finds_it_again() {
    run(async {
        let Some(mut banks) = Banks::start().await else { return };
        assert!(is_yes(&say(banks.one(), SAYS.prepare(1, &add("a", -100))).await));
        banks.server.kill();
        let ack = Some(Message::Ack { txn: SAYS.txn(1) });
        assert_eq!(
            say(banks.one(), SAYS.decide(1, Decision::Commit)).await,
            None,
            "nobody is there to commit"
        );
        let trouble = banks.one().trouble().expect("it says why");
        assert!(trouble.contains("cannot be reached"), "{trouble}");
        // Nothing new can be promised, and that is said at once.
        let said = why(say(banks.one(), SAYS.prepare(2, &add("a", -100))).await);
        assert!(said.contains("cannot be reached"), "{said}");
        assert_eq!(
            say(banks.one(), SAYS.prepare(1, &add("a", -100))).await,
            None,
            "a promise is not taken back"
        );

        banks.server.up();
        assert_eq!(say(banks.one(), SAYS.decide(1, Decision::Commit)).await, ack);
        assert_eq!(banks.one().trouble(), None);
        banks.connect().await;
        assert_eq!(banks.balance(ONE, "a").await, 900);
    });
}

#[test]
fn a_connection_that_is_lost_at_the_worst_moments_is_looked_into() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        let work = add("a", -100);
        let proxy = Proxy::start(banks.server.port());
        let one = agent(&Server::url_at(proxy.port(), "bank1"), ONE);

        // The promise is made, and the answer is lost.
        proxy.cut(Cut::AfterAnswer, "PREPARE TRANSACTION");
        assert!(is_yes(&say(&one, SAYS.prepare(1, &work)).await), "{:?}", one.trouble());
        // The commit is made, and the answer is lost.
        proxy.cut(Cut::AfterAnswer, "COMMIT PREPARED");
        let ack = Some(Message::Ack { txn: SAYS.txn(1) });
        assert_eq!(say(&one, SAYS.decide(1, Decision::Commit)).await, None, "it is not known");
        assert_eq!(say(&one, SAYS.decide(1, Decision::Commit)).await, ack);
        assert_eq!(banks.balance(ONE, "a").await, 900);

        // The promise is never asked for: nothing is said, and asked again the work is done anew.
        proxy.cut(Cut::Before, "PREPARE TRANSACTION");
        assert_eq!(say(&one, SAYS.prepare(2, &work)).await, None);
        assert_eq!(banks.in_doubt().await, 0);
        assert!(is_yes(&say(&one, SAYS.prepare(2, &work)).await), "{:?}", one.trouble());
        proxy.cut(Cut::Before, "COMMIT PREPARED");
        assert_eq!(say(&one, SAYS.decide(2, Decision::Commit)).await, None);
        assert_eq!(banks.balance(ONE, "a").await, 900);
        say(&one, SAYS.decide(2, Decision::Commit)).await.expect("acknowledged");
        assert_eq!(banks.balance(ONE, "a").await, 800);

        // In one phase, before and after.
        for (number, cut) in [(3, Cut::AfterAnswer), (4, Cut::Before)] {
            proxy.cut(cut, "COMMIT");
            let mut finished = say(&one, SAYS.one_phase(number, &work)).await;
            if finished.is_none() {
                finished = say(&one, SAYS.one_phase(number, &work)).await;
            }
            assert!(
                matches!(&finished, Some(Message::Finished { outcome: Outcome::Committed { .. }, .. })),
                "{cut:?}: {finished:?}"
            );
        }
        assert_eq!(banks.balance(ONE, "a").await, 600, "each of four once");

        // In the middle of the work nothing is promised.
        proxy.cut(Cut::Before, "update accounts");
        let fresh = agent(&Server::url_at(proxy.port(), "bank1"), ONE);
        assert!(matches!(no(say(&fresh, SAYS.prepare(5, &work)).await), Refusal::Declined { .. }));
        assert_eq!((banks.in_doubt().await, banks.balance(ONE, "a").await), (0, 600));
    });
}

#[test]
fn what_was_rolled_back_by_hand_is_never_taken_for_committed() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        assert!(is_yes(&say(banks.one(), SAYS.prepare(1, &add("a", -100))).await));
        assert_eq!(banks.one().lost(), []);
        let gid: String = banks.clients[&ONE]
            .query_one("SELECT gid FROM pg_prepared_xacts", &[])
            .await
            .expect("one")
            .get(0);
        banks.clients[&ONE].batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).await.expect("rolled back");
        for _ in 0..2 {
            assert_eq!(say(banks.one(), SAYS.decide(1, Decision::Commit)).await, None);
        }
        assert_eq!(banks.one().lost(), [SAYS.txn(1)]);
        let news = Damage { txn: SAYS.txn(1), here: None, decided: Decision::Commit };
        assert_eq!(banks.one().take_news(), [news], "once, although it was said twice");
        let trouble = banks.one().trouble().expect("it says so");
        assert!(trouble.contains("neither prepared nor marked") && !trouble.contains(PASSWORD), "{trouble}");
        assert_eq!(banks.balance(ONE, "a").await, 1_000);
    });
}

#[test]
fn a_guess_of_a_persons_is_kept_until_the_coordinator_confirms_it_or_it_is_damage() {
    run(async {
        use Decision::{Abort, Commit};
        let Some(banks) = Banks::start().await else { return };
        let (one, work) = (banks.one(), add("a", -100));
        let noted = |number: u64, decision, is_damage| ByHand { txn: SAYS.txn(number), decision, is_damage };
        let over = |decision| Ok(Err(CannotResolve::Over { decision }));
        for (number, guess) in [(1, Commit), (2, Commit), (3, Abort), (4, Abort)] {
            assert!(is_yes(&say(one, SAYS.prepare(number, &work)).await), "{:?}", one.trouble());
            let in_doubt = one.in_doubt().await.expect("it answers");
            assert_eq!((in_doubt.len(), &in_doubt[0].locks[..]), (1, &["accounts".to_owned()][..]));
            assert_eq!(one.resolve(SAYS.txn(number), guess).await, Ok(Ok(())));
            assert_eq!(
                one.resolve(SAYS.txn(number), Commit).await,
                over(guess),
                "it is not in doubt any more"
            );
            // Nobody is told by a guess.
            assert_eq!(say(one, Message::Ask { txn: SAYS.txn(number), life: 0 }).await, None);
        }
        assert_eq!(one.resolve(SAYS.txn(9), Abort).await, Ok(Err(CannotResolve::Unknown)));
        assert_eq!(banks.balance(ONE, "a").await, 800);
        let all = [
            noted(1, Commit, false),
            noted(2, Commit, false),
            noted(3, Abort, false),
            noted(4, Abort, false),
        ];
        // Any agent knows.
        let another = agent(&banks.server.url("bank1"), ONE);
        assert_eq!(another.by_hand().await.as_deref(), Ok(&all[..]));
        // A coordinator that has not heard the vote may still commit what is committed here.
        assert!(is_yes(&say(&another, SAYS.prepare(1, &work)).await));
        assert_eq!(no(say(&another, SAYS.prepare(3, &work)).await), Refusal::Over);

        // Two were right.
        let ack = |number: u64| Some(Message::Ack { txn: SAYS.txn(number) });
        assert_eq!(say(&another, SAYS.decide(1, Commit)).await, ack(1));
        assert_eq!(say(&another, SAYS.decide(3, Abort)).await, None);
        assert_eq!(
            one.by_hand().await.as_deref(),
            Ok(&[noted(2, Commit, false), noted(4, Abort, false)][..])
        );
        assert_eq!(another.take_news(), []);
        // And two wrong: the commit is acknowledged, since it was heard. The abort is of a later life, whose floor has passed the mark.
        let later = Says { epoch: 1, floor: 300 };
        let late = Message::Decide { stamp: later.stamp(), txn: SAYS.txn(2), decision: Abort };
        for _ in 0..2 {
            assert_eq!(say(&another, SAYS.decide(4, Commit)).await, ack(4));
        }
        for _ in 0..2 {
            assert_eq!(say(&another, late.clone()).await, None);
        }
        let news = |number: u64, here, decided| Damage { txn: SAYS.txn(number), here: Some(here), decided };
        assert_eq!(another.take_news(), [news(4, Abort, Commit), news(2, Commit, Abort)]);
        assert_eq!(one.by_hand().await.as_deref(), Ok(&[noted(2, Commit, true), noted(4, Abort, true)][..]));
        assert_eq!((another.take_news(), banks.balance(ONE, "a").await), (Vec::new(), 800));

        // With SQL there is no guess, but a mark.
        assert!(is_yes(&say(one, later.prepare(300, &work)).await));
        let sql = format!("COMMIT PREPARED 'synod/{:x}/1.300/1'", COORDINATOR.0);
        banks.clients[&ONE].batch_execute(&sql).await.expect("committed");
        assert_eq!(say(one, later.decide(300, Abort)).await, None);
        assert_eq!(one.take_news(), [news(300, Commit, Abort)]);
        assert_eq!(one.lost(), []);
    });
}

#[test]
fn an_earlier_life_of_the_coordinator_is_fenced_and_what_is_over_is_forgotten() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        let one = banks.one();
        let (old, work) = (Says { epoch: 3, floor: 1 }, add("a", -1));
        let new = Says { epoch: 4, floor: 1 };
        assert!(is_yes(&say(one, old.prepare(1, &work)).await));
        assert!(is_yes(&say(one, new.prepare(1, &add("b", 1))).await));
        // Another agent, which has heard of nobody: the fence is in the database.
        let another = agent(&banks.server.url("bank1"), ONE);
        let fenced = Some(Message::Fenced { coordinator: COORDINATOR, epoch: 4 });
        assert_eq!(say(&another, old.prepare(2, &work)).await, fenced);
        assert_eq!(say(&another, old.one_phase(3, &work)).await, fenced);
        assert_eq!(say(&another, old.work(4, 0, &work)).await, fenced);
        assert_eq!(say(&another, old.decide(1, Decision::Commit)).await, fenced);
        assert_eq!(banks.in_doubt().await, 2);
        // The later life ends what the earlier one has left, though its floor is above that.
        let abort = Message::Decide { stamp: new.stamp(), txn: old.txn(1), decision: Decision::Abort };
        assert_eq!(say(one, abort).await, None);
        say(one, new.decide(1, Decision::Commit)).await.expect("acknowledged");
        assert_eq!((banks.in_doubt().await, banks.balance(ONE, "a").await), (0, 1_000));

        // Three hundred later, what is below the floor is neither remembered nor begun again.
        let later = Says { epoch: 4, floor: 300 };
        assert!(is_yes(&say(one, later.prepare(300, &work)).await));
        say(one, later.decide(300, Decision::Commit)).await.expect("acknowledged");
        let marks: i64 = banks.clients[&ONE]
            .query_one("SELECT count(*) FROM synod_transactions", &[])
            .await
            .expect("a count")
            .get(0);
        assert_eq!(marks, 1);
        assert_eq!(say(one, new.prepare(1, &work)).await, None);
        assert_eq!(say(one, new.one_phase(1, &work)).await, None);
        let ack = Some(Message::Ack { txn: new.txn(1) });
        assert_eq!(
            say(one, new.decide(1, Decision::Commit)).await,
            ack,
            "it was, or the floor would be lower"
        );
    });
}

#[test]
fn work_piece_by_piece_is_one_transaction_and_lost_with_its_agent() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        let one = banks.one();
        let prepare = |number: u64, life: u64| {
            let (stamp, txn) = (SAYS.stamp(), SAYS.txn(number));
            Message::Prepare { stamp, txn, addresses: vec![], peers: vec![], life, work: None }
        };
        let life = |answer: Option<Message>| match answer {
            Some(Message::Worked { life, .. }) => life,
            other => panic!("not worked: {other:?}"),
        };
        life(say(one, SAYS.work(1, 0, &add("a", -100))).await);
        let its = life(say(one, SAYS.work(1, 1, &add("b", 100))).await);
        life(say(one, SAYS.work(1, 1, &add("b", 100))).await);
        assert_eq!(banks.balance(ONE, "a").await, 1_000, "nobody sees it yet");
        assert!(is_yes(&say(one, prepare(1, its)).await), "{:?}", one.trouble());
        say(one, SAYS.decide(1, Decision::Commit)).await.expect("acknowledged");
        assert_eq!((banks.balance(ONE, "a").await, banks.balance(ONE, "b").await), (900, 100));

        // What has changed nothing is over with its vote, and nobody is told that it never voted.
        let read = Bytes::from(r#"[{"sql":"select balance from accounts"}]"#);
        let its = life(say(one, SAYS.work(2, 0, &read)).await);
        for _ in 0..2 {
            let vote = say(one, prepare(2, its)).await;
            assert!(matches!(vote, Some(Message::Vote { vote: Vote::ReadOnly, .. })), "{vote:?}");
        }
        assert_eq!(say(one, Message::Ask { txn: SAYS.txn(2), life: its }).await, None);

        // Another agent has not done the work.
        let its = life(say(one, SAYS.work(3, 0, &add("a", -100))).await);
        let another = agent(&banks.server.url("bank1"), ONE);
        assert_eq!(no(say(&another, prepare(3, its)).await), Refusal::Over);
        assert_eq!(no(say(&another, SAYS.work(3, 1, &read)).await), Refusal::Over);
        say(one, SAYS.decide(3, Decision::Abort)).await;

        // A refused piece undoes those before it.
        life(say(one, SAYS.work(4, 0, &add("a", -100))).await);
        assert!(why(say(one, SAYS.work(4, 1, &add("nobody", 1))).await).contains("found 0 rows"));
        assert_eq!(no(say(one, prepare(4, its)).await), Refusal::Over);
        assert!(is_yes(&say(one, SAYS.prepare(5, &add("a", -1))).await), "no lock is left");
        say(one, SAYS.decide(5, Decision::Abort)).await;
        assert_eq!((banks.balance(ONE, "a").await, banks.in_doubt().await), (900, 0));
    });
}

#[test]
fn another_participant_that_asks_is_told_what_is_known_and_binds_who_has_not_voted() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        let (one, work) = (banks.one(), add("a", -100));
        let ask = |number: u64| Message::Ask { txn: SAYS.txn(number), life: 0 };
        let tell = |number: u64, decision: Decision| Message::Tell { txn: SAYS.txn(number), decision };
        assert!(is_yes(&say(one, SAYS.prepare(1, &work)).await));
        assert_eq!(say(one, ask(1)).await, None, "it does not know either");
        assert_eq!(say(one, tell(1, Decision::Abort)).await, None);
        assert_eq!(banks.in_doubt().await, 1, "only those may tell who take part");
        say(one, SAYS.decide(1, Decision::Commit)).await.expect("acknowledged");
        assert_eq!(say(one, ask(1)).await, Some(tell(1, Decision::Commit)));

        assert_eq!(say(one, ask(2)).await, Some(tell(2, Decision::Abort)));
        assert_eq!(no(say(one, SAYS.prepare(2, &work)).await), Refusal::Over, "it has said abort");

        let Message::Prepare { stamp, txn, addresses, life, work, .. } = SAYS.prepare(3, &work) else {
            return;
        };
        let peers = vec![synod_protocols::commit::Peer { id: TWO, life: 0 }];
        assert!(is_yes(&say(one, Message::Prepare { stamp, txn, addresses, peers, life, work }).await));
        one.handle(TWO, tell(3, Decision::Commit)).await;
        assert_eq!((banks.in_doubt().await, banks.balance(ONE, "a").await), (0, 800));
    });
}

#[test]
fn a_postgresql_that_cannot_promise_is_refused_with_advice_and_without_its_password() {
    run(async {
        let Some(server) = Server::start(&["max_prepared_transactions=0"]) else { return };
        let refusal = agent(&server.url("postgres"), ONE).register().await.expect_err("it cannot prepare");
        assert!(matches!(&refusal, Cannot::Prepare(_)), "{refusal}");
        assert!(refusal.to_string().contains("ALTER SYSTEM SET max_prepared_transactions = 64"), "{refusal}");

        let wrong = server.url("postgres").replace(PASSWORD, "hunter2");
        let refusal = agent(&wrong, ONE).register().await.expect_err("the password is wrong");
        assert!(matches!(&refusal, Cannot::Reach(why) if why.contains("password authentication failed")));
        assert!(!refusal.to_string().contains("hunter2"));

        let shown = agent(&server.url("postgres"), ONE);
        for text in [shown.url().to_owned(), format!("{shown:?}")] {
            assert!(text.contains("127.0.0.1") && !text.contains(PASSWORD), "{text}");
        }
        let malformed = [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h/d?nonsense=hunter2",
            "postgres://u:hunter2@h/d?sslmode=require",
            "postgres://u:hunter2@h",
            "host=h password=hunter2",
        ];
        for url in malformed {
            let error = Postgres::new(url, ONE, Timing::default()).expect_err(url).to_string();
            assert!(error.contains("postgres://USER") && !error.contains("hunter2"), "{error}");
        }
        drop(server);

        let Some(server) = Server::start(&[PREPARES, "fsync=off"]) else { return };
        let refusal = agent(&server.url("postgres"), ONE).register().await.expect_err("it forgets");
        assert!(refusal.to_string().contains("fsync is off"), "{refusal}");
        // A user without rights.
        let client = server.connect("postgres").await;
        client.batch_execute("ALTER SYSTEM SET fsync = on").await.expect("set");
        drop(client);
    });
}

#[test]
fn a_user_without_rights_is_told_which_to_ask_for() {
    run(async {
        let Some(server) = Server::start(&[PREPARES]) else { return };
        server.create_bank("bank1", &[]).await;
        let client = server.connect("bank1").await;
        client.batch_execute("CREATE ROLE guest LOGIN PASSWORD 'guest'").await.expect("created");
        let guest = server.url("bank1").replace("keeper", "guest").replace(PASSWORD, "guest");
        // From version 15 on nobody else may make tables in the public schema.
        client.batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await.expect("revoked");
        let refusal = agent(&guest, ONE).register().await.expect_err("it may not make tables");
        assert!(matches!(&refusal, Cannot::Permission(why) if why.contains("CREATE TABLE")), "{refusal}");

        agent(&server.url("bank1"), ONE).register().await.expect("the owner may");
        let refusal = agent(&guest, ONE).register().await.expect_err("it may not write");
        assert!(matches!(&refusal, Cannot::Permission(why) if why.contains("SELECT, INSERT")), "{refusal}");
        let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON synod_transactions, synod_coordinators, synod_by_hand TO guest";
        client.batch_execute(grant).await.expect("granted");
        agent(&guest, ONE).register().await.expect("now it may");
    });
}

/// Transfers between two databases, many at a time, while coordinators and connections die. Set SYNOD_SEED to replay.
#[test]
fn money_is_conserved_under_concurrent_transfers_while_coordinators_and_connections_die() {
    const ACCOUNTS: u64 = 12;
    const LIVES: usize = 5;
    run(async {
        let Some(mut banks) = Banks::start().await else { return };
        let seed = std::env::var("SYNOD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
        println!("replay: SYNOD_SEED={seed} cargo test -p synod-server --test postgres money_is_conserved");
        let mut rng = Rng::new(seed);
        for client in banks.clients.values() {
            for account in 0..ACCOUNTS {
                let name = format!("x{account}");
                client.execute("INSERT INTO accounts VALUES ($1, 100)", &[&name]).await.expect("inserted");
            }
        }
        let journal = Journal::default();
        let mut committed = 0;
        for life in 0..LIVES {
            banks.connect().await;
            let coordinator = Running::start(COORDINATOR, &journal, &banks.agents, None);
            let mut transfers = tokio::task::JoinSet::new();
            let orders: Vec<_> = (0..24)
                .map(|_| {
                    let (from, to) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS));
                    let amount = rng.below(60) as i64 + 1;
                    let (here, there) = if rng.below(2) == 0 { (ONE, TWO) } else { (TWO, ONE) };
                    BTreeMap::from([
                        (here, add(&format!("x{from}"), -amount)),
                        (there, add(&format!("x{to}"), amount)),
                    ])
                })
                .collect();
            let coordinator = Arc::new(coordinator);
            for order in orders {
                let coordinator = Arc::clone(&coordinator);
                transfers.spawn(async move { coordinator.transact(order).await });
            }
            // All lives but the last end in the middle of something.
            let end = if life + 1 == LIVES { PATIENCE } else { Duration::from_millis(20 + rng.below(200)) };
            let all = async {
                while let Some(done) = transfers.join_next().await {
                    let outcome = done.expect("no panic");
                    committed +=
                        usize::from(outcome.is_some_and(|outcome| outcome.decision == Decision::Commit));
                }
            };
            let _ = tokio::time::timeout(end, all).await;
            if life % 2 == 0 {
                let kill =
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'synod'";
                banks.clients[&ONE].batch_execute(kill).await.expect("killed");
            }
            // On a busy machine all may have been in each other's way so far: one alone is not.
            while life + 1 == LIVES && committed == 0 {
                let alone = BTreeMap::from([(ONE, add("x0", -1)), (TWO, add("x0", 1))]);
                let outcome = coordinator.transact(alone).await.expect("it lives");
                committed += usize::from(outcome.decision == Decision::Commit);
            }
            if life + 1 == LIVES {
                banks.until_nothing_is_in_doubt().await;
                drop(coordinator);
            }
            transfers.abort_all();
        }
        assert!(committed > 0, "something was transferred");
        let mut total = 0;
        let mut marks = Vec::new();
        for client in banks.clients.values() {
            let sum = "SELECT sum(balance)::bigint FROM accounts WHERE name LIKE 'x%'";
            total += client.query_one(sum, &[]).await.expect("a sum").get::<_, i64>(0);
            let sql = "SELECT epoch, number FROM synod_transactions WHERE committed ORDER BY epoch, number";
            let rows = client.query(sql, &[]).await.expect("marks");
            marks.push(rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(i64, i64)>>());
        }
        assert_eq!(total, 2 * 100 * ACCOUNTS as i64, "money is neither made nor lost");
        // What the journal says is what both databases have done, as far as their marks go back.
        let decided = journal.records().into_iter().filter_map(|record| match record {
            CoordinatorRecord::Committed { txn, .. } => Some((txn.epoch as i64, txn.number as i64)),
            _ => None,
        });
        let mut decided: Vec<(i64, i64)> = decided.collect();
        decided.sort_unstable();
        for marks in marks {
            let first = marks.first().copied().unwrap_or_default();
            let expected: Vec<(i64, i64)> = decided.iter().copied().filter(|txn| *txn >= first).collect();
            assert_eq!(marks, expected);
        }
    });
}

#[test]
fn a_participant_that_says_no_aborts_the_transfer_at_the_other_one() {
    run(async {
        let Some(banks) = Banks::start().await else { return };
        let coordinator = Running::start(COORDINATOR, &Journal::default(), &banks.agents, None);
        let overdraft = BTreeMap::from([(ONE, add("b", -1)), (TWO, add("b", 1))]);
        let outcome = coordinator.transact(overdraft).await.expect("it lives");
        assert_eq!(outcome.decision, Decision::Abort);
        let Some(AbortReason::No { participant: ONE, why }) = outcome.why else {
            panic!("{:?}", outcome.why)
        };
        assert!(why.detail().contains("no_overdraft"), "{}", why.detail());
        banks.until_nothing_is_in_doubt().await;
        assert_eq!((banks.balance(ONE, "b").await, banks.balance(TWO, "b").await), (0, 0));
    });
}
