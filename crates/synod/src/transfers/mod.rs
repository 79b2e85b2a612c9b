//! `synod bench transfers`: what all-or-nothing costs between real systems, beside the same two updates without it,
//! and how long a dead coordinator holds things up.
//!
//! Every transfer takes from an account at one place and gives to one at another. With a protocol it is one
//! transaction; without, it is two, one after the other, each at one place, and databases are spoken to without Synod:
//! what a program would do that does not care.

mod places;
mod recovery;

use crate::api::{CallError, Session};
use crate::bank_demo::insist;
use crate::cli::BenchTransfers;
use crate::supervisor::{Ports, Supervisor};
use crate::{Done, Failure, block_on};
use http::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use places::{Database, Direct, Place, told, unusable};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use synod_protocols::rng::Rng;
use tokio::task::LocalSet;

/// Accounts that one transaction fills.
const FILL: u32 = 100;
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long each row is loaded before it counts.
const WARMUP: Duration = Duration::from_secs(1);
/// The code of an abort among errors.
const ABORTED: &str = "aborted";

/// One row: from where to where, and how.
struct Row {
    name: &'static str,
    from: Place,
    to: Place,
    /// One transaction, or two.
    is_atomic: bool,
}

/// One step of a transfer.
#[derive(Clone, Debug)]
enum Step {
    /// A transaction of Synod's.
    Transaction(Value),
    /// A statement sent to a database by itself.
    Update { database: Database, account: u32, by: i64 },
}

/// What a row came to.
struct Figures {
    transfers: u64,
    failed: u64,
    /// In milliseconds, in order.
    took: Vec<f64>,
    last_error: Option<String>,
}

pub fn run(options: &BenchTransfers) -> Done {
    if options.postgres.len() > 2 {
        return Err(Failure::Usage(
            "--postgres takes one or two databases: transfers go from one to the other".into(),
        ));
    }
    block_on(async { LocalSet::new().run_until(measure(options)).await })
}

async fn measure(options: &BenchTransfers) -> Done {
    let temporary = std::env::temp_dir().join(format!("synod-transfers-{}", std::process::id()));
    let folder = options.data_dir.clone().unwrap_or_else(|| temporary.clone());
    let outcome = clusters(options, &folder).await;
    if options.data_dir.is_none() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    outcome
}

/// Starts two clusters, and stops them whatever happens.
async fn clusters(options: &BenchTransfers, folder: &Path) -> Done {
    // A database remembers coordinators by their clusters' names, and takes a new one of an old name for the old one.
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let start = |name: &'static str| {
        let (folder, name) = (folder.join(name), format!("{name}-{since_1970:x}"));
        async move { Supervisor::start_unwatched(&name, &folder, &options.protocol, 3, Ports::Any).await }
    };
    let here = start("bench-1").await.map_err(Failure::Storage)?;
    let outcome = match start("bench-2").await {
        Ok(there) => {
            let outcome = rows(options, &here, &there).await;
            there.stop().await;
            outcome
        }
        Err(why) => Err(Failure::Storage(why)),
    };
    let outcome = match outcome {
        Ok(()) if options.runs > 0 => recovery::measure(options, &here).await,
        other => other,
    };
    here.stop().await;
    outcome
}

async fn rows(options: &BenchTransfers, here: &Supervisor, there: &Supervisor) -> Done {
    let mut session = Session::new(&here.endpoints(), 0, PATIENCE);
    let mut other = Session::new(&there.endpoints(), 0, PATIENCE);
    for name in ["bank1", "bank2"] {
        create(&mut session, name).await?;
    }
    create(&mut other, "bank3").await?;
    let endpoints: Vec<String> =
        there.endpoints().iter().map(|endpoint| format!("http://{endpoint}")).collect();
    let form = json!({"kind": "cluster", "endpoints": endpoints, "keyspace": "bank3"});
    let clusters = match register(&mut session, "bank3", &form).await {
        Ok(_) => true,
        Err(error @ CallError::Refused { .. }) => {
            eprintln!("two clusters are not measured: {error}");
            false
        }
        Err(error) => return Err(error.into()),
    };
    let mut databases = Vec::new();
    for (name, url) in ["db1", "db2"].into_iter().zip(&options.postgres) {
        register(&mut session, name, &json!({"kind": "postgres", "url": url})).await?;
        databases.push(Database { name: name.into(), url: url.clone() });
    }
    let outcome = table(options, here, &mut session, &planned(clusters, &databases)).await;
    for Database { name, url } in &databases {
        let dropped = async { Direct::connect(url).await?.drop_table().await }.await;
        dropped.map_err(|error| unusable(name, &error))?;
    }
    outcome
}

