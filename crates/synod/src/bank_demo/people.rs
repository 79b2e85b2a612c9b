//! Who is about in the demo: clients that pay, a reader that counts the money, an onlooker that looks for doubt, and
//! somebody who kills members.

use super::banks::{Banks, Ended};
use super::tally::Tally;
use crate::api::{CallError, Session, segment};
use crate::cli::Kill;
use crate::failover;
use crate::probe::log::Log;
use crate::supervisor::Supervisor;
use http::Method;
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use synod_check::history::{Call, Outcome, Reply};
use synod_lab::{LiveAction, LiveCluster, LiveVerb};
use synod_protocols::rng::Rng;
use tokio::sync::watch;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// From one count of the money to the next, and after one that was not served.
const COUNT_EVERY: Duration = Duration::from_millis(40);
const COUNT_AGAIN: Duration = Duration::from_millis(5);
/// How often it is looked for transactions in doubt.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a saga is looked at.
const SAGA_EVERY: Duration = Duration::from_millis(20);
/// How long a killed member stays away at the most.
const AWAY_MAX: Duration = Duration::from_millis(1_500);

/// What all of them share.
#[derive(Clone)]
pub struct Scene {
    pub endpoints: Vec<String>,
    pub banks: Banks,
    pub tally: Rc<RefCell<Tally>>,
    pub log: Rc<RefCell<Log>>,
    pub started: Instant,
    /// Becomes true when they shall end.
    pub stop: watch::Receiver<bool>,
}

impl Scene {
    /// A way to the cluster for somebody of this number.
    pub fn session(&self, number: usize) -> Session {
        Session::new(&self.endpoints, number, PATIENCE)
    }

    fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until then, or until all shall end.
    async fn until(&mut self, then: Instant) {
        let _ = tokio::time::timeout_at(then.into(), self.stop.wait_for(|stop| *stop)).await;
    }
}

/// A client pays, one transfer after the other, one every `pause`.
pub async fn pay(mut scene: Scene, number: usize, mut rng: Rng, pause: Duration, by_saga: bool) {
    let mut session = scene.session(number);
    let mut next = Instant::now() + pause.mul_f64(rng.below(1_000) as f64 / 1e3);
    scene.until(next).await;
    while !scene.is_over() {
        let transfer = scene.banks.draw(&mut rng);
        let ticket = scene.log.borrow_mut().invoke(&format!("c{number}"), session.target(), transfer.call());
        let begun = Instant::now();
        let ended = match by_saga {
            false => {
                let request = transfer.transaction();
                Ended::of(session.call(Method::POST, "/v1/transactions", Some(&request)).await)
            }
            true => carry_out(&mut session, &transfer.saga()).await,
        };
        scene.log.borrow_mut().complete(ticket, ended.outcome(None));
        scene.tally.borrow_mut().count(&ended, begun.elapsed());
        // Whoever is late does not catch up: the clients are no queue.
        next = (next + pause).max(Instant::now());
        scene.until(next).await;
    }
}

/// Begins a saga and waits for its end.
async fn carry_out(session: &mut Session, request: &Value) -> Ended {
    let begun = match session.call(Method::POST, "/v1/sagas", Some(request)).await {
        Ok(begun) => begun,
        Err(error) => return Ended::failed(error),
    };
    let Some(path) = begun["saga"].as_str().map(|id| format!("/v1/sagas/{}", segment(id))) else {
        return Ended::Unknown(format!("the answer names no saga: {begun}"));
    };
    // It goes on by itself, so it is waited for much longer than for an answer.
    let until = Instant::now() + 6 * PATIENCE;
    loop {
        let why = match session.read(&path).await {
            Ok(saga) => match saga["state"].as_str() {
                Some("done") => return Ended::Done(saga),
                Some("compensated") => return Ended::aborted(saga["why"].as_str().unwrap_or("undone")),
                state => format!("it is {}", state.unwrap_or("in no known state")),
            },
            // It was over, and a later leader does not remember how: members remember the ends of the latest sagas.
            Err(CallError::Refused { status: 404, message, .. }) => return Ended::Unknown(message),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            return Ended::Unknown(why);
        }
        tokio::time::sleep(SAGA_EVERY).await;
    }
}

