//! `synod bench transfers`: what all-or-nothing costs between real systems, beside the same two updates without it,
//! and how long a dead coordinator holds things up.
//!
//! Every transfer takes from an account at one place and gives to one at another. With a protocol it is one
//! transaction; without, it is two, one after the other, each at one place: what a program would do that does not care.

mod recovery;

use crate::api::{CallError, Session};
use crate::bank_demo::insist;
use crate::cli::BenchTransfers;
use crate::supervisor::{Ports, Supervisor};
use crate::{Done, Failure, block_on};
use http::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use synod_protocols::rng::Rng;
use tokio::task::LocalSet;

/// What every account holds at first: more than any run can move.
const BALANCE: i64 = 1_000_000_000;
/// Accounts that one transaction fills.
const FILL: u32 = 100;
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long each row is loaded before it counts.
const WARMUP: Duration = Duration::from_secs(1);
/// The code of an abort among errors.
const ABORTED: &str = "aborted";
/// The databases' table.
const TABLE: &str = "synod_bench_accounts";

/// Where an account can be: a participant of transactions.
#[derive(Clone, Debug)]
enum Place {
    /// A keyspace, of this cluster or of another one.
    Keyspace(String),
    /// A PostgreSQL database.
    Database(String),
}

impl Place {
    fn name(&self) -> &str {
        let (Place::Keyspace(name) | Place::Database(name)) = self;
        name
    }

    /// Adds to an account.
    fn add(&self, account: u32, by: i64) -> Value {
        match self {
            Place::Keyspace(_) => json!({"add": {"key": format!("a{account}"), "by": by, "at-least": 0}}),
            Place::Database(_) => json!({
                "sql": format!("update {TABLE} set balance = balance + $1::text::bigint where name = $2"),
                "parameters": [by.to_string(), format!("a{account}")],
                "rows": 1,
            }),
        }
    }

    /// What gives the accounts of a range their first balances.
    fn fill(&self, accounts: std::ops::Range<u32>) -> Vec<Value> {
        match self {
            Place::Keyspace(_) => accounts
                .map(|account| json!({"put": {"key": format!("a{account}"), "value": BALANCE.to_string()}}))
                .collect(),
            Place::Database(_) => vec![
                json!({"sql": format!(
                    "create table if not exists {TABLE} (name text primary key, balance bigint not null)"),
                    "parameters": []}),
                json!({"sql": format!(
                    "insert into {TABLE} select 'a' || n, {BALANCE} from generate_series({}, {}) n \
                     on conflict (name) do update set balance = excluded.balance",
                    accounts.start, i64::from(accounts.end) - 1),
                    "parameters": []}),
            ],
        }
    }
}

/// One row: from where to where, and how.
struct Row {
    name: &'static str,
    from: Place,
    to: Place,
    /// One transaction, or two.
    is_atomic: bool,
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
    let start = |name: &'static str| {
        let folder = folder.join(name);
        async move { Supervisor::start_named(name, &folder, &options.protocol, 3, Ports::Any).await }
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
    for (name, url) in ["db1", "db2"].into_iter().zip(&options.postgres) {
        register(&mut session, name, &json!({"kind": "postgres", "url": url})).await?;
    }
    let rows = planned(clusters, options.postgres.len());
    if !options.json {
        println!("{:<52} {:>12} {:>9} {:>9} {:>7}", "transfers", "each second", "p50 ms", "p99 ms", "failed");
    }
    let mut filled: Vec<String> = Vec::new();
    for row in &rows {
        for place in [&row.from, &row.to] {
            if !filled.iter().any(|name| name == place.name()) {
                fill(&mut session, place, options.accounts).await?;
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
fn planned(clusters: bool, databases: usize) -> Vec<Row> {
    let keyspace = |name: &str| Place::Keyspace(name.into());
    let database = |name: &str| Place::Database(name.into());
    let mut pairs = vec![["two keyspaces: two-phase commit", "two keyspaces: two updates, no protocol"]];
    let mut places = vec![(keyspace("bank1"), keyspace("bank2"))];
    if clusters {
        pairs.push(["two clusters: two-phase commit", "two clusters: two updates, no protocol"]);
        places.push((keyspace("bank1"), keyspace("bank3")));
    }
    if databases > 0 {
        pairs.push([
            "Synod and PostgreSQL: two-phase commit",
            "Synod and PostgreSQL: two updates, no protocol",
        ]);
        places.push((keyspace("bank1"), database("db1")));
    }
    if databases > 1 {
        pairs.push(["two PostgreSQL: two-phase commit", "two PostgreSQL: two updates, no protocol"]);
        places.push((database("db1"), database("db2")));
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
    for first in (0..accounts).step_by(FILL as usize) {
        let work = place.fill(first..accounts.min(first + FILL));
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
        let mut session = Session::new(&cluster.endpoints(), number, PATIENCE);
        let (figures, mut rng) = (Rc::clone(&figures), Rng::new(number as u64 + 1));
        let (from, to, is_atomic) = (row.from.clone(), row.to.clone(), row.is_atomic);
        let accounts = options.accounts;
        tokio::task::spawn_local(async move {
            while Instant::now() < until {
                let requests = requests(&from, &to, is_atomic, &mut rng, accounts);
                let begun = Instant::now();
                let mut done = Ok(());
                for request in &requests {
                    done = done.and(commit(&mut session, request).await.map(drop));
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
                    Err(error) => {
                        figures.failed += 1;
                        figures.last_error = Some(error.to_string());
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

/// The transactions of one transfer, one after the other.
fn requests(from: &Place, to: &Place, is_atomic: bool, rng: &mut Rng, accounts: u32) -> Vec<Value> {
    let mut account = || rng.below(u64::from(accounts)) as u32;
    let (source, target) = (account(), account());
    let amount = 1 + i64::from(source % 100);
    let (take, give) = (from.add(source, -amount), to.add(target, amount));
    let branch = |place: &Place, work: Vec<Value>| json!({"participant": place.name(), "work": work});
    let request = |branches: Vec<Value>| json!({"branches": branches});
    match (is_atomic, from.name() == to.name()) {
        (true, true) => vec![request(vec![branch(from, vec![take, give])])],
        (true, false) => vec![request(vec![branch(from, vec![take]), branch(to, vec![give])])],
        (false, _) => vec![request(vec![branch(from, vec![take])]), request(vec![branch(to, vec![give])])],
    }
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

    #[test]
    fn a_transfer_with_a_protocol_is_one_transaction_and_without_two() {
        let mut rng = Rng::new(1);
        let (one, other) = (Place::Keyspace("bank1".into()), Place::Database("db1".into()));
        let atomic = requests(&one, &other, true, &mut rng, 10);
        assert_eq!((atomic.len(), atomic[0]["branches"].as_array().map(Vec::len)), (1, Some(2)));
        let plain = requests(&one, &other, false, &mut rng, 10);
        assert_eq!((plain.len(), plain[0]["branches"].as_array().map(Vec::len)), (2, Some(1)));
        let single = requests(&one, &one, true, &mut rng, 10);
        assert_eq!((single.len(), single[0]["branches"].as_array().map(Vec::len)), (1, Some(1)));
        let amount = |op: &Value| op["add"]["by"].as_i64().expect("an amount");
        let work = &single[0]["branches"][0]["work"];
        assert_eq!(amount(&work[0]) + amount(&work[1]), 0);
    }

    #[test]
    fn databases_are_measured_where_they_are_named() {
        assert_eq!([0, 1, 2].map(|databases| planned(true, databases).len()), [5, 7, 9]);
        assert_eq!(planned(false, 0).len(), 3);
    }
}
