//! The load: clients in a closed loop, each at a member of its own, and what comes of their requests.
//!
//! A client carries its session. Where its member says that only the leader can do something it goes there, and remembers the way; but
//! only to a member on its own side, since a partition between members separates their clients, too.

use super::book::{Book, Number};
use super::wire::{Answer, Wire};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use synod_bench::Histogram;
use synod_protocols::rng::Rng;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

/// Keys that are read and written, each as likely as the others.
pub const KEYS: usize = 1000;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 64;
/// An answer that is not there by then counts as refused.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long a client waits after it was refused.
const PAUSE: Duration = Duration::from_millis(20);

/// When clients stop.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// After so long; requests that are under way end.
    Time(Duration),
    /// After so many writes were begun by all together, or after so long.
    Writes(u64, Duration),
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    pub keyspace: String,
    /// The members of one side, where clients ask.
    pub side: Vec<String>,
    /// Clients at each of them.
    pub clients: u16,
    /// Requests in a hundred that are reads.
    pub reads: u64,
    pub limit: Limit,
    /// What tells the clients' choices from those of other loads.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Reads that were answered, and how long that took.
    pub reads: Histogram,
    /// The same of writes.
    pub writes: Histogram,
    pub reads_refused: u64,
    pub writes_refused: u64,
    /// How stale the stale reads were.
    pub stale: Histogram,
    pub span: Duration,
}

struct Shared {
    load: Load,
    book: Rc<RefCell<Book>>,
    tally: RefCell<Tally>,
    writes_left: RefCell<u64>,
    until: Instant,
}

/// Puts a load on a side and returns what came of it.
pub async fn run(load: Load, book: Rc<RefCell<Book>>) -> Tally {
    let (span, writes) = match load.limit {
        Limit::Time(span) => (span, u64::MAX),
        Limit::Writes(writes, span) => (span, writes),
    };
    let begun = Instant::now();
    let shared = Rc::new(Shared {
        load,
        book,
        tally: RefCell::default(),
        writes_left: RefCell::new(writes),
        until: begun + span,
    });
    let clients = LocalSet::new();
    clients
        .run_until(async {
            let mut running = JoinSet::new();
            for (member, address) in shared.load.side.iter().enumerate() {
                for number in 0..u64::from(shared.load.clients) {
                    let seed = (shared.load.seed << 32) + ((member as u64) << 16) + number;
                    let client = Client::new(Rc::clone(&shared), address, seed);
                    running.spawn_local(client.run());
                }
            }
            while running.join_next().await.is_some() {}
        })
        .await;
    let mut tally = shared.tally.borrow().clone();
    tally.span = begun.elapsed();
    tally
}

struct Client {
    shared: Rc<Shared>,
    home: Wire,
    /// Where what only the leader can do is asked, once the client was sent there.
    leader: Option<Wire>,
    session: Option<String>,
    dice: Rng,
}

impl Client {
    fn new(shared: Rc<Shared>, address: &str, seed: u64) -> Client {
        Client { shared, home: Wire::new(address), leader: None, session: None, dice: Rng::new(seed) }
    }

    async fn run(mut self) {
        while Instant::now() < self.shared.until {
            let key = self.dice.below(KEYS as u64) as usize;
            let answered = if self.dice.below(100) < self.shared.load.reads {
                self.read(key).await
            } else if self.may_write() {
                self.write(key).await
            } else {
                return;
            };
            if !answered {
                sleep(PAUSE).await;
            }
        }
    }

    fn may_write(&self) -> bool {
        let mut left = self.shared.writes_left.borrow_mut();
        let some = *left > 0;
        *left = left.saturating_sub(1);
        some
    }

    async fn read(&mut self, key: usize) -> bool {
        let asked = Instant::now();
        let answer = self.ask("GET", key, "").await;
        let mut tally = self.shared.tally.borrow_mut();
        match answer {
            Some(answer) => {
                tally.reads.record(asked.elapsed());
                let stale = self.shared.book.borrow().staleness(key, number(&answer), asked);
                stale.into_iter().for_each(|age| tally.stale.record(age));
                true
            }
            None => {
                tally.reads_refused += 1;
                false
            }
        }
    }

    async fn write(&mut self, key: usize) -> bool {
        let number = self.shared.book.borrow_mut().begin();
        let asked = Instant::now();
        let answer = self.ask("PUT", key, &format!("{{\"value\":\"{number:0VALUE_BYTES$}\"}}")).await;
        let mut tally = self.shared.tally.borrow_mut();
        if answer.is_some() {
            let now = Instant::now();
            self.shared.book.borrow_mut().end(number, key, asked, now);
            tally.writes.record(now - asked);
        } else {
            tally.writes_refused += 1;
        }
        answer.is_some()
    }

    /// The answer, if the request was carried out.
    async fn ask(&mut self, method: &str, key: usize, body: &str) -> Option<Answer> {
        let asked = timeout(ANSWER_MAX, self.ask_whoever_can(method, key, body)).await;
        let answer = match asked {
            Ok(answer) => answer.filter(Answer::is_success),
            Err(_) => {
                // Its answer may yet come, and would be taken for that to the next request.
                self.home.close();
                None
            }
        };
        match &answer {
            None => self.leader = None,
            Some(answer) => self.session = answer.session.clone().or(self.session.take()),
        }
        answer
    }

    async fn ask_whoever_can(&mut self, method: &str, key: usize, body: &str) -> Option<Answer> {
        let path = format!("/v1/keyspaces/{}/keys/k{key:04}", self.shared.load.keyspace);
        let session = self.session.as_deref();
        let only_leader = method != "GET";
        if only_leader && let Some(leader) = &mut self.leader {
            return leader.ask(method, &path, session, body).await.ok();
        }
        let answer = self.home.ask(method, &path, session, body).await.ok()?;
        let Some(elsewhere) = &answer.elsewhere else { return Some(answer) };
        if !self.shared.load.side.contains(elsewhere) {
            return None;
        }
        let mut leader = Wire::new(elsewhere);
        let answer = leader.ask(method, &path, session, body).await.ok()?;
        self.leader = Some(leader);
        Some(answer)
    }
}

/// Which write a read was answered with.
fn number(answer: &Answer) -> Option<Number> {
    answer.json()["value"].as_str()?.parse().ok()
}