/// Counts the money, again and again.
pub async fn count(mut scene: Scene) {
    let mut session = scene.session(0);
    while !scene.is_over() {
        let served = count_once(&scene, &mut session).await.is_ok();
        let pause = if served { COUNT_EVERY } else { COUNT_AGAIN };
        scene.until(Instant::now() + pause).await;
    }
}

/// Counts the money in one transaction. Errors: it was not served.
pub async fn count_once(scene: &Scene, session: &mut Session) -> Result<i64, String> {
    let ticket = scene.log.borrow_mut().invoke("reader", session.target(), Call::new("read"));
    let ended = Ended::of(session.call(Method::POST, "/v1/transactions", Some(&scene.banks.read())).await);
    let read = match &ended {
        Ended::Done(answer) => scene.banks.balances(answer),
        Ended::InTheWay(why) | Ended::Refused(why) | Ended::Unserved(why) | Ended::Unknown(why) => {
            Err(why.clone())
        }
    };
    let money = &mut scene.tally.borrow_mut().money;
    let (outcome, sum) = match read {
        Ok((all, sum)) => {
            money.seen(scene.started.elapsed(), sum);
            (Outcome::Ok(Reply::value(all)), Ok(sum))
        }
        Err(why) => {
            money.unserved += 1;
            // Whatever becomes of a read, it changes nothing.
            (Outcome::fail(&why), Err(why))
        }
    };
    scene.log.borrow_mut().complete(ticket, outcome);
    sum
}

/// Looks for transactions in doubt, again and again.
pub async fn look(mut scene: Scene) {
    let mut session = scene.session(0);
    while !scene.is_over() {
        if let Ok(open) = open(&mut session).await {
            let count = open.iter().filter(|one| one["in-doubt"] == true).count();
            scene.tally.borrow_mut().doubt(count as u64);
        }
        scene.until(Instant::now() + LOOK_EVERY).await;
    }
}

/// The transactions that are not over.
pub async fn open(session: &mut Session) -> Result<Vec<Value>, CallError> {
    let answer = session.read("/v1/transactions?state=open").await?;
    Ok(answer["transactions"].as_array().cloned().unwrap_or_default())
}

/// Kills a member every so often, and starts it again.
pub async fn kill(mut scene: Scene, supervisor: Supervisor, mut rng: Rng, whom: Kill, every: Duration) {
    let away = AWAY_MAX.min(every / 2);
    let mut turn = 0;
    loop {
        scene.until(Instant::now() + every).await;
        if scene.is_over() || whom == Kill::Nobody {
            return;
        }
        let leader = failover::leader(&supervisor).await.ok();
        let names = supervisor.names();
        let drawn = names[rng.below(names.len() as u64) as usize].clone();
        let victim = match (whom, leader.clone()) {
            (Kill::Coordinator, None) => continue,
            (Kill::Coordinator, Some(leader)) => leader,
            (Kill::Any, Some(leader)) if turn % 2 == 0 => leader,
            _ => drawn,
        };
        turn += 1;
        let led = leader.as_ref() == Some(&victim);
        if act(&supervisor, LiveVerb::Kill, &victim).is_err() {
            continue;
        }
        {
            let mut tally = scene.tally.borrow_mut();
            tally.kills += 1;
            tally.coordinators_killed += u64::from(led);
        }
        let what = if led { ", the coordinator" } else { "" };
        scene.log.borrow_mut().note(&format!("kill -9 {victim}{what}"));
        scene.until(Instant::now() + away).await;
        // If it cannot be started now, the end of the demo tries again and tells.
        let _ = act(&supervisor, LiveVerb::Start, &victim);
        scene.log.borrow_mut().note(&format!("{victim} starts again"));
    }
}

/// Does something to a member.
pub fn act(supervisor: &Supervisor, verb: LiveVerb, name: &str) -> Result<(), String> {
    supervisor.act(&LiveAction { verb, node: Some(name.into()), peer: None })
}