/// Measures the rows, one after the other.
async fn table(options: &BenchTransfers, here: &Supervisor, session: &mut Session, rows: &[Row]) -> Done {
    if !options.json {
        println!("{:<52} {:>12} {:>9} {:>9} {:>7}", "transfers", "each second", "p50 ms", "p99 ms", "failed");
    }
    let mut filled: Vec<String> = Vec::new();
    for row in rows {
        for place in [&row.from, &row.to] {
            if !filled.iter().any(|name| name == place.name()) {
                fill(session, place, options.accounts).await?;
                filled.push(place.name().to_owned());
            }
        }
        let figures = load(options, here, row).await;
        print_row(options, row, &figures);
        if figures.transfers == 0 {
            let why = figures.last_error.unwrap_or_else(|| "nothing was answered".into());
            return Err(Failure::No(format!("{}: no transfer succeeded: {why}", row.name)));
        }
    }
    if !options.json && options.postgres.is_empty() {
        println!("(--postgres URL,URL measures databases too; they must allow prepared transactions)");
    }
    Ok(())
}

/// What is measured, if another cluster takes part and this many databases do.
fn planned(clusters: bool, databases: &[Database]) -> Vec<Row> {
    let keyspace = |name: &str| Place::Keyspace(name.into());
    let mut pairs = vec![["two keyspaces: two-phase commit", "two keyspaces: two updates, no protocol"]];
    let mut places = vec![(keyspace("bank1"), keyspace("bank2"))];
    if clusters {
        pairs.push(["two clusters: two-phase commit", "two clusters: two updates, no protocol"]);
        places.push((keyspace("bank1"), keyspace("bank3")));
    }
    if let Some(database) = databases.first() {
        pairs.push([
            "Synod and PostgreSQL: two-phase commit",
            "Synod and PostgreSQL: two updates, no protocol",
        ]);
        places.push((keyspace("bank1"), Place::Database(database.clone())));
    }
    if let [one, other, ..] = databases {
        pairs.push(["two PostgreSQL: two-phase commit", "two PostgreSQL: two updates, no protocol"]);
        places.push((Place::Database(one.clone()), Place::Database(other.clone())));
    }
    let mut rows = vec![Row {
        name: "one keyspace: one log entry",
        from: keyspace("bank1"),
        to: keyspace("bank1"),
        is_atomic: true,
    }];
    for ([atomic, plain], (from, to)) in pairs.into_iter().zip(places) {
        rows.push(Row { name: atomic, from: from.clone(), to: to.clone(), is_atomic: true });
        rows.push(Row { name: plain, from, to, is_atomic: false });
    }
    rows
}

async fn create(session: &mut Session, name: &str) -> Result<Value, CallError> {
    let path = format!("/v1/keyspaces/{name}");
    let model = json!({"model": "linearizable"});
    insist(Instant::now() + PATIENCE, async || session.call(Method::PUT, &path, Some(&model)).await).await
}

async fn register(session: &mut Session, name: &str, form: &Value) -> Result<Value, CallError> {
    let path = format!("/v1/participants/{name}");
    insist(Instant::now() + PATIENCE, async || session.call(Method::PUT, &path, Some(form)).await).await
}

async fn fill(session: &mut Session, place: &Place, accounts: u32) -> Result<(), Failure> {
    if let Place::Database(Database { name, url }) = place {
        let filled = async { Direct::connect(url).await?.fill(accounts).await }.await;
        return filled.map_err(|error| unusable(name, &error));
    }
    for first in (0..accounts).step_by(FILL as usize) {
        let work = Place::first_balances(first..accounts.min(first + FILL));
        let request = json!({"branches": [{"participant": place.name(), "work": work}]});
        let filled = insist(Instant::now() + PATIENCE, async || commit(session, &request).await).await;
        filled.map_err(|error| Failure::No(format!("{} cannot be filled: {error}", place.name())))?;
    }
    Ok(())
}

/// One transaction; an abort is an error.
async fn commit(session: &mut Session, request: &Value) -> Result<Value, CallError> {
    let answer = session.call(Method::POST, "/v1/transactions", Some(request)).await?;
    match answer["decision"].as_str() {
        Some("commit") => Ok(answer),
        _ => {
            let message = answer["why"].as_str().unwrap_or("no reason was given").to_owned();
            Err(CallError::Refused { status: 503, code: ABORTED.into(), message })
        }
    }
}

/// Clients that transfer, one after the other, until the time is up.
async fn load(options: &BenchTransfers, cluster: &Supervisor, row: &Row) -> Figures {
    let figures =
        Rc::new(RefCell::new(Figures { transfers: 0, failed: 0, took: Vec::new(), last_error: None }));
    let counted_from = Instant::now() + WARMUP;
    let until = counted_from + options.span;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is well formed"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.set_message(row.name);
    let clients = (0..usize::from(options.clients)).map(|number| {
        let mut client = Client::new(cluster, number);
        let (figures, mut rng) = (Rc::clone(&figures), Rng::new(number as u64 + 1));
        let (from, to, is_atomic) = (row.from.clone(), row.to.clone(), row.is_atomic);
        let accounts = options.accounts;
        tokio::task::spawn_local(async move {
            while Instant::now() < until {
                let steps = steps(&from, &to, is_atomic, &mut rng, accounts);
                let begun = Instant::now();
                let mut done = Ok(());
                for step in &steps {
                    done = done.and(client.take(step).await);
                }
                if begun < counted_from || Instant::now() > until {
                    continue;
                }
                let mut figures = figures.borrow_mut();
                match done {
                    Ok(()) => {
                        figures.transfers += 1;
                        figures.took.push(begun.elapsed().as_secs_f64() * 1e3);
                    }
                    Err(why) => {
                        figures.failed += 1;
                        figures.last_error = Some(why);
                    }
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        // A client that panicked has failed to count, and shows as a lower rate.
        let _ = client.await;
    }
    bar.finish_and_clear();
    let mut figures = Rc::into_inner(figures).expect("the clients have ended").into_inner();
    figures.took.sort_by(f64::total_cmp);
    figures
}

/// Who transfers: a session with the cluster, and a connection to each database that it has spoken to by itself.
struct Client {
    session: Session,
    databases: BTreeMap<String, Direct>,
}

impl Client {
    /// The `number`th; they begin at different members.
    fn new(cluster: &Supervisor, number: usize) -> Client {
        Client { session: Session::new(&cluster.endpoints(), number, PATIENCE), databases: BTreeMap::new() }
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        let (Database { name, url }, account, by) = match step {
            Step::Transaction(request) => {
                let committed = commit(&mut self.session, request).await;
                return committed.map(drop).map_err(|error| error.to_string());
            }
            Step::Update { database, account, by } => (database, *account, *by),
        };
        if !self.databases.contains_key(name) {
            let direct = Direct::connect(url).await.map_err(|error| told(&error))?;
            self.databases.insert(name.clone(), direct);
        }
        let direct = self.databases.get_mut(name).expect("it is there now");
        let done = direct.add(account, by).await;
        if done.is_err() {
            // The connection may be what is broken.
            self.databases.remove(name);
        }
        done
    }
}

/// The steps of one transfer, one after the other.
fn steps(from: &Place, to: &Place, is_atomic: bool, rng: &mut Rng, accounts: u32) -> Vec<Step> {
    let mut account = || rng.below(u64::from(accounts)) as u32;
    let (source, target) = (account(), account());
    let amount = 1 + i64::from(source % 100);
    let branch = |place: &Place, work: Vec<Value>| json!({"participant": place.name(), "work": work});
    let transaction = |branches: Vec<Value>| Step::Transaction(json!({"branches": branches}));
    if is_atomic {
        let (take, give) = (from.add(source, -amount), to.add(target, amount));
        return vec![match from.name() == to.name() {
            true => transaction(vec![branch(from, vec![take, give])]),
            false => transaction(vec![branch(from, vec![take]), branch(to, vec![give])]),
        }];
    }
    let alone = |place: &Place, account, by| match place {
        Place::Keyspace(_) => transaction(vec![branch(place, vec![place.add(account, by)])]),
        Place::Database(database) => Step::Update { database: database.clone(), account, by },
    };
    vec![alone(from, source, -amount), alone(to, target, amount)]
}

fn print_row(options: &BenchTransfers, row: &Row, figures: &Figures) {
    let rate = figures.transfers as f64 / options.span.as_secs_f64();
    let at = |percent: usize| {
        let place = (figures.took.len() * percent).div_ceil(100).saturating_sub(1);
        figures.took.get(place).copied().unwrap_or(f64::NAN)
    };
    if options.json {
        println!(
            "{}",
            json!({"row": row.name, "protocol": options.protocol, "clients": options.clients,
                "transfers-per-second": rate, "p50-ms": at(50), "p99-ms": at(99), "failed": figures.failed})
        );
    } else {
        println!("{:<52} {rate:>12.0} {:>9.1} {:>9.1} {:>7}", row.name, at(50), at(99), figures.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database { name: "db1".into(), url: "postgres://localhost/bench".into() }
    }

    fn branches(step: &Step) -> usize {
        let Step::Transaction(request) = step else { return 0 };
        request["branches"].as_array().map_or(0, Vec::len)
    }

    #[test]
    fn a_transfer_with_a_protocol_is_one_transaction_and_without_two_steps() {
        let mut rng = Rng::new(1);
        let (one, other) = (Place::Keyspace("bank1".into()), Place::Database(database()));
        let atomic = steps(&one, &other, true, &mut rng, 10);
        assert_eq!(atomic.iter().map(branches).collect::<Vec<_>>(), [2]);
        let plain = steps(&one, &other, false, &mut rng, 10);
        assert_eq!(plain.iter().map(branches).collect::<Vec<_>>(), [1, 0]);
        assert!(matches!(plain[1], Step::Update { by: 1.., .. }), "{plain:?}");
        let single = steps(&one, &one, true, &mut rng, 10);
        assert_eq!(single.iter().map(branches).collect::<Vec<_>>(), [1]);
        let Step::Transaction(request) = &single[0] else { unreachable!("it has a branch") };
        let amount = |op: &Value| op["add"]["by"].as_i64().expect("an amount");
        let work = &request["branches"][0]["work"];
        assert_eq!(amount(&work[0]) + amount(&work[1]), 0);
    }

    #[test]
    fn databases_are_measured_where_they_are_named() {
        let databases = [database(), database()];
        assert_eq!([0, 1, 2].map(|count| planned(true, &databases[..count]).len()), [5, 7, 9]);
        assert_eq!(planned(false, &[]).len(), 3);
    }
}
